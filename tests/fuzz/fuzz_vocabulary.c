/* A vocabulary of any texts, types, scores and merges. What opens must encode: every id is in the
 * vocabulary, and no text becomes a control token.
 *
 * Input: kind, flags, then entries of a type byte, a length byte and the text; a type of 7 begins a
 * merge, 8 the text to encode. */
#include "model/gguf_write.h"
#include "model/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { MOST = 512, MERGE = 7, TEXT = 8 };

typedef struct lists {
    dure_span tokens[MOST], merges[MOST], text;
    int32_t types[MOST];
    float scores[MOST];
    size_t n, n_merges;
    char bytes[256][8];
} lists;

static void add_bytes(lists *l)
{
    for (size_t b = 0; b < 256; b++) {
        snprintf(l->bytes[b], sizeof l->bytes[b], "<0x%02X>", (unsigned)b);
        l->tokens[l->n] = dure_span_of_text(l->bytes[b]);
        l->types[l->n++] = 6;
    }
}

static void take(lists *l, const uint8_t *data, size_t n)
{
    l->text = dure_span_of(data, 0);
    for (size_t at = 0; at + 2 <= n && l->n < MOST && l->n_merges < MOST;) {
        uint8_t type = data[at] % 9, length = data[at + 1];
        at += 2;
        dure_span text = dure_span_of(data + at, n - at < length ? n - at : length);
        if (type == TEXT) {
            l->text = dure_span_of(data + at, n - at);
            return;
        }
        if (type == MERGE) {
            l->merges[l->n_merges++] = text;
        } else {
            l->scores[l->n] = (float)length - 128;
            l->tokens[l->n] = text;
            l->types[l->n++] = type;
        }
        at += text.n;
    }
}

static void use(const dure_tokenizer *t, dure_span text)
{
    dure_tokens tokens = {0};
    if (dure_tokenizer_encode(&tokens, t, text, true)) abort();
    for (size_t i = 0; i < tokens.n; i++)
        if (tokens.ids[i] < 0 || (size_t)tokens.ids[i] >= dure_tokenizer_size(t) ||
            dure_tokenizer_is_special(t, tokens.ids[i]) ||
            dure_tokenizer_piece(t, tokens.ids[i]).n == 0 || tokens.supervised[i] != 1)
            abort();
    if (dure_tokenizer_bos(t) >= (int32_t)dure_tokenizer_size(t)) abort();
    dure_tokens_fini(&tokens);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char *const splitters[] = {"smollm", "gpt-2", "llama-bpe", "qwen2"};
    static lists l;
    dure_gguf_writer *w;
    dure_gguf *g = NULL;
    dure_tokenizer *t = NULL;
    dure_buf b;
    dure_diag diag = {{0}};
    if (n < 2 || dure_gguf_writer_new(&w)) return 0;
    bool spm = data[0] % 2;
    l.n = l.n_merges = 0;
    if (spm && data[1] & 1) add_bytes(&l);
    take(&l, data + 2, n - 2);
    dure_gguf_put_text(w, "tokenizer.ggml.model", dure_span_of_text(spm ? "llama" : "gpt2"));
    dure_gguf_put_text(w, "tokenizer.ggml.pre", dure_span_of_text(splitters[data[1] >> 1 & 3]));
    dure_gguf_put_texts(w, "tokenizer.ggml.tokens", l.tokens, l.n);
    dure_gguf_put_i32s(w, "tokenizer.ggml.token_type", l.types, l.n);
    dure_gguf_put_f32s(w, "tokenizer.ggml.scores", l.scores, l.n);
    dure_gguf_put_texts(w, "tokenizer.ggml.merges", l.merges, l.n_merges);
    if (data[1] & 8) dure_gguf_put_u32(w, "tokenizer.ggml.bos_token_id", data[0]);
    if (data[1] & 16) dure_gguf_put_bool(w, "tokenizer.ggml.add_space_prefix", data[1] & 32);
    dure_buf_init(&b, 1 << 22);
    if (dure_gguf_writer_encode(&b, w) == DURE_OK &&
        dure_gguf_parse(&g, dure_buf_span(&b), NULL, &diag) == DURE_OK &&
        dure_tokenizer_new(&t, g, &diag) == DURE_OK)
        use(t, l.text);
    dure_tokenizer_free(&t);
    dure_gguf_close(&g);
    dure_gguf_writer_free(&w);
    dure_buf_fini(&b);
    return 0;
}
