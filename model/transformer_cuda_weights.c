#include "model/transformer_cuda_int.h"

#include "kernels/cuda/dequant.h"
#include "kernels/dequant.h"

#include <stdlib.h>

enum { PAD = 8 };

static size_t padded(size_t n)
{
    return (n + PAD - 1) / PAD * PAD;
}

static size_t bytes_of(const dure_weight *w)
{
    return w->out * dure_quant_row_bytes(w->type, w->in);
}

/* W as bfloat16 at `to`, by way of `room`. */
static void load_matrix(dure_cuda_engine *e, uint16_t *to, const dure_weight *w, uint8_t *room)
{
    dure_device_upload(e->device, room, w->data, bytes_of(w));
    dure_cuda_dequant(e->device, to, room, w->out * w->in, w->type);
}

static size_t largest(const dure_transformer *t)
{
    size_t most = bytes_of(&t->head);
    for (uint32_t l = 0; l < t->shape.n_layers; l++)
        for (int k = 0; k < DURE_LORA_TARGETS; k++) {
            size_t bytes = bytes_of(&t->layers[l].w[k]);
            if (bytes > most) most = bytes;
        }
    return most;
}

static size_t group_bytes(const dure_cuda_engine *e, int group)
{
    return e->out[group] * e->in[group] * sizeof(uint16_t);
}

static void load_packed(dure_cuda_engine *e, const dure_transformer *t, uint32_t layer)
{
    for (int k = 0; k < DURE_LORA_TARGETS; k++) {
        const dure_weight *w = &t->layers[layer].w[k];
        uint8_t *at = dure_cuda_take(&e->weights, bytes_of(w));
        e->layers[layer].packed[k] = at;
        if (at) dure_device_upload(e->device, at, w->data, bytes_of(w));
    }
}

static void load_layer(dure_cuda_engine *e, const dure_transformer *t, uint32_t layer,
                       uint8_t *room)
{
    for (int g = 0; g < DURE_CUDA_GROUPS; g++) {
        uint16_t *at = dure_cuda_take(&e->weights, group_bytes(e, g));
        dure_lora_target first = dure_cuda_first((dure_cuda_group)g);
        e->layers[layer].w[g] = at;
        for (size_t i = 0; at && i < dure_cuda_count((dure_cuda_group)g); i++) {
            const dure_weight *w = &t->layers[layer].w[first + i];
            load_matrix(e, at, w, room);
            at += w->out * w->in;
        }
    }
}

static void load_globals(dure_cuda_engine *e, const dure_transformer *t, uint8_t *room)
{
    dure_cuda_owned *o = &e->weights;
    const dure_weight *head = &t->head;
    size_t n = dure_transformer_vector_floats(t) * sizeof(float);
    e->vocab = padded(head->out);
    e->vectors = dure_cuda_take(o, n);
    e->embedding = dure_cuda_take(o, bytes_of(&t->embedding));
    e->head = dure_cuda_take(o, e->vocab * head->in * sizeof *e->head);
    if (o->err) return;
    dure_device_upload(e->device, e->vectors, t->norms, n);
    dure_device_upload(e->device, e->embedding, t->embedding.data, bytes_of(&t->embedding));
    dure_device_zero(e->device, e->head, e->vocab * head->in * sizeof *e->head);
    load_matrix(e, e->head, head, room);
}

/* Half of the memory is left to activations: decoding a layer for a pass of 8192 tokens should take
 * a few percent of its time, and shorter passes would take more. */
static bool stay_resident(const dure_cuda_engine *e, const dure_transformer *t)
{
    size_t rounded = 0, packed = 0, room = dure_device_room(e->device);
    if (room > e->left) room = e->left;
    for (int g = 0; g < DURE_CUDA_GROUPS; g++)
        rounded += group_bytes(e, g);
    for (int k = 0; k < DURE_LORA_TARGETS; k++)
        packed += bytes_of(&t->layers[0].w[k]);
    return rounded <= packed || rounded * t->shape.n_layers <= room / 2;
}

static void load_layers(dure_cuda_engine *e, const dure_transformer *t, uint8_t *room)
{
    bool resident = stay_resident(e, t);
    size_t most = 0;
    for (int g = 0; g < DURE_CUDA_GROUPS; g++)
        if (group_bytes(e, g) > most) most = group_bytes(e, g);
    if (!resident) e->decoded = dure_cuda_take(&e->weights, most);
    for (uint32_t l = 0; l < t->shape.n_layers && !e->weights.err; l++) {
        if (resident)
            load_layer(e, t, l, room);
        else
            load_packed(e, t, l);
    }
}

const uint16_t *dure_cuda_weights(const dure_cuda_engine *e, const dure_transformer *t,
                                  uint32_t layer, dure_cuda_group group)
{
    if (e->layers[layer].w[group]) return e->layers[layer].w[group];
    uint16_t *at = e->decoded;
    for (size_t i = 0; i < dure_cuda_count(group); i++) {
        dure_lora_target k = dure_cuda_first(group) + i;
        const dure_weight *w = &t->layers[layer].w[k];
        dure_cuda_dequant(e->device, at, e->layers[layer].packed[k], w->out * w->in, w->type);
        at += w->out * w->in;
    }
    return e->decoded;
}

dure_err dure_cuda_weights_load(dure_cuda_engine *e, const dure_transformer *t, dure_diag *diag)
{
    dure_cuda_owned aside = {.device = e->device, .left = &e->left, .diag = diag};
    e->weights.diag = diag;
    e->layers = calloc(t->shape.n_layers, sizeof *e->layers);
    if (!e->layers) return DURE_ERR_NOMEM;
    uint8_t *room = dure_cuda_take(&aside, largest(t));
    dure_err err = aside.err;
    if (!err) {
        load_globals(e, t, room);
        load_layers(e, t, room);
        err = e->weights.err ? e->weights.err : dure_device_wait(e->device, diag);
    }
    e->weights.diag = NULL;
    dure_cuda_give_back(&aside);
    if (err == DURE_ERR_NOMEM)
        dure_diag_prefix(diag, err, "the model's weights do not fit the GPU");
    return err;
}

/* --- the adapter --- */

static bool adapted(const dure_lora_layout *layout, int target)
{
    return layout->targets >> target & 1;
}

size_t dure_cuda_group_z(const dure_cuda_engine *e, dure_cuda_group group)
{
    dure_lora_target k = dure_cuda_first(group);
    while (!adapted(&e->layout, (int)k))
        k++;
    return e->z_at[k];
}

/* Where every target's z lies. */
static void place(dure_cuda_engine *e)
{
    e->z_width = 0;
    for (int g = 0; g < DURE_CUDA_GROUPS; g++)
        e->z_n[g] = 0;
    for (int k = 0; k < DURE_LORA_TARGETS; k++) {
        if (!adapted(&e->layout, k)) continue;
        size_t rank = padded(dure_lora_rank(&e->layout, (dure_lora_target)k));
        e->z_at[k] = e->z_width;
        e->z_width += rank;
        e->z_n[dure_cuda_group_of((dure_lora_target)k)] += rank;
    }
}

static dure_err take_adapter(dure_cuda_engine *e, const dure_lora *lora, dure_diag *diag)
{
    dure_cuda_owned *o = &e->adapter;
    const dure_lora_layout *layout = &lora->layout;
    dure_cuda_give_back(o);
    e->version = 0;
    o->diag = diag;
    e->layout = *layout;
    place(e);
    e->params = dure_cuda_take(o, lora->n * sizeof *e->params);
    if (lora->norms) {
        e->norms = dure_cuda_take(o, lora->norms->n * sizeof *e->norms);
        e->gains = dure_cuda_take(o, lora->norms->n * sizeof *e->gains);
    }
    for (uint32_t l = layout->first_layer; l < layout->shape.n_layers; l++) {
        for (int g = 0; g < DURE_CUDA_GROUPS; g++)
            e->layers[l].a[g] =
                e->z_n[g] ? dure_cuda_take(o, e->z_n[g] * e->in[g] * sizeof(uint16_t)) : NULL;
        for (int k = 0; k < DURE_LORA_TARGETS; k++) {
            size_t rank = padded(dure_lora_rank(layout, (dure_lora_target)k));
            if (adapted(layout, k))
                e->layers[l].b[k] = dure_cuda_take(o, e->width[k] * rank * sizeof(uint16_t));
        }
    }
    o->diag = NULL;
    if (!o->err) return DURE_OK;
    dure_err err = o->err;
    e->layout = (dure_lora_layout){.rank = 0};
    dure_cuda_give_back(o);
    return err == DURE_ERR_NOMEM ? dure_diag_prefix(diag, err, "the adapter does not fit the GPU")
                                 : err;
}

/* A and B of one matrix as the products want them. */
static void round_pair(dure_cuda_engine *e, uint32_t layer, dure_lora_target target)
{
    const dure_lora_layout *layout = &e->layout;
    dure_cuda_group group = dure_cuda_group_of(target);
    size_t at_a, at_b, rank = dure_lora_rank(layout, target);
    size_t before = e->z_at[target] - dure_cuda_group_z(e, group);
    if (!dure_lora_find(&at_a, layout, layer, target, DURE_LORA_FACTOR_A)) return;
    if (!dure_lora_find(&at_b, layout, layer, target, DURE_LORA_FACTOR_B)) return;
    dure_cuda_pad a = {.to = e->layers[layer].a[group] + before * e->in[group],
                       .from = e->params + at_a,
                       .to_rows = padded(rank),
                       .ld = e->in[group],
                       .rows = rank,
                       .columns = e->in[group],
                       .by = dure_lora_scale(layout, target)};
    dure_cuda_pad b = {.to = e->layers[layer].b[target],
                       .from = e->params + at_b,
                       .to_rows = e->width[target],
                       .ld = padded(rank),
                       .rows = e->width[target],
                       .columns = rank,
                       .by = 1};
    dure_cuda_pad_matrix(e->device, &a);
    dure_cuda_pad_matrix(e->device, &b);
}

dure_err dure_cuda_adapter_load(dure_cuda_engine *e, const dure_transformer *t,
                                const dure_lora *lora, dure_diag *diag)
{
    (void)t;
    if (!lora || lora->version == e->version) return DURE_OK;
    if (!dure_lora_layout_equal(&e->layout, &lora->layout)) {
        dure_err err = take_adapter(e, lora, diag);
        e->rows = 0; /* the workspace has room for another z */
        if (err) return err;
    }
    e->version = lora->version;
    dure_device_upload(e->device, e->params, lora->params, lora->n * sizeof *e->params);
    if (lora->norms) {
        size_t bytes = lora->norms->n * sizeof(float);
        dure_device_upload(e->device, e->norms, lora->norms->norm, bytes);
        dure_device_upload(e->device, e->gains, lora->norms->gain, bytes);
    }
    for (uint32_t l = lora->layout.first_layer; l < lora->layout.shape.n_layers; l++)
        for (int k = 0; k < DURE_LORA_TARGETS; k++)
            if (adapted(&e->layout, k)) round_pair(e, l, (dure_lora_target)k);
    return DURE_OK;
}
