#include "crypto/aead.h"

#include "crypto/algorithms_int.h"
#include "crypto/rng.h"
#include "crypto/wipe.h"

/* EVP lengths are int; nothing that is sealed here comes near this. */
enum { MESSAGE_MAX = 1 << 30 };

/* A context with key and nonce set, for one message; NULL on failure. */
static EVP_CIPHER_CTX *begin(const uint8_t *key, const uint8_t *nonce, int encrypt)
{
    const dure_algorithms *algorithms = dure_algorithms_get();
    EVP_CIPHER_CTX *context = algorithms ? EVP_CIPHER_CTX_new() : NULL;
    /* 12 bytes is the default nonce length of GCM. */
    if (context &&
        EVP_CipherInit_ex2(context, algorithms->aes_256_gcm, key, nonce, encrypt, NULL) != 1) {
        EVP_CIPHER_CTX_free(context);
        context = NULL;
    }
    return context;
}

/* Runs `aad` and `in` through the context. */
static dure_err process(EVP_CIPHER_CTX *context, uint8_t *out, dure_span aad, dure_span in)
{
    int n = 0;
    if (!context) return DURE_ERR_CRYPTO;
    if (aad.n > 0 && EVP_CipherUpdate(context, NULL, &n, aad.data, (int)aad.n) != 1) {
        return DURE_ERR_CRYPTO;
    }
    n = 0;
    if (in.n > 0 && EVP_CipherUpdate(context, out, &n, in.data, (int)in.n) != 1) {
        return DURE_ERR_CRYPTO;
    }
    return (size_t)n == in.n ? DURE_OK : DURE_ERR_CRYPTO;
}

dure_err dure_aead_seal(uint8_t *sealed, const uint8_t key[DURE_AEAD_KEY_BYTES], dure_span aad,
                        dure_span plain)
{
    if (plain.n > MESSAGE_MAX || aad.n > MESSAGE_MAX) return DURE_ERR_LIMIT;
    EVP_CIPHER_CTX *context = NULL;
    uint8_t *body = sealed + DURE_AEAD_NONCE_BYTES;
    uint8_t end[16];
    int n = 0;
    dure_rng rng = dure_rng_system();
    dure_err err = dure_rng_fill(&rng, sealed, DURE_AEAD_NONCE_BYTES);
    if (err) goto out;
    context = begin(key, sealed, 1);
    err = process(context, body, aad, plain);
    if (err) goto out;
    if (EVP_CipherFinal_ex(context, end, &n) != 1 ||
        EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, DURE_AEAD_TAG_BYTES, body + plain.n) !=
            1) {
        err = DURE_ERR_CRYPTO;
    }
out:
    EVP_CIPHER_CTX_free(context);
    if (err) dure_wipe(sealed, plain.n + DURE_AEAD_OVERHEAD);
    return err;
}

dure_err dure_aead_open(uint8_t *plain, const uint8_t key[DURE_AEAD_KEY_BYTES], dure_span aad,
                        dure_span sealed)
{
    if (sealed.n < DURE_AEAD_OVERHEAD) return DURE_ERR_AUTH;
    dure_span body =
        dure_span_of(sealed.data + DURE_AEAD_NONCE_BYTES, sealed.n - DURE_AEAD_OVERHEAD);
    if (body.n > MESSAGE_MAX || aad.n > MESSAGE_MAX) return DURE_ERR_LIMIT;
    uint8_t tag[DURE_AEAD_TAG_BYTES], end[16];
    int n = 0;
    for (size_t i = 0; i < sizeof tag; i++)
        tag[i] = body.data[body.n + i];
    EVP_CIPHER_CTX *context = begin(key, sealed.data, 0);
    dure_err err = process(context, plain, aad, body);
    if (!err && EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, sizeof tag, tag) != 1) {
        err = DURE_ERR_CRYPTO;
    }
    if (!err && EVP_CipherFinal_ex(context, end, &n) != 1) err = DURE_ERR_AUTH;
    EVP_CIPHER_CTX_free(context);
    /* Unauthenticated plaintext must not be seen by anyone. */
    if (err) dure_wipe(plain, body.n);
    return err;
}
