/* From the shares of R4 to the masks that are on the sum over U3.
 *
 *   sum over u in U3 of y_u = sum of q_u + sum of PRG(k_self(u))
 *                             + for every dropped v: the pair masks between v and each u in U3
 *
 * since pair masks within U3 cancel. b_u is recovered for u in U3 and m_v for v in U2 \ U3, never
 * both of one member; which of the two is decided by U3, which a quorum of sites signed. */
#include "secagg/recover.h"
#include "secagg/server_int.h"

#include "crypto/wipe.h"

#include <stdlib.h>
#include <string.h>

/* What a recovered secret must match. */
typedef struct expectation {
    const dure_secagg_server *server;
    uint32_t member;
} expectation;

static bool opens_commitment(void *state, const uint8_t secret[DURE_SHAMIR_SECRET_BYTES])
{
    const expectation *e = state;
    dure_hash commitment;
    dure_err err = dure_secagg_commit(&commitment, server_who(e->server, e->member), secret);
    return !err &&
           dure_ct_equal(commitment.b, e->server->keys[e->member].commitment, DURE_DIGEST_BYTES);
}

static bool gives_public_key(void *state, const uint8_t secret[DURE_SHAMIR_SECRET_BYTES])
{
    const expectation *e = state;
    const dure_round_keys *sent = &e->server->keys[e->member];
    dure_round_key key;
    uint8_t kem[DURE_KEM_PUBLIC_BYTES];
    dure_err err = dure_round_key_make(&key, kem, secret, e->server->opts.config, DURE_FOR_MASKS);
    bool ok = !err && dure_ct_equal(key.kx.public_, sent->mask_public, DURE_KEY_BYTES);
    if (ok && sent->kem.n)
        ok = dure_ct_equal(kem, sent->kem.data + DURE_KEM_PUBLIC_BYTES, sizeof kem);
    dure_wipe(&key, sizeof key);
    return ok;
}

/* The shares of `about` in the R4s of the members that are liars, or are not. */
static size_t collect(dure_share *shares, const dure_secagg_server *s, uint32_t about, bool liars)
{
    size_t n = 0;
    for (uint32_t u = 0; u < s->opts.config->n_members; u++) {
        if (!s->r4[u] || dure_members_has(&s->liars, u) != liars) continue;
        const dure_msg_unmask *r4 = &s->r4[u]->u.unmask;
        for (size_t i = 0; i < r4->n_entries; i++) {
            if (r4->entries[i].member == about &&
                dure_share_decode(&shares[n], r4->entries[i].share) == DURE_OK) {
                n++;
            }
        }
    }
    return n;
}

static dure_err recover_one(uint8_t secret[DURE_SHAMIR_SECRET_BYTES], dure_secagg_server *s,
                            uint32_t member)
{
    dure_share shares[DURE_MEMBERS_MAX];
    expectation expected = {s, member};
    size_t n = collect(shares, s, member, false);
    n += collect(shares + n, s, member, true);
    dure_recovery recovery = {.shares = shares,
                              .n = n,
                              .t = s->opts.config->threshold,
                              .check = dure_members_has(&s->u3, member) ? opens_commitment
                                                                        : gives_public_key,
                              .state = &expected};
    dure_err err = dure_recover(secret, &s->liars, &recovery);
    dure_wipe(shares, sizeof shares);
    return err;
}

static dure_err add_self_mask(dure_masks *masks, const dure_secagg_server *s, uint32_t u,
                              const uint8_t b[DURE_SHAMIR_SECRET_BYTES])
{
    uint8_t key[DURE_SECAGG_KEY_BYTES];
    dure_err err = dure_secagg_self_key(key, &s->t2, b, u, s->opts.config);
    if (!err) err = dure_masks_add(masks, key, true);
    dure_wipe(key, sizeof key);
    return err;
}

/* Hybrid suite: what v and each other member agreed on. v encapsulated for the higher numbers, and
 * wrapped that; from the lower ones it got ciphertexts. */
static dure_err rebuild_secrets(uint8_t (*secrets)[DURE_KEM_SHARED_BYTES],
                                const dure_secagg_server *s, uint32_t v, const dure_round_key *own)
{
    const dure_members lower = dure_members_first(v + 1);
    const dure_members higher = dure_members_minus(&s->u1, &lower);
    dure_err err = dure_hybrid_unwrap(secrets, s->r1[v]->u.shares.wrapped, &higher, own, &s->t1, v);
    for (uint32_t u = 0; !err && u < v; u++) {
        if (!dure_members_has(&s->u3, u)) continue;
        const dure_span kem = server_sealed_for(s, u, v).kem;
        err = dure_kem_decapsulate(secrets[u], kem.data + DURE_KEM_CIPHERTEXT_BYTES, own->kem);
    }
    return err;
}

/* u added PRG(k(u, v)) if v > u and subtracted it otherwise; here it is taken back. */
static dure_err add_pair_masks(dure_masks *masks, const dure_secagg_server *s, uint32_t v,
                               const uint8_t seed[DURE_SHAMIR_SECRET_BYTES])
{
    const bool hybrid = dure_suite_is_hybrid(s->opts.config);
    dure_round_key own;
    uint8_t key[DURE_SECAGG_KEY_BYTES] = {0}, kem[DURE_KEM_PUBLIC_BYTES];
    uint8_t secrets[DURE_MEMBERS_MAX][DURE_KEM_SHARED_BYTES] = {{0}};
    dure_err err = dure_round_key_make(&own, kem, seed, s->opts.config, DURE_FOR_MASKS);
    if (!err && hybrid) err = rebuild_secrets(secrets, s, v, &own);
    for (uint32_t u = 0; !err && u < s->opts.config->n_members; u++) {
        if (!dure_members_has(&s->u3, u)) continue;
        const uint32_t pair[2] = {u, v};
        const dure_agreement between = {&own.kx, s->keys[u].mask_public,
                                        hybrid ? secrets[u] : NULL};
        err = dure_secagg_pair_key(key, &s->t2, &between, pair, s->opts.config);
        if (!err) err = dure_masks_add(masks, key, v > u);
    }
    dure_wipe(secrets, sizeof secrets);
    dure_wipe(key, sizeof key);
    dure_wipe(&own, sizeof own);
    return err;
}

dure_err server_unmask(dure_secagg_server *s)
{
    size_t n3 = dure_members_count(&s->u3), n_dropped = dure_members_count(&s->u2) - n3;
    dure_masks *masks = NULL;
    uint8_t secret[DURE_SHAMIR_SECRET_BYTES] = {0};
    dure_err err = dure_masks_new(&masks, s->opts.config, n3 + n_dropped * n3);
    for (uint32_t v = 0; !err && v < s->opts.config->n_members; v++) {
        if (!dure_members_has(&s->u2, v)) continue;
        err = recover_one(secret, s, v);
        if (err) break;
        err = dure_members_has(&s->u3, v) ? add_self_mask(masks, s, v, secret)
                                          : add_pair_masks(masks, s, v, secret);
    }
    dure_wipe(secret, sizeof secret);
    if (err) {
        dure_masks_free(&masks);
        return err;
    }
    s->unmasker = masks;
    return DURE_OK;
}
