#include "common/json.h"
#include "dp/plan.h"
#include "support/check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static dure_dp_plan good_plan(void)
{
    dure_dp_plan plan = {.mechanism = DURE_DP_POISSON_GAUSSIAN,
                         .sigma_num = 52429,
                         .clip = 0.1,
                         .grid_bits = 15,
                         .steps = 20};
    assert_ok(dure_dp_plan_set_batch(&plan, 128, 10000, NULL));
    return plan;
}

static void check_same(const dure_dp_plan *a, const dure_dp_plan *b)
{
    assert_true(a->mechanism == b->mechanism && a->full == b->full && a->q_k == b->q_k);
    assert_true(a->sigma_num == b->sigma_num && a->clip == b->clip);
    assert_true(a->grid_bits == b->grid_bits && a->steps == b->steps);
    assert_true(a->n_pub == b->n_pub && a->batch == b->batch);
    assert_true(a->honest == b->honest && a->n_params == b->n_params);
    assert_true(dure_dp_adaptive_equal(&a->adaptive, &b->adaptive));
}

static dure_dp_plan site_plan(void)
{
    dure_dp_plan plan = {.mechanism = DURE_DP_SITE_GAUSSIAN,
                         .sigma_num = 131072,
                         .clip = 0.5,
                         .grid_bits = 15,
                         .steps = 20,
                         .honest = 4,
                         .n_params = 92160};
    assert_ok(dure_dp_plan_set_batch(&plan, 5000, 5000, NULL));
    return plan;
}

static dure_dp_plan adaptive_plan(void)
{
    dure_dp_plan plan = good_plan();
    assert_ok(dure_dp_adaptive_set(&plan.adaptive, 12.8, 0.5, 0.2, NULL));
    return plan;
}

static void test_plan_batch_gives_an_exact_rate(void **state)
{
    (void)state;
    dure_dp_plan plan = {0};
    assert_ok(dure_dp_plan_set_batch(&plan, 1, 3, NULL));
    assert_true(!plan.full && plan.q_k == 0x5555555555555555u);
    assert_true(dure_dp_plan_rate(&plan) >= 1.0 / 3);
    assert_ok(dure_dp_plan_set_batch(&plan, 1, 4, NULL));
    assert_true(plan.q_k == (uint64_t)1 << 62);
    assert_ok(dure_dp_plan_set_batch(&plan, 7, 7, NULL));
    assert_true(plan.full && plan.q_k == 0 && dure_dp_plan_rate(&plan) == 1);
    dure_diag diag = {0};
    assert_err(dure_dp_plan_set_batch(&plan, 0, 7, &diag), DURE_ERR_USAGE);
    assert_err(dure_dp_plan_set_batch(&plan, 8, 7, &diag), DURE_ERR_USAGE);
    assert_err(dure_dp_plan_set_batch(&plan, 0, 0, &diag), DURE_ERR_USAGE);
    assert_err(dure_dp_plan_set_batch(&plan, 1, UINT64_MAX, &diag), DURE_ERR_USAGE);
}

static void test_plan_rounds_rate_and_sigma_up(void **state)
{
    (void)state;
    dure_dp_plan plan = {0};
    const double wrong_rates[] = {0, -0.1, 1.1, NAN}, wrong_sigmas[] = {-1, 65536, NAN, INFINITY};
    assert_ok(dure_dp_plan_set_rate(&plan, 1e-30, NULL));
    assert_int_equal(plan.q_k, 1);
    assert_ok(dure_dp_plan_set_rate(&plan, 1, NULL));
    assert_true(plan.full);
    assert_ok(dure_dp_plan_set_rate(&plan, nextafter(1, 0), NULL));
    assert_true(!plan.full && plan.q_k == UINT64_MAX - 2047);
    assert_ok(dure_dp_plan_set_sigma(&plan, 0.8, NULL));
    assert_int_equal(plan.sigma_num, 52429);
    assert_true(dure_dp_plan_sigma(&plan) >= 0.8);
    assert_ok(dure_dp_plan_set_sigma(&plan, 0, NULL));
    assert_int_equal(plan.sigma_num, 0);
    for (size_t i = 0; i < 4; i++) {
        assert_err(dure_dp_plan_set_rate(&plan, wrong_rates[i], NULL), DURE_ERR_USAGE);
        assert_err(dure_dp_plan_set_sigma(&plan, wrong_sigmas[i], NULL), DURE_ERR_USAGE);
    }
}

static void test_plan_grid_keeps_rounding_small(void **state)
{
    (void)state;
    const uint64_t params[] = {1, 65536, 65537, 92160, 4884480, 41943040};
    const uint32_t expected[] = {14, 14, 15, 15, 18, 19};
    uint32_t bits = 0;
    for (size_t i = 0; i < 6; i++) {
        assert_ok(dure_dp_grid_bits(&bits, params[i], NULL));
        assert_int_equal(bits, expected[i]);
        assert_true(sqrt((double)params[i]) / 2 <= ldexp(1, (int)bits) / 128);
    }
    assert_ok(dure_dp_grid_bits(&bits, (uint64_t)1 << 36, NULL));
    assert_err(dure_dp_grid_bits(&bits, ((uint64_t)1 << 36) + 1, NULL), DURE_ERR_LIMIT);
}

static void test_plan_check_refuses_what_does_not_agree(void **state)
{
    (void)state;
    dure_dp_plan good = good_plan(), plan;
    dure_diag diag = {0};
    assert_ok(dure_dp_plan_check(&good, &diag));
#define REFUSES(change)                                                                            \
    do {                                                                                           \
        plan = good;                                                                               \
        plan.change;                                                                               \
        assert_err(dure_dp_plan_check(&plan, &diag), DURE_ERR_USAGE);                              \
        assert_true(diag.text[0]);                                                                 \
    } while (0)
    REFUSES(mechanism = 0);
    REFUSES(q_k++);
    REFUSES(full = true);
    REFUSES(clip = 0);
    REFUSES(clip = NAN);
    REFUSES(clip = INFINITY);
    REFUSES(clip = -1);
    REFUSES(grid_bits = 13);
    REFUSES(grid_bits = 25);
    REFUSES(steps = 0);
    REFUSES(steps = UINT64_MAX);
    REFUSES(n_pub = 0);
    REFUSES(batch = 0);
    REFUSES(batch = 129);
    REFUSES(adaptive.quantile_num = 1);
    REFUSES(adaptive.rate = 0.1);
    REFUSES(adaptive.rate = -0.0);
    good = adaptive_plan();
    assert_ok(dure_dp_plan_check(&good, &diag));
    REFUSES(adaptive.count_sigma_num = 0);
    REFUSES(adaptive.quantile_num = 0);
    REFUSES(adaptive.quantile_num = 65536);
    REFUSES(adaptive.rate = 0);
    REFUSES(adaptive.rate = 1.5);
    REFUSES(adaptive.rate = NAN);
    REFUSES(honest = 3);
    REFUSES(n_params = 1);
    good = site_plan();
    assert_ok(dure_dp_plan_check(&good, &diag));
    REFUSES(honest = 0);
    REFUSES(honest = 1);
    REFUSES(honest = 101);
    REFUSES(n_params = 0);
    REFUSES(n_params = ((uint64_t)1 << 18) + 1);
    REFUSES(batch = 100);
    REFUSES(sigma_num = 1);          /* a share of less than 4 units */
    REFUSES(sigma_num = UINT32_MAX); /* of more than 2^23 */
    REFUSES(mechanism = DURE_DP_POISSON_GAUSSIAN);
    REFUSES(adaptive = adaptive_plan().adaptive);
#undef REFUSES
    assert_ok(dure_dp_plan_set_batch(&good, 100, 5000, NULL));
    assert_err(dure_dp_plan_check(&good, &diag), DURE_ERR_USAGE);
    assert_non_null(strstr(diag.text, "every round"));
}

static void test_plan_unit_has_a_word(void **state)
{
    (void)state;
    static const char *const units[] = {"record", "subject", "site"};
    dure_dp_plan plan = {0};
    for (size_t i = 0; i < 3; i++) {
        assert_ok(dure_dp_plan_set_unit(&plan, units[i], NULL));
        assert_string_equal(dure_dp_plan_unit(&plan), units[i]);
    }
    assert_err(dure_dp_plan_set_unit(&plan, "client", NULL), DURE_ERR_USAGE);
}

static void test_plan_same_step_looks_at_every_field(void **state)
{
    (void)state;
    dure_dp_plan plan = site_plan(), other = plan;
    other.steps++;
    assert_true(dure_dp_plan_same_step(&plan, &other));
#define DIFFERS(change)                                                                            \
    do {                                                                                           \
        other = plan;                                                                              \
        other.change;                                                                              \
        assert_false(dure_dp_plan_same_step(&plan, &other));                                       \
    } while (0)
    DIFFERS(mechanism = DURE_DP_POISSON_GAUSSIAN);
    DIFFERS(full = false);
    DIFFERS(q_k++);
    DIFFERS(sigma_num++);
    DIFFERS(clip *= 2);
    DIFFERS(grid_bits++);
    DIFFERS(n_pub++);
    DIFFERS(batch++);
    DIFFERS(honest++);
    DIFFERS(n_params++);
    DIFFERS(adaptive = adaptive_plan().adaptive);
#undef DIFFERS
}

static void check_encoding(dure_dp_plan plan, size_t n_bytes)
{
    dure_dp_plan read = {0};
    dure_buf buf;
    dure_buf_init(&buf, 1000);
    dure_dp_plan_put(&buf, &plan);
    assert_ok(dure_buf_err(&buf));
    assert_int_equal(buf.n, n_bytes);
    dure_reader r = dure_reader_of(dure_buf_span(&buf));
    assert_ok(dure_dp_plan_take(&read, &r));
    assert_ok(dure_reader_end(&r));
    check_same(&plan, &read);
    for (size_t n = 0; n < buf.n; n++) {
        r = dure_reader_of(dure_span_of(buf.data, n));
        assert_err(dure_dp_plan_take(&read, &r), DURE_ERR_PROTO);
    }
    buf.data[1] = 2; /* the flag of full participation */
    r = dure_reader_of(dure_buf_span(&buf));
    assert_err(dure_dp_plan_take(&read, &r), DURE_ERR_PROTO);
    dure_buf_fini(&buf);
}

static void test_plan_encodes_and_decodes(void **state)
{
    (void)state;
    check_encoding(good_plan(), 50);
    check_encoding(site_plan(), 62);
}

/* What stands in ledgers: a fixed clip as ever, 50 bytes; an adaptive one marked and longer. */
static void test_plan_encodes_an_adaptive_clip(void **state)
{
    (void)state;
    dure_dp_plan fixed = good_plan(), plan = adaptive_plan(), read = {0};
    dure_buf buf;
    dure_buf_init(&buf, 1000);
    dure_dp_plan_put(&buf, &fixed);
    assert_int_equal(buf.n, 50);
    assert_int_equal(buf.data[0], 1);
    dure_dp_plan_put(&buf, &plan);
    assert_int_equal(buf.n, 50 + 66);
    assert_int_equal(buf.data[50], 17);
    dure_reader r = dure_reader_of(dure_span_of(buf.data + 50, 66));
    assert_ok(dure_dp_plan_take(&read, &r));
    assert_ok(dure_reader_end(&r));
    check_same(&plan, &read);
    for (size_t n = 0; n < 66; n++) {
        r = dure_reader_of(dure_span_of(buf.data + 50, n));
        assert_err(dure_dp_plan_take(&read, &r), DURE_ERR_PROTO);
    }
    for (size_t i = 50 + 50; i < 50 + 54; i++)
        buf.data[i] = 0; /* no noise on the count would be a second encoding of a fixed clip */
    r = dure_reader_of(dure_span_of(buf.data + 50, 66));
    assert_err(dure_dp_plan_take(&read, &r), DURE_ERR_PROTO);
    dure_buf_fini(&buf);
}

static void test_plan_json_of_an_adaptive_clip(void **state)
{
    (void)state;
    static const char *const keys[] = {"count_sigma_num", "quantile_num", "rate"};
    static const char *const wrong[] = {"\"\"", "-1", "null", "0", "1e99", "4294967296"};
    dure_dp_plan plan = adaptive_plan(), read = {0};
    json_t *value = dure_dp_plan_to_json(&plan);
    assert_ok(dure_dp_plan_from_json(&read, value, NULL));
    check_same(&plan, &read);
    json_decref(value);
    for (size_t k = 0; k < 3; k++) {
        for (size_t w = 0; w < 6; w++) {
            dure_diag diag = {0};
            value = dure_dp_plan_to_json(&plan);
            json_object_set_new(value, keys[k], json_loads(wrong[w], JSON_DECODE_ANY, NULL));
            assert_err(dure_dp_plan_from_json(&read, value, &diag), DURE_ERR_FORMAT);
            assert_true(diag.text[0]);
            json_decref(value);
        }
    }
}

static void test_plan_survives_json(void **state)
{
    (void)state;
    dure_dp_plan plan = good_plan(), read = {0};
    for (int full = 0; full < 3; full++) {
        if (full == 1) assert_ok(dure_dp_plan_set_batch(&plan, 50, 50, NULL));
        if (full == 2) plan = site_plan();
        json_t *value = dure_dp_plan_to_json(&plan);
        char *text = json_dumps(value, 0);
        json_t *again = NULL;
        assert_non_null(text);
        assert_ok(dure_json_parse(&again, dure_span_of_text(text), "plan", NULL));
        assert_ok(dure_dp_plan_from_json(&read, again, NULL));
        check_same(&plan, &read);
        free(text);
        json_decref(value);
        json_decref(again);
    }
}

static void test_plan_json_refuses_wrong_members(void **state)
{
    (void)state;
    static const char *const keys[] = {"mechanism", "q_k",   "sigma_num", "clip",   "grid_bits",
                                       "steps",     "n_pub", "batch",     "honest", "params"};
    static const char *const wrong[] = {"\"\"", "-1", "null", "\"18446744073709551616\"", "1e99"};
    dure_dp_plan plan = good_plan(), read;
    for (size_t k = 0; k < 10; k++) {
        if (k == 8) plan = site_plan(); /* which alone has them */
        for (size_t w = 0; w < 5; w++) {
            dure_diag diag = {0};
            json_t *value = dure_dp_plan_to_json(&plan);
            json_t *bad = json_loads(wrong[w], JSON_DECODE_ANY, NULL);
            assert_non_null(bad);
            json_object_set_new(value, keys[k], bad);
            assert_err(dure_dp_plan_from_json(&read, value, &diag), DURE_ERR_FORMAT);
            assert_true(diag.text[0]);
            json_decref(value);
        }
    }
}

/* The bounds of a budget, from both sides. */
static void test_privacy_check_refuses_what_is_no_budget(void **state)
{
    (void)state;
    static const dure_privacy good[] = {{1e-9, 1e-12}, {100, 0.5}, {8, 0.999}};
    static const dure_privacy wrong[] = {{0, 1e-5},   {-1, 1e-5}, {100.001, 1e-5}, {INFINITY, 1e-5},
                                         {NAN, 1e-5}, {8, 0},     {8, -1e-5},      {8, 1},
                                         {8, 1.5},    {8, NAN}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_ok(dure_privacy_check(good[i], NULL));
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        dure_diag diag = {{0}};
        assert_err(dure_privacy_check(wrong[i], &diag), DURE_ERR_USAGE);
        assert_non_null(strstr(diag.text, i < 5 ? "epsilon must be above 0" : "delta must be"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_privacy_check_refuses_what_is_no_budget),
        cmocka_unit_test(test_plan_batch_gives_an_exact_rate),
        cmocka_unit_test(test_plan_rounds_rate_and_sigma_up),
        cmocka_unit_test(test_plan_grid_keeps_rounding_small),
        cmocka_unit_test(test_plan_check_refuses_what_does_not_agree),
        cmocka_unit_test(test_plan_unit_has_a_word),
        cmocka_unit_test(test_plan_same_step_looks_at_every_field),
        cmocka_unit_test(test_plan_encodes_and_decodes),
        cmocka_unit_test(test_plan_encodes_an_adaptive_clip),
        cmocka_unit_test(test_plan_json_of_an_adaptive_clip),
        cmocka_unit_test(test_plan_survives_json),
        cmocka_unit_test(test_plan_json_refuses_wrong_members),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
