/* The published vectors are those of jax_privacy, tests/auditing_test.py
 * (test_epsilon_one_run_close): 10,000 scores at the quantiles of N(shift, 1) for canaries that
 * were in and of N(0, 1) for those that were not, significance 0.05 spread over all thresholds on
 * the convex hull, delta 1e-6. */
#include "common/splitmix.h"
#include "dp/gaussian.h"
#include "dp/one_run_audit.h"
#include "support/check.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

enum { N = 10000 };

/* x with P[Z < x] = p, by bisection on the library's erfc: independent of what is tested. */
static double quantile(double p)
{
    double low = -10, high = 10;
    for (int i = 0; i < 100; i++) {
        double middle = (low + high) / 2;
        if (0.5 * erfc(-middle / M_SQRT2) < p)
            low = middle;
        else
            high = middle;
    }
    return low;
}

typedef struct point {
    double out, in; /* canaries below the threshold */
} point;

/* Thresholds at every score, then the strict convex hull of (in, out) counts. */
static size_t hull_of(point *hull, double shift)
{
    size_t n = 0, i = 0, k = 0;
    double *scores = calloc(N, sizeof *scores);
    assert_non_null(scores);
    for (size_t j = 0; j < N; j++)
        scores[j] = quantile(((double)j + 0.5) / N);
    while (true) {
        point p = {(double)i, (double)k};
        /* Out counts grow first where the hull bends outwards: keep the points above all chords. */
        while (n >= 2) {
            point a = hull[n - 2], b = hull[n - 1];
            double cross = (b.out - a.out) * (p.in - b.in) - (p.out - b.out) * (b.in - a.in);
            if (cross > 0) break;
            n--;
        }
        hull[n++] = p;
        if (i == N && k == N) break;
        /* The next threshold is just above the smallest score that is left. */
        double out = i < N ? scores[i] : INFINITY, in = k < N ? scores[k] + shift : INFINITY;
        if (out <= in) i++;
        if (in <= out) k++;
    }
    free(scores);
    return n;
}

typedef double bound(const dure_guesses *g, double significance, double delta);

static double best_over_hull(bound *bound_of, double shift)
{
    point *hull = calloc(2 * N + 2, sizeof *hull);
    assert_non_null(hull);
    size_t n = hull_of(hull, shift);
    double best = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t right = N - (uint64_t)hull[i].in, wrong = N - (uint64_t)hull[i].out;
        dure_guesses g = {2 * N, right + wrong, right};
        /* A threshold whose share of right guesses is no better cannot give a better bound. */
        if (g.n_guess == 0 || (double)right / (double)g.n_guess <= 1 / (1 + exp(-best))) continue;
        double epsilon = bound_of(&g, 0.05 / (double)n, 1e-6);
        if (epsilon > best) best = epsilon;
    }
    free(hull);
    return best;
}

static void test_one_run_bounds_are_the_published_ones(void **state)
{
    (void)state;
    static const double shifts[] = {0, 1, 2, 4}, expected[] = {0, 1.13346, 2.311945, 4.395568};
    for (size_t i = 0; i < 4; i++) {
        double found = best_over_hull(dure_one_run_epsilon, shifts[i]);
        if (!(fabs(found - expected[i]) <= 1e-4)) fail_msg("%g, not %g", found, expected[i]);
    }
}

static void test_gaussian_bounds_are_the_published_ones(void **state)
{
    (void)state;
    static const double shifts[] = {0, 1, 2, 4}, expected[] = {0, 2.164749, 4.7218075, 9.133752};
    for (size_t i = 0; i < 4; i++) {
        double found = best_over_hull(dure_one_run_epsilon_gaussian, shifts[i]);
        if (!(fabs(found - expected[i]) <= 1e-4)) fail_msg("%g, not %g", found, expected[i]);
    }
}

/* Theorem 5.2 by plain summation. */
static double plain_p_value(const dure_guesses *g, double epsilon, double delta)
{
    double p = 1 / (1 + exp(-epsilon)), beta = 0, alpha = 0, sum = 0;
    double *mass = calloc(g->n_guess + 1, sizeof *mass);
    assert_non_null(mass);
    const double n = (double)g->n_guess;
    for (uint64_t i = 0; i <= g->n_guess; i++) {
        double k = (double)i;
        mass[i] = exp(lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) + k * log(p) +
                      (n - k) * log1p(-p));
    }
    for (uint64_t k = g->n_correct; k <= g->n_guess; k++)
        beta += mass[k];
    for (uint64_t i = 1; i <= g->n_correct; i++) {
        sum += mass[g->n_correct - i];
        if (sum / (double)i > alpha) alpha = sum / (double)i;
    }
    free(mass);
    return fmin(beta + alpha * delta * 2 * (double)g->m, 1);
}

static void test_p_value_is_that_of_the_theorem(void **state)
{
    (void)state;
    static const uint64_t m[] = {10, 100, 1000}, guesses[] = {1, 10, 100}, wrong[] = {0, 1, 10, 99};
    static const double epsilons[] = {0, 0.5, 1, 3}, deltas[] = {0, 1e-6, 1e-3, 0.1, 1};
    size_t n = 0;
    for (size_t i = 0; i < 3 * 3 * 4 * 4 * 5; i++) {
        dure_guesses g = {m[i % 3], guesses[i / 3 % 3], 0};
        uint64_t w = wrong[i / 9 % 4];
        if (w > g.n_guess || g.n_guess > g.m) continue;
        g.n_correct = g.n_guess - w;
        double epsilon = epsilons[i / 36 % 4], delta = deltas[i / 144];
        double found = dure_one_run_p_value(&g, epsilon, delta);
        double plain = plain_p_value(&g, epsilon, delta);
        if (!(fabs(found - plain) <= 1e-10)) fail_msg("%.15g, not %.15g", found, plain);
        n++;
    }
    assert_true(n > 300);
}

static void test_bounds_meet_the_edges(void **state)
{
    (void)state;
    const dure_guesses none = {1000, 100, 0}, half = {1000, 100, 50}, all = {1000, 1000, 1000};
    assert_true(dure_one_run_epsilon(&none, 0.05, 1e-5) <= 0);
    assert_true(dure_one_run_epsilon(&half, 0.05, 1e-5) <= 0);
    assert_true(dure_one_run_epsilon_gaussian(&none, 0.05, 1e-5) <= 0);
    assert_true(dure_one_run_epsilon_gaussian(&half, 0.05, 1e-5) <= 0);
    /* 0.05 = (e^x / (1 + e^x))^1000 when delta is 0. */
    double p = pow(0.05, 1.0 / 1000), expected = log(p / (1 - p));
    assert_true(fabs(dure_one_run_epsilon(&all, 0.05, 0) - expected) < 1e-9);
    assert_true(dure_one_run_epsilon_gaussian(&all, 0.05, 1e-5) > 9);
    const dure_guesses one = {1, 1, 1};
    assert_true(dure_one_run_epsilon(&one, 0.05, 0) <= 0);
}

/* A true claim is rejected in no more than a share of 5 % of runs: counted over many draws of an
 * ideal Gaussian mechanism, with the scores of a fixed generator. */
static void test_true_claims_are_seldom_rejected(void **state)
{
    (void)state;
    enum { RUNS = 300, CANARIES = 400, GUESSES = 40 };
    const double delta = 1e-5, mu = 0.5, claim = dure_gaussian_epsilon(mu, delta);
    uint64_t state_of = 12345, over = 0, over_gaussian = 0;
    for (int run = 0; run < RUNS; run++) {
        double score[CANARIES];
        bool in[CANARIES];
        for (int i = 0; i < CANARIES; i++) {
            double sum = -6; /* twelve uniform numbers: normal enough */
            for (int k = 0; k < 12; k++) {
                sum += (double)(dure_splitmix64(&state_of) >> 11) * 0x1p-53;
            }
            in[i] = dure_splitmix64(&state_of) & 1;
            score[i] = sum + (in[i] ? mu : 0);
        }
        dure_guesses g = {CANARIES, 2 * GUESSES, 0};
        for (int i = 0; i < CANARIES; i++) {
            int above = 0;
            for (int k = 0; k < CANARIES; k++)
                above += score[k] > score[i];
            if (above < GUESSES && in[i]) g.n_correct++;
            if (above >= CANARIES - GUESSES && !in[i]) g.n_correct++;
        }
        over += dure_one_run_epsilon(&g, 0.05, delta) > claim;
        over_gaussian += dure_one_run_epsilon_gaussian(&g, 0.05, delta) > claim;
    }
    assert_true(over <= RUNS / 20 && over_gaussian <= RUNS / 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_run_bounds_are_the_published_ones),
        cmocka_unit_test(test_gaussian_bounds_are_the_published_ones),
        cmocka_unit_test(test_p_value_is_that_of_the_theorem),
        cmocka_unit_test(test_bounds_meet_the_edges),
        cmocka_unit_test(test_true_claims_are_seldom_rejected),
    };
    return cmocka_run_group_tests_name("dp.one_run_audit", tests, NULL, NULL);
}
