/* Accountant of noise shares inside a secure sum: DURE_DP_SITE_GAUSSIAN, one round a step, q = 1.
 *
 * Of h independent discrete Gaussian shares of variance V, the sum Z on Z^d hides a shift of
 * Euclidean length at most G with Renyi divergence
 *     D_alpha(Z || Z + shift) <= min{ alpha G^2 / (2 h V) + tau d,
 *                                     alpha / 2 (G / sqrt(h V) + tau sqrt(d))^2 },
 *     tau = 10 sum_{k = 1}^{h - 1} exp(-2 pi^2 V k / (k + 1))
 * (Kairouz, Liu, Steinke 2021, arXiv 2102.06387, proposition 14, whose main theorem 1 it serves).
 * The second form is rho-zCDP, rho = 1/2 (G / sqrt(h V) + tau sqrt(d))^2; rho adds over rounds,
 * also when a round's update depends on what earlier ones released (Bun, Steinke 2016, lemma 2.3).
 * Every share beyond h and the colluders' own are independent of these: post-processing.
 *
 * Neighbours: one site's update is its own or the zero vector, and that it takes part is public
 * (zero-out), so the sensitivity is G grid units, which stand for the clip C.
 *
 * Conversion to (epsilon, delta): arXiv 2004.00010, proposition 12, valid at every order. The best
 * order is found by bisection, and any order gives an upper bound: what is found badly costs
 * tightness, never truth. Rounding: integers are exact up to h V < 2^53; each of the few operations
 * after that is off by a unit in the last place at most (log and exp by two), and every figure is
 * raised by more than all of them together before it is handed out. */
#pragma once

#include "common/err.h"
#include "dp/plan.h"

#include <stddef.h>

/* tau of the plan's shares, not below it; positive. */
double dure_zcdp_tau(const dure_dp_plan *plan);
/* rho of all the plan's rounds, not below it; infinite without noise. */
double dure_zcdp_rho(const dure_dp_plan *plan);
/* The same of all of them together. */
double dure_zcdp_rho_all(const dure_dp_plan *plans, size_t n);
/* The first form of the bound for one round at an order alpha > 1: what shares nothing with rho but
 * the plan's integers. */
double dure_zcdp_rdp(const dure_dp_plan *plan, double alpha);

/* The smallest epsilon at 0 < delta < 1 that rho gives, rounded up; infinite for infinite rho. */
double dure_zcdp_epsilon(double rho, double delta);
/* The smallest delta at epsilon >= 0 that rho gives, rounded up, at most 1. */
double dure_zcdp_delta(double rho, double epsilon);
