/* From a privacy target to a plan, always on the safe side: the plan that comes out, accounted
 * with its own rounded rationals, is at or below the target.
 *
 * Everything here is the PLD accountant's (dp/accountant_pld.h), at a delta from which the noise
 * sampler's part (dure_noise_delta()) has been taken first. Where that accountant has too much to
 * do (DURE_PLD_EVENTS_MAX different kinds of step) the Renyi accountant answers, which is sound,
 * too. Plans that protect a site are the zCDP accountant's (dp/accountant_zcdp.h) and compose among
 * themselves alone: records and sites are different units, and a history of both is refused with
 * DURE_ERR_USAGE.
 *
 * `before` (NULL: nothing) is what the same data have spent already, and composes. It has to have
 * been fixed together with the plan: for a plan that is chosen later, because of what came out of
 * earlier ones, composition of the two says nothing and a filter is needed (ledger/site_ledger.h).
 */
#pragma once

#include "common/err.h"
#include "dp/plan.h"

#include <stdbool.h>
#include <stddef.h>

/* "PLD", or "zCDP" for a plan that protects a site. */
const char *dure_calibrate_accountant(const dure_dp_plan *plan);

typedef struct dure_dp_history {
    const dure_dp_plan *plans; /* borrowed */
    size_t n;
} dure_dp_history;

/* epsilon at delta of all of them; 0 for none, infinite without noise. DURE_ERR_USAGE unless
 * 0 < delta < 1; DURE_ERR_NOMEM. *epsilon is infinite on failure. */
DURE_MUST_USE dure_err dure_calibrate_history(double *epsilon, dure_dp_history history,
                                              double delta);

/* epsilon of the plan at delta, after `before`; as above. */
DURE_MUST_USE dure_err dure_calibrate_epsilon(double *epsilon, const dure_dp_plan *plan,
                                              const dure_dp_history *before, double delta);

/* Whether the plan, after `before`, keeps the target. */
DURE_MUST_USE dure_err dure_calibrate_fits(bool *fits, const dure_dp_plan *plan,
                                           const dure_dp_history *before, dure_privacy target);

/* Sets plan->sigma_num to the least that meets the target for the plan's rate and steps, to one
 * part in 8,000 and with a margin of 1/3000 of epsilon, more than the accountant's answers vary by
 * from machine to machine: what one machine calibrated another finds within the target.
 * DURE_ERR_BUDGET with a sentence if no sigma does (what was spent before is over it). */
DURE_MUST_USE dure_err dure_calibrate_sigma(dure_dp_plan *plan, const dure_dp_history *before,
                                            dure_privacy target, dure_diag *diag);

/* Sets plan->steps to the most that meet the target with the plan's rate and sigma, at most
 * `most`, to one part in 8,000 and with the same margin. DURE_ERR_BUDGET with a sentence if not
 * even one step does. */
DURE_MUST_USE dure_err dure_calibrate_steps(dure_dp_plan *plan, const dure_dp_history *before,
                                            dure_privacy target, uint64_t most, dure_diag *diag);
