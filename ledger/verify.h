/* Offline verification of an exported ledger: everything is recomputed, nothing is believed.
 *
 * The checks stand in DURE_VERIFY_CHECKS, in their order; each builds on those before it, and the
 * first that fails ends the verification. A failure names the entry, or the smallest range of
 * entries that the signed roots leave. What verification cannot show: that noise was added, and
 * that leaves after the last counting checkpoint are all there are.
 *
 * The format and every rule are written down in docs/ledger.md, enough for another verifier. */
#pragma once

#include "common/err.h"
#include "ledger/export.h"
#include "ledger/replay.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* X(NAME, name): one line of the result each. */
#define DURE_VERIFY_CHECKS(X)                                                                      \
    X(ENTRIES, "entries")           /* each leaf has its recorded hash and the number it says */   \
    X(FOUNDING, "founding")         /* genesis: root key, federation id, coordinator's key */      \
    X(CHECKPOINTS, "checkpoints")   /* signed by the coordinator, with the roots of the leaves */  \
    X(SEEN, "site's view")          /* a site's own checkpoint is a prefix of the log */           \
    X(HISTORY, "history")           /* each event may follow those before it */                    \
    X(ADAPTERS, "adapters")         /* each round goes on from the adapter of the one before */    \
    X(ROSTER, "roster")             /* each version is that of the root-signed chain */            \
    X(PLAN, "plan")                 /* rounds keep to the root's terms and the sites' records */   \
    X(COSIGNATURES, "cosignatures") /* each one in the file is valid; how far a quorum reaches */  \
    X(CITATIONS, "citations")       /* rounds cite checkpoints with a quorum, never going back */  \
    X(PRIVACY, "privacy")           /* each member's epsilon, recomputed */

typedef enum dure_verify_check {
#define DURE_VERIFY_ENUM(NAME, name) DURE_VERIFY_##NAME,
    DURE_VERIFY_CHECKS(DURE_VERIFY_ENUM)
#undef DURE_VERIFY_ENUM
        DURE_VERIFY_N,
} dure_verify_check;

typedef enum dure_verify_outcome {
    DURE_OUTCOME_NOT_REACHED = 0, /* an earlier check failed */
    DURE_OUTCOME_PASSED,
    DURE_OUTCOME_FAILED,
    DURE_OUTCOME_LEFT_OUT, /* what it needs was not given */
} dure_verify_outcome;

/* What one check found, in one sentence. */
typedef struct dure_verify_line {
    dure_verify_outcome outcome;
    char text[384];
} dure_verify_line;

const char *dure_verify_check_name(dure_verify_check check);       /* static */
const char *dure_verify_outcome_text(dure_verify_outcome outcome); /* static */

/* What this layer cannot read, it asks: federation/ knows the bytes of the root-signed roster.
 * Each returns DURE_OK, or an error with a sentence. */

/* The whole of `roster` verifies under genesis->root_public, and the genesis says what follows from
 * the root key and from every invitation: the federation's id, terms, c and coordinator's key.
 * Where the terms protect whole sites *site_delta becomes theirs; else it is left alone. */
typedef dure_err dure_founding_check(double *site_delta, void *state, dure_span roster,
                                     const dure_event_genesis *genesis, dure_diag *diag);
/* Checks one ROSTER leaf against the root-signed chain in the export, which this layer cannot read:
 * DURE_OK when version->size entries of `roster` verify under `root_public`, end in version->head,
 * and leave exactly version->sites in force. */
typedef dure_err dure_roster_check(void *state, dure_span roster, const uint8_t root_public[32],
                                   const dure_event_roster *version, dure_diag *diag);
/* Each OPENED, CLOSED and ABORTED leaf, in log order: mode, clip, grid and steps are those of the
 * terms, each member's constants those of its join record, and nobody has more steps in the sums
 * than the terms plan. */
typedef dure_err dure_round_check(void *state, const dure_event *event, dure_diag *diag);

typedef struct dure_verify_options {
    dure_roster_check *roster_check;     /* required */
    dure_founding_check *founding_check; /* NULL: left out */
    dure_round_check *round_check;       /* NULL: left out */
    void *roster_state;                  /* of the three, which are called in this order */
    dure_span checkpoint;                /* a site's note; empty if none */
    const uint8_t *root; /* the federation's root key from elsewhere; NULL if not known */
} dure_verify_options;

/* What was found; valid after success and, as far as it got, after failure. */
typedef struct dure_verify_report {
    uint64_t n_leaves, n_checkpoints;
    uint64_t n_cosignatures;
    uint64_t shown_n;     /* entries covered by the newest checkpoint that counts */
    uint64_t shown_time;  /* when it had been, though c sites lie; 0 if none counts */
    bool site_checkpoint; /* one was given and is a prefix of the log */
    uint64_t site_n;
    bool entry_known; /* on failure: bad_first .. bad_last are the entries named */
    uint64_t bad_first, bad_last;
    size_t bad_checkpoint; /* on failure: the place in the file of the one at fault, from 1; or 0 */
    dure_verify_line lines[DURE_VERIFY_N];
    dure_event_genesis genesis;
    double site_delta; /* of accounts whose unit is a site */
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
