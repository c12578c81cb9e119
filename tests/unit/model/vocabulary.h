/* A GGUF with nothing but a small vocabulary, for tests of the tokenizers and chat templates. */
#pragma once

#include "support/check.h"

#include "model/gguf_write.h"
#include "model/tokenizer.h"

#include <stdio.h>
#include <string.h>

enum { VOCABULARY_MOST = 40 };

/* Zero means the default in brackets; a text of NULL, a count of 0: the key is left out. */
typedef struct vocabulary {
    const char *model;    /* [gpt2] */
    const char *splitter; /* [smollm] */
    bool bytes;           /* the 256 byte tokens come before `tokens` */
    const char *tokens[VOCABULARY_MOST];
    size_t n;
    int32_t types[VOCABULARY_MOST]; /* 0: as many as tokens, all normal */
    size_t n_types;
    float scores[VOCABULARY_MOST];
    size_t n_scores;
    const char *merges[VOCABULARY_MOST];
    size_t n_merges;
    const uint32_t *bos, *eos;
    const bool *adds_bos, *adds_space;
    const char *chat_template, *name;
} vocabulary;

typedef struct vocabulary_file {
    dure_buf bytes;
    dure_gguf *gguf;
    dure_tokenizer *t;
} vocabulary_file;

typedef struct vocabulary_lists {
    char byte_texts[256][8];
    dure_span tokens[256 + VOCABULARY_MOST], merges[VOCABULARY_MOST];
    int32_t types[256 + VOCABULARY_MOST];
    float scores[256 + VOCABULARY_MOST];
    size_t n;
} vocabulary_lists;

static inline void vocabulary_add_bytes(vocabulary_lists *l, bool spm)
{
    int next = 0x100;
    for (int b = 0; b < 256; b++) {
        bool prints = (b >= 33 && b <= 126) || (b >= 161 && b != 173);
        int code = prints ? b : next++;
        if (spm)
            snprintf(l->byte_texts[b], 8, "<0x%02X>", (unsigned)b);
        else if (code < 128)
            snprintf(l->byte_texts[b], 8, "%c", code);
        else
            snprintf(l->byte_texts[b], 8, "%c%c", 0xc0 | code >> 6, 0x80 | (code & 63));
        l->tokens[l->n] = dure_span_of_text(l->byte_texts[b]);
        l->scores[l->n] = 0;
        l->types[l->n++] = spm ? 6 : 1;
    }
}

static inline void vocabulary_list(vocabulary_lists *l, const vocabulary *v, bool spm)
{
    l->n = 0;
    if (v->bytes) vocabulary_add_bytes(l, spm);
    for (size_t i = 0; i < v->n; i++) {
        l->tokens[l->n] = dure_span_of_text(v->tokens[i]);
        l->scores[l->n] = v->scores[i];
        l->types[l->n++] = v->types[i] ? v->types[i] : 1;
    }
    for (size_t i = 0; i < v->n_merges; i++)
        l->merges[i] = dure_span_of_text(v->merges[i]);
}

/* Makes the file and its tokenizer; returns what the tokenizer says. vocabulary_close(out). */
static inline dure_err vocabulary_open(vocabulary_file *out, const vocabulary *v, dure_diag *diag)
{
    static vocabulary_lists l;
    const char *model = v->model ? v->model : "gpt2";
    bool spm = !strcmp(model, "llama");
    vocabulary_list(&l, v, spm);
    size_t extra = v->bytes ? 256 : 0;
    dure_gguf_writer *w;
    *out = (vocabulary_file){0};
    assert_ok(dure_gguf_writer_new(&w));
    if (v->name) dure_gguf_put_text(w, "general.name", dure_span_of_text(v->name));
    dure_gguf_put_text(w, "tokenizer.ggml.model", dure_span_of_text(model));
    dure_gguf_put_text(w, "tokenizer.ggml.pre",
                       dure_span_of_text(v->splitter ? v->splitter : "smollm"));
    dure_gguf_put_texts(w, "tokenizer.ggml.tokens", l.tokens, l.n);
    dure_gguf_put_i32s(w, "tokenizer.ggml.token_type", l.types,
                       v->n_types ? extra + v->n_types : l.n);
    if (spm)
        dure_gguf_put_f32s(w, "tokenizer.ggml.scores", l.scores,
                           v->n_scores ? extra + v->n_scores : l.n);
    else
        dure_gguf_put_texts(w, "tokenizer.ggml.merges", l.merges, v->n_merges);
    if (v->bos) dure_gguf_put_u32(w, "tokenizer.ggml.bos_token_id", *v->bos);
    if (v->eos) dure_gguf_put_u32(w, "tokenizer.ggml.eos_token_id", *v->eos);
    if (v->adds_bos) dure_gguf_put_bool(w, "tokenizer.ggml.add_bos_token", *v->adds_bos);
    if (v->adds_space) dure_gguf_put_bool(w, "tokenizer.ggml.add_space_prefix", *v->adds_space);
    if (v->chat_template)
        dure_gguf_put_text(w, "tokenizer.chat_template", dure_span_of_text(v->chat_template));
    dure_buf_init(&out->bytes, 1 << 20);
    assert_ok(dure_gguf_writer_encode(&out->bytes, w));
    dure_gguf_writer_free(&w);
    assert_ok(dure_gguf_parse(&out->gguf, dure_buf_span(&out->bytes), NULL, NULL));
    return dure_tokenizer_new(&out->t, out->gguf, diag);
}

static inline void vocabulary_close(vocabulary_file *f)
{
    dure_tokenizer_free(&f->t);
    dure_gguf_close(&f->gguf);
    dure_buf_fini(&f->bytes);
}

/* A tokenizer made of these parts must be refused with `err` and a sentence holding `word`. */
static inline void vocabulary_refused(const vocabulary *v, dure_err err, const char *word)
{
    vocabulary_file f;
    dure_diag diag = {{0}};
    assert_err(vocabulary_open(&f, v, &diag), err);
    assert_null(f.t);
    if (!strstr(diag.text, word)) fail_msg("'%s' lacks '%s'", diag.text, word);
    vocabulary_close(&f);
}

/* The pieces of the ids of `text`, each between bars, must be `wanted`. */
static inline void pieces_are(const dure_tokenizer *t, const char *text, const char *wanted)
{
    char got[512];
    size_t used = 0;
    dure_tokens tokens = {0};
    assert_ok(dure_tokenizer_encode(&tokens, t, dure_span_of_text(text), false));
    for (size_t i = 0; i < tokens.n; i++) {
        dure_span piece = dure_tokenizer_piece(t, tokens.ids[i]);
        used += (size_t)snprintf(got + used, sizeof got - used, "%s%.*s", i ? "|" : "",
                                 (int)piece.n, (const char *)piece.data);
        assert_true(used < sizeof got);
    }
    got[used] = 0;
    dure_tokens_fini(&tokens);
    assert_string_equal(got, wanted);
}
