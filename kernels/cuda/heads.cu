/* One block a row and head; its elements lie in shared memory behind the room for sums. */
#include "kernels/cuda/heads.h"

#include "kernels/cuda/language.h"

enum { BLOCK = 64 };

/* Turns the head at x by the row's position, or back. */
DURE_DEVICE void turn(float *x, const dure_cuda_heads *a, float sign)
{
    const float *angle = a->cos_sin + (size_t)a->position[blockIdx.x] * a->turned;
    unsigned half = a->turned / 2;
    for (unsigned p = threadIdx.x; p < half; p += blockDim.x) {
        unsigned i = a->halves ? p : 2 * p, j = a->halves ? p + half : 2 * p + 1;
        float c = angle[i], s = angle[j] * sign, u = x[i], v = x[j];
        x[i] = u * c - v * s;
        x[j] = u * s + v * c;
    }
    __syncthreads();
}

DURE_KERNEL(heads_forward, dure_cuda_heads)
{
    DURE_SHARED(room);
    float *x = room + blockDim.x, square = 0;
    size_t row = blockIdx.x, column = (size_t)blockIdx.y * a.dim;
    for (unsigned i = threadIdx.x; i < a.dim; i += blockDim.x) {
        x[i] = a.x[row * a.ldx + column + i];
        if (a.bias) x[i] += a.bias[column + i];
        square += x[i] * x[i];
    }
    if (a.norm) {
        float r = 1.0f / sqrtf(block_sum(square, room) / (float)a.dim + a.eps);
        for (unsigned i = threadIdx.x; i < a.dim; i += blockDim.x) {
            a.kept[row * a.ld + column + i] = to_bf16(x[i]);
            x[i] = x[i] * r * a.norm[i];
        }
    }
    __syncthreads();
    if (a.cos_sin) turn(x, &a, 1.0f);
    for (unsigned i = threadIdx.x; i < a.dim; i += blockDim.x)
        a.y[row * a.ld + column + i] = to_bf16(x[i]);
}

void dure_cuda_heads_forward(dure_device *device, const dure_cuda_heads *args)
{
    size_t shared = (BLOCK + args->dim) * sizeof(float);
    DURE_LAUNCH(heads_forward, args->rows, args->heads, BLOCK, shared, dure_device_stream(device),
                *args);
    dure_device_launched(device);
}

DURE_KERNEL(heads_backward, dure_cuda_heads)
{
    DURE_SHARED(room);
    float *x = room + blockDim.x, square = 0, product = 0;
    size_t row = blockIdx.x, column = (size_t)blockIdx.y * a.dim, at = row * a.ld + column;
    for (unsigned i = threadIdx.x; i < a.dim; i += blockDim.x)
        x[i] = a.x[row * a.ldx + column + i];
    __syncthreads();
    if (a.cos_sin) turn(x, &a, -1.0f);
    if (a.norm) {
        for (unsigned i = threadIdx.x; i < a.dim; i += blockDim.x) {
            float was = from_bf16(a.kept[at + i]);
            square += was * was;
            product += a.norm[i] * x[i] * was;
        }
        float r = 1.0f / sqrtf(block_sum(square, room) / (float)a.dim + a.eps);
        float pull = block_sum(product, room) * r * r * r / (float)a.dim;
        for (unsigned i = threadIdx.x; i < a.dim; i += blockDim.x)
            x[i] = a.norm[i] * x[i] * r - from_bf16(a.kept[at + i]) * pull;
    }
    for (unsigned i = threadIdx.x; i < a.dim; i += blockDim.x)
        a.y[at + i] = to_bf16(x[i]);
}

void dure_cuda_heads_backward(dure_device *device, const dure_cuda_heads *args)
{
    size_t shared = (BLOCK + args->dim) * sizeof(float);
    DURE_LAUNCH(heads_backward, args->rows, args->heads, BLOCK, shared, dure_device_stream(device),
                *args);
    dure_device_launched(device);
}
