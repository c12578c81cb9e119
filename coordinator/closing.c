/* From the masks of the sum to the published result: sum, server step, gate, leaf, Result. */
#include "coordinator/coordinator_int.h"

#include "common/clock.h"
#include "coordinator/next_adapter.h"
#include "federation/server_step.h"
#include "registry/blob.h"

#include <malloc.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RETRY_FIRST_MS = 2000, RETRY_MOST_MS = 60000 };

/* ---- the end of a round without a sum ---- */

static dure_err append_round(dure_coordinator *c, dure_event_kind kind,
                             const dure_round_outcome *outcome, dure_buf *leaf, dure_diag *diag)
{
    dure_event *event = calloc(1, sizeof *event);
    if (!event) return DURE_ERR_NOMEM;
    dure_round_event_make(event, kind, c->now.config, outcome, dure_clock_wall_s());
    dure_err err = dure_journal_append(leaf, c->journal, event, diag);
    free(event);
    return err;
}

dure_err dure_coordinator_abandon(dure_coordinator *c, const char *reason, dure_diag *diag)
{
    dure_round_outcome outcome = {
        .config_hash = c->now.row.config_hash, .u2 = c->now.u2, .reason = reason};
    if (dure_secagg_server_t3(&outcome.t3, dure_round_sum(c->now.round)))
        outcome.t3 = (dure_hash){{0}};
    dure_err err = append_round(c, DURE_EVENT_ABORTED, &outcome, NULL, diag);
    if (!err)
        err = dure_store_fail_round(c->store, c->now.row.round, reason, dure_clock_wall_s(), diag);
    if (!err) err = dure_aggregate_remove(c->now.aggregate, diag);
    /* Sites that wait for a result are told; those before the sum were told by its machine. */
    const bool waiting = dure_round_state_of(c->now.round) == DURE_ROUND_SUMMED;
    for (uint32_t m = 0; !err && waiting && m < c->now.config->n_members; m++)
        if (dure_members_has(&c->now.u3, m))
            err = dure_coordinator_tell_over(c, c->now.sites[m], &c->now.row.config_hash, reason,
                                             diag);
    if (err) return err;
    dure_coordinator_report(
        c, "round_failed",
        json_pack("{s:I, s:s}", "round", (json_int_t)c->now.row.round, "why", reason));
    const uint32_t doublings = c->failures < 5 ? c->failures : 5;
    const uint64_t wait = (uint64_t)RETRY_FIRST_MS << doublings;
    c->failures++;
    snprintf(c->last_failure, sizeof c->last_failure, "%s", reason);
    c->retry_ms = dure_clock_monotonic_ms() + (wait < RETRY_MOST_MS ? wait : RETRY_MOST_MS);
    dure_coordinator_forget_round(c);
    c->state = DURE_LOOP_GATHERING;
    return DURE_OK;
}

/* ---- the sum ---- */

/* What the round has left in the heap so far goes back before more is needed. */
static void give_memory_back(void)
{
#if defined(__GLIBC__)
    malloc_trim(0);
#endif
}

/* Encodes it where it lies: memory is counted in adapters here. */
static dure_err store_sum(dure_coordinator *c, int32_t *sum, dure_diag *diag)
{
    const size_t n = c->now.config->n_words;
    uint8_t *bytes = (uint8_t *)sum;
    char *blobs = dure_folder_path(&c->folder, DURE_FOLDER_BLOBS);
    if (!blobs) return DURE_ERR_NOMEM;
    dure_server_step_sum_put(bytes, sum, n);
    dure_err err = dure_blob_put(&c->now.row.sum, blobs, dure_span_of(bytes, 4 * n), diag);
    if (!err) err = dure_secagg_server_t3(&c->now.row.t3, dure_round_sum(c->now.round));
    c->now.row.n_survivors = (uint32_t)dure_members_count(&c->now.u3);
    if (!err) err = dure_store_sum_round(c->store, &c->now.row, diag);
    if (!err) c->now.row.status = DURE_STORED_SUMMED;
    free(blobs);
    return err;
}

dure_err dure_coordinator_sum(dure_coordinator *c, dure_diag *diag)
{
    give_memory_back();
    int32_t *sum = NULL;
    const uint64_t start_ms = dure_clock_monotonic_ms();
    dure_diag why = {{0}};
    dure_err err =
        dure_aggregate_sum(&sum, c->now.aggregate, &c->now.u3,
                           dure_secagg_server_unmasker(dure_round_sum(c->now.round)), &why);
    if (err == DURE_ERR_STATE || err == DURE_ERR_AUTH) {
        /* A vector was lost on this disk, as by a power cut: there is no sum and will be none. */
        err = dure_coordinator_abandon(c, why.text, diag);
        goto out;
    }
    if (err) dure_diag_set(diag, err, "%s", why.text[0] ? why.text : dure_err_text(err));
    if (!err) err = store_sum(c, sum, diag);
    if (!err)
        dure_coordinator_report(
            c, "round_summed",
            json_pack("{s:I, s:I, s:I, s:I, s:f}", "round", (json_int_t)c->now.row.round, "sites",
                      (json_int_t)c->now.row.n_survivors, "of", (json_int_t)c->now.row.n_members,
                      "masked_bytes", (json_int_t)dure_aggregate_received(c->now.aggregate),
                      "seconds", (double)(dure_clock_monotonic_ms() - start_ms) / 1000));
out:
    free(sum);
    if (err || c->now.row.status != DURE_STORED_SUMMED) return err;
    return dure_coordinator_take_up_sum(c, diag);
}

/* ---- the new adapter ---- */

dure_err dure_coordinator_closed_leaf(uint64_t *index, dure_buf *leaf, const dure_coordinator *c,
                                      dure_diag *diag)
{
    const dure_leaf_log *log = dure_journal_log(c->journal);
    bool there = false;
    dure_event *event = calloc(1, sizeof *event);
    dure_buf_init(leaf, DURE_LEAF_MAX);
    if (!event) return DURE_ERR_NOMEM;
    dure_err err = dure_coordinator_last_said(&there, event, c, diag);
    there = !err && there && event->kind == DURE_EVENT_CLOSED;
    *index = there ? event->index : dure_leaf_log_size(log);
    if (there) err = dure_leaf_log_read(leaf, log, *index, diag);
    free(event);
    return err;
}

/* The version whose adapter the round started from; 0 for the first. */
static uint64_t parent_of(dure_coordinator *c)
{
    char hex[65];
    dure_version version;
    dure_hex_encode(hex, c->now.row.adapter_in.b, sizeof c->now.row.adapter_in.b);
    return dure_registry_find(&version, c->registry, hex, NULL) ? 0 : version.number;
}

static dure_err register_version(dure_coordinator *c, dure_diag *diag)
{
    dure_buf leaf = {0};
    dure_candidate candidate = {.parent = parent_of(c),
                                .round = c->now.row.round,
                                .base = c->folder.settings.terms.base.digest,
                                .created_s = dure_clock_wall_s()};
    dure_err err = dure_coordinator_closed_leaf(&candidate.ledger_index, &leaf, c, diag);
    dure_buf_fini(&leaf);
    if (!err)
        err = dure_registry_add_stored(&c->gating.version, c->registry, &candidate,
                                       &c->now.row.adapter_out, diag);
    return err;
}

static dure_err begin_gate(dure_coordinator *c, dure_diag *diag);

/* Also after a restart between the sum and the result. */
dure_err dure_coordinator_take_up_sum(dure_coordinator *c, dure_diag *diag)
{
    char *blobs = dure_folder_path(&c->folder, DURE_FOLDER_BLOBS);
    const dure_next_adapter next = {.terms = &c->folder.settings.terms,
                                    .blobs = blobs,
                                    .adapter_in = c->now.row.adapter_in,
                                    .sum = c->now.row.sum,
                                    .n_sites = c->now.row.n_survivors};
    dure_diag why = {{0}};
    give_memory_back();
    dure_err err = blobs ? dure_aggregate_remove(c->now.aggregate, diag) : DURE_ERR_NOMEM;
    if (err) goto out;
    err = dure_next_adapter_make(&c->now.row.adapter_out, &next, &why);
    if (err == DURE_ERR_PROTO) { /* no honest sites sum to this: the round ends without its sum */
        err = dure_coordinator_abandon(c, why.text, diag);
        goto out;
    }
    if (err && why.text[0]) dure_diag_set(diag, err, "%s", why.text);
    if (!err) err = register_version(c, diag);
    if (!err) err = begin_gate(c, diag);
out:
    free(blobs);
    return err;
}

/* ---- the gate ---- */

static dure_err publish(dure_coordinator *c, dure_diag *diag);

/* Without a verdict the round still counts; the adapter stays a candidate. */
static dure_err skip_gate(dure_coordinator *c, const char *why, dure_diag *diag)
{
    if (c->opts.gate)
        dure_coordinator_report(c, "gate_failed",
                                json_pack("{s:I, s:I, s:s}", "round", (json_int_t)c->now.row.round,
                                          "version", (json_int_t)c->gating.version, "why", why));
    c->gating.running = false;
    c->gating.verdict = (dure_event_gate){.verdict = DURE_VERDICT_NONE};
    return publish(c, diag);
}

/* Whom the candidate has to beat: the champion, or the base alone. */
static void choose_reference(dure_coordinator *c, dure_hash *adapter)
{
    dure_version champion;
    *adapter = (dure_hash){{0}};
    c->gating.reference_version = 0;
    if (dure_registry_find(&champion, c->registry, "champion", NULL)) return;
    *adapter = champion.adapter;
    c->gating.reference_version = champion.number;
}

static dure_err start_child(dure_coordinator *c, uint64_t version, bool candidate, dure_diag *diag)
{
    dure_version v;
    char *path = NULL;
    dure_err err = DURE_OK;
    if (version) err = dure_registry_get(&v, c->registry, version, diag);
    if (!err && version && !(path = dure_registry_adapter_path(c->registry, &v)))
        err = DURE_ERR_NOMEM;
    if (!err) err = c->opts.gate->start(c->opts.gate->state, path, diag);
    c->gating.running = !err;
    c->gating.for_candidate = candidate;
    free(path);
    return err;
}

static dure_err begin_gate(dure_coordinator *c, dure_diag *diag)
{
    dure_hash reference;
    dure_diag why = {{0}};
    c->state = DURE_LOOP_GATING;
    if (!c->opts.gate) return skip_gate(c, "", diag);
    choose_reference(c, &reference);
    dure_gating *g = &c->gating;
    if (!g->reference_known || !dure_hash_equal(&reference, &g->reference_of)) {
        g->reference_known = false;
        g->reference_of = reference;
    }
    dure_err err = g->reference_known ? start_child(c, g->version, true, &why)
                                      : start_child(c, g->reference_version, false, &why);
    return err ? skip_gate(c, why.text, diag) : DURE_OK;
}

static dure_err judge(dure_coordinator *c, const double *losses, size_t n, dure_diag *diag)
{
    dure_gating *g = &c->gating;
    dure_gate_result result;
    char text[192];
    if (n != g->n_reference)
        return dure_diag_set(diag, DURE_ERR_STATE, "the evaluation gave %zu losses and %zu before",
                             n, g->n_reference);
    const dure_gate_opts opts = {.margin = c->folder.settings.gate_margin};
    dure_err err = dure_gate_compare(&result, g->reference, losses, n, &opts, diag);
    if (!err)
        err = dure_registry_set_gate(c->registry, g->version, &result, g->reference_version, diag);
    if (err) return err;
    g->verdict =
        (dure_event_gate){.verdict = result.passed ? DURE_VERDICT_PASSED : DURE_VERDICT_FAILED,
                          .records = result.n_records,
                          .loss_before = result.reference_loss,
                          .loss_after = result.candidate_loss};
    dure_gate_text(text, &result);
    dure_coordinator_report(
        c, "gate",
        json_pack("{s:I, s:I, s:b, s:f, s:f, s:s}", "round", (json_int_t)c->now.row.round,
                  "version", (json_int_t)g->version, "passed", result.passed, "reference_loss",
                  result.reference_loss, "loss",
                  isfinite(result.candidate_loss) ? result.candidate_loss : -1.0, "text", text));
    return DURE_OK;
}

/* Losses came: those of the reference are kept, those of the candidate judged. */
static dure_err take_losses(dure_coordinator *c, double *losses, size_t n, bool *judged,
                            dure_diag *why)
{
    dure_gating *g = &c->gating;
    g->running = false;
    *judged = g->for_candidate;
    if (g->for_candidate) {
        dure_err err = judge(c, losses, n, why);
        free(losses);
        return err;
    }
    free(g->reference);
    g->reference = losses;
    g->n_reference = n;
    g->reference_known = true;
    return start_child(c, g->version, true, why);
}

dure_err dure_coordinator_tick_gate(dure_coordinator *c, dure_diag *diag)
{
    bool done = false, judged = false;
    double *losses = NULL;
    size_t n = 0;
    dure_diag why = {{0}};
    dure_err err = c->opts.gate->poll(&done, &losses, &n, c->opts.gate->state, &why);
    if (!err && !done) return DURE_OK;
    if (!err) err = take_losses(c, losses, n, &judged, &why);
    if (err == DURE_ERR_DISK_FULL || err == DURE_ERR_NOMEM)
        return dure_diag_set(diag, err, "%s", why.text);
    if (err) return skip_gate(c, why.text[0] ? why.text : dure_err_text(err), diag);
    return judged ? publish(c, diag) : DURE_OK;
}

/* ---- the result ---- */

typedef struct result_parts {
    dure_buf leaf, note, frame;
    uint64_t index;
    dure_merkle_proof inclusion, consistency;
} result_parts;

static dure_err close_leaf(dure_coordinator *c, result_parts *parts, dure_diag *diag)
{
    dure_err err = dure_coordinator_closed_leaf(&parts->index, &parts->leaf, c, diag);
    if (err || parts->leaf.n > 0) return err;
    const dure_round_outcome outcome = {.config_hash = c->now.row.config_hash,
                                        .t3 = c->now.row.t3,
                                        .adapter_out = c->now.row.adapter_out,
                                        .sum = c->now.row.sum,
                                        .u2 = c->now.u2,
                                        .u3 = c->now.u3,
                                        .gate = c->gating.verdict};
    return append_round(c, DURE_EVENT_CLOSED, &outcome, &parts->leaf, diag);
}

static dure_err prove(dure_coordinator *c, result_parts *parts)
{
    const dure_leaf_log *log = dure_journal_log(c->journal);
    const uint64_t n = dure_leaf_log_size(log);
    const uint64_t cited = c->now.config->checkpoint_size;
    dure_err err = dure_leaf_log_inclusion(&parts->inclusion, log, n, parts->index);
    if (!err && cited) err = dure_leaf_log_consistency(&parts->consistency, log, n, cited);
    return err;
}

static dure_err encode_result(dure_coordinator *c, result_parts *parts, dure_diag *diag)
{
    dure_msg msg = {
        .type = DURE_MSG_RESULT,
        .u.result = {.leaf = dure_buf_span(&parts->leaf),
                     .leaf_index = parts->index,
                     .checkpoint = dure_buf_span(&parts->note),
                     .inclusion = (const uint8_t(*)[DURE_DIGEST_BYTES])parts->inclusion.nodes,
                     .n_inclusion = parts->inclusion.n,
                     .consistency = (const uint8_t(*)[DURE_DIGEST_BYTES])parts->consistency.nodes,
                     .n_consistency = parts->consistency.n}};
    dure_msg_result *r = &msg.u.result;
    memcpy(r->config_hash, c->now.row.config_hash.b, sizeof r->config_hash);
    memcpy(r->t3, c->now.row.t3.b, sizeof r->t3);
    memcpy(r->sum_digest, c->now.row.sum.b, sizeof r->sum_digest);
    memcpy(r->adapter_digest, c->now.row.adapter_out.b, sizeof r->adapter_digest);
    dure_buf_init(&parts->frame, DURE_MSG_BYTES_MAX);
    return dure_msg_encode(&parts->frame, &msg, diag);
}

static void report_done(dure_coordinator *c)
{
    char hex[65];
    dure_hex_encode(hex, c->now.row.adapter_out.b, sizeof c->now.row.adapter_out.b);
    dure_coordinator_report(
        c, "round_done",
        json_pack("{s:I, s:I, s:I, s:I, s:I, s:s, s:I}", "round", (json_int_t)c->now.row.round,
                  "number", (json_int_t)c->facts.n_done, "sites",
                  (json_int_t)c->now.row.n_survivors, "of", (json_int_t)c->now.row.n_members,
                  "version", (json_int_t)c->gating.version, "adapter", hex, "ledger_index",
                  (json_int_t)c->now.row.ledger_index));
}

/* The stored result proves that the log extends what the configuration cited. Every site gets the
 * proof from what it has seen itself, or it could never cosign again. */
static dure_err prove_to(dure_merkle_proof *proof, const dure_coordinator *c,
                         const dure_site_state *s, const dure_merkle_head *shown)
{
    const uint64_t seen = s->checkpoint.n;
    proof->n = 0;
    if (seen == 0 || seen == shown->n) return DURE_OK;
    return dure_leaf_log_consistency(proof, dure_journal_log(c->journal),
                                     seen > shown->n ? seen : shown->n,
                                     seen > shown->n ? shown->n : seen);
}

dure_err dure_coordinator_send_result(dure_coordinator *c, size_t site, dure_span frame,
                                      dure_diag *diag)
{
    dure_site_state *s = &c->sites[site];
    dure_msg *msg = NULL;
    dure_merkle_proof *proof = calloc(1, sizeof *proof);
    dure_note *note = calloc(1, sizeof *note);
    dure_err err = proof && note ? dure_msg_decode(&msg, frame, diag) : DURE_ERR_NOMEM;
    if (!err) err = dure_note_parse(note, msg->u.result.checkpoint, diag);
    if (!err) err = prove_to(proof, c, s, &note->checkpoint.head);
    if (!err) {
        msg->u.result.consistency = (const uint8_t(*)[DURE_DIGEST_BYTES])proof->nodes;
        msg->u.result.n_consistency = proof->n;
        /* First the entries: whoever cosigns then has what it cosigns, should it be lost here. */
        if (s->checkpoint.n < note->checkpoint.head.n)
            err = dure_coordinator_send_entries(c, site, s->checkpoint.n, note->checkpoint.head.n,
                                                diag);
    }
    if (!err) {
        err = dure_coordinator_send(c, site, msg, diag);
        /* What is sent to it next begins where this leaves it. */
        if (s->checkpoint.n < note->checkpoint.head.n) s->checkpoint = note->checkpoint.head;
    }
    dure_msg_free(&msg);
    free(proof);
    free(note);
    return err;
}

dure_err dure_coordinator_show_last(dure_coordinator *c, size_t site, dure_diag *diag)
{
    dure_buf frame = {0};
    if (c->facts.n_done == 0 || c->sites[site].has_result) return DURE_OK;
    dure_err err = dure_store_result(&frame, c->store, c->facts.done_round, diag);
    if (!err) err = dure_coordinator_send_result(c, site, dure_buf_span(&frame), diag);
    dure_buf_fini(&frame);
    return err;
}

static dure_err show_all(dure_coordinator *c, dure_span frame, dure_diag *diag)
{
    dure_err err = DURE_OK;
    c->published_ms = dure_clock_monotonic_ms();
    c->releases_shown = true;
    /* To all that are here: who was not in the round follows its log and cosigns it, too. */
    for (size_t i = 0; !err && i < dure_roster_count(c->roster); i++) {
        c->sites[i].has_result = false;
        if (dure_coordinator_site_present(c, i, c->published_ms))
            err = dure_coordinator_send_result(c, i, frame, diag);
    }
    return err;
}

/* On disk first: sites that ask later get the same bytes. */
static dure_err finish(dure_coordinator *c, result_parts *parts, dure_diag *diag)
{
    c->now.row.ledger_index = parts->index;
    c->now.row.closed_s = dure_clock_wall_s();
    dure_err err =
        dure_store_finish_round(c->store, &c->now.row, dure_buf_span(&parts->frame), diag);
    if (!err) err = dure_store_facts_get(&c->facts, c->store, diag);
    if (err) return err;
    err = show_all(c, dure_buf_span(&parts->frame), diag);
    if (err) return err;
    c->rounds_done++;
    c->failures = 0;
    report_done(c);
    dure_coordinator_forget_round(c);
    c->state = DURE_LOOP_GATHERING;
    return DURE_OK;
}

static dure_err publish(dure_coordinator *c, dure_diag *diag)
{
    result_parts *parts = calloc(1, sizeof *parts);
    if (!parts) return DURE_ERR_NOMEM;
    dure_buf_init(&parts->leaf, DURE_LEAF_MAX);
    dure_buf_init(&parts->note, DURE_NOTE_MAX);
    dure_err err = close_leaf(c, parts, diag);
    if (!err) err = dure_journal_checkpoint(&parts->note, c->journal, &c->folder.sign, diag);
    c->cited_known = false;
    if (!err) err = prove(c, parts);
    if (!err) err = encode_result(c, parts, diag);
    if (!err) err = finish(c, parts, diag);
    dure_buf_fini(&parts->leaf);
    dure_buf_fini(&parts->note);
    dure_buf_fini(&parts->frame);
    free(parts);
    return err;
}

/* The last result again, in the log as it is now. */
static dure_err renew_result(dure_coordinator *c, result_parts *parts, dure_diag *diag)
{
    const dure_leaf_log *log = dure_journal_log(c->journal);
    dure_buf old = {0};
    dure_msg *msg = NULL;
    dure_err err = dure_store_result(&old, c->store, c->facts.done_round, diag);
    if (!err) err = dure_msg_decode(&msg, dure_buf_span(&old), diag);
    if (!err) err = dure_journal_checkpoint(&parts->note, c->journal, &c->folder.sign, diag);
    c->cited_known = false;
    if (!err)
        err = dure_leaf_log_inclusion(&parts->inclusion, log, dure_leaf_log_size(log),
                                      msg->u.result.leaf_index);
    if (!err) {
        dure_msg_result *r = &msg->u.result;
        r->checkpoint = dure_buf_span(&parts->note);
        r->inclusion = (const uint8_t(*)[DURE_DIGEST_BYTES])parts->inclusion.nodes;
        r->n_inclusion = parts->inclusion.n;
        r->n_consistency = 0; /* each site gets its own */
        dure_buf_init(&parts->frame, DURE_MSG_BYTES_MAX);
        err = dure_msg_encode(&parts->frame, msg, diag);
    }
    if (!err)
        err = dure_store_renew_result(c->store, c->facts.done_round, dure_buf_span(&parts->frame),
                                      diag);
    if (!err) err = show_all(c, dure_buf_span(&parts->frame), diag);
    dure_msg_free(&msg);
    dure_buf_fini(&old);
    return err;
}

dure_err dure_coordinator_log_releases(dure_coordinator *c, dure_diag *diag)
{
    size_t n = 0;
    /* From the sum to the result the next entry is the round's own, whose number is known. */
    if (c->recovery.needed || !dure_coordinator_heard_enough(c) || c->state == DURE_LOOP_GATING ||
        (c->now.config && c->now.row.status != DURE_STORED_OPEN && c->state == DURE_LOOP_RUNNING))
        return DURE_OK;
    dure_err err = dure_releases_log(&n, c->registry, c->journal, c->facts.run_id, diag);
    if (n) c->releases_shown = false;
    if (n) dure_coordinator_report(c, "releases_logged", json_pack("{s:I}", "n", (json_int_t)n));
    if (err || c->releases_shown || c->state != DURE_LOOP_GATHERING || c->facts.n_done == 0)
        return err;
    result_parts *parts = calloc(1, sizeof *parts);
    if (!parts) return DURE_ERR_NOMEM;
    dure_buf_init(&parts->note, DURE_NOTE_MAX);
    err = renew_result(c, parts, diag);
    dure_buf_fini(&parts->note);
    dure_buf_fini(&parts->frame);
    free(parts);
    return err;
}

dure_err dure_coordinator_on_cosign(dure_coordinator *c, size_t site, const dure_msg *msg,
                                    dure_diag *diag)
{
    const dure_msg_cosign *m = &msg->u.cosign;
    const dure_join *join = &dure_roster_at(c->roster, site)->join;
    dure_cosignature cosignature = {.time_s = m->time_s};
    dure_site_key key = {.name = ""};
    dure_diag why = {{0}};
    uint64_t before = 0, cited = 0;
    memcpy(cosignature.signature, m->signature, sizeof cosignature.signature);
    memcpy(key.name, join->invitation.name, sizeof key.name);
    memcpy(key.sign_public, join->sign_public, sizeof key.sign_public);
    dure_err err = dure_coordinator_citable(&before, c, diag);
    if (err) return err;
    err = dure_journal_cosign(c->journal, m->checkpoint_size, &key, &cosignature, &why);
    if (err == DURE_ERR_NOT_FOUND || err == DURE_ERR_AUTH || err == DURE_ERR_LIMIT) {
        dure_coordinator_refuse_message(c, site, msg, err, &why);
        return DURE_OK;
    }
    if (err) return dure_diag_set(diag, err, "%s", why.text[0] ? why.text : dure_err_text(err));
    /* Counting verifies every cosignature: one more on what counts already changes nothing. */
    if (m->checkpoint_size > before) c->cited_known = false;
    dure_site_state *s = &c->sites[site];
    s->has_result = s->has_result || m->checkpoint_size == dure_journal_newest(c->journal);
    if (m->checkpoint_size > s->checkpoint.n) {
        s->checkpoint.n = m->checkpoint_size;
        memcpy(s->checkpoint.root.b, m->checkpoint_root, sizeof s->checkpoint.root.b);
    }
    err = dure_coordinator_citable(&cited, c, diag);
    if (!err && cited > before)
        dure_coordinator_report(c, "checkpoint_counts",
                                json_pack("{s:I}", "size", (json_int_t)cited));
    return err;
}
