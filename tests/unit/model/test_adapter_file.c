#include "support/check.h"

#include "common/json.h"
#include "model/adapter_file.h"
#include "model/adapter_int.h"
#include "model/gguf_write.h"
#include "model/safetensors.h"
#include "support/temp_dir.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const dure_lora_layout small = {
    .shape = {.architecture = "llama",
              .n_layers = 3,
              .n_embd = 32,
              .n_ff = 48,
              .n_head = 4,
              .n_head_kv = 2,
              .head_dim = 8,
              .n_vocab = 100,
              .n_context = 64},
    .rank = 2,
    .alpha = 4,
    .targets = 1u << DURE_LORA_Q | 1u << DURE_LORA_V | 1u << DURE_LORA_DOWN,
    .first_layer = 1,
};

static dure_lora *make(const dure_lora_layout *layout)
{
    dure_lora *lora;
    assert_ok(dure_lora_new(&lora, layout));
    for (size_t i = 0; i < lora->n; i++)
        lora->params[i] = (float)i * 0.25f - 7;
    return lora;
}

static void encode(dure_buf *out, const dure_lora *lora, const dure_adapter_notes *notes)
{
    dure_buf_init(out, 1 << 22);
    assert_ok(dure_adapter_encode(out, lora, notes, NULL));
}

static void assert_same(const dure_lora *a, const dure_lora *b)
{
    assert_int_equal(a->n, b->n);
    assert_int_equal(a->layout.targets, b->layout.targets);
    assert_int_equal(a->layout.first_layer, b->layout.first_layer);
    assert_int_equal(a->layout.rank, b->layout.rank);
    assert_memory_equal(a->layout.ranks, b->layout.ranks, sizeof a->layout.ranks);
    assert_true(a->layout.alpha == b->layout.alpha);
    assert_memory_equal(a->params, b->params, a->n * sizeof *a->params);
}

static dure_adapter_notes make_notes(void)
{
    dure_adapter_notes notes = {.texts = json_pack("{s:s, s:s}", "version", "7", "round", "3")};
    memset(notes.base_digest, 'a', 64);
    return notes;
}

static void test_adapter_survives_gguf(void **state)
{
    (void)state;
    dure_lora *lora = make(&small), *back;
    dure_adapter_notes notes = make_notes(), read;
    dure_buf b;
    encode(&b, lora, &notes);
    assert_ok(dure_adapter_parse(&back, &read, dure_buf_span(&b), &small.shape, NULL));
    assert_same(lora, back);
    assert_string_equal(read.base_digest, notes.base_digest);
    assert_true(json_equal(read.texts, notes.texts));
    dure_lora_free(&back);
    dure_adapter_notes_fini(&read);
    assert_ok(dure_adapter_parse(&back, NULL, dure_buf_span(&b), NULL, NULL));
    assert_same(lora, back);
    assert_int_equal(back->layout.shape.n_context, 64);
    dure_lora_free(&back);
    dure_lora_free(&lora);
    dure_adapter_notes_fini(&notes);
    dure_buf_fini(&b);
}

static void test_adapter_bytes_are_a_function_of_the_adapter(void **state)
{
    (void)state;
    dure_lora *lora = make(&small);
    dure_adapter_notes one = {.texts = json_pack("{s:s, s:s}", "a", "1", "b", "2")};
    dure_adapter_notes two = {.texts = json_pack("{s:s, s:s}", "b", "2", "a", "1")};
    dure_buf first, second;
    encode(&first, lora, &one);
    encode(&second, lora, &two);
    assert_int_equal(first.n, second.n);
    assert_memory_equal(first.data, second.data, first.n);
    dure_buf_fini(&first);
    dure_buf_fini(&second);
    dure_adapter_notes_fini(&one);
    dure_adapter_notes_fini(&two);
    dure_lora_free(&lora);
}

static void test_adapter_file_has_what_llama_cpp_asks_for(void **state)
{
    (void)state;
    dure_lora *lora = make(&small);
    dure_buf b;
    dure_gguf *g;
    float alpha = 0;
    dure_span text = {0};
    encode(&b, lora, NULL);
    assert_ok(dure_gguf_parse(&g, dure_buf_span(&b), NULL, NULL));
    assert_ok(dure_gguf_f32(&alpha, g, "adapter.lora.alpha", NULL));
    assert_true(alpha == 4.0f);
    assert_ok(dure_gguf_text(&text, g, "general.type", NULL));
    assert_memory_equal(text.data, "adapter", 7);
    const dure_gguf_tensor *a = dure_gguf_find(g, "blk.1.attn_q.weight.lora_a");
    const dure_gguf_tensor *down = dure_gguf_find(g, "blk.2.ffn_down.weight.lora_b");
    assert_non_null(a);
    assert_non_null(down);
    assert_int_equal(a->dims[0], 32);
    assert_int_equal(a->dims[1], 2);
    assert_int_equal(down->dims[0], 2);
    assert_int_equal(down->dims[1], 32);
    assert_null(dure_gguf_find(g, "blk.0.attn_q.weight.lora_a"));
    dure_gguf_close(&g);
    dure_buf_fini(&b);
    dure_lora_free(&lora);
}

static void other_base(const dure_lora *lora, const dure_model_shape *shape, const char *word)
{
    dure_buf b;
    dure_lora *back;
    dure_diag diag = {{0}};
    encode(&b, lora, NULL);
    assert_err(dure_adapter_parse(&back, NULL, dure_buf_span(&b), shape, &diag), DURE_ERR_STATE);
    assert_null(back);
    assert_non_null(strstr(diag.text, "another base"));
    if (!strstr(diag.text, word)) fail_msg("'%s' lacks '%s'", diag.text, word);
    dure_buf_fini(&b);
}

static void test_adapter_of_another_base_is_an_error_by_itself(void **state)
{
    (void)state;
    dure_lora *lora = make(&small);
    dure_model_shape shape = small.shape;
    shape.n_layers = 2;
    other_base(lora, &shape, "layers");
    shape = small.shape;
    shape.n_embd = 64;
    other_base(lora, &shape, "embedding");
    shape = small.shape;
    shape.n_vocab = 101;
    other_base(lora, &shape, "vocabulary");
    shape = small.shape;
    snprintf(shape.architecture, sizeof shape.architecture, "qwen2");
    other_base(lora, &shape, "architecture");
    dure_lora_free(&lora);
}

static void test_adapter_every_cut_is_refused(void **state)
{
    (void)state;
    dure_lora *lora = make(&small), *back;
    dure_buf b;
    encode(&b, lora, NULL);
    for (size_t n = 0; n + 32 < b.n; n += n < 3000 ? 1 : 61) {
        uint8_t *exact = malloc(n + 1);
        memcpy(exact, b.data, n);
        if (!dure_adapter_parse(&back, NULL, dure_span_of(exact, n), NULL, NULL))
            fail_msg("%zu of %zu bytes were accepted", n, b.n);
        free(exact);
    }
    dure_buf_fini(&b);
    dure_lora_free(&lora);
}

static void test_adapter_refuses_a_value_that_is_not_finite(void **state)
{
    (void)state;
    dure_lora *lora = make(&small), *back;
    dure_buf b;
    dure_diag diag = {{0}};
    lora->params[3] = INFINITY;
    encode(&b, lora, NULL);
    assert_err(dure_adapter_parse(&back, NULL, dure_buf_span(&b), &small.shape, &diag),
               DURE_ERR_FORMAT);
    assert_non_null(strstr(diag.text, "not finite"));
    dure_buf_fini(&b);
    dure_lora_free(&lora);
}

/* One tensor of an adapter made by hand. */
typedef struct made {
    const char *name;
    uint64_t cols, rows;
    uint32_t type;
    const uint8_t *data; /* NULL: all zero */
} made;

typedef struct by_hand {
    const char *type, *adapter_type;
    float alpha;
    made tensors[6];
    size_t n;
} by_hand;

/* Parsed for a model of one layer, 32 wide, feed-forward 48. */
static dure_err parse_by_hand(dure_lora **out, const by_hand *from, dure_diag *diag)
{
    static const uint8_t zeros[4096];
    dure_model_shape shape = small.shape;
    shape.n_layers = 1;
    dure_gguf_writer *w;
    dure_buf b;
    assert_ok(dure_gguf_writer_new(&w));
    dure_gguf_put_text(w, "general.architecture", dure_span_of_text("llama"));
    dure_gguf_put_text(w, "general.type", dure_span_of_text(from->type ? from->type : "adapter"));
    dure_gguf_put_text(w, "adapter.type",
                       dure_span_of_text(from->adapter_type ? from->adapter_type : "lora"));
    dure_gguf_put_f32(w, "adapter.lora.alpha", from->alpha);
    for (size_t i = 0; i < from->n; i++)
        dure_gguf_put_tensor(
            w, &(dure_gguf_tensor){.name = from->tensors[i].name,
                                   .type = from->tensors[i].type,
                                   .n_dims = 2,
                                   .dims = {from->tensors[i].cols, from->tensors[i].rows},
                                   .data = from->tensors[i].data ? from->tensors[i].data : zeros});
    dure_buf_init(&b, 1 << 20);
    assert_ok(dure_gguf_writer_encode(&b, w));
    dure_err err = dure_adapter_parse(out, NULL, dure_buf_span(&b), &shape, diag);
    dure_gguf_writer_free(&w);
    dure_buf_fini(&b);
    return err;
}

static void refuse(const by_hand *from, dure_err err, const char *word)
{
    dure_lora *lora;
    dure_diag diag = {{0}};
    assert_err(parse_by_hand(&lora, from, &diag), err);
    assert_null(lora);
    if (!strstr(diag.text, word)) fail_msg("'%s' lacks '%s'", diag.text, word);
}

static void test_adapter_reads_half_precision_and_alpha_zero(void **state)
{
    (void)state;
    dure_lora *lora;
    const by_hand from = {.n = 2,
                          .tensors = {{"blk.0.attn_q.weight.lora_a", 32, 4, DURE_GGUF_F16, NULL},
                                      {"blk.0.attn_q.weight.lora_b", 4, 32, DURE_GGUF_BF16, NULL}}};
    assert_ok(parse_by_hand(&lora, &from, NULL));
    assert_int_equal(lora->layout.rank, 4);
    assert_true(lora->layout.alpha == 4.0f); /* alpha 0 stands for a scale of 1 */
    dure_lora_free(&lora);
}

static void test_adapter_reads_blocks_of_8_bits(void **state)
{
    (void)state;
    dure_lora *lora;
    uint8_t blocks[2 * 34] = {[0] = 0x00, [1] = 0x38, [2] = 3, [35] = 0xC0, [67] = 0xFF};
    const by_hand from = {.alpha = 1,
                          .n = 2,
                          .tensors = {{"blk.0.attn_q.weight.lora_a", 32, 2, DURE_GGUF_Q8_0, blocks},
                                      {"blk.0.attn_q.weight.lora_b", 2, 32, DURE_GGUF_F32, NULL}}};
    assert_ok(parse_by_hand(&lora, &from, NULL));
    assert_true(lora->params[0] == 1.5f);  /* half of 3 */
    assert_true(lora->params[63] == 2.0f); /* -2 times -1 */
    dure_lora_free(&lora);
}

static void test_adapter_refuses_other_kinds_of_adapters(void **state)
{
    (void)state;
    const made a = {"blk.0.attn_q.weight.lora_a", 32, 2, DURE_GGUF_F32, NULL};
    const made b = {"blk.0.attn_q.weight.lora_b", 2, 32, DURE_GGUF_F32, NULL};
    refuse(&(by_hand){.alpha = 1, .n = 2, .tensors = {a, b}, .type = "model"}, DURE_ERR_UNSUPPORTED,
           "general.type");
    refuse(&(by_hand){.alpha = 1, .n = 2, .tensors = {a, b}, .adapter_type = "control_vector"},
           DURE_ERR_UNSUPPORTED, "adapter.type");
    refuse(&(by_hand){.alpha = -1, .n = 2, .tensors = {a, b}}, DURE_ERR_UNSUPPORTED, "alpha");
    refuse(&(by_hand){.alpha = 1}, DURE_ERR_FORMAT, "no LoRA tensor");
    refuse(&(by_hand){.alpha = 1, .n = 1, .tensors = {a}}, DURE_ERR_UNSUPPORTED, "1 tensors");
    refuse(&(by_hand){.alpha = 1, .n = 2, .tensors = {a, {"output.weight.lora_b", 2, 32, 0, NULL}}},
           DURE_ERR_UNSUPPORTED, "output.weight.lora_b");
    refuse(&(by_hand){.alpha = 1,
                      .n = 2,
                      .tensors = {a, {"blk.0.attn_q.weight.lora_b", 3, 32, 0, NULL}}},
           DURE_ERR_UNSUPPORTED, "rank 3");
    refuse(&(by_hand){.alpha = 1,
                      .n = 2,
                      .tensors = {{"blk.0.attn_q.weight.lora_a", 32, 2, DURE_GGUF_Q4_1, NULL}, b}},
           DURE_ERR_UNSUPPORTED, "Q4_1");
    refuse(&(by_hand){.alpha = 1,
                      .n = 2,
                      .tensors = {{"blk.4294967296.attn_q.weight.lora_a", 32, 2, 0, NULL}, b}},
           DURE_ERR_UNSUPPORTED, "4294967296");
}

static void test_adapter_sizes_of_another_base_are_refused(void **state)
{
    (void)state;
    const made b = {"blk.0.attn_q.weight.lora_b", 2, 32, DURE_GGUF_F32, NULL};
    refuse(&(by_hand){.alpha = 1,
                      .n = 2,
                      .tensors = {{"blk.0.attn_q.weight.lora_a", 64, 2, 0, NULL}, b}},
           DURE_ERR_STATE, "another base");
    refuse(&(by_hand){.alpha = 1,
                      .n = 2,
                      .tensors = {{"blk.7.attn_q.weight.lora_a", 32, 2, 0, NULL}, b}},
           DURE_ERR_STATE, "another base");
}

static void test_adapter_notes_are_checked(void **state)
{
    (void)state;
    dure_lora *lora = make(&small);
    dure_buf b;
    dure_buf_init(&b, 1 << 20);
    dure_adapter_notes notes = {.texts = json_pack("{s:i}", "n", 3)};
    assert_err(dure_adapter_encode(&b, lora, &notes, NULL), DURE_ERR_FORMAT);
    dure_adapter_notes_fini(&notes);
    notes.texts = json_pack("{s:s}", "with blank", "x");
    assert_err(dure_adapter_encode(&b, lora, &notes, NULL), DURE_ERR_FORMAT);
    dure_adapter_notes_fini(&notes);
    memset(notes.base_digest, 'Z', 64);
    assert_err(dure_adapter_encode(&b, lora, &notes, NULL), DURE_ERR_FORMAT);
    dure_buf_fini(&b);
    dure_lora_free(&lora);
}

static void test_peft_rows_of_a_head_are_interleaved(void **state)
{
    /* conversion/llama.py permute(): reshape(heads, 2, hd/2).swapaxes(1, 2); here hd = 8. */
    (void)state;
    const uint32_t of_head[8] = {0, 2, 4, 6, 1, 3, 5, 7};
    for (uint32_t row = 0; row < 32; row++) {
        uint32_t wanted = row / 8 * 8 + of_head[row % 8];
        assert_int_equal(dure_adapter_gguf_row(&small.shape, DURE_LORA_Q, row), wanted);
        assert_int_equal(dure_adapter_gguf_row(&small.shape, DURE_LORA_K, row), wanted);
        assert_int_equal(dure_adapter_gguf_row(&small.shape, DURE_LORA_V, row), row);
    }
}

static void test_peft_rows_keep_their_order_in_other_architectures(void **state)
{
    (void)state;
    static const char *const names[] = {"qwen2", "qwen3", "gemma3"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        dure_model_shape shape = small.shape;
        snprintf(shape.architecture, sizeof shape.architecture, "%s", names[i]);
        for (uint32_t row = 0; row < 32; row++)
            assert_int_equal(dure_adapter_gguf_row(&shape, DURE_LORA_Q, row), row);
    }
}

/* An adapter of any architecture goes through both forms unchanged, and is refused for another. */
static void test_adapter_of_other_architectures(void **state)
{
    (void)state;
    static const char *const names[] = {"qwen2", "qwen3", "gemma3"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        temp_dir dir;
        dure_buf b;
        dure_lora *again;
        dure_diag diag = {{0}};
        dure_lora_layout layout = small;
        snprintf(layout.shape.architecture, sizeof layout.shape.architecture, "%s", names[i]);
        dure_lora *lora = make(&layout);
        encode(&b, lora, NULL);
        assert_ok(dure_adapter_parse(&again, NULL, dure_buf_span(&b), NULL, NULL));
        assert_same(lora, again);
        assert_string_equal(again->layout.shape.architecture, names[i]);
        dure_lora_free(&again);
        assert_err(dure_adapter_parse(&again, NULL, dure_buf_span(&b), &small.shape, &diag),
                   DURE_ERR_STATE);
        assert_non_null(strstr(diag.text, "architecture"));
        dure_buf_fini(&b);
        temp_dir_make(&dir);
        assert_ok(dure_adapter_save_peft(dir.path, lora, "base", NULL, NULL));
        assert_ok(dure_adapter_load_peft(&again, NULL, dir.path, &layout.shape, NULL));
        assert_same(lora, again);
        dure_lora_free(&again);
        dure_lora_free(&lora);
        temp_dir_remove(&dir);
    }
}

static void test_adapter_survives_a_peft_folder(void **state)
{
    (void)state;
    temp_dir dir;
    temp_dir_make(&dir);
    const char *folder = temp_dir_file(&dir, "peft");
    dure_lora_layout all = small;
    all.targets = (1u << DURE_LORA_TARGETS) - 1;
    dure_lora *lora = make(&all), *back;
    dure_adapter_notes notes = make_notes(), read;
    assert_ok(dure_adapter_save_peft(folder, lora, "org/base", &notes, NULL));
    assert_ok(dure_adapter_load_peft(&back, &read, folder, &all.shape, NULL));
    assert_same(lora, back);
    assert_string_equal(read.base_digest, notes.base_digest);
    assert_true(json_equal(read.texts, notes.texts));
    json_t *config;
    assert_ok(
        dure_json_read(&config, temp_dir_file(&dir, "peft/adapter_config.json"), 1 << 16, NULL));
    assert_int_equal(json_array_size(json_object_get(config, "target_modules")), 7);
    assert_int_equal(
        json_integer_value(json_array_get(json_object_get(config, "layers_to_transform"), 0)), 1);
    json_decref(config);
    dure_lora_free(&back);
    dure_lora_free(&lora);
    dure_adapter_notes_fini(&notes);
    dure_adapter_notes_fini(&read);
    temp_dir_remove(&dir);
}

/* Loads a saved folder whose config has `key` set to the JSON in `value`. */
static dure_err load_changed(dure_lora **out, const char *key, const char *value, dure_diag *diag)
{
    temp_dir dir;
    temp_dir_make(&dir);
    dure_lora *lora = make(&small);
    json_t *config, *changed = json_loads(value, JSON_DECODE_ANY, NULL);
    assert_ok(dure_adapter_save_peft(dir.path, lora, "org/base", NULL, NULL));
    const char *path = temp_dir_file(&dir, "adapter_config.json");
    assert_ok(dure_json_read(&config, path, 1 << 16, NULL));
    json_object_set_new(config, key, changed);
    assert_ok(dure_json_write(path, config, 0600, NULL));
    dure_err err = dure_adapter_load_peft(out, NULL, dir.path, &small.shape, diag);
    json_decref(config);
    dure_lora_free(&lora);
    temp_dir_remove(&dir);
    return err;
}

static void test_peft_variants_are_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *key, *value, *word;
        dure_err err;
    } cases[] = {
        {"peft_type", "\"PREFIX_TUNING\"", "peft_type", DURE_ERR_UNSUPPORTED},
        {"use_dora", "true", "magnitudes of DoRA are not there", DURE_ERR_FORMAT},
        {"rank_pattern", "{\"q_proj\": 4}", "q_proj is 2, but the configuration says 4",
         DURE_ERR_FORMAT},
        {"rank_pattern", "{\"q_proj\": 0}", "no rank", DURE_ERR_FORMAT},
        {"rank_pattern", "{\"q_proj\": 2, \"self_attn.q_proj\": 2}", "no rank", DURE_ERR_FORMAT},
        {"rank_pattern", "{\"layers.0.q_proj\": 4}", "rank pattern", DURE_ERR_UNSUPPORTED},
        {"alpha_pattern", "{\"q_proj\": 4}", "alpha pattern", DURE_ERR_UNSUPPORTED},
        {"modules_to_save", "[\"lm_head\"]", "saved modules", DURE_ERR_UNSUPPORTED},
        {"bias", "\"all\"", "biases", DURE_ERR_UNSUPPORTED},
        {"init_lora_weights", "\"pissa\"", "init_lora_weights", DURE_ERR_UNSUPPORTED},
        {"lora_alpha", "-1", "lora_alpha", DURE_ERR_FORMAT},
        {"lora_alpha", "\"8\"", "lora_alpha", DURE_ERR_FORMAT},
        {"r", "3", "q_proj is 2, but the configuration says 3", DURE_ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        dure_lora *lora;
        dure_diag diag = {{0}};
        assert_err(load_changed(&lora, cases[i].key, cases[i].value, &diag), cases[i].err);
        assert_null(lora);
        if (!strstr(diag.text, cases[i].word)) fail_msg("'%s'", diag.text);
    }
}

static void test_peft_rslora_is_folded_into_alpha(void **state)
{
    (void)state;
    dure_lora *lora;
    assert_ok(load_changed(&lora, "use_rslora", "true", NULL));
    assert_float_equal(lora->layout.alpha, 4 * sqrtf(2), 1e-6);
    dure_lora_free(&lora);
}

/* Targets may have ranks of their own; both formats say so, and give the same layout back. */
static void test_adapter_survives_with_a_rank_a_target(void **state)
{
    (void)state;
    dure_lora_layout layout = small;
    dure_buf b;
    temp_dir dir;
    layout.ranks[DURE_LORA_V] = 5;
    layout.ranks[DURE_LORA_DOWN] = 1;
    dure_lora *lora = make(&layout), *back;
    encode(&b, lora, NULL);
    assert_ok(dure_adapter_parse(&back, NULL, dure_buf_span(&b), &small.shape, NULL));
    assert_same(lora, back);
    dure_lora_free(&back);
    temp_dir_make(&dir);
    assert_ok(dure_adapter_save_peft(dir.path, lora, "base", NULL, NULL));
    json_t *config = NULL;
    assert_ok(dure_json_read(&config, temp_dir_file(&dir, "adapter_config.json"), 1 << 16, NULL));
    json_t *want = json_pack("{s:i, s:i}", "v_proj", 5, "down_proj", 1);
    assert_true(json_equal(json_object_get(config, "rank_pattern"), want));
    json_decref(want);
    json_decref(config);
    assert_ok(dure_adapter_load_peft(&back, NULL, dir.path, &small.shape, NULL));
    assert_same(lora, back);
    dure_lora_free(&back);
    dure_lora_free(&lora);
    dure_buf_fini(&b);
    temp_dir_remove(&dir);
}

/* PEFT has DoRA's magnitudes, by the checkpoint's rows; GGUF has no place for them. */
static void test_adapter_of_dora_survives_a_peft_folder_alone(void **state)
{
    (void)state;
    dure_lora_layout layout = small;
    dure_buf b;
    dure_diag diag = {{0}};
    temp_dir dir;
    layout.dora = true;
    dure_lora *lora = make(&layout), *back;
    dure_buf_init(&b, 1 << 22);
    assert_err(dure_adapter_encode(&b, lora, NULL, &diag), DURE_ERR_UNSUPPORTED);
    assert_non_null(strstr(diag.text, "keep the PEFT folder"));
    temp_dir_make(&dir);
    assert_ok(dure_adapter_save_peft(dir.path, lora, "base", NULL, NULL));
    assert_ok(dure_adapter_load_peft(&back, NULL, dir.path, &small.shape, NULL));
    assert_true(back->layout.dora);
    assert_same(lora, back);
    dure_lora_free(&back);
    json_t *config = NULL;
    const char *path = temp_dir_file(&dir, "adapter_config.json");
    assert_ok(dure_json_read(&config, path, 1 << 16, NULL));
    assert_true(json_is_true(json_object_get(config, "use_dora")));
    json_object_set_new(config, "use_dora", json_false());
    assert_ok(dure_json_write(path, config, 0600, NULL));
    assert_err(dure_adapter_load_peft(&back, NULL, dir.path, &small.shape, &diag), DURE_ERR_FORMAT);
    assert_non_null(strstr(diag.text, "magnitudes of DoRA are there"));
    json_decref(config);
    dure_lora_free(&lora);
    dure_buf_fini(&b);
    temp_dir_remove(&dir);
}

/* Of Llama 3.1 8B. */
static const dure_model_shape of_8b = {.architecture = "llama",
                                       .n_layers = 32,
                                       .n_embd = 4096,
                                       .n_ff = 14336,
                                       .n_head = 32,
                                       .n_head_kv = 8,
                                       .head_dim = 128};

/* Every matrix of the small base, at the highest rank that it has. */
static dure_lora_layout largest(bool dora)
{
    dure_lora_layout layout = small;
    layout.rank = 32;
    layout.ranks[DURE_LORA_K] = layout.ranks[DURE_LORA_V] = 16;
    layout.targets = (1u << DURE_LORA_TARGETS) - 1;
    layout.first_layer = 0;
    layout.dora = dora;
    return layout;
}

/* The bound on a file follows the base: every adapter of rank 256 is below it, and not far. */
static void test_adapter_bytes_are_bounded_by_the_base(void **state)
{
    (void)state;
    const size_t values = dure_lora_count_most(&of_8b) * sizeof(float);
    assert_true(values > (size_t)2 << 30);
    assert_in_range(dure_adapter_bytes_most(&of_8b), values, values + ((size_t)256 << 20));
    const dure_lora_layout layout = largest(false);
    dure_lora *lora = make(&layout);
    dure_buf bytes;
    encode(&bytes, lora, NULL);
    assert_true(bytes.n < dure_adapter_bytes_most(&layout.shape));
    dure_buf_fini(&bytes);
    dure_lora_free(&lora);
}

/* What is written is read again, however large; a file that no adapter of the base can fill is not
 * taken into memory. */
static void test_peft_file_is_as_large_as_an_adapter_can_be(void **state)
{
    (void)state;
    temp_dir dir;
    dure_diag diag = {{0}};
    /* 256 times the in and out features of the seven matrices, and their magnitudes. */
    assert_int_equal(dure_lora_count_most(&of_8b), 32 * (256 * 81920 + 43008));
    const dure_lora_layout layout = largest(true);
    assert_ok(dure_lora_layout_check(&layout, NULL));
    assert_int_equal(dure_lora_count_most(&layout.shape),
                     dure_lora_count(&layout, DURE_LORA_FACTOR_BOTH));
    dure_lora *lora = make(&layout), *back;
    temp_dir_make(&dir);
    assert_ok(dure_adapter_save_peft(dir.path, lora, "base", NULL, NULL));
    assert_ok(dure_adapter_load_peft(&back, NULL, dir.path, &layout.shape, NULL));
    assert_same(lora, back);
    const char *path = temp_dir_file(&dir, "adapter_model.safetensors");
    assert_int_equal(truncate(path, (off_t)(lora->n * sizeof(float)) + (17 << 20)), 0);
    dure_lora_free(&back);
    assert_err(dure_adapter_load_peft(&back, NULL, dir.path, &layout.shape, &diag), DURE_ERR_LIMIT);
    assert_null(back);
    dure_lora_free(&lora);
    temp_dir_remove(&dir);
}

static void refuse_tensors(const char *header, uint64_t length, size_t n_data, dure_err err)
{
    size_t n = 8 + strlen(header) + n_data;
    uint8_t *bytes = calloc(n, 1);
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(length >> 8 * i);
    memcpy(bytes + 8, header, strlen(header));
    dure_lora *lora;
    dure_diag diag = {{0}};
    assert_err(
        dure_adapter_parse_safetensors(&lora, NULL, dure_span_of(bytes, n), 1, &small.shape, &diag),
        err);
    assert_null(lora);
    assert_true(diag.text[0]);
    free(bytes);
}

#define Q_A "\"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight\":"
#define Q_B "\"base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight\":"

static void test_safetensors_hostile_headers_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        dure_err err;
    } cases[] = {
        {"{", DURE_ERR_FORMAT},
        {"[]", DURE_ERR_FORMAT},
        {"{}", DURE_ERR_FORMAT},
        {"{" Q_A "3}", DURE_ERR_UNSUPPORTED},
        {"{" Q_A "{\"dtype\":\"I8\",\"shape\":[2,32],\"data_offsets\":[0,64]}}",
         DURE_ERR_UNSUPPORTED},
        {"{" Q_A "{\"dtype\":\"F32\",\"shape\":[64],\"data_offsets\":[0,256]}}",
         DURE_ERR_UNSUPPORTED},
        {"{" Q_A "{\"dtype\":\"F32\",\"shape\":[2,32],\"data_offsets\":[0,255]}}", DURE_ERR_FORMAT},
        {"{" Q_A "{\"dtype\":\"F32\",\"shape\":[2,32],\"data_offsets\":[64,320]}}",
         DURE_ERR_FORMAT},
        {"{" Q_A "{\"dtype\":\"F32\",\"shape\":[2,32],\"data_offsets\":[-256,0]}}",
         DURE_ERR_FORMAT},
        {"{" Q_A "{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,0]}}",
         DURE_ERR_FORMAT},
        /* Each inside the file, but the same bytes twice. */
        {"{" Q_A "{\"dtype\":\"F32\",\"shape\":[2,32],\"data_offsets\":[0,256]}," Q_B
         "{\"dtype\":\"F32\",\"shape\":[32,2],\"data_offsets\":[0,256]}}",
         DURE_ERR_FORMAT},
        {"{\"\\n\":{\"dtype\":\"F32\",\"shape\":[2,32],\"data_offsets\":[0,256]}}",
         DURE_ERR_FORMAT},
        {"{\"model.embed\":{\"dtype\":\"F32\",\"shape\":[2,32],\"data_offsets\":[0,256]}}",
         DURE_ERR_UNSUPPORTED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        refuse_tensors(cases[i].header, strlen(cases[i].header), 256, cases[i].err);
    refuse_tensors("{}", UINT64_MAX, 0, DURE_ERR_FORMAT);
    refuse_tensors("{}", 3, 0, DURE_ERR_FORMAT);
}

/* A DoRA adapter for `small` of q alone in layers from 1 on, as a tensors' file in which the tensor
 * `from` (the end of a name) is called `to`. */
static dure_err parse_misplaced(dure_diag *diag, const char *from, const char *to)
{
    enum { LAYERS = 2, PARTS = 3 };
    static const uint8_t zeros[4096];
    static const char *const suffixes[PARTS] = {"lora_A.weight", "lora_B.weight",
                                                "lora_magnitude_vector"};
    char names[LAYERS * PARTS][128];
    dure_safetensor tensors[LAYERS * PARTS];
    dure_buf b;
    dure_lora *lora;
    for (int i = 0; i < LAYERS * PARTS; i++) {
        char place[64];
        snprintf(place, sizeof place, "%d.self_attn.q_proj.%s", 1 + i / PARTS, suffixes[i % PARTS]);
        snprintf(names[i], sizeof names[i], "base_model.model.model.layers.%s",
                 strcmp(place, from) ? place : to);
        tensors[i] = (dure_safetensor){.name = names[i],
                                       .rows = i % PARTS ? 32 : 2,
                                       .cols = (uint64_t[]){32, 2, 1}[i % PARTS],
                                       .is_vector = i % PARTS == 2,
                                       .data = zeros};
    }
    dure_buf_init(&b, 1 << 20);
    assert_ok(dure_safetensors_encode(&b, tensors, LAYERS * PARTS, NULL));
    dure_err err =
        dure_adapter_parse_safetensors(&lora, NULL, dure_buf_span(&b), 1, &small.shape, diag);
    if (!err) dure_lora_free(&lora);
    dure_buf_fini(&b);
    return err;
}

/* As many magnitudes as are needed, but one where nothing is adapted. */
static void test_peft_magnitudes_belong_to_adapted_matrices(void **state)
{
    (void)state;
    static const char *const elsewhere[] = {
        "0.self_attn.q_proj.lora_magnitude_vector", /* below the first adapted layer */
        "1.self_attn.o_proj.lora_magnitude_vector", /* of a target that is not adapted */
        "2.mlp.down_proj.lora_magnitude_vector",
    };
    assert_ok(parse_misplaced(NULL, "", ""));
    for (size_t i = 0; i < sizeof elsewhere / sizeof elsewhere[0]; i++) {
        dure_diag diag = {{0}};
        assert_err(parse_misplaced(&diag, "2.self_attn.q_proj.lora_magnitude_vector", elsewhere[i]),
                   DURE_ERR_UNSUPPORTED);
        if (!strstr(diag.text, elsewhere[i])) fail_msg("'%s'", diag.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adapter_survives_gguf),
        cmocka_unit_test(test_adapter_bytes_are_a_function_of_the_adapter),
        cmocka_unit_test(test_adapter_file_has_what_llama_cpp_asks_for),
        cmocka_unit_test(test_adapter_of_another_base_is_an_error_by_itself),
        cmocka_unit_test(test_adapter_every_cut_is_refused),
        cmocka_unit_test(test_adapter_refuses_a_value_that_is_not_finite),
        cmocka_unit_test(test_adapter_reads_half_precision_and_alpha_zero),
        cmocka_unit_test(test_adapter_reads_blocks_of_8_bits),
        cmocka_unit_test(test_adapter_refuses_other_kinds_of_adapters),
        cmocka_unit_test(test_adapter_sizes_of_another_base_are_refused),
        cmocka_unit_test(test_adapter_notes_are_checked),
        cmocka_unit_test(test_peft_rows_of_a_head_are_interleaved),
        cmocka_unit_test(test_peft_rows_keep_their_order_in_other_architectures),
        cmocka_unit_test(test_adapter_of_other_architectures),
        cmocka_unit_test(test_adapter_survives_a_peft_folder),
        cmocka_unit_test(test_peft_variants_are_refused_by_name),
        cmocka_unit_test(test_peft_rslora_is_folded_into_alpha),
        cmocka_unit_test(test_adapter_survives_with_a_rank_a_target),
        cmocka_unit_test(test_adapter_of_dora_survives_a_peft_folder_alone),
        cmocka_unit_test(test_adapter_bytes_are_bounded_by_the_base),
        cmocka_unit_test(test_peft_file_is_as_large_as_an_adapter_can_be),
        cmocka_unit_test(test_peft_magnitudes_belong_to_adapted_matrices),
        cmocka_unit_test(test_safetensors_hostile_headers_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
