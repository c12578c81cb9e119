/* One message between the coordinator and a site: a small control frame (an encoded message of
 * proto/) and at most one raw payload frame (tensor words, file bytes).
 *
 * A received envelope borrows nothing: it owns the frames as they came from the socket, so a
 * payload is never copied on its way to the module that sums or stores it. */
#pragma once

#include "common/buf.h"
#include "crypto/hash.h"

#define DURE_CURVE_BYTES 32

/* The largest payload frame in either direction and the largest frame that a coordinator takes. It
 * is ZMQ_MAXMSGSIZE there (with what CURVE adds): libzmq allocates a frame as soon as it has read
 * its length, before any authentication, so connections times this is what strangers can make it
 * hold. */
#define DURE_NET_CHUNK_BYTES ((size_t)256 * 1024)
/* The largest control frame that a site takes from its coordinator, whose key is pinned. */
#define DURE_NET_CONTROL_BYTES ((size_t)2 * 1024 * 1024)

typedef enum dure_admission {
    DURE_ADMIT_NO,
    DURE_ADMIT_GUEST,  /* an unknown key: may ask to join, nothing else */
    DURE_ADMIT_MEMBER, /* a key of the roster in force */
} dure_admission;

/* Who sent an envelope: proved by CURVE, not by what the peer says of itself. */
typedef struct dure_peer {
    dure_hash id; /* SHA-256 of the CURVE public key */
    uint8_t curve_public[DURE_CURVE_BYTES];
    dure_admission admission; /* as it was when the envelope was received */
} dure_peer;

typedef struct dure_envelope {
    dure_peer peer; /* all zero at a site: there the coordinator's key is pinned */
    dure_span control;
    dure_span payload; /* data NULL: there was none */
    struct dure_envelope_frames *frames;
} dure_envelope;

/* Releases the frames; `control` and `payload` end with them. NULL-safe and idempotent. */
void dure_envelope_fini(dure_envelope *envelope);

/* A payload to send. With `release`, the bytes are handed over without copying: release(data,
 * state) is called once, on any thread, when they are no longer needed, also when the send fails.
 * Without, they are copied. */
typedef struct dure_payload {
    dure_span bytes;
    void (*release)(void *data, void *state);
    void *state;
} dure_payload;
