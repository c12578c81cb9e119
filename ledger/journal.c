#include "ledger/journal.h"

#include "common/file.h"
#include "crypto/wipe.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NOTE_MODE = 0600, SIZE_TEXT = 24 };

struct dure_journal {
    dure_leaf_log *log;
    char *notes_dir;
    uint64_t *sizes; /* of the stored checkpoints, ascending */
    size_t n_sizes, sizes_capacity;
    bool has_genesis;
    dure_event_genesis genesis;
    dure_event *roster;        /* the newest ROSTER leaf; NULL before there is one */
    dure_journal_loss *losses; /* that the root signed, in order */
    size_t n_losses;
    char origin[DURE_ORIGIN_SIZE];
};

const dure_leaf_log *dure_journal_log(const dure_journal *journal)
{
    return journal->log;
}

const dure_event_roster *dure_journal_roster(const dure_journal *journal)
{
    return journal->roster ? &journal->roster->u.roster : NULL;
}

const dure_journal_loss *dure_journal_losses(size_t *n, const dure_journal *journal)
{
    *n = journal->n_losses;
    return journal->losses;
}

uint64_t dure_journal_newest(const dure_journal *journal)
{
    return journal->n_sizes > 0 ? journal->sizes[journal->n_sizes - 1] : 0;
}

const uint64_t *dure_journal_sizes(size_t *n, const dure_journal *journal)
{
    *n = journal->n_sizes;
    return journal->sizes;
}

static dure_err push(uint64_t **values, size_t *n, size_t *capacity, uint64_t value)
{
    if (*n == *capacity) {
        size_t wanted = *capacity ? *capacity * 2 : 64;
        uint64_t *grown = realloc(*values, wanted * sizeof *grown);
        if (!grown) return DURE_ERR_NOMEM;
        *values = grown;
        *capacity = wanted;
    }
    (*values)[(*n)++] = value;
    return DURE_OK;
}

/* ---- Leaves ---- */

static dure_err remember_loss(dure_journal *journal, const dure_event *event)
{
    const dure_event_epoch *e = &event->u.epoch;
    dure_journal_loss *grown =
        realloc(journal->losses, (journal->n_losses + 1) * sizeof *journal->losses);
    if (!grown) return DURE_ERR_NOMEM;
    journal->losses = grown;
    grown[journal->n_losses++] = (dure_journal_loss){e->epoch, e->kept.n, e->lost_n};
    return DURE_OK;
}

/* Keeps what later calls need of an event that is in the log. */
static dure_err remember(dure_journal *journal, const dure_event *event)
{
    if (event->kind == DURE_EVENT_GENESIS) {
        journal->genesis = event->u.genesis;
        journal->has_genesis = true;
        dure_checkpoint_origin(journal->origin, journal->genesis.federation,
                               &journal->genesis.federation_id);
    }
    if (event->kind == DURE_EVENT_NEW_EPOCH) return remember_loss(journal, event);
    if (event->kind != DURE_EVENT_ROSTER) return DURE_OK;
    if (!journal->roster) journal->roster = malloc(sizeof *journal->roster);
    if (!journal->roster) return DURE_ERR_NOMEM;
    *journal->roster = *event;
    return DURE_OK;
}

static dure_err read_event(dure_event *out, const dure_journal *journal, uint64_t index,
                           dure_diag *diag)
{
    dure_buf leaf;
    dure_err err = dure_leaf_log_read(&leaf, journal->log, index, diag);
    if (err) return err;
    err = dure_event_decode(out, dure_buf_span(&leaf), diag);
    if (err || out->index != index) {
        err = dure_diag_set(diag, DURE_ERR_FORMAT, "entry %llu of the ledger is not what it says",
                            (unsigned long long)index);
    }
    dure_buf_fini(&leaf);
    return err;
}

static dure_err load_leaves(dure_journal *journal, dure_diag *diag)
{
    dure_event *event = malloc(sizeof *event);
    dure_err err = event ? DURE_OK : DURE_ERR_NOMEM;
    for (uint64_t i = 0; !err && i < dure_leaf_log_size(journal->log); i++) {
        err = read_event(event, journal, i, diag);
        if (!err) err = remember(journal, event);
    }
    free(event);
    return err;
}

dure_err dure_journal_append(dure_buf *leaf, dure_journal *journal, dure_event *event,
                             dure_diag *diag)
{
    dure_buf bytes;
    uint64_t index = 0;
    dure_buf_init(&bytes, DURE_LEAF_MAX);
    event->index = dure_leaf_log_size(journal->log);
    dure_err err = dure_event_encode(&bytes, event, diag);
    if (!err && event->kind == DURE_EVENT_NEW_EPOCH &&
        dure_event_epoch_verify(&event->u.epoch, journal->genesis.root_public)) {
        err = dure_diag_set(diag, DURE_ERR_AUTH, "the new epoch is not signed by the root");
    }
    if (!err) err = dure_leaf_log_append(&index, journal->log, dure_buf_span(&bytes), diag);
    if (!err) err = remember(journal, event);
    if (!err && leaf) {
        dure_put_raw(leaf, bytes.data, bytes.n);
        err = dure_buf_err(leaf);
    }
    dure_buf_fini(&bytes);
    return err;
}

/* ---- Checkpoints ---- */

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static char *note_path(const dure_journal *journal, uint64_t size)
{
    char name[SIZE_TEXT];
    (void)snprintf(name, sizeof name, "%llu", (unsigned long long)size);
    return dure_path_join(journal->notes_dir, name);
}

dure_err dure_journal_note(dure_buf *note, const dure_journal *journal, uint64_t size,
                           dure_diag *diag)
{
    dure_buf text;
    char *path = note_path(journal, size);
    if (!path) return DURE_ERR_NOMEM;
    dure_err err = dure_file_read(&text, path, DURE_NOTE_MAX, diag);
    if (!err) {
        dure_put_raw(note, text.data, text.n);
        err = dure_buf_err(note);
        dure_buf_fini(&text);
    }
    free(path);
    return err;
}

static dure_err store_note(dure_journal *journal, uint64_t size, dure_span note, dure_diag *diag)
{
    char *path = note_path(journal, size);
    if (!path) return DURE_ERR_NOMEM;
    dure_err err = dure_file_write_atomic(path, note, NOTE_MODE, diag);
    free(path);
    return err;
}

/* Reads the stored note of `size` both as text and parsed; the caller frees *parsed. */
static dure_err load_note(dure_buf *text, dure_note **parsed, const dure_journal *journal,
                          uint64_t size, dure_diag *diag)
{
    *parsed = malloc(sizeof **parsed);
    if (!*parsed) return DURE_ERR_NOMEM;
    dure_err err = dure_journal_note(text, journal, size, diag);
    if (!err) err = dure_note_parse(*parsed, dure_buf_span(text), diag);
    if (!err && (*parsed)->checkpoint.head.n != size) err = DURE_ERR_FORMAT;
    if (err) {
        free(*parsed);
        *parsed = NULL;
        if (err == DURE_ERR_NOMEM) return err;
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "%s/%llu is missing or damaged; restore the ledger from a copy",
                             journal->notes_dir, (unsigned long long)size);
    }
    return DURE_OK;
}

dure_err dure_journal_checkpoint(dure_buf *note, dure_journal *journal,
                                 const dure_sign_key *coordinator, dure_diag *diag)
{
    uint64_t n = dure_leaf_log_size(journal->log);
    dure_checkpoint checkpoint = {.origin = {0}};
    if (!journal->has_genesis ||
        !dure_ct_equal(coordinator->public_, journal->genesis.coordinator_sign, 32)) {
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "the key is not the one that the ledger's first entry names");
    }
    if (dure_journal_newest(journal) == n) return dure_journal_note(note, journal, n, diag);
    dure_buf text;
    dure_buf_init(&text, DURE_NOTE_MAX);
    (void)snprintf(checkpoint.origin, sizeof checkpoint.origin, "%s", journal->origin);
    dure_err err = dure_leaf_log_head(&checkpoint.head, journal->log, n);
    if (!err) err = dure_checkpoint_sign(&text, &checkpoint, coordinator);
    if (!err) err = store_note(journal, n, dure_buf_span(&text), diag);
    if (!err) err = push(&journal->sizes, &journal->n_sizes, &journal->sizes_capacity, n);
    if (!err) {
        dure_put_raw(note, text.data, text.n);
        err = dure_buf_err(note);
    }
    dure_buf_fini(&text);
    return err;
}

/* Adds a verified cosignature to the stored note, unless that site's is there. */
static dure_err add_line(dure_journal *journal, dure_buf *text, dure_note *note,
                         const dure_site_key *site, const dure_cosignature *cosignature,
                         dure_diag *diag)
{
    dure_cosign_tally tally = {0};
    dure_err err = dure_cosign_verify(cosignature, &note->checkpoint, site->sign_public);
    if (err) {
        return dure_diag_set(diag, err, "the cosignature of %s is not valid for this checkpoint",
                             site->name);
    }
    err = dure_cosign_count(&tally, NULL, note, &(dure_cosigners){.sites = site, .n = 1});
    if (err || tally.n > 0) return err;
    err = dure_cosign_append(text, cosignature, site);
    if (!err) err = dure_note_parse(note, dure_buf_span(text), NULL);
    if (err == DURE_ERR_LIMIT || err == DURE_ERR_FORMAT) {
        return dure_diag_set(diag, DURE_ERR_LIMIT,
                             "the checkpoint has no room for one more cosignature");
    }
    return err ? err : store_note(journal, note->checkpoint.head.n, dure_buf_span(text), diag);
}

dure_err dure_journal_cosign(dure_journal *journal, uint64_t size, const dure_site_key *site,
                             const dure_cosignature *cosignature, dure_diag *diag)
{
    dure_buf text;
    dure_note *note = NULL;
    if (size == 0 || !bsearch(&size, journal->sizes, journal->n_sizes, sizeof size, by_size)) {
        return dure_diag_set(diag, DURE_ERR_NOT_FOUND,
                             "there is no checkpoint of size %llu to cosign",
                             (unsigned long long)size);
    }
    dure_buf_init(&text, DURE_NOTE_MAX);
    dure_err err = load_note(&text, &note, journal, size, diag);
    if (!err) err = add_line(journal, &text, note, site, cosignature, diag);
    free(note);
    dure_buf_fini(&text);
    return err;
}

dure_err dure_journal_newest_counting(uint64_t *size, const dure_journal *journal,
                                      const dure_cosigners *who, dure_diag *diag)
{
    dure_err err = DURE_OK;
    bool counts = false;
    *size = 0;
    for (size_t k = journal->n_sizes; !err && !counts && k > 0; k--) {
        dure_buf text;
        dure_note *note = NULL;
        dure_buf_init(&text, DURE_NOTE_MAX);
        err = load_note(&text, &note, journal, journal->sizes[k - 1], diag);
        if (!err) err = dure_cosign_counts(&counts, NULL, note, who);
        if (counts) *size = journal->sizes[k - 1];
        free(note);
        dure_buf_fini(&text);
    }
    return err;
}

/* ---- Opening ---- */

/* The sizes that the file names give; anything else in the folder is passed over. */
static dure_err list_sizes(dure_journal *journal, dure_diag *diag)
{
    DIR *dir = opendir(journal->notes_dir);
    if (!dir && errno == ENOENT) return DURE_OK;
    if (!dir) return dure_file_errno(diag, "open", journal->notes_dir);
    dure_err err = DURE_OK;
    const struct dirent *entry;
    while (!err && (entry = readdir(dir))) {
        char *end = NULL, canonical[SIZE_TEXT];
        unsigned long long size = strtoull(entry->d_name, &end, 10);
        (void)snprintf(canonical, sizeof canonical, "%llu", size);
        if (size == 0 || strcmp(canonical, entry->d_name) != 0) continue;
        err = push(&journal->sizes, &journal->n_sizes, &journal->sizes_capacity, size);
    }
    (void)closedir(dir);
    if (journal->n_sizes > 1) {
        qsort(journal->sizes, journal->n_sizes, sizeof *journal->sizes, by_size);
    }
    return err;
}

/* One stored checkpoint against the log. */
static dure_err check_note(const dure_journal *journal, const dure_note *note, dure_diag *diag)
{
    uint64_t size = note->checkpoint.head.n, n = dure_leaf_log_size(journal->log);
    dure_merkle_head head;
    if (size > n) {
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "the ledger has %llu entries but its checkpoint covers %llu: entries "
                             "from %llu on are missing; restore the newest copy",
                             (unsigned long long)n, (unsigned long long)size,
                             (unsigned long long)n);
    }
    dure_err err = dure_leaf_log_head(&head, journal->log, size);
    if (err) return err;
    if (!dure_hash_equal(&head.root, &note->checkpoint.head.root)) {
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "the first %llu entries of the ledger are not those of its checkpoint",
                             (unsigned long long)size);
    }
    return dure_note_verify(note, journal->origin, journal->genesis.coordinator_sign, diag);
}

/* Checks all stored notes. */
static dure_err load_notes(dure_journal *journal, dure_diag *diag)
{
    dure_err err = DURE_OK;
    for (size_t k = journal->n_sizes; !err && k > 0; k--) {
        dure_buf text;
        dure_note *note = NULL;
        dure_buf_init(&text, DURE_NOTE_MAX);
        err = load_note(&text, &note, journal, journal->sizes[k - 1], diag);
        if (!err) err = check_note(journal, note, diag);
        free(note);
        dure_buf_fini(&text);
    }
    return err;
}

dure_err dure_journal_open(dure_journal **out, const char *dir, dure_leaf_log_mode mode,
                           dure_diag *diag)
{
    *out = NULL;
    dure_journal *journal = calloc(1, sizeof *journal);
    if (!journal) return DURE_ERR_NOMEM;
    journal->notes_dir = dure_path_join(dir, "checkpoints");
    dure_err err = journal->notes_dir ? DURE_OK : DURE_ERR_NOMEM;
    /* The notes are listed before the log is read: a reader beside a writing coordinator then sees
     * a log that is at least as new as the notes. */
    if (!err) err = list_sizes(journal, diag);
    if (!err) err = dure_leaf_log_open(&journal->log, dir, mode, diag);
    if (!err && mode == DURE_LEAF_LOG_WRITE) err = dure_dir_make(journal->notes_dir, diag);
    if (!err) err = load_leaves(journal, diag);
    if (!err && journal->n_sizes > 0 && !journal->has_genesis) {
        err = dure_diag_set(diag, DURE_ERR_FORMAT,
                            "%s has checkpoints but no entries; restore the newest copy", dir);
    }
    if (!err) err = load_notes(journal, diag);
    if (err) {
        dure_journal_close(&journal);
        return err;
    }
    *out = journal;
    return DURE_OK;
}

void dure_journal_close(dure_journal **journal)
{
    if (!journal || !*journal) return;
    dure_leaf_log_close(&(*journal)->log);
    free((*journal)->notes_dir);
    free((*journal)->sizes);
    free((*journal)->roster);
    free((*journal)->losses);
    free(*journal);
    *journal = NULL;
}

/* ---- What was lost ---- */

/* The checkpoint alone, signed once more: of a note that comes from elsewhere only what was
 * verified is kept, so that no line gets into the folder which an auditor would not accept. */
static dure_err put_bare(dure_journal *journal, const dure_checkpoint *checkpoint,
                         const dure_sign_key *coordinator, dure_diag *diag)
{
    dure_buf text;
    const uint64_t size = checkpoint->head.n;
    dure_buf_init(&text, DURE_NOTE_MAX);
    dure_err err = dure_checkpoint_sign(&text, checkpoint, coordinator);
    if (!err) err = store_note(journal, size, dure_buf_span(&text), diag);
    if (!err) err = push(&journal->sizes, &journal->n_sizes, &journal->sizes_capacity, size);
    if (!err) qsort(journal->sizes, journal->n_sizes, sizeof *journal->sizes, by_size);
    dure_buf_fini(&text);
    return err;
}

/* The valid cosignatures of `note`, into the one of the same size that is here. */
static dure_err merge_lines(dure_journal *journal, const dure_note *note,
                            const dure_site_key *sites, size_t n_sites, dure_diag *diag)
{
    dure_err err = DURE_OK;
    for (size_t i = 0; !err && i < n_sites; i++) {
        dure_cosignature one;
        bool found = false;
        err = dure_cosign_find(&found, &one, note, &sites[i]);
        if (!err && found)
            err = dure_journal_cosign(journal, note->checkpoint.head.n, &sites[i], &one, diag);
    }
    return err;
}

dure_err dure_journal_merge_note(uint64_t *size_out, dure_journal *journal, dure_span text,
                                 const dure_journal_signers *who, dure_diag *diag)
{
    dure_note *note = calloc(1, sizeof *note);
    *size_out = 0;
    if (!note) return DURE_ERR_NOMEM;
    dure_err err = dure_note_parse(note, text, diag);
    if (!err) err = check_note(journal, note, diag);
    if (err == DURE_ERR_FORMAT) err = DURE_ERR_AUTH;
    const uint64_t size = note->checkpoint.head.n;
    const bool there = !err && journal->n_sizes &&
                       bsearch(&size, journal->sizes, journal->n_sizes, sizeof size, by_size);
    if (!err && !there) err = put_bare(journal, &note->checkpoint, who->coordinator, diag);
    if (!err) err = merge_lines(journal, note, who->sites, who->n_sites, diag);
    if (!err) *size_out = size;
    free(note);
    return err;
}

/* The head of the first `from` leaves and the entries behind them. */
static dure_err head_with(dure_merkle_head *out, const dure_leaf_log *log, uint64_t from,
                          dure_span entries)
{
    dure_merkle_frontier tree = {.n = 0};
    dure_reader r = dure_reader_of(entries);
    dure_err err = from <= dure_leaf_log_size(log) ? DURE_OK : DURE_ERR_USAGE;
    for (uint64_t i = 0; !err && i < from; i++)
        err = dure_merkle_frontier_add(&tree, dure_leaf_log_leaf_hash(log, i));
    while (!err && r.at < r.n) {
        dure_span leaf;
        dure_hash hash;
        err = dure_take_bytes(&leaf, &r, DURE_LEAF_MAX) ? DURE_ERR_AUTH : DURE_OK;
        if (!err) err = dure_merkle_leaf(&hash, leaf);
        if (!err) err = dure_merkle_frontier_add(&tree, &hash);
    }
    out->n = tree.n;
    return err ? err : dure_merkle_frontier_root(&out->root, &tree);
}

static dure_err replace_tail(dure_leaf_log *log, uint64_t from, dure_span entries, dure_diag *diag)
{
    dure_reader r = dure_reader_of(entries);
    dure_err err = dure_leaf_log_cut(log, from, diag);
    while (!err && r.at < r.n) {
        dure_span leaf;
        uint64_t index;
        err = dure_take_bytes(&leaf, &r, DURE_LEAF_MAX);
        if (!err) err = dure_leaf_log_append(&index, log, leaf, diag);
    }
    return err;
}

dure_err dure_journal_adopt(const char *dir, uint64_t from, dure_span entries,
                            const dure_merkle_head *head, dure_diag *diag)
{
    dure_merkle_head own = {.n = 0};
    dure_leaf_log *log = NULL;
    dure_err err = dure_leaf_log_open(&log, dir, DURE_LEAF_LOG_WRITE, diag);
    if (!err) err = head_with(&own, log, from, entries);
    const bool other = own.n != head->n || !dure_hash_equal(&own.root, &head->root);
    if (err == DURE_ERR_AUTH || (!err && other))
        err = dure_diag_set(diag, DURE_ERR_AUTH, "the entries are not those of the checkpoint");
    if (!err) err = replace_tail(log, from, entries, diag);
    dure_leaf_log_close(&log);
    return err;
}

/* Newest first, so that a crash leaves a log that fits the notes which are left. */
static dure_err remove_notes(const dure_journal *journal, uint64_t above, dure_diag *diag)
{
    dure_err err = DURE_OK;
    for (size_t k = journal->n_sizes; !err && k > 0 && journal->sizes[k - 1] > above; k--) {
        char *path = note_path(journal, journal->sizes[k - 1]);
        if (!path) return DURE_ERR_NOMEM;
        if (unlink(path)) err = dure_file_errno(diag, "remove", path);
        free(path);
    }
    return err ? err : dure_file_sync_folder(journal->notes_dir, diag);
}

dure_err dure_journal_cut(const char *dir, uint64_t n, dure_diag *diag)
{
    dure_journal *journal = NULL;
    dure_err err = dure_journal_open(&journal, dir, DURE_LEAF_LOG_WRITE, diag);
    if (!err && (n == 0 || n > dure_leaf_log_size(journal->log)))
        err = dure_diag_set(diag, DURE_ERR_USAGE,
                            "the log here has %llu entries; 1 to that many can be kept",
                            (unsigned long long)dure_leaf_log_size(journal->log));
    if (!err) err = remove_notes(journal, n, diag);
    if (!err) err = dure_leaf_log_cut(journal->log, n, diag);
    dure_journal_close(&journal);
    return err;
}
