/* What the hybrid suite adds to a round: ML-KEM-768 beside X25519, in channels and masks.
 *
 * A KEM is not symmetric, so each sender encapsulates to each receiver: for the channel in its own
 * direction, for the mask from the lower number to the higher. What a site encapsulated for masks
 * it also sends encrypted under a key of its mask seed, which is what is shared among the sites:
 * whoever recovers the seed of a site that dropped out can rebuild its masks in both directions.
 * Every key is derived from both shared secrets, so it holds as long as one of the two agreements
 * does.
 *
 * In the suite of X25519 alone a seed is the private key itself, and nothing below adds a byte.
 *
 * Errors: DURE_ERR_CRYPTO, DURE_ERR_NOMEM; DURE_ERR_UNSUPPORTED where OpenSSL has no ML-KEM. */
#pragma once

#include "common/buf.h"
#include "common/err.h"
#include "crypto/hash.h"
#include "crypto/kem.h"
#include "crypto/kx.h"
#include "proto/config.h"
#include "proto/messages_round.h"

#define DURE_ROUND_SEED_BYTES 32

bool dure_suite_is_hybrid(const dure_config *config);
/* DURE_ERR_UNSUPPORTED, with a sentence that names what is there, where ML-KEM is not to be had.
 * `who` begins it: "this site". */
DURE_MUST_USE dure_err dure_hybrid_check_machine(const char *who, dure_diag *diag);
/* The lengths of what R0, R1's entry from one member to another, and R1 carry in this suite. */
size_t dure_hybrid_keys_bytes(const dure_config *config);
size_t dure_hybrid_sent_bytes(const dure_config *config, uint32_t from, uint32_t to);
size_t dure_hybrid_wrapped_bytes(const dure_config *config, size_t n_secrets);

/* Whether a secret can be agreed with the owner of R0's public keys, of the suite's lengths, by
 * whoever tries: an X25519 key of low order makes every other site's agreement fail, and so do
 * bytes that are no ML-KEM key. DURE_ERR_AUTH, with the name of the key in *which ("mask key"), if
 * not. */
DURE_MUST_USE dure_err dure_hybrid_check_keys(const char **which, const dure_config *config,
                                              const dure_round_keys *keys);

/* One purpose's private key of one round. Secret: the owner wipes it as a whole. */
typedef struct dure_round_key {
    uint8_t seed[DURE_ROUND_SEED_BYTES]; /* all the rest follows from it */
    dure_kx_key kx;
    uint8_t kem[DURE_KEM_SEED_BYTES]; /* hybrid suite */
} dure_round_key;
typedef enum dure_round_purpose { DURE_FOR_CHANNELS, DURE_FOR_MASKS } dure_round_purpose;

/* The key and, in the hybrid suite, its ML-KEM half in public; `kem_public` may be NULL otherwise.
 */
DURE_MUST_USE dure_err dure_round_key_make(dure_round_key *out, uint8_t *kem_public,
                                           const uint8_t seed[DURE_ROUND_SEED_BYTES],
                                           const dure_config *config, dure_round_purpose purpose);

/* Members `to`, who are neighbours (`near`, itself included) of `member`; and the secret of each,
 * by rank in `near`. */
typedef struct dure_hybrid_masks {
    uint32_t member;
    const dure_members *near, *to;
    uint8_t (*secrets)[DURE_KEM_SHARED_BYTES];
} dure_hybrid_masks;

/* The secrets of `to`, encrypted for whoever has the mask seed of the member. Appends to `out`. */
DURE_MUST_USE dure_err dure_hybrid_wrap(dure_buf *out, const dure_hybrid_masks *masks,
                                        const dure_round_key *mask, const dure_hash *t1);
/* Sets all secrets of `near`: those of `to`, and zero. DURE_ERR_AUTH, with all zero, unless it
 * opens and names exactly `to`. */
DURE_MUST_USE dure_err dure_hybrid_unwrap(const dure_hybrid_masks *masks, dure_span wrapped,
                                          const dure_round_key *mask, const dure_hash *t1);
