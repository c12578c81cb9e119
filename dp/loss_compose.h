/* Composition of steps by FFT, and the epsilon or delta that comes of it. Part of
 * dp/accountant_pld.h, which has the bounds.
 *
 * Who calls it chooses an order, a second order above it, a window's low end and the grid; every
 * choice gives an upper bound, a good one a tight bound. */
#pragma once

#include "common/err.h"
#include "dp/fft.h"
#include "dp/loss_grid.h"

#include <stdbool.h>

#define DURE_LOSS_SIDES 2 /* the index is a dure_loss_side */

typedef struct dure_loss_event {
    double rate, sigma;
    double steps; /* a whole number, 1 at least */
} dure_loss_event;

/* One direction. */
typedef struct dure_loss_track {
    dure_loss_profile *profiles; /* in: one an event; they are tilted here */
    double order, order_above;   /* in: lambda, lambda + theta */
    double low;                  /* in: the window's low end; rounded down to the grid */
    double widest;               /* in: of the grid; see dure_loss_tilt */
    /* Over all events and steps, of the masses on the grid: */
    double log_moment, log_moment_above, infinite;
    double error; /* E */
} dure_loss_track;

typedef struct dure_loss_composition {
    const dure_loss_event *events; /* in, borrowed */
    size_t n_events;
    double spacing;                          /* in */
    dure_loss_track tracks[DURE_LOSS_SIDES]; /* in; the profiles are borrowed */
    dure_fft fft;
    double *re, *im; /* fft.n each: the composed masses of both directions, one allocation */
    double *product[DURE_LOSS_SIDES][2], *product_error[DURE_LOSS_SIDES]; /* n/2 + 1 each, in it */
} dure_loss_composition;

/* Composes on n points, a power of two. DURE_ERR_NOMEM. dure_loss_composition_fini() in any case.
 */
DURE_MUST_USE dure_err dure_loss_compose(dure_loss_composition *c, size_t n);
void dure_loss_composition_fini(dure_loss_composition *c); /* fine for {0} */

/* An upper bound on one direction's (epsilon, delta). */
typedef struct dure_loss_bound {
    double epsilon, delta;
    double slope; /* -d log delta / d epsilon there */
    bool at_end;  /* epsilon lies below the window, whose low end is the bound */
} dure_loss_bound;
/* epsilon >= 0 at delta; infinite if the window lies below it. */
dure_loss_bound dure_loss_read_epsilon(const dure_loss_composition *c, dure_loss_side side,
                                       double delta);
/* delta, at an epsilon at or above the window's low end. */
dure_loss_bound dure_loss_read_delta(const dure_loss_composition *c, dure_loss_side side,
                                     double epsilon);

/* log of the largest (1 - e^-t) e^(-order t) over t > 0. */
double dure_loss_log_peak(double order);
