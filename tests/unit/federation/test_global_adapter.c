#include "federation/global_adapter.h"
#include "federation/server_step.h"
#include "fixture.h"
#include "model/adapter_file.h"
#include "support/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void terms_of(dure_terms *terms)
{
    fixture f;
    fixture_make(&f);
    *terms = f.terms;
}

static void test_global_adapter_first_depends_on_the_terms_alone(void **state)
{
    (void)state;
    dure_terms terms;
    dure_buf a, b;
    terms_of(&terms);
    assert_ok(dure_global_adapter_first(&a, &terms, NULL));
    assert_ok(dure_global_adapter_first(&b, &terms, NULL));
    assert_int_equal(a.n, b.n);
    assert_memory_equal(a.data, b.data, a.n);
    dure_buf_fini(&b);
    terms.layout.seed++;
    assert_ok(dure_global_adapter_first(&b, &terms, NULL));
    assert_memory_not_equal(a.data, b.data, a.n);
    dure_buf_fini(&a);
    dure_buf_fini(&b);
}

static void test_global_adapter_next_of_a_zero_sum_is_the_same_file(void **state)
{
    (void)state;
    dure_terms terms;
    dure_buf first, next;
    terms_of(&terms);
    int32_t *sum = calloc((size_t)terms.layout.n_active, sizeof *sum);
    assert_non_null(sum);
    assert_ok(dure_global_adapter_first(&first, &terms, NULL));
    assert_ok(dure_global_adapter_next(&next, &terms, dure_buf_span(&first), sum, 3, NULL));
    assert_int_equal(first.n, next.n);
    assert_memory_equal(first.data, next.data, first.n);
    dure_buf_fini(&first);
    dure_buf_fini(&next);
    free(sum);
}

static void test_global_adapter_next_moves_b_and_leaves_a(void **state)
{
    (void)state;
    dure_terms terms;
    dure_buf first, next;
    dure_lora *before, *after;
    terms_of(&terms);
    const size_t n = (size_t)terms.layout.n_active;
    int32_t *sum = calloc(n, sizeof *sum);
    assert_non_null(sum);
    sum[n - 1] = 3 * 65536; /* every site at its limit: a mean of `range` */
    assert_ok(dure_global_adapter_first(&first, &terms, NULL));
    assert_ok(dure_global_adapter_next(&next, &terms, dure_buf_span(&first), sum, 3, NULL));
    assert_ok(dure_adapter_parse(&before, NULL, dure_buf_span(&first), NULL, NULL));
    assert_ok(dure_adapter_parse(&after, NULL, dure_buf_span(&next), NULL, NULL));
    size_t changed = 0;
    for (size_t i = 0; i < before->n; i++) {
        if (memcmp(&before->params[i], &after->params[i], sizeof(float)) == 0) continue;
        changed++;
        assert_true(after->params[i] - before->params[i] == (float)terms.grid.range);
    }
    assert_int_equal(changed, 1);
    dure_lora_free(&before);
    dure_lora_free(&after);
    dure_buf_fini(&first);
    dure_buf_fini(&next);
    free(sum);
}

/* All targets of every layer but the first, so that matrices of all shapes follow one another. */
static void make_wide(dure_terms *terms)
{
    dure_lora_layout layout = {.shape = {.architecture = "llama",
                                         .n_layers = terms->base.n_layers,
                                         .n_embd = terms->base.n_embd,
                                         .n_ff = terms->base.n_ff,
                                         .n_head = terms->base.n_head,
                                         .n_head_kv = terms->base.n_head_kv,
                                         .head_dim = terms->base.head_dim,
                                         .n_vocab = terms->base.n_vocab,
                                         .n_context = terms->base.n_context},
                               .rank = 3,
                               .targets = (1u << DURE_LORA_TARGETS) - 1,
                               .first_layer = 1};
    terms->layout.rank = layout.rank;
    terms->layout.targets = layout.targets;
    terms->layout.first_layer = layout.first_layer;
    terms->layout.n_active = dure_lora_count(&layout, DURE_LORA_FACTOR_B);
    terms->layout.n_params = dure_lora_count(&layout, DURE_LORA_FACTOR_BOTH);
    terms->training.server_rate = 0.7;
}

/* The definition, all in memory: factor B packed, stepped as one vector, and encoded again. */
static void next_by_definition(dure_buf *out, const dure_terms *terms, dure_span present,
                               const int32_t *sum, uint32_t n_sites)
{
    const size_t n = (size_t)terms->layout.n_active;
    const dure_server_step step = {
        .grid = terms->grid, .n_sites = n_sites, .rate = terms->training.server_rate};
    dure_lora *lora;
    dure_adapter_notes notes;
    float *b = malloc(n * sizeof *b);
    assert_non_null(b);
    assert_ok(dure_adapter_parse(&lora, &notes, present, NULL, NULL));
    dure_lora_pack(b, lora, DURE_LORA_FACTOR_B);
    assert_ok(dure_server_step_apply(b, b, sum, n, &step, NULL));
    dure_lora_unpack(lora, b, DURE_LORA_FACTOR_B);
    dure_buf_init(out, SIZE_MAX / 2);
    assert_ok(dure_adapter_encode(out, lora, &notes, NULL));
    dure_adapter_notes_fini(&notes);
    dure_lora_free(&lora);
    free(b);
}

static void test_global_adapter_next_is_the_step_of_the_whole_vector(void **state)
{
    (void)state;
    dure_terms terms;
    dure_buf present, next, wanted;
    uint64_t seed = 1;
    terms_of(&terms);
    make_wide(&terms);
    const size_t n = (size_t)terms.layout.n_active;
    int32_t *sum = calloc(n, sizeof *sum);
    assert_non_null(sum);
    assert_ok(dure_global_adapter_first(&present, &terms, NULL));
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < n; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            sum[i] = (int32_t)(seed >> 33) % (5 * 65536);
        }
        assert_ok(dure_global_adapter_next(&next, &terms, dure_buf_span(&present), sum, 5, NULL));
        next_by_definition(&wanted, &terms, dure_buf_span(&present), sum, 5);
        assert_int_equal(next.n, wanted.n);
        assert_memory_equal(next.data, wanted.data, next.n);
        assert_memory_not_equal(next.data, present.data, next.n);
        dure_buf_fini(&wanted);
        dure_buf_fini(&present);
        present = next;
    }
    dure_buf_fini(&present);
    free(sum);
}

/* The last of them, so that all others were stepped before; it is named by its place in the sum. */
static void test_global_adapter_next_refuses_a_sum_of_no_honest_sites(void **state)
{
    (void)state;
    dure_terms terms;
    dure_buf first, next;
    dure_diag diag = {{0}};
    char place[64];
    terms_of(&terms);
    const size_t n = (size_t)terms.layout.n_active;
    int32_t *sum = calloc(n, sizeof *sum);
    assert_non_null(sum);
    sum[n - 1] = -3 * 65536 - 1;
    assert_ok(dure_global_adapter_first(&first, &terms, NULL));
    assert_err(dure_global_adapter_next(&next, &terms, dure_buf_span(&first), sum, 3, &diag),
               DURE_ERR_PROTO);
    snprintf(place, sizeof place, "coordinate %zu of", n - 1);
    assert_non_null(strstr(diag.text, place));
    assert_null(next.data);
    dure_buf_fini(&first);
    free(sum);
}

static void test_global_adapter_next_refuses_another_layout(void **state)
{
    (void)state;
    dure_terms terms, other;
    dure_buf first, next;
    terms_of(&terms);
    other = terms;
    other.layout.alpha = 2 * terms.layout.alpha;
    int32_t *sum = calloc((size_t)terms.layout.n_active, sizeof *sum);
    assert_non_null(sum);
    assert_ok(dure_global_adapter_first(&first, &terms, NULL));
    assert_err(dure_global_adapter_next(&next, &other, dure_buf_span(&first), sum, 3, NULL),
               DURE_ERR_STATE);
    assert_int_not_equal(dure_global_adapter_next(
                             &next, &terms, dure_span_of(first.data, first.n / 2), sum, 3, NULL),
                         DURE_OK);
    dure_buf_fini(&first);
    free(sum);
}

static void test_global_adapter_layout_must_have_the_counts_of_the_terms(void **state)
{
    (void)state;
    dure_terms terms;
    dure_lora_layout layout;
    dure_diag diag = {{0}};
    terms_of(&terms);
    terms.layout.n_active++;
    assert_err(dure_global_adapter_layout(&layout, &terms, &diag), DURE_ERR_STATE);
    assert_non_null(strstr(diag.text, "adapter.trained"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_global_adapter_first_depends_on_the_terms_alone),
        cmocka_unit_test(test_global_adapter_next_of_a_zero_sum_is_the_same_file),
        cmocka_unit_test(test_global_adapter_next_moves_b_and_leaves_a),
        cmocka_unit_test(test_global_adapter_next_is_the_step_of_the_whole_vector),
        cmocka_unit_test(test_global_adapter_next_refuses_a_sum_of_no_honest_sites),
        cmocka_unit_test(test_global_adapter_next_refuses_another_layout),
        cmocka_unit_test(test_global_adapter_layout_must_have_the_counts_of_the_terms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
