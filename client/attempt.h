/* A training attempt: the secret that its sampling and noise come from, and the file that keeps
 * it while the attempt lasts.
 *
 * The 256-bit key is drawn once from the system's generator, saved 0600, reused when a killed
 * attempt is resumed (so the same bits are drawn again and nothing is released twice in two
 * forms), and erased when the attempt closes. Every stream is a function of the key, of what the
 * attempt is bound to (the hash of the round configuration or plan, and the commitment to the
 * data), of the step, and of the block of coordinates. Another binding is another attempt: a key
 * never serves two. */
#pragma once

#include "common/err.h"
#include "crypto/hash.h"
#include "crypto/rng.h"

#include <stdbool.h>
#include <stdint.h>

#define DURE_ATTEMPT_NOTE_BYTES 16

typedef struct dure_attempt {
    uint8_t key[DURE_RNG_KEY_BYTES];
    dure_hash binding;
    dure_hash data;
    uint8_t note[DURE_ATTEMPT_NOTE_BYTES]; /* the caller's: which reservation pays for it */
    char *path;                            /* owned */
} dure_attempt;

/* True if `path` holds an attempt, damaged or not. A file of zeros is an erasure that a crash cut
 * short: there is none any more. */
bool dure_attempt_exists(const char *path);
/* Begins an attempt, durable when it returns. DURE_ERR_EXISTS if `path` is there. */
DURE_MUST_USE dure_err dure_attempt_begin(dure_attempt *out, const char *path,
                                          const dure_hash *binding, const dure_hash *data,
                                          const uint8_t note[DURE_ATTEMPT_NOTE_BYTES],
                                          dure_diag *diag);
/* Takes up an attempt that was interrupted. DURE_ERR_NOT_FOUND if there is none,
 * DURE_ERR_FORMAT if the file is damaged. Check it before use. */
DURE_MUST_USE dure_err dure_attempt_open(dure_attempt *out, const char *path, dure_diag *diag);
/* DURE_ERR_STATE if the attempt is bound to something else or to other data. */
DURE_MUST_USE dure_err dure_attempt_check(const dure_attempt *attempt, const dure_hash *binding,
                                          const dure_hash *data, dure_diag *diag);
/* A name for what the key draws, which says nothing of it: two attempts never have the same. */
DURE_MUST_USE dure_err dure_attempt_name(dure_hash *out, const dure_attempt *attempt);
/* Overwrites and removes the file and wipes the key: nothing can be drawn again. */
DURE_MUST_USE dure_err dure_attempt_erase(dure_attempt *attempt, dure_diag *diag);
/* Wipes the copy in memory and leaves the file, for a later open. Idempotent. */
void dure_attempt_fini(dure_attempt *attempt);

/* The stream for one use ("sample", "noise") of one step and block. The caller frees it. */
DURE_MUST_USE dure_err dure_attempt_stream(dure_stream **out, const dure_attempt *attempt,
                                           const char *use, uint64_t step, uint64_t block);
