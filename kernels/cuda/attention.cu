/* Attention, forward: a block has a tile of queries and a head, and walks over the keys that they
 * see, with the softmax of what it has met so far (Milakov and Gimelshein, arXiv 1805.02867).
 *
 * What bounds it, reckoned and not measured. The tiles of a head run side by side, so keys and
 * values come from the second-level cache, each once for 64 queries: 64 operations a byte, at 5
 * TB/s 320 Tflop/s. Shared memory: each product of 16 x 8 x 16 reads its right factor, 256 bytes or
 * 2 cycles, while its left one stays in registers; the product itself is 2 cycles of an A100's
 * tensor cores and 1 of an H100's, where mma.sync comes to 60 % of that. So both caches hold an
 * A100 to its own peak (312) and an H100 to a third or half of its (989), before the softmax, which
 * takes about 8 float32 operations and a power of two for a score. Half of an A100's peak and a
 * quarter to a third of an H100's are what to expect.
 *
 * What a block of 4 warps needs, by nvcc 13.0 without spilling, and how many fit (8.6 and 8.9: 2, 2
 * and 2):
 *   heads up to    shared memory    registers a thread    blocks on 8.0    on 9.0
 *        64            36 KiB              136                  3              3
 *       128            34 KiB              166                  3              3
 *       256            33 KiB              246                  2              2
 */
#include "kernels/cuda/attention_tile.h"

enum { KEEP_BLOCKS = 16 };

unsigned dure_cuda_tile_rows(void)
{
    return TILE;
}

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
        fade = power_of_two(w->top[h] - base);
        w->top[h] = most;
        w->sum[h] *= fade;
        DURE_UNROLL
        for (int j = 0; j < step / 8; j++) {
            DURE_UNROLL
            for (int i = 2 * h; i < 2 * h + 2; i++) {
                s[j][i] = power_of_two(s[j][i] - base);
                w->sum[h] += s[j][i];
            }
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
    scale_scores(s, query, key, end, 0, step, a);
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
        float share = 1 / sum;
        size_t at = (size_t)(t->row + r) * a->heads + blockIdx.y;
        DURE_UNROLL
        for (int j = 0; j < dim / 8; j++)
            if (j * 8 < (int)a->dim)
                store_word(a->out + at * a->dim + (size_t)sum_column(j, 0),
                           pack_bf16(w->o[j][2 * h] * share, w->o[j][2 * h + 1] * share));
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
    /* The longest walks are a document's last: they start first. */
    const dure_cuda_tile t = a->tiles[gridDim.x - 1 - blockIdx.x];
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

/* --- a conversation that goes on by one token --- */

/* A block has one query and one head. A group of lanes has every 16th key, AHEAD of them at a time,
 * and the softmax of its own. There are two multiply-adds for 4 bytes from memory, which alone
 * counts. */
enum { AHEAD = 4 };

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
    fade = power_of_two(w->top - base);
    w->top = most;
    w->sum *= fade;
    DURE_UNROLL
    for (int i = 0; i < AHEAD; i++) {
        s[i] = power_of_two(s[i] - base);
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
        total = fmaf(power_of_two(top[g] - most), sum[g], total);
    for (int c = tid; c < (int)a->dim; c += BLOCK) {
        float o = 0;
        for (int g = 0; g < GROUPS; g++)
            o = fmaf(power_of_two(top[g] - most), shared[g * dim + c], o);
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

/* --- launches --- */

/* The kernels for heads of up to `dim` elements. */
#define KERNELS(dim)                                                                               \
    DURE_KERNEL_OF(forward_##dim, dure_cuda_attention, BLOCK)                                      \
    {                                                                                              \
        DURE_SHARED(shared);                                                                       \
        forward_tile(&a, (uint16_t *)shared, dim);                                                 \
    }                                                                                              \
    DURE_KERNEL_OF(decode_##dim, dure_cuda_attention, BLOCK)                                       \
    {                                                                                              \
        DURE_SHARED(shared);                                                                       \
        decode_tile(&a, shared, dim);                                                              \
    }
KERNELS(64)
KERNELS(128)
KERNELS(256)

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
