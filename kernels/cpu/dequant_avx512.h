/* Decoding 16 weights of 4 or 8 bits at once, for the three types that most models hold; what the
 * compiler makes of the plain loops (kernels/ref/dequant_body.h) takes up to twice as long. The
 * bits are the same: a product of a small integer and a scale is exact, so each weight is rounded
 * once either way. The scales are converted eight bytes at a time, because that form of the
 * instruction leaves the shuffle port free; a block is longer than that. */
#pragma once

#include <immintrin.h>
#include <stdint.h>

static inline __m128 halves_at(const uint8_t *p)
{
    return _mm_cvtph_ps(_mm_loadl_epi64((const __m128i_u *)p));
}

static inline void store_nibbles(float *y, const uint8_t *q, __m512 d, __m512 m)
{
    __m512i two = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i_u *)q));
    __m512 low = _mm512_cvtepi32_ps(_mm512_and_si512(two, _mm512_set1_epi32(15)));
    __m512 high = _mm512_cvtepi32_ps(_mm512_srli_epi32(two, 4));
    _mm512_storeu_ps(y, _mm512_fmadd_ps(low, d, m));
    _mm512_storeu_ps(y + 16, _mm512_fmadd_ps(high, d, m));
}

static inline void decode_q4_0(float *restrict y, const uint8_t *restrict b)
{
    __m512 d = _mm512_broadcastss_ps(halves_at(b));
    store_nibbles(y, b + 2, d, _mm512_mul_ps(d, _mm512_set1_ps(-8)));
}

static inline void decode_q4_1(float *restrict y, const uint8_t *restrict b)
{
    __m512 dm = _mm512_castps128_ps512(halves_at(b));
    store_nibbles(y, b + 4, _mm512_permutexvar_ps(_mm512_setzero_si512(), dm),
                  _mm512_permutexvar_ps(_mm512_set1_epi32(1), dm));
}

static inline void decode_q8_0(float *restrict y, const uint8_t *restrict b)
{
    __m512 d = _mm512_broadcastss_ps(halves_at(b));
    for (int j = 0; j < 32; j += 16) {
        __m128i q = _mm_loadu_si128((const __m128i_u *)(b + 2 + j));
        _mm512_storeu_ps(y + j, _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q)), d));
    }
}
