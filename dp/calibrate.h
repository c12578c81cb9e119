/* From a privacy target to a plan, always on the safe side: the plan that comes out, accounted
 * with its own rounded rationals, is at or below the target.
 *
 * `before` (NULL: nothing) is what the same data have spent already; the result composes with
 * it. */
#pragma once

#include "common/err.h"
#include "dp/accountant_rdp.h"
#include "dp/plan.h"

/* epsilon of the plan at delta, after `before`; infinite for sigma 0. */
DURE_MUST_USE dure_err dure_calibrate_epsilon(double *epsilon, const dure_dp_plan *plan,
                                              const dure_rdp *before, double delta);

/* Sets plan->sigma_num to the smallest that meets the target for the plan's rate and steps.
 * DURE_ERR_BUDGET with a sentence if no sigma does (what was spent before is over it). */
DURE_MUST_USE dure_err dure_calibrate_sigma(dure_dp_plan *plan, const dure_rdp *before,
                                            dure_privacy target, dure_diag *diag);

/* Sets plan->steps to the most that meet the target with the plan's rate and sigma, at most
 * `most`. DURE_ERR_BUDGET with a sentence if not even one step does. */
DURE_MUST_USE dure_err dure_calibrate_steps(dure_dp_plan *plan, const dure_rdp *before,
                                            dure_privacy target, uint64_t most, dure_diag *diag);
