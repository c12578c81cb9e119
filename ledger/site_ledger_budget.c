#include "ledger/site_ledger_int.h"

#include <math.h>
#include <stdio.h>
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

static double epsilon_of(const dure_rdp *rdp, double delta)
{
    return dure_rdp_to_epsilon(dure_rdp_orders, rdp->total, DURE_RDP_ORDERS, delta, NULL);
}

/* Everything of the source that counts; returns how many plans that is. */
static size_t committed(dure_rdp *total, const dure_site_ledger *ledger,
                        const dure_ledger_source *source, bool spent_only)
{
    size_t n = 0;
    *total = (dure_rdp){{0}};
    for (size_t i = 0; i < ledger->n_items; i++) {
        dure_ledger_item *item = &ledger->items[i];
        dure_reservation_state state = item->reservation.state;
        if (strcmp(item->reservation.source, source->name) != 0) continue;
        if (state == DURE_RESERVATION_RELEASED) continue;
        if (spent_only && state != DURE_RESERVATION_SPENT) continue;
        if (!item->has_cost) {
            dure_rdp_add(&item->cost, &item->reservation.plan);
            item->has_cost = true;
        }
        dure_rdp_merge(total, &item->cost);
        n++;
    }
    return n;
}

/* The question that is asked of many plans while looking for one that fits. */
typedef struct room {
    const dure_ledger_source *source;
    dure_rdp before;
    size_t n_before;
} room;

/* Whether `times` times `cost` fits beside what is there. */
static bool cost_fits(const room *r, const dure_rdp *cost, double times)
{
    dure_rdp total = r->before;
    for (size_t i = 0; i < DURE_RDP_ORDERS; i++)
        total.total[i] += times * cost->total[i];
    dure_privacy budget = r->source->budget;
    if (r->n_before == 0) return epsilon_of(&total, budget.delta) <= budget.epsilon;
    return total_at(&total, r->source->order) <= allowed_at(r->source->order, budget);
}

static bool fits(const room *r, const dure_dp_plan *plan)
{
    dure_rdp cost = {{0}};
    dure_rdp_add(&cost, plan);
    return cost_fits(r, &cost, 1);
}

/* The most steps of this plan that fit; 0 if none. */
static uint64_t fitting_steps(const room *r, const dure_dp_plan *plan)
{
    dure_dp_plan one = *plan;
    dure_rdp cost = {{0}};
    uint64_t fitting = 0, over = plan->steps;
    one.steps = 1;
    dure_rdp_add(&cost, &one);
    while (over - fitting > 1) {
        uint64_t middle = fitting + (over - fitting) / 2;
        if (cost_fits(r, &cost, (double)middle))
            fitting = middle;
        else
            over = middle;
    }
    return fitting;
}

/* The least noise with which the plan fits; 0 if none does. */
static uint32_t fitting_sigma(const room *r, dure_dp_plan plan)
{
    uint32_t low = plan.sigma_num, high = low > DURE_DP_SIGMA_DEN / 4 ? low : DURE_DP_SIGMA_DEN / 4;
    for (;;) {
        plan.sigma_num = high;
        if (fits(r, &plan)) break;
        if (high > UINT32_MAX / 2) return 0;
        low = high;
        high *= 2;
    }
    while (high - low > 1) {
        plan.sigma_num = low + (high - low) / 2;
        if (fits(r, &plan))
            high = plan.sigma_num;
        else
            low = plan.sigma_num;
    }
    return high;
}

static void say_what_fits(char *text, size_t size, const room *r, const dure_dp_plan *plan)
{
    uint64_t steps = fitting_steps(r, plan);
    dure_dp_plan quieter = *plan;
    quieter.sigma_num = fitting_sigma(r, *plan);
    double sigma = dure_dp_plan_sigma(&quieter);
    if (steps && quieter.sigma_num)
        snprintf(text, size, "%llu steps with this noise fit, or all of them with noise %.5g",
                 (unsigned long long)steps, ceil(sigma * 1e4) / 1e4);
    else if (quieter.sigma_num)
        snprintf(text, size, "with noise %.5g it fits", ceil(sigma * 1e4) / 1e4);
    else if (steps)
        snprintf(text, size, "%llu steps with this noise fit", (unsigned long long)steps);
    else
        snprintf(text, size, "no plan of this kind fits any more");
}

dure_err dure_ledger_check_fits(dure_site_ledger *ledger, const dure_ledger_source *source,
                                const dure_dp_plan *plan, dure_diag *diag)
{
    room r = {.source = source};
    char would_fit[128];
    r.n_before = committed(&r.before, ledger, source, false);
    if (fits(&r, plan)) return DURE_OK;
    dure_rdp total = r.before;
    dure_rdp_add(&total, plan);
    double before = epsilon_of(&r.before, source->budget.delta);
    double after = epsilon_of(&total, source->budget.delta);
    say_what_fits(would_fit, sizeof would_fit, &r, plan);
    return dure_diag_set(
        diag, DURE_ERR_BUDGET,
        "the privacy budget of '%s' does not allow this plan: %llu steps with "
        "noise %.5g would bring it from epsilon %.4g to %.4g of %.4g allowed at "
        "delta %.3g%s; %s",
        source->name, (unsigned long long)plan->steps, dure_dp_plan_sigma(plan), before, after,
        source->budget.epsilon, source->budget.delta,
        after <= source->budget.epsilon ? ", past the filter that later plans are held to" : "",
        would_fit);
}

dure_err dure_ledger_least_noise(dure_dp_plan *plan, const dure_site_ledger *ledger,
                                 const dure_ledger_source *source, dure_diag *diag)
{
    room r = {.source = source};
    dure_dp_plan bare = *plan;
    bare.sigma_num = 0;
    r.n_before = committed(&r.before, ledger, source, false);
    uint32_t least = fitting_sigma(&r, bare);
    if (least == 0)
        return dure_diag_set(
            diag, DURE_ERR_BUDGET,
            "the privacy budget of '%s', epsilon %.4g at delta %.3g, is used up: "
            "plans so far (%zu) have committed epsilon %.4g of it, and no amount of "
            "noise lets another %llu steps fit; see 'dure privacy status', and "
            "train on records of another source",
            source->name, source->budget.epsilon, source->budget.delta, r.n_before,
            epsilon_of(&r.before, source->budget.delta), (unsigned long long)plan->steps);
    plan->sigma_num = least;
    return DURE_OK;
}

void dure_ledger_status(dure_source_status *out, const dure_site_ledger *ledger,
                        const dure_ledger_source *source)
{
    dure_rdp total;
    *out = (dure_source_status){
        .budget = source->budget, .n_pub = source->n_pub, .order = source->order};
    snprintf(out->name, sizeof out->name, "%s", source->name);
    out->n_spent = committed(&total, ledger, source, true);
    out->epsilon_spent = epsilon_of(&total, source->budget.delta);
    out->n_reserved = committed(&total, ledger, source, false) - out->n_spent;
    out->epsilon_committed = epsilon_of(&total, source->budget.delta);
    out->epsilon_remaining = fmax(0, source->budget.epsilon - out->epsilon_committed);
    out->filter_used = total_at(&total, source->order) / allowed_at(source->order, source->budget);
    for (size_t i = 0; i < ledger->n_items; i++) {
        const dure_reservation *r = &ledger->items[i].reservation;
        out->n_released += r->state == DURE_RESERVATION_RELEASED && !strcmp(r->source, out->name);
    }
}
