/* Models in several files, and the check of what they hold. */
#include "support/check.h"

#include "common/file.h"
#include "model/base_digest.h"
#include "model/gguf.h"
#include "model/gguf_write.h"
#include "model/transformer.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PARTS = 3 };

/* What a part says of itself; the defaults are those of a right one. */
typedef struct part {
    uint32_t no, count, tensors;
    const char *tensor; /* NULL: none */
    const char *architecture;
} part;

static part part_of(uint32_t no)
{
    static const char *const names[PARTS] = {NULL, "a", "b"};
    return (part){.no = no,
                  .count = PARTS,
                  .tensors = 2,
                  .tensor = names[no],
                  .architecture = no ? NULL : "llama"};
}

static void encode(dure_buf *out, const part *p)
{
    const float values[2] = {(float)p->no, 0.5f};
    dure_gguf_writer *w;
    assert_ok(dure_gguf_writer_new(&w));
    if (p->architecture)
        dure_gguf_put_text(w, "general.architecture", dure_span_of_text(p->architecture));
    dure_gguf_put_u32(w, "split.no", p->no);
    dure_gguf_put_u32(w, "split.count", p->count);
    dure_gguf_put_u32(w, "split.tensors.count", p->tensors);
    if (p->tensor)
        dure_gguf_put_tensor(w, &(dure_gguf_tensor){.name = p->tensor,
                                                    .type = DURE_GGUF_F32,
                                                    .n_dims = 1,
                                                    .dims = {2},
                                                    .data = (const uint8_t *)values});
    dure_buf_init(out, 1 << 16);
    assert_ok(dure_gguf_writer_encode(out, w));
    dure_gguf_writer_free(&w);
}

static void write_part(const temp_dir *dir, const char *name, const part *p)
{
    dure_buf b;
    encode(&b, p);
    assert_ok(dure_file_write_atomic(temp_dir_file(dir, name), dure_buf_span(&b), 0600, NULL));
    dure_buf_fini(&b);
}

static const char *const names[PARTS] = {"m-00001-of-00003.gguf", "m-00002-of-00003.gguf",
                                         "m-00003-of-00003.gguf"};

static void write_all(temp_dir *dir)
{
    temp_dir_make(dir);
    for (uint32_t i = 0; i < PARTS; i++) {
        part p = part_of(i);
        write_part(dir, names[i], &p);
    }
}

/* Opening `name` must fail with a sentence that has `file` and `word` in it. */
static void refuse(temp_dir *dir, const char *name, dure_err err, const char *file,
                   const char *word)
{
    dure_gguf *g;
    dure_diag diag = {{0}};
    assert_err(dure_gguf_open(&g, temp_dir_file(dir, name), NULL, &diag), err);
    assert_null(g);
    if (!strstr(diag.text, file) || !strstr(diag.text, word))
        fail_msg("'%s' lacks '%s' or '%s'", diag.text, file, word);
    temp_dir_remove(dir);
}

static void test_gguf_file_counts_parts_by_the_name(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint32_t files;
    } cases[] = {
        {"m.gguf", 1},
        {"m-00001-of-00003.gguf", 3},
        {"folder/m-00001-of-00012.gguf", 12},
        {"m-00001-of-00001.gguf", 1},
        {"m-00002-of-00003.gguf", 1},
        {"m-00001-of-00000.gguf", 1},
        {"m-00001-of-0000x.gguf", 1},
        {"m-00001-of-00003.bin", 1},
        {"-00001-of-00003.gguf", 1}, /* nothing before it */
        {"", 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(dure_gguf_files_of(cases[i].name), cases[i].files);
    char *last = dure_gguf_file_name("folder/m-00001-of-00012.gguf", 11);
    assert_string_equal(last, "folder/m-00012-of-00012.gguf");
    free(last);
}

static void test_gguf_file_opens_all_parts(void **state)
{
    (void)state;
    temp_dir dir;
    dure_gguf *g;
    dure_diag diag = {{0}};
    float value;
    write_all(&dir);
    assert_ok(dure_gguf_open(&g, temp_dir_file(&dir, names[0]), NULL, &diag));
    assert_int_equal(dure_gguf_tensor_count(g), 2);
    assert_true(dure_gguf_has(g, "general.architecture"));
    for (int i = 1; i < PARTS; i++) {
        const dure_gguf_tensor *t = dure_gguf_find(g, part_of((uint32_t)i).tensor);
        assert_non_null(t);
        assert_ptr_equal(t, dure_gguf_tensor_at(g, (size_t)i - 1));
        memcpy(&value, t->data, sizeof value);
        assert_true(value == (float)i);
    }
    assert_true(dure_gguf_bytes(g) > PARTS * 64);
    dure_gguf_close(&g);
    temp_dir_remove(&dir);
}

static void test_gguf_file_refuses_a_missing_part(void **state)
{
    (void)state;
    temp_dir dir;
    write_all(&dir);
    assert_int_equal(remove(temp_dir_file(&dir, names[2])), 0);
    refuse(&dir, names[0], DURE_ERR_NOT_FOUND, names[2], "part 3 of 3");
}

static void test_gguf_file_refuses_another_part_first(void **state)
{
    (void)state;
    temp_dir dir;
    write_all(&dir);
    refuse(&dir, names[1], DURE_ERR_FORMAT, names[1], "open the first part");
}

static void test_gguf_file_refuses_a_first_part_of_another_name(void **state)
{
    (void)state;
    temp_dir dir;
    part p = part_of(0);
    temp_dir_make(&dir);
    write_part(&dir, "m.gguf", &p);
    refuse(&dir, "m.gguf", DURE_ERR_FORMAT, "m.gguf", "does not end in -00001-of-00003.gguf");
}

static void test_gguf_file_refuses_a_count_that_is_not_the_name_s(void **state)
{
    (void)state;
    temp_dir dir;
    write_all(&dir);
    part p = part_of(0);
    p.count = 2;
    write_part(&dir, names[0], &p);
    refuse(&dir, names[0], DURE_ERR_FORMAT, names[0], "2 parts by its metadata, but 3");
}

static void test_gguf_file_refuses_misplaced_parts(void **state)
{
    (void)state;
    for (int wrong = 0; wrong < 4; wrong++) {
        temp_dir dir;
        write_all(&dir);
        part p = part_of(1);
        if (wrong == 0) p.no = 2;
        if (wrong == 1) p.count = 4;
        if (wrong == 2) p.tensors = 3;
        if (wrong == 3) p = (part){.no = 7, .count = 3, .tensors = 2};
        write_part(&dir, names[1], &p);
        refuse(&dir, names[0], DURE_ERR_FORMAT, names[1], wrong < 3 ? "is wanted" : "split.no");
    }
}

static void test_gguf_file_refuses_a_part_of_another_model(void **state)
{
    (void)state;
    temp_dir dir;
    write_all(&dir);
    part p = part_of(2);
    p.architecture = "qwen2";
    write_part(&dir, names[2], &p);
    refuse(&dir, names[0], DURE_ERR_FORMAT, names[2], "general.architecture");
}

static void test_gguf_file_refuses_a_tensor_of_two_parts(void **state)
{
    (void)state;
    temp_dir dir;
    write_all(&dir);
    part p = part_of(2);
    p.tensor = "a";
    write_part(&dir, names[2], &p);
    refuse(&dir, names[0], DURE_ERR_FORMAT, names[2], "the tensor a appears twice");
}

static void test_gguf_file_refuses_too_few_tensors(void **state)
{
    (void)state;
    temp_dir dir;
    write_all(&dir);
    part p = part_of(2);
    p.tensor = NULL;
    write_part(&dir, names[2], &p);
    refuse(&dir, names[0], DURE_ERR_FORMAT, names[0], "1 tensors, not 2");
}

static void test_gguf_file_refuses_a_part_of_another_kind(void **state)
{
    (void)state;
    temp_dir dir;
    static const char other[] = "these bytes are certainly no GGUF file";
    write_all(&dir);
    assert_ok(dure_file_write_atomic(temp_dir_file(&dir, names[1]), dure_span_of_text(other), 0600,
                                     NULL));
    refuse(&dir, names[0], DURE_ERR_FORMAT, names[1], "not a GGUF file");
}

static void test_gguf_file_refuses_more_parts_than_the_limit(void **state)
{
    (void)state;
    temp_dir dir;
    temp_dir_make(&dir);
    refuse(&dir, "m-00001-of-99999.gguf", DURE_ERR_LIMIT, "m-00001", "too many parts");
}

static void test_gguf_file_takes_a_model_whose_parts_were_put_together(void **state)
{
    (void)state;
    dure_gguf *g;
    dure_buf b;
    part p = part_of(1);
    p.count = 0;
    encode(&b, &p);
    assert_ok(dure_gguf_parse(&g, dure_buf_span(&b), NULL, NULL));
    dure_gguf_close(&g);
    dure_buf_fini(&b);
}

static void test_gguf_file_digest_covers_every_part(void **state)
{
    (void)state;
    temp_dir dir;
    dure_hash before, after, alone;
    write_all(&dir);
    assert_ok(dure_base_digest(&before, temp_dir_file(&dir, names[0]), NULL));
    assert_ok(dure_hash_file(&alone, temp_dir_file(&dir, names[0]), NULL));
    assert_false(dure_hash_equal(&before, &alone));
    part p = part_of(2);
    p.tensor = "c";
    write_part(&dir, names[2], &p);
    assert_ok(dure_base_digest(&after, temp_dir_file(&dir, names[0]), NULL));
    assert_false(dure_hash_equal(&before, &after));
    /* One file is named by its own digest. */
    assert_ok(dure_base_digest(&after, temp_dir_file(&dir, names[1]), NULL));
    assert_ok(dure_hash_file(&alone, temp_dir_file(&dir, names[1]), NULL));
    assert_true(dure_hash_equal(&after, &alone));
    temp_dir_remove(&dir);
}

/* A file with one tensor of 256 weights: zeros, but for the two bytes at `at`. */
static dure_err check_tensor(uint32_t type, size_t bytes, size_t at, uint16_t value,
                             dure_diag *diag)
{
    uint8_t data[1024] = {0};
    dure_gguf *g;
    dure_gguf_writer *w;
    dure_buf b;
    data[at] = (uint8_t)value;
    data[at + 1] = (uint8_t)(value >> 8);
    assert_ok(dure_gguf_writer_new(&w));
    dure_gguf_put_tensor(
        w,
        &(dure_gguf_tensor){
            .name = "blk.0.attn_q.weight", .type = type, .n_dims = 1, .dims = {256}, .data = data});
    dure_buf_init(&b, 1 << 16);
    assert_ok(dure_gguf_writer_encode(&b, w));
    dure_gguf_writer_free(&w);
    assert_ok(dure_gguf_parse(&g, dure_buf_span(&b), NULL, NULL));
    assert_int_equal(dure_gguf_find(g, "blk.0.attn_q.weight")->bytes, bytes);
    dure_err err = dure_gguf_check_finite(g, diag);
    dure_gguf_close(&g);
    dure_buf_fini(&b);
    return err;
}

static void test_gguf_file_refuses_scales_that_are_not_finite(void **state)
{
    (void)state;
    /* The place of a scale in the last block, and one where 0x007F means something finite. */
    static const struct {
        uint32_t type;
        size_t bytes, scale, other;
        uint16_t infinite;
    } cases[] = {
        {DURE_GGUF_F32, 1024, 1022, 1020, 0x7F80}, {DURE_GGUF_F16, 512, 510, 510, 0x7C00},
        {DURE_GGUF_BF16, 512, 510, 510, 0xFF80},   {DURE_GGUF_Q4_0, 144, 126, 128, 0x7C00},
        {DURE_GGUF_Q4_1, 160, 142, 144, 0x7C00},   {DURE_GGUF_Q5_0, 176, 154, 156, 0xFC00},
        {DURE_GGUF_Q5_1, 192, 170, 172, 0x7E00},   {DURE_GGUF_Q8_0, 272, 238, 240, 0x7C01},
        {DURE_GGUF_IQ4_NL, 144, 126, 128, 0x7C00}, {DURE_GGUF_Q2_K, 84, 82, 78, 0x7C00},
        {DURE_GGUF_Q3_K, 110, 108, 106, 0x7C00},   {DURE_GGUF_Q4_K, 144, 2, 4, 0x7C00},
        {DURE_GGUF_Q5_K, 176, 0, 4, 0x7C00},       {DURE_GGUF_Q6_K, 210, 208, 206, 0xFFFF},
        {DURE_GGUF_Q8_K, 292, 2, 4, 0x7F80},       {DURE_GGUF_IQ4_XS, 136, 0, 2, 0x7C00},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        dure_diag diag = {{0}};
        assert_err(
            check_tensor(cases[i].type, cases[i].bytes, cases[i].scale, cases[i].infinite, &diag),
            DURE_ERR_FORMAT);
        assert_non_null(strstr(diag.text, "blk.0.attn_q.weight"));
        assert_ok(check_tensor(cases[i].type, cases[i].bytes, cases[i].other, 0x007F, NULL));
        assert_ok(check_tensor(cases[i].type, cases[i].bytes, cases[i].scale, 0x3C00, NULL));
    }
}

/* Whoever would compute with such a model refuses it before anything else. */
static void test_gguf_file_engine_refuses_a_poisoned_model(void **state)
{
    (void)state;
    temp_dir dir;
    dure_buf b;
    dure_gguf *g;
    dure_transformer *t;
    dure_diag diag = {{0}};
    temp_dir_make(&dir);
    const char *path = temp_dir_file(&dir, "m.gguf");
    tiny_model_write(path, &(tiny_model_opts){.type = TINY_Q8_0});
    assert_ok(dure_file_read(&b, path, 64 << 20, NULL));
    assert_ok(dure_gguf_parse(&g, dure_buf_span(&b), NULL, NULL));
    size_t at = (size_t)(dure_gguf_find(g, "blk.1.ffn_up.weight")->data - b.data);
    dure_gguf_close(&g);
    b.data[at + 1] = 0x7C; /* the first scale becomes infinite */
    b.data[at] = 0;
    assert_ok(dure_gguf_parse(&g, dure_buf_span(&b), NULL, NULL));
    assert_err(dure_transformer_new(&t, g, &(dure_transformer_opts){.threads = 1}, &diag),
               DURE_ERR_FORMAT);
    assert_null(t);
    assert_non_null(strstr(diag.text, "blk.1.ffn_up.weight"));
    dure_gguf_close(&g);
    dure_buf_fini(&b);
    temp_dir_remove(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gguf_file_counts_parts_by_the_name),
        cmocka_unit_test(test_gguf_file_opens_all_parts),
        cmocka_unit_test(test_gguf_file_refuses_a_missing_part),
        cmocka_unit_test(test_gguf_file_refuses_another_part_first),
        cmocka_unit_test(test_gguf_file_refuses_a_first_part_of_another_name),
        cmocka_unit_test(test_gguf_file_refuses_a_count_that_is_not_the_name_s),
        cmocka_unit_test(test_gguf_file_refuses_misplaced_parts),
        cmocka_unit_test(test_gguf_file_refuses_a_part_of_another_model),
        cmocka_unit_test(test_gguf_file_refuses_a_tensor_of_two_parts),
        cmocka_unit_test(test_gguf_file_refuses_too_few_tensors),
        cmocka_unit_test(test_gguf_file_refuses_a_part_of_another_kind),
        cmocka_unit_test(test_gguf_file_refuses_more_parts_than_the_limit),
        cmocka_unit_test(test_gguf_file_takes_a_model_whose_parts_were_put_together),
        cmocka_unit_test(test_gguf_file_digest_covers_every_part),
        cmocka_unit_test(test_gguf_file_refuses_scales_that_are_not_finite),
        cmocka_unit_test(test_gguf_file_engine_refuses_a_poisoned_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
