#include "common/file.h"
#include "ledger/leaf_log.h"
#include "support/check.h"
#include "support/temp_dir.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void append_n(dure_leaf_log *log, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char leaf[32];
        uint64_t index = 0;
        uint64_t want = dure_leaf_log_size(log);
        snprintf(leaf, sizeof leaf, "leaf %llu", (unsigned long long)want);
        assert_ok(dure_leaf_log_append(&index, log, dure_span_of_text(leaf), NULL));
        assert_int_equal(index, want);
    }
}

static dure_leaf_log *open_log(const temp_dir *dir)
{
    dure_leaf_log *log = NULL;
    assert_ok(dure_leaf_log_open(&log, dir->path, DURE_LEAF_LOG_WRITE, NULL));
    return log;
}

static void make(temp_dir *dir, size_t n)
{
    temp_dir_make(dir);
    dure_leaf_log *log = open_log(dir);
    append_n(log, n);
    dure_leaf_log_close(&log);
}

/* Flips a byte of a file, or cuts `cut` bytes off its end. */
static void damage(const temp_dir *dir, const char *name, long offset, long cut)
{
    const char *path = temp_dir_file(dir, name);
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    if (cut > 0) {
        assert_int_equal(truncate(path, info.st_size - cut), 0);
        return;
    }
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    fseek(file, offset, SEEK_SET);
    int byte = fgetc(file);
    fseek(file, offset, SEEK_SET);
    fputc(byte ^ 1, file);
    fclose(file);
}

static void put_tail(const temp_dir *dir, const char *name, const char *bytes)
{
    FILE *file = fopen(temp_dir_file(dir, name), "ab");
    assert_non_null(file);
    assert_true(fputs(bytes, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void assert_damaged(const temp_dir *dir, const char *words)
{
    dure_leaf_log *log = NULL;
    dure_diag diag = {{0}};
    assert_err(dure_leaf_log_open(&log, dir->path, DURE_LEAF_LOG_WRITE, &diag), DURE_ERR_FORMAT);
    assert_null(log);
    assert_non_null(strstr(diag.text, words));
}

static void test_leaf_log_keeps_leaves_over_reopening(void **state)
{
    (void)state;
    temp_dir dir;
    make(&dir, 5);
    dure_leaf_log *log = open_log(&dir);
    append_n(log, 8);
    assert_int_equal(dure_leaf_log_size(log), 13);
    for (uint64_t i = 0; i < 13; i++) {
        char want[32];
        dure_buf leaf;
        dure_hash hash;
        snprintf(want, sizeof want, "leaf %llu", (unsigned long long)i);
        assert_ok(dure_leaf_log_read(&leaf, log, i, NULL));
        assert_int_equal(leaf.n, strlen(want));
        assert_memory_equal(leaf.data, want, leaf.n);
        assert_ok(dure_merkle_leaf(&hash, dure_buf_span(&leaf)));
        assert_true(dure_hash_equal(&hash, dure_leaf_log_leaf_hash(log, i)));
        dure_buf_fini(&leaf);
    }
    dure_leaf_log_close(&log);
    temp_dir_remove(&dir);
}

static void test_leaf_log_roots_and_proofs_are_those_of_the_tree(void **state)
{
    (void)state;
    enum { N = 40 };
    temp_dir dir;
    make(&dir, N);
    dure_leaf_log *log = open_log(&dir);
    dure_hash leaves[N];
    for (uint64_t i = 0; i < N; i++)
        leaves[i] = *dure_leaf_log_leaf_hash(log, i);
    for (uint64_t n = 1; n <= N; n++) {
        dure_merkle_head head, old;
        dure_merkle_proof proof;
        dure_hash root;
        assert_ok(dure_leaf_log_head(&head, log, n));
        assert_ok(dure_merkle_root(&root, leaves, n));
        assert_true(dure_hash_equal(&head.root, &root));
        for (uint64_t i = 0; i < n; i++) {
            assert_ok(dure_leaf_log_inclusion(&proof, log, n, i));
            assert_ok(dure_merkle_verify_inclusion(&head, i, &leaves[i], &proof));
            assert_ok(dure_leaf_log_head(&old, log, i));
            assert_ok(dure_leaf_log_consistency(&proof, log, n, i));
            assert_ok(dure_merkle_verify_consistency(&head, &old, &proof));
        }
    }
    dure_leaf_log_close(&log);
    temp_dir_remove(&dir);
}

/* What a crash between the two writes leaves behind was never acknowledged. */
static void test_leaf_log_cuts_off_a_torn_tail(void **state)
{
    (void)state;
    temp_dir dir;
    make(&dir, 3);
    put_tail(&dir, "leaves", "torn leaf without an index record");
    put_tail(&dir, "index", "half a record");
    dure_leaf_log *log = open_log(&dir);
    assert_int_equal(dure_leaf_log_size(log), 3);
    append_n(log, 2);
    dure_leaf_log_close(&log);
    log = open_log(&dir);
    assert_int_equal(dure_leaf_log_size(log), 5);
    dure_leaf_log_close(&log);
    temp_dir_remove(&dir);
}

/* Killed at any byte of the next append, the log has the old size or the new one. */
static void test_leaf_log_survives_a_crash_at_any_byte(void **state)
{
    (void)state;
    temp_dir before;
    make(&before, 2);
    dure_buf leaves, index;
    assert_ok(dure_file_read(&leaves, temp_dir_file(&before, "leaves"), 1000, NULL));
    assert_ok(dure_file_read(&index, temp_dir_file(&before, "index"), 1000, NULL));
    for (size_t n = 0; n <= leaves.n / 2 + index.n / 2; n++) {
        size_t n_leaves = leaves.n / 2 + (n < leaves.n / 2 ? n : leaves.n / 2);
        size_t n_index = index.n / 2 + (n < leaves.n / 2 ? 0 : n - leaves.n / 2);
        assert_ok(dure_file_write_atomic(temp_dir_file(&before, "leaves"),
                                         dure_span_of(leaves.data, n_leaves), 0600, NULL));
        assert_ok(dure_file_write_atomic(temp_dir_file(&before, "index"),
                                         dure_span_of(index.data, n_index), 0600, NULL));
        dure_leaf_log *log = open_log(&before);
        assert_int_equal(dure_leaf_log_size(log), n_index == index.n ? 2 : 1);
        dure_leaf_log_close(&log);
    }
    dure_buf_fini(&leaves);
    dure_buf_fini(&index);
    temp_dir_remove(&before);
}

static void test_leaf_log_names_the_entry_with_a_changed_byte(void **state)
{
    (void)state;
    temp_dir dir;
    make(&dir, 5);
    damage(&dir, "leaves", 3 * 10 + 6, 0); /* each leaf takes 4 + 6 bytes */
    assert_damaged(&dir, "entry 3 ");
    damage(&dir, "leaves", 3 * 10 + 6, 0);
    damage(&dir, "leaves", 2 * 10 + 3, 0); /* its length */
    assert_damaged(&dir, "entry 2 ");
    damage(&dir, "leaves", 2 * 10 + 3, 0);
    damage(&dir, "index", 1 * 40 + 20, 0); /* its hash */
    assert_damaged(&dir, "entry 1 ");
    damage(&dir, "index", 1 * 40 + 20, 0);
    damage(&dir, "index", 4 * 40 + 7, 0); /* its end */
    assert_damaged(&dir, "entry 4 ");
    temp_dir_remove(&dir);
}

static void test_leaf_log_names_the_first_missing_entry(void **state)
{
    (void)state;
    temp_dir dir;
    make(&dir, 5);
    damage(&dir, "leaves", 0, 15);
    assert_damaged(&dir, "entry 3 ");
    temp_dir_remove(&dir);
}

static void test_leaf_log_has_one_writer_and_any_readers(void **state)
{
    (void)state;
    temp_dir dir;
    make(&dir, 2);
    dure_leaf_log *writer = open_log(&dir), *reader = NULL;
    uint64_t index = 0;
    /* The lock is of the process, so the second writer is a child. */
    pid_t child = fork();
    if (child == 0) {
        dure_leaf_log *second = NULL;
        _exit(dure_leaf_log_open(&second, dir.path, DURE_LEAF_LOG_WRITE, NULL) == DURE_ERR_BUSY);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(WEXITSTATUS(status), 1);
    assert_ok(dure_leaf_log_open(&reader, dir.path, DURE_LEAF_LOG_READ, NULL));
    assert_err(dure_leaf_log_append(&index, reader, dure_span_of_text("x"), NULL), DURE_ERR_STATE);
    dure_leaf_log_close(&reader);
    dure_leaf_log_close(&writer);
    temp_dir_remove(&dir);
}

/* Cut anywhere and grown again, it is the log that it would have been. */
static void test_leaf_log_is_cut_and_grows_again(void **state)
{
    (void)state;
    for (uint64_t n = 0; n <= 9; n++) {
        temp_dir dir;
        dure_merkle_head before, after;
        make(&dir, 9);
        dure_leaf_log *log = open_log(&dir);
        assert_ok(dure_leaf_log_head(&before, log, 9));
        assert_err(dure_leaf_log_cut(log, 10, NULL), DURE_ERR_USAGE);
        assert_ok(dure_leaf_log_cut(log, n, NULL));
        assert_int_equal(dure_leaf_log_size(log), n);
        dure_leaf_log_close(&log);
        log = open_log(&dir);
        assert_int_equal(dure_leaf_log_size(log), n);
        append_n(log, (size_t)(9 - n));
        assert_ok(dure_leaf_log_head(&after, log, 9));
        assert_true(dure_hash_equal(&before.root, &after.root));
        dure_leaf_log_close(&log);
        temp_dir_remove(&dir);
    }
}

static void test_leaf_log_refuses_what_is_out_of_range(void **state)
{
    (void)state;
    temp_dir dir;
    make(&dir, 2);
    dure_leaf_log *log = open_log(&dir), *none = NULL;
    dure_merkle_head head;
    dure_merkle_proof proof;
    dure_buf leaf;
    uint64_t index = 0;
    uint8_t *large = calloc(1, DURE_LEAF_MAX + 1);
    assert_non_null(large);
    assert_err(dure_leaf_log_append(&index, log, dure_span_of(large, DURE_LEAF_MAX + 1), NULL),
               DURE_ERR_LIMIT);
    assert_ok(dure_leaf_log_append(&index, log, dure_span_of(large, DURE_LEAF_MAX), NULL));
    assert_err(dure_leaf_log_read(&leaf, log, 3, NULL), DURE_ERR_NOT_FOUND);
    assert_err(dure_leaf_log_head(&head, log, 4), DURE_ERR_USAGE);
    assert_err(dure_leaf_log_inclusion(&proof, log, 4, 0), DURE_ERR_USAGE);
    assert_err(dure_leaf_log_consistency(&proof, log, 2, 3), DURE_ERR_USAGE);
    free(large);
    dure_leaf_log_close(&log);
    assert_err(dure_leaf_log_open(&none, "/nowhere/at/all", DURE_LEAF_LOG_READ, NULL),
               DURE_ERR_NOT_FOUND);
    temp_dir_remove(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_leaf_log_keeps_leaves_over_reopening),
        cmocka_unit_test(test_leaf_log_roots_and_proofs_are_those_of_the_tree),
        cmocka_unit_test(test_leaf_log_cuts_off_a_torn_tail),
        cmocka_unit_test(test_leaf_log_survives_a_crash_at_any_byte),
        cmocka_unit_test(test_leaf_log_names_the_entry_with_a_changed_byte),
        cmocka_unit_test(test_leaf_log_names_the_first_missing_entry),
        cmocka_unit_test(test_leaf_log_has_one_writer_and_any_readers),
        cmocka_unit_test(test_leaf_log_is_cut_and_grows_again),
        cmocka_unit_test(test_leaf_log_refuses_what_is_out_of_range),
    };
    return cmocka_run_group_tests_name("ledger.leaf_log", tests, NULL, NULL);
}
