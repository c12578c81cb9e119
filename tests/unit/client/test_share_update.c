/* The clip of a site's whole update, its share of the noise, and what failed training leaves. */
#include "client/share_update.h"

#include "dp/noise_share.h"
#include "support/check.h"
#include "support/seeded_rng.h"

#include <math.h>
#include <string.h>

enum { N = 60000, LIMIT = 1 << 24 };

static float trained[N], global[N];
static int32_t units[N], share[N];

static dure_dp_plan plan_of(uint32_t sigma_num)
{
    return (dure_dp_plan){.mechanism = DURE_DP_SITE_GAUSSIAN,
                          .full = true,
                          .sigma_num = sigma_num,
                          .clip = 0.5,
                          .grid_bits = 15,
                          .steps = 1,
                          .n_pub = 10,
                          .batch = 10,
                          .honest = 3,
                          .n_params = N};
}

static dure_err make(bool *zeroed, const float *from, const dure_dp_plan *plan, uint64_t seed)
{
    seeded_rng seeded;
    const dure_rng rng = seeded_rng_of(&seeded, seed);
    const dure_share_update update = {.trained = from, .global = global, .n = N, .limit = LIMIT};
    return dure_share_update_make(units, zeroed, &update, plan, &rng, NULL);
}

/* The integers of the update alone: the same stream gives the same share. */
static void take_share_off(const dure_dp_plan *plan, uint64_t seed)
{
    seeded_rng seeded;
    const dure_rng rng = seeded_rng_of(&seeded, seed);
    assert_ok(dure_share_fill(share, N, dure_share_variance(plan), &rng));
    for (size_t i = 0; i < N; i++)
        units[i] -= share[i];
}

static double length_of_units(void)
{
    double squares = 0;
    for (size_t i = 0; i < N; i++)
        squares += (double)units[i] * units[i];
    return sqrt(squares);
}

/* An update of the given length, unevenly spread, on top of some global values. */
static void set_update(double length)
{
    double squares = 0;
    for (size_t i = 0; i < N; i++)
        squares += (double)(i % 7) * (double)(i % 7);
    for (size_t i = 0; i < N; i++) {
        global[i] = (float)(i % 5) / 64;
        trained[i] =
            global[i] + (float)(length * (i % 2 ? 1 : -1) * (double)(i % 7) / sqrt(squares));
    }
}

static void test_an_update_within_the_clip_stays_what_it_is(void **state)
{
    (void)state;
    const dure_dp_plan plan = plan_of(131072);
    bool zeroed = true;
    set_update(0.25);
    assert_ok(make(&zeroed, trained, &plan, 1));
    assert_false(zeroed);
    take_share_off(&plan, 1);
    assert_true(fabs(length_of_units() / 16384 - 1) < 0.01);
    for (size_t i = 0; i < N; i++) {
        double exact = ((double)trained[i] - (double)global[i]) * 65536;
        assert_true(fabs(units[i] - exact) <= 0.5 + 1e-3);
    }
}

/* However long, no more than G units, and no less than the clip's 1/128 for rounding allows. A clip
 * of 1.1 C in floats is stopped by the integers: it would count as zero. */
static void test_a_longer_update_is_clipped_as_a_whole(void **state)
{
    (void)state;
    const double lengths[] = {0.5, 0.51, 1, 1000};
    const dure_dp_plan plan = plan_of(131072);
    bool zeroed = true;
    for (size_t k = 0; k < 4; k++) {
        set_update(lengths[k]);
        assert_ok(make(&zeroed, trained, &plan, 2));
        assert_false(zeroed);
        take_share_off(&plan, 2);
        assert_true(length_of_units() <= 32768);
        assert_true(length_of_units() >= 32768 * (1 - 1.0 / 64));
    }
}

/* What is released of an update is the same whatever came of training: its noise. */
static void test_failed_training_leaves_the_noise_alone(void **state)
{
    (void)state;
    const dure_dp_plan plan = plan_of(131072);
    bool zeroed = false;
    set_update(0.25);
    assert_ok(make(&zeroed, NULL, &plan, 3));
    assert_true(zeroed);
    take_share_off(&plan, 3);
    assert_true(length_of_units() == 0);
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t k = 0; k < 3; k++) {
        set_update(0.25);
        trained[N / 2] = bad[k];
        assert_ok(make(&zeroed, trained, &plan, 4));
        assert_true(zeroed);
        take_share_off(&plan, 4);
        assert_true(length_of_units() == 0);
    }
}

/* A site's own part of the noise, to 1 %: sigma G / sqrt(h). */
static void test_an_update_has_its_share_of_the_noise(void **state)
{
    (void)state;
    const dure_dp_plan plan = plan_of(131072);
    double squares = 0;
    bool zeroed = false;
    set_update(0.0);
    for (uint64_t seed = 10; seed < 15; seed++) {
        assert_ok(make(&zeroed, trained, &plan, seed));
        squares += length_of_units() * length_of_units();
    }
    double expected = 2 * 32768 / sqrt(3);
    assert_true(fabs(sqrt(squares / (5.0 * N)) / expected - 1) < 0.005);
}

static void test_what_cannot_be_sent_is_nothing(void **state)
{
    (void)state;
    static const int32_t none[N];
    dure_dp_plan plan = plan_of(131072);
    dure_diag diag = {{0}};
    bool zeroed = false;
    failing_rng failing;
    dure_rng rng = failing_rng_of(&failing, 2);
    dure_share_update update = {.trained = trained, .global = global, .n = N, .limit = LIMIT};
    set_update(0.25);
    assert_err(dure_share_update_make(units, &zeroed, &update, &plan, &rng, NULL), DURE_ERR_RNG);
    assert_memory_equal(units, none, sizeof units);
    /* A share that is longer than a word has room for. */
    seeded_rng seeded;
    rng = seeded_rng_of(&seeded, 5);
    update.limit = 32768;
    assert_err(dure_share_update_make(units, &zeroed, &update, &plan, &rng, &diag), DURE_ERR_LIMIT);
    assert_non_null(strstr(diag.text, "longer than the round takes"));
    assert_memory_equal(units, none, sizeof units);
    update.limit = LIMIT;
    plan.n_params = N - 1;
    assert_err(dure_share_update_make(units, &zeroed, &update, &plan, &rng, NULL), DURE_ERR_USAGE);
    plan = plan_of(131072);
    plan.mechanism = DURE_DP_POISSON_GAUSSIAN;
    assert_err(dure_share_update_make(units, &zeroed, &update, &plan, &rng, NULL), DURE_ERR_USAGE);
    plan = plan_of(0);
    assert_err(dure_share_update_make(units, &zeroed, &update, &plan, &rng, NULL), DURE_ERR_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_update_within_the_clip_stays_what_it_is),
        cmocka_unit_test(test_a_longer_update_is_clipped_as_a_whole),
        cmocka_unit_test(test_failed_training_leaves_the_noise_alone),
        cmocka_unit_test(test_an_update_has_its_share_of_the_noise),
        cmocka_unit_test(test_what_cannot_be_sent_is_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
