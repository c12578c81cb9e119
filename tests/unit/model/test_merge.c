#include "support/check.h"

#include "common/file.h"
#include "kernels/compute.h"
#include "model/merge.h"
#include "model/shape.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct fixture {
    temp_dir dir;
    dure_gguf *base;
    dure_lora *lora;
} fixture;

/* The base in `type` and an adapter on q (rank 4) and down (2) of relative size about `size`. */
static void open_kind(fixture *f, uint32_t type, float size, bool dora)
{
    temp_dir_make(&f->dir);
    const char *path = temp_dir_file(&f->dir, "base.gguf");
    tiny_model_write(path, &(tiny_model_opts){.seed = 3, .type = type});
    assert_ok(dure_gguf_open(&f->base, path, NULL, NULL));
    dure_lora_layout layout = {
        .rank = 4, .alpha = 4, .targets = 1u << DURE_LORA_Q | 1u << DURE_LORA_DOWN};
    layout.ranks[DURE_LORA_DOWN] = 2;
    layout.dora = dora;
    assert_ok(dure_model_shape_read(&layout.shape, f->base, NULL));
    assert_ok(dure_lora_new(&f->lora, &layout));
    uint32_t random = 7;
    for (size_t i = 0; i < f->lora->n; i++) {
        random = random * 1664525u + 1013904223u;
        f->lora->params[i] = size * ((float)(random >> 8) / 16777216.0f - 0.5f);
    }
}

static void open_pair(fixture *f, uint32_t type, float size)
{
    open_kind(f, type, size, false);
}

static void close_pair(fixture *f)
{
    dure_lora_free(&f->lora);
    dure_gguf_close(&f->base);
    temp_dir_remove(&f->dir);
}

static void merge(dure_merge_report *report, dure_gguf **merged, const fixture *f,
                  dure_merge_mode mode)
{
    const char *path = temp_dir_file(&f->dir, "merged.gguf");
    dure_merge_opts opts = {.mode = mode, .base_digest = "b", .adapter_digest = "a"};
    assert_ok(dure_merge_save(report, path, f->base, f->lora, &opts, NULL));
    assert_ok(dure_gguf_open(merged, path, NULL, NULL));
}

static void test_merge_f16_keeps_the_update(void **state)
{
    (void)state;
    fixture f;
    dure_merge_report report;
    dure_gguf *merged;
    open_pair(&f, TINY_Q4_1, 0.05f);
    merge(&report, &merged, &f, DURE_MERGE_F16);
    assert_int_equal(report.n, 4); /* two matrices in each of two layers */
    for (size_t i = 0; i < report.n; i++) {
        assert_int_equal(report.tensors[i].from_type, DURE_GGUF_Q4_1);
        assert_int_equal(report.tensors[i].to_type, DURE_GGUF_F16);
        assert_true(report.tensors[i].relative_size > 0.0005);
        assert_true(report.tensors[i].relative_size < 0.05);
        assert_float_equal(report.tensors[i].gain, 1, 0.05);
        assert_true(report.tensors[i].relative_error < 0.2);
    }
    assert_float_equal(report.gain, 1, 0.01);
    dure_merge_report_fini(&report);
    dure_gguf_close(&merged);
    close_pair(&f);
}

static void test_merge_mixed_raises_adapted_matrices_to_q8_0(void **state)
{
    (void)state;
    fixture f;
    dure_merge_report report;
    dure_gguf *merged;
    open_pair(&f, TINY_Q4_1, 0.2f);
    merge(&report, &merged, &f, DURE_MERGE_MIXED);
    assert_int_equal(dure_gguf_find(merged, "blk.0.attn_q.weight")->type, DURE_GGUF_Q8_0);
    assert_int_equal(dure_gguf_find(merged, "blk.1.ffn_down.weight")->type, DURE_GGUF_Q8_0);
    assert_int_equal(dure_gguf_find(merged, "blk.0.attn_k.weight")->type, DURE_GGUF_Q4_1);
    assert_float_equal(report.gain, 1, 0.05);
    dure_merge_report_fini(&report);
    dure_gguf_close(&merged);
    close_pair(&f);
}

static void test_merge_copies_the_rest_bit_for_bit(void **state)
{
    (void)state;
    fixture f;
    dure_merge_report report;
    dure_gguf *merged;
    open_pair(&f, TINY_Q4_1, 0.2f);
    merge(&report, &merged, &f, DURE_MERGE_F16);
    assert_int_equal(dure_gguf_tensor_count(merged), dure_gguf_tensor_count(f.base));
    size_t same = 0;
    for (size_t i = 0; i < dure_gguf_tensor_count(merged); i++) {
        const dure_gguf_tensor *a = dure_gguf_tensor_at(f.base, i);
        const dure_gguf_tensor *b = dure_gguf_tensor_at(merged, i);
        assert_string_equal(a->name, b->name);
        if (a->type != b->type) continue;
        assert_int_equal(a->bytes, b->bytes);
        assert_memory_equal(a->data, b->data, a->bytes);
        same++;
    }
    assert_int_equal(same, dure_gguf_tensor_count(merged) - 4);
    dure_span text = {0};
    assert_ok(dure_gguf_text(&text, merged, "tokenizer.chat_template", NULL));
    assert_ok(dure_gguf_text(&text, merged, "dure.merge.mode", NULL));
    assert_memory_equal(text.data, "f16", 3);
    dure_merge_report_fini(&report);
    dure_gguf_close(&merged);
    close_pair(&f);
}

/* One element of the merged matrix is that of W + alpha / rank B A. */
static void check_element(const fixture *f, const dure_gguf *merged, dure_lora_target target,
                          size_t rank, size_t in)
{
    char name[64];
    dure_model_target_name(name, 1, target);
    const dure_gguf_tensor *w = dure_gguf_find(f->base, name), *m = dure_gguf_find(merged, name);
    assert_int_equal(m->type, DURE_GGUF_F32);
    size_t a = 0, b = 0, row = 5, col = 9;
    assert_true(dure_lora_find(&a, &f->lora->layout, 1, target, DURE_LORA_FACTOR_A));
    assert_true(dure_lora_find(&b, &f->lora->layout, 1, target, DURE_LORA_FACTOR_B));
    float old, new;
    memcpy(&old, w->data + (row * in + col) * 4, 4);
    memcpy(&new, m->data + (row * in + col) * 4, 4);
    double sum = 0;
    for (size_t r = 0; r < rank; r++)
        sum +=
            (double)f->lora->params[b + row * rank + r] * (double)f->lora->params[a + r * in + col];
    assert_true(fabs((double)new - ((double)old + 4.0 / (double)rank * sum)) < 1e-6);
}

static void test_merge_into_f32_is_the_sum(void **state)
{
    (void)state;
    fixture f;
    dure_merge_report report;
    dure_gguf *merged;
    open_pair(&f, TINY_F32, 0.5f);
    merge(&report, &merged, &f, DURE_MERGE_MIXED);
    check_element(&f, merged, DURE_LORA_Q, 4, 64);
    check_element(&f, merged, DURE_LORA_DOWN, 2, 96);
    assert_float_equal(report.gain, 1, 1e-5);
    dure_merge_report_fini(&report);
    dure_gguf_close(&merged);
    close_pair(&f);
}

/* A merged row has the direction of W + s B A and the length that its magnitude says. */
static void test_merge_of_dora_gives_rows_their_magnitudes(void **state)
{
    (void)state;
    fixture f;
    dure_merge_report report;
    dure_gguf *merged;
    open_kind(&f, TINY_F32, 0.5f, true);
    merge(&report, &merged, &f, DURE_MERGE_MIXED);
    size_t m = 0, in = 96;
    assert_true(dure_lora_find_magnitude(&m, &f.lora->layout, 1, DURE_LORA_DOWN));
    const dure_gguf_tensor *w = dure_gguf_find(merged, "blk.1.ffn_down.weight");
    for (size_t row = 0; row < 64; row += 9) {
        double sum = 0;
        for (size_t i = 0; i < in; i++) {
            float x;
            memcpy(&x, w->data + (row * in + i) * 4, 4);
            sum += (double)x * (double)x;
        }
        double want = fabs((double)f.lora->params[m + row]);
        assert_true(fabs(sqrt(sum) - want) < 1e-5 * want);
    }
    dure_merge_report_fini(&report);
    dure_gguf_close(&merged);
    close_pair(&f);
}

static void test_merge_of_a_q8_0_base_leaves_its_grid(void **state)
{
    /* At this size a Q8_0 matrix rounded back to Q8_0 would lose most of the update. */
    (void)state;
    fixture f;
    dure_merge_report report;
    dure_gguf *merged;
    open_pair(&f, TINY_Q8_0, 0.05f);
    merge(&report, &merged, &f, DURE_MERGE_MIXED);
    assert_int_equal(dure_gguf_find(merged, "blk.0.attn_q.weight")->type, DURE_GGUF_F16);
    assert_float_equal(report.gain, 1, 0.01);
    dure_merge_report_fini(&report);
    dure_gguf_close(&merged);
    close_pair(&f);
}

static void test_merge_of_a_zero_adapter_changes_nothing(void **state)
{
    (void)state;
    fixture f;
    dure_merge_report report;
    dure_gguf *merged;
    open_pair(&f, TINY_F32, 0);
    merge(&report, &merged, &f, DURE_MERGE_F16);
    assert_true(report.gain == 1 && report.relative_error == 0);
    const dure_gguf_tensor *w = dure_gguf_find(f.base, "blk.0.attn_q.weight");
    const dure_gguf_tensor *m = dure_gguf_find(merged, "blk.0.attn_q.weight");
    assert_memory_equal(w->data, m->data, w->bytes);
    dure_merge_report_fini(&report);
    dure_gguf_close(&merged);
    close_pair(&f);
}

static void test_merge_refuses_what_cannot_be_faithful(void **state)
{
    (void)state;
    dure_merge_mode mode;
    dure_diag diag = {{0}};
    assert_ok(dure_merge_mode_parse(&mode, "mixed", &diag));
    assert_int_equal(mode, DURE_MERGE_MIXED);
    assert_err(dure_merge_mode_parse(&mode, "same", &diag), DURE_ERR_UNSUPPORTED);
    assert_non_null(strstr(diag.text, "erases"));
    assert_err(dure_merge_mode_parse(&mode, "Q4_K_M", &diag), DURE_ERR_UNSUPPORTED);
    assert_err(dure_merge_mode_parse(&mode, "q9", &diag), DURE_ERR_USAGE);
}

static void test_merge_refuses_another_base_and_overflow(void **state)
{
    (void)state;
    fixture f;
    dure_merge_report report;
    dure_diag diag = {{0}};
    dure_merge_opts opts = {.mode = DURE_MERGE_F16};
    open_pair(&f, TINY_Q4_1, 0.1f);
    const char *path = temp_dir_file(&f.dir, "merged.gguf");
    f.lora->layout.shape.n_vocab++;
    assert_err(dure_merge_save(&report, path, f.base, f.lora, &opts, &diag), DURE_ERR_STATE);
    assert_non_null(strstr(diag.text, "another base"));
    f.lora->layout.shape.n_vocab--;
    for (size_t i = 0; i < f.lora->n; i++)
        f.lora->params[i] = 1000;
    assert_err(dure_merge_save(&report, path, f.base, f.lora, &opts, &diag), DURE_ERR_FORMAT);
    assert_false(dure_file_exists(path));
    assert_null(report.tensors);
    close_pair(&f);
}

static void test_shape_reads_and_refuses(void **state)
{
    (void)state;
    temp_dir dir;
    temp_dir_make(&dir);
    const char *path = temp_dir_file(&dir, "m.gguf");
    dure_gguf *g;
    dure_model_shape shape;
    dure_diag diag = {{0}};
    tiny_model_write(path, &(tiny_model_opts){.seed = 1});
    assert_ok(dure_gguf_open(&g, path, NULL, NULL));
    assert_ok(dure_model_shape_read(&shape, g, &diag));
    assert_int_equal(shape.n_layers, 2);
    assert_int_equal(shape.head_dim, 16);
    assert_int_equal(shape.n_vocab, TINY_VOCAB);
    dure_gguf_close(&g);
    tiny_model_write(path, &(tiny_model_opts){.seed = 1, .arch = "mamba"});
    assert_ok(dure_gguf_open(&g, path, NULL, NULL));
    assert_err(dure_model_shape_read(&shape, g, &diag), DURE_ERR_UNSUPPORTED);
    assert_non_null(strstr(diag.text, "'mamba'"));
    dure_gguf_close(&g);
    shape.n_head_kv = 3;
    assert_err(dure_model_shape_check(&shape, &diag), DURE_ERR_FORMAT);
    temp_dir_remove(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merge_f16_keeps_the_update),
        cmocka_unit_test(test_merge_mixed_raises_adapted_matrices_to_q8_0),
        cmocka_unit_test(test_merge_copies_the_rest_bit_for_bit),
        cmocka_unit_test(test_merge_into_f32_is_the_sum),
        cmocka_unit_test(test_merge_of_dora_gives_rows_their_magnitudes),
        cmocka_unit_test(test_merge_of_a_q8_0_base_leaves_its_grid),
        cmocka_unit_test(test_merge_of_a_zero_adapter_changes_nothing),
        cmocka_unit_test(test_merge_refuses_what_cannot_be_faithful),
        cmocka_unit_test(test_merge_refuses_another_base_and_overflow),
        cmocka_unit_test(test_shape_reads_and_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
