/* A LoRA adapter in memory: for each adapted matrix W (out x in) a pair A (rank x in) and
 * B (out x rank), with y = W x + (alpha / rank) B (A x). Hu et al., arXiv 2106.09685.
 *
 * DoRA (Liu et al., arXiv 2402.09353) adds a magnitude m (out) to each: y = m / |W + s B A| times
 * what LoRA gives, with the norm of each row of W + s B A taken as a constant by the gradient.
 *
 * All parameters lie in one float32 vector in canonical order: by layer, then by target in the
 * order of dure_lora_target, A before B before m, each row-major in the row order of the GGUF. The
 * layout is a function of its public fields alone, so two programs that agree on them agree on the
 * vector that is clipped, noised, masked and summed. */
#pragma once

#include "common/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum dure_lora_target {
    DURE_LORA_Q,
    DURE_LORA_K,
    DURE_LORA_V,
    DURE_LORA_O,
    DURE_LORA_GATE,
    DURE_LORA_UP,
    DURE_LORA_DOWN,
    DURE_LORA_TARGETS
} dure_lora_target;

/* The magnitudes of DoRA belong to factor B: they are trained with it and packed after it. */
typedef enum dure_lora_factor {
    DURE_LORA_FACTOR_A = 1,
    DURE_LORA_FACTOR_B = 2,
    DURE_LORA_FACTOR_BOTH = 3,
} dure_lora_factor;

enum { DURE_LORA_RANK_MAX = 256 };

/* What of the base model the layout depends on. */
typedef struct dure_model_shape {
    char architecture[32]; /* "llama" */
    uint32_t n_layers, n_embd, n_ff, n_head, n_head_kv, head_dim, n_vocab, n_context;
} dure_model_shape;

typedef struct dure_lora_layout {
    dure_model_shape shape;
    uint32_t rank;
    float alpha;
    uint32_t targets;                  /* bit t set: target t is adapted */
    uint32_t first_layer;              /* layers [first_layer, n_layers) are adapted */
    uint32_t ranks[DURE_LORA_TARGETS]; /* a target's own rank; 0: `rank` */
    bool dora;
} dure_lora_layout;

/* A target's rank, the highest of the adapted targets', and a target's alpha / rank. */
uint32_t dure_lora_rank(const dure_lora_layout *layout, dure_lora_target target);
uint32_t dure_lora_rank_most(const dure_lora_layout *layout);
float dure_lora_scale(const dure_lora_layout *layout, dure_lora_target target);
/* Gives equal adapters equal fields: `rank` becomes that of the first adapted target, and only
 * targets whose rank differs from it keep one of their own. */
void dure_lora_ranks_settle(dure_lora_layout *layout);
bool dure_lora_layout_equal(const dure_lora_layout *a, const dure_lora_layout *b);

/* DURE_ERR_USAGE with a sentence if a field is out of range (rank 1..DURE_LORA_RANK_MAX, a target,
 * a layer). */
DURE_MUST_USE dure_err dure_lora_layout_check(const dure_lora_layout *layout, dure_diag *diag);

/* in or out features of a target. */
uint32_t dure_lora_in(const dure_model_shape *shape, dure_lora_target target);
uint32_t dure_lora_out(const dure_model_shape *shape, dure_lora_target target);

/* "q,v" or "all" to a bit mask, and back ("q,v"). */
DURE_MUST_USE dure_err dure_lora_targets_parse(uint32_t *targets, const char *text,
                                               dure_diag *diag);
void dure_lora_targets_text(char text[64], uint32_t targets);

/* "a", "b" or "both". */
DURE_MUST_USE dure_err dure_lora_factor_parse(dure_lora_factor *factor, const char *text,
                                              dure_diag *diag);

/* "8" or "8,v=16,o=4" into rank and ranks; and back, settled, as far as targets are adapted. */
DURE_MUST_USE dure_err dure_lora_ranks_parse(dure_lora_layout *layout, const char *text,
                                             dure_diag *diag);
void dure_lora_ranks_text(char text[64], const dure_lora_layout *layout);

/* Parameters of the factors named, over all adapted matrices. */
size_t dure_lora_count(const dure_lora_layout *layout, dure_lora_factor factors);
/* Those of the largest adapter that a base can have. */
size_t dure_lora_count_most(const dure_model_shape *shape);
/* True, with the offset of the factor (A or B) of one matrix in the whole vector, if it is adapted.
 */
bool dure_lora_find(size_t *offset, const dure_lora_layout *layout, uint32_t layer,
                    dure_lora_target target, dure_lora_factor factor);

/* With DoRA, the offset of one matrix's magnitudes in the whole vector. */
bool dure_lora_find_magnitude(size_t *offset, const dure_lora_layout *layout, uint32_t layer,
                              dure_lora_target target);

/* What the engine keeps beside the magnitudes, one of each for every adapted row of the base, by
 * layer, target and row. It follows from the base and the parameters of one version. */
typedef struct dure_lora_norms {
    size_t n;
    double *base; /* |W|^2; valid once `of` is not 0 */
    float *norm;  /* |W + s B A| */
    float *gain;  /* m / norm */
    uint64_t of;  /* the version that norm and gain belong to; 0: none yet */
} dure_lora_norms;

typedef struct dure_lora {
    dure_lora_layout layout;
    size_t n;               /* dure_lora_count(layout, BOTH) */
    float *params;          /* owned, n floats */
    uint64_t version;       /* not 0; no other state of any adapter in the process has had it */
    dure_lora_norms *norms; /* owned; NULL without DoRA */
} dure_lora;

/* Gives it another version. Whoever writes to params says so; dure_lora_unpack() does. */
void dure_lora_changed(dure_lora *lora);
/* Where a matrix's rows begin in `norms`; it is adapted. */
size_t dure_lora_norm_index(const dure_lora_layout *layout, uint32_t layer,
                            dure_lora_target target);

/* All zero. The caller owns *out, dure_lora_free(&lora). */
DURE_MUST_USE dure_err dure_lora_new(dure_lora **out, const dure_lora_layout *layout);
void dure_lora_free(dure_lora **lora);

/* A uniform in +-1/sqrt(in) from `seed`, B zero: PEFT's default start. Deterministic. Magnitudes
 * are left zero: dure_transformer_init_magnitudes(). */
void dure_lora_init_uniform(dure_lora *lora, uint64_t seed);
/* A with orthonormal rows, B zero; a function of `seed` alone, bit for bit on every IEEE 754
 * machine (integers, + - * / sqrt in fixed order; no libm, no contraction). For training B alone.
 */
void dure_lora_init_orthonormal(dure_lora *lora, uint64_t seed);

/* Copies the factors named between the whole vector and active[0..dure_lora_count(factors)),
 * which keeps the canonical order. */
void dure_lora_pack(float *active, const dure_lora *lora, dure_lora_factor factors);
void dure_lora_unpack(dure_lora *lora, const float *active, dure_lora_factor factors);
