/* Making and checking a round configuration C (proto/config.h) out of the terms, the roster and the
 * state of the log. Both sides use the same code: the coordinator fills C, a site verifies that it
 * follows from what the root signed.
 *
 * What is not here is the site's own policy (client/policy.h), which may refuse a correct C. */
#pragma once

#include "common/err.h"
#include "crypto/hash.h"
#include "crypto/sign.h"
#include "federation/roster.h"
#include "federation/terms.h"
#include "proto/config.h"

#include <stddef.h>
#include <stdint.h>

/* Words in one chunk of the masked vector: 192 KiB at 24 bits. */
#define DURE_ROUND_CHUNK_WORDS 65536u

/* What changes from round to round. */
typedef struct dure_round_facts {
    uint64_t run_id, round;
    dure_hash previous_t3;    /* of the last completed round; zero if none */
    dure_hash adapter_digest; /* the global adapter's file */
    uint64_t checkpoint_size;
    dure_hash checkpoint_root;
} dure_round_facts;

/* Fills C for the members in force that the n_sign Ed25519 keys name. The threshold is the smallest
 * that 2t > n + c allows. DURE_ERR_STATE when they are fewer than the terms' min_sites or one is
 * not in force; DURE_ERR_USAGE from dure_config_check(). */
DURE_MUST_USE dure_err dure_round_config_make(dure_config *out, const dure_terms *terms,
                                              const dure_roster *roster,
                                              const dure_round_facts *facts,
                                              const uint8_t (*sign)[32], size_t n_sign,
                                              dure_diag *diag);

/* DURE_ERR_PROTO, naming the field, unless every field of C that the terms or the roster determine
 * is what they say: the roster version, each member and its declared constants, cohort and
 * threshold rules, grid, privacy, model and method. The round's facts are the caller's to check. */
DURE_MUST_USE dure_err dure_round_config_verify(const dure_config *config, const dure_terms *terms,
                                                const dure_roster *roster, dure_diag *diag);

/* H_C of an encoded configuration: label "DURE/1/config". */
DURE_MUST_USE dure_err dure_round_config_hash(dure_hash *out, dure_span encoding);
/* The coordinator's signature over H_C: label "DURE/1/open". */
DURE_MUST_USE dure_err dure_round_config_sign(uint8_t signature[DURE_SIGNATURE_BYTES],
                                              const dure_hash *h_c, const dure_sign_key *key);
DURE_MUST_USE dure_err dure_round_config_verify_signature(
    const dure_hash *h_c, const uint8_t signature[DURE_SIGNATURE_BYTES],
    const uint8_t coordinator_sign[32], dure_diag *diag);
