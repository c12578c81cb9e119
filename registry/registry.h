/* Adapter versions: where each comes from, how it did at the gate, and which one is served.
 *
 *            gate passed        promote          next promote        next promote
 *   candidate ------> gated -------> champion ---------> previous ---------> archived
 *       \                                ^                  |
 *        `------> blocked                `---- rollback ----'   (champion then becomes archived)
 *          gate failed
 *
 * Invariants:
 *  1. An adapter file is named by its digest and never changes; a version never changes its file.
 *  2. The aliases `champion` and `previous` move in one transaction: no reader sees half of a
 *     promote or a rollback.
 *  3. Nothing becomes champion without a passed gate, unless forced with a reason, which stays in
 *     the version's record; nothing becomes champion unsigned, ever.
 *  4. What is loaded was checked: file digest, release signature up to the root, base digest.
 *
 * State: DIR/state.db (SQLite, WAL; tables registry_*), blobs below DIR/blobs/sha256. Several
 * processes may have one registry open (the coordinator adds, `dure adapter` promotes, `dure serve`
 * reads). Threads: one at a time on one dure_registry. */
#pragma once

#include "common/buf.h"
#include "common/err.h"
#include "crypto/hash.h"
#include "crypto/sign.h"
#include "registry/gate.h"
#include "registry/release.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DURE_REGISTRY_MAX_ADAPTER_BYTES (1u << 30)
#define DURE_REGISTRY_REASON_SIZE 256

typedef enum dure_version_state {
    DURE_VERSION_CANDIDATE,
    DURE_VERSION_GATED,
    DURE_VERSION_BLOCKED,
    DURE_VERSION_CHAMPION,
    DURE_VERSION_PREVIOUS,
    DURE_VERSION_ARCHIVED,
} dure_version_state;
const char *dure_version_state_text(dure_version_state state); /* "candidate", ... */

typedef struct dure_version {
    uint64_t number;       /* from 1, in the order of adding */
    uint64_t parent;       /* version whose adapter the training started from; 0: the base alone */
    uint64_t round;        /* 0: not from a round */
    uint64_t ledger_index; /* leaf of the round; DURE_RELEASE_NO_LEDGER: none */
    dure_version_state state;
    dure_hash adapter; /* SHA-256 of the file */
    dure_hash base;    /* SHA-256 of the base model's file */
    uint64_t n_bytes;  /* of the file */
    int64_t created_s;
    bool has_gate;
    dure_gate_result gate;
    uint64_t gate_reference;                /* version the gate compared with; 0: the base model */
    bool forced;                            /* promoted without a passed gate */
    char reason[DURE_REGISTRY_REASON_SIZE]; /* why it was forced; "" otherwise */
    bool is_signed;
    int64_t signed_s;
    uint8_t signature[DURE_SIGNATURE_BYTES];
    dure_release_certificate certificate;
} dure_version;

typedef struct dure_registry dure_registry;

/* Opens DIR/coordinator's registry, making its tables where they are missing. `dir` is the
 * coordinator's folder and must exist. DURE_ERR_UNSUPPORTED for state of a newer schema. */
DURE_MUST_USE dure_err dure_registry_open(dure_registry **out, const char *dir, dure_diag *diag);
void dure_registry_close(dure_registry **r);

typedef struct dure_candidate {
    uint64_t parent, round, ledger_index; /* as in dure_version */
    dure_hash base;
    int64_t created_s;
} dure_candidate;

/* Stores the bytes of an adapter file and adds a version. The same file for the same round again
 * gives the same number: a coordinator that was killed may repeat itself. */
DURE_MUST_USE dure_err dure_registry_add(uint64_t *number, dure_registry *r,
                                         const dure_candidate *candidate, dure_span adapter,
                                         dure_diag *diag);
/* The same for a file that is a blob of the registry's folder already; errors also as
 * dure_blob_open(). */
DURE_MUST_USE dure_err dure_registry_add_stored(uint64_t *number, dure_registry *r,
                                                const dure_candidate *candidate,
                                                const dure_hash *adapter, dure_diag *diag);
/* Records the gate: candidate, gated or blocked becomes gated or blocked. DURE_ERR_STATE for a
 * version that was promoted already. */
DURE_MUST_USE dure_err dure_registry_set_gate(dure_registry *r, uint64_t number,
                                              const dure_gate_result *gate, uint64_t reference,
                                              dure_diag *diag);

/* The version by number. DURE_ERR_NOT_FOUND. */
DURE_MUST_USE dure_err dure_registry_get(dure_version *out, dure_registry *r, uint64_t number,
                                         dure_diag *diag);
/* By alias ("champion", "previous"), by "latest", by number ("3" or "v3") or by at least 8 hex
 * digits of the adapter's digest. DURE_ERR_NOT_FOUND with a sentence that says what there is. */
DURE_MUST_USE dure_err dure_registry_find(dure_version *out, dure_registry *r, const char *name,
                                          dure_diag *diag);
/* Every version, oldest first. The caller frees *out with free(). */
DURE_MUST_USE dure_err dure_registry_list(dure_version **out, size_t *n, dure_registry *r,
                                          dure_diag *diag);
/* Path of a version's adapter file, allocated; NULL when out of memory. Not checked: see
 * dure_registry_verify(). */
char *dure_registry_adapter_path(const dure_registry *r, const dure_version *version);

typedef struct dure_promotion {
    const dure_sign_key *key; /* the release key */
    const dure_release_certificate *certificate;
    const uint8_t *root_public; /* 32 bytes: the certificate is verified against it */
    const char *force_reason;   /* NULL: the gate must have passed */
    int64_t now_s;
} dure_promotion;

/* Signs the version and makes it champion; the champion so far becomes previous. The file is
 * checked against its digest first. DURE_ERR_POLICY without a passed gate and a reason;
 * DURE_ERR_STATE if it is the champion already. */
DURE_MUST_USE dure_err dure_registry_promote(dure_registry *r, uint64_t number,
                                             const dure_promotion *promotion, dure_diag *diag);
/* The previous champion is champion again and the present one is archived; *number is who serves
 * now. DURE_ERR_STATE when there is no previous one. */
DURE_MUST_USE dure_err dure_registry_rollback(uint64_t *number, dure_registry *r, int64_t now_s,
                                              dure_diag *diag);

/* A promotion or a rollback, kept until the federation's log has an entry of it: written in the
 * same transaction, since who promotes is not always who writes the log. */
typedef struct dure_registry_move {
    uint64_t seq;
    bool back;         /* a rollback */
    uint64_t number;   /* version in force since then */
    uint64_t previous; /* and before; 0: none */
    int64_t moved_s;
} dure_registry_move;
/* The oldest that is not in the log yet. DURE_ERR_NOT_FOUND when all are. */
DURE_MUST_USE dure_err dure_registry_next_move(dure_registry_move *out, dure_registry *r,
                                               dure_diag *diag);
/* Entry `index` of the log is about it; DURE_RELEASE_NO_LEDGER: none will be. */
DURE_MUST_USE dure_err dure_registry_move_logged(dure_registry *r, uint64_t seq, uint64_t index,
                                                 dure_diag *diag);
/* Entries from `index` on are others now: what they said has to be entered again. */
DURE_MUST_USE dure_err dure_registry_forget_logged(dure_registry *r, uint64_t index,
                                                   dure_diag *diag);
/* The last entry of the log that is about a move; 0 if there is none. */
DURE_MUST_USE dure_err dure_registry_last_logged(uint64_t *index, dure_registry *r,
                                                 dure_diag *diag);

/* What must hold before an adapter is loaded: its file is there and has its digest, the release
 * signature holds up to `root_public`, and it was made for `base` (NULL: any). DURE_ERR_NOT_FOUND,
 * DURE_ERR_AUTH (unsigned, altered, not of this root), DURE_ERR_STATE (another base), each with a
 * sentence that names the version and the fix. */
DURE_MUST_USE dure_err dure_registry_verify(dure_registry *r, const dure_version *version,
                                            const uint8_t root_public[DURE_SIGN_PUBLIC_BYTES],
                                            const dure_hash *base, dure_diag *diag);

/* A counter that changes with every promote and rollback, for who watches for a hot swap. */
DURE_MUST_USE dure_err dure_registry_generation(uint64_t *generation, dure_registry *r,
                                                dure_diag *diag);
