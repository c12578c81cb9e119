/* Tokenizers of every kind with a few merges, made once for the fuzz targets that need one. */
#pragma once

#include "model/chat_template.h"
#include "model/gguf_write.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum small_kind {
    SMALL_SMOLLM,
    SMALL_GPT2,
    SMALL_LLAMA3,
    SMALL_QWEN2,
    SMALL_SPM,
    SMALL_GEMMA, /* SPM without a space before a text, and with user-defined tokens */
    SMALL_KINDS
} small_kind;

typedef struct small_tokenizer {
    dure_gguf *gguf;
    dure_tokenizer *t;
    dure_chat_template chat; /* smollm2 */
} small_tokenizer;

enum { SMALL_SPECIALS = 9, SMALL_MERGES = 8, SMALL_USER = 4, SMALL_ALL = 9 + 256 + 8 + 4 };

typedef struct small_lists {
    char texts[SMALL_ALL][24], merges[SMALL_MERGES][24];
    dure_span tokens[SMALL_ALL], joined[SMALL_MERGES];
    int32_t types[SMALL_ALL];
    float scores[SMALL_ALL];
    size_t n;
} small_lists;

static inline void small_add(small_lists *l, int32_t type, const char *left, const char *right)
{
    snprintf(l->texts[l->n], 24, "%s%s", left, right);
    l->tokens[l->n] = dure_span_of_text(l->texts[l->n]);
    l->scores[l->n] = -(float)l->n;
    l->types[l->n++] = type;
}

static inline void small_add_bytes(small_lists *l, bool spm)
{
    int next = 0x100;
    for (int b = 0; b < 256; b++) {
        bool prints = (b >= 33 && b <= 126) || (b >= 161 && b != 173);
        int code = prints ? b : next++;
        char text[8];
        if (spm)
            snprintf(text, sizeof text, "<0x%02X>", (unsigned)b);
        else if (code < 128)
            snprintf(text, sizeof text, "%c", code);
        else
            snprintf(text, sizeof text, "%c%c", 0xc0 | code >> 6, 0x80 | (code & 63));
        small_add(l, spm ? 6 : 1, text, "");
    }
}

static inline void small_list(small_lists *l, small_kind kind)
{
    static const char *const specials[SMALL_SPECIALS] = {
        "<|endoftext|>", "<|im_start|>",        "<|im_end|>",
        "<bos>",         "<|start_header_id|>", "<|end_header_id|>",
        "<|eot_id|>",    "<start_of_turn>",     "<end_of_turn>"};
    static const char *const pairs[SMALL_MERGES][2] = {{"a", "a"}, {"aa", "aa"}, {"Ġ", "t"},
                                                       {"h", "e"}, {"Ġt", "he"}, {"Ġ", "Ġ"},
                                                       {"Ċ", "Ċ"}, {"ê", "°"}};
    static const char *const spm[SMALL_MERGES][2] = {{"a", ""},    {"aa", ""},  {"▁", ""},
                                                     {"▁▁", ""},   {"▁t", ""},  {"he", ""},
                                                     {"▁the", ""}, {"h", "e▁a"}};
    static const char *const user[SMALL_USER] = {"\n", "\n\n", "  ", "<x>"};
    bool bytes = kind < SMALL_SPM;
    l->n = 0;
    for (int i = 0; i < SMALL_SPECIALS; i++)
        small_add(l, 3, specials[i], "");
    small_add_bytes(l, !bytes);
    for (int i = 0; i < SMALL_MERGES; i++) {
        small_add(l, 1, bytes ? pairs[i][0] : spm[i][0], bytes ? pairs[i][1] : spm[i][1]);
        snprintf(l->merges[i], 24, "%s %s", pairs[i][0], pairs[i][1]);
        l->joined[i] = dure_span_of_text(l->merges[i]);
    }
    for (int i = 0; i < SMALL_USER && kind == SMALL_GEMMA; i++)
        small_add(l, 4, user[i], "");
}

static inline void small_make(small_tokenizer *made, small_kind kind)
{
    static const char *const splitters[] = {"smollm", "gpt-2", "llama-bpe", "qwen2"};
    static small_lists l;
    bool bytes = kind < SMALL_SPM;
    dure_gguf_writer *w = NULL;
    dure_diag diag = {{0}};
    static dure_buf files[SMALL_KINDS]; /* the GGUF borrows its bytes */
    dure_buf *b = &files[kind];
    small_list(&l, kind);
    dure_buf_init(b, 1 << 20);
    bool failed = dure_gguf_writer_new(&w) != DURE_OK;
    dure_gguf_put_text(w, "tokenizer.ggml.model", dure_span_of_text(bytes ? "gpt2" : "llama"));
    dure_gguf_put_texts(w, "tokenizer.ggml.tokens", l.tokens, l.n);
    dure_gguf_put_i32s(w, "tokenizer.ggml.token_type", l.types, l.n);
    dure_gguf_put_u32(w, "tokenizer.ggml.bos_token_id", 3);
    if (bytes) {
        dure_gguf_put_text(w, "tokenizer.ggml.pre", dure_span_of_text(splitters[kind]));
        dure_gguf_put_texts(w, "tokenizer.ggml.merges", l.joined, SMALL_MERGES);
    } else {
        dure_gguf_put_f32s(w, "tokenizer.ggml.scores", l.scores, l.n);
        dure_gguf_put_bool(w, "tokenizer.ggml.add_space_prefix", kind == SMALL_SPM);
    }
    failed = failed || dure_gguf_writer_encode(b, w) ||
             dure_gguf_parse(&made->gguf, dure_buf_span(b), NULL, &diag) ||
             dure_tokenizer_new(&made->t, made->gguf, &diag) ||
             dure_chat_template_open(&made->chat, "smollm2", made->gguf, made->t, &diag);
    if (failed) {
        fprintf(stderr, "the small tokenizer: %s\n", diag.text);
        abort();
    }
    dure_gguf_writer_free(&w);
}

static inline const small_tokenizer *small_tokenizer_of(small_kind kind)
{
    static small_tokenizer made[SMALL_KINDS];
    if (!made[kind].t) small_make(&made[kind], kind);
    return &made[kind];
}

static inline const small_tokenizer *small_tokenizer_get(void)
{
    return small_tokenizer_of(SMALL_SMOLLM);
}
