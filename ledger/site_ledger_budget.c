#include "ledger/site_ledger_int.h"

#include "dp/calibrate.h"
#include "dp/noise.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a history may have at one order if it is to convert to the budget there: the inverse of
 * the conversion in dp/accountant_rdp.h. */
static double allowed_at(double order, dure_privacy budget)
{
    return budget.epsilon - log1p(-1 / order) + log(budget.delta * order) / (order - 1);
}

double dure_ledger_filter_order(dure_privacy budget)
{
    double best = 0, order = dure_rdp_orders[DURE_RDP_ORDERS - 1];
    for (size_t i = 0; i < DURE_RDP_ORDERS; i++) {
        /* A Gaussian release costs in proportion to the order. */
        double releases = allowed_at(dure_rdp_orders[i], budget) / dure_rdp_orders[i];
        if (releases <= best) continue;
        best = releases;
        order = dure_rdp_orders[i];
    }
    return order;
}

static double total_at(const dure_rdp *rdp, double order)
{
    for (size_t i = 0; i < DURE_RDP_ORDERS; i++) {
        if (dure_rdp_orders[i] == order) return rdp->total[i];
    }
    return INFINITY; /* an order this version does not keep: nothing more is admitted */
}

/* Everything of the source that counts. */
typedef struct room {
    const dure_ledger_source *source;
    dure_dp_plan *plans; /* owned */
    size_t n_plans;
    dure_rdp before;      /* their cost */
    double sampler_delta; /* what their noise takes of delta, should the whole budget be used */
} room;

static void room_fini(room *r)
{
    free(r->plans);
}

static bool counts(const dure_ledger_item *item, const char *source, bool spent_only)
{
    dure_reservation_state state = item->reservation.state;
    if (state == DURE_RESERVATION_RELEASED) return false;
    if (spent_only && state != DURE_RESERVATION_SPENT) return false;
    return !strcmp(item->reservation.source, source);
}

static dure_err room_init(room *r, const dure_site_ledger *ledger, const dure_ledger_source *source,
                          bool spent_only)
{
    *r = (room){.source = source};
    r->plans = calloc(ledger->n_items + 1, sizeof *r->plans);
    if (!r->plans) return DURE_ERR_NOMEM;
    for (size_t i = 0; i < ledger->n_items; i++) {
        dure_ledger_item *item = &ledger->items[i];
        if (!counts(item, source->name, spent_only)) continue;
        if (!item->has_cost) {
            dure_rdp_add(&item->cost, &item->reservation.plan);
            item->has_cost = true;
        }
        dure_rdp_merge(&r->before, &item->cost);
        r->plans[r->n_plans++] = item->reservation.plan;
        r->sampler_delta += dure_noise_delta(&item->reservation.plan, source->budget.epsilon);
    }
    return DURE_OK;
}

static double epsilon_of(const room *r)
{
    double epsilon = INFINITY;
    dure_dp_history history = {r->plans, r->n_plans};
    dure_err err = dure_calibrate_history(&epsilon, history, r->source->budget.delta);
    return err ? INFINITY : epsilon;
}

/* Whether a later plan of this cost stays within the filter. */
static bool filter_admits(const room *r, const dure_rdp *cost, const dure_dp_plan *plan)
{
    dure_rdp total = r->before;
    dure_privacy budget = r->source->budget;
    budget.delta -= r->sampler_delta + dure_noise_delta(plan, budget.epsilon);
    dure_rdp_merge(&total, cost);
    if (!(budget.delta > 0)) return false;
    return total_at(&total, r->source->order) <= allowed_at(r->source->order, budget);
}

static bool later_fits(const room *r, const dure_dp_plan *plan)
{
    dure_rdp cost = {{0}};
    dure_rdp_add(&cost, plan);
    return filter_admits(r, &cost, plan);
}

/* Rule 3 of the header. */
static dure_err fits(bool *answer, const room *r, const dure_dp_plan *plan)
{
    if (r->n_plans == 0) return dure_calibrate_fits(answer, plan, NULL, r->source->budget);
    *answer = later_fits(r, plan);
    return DURE_OK;
}

/* The most steps of this plan that fit; 0 if none. */
static uint64_t fitting_steps(const room *r, const dure_dp_plan *plan)
{
    dure_dp_plan trial = *plan;
    if (r->n_plans == 0) {
        dure_err err = dure_calibrate_steps(&trial, NULL, r->source->budget, plan->steps - 1, NULL);
        return err ? 0 : trial.steps;
    }
    dure_rdp one = {{0}};
    uint64_t fitting = 0, over = plan->steps;
    trial.steps = 1;
    dure_rdp_add(&one, &trial);
    while (over - fitting > 1) {
        dure_rdp cost = one;
        trial.steps = fitting + (over - fitting) / 2;
        for (size_t i = 0; i < DURE_RDP_ORDERS; i++)
            cost.total[i] *= (double)trial.steps;
        if (filter_admits(r, &cost, &trial))
            fitting = trial.steps;
        else
            over = trial.steps;
    }
    return fitting;
}

/* The least noise with which the plan fits; 0 if none does. */
static uint32_t fitting_sigma(const room *r, dure_dp_plan plan)
{
    if (r->n_plans == 0) {
        dure_err err = dure_calibrate_sigma(&plan, NULL, r->source->budget, NULL);
        return err ? 0 : plan.sigma_num;
    }
    uint32_t low = plan.sigma_num, high = low > DURE_DP_SIGMA_DEN / 4 ? low : DURE_DP_SIGMA_DEN / 4;
    for (;;) {
        plan.sigma_num = high;
        if (later_fits(r, &plan)) break;
        if (high > UINT32_MAX / 2) return 0;
        low = high;
        high *= 2;
    }
    while (high - low > 1) {
        plan.sigma_num = low + (high - low) / 2;
        if (later_fits(r, &plan))
            high = plan.sigma_num;
        else
            low = plan.sigma_num;
    }
    return high;
}

/* The largest batch with which the plan fits; 0 if none does, or where everything takes part. */
static uint64_t fitting_batch(const room *r, const dure_dp_plan *plan)
{
    dure_dp_plan trial = *plan;
    uint64_t fitting = 0, over = plan->mechanism == DURE_DP_SITE_GAUSSIAN ? 0 : plan->batch;
    while (over > fitting + 1) {
        const uint64_t batch = fitting + (over - fitting) / 2;
        bool good = false;
        dure_err err = dure_dp_plan_set_batch(&trial, batch, plan->n_pub, NULL);
        if (!err) err = fits(&good, r, &trial);
        if (err) return 0;
        if (good)
            fitting = batch;
        else
            over = batch;
    }
    return fitting;
}

/* "steps with this noise fit, or all of them with noise X or in batches of B", of what there is. */
static void say_what_fits(char *text, size_t size, const room *r, const dure_dp_plan *plan)
{
    const uint64_t steps = fitting_steps(r, plan), batch = fitting_batch(r, plan);
    dure_dp_plan quieter = *plan;
    quieter.sigma_num = fitting_sigma(r, *plan);
    const double sigma = ceil(dure_dp_plan_sigma(&quieter) * 1e4) / 1e4;
    char few[64] = "", quiet[64] = "", small[64] = "";
    if (steps)
        snprintf(few, sizeof few, "%llu steps with this noise fit", (unsigned long long)steps);
    if (quieter.sigma_num)
        snprintf(quiet, sizeof quiet, "%s %.5g",
                 steps ? ", or all of them with noise" : "with noise", sigma);
    const char *before = quieter.sigma_num ? " or " : steps ? ", or all of them " : "";
    if (batch)
        snprintf(small, sizeof small, "%sin batches of %llu", before, (unsigned long long)batch);
    if (!steps && !quieter.sigma_num && !batch)
        snprintf(text, size, "no plan of this kind fits any more");
    else
        snprintf(text, size, "%s%s%s%s", few, quiet, small, steps ? "" : " it fits");
}

static dure_err refuse(const room *r, const dure_dp_plan *plan, dure_diag *diag)
{
    char would_fit[192];
    dure_privacy budget = r->source->budget;
    double before = epsilon_of(r), after = INFINITY;
    dure_dp_history history = {r->plans, r->n_plans};
    dure_err err = dure_calibrate_epsilon(&after, plan, &history, budget.delta);
    if (err) return err;
    say_what_fits(would_fit, sizeof would_fit, r, plan);
    return dure_diag_set(
        diag, DURE_ERR_BUDGET,
        "the privacy budget of '%s' does not allow this plan: %llu steps with "
        "noise %.5g would bring it from epsilon %.4g to %.4g of %.4g allowed at "
        "delta %.3g%s; %s",
        r->source->name, (unsigned long long)plan->steps, dure_dp_plan_sigma(plan), before, after,
        budget.epsilon, budget.delta,
        after <= budget.epsilon ? ", past the filter that later plans are held to" : "", would_fit);
}

dure_err dure_ledger_check_fits(dure_site_ledger *ledger, const dure_ledger_source *source,
                                const dure_dp_plan *plan, dure_diag *diag)
{
    room r;
    bool good = false;
    dure_err err = room_init(&r, ledger, source, false);
    if (!err) err = fits(&good, &r, plan);
    if (!err && !good) err = refuse(&r, plan, diag);
    room_fini(&r);
    return err;
}

dure_err dure_ledger_least_noise(dure_dp_plan *plan, const dure_site_ledger *ledger,
                                 const dure_ledger_source *source, dure_diag *diag)
{
    room r;
    dure_dp_plan bare = *plan;
    bare.sigma_num = 0;
    dure_err err = room_init(&r, ledger, source, false);
    uint32_t least = err ? 0 : fitting_sigma(&r, bare);
    if (!err && least == 0 && r.n_plans == 0 && plan->adaptive.count_sigma_num)
        err = dure_diag_set(diag, DURE_ERR_BUDGET,
                            "the privacy budget of '%s', epsilon %.4g at delta %.3g, does not "
                            "allow %llu steps with noise %.4g on the count that the clip follows; "
                            "give it more noise, or fix the clip",
                            source->name, source->budget.epsilon, source->budget.delta,
                            (unsigned long long)plan->steps, dure_dp_plan_count_sigma(plan));
    else if (!err && least == 0 && r.n_plans == 0)
        err = dure_diag_set(diag, DURE_ERR_BUDGET,
                            "the privacy budget of '%s', epsilon %.4g at delta %.3g, does not "
                            "allow %llu steps, whatever the noise; take fewer steps or a smaller "
                            "batch",
                            source->name, source->budget.epsilon, source->budget.delta,
                            (unsigned long long)plan->steps);
    else if (!err && least == 0)
        err =
            dure_diag_set(diag, DURE_ERR_BUDGET,
                          "the privacy budget of '%s', epsilon %.4g at delta %.3g, is used up: "
                          "plans so far (%zu) have committed epsilon %.4g of it, and no amount of "
                          "noise lets another %llu steps fit; see 'dure privacy status', and "
                          "train on records of another source",
                          source->name, source->budget.epsilon, source->budget.delta, r.n_plans,
                          epsilon_of(&r), (unsigned long long)plan->steps);
    if (!err) plan->sigma_num = least;
    room_fini(&r);
    return err;
}

void dure_ledger_status(dure_source_status *out, const dure_site_ledger *ledger,
                        const dure_ledger_source *source)
{
    room spent, all;
    dure_privacy budget = source->budget;
    *out = (dure_source_status){.budget = budget, .n_pub = source->n_pub, .order = source->order};
    snprintf(out->name, sizeof out->name, "%s", source->name);
    dure_err err = room_init(&spent, ledger, source, true);
    dure_err all_err = room_init(&all, ledger, source, false);
    out->epsilon_spent = err ? INFINITY : epsilon_of(&spent);
    out->epsilon_committed = out->epsilon_spent;
    if (err || all_err || all.n_plans != spent.n_plans)
        out->epsilon_committed = all_err ? INFINITY : epsilon_of(&all);
    out->n_spent = spent.n_plans;
    out->n_reserved = all.n_plans - spent.n_plans;
    out->epsilon_remaining = fmax(0, budget.epsilon - out->epsilon_committed);
    out->epsilon_committed_rdp =
        dure_rdp_to_epsilon(dure_rdp_orders, all.before.total, DURE_RDP_ORDERS, budget.delta, NULL);
    budget.delta -= all.sampler_delta;
    out->filter_used =
        budget.delta > 0 ? total_at(&all.before, source->order) / allowed_at(source->order, budget)
                         : INFINITY;
    for (size_t i = 0; i < ledger->n_items; i++) {
        const dure_reservation *r = &ledger->items[i].reservation;
        out->n_released += r->state == DURE_RESERVATION_RELEASED && !strcmp(r->source, out->name);
    }
    room_fini(&spent);
    room_fini(&all);
}
