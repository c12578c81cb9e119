#include "kernels/cross_entropy.h"

typedef struct job {
    float *nll;
    const dure_cross_entropy *args;
    const float *weight; /* NULL: forward */
    const dure_cpu_ops *ops;
} job;

static void rows_body(void *state, size_t first, size_t last, void *scratch)
{
    const job *j = state;
    size_t vocab = j->args->vocab;
    (void)scratch;
    for (size_t i = first; i < last; i++) {
        float *row = j->args->logits + i * j->args->ld;
        size_t label = (size_t)j->args->labels[i];
        float lse = j->ops->logsumexp(row, vocab);
        j->nll[i] = lse - row[label];
        if (!j->weight) continue;
        j->ops->exp_scaled(row, vocab, lse, j->weight[i]);
        row[label] -= j->weight[i];
    }
}

void dure_cross_entropy_forward(float *nll, const dure_cross_entropy *args, const dure_compute *c)
{
    job j = {.nll = nll, .args = args, .ops = c->ops};
    dure_compute_rows(c, args->rows, 1, rows_body, &j);
}

void dure_cross_entropy_backward(float *nll, const dure_cross_entropy *args, const float *weight,
                                 const dure_compute *c)
{
    job j = {.nll = nll, .args = args, .weight = weight, .ops = c->ops};
    dure_compute_rows(c, args->rows, 1, rows_body, &j);
}
