/* The figures of `oracle` are printed by tests/oracle/zcdp_vectors.py: 60 digits, by other means.
 */
#include "dp/accountant_rdp.h"
#include "dp/accountant_zcdp.h"
#include "dp/calibrate.h"
#include "dp/gaussian.h"
#include "dp/noise.h"
#include "dp/noise_share.h"
#include "support/check.h"

#include <math.h>

typedef struct row {
    uint32_t sigma_num, grid_bits, honest;
    uint64_t n_params, rounds;
    double delta;
    uint64_t variance;
    double tau, rho, epsilon, delta_at_half;
} row;

static const row oracle[] = {
    {65536, 15, 4, 230400, 1, 1e-5, 268435456, 0, 0.5, 4.7283869849433139, 0.025492656497333177},
    {131072, 15, 4, 230400, 10, 1e-5, 1073741824, 0, 1.25, 8.0783595481444465,
     0.045493820902896196},
    {327680, 15, 3, 92160, 20, 1e-5, 8947848534, 0, 0.39999999997019768, 4.1615334972560012,
     0.022459916646960786},
    {1000003, 18, 9, 4884480, 100, 1e-6, 1777788444461, 0, 0.21474707631554227, 3.2564712368396017,
     0.0088539265754698864},
    {262144, 14, 2, 1, 1, 1e-8, 2147483648, 0, 0.03125, 1.3690608490589066, 0.0010417612798551584},
    {6553600, 16, 99, 1048576, 1000, 1e-9, 433835080405, 0, 0.049999999999889405,
     1.8816602910596428, 0.00070298265195514709},
    {32768, 14, 30, 65536, 3, 1e-5, 2236963, 0, 5.9999976754197544, 21.439599473144003,
     0.16269014821247294},
    {10, 14, 2, 1, 1, 1e-5, 4, 7.1571658351860411e-17, 16777216.0, 16805003.934715364, 1},
};

static dure_dp_plan plan_of(const row *r)
{
    return (dure_dp_plan){.mechanism = DURE_DP_SITE_GAUSSIAN,
                          .full = true,
                          .sigma_num = r->sigma_num,
                          .clip = 1,
                          .grid_bits = r->grid_bits,
                          .steps = r->rounds,
                          .n_pub = 1000,
                          .batch = 1000,
                          .honest = r->honest,
                          .n_params = r->n_params};
}

/* Not below, and above by no more than part of it. */
static void check_above(double value, double truth, double part)
{
    if (!(value >= truth * (1 - 1e-15) && value <= truth * (1 + part)))
        fail_msg("%.17g is not %.17g rounded up", value, truth);
}

static void test_zcdp_agrees_with_the_oracle(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof oracle / sizeof *oracle; i++) {
        const row *r = &oracle[i];
        dure_dp_plan plan = plan_of(r);
        assert_true(dure_share_variance(&plan) == r->variance);
        /* A tau that no double holds is still not zero. */
        assert_true(dure_zcdp_tau(&plan) > 0);
        if (r->tau > 0) check_above(dure_zcdp_tau(&plan), r->tau, 1e-11);
        double rho = dure_zcdp_rho(&plan);
        check_above(rho, r->rho, 1e-12);
        check_above(dure_zcdp_epsilon(rho, r->delta), r->epsilon, 1e-11);
        double half = dure_zcdp_delta(rho, r->epsilon / 2);
        check_above(half, r->delta_at_half, r->delta_at_half < 1 ? 1e-9 : 0);
    }
}

/* At alpha the accountant's own bound holds with equality, so no other order may beat the one it
 * found by more than rounding. */
/* With less noise than a plan may have, so that tau is more than a double's last digit: V = 1, four
 * sites, G / sqrt(h V) = 2^13. */
static void test_zcdp_charges_tau(void **state)
{
    (void)state;
    dure_dp_plan plan = plan_of(&oracle[0]);
    plan.grid_bits = 14;
    plan.sigma_num = 8;
    plan.honest = 4;
    plan.n_params = 100000000;
    plan.steps = 1;
    assert_int_equal(dure_share_variance(&plan), 1);
    const double pi_square = M_PI * M_PI,
                 tau = 10 * (exp(-pi_square) + exp(-4 * pi_square / 3) + exp(-3 * pi_square / 2));
    check_above(dure_zcdp_tau(&plan), tau, 1e-11);
    check_above(dure_zcdp_rho(&plan), (8192 + 1e4 * tau) * (8192 + 1e4 * tau) / 2, 1e-11);
    check_above(dure_zcdp_rdp(&plan, 2), 0x1p26 + 1e8 * tau, 1e-11);
}

static void test_zcdp_finds_the_best_order(void **state)
{
    (void)state;
    const double rhos[] = {1e-9, 1e-4, 0.02, 0.5, 3, 40}, deltas[] = {1e-12, 1e-5, 0.01};
    for (size_t i = 0; i < 6; i++) {
        for (size_t j = 0; j < 3; j++) {
            double found = dure_zcdp_epsilon(rhos[i], deltas[j]), best = INFINITY;
            for (double b = 1e-6; b < 1e8; b *= 1.0005) {
                double log_d = log(deltas[j]) + log1p(b);
                best = fmin(best, rhos[i] * (1 + b) - log1p(1 / b) - log_d / b);
            }
            assert_true(found >= fmax(0, best) * (1 - 1e-5) && found <= fmax(0, best) + 1e-9);
            /* And back: delta at that epsilon is the one it began with. */
            if (found > 1e-3)
                assert_true(fabs(dure_zcdp_delta(rhos[i], found) / deltas[j] - 1) < 1e-6);
        }
    }
}

static void test_zcdp_epsilon_at_the_edges(void **state)
{
    (void)state;
    dure_dp_plan plan = plan_of(&oracle[0]);
    plan.sigma_num = 0;
    assert_true(isinf(dure_zcdp_rho(&plan)) && isinf(dure_zcdp_rdp(&plan, 2)));
    assert_true(isinf(dure_zcdp_epsilon(INFINITY, 1e-5)) && dure_zcdp_delta(INFINITY, 3) == 1);
    assert_true(dure_zcdp_epsilon(0, 1e-5) == 0 && dure_zcdp_delta(0, 0) == 0);
    assert_true(dure_zcdp_epsilon(1e-30, 1e-5) == 0);
    assert_true(dure_zcdp_delta(1e9, 1) == 1);
}

/* ---- against the distribution itself, in one dimension ---- */

enum { REACH = 400, SHIFT = 3 };

/* out = the convolution of `a` with the discrete Gaussian of this variance. */
static void convolve(double *out, const double *a, double variance)
{
    double weight[2 * REACH + 1], sum = 0;
    for (int x = -REACH; x <= REACH; x++)
        sum += weight[x + REACH] = exp(-x * x / (2 * variance));
    for (int x = -REACH; x <= REACH; x++) {
        out[x + REACH] = 0;
        for (int y = -REACH; y <= REACH; y++)
            if (x - y >= -REACH && x - y <= REACH)
                out[x + REACH] += a[y + REACH] * weight[x - y + REACH] / sum;
    }
}

/* D_alpha of the sum of h shares from itself shifted by SHIFT. */
static double divergence(uint32_t honest, double variance, double alpha)
{
    static double a[2 * REACH + 1], b[2 * REACH + 1];
    double moment = 0;
    for (int x = -REACH; x <= REACH; x++)
        a[x + REACH] = x == 0;
    for (uint32_t i = 0; i < honest; i++) {
        convolve(b, a, variance);
        for (int x = 0; x <= 2 * REACH; x++)
            a[x] = b[x];
    }
    for (int x = SHIFT; x <= 2 * REACH; x++)
        if (a[x] > 1e-280 && a[x - SHIFT] > 1e-280)
            moment += exp(alpha * log(a[x]) + (1 - alpha) * log(a[x - SHIFT]));
    return log(moment) / (alpha - 1);
}

/* Small shares, where the sum is farthest from a discrete Gaussian: the bound is not below the
 * divergence, and is it to a thousandth. */
static void test_zcdp_bounds_the_divergence_of_summed_shares(void **state)
{
    (void)state;
    const uint32_t honest[] = {2, 3, 5};
    const double variances[] = {1, 4, 16}, alphas[] = {1.5, 2, 5, 12};
    for (size_t i = 0; i < 3; i++) {
        for (size_t j = 0; j < 3; j++) {
            double total = honest[i] * variances[j], tau = 0;
            for (uint32_t k = 1; k < honest[i]; k++)
                tau += 10 * exp(-2 * M_PI * M_PI * variances[j] * k / (k + 1.0));
            for (size_t k = 0; k < 4; k++) {
                double bound = alphas[k] * SHIFT * SHIFT / (2 * total) + tau;
                double truth = divergence(honest[i], variances[j], alphas[k]);
                assert_true(truth <= bound * (1 + 1e-9) && truth >= bound * 0.999 - tau);
            }
        }
    }
}

/* ---- beside the other accountants ---- */

/* The Renyi accountant's coarse orders never say less; and one Gaussian of the same variance says
 * no more, as the shares' sum is all but that. */
static void test_zcdp_lies_between_gaussian_and_renyi(void **state)
{
    (void)state;
    for (size_t i = 0; i + 1 < sizeof oracle / sizeof *oracle; i++) {
        const row *r = &oracle[i];
        dure_dp_plan plan = plan_of(r);
        dure_rdp rdp = {{0}};
        double by_rdp = 0, by_zcdp = dure_zcdp_epsilon(dure_zcdp_rho(&plan), r->delta);
        dure_rdp_add(&rdp, &plan);
        assert_ok(dure_rdp_epsilon(&by_rdp, &rdp, r->delta));
        double exact = dure_gaussian_epsilon(sqrt(2 * r->rho), r->delta);
        assert_true(exact <= by_zcdp && by_zcdp <= exact * 1.15);
        assert_true(by_zcdp <= by_rdp * (1 + 1e-12) && by_rdp <= by_zcdp * 1.02);
    }
}

static void test_zcdp_plans_compose_by_calibrate(void **state)
{
    (void)state;
    dure_dp_plan both[2] = {plan_of(&oracle[0]), plan_of(&oracle[1])};
    double epsilon = 0;
    assert_ok(dure_calibrate_history(&epsilon, (dure_dp_history){both, 2}, 1e-5));
    double whole = dure_zcdp_epsilon(1.75, 1e-5);
    assert_true(epsilon >= whole && epsilon <= whole * (1 + 1e-9));
    /* Ten rounds are one round ten times. */
    dure_dp_plan ten = both[0], single[10];
    ten.steps = 10;
    for (size_t i = 0; i < 10; i++)
        single[i] = both[0];
    double at_once = 0, one_by_one = 0;
    assert_ok(dure_calibrate_history(&at_once, (dure_dp_history){&ten, 1}, 1e-5));
    assert_ok(dure_calibrate_history(&one_by_one, (dure_dp_history){single, 10}, 1e-5));
    assert_true(fabs(at_once / one_by_one - 1) < 1e-12);
    /* A record and a site are not the same unit. */
    both[1] = (dure_dp_plan){.mechanism = DURE_DP_POISSON_GAUSSIAN,
                             .full = true,
                             .sigma_num = 65536,
                             .clip = 1,
                             .grid_bits = 15,
                             .steps = 1,
                             .n_pub = 1000,
                             .batch = 1000};
    assert_err(dure_calibrate_history(&epsilon, (dure_dp_history){both, 2}, 1e-5), DURE_ERR_USAGE);
    assert_true(isinf(epsilon));
}

static void test_zcdp_calibration_meets_the_target(void **state)
{
    (void)state;
    const uint32_t honest[] = {2, 4, 30};
    const double targets[] = {0.5, 2, 8};
    for (size_t i = 0; i < 3; i++) {
        for (size_t j = 0; j < 3; j++) {
            dure_dp_plan plan = plan_of(&oracle[1]), less;
            dure_privacy target = {targets[j], 1e-5};
            bool fits = false;
            plan.honest = honest[i];
            assert_ok(dure_calibrate_sigma(&plan, NULL, target, NULL));
            assert_ok(dure_dp_plan_check(&plan, NULL));
            assert_ok(dure_calibrate_fits(&fits, &plan, NULL, target));
            assert_true(fits);
            less = plan;
            less.sigma_num -= less.sigma_num / 500;
            assert_ok(dure_calibrate_fits(&fits, &less, NULL, target));
            assert_false(fits);
            /* The most rounds with that noise are those that it was made for. */
            assert_ok(dure_calibrate_steps(&less, NULL, target, 1000, NULL));
            assert_true(less.steps < plan.steps);
            /* The same claim whatever the number of shares that make it up. */
            assert_true(fabs(dure_dp_plan_sigma(&plan) * sqrt(2 * dure_zcdp_rho(&plan) / 10) - 1) <
                        1e-4);
        }
    }
}

/* What a share beyond its room costs comes off delta first. */
static void test_zcdp_delta_of_long_shares_is_charged(void **state)
{
    (void)state;
    dure_dp_plan plan = plan_of(&oracle[1]);
    double part = dure_noise_delta(&plan, 8);
    assert_true(part > 0 && part < 1e-20);
    double expected = (1 + exp(8)) * 230400.0 * 10 * 4 * 2 * exp(-72);
    assert_true(fabs(part / expected - 1) < 1e-12);
    plan.sigma_num = 0;
    assert_true(dure_noise_delta(&plan, 8) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zcdp_agrees_with_the_oracle),
        cmocka_unit_test(test_zcdp_charges_tau),
        cmocka_unit_test(test_zcdp_finds_the_best_order),
        cmocka_unit_test(test_zcdp_epsilon_at_the_edges),
        cmocka_unit_test(test_zcdp_bounds_the_divergence_of_summed_shares),
        cmocka_unit_test(test_zcdp_lies_between_gaussian_and_renyi),
        cmocka_unit_test(test_zcdp_plans_compose_by_calibrate),
        cmocka_unit_test(test_zcdp_calibration_meets_the_target),
        cmocka_unit_test(test_zcdp_delta_of_long_shares_is_charged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
