/* Renyi accountant of the Poisson-subsampled Gaussian mechanism, add/remove adjacency.
 *
 * RDP of one step: Mironov, Talwar, Zhang 2019 (arXiv 1908.10530), section 3.3, at integer and
 * fractional orders; at fractional ones in the absolute form, an upper bound that never cancels, or
 * the bound of the next integer order where that is smaller.
 * Steps and events compose by addition at every order. Conversion to (epsilon, delta): Canonne,
 * Kamath, Steinke 2020 (arXiv 2004.00010), proposition 12, the smallest over the orders.
 *
 * Figures are doubles; an accountant of more than one event adds each one's steps, so a ledger's
 * whole history is one accountant. */
#pragma once

#include "common/err.h"
#include "dp/plan.h"

#include <stdbool.h>
#include <stddef.h>

/* epsilon(alpha) of one step: infinite for sigma 0, 0 for rate 0, alpha / (2 sigma^2) for rate 1.
 * alpha > 1, 0 <= rate <= 1, sigma >= 0. */
double dure_rdp_step(double rate, double sigma, double alpha);

/* The smallest epsilon over orders[0..n) with rdp[0..n), at delta; *order (may be NULL) is the
 * one that gives it. Infinite if no order does. 0 < delta < 1. */
double dure_rdp_to_epsilon(const double *orders, const double *rdp, size_t n, double delta,
                           double *order);

#define DURE_RDP_ORDERS 169
/* 1.1 to 10.9 by tenths, 11 to 63, then coarser up to 1024. */
extern const double dure_rdp_orders[DURE_RDP_ORDERS];

/* What has been composed so far. Plain data; {0} is the empty history. */
typedef struct dure_rdp {
    double total[DURE_RDP_ORDERS];
} dure_rdp;

/* Adds plan->steps steps. The plan's rate, sigma and steps are used, nothing else; of a site's plan
 * its shares, as in dp/accountant_zcdp.h. */
void dure_rdp_add(dure_rdp *rdp, const dure_dp_plan *plan);
/* Adds another history. */
void dure_rdp_merge(dure_rdp *rdp, const dure_rdp *other);

/* epsilon at delta of all that was added; 0 for an empty history. DURE_ERR_USAGE unless
 * 0 < delta < 1. */
DURE_MUST_USE dure_err dure_rdp_epsilon(double *epsilon, const dure_rdp *rdp, double delta);
