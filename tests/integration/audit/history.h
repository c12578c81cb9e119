/* A federation's past, written event by event into a coordinator's folder with a real roster: five
 * sites of four organisations, and whatever rounds a test wants. Keys and times are fixed, so the
 * export is the same in every run. */
#pragma once

#include "federation/roster.h"
#include "ledger/journal.h"
#include "support/temp_dir.h"

#include "../../unit/federation/fixture.h"

enum { HISTORY_SITES = 5 };

typedef struct history {
    temp_dir dir; /* the coordinator's folder is dir/fed/coordinator */
    fixture federation;
    fixture_site sites[HISTORY_SITES];
    dure_roster *roster;
    dure_journal *journal;
    dure_event *event; /* scratch */
    dure_hash adapter; /* of the last completed round */
    int64_t now_s;
    uint64_t round;     /* the last one */
    uint64_t cited;     /* by it */
    uint32_t suite;     /* that its rounds log; 0: that of the terms */
    char output[65536]; /* of the last command */
} history;

/* Genesis and a roster of all five. */
void history_begin(history *h);
/* The same of a federation of the hybrid suite. */
void history_begin_hybrid(history *h);
void history_end(history *h);

/* A round of all members in force; each takes three hours. */
void history_round_open(history *h);
/* Ends it with the sum of all but the last `n_missing`, and has the log cosigned. */
void history_round_close(history *h, uint32_t n_missing, double loss_before, double loss_after);
/* Ends it without a sum; the first `n_charged` had begun to upload. */
void history_round_abort(history *h, uint32_t n_charged, const char *reason);
/* PROMOTED or ROLLED_BACK of the adapter that `round` made. */
void history_release(history *h, dure_event_kind kind, uint64_t round, const char *reason);
void history_revoke(history *h, size_t site);
/* A checkpoint of the present size with everybody's cosignature; its note is left in dir/seen. */
void history_cosign(history *h);

/* `dure ARGUMENTS` in dir; the exit status, both outputs in h->output. */
int history_run(history *h, const char *format, ...) __attribute__((format(printf, 2, 3)));
void history_says(const history *h, const char *what);
