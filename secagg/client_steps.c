/* What a site checks in A1..A4 and what it answers (docs/protocol.md, secagg/client.h). */
#include "secagg/client_int.h"

#include "crypto/wipe.h"

#include <stdlib.h>
#include <string.h>

/* A set of members that the round may go on with: large enough in sites and in organisations for
 * the configuration and for the site's own policy, this site among them. */
static dure_err check_set(const dure_secagg_client *c, const dure_members *set, const char *name,
                          dure_diag *diag)
{
    const dure_config *config = c->opts.config;
    size_t n = dure_members_count(set), organisations = dure_config_organisations(config, set);
    size_t least = config->threshold > c->least ? config->threshold : c->least;
    if (!dure_members_has(set, c->self)) {
        return dure_diag_set(diag, DURE_ERR_PROTO, "the coordinator left this site out of %s",
                             name);
    }
    if (n < least) {
        return dure_diag_set(diag, DURE_ERR_POLICY,
                             "%s has %zu sites; the threshold and the policy ask for %zu", name, n,
                             least);
    }
    if (organisations < c->least) {
        return dure_diag_set(diag, DURE_ERR_POLICY,
                             "%s has sites of %zu organisations; the policy asks for %u", name,
                             organisations, c->least);
    }
    return DURE_OK;
}

static dure_err bad_signature(const dure_secagg_client *c, uint32_t member, const char *step,
                              dure_diag *diag)
{
    return dure_diag_set(diag, DURE_ERR_AUTH, "the signature of %s on its %s does not verify",
                         c->opts.config->members[member].name, step);
}

static dure_err verify(const dure_secagg_client *c, uint32_t member, const char *label,
                       const dure_hash *digest, const uint8_t signature[DURE_SIGNATURE_BYTES])
{
    return dure_sign_verify(c->opts.config->members[member].sign_public, label,
                            dure_hash_span(digest), signature);
}

static dure_err foreign_member(uint32_t member, dure_diag *diag)
{
    return dure_diag_set(diag, DURE_ERR_PROTO, "member %u is not in this round", member);
}

/* ---- A1, R1 ---- */

static dure_err check_keys(dure_members *u1, const dure_secagg_client *c, const dure_msg_keys *msg,
                           dure_diag *diag)
{
    for (size_t i = 0; i < msg->n_entries; i++) {
        const dure_round_keys *k = &msg->entries[i];
        if (k->member >= c->opts.config->n_members) return foreign_member(k->member, diag);
        dure_hash digest;
        dure_err err = dure_secagg_digest_r0(&digest, client_who(c, k->member), k);
        if (!err) err = verify(c, k->member, DURE_SECAGG_LABEL_R0, &digest, k->signature);
        if (err) return bad_signature(c, k->member, "round keys", diag);
        for (size_t j = 0; j < i; j++) {
            if (dure_ct_equal(msg->entries[j].channel_public, k->channel_public, DURE_KEY_BYTES) ||
                dure_ct_equal(msg->entries[j].mask_public, k->mask_public, DURE_KEY_BYTES)) {
                return dure_diag_set(diag, DURE_ERR_PROTO, "two sites sent the same round key");
            }
        }
        if (k->kem.n != dure_hybrid_keys_bytes(c->opts.config)) {
            return dure_diag_set(diag, DURE_ERR_PROTO,
                                 "the round keys of %s are not those of the round's suite",
                                 c->opts.config->members[k->member].name);
        }
        if (k->member == c->self && !dure_hash_equal(&digest, &c->own_r0)) {
            return dure_diag_set(diag, DURE_ERR_AUTH, "the coordinator changed this site's keys");
        }
        dure_members_add(u1, k->member);
    }
    return check_set(c, u1, "U1", diag);
}

/* Shares b_u and m_u among all members of the configuration, so that a share's x is its owner's
 * number whoever is in U1. */
static dure_err make_shares(dure_share *self_shares, dure_share *mask_shares,
                            const dure_secagg_client *c)
{
    size_t n = c->opts.config->n_members, t = c->opts.config->threshold;
    dure_err err = dure_shamir_share(self_shares, n, t, c->secrets.b, &c->opts.rng);
    if (err) return err;
    return dure_shamir_share(mask_shares, n, t, c->secrets.mask.seed, &c->opts.rng);
}

typedef struct outbox {
    dure_share self_shares[DURE_MEMBERS_MAX], mask_shares[DURE_MEMBERS_MAX];
    uint8_t sealed[DURE_MEMBERS_MAX][DURE_SECAGG_SEALED_BYTES];
    uint8_t kem[DURE_MEMBERS_MAX][DURE_MSG_KEM_MAX]; /* hybrid suite */
    dure_buf wrapped;
    dure_sealed entries[DURE_MEMBERS_MAX];
    size_t n;
} outbox;

/* Hybrid suite: a secret for this direction's channel, and one for the mask if `to` is the higher
 * number. */
static dure_err encapsulate(uint8_t kem[DURE_MSG_KEM_MAX], uint8_t shared[DURE_KEM_SHARED_BYTES],
                            dure_secagg_client *c, uint32_t to)
{
    const uint8_t *keys = c->keys[to].kem.data;
    dure_err err = dure_kem_encapsulate(kem, shared, keys);
    if (err || to < c->self) return err;
    return dure_kem_encapsulate(kem + DURE_KEM_CIPHERTEXT_BYTES, c->secrets.kem[to],
                                keys + DURE_KEM_PUBLIC_BYTES);
}

static dure_err seal_for(outbox *box, dure_secagg_client *c, uint32_t to,
                         const dure_share_pair *pair, dure_diag *diag)
{
    const bool hybrid = dure_suite_is_hybrid(c->opts.config);
    const uint32_t from_to[2] = {c->self, to};
    const dure_span kem = {box->kem[to], dure_hybrid_sent_bytes(c->opts.config, c->self, to)};
    uint8_t key[DURE_SECAGG_KEY_BYTES] = {0}, shared[DURE_KEM_SHARED_BYTES] = {0};
    const dure_agreement between = {&c->secrets.channel.kx, c->keys[to].channel_public,
                                    hybrid ? shared : NULL};
    dure_err err = hybrid ? encapsulate(box->kem[to], shared, c, to) : DURE_OK;
    if (!err) err = dure_secagg_channel_key(key, &c->t1, &between, from_to);
    if (!err) err = dure_secagg_seal(box->sealed[to], key, &c->t1, from_to, kem, pair);
    dure_wipe(key, sizeof key);
    dure_wipe(shared, sizeof shared);
    if (err == DURE_ERR_AUTH) {
        dure_diag_set(diag, err, "the channel key of %s is not a valid point",
                      c->opts.config->members[to].name);
    }
    box->entries[box->n++] = (dure_sealed){to, {box->sealed[to], sizeof box->sealed[to]}, kem};
    return err;
}

/* Hybrid suite: what was encapsulated for masks, for who will have this site's mask seed. */
static dure_err wrap(outbox *box, const dure_secagg_client *c)
{
    dure_members lower = dure_members_first(c->self + 1);
    const dure_members higher = dure_members_minus(&c->u1, &lower);
    dure_buf_init(&box->wrapped, DURE_MSG_WRAPPED_MAX);
    if (!dure_suite_is_hybrid(c->opts.config)) return DURE_OK;
    return dure_hybrid_wrap(&box->wrapped, (const uint8_t(*)[DURE_KEM_SHARED_BYTES])c->secrets.kem,
                            &higher, &c->secrets.mask, &c->t1, c->self);
}

static dure_err fill_outbox(outbox *box, dure_secagg_client *c, dure_diag *diag)
{
    dure_err err = make_shares(box->self_shares, box->mask_shares, c);
    for (uint32_t v = 0; !err && v < c->opts.config->n_members; v++) {
        dure_share_pair pair = {box->self_shares[v], box->mask_shares[v]};
        if (v == c->self) {
            c->secrets.held[v] = pair;
        } else if (dure_members_has(&c->u1, v)) {
            err = seal_for(box, c, v, &pair, diag);
        }
        dure_wipe(&pair, sizeof pair);
    }
    return err ? err : wrap(box, c);
}

/* The keys of U1 outlive the message. */
static dure_err keep_keys(dure_secagg_client *c, const dure_msg_keys *msg)
{
    const size_t each = dure_hybrid_keys_bytes(c->opts.config);
    free(c->kem_keys);
    c->kem_keys = each ? calloc(msg->n_entries, each) : NULL;
    if (each && !c->kem_keys) return DURE_ERR_NOMEM;
    for (size_t i = 0; i < msg->n_entries; i++) {
        dure_round_keys *k = &c->keys[msg->entries[i].member];
        *k = msg->entries[i];
        if (!each) continue;
        memcpy(c->kem_keys + i * each, k->kem.data, each);
        k->kem.data = c->kem_keys + i * each;
    }
    return DURE_OK;
}

dure_err client_on_keys(dure_secagg_actions *actions, dure_secagg_client *c,
                        const dure_msg_keys *msg, dure_diag *diag)
{
    dure_members u1 = {{0}};
    dure_err err = check_keys(&u1, c, msg, diag);
    if (err) return err;
    outbox *box = calloc(1, sizeof *box);
    if (!box) return DURE_ERR_NOMEM;
    c->u1 = u1;
    dure_msg reply = {.type = DURE_MSG_SHARES};
    dure_msg_shares *r1 = &reply.u.shares;
    memcpy(r1->config_hash, c->opts.config_hash.b, DURE_DIGEST_BYTES);
    err = keep_keys(c, msg);
    if (!err) err = dure_secagg_t1(&c->t1, &c->opts.config_hash, msg->entries, msg->n_entries);
    if (!err) err = fill_outbox(box, c, diag);
    if (err) goto out;
    r1->entries = box->entries;
    r1->n_entries = box->n;
    r1->wrapped = dure_buf_span(&box->wrapped);
    err = dure_secagg_digest_r1(&c->own_r1, &c->t1, c->self, r1);
    if (!err) {
        err = dure_sign(r1->signature, c->opts.sign, DURE_SECAGG_LABEL_R1,
                        dure_hash_span(&c->own_r1));
    }
    if (!err) err = client_reply(actions, c, 1, &reply, diag);
    if (!err) c->stage = DURE_STAGE_SHARED;
out:
    dure_buf_fini(&box->wrapped);
    dure_wipe(box, sizeof *box);
    free(box);
    return err;
}

/* ---- A2 ---- */

static dure_err open_from(dure_share_pair *pair, dure_secagg_client *c, const dure_forwarded *from)
{
    const bool hybrid = dure_suite_is_hybrid(c->opts.config);
    const uint32_t from_to[2] = {from->member, c->self};
    uint8_t key[DURE_SECAGG_KEY_BYTES] = {0}, shared[DURE_KEM_SHARED_BYTES] = {0};
    const dure_agreement between = {&c->secrets.channel.kx, c->keys[from->member].channel_public,
                                    hybrid ? shared : NULL};
    if (from->kem.n != dure_hybrid_sent_bytes(c->opts.config, from->member, c->self))
        return DURE_ERR_PROTO;
    dure_err err = DURE_OK;
    if (hybrid) err = dure_kem_decapsulate(shared, from->kem.data, c->secrets.channel.kem);
    if (!err) err = dure_secagg_channel_key(key, &c->t1, &between, from_to);
    if (!err) err = dure_secagg_open(pair, key, &c->t1, from_to, from->kem, from->sealed);
    if (!err && hybrid && from->member < c->self) {
        err = dure_kem_decapsulate(c->secrets.kem[from->member],
                                   from->kem.data + DURE_KEM_CIPHERTEXT_BYTES, c->secrets.mask.kem);
    }
    dure_wipe(key, sizeof key);
    dure_wipe(shared, sizeof shared);
    return err;
}

static dure_err check_forwarded(dure_share_pair *pair, dure_secagg_client *c,
                                const dure_forwarded *from, dure_diag *diag)
{
    uint32_t v = from->member;
    if (v >= c->opts.config->n_members || !dure_members_has(&c->u1, v)) {
        return dure_diag_set(diag, DURE_ERR_PROTO, "U2 has member %u, who is not in U1", v);
    }
    dure_hash r1;
    memcpy(r1.b, from->r1_hash, sizeof r1.b);
    if (verify(c, v, DURE_SECAGG_LABEL_R1, &r1, from->signature)) {
        return bad_signature(c, v, "shares", diag);
    }
    if (v == c->self) {
        if (from->sealed.n || !dure_hash_equal(&r1, &c->own_r1)) {
            return dure_diag_set(diag, DURE_ERR_AUTH, "the coordinator changed this site's shares");
        }
        *pair = c->secrets.held[v];
        return DURE_OK;
    }
    dure_err err = open_from(pair, c, from);
    if (err) {
        dure_diag_set(diag, err, "the shares from %s do not open: it or the coordinator is lying",
                      c->opts.config->members[v].name);
    }
    return err;
}

dure_err client_on_shares(dure_secagg_actions *actions, dure_secagg_client *c,
                          const dure_msg_shares_for *msg, dure_diag *diag)
{
    dure_members u2 = {{0}};
    dure_hash r1[DURE_MEMBERS_MAX];
    dure_err err = DURE_OK;
    for (size_t i = 0; !err && i < msg->n_entries; i++) {
        const dure_forwarded *from = &msg->entries[i];
        dure_share_pair pair;
        err = check_forwarded(&pair, c, from, diag);
        if (err) break;
        c->secrets.held[from->member] = pair;
        dure_wipe(&pair, sizeof pair);
        memcpy(r1[from->member].b, from->r1_hash, sizeof r1[0].b);
        dure_members_add(&u2, from->member);
    }
    if (!err) err = check_set(c, &u2, "U2", diag);
    if (!err) err = dure_secagg_t2(&c->t2, &c->t1, &u2, r1);
    if (!err)
        err = dure_secagg_actions_add(actions, &(dure_secagg_action){.kind = DURE_SECAGG_MASK});
    if (err) return err;
    c->u2 = u2;
    c->stage = DURE_STAGE_TRAINING;
    return DURE_OK;
}

/* ---- A3, R3 ---- */

static dure_err check_survivors(dure_members *u3, const dure_secagg_client *c,
                                const dure_msg_survivors *msg, dure_diag *diag)
{
    for (size_t i = 0; i < msg->n_entries; i++) {
        const dure_survivor *s = &msg->entries[i];
        if (s->member >= c->opts.config->n_members || !dure_members_has(&c->u2, s->member)) {
            return dure_diag_set(diag, DURE_ERR_PROTO, "U3 has member %u, who is not in U2",
                                 s->member);
        }
        dure_hash root, digest;
        memcpy(root.b, s->root, sizeof root.b);
        if (s->member == c->self && !dure_hash_equal(&root, &c->root)) {
            return dure_diag_set(diag, DURE_ERR_AUTH, "the coordinator changed this site's vector");
        }
        dure_err err = dure_secagg_digest_r2(&digest, client_who(c, s->member), &c->t2, &root);
        if (!err) err = verify(c, s->member, DURE_SECAGG_LABEL_R2, &digest, s->signature);
        if (err) return bad_signature(c, s->member, "masked vector", diag);
        dure_members_add(u3, s->member);
    }
    return check_set(c, u3, "U3", diag);
}

/* What is synced before R3 leaves: this round, and the only T3 that this site signs in it. */
static dure_err persist_r3(dure_secagg_actions *actions, const dure_secagg_client *c)
{
    dure_buf record;
    dure_buf_init(&record, 64);
    dure_put_u64(&record, c->opts.config->round);
    dure_put_raw(&record, c->t3.b, sizeof c->t3.b);
    dure_err err = dure_buf_err(&record);
    if (!err) {
        err = dure_secagg_actions_add(actions,
                                      &(dure_secagg_action){.kind = DURE_SECAGG_PERSIST,
                                                            .record = DURE_SECAGG_RECORD_R3,
                                                            .bytes = dure_buf_span(&record)});
    }
    dure_buf_fini(&record);
    return err;
}

dure_err client_on_survivors(dure_secagg_actions *actions, dure_secagg_client *c,
                             const dure_msg_survivors *msg, dure_diag *diag)
{
    dure_members u3 = {{0}};
    dure_err err = check_survivors(&u3, c, msg, diag);
    if (err) return err;
    c->u3 = u3;
    dure_hash digest;
    dure_msg reply = {.type = DURE_MSG_CONSISTENCY};
    err = dure_secagg_t3(&c->t3, &c->t2, msg->entries, msg->n_entries);
    if (!err) err = dure_secagg_digest_r3(&digest, client_who(c, c->self), &c->t3);
    if (!err) {
        err = dure_sign(reply.u.consistency.signature, c->opts.sign, DURE_SECAGG_LABEL_R3,
                        dure_hash_span(&digest));
    }
    if (!err) err = persist_r3(actions, c);
    if (err) return err;
    memcpy(reply.u.consistency.config_hash, c->opts.config_hash.b, DURE_DIGEST_BYTES);
    memcpy(reply.u.consistency.t3, c->t3.b, DURE_DIGEST_BYTES);
    err = client_reply(actions, c, 3, &reply, diag);
    if (!err) c->stage = DURE_STAGE_CONSISTENT;
    return err;
}

/* ---- A4, R4 ---- */

static dure_err check_signatures(const dure_secagg_client *c, const dure_msg_signatures *msg,
                                 dure_diag *diag)
{
    dure_hash t3;
    memcpy(t3.b, msg->t3, sizeof t3.b);
    if (!dure_hash_equal(&t3, &c->t3)) {
        return dure_diag_set(diag, DURE_ERR_AUTH,
                             "the coordinator showed other sites another set of survivors");
    }
    for (size_t i = 0; i < msg->n_entries; i++) {
        const dure_attested *a = &msg->entries[i];
        if (!dure_members_has(&c->u3, a->member)) return foreign_member(a->member, diag);
        dure_hash digest;
        dure_err err = dure_secagg_digest_r3(&digest, client_who(c, a->member), &c->t3);
        if (!err) err = verify(c, a->member, DURE_SECAGG_LABEL_R3, &digest, a->signature);
        if (err) return bad_signature(c, a->member, "set of survivors", diag);
    }
    const dure_config *config = c->opts.config;
    if (msg->n_entries < config->threshold ||
        2 * msg->n_entries <= (size_t)config->n_members + c->collusion) {
        return dure_diag_set(diag, DURE_ERR_AUTH,
                             "only %zu sites signed the set of survivors, which is no quorum",
                             msg->n_entries);
    }
    return DURE_OK;
}

/* One share for every member of U2, chosen by U3 alone: never both of one member. */
static size_t reveal(dure_revealed *out, const dure_secagg_client *c)
{
    size_t n = 0;
    for (uint32_t v = 0; v < c->opts.config->n_members; v++) {
        if (!dure_members_has(&c->u2, v)) continue;
        bool survived = dure_members_has(&c->u3, v);
        out[n].member = v;
        out[n].kind = survived ? DURE_SHARE_SELF : DURE_SHARE_MASK;
        const dure_share_pair *held = &c->secrets.held[v];
        dure_share_encode(out[n++].share, survived ? &held->self : &held->mask);
    }
    return n;
}

dure_err client_on_signatures(dure_secagg_actions *actions, dure_secagg_client *c,
                              const dure_msg_signatures *msg, dure_diag *diag)
{
    dure_err err = check_signatures(c, msg, diag);
    if (err) return err;
    dure_revealed *revealed = calloc(DURE_MEMBERS_MAX, sizeof *revealed);
    if (!revealed) return DURE_ERR_NOMEM;
    dure_msg reply = {.type = DURE_MSG_UNMASK};
    dure_msg_unmask *unmask = &reply.u.unmask;
    memcpy(unmask->config_hash, c->opts.config_hash.b, DURE_DIGEST_BYTES);
    memcpy(unmask->t3, c->t3.b, DURE_DIGEST_BYTES);
    unmask->entries = revealed;
    unmask->n_entries = reveal(revealed, c);
    dure_hash digest;
    err =
        dure_secagg_digest_r4(&digest, client_who(c, c->self), &c->t3, revealed, unmask->n_entries);
    if (!err) {
        err = dure_sign(unmask->signature, c->opts.sign, DURE_SECAGG_LABEL_R4,
                        dure_hash_span(&digest));
    }
    if (!err) err = client_reply(actions, c, 4, &reply, diag);
    if (err) goto out;
    c->stage = DURE_STAGE_UNMASKED;
    client_forget(c);
out:
    dure_wipe(revealed, DURE_MEMBERS_MAX * sizeof *revealed);
    free(revealed);
    return err;
}
