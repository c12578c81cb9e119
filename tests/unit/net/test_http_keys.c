#include "net/http_int.h"

#include "common/file.h"
#include "support/check.h"
#include "support/temp_dir.h"

#include <string.h>

/* Writes `text` as a key file of mode `mode` and reads it. */
static dure_err read_keys(dure_http_keys **keys, const char *text, mode_t mode, dure_diag *diag)
{
    temp_dir dir;
    temp_dir_make(&dir);
    const char *path = temp_dir_file(&dir, "keys");
    assert_ok(dure_file_write_atomic(path, dure_span_of_text(text), mode, NULL));
    dure_err err = dure_http_keys_read(keys, path, diag);
    temp_dir_remove(&dir);
    return err;
}

static void test_http_keys_match_exactly(void **state)
{
    (void)state;
    dure_http_keys *keys;
    assert_ok(
        read_keys(&keys, "# team a\nsk-0123456789abcdef\n\r\nsk-fedcba9876543210\r\n", 0640, NULL));
    assert_true(http_keys_match(keys, "sk-0123456789abcdef"));
    assert_true(http_keys_match(keys, "sk-fedcba9876543210"));
    assert_false(http_keys_match(keys, "sk-0123456789abcdeF"));
    assert_false(http_keys_match(keys, "sk-0123456789abcde"));
    assert_false(http_keys_match(keys, "# team a"));
    assert_false(http_keys_match(keys, ""));
    dure_http_keys_free(&keys);
    assert_null(keys);
}

static void test_http_keys_refuse_short_empty_and_open_files(void **state)
{
    (void)state;
    dure_http_keys *keys;
    dure_diag diag = {0};
    assert_err(read_keys(&keys, "sk-0123456789abcdef\nshort\n", 0600, &diag), DURE_ERR_FORMAT);
    assert_non_null(strstr(diag.text, "line 2"));
    assert_null(keys);
    assert_err(read_keys(&keys, "# nothing\n\n", 0600, &diag), DURE_ERR_FORMAT);
    assert_err(read_keys(&keys, "two words 0123456789\n", 0600, &diag), DURE_ERR_FORMAT);
    assert_err(read_keys(&keys, "sk-0123456789abcdef\n", 0644, &diag), DURE_ERR_AUTH);
    assert_err(dure_http_keys_read(&keys, "/nonexistent/keys", &diag), DURE_ERR_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_http_keys_match_exactly),
        cmocka_unit_test(test_http_keys_refuse_short_empty_and_open_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
