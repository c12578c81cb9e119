/* Where random bytes come from: the operating system, or a keyed stream that can be replayed.
 *
 * A keyed stream lets a killed training attempt be resumed with the same noise: its bytes are a
 * function of a 256-bit key, made once by the system's generator, and of a context that names what
 * the bytes are for. Without the key they are indistinguishable from random. */
#pragma once

#include "common/buf.h"
#include "common/rng.h"

#define DURE_RNG_KEY_BYTES 32

/* getrandom(2). Any number of threads may use it. */
dure_rng dure_rng_system(void);

/* AES-256-CTR from counter 0 under HKDF-SHA-256(salt = empty, ikm = key, info = "dure/stream/1" and
 * `context`, each after its u32 length). Two contexts give independent streams. The stream fails
 * with DURE_ERR_RNG after 2^36 - 16 bytes and never wraps. One thread per stream. */
typedef struct dure_stream dure_stream;
DURE_MUST_USE dure_err dure_stream_new(dure_stream **out, const uint8_t key[DURE_RNG_KEY_BYTES],
                                       dure_span context);
dure_rng dure_stream_rng(dure_stream *stream); /* borrows `stream` */
void dure_stream_free(dure_stream **stream);   /* wipes; NULL-safe, nulls */
