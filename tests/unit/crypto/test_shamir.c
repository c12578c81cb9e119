#include "crypto/rng.h"
#include "crypto/shamir.h"
#include "support/hex.h"

static const uint64_t prime = (UINT64_C(1) << 61) - 1;

/* A generator that repeats a fixed list of 64-bit values, to place known coefficients. */
typedef struct fixed_values {
    const uint64_t *values;
    size_t n;
    size_t at;
} fixed_values;

static dure_err fill_fixed(void *state, uint8_t *out, size_t n)
{
    fixed_values *fixed = state;
    for (size_t at = 0; at < n; at += 8) {
        if (fixed->at == fixed->n) return DURE_ERR_RNG;
        memcpy(out + at, &fixed->values[fixed->at++], 8);
    }
    return DURE_OK;
}

/* Shares for the holders 1 .. n. */
static dure_err share(dure_share *shares, size_t n, size_t t, const uint8_t secret[32],
                      const dure_rng *rng)
{
    static uint32_t xs[DURE_SHAMIR_SHARES_MAX];
    for (size_t i = 0; i < DURE_SHAMIR_SHARES_MAX; i++)
        xs[i] = (uint32_t)i + 1;
    return dure_shamir_share(shares, xs, n, t, secret, rng);
}

static void make_secret(uint8_t secret[32], uint8_t seed)
{
    for (size_t i = 0; i < 32; i++)
        secret[i] = (uint8_t)(seed + 37 * i);
}

/* Every subset of t shares gives the secret back. */
static void test_shamir_any_t_shares_combine(void **state)
{
    (void)state;
    enum { N = 7, T = 4 };
    dure_rng rng = dure_rng_system();
    dure_share shares[N], chosen[T];
    uint8_t secret[32], back[32];
    make_secret(secret, 200);
    assert_ok(share(shares, N, T, secret, &rng));
    for (unsigned set = 0; set < 1u << N; set++) {
        if (__builtin_popcount(set) != T) continue;
        size_t k = 0;
        for (size_t i = N; i-- > 0;) {
            if (set >> i & 1) chosen[k++] = shares[i];
        }
        assert_ok(dure_shamir_combine(back, chosen, T));
        assert_memory_equal(back, secret, 32);
    }
}

static void test_shamir_keeps_extreme_secrets(void **state)
{
    (void)state;
    dure_rng rng = dure_rng_system();
    dure_share shares[5];
    uint8_t secret[32], back[32];
    for (int byte = 0; byte < 256; byte += 255) {
        memset(secret, byte, 32);
        assert_ok(share(shares, 5, 3, secret, &rng));
        assert_ok(dure_shamir_combine(back, shares + 1, 3));
        assert_memory_equal(back, secret, 32);
    }
}

static void test_shamir_works_at_the_size_of_a_federation(void **state)
{
    (void)state;
    enum { N = 100, T = 67 };
    dure_rng rng = dure_rng_system();
    dure_share shares[N];
    uint8_t secret[32], back[32];
    make_secret(secret, 3);
    assert_ok(share(shares, N, T, secret, &rng));
    assert_ok(dure_shamir_combine(back, shares + N - T, T));
    assert_memory_equal(back, secret, 32);
}

/* Small numbers, done by hand: the polynomial of limb l is limb + 1000 x - x^2. A
 * drawn coefficient equal to p is drawn again. */
static void test_shamir_shares_are_values_of_the_polynomial(void **state)
{
    (void)state;
    uint64_t values[12];
    size_t n = 0;
    for (size_t l = 0; l < 5; l++) {
        values[n++] = 1000 | UINT64_C(7) << 61; /* bits above 61 are dropped */
        values[n++] = l == 2 ? UINT64_MAX : prime - 1;
        if (l == 2) values[n++] = prime - 1;
    }
    fixed_values fixed = {.values = values, .n = n};
    dure_rng rng = {.fill = fill_fixed, .state = &fixed};
    dure_share shares[3];
    uint8_t secret[32] = {0};
    secret[0] = 5; /* limb 0 is 5, limb 4 is 2^47 */
    secret[31] = 0x80;
    assert_ok(share(shares, 3, 3, secret, &rng));
    assert_int_equal(fixed.at, n);
    assert_int_equal(shares[0].y[0], 5 + 1000 - 1);
    assert_int_equal(shares[2].y[0], 5 + 3000 - 9);
    assert_int_equal(shares[1].y[1], 2000 - 4);
    assert_int_equal(shares[1].y[2], 2000 - 4);
    assert_int_equal(shares[2].y[4], (UINT64_C(1) << 47) + 3000 - 9);
}

/* Fewer shares than the threshold, or one that was changed, give an error or another secret. */
static void test_shamir_wrong_shares_do_not_give_the_secret(void **state)
{
    (void)state;
    dure_rng rng = dure_rng_system();
    dure_share shares[5];
    uint8_t secret[32], back[32];
    make_secret(secret, 77);
    assert_ok(share(shares, 5, 4, secret, &rng));
    if (dure_shamir_combine(back, shares, 3) == DURE_OK) assert_memory_not_equal(back, secret, 32);
    shares[2].y[1] ^= 1;
    if (dure_shamir_combine(back, shares, 4) == DURE_OK) assert_memory_not_equal(back, secret, 32);
}

static void test_shamir_refuses_malformed_shares(void **state)
{
    (void)state;
    static const uint8_t zero[32];
    dure_rng rng = dure_rng_system();
    dure_share shares[3], changed[3];
    uint8_t secret[32], back[32];
    make_secret(secret, 1);
    assert_ok(share(shares, 3, 3, secret, &rng));
    for (size_t i = 0; i < 4; i++) {
        memcpy(changed, shares, sizeof shares);
        if (i == 0) changed[1].x = 0;
        if (i == 1) changed[1].x = changed[2].x;
        if (i == 2) changed[1].y[4] = prime;
        if (i == 3) changed[1].x = DURE_SHAMIR_SHARES_MAX + 1;
        memset(back, 0xa5, sizeof back);
        assert_err(dure_shamir_combine(back, changed, 3), DURE_ERR_AUTH);
        assert_memory_equal(back, zero, 32);
    }
}

/* A limb that comes out above 52 bits cannot be part of a secret. */
static void test_shamir_refuses_limbs_that_are_too_large(void **state)
{
    (void)state;
    uint8_t back[32];
    dure_share one = {.x = 1, .y = {UINT64_C(1) << 52}};
    dure_share last = {.x = 1, .y = {0, 0, 0, 0, UINT64_C(1) << 48}};
    assert_err(dure_shamir_combine(back, &one, 1), DURE_ERR_AUTH);
    assert_err(dure_shamir_combine(back, &last, 1), DURE_ERR_AUTH);
}

static void test_shamir_refuses_impossible_thresholds(void **state)
{
    (void)state;
    dure_rng rng = dure_rng_system();
    static dure_share shares[DURE_SHAMIR_SHARES_MAX + 1];
    uint8_t secret[32] = {1};
    assert_err(share(shares, 3, 0, secret, &rng), DURE_ERR_USAGE);
    assert_err(share(shares, 3, 4, secret, &rng), DURE_ERR_USAGE);
    assert_err(share(shares, DURE_SHAMIR_SHARES_MAX + 1, 3, secret, &rng), DURE_ERR_USAGE);
    assert_err(dure_shamir_combine(secret, shares, 0), DURE_ERR_USAGE);
    assert_err(dure_shamir_combine(secret, shares, DURE_SHAMIR_SHARES_MAX + 1), DURE_ERR_USAGE);
}

static void test_shamir_fails_with_its_generator_and_zeroes(void **state)
{
    (void)state;
    static const dure_share zero[3];
    uint64_t values[3] = {1, 2, 3};
    fixed_values fixed = {.values = values, .n = 3};
    dure_rng rng = {.fill = fill_fixed, .state = &fixed};
    dure_share shares[3];
    uint8_t secret[32] = {1};
    memset(shares, 0, sizeof shares);
    assert_err(share(shares, 3, 3, secret, &rng), DURE_ERR_RNG);
    assert_memory_equal(shares, zero, sizeof shares);
}

static void test_share_encoding_round_trips_and_is_checked(void **state)
{
    (void)state;
    dure_share share = {.x = 258, .y = {1, 2, 3, 4, prime - 1}}, back;
    uint8_t bytes[DURE_SHARE_BYTES];
    dure_share_encode(bytes, &share);
    assert_hex(
        bytes, sizeof bytes,
        "0000010200000000000000010000000000000002000000000000000300000000000000041ffffffffffff"
        "ffe");
    assert_ok(dure_share_decode(&back, bytes));
    assert_memory_equal(&back.y, &share.y, sizeof share.y);
    assert_int_equal(back.x, share.x);
    bytes[DURE_SHARE_BYTES - 1] = 0xff; /* p itself */
    assert_err(dure_share_decode(&back, bytes), DURE_ERR_PROTO);
    bytes[DURE_SHARE_BYTES - 1] = 0;
    bytes[2] = bytes[3] = 0;
    assert_err(dure_share_decode(&back, bytes), DURE_ERR_PROTO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shamir_any_t_shares_combine),
        cmocka_unit_test(test_shamir_keeps_extreme_secrets),
        cmocka_unit_test(test_shamir_works_at_the_size_of_a_federation),
        cmocka_unit_test(test_shamir_shares_are_values_of_the_polynomial),
        cmocka_unit_test(test_shamir_wrong_shares_do_not_give_the_secret),
        cmocka_unit_test(test_shamir_refuses_malformed_shares),
        cmocka_unit_test(test_shamir_refuses_limbs_that_are_too_large),
        cmocka_unit_test(test_shamir_refuses_impossible_thresholds),
        cmocka_unit_test(test_shamir_fails_with_its_generator_and_zeroes),
        cmocka_unit_test(test_share_encoding_round_trips_and_is_checked),
    };
    return cmocka_run_group_tests_name("crypto.shamir", tests, NULL, NULL);
}
