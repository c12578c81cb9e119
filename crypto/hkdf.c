#include "crypto/hkdf.h"

#include "crypto/algorithms_int.h"
#include "crypto/wipe.h"

#include <openssl/core_names.h>

enum { OUTPUT_MAX = 255 * 32 };

dure_err dure_hkdf(uint8_t *out, size_t n, dure_span salt, dure_span ikm, dure_span info)
{
    if (n == 0 || n > OUTPUT_MAX) return DURE_ERR_USAGE;
    const dure_algorithms *algorithms = dure_algorithms_get();
    EVP_KDF_CTX *context = algorithms ? EVP_KDF_CTX_new(algorithms->hkdf) : NULL;
    char digest[] = "SHA2-256";
    OSSL_PARAM params[5];
    size_t k = 0;
    params[k++] = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0);
    params[k++] = dure_param_bytes(OSSL_KDF_PARAM_KEY, ikm);
    /* Without the parameter the salt is empty, which the RFC defines as 32 zero bytes. */
    if (salt.n > 0) params[k++] = dure_param_bytes(OSSL_KDF_PARAM_SALT, salt);
    if (info.n > 0) params[k++] = dure_param_bytes(OSSL_KDF_PARAM_INFO, info);
    params[k] = OSSL_PARAM_construct_end();
    dure_err err = DURE_OK;
    if (!context || EVP_KDF_derive(context, out, n, params) != 1) {
        dure_wipe(out, n);
        err = DURE_ERR_CRYPTO;
    }
    EVP_KDF_CTX_free(context);
    return err;
}
