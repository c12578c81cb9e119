#include "model/transformer_cuda_int.h"

#include "kernels/cuda/cross_entropy.h"
#include "kernels/cuda/dequant.h"
#include "kernels/cuda/dora.h"
#include "kernels/cuda/heads.h"
#include "kernels/cuda/rows.h"
#include "kernels/dequant.h"
#include "model/transformer_dropout.h"

bool dure_cuda_adapts(const dure_cuda_engine *e, const dure_pass *pass, uint32_t layer,
                      dure_cuda_group group)
{
    return pass->lora && layer >= e->layout.first_layer && e->z_n[group] > 0;
}

dure_cuda_drop dure_cuda_mask(const dure_transformer *t, const dure_pass *pass, uint32_t layer,
                              dure_cuda_group group)
{
    const dure_cuda_engine *e = dure_cuda_engine_of(t);
    return (dure_cuda_drop){.seed = e->seeds,
                            .position = e->position,
                            .layer = layer,
                            .input = dure_cuda_first(group),
                            .threshold = pass->dropout->threshold,
                            .scale = pass->dropout->scale,
                            .rows = pass->rows,
                            .width = e->in[group]};
}

const uint16_t *dure_cuda_dropped(const dure_transformer *t, const dure_pass *pass, uint32_t layer,
                                  dure_cuda_group group, const uint16_t *x)
{
    const dure_cuda_engine *e = dure_cuda_engine_of(t);
    if (!pass->dropout) return x;
    dure_cuda_drop drop = dure_cuda_mask(t, pass, layer, group);
    drop.y = e->masked;
    drop.x = x;
    dure_cuda_drop_run(e->device, &drop);
    return e->masked;
}

/* The products of a group get their gains, and are added to `add`, where that is not NULL. */
static void dora(const dure_transformer *t, const dure_pass *pass, uint32_t layer,
                 dure_cuda_group group, float *y, float *add)
{
    const dure_cuda_engine *e = dure_cuda_engine_of(t);
    for (size_t i = 0; i < dure_cuda_count(group); i++) {
        dure_lora_target k = dure_cuda_first(group) + i;
        if (!(e->layout.targets >> k & 1)) continue;
        dure_cuda_dora args = {.sums = y + dure_cuda_column(e, k),
                               .ld = e->out[group],
                               .add = add,
                               .kept = dure_cuda_acts_of(e, t, layer)->sums[k],
                               .gain = e->gains + dure_lora_norm_index(&e->layout, layer, k),
                               .rows = pass->rows,
                               .width = e->width[k]};
        dure_cuda_dora_forward(e->device, &args);
    }
}

/* y (+)= x W^T + z B^T in float32, where z = x (s A)^T is kept; with DoRA, times the gains. */
static void linear(const dure_transformer *t, const dure_pass *pass, uint32_t layer,
                   dure_cuda_group group, const uint16_t *x, float *y, int add)
{
    const dure_cuda_engine *e = dure_cuda_engine_of(t);
    const dure_cuda_layer *adapter = &e->layers[layer];
    const bool gains = e->layout.dora && dure_cuda_adapts(e, pass, layer, group);
    float *sum = NULL; /* what y is added to, behind its gains */
    if (gains && add) {
        sum = y;
        y = e->sums;
        add = 0;
    }
    size_t in = e->in[group], out = e->out[group];
    dure_device_product p = {.c = y,
                             .a = x,
                             .w = dure_cuda_weights(e, t, layer, group),
                             .ldc = out,
                             .lda = in,
                             .ldw = in,
                             .m = pass->rows,
                             .n = out,
                             .k = in,
                             .add = add};
    dure_device_multiply(e->device, &p);
    if (!dure_cuda_adapts(e, pass, layer, group)) return;
    uint16_t *z = dure_cuda_acts_of(e, t, layer)->z;
    p = (dure_device_product){.c = z + dure_cuda_group_z(e, group),
                              .a = dure_cuda_dropped(t, pass, layer, group, x),
                              .w = adapter->a[group],
                              .ldc = e->z_width,
                              .lda = in,
                              .ldw = in,
                              .m = pass->rows,
                              .n = e->z_n[group],
                              .k = in,
                              .rounded = 1};
    dure_device_multiply(e->device, &p);
    for (size_t i = 0; i < dure_cuda_count(group); i++) {
        dure_lora_target k = dure_cuda_first(group) + i;
        if (!(e->layout.targets >> k & 1)) continue;
        size_t rank = (dure_lora_rank(&e->layout, k) + 7) / 8 * 8;
        p = (dure_device_product){.c = y + dure_cuda_column(e, k),
                                  .a = z + e->z_at[k],
                                  .w = adapter->b[k],
                                  .ldc = out,
                                  .lda = e->z_width,
                                  .ldw = rank,
                                  .m = pass->rows,
                                  .n = e->width[k],
                                  .k = rank,
                                  .add = 1};
        dure_device_multiply(e->device, &p);
    }
    if (gains) dora(t, pass, layer, group, y, sum);
}

void dure_cuda_run_heads(const dure_transformer *t, const dure_pass *pass, uint32_t layer,
                         bool back)
{
    static const dure_model_vector norms[] = {DURE_VECTOR_Q_NORM, DURE_VECTOR_K_NORM};
    static const dure_model_vector biases[] = {DURE_VECTOR_Q_BIAS, DURE_VECTOR_K_BIAS,
                                               DURE_VECTOR_V_BIAS};
    const dure_cuda_engine *e = dure_cuda_engine_of(t);
    const dure_cuda_acts *acts = dure_cuda_acts_of(e, t, layer);
    const float *const *vector = t->layers[layer].vector;
    bool slides = dure_model_arch_slides(&t->arch, layer);
    const dure_rope_table *table = slides ? &t->rope_sliding : &t->rope;
    size_t ld = e->out[DURE_CUDA_QKV];
    for (dure_lora_target k = DURE_LORA_Q; k <= DURE_LORA_V; k++) {
        size_t column = dure_cuda_column(e, k);
        bool turned = k != DURE_LORA_V;
        dure_cuda_heads args = {.y = (back ? e->dqkv : acts->qkv) + column,
                                .x = e->sums + column,
                                .ld = ld,
                                .ldx = ld,
                                .rows = pass->rows,
                                .heads = k == DURE_LORA_Q ? t->shape.n_head : t->shape.n_head_kv,
                                .dim = t->shape.head_dim,
                                .bias = back ? NULL : dure_cuda_vector(e, t, vector[biases[k]]),
                                .norm = turned ? dure_cuda_vector(e, t, vector[norms[k]]) : NULL,
                                .kept = acts->heads_kept ? acts->heads_kept + column : NULL,
                                .eps = t->arch.norm_eps,
                                .cos_sin = !turned  ? NULL
                                           : slides ? e->rope_sliding
                                                    : e->rope,
                                .turned = (uint32_t)table->dim,
                                .halves = table->halves,
                                .position = e->position};
        if (back)
            dure_cuda_heads_backward(e->device, &args);
        else
            dure_cuda_heads_forward(e->device, &args);
    }
}

dure_cuda_attention dure_cuda_attention_args(const dure_transformer *t, const dure_pass *pass,
                                             uint32_t layer)
{
    const dure_cuda_engine *e = dure_cuda_engine_of(t);
    const dure_cuda_acts *acts = dure_cuda_acts_of(e, t, layer);
    size_t k = dure_cuda_column(e, DURE_LORA_K), v = dure_cuda_column(e, DURE_LORA_V);
    return (dure_cuda_attention){.tiles = e->tiles,
                                 .n_tiles = e->n_tiles,
                                 .rows = pass->rows,
                                 .q = acts->qkv,
                                 .k = acts->qkv + k,
                                 .v = acts->qkv + v,
                                 .ld = e->out[DURE_CUDA_QKV],
                                 .heads = t->shape.n_head,
                                 .heads_kv = t->shape.n_head_kv,
                                 .dim = t->shape.head_dim,
                                 .window = (uint32_t)dure_transformer_window(t, layer),
                                 .scale = t->arch.attention_scale,
                                 .out = acts->att,
                                 .lse = acts->lse,
                                 .caches = pass->caches ? e->caches : NULL,
                                 .n_caches = pass->n_docs,
                                 .layer = layer,
                                 .dout = e->datt,
                                 .delta = e->delta,
                                 .dq = e->sums,
                                 .dk = e->sums + k,
                                 .dv = e->sums + v,
                                 .ldd = e->out[DURE_CUDA_QKV]};
}

/* The norm before a half of a layer: y from the residual stream, which is kept. */
static void enter_half(const dure_transformer *t, const dure_pass *pass, uint32_t layer,
                       dure_model_vector which, uint16_t *kept)
{
    const dure_cuda_engine *e = dure_cuda_engine_of(t);
    dure_cuda_norm norm = {.y = e->norm,
                           .kept = kept,
                           .x = e->res,
                           .gain = dure_cuda_vector(e, t, t->layers[layer].vector[which]),
                           .rows = pass->rows,
                           .width = t->shape.n_embd,
                           .eps = t->arch.norm_eps};
    dure_cuda_norm_forward(e->device, &norm);
}

/* The last product of a half goes to the residual stream, or first through a norm. */
static void add_half(const dure_transformer *t, const dure_pass *pass, uint32_t layer,
                     dure_cuda_group group, const uint16_t *x, dure_model_vector which,
                     uint16_t *kept)
{
    const dure_cuda_engine *e = dure_cuda_engine_of(t);
    const float *gain = dure_cuda_vector(e, t, t->layers[layer].vector[which]);
    linear(t, pass, layer, group, x, gain ? e->sums : e->res, !gain);
    if (!gain) return;
    dure_cuda_norm norm = {.kept = kept,
                           .x = e->sums,
                           .gain = gain,
                           .add = e->res,
                           .rows = pass->rows,
                           .width = t->shape.n_embd,
                           .eps = t->arch.norm_eps};
    dure_cuda_norm_forward(e->device, &norm);
}

void dure_cuda_layer_forward(dure_transformer *t, const dure_pass *pass, uint32_t l)
{
    dure_cuda_engine *e = dure_cuda_engine_of(t);
    dure_cuda_acts *acts = dure_cuda_acts_of(e, t, l);
    dure_cuda_attention attention = dure_cuda_attention_args(t, pass, l);
    enter_half(t, pass, l, DURE_VECTOR_ATTN_NORM, acts->x);
    linear(t, pass, l, DURE_CUDA_QKV, e->norm, e->sums, 0);
    dure_cuda_run_heads(t, pass, l, false);
    dure_cuda_attention_forward(e->device, &attention);
    add_half(t, pass, l, DURE_CUDA_O, acts->att, DURE_VECTOR_POST_ATTN_NORM, acts->att_kept);
    enter_half(t, pass, l, DURE_VECTOR_FFN_NORM, acts->mid);
    linear(t, pass, l, DURE_CUDA_GATE_UP, e->norm, e->sums, 0);
    dure_cuda_gate gate = {.h = e->h,
                           .both = acts->both,
                           .sums = e->sums,
                           .rows = pass->rows,
                           .width = t->shape.n_ff,
                           .gelu = t->arch.activation == DURE_ACTIVATION_GELU};
    dure_cuda_gate_forward(e->device, &gate);
    add_half(t, pass, l, DURE_CUDA_DOWN, e->h, DURE_VECTOR_POST_FFN_NORM, acts->ffn_kept);
}

void dure_cuda_forward(dure_transformer *t, const dure_pass *pass)
{
    dure_cuda_engine *e = dure_cuda_engine_of(t);
    dure_cuda_embed embed = {.x = e->res,
                             .table = e->embedding,
                             .tokens = e->tokens,
                             .rows = pass->rows,
                             .width = t->shape.n_embd,
                             .row_bytes = dure_quant_row_bytes(t->embedding.type, t->embedding.in),
                             .scale = t->arch.embedding_scale,
                             .type = t->embedding.type};
    dure_cuda_embed_rows(e->device, &embed);
    for (uint32_t l = 0; l < t->shape.n_layers; l++) {
        float *input = pass->keep ? dure_cuda_input_of(e, t, l) : NULL;
        if (input)
            dure_device_copy(e->device, input, e->res,
                             pass->rows * t->shape.n_embd * sizeof *input);
        dure_cuda_layer_forward(t, pass, l);
    }
}

void dure_cuda_logits(dure_transformer *t, size_t first, size_t n)
{
    dure_cuda_engine *e = dure_cuda_engine_of(t);
    size_t d = t->shape.n_embd;
    dure_cuda_pick pick = {
        .y = e->head_x, .x = e->res, .row = e->label_row + first, .rows = n, .width = d};
    dure_cuda_norm norm = {.y = e->head_norm,
                           .kept = e->head_kept,
                           .x = e->head_x,
                           .gain = dure_cuda_vector(e, t, t->output_norm),
                           .rows = n,
                           .width = d,
                           .eps = t->arch.norm_eps};
    dure_device_product logits = {.c = e->logits,
                                  .a = e->head_norm,
                                  .w = e->head,
                                  .ldc = e->vocab,
                                  .lda = d,
                                  .ldw = d,
                                  .m = n,
                                  .n = e->vocab,
                                  .k = d};
    dure_cuda_pick_rows(e->device, &pick);
    dure_cuda_norm_forward(e->device, &norm);
    dure_device_multiply(e->device, &logits);
}

/* Labels [first, first + n). */
static void head_chunk(dure_transformer *t, size_t first, size_t n, bool gradient)
{
    dure_cuda_engine *e = dure_cuda_engine_of(t);
    size_t d = t->shape.n_embd;
    dure_cuda_cross_entropy loss = {.logits = e->logits,
                                    .labels = e->label + first,
                                    .weight = gradient ? e->label_weight + first : NULL,
                                    .p = e->p,
                                    .nll = e->nll + first,
                                    .rows = n,
                                    .vocab = t->head.out,
                                    .ld = e->vocab};
    dure_cuda_logits(t, first, n);
    dure_cuda_cross_entropy_run(e->device, &loss);
    if (!gradient) return;
    dure_device_product back = {.c = e->head_dnorm,
                                .a = e->p,
                                .w = e->head,
                                .ldc = d,
                                .lda = e->vocab,
                                .ldw = d,
                                .m = n,
                                .n = d,
                                .k = e->vocab,
                                .as_is = 1};
    dure_cuda_norm_grad grad = {.dx = e->head_x,
                                .dy = e->head_dnorm,
                                .kept = e->head_kept,
                                .gain = dure_cuda_vector(e, t, t->output_norm),
                                .rows = n,
                                .width = d,
                                .eps = t->arch.norm_eps,
                                .anew = 1};
    dure_device_multiply(e->device, &back);
    dure_cuda_norm_backward(e->device, &grad);
    /* Each row predicts at most one label, so its gradient is written once. */
    dure_cuda_pick pick = {.y = e->dres,
                           .x = e->head_x,
                           .row = e->label_row + first,
                           .rows = n,
                           .width = d,
                           .scatter = 1};
    dure_cuda_pick_rows(e->device, &pick);
}

void dure_cuda_head(dure_transformer *t, const dure_pass *pass, bool gradient)
{
    dure_cuda_engine *e = dure_cuda_engine_of(t);
    if (gradient)
        dure_device_zero(e->device, e->dres, pass->rows * t->shape.n_embd * sizeof *e->dres);
    for (size_t i = 0; i < pass->n_labels; i += e->labels) {
        size_t left = pass->n_labels - i;
        head_chunk(t, i, left < e->labels ? left : e->labels, gradient);
    }
}
