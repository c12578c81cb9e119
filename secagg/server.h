/* The coordinator's side of the secure sum: one object for one round.
 *
 *   KEYS --R0 of U1/A1--> SHARES --R1 of U2/A2--> VECTORS --R2 of U3/A3--> CONSISTENCY
 *        --R3/A4--> UNMASKING --R4 of t sites--> SUMMED
 *
 * A phase ends by itself when everybody who is still expected has answered; otherwise when the
 * caller, who has the clock, calls dure_secagg_server_advance(). It fails cleanly when too few
 * remain. The machine holds public keys, ciphertexts and, at the end, the shares of R4; it never
 * sees a vector, and the masks it reconstructs are those of a sum: the self masks of U3, and the
 * pair masks of members that are not in it, never both of one member.
 *
 * On a sparse graph the phase KEYS does not end before dure_secagg_server_beacon() was called: the
 * order of the ring, and with it who shares with whom, follows from what the beacon signed.
 *
 * Each of A1..A4 is given out as a record to be synced before its frames are sent. After a crash
 * dure_secagg_server_resume() goes on from the records: it sends the last A again, to which sites
 * answer with the same bytes as before.
 *
 * What the machine checks is for the sites' benefit and its own diagnosis; the sites trust none of
 * it. Threads: an object belongs to one thread at a time. */
#pragma once

#include "common/err.h"
#include "crypto/hash.h"
#include "crypto/sign.h"
#include "proto/messages.h"
#include "secagg/actions.h"
#include "secagg/vector.h"

typedef enum dure_secagg_phase {
    DURE_SECAGG_PHASE_KEYS,
    DURE_SECAGG_PHASE_SHARES,
    DURE_SECAGG_PHASE_VECTORS,
    DURE_SECAGG_PHASE_CONSISTENCY,
    DURE_SECAGG_PHASE_UNMASKING,
    DURE_SECAGG_PHASE_SUMMED,
    DURE_SECAGG_PHASE_FAILED,
} dure_secagg_phase;

typedef struct dure_secagg_server_opts {
    const dure_config *config; /* borrowed for the life of the object; passes dure_config_check() */
    dure_hash config_hash;     /* H_C */
    const dure_sign_key *sign; /* borrowed; the coordinator's, for its aborts */
} dure_secagg_server_opts;

typedef struct dure_secagg_server dure_secagg_server;

DURE_MUST_USE dure_err dure_secagg_server_new(dure_secagg_server **out,
                                              const dure_secagg_server_opts *opts, dure_diag *diag);
void dure_secagg_server_free(dure_secagg_server **server); /* wipes; NULL-safe, nulls */

/* Rebuilds the machine after A1..Ak from their k records (records[i] is that of A(i+1), k <= 4),
 * and appends the sends of Ak. With k = 0 it is a new machine. DURE_ERR_FORMAT for records that
 * do not belong together. */
DURE_MUST_USE dure_err dure_secagg_server_resume(dure_secagg_server **out,
                                                 dure_secagg_actions *actions,
                                                 const dure_secagg_server_opts *opts,
                                                 const dure_span *records, size_t k,
                                                 dure_diag *diag);

/* Feeds ADVERTISE, SHARES, MASKED, CONSISTENCY, UNMASK or ABORT of `member`. `root` is needed with
 * MASKED alone: the root over the chunks that were spooled for this member, NULL while chunks are
 * missing. A repeat of what was accepted gets the answer of that step again, or nothing.
 * DURE_ERR_PROTO, DURE_ERR_AUTH: the member broke the protocol: it is named in the actions and
 * counts as dropped. DURE_ERR_STATE, with nothing changed: another round, or not expected now. */
DURE_MUST_USE dure_err dure_secagg_server_step(dure_secagg_actions *actions,
                                               dure_secagg_server *server, uint32_t member,
                                               const dure_msg *msg, const dure_hash *root,
                                               dure_diag *diag);

/* Sparse graph: what the beacon signed for the round's index, once it is out. DURE_ERR_AUTH, with
 * nothing changed, when it is something else; DURE_ERR_STATE when it is not waited for. */
DURE_MUST_USE dure_err dure_secagg_server_beacon(dure_secagg_actions *actions,
                                                 dure_secagg_server *server, dure_span signature,
                                                 dure_diag *diag);

/* The member is gone for this phase: it is not waited for. It may still answer in time. */
DURE_MUST_USE dure_err dure_secagg_server_drop(dure_secagg_actions *actions,
                                               dure_secagg_server *server, uint32_t member);
/* Ends the present phase with those who have answered; the round fails if they are too few.
 * DURE_ERR_STATE while a beacon is waited for, or after the end. */
DURE_MUST_USE dure_err dure_secagg_server_advance(dure_secagg_actions *actions,
                                                  dure_secagg_server *server);
/* What `member` is still owed, after its HELLO: the last A of the round again, if it is in it. */
DURE_MUST_USE dure_err dure_secagg_server_repeat(dure_secagg_actions *actions,
                                                 dure_secagg_server *server, uint32_t member);

dure_secagg_phase dure_secagg_server_phase(const dure_secagg_server *server);
/* Who is still expected to answer in this phase, and who has. */
dure_members dure_secagg_server_missing(const dure_secagg_server *server);
dure_members dure_secagg_server_answered(const dure_secagg_server *server);
/* U1, U2, U3 as far as they are fixed; empty before. */
dure_members dure_secagg_server_set(const dure_secagg_server *server, unsigned k);
/* T3 once A3 was made; DURE_ERR_STATE before. */
DURE_MUST_USE dure_err dure_secagg_server_t3(dure_hash *t3, const dure_secagg_server *server);
/* The keys a site sent in R0, budget chain head included; NULL before. Borrowed. */
const dure_round_keys *dure_secagg_server_keys(const dure_secagg_server *server, uint32_t member);
/* The masks to take off the sum over U3, with DURE_SECAGG_UNMASK; NULL before. Borrowed. Each
 * chunk of the sum goes through dure_masks_apply() exactly once. */
dure_masks *dure_secagg_server_unmasker(dure_secagg_server *server);
