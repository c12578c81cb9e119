#include "support/seeded_rng.h"

#include "common/splitmix.h"

#include <string.h>

static dure_err fill_seeded(void *state, uint8_t *out, size_t n)
{
    seeded_rng *r = state;
    for (size_t i = 0; i < n; i += 8) {
        uint64_t word = dure_splitmix64(&r->state);
        memcpy(out + i, &word, n - i < 8 ? n - i : 8);
    }
    return DURE_OK;
}

dure_rng seeded_rng_of(seeded_rng *state, uint64_t seed)
{
    state->state = seed;
    return (dure_rng){fill_seeded, state};
}

static dure_err fill_played(void *state, uint8_t *out, size_t n)
{
    played_rng *r = state;
    for (size_t i = 0; i < n; i += 4) {
        uint32_t word = r->words[r->at < r->n ? r->at++ : r->n - 1];
        memcpy(out + i, &word, n - i < 4 ? n - i : 4);
    }
    return DURE_OK;
}

dure_rng played_rng_of(played_rng *state, const uint32_t *words, size_t n)
{
    *state = (played_rng){words, n, 0};
    return (dure_rng){fill_played, state};
}

static dure_err fill_failing(void *state, uint8_t *out, size_t n)
{
    failing_rng *r = state;
    if (r->calls_left == 0) {
        memset(out, 0, n);
        return DURE_ERR_RNG;
    }
    r->calls_left--;
    return fill_seeded(&r->inner, out, n);
}

dure_rng failing_rng_of(failing_rng *state, size_t calls)
{
    *state = (failing_rng){{1}, calls};
    return (dure_rng){fill_failing, state};
}
