/* A GPU played on the CPU, for tests: the device functions of kernels/cuda/device.h with ordinary
 * memory and products in plain C, and the launch of a kernel block by block.
 *
 * It is stricter than hardware where that finds bugs. Shared and device memory start as NaN; every
 * thread of a block must meet every barrier, and every lane of a warp what the warp does together,
 * which must be the same thing; a run with the order of blocks and threads reversed, and with
 * copies to shared memory as early as can be instead of as late, must give the same bits, which a
 * missing barrier seldom does. Never part of a program that users run.
 *
 * Threads: one operating system thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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

/* What the lanes of a warp do together: kernels/cuda/tensor.h. */
void dure_emulated_multiply_add(float *c, const uint32_t *a, const uint32_t *b);
void dure_emulated_load_matrices(uint32_t *to, const uint16_t *row, bool transposed);
float dure_emulated_other_lane(float x, int mask);
/* A thread's copies to shared memory, and waiting until all but its last `groups` have arrived. */
void dure_emulated_copy(void *to, const void *from, unsigned bytes, int there);
void dure_emulated_copies_end_group(void);
void dure_emulated_copies_wait(unsigned groups);
/* The program ends unless `at` is a multiple of `bytes`, as vectors of that size must lie. */
void dure_emulated_vector(const void *at, size_t bytes);
/* Loads so far whose rows did not lie in different banks of shared memory. */
size_t dure_emulated_bank_conflicts(void);

/* From now on blocks, and the threads of each between two barriers, run last to first, and copies
 * to shared memory arrive at once; otherwise they arrive no sooner than they are waited for. */
void dure_emulated_reverse(bool reverse);
/* The next allocations of more than so many bytes in all fail; SIZE_MAX: none does. */
void dure_emulated_limit(size_t bytes);
/* A fault: in products of more rows than this each sum is added in two halves; SIZE_MAX: none. */
void dure_emulated_split_above(size_t rows);
