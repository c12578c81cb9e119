#include "kernels/cuda/lora.h"

#include "kernels/cuda/language.h"

/* A block makes COLUMNS x RANKS sums of one document; each of its threads makes EACH of one column,
 * from DEPTH rows at a time in shared memory. */
enum { BLOCK = 256, COLUMNS = 64, RANKS = 32, LANES = BLOCK / COLUMNS, EACH = RANKS / LANES };
enum { DEPTH = 32 };

DURE_KERNEL(pad_matrix, dure_cuda_pad)
{
    size_t i = thread_number(), row = i / a.ld, column = i % a.ld;
    if (row >= a.to_rows) return;
    float x = 0;
    if (row < a.rows && column < a.columns) x = a.by * a.from[row * a.columns + column];
    a.to[i] = to_bf16(x);
}

void dure_cuda_pad_matrix(dure_device *device, const dure_cuda_pad *args)
{
    DURE_LAUNCH(pad_matrix, dure_blocks_for(args->to_rows * args->ld, BLOCK), 1, BLOCK, 0,
                dure_device_stream(device), *args);
    dure_device_launched(device);
}

/* Rows [row, row + DEPTH) of columns [first, first + n) of x as float32, zero outside. */
DURE_DEVICE void load(float *to, int n, const uint16_t *x, size_t ld, size_t width, size_t first,
                      int row, int end)
{
    for (int i = (int)threadIdx.x; i < DEPTH * n; i += (int)blockDim.x) {
        int r = row + i / n;
        size_t column = first + (size_t)(i % n);
        to[i] = r < end && column < width ? from_bf16(x[(size_t)r * ld + column]) : 0;
    }
}

DURE_KERNEL(lora_gradients, dure_cuda_lora)
{
    DURE_SHARED(z);
    float *x = z + DEPTH * RANKS, sum[EACH];
    size_t groups = (a.rank + RANKS - 1) / RANKS, doc = blockIdx.y / groups;
    size_t rank = blockIdx.y % groups * RANKS, column = (size_t)blockIdx.x * COLUMNS;
    const dure_cuda_rows d = a.docs[doc];
    int own = (int)threadIdx.x % COLUMNS, lane = (int)threadIdx.x / COLUMNS;
    for (int e = 0; e < EACH; e++)
        sum[e] = 0;
    for (int row = d.first; row < d.first + d.n; row += DEPTH) {
        __syncthreads();
        load(z, RANKS, a.z, a.ldz, a.rank, rank, row, d.first + d.n);
        load(x, COLUMNS, a.x, a.ldx, a.width, column, row, d.first + d.n);
        __syncthreads();
        for (int r = 0; r < DEPTH; r++)
            for (int e = 0; e < EACH; e++)
                sum[e] = fmaf(z[r * RANKS + lane + e * LANES], x[r * COLUMNS + own], sum[e]);
    }
    column += (size_t)own;
    for (int e = 0; e < EACH; e++) {
        size_t j = rank + (size_t)(lane + e * LANES);
        if (column >= a.width || j >= a.rank) continue;
        size_t at = a.turned ? column * a.rank + j : j * a.width + column;
        a.out[doc * a.stride + at] = a.by * sum[e];
    }
}

void dure_cuda_lora_gradients(dure_device *device, const dure_cuda_lora *args)
{
    size_t groups = dure_blocks_for(args->rank, RANKS);
    DURE_LAUNCH(lora_gradients, dure_blocks_for(args->width, COLUMNS), args->n_docs * groups, BLOCK,
                DEPTH * (RANKS + COLUMNS) * sizeof(float), dure_device_stream(device), *args);
    dure_device_launched(device);
}
