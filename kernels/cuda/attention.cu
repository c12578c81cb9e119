/* A block works on one tile of queries and one head (forward, dq), or on one tile of keys and one
 * head of keys (dk, dv: all query heads of its group, so that nobody else adds to them). It walks
 * over the tiles of the other side in order.
 *
 * Shared memory: float32 sums and scores, then tiles of bfloat16 whose rows are padded by two
 * elements, so that the rows of a column lie in different banks. */
#include "kernels/cuda/attention.h"

#include "kernels/cuda/language.h"

enum { BLOCK = 128, PAD = 2, KEEP_BLOCKS = 16 };

unsigned dure_cuda_tile_rows(unsigned dim)
{
    return dim > 128 ? 16 : 32;
}

/* The tile height again, on the device. */
DURE_DEVICE int height_of(const dure_cuda_attention *a)
{
    return a->dim > 128 ? 16 : 32;
}

/* One side's rows [row, row + n) of head `head` into a tile; rows past n are zero. */
DURE_DEVICE void load_tile(uint16_t *tile, const uint16_t *from, size_t ld, int row, int n,
                           unsigned head, const dure_cuda_attention *a)
{
    int dim = (int)a->dim, all = height_of(a) * dim;
    for (int i = (int)threadIdx.x; i < all; i += (int)blockDim.x) {
        int r = i / dim, c = i % dim;
        tile[r * (dim + PAD) + c] =
            r < n ? from[(size_t)(row + r) * ld + (size_t)head * a->dim + (size_t)c] : 0;
    }
}

DURE_DEVICE float dot_rows(const uint16_t *x, const uint16_t *y, int dim)
{
    float sum = 0;
    for (int i = 0; i < dim; i++)
        sum = fmaf(from_bf16(x[i]), from_bf16(y[i]), sum);
    return sum;
}

/* Whether a query of the tile's document sees a key. */
DURE_DEVICE int sees(int query, int key, int end, const dure_cuda_attention *a)
{
    return key <= query && query < end && (!a->window || query - key < (int)a->window);
}

/* The first row of the first tile of keys that any row from `row` on sees. */
DURE_DEVICE int first_key(const dure_cuda_tile *t, int height, const dure_cuda_attention *a)
{
    int low = a->window ? t->row - (int)a->window + 1 : t->first;
    if (low < t->first) low = t->first;
    return t->first + (low - t->first) / height * height;
}

DURE_DEVICE int less(int x, int y)
{
    return x < y ? x : y;
}

/* --- forward --- */

/* One row of scores becomes numbers to be divided by *sum, given that the rows before had the
 * largest score *top; what was summed before is to be multiplied by *fade. */
DURE_DEVICE void soften(float *s, int n, float *top, float *sum, float *fade)
{
    float most = *top, total = 0;
    for (int c = 0; c < n; c++)
        if (!(s[c] <= most)) most = s[c];
    *fade = 1;
    if (most == -INFINITY) {
        for (int c = 0; c < n; c++)
            s[c] = 0;
        return;
    }
    for (int c = 0; c < n; c++) {
        s[c] = expf(s[c] - most);
        total += s[c];
    }
    *fade = expf(*top - most);
    *sum = *sum * *fade + total;
    *top = most;
}

/* The scores of the tile of queries at `query` with the keys at `key`; -inf where unseen. */
DURE_DEVICE void scores(float *s, const uint16_t *q, const uint16_t *k, int query, int n, int key,
                        int end, const dure_cuda_attention *a)
{
    int height = height_of(a), ld = (int)a->dim + PAD;
    for (int i = (int)threadIdx.x; i < height * height; i += (int)blockDim.x) {
        int r = i / height, c = i % height;
        int seen = r < n && sees(query + r, key + c, end, a);
        s[i] = seen ? a->scale * dot_rows(q + r * ld, k + c * ld, (int)a->dim) : -INFINITY;
    }
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

DURE_KERNEL(forward, dure_cuda_attention)
{
    DURE_SHARED(o);
    const dure_cuda_tile t = a.tiles[blockIdx.x];
    dure_cuda_tile among = t;
    const keys from = keys_of(&among, &a);
    int height = height_of(&a), dim = (int)a.dim, tid = (int)threadIdx.x;
    float *s = o + height * dim, *top = s + height * height, *sum = top + height;
    float *fade = sum + height;
    uint16_t *q = (uint16_t *)(fade + height), *k = q + height * (dim + PAD);
    uint16_t *v = k + height * (dim + PAD);
    unsigned head = blockIdx.y, head_kv = head / (a.heads / a.heads_kv);
    load_tile(q, a.q, a.ld, t.row, t.n, head, &a);
    for (int i = tid; i < height * dim; i += (int)blockDim.x)
        o[i] = 0;
    if (tid < height) {
        top[tid] = -INFINITY;
        sum[tid] = 0;
    }
    for (int key = first_key(&among, height, &a); key < among.row + t.n; key += height) {
        int n = less(height, among.end - key);
        __syncthreads();
        load_tile(k, from.k, from.ld, key, n, head_kv, &a);
        load_tile(v, from.v, from.ld, key, n, head_kv, &a);
        __syncthreads();
        scores(s, q, k, among.row, t.n, key, among.end, &a);
        __syncthreads();
        if (tid < height) soften(s + tid * height, height, top + tid, sum + tid, fade + tid);
        __syncthreads();
        for (int i = tid; i < height * dim; i += (int)blockDim.x) {
            int r = i / dim, c = i % dim;
            float add = 0;
            for (int j = 0; j < height; j++)
                add = fmaf(s[r * height + j], from_bf16(v[j * (dim + PAD) + c]), add);
            o[i] = o[i] * fade[r] + add;
        }
    }
    __syncthreads();
    for (int i = tid; i < t.n * dim; i += (int)blockDim.x)
        a.out[((size_t)(t.row + i / dim) * a.heads + head) * a.dim + (size_t)(i % dim)] =
            to_bf16(o[i] / sum[i / dim]);
    if (tid < t.n) a.lse[(size_t)(t.row + tid) * a.heads + head] = top[tid] + logf(sum[tid]);
}

void dure_cuda_attention_forward(dure_device *device, const dure_cuda_attention *args)
{
    size_t height = dure_cuda_tile_rows(args->dim), dim = args->dim;
    size_t shared = (height * dim + height * height + 3 * height) * sizeof(float) +
                    3 * height * (dim + PAD) * sizeof(uint16_t);
    if (args->caches) {
        DURE_LAUNCH(keep, args->n_caches, KEEP_BLOCKS, BLOCK, 0, dure_device_stream(device), *args);
        dure_device_launched(device);
    }
    DURE_LAUNCH(forward, args->n_tiles, args->heads, BLOCK, shared, dure_device_stream(device),
                *args);
    dure_device_launched(device);
}

/* --- backward --- */

/* delta = the sum of dout . out over each row and head. */
DURE_KERNEL(delta, dure_cuda_attention)
{
    size_t i = thread_number();
    if (i >= a.rows * a.heads) return;
    a.delta[i] = dot_rows(a.dout + i * a.dim, a.out + i * a.dim, (int)a.dim);
}

/* What both kernels of the way back hold of a tile of queries and a tile of keys. */
typedef struct pair {
    float *p, *ds, *sums; /* height x height twice, then room for sums */
    uint16_t *q, *k, *v, *dout;
} pair;

DURE_DEVICE pair pair_in(float *shared, int n_sums, const dure_cuda_attention *a)
{
    int height = height_of(a), tile = height * ((int)a->dim + PAD);
    pair w;
    w.p = shared;
    w.ds = w.p + height * height;
    w.sums = w.ds + height * height;
    w.q = (uint16_t *)(w.sums + n_sums * height * (int)a->dim);
    w.k = w.q + tile;
    w.v = w.k + tile;
    w.dout = w.v + tile;
    return w;
}

static size_t pair_bytes(size_t n_sums, const dure_cuda_attention *a)
{
    size_t height = dure_cuda_tile_rows(a->dim), dim = a->dim;
    return (2 * height * height + n_sums * height * dim) * sizeof(float) +
           4 * height * (dim + PAD) * sizeof(uint16_t);
}

/* p and ds of the queries at `query` and the keys at `key`. */
DURE_DEVICE void score_gradients(const pair *w, int query, int n, int key, int end, unsigned head,
                                 const dure_cuda_attention *a)
{
    int height = height_of(a), ld = (int)a->dim + PAD;
    for (int i = (int)threadIdx.x; i < height * height; i += (int)blockDim.x) {
        int r = i / height, c = i % height;
        w->p[i] = w->ds[i] = 0;
        if (r >= n || !sees(query + r, key + c, end, a)) continue;
        size_t at = (size_t)(query + r) * a->heads + head;
        float s = a->scale * dot_rows(w->q + r * ld, w->k + c * ld, (int)a->dim);
        float dp = dot_rows(w->dout + r * ld, w->v + c * ld, (int)a->dim);
        w->p[i] = expf(s - a->lse[at]);
        w->ds[i] = w->p[i] * (dp - a->delta[at]) * a->scale;
    }
}

DURE_KERNEL(queries_backward, dure_cuda_attention)
{
    DURE_SHARED(shared);
    const dure_cuda_tile t = a.tiles[blockIdx.x];
    const pair w = pair_in(shared, 1, &a);
    int height = height_of(&a), dim = (int)a.dim, tid = (int)threadIdx.x;
    unsigned head = blockIdx.y, head_kv = head / (a.heads / a.heads_kv);
    load_tile(w.q, a.q, a.ld, t.row, t.n, head, &a);
    load_tile(w.dout, a.dout, (size_t)a.heads * a.dim, t.row, t.n, head, &a);
    for (int i = tid; i < height * dim; i += (int)blockDim.x)
        w.sums[i] = 0;
    for (int key = first_key(&t, height, &a); key < t.row + t.n; key += height) {
        int n = less(height, t.end - key);
        __syncthreads();
        load_tile(w.k, a.k, a.ld, key, n, head_kv, &a);
        load_tile(w.v, a.v, a.ld, key, n, head_kv, &a);
        __syncthreads();
        score_gradients(&w, t.row, t.n, key, t.end, head, &a);
        __syncthreads();
        for (int i = tid; i < height * dim; i += (int)blockDim.x)
            for (int j = 0; j < height; j++)
                w.sums[i] = fmaf(w.ds[i / dim * height + j],
                                 from_bf16(w.k[j * (dim + PAD) + i % dim]), w.sums[i]);
    }
    __syncthreads();
    for (int i = tid; i < t.n * dim; i += (int)blockDim.x)
        a.dq[(size_t)(t.row + i / dim) * a.ldd + (size_t)head * a.dim + (size_t)(i % dim)] =
            w.sums[i];
}

/* Adds one tile of queries to the sums of dk and dv behind each other. */
DURE_DEVICE void add_to_keys(const pair *w, const dure_cuda_attention *a)
{
    int height = height_of(a), dim = (int)a->dim, all = height * dim;
    for (int i = (int)threadIdx.x; i < all; i += (int)blockDim.x) {
        float dk = w->sums[i], dv = w->sums[all + i];
        for (int r = 0; r < height; r++) {
            int at = r * height + i / dim, column = r * (dim + PAD) + i % dim;
            dk = fmaf(w->ds[at], from_bf16(w->q[column]), dk);
            dv = fmaf(w->p[at], from_bf16(w->dout[column]), dv);
        }
        w->sums[i] = dk;
        w->sums[all + i] = dv;
    }
}

DURE_KERNEL(keys_backward, dure_cuda_attention)
{
    DURE_SHARED(shared);
    const dure_cuda_tile t = a.tiles[blockIdx.x];
    const pair w = pair_in(shared, 2, &a);
    int height = height_of(&a), dim = (int)a.dim, tid = (int)threadIdx.x, all = height * dim;
    unsigned head_kv = blockIdx.y, group = a.heads / a.heads_kv;
    int last = a.window ? less(t.end, t.row + t.n + (int)a.window - 1) : t.end;
    load_tile(w.k, a.k, a.ld, t.row, t.n, head_kv, &a);
    load_tile(w.v, a.v, a.ld, t.row, t.n, head_kv, &a);
    for (int i = tid; i < 2 * all; i += (int)blockDim.x)
        w.sums[i] = 0;
    for (unsigned head = head_kv * group; head < (head_kv + 1) * group; head++)
        for (int query = t.row; query < last; query += height) {
            int n = less(height, t.end - query);
            __syncthreads();
            load_tile(w.q, a.q, a.ld, query, n, head, &a);
            load_tile(w.dout, a.dout, (size_t)a.heads * a.dim, query, n, head, &a);
            __syncthreads();
            score_gradients(&w, query, n, t.row, t.end, head, &a);
            __syncthreads();
            add_to_keys(&w, &a);
        }
    __syncthreads();
    for (int i = tid; i < t.n * dim; i += (int)blockDim.x) {
        size_t at = (size_t)(t.row + i / dim) * a.ldd + (size_t)head_kv * a.dim + (size_t)(i % dim);
        a.dk[at] = w.sums[i];
        a.dv[at] = w.sums[all + i];
    }
}

void dure_cuda_attention_backward(dure_device *device, const dure_cuda_attention *args)
{
    void *stream = dure_device_stream(device);
    DURE_LAUNCH(delta, dure_blocks_for(args->rows * args->heads, BLOCK), 1, BLOCK, 0, stream,
                *args);
    DURE_LAUNCH(queries_backward, args->n_tiles, args->heads, BLOCK, pair_bytes(1, args), stream,
                *args);
    DURE_LAUNCH(keys_backward, args->n_tiles, args->heads_kv, BLOCK, pair_bytes(2, args), stream,
                *args);
    dure_device_launched(device);
}
