/* Recovering a shared secret when some of the shares may be wrong.
 *
 * Shamir's scheme alone cannot tell. Here every secret has a public check (the mask key's public
 * half, the commitment to b_u), so subsets of t shares are tried until one passes; then every other
 * share is compared with the polynomial and the liars are named. Threads: pure. */
#pragma once

#include "common/err.h"
#include "crypto/shamir.h"
#include "proto/config.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Subsets that are tried for one secret: all of them where there are so few (any t of 16 shares),
 * else so many at random. */
#define DURE_RECOVER_TRIES_MAX 13000u

typedef struct dure_recovery {
    const dure_share *shares; /* n distinct x, in order of trust: the first t are tried first */
    size_t n, t;
    bool (*check)(void *state, const uint8_t secret[DURE_SHAMIR_SECRET_BYTES]);
    void *state;
} dure_recovery;

/* DURE_ERR_AUTH, with `secret` zeroed, when no subset passes (yet: more shares may come). On
 * success *liars (may be NULL) gains member x - 1 for every share off the polynomial. The caller
 * wipes `secret`. */
DURE_MUST_USE dure_err dure_recover(uint8_t secret[DURE_SHAMIR_SECRET_BYTES], dure_members *liars,
                                    const dure_recovery *recovery);
