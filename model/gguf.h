/* A GGUF v3 file (and v2), mapped read-only and validated before anything is used. A model in
 * several files, NAME-00001-of-0000N.gguf and on, is opened by the first of them.
 *
 * Every length is checked against what is left of the file and against `limits` before it is
 * used; keys and tensor names are unique; offsets are aligned and inside the file; dimensions
 * multiply without overflow. A file that opens can be walked without further bounds checks.
 *
 * Threads: read-only after opening. Source: ggml docs/gguf.md. */
#pragma once

#include "common/buf.h"
#include "common/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum dure_gguf_type {
    DURE_GGUF_F32 = 0,
    DURE_GGUF_F16 = 1,
    DURE_GGUF_Q4_0 = 2,
    DURE_GGUF_Q4_1 = 3,
    DURE_GGUF_Q5_0 = 6,
    DURE_GGUF_Q5_1 = 7,
    DURE_GGUF_Q8_0 = 8,
    DURE_GGUF_Q2_K = 10,
    DURE_GGUF_Q3_K = 11,
    DURE_GGUF_Q4_K = 12,
    DURE_GGUF_Q5_K = 13,
    DURE_GGUF_Q6_K = 14,
    DURE_GGUF_Q8_K = 15,
    DURE_GGUF_IQ4_NL = 20,
    DURE_GGUF_IQ4_XS = 23,
    DURE_GGUF_BF16 = 30,
} dure_gguf_type;

typedef struct dure_gguf_limits {
    uint64_t max_tensors, max_keys, max_key_bytes, max_text_bytes, max_array, max_alignment,
        max_files;
} dure_gguf_limits;
extern const dure_gguf_limits dure_gguf_default_limits;

typedef struct dure_gguf_tensor {
    const char *name;
    uint32_t type; /* dure_gguf_type, or another id of the format that only `bytes` is known for */
    uint32_t n_dims;
    uint64_t dims[4];    /* dims[0] is contiguous: in_features */
    const uint8_t *data; /* borrowed from the map */
    size_t bytes;
} dure_gguf_tensor;

typedef struct dure_gguf dure_gguf;

/* The caller owns *out, dure_gguf_close(&g). On error *out is NULL and `diag` names the key or
 * tensor, and the file. `limits` NULL: the defaults. A part other than the first, and a first part
 * whose others are missing, misnamed, misnumbered or of another model, are refused. */
DURE_MUST_USE dure_err dure_gguf_open(dure_gguf **out, const char *path,
                                      const dure_gguf_limits *limits, dure_diag *diag);
/* As dure_gguf_open() over bytes that outlive *out; for tests and the fuzzer. */
DURE_MUST_USE dure_err dure_gguf_parse(dure_gguf **out, dure_span bytes,
                                       const dure_gguf_limits *limits, dure_diag *diag);
/* As dure_gguf_parse() over the n >= 1 parts of a model, in order. */
DURE_MUST_USE dure_err dure_gguf_parse_parts(dure_gguf **out, const dure_span *parts, size_t n,
                                             const dure_gguf_limits *limits, dure_diag *diag);
void dure_gguf_close(dure_gguf **g);
/* Lets the system take back the memory of the pages read so far; they come back when needed. */
void dure_gguf_let_go(const dure_gguf *g);

/* How many files a model has whose first file is `path`, by its name alone: 1 unless it ends in
 * "-00001-of-0000N.gguf". */
uint32_t dure_gguf_files_of(const char *path);
/* The name of file i (from 0) of that model. The caller frees it; NULL: out of memory. */
char *dure_gguf_file_name(const char *path, uint32_t i);

/* DURE_ERR_FORMAT names the first tensor with a scale or weight that is not finite: one of them
 * would poison every result. Reads all blocks once, so it is for whoever computes with them. */
DURE_MUST_USE dure_err dure_gguf_check_finite(const dure_gguf *g, dure_diag *diag);

uint64_t dure_gguf_bytes(const dure_gguf *g); /* of all files */
size_t dure_gguf_tensor_count(const dure_gguf *g);
const dure_gguf_tensor *dure_gguf_tensor_at(const dure_gguf *g, size_t i);
const dure_gguf_tensor *dure_gguf_find(const dure_gguf *g, const char *name); /* NULL: not there */
const char *dure_gguf_type_name(uint32_t type); /* "Q4_1", or "type 99" */
/* Bytes of a row of n elements. DURE_ERR_UNSUPPORTED for a type of unknown layout, DURE_ERR_FORMAT
 * when n is not a multiple of its block. */
DURE_MUST_USE dure_err dure_gguf_row_bytes(size_t *bytes, uint32_t type, uint64_t n,
                                           dure_diag *diag);

/* Metadata. A missing key is DURE_ERR_NOT_FOUND, another type DURE_ERR_FORMAT; both are named in
 * `diag`. Unsigned getters accept any integer type that holds the value. */
bool dure_gguf_has(const dure_gguf *g, const char *key);
DURE_MUST_USE dure_err dure_gguf_u32(uint32_t *out, const dure_gguf *g, const char *key,
                                     dure_diag *diag);
DURE_MUST_USE dure_err dure_gguf_f32(float *out, const dure_gguf *g, const char *key,
                                     dure_diag *diag);
DURE_MUST_USE dure_err dure_gguf_bool(bool *out, const dure_gguf *g, const char *key,
                                      dure_diag *diag);
DURE_MUST_USE dure_err dure_gguf_text(dure_span *out, const dure_gguf *g, const char *key,
                                      dure_diag *diag);
/* Arrays: the count, then elements by index. */
DURE_MUST_USE dure_err dure_gguf_array(size_t *n, const dure_gguf *g, const char *key,
                                       dure_diag *diag);
DURE_MUST_USE dure_err dure_gguf_array_text(dure_span *out, const dure_gguf *g, const char *key,
                                            size_t i, dure_diag *diag);
DURE_MUST_USE dure_err dure_gguf_array_i32(int32_t *out, const dure_gguf *g, const char *key,
                                           size_t i, dure_diag *diag);
DURE_MUST_USE dure_err dure_gguf_array_f32(float *out, const dure_gguf *g, const char *key,
                                           size_t i, dure_diag *diag);
DURE_MUST_USE dure_err dure_gguf_array_bool(bool *out, const dure_gguf *g, const char *key,
                                            size_t i, dure_diag *diag);
/* Walks the keys in file order (for `dure model info`): name and a printable value, cut short. */
size_t dure_gguf_key_count(const dure_gguf *g);
const char *dure_gguf_key_at(char value[128], const dure_gguf *g, size_t i);
/* A text of the file for people: cut to 127 bytes, control characters as '.'. */
void dure_gguf_print(char out[128], dure_span text);
