#include "registry/release.h"

#include "common/file.h"
#include "support/check.h"
#include "support/temp_dir.h"

#include <string.h>

static dure_sign_key root, key;
static dure_release_certificate certificate;
static const dure_release release = {
    .adapter = {{1}}, .base = {{2}}, .number = 3, .round = 4, .ledger_index = 5, .signed_s = 150};

static int setup(void **state)
{
    (void)state;
    const uint8_t a[32] = {7}, b[32] = {8};
    return dure_sign_from_secret(&root, a) || dure_sign_from_secret(&key, b) ||
           dure_release_certify(&certificate, &root, key.public_, 100, 200);
}

static void test_release_verifies_up_to_the_root(void **state)
{
    (void)state;
    uint8_t signature[64];
    assert_ok(dure_release_sign(signature, &release, &key, &certificate, NULL));
    assert_ok(dure_release_verify(&release, signature, &certificate, root.public_, NULL));
}

static void test_release_refuses_any_altered_field(void **state)
{
    (void)state;
    uint8_t signature[64];
    assert_ok(dure_release_sign(signature, &release, &key, &certificate, NULL));
    dure_release altered[6] = {release, release, release, release, release, release};
    altered[0].adapter.b[31] ^= 1;
    altered[1].base.b[0] ^= 1;
    altered[2].number++;
    altered[3].round = 0;
    altered[4].ledger_index = DURE_RELEASE_NO_LEDGER;
    altered[5].signed_s++;
    for (int i = 0; i < 6; i++)
        assert_err(dure_release_verify(&altered[i], signature, &certificate, root.public_, NULL),
                   DURE_ERR_AUTH);
    signature[10] ^= 1;
    assert_err(dure_release_verify(&release, signature, &certificate, root.public_, NULL),
               DURE_ERR_AUTH);
}

static void test_release_refuses_another_root(void **state)
{
    (void)state;
    uint8_t signature[64];
    dure_diag diag = {0};
    assert_ok(dure_release_sign(signature, &release, &key, &certificate, NULL));
    assert_err(dure_release_verify(&release, signature, &certificate, key.public_, &diag),
               DURE_ERR_AUTH);
    assert_non_null(strstr(diag.text, "another federation"));
}

/* Whoever holds the release key alone cannot make themselves a certificate. */
static void test_release_refuses_a_certificate_the_root_did_not_sign(void **state)
{
    (void)state;
    dure_release_certificate forged = certificate;
    forged.expires_s += 1000;
    assert_err(dure_release_certificate_verify(&forged, root.public_, NULL), DURE_ERR_AUTH);
    assert_ok(dure_release_certify(&forged, &key, key.public_, 100, 200));
    memcpy(forged.root_public, root.public_, 32);
    assert_err(dure_release_certificate_verify(&forged, root.public_, NULL), DURE_ERR_AUTH);
}

static void test_release_refuses_an_uncertified_key(void **state)
{
    (void)state;
    uint8_t signature[64];
    assert_err(dure_release_sign(signature, &release, &root, &certificate, NULL), DURE_ERR_AUTH);
}

static void test_release_is_signed_only_within_the_dates(void **state)
{
    (void)state;
    uint8_t signature[64];
    dure_diag diag = {0};
    dure_release late = release, early = release;
    late.signed_s = 200;
    early.signed_s = 99;
    assert_err(dure_release_sign(signature, &late, &key, &certificate, &diag), DURE_ERR_EXPIRED);
    assert_non_null(strstr(diag.text, "1970-01-01T00:03:20Z"));
    assert_err(dure_release_sign(signature, &early, &key, &certificate, NULL), DURE_ERR_EXPIRED);
    assert_err(dure_release_certify(&certificate, &root, key.public_, 200, 200), DURE_ERR_USAGE);
    assert_int_equal(setup(NULL), 0);
}

static void test_release_certificate_file_round_trips(void **state)
{
    (void)state;
    temp_dir dir;
    dure_release_certificate back;
    dure_diag diag = {0};
    temp_dir_make(&dir);
    const char *path = temp_dir_file(&dir, "release.cert");
    assert_ok(dure_release_certificate_write(path, &certificate, NULL));
    assert_ok(dure_release_certificate_read(&back, path, NULL));
    assert_ok(dure_release_certificate_verify(&back, root.public_, NULL));
    assert_int_equal(back.expires_s, 200);
    assert_ok(dure_file_write_atomic(path, dure_span_of_text("short"), 0644, NULL));
    assert_err(dure_release_certificate_read(&back, path, &diag), DURE_ERR_FORMAT);
    assert_non_null(strstr(diag.text, "has 5 bytes"));
    temp_dir_remove(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_release_verifies_up_to_the_root),
        cmocka_unit_test(test_release_refuses_any_altered_field),
        cmocka_unit_test(test_release_refuses_another_root),
        cmocka_unit_test(test_release_refuses_a_certificate_the_root_did_not_sign),
        cmocka_unit_test(test_release_refuses_an_uncertified_key),
        cmocka_unit_test(test_release_is_signed_only_within_the_dates),
        cmocka_unit_test(test_release_certificate_file_round_trips),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
