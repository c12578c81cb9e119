/* Shamir secret sharing of 32-byte secrets over the field of p = 2^61 - 1.
 *
 * The secret is cut into five limbs of 52 bits (the last has 48); each limb is the constant term of
 * its own random polynomial of degree t - 1. Any t shares give the secret, t - 1 say nothing about
 * it. Arithmetic on secrets is constant time. A wrong share gives a wrong secret or an error, never
 * a warning: whoever combines checks the result against a commitment or a public key. */
#pragma once

#include "common/buf.h"
#include "common/err.h"
#include "common/rng.h"

#define DURE_SHAMIR_SECRET_BYTES 32
#define DURE_SHAMIR_LIMBS 5
#define DURE_SHAMIR_SHARES_MAX 1024 /* n and t */

/* The value of the five polynomials at `x` = member index + 1. Secret: the owner wipes it. */
typedef struct dure_share {
    uint32_t x;
    uint64_t y[DURE_SHAMIR_LIMBS]; /* each < p */
} dure_share;

/* Writes n shares for holders at the given x, distinct and from 1 to DURE_SHAMIR_SHARES_MAX:
 * shares[i].x = xs[i]. Any t of them combine; 1 <= t <= n <= DURE_SHAMIR_SHARES_MAX.
 * DURE_ERR_USAGE for an x, t or n out of range. Coefficients are drawn uniformly by rejection;
 * DURE_ERR_RNG when `rng` fails. `shares` is zeroed when the drawing fails. */
DURE_MUST_USE dure_err dure_shamir_share(dure_share *shares, const uint32_t *xs, size_t n, size_t t,
                                         const uint8_t secret[DURE_SHAMIR_SECRET_BYTES],
                                         const dure_rng *rng);

/* Recovers the secret from exactly t shares, in any order. DURE_ERR_USAGE for t out of range;
 * DURE_ERR_AUTH when an x is zero or comes twice, a y is not below p, or the limbs that come out
 * are too large, which shows that a share is wrong or t too small. `secret` is zeroed on error. */
DURE_MUST_USE dure_err dure_shamir_combine(uint8_t secret[DURE_SHAMIR_SECRET_BYTES],
                                           const dure_share *shares, size_t t);

/* The share's one encoding: x as u32, then the five y as u64, big-endian. decode() is
 * DURE_ERR_PROTO when x is zero or over the limit or a y is not below p. */
#define DURE_SHARE_BYTES (4 + 8 * DURE_SHAMIR_LIMBS)
void dure_share_encode(uint8_t out[DURE_SHARE_BYTES], const dure_share *share);
DURE_MUST_USE dure_err dure_share_decode(dure_share *out, const uint8_t in[DURE_SHARE_BYTES]);
