/* What router.c and dealer.c share: options of a socket, frames in and out, the wake-up pipe. */
#pragma once

#include "common/err.h"
#include "net/envelope.h"

#include <stdbool.h>
#include <stdint.h>
#include <zmq.h>

/* The frames behind a received envelope. */
struct dure_envelope_frames {
    zmq_msg_t control, payload;
    bool has_payload;
};

/* Options that both kinds of socket have. 0 stands for the default of the header. */
typedef struct dure_socket_opts {
    uint32_t queue_messages, heartbeat_ms, linger_ms;
    uint32_t silence_ms; /* without a complete frame before it is disconnected, 0: 3 heartbeats */
    size_t max_frame_bytes; /* inbound */
} dure_socket_opts;

/* DURE_ERR_LIMIT when the process may have too few descriptors for sockets and files. */
DURE_MUST_USE dure_err dure_socket_descriptors(dure_diag *diag);
DURE_MUST_USE dure_err dure_socket_set(void *socket, int option, int value);
DURE_MUST_USE dure_err dure_socket_configure(void *socket, const dure_socket_opts *opts);

/* Receives one message without waiting: an optional routing id of at most `id_size` bytes, then
 * one or two frames. *id_n is the id's true length. DURE_ERR_TIMEOUT: there is none;
 * DURE_ERR_PROTO: it has another shape and was taken off the socket. On success *out owns the
 * frames; its peer is left zero. */
DURE_MUST_USE dure_err dure_socket_recv(dure_envelope *out, uint8_t *id, size_t id_size,
                                        size_t *id_n, void *socket);

/* Sends [id,] control [, payload] without waiting; `id.data` NULL: none. The payload is released
 * in any case. DURE_ERR_NOT_FOUND: no such peer; DURE_ERR_BUSY: no room. */
DURE_MUST_USE dure_err dure_socket_send(void *socket, dure_span id, dure_span control,
                                        const dure_payload *payload);
/* Releases a payload that was not sent. `payload` may be NULL. */
void dure_payload_discard(const dure_payload *payload);

/* Waits until `socket` (or one of two) can be read, or the wake-up pipe was written, which is then
 * drained. DURE_ERR_CANCELLED: woken; DURE_ERR_TIMEOUT. `second` may be NULL. */
DURE_MUST_USE dure_err dure_socket_wait(void *socket, void *second, int wake_fd, int64_t wait_ms);

/* An eventfd for waking; DURE_ERR_IO if there is none to have. */
DURE_MUST_USE dure_err dure_wake_open(int *fd);
void dure_wake_write(int fd); /* async-signal-safe */
