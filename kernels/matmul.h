/* Products of activations with frozen weights and with the factors of an adapter.
 *
 * A product is a sum of terms, each a right factor: x W^T on the way forward, dy W on the way back,
 * and the adapter's part beside it, z B^T or dz A. All terms are summed before anything is
 * rounded or stored: the sums of a block of rows and columns stay in the cache and are handed to
 * the product's `finish`, which turns, adds, rounds and stores them.
 *
 * A weight is W[out x in] in any decodable ggml type. It is decoded into panels that fit the
 * cache, each used for all rows; or it comes from a packed copy (kernels/packed_weight.h).
 *
 * Every output element is a sum in one fixed order: independent of rows, threads and packing. */
#pragma once

#include "kernels/compute.h"

typedef struct dure_weight {
    uint32_t type;      /* ggml id; 0 is float32 */
    size_t out, in;     /* rows and columns */
    const void *data;   /* borrowed; row-major */
    const void *packed; /* NULL: decode on the fly */
} dure_weight;

/* x[rows x w->in] W^T, or x[rows x w->out] W with `transposed`; x are activations. */
typedef struct dure_term {
    const void *x;
    size_t ldx;
    const dure_weight *w;
    bool transposed;
} dure_term;

/* Sums of rows [row, row + rows) and columns [column, column + columns) of a product. */
typedef struct dure_sums {
    float *at;
    size_t ld;
    size_t row, rows, column, columns;
} dure_sums;

/* Takes the sums, which it may change; each element once, on any thread. */
typedef void dure_finisher(void *state, const dure_sums *sums, const dure_cpu_ops *ops);

/* Adds the sums of a product's last terms, `apart` with the stride of the others, to these. */
typedef void dure_joiner(void *state, const dure_sums *sums, const float *apart,
                         const dure_cpu_ops *ops);

/* The first weight that the next products read: the last tasks of these bring its first columns
 * nearer. NULL: unknown. */
typedef struct dure_ahead {
    const dure_weight *w;
    bool transposed;
} dure_ahead;

/* An array of rows that a finisher reads or writes, which is brought near while the sums are made:
 * where column 0 of row 0 is, and the bytes of a row and of a column. */
typedef struct dure_touched {
    const void *at;
    size_t row_bytes, column_bytes;
} dure_touched;

enum { DURE_TOUCHED_MAX = 3 };
enum { DURE_TERMS_MAX = 8, DURE_PRODUCTS_MAX = 8, DURE_MATMUL_FEW = 8 };

typedef struct dure_product {
    dure_term terms[DURE_TERMS_MAX];
    size_t n_terms;
    dure_finisher *finish;
    void *state;
    size_t grain;   /* `columns` of a block is a multiple of it; 0: any */
    size_t n_apart; /* of the terms the last, summed apart and added by `join` */
    dure_joiner *join;
    void *join_state;
    dure_touched touched[DURE_TOUCHED_MAX]; /* a hint; those after the last are zero */
} dure_product;

/* n <= DURE_PRODUCTS_MAX products over the same rows, side by side: none reads what another
 * writes. */
void dure_matmul(const dure_product *products, size_t n, size_t rows, const dure_compute *c);
void dure_matmul_ahead(const dure_product *products, size_t n, size_t rows, dure_ahead ahead,
                       const dure_compute *c);
/* The same for products of one term with a float32 factor of few rows, or with `transposed` few
 * columns: the inner side of an adapter. Its sums run in another order than dure_matmul()'s. */
void dure_matmul_narrow(const dure_product *products, size_t n, size_t rows, const dure_compute *c);
/* The same for at most DURE_MATMUL_FEW rows (one token of generation), without any transposed term:
 * each row of W is decoded and multiplied at once. Its sums run in another order than
 * dure_matmul()'s, so whoever needs results that do not depend on the number of rows must not
 * choose by it. */
void dure_matmul_few(const dure_product *products, size_t n, size_t rows, const dure_compute *c);

/* Scratch a thread needs for products of up to `rows` rows, `inner` the longest inner dimension. */
size_t dure_matmul_scratch_bytes(size_t rows, size_t inner);

/* --- ready-made ways to finish --- */

/* Rows of activations or float32, `ld` of them apart. */
dure_touched dure_touched_acts(const void *at, size_t ld, const dure_cpu_ops *ops);
dure_touched dure_touched_floats(const float *at, size_t ld);

/* y = scale * sums, as activations. */
typedef struct dure_store {
    void *y;
    size_t ldy;
    float scale;
} dure_store;
void dure_finish_store(void *store, const dure_sums *sums, const dure_cpu_ops *ops);

/* y = sums, or += with `accumulate`, in float32. */
typedef struct dure_floats {
    float *y;
    size_t ldy;
    bool accumulate;
} dure_floats;
void dure_finish_floats(void *floats, const dure_sums *sums, const dure_cpu_ops *ops);

/* Row `row` of W as float32 into out[0..in). */
void dure_weight_row(float *out, const dure_weight *w, size_t row, const dure_compute *c);
/* Where column `column` of row `row` starts; `column` is at the edge of a block of the type. */
const uint8_t *dure_weight_at(const dure_weight *w, size_t row, size_t column);
