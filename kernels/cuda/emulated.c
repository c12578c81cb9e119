#include "kernels/cuda/emulated.h"

#include "kernels/cuda/device.h"
#include "kernels/dequant.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

enum { MOST_THREADS = 1024, STACK_BYTES = 64 << 10, SHARED_MOST = 99 << 10 };

dure_emulated_dim threadIdx, blockIdx, blockDim, gridDim;

/* A coroutine runs threads one after the other, until one of them waits at a barrier; it then
 * belongs to that thread until it has ended. It is entered for the first time by setcontext(), and
 * after that by longjmp(), which is no system call; no frame that is left is ever unwound. */
typedef struct coroutine {
    ucontext_t context;
    jmp_buf here;
    char *stack;
    unsigned thread;
    bool entered;
} coroutine;

static struct {
    coroutine pool[MOST_THREADS];
    unsigned made;
    jmp_buf scheduler;
    coroutine *current, *waiting[MOST_THREADS];
    unsigned started, finished, n_waiting;
    dure_emulated_thread *thread;
    const void *args;
    bool reverse;
    double shared[SHARED_MOST / sizeof(double)];
} emu;

void dure_emulated_reverse(bool reverse)
{
    emu.reverse = reverse;
}

float *dure_emulated_shared(void)
{
    return (float *)emu.shared;
}

static void enter_thread(unsigned number)
{
    threadIdx.x = number;
}

/* Back to the scheduler, until resume(self). */
static void leave(coroutine *self)
{
    if (!_setjmp(self->here)) _longjmp(emu.scheduler, 1);
}

static void run_coroutine(void)
{
    for (;;) {
        while (emu.started < blockDim.x) {
            unsigned t = emu.started++;
            emu.current->thread = emu.reverse ? blockDim.x - 1 - t : t;
            enter_thread(emu.current->thread);
            emu.thread(emu.args);
            emu.finished++;
        }
        leave(emu.current);
    }
}

/* The coroutine number i, as it is when it runs no thread. */
static coroutine *idle(unsigned i)
{
    coroutine *c = &emu.pool[i];
    if (i < emu.made) return c;
    c->stack = malloc(STACK_BYTES);
    DURE_ASSERT(c->stack);
    getcontext(&c->context);
    c->context.uc_stack.ss_sp = c->stack;
    c->context.uc_stack.ss_size = STACK_BYTES;
    makecontext(&c->context, run_coroutine, 0);
    emu.made++;
    return c;
}

static void resume(coroutine *c)
{
    emu.current = c;
    enter_thread(c->thread);
    if (_setjmp(emu.scheduler)) return;
    if (c->entered) _longjmp(c->here, 1);
    c->entered = true;
    setcontext(&c->context);
}

void dure_emulated_barrier(void)
{
    coroutine *self = emu.current;
    emu.waiting[emu.n_waiting++] = self;
    leave(self);
}

/* Coroutines [0, used) have a thread that waits; the rest are idle. */
static void run_block(void)
{
    emu.started = emu.finished = emu.n_waiting = 0;
    for (unsigned used = 0; emu.started < blockDim.x; used++)
        resume(idle(used));
    while (emu.n_waiting > 0) {
        coroutine *released[MOST_THREADS];
        unsigned n = emu.n_waiting;
        /* Hardware would hang, or worse. */
        DURE_ASSERT(n == blockDim.x && emu.finished == 0);
        memcpy(released, emu.waiting, n * sizeof *released);
        emu.n_waiting = 0;
        for (unsigned i = 0; i < n; i++)
            resume(released[i]);
    }
    DURE_ASSERT(emu.finished == blockDim.x);
}

void dure_emulated_run(dure_emulated_thread *thread, const void *args, size_t grid_x, size_t grid_y,
                       unsigned block, size_t shared_bytes)
{
    DURE_ASSERT(block > 0 && block <= MOST_THREADS && (block & (block - 1)) == 0);
    DURE_ASSERT(shared_bytes <= SHARED_MOST && grid_y <= 65535 && grid_x <= 0x7FFFFFFF);
    emu.thread = thread;
    emu.args = args;
    blockDim = (dure_emulated_dim){block, 1};
    gridDim = (dure_emulated_dim){(unsigned)grid_x, (unsigned)grid_y};
    for (size_t i = 0; i < grid_x * grid_y; i++) {
        size_t at = emu.reverse ? grid_x * grid_y - 1 - i : i;
        blockIdx = (dure_emulated_dim){(unsigned)(at % grid_x), (unsigned)(at / grid_x)};
        memset(emu.shared, 0xFF, shared_bytes);
        run_block();
    }
}

/* --- the device --- */

struct dure_device {
    size_t used;
    struct block *blocks;
};

/* Before each allocation. */
typedef struct block {
    struct block *next, *previous;
    size_t bytes, unused;
} block;

static size_t limit = SIZE_MAX;

void dure_emulated_limit(size_t bytes)
{
    limit = bytes;
}

dure_err dure_device_open(dure_device **out, int index, dure_diag *diag)
{
    *out = NULL;
    if (index != 0)
        return dure_diag_set(diag, DURE_ERR_DEVICE, "there is no GPU number %d; there is 1", index);
    *out = calloc(1, sizeof **out);
    return *out ? DURE_OK : DURE_ERR_NOMEM;
}

void dure_device_close(dure_device **device)
{
    if (!*device) return;
    for (block *b = (*device)->blocks, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    free(*device);
    *device = NULL;
}

const char *dure_device_name(const dure_device *device)
{
    (void)device;
    return "GPU emulated on the CPU";
}

size_t dure_device_room(const dure_device *device)
{
    return limit - (device->used < limit ? device->used : limit);
}

dure_err dure_device_new(void **out, dure_device *device, size_t bytes, dure_diag *diag)
{
    *out = NULL;
    block *b = bytes > dure_device_room(device) ? NULL : malloc(sizeof *b + bytes);
    if (!b)
        return dure_diag_set(diag, DURE_ERR_NOMEM,
                             "the GPU has %.0f MB free, and %.0f MB more are needed",
                             (double)dure_device_room(device) / 1e6, (double)bytes / 1e6);
    *b = (block){.next = device->blocks, .bytes = bytes};
    if (b->next) b->next->previous = b;
    device->blocks = b;
    device->used += bytes;
    *out = b + 1;
    memset(*out, 0xFF, bytes);
    return DURE_OK;
}

void dure_device_free(dure_device *device, void *memory)
{
    if (!memory) return;
    block *b = (block *)memory - 1;
    if (b->next) b->next->previous = b->previous;
    *(b->previous ? &b->previous->next : &device->blocks) = b->next;
    device->used -= b->bytes;
    free(b);
}

void dure_device_upload(dure_device *device, void *to, const void *from, size_t bytes)
{
    (void)device;
    memcpy(to, from, bytes);
}

void dure_device_copy(dure_device *device, void *to, const void *from, size_t bytes)
{
    (void)device;
    memcpy(to, from, bytes);
}

void dure_device_zero(dure_device *device, void *at, size_t bytes)
{
    (void)device;
    memset(at, 0, bytes);
}

void dure_device_download(dure_device *device, void *to, const void *from, size_t bytes)
{
    (void)device;
    memcpy(to, from, bytes);
}

dure_err dure_device_wait(dure_device *device, dure_diag *diag)
{
    (void)device;
    (void)diag;
    return DURE_OK;
}

int dure_device_failed(const dure_device *device)
{
    (void)device;
    return 0;
}

void *dure_device_stream(dure_device *device)
{
    return device;
}

void dure_device_launched(dure_device *device)
{
    (void)device;
}

static size_t split_above = SIZE_MAX;

void dure_emulated_split_above(size_t rows)
{
    split_above = rows;
}

static float dot(const dure_device_product *p, size_t i, size_t j, size_t first, size_t end)
{
    float sum = 0;
    for (size_t x = first; x < end; x++) {
        uint16_t w = p->as_is ? p->w[x * p->ldw + j] : p->w[j * p->ldw + x];
        sum += dure_bf16_to_float(p->a[i * p->lda + x]) * dure_bf16_to_float(w);
    }
    return sum;
}

void dure_device_multiply(dure_device *device, const dure_device_product *p)
{
    (void)device;
    DURE_ASSERT(p->k % 8 == 0 && p->lda % 8 == 0 && p->ldw % 8 == 0 && p->ldc % 8 == 0);
    DURE_ASSERT(!(p->add && p->rounded));
    for (size_t i = 0; i < p->m; i++)
        for (size_t j = 0; j < p->n; j++) {
            size_t at = i * p->ldc + j;
            size_t half = p->m > split_above ? p->k / 2 : 0;
            float sum = dot(p, i, j, half, p->k);
            if (half) sum += dot(p, i, j, 0, half);
            if (p->rounded)
                ((uint16_t *)p->c)[at] = dure_float_to_bf16(sum);
            else
                ((float *)p->c)[at] = p->add ? ((float *)p->c)[at] + sum : sum;
        }
}
