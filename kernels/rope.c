#include "kernels/rope.h"

#include "common/buf.h"

#include <math.h>
#include <stdlib.h>

enum { GRAIN = 32 };

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

typedef struct job {
    float *x;
    const dure_rope *args;
} job;

static void rotate(float *restrict x, const float *restrict cos_sin, size_t dim, float sign)
{
    for (size_t i = 0; i < dim; i += 2) {
        float c = cos_sin[i], s = cos_sin[i + 1] * sign, a = x[i], b = x[i + 1];
        x[i] = a * c - b * s;
        x[i + 1] = a * s + b * c;
    }
}

static void rows_body(void *state, size_t first, size_t last, void *scratch)
{
    const job *j = state;
    const dure_rope *r = j->args;
    (void)scratch;
    for (size_t i = first; i < last; i++) {
        const float *cos_sin = r->table->cos_sin + (size_t)r->position[i] * r->table->dim;
        for (size_t h = 0; h < r->heads; h++)
            rotate(j->x + i * r->ld + h * r->head_dim, cos_sin, r->table->dim,
                   r->backward ? -1.0f : 1.0f);
    }
}

void dure_rope_apply(float *x, const dure_rope *args, const dure_compute *c)
{
    job j = {.x = x, .args = args};
    dure_compute_rows(c, args->rows, GRAIN, rows_body, &j);
}
