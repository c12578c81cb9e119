#include "kernels/matmul.h"

#include "kernels/dequant.h"

#include <string.h>

/* A task makes some columns of a product for some rows. The right factor of its columns is cut
 * into steps (a piece of one term's depth) and these are gathered, while they are at most PANEL
 * elements and so fit the second-level cache, into batches. For each batch the task goes over its
 * rows block by block: a block of x stays in the first-level cache while it meets all columns.
 *
 * Sums run in registers over LINK of depth at most and are then added up: both lengths come from
 * the term's depth alone, so they are the same whatever the task's columns are. */
enum {
    PANEL = 208 << 10,
    NARROW_PANEL = 192 << 10, /* decides how a narrow product's sums run, so their bits */
    COLUMNS_MAX = 256,
    COLUMNS_LEAST = 32,
    DEEP_COLUMNS = 192,
    LINK = 640,
    LINK_STEP = 256, /* a multiple of every ggml type's block */
    DECODED_ROWS = 64,
    DECODED = DECODED_ROWS * COLUMNS_MAX, /* floats on their way into panels */
    JOINED = 64,                          /* depth of a term that goes on from the one before */
    STEPS_MAX = 64,
    ROWS_MAX = 16, /* no level's gemm likes more rows in a block */
    TURNED = 256,  /* rows of a factor turned at a time */
    LINK_MOST = (LINK + LINK_STEP - 1) / LINK_STEP * LINK_STEP,
};
_Static_assert(PANEL >= COLUMNS_MAX * (LINK_MOST + JOINED),
               "the last link of the widest task and the term that is joined to it fit");
_Static_assert(PANEL % LINK_STEP == 0, "a piece of a row ends where a block of weights does");
_Static_assert(PANEL >= NARROW_PANEL, "a narrow product's factor fits");

typedef struct scratch_parts {
    void *panels;
    float *decoded, *tile, *apart, *sums; /* tile and apart: sums of a block of rows */
} scratch_parts;

enum { TILE = COLUMNS_MAX * ROWS_MAX };

size_t dure_matmul_scratch_bytes(size_t rows, size_t inner)
{
    size_t sums = COLUMNS_MAX * rows, few = DURE_MATMUL_FEW * inner;
    return sizeof(float) * (PANEL + DECODED + 2 * TILE + (sums > few ? sums : few));
}

static scratch_parts parts_of(void *scratch)
{
    float *at = scratch;
    return (scratch_parts){.panels = at,
                           .decoded = at + PANEL,
                           .tile = at + PANEL + DECODED,
                           .apart = at + PANEL + DECODED + TILE,
                           .sums = at + PANEL + DECODED + 2 * TILE};
}

const uint8_t *dure_weight_at(const dure_weight *w, size_t row, size_t column)
{
    size_t weights = 1, bytes = 0;
    DURE_ASSERT(dure_quant_block(&weights, &bytes, w->type));
    return (const uint8_t *)w->data + (row * w->in + column) / weights * bytes;
}

void dure_weight_row(float *out, const dure_weight *w, size_t row, const dure_compute *c)
{
    c->ops->dequant(out, dure_weight_at(w, row, 0), w->in, w->type);
}

static size_t depth_of(const dure_term *t)
{
    return t->transposed ? t->w->out : t->w->in;
}

static size_t across(const dure_term *t)
{
    return t->transposed ? t->w->in : t->w->out;
}

static size_t columns_of(const dure_product *p)
{
    return across(&p->terms[0]);
}

/* The length of a chain of sums: the depth in even pieces. */
static size_t link_of(size_t depth)
{
    size_t pieces = (depth + LINK - 1) / LINK;
    return pieces <= 1 ? depth : dure_round_up((depth + pieces - 1) / pieces, LINK_STEP);
}

/* --- filling panels --- */

/* Depth [k, k + depth) of a term, for columns [column, + n): where its panels are. */
typedef struct step {
    const dure_term *term;
    size_t k, depth;
    dure_panels panels;
    bool apart, joined; /* joined: its sums go on from those of the step before */
} step;

typedef struct range {
    size_t first, n;
} range;

/* x W^T from rows of W: width of them at a time are decoded and turned. */
static void fill_forward(const step *s, range columns, float *decoded, const dure_cpu_ops *ops)
{
    const dure_weight *w = s->term->w;
    const size_t most = DECODED / ops->width / LINK_STEP * LINK_STEP;
    for (size_t j = 0; j < columns.n; j += ops->width) {
        size_t n = columns.n - j < ops->width ? columns.n - j : ops->width;
        dure_pack p = {.n = n};
        for (size_t k = 0; k < s->depth; k += p.k) {
            p.k = s->depth - k < most ? s->depth - k : most;
            size_t at = j / ops->width * s->panels.panel + k * ops->width;
            p.to = (dure_panels){dure_act_at(ops, s->panels.at, at), s->panels.panel};
            p.x = decoded;
            p.ld = p.k;
            if (w->type == 0) {
                p.x = (const float *)w->data + (columns.first + j) * w->in + s->k + k;
                p.ld = w->in;
            }
            for (size_t r = 0; r < n && w->type != 0; r++)
                ops->dequant(decoded + r * p.k, dure_weight_at(w, columns.first + j + r, s->k + k),
                             p.k, w->type);
            ops->pack_nt_f32(&p);
        }
    }
}

/* x W from rows of W as they are. */
static void fill_backward(const step *s, range columns, float *decoded, const dure_cpu_ops *ops)
{
    const dure_weight *w = s->term->w;
    dure_pack p = {.n = columns.n};
    for (size_t k = 0; k < s->depth; k += p.k) {
        p.k = s->depth - k < DECODED_ROWS ? s->depth - k : DECODED_ROWS;
        void *at = dure_act_at(ops, s->panels.at, k * ops->width);
        p.to = (dure_panels){at, s->panels.panel};
        p.x = decoded;
        p.ld = columns.n;
        if (w->type == 0) {
            p.x = (const float *)w->data + (s->k + k) * w->in + columns.first;
            p.ld = w->in;
        }
        for (size_t r = 0; r < p.k && w->type != 0; r++)
            ops->dequant(decoded + r * p.ld, dure_weight_at(w, s->k + k + r, columns.first),
                         columns.n, w->type);
        ops->pack_nn_f32(&p);
    }
}

/* Points the step at its panels: those of the packed weight, or `memory`, which is filled. */
static void fill(step *s, void *memory, range columns, float *decoded, const dure_cpu_ops *ops)
{
    const dure_weight *w = s->term->w;
    union {
        const void *given;
        void *at;
    } packed = {.given = w->packed};
    s->panels = (dure_panels){memory, dure_round_up(s->depth, ops->group) * ops->width};
    if (!w->packed) {
        (s->term->transposed ? fill_backward : fill_forward)(s, columns, decoded, ops);
        return;
    }
    dure_panels from = {packed.at, w->in * ops->width};
    if (s->term->transposed) {
        from.at = dure_act_at(ops, from.at, s->k * w->in);
        ops->repack(s->panels, from, columns.first, columns.n, s->depth);
    } else {
        from.at = dure_act_at(ops, from.at, columns.first * w->in + s->k * ops->width);
        s->panels = from;
    }
}

/* --- one task --- */

typedef struct task {
    const dure_product *p;
    range columns, rows;
    const dure_cpu_ops *ops;
    dure_profile *profile;
    scratch_parts scratch;
} task;

/* Packed weights that the thread reads when it is through its rows. */
typedef struct coming {
    dure_term term;
    range columns, depth;
} coming;
enum { COMING_MAX = 4, COMING_COLUMNS = 192 };
typedef struct upcoming {
    coming list[COMING_MAX];
    size_t n, room; /* elements that still fit the cache beside what is being used */
} upcoming;

static void add_coming(upcoming *u, const dure_term *term, range columns, size_t k)
{
    size_t all = across(term), depth = depth_of(term) - k;
    if (u->n == COMING_MAX || !term->w->packed || columns.first >= all) return;
    if (all - columns.first < columns.n) columns.n = all - columns.first;
    if (depth > u->room / columns.n) depth = u->room / columns.n;
    u->room -= depth * columns.n;
    if (depth) u->list[u->n++] = (coming){*term, columns, {k, depth}};
}

/* The terms of a product from depth k of one of them on. */
static void add_terms(upcoming *u, const task *t, size_t term, size_t k)
{
    for (; term < t->p->n_terms; term++, k = 0)
        add_coming(u, &t->p->terms[term], t->columns, k);
}

/* Part `i` of `of` of it, whole groups of the depth. */
static void bring(dure_near *near, const coming *c, size_t i, size_t of, const dure_cpu_ops *ops)
{
    const size_t width = ops->width, in = c->term.w->in, bytes = ops->act_bytes * width;
    size_t from = i * c->depth.n / of, to = (i + 1) * c->depth.n / of;
    size_t unit = c->term.transposed ? width : ops->group;
    from = c->depth.first + from / unit * unit;
    to = c->depth.first + (i + 1 == of ? c->depth.n : to / unit * unit);
    const char *panels = c->term.w->packed;
    if (c->term.transposed)
        dure_near_add(near, panels + (from * in + c->columns.first * width) * ops->act_bytes,
                      c->columns.n * bytes, in * bytes, (to - from) / width, false);
    else
        dure_near_add(near, panels + c->columns.first * in * ops->act_bytes + from * bytes,
                      (to - from) * bytes, in * bytes, c->columns.n / width, false);
}

/* A block of rows of the task, and the one after it (no rows after the last). */
typedef struct block {
    range rows, next;
    size_t index, of;
} block;

/* What is wanted while a block is multiplied: with the last batch where its sums go, x of the next
 * block, and in the second half of the blocks a part of the weights that come next: what is fetched
 * sooner is pushed out again before it is read. */
static dure_near near_of(const task *t, const step *steps, size_t n, const block *b, bool last,
                         const upcoming *u)
{
    dure_near near = {.n = 0};
    size_t act = t->ops->act_bytes;
    for (size_t i = 0; last && i < DURE_TOUCHED_MAX && t->p->touched[i].at; i++) {
        const dure_touched *a = &t->p->touched[i];
        size_t at = b->rows.first * a->row_bytes + t->columns.first * a->column_bytes;
        dure_near_add(&near, (const char *)a->at + at, t->columns.n * a->column_bytes, a->row_bytes,
                      b->rows.n, true);
    }
    for (size_t s = 0; s < n; s++) {
        const dure_term *from = steps[s].term;
        const void *x = dure_act_in(t->ops, from->x, b->next.first * from->ldx + steps[s].k);
        dure_near_add(&near, x, steps[s].depth * act, from->ldx * act, b->next.n, false);
    }
    size_t late = b->of - b->of / 2;
    for (size_t i = 0; i < u->n && b->index >= late; i++)
        bring(&near, &u->list[i], b->index - late, b->of - late, t->ops);
    return near;
}

/* Adds rows [row, row + n) of a step to the sums, and of the step joined to it (NULL: none). */
static void multiply(float *sums, const task *t, const step *s, const step *joined, range rows,
                     bool first, dure_near *near)
{
    const dure_cpu_ops *ops = t->ops;
    size_t link = dure_round_up(link_of(depth_of(s->term)), ops->group);
    size_t depth = dure_round_up(s->depth, ops->group);
    dure_gemm g = {.c = sums,
                   .ldc = t->columns.n,
                   .a_row = s->term->ldx,
                   .a_step = ops->group,
                   .b_panel = s->panels.panel,
                   .m = rows.n,
                   .n = t->columns.n,
                   .near = near};
    for (size_t k = 0; k < depth; k += link) {
        g.k = depth - k < link ? depth - k : link;
        g.a = dure_act_in(ops, s->term->x, rows.first * s->term->ldx + s->k + k);
        g.b = dure_act_in(ops, s->panels.at, k * ops->width);
        g.accumulate = !first || k > 0;
        if (joined && k + g.k == depth) {
            g.a2 = dure_act_in(ops, joined->term->x, rows.first * joined->term->ldx);
            g.a2_row = joined->term->ldx;
            g.b2 = joined->panels.at;
            g.b2_panel = joined->panels.panel;
            g.k2 = dure_round_up(joined->depth, ops->group);
        }
        ops->gemm(&g);
    }
}

/* Block `i` of the task's rows. They are of even height: a low one would wait for its own sums. */
static block block_at(const task *t, size_t i)
{
    size_t of = (t->rows.n + t->ops->rows - 1) / t->ops->rows, n = t->rows.n;
    size_t at = i * n / of, end = (i + 1) * n / of, after = i + 1 < of ? (i + 2) * n / of : end;
    return (block){{t->rows.first + at, end - at}, {t->rows.first + end, after - end}, i, of};
}

static void hand_on(const task *t, float *at, range rows)
{
    const dure_sums sums = {.at = at,
                            .ld = t->columns.n,
                            .row = rows.first,
                            .rows = rows.n,
                            .column = t->columns.first,
                            .columns = t->columns.n};
    if (t->p->n_apart) t->p->join(t->p->join_state, &sums, t->scratch.apart, t->ops);
    t->p->finish(t->p->state, &sums, t->ops);
}

/* All rows of the task with a batch of steps; `last`: the sums are complete and are handed on. */
static void multiply_rows(const task *t, const step *steps, size_t n, bool first, bool last,
                          const upcoming *u)
{
    block b = block_at(t, 0);
    for (size_t i = 0; i < b.of; i++) {
        b = block_at(t, i);
        size_t at = b.rows.first - t->rows.first;
        float *sums = first && last ? t->scratch.tile : t->scratch.sums + at * t->columns.n;
        dure_near near = near_of(t, steps, n, &b, last, u);
        for (size_t s = 0; s < n; s++) {
            bool apart = steps[s].apart, begins = s == 0 || steps[s - 1].apart != apart;
            if (steps[s].joined) continue;
            const step *joined = s + 1 < n && steps[s + 1].joined ? &steps[s + 1] : NULL;
            multiply(apart ? t->scratch.apart : sums, t, &steps[s], joined, b.rows,
                     begins && (apart || first), &near);
        }
        if (last) hand_on(t, sums, b.rows);
    }
}

static size_t pieces(size_t n, size_t of)
{
    return (n + of - 1) / of;
}

static size_t elements_of(const task *t, size_t depth)
{
    return dure_round_up(t->columns.n, t->ops->width) * dure_round_up(depth, t->ops->group);
}

/* Whether the term is short and follows a long one: an adapter's part beside its frozen product.
 * Its sums then go on in the registers from the last link of that one. */
static bool is_joined(const dure_product *p, size_t term)
{
    size_t apart = p->n_terms - p->n_apart;
    return term > 0 && term < p->n_terms && (term < apart) == (term - 1 < apart) &&
           depth_of(&p->terms[term]) <= JOINED && depth_of(&p->terms[term - 1]) > JOINED;
}

/* The next step of the product: as much of a term as `room` elements hold, whole links, the last
 * only with the term that is joined to it. depth 0: it does not fit beside what is there. */
static step next_step(const task *t, size_t *term, size_t *k, size_t room)
{
    const dure_term *from = &t->p->terms[*term];
    size_t depth = depth_of(from), link = link_of(depth), left = depth - *k, beside = 0;
    size_t most = room / elements_of(t, 1) * t->ops->group;
    step s = {.term = from,
              .k = *k,
              .depth = left,
              .apart = *term >= t->p->n_terms - t->p->n_apart,
              .joined = is_joined(t->p, *term)};
    if (is_joined(t->p, *term + 1))
        beside = dure_round_up(depth_of(&t->p->terms[*term + 1]), t->ops->group);
    if (dure_round_up(left, t->ops->group) + beside > most) {
        size_t links = most / link, all = pieces(left, link);
        s.depth = (links < all ? links : all - 1) * link;
    }
    *k += s.depth;
    if (*k < depth) return s;
    ++*term;
    *k = 0;
    return s;
}

/* Terms that are summed apart all come in the last batch, as their sums are kept for one block of
 * rows only; share_out() chooses tasks narrow enough for it. */
static size_t apart_elements(const task *t)
{
    size_t sum = 0;
    for (size_t i = t->p->n_terms - t->p->n_apart; i < t->p->n_terms; i++)
        sum += elements_of(t, depth_of(&t->p->terms[i]));
    return sum;
}

static bool begins_apart(const task *t, size_t term, size_t k)
{
    return t->p->n_apart && term == t->p->n_terms - t->p->n_apart && k == 0;
}

/* `next`: what the thread reads after the task. */
static void run(const task *t, const upcoming *next)
{
    step steps[STEPS_MAX];
    size_t n = 0, used = 0, term = 0, k = 0;
    bool first = true;
    while (term < t->p->n_terms) {
        size_t room = PANEL - used;
        if (n && begins_apart(t, term, k) && room < apart_elements(t)) room = 0;
        step s = next_step(t, &term, &k, room);
        if (s.depth == 0 || n == STEPS_MAX) {
            DURE_ASSERT(n > 0); /* one link of the widest task fits, see PANEL */
            upcoming rest = {.room = PANEL};
            add_terms(&rest, t, term, k);
            multiply_rows(t, steps, n, first, false, &rest);
            first = false;
            n = used = 0;
            if (s.depth == 0) continue;
        }
        uint64_t started = dure_profile_panels_start(t->profile);
        fill(&s, dure_act_at(t->ops, t->scratch.panels, used), t->columns, t->scratch.decoded,
             t->ops);
        dure_profile_panels_stop(t->profile, started);
        used += elements_of(t, s.depth);
        steps[n++] = s;
    }
    multiply_rows(t, steps, n, first, true, next);
}

/* --- sharing out --- */

typedef struct job {
    const dure_product *products;
    size_t n, rows, width, height; /* columns and rows of a task */
    const dure_cpu_ops *ops;
    dure_profile *profile;
    dure_ahead ahead;
    size_t threads;
    size_t tasks[DURE_PRODUCTS_MAX + 1];
} job;

/* The least number that both divide. */
static size_t multiple_of(size_t a, size_t b)
{
    size_t x = a, y = b;
    while (y) {
        size_t rest = x % y;
        x = y;
        y = rest;
    }
    return a / x * b;
}

/* What a width must be a multiple of: pairs of vectors, the grain, and whole blocks of weights that
 * are decoded along their rows. */
static size_t unit_of(const dure_product *products, size_t n, const dure_cpu_ops *ops)
{
    size_t unit = 2 * ops->width, weights, bytes; /* the kernel takes two vectors */
    for (size_t i = 0; i < n; i++) {
        if (products[i].grain) unit = multiple_of(unit, products[i].grain);
        for (size_t k = 0; k < products[i].n_terms; k++) {
            const dure_term *t = &products[i].terms[k];
            DURE_ASSERT(across(t) == columns_of(&products[i]));
            DURE_ASSERT(dure_quant_block(&weights, &bytes, t->w->type));
            if (t->transposed && !t->w->packed && weights > unit) unit = weights;
        }
    }
    return unit;
}

/* Of the terms from `first` on, as panels hold them. */
static size_t total_depth(const dure_product *p, size_t first, const dure_cpu_ops *ops)
{
    size_t sum = 0;
    for (size_t k = first; k < p->n_terms; k++)
        sum += dure_round_up(depth_of(&p->terms[k]), ops->group);
    return sum;
}

/* The columns of a task: as many as possible, because each task reads all of x, but no more than
 * share out evenly among the threads, nor than keep the right factor in the cache. */
static size_t width_of(const job *j, size_t threads)
{
    size_t unit = unit_of(j->products, j->n, j->ops), deepest = 1, apart = 1;
    for (size_t i = 0; i < j->n; i++) {
        const dure_product *p = &j->products[i];
        size_t all = total_depth(p, 0, j->ops);
        size_t last = total_depth(p, p->n_terms - p->n_apart, j->ops);
        if (all > deepest) deepest = all;
        if (last > apart) apart = last;
    }
    size_t most = PANEL / deepest;
    if (most < DEEP_COLUMNS) most = DEEP_COLUMNS;
    if (most > COLUMNS_MAX) most = COLUMNS_MAX;
    if (most < unit) most = unit; /* a block of 256 weights, however deep */
    if (most > PANEL / apart) most = PANEL / apart;
    DURE_ASSERT(most >= unit && most <= COLUMNS_MAX);
    size_t best = unit, shortest = SIZE_MAX;
    for (size_t width = unit; width <= most; width += unit) {
        if (width < COLUMNS_LEAST && width + unit <= most) continue;
        size_t tasks = 0;
        for (size_t i = 0; i < j->n; i++)
            tasks += pieces(columns_of(&j->products[i]), width);
        size_t turns = pieces(tasks, threads) * width;
        if (turns > shortest) continue;
        shortest = turns;
        best = width;
    }
    return best;
}

/* Products too narrow to give every thread columns are cut by rows. */
static job share_out(const dure_product *products, size_t n, size_t rows, const dure_compute *c)
{
    job j = {.products = products,
             .n = n,
             .rows = rows,
             .height = rows,
             .ops = c->ops,
             .profile = c->profile,
             .threads = dure_pool_threads(c->pool)};
    size_t threads = j.threads, columns = 0, at_once = 0;
    DURE_ASSERT(n <= DURE_PRODUCTS_MAX);
    j.width = width_of(&j, threads);
    for (size_t i = 0; i < n; i++) {
        columns += columns_of(&products[i]);
        at_once += pieces(columns_of(&products[i]), j.width);
    }
    if (threads > 1 && at_once < 4 * threads && columns < 4 * threads * COLUMNS_LEAST) {
        size_t cuts = pieces(4 * threads, at_once);
        j.height = dure_round_up(pieces(rows, cuts), c->ops->rows);
    }
    for (size_t i = 0; i < n; i++)
        j.tasks[i + 1] =
            j.tasks[i] + pieces(columns_of(&products[i]), j.width) * pieces(rows, j.height);
    return j;
}

static task task_at(const job *j, size_t index, void *scratch)
{
    size_t i = 0;
    while (index >= j->tasks[i + 1])
        i++;
    const dure_product *p = &j->products[i];
    size_t across = pieces(columns_of(p), j->width), at = index - j->tasks[i];
    task t = {.p = p,
              .columns = {at % across * j->width, j->width},
              .rows = {at / across * j->height, j->height},
              .ops = j->ops,
              .profile = j->profile,
              .scratch = parts_of(scratch)};
    if (columns_of(p) - t.columns.first < j->width) t.columns.n = columns_of(p) - t.columns.first;
    if (j->rows - t.rows.first < j->height) t.rows.n = j->rows - t.rows.first;
    return t;
}

/* Most often a thread's next task is as many further on as there are threads. */
static upcoming coming_after(const job *j, size_t index, void *scratch)
{
    upcoming u = {.room = PANEL};
    size_t next = index + j->threads, n = j->tasks[j->n];
    if (next < n) {
        task t = task_at(j, next, scratch);
        add_terms(&u, &t, 0, 0);
    } else if (j->ahead.w) {
        range columns = {(next - n) * COMING_COLUMNS, COMING_COLUMNS};
        add_coming(&u, &(dure_term){.w = j->ahead.w, .transposed = j->ahead.transposed}, columns,
                   0);
    }
    return u;
}

static void run_task(void *state, size_t index, void *scratch)
{
    const job *j = state;
    task t = task_at(j, index, scratch);
    upcoming next = coming_after(j, index, scratch);
    run(&t, &next);
}

static void count_work(const dure_product *products, size_t n, size_t rows, const dure_compute *c)
{
    double flops = 0, bytes = 0;
    for (size_t i = 0; c->profile && i < n; i++)
        for (size_t k = 0; k < products[i].n_terms; k++) {
            double depth = (double)depth_of(&products[i].terms[k]);
            double columns = (double)columns_of(&products[i]);
            flops += 2 * (double)rows * depth * columns;
            bytes += (double)c->ops->act_bytes * depth * ((double)rows + columns);
        }
    dure_profile_work(c->profile, flops, bytes);
}

/* What is read and written to have panels of the frozen weights. */
static void count_panels(const dure_product *products, size_t n, const dure_compute *c)
{
    double bytes = 0, act_bytes = (double)c->ops->act_bytes;
    for (size_t i = 0; c->profile && i < n; i++)
        for (size_t k = 0; k < products[i].n_terms; k++) {
            const dure_term *t = &products[i].terms[k];
            double weights = (double)t->w->in * (double)t->w->out;
            if (!t->w->packed)
                bytes += (double)(t->w->out * dure_quant_row_bytes(t->w->type, t->w->in)) +
                         weights * act_bytes;
            else if (t->transposed)
                bytes += 2 * weights * act_bytes;
        }
    dure_profile_panels_work(c->profile, bytes);
}

/* --- few columns: an adapter's inner side --- */

enum { NARROW = 64 };

/* Whether the product is of one term, few columns, and a float32 factor that fits the cache. */
static bool is_narrow(const dure_product *p)
{
    size_t columns = dure_round_up(columns_of(p), 4);
    return p->n_terms == 1 && p->terms[0].w->type == 0 && !p->terms[0].w->packed &&
           columns <= NARROW && columns * (depth_of(&p->terms[0]) + NARROW) <= NARROW_PANEL;
}

/* The factor's columns as rows of activations, `ld` apart, in the task's panels. */
static void lay_out_factor(const task *t, size_t ld)
{
    const dure_term *term = &t->p->terms[0];
    size_t depth = depth_of(term), columns = columns_of(t->p);
    const float *data = term->w->data;
    for (size_t j = 0; j < dure_round_up(columns, 4); j++) {
        void *to = dure_act_at(t->ops, t->scratch.panels, j * ld);
        if (j >= columns)
            memset(to, 0, depth * t->ops->act_bytes);
        else if (!term->transposed)
            t->ops->store(to, data + j * depth, depth, 1.0f);
    }
    for (size_t k = 0; k < depth && term->transposed; k += TURNED) {
        size_t n = depth - k < TURNED ? depth - k : TURNED;
        t->ops->transpose(t->scratch.decoded, n, data + k * columns, columns, n, columns);
        for (size_t j = 0; j < columns; j++)
            t->ops->store(dure_act_at(t->ops, t->scratch.panels, j * ld + k),
                          t->scratch.decoded + j * n, n, 1.0f);
    }
}

static void narrow_task(void *state, size_t index, void *scratch)
{
    const job *j = state;
    task t = task_at(j, index, scratch);
    const dure_term *term = &t.p->terms[0];
    /* Off a power of two, which would put all rows in the same cache sets. */
    size_t depth = depth_of(term), ld = dure_round_up(depth, 32) + 32;
    size_t columns = dure_round_up(columns_of(t.p), 4), height = ROWS_MAX / 6 * 6;
    lay_out_factor(&t, ld);
    for (size_t i = 0; i < t.rows.n; i += height) {
        size_t rows = t.rows.n - i < height ? t.rows.n - i : height, row = t.rows.first + i;
        t.ops->dots(&(dure_dots){.c = t.scratch.tile,
                                 .ldc = columns,
                                 .x = dure_act_in(t.ops, term->x, row * term->ldx),
                                 .ldx = term->ldx,
                                 .y = t.scratch.panels,
                                 .ldy = ld,
                                 .m = rows,
                                 .n = columns,
                                 .k = depth});
        t.p->finish(t.p->state,
                    &(dure_sums){.at = t.scratch.tile,
                                 .ld = columns,
                                 .row = row,
                                 .rows = rows,
                                 .columns = columns_of(t.p)},
                    t.ops);
    }
}

static bool all_narrow(const dure_product *products, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!is_narrow(&products[i])) return false;
    return true;
}

/* One piece of the rows for each thread, as each lays the factor out anew. */
void dure_matmul_narrow(const dure_product *products, size_t n, size_t rows, const dure_compute *c)
{
    if (!all_narrow(products, n)) {
        dure_matmul(products, n, rows, c);
        return;
    }
    if (n == 0 || rows == 0) return;
    count_work(products, n, rows, c);
    job j = {.products = products, .n = n, .rows = rows, .width = NARROW, .ops = c->ops};
    j.height = dure_round_up(pieces(rows, dure_pool_threads(c->pool)), ROWS_MAX / 6 * 6);
    for (size_t i = 0; i < n; i++)
        j.tasks[i + 1] = j.tasks[i] + pieces(rows, j.height);
    dure_pool_run(c->pool, j.tasks[n], narrow_task, &j);
}

void dure_matmul(const dure_product *products, size_t n, size_t rows, const dure_compute *c)
{
    dure_matmul_ahead(products, n, rows, (dure_ahead){.w = NULL}, c);
}

void dure_matmul_ahead(const dure_product *products, size_t n, size_t rows, dure_ahead ahead,
                       const dure_compute *c)
{
    if (n == 0 || rows == 0) return;
    count_work(products, n, rows, c);
    count_panels(products, n, c);
    job j = share_out(products, n, rows, c);
    j.ahead = ahead;
    dure_pool_run(c->pool, j.tasks[n], run_task, &j);
}

/* --- a few rows --- */

/* One row of W times all rows of x: adds to column `at` of the tile. A row longer than the panels
 * is taken in pieces. */
static void few_column(float *tile, const task *t, const dure_term *term, size_t at, bool first)
{
    const dure_weight *w = term->w;
    const float *row = t->scratch.panels, *x = t->scratch.sums;
    for (size_t k = 0; k < w->in; k += PANEL) {
        size_t n = w->in - k < PANEL ? w->in - k : PANEL;
        if (w->type == 0)
            row = (const float *)w->data + (t->columns.first + at) * w->in + k;
        else
            t->ops->dequant(t->scratch.panels, dure_weight_at(w, t->columns.first + at, k), n,
                            w->type);
        for (size_t r = 0; r < t->rows.n; r++) {
            float sum = t->ops->dot(row, x + r * w->in + k, n);
            float *y = &tile[r * t->columns.n + at];
            *y = first && k == 0 ? sum : *y + sum;
        }
    }
}

static void few_task(void *state, size_t index, void *scratch)
{
    const job *j = state;
    task t = task_at(j, index, scratch);
    float *tile = t.scratch.tile;
    for (size_t k = 0; k < t.p->n_terms; k++) {
        const dure_term *term = &t.p->terms[k];
        DURE_ASSERT(!term->transposed);
        for (size_t r = 0; r < j->rows; r++)
            t.ops->load(t.scratch.sums + r * term->w->in,
                        dure_act_in(t.ops, term->x, r * term->ldx), term->w->in);
        for (size_t i = 0; i < t.columns.n; i++)
            few_column(tile, &t, term, i, k == 0);
    }
    t.p->finish(t.p->state,
                &(dure_sums){.at = tile,
                             .ld = t.columns.n,
                             .rows = j->rows,
                             .column = t.columns.first,
                             .columns = t.columns.n},
                t.ops);
}

void dure_matmul_few(const dure_product *products, size_t n, size_t rows, const dure_compute *c)
{
    if (n == 0 || rows == 0) return;
    DURE_ASSERT(rows <= DURE_MATMUL_FEW);
    job j = {.products = products, .n = n, .rows = rows, .height = rows, .ops = c->ops};
    j.width = unit_of(products, n, c->ops) * 2;
    if (j.width > COLUMNS_MAX) j.width /= 2;
    for (size_t i = 0; i < n; i++)
        j.tasks[i + 1] = j.tasks[i] + pieces(columns_of(&products[i]), j.width);
    dure_pool_run(c->pool, j.tasks[n], few_task, &j);
}

/* --- finishing --- */

dure_touched dure_touched_acts(const void *at, size_t ld, const dure_cpu_ops *ops)
{
    return (dure_touched){at, ld * ops->act_bytes, ops->act_bytes};
}

dure_touched dure_touched_floats(const float *at, size_t ld)
{
    return (dure_touched){at, ld * sizeof *at, sizeof *at};
}

void dure_finish_store(void *store, const dure_sums *sums, const dure_cpu_ops *ops)
{
    const dure_store *s = store;
    for (size_t r = 0; r < sums->rows; r++)
        ops->store(dure_act_at(ops, s->y, (sums->row + r) * s->ldy + sums->column),
                   sums->at + r * sums->ld, sums->columns, s->scale);
}

void dure_finish_floats(void *floats, const dure_sums *sums, const dure_cpu_ops *ops)
{
    const dure_floats *f = floats;
    for (size_t r = 0; r < sums->rows; r++) {
        float *y = f->y + (sums->row + r) * f->ldy + sums->column;
        if (f->accumulate)
            ops->add(y, sums->at + r * sums->ld, sums->columns);
        else
            memcpy(y, sums->at + r * sums->ld, sums->columns * sizeof *y);
    }
}
