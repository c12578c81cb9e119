/* Quantized weights of GGUF files as float32, bit for bit as ggml's dequantize_row_*.
 * Source: ggml src/ggml-common.h (layouts) and src/ggml-quants.c. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Weights in one block and its bytes, for a ggml type id; false when Dure cannot decode the type.
 * Plain types have blocks of one. */
bool dure_quant_block(size_t *weights, size_t *bytes, uint32_t type);
/* Bytes of a row of n weights, n a multiple of the block. */
size_t dure_quant_row_bytes(uint32_t type, size_t n);
/* Whether every scale (in plain types: every weight) of n weights is finite. */
bool dure_quant_finite(const uint8_t *blocks, size_t n, uint32_t type);

float dure_half_to_float(uint16_t half);
float dure_bf16_to_float(uint16_t bf16);
/* Round to nearest, ties to even; overflow gives infinity, NaN stays NaN. */
uint16_t dure_float_to_half(float value);
uint16_t dure_float_to_bf16(float value);
