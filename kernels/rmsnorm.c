#include "kernels/rmsnorm.h"

enum { GRAIN = 16 };

/* Counts arrays of rows x width that are read or written: of floats, and of activations. */
static void count_work(const dure_rmsnorm *a, double floats, double acts, const dure_compute *c)
{
    double each = floats * sizeof(float) + acts * (double)c->ops->act_bytes;
    dure_profile_work(c->profile, 0, each * (double)a->rows * (double)a->width);
}

typedef struct job {
    const dure_rmsnorm *args;
    void *y, *kept;
    const float *x;
    float *dx;
    const dure_cpu_ops *ops;
} job;

static void *at(const job *j, void *acts, size_t row)
{
    return acts ? dure_act_at(j->ops, acts, row * j->args->width) : NULL;
}

static void forward_rows(void *state, size_t first, size_t last, void *scratch)
{
    const job *j = state;
    const dure_rmsnorm *a = j->args;
    (void)scratch;
    for (size_t i = first; i < last; i++)
        j->ops->rmsnorm(at(j, j->y, i), at(j, j->kept, i), j->x + i * a->width, a->w, a->width,
                        a->eps);
}

void dure_rmsnorm_forward(void *y, void *kept, const float *x, const dure_rmsnorm *args,
                          const dure_compute *c)
{
    job j = {.args = args, .y = y, .kept = kept, .x = x, .ops = c->ops};
    count_work(args, 1, kept ? 2 : 1, c);
    dure_compute_rows(c, args->rows, GRAIN, forward_rows, &j);
}

typedef struct add_job {
    job j;
    float *x, *sum;
} add_job;

static void add_rows(void *state, size_t first, size_t last, void *scratch)
{
    const add_job *a = state;
    const dure_rmsnorm *args = a->j.args;
    (void)scratch;
    for (size_t i = first; i < last; i++) {
        float *x = a->x + i * args->width;
        a->j.ops->norm(x, at(&a->j, a->j.kept, i), x, args->w, args->width, args->eps);
        a->j.ops->add(a->sum + i * args->width, x, args->width);
    }
}

void dure_rmsnorm_add(float *y, void *kept, float *x, const dure_rmsnorm *args,
                      const dure_compute *c)
{
    add_job a = {.j = {.args = args, .kept = kept, .ops = c->ops}, .x = x, .sum = y};
    count_work(args, 3, kept ? 1 : 0, c);
    dure_compute_rows(c, args->rows, GRAIN, add_rows, &a);
}

typedef struct kept_job {
    job j;
    const void *kept;
} kept_job;

static void again_rows(void *state, size_t first, size_t last, void *scratch)
{
    const kept_job *k = state;
    const dure_rmsnorm *a = k->j.args;
    (void)scratch;
    for (size_t i = first; i < last; i++)
        k->j.ops->rmsnorm_again(at(&k->j, k->j.y, i), dure_act_in(k->j.ops, k->kept, i * a->width),
                                a->w, a->width, a->eps);
}

void dure_rmsnorm_again(void *y, const void *kept, const dure_rmsnorm *args, const dure_compute *c)
{
    kept_job k = {.j = {.args = args, .y = y, .ops = c->ops}, .kept = kept};
    count_work(args, 0, 2, c);
    dure_compute_rows(c, args->rows, GRAIN, again_rows, &k);
}

static void backward_rows(void *state, size_t first, size_t last, void *scratch)
{
    const kept_job *k = state;
    const job *j = &k->j;
    const dure_rmsnorm *a = j->args;
    (void)scratch;
    for (size_t i = first; i < last; i++)
        j->ops->rmsnorm_backward(j->dx + i * a->width, at(j, j->y, i), j->x + i * a->width,
                                 dure_act_in(j->ops, k->kept, i * a->width), a->w, a->width,
                                 a->eps);
}

void dure_rmsnorm_backward(float *dx, void *out, const float *dy, const void *kept,
                           const dure_rmsnorm *args, const dure_compute *c)
{
    kept_job k = {.j = {.args = args, .y = out, .x = dy, .dx = dx, .ops = c->ops}, .kept = kept};
    count_work(args, 3, out ? 2 : 1, c);
    dure_compute_rows(c, args->rows, GRAIN, backward_rows, &k);
}
