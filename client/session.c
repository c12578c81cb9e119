/* The session's life: connection, greetings, downloads, and the loop. */
#include "client/session.h"

#include "client/session_int.h"
#include "common/clock.h"
#include "common/log.h"
#include "crypto/wipe.h"
#include "federation/plan.h"

#include <stdlib.h>
#include <string.h>

enum {
    RECV_MS = 200,
    BEAT_MS = 1000,
    HELLO_MS = 20000, /* nothing but echoes for so long: ask what is missing */
    SAY_AWAY_MS = 30000,
    FIRST_SAY_MS = 3000,
    /* A part takes 9 s at 60 kbit/s, so that a line on which nothing whole comes for 12 s is dead
     * (net/dealer.h). Some are asked for ahead, because a coordinator may be far. */
    PART_BYTES = 64 * 1024,
    PARTS_AHEAD = 8,
    ASK_AGAIN_MS = 30000,
    BLOB_MAX_BYTES = 1 << 30,
    GIVE_UP_MS = 180000, /* with exit_when_done: the coordinator left before the last result */
};

void session_report(dure_session *s, const char *name, json_t *facts)
{
    if (s->opts.event) s->opts.event(s->opts.event_state, name, facts);
    json_decref(facts);
}

uint64_t session_round_steps(const dure_session *s)
{
    return dure_federation_round_steps(&s->site.invitation.terms);
}

uint64_t session_steps_left(const dure_session *s)
{
    return s->plan.steps > s->site.state.steps_used ? s->plan.steps - s->site.state.steps_used : 0;
}

/* ---- sending ---- */

dure_err session_send_frame(bool *sent, dure_session *s, dure_span frame,
                            const dure_payload *payload)
{
    dure_err err = dure_dealer_send(s->dealer, frame, payload);
    if (sent) *sent = !err;
    if (!err) {
        s->bytes_sent += frame.n + (payload ? payload->bytes.n : 0);
    } else {
        dure_log(DURE_LOG_DEBUG, "client", "not_sent", "why=\"%s\"", dure_err_text(err));
    }
    return err == DURE_ERR_NET || err == DURE_ERR_BUSY ? DURE_OK : err;
}

dure_err session_send(bool *sent, dure_session *s, const dure_msg *msg, const dure_payload *payload,
                      dure_diag *diag)
{
    dure_buf frame;
    dure_buf_init(&frame, DURE_MSG_BYTES_MAX);
    if (sent) *sent = false;
    dure_err err = dure_msg_encode(&frame, msg, diag);
    if (!err) err = session_send_frame(sent, s, dure_buf_span(&frame), payload);
    dure_buf_fini(&frame);
    return err;
}

static dure_stage stage_of(const dure_session *s)
{
    if (s->round.client) return dure_secagg_client_stage(s->round.client);
    return s->site.state.reply.n ? DURE_STAGE_UNMASKED : DURE_STAGE_IDLE;
}

static dure_err send_hello(dure_session *s, uint64_t now_ms, dure_diag *diag)
{
    dure_merkle_head head = dure_witness_head(s->witness);
    dure_msg msg = {.type = DURE_MSG_HELLO};
    dure_msg_hello *h = &msg.u.hello;
    h->version = DURE_MSG_VERSION;
    h->stage = stage_of(s);
    h->last_round = s->site.state.last_round;
    h->roster_size = dure_roster_entries(s->site.roster);
    h->checkpoint_size = head.n;
    memcpy(h->federation_id, s->federation_id.b, sizeof h->federation_id);
    memcpy(h->checkpoint_root, head.root.b, sizeof h->checkpoint_root);
    const dure_hash *round = s->round.config ? &s->round.hash : &s->site.state.round_hash;
    if (s->round.config || s->site.state.reply.n)
        memcpy(h->config_hash, round->b, sizeof h->config_hash);
    dure_hash chain_head = {{0}};
    if (s->ledger) dure_site_ledger_head(&chain_head, &h->chain_length, s->ledger);
    memcpy(h->chain_head, chain_head.b, sizeof h->chain_head);
    s->hello_ms = now_ms;
    session_note_start(s, &head);
    return session_send(NULL, s, &msg, NULL, diag);
}

static dure_err send_heartbeat(dure_session *s, uint64_t now_ms, dure_diag *diag)
{
    dure_msg msg = {.type = DURE_MSG_HEARTBEAT};
    memcpy(msg.u.heartbeat.config_hash, s->round.hash.b, DURE_DIGEST_BYTES);
    msg.u.heartbeat.step = s->round.client ? dure_work_steps_done(s->work) : 0;
    s->beat_ms = now_ms;
    return session_send(NULL, s, &msg, NULL, diag);
}

/* ---- downloads ---- */

static dure_err ask_part(dure_session *s, uint64_t offset, uint32_t n_bytes, dure_diag *diag)
{
    dure_msg msg = {.type = DURE_MSG_BLOB_REQUEST,
                    .u.blob_request = {.offset = offset, .n_bytes = n_bytes}};
    memcpy(msg.u.blob_request.digest, s->load.digest.b, DURE_DIGEST_BYTES);
    return session_send(NULL, s, &msg, NULL, diag);
}

/* As many parts as the line may hold; the first one alone, since it tells how long the whole is. */
static dure_err ask_blob(dure_session *s, dure_diag *diag)
{
    dure_fetch next;
    dure_err err = DURE_OK;
    if (!s->load.receiver) return ask_part(s, 0, PART_BYTES, diag);
    while (!err && dure_receiver_next(&next, s->load.receiver))
        err = ask_part(s, next.offset, next.length, diag);
    return err;
}

/* What was asked for is lost, or was never sent. */
static dure_err ask_anew(dure_session *s, uint64_t now_ms, dure_diag *diag)
{
    if (s->load.receiver) dure_receiver_rewind(s->load.receiver);
    s->load.moved_ms = now_ms;
    return ask_blob(s, diag);
}

void session_end_download(dure_session *s)
{
    dure_receiver_free(&s->load.receiver);
    dure_buf_fini(&s->load.bytes);
    s->load = (download){.what = DOWNLOAD_NOTHING};
}

dure_err session_download(dure_session *s, download_for what, const uint8_t digest[32],
                          dure_diag *diag)
{
    session_end_download(s);
    s->load.what = what;
    memcpy(s->load.digest.b, digest, sizeof s->load.digest.b);
    dure_buf_init(&s->load.bytes, BLOB_MAX_BYTES);
    return ask_anew(s, dure_clock_monotonic_ms(), diag);
}

/* The round cannot go on without it; the next one may. */
static dure_err download_failed(dure_session *s, const char *why, dure_diag *diag)
{
    session_report(s, "download_failed", json_pack("{s:s}", "why", why));
    if (session_is_catching_up(s)) return session_stop_following(s, diag);
    return session_give_up(s, "a download failed", diag);
}

static dure_err blob_done(dure_session *s, dure_diag *diag)
{
    dure_hash digest;
    dure_err err = dure_hash_bytes(&digest, dure_buf_span(&s->load.bytes));
    if (err) return err;
    if (!dure_hash_equal(&digest, &s->load.digest)) {
        return download_failed(s, "what the coordinator sent is not what its digest names", diag);
    }
    return s->load.what == DOWNLOAD_ADAPTER ? session_on_adapter(s, diag) : session_on_sum(s, diag);
}

/* The first part says how long the whole is; each must say the same. */
static dure_err take_length(bool *same, download *l, uint64_t total, uint64_t now_ms)
{
    const dure_receiver_opts opts = {
        .total_bytes = total, .chunk_bytes = PART_BYTES, .window = PARTS_AHEAD};
    dure_fetch asked;
    *same = total > 0 && total <= BLOB_MAX_BYTES;
    if (!*same) return DURE_OK;
    if (l->receiver) {
        *same = dure_receiver_progress_of(l->receiver).total_bytes == total;
        return DURE_OK;
    }
    dure_err err = dure_receiver_new(&l->receiver, &opts, now_ms);
    if (!err) (void)dure_receiver_next(&asked, l->receiver);
    return err;
}

dure_err session_on_blob(dure_session *s, const dure_msg_blob_chunk *c, dure_span payload,
                         dure_diag *diag)
{
    download *l = &s->load;
    bool good, fresh = false;
    const uint64_t now_ms = dure_clock_monotonic_ms();
    if (l->what == DOWNLOAD_NOTHING || !dure_ct_equal(c->digest, l->digest.b, DURE_DIGEST_BYTES) ||
        (!l->receiver && c->offset != 0)) {
        return DURE_OK; /* not asked for any more */
    }
    if (c->total_bytes == 0) {
        return download_failed(s, "the coordinator does not have a file that it named", diag);
    }
    dure_err err = take_length(&good, l, c->total_bytes, now_ms);
    if (err) return err;
    if (good) {
        good = c->n_bytes == payload.n &&
               !dure_receiver_accept(&fresh, l->receiver, c->offset, payload.n, now_ms);
    }
    if (!good) return download_failed(s, "a part of a download has the wrong size", diag);
    if (!fresh) return ask_blob(s, diag);
    l->moved_ms = now_ms;
    dure_put_raw(&l->bytes, payload.data, payload.n);
    err = dure_buf_err(&l->bytes);
    if (err) return err;
    return dure_receiver_complete(l->receiver) ? blob_done(s, diag) : ask_blob(s, diag);
}

/* ---- what the coordinator says ---- */

static dure_err on_waiting(dure_session *s, const dure_msg_waiting *w, uint64_t now_ms)
{
    s->all_done = w->sites_needed == 0;
    if (dure_elapsed_ms(now_ms, s->waiting_ms) < SAY_AWAY_MS && s->waiting_ms) return DURE_OK;
    s->waiting_ms = now_ms;
    session_report(s, "waiting",
                   json_pack("{s:s, s:I, s:I}", "for", w->text, "sites_present",
                             (json_int_t)w->sites_present, "sites_needed",
                             (json_int_t)w->sites_needed));
    return DURE_OK;
}

static bool is_of_round(const dure_session *s, const dure_msg *msg)
{
    const uint8_t *hash = dure_msg_config_hash(msg);
    const dure_hash *own = s->round.config ? &s->round.hash : &s->site.state.round_hash;
    return hash && dure_ct_equal(hash, own->b, DURE_DIGEST_BYTES);
}

static dure_err dispatch(dure_session *s, dure_msg **msg, dure_span payload, uint64_t now_ms,
                         dure_diag *diag)
{
    if ((*msg)->type != DURE_MSG_HEARTBEAT) s->progress_ms = now_ms;
    switch ((*msg)->type) {
    case DURE_MSG_OPEN:
        return session_on_open(s, *msg, diag);
    case DURE_MSG_RESULT:
        return session_on_result(s, msg, diag);
    case DURE_MSG_BLOB_CHUNK:
        return session_on_blob(s, &(*msg)->u.blob_chunk, payload, diag);
    case DURE_MSG_ENTRIES:
        return session_on_entries(s, &(*msg)->u.entries, payload, diag);
    case DURE_MSG_ENTRIES_REQUEST:
        return session_on_entries_request(s, &(*msg)->u.entries_request, diag);
    case DURE_MSG_BLOB_REQUEST:
        return session_on_blob_request(s, &(*msg)->u.blob_request, diag);
    case DURE_MSG_NEW_EPOCH:
        return session_on_new_epoch(s, &(*msg)->u.new_epoch, diag);
    case DURE_MSG_WAITING:
        return on_waiting(s, &(*msg)->u.waiting, now_ms);
    case DURE_MSG_REFUSED:
        return dure_diag_set(diag, DURE_ERR_STATE, "the coordinator refuses this site: %s",
                             (*msg)->u.refused.text);
    case DURE_MSG_ABORT:
    case DURE_MSG_KEYS:
    case DURE_MSG_SHARES_FOR:
    case DURE_MSG_FETCH:
    case DURE_MSG_SURVIVORS:
    case DURE_MSG_SIGNATURES:
        return is_of_round(s, *msg) ? session_on_round_message(s, *msg, diag) : DURE_OK;
    default:
        return DURE_OK; /* an echo, or what only coordinators get */
    }
}

static dure_err receive(dure_session *s, dure_diag *diag)
{
    dure_envelope envelope = {0};
    dure_msg *msg = NULL;
    dure_diag why = {{0}};
    dure_err err = dure_dealer_recv(&envelope, s->dealer, RECV_MS);
    if (err == DURE_ERR_TIMEOUT || err == DURE_ERR_CANCELLED || err == DURE_ERR_NET) {
        return DURE_OK;
    }
    if (err) return dure_diag_set(diag, err, "the socket failed: %s", dure_err_text(err));
    const uint64_t now_ms = dure_clock_monotonic_ms();
    s->heard_ms = now_ms;
    const dure_err unread = dure_msg_decode(&msg, envelope.control, &why);
    if (unread == DURE_ERR_UNSUPPORTED) {
        err = dure_diag_set(diag, unread, "the coordinator is of another version: %s", why.text);
    } else if (unread) {
        dure_log(DURE_LOG_WARN, "client", "frame_refused", "why=\"%s\"", why.text);
    } else {
        err = dispatch(s, &msg, envelope.payload, now_ms, diag);
    }
    dure_msg_free(&msg);
    dure_envelope_fini(&envelope);
    return err;
}

/* ---- time ---- */

static void say_away(dure_session *s, const dure_dealer_status *status, uint64_t now_ms)
{
    if (status->connected) {
        if (s->away) session_report(s, "coordinator_here", NULL);
        s->away = false;
        return;
    }
    const uint64_t gone_ms = dure_elapsed_ms(now_ms, status->since_ms);
    if (gone_ms < FIRST_SAY_MS ||
        (s->away && dure_elapsed_ms(now_ms, s->away_said_ms) < SAY_AWAY_MS))
        return;
    s->away = true;
    s->away_said_ms = now_ms;
    session_report(s, "coordinator_away",
                   json_pack("{s:s, s:s, s:I}", "endpoint", s->site.policy.endpoint, "why",
                             status->reason[0] ? status->reason : "no answer yet", "seconds",
                             (json_int_t)(gone_ms / 1000)));
}

static dure_err keep_in_touch(dure_session *s, uint64_t now_ms, dure_diag *diag)
{
    const dure_dealer_status *status = dure_dealer_status_of(s->dealer);
    say_away(s, status, now_ms);
    if (!status->connected) return DURE_OK;
    bool fresh = status->connects != s->connects;
    const bool missed = s->open_missed && !s->round.result;
    bool quiet = dure_elapsed_ms(now_ms, s->progress_ms) > HELLO_MS &&
                 dure_elapsed_ms(now_ms, s->hello_ms) > HELLO_MS;
    const bool due = s->greet_ms && now_ms >= s->greet_ms;
    dure_err err = DURE_OK;
    if (fresh) s->round.sent_from = s->round.sent_to = 0;
    if (fresh || quiet || missed || due) {
        s->greet_ms = 0;
        s->connects = status->connects;
        s->open_missed = s->open_missed && !missed;
        err = send_hello(s, now_ms, diag);
    }
    if (!err && dure_elapsed_ms(now_ms, s->beat_ms) > BEAT_MS)
        err = send_heartbeat(s, now_ms, diag);
    if (!err && s->load.what != DOWNLOAD_NOTHING &&
        (fresh || dure_elapsed_ms(now_ms, s->load.moved_ms) > ASK_AGAIN_MS)) {
        err = ask_anew(s, now_ms, diag);
    }
    if (fresh) s->copy.asked_ms = 0;
    return err ? err : session_tick_log(s, now_ms, diag);
}

static bool plan_is_used(const dure_session *s)
{
    return session_steps_left(s) < session_round_steps(s);
}

static bool finished(dure_session *s, uint64_t now_ms, dure_err *err, dure_diag *diag)
{
    if (!s->opts.exit_when_done) return false;
    bool busy = s->round.config || s->round.result;
    const dure_dealer_status *status = dure_dealer_status_of(s->dealer);
    const bool copied = session_log_is_whole(s) || !status->connected;
    if (!busy && (s->all_done || plan_is_used(s)) && copied) return true;
    if (busy && plan_is_used(s) && !status->connected &&
        dure_elapsed_ms(now_ms, status->since_ms) > GIVE_UP_MS) {
        *err = dure_diag_set(diag, DURE_ERR_NET,
                             "the coordinator left before the last round's result came");
        return true;
    }
    return false;
}

dure_err dure_session_run(dure_session *s, dure_diag *diag)
{
    dure_err err = DURE_OK;
    while (!err && !s->stop) {
        err = receive(s, diag);
        const uint64_t now_ms = dure_clock_monotonic_ms();
        if (!err) err = session_tick_round(s, now_ms, diag);
        if (!err) err = keep_in_touch(s, now_ms, diag);
        if (!err && finished(s, now_ms, &err, diag)) break;
    }
    if (!err) session_report(s, "stopped", NULL);
    return err;
}

void dure_session_stop(dure_session *s)
{
    s->stop = 1;
    dure_dealer_wake(s->dealer);
}

/* ---- opening ---- */

static void wake(void *state)
{
    dure_dealer_wake(((dure_session *)state)->dealer);
}

static dure_err open_witness(dure_session *s, dure_diag *diag)
{
    char origin[DURE_ORIGIN_SIZE];
    dure_err err = dure_federation_id(&s->federation_id, s->site.invitation.root_public,
                                      s->site.invitation.terms.federation);
    if (err) return err;
    dure_checkpoint_origin(origin, s->site.policy.federation, &s->federation_id);
    char *path = dure_site_path(&s->site, DURE_SITE_CHECKPOINT);
    err = path ? dure_witness_open(&s->witness, path, origin, s->site.invitation.coordinator_sign,
                                   diag)
               : DURE_ERR_NOMEM;
    free(path);
    return err;
}

/* The plan as declared, its reservation still good, and the policy still in favour of it. */
static dure_err open_budget(dure_session *s, dure_diag *diag)
{
    const dure_terms *terms = &s->site.invitation.terms;
    bool bare = dure_site_without_privacy(&s->site);
    dure_err err = DURE_OK;
    if (bare) {
        s->plan.steps = (uint64_t)terms->training.rounds * terms->training.steps;
    } else {
        err = dure_site_plan(&s->plan, terms, &s->site.state.declared, diag);
    }
    if (!err) {
        err = dure_policy_check_terms(&s->site.policy, terms, bare ? NULL : &s->plan, diag);
    }
    if (!err && !bare) err = dure_policy_check_budget(&s->site.policy, &s->plan, diag);
    if (err || bare) return err;
    const dure_reservation *reserved = NULL;
    err = dure_site_open_ledger(&s->ledger, &s->site, diag);
    if (!err) {
        err = dure_site_ledger_reservation(&reserved, s->ledger, &s->site.state.reservation, diag);
    }
    if (!err && reserved->state == DURE_RESERVATION_RELEASED) {
        err = dure_diag_set(diag, DURE_ERR_BUDGET, "the plan's reservation was released in %s",
                            s->site.policy.ledger);
    }
    if (!err) err = dure_site_follow_ledger(&s->site, s->ledger, diag);
    return err;
}

static dure_err read_adapter(dure_session *s, dure_diag *diag)
{
    char *path = dure_site_path(&s->site, DURE_SITE_ADAPTER);
    dure_err err = path ? DURE_OK : DURE_ERR_NOMEM;
    if (!err && dure_file_exists(path)) {
        err = dure_file_read(&s->adapter, path, BLOB_MAX_BYTES, diag);
        if (!err) err = dure_hash_bytes(&s->adapter_digest, dure_buf_span(&s->adapter));
    }
    free(path);
    return err;
}

static dure_err open_dealer(dure_session *s, dure_diag *diag)
{
    const dure_dealer_opts opts = {.endpoint = s->site.policy.endpoint,
                                   .key = &s->site.curve,
                                   .server_public = s->site.invitation.coordinator_curve};
    return dure_dealer_open(&s->dealer, &opts, diag);
}

static void report_ready(dure_session *s)
{
    const dure_work_facts facts = dure_work_facts_of(s->work);
    session_report(
        s, "ready",
        json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:s, s:I, s:I}", "site", s->site.policy.name,
                  "federation", s->site.policy.federation, "records", (json_int_t)facts.records,
                  "cut", (json_int_t)facts.cut, "unusable", (json_int_t)facts.unusable, "trained",
                  (json_int_t)facts.trained, "path", facts.path, "device_checked",
                  (json_int_t)facts.proved, "steps_left", (json_int_t)session_steps_left(s)));
}

dure_err dure_session_open(dure_session **out, const dure_session_opts *opts, dure_diag *diag)
{
    *out = NULL;
    dure_session *s = calloc(1, sizeof *s);
    if (!s) return DURE_ERR_NOMEM;
    s->opts = *opts;
    dure_err err = dure_site_open(&s->site, opts->dir, diag);
    s->site_open = !err;
    if (!err && !s->site.state.joined) {
        err = dure_diag_set(diag, DURE_ERR_STATE,
                            "%s has not joined yet; run 'dure join' again with its invitation",
                            opts->dir);
    }
    if (!err) err = open_budget(s, diag);
    if (!err) err = open_witness(s, diag);
    if (!err) err = session_open_log(s, diag);
    if (!err) err = read_adapter(s, diag);
    if (!err) err = open_dealer(s, diag);
    if (!err) {
        const dure_work_opts work = {.threads = opts->threads,
                                     .memory_bytes = opts->memory_bytes,
                                     .cuda = opts->cuda,
                                     .device = opts->device,
                                     .wake = wake,
                                     .state = s};
        err = dure_work_open(&s->work, &s->site, &work, diag);
    }
    if (err) {
        dure_session_close(&s);
        return err;
    }
    s->progress_ms = s->hello_ms = dure_clock_monotonic_ms();
    report_ready(s);
    *out = s;
    return DURE_OK;
}

void dure_session_close(dure_session **session)
{
    if (!session || !*session) return;
    dure_session *s = *session;
    session_drop_round(s);
    dure_work_close(&s->work);
    dure_dealer_close(&s->dealer);
    session_close_log(s);
    dure_witness_close(&s->witness);
    dure_site_ledger_close(&s->ledger);
    dure_buf_fini(&s->adapter);
    if (s->site_open) dure_site_close(&s->site);
    free(s);
    *session = NULL;
}
