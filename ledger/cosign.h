/* Cosignatures of sites: "I have seen this checkpoint, and it extends all that I saw before".
 *
 * C2SP tlog-cosignature, cosignature/v1: Ed25519 over the lines "cosignature/v1" and "time SECONDS"
 * followed by the checkpoint's three lines. In a note the payload is the time as u64 and the
 * signature. A checkpoint counts, and a round may cite it, with m cosignatures of the N sites in
 * force in the roster that the round names, where 2m > N + c: two such sets share more than c
 * sites, so two different logs cannot both be cosigned unless more than c sites lie. Sites,
 * coordinator and auditor all ask dure_cosign_counts().
 *
 * Threads: pure functions. */
#pragma once

#include "crypto/sign.h"
#include "ledger/checkpoint.h"
#include "ledger/event.h"

#include <stdbool.h>

typedef struct dure_cosignature {
    uint64_t time_s; /* seconds since 1970, by the site's clock */
    uint8_t signature[64];
} dure_cosignature;

/* A site calls this through its witness (ledger/witness.h), which keeps it honest. */
DURE_MUST_USE dure_err dure_cosign(dure_cosignature *out, const dure_checkpoint *checkpoint,
                                   uint64_t time_s, const dure_sign_key *site);
/* DURE_ERR_AUTH unless `public_` made it for this checkpoint and time. */
DURE_MUST_USE dure_err dure_cosign_verify(const dure_cosignature *cosignature,
                                          const dure_checkpoint *checkpoint,
                                          const uint8_t public_[32]);

/* Appends the line of a verified cosignature to a note that ends after its last line. */
DURE_MUST_USE dure_err dure_cosign_append(dure_buf *note, const dure_cosignature *cosignature,
                                          const dure_site_key *site);

/* The valid cosignature of `site` on the note; *found is false when there is none. */
DURE_MUST_USE dure_err dure_cosign_find(bool *found, dure_cosignature *out, const dure_note *note,
                                        const dure_site_key *site);

/* 2m > N + c. */
bool dure_cosign_quorum(uint32_t n_cosigned, uint32_t n_sites, uint32_t collusion);

/* Whose cosignatures a checkpoint needs: all sites in force in one version of the roster, and how
 * many of them may lie. The log's own c is that of the terms; a site takes the larger of that and
 * its policy's, so what a site accepts an auditor accepts. */
typedef struct dure_cosigners {
    const dure_site_key *sites; /* borrowed */
    uint32_t n, collusion;
} dure_cosigners;
/* How many of the sites have a valid cosignature on the note, each counted once, and a time at
 * which the checkpoint had been shown even if `collusion` of them lie about theirs: the (collusion
 * + 1)-th latest, which is no later than an honest site's (0: there are not so many). Lines of
 * others are passed over. `signed_by` (may be NULL) gets one flag a site. DURE_ERR_NOMEM. */
typedef struct dure_cosign_tally {
    uint32_t n;
    uint64_t seen_s;
} dure_cosign_tally;
DURE_MUST_USE dure_err dure_cosign_count(dure_cosign_tally *out, bool *signed_by,
                                         const dure_note *note, const dure_cosigners *who);

/* Whether the note counts with them; *tally (may be NULL) is how many there were. */
DURE_MUST_USE dure_err dure_cosign_counts(bool *counts, dure_cosign_tally *tally,
                                          const dure_note *note, const dure_cosigners *who);
