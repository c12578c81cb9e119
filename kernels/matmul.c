#include "kernels/matmul.h"

#include "kernels/dequant.h"

/* Forward: a task makes COLUMNS columns of y. It decodes that many rows of W in pieces of DEPTH,
 * transposes them into panels, and runs each block of ROWS rows of x over all its panels, so that
 * the block of x stays in the second-level cache.
 * Backward: a task makes COLUMNS columns of dx from panels of DEPTH rows of W, which need no
 * transposing. */
enum { COLUMNS = 64, PANEL = 32, DEPTH = 512, ROWS = 56, BLOCK_MAX = 256 };

size_t dure_matmul_scratch_bytes(size_t inner)
{
    size_t decoded = inner > DEPTH ? inner : DEPTH;
    return sizeof(float) * (COLUMNS * DEPTH + PANEL * decoded + DEPTH * BLOCK_MAX);
}

static const uint8_t *weight_at(const dure_weight *w, size_t row, size_t column)
{
    const uint8_t *data = w->data;
    return data + row * dure_quant_row_bytes(w->type, w->in) +
           dure_quant_row_bytes(w->type, column);
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
        for (size_t r = 0; r < rows && w->type != 0; r++)
            ops->dequant(decoded + r * ld, weight_at(w, p->row + first + r, p->k), ld, w->type);
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
    float *panels = scratch, *decoded = panels + COLUMNS * DEPTH;
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

void dure_matmul_forward(const dure_matmul *job, const dure_compute *c)
{
    DURE_ASSERT(job->n_products <= DURE_PRODUCTS_MAX);
    forward_job f = {.job = job, .ops = c->ops, .width = COLUMNS};
    size_t columns = 0;
    for (size_t p = 0; p < job->n_products; p++)
        columns += job->products[p].w->out;
    /* Few wide tasks leave a thread idle at the end; narrow ones read x more often. */
    if (columns / COLUMNS < 16 * (size_t)dure_pool_threads(c->pool)) f.width = PANEL;
    for (size_t p = 0; p < job->n_products; p++)
        f.tasks[p + 1] = f.tasks[p] + (job->products[p].w->out + f.width - 1) / f.width;
    dure_pool_run(c->pool, f.tasks[job->n_products], forward_task, &f);
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
    forward_job f = {.job = job, .ops = c->ops, .width = COLUMNS};
    for (size_t p = 0; p < job->n_products; p++)
        f.tasks[p + 1] = f.tasks[p] + (job->products[p].w->out + f.width - 1) / f.width;
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
    if (w->type == 0) {
        g->b = (const float *)w->data + p->k * w->in + p->row;
        g->ldb = w->in;
        return;
    }
    for (size_t r = 0; r < g->k; r++)
        ops->dequant(panel + r * g->n, weight_at(w, p->k + r, p->row), g->n, w->type);
    g->b = panel;
    g->ldb = g->n;
}

/* Adds one term to columns [first, first + n) of dx; false in *accumulate: the first writes. */
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

void dure_matmul_backward(const dure_matmul_grad *grads, size_t n, size_t rows,
                          const dure_compute *c)
{
    DURE_ASSERT(n <= DURE_PRODUCTS_MAX);
    backward_job b = {.grads = grads, .ops = c->ops, .rows = rows};
    for (size_t i = 0; i < n; i++) {
        size_t in = grads[i].terms[0].w->in, weights, bytes;
        b.width[i] = in / COLUMNS < 16 * (size_t)dure_pool_threads(c->pool) ? PANEL : COLUMNS;
        for (size_t p = 0; p < grads[i].n_terms; p++) {
            DURE_ASSERT(grads[i].terms[p].w->in == in);
            DURE_ASSERT(dure_quant_block(&weights, &bytes, grads[i].terms[p].w->type));
            DURE_ASSERT(weights <= BLOCK_MAX);
            if (b.width[i] < weights) b.width[i] = weights;
        }
        b.tasks[i + 1] = b.tasks[i] + (in + b.width[i] - 1) / b.width[i];
    }
    dure_pool_run(c->pool, b.tasks[n], backward_task, &b);
}
