#include "kernels/cuda/rows.h"

#include "kernels/cuda/language.h"

enum { BLOCK = 256 };

/* One block a row. */
DURE_KERNEL(norm_forward, dure_cuda_norm)
{
    DURE_SHARED(room);
    size_t at = (size_t)blockIdx.x * a.width;
    float square = 0;
    for (size_t i = threadIdx.x; i < a.width; i += blockDim.x) {
        float x = a.x ? a.x[at + i] : from_bf16(a.kept[at + i]);
        square += x * x;
    }
    float r = 1.0f / sqrtf(block_sum(square, room) / (float)a.width + a.eps);
    for (size_t i = threadIdx.x; i < a.width; i += blockDim.x) {
        float x = a.x ? a.x[at + i] : from_bf16(a.kept[at + i]);
        float y = x * r * a.gain[i];
        if (a.x && a.kept) a.kept[at + i] = to_bf16(x);
        if (a.add)
            a.add[at + i] += y;
        else
            a.y[at + i] = to_bf16(y);
    }
}

void dure_cuda_norm_forward(dure_device *device, const dure_cuda_norm *args)
{
    DURE_LAUNCH(norm_forward, args->rows, 1, BLOCK, BLOCK * sizeof(float),
                dure_device_stream(device), *args);
    dure_device_launched(device);
}

DURE_KERNEL(norm_backward, dure_cuda_norm_grad)
{
    DURE_SHARED(room);
    size_t at = (size_t)blockIdx.x * a.width;
    float square = 0, product = 0;
    for (size_t i = threadIdx.x; i < a.width; i += blockDim.x) {
        float x = from_bf16(a.kept[at + i]);
        square += x * x;
        product += a.gain[i] * a.dy[at + i] * x;
    }
    float r = 1.0f / sqrtf(block_sum(square, room) / (float)a.width + a.eps);
    float pull = block_sum(product, room) * r * r * r / (float)a.width;
    for (size_t i = threadIdx.x; i < a.width; i += blockDim.x) {
        float dx = a.gain[i] * a.dy[at + i] * r - from_bf16(a.kept[at + i]) * pull;
        if (!a.anew) dx += a.dx[at + i];
        a.dx[at + i] = dx;
        if (a.out) a.out[at + i] = to_bf16(dx);
    }
}

void dure_cuda_norm_backward(dure_device *device, const dure_cuda_norm_grad *args)
{
    DURE_LAUNCH(norm_backward, args->rows, 1, BLOCK, BLOCK * sizeof(float),
                dure_device_stream(device), *args);
    dure_device_launched(device);
}

typedef struct round_args {
    uint16_t *y;
    const float *x;
    size_t n;
} round_args;

DURE_KERNEL(round_numbers, round_args)
{
    size_t i = thread_number();
    if (i < a.n) a.y[i] = to_bf16(a.x[i]);
}

void dure_cuda_round(dure_device *device, uint16_t *y, const float *x, size_t n)
{
    round_args a = {y, x, n};
    DURE_LAUNCH(round_numbers, dure_blocks_for(n, BLOCK), 1, BLOCK, 0, dure_device_stream(device),
                a);
    dure_device_launched(device);
}

DURE_KERNEL(pick_rows, dure_cuda_pick)
{
    size_t i = blockIdx.x, other = (size_t)a.row[i];
    float *y = a.y + (a.scatter ? other : i) * a.width;
    const float *x = a.x + (a.scatter ? i : other) * a.width;
    for (size_t j = threadIdx.x; j < a.width; j += blockDim.x)
        y[j] = x[j];
}

void dure_cuda_pick_rows(dure_device *device, const dure_cuda_pick *args)
{
    DURE_LAUNCH(pick_rows, args->rows, 1, BLOCK, 0, dure_device_stream(device), *args);
    dure_device_launched(device);
}

/* g(x), and its slope: of silu, or of gelu in its form with tanh. */
DURE_DEVICE float activation(float *slope, float x, int gelu)
{
    if (gelu) {
        float t = tanhf(0.79788456f * (x + 0.044715f * x * x * x));
        *slope =
            0.5f * (1 + t) + 0.5f * x * (1 - t * t) * 0.79788456f * (1 + 3 * 0.044715f * x * x);
        return 0.5f * x * (1 + t);
    }
    float s = 1.0f / (1.0f + expf(-x));
    *slope = s * (1 + x * (1 - s));
    return x * s;
}

DURE_KERNEL(gate_forward, dure_cuda_gate)
{
    size_t i = thread_number();
    if (i >= a.rows * a.width) return;
    size_t at = i / a.width * 2 * a.width + i % a.width;
    float slope;
    a.both[at] = to_bf16(a.sums[at]);
    a.both[at + a.width] = to_bf16(a.sums[at + a.width]);
    a.h[i] = to_bf16(activation(&slope, from_bf16(a.both[at]), a.gelu) *
                     from_bf16(a.both[at + a.width]));
}

void dure_cuda_gate_forward(dure_device *device, const dure_cuda_gate *args)
{
    DURE_LAUNCH(gate_forward, dure_blocks_for(args->rows * args->width, BLOCK), 1, BLOCK, 0,
                dure_device_stream(device), *args);
    dure_device_launched(device);
}

DURE_KERNEL(gate_backward, dure_cuda_gate)
{
    size_t i = thread_number();
    if (i >= a.rows * a.width) return;
    size_t at = i / a.width * 2 * a.width + i % a.width;
    float slope, up = from_bf16(a.both[at + a.width]), dh = a.sums[i];
    float g = activation(&slope, from_bf16(a.both[at]), a.gelu);
    a.h[i] = to_bf16(g * up);
    a.both[at] = to_bf16(dh * up * slope);
    a.both[at + a.width] = to_bf16(dh * g);
}

void dure_cuda_gate_backward(dure_device *device, const dure_cuda_gate *args)
{
    DURE_LAUNCH(gate_backward, dure_blocks_for(args->rows * args->width, BLOCK), 1, BLOCK, 0,
                dure_device_stream(device), *args);
    dure_device_launched(device);
}
