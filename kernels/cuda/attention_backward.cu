/* Attention, the way back: dq by a block for each tile of queries and head, dk and dv by one for
 * each tile of keys and head of keys, which walks over all query heads of its group, so that nobody
 * else adds to them. Both compute the scores and their gradient anew, the second one transposed: 7
 * products of a pair where 5 would do if dq were added up by atomic operations, in no fixed order.
 *
 * What bounds it, as in attention.cu: 96 and 128 operations for a byte of the second-level cache.
 * The left factors of the first two products come from shared memory too, so on average a product
 * of 16 x 8 x 16 reads 290 to 340 bytes of it, 2.3 to 2.7 cycles: of the 5 products that count, at
 * most 55 to 62 % of an A100's peak and 28 to 31 % of an H100's. A third and a fifth are what to
 * expect.
 *
 * What a block needs, without spilling, and how many fit for dq and for dk and dv (8.6 and 8.9: 1):
 *   heads up to    shared memory    registers, dq    dk and dv    on 8.0    on 9.0
 *        64            54 KiB            158             200        2, 2      3, 2
 *       128            68 KiB            142             234        2, 2      3, 2
 *       256            99 KiB            214             216        1, 1      2, 1 (of 8 warps)
 */
#include "kernels/cuda/attention_tile.h"

enum { COLUMNS = 128 }; /* of the sums of dk and dv in a warp's registers */

/* delta = the sum of dout . out over each row and head, by a group of lanes. */
DURE_KERNEL(delta, dure_cuda_attention)
{
    size_t i = thread_number() / GROUP, all = a.rows * a.heads;
    float sum = 0;
    for (uint32_t c = threadIdx.x % GROUP * 8; c < a.dim && i < all; c += 64) {
        uint32_t x[4], y[4];
        load_words(x, a.dout + i * a.dim + c);
        load_words(y, a.out + i * a.dim + c);
        for (int j = 0; j < 8; j++)
            sum = fmaf(half_of(x[j / 2], j % 2), half_of(y[j / 2], j % 2), sum);
    }
    sum = group_sum(sum);
    if (i < all && threadIdx.x % GROUP == 0) a.delta[i] = sum;
}

/* One side of the pairs of queries and keys: `rows` rows of q and then of dout, or of k and then of
 * v. What a tile has between its rows takes lse and delta of each query. */
DURE_DEVICE void fetch_side(uint16_t *to, int row, int n, unsigned head, const int of_queries,
                            const int rows, const int dim, const dure_cuda_attention *a)
{
    uint16_t *second = to + rows * (dim + PAD);
    if (!of_queries) {
        fetch_rows(to, a->k, a->ld, row, n, head, rows, dim, a);
        fetch_rows(second, a->v, a->ld, row, n, head, rows, dim, a);
        return;
    }
    fetch_rows(to, a->q, a->ld, row, n, head, rows, dim, a);
    fetch_rows(second, a->dout, (size_t)a->heads * a->dim, row, n, head, rows, dim, a);
    for (int r = (int)threadIdx.x; r < rows; r += (int)blockDim.x) {
        size_t at = r < n ? (size_t)(row + r) * a->heads + head : 0;
        copy_4(to + r * (dim + PAD) + dim, a->lse + at, r < n);
        copy_4(to + r * (dim + PAD) + dim + 2, a->delta + at, r < n);
    }
}

/* Which way a kernel looks: at the tile's keys with steps of queries, or the other way round. The
 * tile's side and a step's lie in shared memory; `row` is the warp's first in the tile. */
typedef struct pairs {
    const uint16_t *tile, *step;
    int row, tile_at, step_at, end; /* the first rows' places, and the document's end */
} pairs;

/* Scores s become probabilities, and their gradients dp those of the scores, but for the scale. */
DURE_DEVICE void score_gradients(float (*s)[4], float (*dp)[4], const pairs *w, const int of_keys,
                                 const int step, const int dim, const dure_cuda_attention *a)
{
    scale_scores(s, w->tile_at + w->row, w->step_at, w->end, of_keys, step, a);
    DURE_UNROLL
    for (int j = 0; j < step / 8; j++) {
        DURE_UNROLL
        for (int i = 0; i < 4; i++) {
            const uint16_t *query = of_keys ? w->step + sum_column(j, i) * (dim + PAD)
                                            : w->tile + (w->row + sum_row(i)) * (dim + PAD);
            const float *of_query = (const float *)(query + dim);
            s[j][i] = power_of_two(fmaf(of_query[0], -LOG2_E, s[j][i]));
            dp[j][i] = s[j][i] * (dp[j][i] - of_query[1]);
        }
    }
}

/* dx += ds . the step's first tile, and for keys dy += p . its second: `width` columns. */
DURE_DEVICE void backward_step(float (*dx)[4], float (*dy)[4], const pairs *w, int from_column,
                               const int of_keys, const int width, const int step, const int dim,
                               const dure_cuda_attention *a)
{
    const uint16_t *second = w->step + step * (dim + PAD);
    int row = w->tile_at + w->row;
    float s[MOST_STEP / 8][4], dp[MOST_STEP / 8][4];
    if (of_keys ? none_sees(w->step_at, step, row, 16, w->end, a)
                : none_sees(row, 16, w->step_at, step, w->end, a))
        return;
    clear(s, step / 8);
    clear(dp, step / 8);
    DURE_UNROLL
    for (int i = 0; i < dim / 16; i++) {
        uint32_t x[4], y[4];
        load_left(x, w->tile, w->row, i * 16, dim + PAD);
        multiply_rows(s, x, w->step, i * 16, step, dim);
        load_left(y, w->tile + TILE * (dim + PAD), w->row, i * 16, dim + PAD);
        multiply_rows(dp, y, second, i * 16, step, dim);
    }
    score_gradients(s, dp, w, of_keys, step, dim, a);
    multiply_columns(dx, dp, w->step + from_column, width, step, dim);
    if (of_keys) multiply_columns(dy, s, second + from_column, width, step, dim);
}

DURE_DEVICE void store_gradient(float *to, const float (*sums)[4], float scale, unsigned head,
                                const dure_cuda_tile *t, int row, int from_column, const int width,
                                const dure_cuda_attention *a)
{
    DURE_UNROLL
    for (int j = 0; j < width / 8; j++) {
        DURE_UNROLL
        for (int i = 0; i < 4; i += 2) {
            int r = row + sum_row(i), c = from_column + sum_column(j, i);
            if (r >= t->n || c >= (int)a->dim) continue;
            store_two(to + (size_t)(t->row + r) * a->ldd + (size_t)head * a->dim + (size_t)c,
                      sums[j][i] * scale, sums[j][i + 1] * scale);
        }
    }
}

/* The steps of the other side, head after head. */
typedef struct walk {
    int low, last, steps; /* rows [low, last) */
    unsigned head, heads;
} walk;

DURE_DEVICE walk walk_of(const dure_cuda_tile *t, const int of_keys, const int step,
                         const dure_cuda_attention *a)
{
    unsigned group = a->heads / a->heads_kv;
    walk w;
    w.low = of_keys ? t->row : first_key(t, step, a);
    w.last = !of_keys    ? t->row + t->n
             : a->window ? less(t->end, t->row + t->n + (int)a->window - 1)
                         : t->end;
    w.steps = (w.last - w.low + step - 1) / step;
    w.head = of_keys ? blockIdx.y * group : blockIdx.y / group;
    w.heads = of_keys ? group : 1;
    return w;
}

/* dk and dv of heads of more than 128 elements are held by two warps, each with half of the columns
 * and both with all scores. */
DURE_DEVICE void backward_tile(const dure_cuda_attention *a, uint16_t *shared, const int of_keys,
                               const int dim)
{
    const int step = STEP_SIZE / dim, width = of_keys && dim > COLUMNS ? COLUMNS : dim;
    const int size = 2 * step * (dim + PAD);
    /* The longest walks start first: of a document's last queries, and of its first keys. */
    const dure_cuda_tile t = a->tiles[of_keys ? blockIdx.x : gridDim.x - 1 - blockIdx.x];
    const walk w = walk_of(&t, of_keys, step, a);
    uint16_t *steps = shared + 2 * TILE * (dim + PAD);
    int warp = (int)threadIdx.x / LANES, from_column = warp / 4 * COLUMNS;
    pairs now = {shared, steps, warp % 4 * 16, t.row, 0, t.end};
    float dx[WIDEST / 8][4], dy[COLUMNS / 8][4];
    clear(dx, width / 8);
    if (of_keys) clear(dy, width / 8);
    fetch_side(shared, t.row, t.n, blockIdx.y, !of_keys, TILE, dim, a);
    for (int i = -1; i < w.steps * (int)w.heads; i++) {
        int next = i + 1, at = w.low + next % w.steps * step;
        if (next < w.steps * (int)w.heads)
            fetch_side(steps + next % 2 * size, at, less(step, t.end - at),
                       w.head + (unsigned)(next / w.steps), of_keys, step, dim, a);
        copies_end_group();
        if (i < 0) continue;
        copies_wait_but_last();
        __syncthreads();
        now.step = steps + i % 2 * size;
        now.step_at = w.low + i % w.steps * step;
        backward_step(dx, dy, &now, from_column, of_keys, width, step, dim, a);
        __syncthreads();
    }
    store_gradient(of_keys ? a->dk : a->dq, dx, a->scale, blockIdx.y, &t, now.row, from_column,
                   width, a);
    if (of_keys) store_gradient(a->dv, dy, 1, blockIdx.y, &t, now.row, from_column, width, a);
}

/* --- launches --- */

/* The kernels for heads of up to `dim` elements. */
#define KERNELS(dim, key_threads)                                                                  \
    DURE_KERNEL_OF(queries_##dim, dure_cuda_attention, BLOCK)                                      \
    {                                                                                              \
        DURE_SHARED(shared);                                                                       \
        backward_tile(&a, (uint16_t *)shared, 0, dim);                                             \
    }                                                                                              \
    DURE_KERNEL_OF(keys_##dim, dure_cuda_attention, key_threads)                                   \
    {                                                                                              \
        DURE_SHARED(shared);                                                                       \
        backward_tile(&a, (uint16_t *)shared, 1, dim);                                             \
    }
KERNELS(64, BLOCK)
KERNELS(128, BLOCK)
KERNELS(256, 2 * BLOCK)

void dure_cuda_attention_backward(dure_device *device, const dure_cuda_attention *args)
{
    void *stream = dure_device_stream(device);
    size_t dim = kernel_dim(args), rows = args->rows * args->heads;
    size_t shared = side_bytes(TILE, dim) + 2 * side_bytes(STEP_SIZE / dim, dim);
    DURE_LAUNCH(delta, dure_blocks_for(rows, GROUPS), 1, BLOCK, 0, stream, *args);
    LAUNCH(queries, args->heads, BLOCK, shared);
    LAUNCH(keys, args->heads_kv, dim > COLUMNS ? 2 * BLOCK : BLOCK, shared);
    dure_device_launched(device);
}
