/* One vector of activations of the level this file is compiled for, to and from float32; and the
 * multiplication of G of them at once. Rounding to bfloat16 is to nearest even. */
#pragma once

#include "kernels/cpu/vec.h"

#if defined(__AVX512BF16__)
enum { G = 2 };
typedef uint16_t act;
/* What a vector register holds of a panel, and one group of a row in every lane. */
typedef __m512i act_vec;

static inline vec a_load(const act *p)
{
    __m256i half = _mm256_loadu_si256((const __m256i_u *)p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}
static inline vec a_load_n(const act *p, size_t n)
{
    __m256i half = _mm256_maskz_loadu_epi16((__mmask16)((1u << n) - 1), p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}
static inline __m256i a_round(vec x)
{
    __m256i bits;
    __m256bh rounded = _mm512_cvtneps_pbh(x);
    memcpy(&bits, &rounded, sizeof bits);
    return bits;
}
static inline void a_store(act *p, vec x)
{
    _mm256_storeu_si256((__m256i_u *)p, a_round(x));
}
static inline void a_store_n(act *p, vec x, size_t n)
{
    _mm256_mask_storeu_epi16(p, (__mmask16)((1u << n) - 1), a_round(x));
}
static inline act_vec a_panel(const act *p)
{
    return _mm512_loadu_si512(p);
}
static inline act_vec a_group(const act *p)
{
    int pair;
    memcpy(&pair, p, sizeof pair);
    return _mm512_set1_epi32(pair);
}
static inline vec a_multiply(act_vec a, act_vec b, vec sum)
{
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}
#else
enum { G = 1 };
typedef float act;
typedef vec act_vec;

static inline vec a_load(const act *p)
{
    return v_load(p);
}
static inline vec a_load_n(const act *p, size_t n)
{
    return v_load_n(p, n);
}
static inline void a_store(act *p, vec x)
{
    v_store(p, x);
}
static inline void a_store_n(act *p, vec x, size_t n)
{
    v_store_n(p, x, n);
}
static inline act_vec a_panel(const act *p)
{
    return v_load(p);
}
static inline act_vec a_group(const act *p)
{
    return v_set(*p);
}
static inline vec a_multiply(act_vec a, act_vec b, vec sum)
{
    return v_fma(a, b, sum);
}
#endif
