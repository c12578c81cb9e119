/* The shapes and facts of the architectures, and what is refused by name. */
#include "support/check.h"

#include "model/arch.h"
#include "model/gguf_write.h"
#include "model/shape.h"
#include "model/transformer.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

#include <math.h>
#include <string.h>

typedef struct opened {
    temp_dir dir;
    dure_gguf *gguf;
    dure_buf changed;
} opened;

static void open_tiny(opened *o, const tiny_model_opts *opts)
{
    *o = (opened){0};
    temp_dir_make(&o->dir);
    const char *path = temp_dir_file(&o->dir, "m.gguf");
    tiny_model_write(path, opts);
    assert_ok(dure_gguf_open(&o->gguf, path, NULL, NULL));
}

static void close_tiny(opened *o)
{
    dure_gguf_close(&o->gguf);
    if (o->changed.data) dure_buf_fini(&o->changed);
    temp_dir_remove(&o->dir);
}

enum { WIDE = 256 }; /* of a model that has matrices of any type */

/* One more key or tensor for a copy of the model. */
typedef struct extra {
    const char *key;
    double number; /* written as f32, or as u32 when `whole` */
    bool whole, flag;
    const char *text;
    const char *tensor; /* of `columns` F32 elements 1; with `rows` a matrix of a type, all zero */
    uint32_t columns, rows, type;
    const char *without; /* a key or tensor that is left out */
} extra;

/* Replaces o->gguf by a copy with `more`. */
static void change(opened *o, const extra *more)
{
    static const float ones[64] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                   1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                   1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    static const uint8_t zeros[WIDE * WIDE * sizeof(double)];
    dure_gguf_writer *w;
    char value[128];
    assert_ok(dure_gguf_writer_new(&w));
    for (size_t i = 0; i < dure_gguf_key_count(o->gguf); i++)
        if (!more->without || strcmp(dure_gguf_key_at(value, o->gguf, i), more->without) != 0)
            dure_gguf_put_copy(w, o->gguf, i);
    if (more->key && more->text)
        dure_gguf_put_text(w, more->key, dure_span_of_text(more->text));
    else if (more->key && more->flag)
        dure_gguf_put_bool(w, more->key, more->number > 0);
    else if (more->key && more->whole)
        dure_gguf_put_u32(w, more->key, (uint32_t)more->number);
    else if (more->key)
        dure_gguf_put_f32(w, more->key, (float)more->number);
    for (size_t i = 0; i < dure_gguf_tensor_count(o->gguf); i++)
        if (!more->without || strcmp(dure_gguf_tensor_at(o->gguf, i)->name, more->without) != 0)
            dure_gguf_put_tensor(w, dure_gguf_tensor_at(o->gguf, i));
    if (more->tensor)
        dure_gguf_put_tensor(
            w, &(dure_gguf_tensor){.name = more->tensor,
                                   .type = more->type,
                                   .n_dims = more->rows ? 2 : 1,
                                   .dims = {more->columns, more->rows ? more->rows : 1, 1, 1},
                                   .data = more->rows ? zeros : (const uint8_t *)ones});
    dure_buf old = o->changed;
    dure_buf_init(&o->changed, 64 << 20);
    assert_ok(dure_gguf_writer_encode(&o->changed, w));
    dure_gguf_writer_free(&w);
    dure_gguf_close(&o->gguf);
    if (old.data) dure_buf_fini(&old);
    assert_ok(dure_gguf_parse(&o->gguf, dure_buf_span(&o->changed), NULL, NULL));
}

static void read_both(dure_model_shape *shape, dure_model_arch *arch, const opened *o)
{
    dure_diag diag = {{0}};
    if (dure_model_shape_read(shape, o->gguf, &diag)) fail_msg("%s", diag.text);
    assert_ok(dure_model_arch_read(arch, o->gguf, shape, &diag));
}

/* The model with `more` must be refused with a sentence that has `word` in it. */
static void refuse(const char *arch, const extra *more, dure_err err, const char *word)
{
    opened o;
    dure_model_shape shape;
    dure_diag diag = {{0}};
    open_tiny(&o, &(tiny_model_opts){.arch = arch});
    change(&o, more);
    assert_err(dure_model_shape_read(&shape, o.gguf, &diag), err);
    if (!strstr(diag.text, word)) fail_msg("'%s' lacks '%s'", diag.text, word);
    close_tiny(&o);
}

static void test_arch_llama(void **state)
{
    (void)state;
    opened o;
    dure_model_shape s;
    dure_model_arch a;
    open_tiny(&o, &(tiny_model_opts){.head_dim = 24, .untied = true, .rope_freqs = true});
    read_both(&s, &a, &o);
    assert_string_equal(s.architecture, "llama");
    assert_int_equal(s.head_dim, 24);
    assert_false(a.rope_halves || a.qkv_bias || a.qk_norm || a.post_norms);
    assert_int_equal(a.activation, DURE_ACTIVATION_SILU);
    assert_int_equal(a.window, 0);
    assert_true(a.embedding_scale == 1.0f);
    assert_true(fabsf(a.attention_scale - 1 / sqrtf(24)) < 1e-7f);
    assert_true(fabsf(a.norm_eps - 1e-5f) < 1e-12f);
    assert_true(dure_model_arch_interleaves("llama"));
    close_tiny(&o);
}

static void test_arch_qwen(void **state)
{
    (void)state;
    opened o;
    dure_model_shape s;
    dure_model_arch a;
    open_tiny(&o, &(tiny_model_opts){.arch = "qwen2"});
    read_both(&s, &a, &o);
    assert_true(a.rope_halves && a.qkv_bias && !a.qk_norm);
    assert_int_equal(dure_model_vector_size(&s, &a, DURE_VECTOR_Q_BIAS), 64);
    assert_int_equal(dure_model_vector_size(&s, &a, DURE_VECTOR_V_BIAS), 32);
    assert_int_equal(dure_model_vector_size(&s, &a, DURE_VECTOR_Q_NORM), 0);
    close_tiny(&o);
    open_tiny(&o, &(tiny_model_opts){.arch = "qwen3", .head_dim = 32});
    read_both(&s, &a, &o);
    assert_true(a.rope_halves && !a.qkv_bias && a.qk_norm && !a.post_norms);
    assert_int_equal(dure_model_vector_size(&s, &a, DURE_VECTOR_K_NORM), 32);
    assert_false(dure_model_arch_interleaves("qwen2") || dure_model_arch_interleaves("qwen3"));
    close_tiny(&o);
}

static void test_arch_gemma3(void **state)
{
    (void)state;
    opened o;
    dure_model_shape s;
    dure_model_arch a;
    open_tiny(&o, &(tiny_model_opts){.arch = "gemma3", .n_layers = 7, .head_dim = 32, .window = 5});
    read_both(&s, &a, &o);
    assert_true(a.rope_halves && a.qk_norm && a.post_norms && !a.qkv_bias);
    assert_int_equal(a.activation, DURE_ACTIVATION_GELU);
    assert_int_equal(a.window, 5);
    for (uint32_t layer = 0; layer < s.n_layers; layer++)
        assert_int_equal(dure_model_arch_slides(&a, layer), layer % 3 != 2);
    assert_true(a.embedding_scale == 8.0f); /* sqrt(64) */
    assert_true(fabsf(a.attention_scale - 1 / sqrtf(32)) < 1e-7f);
    assert_int_equal(dure_model_vector_size(&s, &a, DURE_VECTOR_POST_FFN_NORM), 64);
    change(&o, &(extra){.without = "gemma3.attention.sliding_window_pattern"});
    read_both(&s, &a, &o);
    for (uint32_t layer = 0; layer < s.n_layers; layer++) /* five of six */
        assert_int_equal(dure_model_arch_slides(&a, layer), layer != 5);
    close_tiny(&o);
}

static void test_arch_of_27b_scales_by_other_heads(void **state)
{
    (void)state;
    opened o;
    dure_model_shape s;
    dure_model_arch a;
    open_tiny(&o, &(tiny_model_opts){.arch = "gemma3", .n_layers = 62, .head_dim = 32});
    read_both(&s, &a, &o);
    assert_true(a.attention_scale == 0.25f); /* 64 / 4 heads */
    close_tiny(&o);
}

static void test_arch_refuses_others_by_name(void **state)
{
    (void)state;
    opened o;
    dure_model_shape s;
    dure_diag diag = {{0}};
    open_tiny(&o, &(tiny_model_opts){.arch = "mamba"});
    assert_err(dure_model_shape_read(&s, o.gguf, &diag), DURE_ERR_UNSUPPORTED);
    assert_non_null(strstr(diag.text, "'mamba'"));
    assert_false(dure_model_arch_known("mamba"));
    close_tiny(&o);
}

/* Rows are multiplied in pairs of elements: the last of an odd one would meet the next row's. */
static void test_arch_refuses_odd_widths(void **state)
{
    (void)state;
    static const struct {
        tiny_model_opts model;
        const char *word;
    } cases[] = {
        {{.n_embd = 65, .head_dim = 16}, "embedding length of 65"},
        {{.n_ff = 97}, "feed-forward length of 97"},
        {{.head_dim = 15}, "head dimension of 15"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        opened o;
        dure_model_shape s;
        dure_diag diag = {{0}};
        open_tiny(&o, &cases[i].model);
        assert_err(dure_model_shape_read(&s, o.gguf, &diag), DURE_ERR_UNSUPPORTED);
        if (!strstr(diag.text, cases[i].word)) fail_msg("'%s'", diag.text);
        assert_non_null(strstr(diag.text, "must be even"));
        close_tiny(&o);
    }
}

/* Every other type of the format. */
static void test_arch_refuses_weights_it_cannot_decode_by_name(void **state)
{
    (void)state;
    static const struct {
        uint32_t type;
        const char *name;
    } types[] = {{9, "Q8_1"},   {16, "IQ2_XXS"}, {17, "IQ2_XS"}, {18, "IQ3_XXS"}, {19, "IQ1_S"},
                 {21, "IQ3_S"}, {22, "IQ2_S"},   {24, "I8"},     {25, "I16"},     {26, "I32"},
                 {27, "I64"},   {28, "F64"},     {29, "IQ1_M"},  {34, "TQ1_0"},   {35, "TQ2_0"},
                 {39, "MXFP4"}, {40, "NVFP4"},   {41, "Q1_0"},   {42, "Q2_0"}};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        const char *name = "blk.1.attn_q.weight";
        opened o;
        dure_transformer *t;
        dure_diag diag = {{0}};
        open_tiny(&o, &(tiny_model_opts){.n_embd = WIDE});
        change(&o, &(extra){.tensor = name,
                            .columns = WIDE,
                            .rows = WIDE,
                            .type = types[i].type,
                            .without = name});
        dure_err err = dure_transformer_new(&t, o.gguf, &(dure_transformer_opts){0}, &diag);
        assert_err(err, DURE_ERR_UNSUPPORTED);
        assert_null(t);
        assert_non_null(strstr(diag.text, name));
        assert_non_null(strstr(diag.text, types[i].name));
        close_tiny(&o);
    }
}

static void test_arch_refuses_tensors_it_would_leave_out(void **state)
{
    (void)state;
    static const char *const names[] = {
        "blk.0.attn_q.bias",          "blk.1.attn_qkv.weight",  "blk.0.attn_q_norm.weight",
        "blk.0.ffn_gate_exps.weight", "blk.2.attn_norm.weight", "output.bias",
        "blk.0.attn_output.scale",    "blk.x.attn_norm.weight", "blk.00.attn_norm.weight"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        refuse("llama", &(extra){.tensor = names[i], .columns = 64}, DURE_ERR_UNSUPPORTED,
               names[i]);
    refuse("qwen2", &(extra){.tensor = "blk.0.attn_output.bias", .columns = 64},
           DURE_ERR_UNSUPPORTED, "blk.0.attn_output.bias");
}

static void test_arch_refuses_a_model_without_its_tensors(void **state)
{
    (void)state;
    static const struct {
        const char *arch, *tensor;
    } cases[] = {
        {"llama", "blk.1.ffn_norm.weight"},    {"llama", "output_norm.weight"},
        {"llama", "blk.0.attn_v.weight"},      {"qwen2", "blk.1.attn_k.bias"},
        {"qwen3", "blk.0.attn_q_norm.weight"}, {"gemma3", "blk.1.post_ffw_norm.weight"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        refuse(cases[i].arch, &(extra){.without = cases[i].tensor}, DURE_ERR_FORMAT,
               cases[i].tensor);
    refuse("qwen3",
           &(extra){.tensor = "blk.0.attn_q_norm.weight",
                    .columns = 8,
                    .without = "blk.0.attn_q_norm.weight"},
           DURE_ERR_FORMAT, "blk.0.attn_q_norm.weight");
}

static void test_arch_refuses_keys_it_would_leave_out(void **state)
{
    (void)state;
    static const extra keys[] = {
        {.key = "llama.attention.scale", .number = 0.1},
        {.key = "llama.final_logit_softcapping", .number = 30},
        {.key = "llama.residual_scale", .number = 0.2},
        {.key = "llama.rope.scaling.yarn_log_multiplier", .number = 0.1},
        {.key = "llama.attention.sliding_window", .number = 512, .whole = true},
        {.key = "llama.attention.value_length", .number = 8, .whole = true},
    };
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        refuse("llama", &keys[i], DURE_ERR_UNSUPPORTED,
               i < 5 ? keys[i].key : "must be of one length");
    refuse("llama", &(extra){.key = "llama.attention.causal", .flag = true}, DURE_ERR_UNSUPPORTED,
           "causal");
    refuse("llama", &(extra){.without = "llama.attention.layer_norm_rms_epsilon"}, DURE_ERR_FORMAT,
           "layer_norm_rms_epsilon");
}

/* The frequency of pair 1 in the model with `more`. */
static double angle_of(const char *arch, const extra *more, bool sliding)
{
    opened o;
    dure_model_shape s;
    dure_model_arch a;
    dure_rope_table table;
    open_tiny(&o, &(tiny_model_opts){.arch = arch, .window = strcmp(arch, "gemma3") ? 0 : 5});
    if (more) change(&o, more);
    read_both(&s, &a, &o);
    assert_ok(dure_model_rope_read(&table, o.gguf, &s, &a, sliding, NULL));
    assert_int_equal(table.dim, 16);
    assert_int_equal(table.halves, strcmp(arch, "llama") != 0);
    double frequency = table.frequency[1];
    dure_rope_table_fini(&table);
    close_tiny(&o);
    return frequency;
}

static void test_arch_rope_stretches(void **state)
{
    (void)state;
    double plain = pow(10000, -2.0 / 16);
    assert_true(fabs(angle_of("llama", NULL, false) - plain) < 1e-12);
    const extra stretched = {.key = "llama.rope.scaling.factor", .number = 4};
    assert_true(fabs(angle_of("llama", &stretched, false) - plain / 4) < 1e-12);
    const extra older = {.key = "llama.rope.scale_linear", .number = 2};
    assert_true(fabs(angle_of("llama", &older, false) - plain / 2) < 1e-12);
    /* A layer that slides keeps its own frequencies. */
    const extra global = {.key = "gemma3.rope.scaling.factor", .number = 8};
    assert_true(fabs(angle_of("gemma3", &global, false) - plain / 8) < 1e-12);
    assert_true(fabs(angle_of("gemma3", &global, true) - plain) < 1e-12);
    const extra local = {.key = "gemma3.rope.freq_base_swa", .number = 100};
    assert_true(fabs(angle_of("gemma3", &local, true) - pow(100, -2.0 / 16)) < 1e-12);
}

static dure_err read_rope(double *magnitude, double frequency[8], const extra *first,
                          const extra *second, dure_diag *diag)
{
    opened o;
    dure_model_shape s;
    dure_model_arch a;
    dure_rope_table table;
    open_tiny(&o, &(tiny_model_opts){.arch = "qwen2"});
    change(&o, first);
    if (second) change(&o, second);
    change(&o, &(extra){.key = "qwen2.rope.scaling.original_context_length",
                        .number = 4096,
                        .whole = true});
    read_both(&s, &a, &o);
    dure_err err = dure_model_rope_read(&table, o.gguf, &s, &a, false, diag);
    if (!err && magnitude) {
        *magnitude = table.magnitude;
        memcpy(frequency, table.frequency, 8 * sizeof *frequency);
    }
    dure_rope_table_fini(&table);
    close_tiny(&o);
    return err;
}

/* transformers 5.24, _compute_yarn_parameters(): head_dim 16, rope_theta 10000, factor 4,
 * original_max_position_embeddings 4096. */
static void test_arch_rope_follows_yarn(void **state)
{
    (void)state;
    static const double expected[8] = {1,
                                       0.316227764,
                                       0.100000001,
                                       0.025693506,
                                       0.00624999963,
                                       0.00138349656,
                                       0.000250000012,
                                       7.90569466e-05};
    const extra yarn = {.key = "qwen2.rope.scaling.type", .text = "yarn"};
    const extra factor = {.key = "qwen2.rope.scaling.factor", .number = 4};
    double magnitude = 0, frequency[8];
    assert_ok(read_rope(&magnitude, frequency, &yarn, &factor, NULL));
    assert_true(fabs(magnitude - 1.138629436111989) < 1e-12);
    for (int i = 0; i < 8; i++)
        assert_true(fabs(frequency[i] - expected[i]) < 1e-6 * expected[i]);
}

static void test_arch_rope_refuses_other_scaling_by_name(void **state)
{
    (void)state;
    dure_diag diag = {{0}};
    const extra longrope = {.key = "qwen2.rope.scaling.type", .text = "longrope"};
    assert_err(read_rope(NULL, NULL, &longrope, NULL, &diag), DURE_ERR_UNSUPPORTED);
    assert_non_null(strstr(diag.text, "'longrope'"));
    const extra yarn = {.key = "qwen2.rope.scaling.type", .text = "yarn"};
    const extra factor = {.key = "qwen2.rope.scaling.yarn_attn_factor", .number = 1.5};
    assert_err(read_rope(NULL, NULL, &yarn, &factor, &diag), DURE_ERR_UNSUPPORTED);
    const extra negative = {.key = "qwen2.rope.scaling.factor", .number = -1};
    assert_err(read_rope(NULL, NULL, &negative, NULL, &diag), DURE_ERR_FORMAT);
    const extra odd = {.key = "qwen2.rope.dimension_count",
                       .number = 7,
                       .whole = true,
                       .without = "qwen2.rope.dimension_count"};
    assert_err(read_rope(NULL, NULL, &odd, NULL, &diag), DURE_ERR_FORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arch_llama),
        cmocka_unit_test(test_arch_qwen),
        cmocka_unit_test(test_arch_gemma3),
        cmocka_unit_test(test_arch_of_27b_scales_by_other_heads),
        cmocka_unit_test(test_arch_refuses_others_by_name),
        cmocka_unit_test(test_arch_refuses_odd_widths),
        cmocka_unit_test(test_arch_refuses_weights_it_cannot_decode_by_name),
        cmocka_unit_test(test_arch_refuses_tensors_it_would_leave_out),
        cmocka_unit_test(test_arch_refuses_a_model_without_its_tensors),
        cmocka_unit_test(test_arch_refuses_keys_it_would_leave_out),
        cmocka_unit_test(test_arch_rope_stretches),
        cmocka_unit_test(test_arch_rope_follows_yarn),
        cmocka_unit_test(test_arch_rope_refuses_other_scaling_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
