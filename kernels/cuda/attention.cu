/* A block works on one tile of queries and one head (forward, dq), or on one tile of keys and one
 * head of keys (dk, dv: all query heads of its group, so that nobody else adds to them). It walks
 * over the other side in steps, in order, counted from the document's first row, and copies the
 * next step to shared memory while it computes with this one.
 *
 * Each warp has 16 rows of the tile, and their sums, in registers. It multiplies them with a step
 * on the tensor cores: scores = q k^T; they stay where they are and, rounded to bfloat16, are the
 * left factor of the second product, with v. On the way back the scores and their gradient are
 * computed anew, transposed for dk and dv. What a whole step cannot see is left out; masked pairs
 * of the others add exact zeros, so a row's bits do not depend on where its tile begins.
 *
 * Heads of up to 64, 128 and 256 elements have a kernel each; narrower ones are filled up with
 * zeros. Shared memory, its rows 16 bytes longer than a head so that they lie in different banks:
 * 36, 34 and 33 KiB forward and 54, 68 and 99 KiB back, of 99 (8.6, 8.9), 163 (8.0) and 227 (9.0).
 */
#include "kernels/cuda/attention.h"

#include "kernels/cuda/tensor.h"

enum {
    TILE = 64, /* rows of a tile, 16 a warp */
    BLOCK = 128,
    PAD = 8,
    STEP_SIZE = 4096, /* elements of a step of rows of one head */
    WIDEST = DURE_CUDA_HEAD_WIDEST,
    COLUMNS = 128, /* of the sums of dk and dv in a warp's registers */
    KEEP_BLOCKS = 16,
    MOST_STEP = STEP_SIZE / 64
};

#define LOG2_E 1.44269504f
#define LN_2 0.693147181f

unsigned dure_cuda_tile_rows(void)
{
    return TILE;
}

/* Asks for rows [row, row + n) of head `head`, as the first of `rows` rows of a tile; whatever else
 * the tile has becomes zero. */
DURE_DEVICE void fetch_rows(uint16_t *tile, const uint16_t *from, size_t ld, int row, int n,
                            unsigned head, const int rows, const int dim,
                            const dure_cuda_attention *a)
{
    const int pieces = dim / 8;
    for (int i = (int)threadIdx.x; i < rows * pieces; i += (int)blockDim.x) {
        int r = i / pieces, c = i % pieces * 8, there = r < n && c < (int)a->dim;
        size_t at = (size_t)(row + r) * ld + (size_t)head * a->dim + (size_t)c;
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

/* --- forward --- */

/* Where a tile's document has its keys and values, and how wide a row of them is. `t`, whose rows
 * are those of the pass, gets the place of its queries among them. */
typedef struct keys {
    const uint16_t *k, *v;
    size_t ld;
} keys;

DURE_DEVICE keys keys_of(dure_cuda_tile *t, const dure_cuda_attention *a)
{
    keys at = {a->k, a->v, a->ld};
    if (!a->caches) return at;
    const dure_cuda_cache *c = &a->caches[t->doc];
    size_t width = (size_t)a->heads_kv * a->dim;
    at.k = c->rows + a->layer * c->layer;
    at.v = at.k + width;
    at.ld = 2 * width;
    t->row += c->had - c->first;
    t->first = 0;
    t->end = c->had + c->n;
    return at;
}

DURE_KERNEL(keep, dure_cuda_attention)
{
    const dure_cuda_cache c = a.caches[blockIdx.x];
    size_t width = (size_t)a.heads_kv * a.dim, n = (size_t)c.n * width;
    uint16_t *to = c.rows + a.layer * c.layer + (size_t)c.had * 2 * width;
    for (size_t i = (size_t)blockIdx.y * blockDim.x + threadIdx.x; i < n;
         i += (size_t)gridDim.y * blockDim.x) {
        size_t row = i / width, column = i % width;
        size_t from = ((size_t)c.first + row) * a.ld + column;
        to[row * 2 * width + column] = a.k[from];
        to[row * 2 * width + width + column] = a.v[from];
    }
}

/* A warp's 16 queries: their sums of values, and for the two rows of a lane the largest score so
 * far in base 2 and this lane's part of the sum of 2^(score - largest). */
typedef struct queries {
    uint32_t q[WIDEST / 16][4];
    float o[WIDEST / 8][4];
    float top[2], sum[2];
} queries;

/* Scores become 2^(score - largest), and the sums so far are made to fit them. */
DURE_DEVICE void soften(queries *w, float (*s)[4], const int step, const int dim)
{
    DURE_UNROLL
    for (int h = 0; h < 2; h++) {
        float most = w->top[h], base, fade;
        DURE_UNROLL
        for (int j = 0; j < step / 8; j++)
            most = fmaxf(most, fmaxf(s[j][2 * h], s[j][2 * h + 1]));
        most = fmaxf(most, other_lane(most, 1));
        most = fmaxf(most, other_lane(most, 2));
        /* A row that has seen nothing yet keeps zeros. */
        base = most == -INFINITY ? 0 : most;
        fade = exp2f(w->top[h] - base);
        w->top[h] = most;
        w->sum[h] *= fade;
        DURE_UNROLL
        for (int j = 0; j < step / 8; j++)
            DURE_UNROLL
        for (int i = 2 * h; i < 2 * h + 2; i++) {
            s[j][i] = exp2f(s[j][i] - base);
            w->sum[h] += s[j][i];
        }
        DURE_UNROLL
        for (int j = 0; j < dim / 8; j++) {
            w->o[j][2 * h] *= fade;
            w->o[j][2 * h + 1] *= fade;
        }
    }
}

/* The queries from `query` on meet the keys of a step, which start at `key`; their values lie
 * behind them. */
DURE_DEVICE void forward_step(queries *w, const uint16_t *k, int query, int key, int end,
                              const int step, const int dim, const dure_cuda_attention *a)
{
    float s[MOST_STEP / 8][4];
    if (none_sees(query, 16, key, step, end, a)) return;
    clear(s, step / 8);
    DURE_UNROLL
    for (int i = 0; i < dim / 16; i++)
        multiply_rows(s, w->q[i], k, i * 16, step, dim);
    int all = all_see(query, 16, key, step, end, a);
    float scale = a->scale * LOG2_E;
    DURE_UNROLL
    for (int j = 0; j < step / 8; j++)
        DURE_UNROLL
    for (int i = 0; i < 4; i++)
        s[j][i] = all || sees(query + sum_row(i), key + sum_column(j, i), end, a) ? s[j][i] * scale
                                                                                  : -INFINITY;
    soften(w, s, step, dim);
    multiply_columns(w->o, s, k + step * (dim + PAD), dim, step, dim);
}

/* By way of shared memory, which holds 64 rows of every width. */
DURE_DEVICE void load_queries(queries *w, uint16_t *shared, const dure_cuda_tile *t, int row,
                              const int dim, const dure_cuda_attention *a)
{
    fetch_rows(shared, a->q, a->ld, t->row, t->n, blockIdx.y, TILE, dim, a);
    copies_end_group();
    copies_wait();
    __syncthreads();
    DURE_UNROLL
    for (int i = 0; i < dim / 16; i++)
        load_left(w->q[i], shared, row, i * 16, dim + PAD);
    clear(w->o, dim / 8);
    w->top[0] = w->top[1] = -INFINITY;
    w->sum[0] = w->sum[1] = 0;
    __syncthreads();
}

DURE_DEVICE void store_queries(const queries *w, const dure_cuda_tile *t, int row, const int dim,
                               const dure_cuda_attention *a)
{
    DURE_UNROLL
    for (int h = 0; h < 2; h++) {
        int r = row + sum_row(2 * h);
        float sum = w->sum[h] + other_lane(w->sum[h], 1);
        sum += other_lane(sum, 2);
        if (r >= t->n) continue;
        size_t at = (size_t)(t->row + r) * a->heads + blockIdx.y;
        DURE_UNROLL
        for (int j = 0; j < dim / 8; j++)
            if (j * 8 < (int)a->dim)
                store_word(a->out + at * a->dim + (size_t)sum_column(j, 0),
                           pack_bf16(w->o[j][2 * h] / sum, w->o[j][2 * h + 1] / sum));
        if (lane() % 4 == 0) a->lse[at] = fmaf(w->top[h], LN_2, logf(sum));
    }
}

/* Whether the tile is the only row of a conversation: decode_tile() does those. */
DURE_DEVICE int goes_on_by_one(const dure_cuda_tile *t, const dure_cuda_attention *a)
{
    return a->caches && a->caches[t->doc].n == 1;
}

DURE_DEVICE void forward_tile(const dure_cuda_attention *a, uint16_t *shared, const int dim)
{
    const int step = STEP_SIZE / dim, size = 2 * step * (dim + PAD);
    const dure_cuda_tile t = a->tiles[blockIdx.x];
    dure_cuda_tile among = t;
    const keys from = keys_of(&among, a);
    unsigned head_kv = blockIdx.y / (a->heads / a->heads_kv);
    int row = (int)threadIdx.x / LANES * 16, low = first_key(&among, step, a);
    int last = among.row + t.n, steps = (last - low + step - 1) / step;
    queries w;
    if (goes_on_by_one(&t, a)) return;
    load_queries(&w, shared, &t, row, dim, a);
    for (int i = -1; i < steps; i++) {
        if (i + 1 < steps) {
            int key = low + (i + 1) * step, n = less(step, among.end - key);
            uint16_t *next = shared + (i + 1) % 2 * size;
            fetch_rows(next, from.k, from.ld, key, n, head_kv, step, dim, a);
            fetch_rows(next + size / 2, from.v, from.ld, key, n, head_kv, step, dim, a);
        }
        copies_end_group();
        if (i < 0) continue;
        copies_wait_but_last();
        __syncthreads();
        forward_step(&w, shared + i % 2 * size, among.row + row, low + i * step, among.row + t.n,
                     step, dim, a);
        __syncthreads();
    }
    store_queries(&w, &t, row, dim, a);
}

/* --- forward, one query a document --- */

/* A block has one query and one head. Eight lanes share a key, 16 bytes of it each at a time, so
 * its groups of lanes take 16 keys at once, and each has the softmax of its own keys. There are
 * two multiply-adds for 4 bytes from memory, which alone counts. */
enum { GROUP = 8, GROUPS = BLOCK / GROUP, AHEAD = 4 };

/* What a group has so far: as queries above, a lane having 8 columns of every 64. */
typedef struct decoded {
    float q[WIDEST / GROUP], o[WIDEST / GROUP];
    float top, sum;
} decoded;

/* The columns that a lane has of a row, as words. */
DURE_DEVICE void load_columns(uint32_t (*to)[4], const uint16_t *row, int there, const int dim,
                              const dure_cuda_attention *a)
{
    DURE_UNROLL
    for (int j = 0; j < dim / 64; j++) {
        int column = j * 64 + (int)threadIdx.x % GROUP * 8;
        to[j][0] = to[j][1] = to[j][2] = to[j][3] = 0;
        if (there && column < (int)a->dim) load_words(to[j], row + column);
    }
}

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

/* AHEAD keys of a group, GROUPS apart from `key` on; those from `end` on are not there. */
DURE_DEVICE void decode_keys(decoded *w, const keys *from, unsigned head_kv, int key, int end,
                             const int dim, const dure_cuda_attention *a)
{
    uint32_t k[AHEAD][WIDEST / 64][4], v[AHEAD][WIDEST / 64][4];
    float s[AHEAD], most = w->top, base, fade;
    DURE_UNROLL
    for (int i = 0; i < AHEAD; i++) {
        int there = key + i * GROUPS < end;
        size_t at = (size_t)(there ? key + i * GROUPS : 0) * from->ld + (size_t)head_kv * a->dim;
        load_columns(k[i], from->k + at, there, dim, a);
        load_columns(v[i], from->v + at, there, dim, a);
    }
    DURE_UNROLL
    for (int i = 0; i < AHEAD; i++) {
        s[i] = 0;
        DURE_UNROLL
        for (int j = 0; j < dim / GROUP; j++)
            s[i] = fmaf(w->q[j], half_of(k[i][j / 8][j % 8 / 2], j % 2), s[i]);
        s[i] = group_sum(s[i]) * (a->scale * LOG2_E);
        if (key + i * GROUPS >= end) s[i] = -INFINITY;
        most = fmaxf(most, s[i]);
    }
    base = most == -INFINITY ? 0 : most;
    fade = exp2f(w->top - base);
    w->top = most;
    w->sum *= fade;
    DURE_UNROLL
    for (int i = 0; i < AHEAD; i++) {
        s[i] = exp2f(s[i] - base);
        w->sum += s[i];
    }
    DURE_UNROLL
    for (int j = 0; j < dim / GROUP; j++) {
        w->o[j] *= fade;
        DURE_UNROLL
        for (int i = 0; i < AHEAD; i++)
            w->o[j] = fmaf(s[i], half_of(v[i][j / 8][j % 8 / 2], j % 2), w->o[j]);
    }
}

/* The groups' sums put together in their order, by way of shared memory. */
DURE_DEVICE void store_decoded(const decoded *w, float *shared, const dure_cuda_tile *t,
                               const int dim, const dure_cuda_attention *a)
{
    int group = (int)threadIdx.x / GROUP, tid = (int)threadIdx.x;
    float *top = shared + GROUPS * dim, *sum = top + GROUPS, most = -INFINITY, total = 0;
    size_t at = (size_t)t->row * a->heads + blockIdx.y;
    DURE_UNROLL
    for (int j = 0; j < dim / GROUP; j++)
        shared[group * dim + j / 8 * 64 + tid % GROUP * 8 + j % 8] = w->o[j];
    top[group] = w->top;
    sum[group] = w->sum;
    __syncthreads();
    for (int g = 0; g < GROUPS; g++)
        most = fmaxf(most, top[g]);
    for (int g = 0; g < GROUPS; g++)
        total = fmaf(exp2f(top[g] - most), sum[g], total);
    for (int c = tid; c < (int)a->dim; c += BLOCK) {
        float o = 0;
        for (int g = 0; g < GROUPS; g++)
            o = fmaf(exp2f(top[g] - most), shared[g * dim + c], o);
        a->out[at * a->dim + (size_t)c] = to_bf16(o / total);
    }
    if (tid == 0) a->lse[at] = fmaf(most, LN_2, logf(total));
}

DURE_DEVICE void decode_tile(const dure_cuda_attention *a, float *shared, const int dim)
{
    const dure_cuda_tile t = a->tiles[blockIdx.x];
    dure_cuda_tile among = t;
    const keys from = keys_of(&among, a);
    unsigned head_kv = blockIdx.y / (a->heads / a->heads_kv);
    int first = a->window ? among.row - (int)a->window + 1 : 0;
    uint32_t q[WIDEST / 64][4];
    decoded w;
    if (!goes_on_by_one(&t, a)) return;
    if (first < 0) first = 0;
    load_columns(q, a->q + (size_t)t.row * a->ld + (size_t)blockIdx.y * a->dim, 1, dim, a);
    DURE_UNROLL
    for (int j = 0; j < dim / GROUP; j++) {
        w.q[j] = half_of(q[j / 8][j % 8 / 2], j % 2);
        w.o[j] = 0;
    }
    w.top = -INFINITY;
    w.sum = 0;
    for (int key = first; key < among.end; key += AHEAD * GROUPS)
        decode_keys(&w, &from, head_kv, key + (int)threadIdx.x / GROUP, among.end, dim, a);
    store_decoded(&w, shared, &t, dim, a);
}

/* --- backward --- */

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
    int row = w->tile_at + w->row, column = w->step_at;
    int all = of_keys ? all_see(column, step, row, 16, w->end, a)
                      : all_see(row, 16, column, step, w->end, a);
    float scale = a->scale * LOG2_E;
    DURE_UNROLL
    for (int j = 0; j < step / 8; j++) {
        DURE_UNROLL
        for (int i = 0; i < 4; i++) {
            int r = sum_row(i), c = sum_column(j, i);
            const uint16_t *query =
                of_keys ? w->step + c * (dim + PAD) : w->tile + (w->row + r) * (dim + PAD);
            const float *of_query = (const float *)(query + dim);
            int seen = all || (of_keys ? sees(column + c, row + r, w->end, a)
                                       : sees(row + r, column + c, w->end, a));
            s[j][i] = seen ? exp2f(fmaf(s[j][i], scale, of_query[0] * -LOG2_E)) : 0;
            dp[j][i] = seen ? s[j][i] * (dp[j][i] - of_query[1]) : 0;
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
    const dure_cuda_tile t = a->tiles[blockIdx.x];
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
    DURE_KERNEL_OF(forward_##dim, dure_cuda_attention, BLOCK)                                      \
    {                                                                                              \
        DURE_SHARED(shared);                                                                       \
        forward_tile(&a, (uint16_t *)shared, dim);                                                 \
    }                                                                                              \
    DURE_KERNEL_OF(decode_##dim, dure_cuda_attention, BLOCK)                                       \
    {                                                                                              \
        DURE_SHARED(shared);                                                                       \
        decode_tile(&a, shared, dim);                                                              \
    }                                                                                              \
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

/* One of them, for every tile and `heads` heads. */
#define LAUNCH(kernel, heads, block, shared)                                                       \
    do {                                                                                           \
        if (args->dim <= 64)                                                                       \
            DURE_LAUNCH(kernel##_64, args->n_tiles, heads, block, shared, stream, *args);          \
        else if (args->dim <= 128)                                                                 \
            DURE_LAUNCH(kernel##_128, args->n_tiles, heads, block, shared, stream, *args);         \
        else                                                                                       \
            DURE_LAUNCH(kernel##_256, args->n_tiles, heads, block, shared, stream, *args);         \
    } while (0)

static size_t kernel_dim(const dure_cuda_attention *args)
{
    return args->dim <= 64 ? 64 : args->dim <= 128 ? 128 : WIDEST;
}

/* Two tiles of `rows` rows. */
static size_t side_bytes(size_t rows, size_t dim)
{
    return 2 * rows * (dim + PAD) * sizeof(uint16_t);
}

void dure_cuda_attention_forward(dure_device *device, const dure_cuda_attention *args)
{
    void *stream = dure_device_stream(device);
    size_t dim = kernel_dim(args), shared = 2 * side_bytes(STEP_SIZE / dim, dim);
    if (args->caches) {
        DURE_LAUNCH(keep, args->n_caches, KEEP_BLOCKS, BLOCK, 0, stream, *args);
        LAUNCH(decode, args->heads, BLOCK, GROUPS * (dim + 2) * sizeof(float));
        dure_device_launched(device);
    }
    LAUNCH(forward, args->heads, BLOCK, shared);
    dure_device_launched(device);
}

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
