/* From the sum to the next global adapter: the file of the present one, the server step, the file
 * of the new one.
 *
 * The file is a function of the parameters and the base's digest alone (model/adapter_file.h: no
 * further notes), so every site that has the present file and the sum makes the same bytes and
 * compares digests.
 *
 * Threads: no shared state. */
#pragma once

#include "common/buf.h"
#include "common/err.h"
#include "federation/server_step.h"
#include "federation/terms.h"
#include "model/lora.h"

/* The adapter's layout as model/ describes it. */
DURE_MUST_USE dure_err dure_adapter_layout(dure_lora_layout *out, const dure_terms *terms,
                                           dure_diag *diag);
/* The first adapter: A with orthonormal rows from the terms' seed, B zero. *out is initialised
 * here; dure_buf_fini() by the caller. */
DURE_MUST_USE dure_err dure_adapter_first(dure_buf *out, const dure_terms *terms, dure_diag *diag);
/* `present` is the file of the adapter the round started from; sum[0..n_active) of
 * step->n_sites sites. DURE_ERR_STATE when the file is not of this layout; DURE_ERR_PROTO as
 * dure_server_step_apply(). */
DURE_MUST_USE dure_err dure_adapter_next(dure_buf *out, const dure_terms *terms, dure_span present,
                                         const int32_t *sum, uint32_t n_sites, dure_diag *diag);
