#include "client/attempt.h"
#include "common/file.h"
#include "support/check.h"
#include "support/temp_dir.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct fixture {
    temp_dir dir;
    char path[300];
    dure_hash binding, data;
    uint8_t note[DURE_ATTEMPT_NOTE_BYTES];
    dure_diag diag;
} fixture;

static int set_up(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    temp_dir_make(&f->dir);
    snprintf(f->path, sizeof f->path, "%s", temp_dir_file(&f->dir, "key"));
    memset(f->binding.b, 1, sizeof f->binding.b);
    memset(f->data.b, 2, sizeof f->data.b);
    memset(f->note, 3, sizeof f->note);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;
    temp_dir_remove(&f->dir);
    free(f);
    return 0;
}

static dure_attempt begun(fixture *f)
{
    dure_attempt a;
    assert_ok(dure_attempt_begin(&a, f->path, &f->binding, &f->data, f->note, &f->diag));
    return a;
}

static void draw(uint8_t out[32], const dure_attempt *a, const char *use, uint64_t step,
                 uint64_t block)
{
    dure_stream *stream = NULL;
    assert_ok(dure_attempt_stream(&stream, a, use, step, block));
    dure_rng rng = dure_stream_rng(stream);
    assert_ok(dure_rng_fill(&rng, out, 32));
    dure_stream_free(&stream);
}

static void test_attempt_draws_the_same_bits_after_a_restart(void **state)
{
    fixture *f = *state;
    dure_attempt a = begun(f), b;
    uint8_t first[32], again[32];
    draw(first, &a, "noise", 3, 1);
    dure_attempt_fini(&a);
    assert_ok(dure_attempt_open(&b, f->path, &f->diag));
    assert_ok(dure_attempt_check(&b, &f->binding, &f->data, &f->diag));
    assert_memory_equal(b.note, f->note, sizeof f->note);
    draw(again, &b, "noise", 3, 1);
    assert_memory_equal(first, again, 32);
    dure_attempt_fini(&b);
    dure_attempt_fini(&b); /* idempotent */
}

static void test_attempt_streams_differ_in_everything_they_are_bound_to(void **state)
{
    fixture *f = *state;
    dure_attempt a = begun(f);
    uint8_t bits[7][32];
    draw(bits[0], &a, "noise", 0, 0);
    draw(bits[1], &a, "sample", 0, 0);
    draw(bits[2], &a, "noise", 1, 0);
    draw(bits[3], &a, "noise", 0, 1);
    a.binding.b[0] ^= 1;
    draw(bits[4], &a, "noise", 0, 0);
    a.binding.b[0] ^= 1;
    a.data.b[31] ^= 1;
    draw(bits[5], &a, "noise", 0, 0);
    a.data.b[31] ^= 1;
    a.key[5] ^= 1;
    draw(bits[6], &a, "noise", 0, 0);
    for (size_t i = 0; i < 7; i++) {
        for (size_t j = i + 1; j < 7; j++)
            assert_memory_not_equal(bits[i], bits[j], 32);
    }
    dure_attempt_fini(&a);
}

static void test_attempt_keys_are_fresh_and_the_owner_s_alone(void **state)
{
    fixture *f = *state;
    dure_attempt a = begun(f), b;
    struct stat info;
    uint8_t key[DURE_RNG_KEY_BYTES];
    assert_int_equal(stat(f->path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_err(dure_attempt_begin(&b, f->path, &f->binding, &f->data, f->note, &f->diag),
               DURE_ERR_EXISTS);
    memcpy(key, a.key, sizeof key);
    assert_ok(dure_attempt_erase(&a, &f->diag));
    b = begun(f);
    assert_memory_not_equal(b.key, key, sizeof key);
    dure_attempt_fini(&b);
}

static void test_attempt_erase_leaves_nothing(void **state)
{
    fixture *f = *state;
    dure_attempt a = begun(f);
    const dure_attempt nothing = {.path = NULL};
    char other[320];
    dure_buf file;
    snprintf(other, sizeof other, "%s-link", f->path);
    assert_int_equal(link(f->path, other), 0); /* a second name shows the old blocks */
    assert_ok(dure_attempt_erase(&a, &f->diag));
    assert_memory_equal(&a, &nothing, sizeof a);
    assert_false(dure_file_exists(f->path));
    assert_ok(dure_file_read(&file, other, 4096, &f->diag));
    for (size_t i = 0; i < file.n; i++)
        assert_int_equal(file.data[i], 0);
    dure_buf_fini(&file);
    assert_err(dure_attempt_open(&a, f->path, &f->diag), DURE_ERR_NOT_FOUND);
}

static void test_attempt_erasure_cut_short_is_an_erasure(void **state)
{
    fixture *f = *state;
    dure_attempt a = begun(f);
    assert_true(dure_attempt_exists(f->path));
    dure_attempt_fini(&a);
    dure_buf file;
    assert_ok(dure_file_read(&file, f->path, 4096, &f->diag));
    file.data[0] ^= 1;
    assert_ok(dure_file_write_atomic(f->path, dure_buf_span(&file), 0600, &f->diag));
    assert_true(dure_attempt_exists(f->path)); /* damaged: someone must look at it */
    memset(file.data, 0, file.n);
    assert_ok(dure_file_write_atomic(f->path, dure_buf_span(&file), 0600, &f->diag));
    dure_buf_fini(&file);
    assert_false(dure_attempt_exists(f->path));
    a = begun(f);
    dure_attempt_fini(&a);
}

static void test_attempt_refuses_another_binding(void **state)
{
    fixture *f = *state;
    dure_attempt a = begun(f);
    dure_hash other = f->binding;
    other.b[7] ^= 1;
    assert_err(dure_attempt_check(&a, &other, &f->data, &f->diag), DURE_ERR_STATE);
    assert_non_null(strstr(f->diag.text, "other settings"));
    assert_err(dure_attempt_check(&a, &f->binding, &other, &f->diag), DURE_ERR_STATE);
    assert_non_null(strstr(f->diag.text, "other records"));
    dure_attempt_fini(&a);
}

static void test_attempt_refuses_a_damaged_file(void **state)
{
    fixture *f = *state;
    dure_attempt a = begun(f);
    dure_attempt_fini(&a);
    dure_buf file;
    assert_ok(dure_file_read(&file, f->path, 4096, &f->diag));
    for (size_t i = 0; i < file.n; i += 5) {
        file.data[i] ^= 4;
        assert_ok(dure_file_write_atomic(f->path, dure_buf_span(&file), 0600, &f->diag));
        assert_err(dure_attempt_open(&a, f->path, &f->diag), DURE_ERR_FORMAT);
        file.data[i] ^= 4;
    }
    for (size_t n = 0; n < file.n; n += 9) {
        assert_ok(dure_file_write_atomic(f->path, dure_span_of(file.data, n), 0600, &f->diag));
        assert_err(dure_attempt_open(&a, f->path, &f->diag), DURE_ERR_FORMAT);
    }
    dure_buf_fini(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define ROW(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        ROW(test_attempt_draws_the_same_bits_after_a_restart),
        ROW(test_attempt_streams_differ_in_everything_they_are_bound_to),
        ROW(test_attempt_keys_are_fresh_and_the_owner_s_alone),
        ROW(test_attempt_erase_leaves_nothing),
        ROW(test_attempt_erasure_cut_short_is_an_erasure),
        ROW(test_attempt_refuses_another_binding),
        ROW(test_attempt_refuses_a_damaged_file),
#undef ROW
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
