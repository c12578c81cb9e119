/* Shamir, "How to share a secret" (1979), over the Mersenne prime 2^61 - 1: reduction is a shift
 * and an add, and a product fits 128 bits. Values x, the number of shares and the Lagrange
 * coefficients are public; limbs, coefficients of the polynomials and shares are not, and no branch
 * or index depends on them (the rejection of a drawn coefficient depends only on a value that is
 * thrown away). */
#include "crypto/shamir.h"

#include "crypto/wipe.h"

#include <assert.h>
#include <stdbool.h>

__extension__ typedef unsigned __int128 wide;

#define P ((UINT64_C(1) << 61) - 1)
#define LIMB_MASK ((UINT64_C(1) << 52) - 1)
#define LAST_LIMB_MASK ((UINT64_C(1) << 48) - 1)
static_assert(52 * (DURE_SHAMIR_LIMBS - 1) + 48 == 8 * DURE_SHAMIR_SECRET_BYTES,
              "the limbs hold the secret exactly");

/* x mod p for x < 2^62, without a branch. */
static uint64_t reduce(uint64_t x)
{
    uint64_t less = x - P;
    uint64_t borrow = 0 - (less >> 63); /* all ones where x < p */
    return (x & borrow) | (less & ~borrow);
}

static uint64_t add(uint64_t a, uint64_t b)
{
    return reduce(a + b);
}

static uint64_t sub(uint64_t a, uint64_t b)
{
    return reduce(a + P - b);
}

static uint64_t mul(uint64_t a, uint64_t b)
{
    wide product = (wide)a * b;
    return reduce(((uint64_t)product & P) + (uint64_t)(product >> 61));
}

/* a^(p - 2) = 1 / a, for public a that is not zero. */
static uint64_t invert(uint64_t a)
{
    uint64_t result = 1;
    for (unsigned bit = 61; bit-- > 0;) {
        result = mul(result, result);
        if ((P - 2) >> bit & 1) result = mul(result, a);
    }
    return result;
}

static void split(uint64_t limbs[DURE_SHAMIR_LIMBS], const uint8_t secret[DURE_SHAMIR_SECRET_BYTES])
{
    uint64_t w[4] = {0};
    for (size_t i = 0; i < DURE_SHAMIR_SECRET_BYTES; i++)
        w[i / 8] |= (uint64_t)secret[i] << (8 * (i % 8));
    limbs[0] = w[0] & LIMB_MASK;
    limbs[1] = (w[0] >> 52 | w[1] << 12) & LIMB_MASK;
    limbs[2] = (w[1] >> 40 | w[2] << 24) & LIMB_MASK;
    limbs[3] = (w[2] >> 28 | w[3] << 36) & LIMB_MASK;
    limbs[4] = w[3] >> 16;
    dure_wipe(w, sizeof w);
}

/* False when a limb has more bits than a secret's limb can have. */
static bool join(uint8_t secret[DURE_SHAMIR_SECRET_BYTES], const uint64_t limbs[DURE_SHAMIR_LIMBS])
{
    uint64_t over = limbs[4] & ~LAST_LIMB_MASK;
    for (size_t i = 0; i < DURE_SHAMIR_LIMBS - 1; i++)
        over |= limbs[i] & ~LIMB_MASK;
    uint64_t w[4] = {limbs[0] | limbs[1] << 52, limbs[1] >> 12 | limbs[2] << 40,
                     limbs[2] >> 24 | limbs[3] << 28, limbs[3] >> 36 | limbs[4] << 16};
    for (size_t i = 0; i < DURE_SHAMIR_SECRET_BYTES; i++)
        secret[i] = (uint8_t)(w[i / 8] >> (8 * (i % 8)));
    dure_wipe(w, sizeof w);
    return over == 0;
}

/* `n` uniform field elements: 61 random bits each, drawn again in the one case in 2^61 that they
 * are p itself. */
static dure_err draw(uint64_t *out, size_t n, const dure_rng *rng)
{
    dure_err err = dure_rng_fill(rng, out, n * sizeof *out);
    for (size_t i = 0; !err && i < n; i++) {
        out[i] &= P;
        while (!err && out[i] == P) {
            err = dure_rng_fill(rng, &out[i], sizeof *out);
            out[i] &= P;
        }
    }
    return err;
}

dure_err dure_shamir_share(dure_share *shares, const uint32_t *xs, size_t n, size_t t,
                           const uint8_t secret[DURE_SHAMIR_SECRET_BYTES], const dure_rng *rng)
{
    if (t < 1 || t > n || n > DURE_SHAMIR_SHARES_MAX) return DURE_ERR_USAGE;
    for (size_t i = 0; i < n; i++) {
        if (xs[i] < 1 || xs[i] > DURE_SHAMIR_SHARES_MAX) return DURE_ERR_USAGE;
    }
    uint64_t coefficients[DURE_SHAMIR_SHARES_MAX]; /* coefficients[0] is the secret's limb */
    uint64_t limbs[DURE_SHAMIR_LIMBS];
    dure_err err = DURE_OK;
    split(limbs, secret);
    for (size_t l = 0; !err && l < DURE_SHAMIR_LIMBS; l++) {
        coefficients[0] = limbs[l];
        err = draw(coefficients + 1, t - 1, rng);
        for (size_t i = 0; !err && i < n; i++) {
            uint64_t y = 0, x = xs[i];
            for (size_t k = t; k-- > 0;)
                y = add(mul(y, x), coefficients[k]);
            shares[i].x = (uint32_t)x;
            shares[i].y[l] = y;
        }
    }
    dure_wipe(coefficients, t * sizeof *coefficients);
    dure_wipe(limbs, sizeof limbs);
    if (err) dure_wipe(shares, n * sizeof *shares);
    return err;
}

static bool share_is_valid(const dure_share *share)
{
    if (share->x == 0 || share->x > DURE_SHAMIR_SHARES_MAX) return false;
    for (size_t l = 0; l < DURE_SHAMIR_LIMBS; l++) {
        if (share->y[l] >= P) return false;
    }
    return true;
}

/* The Lagrange coefficient at 0 of share i: product over j of x_j / (x_j - x_i). False when an x
 * comes twice. */
static bool lagrange(uint64_t *out, const dure_share *shares, size_t t, size_t i)
{
    uint64_t above = 1, below = 1;
    for (size_t j = 0; j < t; j++) {
        if (j == i) continue;
        if (shares[j].x == shares[i].x) return false;
        above = mul(above, shares[j].x);
        below = mul(below, sub(shares[j].x, shares[i].x));
    }
    *out = mul(above, invert(below));
    return true;
}

dure_err dure_shamir_combine(uint8_t secret[DURE_SHAMIR_SECRET_BYTES], const dure_share *shares,
                             size_t t)
{
    uint64_t limbs[DURE_SHAMIR_LIMBS] = {0};
    dure_err err = DURE_OK;
    if (t < 1 || t > DURE_SHAMIR_SHARES_MAX) err = DURE_ERR_USAGE;
    for (size_t i = 0; !err && i < t; i++) {
        if (!share_is_valid(&shares[i])) err = DURE_ERR_AUTH;
    }
    for (size_t i = 0; !err && i < t; i++) {
        uint64_t weight = 0;
        if (!lagrange(&weight, shares, t, i)) err = DURE_ERR_AUTH;
        for (size_t l = 0; !err && l < DURE_SHAMIR_LIMBS; l++)
            limbs[l] = add(limbs[l], mul(weight, shares[i].y[l]));
    }
    if (!err && !join(secret, limbs)) err = DURE_ERR_AUTH;
    if (err) dure_wipe(secret, DURE_SHAMIR_SECRET_BYTES);
    dure_wipe(limbs, sizeof limbs);
    return err;
}

/* Big-endian, `n` bytes. */
static void store(uint8_t *out, uint64_t value, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (uint8_t)(value >> (8 * (n - 1 - i)));
}

static uint64_t load(const uint8_t *in, size_t n)
{
    uint64_t value = 0;
    for (size_t i = 0; i < n; i++)
        value = value << 8 | in[i];
    return value;
}

void dure_share_encode(uint8_t out[DURE_SHARE_BYTES], const dure_share *share)
{
    store(out, share->x, 4);
    for (size_t l = 0; l < DURE_SHAMIR_LIMBS; l++)
        store(out + 4 + 8 * l, share->y[l], 8);
}

dure_err dure_share_decode(dure_share *out, const uint8_t in[DURE_SHARE_BYTES])
{
    out->x = (uint32_t)load(in, 4);
    for (size_t l = 0; l < DURE_SHAMIR_LIMBS; l++)
        out->y[l] = load(in + 4 + 8 * l, 8);
    if (!share_is_valid(out)) {
        dure_wipe(out, sizeof *out);
        return DURE_ERR_PROTO;
    }
    return DURE_OK;
}
