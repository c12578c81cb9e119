#include "federation/invitation.h"
#include "fixture.h"
#include "support/check.h"
#include "support/temp_dir.h"

#include "common/file.h"

#include <string.h>
#include <sys/stat.h>

/* An invitation for `name`, and its file in a new folder, which the caller removes. */
static const char *write_invitation(temp_dir *dir, dure_invitation *inv, dure_sign_key *key,
                                    const char *name)
{
    fixture f;
    temp_dir_make(dir);
    fixture_make(&f);
    fixture_invite(inv, key, &f, name);
    const char *path = temp_dir_file(dir, "invitation");
    assert_ok(dure_invitation_write(path, inv, key, NULL));
    return path;
}

static void test_invitation_round_trips_through_its_file(void **state)
{
    (void)state;
    temp_dir dir;
    dure_invitation inv, back;
    dure_sign_key key, key_back;
    const char *path = write_invitation(&dir, &inv, &key, "north");
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    dure_diag diag = {0};
    if (dure_invitation_read(&back, &key_back, path, &diag)) fail_msg("%s", diag.text);
    assert_string_equal(back.name, "north");
    assert_string_equal(back.organisation, "org-north");
    assert_memory_equal(key.secret, key_back.secret, sizeof key.secret);
    assert_memory_equal(inv.signature, back.signature, sizeof inv.signature);
    temp_dir_remove(&dir);
}

static void test_invitation_file_is_never_overwritten(void **state)
{
    (void)state;
    temp_dir dir;
    dure_invitation inv;
    dure_sign_key key;
    const char *path = write_invitation(&dir, &inv, &key, "north");
    assert_err(dure_invitation_write(path, &inv, &key, NULL), DURE_ERR_EXISTS);
    temp_dir_remove(&dir);
}

static void test_invitation_of_another_federation_is_refused(void **state)
{
    (void)state;
    fixture f;
    fixture_make(&f);
    dure_invitation inv;
    dure_sign_key key, other;
    fixture_invite(&inv, &key, &f, "north");
    assert_ok(dure_sign_generate(&other));
    dure_diag diag = {0};
    assert_err(dure_invitation_verify(&inv, other.public_, &diag), DURE_ERR_AUTH);
    assert_non_null(strstr(diag.text, "another federation"));
    /* Naming the other root without its signature does not help. */
    memcpy(inv.root_public, other.public_, 32);
    assert_err(dure_invitation_verify(&inv, other.public_, &diag), DURE_ERR_AUTH);
}

static void test_invitation_with_an_altered_field_is_refused(void **state)
{
    (void)state;
    fixture f;
    fixture_make(&f);
    dure_invitation inv, altered;
    dure_sign_key key;
    fixture_invite(&inv, &key, &f, "north");
    altered = inv;
    altered.expires_s += 1;
    assert_err(dure_invitation_verify(&altered, f.root.public_, NULL), DURE_ERR_AUTH);
    altered = inv;
    altered.terms.training.clip = 2;
    assert_err(dure_invitation_verify(&altered, f.root.public_, NULL), DURE_ERR_AUTH);
    altered = inv;
    altered.coordinator_curve[0] ^= 1;
    assert_err(dure_invitation_verify(&altered, f.root.public_, NULL), DURE_ERR_AUTH);
}

static void test_invitation_expires(void **state)
{
    (void)state;
    fixture f;
    fixture_make(&f);
    dure_invitation inv;
    dure_sign_key key;
    fixture_invite(&inv, &key, &f, "north");
    assert_ok(dure_invitation_in_time(&inv, FIXTURE_EXPIRES, NULL));
    dure_diag diag = {0};
    assert_err(dure_invitation_in_time(&inv, FIXTURE_EXPIRES + 1, &diag), DURE_ERR_EXPIRED);
    assert_non_null(strstr(diag.text, "1970-01-24"));
}

/* Every single byte of the file's payload matters: flipping one is noticed. */
static void test_invitation_file_with_one_character_changed_is_refused(void **state)
{
    (void)state;
    temp_dir dir;
    dure_invitation inv;
    dure_sign_key key;
    const char *path = write_invitation(&dir, &inv, &key, "north");
    dure_buf text;
    assert_ok(dure_file_read(&text, path, DURE_INVITATION_FILE_MAX_BYTES, NULL));
    uint8_t *begin = memmem(text.data, text.n, "-----\n", 6);
    assert_non_null(begin);
    for (uint8_t *c = begin + 6; *c != '-'; c += 7) {
        if (*c == '\n' || *c == '=') continue;
        const uint8_t before = *c;
        *c = before == 'A' ? 'B' : 'A';
        assert_int_not_equal(dure_invitation_parse(&inv, &key, dure_buf_span(&text), "file", NULL),
                             DURE_OK);
        *c = before;
    }
    assert_ok(dure_invitation_parse(&inv, &key, dure_buf_span(&text), "file", NULL));
    dure_buf_fini(&text);
    temp_dir_remove(&dir);
}

static void test_invitation_parse_refuses_other_text(void **state)
{
    (void)state;
    dure_invitation inv;
    dure_sign_key key;
    dure_diag diag = {0};
    assert_err(dure_invitation_parse(&inv, &key, dure_span_of_text("hello"), "x", &diag),
               DURE_ERR_FORMAT);
    assert_non_null(strstr(diag.text, "x is not an invitation"));
    assert_err(dure_invitation_parse(&inv, &key,
                                     dure_span_of_text("-----BEGIN DURE INVITATION-----\nAAE=\n"
                                                       "-----END DURE INVITATION-----\n"),
                                     "x", &diag),
               DURE_ERR_PROTO);
    assert_err(dure_invitation_parse(&inv, &key,
                                     dure_span_of_text("-----BEGIN DURE INVITATION-----\nA=A\n"
                                                       "-----END DURE INVITATION-----\n"),
                                     "x", &diag),
               DURE_ERR_FORMAT);
}

/* Bits below the last byte: with one of them set, the same invitation would have a second text. */
static void test_invitation_with_stray_bits_is_refused(void **state)
{
    (void)state;
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    static const char *const names[] = {"north", "north1", "north12"}; /* every kind of padding */
    size_t n_padded = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        temp_dir dir;
        dure_invitation inv;
        dure_sign_key key;
        const char *path = write_invitation(&dir, &inv, &key, names[i]);
        dure_buf text;
        assert_ok(dure_file_read(&text, path, DURE_INVITATION_FILE_MAX_BYTES, NULL));
        uint8_t *padding = memchr(text.data, '=', text.n);
        if (padding) {
            n_padded++;
            padding[-1] = (uint8_t)strchr(digits, padding[-1])[1]; /* the lowest bit, 0 before */
            dure_diag diag = {0};
            assert_err(dure_invitation_parse(&inv, &key, dure_buf_span(&text), "file", &diag),
                       DURE_ERR_FORMAT);
            assert_non_null(strstr(diag.text, "no invitation in base64"));
        }
        dure_buf_fini(&text);
        temp_dir_remove(&dir);
    }
    assert_int_equal(n_padded, 2);
}

/* As a mail program may leave them. */
static void test_invitation_lines_may_be_broken_otherwise(void **state)
{
    (void)state;
    temp_dir dir;
    temp_dir_make(&dir);
    fixture f;
    fixture_make(&f);
    dure_invitation inv;
    dure_sign_key key, back;
    fixture_invite(&inv, &key, &f, "north");
    const char *path = temp_dir_file(&dir, "north.invitation");
    assert_ok(dure_invitation_write(path, &inv, &key, NULL));
    dure_buf text, other;
    assert_ok(dure_file_read(&text, path, DURE_INVITATION_FILE_MAX_BYTES, NULL));
    dure_buf_init(&other, DURE_INVITATION_FILE_MAX_BYTES);
    const uint8_t *begin = memmem(text.data, text.n, "-----\n", 6);
    assert_non_null(begin);
    const size_t n_head = (size_t)(begin - text.data) + 6;
    dure_put_raw(&other, text.data, n_head);
    bool payload = true;
    for (size_t i = n_head; i < text.n; i++) {
        if (text.data[i] == '-') payload = false;
        dure_put_u8(&other, text.data[i]);
        if (payload && i % 10 == 0) dure_put_raw(&other, "\r\n \t", 4);
    }
    assert_ok(dure_buf_err(&other));
    assert_ok(dure_invitation_parse(&inv, &back, dure_buf_span(&other), "file", NULL));
    assert_memory_equal(back.secret, key.secret, sizeof key.secret);
    dure_buf_fini(&text);
    dure_buf_fini(&other);
    temp_dir_remove(&dir);
}

static void test_invitation_with_too_much_text_is_refused(void **state)
{
    (void)state;
    static const char begin[] = "-----BEGIN DURE INVITATION-----\n";
    static const char end[] = "-----END DURE INVITATION-----\n";
    dure_invitation inv;
    dure_sign_key key;
    dure_buf text;
    dure_buf_init(&text, DURE_INVITATION_FILE_MAX_BYTES);
    dure_put_raw(&text, begin, strlen(begin));
    for (size_t i = 0; i < DURE_INVITATION_MAX_BYTES / 3 * 4 + 8; i++)
        dure_put_u8(&text, 'A');
    dure_put_raw(&text, end, strlen(end));
    assert_ok(dure_buf_err(&text));
    assert_err(dure_invitation_parse(&inv, &key, dure_buf_span(&text), "file", NULL),
               DURE_ERR_FORMAT);
    dure_buf_fini(&text);
}

static void test_invitation_refuses_bad_fields(void **state)
{
    (void)state;
    fixture f;
    fixture_make(&f);
    dure_invitation inv;
    dure_sign_key key;
    fixture_invite(&inv, &key, &f, "north");
    strcpy(inv.endpoint, "http://x:1");
    assert_err(dure_invitation_sign(&inv, &key, &f.root, NULL), DURE_ERR_USAGE);
    fixture_invite(&inv, &key, &f, "north");
    strcpy(inv.name, "../x");
    assert_err(dure_invitation_sign(&inv, &key, &f.root, NULL), DURE_ERR_USAGE);
    fixture_invite(&inv, &key, &f, "north");
    inv.expires_s = inv.issued_s;
    assert_err(dure_invitation_sign(&inv, &key, &f.root, NULL), DURE_ERR_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_invitation_round_trips_through_its_file),
        cmocka_unit_test(test_invitation_file_is_never_overwritten),
        cmocka_unit_test(test_invitation_of_another_federation_is_refused),
        cmocka_unit_test(test_invitation_with_an_altered_field_is_refused),
        cmocka_unit_test(test_invitation_expires),
        cmocka_unit_test(test_invitation_file_with_one_character_changed_is_refused),
        cmocka_unit_test(test_invitation_parse_refuses_other_text),
        cmocka_unit_test(test_invitation_with_stray_bits_is_refused),
        cmocka_unit_test(test_invitation_lines_may_be_broken_otherwise),
        cmocka_unit_test(test_invitation_with_too_much_text_is_refused),
        cmocka_unit_test(test_invitation_refuses_bad_fields),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
