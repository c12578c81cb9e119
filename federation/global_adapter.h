/* The global adapter: the first one, its file parsed against the federation's terms, and the step
 * from one to the next by the sum of a round. The coordinator makes the step, every site makes it
 * again.
 *
 * The file is a function of the parameters and the base's digest alone (model/adapter_file.h: no
 * further notes), so who has the present file and the sum makes the same bytes and compares
 * digests.
 *
 * Threads: pure functions. */
#pragma once

#include "common/buf.h"
#include "common/err.h"
#include "crypto/hash.h"
#include "federation/terms.h"
#include "model/adapter_stream.h"

#include <stdint.h>

/* The layout that the terms determine. DURE_ERR_STATE when their counts do not follow from it. */
DURE_MUST_USE dure_err dure_global_adapter_layout(dure_lora_layout *out, const dure_terms *terms,
                                                  dure_diag *diag);
/* The first adapter: A with orthonormal rows from the terms' seed, B zero. *out is initialised
 * here; dure_buf_fini() by the caller. */
DURE_MUST_USE dure_err dure_global_adapter_first(dure_buf *out, const dure_terms *terms,
                                                 dure_diag *diag);
/* DURE_ERR_STATE unless the file is an adapter of this layout. The caller owns *out. */
DURE_MUST_USE dure_err dure_global_adapter_parse(dure_lora **out, const dure_terms *terms,
                                                 dure_span file, dure_diag *diag);
/* DURE_ERR_AUTH unless factor A is the one that the terms' seed gives: it is frozen, and a sum of
 * updates of B means nothing with another. Else as parse. */
DURE_MUST_USE dure_err dure_global_adapter_check(const dure_terms *terms, dure_span file,
                                                 dure_diag *diag);
/* The file of the next adapter: `present` stepped by sum[0..n_active) of n_sites sites. *out is
 * initialised here; dure_buf_fini() by the caller. DURE_ERR_PROTO for a sum that honest sites
 * cannot have. */
DURE_MUST_USE dure_err dure_global_adapter_next(dure_buf *out, const dure_terms *terms,
                                                dure_span present, const int32_t *sum,
                                                uint32_t n_sites, dure_diag *diag);

/* Gives the next n coordinates of the sum; they are asked for in order. */
typedef dure_err dure_sum_source(void *state, int32_t *out, size_t n, dure_diag *diag);

typedef struct dure_global_step {
    const dure_terms *terms;
    dure_adapter_view *present;
    dure_sum_source *sum;
    void *sum_state;
    uint32_t n_sites;
} dure_global_step;

/* The same file, given to `out` row by row: for who has to watch memory. What `out` has taken by
 * the time of an error is no adapter. */
DURE_MUST_USE dure_err dure_global_adapter_write(const dure_gguf_sink *out,
                                                 const dure_global_step *step, dure_diag *diag);
