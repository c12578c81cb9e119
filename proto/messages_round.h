/* The messages of the secure sum: the steps R0..R4 (from the sites) and A1..A4 (to them) of
 * Bonawitz et al. 2017 (CCS, doi 10.1145/3133956.3133982) with signatures and the consistency
 * round.
 *
 * A member's number is its place in the round configuration's sorted list. Lists are in ascending
 * order of it and name nobody twice. A1, A2 and A3 name a whole set, but have the entries of the
 * receiver and its neighbours alone, and hashes in place of the others': on the complete graph all
 * are neighbours, and there are no hashes. Every message names its round by the configuration's
 * hash.
 * What is signed is defined in secagg/transcript.h: fixed encodings, never protobuf bytes. */
#pragma once

#include "common/buf.h"
#include "proto/config.h"

#include <stddef.h>
#include <stdint.h>

#define DURE_MSG_SEALED_MAX 256 /* one encrypted pair of shares */
#define DURE_MSG_SHARE_BYTES 44 /* one Shamir share as crypto/shamir.h encodes it */
/* What the hybrid suite adds: two ML-KEM-768 public keys, one or two ciphertexts for one member,
 * and up to DURE_NEAR_HYBRID_MAX - 1 secrets, encrypted. */
#define DURE_MSG_KEM_KEYS_BYTES (2 * 1184)
#define DURE_MSG_KEM_MAX (2 * 1088)
#define DURE_MSG_WRAPPED_MAX (28 + 36 * (DURE_NEAR_HYBRID_MAX - 1))
/* Hashes that stand for the entries which a site is not sent (secagg/roll.h): of a run on a ring of
 * DURE_ROUND_MEMBERS_MAX. */
#define DURE_MSG_ROLL_PROOF_MAX 32

/* The keys of one site for one round. */
typedef struct dure_round_keys {
    uint32_t member;                        /* in A1; 0 in R0 */
    uint8_t channel_public[DURE_KEY_BYTES]; /* E_u */
    uint8_t mask_public[DURE_KEY_BYTES];    /* M_u */
    uint8_t nonce[32];
    uint8_t commitment[DURE_DIGEST_BYTES]; /* to b_u */
    uint64_t chain_length;                 /* head of the site's own budget chain */
    uint8_t chain_head[DURE_DIGEST_BYTES];
    uint8_t signature[DURE_SIGNATURE_BYTES]; /* label "DURE/1/R0" */
    dure_span kem; /* hybrid suite: channel, mask; else empty. Borrowed, as the whole message is */
} dure_round_keys;

/* R0, site -> coordinator. */
typedef struct dure_msg_advertise {
    uint8_t config_hash[DURE_DIGEST_BYTES];
    dure_round_keys keys;
} dure_msg_advertise;

/* A1, coordinator -> one site of U1. */
typedef struct dure_msg_keys {
    uint8_t config_hash[DURE_DIGEST_BYTES];
    const dure_round_keys *entries; /* ascending member */
    size_t n_entries;
    dure_span members; /* U1, as dure_members_put() writes it */
    const uint8_t (*proof)[DURE_DIGEST_BYTES];
    size_t n_proof;
    dure_span beacon; /* sparse graph: what the beacon signed for the round's index */
} dure_msg_keys;

typedef struct dure_sealed {
    uint32_t member;  /* R1: to whom */
    dure_span sealed; /* nonce, ciphertext, tag */
    dure_span kem;    /* hybrid suite: for the channel and, to a higher number, for the mask */
} dure_sealed;

/* R1, site -> coordinator: one pair of shares for each neighbour in U1. */
typedef struct dure_msg_shares {
    uint8_t config_hash[DURE_DIGEST_BYTES];
    const dure_sealed *entries; /* ascending member */
    size_t n_entries;
    uint8_t signature[DURE_SIGNATURE_BYTES]; /* label "DURE/1/R1" */
    dure_span wrapped; /* hybrid suite: the masks' secrets, for who has this site's mask seed */
} dure_msg_shares;

typedef struct dure_forwarded {
    uint32_t member;                    /* from whom */
    dure_span sealed;                   /* empty in the receiver's own entry */
    uint8_t r1_hash[DURE_DIGEST_BYTES]; /* hash of all that this member sealed */
    uint8_t signature[DURE_SIGNATURE_BYTES];
    dure_span kem; /* as in R1; empty in the receiver's own entry */
} dure_forwarded;

/* A2, coordinator -> one site of U2. */
typedef struct dure_msg_shares_for {
    uint8_t config_hash[DURE_DIGEST_BYTES];
    const dure_forwarded *entries; /* ascending member */
    size_t n_entries;
    dure_span members; /* U2 */
    const uint8_t (*proof)[DURE_DIGEST_BYTES];
    size_t n_proof;
} dure_msg_shares_for;

/* coordinator -> site: credit to send chunks [first_chunk, first_chunk + n_chunks). */
typedef struct dure_msg_fetch {
    uint8_t config_hash[DURE_DIGEST_BYTES];
    uint32_t first_chunk, n_chunks;
} dure_msg_fetch;

/* site -> coordinator, followed by a raw frame: chunk `chunk` of the masked vector. */
typedef struct dure_msg_chunk {
    uint8_t config_hash[DURE_DIGEST_BYTES];
    uint32_t chunk;
    uint32_t n_bytes; /* of the raw frame */
} dure_msg_chunk;

/* R2's final frame, site -> coordinator, once every chunk has been sent. */
typedef struct dure_msg_masked {
    uint8_t config_hash[DURE_DIGEST_BYTES];
    uint8_t t2[DURE_DIGEST_BYTES];
    uint8_t root[DURE_DIGEST_BYTES];         /* Merkle root over the chunks */
    uint8_t signature[DURE_SIGNATURE_BYTES]; /* label "DURE/1/R2" */
} dure_msg_masked;

typedef struct dure_survivor {
    uint32_t member;
    uint8_t root[DURE_DIGEST_BYTES];
    uint8_t signature[DURE_SIGNATURE_BYTES]; /* the one of R2 */
} dure_survivor;

/* A3, coordinator -> one site of U3. */
typedef struct dure_msg_survivors {
    uint8_t config_hash[DURE_DIGEST_BYTES];
    const dure_survivor *entries; /* ascending member */
    size_t n_entries;
    dure_span members; /* U3 */
    const uint8_t (*proof)[DURE_DIGEST_BYTES];
    size_t n_proof;
} dure_msg_survivors;

/* R3, site -> coordinator. */
typedef struct dure_msg_consistency {
    uint8_t config_hash[DURE_DIGEST_BYTES];
    uint8_t t3[DURE_DIGEST_BYTES];
    uint8_t signature[DURE_SIGNATURE_BYTES]; /* label "DURE/1/R3" */
} dure_msg_consistency;

typedef struct dure_attested {
    uint32_t member;
    uint8_t signature[DURE_SIGNATURE_BYTES]; /* the one of R3 */
} dure_attested;

/* A4, coordinator -> every site that sent R3: as many signatures of U3 as make a quorum. */
typedef struct dure_msg_signatures {
    uint8_t config_hash[DURE_DIGEST_BYTES];
    uint8_t t3[DURE_DIGEST_BYTES];
    const dure_attested *entries; /* ascending member */
    size_t n_entries;
} dure_msg_signatures;

typedef enum dure_share_kind {
    DURE_SHARE_SELF = 1, /* of b_v, for v in U3 */
    DURE_SHARE_MASK = 2, /* of m_v, for v in U2 but not in U3 */
} dure_share_kind;

typedef struct dure_revealed {
    uint32_t member;
    uint32_t kind; /* dure_share_kind */
    uint8_t share[DURE_MSG_SHARE_BYTES];
} dure_revealed;

/* R4, site -> coordinator. */
typedef struct dure_msg_unmask {
    uint8_t config_hash[DURE_DIGEST_BYTES];
    uint8_t t3[DURE_DIGEST_BYTES];
    const dure_revealed *entries; /* ascending member, so never two of one member */
    size_t n_entries;
    uint8_t signature[DURE_SIGNATURE_BYTES]; /* label "DURE/1/R4" */
} dure_msg_unmask;
