#include "federation/invitation.h"
#include "fixture.h"
#include "support/check.h"
#include "support/temp_dir.h"

#include "common/file.h"

#include <string.h>
#include <sys/stat.h>

static void test_invitation_round_trips_through_its_file(void **state)
{
    (void)state;
    temp_dir dir;
    temp_dir_make(&dir);
    fixture f;
    fixture_make(&f);
    dure_invitation inv, back;
    dure_sign_key key, key_back;
    fixture_invite(&inv, &key, &f, "north");
    const char *path = temp_dir_file(&dir, "north.invitation");
    assert_ok(dure_invitation_write(path, &inv, &key, NULL));
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
    temp_dir_make(&dir);
    fixture f;
    fixture_make(&f);
    dure_invitation inv;
    dure_sign_key key;
    fixture_invite(&inv, &key, &f, "north");
    const char *path = temp_dir_file(&dir, "north.invitation");
    assert_ok(dure_invitation_write(path, &inv, &key, NULL));
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
    temp_dir_make(&dir);
    fixture f;
    fixture_make(&f);
    dure_invitation inv;
    dure_sign_key key;
    fixture_invite(&inv, &key, &f, "north");
    const char *path = temp_dir_file(&dir, "north.invitation");
    assert_ok(dure_invitation_write(path, &inv, &key, NULL));
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
        cmocka_unit_test(test_invitation_refuses_bad_fields),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
