/* Decoding 16 weights at once. A value of four bits is looked up in a register that holds the
 * sixteen weights it can mean in its block, which is one instruction instead of the three that
 * convert, scale and shift it; five bits take a second look-up under a mask.
 *
 * The bits are those of kernels/ref/dequant_body.h: every product is exact, so each weight is
 * rounded once either way. */
#pragma once

#include "kernels/cpu/dequant_scales.h"

static inline __m512 steps_from(float first)
{
    return _mm512_add_ps(_mm512_set1_ps(first),
                         _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
}

static inline __m512i bytes_at(const uint8_t *p)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i_u *)p));
}

/* Looks four bits up in `table`; the index's higher bits do not matter. */
static inline void store_nibbles(float *y, const uint8_t *q, __m512 table)
{
    __m512i two = bytes_at(q);
    _mm512_storeu_ps(y, _mm512_permutexvar_ps(two, table));
    _mm512_storeu_ps(y + 16, _mm512_permutexvar_ps(_mm512_srli_epi32(two, 4), table));
}

static inline __m512 look_up_5(__m512i low, __mmask16 high, __m512 table, __m512 table_high)
{
    return _mm512_mask_permutexvar_ps(_mm512_permutexvar_ps(low, table), high, low, table_high);
}

static inline void decode_q4_0(float *restrict y, const uint8_t *restrict b)
{
    __m512 d = _mm512_broadcastss_ps(halves_at(b));
    store_nibbles(y, b + 2, _mm512_mul_ps(steps_from(-8), d));
}

static inline void decode_q4_1(float *restrict y, const uint8_t *restrict b)
{
    __m512 dm = _mm512_castps128_ps512(halves_at(b));
    __m512 d = _mm512_permutexvar_ps(_mm512_setzero_si512(), dm);
    __m512 m = _mm512_permutexvar_ps(_mm512_set1_epi32(1), dm);
    store_nibbles(y, b + 4, _mm512_fmadd_ps(steps_from(0), d, m));
}

static inline void store_fives(float *y, const uint8_t *high, __m512 table, __m512 table_high)
{
    __m512i two = bytes_at(high + 4);
    uint32_t bits;
    memcpy(&bits, high, sizeof bits);
    _mm512_storeu_ps(y, look_up_5(two, (__mmask16)bits, table, table_high));
    _mm512_storeu_ps(
        y + 16, look_up_5(_mm512_srli_epi32(two, 4), (__mmask16)(bits >> 16), table, table_high));
}

static inline void decode_q5_0(float *restrict y, const uint8_t *restrict b)
{
    __m512 d = _mm512_broadcastss_ps(halves_at(b));
    store_fives(y, b + 2, _mm512_mul_ps(steps_from(-16), d), _mm512_mul_ps(steps_from(0), d));
}

static inline void decode_q5_1(float *restrict y, const uint8_t *restrict b)
{
    __m512 dm = _mm512_castps128_ps512(halves_at(b));
    __m512 d = _mm512_permutexvar_ps(_mm512_setzero_si512(), dm);
    __m512 m = _mm512_permutexvar_ps(_mm512_set1_epi32(1), dm);
    store_fives(y, b + 4, _mm512_fmadd_ps(steps_from(0), d, m),
                _mm512_fmadd_ps(steps_from(16), d, m));
}

static inline __m512 scaled_bytes(const uint8_t *q, __m512 d)
{
    __m512i wide = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i_u *)q));
    return _mm512_mul_ps(_mm512_cvtepi32_ps(wide), d);
}

static inline void decode_q8_0(float *restrict y, const uint8_t *restrict b)
{
    __m512 d = _mm512_broadcastss_ps(halves_at(b));
    _mm512_storeu_ps(y, scaled_bytes(b + 2, d));
    _mm512_storeu_ps(y + 16, scaled_bytes(b + 18, d));
}

static inline void decode_q8_k(float *restrict y, const uint8_t *restrict b)
{
    float d;
    memcpy(&d, b, sizeof d);
    for (int j = 0; j < 256; j += 16)
        _mm512_storeu_ps(y + j, scaled_bytes(b + 4 + j, _mm512_set1_ps(d)));
}

static inline __m512 levels_iq4(void)
{
    return _mm512_setr_ps(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);
}

static inline void decode_iq4_nl(float *restrict y, const uint8_t *restrict b)
{
    store_nibbles(y, b + 2, _mm512_mul_ps(levels_iq4(), _mm512_broadcastss_ps(halves_at(b))));
}

static inline void decode_iq4_xs(float *restrict y, const uint8_t *restrict b)
{
    float d = half_at(b);
    for (int j = 0; j < 8; j++) {
        __m512 f = _mm512_set1_ps(d * (float)scale_iq4_xs(j, b));
        store_nibbles(y + j * 32, b + 8 + j * 16, _mm512_mul_ps(levels_iq4(), f));
    }
}

/* Two bits: the table holds its four weights four times over. */
static inline void decode_q2_k(float *restrict y, const uint8_t *restrict b)
{
    const __m512 levels = _mm512_setr_ps(0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3);
    float scale[16], base[16];
    scales_q2_k(scale, base, b);
    for (int half = 0; half < 2; half++)
        for (int run = 0; run < 2; run++) {
            __m512i q = bytes_at(b + 16 + half * 32 + run * 16);
            for (int j = 0; j < 4; j++, q = _mm512_srli_epi32(q, 2)) {
                int group = half * 8 + j * 2 + run;
                __m512 table = _mm512_fmsub_ps(levels, _mm512_set1_ps(scale[group]),
                                               _mm512_set1_ps(base[group]));
                _mm512_storeu_ps(y + group * 16, _mm512_permutexvar_ps(q, table));
            }
        }
}

static inline void decode_q3_k(float *restrict y, const uint8_t *restrict b)
{
    const __m512 low =
        _mm512_setr_ps(-4, -3, -2, -1, -4, -3, -2, -1, -4, -3, -2, -1, -4, -3, -2, -1);
    const __m512 high = _mm512_setr_ps(0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3);
    float scale[16];
    scales_q3_k(scale, b);
    for (int run = 0; run < 2; run++) {
        __m512i bits = bytes_at(b + run * 16);
        for (int half = 0; half < 2; half++) {
            __m512i q = bytes_at(b + 32 + half * 32 + run * 16);
            for (int j = 0; j < 4; j++, q = _mm512_srli_epi32(q, 2)) {
                int group = half * 8 + j * 2 + run;
                __mmask16 set = _mm512_test_epi32_mask(bits, _mm512_set1_epi32(1 << group / 2));
                __m512 f = _mm512_set1_ps(scale[group]);
                __m512 levels = look_up_5(q, set, low, high);
                _mm512_storeu_ps(y + group * 16, _mm512_mul_ps(levels, f));
            }
        }
    }
}

static inline void decode_q4_k(float *restrict y, const uint8_t *restrict b)
{
    float scale[8], base[8];
    scales_k4(scale, base, b);
    for (int j = 0; j < 8; j += 2) {
        __m512i q0 = bytes_at(b + 16 + j * 16), q1 = bytes_at(b + 32 + j * 16);
        for (int k = j; k < j + 2; k++) {
            __m512 table =
                _mm512_fmsub_ps(steps_from(0), _mm512_set1_ps(scale[k]), _mm512_set1_ps(base[k]));
            _mm512_storeu_ps(y + k * 32, _mm512_permutexvar_ps(q0, table));
            _mm512_storeu_ps(y + k * 32 + 16, _mm512_permutexvar_ps(q1, table));
            q0 = _mm512_srli_epi32(q0, 4);
            q1 = _mm512_srli_epi32(q1, 4);
        }
    }
}

static inline void decode_q5_k(float *restrict y, const uint8_t *restrict b)
{
    float scale[8], base[8];
    scales_k4(scale, base, b);
    __m512i high0 = bytes_at(b + 16), high1 = bytes_at(b + 32);
    for (int j = 0; j < 8; j += 2) {
        __m512i q0 = bytes_at(b + 48 + j * 16), q1 = bytes_at(b + 64 + j * 16);
        for (int k = j; k < j + 2; k++) {
            __m512 f = _mm512_set1_ps(scale[k]), low = _mm512_set1_ps(base[k]);
            __m512 table = _mm512_fmsub_ps(steps_from(0), f, low);
            __m512 table_high = _mm512_fmsub_ps(steps_from(16), f, low);
            __m512i bit = _mm512_set1_epi32(1 << k);
            __mmask16 set0 = _mm512_test_epi32_mask(high0, bit);
            __mmask16 set1 = _mm512_test_epi32_mask(high1, bit);
            _mm512_storeu_ps(y + k * 32, look_up_5(q0, set0, table, table_high));
            _mm512_storeu_ps(y + k * 32 + 16, look_up_5(q1, set1, table, table_high));
            q0 = _mm512_srli_epi32(q0, 4);
            q1 = _mm512_srli_epi32(q1, 4);
        }
    }
}

/* Six bits are put together as bytes, 64 at a time, and converted. */
static inline void decode_q6_k(float *restrict y, const uint8_t *restrict b)
{
    const __m512i nibble = _mm512_set1_epi8(15), pair = _mm512_set1_epi8(0x30);
    /* The upper 32 bytes take the next two of the high bits. */
    const __m512i up = _mm512_inserti64x4(_mm512_set1_epi16(4), _mm256_set1_epi16(2), 1);
    const __m512i down = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(2), 1);
    float scale[16];
    uint8_t q[128];
    scales_q6_k(scale, b);
    for (int half = 0; half < 2; half++) {
        __m512i low = _mm512_loadu_si512(b + half * 64);
        __m512i high =
            _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i_u *)(b + 128 + half * 32)));
        __m512i first = _mm512_or_si512(_mm512_and_si512(low, nibble),
                                        _mm512_and_si512(_mm512_sllv_epi16(high, up), pair));
        __m512i last = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16(low, 4), nibble),
                                       _mm512_and_si512(_mm512_srlv_epi16(high, down), pair));
        _mm512_storeu_si512(q, _mm512_sub_epi8(first, _mm512_set1_epi8(32)));
        _mm512_storeu_si512(q + 64, _mm512_sub_epi8(last, _mm512_set1_epi8(32)));
        for (int j = 0; j < 8; j++) {
            int group = half * 8 + j;
            _mm512_storeu_ps(y + group * 16,
                             scaled_bytes(q + j * 16, _mm512_set1_ps(scale[group])));
        }
    }
}

static inline void decode_half(float *restrict y, const uint8_t *restrict b, size_t n)
{
    size_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm512_storeu_ps(y + i,
                         _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i_u *)(b + 2 * i))));
    for (; i < n; i++)
        y[i] = half_at(b + 2 * i);
}
