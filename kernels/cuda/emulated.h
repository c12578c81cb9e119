/* A GPU played on the CPU, for tests: the device functions of kernels/cuda/device.h with ordinary
 * memory and products in plain C, and the launch of a kernel block by block.
 *
 * It is stricter than hardware where that finds bugs. Shared and device memory start as NaN; every
 * thread of a block must meet every barrier; a run with the order of blocks and threads reversed
 * must give the same bits, which a missing barrier seldom does. Never part of a program that users
 * run.
 *
 * Threads: one operating system thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

typedef struct dure_emulated_dim {
    unsigned x, y;
} dure_emulated_dim;

/* What a kernel reads, under CUDA's names. */
extern dure_emulated_dim threadIdx, blockIdx, blockDim, gridDim;

typedef void dure_emulated_thread(const void *args);
/* Runs all blocks; block a power of two, at most 1024. */
void dure_emulated_run(dure_emulated_thread *thread, const void *args, size_t grid_x, size_t grid_y,
                       unsigned block, size_t shared_bytes);
void dure_emulated_barrier(void);
float *dure_emulated_shared(void);

/* From now on blocks, and the threads of each between two barriers, run last to first. */
void dure_emulated_reverse(bool reverse);
/* The next allocations of more than so many bytes in all fail; SIZE_MAX: none does. */
void dure_emulated_limit(size_t bytes);
/* A fault: in products of more rows than this each sum is added in two halves; SIZE_MAX: none. */
void dure_emulated_split_above(size_t rows);
