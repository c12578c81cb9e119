#include "kernels/cross_entropy.h"

#include <math.h>

enum { BLOCK = DURE_CROSS_ENTROPY_BLOCK };

size_t dure_cross_entropy_blocks(size_t vocab)
{
    return (vocab + BLOCK - 1) / BLOCK;
}

void dure_finish_cross_entropy(void *args, const dure_sums *logits, const dure_cpu_ops *ops)
{
    const dure_cross_entropy *a = args;
    size_t blocks = dure_cross_entropy_blocks(a->vocab);
    DURE_ASSERT(logits->column % BLOCK == 0);
    for (size_t r = 0; r < logits->rows; r++) {
        size_t row = logits->row + r, label = (size_t)a->labels[row];
        const float *x = logits->at + r * logits->ld;
        if (label >= logits->column && label < logits->column + logits->columns)
            a->at_label[row] = x[label - logits->column];
        for (size_t j = 0; j < logits->columns; j += BLOCK) {
            size_t at = logits->column + j, n = logits->columns - j;
            size_t block = row * blocks + at / BLOCK;
            a->sum[block] = ops->exp_part(dure_act_at(ops, a->p, row * a->ld + at), &a->max[block],
                                          x + j, n < BLOCK ? n : BLOCK);
        }
    }
}

typedef struct job {
    float *nll;
    const dure_cross_entropy *args;
    const float *weight;
    const dure_cpu_ops *ops;
} job;

/* log sum exp of a row from its blocks. NaN anywhere gives NaN. */
static double lse_of(const float *max, const float *sum, size_t blocks)
{
    double top = -INFINITY, total = 0;
    for (size_t b = 0; b < blocks; b++)
        if (!((double)max[b] <= top)) top = (double)max[b];
    for (size_t b = 0; b < blocks; b++)
        total += (double)sum[b] * exp((double)max[b] - top);
    return top + log(total);
}

static void end_rows(void *state, size_t first, size_t last, void *scratch)
{
    const job *j = state;
    const dure_cross_entropy *a = j->args;
    size_t blocks = dure_cross_entropy_blocks(a->vocab);
    (void)scratch;
    for (size_t i = first; i < last; i++) {
        const float *max = a->max + i * blocks;
        double lse = lse_of(max, a->sum + i * blocks, blocks);
        j->nll[i] = (float)(lse - (double)a->at_label[i]);
        if (!j->weight) continue;
        double weight = (double)j->weight[i];
        for (size_t b = 0; b < blocks; b++) {
            size_t at = b * BLOCK, n = a->vocab - at < BLOCK ? a->vocab - at : BLOCK;
            j->ops->scale_acts(dure_act_at(j->ops, a->p, i * a->ld + at),
                               (float)(weight * exp((double)max[b] - lse)), n);
        }
        /* Anew: near 1 the rounding of an activation would drown what is left of p - 1. */
        float own = (float)(weight * expm1((double)a->at_label[i] - lse));
        j->ops->store(dure_act_at(j->ops, a->p, i * a->ld + (size_t)a->labels[i]), &own, 1, 1.0f);
    }
}

void dure_cross_entropy_end(float *nll, const dure_cross_entropy *args, const float *weight,
                            const dure_compute *c)
{
    job j = {.nll = nll, .args = args, .weight = weight, .ops = c->ops};
    /* The probabilities are read and written once more. */
    double acts = weight ? 2.0 * (double)args->rows * (double)args->vocab : 0;
    dure_profile_work(c->profile, 0, acts * (double)c->ops->act_bytes);
    dure_compute_rows(c, args->rows, 1, end_rows, &j);
}
