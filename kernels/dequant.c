#include "kernels/dequant.h"

#include "kernels/quant_types.h"

#include <string.h>

/* Blocks of each type, and where in one its scales of half precision are. */
typedef struct quant_row {
    uint32_t type, weights, bytes, n_scales, scale[2];
} quant_row;

static const quant_row rows[] = {
    {QUANT_F32, 1, 4, 0, {0}},         {QUANT_F16, 1, 2, 1, {0}},
    {QUANT_BF16, 1, 2, 0, {0}},        {QUANT_Q4_0, 32, 18, 1, {0}},
    {QUANT_Q4_1, 32, 20, 2, {0, 2}},   {QUANT_Q5_0, 32, 22, 1, {0}},
    {QUANT_Q5_1, 32, 24, 2, {0, 2}},   {QUANT_Q8_0, 32, 34, 1, {0}},
    {QUANT_IQ4_NL, 32, 18, 1, {0}},    {QUANT_Q2_K, 256, 84, 2, {80, 82}},
    {QUANT_Q3_K, 256, 110, 1, {108}},  {QUANT_Q4_K, 256, 144, 2, {0, 2}},
    {QUANT_Q5_K, 256, 176, 2, {0, 2}}, {QUANT_Q6_K, 256, 210, 1, {208}},
    {QUANT_Q8_K, 256, 292, 0, {0}},    {QUANT_IQ4_XS, 256, 136, 1, {0}},
};

static const quant_row *find_row(uint32_t type)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (rows[i].type == type) return &rows[i];
    return NULL;
}

bool dure_quant_block(size_t *weights, size_t *bytes, uint32_t type)
{
    const quant_row *row = find_row(type);
    if (!row) return false;
    *weights = row->weights;
    *bytes = row->bytes;
    return true;
}

size_t dure_quant_row_bytes(uint32_t type, size_t n)
{
    const quant_row *row = find_row(type);
    DURE_ASSERT(row && n % row->weights == 0);
    return n / row->weights * row->bytes;
}

/* No u16 (or u32) at p, p + stride, ... has all bits of `exponent`, as infinity and NaN do. */
static bool all_finite_16(const uint8_t *p, size_t stride, size_t n, uint16_t exponent)
{
    unsigned bad = 0;
    for (size_t i = 0; i < n; i++) {
        uint16_t u;
        memcpy(&u, p + i * stride, sizeof u);
        bad |= (u & exponent) == exponent;
    }
    return !bad;
}

static bool all_finite_32(const uint8_t *p, size_t stride, size_t n)
{
    unsigned bad = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, p + i * stride, sizeof u);
        bad |= (u & 0x7F800000) == 0x7F800000;
    }
    return !bad;
}

bool dure_quant_finite(const uint8_t *blocks, size_t n, uint32_t type)
{
    const quant_row *row = find_row(type);
    DURE_ASSERT(row && n % row->weights == 0);
    /* Constant strides, so that the compiler makes vector code for the types with most scales. */
    if (type == QUANT_F32) return all_finite_32(blocks, 4, n);
    if (type == QUANT_BF16) return all_finite_16(blocks, 2, n, 0x7F80);
    if (type == QUANT_F16) return all_finite_16(blocks, 2, n, 0x7C00);
    if (type == QUANT_Q8_K) return all_finite_32(blocks, row->bytes, n / row->weights);
    bool finite = true;
    for (uint32_t i = 0; i < row->n_scales; i++)
        finite &= all_finite_16(blocks + row->scale[i], row->bytes, n / row->weights, 0x7C00);
    return finite;
}

float dure_bf16_to_float(uint16_t bf16)
{
    uint32_t u = (uint32_t)bf16 << 16;
    float value;
    memcpy(&value, &u, sizeof value);
    return value;
}

float dure_half_to_float(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31;
    uint32_t mantissa = half & 0x3FF;
    float value;
    if (exponent == 0) {
        /* Zero and subnormal halves: mantissa * 2^-24, exact in float32. */
        value = (float)mantissa * 0x1p-24f;
        return sign ? -value : value;
    }
    uint32_t u = sign | (exponent == 31 ? 255u : exponent + 112) << 23 | mantissa << 13;
    memcpy(&value, &u, sizeof value);
    return value;
}

uint16_t dure_float_to_half(float value)
{
    uint32_t u;
    memcpy(&u, &value, sizeof u);
    uint16_t sign = (uint16_t)(u >> 16 & 0x8000);
    u &= 0x7FFFFFFF;
    if (u > 0x7F800000) return sign | 0x7E00;  /* NaN, made quiet */
    if (u >= 0x477FF000) return sign | 0x7C00; /* rounds to 2^16 or more: infinity */
    if (u < 0x38800000) {
        /* Below 2^-14 the half is a multiple of 2^-24; adding 0.5 lets the FPU round it. */
        float magnitude, half_unit = 0.5f;
        memcpy(&magnitude, &u, sizeof magnitude);
        magnitude += half_unit;
        uint32_t rounded, base;
        memcpy(&rounded, &magnitude, sizeof rounded);
        memcpy(&base, &half_unit, sizeof base);
        return (uint16_t)(sign | (rounded - base));
    }
    u += 0xFFF + (u >> 13 & 1);
    return (uint16_t)(sign | (u - 0x38000000) >> 13);
}

uint16_t dure_float_to_bf16(float value)
{
    uint32_t u;
    memcpy(&u, &value, sizeof u);
    if ((u & 0x7FFFFFFF) > 0x7F800000) return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7FFF + (u >> 16 & 1)) >> 16);
}
