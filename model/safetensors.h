/* safetensors: a JSON header with names, types and byte ranges, then the data. The file is held in
 * memory; Dure reads and writes adapters with it, not models.
 *
 * Source: github.com/huggingface/safetensors, README, "Format". */
#pragma once

#include "common/buf.h"
#include "common/err.h"

#include <jansson.h>
#include <stdbool.h>

/* Bytes of a header; a longer one is refused. */
enum { DURE_SAFETENSORS_HEADER_MAX = 16 << 20 };

/* A matrix of the file, or a vector: its cols are 1. */
typedef struct dure_safetensor {
    const char *name; /* borrowed */
    uint32_t type;    /* DURE_GGUF_F32, F16 or BF16 */
    uint64_t rows, cols;
    bool is_vector;
    const uint8_t *data; /* borrowed */
} dure_safetensor;

typedef struct dure_safetensors {
    json_t *header; /* owned */
    dure_safetensor *tensors;
    size_t n;
} dure_safetensors;

/* `bytes` must outlive *out; dure_safetensors_fini(out). Names are printable ASCII. A tensor of
 * another type or number of dimensions is DURE_ERR_UNSUPPORTED, a range that is not inside the
 * file or not of the tensor's size, and ranges that together are longer than the file,
 * DURE_ERR_FORMAT. */
DURE_MUST_USE dure_err dure_safetensors_parse(dure_safetensors *out, dure_span bytes,
                                              dure_diag *diag);
void dure_safetensors_fini(dure_safetensors *file);

/* Appends the file: F32 tensors in the order given, `metadata` (texts by name, may be NULL) in
 * ascending order. */
DURE_MUST_USE dure_err dure_safetensors_encode(dure_buf *out, const dure_safetensor *tensors,
                                               size_t n, const json_t *metadata);
