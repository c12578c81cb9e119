#include "model/transformer_int.h"

#include "kernels/peak.h"
#include "model/memory.h"

#include <math.h>
#include <stdio.h>

/* The program itself, the vocabulary and what the allocator keeps. */
enum { BASE_BYTES = 24 << 20, LEAST_ROWS = 64 };

/* Measured (bench/bench_train, models of 135 million to 8 billion weights): the shares of the
 * multipliers' peak that products and attention reach; what else is done, by the bytes of a token's
 * activations; and how long one thread takes to decode a weight and make a panel of it. */
static const double product_share = 0.85, attention_share = 0.35, act_ns = 0.45, decode_ns = 0.17;

typedef struct question {
    dure_transformer *t;
    const dure_training_load *load;
    double peak; /* FLOP/s */
    size_t packed_bytes, file_bytes;
} question;

/* Weights of products: of one layer, and of the head. */
static double layer_weights(const dure_model_shape *s)
{
    double sum = 0;
    for (int k = 0; k < DURE_LORA_TARGETS; k++)
        sum += (double)dure_lora_in(s, (dure_lora_target)k) *
               (double)dure_lora_out(s, (dure_lora_target)k);
    return sum;
}

static dure_workspace_need need_of(const question *q, const dure_transformer_fit *fit)
{
    const dure_lora_layout *l = q->load->layout;
    size_t trained = l->shape.n_layers - l->first_layer;
    size_t n = dure_lora_count(l, q->load->factors);
    dure_workspace_need need = {.rows = fit->rows,
                                .keys = fit->rows,
                                .longest = fit->rows,
                                .rank = dure_lora_rank_most(l),
                                .gradients = n / trained,
                                .gradient = n,
                                .checkpoints = fit->recompute,
                                .stored = trained - fit->recompute,
                                .dora = l->dora ? l->targets : 0};
    return need;
}

static void weigh(dure_transformer_fit *fit, const question *q)
{
    const dure_model_shape *s = &q->t->shape;
    const dure_lora_layout *l = q->load->layout;
    size_t params = dure_lora_count(l, DURE_LORA_FACTOR_BOTH);
    fit->bytes = BASE_BYTES + (fit->packed ? q->packed_bytes : q->file_bytes) +
                 dure_workspace_bytes(q->t, need_of(q, fit)) + params * sizeof(float) +
                 q->load->other_bytes;
    double layer = layer_weights(s), head = (double)s->n_embd * (double)q->t->head.out;
    double trained = s->n_layers - l->first_layer, width = (double)s->n_head * s->head_dim;
    double length = (double)(q->load->length ? q->load->length : q->load->longest);
    double again = fit->recompute, passes = s->n_layers + trained + again;
    /* Scores and values, over half of the record on average; the way back is 2.5 times that. */
    double attention = 2 * length * width * (s->n_layers + 2.5 * trained + again);
    double products = 2 * layer * passes + 4 * head + 6 * (double)params;
    double acts = 2.0 * (s->n_embd + width + (double)s->n_head_kv * s->head_dim + s->n_ff) *
                  (trained + again) * (double)q->t->compute.ops->act_bytes;
    double decoded = layer * passes + 2 * head;
    double threads = dure_pool_threads(q->t->pool);
    fit->seconds_per_token = products / (q->peak * product_share) +
                             attention / (q->peak * attention_share) + acts * act_ns * 1e-9;
    if (!fit->packed)
        fit->seconds_per_token += decoded * decode_ns * 1e-9 / threads / (double)fit->rows;
}

/* The fewest layers computed twice with which it fits; false if none do. */
static bool fits(dure_transformer_fit *fit, const question *q, uint64_t limit)
{
    uint32_t trained = q->t->shape.n_layers - q->load->layout->first_layer;
    for (fit->recompute = 0;; fit->recompute++) {
        weigh(fit, q);
        if (!limit || fit->bytes <= limit) return true;
        if (fit->recompute == trained) return false;
    }
}

/* The quickest of all that fits, or the smallest when nothing does. */
static bool choose(dure_transformer_fit *out, const question *q, uint64_t limit)
{
    bool found = false;
    dure_transformer_fit smallest = {.bytes = UINT64_MAX};
    for (int packed = q->packed_bytes > 0; packed >= 0; packed--)
        for (size_t rows = q->t->rows;; rows /= 2) {
            dure_transformer_fit fit = {.packed = packed,
                                        .rows = rows > q->load->longest ? rows : q->load->longest};
            bool good = fits(&fit, q, limit);
            if (good && (!found || fit.seconds_per_token < out->seconds_per_token)) *out = fit;
            found = found || good;
            if (fit.bytes < smallest.bytes) smallest = fit;
            if (rows <= q->load->longest || rows <= LEAST_ROWS) break;
        }
    if (!found) *out = smallest;
    return found;
}

static void megabytes(char text[32], uint64_t bytes)
{
    snprintf(text, 32, "%.0f MB", ceil((double)bytes / 1e6));
}

dure_err dure_transformer_fit_find(dure_transformer_fit *out, dure_transformer *t,
                                   const dure_training_load *load, uint64_t limit_bytes,
                                   dure_diag *diag)
{
    double peak = load->peak_gflops > 0 ? load->peak_gflops : dure_peak_gflops(&t->compute, 10);
    question q = {
        .t = t, .load = load, .peak = peak * 1e9, .packed_bytes = dure_transformer_packed_bytes(t)};
    for (size_t i = 0; i < dure_gguf_tensor_count(t->gguf); i++)
        q.file_bytes += dure_gguf_tensor_at(t->gguf, i)->bytes;
    char least[32], limit[32];
    if (choose(out, &q, limit_bytes)) return DURE_OK;
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
    return fit->packed ? dure_transformer_pack_weights(t) : DURE_OK;
}
