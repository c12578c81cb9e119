/* What the server checks in R0..R4, and the frames A1..A4 that it makes of them. */
#include "secagg/server_int.h"

#include "crypto/wipe.h"

#include <string.h>

#define FRAME_MAX (320u * 1024)

dure_secagg_who server_who(const dure_secagg_server *s, uint32_t member)
{
    return (dure_secagg_who){&s->opts.config_hash, member};
}

size_t server_quorum(const dure_secagg_server *s)
{
    const dure_config *config = s->opts.config;
    size_t least = (config->n_members + config->collusion) / 2 + 1;
    return least > config->threshold ? least : config->threshold;
}

static dure_err verify(const dure_secagg_server *s, uint32_t member, const char *label,
                       const dure_hash *digest, const uint8_t signature[DURE_SIGNATURE_BYTES],
                       dure_diag *diag)
{
    dure_err err = dure_sign_verify(s->opts.config->members[member].sign_public, label,
                                    dure_hash_span(digest), signature);
    if (err) dure_diag_set(diag, err, "its signature does not verify");
    return err;
}

/* Until A1 is made a site may replace its keys: one that restarted has new ones. */
static dure_err take_r0(dure_secagg_server *s, uint32_t member, const dure_msg_advertise *msg,
                        dure_diag *diag)
{
    const size_t kem_bytes = dure_hybrid_keys_bytes(s->opts.config);
    dure_hash digest;
    if (msg->keys.kem.n != kem_bytes) {
        return dure_diag_set(diag, DURE_ERR_PROTO, "its keys are not those of the round's suite");
    }
    dure_err err = dure_secagg_digest_r0(&digest, server_who(s, member), &msg->keys);
    if (!err) err = verify(s, member, DURE_SECAGG_LABEL_R0, &digest, msg->keys.signature, diag);
    if (err) return err;
    const char *which = NULL;
    err = dure_hybrid_check_keys(&which, s->opts.config, &msg->keys);
    if (err == DURE_ERR_AUTH) return dure_diag_set(diag, err, "its %s is not a valid one", which);
    if (err) return err;
    server_member *m = &s->members[member];
    m->keys = msg->keys;
    m->keys.member = member;
    if (kem_bytes) {
        uint8_t *own = s->kem_keys + member * kem_bytes;
        memcpy(own, msg->keys.kem.data, kem_bytes);
        m->keys.kem.data = own;
    }
    return DURE_OK;
}

/* A deep copy, since R1 and R4 outlive the message they came in. */
static dure_err keep(dure_msg **out, const dure_msg *msg)
{
    dure_buf frame;
    dure_buf_init(&frame, FRAME_MAX);
    dure_err err = dure_msg_encode(&frame, msg, NULL);
    if (!err) err = dure_msg_decode(out, dure_buf_span(&frame), NULL);
    dure_buf_fini(&frame);
    return err;
}

/* A member and its neighbours, as far as they are in the set. */
static dure_members near_in(const dure_secagg_server *s, uint32_t member, const dure_members *set)
{
    const dure_members near = dure_graph_near(&s->graph, member);
    return dure_members_both(&near, set);
}

/* Every part of R1 has the length that the suite gives it. */
static bool is_of_suite(const dure_secagg_server *s, uint32_t member, const dure_msg_shares *r1)
{
    const dure_config *config = s->opts.config;
    const dure_members lower = dure_members_first(member + 1), with = near_in(s, member, &s->u1);
    const dure_members higher = dure_members_minus(&with, &lower);
    for (size_t i = 0; i < r1->n_entries; i++) {
        const dure_sealed *e = &r1->entries[i];
        if (e->kem.n != dure_hybrid_sent_bytes(config, member, e->member)) return false;
    }
    return r1->wrapped.n == dure_hybrid_wrapped_bytes(config, dure_members_count(&higher));
}

static dure_err take_r1(dure_secagg_server *s, uint32_t member, const dure_msg *msg,
                        dure_diag *diag)
{
    const dure_msg_shares *r1 = &msg->u.shares;
    dure_members to = {{0}}, own = {{0}};
    server_member *m = &s->members[member];
    dure_members_add(&own, member);
    const dure_members near = near_in(s, member, &s->u1);
    const dure_members others = dure_members_minus(&near, &own);
    for (size_t i = 0; i < r1->n_entries; i++) {
        dure_members_add(&to, r1->entries[i].member);
    }
    if (!dure_members_equal(&to, &others)) {
        return dure_diag_set(diag, DURE_ERR_PROTO,
                             "its shares are not for exactly its neighbours in U1");
    }
    if (!is_of_suite(s, member, r1)) {
        return dure_diag_set(diag, DURE_ERR_PROTO, "its shares are not those of the round's suite");
    }
    dure_hash digest;
    dure_err err = dure_secagg_digest_r1(&digest, &s->t1, member, r1);
    if (!err) err = verify(s, member, DURE_SECAGG_LABEL_R1, &digest, r1->signature, diag);
    if (err) return err;
    if (m->r1) {
        if (dure_hash_equal(&digest, &m->r1_hash)) return DURE_OK;
        return dure_diag_set(diag, DURE_ERR_PROTO, "it sent two different sets of shares");
    }
    m->r1_hash = digest;
    return keep(&m->r1, msg);
}

static dure_err take_r2(dure_secagg_server *s, uint32_t member, const dure_msg_masked *msg,
                        const dure_hash *root, dure_diag *diag)
{
    dure_hash claimed, digest;
    memcpy(claimed.b, msg->root, sizeof claimed.b);
    if (!root) return dure_diag_set(diag, DURE_ERR_STATE, "its vector is not complete yet");
    if (!dure_ct_equal(msg->t2, s->t2.b, DURE_DIGEST_BYTES)) {
        return dure_diag_set(diag, DURE_ERR_PROTO, "it masked for another set of sites");
    }
    if (!dure_hash_equal(&claimed, root)) {
        return dure_diag_set(diag, DURE_ERR_PROTO, "its vector is not the one it signed");
    }
    dure_err err = dure_secagg_digest_r2(&digest, server_who(s, member), &s->t2, root);
    if (!err) err = verify(s, member, DURE_SECAGG_LABEL_R2, &digest, msg->signature, diag);
    if (err) return err;
    dure_survivor *kept = &s->members[member].r2;
    if (dure_members_has(&s->answered, member) &&
        !dure_ct_equal(kept->root, root->b, DURE_DIGEST_BYTES)) {
        return dure_diag_set(diag, DURE_ERR_PROTO, "it sent two different vectors");
    }
    kept->member = member;
    memcpy(kept->root, root->b, DURE_DIGEST_BYTES);
    memcpy(kept->signature, msg->signature, DURE_SIGNATURE_BYTES);
    return DURE_OK;
}

static dure_err take_r3(dure_secagg_server *s, uint32_t member, const dure_msg_consistency *msg,
                        dure_diag *diag)
{
    if (!dure_ct_equal(msg->t3, s->t3.b, DURE_DIGEST_BYTES)) {
        return dure_diag_set(diag, DURE_ERR_PROTO, "it signed another set of survivors");
    }
    dure_hash digest;
    dure_err err = dure_secagg_digest_r3(&digest, server_who(s, member), &s->t3);
    if (!err) err = verify(s, member, DURE_SECAGG_LABEL_R3, &digest, msg->signature, diag);
    if (err) return err;
    dure_attested *kept = &s->members[member].r3;
    kept->member = member;
    memcpy(kept->signature, msg->signature, DURE_SIGNATURE_BYTES);
    return DURE_OK;
}

/* One share of each neighbour in U2 and itself, of the kind that U3 asks for, at the sender's own
 * point. */
static dure_err check_revealed(const dure_secagg_server *s, uint32_t member,
                               const dure_msg_unmask *msg, dure_diag *diag)
{
    dure_members about = {{0}};
    for (size_t i = 0; i < msg->n_entries; i++) {
        const dure_revealed *r = &msg->entries[i];
        dure_share share;
        bool survived = dure_members_has(&s->u3, r->member);
        if (r->kind != (survived ? DURE_SHARE_SELF : DURE_SHARE_MASK)) {
            return dure_diag_set(diag, DURE_ERR_PROTO, "it revealed a share of the wrong kind");
        }
        if (dure_share_decode(&share, r->share) || share.x != member + 1) {
            return dure_diag_set(diag, DURE_ERR_PROTO, "it revealed a malformed share");
        }
        dure_members_add(&about, r->member);
    }
    const dure_members held = near_in(s, member, &s->u2);
    if (!dure_members_equal(&about, &held)) {
        return dure_diag_set(diag, DURE_ERR_PROTO,
                             "its shares are not of exactly its neighbours in U2 and itself");
    }
    return DURE_OK;
}

static dure_err take_r4(dure_secagg_server *s, uint32_t member, const dure_msg *msg,
                        dure_diag *diag)
{
    const dure_msg_unmask *r4 = &msg->u.unmask;
    if (!dure_ct_equal(r4->t3, s->t3.b, DURE_DIGEST_BYTES)) {
        return dure_diag_set(diag, DURE_ERR_PROTO, "it unmasks another set of survivors");
    }
    dure_hash digest;
    dure_err err =
        dure_secagg_digest_r4(&digest, server_who(s, member), &s->t3, r4->entries, r4->n_entries);
    if (!err) err = verify(s, member, DURE_SECAGG_LABEL_R4, &digest, r4->signature, diag);
    if (!err) err = check_revealed(s, member, r4, diag);
    if (err) return err;
    server_member *m = &s->members[member];
    if (m->r4) {
        if (dure_ct_equal(m->r4->u.unmask.signature, r4->signature, DURE_SIGNATURE_BYTES)) {
            return DURE_OK;
        }
        return dure_diag_set(diag, DURE_ERR_PROTO, "it sent two different unmasking messages");
    }
    dure_members_add(&s->gave, member);
    return keep(&m->r4, msg);
}

dure_err server_take(dure_secagg_server *s, uint32_t member, const dure_msg *msg,
                     const dure_hash *root, dure_diag *diag)
{
    switch (msg->type) {
    case DURE_MSG_ADVERTISE:
        return take_r0(s, member, &msg->u.advertise, diag);
    case DURE_MSG_SHARES:
        return take_r1(s, member, msg, diag);
    case DURE_MSG_MASKED:
        return take_r2(s, member, &msg->u.masked, root, diag);
    case DURE_MSG_CONSISTENCY:
        return take_r3(s, member, &msg->u.consistency, diag);
    default:
        return take_r4(s, member, msg, diag);
    }
}

/* ---- A1..A4 ---- */

static void set_hash(uint8_t out[DURE_DIGEST_BYTES], const dure_secagg_server *s)
{
    memcpy(out, s->opts.config_hash.b, DURE_DIGEST_BYTES);
}

dure_span server_beacon(const dure_secagg_server *s)
{
    return s->opts.config->neighbours ? (dure_span){s->beacon, sizeof s->beacon} : (dure_span){0};
}

/* Fixes the roll of a set from the leaves of all its members. */
static dure_err fix(dure_roll *roll, dure_hash *root, const dure_secagg_server *s,
                    const dure_members *set, const dure_hash *leaves)
{
    dure_roll_fini(roll);
    dure_err err = dure_roll_make(roll, &s->graph, set, leaves);
    return err ? err : dure_roll_whole(root, roll);
}

dure_err server_fix_keys(dure_secagg_server *s)
{
    dure_hash leaves[DURE_ROUND_MEMBERS_MAX], root;
    const dure_secagg_set set = {&s->u1, s->opts.config->n_members, &root};
    dure_err err = DURE_OK;
    for (uint32_t v = 0; !err && v < set.n; v++) {
        if (dure_members_has(&s->u1, v)) err = dure_secagg_leaf_r0(&leaves[v], &s->members[v].keys);
    }
    if (!err) err = fix(&s->r0s, &root, s, &s->u1, leaves);
    return err ? err : dure_secagg_t1(&s->t1, &s->opts.config_hash, server_beacon(s), &set);
}

dure_err server_fix_shares(dure_secagg_server *s)
{
    dure_hash leaves[DURE_ROUND_MEMBERS_MAX], root;
    const dure_secagg_set set = {&s->u2, s->opts.config->n_members, &root};
    dure_err err = DURE_OK;
    for (uint32_t v = 0; !err && v < set.n; v++) {
        if (dure_members_has(&s->u2, v))
            err = dure_secagg_leaf_r1(&leaves[v], v, s->members[v].r1_hash.b);
    }
    if (!err) err = fix(&s->r1s, &root, s, &s->u2, leaves);
    return err ? err : dure_secagg_t2(&s->t2, &s->t1, &set);
}

dure_err server_fix_vectors(dure_secagg_server *s)
{
    dure_hash leaves[DURE_ROUND_MEMBERS_MAX], root;
    const dure_secagg_set set = {&s->u3, s->opts.config->n_members, &root};
    dure_err err = DURE_OK;
    for (uint32_t v = 0; !err && v < set.n; v++) {
        if (dure_members_has(&s->u3, v))
            err = dure_secagg_leaf_r2(&leaves[v], v, s->members[v].r2.root);
    }
    if (!err) err = fix(&s->r2s, &root, s, &s->u3, leaves);
    return err ? err : dure_secagg_t3(&s->t3, &s->t2, &set);
}

/* What every A names beside its entries. */
typedef struct part {
    dure_members near; /* whose entries the receiver gets */
    uint8_t bits[DURE_MEMBERS_BYTES_MAX];
    dure_span members;
    uint8_t proof[DURE_MSG_ROLL_PROOF_MAX][DURE_DIGEST_BYTES];
    size_t n_proof;
} part;

static dure_err make_part(part *out, const dure_secagg_server *s, const dure_roll *roll,
                          uint32_t member)
{
    out->near = near_in(s, member, &roll->set);
    out->members = dure_members_put(out->bits, &roll->set, s->opts.config->n_members);
    return dure_roll_prove(out->proof, &out->n_proof, roll, &out->near);
}

/* proof[] as a message borrows it. */
static const uint8_t (*proof_of(const part *p))[DURE_DIGEST_BYTES]
{
    return (const uint8_t(*)[DURE_DIGEST_BYTES])p->proof;
}

dure_err server_make_a1(dure_buf *frame, const dure_secagg_server *s, uint32_t member)
{
    part p;
    dure_round_keys entries[DURE_NEAR_MAX];
    dure_err err = make_part(&p, s, &s->r0s, member);
    if (err) return err;
    dure_msg msg = {.type = DURE_MSG_KEYS,
                    .u.keys = {.entries = entries,
                               .members = p.members,
                               .proof = proof_of(&p),
                               .n_proof = p.n_proof,
                               .beacon = server_beacon(s)}};
    set_hash(msg.u.keys.config_hash, s);
    for (uint32_t v = 0; v < s->opts.config->n_members; v++) {
        if (dure_members_has(&p.near, v)) entries[msg.u.keys.n_entries++] = s->members[v].keys;
    }
    return dure_msg_encode(frame, &msg, NULL);
}

dure_sealed server_sealed_for(const dure_secagg_server *s, uint32_t from, uint32_t to)
{
    const dure_msg_shares *r1 = &s->members[from].r1->u.shares;
    for (size_t i = 0; i < r1->n_entries; i++) {
        if (r1->entries[i].member == to) return r1->entries[i];
    }
    return (dure_sealed){.member = to};
}

dure_err server_make_a2(dure_buf *frame, const dure_secagg_server *s, uint32_t member)
{
    part p;
    dure_forwarded entries[DURE_NEAR_MAX];
    dure_err err = make_part(&p, s, &s->r1s, member);
    if (err) return err;
    dure_msg msg = {
        .type = DURE_MSG_SHARES_FOR,
        .u.shares_for = {
            .entries = entries, .members = p.members, .proof = proof_of(&p), .n_proof = p.n_proof}};
    set_hash(msg.u.shares_for.config_hash, s);
    for (uint32_t v = 0; v < s->opts.config->n_members; v++) {
        if (!dure_members_has(&p.near, v)) continue;
        dure_forwarded *entry = &entries[msg.u.shares_for.n_entries++];
        const dure_sealed sent = server_sealed_for(s, v, member);
        *entry = (dure_forwarded){.member = v, .sealed = sent.sealed, .kem = sent.kem};
        memcpy(entry->r1_hash, s->members[v].r1_hash.b, DURE_DIGEST_BYTES);
        memcpy(entry->signature, s->members[v].r1->u.shares.signature, DURE_SIGNATURE_BYTES);
    }
    return dure_msg_encode(frame, &msg, NULL);
}

dure_err server_make_a3(dure_buf *frame, const dure_secagg_server *s, uint32_t member)
{
    part p;
    dure_survivor entries[DURE_NEAR_MAX];
    dure_err err = make_part(&p, s, &s->r2s, member);
    if (err) return err;
    dure_msg msg = {
        .type = DURE_MSG_SURVIVORS,
        .u.survivors = {
            .entries = entries, .members = p.members, .proof = proof_of(&p), .n_proof = p.n_proof}};
    set_hash(msg.u.survivors.config_hash, s);
    for (uint32_t v = 0; v < s->opts.config->n_members; v++) {
        if (dure_members_has(&p.near, v)) entries[msg.u.survivors.n_entries++] = s->members[v].r2;
    }
    return dure_msg_encode(frame, &msg, NULL);
}

/* Of those who signed as many as a quorum is: each site has all of them to verify. */
dure_err server_make_a4(dure_buf *frame, const dure_secagg_server *s)
{
    dure_attested entries[DURE_ROUND_MEMBERS_MAX];
    const size_t least = server_quorum(s);
    dure_msg msg = {.type = DURE_MSG_SIGNATURES, .u.signatures.entries = entries};
    size_t *n = &msg.u.signatures.n_entries;
    set_hash(msg.u.signatures.config_hash, s);
    memcpy(msg.u.signatures.t3, s->t3.b, DURE_DIGEST_BYTES);
    for (uint32_t v = 0; v < s->opts.config->n_members && *n < least; v++) {
        if (dure_members_has(&s->u4, v)) entries[(*n)++] = s->members[v].r3;
    }
    return dure_msg_encode(frame, &msg, NULL);
}
