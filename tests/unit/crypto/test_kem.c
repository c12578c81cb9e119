#include "crypto/hash.h"
#include "crypto/kem.h"
#include "support/hex.h"

#include <stdio.h>

enum { FIELDS_MAX = 5, LINE_MAX_BYTES = 4096 };

typedef void vector_check(char fields[FIELDS_MAX][LINE_MAX_BYTES]);

/* Calls `check` for each line of tests/vectors/mlkem768.txt of this kind; how many there were. */
static size_t each_vector(const char *kind, vector_check *check)
{
    static char fields[FIELDS_MAX][LINE_MAX_BYTES];
    char line[LINE_MAX_BYTES];
    size_t n = 0;
    FILE *f = fopen(DURE_TEST_VECTORS "/mlkem768.txt", "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        memset(fields, 0, sizeof fields);
        size_t at = 0;
        for (int i = 0; i < FIELDS_MAX; i++) {
            const size_t length = strcspn(line + at, " \n");
            memcpy(fields[i], line + at, length);
            at += length + (line[at + length] != 0);
        }
        if (strcmp(fields[0], kind) != 0) continue;
        check(fields);
        n++;
    }
    fclose(f);
    return n;
}

static void seed_of(uint8_t seed[DURE_KEM_SEED_BYTES], char fields[FIELDS_MAX][LINE_MAX_BYTES])
{
    assert_int_equal(hex_bytes(seed, 32, fields[1]), 32);
    assert_int_equal(hex_bytes(seed + 32, 32, fields[2]), 32);
}

static void check_public(char fields[FIELDS_MAX][LINE_MAX_BYTES])
{
    uint8_t seed[DURE_KEM_SEED_BYTES], public_[DURE_KEM_PUBLIC_BYTES];
    dure_hash digest;
    seed_of(seed, fields);
    assert_ok(dure_kem_public(public_, seed));
    assert_ok(dure_hash_bytes(&digest, dure_span_of(public_, sizeof public_)));
    assert_hex(digest.b, sizeof digest.b, fields[3]);
}

static void test_kem_keys_are_those_of_nist_s_vectors(void **state)
{
    (void)state;
    if (!dure_kem_available()) skip();
    assert_int_equal(each_vector("keygen", check_public), 25);
}

static void check_secret(char fields[FIELDS_MAX][LINE_MAX_BYTES])
{
    uint8_t seed[DURE_KEM_SEED_BYTES], ciphertext[DURE_KEM_CIPHERTEXT_BYTES];
    uint8_t shared[DURE_KEM_SHARED_BYTES];
    seed_of(seed, fields);
    assert_int_equal(hex_bytes(ciphertext, sizeof ciphertext, fields[3]), sizeof ciphertext);
    assert_ok(dure_kem_decapsulate(shared, ciphertext, seed));
    assert_hex(shared, sizeof shared, fields[4]);
}

static void test_kem_secrets_are_those_of_the_vectors(void **state)
{
    (void)state;
    if (!dure_kem_available()) skip();
    assert_int_equal(each_vector("decaps", check_secret), 4);
}

static void test_kem_both_sides_have_one_secret(void **state)
{
    (void)state;
    uint8_t seed[DURE_KEM_SEED_BYTES] = {7}, other[DURE_KEM_SEED_BYTES] = {8};
    uint8_t public_[DURE_KEM_PUBLIC_BYTES], ciphertext[DURE_KEM_CIPHERTEXT_BYTES];
    uint8_t sent[DURE_KEM_SHARED_BYTES], got[DURE_KEM_SHARED_BYTES];
    if (!dure_kem_available()) skip();
    assert_ok(dure_kem_public(public_, seed));
    assert_ok(dure_kem_encapsulate(ciphertext, sent, public_));
    assert_ok(dure_kem_decapsulate(got, ciphertext, seed));
    assert_memory_equal(got, sent, sizeof got);
    assert_ok(dure_kem_decapsulate(got, ciphertext, other));
    assert_memory_not_equal(got, sent, sizeof got);
    ciphertext[5] ^= 1;
    assert_ok(dure_kem_decapsulate(got, ciphertext, seed));
    assert_memory_not_equal(got, sent, sizeof got);
}

static void test_kem_secrets_are_fresh(void **state)
{
    (void)state;
    uint8_t seed[DURE_KEM_SEED_BYTES] = {7}, public_[DURE_KEM_PUBLIC_BYTES];
    uint8_t ciphertext[DURE_KEM_CIPHERTEXT_BYTES], a[DURE_KEM_SHARED_BYTES];
    uint8_t b[DURE_KEM_SHARED_BYTES];
    if (!dure_kem_available()) skip();
    assert_ok(dure_kem_public(public_, seed));
    assert_ok(dure_kem_encapsulate(ciphertext, a, public_));
    assert_ok(dure_kem_encapsulate(ciphertext, b, public_));
    assert_memory_not_equal(a, b, sizeof a);
}

/* FIPS 203, section 7.2: a coefficient of q or more is no public key. */
static void test_kem_refuses_what_is_no_public_key(void **state)
{
    (void)state;
    static const uint8_t zero[DURE_KEM_CIPHERTEXT_BYTES];
    uint8_t public_[DURE_KEM_PUBLIC_BYTES], ciphertext[DURE_KEM_CIPHERTEXT_BYTES];
    uint8_t shared[DURE_KEM_SHARED_BYTES];
    if (!dure_kem_available()) skip();
    memset(public_, 0xff, sizeof public_);
    assert_err(dure_kem_encapsulate(ciphertext, shared, public_), DURE_ERR_AUTH);
    assert_memory_equal(ciphertext, zero, sizeof ciphertext);
    assert_memory_equal(shared, zero, sizeof shared);
}

static void test_kem_is_refused_where_openssl_lacks_it(void **state)
{
    (void)state;
    uint8_t seed[DURE_KEM_SEED_BYTES] = {7}, public_[DURE_KEM_PUBLIC_BYTES] = {1};
    uint8_t ciphertext[DURE_KEM_CIPHERTEXT_BYTES] = {1}, shared[DURE_KEM_SHARED_BYTES] = {1};
    if (dure_kem_available()) skip();
    assert_err(dure_kem_public(public_, seed), DURE_ERR_UNSUPPORTED);
    assert_err(dure_kem_encapsulate(ciphertext, shared, public_), DURE_ERR_UNSUPPORTED);
    assert_err(dure_kem_decapsulate(shared, ciphertext, seed), DURE_ERR_UNSUPPORTED);
    assert_int_equal(shared[0], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kem_keys_are_those_of_nist_s_vectors),
        cmocka_unit_test(test_kem_secrets_are_those_of_the_vectors),
        cmocka_unit_test(test_kem_both_sides_have_one_secret),
        cmocka_unit_test(test_kem_secrets_are_fresh),
        cmocka_unit_test(test_kem_refuses_what_is_no_public_key),
        cmocka_unit_test(test_kem_is_refused_where_openssl_lacks_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
