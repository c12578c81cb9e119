/* From the shares of R4 to the masks that are on the sum over U3.
 *
 *   sum over u in U3 of y_u = sum of q_u + sum of PRG(k_self(u))
 *                             + for every dropped v: the pair masks between v and each u in U3
 *
 * since pair masks within U3 cancel; pairs are neighbours. b_u is recovered for u in U3 and m_v for
 * v in U2 \ U3, never both of one member; which of the two is decided by U3, which a quorum of
 * sites signed. */
#include "secagg/recover.h"
#include "secagg/server_int.h"

#include "crypto/wipe.h"

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
    return !err && dure_ct_equal(commitment.b, e->server->members[e->member].keys.commitment,
                                 DURE_DIGEST_BYTES);
}

static bool gives_public_key(void *state, const uint8_t secret[DURE_SHAMIR_SECRET_BYTES])
{
    const expectation *e = state;
    const dure_round_keys *sent = &e->server->members[e->member].keys;
    dure_round_key key;
    uint8_t kem[DURE_KEM_PUBLIC_BYTES];
    dure_err err = dure_round_key_make(&key, kem, secret, e->server->opts.config, DURE_FOR_MASKS);
    bool ok = !err && dure_ct_equal(key.kx.public_, sent->mask_public, DURE_KEY_BYTES);
    if (ok && sent->kem.n)
        ok = dure_ct_equal(kem, sent->kem.data + DURE_KEM_PUBLIC_BYTES, sizeof kem);
    dure_wipe(&key, sizeof key);
    return ok;
}

bool server_needs(const dure_secagg_server *s, const dure_members *set, uint32_t member)
{
    if (dure_members_has(set, member)) return true;
    return dure_members_has(&s->u2, member) && dure_graph_holders(&s->graph, member, set) > 0;
}

bool server_is_ready(dure_secagg_server *s)
{
    /* Shares only come, so who had enough has enough. */
    for (; s->n_ready < s->opts.config->n_members; s->n_ready++) {
        if (!server_needs(s, &s->u3, s->n_ready)) continue;
        if (dure_graph_holders(&s->graph, s->n_ready, &s->gave) < s->opts.config->threshold) break;
    }
    return s->n_ready == s->opts.config->n_members;
}

/* The shares of `about` in the R4s of the members that are liars, or are not. */
static size_t collect(dure_share *shares, const dure_secagg_server *s, uint32_t about, bool liars)
{
    const dure_members near = dure_graph_near(&s->graph, about);
    const dure_members from = dure_members_both(&near, &s->gave);
    size_t n = 0;
    for (uint32_t u = 0; u < s->opts.config->n_members; u++) {
        if (!dure_members_has(&from, u) || dure_members_has(&s->liars, u) != liars) continue;
        const dure_msg_unmask *r4 = &s->members[u].r4->u.unmask;
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
    dure_share shares[DURE_NEAR_MAX];
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

/* Hybrid suite: what v and each neighbour agreed on, by rank in `near`. v encapsulated for the
 * higher numbers, and wrapped that; from the lower ones it got ciphertexts. DURE_ERR_PROTO if what
 * it wrapped does not open: the seed is its own, so nobody else can have done that. */
static dure_err rebuild_secrets(uint8_t (*secrets)[DURE_KEM_SHARED_BYTES],
                                const dure_secagg_server *s, uint32_t v, const dure_round_key *own)
{
    const dure_members near = dure_graph_near(&s->graph, v);
    const dure_members lower = dure_members_first(v + 1), with = dure_members_both(&near, &s->u1);
    const dure_members higher = dure_members_minus(&with, &lower);
    const dure_hybrid_masks masks = {v, &near, &higher, secrets};
    dure_err err = dure_hybrid_unwrap(&masks, s->members[v].r1->u.shares.wrapped, own, &s->t1);
    if (err == DURE_ERR_AUTH) return DURE_ERR_PROTO;
    for (uint32_t u = 0; !err && u < v; u++) {
        if (!dure_members_has(&s->u3, u) || !dure_members_has(&near, u)) continue;
        const dure_span kem = server_sealed_for(s, u, v).kem;
        err = dure_kem_decapsulate(secrets[dure_members_rank(&near, u)],
                                   kem.data + DURE_KEM_CIPHERTEXT_BYTES, own->kem);
    }
    return err;
}

/* u added PRG(k(u, v)) if v > u and subtracted it otherwise; here it is taken back. */
static dure_err add_pair_masks(dure_masks *masks, const dure_secagg_server *s, uint32_t v,
                               const uint8_t seed[DURE_SHAMIR_SECRET_BYTES])
{
    const bool hybrid = dure_suite_is_hybrid(s->opts.config);
    const dure_members near = dure_graph_near(&s->graph, v);
    const dure_members with = dure_members_both(&near, &s->u3);
    dure_round_key own;
    uint8_t key[DURE_SECAGG_KEY_BYTES] = {0}, kem[DURE_KEM_PUBLIC_BYTES];
    uint8_t secrets[DURE_NEAR_MAX][DURE_KEM_SHARED_BYTES] = {{0}};
    dure_err err = dure_round_key_make(&own, kem, seed, s->opts.config, DURE_FOR_MASKS);
    if (!err && hybrid) err = rebuild_secrets(secrets, s, v, &own);
    for (uint32_t u = 0; !err && u < s->opts.config->n_members; u++) {
        if (!dure_members_has(&with, u)) continue;
        const uint32_t pair[2] = {u, v};
        const dure_agreement between = {&own.kx, s->members[u].keys.mask_public,
                                        hybrid ? secrets[dure_members_rank(&near, u)] : NULL};
        err = dure_secagg_pair_key(key, &s->t2, &between, pair, s->opts.config);
        if (!err) err = dure_masks_add(masks, key, v > u);
    }
    dure_wipe(secrets, sizeof secrets);
    dure_wipe(key, sizeof key);
    dure_wipe(&own, sizeof own);
    return err;
}

/* One stream for each survivor, and one for each pair of a survivor and a dropped neighbour. */
static size_t count_streams(const dure_secagg_server *s)
{
    size_t n = dure_members_count(&s->u3);
    for (uint32_t v = 0; v < s->opts.config->n_members; v++) {
        if (dure_members_has(&s->u2, v) && !dure_members_has(&s->u3, v))
            n += dure_graph_holders(&s->graph, v, &s->u3);
    }
    return n;
}

dure_err server_unmask(dure_secagg_server *s, uint32_t *of)
{
    dure_masks *masks = NULL;
    uint8_t secret[DURE_SHAMIR_SECRET_BYTES] = {0};
    dure_err err = dure_masks_new(&masks, s->opts.config, count_streams(s));
    for (uint32_t v = 0; !err && v < s->opts.config->n_members; v++) {
        if (!server_needs(s, &s->u3, v)) continue;
        *of = v;
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
