/* While a round runs: the secure sum's actions carried out, chunks asked for and spooled, time. */
#include "coordinator/coordinator_int.h"

#include "common/clock.h"
#include "common/log.h"

#include <string.h>

/* A chunk takes 26 s at 60 kbit/s, below which no connection lives; one that is under way must not
 * be asked for again, since it would only come twice. */
enum { ASK_AGAIN_MS = 30000, REPEAT_MS = 10000 };

bool dure_coordinator_member_of(uint32_t *member, const dure_coordinator *c, size_t site)
{
    /* A sum that is stored waits for nobody's answer, and would be gone with a round that fails. */
    if (!c->now.round || c->state != DURE_LOOP_RUNNING || c->sum_waits) return false;
    for (uint32_t m = 0; m < c->now.config->n_members; m++) {
        if (c->now.sites[m] != site) continue;
        *member = m;
        return true;
    }
    return false;
}

static const char *name_of(const dure_coordinator *c, uint32_t member)
{
    return c->now.config->members[member].name;
}

/* ---- chunks ---- */

static dure_err ask(dure_coordinator *c, uint32_t member, uint64_t now_ms, dure_diag *diag)
{
    dure_msg msg = {.type = DURE_MSG_FETCH};
    if (!dure_aggregate_next(&msg.u.fetch.first_chunk, &msg.u.fetch.n_chunks, c->now.aggregate,
                             member))
        return DURE_OK;
    memcpy(msg.u.fetch.config_hash, c->now.row.config_hash.b, sizeof msg.u.fetch.config_hash);
    c->now.asked_ms[member] = now_ms;
    return dure_coordinator_send(c, c->now.sites[member], &msg, diag);
}

/* All members draw from one budget, so one's chunk may free another's credit. Who is not waited for
 * any more holds none. */
static dure_err ask_all(dure_coordinator *c, uint64_t now_ms, dure_diag *diag)
{
    dure_err err = DURE_OK;
    const dure_members missing = dure_secagg_server_missing(dure_round_sum(c->now.round));
    for (uint32_t m = 0; !err && m < c->now.config->n_members; m++) {
        if (dure_members_has(&missing, m))
            err = ask(c, m, now_ms, diag);
        else
            dure_aggregate_rewind(c->now.aggregate, m);
    }
    return err;
}

/* Every chunk is here but the signed final frame is not: A2 again makes the site repeat it. */
static dure_err ask_final(dure_coordinator *c, uint32_t member, uint64_t now_ms, dure_diag *diag)
{
    dure_secagg_actions actions = {0};
    if (dure_elapsed_ms(now_ms, c->now.asked_ms[member]) < REPEAT_MS) return DURE_OK;
    c->now.asked_ms[member] = now_ms;
    dure_err err = dure_secagg_server_repeat(&actions, dure_round_sum(c->now.round), member);
    if (!err) err = dure_coordinator_act(c, &actions, now_ms, diag);
    dure_secagg_actions_fini(&actions);
    return err;
}

/* What a connection lost is asked for again at its HELLO; this is for what was lost otherwise, as
 * by a full queue. */
static dure_err ask_again(dure_coordinator *c, uint64_t now_ms, dure_diag *diag)
{
    const dure_members missing = dure_secagg_server_missing(dure_round_sum(c->now.round));
    dure_err err = DURE_OK;
    for (uint32_t m = 0; !err && m < c->now.config->n_members; m++) {
        dure_hash root;
        if (c->now.asked_ms[m] == 0 || !dure_members_has(&missing, m)) continue;
        err = dure_aggregate_settle(c->now.aggregate, m, diag);
        if (err) break;
        if (dure_aggregate_root(&root, c->now.aggregate, m)) {
            err = ask_final(c, m, now_ms, diag);
            continue;
        }
        const uint64_t last = dure_aggregate_last_ms(c->now.aggregate, m);
        if (dure_elapsed_ms(now_ms, c->now.asked_ms[m]) >= ASK_AGAIN_MS &&
            dure_elapsed_ms(now_ms, last) >= ASK_AGAIN_MS)
            dure_aggregate_rewind(c->now.aggregate, m);
    }
    return err ? err : ask_all(c, now_ms, diag);
}

/* Its spool goes, unless the vector is whole: then it may be in the sum, or in U3 on its way there,
 * and the others' shares have been given for it. */
static void discard(dure_coordinator *c, uint32_t member)
{
    dure_hash root;
    if (!dure_members_has(&c->now.u3, member) &&
        !dure_aggregate_root(&root, c->now.aggregate, member))
        dure_aggregate_discard(c->now.aggregate, member);
}

/* Takes a member out that broke the protocol: the round goes on without it. */
static dure_err expel(dure_coordinator *c, uint32_t member, const char *why, uint64_t now_ms,
                      dure_diag *diag)
{
    dure_secagg_actions actions = {0};
    dure_coordinator_report(c, "site_dropped",
                            json_pack("{s:I, s:s, s:s}", "round", (json_int_t)c->now.row.round,
                                      "site", name_of(c, member), "why", why));
    discard(c, member);
    dure_err err = dure_round_drop(&actions, c->now.round, member);
    if (!err) err = dure_coordinator_act(c, &actions, now_ms, diag);
    dure_secagg_actions_fini(&actions);
    return err;
}

static dure_err on_chunk(dure_coordinator *c, uint32_t member, const dure_msg_chunk *chunk,
                         dure_span payload, uint64_t now_ms, dure_diag *diag)
{
    dure_diag why = {{0}};
    dure_hash root;
    /* A whole vector takes no more, and stays: its R2 may have made it part of the sum already. */
    if (dure_aggregate_root(&root, c->now.aggregate, member)) return DURE_OK;
    dure_err err =
        chunk->n_bytes == payload.n
            ? dure_aggregate_accept(c->now.aggregate, member, chunk->chunk, payload, now_ms, &why)
            : dure_diag_set(&why, DURE_ERR_PROTO, "chunk %u announces %u bytes and brings %zu",
                            chunk->chunk, chunk->n_bytes, payload.n);
    if (err == DURE_ERR_PROTO) return expel(c, member, why.text, now_ms, diag);
    if (err) return dure_diag_set(diag, err, "%s", why.text);
    err = ask_all(c, now_ms, diag);
    return err ? err : ask(c, member, now_ms, diag); /* also of one that had been given up */
}

/* ---- actions ---- */

static void report_state(dure_coordinator *c, uint64_t now_ms)
{
    const dure_round_state state = dure_round_state_of(c->now.round);
    if (state == c->now.shown) return;
    dure_coordinator_report(c, "round_state",
                            json_pack("{s:I, s:s, s:f}", "round", (json_int_t)c->now.row.round,
                                      "state", dure_round_state_text(state), "previous_seconds",
                                      (double)dure_elapsed_ms(now_ms, c->now.entered_ms) / 1000));
    c->now.shown = state;
    c->now.entered_ms = now_ms;
}

static dure_err send_to_member(dure_coordinator *c, const dure_secagg_action *a)
{
    dure_coordinator_send_bytes(c, c->now.sites[a->member], a->bytes, NULL);
    return DURE_OK;
}

static dure_err collect(dure_coordinator *c, uint32_t member, uint64_t now_ms, dure_diag *diag)
{
    dure_err err = dure_aggregate_collect(c->now.aggregate, member, now_ms, diag);
    /* After a HELLO: what was in flight went with the old connection. */
    if (!err) dure_aggregate_rewind(c->now.aggregate, member);
    c->now.asked_ms[member] = now_ms;
    return err ? err : ask(c, member, now_ms, diag);
}

/* Named, and its spool goes unless it is in the sum already. */
static dure_err blame(dure_coordinator *c, const dure_secagg_action *a)
{
    if (!dure_members_has(&c->now.u3, a->member))
        dure_aggregate_discard(c->now.aggregate, a->member);
    dure_coordinator_report(c, "site_dropped",
                            json_pack("{s:I, s:s, s:s}", "round", (json_int_t)c->now.row.round,
                                      "site", name_of(c, a->member), "why", a->text));
    return DURE_OK;
}

static dure_err act_one(dure_coordinator *c, const dure_secagg_action *a, uint64_t now_ms,
                        dure_diag *diag)
{
    switch (a->kind) {
    case DURE_SECAGG_PERSIST:
        return dure_store_put_record(c->store, c->now.row.round, (unsigned)a->record, a->bytes,
                                     diag);
    case DURE_SECAGG_SEND:
        return send_to_member(c, a);
    case DURE_SECAGG_COLLECT:
        return collect(c, a->member, now_ms, diag);
    case DURE_SECAGG_UNMASK:
        return dure_coordinator_sum(c, diag);
    case DURE_SECAGG_BLAME:
        return blame(c, a);
    case DURE_SECAGG_END:
        if (dure_round_state_of(c->now.round) != DURE_ROUND_FAILED) return DURE_OK;
        return dure_coordinator_abandon(c, a->text, diag);
    case DURE_SECAGG_MASK:
    case DURE_SECAGG_UPLOAD:
        break; /* the sites' */
    }
    return DURE_OK;
}

/* In order, and stopping at the first that fails: nothing is sent that was not stored. */
dure_err dure_coordinator_act(dure_coordinator *c, dure_secagg_actions *actions, uint64_t now_ms,
                              dure_diag *diag)
{
    dure_err err = DURE_OK;
    if (c->now.round) {
        const dure_secagg_server *sum = dure_round_sum(c->now.round);
        c->now.u2 = dure_secagg_server_set(sum, 2);
        c->now.u3 = dure_secagg_server_set(sum, 3);
    }
    for (size_t i = 0; !err && i < actions->n && c->now.round; i++) {
        /* A state is told once what it rests on is stored. */
        if (actions->items[i].kind != DURE_SECAGG_PERSIST) report_state(c, now_ms);
        err = act_one(c, &actions->items[i], now_ms, diag);
    }
    if (!err && c->now.round) report_state(c, now_ms);
    return err;
}

/* ---- messages and time ---- */

/* A site that may not or cannot pay is not asked again for a while: opening round after round for
 * it would help nobody. */
static void note_refusal(dure_coordinator *c, uint32_t member, const dure_msg_abort *abort_,
                         uint64_t now_ms)
{
    if (abort_->code != DURE_ABORT_POLICY && abort_->code != DURE_ABORT_BUDGET) return;
    c->sites[c->now.sites[member]].unwilling_ms = now_ms;
    c->sites[c->now.sites[member]].unwilling = (dure_abort_code)abort_->code;
    dure_coordinator_report(c, "site_refuses",
                            json_pack("{s:I, s:s, s:s}", "round", (json_int_t)c->now.row.round,
                                      "site", name_of(c, member), "why", abort_->text));
}

static dure_site_chain chain_of(const dure_msg *msg)
{
    const dure_round_keys *keys = &msg->u.advertise.keys;
    dure_site_chain chain = {.length = keys->chain_length};
    memcpy(chain.head.b, keys->chain_head, sizeof chain.head.b);
    return chain;
}

static dure_err note_chain(dure_coordinator *c, uint32_t member, const dure_site_chain *chain,
                           dure_diag *diag)
{
    dure_site_state *s = &c->sites[c->now.sites[member]];
    if (chain->length <= s->chain.length) return DURE_OK;
    s->chain = *chain;
    return dure_store_put_chain(c->store, c->now.config->members[member].sign_public, chain, diag);
}

/* An accepted R0 shows that the site has the roster and the checkpoint that C names, and how long
 * its own budget chain is; an accepted R2, that it has paid, so that its chain is longer by now. */
static dure_err note_progress(dure_coordinator *c, uint32_t member, const dure_msg *msg,
                              uint64_t now_ms, dure_diag *diag)
{
    if (msg->type == DURE_MSG_ABORT) note_refusal(c, member, &msg->u.abort, now_ms);
    if (msg->type == DURE_MSG_MASKED) {
        const dure_round_keys *keys = dure_secagg_server_keys(dure_round_sum(c->now.round), member);
        const dure_site_chain paid = {.length = keys ? keys->chain_length + 1 : 0};
        return paid.length > 1 ? note_chain(c, member, &paid, diag) : DURE_OK;
    }
    if (msg->type != DURE_MSG_ADVERTISE) return DURE_OK;
    dure_site_state *s = &c->sites[c->now.sites[member]];
    s->roster_size = c->now.config->roster_size;
    if (s->checkpoint.n < c->now.config->checkpoint_size) {
        s->checkpoint.n = c->now.config->checkpoint_size;
        memcpy(s->checkpoint.root.b, c->now.config->checkpoint_root, sizeof s->checkpoint.root.b);
    }
    const dure_site_chain chain = chain_of(msg);
    return note_chain(c, member, &chain, diag);
}

/* A member whose R0 shows an older copy of its ledger than before is out of the round. Once it has
 * paid, its own R0 is older than what is known of it: one that comes again says nothing. */
static dure_err check_ledger(bool *old, dure_coordinator *c, uint32_t member, const dure_msg *msg,
                             uint64_t now_ms, dure_diag *diag)
{
    *old = false;
    if (msg->type != DURE_MSG_ADVERTISE || dure_round_state_of(c->now.round) != DURE_ROUND_KEYS ||
        memcmp(msg->u.advertise.config_hash, c->now.row.config_hash.b, DURE_DIGEST_BYTES) != 0)
        return DURE_OK;
    const dure_site_chain chain = chain_of(msg);
    dure_err err = dure_coordinator_chain_is_old(old, c, c->now.sites[member], &chain, diag);
    if (err || !*old) return err;
    return expel(c, member, "its privacy ledger is an older copy than it has shown", now_ms, diag);
}

dure_err dure_coordinator_on_round_message(dure_coordinator *c, uint32_t member,
                                           const dure_msg *msg, dure_span payload, uint64_t now_ms,
                                           dure_diag *diag)
{
    dure_secagg_actions actions = {0};
    dure_hash root;
    bool old = false;
    dure_err err = check_ledger(&old, c, member, msg, now_ms, diag);
    if (err || old) return err;
    if (msg->type == DURE_MSG_MASKED) err = dure_aggregate_settle(c->now.aggregate, member, diag);
    if (err) return err;
    const bool whole =
        msg->type == DURE_MSG_MASKED && dure_aggregate_root(&root, c->now.aggregate, member);
    dure_diag why = {{0}};
    err =
        dure_round_receive(&actions, c->now.round, member, msg, whole ? &root : NULL, now_ms, &why);
    const bool guilty = err == DURE_ERR_PROTO || err == DURE_ERR_AUTH;
    if (err == DURE_ERR_STATE) {
        dure_coordinator_refuse_message(c, c->now.sites[member], msg, err, &why);
        err = DURE_OK;
    } else if (err && !guilty) {
        dure_diag_set(diag, err, "%s", why.text[0] ? why.text : dure_err_text(err));
    } else {
        err = DURE_OK;
        if (guilty)
            dure_log(DURE_LOG_WARN, "coordinator", "protocol_broken", "site=%s why=\"%s\"",
                     name_of(c, member), why.text);
        else
            err = note_progress(c, member, msg, now_ms, diag);
        if (!err) err = dure_coordinator_act(c, &actions, now_ms, diag);
    }
    if (!err && c->now.round && c->state == DURE_LOOP_RUNNING && msg->type == DURE_MSG_CHUNK &&
        dure_round_state_of(c->now.round) == DURE_ROUND_VECTORS)
        err = on_chunk(c, member, &msg->u.chunk, payload, now_ms, diag);
    dure_secagg_actions_fini(&actions);
    return err;
}

dure_err dure_coordinator_tick_round(dure_coordinator *c, uint64_t now_ms, dure_diag *diag)
{
    dure_secagg_actions actions = {0};
    dure_members dropped;
    dure_err err = dure_round_tick(&actions, &dropped, c->now.round, now_ms);
    for (uint32_t m = 0; m < c->now.config->n_members; m++)
        if (dure_members_has(&dropped, m))
            dure_coordinator_report(c, "site_lost",
                                    json_pack("{s:I, s:s}", "round", (json_int_t)c->now.row.round,
                                              "site", name_of(c, m)));
    if (!err) err = dure_coordinator_act(c, &actions, now_ms, diag);
    dure_secagg_actions_fini(&actions);
    if (!err && c->state == DURE_LOOP_RUNNING && c->now.round &&
        dure_round_state_of(c->now.round) == DURE_ROUND_VECTORS)
        err = ask_again(c, now_ms, diag);
    return err;
}
