#include "crypto/kx.h"

#include "crypto/rng.h"
#include "crypto/wipe.h"

#include <openssl/evp.h>

dure_err dure_kx_from_secret(dure_kx_key *key, const uint8_t secret[DURE_KX_BYTES])
{
    size_t n = DURE_KX_BYTES;
    dure_err err = DURE_OK;
    *key = (dure_kx_key){.secret = {0}};
    EVP_PKEY *private_ =
        EVP_PKEY_new_raw_private_key_ex(NULL, "X25519", NULL, secret, DURE_KX_BYTES);
    if (!private_ || EVP_PKEY_get_raw_public_key(private_, key->public_, &n) != 1 ||
        n != DURE_KX_BYTES) {
        *key = (dure_kx_key){.secret = {0}};
        err = DURE_ERR_CRYPTO;
    } else {
        for (size_t i = 0; i < DURE_KX_BYTES; i++)
            key->secret[i] = secret[i];
    }
    EVP_PKEY_free(private_);
    return err;
}

dure_err dure_kx_generate(dure_kx_key *key)
{
    uint8_t secret[DURE_KX_BYTES];
    dure_rng rng = dure_rng_system();
    *key = (dure_kx_key){.secret = {0}};
    dure_err err = dure_rng_fill(&rng, secret, sizeof secret);
    if (!err) err = dure_kx_from_secret(key, secret);
    dure_wipe(secret, sizeof secret);
    return err;
}

dure_err dure_kx_shared(uint8_t shared[DURE_KX_BYTES], const dure_kx_key *key,
                        const uint8_t peer[DURE_KX_BYTES])
{
    static const uint8_t zero[DURE_KX_BYTES];
    EVP_PKEY_CTX *context = NULL;
    size_t n = DURE_KX_BYTES;
    EVP_PKEY *own = EVP_PKEY_new_raw_private_key_ex(NULL, "X25519", NULL, key->secret, n);
    EVP_PKEY *other = EVP_PKEY_new_raw_public_key_ex(NULL, "X25519", NULL, peer, n);
    dure_err err = DURE_ERR_CRYPTO;
    if (!own || !other) goto out;
    context = EVP_PKEY_CTX_new_from_pkey(NULL, own, NULL);
    /* Any 32 bytes are a valid X25519 public key, so the costly check of the peer is left out. */
    if (!context || EVP_PKEY_derive_init(context) != 1 ||
        EVP_PKEY_derive_set_peer_ex(context, other, 0) != 1) {
        goto out;
    }
    /* OpenSSL itself fails on an all-zero result; our own check does not rely on it. */
    if (EVP_PKEY_derive(context, shared, &n) != 1 || n != DURE_KX_BYTES ||
        dure_ct_equal(shared, zero, DURE_KX_BYTES)) {
        err = DURE_ERR_AUTH;
        goto out;
    }
    err = DURE_OK;
out:
    if (err) dure_wipe(shared, DURE_KX_BYTES);
    EVP_PKEY_CTX_free(context);
    EVP_PKEY_free(other);
    EVP_PKEY_free(own);
    return err;
}
