#include "kernels/dequant.h"

#include "kernels/quant_types.h"

#include <string.h>

bool dure_quant_block(size_t *weights, size_t *bytes, uint32_t type)
{
    static const struct {
        uint32_t type, weights, bytes;
    } known[] = {
        {QUANT_F32, 1, 4},        {QUANT_F16, 1, 2},      {QUANT_BF16, 1, 2},
        {QUANT_Q4_0, 32, 18},     {QUANT_Q4_1, 32, 20},   {QUANT_Q5_0, 32, 22},
        {QUANT_Q5_1, 32, 24},     {QUANT_Q8_0, 32, 34},   {QUANT_IQ4_NL, 32, 18},
        {QUANT_Q2_K, 256, 84},    {QUANT_Q3_K, 256, 110}, {QUANT_Q4_K, 256, 144},
        {QUANT_Q5_K, 256, 176},   {QUANT_Q6_K, 256, 210}, {QUANT_Q8_K, 256, 292},
        {QUANT_IQ4_XS, 256, 136},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (known[i].type != type) continue;
        *weights = known[i].weights;
        *bytes = known[i].bytes;
        return true;
    }
    return false;
}

size_t dure_quant_row_bytes(uint32_t type, size_t n)
{
    size_t weights = 1, bytes = 0;
    DURE_ASSERT(dure_quant_block(&weights, &bytes, type) && n % weights == 0);
    return n / weights * bytes;
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
