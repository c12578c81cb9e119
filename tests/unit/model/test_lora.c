#include "model/lora.h"
#include "support/check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const dure_lora_layout layout = {
    .shape = {.architecture = "llama",
              .n_layers = 3,
              .n_embd = 12,
              .n_ff = 20,
              .n_head = 4,
              .n_head_kv = 2,
              .head_dim = 4,
              .n_vocab = 50,
              .n_context = 64},
    .rank = 2,
    .alpha = 4,
    .targets = 1u << DURE_LORA_Q | 1u << DURE_LORA_DOWN,
    .first_layer = 1,
};

static void test_lora_layout_is_canonical(void **state)
{
    (void)state;
    size_t at = 0;
    /* q: A 2 x 12, B 16 x 2; down: A 2 x 20, B 12 x 2; layers 1 and 2. */
    assert_int_equal(dure_lora_count(&layout, DURE_LORA_FACTOR_A), 2 * (24 + 40));
    assert_int_equal(dure_lora_count(&layout, DURE_LORA_FACTOR_B), 2 * (32 + 24));
    assert_true(dure_lora_find(&at, &layout, 1, DURE_LORA_Q, DURE_LORA_FACTOR_A));
    assert_int_equal(at, 0);
    assert_true(dure_lora_find(&at, &layout, 1, DURE_LORA_Q, DURE_LORA_FACTOR_B));
    assert_int_equal(at, 24);
    assert_true(dure_lora_find(&at, &layout, 1, DURE_LORA_DOWN, DURE_LORA_FACTOR_A));
    assert_int_equal(at, 56);
    assert_true(dure_lora_find(&at, &layout, 2, DURE_LORA_DOWN, DURE_LORA_FACTOR_B));
    assert_int_equal(at, 120 + 56 + 40);
    assert_false(dure_lora_find(&at, &layout, 0, DURE_LORA_Q, DURE_LORA_FACTOR_A));
    assert_false(dure_lora_find(&at, &layout, 1, DURE_LORA_K, DURE_LORA_FACTOR_A));
    assert_false(dure_lora_find(&at, &layout, 3, DURE_LORA_Q, DURE_LORA_FACTOR_A));
}

static void test_lora_targets_may_have_their_own_rank(void **state)
{
    (void)state;
    dure_lora_layout l = layout;
    size_t at = 0;
    l.ranks[DURE_LORA_DOWN] = 3;
    assert_ok(dure_lora_layout_check(&l, NULL));
    assert_int_equal(dure_lora_count(&l, DURE_LORA_FACTOR_A), 2 * (24 + 60));
    assert_true(dure_lora_find(&at, &l, 2, DURE_LORA_DOWN, DURE_LORA_FACTOR_B));
    assert_int_equal(at, 24 + 32 + 60 + 36 + 24 + 32 + 60);
    assert_int_equal(dure_lora_rank_most(&l), 3);
    assert_true(dure_lora_scale(&l, DURE_LORA_Q) == 2.0f);
    assert_true(dure_lora_scale(&l, DURE_LORA_DOWN) == 4.0f / 3);
    l.ranks[DURE_LORA_K] = 3; /* not adapted */
    assert_err(dure_lora_layout_check(&l, NULL), DURE_ERR_USAGE);
    l.ranks[DURE_LORA_K] = 0;
    l.ranks[DURE_LORA_DOWN] = 13; /* the matrix has 12 rows */
    assert_err(dure_lora_layout_check(&l, NULL), DURE_ERR_USAGE);
}

static void test_lora_ranks_settle_to_one_form(void **state)
{
    (void)state;
    dure_lora_layout a = layout, b = layout;
    a.rank = 7;
    a.ranks[DURE_LORA_Q] = 2;
    a.ranks[DURE_LORA_DOWN] = 2;
    a.ranks[DURE_LORA_K] = 9;
    assert_false(dure_lora_layout_equal(&a, &b));
    dure_lora_ranks_settle(&a);
    assert_true(dure_lora_layout_equal(&a, &b));
    a.ranks[DURE_LORA_DOWN] = 3;
    assert_false(dure_lora_layout_equal(&a, &b));
}

static void test_lora_ranks_are_read_and_written(void **state)
{
    (void)state;
    dure_lora_layout l = layout;
    char text[64];
    assert_ok(dure_lora_ranks_parse(&l, "8,down=4", NULL));
    assert_int_equal(l.rank, 8);
    assert_int_equal(l.ranks[DURE_LORA_DOWN], 4);
    dure_lora_ranks_text(text, &l);
    assert_string_equal(text, "8,down=4");
    static const char *const wrong[] = {
        "",      "0",      "257",       "8,", "8,v",    "8,v=", "v=8",    "8,x=3",
        "8,v=0", "8,v=3x", "8,v=3,v=4", "-1", "8 ,v=3", "8,=3", "8,v=3,", "8,down=257"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        if (dure_lora_ranks_parse(&l, wrong[i], NULL) != DURE_ERR_USAGE)
            fail_msg("'%s' is accepted", wrong[i]);
}

static void test_lora_pack_keeps_the_order(void **state)
{
    (void)state;
    dure_lora *lora = NULL, *copy = NULL;
    assert_ok(dure_lora_new(&lora, &layout));
    assert_ok(dure_lora_new(&copy, &layout));
    for (size_t i = 0; i < lora->n; i++)
        lora->params[i] = (float)i;
    float *b = calloc(lora->n, sizeof *b), *a = calloc(lora->n, sizeof *a);
    dure_lora_pack(a, lora, DURE_LORA_FACTOR_A);
    dure_lora_pack(b, lora, DURE_LORA_FACTOR_B);
    assert_true(a[24] == 56.0f && b[0] == 24.0f && b[32] == 96.0f);
    dure_lora_unpack(copy, a, DURE_LORA_FACTOR_A);
    dure_lora_unpack(copy, b, DURE_LORA_FACTOR_B);
    assert_memory_equal(copy->params, lora->params, lora->n * sizeof(float));
    free(a);
    free(b);
    dure_lora_free(&lora);
    dure_lora_free(&copy);
}

static void test_lora_orthonormal_rows(void **state)
{
    (void)state;
    dure_lora *lora = NULL;
    dure_lora_layout wide = layout;
    wide.rank = 12; /* a whole basis */
    wide.targets = 127;
    assert_ok(dure_lora_layout_check(
        &(dure_lora_layout){.shape = layout.shape, .rank = 8, .alpha = 1, .targets = 127}, NULL));
    assert_ok(dure_lora_new(&lora, &wide));
    dure_lora_init_orthonormal(lora, 42);
    size_t at = 0;
    assert_true(dure_lora_find(&at, &wide, 2, DURE_LORA_Q, DURE_LORA_FACTOR_A));
    for (size_t i = 0; i < 12; i++)
        for (size_t j = 0; j < 12; j++) {
            double product = 0;
            for (size_t k = 0; k < 12; k++)
                product +=
                    (double)lora->params[at + i * 12 + k] * (double)lora->params[at + j * 12 + k];
            assert_true(fabs(product - (i == j)) < 1e-6);
        }
    assert_true(dure_lora_find(&at, &wide, 2, DURE_LORA_Q, DURE_LORA_FACTOR_B));
    assert_true(lora->params[at] == 0);
    dure_lora_free(&lora);
}

/* Pinned bits: every site must make the same A from the same seed, on any machine. */
static void test_lora_start_is_pinned(void **state)
{
    (void)state;
    dure_lora *lora = NULL;
    uint64_t hash = 0xcbf29ce484222325;
    assert_ok(dure_lora_new(&lora, &layout));
    dure_lora_init_orthonormal(lora, 7);
    for (size_t i = 0; i < lora->n; i++) {
        uint32_t bits;
        memcpy(&bits, &lora->params[i], sizeof bits);
        hash = (hash ^ bits) * 0x100000001b3;
    }
    assert_true(hash == 0xd4589be37b8888a9);
    dure_lora_init_uniform(lora, 7);
    for (size_t i = 0; i < 24; i++)
        assert_true(fabsf(lora->params[i]) <= 1 / sqrtf(12));
    dure_lora_free(&lora);
}

static void test_lora_refuses_what_is_out_of_range(void **state)
{
    (void)state;
    dure_diag diag = {{0}};
    dure_lora_layout bad = layout;
    assert_ok(dure_lora_layout_check(&bad, &diag));
    bad.rank = 0;
    assert_err(dure_lora_layout_check(&bad, &diag), DURE_ERR_USAGE);
    bad.rank = 13; /* the matrices have 12 columns */
    assert_err(dure_lora_layout_check(&bad, &diag), DURE_ERR_USAGE);
    assert_non_null(strstr(diag.text, "rank 13"));
    bad = layout;
    bad.targets = 0;
    assert_err(dure_lora_layout_check(&bad, &diag), DURE_ERR_USAGE);
    bad.targets = 1u << DURE_LORA_TARGETS;
    assert_err(dure_lora_layout_check(&bad, &diag), DURE_ERR_USAGE);
    bad = layout;
    bad.first_layer = 3;
    assert_err(dure_lora_layout_check(&bad, &diag), DURE_ERR_USAGE);
    bad = layout;
    bad.alpha = NAN;
    assert_err(dure_lora_layout_check(&bad, &diag), DURE_ERR_USAGE);
}

static void test_lora_targets_text_and_back(void **state)
{
    (void)state;
    static const char *const wrong[] = {"", "q,", ",q", "q,q", "x", "q v", "All", "gat", "q,,v"};
    uint32_t targets = 0;
    char text[64];
    assert_ok(dure_lora_targets_parse(&targets, "all", NULL));
    assert_int_equal(targets, 127);
    dure_lora_targets_text(text, targets);
    assert_string_equal(text, "q,k,v,o,gate,up,down");
    assert_ok(dure_lora_targets_parse(&targets, "down,q", NULL));
    dure_lora_targets_text(text, targets);
    assert_string_equal(text, "q,down");
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_err(dure_lora_targets_parse(&targets, wrong[i], NULL), DURE_ERR_USAGE);
}

static void test_lora_factor_by_name(void **state)
{
    (void)state;
    static const char *const wrong[] = {"", "c", "A", "ab", "a,b", "both "};
    dure_lora_factor factor;
    dure_diag diag = {{0}};
    assert_ok(dure_lora_factor_parse(&factor, "a", NULL));
    assert_int_equal(factor, DURE_LORA_FACTOR_A);
    assert_ok(dure_lora_factor_parse(&factor, "b", NULL));
    assert_int_equal(factor, DURE_LORA_FACTOR_B);
    assert_ok(dure_lora_factor_parse(&factor, "both", NULL));
    assert_int_equal(factor, DURE_LORA_FACTOR_BOTH);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_err(dure_lora_factor_parse(&factor, wrong[i], &diag), DURE_ERR_USAGE);
        assert_non_null(strstr(diag.text, "is a, b or both, not"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lora_layout_is_canonical),
        cmocka_unit_test(test_lora_targets_may_have_their_own_rank),
        cmocka_unit_test(test_lora_ranks_settle_to_one_form),
        cmocka_unit_test(test_lora_ranks_are_read_and_written),
        cmocka_unit_test(test_lora_pack_keeps_the_order),
        cmocka_unit_test(test_lora_orthonormal_rows),
        cmocka_unit_test(test_lora_start_is_pinned),
        cmocka_unit_test(test_lora_refuses_what_is_out_of_range),
        cmocka_unit_test(test_lora_targets_text_and_back),
        cmocka_unit_test(test_lora_factor_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
