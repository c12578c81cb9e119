/* What the parts of the transformer share: weights, the workspace and one pass over it.
 *
 * A pass is a set of rows (tokens of one or many documents) that goes through all layers
 * together. The workspace holds the activations of a pass; layers whose backward will be run have
 * a set each, the layers below share one. It grows to the largest pass asked for and is reused.
 *
 * Letters: D embedding, F feed-forward, Q = heads * head_dim, KV = key heads * head_dim. */
#pragma once

#include "kernels/attention.h"
#include "kernels/matmul.h"
#include "model/arch.h"
#include "model/transformer.h"

typedef struct dure_layer_weights {
    const float *vector[DURE_MODEL_VECTORS]; /* NULL: the architecture has none */
    dure_weight w[DURE_LORA_TARGETS];
} dure_layer_weights;

/* What one layer keeps for its backward pass: activations (kernels/compute.h), rows x width,
 * dense. When that has used them, the gradients of the layer below take their place. */
typedef struct dure_layer_acts {
    void *x;         /* D: input */
    void *mid;       /* D: after attention */
    void *q, *k, *v; /* Q, KV, KV: rotated */
    void *att;       /* Q: attention's output */
    void *gate, *up; /* F */
    void *z;         /* targets x rows x ldz: s x A^T */
    /* Where the architecture has these norms: what they normed. */
    void *q_kept, *k_kept;         /* Q, KV */
    void *att_kept, *ffn_kept;     /* D */
    float *lse;                    /* heads */
    float *gradients;              /* the whole set, as room for them */
    void *sums[DURE_LORA_TARGETS]; /* out: with DoRA, the products before their gains */
} dure_layer_acts;

typedef struct dure_workspace_need {
    size_t rows, rank, stored; /* stored: layers with a set of their own, counted from the top */
    size_t keys, longest;      /* of all documents of a pass, and of one; at least `rows` */
    size_t gradients;          /* floats of one document's gradient in one layer; 0: no backward */
    size_t gradient;           /* and in all layers */
    size_t whole;              /* documents of a pass that have room for all layers' gradients */
    size_t checkpoints;        /* layers below those whose input is kept, to compute them again */
    size_t logits;             /* rows of logits that are asked for as such */
    size_t dora;               /* bit t: the sums of target t are kept for the way back */
} dure_workspace_need;

typedef struct dure_workspace {
    dure_workspace_need has;
    size_t ldz;
    dure_layer_acts *sets; /* stored + 1 */
    size_t set_floats;     /* room in a set's `gradients` */
    float *res;            /* rows x D: the residual stream */
    float *checkpoints;    /* layers x rows x D: that stream as it entered them */
    float *added;          /* rows x D: what is normed before it is added to it */
    void *norm;            /* rows x D activations */
    void *h;               /* rows x F */
    void *packed;          /* of attention */
    float *spare;          /* gradients of the top layer */
    float *gradient;       /* all of one document's; with checkpoints, of `whole` of them */
    /* Backward: gradients of the arrays of the same name; dy is dres as activations. */
    float *dres, *dnorm;
    void *dy, *dq, *dk, *dv, *datt, *dz;
    /* The head, for at most `labels` rows at a time. */
    size_t labels, p_ld, logits_ld;
    float *head_x, *head_dnorm, *max, *sum, *at_label, *logits;
    void *head_norm, *head_kept, *p;
    void *arena; /* owns all of the above */
    size_t arena_bytes;
    /* The pass under way, `rows` elements each. */
    int32_t *tokens;
    uint32_t *position;
    dure_attention_doc *docs;
    size_t *doc_index; /* of docs[i] in the caller's list */
    size_t *label_row; /* the row that predicts label i */
    int32_t *label;
    float *label_weight, *nll;
} dure_workspace;

typedef struct dure_transformer_device dure_transformer_device; /* model/transformer_device.h */

struct dure_transformer {
    dure_model_shape shape;
    dure_model_arch arch;
    uint32_t rows;      /* of a pass */
    uint32_t recompute; /* layers */
    size_t whole;       /* documents of a pass with gradients of their own, where layers are
                           computed twice */
    const dure_gguf *gguf;
    dure_layer_weights *layers;
    dure_weight embedding, head;
    const float *output_norm;
    float *norms; /* owns every vector */
    dure_rope_table rope, rope_sliding;
    dure_pool *pool;
    dure_compute compute;
    double peak;          /* FLOP/s of the multipliers, measured once; 0: not yet */
    dure_profile profile; /* compute.profile points here, or nowhere */
    dure_workspace ws;
    uint64_t device_bytes;           /* of a GPU's memory, at most; 0: what is free */
    dure_transformer_device *device; /* runs the passes; NULL: the CPU does */
    void *packed;                    /* owns every packed weight; NULL: decoded for each product */
    size_t packed_bytes;
    char path[96];
};

/* Keys and values of one conversation, for kernels that go on where an earlier pass ended:
 * [layer][position][KV]. */
typedef struct dure_kv_cache {
    void *k, *v;      /* activations */
    size_t positions; /* capacity */
    size_t n;         /* filled */
} dure_kv_cache;

/* One pass: ws.tokens, ws.position and ws.docs hold its rows. */
typedef struct dure_pass {
    const dure_lora *lora; /* may be NULL */
    size_t rows, n_docs, n_labels;
    dure_kv_cache **caches; /* one a document; NULL: the pass is whole documents */
    bool few;               /* a handful of rows whose bits may depend on their number */
    bool keep;              /* a backward pass follows */
    const struct dure_dropout *dropout; /* NULL: none */
} dure_pass;

/* A and B of one adapted matrix as weights, and alpha / rank; false when it is not adapted. */
typedef struct dure_lora_pair {
    dure_weight a, b;
    float scale;
} dure_lora_pair;
bool dure_transformer_pair(dure_lora_pair *out, const dure_lora *lora, uint32_t layer,
                           dure_lora_target target);

/* The weight of a layer that the products before it are to bring nearer; nothing when there is no
 * such layer. */
dure_ahead dure_transformer_ahead(const dure_transformer *t, uint32_t layer, dure_lora_target first,
                                  bool transposed);

/* Floats of t->norms. */
size_t dure_transformer_vector_floats(const dure_transformer *t);
/* Bytes that packed copies of all products' weights take; makes them, unless they are there. */
size_t dure_transformer_packed_bytes(dure_transformer *t);
DURE_MUST_USE dure_err dure_transformer_pack_weights(dure_transformer *t);

/* Grows the workspace to at least what is named; contents are lost when it grows. */
DURE_MUST_USE dure_err dure_transformer_reserve(dure_transformer *t, dure_workspace_need need);
void dure_workspace_fini(dure_workspace *ws);
/* Bytes that a workspace for `need` and the threads' scratch beside it take once they are used. */
size_t dure_workspace_bytes(const dure_transformer *t, dure_workspace_need need);

/* What becomes of the heads of q or k of a layer of the pass, whose activations are `y`. */
dure_heads dure_transformer_heads(dure_transformer *t, uint32_t layer, dure_lora_target target);
/* Tokens that a query of the layer sees; 0: all before it. */
size_t dure_transformer_window(const dure_transformer *t, uint32_t layer);
/* The set of layer `layer`; layers that are not stored share one. */
dure_layer_acts *dure_transformer_acts(dure_transformer *t, uint32_t layer);

/* Checks tokens and marks of every document; DURE_ERR_USAGE names the first bad one. */
DURE_MUST_USE dure_err dure_transformer_check_docs(const dure_transformer *t,
                                                   const dure_document *docs, size_t n_docs,
                                                   dure_diag *diag);
/* Rows that a document needs: up to its last label. 0: it has none. */
size_t dure_document_rows(const dure_document *doc);
/* Packs documents docs[*next..] as far as rows and max_docs allow (at least one), leaving out
 * those without labels, and advances *next. The workspace must hold the largest document. */
void dure_transformer_pack(dure_pass *pass, size_t *next, dure_transformer *t,
                           const dure_document *docs, size_t n_docs, size_t max_docs);

/* DURE_ERR_USAGE when the adapter was made for a model of another shape; NULL is fine. */
DURE_MUST_USE dure_err dure_transformer_check_lora(const dure_transformer *t, const dure_lora *lora,
                                                   dure_diag *diag);

/* All layers; the result is ws.res. */
void dure_transformer_run(dure_transformer *t, dure_pass *pass);
/* Layer `layer` once more, from its checkpoint: its activations are then in the shared set, and
 * ws.res is what it was after the layer. */
void dure_transformer_run_again(dure_transformer *t, const dure_pass *pass, uint32_t layer);
/* Where the stream that enters the layer is kept; NULL when its activations are kept, or no
 * backward pass reaches it. */
float *dure_transformer_checkpoint(const dure_transformer *t, uint32_t layer);
/* ws.nll of labels [first, first + n), n <= ws.labels; with `gradient`, dL/dx of L = sum of
 * label_weight * nll is written to the labels' rows of ws.dres. */
void dure_transformer_head(dure_transformer *t, size_t first, size_t n, bool gradient);
/* logits[rows x ws.logits_ld] of rows [first, first + n) of res into ws.logits. */
void dure_transformer_logits(dure_transformer *t, const size_t *row, size_t n, bool few);

/* Where each factor's gradient lies in one document's vector, SIZE_MAX when it is not trained. A
 * layer's are next to each other, from layer_at[layer] to layer_at[layer + 1]. */
typedef struct dure_gradient_map {
    size_t (*offset)[DURE_LORA_TARGETS][2];
    size_t *layer_at; /* n_layers + 1 */
    bool together;    /* all documents of a pass as one */
    bool dropout;
    const dure_gradient_clip *clip; /* NULL: none */
    size_t n;                       /* floats a document */
    size_t widest;                  /* floats of the layer with the most */
} dure_gradient_map;

/* Room on t's device for passes of t's rows, and for a document of so many: of half as many rows,
 * as often as its memory asks for that. */
DURE_MUST_USE dure_err dure_transformer_prepare_device(dure_transformer *t,
                                                       dure_workspace_need need,
                                                       const dure_lora *lora,
                                                       const dure_gradient_map *map,
                                                       size_t longest_doc, dure_diag *diag);

/* Checks the adapter and the documents, and reserves what a pass over them needs; `map` NULL: no
 * backward. */
DURE_MUST_USE dure_err dure_transformer_prepare(dure_transformer *t, const dure_lora *lora,
                                                const dure_document *docs, size_t n_docs,
                                                const dure_gradient_map *map, dure_diag *diag);

/* From ws.dres down to the first adapted layer, where the gradients of all documents of the pass
 * are written: see dure_transformer_layer_gradients(). */
void dure_transformer_run_backward(dure_transformer *t, const dure_pass *pass,
                                   const dure_gradient_map *map);
/* The gradients of one layer and document of the pass, map->layer_at[layer + 1] - [layer] floats.
 * They lie where the activations of the layer above were, until the next pass; with checkpoints, in
 * ws.gradient, which has room for ws.has.whole documents. */
float *dure_transformer_layer_gradients(dure_transformer *t, const dure_gradient_map *map,
                                        uint32_t layer, size_t doc);
