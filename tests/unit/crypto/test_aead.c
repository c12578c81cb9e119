#include "crypto/aead.h"
#include "support/hex.h"

/* Test case 16 of McGrew and Viega, "The Galois/Counter Mode of Operation", and two of NIST's
 * gcmEncryptExtIV256.rsp, laid out as nonce, ciphertext, tag. */
static const struct {
    const char *key, *nonce, *plain, *aad, *cipher, *tag;
} cases[] = {
    {"feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888",
     "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e24"
     "49a6b525b16aedf5aa0de657ba637b39",
     "feedfacedeadbeeffeedfacedeadbeefabaddad2",
     "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b10"
     "56828838c5f61e6393ba7a0abcc9f662",
     "76fc6ece0f4e1768cddf8853bb2d551b"},
    {"31bdadd96698c204aa9ce1448ea94ae1fb4a9a0b3c9d773b51bb1822666b8f22", "0d18e06c7c725ac9e362e1ce",
     "2db5168e932556f8089a0622981d017d", "", "fa4362189661d163fcd6a56d8bf0405a",
     "d636ac1bbedd5cc3ee727dc2ab4a9489"},
    {"24501ad384e473963d476edcfe08205237acfd49b5b8f33857f8114e863fec7f", "9ff18563b978ec281b3f2794",
     "27f348f9cdc0c5bd5e66b1ccb63ad920ff2219d14e8d631b3872265cf117ee86757accb158bd9abb3868fdc0"
     "d0b074b5f01b2c",
     "adb5ec720ccf9898500028bf34afccbcaca126ef",
     "eb7cb754c824e8d96f7c6d9b76c7d26fb874ffbf1d65c6f64a698d839b0b06145dae82057ad55994cf59ad7f"
     "67c0fa5e85fab8",
     "bc95c532fecc594c36d1550286a7a3f0"},
};

static void test_aead_opens_published_vectors(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t key[32], aad[64], sealed[128], plain[100];
        hex_bytes(key, 32, cases[i].key);
        size_t aad_n = hex_bytes(aad, sizeof aad, cases[i].aad);
        size_t n = hex_bytes(sealed, 12, cases[i].nonce);
        n += hex_bytes(sealed + n, 100, cases[i].cipher);
        n += hex_bytes(sealed + n, 16, cases[i].tag);
        assert_ok(dure_aead_open(plain, key, dure_span_of(aad, aad_n), dure_span_of(sealed, n)));
        assert_hex(plain, n - DURE_AEAD_OVERHEAD, cases[i].plain);
    }
}

static void test_aead_seals_what_it_opens(void **state)
{
    (void)state;
    uint8_t key[32] = {7}, sealed[228], plain[200], opened[200];
    for (size_t n = 0; n <= sizeof plain; n += 50) {
        memset(plain, (int)n, sizeof plain);
        assert_ok(dure_aead_seal(sealed, key, dure_span_of_text("aad"), dure_span_of(plain, n)));
        assert_ok(dure_aead_open(opened, key, dure_span_of_text("aad"),
                                 dure_span_of(sealed, n + DURE_AEAD_OVERHEAD)));
        assert_memory_equal(opened, plain, n);
    }
}

static void test_aead_never_repeats_a_nonce(void **state)
{
    (void)state;
    uint8_t key[32] = {7}, one[29], two[29];
    assert_ok(dure_aead_seal(one, key, dure_span_of("", 0), dure_span_of("x", 1)));
    assert_ok(dure_aead_seal(two, key, dure_span_of("", 0), dure_span_of("x", 1)));
    assert_memory_not_equal(one, two, DURE_AEAD_NONCE_BYTES);
}

static void test_aead_refuses_every_flipped_bit_and_zeroes(void **state)
{
    (void)state;
    static const uint8_t zero[8];
    uint8_t key[32] = {7}, sealed[8 + DURE_AEAD_OVERHEAD], plain[8];
    assert_ok(dure_aead_seal(sealed, key, dure_span_of_text("a"), dure_span_of("8 bytes.", 8)));
    for (size_t bit = 0; bit < 8 * sizeof sealed; bit++) {
        sealed[bit / 8] ^= (uint8_t)(1 << bit % 8);
        memset(plain, 0xa5, sizeof plain);
        assert_err(
            dure_aead_open(plain, key, dure_span_of_text("a"), dure_span_of(sealed, sizeof sealed)),
            DURE_ERR_AUTH);
        assert_memory_equal(plain, zero, sizeof plain);
        sealed[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

static void test_aead_refuses_another_key_aad_or_length(void **state)
{
    (void)state;
    uint8_t key[32] = {7}, other[32] = {8}, sealed[8 + DURE_AEAD_OVERHEAD] = {0}, plain[8];
    dure_span whole = dure_span_of(sealed, sizeof sealed), a = dure_span_of_text("a");
    assert_ok(dure_aead_seal(sealed, key, a, dure_span_of("8 bytes.", 8)));
    assert_err(dure_aead_open(plain, other, a, whole), DURE_ERR_AUTH);
    assert_err(dure_aead_open(plain, key, dure_span_of_text("b"), whole), DURE_ERR_AUTH);
    assert_err(dure_aead_open(plain, key, dure_span_of("", 0), whole), DURE_ERR_AUTH);
    for (size_t n = 0; n < sizeof sealed; n++)
        assert_err(dure_aead_open(plain, key, a, dure_span_of(sealed, n)), DURE_ERR_AUTH);
    assert_ok(dure_aead_open(plain, key, a, whole));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_aead_opens_published_vectors),
        cmocka_unit_test(test_aead_seals_what_it_opens),
        cmocka_unit_test(test_aead_never_repeats_a_nonce),
        cmocka_unit_test(test_aead_refuses_every_flipped_bit_and_zeroes),
        cmocka_unit_test(test_aead_refuses_another_key_aad_or_length),
    };
    return cmocka_run_group_tests_name("crypto.aead", tests, NULL, NULL);
}
