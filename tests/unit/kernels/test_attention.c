/* Attention over packed documents against sums in double, backward against differences of them. */
#include "kernels/attention.h"
#include "support/check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { HEADS = 4, HEADS_KV = 2, DIM = 8, Q = HEADS * DIM, KV = HEADS_KV * DIM, ROWS = 150 };
static const size_t starts[] = {0, 1, 61, 78, ROWS};
enum { N_DOCS = 4 };

typedef struct data {
    float q[ROWS * Q], k[ROWS * KV], v[ROWS * KV], w[ROWS * Q];
    float out[ROWS * Q], lse[ROWS * HEADS], dq[ROWS * Q], dk[ROWS * KV], dv[ROWS * KV];
} data;

static uint64_t rng = 1;

static void fill(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        rng = rng * 6364136223846793005u + 1442695040888963407u;
        x[i] = (float)(rng >> 40) * 0x1p-22f - 2.0f;
    }
}

static data *random_data(void)
{
    data *d = calloc(1, sizeof *d);
    fill(d->q, ROWS * Q);
    fill(d->k, ROWS * KV);
    fill(d->v, ROWS * KV);
    fill(d->w, ROWS * Q);
    return d;
}

/* The same as activations of a level. */
typedef struct acts {
    float q[ROWS * Q], k[ROWS * KV], v[ROWS * KV], w[ROWS * Q];
    float out[ROWS * Q], dq[ROWS * Q], dk[ROWS * KV], dv[ROWS * KV];
} acts;

/* What goes in becomes what the level holds of it. */
static void round_to(float *x, void *to, size_t n, const dure_cpu_ops *ops)
{
    ops->store(to, x, n, 1.0f);
    ops->load(x, to, n);
}

static acts *acts_of(data *d, const dure_cpu_ops *ops)
{
    acts *a = calloc(1, sizeof *a);
    round_to(d->q, a->q, ROWS * Q, ops);
    round_to(d->k, a->k, ROWS * KV, ops);
    round_to(d->v, a->v, ROWS * KV, ops);
    round_to(d->w, a->w, ROWS * Q, ops);
    return a;
}

static void results_of(data *d, const acts *a, const dure_cpu_ops *ops)
{
    ops->load(d->out, a->out, ROWS * Q);
    ops->load(d->dq, a->dq, ROWS * Q);
    ops->load(d->dk, a->dk, ROWS * KV);
    ops->load(d->dv, a->dv, ROWS * KV);
}

static void run(data *d, const size_t *from, size_t n_docs, dure_cpu_level level, size_t window)
{
    dure_compute c = {.ops = dure_cpu_ops_of(level)};
    dure_attention_doc docs[N_DOCS];
    acts *in = acts_of(d, c.ops);
    for (size_t i = 0; i < n_docs; i++)
        docs[i] = (dure_attention_doc){
            from[i], from[i + 1] - from[i], dure_act_in(c.ops, in->k, from[i] * KV),
            dure_act_in(c.ops, in->v, from[i] * KV), from[i + 1] - from[i]};
    void *packed = malloc(dure_attention_packed_bytes(ROWS, N_DOCS, HEADS_KV, DIM, c.ops));
    assert_ok(dure_pool_new(&c.pool, 2, dure_attention_scratch_bytes(ROWS, DIM, c.ops)));
    dure_attention args = {.docs = docs,
                           .n_docs = n_docs,
                           .q = in->q,
                           .ldq = Q,
                           .ldk = KV,
                           .ldv = KV,
                           .heads = HEADS,
                           .heads_kv = HEADS_KV,
                           .dim = DIM,
                           .window = window,
                           .scale = 0.35f,
                           .packed = packed};
    const dure_heads plain = {.dim = DIM}; /* as the products made them */
    dure_attention_forward(in->out, d->lse, &args, &c);
    dure_attention_grad grad = {.args = &args,
                                .out = in->out,
                                .lse = d->lse,
                                .dout = in->w,
                                .dq = in->dq,
                                .dk = in->dk,
                                .dv = in->dv,
                                .heads_q = &plain,
                                .heads_k = &plain};
    dure_attention_backward(&grad, &c);
    results_of(d, in, c.ops);
    free(in);
    dure_pool_free(&c.pool);
    free(packed);
}

static size_t doc_start(size_t row)
{
    size_t d = 0;
    while (starts[d + 1] <= row)
        d++;
    return starts[d];
}

/* One row of one head in double. */
static void naive_row(double out[DIM], const data *d, size_t row, size_t head, size_t window)
{
    double score[ROWS], sum = 0;
    size_t first = doc_start(row);
    if (window && row - first >= window) first = row + 1 - window;
    size_t kv = head / (HEADS / HEADS_KV) * DIM;
    memset(out, 0, DIM * sizeof *out);
    for (size_t j = first; j <= row; j++) {
        score[j] = 0;
        for (size_t x = 0; x < DIM; x++)
            score[j] += (double)d->q[row * Q + head * DIM + x] * (double)d->k[j * KV + kv + x];
        score[j] = exp((double)0.35f * score[j]);
        sum += score[j];
    }
    for (size_t j = first; j <= row; j++)
        for (size_t x = 0; x < DIM; x++)
            out[x] += score[j] / sum * (double)d->v[j * KV + kv + x];
}

/* What rounding may do. Activations of 8 bits are within 2^-8 of themselves: probabilities, which
 * add up to 1, and the output; values are below 2, so the output is within 2^-6. A gradient's parts
 * pass four roundings, whose errors are independent: some 2^-6 of its size. */
static bool is_bf16(dure_cpu_level level)
{
    return dure_cpu_ops_of(level)->act_bytes == 2;
}

/* Windows from one token to more than any document has; 0 is none. */
static const size_t windows[] = {0, 1, 5, 40, 60, 200};
enum { N_WINDOWS = sizeof windows / sizeof windows[0] };

static void check_sums(size_t window)
{
    data *d = random_data();
    for (int level = DURE_CPU_REFERENCE; level <= DURE_CPU_AVX512_BF16; level++) {
        if (!dure_cpu_ops_of((dure_cpu_level)level)) continue;
        run(d, starts, N_DOCS, (dure_cpu_level)level, window);
        double tolerance = is_bf16((dure_cpu_level)level) ? 0x1p-6 : 1e-5;
        for (size_t row = 0; row < ROWS; row++)
            for (size_t head = 0; head < HEADS; head++) {
                double expected[DIM];
                naive_row(expected, d, row, head, window);
                for (size_t x = 0; x < DIM; x++)
                    assert_true(fabs((double)d->out[row * Q + head * DIM + x] - expected[x]) <
                                tolerance);
            }
    }
    free(d);
}

static void test_attention_matches_sums_in_double(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_WINDOWS; i++)
        check_sums(windows[i]);
}

/* sum(w . out) over the rows that row `row` can change. */
static double objective(const data *d, size_t row, size_t window)
{
    double sum = 0, out[DIM];
    for (size_t i = row; i < ROWS && doc_start(i) == doc_start(row); i++)
        for (size_t head = 0; head < HEADS; head++) {
            naive_row(out, d, i, head, window);
            for (size_t x = 0; x < DIM; x++)
                sum += out[x] * (double)d->w[i * Q + head * DIM + x];
        }
    return sum;
}

/* Where a slope is looked for: the row that changes, and what rounding may do. */
typedef struct place {
    size_t row, window;
    double tolerance;
} place;

static void check_slope(data *d, float *x, float slope, const place *at)
{
    float saved = *x;
    *x = saved + 0x1p-9f;
    double above = objective(d, at->row, at->window);
    *x = saved - 0x1p-9f;
    double below = objective(d, at->row, at->window), expected = (above - below) * 0x1p8;
    *x = saved;
    assert_true(fabs(expected - (double)slope) < at->tolerance * (1 + fabs(expected)));
}

static void check_slopes(size_t window)
{
    data *d = random_data();
    for (int level = DURE_CPU_REFERENCE; level <= DURE_CPU_AVX512_BF16; level++) {
        if (!dure_cpu_ops_of((dure_cpu_level)level)) continue;
        run(d, starts, N_DOCS, (dure_cpu_level)level, window);
        place at = {.window = window};
        at.tolerance = is_bf16((dure_cpu_level)level) ? 0x1p-5 : 1e-3;
        for (at.row = 0; at.row < ROWS; at.row += 7)
            for (size_t x = at.row % 5; x < KV; x += 5) {
                check_slope(d, &d->q[at.row * Q + x], d->dq[at.row * Q + x], &at);
                check_slope(d, &d->k[at.row * KV + x], d->dk[at.row * KV + x], &at);
                check_slope(d, &d->v[at.row * KV + x], d->dv[at.row * KV + x], &at);
            }
    }
    free(d);
}

static void test_attention_backward_matches_differences(void **state)
{
    (void)state;
    check_slopes(0);
    check_slopes(5);
    check_slopes(60);
}

static void check_alone(size_t window)
{
    data *d = random_data(), *alone = malloc(sizeof *alone);
    run(d, starts, N_DOCS, dure_cpu_best(), window);
    for (size_t i = 0; i < N_DOCS; i++) {
        size_t first = starts[i], n = starts[i + 1] - first, own[2] = {0, n};
        memcpy(alone->q, d->q + first * Q, n * Q * sizeof(float));
        memcpy(alone->k, d->k + first * KV, n * KV * sizeof(float));
        memcpy(alone->v, d->v + first * KV, n * KV * sizeof(float));
        memcpy(alone->w, d->w + first * Q, n * Q * sizeof(float));
        run(alone, own, 1, dure_cpu_best(), window);
        assert_memory_equal(alone->out, d->out + first * Q, n * Q * sizeof(float));
        assert_memory_equal(alone->dq, d->dq + first * Q, n * Q * sizeof(float));
        assert_memory_equal(alone->dk, d->dk + first * KV, n * KV * sizeof(float));
        assert_memory_equal(alone->dv, d->dv + first * KV, n * KV * sizeof(float));
    }
    free(d);
    free(alone);
}

static void test_attention_document_is_itself_alone(void **state)
{
    (void)state;
    check_alone(0);
    check_alone(7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention_matches_sums_in_double),
        cmocka_unit_test(test_attention_backward_matches_differences),
        cmocka_unit_test(test_attention_document_is_itself_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
