/* What a state machine of the secure sum asks its caller to do, in order.
 *
 * The machines touch no socket, clock or disk. A step appends actions; the caller carries them out
 * one after the other and stops at the first that fails, so a DURE_SECAGG_PERSIST that cannot be
 * synced holds back the send behind it. Frames are kept by the machine and repeated byte for byte.
 *
 * Threads: an object belongs to one thread at a time. */
#pragma once

#include "common/buf.h"
#include "common/err.h"

#include <stddef.h>
#include <stdint.h>

typedef enum dure_secagg_action_kind {
    DURE_SECAGG_PERSIST, /* sync `bytes` under (H_C, step) before the next action */
    DURE_SECAGG_SEND,    /* the control frame `bytes`; the server's goes to `member` */
    DURE_SECAGG_MASK,    /* client: dure_secagg_client_update() may now be called */
    DURE_SECAGG_UPLOAD,  /* client: the masked vector is there; serve FETCH from it */
    DURE_SECAGG_COLLECT, /* server: fetch the masked vector of `member` */
    DURE_SECAGG_UNMASK,  /* server: dure_secagg_server_unmasker() is ready for the sum over U3 */
    DURE_SECAGG_BLAME,   /* server: `member` broke the protocol; `text` says how */
    DURE_SECAGG_END,     /* the round is over for this machine; `text` says why */
} dure_secagg_action_kind;

/* Which record DURE_SECAGG_PERSIST writes. The server's are all needed to resume; the client's
 * marks say what must never be done twice. */
typedef enum dure_secagg_record {
    DURE_SECAGG_RECORD_A1 = 1,
    DURE_SECAGG_RECORD_A2 = 2,
    DURE_SECAGG_RECORD_A3 = 3,
    DURE_SECAGG_RECORD_A4 = 4,
    DURE_SECAGG_RECORD_R3 = 5, /* client: this T3 is the one signed in this round */
    DURE_SECAGG_RECORD_R4 = 6, /* client: the reply frame, all that is left of the round */
} dure_secagg_record;

typedef struct dure_secagg_action {
    dure_secagg_action_kind kind;
    uint32_t member;
    dure_secagg_record record;
    dure_span bytes; /* owned by the list */
    char text[256];
} dure_secagg_action;

/* Start from {0}; free with dure_secagg_actions_fini(). */
typedef struct dure_secagg_actions {
    dure_secagg_action *items;
    size_t n, capacity;
} dure_secagg_actions;

void dure_secagg_actions_fini(dure_secagg_actions *actions); /* NULL-safe, idempotent */
/* Removes the actions from number `n` on: what a failed step had appended. */
void dure_secagg_actions_cut(dure_secagg_actions *actions, size_t n);
/* Appends a copy of `action`, bytes included. DURE_ERR_NOMEM. */
DURE_MUST_USE dure_err dure_secagg_actions_add(dure_secagg_actions *actions,
                                               const dure_secagg_action *action);
