/* The heads of q and k between their product and the scores, against the definition in double, and
 * the way back against differences. */
#include "kernels/heads.h"
#include "support/check.h"

#include <math.h>
#include <string.h>

enum { ROWS = 3, HEADS = 5, DIM = 24, LD = HEADS * DIM, FIRST = 2 * DIM, N = 2 * DIM, SLACK = 16 };
static const uint32_t position[ROWS] = {0, 3, 11};
static float sums[ROWS * N], bias[LD], gains[DIM];

static float uniform(void)
{
    static uint64_t rng = 1;
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (float)(rng >> 40) * 0x1p-23f - 1.0f;
}

static void fill(float *x, size_t n, float base)
{
    for (size_t i = 0; i < n; i++)
        x[i] = base + uniform();
}

/* One head in double: bias, norm, rotation. */
static void naive(double y[DIM], const float *x, const dure_heads *h, size_t row, size_t head)
{
    double square = 0;
    for (size_t i = 0; i < DIM; i++) {
        y[i] = (double)x[i] + (h->bias ? (double)h->bias[head * DIM + i] : 0);
        square += y[i] * y[i];
    }
    for (size_t i = 0; h->norm && i < DIM; i++)
        y[i] *= (double)h->norm[i] / sqrt(square / DIM + (double)h->eps);
    for (size_t i = 0; h->table && i < DIM / 2; i++) {
        double angle = position[row] * h->table->frequency[i], a = y[i], b = y[i + DIM / 2];
        y[i] = a * cos(angle) - b * sin(angle);
        y[i + DIM / 2] = a * sin(angle) + b * cos(angle);
    }
}

static dure_heads heads_of(const dure_rope_table *table, void *y, void *kept, int parts)
{
    return (dure_heads){.y = y,
                        .ldy = LD,
                        .dim = DIM,
                        .bias = parts & 1 ? bias : NULL,
                        .norm = parts & 2 ? gains : NULL,
                        .eps = 1e-6f,
                        .kept = kept,
                        .table = parts & 4 ? table : NULL,
                        .position = position};
}

static void table_init(dure_rope_table *table)
{
    const dure_rope_opts opts = {.dim = DIM, .freq_base = 100, .halves = true};
    assert_ok(dure_rope_table_init(table, &opts));
    assert_ok(dure_rope_table_reserve(table, 12));
}

/* Heads 2 and 3 of three rows, as a block of a product; any of the three parts. */
static void check_finish(const dure_cpu_ops *ops, const dure_rope_table *table, int parts)
{
    static float y[ROWS * LD + SLACK], kept[ROWS * LD + SLACK], got[LD];
    float block[ROWS * N];
    double expected[DIM];
    fill(sums, ROWS * N, 0);
    memcpy(block, sums, sizeof block);
    dure_heads h = heads_of(table, y, kept, parts);
    const dure_sums at = {.at = block, .ld = N, .rows = ROWS, .column = FIRST, .columns = N};
    dure_finish_heads(&h, &at, ops);
    double tolerance = ops->act_bytes == 2 ? 0x1p-7 : 1e-5;
    for (size_t row = 0; row < ROWS; row++) {
        ops->load(got, dure_act_in(ops, y, row * LD), LD);
        for (size_t head = 2; head < 4; head++) {
            const float *x = sums + row * N + (head - 2) * DIM;
            naive(expected, x, &h, row, head);
            for (size_t i = 0; i < DIM; i++)
                assert_true(fabs((double)got[head * DIM + i] - expected[i]) < 2 * tolerance);
        }
    }
}

static void test_heads_are_biased_normed_and_turned(void **state)
{
    (void)state;
    dure_rope_table table;
    table_init(&table);
    fill(bias, LD, 0);
    fill(gains, DIM, 1);
    for (int level = DURE_CPU_REFERENCE; level <= DURE_CPU_AVX512_BF16; level++) {
        const dure_cpu_ops *ops = dure_cpu_ops_of((dure_cpu_level)level);
        for (int parts = 0; ops && parts < 8; parts++)
            check_finish(ops, &table, parts);
    }
    dure_rope_table_fini(&table);
}

/* d sum(w . y) / dx, by differences of the definition. */
static double slope_of(const dure_heads *h, const float *x, const float *w, size_t i, size_t row)
{
    float moved[DIM];
    double y[DIM], sum[2] = {0, 0}, step = 0x1p-10;
    for (int side = 0; side < 2; side++) {
        memcpy(moved, x, sizeof moved);
        moved[i] += (float)(side ? -step : step);
        naive(y, moved, h, row, 1);
        for (size_t k = 0; k < DIM; k++)
            sum[side] += y[k] * (double)w[k];
    }
    return (sum[0] - sum[1]) / (2 * step);
}

static void check_back(const dure_cpu_ops *ops, const dure_rope_table *table, int parts)
{
    static float y[ROWS * LD + SLACK], kept[ROWS * LD + SLACK];
    float x[DIM], block[DIM], w[DIM], dy[DIM], back[DIM + SLACK], got[DIM];
    enum { ROW = 2 };
    dure_heads h = heads_of(table, y, kept, parts);
    fill(x, DIM, 0);
    fill(w, DIM, 0);
    memcpy(block, x, sizeof block);
    const dure_sums at = {
        .at = block, .ld = DIM, .row = ROW, .rows = 1, .column = DIM, .columns = DIM};
    dure_finish_heads(&h, &at, ops);
    memcpy(dy, w, sizeof dy);
    dure_heads_back(back, dy, &h, ROW, 1, ops);
    ops->load(got, back, DIM);
    /* A norm works with what was kept of x, which may have been rounded, as was the result. */
    double tolerance = ops->act_bytes == 2 ? 0x1p-5 : 1e-4;
    for (size_t i = 0; i < DIM; i++)
        assert_true(fabs((double)got[i] - slope_of(&h, x, w, i, ROW)) < tolerance);
}

static void test_heads_back_is_the_gradient(void **state)
{
    (void)state;
    dure_rope_table table;
    table_init(&table);
    fill(bias, LD, 0);
    fill(gains, DIM, 1);
    for (int level = DURE_CPU_REFERENCE; level <= DURE_CPU_AVX512_BF16; level++) {
        const dure_cpu_ops *ops = dure_cpu_ops_of((dure_cpu_level)level);
        for (int parts = 0; ops && parts < 8; parts++)
            check_back(ops, &table, parts);
    }
    dure_rope_table_fini(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_heads_are_biased_normed_and_turned),
        cmocka_unit_test(test_heads_back_is_the_gradient),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
