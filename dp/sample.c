#include "dp/sample.h"

#include <string.h>

#define BLOCK_WORDS 512

dure_err dure_sample_poisson(size_t *indices, size_t *n_chosen, size_t n_records,
                             const dure_dp_plan *plan, const dure_rng *rng)
{
    uint64_t words[BLOCK_WORDS];
    size_t chosen = 0;
    dure_err err = DURE_OK;
    *n_chosen = 0;
    for (size_t first = 0; first < n_records; first += BLOCK_WORDS) {
        size_t n = n_records - first < BLOCK_WORDS ? n_records - first : BLOCK_WORDS;
        err = dure_rng_fill(rng, words, n * sizeof *words);
        if (err) break;
        /* Written always and kept by advancing: the time does not tell who was chosen. */
        for (size_t i = 0; i < n; i++) {
            indices[chosen] = first + i;
            chosen += plan->full || words[i] < plan->q_k;
        }
    }
    explicit_bzero(words, sizeof words);
    if (!err) *n_chosen = chosen;
    return err;
}
