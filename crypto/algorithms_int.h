/* The OpenSSL algorithms that crypto/ uses, fetched once for the process.
 *
 * An implicit fetch at each call costs more than hashing a short message, and contends for a lock
 * between threads. The objects live until the process ends. */
#pragma once

#include "common/buf.h"

#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

typedef struct dure_algorithms {
    EVP_MD *sha256;
    EVP_CIPHER *aes_256_ctr;
    EVP_CIPHER *aes_256_gcm;
    EVP_KDF *hkdf;
} dure_algorithms;

/* A parameter of bytes. OSSL_PARAM takes a pointer to non-const, which is only read, and refuses
 * NULL, so no bytes are some other place. */
OSSL_PARAM dure_param_bytes(const char *key, dure_span bytes);

/* NULL when the library lacks one of them. Any thread. */
const dure_algorithms *dure_algorithms_get(void);
