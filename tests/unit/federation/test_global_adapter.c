#include "federation/global_adapter.h"
#include "fixture.h"
#include "model/adapter_file.h"
#include "support/check.h"

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
        cmocka_unit_test(test_global_adapter_next_refuses_another_layout),
        cmocka_unit_test(test_global_adapter_layout_must_have_the_counts_of_the_terms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
