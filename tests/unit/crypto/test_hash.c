#include "common/file.h"
#include "crypto/hash.h"
#include "support/hex.h"
#include "support/temp_dir.h"

#include <stdlib.h>

static const char abc_digest[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/* FIPS 180-4 examples and one message of NIST's SHA256ShortMsg.rsp. */
static void test_hash_matches_nist_vectors(void **state)
{
    (void)state;
    dure_hash out;
    assert_ok(dure_hash_bytes(&out, dure_span_of_text("abc")));
    assert_hex(out.b, 32, abc_digest);
    assert_ok(dure_hash_bytes(&out, dure_span_of_text("")));
    assert_hex(out.b, 32, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_ok(dure_hash_bytes(
        &out, dure_span_of_text("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")));
    assert_hex(out.b, 32, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    uint8_t message[64];
    size_t n = hex_bytes(message, sizeof message,
                         "3ebfb06db8c38d5ba037f1363e118550aad94606e26835a01af05078533cc25f"
                         "2f39573c04b632f62f68c294ab31f2a3e2a1a0d8c2be51");
    assert_ok(dure_hash_bytes(&out, dure_span_of(message, n)));
    assert_hex(out.b, 32, "6595a2ef537a69ba8583dfbf7f5bec0ab1f93ce4c8ee1916eff44a93af5749c4");
}

/* FIPS 180-4: one million times the letter a, in uneven pieces; and the hasher is reusable. */
static void test_hash_streams_a_million_letters(void **state)
{
    (void)state;
    dure_hasher *hasher = NULL;
    dure_hash out;
    char piece[997];
    memset(piece, 'a', sizeof piece);
    assert_ok(dure_hasher_new(&hasher));
    for (size_t left = 1000000; left > 0;) {
        size_t n = left < sizeof piece ? left : sizeof piece;
        assert_ok(dure_hasher_update(hasher, piece, n));
        left -= n;
    }
    assert_ok(dure_hasher_final(&out, hasher));
    assert_hex(out.b, 32, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    assert_ok(dure_hasher_update(hasher, "abc", 3));
    assert_ok(dure_hasher_final(&out, hasher));
    assert_hex(out.b, 32, abc_digest);
    dure_hasher_free(&hasher);
    assert_null(hasher);
    dure_hasher_free(&hasher);
}

static void test_hash_labeled_is_the_hash_of_length_prefixed_fields(void **state)
{
    (void)state;
    static const uint8_t plain[] = {0, 0, 0, 1, 'L', 0, 0, 0, 2, 'a', 'b', 0, 0, 0, 0};
    dure_span fields[] = {dure_span_of_text("ab"), dure_span_of_text("")};
    dure_hash labeled, want;
    assert_ok(dure_hash_labeled(&labeled, "L", fields, 2));
    assert_ok(dure_hash_bytes(&want, dure_span_of(plain, sizeof plain)));
    assert_true(dure_hash_equal(&labeled, &want));
}

static void test_hash_labeled_tells_fields_apart(void **state)
{
    (void)state;
    dure_span one[] = {dure_span_of_text("ab"), dure_span_of_text("c")};
    dure_span two[] = {dure_span_of_text("a"), dure_span_of_text("bc")};
    dure_hash a, b, c;
    assert_ok(dure_hash_labeled(&a, "x", one, 2));
    assert_ok(dure_hash_labeled(&b, "x", two, 2));
    assert_ok(dure_hash_labeled(&c, "y", one, 2));
    assert_false(dure_hash_equal(&a, &b));
    assert_false(dure_hash_equal(&a, &c));
}

static void test_hash_file_equals_hash_of_its_bytes(void **state)
{
    (void)state;
    enum { N = 200001 };
    temp_dir dir;
    temp_dir_make(&dir);
    uint8_t *bytes = malloc(N);
    assert_non_null(bytes);
    for (size_t i = 0; i < N; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 256);
    const char *path = temp_dir_file(&dir, "data");
    assert_ok(dure_file_write_atomic(path, dure_span_of(bytes, N), 0600, NULL));
    dure_hash want, got;
    assert_ok(dure_hash_bytes(&want, dure_span_of(bytes, N)));
    assert_ok(dure_hash_file(&got, path, NULL));
    assert_true(dure_hash_equal(&got, &want));
    free(bytes);
    temp_dir_remove(&dir);
}

static void test_hash_file_names_a_missing_file(void **state)
{
    (void)state;
    dure_diag diag = {{0}};
    dure_hash out;
    assert_err(dure_hash_file(&out, "/nowhere/at/all", &diag), DURE_ERR_NOT_FOUND);
    assert_non_null(strstr(diag.text, "/nowhere/at/all"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hash_matches_nist_vectors),
        cmocka_unit_test(test_hash_streams_a_million_letters),
        cmocka_unit_test(test_hash_labeled_is_the_hash_of_length_prefixed_fields),
        cmocka_unit_test(test_hash_labeled_tells_fields_apart),
        cmocka_unit_test(test_hash_file_equals_hash_of_its_bytes),
        cmocka_unit_test(test_hash_file_names_a_missing_file),
    };
    return cmocka_run_group_tests_name("crypto.hash", tests, NULL, NULL);
}
