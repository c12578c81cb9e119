/* What comes of a round: the log entry is checked, the sum downloaded, the adapter recomputed, and
 * only then the checkpoint cosigned. */
#include "client/session_int.h"

#include "common/clock.h"
#include "crypto/wipe.h"
#include "dp/calibrate.h"
#include "federation/global_adapter.h"
#include "federation/server_step.h"
#include "ledger/round_event.h"

#include <stdlib.h>
#include <string.h>

static dure_err wrong(dure_diag *diag, const char *what)
{
    return dure_diag_set(diag, DURE_ERR_AUTH,
                         "the coordinator's result is wrong: %s; this site does not cosign it",
                         what);
}

/* ---- the log ---- */

/* What the log must say about the round that the message is about. */
static dure_err check_event(const dure_msg_result *r, const dure_event *event, dure_diag *diag)
{
    const dure_event_round *e = &event->u.round;
    if (event->kind != DURE_EVENT_CLOSED) return wrong(diag, "its log entry closes no round");
    if (event->index != r->leaf_index) return wrong(diag, "its log entry has another number");
    if (!dure_ct_equal(e->h_c.b, r->config_hash, sizeof e->h_c.b)) {
        return wrong(diag, "its log entry is of another round");
    }
    if (!dure_ct_equal(e->t3.b, r->t3, sizeof e->t3.b)) {
        return wrong(diag, "its log entry names other survivors");
    }
    if (!dure_ct_equal(e->adapter_out.b, r->adapter_digest, sizeof e->adapter_out.b) ||
        !dure_ct_equal(e->result.b, r->sum_digest, sizeof e->result.b)) {
        return wrong(diag, "its log entry names other digests than the message");
    }
    return DURE_OK;
}

/* The same, by the configuration of the round in hand. */
static dure_err check_own(const dure_session *s, const dure_event *event, dure_diag *diag)
{
    const dure_event_round *e = &event->u.round;
    const dure_config *c = s->round.config;
    if (e->round != c->round) return wrong(diag, "its log entry is of another round");
    if (!dure_ct_equal(e->adapter_in.b, c->adapter_digest, sizeof e->adapter_in.b)) {
        return wrong(diag, "its log entry names other digests than the message");
    }
    if (e->n_members != c->n_members) return wrong(diag, "its log entry has other members");
    const dure_event_member *own = &e->members[s->round.self];
    if (!dure_ct_equal(own->sign_public, s->site.sign.public_, sizeof own->sign_public)) {
        return wrong(diag, "its log entry has other members");
    }
    if (s->round.charged && own->part == DURE_PART_NONE) {
        return wrong(diag, "its log entry does not charge this site's part");
    }
    return DURE_OK;
}

/* Who shared and who was summed, as this site saw it: in the round, or before a restart. False when
 * it was not there any more as the survivors were named. */
static bool own_view(dure_round_outcome *o, const dure_session *s)
{
    const dure_site_state *state = &s->site.state;
    dure_hash t3;
    if (s->round.client && !dure_secagg_client_survivors(&o->u3, &t3, s->round.client)) {
        return dure_secagg_client_sharers(&o->u2, s->round.client) == DURE_OK;
    }
    o->u2 = state->round_u2;
    o->u3 = state->round_u3;
    return dure_hash_equal(&state->round_hash, &s->round.hash);
}

static void logged_view(dure_round_outcome *o, const dure_event_round *e)
{
    o->u2 = o->u3 = (dure_members){{0}};
    for (uint32_t i = 0; i < e->n_members; i++) {
        if (e->members[i].part >= DURE_PART_UPLOADED) dure_members_add(&o->u2, i);
        if (e->members[i].part == DURE_PART_SUMMED) dure_members_add(&o->u3, i);
    }
}

/* The entry is, byte for byte, what the configuration and the outcome come to: from it everybody's
 * epsilon is recomputed. Time and gate are the coordinator's own. */
static dure_err check_whole(dure_session *s, const dure_msg_result *r, const dure_event *event,
                            dure_diag *diag)
{
    dure_round_outcome outcome = {.config_hash = s->round.hash, .gate = event->u.round.gate};
    dure_buf leaf;
    dure_event *want = calloc(1, sizeof *want);
    if (!want) return DURE_ERR_NOMEM;
    dure_buf_init(&leaf, DURE_LEAF_MAX);
    memcpy(outcome.t3.b, r->t3, sizeof outcome.t3.b);
    memcpy(outcome.adapter_out.b, r->adapter_digest, sizeof outcome.adapter_out.b);
    memcpy(outcome.sum.b, r->sum_digest, sizeof outcome.sum.b);
    if (!own_view(&outcome, s)) logged_view(&outcome, &event->u.round);
    s->round.n_summed = (uint32_t)dure_members_count(&outcome.u3);
    dure_round_event_make(want, DURE_EVENT_CLOSED, s->round.config, &outcome, event->time_s);
    want->index = r->leaf_index;
    dure_err err = dure_event_encode(&leaf, want, diag);
    if (!err && (leaf.n != r->leaf.n || !dure_ct_equal(leaf.data, r->leaf.data, leaf.n))) {
        err = wrong(diag, "its log entry is not what the round's configuration and survivors "
                          "come to");
    }
    dure_buf_fini(&leaf);
    free(want);
    return err;
}

/* T3 is the site's own: what it signed, now or before a restart. */
static dure_err check_t3(const dure_session *s, const dure_msg_result *r, dure_diag *diag)
{
    dure_members u3;
    dure_hash own;
    if (s->round.client && dure_secagg_client_survivors(&u3, &own, s->round.client) == DURE_OK) {
        if (!dure_ct_equal(own.b, r->t3, sizeof own.b)) {
            return wrong(diag, "it sums other survivors than the ones this site signed");
        }
    } else if (s->site.state.signed_round == s->round.config->round &&
               !dure_ct_equal(s->site.state.signed_t3.b, r->t3, sizeof own.b)) {
        return wrong(diag, "it sums other survivors than the ones this site signed");
    }
    return DURE_OK;
}

/* The entry is in the log, and the log goes on from what this site has seen; or, for a result that
 * comes late, what the site has seen goes on from the log of then. */
static dure_err check_inclusion(bool *outdated, dure_session *s, const dure_msg_result *r,
                                dure_diag *diag)
{
    dure_note *note = NULL;
    dure_hash leaf;
    dure_merkle_proof *proof = calloc(1, sizeof *proof);
    if (!proof) return DURE_ERR_NOMEM;
    dure_err err = session_read_note(&note, s, r->checkpoint, diag);
    if (!err) {
        *outdated = note->checkpoint.head.n < dure_witness_head(s->witness).n;
        session_take_proof(proof, r->inclusion, r->n_inclusion);
        err = dure_merkle_leaf(&leaf, r->leaf);
    }
    if (!err && dure_merkle_verify_inclusion(&note->checkpoint.head, r->leaf_index, &leaf, proof)) {
        err = wrong(diag, "its log entry is not in the log");
    }
    session_take_proof(proof, r->consistency, r->n_consistency);
    if (!err) err = session_check_history(s, &note->checkpoint.head, r->checkpoint, proof, diag);
    free(proof);
    free(note);
    return err;
}

static dure_err check_leaf(dure_session *s, const dure_msg_result *r, dure_diag *diag)
{
    dure_event *event = calloc(1, sizeof *event);
    dure_err err = event ? check_t3(s, r, diag) : DURE_ERR_NOMEM;
    if (!err) err = dure_event_decode(event, r->leaf, diag);
    if (!err) err = check_event(r, event, diag);
    if (!err) err = check_own(s, event, diag);
    if (!err) err = check_whole(s, r, event, diag);
    if (!err) err = check_inclusion(&s->round.outdated, s, r, diag);
    free(event);
    return err;
}

/* ---- after a restart ---- */

dure_err session_revive(dure_session *s, dure_diag *diag)
{
    const dure_site_state *state = &s->site.state;
    session_drop_round(s);
    dure_err err = dure_config_decode(&s->round.config, dure_buf_span(&state->round_config), diag);
    if (!err) err = dure_config_find(&s->round.self, s->round.config, s->site.sign.public_);
    s->round.hash = state->round_hash;
    s->round.summed = true;
    s->round.charged = true;
    return err;
}

/* ---- the sum ---- */

static dure_err recompute(dure_buf *next, const dure_session *s, dure_diag *diag)
{
    const dure_terms *terms = &s->site.invitation.terms;
    size_t n = (size_t)terms->layout.n_active;
    int32_t *sum = NULL;
    dure_buf_init(next, 0);
    if (s->load.bytes.n != 4 * n) return wrong(diag, "its sum has the wrong length");
    sum = malloc(n * sizeof *sum);
    if (!sum) return DURE_ERR_NOMEM;
    dure_server_step_sum_take(sum, s->load.bytes.data, n);
    dure_err err = dure_global_adapter_next(next, terms, dure_buf_span(&s->adapter), sum,
                                            s->round.step.n_summed, diag);
    free(sum);
    return err;
}

static dure_err store_adapter(dure_session *s, dure_buf *next, const dure_hash *digest,
                              dure_diag *diag)
{
    char *path = dure_site_path(&s->site, DURE_SITE_ADAPTER);
    dure_err err =
        path ? dure_file_write_atomic(path, dure_buf_span(next), 0644, diag) : DURE_ERR_NOMEM;
    free(path);
    if (err) return err;
    dure_buf_fini(&s->adapter);
    s->adapter = *next;
    s->adapter_digest = *digest;
    *next = (dure_buf){0};
    return DURE_OK;
}

static dure_err report_done(dure_session *s)
{
    double epsilon = 0;
    dure_err err = DURE_OK;
    if (s->ledger) {
        dure_dp_plan so_far = s->plan;
        so_far.steps = s->site.state.steps_used ? s->site.state.steps_used : 1;
        err = dure_calibrate_epsilon(&epsilon, &so_far, NULL, s->site.policy.budget.delta);
    }
    const session_round *r = &s->round;
    json_t *loss = r->n_losses ? json_real(r->loss / r->n_losses) : json_null();
    session_report(
        s, "round_done",
        json_pack("{s:I, s:I, s:I, s:I, s:o, s:s, s:f, s:f, s:f, s:I}", "round",
                  (json_int_t)r->config->round, "number", (json_int_t)s->site.state.rounds_done,
                  "sites", (json_int_t)r->n_summed, "of", (json_int_t)r->config->n_members, "loss",
                  loss, "unit", s->ledger ? dure_dp_plan_unit(&s->plan) : "none", "epsilon",
                  epsilon, "epsilon_budget", s->site.policy.budget.epsilon, "delta",
                  s->site.policy.budget.delta, "bytes_sent", (json_int_t)s->bytes_sent));
    return err;
}

void session_note_result(dure_site_state *state, const session_step *result)
{
    if (result->index < state->result_index) return;
    state->result_t3 = result->t3;
    state->result_adapter = result->adapter_out;
    state->result_index = result->index;
}

static session_step step_of_message(const dure_msg_result *r, uint32_t n_summed)
{
    session_step step = {.index = r->leaf_index, .n_summed = n_summed};
    memcpy(step.t3.b, r->t3, sizeof step.t3.b);
    memcpy(step.sum.b, r->sum_digest, sizeof step.sum.b);
    memcpy(step.adapter_out.b, r->adapter_digest, sizeof step.adapter_out.b);
    return step;
}

/* One that comes late is remembered, and says nothing about the log of now. */
static dure_err remember(dure_session *s, const dure_msg_result *r, bool outdated, dure_diag *diag)
{
    const session_step result = step_of_message(r, 0);
    if (!outdated) return session_vouch(s, &result, diag);
    session_note_result(&s->site.state, &result);
    return dure_site_save_state(&s->site, diag);
}

/* All is verified, but perhaps the sum, of who has lost the adapter that it started from: remember
 * it, cosign, and be ready for the next round. */
static dure_err finish(dure_session *s, dure_diag *diag)
{
    dure_site_state *state = &s->site.state;
    if (s->round.charged) state->rounds_done++;
    dure_buf_fini(&state->reply);
    dure_buf_fini(&state->round_config);
    dure_buf_init(&state->reply, DURE_SITE_REPLY_MAX);
    dure_buf_init(&state->round_config, DURE_CONFIG_BYTES_MAX);
    state->round_hash = (dure_hash){{0}};
    state->round_u2 = state->round_u3 = (dure_members){{0}};
    dure_err err = remember(s, &s->round.result->u.result, s->round.outdated, diag);
    if (!err) err = report_done(s);
    session_drop_round(s);
    return err;
}

/* The same for a round that this site was not in. */
static dure_err finish_others(dure_session *s, dure_diag *diag)
{
    dure_err err = remember(s, &s->round.result->u.result, s->round.outdated, diag);
    session_drop_round(s);
    return err;
}

dure_err session_stop_following(dure_session *s, dure_diag *diag)
{
    session_end_download(s);
    return finish_others(s, diag);
}

dure_err session_on_sum(dure_session *s, dure_diag *diag)
{
    const session_step *step = &s->round.step;
    dure_buf next;
    dure_hash digest;
    dure_err err = recompute(&next, s, diag);
    if (!err) err = dure_hash_bytes(&digest, dure_buf_span(&next));
    if (!err && !dure_hash_equal(&digest, &step->adapter_out)) {
        err = wrong(diag, "the new adapter does not follow from the sum");
    }
    if (!err) err = session_keep_sum(s, dure_buf_span(&s->load.bytes), diag);
    if (!err) err = store_adapter(s, &next, &digest, diag);
    dure_buf_fini(&next);
    if (err) return err;
    if (session_is_catching_up(s)) return session_next_step(s, diag);
    return s->round.config ? finish(s, diag) : finish_others(s, diag);
}

dure_err session_can_follow(bool *can, dure_session *s, const uint8_t adapter_in[32],
                            dure_diag *diag)
{
    dure_buf first;
    dure_hash digest;
    *can = s->adapter.n && dure_ct_equal(s->adapter_digest.b, adapter_in, DURE_DIGEST_BYTES);
    if (s->adapter.n) return DURE_OK;
    dure_err err = dure_global_adapter_first(&first, &s->site.invitation.terms, diag);
    if (err) return err;
    err = dure_hash_bytes(&digest, dure_buf_span(&first));
    *can = !err && dure_ct_equal(digest.b, adapter_in, DURE_DIGEST_BYTES);
    if (*can) err = store_adapter(s, &first, &digest, diag);
    dure_buf_fini(&first);
    return err;
}

/* ---- the result of a round that this site was not in, or not to its end ---- */

dure_err session_check_my_part(const dure_session *s, const dure_event_round *e, dure_diag *diag)
{
    const dure_site_state *state = &s->site.state;
    if (state->signed_round == e->round && !dure_hash_equal(&state->signed_t3, &e->t3))
        return wrong(diag, "it sums other survivors than the ones this site signed");
    for (uint32_t i = 0; i < e->n_members; i++) {
        const dure_event_member *m = &e->members[i];
        if (dure_ct_equal(m->sign_public, s->site.sign.public_, sizeof m->sign_public) &&
            m->part != DURE_PART_NONE && state->last_round < e->round)
            return wrong(diag, "its log entry counts this site in a round that it took no part in");
    }
    return DURE_OK;
}

/* A result that directly follows the last one that this site knows starts from that one's adapter.
 * Others may have come in between while it was away; it learns of the last of them alone. */
static dure_err check_start(const dure_session *s, const dure_msg_result *r,
                            const dure_event_round *e, dure_diag *diag)
{
    bool directly = false;
    dure_hash start;
    dure_err err = session_follows_directly(&directly, s, r->leaf_index, diag);
    if (err || !directly) return err;
    err = session_next_start(&start, s, diag);
    if (err || dure_hash_equal(&start, &e->adapter_in)) return err;
    return wrong(diag, "its log entry starts from another adapter than the result before left");
}

/* Whoever was in the round checks the sum, but a coordinator can see to it that nobody was to its
 * end. So all who hold the adapter that the round started from follow the sum to the next one. A
 * round in hand is over then, whether it was this one's or was opened beside it. */
static dure_err follow_others(dure_session *s, dure_msg **msg, const session_step *first,
                              dure_diag *diag)
{
    dure_err err = session_give_up(s, "the result of another round came", diag);
    if (err) return err;
    s->round.step = *first;
    s->round.result = *msg;
    *msg = NULL;
    return session_download(s, DOWNLOAD_SUM, first->sum.b, diag);
}

/* Nothing is followed from an entry that is proven, and nothing again that led to the adapter which
 * is there. */
static bool is_news(const dure_session *s, const dure_msg_result *r)
{
    const bool made =
        s->adapter.n && dure_ct_equal(s->adapter_digest.b, r->adapter_digest, DURE_DIGEST_BYTES);
    return r->leaf_index >= s->site.state.proven && !made;
}

/* What the next round has to start from is in the log. */
static dure_err on_others_result(dure_session *s, dure_msg **msg, dure_diag *diag)
{
    const dure_msg_result *r = &(*msg)->u.result;
    const dure_site_state *state = &s->site.state;
    session_step first;
    bool outdated = false, follow = false;
    dure_event *event = calloc(1, sizeof *event);
    dure_err err = event ? dure_event_decode(event, r->leaf, diag) : DURE_ERR_NOMEM;
    if (!err) err = check_event(r, event, diag);
    if (!err) err = session_check_my_part(s, &event->u.round, diag);
    if (!err) err = check_inclusion(&outdated, s, r, diag);
    if (!err && !outdated && r->leaf_index > state->result_index)
        err = check_start(s, r, &event->u.round, diag);
    if (!err && !outdated && is_news(s, r))
        err = session_find_way(&follow, &first, s, r->leaf_index, &event->u.round, diag);
    if (!err && follow)
        err = follow_others(s, msg, &first, diag);
    else if (!err && !outdated)
        err = remember(s, r, false, diag);
    free(event);
    return err;
}

/* While the sum comes: the same result in the log as it is by then. What the coordinator sends next
 * begins where this message leaves the site. */
static dure_err on_repeat(dure_session *s, const dure_msg_result *r, dure_diag *diag)
{
    const dure_msg_result *first = &s->round.result->u.result;
    if (r->leaf_index != first->leaf_index || r->leaf.n != first->leaf.n ||
        !dure_ct_equal(r->leaf.data, first->leaf.data, r->leaf.n))
        return wrong(diag, "the round has two log entries");
    return check_inclusion(&s->round.outdated, s, r, diag);
}

static dure_err take_result(dure_session *s, dure_msg **msg, dure_diag *diag)
{
    const dure_msg_result *r = &(*msg)->u.result, *first;
    const dure_site_state *state = &s->site.state;
    const bool in_hand =
        s->round.config && dure_ct_equal(r->config_hash, s->round.hash.b, DURE_DIGEST_BYTES);
    bool follow = false;
    dure_err err = DURE_OK;
    if (s->round.result) {
        first = &s->round.result->u.result;
        if (dure_ct_equal(r->config_hash, first->config_hash, sizeof first->config_hash))
            return on_repeat(s, r, diag);
        /* It follows the one whose sum is being fetched: it is asked for after that. */
        s->open_missed = s->result_missed = true;
        return DURE_OK;
    }
    if (!in_hand && state->round_config.n &&
        dure_ct_equal(r->config_hash, state->round_hash.b, DURE_DIGEST_BYTES)) {
        err = session_give_up(s, "the result of an earlier round came", diag);
        if (!err) err = session_revive(s, diag);
        if (err) return err;
    } else if (!in_hand) {
        return on_others_result(s, msg, diag);
    }
    err = check_leaf(s, r, diag);
    if (!err) err = session_can_follow(&follow, s, s->round.config->adapter_digest, diag);
    if (err) return err;
    s->round.step = step_of_message(r, s->round.n_summed);
    s->round.result = *msg;
    *msg = NULL;
    return follow ? session_download(s, DOWNLOAD_SUM, s->round.step.sum.b, diag) : finish(s, diag);
}

dure_err session_on_result(dure_session *s, dure_msg **msg, dure_diag *diag)
{
    dure_err err = take_result(s, msg, diag);
    if (err != DURE_ERR_CANCELLED) return err;
    s->result_missed = true; /* HELLO brings it again */
    return DURE_OK;
}
