#include "crypto/kx.h"
#include "support/hex.h"

static void agree(uint8_t out[32], const char *scalar, const char *point)
{
    uint8_t secret[32], peer[32];
    dure_kx_key key;
    hex_bytes(secret, 32, scalar);
    hex_bytes(peer, 32, point);
    assert_ok(dure_kx_from_secret(&key, secret));
    assert_ok(dure_kx_shared(out, &key, peer));
}

/* RFC 7748 section 5.2, and the iterated vector after one step. */
static void test_kx_matches_rfc_7748(void **state)
{
    (void)state;
    uint8_t out[32];
    agree(out, "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
          "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c");
    assert_hex(out, 32, "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552");
    agree(out, "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
          "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493");
    assert_hex(out, 32, "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957");
    agree(out, "0900000000000000000000000000000000000000000000000000000000000000",
          "0900000000000000000000000000000000000000000000000000000000000000");
    assert_hex(out, 32, "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079");
}

/* RFC 7748 section 6.1. */
static void test_kx_both_sides_agree_as_in_rfc_7748(void **state)
{
    (void)state;
    uint8_t secret[32], one[32], other[32];
    dure_kx_key alice, bob;
    hex_bytes(secret, 32, "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
    assert_ok(dure_kx_from_secret(&alice, secret));
    hex_bytes(secret, 32, "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
    assert_ok(dure_kx_from_secret(&bob, secret));
    assert_hex(alice.public_, 32,
               "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
    assert_hex(bob.public_, 32, "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
    assert_ok(dure_kx_shared(one, &alice, bob.public_));
    assert_ok(dure_kx_shared(other, &bob, alice.public_));
    assert_memory_equal(one, other, 32);
    assert_hex(one, 32, "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
}

/* The points of low order of Curve25519 and its twist, and two encodings that reduce to them. */
static void test_kx_refuses_points_of_low_order(void **state)
{
    (void)state;
    static const char *const points[] = {
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    };
    static const uint8_t zero[32];
    dure_kx_key key;
    assert_ok(dure_kx_generate(&key));
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        uint8_t peer[32], shared[32];
        hex_bytes(peer, 32, points[i]);
        memset(shared, 0xa5, sizeof shared);
        assert_err(dure_kx_shared(shared, &key, peer), DURE_ERR_AUTH);
        assert_memory_equal(shared, zero, 32);
    }
}

static void test_kx_generates_different_keys(void **state)
{
    (void)state;
    dure_kx_key a, b;
    assert_ok(dure_kx_generate(&a));
    assert_ok(dure_kx_generate(&b));
    assert_memory_not_equal(a.secret, b.secret, 32);
    assert_memory_not_equal(a.public_, b.public_, 32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kx_matches_rfc_7748),
        cmocka_unit_test(test_kx_both_sides_agree_as_in_rfc_7748),
        cmocka_unit_test(test_kx_refuses_points_of_low_order),
        cmocka_unit_test(test_kx_generates_different_keys),
    };
    return cmocka_run_group_tests_name("crypto.kx", tests, NULL, NULL);
}
