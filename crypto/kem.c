#include "crypto/kem.h"

#include "crypto/algorithms_int.h"
#include "crypto/wipe.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <pthread.h>

/* By name, so that a program that was built with older headers finds it, too. */
#define ALGORITHM "ML-KEM-768"
#define SEED_PARAM "seed" /* OSSL_PKEY_PARAM_ML_KEM_SEED, which older headers lack */

static bool available;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void look(void)
{
    ERR_set_mark();
    EVP_KEM *kem = EVP_KEM_fetch(NULL, ALGORITHM, NULL);
    ERR_pop_to_mark();
    available = kem != NULL;
    EVP_KEM_free(kem);
}

bool dure_kem_available(void)
{
    return pthread_once(&once, look) == 0 && available;
}

const char *dure_kem_library(void)
{
    return OpenSSL_version(OPENSSL_VERSION);
}

/* A key from its seed or, with EVP_PKEY_PUBLIC_KEY, from its public bytes. NULL if it is none. */
static EVP_PKEY *import(int selection, const char *name, const uint8_t *bytes, size_t n)
{
    EVP_PKEY *key = NULL;
    OSSL_PARAM params[2] = {dure_param_bytes(name, dure_span_of(bytes, n)),
                            OSSL_PARAM_construct_end()};
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, ALGORITHM, NULL);
    ERR_set_mark();
    if (context && (EVP_PKEY_fromdata_init(context) != 1 ||
                    EVP_PKEY_fromdata(context, &key, selection, params) != 1)) {
        key = NULL;
    }
    ERR_pop_to_mark();
    EVP_PKEY_CTX_free(context);
    return key;
}

static EVP_PKEY *from_seed(const uint8_t seed[DURE_KEM_SEED_BYTES])
{
    return import(EVP_PKEY_KEYPAIR, SEED_PARAM, seed, DURE_KEM_SEED_BYTES);
}

dure_err dure_kem_public(uint8_t public_[DURE_KEM_PUBLIC_BYTES],
                         const uint8_t seed[DURE_KEM_SEED_BYTES])
{
    size_t n = 0;
    dure_wipe(public_, DURE_KEM_PUBLIC_BYTES);
    if (!dure_kem_available()) return DURE_ERR_UNSUPPORTED;
    EVP_PKEY *key = from_seed(seed);
    dure_err err = DURE_OK;
    if (!key ||
        EVP_PKEY_get_octet_string_param(key, OSSL_PKEY_PARAM_PUB_KEY, public_,
                                        DURE_KEM_PUBLIC_BYTES, &n) != 1 ||
        n != DURE_KEM_PUBLIC_BYTES) {
        dure_wipe(public_, DURE_KEM_PUBLIC_BYTES);
        err = DURE_ERR_CRYPTO;
    }
    EVP_PKEY_free(key);
    return err;
}

dure_err dure_kem_encapsulate(uint8_t ciphertext[DURE_KEM_CIPHERTEXT_BYTES],
                              uint8_t shared[DURE_KEM_SHARED_BYTES],
                              const uint8_t public_[DURE_KEM_PUBLIC_BYTES])
{
    size_t n = DURE_KEM_CIPHERTEXT_BYTES, n_shared = DURE_KEM_SHARED_BYTES;
    dure_wipe(ciphertext, n);
    dure_wipe(shared, n_shared);
    if (!dure_kem_available()) return DURE_ERR_UNSUPPORTED;
    EVP_PKEY *key =
        import(EVP_PKEY_PUBLIC_KEY, OSSL_PKEY_PARAM_PUB_KEY, public_, DURE_KEM_PUBLIC_BYTES);
    if (!key) return DURE_ERR_AUTH;
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
    dure_err err = DURE_OK;
    if (!context || EVP_PKEY_encapsulate_init(context, NULL) != 1 ||
        EVP_PKEY_encapsulate(context, ciphertext, &n, shared, &n_shared) != 1 ||
        n != DURE_KEM_CIPHERTEXT_BYTES || n_shared != DURE_KEM_SHARED_BYTES) {
        dure_wipe(ciphertext, DURE_KEM_CIPHERTEXT_BYTES);
        dure_wipe(shared, DURE_KEM_SHARED_BYTES);
        err = DURE_ERR_CRYPTO;
    }
    EVP_PKEY_CTX_free(context);
    EVP_PKEY_free(key);
    return err;
}

dure_err dure_kem_decapsulate(uint8_t shared[DURE_KEM_SHARED_BYTES],
                              const uint8_t ciphertext[DURE_KEM_CIPHERTEXT_BYTES],
                              const uint8_t seed[DURE_KEM_SEED_BYTES])
{
    size_t n = DURE_KEM_SHARED_BYTES;
    dure_wipe(shared, n);
    if (!dure_kem_available()) return DURE_ERR_UNSUPPORTED;
    EVP_PKEY *key = from_seed(seed);
    EVP_PKEY_CTX *context = key ? EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL) : NULL;
    dure_err err = DURE_OK;
    if (!context || EVP_PKEY_decapsulate_init(context, NULL) != 1 ||
        EVP_PKEY_decapsulate(context, shared, &n, ciphertext, DURE_KEM_CIPHERTEXT_BYTES) != 1 ||
        n != DURE_KEM_SHARED_BYTES) {
        dure_wipe(shared, DURE_KEM_SHARED_BYTES);
        err = DURE_ERR_CRYPTO;
    }
    EVP_PKEY_CTX_free(context);
    EVP_PKEY_free(key);
    return err;
}
