#include "kernels/threads.h"

#include "common/thread.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#if defined(__SSE__)
#include <xmmintrin.h>
/* Flush-to-zero and denormals-are-zero. */
static unsigned float_mode_enter(void)
{
    unsigned old = _mm_getcsr();
    _mm_setcsr(old | 0x8040);
    return old;
}
static void float_mode_leave(unsigned old)
{
    _mm_setcsr(old);
}
static void relax(void)
{
    _mm_pause();
}
#else
static unsigned float_mode_enter(void)
{
    return 0;
}
static void float_mode_leave(unsigned old)
{
    (void)old;
}
static void relax(void)
{
}
#endif

/* Waiting for the time between two products of one layer, or for another thread's last task: a few
 * microseconds on the core, then up to a millisecond that any other process may have. To sleep and
 * be woken takes longer than most waits, on a virtual machine above all. */
enum { SPINS = 200, YIELDS = 2000 };

/* Returns when done(pool), or after that time. */
static void linger(bool (*done)(struct dure_pool *), struct dure_pool *pool)
{
    for (int i = 0; i < SPINS + YIELDS && !done(pool); i++) {
        if (i < SPINS)
            relax();
        else
            sched_yield();
    }
}

typedef struct worker {
    struct dure_pool *pool;
    pthread_t thread;
    void *scratch;
} worker;

struct dure_pool {
    /* (run number << 32) | tasks not yet taken. One word, so a late worker can never take a task
     * of a run that is over. */
    atomic_uint_fast64_t open;
    atomic_size_t left; /* tasks not yet finished */
    size_t tasks;       /* all of the run */
    dure_pool_task *task;
    void *state;
    pthread_mutex_t mutex;
    pthread_cond_t wake, finished;
    atomic_uint sleepers;
    atomic_bool waiting, stop;
    size_t scratch_bytes;
    uint32_t n;       /* threads, the caller's included */
    uint32_t started; /* of workers[1..n) */
    worker workers[]; /* [0] is the caller */
};

static bool take(struct dure_pool *pool, size_t *task)
{
    uint_fast64_t open = atomic_load(&pool->open);
    while (open & UINT32_MAX) {
        if (!atomic_compare_exchange_weak(&pool->open, &open, open - 1)) continue;
        *task = pool->tasks - (size_t)(open & UINT32_MAX);
        return true;
    }
    return false;
}

/* Runs tasks until none is open; the last to finish wakes the caller. A worker may come here from
 * one run late and take a task of the next, before which its scratch may have been replaced: it
 * looks for it only once it has the task. */
static void work(struct dure_pool *pool, const worker *w)
{
    size_t task;
    while (take(pool, &task)) {
        pool->task(pool->state, task, w->scratch);
        if (atomic_fetch_sub(&pool->left, 1) != 1 || !atomic_load(&pool->waiting)) continue;
        pthread_mutex_lock(&pool->mutex);
        pthread_cond_signal(&pool->finished);
        pthread_mutex_unlock(&pool->mutex);
    }
}

static bool has_work(struct dure_pool *pool)
{
    return (atomic_load(&pool->open) & UINT32_MAX) != 0 || atomic_load(&pool->stop);
}

static bool is_done(struct dure_pool *pool)
{
    return atomic_load(&pool->left) == 0;
}

static void sleep_until_work(struct dure_pool *pool)
{
    linger(has_work, pool);
    if (has_work(pool)) return;
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add(&pool->sleepers, 1);
    while (!has_work(pool))
        pthread_cond_wait(&pool->wake, &pool->mutex);
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->mutex);
}

static void *worker_main(void *argument)
{
    worker *w = argument;
    float_mode_enter();
    while (!atomic_load(&w->pool->stop)) {
        sleep_until_work(w->pool);
        work(w->pool, w);
    }
    return NULL;
}

void dure_pool_run(dure_pool *pool, size_t n, dure_pool_task *task, void *state)
{
    if (n == 0) return;
    DURE_ASSERT(n <= UINT32_MAX);
    unsigned mode = float_mode_enter();
    pool->task = task;
    pool->state = state;
    pool->tasks = n;
    atomic_store(&pool->left, n);
    uint_fast64_t run = (atomic_load(&pool->open) >> 32) + 1;
    atomic_store(&pool->open, run << 32 | n);
    if (n > 1 && atomic_load(&pool->sleepers)) {
        pthread_mutex_lock(&pool->mutex);
        pthread_cond_broadcast(&pool->wake);
        pthread_mutex_unlock(&pool->mutex);
    }
    work(pool, &pool->workers[0]);
    linger(is_done, pool);
    if (atomic_load(&pool->left)) {
        pthread_mutex_lock(&pool->mutex);
        atomic_store(&pool->waiting, true);
        while (atomic_load(&pool->left))
            pthread_cond_wait(&pool->finished, &pool->mutex);
        atomic_store(&pool->waiting, false);
        pthread_mutex_unlock(&pool->mutex);
    }
    float_mode_leave(mode);
}

dure_err dure_pool_reserve(dure_pool *pool, size_t bytes)
{
    bytes = (bytes + 63) / 64 * 64;
    if (bytes <= pool->scratch_bytes) return DURE_OK;
    for (uint32_t i = 0; i < pool->n; i++) {
        free(pool->workers[i].scratch);
        pool->workers[i].scratch = aligned_alloc(64, bytes);
        if (!pool->workers[i].scratch) {
            pool->scratch_bytes = 0;
            return DURE_ERR_NOMEM;
        }
    }
    pool->scratch_bytes = bytes;
    return DURE_OK;
}

dure_err dure_pool_new(dure_pool **out, uint32_t threads, size_t scratch_bytes)
{
    *out = NULL;
    if (threads == 0) threads = dure_physical_cores();
    if (threads > DURE_POOL_MAX_THREADS) threads = DURE_POOL_MAX_THREADS;
    dure_pool *pool = calloc(1, sizeof *pool + threads * sizeof pool->workers[0]);
    if (!pool) return DURE_ERR_NOMEM;
    pool->n = threads;
    pool->started = 1;
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_cond_init(&pool->finished, NULL);
    dure_err err = dure_pool_reserve(pool, scratch_bytes ? scratch_bytes : 64);
    for (uint32_t i = 1; i < threads && !err; i++) {
        pool->workers[i].pool = pool;
        err = dure_thread_start(&pool->workers[i].thread, worker_main, &pool->workers[i]);
        if (!err) pool->started++;
    }
    if (err)
        dure_pool_free(&pool);
    else
        *out = pool;
    return err;
}

void dure_pool_free(dure_pool **pool)
{
    dure_pool *p = *pool;
    if (!p) return;
    pthread_mutex_lock(&p->mutex);
    atomic_store(&p->stop, true);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->mutex);
    for (uint32_t i = 1; i < p->started; i++)
        pthread_join(p->workers[i].thread, NULL);
    for (uint32_t i = 0; i < p->n; i++)
        free(p->workers[i].scratch);
    pthread_cond_destroy(&p->finished);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->mutex);
    free(p);
    *pool = NULL;
}

uint32_t dure_pool_threads(const dure_pool *pool)
{
    return pool->n;
}

/* A number out of the kernel's description of one CPU; -1 when it is not there. */
static int topology(int cpu, const char *what)
{
    char path[128];
    int value = -1;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/%s", cpu, what);
    FILE *f = fopen(path, "re");
    if (!f) return -1;
    if (fscanf(f, "%d", &value) != 1) value = -1;
    fclose(f);
    return value;
}

uint32_t dure_physical_cores(void)
{
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed)) return 1;
    int seen[DURE_POOL_MAX_THREADS][2];
    uint32_t n = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE && n < DURE_POOL_MAX_THREADS; cpu++) {
        if (!CPU_ISSET((size_t)cpu, &allowed)) continue;
        int core = topology(cpu, "core_id"), package = topology(cpu, "physical_package_id");
        bool known = false;
        for (uint32_t i = 0; i < n && core >= 0; i++)
            known = known || (seen[i][0] == core && seen[i][1] == package);
        if (known) continue;
        seen[n][0] = core;
        seen[n][1] = package;
        n++;
    }
    return n ? n : 1;
}
