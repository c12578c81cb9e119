/* AES-256-GCM (NIST SP 800-38D) with the random nonce in front of what is sealed.
 *
 * A sealed message is nonce (12 bytes), ciphertext (as long as the plaintext), tag (16 bytes).
 * Random 96-bit nonces are safe for up to 2^32 messages a key; keys here live for one round and one
 * direction. A message that must be sent twice is sealed once and its bytes are kept. */
#pragma once

#include "common/buf.h"
#include "common/err.h"

#define DURE_AEAD_KEY_BYTES 32
#define DURE_AEAD_NONCE_BYTES 12
#define DURE_AEAD_TAG_BYTES 16
#define DURE_AEAD_OVERHEAD (DURE_AEAD_NONCE_BYTES + DURE_AEAD_TAG_BYTES)

/* Writes plain.n + DURE_AEAD_OVERHEAD bytes to `sealed`. `aad` is authenticated, not sent.
 * DURE_ERR_LIMIT above 1 GiB, DURE_ERR_RNG, DURE_ERR_CRYPTO; `sealed` is then zeroed. */
DURE_MUST_USE dure_err dure_aead_seal(uint8_t *sealed, const uint8_t key[DURE_AEAD_KEY_BYTES],
                                      dure_span aad, dure_span plain);

/* Writes sealed.n - DURE_AEAD_OVERHEAD bytes to `plain`. DURE_ERR_AUTH when `sealed` is too short
 * or anything in it, `aad` or the key differs; `plain` is then zeroed. */
DURE_MUST_USE dure_err dure_aead_open(uint8_t *plain, const uint8_t key[DURE_AEAD_KEY_BYTES],
                                      dure_span aad, dure_span sealed);
