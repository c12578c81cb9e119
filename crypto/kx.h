/* X25519 key agreement (RFC 7748). Constant time in the private key; any number of threads. */
#pragma once

#include "common/err.h"

#include <stdint.h>

#define DURE_KX_BYTES 32

/* The owner wipes the whole struct. */
typedef struct dure_kx_key {
    uint8_t secret[DURE_KX_BYTES];
    uint8_t public_[DURE_KX_BYTES];
} dure_kx_key;

/* On any error of this header the output is zero. */
DURE_MUST_USE dure_err dure_kx_generate(dure_kx_key *key);
DURE_MUST_USE dure_err dure_kx_from_secret(dure_kx_key *key, const uint8_t secret[DURE_KX_BYTES]);

/* The shared secret of section 6.1. Not uniform: feed it to dure_hkdf() and wipe it.
 * DURE_ERR_AUTH when the result is all zero, that is when the peer sent a point of low order. */
DURE_MUST_USE dure_err dure_kx_shared(uint8_t shared[DURE_KX_BYTES], const dure_kx_key *key,
                                      const uint8_t peer[DURE_KX_BYTES]);
