/* The server's phases: who is waited for, when a phase ends, what is then synced and sent. */
#include "secagg/server.h"

#include "crypto/wipe.h"
#include "proto/neighbours.h"
#include "secagg/server_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FRAME_MAX (320u * 1024)
/* A2's: the R1 of every member, in the hybrid suite 230 KiB each at most. */
#define RECORD_MAX (256u * 1024 * 1024)

dure_err dure_secagg_server_new(dure_secagg_server **out, const dure_secagg_server_opts *opts,
                                dure_diag *diag)
{
    const dure_config *config = opts->config;
    const size_t kem_bytes = dure_hybrid_keys_bytes(config) * config->n_members;
    dure_err err = DURE_ERR_NOMEM;
    *out = NULL;
    dure_secagg_server *s = calloc(1, sizeof *s);
    if (!s) return dure_diag_set(diag, DURE_ERR_NOMEM, "out of memory");
    s->opts = *opts;
    s->members = calloc(config->n_members, sizeof *s->members);
    s->kem_keys = calloc(1, kem_bytes ? kem_bytes : 1);
    if (s->members && s->kem_keys) {
        err = config->neighbours ? DURE_OK : dure_graph_make(&s->graph, config, (dure_span){0});
    }
    if (err) {
        dure_secagg_server_free(&s);
        return dure_diag_set(diag, err, "the round cannot be begun: %s", dure_err_text(err));
    }
    *out = s;
    return DURE_OK;
}

void dure_secagg_server_free(dure_secagg_server **server)
{
    if (!server || !*server) return;
    dure_secagg_server *s = *server;
    for (size_t i = 0; s->members && i < s->opts.config->n_members; i++) {
        dure_msg_free(&s->members[i].r1);
        dure_msg_free(&s->members[i].r4);
    }
    dure_masks_free(&s->unmasker);
    dure_roll_fini(&s->r0s);
    dure_roll_fini(&s->r1s);
    dure_roll_fini(&s->r2s);
    free(s->members);
    free(s->kem_keys);
    dure_wipe(s, sizeof *s);
    free(s);
    *server = NULL;
}

/* Who may answer in this phase. */
static dure_members expected(const dure_secagg_server *s)
{
    dure_members set = {{0}};
    switch (s->phase) {
    case DURE_SECAGG_PHASE_KEYS:
        set = dure_members_first(s->opts.config->n_members);
        break;
    case DURE_SECAGG_PHASE_SHARES:
        set = s->u1;
        break;
    case DURE_SECAGG_PHASE_VECTORS:
        set = s->u2;
        break;
    case DURE_SECAGG_PHASE_CONSISTENCY:
        set = s->u3;
        break;
    case DURE_SECAGG_PHASE_UNMASKING:
        set = s->u4;
        break;
    default:
        break;
    }
    return dure_members_minus(&set, &s->out);
}

dure_members dure_secagg_server_missing(const dure_secagg_server *s)
{
    dure_members set = expected(s);
    set = dure_members_minus(&set, &s->answered);
    return dure_members_minus(&set, &s->away);
}

dure_members dure_secagg_server_answered(const dure_secagg_server *s)
{
    return s->answered;
}

/* ---- actions ---- */

static dure_err act(dure_secagg_actions *actions, dure_secagg_action_kind kind, uint32_t member,
                    const char *text)
{
    dure_secagg_action action = {.kind = kind, .member = member};
    snprintf(action.text, sizeof action.text, "%.255s", text);
    return dure_secagg_actions_add(actions, &action);
}

static dure_err persist(dure_secagg_actions *actions, dure_secagg_record record,
                        const dure_buf *bytes)
{
    return dure_secagg_actions_add(actions, &(dure_secagg_action){.kind = DURE_SECAGG_PERSIST,
                                                                  .record = record,
                                                                  .bytes = dure_buf_span(bytes)});
}

static dure_err send_to(dure_secagg_actions *actions, uint32_t member, const dure_buf *frame)
{
    return dure_secagg_actions_add(actions, &(dure_secagg_action){.kind = DURE_SECAGG_SEND,
                                                                  .member = member,
                                                                  .bytes = dure_buf_span(frame)});
}

/* The A of this phase for one member: A1 in the phase of R1, and so on. */
static dure_err make_a(dure_buf *frame, const dure_secagg_server *s, uint32_t member)
{
    switch (s->phase) {
    case DURE_SECAGG_PHASE_SHARES:
        return server_make_a1(frame, s, member);
    case DURE_SECAGG_PHASE_VECTORS:
        return server_make_a2(frame, s, member);
    case DURE_SECAGG_PHASE_CONSISTENCY:
        return server_make_a3(frame, s, member);
    case DURE_SECAGG_PHASE_UNMASKING:
        return server_make_a4(frame, s);
    default:
        return DURE_OK;
    }
}

static dure_err send_a(dure_secagg_actions *actions, const dure_secagg_server *s, uint32_t member)
{
    dure_buf frame;
    dure_buf_init(&frame, FRAME_MAX);
    dure_err err = make_a(&frame, s, member);
    if (!err && frame.n) err = send_to(actions, member, &frame);
    dure_buf_fini(&frame);
    if (!err && s->phase == DURE_SECAGG_PHASE_VECTORS && !dure_members_has(&s->answered, member)) {
        err = act(actions, DURE_SECAGG_COLLECT, member, "");
    }
    return err;
}

static dure_err send_a_to_all(dure_secagg_actions *actions, const dure_secagg_server *s)
{
    dure_members to = expected(s);
    dure_err err = DURE_OK;
    for (uint32_t v = 0; !err && v < s->opts.config->n_members; v++) {
        if (dure_members_has(&to, v)) err = send_a(actions, s, v);
    }
    return err;
}

/* ---- the end ---- */

static dure_err make_abort(dure_buf *frame, const dure_secagg_server *s, dure_abort_code code,
                           const char *text)
{
    dure_msg msg = {.type = DURE_MSG_ABORT, .u.abort.code = code};
    memcpy(msg.u.abort.config_hash, s->opts.config_hash.b, DURE_DIGEST_BYTES);
    dure_msg_text(msg.u.abort.text, text);
    dure_hash digest;
    dure_err err = dure_secagg_digest_abort(&digest, server_who(s, DURE_SECAGG_COORDINATOR), code,
                                            msg.u.abort.text);
    if (!err) {
        err = dure_sign(msg.u.abort.signature, s->opts.sign, DURE_SECAGG_LABEL_ABORT,
                        dure_hash_span(&digest));
    }
    return err ? err : dure_msg_encode(frame, &msg, NULL);
}

/* Ends the round as failed: tells every site that took part. */
static dure_err fail(dure_secagg_actions *actions, dure_secagg_server *s, dure_abort_code code,
                     const char *text)
{
    if (s->phase == DURE_SECAGG_PHASE_FAILED || s->phase == DURE_SECAGG_PHASE_SUMMED) {
        return DURE_ERR_STATE;
    }
    dure_members told = s->phase == DURE_SECAGG_PHASE_KEYS ? s->answered : s->u1;
    s->phase = DURE_SECAGG_PHASE_FAILED;
    dure_buf frame;
    dure_buf_init(&frame, FRAME_MAX);
    dure_err err = make_abort(&frame, s, code, text);
    for (uint32_t v = 0; !err && v < s->opts.config->n_members; v++) {
        if (dure_members_has(&told, v)) err = send_to(actions, v, &frame);
    }
    dure_buf_fini(&frame);
    dure_err last = act(actions, DURE_SECAGG_END, 0, text);
    return err ? err : last;
}

static dure_err fail_too_few(dure_secagg_actions *actions, dure_secagg_server *s, const char *what,
                             size_t least)
{
    char text[160];
    snprintf(text, sizeof text, "only %zu sites %s; the round needs %zu",
             dure_members_count(&s->answered), what, least);
    return fail(actions, s, DURE_ABORT_THRESHOLD, text);
}

/* ---- from phase to phase ---- */

static void enter(dure_secagg_server *s, dure_secagg_phase phase)
{
    s->phase = phase;
    s->answered = (dure_members){{0}};
}

/* Why the members that have answered are too few to go on with, in sites and in organisations, as
 * every site will check again. Empty when they are enough. */
static void too_few(char why[160], const dure_secagg_server *s, const char *what)
{
    const dure_config *config = s->opts.config;
    const size_t least = config->threshold > config->u_min ? config->threshold : config->u_min;
    const size_t n = dure_members_count(&s->answered);
    why[0] = 0;
    if (n < least || dure_config_organisations(config, &s->answered) < config->u_min) {
        snprintf(why, 160, "only %zu sites %s; the round needs %zu", n, what, least);
    }
}

/* Every member of a set, and of U2 where it is known and the member's masks are on the set's sum,
 * must have enough holders of its shares among those that are left. */
static void too_few_holders(char why[160], const dure_secagg_server *s, const dure_members *set,
                            const dure_members *left)
{
    const dure_config *config = s->opts.config;
    for (uint32_t v = 0; v < config->n_members && !why[0]; v++) {
        const size_t holders = dure_graph_holders(&s->graph, v, left);
        if (holders >= config->threshold || !server_needs(s, set, v)) continue;
        snprintf(why, 160, "only %zu holders of the shares of %s are left; the round needs %u",
                 holders, config->members[v].name, config->threshold);
    }
}

/* The same for the graph: they hold enough of each other's shares, and the ring stays in one
 * piece. */
static void too_sparse(char why[160], const dure_secagg_server *s)
{
    const dure_config *config = s->opts.config;
    const dure_members *set = &s->answered;
    too_few_holders(why, s, set, set);
    const uint32_t colluders =
        dure_graph_run_colluders(config->n_members, s->graph.k, config->collusion);
    if (!why[0] && dure_graph_separable(&s->graph, set, colluders)) {
        snprintf(why, 160, "too many sites are lost that stand next to each other");
    }
}

static dure_err fail_because(dure_secagg_actions *actions, dure_secagg_server *s, const char *why)
{
    return fail(actions, s, DURE_ABORT_THRESHOLD, why);
}

/* Syncs the record of this phase's answers, then goes on and tells everybody. */
static dure_err close_phase(dure_secagg_actions *actions, dure_secagg_server *s,
                            dure_secagg_record kind, const dure_members *set)
{
    dure_buf record;
    dure_buf_init(&record, RECORD_MAX);
    dure_err err = server_put_record(&record, s, set);
    if (!err) err = persist(actions, kind, &record);
    dure_buf_fini(&record);
    if (err) return err;
    enter(s, s->phase + 1);
    return send_a_to_all(actions, s);
}

static dure_err close_keys(dure_secagg_actions *actions, dure_secagg_server *s)
{
    char why[160];
    if (!s->graph.n) return DURE_ERR_STATE;
    too_few(why, s, "sent their keys");
    too_sparse(why, s);
    if (why[0]) return fail_because(actions, s, why);
    s->u1 = s->answered;
    dure_err err = server_fix_keys(s);
    return err ? err : close_phase(actions, s, DURE_SECAGG_RECORD_A1, &s->u1);
}

static dure_err close_shares(dure_secagg_actions *actions, dure_secagg_server *s)
{
    char why[160];
    too_few(why, s, "sent their shares");
    too_sparse(why, s);
    if (why[0]) return fail_because(actions, s, why);
    s->u2 = s->answered;
    dure_err err = server_fix_shares(s);
    return err ? err : close_phase(actions, s, DURE_SECAGG_RECORD_A2, &s->u2);
}

static dure_err close_vectors(dure_secagg_actions *actions, dure_secagg_server *s)
{
    char why[160];
    too_few(why, s, "sent their vectors");
    too_sparse(why, s);
    if (why[0]) return fail_because(actions, s, why);
    s->u3 = s->answered;
    dure_err err = server_fix_vectors(s);
    return err ? err : close_phase(actions, s, DURE_SECAGG_RECORD_A3, &s->u3);
}

static dure_err close_consistency(dure_secagg_actions *actions, dure_secagg_server *s)
{
    const size_t least = server_quorum(s);
    char why[160] = "";
    if (dure_members_count(&s->answered) < least) {
        return fail_too_few(actions, s, "signed the set of survivors", least);
    }
    /* Only they are asked for shares: if those would not do, none is revealed. */
    too_few_holders(why, s, &s->u3, &s->answered);
    if (why[0]) return fail_because(actions, s, why);
    s->u4 = s->answered;
    return close_phase(actions, s, DURE_SECAGG_RECORD_A4, &s->u4);
}

/* What a dropped member's masks come from does not open, by its own doing: no share helps. */
static dure_err fail_sealed(dure_secagg_actions *actions, dure_secagg_server *s, uint32_t member)
{
    char why[160];
    snprintf(why, sizeof why, "the masks of %s, which dropped out, cannot be removed",
             s->opts.config->members[member].name);
    dure_err err = act(actions, DURE_SECAGG_BLAME, member,
                       "the secrets that it wrapped for its masks do not open");
    return err ? err : fail_because(actions, s, why);
}

/* Why the R4s that came do not do. */
static dure_err fail_unmask(dure_secagg_actions *actions, dure_secagg_server *s)
{
    char why[160] = "";
    too_few_holders(why, s, &s->u3, &s->gave);
    if (!why[0]) {
        const uint32_t v = s->unrecovered;
        snprintf(why, sizeof why, "too many of the %zu shares of %s that were revealed are wrong",
                 dure_graph_holders(&s->graph, v, &s->gave), s->opts.config->members[v].name);
    }
    return fail_because(actions, s, why);
}

/* Tries with the R4s so far. Liars are named once; the round goes on without their shares. */
static dure_err try_unmask(dure_secagg_actions *actions, dure_secagg_server *s)
{
    if (!server_is_ready(s)) return DURE_OK;
    dure_members before = s->liars;
    dure_err err = server_unmask(s, &s->unrecovered);
    dure_members found = dure_members_minus(&s->liars, &before);
    for (uint32_t v = 0; v < s->opts.config->n_members; v++) {
        if (!dure_members_has(&found, v)) continue;
        dure_err last = act(actions, DURE_SECAGG_BLAME, v, "it revealed a wrong share");
        if (last) return last;
    }
    if (err == DURE_ERR_AUTH) return DURE_OK; /* more shares may come */
    if (err == DURE_ERR_PROTO) return fail_sealed(actions, s, s->unrecovered);
    if (err) return err;
    enter(s, DURE_SECAGG_PHASE_SUMMED);
    return act(actions, DURE_SECAGG_UNMASK, 0, "");
}

dure_err dure_secagg_server_advance(dure_secagg_actions *actions, dure_secagg_server *s)
{
    switch (s->phase) {
    case DURE_SECAGG_PHASE_KEYS:
        return close_keys(actions, s);
    case DURE_SECAGG_PHASE_SHARES:
        return close_shares(actions, s);
    case DURE_SECAGG_PHASE_VECTORS:
        return close_vectors(actions, s);
    case DURE_SECAGG_PHASE_CONSISTENCY:
        return close_consistency(actions, s);
    case DURE_SECAGG_PHASE_UNMASKING:
        return fail_unmask(actions, s);
    default:
        return DURE_ERR_STATE;
    }
}

/* What fails after a message was accepted, or in making our own, is not its sender's fault: these
 * codes are for that. */
static dure_err ours(dure_err err)
{
    return err == DURE_ERR_PROTO || err == DURE_ERR_AUTH || err == DURE_ERR_STATE ? DURE_ERR_USAGE
                                                                                  : err;
}

/* Ends the phase when nobody is waited for any more. */
static dure_err settle(dure_secagg_actions *actions, dure_secagg_server *s)
{
    if (s->phase == DURE_SECAGG_PHASE_UNMASKING) {
        dure_err err = ours(try_unmask(actions, s));
        if (err || s->phase != DURE_SECAGG_PHASE_UNMASKING) return err;
    }
    if (s->phase >= DURE_SECAGG_PHASE_SUMMED) return DURE_OK;
    dure_members missing = dure_secagg_server_missing(s);
    const bool waits = dure_members_count(&missing) > 0 || !s->graph.n;
    return waits ? DURE_OK : ours(dure_secagg_server_advance(actions, s));
}

dure_err dure_secagg_server_beacon(dure_secagg_actions *actions, dure_secagg_server *s,
                                   dure_span signature, dure_diag *diag)
{
    if (s->phase != DURE_SECAGG_PHASE_KEYS || s->graph.n) {
        return dure_diag_set(diag, DURE_ERR_STATE, "no beacon is waited for");
    }
    dure_err err = dure_graph_make(&s->graph, s->opts.config, signature);
    if (err) {
        return dure_diag_set(diag, err, "this is not what the beacon signed for index %llu",
                             (unsigned long long)s->opts.config->beacon_index);
    }
    memcpy(s->beacon, signature.data, sizeof s->beacon);
    return settle(actions, s);
}

/* ---- what sites say ---- */

static bool phase_of(dure_secagg_phase *phase, dure_msg_type type)
{
    switch (type) {
    case DURE_MSG_ADVERTISE:
        *phase = DURE_SECAGG_PHASE_KEYS;
        return true;
    case DURE_MSG_SHARES:
        *phase = DURE_SECAGG_PHASE_SHARES;
        return true;
    case DURE_MSG_MASKED:
        *phase = DURE_SECAGG_PHASE_VECTORS;
        return true;
    case DURE_MSG_CONSISTENCY:
        *phase = DURE_SECAGG_PHASE_CONSISTENCY;
        return true;
    case DURE_MSG_UNMASK:
        *phase = DURE_SECAGG_PHASE_UNMASKING;
        return true;
    default:
        return false;
    }
}

/* The member is out of the round for good; the phase may end without it. */
static dure_err expel(dure_secagg_actions *actions, dure_secagg_server *s, uint32_t member)
{
    dure_members one = {{0}};
    dure_members_add(&one, member);
    dure_members_add(&s->out, member);
    s->answered = dure_members_minus(&s->answered, &one);
    return settle(actions, s);
}

static dure_err on_abort(dure_secagg_actions *actions, dure_secagg_server *s, uint32_t member,
                         const dure_msg_abort *msg, dure_diag *diag)
{
    dure_err err = dure_secagg_verify_abort(msg, server_who(s, member),
                                            s->opts.config->members[member].sign_public);
    if (err == DURE_ERR_AUTH)
        return dure_diag_set(diag, DURE_ERR_STATE, "an abort without the site's signature");
    if (err) return err;
    return expel(actions, s, member);
}

static dure_err accept(dure_secagg_actions *actions, dure_secagg_server *s, uint32_t member)
{
    dure_members one = {{0}};
    dure_members_add(&one, member);
    dure_members_add(&s->answered, member);
    s->away = dure_members_minus(&s->away, &one);
    return settle(actions, s);
}

/* An answer to a phase that is over: the sender lacks what came after it. */
static dure_err late(dure_secagg_actions *actions, dure_secagg_server *s, uint32_t member,
                     dure_diag *diag)
{
    dure_members may = expected(s);
    if (!dure_members_has(&may, member)) {
        return dure_diag_set(diag, DURE_ERR_STATE,
                             "it came too late: the round went on without it");
    }
    return ours(send_a(actions, s, member));
}

dure_err dure_secagg_server_step(dure_secagg_actions *actions, dure_secagg_server *s,
                                 uint32_t member, const dure_msg *msg, const dure_hash *root,
                                 dure_diag *diag)
{
    dure_diag own = {0};
    if (!diag) diag = &own;
    const uint8_t *hash = dure_msg_config_hash(msg);
    if (member >= s->opts.config->n_members || !hash ||
        !dure_ct_equal(hash, s->opts.config_hash.b, DURE_DIGEST_BYTES) ||
        s->phase == DURE_SECAGG_PHASE_FAILED) {
        return dure_diag_set(diag, DURE_ERR_STATE, "message %s is not of the open round",
                             dure_msg_name(msg->type));
    }
    if (msg->type == DURE_MSG_ABORT) return on_abort(actions, s, member, &msg->u.abort, diag);
    dure_secagg_phase phase = DURE_SECAGG_PHASE_FAILED;
    if (!phase_of(&phase, msg->type) || phase > s->phase) {
        return dure_diag_set(diag, DURE_ERR_STATE, "message %s is not expected now",
                             dure_msg_name(msg->type));
    }
    if (phase < s->phase) return late(actions, s, member, diag);
    dure_members may = expected(s);
    if (!dure_members_has(&may, member)) {
        return dure_diag_set(diag, DURE_ERR_STATE, "it is not in this phase of the round");
    }
    dure_err err = server_take(s, member, msg, root, diag);
    if (err == DURE_ERR_PROTO || err == DURE_ERR_AUTH) {
        dure_err last = act(actions, DURE_SECAGG_BLAME, member, diag->text);
        if (!last) last = expel(actions, s, member);
        return last ? last : err;
    }
    return err ? err : accept(actions, s, member);
}

dure_err dure_secagg_server_drop(dure_secagg_actions *actions, dure_secagg_server *s,
                                 uint32_t member)
{
    dure_members_add(&s->away, member);
    return settle(actions, s);
}

dure_err dure_secagg_server_repeat(dure_secagg_actions *actions, dure_secagg_server *s,
                                   uint32_t member)
{
    dure_members one = {{0}}, may = expected(s);
    dure_members_add(&one, member);
    s->away = dure_members_minus(&s->away, &one);
    return dure_members_has(&may, member) ? send_a(actions, s, member) : DURE_OK;
}

/* ---- reading ---- */

dure_secagg_phase dure_secagg_server_phase(const dure_secagg_server *s)
{
    return s->phase;
}

dure_members dure_secagg_server_set(const dure_secagg_server *s, unsigned k)
{
    return k == 1 ? s->u1 : k == 2 ? s->u2 : k == 3 ? s->u3 : (dure_members){{0}};
}

dure_err dure_secagg_server_t3(dure_hash *t3, const dure_secagg_server *s)
{
    *t3 = s->t3;
    return dure_members_count(&s->u3) ? DURE_OK : DURE_ERR_STATE;
}

const dure_round_keys *dure_secagg_server_keys(const dure_secagg_server *s, uint32_t member)
{
    bool there = dure_members_has(&s->u1, member) ||
                 (s->phase == DURE_SECAGG_PHASE_KEYS && dure_members_has(&s->answered, member));
    return there ? &s->members[member].keys : NULL;
}

dure_masks *dure_secagg_server_unmasker(dure_secagg_server *s)
{
    return s->unmasker;
}

/* ---- resuming ---- */

/* Replays one record: its answers are taken as given and the phase is closed as it was then. */
static dure_err restore(dure_secagg_server *s, dure_span record)
{
    dure_err err = server_take_record(s, record);
    if (err) return err;
    dure_secagg_phase before = s->phase;
    dure_secagg_actions replayed = {0};
    err = dure_secagg_server_advance(&replayed, s);
    /* The record that closing the phase makes now must be the one that was written then. */
    bool same = !err && s->phase == before + 1 && replayed.n > 0 &&
                replayed.items[0].bytes.n == record.n &&
                dure_ct_equal(replayed.items[0].bytes.data, record.data, record.n);
    dure_secagg_actions_fini(&replayed);
    return err ? err : same ? DURE_OK : DURE_ERR_FORMAT;
}

dure_err dure_secagg_server_resume(dure_secagg_server **out, dure_secagg_actions *actions,
                                   const dure_secagg_server_opts *opts, const dure_span *records,
                                   size_t k, dure_diag *diag)
{
    dure_secagg_server *s = NULL;
    dure_err err = dure_secagg_server_new(&s, opts, diag);
    *out = NULL;
    if (err) return err;
    for (size_t i = 0; !err && i < k; i++) {
        err = restore(s, records[i]);
        if (err && err != DURE_ERR_NOMEM) {
            err = dure_diag_set(diag, DURE_ERR_FORMAT,
                                "the stored record of A%zu does not fit the round", i + 1);
        }
    }
    if (!err) err = send_a_to_all(actions, s);
    if (err) {
        dure_secagg_server_free(&s);
        return err;
    }
    *out = s;
    return DURE_OK;
}
