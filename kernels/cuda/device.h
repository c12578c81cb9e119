/* One GPU: its memory, its queue of work, and products of matrices. The only place that knows
 * CUDA's runtime and cuBLASLt (device.cu); tests have a second implementation on the CPU
 * (emulated.c).
 *
 * Work is queued and runs in order. What fails is remembered, whatever is queued after it does
 * nothing, and dure_device_wait() says it: so only that call, and what takes memory, returns an
 * error.
 *
 * Threads: one call at a time on one device. */
#pragma once

#include "common/err.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dure_device dure_device;

/* GPU number `index`. DURE_ERR_DEVICE with a sentence when there is no driver, no such GPU, or it
 * is older than compute capability 8.0. The caller owns *out. */
DURE_MUST_USE dure_err dure_device_open(dure_device **out, int index, dure_diag *diag);
void dure_device_close(dure_device **device); /* frees whatever memory is left */
/* "NVIDIA H200" */
const char *dure_device_name(const dure_device *device);
/* Bytes free now. */
size_t dure_device_room(const dure_device *device);

/* DURE_ERR_NOMEM says how much was asked for and how much is free. */
DURE_MUST_USE dure_err dure_device_new(void **out, dure_device *device, size_t bytes,
                                       dure_diag *diag);
void dure_device_free(dure_device *device, void *memory); /* NULL is nothing */

void dure_device_upload(dure_device *device, void *to, const void *from, size_t bytes);
void dure_device_copy(dure_device *device, void *to, const void *from, size_t bytes);
void dure_device_zero(dure_device *device, void *at, size_t bytes);
/* Into the host's memory, once dure_device_wait() has returned. */
void dure_device_download(dure_device *device, void *to, const void *from, size_t bytes);
DURE_MUST_USE dure_err dure_device_wait(dure_device *device, dure_diag *diag);

/* Whether something failed already. */
int dure_device_failed(const dure_device *device);
/* For kernels: the queue, and what to call after a launch. */
void *dure_device_stream(dure_device *device);
void dure_device_launched(dure_device *device);

/* C[m x n] = A[m x k] B, row-major, of bfloat16 with float32 sums: B is W[n x k]^T, or with
 * `as_is` W[k x n]. C is float32, or bfloat16 with `rounded`; `add`: C += (float32 alone).
 *
 * A row of C depends on that row of A alone, not on m: the algorithm is chosen for n and k, never
 * splits the sum, and is kept. k, lda, ldw and ldc are multiples of 8. */
typedef struct dure_device_product {
    void *c;
    const uint16_t *a, *w;
    size_t ldc, lda, ldw;
    size_t m, n, k;
    int as_is, add, rounded;
} dure_device_product;
void dure_device_multiply(dure_device *device, const dure_device_product *product);

#ifdef __cplusplus
}
#endif
