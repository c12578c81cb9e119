/* The tables against the distributions that docs/noise.md says they have: every entry, in 128-bit
 * floats, by other formulas than those that made them. */
#include "dp/noise_table.h"
#include "support/check.h"
#include "support/seeded_rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef _Float128 real;
typedef unsigned __int128 wide;

static const dure_noise_scale scales[] = {
    {16, 0},      {1000, 0},    {5239, 2}, /* one table */
    {1311, 0},    {52429, 2},   {52429, 1},   {104858, 0},
    {314573, 0},  {1 << 20, 0}, {1572864, 0}, {(UINT64_C(1) << 43) - 1, 21},
    {8388607, 0},
};
enum { SCALES = sizeof scales / sizeof *scales };

static const dure_noise_table *take(dure_noise_scale scale)
{
    const dure_noise_table *table = NULL;
    assert_ok(dure_noise_table_take(&table, scale));
    return table;
}

/* What a part's columns give each magnitude, in 2^-128; *sum is 0 if they add up to 1. */
static wide *masses_of(const dure_noise_part *part, wide *sum)
{
    size_t columns = (size_t)1 << part->bits;
    wide *masses = calloc(columns, sizeof *masses), capacity = (wide)1 << (128 - part->bits);
    assert_non_null(masses);
    *sum = 0;
    for (size_t c = 0; c < columns; c++) {
        size_t alias = part->entry[c] & 0xffff;
        wide own = part->threshold[c];
        assert_true(own < capacity && alias < columns);
        assert_true(part->entry[c] >> 16 == (uint64_t)(own >> (81 - part->bits)));
        masses[c] += own;
        masses[alias] += capacity - own;
    }
    for (size_t c = 0; c < columns; c++) {
        *sum += masses[c];
        assert_true(c < part->n || masses[c] == 0);
    }
    return masses;
}

/* exp(-t^2 / (2 sigma^2)) over a cell around m by the five-point rule of Gauss and Legendre. */
static real cell(real m, real square, int parts)
{
    static const int sign[] = {-1, 1};
    real root = sqrtf128(10.0f128 / 7), sum = 0, half = 0.5f128 / parts;
    for (int i = 0; i < parts; i++) {
        real t = m - 0.5f128 + (2 * i + 1) * half;
        sum += 128.0f128 / 225 * expf128(-t * t / (2 * square));
        for (int k = 0; k < 4; k++) {
            real s = sign[k / 2], inner = sqrtf128(5 + s * 2 * root) / 3;
            real x = t + sign[k % 2] * half * inner;
            sum += (322 - s * 13 * sqrtf128(70)) / 900 * expf128(-x * x / (2 * square));
        }
    }
    return sum * half;
}

static real root_of_two_pi(void)
{
    return sqrtf128(2 * M_PIf128);
}

/* Probability of the magnitude m: the cell's of N(0, square), or the discrete Gaussian's, whose
 * normaliser is sqrt(2 pi square) but for a part e^(-2 pi^2 square) that no float can show. */
static real ideal(size_t m, real square, bool cells)
{
    real at = (real)m, weight = m > 0 ? 2 : 1, norm = root_of_two_pi() * sqrtf128(square);
    if (!cells) return weight * expf128(-at * at / (2 * square)) / norm;
    return weight * cell(at, square, square < 250000 ? 64 : 3) / norm;
}

/* Half the sum of the differences, entry by entry, and the ideal mass beyond the last. */
static real distance(const dure_noise_part *part, real square, bool cells)
{
    wide sum;
    wide *masses = masses_of(part, &sum);
    assert_true(sum == 0);
    real apart = 0;
    for (size_t m = 0; m < part->n; m++)
        apart += fabsf128((real)masses[m] * 0x1p-128f128 - ideal(m, square, cells));
    free(masses);
    real edge = (real)part->n - (cells ? 0.5f128 : 1);
    return apart / 2 + erfcf128(edge / sqrtf128(2 * square));
}

typedef struct variances {
    real whole, coarse, fine;
} variances;

/* As noise_table.h has it: fine from 4 w^2 on, as little more as makes the coarse one whole. */
static variances variances_of(const dure_noise_table *t)
{
    wide whole = (wide)t->scale.num * t->scale.num, square = (wide)t->w * t->w;
    real unit = scalbnf128(1, -2 * (int)t->scale.shift);
    if (t->w == 0) return (variances){(real)whole * unit, 0, (real)whole * unit};
    wide coarse = (whole - (4 * square << 2 * t->scale.shift)) / square;
    return (variances){(real)whole * unit, (real)coarse * unit,
                       (real)(whole - coarse * square) * unit};
}

/* docs/noise.md, section 2: how far w Y + U is from the ideal if Y and U are as they should be. */
static real lattice_distance(const dure_noise_table *t, variances v)
{
    if (t->w == 0) return 0;
    real s = v.coarse * v.fine / v.whole;
    return 1.001f128 *
           (expf128(-2 * M_PIf128 * M_PIf128 * s) + expf128(-2 * M_PIf128 * M_PIf128 * v.coarse));
}

static void test_noise_table_is_within_its_distance(void **state)
{
    (void)state;
    for (size_t i = 0; i < SCALES; i++) {
        const dure_noise_table *t = take(scales[i]);
        variances v = variances_of(t);
        real apart = distance(&t->fine, v.fine, true) + lattice_distance(t, v);
        if (t->w) apart += distance(&t->coarse, v.coarse, false);
        if (!(apart < DURE_NOISE_TABLE_DISTANCE))
            fail_msg("scale %zu: 2^%.1f", i, log2((double)apart));
        assert_true(dure_noise_distance(scales[i]) == DURE_NOISE_TABLE_DISTANCE);
        dure_noise_table_release(&t);
    }
}

/* P(w Y + U = m), summed over the columns' masses. */
static real composed(const dure_noise_table *t, const wide *coarse, const wide *fine, int64_t m)
{
    real sum = 0;
    for (int64_t y = -(int64_t)t->coarse.n + 1; y < (int64_t)t->coarse.n; y++) {
        int64_t u = m - (int64_t)t->w * y;
        if (llabs(u) >= (int64_t)t->fine.n) continue;
        real p = (real)coarse[llabs(y)] * (y ? 0.5f128 : 1);
        sum += p * (real)fine[llabs(u)] * (u ? 0.5f128 : 1);
    }
    return sum * 0x1p-128f128 * 0x1p-128f128;
}

/* The whole of it, at points of the bulk and of the tail, against the cell of N(0, sigma^2). */
static void test_noise_tables_compose_to_the_rounded_normal(void **state)
{
    (void)state;
    for (size_t i = 3; i < SCALES; i++) {
        const dure_noise_table *t = take(scales[i]);
        variances v = variances_of(t);
        wide sum;
        wide *coarse = masses_of(&t->coarse, &sum), *fine = masses_of(&t->fine, &sum);
        real sigma = sqrtf128(v.whole);
        for (int k = 0; k < 40; k++) {
            int64_t m = (int64_t)(sigma * k / 5) + k % 3;
            real expected = cell((real)m, v.whole, 3) / root_of_two_pi() / sigma;
            real found = composed(t, coarse, fine, m);
            /* Masses are right to 2^-128 each, of which some 1,300 are summed. */
            assert_true(fabsf128(found - expected) <= 0x1p-100f128 * expected + 0x1p-117f128);
            real mirrored = composed(t, coarse, fine, -m);
            assert_true(fabsf128(found - mirrored) <= 0x1p-100f128 * found);
        }
        free(coarse);
        free(fine);
        dure_noise_table_release(&t);
    }
}

static void test_noise_table_serves_what_it_says(void **state)
{
    (void)state;
    assert_false(dure_noise_table_serves((dure_noise_scale){15, 0}));
    assert_false(dure_noise_table_serves((dure_noise_scale){63, 2}));
    assert_true(dure_noise_table_serves((dure_noise_scale){64, 2}));
    assert_true(dure_noise_table_serves((dure_noise_scale){(1 << 23) - 1, 0}));
    assert_false(dure_noise_table_serves((dure_noise_scale){1 << 23, 0}));
    assert_true(dure_noise_distance((dure_noise_scale){15, 0}) == 0);
}

static void test_noise_table_is_shared(void **state)
{
    (void)state;
    const dure_noise_table *a = take((dure_noise_scale){5000, 0});
    const dure_noise_table *b = take((dure_noise_scale){5000, 0});
    assert_ptr_equal(a, b);
    /* Another scale takes its place; who holds the first keeps it. */
    const dure_noise_table *c = take((dure_noise_scale){6000, 0});
    assert_ptr_not_equal(a, c);
    assert_int_equal(a->scale.num, 5000);
    dure_noise_table_release(&a);
    dure_noise_table_release(&b);
    dure_noise_table_release(&c);
    assert_null(a);
    dure_noise_table_release(&a);
}

/* The word that a column's threshold begins with. */
static uint64_t word_at(const dure_noise_part *part, size_t column, int64_t beside, int negative)
{
    uint64_t first = (part->entry[column] >> 16) + (uint64_t)beside;
    return (uint64_t)negative << 63 | first << 16 | column;
}

static int64_t draw_words(const dure_noise_table *t, const uint64_t *words, size_t n)
{
    uint32_t halves[16];
    int64_t v = -1;
    played_rng playing;
    memcpy(halves, words, n * sizeof *words);
    dure_rng rng = played_rng_of(&playing, halves, 2 * n);
    assert_ok(dure_noise_table_draw(&v, 1, t, &rng));
    return v;
}

static void test_noise_table_compares_and_breaks_ties(void **state)
{
    (void)state;
    const dure_noise_table *t = take((dure_noise_scale){1000, 0});
    const dure_noise_part *part = &t->fine;
    size_t column = 700;
    while ((part->entry[column] & 0xffff) == column || part->entry[column] >> 17 == 0)
        column++;
    int64_t alias = (int64_t)(part->entry[column] & 0xffff);
    uint64_t below = word_at(part, column, -1, 0), above = word_at(part, column, 1, 1);
    assert_int_equal(draw_words(t, &below, 1), (int64_t)column);
    assert_int_equal(draw_words(t, &above, 1), -alias);
    /* On a tie 128 more bits decide, of which the low 81 - bits count. */
    wide low = part->threshold[column] & (((wide)1 << (81 - part->bits)) - 1);
    assert_true(low > 0);
    uint64_t words[3] = {word_at(part, column, 0, 0), (uint64_t)low, (uint64_t)(low >> 64)};
    assert_int_equal(draw_words(t, words, 3), alias);
    words[1]--;
    assert_int_equal(draw_words(t, words, 3), (int64_t)column);
    dure_noise_table_release(&t);
}

static void test_noise_table_adds_the_coarse_part(void **state)
{
    (void)state;
    const dure_noise_table *t = take((dure_noise_scale){26214, 0});
    assert_int_equal(t->w, 21);
    uint64_t words[2] = {word_at(&t->fine, 5, -1, 1), word_at(&t->coarse, 3, -1, 0)};
    assert_true(t->fine.entry[5] >> 16 && t->coarse.entry[3] >> 16);
    assert_int_equal(draw_words(t, words, 2), 3 * 21 - 5);
    dure_noise_table_release(&t);
}

/* A resumed attempt must draw the bits it drew, on any machine: these are what the tables give for
 * one stream. */
static void test_noise_of_a_stream_is_what_it_always_was(void **state)
{
    (void)state;
    const struct {
        dure_noise_scale scale;
        int64_t first[4], last;
    } expected[] = {
        {{1000, 0}, {-822, 1026, 615, 1271}, 677},
        {{52429, 2}, {12982, 16181, -4311, -8366}, -21808},
        {{26214, 0}, {25720, 32040, -8393, -16472}, -43205},
        {{1048576, 0}, {1015929, 1269138, -323766, -649001}, -1711426},
        {{8388607, 0}, {12514745, 6785994, -1788880, -5734524}, -483990},
    };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        int64_t v[1500];
        seeded_rng seeded;
        dure_rng rng = seeded_rng_of(&seeded, 2024);
        assert_ok(dure_noise_fill(v, 1500, expected[i].scale, &rng));
        for (size_t k = 0; k < 4; k++)
            assert_int_equal(v[k], expected[i].first[k]);
        assert_int_equal(v[1499], expected[i].last);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_noise_table_is_within_its_distance),
        cmocka_unit_test(test_noise_tables_compose_to_the_rounded_normal),
        cmocka_unit_test(test_noise_table_serves_what_it_says),
        cmocka_unit_test(test_noise_table_is_shared),
        cmocka_unit_test(test_noise_table_compares_and_breaks_ties),
        cmocka_unit_test(test_noise_table_adds_the_coarse_part),
        cmocka_unit_test(test_noise_of_a_stream_is_what_it_always_was),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
