#include "kernels/cuda/dora.h"

#include "kernels/cuda/language.h"

enum { BLOCK = 256, COLUMNS = 64 };

DURE_KERNEL(dora_forward, dure_cuda_dora)
{
    size_t i = thread_number();
    if (i >= a.rows * a.width) return;
    size_t at = i / a.width * a.ld + i % a.width;
    float sum = a.sums[at], y = sum * a.gain[i % a.width];
    if (a.kept) a.kept[i] = to_bf16(sum);
    if (a.add)
        a.add[i] += y;
    else
        a.sums[at] = y;
}

void dure_cuda_dora_forward(dure_device *device, const dure_cuda_dora *args)
{
    DURE_LAUNCH(dora_forward, dure_blocks_for(args->rows * args->width, BLOCK), 1, BLOCK, 0,
                dure_device_stream(device), *args);
    dure_device_launched(device);
}

/* A thread a column and document. */
DURE_KERNEL(dora_backward, dure_cuda_dora_grad)
{
    size_t column = thread_number();
    const dure_cuda_rows d = a.docs[blockIdx.y];
    float sum = 0;
    if (column >= a.width) return;
    for (int row = d.first; row < d.first + d.n; row++) {
        size_t at = (size_t)row * a.ld + column;
        float dy = from_bf16(a.dy[at]);
        if (a.out) sum += dy * from_bf16(a.kept[(size_t)row * a.width + column]);
        a.dy[at] = to_bf16(dy * a.gain[column]);
    }
    if (a.out)
        a.out[blockIdx.y * a.stride + column] = a.norm[column] > 0 ? sum / a.norm[column] : 0;
}

void dure_cuda_dora_backward(dure_device *device, const dure_cuda_dora_grad *args)
{
    DURE_LAUNCH(dora_backward, dure_blocks_for(args->width, COLUMNS), args->n_docs, COLUMNS, 0,
                dure_device_stream(device), *args);
    dure_device_launched(device);
}
