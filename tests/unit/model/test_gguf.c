#include "support/check.h"

#include "model/gguf.h"
#include "model/gguf_write.h"
#include "support/temp_dir.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Raw little-endian pieces, for files that no writer would make. */
static void le32(dure_buf *b, uint32_t value)
{
    const uint8_t bytes[4] = {(uint8_t)value, (uint8_t)(value >> 8), (uint8_t)(value >> 16),
                              (uint8_t)(value >> 24)};
    dure_put_raw(b, bytes, sizeof bytes);
}

static void le64(dure_buf *b, uint64_t value)
{
    le32(b, (uint32_t)value);
    le32(b, (uint32_t)(value >> 32));
}

static void text(dure_buf *b, const char *s)
{
    le64(b, strlen(s));
    dure_put_raw(b, s, strlen(s));
}

static void head(dure_buf *b, uint32_t version, uint64_t tensors, uint64_t keys)
{
    dure_buf_init(b, 1 << 20);
    dure_put_raw(b, "GGUF", 4);
    le32(b, version);
    le64(b, tensors);
    le64(b, keys);
}

static void info(dure_buf *b, const char *name, uint64_t cols, uint64_t rows, uint32_t type,
                 uint64_t offset)
{
    text(b, name);
    le32(b, 2);
    le64(b, cols);
    le64(b, rows);
    le32(b, type);
    le64(b, offset);
}

static void pad(dure_buf *b, size_t n_data)
{
    while (b->n % 32)
        dure_put_raw(b, "", 1);
    for (size_t i = 0; i < n_data; i++)
        dure_put_raw(b, "", 1);
}

/* Parses an exact copy, so that a sanitizer sees a read past the end. */
static dure_err parse(dure_gguf **g, uint8_t **copy, const dure_buf *b, dure_diag *diag)
{
    *copy = malloc(b->n + 1);
    assert_non_null(*copy);
    uint8_t *exact = realloc(*copy, b->n ? b->n : 1);
    *copy = exact;
    if (b->n) memcpy(exact, b->data, b->n);
    return dure_gguf_parse(g, dure_span_of(exact, b->n), NULL, diag);
}

/* The file must be refused with `err` and a sentence that has `word` in it. */
static void refuse(dure_buf *b, dure_err err, const char *word)
{
    dure_gguf *g;
    uint8_t *copy;
    dure_diag diag = {{0}};
    assert_err(parse(&g, &copy, b, &diag), err);
    assert_null(g);
    if (!strstr(diag.text, word)) fail_msg("'%s' lacks '%s'", diag.text, word);
    free(copy);
    dure_buf_fini(b);
}

static void make_sample(dure_buf *out)
{
    static const float values[6] = {1, 2, 3, 4, 5, 6};
    static const uint8_t blocks[2 * 20];
    const dure_span words[2] = {dure_span_of_text("one"), dure_span_of_text("")};
    dure_gguf_writer *w;
    assert_ok(dure_gguf_writer_new(&w));
    dure_gguf_put_text(w, "general.architecture", dure_span_of_text("llama"));
    dure_gguf_put_u32(w, "llama.block_count", 30);
    dure_gguf_put_f32(w, "llama.eps", 1e-5f);
    dure_gguf_put_bool(w, "a.flag", true);
    dure_gguf_put_texts(w, "a.words", words, 2);
    dure_gguf_put_i32s(w, "a.numbers", (const int32_t[]){-3, 7}, 2);
    dure_gguf_put_f32s(w, "a.floats", values, 6);
    dure_gguf_put_tensor(w, &(dure_gguf_tensor){.name = "m",
                                                .type = DURE_GGUF_F32,
                                                .n_dims = 2,
                                                .dims = {3, 2},
                                                .data = (const uint8_t *)values});
    dure_gguf_put_tensor(
        w, &(dure_gguf_tensor){
               .name = "q", .type = DURE_GGUF_Q4_1, .n_dims = 2, .dims = {32, 2}, .data = blocks});
    dure_buf_init(out, 1 << 20);
    assert_ok(dure_gguf_writer_encode(out, w));
    dure_gguf_writer_free(&w);
}

static void test_gguf_reads_what_was_written(void **state)
{
    (void)state;
    dure_buf b;
    make_sample(&b);
    dure_gguf *g;
    dure_diag diag = {{0}};
    assert_ok(dure_gguf_parse(&g, dure_buf_span(&b), NULL, &diag));
    uint32_t n = 0;
    float eps = 0;
    bool flag = false;
    int32_t number = 0;
    dure_span word = {0};
    assert_ok(dure_gguf_u32(&n, g, "llama.block_count", &diag));
    assert_int_equal(n, 30);
    assert_ok(dure_gguf_f32(&eps, g, "llama.eps", &diag));
    assert_true(eps == 1e-5f);
    assert_ok(dure_gguf_bool(&flag, g, "a.flag", &diag));
    assert_true(flag);
    assert_ok(dure_gguf_array_text(&word, g, "a.words", 0, &diag));
    assert_memory_equal(word.data, "one", 3);
    assert_ok(dure_gguf_array_i32(&number, g, "a.numbers", 0, &diag));
    assert_int_equal(number, -3);
    const dure_gguf_tensor *t = dure_gguf_find(g, "q");
    assert_non_null(t);
    assert_int_equal(t->bytes, 40);
    assert_int_equal((t->data - b.data) % 32, 0);
    assert_null(dure_gguf_find(g, "absent"));
    dure_gguf_close(&g);
    dure_buf_fini(&b);
}

static void test_gguf_copies_keys_unchanged(void **state)
{
    (void)state;
    dure_buf first, second;
    make_sample(&first);
    dure_gguf *g;
    dure_gguf_writer *w;
    assert_ok(dure_gguf_parse(&g, dure_buf_span(&first), NULL, NULL));
    assert_ok(dure_gguf_writer_new(&w));
    for (size_t i = 0; i < dure_gguf_key_count(g); i++)
        dure_gguf_put_copy(w, g, i);
    for (size_t i = 0; i < dure_gguf_tensor_count(g); i++)
        dure_gguf_put_tensor(w, dure_gguf_tensor_at(g, i));
    dure_buf_init(&second, 1 << 20);
    assert_ok(dure_gguf_writer_encode(&second, w));
    assert_int_equal(first.n, second.n);
    assert_memory_equal(first.data, second.data, first.n);
    dure_gguf_writer_free(&w);
    dure_gguf_close(&g);
    dure_buf_fini(&first);
    dure_buf_fini(&second);
}

static dure_err fill_row(void *state, size_t tensor, uint64_t row, uint8_t *out, dure_diag *diag)
{
    (void)diag;
    assert_int_equal(tensor, 0);
    assert_int_equal(row, (*(uint64_t *)state)++);
    memset(out, (int)row + 1, 12);
    return DURE_OK;
}

static void test_gguf_saves_rows_of_a_source(void **state)
{
    (void)state;
    temp_dir dir;
    temp_dir_make(&dir);
    const char *path = temp_dir_file(&dir, "m.gguf");
    dure_gguf_writer *w;
    dure_gguf *g;
    uint64_t rows = 0;
    assert_ok(dure_gguf_writer_new(&w));
    dure_gguf_put_tensor(
        w, &(dure_gguf_tensor){.name = "m", .type = DURE_GGUF_F32, .n_dims = 2, .dims = {3, 5}});
    assert_ok(dure_gguf_writer_save(w, path, fill_row, &rows, NULL));
    assert_ok(dure_gguf_open(&g, path, NULL, NULL));
    const dure_gguf_tensor *t = dure_gguf_find(g, "m");
    assert_int_equal(t->bytes, 60);
    assert_int_equal(t->data[0], 1);
    assert_int_equal(t->data[59], 5);
    dure_gguf_close(&g);
    dure_gguf_writer_free(&w);
    temp_dir_remove(&dir);
}

static void test_gguf_getters_name_the_key(void **state)
{
    (void)state;
    dure_buf b;
    make_sample(&b);
    dure_gguf *g;
    dure_diag diag = {{0}};
    uint32_t n = 0;
    float f = 0;
    bool flag = false;
    size_t count = 0;
    int32_t number = 0;
    dure_span span = {0};
    assert_ok(dure_gguf_parse(&g, dure_buf_span(&b), NULL, &diag));
    assert_err(dure_gguf_u32(&n, g, "absent", &diag), DURE_ERR_NOT_FOUND);
    assert_non_null(strstr(diag.text, "absent"));
    assert_err(dure_gguf_u32(&n, g, "general.architecture", &diag), DURE_ERR_FORMAT);
    assert_non_null(strstr(diag.text, "general.architecture"));
    assert_err(dure_gguf_u32(&n, g, "a.numbers", &diag), DURE_ERR_FORMAT);
    assert_err(dure_gguf_f32(&f, g, "llama.block_count", &diag), DURE_ERR_FORMAT);
    assert_err(dure_gguf_bool(&flag, g, "llama.eps", &diag), DURE_ERR_FORMAT);
    assert_err(dure_gguf_text(&span, g, "llama.eps", &diag), DURE_ERR_FORMAT);
    assert_err(dure_gguf_array(&count, g, "llama.eps", &diag), DURE_ERR_FORMAT);
    assert_err(dure_gguf_array_text(&span, g, "a.words", 2, &diag), DURE_ERR_FORMAT);
    assert_err(dure_gguf_array_i32(&number, g, "a.words", 0, &diag), DURE_ERR_FORMAT);
    assert_err(dure_gguf_array_text(&span, g, "a.numbers", 0, &diag), DURE_ERR_FORMAT);
    dure_gguf_close(&g);
    dure_buf_fini(&b);
}

static void test_gguf_every_cut_is_refused(void **state)
{
    (void)state;
    dure_buf b;
    make_sample(&b);
    size_t whole = b.n - 24; /* the last tensor's padding may be missing */
    for (size_t n = 0; n < whole; n++) {
        dure_buf cut = b;
        cut.n = n;
        dure_gguf *g;
        uint8_t *copy;
        if (!parse(&g, &copy, &cut, NULL)) fail_msg("%zu of %zu bytes were accepted", n, b.n);
        free(copy);
    }
    dure_buf_fini(&b);
}

static void test_gguf_refuses_other_files(void **state)
{
    (void)state;
    dure_buf b;
    dure_buf_init(&b, 100);
    dure_put_raw(&b, "PK\3\4 this is a zip file, not a model", 36);
    refuse(&b, DURE_ERR_FORMAT, "not a GGUF");
    head(&b, 1, 0, 0);
    refuse(&b, DURE_ERR_UNSUPPORTED, "version 1");
    head(&b, 3u << 24, 0, 0);
    refuse(&b, DURE_ERR_UNSUPPORTED, "big-endian");
}

static void test_gguf_refuses_counts_that_the_file_cannot_hold(void **state)
{
    (void)state;
    dure_buf b;
    head(&b, 3, UINT64_MAX, 0);
    refuse(&b, DURE_ERR_LIMIT, "more tensors or keys");
    head(&b, 3, 0, UINT64_MAX);
    refuse(&b, DURE_ERR_LIMIT, "more tensors or keys");
    head(&b, 3, 60000, 60000);
    refuse(&b, DURE_ERR_FORMAT, "more tensors and keys");
}

static void test_gguf_refuses_lengths_past_the_end(void **state)
{
    (void)state;
    dure_buf b;
    head(&b, 3, 0, 1);
    le64(&b, UINT64_MAX); /* of the key */
    pad(&b, 64);
    refuse(&b, DURE_ERR_LIMIT, "longer than the limit");
    head(&b, 3, 0, 1);
    text(&b, "k");
    le32(&b, 8);
    le64(&b, 1000); /* of the text */
    pad(&b, 64);
    refuse(&b, DURE_ERR_FORMAT, "k: the file ends");
    head(&b, 3, 0, 1);
    text(&b, "k");
    le32(&b, 9); /* array of texts, CVE-2025-49847's neighbourhood */
    le32(&b, 8);
    le64(&b, 1 << 20);
    pad(&b, 64);
    refuse(&b, DURE_ERR_FORMAT, "k: an array is longer");
    head(&b, 3, 0, 1);
    text(&b, "k");
    le32(&b, 9); /* an array of u64 whose byte count would wrap */
    le32(&b, 10);
    le64(&b, UINT64_C(1) << 61);
    pad(&b, 64);
    refuse(&b, DURE_ERR_LIMIT, "more elements");
}

static void test_gguf_refuses_malformed_values(void **state)
{
    (void)state;
    dure_buf b;
    head(&b, 3, 0, 1);
    text(&b, "k");
    le32(&b, 13);
    pad(&b, 64);
    refuse(&b, DURE_ERR_FORMAT, "unknown type");
    head(&b, 3, 0, 1);
    text(&b, "k");
    le32(&b, 7);
    dure_put_raw(&b, "\2", 1);
    pad(&b, 64);
    refuse(&b, DURE_ERR_FORMAT, "bool");
    head(&b, 3, 0, 1);
    text(&b, "k");
    le32(&b, 9);
    le32(&b, 9);
    le64(&b, 1);
    pad(&b, 64);
    refuse(&b, DURE_ERR_UNSUPPORTED, "array of arrays");
    head(&b, 3, 0, 1);
    text(&b, "bad key");
    le32(&b, 4);
    pad(&b, 64);
    refuse(&b, DURE_ERR_FORMAT, "printable");
}

static void test_gguf_refuses_duplicates(void **state)
{
    (void)state;
    dure_buf b;
    head(&b, 3, 0, 2);
    for (int i = 0; i < 2; i++) {
        text(&b, "same");
        le32(&b, 4);
        le32(&b, 1);
    }
    refuse(&b, DURE_ERR_FORMAT, "same appears twice");
    head(&b, 3, 2, 0);
    info(&b, "twin", 8, 1, 0, 0);
    info(&b, "twin", 8, 1, 0, 32);
    pad(&b, 64);
    refuse(&b, DURE_ERR_FORMAT, "twin appears twice");
}

static void test_gguf_refuses_bad_alignment(void **state)
{
    (void)state;
    const uint32_t bad[] = {0, 3, 33, 1u << 17, 1u << 31};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        dure_buf b;
        head(&b, 3, 0, 1);
        text(&b, "general.alignment");
        le32(&b, 4);
        le32(&b, bad[i]);
        refuse(&b, DURE_ERR_FORMAT, "general.alignment");
    }
}

static void test_gguf_refuses_bad_dimensions(void **state)
{
    (void)state;
    dure_buf b;
    head(&b, 3, 1, 0);
    text(&b, "t");
    le32(&b, 5);
    pad(&b, 200);
    refuse(&b, DURE_ERR_FORMAT, "4 dimensions");
    head(&b, 3, 1, 0);
    info(&b, "t", (UINT64_C(1) << 42) + 1, UINT64_C(1) << 42, 0, 0);
    pad(&b, 64);
    refuse(&b, DURE_ERR_LIMIT, "too large");
    head(&b, 3, 1, 0);
    info(&b, "t", UINT64_C(1) << 62, 1, 0, 0); /* 4 bytes each: the byte count would wrap */
    pad(&b, 64);
    refuse(&b, DURE_ERR_LIMIT, "t");
    head(&b, 3, 1, 0);
    info(&b, "t", 33, 1, DURE_GGUF_Q4_1, 0);
    pad(&b, 64);
    refuse(&b, DURE_ERR_FORMAT, "blocks");
    head(&b, 3, 1, 0);
    info(&b, "t", 32, 1, 4, 0); /* a type that was removed from the format */
    pad(&b, 64);
    refuse(&b, DURE_ERR_UNSUPPORTED, "type 4");
}

static void test_gguf_refuses_data_outside_the_file(void **state)
{
    (void)state;
    dure_buf b;
    head(&b, 3, 1, 0);
    info(&b, "t", 1 << 20, 1, 0, 0); /* declares far more than there is: a leak of memory */
    pad(&b, 64);
    refuse(&b, DURE_ERR_FORMAT, "end after the file");
    head(&b, 3, 1, 0);
    info(&b, "t", 8, 1, 0, UINT64_MAX - 31);
    pad(&b, 64);
    refuse(&b, DURE_ERR_FORMAT, "does not follow");
    head(&b, 3, 2, 0);
    info(&b, "t", 8, 1, 0, 0);
    info(&b, "u", 8, 1, 0, 0); /* both at one place */
    pad(&b, 64);
    refuse(&b, DURE_ERR_FORMAT, "u: the tensor does not follow");
    head(&b, 3, 2, 0);
    info(&b, "t", 8, 1, 0, 0);
    info(&b, "u", 8, 1, 0, 64); /* a hole */
    pad(&b, 128);
    refuse(&b, DURE_ERR_FORMAT, "does not follow");
}

static void test_gguf_reads_version_2_and_empty_tensors(void **state)
{
    (void)state;
    dure_buf b;
    head(&b, 2, 2, 0);
    info(&b, "none", 8, 0, 0, 0);
    info(&b, "some", 8, 1, 0, 0);
    pad(&b, 32);
    dure_gguf *g;
    uint8_t *copy;
    assert_ok(parse(&g, &copy, &b, NULL));
    assert_int_equal(dure_gguf_find(g, "none")->bytes, 0);
    assert_int_equal(dure_gguf_find(g, "some")->bytes, 32);
    dure_gguf_close(&g);
    free(copy);
    dure_buf_fini(&b);
}

static void test_gguf_refuses_a_number_that_is_not_finite(void **state)
{
    (void)state;
    dure_gguf_writer *w;
    dure_gguf *g;
    dure_buf b;
    float value = 0;
    assert_ok(dure_gguf_writer_new(&w));
    dure_gguf_put_f32(w, "eps", NAN);
    dure_buf_init(&b, 1000);
    assert_ok(dure_gguf_writer_encode(&b, w));
    assert_ok(dure_gguf_parse(&g, dure_buf_span(&b), NULL, NULL));
    assert_err(dure_gguf_f32(&value, g, "eps", NULL), DURE_ERR_FORMAT);
    dure_gguf_close(&g);
    dure_gguf_writer_free(&w);
    dure_buf_fini(&b);
}

static void test_gguf_prints_no_control_characters(void **state)
{
    (void)state;
    char out[128];
    dure_gguf_print(out, dure_span_of_text("a\x1b[2Jb\nc"));
    assert_string_equal(out, "a.[2Jb.c");
    char long_text[300];
    memset(long_text, 'x', sizeof long_text);
    dure_gguf_print(out, dure_span_of(long_text, sizeof long_text));
    assert_int_equal(strlen(out), 124);
}

static void test_gguf_open_names_the_path(void **state)
{
    (void)state;
    dure_gguf *g;
    dure_diag diag = {{0}};
    assert_err(dure_gguf_open(&g, "/nonexistent/m.gguf", NULL, &diag), DURE_ERR_NOT_FOUND);
    assert_non_null(strstr(diag.text, "/nonexistent/m.gguf"));
    assert_err(dure_gguf_open(&g, "/", NULL, &diag), DURE_ERR_FORMAT);
    assert_null(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gguf_reads_what_was_written),
        cmocka_unit_test(test_gguf_copies_keys_unchanged),
        cmocka_unit_test(test_gguf_saves_rows_of_a_source),
        cmocka_unit_test(test_gguf_getters_name_the_key),
        cmocka_unit_test(test_gguf_every_cut_is_refused),
        cmocka_unit_test(test_gguf_refuses_other_files),
        cmocka_unit_test(test_gguf_refuses_counts_that_the_file_cannot_hold),
        cmocka_unit_test(test_gguf_refuses_lengths_past_the_end),
        cmocka_unit_test(test_gguf_refuses_malformed_values),
        cmocka_unit_test(test_gguf_refuses_duplicates),
        cmocka_unit_test(test_gguf_refuses_bad_alignment),
        cmocka_unit_test(test_gguf_refuses_bad_dimensions),
        cmocka_unit_test(test_gguf_refuses_data_outside_the_file),
        cmocka_unit_test(test_gguf_reads_version_2_and_empty_tensors),
        cmocka_unit_test(test_gguf_refuses_a_number_that_is_not_finite),
        cmocka_unit_test(test_gguf_prints_no_control_characters),
        cmocka_unit_test(test_gguf_open_names_the_path),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
