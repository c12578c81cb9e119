#include "kernels/swiglu.h"

enum { GRAIN = 8192 };

typedef struct job {
    const dure_swiglu *args;
    const dure_cpu_ops *ops;
} job;

static void forward_body(void *state, size_t first, size_t last, void *scratch)
{
    const job *j = state;
    const dure_swiglu *a = j->args;
    bool gelu = a->of_gate == DURE_ACTIVATION_GELU;
    (void)scratch;
    (gelu ? j->ops->geglu : j->ops->swiglu)(dure_act_at(j->ops, a->h, first),
                                            dure_act_in(j->ops, a->gate, first),
                                            dure_act_in(j->ops, a->up, first), last - first);
}

void dure_swiglu_forward(const dure_swiglu *args, const dure_compute *c)
{
    job j = {.args = args, .ops = c->ops};
    dure_profile_work(c->profile, 0, 3.0 * (double)args->n * (double)c->ops->act_bytes);
    dure_compute_rows(c, args->n, GRAIN, forward_body, &j);
}

void dure_finish_swiglu_backward(void *grad, const dure_sums *dh, const dure_cpu_ops *ops)
{
    const dure_swiglu_grad *g = grad;
    void (*back)(void *, void *, void *, const float *, size_t) =
        g->of_gate == DURE_ACTIVATION_GELU ? ops->geglu_backward : ops->swiglu_backward;
    for (size_t r = 0; r < dh->rows; r++) {
        size_t at = (dh->row + r) * g->width + dh->column;
        back(dure_act_at(ops, g->h, at), dure_act_at(ops, g->gate, at), dure_act_at(ops, g->up, at),
             dh->at + r * dh->ld, dh->columns);
    }
}
