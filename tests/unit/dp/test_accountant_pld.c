/* Published figures are named: O1 opacus tests/accountants_test.py, G2 and G3
 * google/differential-privacy pld tests, J jax_privacy accounting.py. Where no source is named the
 * figure is dp-accounting's, connect the dots at 1e-4. More figures: test_accountant_rows.c. */
#include "dp/accountant_pld.h"
#include "dp/accountant_rdp.h"
#include "dp/gaussian.h"
#include "dp/loss_compose.h"
#include "unit/dp/plan_of.h"

#include <math.h>
#include <stdlib.h>

static double epsilon_of(const dure_dp_plan *plans, size_t n, double delta)
{
    double epsilon = -1;
    assert_ok(dure_pld_epsilon(&epsilon, plans, n, delta));
    return epsilon;
}

static double epsilon_of_one(double rate, double sigma, uint64_t steps, double delta)
{
    dure_dp_plan plan = plan_of(rate, sigma, steps);
    return epsilon_of(&plan, 1, delta);
}

static double delta_of(const dure_dp_plan *plan, double epsilon)
{
    double delta = -1;
    assert_ok(dure_pld_delta(&delta, plan, 1, epsilon));
    return delta;
}

typedef struct row {
    double rate, sigma;
    uint64_t steps;
    double delta, epsilon, tolerance;
} row;

static void check_rows(const row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double epsilon = epsilon_of_one(rows[i].rate, rows[i].sigma, rows[i].steps, rows[i].delta);
        if (!(fabs(epsilon - rows[i].epsilon) <= rows[i].tolerance))
            fail_msg("row %zu: %.9g, not %.9g", i, epsilon, rows[i].epsilon);
    }
}

static void test_pld_agrees_with_published_figures(void **state)
{
    (void)state;
    const row rows[] = {
        {0.04, 1.5, 2250, 1e-5, 6.7688, 1e-3},
        {0.04, 1.5, 2249, 1e-5, 6.7671, 1e-3},
        {0.04, 1.5, 2249, 1e-5, 6.777395712150674 - 0.01, 1e-3}, /* O1 */
        {0.04, 1.34765625, 2250, 1e-5, 8, 0.02},                 /* O1, calibrated for 8 */
        {0.04, 1.34765625, 2250, 1e-5, 7.9834, 2e-3},
        {0.04, 1.2915, 2000, 1e-5, 8, 0.02}, /* O1, calibrated for 8 */
        {0.04, 1.2915, 2000, 1e-5, 7.9846, 2e-3},
        {0.01, 0.67379294682, 1, 1e-5, 1, 1e-4},         /* G3, calibrated for 1 */
        {0.001, 3.20956502598 / 6, 25, 1e-5, 1, 1.2e-3}, /* G3, calibrated for 1 at sensitivity 6 */
        {0.1, 3, 512, 1e-6, 3.77, 5e-3},                 /* J */
        {0.1, 3, 512, 1e-6, 3.7697, 6e-4},
        {0.1, 9.66, 512, 1e-6, 1.0002, 3e-4}, /* J, calibrated for 1 */
        {0.1, 3, 155, 1e-6, 1.9963, 4e-4},    /* J, calibrated for 2 */
        {0.01, 4, 10000, 1e-5, 0.9470, 3e-4},
        {0.2, 3, 50, 1.0 / 48000, 1.9608, 5e-4},
        {0.01, 1, 100, 1e-5, 0.7180, 7e-4},   /* jax_privacy pull request 271: about 0.72 */
        {0.08, 1, 100, 1e-5, 5.6134, 1.5e-3}, /* the same: about 5.6 */
    };
    check_rows(rows, sizeof rows / sizeof *rows);
}

/* dp-accounting 0.6.0 at random plans (noise in 1/65536), on grids of 1e-4, 5e-5 and 2e-5. */
static const struct reference {
    double rate;
    uint32_t sigma_num;
    uint64_t steps;
    double delta, epsilon[3];
} references[] = {
    {0.00050319184, 438934, 2, 8.195687e-08, {0.0003883536, 0.0003620905, 0.0003550261}},
    {0.00022598123, 600797, 84, 4.009235e-08, {0.0013834, 0.0009734197, 0.000783864}},
    {0.00043501286, 206321, 6, 1.234974e-07, {0.00135937, 0.001333301, 0.001326082}},
    {0.00026749407, 409461, 1158, 5.773106e-05, {0.003047239, 0.002301803, 0.002062152}},
    {0.00012938977, 64363, 6, 2.176925e-06, {0.002268604, 0.002262852, 0.002261176}},
    {0.00073518661, 136680, 1, 7.704894e-08, {0.002949911, 0.002947331, 0.002947289}},
    {0.0003105313, 97996, 2, 6.571837e-08, {0.003068396, 0.003065636, 0.003064877}},
    {0.0086695168, 1238480, 12, 7.977389e-06, {0.003568849, 0.003556711, 0.003553565}},
    {0.00023050596, 622447, 1813, 1.470691e-08, {0.007462488, 0.005288419, 0.004232508}},
    {0.00012992356, 107773, 672, 1.649292e-07, {0.009034074, 0.008414683, 0.008240905}},
    {0.00017975484, 599866, 39441, 1.394064e-07, {0.02981912, 0.02076662, 0.01544402}},
    {0.00047010353, 41446, 1, 1.182856e-05, {0.01848406, 0.01848401, 0.01848398}},
    {0.00084503953, 130404, 124, 4.697277e-07, {0.01890196, 0.01885522, 0.01884206}},
    {0.00049093569, 1063281, 43049, 2.668275e-06, {0.03172402, 0.02294028, 0.01942232}},
    {0.0057826175, 707618, 275, 3.640549e-06, {0.02688832, 0.02682632, 0.02680887}},
    {0.00082233521, 1058100, 17209, 1.32544e-08, {0.03716099, 0.03100594, 0.029066}},
    {0.00046286568, 617125, 28391, 5.406622e-07, {0.03821164, 0.03146556, 0.02933187}},
    {0.00022727395, 76066, 4728, 2.948134e-05, {0.04360846, 0.04311769, 0.04298047}},
    {0.0017354009, 304616, 2748, 2.621763e-05, {0.05292521, 0.05267183, 0.0526007}},
    {0.022999258, 541875, 63, 9.646747e-06, {0.06749173, 0.06748622, 0.06748465}},
    {0.00885405, 502654, 447, 5.227699e-07, {0.09329678, 0.09325219, 0.0932397}},
    {0.001824353, 64378, 22, 1.909387e-08, {0.2722938, 0.2722935, 0.2722934}},
    {0.0011943123, 223651, 31438, 1.05399e-08, {0.3086031, 0.3070604, 0.3066272}},
    {0.0052805427, 122219, 2496, 9.534068e-05, {0.453606, 0.4535735, 0.4535643}},
    {0.0008954654, 40461, 239, 4.958144e-05, {0.4617215, 0.4617201, 0.4617198}},
    {0.001491561, 55431, 122, 3.513585e-08, {0.604872, 0.6048711, 0.6048708}},
    {0.022724483, 73273, 1, 4.740084e-07, {0.6358268, 0.6358268, 0.6358268}},
    {0.010801635, 132380, 652, 5.298733e-07, {0.6428442, 0.6428326, 0.6428293}},
    {0.00038265522, 33823, 26, 2.584878e-06, {0.7789829, 0.7789828, 0.7789827}},
    {0.008609484, 44997, 9, 2.89839e-05, {1.114449, 1.114449, 1.114449}},
    {0.019439169, 43862, 50, 3.662359e-05, {3.068916, 3.068916, 3.068916}},
    {0.0013798436, 33602, 10295, 9.103828e-05, {4.855179, 4.85516, 4.855154}},
    {0.0008800222, 28779, 33, 3.522002e-08, {5.767808, 5.767808, 5.767808}},
    {0.0055478388, 33804, 558, 2.378327e-05, {5.932083, 5.932082, 5.932082}},
    {0.91202383, 47403, 1, 2.381245e-07, {7.38053, 7.38053, 7.38053}},
    {0.85045825, 1162791, 762, 1.503289e-08, {7.822271, 7.822269, 7.822268}},
    {0.24147185, 56377, 54, 6.82864e-05, {14.73439, 14.73439, 14.73439}},
    {0.88470083, 211346, 80, 8.899107e-08, {15.47024, 15.47024, 15.47024}},
    {0.11498744, 62459, 332, 1.278588e-07, {20.22516, 20.22516, 20.22516}},
    {0.16556325, 92891, 1252, 7.639489e-05, {27.53214, 27.53214, 27.53214}},
    /* A window that was chosen for a finer grid than came of it held to 3.3. */
    {0.00074878501118250519, 50723, 32, 4.4793208870075595e-08, {0.3683014, 0.3683011, 0.368301}},
    /* Few steps that single large losses decide. */
    {0.0001, 52429, 2, 1e-08, {0.0177486, 0.01774819, 0.01774815}},
    {0.001, 39322, 2, 1e-08, {1.585878, 1.585878, 1.585878}},
    {0.01, 26215, 2, 1e-08, {10.43051, 10.43051, 10.43051}},
    {0.0001, 52429, 5, 1e-08, {0.02350801, 0.02350754, 0.02350739}},
    {0.01, 26215, 5, 1e-08, {11.65381, 11.65381, 11.65381}},
    {0.001, 52429, 10, 1e-08, {0.4386146, 0.4386145, 0.4386145}},
};

/* Sound and tight, by the measure that tests/oracle/accountant_parity.py applies to a thousand. */
static void test_pld_agrees_with_dp_accounting(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof references / sizeof *references; i++) {
        const struct reference *r = &references[i];
        double sigma = (double)r->sigma_num / DURE_DP_SIGMA_DEN;
        double ours = epsilon_of_one(r->rate, sigma, r->steps, r->delta);
        double least = fmin(r->epsilon[0], fmin(r->epsilon[1], r->epsilon[2]));
        if (!(ours <= 1.001 * least + 1e-5 && ours >= 0.999 * r->epsilon[2] - 1e-5))
            fail_msg("row %zu: %.9g, not %.9g", i, ours, r->epsilon[2]);
    }
}

static void test_pld_delta_agrees_with_published_figures(void **state)
{
    (void)state;
    dure_dp_plan sampled = plan_of(0.2, 0.5, 3);
    assert_true(fabs(delta_of(&sampled, 1) - 0.15594) < 1e-3); /* G2 */
    assert_true(fabs(delta_of(&sampled, 1) - 0.155933) < 2e-4);
    dure_dp_plan gaussian = plan_of(1, sqrt(3), 3);
    assert_true(fabs(delta_of(&gaussian, 1) - 0.126936) < 1e-5); /* G2 */
}

static void test_pld_is_the_closed_form_without_sampling(void **state)
{
    (void)state;
    const double sigma[] = {0.5, 1, 20}, delta[] = {1e-4, 1e-8};
    const uint64_t steps[] = {1, 2, 100, 10000};
    for (size_t i = 0; i < 3; i++) {
        for (size_t j = 0; j < 2; j++) {
            for (size_t k = 0; k < 4; k++) {
                double mu = sqrt((double)steps[k]) / sigma[i];
                double expected = dure_gaussian_epsilon(mu, delta[j]);
                double ours = epsilon_of_one(1, sigma[i], steps[k], delta[j]);
                if (!(fabs(ours - expected) <= 1e-9 * fmax(1, expected)))
                    fail_msg("sigma %g, %g steps, delta %g: %.12g, not %.12g", sigma[i],
                             (double)steps[k], delta[j], ours, expected);
            }
        }
    }
    /* Different ones compose to a Gaussian, too. */
    const dure_dp_plan plans[] = {plan_of(1, 3, 4), plan_of(1, 5, 9), plan_of(1, 2, 1)};
    double mu = sqrt(4.0 / 9 + 9.0 / 25 + 1.0 / 4);
    assert_true(fabs(epsilon_of(plans, 3, 1e-6) - dure_gaussian_epsilon(mu, 1e-6)) < 1e-9);
}

static void test_pld_is_the_closed_form_for_one_step(void **state)
{
    (void)state;
    const double q[] = {1e-4, 0.01, 0.5, 0.999}, sigma[] = {0.5, 2, 20}, delta[] = {1e-4, 1e-8};
    for (size_t i = 0; i < 4; i++) {
        for (size_t j = 0; j < 3; j++) {
            for (size_t k = 0; k < 2; k++) {
                dure_dp_plan plan = plan_of(q[i], sigma[j], 1);
                double rate = dure_dp_plan_rate(&plan);
                double expected = dure_subsampled_epsilon(rate, sigma[j], delta[k]);
                assert_true(fabs(epsilon_of(&plan, 1, delta[k]) - expected) <= 1e-9);
            }
        }
    }
}

/* The numeric path against the closed form: sampling at almost 1 is no sampling. */
static void test_pld_composition_meets_the_gaussian(void **state)
{
    (void)state;
    const double sigma[] = {2, 5, 20}, delta[] = {1e-4, 1e-8, 1e-20, 1e-60};
    const uint64_t steps[] = {2, 30, 1000};
    for (size_t i = 0; i < 3; i++) {
        for (size_t j = 0; j < 4; j++) {
            for (size_t k = 0; k < 3; k++) {
                double mu = sqrt((double)steps[k]) / sigma[i];
                double exact = dure_gaussian_epsilon(mu, delta[j]);
                dure_dp_plan plan = {.q_k = UINT64_MAX, .steps = steps[k]};
                assert_ok(dure_dp_plan_set_sigma(&plan, sigma[i], NULL));
                plan.q_k = UINT64_MAX - 2047; /* the largest double below 1 */
                double ours = epsilon_of(&plan, 1, delta[j]);
                if (!(ours >= exact - 1e-9 && ours <= 1.0005 * exact + 1e-5))
                    fail_msg("sigma %g, %llu steps, delta %g: %.9g, not %.9g", sigma[i],
                             (unsigned long long)steps[k], delta[j], ours, exact);
            }
        }
    }
}

/* Any grid, order and window give an upper bound: a step's exact curve is never undercut. */
static void test_pld_grid_never_undercuts_the_step(void **state)
{
    (void)state;
    const double rates[] = {0.001, 0.1, 0.9}, sigmas[] = {0.5, 2}, spacings[] = {0.5, 0.03, 1e-3};
    dure_loss_profile *profiles[DURE_LOSS_SIDES];
    for (int s = 0; s < DURE_LOSS_SIDES; s++)
        assert_non_null(profiles[s] = calloc(1, sizeof *profiles[s]));
    for (size_t i = 0; i < 3 * 2 * 3; i++) {
        const dure_loss_event event = {rates[i % 3], sigmas[i / 3 % 2], 1};
        dure_loss_composition c = {.events = &event, .n_events = 1, .spacing = spacings[i / 6]};
        for (int s = 0; s < DURE_LOSS_SIDES; s++) {
            dure_loss_profile_init(profiles[s], event.rate, event.sigma, (dure_loss_side)s, 9);
            c.tracks[s] = (dure_loss_track){.profiles = profiles[s],
                                            .order = 0.7,
                                            .order_above = 2.5,
                                            .low = -1,
                                            .widest = 4 * c.spacing};
        }
        assert_ok(dure_loss_compose(&c, 1 << 15));
        for (double epsilon = 0; epsilon < 4; epsilon += 0.173) {
            double bound = fmax(dure_loss_read_delta(&c, DURE_LOSS_REMOVE, epsilon).delta,
                                dure_loss_read_delta(&c, DURE_LOSS_ADD, epsilon).delta);
            double exact = dure_subsampled_delta(event.rate, event.sigma, epsilon);
            assert_true(bound >= exact);
            if (spacings[i / 6] < 0.01) assert_true(bound <= exact * 1.01 + 1e-9);
        }
        dure_loss_composition_fini(&c);
    }
    for (int s = 0; s < DURE_LOSS_SIDES; s++)
        free(profiles[s]);
}

/* The other accountant shares nothing with this one but the plan: never below, and not far. */
static void test_pld_and_rdp_agree(void **state)
{
    (void)state;
    const double q[] = {0.001, 0.0128, 0.1, 0.5}, sigma[] = {0.6, 1, 4};
    const uint64_t steps[] = {3, 100, 3000};
    for (size_t i = 0; i < 4; i++) {
        for (size_t j = 0; j < 3; j++) {
            for (size_t k = 0; k < 3; k++) {
                dure_dp_plan plan = plan_of(q[i], sigma[j], steps[k]);
                dure_rdp rdp = {{0}};
                double looser = 0, tighter = epsilon_of(&plan, 1, 1e-5);
                dure_rdp_add(&rdp, &plan);
                assert_ok(dure_rdp_epsilon(&looser, &rdp, 1e-5));
                assert_true(tighter <= looser);
                assert_true(tighter >= 0.4 * looser - 1.5);
            }
        }
    }
}

static void test_pld_counts_steps_as_compositions(void **state)
{
    (void)state;
    const dure_dp_plan whole = plan_of(0.02, 1.2, 300);
    const dure_dp_plan parts[] = {plan_of(0.02, 1.2, 100), plan_of(0.02, 1.2, 200)};
    assert_true(fabs(epsilon_of(&whole, 1, 1e-5) - epsilon_of(parts, 2, 1e-5)) < 1e-12);
    /* Other plans between: composed by their transforms, not by their sums. */
    const dure_dp_plan mixed[] = {plan_of(0.02, 1.2, 300), plan_of(0.05, 2, 100)};
    const dure_dp_plan same[] = {plan_of(0.02, 1.2, 150), plan_of(0.05, 2, 100),
                                 plan_of(0.02, 1.2, 150)};
    double together = epsilon_of(mixed, 2, 1e-5);
    assert_true(fabs(together - epsilon_of(same, 3, 1e-5)) < 1e-9);
    assert_true(together > epsilon_of(&mixed[0], 1, 1e-5) &&
                together > epsilon_of(&mixed[1], 1, 1e-5));
    assert_true(together < epsilon_of(&mixed[0], 1, 5e-6) + epsilon_of(&mixed[1], 1, 5e-6));
}

static void test_pld_of_nearly_equal_plans_is_that_of_one(void **state)
{
    (void)state;
    dure_dp_plan near[] = {plan_of(0.02, 1.2, 150), plan_of(0.02, 1.2, 150)};
    double one = epsilon_of_one(0.02, 1.2, 300, 1e-5);
    near[1].sigma_num--; /* another event, with another transform */
    assert_true(fabs(epsilon_of(near, 2, 1e-5) - one) < 5e-4 * one);
    /* With a Gaussian beside it: 1 is little against what is there. */
    dure_dp_plan with[] = {plan_of(0.02, 1.2, 300), plan_of(1, 1000, 1)};
    assert_true(fabs(epsilon_of(with, 2, 1e-5) - one) < 1e-3 * one);
}

static void test_pld_delta_and_epsilon_invert_each_other(void **state)
{
    (void)state;
    const double delta[] = {1e-3, 1e-6, 1e-12};
    dure_dp_plan plan = plan_of(0.0128, 0.8, 20);
    for (size_t i = 0; i < 3; i++) {
        double epsilon = epsilon_of(&plan, 1, delta[i]);
        double back = delta_of(&plan, epsilon);
        assert_true(back <= 1.01 * delta[i] && back >= 0.97 * delta[i]);
    }
}

/* Less of anything that costs never costs more, past the tolerance of the grid. */
static void test_pld_is_monotone(void **state)
{
    (void)state;
    double base = epsilon_of_one(0.02, 1.1, 500, 1e-6);
    assert_true(epsilon_of_one(0.02, 1.1, 520, 1e-6) > base);
    assert_true(epsilon_of_one(0.021, 1.1, 500, 1e-6) > base);
    assert_true(epsilon_of_one(0.02, 1.08, 500, 1e-6) > base);
    assert_true(epsilon_of_one(0.02, 1.1, 500, 0.9e-6) > base);
    assert_true(epsilon_of_one(0.01, 1.1, 500, 1e-30) > epsilon_of_one(0.01, 1.1, 500, 1e-29));
}

static void test_pld_at_the_edges(void **state)
{
    (void)state;
    double epsilon = -1, delta = -1;
    dure_dp_plan plan = plan_of(0.1, 1, 10), bare = plan_of(0.1, 0, 1), none = plan_of(0.1, 1, 0);
    assert_ok(dure_pld_epsilon(&epsilon, NULL, 0, 1e-5));
    assert_true(epsilon == 0);
    assert_ok(dure_pld_epsilon(&epsilon, &none, 1, 1e-5));
    assert_true(epsilon == 0);
    const dure_dp_plan with_bare[] = {plan, bare};
    assert_ok(dure_pld_epsilon(&epsilon, with_bare, 2, 1e-5));
    assert_true(isinf(epsilon));
    assert_ok(dure_pld_delta(&delta, &bare, 1, 1));
    assert_true(delta == 1);
    const double wrong[] = {0, 1, -1, 2, NAN, INFINITY};
    for (size_t i = 0; i < 6; i++)
        assert_err(dure_pld_epsilon(&epsilon, &plan, 1, wrong[i]), DURE_ERR_USAGE);
    assert_true(isinf(epsilon));
    assert_err(dure_pld_delta(&delta, &plan, 1, -1), DURE_ERR_USAGE);
    assert_err(dure_pld_delta(&delta, &plan, 1, NAN), DURE_ERR_USAGE);
    assert_true(delta == 1);
}

/* Far from any plan one would train with, but what a ledger may have to answer. */
static void test_pld_survives_extremes(void **state)
{
    (void)state;
    assert_true(epsilon_of_one(0.0001, 65535, 10, 1e-5) == 0);
    assert_true(epsilon_of_one(0.1, 1, 200, 0.99) == 0);
    double large = epsilon_of_one(0.001, 1, 1000000, 1e-10);
    assert_true(large > 8.8 && large < 8.95);
    double none = epsilon_of_one(0.9, 0.3, 50000, 1e-5);
    assert_true(none > 2.2e5 && none < 2.6e5);
    double tiny = epsilon_of_one(0.01, 0.05, 10, 1e-5);
    assert_true(tiny > 600 && tiny < 660);
    assert_true(isfinite(epsilon_of_one(0.5, 0.01, 3, 1e-5)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pld_agrees_with_published_figures),
        cmocka_unit_test(test_pld_agrees_with_dp_accounting),
        cmocka_unit_test(test_pld_delta_agrees_with_published_figures),
        cmocka_unit_test(test_pld_is_the_closed_form_without_sampling),
        cmocka_unit_test(test_pld_is_the_closed_form_for_one_step),
        cmocka_unit_test(test_pld_composition_meets_the_gaussian),
        cmocka_unit_test(test_pld_grid_never_undercuts_the_step),
        cmocka_unit_test(test_pld_and_rdp_agree),
        cmocka_unit_test(test_pld_counts_steps_as_compositions),
        cmocka_unit_test(test_pld_of_nearly_equal_plans_is_that_of_one),
        cmocka_unit_test(test_pld_delta_and_epsilon_invert_each_other),
        cmocka_unit_test(test_pld_is_monotone),
        cmocka_unit_test(test_pld_at_the_edges),
        cmocka_unit_test(test_pld_survives_extremes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
