#include "vocabulary.h"

#include <math.h>

static const bool no = false;

static void spm_is(const char *text, const char *wanted, bool space)
{
    /* Scores as in a trained vocabulary: what was merged first is the highest. */
    const vocabulary v = {
        .model = "llama",
        .bytes = true,
        .tokens = {"<unk>", "<s>", "▁", "t", "h", "e", "▁t", "he", "▁the", "n", "aa", "a", "aaa"},
        .types = {2, 3},
        .scores = {0, 0, -20, -21, -22, -23, -1, -2, -3, -24, -5, -25, -5},
        .n = 13,
        .adds_space = space ? NULL : &no};
    vocabulary_file f;
    dure_diag diag = {{0}};
    assert_ok(vocabulary_open(&f, &v, &diag));
    pieces_are(f.t, text, wanted);
    vocabulary_close(&f);
}

static void test_spm_merges_by_score(void **state)
{
    (void)state;
    spm_is("the then", " the| the|n", true);
    spm_is("the then", "t|he| the|n", false);
    spm_is("", "", true); /* an empty text gets no space */
}

static void test_spm_merges_the_leftmost_of_equals(void **state)
{
    (void)state;
    spm_is("aaaa", "aaa|a", false); /* aa, then aaa with the same score, before the right aa */
}

static void test_spm_falls_back_to_bytes(void **state)
{
    (void)state;
    spm_is("t\u00e9h", "t|\xc3|\xa9|h", false);
    spm_is("\xff\xe2\x82", "\xff|\xe2|\x82", false); /* not UTF-8 */
    spm_is("\xf0 the", "\xf0| the", false);          /* nor does it swallow what follows */
    spm_is("a\n", "a|\n", false);
}

static void test_spm_merges_a_long_text_as_a_short_one(void **state)
{
    (void)state;
    char text[512] = "", wanted[512] = "";
    for (int i = 0; i < 60; i++) {
        strcat(text, "aaaa");
        strcat(wanted, i ? "|aaa" : "aaa");
    }
    for (int i = 0; i < 20; i++)
        strcat(wanted, "|aaa");
    spm_is(text, wanted, false); /* 240 letters, 80 threes: no boundary cuts them */
}

static void test_spm_text_never_becomes_a_special_token(void **state)
{
    /* "<s" and "</s" are tokens, so that merging by text alone would arrive at the control token;
     * and neither would "<0x41>" become the byte. */
    (void)state;
    const vocabulary v = {.model = "llama",
                          .bytes = true,
                          .tokens = {"<unk>", "<s>", "<", "s", ">", "<s", "0", "<0"},
                          .types = {2, 3},
                          .scores = {0, 0, -9, -9, -9, -1, -9, -1},
                          .n = 8,
                          .adds_space = &no};
    vocabulary_file f;
    dure_diag diag = {{0}};
    assert_ok(vocabulary_open(&f, &v, &diag));
    pieces_are(f.t, "<s><unk>", "<s|>|<|u|n|k|>");
    pieces_are(f.t, "<0x41>", "<0|x|4|1|>");
    vocabulary_close(&f);
}

static void test_spm_puts_a_space_after_special_tokens(void **state)
{
    (void)state;
    const vocabulary v = {.model = "llama",
                          .bytes = true,
                          .tokens = {"<unk>", "<s>", "▁a", "a", "▁", "<x>"},
                          .types = {2, 3, 1, 1, 1, 4},
                          .scores = {0, 0, -1, -9, -9, 0},
                          .n = 6};
    vocabulary_file f;
    dure_diag diag = {{0}};
    dure_tokens tokens = {0};
    assert_ok(vocabulary_open(&f, &v, &diag));
    pieces_are(f.t, "a<x>a", " a|<x>| a");
    assert_ok(dure_tokenizer_encode(&tokens, f.t, dure_span_of_text("a"), false));
    assert_ok(dure_tokenizer_encode(&tokens, f.t, dure_span_of_text("a"), false));
    assert_ok(dure_tokens_push(&tokens, 257, false));
    assert_ok(dure_tokenizer_encode(&tokens, f.t, dure_span_of_text("a"), true));
    const int32_t wanted[] = {258, 259, 257, 258};
    assert_int_equal(tokens.n, 4);
    assert_memory_equal(tokens.ids, wanted, sizeof wanted);
    assert_int_equal(tokens.supervised[3], 1);
    dure_tokens_fini(&tokens);
    vocabulary_close(&f);
}

static void test_spm_numbers_bos_as_sentencepiece_does(void **state)
{
    (void)state;
    vocabulary v = {.model = "llama", .bytes = true, .tokens = {"a"}, .n = 1};
    vocabulary_file f;
    dure_diag diag = {{0}};
    assert_ok(vocabulary_open(&f, &v, &diag));
    assert_int_equal(dure_tokenizer_bos(f.t), 1);
    assert_true(dure_tokenizer_adds_bos(f.t));
    vocabulary_close(&f);
}

static void test_gemma_s_closing_tag_is_text(void **state)
{
    /* llama.cpp takes every </s> for the end of a text; Gemma's is the tag of a web page. */
    (void)state;
    const vocabulary v = {.model = "llama",
                          .bytes = true,
                          .tokens = {"<eos>", "</s>", "<end_of_turn>"},
                          .types = {3, 4, 3},
                          .n = 3,
                          .adds_space = &no};
    vocabulary_file f;
    dure_diag diag = {{0}};
    assert_ok(vocabulary_open(&f, &v, &diag));
    pieces_are(f.t, "a</s>", "a|</s>");
    assert_false(dure_tokenizer_is_end(f.t, 257));
    assert_true(dure_tokenizer_is_end(f.t, 256));
    assert_true(dure_tokenizer_is_end(f.t, 258));
    vocabulary_close(&f);
}

static void test_refuses_unknown_kinds(void **state)
{
    (void)state;
    vocabulary_refused(&(vocabulary){.model = "bert", .tokens = {"a"}, .n = 1},
                       DURE_ERR_UNSUPPORTED, "'bert'");
    vocabulary_refused(&(vocabulary){.splitter = "tekken", .tokens = {"a"}, .n = 1},
                       DURE_ERR_UNSUPPORTED, "'tekken'");
}

static void test_refuses_bad_tokens(void **state)
{
    (void)state;
    vocabulary_refused(&(vocabulary){.n = 0}, DURE_ERR_LIMIT, "tokens");
    vocabulary_refused(&(vocabulary){.tokens = {"a", "a"}, .n = 2}, DURE_ERR_FORMAT, "same text");
    vocabulary_refused(&(vocabulary){.tokens = {"a", ""}, .n = 2}, DURE_ERR_FORMAT, "token 1");
    static char overlong[65537];
    memset(overlong, 'x', sizeof overlong - 1);
    vocabulary_refused(&(vocabulary){.tokens = {overlong}, .n = 1}, DURE_ERR_FORMAT, "65536 bytes");
    vocabulary_refused(&(vocabulary){.tokens = {"a"}, .n = 1, .types = {7}}, DURE_ERR_FORMAT,
                       "unknown type");
    vocabulary_refused(&(vocabulary){.tokens = {"a", "b"}, .n = 2, .n_types = 1}, DURE_ERR_FORMAT,
                       "token_type");
}

static void test_refuses_bad_byte_tokens(void **state)
{
    static const char *const texts[] = {"<0x-1>", "<0x1>",  "<0xfF>", "<0x0a>", "<0x100>",
                                        "0x41",   "<0x 1>", "<0xGG>", "A"};
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        vocabulary v = {.tokens = {texts[i]}, .types = {6}, .n = 1};
        vocabulary_refused(&v, DURE_ERR_FORMAT, "token 0 is a byte");
        v.model = "llama";
        vocabulary_refused(&v, DURE_ERR_FORMAT, "<0x0A>");
    }
    vocabulary_refused(&(vocabulary){.model = "llama", .tokens = {"a"}, .n = 1}, DURE_ERR_FORMAT,
                       "lacks the byte token <0x00>");
    vocabulary_refused(&(vocabulary){.model = "llama", .tokens = {"<0x00>"}, .n = 1},
                       DURE_ERR_FORMAT, "lacks the byte token <0x00>"); /* of another type */
}

static void test_refuses_bad_scores(void **state)
{
    (void)state;
    vocabulary v = {.model = "llama", .bytes = true, .tokens = {"a", "b"}, .n = 2, .n_scores = 1};
    vocabulary_refused(&v, DURE_ERR_FORMAT, "tokenizer.ggml.scores");
    v.n_scores = 0;
    v.scores[1] = NAN;
    vocabulary_refused(&v, DURE_ERR_FORMAT, "score of token 257");
}

static void test_refuses_bad_user_defined_tokens(void **state)
{
    static char text[1026];
    (void)state;
    memset(text, 'x', sizeof text - 1);
    vocabulary_refused(&(vocabulary){.tokens = {text}, .types = {4}, .n = 1}, DURE_ERR_LIMIT,
                       "1025 bytes");
}

static void test_refuses_bad_ids(void **state)
{
    (void)state;
    vocabulary_refused(&(vocabulary){.tokens = {"a"}, .n = 1, .eos = &(uint32_t){1}},
                       DURE_ERR_FORMAT, "eos_token_id is 1");
    vocabulary_refused(&(vocabulary){.tokens = {"a"}, .n = 1, .bos = &(uint32_t){UINT32_MAX}},
                       DURE_ERR_FORMAT, "bos_token_id is 4294967295");
}

static void test_refuses_bad_merges(void **state)
{
    static const char *const texts[] = {"ab", "", " ", "a ", " b", "a  b", "a b c"};
    (void)state;
    vocabulary v = {
        .tokens = {"a", "b", "ab", "<s>"}, .types = {1, 1, 1, 3}, .n = 4, .n_merges = 1};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        v.merges[0] = texts[i];
        vocabulary_refused(&v, DURE_ERR_FORMAT, "entry 0");
    }
    v.merges[0] = "a c";
    vocabulary_refused(&v, DURE_ERR_FORMAT, "not in the vocabulary");
    v.merges[0] = "b a";
    vocabulary_refused(&v, DURE_ERR_FORMAT, "not in the vocabulary");
    v.merges[0] = v.merges[1] = "a b";
    v.n_merges = 2;
    vocabulary_refused(&v, DURE_ERR_EXISTS, "repeats");
}

static void test_refuses_merges_into_special_tokens(void **state)
{
    (void)state;
    const vocabulary v = {.tokens = {"<s", ">", "<s>"},
                          .types = {1, 1, 3},
                          .n = 3,
                          .merges = {"<s >"},
                          .n_merges = 1};
    vocabulary_refused(&v, DURE_ERR_FORMAT, "text may not become");
}

/* A key of the wrong type, in a file that is right otherwise. */
static void wrong_type(const char *key, const char *model)
{
    dure_gguf_writer *w;
    dure_gguf *g;
    dure_tokenizer *t;
    dure_buf b;
    dure_diag diag = {{0}};
    const dure_span text = dure_span_of_text("a");
    const int32_t number = 1;
    static const char *const texts[] = {"tokenizer.ggml.tokens", "tokenizer.ggml.merges"};
    static const char *const numbers[] = {"tokenizer.ggml.token_type", "tokenizer.ggml.scores"};
    assert_ok(dure_gguf_writer_new(&w));
    dure_gguf_put_text(w, "tokenizer.ggml.model", dure_span_of_text(model));
    dure_gguf_put_text(w, "tokenizer.ggml.pre", dure_span_of_text("gpt-2"));
    for (size_t i = 0; i < 2; i++) {
        if (strcmp(key, texts[i]) != 0)
            dure_gguf_put_texts(w, texts[i], &text, i == 0);
        else
            dure_gguf_put_i32s(w, key, &number, 1);
        if (!strcmp(key, numbers[i]))
            dure_gguf_put_texts(w, key, &text, 1);
        else if (i == 0)
            dure_gguf_put_i32s(w, numbers[i], &number, 1);
    }
    dure_buf_init(&b, 1 << 16);
    assert_ok(dure_gguf_writer_encode(&b, w));
    assert_ok(dure_gguf_parse(&g, dure_buf_span(&b), NULL, NULL));
    assert_err(dure_tokenizer_new(&t, g, &diag), DURE_ERR_FORMAT);
    if (!strstr(diag.text, key)) fail_msg("'%s' lacks '%s'", diag.text, key);
    dure_gguf_close(&g);
    dure_gguf_writer_free(&w);
    dure_buf_fini(&b);
}

static void test_refuses_arrays_of_the_wrong_type(void **state)
{
    (void)state;
    wrong_type("tokenizer.ggml.tokens", "gpt2");
    wrong_type("tokenizer.ggml.merges", "gpt2");
    wrong_type("tokenizer.ggml.token_type", "gpt2");
    wrong_type("tokenizer.ggml.scores", "llama");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spm_merges_by_score),
        cmocka_unit_test(test_spm_merges_the_leftmost_of_equals),
        cmocka_unit_test(test_spm_falls_back_to_bytes),
        cmocka_unit_test(test_spm_merges_a_long_text_as_a_short_one),
        cmocka_unit_test(test_spm_text_never_becomes_a_special_token),
        cmocka_unit_test(test_spm_puts_a_space_after_special_tokens),
        cmocka_unit_test(test_spm_numbers_bos_as_sentencepiece_does),
        cmocka_unit_test(test_gemma_s_closing_tag_is_text),
        cmocka_unit_test(test_refuses_unknown_kinds),
        cmocka_unit_test(test_refuses_bad_tokens),
        cmocka_unit_test(test_refuses_bad_byte_tokens),
        cmocka_unit_test(test_refuses_bad_scores),
        cmocka_unit_test(test_refuses_bad_user_defined_tokens),
        cmocka_unit_test(test_refuses_bad_ids),
        cmocka_unit_test(test_refuses_bad_merges),
        cmocka_unit_test(test_refuses_merges_into_special_tokens),
        cmocka_unit_test(test_refuses_arrays_of_the_wrong_type),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
