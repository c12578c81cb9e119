#include "dp/noise.h"

#include "dp/noise_exact.h"
#include "dp/noise_share.h"
#include "dp/noise_table.h"

#include <math.h>
#include <string.h>

#define SCALE_NUM_BITS 44
#define SCALE_SHIFT_MAX 32

/* sigma_num 2^grid_bits / 2^16; the grid has 14 bits at least. */
static dure_noise_scale scale_of(uint32_t sigma_num, uint32_t grid_bits)
{
    if (grid_bits >= 16) return (dure_noise_scale){(uint64_t)sigma_num << (grid_bits - 16), 0};
    return (dure_noise_scale){sigma_num, 16 - grid_bits};
}

dure_noise_scale dure_noise_scale_of(const dure_dp_plan *plan)
{
    return scale_of(plan->sigma_num, plan->grid_bits);
}

dure_noise_scale dure_noise_scale_of_count(const dure_dp_plan *plan)
{
    return scale_of(plan->adaptive.count_sigma_num, plan->grid_bits);
}

double dure_noise_distance(dure_noise_scale scale)
{
    return dure_noise_table_serves(scale) ? DURE_NOISE_TABLE_DISTANCE : 0;
}

double dure_noise_delta(const dure_dp_plan *plan, double epsilon)
{
    if (plan->grid_bits < DURE_DP_GRID_BITS_MIN) return 0;
    if (plan->mechanism == DURE_DP_SITE_GAUSSIAN) return dure_share_delta(plan, epsilon);
    double n_params = ldexp(1, 2 * ((int)plan->grid_bits - 6)); /* dure_dp_grid_bits() */
    double distance = dure_noise_distance(dure_noise_scale_of(plan));
    return distance == 0 ? 0 : (1 + exp(epsilon)) * n_params * (double)plan->steps * distance;
}

/* Draws by the block, with the sampler that serves the scale. */
typedef struct source {
    const dure_rng *rng;
    const dure_noise_table *table; /* NULL: exact */
    dure_noise_exact exact;
    int64_t block[DURE_NOISE_BLOCK];
} source;

/* Refuses a scale out of range; nothing is drawn yet. */
static dure_err start(source *s, dure_noise_scale scale, const dure_rng *rng)
{
    s->rng = rng;
    s->table = NULL;
    if (scale.num >> SCALE_NUM_BITS || scale.shift > SCALE_SHIFT_MAX) return DURE_ERR_USAGE;
    dure_noise_exact_init(&s->exact, scale, rng);
    return dure_noise_table_serves(scale) ? dure_noise_table_take(&s->table, scale) : DURE_OK;
}

/* The next n <= DURE_NOISE_BLOCK draws, in s->block. */
static dure_err next_block(source *s, size_t n)
{
    if (s->table) return dure_noise_table_draw(s->block, n, s->table, s->rng);
    return dure_noise_exact_draw(s->block, n, &s->exact);
}

/* Wipes what was drawn, and the output if anything failed. */
static dure_err finish(source *s, dure_err err, void *out, size_t bytes)
{
    dure_noise_table_release(&s->table);
    if (err) memset(out, 0, bytes);
    explicit_bzero(s, sizeof *s);
    return err;
}

static size_t block_at(size_t first, size_t n)
{
    return n - first < DURE_NOISE_BLOCK ? n - first : DURE_NOISE_BLOCK;
}

dure_err dure_noise_fill(int64_t *out, size_t n, dure_noise_scale scale, const dure_rng *rng)
{
    memset(out, 0, n * sizeof *out);
    return dure_noise_add(out, n, scale, rng);
}

dure_err dure_noise_one(int64_t *out, dure_noise_scale scale, const dure_rng *rng)
{
    source s = {.rng = rng};
    *out = 0;
    if (scale.num >> SCALE_NUM_BITS || scale.shift > SCALE_SHIFT_MAX) return DURE_ERR_USAGE;
    dure_noise_exact_init(&s.exact, scale, rng);
    dure_err err = scale.num ? dure_noise_exact_draw(s.block, 1, &s.exact) : DURE_OK;
    if (!err && scale.num) *out = s.block[0];
    return finish(&s, err, out, sizeof *out);
}

dure_err dure_noise_add(int64_t *sum, size_t n, dure_noise_scale scale, const dure_rng *rng)
{
    source s;
    dure_err err = start(&s, scale, rng);
    for (size_t first = 0; !err && scale.num && first < n; first += DURE_NOISE_BLOCK) {
        size_t here = block_at(first, n);
        err = next_block(&s, here);
        for (size_t i = 0; !err && i < here; i++)
            sum[first + i] += s.block[i];
    }
    return finish(&s, err, sum, n * sizeof *sum);
}
