/* One round at the coordinator: who is waited for and how long, around the machine of the secure
 * sum (secagg/server.h).
 *
 *   KEYS ---A1---> SHARES ---A2---> VECTORS ---A3---> CONSISTENCY ---A4---> UNMASKING ---> SUMMED
 *     |              |                |                  |                     |
 *     `--------------`----------------`------------------`---------------------`---> FAILED
 *
 *              HELLO  HEARTBEAT  ABORT  ADVERTISE  SHARES  CHUNK  MASKED  CONSISTENCY  UNMASK
 *   KEYS         h        a        f        f         -       -      -         -          -
 *   SHARES       h        a        f        f         f       -      -         -          -
 *   VECTORS      h        a        f        f         f       a      f         -          -
 *   CONSISTENCY  h        a        f        f         f       l      f         f          -
 *   UNMASKING    h        a        f        f         f       l      f         f          f
 *   SUMMED       a        a        l        l         l       l      l         l          l
 *   FAILED       l        l        l        l         l       l      l         l          l
 *
 *   f: to the secure sum, which answers a repeat as it did before   a: a sign of life
 *   h: still in the round? then what it is owed, else it is dropped  l: late, ignored
 *   -: not possible yet, DURE_ERR_STATE
 *
 * Nothing but progress and signs of life end a wait: a site that is heard is waited for while it
 * trains, or fetches the last result over a slow line, until three quarters of the share lifetime
 * are over; one that is silent, or alive and without the answer that takes a moment, is dropped and
 * may still answer in time.
 *
 * Pure: no socket, clock or disk. Threads: an object belongs to one thread at a time. */
#pragma once

#include "common/clock.h"
#include "common/err.h"
#include "crypto/hash.h"
#include "crypto/sign.h"
#include "proto/messages.h"
#include "secagg/server.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum dure_round_state {
    DURE_ROUND_KEYS,
    DURE_ROUND_SHARES,
    DURE_ROUND_VECTORS,
    DURE_ROUND_CONSISTENCY,
    DURE_ROUND_UNMASKING,
    DURE_ROUND_SUMMED,
    DURE_ROUND_FAILED,
    DURE_ROUND_STATES
} dure_round_state;
const char *dure_round_state_text(dure_round_state state); /* "keys", "training", ... */

/* How long a site is waited for. */
typedef struct dure_patience {
    uint32_t silence_ms; /* nothing heard at all, heartbeats included; 0: 30,000 */
    uint32_t answer_ms;  /* heard, but without an answer that needs no training; 0: 120,000 */
} dure_patience;

typedef struct dure_round_opts {
    const dure_config *config; /* borrowed for the life of the object */
    dure_hash config_hash;
    const dure_sign_key *sign; /* borrowed; the coordinator's */
    dure_patience patience;
} dure_round_opts;

typedef struct dure_round dure_round;

DURE_MUST_USE dure_err dure_round_new(dure_round **out, const dure_round_opts *opts,
                                      uint64_t now_ms, dure_diag *diag);
/* After a restart, from the stored records of A1..Ak; appends what has to be sent again. */
DURE_MUST_USE dure_err dure_round_resume(dure_round **out, dure_secagg_actions *actions,
                                         const dure_round_opts *opts, const dure_span *records,
                                         size_t k, uint64_t now_ms, dure_diag *diag);
void dure_round_free(dure_round **round); /* NULL-safe, nulls */

/* Feeds one message of the table from `member`; CHUNK is to be stored by the caller first. `root`
 * as in dure_secagg_server_step(). DURE_ERR_STATE: not possible yet, or of another round, nothing
 * changed; other errors: the member broke the protocol and is named in the actions. */
DURE_MUST_USE dure_err dure_round_receive(dure_secagg_actions *actions, dure_round *round,
                                          uint32_t member, const dure_msg *msg,
                                          const dure_hash *root, uint64_t now_ms, dure_diag *diag);
/* The member has not answered yet because it fetches what it needs before, and gets on with that.
 */
void dure_round_moves(dure_round *round, uint32_t member, uint64_t now_ms);
/* Drops who has been waited for long enough and names them. Call it about once a second. */
DURE_MUST_USE dure_err dure_round_tick(dure_secagg_actions *actions, dure_members *dropped,
                                       dure_round *round, uint64_t now_ms);
/* The member will not answer any more: revoked, or it broke the protocol outside of the table. */
DURE_MUST_USE dure_err dure_round_drop(dure_secagg_actions *actions, dure_round *round,
                                       uint32_t member);

dure_round_state dure_round_state_of(const dure_round *round);
/* Borrowed: sets, T3, masks. */
dure_secagg_server *dure_round_sum(const dure_round *round);
/* The step that the member's last heartbeat named; 0 before one. */
uint32_t dure_round_step_of(const dure_round *round, uint32_t member);
/* "training: waiting for north (step 3 of 8), south (uploads), east (silent for 12 s)" */
void dure_round_waiting_text(char text[DURE_MSG_TEXT_SIZE], const dure_round *round,
                             uint64_t now_ms);
