/* The site's copy of the federation's log, DIR/log, and what a coordinator may ask back of it.
 *
 * 1. Entries are fetched as far as the last checkpoint that was verified, and kept once their root
 * is that checkpoint's.
 * 2. A coordinator that says it lost something is told what every site has: log, roster, notes, the
 *    global adapter, the last sum. Nothing of a round in hand, nothing of this site's data; and
 *    answering changes nothing here. So it gains nothing by pretending.
 * 3. Only the root can take entries back, once for each statement (ledger/witness.h), and it puts
 * no others in their place. */
#include "client/session_int.h"

#include "common/clock.h"
#include "crypto/wipe.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ASK_AGAIN_MS = 10000,
    GREET_AFTER_MS = 2000,
    PENDING_MAX_BYTES = 1 << 28,
    AHEAD_MAX_BYTES = 1 << 21, /* of entries that come before the result which covers them */
    SUM_MAX_BYTES = 1 << 30,
};

/* ---- the copy ---- */

static void drop_pending(dure_session *s)
{
    log_copy *c = &s->copy;
    dure_buf_fini(&c->entries);
    dure_buf_init(&c->entries, PENDING_MAX_BYTES);
    c->have = dure_leaf_log_size(c->log);
}

/* The tree of what is kept, for what follows it. */
static dure_err restart_tree(dure_session *s)
{
    log_copy *c = &s->copy;
    dure_err err = DURE_OK;
    drop_pending(s);
    c->tree = (dure_merkle_frontier){.n = 0};
    for (uint64_t i = 0; !err && i < c->have; i++)
        err = dure_merkle_frontier_add(&c->tree, dure_leaf_log_leaf_hash(c->log, i));
    return err;
}

/* A copy that is not of the log which this site has verified is fetched anew; what is behind that
 * log was taken back by the root. */
static dure_err check_copy(dure_session *s, dure_diag *diag)
{
    log_copy *c = &s->copy;
    dure_merkle_head own, seen = dure_witness_head(s->witness);
    if (dure_leaf_log_size(c->log) < seen.n) return DURE_OK;
    dure_err err = dure_leaf_log_head(&own, c->log, seen.n);
    const bool same = !err && dure_hash_equal(&own.root, &seen.root);
    return err ? err : dure_leaf_log_cut(c->log, same ? seen.n : 0, diag);
}

/* The result that the next round follows is in the log that this site has verified, unless the root
 * took it back: also when a crash came between the two files. */
static dure_err forget_lost_result(dure_session *s, dure_diag *diag)
{
    dure_site_state *state = &s->site.state;
    const uint64_t n = dure_witness_head(s->witness).n;
    const bool lost = state->result_index && state->result_index >= n;
    if (!lost && state->proven <= n) return DURE_OK;
    if (state->proven > n) state->proven = n;
    if (lost) {
        state->result_t3 = state->result_adapter = (dure_hash){{0}};
        state->result_index = 0;
    }
    return dure_site_save_state(&s->site, diag);
}

dure_err session_open_log(dure_session *s, dure_diag *diag)
{
    char *path = dure_site_path(&s->site, DURE_SITE_LOG);
    dure_err err =
        path ? dure_leaf_log_open(&s->copy.log, path, DURE_LEAF_LOG_WRITE, diag) : DURE_ERR_NOMEM;
    if (!err) err = check_copy(s, diag);
    if (!err) err = restart_tree(s);
    if (!err) err = forget_lost_result(s, diag);
    free(path);
    return err;
}

void session_close_log(dure_session *s)
{
    dure_buf_fini(&s->copy.entries);
    dure_leaf_log_close(&s->copy.log);
}

/* All entries up to the checkpoint are here: they are kept if they are what it signs. */
static dure_err keep(dure_session *s, dure_diag *diag)
{
    log_copy *c = &s->copy;
    dure_hash root;
    const dure_merkle_head seen = dure_witness_head(s->witness);
    dure_err err = dure_merkle_frontier_root(&root, &c->tree);
    if (err) return err;
    if (!dure_hash_equal(&root, &seen.root)) {
        session_report(s, "log_refused",
                       json_pack("{s:s}", "why",
                                 "the entries that the coordinator sent are not those of the log "
                                 "that it signed"));
        return restart_tree(s);
    }
    dure_reader r = dure_reader_of(dure_buf_span(&c->entries));
    while (!err && r.at < r.n) {
        dure_span leaf;
        uint64_t index;
        err = dure_take_bytes(&leaf, &r, DURE_LEAF_MAX);
        if (!err) err = dure_leaf_log_append(&index, c->log, leaf, diag);
    }
    drop_pending(s);
    return err;
}

dure_err session_settle_log(dure_session *s, dure_diag *diag)
{
    const log_copy *c = &s->copy;
    const bool pending = c->log && c->have > dure_leaf_log_size(c->log);
    return pending && c->have == dure_witness_head(s->witness).n ? keep(s, diag) : DURE_OK;
}

bool session_log_is_whole(const dure_session *s)
{
    return s->copy.given_up || s->copy.have >= dure_witness_head(s->witness).n;
}

dure_err session_tick_log(dure_session *s, uint64_t now_ms, dure_diag *diag)
{
    log_copy *c = &s->copy;
    const uint64_t seen = dure_witness_head(s->witness).n;
    if (c->given_up) return DURE_OK;
    if (c->asked_ms && dure_elapsed_ms(now_ms, c->asked_ms) < ASK_AGAIN_MS) return DURE_OK;
    /* What came ahead of a checkpoint that did not follow: it is asked for when it is due. */
    dure_err err = c->have > seen ? restart_tree(s) : DURE_OK;
    if (err || c->have >= seen) return err;
    const dure_msg msg = {.type = DURE_MSG_ENTRIES_REQUEST,
                          .u.entries_request = {DURE_ENTRIES_LOG, c->have}};
    c->asked_ms = now_ms;
    return session_send(NULL, s, &msg, NULL, diag);
}

static dure_err take_leaf(log_copy *c, dure_span leaf)
{
    dure_hash hash;
    dure_err err = dure_merkle_leaf(&hash, leaf);
    if (!err) err = dure_merkle_frontier_add(&c->tree, &hash);
    dure_put_bytes(&c->entries, leaf.data, leaf.n);
    if (!err) err = dure_buf_err(&c->entries);
    if (!err) c->have++;
    return err;
}

/* Too much to hold until it is verified. What came ahead comes again when it is due; a log that is
 * so much longer than the copy is gone without. */
static dure_err too_much(dure_session *s, bool ahead)
{
    s->copy.given_up = !ahead;
    if (!ahead)
        session_report(
            s, "log_refused",
            json_pack("{s:s}", "why", "the log is too much longer than this site's copy of it"));
    return restart_tree(s);
}

/* What follows what is here, whether it was asked for or comes ahead of the result that covers it;
 * malformed entries end the answer. */
dure_err session_on_entries(dure_session *s, const dure_msg_entries *e, dure_span payload,
                            dure_diag *diag)
{
    log_copy *c = &s->copy;
    dure_reader r = dure_reader_of(payload);
    dure_err err = DURE_OK;
    if (e->kind != DURE_ENTRIES_LOG || e->from != c->have || payload.n != e->n_bytes || c->given_up)
        return DURE_OK;
    const uint64_t before = c->have, seen = dure_witness_head(s->witness).n;
    const bool ahead = before >= seen;
    if (ahead && c->entries.n + payload.n > AHEAD_MAX_BYTES) return too_much(s, ahead);
    for (uint32_t i = 0; !err && i < e->n_entries && (ahead || c->have < seen); i++) {
        dure_span leaf;
        if (dure_take_bytes(&leaf, &r, DURE_LEAF_MAX)) break;
        err = take_leaf(c, leaf);
    }
    if (err == DURE_ERR_LIMIT) return too_much(s, ahead);
    if (!err) err = session_settle_log(s, diag);
    if (!err && s->vouch_owed && !ahead && session_log_is_whole(s) && !s->round.result)
        err = session_vouch(s, NULL, diag);
    /* The next ones at once, when there are any; ahead of its result, for a while. */
    if (c->have > before) c->asked_ms = c->have < seen ? 0 : dure_clock_monotonic_ms();
    return err;
}

/* ---- what the root takes back ---- */

/* What is kept must be what this site saw, as far as its copy tells: the root takes entries back,
 * and does not put others in their place. */
static dure_err check_kept(const dure_session *s, dure_span leaf, dure_diag *why)
{
    dure_merkle_head own;
    dure_event *event = calloc(1, sizeof *event);
    dure_err err = event ? dure_event_decode(event, leaf, why) : DURE_ERR_NOMEM;
    const dure_merkle_head *kept = err ? NULL : &event->u.epoch.kept;
    if (!err && event->kind == DURE_EVENT_NEW_EPOCH && kept->n <= dure_leaf_log_size(s->copy.log)) {
        err = dure_leaf_log_head(&own, s->copy.log, kept->n);
        if (!err && !dure_hash_equal(&own.root, &kept->root))
            err = dure_diag_set(why, DURE_ERR_AUTH,
                                "the new epoch keeps %llu entries, and they are not the first that "
                                "this site has seen",
                                (unsigned long long)kept->n);
    }
    free(event);
    return err;
}

dure_err session_on_new_epoch(dure_session *s, const dure_msg_new_epoch *e, dure_diag *diag)
{
    dure_diag why = {{0}};
    const uint64_t before = dure_witness_head(s->witness).n;
    dure_err err = check_kept(s, e->leaf, &why);
    if (!err)
        err = dure_witness_new_epoch(s->witness, e->leaf, s->site.invitation.root_public, &why);
    if (err && dure_err_is_local(err)) return dure_diag_set(diag, err, "%s", why.text);
    if (err) {
        session_report(s, "new_epoch_refused", json_pack("{s:s}", "why", why.text));
        return DURE_OK;
    }
    const uint64_t kept = dure_witness_head(s->witness).n;
    s->starts = (proof_starts){.n = 0}; /* they may be of what is lost */
    s->greet_ms = dure_clock_monotonic_ms();
    if (kept == before) return DURE_OK; /* known, or nothing that this site has seen is lost */
    session_report(s, "new_epoch",
                   json_pack("{s:I, s:I}", "seen", (json_int_t)before, "kept", (json_int_t)kept));
    /* A round in hand is of what was lost. */
    err = session_give_up(s, "the root said that the log goes on elsewhere", diag);
    if (!err) err = forget_lost_result(s, diag);
    if (!err) err = check_copy(s, diag);
    return err ? err : restart_tree(s);
}

/* ---- what a coordinator asks back ---- */

static dure_err fill_log(dure_buf *out, dure_msg_entries *e, const dure_session *s, dure_diag *diag)
{
    const dure_leaf_log *log = s->copy.log;
    dure_err err = DURE_OK;
    e->total = dure_leaf_log_size(log);
    for (uint64_t i = e->from; !err && i < e->total; i++) {
        dure_buf leaf;
        err = dure_leaf_log_read(&leaf, log, i, diag);
        if (err) return err;
        const bool fits = out->n + 4 + leaf.n <= DURE_ENTRIES_ANSWER_BYTES;
        if (fits) dure_put_bytes(out, leaf.data, leaf.n);
        dure_buf_fini(&leaf);
        if (!fits) break;
        e->n_entries++;
    }
    return err;
}

static void fill_roster(dure_buf *out, dure_msg_entries *e, const dure_session *s)
{
    e->total = dure_roster_entries(s->site.roster);
    for (uint64_t i = e->from; i < e->total; i++) {
        const dure_span entry = dure_roster_entry(s->site.roster, (size_t)i);
        if (out->n + 4 + entry.n > DURE_ENTRIES_ANSWER_BYTES) break;
        dure_put_bytes(out, entry.data, entry.n);
        e->n_entries++;
    }
}

/* Also when not all of its entries are here: it proves that they were lost. */
static dure_err fill_checkpoint(dure_buf *out, dure_msg_entries *e, const dure_session *s,
                                dure_diag *diag)
{
    dure_buf note = {0};
    const uint64_t n = dure_witness_head(s->witness).n;
    if (e->from > 0 || n == 0) return DURE_OK;
    char *path = dure_site_path(&s->site, DURE_SITE_CHECKPOINT);
    dure_err err = path ? dure_file_read(&note, path, DURE_NOTE_MAX, diag) : DURE_ERR_NOMEM;
    if (!err) {
        dure_put_bytes(out, note.data, note.n);
        e->n_entries = 1;
        e->total = 1;
    }
    dure_buf_fini(&note);
    free(path);
    return err;
}

static int by_size(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* The sizes of the kept notes from `from` on, ascending; the caller frees *sizes. Anything else in
 * the folder, as what a kill left of a note, is passed over. */
static dure_err list_notes(uint64_t **sizes, size_t *n, const char *folder, uint64_t from)
{
    DIR *dir = opendir(folder);
    const struct dirent *entry;
    dure_err err = DURE_OK;
    *sizes = NULL;
    *n = 0;
    while (!err && dir && (entry = readdir(dir))) {
        char canonical[24];
        const uint64_t size = strtoull(entry->d_name, NULL, 10);
        snprintf(canonical, sizeof canonical, "%llu", (unsigned long long)size);
        if (size == 0 || size < from || strcmp(canonical, entry->d_name) != 0) continue;
        uint64_t *more = realloc(*sizes, (*n + 1) * sizeof **sizes);
        if (!more) err = DURE_ERR_NOMEM;
        if (err) break;
        *sizes = more;
        (*sizes)[(*n)++] = size;
    }
    if (dir) closedir(dir);
    if (*n) qsort(*sizes, *n, sizeof **sizes, by_size);
    return err;
}

static dure_err fill_notes(dure_buf *out, dure_msg_entries *e, const dure_session *s,
                           dure_diag *diag)
{
    uint64_t *sizes = NULL;
    size_t n = 0;
    char *folder = dure_site_path(&s->site, DURE_SITE_NOTES);
    dure_err err = folder ? list_notes(&sizes, &n, folder, e->from) : DURE_ERR_NOMEM;
    e->total = n;
    for (size_t i = 0; !err && i < n; i++) {
        char name[24];
        dure_buf note = {0};
        snprintf(name, sizeof name, "%llu", (unsigned long long)sizes[i]);
        char *path = dure_path_join(folder, name);
        err = path ? dure_file_read(&note, path, DURE_NOTE_MAX, diag) : DURE_ERR_NOMEM;
        const bool fits = !err && out->n + 4 + note.n <= DURE_ENTRIES_ANSWER_BYTES;
        if (fits) dure_put_bytes(out, note.data, note.n);
        if (fits) e->n_entries++;
        dure_buf_fini(&note);
        free(path);
        if (!fits) break;
    }
    free(sizes);
    free(folder);
    return err;
}

dure_err session_on_entries_request(dure_session *s, const dure_msg_entries_request *q,
                                    dure_diag *diag)
{
    dure_buf bytes;
    dure_msg msg = {.type = DURE_MSG_ENTRIES, .u.entries = {.kind = q->kind, .from = q->from}};
    dure_msg_entries *e = &msg.u.entries;
    dure_buf_init(&bytes, DURE_ENTRIES_ANSWER_BYTES);
    dure_err err = DURE_OK;
    if (q->kind == DURE_ENTRIES_LOG) err = fill_log(&bytes, e, s, diag);
    if (q->kind == DURE_ENTRIES_ROSTER) fill_roster(&bytes, e, s);
    if (q->kind == DURE_ENTRIES_CHECKPOINT) err = fill_checkpoint(&bytes, e, s, diag);
    if (q->kind == DURE_ENTRIES_NOTES) err = fill_notes(&bytes, e, s, diag);
    if (!err) err = dure_buf_err(&bytes);
    e->n_bytes = (uint32_t)bytes.n;
    const dure_payload payload = {.bytes = dure_buf_span(&bytes)};
    if (!err) err = session_send(NULL, s, &msg, &payload, diag);
    dure_buf_fini(&bytes);
    /* It has to hear again how far this site is, once it has what it asked for. */
    s->greet_ms = dure_clock_monotonic_ms() + GREET_AFTER_MS;
    return err;
}

/* ---- the adapter and the sum ---- */

dure_err session_keep_sum(dure_session *s, dure_span sum, dure_diag *diag)
{
    char *path = dure_site_path(&s->site, DURE_SITE_SUM);
    s->copy.sum_known = false;
    dure_err err = path ? dure_file_write_atomic(path, sum, 0600, diag) : DURE_ERR_NOMEM;
    free(path);
    return err;
}

/* The name of the kept sum, read once: a sum is asked for in many parts. */
static dure_err know_sum(log_copy *c, const char *path, dure_diag *diag)
{
    dure_buf bytes = {0};
    if (c->sum_known) return DURE_OK;
    c->sum_digest = (dure_hash){{0}};
    dure_err err = DURE_OK;
    if (dure_file_exists(path)) {
        err = dure_file_read(&bytes, path, SUM_MAX_BYTES, diag);
        if (!err) err = dure_hash_bytes(&c->sum_digest, dure_buf_span(&bytes));
    }
    dure_buf_fini(&bytes);
    c->sum_known = !err;
    return err;
}

/* Up to `n` bytes of a file from `offset` on into an empty buffer, and its size. */
static dure_err read_part(dure_buf *out, uint64_t *total, const char *path, uint64_t offset,
                          size_t n, dure_diag *diag)
{
    uint8_t *bytes = malloc(n ? n : 1);
    FILE *file = fopen(path, "rb");
    dure_err err = bytes ? DURE_OK : DURE_ERR_NOMEM;
    off_t end = 0;
    if (!err && (!file || fseeko(file, 0, SEEK_END) || (end = ftello(file)) < 0))
        err = dure_file_errno(diag, "read", path);
    *total = (uint64_t)end;
    if (!err && offset < *total) {
        if (n > *total - offset) n = (size_t)(*total - offset);
        if (fseeko(file, (off_t)offset, SEEK_SET) || fread(bytes, 1, n, file) != n)
            err = dure_file_errno(diag, "read", path);
        if (!err) dure_put_raw(out, bytes, n);
    }
    if (file) fclose(file);
    free(bytes);
    return err ? err : dure_buf_err(out);
}

/* The part that is asked for of what this site has by that name: the global adapter, or the sum
 * that led to it. *total is 0 when there is nothing. */
static dure_err find_part(dure_buf *out, uint64_t *total, dure_session *s,
                          const dure_msg_blob_request *q, dure_diag *diag)
{
    static const dure_hash none;
    size_t n = q->n_bytes < DURE_ENTRIES_ANSWER_BYTES ? q->n_bytes : DURE_ENTRIES_ANSWER_BYTES;
    if (s->adapter.n && dure_ct_equal(q->digest, s->adapter_digest.b, DURE_DIGEST_BYTES)) {
        *total = s->adapter.n;
        if (q->offset >= *total) return DURE_OK;
        if (n > *total - q->offset) n = (size_t)(*total - q->offset);
        dure_put_raw(out, s->adapter.data + q->offset, n);
        return dure_buf_err(out);
    }
    char *path = dure_site_path(&s->site, DURE_SITE_SUM);
    dure_err err = path ? know_sum(&s->copy, path, diag) : DURE_ERR_NOMEM;
    if (!err && !dure_hash_equal(&s->copy.sum_digest, &none) &&
        dure_ct_equal(q->digest, s->copy.sum_digest.b, DURE_DIGEST_BYTES))
        err = read_part(out, total, path, q->offset, n, diag);
    free(path);
    return err;
}

dure_err session_on_blob_request(dure_session *s, const dure_msg_blob_request *q, dure_diag *diag)
{
    dure_msg msg = {.type = DURE_MSG_BLOB_CHUNK, .u.blob_chunk = {.offset = q->offset}};
    dure_msg_blob_chunk *c = &msg.u.blob_chunk;
    dure_buf part;
    memcpy(c->digest, q->digest, sizeof c->digest);
    dure_buf_init(&part, DURE_ENTRIES_ANSWER_BYTES);
    dure_err err = find_part(&part, &c->total_bytes, s, q, diag);
    c->n_bytes = (uint32_t)part.n;
    if (!part.n) c->total_bytes = 0;
    const dure_payload payload = {.bytes = dure_buf_span(&part)};
    if (!err) err = session_send(NULL, s, &msg, &payload, diag);
    dure_buf_fini(&part);
    return err;
}
