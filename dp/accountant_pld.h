/* Privacy loss distributions: the tight accountant, and the default.
 *
 * The mechanisms are Poisson-subsampled Gaussians; any mix of plans composes. Both directions of
 * add/remove are composed on their own and the larger result is the answer (one worst pair does
 * not survive composition: arXiv 2405.20769). Answers are upper bounds.
 *
 * Closed forms where there are any: plans with q = 1 alone are one Gaussian, and a single step is
 * inverted directly (dp/gaussian.h). Otherwise connect the dots (dp/loss_grid.h) and FFT, with the
 * step's masses weighted by e^(lambda loss), where lambda + 1 is about the best Renyi order:
 *
 * 1. On the grid, each step's loss has dominating masses p_j; M(lambda) = sum p_j e^(lambda l_j)
 * and p~_j = p_j e^(lambda l_j) / M. The composition's masses are p~*...*p~ times e^(K - lambda l),
 *    K the sum of the log M. So
 *        delta(epsilon) = sum over l > epsilon of (1 - e^(epsilon - l)) e^(K - lambda l) p~(l) +
 * inf, inf at most the sum of the steps' masses beyond reach, which count as lost altogether.
 * 2. An error of total mass E in the composed p~ changes delta(epsilon) by at most
 *        E e^(K - lambda epsilon) max over t of (1 - e^-t) e^(-lambda t),
 *    that is E times what the Renyi accountant says at order lambda + 1. This is added. E is the
 * sum of
 *    - tail: the composed p~ beyond the window's upper end b, at most exp(K(lambda + theta) -
 *      K(lambda) - theta b) for any theta > 0, K being that of the masses on the grid. Cyclic
 *      convolution moves it, and what lies below the window, to other places in the window, which
 *      only adds to delta;
 *    - round-off: each of the transform's values c_k of a step is off by e at most (dp/fft.h; the
 *      two directions share one transform as real and imaginary part, so 2 times its factor), c_k^T
 *      thus by T e (|c_k| + e)^(T-1), the power itself by (T - 1) sqrt(5) u |c_k|^T, and the
 * masses, by Cauchy and Schwarz, by the root of the sum of the squares in all, plus the backward
 *      transform's own, its relative error times the length of what it transforms.
 * 3. The masses of one step are right to 2^-42 of themselves (the arithmetic of normal_mass(), exp
 * and the edges errs by some tens of ulp, by some hundreds far in the tails), which delta is raised
 *    for by 4e-13 T + 1e-10 of itself; that they are differences when split between two points a
 *    distance w apart amplifies this by 1/w, and for this 2^-40 / w of each is moved up.
 *
 * The spacing is chosen so that epsilon is within about 2e-4 of itself: splitting a mass over w
 * adds w^2 / 6 to a step's variance, so T (lambda + 1) w^2 / 12 to epsilon. It is not made finer
 * than 2e-5, so where losses are smaller than that the answer stays high. */
#pragma once

#include "common/err.h"
#include "dp/plan.h"

#include <stddef.h>

/* Different kinds of step that are composed; each costs two transforms. */
#define DURE_PLD_EVENTS_MAX 64

/* The smallest epsilon >= 0 that was found for the composition of plans[0..n) at delta; infinite
 * if one has no noise, 0 for none. Of a plan, rate, sigma and steps count. DURE_ERR_USAGE unless
 * 0 < delta < 1; DURE_ERR_LIMIT for more kinds of step than are composed, or losses beyond any
 * grid; DURE_ERR_NOMEM. *epsilon is infinite on failure. */
DURE_MUST_USE dure_err dure_pld_epsilon(double *epsilon, const dure_dp_plan *plans, size_t n,
                                        double delta);
/* The smallest delta at epsilon >= 0, at most 1; 1 on failure. */
DURE_MUST_USE dure_err dure_pld_delta(double *delta, const dure_dp_plan *plans, size_t n,
                                      double epsilon);
