#include "common/splitmix.h"
#include "model/decode.h"

#include <math.h>
#include <stdlib.h>

typedef struct dure_candidate {
    double p;
    int32_t id;
} dure_candidate;

dure_err dure_sampler_init(dure_sampler *s, const dure_sampling *how, size_t n_vocab)
{
    *s = (dure_sampler){.how = *how, .state = how->seed, .n_vocab = n_vocab};
    if (how->temperature <= 0) return DURE_OK;
    s->room = malloc(n_vocab * sizeof *s->room);
    return s->room ? DURE_OK : DURE_ERR_NOMEM;
}

void dure_sampler_fini(dure_sampler *s)
{
    free(s->room);
    s->room = NULL;
}

static size_t most_likely(const float *logits, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

/* A multiple of 2^-53 in [0, 1). */
static double uniform(uint64_t *state)
{
    return (double)(dure_splitmix64(state) >> 11) * 0x1p-53;
}

static int by_probability(const void *a, const void *b)
{
    const dure_candidate *x = a, *y = b;
    if (x->p != y->p) return x->p < y->p ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

/* Keeps the nucleus (Holtzman et al., arXiv 1904.09751) of n candidates with total mass `sum`, and
 * puts its mass there. Tokens below (1 - top_p) / vocabulary of the mass cannot matter: together
 * they weigh less than what is left out anyway. Only the others are sorted. */
static size_t keep_nucleus(dure_candidate *room, size_t n, double *sum, double top_p)
{
    double least = *sum * (1 - top_p) / (double)n, mass = 0;
    size_t kept = 0, used = 0;
    for (size_t i = 0; i < n; i++)
        if (room[i].p >= least) room[kept++] = room[i];
    qsort(room, kept, sizeof *room, by_probability);
    while (used < kept && mass < top_p * *sum)
        mass += room[used++].p;
    *sum = mass;
    return used;
}

int32_t dure_sampler_next(dure_sampler *s, const float *logits)
{
    size_t n = s->n_vocab, best = most_likely(logits, n);
    if (!s->room) return (int32_t)best;
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        double p = exp(((double)logits[i] - (double)logits[best]) / s->how.temperature);
        s->room[i] = (dure_candidate){.p = p, .id = (int32_t)i};
        sum += p;
    }
    if (s->how.top_p > 0 && s->how.top_p < 1) n = keep_nucleus(s->room, n, &sum, s->how.top_p);
    double u = uniform(&s->state) * sum;
    size_t i = 0;
    for (; i + 1 < n && u >= s->room[i].p; i++)
        u -= s->room[i].p;
    return s->room[i].id;
}

void dure_logprob_each(float *logprobs, const int32_t *ids, size_t n, const float *logits,
                       size_t n_vocab)
{
    double top = (double)logits[most_likely(logits, n_vocab)], sum = 0;
    for (size_t i = 0; i < n_vocab; i++)
        sum += exp((double)logits[i] - top);
    for (size_t i = 0; i < n; i++)
        logprobs[i] = (float)((double)logits[ids[i]] - top - log(sum));
}

float dure_logprob(const float *logits, size_t n_vocab, int32_t id)
{
    float logprob;
    dure_logprob_each(&logprob, &id, 1, logits, n_vocab);
    return logprob;
}

void dure_top_tokens(int32_t *ids, size_t n, const float *logits, size_t n_vocab)
{
    size_t kept = 0;
    for (size_t i = 0; i < n_vocab; i++) {
        size_t at = kept < n ? kept : n;
        while (at > 0 && logits[ids[at - 1]] < logits[i])
            at--;
        if (at == n) continue;
        for (size_t j = kept < n ? kept : n - 1; j > at; j--)
            ids[j] = ids[j - 1];
        ids[at] = (int32_t)i;
        if (kept < n) kept++;
    }
}
