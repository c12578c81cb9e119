/* What a site checks in A1..A4 and what it answers (docs/protocol.md, secagg/client.h). */
#include "secagg/client_int.h"

#include "crypto/wipe.h"

#include <stdlib.h>
#include <string.h>

/* A set of members that the round may go on with: large enough in sites and in organisations for
 * the configuration and for the site's own policy, this site and enough holders of its shares among
 * them, and in one piece. */
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
    const size_t holders = dure_graph_holders(&c->graph, c->self, set);
    if (holders < config->threshold) {
        return dure_diag_set(diag, DURE_ERR_POLICY,
                             "%s has %zu of the sites that hold this one's shares; the threshold "
                             "asks for %u",
                             name, holders, config->threshold);
    }
    if (dure_graph_separable(&c->graph, set, c->run_colluders)) {
        return dure_diag_set(diag, DURE_ERR_POLICY,
                             "%s leaves the ring open in two places: its sum could be taken apart",
                             name);
    }
    return DURE_OK;
}

/* The set that an A names. */
static dure_err take_set(dure_members *out, const dure_secagg_client *c, dure_span members,
                         dure_diag *diag)
{
    if (!dure_members_take(out, members, c->opts.config->n_members)) return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_PROTO, "a set of members is malformed");
}

static dure_err check_within(const dure_members *set, const char *name, const dure_members *before,
                             const char *name_before, dure_diag *diag)
{
    const dure_members more = dure_members_minus(set, before);
    for (uint32_t v = 0; v < DURE_ROUND_MEMBERS_MAX; v++) {
        if (!dure_members_has(&more, v)) continue;
        return dure_diag_set(diag, DURE_ERR_PROTO, "%s has member %u, who is not in %s", name, v,
                             name_before);
    }
    return DURE_OK;
}

/* Whose entries an A must have: those of the set that are near. `named` are those that it has. */
static dure_err check_named(const dure_secagg_client *c, const dure_members *set,
                            const dure_members *named, const char *name, dure_diag *diag)
{
    const dure_members near = dure_members_both(&c->near, set);
    if (dure_members_equal(&near, named)) return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_PROTO,
                         "the entries of %s are not those of this site and its neighbours", name);
}

/* The root of a set's roll from the leaves of this site and its neighbours. */
static dure_err roll_root(dure_hash *root, const dure_roll_view *view,
                          const uint8_t (*proof)[DURE_DIGEST_BYTES], size_t n_proof,
                          dure_diag *diag)
{
    dure_err err = dure_roll_root(root, view, proof, n_proof);
    if (err != DURE_ERR_PROTO) return err;
    return dure_diag_set(diag, err,
                         "what stands for the other sites' entries does not fit the set");
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

/* One entry of A1, but for its being the only one with its keys. */
static dure_err check_key(dure_hash *leaf, const dure_secagg_client *c, const dure_round_keys *k,
                          dure_diag *diag)
{
    if (k->member >= c->opts.config->n_members) return foreign_member(k->member, diag);
    dure_hash digest;
    dure_err err = dure_secagg_digest_r0(&digest, client_who(c, k->member), k);
    if (!err) err = verify(c, k->member, DURE_SECAGG_LABEL_R0, &digest, k->signature);
    if (err) return bad_signature(c, k->member, "round keys", diag);
    if (k->kem.n != dure_hybrid_keys_bytes(c->opts.config)) {
        return dure_diag_set(diag, DURE_ERR_PROTO,
                             "the round keys of %s are not those of the round's suite",
                             c->opts.config->members[k->member].name);
    }
    if (k->member == c->self && !dure_hash_equal(&digest, &c->own_r0)) {
        return dure_diag_set(diag, DURE_ERR_AUTH, "the coordinator changed this site's keys");
    }
    const char *which = NULL;
    err = dure_hybrid_check_keys(&which, c->opts.config, k);
    if (err) {
        return dure_diag_set(diag, err, "the %s of %s is not a valid one", which,
                             c->opts.config->members[k->member].name);
    }
    return dure_secagg_leaf_r0(leaf, k);
}

static dure_err check_keys(dure_hash *leaves, const dure_secagg_client *c, const dure_members *u1,
                           const dure_msg_keys *msg, dure_diag *diag)
{
    dure_members named = {{0}};
    for (size_t i = 0; i < msg->n_entries; i++) {
        const dure_round_keys *k = &msg->entries[i];
        dure_err err = check_key(&leaves[i], c, k, diag);
        if (err) return err;
        for (size_t j = 0; j < i; j++) {
            if (dure_ct_equal(msg->entries[j].channel_public, k->channel_public, DURE_KEY_BYTES) ||
                dure_ct_equal(msg->entries[j].mask_public, k->mask_public, DURE_KEY_BYTES)) {
                return dure_diag_set(diag, DURE_ERR_PROTO, "two sites sent the same round key");
            }
        }
        dure_members_add(&named, k->member);
    }
    dure_err err = check_set(c, u1, "U1", diag);
    return err ? err : check_named(c, u1, &named, "A1", diag);
}

/* The order of the ring, now that the beacon has spoken, and with it this site's neighbours. */
static dure_err find_neighbours(dure_secagg_client *c, dure_span beacon, dure_diag *diag)
{
    dure_err err = dure_graph_make(&c->graph, c->opts.config, beacon);
    if (err == DURE_ERR_AUTH) {
        return dure_diag_set(diag, err,
                             "the order of the sites does not come from the round's beacon");
    }
    if (!err) c->near = dure_graph_near(&c->graph, c->self);
    return err;
}

/* Shares b_u and m_u among this site and its neighbours. A share's x is its owner's number and one,
 * whoever is in U1. */
static dure_err make_shares(dure_share *self_shares, dure_share *mask_shares,
                            const dure_secagg_client *c)
{
    uint32_t xs[DURE_NEAR_MAX];
    size_t n = 0, t = c->opts.config->threshold;
    for (uint32_t v = 0; v < c->opts.config->n_members && n < DURE_NEAR_MAX; v++) {
        if (dure_members_has(&c->near, v)) xs[n++] = v + 1;
    }
    dure_err err = dure_shamir_share(self_shares, xs, n, t, c->secrets.b, &c->opts.rng);
    if (err) return err;
    return dure_shamir_share(mask_shares, xs, n, t, c->secrets.mask.seed, &c->opts.rng);
}

/* Each by rank in `near`. */
typedef struct outbox {
    dure_share self_shares[DURE_NEAR_MAX], mask_shares[DURE_NEAR_MAX];
    uint8_t sealed[DURE_NEAR_MAX][DURE_SECAGG_SEALED_BYTES];
    uint8_t kem[DURE_NEAR_MAX][DURE_MSG_KEM_MAX]; /* hybrid suite */
    dure_buf wrapped;
    dure_sealed entries[DURE_NEAR_MAX]; /* one after the other */
    size_t n;
} outbox;

/* Hybrid suite: a secret for this direction's channel, and one for the mask if `to` is the higher
 * number. */
static dure_err encapsulate(uint8_t kem[DURE_MSG_KEM_MAX], uint8_t shared[DURE_KEM_SHARED_BYTES],
                            dure_secagg_client *c, uint32_t to)
{
    const size_t at = client_rank(c, to);
    const uint8_t *keys = c->keys[at].kem.data;
    dure_err err = dure_kem_encapsulate(kem, shared, keys);
    if (err || to < c->self) return err;
    return dure_kem_encapsulate(kem + DURE_KEM_CIPHERTEXT_BYTES, c->secrets.kem[at],
                                keys + DURE_KEM_PUBLIC_BYTES);
}

static dure_err seal_for(outbox *box, dure_secagg_client *c, uint32_t to,
                         const dure_share_pair *pair, dure_diag *diag)
{
    const bool hybrid = dure_suite_is_hybrid(c->opts.config);
    const size_t at = client_rank(c, to);
    const uint32_t from_to[2] = {c->self, to};
    const dure_span kem = {box->kem[at], dure_hybrid_sent_bytes(c->opts.config, c->self, to)};
    uint8_t key[DURE_SECAGG_KEY_BYTES] = {0}, shared[DURE_KEM_SHARED_BYTES] = {0};
    const dure_agreement between = {&c->secrets.channel.kx, c->keys[at].channel_public,
                                    hybrid ? shared : NULL};
    dure_err err = hybrid ? encapsulate(box->kem[at], shared, c, to) : DURE_OK;
    if (!err) err = dure_secagg_channel_key(key, &c->t1, &between, from_to);
    if (!err) err = dure_secagg_seal(box->sealed[at], key, &c->t1, from_to, kem, pair);
    dure_wipe(key, sizeof key);
    dure_wipe(shared, sizeof shared);
    if (err == DURE_ERR_AUTH) {
        dure_diag_set(diag, err, "the channel key of %s is not a valid point",
                      c->opts.config->members[to].name);
    }
    box->entries[box->n++] = (dure_sealed){to, {box->sealed[at], sizeof box->sealed[at]}, kem};
    return err;
}

/* Hybrid suite: what was encapsulated for masks, for who will have this site's mask seed. */
static dure_err wrap(outbox *box, const dure_secagg_client *c, const dure_members *with)
{
    const dure_members lower = dure_members_first(c->self + 1);
    const dure_members higher = dure_members_minus(with, &lower);
    const dure_hybrid_masks masks = {c->self, &c->near, &higher, c->secrets.kem};
    dure_buf_init(&box->wrapped, DURE_MSG_WRAPPED_MAX);
    if (!dure_suite_is_hybrid(c->opts.config)) return DURE_OK;
    return dure_hybrid_wrap(&box->wrapped, &masks, &c->secrets.mask, &c->t1);
}

static dure_err fill_outbox(outbox *box, dure_secagg_client *c, dure_diag *diag)
{
    const dure_members with = dure_members_both(&c->near, &c->u1);
    dure_err err = make_shares(box->self_shares, box->mask_shares, c);
    for (uint32_t v = 0; !err && v < c->opts.config->n_members; v++) {
        if (!dure_members_has(&with, v)) continue;
        const size_t at = client_rank(c, v);
        dure_share_pair pair = {box->self_shares[at], box->mask_shares[at]};
        if (v == c->self) {
            c->secrets.held[at] = pair;
        } else {
            err = seal_for(box, c, v, &pair, diag);
        }
        dure_wipe(&pair, sizeof pair);
    }
    return err ? err : wrap(box, c, &with);
}

/* The keys of U1 outlive the message. */
static dure_err keep_keys(dure_secagg_client *c, const dure_msg_keys *msg)
{
    const size_t each = dure_hybrid_keys_bytes(c->opts.config);
    free(c->kem_keys);
    c->kem_keys = each ? calloc(msg->n_entries, each) : NULL;
    if (each && !c->kem_keys) return DURE_ERR_NOMEM;
    for (size_t i = 0; i < msg->n_entries; i++) {
        dure_round_keys *k = &c->keys[client_rank(c, msg->entries[i].member)];
        *k = msg->entries[i];
        if (!each) continue;
        memcpy(c->kem_keys + i * each, k->kem.data, each);
        k->kem.data = c->kem_keys + i * each;
    }
    return DURE_OK;
}

/* Everything in A1 is right: U1 and T1 follow. */
static dure_err take_keys(dure_secagg_client *c, const dure_msg_keys *msg, dure_diag *diag)
{
    dure_hash leaves[DURE_NEAR_MAX], root;
    dure_members u1;
    dure_err err = take_set(&u1, c, msg->members, diag);
    if (!err) err = find_neighbours(c, msg->beacon, diag);
    if (!err) err = check_keys(leaves, c, &u1, msg, diag);
    if (err) return err;
    const dure_members near = dure_members_both(&c->near, &u1);
    const dure_roll_view view = {&c->graph, &u1, &near, leaves};
    err = roll_root(&root, &view, msg->proof, msg->n_proof, diag);
    if (err) return err;
    c->u1 = u1;
    const dure_secagg_set set = {&c->u1, c->graph.n, &root};
    err = dure_secagg_t1(&c->t1, &c->opts.config_hash, msg->beacon, &set);
    return err ? err : keep_keys(c, msg);
}

dure_err client_on_keys(dure_secagg_actions *actions, dure_secagg_client *c,
                        const dure_msg_keys *msg, dure_diag *diag)
{
    dure_err err = take_keys(c, msg, diag);
    if (err) return err;
    outbox *box = calloc(1, sizeof *box);
    if (!box) return DURE_ERR_NOMEM;
    dure_msg reply = {.type = DURE_MSG_SHARES};
    dure_msg_shares *r1 = &reply.u.shares;
    memcpy(r1->config_hash, c->opts.config_hash.b, DURE_DIGEST_BYTES);
    err = fill_outbox(box, c, diag);
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
    const size_t at = client_rank(c, from->member);
    const uint32_t from_to[2] = {from->member, c->self};
    uint8_t key[DURE_SECAGG_KEY_BYTES] = {0}, shared[DURE_KEM_SHARED_BYTES] = {0};
    const dure_agreement between = {&c->secrets.channel.kx, c->keys[at].channel_public,
                                    hybrid ? shared : NULL};
    if (from->kem.n != dure_hybrid_sent_bytes(c->opts.config, from->member, c->self))
        return DURE_ERR_PROTO;
    dure_err err = DURE_OK;
    if (hybrid) err = dure_kem_decapsulate(shared, from->kem.data, c->secrets.channel.kem);
    if (!err) err = dure_secagg_channel_key(key, &c->t1, &between, from_to);
    if (!err) err = dure_secagg_open(pair, key, &c->t1, from_to, from->kem, from->sealed);
    if (!err && hybrid && from->member < c->self) {
        err = dure_kem_decapsulate(c->secrets.kem[at], from->kem.data + DURE_KEM_CIPHERTEXT_BYTES,
                                   c->secrets.mask.kem);
    }
    dure_wipe(key, sizeof key);
    dure_wipe(shared, sizeof shared);
    return err;
}

static dure_err check_forwarded(dure_share_pair *pair, dure_secagg_client *c,
                                const dure_forwarded *from, dure_diag *diag)
{
    uint32_t v = from->member;
    dure_hash r1;
    memcpy(r1.b, from->r1_hash, sizeof r1.b);
    if (verify(c, v, DURE_SECAGG_LABEL_R1, &r1, from->signature)) {
        return bad_signature(c, v, "shares", diag);
    }
    if (v == c->self) {
        if (from->sealed.n || !dure_hash_equal(&r1, &c->own_r1)) {
            return dure_diag_set(diag, DURE_ERR_AUTH, "the coordinator changed this site's shares");
        }
        return DURE_OK; /* they never left it */
    }
    dure_err err = open_from(pair, c, from);
    if (err) {
        dure_diag_set(diag, err, "the shares from %s do not open: it or the coordinator is lying",
                      c->opts.config->members[v].name);
    }
    return err;
}

/* U2 is within U1, and large enough. */
static dure_err check_sharers(dure_members *u2, const dure_secagg_client *c,
                              const dure_msg_shares_for *msg, dure_diag *diag)
{
    dure_members named = {{0}};
    dure_err err = take_set(u2, c, msg->members, diag);
    if (err) return err;
    err = check_within(u2, "U2", &c->u1, "U1", diag);
    if (err) return err;
    for (size_t i = 0; i < msg->n_entries; i++) {
        dure_members_add(&named, msg->entries[i].member);
    }
    err = check_set(c, u2, "U2", diag);
    return err ? err : check_named(c, u2, &named, "A2", diag);
}

dure_err client_on_shares(dure_secagg_actions *actions, dure_secagg_client *c,
                          const dure_msg_shares_for *msg, dure_diag *diag)
{
    dure_hash leaves[DURE_NEAR_MAX], root;
    dure_members u2;
    dure_err err = check_sharers(&u2, c, msg, diag);
    for (size_t i = 0; !err && i < msg->n_entries; i++) {
        const dure_forwarded *from = &msg->entries[i];
        dure_share_pair *pair = &c->secrets.held[client_rank(c, from->member)];
        err = check_forwarded(pair, c, from, diag);
        if (!err) err = dure_secagg_leaf_r1(&leaves[i], from->member, from->r1_hash);
    }
    if (err) return err;
    const dure_members near = dure_members_both(&c->near, &u2);
    const dure_roll_view view = {&c->graph, &u2, &near, leaves};
    const dure_secagg_set set = {&u2, c->graph.n, &root};
    err = roll_root(&root, &view, msg->proof, msg->n_proof, diag);
    if (!err) err = dure_secagg_t2(&c->t2, &c->t1, &set);
    if (!err)
        err = dure_secagg_actions_add(actions, &(dure_secagg_action){.kind = DURE_SECAGG_MASK});
    if (err) return err;
    c->u2 = u2;
    c->stage = DURE_STAGE_TRAINING;
    return DURE_OK;
}

/* ---- A3, R3 ---- */

static dure_err check_survivor(dure_hash *leaf, const dure_secagg_client *c, const dure_survivor *s,
                               dure_diag *diag)
{
    if (s->member >= c->opts.config->n_members) return foreign_member(s->member, diag);
    dure_hash root, digest;
    memcpy(root.b, s->root, sizeof root.b);
    if (s->member == c->self && !dure_hash_equal(&root, &c->root)) {
        return dure_diag_set(diag, DURE_ERR_AUTH, "the coordinator changed this site's vector");
    }
    dure_err err = dure_secagg_digest_r2(&digest, client_who(c, s->member), &c->t2, &root);
    if (!err) err = verify(c, s->member, DURE_SECAGG_LABEL_R2, &digest, s->signature);
    if (err) return bad_signature(c, s->member, "masked vector", diag);
    return dure_secagg_leaf_r2(leaf, s->member, s->root);
}

static dure_err check_survivors(dure_members *u3, dure_hash *leaves, const dure_secagg_client *c,
                                const dure_msg_survivors *msg, dure_diag *diag)
{
    dure_members named = {{0}};
    dure_err err = take_set(u3, c, msg->members, diag);
    if (!err) err = check_within(u3, "U3", &c->u2, "U2", diag);
    for (size_t i = 0; !err && i < msg->n_entries; i++) {
        dure_members_add(&named, msg->entries[i].member);
        err = check_survivor(&leaves[i], c, &msg->entries[i], diag);
    }
    if (!err) err = check_set(c, u3, "U3", diag);
    return err ? err : check_named(c, u3, &named, "A3", diag);
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

/* Everything in A3 is right: U3 and T3 follow. */
static dure_err take_survivors(dure_secagg_client *c, const dure_msg_survivors *msg,
                               dure_diag *diag)
{
    dure_hash leaves[DURE_NEAR_MAX], root;
    dure_members u3;
    dure_err err = check_survivors(&u3, leaves, c, msg, diag);
    if (err) return err;
    const dure_members near = dure_members_both(&c->near, &u3);
    const dure_roll_view view = {&c->graph, &u3, &near, leaves};
    const dure_secagg_set set = {&u3, c->graph.n, &root};
    err = roll_root(&root, &view, msg->proof, msg->n_proof, diag);
    if (err) return err;
    c->u3 = u3;
    return dure_secagg_t3(&c->t3, &c->t2, &set);
}

dure_err client_on_survivors(dure_secagg_actions *actions, dure_secagg_client *c,
                             const dure_msg_survivors *msg, dure_diag *diag)
{
    dure_err err = take_survivors(c, msg, diag);
    if (err) return err;
    dure_hash digest;
    dure_msg reply = {.type = DURE_MSG_CONSISTENCY};
    err = dure_secagg_digest_r3(&digest, client_who(c, c->self), &c->t3);
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

/* One share for every neighbour in U2 and this site, chosen by U3 alone: never both of one member.
 */
static size_t reveal(dure_revealed *out, const dure_secagg_client *c)
{
    const dure_members about = dure_members_both(&c->near, &c->u2);
    size_t n = 0;
    for (uint32_t v = 0; v < c->opts.config->n_members; v++) {
        if (!dure_members_has(&about, v)) continue;
        bool survived = dure_members_has(&c->u3, v);
        out[n].member = v;
        out[n].kind = survived ? DURE_SHARE_SELF : DURE_SHARE_MASK;
        const dure_share_pair *held = &c->secrets.held[client_rank(c, v)];
        dure_share_encode(out[n++].share, survived ? &held->self : &held->mask);
    }
    return n;
}

dure_err client_on_signatures(dure_secagg_actions *actions, dure_secagg_client *c,
                              const dure_msg_signatures *msg, dure_diag *diag)
{
    dure_err err = check_signatures(c, msg, diag);
    if (err) return err;
    dure_revealed *revealed = calloc(DURE_NEAR_MAX, sizeof *revealed);
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
    dure_wipe(revealed, DURE_NEAR_MAX * sizeof *revealed);
    free(revealed);
    return err;
}
