/* The coordinator's socket: ROUTER, CURVE server, every connection authenticated by ZAP.
 *
 * 1. The ZAP handler is bound before the listener and lives as long as the context: a CURVE server
 *    without one lets anybody in (RFC 27; libzmq's "Stonehouse").
 * 2. A message counts only if its User-Id, which ZAP attached to the connection, is there and its
 *    routing id is SHA-256(CURVE public key) and then 16 bytes that the peer chose at random. The
 *    hash makes the id the key's own. The random tail is known to the peer and the router alone,
 *    so nobody can register under a peer's id and be sent what is meant for it; that is what makes
 *    ZMQ_ROUTER_HANDOVER safe, which a reconnect over a half-open connection needs.
 * 3. Admission is asked for each connection and again for each message: a revoked key is out at
 *    once, a guest that has joined is a member with its next message.
 * 4. Connections that have not shown a member's key are few at a time (net/router_door.h), and a
 *    member has one: thousands of them take neither the descriptors nor a member's place.
 * 5. Nothing blocks: a peer that is gone or whose queue is full is an error of the send.
 *
 * What libzmq leaves open: frames of an unfinished multi-part message are kept without a bound, so
 * run the coordinator under a memory limit; an abort of libzmq is an ordinary crash, from which
 * the durable round state recovers.
 *
 * Threads: one thread owns a router (open, recv, send, close); dure_router_wake() is for any
 * thread and for signal handlers. */
#pragma once

#include "net/curve_key.h"
#include "net/envelope.h"

/* Called on the router's own ZAP thread and on the owner's thread: must be thread-safe and quick.
 */
typedef dure_admission dure_admit(void *state, const uint8_t curve_public[DURE_CURVE_BYTES]);

typedef struct dure_router_opts {
    const char *endpoint; /* "tcp://0.0.0.0:5555"; port "*" takes a free one */
    const dure_curve_key *key;
    dure_admit *admit;
    void *admit_state;
    uint32_t io_threads;     /* 0: 1 */
    uint32_t max_peers;      /* 0: 1024; over it the guest seen longest ago is forgotten */
    uint32_t max_waiting;    /* connections without a member's key; 0: 256, or a quarter of the
                                descriptors that the process may have if that is less */
    uint32_t queue_messages; /* per peer and direction, 0: 64 */
    uint32_t heartbeat_ms;   /* 0: 4000, and a peer silent for 30000, a chunk on the slowest line,
                                is disconnected; else one silent for three of them */
    uint32_t linger_ms;      /* 0: 1000: how long close waits for what is queued */
} dure_router_opts;

typedef struct dure_router dure_router;

/* Messages that were dropped, by reason; they are also logged at debug level. */
typedef struct dure_router_counts {
    uint64_t received, unauthenticated, wrong_id, not_admitted, malformed, too_many_peers;
    uint64_t closed; /* connections, because too many waited */
} dure_router_counts;

/* The caller owns *out, dure_router_close(&r). A port in use is DURE_ERR_BUSY, an endpoint that
 * cannot be bound DURE_ERR_NET, one that is none DURE_ERR_USAGE, each in one sentence. */
DURE_MUST_USE dure_err dure_router_open(dure_router **out, const dure_router_opts *opts,
                                        dure_diag *diag);
void dure_router_close(dure_router **router);
/* "tcp://0.0.0.0:5555" as bound, with the port taken for "*". Borrowed. */
const char *dure_router_endpoint(const dure_router *router);
const dure_router_counts *dure_router_counts_of(dure_router *router);

/* The next admitted message; the caller releases it. Waits at most `timeout_ms`, then
 * DURE_ERR_TIMEOUT; DURE_ERR_CANCELLED once for any number of dure_router_wake() before it. */
DURE_MUST_USE dure_err dure_router_recv(dure_envelope *out, dure_router *router,
                                        uint32_t timeout_ms);

/* Queues one message for a peer that has been heard since the router opened. `payload` may be
 * NULL. DURE_ERR_NOT_FOUND: not connected; DURE_ERR_BUSY: its queue is full, try again later;
 * DURE_ERR_LIMIT: a frame is over its limit. Whether it arrives only an answer can tell. */
DURE_MUST_USE dure_err dure_router_send(dure_router *router, const dure_hash *peer,
                                        dure_span control, const dure_payload *payload);

/* Makes a waiting recv return. Async-signal-safe. */
void dure_router_wake(const dure_router *router);
