/* Panels (kernels/compute.h) of float32 and, where activations are bfloat16, of those. */
#pragma once

#include "kernels/compute.h"
#include "kernels/cpu/act.h"

static void transpose(float *panel, size_t width, const float *rows, size_t ld, size_t n, size_t k)
{
    size_t p = 0;
#if defined(__AVX2__)
    /* Eight columns at a time: 8 x 8 blocks through the registers. */
    for (; p + 8 <= k; p += 8) {
        size_t r = 0;
        for (; r + 8 <= n; r += 8) {
            const float *x = rows + r * ld + p;
            __m256 a[8], b[8];
#pragma GCC unroll 8
            for (int i = 0; i < 8; i++)
                a[i] = _mm256_loadu_ps(x + (size_t)i * ld);
#pragma GCC unroll 4
            for (int i = 0; i < 8; i += 2) {
                b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
                b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
            }
#pragma GCC unroll 2
            for (int i = 0; i < 8; i += 4) {
                a[i] = _mm256_shuffle_ps(b[i], b[i + 2], 0x44);
                a[i + 1] = _mm256_shuffle_ps(b[i], b[i + 2], 0xEE);
                a[i + 2] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0x44);
                a[i + 3] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0xEE);
            }
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                _mm256_storeu_ps(panel + (p + (size_t)i) * width + r,
                                 _mm256_permute2f128_ps(a[i], a[i + 4], 0x20));
                _mm256_storeu_ps(panel + (p + (size_t)i + 4) * width + r,
                                 _mm256_permute2f128_ps(a[i], a[i + 4], 0x31));
            }
        }
        for (; r < width; r++)
            for (size_t q = p; q < p + 8; q++)
                panel[q * width + r] = r < n ? rows[r * ld + q] : 0;
    }
#endif
    for (; p < k; p++)
        for (size_t r = 0; r < width; r++)
            panel[p * width + r] = r < n ? rows[r * ld + p] : 0;
}

#if defined(__AVX512BF16__)

/* Sixteen rows of pairs, each a vector of 16 pairs (32-bit lanes), turned over: vector i of the
 * result holds pair i of every row. */
static inline void turn_16(__m512i r[16])
{
    __m512i t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

/* The first n of 32 activations; float32 is rounded. */
static inline __m512i row_of_acts(const act *x, size_t n)
{
    return _mm512_maskz_loadu_epi16(n >= 32 ? UINT32_MAX : (1u << n) - 1, x);
}
static inline __m512i row_of_floats(const float *x, size_t n)
{
    size_t low = n < 16 ? n : 16, high = n < 32 ? n - low : 16;
    __m512 a = _mm512_maskz_loadu_ps((__mmask16)((1u << low) - 1), x);
    __m512 b = _mm512_maskz_loadu_ps((__mmask16)((1u << high) - 1), x + low);
    __m512bh both = _mm512_cvtne2ps_pbh(b, a);
    __m512i bits;
    memcpy(&bits, &both, sizeof bits);
    return bits;
}

/* Two rows of 16 columns, interleaved: lane i holds column i of both. */
static inline __m512i rows_of_acts(const act *a, const act *b, size_t n)
{
    __mmask16 mask = (__mmask16)((1u << n) - 1);
    __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, a));
    if (!b) return low;
    __m512i high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, b));
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}
static inline __m512i rows_of_floats(const float *a, const float *b, size_t n)
{
    __mmask16 mask = (__mmask16)((1u << n) - 1);
    __m512i low = _mm512_cvtepu16_epi32(a_round(_mm512_maskz_loadu_ps(mask, a)));
    if (!b) return low;
    __m512i high = _mm512_cvtepu16_epi32(a_round(_mm512_maskz_loadu_ps(mask, b)));
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

#define PACK(suffix, type, source)                                                                 \
    static void pack_nt##suffix(const dure_pack *p)                                                \
    {                                                                                              \
        for (size_t j = 0; j < p->n; j += W) {                                                     \
            const type *x = (const type *)p->x + j * p->ld;                                        \
            act *to = (act *)p->to.at + j / W * p->to.panel;                                       \
            size_t rows = p->n - j < W ? p->n - j : W;                                             \
            for (size_t k = 0; k < p->k; k += 32) {                                                \
                size_t left = p->k - k < 32 ? p->k - k : 32;                                       \
                __m512i r[16];                                                                     \
                for (size_t i = 0; i < 16; i++)                                                    \
                    r[i] = i < rows ? row_of_##source(x + i * p->ld + k, left)                     \
                                    : _mm512_setzero_si512();                                      \
                turn_16(r);                                                                        \
                for (size_t i = 0; i < (left + 1) / 2; i++)                                        \
                    _mm512_storeu_si512(to + (k + 2 * i) * W, r[i]);                               \
            }                                                                                      \
        }                                                                                          \
    }                                                                                              \
    static void pack_nn##suffix(const dure_pack *p)                                                \
    {                                                                                              \
        for (size_t j = 0; j < p->n; j += W) {                                                     \
            const type *x = (const type *)p->x + j;                                                \
            act *to = (act *)p->to.at + j / W * p->to.panel;                                       \
            size_t columns = p->n - j < W ? p->n - j : W;                                          \
            for (size_t k = 0; k < p->k; k += 2)                                                   \
                _mm512_storeu_si512(to + k * W,                                                    \
                                    rows_of_##source(x + k * p->ld,                                \
                                                     k + 1 < p->k ? x + (k + 1) * p->ld : NULL,    \
                                                     columns));                                    \
        }                                                                                          \
    }
PACK(, act, acts)
PACK(_f32, float, floats)

/* A square of 16 x 16 weights: eight vectors [pair of k'][n][2] become eight [pair of n][k'][2]. */
static inline void repack_square(act *to, const act *from)
{
    /* Bytes of four activations (a0 a1 b0 b1) in the order a0 b0 a1 b1. */
    const __m512i swap =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
    __m512i r[8], t[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        r[i] = _mm512_shuffle_epi8(_mm512_loadu_si512(from + i * 2 * W), swap);
    /* Now 64-bit lane p of r[i] belongs in lane i of vector p. */
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm512_unpacklo_epi64(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi64(r[i], r[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        r[i] = _mm512_shuffle_i64x2(t[i], t[i + 2], 0x88);
        r[i + 2] = _mm512_shuffle_i64x2(t[i], t[i + 2], 0xdd);
        r[i + 4] = _mm512_shuffle_i64x2(t[i + 4], t[i + 6], 0x88);
        r[i + 6] = _mm512_shuffle_i64x2(t[i + 4], t[i + 6], 0xdd);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        /* r[i] and r[i + 4] hold lanes 0..3 and 4..7 of vectors i' and i' + 4. */
        _mm512_storeu_si512(to + (size_t)i * 2 * W, _mm512_shuffle_i64x2(r[i], r[i + 4], 0x88));
        _mm512_storeu_si512(to + (size_t)(i + 4) * 2 * W,
                            _mm512_shuffle_i64x2(r[i], r[i + 4], 0xdd));
    }
}

static void repack(dure_panels to, dure_panels from, size_t column, size_t n, size_t k)
{
    for (size_t p = 0; p < k; p += W) {
        const act *x = (const act *)from.at + p / W * from.panel + column * W;
        for (size_t j = 0; j < n; j += W) {
            /* The next panel lies too far off for the CPU to see it coming. */
            for (size_t line = 0; line < 8; line++)
                _mm_prefetch((const char *)(x + 2 * from.panel + j * W + line * 2 * W),
                             _MM_HINT_T0);
            repack_square((act *)to.at + j / W * to.panel + p * W, x + j * W);
        }
    }
}
#define REPACK repack

#else

static void pack_nt(const dure_pack *p)
{
    for (size_t j = 0; j < p->n; j += W)
        transpose((float *)p->to.at + j / W * p->to.panel, W, (const float *)p->x + j * p->ld,
                  p->ld, p->n - j < W ? p->n - j : W, p->k);
}

static void pack_nn(const dure_pack *p)
{
    for (size_t j = 0; j < p->n; j += W) {
        const float *x = (const float *)p->x + j;
        float *to = (float *)p->to.at + j / W * p->to.panel;
        size_t columns = p->n - j < W ? p->n - j : W;
        for (size_t k = 0; k < p->k; k++)
            v_store(to + k * W,
                    columns == W ? v_load(x + k * p->ld) : v_load_n(x + k * p->ld, columns));
    }
}

/* Activations are float32. */
static void pack_nt_f32(const dure_pack *p)
{
    pack_nt(p);
}
static void pack_nn_f32(const dure_pack *p)
{
    pack_nn(p);
}
#define REPACK NULL
#endif
