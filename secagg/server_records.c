/* What the server syncs before each of A1..A4, and how it goes on from it.
 *
 * A record is the answers that closed a phase, each in the frame in which its member sent it:
 *   bytes(beacon), in A1's record; u32 n; n times u32 member, bytes(frame)
 * From them follow the sets, the rolls, T1..T3 and every member's own A. */
#include "secagg/server_int.h"

#include "crypto/wipe.h"

#include <string.h>

#define FRAME_MAX (320u * 1024)

/* The answer of a member to this phase, as it sent it. */
static void answer_of(dure_msg *out, const dure_secagg_server *s, uint32_t member)
{
    const server_member *m = &s->members[member];
    const uint8_t *round = s->opts.config_hash.b;
    switch (s->phase) {
    case DURE_SECAGG_PHASE_KEYS:
        *out = (dure_msg){.type = DURE_MSG_ADVERTISE, .u.advertise.keys = m->keys};
        out->u.advertise.keys.member = 0; /* the wire's R0 does not name its sender */
        memcpy(out->u.advertise.config_hash, round, DURE_DIGEST_BYTES);
        return;
    case DURE_SECAGG_PHASE_SHARES:
        *out = *m->r1;
        return;
    case DURE_SECAGG_PHASE_VECTORS:
        *out = (dure_msg){.type = DURE_MSG_MASKED};
        memcpy(out->u.masked.config_hash, round, DURE_DIGEST_BYTES);
        memcpy(out->u.masked.t2, s->t2.b, DURE_DIGEST_BYTES);
        memcpy(out->u.masked.root, m->r2.root, DURE_DIGEST_BYTES);
        memcpy(out->u.masked.signature, m->r2.signature, DURE_SIGNATURE_BYTES);
        return;
    default:
        *out = (dure_msg){.type = DURE_MSG_CONSISTENCY};
        memcpy(out->u.consistency.config_hash, round, DURE_DIGEST_BYTES);
        memcpy(out->u.consistency.t3, s->t3.b, DURE_DIGEST_BYTES);
        memcpy(out->u.consistency.signature, m->r3.signature, DURE_SIGNATURE_BYTES);
        return;
    }
}

dure_err server_put_record(dure_buf *record, const dure_secagg_server *s, const dure_members *set)
{
    const dure_span beacon = server_beacon(s);
    dure_err err = DURE_OK;
    if (s->phase == DURE_SECAGG_PHASE_KEYS) dure_put_bytes(record, beacon.data, beacon.n);
    dure_put_u32(record, (uint32_t)dure_members_count(set));
    for (uint32_t v = 0; !err && v < s->opts.config->n_members; v++) {
        if (!dure_members_has(set, v)) continue;
        dure_msg answer;
        dure_buf frame;
        dure_buf_init(&frame, FRAME_MAX);
        answer_of(&answer, s, v);
        err = dure_msg_encode(&frame, &answer, NULL);
        dure_put_u32(record, v);
        dure_put_bytes(record, frame.data, frame.n);
        dure_buf_fini(&frame);
    }
    return err ? err : dure_buf_err(record);
}

static dure_err take_beacon(dure_secagg_server *s, dure_reader *r)
{
    dure_span beacon;
    dure_err err = dure_take_bytes(&beacon, r, DURE_SIGNATURE_BYTES);
    if (!err) err = dure_graph_make(&s->graph, s->opts.config, beacon);
    if (!err && beacon.n) memcpy(s->beacon, beacon.data, beacon.n);
    return err;
}

static dure_msg_type type_of(dure_secagg_phase phase)
{
    return phase == DURE_SECAGG_PHASE_KEYS      ? DURE_MSG_ADVERTISE
           : phase == DURE_SECAGG_PHASE_SHARES  ? DURE_MSG_SHARES
           : phase == DURE_SECAGG_PHASE_VECTORS ? DURE_MSG_MASKED
                                                : DURE_MSG_CONSISTENCY;
}

/* One answer, checked as when it came. Whether a vector's spool still has the root that was signed
 * is seen when it is summed. */
static dure_err take_answer(dure_secagg_server *s, uint32_t member, dure_span frame)
{
    dure_msg *msg = NULL;
    dure_hash root = {{0}};
    dure_err err = dure_msg_decode(&msg, frame, NULL);
    if (err) return err;
    const uint8_t *hash = dure_msg_config_hash(msg);
    if (msg->type != type_of(s->phase) ||
        !dure_ct_equal(hash, s->opts.config_hash.b, DURE_DIGEST_BYTES)) {
        err = DURE_ERR_FORMAT;
    } else if (msg->type == DURE_MSG_MASKED) {
        memcpy(root.b, msg->u.masked.root, sizeof root.b);
    }
    if (!err) err = server_take(s, member, msg, &root, NULL);
    if (!err) dure_members_add(&s->answered, member);
    dure_msg_free(&msg);
    return err;
}

static dure_members may_answer(const dure_secagg_server *s)
{
    return s->phase == DURE_SECAGG_PHASE_KEYS      ? dure_members_first(s->opts.config->n_members)
           : s->phase == DURE_SECAGG_PHASE_SHARES  ? s->u1
           : s->phase == DURE_SECAGG_PHASE_VECTORS ? s->u2
                                                   : s->u3;
}

dure_err server_take_record(dure_secagg_server *s, dure_span record)
{
    dure_reader r = dure_reader_of(record);
    const dure_members may = may_answer(s);
    uint32_t n = 0;
    dure_err err = s->phase == DURE_SECAGG_PHASE_KEYS ? take_beacon(s, &r) : DURE_OK;
    if (!err) err = dure_take_u32(&n, &r);
    for (uint32_t i = 0; !err && i < n; i++) {
        uint32_t member = 0;
        dure_span frame;
        err = dure_take_u32(&member, &r);
        if (!err) err = dure_take_bytes(&frame, &r, FRAME_MAX);
        if (!err && !dure_members_has(&may, member)) err = DURE_ERR_FORMAT;
        if (!err) err = take_answer(s, member, frame);
    }
    return err ? err : dure_reader_end(&r);
}
