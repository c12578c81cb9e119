/* One float vector of the width this file is compiled for, and the few operations the kernels
 * need. Each level's source includes it under its own compiler flags; everything is static.
 *
 * v_max(a, b) is (a > b ? a : b) in every version: a NaN in the second operand survives, so a NaN
 * in the data reaches the result and is seen. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#include <immintrin.h>
enum { W = 16 };
typedef __m512 vec;

static inline vec v_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
static inline void v_store(float *p, vec x)
{
    _mm512_storeu_ps(p, x);
}
static inline vec v_set(float x)
{
    return _mm512_set1_ps(x);
}
static inline vec v_fma(vec a, vec b, vec c)
{
    return _mm512_fmadd_ps(a, b, c);
}
static inline vec v_max(vec a, vec b)
{
    return _mm512_max_ps(a, b);
}
static inline vec v_min(vec a, vec b)
{
    return _mm512_min_ps(a, b);
}
static inline vec v_sqrt(vec a)
{
    return _mm512_sqrt_ps(a);
}
static inline vec v_round(vec a)
{
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* x * 2^n for integral n in [-126, 127] */
static inline vec v_ldexp(vec x, vec n)
{
    return _mm512_scalef_ps(x, n);
}
static inline float v_sum(vec a)
{
    return _mm512_reduce_add_ps(a);
}
static inline float v_top(vec a)
{
    return _mm512_reduce_max_ps(a);
}
static inline vec v_load_n(const float *p, size_t n)
{
    return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}
static inline void v_store_n(float *p, vec x, size_t n)
{
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), x);
}

#elif defined(__AVX2__)
#include <immintrin.h>
enum { W = 8 };
typedef __m256 vec;

static inline vec v_load(const float *p)
{
    return _mm256_loadu_ps(p);
}
static inline void v_store(float *p, vec x)
{
    _mm256_storeu_ps(p, x);
}
static inline vec v_set(float x)
{
    return _mm256_set1_ps(x);
}
static inline vec v_fma(vec a, vec b, vec c)
{
    return _mm256_fmadd_ps(a, b, c);
}
static inline vec v_max(vec a, vec b)
{
    return _mm256_max_ps(a, b);
}
static inline vec v_min(vec a, vec b)
{
    return _mm256_min_ps(a, b);
}
static inline vec v_sqrt(vec a)
{
    return _mm256_sqrt_ps(a);
}
static inline vec v_round(vec a)
{
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline vec v_ldexp(vec x, vec n)
{
    __m256i e =
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_mul_ps(x, _mm256_castsi256_ps(e));
}
static inline float v_sum(vec a)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

#else
enum { W = 4 };
typedef float vec __attribute__((vector_size(16)));
typedef int32_t vec_int __attribute__((vector_size(16)));

static inline vec v_load(const float *p)
{
    vec x;
    memcpy(&x, p, sizeof x);
    return x;
}
static inline void v_store(float *p, vec x)
{
    memcpy(p, &x, sizeof x);
}
static inline vec v_set(float x)
{
    return (vec){x, x, x, x};
}
static inline vec v_fma(vec a, vec b, vec c)
{
    return a * b + c;
}
static inline vec v_pick(vec_int mask, vec a, vec b)
{
    return (vec)(((vec_int)a & mask) | ((vec_int)b & ~mask));
}
static inline vec v_max(vec a, vec b)
{
    return v_pick(a > b, a, b);
}
static inline vec v_min(vec a, vec b)
{
    return v_pick(a < b, a, b);
}
static inline vec v_sqrt(vec a)
{
    for (int i = 0; i < W; i++)
        a[i] = __builtin_sqrtf(a[i]);
    return a;
}
/* Exact for |a| < 2^22, which is all that exp needs. */
static inline vec v_round(vec a)
{
    return (a + v_set(0x1.8p23f)) - v_set(0x1.8p23f);
}
static inline vec v_ldexp(vec x, vec n)
{
    return x * (vec)((__builtin_convertvector(n, vec_int) + 127) << 23);
}
static inline float v_sum(vec a)
{
    return (a[0] + a[2]) + (a[1] + a[3]);
}
#endif

#if !defined(__AVX512F__)
static inline float v_top(vec a)
{
    float x[W], top;
    v_store(x, a);
    top = x[0];
    for (int i = 1; i < W; i++)
        top = top > x[i] ? top : x[i];
    return top;
}
static inline vec v_load_n(const float *p, size_t n)
{
    float x[W] = {0};
    memcpy(x, p, n * sizeof *p);
    return v_load(x);
}
static inline void v_store_n(float *p, vec a, size_t n)
{
    float x[W];
    v_store(x, a);
    memcpy(p, x, n * sizeof *p);
}
#endif

/* e^x within 2 ulp for x in [-87, 88], constant outside. Cephes' expf: x = n ln 2 + r. */
static inline vec v_exp(vec x)
{
    x = v_min(v_set(88.0f), v_max(v_set(-87.0f), x));
    vec n = v_round(x * v_set(1.44269504f));
    vec r = v_fma(n, v_set(-0.693359375f), x);
    r = v_fma(n, v_set(2.12194440e-4f), r);
    vec p = v_fma(v_set(1.9875691500e-4f), r, v_set(1.3981999507e-3f));
    p = v_fma(p, r, v_set(8.3334519073e-3f));
    p = v_fma(p, r, v_set(4.1665795894e-2f));
    p = v_fma(p, r, v_set(1.6666665459e-1f));
    p = v_fma(p, r, v_set(5.0000001201e-1f));
    p = v_fma(p, r * r, r) + v_set(1.0f);
    return v_ldexp(p, n);
}
