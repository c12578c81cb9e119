#include "dp/noise_exact.h"

#include <stdbool.h>

#define REJECTIONS_MAX 1024
#define WHOLE_MAX 64

typedef dure_noise_digits source;
typedef dure_uniform uniform;

/* True with probability exp(-1/2): von Neumann's run 1/2 > u1 > u2 > ... has length n with
 * probability (1/2)^n / n! - (1/2)^(n+1) / (n+1)!, and the even n sum to exp(-1/2). */
static bool accept_half(source *s)
{
    uniform u[2];
    unsigned n = 0;
    dure_uniform_start(&u[0], s);
    if (u[0].digit[0] >> 31) return true;
    do {
        n++;
        dure_uniform_start(&u[n % 2], s);
    } while (dure_uniform_less(&u[n % 2], &u[(n + 1) % 2], s));
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
        dure_uniform_start(next, s);
        if (!dure_uniform_less(next, last, s)) return n % 2 == 0;
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
        dure_uniform_start(next, s);
        if (!dure_uniform_less(next, last, s)) return n % 2 == 0;
        if (dure_noise_digit(s) >> 31) return n % 2 == 0;
        dure_uniform_start(&trial, s);
        if (!dure_uniform_less(&trial, x, s)) return n % 2 == 0;
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
    dure_uniform_start(x, s);
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
        if (x->n == 1) x->digit[x->n++] = dure_noise_digit(s);
        position = (position << 32) + x->digit[used++];
    }
    unsigned bits = 32 * used + scale.shift;
    wide shifted = scale.num * position + ((wide)1 << (bits - 1));
    uint64_t down = (uint64_t)(shifted >> bits);
    uint64_t up = (uint64_t)((shifted + scale.num - 1) >> bits);
    if (down == up) return down;
    /* num f against the distance to the boundary, f being what is left of x. */
    wide distance = ((wide)up << bits) - shifted;
    for (unsigned i = used; i < DURE_UNIFORM_DIGITS_MAX; i++) {
        if (x->n == i) x->digit[x->n++] = dure_noise_digit(s);
        distance <<= 32;
        wide product = (wide)scale.num * x->digit[i];
        if (product + scale.num <= distance) return down;
        if (product >= distance) return up;
        distance -= product;
    }
    s->err = DURE_ERR_RNG;
    return 0;
}

static int64_t draw(source *s, dure_noise_scale scale)
{
    uniform x;
    unsigned k = 0, rejections = 0;
    while (!try_deviate(&k, &x, s)) {
        if (s->err || ++rejections == REJECTIONS_MAX) {
            s->err = DURE_ERR_RNG;
            return 0;
        }
    }
    uint64_t magnitude = round_scaled(k, &x, scale, s);
    return dure_noise_digit(s) >> 31 ? -(int64_t)magnitude : (int64_t)magnitude;
}

void dure_noise_exact_init(dure_noise_exact *exact, dure_noise_scale scale, const dure_rng *rng)
{
    exact->scale = scale;
    dure_noise_digits_init(&exact->digits, rng);
}

dure_err dure_noise_exact_draw(int64_t *out, size_t n, dure_noise_exact *exact)
{
    /* Callers look at the error once per deviate instead of once per digit. */
    for (size_t i = 0; i < n && !exact->digits.err; i++)
        out[i] = draw(&exact->digits, exact->scale);
    return exact->digits.err;
}
