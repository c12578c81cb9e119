/* Decoding 8 weights at once: the values are put together as 32 bytes, converted and scaled.
 * The bits are those of kernels/ref/dequant_body.h: every product is exact, so each weight is
 * rounded once either way. */
#pragma once

#include "kernels/cpu/dequant_scales.h"

static inline __m256i bytes32_at(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i_u *)p);
}

/* The bits of each byte that `mask` names after a shift right by n. */
static inline __m256i bits_of(__m256i bytes, int n, int mask)
{
    return _mm256_and_si256(_mm256_srli_epi16(bytes, n), _mm256_set1_epi8((char)mask));
}

/* The low nibbles of 16 bytes, then the high ones. */
static inline __m256i nibbles_at(const uint8_t *q)
{
    __m128i two = _mm_loadu_si128((const __m128i_u *)q);
    __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(two), _mm_srli_epi16(two, 4), 1);
    return _mm256_and_si256(both, _mm256_set1_epi8(15));
}

static inline __m256 eight(const int8_t *q)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i_u *)q)));
}

/* Stores n = 16 or 32 scaled values. */
static inline void scaled(float *y, const int8_t *q, int n, float d)
{
#pragma GCC unroll 4
    for (int j = 0; j < n; j += 8)
        _mm256_storeu_ps(y + j, _mm256_mul_ps(eight(q + j), _mm256_set1_ps(d)));
}

/* As scaled(), and `base` added. */
static inline void scaled_and_moved(float *y, const int8_t *q, int n, float d, float base)
{
#pragma GCC unroll 4
    for (int j = 0; j < n; j += 8)
        _mm256_storeu_ps(y + j,
                         _mm256_fmadd_ps(eight(q + j), _mm256_set1_ps(d), _mm256_set1_ps(base)));
}

static inline void store_bytes(int8_t *q, __m256i bytes)
{
    _mm256_storeu_si256((__m256i_u *)q, bytes);
}

static inline void decode_q4_0(float *restrict y, const uint8_t *restrict b)
{
    int8_t q[32];
    store_bytes(q, _mm256_sub_epi8(nibbles_at(b + 2), _mm256_set1_epi8(8)));
    scaled(y, q, 32, half_at(b));
}

static inline void decode_q4_1(float *restrict y, const uint8_t *restrict b)
{
    int8_t q[32];
    store_bytes(q, nibbles_at(b + 4));
    scaled_and_moved(y, q, 32, half_at(b), half_at(b + 2));
}

/* 16 in each byte whose bit of the four bytes at p is set. */
static inline __m256i fifth_bits(const uint8_t *p)
{
    int bits;
    memcpy(&bits, p, sizeof bits);
    const __m256i from =
        _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201);
    __m256i spread = _mm256_shuffle_epi8(_mm256_set1_epi32(bits), from);
    __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(spread, bit), bit);
    return _mm256_and_si256(set, _mm256_set1_epi8(16));
}

static inline void decode_q5_0(float *restrict y, const uint8_t *restrict b)
{
    int8_t q[32];
    __m256i five = _mm256_or_si256(nibbles_at(b + 6), fifth_bits(b + 2));
    store_bytes(q, _mm256_sub_epi8(five, _mm256_set1_epi8(16)));
    scaled(y, q, 32, half_at(b));
}

static inline void decode_q5_1(float *restrict y, const uint8_t *restrict b)
{
    int8_t q[32];
    store_bytes(q, _mm256_or_si256(nibbles_at(b + 8), fifth_bits(b + 4)));
    scaled_and_moved(y, q, 32, half_at(b), half_at(b + 2));
}

static inline void decode_q8_0(float *restrict y, const uint8_t *restrict b)
{
    scaled(y, (const int8_t *)b + 2, 32, half_at(b));
}

static inline void decode_q8_k(float *restrict y, const uint8_t *restrict b)
{
    float d;
    memcpy(&d, b, sizeof d);
    for (int j = 0; j < 256; j += 32)
        scaled(y + j, (const int8_t *)b + 4 + j, 32, d);
}

static inline void iq4_bytes(int8_t *q, const uint8_t *nibbles)
{
    const __m128i levels =
        _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);
    store_bytes(q, _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(levels), nibbles_at(nibbles)));
}

static inline void decode_iq4_nl(float *restrict y, const uint8_t *restrict b)
{
    int8_t q[32];
    iq4_bytes(q, b + 2);
    scaled(y, q, 32, half_at(b));
}

static inline void decode_iq4_xs(float *restrict y, const uint8_t *restrict b)
{
    float d = half_at(b);
    for (int j = 0; j < 8; j++) {
        int8_t q[32];
        iq4_bytes(q, b + 8 + j * 16);
        scaled(y + j * 32, q, 32, d * (float)scale_iq4_xs(j, b));
    }
}

static inline void decode_q2_k(float *restrict y, const uint8_t *restrict b)
{
    float scale[16], base[16];
    scales_q2_k(scale, base, b);
    for (int j = 0; j < 8; j++) {
        int8_t q[32];
        store_bytes(q, bits_of(bytes32_at(b + 16 + j / 4 * 32), j % 4 * 2, 3));
        scaled_and_moved(y + j * 32, q, 16, scale[2 * j], -base[2 * j]);
        scaled_and_moved(y + j * 32 + 16, q + 16, 16, scale[2 * j + 1], -base[2 * j + 1]);
    }
}

static inline void decode_q3_k(float *restrict y, const uint8_t *restrict b)
{
    float scale[16];
    scales_q3_k(scale, b);
    __m256i high = bytes32_at(b);
    for (int j = 0; j < 8; j++) {
        int8_t q[32];
        __m256i low = bits_of(bytes32_at(b + 32 + j / 4 * 32), j % 4 * 2, 3);
        /* Four where the bit is set, and four less altogether. */
        __m256i four = _mm256_slli_epi16(bits_of(high, j, 1), 2);
        store_bytes(q, _mm256_sub_epi8(_mm256_or_si256(low, four), _mm256_set1_epi8(4)));
        scaled(y + j * 32, q, 16, scale[2 * j]);
        scaled(y + j * 32 + 16, q + 16, 16, scale[2 * j + 1]);
    }
}

static inline void decode_q4_k(float *restrict y, const uint8_t *restrict b)
{
    float scale[8], base[8];
    scales_k4(scale, base, b);
    for (int j = 0; j < 8; j++) {
        int8_t q[32];
        store_bytes(q, bits_of(bytes32_at(b + 16 + j / 2 * 32), j % 2 * 4, 15));
        scaled_and_moved(y + j * 32, q, 32, scale[j], -base[j]);
    }
}

static inline void decode_q5_k(float *restrict y, const uint8_t *restrict b)
{
    float scale[8], base[8];
    scales_k4(scale, base, b);
    __m256i high = bytes32_at(b + 16);
    for (int j = 0; j < 8; j++) {
        int8_t q[32];
        __m256i low = bits_of(bytes32_at(b + 48 + j / 2 * 32), j % 2 * 4, 15);
        store_bytes(q, _mm256_or_si256(low, _mm256_slli_epi16(bits_of(high, j, 1), 4)));
        scaled_and_moved(y + j * 32, q, 32, scale[j], -base[j]);
    }
}

static inline void decode_q6_k(float *restrict y, const uint8_t *restrict b)
{
    float scale[16];
    scales_q6_k(scale, b);
    for (int j = 0; j < 8; j++) {
        int half = j / 4, quarter = j % 4;
        int8_t q[32];
        __m256i low = bits_of(bytes32_at(b + half * 64 + quarter % 2 * 32), quarter / 2 * 4, 15);
        __m256i high = bits_of(bytes32_at(b + 128 + half * 32), quarter * 2, 3);
        __m256i six = _mm256_or_si256(low, _mm256_slli_epi16(high, 4));
        store_bytes(q, _mm256_sub_epi8(six, _mm256_set1_epi8(32)));
        scaled(y + j * 32, q, 16, scale[2 * j]);
        scaled(y + j * 32 + 16, q + 16, 16, scale[2 * j + 1]);
    }
}

static inline void decode_half(float *restrict y, const uint8_t *restrict b, size_t n)
{
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(y + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i_u *)(b + 2 * i))));
    for (; i < n; i++)
        y[i] = half_at(b + 2 * i);
}
