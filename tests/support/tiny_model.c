#include "support/tiny_model.h"
#include "common/splitmix.h"

#include "common/buf.h"
#include "common/file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KV_U32 = 4, KV_I32 = 5, KV_F32 = 6, KV_BOOL = 7, KV_TEXT = 8, KV_ARRAY = 9 };
enum { ALIGNMENT = 32, MAX_BYTES = 64 << 20 };

static const char *const MERGES[][2] = {
    {"Ġ", "t"}, {"h", "e"}, {"Ġ", "a"}, {"i", "n"},  {"Ġt", "he"}, {"r", "e"}, {"o", "n"},
    {"e", "r"}, {"Ġ", "s"}, {"a", "t"}, {"in", "g"}, {"Ġa", "n"},  {"e", "s"},
};
enum { N_MERGES = sizeof MERGES / sizeof MERGES[0] };

static const char CHAT_TEMPLATE[] =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}";

typedef struct writer {
    dure_buf head, infos, data;
    uint64_t rng;
    uint32_t n_keys, n_tensors;
    uint32_t type;
    float scale;
    const char *arch;
} writer;

/* Little-endian puts; the tests run on little-endian machines, as GGUF does. */
static void put(dure_buf *b, const void *value, size_t n)
{
    dure_put_raw(b, value, n);
}

static void put_u32(dure_buf *b, uint32_t value)
{
    put(b, &value, sizeof value);
}

static void put_u64(dure_buf *b, uint64_t value)
{
    put(b, &value, sizeof value);
}

static void put_text(dure_buf *b, const char *text)
{
    put_u64(b, strlen(text));
    put(b, text, strlen(text));
}

/* A name that begins with '.' is one of the architecture. */
static void key(writer *w, const char *name, uint32_t type)
{
    char full[128];
    snprintf(full, sizeof full, "%s%s", *name == '.' ? w->arch : "", name);
    put_text(&w->head, full);
    put_u32(&w->head, type);
    w->n_keys++;
}

static void key_u32(writer *w, const char *name, uint32_t value)
{
    key(w, name, KV_U32);
    put_u32(&w->head, value);
}

static void key_f32(writer *w, const char *name, float value)
{
    key(w, name, KV_F32);
    put(&w->head, &value, sizeof value);
}

static void key_bool(writer *w, const char *name, bool value)
{
    key(w, name, KV_BOOL);
    put(&w->head, value ? "\1" : "\0", 1);
}

static void key_text(writer *w, const char *name, const char *value)
{
    key(w, name, KV_TEXT);
    put_text(&w->head, value);
}

static void key_array(writer *w, const char *name, uint32_t type, uint64_t n)
{
    key(w, name, KV_ARRAY);
    put_u32(&w->head, type);
    put_u64(&w->head, n);
}

/* Uniform in [-1, 1). */
static float draw(writer *w)
{
    return (float)(dure_splitmix64(&w->rng) >> 40) * 0x1p-23f - 1.0f;
}

/* Round to nearest even; only normal halves and zero occur here. */
static uint16_t to_half(float value)
{
    uint32_t u;
    memcpy(&u, &value, sizeof u);
    uint32_t sign = u >> 16 & 0x8000, magnitude = u & 0x7FFFFFFF;
    if (magnitude < 0x38800000) return (uint16_t)sign;
    magnitude += 0xFFF + (magnitude >> 13 & 1);
    return (uint16_t)(sign | ((magnitude - 0x38000000) >> 13));
}

static float from_half(uint16_t half)
{
    uint32_t u = (uint32_t)(half & 0x8000) << 16;
    if (half & 0x7FFF) u |= ((uint32_t)(half & 0x7FFF) << 13) + 0x38000000;
    float value;
    memcpy(&value, &u, sizeof value);
    return value;
}

static void put_q8_0(dure_buf *b, const float x[32])
{
    float top = 0;
    for (int i = 0; i < 32; i++)
        top = fmaxf(top, fabsf(x[i]));
    uint16_t d = to_half(top / 127);
    float scale = from_half(d);
    int8_t q[32];
    for (int i = 0; i < 32; i++)
        q[i] = (int8_t)fmaxf(-127, fminf(127, scale > 0 ? roundf(x[i] / scale) : 0));
    put(b, &d, sizeof d);
    put(b, q, sizeof q);
}

static void put_q4_1(dure_buf *b, const float x[32])
{
    float low = x[0], high = x[0];
    for (int i = 1; i < 32; i++)
        low = fminf(low, x[i]), high = fmaxf(high, x[i]);
    uint16_t dm[2] = {to_half((high - low) / 15), to_half(low)};
    float d = from_half(dm[0]), m = from_half(dm[1]);
    uint8_t q[32];
    for (int i = 0; i < 32; i++)
        q[i] = (uint8_t)fmaxf(0, fminf(15, d > 0 ? roundf((x[i] - m) / d) : 0));
    put(b, dm, sizeof dm);
    for (int i = 0; i < 16; i++) {
        uint8_t two = (uint8_t)(q[i] | q[i + 16] << 4);
        put(b, &two, 1);
    }
}

static void put_block(dure_buf *b, uint32_t type, const float x[32], uint32_t n)
{
    if (type == TINY_Q8_0) {
        put_q8_0(b, x);
        return;
    }
    if (type == TINY_Q4_1) {
        put_q4_1(b, x);
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        uint16_t half = to_half(x[i]);
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        if (type == TINY_BF16) half = (uint16_t)(bits >> 16);
        if (type == TINY_F32)
            put(b, &x[i], sizeof x[i]);
        else
            put(b, &half, sizeof half);
    }
}

/* One tensor of random values: base + spread * uniform. */
static void tensor(writer *w, const char *name, const uint32_t dims[2], float base, float spread)
{
    uint32_t n_dims = dims[1] ? 2 : 1, type = n_dims == 2 ? w->type : TINY_F32;
    put_text(&w->infos, name);
    put_u32(&w->infos, n_dims);
    for (uint32_t i = 0; i < n_dims; i++)
        put_u64(&w->infos, dims[i]);
    put_u32(&w->infos, type);
    put_u64(&w->infos, w->data.n);
    w->n_tensors++;
    for (uint32_t row = 0; row < (n_dims == 2 ? dims[1] : 1); row++)
        for (uint32_t at = 0; at < dims[0]; at += 32) {
            float x[32];
            uint32_t n = dims[0] - at < 32 ? dims[0] - at : 32;
            for (uint32_t i = 0; i < n; i++)
                x[i] = base + spread * draw(w);
            put_block(&w->data, type, x, n);
        }
    while (w->data.n % ALIGNMENT)
        put(&w->data, "", 1);
}

static void matrix(writer *w, const char *name, uint32_t in, uint32_t out)
{
    tensor(w, name, (uint32_t[2]){in, out}, 0, w->scale * 1.7320508f / sqrtf((float)in));
}

static bool is(const tiny_model_opts *o, const char *arch)
{
    return !strcmp(o->arch, arch);
}

/* One of a layer's tensors; out 0: a vector of `in` elements around `base`. */
typedef struct layer_tensor {
    const char *name;
    uint32_t in, out;
    float base;
    bool absent;
} layer_tensor;

static void layer(writer *w, uint32_t i, const tiny_model_opts *o)
{
    uint32_t d = o->n_embd, q = o->head_dim * o->n_head, kv = o->head_dim * o->n_head_kv;
    bool no_bias = !is(o, "qwen2"), no_post = !is(o, "gemma3");
    bool no_norm = no_post && !is(o, "qwen3");
    const layer_tensor rows[] = {
        {"attn_norm.weight", d, 0, 1, false},
        {"attn_q.weight", d, q, 0, false},
        {"attn_k.weight", d, kv, 0, false},
        {"attn_v.weight", d, kv, 0, false},
        {"attn_output.weight", q, d, 0, false},
        {"ffn_norm.weight", d, 0, 1, false},
        {"ffn_gate.weight", d, o->n_ff, 0, false},
        {"ffn_up.weight", d, o->n_ff, 0, false},
        {"ffn_down.weight", o->n_ff, d, 0, false},
        {"attn_q.bias", q, 0, 0, no_bias},
        {"attn_k.bias", kv, 0, 0, no_bias},
        {"attn_v.bias", kv, 0, 0, no_bias},
        {"attn_q_norm.weight", o->head_dim, 0, 1, no_norm},
        {"attn_k_norm.weight", o->head_dim, 0, 1, no_norm},
        {"post_attention_norm.weight", d, 0, 1, no_post},
        {"post_ffw_norm.weight", d, 0, 1, no_post},
    };
    for (size_t k = 0; k < sizeof rows / sizeof rows[0]; k++) {
        char name[64];
        if (rows[k].absent) continue;
        snprintf(name, sizeof name, "blk.%u.%s", i, rows[k].name);
        if (rows[k].out)
            matrix(w, name, rows[k].in, rows[k].out);
        else
            tensor(w, name, (uint32_t[2]){rows[k].in, 0}, rows[k].base, 0.3f);
    }
}

/* The printable alphabet of GPT-2's byte-level BPE: byte to code point. */
static uint32_t byte_symbol(uint32_t byte)
{
    uint32_t next = 256;
    for (uint32_t b = 0; b < 256; b++) {
        bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        if (b == byte) return printable ? b : next;
        if (!printable) next++;
    }
    return 0;
}

static void vocabulary(writer *w)
{
    static const char *const special[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
    key_array(w, "tokenizer.ggml.tokens", KV_TEXT, TINY_VOCAB);
    for (int i = 0; i < TINY_BYTES; i++)
        put_text(&w->head, special[i]);
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t c = byte_symbol(b);
        char text[3] = {(char)c, 0, 0};
        if (c >= 128) text[0] = (char)(0xC0 | c >> 6), text[1] = (char)(0x80 | (c & 63));
        put_text(&w->head, text);
    }
    char text[32];
    for (int i = 0; i < N_MERGES; i++) {
        snprintf(text, sizeof text, "%s%s", MERGES[i][0], MERGES[i][1]);
        put_text(&w->head, text);
    }
    key_array(w, "tokenizer.ggml.token_type", KV_I32, TINY_VOCAB);
    for (int i = 0; i < TINY_VOCAB; i++)
        put_u32(&w->head, i < TINY_BYTES ? 3 : 1);
    key_array(w, "tokenizer.ggml.merges", KV_TEXT, N_MERGES);
    for (int i = 0; i < N_MERGES; i++) {
        snprintf(text, sizeof text, "%s %s", MERGES[i][0], MERGES[i][1]);
        put_text(&w->head, text);
    }
}

static void metadata(writer *w, const tiny_model_opts *o)
{
    key_text(w, "general.architecture", o->arch);
    key_text(w, "general.name", "tiny random llama");
    key_u32(w, ".block_count", o->n_layers);
    key_u32(w, ".context_length", o->n_context);
    key_u32(w, ".embedding_length", o->n_embd);
    key_u32(w, ".feed_forward_length", o->n_ff);
    key_u32(w, ".attention.head_count", o->n_head);
    key_u32(w, ".attention.head_count_kv", o->n_head_kv);
    key_f32(w, ".attention.layer_norm_rms_epsilon", 1e-5f);
    key_f32(w, ".rope.freq_base", 10000.0f);
    key_u32(w, ".rope.dimension_count", o->head_dim);
    if (o->head_dim != o->n_embd / o->n_head) {
        key_u32(w, ".attention.key_length", o->head_dim);
        key_u32(w, ".attention.value_length", o->head_dim);
    }
    if (o->window) {
        key_u32(w, ".attention.sliding_window", o->window);
        key_u32(w, ".attention.sliding_window_pattern", 3);
    }
    key_u32(w, ".vocab_size", TINY_VOCAB);
    key_text(w, "tokenizer.ggml.model", "gpt2");
    key_text(w, "tokenizer.ggml.pre", "smollm");
    key_bool(w, "tokenizer.ggml.add_bos_token", false);
    key_bool(w, "tokenizer.ggml.add_space_prefix", false);
    vocabulary(w);
    key_u32(w, "tokenizer.ggml.bos_token_id", TINY_IM_START);
    key_u32(w, "tokenizer.ggml.eos_token_id", TINY_IM_END);
    key_u32(w, "tokenizer.ggml.padding_token_id", TINY_IM_END);
    key_text(w, "tokenizer.chat_template", o->chat_template ? o->chat_template : CHAT_TEMPLATE);
}

static void tensors(writer *w, const tiny_model_opts *o)
{
    /* Wide embeddings keep the tied head's log-probabilities away from uniform. */
    tensor(w, "token_embd.weight", (uint32_t[2]){o->n_embd, TINY_VOCAB}, 0, 0.5f);
    for (uint32_t i = 0; i < o->n_layers; i++)
        layer(w, i, o);
    tensor(w, "output_norm.weight", (uint32_t[2]){o->n_embd, 0}, 1, 0.3f);
    if (o->untied) matrix(w, "output.weight", o->n_embd, TINY_VOCAB);
    if (o->rope_freqs) tensor(w, "rope_freqs.weight", (uint32_t[2]){o->head_dim / 2, 0}, 2, 0.9f);
}

static void save(const char *path, writer *w)
{
    dure_buf file;
    dure_buf_init(&file, MAX_BYTES);
    put(&file, "GGUF", 4);
    put_u32(&file, 3);
    put_u64(&file, w->n_tensors);
    put_u64(&file, w->n_keys);
    put(&file, w->head.data, w->head.n);
    put(&file, w->infos.data, w->infos.n);
    while (file.n % ALIGNMENT)
        put(&file, "", 1);
    put(&file, w->data.data, w->data.n);
    dure_diag diag = {{0}};
    if (dure_buf_err(&file) || dure_buf_err(&w->data) ||
        dure_file_write_atomic(path, dure_buf_span(&file), 0600, &diag)) {
        fprintf(stderr, "tiny model %s: %s\n", path, diag.text);
        abort();
    }
    dure_buf_fini(&file);
}

void tiny_model_write(const char *path, const tiny_model_opts *opts)
{
    tiny_model_opts o = *opts;
    if (!o.n_layers) o.n_layers = 2;
    if (!o.n_embd) o.n_embd = 64;
    if (!o.n_ff) o.n_ff = 96;
    if (!o.n_head) o.n_head = 4;
    if (!o.n_head_kv) o.n_head_kv = 2;
    if (!o.head_dim) o.head_dim = o.n_embd / o.n_head;
    if (!o.n_context) o.n_context = 512;
    if (!o.arch) o.arch = "llama";
    writer w = {.rng = o.seed,
                .type = o.type,
                .scale = o.weight_scale > 0 ? o.weight_scale : 1,
                .arch = o.arch};
    dure_buf_init(&w.head, MAX_BYTES);
    dure_buf_init(&w.infos, MAX_BYTES);
    dure_buf_init(&w.data, MAX_BYTES);
    metadata(&w, &o);
    tensors(&w, &o);
    save(path, &w);
    dure_buf_fini(&w.head);
    dure_buf_fini(&w.infos);
    dure_buf_fini(&w.data);
}
