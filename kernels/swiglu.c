#include "kernels/swiglu.h"

enum { GRAIN = 8192 };

typedef struct job {
    void *h;
    const void *gate, *up;
    const dure_cpu_ops *ops;
} job;

static void forward_body(void *state, size_t first, size_t last, void *scratch)
{
    const job *j = state;
    (void)scratch;
    j->ops->swiglu(dure_act_at(j->ops, j->h, first), dure_act_in(j->ops, j->gate, first),
                   dure_act_in(j->ops, j->up, first), last - first);
}

void dure_swiglu_forward(void *h, const void *gate, const void *up, size_t n, const dure_compute *c)
{
    job j = {.h = h, .gate = gate, .up = up, .ops = c->ops};
    dure_compute_rows(c, n, GRAIN, forward_body, &j);
}

void dure_finish_swiglu_backward(void *grad, const dure_sums *dh, const dure_cpu_ops *ops)
{
    const dure_swiglu_grad *g = grad;
    for (size_t r = 0; r < dh->rows; r++) {
        size_t at = (dh->row + r) * g->width + dh->column;
        ops->swiglu_backward(dure_act_at(ops, g->h, at), dure_act_at(ops, g->gate, at),
                             dure_act_at(ops, g->up, at), dh->at + r * dh->ld, dh->columns);
    }
}
