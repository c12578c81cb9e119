/* What a model computes beyond its sizes, by its architecture:
 *
 *   llama   SmolLM, SmolLM2, Llama 2 and 3, TinyLlama
 *   qwen2   Qwen 2 and 2.5: biases on q, k and v
 *   qwen3   Qwen 3: a norm on every head of q and k, heads wider than embedding / heads
 *   gemma3  Gemma 3 (text): norms before and after each half of a layer, GELU, a scaled embedding,
 *           and a sliding window with its own rotation in five layers of six
 *
 * These facts are not in dure_model_shape, which adapters and protocol messages carry: they follow
 * from the architecture's name and the base file, which its digest pins.
 * Sources: llama.cpp src/models (llama, qwen2, qwen3, gemma3), src/llama-model.cpp; transformers,
 * modeling_gemma3.py. */
#pragma once

#include "kernels/rope.h"
#include "kernels/swiglu.h"
#include "model/gguf.h"
#include "model/lora.h"

enum { DURE_ARCH_MAX_LAYERS = 1024 };

typedef struct dure_model_arch {
    bool rope_halves; /* q and k rotate pairs (i, i + d/2), else (2i, 2i+1) */
    bool qkv_bias;    /* added to q, k and v before anything else */
    bool qk_norm;     /* RMS norm over each head of q and k, before the rotation */
    bool post_norms;  /* RMS norm of what attention and feed-forward add to the residual */
    dure_activation activation; /* of the gate */
    float norm_eps;
    float embedding_scale; /* the embedding's rows times this; the tied head is not scaled */
    float attention_scale; /* of q k^T */
    uint32_t window;       /* tokens that a sliding layer sees, itself included; 0: none slides */
    uint8_t sliding[DURE_ARCH_MAX_LAYERS / 8]; /* bit l % 8 of byte l / 8: layer l slides */
} dure_model_arch;

/* `shape` is that of the file, dure_model_shape_read(). DURE_ERR_UNSUPPORTED names a key whose
 * meaning would be left out. */
DURE_MUST_USE dure_err dure_model_arch_read(dure_model_arch *out, const dure_gguf *gguf,
                                            const dure_model_shape *shape, dure_diag *diag);
bool dure_model_arch_slides(const dure_model_arch *arch, uint32_t layer);

/* Whether `name` is one of the architectures. */
bool dure_model_arch_known(const char *name);
/* Whether the converter to GGUF interleaves the two halves of each head in the rows of q and k. */
bool dure_model_arch_interleaves(const char *name);

/* The angles of the layers that slide, or of all others: frequencies from `rope.freq_base`
 * (sliding: `rope.freq_base_swa`), stretched by `rope.scaling` (linear or yarn; not where a layer
 * slides) and divided by rope_freqs.weight. Another kind of scaling is DURE_ERR_UNSUPPORTED and
 * named. dure_rope_table_reserve() before use, then dure_rope_table_fini(out). */
DURE_MUST_USE dure_err dure_model_rope_read(dure_rope_table *out, const dure_gguf *gguf,
                                            const dure_model_shape *shape,
                                            const dure_model_arch *arch, bool sliding,
                                            dure_diag *diag);

/* The vectors of a layer; which of them there are depends on the architecture. */
typedef enum dure_model_vector {
    DURE_VECTOR_ATTN_NORM,
    DURE_VECTOR_FFN_NORM,
    DURE_VECTOR_Q_BIAS,
    DURE_VECTOR_K_BIAS,
    DURE_VECTOR_V_BIAS,
    DURE_VECTOR_Q_NORM,
    DURE_VECTOR_K_NORM,
    DURE_VECTOR_POST_ATTN_NORM,
    DURE_VECTOR_POST_FFN_NORM,
    DURE_MODEL_VECTORS
} dure_model_vector;

/* Elements of a vector; 0: the architecture has none. */
uint32_t dure_model_vector_size(const dure_model_shape *shape, const dure_model_arch *arch,
                                dure_model_vector vector);
/* "blk.3.attn_q_norm.weight" */
void dure_model_vector_name(char name[64], uint32_t layer, dure_model_vector vector);

/* The whole number "llama.KEY" of a model of any architecture. */
DURE_MUST_USE dure_err dure_model_number(uint32_t *out, const dure_gguf *gguf, const char *key,
                                         dure_diag *diag);
