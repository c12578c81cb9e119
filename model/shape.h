/* The shape of a model, read and checked from the metadata and tensors of its GGUF. */
#pragma once

#include "model/gguf.h"
#include "model/lora.h"

/* The architectures are those of model/arch.h; another one, and a tensor or key whose meaning would
 * be left out, is DURE_ERR_UNSUPPORTED and named. Every tensor that the architecture needs must be
 * there with the size that follows from the metadata; DURE_ERR_FORMAT names the first that is not.
 */
DURE_MUST_USE dure_err dure_model_shape_read(dure_model_shape *out, const dure_gguf *gguf,
                                             dure_diag *diag);

/* DURE_ERR_FORMAT or DURE_ERR_UNSUPPORTED unless every field is in a range that the code can
 * compute with; for shapes from files other than the base itself. */
DURE_MUST_USE dure_err dure_model_shape_check(const dure_model_shape *shape, dure_diag *diag);

bool dure_model_shape_equal(const dure_model_shape *a, const dure_model_shape *b);

/* "blk.3.attn_q.weight": the tensor that a target adapts. */
void dure_model_target_name(char name[64], uint32_t layer, dure_lora_target target);

/* Total elements of all tensors. */
uint64_t dure_model_parameters(const dure_gguf *gguf);
