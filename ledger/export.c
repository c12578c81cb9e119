#include "ledger/export.h"

#include "common/file.h"
#include "crypto/merkle.h"
#include "crypto/wipe.h"

#include <stdlib.h>

static const char magic[] = "dure-ledger-export-1\n";
enum { MAGIC_BYTES = sizeof magic - 1, FILE_MODE = 0644 };

static dure_err put_leaves(dure_buf *out, const dure_leaf_log *log, uint64_t n, dure_diag *diag)
{
    dure_err err = DURE_OK;
    dure_put_u64(out, n);
    for (uint64_t i = 0; !err && i < n; i++) {
        dure_buf leaf;
        err = dure_leaf_log_read(&leaf, log, i, diag);
        if (err) return err;
        dure_put_bytes(out, leaf.data, leaf.n);
        dure_put_raw(out, dure_leaf_log_leaf_hash(log, i)->b, DURE_HASH_BYTES);
        dure_buf_fini(&leaf);
        err = dure_buf_err(out);
    }
    return err;
}

static dure_err put_notes(dure_buf *out, const dure_journal *journal, dure_diag *diag)
{
    size_t n = 0;
    const uint64_t *sizes = dure_journal_sizes(&n, journal);
    dure_err err = n > DURE_EXPORT_NOTES_MAX ? DURE_ERR_LIMIT : DURE_OK;
    dure_put_u64(out, n);
    for (size_t i = 0; !err && i < n; i++) {
        dure_buf note;
        dure_buf_init(&note, DURE_NOTE_MAX);
        err = dure_journal_note(&note, journal, sizes[i], diag);
        if (!err) {
            dure_put_bytes(out, note.data, note.n);
            err = dure_buf_err(out);
        }
        dure_buf_fini(&note);
    }
    return err;
}

dure_err dure_export_put(dure_buf *out, const dure_journal *journal, dure_span roster,
                         dure_diag *diag)
{
    const dure_leaf_log *log = dure_journal_log(journal);
    if (roster.n > DURE_EXPORT_ROSTER_MAX) {
        return dure_diag_set(diag, DURE_ERR_LIMIT, "the roster is too large to export");
    }
    dure_put_raw(out, magic, MAGIC_BYTES);
    dure_err err = put_leaves(out, log, dure_leaf_log_size(log), diag);
    if (!err) err = put_notes(out, journal, diag);
    if (err) return err;
    dure_put_bytes(out, roster.data, roster.n);
    err = dure_buf_err(out);
    return err ? dure_diag_set(diag, err, "the ledger is too large to export in one file") : err;
}

dure_err dure_export_write(const char *path, const dure_journal *journal, dure_span roster,
                           dure_diag *diag)
{
    dure_buf bytes;
    dure_buf_init(&bytes, DURE_EXPORT_MAX);
    dure_err err = dure_export_put(&bytes, journal, roster, diag);
    if (!err) err = dure_file_write_atomic(path, dure_buf_span(&bytes), FILE_MODE, diag);
    dure_buf_fini(&bytes);
    return err;
}

/* ---- Reading ---- */

/* A count of items of at least `least` bytes each, so that the rest of the file bounds what is
 * allocated for them. */
static dure_err take_count(size_t *out, dure_reader *r, size_t least, uint64_t most)
{
    uint64_t n = 0;
    dure_err err = dure_take_u64(&n, r);
    if (!err && (n > most || n > (r->n - r->at) / least)) err = DURE_ERR_FORMAT;
    *out = err ? 0 : (size_t)n;
    return err;
}

static dure_err take_leaves(dure_export *out, dure_reader *r, dure_diag *diag)
{
    size_t n = 0;
    dure_err err = take_count(&n, r, 4 + DURE_HASH_BYTES, DURE_LEAF_LOG_LEAVES_MAX);
    if (err) {
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "the export states more entries than it can hold: it was cut short");
    }
    out->leaves = calloc(n ? n : 1, sizeof *out->leaves);
    if (!out->leaves) return DURE_ERR_NOMEM;
    for (size_t i = 0; i < n; i++) {
        err = dure_take_bytes(&out->leaves[i].bytes, r, DURE_LEAF_MAX);
        if (!err) err = dure_take_copy(out->leaves[i].hash.b, r, DURE_HASH_BYTES);
        if (err) {
            return dure_diag_set(diag, DURE_ERR_FORMAT,
                                 "the export is cut short or malformed at entry %zu of %zu", i, n);
        }
        out->n_leaves++;
    }
    return DURE_OK;
}

static dure_err take_notes(dure_export *out, dure_reader *r, dure_diag *diag)
{
    size_t n = 0;
    dure_err err = take_count(&n, r, 4, DURE_EXPORT_NOTES_MAX);
    if (err) {
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "the export is cut short or malformed after its last entry (%zu)",
                             out->n_leaves);
    }
    out->notes = calloc(n ? n : 1, sizeof *out->notes);
    if (!out->notes) return DURE_ERR_NOMEM;
    for (size_t i = 0; i < n; i++) {
        err = dure_take_bytes(&out->notes[i], r, DURE_NOTE_MAX);
        if (err) {
            return dure_diag_set(diag, DURE_ERR_FORMAT,
                                 "the export is cut short or malformed at checkpoint %zu of %zu", i,
                                 n);
        }
        out->n_notes++;
    }
    return DURE_OK;
}

static dure_err say_what_to_do(dure_diag *diag, dure_err err)
{
    dure_diag said = diag ? *diag : (dure_diag){{0}};
    return dure_diag_set(diag, err, "%s; have it made again with `dure audit export`", said.text);
}

dure_err dure_export_parse(dure_export **out, dure_span bytes, dure_diag *diag)
{
    dure_reader r = dure_reader_of(bytes);
    const uint8_t *first = NULL;
    *out = NULL;
    if (dure_take_raw(&first, &r, MAGIC_BYTES) || !dure_ct_equal(first, magic, MAGIC_BYTES)) {
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "it is not a ledger export: make one with `dure audit export`");
    }
    dure_export *made = calloc(1, sizeof *made);
    if (!made) return DURE_ERR_NOMEM;
    dure_err err = take_leaves(made, &r, diag);
    if (!err) err = take_notes(made, &r, diag);
    if (!err &&
        (dure_take_bytes(&made->roster, &r, DURE_EXPORT_ROSTER_MAX) || dure_reader_end(&r))) {
        err = dure_diag_set(diag, DURE_ERR_FORMAT,
                            "the export is cut short or malformed at its roster");
    }
    if (err) {
        dure_export_free(&made);
        return err == DURE_ERR_FORMAT ? say_what_to_do(diag, err) : err;
    }
    *out = made;
    return DURE_OK;
}

bool dure_export_first_fault(uint64_t *index, dure_span bytes)
{
    dure_reader r = dure_reader_of(bytes);
    const uint8_t *first = NULL;
    uint64_t n = 0;
    if (dure_take_raw(&first, &r, MAGIC_BYTES) || !dure_ct_equal(first, magic, MAGIC_BYTES) ||
        dure_take_u64(&n, &r)) {
        return false;
    }
    for (uint64_t i = 0; i < n; i++) {
        dure_span leaf;
        dure_hash stored, hash;
        *index = i;
        if (dure_take_bytes(&leaf, &r, DURE_LEAF_MAX) ||
            dure_take_copy(stored.b, &r, DURE_HASH_BYTES) || dure_merkle_leaf(&hash, leaf) ||
            !dure_hash_equal(&stored, &hash)) {
            return true;
        }
    }
    return false;
}

void dure_export_free(dure_export **export_)
{
    if (!export_ || !*export_) return;
    free((*export_)->leaves);
    free((*export_)->notes);
    free(*export_);
    *export_ = NULL;
}
