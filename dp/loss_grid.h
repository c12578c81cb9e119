/* One step's privacy loss on a grid: connect the dots, tilted. Part of dp/accountant_pld.c.
 *
 * With outputs x, phi_0 the density of N(0, sigma^2) and phi_1 that of N(1, sigma^2), removing a
 * record compares P = (1-q) phi_0 + q phi_1 with Q = phi_0, adding one the other way round. The
 * loss is log P/Q, and the step's curve delta(epsilon) is sum over P of (1 - e^(epsilon - loss))+.
 *
 * Connect the dots (Doroshenko, Ghazi, Kamath, Kumar, Manurangsi, arXiv 2207.04380): the mass of
 * P whose loss lies between two neighbouring points of the grid is moved onto the two so that the
 * masses of P and of Q both stay. The curve is then exact at the points and the chord between
 * them, so it is never below the true one (which is convex in e^epsilon), and this survives
 * composition. Any points do: where little mass is, they lie further apart.
 *
 * The masses are weighted by e^(lambda loss): sums of steps are then taken where the composed tail
 * that decides epsilon is, and round-off is relative to that tail instead of to 1. */
#pragma once

#include <stddef.h>
#include <stdint.h>

typedef enum dure_loss_side { DURE_LOSS_REMOVE, DURE_LOSS_ADD } dure_loss_side;

#define DURE_LOSS_NODES 2048

/* The loss at evenly spaced outputs, with the mass of P around each. What is computed of it is good
 * to many digits but bounds nothing: it chooses lambda, the grid and the window. */
typedef struct dure_loss_profile {
    double rate, sigma;
    dure_loss_side side;
    double x_low, x_high; /* reach standard deviations beyond both means */
    size_t n;
    double distance; /* of the outputs: x_low + i distance */
    double loss[DURE_LOSS_NODES], log_mass[DURE_LOSS_NODES];
    double tail[DURE_LOSS_NODES]; /* see dure_loss_profile_tilt() */
    double x_middle;              /* half of the tilted mass lies on either side */
} dure_loss_profile;

/* 0 < rate <= 1, sigma > 0, reach > 0. */
void dure_loss_profile_init(dure_loss_profile *profile, double rate, double sigma,
                            dure_loss_side side, double reach);
/* log E_P e^(order loss). */
double dure_loss_log_moment(const dure_loss_profile *profile, double order);
/* The variance of the loss under the weights e^(order loss). */
double dure_loss_variance(const dure_loss_profile *profile, double order);
/* The largest loss within reach. */
double dure_loss_most(const dure_loss_profile *profile);
/* Fills tail[i]: the smaller of the tilted masses on either side of output i. */
void dure_loss_profile_tilt(dure_loss_profile *profile, double order);

typedef struct dure_loss_tilt {
    double spacing;     /* of the grid */
    double order;       /* lambda */
    double log_scale;   /* masses are multiplied by e^(lambda loss - log_scale) */
    double order_above; /* a second, larger order, and its scale, for the bound on the tail */
    double log_scale_above;
    double widest; /* the most that two points may lie apart, as a loss; at least the spacing */
} dure_loss_tilt;

/* What dure_loss_grid_fill() put on the grid. */
typedef struct dure_loss_sums {
    double mass;       /* of the tilted cells */
    double mass_above; /* the same at order_above */
    double infinite;   /* of P, untilted, beyond reach: counted as lost altogether */
} dure_loss_sums;

/* cells[i mod n] += tilted mass at loss i spacing, n a power of two. The masses are those of
 * connect the dots, rounded towards the larger loss by more than the arithmetic's error (at most
 * 2^-41 of a mass times the distance over which it is split, see accountant_pld.h). The profile has
 * been tilted at this order. */
dure_loss_sums dure_loss_grid_fill(double *cells, size_t n, const dure_loss_profile *profile,
                                   const dure_loss_tilt *tilt);
