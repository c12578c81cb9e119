#include "secagg/transcript.h"

#include "crypto/aead.h"
#include "crypto/hkdf.h"
#include "crypto/kem.h"
#include "crypto/merkle.h"
#include "crypto/wipe.h"

#include <string.h>

/* The longest list that is hashed: R1's in the hybrid suite. */
#define FIELDS_MAX (320u * 1024)

_Static_assert(DURE_SECAGG_SEALED_BYTES <= DURE_MSG_SEALED_MAX, "a pair of shares fits its field");
_Static_assert(DURE_SECAGG_SEALED_BYTES == 8 + 2 * DURE_SHARE_BYTES + DURE_AEAD_OVERHEAD,
               "nonce and tag are counted");
_Static_assert(DURE_SHARE_BYTES == DURE_MSG_SHARE_BYTES, "the wire's share is the crypto layer's");

static void put_hash(dure_buf *buf, const dure_hash *hash)
{
    dure_put_raw(buf, hash->b, sizeof hash->b);
}

static void put_who(dure_buf *buf, dure_secagg_who who)
{
    put_hash(buf, who.config_hash);
    dure_put_u32(buf, who.member);
}

/* Everything that identifies one R0 but its member and signature. */
static void put_keys(dure_buf *buf, const dure_round_keys *k)
{
    dure_put_raw(buf, k->channel_public, sizeof k->channel_public);
    dure_put_raw(buf, k->mask_public, sizeof k->mask_public);
    dure_put_raw(buf, k->nonce, sizeof k->nonce);
    dure_put_raw(buf, k->commitment, sizeof k->commitment);
    dure_put_u64(buf, k->chain_length);
    dure_put_raw(buf, k->chain_head, sizeof k->chain_head);
    /* Only in the hybrid suite, which the configuration's hash fixes. */
    if (k->kem.n) dure_put_bytes(buf, k->kem.data, k->kem.n);
}

/* Hashes what was put, as one field under `label`, and releases the buffer. */
static dure_err finish(dure_hash *out, const char *label, dure_buf *buf)
{
    dure_span field = dure_buf_span(buf);
    dure_err err = dure_buf_err(buf);
    if (!err) err = dure_hash_labeled(out, label, &field, 1);
    if (err) memset(out, 0, sizeof *out);
    dure_buf_fini(buf);
    return err;
}

dure_err dure_secagg_commit(dure_hash *out, dure_secagg_who who,
                            const uint8_t b[DURE_SHAMIR_SECRET_BYTES])
{
    uint8_t member[4] = {(uint8_t)(who.member >> 24), (uint8_t)(who.member >> 16),
                         (uint8_t)(who.member >> 8), (uint8_t)who.member};
    dure_span fields[3] = {
        dure_hash_span(who.config_hash), {member, sizeof member}, {b, DURE_SHAMIR_SECRET_BYTES}};
    return dure_hash_labeled(out, "DURE/1/bcommit", fields, 3);
}

dure_err dure_secagg_digest_r0(dure_hash *out, dure_secagg_who who, const dure_round_keys *keys)
{
    dure_buf buf;
    dure_buf_init(&buf, FIELDS_MAX);
    put_who(&buf, who);
    put_keys(&buf, keys);
    return finish(out, DURE_SECAGG_LABEL_R0, &buf);
}

dure_err dure_secagg_digest_r1(dure_hash *out, const dure_hash *t1, uint32_t member,
                               const dure_msg_shares *r1)
{
    dure_buf buf;
    dure_buf_init(&buf, FIELDS_MAX);
    put_hash(&buf, t1);
    dure_put_u32(&buf, member);
    for (size_t i = 0; i < r1->n_entries; i++) {
        const dure_sealed *e = &r1->entries[i];
        dure_put_u32(&buf, e->member);
        dure_put_bytes(&buf, e->sealed.data, e->sealed.n);
        if (e->kem.n) dure_put_bytes(&buf, e->kem.data, e->kem.n);
    }
    if (r1->wrapped.n) dure_put_bytes(&buf, r1->wrapped.data, r1->wrapped.n);
    return finish(out, DURE_SECAGG_LABEL_R1, &buf);
}

dure_err dure_secagg_digest_r2(dure_hash *out, dure_secagg_who who, const dure_hash *t2,
                               const dure_hash *root)
{
    dure_buf buf;
    dure_buf_init(&buf, FIELDS_MAX);
    put_who(&buf, who);
    put_hash(&buf, t2);
    put_hash(&buf, root);
    return finish(out, DURE_SECAGG_LABEL_R2, &buf);
}

dure_err dure_secagg_digest_r3(dure_hash *out, dure_secagg_who who, const dure_hash *t3)
{
    dure_buf buf;
    dure_buf_init(&buf, FIELDS_MAX);
    put_who(&buf, who);
    put_hash(&buf, t3);
    return finish(out, DURE_SECAGG_LABEL_R3, &buf);
}

dure_err dure_secagg_digest_r4(dure_hash *out, dure_secagg_who who, const dure_hash *t3,
                               const dure_revealed *entries, size_t n)
{
    dure_buf buf;
    dure_buf_init(&buf, FIELDS_MAX);
    put_who(&buf, who);
    put_hash(&buf, t3);
    for (size_t i = 0; i < n; i++) {
        dure_put_u32(&buf, entries[i].member);
        dure_put_u32(&buf, entries[i].kind);
        dure_put_raw(&buf, entries[i].share, sizeof entries[i].share);
    }
    return finish(out, DURE_SECAGG_LABEL_R4, &buf);
}

dure_err dure_secagg_digest_abort(dure_hash *out, dure_secagg_who who, uint32_t code,
                                  const char *text)
{
    dure_buf buf;
    dure_buf_init(&buf, FIELDS_MAX);
    put_who(&buf, who);
    dure_put_u32(&buf, code);
    dure_put_text(&buf, text);
    return finish(out, DURE_SECAGG_LABEL_ABORT, &buf);
}

dure_err dure_secagg_verify_abort(const dure_msg_abort *msg, dure_secagg_who who,
                                  const uint8_t public_[DURE_SIGN_PUBLIC_BYTES])
{
    dure_hash digest;
    dure_err err = dure_secagg_digest_abort(&digest, who, msg->code, msg->text);
    if (err) return err;
    return dure_sign_verify(public_, DURE_SECAGG_LABEL_ABORT, dure_hash_span(&digest),
                            msg->signature);
}

/* The same as a leaf of a roll. */
static dure_err finish_leaf(dure_hash *out, dure_buf *buf)
{
    dure_err err = dure_buf_err(buf);
    if (!err) err = dure_merkle_leaf(out, dure_buf_span(buf));
    if (err) memset(out, 0, sizeof *out);
    dure_buf_fini(buf);
    return err;
}

dure_err dure_secagg_leaf_r0(dure_hash *out, const dure_round_keys *keys)
{
    dure_buf buf;
    dure_buf_init(&buf, FIELDS_MAX);
    dure_put_u32(&buf, keys->member);
    put_keys(&buf, keys);
    dure_put_raw(&buf, keys->signature, sizeof keys->signature);
    return finish_leaf(out, &buf);
}

/* A member's number and a hash. */
static dure_err leaf_of_hash(dure_hash *out, uint32_t member, const uint8_t *hash)
{
    dure_buf buf;
    dure_buf_init(&buf, FIELDS_MAX);
    dure_put_u32(&buf, member);
    dure_put_raw(&buf, hash, DURE_DIGEST_BYTES);
    return finish_leaf(out, &buf);
}

dure_err dure_secagg_leaf_r1(dure_hash *out, uint32_t member, const uint8_t *r1_hash)
{
    return leaf_of_hash(out, member, r1_hash);
}

dure_err dure_secagg_leaf_r2(dure_hash *out, uint32_t member, const uint8_t *root)
{
    return leaf_of_hash(out, member, root);
}

static void put_set(dure_buf *buf, const dure_secagg_set *set)
{
    uint8_t bits[DURE_MEMBERS_BYTES_MAX];
    const dure_span members = dure_members_put(bits, set->members, set->n);
    dure_put_bytes(buf, members.data, members.n);
    put_hash(buf, set->root);
}

dure_err dure_secagg_t1(dure_hash *out, const dure_hash *config_hash, dure_span beacon,
                        const dure_secagg_set *u1)
{
    dure_buf buf;
    dure_buf_init(&buf, FIELDS_MAX);
    put_hash(&buf, config_hash);
    dure_put_bytes(&buf, beacon.data, beacon.n);
    put_set(&buf, u1);
    return finish(out, "DURE/1/T1", &buf);
}

dure_err dure_secagg_t2(dure_hash *out, const dure_hash *t1, const dure_secagg_set *u2)
{
    dure_buf buf;
    dure_buf_init(&buf, FIELDS_MAX);
    put_hash(&buf, t1);
    put_set(&buf, u2);
    return finish(out, "DURE/1/T2", &buf);
}

dure_err dure_secagg_t3(dure_hash *out, const dure_hash *t2, const dure_secagg_set *u3)
{
    dure_buf buf;
    dure_buf_init(&buf, FIELDS_MAX);
    put_hash(&buf, t2);
    put_set(&buf, u3);
    return finish(out, "DURE/1/T3", &buf);
}

/* key = HKDF(salt, ikm, label and numbers). */
static dure_err derive(uint8_t key[DURE_SECAGG_KEY_BYTES], const dure_hash *salt, dure_span ikm,
                       const char *label, const uint32_t numbers[4])
{
    dure_buf info;
    dure_buf_init(&info, 64);
    dure_put_text(&info, label);
    for (size_t i = 0; i < 4; i++) {
        dure_put_u32(&info, numbers[i]);
    }
    dure_err err = dure_buf_err(&info);
    if (!err) {
        err =
            dure_hkdf(key, DURE_SECAGG_KEY_BYTES, dure_hash_span(salt), ikm, dure_buf_span(&info));
    }
    if (err) dure_wipe(key, DURE_SECAGG_KEY_BYTES);
    dure_buf_fini(&info);
    return err;
}

static dure_err derive_shared(uint8_t key[DURE_SECAGG_KEY_BYTES], const dure_hash *salt,
                              const dure_agreement *between, const char *label,
                              const uint32_t numbers[4])
{
    uint8_t shared[DURE_KX_BYTES + DURE_KEM_SHARED_BYTES] = {0};
    dure_span ikm = {shared, between->kem ? sizeof shared : DURE_KX_BYTES};
    dure_err err = dure_kx_shared(shared, between->own, between->peer);
    if (between->kem) memcpy(shared + DURE_KX_BYTES, between->kem, DURE_KEM_SHARED_BYTES);
    if (!err) err = derive(key, salt, ikm, label, numbers);
    if (err) dure_wipe(key, DURE_SECAGG_KEY_BYTES);
    dure_wipe(shared, sizeof shared);
    return err;
}

dure_err dure_secagg_channel_key(uint8_t key[DURE_SECAGG_KEY_BYTES], const dure_hash *t1,
                                 const dure_agreement *between, const uint32_t from_to[2])
{
    uint32_t numbers[4] = {from_to[0], from_to[1], 0, 0};
    return derive_shared(key, t1, between, "DURE/1/chan", numbers);
}

dure_err dure_secagg_pair_key(uint8_t key[DURE_SECAGG_KEY_BYTES], const dure_hash *t2,
                              const dure_agreement *between, const uint32_t pair[2],
                              const dure_config *config)
{
    uint32_t low = pair[0] < pair[1] ? pair[0] : pair[1];
    uint32_t high = pair[0] < pair[1] ? pair[1] : pair[0];
    uint32_t numbers[4] = {low, high, config->word_bits, config->n_words};
    return derive_shared(key, t2, between, "DURE/1/mask", numbers);
}

dure_err dure_secagg_self_key(uint8_t key[DURE_SECAGG_KEY_BYTES], const dure_hash *t2,
                              const uint8_t b[DURE_SHAMIR_SECRET_BYTES], uint32_t u,
                              const dure_config *config)
{
    uint32_t numbers[4] = {u, 0, config->word_bits, config->n_words};
    return derive(key, t2, (dure_span){b, DURE_SHAMIR_SECRET_BYTES}, "DURE/1/self", numbers);
}

/* aad = T1, from, to [, ciphertexts]. */
#define AAD_BYTES (DURE_HASH_BYTES + 8 + DURE_MSG_KEM_MAX)

static void put_number(uint8_t out[4], uint32_t value)
{
    out[0] = (uint8_t)(value >> 24);
    out[1] = (uint8_t)(value >> 16);
    out[2] = (uint8_t)(value >> 8);
    out[3] = (uint8_t)value;
}

static dure_span make_aad(uint8_t aad[AAD_BYTES], const dure_hash *t1, const uint32_t from_to[2],
                          dure_span kem)
{
    memcpy(aad, t1->b, DURE_HASH_BYTES);
    put_number(aad + DURE_HASH_BYTES, from_to[0]);
    put_number(aad + DURE_HASH_BYTES + 4, from_to[1]);
    if (kem.n) memcpy(aad + DURE_HASH_BYTES + 8, kem.data, kem.n);
    return (dure_span){aad, DURE_HASH_BYTES + 8 + kem.n};
}

dure_err dure_secagg_seal(uint8_t sealed[DURE_SECAGG_SEALED_BYTES],
                          const uint8_t key[DURE_SECAGG_KEY_BYTES], const dure_hash *t1,
                          const uint32_t from_to[2], dure_span kem, const dure_share_pair *pair)
{
    uint8_t aad[AAD_BYTES], plain[8 + 2 * DURE_SHARE_BYTES];
    if (kem.n > DURE_MSG_KEM_MAX) return DURE_ERR_LIMIT;
    put_number(plain, from_to[0]);
    put_number(plain + 4, from_to[1]);
    dure_share_encode(plain + 8, &pair->self);
    dure_share_encode(plain + 8 + DURE_SHARE_BYTES, &pair->mask);
    dure_err err = dure_aead_seal(sealed, key, make_aad(aad, t1, from_to, kem),
                                  (dure_span){plain, sizeof plain});
    dure_wipe(plain, sizeof plain);
    return err;
}

dure_err dure_secagg_open(dure_share_pair *pair, const uint8_t key[DURE_SECAGG_KEY_BYTES],
                          const dure_hash *t1, const uint32_t from_to[2], dure_span kem,
                          dure_span sealed)
{
    uint8_t aad[AAD_BYTES], plain[8 + 2 * DURE_SHARE_BYTES] = {0}, names[8];
    dure_wipe(pair, sizeof *pair);
    if (sealed.n != DURE_SECAGG_SEALED_BYTES || kem.n > DURE_MSG_KEM_MAX) return DURE_ERR_AUTH;
    dure_err err = dure_aead_open(plain, key, make_aad(aad, t1, from_to, kem), sealed);
    if (err) goto out;
    put_number(names, from_to[0]);
    put_number(names + 4, from_to[1]);
    err = dure_ct_equal(plain, names, sizeof names) ? DURE_OK : DURE_ERR_AUTH;
    if (!err) err = dure_share_decode(&pair->self, plain + 8);
    if (!err) err = dure_share_decode(&pair->mask, plain + 8 + DURE_SHARE_BYTES);
    if (!err && (pair->self.x != from_to[1] + 1 || pair->mask.x != from_to[1] + 1)) {
        err = DURE_ERR_AUTH;
    }
out:
    if (err) dure_wipe(pair, sizeof *pair);
    dure_wipe(plain, sizeof plain);
    return err == DURE_ERR_PROTO ? DURE_ERR_AUTH : err;
}
