#include "secagg/hybrid.h"

#include "crypto/aead.h"
#include "crypto/hkdf.h"
#include "crypto/wipe.h"

#include <stdlib.h>
#include <string.h>

#define SECRET_ROW_BYTES (4 + DURE_KEM_SHARED_BYTES)

_Static_assert(DURE_MSG_KEM_KEYS_BYTES == 2 * DURE_KEM_PUBLIC_BYTES, "two keys fit their field");
_Static_assert(DURE_MSG_KEM_MAX == 2 * DURE_KEM_CIPHERTEXT_BYTES, "two ciphertexts fit theirs");
_Static_assert(DURE_MSG_WRAPPED_MAX ==
                   DURE_AEAD_OVERHEAD + SECRET_ROW_BYTES * (DURE_NEAR_HYBRID_MAX - 1),
               "all secrets fit theirs");

bool dure_suite_is_hybrid(const dure_config *config)
{
    return config->suite == DURE_SUITE_HYBRID_AES256CTR;
}

dure_err dure_hybrid_check_machine(const char *who, dure_diag *diag)
{
    if (dure_kem_available()) return DURE_OK;
    return dure_diag_set(
        diag, DURE_ERR_UNSUPPORTED,
        "the federation's suite is hybrid and %s cannot take part: ML-KEM-768 comes "
        "with OpenSSL 3.5, and this is %s; use a newer system, or make the "
        "federation with 'dure init --suite x25519'",
        who, dure_kem_library());
}

size_t dure_hybrid_keys_bytes(const dure_config *config)
{
    return dure_suite_is_hybrid(config) ? DURE_MSG_KEM_KEYS_BYTES : 0;
}

size_t dure_hybrid_sent_bytes(const dure_config *config, uint32_t from, uint32_t to)
{
    if (!dure_suite_is_hybrid(config) || from == to) return 0;
    return from < to ? 2 * DURE_KEM_CIPHERTEXT_BYTES : DURE_KEM_CIPHERTEXT_BYTES;
}

size_t dure_hybrid_wrapped_bytes(const dure_config *config, size_t n_secrets)
{
    return dure_suite_is_hybrid(config) ? DURE_AEAD_OVERHEAD + SECRET_ROW_BYTES * n_secrets : 0;
}

/* A private key of zeros is clamped to 2^254 (RFC 7748, section 5): it takes exactly the points of
 * low order to zero, on the curve and on its twist, however their bytes are written. */
static dure_err check_point(const uint8_t point[DURE_KX_BYTES])
{
    static const dure_kx_key probe;
    uint8_t shared[DURE_KX_BYTES];
    return dure_kx_shared(shared, &probe, point);
}

/* What is encapsulated here is for nobody. */
static dure_err check_kem(const uint8_t key[DURE_KEM_PUBLIC_BYTES])
{
    uint8_t kem[DURE_KEM_CIPHERTEXT_BYTES], shared[DURE_KEM_SHARED_BYTES];
    return dure_kem_encapsulate(kem, shared, key);
}

dure_err dure_hybrid_check_keys(const char **which, const dure_config *config,
                                const dure_round_keys *keys)
{
    *which = "channel key";
    dure_err err = check_point(keys->channel_public);
    if (err) return err;
    *which = "mask key";
    err = check_point(keys->mask_public);
    if (err || !dure_suite_is_hybrid(config)) return err;
    *which = "ML-KEM key for channels";
    err = check_kem(keys->kem.data);
    if (err) return err;
    *which = "ML-KEM key for masks";
    return check_kem(keys->kem.data + DURE_KEM_PUBLIC_BYTES);
}

/* Bytes of a seed's own, for one label. */
static dure_err expand(uint8_t *out, size_t n, const uint8_t seed[DURE_ROUND_SEED_BYTES],
                       const char *label)
{
    return dure_hkdf(out, n, (dure_span){0}, (dure_span){seed, DURE_ROUND_SEED_BYTES},
                     dure_span_of_text(label));
}

dure_err dure_round_key_make(dure_round_key *out, uint8_t *kem_public,
                             const uint8_t seed[DURE_ROUND_SEED_BYTES], const dure_config *config,
                             dure_round_purpose purpose)
{
    const bool masks = purpose == DURE_FOR_MASKS;
    uint8_t secret[DURE_KX_BYTES];
    *out = (dure_round_key){.seed = {0}};
    memcpy(out->seed, seed, sizeof out->seed);
    if (!dure_suite_is_hybrid(config)) return dure_kx_from_secret(&out->kx, seed);
    dure_err err =
        expand(secret, sizeof secret, seed, masks ? "DURE/1/mask-x25519" : "DURE/1/chan-x25519");
    if (!err) err = dure_kx_from_secret(&out->kx, secret);
    if (!err)
        err = expand(out->kem, sizeof out->kem, seed,
                     masks ? "DURE/1/mask-mlkem768" : "DURE/1/chan-mlkem768");
    if (!err) err = dure_kem_public(kem_public, out->kem);
    dure_wipe(secret, sizeof secret);
    if (err) dure_wipe(out, sizeof *out);
    return err;
}

/* The key of the wrapped secrets, and what they are bound to. */
static dure_err wrap_key(uint8_t key[DURE_AEAD_KEY_BYTES], uint8_t aad[DURE_HASH_BYTES + 4],
                         const dure_round_key *mask, const dure_hash *t1, uint32_t member)
{
    memcpy(aad, t1->b, DURE_HASH_BYTES);
    for (int i = 0; i < 4; i++)
        aad[DURE_HASH_BYTES + i] = (uint8_t)(member >> (24 - 8 * i));
    return expand(key, DURE_AEAD_KEY_BYTES, mask->seed, "DURE/1/mask-wrap");
}

/* Where the secret of `to` is. */
static uint8_t *secret_of(const dure_hybrid_masks *masks, uint32_t to)
{
    return masks->secrets[dure_members_rank(masks->near, to)];
}

dure_err dure_hybrid_wrap(dure_buf *out, const dure_hybrid_masks *masks, const dure_round_key *mask,
                          const dure_hash *t1)
{
    uint8_t key[DURE_AEAD_KEY_BYTES], aad[DURE_HASH_BYTES + 4];
    uint8_t sealed[DURE_MSG_WRAPPED_MAX];
    dure_buf plain;
    dure_buf_init(&plain, DURE_MSG_WRAPPED_MAX);
    for (uint32_t v = 0; v < DURE_ROUND_MEMBERS_MAX; v++) {
        if (!dure_members_has(masks->to, v)) continue;
        dure_put_u32(&plain, v);
        dure_put_raw(&plain, secret_of(masks, v), DURE_KEM_SHARED_BYTES);
    }
    dure_err err = dure_buf_err(&plain);
    if (!err && plain.n > sizeof sealed - DURE_AEAD_OVERHEAD) err = DURE_ERR_LIMIT;
    if (!err) err = wrap_key(key, aad, mask, t1, masks->member);
    if (!err)
        err = dure_aead_seal(sealed, key, dure_span_of(aad, sizeof aad), dure_buf_span(&plain));
    if (!err) {
        dure_put_raw(out, sealed, plain.n + DURE_AEAD_OVERHEAD);
        err = dure_buf_err(out);
    }
    if (plain.data) dure_wipe(plain.data, plain.n);
    dure_wipe(key, sizeof key);
    dure_buf_fini(&plain);
    return err;
}

static dure_err take_secrets(const dure_hybrid_masks *masks, dure_span plain)
{
    dure_reader r = dure_reader_of(plain);
    dure_members named = {{0}};
    dure_err err = DURE_OK;
    while (!err && r.at < r.n) {
        uint32_t v = 0;
        err = dure_take_u32(&v, &r);
        if (!err && (!dure_members_has(masks->to, v) || dure_members_has(&named, v)))
            err = DURE_ERR_PROTO;
        if (!err) err = dure_take_copy(secret_of(masks, v), &r, DURE_KEM_SHARED_BYTES);
        if (!err) dure_members_add(&named, v);
    }
    if (!err && !dure_members_equal(&named, masks->to)) err = DURE_ERR_PROTO;
    return err ? DURE_ERR_AUTH : DURE_OK;
}

dure_err dure_hybrid_unwrap(const dure_hybrid_masks *masks, dure_span wrapped,
                            const dure_round_key *mask, const dure_hash *t1)
{
    uint8_t key[DURE_AEAD_KEY_BYTES], aad[DURE_HASH_BYTES + 4];
    uint8_t plain[DURE_MSG_WRAPPED_MAX] = {0};
    const size_t all = dure_members_count(masks->near) * sizeof *masks->secrets;
    dure_wipe(masks->secrets, all);
    if (wrapped.n < DURE_AEAD_OVERHEAD || wrapped.n > sizeof plain) return DURE_ERR_AUTH;
    dure_err err = wrap_key(key, aad, mask, t1, masks->member);
    if (!err) err = dure_aead_open(plain, key, dure_span_of(aad, sizeof aad), wrapped);
    if (!err) err = take_secrets(masks, dure_span_of(plain, wrapped.n - DURE_AEAD_OVERHEAD));
    if (err) dure_wipe(masks->secrets, all);
    dure_wipe(plain, sizeof plain);
    dure_wipe(key, sizeof key);
    return err;
}
