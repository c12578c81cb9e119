/* Complex discrete Fourier transform of a power of two of points, in double.
 *
 * X_k = sum_j x_j exp(-2 pi i j k / n). The Stockham form with radix 4 (and one radix-2 stage if
 * log2 n is odd): no bit reversal, the result in order.
 *
 * Round-off, in the norms that the accountant needs (u = 2^-53). A value after a stage is a sum of
 * the disjoint group of inputs that lead to it, each times a number of modulus 1, and the next
 * stage adds up disjoint groups. A stage errs by two complex additions (2 u of the sum of the
 * moduli that enter), one product (sqrt(5) u: Brent, Percival, Zimmermann 2007) and a twiddle
 * factor whose parts are within 1 ulp (2 sqrt(2) u), so by less than 8 u times the moduli of its
 * group, and what earlier stages erred by is carried on with modulus 1. Hence for every k
 *
 *     |computed X_k - X_k| <= ((1 + 8 u)^stages - 1) sum_j |x_j|,    stages = ceil(log4 n).
 *
 * In the Euclidean norm, a stage of radix r lengthens a vector by sqrt(r) exactly, and the vector
 * of the sums of the groups' moduli, by which it errs 8 u-fold, is at most r times as long as the
 * vector that enters: a relative error of 8 sqrt(r) u, at most 16 u. Hence
 *
 *     ||computed X - X|| <= ((1 + 16 u)^stages - 1) sqrt(n) ||x||.
 *
 * A test holds the transform to these bounds. */
#pragma once

#include "common/err.h"

#include <stddef.h>

typedef struct dure_fft {
    size_t n;       /* a power of two, 2 at least */
    double *cosine; /* n: cos(2 pi j / n), then as many sines; one allocation */
    const double *sine;
    double *work[2]; /* n each */
} dure_fft;

/* DURE_ERR_USAGE unless n is a power of two of at least 2. On failure *fft is {0}. */
DURE_MUST_USE dure_err dure_fft_init(dure_fft *fft, size_t n);
void dure_fft_fini(dure_fft *fft); /* fine for {0} */

/* Transforms re + i im (n each) in place. The inverse is n times too large, and the same as the
 * transform with re and im exchanged. One thread at a time on one object. */
void dure_fft_forward(const dure_fft *fft, double *re, double *im);
void dure_fft_backward(const dure_fft *fft, double *re, double *im);

/* The factor of sum |x_j| in the first bound above, and that of sqrt(n) ||x|| in the second. */
double dure_fft_error(const dure_fft *fft);
double dure_fft_error_norm(const dure_fft *fft);
