/* Any bytes as a GGUF: opened, every key and tensor walked, the shape and the tokenizer read. Bytes
 * that begin with 'P' are two parts of a model: the length of the first as u16, then both. */
#include "model/arch.h"
#include "model/chat_template.h"
#include "model/shape.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static unsigned touch(const dure_gguf *g)
{
    unsigned sum = 0;
    for (size_t i = 0; i < dure_gguf_key_count(g); i++) {
        char value[128];
        const char *key = dure_gguf_key_at(value, g, i);
        size_t elements = 0;
        dure_span text = {0};
        if (dure_gguf_array(&elements, g, key, NULL)) continue;
        if (elements && !dure_gguf_array_text(&text, g, key, elements - 1, NULL))
            for (size_t k = 0; k < text.n; k++)
                sum += text.data[k];
    }
    for (size_t i = 0; i < dure_gguf_tensor_count(g); i++) {
        const dure_gguf_tensor *tensor = dure_gguf_tensor_at(g, i);
        if (tensor->bytes) sum += tensor->data[0] + (unsigned)tensor->data[tensor->bytes - 1];
    }
    return sum;
}

static unsigned facts(const dure_gguf *g, const dure_model_shape *shape)
{
    dure_model_arch arch;
    unsigned sum = shape->n_layers;
    if (dure_model_arch_read(&arch, g, shape, NULL)) abort(); /* the shape's reader did it too */
    for (int sliding = 0; sliding < 2; sliding++) {
        dure_rope_table table;
        if (dure_model_rope_read(&table, g, shape, &arch, sliding != 0, NULL)) continue;
        if (dure_rope_table_reserve(&table, 3) == DURE_OK) sum += table.cos_sin[0] > 0;
        dure_rope_table_fini(&table);
    }
    return sum + dure_model_arch_slides(&arch, shape->n_layers - 1);
}

static dure_err parse(dure_gguf **g, const uint8_t *data, size_t n, dure_diag *diag)
{
    size_t first;
    if (n < 3 || data[0] != 'P') return dure_gguf_parse(g, dure_span_of(data, n), NULL, diag);
    first = (size_t)(data[1] | data[2] << 8);
    if (first > n - 3) first = n - 3;
    const dure_span parts[2] = {dure_span_of(data + 3, first),
                                dure_span_of(data + 3 + first, n - 3 - first)};
    return dure_gguf_parse_parts(g, parts, 2, NULL, diag);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static volatile unsigned sink;
    dure_gguf *g;
    dure_diag diag = {{0}};
    dure_model_shape shape;
    dure_tokenizer *t;
    dure_chat_template chat;
    dure_tokens tokens = {0};
    if (parse(&g, data, n, &diag)) return 0;
    sink = touch(g) + (dure_gguf_check_finite(g, &diag) == DURE_OK);
    if (dure_model_shape_read(&shape, g, &diag) == DURE_OK) sink += facts(g, &shape);
    if (dure_tokenizer_new(&t, g, &diag) == DURE_OK) {
        dure_span text = dure_span_of(data, n < 256 ? n : 256);
        if (dure_tokenizer_encode(&tokens, t, text, false) == DURE_OK) sink += (unsigned)tokens.n;
        if (dure_chat_template_open(&chat, NULL, g, t, &diag) == DURE_OK)
            sink += (unsigned)chat.end;
        dure_tokenizer_free(&t);
    }
    dure_tokens_fini(&tokens);
    dure_gguf_close(&g);
    return 0;
}
