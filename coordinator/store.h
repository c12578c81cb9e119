/* What the coordinator must not forget, in DIR/state.db (SQLite, WAL, synchronous = FULL; the
 * registry keeps its tables in the same file).
 *
 * Every function that writes has synced when it returns: A1 to A4 are on disk before their first
 * byte leaves, so that a coordinator that was killed repeats exactly what it had said
 * (docs/protocol.md, section 7). A round's row goes
 *
 *   OPEN --sum written--> SUMMED --logged, result ready--> DONE
 *     `-----too few sites, or abandoned-----> FAILED
 *
 * Threads: one at a time on one object; other processes may read the same file. */
#pragma once

#include "common/buf.h"
#include "common/err.h"
#include "crypto/hash.h"
#include "proto/config.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DURE_STORE_SCHEMA 1
#define DURE_STORE_RECORDS 4 /* A1 to A4 */

typedef enum dure_stored_status {
    DURE_STORED_OPEN = 1,
    DURE_STORED_SUMMED = 2,
    DURE_STORED_DONE = 3,
    DURE_STORED_FAILED = 4,
} dure_stored_status;
const char *dure_stored_status_text(dure_stored_status status); /* "open", ... */

typedef struct dure_round_row {
    uint64_t round;
    dure_stored_status status;
    dure_hash config_hash;
    uint8_t config_signature[DURE_SIGNATURE_BYTES];
    dure_hash t3;          /* once SUMMED */
    dure_hash sum;         /* digest of the sum's blob, once SUMMED */
    dure_hash adapter_in;  /* digest of the adapter the round starts from */
    dure_hash adapter_out; /* once DONE */
    uint64_t ledger_index; /* once DONE */
    uint32_t n_members, n_survivors;
    int64_t opened_s, closed_s;
    char reason[256]; /* why it failed; "" otherwise */
} dure_round_row;

typedef struct dure_store dure_store;

/* Opens DIR/state.db and makes the tables that are missing. DURE_ERR_UNSUPPORTED for a newer
 * schema. The caller owns *out. */
DURE_MUST_USE dure_err dure_store_open(dure_store **out, const char *dir, dure_diag *diag);
/* As open, for another process that only looks; the writing calls fail. */
DURE_MUST_USE dure_err dure_store_open_read(dure_store **out, const char *dir, dure_diag *diag);
void dure_store_close(dure_store **store);

/* A new round, with the canonical encoding of its configuration. DURE_ERR_EXISTS if the number was
 * used before. */
DURE_MUST_USE dure_err dure_store_open_round(dure_store *store, const dure_round_row *row,
                                             dure_span config, dure_diag *diag);
/* Records 1..4; the same again with the same bytes is fine, with others DURE_ERR_STATE. */
DURE_MUST_USE dure_err dure_store_put_record(dure_store *store, uint64_t round, unsigned record,
                                             dure_span bytes, dure_diag *diag);
/* OPEN to SUMMED. */
DURE_MUST_USE dure_err dure_store_sum_round(dure_store *store, const dure_round_row *row,
                                            dure_diag *diag);
/* SUMMED to DONE, with the encoded Result that sites may still ask for; `adapter_head`,
 * `previous_t3` and the row change in one transaction. */
DURE_MUST_USE dure_err dure_store_finish_round(dure_store *store, const dure_round_row *row,
                                               dure_span result, dure_diag *diag);
/* The Result of a round that is DONE, with a newer checkpoint. */
DURE_MUST_USE dure_err dure_store_renew_result(dure_store *store, uint64_t round, dure_span result,
                                               dure_diag *diag);
/* To FAILED, with row->reason. */
DURE_MUST_USE dure_err dure_store_fail_round(dure_store *store, uint64_t round, const char *reason,
                                             int64_t now_s, dure_diag *diag);

/* The round that is OPEN or SUMMED: there is at most one. DURE_ERR_NOT_FOUND. */
DURE_MUST_USE dure_err dure_store_unfinished(dure_round_row *out, dure_store *store,
                                             dure_diag *diag);
/* DURE_ERR_NOT_FOUND when no round has this configuration. */
DURE_MUST_USE dure_err dure_store_find_round(dure_round_row *out, dure_store *store,
                                             const dure_hash *config_hash, dure_diag *diag);
/* Every round, oldest first; the caller frees *out. */
DURE_MUST_USE dure_err dure_store_rounds(dure_round_row **out, size_t *n, dure_store *store,
                                         dure_diag *diag);
/* Bytes as they were stored; the caller ends *out with dure_buf_fini(). DURE_ERR_NOT_FOUND. */
DURE_MUST_USE dure_err dure_store_config(dure_buf *out, dure_store *store, uint64_t round,
                                         dure_diag *diag);
DURE_MUST_USE dure_err dure_store_record(dure_buf *out, dure_store *store, uint64_t round,
                                         unsigned record, dure_diag *diag);
DURE_MUST_USE dure_err dure_store_result(dure_buf *out, dure_store *store, uint64_t round,
                                         dure_diag *diag);

/* A site's own budget chain, at least as long as it must be by what it showed and paid: how many
 * entries, and the hash of the last; zero where only the number is known. */
typedef struct dure_site_chain {
    uint64_t length;
    dure_hash head;
} dure_site_chain;
/* By the site's Ed25519 key; zero when it has shown none. */
DURE_MUST_USE dure_err dure_store_chain(dure_site_chain *out, dure_store *store,
                                        const uint8_t sign_public[32], dure_diag *diag);
DURE_MUST_USE dure_err dure_store_put_chain(dure_store *store, const uint8_t sign_public[32],
                                            const dure_site_chain *chain, dure_diag *diag);

/* What the log tells, all at once: rows in its order, and the Result of the last that is DONE
 * (empty: none is). Rounds that are not among the rows failed; the adapter becomes that of the last
 * that is DONE, else `first`. `recovering` becomes 0. */
DURE_MUST_USE dure_err dure_store_adopt(dure_store *store, const dure_round_row *rows, size_t n,
                                        dure_span result, const dure_hash *first, dure_diag *diag);
/* The log is known to have had `size` entries and has fewer here: nothing may be done before they
 * are back. */
DURE_MUST_USE dure_err dure_store_put_recovering(dure_store *store, uint64_t size, dure_diag *diag);

/* Facts of the whole run. */
typedef struct dure_store_facts {
    uint64_t run_id;       /* drawn when the federation is made */
    uint64_t last_round;   /* highest number used */
    uint64_t n_done;       /* rounds that were DONE */
    uint64_t done_round;   /* the last of them, and the entry of the log that closed it; */
    uint64_t done_index;   /* 0 if none was */
    dure_hash done_sum;    /* digest of its sum */
    dure_hash adapter;     /* digest of the present global adapter */
    dure_hash previous_t3; /* of the last DONE round; zero if none */
    uint64_t recovering;   /* size of the log that has to be got back; 0: this folder is whole */
} dure_store_facts;
DURE_MUST_USE dure_err dure_store_facts_get(dure_store_facts *out, dure_store *store,
                                            dure_diag *diag);
/* Once, by `dure init`: the run's number and the first adapter. DURE_ERR_EXISTS the second time. */
DURE_MUST_USE dure_err dure_store_begin(dure_store *store, uint64_t run_id,
                                        const dure_hash *adapter, dure_diag *diag);
