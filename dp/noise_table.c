#include "dp/noise_table.h"

#include "dp/fixed.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned __int128 wide;

/* Magnitudes up to this many standard deviations have mass, in halves: 12.5. */
#define TAIL_HALVES 25
#define SIGMA_LEAST 16
#define SIGMA_BITS_MOST 23
/* The largest sigma of a table of 2^14 columns; of 2^15 twice that. */
#define SIGMA_ONE_TABLE 1310
/* sqrt(5) times this is twice SIGMA_ONE_TABLE. */
#define STRIDE_HANDY 1172
#define COLUMN_BITS_MOST 16
/* Terms of the cell integral's series in (m / sigma^2)^2 and in 1 / sigma^2. */
#define SERIES_TERMS 18

#define COMPARED UINT64_C(0x7fffffffffff0000)
#define COMPARED_BITS 47
#define ALIAS UINT64_C(0xffff)

/* ---- Weights ---- */

/* sigma^2 = num / 4^shift */
typedef struct variance {
    wide num;
    uint32_t shift;
} variance;

/* exp(-m^2 / (2 sigma^2)) for m = 0, 1, 2, ... by the ratios of neighbours, exp(-(2 m + 1) / (2
 * sigma^2)), which fall by the same factor each time. */
typedef struct bell {
    dure_fixed at, ratio, factor;
} bell;

static dure_fixed inverse_of(variance v)
{
    return dure_fixed_ratio((wide)1 << 2 * v.shift, v.num);
}

static bell bell_of(variance v)
{
    dure_fixed inverse = inverse_of(v);
    return (bell){.at = dure_fixed_of(1),
                  .ratio = dure_fixed_exp_minus(dure_fixed_over(inverse, 2)),
                  .factor = dure_fixed_exp_minus(inverse)};
}

static void bell_next(bell *b)
{
    b->at = dure_fixed_mul(b->at, b->ratio);
    b->ratio = dure_fixed_mul(b->ratio, b->factor);
}

/* The integral of exp(-t^2 / (2 sigma^2)) over a cell around m is exp(-m^2 / (2 sigma^2)) times
 *   integral of cosh(m t / sigma^2) exp(-t^2 / (2 sigma^2)) over [-1/2, 1/2],
 * a series in z^2 = (m / sigma^2)^2 whose coefficient j is 1 / (2 j)! times
 *   sum over k of (-1 / (2 sigma^2))^k / k! / (4^(j + k) (2 (j + k) + 1)). */
typedef struct cell_series {
    dure_fixed coefficient[SERIES_TERMS];
    dure_fixed inverse_square; /* 1 / sigma^4 */
} cell_series;

static cell_series cell_series_of(variance v)
{
    cell_series c;
    dure_fixed inverse = inverse_of(v), half = dure_fixed_over(inverse, 2);
    c.inverse_square = dure_fixed_mul(inverse, inverse);
    dure_fixed outer = dure_fixed_of(1); /* 1 / (2 j)! / 4^j */
    for (uint64_t j = 0; j < SERIES_TERMS; j++) {
        dure_fixed even = dure_fixed_of(0), odd = even, inner = outer;
        for (uint64_t k = 0; k < SERIES_TERMS; k++) {
            dure_fixed term = dure_fixed_over(inner, 2 * (j + k) + 1);
            if (k % 2)
                odd = dure_fixed_add(odd, term);
            else
                even = dure_fixed_add(even, term);
            inner = dure_fixed_over(dure_fixed_mul(inner, half), 4 * (k + 1));
        }
        c.coefficient[j] = dure_fixed_sub(even, odd);
        outer = dure_fixed_over(outer, 4 * (2 * j + 1) * (2 * j + 2));
    }
    return c;
}

static dure_fixed cell_at(const cell_series *c, uint64_t m)
{
    dure_fixed square = dure_fixed_times(c->inverse_square, m * m);
    dure_fixed sum = c->coefficient[SERIES_TERMS - 1];
    for (int j = SERIES_TERMS - 2; j >= 0; j--)
        sum = dure_fixed_add(dure_fixed_mul(sum, square), c->coefficient[j]);
    return sum;
}

/* weights[m], m < n: the density at m, or over its cell; twice that of m > 0, for both signs.
 * Returns the sum. */
static dure_fixed weigh(dure_fixed *weights, size_t n, variance v, bool cells)
{
    bell b = bell_of(v);
    cell_series series = {.inverse_square = dure_fixed_of(0)};
    dure_fixed sum = dure_fixed_of(0);
    if (cells) series = cell_series_of(v);
    for (size_t m = 0; m < n; m++) {
        weights[m] = cells ? dure_fixed_mul(b.at, cell_at(&series, m)) : b.at;
        if (m > 0) weights[m] = dure_fixed_times(weights[m], 2);
        sum = dure_fixed_add(sum, weights[m]);
        bell_next(&b);
    }
    return sum;
}

/* ---- The alias table ---- */

/* masses[m] = floor(2^128 weight / sum); what is left of 2^128, less than n, goes to the first
 * ones, a unit each. DURE_ERR_LIMIT if more is left than cutting off leaves: a bug. */
static dure_err share_out(wide *masses, const dure_fixed *weights, size_t n, dure_fixed sum)
{
    dure_fixed inverse = dure_fixed_inverse(sum);
    wide left = 0; /* of 2^128 */
    for (size_t m = 0; m < n; m++) {
        dure_fixed share = dure_fixed_mul(weights[m], inverse);
        masses[m] = (wide)share.limb[3] << 64 | share.limb[2];
        left -= masses[m];
    }
    if (left > n) return DURE_ERR_LIMIT;
    for (size_t m = 0; m < left; m++)
        masses[m]++;
    return DURE_OK;
}

/* Vose's two stacks, in one array from both ends. Every column ends up with exactly its capacity,
 * since masses and capacity are integers and add up. */
static void build_columns(dure_noise_part *part, wide *masses, uint32_t *stack)
{
    size_t columns = (size_t)1 << part->bits, small = 0, large = columns;
    wide capacity = (wide)1 << (128 - part->bits);
    for (size_t c = 0; c < columns; c++) {
        if (masses[c] < capacity)
            stack[small++] = (uint32_t)c;
        else
            stack[--large] = (uint32_t)c;
    }
    while (small > 0 && large < columns) {
        uint32_t low = stack[--small], high = stack[large];
        part->threshold[low] = masses[low];
        part->entry[low] = high;
        masses[high] -= capacity - masses[low];
        if (masses[high] >= capacity) continue;
        large++;
        stack[small++] = high;
    }
    /* What is left is full: it stands for itself, whatever the comparison says. */
    for (; large < columns; large++)
        part->entry[stack[large]] = stack[large];
    for (size_t c = 0; c < columns; c++)
        part->entry[c] |= (uint64_t)(part->threshold[c] >> (128 - part->bits - COMPARED_BITS))
                          << 16;
}

static void part_fini(dure_noise_part *part)
{
    free(part->entry);
    free(part->threshold);
}

/* floor of 12.5 sigma, plus 1 for the magnitude 0 and 1 for the cut-off root. */
static size_t magnitudes(variance v)
{
    size_t root = 0; /* of 625 sigma^2, which is (25 sigma)^2, by bits */
    wide square = v.num * (TAIL_HALVES * TAIL_HALVES) >> 2 * v.shift;
    for (size_t bit = (size_t)1 << 20; bit; bit >>= 1) {
        if ((wide)(root + bit) * (root + bit) <= square) root += bit;
    }
    return root / 2 + 2;
}

static dure_err part_init(dure_noise_part *part, variance v, bool cells)
{
    part->n = magnitudes(v);
    while ((size_t)1 << part->bits < part->n)
        part->bits++;
    if (part->bits > COLUMN_BITS_MOST) return DURE_ERR_LIMIT;
    size_t columns = (size_t)1 << part->bits;
    part->entry = calloc(columns, sizeof *part->entry);
    part->threshold = calloc(columns, sizeof *part->threshold);
    dure_fixed *weights = calloc(part->n, sizeof *weights);
    wide *masses = calloc(columns, sizeof *masses);
    uint32_t *stack = calloc(columns, sizeof *stack);
    dure_err err = DURE_ERR_NOMEM;
    if (part->entry && part->threshold && weights && masses && stack) {
        dure_fixed sum = weigh(weights, part->n, v, cells);
        err = share_out(masses, weights, part->n, sum);
    }
    if (!err) build_columns(part, masses, stack);
    free(weights);
    free(masses);
    free(stack);
    return err;
}

/* ---- Tables that are shared ---- */

static void table_free(dure_noise_table *t)
{
    part_fini(&t->coarse);
    part_fini(&t->fine);
    free(t);
}

/* w: as small as keeps Y's table at 2^14 columns, or the larger ones for which U's is no larger. */
static uint64_t stride_for(uint64_t sigma)
{
    uint64_t most = SIGMA_ONE_TABLE, w = (sigma + most - 1) / most;
    for (int doubled = 0; doubled < 2 && w > STRIDE_HANDY; doubled++) {
        most *= 2;
        w = (sigma + most - 1) / most;
    }
    return w;
}

static dure_err table_new(dure_noise_table **out, dure_noise_scale scale)
{
    dure_noise_table *t = calloc(1, sizeof *t);
    if (!t) return DURE_ERR_NOMEM;
    t->scale = scale;
    variance whole = {(wide)scale.num * scale.num, scale.shift}, coarse = whole, fine = whole;
    uint64_t ceiling = (scale.num + ((uint64_t)1 << scale.shift) - 1) >> scale.shift;
    dure_err err = DURE_OK;
    if (ceiling > SIGMA_ONE_TABLE) {
        t->w = stride_for(ceiling);
        wide square = (wide)t->w * t->w;
        coarse.num = (whole.num - (4 * square << 2 * scale.shift)) / square;
        fine.num = whole.num - coarse.num * square;
        err = part_init(&t->coarse, coarse, false);
    }
    if (!err) err = part_init(&t->fine, fine, true);
    if (err) {
        table_free(t);
        return err;
    }
    *out = t;
    return DURE_OK;
}

bool dure_noise_table_serves(dure_noise_scale scale)
{
    uint64_t floor = scale.num >> scale.shift;
    return floor >= SIGMA_LEAST && floor >> SIGMA_BITS_MOST == 0;
}

/* The table that was used last stays, for the next step of the same plan. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static dure_noise_table *kept;

static void drop(dure_noise_table *t)
{
    if (--t->users == 0) table_free(t);
}

dure_err dure_noise_table_take(const dure_noise_table **out, dure_noise_scale scale)
{
    dure_err err = DURE_OK;
    *out = NULL;
    pthread_mutex_lock(&lock);
    if (!kept || kept->scale.num != scale.num || kept->scale.shift != scale.shift) {
        dure_noise_table *made = NULL;
        err = table_new(&made, scale);
        if (!err) {
            if (kept) drop(kept);
            kept = made;
            kept->users = 1;
        }
    }
    if (!err) {
        kept->users++;
        *out = kept;
    }
    pthread_mutex_unlock(&lock);
    return err;
}

void dure_noise_table_release(const dure_noise_table **table)
{
    if (!*table) return;
    union {
        const dure_noise_table *shared;
        dure_noise_table *own;
    } t = {.shared = *table};
    pthread_mutex_lock(&lock);
    drop(t.own);
    pthread_mutex_unlock(&lock);
    *table = NULL;
}

/* ---- Drawing ---- */

/* Bits past those that were equal: 128 of them, of which the column needs 81 - bits. */
static dure_err break_tie(uint64_t *magnitude, const dure_noise_part *part, size_t column,
                          const dure_rng *rng)
{
    wide further = 0, mask = ((wide)1 << (128 - part->bits - COMPARED_BITS)) - 1;
    dure_err err = dure_rng_fill(rng, &further, sizeof further);
    bool own = (further & mask) < (part->threshold[column] & mask);
    *magnitude = own ? column : part->entry[column] & ALIAS;
    explicit_bzero(&further, sizeof further);
    return err;
}

/* One draw of a part from one word; *err is set, and else left, where further bits fail. */
static inline int64_t look_up(const dure_noise_part *part, uint64_t word, const dure_rng *rng,
                              dure_err *err)
{
    size_t column = word & (((size_t)1 << part->bits) - 1);
    uint64_t entry = part->entry[column], compared = word & COMPARED;
    /* A mask, not a branch: the outcome is as good as random. */
    uint64_t own = -(uint64_t)(compared < (entry & COMPARED));
    uint64_t magnitude = (column & own) | (entry & ALIAS & ~own);
    if (__builtin_expect(compared == (entry & COMPARED), 0)) {
        dure_err failed = break_tie(&magnitude, part, column, rng);
        if (failed) *err = failed;
    }
    uint64_t sign = -(word >> 63);
    return (int64_t)((magnitude ^ sign) - sign);
}

dure_err dure_noise_table_draw(int64_t *out, size_t n, const dure_noise_table *table,
                               const dure_rng *rng)
{
    uint64_t words[2 * DURE_NOISE_BLOCK];
    size_t each = table->w ? 2 : 1;
    dure_err err = dure_rng_fill(rng, words, each * n * sizeof *words);
    if (err) return err;
    bool stuck =
        each * n >= 4 && words[0] == words[1] && words[1] == words[2] && words[2] == words[3];
    if (stuck) err = DURE_ERR_RNG;
    for (size_t i = 0; i < n; i++)
        out[i] = look_up(&table->fine, words[each * i], rng, &err);
    for (size_t i = 0; table->w && i < n; i++)
        out[i] += (int64_t)table->w * look_up(&table->coarse, words[2 * i + 1], rng, &err);
    explicit_bzero(words, sizeof words);
    return err;
}
