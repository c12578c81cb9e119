/* What the parts of the transformer on a GPU share. Every pointer here is into the device's memory,
 * where nothing else is said.
 *
 * Products that share their input are one: q, k and v, and gate and up, lie behind each other. A
 * matrix's z and the rows of its A are padded to multiples of 8 with zeros; `z_at` says where each
 * target's begin. Letters: D, F, Q, KV as in model/transformer_int.h. */
#pragma once

#include "kernels/cuda/attention.h"
#include "kernels/cuda/clip.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/dropout.h"
#include "kernels/cuda/lora.h"
#include "model/decode.h"
#include "model/transformer_cuda.h"
#include "model/transformer_device.h"

typedef enum dure_cuda_group {
    DURE_CUDA_QKV,
    DURE_CUDA_O,
    DURE_CUDA_GATE_UP,
    DURE_CUDA_DOWN,
    DURE_CUDA_GROUPS
} dure_cuda_group;

/* Host memory: which allocations belong together. */
typedef struct dure_cuda_owned {
    dure_device *device;
    size_t *left; /* of what all of them may take */
    bool counts;  /* nothing is taken, `bytes` alone grows */
    void **list;
    size_t n, capacity, bytes;
    dure_err err; /* the first; later requests get NULL */
    dure_diag *diag;
} dure_cuda_owned;
void *dure_cuda_take(dure_cuda_owned *owned, size_t bytes);
void dure_cuda_give_back(dure_cuda_owned *owned);

typedef struct dure_cuda_layer {
    uint16_t *w[DURE_CUDA_GROUPS];      /* out x in; NULL: decoded whenever a product wants it */
    uint8_t *packed[DURE_LORA_TARGETS]; /* then: as in the file */
    uint16_t *a[DURE_CUDA_GROUPS];      /* scale * A: z_n x in; NULL: not adapted */
    uint16_t *b[DURE_LORA_TARGETS];     /* out x padded rank */
} dure_cuda_layer;

/* What one layer keeps for its backward pass. */
typedef struct dure_cuda_acts {
    uint16_t *x, *mid, *qkv, *att, *both, *z;   /* D, D, Q+2KV, Q, 2F, z_width */
    uint16_t *heads_kept, *att_kept, *ffn_kept; /* Q+2KV, D, D; where there are such norms */
    float *lse;                                 /* heads */
    /* With DoRA, where there is a way back: the products before their gains. */
    uint16_t *sums[DURE_LORA_TARGETS]; /* out */
} dure_cuda_acts;

typedef struct dure_cuda_engine {
    dure_device *device;
    dure_cuda_owned weights, adapter, workspace;
    size_t left;                     /* bytes that they may still take */
    size_t width[DURE_LORA_TARGETS]; /* out features */
    size_t in[DURE_CUDA_GROUPS], out[DURE_CUDA_GROUPS];
    dure_cuda_layer *layers; /* host */
    uint16_t *decoded;       /* the group that was decoded last; NULL: all are resident */
    uint8_t *embedding;      /* as in the file */
    uint16_t *head;          /* vocab padded to 8, x D */
    size_t vocab;            /* padded */
    float *vectors;          /* those of dure_transformer.norms */
    /* The adapter. */
    dure_lora_layout layout; /* its shape is all zero before the first */
    size_t z_at[DURE_LORA_TARGETS], z_n[DURE_CUDA_GROUPS], z_width;
    float *params, *norms, *gains; /* the last two with DoRA: as dure_lora.norms */
    uint64_t version;              /* of the adapter that is there; 0: none */
    /* The workspace. */
    size_t rows, stored, labels, docs, gradient; /* what it has room for */
    size_t again; /* layers below the stored ones whose input is kept, to compute them twice */
    size_t positions;
    bool dropout, clips, together;
    float *inputs;        /* again x rows x D: the residual stream as it entered them */
    dure_cuda_acts *acts; /* host; stored + 1 sets */
    float *res, *sums, *dres, *dnorm, *gradients, *delta, *rope, *rope_sliding;
    uint16_t *norm, *h, *dy, *datt, *dqkv, *dz;
    /* With dropout: each row's seed, an input without what is dropped, the sums of dz A. */
    uint64_t *seeds;
    uint16_t *masked;
    float *apart;
    /* With a clip: the integers' sum, and what became of each document of a pass. */
    int64_t *clip_sum;
    dure_cuda_clipped *clipped;
    void *clip_room;
    float *head_x, *head_dnorm, *logits, *nll, *label_weight;
    uint16_t *head_norm, *head_kept, *p;
    int32_t *tokens, *label, *label_row;
    uint32_t *position;
    dure_cuda_tile *tiles;
    dure_cuda_rows *doc_rows;
    dure_cuda_cache *caches; /* DURE_DECODERS_TOGETHER */
    /* Host: the pass under way. */
    int32_t *host_rows;
    uint64_t *host_seeds;
    dure_cuda_tile *host_tiles;
    dure_cuda_rows *host_docs;
    dure_cuda_clipped *host_clipped;
    dure_cuda_cache host_caches[DURE_DECODERS_TOGETHER];
    size_t n_tiles, n_docs;
} dure_cuda_engine;

static inline dure_cuda_engine *dure_cuda_engine_of(const dure_transformer *t)
{
    return t->device->state;
}

/* The group of a target, and where its columns begin in the group's output. */
dure_cuda_group dure_cuda_group_of(dure_lora_target target);
size_t dure_cuda_column(const dure_cuda_engine *e, dure_lora_target target);
/* Targets of a group: [first, first + n). */
dure_lora_target dure_cuda_first(dure_cuda_group group);
size_t dure_cuda_count(dure_cuda_group group);

/* Uploads the frozen weights, as bfloat16 where all of them take at most half of the memory. */
DURE_MUST_USE dure_err dure_cuda_weights_load(dure_cuda_engine *e, const dure_transformer *t,
                                              dure_diag *diag);
/* The weights of a group's product, until the next call. */
const uint16_t *dure_cuda_weights(const dure_cuda_engine *e, const dure_transformer *t,
                                  uint32_t layer, dure_cuda_group group);
/* The adapter as it is now; NULL: none. */
DURE_MUST_USE dure_err dure_cuda_adapter_load(dure_cuda_engine *e, const dure_transformer *t,
                                              const dure_lora *lora, dure_diag *diag);
/* With `twice`, as few layers are computed twice as the memory asks for. */
DURE_MUST_USE dure_err dure_cuda_workspace_reserve(dure_cuda_engine *e, const dure_transformer *t,
                                                   const dure_lora *lora,
                                                   const dure_gradient_map *map, bool twice,
                                                   dure_diag *diag);
void dure_cuda_workspace_fini(dure_cuda_engine *e);
/* Where the z of a group with an adapted target begins. */
size_t dure_cuda_group_z(const dure_cuda_engine *e, dure_cuda_group group);
/* Whether the pass adapts a layer, and a target of it. */
bool dure_cuda_adapts(const dure_cuda_engine *e, const dure_pass *pass, uint32_t layer,
                      dure_cuda_group group);
/* A vector of the model on the device; NULL stays NULL. */
const float *dure_cuda_vector(const dure_cuda_engine *e, const dure_transformer *t,
                              const float *host);
dure_cuda_acts *dure_cuda_acts_of(const dure_cuda_engine *e, const dure_transformer *t,
                                  uint32_t layer);

/* Where the residual stream that enters a layer is kept; NULL: it is not computed twice. */
float *dure_cuda_input_of(const dure_cuda_engine *e, const dure_transformer *t, uint32_t layer);
/* One layer, from e->res into e->res; what its way back needs is kept. */
void dure_cuda_layer_forward(dure_transformer *t, const dure_pass *pass, uint32_t layer);
/* All layers, then loss and, with `gradient`, the gradient of the residual stream at the top. */
void dure_cuda_forward(dure_transformer *t, const dure_pass *pass);
void dure_cuda_head(dure_transformer *t, const dure_pass *pass, bool gradient);
/* The logits of n rows of the pass, which e->label_row holds, into e->logits. */
void dure_cuda_logits(dure_transformer *t, size_t first, size_t n);
/* From there down; the gradients of every document of the pass. */
void dure_cuda_backward(dure_transformer *t, const dure_pass *pass, const dure_gradient_map *map);

/* What the adapter of a group reads of its input x: x itself without dropout; valid until the next
 * call. */
const uint16_t *dure_cuda_dropped(const dure_transformer *t, const dure_pass *pass, uint32_t layer,
                                  dure_cuda_group group, const uint16_t *x);
/* The mask of a group's input; for what, is to be filled in. */
dure_cuda_drop dure_cuda_mask(const dure_transformer *t, const dure_pass *pass, uint32_t layer,
                              dure_cuda_group group);

/* Attention's arguments for both directions. */
dure_cuda_attention dure_cuda_attention_args(const dure_transformer *t, const dure_pass *pass,
                                             uint32_t layer);
/* Forward: from e->sums into acts->qkv. Back: from e->sums, the gradients of those, into e->dqkv.
 */
void dure_cuda_run_heads(const dure_transformer *t, const dure_pass *pass, uint32_t layer,
                         bool back);
