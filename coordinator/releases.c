#include "coordinator/releases.h"

#include "common/file.h"
#include "coordinator/folder.h"
#include "coordinator/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A log takes one line of plain text. */
static void put_reason(char out[DURE_EVENT_REASON_SIZE], const char *reason)
{
    snprintf(out, DURE_EVENT_REASON_SIZE, "%s", reason);
    for (char *c = out; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = ' ';
}

static dure_err make_event(dure_event *event, const dure_version *version, dure_registry *registry,
                           const dure_registry_move *move, uint64_t run_id, dure_diag *diag)
{
    dure_version before;
    memset(event, 0, sizeof *event);
    event->kind = move->back ? DURE_EVENT_ROLLED_BACK : DURE_EVENT_PROMOTED;
    event->time_s = move->moved_s;
    dure_event_release *release = &event->u.release;
    release->run_id = run_id;
    release->round = version->round;
    release->adapter = version->adapter;
    memcpy(release->release_public, version->certificate.release_public,
           sizeof release->release_public);
    put_reason(release->reason, version->reason);
    if (move->previous == 0) return DURE_OK;
    dure_err err = dure_registry_get(&before, registry, move->previous, diag);
    if (!err) release->previous = before.adapter;
    return err;
}

/* The entry, if it was made before a crash: it can only be behind those that the registry knows. */
static dure_err find_entry(uint64_t *index, const dure_event *event, dure_registry *registry,
                           const dure_journal *journal, dure_diag *diag)
{
    const dure_leaf_log *log = dure_journal_log(journal);
    dure_event *there = calloc(1, sizeof *there);
    uint64_t last = 0;
    dure_err err = there ? dure_registry_last_logged(&last, registry, diag) : DURE_ERR_NOMEM;
    *index = 0;
    for (uint64_t i = dure_leaf_log_size(log); !err && *index == 0 && i-- > last + 1;) {
        dure_buf leaf;
        err = dure_leaf_log_read(&leaf, log, i, diag);
        if (!err) err = dure_event_decode(there, dure_buf_span(&leaf), diag);
        if (!err && there->kind == event->kind && there->time_s == event->time_s &&
            dure_hash_equal(&there->u.release.adapter, &event->u.release.adapter))
            *index = i;
        dure_buf_fini(&leaf);
    }
    free(there);
    return err;
}

/* Whether the log says of a round that it made this version. After a loss that the root signed it
 * may say so no more, and then what it said of the version would not hold. */
static dure_err find_product(bool *made, const dure_version *version, dure_event *scratch,
                             const dure_journal *journal, dure_diag *diag)
{
    const dure_leaf_log *log = dure_journal_log(journal);
    const dure_event_round *round = &scratch->u.round;
    dure_err err = DURE_OK;
    *made = false;
    for (uint64_t i = dure_leaf_log_size(log); !err && !*made && i-- > 0;) {
        dure_buf leaf;
        err = dure_leaf_log_read(&leaf, log, i, diag);
        if (err) break;
        err = dure_event_decode(scratch, dure_buf_span(&leaf), diag);
        dure_buf_fini(&leaf);
        *made = !err && scratch->kind == DURE_EVENT_CLOSED && round->round == version->round &&
                dure_hash_equal(&round->adapter_out, &version->adapter);
    }
    return err;
}

static dure_err log_move(const dure_registry_move *move, dure_event *event, dure_registry *registry,
                         dure_journal *journal, uint64_t run_id, dure_diag *diag)
{
    dure_version version;
    uint64_t index = 0;
    bool made = false;
    dure_err err = dure_registry_get(&version, registry, move->number, diag);
    if (!err && version.round) err = find_product(&made, &version, event, journal, diag);
    if (!err && !made)
        return dure_registry_move_logged(registry, move->seq, DURE_RELEASE_NO_LEDGER, diag);
    if (!err) err = make_event(event, &version, registry, move, run_id, diag);
    if (!err) err = find_entry(&index, event, registry, journal, diag);
    if (!err && index == 0) {
        err = dure_journal_append(NULL, journal, event, diag);
        index = event->index;
    }
    return err ? err : dure_registry_move_logged(registry, move->seq, index, diag);
}

dure_err dure_releases_log(size_t *n, dure_registry *registry, dure_journal *journal,
                           uint64_t run_id, dure_diag *diag)
{
    dure_registry_move move;
    dure_event *event = NULL;
    *n = 0;
    dure_err next = dure_registry_next_move(&move, registry, diag);
    if (!next && !(event = calloc(1, sizeof *event))) return DURE_ERR_NOMEM;
    while (!next) {
        dure_err err = log_move(&move, event, registry, journal, run_id, diag);
        if (err) {
            free(event);
            return err;
        }
        ++*n;
        next = dure_registry_next_move(&move, registry, diag);
    }
    free(event);
    return next == DURE_ERR_NOT_FOUND ? DURE_OK : next;
}

/* From the sum to the result the next entry is the round's own, and the run that ends it will make
 * both. */
static dure_err is_between(bool *between, dure_store *store, dure_diag *diag)
{
    dure_round_row row;
    dure_err err = dure_store_unfinished(&row, store, diag);
    *between = !err && row.status == DURE_STORED_SUMMED;
    return err == DURE_ERR_NOT_FOUND ? DURE_OK : err;
}

static dure_err log_locked(bool *waits, const char *dir, const char *ledger,
                           dure_registry *registry, dure_diag *diag)
{
    dure_store *store = NULL;
    dure_store_facts facts;
    dure_journal *journal = NULL;
    size_t n = 0;
    dure_err err = dure_store_open_read(&store, dir, diag);
    if (!err) err = is_between(waits, store, diag);
    if (err || *waits) goto out;
    err = dure_store_facts_get(&facts, store, diag);
    if (!err) err = dure_journal_open(&journal, ledger, DURE_LEAF_LOG_WRITE, diag);
    if (!err) err = dure_releases_log(&n, registry, journal, facts.run_id, diag);
out:
    dure_journal_close(&journal);
    dure_store_close(&store);
    return err;
}

dure_err dure_releases_log_folder(bool *waits, const char *dir, dure_registry *registry,
                                  dure_diag *diag)
{
    char *ledger = dure_path_join(dir, DURE_FOLDER_LEDGER);
    char *lock_path = dure_path_join(dir, DURE_FOLDER_LOCK);
    dure_lock lock = {.fd = -1};
    dure_err err = ledger && lock_path ? DURE_OK : DURE_ERR_NOMEM;
    *waits = false;
    if (!err && !dure_file_exists(ledger)) goto out;
    if (!err) err = dure_lock_acquire(&lock, lock_path, diag);
    if (err == DURE_ERR_BUSY) {
        *waits = true;
        err = DURE_OK;
        goto out;
    }
    if (!err) err = log_locked(waits, dir, ledger, registry, diag);
out:
    if (lock.fd >= 0) dure_lock_release(&lock);
    free(lock_path);
    free(ledger);
    return err;
}
