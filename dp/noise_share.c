#include "dp/noise_share.h"

#include "dp/noise_digits.h"

#include <math.h>

#define REJECTIONS_MAX 1024
#define SCALES_MOST 64 /* of the proposal */

typedef unsigned __int128 wide;

/* ---- the plan's share ---- */

uint64_t dure_share_variance(const dure_dp_plan *plan)
{
    /* (sigma_num / 2^16)^2 4^grid_bits / h, rounded up: below 2^112 before the division. */
    wide square = (wide)plan->sigma_num * plan->sigma_num << 2 * plan->grid_bits;
    wide over = (wide)plan->honest << 32;
    if (over == 0) return 0;
    wide variance = (square + over - 1) / over;
    return variance > UINT64_MAX ? UINT64_MAX : (uint64_t)variance;
}

/* The least integer whose square is at least v < 2^62: the double is off by one at most. */
static uint64_t root_up(uint64_t v)
{
    uint64_t root = (uint64_t)sqrt((double)v);
    while (root > 0 && (root - 1) * (root - 1) >= v)
        root--;
    while (root * root < v)
        root++;
    return root;
}

uint64_t dure_share_reach(const dure_dp_plan *plan)
{
    uint64_t variance = dure_share_variance(plan);
    if (variance > DURE_SHARE_VARIANCE_MAX) return UINT64_MAX;
    return ((uint64_t)1 << plan->grid_bits) + DURE_SHARE_DEVIATIONS * root_up(variance);
}

double dure_share_delta(const dure_dp_plan *plan, double epsilon)
{
    const double deviations = DURE_SHARE_DEVIATIONS;
    if (plan->sigma_num == 0) return 0;
    return (1 + exp(epsilon)) * (double)plan->n_params * (double)plan->steps *
           (double)plan->honest * 2 * exp(-deviations * deviations / 2);
}

/* ---- the sampler ---- */

typedef dure_noise_digits source;

/* rest / den in [0, 1), den < 2^94. */
typedef struct fraction {
    wide rest, den;
} fraction;

/* u < x, digit by digit. */
static bool is_below(dure_uniform *u, fraction x, source *s)
{
    for (unsigned i = 0; i < DURE_UNIFORM_DIGITS_MAX; i++) {
        wide shifted = x.rest << 32;
        uint32_t of_x = (uint32_t)(shifted / x.den), of_u = dure_uniform_digit(u, i, s);
        if (of_u != of_x) return of_u < of_x;
        x.rest = shifted % x.den;
    }
    s->err = DURE_ERR_RNG;
    return false;
}

/* u1 = u[0] is below the run's start x. The run x > u1 > u2 > ... has length n with probability
 * x^n / n! - x^(n+1) / (n+1)!, and the even n sum to exp(-x). */
static bool run_is_even(dure_uniform u[2], source *s)
{
    for (unsigned n = 1;; n++) {
        dure_uniform_start(&u[n % 2], s);
        if (!dure_uniform_less(&u[n % 2], &u[(n + 1) % 2], s)) return n % 2 == 0;
    }
}

/* True with probability exp(-x). */
static bool accept(fraction x, source *s)
{
    dure_uniform u[2];
    dure_uniform_start(&u[0], s);
    return !is_below(&u[0], x, s) || run_is_even(u, s);
}

/* True with probability exp(-1). */
static bool accept_one(source *s)
{
    dure_uniform u[2];
    dure_uniform_start(&u[0], s);
    return run_is_even(u, s);
}

/* Uniform below t <= 2^23 + 1. */
static uint32_t below(uint32_t t, source *s)
{
    const uint32_t mask = (UINT32_C(1) << 24) - 1;
    uint32_t unused = mask - (mask + 1) % t, u; /* the last of the whole multiples of t */
    do
        u = dure_noise_digit(s) & mask;
    while (u > unused && !s->err);
    return u % t;
}

/* A magnitude with probability proportional to exp(-m / t); false: draw again. */
static bool propose(uint64_t *m, uint32_t t, source *s)
{
    uint64_t whole = 0;
    uint32_t part = below(t, s);
    if (!accept((fraction){part, t}, s)) return false;
    while (accept_one(s))
        if (++whole == SCALES_MOST) return false;
    *m = part + whole * t;
    return true;
}

/* True with probability exp(-(m - V/t)^2 / 2 V) = exp(-(m t - V)^2 / 2 V t^2). */
static bool keep(uint64_t m, uint64_t variance, uint32_t t, source *s)
{
    uint64_t product = m * t;
    uint64_t gap = product > variance ? product - variance : variance - product;
    wide num = (wide)gap * gap, den = (wide)2 * variance * t * t;
    for (wide whole = num / den; whole > 0; whole--)
        if (!accept_one(s)) return false;
    return accept((fraction){num % den, den}, s);
}

static int32_t draw(uint64_t variance, uint32_t t, source *s)
{
    for (unsigned i = 0; i < REJECTIONS_MAX && !s->err; i++) {
        uint64_t m = 0;
        if (!propose(&m, t, s)) continue;
        bool negative = dure_noise_digit(s) >> 31;
        if (negative && m == 0) continue; /* zero has one sign */
        if (keep(m, variance, t, s)) return negative ? -(int32_t)m : (int32_t)m;
    }
    s->err = DURE_ERR_RNG;
    return 0;
}

dure_err dure_share_fill(int32_t *out, size_t n, uint64_t variance, const dure_rng *rng)
{
    source s;
    memset(out, 0, n * sizeof *out);
    if (variance < DURE_SHARE_VARIANCE_MIN || variance > DURE_SHARE_VARIANCE_MAX)
        return DURE_ERR_USAGE;
    uint64_t root = root_up(variance);
    uint32_t t = (uint32_t)(root * root > variance ? root : root + 1); /* floor(root) + 1 */
    dure_noise_digits_init(&s, rng);
    for (size_t i = 0; i < n && !s.err; i++)
        out[i] = draw(variance, t, &s);
    dure_err err = s.err;
    if (err) memset(out, 0, n * sizeof *out);
    explicit_bzero(&s, sizeof s);
    return err;
}
