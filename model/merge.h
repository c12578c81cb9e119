/* A base and an adapter as one GGUF, and how much of the adapter survives in it.
 *
 * Only the adapted matrices change: each row is decoded, s * B A is added in float32, and the sum
 * is stored as a wider type. All other tensors and keys are copied as they are. Rounding the sum
 * back to the type of a 4-bit base is not offered: its weights sit on grid points, and a step of
 * the grid is far larger than a typical update, so most of it would be erased.
 *
 * Threads: one call works in the caller's thread. */
#pragma once

#include "common/err.h"
#include "model/gguf.h"
#include "model/lora.h"

typedef enum dure_merge_mode {
    DURE_MERGE_F16,   /* adapted matrices as F16 (F32 stays F32): exact but for half's rounding */
    DURE_MERGE_MIXED, /* quantized adapted matrices as Q8_0, those of Q8_0 and plain types as F16 */
} dure_merge_mode;

/* "f16" or "mixed". DURE_ERR_UNSUPPORTED with the reason for "same" and names of 4-bit types. */
DURE_MUST_USE dure_err dure_merge_mode_parse(dure_merge_mode *out, const char *text,
                                             dure_diag *diag);

/* For one adapted matrix, with W the decoded base, D = s * B A and M the decoded merged matrix. */
typedef struct dure_merge_fidelity {
    char tensor[64];
    uint32_t from_type, to_type; /* dure_gguf_type */
    double relative_size;        /* |D| / |W|, Frobenius norms */
    double gain;                 /* <M - W, D> / <D, D>; 1: all of the update is kept */
    double relative_error;       /* |M - W - D| / |D|; 0: nothing else changed */
} dure_merge_fidelity;

typedef struct dure_merge_report {
    dure_merge_fidelity *tensors;
    size_t n;
    double gain, relative_error; /* over all adapted matrices together */
} dure_merge_report;
void dure_merge_report_fini(dure_merge_report *report);

typedef struct dure_merge_opts {
    dure_merge_mode mode;
    const char *base_digest, *adapter_digest; /* hex, kept as keys of the file; NULL: left out */
} dure_merge_opts;

/* Writes `path` atomically. DURE_ERR_STATE if the adapter belongs to another base,
 * DURE_ERR_FORMAT if a merged weight overflows a half. *out is empty on error. */
DURE_MUST_USE dure_err dure_merge_save(dure_merge_report *out, const char *path,
                                       const dure_gguf *base, const dure_lora *lora,
                                       const dure_merge_opts *opts, dure_diag *diag);
