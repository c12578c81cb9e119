/* The order of model/transformer_backward.c. */
#include "model/transformer_cuda_int.h"

#include "kernels/cuda/dora.h"
#include "kernels/cuda/heads.h"
#include "kernels/cuda/rows.h"

typedef struct back {
    dure_transformer *t;
    dure_cuda_engine *e;
    const dure_pass *pass;
    const dure_gradient_map *map;
    uint32_t layer;
} back;

/* The gradients of A and B of every target of the group, for each document: dy is the gradient of
 * the group's products, x their input, and dz lies in e->dz. */
static void factor_gradients(const back *b, dure_cuda_group group, const uint16_t *dy,
                             const uint16_t *x)
{
    dure_cuda_engine *e = b->e;
    const uint16_t *z = dure_cuda_acts_of(e, b->t, b->layer)->z;
    if (dure_cuda_adapts(e, b->pass, b->layer, group))
        x = dure_cuda_dropped(b->t, b->pass, b->layer, group, x);
    for (size_t i = 0; i < dure_cuda_count(group); i++) {
        dure_lora_target k = dure_cuda_first(group) + i;
        const size_t *offset = b->map->offset[b->layer][k];
        dure_cuda_lora sum = {.stride = b->map->n,
                              .ldz = e->z_width,
                              .rank = dure_lora_rank(&e->layout, k),
                              .docs = e->doc_rows,
                              .n_docs = e->n_docs};
        if (offset[0] != SIZE_MAX) {
            sum.out = e->gradients + offset[0];
            sum.z = e->dz + e->z_at[k];
            sum.x = x;
            sum.ldx = sum.width = e->in[group];
            sum.by = dure_lora_scale(&e->layout, k);
            dure_cuda_lora_gradients(e->device, &sum);
        }
        if (offset[1] == SIZE_MAX) continue;
        sum.out = e->gradients + offset[1];
        sum.z = z + e->z_at[k];
        sum.x = dy + dure_cuda_column(e, k);
        sum.ldx = e->out[group];
        sum.width = e->width[k];
        sum.by = 1;
        sum.turned = 1;
        dure_cuda_lora_gradients(e->device, &sum);
    }
}

/* With DoRA: the magnitudes' gradients of each document, and dy, that of the products behind their
 * gains, becomes that of the sums. */
static void dora_back(const back *b, dure_cuda_group group, uint16_t *dy)
{
    dure_cuda_engine *e = b->e;
    for (size_t i = 0; i < dure_cuda_count(group) && e->layout.dora; i++) {
        dure_lora_target k = dure_cuda_first(group) + i;
        size_t of_b = b->map->offset[b->layer][k][1];
        if (!(e->layout.targets >> k & 1)) continue;
        size_t at = dure_lora_norm_index(&e->layout, b->layer, k);
        dure_cuda_dora_grad grad = {.dy = dy + dure_cuda_column(e, k),
                                    .ld = e->out[group],
                                    .kept = dure_cuda_acts_of(e, b->t, b->layer)->sums[k],
                                    .norm = e->norms + at,
                                    .gain = e->gains + at,
                                    .stride = b->map->n,
                                    .width = e->width[k],
                                    .docs = e->doc_rows,
                                    .n_docs = e->n_docs};
        if (of_b != SIZE_MAX) /* the magnitudes follow B */
            grad.out = e->gradients + of_b + e->width[k] * dure_lora_rank(&e->layout, k);
        dure_cuda_dora_backward(e->device, &grad);
    }
}

/* dz = dy B for every adapted target of the group. */
static void inner_back(const back *b, dure_cuda_group group, const uint16_t *dy)
{
    dure_cuda_engine *e = b->e;
    for (size_t i = 0; i < dure_cuda_count(group); i++) {
        dure_lora_target k = dure_cuda_first(group) + i;
        if (!(e->layout.targets >> k & 1)) continue;
        size_t rank = (dure_lora_rank(&e->layout, k) + 7) / 8 * 8;
        dure_device_product p = {.c = e->dz + e->z_at[k],
                                 .a = dy + dure_cuda_column(e, k),
                                 .w = e->layers[b->layer].b[k],
                                 .ldc = e->z_width,
                                 .lda = e->out[group],
                                 .ldw = rank,
                                 .m = b->pass->rows,
                                 .n = rank,
                                 .k = e->width[k],
                                 .as_is = 1,
                                 .rounded = 1};
        dure_device_multiply(e->device, &p);
    }
}

/* dx = dy W + dz (s A) in float32. */
static void outer_back(const back *b, dure_cuda_group group, const uint16_t *dy, float *dx)
{
    dure_cuda_engine *e = b->e;
    size_t in = e->in[group];
    dure_device_product p = {.c = dx,
                             .a = dy,
                             .w = dure_cuda_weights(e, b->t, b->layer, group),
                             .ldc = in,
                             .lda = e->out[group],
                             .ldw = in,
                             .m = b->pass->rows,
                             .n = in,
                             .k = e->out[group],
                             .as_is = 1};
    dure_device_multiply(e->device, &p);
    if (!dure_cuda_adapts(e, b->pass, b->layer, group)) return;
    p.a = e->dz + dure_cuda_group_z(e, group);
    p.w = e->layers[b->layer].a[group];
    p.lda = e->z_width;
    p.k = e->z_n[group];
    p.add = !b->pass->dropout;
    if (b->pass->dropout) p.c = e->apart;
    dure_device_multiply(e->device, &p);
    if (!b->pass->dropout) return;
    dure_cuda_drop kept = dure_cuda_mask(b->t, b->pass, b->layer, group);
    kept.sum = dx;
    kept.apart = e->apart;
    dure_cuda_drop_run(e->device, &kept);
}

static const float *gain_of(const back *b, dure_model_vector which)
{
    return dure_cuda_vector(b->e, b->t, b->t->layers[b->layer].vector[which]);
}

/* e->dy, the gradient of what a half of a layer adds. */
static void into_half(const back *b, dure_model_vector which, const uint16_t *kept)
{
    dure_cuda_engine *e = b->e;
    dure_cuda_norm_grad grad = {.dx = e->dnorm,
                                .out = e->dy,
                                .dy = e->dres,
                                .kept = kept,
                                .gain = gain_of(b, which),
                                .rows = b->pass->rows,
                                .width = b->t->shape.n_embd,
                                .eps = b->t->arch.norm_eps,
                                .anew = 1};
    if (grad.gain) dure_cuda_norm_backward(e->device, &grad);
}

/* What entered the half's first products, once more. */
static void norm_again(const back *b, dure_model_vector which, uint16_t *kept)
{
    dure_cuda_engine *e = b->e;
    dure_cuda_norm norm = {.y = e->norm,
                           .kept = kept,
                           .gain = gain_of(b, which),
                           .rows = b->pass->rows,
                           .width = b->t->shape.n_embd,
                           .eps = b->t->arch.norm_eps};
    dure_cuda_norm_forward(e->device, &norm);
}

/* e->dres and e->dy get what comes through the norm before the half. */
static void out_of_half(const back *b, dure_model_vector which, const uint16_t *kept)
{
    dure_cuda_engine *e = b->e;
    dure_cuda_norm_grad grad = {.dx = e->dres,
                                .out = e->dy,
                                .dy = e->dnorm,
                                .kept = kept,
                                .gain = gain_of(b, which),
                                .rows = b->pass->rows,
                                .width = b->t->shape.n_embd,
                                .eps = b->t->arch.norm_eps};
    dure_cuda_norm_backward(e->device, &grad);
}

static void feed_forward_back(const back *b)
{
    dure_cuda_engine *e = b->e;
    dure_cuda_acts *acts = dure_cuda_acts_of(e, b->t, b->layer);
    into_half(b, DURE_VECTOR_POST_FFN_NORM, acts->ffn_kept);
    dora_back(b, DURE_CUDA_DOWN, e->dy);
    inner_back(b, DURE_CUDA_DOWN, e->dy);
    outer_back(b, DURE_CUDA_DOWN, e->dy, e->sums);
    /* Gate and up become their gradients, and h is there once more. */
    dure_cuda_gate gate = {.h = e->h,
                           .both = acts->both,
                           .sums = e->sums,
                           .rows = b->pass->rows,
                           .width = b->t->shape.n_ff,
                           .gelu = b->t->arch.activation == DURE_ACTIVATION_GELU};
    dure_cuda_gate_backward(e->device, &gate);
    factor_gradients(b, DURE_CUDA_DOWN, e->dy, e->h);
    norm_again(b, DURE_VECTOR_FFN_NORM, acts->mid);
    dora_back(b, DURE_CUDA_GATE_UP, acts->both);
    inner_back(b, DURE_CUDA_GATE_UP, acts->both);
    factor_gradients(b, DURE_CUDA_GATE_UP, acts->both, e->norm);
    outer_back(b, DURE_CUDA_GATE_UP, acts->both, e->dnorm);
    out_of_half(b, DURE_VECTOR_FFN_NORM, acts->mid);
}

/* The lowest adapted layer needs only its own gradients. */
static void attention_back(const back *b)
{
    dure_cuda_engine *e = b->e;
    dure_cuda_acts *acts = dure_cuda_acts_of(e, b->t, b->layer);
    dure_cuda_attention attention = dure_cuda_attention_args(b->t, b->pass, b->layer);
    into_half(b, DURE_VECTOR_POST_ATTN_NORM, acts->att_kept);
    dora_back(b, DURE_CUDA_O, e->dy);
    inner_back(b, DURE_CUDA_O, e->dy);
    factor_gradients(b, DURE_CUDA_O, e->dy, acts->att);
    outer_back(b, DURE_CUDA_O, e->dy, e->sums);
    dure_cuda_round(e->device, e->datt, e->sums, b->pass->rows * e->in[DURE_CUDA_O]);
    dure_cuda_attention_backward(e->device, &attention);
    dure_cuda_run_heads(b->t, b->pass, b->layer, true);
    norm_again(b, DURE_VECTOR_ATTN_NORM, acts->x);
    dora_back(b, DURE_CUDA_QKV, e->dqkv);
    inner_back(b, DURE_CUDA_QKV, e->dqkv);
    factor_gradients(b, DURE_CUDA_QKV, e->dqkv, e->norm);
    if (b->layer == b->pass->lora->layout.first_layer) return;
    outer_back(b, DURE_CUDA_QKV, e->dqkv, e->dnorm);
    out_of_half(b, DURE_VECTOR_ATTN_NORM, acts->x);
}

/* The residual stream and what the head made of it are no longer needed. */
static void compute_again(const back *b)
{
    dure_cuda_engine *e = b->e;
    const float *input = dure_cuda_input_of(e, b->t, b->layer);
    if (!input) return;
    dure_device_copy(e->device, e->res, input, b->pass->rows * b->t->shape.n_embd * sizeof *input);
    dure_cuda_layer_forward(b->t, b->pass, b->layer);
}

void dure_cuda_backward(dure_transformer *t, const dure_pass *pass, const dure_gradient_map *map)
{
    back b = {.t = t, .e = dure_cuda_engine_of(t), .pass = pass, .map = map};
    dure_cuda_round(b.e->device, b.e->dy, b.e->dres, pass->rows * t->shape.n_embd);
    for (b.layer = t->shape.n_layers; b.layer-- > pass->lora->layout.first_layer;) {
        compute_again(&b);
        feed_forward_back(&b);
        attention_back(&b);
    }
}
