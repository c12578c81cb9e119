#include "dp/calibrate.h"

#include <math.h>

static double epsilon_of(const dure_dp_plan *plan, const dure_rdp *before, double delta)
{
    dure_rdp rdp = {{0}};
    if (before) rdp = *before;
    dure_rdp_add(&rdp, plan);
    return dure_rdp_to_epsilon(dure_rdp_orders, rdp.total, DURE_RDP_ORDERS, delta, NULL);
}

dure_err dure_calibrate_epsilon(double *epsilon, const dure_dp_plan *plan, const dure_rdp *before,
                                double delta)
{
    *epsilon = INFINITY;
    if (!(delta > 0 && delta < 1)) return DURE_ERR_USAGE;
    *epsilon = epsilon_of(plan, before, delta);
    return DURE_OK;
}

dure_err dure_calibrate_sigma(dure_dp_plan *plan, const dure_rdp *before, dure_privacy target,
                              dure_diag *diag)
{
    dure_err err = dure_privacy_check(target, diag);
    if (err) return err;
    dure_dp_plan trial = *plan;
    /* Doubling finds a sigma that meets the target, halving the gap keeps the upper end. Both walk
     * over the integers that are stored, so no rounding comes after the last check. */
    uint32_t low = 0, high = DURE_DP_SIGMA_DEN / 4;
    for (;;) {
        trial.sigma_num = high;
        if (epsilon_of(&trial, before, target.delta) <= target.epsilon) break;
        if (high > UINT32_MAX / 2)
            return dure_diag_set(diag, DURE_ERR_BUDGET,
                                 "no amount of noise keeps %llu steps within epsilon %g at delta "
                                 "%g",
                                 (unsigned long long)plan->steps, target.epsilon, target.delta);
        low = high;
        high *= 2;
    }
    while (high - low > 1) {
        trial.sigma_num = low + (high - low) / 2;
        if (epsilon_of(&trial, before, target.delta) <= target.epsilon)
            high = trial.sigma_num;
        else
            low = trial.sigma_num;
    }
    plan->sigma_num = high;
    return DURE_OK;
}

/* epsilon of `steps` steps, each costing `step`, on top of `before`. */
static double epsilon_of_steps(const dure_rdp *step, const dure_rdp *before, uint64_t steps,
                               double delta)
{
    dure_rdp rdp = {{0}};
    if (before) rdp = *before;
    for (size_t i = 0; i < DURE_RDP_ORDERS; i++)
        rdp.total[i] += (double)steps * step->total[i];
    return dure_rdp_to_epsilon(dure_rdp_orders, rdp.total, DURE_RDP_ORDERS, delta, NULL);
}

dure_err dure_calibrate_steps(dure_dp_plan *plan, const dure_rdp *before, dure_privacy target,
                              uint64_t most, dure_diag *diag)
{
    dure_err err = dure_privacy_check(target, diag);
    if (err) return err;
    if (most > DURE_DP_STEPS_MAX) most = DURE_DP_STEPS_MAX;
    dure_dp_plan one = *plan;
    one.steps = 1;
    dure_rdp step = {{0}};
    dure_rdp_add(&step, &one);
    if (most == 0 || epsilon_of_steps(&step, before, 1, target.delta) > target.epsilon)
        return dure_diag_set(diag, DURE_ERR_BUDGET,
                             "not even one step with this noise and sampling rate stays within "
                             "epsilon %g at delta %g",
                             target.epsilon, target.delta);
    uint64_t fits = 1, over = most + 1;
    while (over - fits > 1) {
        uint64_t middle = fits + (over - fits) / 2;
        if (epsilon_of_steps(&step, before, middle, target.delta) <= target.epsilon)
            fits = middle;
        else
            over = middle;
    }
    plan->steps = fits;
    return DURE_OK;
}
