/* One thread a weight. Layouts: kernels/ref/dequant_plain.h, from ggml src/ggml-common.h. */
#include "kernels/cuda/dequant.h"

#include "kernels/cuda/language.h"
#include "kernels/quant_types.h"

enum { BLOCK = 256 };

DURE_DEVICE float half_at(const uint8_t *p)
{
    uint32_t half = (uint32_t)p[0] | (uint32_t)p[1] << 8;
    uint32_t sign = (half & 0x8000u) << 16, exponent = half >> 10 & 31u, mantissa = half & 0x3FFu;
    float x;
    if (exponent == 0) {
        x = (float)mantissa * 5.9604644775390625e-8f; /* 2^-24 */
        return sign ? -x : x;
    }
    uint32_t u = sign | (exponent == 31 ? 255u : exponent + 112u) << 23 | mantissa << 13;
    memcpy(&x, &u, sizeof x);
    return x;
}

DURE_DEVICE float float_at(const uint8_t *p)
{
    float x;
    uint32_t u = (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* Element j of 32 in sixteen bytes: the low nibbles first. */
DURE_DEVICE int nibble(const uint8_t *q, int j)
{
    return j < 16 ? q[j] & 15 : q[j - 16] >> 4;
}

DURE_DEVICE float weight_iq4(const uint8_t *q, int j, float d)
{
    const int8_t level[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                              1,    13,   25,  38,  53,  69,  89,  113};
    return (float)level[nibble(q, j)] * d;
}

DURE_DEVICE float weight_iq4_xs(const uint8_t *b, int i)
{
    int j = i / 32;
    int high = (b[2] | b[3] << 8) >> 2 * j & 3;
    int scale = ((b[4 + j / 2] >> j % 2 * 4 & 15) | high << 4) - 32;
    return weight_iq4(b + 8 + j * 16, i % 32, half_at(b) * (float)scale);
}

DURE_DEVICE float weight_q2_k(const uint8_t *b, int i)
{
    int group = i / 16;
    const uint8_t *q = b + 16 + group / 8 * 32 + group % 2 * 16;
    float scale = half_at(b + 80) * (float)(b[group] & 15);
    float base = half_at(b + 82) * (float)(b[group] >> 4);
    return scale * (float)(q[i % 16] >> group % 8 / 2 * 2 & 3) - base;
}

DURE_DEVICE float weight_q3_k(const uint8_t *b, int i)
{
    int group = i / 16, l = i % 16;
    const uint8_t *s = b + 96, *q = b + 32 + group / 8 * 32 + group % 2 * 16;
    int low = group < 8 ? s[group] & 15 : s[group - 8] >> 4;
    int scale = (low | (s[8 + group % 4] >> group / 4 * 2 & 3) << 4) - 32;
    int high = b[group % 2 * 16 + l] >> group / 2 & 1;
    int value = (q[l] >> group % 8 / 2 * 2 & 3) - (high ? 0 : 4);
    return half_at(b + 108) * (float)scale * (float)value;
}

DURE_DEVICE float weight_k4(const uint8_t *b, int i, int five)
{
    int j = i / 32, l = i % 32;
    const uint8_t *s = b + 4, *q = b + (five ? 48 : 16) + j / 2 * 32;
    int scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
    int min = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | s[j] >> 6 << 4;
    int value = q[l] >> j % 2 * 4 & 15;
    if (five) value += (b[16 + l] >> j & 1) * 16;
    float f = half_at(b) * (float)scale, base = half_at(b + 2) * (float)min;
    return f * (float)value - base;
}

DURE_DEVICE float weight_q6_k(const uint8_t *b, int i)
{
    int group = i / 16, l = i % 16, half = group / 8, quarter = group % 8 / 2;
    const uint8_t *low = b + half * 64 + quarter % 2 * 32 + group % 2 * 16;
    const uint8_t *high = b + 128 + half * 32 + group % 2 * 16;
    int q = (low[l] >> quarter / 2 * 4 & 15) | (high[l] >> quarter * 2 & 3) << 4;
    return half_at(b + 208) * (float)(int8_t)b[192 + group] * (float)(q - 32);
}

DURE_DEVICE float weight_q5(const uint8_t *b, int j, int with_min)
{
    int at = with_min ? 4 : 2;
    uint32_t high = (uint32_t)b[at] | (uint32_t)b[at + 1] << 8 | (uint32_t)b[at + 2] << 16 |
                    (uint32_t)b[at + 3] << 24;
    int q = nibble(b + at + 4, j) | (int)(high >> j & 1) << 4;
    return with_min ? (float)q * half_at(b) + half_at(b + 2) : (float)(q - 16) * half_at(b);
}

/* Weight i of a run of blocks of 256. */
DURE_DEVICE float weight_of_256(const uint8_t *blocks, size_t i, uint32_t type)
{
    size_t n = i / 256;
    int j = (int)(i % 256);
    switch (type) {
    case QUANT_Q2_K:
        return weight_q2_k(blocks + n * 84, j);
    case QUANT_Q3_K:
        return weight_q3_k(blocks + n * 110, j);
    case QUANT_Q4_K:
        return weight_k4(blocks + n * 144, j, 0);
    case QUANT_Q5_K:
        return weight_k4(blocks + n * 176, j, 1);
    case QUANT_Q6_K:
        return weight_q6_k(blocks + n * 210, j);
    case QUANT_Q8_K:
        return (float)(int8_t)blocks[n * 292 + 4 + (size_t)j] * float_at(blocks + n * 292);
    default:
        return weight_iq4_xs(blocks + n * 136, j);
    }
}

/* Weight i of a run of blocks of any type. */
DURE_DEVICE float weight_at(const uint8_t *blocks, size_t i, uint32_t type)
{
    size_t n = i / 32;
    int j = (int)(i % 32);
    const uint8_t *b;
    switch (type) {
    case QUANT_F32:
        return float_at(blocks + 4 * i);
    case QUANT_F16:
        return half_at(blocks + 2 * i);
    case QUANT_BF16:
        return from_bf16((uint16_t)(blocks[2 * i] | blocks[2 * i + 1] << 8));
    case QUANT_Q4_0:
        b = blocks + n * 18;
        return (float)(nibble(b + 2, j) - 8) * half_at(b);
    case QUANT_Q4_1:
        b = blocks + n * 20;
        return (float)nibble(b + 4, j) * half_at(b) + half_at(b + 2);
    case QUANT_Q5_0:
        return weight_q5(blocks + n * 22, j, 0);
    case QUANT_Q5_1:
        return weight_q5(blocks + n * 24, j, 1);
    case QUANT_Q8_0:
        b = blocks + n * 34;
        return (float)(int8_t)b[2 + j] * half_at(b);
    case QUANT_IQ4_NL:
        b = blocks + n * 18;
        return weight_iq4(b + 2, j, half_at(b));
    default:
        return weight_of_256(blocks, i, type);
    }
}

typedef struct dequant_args {
    uint16_t *out;
    const uint8_t *blocks;
    size_t n;
    uint32_t type;
} dequant_args;

DURE_KERNEL(dequant, dequant_args)
{
    size_t i = thread_number();
    if (i < a.n) a.out[i] = to_bf16(weight_at(a.blocks, i, a.type));
}

void dure_cuda_dequant(dure_device *device, uint16_t *out, const uint8_t *blocks, size_t n,
                       uint32_t type)
{
    dequant_args a = {out, blocks, n, type};
    DURE_LAUNCH(dequant, dure_blocks_for(n, BLOCK), 1, BLOCK, 0, dure_device_stream(device), a);
    dure_device_launched(device);
}

/* One block a token. */
DURE_KERNEL(embed, dure_cuda_embed)
{
    size_t row = blockIdx.x;
    const uint8_t *from = a.table + (size_t)a.tokens[row] * a.row_bytes;
    for (size_t i = threadIdx.x; i < a.width; i += blockDim.x)
        a.x[row * a.width + i] = a.scale * weight_at(from, i, a.type);
}

void dure_cuda_embed_rows(dure_device *device, const dure_cuda_embed *args)
{
    DURE_LAUNCH(embed, args->rows, 1, BLOCK, 0, dure_device_stream(device), *args);
    dure_device_launched(device);
}
