/* Offline verification of an exported ledger: everything is recomputed, nothing is believed.
 *
 * 1. every leaf has its hash, and decodes; 2. each checkpoint is signed by the coordinator of the
 * genesis leaf, and its root is that of the leaves; 3. each checkpoint that a round cites has the
 * cosignatures of a quorum of the sites in force in the roster that the round names; 4. each roster
 * version is that of the root-signed chain; 5. the events follow from each other, and each member's
 * epsilon is recomputed;
 * 6. a site's own checkpoint, if given, is a prefix of the log.
 *
 * A failure names the entry (or the smallest range of entries that the signed roots leave). What
 * verification cannot show: that noise was added, and that leaves after the last counting
 * checkpoint are all there are. */
#pragma once

#include "common/err.h"
#include "ledger/export.h"
#include "ledger/replay.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Checks one ROSTER leaf against the root-signed chain in the export, which this layer cannot read:
 * DURE_OK when version->size entries of `roster` verify under `root_public`, end in version->head,
 * and leave exactly version->sites in force. */
typedef dure_err dure_roster_check(void *state, dure_span roster, const uint8_t root_public[32],
                                   const dure_event_roster *version, dure_diag *diag);

typedef struct dure_verify_options {
    dure_roster_check *roster_check; /* required */
    void *roster_state;
    dure_span checkpoint; /* a site's note; empty if none */
    const uint8_t *root;  /* the federation's root key from elsewhere; NULL if not known */
} dure_verify_options;

/* What was found; valid after success and, as far as it got, after failure. */
typedef struct dure_verify_report {
    uint64_t n_leaves, n_checkpoints;
    uint64_t shown_n;     /* entries covered by the newest checkpoint that counts */
    uint64_t shown_time;  /* the latest cosignature on it; 0 if none counts */
    bool site_checkpoint; /* one was given and is a prefix of the log */
    uint64_t site_n;
    bool entry_known; /* on failure: bad_first .. bad_last are the entries named */
    uint64_t bad_first, bad_last;
    dure_event_genesis genesis;
    dure_replay_totals totals;
    dure_account *accounts; /* of members, by first appearance */
    size_t n_accounts;
} dure_verify_report;

/* DURE_OK when the whole file stands. DURE_ERR_AUTH (signature, hash, quorum, prefix) or
 * DURE_ERR_FORMAT (structure, order) with one sentence in `diag` that names the entry. The caller
 * frees the report in every case. */
DURE_MUST_USE dure_err dure_verify_export(dure_verify_report *report, const dure_export *export_,
                                          const dure_verify_options *options, dure_diag *diag);
void dure_verify_report_fini(dure_verify_report *report);
