#include "dp/membership.h"

#include "dp/accountant_pld.h"
#include "dp/accountant_zcdp.h"

#include <math.h>

enum { NARROWINGS = 24 };

typedef struct search {
    const dure_dp_plan *plans;
    size_t n;
    double fpr, least;
    dure_err err;
} search;

static dure_err delta_at(double *delta, const search *s, double epsilon)
{
    if (s->plans[0].mechanism != DURE_DP_SITE_GAUSSIAN)
        return dure_pld_delta(delta, s->plans, s->n, epsilon);
    *delta = dure_zcdp_delta(dure_zcdp_rho_all(s->plans, s->n), epsilon);
    return DURE_OK;
}

/* The bound at one epsilon; where the accountant finds no grid, that of no privacy. */
static double bound(search *s, double epsilon)
{
    double delta = 1;
    dure_err err = delta_at(&delta, s, epsilon);
    if (err && err != DURE_ERR_LIMIT) s->err = err;
    double tpr = fmin(1, exp(epsilon) * s->fpr + delta);
    s->least = fmin(s->least, tpr);
    return tpr;
}

/* The bound is convex in e^epsilon, so it falls to its least and rises again: golden sections. */
dure_err dure_membership_most(double *tpr, const dure_dp_plan *plans, size_t n, double fpr)
{
    search s = {.plans = plans, .n = n, .fpr = fpr, .least = 1};
    const double golden = 0.6180339887498949;
    *tpr = 1;
    if (!(fpr > 0 && fpr <= 0.5)) return DURE_ERR_USAGE;
    double low = 0, high = -log(fpr);
    double a = high - golden * (high - low), b = low + golden * (high - low);
    double at_a = bound(&s, a), at_b = bound(&s, b);
    for (int i = 0; !s.err && i < NARROWINGS; i++) {
        if (at_a <= at_b) {
            high = b;
            b = a;
            at_b = at_a;
            a = high - golden * (high - low);
            at_a = bound(&s, a);
        } else {
            low = a;
            a = b;
            at_a = at_b;
            b = low + golden * (high - low);
            at_b = bound(&s, b);
        }
    }
    if (!s.err) *tpr = s.least;
    return s.err;
}
