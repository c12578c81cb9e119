/* What the two ways of attention on a GPU have in common (attention.cu, attention_backward.cu).
 *
 * A block works on one tile of rows and one head, of queries or of keys. It walks over the other
 * side in steps, in order, counted from the document's first row, and copies the next step to
 * shared memory while it computes with this one. Each warp has 16 rows of the tile, and their sums,
 * in registers, and multiplies them with a step on the tensor cores: scores = q k^T. They stay
 * where they are and, rounded to bfloat16, are the left factor of the second product.
 *
 * What a whole step cannot see is left out; masked pairs of the others add exact zeros, so a row's
 * bits do not depend on where its tile begins, nor on what is packed beside its document.
 *
 * Heads of up to 64, 128 and 256 elements have kernels of their own; narrower ones are filled up
 * with zeros. */
#pragma once

#include "kernels/cuda/attention.h"
#include "kernels/cuda/tensor.h"

enum {
    TILE = 64, /* rows of a tile, 16 a warp */
    BLOCK = 128,
    PAD = 8,          /* behind a row of shared memory: the next one lies in other banks */
    STEP_SIZE = 4096, /* elements of a step of rows of one head */
    MOST_STEP = STEP_SIZE / 64,
    WIDEST = DURE_CUDA_HEAD_WIDEST
};

#define LOG2_E 1.44269504f
#define LN_2 0.693147181f

/* Asks for rows [row, row + n) of head `head`, as the first of `rows` rows of a tile; whatever else
 * the tile has becomes zero. */
DURE_DEVICE void fetch_rows(uint16_t *tile, const uint16_t *from, size_t ld, int row, int n,
                            unsigned head, const int rows, const int dim,
                            const dure_cuda_attention *a)
{
    const int pieces = dim / 8, down = (int)blockDim.x / pieces;
    int r = (int)threadIdx.x / pieces, c = (int)threadIdx.x % pieces * 8, wide = c < (int)a->dim;
    size_t at = (size_t)(row + r) * ld + (size_t)head * a->dim + (size_t)c;
    for (; r < rows; r += down, at += (size_t)down * ld) {
        int there = wide && r < n;
        copy_16(tile + r * (dim + PAD) + c, from + (there ? at : 0), there);
    }
}

/* Whether a query of the tile's document sees a key. */
DURE_DEVICE int sees(int query, int key, int end, const dure_cuda_attention *a)
{
    return key <= query && query < end && (!a->window || query - key < (int)a->window);
}

/* Whether n_q queries from `query` on all see n_k keys from `key` on; and whether none sees any. */
DURE_DEVICE int all_see(int query, int n_q, int key, int n_k, int end, const dure_cuda_attention *a)
{
    return sees(query, key + n_k - 1, end, a) && sees(query + n_q - 1, key, end, a);
}

DURE_DEVICE int none_sees(int query, int n_q, int key, int n_k, int end,
                          const dure_cuda_attention *a)
{
    return query >= end || key > query + n_q - 1 ||
           (a->window && query - (key + n_k - 1) >= (int)a->window);
}

DURE_DEVICE int less(int x, int y)
{
    return x < y ? x : y;
}

/* The first row of the first step of keys that any row of the tile sees. */
DURE_DEVICE int first_key(const dure_cuda_tile *t, const int step, const dure_cuda_attention *a)
{
    int low = a->window ? t->row - (int)a->window + 1 : t->first;
    if (low < t->first) low = t->first;
    return t->first + (low - t->first) / step * step;
}

/* Scores of 16 rows from `row` on with `step` columns from `column` on, in base 2: -inf where a
 * query does not see a key. The rows are keys, or the columns. */
DURE_DEVICE void scale_scores(float (*s)[4], int row, int column, int end, const int rows_are_keys,
                              const int step, const dure_cuda_attention *a)
{
    float scale = a->scale * LOG2_E;
    DURE_UNROLL
    for (int j = 0; j < step / 8; j++) {
        DURE_UNROLL
        for (int i = 0; i < 4; i++)
            s[j][i] *= scale;
    }
    if (rows_are_keys ? all_see(column, step, row, 16, end, a)
                      : all_see(row, 16, column, step, end, a))
        return;
    DURE_UNROLL
    for (int j = 0; j < step / 8; j++) {
        DURE_UNROLL
        for (int i = 0; i < 4; i++) {
            int r = row + sum_row(i), c = column + sum_column(j, i);
            if (!(rows_are_keys ? sees(c, r, end, a) : sees(r, c, end, a))) s[j][i] = -INFINITY;
        }
    }
}

/* sums of 16 x `step` += the left factor a times a step's rows, transposed, at 16 columns. */
DURE_DEVICE void multiply_rows(float (*sums)[4], const uint32_t *a, const uint16_t *rows,
                               int column, const int step, const int dim)
{
    DURE_UNROLL
    for (int j = 0; j < step / 16; j++) {
        uint32_t b[4];
        load_right(b, rows, j * 16, column, dim + PAD);
        multiply_add(sums[2 * j], a, b);
        multiply_add(sums[2 * j + 1], a, b + 2);
    }
}

/* sums of 16 x `width` += x of 16 x `step`, rounded, times `width` columns of a step's rows. */
DURE_DEVICE void multiply_columns(float (*sums)[4], const float (*x)[4], const uint16_t *rows,
                                  const int width, const int step, const int dim)
{
    DURE_UNROLL
    for (int i = 0; i < step / 16; i++) {
        uint32_t a[4];
        left_from_sums(a, x[2 * i], x[2 * i + 1]);
        DURE_UNROLL
        for (int j = 0; j < width / 16; j++) {
            uint32_t b[4];
            load_right_as_is(b, rows, i * 16, j * 16, dim + PAD);
            multiply_add(sums[2 * j], a, b);
            multiply_add(sums[2 * j + 1], a, b + 2);
        }
    }
}

DURE_DEVICE void clear(float (*sums)[4], const int n)
{
    DURE_UNROLL
    for (int j = 0; j < n; j++)
        sums[j][0] = sums[j][1] = sums[j][2] = sums[j][3] = 0;
}

/* --- groups of lanes --- */

/* Eight lanes share a row of a head, 16 bytes each of every 128. */
enum { GROUP = 8, GROUPS = BLOCK / GROUP };

/* One of two bfloat16 in a word. */
DURE_DEVICE float half_of(uint32_t word, int high)
{
    return from_bf16((uint16_t)(high ? word >> 16 : word));
}

/* The sum over a group. */
DURE_DEVICE float group_sum(float x)
{
    x += other_lane(x, 1);
    x += other_lane(x, 2);
    return x + other_lane(x, 4);
}

/* --- launches --- */

static size_t kernel_dim(const dure_cuda_attention *args)
{
    return args->dim <= 64 ? 64 : args->dim <= 128 ? 128 : WIDEST;
}

/* Two tiles of `rows` rows. */
static size_t side_bytes(size_t rows, size_t dim)
{
    return 2 * rows * (dim + PAD) * sizeof(uint16_t);
}

/* The kernel of that name for heads of this width, for every tile and `heads` heads. */
#define LAUNCH(kernel, heads, block, shared)                                                       \
    do {                                                                                           \
        if (args->dim <= 64)                                                                       \
            DURE_LAUNCH(kernel##_64, args->n_tiles, heads, block, shared, stream, *args);          \
        else if (args->dim <= 128)                                                                 \
            DURE_LAUNCH(kernel##_128, args->n_tiles, heads, block, shared, stream, *args);         \
        else                                                                                       \
            DURE_LAUNCH(kernel##_256, args->n_tiles, heads, block, shared, stream, *args);         \
    } while (0)
