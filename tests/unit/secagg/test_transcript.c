#include "crypto/rng.h"
#include "secagg/recover.h"
#include "secagg/transcript.h"
#include "support/check.h"

#include <string.h>

static dure_hash hash_of(uint8_t value)
{
    dure_hash h;
    memset(h.b, value, sizeof h.b);
    return h;
}

static const dure_config config = {.word_bits = 24, .n_words = 100};

static void test_transcript_pair_key_is_the_same_from_both_sides(void **state)
{
    (void)state;
    dure_kx_key a, b;
    uint8_t ab[32], ba[32];
    dure_hash t2 = hash_of(1);
    assert_ok(dure_kx_generate(&a));
    assert_ok(dure_kx_generate(&b));
    assert_ok(dure_secagg_pair_key(ab, &t2, &(dure_agreement){&a, b.public_, NULL},
                                   (uint32_t[2]){3, 1}, &config));
    assert_ok(dure_secagg_pair_key(ba, &t2, &(dure_agreement){&b, a.public_, NULL},
                                   (uint32_t[2]){1, 3}, &config));
    assert_memory_equal(ab, ba, 32);
}

/* Model inconsistency and every other difference of views: T2 covers H_C, keys and sets. */
static void test_transcript_another_view_gives_another_mask(void **state)
{
    (void)state;
    dure_kx_key a, b;
    uint8_t first[32], second[32];
    dure_hash t2 = hash_of(1), other = hash_of(2);
    assert_ok(dure_kx_generate(&a));
    assert_ok(dure_kx_generate(&b));
    assert_ok(dure_secagg_pair_key(first, &t2, &(dure_agreement){&a, b.public_, NULL},
                                   (uint32_t[2]){0, 1}, &config));
    assert_ok(dure_secagg_pair_key(second, &other, &(dure_agreement){&a, b.public_, NULL},
                                   (uint32_t[2]){0, 1}, &config));
    assert_memory_not_equal(first, second, 32);
    dure_config longer = config;
    longer.n_words++;
    assert_ok(dure_secagg_pair_key(second, &t2, &(dure_agreement){&a, b.public_, NULL},
                                   (uint32_t[2]){0, 1}, &longer));
    assert_memory_not_equal(first, second, 32);
}

/* The hybrid suite: another secret of either agreement is another key. */
static void test_transcript_hybrid_keys_need_both_secrets(void **state)
{
    (void)state;
    dure_kx_key a, b, c;
    uint8_t kem[32] = {1}, other[32] = {2}, keys[4][32];
    const dure_hash t = hash_of(1);
    const uint32_t pair[2] = {0, 1};
    assert_ok(dure_kx_generate(&a));
    assert_ok(dure_kx_generate(&b));
    assert_ok(dure_kx_generate(&c));
    const dure_agreement cases[4] = {
        {&a, b.public_, kem}, {&a, b.public_, other}, {&a, c.public_, kem}, {&a, b.public_, NULL}};
    for (int channel = 0; channel < 2; channel++) {
        for (size_t i = 0; i < 4; i++) {
            assert_ok(channel ? dure_secagg_channel_key(keys[i], &t, &cases[i], pair)
                              : dure_secagg_pair_key(keys[i], &t, &cases[i], pair, &config));
            for (size_t j = 0; j < i; j++)
                assert_memory_not_equal(keys[i], keys[j], sizeof keys[i]);
        }
    }
}

static void assert_other(const dure_hash *a, const dure_hash *b)
{
    assert_false(dure_hash_equal(a, b));
}

static void test_transcript_depends_on_every_part(void **state)
{
    (void)state;
    const dure_hash h1 = hash_of(1), h2 = hash_of(2), root = hash_of(3), other_root = hash_of(4);
    const dure_members three = dure_members_first(3), two = dure_members_first(2);
    const dure_secagg_set set = {&three, 5, &root}, fewer = {&two, 5, &root},
                          altered = {&three, 5, &other_root};
    const dure_span none = {0}, beacon = {h1.b, sizeof h1.b};
    dure_hash a, b;
    assert_ok(dure_secagg_t1(&a, &h1, none, &set));
    assert_ok(dure_secagg_t1(&b, &h2, none, &set));
    assert_other(&a, &b);
    assert_ok(dure_secagg_t1(&b, &h1, beacon, &set));
    assert_other(&a, &b);
    assert_ok(dure_secagg_t1(&b, &h1, none, &fewer));
    assert_other(&a, &b);
    assert_ok(dure_secagg_t1(&b, &h1, none, &altered));
    assert_other(&a, &b);
    assert_ok(dure_secagg_t2(&a, &h1, &set));
    assert_ok(dure_secagg_t2(&b, &h1, &fewer));
    assert_other(&a, &b);
    assert_ok(dure_secagg_t3(&b, &h1, &set));
    assert_other(&a, &b);
    assert_ok(dure_secagg_t3(&a, &h1, &altered));
    assert_other(&a, &b);
}

static void test_transcript_leaves_have_every_field(void **state)
{
    (void)state;
    dure_round_keys keys = {.member = 1};
    dure_hash a, b;
    assert_ok(dure_secagg_leaf_r0(&a, &keys));
    uint8_t *const bytes[] = {keys.channel_public, keys.mask_public, keys.nonce,
                              keys.commitment,     keys.chain_head,  keys.signature};
    for (size_t i = 0; i < sizeof bytes / sizeof *bytes; i++) {
        bytes[i][31] ^= 1;
        assert_ok(dure_secagg_leaf_r0(&b, &keys));
        assert_other(&a, &b);
        bytes[i][31] ^= 1;
    }
    keys.chain_length = 1;
    assert_ok(dure_secagg_leaf_r0(&b, &keys));
    assert_other(&a, &b);
    const dure_hash root = hash_of(1), other = hash_of(2);
    assert_ok(dure_secagg_leaf_r1(&a, 1, root.b));
    assert_ok(dure_secagg_leaf_r1(&b, 2, root.b));
    assert_other(&a, &b);
    assert_ok(dure_secagg_leaf_r2(&b, 1, other.b));
    assert_other(&a, &b);
}

static void test_transcript_low_order_peer_is_refused(void **state)
{
    (void)state;
    dure_kx_key a;
    uint8_t zero[32] = {0}, key[32];
    dure_hash t = hash_of(1);
    assert_ok(dure_kx_generate(&a));
    assert_err(dure_secagg_pair_key(key, &t, &(dure_agreement){&a, zero, NULL}, (uint32_t[2]){0, 1},
                                    &config),
               DURE_ERR_AUTH);
    assert_memory_equal(key, zero, 32);
    assert_err(
        dure_secagg_channel_key(key, &t, &(dure_agreement){&a, zero, NULL}, (uint32_t[2]){0, 1}),
        DURE_ERR_AUTH);
}

static dure_share_pair sample_pair(uint32_t x)
{
    dure_share_pair pair = {{.x = x, .y = {1, 2, 3, 4, 5}}, {.x = x, .y = {6, 7, 8, 9, 10}}};
    return pair;
}

static void test_transcript_sealed_shares_open_for_the_receiver_alone(void **state)
{
    (void)state;
    uint8_t key[32] = {7}, sealed[DURE_SECAGG_SEALED_BYTES];
    dure_hash t1 = hash_of(1), other = hash_of(2);
    const uint32_t way[2] = {0, 4}, back[2] = {4, 0};
    const uint8_t ciphertext[3] = {1, 2, 3};
    const dure_span none = {0}, kem = {ciphertext, sizeof ciphertext};
    dure_share_pair pair = sample_pair(5), out;
    dure_span span = {sealed, sizeof sealed};
    assert_ok(dure_secagg_seal(sealed, key, &t1, way, none, &pair));
    assert_ok(dure_secagg_open(&out, key, &t1, way, none, span));
    assert_memory_equal(&out.mask.y, &pair.mask.y, sizeof pair.mask.y);
    assert_err(dure_secagg_open(&out, key, &t1, back, none, span), DURE_ERR_AUTH);
    assert_err(dure_secagg_open(&out, key, &other, way, none, span), DURE_ERR_AUTH);
    assert_err(dure_secagg_open(&out, key, &t1, way, kem, span), DURE_ERR_AUTH);
    span.n--;
    assert_err(dure_secagg_open(&out, key, &t1, way, none, span), DURE_ERR_AUTH);
    pair = sample_pair(4); /* a share at somebody else's point */
    assert_ok(dure_secagg_seal(sealed, key, &t1, way, none, &pair));
    span.n++;
    assert_err(dure_secagg_open(&out, key, &t1, way, none, span), DURE_ERR_AUTH);
}

/* ---- recovery ---- */

static const uint8_t *wanted;

static bool is_wanted(void *state, const uint8_t secret[DURE_SHAMIR_SECRET_BYTES])
{
    ++*(unsigned *)state;
    return memcmp(secret, wanted, DURE_SHAMIR_SECRET_BYTES) == 0;
}

/* n shares at threshold t of which those in `bad` are wrong. */
static dure_err recover(dure_members *liars, size_t n, size_t t, const dure_members *bad)
{
    uint8_t secret[32] = {1, 2, 3}, out[32];
    dure_share shares[DURE_MEMBERS_MAX];
    uint32_t xs[DURE_MEMBERS_MAX];
    dure_rng rng = dure_rng_system();
    unsigned tries = 0;
    wanted = secret;
    for (size_t i = 0; i < n; i++)
        xs[i] = (uint32_t)i + 1;
    assert_ok(dure_shamir_share(shares, xs, n, t, secret, &rng));
    for (size_t i = 0; i < n; i++) {
        if (dure_members_has(bad, i)) shares[i].y[i % 5] ^= 1;
    }
    dure_recovery r = {.shares = shares, .n = n, .t = t, .check = is_wanted, .state = &tries};
    dure_err err = dure_recover(out, liars, &r);
    if (!err) assert_memory_equal(out, secret, 32);
    return err;
}

static void test_recover_names_exactly_the_liars(void **state)
{
    (void)state;
    dure_members bad = {{0x12, 0}}, liars = {{0}};
    assert_ok(recover(&liars, 7, 4, &bad));
    assert_true(dure_members_equal(&liars, &bad));
}

static void test_recover_finds_the_good_among_a_hundred(void **state)
{
    (void)state;
    dure_members bad = {{0x7, 0}}, liars = {{0}};
    assert_ok(recover(&liars, 100, 67, &bad));
    assert_true(dure_members_equal(&liars, &bad));
}

static void test_recover_fails_without_t_good_shares(void **state)
{
    (void)state;
    dure_members bad = {{0xf, 0}}, liars = {{0}};
    assert_err(recover(&liars, 7, 4, &bad), DURE_ERR_AUTH);
    assert_int_equal(dure_members_count(&liars), 0);
    dure_members none = {{0}};
    assert_ok(recover(NULL, 4, 4, &none));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transcript_pair_key_is_the_same_from_both_sides),
        cmocka_unit_test(test_transcript_another_view_gives_another_mask),
        cmocka_unit_test(test_transcript_hybrid_keys_need_both_secrets),
        cmocka_unit_test(test_transcript_depends_on_every_part),
        cmocka_unit_test(test_transcript_leaves_have_every_field),
        cmocka_unit_test(test_transcript_low_order_peer_is_refused),
        cmocka_unit_test(test_transcript_sealed_shares_open_for_the_receiver_alone),
        cmocka_unit_test(test_recover_names_exactly_the_liars),
        cmocka_unit_test(test_recover_finds_the_good_among_a_hundred),
        cmocka_unit_test(test_recover_fails_without_t_good_shares),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
