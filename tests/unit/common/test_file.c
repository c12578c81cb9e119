#include "common/file.h"
#include "support/check.h"
#include "support/temp_dir.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void test_file_atomic_write_replaces_and_sets_the_mode(void **state)
{
    (void)state;
    const char *path = temp_dir_file(&test_dir, "a");
    dure_diag diag = {0};
    assert_ok(dure_file_write_atomic(path, dure_span_of_text("one"), 0600, &diag));
    assert_ok(dure_file_write_atomic(path, dure_span_of_text("two"), 0600, &diag));
    dure_buf read;
    assert_ok(dure_file_read(&read, path, 100, &diag));
    assert_int_equal(read.n, 3);
    assert_memory_equal(read.data, "two", 3);
    dure_buf_fini(&read);
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
}

static void test_file_read_names_what_is_missing_or_too_large(void **state)
{
    (void)state;
    dure_buf read;
    dure_diag diag = {0};
    assert_err(dure_file_read(&read, temp_dir_file(&test_dir, "none"), 10, &diag),
               DURE_ERR_NOT_FOUND);
    assert_non_null(strstr(diag.text, "none"));
    const char *path = temp_dir_file(&test_dir, "big");
    assert_ok(dure_file_write_atomic(path, dure_span_of_text("0123456789"), 0600, &diag));
    assert_err(dure_file_read(&read, path, 9, &diag), DURE_ERR_LIMIT);
    assert_non_null(strstr(diag.text, "9 bytes"));
}

static void test_file_full_disk_is_said_so(void **state)
{
    (void)state;
    dure_diag diag = {0};
    errno = ENOSPC;
    assert_err(dure_file_errno(&diag, "write", "a"), DURE_ERR_DISK_FULL);
    assert_non_null(strstr(diag.text, "free some space"));
}

static void test_file_lock_keeps_a_second_process_out(void **state)
{
    (void)state;
    const char *path = temp_dir_file(&test_dir, "lock");
    dure_lock lock;
    assert_ok(dure_lock_acquire(&lock, path, NULL));
    pid_t child = fork();
    if (child == 0) {
        dure_lock second;
        dure_err err = dure_lock_acquire(&second, path, NULL);
        _exit(err == DURE_ERR_BUSY ? 0 : 1);
    }
    int status;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    dure_lock_release(&lock);
    assert_ok(dure_lock_acquire(&lock, path, NULL));
    dure_lock_release(&lock);
}

enum { SYNCED_MAX = 8 };

static ino_t synced[SYNCED_MAX];
static size_t n_synced;
static bool sync_fails;

int __real_fsync(int fd);
int __wrap_fsync(int fd);

int __wrap_fsync(int fd)
{
    struct stat info;
    assert_int_equal(fstat(fd, &info), 0);
    if (n_synced < SYNCED_MAX) synced[n_synced++] = info.st_ino;
    if (!sync_fails) return __real_fsync(fd);
    errno = EIO;
    return -1;
}

static bool was_synced(const char *name)
{
    struct stat info;
    assert_int_equal(stat(temp_dir_file(&test_dir, name), &info), 0);
    for (size_t i = 0; i < n_synced; i++)
        if (synced[i] == info.st_ino) return true;
    return false;
}

/* What is in a folder outlives a power cut only if the folder does. */
static void test_file_folders_are_synced_where_they_are_named(void **state)
{
    (void)state;
    char path[4096];
    snprintf(path, sizeof path, "%s", temp_dir_file(&test_dir, "p/q/r"));
    n_synced = 0;
    assert_ok(dure_dir_make(path, NULL));
    assert_int_equal(n_synced, 3);
    assert_true(was_synced("."));
    assert_true(was_synced("p"));
    assert_true(was_synced("p/q"));
    n_synced = 0;
    assert_ok(dure_dir_make(path, NULL)); /* nothing is made */
    assert_int_equal(n_synced, 0);
}

/* Made again, it is synced again. */
static void test_file_folder_that_is_not_synced_is_not_kept(void **state)
{
    (void)state;
    char path[4096];
    dure_diag diag = {{0}};
    snprintf(path, sizeof path, "%s", temp_dir_file(&test_dir, "lost"));
    sync_fails = true;
    assert_err(dure_dir_make(path, &diag), DURE_ERR_IO);
    sync_fails = false;
    if (!strstr(diag.text, "sync")) fail_msg("%s", diag.text);
    assert_false(dure_file_exists(path));
    n_synced = 0;
    assert_ok(dure_dir_make(path, NULL));
    assert_true(was_synced("."));
}

static void test_file_folders_are_made_and_removed_whole(void **state)
{
    (void)state;
    const char *path = temp_dir_file(&test_dir, "x/y/z");
    dure_diag diag = {0};
    assert_ok(dure_dir_make(path, &diag));
    assert_ok(dure_dir_make(path, &diag));
    assert_ok(dure_file_write_atomic(temp_dir_file(&test_dir, "x/y/z/f"), dure_span_of_text("1"),
                                     0600, &diag));
    assert_err(dure_dir_make(temp_dir_file(&test_dir, "x/y/z/f"), &diag), DURE_ERR_IO);
    assert_ok(dure_dir_remove(temp_dir_file(&test_dir, "x"), &diag));
    assert_false(dure_file_exists(path));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file_atomic_write_replaces_and_sets_the_mode),
        cmocka_unit_test(test_file_read_names_what_is_missing_or_too_large),
        cmocka_unit_test(test_file_full_disk_is_said_so),
        cmocka_unit_test(test_file_lock_keeps_a_second_process_out),
        cmocka_unit_test(test_file_folders_are_made_and_removed_whole),
        cmocka_unit_test(test_file_folders_are_synced_where_they_are_named),
        cmocka_unit_test(test_file_folder_that_is_not_synced_is_not_kept),
    };
    return cmocka_run_group_tests(tests, test_dir_setup, test_dir_teardown);
}
