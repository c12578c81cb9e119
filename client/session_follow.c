/* From what this site knows of the log to a result that it is shown.
 *
 * The first state.proven entries of the log are known to hold no adapter out of nowhere: every
 * round that they close was followed here, or is in a log that a round cited, for which a quorum of
 * sites speaks. Behind them a coordinator may put the end of a round that it shows to nobody, so
 * that what it shows next seems to come after something that this site has missed. Therefore a site
 *
 * 1. makes the steps of all rounds that it was not shown, sum by sum, as far as the coordinator has
 *    the sums and they are not too many;
 * 2. cosigns no log in which a round closes that it has not followed. Without a quorum no round can
 *    cite that log.
 *
 * Only who has never been in a round and knows of no result begins with the log that it is shown.
 */
#include "client/session_int.h"

#include "common/clock.h"

#include <stdlib.h>
#include <string.h>

/* Rounds that are made up for at once; who has missed more waits until a round cites them. */
enum { STEPS_MAX = 8 };

/* ---- the rounds that the copy closes ---- */

static bool has_entries(const dure_session *s, uint64_t n)
{
    return s->copy.log && dure_leaf_log_size(s->copy.log) >= n;
}

static dure_err read_entry(dure_event *event, const dure_session *s, uint64_t index,
                           dure_diag *diag)
{
    dure_buf leaf;
    dure_err err = dure_leaf_log_read(&leaf, s->copy.log, index, diag);
    if (err) return err;
    err = dure_event_decode(event, dure_buf_span(&leaf), diag);
    dure_buf_fini(&leaf);
    return err;
}

/* The first entry in [from, to) that closes a round; *index is `to` when none does. */
static dure_err next_closed(uint64_t *index, dure_event *event, const dure_session *s,
                            uint64_t from, uint64_t to, dure_diag *diag)
{
    dure_err err = DURE_OK;
    for (*index = from; *index < to; ++*index) {
        err = read_entry(event, s, *index, diag);
        if (err || event->kind == DURE_EVENT_CLOSED) return err;
    }
    return DURE_OK;
}

dure_err session_follows_directly(bool *directly, const dure_session *s, uint64_t index,
                                  dure_diag *diag)
{
    const uint64_t last = s->site.state.result_index;
    uint64_t first = 0;
    *directly = false;
    if (!has_entries(s, index)) return DURE_OK;
    dure_event *event = calloc(1, sizeof *event);
    if (!event) return DURE_ERR_NOMEM;
    dure_err err = next_closed(&first, event, s, last ? last + 1 : 0, index, diag);
    *directly = !err && first >= index;
    free(event);
    return err;
}

/* The adapter that the proven entries leave: of their last round, else the first. */
static dure_err proven_adapter(dure_hash *out, const dure_session *s, dure_event *event,
                               dure_diag *diag)
{
    for (uint64_t i = s->site.state.proven; i-- > 0;) {
        dure_err err = read_entry(event, s, i, diag);
        if (err) return err;
        if (event->kind != DURE_EVENT_CLOSED) continue;
        *out = event->u.round.adapter_out;
        return DURE_OK;
    }
    return session_first_adapter(out, s, diag);
}

/* ---- the way to a result ---- */

void session_step_of(session_step *out, uint64_t index, const dure_event_round *e)
{
    *out = (session_step){
        .index = index, .t3 = e->t3, .adapter_out = e->adapter_out, .sum = e->result};
    for (uint32_t i = 0; i < e->n_members; i++)
        out->n_summed += e->members[i].part == DURE_PART_SUMMED;
}

static bool holds(const dure_session *s, const dure_hash *adapter)
{
    return s->adapter.n && dure_hash_equal(&s->adapter_digest, adapter);
}

/* A step was made, and its adapter stored, before a crash: then the entry is as good as proven. */
static dure_err take_up_step(dure_session *s, uint64_t index, dure_event *event, dure_diag *diag)
{
    uint64_t i = 0;
    dure_err err = next_closed(&i, event, s, s->site.state.proven, index, diag);
    if (!err && i < index && holds(s, &event->u.round.adapter_out)) {
        err = session_check_my_part(s, &event->u.round, diag);
        if (!err) s->site.state.proven = i + 1;
    }
    return err;
}

/* Counts the steps from the proven entries on to `last`, entry `index`. Not *linked: a round does
 * not begin where the one before it ended, or the first not where this site is. */
static dure_err walk(bool *linked, uint32_t *n, const dure_session *s, uint64_t index,
                     const dure_event_round *last, dure_event *event, dure_diag *diag)
{
    dure_hash adapter;
    uint64_t i = 0;
    dure_err err = proven_adapter(&adapter, s, event, diag);
    /* Who holds none yet can make the first; it is asked for once it is needed. */
    *linked = holds(s, &adapter) || !s->adapter.n;
    *n = 1;
    for (uint64_t at = s->site.state.proven; !err; at = i + 1) {
        err = next_closed(&i, event, s, at, index, diag);
        if (err || i >= index) break;
        err = session_check_my_part(s, &event->u.round, diag);
        if (err) break;
        *linked = *linked && dure_hash_equal(&event->u.round.adapter_in, &adapter);
        adapter = event->u.round.adapter_out;
        ++*n;
    }
    *linked = *linked && dure_hash_equal(&last->adapter_in, &adapter);
    return err;
}

dure_err session_find_way(bool *can, session_step *first, dure_session *s, uint64_t index,
                          const dure_event_round *last, dure_diag *diag)
{
    uint64_t i = index;
    uint32_t n = 0;
    bool linked = false;
    dure_err err = DURE_OK;
    dure_event *event = calloc(1, sizeof *event);
    if (!event) return DURE_ERR_NOMEM;
    *can = false;
    session_step_of(first, index, last);
    if (has_entries(s, index)) {
        err = take_up_step(s, index, event, diag);
        if (!err) err = walk(&linked, &n, s, index, last, event, diag);
    }
    if (!err && linked && n > 1 && n <= STEPS_MAX) {
        err = next_closed(&i, event, s, s->site.state.proven, index, diag);
        if (!err) err = session_can_follow(can, s, event->u.round.adapter_in.b, diag);
        if (!err && *can) session_step_of(first, i, &event->u.round);
    }
    /* Without the rounds before it, at least its own step. */
    if (!err && !*can) err = session_can_follow(can, s, last->adapter_in.b, diag);
    free(event);
    return err;
}

dure_err session_next_step(dure_session *s, dure_diag *diag)
{
    const dure_msg_result *r = &s->round.result->u.result;
    dure_site_state *state = &s->site.state;
    session_step *step = &s->round.step;
    uint64_t i = 0;
    session_note_result(state, step);
    state->proven = step->index + 1;
    dure_err err = dure_site_save_state(&s->site, diag);
    if (err) return err;
    dure_event *event = calloc(1, sizeof *event);
    if (!event) return DURE_ERR_NOMEM;
    err = next_closed(&i, event, s, step->index + 1, r->leaf_index, diag);
    if (!err && i >= r->leaf_index) err = dure_event_decode(event, r->leaf, diag);
    if (!err) {
        session_step_of(step, i, &event->u.round);
        err = session_download(s, DOWNLOAD_SUM, step->sum.b, diag);
    }
    free(event);
    return err;
}

bool session_is_catching_up(const dure_session *s)
{
    return s->round.result && !s->round.config &&
           s->round.step.index < s->round.result->u.result.leaf_index;
}

/* ---- what this site says of the log ---- */

static bool is_newcomer(const dure_site_state *state)
{
    static const dure_hash none;
    return state->last_round == 0 && state->proven == 0 &&
           dure_hash_equal(&state->result_t3, &none);
}

/* Behind the proven entries no round closes in the log of n entries, or one that left the adapter
 * that this site has made; *unknown is an entry that closes another. */
static dure_err find_unknown(uint64_t *unknown, const dure_session *s, uint64_t n, dure_diag *diag)
{
    uint64_t first = 0;
    dure_event *event = calloc(1, sizeof *event);
    if (!event) return DURE_ERR_NOMEM;
    dure_err err = next_closed(&first, event, s, s->site.state.proven, n, diag);
    *unknown = first;
    if (!err && first < n && holds(s, &event->u.round.adapter_out)) {
        err = session_check_my_part(s, &event->u.round, diag);
        if (!err) err = next_closed(unknown, event, s, first + 1, n, diag);
    }
    free(event);
    return err;
}

static dure_err is_sure(bool *sure, dure_session *s, uint64_t n, dure_diag *diag)
{
    uint64_t unknown = 0;
    *sure = is_newcomer(&s->site.state);
    s->vouch_owed = !*sure && !has_entries(s, n);
    if (*sure || s->vouch_owed) return DURE_OK;
    dure_err err = find_unknown(&unknown, s, n, diag);
    *sure = !err && unknown >= n;
    if (err || *sure) return err;
    session_report(s, "not_cosigned",
                   json_pack("{s:I, s:s}", "entry", (json_int_t)unknown, "why",
                             "the log closes a round there that this site could not follow; it "
                             "waits until a quorum of other sites speaks for it"));
    return DURE_OK;
}

static dure_err cosign(dure_session *s, dure_diag *diag)
{
    dure_cosignature cosignature;
    dure_merkle_head head = dure_witness_head(s->witness);
    dure_err err =
        dure_witness_cosign(&cosignature, s->witness, &s->site.sign, (uint64_t)dure_clock_wall_s());
    if (err) return err;
    dure_msg msg = {.type = DURE_MSG_COSIGN,
                    .u.cosign = {.checkpoint_size = head.n, .time_s = cosignature.time_s}};
    memcpy(msg.u.cosign.checkpoint_root, head.root.b, DURE_DIGEST_BYTES);
    memcpy(msg.u.cosign.signature, cosignature.signature, DURE_SIGNATURE_BYTES);
    return session_send(NULL, s, &msg, NULL, diag);
}

dure_err session_vouch(dure_session *s, const session_step *result, dure_diag *diag)
{
    dure_site_state *state = &s->site.state;
    const uint64_t n = dure_witness_head(s->witness).n;
    bool sure = false;
    dure_err err = is_sure(&sure, s, n, diag);
    if (err) return err;
    if (result) session_note_result(state, result);
    if (sure && state->proven < n) state->proven = n;
    err = dure_site_save_state(&s->site, diag);
    return !err && sure ? cosign(s, diag) : err;
}
