/* Generation: one decoder holds the keys and values of one conversation.
 *
 * Many decoders may share one transformer (a server's slots). They share its workspace and its
 * threads too, so calls on decoders of one transformer, and calls on the transformer itself, must
 * not overlap: the caller serialises them, token by token if it wants the slots to take turns.
 *
 * The bits of the logits may depend on how the tokens were fed (many at once or one by one). */
#pragma once

#include "model/tokenizer.h"
#include "model/transformer.h"

typedef struct dure_decoder dure_decoder;

/* Room for `context` tokens, 0 or more than the model's: the model's context. Memory is touched
 * as the conversation grows: 2 x layers x key width x 4 bytes a token, half of it in bf16; a GPU's
 * is taken at once. `t` outlives *out. */
DURE_MUST_USE dure_err dure_decoder_new(dure_decoder **out, dure_transformer *t, size_t context);
void dure_decoder_free(dure_decoder **d);

/* Goes on with n >= 1 tokens; afterwards the logits are those that follow the last of them. One
 * conversation uses one adapter throughout. DURE_ERR_LIMIT: the context is full; DURE_ERR_USAGE: a
 * token or the adapter does not fit the model. On error nothing is taken. */
DURE_MUST_USE dure_err dure_decoder_feed(dure_decoder *d, const dure_lora *lora,
                                         const int32_t *tokens, size_t n, dure_diag *diag);

/* Hears, in order, the logits that follow tokens[0..i], vocabulary floats borrowed for the call.
 * Returns false to stop. */
typedef bool dure_logits_sink(void *state, size_t i, const float *logits);

/* As dure_decoder_feed(), and `sink` hears the logits at each of the n tokens: what scoring a given
 * text needs. They are the same bits however the text is cut, as long as all of it is scored.
 * DURE_ERR_CANCELLED: the sink stopped. */
DURE_MUST_USE dure_err dure_decoder_score(dure_decoder *d, const dure_lora *lora,
                                          const int32_t *tokens, size_t n, dure_logits_sink *sink,
                                          void *state, dure_diag *diag);

/* One token each of n <= DURE_DECODERS_TOGETHER decoders of one transformer with one adapter: one
 * pass over the weights serves all of them, so eight together take little longer than one.
 * Errors as above. */
enum { DURE_DECODERS_TOGETHER = 64 };
DURE_MUST_USE dure_err dure_decoder_feed_each(dure_decoder *const *decoders, const int32_t *tokens,
                                              size_t n, const dure_lora *lora, dure_diag *diag);
size_t dure_decoder_length(const dure_decoder *d); /* tokens taken */
size_t dure_decoder_room(const dure_decoder *d);   /* tokens that still fit */
/* Forgets all but the first n tokens (n <= length); feed at least one before reading logits. */
void dure_decoder_rewind(dure_decoder *d, size_t n);
/* vocabulary floats, borrowed until the next feed of this decoder. */
const float *dure_decoder_logits(const dure_decoder *d);

typedef struct dure_sampling {
    double temperature; /* 0: the most likely token, the lowest id among equals */
    double top_p;       /* 0 or 1: all tokens; else the fewest whose mass reaches it */
    uint64_t seed;      /* same seed, model and tokens: same text */
} dure_sampling;

typedef struct dure_sampler {
    dure_sampling how;
    uint64_t state;
    struct dure_candidate *room; /* owned: vocabulary entries */
    size_t n_vocab;
} dure_sampler;

DURE_MUST_USE dure_err dure_sampler_init(dure_sampler *s, const dure_sampling *how, size_t n_vocab);
void dure_sampler_fini(dure_sampler *s);
int32_t dure_sampler_next(dure_sampler *s, const float *logits);

/* Natural logarithm of the probability of `id` at temperature 1. */
float dure_logprob(const float *logits, size_t n_vocab, int32_t id);
/* Those of n tokens, for the price of one. */
void dure_logprob_each(float *logprobs, const int32_t *ids, size_t n, const float *logits,
                       size_t n_vocab);
/* The n most likely tokens, most likely first. */
void dure_top_tokens(int32_t *ids, size_t n, const float *logits, size_t n_vocab);

typedef enum dure_finish {
    DURE_FINISH_STOP,      /* the model ended its answer */
    DURE_FINISH_LENGTH,    /* max_tokens or the context is reached */
    DURE_FINISH_CANCELLED, /* the callback said so */
} dure_finish;

/* Hears of each token as it is chosen, end tokens aside; returns false to stop. */
typedef bool dure_token_sink(void *state, int32_t id);

typedef struct dure_generation {
    const dure_lora *lora;           /* may be NULL */
    const dure_tokenizer *tokenizer; /* says what ends an answer */
    dure_sampling sampling;
    size_t max_tokens; /* 0: as the context allows */
    dure_token_sink *sink;
    void *state;
} dure_generation;

/* Feeds the prompt, then chooses tokens until one of the reasons to finish. */
DURE_MUST_USE dure_err dure_generate(dure_finish *finish, dure_decoder *d, const int32_t *prompt,
                                     size_t n, const dure_generation *opts, dure_diag *diag);
