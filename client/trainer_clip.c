#include "client/trainer_int.h"

#include "dp/quantize.h"

#include <math.h>

/* One record's gradient on its way into the sum, a piece of coordinates a task. */
typedef struct clip_job {
    dure_trainer *t;
    const float *gradient;
    double scale;
} clip_job;

static size_t length_of(const dure_trainer *t, size_t first)
{
    return t->n - first < DURE_QUANTIZE_PIECE ? t->n - first : DURE_QUANTIZE_PIECE;
}

static void square_pieces(void *state, size_t first, size_t last, void *scratch)
{
    const clip_job *job = state;
    (void)scratch;
    for (size_t p = first; p < last; p++) {
        size_t at = p * DURE_QUANTIZE_PIECE;
        job->t->piece_norms[p] = dure_quantize_square(job->gradient + at, length_of(job->t, at));
    }
}

static void add_pieces(void *state, size_t first, size_t last, void *scratch)
{
    const clip_job *job = state;
    dure_trainer *t = job->t;
    (void)scratch;
    for (size_t p = first; p < last; p++) {
        size_t at = p * DURE_QUANTIZE_PIECE;
        t->piece_squares[p] =
            dure_quantize_add_piece(t->sum + at, job->gradient + at, length_of(t, at), job->scale);
    }
}

/* One more coordinate of what the unit adds, of at most one clip like the others together. */
void dure_trainer_add_count(dure_trainer *t, double norm_square)
{
    const dure_dp_plan *plan = &t->now;
    if (plan->adaptive.count_sigma_num == 0) return;
    int64_t grid = (int64_t)1 << plan->grid_bits;
    t->count += norm_square <= plan->clip * plan->clip ? grid : -grid;
}

bool dure_trainer_add_clipped(dure_trainer *t, const float *gradient)
{
    const dure_compute *c = dure_transformer_compute(t->model);
    size_t pieces = (t->n + DURE_QUANTIZE_PIECE - 1) / DURE_QUANTIZE_PIECE;
    clip_job job = {.t = t, .gradient = gradient};
    double norm_square = 0;
    uint64_t squares = 0;
    /* The gradient is read twice, the sum once, and that is written. */
    dure_profile_work(c->profile, 0, (double)t->n * (2 * sizeof(float) + 2 * sizeof *t->sum));
    dure_compute_rows(c, pieces, 1, square_pieces, &job);
    for (size_t p = 0; p < pieces; p++)
        norm_square += t->piece_norms[p];
    if (!dure_quantize_scale(&job.scale, norm_square, t->n, &t->now)) return false;
    dure_compute_rows(c, pieces, 1, add_pieces, &job);
    for (size_t p = 0; p < pieces; p++)
        squares += t->piece_squares[p];
    if (!dure_quantize_fits(squares, &t->now)) {
        dure_quantize_take_back(t->sum, gradient, t->n, job.scale);
        return false;
    }
    dure_trainer_add_count(t, norm_square);
    return true;
}

static void total_pieces(void *state, size_t first, size_t last, void *scratch)
{
    const clip_job *job = state;
    dure_trainer *t = job->t;
    (void)scratch;
    for (size_t p = first; p < last; p++) {
        size_t at = p * DURE_QUANTIZE_PIECE, end = at + length_of(t, at);
        double nothing = 0; /* becomes NaN if one is not finite */
        for (size_t i = at; i < end; i++) {
            t->total[i] += (double)job->gradient[i];
            nothing += (double)job->gradient[i] * 0;
        }
        t->piece_norms[p] = nothing;
    }
}

bool dure_trainer_add_plain(dure_trainer *t, const float *gradient)
{
    size_t pieces = (t->n + DURE_QUANTIZE_PIECE - 1) / DURE_QUANTIZE_PIECE;
    clip_job job = {.t = t, .gradient = gradient};
    const dure_compute *c = dure_transformer_compute(t->model);
    double nothing = 0;
    dure_profile_work(c->profile, 0, (double)t->n * (sizeof(float) + 2 * sizeof *t->total));
    dure_compute_rows(c, pieces, 1, total_pieces, &job);
    for (size_t p = 0; p < pieces; p++)
        nothing += t->piece_norms[p];
    return !isnan(nothing);
}
