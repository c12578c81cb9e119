/* A site whose round keys are validly signed and that nobody can agree on a secret with: were they
 * taken, every honest site's round would fail and the culprit's alone would not. */
#include "secagg/client_int.h"
#include "support/check.h"
#include "world.h"

#include <stdio.h>
#include <string.h>

#define WRITABLE(type, pointer) ((type *)(uintptr_t)(pointer))

enum { SITES = 5, LIAR = 2 };

typedef enum bad_key { BAD_CHANNEL, BAD_MASK, BAD_KEM_CHANNEL, BAD_KEM_MASK } bad_key;

/* Every encoding of a point of low order on the curve or its twist; the last three are not reduced
 * (Bernstein, "May the Fourth be with you", cr.yp.to/ecdh.html#validate). */
static const uint8_t low_order[][DURE_KEY_BYTES] = {
    {0},
    {1},
    {0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3,
     0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32,
     0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00},
    {0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1,
     0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c,
     0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57},
    {0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
     0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
     0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
    {0xed, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
     0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
     0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
    {0xee, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
     0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
     0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
};
#define N_LOW_ORDER (sizeof low_order / sizeof low_order[0])

static bad_key which;
static uint8_t point[DURE_KEY_BYTES];

/* Site 2's own doing: it signs what it sends. */
static void spoil(const world *w, dure_round_keys *k)
{
    static uint8_t kem[DURE_MSG_KEM_KEYS_BYTES];
    const uint32_t member = k->member;
    dure_hash digest;
    if (which == BAD_CHANNEL) memcpy(k->channel_public, point, sizeof point);
    if (which == BAD_MASK) memcpy(k->mask_public, point, sizeof point);
    if (which == BAD_KEM_CHANNEL || which == BAD_KEM_MASK) {
        memcpy(kem, k->kem.data, sizeof kem);
        /* Coefficients of 4095 are not below q (FIPS 203, section 7.2, the modulus check). */
        memset(kem + (which == BAD_KEM_MASK ? DURE_KEM_PUBLIC_BYTES : 0), 0xff, 1152);
        k->kem.data = kem;
    }
    k->member = LIAR;
    assert_ok(dure_secagg_digest_r0(&digest, (dure_secagg_who){&w->config_hash, LIAR}, k));
    assert_ok(
        dure_sign(k->signature, &w->keys[LIAR], DURE_SECAGG_LABEL_R0, dure_hash_span(&digest)));
    k->member = member; /* R0 on the wire does not name its sender */
}

static bool send_bad_keys(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    if (to_server && member == LIAR && msg->type == DURE_MSG_ADVERTISE)
        spoil(w, &msg->u.advertise.keys);
    return true;
}

/* The coordinator colludes: it took the keys and shows them. */
static bool show_bad_keys(world *w, bool to_server, uint32_t member, dure_msg *msg)
{
    if (!to_server && member == 0 && msg->type == DURE_MSG_KEYS)
        spoil(w, &WRITABLE(dure_round_keys, msg->u.keys.entries)[LIAR]);
    return true;
}

/* The coordinator names and drops the culprit; everybody else has a sum. */
static void assert_coordinator_drops_it(void)
{
    const dure_members u3 = {{0x1b, 0}};
    uint32_t plain[WORLD_WORDS];
    world *w = world_new(SITES, 7);
    w->hook = send_bad_keys;
    world_run(w);
    if (!w->summed) fail_msg("no sum: %s", w->last_error);
    const dure_members got = dure_secagg_server_set(w->server, 3);
    assert_true(dure_members_equal(&got, &u3));
    assert_int_equal(w->n_blamed, 1);
    assert_int_equal(w->blamed[0], LIAR);
    for (uint32_t i = 0; i < SITES; i++)
        assert_ok(w->client_err[i]);
    world_plain_sum(plain, w, &u3);
    assert_memory_equal(w->sum, plain, sizeof plain);
    world_free(&w);
}

/* A site that is shown such keys says whose they are, and gives out no shares. */
static void assert_site_refuses(const char *name)
{
    char says[128];
    world *w = world_new(SITES, 7);
    snprintf(says, sizeof says, "the %s of %s is not a valid one", name,
             w->config.members[LIAR].name);
    w->hook = show_bad_keys;
    world_run(w);
    assert_err(w->client_err[0], DURE_ERR_AUTH);
    if (!strstr(w->said[0], says)) fail_msg("\"%s\" does not say %s", w->said[0], says);
    assert_int_equal(dure_secagg_client_stage(w->clients[0]), DURE_STAGE_IDLE);
    world_free(&w);
}

static void each_point(bad_key key, const char *name)
{
    which = key;
    for (size_t i = 0; i < N_LOW_ORDER; i++) {
        memcpy(point, low_order[i], sizeof point);
        assert_coordinator_drops_it();
        point[31] |= 0x80; /* the bit that X25519 ignores */
        assert_coordinator_drops_it();
        assert_site_refuses(name);
    }
}

static void test_attack_mask_key_of_low_order(void **state)
{
    (void)state;
    each_point(BAD_MASK, "mask key");
}

static void test_attack_channel_key_of_low_order(void **state)
{
    (void)state;
    each_point(BAD_CHANNEL, "channel key");
}

static bool is_hybrid(void)
{
    world *w = world_new(SITES, 7);
    const bool hybrid = dure_suite_is_hybrid(&w->config);
    world_free(&w);
    return hybrid;
}

/* secagg.attack_keys_hybrid runs it; the other suite has no such keys. */
static void test_attack_malformed_kem_keys(void **state)
{
    (void)state;
    if (!is_hybrid()) skip();
    which = BAD_KEM_CHANNEL;
    assert_coordinator_drops_it();
    assert_site_refuses("ML-KEM key for channels");
    which = BAD_KEM_MASK;
    assert_coordinator_drops_it();
    assert_site_refuses("ML-KEM key for masks");
}

int main(void)
{
    if (world_lacks_suite()) return WORLD_SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attack_mask_key_of_low_order),
        cmocka_unit_test(test_attack_channel_key_of_low_order),
        cmocka_unit_test(test_attack_malformed_kem_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
