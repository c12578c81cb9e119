/* Products against sums in double of the factors as the level holds them, at every level of the
 * CPU; and the promise that a row's result does not depend on the rows beside it, on their number,
 * on the threads, or on whether the weight is packed. */
#include "kernels/dequant.h"
#include "kernels/packed_weight.h"
#include "support/check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint64_t rng = 1;

static float uniform(void)
{
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (float)(rng >> 40) * 0x1p-23f - 1.0f;
}

static float *random_floats(size_t n)
{
    float *x = malloc((n + 1) * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = uniform();
    return x;
}

/* Random Q8_0, Q4_1 or Q4_K blocks, or float32. */
static dure_weight random_weight(uint32_t type, size_t out, size_t in)
{
    size_t bytes = dure_quant_row_bytes(type, in) * out, weights = 1, block = 1;
    uint8_t *data = type ? malloc(bytes) : (uint8_t *)random_floats(out * in);
    assert_true(dure_quant_block(&weights, &block, type));
    for (size_t i = 0; type && i < bytes; i++)
        data[i] = (uint8_t)(rng = rng * 6364136223846793005u + 1442695040888963407u, rng >> 56);
    for (size_t i = 0; type && i < bytes; i += block) {
        uint16_t scales[2] = {dure_float_to_half(0.01f * uniform()), dure_float_to_half(uniform())};
        memcpy(data + i, scales, type == 8 ? 2 : 4);
    }
    return (dure_weight){.type = type, .out = out, .in = in, .data = data};
}

static void free_weight(dure_weight *w)
{
    union {
        const void *shared;
        void *owned;
    } data = {.shared = w->data};
    free(data.owned);
}

/* The numbers as activations; `x` becomes what they hold. */
static void *acts_of(float *x, size_t n, const dure_cpu_ops *ops)
{
    void *acts = malloc((n + 1) * sizeof(float));
    ops->store(acts, x, n, 1.0f);
    ops->load(x, acts, n);
    return acts;
}

static float *decoded(const dure_weight *w)
{
    float *x = malloc(w->out * w->in * sizeof *x);
    dure_cpu_ops_of(DURE_CPU_REFERENCE)->dequant(x, w->data, w->out * w->in, w->type);
    return x;
}

/* The weight as the level multiplies it. */
static float *held(const dure_weight *w, const dure_cpu_ops *ops)
{
    float *x = decoded(w);
    free(acts_of(x, w->out * w->in, ops));
    return x;
}

/* |y - a b| over |a| |b|, the measure in which float32 sums are judged. b is [n x k] turned, or
 * [k x n]. */
static void check_product(const float *y, const float *a, const float *b, const size_t mnk[3],
                          bool turned)
{
    size_t m = mnk[0], n = mnk[1], k = mnk[2];
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            double sum = 0, size = 0;
            for (size_t p = 0; p < k; p++) {
                double term = (double)a[i * k + p] * (double)(turned ? b[j * k + p] : b[p * n + j]);
                sum += term;
                size += fabs(term);
            }
            assert_true(fabs((double)y[i * n + j] - sum) <= 1e-6 * size + 1e-30);
        }
}

static dure_compute compute(const dure_cpu_ops *ops, uint32_t threads)
{
    dure_compute c = {.ops = ops};
    assert_ok(dure_pool_new(&c.pool, threads, dure_matmul_scratch_bytes(100, 2048)));
    return c;
}

/* One product of one term into float32. */
static void multiply(float *y, const void *x, const dure_weight *w, bool transposed, size_t rows,
                     const dure_compute *c)
{
    dure_floats floats = {.y = y, .ldy = transposed ? w->in : w->out};
    dure_product p = {
        .terms = {{.x = x, .ldx = transposed ? w->out : w->in, .w = w, .transposed = transposed}},
        .n_terms = 1,
        .finish = dure_finish_floats,
        .state = &floats};
    dure_matmul(&p, 1, rows, c);
}

/* rows, out, in */
static const size_t shapes[][3] = {{1, 32, 32},  {5, 7, 64},     {14, 33, 96}, {57, 200, 288},
                                   {29, 64, 32}, {70, 130, 320}, {3, 48, 1056}};
/* For blocks of 256 weights: on the way back they are as wide as a task may be, and the depth of
 * the last would have it narrower. */
static const size_t wide_shapes[][3] = {{5, 40, 256}, {14, 96, 768}, {9, 1184, 512}};

static void check_few(const float *y, const float *x, const void *acts, const dure_weight *w,
                      size_t rows, const dure_compute *c)
{
    dure_floats floats = {.y = (float *)(uintptr_t)y, .ldy = w->out};
    dure_product p = {.terms = {{.x = acts, .ldx = w->in, .w = w}},
                      .n_terms = 1,
                      .finish = dure_finish_floats,
                      .state = &floats};
    float *b = decoded(w);
    dure_matmul_few(&p, 1, rows, c);
    check_product(y, x, b, (size_t[3]){rows, w->out, w->in}, true);
    free(b);
}

static void check_level(dure_cpu_level level, uint32_t type)
{
    const dure_cpu_ops *ops = dure_cpu_ops_of(level);
    if (!ops) return;
    dure_compute c = compute(ops, 2);
    bool wide = type == 12;
    size_t n = (wide ? sizeof wide_shapes : sizeof shapes) / sizeof shapes[0];
    for (size_t s = 0; s < n; s++) {
        const size_t *shape = wide ? wide_shapes[s] : shapes[s];
        size_t rows = shape[0], out = shape[1], in = shape[2];
        dure_weight w = random_weight(type, out, in);
        float *x = random_floats(rows * in), *y = random_floats(rows * out), *b = held(&w, ops);
        void *x_acts = acts_of(x, rows * in, ops);
        multiply(y, x_acts, &w, false, rows, &c);
        check_product(y, x, b, (size_t[3]){rows, out, in}, true);
        if (rows <= DURE_MATMUL_FEW) check_few(y, x, x_acts, &w, rows, &c);
        /* G divides the depth, as it does in any model; the last odd column goes out. */
        size_t depth = out / ops->group * ops->group;
        w.out = depth;
        float *dy = random_floats(rows * depth);
        void *dy_acts = acts_of(dy, rows * depth, ops);
        multiply(x, dy_acts, &w, true, rows, &c);
        check_product(x, dy, b, (size_t[3]){rows, in, depth}, false);
        free(x);
        free(y);
        free(b);
        free(dy);
        free(x_acts);
        free(dy_acts);
        free_weight(&w);
    }
    dure_pool_free(&c.pool);
}

static void test_matmul_is_right_at_every_level(void **state)
{
    (void)state;
    static const uint32_t types[] = {0, 3, 8, 12};
    for (int level = DURE_CPU_REFERENCE; level <= DURE_CPU_AVX512_BF16; level++)
        for (size_t t = 0; t < sizeof types / sizeof types[0]; t++)
            check_level((dure_cpu_level)level, types[t]);
}

/* x W^T + z B^T of range[1] rows from range[0] on, with `threads` threads. */
static float *product_of(const void *x, const void *z, const dure_weight w[2],
                         const size_t range[2], uint32_t threads)
{
    dure_compute c = compute(dure_cpu_ops_of(dure_cpu_best()), threads);
    float *y = malloc(range[1] * w->out * sizeof *y);
    dure_floats floats = {.y = y, .ldy = w->out};
    dure_product p = {
        .terms = {{.x = dure_act_in(c.ops, x, range[0] * w->in), .ldx = w->in, .w = w},
                  {.x = dure_act_in(c.ops, z, range[0] * w[1].in), .ldx = w[1].in, .w = &w[1]}},
        .n_terms = 2,
        .finish = dure_finish_floats,
        .state = &floats};
    dure_matmul(&p, 1, range[1], &c);
    dure_pool_free(&c.pool);
    return y;
}

static void test_matmul_row_is_itself_among_any_rows(void **state)
{
    (void)state;
    enum { ROWS = 75, OUT = 200, IN = 1056, RANK = 8 };
    dure_weight w[2] = {random_weight(3, OUT, IN), random_weight(0, OUT, RANK)};
    float *x = random_floats(ROWS * IN), *z = random_floats(ROWS * RANK);
    const dure_cpu_ops *ops = dure_cpu_ops_of(dure_cpu_best());
    void *acts = acts_of(x, ROWS * IN, ops), *z_acts = acts_of(z, ROWS * RANK, ops);
    float *all = product_of(acts, z_acts, w, (size_t[]){0, ROWS}, 1);
    static const size_t ranges[][2] = {{0, 1}, {3, 9}, {10, 14}, {13, 57}, {74, 1}, {0, 75}};
    for (size_t r = 0; r < sizeof ranges / sizeof ranges[0]; r++) {
        float *some = product_of(acts, z_acts, w, ranges[r], (uint32_t)r % 3 + 1);
        assert_memory_equal(some, all + ranges[r][0] * OUT, ranges[r][1] * OUT * sizeof *some);
        free(some);
    }
    free(x);
    free(z);
    free(acts);
    free(z_acts);
    free(all);
    free_weight(&w[0]);
    free_weight(&w[1]);
}

/* The sums of a frozen product and the adapter's part beside it, w[0] and w[1]. */
static void multiply_both(float *y, const void *const x[2], const dure_weight w[2], bool transposed,
                          size_t grain, const dure_compute *c)
{
    dure_floats floats = {.y = y, .ldy = transposed ? w->in : w->out};
    dure_product p = {.n_terms = 2, .finish = dure_finish_floats, .state = &floats, .grain = grain};
    for (int i = 0; i < 2; i++)
        p.terms[i] = (dure_term){.x = x[i],
                                 .ldx = dure_round_up(transposed ? w[i].out : w[i].in, 2),
                                 .w = &w[i],
                                 .transposed = transposed};
    dure_matmul(&p, 1, 3, c);
}

/* A task that must be as wide as a task can be, because of its blocks of weights (on the way back)
 * or its heads, gives the bits of the same product cut for two threads. */
static void check_widest(size_t depth, size_t rank, bool transposed, const dure_compute *c)
{
    enum { ROWS = 3, COLUMNS = 256 };
    size_t inner = dure_round_up(rank, 2), n = ROWS * COLUMNS;
    dure_weight w[2] = {
        transposed ? random_weight(12, depth, COLUMNS) : random_weight(0, COLUMNS, depth),
        transposed ? random_weight(0, rank, COLUMNS) : random_weight(0, COLUMNS, rank)};
    float *x = random_floats(ROWS * depth), *z = random_floats(ROWS * inner);
    for (size_t r = 0; r < ROWS && inner > rank; r++)
        z[r * inner + rank] = 0; /* an odd depth: the row's padding is zero */
    float *wide = malloc(n * sizeof *wide), *cut = malloc(n * sizeof *cut), *f32 = decoded(w);
    void *acts[2] = {acts_of(x, ROWS * depth, c->ops), acts_of(z, ROWS * inner, c->ops)};
    const void *const both[2] = {acts[0], acts[1]};
    const dure_weight plain[2] = {{.out = w->out, .in = w->in, .data = f32}, w[1]};
    multiply_both(wide, both, w, transposed, transposed ? 0 : COLUMNS, c);
    multiply_both(cut, both, plain, transposed, 0, c);
    assert_memory_equal(wide, cut, n * sizeof *cut);
    free(x);
    free(z);
    free(wide);
    free(cut);
    free(f32);
    free(acts[0]);
    free(acts[1]);
    free_weight(&w[0]);
    free_weight(&w[1]);
}

/* Depths around multiples of the longest chain of sums: the last chain and the adapter's part must
 * fit the widest task's panels together. */
static void test_matmul_widest_task_takes_any_depth_and_rank(void **state)
{
    (void)state;
    static const size_t less[] = {0, 2, 8, 62, 64}, ranks[] = {1, 8, 64};
    for (int level = DURE_CPU_REFERENCE; level <= DURE_CPU_AVX512_BF16; level++) {
        const dure_cpu_ops *ops = dure_cpu_ops_of((dure_cpu_level)level);
        if (!ops) continue;
        dure_compute c = compute(ops, 2);
        for (size_t most = 768; most <= 3840; most += 768)
            for (size_t i = 0; i < sizeof less / sizeof less[0]; i++)
                for (size_t r = 0; r < sizeof ranks / sizeof ranks[0]; r++) {
                    check_widest(most - less[i], ranks[r], true, &c);
                    check_widest(most - less[i], ranks[r], false, &c);
                }
        dure_pool_free(&c.pool);
    }
}

/* Several terms, more depth than the cache holds at once, several products: as sums in double. */
static void test_matmul_adds_terms_and_groups_products(void **state)
{
    (void)state;
    enum { ROWS = 9, DEEP = 4096, RANK = 3, LDZ = 4, OUT = 96 };
    for (int level = DURE_CPU_REFERENCE; level <= DURE_CPU_AVX512_BF16; level++) {
        const dure_cpu_ops *ops = dure_cpu_ops_of((dure_cpu_level)level);
        if (!ops) continue;
        dure_compute c = compute(ops, 2);
        dure_weight a = random_weight(3, OUT, DEEP), b = random_weight(0, OUT, RANK);
        float *x = random_floats(ROWS * DEEP), *z = random_floats(ROWS * LDZ);
        /* An odd depth: the row's padding is zero. */
        for (size_t r = 0; r < ROWS; r++)
            z[r * LDZ + RANK] = 0;
        float *y = random_floats(ROWS * OUT), *other = malloc(ROWS * OUT * sizeof *other);
        float before[ROWS * OUT], *part = malloc(ROWS * OUT * sizeof *part);
        memcpy(before, y, sizeof before);
        void *x_acts = acts_of(x, ROWS * DEEP, ops), *z_acts = acts_of(z, ROWS * LDZ, ops);
        dure_floats to_y = {.y = y, .ldy = OUT, .accumulate = true};
        dure_floats to_other = {.y = other, .ldy = OUT};
        dure_product products[] = {
            {.terms = {{.x = x_acts, .ldx = DEEP, .w = &a}, {.x = z_acts, .ldx = LDZ, .w = &b}},
             .n_terms = 2,
             .finish = dure_finish_floats,
             .state = &to_y},
            {.terms = {{.x = z_acts, .ldx = LDZ, .w = &b}},
             .n_terms = 1,
             .finish = dure_finish_floats,
             .state = &to_other}};
        dure_matmul(products, 2, ROWS, &c);
        float *b_held = held(&b, ops);
        for (size_t r = 1; r < ROWS; r++)
            memmove(z + r * RANK, z + r * LDZ, RANK * sizeof *z);
        check_product(other, z, b_held, (size_t[3]){ROWS, OUT, RANK}, true);
        multiply(part, x_acts, &a, false, ROWS, &c);
        for (size_t i = 0; i < ROWS * OUT; i++) {
            double expected = (double)before[i] + (double)part[i] + (double)other[i];
            assert_true(fabs((double)y[i] - expected) < 1e-5 * (1 + fabs(expected)));
        }
        free(b_held);
        free(x);
        free(z);
        free(y);
        free(other);
        free(part);
        free(x_acts);
        free(z_acts);
        free_weight(&a);
        free_weight(&b);
        dure_pool_free(&c.pool);
    }
}

/* Takes every second column of the sums apart, three times. */
static void join_some(void *state, const dure_sums *sums, const float *apart,
                      const dure_cpu_ops *ops)
{
    (void)ops;
    (void)state;
    for (size_t r = 0; r < sums->rows; r++)
        for (size_t i = 0; i < sums->columns; i++)
            if ((sums->column + i) % 2) sums->at[r * sums->ld + i] += 3 * apart[r * sums->ld + i];
}

/* Terms summed apart are joined to the others once, though all do not fit the cache together, with
 * any number of threads. */
static void test_matmul_joins_terms_summed_apart(void **state)
{
    (void)state;
    enum { ROWS = 33, DEEP = 2048, RANK = 256, IN = 320 };
    const dure_cpu_ops *ops = dure_cpu_ops_of(dure_cpu_best());
    dure_weight w = random_weight(8, DEEP, IN);
    dure_weight a[2] = {random_weight(0, RANK, IN), random_weight(0, RANK, IN)};
    float *x = random_floats(ROWS * DEEP), *z = random_floats(ROWS * RANK);
    float *y[2], *part[2], *main = malloc(ROWS * IN * sizeof *main);
    void *x_acts = acts_of(x, ROWS * DEEP, ops), *z_acts = acts_of(z, ROWS * RANK, ops);
    for (uint32_t i = 0; i < 2; i++) {
        dure_compute c = compute(ops, i + 1);
        y[i] = malloc(ROWS * IN * sizeof *y[i]);
        part[i] = malloc(ROWS * IN * sizeof *part[i]);
        multiply(main, x_acts, &w, true, ROWS, &c);
        multiply(part[i], z_acts, &a[i], true, ROWS, &c);
        dure_floats floats = {.y = y[i], .ldy = IN};
        dure_product p = {.terms = {{.x = x_acts, .ldx = DEEP, .w = &w, .transposed = true},
                                    {.x = z_acts, .ldx = RANK, .w = &a[0], .transposed = true},
                                    {.x = z_acts, .ldx = RANK, .w = &a[1], .transposed = true}},
                          .n_terms = 3,
                          .n_apart = 2,
                          .join = join_some,
                          .finish = dure_finish_floats,
                          .state = &floats,
                          .touched = {dure_touched_floats(y[i], IN)}};
        dure_matmul(&p, 1, ROWS, &c);
        dure_pool_free(&c.pool);
    }
    assert_memory_equal(y[0], y[1], ROWS * IN * sizeof *y[0]);
    for (size_t i = 0; i < ROWS * IN; i++) {
        double apart = (double)part[0][i] + (double)part[1][i];
        double expected = (double)main[i] + (i % IN % 2 ? 3 * apart : 0);
        assert_true(fabs((double)y[0][i] - expected) < 1e-4 * (1 + fabs(expected)));
    }
    for (int i = 0; i < 2; i++) {
        free(y[i]);
        free(part[i]);
        free_weight(&a[i]);
    }
    free(main);
    free(x);
    free(z);
    free(x_acts);
    free(z_acts);
    free_weight(&w);
}

/* The factors of an adapter, A as it is and B turned, at every level. */
static void test_matmul_narrow_is_right(void **state)
{
    (void)state;
    enum { ROWS = 37, DEPTH = 520 };
    static const size_t ranks[] = {1, 3, 8, 16, 70};
    for (int level = DURE_CPU_REFERENCE; level <= DURE_CPU_AVX512_BF16; level++) {
        const dure_cpu_ops *ops = dure_cpu_ops_of((dure_cpu_level)level);
        if (!ops) continue;
        dure_compute c = compute(ops, 2);
        for (size_t i = 0; i < 2 * sizeof ranks / sizeof ranks[0]; i++) {
            size_t rank = ranks[i / 2];
            bool turned = i % 2;
            dure_weight w = turned ? random_weight(0, DEPTH, rank) : random_weight(0, rank, DEPTH);
            float *x = random_floats(ROWS * DEPTH), *y = random_floats(ROWS * rank);
            float *b = held(&w, ops);
            void *acts = acts_of(x, ROWS * DEPTH, ops);
            dure_floats floats = {.y = y, .ldy = rank};
            dure_product p = {.terms = {{.x = acts, .ldx = DEPTH, .w = &w, .transposed = turned}},
                              .n_terms = 1,
                              .finish = dure_finish_floats,
                              .state = &floats};
            dure_matmul_narrow(&p, 1, ROWS, &c);
            check_product(y, x, b, (size_t[3]){ROWS, rank, DEPTH}, !turned);
            free(x);
            free(y);
            free(b);
            free(acts);
            free_weight(&w);
        }
        dure_pool_free(&c.pool);
    }
}

/* A packed weight gives the bits of the decoded one, forward and back. */
static void test_matmul_packed_is_as_decoded(void **state)
{
    (void)state;
    enum { ROWS = 61, OUT = 208, IN = 1312 };
    const dure_cpu_ops *ops = dure_cpu_ops_of(DURE_CPU_AVX512_BF16);
    dure_weight w = random_weight(3, OUT, IN), narrow = {.out = 24, .in = 32};
    if (!ops || !dure_weight_can_pack(&w, ops)) {
        free_weight(&w);
        print_message("no level of this CPU packs weights\n");
        skip();
    }
    assert_false(dure_weight_can_pack(&narrow, ops));
    dure_compute c = compute(ops, 2);
    float *x = random_floats(ROWS * IN), *dy = random_floats(ROWS * OUT);
    void *x_acts = acts_of(x, ROWS * IN, ops), *dy_acts = acts_of(dy, ROWS * OUT, ops);
    float *y[2], *dx[2];
    void *memory = aligned_alloc(64, dure_round_up(dure_weight_packed_bytes(&w, ops), 64));
    for (int packed = 0; packed < 2; packed++) {
        y[packed] = malloc(ROWS * OUT * sizeof(float));
        dx[packed] = malloc(ROWS * IN * sizeof(float));
        if (packed) dure_weight_pack(&w, memory, &c);
        multiply(y[packed], x_acts, &w, false, ROWS, &c);
        multiply(dx[packed], dy_acts, &w, true, ROWS, &c);
    }
    assert_memory_equal(y[0], y[1], ROWS * OUT * sizeof(float));
    assert_memory_equal(dx[0], dx[1], ROWS * IN * sizeof(float));
    for (int packed = 0; packed < 2; packed++) {
        free(y[packed]);
        free(dx[packed]);
    }
    free(memory);
    free(x);
    free(dy);
    free(x_acts);
    free(dy_acts);
    free_weight(&w);
    dure_pool_free(&c.pool);
}

/* The longest feed-forward layer that a model may have: a row that no panel holds. */
static void test_matmul_few_takes_the_longest_rows(void **state)
{
    (void)state;
    enum { ROWS = 2, OUT = 3, IN = 1 << 19 };
    static const uint32_t types[] = {0, 12};
    for (int level = DURE_CPU_REFERENCE; level <= DURE_CPU_AVX512_BF16; level++) {
        dure_compute c = {.ops = dure_cpu_ops_of((dure_cpu_level)level)};
        if (!c.ops) continue;
        assert_ok(dure_pool_new(&c.pool, 2, dure_matmul_scratch_bytes(ROWS, IN)));
        for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
            dure_weight w = random_weight(types[t], OUT, IN);
            float *x = random_floats(ROWS * IN), y[ROWS * OUT];
            void *acts = acts_of(x, ROWS * IN, c.ops);
            check_few(y, x, acts, &w, ROWS, &c);
            free(x);
            free(acts);
            free_weight(&w);
        }
        dure_pool_free(&c.pool);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matmul_is_right_at_every_level),
        cmocka_unit_test(test_matmul_row_is_itself_among_any_rows),
        cmocka_unit_test(test_matmul_widest_task_takes_any_depth_and_rank),
        cmocka_unit_test(test_matmul_adds_terms_and_groups_products),
        cmocka_unit_test(test_matmul_joins_terms_summed_apart),
        cmocka_unit_test(test_matmul_narrow_is_right),
        cmocka_unit_test(test_matmul_few_takes_the_longest_rows),
        cmocka_unit_test(test_matmul_packed_is_as_decoded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
