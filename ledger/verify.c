/* The order matters for what can be said about a failure: leaf hashes first, since they name single
 * entries; then the signed roots, which say whether the leaves or their stored hashes are to
 * blame; then the meaning of the entries. */
#include "ledger/verify.h"

#include "crypto/wipe.h"

#include <stdlib.h>
#include <string.h>

typedef struct verifier {
    dure_verify_report *report;
    const dure_export *export_;
    const dure_verify_options *options;
    dure_diag *diag;
    dure_hash *hashes; /* recomputed, one a leaf */
    dure_event *event; /* scratch */
    dure_note *note;   /* scratch */
    dure_replay *replay;
    char origin[DURE_ORIGIN_SIZE];
    uint64_t *rosters; /* indexes of the ROSTER leaves */
    size_t n_rosters;
    uint64_t *sizes; /* of the checkpoints */
} verifier;

/* Names the entries first .. last as those at fault. */
static void name_entries(verifier *v, uint64_t first, uint64_t last)
{
    v->report->entry_known = true;
    v->report->bad_first = first;
    v->report->bad_last = last;
}

static dure_err prefix_entry(verifier *v, uint64_t index, dure_err err)
{
    name_entries(v, index, index);
    return dure_diag_prefix(v->diag, err, "entry %llu", (unsigned long long)index);
}

/* ---- 1. Leaf hashes ---- */

static dure_err hash_leaves(verifier *v)
{
    for (size_t i = 0; i < v->export_->n_leaves; i++) {
        dure_err err = dure_merkle_leaf(&v->hashes[i], v->export_->leaves[i].bytes);
        if (err) return err;
    }
    return DURE_OK;
}

/* The first leaf that does not have its stored hash; n_leaves if all have. */
static size_t first_changed(const verifier *v)
{
    size_t i = 0;
    while (i < v->export_->n_leaves &&
           dure_hash_equal(&v->hashes[i], &v->export_->leaves[i].hash)) {
        i++;
    }
    return i;
}

static dure_err check_hashes(verifier *v)
{
    size_t i = first_changed(v);
    if (i == v->export_->n_leaves) return DURE_OK;
    name_entries(v, i, i);
    return dure_diag_set(v->diag, DURE_ERR_AUTH,
                         "entry %zu was changed: it does not have its recorded hash", i);
}

/* ---- 2. The genesis ---- */

static dure_err read_genesis(verifier *v)
{
    if (v->export_->n_leaves == 0) {
        return dure_diag_set(v->diag, DURE_ERR_FORMAT, "the ledger has no entries");
    }
    dure_err err = dure_event_decode(v->event, v->export_->leaves[0].bytes, v->diag);
    if (err) return prefix_entry(v, 0, DURE_ERR_FORMAT);
    if (v->event->kind != DURE_EVENT_GENESIS) {
        name_entries(v, 0, 0);
        return dure_diag_set(v->diag, DURE_ERR_FORMAT, "entry 0 is not the genesis");
    }
    v->report->genesis = v->event->u.genesis;
    dure_checkpoint_origin(v->origin, v->report->genesis.federation,
                           &v->report->genesis.federation_id);
    if (v->options->root && !dure_ct_equal(v->options->root, v->report->genesis.root_public, 32)) {
        name_entries(v, 0, 0);
        return dure_diag_set(v->diag, DURE_ERR_AUTH,
                             "entry 0 names another root key: this is another federation's ledger");
    }
    return DURE_OK;
}

/* ---- 4. The meaning of the entries ---- */

static dure_err replay_leaf(verifier *v, size_t i)
{
    dure_err err = dure_event_decode(v->event, v->export_->leaves[i].bytes, v->diag);
    if (!err) err = dure_replay_add(v->replay, v->event, v->diag);
    if (err == DURE_ERR_NOMEM || err == DURE_ERR_CRYPTO) return err;
    if (err) return prefix_entry(v, i, DURE_ERR_FORMAT);
    if (v->event->kind == DURE_EVENT_NEW_EPOCH) {
        dure_hash root;
        err = dure_merkle_root(&root, v->hashes, i);
        if (!err && !dure_hash_equal(&root, &v->event->u.epoch.kept.root)) {
            (void)dure_diag_set(v->diag, DURE_ERR_AUTH,
                                "the new epoch keeps other entries than those before it");
            return prefix_entry(v, i, DURE_ERR_AUTH);
        }
        return err;
    }
    if (v->event->kind != DURE_EVENT_ROSTER) return DURE_OK;
    v->rosters[v->n_rosters++] = i;
    err = v->options->roster_check(v->options->roster_state, v->export_->roster,
                                   v->report->genesis.root_public, &v->event->u.roster, v->diag);
    return err ? prefix_entry(v, i, DURE_ERR_AUTH) : DURE_OK;
}

static dure_err replay_leaves(verifier *v)
{
    dure_err err = DURE_OK;
    for (size_t i = 0; !err && i < v->export_->n_leaves; i++)
        err = replay_leaf(v, i);
    return err;
}

/* ---- 3. Checkpoints ---- */

/* The roster in force in the first `size` entries, into the scratch event; NULL if none. */
static const dure_event_roster *roster_at(verifier *v, uint64_t size)
{
    size_t k = v->n_rosters;
    while (k > 0 && v->rosters[k - 1] >= size)
        k--;
    if (k == 0 || dure_event_decode(v->event, v->export_->leaves[v->rosters[k - 1]].bytes, NULL)) {
        return NULL;
    }
    return &v->event->u.roster;
}

/* A root that does not match: an entry since the last one that did was replaced together with its
 * hash. */
static dure_err blame_range(verifier *v, uint64_t good, uint64_t size)
{
    name_entries(v, good, size - 1);
    if (size - good == 1) {
        return dure_diag_set(v->diag, DURE_ERR_AUTH,
                             "entry %llu was replaced: it is not the one in the signed checkpoint",
                             (unsigned long long)good);
    }
    return dure_diag_set(v->diag, DURE_ERR_AUTH,
                         "one of the entries %llu to %llu was replaced: they are not those of the "
                         "signed checkpoint of size %llu",
                         (unsigned long long)good, (unsigned long long)(size - 1),
                         (unsigned long long)size);
}

static dure_err parse_note(verifier *v, dure_span text, const char *which)
{
    dure_err err = dure_note_parse(v->note, text, v->diag);
    if (!err) {
        err = dure_note_verify(v->note, v->origin, v->report->genesis.coordinator_sign, v->diag);
    }
    return err ? dure_diag_prefix(v->diag, err, "%s", which) : DURE_OK;
}

/* Whether the parsed note counts with the roster in force in the first `n_entries`. */
static dure_err note_counts(bool *counts, dure_cosign_tally *tally, verifier *v, uint64_t n_entries)
{
    const dure_event_roster *roster = roster_at(v, n_entries);
    *counts = false;
    if (!roster) return DURE_OK;
    const dure_cosigners who = {roster->sites, roster->n_sites, v->report->genesis.collusion};
    return dure_cosign_counts(counts, tally, v->note, &who);
}

/* The parsed note against the tree that has grown so far, good entries of which are proved. */
static dure_err check_note(verifier *v, dure_merkle_frontier *tree, uint64_t good)
{
    const dure_merkle_head *head = &v->note->checkpoint.head;
    dure_hash root;
    dure_err err = DURE_OK;
    if (head->n <= good) {
        return dure_diag_set(v->diag, DURE_ERR_FORMAT,
                             "the checkpoints are not in order: size %llu after %llu",
                             (unsigned long long)head->n, (unsigned long long)good);
    }
    if (head->n > v->export_->n_leaves) {
        name_entries(v, v->export_->n_leaves, head->n - 1);
        return dure_diag_set(v->diag, DURE_ERR_AUTH,
                             "the log was cut: entries %zu to %llu, which a signed checkpoint "
                             "covers, are missing",
                             v->export_->n_leaves, (unsigned long long)(head->n - 1));
    }
    while (!err && tree->n < head->n)
        err = dure_merkle_frontier_add(tree, &v->hashes[tree->n]);
    if (!err) err = dure_merkle_frontier_root(&root, tree);
    if (err) return err;
    return dure_hash_equal(&root, &head->root) ? DURE_OK : blame_range(v, good, head->n);
}

/* All checkpoints, in ascending order against one growing tree. */
static dure_err check_notes(verifier *v)
{
    dure_merkle_frontier tree = {0};
    uint64_t good = 0;
    for (size_t k = 0; k < v->export_->n_notes; k++) {
        dure_err err = parse_note(v, v->export_->notes[k], "a checkpoint");
        if (!err) err = check_note(v, &tree, good);
        if (err) return err;
        good = v->note->checkpoint.head.n;
        v->sizes[k] = good;
        v->report->n_checkpoints++;
    }
    return DURE_OK;
}

/* ---- 5. Cosignatures ---- */

/* How far the sites have seen the log: the newest checkpoint that counted when it was made. */
static dure_err tally_notes(verifier *v)
{
    dure_err err = DURE_OK;
    for (size_t k = 0; !err && k < v->export_->n_notes; k++) {
        dure_cosign_tally tally = {0};
        bool counts = false;
        err = parse_note(v, v->export_->notes[k], "a checkpoint");
        if (!err) err = note_counts(&counts, &tally, v, v->sizes[k]);
        if (!counts) continue;
        v->report->shown_n = v->sizes[k];
        v->report->shown_time = tally.last_s;
    }
    return err;
}

/* Whether the checkpoint of this size is exported and counts for a round opened in entry i: with
 * the roster that the round names, as its sites counted. */
static dure_err counts_for(bool *counts, verifier *v, uint64_t size, uint64_t i)
{
    size_t k = 0;
    *counts = false;
    while (k < v->export_->n_notes && v->sizes[k] != size)
        k++;
    if (k == v->export_->n_notes) return DURE_OK;
    dure_err err = parse_note(v, v->export_->notes[k], "a checkpoint");
    return err ? err : note_counts(counts, NULL, v, i);
}

/* A round may cite only a checkpoint that counts. */
static dure_err check_citations(verifier *v)
{
    for (size_t i = 0; i < v->export_->n_leaves; i++) {
        bool counts = false;
        dure_err err = dure_event_decode(v->event, v->export_->leaves[i].bytes, v->diag);
        if (err) return err;
        const uint64_t cited = v->event->u.round.checkpoint_n, round = v->event->u.round.round;
        if (v->event->kind != DURE_EVENT_OPENED || cited == 0) continue;
        err = counts_for(&counts, v, cited, i);
        if (err) return err;
        if (counts) continue;
        (void)dure_diag_set(v->diag, DURE_ERR_AUTH,
                            "round %llu cites the checkpoint of size %llu, which lacks the "
                            "cosignatures of enough sites",
                            (unsigned long long)round, (unsigned long long)cited);
        return prefix_entry(v, i, DURE_ERR_AUTH);
    }
    return DURE_OK;
}

/* ---- 6. A site's own checkpoint ---- */

static dure_err check_site(verifier *v)
{
    dure_hash root;
    if (v->options->checkpoint.n == 0) return DURE_OK;
    dure_err err = parse_note(v, v->options->checkpoint, "the site's checkpoint");
    if (err) return err;
    uint64_t n = v->note->checkpoint.head.n;
    if (n > v->export_->n_leaves) {
        name_entries(v, v->export_->n_leaves, n - 1);
        return dure_diag_set(v->diag, DURE_ERR_AUTH,
                             "the log was rolled back: a site has seen %llu entries and %zu are "
                             "here; entries from %zu on are missing",
                             (unsigned long long)n, v->export_->n_leaves, v->export_->n_leaves);
    }
    err = dure_merkle_root(&root, v->hashes, n);
    if (err) return err;
    if (!dure_hash_equal(&root, &v->note->checkpoint.head.root)) {
        name_entries(v, 0, n - 1);
        return dure_diag_set(v->diag, DURE_ERR_AUTH,
                             "this is not the log that the site has seen: the first %llu entries "
                             "are not those of its checkpoint",
                             (unsigned long long)n);
    }
    v->report->site_checkpoint = true;
    v->report->site_n = n;
    return DURE_OK;
}

/* ---- All of it ---- */

static dure_err collect_accounts(verifier *v)
{
    size_t n = dure_replay_accounts(v->replay);
    v->report->totals = dure_replay_sum(v->replay);
    v->report->accounts = calloc(n ? n : 1, sizeof *v->report->accounts);
    if (!v->report->accounts) return DURE_ERR_NOMEM;
    dure_err err = DURE_OK;
    for (size_t i = 0; !err && i < n; i++) {
        err = dure_replay_account(&v->report->accounts[i], v->replay, i);
        if (!err) v->report->n_accounts++;
    }
    return err;
}

static dure_err allocate(verifier *v)
{
    size_t n = v->export_->n_leaves + 1, n_notes = v->export_->n_notes + 1;
    v->hashes = calloc(n, sizeof *v->hashes);
    v->rosters = calloc(n, sizeof *v->rosters);
    v->sizes = calloc(n_notes, sizeof *v->sizes);
    v->event = calloc(1, sizeof *v->event);
    v->note = calloc(1, sizeof *v->note);
    if (!v->hashes || !v->rosters || !v->sizes || !v->event || !v->note) {
        return DURE_ERR_NOMEM;
    }
    return dure_replay_new(&v->replay);
}

dure_err dure_verify_export(dure_verify_report *report, const dure_export *export_,
                            const dure_verify_options *options, dure_diag *diag)
{
    verifier v = {.report = report, .export_ = export_, .options = options, .diag = diag};
    *report = (dure_verify_report){.n_leaves = export_->n_leaves};
    dure_err err = allocate(&v);
    if (!err) err = hash_leaves(&v);
    if (!err) err = check_hashes(&v);
    if (!err) err = read_genesis(&v);
    if (!err) err = check_notes(&v);
    if (!err) err = check_site(&v);
    if (!err) err = replay_leaves(&v);
    if (!err) err = tally_notes(&v);
    if (!err) err = check_citations(&v);
    if (!err) err = collect_accounts(&v);
    dure_replay_free(&v.replay);
    free(v.hashes);
    free(v.rosters);
    free(v.sizes);
    free(v.event);
    free(v.note);
    return err;
}

void dure_verify_report_fini(dure_verify_report *report)
{
    free(report->accounts);
    *report = (dure_verify_report){0};
}
