/* A long byte string moved in chunks that the receiver asks for: masked vectors to the
 * coordinator, adapters to the sites.
 *
 * The receiver sends fetches (offset, length), some ahead of what it has; each is a credit for one
 * chunk. So the order and the memory are the receiver's choice, whatever the sender does (zguide
 * chapter 7, file transfer, model 3):
 *  1. one chunk may always be in flight, so that a sender that is not ready, slow or dead costs the
 *     others nothing;
 *  2. each chunk that comes allows one more, up to the window: a far sender is not held up by the
 *     length of the line;
 *  3. those beyond the first come out of one byte budget, in equal parts for all that flow. n
 *     receivers have at most n chunks and the budget in flight.
 * After a reconnect it rewinds to the first byte it lacks; after a restart it is told how many
 * bytes are stored and goes on after them.
 *
 * Pure: no socket, clock or disk. Threads: one thread a receiver, and the budget with it. */
#pragma once

#include "common/buf.h"
#include "common/err.h"

#include <stdbool.h>

/* Credits in flight beyond each receiver's first, shared by all receivers of a process. */
typedef struct dure_byte_budget {
    uint64_t limit;
    uint64_t used;      /* by the receivers */
    uint32_t n_flowing; /* receivers that something came for, and more is to come */
} dure_byte_budget;

typedef struct dure_fetch {
    uint64_t offset;
    uint32_t length; /* > 0 */
} dure_fetch;

typedef struct dure_receiver_opts {
    uint64_t total_bytes; /* what the sender announced, checked by the caller against its limit */
    uint32_t chunk_bytes; /* 0: DURE_NET_CHUNK_BYTES */
    uint32_t window;      /* most chunks in flight, 0: 32 */
    dure_byte_budget *budget; /* borrowed; NULL: none */
} dure_receiver_opts;

typedef struct dure_receiver dure_receiver;

typedef struct dure_receiver_progress {
    uint64_t received_bytes, total_bytes, in_flight_bytes;
    uint64_t last_ms; /* the caller's time of the last new byte, or of dure_receiver_new() */
} dure_receiver_progress;

/* The caller owns *out, dure_receiver_free(&r), which returns its credits to the budget. */
DURE_MUST_USE dure_err dure_receiver_new(dure_receiver **out, const dure_receiver_opts *opts,
                                         uint64_t now_ms);
void dure_receiver_free(dure_receiver **receiver);

/* Counts bytes that an earlier run stored, from offset 0 on, before the first fetch. Any number
 * of calls. DURE_ERR_LIMIT: more than the whole; DURE_ERR_STATE: a fetch was made already. */
DURE_MUST_USE dure_err dure_receiver_resume(dure_receiver *receiver, uint64_t n_stored);

/* True with the next fetch to send; false when all is asked for, the window is full or its part of
 * the budget is used up (ask again when another receiver has progressed). */
bool dure_receiver_next(dure_fetch *out, dure_receiver *receiver);

/* A chunk of `n_bytes` arrived at `offset`. *fresh: it is the next part of the whole, to be stored
 * at `offset`; otherwise it repeats what is there, or one before it was lost, and is to be ignored.
 * DURE_ERR_PROTO: it is no chunk that was asked for; give the sender up. */
DURE_MUST_USE dure_err dure_receiver_accept(bool *fresh, dure_receiver *receiver, uint64_t offset,
                                            size_t n_bytes, uint64_t now_ms);

/* Forgets what is in flight: the connection was lost, the sender is gone, or nothing came for too
 * long. The next fetches start at the first missing byte. */
void dure_receiver_rewind(dure_receiver *receiver);

bool dure_receiver_complete(const dure_receiver *receiver);
dure_receiver_progress dure_receiver_progress_of(const dure_receiver *receiver);
