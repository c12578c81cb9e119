#include "kernels/matmul.h"

#include "kernels/bf16.h"
#include "kernels/dequant.h"

/* Forward: a task makes some columns of y. It decodes that many rows of W in pieces of DEPTH,
 * transposes them into panels, and runs each block of ROWS rows of x over all its panels, so that
 * the block of x stays in the second-level cache.
 * Backward: a task makes some columns of dx from panels of DEPTH rows of W, which need no
 * transposing. */
enum { PANEL = 32, COLUMNS_MAX = 192, DEPTH = 256, ROWS = 56, BLOCK_MAX = 256 };

size_t dure_matmul_scratch_bytes(size_t inner)
{
    size_t decoded = inner > PANEL * DEPTH ? inner : PANEL * DEPTH;
    size_t plain = sizeof(float) * (DEPTH * BLOCK_MAX + decoded);
    return plain > dure_bf16_scratch_bytes() ? plain : dure_bf16_scratch_bytes();
}

/* The columns a task makes: as many as possible, because each task reads all of x, but no more
 * than share out evenly among the threads. A multiple of `least`. */
static size_t task_width(const size_t *columns, size_t n, size_t least, const dure_compute *c)
{
    size_t threads = dure_pool_threads(c->pool), best = least, shortest = SIZE_MAX;
    for (size_t width = least; width <= COLUMNS_MAX; width += least) {
        size_t tasks = 0;
        for (size_t i = 0; i < n; i++)
            tasks += (columns[i] + width - 1) / width;
        size_t turns = (tasks + threads - 1) / threads * width;
        if (turns > shortest) continue;
        shortest = turns;
        best = width;
    }
    return best;
}

/* Where column `column` of row `row` starts; `column` is at the edge of a block. */
static const uint8_t *weight_at(const dure_weight *w, size_t row, size_t column)
{
    size_t weights = 1, bytes = 0;
    DURE_ASSERT(dure_quant_block(&weights, &bytes, w->type));
    return (const uint8_t *)w->data + (row * w->in + column) / weights * bytes;
}

/* Bytes from one row to the next. */
static size_t row_stride(const dure_weight *w)
{
    return dure_quant_row_bytes(w->type, w->in);
}

void dure_weight_row(float *out, const dure_weight *w, size_t row, const dure_compute *c)
{
    c->ops->dequant(out, weight_at(w, row, 0), w->in, w->type);
}

typedef struct forward_job {
    const dure_matmul *job;
    const dure_cpu_ops *ops;
    size_t width; /* columns a task makes */
    size_t tasks[DURE_PRODUCTS_MAX + 1];
} forward_job;

/* Rows [row, row + n) of W, columns [k, k + depth). */
typedef struct part {
    const dure_weight *w;
    size_t row, n, k, depth;
} part;

/* Fills panels laid out [column / PANEL][depth][PANEL]; missing columns are zero. */
static void fill_panels(float *panels, float *decoded, const part *p, const dure_cpu_ops *ops)
{
    const dure_weight *w = p->w;
    for (size_t first = 0; first < p->n; first += PANEL) {
        size_t rows = p->n - first < PANEL ? p->n - first : PANEL, ld = p->depth;
        const float *source = decoded;
        if (w->type == 0) {
            source = (const float *)w->data + (p->row + first) * w->in + p->k;
            ld = w->in;
        }
        const uint8_t *blocks = weight_at(w, p->row + first, p->k);
        size_t stride = row_stride(w);
        for (size_t r = 0; r < rows && w->type != 0; r++)
            ops->dequant(decoded + r * ld, blocks + r * stride, ld, w->type);
        ops->transpose(panels + first * p->depth, PANEL, source, ld, rows, p->depth);
    }
}

/* Multiplies all rows of x with the panels of base->n columns. */
static void multiply_panels(const dure_gemm *base, size_t rows, const dure_cpu_ops *ops)
{
    for (size_t i = 0; i < rows; i += ROWS) {
        dure_gemm g = *base;
        g.m = rows - i < ROWS ? rows - i : ROWS;
        g.a += i * g.a_row;
        g.c += i * g.ldc;
        for (size_t j = 0; j < base->n; j += PANEL) {
            g.n = base->n - j < PANEL ? base->n - j : PANEL;
            g.b = base->b + j * g.k;
            ops->gemm(&g);
            g.c += PANEL;
        }
    }
}

static void forward_task(void *state, size_t task, void *scratch)
{
    const forward_job *f = state;
    size_t i = 0;
    while (task >= f->tasks[i + 1])
        i++;
    const dure_product *p = &f->job->products[i];
    const dure_weight *w = p->w;
    size_t first = (task - f->tasks[i]) * f->width;
    size_t n = w->out - first < f->width ? w->out - first : f->width;
    float *panels = scratch, *decoded = panels + DEPTH * BLOCK_MAX;
    for (size_t k = 0; k < w->in; k += DEPTH) {
        size_t depth = w->in - k < DEPTH ? w->in - k : DEPTH;
        fill_panels(panels, decoded, &(part){w, first, n, k, depth}, f->ops);
        dure_gemm g = {.c = p->y + first,
                       .ldc = p->ldy,
                       .a = p->x + k,
                       .a_row = p->ldx,
                       .a_step = 1,
                       .b = panels,
                       .ldb = PANEL,
                       .n = n,
                       .k = depth,
                       .accumulate = p->accumulate || k > 0};
        multiply_panels(&g, f->job->rows, f->ops);
    }
}

/* Numbers the tasks of all products one after the other. */
static forward_job share_out(const dure_matmul *job, size_t width, const dure_compute *c)
{
    forward_job f = {.job = job, .ops = c->ops, .width = width};
    for (size_t p = 0; p < job->n_products; p++)
        f.tasks[p + 1] = f.tasks[p] + (job->products[p].w->out + width - 1) / width;
    return f;
}

typedef struct packed_job {
    const dure_weight_bf16 *packed;
    dure_bf16_task task;
    size_t parts;
    const dure_cpu_ops *ops;
} packed_job;

static void packed_task(void *state, size_t index, void *scratch)
{
    const packed_job *job = state;
    dure_bf16_task task = job->task;
    task.block = index / job->parts;
    task.part = index % job->parts;
    dure_bf16_run(job->packed, &task, scratch, job->ops);
}

/* One product with a packed weight, all blocks of rows and parts of columns. */
static void multiply_packed(const dure_weight *w, const dure_bf16_task *task, const dure_compute *c)
{
    packed_job job = {.packed = w->packed,
                      .task = *task,
                      .parts = dure_bf16_parts(w->packed, task->backward),
                      .ops = c->ops};
    size_t blocks = (task->rows + DURE_BF16_ROWS - 1) / DURE_BF16_ROWS;
    dure_pool_run(c->pool, blocks * job.parts, packed_task, &job);
}

void dure_matmul_forward(const dure_matmul *job, const dure_compute *c)
{
    dure_product plain[DURE_PRODUCTS_MAX];
    size_t columns[DURE_PRODUCTS_MAX], n = 0;
    DURE_ASSERT(job->n_products <= DURE_PRODUCTS_MAX);
    for (size_t i = 0; i < job->n_products; i++) {
        const dure_product *p = &job->products[i];
        if (p->w->packed) {
            dure_bf16_task task = {.y = p->y,
                                   .ldy = p->ldy,
                                   .x = p->x,
                                   .ldx = p->ldx,
                                   .rows = job->rows,
                                   .accumulate = p->accumulate};
            multiply_packed(p->w, &task, c);
            continue;
        }
        columns[n] = p->w->out;
        plain[n++] = *p;
    }
    if (n == 0) return;
    dure_matmul rest = {.rows = job->rows, .products = plain, .n_products = n};
    forward_job f = share_out(&rest, task_width(columns, n, PANEL, c), c);
    dure_pool_run(c->pool, f.tasks[n], forward_task, &f);
}

static void few_task(void *state, size_t task, void *scratch)
{
    const forward_job *f = state;
    size_t i = 0;
    while (task >= f->tasks[i + 1])
        i++;
    const dure_product *p = &f->job->products[i];
    const dure_weight *w = p->w;
    size_t first = (task - f->tasks[i]) * f->width;
    size_t last = w->out - first < f->width ? w->out : first + f->width;
    for (size_t j = first; j < last; j++) {
        const float *row = scratch;
        if (w->type == 0)
            row = (const float *)w->data + j * w->in;
        else
            f->ops->dequant(scratch, weight_at(w, j, 0), w->in, w->type);
        for (size_t r = 0; r < f->job->rows; r++) {
            float *y = p->y + r * p->ldy + j, sum = f->ops->dot(row, p->x + r * p->ldx, w->in);
            *y = p->accumulate ? *y + sum : sum;
        }
    }
}

void dure_matmul_few(const dure_matmul *job, const dure_compute *c)
{
    DURE_ASSERT(job->n_products <= DURE_PRODUCTS_MAX);
    forward_job f = share_out(job, PANEL, c);
    dure_pool_run(c->pool, f.tasks[job->n_products], few_task, &f);
}

typedef struct backward_job {
    const dure_matmul_grad *grads;
    const dure_cpu_ops *ops;
    size_t rows;
    size_t width[DURE_PRODUCTS_MAX];
    size_t tasks[DURE_PRODUCTS_MAX + 1];
} backward_job;

/* B of the product: g->k rows of W from p->k on, columns [p->row, p->row + g->n). */
static void backward_panel(dure_gemm *g, float *panel, const part *p, const dure_cpu_ops *ops)
{
    const dure_weight *w = p->w;
    /* A narrow float32 matrix (a LoRA factor) is its own panel. */
    if (w->type == 0 && w->in <= PANEL) {
        g->b = (const float *)w->data + p->k * w->in + p->row;
        g->ldb = w->in;
        return;
    }
    const uint8_t *blocks = weight_at(w, p->k, p->row);
    size_t stride = row_stride(w);
    for (size_t r = 0; r < g->k; r++)
        ops->dequant(panel + r * g->n, blocks + r * stride, g->n, w->type);
    g->b = panel;
    g->ldb = g->n;
}

/* Adds one term to columns [columns->row, + n) of dx; the first term of a gradient may write. */
static void add_term(const backward_job *b, const dure_matmul_grad *grad,
                     const dure_product_grad *term, const part *columns, float *panel)
{
    const dure_weight *w = term->w;
    for (size_t k = 0; k < w->out; k += DEPTH) {
        dure_gemm g = {.ldc = grad->lddx,
                       .a_row = term->lddy,
                       .a_step = 1,
                       .n = columns->n,
                       .k = w->out - k < DEPTH ? w->out - k : DEPTH,
                       .accumulate = grad->accumulate || term != grad->terms || k > 0};
        backward_panel(&g, panel, &(part){.w = w, .row = columns->row, .k = k}, b->ops);
        for (size_t i = 0; i < b->rows; i += ROWS) {
            g.m = b->rows - i < ROWS ? b->rows - i : ROWS;
            g.a = term->dy + i * term->lddy + k;
            g.c = grad->dx + i * grad->lddx + columns->row;
            b->ops->gemm(&g);
        }
    }
}

static void backward_task(void *state, size_t task, void *scratch)
{
    const backward_job *b = state;
    size_t i = 0;
    while (task >= b->tasks[i + 1])
        i++;
    const dure_matmul_grad *grad = &b->grads[i];
    size_t in = grad->terms[0].w->in, first = (task - b->tasks[i]) * b->width[i];
    part columns = {.row = first, .n = in - first < b->width[i] ? in - first : b->width[i]};
    for (size_t p = 0; p < grad->n_terms; p++)
        add_term(b, grad, &grad->terms[p], &columns, scratch);
}

/* Whole blocks of every term's weights, at least a panel. */
static size_t least_width(const dure_matmul_grad *grad)
{
    size_t least = PANEL, weights, bytes;
    for (size_t p = 0; p < grad->n_terms; p++) {
        DURE_ASSERT(grad->terms[p].w->in == grad->terms[0].w->in);
        DURE_ASSERT(dure_quant_block(&weights, &bytes, grad->terms[p].w->type));
        DURE_ASSERT(weights <= BLOCK_MAX);
        if (least < weights) least = weights;
    }
    return least;
}

/* The terms with packed weights are added at once; the others go to rest[0..*n) in their order.
 * Returns whether dx holds something already. */
static bool add_packed_terms(dure_product_grad *rest, size_t *n, const dure_matmul_grad *grad,
                             size_t rows, const dure_compute *c)
{
    bool accumulate = grad->accumulate;
    for (size_t p = 0; p < grad->n_terms; p++) {
        const dure_product_grad *term = &grad->terms[p];
        if (!term->w->packed) {
            rest[(*n)++] = *term;
            continue;
        }
        dure_bf16_task task = {.y = grad->dx,
                               .ldy = grad->lddx,
                               .x = term->dy,
                               .ldx = term->lddy,
                               .rows = rows,
                               .backward = true,
                               .accumulate = accumulate};
        multiply_packed(term->w, &task, c);
        accumulate = true;
    }
    return accumulate;
}

void dure_matmul_backward(const dure_matmul_grad *grads, size_t n, size_t rows,
                          const dure_compute *c)
{
    dure_product_grad terms[DURE_PRODUCTS_MAX][DURE_PRODUCTS_MAX];
    dure_matmul_grad plain[DURE_PRODUCTS_MAX];
    DURE_ASSERT(n <= DURE_PRODUCTS_MAX);
    backward_job b = {.grads = plain, .ops = c->ops, .rows = rows};
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        DURE_ASSERT(grads[i].n_terms <= DURE_PRODUCTS_MAX);
        dure_matmul_grad *grad = &plain[kept];
        *grad = grads[i];
        grad->terms = terms[kept];
        grad->n_terms = 0;
        grad->accumulate = add_packed_terms(terms[kept], &grad->n_terms, &grads[i], rows, c);
        if (grad->n_terms == 0) continue;
        size_t in = grad->terms[0].w->in;
        b.width[kept] = task_width(&in, 1, least_width(grad), c);
        b.tasks[kept + 1] = b.tasks[kept] + (in + b.width[kept] - 1) / b.width[kept];
        kept++;
    }
    dure_pool_run(c->pool, b.tasks[kept], backward_task, &b);
}
