/* One block of each type, one weight after the other: what the vector forms are compared with.
 * Layouts: ggml src/ggml-common.h; order of the elements: src/ggml-quants.c, dequantize_row_*.
 * `half_at` and `scale_iq4_xs` come from kernels/ref/dequant_body.h. */
#pragma once

#include <stdint.h>
#include <string.h>

static inline uint32_t u32_at(const uint8_t *p)
{
    uint32_t u;
    memcpy(&u, p, sizeof u);
    return u;
}

static void decode_q4_0(float *restrict y, const uint8_t *restrict b)
{
    float d = half_at(b);
    for (int j = 0; j < 16; j++) {
        y[j] = (float)((b[2 + j] & 15) - 8) * d;
        y[j + 16] = (float)((b[2 + j] >> 4) - 8) * d;
    }
}

static void decode_q4_1(float *restrict y, const uint8_t *restrict b)
{
    float d = half_at(b), m = half_at(b + 2);
    for (int j = 0; j < 16; j++) {
        y[j] = (float)(b[4 + j] & 15) * d + m;
        y[j + 16] = (float)(b[4 + j] >> 4) * d + m;
    }
}

static void decode_q8_0(float *restrict y, const uint8_t *restrict b)
{
    float d = half_at(b);
    for (int j = 0; j < 32; j++)
        y[j] = (float)(int8_t)b[2 + j] * d;
}

static void decode_q5_0(float *restrict y, const uint8_t *restrict b)
{
    float d = half_at(b);
    uint32_t high = u32_at(b + 2);
    for (int j = 0; j < 16; j++) {
        int low = (b[6 + j] & 15) | (int)(high >> j & 1) << 4;
        int top = b[6 + j] >> 4 | (int)(high >> (j + 16) & 1) << 4;
        y[j] = (float)(low - 16) * d;
        y[j + 16] = (float)(top - 16) * d;
    }
}

static void decode_q5_1(float *restrict y, const uint8_t *restrict b)
{
    float d = half_at(b), m = half_at(b + 2);
    uint32_t high = u32_at(b + 4);
    for (int j = 0; j < 16; j++) {
        int low = (b[8 + j] & 15) | (int)(high >> j & 1) << 4;
        int top = b[8 + j] >> 4 | (int)(high >> (j + 16) & 1) << 4;
        y[j] = (float)low * d + m;
        y[j + 16] = (float)top * d + m;
    }
}

static void decode_q8_k(float *restrict y, const uint8_t *restrict b)
{
    float d;
    memcpy(&d, b, sizeof d);
    for (int j = 0; j < 256; j++)
        y[j] = (float)(int8_t)b[4 + j] * d;
}

static inline void iq4_levels(float *restrict y, const uint8_t *restrict q, float d)
{
    static const int8_t level[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                     1,    13,   25,  38,  53,  69,  89,  113};
    for (int j = 0; j < 16; j++) {
        y[j] = (float)level[q[j] & 15] * d;
        y[j + 16] = (float)level[q[j] >> 4] * d;
    }
}

static void decode_iq4_nl(float *restrict y, const uint8_t *restrict b)
{
    iq4_levels(y, b + 2, half_at(b));
}

static void decode_iq4_xs(float *restrict y, const uint8_t *restrict b)
{
    float d = half_at(b);
    for (int j = 0; j < 8; j++)
        iq4_levels(y + j * 32, b + 8 + j * 16, d * (float)scale_iq4_xs(j, b));
}

static void decode_q2_k(float *restrict y, const uint8_t *restrict b)
{
    float d = half_at(b + 80), low = half_at(b + 82);
    for (int group = 0; group < 16; group++) {
        /* Two halves of 128; in each, four shifts; in each shift, two runs of 16. */
        const uint8_t *q = b + 16 + group / 8 * 32 + group % 2 * 16;
        int shift = group % 8 / 2 * 2;
        float scale = d * (float)(b[group] & 15), base = low * (float)(b[group] >> 4);
        for (int l = 0; l < 16; l++)
            y[group * 16 + l] = scale * (float)(q[l] >> shift & 3) - base;
    }
}

static void decode_q3_k(float *restrict y, const uint8_t *restrict b)
{
    const uint8_t *s = b + 96;
    float d = half_at(b + 108);
    for (int group = 0; group < 16; group++) {
        const uint8_t *q = b + 32 + group / 8 * 32 + group % 2 * 16, *high = b + group % 2 * 16;
        int shift = group % 8 / 2 * 2, bit = group / 2;
        int low = group < 8 ? s[group] & 15 : s[group - 8] >> 4;
        int scale = (low | (s[8 + group % 4] >> (group / 4 * 2) & 3) << 4) - 32;
        float f = d * (float)scale;
        for (int l = 0; l < 16; l++)
            y[group * 16 + l] = f * (float)((q[l] >> shift & 3) - (high[l] >> bit & 1 ? 0 : 4));
    }
}

/* The 6-bit scale and minimum of sub-block j of Q4_K and Q5_K. */
static inline void scale_min_k4(int *scale, int *min, int j, const uint8_t *q)
{
    if (j < 4) {
        *scale = q[j] & 63;
        *min = q[j + 4] & 63;
    } else {
        *scale = (q[j + 4] & 15) | q[j - 4] >> 6 << 4;
        *min = q[j + 4] >> 4 | q[j] >> 6 << 4;
    }
}

static void decode_q4_k(float *restrict y, const uint8_t *restrict b)
{
    float d = half_at(b), low = half_at(b + 2);
    for (int j = 0; j < 8; j++) {
        const uint8_t *q = b + 16 + j / 2 * 32;
        int scale, min, shift = j % 2 * 4;
        scale_min_k4(&scale, &min, j, b + 4);
        float f = d * (float)scale, base = low * (float)min;
        for (int l = 0; l < 32; l++)
            y[j * 32 + l] = f * (float)(q[l] >> shift & 15) - base;
    }
}

static void decode_q5_k(float *restrict y, const uint8_t *restrict b)
{
    float d = half_at(b), low = half_at(b + 2);
    for (int j = 0; j < 8; j++) {
        const uint8_t *high = b + 16, *q = b + 48 + j / 2 * 32;
        int scale, min, shift = j % 2 * 4;
        scale_min_k4(&scale, &min, j, b + 4);
        float f = d * (float)scale, base = low * (float)min;
        for (int l = 0; l < 32; l++)
            y[j * 32 + l] = f * (float)((q[l] >> shift & 15) + (high[l] >> j & 1) * 16) - base;
    }
}

static void decode_q6_k(float *restrict y, const uint8_t *restrict b)
{
    float d = half_at(b + 208);
    for (int group = 0; group < 16; group++) {
        /* Two halves of 128; in each, four quarters of 32; in each, two runs of 16. */
        int half = group / 8, quarter = group % 8 / 2, run = group % 2 * 16;
        const uint8_t *low = b + half * 64 + quarter % 2 * 32 + run;
        const uint8_t *high = b + 128 + half * 32 + run;
        int low_shift = quarter / 2 * 4, high_shift = quarter * 2;
        float f = d * (float)(int8_t)b[192 + group];
        for (int l = 0; l < 16; l++) {
            int q = (low[l] >> low_shift & 15) | (high[l] >> high_shift & 3) << 4;
            y[group * 16 + l] = f * (float)(q - 32);
        }
    }
}

static void decode_half(float *restrict y, const uint8_t *restrict b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = half_at(b + 2 * i);
}
