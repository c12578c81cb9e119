#include "proto/neighbours.h"

#include <math.h>
#include <stdio.h>

/* `drawn` of `n` are drawn, of which `marked` are marked. */
typedef struct draw {
    uint32_t n, marked, drawn;
} draw;

static uint32_t fewest(const draw *d)
{
    return d->marked + d->drawn > d->n ? d->marked + d->drawn - d->n : 0;
}

static uint32_t most(const draw *d)
{
    return d->marked < d->drawn ? d->marked : d->drawn;
}

static long double log_choose(uint32_t n, uint32_t k)
{
    long double sum = 0;
    for (uint32_t i = 1; i <= k; i++) {
        sum += logl((long double)(n - k + i) / i);
    }
    return sum;
}

/* P(X = x) for x that can be. */
static long double chance(const draw *d, uint32_t x)
{
    return expl(log_choose(d->marked, x) + log_choose(d->n - d->marked, d->drawn - x) -
                log_choose(d->n, d->drawn));
}

/* P(X = x + 1) / P(X = x). */
static long double step_up(const draw *d, uint32_t x)
{
    return (long double)(d->marked - x) * (d->drawn - x) /
           ((long double)(x + 1) * (d->n - d->marked - d->drawn + x + 1));
}

/* P(X <= x). Summed from the far end, the smallest terms first. */
static long double at_most(const draw *d, int64_t x)
{
    const uint32_t low = fewest(d), high = most(d);
    if (x < (int64_t)low) return 0;
    if (x >= (int64_t)high) return 1;
    long double term = chance(d, low), sum = term;
    for (uint32_t i = low; i < (uint32_t)x; i++) {
        term *= step_up(d, i);
        sum += term;
    }
    return sum;
}

/* The least x with P(X > x) <= bound. */
static uint32_t quantile(const draw *d, long double bound)
{
    uint32_t x = most(d);
    long double term = chance(d, x), above = term;
    while (x > fewest(d) && above <= bound) {
        x--;
        term /= step_up(d, x);
        above += term;
    }
    return x;
}

/* Two runs of k / 2 places with at least one place between them on either side. */
static long double pairs_of_runs(uint32_t n, uint32_t k)
{
    return n > k + 1 ? (long double)n * (n - k - 1) / 2 : 0;
}

uint32_t dure_graph_colluders(uint32_t n, uint32_t k, uint32_t c)
{
    if (k >= n || c >= n) return c;
    const draw d = {n - 1, c, k};
    return quantile(&d, ldexpl(1, -DURE_GRAPH_SECURITY_BITS - 1) / n);
}

uint32_t dure_graph_run_colluders(uint32_t n, uint32_t k, uint32_t c)
{
    const long double pairs = pairs_of_runs(n, k);
    if (pairs <= 0 || c >= n) return 0;
    const draw d = {n, c, k};
    return quantile(&d, ldexpl(1, -DURE_GRAPH_SECURITY_BITS - 1) / pairs);
}

double dure_graph_finish_bits(const dure_graph_choice *g)
{
    if (g->dropouts >= g->n || g->k >= g->n) return 0;
    const uint32_t left = g->n - g->dropouts;
    /* A survivor is one of its own holders; a member that dropped out is not. */
    const draw of_survivor = {g->n - 1, left - 1, g->k}, of_dropout = {g->n - 1, left, g->k};
    long double fails = left * at_most(&of_survivor, (int64_t)g->t - 2);
    if (g->dropouts) fails += g->dropouts * at_most(&of_dropout, (int64_t)g->t - 1);
    const long double pairs = pairs_of_runs(g->n, g->k);
    const draw in_runs = {g->n, left, g->k};
    if (pairs > 0) fails += pairs * at_most(&in_runs, dure_graph_run_colluders(g->n, g->k, g->c));
    if (fails >= 1) return 0;
    return fails > 0 ? -(double)log2l(fails) : 1000;
}

dure_err dure_graph_check(const dure_graph_choice *g, dure_diag *diag)
{
    const bool complete = g->k + 1 == g->n;
    if (!complete && (g->k < 2 || g->k % 2 || g->k + 1 > g->n)) {
        return dure_diag_set(diag, DURE_ERR_POLICY,
                             "the neighbours of a member must be an even number from 2 to below "
                             "the %u others, or all of them, but are %u",
                             g->n ? g->n - 1 : 0, g->k);
    }
    const uint32_t m = dure_graph_colluders(g->n, g->k, g->c);
    if (g->t > g->k + 1 || 2 * g->t <= g->k + 1 + m) {
        return dure_diag_set(diag, DURE_ERR_POLICY,
                             "the threshold is %u, but of the %u holders of a member's shares %u "
                             "may collude: it must be above half of %u and at most %u",
                             g->t, g->k + 1, m, g->k + 1 + m, g->k + 1);
    }
    if (complete) return DURE_OK;
    const double bits = dure_graph_finish_bits(g);
    if (bits < DURE_GRAPH_CORRECTNESS_BITS) {
        return dure_diag_set(diag, DURE_ERR_POLICY,
                             "with %u neighbours and the threshold %u a round that loses %u of %u "
                             "members ends without a sum once in 2^%.1f times, more often than "
                             "2^%d: more neighbours are needed, or fewer dropouts",
                             g->k, g->t, g->dropouts, g->n, bits, DURE_GRAPH_CORRECTNESS_BITS);
    }
    return DURE_OK;
}

bool dure_graph_choose(dure_graph_choice *g)
{
    for (g->k = 2; g->k + 1 < g->n; g->k += 2) {
        g->t = (g->k + 1 + dure_graph_colluders(g->n, g->k, g->c)) / 2 + 1;
        if (dure_graph_check(g, NULL) == DURE_OK) return true;
    }
    g->k = g->n ? g->n - 1 : 0;
    g->t = (g->n + g->c) / 2 + 1;
    return g->t + g->dropouts <= g->n && dure_graph_check(g, NULL) == DURE_OK;
}

void dure_graph_promise(char *out, size_t size, const dure_graph_choice *g)
{
    if (g->k + 1 == g->n) {
        snprintf(out, size,
                 "complete graph, t = %u of %u: whatever the coordinator and up to %u sites do, at "
                 "any step, they learn the sum of all that are in it and no part of it; the sum "
                 "comes out with up to %u sites lost",
                 g->t, g->n, g->c, g->n - g->t);
        return;
    }
    snprintf(
        out, size,
        "sparse graph, %u neighbours, t = %u of %u: as on the complete graph, but only with up "
        "to %u sites that collude, a coordinator that is honest while keys are handed out "
        "(semi-malicious), and an order that the beacon's holder kept from it; then except "
        "with probability 2^-%d; a round that loses up to %u of %u sites by chance ends "
        "without a sum once in 2^%.0f",
        g->k, g->t, g->k + 1, g->c, DURE_GRAPH_SECURITY_BITS, g->dropouts, g->n,
        fmin(dure_graph_finish_bits(g), 99));
}

void dure_cohorts_promise(char *out, size_t size, const dure_graph_choice *g, uint32_t most)
{
    const uint32_t cohorts = (g->n + most - 1) / most, each = (g->n + cohorts - 1) / cohorts;
    snprintf(
        out, size,
        "%u cohorts of up to %u sites, each on a complete graph: whatever the coordinator does, "
        "at any step, but with up to %u colluding sites in each cohort, and it learns every "
        "cohort's sum, which has the noise of %u sites and not of %u",
        cohorts, each, g->c, each, g->n);
}
