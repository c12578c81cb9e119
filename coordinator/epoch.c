#include "coordinator/epoch.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/json.h"
#include "coordinator/folder.h"
#include "coordinator/history.h"
#include "coordinator/store.h"
#include "registry/registry.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_MAX_BYTES = 16384 };

/* The folder of a coordinator that does not run. */
typedef struct desk {
    dure_folder folder;
    dure_lock lock;
    dure_store *store;
    dure_store_facts facts;
    char *ledger;
    dure_journal *journal;
} desk;

static dure_err desk_open(desk *d, const char *dir, dure_diag *diag)
{
    *d = (desk){.lock = {.fd = -1}};
    dure_err err = dure_folder_open(&d->folder, dir, diag);
    if (err) return err;
    char *lock = dure_folder_path(&d->folder, DURE_FOLDER_LOCK);
    d->ledger = dure_folder_path(&d->folder, DURE_FOLDER_LEDGER);
    err = lock && d->ledger ? dure_lock_acquire(&d->lock, lock, diag) : DURE_ERR_NOMEM;
    if (err == DURE_ERR_BUSY)
        dure_diag_set(diag, err, "the coordinator of %s runs; stop it first", dir);
    free(lock);
    if (!err) err = dure_store_open(&d->store, dir, diag);
    if (!err) err = dure_store_facts_get(&d->facts, d->store, diag);
    if (!err) err = dure_journal_open(&d->journal, d->ledger, DURE_LEAF_LOG_WRITE, diag);
    return err;
}

static void desk_close(desk *d)
{
    dure_journal_close(&d->journal);
    dure_store_close(&d->store);
    free(d->ledger);
    if (d->lock.fd >= 0) dure_lock_release(&d->lock);
    dure_folder_fini(&d->folder);
}

/* After the last epoch that is among the first `keep` entries. */
static uint64_t next_number(const desk *d, uint64_t keep)
{
    size_t n = 0;
    const dure_journal_loss *losses = dure_journal_losses(&n, d->journal);
    while (n && losses[n - 1].kept >= keep)
        n--;
    return n ? losses[n - 1].epoch + 1 : 1;
}

/* ---- drafting ---- */

static dure_err fill(dure_event_epoch *out, const desk *d, const dure_epoch_opts *opts,
                     dure_diag *diag)
{
    typedef unsigned long long ull;
    size_t n = 0;
    const dure_journal_loss *losses = dure_journal_losses(&n, d->journal);
    const uint64_t here = dure_leaf_log_size(dure_journal_log(d->journal));
    const uint64_t known = here > d->facts.recovering ? here : d->facts.recovering;
    const uint64_t signed_n = dure_journal_newest(d->journal);
    const uint64_t keep = opts->keep ? opts->keep : signed_n ? signed_n : here;
    const uint64_t least = n ? losses[n - 1].kept : 1;
    if (keep < least || keep > here)
        return dure_diag_set(diag, DURE_ERR_USAGE, "--keep can be %llu to %llu: %s", (ull)least,
                             (ull)here,
                             n ? "what an earlier epoch says stays" : "the first entry stays");
    if (opts->lost && opts->lost < known)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "--lost must be at least %llu, which is known to have been signed",
                             (ull)known);
    *out = (dure_event_epoch){.federation_id = d->folder.federation_id,
                              .epoch = next_number(d, keep),
                              .lost_n = opts->lost ? opts->lost : known};
    snprintf(out->reason, sizeof out->reason, "%s", opts->reason);
    return dure_leaf_log_head(&out->kept, dure_journal_log(d->journal), keep);
}

dure_err dure_epoch_draft(dure_event_epoch *out, const char *dir, const dure_epoch_opts *opts,
                          dure_diag *diag)
{
    desk d;
    dure_err err = dure_event_check_reason(opts->reason, diag);
    if (err) return dure_diag_prefix(diag, err, "--reason");
    err = desk_open(&d, dir, diag);
    if (!err) err = fill(out, &d, opts, diag);
    desk_close(&d);
    return err;
}

/* ---- the file ---- */

dure_err dure_epoch_write(const char *path, const dure_event_epoch *epoch, bool is_signed,
                          dure_diag *diag)
{
    json_t *file = json_pack("{s:o, s:I, s:I, s:o, s:I, s:s}", "federation_id",
                             dure_json_from_hex(epoch->federation_id.b, DURE_HASH_BYTES), "epoch",
                             (json_int_t)epoch->epoch, "kept", (json_int_t)epoch->kept.n,
                             "kept_root", dure_json_from_hex(epoch->kept.root.b, DURE_HASH_BYTES),
                             "lost", (json_int_t)epoch->lost_n, "reason", epoch->reason);
    if (file && is_signed &&
        json_object_set_new(file, "signature",
                            dure_json_from_hex(epoch->signature, sizeof epoch->signature))) {
        json_decref(file);
        file = NULL;
    }
    dure_err err = file ? dure_json_write(path, file, 0644, diag) : DURE_ERR_NOMEM;
    json_decref(file);
    return err;
}

static dure_err take_fields(dure_event_epoch *out, bool *is_signed, const json_t *file,
                            dure_diag *diag)
{
    const char *reason = NULL;
    *is_signed = json_object_get(file, "signature") != NULL;
    dure_err err =
        dure_json_hex(out->federation_id.b, DURE_HASH_BYTES, file, "federation_id", diag);
    if (!err) err = dure_json_u64(&out->epoch, file, "epoch", diag);
    if (!err) err = dure_json_u64(&out->kept.n, file, "kept", diag);
    if (!err) err = dure_json_hex(out->kept.root.b, DURE_HASH_BYTES, file, "kept_root", diag);
    if (!err) err = dure_json_u64(&out->lost_n, file, "lost", diag);
    if (!err) err = dure_json_text(&reason, file, "reason", diag);
    if (!err && dure_event_check_reason(reason, diag))
        err = dure_diag_prefix(diag, DURE_ERR_FORMAT, "its \"reason\"");
    if (!err) snprintf(out->reason, sizeof out->reason, "%s", reason);
    if (!err && *is_signed)
        err = dure_json_hex(out->signature, sizeof out->signature, file, "signature", diag);
    return err;
}

dure_err dure_epoch_parse(dure_event_epoch *out, bool *is_signed, dure_span text, const char *name,
                          dure_diag *diag)
{
    json_t *file = NULL;
    *out = (dure_event_epoch){.epoch = 0};
    *is_signed = false;
    dure_err err = dure_json_parse(&file, text, name, diag);
    if (err) return err;
    err = take_fields(out, is_signed, file, diag);
    if (err) dure_diag_prefix(diag, err, "%s", name);
    json_decref(file);
    return err;
}

dure_err dure_epoch_read(dure_event_epoch *out, bool *is_signed, const char *path, dure_diag *diag)
{
    dure_buf text = {0};
    *is_signed = false;
    dure_err err = dure_file_read(&text, path, FILE_MAX_BYTES, diag);
    if (!err) err = dure_epoch_parse(out, is_signed, dure_buf_span(&text), path, diag);
    dure_buf_fini(&text);
    return err;
}

/* ---- taking ---- */

/* *there: the statement is the last entry already, as after a crash. */
static dure_err check(bool *there, const desk *d, const dure_event_epoch *epoch, dure_diag *diag)
{
    size_t n = 0;
    dure_merkle_head own;
    const dure_journal_loss *losses = dure_journal_losses(&n, d->journal);
    const uint64_t here = dure_leaf_log_size(dure_journal_log(d->journal));
    *there = n && losses[n - 1].epoch == epoch->epoch && losses[n - 1].kept == epoch->kept.n &&
             losses[n - 1].lost_n == epoch->lost_n;
    if (!dure_hash_equal(&epoch->federation_id, &d->folder.federation_id) ||
        dure_event_epoch_verify(epoch, d->folder.settings.root_public))
        return dure_diag_set(diag, DURE_ERR_AUTH,
                             "the statement is not signed by this federation's root");
    if (*there && here == epoch->kept.n + 1) return DURE_OK;
    if (*there)
        return dure_diag_set(diag, DURE_ERR_EXISTS, "epoch %llu has begun already",
                             (unsigned long long)epoch->epoch);
    if ((n && epoch->kept.n < losses[n - 1].kept) || epoch->epoch != next_number(d, epoch->kept.n))
        return dure_diag_set(diag, DURE_ERR_AUTH,
                             "the statement was made for another log; draft a new one");
    dure_err err = epoch->kept.n && epoch->kept.n <= here
                       ? dure_leaf_log_head(&own, dure_journal_log(d->journal), epoch->kept.n)
                       : DURE_ERR_AUTH;
    if (!err && !dure_hash_equal(&own.root, &epoch->kept.root)) err = DURE_ERR_AUTH;
    return err ? dure_diag_set(diag, err,
                               "the statement keeps other entries than those here; draft a new one")
               : DURE_OK;
}

static dure_err enter(desk *d, const dure_event_epoch *epoch, dure_diag *diag)
{
    dure_journal_close(&d->journal);
    dure_event *event = calloc(1, sizeof *event);
    dure_err err = event ? dure_journal_cut(d->ledger, epoch->kept.n, diag) : DURE_ERR_NOMEM;
    if (!err) err = dure_journal_open(&d->journal, d->ledger, DURE_LEAF_LOG_WRITE, diag);
    if (!err) {
        *event = (dure_event){.kind = DURE_EVENT_NEW_EPOCH, .time_s = dure_clock_wall_s()};
        event->u.epoch = *epoch;
        err = dure_journal_append(NULL, d->journal, event, diag);
    }
    free(event);
    return err;
}

/* What the log no longer says is no longer so. */
static dure_err follow(desk *d, const char *dir, uint64_t kept, dure_diag *diag)
{
    dure_buf note;
    dure_registry *registry = NULL;
    dure_buf_init(&note, DURE_NOTE_MAX);
    dure_err err = dure_journal_checkpoint(&note, d->journal, &d->folder.sign, diag);
    if (!err) err = dure_registry_open(&registry, dir, diag);
    if (!err) err = dure_registry_forget_logged(registry, kept, diag);
    if (!err) err = dure_history_follow(d->store, d->journal, &d->folder.settings.terms, diag);
    dure_registry_close(&registry);
    dure_buf_fini(&note);
    return err;
}

dure_err dure_epoch_take(const char *dir, const dure_event_epoch *epoch, dure_diag *diag)
{
    desk d;
    bool there = false;
    dure_err err = desk_open(&d, dir, diag);
    if (!err) err = check(&there, &d, epoch, diag);
    if (!err && !there) err = enter(&d, epoch, diag);
    if (!err) err = follow(&d, dir, epoch->kept.n, diag);
    desk_close(&d);
    return err;
}
