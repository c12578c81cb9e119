/* The order matters for what can be said about a failure: hashes and numbers of the leaves first,
 * since they name single entries; then the signed roots, which say whether the leaves or their
 * stored hashes are to blame; then the meaning of the entries. */
#include "ledger/verify.h"

#include "crypto/wipe.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long long ull;

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
    uint64_t *sizes;      /* of the checkpoints */
    dure_site_key *sites; /* everyone who was ever in force, with each key */
    bool *signed_by;      /* scratch, a flag for each of them */
    size_t n_sites, sites_capacity;
} verifier;

const char *dure_verify_check_name(dure_verify_check check)
{
    static const char *const names[] = {
#define DURE_VERIFY_NAME(NAME, name) name,
        DURE_VERIFY_CHECKS(DURE_VERIFY_NAME)
#undef DURE_VERIFY_NAME
    };
    return (unsigned)check < DURE_VERIFY_N ? names[check] : "";
}

const char *dure_verify_outcome_text(dure_verify_outcome outcome)
{
    static const char *const texts[] = {"not reached", "passed", "failed", "left out"};
    return (unsigned)outcome < sizeof texts / sizeof *texts ? texts[outcome] : "";
}

/* What the running check found. */
static void say(verifier *v, dure_verify_check check, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void say(verifier *v, dure_verify_check check, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    dure_verify_line *line = &v->report->lines[check];
    (void)vsnprintf(line->text, sizeof line->text, format, args);
    va_end(args);
}

/* Names the entries first .. last as those at fault. */
static void name_entries(verifier *v, uint64_t first, uint64_t last)
{
    v->report->entry_known = true;
    v->report->bad_first = first;
    v->report->bad_last = last;
}

static bool is_round(const dure_event *event)
{
    return event->kind == DURE_EVENT_OPENED || event->kind == DURE_EVENT_CLOSED ||
           event->kind == DURE_EVENT_ABORTED;
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

/* The leaf has its stored hash, is an event, and is the one its place says. */
static dure_err check_leaf(verifier *v, size_t i)
{
    const dure_export_leaf *leaf = &v->export_->leaves[i];
    if (!dure_hash_equal(&v->hashes[i], &leaf->hash)) {
        name_entries(v, i, i);
        return dure_diag_set(v->diag, DURE_ERR_AUTH,
                             "entry %zu was changed: it does not have its recorded hash", i);
    }
    dure_err err = dure_event_decode(v->event, leaf->bytes, v->diag);
    if (err) return prefix_entry(v, i, DURE_ERR_FORMAT);
    if (v->event->index == i) return DURE_OK;
    (void)dure_diag_set(v->diag, DURE_ERR_FORMAT, "it says that it is entry %llu",
                        (ull)v->event->index);
    return prefix_entry(v, i, DURE_ERR_FORMAT);
}

static dure_err check_entries(verifier *v)
{
    dure_err err = hash_leaves(v);
    if (!err && v->export_->n_leaves == 0) {
        return dure_diag_set(v->diag, DURE_ERR_FORMAT, "the ledger has no entries");
    }
    for (size_t i = 0; !err && i < v->export_->n_leaves; i++)
        err = check_leaf(v, i);
    say(v, DURE_VERIFY_ENTRIES, "%zu entries, each with its recorded hash and its own number",
        v->export_->n_leaves);
    return err;
}

/* ---- 2. The genesis ---- */

static dure_err check_founding(verifier *v)
{
    dure_event_genesis *genesis = &v->report->genesis;
    dure_err err = dure_event_decode(v->event, v->export_->leaves[0].bytes, v->diag);
    if (!err && v->event->kind != DURE_EVENT_GENESIS) {
        err = dure_diag_set(v->diag, DURE_ERR_FORMAT, "it is not the genesis");
    }
    if (err) return prefix_entry(v, 0, DURE_ERR_FORMAT);
    *genesis = v->event->u.genesis;
    dure_checkpoint_origin(v->origin, genesis->federation, &genesis->federation_id);
    if (v->options->root && !dure_ct_equal(v->options->root, genesis->root_public, 32)) {
        name_entries(v, 0, 0);
        return dure_diag_set(v->diag, DURE_ERR_AUTH,
                             "entry 0 names another root key: this is another federation's ledger");
    }
    if (v->options->founding_check) {
        err = v->options->founding_check(&v->report->site_delta, v->options->roster_state,
                                         v->export_->roster, genesis, v->diag);
        if (err) return prefix_entry(v, 0, DURE_ERR_AUTH);
    }
    dure_replay_set_site_delta(v->replay, v->report->site_delta);
    say(v, DURE_VERIFY_FOUNDING, "%s",
        v->options->root
            ? "entry 0 has the root key that was given"
            : "entry 0 names the root key; compare it with the one you know, or give --root");
    return DURE_OK;
}

/* ---- 4. The meaning of the entries ---- */

static bool is_noted(const verifier *v, const dure_site_key *site)
{
    for (size_t k = 0; k < v->n_sites; k++) {
        if (!strcmp(v->sites[k].name, site->name) &&
            dure_ct_equal(v->sites[k].sign_public, site->sign_public, 32)) {
            return true;
        }
    }
    return false;
}

/* Remembers who is in force: they may have cosigned, also checkpoints from before they joined. */
static dure_err note_sites(verifier *v, const dure_event_roster *roster)
{
    for (uint32_t i = 0; i < roster->n_sites; i++) {
        if (is_noted(v, &roster->sites[i])) continue;
        if (v->n_sites == v->sites_capacity) {
            size_t capacity = v->sites_capacity ? 2 * v->sites_capacity : 128;
            dure_site_key *sites = realloc(v->sites, capacity * sizeof *sites);
            if (!sites) return DURE_ERR_NOMEM;
            v->sites = sites;
            bool *flags = realloc(v->signed_by, capacity * sizeof *flags);
            if (!flags) return DURE_ERR_NOMEM;
            v->signed_by = flags;
            v->sites_capacity = capacity;
        }
        v->sites[v->n_sites++] = roster->sites[i];
    }
    return DURE_OK;
}

static dure_err replay_leaf(verifier *v, dure_replay *replay, size_t i)
{
    dure_err err = dure_event_decode(v->event, v->export_->leaves[i].bytes, v->diag);
    if (!err) err = dure_replay_add(replay, v->event, v->diag);
    if (err == DURE_ERR_NOMEM || err == DURE_ERR_CRYPTO) return err;
    if (err) return prefix_entry(v, i, DURE_ERR_FORMAT);
    if (v->event->kind == DURE_EVENT_ROSTER) {
        v->rosters[v->n_rosters++] = i;
        return note_sites(v, &v->event->u.roster);
    }
    if (v->event->kind != DURE_EVENT_NEW_EPOCH) return DURE_OK;
    dure_hash root;
    err = dure_merkle_root(&root, v->hashes, i);
    if (!err && !dure_hash_equal(&root, &v->event->u.epoch.kept.root)) {
        (void)dure_diag_set(v->diag, DURE_ERR_AUTH,
                            "the new epoch keeps other entries than those before it");
        return prefix_entry(v, i, DURE_ERR_AUTH);
    }
    return err;
}

static dure_err check_history(verifier *v)
{
    dure_err err = DURE_OK;
    for (size_t i = 0; !err && i < v->export_->n_leaves; i++)
        err = replay_leaf(v, v->replay, i);
    const dure_replay_totals t = dure_replay_sum(v->replay);
    say(v, DURE_VERIFY_HISTORY,
        "%llu rounds opened, %llu closed, %llu aborted, %llu without an end; %llu new epochs",
        (ull)t.opened, (ull)t.closed, (ull)t.aborted, (ull)(t.opened - t.closed - t.aborted),
        (ull)t.epochs);
    return err;
}

/* A round goes on from the adapter of the last closed round of its run. After a root-signed loss
 * the leaf of that round may be among what was lost. */
static dure_err check_adapters(verifier *v)
{
    uint64_t run_id = 0, n = 0;
    bool linked = false;
    dure_hash adapter = {{0}};
    for (size_t i = 0; i < v->export_->n_leaves; i++) {
        dure_err err = dure_event_decode(v->event, v->export_->leaves[i].bytes, v->diag);
        if (err) return err;
        const dure_event_round *round = &v->event->u.round;
        if (v->event->kind == DURE_EVENT_NEW_EPOCH) linked = false;
        if (v->event->kind == DURE_EVENT_OPENED && linked && round->run_id == run_id &&
            !dure_hash_equal(&round->adapter_in, &adapter)) {
            (void)dure_diag_set(v->diag, DURE_ERR_AUTH,
                                "round %llu does not go on from the adapter of the round before it",
                                (ull)round->round);
            return prefix_entry(v, i, DURE_ERR_AUTH);
        }
        if (v->event->kind != DURE_EVENT_CLOSED) continue;
        n++;
        linked = true;
        run_id = round->run_id;
        adapter = round->adapter_out;
    }
    say(v, DURE_VERIFY_ADAPTERS, "%llu adapters, each made by a round from the one before it",
        (ull)n);
    return DURE_OK;
}

static dure_err check_rosters(verifier *v)
{
    for (size_t k = 0; k < v->n_rosters; k++) {
        size_t i = (size_t)v->rosters[k];
        dure_err err = dure_event_decode(v->event, v->export_->leaves[i].bytes, v->diag);
        if (!err) {
            err = v->options->roster_check(v->options->roster_state, v->export_->roster,
                                           v->report->genesis.root_public, &v->event->u.roster,
                                           v->diag);
        }
        if (err) return prefix_entry(v, i, DURE_ERR_AUTH);
    }
    say(v, DURE_VERIFY_ROSTER, "%zu version%s, each signed by the root", v->n_rosters,
        v->n_rosters == 1 ? "" : "s");
    return DURE_OK;
}

static dure_err check_plan(verifier *v)
{
    uint64_t n = 0;
    for (size_t i = 0; v->options->round_check && i < v->export_->n_leaves; i++) {
        dure_err err = dure_event_decode(v->event, v->export_->leaves[i].bytes, v->diag);
        if (err) return err;
        if (!is_round(v->event)) continue;
        n += v->event->kind == DURE_EVENT_OPENED;
        err = v->options->round_check(v->options->roster_state, v->event, v->diag);
        if (err) return prefix_entry(v, i, DURE_ERR_AUTH);
    }
    say(v, DURE_VERIFY_PLAN,
        "%llu rounds keep to the terms that the root signed and to what each site declared",
        (ull)n);
    return DURE_OK;
}

/* ---- 3. Checkpoints ---- */

/* The roster in force at `size` entries into the scratch event; NULL if none. */
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

/* Narrows down which of the entries first .. last was replaced. What contradicts the entries before
 * it is wrong itself or shows that one of them is; what contradicts the root's terms is wrong. The
 * sentence about it is then in v->diag. */
static dure_err narrow(bool *found, verifier *v, uint64_t *first, uint64_t *last)
{
    dure_replay *replay = NULL;
    *found = false;
    dure_err err = dure_replay_new(&replay);
    for (uint64_t i = 0; !err && !*found && i <= *last; i++) {
        dure_err wrong = dure_event_decode(v->event, v->export_->leaves[i].bytes, v->diag);
        if (!wrong) wrong = dure_replay_add(replay, v->event, v->diag);
        bool alone = !wrong && v->options->round_check && is_round(v->event);
        if (alone) wrong = v->options->round_check(v->options->roster_state, v->event, v->diag);
        if (!wrong) continue;
        if (wrong == DURE_ERR_NOMEM || wrong == DURE_ERR_CRYPTO) err = wrong;
        if (err || i < *first) break; /* of an entry that a checkpoint covers: no help here */
        *found = true;
        if (alone) *first = i;
        *last = i;
    }
    dure_replay_free(&replay);
    return err;
}

/* A root that does not match: an entry since the last one that did was replaced together with its
 * hash. */
static dure_err blame_range(verifier *v, uint64_t good, uint64_t size)
{
    bool found = false;
    uint64_t first = good, last = size - 1;
    dure_err err = narrow(&found, v, &first, &last);
    if (err) return err;
    dure_diag why = *v->diag;
    name_entries(v, first, last);
    if (first == last) {
        return dure_diag_set(v->diag, DURE_ERR_AUTH,
                             "entry %llu was replaced: it is not the one in the signed checkpoint "
                             "of size %llu%s%s",
                             (ull)first, (ull)size, found ? "; " : "", found ? why.text : "");
    }
    return dure_diag_set(v->diag, DURE_ERR_AUTH,
                         "one of the entries %llu to %llu was replaced: they are not those of the "
                         "signed checkpoint of size %llu%s%s",
                         (ull)first, (ull)last, (ull)size, found ? "; " : "",
                         found ? why.text : "");
}

static dure_err parse_note(verifier *v, dure_span text)
{
    dure_err err = dure_note_parse(v->note, text, v->diag);
    if (err) return err;
    return dure_note_verify(v->note, v->origin, v->report->genesis.coordinator_sign, v->diag);
}

/* Names checkpoint k of the file. */
static dure_err prefix_checkpoint(verifier *v, size_t k, dure_err err)
{
    v->report->bad_checkpoint = k + 1;
    return dure_diag_prefix(v->diag, err, "checkpoint %zu of %zu", k + 1, v->export_->n_notes);
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
        dure_err err = parse_note(v, v->export_->notes[k]);
        if (err) return prefix_checkpoint(v, k, err);
        err = check_note(v, &tree, good);
        if (err) return v->report->entry_known ? err : prefix_checkpoint(v, k, err);
        good = v->note->checkpoint.head.n;
        v->sizes[k] = good;
        v->report->n_checkpoints++;
    }
    say(v, DURE_VERIFY_CHECKPOINTS,
        "%zu checkpoints, signed by the coordinator; the last covers %llu of %zu entries",
        v->export_->n_notes, (ull)good, v->export_->n_leaves);
    return DURE_OK;
}

/* ---- 5. Cosignatures ---- */

/* Whether the parsed note counts with the roster in force in the first `n_entries`. */
static dure_err note_counts(bool *counts, dure_cosign_tally *tally, verifier *v, uint64_t n_entries)
{
    const dure_event_roster *roster = roster_at(v, n_entries);
    *counts = false;
    if (!roster) return DURE_OK;
    const dure_cosigners who = {roster->sites, roster->n_sites, v->report->genesis.collusion};
    return dure_cosign_counts(counts, tally, v->note, &who);
}

/* A coordinator exports what it stored, and it stores valid cosignatures of its sites only. So any
 * other line was put in or altered, also where a quorum is left without it. */
static dure_err check_lines(verifier *v)
{
    dure_cosign_tally tally = {0};
    size_t n_others = 0;
    const dure_cosigners all = {.sites = v->sites, .n = (uint32_t)v->n_sites};
    dure_err err = dure_cosign_count(&tally, v->signed_by, v->note, &all);
    if (err) return err;
    for (size_t k = 0; k < v->note->n_lines; k++) {
        const char *name = v->note->lines[k].name;
        bool known = false, signs = false;
        if (!strcmp(name, v->origin)) continue;
        n_others++;
        for (size_t i = 0; i < v->n_sites; i++) {
            if (strcmp(v->sites[i].name, name) != 0) continue;
            known = true;
            signs = signs || v->signed_by[i];
        }
        if (!known) {
            return dure_diag_set(v->diag, DURE_ERR_AUTH,
                                 "it has a signature of %s, which was never a site", name);
        }
        if (!signs) {
            return dure_diag_set(v->diag, DURE_ERR_AUTH, "the cosignature of %s is not valid",
                                 name);
        }
    }
    v->report->n_cosignatures += tally.n;
    if (n_others == tally.n && v->note->n_lines == n_others + 1) return DURE_OK;
    return dure_diag_set(v->diag, DURE_ERR_AUTH, "it has a signature twice");
}

/* How far the sites have seen the log: the newest checkpoint that counted when it was made. */
static dure_err tally_note(verifier *v, size_t k)
{
    dure_cosign_tally tally = {0};
    bool counts = false;
    dure_err err = parse_note(v, v->export_->notes[k]);
    if (!err) err = check_lines(v);
    if (!err) err = note_counts(&counts, &tally, v, v->sizes[k]);
    if (err || !counts) return err;
    v->report->shown_n = v->sizes[k];
    v->report->shown_time = tally.seen_s;
    return DURE_OK;
}

static dure_err tally_notes(verifier *v)
{
    for (size_t k = 0; k < v->export_->n_notes; k++) {
        dure_err err = tally_note(v, k);
        if (err) return prefix_checkpoint(v, k, err);
    }
    char shown[96] = "no checkpoint has enough of them, so entries may have been withheld";
    if (v->report->shown_n > 0) {
        (void)snprintf(shown, sizeof shown, "enough sites saw entries 0 to %llu",
                       (ull)(v->report->shown_n - 1));
    }
    say(v, DURE_VERIFY_COSIGNATURES, "%llu cosignatures of sites, all valid; %s",
        (ull)v->report->n_cosignatures, shown);
    return DURE_OK;
}

/* ---- 6. Citations ---- */

/* Whether the checkpoint of this size is exported and counts for a round opened in entry i: with
 * the roster that the round names, as its sites counted. */
static dure_err counts_for(bool *counts, verifier *v, uint64_t size, uint64_t i)
{
    size_t k = 0;
    *counts = false;
    while (k < v->export_->n_notes && v->sizes[k] != size)
        k++;
    if (k == v->export_->n_notes) return DURE_OK;
    dure_err err = parse_note(v, v->export_->notes[k]);
    return err ? err : note_counts(counts, NULL, v, i);
}

/* The round opened in entry i cites a checkpoint that counts and covers `least` entries: the last
 * result, and whatever an earlier round cited. Before the first result it may cite none. */
static dure_err check_citation(verifier *v, size_t i, uint64_t least)
{
    const ull cited = v->event->u.round.checkpoint_n, round = v->event->u.round.round;
    bool counts = cited == 0;
    if (cited < least) {
        return dure_diag_set(v->diag, DURE_ERR_AUTH,
                             "round %llu cites the checkpoint of size %llu, but one of at least "
                             "%llu entries holds the result before it and what was cited before",
                             round, cited, (ull)least);
    }
    dure_err err = counts ? DURE_OK : counts_for(&counts, v, cited, i);
    if (err || counts) return err;
    return dure_diag_set(v->diag, DURE_ERR_AUTH,
                         "round %llu cites the checkpoint of size %llu, which lacks the "
                         "cosignatures of enough sites",
                         round, cited);
}

static dure_err check_citations(verifier *v)
{
    uint64_t least = 0, n = 0;
    for (size_t i = 0; i < v->export_->n_leaves; i++) {
        dure_err err = dure_event_decode(v->event, v->export_->leaves[i].bytes, v->diag);
        if (err) return err;
        const dure_event_kind kind = v->event->kind;
        const uint64_t cited = v->event->u.round.checkpoint_n;
        if (kind == DURE_EVENT_CLOSED) least = i + 1;
        if (kind == DURE_EVENT_NEW_EPOCH) least = 0; /* checkpoints were lost as well */
        if (kind != DURE_EVENT_OPENED) continue;
        err = check_citation(v, i, least);
        if (err) return err == DURE_ERR_AUTH ? prefix_entry(v, i, err) : err;
        if (cited > least) least = cited;
        n += cited > 0;
    }
    say(v, DURE_VERIFY_CITATIONS,
        "of %llu rounds, each on a result that enough sites had cosigned before", (ull)n);
    return DURE_OK;
}

/* ---- 7. A site's own checkpoint ---- */

static dure_err check_site(verifier *v)
{
    dure_hash root;
    say(v, DURE_VERIFY_SEEN, "no site's checkpoint was given, so the log may be one of two");
    if (v->options->checkpoint.n == 0) return DURE_OK;
    dure_err err = parse_note(v, v->options->checkpoint);
    if (err) return dure_diag_prefix(v->diag, err, "the site's checkpoint");
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
    say(v, DURE_VERIFY_SEEN, "the %llu entries that the site has seen are in this log", (ull)n);
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

/* Both accountants give upper bounds, and that of loss distributions is the tighter one: above the
 * other it would be wrong. */
static bool accountants_agree(const dure_account *a)
{
    if (isinf(a->epsilon) || isinf(a->epsilon_rdp))
        return isinf(a->epsilon) && isinf(a->epsilon_rdp);
    /* Losses below the first one's grid put it some 1e-4 high, whatever epsilon is. */
    return a->epsilon <= 1.001 * a->epsilon_rdp + 1e-3;
}

/* Recomputes every member's epsilon. What it may be at most follows from the plan check: a site's
 * own budget is in its own ledger. */
static dure_err check_privacy(verifier *v)
{
    dure_err err = collect_accounts(v);
    const dure_account *most = NULL;
    for (size_t i = 0; !err && i < v->report->n_accounts; i++) {
        const dure_account *a = &v->report->accounts[i];
        if (!most || a->epsilon > most->epsilon) most = a;
        if (accountants_agree(a)) continue;
        err = dure_diag_set(v->diag, DURE_ERR_STATE,
                            "the two accountants contradict each other about %s: %.4f by loss "
                            "distributions, %.4f by Renyi divergences; report this as a fault of "
                            "this program",
                            a->name, a->epsilon, a->epsilon_rdp);
    }
    if (err) return err;
    if (!most) {
        say(v, DURE_VERIFY_PRIVACY, "no site has taken part in a round");
    } else if (!isfinite(most->epsilon)) {
        say(v, DURE_VERIFY_PRIVACY, "%s took part without noise: its records have no guarantee",
            most->name);
    } else {
        say(v, DURE_VERIFY_PRIVACY,
            "recomputed for %zu sites by two accountants; the largest is epsilon %.4f (%.4f) at "
            "delta %.2e, of %s",
            v->report->n_accounts, most->epsilon, most->epsilon_rdp, most->delta, most->name);
    }
    return DURE_OK;
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

static void release(verifier *v)
{
    dure_replay_free(&v->replay);
    free(v->hashes);
    free(v->rosters);
    free(v->sizes);
    free(v->sites);
    free(v->signed_by);
    free(v->event);
    free(v->note);
}

static bool is_left_out(const verifier *v, dure_verify_check check)
{
    return (check == DURE_VERIFY_SEEN && v->options->checkpoint.n == 0) ||
           (check == DURE_VERIFY_PLAN && !v->options->round_check);
}

dure_err dure_verify_export(dure_verify_report *report, const dure_export *export_,
                            const dure_verify_options *options, dure_diag *diag)
{
    typedef dure_err check_function(verifier * v);
    static check_function *const checks[DURE_VERIFY_N] = {
        [DURE_VERIFY_ENTRIES] = check_entries,    [DURE_VERIFY_FOUNDING] = check_founding,
        [DURE_VERIFY_CHECKPOINTS] = check_notes,  [DURE_VERIFY_SEEN] = check_site,
        [DURE_VERIFY_HISTORY] = check_history,    [DURE_VERIFY_ADAPTERS] = check_adapters,
        [DURE_VERIFY_ROSTER] = check_rosters,     [DURE_VERIFY_PLAN] = check_plan,
        [DURE_VERIFY_COSIGNATURES] = tally_notes, [DURE_VERIFY_CITATIONS] = check_citations,
        [DURE_VERIFY_PRIVACY] = check_privacy,
    };
    dure_diag unused = {{0}};
    verifier v = {.report = report, .export_ = export_, .options = options};
    v.diag = diag ? diag : &unused;
    *report =
        (dure_verify_report){.n_leaves = export_->n_leaves, .site_delta = DURE_DP_SITE_DELTA_MAX};
    dure_err err = allocate(&v);
    for (int i = 0; !err && i < DURE_VERIFY_N; i++) {
        dure_verify_check check = (dure_verify_check)i;
        err = checks[check](&v);
        report->lines[check].outcome = err                      ? DURE_OUTCOME_FAILED
                                       : is_left_out(&v, check) ? DURE_OUTCOME_LEFT_OUT
                                                                : DURE_OUTCOME_PASSED;
        if (err) say(&v, check, "%s", v.diag->text[0] ? v.diag->text : dure_err_text(err));
    }
    release(&v);
    return err;
}

void dure_verify_report_fini(dure_verify_report *report)
{
    free(report->accounts);
    *report = (dure_verify_report){0};
}
