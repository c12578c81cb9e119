#include "coordinator/history.h"

#include "federation/global_adapter.h"
#include "proto/messages.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The rounds as the log tells of them, in its order, and the leaf that closed the last. */
typedef struct told {
    dure_round_row *rows;
    size_t n, capacity;
    bool any_done;
    uint64_t done_index;
} told;

static dure_err read_event(dure_event *out, dure_buf *leaf, const dure_journal *journal,
                           uint64_t index, dure_diag *diag)
{
    dure_err err = dure_leaf_log_read(leaf, dure_journal_log(journal), index, diag);
    return err ? err : dure_event_decode(out, dure_buf_span(leaf), diag);
}

/* ---- one result ---- */

static dure_err encode_result(dure_buf *frame, const dure_event_round *round, dure_span leaf,
                              uint64_t index, dure_span note, dure_merkle_proof *proof,
                              dure_diag *diag)
{
    dure_msg msg = {.type = DURE_MSG_RESULT,
                    .u.result = {.leaf = leaf,
                                 .leaf_index = index,
                                 .checkpoint = note,
                                 .inclusion = (const uint8_t(*)[DURE_DIGEST_BYTES])proof->nodes,
                                 .n_inclusion = proof->n}};
    memcpy(msg.u.result.config_hash, round->h_c.b, DURE_DIGEST_BYTES);
    memcpy(msg.u.result.t3, round->t3.b, DURE_DIGEST_BYTES);
    memcpy(msg.u.result.sum_digest, round->result.b, DURE_DIGEST_BYTES);
    memcpy(msg.u.result.adapter_digest, round->adapter_out.b, DURE_DIGEST_BYTES);
    return dure_msg_encode(frame, &msg, diag);
}

dure_err dure_history_result(dure_buf *frame, const dure_journal *journal, uint64_t index,
                             dure_diag *diag)
{
    const uint64_t size = dure_journal_newest(journal);
    dure_buf leaf = {0}, note;
    dure_merkle_proof *proof = calloc(1, sizeof *proof);
    dure_event *event = calloc(1, sizeof *event);
    dure_buf_init(&note, DURE_NOTE_MAX);
    dure_err err = proof && event ? DURE_OK : DURE_ERR_NOMEM;
    if (!err && index >= size)
        err = dure_diag_set(diag, DURE_ERR_STATE, "no checkpoint covers entry %llu of the log",
                            (unsigned long long)index);
    if (!err) err = read_event(event, &leaf, journal, index, diag);
    if (!err && event->kind != DURE_EVENT_CLOSED)
        err = dure_diag_set(diag, DURE_ERR_FORMAT, "entry %llu of the log closes no round",
                            (unsigned long long)index);
    if (!err) err = dure_journal_note(&note, journal, size, diag);
    if (!err) err = dure_leaf_log_inclusion(proof, dure_journal_log(journal), size, index);
    if (!err)
        err = encode_result(frame, &event->u.round, dure_buf_span(&leaf), index,
                            dure_buf_span(&note), proof, diag);
    dure_buf_fini(&leaf);
    dure_buf_fini(&note);
    free(event);
    free(proof);
    return err;
}

/* ---- all rounds ---- */

/* The row of a round, made if there is none; NULL when out of memory. Its entries are not far
 * apart. */
static dure_round_row *row_of(told *t, uint64_t round)
{
    for (size_t i = t->n; i-- > 0;)
        if (t->rows[i].round == round) return &t->rows[i];
    if (t->n == t->capacity) {
        const size_t capacity = t->capacity ? 2 * t->capacity : 64;
        dure_round_row *rows = realloc(t->rows, capacity * sizeof *rows);
        if (!rows) return NULL;
        t->rows = rows;
        t->capacity = capacity;
    }
    t->rows[t->n] = (dure_round_row){.round = round, .status = DURE_STORED_FAILED};
    return &t->rows[t->n++];
}

static dure_err tell_round(told *t, const dure_event *event)
{
    const dure_event_round *e = &event->u.round;
    dure_round_row *row = row_of(t, e->round);
    if (!row) return DURE_ERR_NOMEM;
    row->config_hash = e->h_c;
    row->adapter_in = e->adapter_in;
    row->n_members = e->n_members;
    if (event->kind == DURE_EVENT_OPENED) {
        row->opened_s = event->time_s;
        snprintf(row->reason, sizeof row->reason,
                 "its end is not in the log; its sites count it as spent");
        return DURE_OK;
    }
    row->closed_s = event->time_s;
    row->t3 = e->t3;
    snprintf(row->reason, sizeof row->reason, "%.255s", e->reason);
    if (event->kind == DURE_EVENT_ABORTED) return DURE_OK;
    row->status = DURE_STORED_DONE;
    row->sum = e->result;
    row->adapter_out = e->adapter_out;
    row->ledger_index = event->index;
    row->n_survivors = dure_event_round_count(e, DURE_PART_SUMMED);
    t->any_done = true;
    t->done_index = event->index;
    return DURE_OK;
}

static dure_err read_told(told *t, const dure_journal *journal, dure_diag *diag)
{
    dure_event *event = calloc(1, sizeof *event);
    dure_err err = event ? DURE_OK : DURE_ERR_NOMEM;
    for (uint64_t i = 0; !err && i < dure_leaf_log_size(dure_journal_log(journal)); i++) {
        dure_buf leaf = {0};
        err = read_event(event, &leaf, journal, i, diag);
        if (!err && (event->kind == DURE_EVENT_OPENED || event->kind == DURE_EVENT_CLOSED ||
                     event->kind == DURE_EVENT_ABORTED))
            err = tell_round(t, event);
        dure_buf_fini(&leaf);
    }
    free(event);
    return err;
}

static dure_err first_adapter(dure_hash *out, const dure_terms *terms, dure_diag *diag)
{
    dure_buf file = {0};
    dure_err err = dure_global_adapter_first(&file, terms, diag);
    if (!err) err = dure_hash_bytes(out, dure_buf_span(&file));
    dure_buf_fini(&file);
    return err;
}

dure_err dure_history_follow(dure_store *store, const dure_journal *journal,
                             const dure_terms *terms, dure_diag *diag)
{
    told t = {.n = 0};
    dure_buf frame;
    dure_hash first;
    dure_buf_init(&frame, DURE_MSG_BYTES_MAX);
    dure_err err = read_told(&t, journal, diag);
    if (!err) err = first_adapter(&first, terms, diag);
    if (!err && t.any_done) err = dure_history_result(&frame, journal, t.done_index, diag);
    if (!err) err = dure_store_adopt(store, t.rows, t.n, dure_buf_span(&frame), &first, diag);
    free(t.rows);
    dure_buf_fini(&frame);
    return err;
}
