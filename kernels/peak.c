#include "kernels/peak.h"

#include "common/clock.h"

#include <stdlib.h>
#include <string.h>

/* A product whose factors stay in the first-level cache, often enough to take a while. */
enum { DEPTH = 512, REPEATS_LEAST = 8, REPEATS_MOST = 2048, COLUMNS = 32, ROWS_MAX = 16 };

typedef struct job {
    const dure_cpu_ops *ops;
    int repeats;
} job;

static void task(void *state, size_t index, void *scratch)
{
    const job *j = state;
    const dure_cpu_ops *ops = j->ops;
    float *c = scratch;
    void *a = c + ROWS_MAX * COLUMNS, *b = dure_act_at(ops, a, ROWS_MAX * DEPTH);
    (void)index;
    memset(scratch, 0, ROWS_MAX * COLUMNS * sizeof *c);
    memset(a, 0, (ROWS_MAX + COLUMNS) * DEPTH * ops->act_bytes);
    for (int i = 0; i < j->repeats; i++)
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
    const double enough_s = 2e-3; /* the threads' start no longer counts */
    size_t floats = ROWS_MAX * COLUMNS + (ROWS_MAX + COLUMNS) * DEPTH;
    uint32_t threads = dure_pool_threads(c->pool);
    double best = 0, each = 2.0 * threads * (double)c->ops->rows * COLUMNS * DEPTH;
    job j = {.ops = c->ops, .repeats = REPEATS_LEAST};
    if (dure_pool_reserve(c->pool, floats * sizeof(float))) return 0;
    for (unsigned i = 0; i < tries;) {
        double started = dure_clock_monotonic_s();
        dure_pool_run(c->pool, threads, task, &j);
        double took = dure_clock_monotonic_s() - started;
        if (took < enough_s && j.repeats < REPEATS_MOST) {
            j.repeats *= 2;
            continue;
        }
        if (j.repeats * each / took > best) best = j.repeats * each / took;
        i++;
    }
    return best * 1e-9;
}

enum { READ_FLOATS = 32 << 20, READ_PIECE = 16 << 10, READ_TRIES = 16 };

typedef struct read_job {
    float *at, *sums; /* one sum a piece, so that nothing is left out */
    const dure_cpu_ops *ops;
} read_job;

static void read_pieces(void *state, size_t first, size_t last, void *scratch)
{
    const read_job *j = state;
    (void)scratch;
    for (size_t i = first; i < last; i++) {
        const float *at = j->at + i * READ_PIECE;
        j->sums[i] = j->ops->dot(at, at + READ_PIECE / 2, READ_PIECE / 2);
    }
}

double dure_peak_gbytes(const dure_compute *c)
{
    size_t pieces = READ_FLOATS / READ_PIECE, bytes = READ_FLOATS * sizeof(float);
    read_job j = {.at = malloc(bytes), .sums = malloc(pieces * sizeof(float)), .ops = c->ops};
    double best = 0;
    if (j.at && j.sums) {
        /* Not zeros, which the compiler would leave to pages that are all the same one. */
        for (size_t i = 0; i < READ_FLOATS; i++)
            j.at[i] = (float)(i & 7);
        for (int i = 0; i < READ_TRIES; i++) {
            double started = dure_clock_monotonic_s();
            dure_compute_rows(c, pieces, 16, read_pieces, &j);
            double rate = (double)bytes / (dure_clock_monotonic_s() - started) * 1e-9;
            if (rate > best) best = rate;
        }
    }
    free(j.at);
    free(j.sums);
    return best;
}
