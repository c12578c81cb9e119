#include "coordinator/next_adapter.h"

#include "../federation/fixture.h"
#include "common/file.h"
#include "federation/global_adapter.h"
#include "federation/server_step.h"
#include "registry/blob.h"
#include "support/check.h"
#include "support/temp_dir.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SITES = 3 };

/* A first adapter and a sum as blobs, and what the step must give. */
typedef struct stage {
    dure_terms terms;
    char blobs[300];
    dure_next_adapter next;
    dure_buf present, wanted;
    dure_hash wanted_digest;
    int32_t *sum;
    size_t n;
} stage;

static void put_sum(stage *st)
{
    uint8_t *bytes = malloc(4 * st->n);
    assert_non_null(bytes);
    dure_server_step_sum_put(bytes, st->sum, st->n);
    assert_ok(dure_blob_put(&st->next.sum, st->next.blobs, dure_span_of(bytes, 4 * st->n), NULL));
    free(bytes);
}

/* A layout whose sum is longer than what is read of it at a time. */
static void make_stage(stage *st)
{
    fixture f;
    fixture_make(&f);
    *st = (stage){.terms = f.terms};
    st->terms.base.n_ff = 6000;
    st->terms.layout.targets = 1u << DURE_LORA_GATE | 1u << DURE_LORA_DOWN;
    st->n = (size_t)2 * 4 * (6000 + 32);
    st->terms.layout.n_active = st->n;
    st->terms.layout.n_params = 2 * st->n;
    snprintf(st->blobs, sizeof st->blobs, "%s/blobs", test_dir.path);
    st->next = (dure_next_adapter){.terms = &st->terms, .blobs = st->blobs, .n_sites = SITES};
    st->sum = calloc(st->n, sizeof *st->sum);
    assert_non_null(st->sum);
    for (size_t i = 0; i < st->n; i++)
        st->sum[i] = (int32_t)((uint32_t)i * 2654435761u >> 16) - 32768;
    assert_ok(dure_global_adapter_first(&st->present, &st->terms, NULL));
    assert_ok(
        dure_blob_put(&st->next.adapter_in, st->next.blobs, dure_buf_span(&st->present), NULL));
    put_sum(st);
    assert_ok(dure_global_adapter_next(&st->wanted, &st->terms, dure_buf_span(&st->present),
                                       st->sum, SITES, NULL));
    assert_ok(dure_hash_bytes(&st->wanted_digest, dure_buf_span(&st->wanted)));
}

static void end_stage(stage *st)
{
    dure_buf_fini(&st->present);
    dure_buf_fini(&st->wanted);
    free(st->sum);
    assert_ok(dure_dir_remove(temp_dir_file(&test_dir, "blobs"), NULL));
}

static const char *unfinished(void)
{
    return temp_dir_file(&test_dir, "blobs/next-adapter.unfinished");
}

static void assert_made(const stage *st, const dure_hash *digest)
{
    dure_buf made;
    assert_true(dure_hash_equal(digest, &st->wanted_digest));
    assert_ok(dure_blob_get(&made, st->next.blobs, digest, 1 << 24, NULL));
    assert_int_equal(made.n, st->wanted.n);
    assert_memory_equal(made.data, st->wanted.data, made.n);
    dure_buf_fini(&made);
    assert_false(dure_file_exists(unfinished()));
}

static void assert_refused(const stage *st, dure_err err, const char *words)
{
    dure_hash digest = {{0}};
    dure_diag diag = {{0}};
    assert_err(dure_next_adapter_make(&digest, &st->next, &diag), err);
    assert_non_null(strstr(diag.text, words));
    assert_false(dure_blob_present(st->next.blobs, &st->wanted_digest));
    assert_false(dure_file_exists(unfinished()));
}

static void test_next_adapter_is_the_one_made_in_memory(void **state)
{
    (void)state;
    stage st;
    dure_hash digest;
    make_stage(&st);
    assert_ok(dure_next_adapter_make(&digest, &st.next, NULL));
    assert_made(&st, &digest);
    end_stage(&st);
}

/* What a coordinator that was killed left: half a file, or a longer one than is written now. */
static void test_next_adapter_is_made_over_what_a_killed_one_left(void **state)
{
    (void)state;
    stage st;
    dure_hash digest;
    make_stage(&st);
    assert_ok(dure_file_write_atomic(unfinished(), dure_span_of(st.wanted.data, st.wanted.n / 2),
                                     0644, NULL));
    assert_ok(dure_next_adapter_make(&digest, &st.next, NULL));
    assert_made(&st, &digest);
    dure_put_raw(&st.present, st.present.data, 1000);
    assert_ok(dure_file_write_atomic(unfinished(), dure_buf_span(&st.present), 0644, NULL));
    assert_ok(dure_next_adapter_make(&digest, &st.next, NULL));
    assert_made(&st, &digest);
    end_stage(&st);
}

static void test_next_adapter_heals_a_result_that_was_damaged(void **state)
{
    (void)state;
    stage st;
    dure_hash digest;
    make_stage(&st);
    assert_ok(dure_next_adapter_make(&digest, &st.next, NULL));
    char *path = dure_blob_path(st.next.blobs, &digest);
    assert_ok(dure_file_write_atomic(path, dure_span_of_text("torn"), 0644, NULL));
    assert_ok(dure_next_adapter_make(&digest, &st.next, NULL));
    assert_made(&st, &digest);
    free(path);
    end_stage(&st);
}

static void test_next_adapter_refuses_a_sum_of_no_honest_sites(void **state)
{
    (void)state;
    stage st;
    make_stage(&st);
    st.sum[st.n - 1] = SITES * 65536 + 1;
    put_sum(&st);
    assert_refused(&st, DURE_ERR_PROTO, "coordinate 48255 of the sum");
    end_stage(&st);
}

static void test_next_adapter_refuses_a_sum_of_another_length(void **state)
{
    (void)state;
    stage st;
    make_stage(&st);
    st.n--;
    put_sum(&st);
    assert_refused(&st, DURE_ERR_FORMAT, "wrong length");
    st.n += 2;
    st.sum = realloc(st.sum, st.n * sizeof *st.sum);
    assert_non_null(st.sum);
    st.sum[st.n - 2] = st.sum[st.n - 1] = 0;
    put_sum(&st);
    assert_refused(&st, DURE_ERR_FORMAT, "wrong length");
    end_stage(&st);
}

static void damage(const stage *st, const dure_hash *blob)
{
    dure_buf bytes;
    char *path = dure_blob_path(st->next.blobs, blob);
    assert_ok(dure_file_read(&bytes, path, 1 << 24, NULL));
    bytes.data[bytes.n / 2] ^= 1;
    assert_ok(dure_file_write_atomic(path, dure_buf_span(&bytes), 0644, NULL));
    dure_buf_fini(&bytes);
    free(path);
}

static void test_next_adapter_refuses_what_was_damaged_on_disk(void **state)
{
    (void)state;
    stage st;
    make_stage(&st);
    damage(&st, &st.next.sum);
    assert_refused(&st, DURE_ERR_AUTH, "damaged or exchanged");
    end_stage(&st);
    make_stage(&st);
    damage(&st, &st.next.adapter_in);
    assert_refused(&st, DURE_ERR_AUTH, "damaged or exchanged");
    end_stage(&st);
}

static void test_next_adapter_refuses_an_adapter_of_another_layout(void **state)
{
    (void)state;
    stage st;
    make_stage(&st);
    st.terms.layout.alpha *= 2;
    assert_refused(&st, DURE_ERR_STATE, "layout is not the federation's");
    end_stage(&st);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_next_adapter_is_the_one_made_in_memory),
        cmocka_unit_test(test_next_adapter_is_made_over_what_a_killed_one_left),
        cmocka_unit_test(test_next_adapter_heals_a_result_that_was_damaged),
        cmocka_unit_test(test_next_adapter_refuses_a_sum_of_no_honest_sites),
        cmocka_unit_test(test_next_adapter_refuses_a_sum_of_another_length),
        cmocka_unit_test(test_next_adapter_refuses_what_was_damaged_on_disk),
        cmocka_unit_test(test_next_adapter_refuses_an_adapter_of_another_layout),
    };
    return cmocka_run_group_tests(tests, test_dir_setup, test_dir_teardown);
}
