/* Rotary position embedding against its definition, written down again in double. */
#include "kernels/rope.h"
#include "support/check.h"

#include <math.h>
#include <string.h>

enum { ROWS = 5, HEADS = 3, DIM = 8, HEAD = 10, LD = HEADS * HEAD, POSITIONS = 600 };
static const uint32_t position[ROWS] = {0, 1, 7, 30, 599};
static const float factors[DIM / 2] = {1, 2, 4, 8};

static void fill(float *x, uint64_t seed)
{
    for (size_t i = 0; i < ROWS * LD; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        x[i] = (float)(seed >> 40) * 0x1p-23f - 1.0f;
    }
}

/* Adjacent pairs in two pieces, as blocks of columns may fall. */
static void apply(float *x, const dure_rope_table *table, bool backward)
{
    const dure_cpu_ops *ops = dure_cpu_ops_of(dure_cpu_best());
    const float sign = backward ? -1.0f : 1.0f;
    const size_t cut = table->halves ? LD : 12;
    dure_rope rope = {.table = table, .position = position, .head_dim = HEAD};
    for (size_t r = 0; r < ROWS; r++) {
        dure_rope_turn(x + r * LD, cut, &rope, r, 0, sign, ops);
        dure_rope_turn(x + r * LD + cut, LD - cut, &rope, r, cut, sign, ops);
    }
}

/* The rotation of `opts` with the frequencies given. */
static void check_turn(const dure_rope_opts *opts, const double frequency[DIM / 2],
                       double magnitude)
{
    float x[ROWS * LD], y[ROWS * LD];
    dure_rope_table table;
    assert_ok(dure_rope_table_init(&table, opts));
    assert_ok(dure_rope_table_reserve(&table, 2)); /* grows where it stands */
    assert_ok(dure_rope_table_reserve(&table, POSITIONS));
    fill(x, 1);
    memcpy(y, x, sizeof x);
    apply(y, &table, false);
    for (size_t r = 0; r < ROWS; r++)
        for (size_t h = 0; h < HEADS; h++) {
            const float *from = x + r * LD + h * HEAD, *to = y + r * LD + h * HEAD;
            for (size_t i = 0; i < DIM / 2; i++) {
                size_t a = opts->halves ? i : 2 * i, b = opts->halves ? i + DIM / 2 : 2 * i + 1;
                double angle = position[r] * frequency[i], p = (double)from[a], q = (double)from[b];
                assert_true(fabs((double)to[a] - magnitude * (p * cos(angle) - q * sin(angle))) <
                            1e-6);
                assert_true(fabs((double)to[b] - magnitude * (p * sin(angle) + q * cos(angle))) <
                            1e-6);
            }
            for (size_t i = DIM; i < HEAD; i++) /* past the rotated elements */
                assert_true(to[i] == from[i]);
        }
    dure_rope_table_fini(&table);
}

static void test_rope_turns_adjacent_pairs(void **state)
{
    (void)state;
    const dure_rope_opts opts = {.dim = DIM, .freq_base = 100};
    check_turn(&opts, (double[]){1, pow(100, -0.25), 0.1, pow(100, -0.75)}, 1);
}

static void test_rope_turns_halves(void **state)
{
    (void)state;
    const dure_rope_opts opts = {.dim = DIM, .freq_base = 100, .halves = true};
    check_turn(&opts, (double[]){1, pow(100, -0.25), 0.1, pow(100, -0.75)}, 1);
}

static void test_rope_divides_by_factors_and_stretch(void **state)
{
    (void)state;
    const dure_rope_opts opts = {.dim = DIM, .freq_base = 100, .factors = factors, .stretch = 4};
    check_turn(&opts, (double[]){0.25, pow(100, -0.25) / 8, 0.1 / 16, pow(100, -0.75) / 32}, 1);
}

/* transformers' _compute_yarn_parameters() for head_dim 8, rope_theta 10000, factor 4, original
 * context 512 (pairs 0 to 2 are mixed) gives these inverse frequencies and this magnitude. */
static void test_rope_yarn_gives_the_frequencies_of_transformers(void **state)
{
    (void)state;
    const dure_rope_opts opts = {.dim = DIM,
                                 .freq_base = 10000,
                                 .halves = true,
                                 .stretch = 4,
                                 .yarn = {.fast = 32, .slow = 1, .context = 512},
                                 .magnitude = 1.138629436111989};
    check_turn(&opts, (double[]){1, 0.0625, 0.0025, 0.00025}, 1.138629436111989);
}

/* What backward gives is the gradient of what forward does, magnitude and all. */
static void check_gradient(bool halves)
{
    const dure_rope_opts opts = {.dim = DIM, .freq_base = 100, .halves = halves, .magnitude = 1.25};
    float x[ROWS * LD], dy[ROWS * LD], dx[ROWS * LD], moved[ROWS * LD];
    dure_rope_table table;
    assert_ok(dure_rope_table_init(&table, &opts));
    assert_ok(dure_rope_table_reserve(&table, POSITIONS));
    fill(x, 2);
    fill(dy, 3);
    memcpy(dx, dy, sizeof dx);
    apply(dx, &table, true);
    for (size_t i = 0; i < ROWS * LD; i += 7) {
        double slope = 0;
        for (int side = -1; side <= 1; side += 2) {
            memcpy(moved, x, sizeof moved);
            moved[i] += (float)side * 0.125f; /* the map is linear, so any step will do */
            float step = moved[i] - x[i];
            apply(moved, &table, false);
            for (size_t j = 0; j < ROWS * LD; j++)
                slope += (double)moved[j] * (double)dy[j] / (2 * (double)step);
        }
        assert_true(fabs(slope - (double)dx[i]) < 1e-4);
    }
    dure_rope_table_fini(&table);
}

static void test_rope_backward_is_the_gradient(void **state)
{
    (void)state;
    check_gradient(false);
    check_gradient(true);
}

static void test_rope_refuses_a_table_too_large(void **state)
{
    (void)state;
    dure_rope_table table;
    const dure_rope_opts opts = {.dim = 8, .freq_base = 100};
    assert_ok(dure_rope_table_init(&table, &opts));
    assert_ok(dure_rope_table_reserve(&table, 3));
    assert_err(dure_rope_table_reserve(&table, SIZE_MAX / 2), DURE_ERR_LIMIT);
    assert_int_equal(table.positions, 3);
    dure_rope_table_fini(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rope_turns_adjacent_pairs),
        cmocka_unit_test(test_rope_turns_halves),
        cmocka_unit_test(test_rope_divides_by_factors_and_stretch),
        cmocka_unit_test(test_rope_yarn_gives_the_frequencies_of_transformers),
        cmocka_unit_test(test_rope_backward_is_the_gradient),
        cmocka_unit_test(test_rope_refuses_a_table_too_large),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
