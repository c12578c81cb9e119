/* The interface through which a layer draws random bytes. crypto/rng.h implements it with the
 * system's generator and with keyed streams; dp/ needs no crypto/ to use either. */
#pragma once

#include "common/err.h"

#include <stddef.h>
#include <stdint.h>

typedef struct dure_rng {
    /* Fills out[0..n) or fails with DURE_ERR_RNG; on failure `out` holds zeros. */
    dure_err (*fill)(void *state, uint8_t *out, size_t n);
    void *state; /* borrowed */
} dure_rng;

DURE_MUST_USE static inline dure_err dure_rng_fill(const dure_rng *rng, void *out, size_t n)
{
    return rng->fill(rng->state, out, n);
}
