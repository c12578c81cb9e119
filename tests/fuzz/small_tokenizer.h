/* A byte-level tokenizer with a few merges, made once for the fuzz targets that need one. */
#pragma once

#include "model/chat_template.h"
#include "model/gguf_write.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct small_tokenizer {
    dure_tokenizer *t;
    dure_chat_template chat;
} small_tokenizer;

enum { SMALL_SPECIALS = 3, SMALL_MERGES = 8, SMALL_TOKENS = SMALL_SPECIALS + 256 + SMALL_MERGES };

static inline void small_tokens(char texts[SMALL_TOKENS][24], char merges[SMALL_MERGES][24])
{
    static const char *const specials[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
    static const char *const pairs[SMALL_MERGES][2] = {{"a", "a"}, {"aa", "aa"}, {"Ġ", "t"},
                                                       {"h", "e"}, {"Ġt", "he"}, {"Ġ", "Ġ"},
                                                       {"Ċ", "Ċ"}, {"ê", "°"}};
    int next = 0x100;
    for (int i = 0; i < SMALL_SPECIALS; i++)
        snprintf(texts[i], 24, "%s", specials[i]);
    for (int b = 0; b < 256; b++) {
        bool prints = (b >= 33 && b <= 126) || (b >= 161 && b != 173);
        int code = prints ? b : next++;
        if (code < 128)
            snprintf(texts[SMALL_SPECIALS + b], 24, "%c", code);
        else
            snprintf(texts[SMALL_SPECIALS + b], 24, "%c%c", 0xc0 | code >> 6, 0x80 | (code & 63));
    }
    for (int i = 0; i < SMALL_MERGES; i++) {
        snprintf(texts[SMALL_SPECIALS + 256 + i], 24, "%s%s", pairs[i][0], pairs[i][1]);
        snprintf(merges[i], 24, "%s %s", pairs[i][0], pairs[i][1]);
    }
}

static inline const small_tokenizer *small_tokenizer_get(void)
{
    static small_tokenizer made;
    if (made.t) return &made;
    static char texts[SMALL_TOKENS][24], merges[SMALL_MERGES][24];
    dure_span tokens[SMALL_TOKENS], joined[SMALL_MERGES];
    int32_t types[SMALL_TOKENS];
    small_tokens(texts, merges);
    for (int i = 0; i < SMALL_TOKENS; i++) {
        tokens[i] = dure_span_of_text(texts[i]);
        types[i] = i < SMALL_SPECIALS ? 3 : 1;
    }
    for (int i = 0; i < SMALL_MERGES; i++)
        joined[i] = dure_span_of_text(merges[i]);
    dure_gguf_writer *w = NULL;
    dure_gguf *g = NULL;
    dure_diag diag = {{0}};
    dure_buf b;
    dure_buf_init(&b, 1 << 20);
    bool failed = dure_gguf_writer_new(&w) != DURE_OK;
    dure_gguf_put_text(w, "tokenizer.ggml.model", dure_span_of_text("gpt2"));
    dure_gguf_put_text(w, "tokenizer.ggml.pre", dure_span_of_text("smollm"));
    dure_gguf_put_texts(w, "tokenizer.ggml.tokens", tokens, SMALL_TOKENS);
    dure_gguf_put_i32s(w, "tokenizer.ggml.token_type", types, SMALL_TOKENS);
    dure_gguf_put_texts(w, "tokenizer.ggml.merges", joined, SMALL_MERGES);
    failed = failed || dure_gguf_writer_encode(&b, w) ||
             dure_gguf_parse(&g, dure_buf_span(&b), NULL, &diag) ||
             dure_tokenizer_new(&made.t, g, &diag) ||
             dure_chat_template_open(&made.chat, "smollm2", g, made.t, &diag);
    if (failed) {
        fprintf(stderr, "the small tokenizer: %s\n", diag.text);
        abort();
    }
    dure_gguf_close(&g);
    dure_gguf_writer_free(&w);
    dure_buf_fini(&b);
    return &made;
}
