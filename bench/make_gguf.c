/* A model file of a known shape with random weights, for measuring what its size costs.
 *
 *   make_gguf smollm2-135m|llama-3.2-1b|llama-3.1-8b OUT.gguf
 *
 * Matrices are Q4_K (Q4_0 where 256 does not divide the rows), norms F32; weights have the spread
 * of trained ones, so that sums neither vanish nor overflow. A function of the shape alone. */
#include "kernels/dequant.h"
#include "model/gguf_write.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { F32 = 0, Q4_0 = 2, Q4_K = 12, TENSORS_MAX = 512 };

typedef struct shape {
    const char *name;
    uint32_t layers, embd, ff, heads, heads_kv, vocab;
    bool tied;
} shape;

static const shape shapes[] = {
    {"smollm2-135m", 30, 576, 1536, 9, 3, 49152, true},
    {"llama-3.2-1b", 16, 2048, 8192, 32, 8, 128256, true},
    {"llama-3.1-8b", 32, 4096, 14336, 32, 8, 128256, false},
};

typedef struct maker {
    dure_gguf_writer *writer;
    struct {
        uint32_t type, in;
    } tensors[TENSORS_MAX];
    size_t n;
    uint64_t random;
} maker;

static uint32_t next_random(maker *m)
{
    m->random = m->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(m->random >> 32);
}

static void declare(maker *m, const char *name, uint32_t in, uint32_t out)
{
    bool vector = out == 0;
    uint32_t type = vector ? F32 : in % 256 ? Q4_0 : Q4_K;
    dure_gguf_tensor tensor = {
        .name = name, .type = type, .n_dims = vector ? 1 : 2, .dims = {in, vector ? 1 : out, 1, 1}};
    m->tensors[m->n].type = type;
    m->tensors[m->n++].in = in;
    dure_gguf_put_tensor(m->writer, &tensor);
}

/* One row: blocks of random bits behind scales that give weights of deviation 1 / sqrt(in). */
static dure_err make_row(void *state, size_t tensor, uint64_t row, uint8_t *out, dure_diag *diag)
{
    maker *m = state;
    uint32_t in = m->tensors[tensor].in, type = m->tensors[tensor].type;
    size_t weights = 1, bytes = 4;
    (void)row, (void)diag;
    DURE_ASSERT(dure_quant_block(&weights, &bytes, type));
    for (size_t i = 0; i < in / weights; i++, out += bytes) {
        const float one = 1;
        if (type == F32) {
            memcpy(out, &one, sizeof one);
            continue;
        }
        for (size_t j = 0; j < bytes; j += 4) {
            uint32_t word = next_random(m);
            memcpy(out + j, &word, bytes - j < 4 ? bytes - j : 4);
        }
        /* Nibbles deviate by 4.6 around 7.5; the scales and minima of a K block are 0 to 63. */
        float spread = 1 / sqrtf((float)in), d = spread / (type == Q4_K ? 170.0f : 4.6f);
        uint16_t scales[2] = {dure_float_to_half(d), dure_float_to_half(7.5f * d)};
        memcpy(out, scales, type == Q4_K ? 4 : 2);
    }
    return DURE_OK;
}

static void declare_all(maker *m, const shape *s)
{
    static const char *const names[] = {"attn_norm", "attn_q",   "attn_k", "attn_v",  "attn_output",
                                        "ffn_norm",  "ffn_gate", "ffn_up", "ffn_down"};
    uint32_t kv = s->embd / s->heads * s->heads_kv;
    const uint32_t sizes[][2] = {{s->embd, 0},     {s->embd, s->embd}, {s->embd, kv},
                                 {s->embd, kv},    {s->embd, s->embd}, {s->embd, 0},
                                 {s->embd, s->ff}, {s->embd, s->ff},   {s->ff, s->embd}};
    char name[64];
    declare(m, "token_embd.weight", s->embd, s->vocab);
    for (uint32_t l = 0; l < s->layers; l++)
        for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
            snprintf(name, sizeof name, "blk.%u.%s.weight", l, names[k]);
            declare(m, name, sizes[k][0], sizes[k][1]);
        }
    declare(m, "output_norm.weight", s->embd, 0);
    if (!s->tied) declare(m, "output.weight", s->embd, s->vocab);
}

static void put_keys(dure_gguf_writer *w, const shape *s)
{
    const dure_span tokens[] = {dure_span_of_text("a"), dure_span_of_text("b")};
    dure_gguf_put_text(w, "general.architecture", dure_span_of_text("llama"));
    dure_gguf_put_text(w, "general.name", dure_span_of_text(s->name));
    dure_gguf_put_u32(w, "llama.block_count", s->layers);
    dure_gguf_put_u32(w, "llama.context_length", 8192);
    dure_gguf_put_u32(w, "llama.embedding_length", s->embd);
    dure_gguf_put_u32(w, "llama.feed_forward_length", s->ff);
    dure_gguf_put_u32(w, "llama.attention.head_count", s->heads);
    dure_gguf_put_u32(w, "llama.attention.head_count_kv", s->heads_kv);
    dure_gguf_put_f32(w, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    dure_gguf_put_f32(w, "llama.rope.freq_base", 500000);
    dure_gguf_put_texts(w, "tokenizer.ggml.tokens", tokens, 2);
}

int main(int argc, char **argv)
{
    const shape *s = NULL;
    dure_diag diag = {{0}};
    maker m = {.random = 1};
    for (size_t i = 0; argc == 3 && i < sizeof shapes / sizeof shapes[0]; i++)
        if (!strcmp(argv[1], shapes[i].name)) s = &shapes[i];
    if (!s) {
        fprintf(stderr, "usage: make_gguf smollm2-135m|llama-3.2-1b|llama-3.1-8b OUT.gguf\n");
        return 2;
    }
    dure_err err = dure_gguf_writer_new(&m.writer);
    if (!err) {
        put_keys(m.writer, s);
        declare_all(&m, s);
        err = dure_gguf_writer_save(m.writer, argv[2], make_row, &m, &diag);
    }
    if (err) fprintf(stderr, "make_gguf: %s: %s\n", dure_err_text(err), diag.text);
    dure_gguf_writer_free(&m.writer);
    return err ? 1 : 0;
}
