/* Does this very GPU keep what differential privacy counts on? Asked of it before a private
 * training, and before any budget is reserved: a GPU that does not is refused.
 *
 * A few records of random tokens and a random adapter go through the model at hand: each alone, all
 * in one pass, and in full passes of another order. Loss and gradient of a record must be the same
 * bits in each; the integers that the GPU makes of it, and their sum, must be those of
 * dp/quantize.h on this processor, clipped and not clipped; and a gradient that is not finite must
 * give nothing. Nobody's records are looked at.
 *
 * Threads: one, which has the model to itself. */
#pragma once

#include "client/trainer.h"

/* *records says how many went through it; 0: the model runs on the CPU, and nothing was asked.
 * DURE_ERR_DEVICE with a sentence that names what differs. */
DURE_MUST_USE dure_err dure_device_proof(size_t *records, dure_transformer *model,
                                         const dure_trainer_task *task, dure_diag *diag);
