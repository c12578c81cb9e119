/* Decoding of every block type: the reference and the level for any CPU compile plain loops, AVX2
 * and AVX-512 have functions of the same names. All versions give the same bits: the
 * products of the small integers with the half-precision scales are exact in float32, so each
 * weight is rounded at most once. (Q8_K has a float32 scale, and one product in all versions.)
 *
 * Layouts: ggml src/ggml-common.h; order of the elements: src/ggml-quants.c, dequantize_row_*. */
#pragma once

#include "kernels/dequant.h"
#include "kernels/quant_types.h"

#include <string.h>

#if defined(__F16C__)
#include <immintrin.h>
static inline float half_at(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return _cvtsh_ss(h);
}
#else
static inline float half_at(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return dure_half_to_float(h);
}
#endif

/* The scale of sub-block j: four bits in b[4..7], two above them in b[2..3], less 32. */
static inline int scale_iq4_xs(int j, const uint8_t *b)
{
    int high = (b[2] | b[3] << 8) >> 2 * j & 3;
    return ((b[4 + j / 2] >> j % 2 * 4 & 15) | high << 4) - 32;
}

#if defined(__AVX512F__)
#include "kernels/cpu/dequant_avx512.h"
#elif defined(__AVX2__)
#include "kernels/cpu/dequant_avx2.h"
#else
#include "kernels/ref/dequant_plain.h"
#endif

static void decode_bf16(float *restrict y, const uint8_t *restrict b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t top;
        memcpy(&top, b + 2 * i, sizeof top);
        uint32_t u = (uint32_t)top << 16;
        memcpy(y + i, &u, sizeof u);
    }
}

#define DECODE_BLOCKS(decode, weights, size)                                                       \
    for (size_t i = 0; i < n / (weights); i++)                                                     \
        decode(out + i * (weights), blocks + i * (size));                                          \
    break

static void dequant(float *out, const uint8_t *blocks, size_t n, uint32_t type)
{
    switch (type) {
    case QUANT_F32:
        memcpy(out, blocks, n * sizeof *out);
        break;
    case QUANT_F16:
        decode_half(out, blocks, n);
        break;
    case QUANT_BF16:
        decode_bf16(out, blocks, n);
        break;
    case QUANT_Q4_0:
        DECODE_BLOCKS(decode_q4_0, 32, 18);
    case QUANT_Q4_1:
        DECODE_BLOCKS(decode_q4_1, 32, 20);
    case QUANT_Q5_0:
        DECODE_BLOCKS(decode_q5_0, 32, 22);
    case QUANT_Q5_1:
        DECODE_BLOCKS(decode_q5_1, 32, 24);
    case QUANT_Q8_0:
        DECODE_BLOCKS(decode_q8_0, 32, 34);
    case QUANT_IQ4_NL:
        DECODE_BLOCKS(decode_iq4_nl, 32, 18);
    case QUANT_Q2_K:
        DECODE_BLOCKS(decode_q2_k, 256, 84);
    case QUANT_Q3_K:
        DECODE_BLOCKS(decode_q3_k, 256, 110);
    case QUANT_Q4_K:
        DECODE_BLOCKS(decode_q4_k, 256, 144);
    case QUANT_Q5_K:
        DECODE_BLOCKS(decode_q5_k, 256, 176);
    case QUANT_Q6_K:
        DECODE_BLOCKS(decode_q6_k, 256, 210);
    case QUANT_Q8_K:
        DECODE_BLOCKS(decode_q8_k, 256, 292);
    case QUANT_IQ4_XS:
        DECODE_BLOCKS(decode_iq4_xs, 256, 136);
    default:
        DURE_ASSERT(type == QUANT_F32); /* dure_quant_block() refuses all others */
    }
}
