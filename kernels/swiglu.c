#include "kernels/swiglu.h"

enum { GRAIN = 8192 };

typedef struct job {
    float *h;
    const float *gate, *up;
    const dure_swiglu_grad *grad;
    const dure_cpu_ops *ops;
} job;

static void forward_body(void *state, size_t first, size_t last, void *scratch)
{
    const job *j = state;
    (void)scratch;
    j->ops->swiglu(j->h + first, j->gate + first, j->up + first, last - first);
}

void dure_swiglu_forward(float *h, const float *gate, const float *up, size_t n,
                         const dure_compute *c)
{
    job j = {.h = h, .gate = gate, .up = up, .ops = c->ops};
    dure_compute_rows(c, n, GRAIN, forward_body, &j);
}

static void backward_body(void *state, size_t first, size_t last, void *scratch)
{
    const job *j = state;
    const dure_swiglu_grad *g = j->grad;
    (void)scratch;
    j->ops->swiglu_backward(g->dgate + first, g->dup + first, g->dh + first, g->gate + first,
                            g->up + first, last - first);
}

void dure_swiglu_backward(const dure_swiglu_grad *grad, const dure_compute *c)
{
    job j = {.grad = grad, .ops = c->ops};
    dure_compute_rows(c, grad->n, GRAIN, backward_body, &j);
}
