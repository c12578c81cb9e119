#include "crypto/hkdf.h"
#include "support/hex.h"

/* RFC 5869 appendix A, the SHA-256 cases. */
static void test_hkdf_matches_rfc_5869(void **state)
{
    (void)state;
    static const struct {
        const char *ikm, *salt, *info, *okm;
    } cases[] = {
        {"0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "000102030405060708090a0b0c",
         "f0f1f2f3f4f5f6f7f8f9",
         "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"},
        {"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2021222324252627"
         "28292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f",
         "606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f8081828384858687"
         "88898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeaf",
         "b0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7"
         "d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
         "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac78272"
         "71cb41c65e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f"
         "1d87"},
        {"0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "", "",
         "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t ikm[80], salt[80], info[80], okm[82];
        size_t ikm_n = hex_bytes(ikm, sizeof ikm, cases[i].ikm);
        size_t salt_n = hex_bytes(salt, sizeof salt, cases[i].salt);
        size_t info_n = hex_bytes(info, sizeof info, cases[i].info);
        size_t n = strlen(cases[i].okm) / 2;
        assert_ok(dure_hkdf(okm, n, dure_span_of(salt, salt_n), dure_span_of(ikm, ikm_n),
                            dure_span_of(info, info_n)));
        assert_hex(okm, n, cases[i].okm);
    }
}

static void test_hkdf_separates_uses_by_info_and_salt(void **state)
{
    (void)state;
    uint8_t a[32], b[32], c[32];
    dure_span ikm = dure_span_of_text("one secret"), none = dure_span_of("", 0);
    assert_ok(dure_hkdf(a, 32, none, ikm, dure_span_of_text("a")));
    assert_ok(dure_hkdf(b, 32, none, ikm, dure_span_of_text("b")));
    assert_ok(dure_hkdf(c, 32, dure_span_of_text("salt"), ikm, dure_span_of_text("a")));
    assert_memory_not_equal(a, b, 32);
    assert_memory_not_equal(a, c, 32);
}

static void test_hkdf_refuses_lengths_the_rfc_forbids(void **state)
{
    (void)state;
    static uint8_t out[255 * 32 + 1];
    dure_span ikm = dure_span_of_text("x"), none = dure_span_of("", 0);
    assert_err(dure_hkdf(out, 0, none, ikm, none), DURE_ERR_USAGE);
    assert_err(dure_hkdf(out, sizeof out, none, ikm, none), DURE_ERR_USAGE);
    assert_ok(dure_hkdf(out, sizeof out - 1, none, ikm, none));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hkdf_matches_rfc_5869),
        cmocka_unit_test(test_hkdf_separates_uses_by_info_and_salt),
        cmocka_unit_test(test_hkdf_refuses_lengths_the_rfc_forbids),
    };
    return cmocka_run_group_tests_name("crypto.hkdf", tests, NULL, NULL);
}
