#include "kernels/rope.h"

#include "common/buf.h"

#include <math.h>
#include <stdlib.h>

dure_err dure_rope_table_init(dure_rope_table *out, const dure_rope_opts *opts)
{
    size_t n;
    *out = (dure_rope_table){.positions = opts->positions, .dim = opts->dim};
    if (!dure_size_mul(&n, opts->positions, opts->dim)) return DURE_ERR_LIMIT;
    out->cos_sin = calloc(n, sizeof *out->cos_sin);
    if (!out->cos_sin) return DURE_ERR_NOMEM;
    for (size_t i = 0; i < opts->dim / 2; i++) {
        double step = pow(opts->freq_base, -2.0 * (double)i / (double)opts->dim);
        if (opts->factors) step /= (double)opts->factors[i];
        for (size_t p = 0; p < opts->positions; p++) {
            out->cos_sin[p * opts->dim + 2 * i] = (float)cos((double)p * step);
            out->cos_sin[p * opts->dim + 2 * i + 1] = (float)sin((double)p * step);
        }
    }
    return DURE_OK;
}

void dure_rope_table_fini(dure_rope_table *table)
{
    free(table->cos_sin);
    table->cos_sin = NULL;
}

void dure_rope_turn(float *x, size_t n, const dure_rope *rope, size_t row, size_t column,
                    float sign, const dure_cpu_ops *ops)
{
    const dure_rope_table *table = rope->table;
    const float *cos_sin = table->cos_sin + (size_t)rope->position[row] * table->dim;
    for (size_t i = 0; i < n;) {
        size_t in_head = (column + i) % rope->head_dim;
        size_t left = rope->head_dim - in_head < n - i ? rope->head_dim - in_head : n - i;
        if (in_head < table->dim) {
            size_t turned = table->dim - in_head < left ? table->dim - in_head : left;
            ops->rotate(x + i, cos_sin + in_head, turned, sign);
        }
        i += left;
    }
}
