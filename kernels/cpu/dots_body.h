/* Narrow products, C[m x n] = X[m x k] Y[n x k]^T with n small: the lanes of a vector run along k,
 * so a row of X is loaded whole where the micro-kernel of gemm_body.h would load it pair by pair
 * for too few columns. An element's partial sums and the order in which its lanes are added depend
 * on k and its column alone. */
#pragma once

#include "kernels/compute.h"
#include "kernels/cpu/act.h"

#if defined(__AVX512F__)
enum { DOT_ROWS = 6 };
#else
enum { DOT_ROWS = 2 };
#endif
enum { DOT_COLUMNS = 4, STEP = W * G };

#if defined(__AVX512BF16__)
static inline act_vec a_run(const act *p, size_t n)
{
    return n >= STEP ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi16((1u << n) - 1, p);
}
#else
static inline act_vec a_run(const act *p, size_t n)
{
    return n >= STEP ? v_load(p) : v_load_n(p, n);
}
#endif

/* The sums of four vectors. */
static inline void v_sums(float out[4], const vec v[4])
{
#if defined(__AVX512F__)
    __m512 a = _mm512_add_ps(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
    __m512 b = _mm512_add_ps(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
    __m512d c = _mm512_castps_pd(a), d = _mm512_castps_pd(b);
    __m512 quarter = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(c, d)),
                                   _mm512_castpd_ps(_mm512_unpackhi_pd(c, d)));
    __m256 half =
        _mm256_add_ps(_mm512_castps512_ps256(quarter), _mm512_extractf32x8_ps(quarter, 1));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
#else
    for (int i = 0; i < 4; i++)
        out[i] = v_sum(v[i]);
#endif
}

/* Four columns of a few rows; rows is a constant at every call. */
static inline __attribute__((always_inline)) void
dots_block(const int rows, float *c, size_t ldc, const dure_dots *d, const act *x, const act *y)
{
    vec acc[DOT_ROWS][DOT_COLUMNS];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int j = 0; j < DOT_COLUMNS; j++)
            acc[r][j] = v_set(0);
    for (size_t k = 0; k < d->k; k += STEP) {
        size_t left = d->k - k;
        act_vec b[DOT_COLUMNS];
#pragma GCC unroll 4
        for (int j = 0; j < DOT_COLUMNS; j++)
            b[j] = a_run(y + (size_t)j * d->ldy + k, left);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            act_vec a = a_run(x + (size_t)r * d->ldx + k, left);
#pragma GCC unroll 4
            for (int j = 0; j < DOT_COLUMNS; j++)
                acc[r][j] = a_multiply(a, b[j], acc[r][j]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
        v_sums(c + (size_t)r * ldc, acc[r]);
}

static void dots(const dure_dots *d)
{
    for (size_t i = 0; i < d->m; i += DOT_ROWS)
        for (size_t j = 0; j < d->n; j += DOT_COLUMNS) {
            const act *x = (const act *)d->x + i * d->ldx, *y = (const act *)d->y + j * d->ldy;
            float *c = d->c + i * d->ldc + j;
            if (d->m - i >= DOT_ROWS) {
                dots_block(DOT_ROWS, c, d->ldc, d, x, y);
                continue;
            }
            for (size_t r = 0; r < d->m - i; r++)
                dots_block(1, c + r * d->ldc, d->ldc, d, x + r * d->ldx, y);
        }
}
