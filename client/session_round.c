/* The round in hand: its secure sum, its training, its upload. */
#include "client/session_int.h"

#include "common/clock.h"
#include "common/log.h"
#include "crypto/rng.h"
#include "crypto/wipe.h"
#include "dp/calibrate.h"
#include "federation/global_adapter.h"
#include "secagg/transcript.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SEND_AGAIN_MS = 20000 };

static dure_err act(dure_session *s, dure_secagg_actions *actions, dure_diag *diag);

void session_drop_round(dure_session *s)
{
    session_round *r = &s->round;
    if (s->work) dure_work_drop(s->work);
    dure_secagg_client_free(&r->client);
    dure_config_free(&r->config);
    dure_msg_free(&r->result);
    dure_buf_fini(&r->encoding);
    session_end_download(s);
    *r = (session_round){.config = NULL};
}

/* ---- beginning ---- */

static dure_err start_training(dure_session *s, dure_diag *diag)
{
    const dure_work_round round = {.config_hash = &s->round.hash,
                                   .adapter = dure_buf_span(&s->adapter),
                                   .plan = s->ledger ? &s->plan : NULL,
                                   .first_step = s->site.state.steps_used / session_round_steps(s) *
                                                 s->round.config->local_steps,
                                   .n_steps = s->round.config->local_steps,
                                   .reservation = s->site.state.reservation};
    return dure_work_start(s->work, &round, diag);
}

static dure_err make_client(dure_session *s, dure_diag *diag)
{
    dure_secagg_client_opts opts = {.config = s->round.config,
                                    .config_hash = s->round.hash,
                                    .sign = &s->site.sign,
                                    .coordinator_sign = s->site.invitation.coordinator_sign,
                                    .rng = dure_rng_system(),
                                    .floors = dure_policy_floors(&s->site.policy),
                                    .last_round = s->site.state.last_round};
    if (s->ledger) dure_site_ledger_head(&opts.chain_head, &opts.chain_length, s->ledger);
    return dure_secagg_client_new(&s->round.client, &opts, diag);
}

dure_err session_begin_round(dure_session *s, dure_diag *diag)
{
    dure_err err = DURE_OK;
    const dure_config *config = s->round.config;
    if (!s->round.client) {
        if (s->round.summed) return DURE_OK; /* after a restart: only the reply is left */
        err = make_client(s, diag);
        if (err) return err;
        session_report(s, "round_open",
                       json_pack("{s:I, s:I, s:I, s:I}", "round", (json_int_t)config->round,
                                 "sites", (json_int_t)config->n_members, "steps",
                                 (json_int_t)config->local_steps, "collusion",
                                 (json_int_t)config->collusion));
        dure_hash digest;
        memcpy(digest.b, config->adapter_digest, sizeof digest.b);
        err = s->adapter.n && dure_hash_equal(&digest, &s->adapter_digest)
                  ? start_training(s, diag)
                  : session_download(s, DOWNLOAD_ADAPTER, config->adapter_digest, diag);
        if (err) return err;
    }
    if (dure_secagg_client_stage(s->round.client) > DURE_STAGE_ADVERTISED) return DURE_OK;
    dure_secagg_actions actions = {0};
    err = dure_secagg_client_start(&actions, s->round.client, diag);
    if (!err) err = act(s, &actions, diag);
    dure_secagg_actions_fini(&actions);
    return err;
}

/* The adapter that the round starts from has arrived; its digest is right. */
dure_err session_on_adapter(dure_session *s, dure_diag *diag)
{
    dure_diag why = {{0}};
    dure_err check =
        dure_global_adapter_check(&s->site.invitation.terms, dure_buf_span(&s->load.bytes), &why);
    if (check == DURE_ERR_NOMEM) return check;
    if (check) {
        session_report(s, "adapter_refused", json_pack("{s:s}", "why", why.text));
        return session_give_up(s, "the round's adapter is not one of the federation's", diag);
    }
    dure_buf_fini(&s->adapter);
    s->adapter = s->load.bytes;
    s->adapter_digest = s->load.digest;
    s->load.bytes = (dure_buf){0};
    session_end_download(s);
    char *path = dure_site_path(&s->site, DURE_SITE_ADAPTER);
    dure_err err = path ? dure_file_write_atomic(path, dure_buf_span(&s->adapter), 0644, diag)
                        : DURE_ERR_NOMEM;
    free(path);
    if (!err && s->round.client) err = start_training(s, diag);
    return err;
}

/* ---- the secure sum's actions ---- */

static dure_err persist_r3(dure_session *s, dure_span record, dure_diag *diag)
{
    dure_reader r = dure_reader_of(record);
    dure_site_state *state = &s->site.state;
    dure_err err = dure_take_u64(&state->signed_round, &r);
    if (!err) err = dure_take_copy(state->signed_t3.b, &r, sizeof state->signed_t3.b);
    return err ? err : dure_site_save_state(&s->site, diag);
}

/* The reply and the configuration it belongs to: enough to repeat it and to check the result after
 * a restart. */
static dure_err persist_r4(dure_session *s, dure_span reply, dure_diag *diag)
{
    dure_site_state *state = &s->site.state;
    dure_buf_fini(&state->reply);
    dure_buf_fini(&state->round_config);
    dure_buf_init(&state->reply, DURE_SITE_REPLY_MAX);
    dure_buf_init(&state->round_config, DURE_CONFIG_BYTES_MAX);
    dure_put_raw(&state->reply, reply.data, reply.n);
    dure_put_raw(&state->round_config, s->round.encoding.data, s->round.encoding.n);
    state->round_hash = s->round.hash;
    s->round.summed = true;
    dure_hash t3;
    dure_err err = dure_secagg_client_survivors(&state->round_u3, &t3, s->round.client);
    if (!err) err = dure_secagg_client_sharers(&state->round_u2, s->round.client);
    if (!err) err = dure_buf_err(&state->reply);
    if (!err) err = dure_buf_err(&state->round_config);
    return err ? err : dure_site_save_state(&s->site, diag);
}

static dure_err end_round(dure_session *s, const char *why)
{
    session_report(s, "round_failed",
                   json_pack("{s:I, s:s, s:b}", "round", (json_int_t)s->round.config->round, "why",
                             why, "charged", s->round.charged));
    session_drop_round(s);
    return DURE_OK;
}

static dure_err serve_fetch(dure_session *s, dure_diag *diag);

/* In order, and stopping at the first that fails: nothing leaves that was not synced before. */
static dure_err act(dure_session *s, dure_secagg_actions *actions, dure_diag *diag)
{
    dure_err err = DURE_OK;
    for (size_t i = 0; !err && i < actions->n && s->round.config; i++) {
        const dure_secagg_action *a = &actions->items[i];
        switch (a->kind) {
        case DURE_SECAGG_SEND:
            err = session_send_frame(NULL, s, a->bytes, NULL);
            break;
        case DURE_SECAGG_PERSIST:
            err = a->record == DURE_SECAGG_RECORD_R3 ? persist_r3(s, a->bytes, diag)
                                                     : persist_r4(s, a->bytes, diag);
            break;
        case DURE_SECAGG_MASK:
            s->round.mask_ready = true;
            break;
        case DURE_SECAGG_UPLOAD:
            err = serve_fetch(s, diag);
            break;
        case DURE_SECAGG_END:
            return end_round(s, a->text);
        default:
            break; /* the coordinator's */
        }
    }
    return err;
}

/* ---- upload ---- */

static dure_err send_chunk(bool *sent, dure_session *s, uint32_t chunk, dure_diag *diag)
{
    const dure_config *config = s->round.config;
    dure_span vector = dure_secagg_client_vector(s->round.client);
    size_t first = (size_t)chunk * dure_config_chunk_bytes(config, 0);
    size_t n = dure_config_chunk_bytes(config, chunk);
    *sent = false;
    if (n == 0 || vector.n < first + n) return DURE_OK;
    dure_msg msg = {.type = DURE_MSG_CHUNK, .u.chunk = {.chunk = chunk, .n_bytes = (uint32_t)n}};
    memcpy(msg.u.chunk.config_hash, s->round.hash.b, DURE_DIGEST_BYTES);
    const dure_payload payload = {.bytes = dure_span_of(vector.data + first, n)};
    return session_send(sent, s, &msg, &payload, diag);
}

/* A connection loses nothing: what went over it lately is on its way, and asked for twice because
 * the question crossed with a greeting. */
static bool is_on_its_way(const dure_session *s, uint32_t chunk, uint64_t now_ms)
{
    const session_round *r = &s->round;
    return chunk >= r->sent_from && chunk < r->sent_to &&
           dure_elapsed_ms(now_ms, r->sent_ms) < SEND_AGAIN_MS;
}

static void note_sent(dure_session *s, uint32_t chunk, uint64_t now_ms)
{
    session_round *r = &s->round;
    if (chunk != r->sent_to) r->sent_from = chunk;
    r->sent_to = chunk + 1;
    r->sent_ms = now_ms;
}

/* Credits for chunks; they may come before the vector is there, or after the connection broke. */
static dure_err serve_fetch(dure_session *s, dure_diag *diag)
{
    dure_msg_fetch *f = &s->round.fetch;
    if (!s->round.charged || dure_secagg_client_vector(s->round.client).n == 0) return DURE_OK;
    const uint64_t now_ms = dure_clock_monotonic_ms();
    dure_err err = DURE_OK;
    while (!err && f->n_chunks && s->round.client) {
        dure_secagg_actions actions = {0};
        bool sent = false;
        uint32_t chunk = f->first_chunk;
        f->first_chunk++;
        f->n_chunks--;
        if (is_on_its_way(s, chunk, now_ms)) continue;
        err = send_chunk(&sent, s, chunk, diag);
        if (err || !sent) {
            f->n_chunks = 0; /* it is asked for again */
            break;
        }
        note_sent(s, chunk, now_ms);
        err = dure_secagg_client_sent(&actions, s->round.client, chunk, diag);
        if (!err) err = act(s, &actions, diag);
        dure_secagg_actions_fini(&actions);
    }
    return err;
}

static dure_err on_fetch(dure_session *s, const dure_msg_fetch *fetch, dure_diag *diag)
{
    uint32_t n_chunks = dure_config_chunks(s->round.config);
    if (!s->round.client || fetch->first_chunk >= n_chunks ||
        fetch->n_chunks > n_chunks - fetch->first_chunk) {
        return DURE_OK;
    }
    s->round.fetch = *fetch;
    return serve_fetch(s, diag);
}

/* ---- masking ---- */

dure_err session_pay(dure_session *s, dure_diag *diag)
{
    dure_site_state *state = &s->site.state;
    const dure_ledger_use use = {.round = s->round.config->round,
                                 .from = state->steps_used,
                                 .to = state->steps_used + session_round_steps(s)};
    if (s->ledger) {
        dure_err err = dure_site_ledger_spend(s->ledger, &state->reservation, diag);
        if (!err) err = dure_site_ledger_use(s->ledger, &state->reservation, &use, diag);
        if (err) return err;
        dure_site_note_ledger(&s->site, s->ledger);
    }
    state->steps_used = use.to;
    return dure_site_save_state(&s->site, diag);
}

/* Paid before the first byte can leave; then the noise key goes. */
static dure_err charge(dure_session *s, dure_diag *diag)
{
    dure_site_state *state = &s->site.state;
    dure_err err = session_pay(s, diag);
    if (!err) err = dure_work_charge(s->work, diag);
    if (err) return err;
    s->round.charged = true;
    double epsilon = 0;
    if (s->ledger) {
        dure_dp_plan so_far = s->plan;
        so_far.steps = state->steps_used;
        err = dure_calibrate_epsilon(&epsilon, &so_far, NULL, s->site.policy.budget.delta);
    }
    session_report(s, "charged",
                   json_pack("{s:I, s:s, s:f, s:f, s:f, s:I, s:I}", "round",
                             (json_int_t)s->round.config->round, "unit",
                             s->ledger ? dure_dp_plan_unit(&s->plan) : "none", "epsilon", epsilon,
                             "epsilon_budget", s->site.policy.budget.epsilon, "delta",
                             s->site.policy.budget.delta, "steps", (json_int_t)state->steps_used,
                             "of", (json_int_t)s->plan.steps));
    return err;
}

/* Nothing has left, so nothing is paid. Where masking has ended the round, its abort is among the
 * actions; unless it failed for a reason of this machine's, the session goes on without it. */
static dure_err not_masked(dure_session *s, dure_secagg_actions *actions, dure_err err,
                           const dure_diag *why, dure_diag *diag)
{
    const char *text = why->text[0] ? why->text : dure_err_text(err);
    dure_log(DURE_LOG_WARN, "client", "update_not_masked", "why=\"%s\"", text);
    dure_err last = act(s, actions, diag);
    dure_secagg_actions_fini(actions);
    if (last) return last;
    const bool ended = !s->round.client;
    return ended && !dure_err_is_local(err) ? DURE_OK : dure_diag_set(diag, err, "%s", text);
}

/* Both the shares (A2) and the update are there. */
static dure_err mask(dure_session *s, dure_diag *diag)
{
    const int32_t *units = NULL;
    size_t n = 0;
    dure_secagg_actions actions = {0};
    dure_diag why = {{0}}, refused = {{0}}; /* what the work says stays here */
    dure_err err = dure_work_update(&units, &n, s->work, &why);
    s->round.mask_ready = false;
    if (err == DURE_ERR_LIMIT) { /* a share of noise too long for a word: nothing has left */
        session_report(s, "training_failed", json_pack("{s:s}", "why", why.text));
        return session_give_up(s, "the site's noise does not fit the round", diag);
    }
    if (err) return dure_diag_set(diag, err, "%s", why.text[0] ? why.text : dure_err_text(err));
    if (dure_work_lost(s->work, &why))
        session_report(s, "training_lost", json_pack("{s:s}", "why", why.text));
    err = dure_secagg_client_update(&actions, s->round.client, units, n, &refused);
    if (err) return not_masked(s, &actions, err, &refused, diag);
    err = charge(s, diag);
    if (!err) err = act(s, &actions, diag);
    dure_secagg_actions_fini(&actions);
    return err;
}

/* ---- messages and time ---- */

/* What the coordinator is told is general: nothing about the records. */
dure_err session_give_up(dure_session *s, const char *told, dure_diag *diag)
{
    if (!s->round.client) {
        session_drop_round(s);
        return DURE_OK;
    }
    dure_secagg_actions actions = {0};
    dure_err err = dure_secagg_client_abort(&actions, s->round.client, DURE_ABORT_LOCAL, told);
    if (!err) err = act(s, &actions, diag);
    dure_secagg_actions_fini(&actions);
    return err;
}

/* After R1 the round counts as taken part in: it is never begun again with other secrets. */
static dure_err note_round(dure_session *s, const dure_msg *msg, dure_diag *diag)
{
    if (msg->type != DURE_MSG_KEYS || s->site.state.last_round >= s->round.config->round) {
        return DURE_OK;
    }
    s->site.state.last_round = s->round.config->round;
    if (s->ledger) dure_site_note_ledger(&s->site, s->ledger);
    return dure_site_save_state(&s->site, diag);
}

/* ---- after a restart: the reply of R4 and nothing else of the round ---- */

/* The reply will not be repeated any more. What the round's result is checked by stays: a result
 * may come whatever was said before. */
static dure_err forget_stored(dure_session *s, dure_diag *diag)
{
    dure_site_state *state = &s->site.state;
    dure_buf_fini(&state->reply);
    dure_buf_init(&state->reply, DURE_SITE_REPLY_MAX);
    session_drop_round(s);
    return dure_site_save_state(&s->site, diag);
}

/* An unsigned abort is anybody's: it must not make the site forget what it owes to the others. */
static dure_err on_stored_abort(dure_session *s, const dure_msg_abort *abort, dure_diag *diag)
{
    const dure_secagg_who who = {&s->site.state.round_hash, DURE_SECAGG_COORDINATOR};
    dure_err err = dure_secagg_verify_abort(abort, who, s->site.invitation.coordinator_sign);
    if (err != DURE_ERR_AUTH) return err ? err : forget_stored(s, diag);
    dure_log(DURE_LOG_WARN, "client", "message_refused", "message=%s why=\"%s\"",
             dure_msg_name(DURE_MSG_ABORT), "it is not signed by the coordinator");
    return DURE_OK;
}

/* The stored reply is for one T3; an A4 for another ends the round, as it would have before. */
static dure_err on_stored_signatures(dure_session *s, const dure_msg_signatures *msg,
                                     dure_diag *diag)
{
    const dure_span reply = dure_buf_span(&s->site.state.reply);
    dure_msg *stored = NULL, refusal;
    dure_err err = dure_msg_decode(&stored, reply, diag);
    if (err) return err;
    const bool same = stored->type == DURE_MSG_UNMASK &&
                      dure_ct_equal(stored->u.unmask.t3, msg->t3, sizeof msg->t3);
    dure_msg_free(&stored);
    if (same) return session_send_frame(NULL, s, reply, NULL);
    session_report(s, "round_failed",
                   json_pack("{s:s, s:b}", "why",
                             "the coordinator showed other sites another set of survivors",
                             "charged", true));
    if (!s->round.config) err = session_revive(s, diag);
    if (!err)
        err = session_make_refusal(&refusal, s, &s->round.hash, s->round.self, DURE_ABORT_CHECK);
    if (!err) err = session_send(NULL, s, &refusal, NULL, diag);
    return err ? err : forget_stored(s, diag);
}

static dure_err on_stored(dure_session *s, const dure_msg *msg, dure_diag *diag)
{
    if (!s->site.state.reply.n) return DURE_OK;
    if (msg->type == DURE_MSG_ABORT) return on_stored_abort(s, &msg->u.abort, diag);
    if (msg->type != DURE_MSG_SIGNATURES) return DURE_OK;
    return on_stored_signatures(s, &msg->u.signatures, diag);
}

/* ---- what the coordinator says ---- */

dure_err session_on_round_message(dure_session *s, const dure_msg *msg, dure_diag *diag)
{
    dure_secagg_actions actions = {0};
    dure_diag why = {{0}};
    if (msg->type == DURE_MSG_FETCH) return on_fetch(s, &msg->u.fetch, diag);
    if (!s->round.client) return on_stored(s, msg, diag);
    dure_err err = note_round(s, msg, diag);
    if (err) return err;
    err = dure_secagg_client_step(&actions, s->round.client, msg, dure_clock_monotonic_ms(), &why);
    if (err) {
        dure_log(DURE_LOG_WARN, "client", "message_refused", "message=%s why=\"%s\"",
                 dure_msg_name(msg->type), why.text);
    }
    /* A refused step has ended the round and put the abort among the actions. */
    bool local = dure_err_is_local(err);
    dure_err last = act(s, &actions, diag);
    dure_secagg_actions_fini(&actions);
    if (local) return dure_diag_set(diag, err, "%s", why.text[0] ? why.text : dure_err_text(err));
    return last;
}

static void report_steps(dure_session *s)
{
    dure_trainer_step step;
    while (dure_work_next_step(&step, s->work)) {
        if (isfinite(step.loss)) {
            s->round.loss += step.loss;
            s->round.n_losses++;
        }
        session_report(s, "step",
                       json_pack("{s:I, s:I, s:I, s:I, s:f, s:o}", "round",
                                 (json_int_t)s->round.config->round, "step",
                                 (json_int_t)step.step + 1, "of", (json_int_t)s->plan.steps,
                                 "tokens", (json_int_t)step.tokens, "seconds", step.seconds, "loss",
                                 isfinite(step.loss) ? json_real(step.loss) : json_null()));
    }
}

dure_err session_tick_round(dure_session *s, uint64_t now_ms, dure_diag *diag)
{
    if (!s->round.client) return DURE_OK;
    dure_diag why = {{0}};
    report_steps(s);
    dure_work_state work = dure_work_state_of(s->work, &why);
    if (work == DURE_WORK_FAILED) {
        session_report(s, "training_failed", json_pack("{s:s}", "why", why.text));
        return session_give_up(s, "the site's training failed", diag);
    }
    if (work == DURE_WORK_TRAINED && s->round.mask_ready) return mask(s, diag);
    dure_secagg_actions actions = {0};
    dure_err err = dure_secagg_client_tick(&actions, s->round.client, now_ms);
    if (!err) err = act(s, &actions, diag);
    dure_secagg_actions_fini(&actions);
    return err;
}
