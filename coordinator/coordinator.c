/* Life of the process and its loop. */
#include "coordinator/coordinator_int.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "proto/messages.h"
#include "secagg/hybrid.h"

#include <stdlib.h>
#include <string.h>

enum {
    TICK_MS = 200,
    IN_FLIGHT_BYTES = 16 << 20, /* chunks asked for and not yet here, over all sites */
    ROUTER_PEERS = 512,
    LINGER_MS = 2000,
    FAILURES_MOST = 10, /* rounds in a row that fail before a run that should end gives up */
};

void dure_coordinator_report(dure_coordinator *c, const char *name, json_t *facts)
{
    c->status_stale = true;
    if (c->opts.event) c->opts.event(c->opts.event_state, name, facts);
    json_decref(facts);
}

void dure_coordinator_send_bytes(dure_coordinator *c, size_t site, dure_span control,
                                 const dure_payload *payload)
{
    dure_site_state *s = &c->sites[site];
    const size_t n_payload = payload ? payload->bytes.n : 0;
    dure_err err = dure_router_send(c->router, &s->id, control, payload);
    if (!err)
        s->bytes_out += control.n + n_payload;
    else
        dure_log(DURE_LOG_DEBUG, "coordinator", "not_sent", "site=%zu bytes=%zu err=\"%s\"", site,
                 control.n + n_payload, dure_err_text(err));
}

dure_err dure_coordinator_send(dure_coordinator *c, size_t site, const dure_msg *msg,
                               dure_diag *diag)
{
    dure_buf frame;
    dure_buf_init(&frame, DURE_MSG_BYTES_MAX);
    dure_err err = dure_msg_encode(&frame, msg, diag);
    if (!err) dure_coordinator_send_bytes(c, site, dure_buf_span(&frame), NULL);
    dure_buf_fini(&frame);
    return err;
}

/* ---- opening ---- */

static dure_err open_state(dure_coordinator *c, dure_diag *diag)
{
    const char *dir = c->folder.dir;
    char *ledger = dure_folder_path(&c->folder, DURE_FOLDER_LEDGER);
    dure_err err = ledger ? dure_store_open(&c->store, dir, diag) : DURE_ERR_NOMEM;
    if (!err) err = dure_store_facts_get(&c->facts, c->store, diag);
    if (!err) err = dure_registry_open(&c->registry, dir, diag);
    if (!err) err = dure_journal_open(&c->journal, ledger, DURE_LEAF_LOG_WRITE, diag);
    if (!err) err = dure_folder_roster_read(&c->roster, dir, c->folder.settings.root_public, diag);
    uint64_t released = 0;
    if (!err) err = dure_registry_last_logged(&released, c->registry, diag);
    if (!err) c->releases_shown = released == 0 || released < dure_journal_newest(c->journal);
    if (!err) err = dure_admission_new(&c->admission);
    if (!err) err = dure_coordinator_greet_all(c);
    free(ledger);
    return err;
}

static dure_err open_router(dure_coordinator *c, dure_diag *diag)
{
    const dure_router_opts opts = {.endpoint = c->opts.endpoint ? c->opts.endpoint
                                                                : c->folder.settings.endpoint,
                                   .key = &c->folder.curve,
                                   .admit = dure_admission_ask,
                                   .admit_state = c->admission,
                                   .max_peers = ROUTER_PEERS};
    return dure_router_open(&c->router, &opts, diag);
}

static dure_err take_lock(dure_coordinator *c, dure_diag *diag)
{
    char *path = dure_folder_path(&c->folder, DURE_FOLDER_LOCK);
    if (!path) return DURE_ERR_NOMEM;
    dure_err err = dure_lock_acquire(&c->lock, path, diag);
    if (err == DURE_ERR_BUSY)
        dure_diag_set(diag, err, "another coordinator runs on %s; stop it first", c->folder.dir);
    free(path);
    return err;
}

void dure_coordinator_set_target(dure_coordinator *c)
{
    const uint64_t planned = c->folder.settings.terms.training.rounds;
    const uint64_t left = planned > c->facts.n_done ? planned - c->facts.n_done : 0;
    c->target = c->opts.rounds && c->opts.rounds < left ? c->opts.rounds : left;
}

dure_err dure_coordinator_open(dure_coordinator **out, const dure_coordinator_opts *opts,
                               dure_diag *diag)
{
    *out = NULL;
    dure_coordinator *c = calloc(1, sizeof *c);
    if (!c) return DURE_ERR_NOMEM;
    c->opts = *opts;
    /* The last checkpoint's cosignatures are waited for after a restart too. */
    c->published_ms = dure_clock_monotonic_ms();
    c->lock.fd = -1;
    c->budget.limit = IN_FLIGHT_BYTES;
    if (!c->opts.settle_ms) c->opts.settle_ms = 2000;
    if (!c->opts.patience.silence_ms) c->opts.patience.silence_ms = 30000;
    if (!c->opts.patience.answer_ms) c->opts.patience.answer_ms = 120000;
    dure_err err = dure_folder_open(&c->folder, opts->dir, diag);
    if (!err && c->folder.settings.terms.cohort.post_quantum)
        err = dure_hybrid_check_machine("this coordinator", diag);
    if (!err) err = take_lock(c, diag);
    if (!err) err = open_state(c, diag);
    if (!err) dure_coordinator_set_target(c);
    if (!err) err = dure_coordinator_begin_recovery(c);
    if (!err) err = open_router(c, diag);
    if (!err)
        dure_coordinator_report(
            c, "start",
            json_pack("{s:s, s:s, s:I, s:I, s:I}", "federation",
                      c->folder.settings.terms.federation, "endpoint", dure_coordinator_endpoint(c),
                      "sites", (json_int_t)dure_roster_in_force(c->roster), "rounds_done",
                      (json_int_t)c->facts.n_done, "rounds_planned",
                      (json_int_t)c->folder.settings.terms.training.rounds));
    /* An unfinished round of an old copy is of a time that is over. */
    if (!err && !c->recovery.needed)
        err = dure_coordinator_resume(c, dure_clock_monotonic_ms(), diag);
    if (err) dure_coordinator_close(&c);
    *out = c;
    return err;
}

void dure_coordinator_close(dure_coordinator **coordinator)
{
    if (!coordinator || !*coordinator) return;
    dure_coordinator *c = *coordinator;
    if (c->gating.running && c->opts.gate) c->opts.gate->stop(c->opts.gate->state);
    dure_coordinator_forget_round(c);
    dure_coordinator_end_recovery(c);
    free(c->gating.reference);
    for (size_t i = 0; i < DURE_SERVED_BLOBS; i++)
        dure_blob_close(&c->blobs[i].file);
    dure_router_close(&c->router);
    dure_admission_free(&c->admission);
    dure_roster_free(&c->roster);
    dure_journal_close(&c->journal);
    dure_registry_close(&c->registry);
    dure_store_close(&c->store);
    if (c->lock.fd >= 0) dure_lock_release(&c->lock);
    dure_folder_fini(&c->folder);
    free(c);
    *coordinator = NULL;
}

const char *dure_coordinator_endpoint(const dure_coordinator *c)
{
    const char *asked = c->opts.endpoint ? c->opts.endpoint : c->folder.settings.endpoint;
    return strchr(asked, '*') ? dure_router_endpoint(c->router) : asked;
}

void dure_coordinator_stop(dure_coordinator *c)
{
    c->stop = 1;
    dure_router_wake(c->router);
}

/* ---- the loop ---- */

/* Echoed, so that a site can tell silence from patience. One of another round is a site that has
 * not followed yet, and says nothing about this one. */
static dure_err on_heartbeat(bool *of_round, dure_coordinator *c, size_t site, const dure_msg *msg,
                             dure_diag *diag)
{
    *of_round = c->now.config && memcmp(msg->u.heartbeat.config_hash, c->now.row.config_hash.b,
                                        DURE_DIGEST_BYTES) == 0;
    return dure_coordinator_send(c, site, msg, diag);
}

static dure_err on_member(dure_coordinator *c, size_t site, const dure_msg *msg, dure_span payload,
                          uint64_t now_ms, dure_diag *diag)
{
    dure_err err = DURE_OK;
    bool of_round = true;
    uint32_t member;
    const bool is_member = dure_coordinator_member_of(&member, c, site);
    switch (msg->type) {
    case DURE_MSG_HELLO:
        return dure_coordinator_on_hello(c, site, msg, now_ms, diag);
    case DURE_MSG_BLOB_REQUEST:
        if (is_member) dure_round_moves(c->now.round, member, now_ms);
        return dure_coordinator_on_blob_request(c, site, msg, diag);
    case DURE_MSG_COSIGN:
        return dure_coordinator_on_cosign(c, site, msg, diag);
    case DURE_MSG_BLOB_CHUNK:
        return dure_coordinator_on_blob_chunk(c, site, msg, payload, diag);
    case DURE_MSG_ENTRIES:
        return dure_coordinator_on_entries(c, &c->sites[site].id,
                                           dure_roster_at(c->roster, site)->join.invitation.name,
                                           true, msg, payload, diag);
    case DURE_MSG_ENTRIES_REQUEST:
        return dure_coordinator_on_entries_request(c, site, msg, diag);
    case DURE_MSG_HEARTBEAT:
        err = on_heartbeat(&of_round, c, site, msg, diag);
        break;
    default:
        break;
    }
    if (!err && of_round && is_member)
        err = dure_coordinator_on_round_message(c, member, msg, payload, now_ms, diag);
    return err;
}

static void log_refused(const char *who, const char *what, dure_err err, const dure_diag *why)
{
    dure_log(DURE_LOG_WARN, "coordinator", "message_refused", "site=%s message=%s why=\"%s\"", who,
             what, why->text[0] ? why->text : dure_err_text(err));
}

void dure_coordinator_refuse_message(const dure_coordinator *c, size_t site, const dure_msg *msg,
                                     dure_err err, const dure_diag *why)
{
    log_refused(dure_roster_at(c->roster, site)->join.invitation.name, dure_msg_name(msg->type),
                err, why);
}

static dure_err dispatch(dure_coordinator *c, const dure_envelope *envelope, dure_diag *diag)
{
    const uint64_t now_ms = dure_clock_monotonic_ms();
    dure_msg *msg = NULL;
    dure_diag why = {{0}};
    size_t site = 0;
    const bool member = envelope->peer.admission == DURE_ADMIT_MEMBER &&
                        dure_coordinator_find_site(&site, c, &envelope->peer.id);
    const char *name = member ? dure_roster_at(c->roster, site)->join.invitation.name : NULL;
    dure_err err = dure_msg_decode(&msg, envelope->control, &why);
    if (err && !dure_err_is_local(err)) {
        log_refused(name ? name : "a guest", "a frame", err, &why);
        return err == DURE_ERR_UNSUPPORTED
                   ? dure_coordinator_refuse_version(c, &envelope->peer.id, name, &why, diag)
                   : DURE_OK;
    }
    if (!err && !member) {
        err = dure_coordinator_on_guest(c, envelope, msg, &why);
    } else if (!err) {
        c->sites[site].heard_ms = now_ms;
        c->sites[site].bytes_in += envelope->control.n + envelope->payload.n;
        err = on_member(c, site, msg, envelope->payload, now_ms, &why);
    }
    if (err) dure_diag_set(diag, err, "%s", why.text[0] ? why.text : dure_err_text(err));
    dure_msg_free(&msg);
    return err;
}

static dure_err tick(dure_coordinator *c, uint64_t now_ms, dure_diag *diag)
{
    dure_err err = DURE_OK;
    if (dure_elapsed_ms(now_ms, c->ticked_ms) < TICK_MS) return DURE_OK;
    c->ticked_ms = now_ms;
    if (dure_elapsed_ms(now_ms, c->inbox_ms) >= 1000) {
        c->inbox_ms = now_ms;
        err = dure_coordinator_read_inbox(c, diag);
        if (!err) err = dure_coordinator_log_releases(c, diag);
    }
    if (!err) err = dure_coordinator_tick_recovery(c, now_ms, diag);
    if (!err && c->sum_waits && dure_coordinator_heard_quorum(c)) {
        c->sum_waits = false;
        err = dure_coordinator_take_up_sum(c, diag);
    }
    if (!err && c->state == DURE_LOOP_RUNNING && !c->sum_waits)
        err = dure_coordinator_tick_round(c, now_ms, diag);
    if (!err && c->state == DURE_LOOP_GATING) err = dure_coordinator_tick_gate(c, diag);
    if (!err && c->state == DURE_LOOP_GATHERING) err = dure_coordinator_try_open(c, now_ms, diag);
    if (!err) err = dure_coordinator_write_status(c, now_ms, diag);
    return err;
}

/* The rounds of this run are done and the last checkpoint counts, or nobody is left to say so. */
static dure_err finished(bool *done, dure_coordinator *c, uint64_t now_ms, dure_diag *diag)
{
    uint64_t cited = 0;
    *done = false;
    if (c->state != DURE_LOOP_GATHERING || c->rounds_done < c->target || c->recovery.needed)
        return DURE_OK;
    if (!c->done_reported) {
        c->done_reported = true;
        dure_coordinator_report(c, "done",
                                json_pack("{s:I}", "rounds_done", (json_int_t)c->facts.n_done));
    }
    if (!c->opts.exit_when_done) return DURE_OK;
    /* Sites still fetch the sum and the adapter after the result. */
    const uint64_t last_ms = c->fetched_ms > c->published_ms ? c->fetched_ms : c->published_ms;
    dure_err err = dure_coordinator_citable(&cited, c, diag);
    const bool counts = c->facts.n_done == 0 || cited > c->facts.done_index;
    const uint64_t quiet_ms = dure_elapsed_ms(now_ms, last_ms);
    *done = !err && quiet_ms > (counts ? LINGER_MS : c->opts.patience.silence_ms);
    return err;
}

/* Someone waits for this run to end, and it does not get anywhere. */
static dure_err check_hope(const dure_coordinator *c, dure_diag *diag)
{
    if (!c->opts.exit_when_done || c->failures < FAILURES_MOST) return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_STATE,
                         "%u rounds failed one after the other, the last because %s; %llu of the "
                         "plan's rounds are done",
                         c->failures, c->last_failure, (unsigned long long)c->facts.n_done);
}

dure_err dure_coordinator_run(dure_coordinator *c, dure_diag *diag)
{
    dure_err err = DURE_OK;
    bool done = false;
    while (!err && !c->stop && !done) {
        dure_envelope envelope = {0};
        err = dure_router_recv(&envelope, c->router, TICK_MS);
        if (!err)
            err = dispatch(c, &envelope, diag);
        else if (err == DURE_ERR_TIMEOUT || err == DURE_ERR_CANCELLED)
            err = DURE_OK;
        dure_envelope_fini(&envelope);
        const uint64_t now_ms = dure_clock_monotonic_ms();
        if (!err) err = tick(c, now_ms, diag);
        if (!err) err = check_hope(c, diag);
        if (!err) err = finished(&done, c, now_ms, diag);
    }
    if (!c->journal) return err; /* it was being replaced, and could not be opened again */
    c->status_stale = true;
    dure_err last = dure_coordinator_write_status(c, dure_clock_monotonic_ms(), err ? NULL : diag);
    return err ? err : last;
}
