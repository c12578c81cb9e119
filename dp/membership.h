/* What an (epsilon, delta) curve means for one unit: how often a test for membership can be right.
 *
 * A test that looks at all that a plan releases, and says "was there" of a share fpr of those that
 * were not, says so of at most e^epsilon fpr + delta(epsilon) of those that were, at every epsilon
 * (Wasserman and Zhou 2010; Kairouz et al. 2015); the least over all epsilon is the best bound, and
 * for Gaussians what the best test reaches wherever it says so of less of those that were not than
 * it misses of those that were (else 1 is little above it). Any epsilon gives a bound, so a search
 * that ends early is still right. */
#pragma once

#include "common/err.h"
#include "dp/plan.h"

#include <stddef.h>

/* The largest true-positive rate of a test with this false-positive rate, against the composition
 * of plans[0..n), all of one unit, n >= 1; 1 without noise and on failure. DURE_ERR_USAGE unless
 * 0 < fpr <= 1/2, else errors as of dure_pld_delta(), which it asks some 25 times. */
DURE_MUST_USE dure_err dure_membership_most(double *tpr, const dure_dp_plan *plans, size_t n,
                                            double fpr);
