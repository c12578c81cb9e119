#include "dp/calibrate.h"

#include "dp/accountant_pld.h"
#include "dp/accountant_rdp.h"
#include "dp/accountant_zcdp.h"
#include "dp/noise.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MARGIN (1.0 / 3000)
/* Searches end at this part of what they look for. */
#define FINENESS 8000

const char *dure_calibrate_accountant(const dure_dp_plan *plan)
{
    return plan->mechanism == DURE_DP_SITE_GAUSSIAN ? "zCDP" : "PLD";
}

/* What the noise of all plans takes of delta where epsilon holds. */
static double sampler_delta(dure_dp_history h, double epsilon)
{
    double sum = 0;
    for (size_t i = 0; i < h.n; i++)
        sum += dure_noise_delta(&h.plans[i], epsilon);
    return sum;
}

static dure_err account(double *epsilon, dure_dp_history h, double delta)
{
    *epsilon = INFINITY;
    if (!(delta > 0)) return DURE_OK; /* the sampler's part is all of it */
    size_t n_site = 0;
    for (size_t i = 0; i < h.n; i++)
        n_site += h.plans[i].mechanism == DURE_DP_SITE_GAUSSIAN;
    if (n_site > 0 && n_site < h.n) return DURE_ERR_USAGE; /* they protect different units */
    if (n_site > 0) {
        *epsilon = dure_zcdp_epsilon(dure_zcdp_rho_all(h.plans, h.n), delta);
        return DURE_OK;
    }
    dure_err err = dure_pld_epsilon(epsilon, h.plans, h.n, delta);
    if (err != DURE_ERR_LIMIT) return err;
    dure_rdp rdp = {{0}};
    for (size_t i = 0; i < h.n; i++)
        dure_rdp_add(&rdp, &h.plans[i]);
    return dure_rdp_epsilon(epsilon, &rdp, delta);
}

dure_err dure_calibrate_history(double *epsilon, dure_dp_history history, double delta)
{
    *epsilon = INFINITY;
    if (!(delta > 0 && delta < 1)) return DURE_ERR_USAGE;
    /* The sampler's part grows with epsilon, which is not known yet. It is tiny: a first guess
     * leaves room, and is checked. */
    double part = sampler_delta(history, 0) > 0 ? delta * 0x1p-30 : 0;
    for (;;) {
        dure_err err = account(epsilon, history, delta - part);
        if (err || isinf(*epsilon)) return err;
        double needed = sampler_delta(history, *epsilon);
        if (needed <= part) return DURE_OK;
        part = 2 * needed;
    }
}

/* The plan and what was before it, in one array that the caller frees. */
static dure_err join(dure_dp_plan **all, dure_dp_history *out, const dure_dp_plan *plan,
                     const dure_dp_history *before)
{
    size_t n = before ? before->n : 0;
    *all = calloc(n + 1, sizeof **all);
    *out = (dure_dp_history){*all, n + 1};
    if (!*all) return DURE_ERR_NOMEM;
    if (n) memcpy(*all, before->plans, n * sizeof **all);
    (*all)[n] = *plan;
    return DURE_OK;
}

dure_err dure_calibrate_epsilon(double *epsilon, const dure_dp_plan *plan,
                                const dure_dp_history *before, double delta)
{
    dure_dp_plan *all;
    dure_dp_history history;
    *epsilon = INFINITY;
    dure_err err = join(&all, &history, plan, before);
    if (!err) err = dure_calibrate_history(epsilon, history, delta);
    free(all);
    return err;
}

dure_err dure_calibrate_fits(bool *fits, const dure_dp_plan *plan, const dure_dp_history *before,
                             dure_privacy target)
{
    double epsilon = INFINITY;
    dure_err err = dure_calibrate_epsilon(&epsilon, plan, before, target.delta);
    *fits = !err && epsilon <= target.epsilon;
    return err;
}

static dure_privacy with_margin(dure_privacy target)
{
    return (dure_privacy){target.epsilon * (1 - MARGIN), target.delta};
}

dure_err dure_calibrate_sigma(dure_dp_plan *plan, const dure_dp_history *before,
                              dure_privacy target, dure_diag *diag)
{
    bool fits = false;
    dure_err err = dure_privacy_check(target, diag);
    if (err) return err;
    dure_privacy aim = with_margin(target);
    dure_dp_plan trial = *plan;
    /* Doubling finds a sigma that meets the target, halving the gap keeps the upper end. Both walk
     * over the integers that are stored, so no rounding comes after the last check. */
    uint32_t low = 0, high = DURE_DP_SIGMA_DEN / 4;
    for (;;) {
        trial.sigma_num = high;
        err = dure_calibrate_fits(&fits, &trial, before, aim);
        if (err || fits) break;
        if (high > UINT32_MAX / 2)
            return dure_diag_set(
                diag, DURE_ERR_BUDGET,
                "no amount of noise keeps %llu steps within epsilon %g at delta %g%s",
                (unsigned long long)plan->steps, target.epsilon, target.delta,
                plan->adaptive.count_sigma_num
                    ? "; give the count that the clip follows more noise, or fix the clip"
                    : "");
        low = high;
        high *= 2;
    }
    while (!err && high - low > 1 + high / FINENESS) {
        trial.sigma_num = low + (high - low) / 2;
        err = dure_calibrate_fits(&fits, &trial, before, aim);
        if (fits)
            high = trial.sigma_num;
        else
            low = trial.sigma_num;
    }
    if (!err) plan->sigma_num = high;
    return err;
}

dure_err dure_calibrate_steps(dure_dp_plan *plan, const dure_dp_history *before,
                              dure_privacy target, uint64_t most, dure_diag *diag)
{
    bool good = false;
    dure_err err = dure_privacy_check(target, diag);
    if (err) return err;
    dure_privacy aim = with_margin(target);
    if (most > DURE_DP_STEPS_MAX) most = DURE_DP_STEPS_MAX;
    dure_dp_plan trial = *plan;
    uint64_t fits = 0, over = most + 1;
    /* Doubling first: long plans are slow to account for. */
    for (uint64_t steps = 1; !err && steps <= most; steps *= 2) {
        trial.steps = steps;
        err = dure_calibrate_fits(&good, &trial, before, aim);
        if (!good) {
            over = steps;
            break;
        }
        fits = steps;
    }
    if (!err && fits == 0)
        return dure_diag_set(diag, DURE_ERR_BUDGET,
                             "not even one step with this noise and sampling rate stays within "
                             "epsilon %g at delta %g",
                             target.epsilon, target.delta);
    while (!err && over - fits > 1 + fits / FINENESS) {
        trial.steps = fits + (over - fits) / 2;
        err = dure_calibrate_fits(&good, &trial, before, aim);
        if (good)
            fits = trial.steps;
        else
            over = trial.steps;
    }
    if (!err) plan->steps = fits;
    return err;
}
