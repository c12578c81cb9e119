/* Frozen products in bfloat16 with float32 sums, by oneDNN, where the CPU multiplies bfloat16 in
 * hardware (AVX-512 BF16, AMX): about twice the speed of float32.
 *
 * Invariants:
 * 1. Only implementations whose name begins with "brg" are used: their rows do not depend on each
 *    other, the "gemm" ones do.
 * 2. Every call multiplies exactly DURE_BF16_ROWS rows (the last block padded with zeros) on one
 *    thread with one primitive, so neither the number of rows nor of threads can change a bit.
 * 3. A long inner dimension is cut into parts of fixed length whose float32 results are added in
 *    order.
 *
 * Threads: packing is single-threaded; a packed weight is read-only. */
#pragma once

#include "kernels/matmul.h"

enum { DURE_BF16_ROWS = 64 };

typedef struct dure_bf16_opts {
    bool backward;   /* pack W for dy W too */
    bool any_kernel; /* tests only: also take an implementation that breaks invariant 1 */
} dure_bf16_opts;

/* Whether this CPU and this oneDNN have such a kernel for a weight of this size; its name, e.g.
 * "brg:avx512_core_bf16", goes to `name`. */
bool dure_bf16_available(char name[64], size_t out, size_t in, const dure_bf16_opts *opts);

/* Sets w->packed, or adds what is missing there. DURE_ERR_UNSUPPORTED without a kernel,
 * DURE_ERR_DEVICE when oneDNN fails; on error w->packed is NULL. */
DURE_MUST_USE dure_err dure_bf16_pack(dure_weight *w, const dure_bf16_opts *opts);
void dure_bf16_unpack(dure_weight *w); /* NULL-safe for w->packed */

/* One task of a product: block `rows_at` of DURE_BF16_ROWS rows, columns of part `part`.
 * `backward`: y = x W instead of x W^T. */
typedef struct dure_bf16_task {
    float *y;
    size_t ldy;
    const float *x;
    size_t ldx;
    size_t rows; /* in all */
    size_t block, part;
    bool backward, accumulate;
} dure_bf16_task;

/* Column parts of a product. */
size_t dure_bf16_parts(const dure_weight_bf16 *packed, bool backward);
/* `scratch` holds dure_bf16_scratch_bytes(). A failure of oneDNN inside is an assertion: the same
 * primitive ran when it was packed. */
void dure_bf16_run(const dure_weight_bf16 *packed, const dure_bf16_task *task, void *scratch,
                   const dure_cpu_ops *ops);
size_t dure_bf16_scratch_bytes(void);
