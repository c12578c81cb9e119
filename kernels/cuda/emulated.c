#include "kernels/cuda/emulated.h"

#include "kernels/cuda/device.h"
#include "kernels/dequant.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

enum { MOST_THREADS = 1024, STACK_BYTES = 64 << 10, SHARED_MOST = 99 << 10 };
enum { LANES = 32, MOST_COPIES = 128 };

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

/* What lanes do together, given what each has brought. */
typedef void warp_work(void *const *lanes);

/* The lanes of a warp that have come to do `work`, and wait for the others. */
typedef struct warp {
    warp_work *work;
    coroutine *waiting[LANES];
    void *brought[LANES];
    unsigned n;
} warp;

typedef struct copy {
    void *to;
    const void *from;
    unsigned bytes, group;
    int there;
} copy;

/* What a thread has asked for and not yet waited for, group after group. */
typedef struct copies {
    copy asked[MOST_COPIES];
    unsigned n, group;
} copies;

static struct {
    coroutine pool[MOST_THREADS];
    unsigned made;
    jmp_buf scheduler;
    coroutine *current, *waiting[MOST_THREADS], *ready[MOST_THREADS];
    unsigned started, finished, n_waiting, n_ready;
    warp warps[MOST_THREADS / LANES];
    copies copies[MOST_THREADS];
    size_t bank_conflicts;
    dure_emulated_thread *thread;
    const void *args;
    bool reverse;
    _Alignas(128) double shared[SHARED_MOST / sizeof(double)];
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

/* These may go on, in their order and before all others. */
static void make_ready(coroutine *const *these, unsigned n)
{
    while (n > 0)
        emu.ready[emu.n_ready++] = these[--n];
}

/* A warp whose lanes have met goes on until it waits at a barrier: it gets as far ahead of the
 * others as it can. */
static void run_ready(void)
{
    while (emu.n_ready > 0)
        resume(emu.ready[--emu.n_ready]);
}

/* Coroutines [0, used) have a thread that waits; the rest are idle. */
static void run_block(void)
{
    emu.started = emu.finished = emu.n_waiting = emu.n_ready = 0;
    for (unsigned used = 0; emu.started < blockDim.x; used++) {
        resume(idle(used));
        run_ready();
    }
    while (emu.n_waiting > 0) {
        /* Hardware would hang, or worse. */
        DURE_ASSERT(emu.n_waiting == blockDim.x && emu.finished == 0);
        make_ready(emu.waiting, emu.n_waiting);
        emu.n_waiting = 0;
        run_ready();
    }
    /* A thread less waits for a lane that does not come. */
    DURE_ASSERT(emu.finished == blockDim.x);
    for (unsigned i = 0; i < blockDim.x; i++)
        DURE_ASSERT(emu.copies[i].n == 0);
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

/* --- warps --- */

/* Returns once all lanes of this thread's warp have come; the last of them does the work. */
static void meet(warp_work *work, void *brought)
{
    warp *w = &emu.warps[threadIdx.x / LANES];
    DURE_ASSERT(blockDim.x % LANES == 0 && (w->n == 0 || w->work == work));
    w->work = work;
    w->brought[threadIdx.x % LANES] = brought;
    w->waiting[w->n++] = emu.current;
    if (w->n < LANES) {
        leave(emu.current);
        return;
    }
    work(w->brought);
    w->n = 0;
    make_ready(w->waiting, LANES - 1);
}

typedef struct factors {
    float *c;
    const uint32_t *a, *b;
} factors;

static float half(uint32_t word, int high)
{
    return dure_bf16_to_float((uint16_t)(high ? word >> 16 : word));
}

static void multiply(void *const *lanes)
{
    float a[16][16], b[16][8], c[16][8];
    for (int l = 0; l < LANES; l++) {
        const factors *f = lanes[l];
        int g = l / 4, t = l % 4;
        for (int i = 0; i < 8; i++)
            a[g + i / 2 % 2 * 8][2 * t + i / 4 * 8 + i % 2] = half(f->a[i / 2], i % 2);
        for (int i = 0; i < 4; i++) {
            b[2 * t + i / 2 * 8 + i % 2][g] = half(f->b[i / 2], i % 2);
            c[g + i / 2 * 8][2 * t + i % 2] = f->c[i];
        }
    }
    for (int row = 0; row < 16; row++)
        for (int k = 0; k < 16; k++)
            for (int column = 0; column < 8; column++)
                c[row][column] += a[row][k] * b[k][column];
    for (int l = 0; l < LANES; l++)
        for (int i = 0; i < 4; i++)
            ((const factors *)lanes[l])->c[i] = c[l / 4 + i / 2 * 8][l % 4 * 2 + i % 2];
}

void dure_emulated_multiply_add(float *c, const uint32_t *a, const uint32_t *b)
{
    meet(multiply, &(factors){c, a, b});
}

typedef struct matrices {
    uint32_t *to;
    const uint16_t *row;
} matrices;

/* Each matrix is read at once: 8 rows of 16 bytes, from all 32 banks of 4 bytes if none waits for
 * another. */
static void count_conflicts(void *const *lanes)
{
    for (int matrix = 0; matrix < 4; matrix++) {
        unsigned banks = 0;
        for (int row = 0; row < 8; row++) {
            uintptr_t at = (uintptr_t)((const matrices *)lanes[matrix * 8 + row])->row;
            DURE_ASSERT(at % 16 == 0);
            banks |= 1u << at / 16 % 8;
        }
        emu.bank_conflicts += banks != 0xFF;
    }
}

static void load(void *const *lanes, bool transposed)
{
    count_conflicts(lanes);
    for (int l = 0; l < LANES; l++)
        for (int i = 0; i < 4; i++) {
            uint32_t word[2];
            for (int x = 0; x < 2; x++) {
                int along = l % 4 * 2 + x, across = l / 4;
                const matrices *m = lanes[i * 8 + (transposed ? along : across)];
                word[x] = m->row[transposed ? across : along];
            }
            ((const matrices *)lanes[l])->to[i] = word[1] << 16 | word[0];
        }
}

static void load_as_is(void *const *lanes)
{
    load(lanes, false);
}

static void load_transposed(void *const *lanes)
{
    load(lanes, true);
}

void dure_emulated_load_matrices(uint32_t *to, const uint16_t *row, bool transposed)
{
    meet(transposed ? load_transposed : load_as_is, &(matrices){to, row});
}

size_t dure_emulated_bank_conflicts(void)
{
    return emu.bank_conflicts;
}

typedef struct swap {
    float x, got;
    int mask;
} swap;

static void exchange(void *const *lanes)
{
    for (int l = 0; l < LANES; l++) {
        swap *s = lanes[l];
        DURE_ASSERT(s->mask == ((const swap *)lanes[0])->mask);
        s->got = ((const swap *)lanes[l ^ s->mask])->x;
    }
}

float dure_emulated_other_lane(float x, int mask)
{
    swap s = {x, 0, mask};
    DURE_ASSERT(mask >= 0 && mask < LANES);
    meet(exchange, &s);
    return s.got;
}

void dure_emulated_vector(const void *at, size_t bytes)
{
    DURE_ASSERT((uintptr_t)at % bytes == 0);
}

static void arrive(const copy *c)
{
    if (c->there)
        memcpy(c->to, c->from, c->bytes);
    else
        memset(c->to, 0, c->bytes);
}

void dure_emulated_copy(void *to, const void *from, unsigned bytes, int there)
{
    copies *all = &emu.copies[threadIdx.x];
    copy one = {to, from, bytes, all->group, there};
    dure_emulated_vector(to, bytes);
    dure_emulated_vector(from, bytes);
    if (emu.reverse) {
        arrive(&one);
        return;
    }
    DURE_ASSERT(all->n < MOST_COPIES);
    all->asked[all->n++] = one;
}

void dure_emulated_copies_end_group(void)
{
    emu.copies[threadIdx.x].group++;
}

void dure_emulated_copies_wait(unsigned groups)
{
    copies *all = &emu.copies[threadIdx.x];
    unsigned kept = 0;
    for (unsigned i = 0; i < all->n; i++)
        if (all->group - all->asked[i].group <= groups)
            all->asked[kept++] = all->asked[i];
        else
            arrive(&all->asked[i]);
    all->n = kept;
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
