#include "kernels/optimizer.h"

#include <math.h>
#include <stdlib.h>

enum { GRAIN = 16384 };

dure_err dure_adamw_init(dure_adamw *adam, size_t n)
{
    *adam = (dure_adamw){
        .m = calloc(n ? n : 1, sizeof(float)), .v = calloc(n ? n : 1, sizeof(float)), .n = n};
    if (adam->m && adam->v) return DURE_OK;
    dure_adamw_fini(adam);
    return DURE_ERR_NOMEM;
}

void dure_adamw_fini(dure_adamw *adam)
{
    free(adam->m);
    free(adam->v);
    *adam = (dure_adamw){0};
}

typedef struct job {
    float *w, *m, *v;
    const float *g;
    dure_adamw_step step;
    const dure_cpu_ops *ops;
} job;

static void adamw_body(void *state, size_t first, size_t last, void *scratch)
{
    const job *j = state;
    (void)scratch;
    j->ops->adamw(j->w + first, j->m + first, j->v + first, j->g + first, last - first, &j->step);
}

void dure_adamw_update(float *w, dure_adamw *adam, const float *g, const dure_adamw_opts *opts,
                       const dure_compute *c)
{
    double beta1 = opts->beta1 > 0 ? opts->beta1 : 0.9;
    double beta2 = opts->beta2 > 0 ? opts->beta2 : 0.999;
    double epsilon = opts->epsilon > 0 ? opts->epsilon : 1e-8;
    double t = (double)++adam->step;
    job j = {.w = w, .m = adam->m, .v = adam->v, .g = g, .ops = c->ops};
    j.step = (dure_adamw_step){
        .beta1 = (float)beta1,
        .beta2 = (float)beta2,
        .step_size = (float)(opts->learning_rate / (1 - pow(beta1, t))),
        .inverse_correction2 = (float)(1 / (1 - pow(beta2, t))),
        .epsilon = (float)epsilon,
        .decay = (float)(opts->learning_rate * opts->weight_decay),
    };
    dure_compute_rows(c, adam->n, GRAIN, adamw_body, &j);
}

double dure_gradient_norm(const float *g, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)g[i] * (double)g[i];
    return sqrt(sum);
}

static void sgd_body(void *state, size_t first, size_t last, void *scratch)
{
    const job *j = state;
    (void)scratch;
    j->ops->axpy(j->w + first, j->step.step_size, j->g + first, last - first);
}

void dure_sgd_update(float *w, const float *g, size_t n, double learning_rate,
                     const dure_compute *c)
{
    job j = {.w = w, .g = g, .step.step_size = (float)-learning_rate, .ops = c->ops};
    dure_compute_rows(c, n, GRAIN, sgd_body, &j);
}
