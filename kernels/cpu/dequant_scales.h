/* The scales and minima of one K block as float32, sixteen or eight at a time, for AVX2 and up.
 * Every product is of a half-precision number and at most seven bits, so it is exact. */
#pragma once

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

/* The scales are converted eight bytes at a time, because that form of the instruction leaves the
 * shuffle port free; whoever calls has eight bytes there. */
static inline __m128 halves_at(const uint8_t *p)
{
    return _mm_cvtph_ps(_mm_loadl_epi64((const __m128i_u *)p));
}

/* out[i] = byte i of `bytes` * d, bytes signed. */
static inline void scale_bytes(float out[8], uint64_t bytes, float d)
{
    __m256i wide = _mm256_cvtepi8_epi32(_mm_cvtsi64_si128((long long)bytes));
    _mm256_storeu_ps(out, _mm256_mul_ps(_mm256_cvtepi32_ps(wide), _mm256_set1_ps(d)));
}

static inline uint64_t u64_at(const uint8_t *p)
{
    uint64_t u;
    memcpy(&u, p, sizeof u);
    return u;
}

/* Q4_K and Q5_K: d * scale and low * minimum of the eight sub-blocks. */
static inline void scales_k4(float scale[8], float base[8], const uint8_t *b)
{
    float d = _cvtsh_ss((uint16_t)(b[0] | b[1] << 8)),
          low = _cvtsh_ss((uint16_t)(b[2] | b[3] << 8));
    uint64_t first = u64_at(b + 4), last;
    uint32_t high;
    memcpy(&high, b + 12, sizeof high);
    /* Sub-blocks 0 to 3 have their six bits together, 4 to 7 four in `high` and two above these. */
    uint32_t s = (uint32_t)first, m = (uint32_t)(first >> 32);
    last = (high & 0x0F0F0F0F) | (s >> 2 & 0x30303030);
    scale_bytes(scale, (s & 0x3F3F3F3F) | last << 32, d);
    last = (high >> 4 & 0x0F0F0F0F) | (m >> 2 & 0x30303030);
    scale_bytes(base, (m & 0x3F3F3F3F) | last << 32, low);
}

/* Q2_K: four bits each of a scale and a minimum. */
static inline void scales_q2_k(float scale[16], float base[16], const uint8_t *b)
{
    float d = _cvtsh_ss((uint16_t)(b[80] | b[81] << 8)),
          low = _cvtsh_ss((uint16_t)(b[82] | b[83] << 8));
    for (int i = 0; i < 16; i += 8) {
        uint64_t bytes = u64_at(b + i);
        scale_bytes(scale + i, bytes & 0x0F0F0F0F0F0F0F0F, d);
        scale_bytes(base + i, bytes >> 4 & 0x0F0F0F0F0F0F0F0F, low);
    }
}

/* Q3_K: sixteen scales of six bits less 32; the low four bits are in the first eight bytes. */
static inline void scales_q3_k(float scale[16], const uint8_t *b)
{
    float d = _cvtsh_ss((uint16_t)(b[108] | b[109] << 8));
    uint64_t low = u64_at(b + 96), high;
    uint32_t top;
    memcpy(&top, b + 104, sizeof top);
    for (int i = 0; i < 16; i += 8) {
        high = (top >> i / 2 & 0x03030303) | (uint64_t)(top >> (i / 2 + 2) & 0x03030303) << 32;
        uint64_t six = (low >> i / 2 & 0x0F0F0F0F0F0F0F0F) | high << 4;
        /* Adding 0x60 to each byte and flipping its top bit takes 32 from it without a borrow. */
        scale_bytes(scale + i, (six + 0x6060606060606060) ^ 0x8080808080808080, d);
    }
}

static inline void scales_q6_k(float scale[16], const uint8_t *b)
{
    float d = _cvtsh_ss((uint16_t)(b[208] | b[209] << 8));
    scale_bytes(scale, u64_at(b + 192), d);
    scale_bytes(scale + 8, u64_at(b + 200), d);
}
