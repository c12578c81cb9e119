/* A site's side of the secure sum: one object for one round.
 *
 *   NEW --R0--> ADVERTISED --A1/R1--> SHARED --A2--> TRAINING --update--> UPLOADING
 *       --all chunks sent/R2--> MASKED --A3/R3--> CONSISTENT --A4/R4--> UNMASKED --> ENDED
 *
 * What it never does, whatever the coordinator sends (tests/unit/secagg holds each):
 *  1. answer two different A1, A2, A3 or A4 of one round: a byte-identical repeat gets the stored,
 *     identical reply; a different one ends the round with an abort;
 *  2. give both shares of one member, or any share without valid R3 signatures of more than
 *     (|U0| + c) / 2 members of U3 on the T3 that it signed itself;
 *  3. go on when a set is not within the one before it, is smaller than the configuration's U_min
 *     or the site's own floor, in members or in organisations, has fewer than t holders of this
 *     site's shares, or leaves the ring open in two places, so that its sum could fall apart;
 *  4. mask two vectors, or one vector twice in different ways;
 *  5. keep a secret of the round after R4, an abort or the end of the share lifetime.
 *
 * The complete graph is the case of n - 1 neighbours, and has no code of its own. The secrets live
 * in this object alone: a restarted site has none and counts as dropped.
 * Bonawitz et al. 2017, with the rules of docs/protocol.md. */
#pragma once

#include "common/err.h"
#include "common/rng.h"
#include "crypto/hash.h"
#include "crypto/sign.h"
#include "proto/messages.h"
#include "secagg/actions.h"

/* The site's own floors, from its policy: the configuration may be stricter, never laxer. */
typedef struct dure_secagg_floors {
    uint32_t collusion; /* c_site */
    uint32_t threshold; /* least t */
    uint32_t u_min;     /* least |U3|, in members and in organisations */
} dure_secagg_floors;

/* Whom the site trusts to order the members of a sparse graph (secagg/graph.h). */
typedef struct dure_secagg_beacon {
    const uint8_t *public_; /* borrowed; 32 bytes, from its policy. NULL: complete graphs only */
    /* By the site's own clock, the first index that the beacon has not signed yet. A coordinator
     * that could have many rounds open with one index would choose among their orders, so the
     * caller has one round open at a time. */
    uint64_t next;
} dure_secagg_beacon;

typedef struct dure_secagg_client_opts {
    const dure_config *config; /* borrowed for the life of the object; checked by the caller */
    dure_hash config_hash;     /* H_C */
    const dure_sign_key *sign; /* borrowed; the site's identity */
    const uint8_t *coordinator_sign; /* borrowed; 32 bytes, the key of the coordinator's aborts */
    dure_rng rng;                    /* the system's, outside tests */
    dure_secagg_floors floors;
    uint64_t last_round; /* highest round this site ever took part in */
    uint64_t chain_length;
    dure_hash chain_head; /* of the site's own budget chain */
    dure_secagg_beacon beacon;
} dure_secagg_client_opts;

typedef struct dure_secagg_client dure_secagg_client;

/* Draws the round's keys. The caller owns *out. DURE_ERR_POLICY when the configuration is laxer
 * than the floors, its round is not above last_round, its graph is sparse and its beacon another
 * than the site's, the coordinator's own or one that has signed the index before, or the site is
 * not a member; DURE_ERR_RNG. */
DURE_MUST_USE dure_err dure_secagg_client_new(dure_secagg_client **out,
                                              const dure_secagg_client_opts *opts, dure_diag *diag);
void dure_secagg_client_free(dure_secagg_client **client); /* wipes; NULL-safe, nulls */

/* Appends the send of R0. A second call appends the same bytes. */
DURE_MUST_USE dure_err dure_secagg_client_start(dure_secagg_actions *actions,
                                                dure_secagg_client *client, dure_diag *diag);

/* Feeds KEYS, SHARES_FOR, SURVIVORS, SIGNATURES or ABORT. On a failed check the machine has ended,
 * a signed abort is among the actions and the error says why: DURE_ERR_PROTO, DURE_ERR_AUTH,
 * DURE_ERR_POLICY, DURE_ERR_EXPIRED. DURE_ERR_STATE, with nothing changed, for a message of
 * another round, one that comes too early, or any after the end. `now_ms` is monotonic. */
DURE_MUST_USE dure_err dure_secagg_client_step(dure_secagg_actions *actions,
                                               dure_secagg_client *client, const dure_msg *msg,
                                               uint64_t now_ms, dure_diag *diag);

/* Masks units[0..n) and keeps only the masked bytes; the caller wipes `units`. Once, after
 * DURE_SECAGG_MASK. DURE_ERR_USAGE when n is not the configuration's or an entry exceeds Q. */
DURE_MUST_USE dure_err dure_secagg_client_update(dure_secagg_actions *actions,
                                                 dure_secagg_client *client, const int32_t *units,
                                                 size_t n, dure_diag *diag);

/* The whole masked vector, borrowed until the machine ends; empty before DURE_SECAGG_UPLOAD.
 * Chunk i begins at i * dure_config_chunk_bytes(config, 0). */
dure_span dure_secagg_client_vector(const dure_secagg_client *client);
/* The caller has sent chunk i. After the last missing one, appends the send of R2's final frame. */
DURE_MUST_USE dure_err dure_secagg_client_sent(dure_secagg_actions *actions,
                                               dure_secagg_client *client, uint32_t chunk,
                                               dure_diag *diag);

/* Ends the round when the share lifetime, counted from R1, is over. */
DURE_MUST_USE dure_err dure_secagg_client_tick(dure_secagg_actions *actions,
                                               dure_secagg_client *client, uint64_t now_ms);
/* Ends the round for a reason of the site's own; wipes. Nothing happens after the end. */
DURE_MUST_USE dure_err dure_secagg_client_abort(dure_secagg_actions *actions,
                                                dure_secagg_client *client, dure_abort_code code,
                                                const char *text);

dure_stage dure_secagg_client_stage(const dure_secagg_client *client); /* IDLE once ended */
/* U2, once A2 was accepted; DURE_ERR_STATE before. */
DURE_MUST_USE dure_err dure_secagg_client_sharers(dure_members *u2,
                                                  const dure_secagg_client *client);
/* U3 and T3, once R3 was sent; DURE_ERR_STATE before. */
DURE_MUST_USE dure_err dure_secagg_client_survivors(dure_members *u3, dure_hash *t3,
                                                    const dure_secagg_client *client);
