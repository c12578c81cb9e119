/* What the server checks in R0..R4, and the frames A1..A4 that it makes of them. */
#include "secagg/server_int.h"

#include "crypto/wipe.h"

#include <stdlib.h>
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
    s->keys[member] = msg->keys;
    s->keys[member].member = member;
    if (kem_bytes) {
        uint8_t *own = s->kem_keys + member * kem_bytes;
        memcpy(own, msg->keys.kem.data, kem_bytes);
        s->keys[member].kem.data = own;
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

/* Every part of R1 has the length that the suite gives it. */
static bool is_of_suite(const dure_secagg_server *s, uint32_t member, const dure_msg_shares *r1)
{
    const dure_config *config = s->opts.config;
    const dure_members lower = dure_members_first(member + 1);
    const dure_members higher = dure_members_minus(&s->u1, &lower);
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
    dure_members_add(&own, member);
    dure_members others = dure_members_minus(&s->u1, &own);
    for (size_t i = 0; i < r1->n_entries; i++) {
        dure_members_add(&to, r1->entries[i].member);
    }
    if (!dure_members_equal(&to, &others)) {
        return dure_diag_set(diag, DURE_ERR_PROTO,
                             "its shares are not for exactly the sites of U1");
    }
    if (!is_of_suite(s, member, r1)) {
        return dure_diag_set(diag, DURE_ERR_PROTO, "its shares are not those of the round's suite");
    }
    dure_hash digest;
    dure_err err = dure_secagg_digest_r1(&digest, &s->t1, member, r1);
    if (!err) err = verify(s, member, DURE_SECAGG_LABEL_R1, &digest, r1->signature, diag);
    if (err) return err;
    if (s->r1[member]) {
        if (dure_hash_equal(&digest, &s->r1_hash[member])) return DURE_OK;
        return dure_diag_set(diag, DURE_ERR_PROTO, "it sent two different sets of shares");
    }
    s->r1_hash[member] = digest;
    return keep(&s->r1[member], msg);
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
    dure_survivor *kept = &s->r2[member];
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
    s->r3[member].member = member;
    memcpy(s->r3[member].signature, msg->signature, DURE_SIGNATURE_BYTES);
    return DURE_OK;
}

/* One share of each member of U2, of the kind that U3 asks for, at the sender's own point. */
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
    if (!dure_members_equal(&about, &s->u2)) {
        return dure_diag_set(diag, DURE_ERR_PROTO, "its shares are not of exactly the sites of U2");
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
    if (s->r4[member]) {
        if (dure_ct_equal(s->r4[member]->u.unmask.signature, r4->signature, DURE_SIGNATURE_BYTES)) {
            return DURE_OK;
        }
        return dure_diag_set(diag, DURE_ERR_PROTO, "it sent two different unmasking messages");
    }
    return keep(&s->r4[member], msg);
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

dure_err server_make_a1(dure_secagg_server *s)
{
    dure_round_keys *entries = calloc(DURE_MEMBERS_MAX, sizeof *entries);
    if (!entries) return DURE_ERR_NOMEM;
    dure_msg msg = {.type = DURE_MSG_KEYS, .u.keys.entries = entries};
    size_t *n = &msg.u.keys.n_entries;
    set_hash(msg.u.keys.config_hash, s);
    for (uint32_t v = 0; v < s->opts.config->n_members; v++) {
        if (dure_members_has(&s->u1, v)) entries[(*n)++] = s->keys[v];
    }
    dure_err err = dure_msg_encode(&s->a1, &msg, NULL);
    if (!err) err = dure_secagg_t1(&s->t1, &s->opts.config_hash, entries, *n);
    free(entries);
    return err;
}

dure_sealed server_sealed_for(const dure_secagg_server *s, uint32_t from, uint32_t to)
{
    const dure_msg_shares *r1 = &s->r1[from]->u.shares;
    for (size_t i = 0; i < r1->n_entries; i++) {
        if (r1->entries[i].member == to) return r1->entries[i];
    }
    return (dure_sealed){.member = to};
}

dure_err server_make_a2(dure_buf *frame, const dure_secagg_server *s, uint32_t member)
{
    dure_forwarded *entries = calloc(DURE_MEMBERS_MAX, sizeof *entries);
    if (!entries) return DURE_ERR_NOMEM;
    dure_msg msg = {.type = DURE_MSG_SHARES_FOR, .u.shares_for.entries = entries};
    set_hash(msg.u.shares_for.config_hash, s);
    for (uint32_t v = 0; v < s->opts.config->n_members; v++) {
        if (!dure_members_has(&s->u2, v)) continue;
        dure_forwarded *entry = &entries[msg.u.shares_for.n_entries++];
        entry->member = v;
        const dure_sealed sent = server_sealed_for(s, v, member);
        entry->sealed = sent.sealed;
        entry->kem = sent.kem;
        memcpy(entry->r1_hash, s->r1_hash[v].b, DURE_DIGEST_BYTES);
        memcpy(entry->signature, s->r1[v]->u.shares.signature, DURE_SIGNATURE_BYTES);
    }
    dure_err err = dure_msg_encode(frame, &msg, NULL);
    free(entries);
    return err;
}

dure_err server_make_a3(dure_secagg_server *s)
{
    dure_survivor *entries = calloc(DURE_MEMBERS_MAX, sizeof *entries);
    if (!entries) return DURE_ERR_NOMEM;
    dure_msg msg = {.type = DURE_MSG_SURVIVORS, .u.survivors.entries = entries};
    size_t *n = &msg.u.survivors.n_entries;
    set_hash(msg.u.survivors.config_hash, s);
    for (uint32_t v = 0; v < s->opts.config->n_members; v++) {
        if (dure_members_has(&s->u3, v)) entries[(*n)++] = s->r2[v];
    }
    dure_err err = dure_msg_encode(&s->a3, &msg, NULL);
    if (!err) err = dure_secagg_t3(&s->t3, &s->t2, entries, *n);
    free(entries);
    return err;
}

dure_err server_make_a4(dure_secagg_server *s)
{
    dure_attested *entries = calloc(DURE_MEMBERS_MAX, sizeof *entries);
    if (!entries) return DURE_ERR_NOMEM;
    dure_msg msg = {.type = DURE_MSG_SIGNATURES, .u.signatures.entries = entries};
    set_hash(msg.u.signatures.config_hash, s);
    memcpy(msg.u.signatures.t3, s->t3.b, DURE_DIGEST_BYTES);
    for (uint32_t v = 0; v < s->opts.config->n_members; v++) {
        if (dure_members_has(&s->u4, v)) {
            entries[msg.u.signatures.n_entries++] = s->r3[v];
        }
    }
    dure_err err = dure_msg_encode(&s->a4, &msg, NULL);
    free(entries);
    return err;
}
