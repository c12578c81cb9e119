#include "registry/blob.h"

#include "common/file.h"
#include "support/check.h"
#include "support/temp_dir.h"

#include <stdlib.h>
#include <string.h>

static void test_blob_is_named_by_its_digest(void **state)
{
    (void)state;
    dure_hash digest;
    assert_ok(dure_blob_put(&digest, test_dir.path, dure_span_of_text("abc"), NULL));
    /* SHA-256 of "abc", FIPS 180-4. */
    char *path = dure_blob_path(test_dir.path, &digest);
    assert_non_null(
        strstr(path, "/ba/ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
    assert_true(dure_file_exists(path));
    free(path);
}

static void test_blob_reads_back_what_was_put(void **state)
{
    (void)state;
    dure_hash digest, again;
    dure_buf bytes = {0};
    assert_ok(dure_blob_put(&digest, test_dir.path, dure_span_of_text("adapter"), NULL));
    assert_ok(dure_blob_put(&again, test_dir.path, dure_span_of_text("adapter"), NULL));
    assert_true(dure_hash_equal(&digest, &again));
    assert_ok(dure_blob_get(&bytes, test_dir.path, &digest, 64, NULL));
    assert_int_equal(bytes.n, 7);
    assert_memory_equal(bytes.data, "adapter", 7);
    dure_buf_fini(&bytes);
}

static void test_blob_reads_in_parts(void **state)
{
    (void)state;
    dure_hash digest;
    dure_blob_file file = {.n = 0};
    char part[4];
    assert_ok(dure_blob_put(&digest, test_dir.path, dure_span_of_text("adapter"), NULL));
    assert_ok(dure_blob_open(&file, test_dir.path, &digest, NULL));
    assert_int_equal(file.n, 7);
    assert_ok(dure_blob_read(part, &file, 3, 4, NULL));
    assert_memory_equal(part, "pter", 4);
    assert_err(dure_blob_read(part, &file, 4, 4, NULL), DURE_ERR_IO);
    dure_blob_close(&file);
    dure_blob_close(&file);
    assert_int_equal(file.n, 0);
}

static void test_blob_is_written_in_pieces(void **state)
{
    (void)state;
    dure_hash digest, wanted;
    dure_blob_writer w;
    dure_buf bytes;
    const char *partial = temp_dir_file(&test_dir, "partial");
    /* A process that was killed left more than is written now. */
    assert_ok(dure_file_write_atomic(partial, dure_span_of_text("a longer text"), 0644, NULL));
    assert_ok(dure_hash_bytes(&wanted, dure_span_of_text("piecemeal")));
    assert_ok(dure_blob_writer_init(&w, test_dir.path, "partial", NULL));
    assert_ok(dure_blob_writer_put(&w, dure_span_of_text("piece"), NULL));
    assert_ok(dure_blob_writer_put(&w, dure_span_of_text("meal"), NULL));
    assert_false(dure_blob_present(test_dir.path, &wanted));
    assert_ok(dure_blob_writer_commit(&digest, &w, NULL));
    dure_blob_writer_fini(&w);
    assert_true(dure_hash_equal(&digest, &wanted));
    assert_false(dure_file_exists(partial));
    assert_ok(dure_blob_get(&bytes, test_dir.path, &digest, 64, NULL));
    assert_int_equal(bytes.n, 9);
    dure_buf_fini(&bytes);
}

static void test_blob_given_up_leaves_nothing(void **state)
{
    (void)state;
    dure_blob_writer w;
    assert_ok(dure_blob_writer_init(&w, test_dir.path, "partial", NULL));
    assert_ok(dure_blob_writer_put(&w, dure_span_of_text("given up"), NULL));
    dure_blob_writer_fini(&w);
    dure_blob_writer_fini(&w);
    assert_false(dure_file_exists(temp_dir_file(&test_dir, "partial")));
}

static void test_blob_altered_is_not_opened(void **state)
{
    (void)state;
    dure_hash digest, missing = {{1}};
    dure_blob_file file = {.n = 0};
    assert_ok(dure_blob_put(&digest, test_dir.path, dure_span_of_text("adapter"), NULL));
    char *path = dure_blob_path(test_dir.path, &digest);
    assert_ok(dure_file_write_atomic(path, dure_span_of_text("adaptor"), 0644, NULL));
    assert_err(dure_blob_open(&file, test_dir.path, &digest, NULL), DURE_ERR_AUTH);
    assert_err(dure_blob_open(&file, test_dir.path, &missing, NULL), DURE_ERR_NOT_FOUND);
    assert_int_equal(file.n, 0);
    dure_blob_close(&file);
    free(path);
}

static void test_blob_missing_is_named(void **state)
{
    (void)state;
    dure_hash digest = {{1}};
    dure_buf bytes = {0};
    dure_diag diag = {0};
    assert_false(dure_blob_present(test_dir.path, &digest));
    assert_err(dure_blob_get(&bytes, test_dir.path, &digest, 64, &diag), DURE_ERR_NOT_FOUND);
    assert_non_null(strstr(diag.text, "0100000000"));
}

static void test_blob_altered_is_refused_and_healed(void **state)
{
    (void)state;
    dure_hash digest;
    dure_buf bytes = {0};
    assert_ok(dure_blob_put(&digest, test_dir.path, dure_span_of_text("adapter"), NULL));
    char *path = dure_blob_path(test_dir.path, &digest);
    assert_ok(dure_file_write_atomic(path, dure_span_of_text("adaptor"), 0644, NULL));
    assert_err(dure_blob_get(&bytes, test_dir.path, &digest, 64, NULL), DURE_ERR_AUTH);
    assert_null(bytes.data);
    assert_err(dure_blob_check(test_dir.path, &digest, NULL), DURE_ERR_AUTH);
    assert_ok(dure_blob_put(&digest, test_dir.path, dure_span_of_text("adapter"), NULL));
    assert_ok(dure_blob_check(test_dir.path, &digest, NULL));
    free(path);
}

static void test_blob_over_the_limit_is_refused(void **state)
{
    (void)state;
    dure_hash digest;
    dure_buf bytes = {0};
    assert_ok(dure_blob_put(&digest, test_dir.path, dure_span_of_text("0123456789"), NULL));
    assert_err(dure_blob_get(&bytes, test_dir.path, &digest, 9, NULL), DURE_ERR_LIMIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_blob_is_named_by_its_digest, test_dir_setup,
                                        test_dir_teardown),
        cmocka_unit_test_setup_teardown(test_blob_reads_back_what_was_put, test_dir_setup,
                                        test_dir_teardown),
        cmocka_unit_test_setup_teardown(test_blob_reads_in_parts, test_dir_setup,
                                        test_dir_teardown),
        cmocka_unit_test_setup_teardown(test_blob_is_written_in_pieces, test_dir_setup,
                                        test_dir_teardown),
        cmocka_unit_test_setup_teardown(test_blob_given_up_leaves_nothing, test_dir_setup,
                                        test_dir_teardown),
        cmocka_unit_test_setup_teardown(test_blob_altered_is_not_opened, test_dir_setup,
                                        test_dir_teardown),
        cmocka_unit_test_setup_teardown(test_blob_missing_is_named, test_dir_setup,
                                        test_dir_teardown),
        cmocka_unit_test_setup_teardown(test_blob_altered_is_refused_and_healed, test_dir_setup,
                                        test_dir_teardown),
        cmocka_unit_test_setup_teardown(test_blob_over_the_limit_is_refused, test_dir_setup,
                                        test_dir_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
