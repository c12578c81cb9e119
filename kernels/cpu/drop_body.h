/* Dropout of a row (kernels/dropout.h). With AVX-512 eight words are mixed at once and compared as
 * 32 numbers of 16 bits, which lie in the order of their columns. */
#pragma once

#include "kernels/compute.h"
#include "kernels/cpu/act.h"

#if defined(__AVX512F__)
enum { DROP_AT_ONCE = 32 };

static inline __m512i drop_mix(__m512i z)
{
    z = _mm512_xor_si512(z, _mm512_srli_epi64(z, 30));
    z = _mm512_mullo_epi64(z, _mm512_set1_epi64((long long)0xbf58476d1ce4e5b9));
    z = _mm512_xor_si512(z, _mm512_srli_epi64(z, 27));
    z = _mm512_mullo_epi64(z, _mm512_set1_epi64((long long)0x94d049bb133111eb));
    return _mm512_xor_si512(z, _mm512_srli_epi64(z, 31));
}

/* The counters of the eight words from `column` on. */
static inline __m512i drop_counters(const dure_drop *d, size_t column)
{
    __m512i from = _mm512_set1_epi64((long long)(column / DURE_DROP_LANES + 1));
    from = _mm512_add_epi64(from, _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7));
    return _mm512_add_epi64(_mm512_mullo_epi64(from, _mm512_set1_epi64((long long)DURE_DROP_STEP)),
                            _mm512_set1_epi64((long long)d->key));
}

/* The columns that stay, of those that the counters stand for. */
static inline __mmask32 drop_kept(__m512i counters, const dure_drop *d)
{
    return _mm512_cmpge_epu16_mask(drop_mix(counters), _mm512_set1_epi16((short)d->threshold));
}

static inline __m512i drop_next(__m512i counters)
{
    return _mm512_add_epi64(
        counters, _mm512_set1_epi64((long long)(DROP_AT_ONCE / DURE_DROP_LANES * DURE_DROP_STEP)));
}

static inline __mmask32 first_of_32(size_t n)
{
    return n >= 32 ? UINT32_MAX : (1u << n) - 1;
}

static void drop(void *y, const void *x, size_t n, const dure_drop *d)
{
    act *to = y;
    const act *from = x;
    __m512i counters = drop_counters(d, 0);
    for (size_t i = 0; i < n; i += DROP_AT_ONCE, counters = drop_next(counters)) {
        __mmask32 some = first_of_32(n - i), kept = drop_kept(counters, d) & some;
#if defined(__AVX512BF16__)
        _mm512_mask_storeu_epi16(to + i, some, _mm512_maskz_loadu_epi16(kept, from + i));
#else
        __mmask16 low = (__mmask16)some, high = (__mmask16)(some >> 16);
        _mm512_mask_storeu_ps(to + i, low, _mm512_maskz_loadu_ps((__mmask16)kept, from + i));
        _mm512_mask_storeu_ps(to + i + 16, high,
                              _mm512_maskz_loadu_ps((__mmask16)(kept >> 16), from + i + 16));
#endif
    }
}

static void add_kept(float *y, const float *x, size_t column, size_t n, const dure_drop *d)
{
    __m512i counters = drop_counters(d, column);
    for (size_t i = 0; i < n; i += DROP_AT_ONCE, counters = drop_next(counters)) {
        __mmask32 some = first_of_32(n - i), kept = drop_kept(counters, d) & some;
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            float *to = y + i + half * 16;
            __m512 sum = _mm512_add_ps(
                _mm512_maskz_loadu_ps((__mmask16)(some >> half * 16), to),
                _mm512_maskz_loadu_ps((__mmask16)(kept >> half * 16), x + i + half * 16));
            _mm512_mask_storeu_ps(to, (__mmask16)(some >> half * 16), sum);
        }
    }
}
#else
static void drop(void *y, const void *x, size_t n, const dure_drop *d)
{
    act *to = y;
    const act *from = x;
    for (size_t i = 0; i < n; i++)
        to[i] = dure_drop_keeps(d, i) ? from[i] : 0;
}

static void add_kept(float *y, const float *x, size_t column, size_t n, const dure_drop *d)
{
    for (size_t i = 0; i < n; i++)
        y[i] += dure_drop_keeps(d, column + i) ? x[i] : 0;
}
#endif
