#include "kernels/rmsnorm.h"

enum { GRAIN = 16 };

typedef struct job {
    float *out;
    const float *dy;
    const dure_rmsnorm *args;
    const dure_cpu_ops *ops;
} job;

static void forward_rows(void *state, size_t first, size_t last, void *scratch)
{
    const job *j = state;
    size_t width = j->args->width;
    (void)scratch;
    for (size_t i = first; i < last; i++)
        j->ops->rmsnorm(j->out + i * width, j->args->x + i * width, j->args->w, width,
                        j->args->eps);
}

void dure_rmsnorm_forward(float *y, const dure_rmsnorm *args, const dure_compute *c)
{
    job j = {.out = y, .args = args, .ops = c->ops};
    dure_compute_rows(c, args->rows, GRAIN, forward_rows, &j);
}

static void backward_rows(void *state, size_t first, size_t last, void *scratch)
{
    const job *j = state;
    size_t width = j->args->width;
    (void)scratch;
    for (size_t i = first; i < last; i++)
        j->ops->rmsnorm_backward(j->out + i * width, j->dy + i * width, j->args->x + i * width,
                                 j->args->w, width, j->args->eps);
}

void dure_rmsnorm_backward(float *dx, const float *dy, const dure_rmsnorm *args,
                           const dure_compute *c)
{
    job j = {.out = dx, .dy = dy, .args = args, .ops = c->ops};
    dure_compute_rows(c, args->rows, GRAIN, backward_rows, &j);
}
