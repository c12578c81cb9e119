#include "kernels/rope.h"

#include "common/buf.h"

#include <math.h>
#include <stdlib.h>

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

void dure_rope_turn(float *x, size_t n, const dure_rope *rope, size_t row, size_t column,
                    float sign, const dure_cpu_ops *ops)
{
    const dure_rope_table *table = rope->table;
    DURE_ASSERT(rope->position[row] < table->positions);
    const float *cos_sin = table->cos_sin + (size_t)rope->position[row] * table->dim;
    for (size_t i = 0; i < n;) {
        size_t in_head = (column + i) % rope->head_dim;
        size_t left = rope->head_dim - in_head < n - i ? rope->head_dim - in_head : n - i;
        if (table->halves) {
            DURE_ASSERT(in_head == 0 && left == rope->head_dim);
            ops->rotate_halves(x + i, cos_sin, table->dim, sign);
        } else if (in_head < table->dim) {
            size_t turned = table->dim - in_head < left ? table->dim - in_head : left;
            ops->rotate(x + i, cos_sin + in_head, turned, sign);
        }
        i += left;
    }
}
