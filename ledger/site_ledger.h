/* The owner's privacy ledger: what has been promised about named data sources and what has been
 * spent of it, across federations, trainings, restarts and crashes.
 *
 * One append-only file an owner; each line is canonical JSON, {"entry":{...},"hash":H} with
 * H = hash of the previous line's H and the entry's text, synced before a call returns. Rules:
 * 1. A budget belongs to a named source, never to a file or its digest: renamed, added or changed
 *    records inherit what the source has spent. Its epsilon, delta and public number of records
 *    are fixed when it is created.
 * 2. A whole plan is reserved before its first sample or noise is drawn. Reserved counts like
 *    spent. It becomes spent before anything leaves, and is released only when nothing left and
 *    the trained state and noise key are erased. A crash in doubt leaves it counted.
 *    What a plan's rounds have used of its steps is noted as well, so that whoever is put back to
 * an older state of his own learns it here and no step's noise is drawn twice.
 * 3. A source's first plan is fixed before its first release and is held to the PLD accountant's
 *    epsilon (dp/calibrate.h). Plans chosen later, perhaps because of earlier results, are held
 *    together with all before them by a Renyi filter at one order that was fixed with the budget
 *    (Feldman and Zrnic, arXiv 2008.11193); the PLD of such a history is shown and not enforced.
 *    What the noise sampler is off by is taken from delta first, in both.
 * 4. Whoever was shown a head (the hash of the last line) can tell a ledger that was rolled back
 *    to an older copy: it no longer contains that head. The file LEDGER.head beside it was shown
 *    every one; a ledger that lacks it is refused.
 *
 * Every call takes the lock for its own duration and reads what other processes appended, so many
 * processes of one owner may share the file. A line torn by a crash was never acknowledged and is
 * cut off by the next append; any other damage is refused and named.
 *
 * Threads: one thread at a time on one object. */
#pragma once

#include "common/err.h"
#include "crypto/hash.h"
#include "dp/plan.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DURE_SOURCE_NAME_SIZE 65
#define DURE_PURPOSE_SIZE 257

typedef struct dure_site_ledger dure_site_ledger;

/* Allocated path of the owner's ledger: `given` if not NULL, else $DURE_LEDGER, else
 * $XDG_STATE_HOME/dure/ledger, else ~/.local/state/dure/ledger. The caller frees it. */
DURE_MUST_USE dure_err dure_site_ledger_path(char **path, const char *given, dure_diag *diag);

/* Opens or creates (0600, folders 0700) and verifies the whole file. The caller owns *out.
 * DURE_ERR_FORMAT names the entry that is damaged; DURE_ERR_STATE if it is an older copy than the
 * newest; DURE_ERR_BUSY if another process holds the lock for longer than a few seconds. */
DURE_MUST_USE dure_err dure_site_ledger_open(dure_site_ledger **out, const char *path,
                                             dure_diag *diag);
/* As open, for reading a file that must exist; the calls that append fail with DURE_ERR_STATE. */
DURE_MUST_USE dure_err dure_site_ledger_open_read(dure_site_ledger **out, const char *path,
                                                  dure_diag *diag);
void dure_site_ledger_close(dure_site_ledger **ledger);

/* Names a source and fixes its budget. Fine if it is there with the same figures;
 * DURE_ERR_EXISTS if it is there with others; DURE_ERR_USAGE for a name, budget or n_pub out of
 * range, delta over 1 / (10 n_pub) among them. */
DURE_MUST_USE dure_err dure_site_ledger_create_source(dure_site_ledger *ledger, const char *name,
                                                      dure_privacy budget, uint64_t n_pub,
                                                      dure_diag *diag);

/* Names one reservation; random. */
typedef struct dure_reservation_id {
    uint8_t b[16];
} dure_reservation_id;

/* Reserves the whole plan. `purpose` says what for, in words ("federation mills, rounds 1-10").
 * DURE_ERR_BUDGET if it does not fit, with a sentence that says which plan would;
 * DURE_ERR_NOT_FOUND for an unknown source; DURE_ERR_USAGE if plan->n_pub is not the source's, or
 * earlier plans of the source have another unit of privacy. */
DURE_MUST_USE dure_err dure_site_ledger_reserve(dure_reservation_id *id, dure_site_ledger *ledger,
                                                const char *source, const dure_dp_plan *plan,
                                                const char *purpose, dure_diag *diag);
/* The same under a name that the caller made and has stored before, so that after a crash it finds
 * out whether it has reserved: what is there under the name with this source and plan is taken as
 * done. DURE_ERR_EXISTS if it is there with others, DURE_ERR_STATE if it was released. */
DURE_MUST_USE dure_err dure_site_ledger_reserve_as(dure_site_ledger *ledger,
                                                   const dure_reservation_id *id,
                                                   const char *source, const dure_dp_plan *plan,
                                                   const char *purpose, dure_diag *diag);
DURE_MUST_USE dure_err dure_reservation_id_make(dure_reservation_id *id, dure_diag *diag);
/* Sets plan->sigma_num to the least noise with which the plan fits what is left of the source; for
 * a source's first plan that is the noise which spends the whole budget. Reserves nothing.
 * DURE_ERR_BUDGET with a sentence if no noise does; otherwise as reserve. */
DURE_MUST_USE dure_err dure_site_ledger_least_noise(dure_dp_plan *plan, dure_site_ledger *ledger,
                                                    const char *source, dure_diag *diag);
/* DURE_OK if the plan could be reserved as it is; else what reserve would say. Reserves nothing. */
DURE_MUST_USE dure_err dure_site_ledger_check(dure_site_ledger *ledger, const char *source,
                                              const dure_dp_plan *plan, dure_diag *diag);
/* Reserved to spent, durable when it returns: call it before anything leaves. Fine if it is spent
 * already; DURE_ERR_STATE if it was released, DURE_ERR_NOT_FOUND if it is unknown. */
DURE_MUST_USE dure_err dure_site_ledger_spend(dure_site_ledger *ledger,
                                              const dure_reservation_id *id, dure_diag *diag);
/* The same for one that is spent in one go, by whoever draws its noise from a key of this digest:
 * it is noted, and nobody with another key spends it again (a reservation's name can be copied).
 * DURE_ERR_STATE for such a one. */
DURE_MUST_USE dure_err dure_site_ledger_spend_by(dure_site_ledger *ledger,
                                                 const dure_reservation_id *id,
                                                 const dure_hash *spender, dure_diag *diag);
/* Steps [from, to) of a plan, counted from 0, that leave in one round of a federation. */
typedef struct dure_ledger_use {
    uint64_t round;
    uint64_t from, to;
} dure_ledger_use;
/* Notes what leaves now under a spent reservation, durable when it returns: call it after spend
 * and before anything leaves. Steps may be left out and are then gone; neither they nor rounds come
 * twice. DURE_ERR_STATE if the reservation is not spent, or for a step or a round that is not above
 * the last one noted; DURE_ERR_BUDGET past the plan's end; DURE_ERR_USAGE for an empty range. */
DURE_MUST_USE dure_err dure_site_ledger_use(dure_site_ledger *ledger, const dure_reservation_id *id,
                                            const dure_ledger_use *use, dure_diag *diag);
/* Gives a reservation back. Only if nothing left and the trained state and noise key are erased,
 * which the caller has done before. DURE_ERR_STATE if it was spent. */
DURE_MUST_USE dure_err dure_site_ledger_release(dure_site_ledger *ledger,
                                                const dure_reservation_id *id, dure_diag *diag);

typedef enum dure_reservation_state {
    DURE_RESERVATION_RESERVED,
    DURE_RESERVATION_SPENT,
    DURE_RESERVATION_RELEASED,
} dure_reservation_state;

typedef struct dure_reservation {
    dure_reservation_id id;
    dure_reservation_state state;
    char source[DURE_SOURCE_NAME_SIZE];
    char purpose[DURE_PURPOSE_SIZE];
    int64_t reserved_at_s; /* wall clock */
    dure_dp_plan plan;
    bool has_spender; /* what dure_site_ledger_spend_by() noted */
    dure_hash spender;
    uint64_t steps_used; /* the highest `to` that was noted; 0: none */
    uint64_t last_round; /* and the highest round */
} dure_reservation;

/* A source's figures, composed over all its events at budget.delta by the PLD accountant, and by
 * the Renyi one where the name says so. `committed` counts reserved and spent; `remaining` is
 * budget.epsilon - epsilon_committed, at least 0. filter_used is the part of the filter of rule 3
 * that is committed: a second or later plan fits while it stays within 1. */
typedef struct dure_source_status {
    char name[DURE_SOURCE_NAME_SIZE];
    dure_privacy budget;
    uint64_t n_pub;
    double order; /* of the filter for later plans */
    double epsilon_spent, epsilon_committed, epsilon_remaining;
    double epsilon_committed_rdp;
    double filter_used;
    size_t n_reserved, n_spent, n_released;
} dure_source_status;

/* What the ledger holds, as of the last call that took the lock (refresh does only that).
 * DURE_ERR_NOT_FOUND for an unknown name or id. Pointers are borrowed until the next call that
 * takes the lock. */
DURE_MUST_USE dure_err dure_site_ledger_refresh(dure_site_ledger *ledger, dure_diag *diag);
size_t dure_site_ledger_source_count(const dure_site_ledger *ledger);
void dure_site_ledger_source_at(dure_source_status *out, const dure_site_ledger *ledger, size_t i);
DURE_MUST_USE dure_err dure_site_ledger_source(dure_source_status *out,
                                               const dure_site_ledger *ledger, const char *name,
                                               dure_diag *diag);
size_t dure_site_ledger_reservation_count(const dure_site_ledger *ledger);
const dure_reservation *dure_site_ledger_reservation_at(const dure_site_ledger *ledger, size_t i);
DURE_MUST_USE dure_err dure_site_ledger_reservation(const dure_reservation **out,
                                                    const dure_site_ledger *ledger,
                                                    const dure_reservation_id *id, dure_diag *diag);

/* The hash of the last line and the number of lines: what R0 carries. */
void dure_site_ledger_head(dure_hash *head, uint64_t *n_entries, const dure_site_ledger *ledger);
/* True if the chain has, or had, this head: false means that the file is an older or another
 * copy than the one the head was taken from. */
bool dure_site_ledger_contains(const dure_site_ledger *ledger, const dure_hash *head);
