/* A transformer's passes on a GPU: loss, log-probabilities and per-record gradients under the
 * contract of model/transformer.h, with products in bfloat16 summed in float32.
 *
 * Verified so far on the emulated GPU of the tests alone (kernels/cuda/language.h): its numbers
 * agree with the CPU's, but no GPU has run it. DoRA's lengths of rows are measured by the CPU
 * (model/transformer_dora.h).
 *
 * Memory: weights are held as bfloat16 where that takes no more than half of what there is, else as
 * in the file. Then passes of half as many tokens are tried, down to 2048, then as few layers as
 * possible are computed twice, then passes are shortened further. None of it changes a bit of a
 * record's gradient. */
#pragma once

#include "model/transformer_int.h"

/* From now on t's passes run on GPU number `index`; its weights are uploaded. On error t is as
 * before: DURE_ERR_DEVICE when there is no such GPU, DURE_ERR_NOMEM when its memory is too small,
 * DURE_ERR_UNSUPPORTED when the model cannot run there. */
DURE_MUST_USE dure_err dure_transformer_cuda_attach(dure_transformer *t, int index,
                                                    dure_diag *diag);
