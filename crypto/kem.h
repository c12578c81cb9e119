/* ML-KEM-768 (FIPS 203), the post-quantum half of a hybrid key agreement: never used without X25519
 * beside it. It is the system's OpenSSL that has it or has not, from version 3.5 on.
 *
 * Constant time as far as OpenSSL's is; any number of threads. */
#pragma once

#include "common/err.h"

#include <stdbool.h>
#include <stdint.h>

#define DURE_KEM_SEED_BYTES 64 /* d and z of FIPS 203: all of a private key */
#define DURE_KEM_PUBLIC_BYTES 1184
#define DURE_KEM_CIPHERTEXT_BYTES 1088
#define DURE_KEM_SHARED_BYTES 32

/* Whether this machine's OpenSSL has it. Every function below is DURE_ERR_UNSUPPORTED otherwise. */
bool dure_kem_available(void);
/* "OpenSSL 3.0.19 ...": the library in use, for people; static. */
const char *dure_kem_library(void);

/* The public key of a private one. */
DURE_MUST_USE dure_err dure_kem_public(uint8_t public_[DURE_KEM_PUBLIC_BYTES],
                                       const uint8_t seed[DURE_KEM_SEED_BYTES]);

/* A fresh secret for the owner of `public_`. Uniform; the caller wipes it. DURE_ERR_AUTH for bytes
 * that are no public key. On any error both outputs are zero. */
DURE_MUST_USE dure_err dure_kem_encapsulate(uint8_t ciphertext[DURE_KEM_CIPHERTEXT_BYTES],
                                            uint8_t shared[DURE_KEM_SHARED_BYTES],
                                            const uint8_t public_[DURE_KEM_PUBLIC_BYTES]);
/* The secret in a ciphertext. An altered one gives another secret and no error: authenticate it, or
 * what the secret protects. `shared` is zero on error. */
DURE_MUST_USE dure_err dure_kem_decapsulate(uint8_t shared[DURE_KEM_SHARED_BYTES],
                                            const uint8_t ciphertext[DURE_KEM_CIPHERTEXT_BYTES],
                                            const uint8_t seed[DURE_KEM_SEED_BYTES]);
