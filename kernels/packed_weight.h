/* A weight in the form that the products want, made once: panels of bfloat16 (2 bytes a weight),
 * where the CPU multiplies it. One copy serves both directions: on the way back, squares of it are
 * turned over as they go into the cache. */
#pragma once

#include "kernels/matmul.h"

/* Whether W can be packed at this level: bfloat16, and sizes that whole vectors divide. */
bool dure_weight_can_pack(const dure_weight *w, const dure_cpu_ops *ops);
size_t dure_weight_packed_bytes(const dure_weight *w, const dure_cpu_ops *ops);
/* Packs W into `memory`, of dure_weight_packed_bytes(), aligned to 64, borrowed by w->packed. */
void dure_weight_pack(dure_weight *w, void *memory, const dure_compute *c);
/* Scratch a thread needs for it. */
size_t dure_weight_pack_scratch_bytes(const dure_weight *w);
