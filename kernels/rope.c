#include "kernels/rope.h"

#include "common/buf.h"

#include <math.h>
#include <stdlib.h>

enum { GRAIN = 32 };

/* The pair whose frequency makes `turns` turns in the original context. */
static double pair_of_turns(double turns, const dure_rope_opts *opts)
{
    static const double pi = 3.14159265358979323846;
    return (double)opts->dim * log(opts->yarn.context / (turns * 2 * pi)) /
           (2 * log(opts->freq_base));
}

/* How much of pair i's frequency stays as it is: 1 for the fast ones, 0 for the slow ones. */
static double kept(size_t i, const dure_rope_opts *opts)
{
    if (!(opts->yarn.context > 0)) return 0;
    double low = fmax(0, floor(pair_of_turns(opts->yarn.fast, opts)));
    double high = fmin((double)opts->dim - 1, ceil(pair_of_turns(opts->yarn.slow, opts)));
    double at = ((double)i - low) / fmax(0.001, high - low);
    return 1 - fmin(1, fmax(0, at));
}

static double frequency(size_t i, const dure_rope_opts *opts)
{
    double own = pow(opts->freq_base, -2.0 * (double)i / (double)opts->dim);
    if (opts->factors) own /= (double)opts->factors[i];
    double stretched = opts->stretch > 0 ? own / opts->stretch : own, mix = kept(i, opts);
    return stretched * (1 - mix) + own * mix;
}

dure_err dure_rope_table_init(dure_rope_table *out, const dure_rope_opts *opts)
{
    size_t half = opts->dim / 2;
    *out = (dure_rope_table){.dim = opts->dim,
                             .frequency = calloc(half + 1, sizeof *out->frequency),
                             .magnitude = opts->magnitude > 0 ? opts->magnitude : 1,
                             .halves = opts->halves};
    if (!out->frequency) return DURE_ERR_NOMEM;
    for (size_t i = 0; i < half; i++)
        out->frequency[i] = frequency(i, opts);
    return DURE_OK;
}

dure_err dure_rope_table_reserve(dure_rope_table *table, size_t positions)
{
    size_t bytes, half = table->dim / 2;
    if (positions <= table->positions) return DURE_OK;
    if (!dure_size_mul(&bytes, positions, table->dim * sizeof *table->cos_sin))
        return DURE_ERR_LIMIT;
    float *grown = realloc(table->cos_sin, bytes);
    if (!grown) return DURE_ERR_NOMEM;
    table->cos_sin = grown;
    for (size_t p = table->positions; p < positions; p++)
        for (size_t i = 0; i < half; i++) {
            double angle = (double)p * table->frequency[i];
            float *at = grown + p * table->dim;
            at[table->halves ? i : 2 * i] = (float)(table->magnitude * cos(angle));
            at[table->halves ? half + i : 2 * i + 1] = (float)(table->magnitude * sin(angle));
        }
    table->positions = positions;
    return DURE_OK;
}

void dure_rope_table_fini(dure_rope_table *table)
{
    free(table->cos_sin);
    free(table->frequency);
    *table = (dure_rope_table){0};
}

typedef struct job {
    float *x;
    const dure_rope *args;
} job;

/* `sign` is -1 to turn back. The compiler makes vector code of both. */
static void rotate_pairs(float *restrict x, const float *restrict cos_sin, size_t dim, float sign)
{
    for (size_t i = 0; i < dim; i += 2) {
        float c = cos_sin[i], s = cos_sin[i + 1] * sign, a = x[i], b = x[i + 1];
        x[i] = a * c - b * s;
        x[i + 1] = a * s + b * c;
    }
}

static void rotate_halves(float *restrict x, float *restrict y, const float *restrict cosine,
                          const float *restrict sine, size_t half, float sign)
{
    for (size_t i = 0; i < half; i++) {
        float c = cosine[i], s = sine[i] * sign, a = x[i], b = y[i];
        x[i] = a * c - b * s;
        y[i] = a * s + b * c;
    }
}

static void rows_body(void *state, size_t first, size_t last, void *scratch)
{
    const job *j = state;
    const dure_rope *r = j->args;
    size_t half = r->table->dim / 2;
    float sign = r->backward ? -1.0f : 1.0f;
    (void)scratch;
    for (size_t i = first; i < last; i++) {
        DURE_ASSERT(r->position[i] < r->table->positions);
        const float *cos_sin = r->table->cos_sin + (size_t)r->position[i] * r->table->dim;
        for (size_t h = 0; h < r->heads; h++) {
            float *x = j->x + i * r->ld + h * r->head_dim;
            if (r->table->halves)
                rotate_halves(x, x + half, cos_sin, cos_sin + half, half, sign);
            else
                rotate_pairs(x, cos_sin, r->table->dim, sign);
        }
    }
}

void dure_rope_apply(float *x, const dure_rope *args, const dure_compute *c)
{
    job j = {.x = x, .args = args};
    dure_compute_rows(c, args->rows, GRAIN, rows_body, &j);
}
