/* Poisson sampling: every record enters a step's batch on its own with probability q = k / 2^64,
 * decided exactly by comparing 64 random bits with k. Fixed-size or shuffled batches have no
 * place beside the accountant, which assumes just this (arXiv 2403.17673). An empty batch is
 * fine: the step then releases noise only. */
#pragma once

#include "common/err.h"
#include "common/rng.h"
#include "dp/plan.h"

#include <stddef.h>

/* indices[0..*n_chosen), ascending, of [0, n_records); `indices` has room for n_records. The
 * size is private: it is never divided by, logged or sent. On failure *n_chosen is 0. */
DURE_MUST_USE dure_err dure_sample_poisson(size_t *indices, size_t *n_chosen, size_t n_records,
                                           const dure_dp_plan *plan, const dure_rng *rng);
