#include "kernels/bf16.h"

#include "kernels/dequant.h"
#include "kernels/onednn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A packed weight is a grid of matrices of at most WIDTH columns and DEPTH rows of the product's
 * inner dimension: WIDTH gives tasks to share out, DEPTH bounds the scratch of a task. */
enum { WIDTH = 576, DEPTH = 4096 };

typedef struct grid {
    size_t inner, outer; /* of the product */
    size_t depth_parts, width_parts;
    dure_onednn_product **cells; /* [width part][depth part] */
} grid;

struct dure_weight_bf16 {
    grid forward, backward; /* backward.cells NULL: not packed */
};

static size_t length_of(size_t total, size_t part, size_t most)
{
    size_t left = total - part * most;
    return left < most ? left : most;
}

static void grid_fini(grid *g)
{
    for (size_t i = 0; g->cells && i < g->depth_parts * g->width_parts; i++)
        dure_onednn_product_free(&g->cells[i]);
    free(g->cells);
    g->cells = NULL;
}

/* Rows [row, + n[0]) and columns [column, + n[1]) of W as float32. */
static void decode_part(float *out, const dure_weight *w, const size_t at[2], const size_t n[2],
                        float *row_buffer)
{
    const dure_cpu_ops *ops = dure_cpu_ops_of(dure_cpu_best());
    size_t stride = dure_quant_row_bytes(w->type, w->in);
    for (size_t r = 0; r < n[0]; r++) {
        const uint8_t *row = (const uint8_t *)w->data + (at[0] + r) * stride;
        ops->dequant(row_buffer, row, w->in, w->type);
        memcpy(out + r * n[1], row_buffer + at[1], n[1] * sizeof *out);
    }
}

/* Packs one orientation. Forward contracts over W's columns, backward over its rows. */
static dure_err grid_make(grid *g, const dure_weight *w, bool backward, const dure_bf16_opts *opts)
{
    g->inner = backward ? w->out : w->in;
    g->outer = backward ? w->in : w->out;
    g->depth_parts = (g->inner + DEPTH - 1) / DEPTH;
    g->width_parts = (g->outer + WIDTH - 1) / WIDTH;
    g->cells = calloc(g->depth_parts * g->width_parts, sizeof *g->cells);
    float *part = malloc((size_t)WIDTH * DEPTH * sizeof *part);
    float *row = malloc(w->in * sizeof *row);
    dure_err err = g->cells && part && row ? DURE_OK : DURE_ERR_NOMEM;
    for (size_t i = 0; i < g->depth_parts * g->width_parts && !err; i++) {
        size_t outer_at = i / g->depth_parts * WIDTH, inner_at = i % g->depth_parts * DEPTH;
        dure_onednn_shape shape = {
            .rows = DURE_BF16_ROWS,
            .inner = length_of(g->inner, i % g->depth_parts, DEPTH),
            .outer = length_of(g->outer, i / g->depth_parts, WIDTH),
            .outer_major = !backward,
            .only_brg = !opts->any_kernel,
        };
        if (backward)
            decode_part(part, w, (size_t[]){inner_at, outer_at},
                        (size_t[]){shape.inner, shape.outer}, row);
        else
            decode_part(part, w, (size_t[]){outer_at, inner_at},
                        (size_t[]){shape.outer, shape.inner}, row);
        err = dure_onednn_product_new(&g->cells[i], &shape, part);
    }
    free(part);
    free(row);
    return err;
}

bool dure_bf16_available(char name[64], size_t out, size_t in, const dure_bf16_opts *opts)
{
    dure_onednn_shape shape = {.rows = DURE_BF16_ROWS,
                               .inner = length_of(in, 0, DEPTH),
                               .outer = length_of(out, 0, WIDTH),
                               .outer_major = true,
                               .only_brg = !opts->any_kernel};
    if (!dure_onednn_find(name, &shape)) return false;
    shape.inner = length_of(out, 0, DEPTH);
    shape.outer = length_of(in, 0, WIDTH);
    shape.outer_major = false;
    return !opts->backward || dure_onednn_find(name, &shape);
}

dure_err dure_bf16_pack(dure_weight *w, const dure_bf16_opts *opts)
{
    dure_err err = DURE_OK;
    if (!w->packed) {
        w->packed = calloc(1, sizeof *w->packed);
        if (!w->packed) return DURE_ERR_NOMEM;
        err = grid_make(&w->packed->forward, w, false, opts);
    }
    if (!err && opts->backward && !w->packed->backward.cells)
        err = grid_make(&w->packed->backward, w, true, opts);
    if (err) dure_bf16_unpack(w);
    return err;
}

void dure_bf16_unpack(dure_weight *w)
{
    if (!w->packed) return;
    grid_fini(&w->packed->forward);
    grid_fini(&w->packed->backward);
    free(w->packed);
    w->packed = NULL;
}

size_t dure_bf16_parts(const dure_weight_bf16 *packed, bool backward)
{
    return backward ? packed->backward.width_parts : packed->forward.width_parts;
}

size_t dure_bf16_scratch_bytes(void)
{
    return DURE_BF16_ROWS * (DEPTH * sizeof(uint16_t) + WIDTH * sizeof(float));
}

/* Rows of x as bfloat16, the missing ones zero. */
static void load_block(uint16_t *to, const float *x, size_t ldx, size_t rows, size_t n,
                       const dure_cpu_ops *ops)
{
    for (size_t r = 0; r < rows; r++)
        ops->to_bf16(to + r * n, x + r * ldx, n);
    memset(to + rows * n, 0, (DURE_BF16_ROWS - rows) * n * sizeof *to);
}

void dure_bf16_run(const dure_weight_bf16 *packed, const dure_bf16_task *task, void *scratch,
                   const dure_cpu_ops *ops)
{
    const grid *g = task->backward ? &packed->backward : &packed->forward;
    size_t first = task->block * DURE_BF16_ROWS, width = length_of(g->outer, task->part, WIDTH);
    size_t rows = task->rows - first < DURE_BF16_ROWS ? task->rows - first : DURE_BF16_ROWS;
    float *result = scratch;
    union {
        float *floats;
        uint16_t *halves;
    } input = {.floats = result + DURE_BF16_ROWS * WIDTH};
    for (size_t d = 0; d < g->depth_parts; d++) {
        size_t depth = length_of(g->inner, d, DEPTH);
        load_block(input.halves, task->x + first * task->ldx + d * DEPTH, task->ldx, rows, depth,
                   ops);
        dure_onednn_product_run(g->cells[task->part * g->depth_parts + d], result, input.halves);
        for (size_t r = 0; r < rows; r++) {
            float *y = task->y + (first + r) * task->ldy + task->part * WIDTH;
            if (task->accumulate || d > 0)
                ops->add(y, result + r * width, width);
            else
                memcpy(y, result + r * width, width * sizeof *y);
        }
    }
}
