#include "dp/sample.h"
#include "support/check.h"
#include "support/seeded_rng.h"

/* The two 32-bit halves of a 64-bit word, as played. */
#define WORD(x) (uint32_t)(x), (uint32_t)((uint64_t)(x) >> 32)

static void test_sample_takes_words_below_k(void **state)
{
    (void)state;
    const uint64_t k = 0x123456789abcdef0u;
    const uint32_t words[] = {WORD(k - 1), WORD(k), WORD(0), WORD(UINT64_MAX), WORD(k + 1)};
    dure_dp_plan plan = {.q_k = k};
    played_rng playing;
    dure_rng rng = played_rng_of(&playing, words, 10);
    size_t chosen[5], n = 9;
    assert_ok(dure_sample_poisson(chosen, &n, 5, &plan, &rng));
    assert_int_equal(n, 2);
    assert_true(chosen[0] == 0 && chosen[1] == 2);
}

static void test_sample_of_rate_one_takes_everything(void **state)
{
    (void)state;
    dure_dp_plan plan = {.full = true};
    size_t chosen[1500], n = 0;
    seeded_rng seeded;
    dure_rng rng = seeded_rng_of(&seeded, 1);
    assert_ok(dure_sample_poisson(chosen, &n, 1500, &plan, &rng));
    assert_int_equal(n, 1500);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(chosen[i], i);
}

static void test_sample_may_be_empty(void **state)
{
    (void)state;
    dure_dp_plan plan = {.q_k = 1};
    size_t chosen[10], n = 5;
    seeded_rng seeded;
    dure_rng rng = seeded_rng_of(&seeded, 1);
    assert_ok(dure_sample_poisson(chosen, &n, 10, &plan, &rng));
    assert_int_equal(n, 0);
    assert_ok(dure_sample_poisson(chosen, &n, 0, &plan, &rng));
    assert_int_equal(n, 0);
}

static void test_sample_fails_with_its_generator(void **state)
{
    (void)state;
    dure_dp_plan plan = {.full = true};
    size_t chosen[2000], n = 5;
    failing_rng failing;
    dure_rng rng = failing_rng_of(&failing, 2);
    assert_err(dure_sample_poisson(chosen, &n, 2000, &plan, &rng), DURE_ERR_RNG);
    assert_int_equal(n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sample_takes_words_below_k),
        cmocka_unit_test(test_sample_of_rate_one_takes_everything),
        cmocka_unit_test(test_sample_may_be_empty),
        cmocka_unit_test(test_sample_fails_with_its_generator),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
