#include "net/curve_key.h"

#include "common/file.h"
#include "support/check.h"
#include "support/temp_dir.h"

#include <string.h>
#include <sys/stat.h>
#include <zmq.h>

static void test_curve_key_libzmq_is_acceptable(void **state)
{
    (void)state;
    dure_diag diag = {0};
    assert_ok(dure_curve_check(&diag));
}

static void test_curve_key_public_half_is_what_libzmq_derives(void **state)
{
    (void)state;
    char public_z85[41], secret_z85[41];
    uint8_t secret[DURE_CURVE_BYTES], expected[DURE_CURVE_BYTES];
    assert_int_equal(zmq_curve_keypair(public_z85, secret_z85), 0);
    assert_non_null(zmq_z85_decode(secret, secret_z85));
    assert_non_null(zmq_z85_decode(expected, public_z85));
    dure_curve_key key;
    assert_ok(dure_curve_from_secret(&key, secret));
    assert_memory_equal(key.public_, expected, sizeof expected);
}

static void test_curve_key_two_are_different(void **state)
{
    (void)state;
    dure_curve_key a, b;
    assert_ok(dure_curve_generate(&a));
    assert_ok(dure_curve_generate(&b));
    assert_memory_not_equal(a.secret, b.secret, sizeof a.secret);
    assert_memory_not_equal(a.public_, b.public_, sizeof a.public_);
}

static void test_curve_key_file_round_trip_is_private(void **state)
{
    (void)state;
    temp_dir dir;
    temp_dir_make(&dir);
    const char *path = temp_dir_file(&dir, "curve.key");
    dure_curve_key key, back;
    struct stat info;
    assert_ok(dure_curve_generate(&key));
    assert_ok(dure_curve_save(path, &key, NULL));
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_ok(dure_curve_load(&back, path, NULL));
    assert_memory_equal(&key, &back, sizeof key);
    temp_dir_remove(&dir);
}

static void test_curve_key_refuses_a_readable_file(void **state)
{
    (void)state;
    temp_dir dir;
    temp_dir_make(&dir);
    const char *path = temp_dir_file(&dir, "curve.key");
    dure_curve_key key;
    dure_diag diag = {0};
    assert_ok(dure_curve_generate(&key));
    assert_ok(dure_curve_save(path, &key, NULL));
    assert_int_equal(chmod(path, 0644), 0);
    assert_err(dure_curve_load(&key, path, &diag), DURE_ERR_AUTH);
    assert_non_null(strstr(diag.text, "chmod 600"));
    temp_dir_remove(&dir);
}

static void test_curve_key_refuses_halves_that_are_no_pair(void **state)
{
    (void)state;
    temp_dir dir;
    temp_dir_make(&dir);
    const char *path = temp_dir_file(&dir, "curve.key");
    dure_curve_key key, zero = {{0}, {0}};
    assert_ok(dure_curve_generate(&key));
    key.public_[0] ^= 1;
    assert_ok(dure_curve_save(path, &key, NULL));
    assert_err(dure_curve_load(&key, path, NULL), DURE_ERR_AUTH);
    assert_memory_equal(&key, &zero, sizeof key);
    temp_dir_remove(&dir);
}

static void test_curve_key_refuses_a_cut_file(void **state)
{
    (void)state;
    temp_dir dir;
    temp_dir_make(&dir);
    const char *path = temp_dir_file(&dir, "curve.key");
    dure_curve_key key;
    dure_buf file;
    assert_ok(dure_curve_generate(&key));
    assert_ok(dure_curve_save(path, &key, NULL));
    assert_ok(dure_file_read(&file, path, 4096, NULL));
    for (size_t n = 0; n < file.n; n++) {
        assert_ok(dure_file_write_atomic(path, dure_span_of(file.data, n), 0600, NULL));
        assert_err(dure_curve_load(&key, path, NULL), DURE_ERR_FORMAT);
    }
    dure_buf_fini(&file);
    assert_err(dure_curve_load(&key, temp_dir_file(&dir, "absent"), NULL), DURE_ERR_NOT_FOUND);
    temp_dir_remove(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_curve_key_libzmq_is_acceptable),
        cmocka_unit_test(test_curve_key_public_half_is_what_libzmq_derives),
        cmocka_unit_test(test_curve_key_two_are_different),
        cmocka_unit_test(test_curve_key_file_round_trip_is_private),
        cmocka_unit_test(test_curve_key_refuses_a_readable_file),
        cmocka_unit_test(test_curve_key_refuses_halves_that_are_no_pair),
        cmocka_unit_test(test_curve_key_refuses_a_cut_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
