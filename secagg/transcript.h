/* What the parties hash, sign and derive keys from: the one definition for both sides.
 *
 * Every value is a labelled hash of length-prefixed, big-endian fields, never of protobuf bytes.
 * The transcript grows H_C -> T1 -> T2 -> T3, each over the one before, and the keys of masks
 * are salted with T2: parties that saw different configurations, keys or sets derive masks that do
 * not cancel, so a coordinator that shows different things to different sites gets noise.
 *
 * Members are numbers in the configuration, u32. Errors: DURE_ERR_CRYPTO, DURE_ERR_NOMEM. */
#pragma once

#include "common/err.h"
#include "crypto/hash.h"
#include "crypto/kx.h"
#include "crypto/shamir.h"
#include "crypto/sign.h"
#include "proto/messages.h"

#define DURE_SECAGG_KEY_BYTES 32
#define DURE_SECAGG_LABEL_R0 "DURE/1/R0"
#define DURE_SECAGG_LABEL_R1 "DURE/1/R1"
#define DURE_SECAGG_LABEL_R2 "DURE/1/R2"
#define DURE_SECAGG_LABEL_R3 "DURE/1/R3"
#define DURE_SECAGG_LABEL_R4 "DURE/1/R4"
#define DURE_SECAGG_LABEL_ABORT "DURE/1/abort"
/* In place of a member's number in the coordinator's own aborts. */
#define DURE_SECAGG_COORDINATOR UINT32_MAX

/* The round and one of its members. */
typedef struct dure_secagg_who {
    const dure_hash *config_hash;
    uint32_t member;
} dure_secagg_who;

/* cb_u = H("DURE/1/bcommit", H_C, u, b_u): hides b_u, which has 256 uniform bits, and binds to it.
 */
DURE_MUST_USE dure_err dure_secagg_commit(dure_hash *out, dure_secagg_who who,
                                          const uint8_t b[DURE_SHAMIR_SECRET_BYTES]);

/* The digests that are signed, each under the label of its step. */
DURE_MUST_USE dure_err dure_secagg_digest_r0(dure_hash *out, dure_secagg_who who,
                                             const dure_round_keys *keys);
DURE_MUST_USE dure_err dure_secagg_digest_r1(dure_hash *out, const dure_hash *t1, uint32_t member,
                                             const dure_msg_shares *r1);
DURE_MUST_USE dure_err dure_secagg_digest_r2(dure_hash *out, dure_secagg_who who,
                                             const dure_hash *t2, const dure_hash *root);
DURE_MUST_USE dure_err dure_secagg_digest_r3(dure_hash *out, dure_secagg_who who,
                                             const dure_hash *t3);
DURE_MUST_USE dure_err dure_secagg_digest_r4(dure_hash *out, dure_secagg_who who,
                                             const dure_hash *t3, const dure_revealed *entries,
                                             size_t n);
DURE_MUST_USE dure_err dure_secagg_digest_abort(dure_hash *out, dure_secagg_who who, uint32_t code,
                                                const char *text);

/* DURE_ERR_AUTH unless `who` signed the abort with `public_`: an unsigned one is nobody's. */
DURE_MUST_USE dure_err dure_secagg_verify_abort(const dure_msg_abort *msg, dure_secagg_who who,
                                                const uint8_t public_[DURE_SIGN_PUBLIC_BYTES]);

/* One entry of A1, A2 or A3 as a leaf of its roll (secagg/roll.h): all of R0 and its signature; the
 * digest of R1; the root of the vector. Each with its member's number. */
DURE_MUST_USE dure_err dure_secagg_leaf_r0(dure_hash *out, const dure_round_keys *keys);
DURE_MUST_USE dure_err dure_secagg_leaf_r1(dure_hash *out, uint32_t member, const uint8_t *r1_hash);
DURE_MUST_USE dure_err dure_secagg_leaf_r2(dure_hash *out, uint32_t member, const uint8_t *root);

/* U1, U2 or U3 of a round with n members, and the root of its roll. */
typedef struct dure_secagg_set {
    const dure_members *members;
    uint32_t n;
    const dure_hash *root;
} dure_secagg_set;

/* T1 = H("DURE/1/T1", H_C, beacon, U1, root of the R0s); no beacon on the complete graph.
 * T2 = H("DURE/1/T2", T1, U2, root of the R1s). T3 = H("DURE/1/T3", T2, U3, root of the R2s). */
DURE_MUST_USE dure_err dure_secagg_t1(dure_hash *out, const dure_hash *config_hash,
                                      dure_span beacon, const dure_secagg_set *u1);
DURE_MUST_USE dure_err dure_secagg_t2(dure_hash *out, const dure_hash *t1,
                                      const dure_secagg_set *u2);
DURE_MUST_USE dure_err dure_secagg_t3(dure_hash *out, const dure_hash *t2,
                                      const dure_secagg_set *u3);

/* What two members agree on: X25519 between `own` and `peer` and, in the hybrid suite, the secret
 * that one of them encapsulated (NULL otherwise). Both go into each key. */
typedef struct dure_agreement {
    const dure_kx_key *own;
    const uint8_t *peer; /* DURE_KX_BYTES */
    const uint8_t *kem;  /* DURE_KEM_SHARED_BYTES */
} dure_agreement;

/* k_chan(from -> to) = HKDF(salt T1, ikm X25519(e, E) [, ss], info ("DURE/1/chan", from, to)). The
 * caller wipes `key`. DURE_ERR_AUTH for a peer's key of low order; `key` is then zero, as on any
 * error. */
DURE_MUST_USE dure_err dure_secagg_channel_key(uint8_t key[DURE_SECAGG_KEY_BYTES],
                                               const dure_hash *t1, const dure_agreement *between,
                                               const uint32_t from_to[2]);

/* k_mask(u, v) = HKDF(salt T2, ikm X25519(m_u, M_v) [, ss], info ("DURE/1/mask", min, max, b, L)):
 * the same from either side, and from the server's side once m_v was reconstructed. */
DURE_MUST_USE dure_err dure_secagg_pair_key(uint8_t key[DURE_SECAGG_KEY_BYTES], const dure_hash *t2,
                                            const dure_agreement *between, const uint32_t pair[2],
                                            const dure_config *config);
/* k_self(u) = HKDF(salt T2, ikm b_u, info ("DURE/1/self", u, b, L)). */
DURE_MUST_USE dure_err dure_secagg_self_key(uint8_t key[DURE_SECAGG_KEY_BYTES], const dure_hash *t2,
                                            const uint8_t b[DURE_SHAMIR_SECRET_BYTES], uint32_t u,
                                            const dure_config *config);

/* One pair of shares for one member: plaintext (from, to, share of b, share of m), sealed with
 * AES-256-GCM under k_chan and authenticated with (T1, from, to) and, in the hybrid suite, the
 * ciphertexts `kem` that go with it. */
#define DURE_SECAGG_SEALED_BYTES (8 + 2 * DURE_SHARE_BYTES + 28)
typedef struct dure_share_pair {
    dure_share self, mask;
} dure_share_pair;
DURE_MUST_USE dure_err dure_secagg_seal(uint8_t sealed[DURE_SECAGG_SEALED_BYTES],
                                        const uint8_t key[DURE_SECAGG_KEY_BYTES],
                                        const dure_hash *t1, const uint32_t from_to[2],
                                        dure_span kem, const dure_share_pair *pair);
/* DURE_ERR_AUTH unless it opens and names the same two members and the receiver's own x. */
DURE_MUST_USE dure_err dure_secagg_open(dure_share_pair *pair,
                                        const uint8_t key[DURE_SECAGG_KEY_BYTES],
                                        const dure_hash *t1, const uint32_t from_to[2],
                                        dure_span kem, dure_span sealed);
