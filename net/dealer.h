/* A site's socket: DEALER, outbound only, its own CURVE key, the coordinator's key pinned.
 *
 * It reconnects by itself with exponential back-off, for ever, also after the coordinator refused
 * its key (libzmq alone would give up then). A line that has gone silent is given up sooner than
 * the coordinator gives the site up, so that a site behind a new address is back in its round; what
 * comes to a site is in small parts (client/session.c), so three heartbeats are enough. "Connected"
 * means that the CURVE handshake succeeded, seen by a socket monitor; a message is refused, not
 * queued, while that is not so, because after a reconnect the session says first what it needs
 * again.
 *
 * Threads: one thread owns a dealer; dure_dealer_wake() is for any thread and signal handlers. */
#pragma once

#include "net/curve_key.h"
#include "net/envelope.h"

#include <stdbool.h>

typedef struct dure_dealer_opts {
    const char *endpoint; /* "tcp://HOST:PORT" */
    const dure_curve_key *key;
    const uint8_t *server_public; /* DURE_CURVE_BYTES */
    uint32_t reconnect_ms;        /* first pause, 0: 500 */
    uint32_t reconnect_max_ms;    /* doubled up to this, 0: 10000 */
    uint32_t queue_messages;      /* 0: 64 */
    uint32_t heartbeat_ms;        /* 0: 4000; a coordinator silent for three is disconnected */
    uint32_t linger_ms;           /* 0: 1000 */
} dure_dealer_opts;

typedef struct dure_dealer dure_dealer;

typedef struct dure_dealer_status {
    bool connected;
    uint64_t since_ms; /* monotonic: connected, or not connected, since */
    uint32_t connects; /* handshakes that succeeded; a change means a new connection */
    char reason[160];  /* why not connected: one sentence */
} dure_dealer_status;

/* Returns at once, before any connection. The caller owns *out, dure_dealer_close(&d).
 * DURE_ERR_USAGE: the endpoint is not one. */
DURE_MUST_USE dure_err dure_dealer_open(dure_dealer **out, const dure_dealer_opts *opts,
                                        dure_diag *diag);
void dure_dealer_close(dure_dealer **dealer);

/* As it was when recv last ran (recv reads the monitor). Borrowed. */
const dure_dealer_status *dure_dealer_status_of(const dure_dealer *dealer);

/* The next message, DURE_ERR_TIMEOUT after `timeout_ms`, DURE_ERR_CANCELLED after a wake,
 * DURE_ERR_NET once each time that the status changed. */
DURE_MUST_USE dure_err dure_dealer_recv(dure_envelope *out, dure_dealer *dealer,
                                        uint32_t timeout_ms);

/* DURE_ERR_NET: not connected; DURE_ERR_BUSY: the queue is full; DURE_ERR_LIMIT: a frame is over
 * its limit. `payload` may be NULL. */
DURE_MUST_USE dure_err dure_dealer_send(dure_dealer *dealer, dure_span control,
                                        const dure_payload *payload);

/* Makes a waiting recv return. Async-signal-safe. */
void dure_dealer_wake(const dure_dealer *dealer);
