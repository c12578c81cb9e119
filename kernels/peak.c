#include "kernels/peak.h"

#include "common/clock.h"

#include <string.h>

/* A product whose factors stay in the first-level cache. */
enum { DEPTH = 512, REPEATS = 2000, COLUMNS = 32, ROWS_MAX = 16 };

static void task(void *state, size_t index, void *scratch)
{
    const dure_cpu_ops *ops = state;
    float *c = scratch;
    void *a = c + ROWS_MAX * COLUMNS, *b = dure_act_at(ops, a, ROWS_MAX * DEPTH);
    (void)index;
    memset(scratch, 0, ROWS_MAX * COLUMNS * sizeof *c);
    memset(a, 0, (ROWS_MAX + COLUMNS) * DEPTH * ops->act_bytes);
    for (int i = 0; i < REPEATS; i++)
        ops->gemm(&(dure_gemm){.c = c,
                               .ldc = COLUMNS,
                               .a = a,
                               .a_row = DEPTH,
                               .a_step = ops->group,
                               .b = b,
                               .b_panel = DEPTH * ops->width,
                               .m = ops->rows,
                               .n = COLUMNS,
                               .k = DEPTH});
}

double dure_peak_gflops(const dure_compute *c, unsigned tries)
{
    size_t floats = ROWS_MAX * COLUMNS + (ROWS_MAX + COLUMNS) * DEPTH;
    uint32_t threads = dure_pool_threads(c->pool);
    double best = 0, flops = 2.0 * threads * REPEATS * (double)c->ops->rows * COLUMNS * DEPTH;
    union {
        const dure_cpu_ops *shared;
        void *state;
    } ops = {.shared = c->ops};
    if (dure_pool_reserve(c->pool, floats * sizeof(float))) return 0;
    for (unsigned i = 0; i < tries; i++) {
        double started = dure_clock_monotonic_s();
        dure_pool_run(c->pool, threads, task, ops.state);
        double rate = flops / (dure_clock_monotonic_s() - started) * 1e-9;
        if (rate > best) best = rate;
    }
    return best;
}
