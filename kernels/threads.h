/* A persistent pool of threads that share out numbered tasks.
 *
 * dure_pool_run() hands out tasks [0, n) one by one, the first first; which thread takes which is
 * not fixed, so a task writes only what is its own and never depends on the thread's number, except
 * to find its scratch memory. The caller works too: a pool of one thread starts none.
 *
 * While tasks run, denormal numbers are flushed to zero on every thread alike, so that a result
 * does not depend on the thread and never meets the slow path of the hardware.
 *
 * Threads: one dure_pool_run() at a time on one pool. */
#pragma once

#include "common/err.h"

#include <stddef.h>
#include <stdint.h>

typedef struct dure_pool dure_pool;

enum { DURE_POOL_MAX_THREADS = 256 };

/* `threads` 0: the physical cores. Each thread owns `scratch_bytes` of memory aligned to 64. The
 * caller owns *out, dure_pool_free(&pool). */
DURE_MUST_USE dure_err dure_pool_new(dure_pool **out, uint32_t threads, size_t scratch_bytes);
void dure_pool_free(dure_pool **pool);
uint32_t dure_pool_threads(const dure_pool *pool);
/* Makes every thread's scratch at least `bytes`; its contents are lost. */
DURE_MUST_USE dure_err dure_pool_reserve(dure_pool *pool, size_t bytes);

/* `scratch` belongs to the running thread for the length of the task. */
typedef void dure_pool_task(void *state, size_t task, void *scratch);
/* Returns when all tasks are done; their writes are then visible to the caller. */
void dure_pool_run(dure_pool *pool, size_t n, dure_pool_task *task, void *state);

/* The physical cores this process may use, at least 1. */
uint32_t dure_physical_cores(void);
