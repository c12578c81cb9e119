/* The base model with an optional adapter: loss, log-probabilities and per-record gradients.
 *
 * The base is frozen and quantized; products run in bf16 or f32 (accumulated in f32) as the CPU
 * allows; the residual stream and all parameters are f32. Records are packed many to a pass behind
 * a document mask: a record's result is the same bit for bit alone, in any packing, and with any
 * number of threads, because privacy counts on its clipped integer gradient being the record's own.
 *
 * Threads: one call at a time on one dure_transformer; it uses its own pool inside. */
#pragma once

#include "common/err.h"
#include "kernels/compute.h"
#include "model/gguf.h"
#include "model/lora.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum dure_precision {
    DURE_PRECISION_AUTO, /* bf16 where the CPU multiplies it, else f32 */
    DURE_PRECISION_F32,
    DURE_PRECISION_BF16,
    DURE_PRECISION_REFERENCE, /* the plain C path, f32: the truth that tests compare with */
} dure_precision;

/* Where the weights of products come from. */
typedef enum dure_weights {
    DURE_WEIGHTS_AUTO,   /* packed where that takes no more than half of the machine's memory */
    DURE_WEIGHTS_PACKED, /* a copy of 2 bytes a weight, made at once; with bf16 alone */
    DURE_WEIGHTS_FILE,   /* decoded anew for every product */
} dure_weights;

typedef struct dure_transformer_opts {
    uint32_t threads; /* 0: the physical cores */
    dure_precision precision;
    uint32_t rows; /* rows (tokens) packed to a pass, 0: 512 */
    bool profile;  /* measure where the time goes */
    dure_weights weights;
    /* Layers whose activations are not kept for the backward pass but computed a second time; more
     * than are trained: all. It changes no bit of the results. */
    uint32_t recompute;
    /* Passes run on GPU number `device`, in a build with CUDA; 512 rows become 8192. Where its
     * memory does not suffice they are fewer, and more layers are computed twice. */
    bool cuda;
    int device;
    uint64_t device_bytes; /* of the GPU's memory, at most; 0: what is free */
} dure_transformer_opts;

typedef struct dure_transformer dure_transformer;

/* `gguf` must outlive *out. The caller owns *out, dure_transformer_free(&t). An architecture or
 * tensor that is not supported is DURE_ERR_UNSUPPORTED and named. */
DURE_MUST_USE dure_err dure_transformer_new(dure_transformer **out, const dure_gguf *gguf,
                                            const dure_transformer_opts *opts, dure_diag *diag);
void dure_transformer_free(dure_transformer **t);
const dure_model_shape *dure_transformer_shape(const dure_transformer *t);
/* "bf16, avx512_bf16": what runs, for the one line that says so. */
const char *dure_transformer_path(const dure_transformer *t);

/* Tokens that are packed to a pass; a longer record has one of its own. */
size_t dure_transformer_rows(const dure_transformer *t);

/* The threads it computes with, for the work between passes; not during a pass. A sink is between
 * passes. */
const dure_compute *dure_transformer_compute(const dure_transformer *t);

/* With DoRA, sets the magnitudes to the norms of the rows of W + s B A, so that the adapter gives
 * what it gives without them; nothing otherwise. Whoever makes an adapter anew calls it. */
DURE_MUST_USE dure_err dure_transformer_init_magnitudes(dure_transformer *t, dure_lora *lora,
                                                        dure_diag *diag);

/* NULL unless opts.profile. Borrowed; who does more than the transformer in a step enters phases of
 * his own. */
dure_profile *dure_transformer_profile(dure_transformer *t);

/* One record. supervised[i] != 0: token i is a label, predicted from tokens [0, i). supervised[0]
 * must be 0. Everything is borrowed. */
typedef struct dure_document {
    const int32_t *tokens;
    const uint8_t *supervised;
    size_t n;
} dure_document;

typedef struct dure_document_loss {
    double nll_sum;    /* natural logarithm, over the labels */
    uint32_t n_labels; /* 0: nothing was computed */
    bool finite;       /* false: a value overflowed or was not a number */
} dure_document_loss;

/* losses[i] of docs[i]; `lora` may be NULL. */
DURE_MUST_USE dure_err dure_transformer_loss(dure_document_loss *losses, dure_transformer *t,
                                             const dure_lora *lora, const dure_document *docs,
                                             size_t n_docs, dure_diag *diag);

/* logprobs[i] = log p(tokens[i] | tokens[0..i)) for i >= 1; logprobs[0] = 0. */
DURE_MUST_USE dure_err dure_transformer_logprobs(float *logprobs, dure_transformer *t,
                                                 const dure_lora *lora, const int32_t *tokens,
                                                 size_t n, dure_diag *diag);

/* Receives, in order of the documents, the gradient of one record's loss with respect to the
 * trained factors (dure_lora_pack order); `gradient` is borrowed for the call and is NULL for a
 * record without labels. The loss is the mean over the record's labels, or their sum.
 * With `together`, records that were worked on together share one gradient, the sum of theirs: it
 * comes with the last of them that has labels, the others get NULL. */
typedef dure_err dure_gradient_sink(void *state, size_t doc, const float *gradient,
                                    const dure_document_loss *loss);

/* On a GPU each record's gradient can be clipped to integers, and these be added up, where it is:
 * the bounds are those of dp/quantize.h, and so are the integers, bit for bit. */
typedef struct dure_clip_outcome {
    double norm_square; /* of the record's gradient */
    bool added;         /* false: it is not finite, or its integers do not fit; it gives nothing */
} dure_clip_outcome;

typedef struct dure_gradient_clip {
    double per_unit, norm_most;
    uint64_t squares_most;
    int64_t *sum; /* one a trained parameter: what it holds, and every record's integers. It goes to
                     the GPU and comes back once; on error its contents are of no use */
    dure_clip_outcome *outcome; /* one a document: there when the sink hears of it; of one without
                                   labels, as it was */
    bool show;                  /* the sink gets the gradients too, else NULL */
} dure_gradient_clip;

/* Whether t does that. */
bool dure_transformer_clips(const dure_transformer *t);

typedef struct dure_gradient_opts {
    dure_lora_factor factors;
    bool sum_of_labels; /* false: mean over the record's labels */
    bool together;      /* faster, where nobody asks for a record's own gradient */
    /* Share of each adapter input that is zeroed, by a mask that is a function of the record's
     * seed; the loss is then that of what is left. 0: none. At most 0.95. */
    double dropout;
    const uint64_t *dropout_seeds;  /* one a document */
    const dure_gradient_clip *clip; /* NULL: none. Not with `together`, nor where nothing clips */
} dure_gradient_opts;

DURE_MUST_USE dure_err dure_transformer_gradients(dure_transformer *t, const dure_lora *lora,
                                                  const dure_gradient_opts *opts,
                                                  const dure_document *docs, size_t n_docs,
                                                  dure_gradient_sink *sink, void *state,
                                                  dure_diag *diag);

/* --- memory and time, before anything starts --- */

/* What is to be trained. */
typedef struct dure_training_load {
    const dure_lora_layout *layout;
    dure_lora_factor factors;
    bool together, dropout; /* as in dure_gradient_opts */
    size_t longest, length; /* tokens of the longest record, and of a usual one (0: the longest) */
    double labels;          /* share of the tokens that are labels; 0: all */
    double batch;           /* usual records a step; 0: more than a pass takes */
    uint64_t other_bytes;   /* what the caller takes himself: optimizer, records */
} dure_training_load;

/* A way to do it. */
typedef struct dure_transformer_fit {
    bool packed;        /* weights; else from the file */
    uint32_t recompute; /* layers */
    size_t rows;
    /* Records of a pass at most, where layers are computed twice and each record has a gradient of
     * its own. */
    size_t whole;
    uint64_t bytes;           /* of the process, at most */
    double seconds_per_token; /* of forward and backward, with what each record's gradient takes */
    double seconds_to_judge;  /* a token: forward alone */
    double seconds_to_clip;   /* a record's gradient; 0 where records have none of their own */
    double seconds_per_step;  /* beside its tokens; dure_trainer_fit() adds its own */
    /* What a token asks for at least, each layer computed once, and what the multipliers do at
     * most: their ratio is the limit of any program. */
    double flops_per_token, peak_flops;
} dure_transformer_fit;

/* The way it goes on a GPU: how weights are held (packed: as bfloat16), the rows of a pass, layers
 * computed twice, and the GPU's memory that all of it has taken so far. A pass takes what later
 * ones of its kind need. All zero on the CPU. */
dure_transformer_fit dure_transformer_device_fit(const dure_transformer *t);

/* The quickest way that stays within limit_bytes (0: no limit), a function of the shapes, the limit
 * and the number of threads; and its time, from a few milliseconds of measuring the multipliers.
 * DURE_ERR_LIMIT with a sentence if there is none; *out is then the smallest. `t` is best made with
 * DURE_WEIGHTS_FILE: nothing is packed yet. */
DURE_MUST_USE dure_err dure_transformer_fit_find(dure_transformer_fit *out, dure_transformer *t,
                                                 const dure_training_load *load,
                                                 uint64_t limit_bytes, dure_diag *diag);
/* From now on `t` works that way; packs its weights if that is so. */
DURE_MUST_USE dure_err dure_transformer_adopt(dure_transformer *t, const dure_transformer_fit *fit);
