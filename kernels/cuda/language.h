/* The subset of CUDA that the kernels here are written in: C, one struct of arguments a kernel,
 * blocks of one dimension, shared memory, barriers of a whole block. No templates, no classes, no
 * atomics. What a warp does together, the tensor cores' products above all, is in
 * kernels/cuda/tensor.h.
 *
 * The same sources are compiled twice. nvcc makes device code of them. The test build compiles them
 * as C and runs every block of a launch on the CPU, its threads as coroutines that change at each
 * barrier (kernels/cuda/emulated.h): so their logic is tested where there is no GPU. That says
 * nothing of speed, and nothing of what only hardware does: memory ordering inside a warp, register
 * and shared memory limits, cuBLASLt.
 *
 * Every sum runs in an order that depends on the sizes alone, and floats are never added by atomic
 * operations, so a result is the same bits in every run on one device. Both compilers are told not
 * to contract a * b + c; fmaf() is written where it is meant. */
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__CUDACC__)

#include <cuda_runtime.h>

#define DURE_DEVICE static __device__ __forceinline__
#define DURE_CONSTANT static __device__ const
/* A kernel `name` whose one argument is `a`, a struct of type `type`. */
#define DURE_KERNEL(name, type) static __global__ void name(const type a)
/* The same for one that is launched with `threads` threads alone: it may then use more registers.
 */
#define DURE_KERNEL_OF(name, type, threads)                                                        \
    static __global__ void __launch_bounds__(threads) name(const type a)
/* Before a loop of a fixed number of turns that index arrays, which are then registers. */
#define DURE_UNROLL _Pragma("unroll")
/* Dynamic shared memory, the first byte of it, a multiple of 16; one a kernel. */
#define DURE_SHARED(name)                                                                          \
    extern __shared__ __align__(16) double dure_shared_memory[];                                   \
    float *name = (float *)dure_shared_memory
/* Runs it on grid_x * grid_y blocks; none are no work. More than 48 KiB of shared memory must be
 * asked for. */
#define DURE_LAUNCH(name, grid_x, grid_y, block, shared, stream, args)                             \
    do {                                                                                           \
        if ((shared) > (48u << 10))                                                                \
            (void)cudaFuncSetAttribute(name, cudaFuncAttributeMaxDynamicSharedMemorySize,          \
                                       (int)(shared));                                             \
        if ((grid_x) > 0 && (grid_y) > 0)                                                          \
            name<<<dim3((unsigned)(grid_x), (unsigned)(grid_y)), (block), (shared),                \
                   (cudaStream_t)(stream)>>>(args);                                                \
    } while (0)

#else

#include "kernels/cuda/emulated.h"

#define DURE_DEVICE static inline
#define DURE_CONSTANT static const
#define DURE_KERNEL(name, type)                                                                    \
    static void name(const type a);                                                                \
    static void name##_thread(const void *args)                                                    \
    {                                                                                              \
        name(*(const type *)args);                                                                 \
    }                                                                                              \
    static void name(const type a)
#define DURE_KERNEL_OF(name, type, threads) DURE_KERNEL(name, type)
#define DURE_UNROLL
#define DURE_SHARED(name) float *name = dure_emulated_shared()
#define DURE_LAUNCH(name, grid_x, grid_y, block, shared, stream, args)                             \
    do {                                                                                           \
        (void)(stream);                                                                            \
        dure_emulated_run(name##_thread, &(args), (size_t)(grid_x), (size_t)(grid_y), (block),     \
                          (shared));                                                               \
    } while (0)
#define __syncthreads dure_emulated_barrier

#endif

/* Blocks of `block` threads for n elements. */
static inline size_t dure_blocks_for(size_t n, size_t block)
{
    return (n + block - 1) / block;
}

/* The number of this thread in a launch of one dimension. */
DURE_DEVICE size_t thread_number(void)
{
    return (size_t)blockIdx.x * blockDim.x + threadIdx.x;
}

DURE_DEVICE float from_bf16(uint16_t bits)
{
    uint32_t u = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* Rounded to nearest, ties to even; NaN stays NaN: kernels/dequant.h, dure_float_to_bf16(). */
DURE_DEVICE uint16_t to_bf16(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    if ((u & 0x7FFFFFFFu) > 0x7F800000u) return (uint16_t)(u >> 16 | 0x40u);
    return (uint16_t)((u + 0x7FFFu + (u >> 16 & 1u)) >> 16);
}

/* 2^x within 2 units of the last place; what is below the normal numbers is 0. */
DURE_DEVICE float power_of_two(float x)
{
#if defined(__CUDACC__)
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return exp2f(x);
#endif
}

/* The sum of every thread's x, for all of them; `room` is blockDim.x floats of shared memory, and
 * blockDim.x a power of two. The tree is fixed. */
DURE_DEVICE float block_sum(float x, float *room)
{
    unsigned t = threadIdx.x;
    __syncthreads();
    room[t] = x;
    __syncthreads();
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        if (t < half) room[t] += room[t + half];
        __syncthreads();
    }
    return room[0];
}

/* The largest of every thread's x; NaN of any gives NaN. */
DURE_DEVICE float block_max(float x, float *room)
{
    unsigned t = threadIdx.x;
    __syncthreads();
    room[t] = x;
    __syncthreads();
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        if (t < half && !(room[t + half] <= room[t])) room[t] = room[t + half];
        __syncthreads();
    }
    return room[0];
}
