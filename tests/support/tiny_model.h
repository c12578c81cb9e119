/* A tiny random llama (or qwen2, qwen3, gemma3) as a GGUF file: a few thousand weights, a
 * byte-level vocabulary of 272 tokens with SmolLM2's special tokens, splitter and chat template.
 * Every test that needs a model makes one of these, so that no test needs a download.
 *
 * The file is a function of the options alone. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum {
    TINY_ENDOFTEXT = 0, /* <|endoftext|> */
    TINY_IM_START = 1,  /* <|im_start|> */
    TINY_IM_END = 2,    /* <|im_end|> */
    TINY_BYTES = 3,     /* the 256 single-byte tokens, in byte order */
    TINY_MERGES = 259,  /* the merged tokens */
    TINY_VOCAB = 272,
};

/* How the matrices are stored (ids of ggml); norms and rope_freqs are always F32. */
enum { TINY_F32 = 0, TINY_F16 = 1, TINY_Q4_1 = 3, TINY_Q8_0 = 8, TINY_BF16 = 30 };

/* Zero means the default in brackets. */
typedef struct tiny_model_opts {
    uint64_t seed;      /* of the weights */
    uint32_t n_layers;  /* [2] */
    uint32_t n_embd;    /* [64] */
    uint32_t n_ff;      /* [96] */
    uint32_t n_head;    /* [4] */
    uint32_t n_head_kv; /* [2] */
    uint32_t head_dim;  /* [n_embd / n_head] */
    uint32_t n_context; /* [512] */
    uint32_t type;      /* [F32] of the matrices; blocked types need widths that 32 divides */
    bool untied;        /* a separate output.weight */
    bool rope_freqs;    /* a rope_freqs.weight of varied factors */
    float weight_scale; /* [1] times 1/sqrt(in) */
    const char *arch;   /* ["llama"]; qwen2, qwen3 and gemma3 have the tensors that theirs have */
    const char *chat_template; /* [SmolLM2's] */
    uint32_t window;           /* [0] sliding window, in every layer but each third */
} tiny_model_opts;

/* Writes the file; aborts the test program on failure. */
void tiny_model_write(const char *path, const tiny_model_opts *opts);
