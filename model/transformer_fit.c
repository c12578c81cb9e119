#include "model/transformer_int.h"

#include "kernels/peak.h"
#include "model/transformer_dropout.h"

#include <math.h>
#include <stdio.h>

/* The program itself, the vocabulary and what the allocator keeps. */
enum { BASE_BYTES = 24 << 20, LEAST_ROWS = 64 };

/* Long enough for what else the machine does to be over now and then. */
enum { PEAK_TRIES = 40 };

/* Measured (bench/bench_train, models of 135 million to 8 billion weights; dure train --profile,
 * records of 50 to 500 tokens): the shares of the multipliers' peak that products of many rows, the
 * adapter's narrow ones and attention over long records reach; the rows whose time a product takes
 * however few it has, and the tokens that do the same for attention; what else is done, by the
 * bytes of a token's activations, and how much more of that dropout and DoRA do; how long a thread
 * takes to decode a weight, or to turn a packed one; to multiply one with a row of A for the length
 * of DoRA's rows; and to clip a parameter of a record. */
static const double product_share = 0.93, adapter_share = 0.55, attention_share = 0.52,
                    lost_rows = 24, lost_tokens = 100, act_ns = 0.09, dropout_acts = 3,
                    dora_acts = 2.5, decode_ns = 0.17, turn_ns = 0.11, length_ns = 0.035,
                    clip_ns = 0.5;

/* What the choice is made for: the same on every machine and in every run, because without privacy
 * the number of rows decides in which order gradients are added up. */
static const double usual_peak = 600e9, usual_threads = 2;

typedef struct question {
    dure_transformer *t;
    const dure_training_load *load;
    double peak, threads; /* FLOP/s of all threads */
    size_t packed_bytes, file_bytes;
} question;

static size_t trained_layers(const question *q)
{
    return q->t->shape.n_layers - q->load->layout->first_layer;
}

static size_t usual_length(const question *q)
{
    return q->load->length ? q->load->length : q->load->longest;
}

/* Weights of a layer's products. */
static double layer_weights(const dure_model_shape *s)
{
    double sum = 0;
    for (int k = 0; k < DURE_LORA_TARGETS; k++)
        sum += (double)dure_lora_in(s, (dure_lora_target)k) *
               (double)dure_lora_out(s, (dure_lora_target)k);
    return sum;
}

/* Rows of the adapted matrices of a layer. */
static size_t adapted_rows(const dure_lora_layout *l)
{
    size_t sum = 0;
    for (int k = 0; k < DURE_LORA_TARGETS; k++)
        if (l->targets >> k & 1) sum += dure_lora_out(&l->shape, (dure_lora_target)k);
    return sum;
}

static dure_workspace_need need_of(const question *q, const dure_transformer_fit *fit)
{
    const dure_lora_layout *l = q->load->layout;
    size_t trained = trained_layers(q), n = dure_lora_count(l, q->load->factors);
    dure_workspace_need need = {.rows = fit->rows,
                                .keys = fit->rows,
                                .longest = fit->rows,
                                .rank = dure_lora_rank_most(l),
                                .gradients = n / trained,
                                .gradient = n,
                                .whole = fit->whole,
                                .checkpoints = fit->recompute,
                                .stored = trained - fit->recompute,
                                .dora = l->dora ? l->targets : 0};
    return need;
}

static uint64_t bytes_of(const question *q, const dure_transformer_fit *fit)
{
    const dure_model_shape *s = &q->t->shape;
    const dure_lora_layout *l = q->load->layout;
    uint64_t bytes = BASE_BYTES + (fit->packed ? q->packed_bytes : q->file_bytes) +
                     dure_workspace_bytes(q->t, need_of(q, fit)) +
                     dure_lora_count(l, DURE_LORA_FACTOR_BOTH) * sizeof(float) +
                     q->load->other_bytes;
    if (l->dora)
        bytes += trained_layers(q) * adapted_rows(l) * (sizeof(double) + 2 * sizeof(float));
    if (q->load->dropout) bytes += dure_dropout_bytes(s, fit->rows, q->t->compute.ops);
    return bytes;
}

/* Records that fit into a pass, each with a gradient of its own. */
static double most_records(const question *q, const dure_transformer_fit *fit)
{
    dure_workspace_need need = need_of(q, fit), more = need;
    if (q->load->together) return INFINITY;
    if (fit->recompute) return (double)fit->whole;
    more.stored++;
    uint64_t set = dure_workspace_bytes(q->t, more) - dure_workspace_bytes(q->t, need);
    return floor((double)set / (double)(need.gradients * sizeof(float)));
}

/* Rows of a usual pass: of records that differ in length, half of one has no room at the end, and
 * the last pass of a step takes what is left. */
static double rows_of(const question *q, const dure_transformer_fit *fit)
{
    double length = (double)usual_length(q), full = (double)fit->rows - length / 2;
    double most = most_records(q, fit) * length, step = q->load->batch * length;
    if (full > most) full = most;
    if (full < length) full = length;
    return step > 0 ? step / ceil(step / full) : full;
}

/* FLOP of a token, forward through all layers and back through `back` of them, `again` of them
 * computed a second time. Scores and values are over half of the record on average; the way back is
 * 2.5 times that. */
typedef struct flops {
    double layers, head, adapter, attention;
} flops;

static flops flops_of(const question *q, double back, double again)
{
    const dure_model_shape *s = &q->t->shape;
    double head = (double)s->n_embd * (double)q->t->head.out, labels = q->load->labels;
    double passes = s->n_layers + back + again, width = (double)s->n_head * s->head_dim;
    double params = (double)dure_lora_count(q->load->layout, DURE_LORA_FACTOR_BOTH);
    return (flops){.layers = 2 * layer_weights(s) * passes,
                   .adapter = (back > 0 ? 6 : 2) * params,
                   .head = (back > 0 ? 4 : 2) * head * (labels > 0 ? labels : 1),
                   .attention =
                       2 * (double)usual_length(q) * width * (s->n_layers + 2.5 * back + again)};
}

/* A product of few rows takes the time of more. */
static double seconds_of_flops(const question *q, flops f, double rows)
{
    double head = (double)q->t->shape.n_embd * (double)q->t->head.out;
    double products = f.layers * (1 + lost_rows / rows) + f.head + 4 * head * lost_rows / rows;
    double attention = f.attention * (1 + lost_tokens / (double)usual_length(q));
    return (products / product_share + f.adapter / adapter_share + attention / attention_share) /
           q->peak;
}

static double seconds_to_clip(const question *q)
{
    if (q->load->together) return 0;
    return (double)dure_lora_count(q->load->layout, q->load->factors) * clip_ns * 1e-9;
}

static double seconds_of(const question *q, const dure_transformer_fit *fit)
{
    const dure_model_shape *s = &q->t->shape;
    const dure_lora_layout *l = q->load->layout;
    double layer = layer_weights(s), head = (double)s->n_embd * (double)q->t->head.out;
    double trained = (double)trained_layers(q), width = (double)s->n_head * s->head_dim;
    double again = fit->recompute, passes = s->n_layers + trained + again;
    double act_bytes = (double)q->t->compute.ops->act_bytes, rows = rows_of(q, fit);
    double inputs = 2.0 * s->n_embd + width + s->n_ff;
    double acts = 2.0 * (s->n_embd + width + (double)s->n_head_kv * s->head_dim + s->n_ff) *
                  (trained + again) * act_bytes;
    double panels = fit->packed ? (layer * trained + head) * turn_ns
                                : (layer * passes + 2 * head) * decode_ns * act_bytes / 2;
    if (q->load->dropout) acts += inputs * (trained + again) * act_bytes * dropout_acts;
    if (l->dora) acts += (double)adapted_rows(l) * (trained + again) * act_bytes * dora_acts;
    return seconds_of_flops(q, flops_of(q, trained, again), rows) + acts * act_ns * 1e-9 +
           seconds_to_clip(q) / (double)usual_length(q) + panels * 1e-9 / q->threads / rows;
}

/* What an adapter that has changed takes before it is used: DoRA measures the rows anew. */
static double seconds_to_settle(const question *q)
{
    const dure_lora_layout *l = q->load->layout;
    double seconds = 0;
    for (int k = 0; k < DURE_LORA_TARGETS && l->dora; k++) {
        dure_lora_target target = (dure_lora_target)k;
        if (!(l->targets >> k & 1)) continue;
        seconds += (double)dure_lora_in(&l->shape, target) *
                   (double)dure_lora_out(&l->shape, target) *
                   (decode_ns + length_ns * dure_lora_rank(l, target)) * 1e-9;
    }
    return seconds * (double)trained_layers(q) / q->threads;
}

static void weigh(dure_transformer_fit *fit, const question *q)
{
    fit->bytes = bytes_of(q, fit);
    fit->seconds_per_token = seconds_of(q, fit);
}

typedef struct choice {
    dure_transformer_fit best, smallest;
    bool found;
} choice;

static void consider(choice *c, dure_transformer_fit fit, const question *q, uint64_t limit)
{
    weigh(&fit, q);
    bool good = !limit || fit.bytes <= limit;
    if (good && (!c->found || fit.seconds_per_token < c->best.seconds_per_token)) c->best = fit;
    c->found = c->found || good;
    if (fit.bytes < c->smallest.bytes) c->smallest = fit;
}

/* Of layers computed twice the fewest with which it fits, for each number of records in a pass. */
static void consider_layers(choice *c, dure_transformer_fit fit, const question *q, uint64_t limit)
{
    size_t most = q->load->together ? 1 : fit.rows / usual_length(q);
    for (fit.whole = most ? most : 1; fit.whole; fit.whole /= 2)
        for (fit.recompute = 0; fit.recompute <= trained_layers(q); fit.recompute++) {
            consider(c, fit, q, limit);
            weigh(&fit, q);
            if (!limit || fit.bytes <= limit) break;
        }
}

/* The quickest of all that fits, or the smallest when nothing does. */
static bool choose(dure_transformer_fit *out, const question *q, uint64_t limit)
{
    choice c = {.smallest = {.bytes = UINT64_MAX}};
    size_t longest = q->load->longest;
    for (int packed = q->packed_bytes > 0; packed >= 0; packed--)
        for (size_t rows = q->t->rows;; rows /= 2) {
            dure_transformer_fit fit = {.packed = packed, .rows = rows > longest ? rows : longest};
            consider_layers(&c, fit, q, limit);
            if (rows <= longest || rows <= LEAST_ROWS) break;
        }
    *out = c.found ? c.best : c.smallest;
    return c.found;
}

static void megabytes(char text[32], uint64_t bytes)
{
    snprintf(text, 32, "%.0f MB", ceil((double)bytes / 1e6));
}

dure_err dure_transformer_fit_find(dure_transformer_fit *out, dure_transformer *t,
                                   const dure_training_load *load, uint64_t limit_bytes,
                                   dure_diag *diag)
{
    question q = {.t = t,
                  .load = load,
                  .peak = usual_peak,
                  .threads = usual_threads,
                  .packed_bytes = dure_transformer_packed_bytes(t)};
    for (size_t i = 0; i < dure_gguf_tensor_count(t->gguf); i++)
        q.file_bytes += dure_gguf_tensor_at(t->gguf, i)->bytes;
    char least[32], limit[32];
    bool found = choose(out, &q, limit_bytes);
    if (t->peak <= 0) t->peak = dure_peak_gflops(&t->compute, PEAK_TRIES) * 1e9;
    q.peak = t->peak;
    q.threads = dure_pool_threads(t->pool);
    out->seconds_per_token = seconds_of(&q, out);
    out->seconds_to_judge = seconds_of_flops(&q, flops_of(&q, 0, 0), rows_of(&q, out));
    out->seconds_to_clip = seconds_to_clip(&q);
    out->seconds_per_step = seconds_to_settle(&q);
    flops least_work = flops_of(&q, (double)trained_layers(&q), 0);
    out->flops_per_token =
        least_work.layers + least_work.head + least_work.adapter + least_work.attention;
    out->peak_flops = q.peak;
    if (found) return DURE_OK;
    megabytes(least, out->bytes);
    megabytes(limit, limit_bytes);
    return dure_diag_set(diag, DURE_ERR_LIMIT,
                         "training needs at least %s and may take %s; allow more, or cut records "
                         "shorter, or adapt fewer matrices or with a lower rank",
                         least, limit);
}

dure_err dure_transformer_adopt(dure_transformer *t, const dure_transformer_fit *fit)
{
    t->rows = (uint32_t)fit->rows;
    t->recompute = fit->recompute;
    t->whole = fit->whole ? fit->whole : 1;
    return fit->packed ? dure_transformer_pack_weights(t) : DURE_OK;
}
