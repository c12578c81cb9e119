/* One block a row. */
#include "kernels/cuda/cross_entropy.h"

#include "kernels/cuda/language.h"

enum { BLOCK = 256 };

/* Each thread's own running maximum and sum, then those of the block: one pass over the row. */
DURE_DEVICE float lse_of(const float *x, size_t n, float *room)
{
    float top = -INFINITY, sum = 0;
    for (size_t i = threadIdx.x; i < n; i += blockDim.x) {
        if (!(x[i] <= top)) {
            sum *= expf(top - x[i]);
            top = x[i];
        }
        sum += expf(x[i] - top);
    }
    float most = block_max(top, room);
    if (sum > 0) sum *= expf(top - most);
    return most + logf(block_sum(sum, room));
}

DURE_KERNEL(cross_entropy, dure_cuda_cross_entropy)
{
    DURE_SHARED(room);
    size_t row = blockIdx.x, label = (size_t)a.labels[row];
    const float *x = a.logits + row * a.ld;
    float lse = lse_of(x, a.vocab, room);
    if (threadIdx.x == 0) a.nll[row] = lse - x[label];
    if (!a.weight) return;
    /* Near 1 the rounding to bfloat16 of softmax would drown what is left of p - 1. */
    for (size_t i = threadIdx.x; i < a.ld; i += blockDim.x) {
        float p = 0;
        if (i < a.vocab) p = i == label ? expm1f(x[i] - lse) : expf(x[i] - lse);
        a.p[row * a.ld + i] = to_bf16(a.weight[row] * p);
    }
}

void dure_cuda_cross_entropy_run(dure_device *device, const dure_cuda_cross_entropy *args)
{
    DURE_LAUNCH(cross_entropy, args->rows, 1, BLOCK, BLOCK * sizeof(float),
                dure_device_stream(device), *args);
    dure_device_launched(device);
}
