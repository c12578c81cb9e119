#include "dp/noise_exact.h"

#include <stdbool.h>
#include <string.h>

/* Uniform numbers are strings of 32-bit digits, drawn as they are needed. */
#define DIGITS_MAX 16
#define REJECTIONS_MAX 1024
#define WHOLE_MAX 64

typedef dure_noise_exact source;

static void refill(source *s)
{
    if (!s->err) s->err = dure_rng_fill(s->rng, s->block, sizeof s->block);
    if (s->err) memset(s->block, 0, sizeof s->block);
    s->at = 0;
}

static inline uint32_t next_digit(source *s)
{
    if (s->at == DURE_NOISE_DIGITS) refill(s);
    return s->block[s->at++];
}

/* A uniform number in (0, 1) of which the first n digits are known. */
typedef struct uniform {
    uint32_t digit[DIGITS_MAX];
    unsigned n;
} uniform;

static inline void uniform_start(uniform *u, source *s)
{
    u->digit[0] = next_digit(s);
    u->n = 1;
}

static bool less_beyond_first(uniform *a, uniform *b, source *s)
{
    for (unsigned i = 1; i < DIGITS_MAX; i++) {
        if (a->n == i) a->digit[a->n++] = next_digit(s);
        if (b->n == i) b->digit[b->n++] = next_digit(s);
        if (a->digit[i] != b->digit[i]) return a->digit[i] < b->digit[i];
    }
    s->err = DURE_ERR_RNG; /* 512 equal bits */
    return false;
}

/* a < b, drawing digits of both until they differ. */
static inline bool less(uniform *a, uniform *b, source *s)
{
    if (a->digit[0] != b->digit[0]) return a->digit[0] < b->digit[0];
    return less_beyond_first(a, b, s);
}

/* True with probability exp(-1/2): von Neumann's run 1/2 > u1 > u2 > ... has length n with
 * probability (1/2)^n / n! - (1/2)^(n+1) / (n+1)!, and the even n sum to exp(-1/2). */
static bool accept_half(source *s)
{
    uniform u[2];
    unsigned n = 0;
    uniform_start(&u[0], s);
    if (u[0].digit[0] >> 31) return true;
    do {
        n++;
        uniform_start(&u[n % 2], s);
    } while (less(&u[n % 2], &u[(n + 1) % 2], s));
    return n % 2 == 0;
}

/* True with probability exp(-x), by the run x > u1 > u2 > ... */
static bool accept_linear(uniform *x, source *s)
{
    uniform u[2];
    uniform *last = x;
    unsigned n = 0;
    for (;;) {
        uniform *next = &u[n % 2];
        uniform_start(next, s);
        if (!less(next, last, s)) return n % 2 == 0;
        last = next;
        n++;
    }
}

/* True with probability exp(-x^2 / 2): as above, where every link of the run must also pass a
 * trial of probability x / 2. */
static bool accept_square(uniform *x, source *s)
{
    uniform u[2], trial;
    uniform *last = x;
    unsigned n = 0;
    for (;;) {
        uniform *next = &u[n % 2];
        uniform_start(next, s);
        if (!less(next, last, s)) return n % 2 == 0;
        if (next_digit(s) >> 31) return n % 2 == 0;
        uniform_start(&trial, s);
        if (!less(&trial, x, s)) return n % 2 == 0;
        last = next;
        n++;
    }
}

/* Algorithm N up to the sign: k with probability proportional to exp(-k/2), kept with
 * exp(-k(k-1)/2) = (exp(-1/2))^(k(k-1)); then uniform x, kept with exp(-kx) exp(-x^2/2). */
static bool try_deviate(unsigned *k, uniform *x, source *s)
{
    unsigned whole = 0;
    while (accept_half(s)) {
        if (++whole == WHOLE_MAX) {
            s->err = DURE_ERR_RNG;
            return false;
        }
    }
    for (unsigned i = whole * (whole - (whole > 0)); i > 0; i--) {
        if (!accept_half(s)) return false;
    }
    uniform_start(x, s);
    for (unsigned i = 0; i < whole; i++) {
        if (!accept_linear(x, s)) return false;
    }
    *k = whole;
    return accept_square(x, s);
}

/* The nearest integer to num (k + x) / 2^shift. With one digit of x read (two for scales of 2^32
 * and over) the value lies in an interval [low, low + num) in units of 2^-bits, at most 1 wide; if
 * its ends round to different integers, further digits of x tell on which side of the boundary
 * between them it is. */
static uint64_t round_scaled(unsigned k, uniform *x, dure_noise_scale scale, source *s)
{
    typedef unsigned __int128 wide;
    wide position = ((uint64_t)k << 32) + x->digit[0];
    unsigned used = 1;
    if (scale.num >> scale.shift >> 32) {
        if (x->n == 1) x->digit[x->n++] = next_digit(s);
        position = (position << 32) + x->digit[used++];
    }
    unsigned bits = 32 * used + scale.shift;
    wide shifted = scale.num * position + ((wide)1 << (bits - 1));
    uint64_t down = (uint64_t)(shifted >> bits);
    uint64_t up = (uint64_t)((shifted + scale.num - 1) >> bits);
    if (down == up) return down;
    /* num f against the distance to the boundary, f being what is left of x. */
    wide distance = ((wide)up << bits) - shifted;
    for (unsigned i = used; i < DIGITS_MAX; i++) {
        if (x->n == i) x->digit[x->n++] = next_digit(s);
        distance <<= 32;
        wide product = (wide)scale.num * x->digit[i];
        if (product + scale.num <= distance) return down;
        if (product >= distance) return up;
        distance -= product;
    }
    s->err = DURE_ERR_RNG;
    return 0;
}

static int64_t draw(source *s)
{
    uniform x;
    unsigned k = 0, rejections = 0;
    while (!try_deviate(&k, &x, s)) {
        if (s->err || ++rejections == REJECTIONS_MAX) {
            s->err = DURE_ERR_RNG;
            return 0;
        }
    }
    uint64_t magnitude = round_scaled(k, &x, s->scale, s);
    return next_digit(s) >> 31 ? -(int64_t)magnitude : (int64_t)magnitude;
}

void dure_noise_exact_init(dure_noise_exact *exact, dure_noise_scale scale, const dure_rng *rng)
{
    *exact = (dure_noise_exact){.scale = scale, .rng = rng, .at = DURE_NOISE_DIGITS};
}

dure_err dure_noise_exact_draw(int64_t *out, size_t n, dure_noise_exact *exact)
{
    /* Callers look at the error once per deviate instead of once per digit. */
    for (size_t i = 0; i < n && !exact->err; i++)
        out[i] = draw(exact);
    return exact->err;
}
