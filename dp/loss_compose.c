#include "dp/loss_compose.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ROUND_OFF 0x1p-53
#define LOG_NEGLIGIBLE (-90.0)
#define STRIDE 64

typedef dure_loss_composition composition;
typedef dure_loss_track track;

double dure_loss_log_peak(double order)
{
    return order * log(order / (order + 1)) - log1p(order);
}

/* ---- Composition ---- */

/* One allocation for everything of the grid's size; products begin at 1. */
static dure_err make_room(composition *c, size_t n)
{
    dure_err err = dure_fft_init(&c->fft, n);
    if (err) return err;
    size_t half = n / 2 + 1;
    double *at = calloc(2 * n + 3 * DURE_LOSS_SIDES * half, sizeof *at);
    if (!at) return DURE_ERR_NOMEM;
    c->re = at;
    c->im = at + n;
    at += 2 * n;
    for (int s = 0; s < DURE_LOSS_SIDES; s++) {
        c->product[s][0] = at;
        c->product[s][1] = at + half;
        c->product_error[s] = at + 2 * half;
        for (size_t k = 0; k < half; k++)
            at[k] = 1;
        at += 3 * half;
    }
    return DURE_OK;
}

void dure_loss_composition_fini(dure_loss_composition *c)
{
    free(c->re);
    dure_fft_fini(&c->fft);
    c->re = c->im = NULL;
}

/* z^n by squaring. */
static void power(double *re, double *im, double n)
{
    double br = *re, bi = *im, pr = 1, pi = 0;
    for (uint64_t k = (uint64_t)n; k; k >>= 1) {
        double r;
        if (k & 1) {
            r = pr * br - pi * bi;
            pi = pr * bi + pi * br;
            pr = r;
        }
        r = br * br - bi * bi;
        bi = 2 * br * bi;
        br = r;
    }
    *re = pr;
    *im = pi;
}

/* How often a factor enters, and how far off each of its values may be. */
typedef struct factor {
    double steps, error;
    /* Below this square of the modulus (with the error) the power is below e^-90 and is dropped,
     * which is most of them and keeps denormals away; what it may have been is `dropped`. */
    double square_least, dropped;
} factor;

static factor factor_of(double steps, double error)
{
    double least = exp(LOG_NEGLIGIBLE / steps);
    return (factor){.steps = steps,
                    .error = error,
                    .square_least = least * least,
                    .dropped = steps * error * pow(least, steps - 1) + exp(LOG_NEGLIGIBLE)};
}

/* Multiplies product k of a side by (re + i im)^steps. */
static void multiply(composition *c, int s, size_t k, double re, double im, const factor *f)
{
    double *product_re = &c->product[s][0][k], *product_im = &c->product[s][1][k];
    double *product_error = &c->product_error[s][k];
    double before = fabs(*product_re) + fabs(*product_im), square = re * re + im * im;
    double value = 0, off = f->dropped;
    if (before == 0 && *product_error == 0) return;
    if (square + 3 * f->error < f->square_least) {
        re = im = 0;
    } else {
        double log_size = 0.5 * log(square);
        double log_near = log_size + f->error * exp(-log_size); /* at least that of |c| + e */
        power(&re, &im, f->steps);
        value = exp(f->steps * log_size);
        off = f->steps * (f->error * exp((f->steps - 1) * log_near) + 3 * ROUND_OFF * value);
    }
    *product_error = *product_error * (value + off) + before * (off + 3 * ROUND_OFF * value);
    double r = *product_re * re - *product_im * im;
    *product_im = *product_re * im + *product_im * re;
    *product_re = r;
}

/* Puts one step's tilted masses, scaled, into `cells`; returns their sum, in [1/2, 1). */
static double fill_side(composition *c, int s, size_t i, double *cells)
{
    track *t = &c->tracks[s];
    dure_loss_profile *p = &t->profiles[i];
    double steps = c->events[i].steps;
    const dure_loss_tilt tilt = {.spacing = c->spacing,
                                 .order = t->order,
                                 .order_above = t->order_above,
                                 .widest = t->widest,
                                 .log_scale = dure_loss_log_moment(p, t->order),
                                 .log_scale_above = dure_loss_log_moment(p, t->order_above)};
    dure_loss_profile_tilt(p, t->order);
    memset(cells, 0, c->fft.n * sizeof *cells);
    dure_loss_sums sums = dure_loss_grid_fill(cells, c->fft.n, p, &tilt);
    t->log_moment += steps * (tilt.log_scale + log(sums.mass));
    t->log_moment_above += steps * (tilt.log_scale_above + log(sums.mass_above));
    t->infinite += steps * sums.infinite;
    /* A mass far from 1, where the order is steep for the grid, would be the larger part of what
     * both directions' transform errs by. A power of two scales without rounding. */
    int power = 0;
    double mass = frexp(sums.mass, &power);
    for (size_t j = 0; power != 0 && j < c->fft.n; j++)
        cells[j] = ldexp(cells[j], -power);
    return mass;
}

static void compose_event(composition *c, size_t i)
{
    size_t n = c->fft.n;
    double steps = c->events[i].steps;
    double mass[DURE_LOSS_SIDES] = {fill_side(c, 0, i, c->re), fill_side(c, 1, i, c->im)};
    dure_fft_forward(&c->fft, c->re, c->im);
    double error = dure_fft_error(&c->fft) * (mass[0] + mass[1]);
    factor factors[DURE_LOSS_SIDES];
    for (int s = 0; s < DURE_LOSS_SIDES; s++)
        factors[s] = factor_of(steps, error / mass[s] + 4 * ROUND_OFF);
    for (size_t k = 0; k <= n / 2; k++) {
        /* The transforms of the real and of the imaginary part. */
        size_t mirror = (n - k) & (n - 1);
        double ar = c->re[k], ai = c->im[k], br = c->re[mirror], bi = c->im[mirror];
        for (int s = 0; s < DURE_LOSS_SIDES; s++) {
            double re = 0.5 * (s == 0 ? ar + br : ai + bi) / mass[s];
            double im = 0.5 * (s == 0 ? ai - bi : br - ar) / mass[s];
            multiply(c, s, k, re, im, &factors[s]);
        }
    }
}

/* Both products as one transform, and what it takes to bound their errors: the square of its
 * length, and the sum of the squared errors of each. */
static void join(composition *c, double *length, double *squares)
{
    size_t n = c->fft.n, half = n / 2;
    *length = 0;
    for (size_t k = 0; k <= half; k++) {
        double times = k == 0 || k == half ? 1 : 2;
        double ar = c->product[0][0][k], ai = c->product[0][1][k];
        double br = c->product[1][0][k], bi = c->product[1][1][k];
        size_t mirror = (n - k) & (n - 1);
        c->re[mirror] = ar + bi;
        c->im[mirror] = br - ai;
        c->re[k] = ar - bi;
        c->im[k] = ai + br;
        *length += times * (ar * ar + ai * ai + br * br + bi * bi);
        for (int s = 0; s < DURE_LOSS_SIDES; s++)
            squares[s] += times * c->product_error[s][k] * c->product_error[s][k];
    }
}

dure_err dure_loss_compose(dure_loss_composition *c, size_t n)
{
    double length, squares[DURE_LOSS_SIDES] = {0};
    dure_err err = make_room(c, n);
    if (err) return err;
    for (int s = 0; s < DURE_LOSS_SIDES; s++) {
        track *t = &c->tracks[s];
        t->low = floor(t->low / c->spacing) * c->spacing;
        t->log_moment = t->log_moment_above = t->infinite = 0;
    }
    for (size_t i = 0; i < c->n_events; i++)
        compose_event(c, i);
    join(c, &length, squares);
    dure_fft_backward(&c->fft, c->re, c->im);
    for (int s = 0; s < DURE_LOSS_SIDES; s++) {
        track *t = &c->tracks[s];
        double end = t->low + (double)(n - 1) * c->spacing; /* the last point, to be safe */
        double tail = exp(t->log_moment_above - t->log_moment - (t->order_above - t->order) * end);
        /* A vector of n is at most sqrt(n) times its length in all, and the inverse is n times. */
        double back = dure_fft_error_norm(&c->fft) * sqrt(length);
        t->error = fmin(tail, 1) + sqrt(squares[s]) + back;
    }
    return DURE_OK;
}

/* ---- Reading the result ---- */

/* Going down from the window's end: what lies above the point `at`. */
typedef struct sweep {
    double mass;  /* of the composition, above */
    double delta; /* sum of (1 - e^(loss(at) - loss)) mass */
    int64_t at;
} sweep;

typedef struct reading {
    const composition *c;
    const track *t;
    const double *masses;
    double log_error; /* of E max (1 - e^-t) e^(-lambda t) */
    double slack;
    double step_kept, step_gained; /* e^-spacing, 1 - e^-spacing */
    int64_t first;                 /* point at the window's low end */
} reading;

static reading read_side(const composition *c, dure_loss_side s)
{
    double steps = 0;
    for (size_t i = 0; i < c->n_events; i++)
        steps += c->events[i].steps;
    const track *t = &c->tracks[s];
    return (reading){.c = c,
                     .t = t,
                     .masses = s == DURE_LOSS_REMOVE ? c->re : c->im,
                     .log_error = log(t->error) + dure_loss_log_peak(t->order),
                     .slack = 1 + 4e-13 * steps + 1e-10,
                     .step_kept = exp(-c->spacing),
                     .step_gained = -expm1(-c->spacing),
                     .first = (int64_t)llround(t->low / c->spacing)};
}

static double loss_at(const reading *r, int64_t at)
{
    return (double)at * r->c->spacing;
}

/* The upper bound on delta `gap` below the point of the sweep (no mass lies in between). */
static double bound(const reading *r, const sweep *w, double gap)
{
    double epsilon = loss_at(r, w->at) - gap;
    double below = w->delta * exp(-gap) - expm1(-gap) * w->mass;
    double error = exp(r->t->log_moment - r->t->order * epsilon + r->log_error);
    return fmin(1, (below + error) * r->slack + r->t->infinite);
}

static sweep sweep_start(const reading *r)
{
    return (sweep){.at = r->first + (int64_t)r->c->fft.n};
}

/* One point down; the mass at the new point counts from there on. */
static void sweep_down(const reading *r, sweep *w)
{
    const composition *c = r->c;
    w->delta = w->delta * r->step_kept + r->step_gained * w->mass;
    w->at--;
    /* The backward transform is n times too large; below 0 is round-off. */
    double mass = r->masses[(uint64_t)w->at & (c->fft.n - 1)] / (double)c->fft.n;
    if (mass > 0) w->mass += mass * exp(r->t->log_moment - r->t->order * loss_at(r, w->at));
}

static dure_loss_bound bound_at(const reading *r, const sweep *w, double gap)
{
    double below = w->delta * exp(-gap) - expm1(-gap) * w->mass;
    return (dure_loss_bound){.epsilon = fmax(loss_at(r, w->at) - gap, 0),
                             .delta = bound(r, w, gap),
                             .slope = below > 0 ? w->mass / below - 1 : r->t->order};
}

dure_loss_bound dure_loss_read_delta(const dure_loss_composition *c, dure_loss_side side,
                                     double epsilon)
{
    reading r = read_side(c, side);
    sweep w = sweep_start(&r);
    while (w.at > r.first && loss_at(&r, w.at - 1) >= epsilon)
        sweep_down(&r, &w);
    return bound_at(&r, &w, fmax(loss_at(&r, w.at) - epsilon, 0));
}

dure_loss_bound dure_loss_read_epsilon(const dure_loss_composition *c, dure_loss_side side,
                                       double delta)
{
    reading r = read_side(c, side);
    sweep w = sweep_start(&r);
    if (bound(&r, &w, 0) > delta)
        return (dure_loss_bound){.epsilon = INFINITY, .delta = delta, .slope = r.t->order};
    /* The bound grows downwards: in strides first, then point by point from the last that fits. */
    for (sweep ahead = w; bound(&r, &ahead, 0) <= delta && ahead.at - STRIDE > r.first;) {
        w = ahead;
        for (int i = 0; i < STRIDE; i++)
            sweep_down(&r, &ahead);
    }
    while (w.at > 0 && bound(&r, &w, c->spacing) <= delta) {
        if (w.at - 1 <= r.first) {
            dure_loss_bound end = bound_at(&r, &w, c->spacing);
            end.at_end = true;
            return end;
        }
        sweep_down(&r, &w);
    }
    if (w.at <= 0) return bound_at(&r, &w, 0);
    double fits = 0, over = c->spacing;
    for (int i = 0; i < 60; i++) {
        double middle = 0.5 * (fits + over);
        if (bound(&r, &w, middle) <= delta)
            fits = middle;
        else
            over = middle;
    }
    return bound_at(&r, &w, fits);
}
