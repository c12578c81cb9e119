#include "dp/fft.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* cos and sin of 2 pi j / n for all j from those of the first octant: mirror images are exact. */
static void fill_circle(double *cosine, double *sine, size_t n)
{
    size_t eighth = n / 8;
    for (size_t j = 0; j <= eighth; j++) {
        double angle = 2 * M_PI * (double)j / (double)n;
        cosine[j] = cos(angle);
        sine[j] = sin(angle);
    }
    for (size_t j = eighth + 1; j <= n / 4; j++) {
        cosine[j] = sine[n / 4 - j];
        sine[j] = cosine[n / 4 - j];
    }
    for (size_t j = n / 4 + 1; j < n; j++) {
        cosine[j] = -sine[j - n / 4];
        sine[j] = cosine[j - n / 4];
    }
}

dure_err dure_fft_init(dure_fft *fft, size_t n)
{
    *fft = (dure_fft){0};
    if (n < 2 || (n & (n - 1)) != 0 || n > SIZE_MAX / (4 * sizeof(double))) return DURE_ERR_USAGE;
    double *all = malloc(4 * n * sizeof *all);
    if (!all) return DURE_ERR_NOMEM;
    *fft = (dure_fft){.n = n, .cosine = all, .sine = all + n, .work = {all + 2 * n, all + 3 * n}};
    if (n >= 8) {
        fill_circle(all, all + n, n);
    } else {
        static const double quarter[] = {1, 0, -1, 0};
        for (size_t j = 0; j < n; j++) {
            all[j] = quarter[j * (4 / n)];
            all[n + j] = quarter[(j * (4 / n) + 3) % 4];
        }
    }
    return DURE_OK;
}

void dure_fft_fini(dure_fft *fft)
{
    free(fft->cosine);
    *fft = (dure_fft){0};
}

/* One radix-4 stage: groups of `m` points at a distance, each repeated over `s` neighbours. */
static void stage4(const dure_fft *fft, const double *const x[2], double *const y[2], size_t m,
                   size_t s)
{
    for (size_t p = 0; p < m; p++) {
        double c1 = fft->cosine[p * s], s1 = -fft->sine[p * s];
        double c2 = fft->cosine[2 * p * s], s2 = -fft->sine[2 * p * s];
        double c3 = fft->cosine[3 * p * s], s3 = -fft->sine[3 * p * s];
        const double *xr = x[0] + s * p, *xi = x[1] + s * p;
        double *yr = y[0] + 4 * s * p, *yi = y[1] + 4 * s * p;
        for (size_t q = 0; q < s; q++) {
            size_t b = q + s * m, c = q + 2 * s * m, d = q + 3 * s * m;
            double acr = xr[q] + xr[c], aci = xi[q] + xi[c];
            double mcr = xr[q] - xr[c], mci = xi[q] - xi[c];
            double bdr = xr[b] + xr[d], bdi = xi[b] + xi[d];
            double jr = xi[d] - xi[b], ji = xr[b] - xr[d]; /* i (b - d) */
            double ur = mcr - jr, ui = mci - ji;
            double vr = acr - bdr, vi = aci - bdi;
            double wr = mcr + jr, wi = mci + ji;
            yr[q] = acr + bdr;
            yi[q] = aci + bdi;
            yr[q + s] = ur * c1 - ui * s1;
            yi[q + s] = ur * s1 + ui * c1;
            yr[q + 2 * s] = vr * c2 - vi * s2;
            yi[q + 2 * s] = vr * s2 + vi * c2;
            yr[q + 3 * s] = wr * c3 - wi * s3;
            yi[q + 3 * s] = wr * s3 + wi * c3;
        }
    }
}

/* The last stage of an odd power of two. */
static void stage2(const double *const x[2], double *const y[2], size_t s)
{
    for (int part = 0; part < 2; part++) {
        for (size_t q = 0; q < s; q++) {
            double a = x[part][q], b = x[part][q + s];
            y[part][q] = a + b;
            y[part][q + s] = a - b;
        }
    }
}

void dure_fft_forward(const dure_fft *fft, double *re, double *im)
{
    double *from[2] = {re, im}, *to[2] = {fft->work[0], fft->work[1]};
    size_t n = fft->n, s = 1;
    while (n > 1) {
        const double *const x[2] = {from[0], from[1]};
        if (n == 2) {
            stage2(x, to, s);
            n = 1;
        } else {
            stage4(fft, x, to, n / 4, s);
            n /= 4;
            s *= 4;
        }
        for (int part = 0; part < 2; part++) {
            double *swap = from[part];
            from[part] = to[part];
            to[part] = swap;
        }
    }
    if (from[0] == re) return;
    memcpy(re, from[0], fft->n * sizeof *re);
    memcpy(im, from[1], fft->n * sizeof *im);
}

void dure_fft_backward(const dure_fft *fft, double *re, double *im)
{
    dure_fft_forward(fft, im, re);
}

/* Of `factor` roundings more in every stage. */
static double grown(const dure_fft *fft, double factor)
{
    int stages = 0;
    for (size_t n = fft->n; n > 1; n = n == 2 ? 1 : n / 4)
        stages++;
    return expm1(stages * log1p(factor * 0x1p-53));
}

double dure_fft_error(const dure_fft *fft)
{
    return grown(fft, 8);
}

double dure_fft_error_norm(const dure_fft *fft)
{
    return grown(fft, 16);
}
