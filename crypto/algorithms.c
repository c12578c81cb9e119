#include "crypto/algorithms_int.h"

#include <openssl/core_names.h>
#include <pthread.h>
#include <stdbool.h>

static dure_algorithms algorithms;
static bool complete;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void fetch(void)
{
    algorithms.sha256 = EVP_MD_fetch(NULL, "SHA2-256", NULL);
    algorithms.aes_256_ctr = EVP_CIPHER_fetch(NULL, "AES-256-CTR", NULL);
    algorithms.aes_256_gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    algorithms.hkdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    complete =
        algorithms.sha256 && algorithms.aes_256_ctr && algorithms.aes_256_gcm && algorithms.hkdf;
}

const dure_algorithms *dure_algorithms_get(void)
{
    if (pthread_once(&once, fetch) != 0 || !complete) return NULL;
    return &algorithms;
}

OSSL_PARAM dure_param_bytes(const char *key, dure_span bytes)
{
    static uint8_t nothing;
    union {
        const uint8_t *in;
        void *out;
    } data = {.in = bytes.n > 0 ? bytes.data : &nothing};
    return OSSL_PARAM_construct_octet_string(key, data.out, bytes.n);
}
