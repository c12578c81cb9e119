#include "vocabulary.h"

#include "model/tokenizer_bpe.h"
#include "model/tokenizer_split.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

#include <stdlib.h>
#include <string.h>

typedef struct fixture {
    temp_dir dir;
    dure_gguf *gguf;
    dure_tokenizer *t;
} fixture;

static int setup(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    temp_dir_make(&f->dir);
    const char *path = temp_dir_file(&f->dir, "m.gguf");
    tiny_model_write(path, &(tiny_model_opts){.seed = 1});
    dure_diag diag = {{0}};
    if (dure_gguf_open(&f->gguf, path, NULL, &diag) || dure_tokenizer_new(&f->t, f->gguf, &diag)) {
        print_error("%s\n", diag.text);
        return 1;
    }
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    dure_tokenizer_free(&f->t);
    dure_gguf_close(&f->gguf);
    temp_dir_remove(&f->dir);
    free(f);
    return 0;
}

/* The pieces of `text` must be `wanted`, joined by '|'. */
static void split_by(dure_split rule, const char *text, const char *wanted)
{
    char got[512];
    size_t n = strlen(text), used = 0;
    for (size_t at = 0; at < n;) {
        size_t length = dure_split_next(rule, (const uint8_t *)text + at, n - at);
        assert_true(length > 0 && length <= n - at);
        if (at) got[used++] = '|';
        memcpy(got + used, text + at, length);
        used += length;
        at += length;
    }
    got[used] = 0;
    assert_string_equal(got, wanted);
}

static void split_is(const char *text, const char *wanted)
{
    split_by(DURE_SPLIT_SMOLLM, text, wanted);
}

static void test_split_words_and_contractions(void **state)
{
    (void)state;
    split_is("Hello world", "Hello| world");
    split_is("I'll don't we've you're it's he'd I'm",
             "I|'ll| don|'t| we|'ve| you|'re| it|'s| he|'d|"
             " I|'m");
    split_is("I'LL 'twas", "I|'|LL| '|twas"); /* case matters; " 't" starts with a space */
    split_is("a.b, c!?", "a|.|b|,| c|!?");
    split_is("x=y+1;", "x|=|y|+|1|;");
}

static void test_split_every_digit_alone(void **state)
{
    (void)state;
    split_is("2024", "2|0|2|4");
    split_is("a 12", "a| |1|2");   /* the space is cut off from the number */
    split_is("a  12", "a|  |1|2"); /* and a run of spaces stays whole before one */
    split_is("½Ⅷ²٣", "½|Ⅷ|²|٣");
}

static void test_split_white_space_leaves_its_last_character(void **state)
{
    (void)state;
    split_is("a   b", "a|  | b");
    split_is("a\n\nb", "a|\n|\n|b");
    split_is("a \n b", "a| \n| b");
    split_is("a   ", "a|   ");
    split_is("a\tb", "a|\t|b");
    split_is("a\u00a0\u3000b", "a|\u00a0|\u3000|b");
}

static void test_split_other_scripts(void **state)
{
    (void)state;
    split_is("개인정보 연합학습", "개인정보| 연합학습");
    split_is("한글2024년", "한글|2|0|2|4|년");
    split_is("e\u0301a", "e|\u0301|a"); /* a combining mark is no letter */
    split_is("😀😀 👍", "😀😀| 👍");
}

static void test_split_takes_unassigned_code_points_for_other(void **state)
{
    (void)state;
    split_is("a \u0378\u0379! b", "a| \u0378\u0379!| b");
    split_by(DURE_SPLIT_LLAMA3, "\u0378\u0379b", "\u0378\u0379|b");
}

static void test_split_takes_invalid_bytes(void **state)
{
    (void)state;
    split_is("a\xff\xfe!b", "a|\xff\xfe!|b");
    split_is("\xe2\x82", "\xe2\x82"); /* cut in the middle of a character */
}

static void test_split_gpt2_keeps_numbers_together(void **state)
{
    (void)state;
    split_by(DURE_SPLIT_GPT2, "a 12 345", "a| 12| 345");
    split_by(DURE_SPLIT_GPT2, "a  12", "a| | 12");
    split_by(DURE_SPLIT_GPT2, "x2y", "x|2|y");
    split_by(DURE_SPLIT_GPT2, "I'll 'S", "I|'ll| '|S");
}

static void test_split_llama3_takes_three_digits(void **state)
{
    (void)state;
    split_by(DURE_SPLIT_LLAMA3, "1234567", "123|456|7");
    split_by(DURE_SPLIT_LLAMA3, "a 12", "a| |12");
    split_by(DURE_SPLIT_QWEN2, "1234", "1|2|3|4");
}

static void test_split_llama3_takes_endings_in_any_case(void **state)
{
    (void)state;
    split_by(DURE_SPLIT_LLAMA3, "I'LL we'Ve", "I|'LL| we|'Ve");
    split_by(DURE_SPLIT_QWEN2, "it'S'\u017fa", "it|'S|'\u017f|a"); /* the long s is an s */
    split_by(DURE_SPLIT_QWEN2, "'xa", "'xa"); /* one character that is no letter joins a word */
}

static void test_split_llama3_joins_one_character_to_a_word(void **state)
{
    (void)state;
    split_by(DURE_SPLIT_LLAMA3, "(a) #tag\tb", "(a|)| #|tag|\tb");
    split_by(DURE_SPLIT_LLAMA3, "a\nb", "a|\n|b");
    split_by(DURE_SPLIT_LLAMA3, "\u3000안녕 e\u0301a", "\u3000안녕| e|\u0301a");
}

static void test_split_llama3_white_space_ends_with_its_lines(void **state)
{
    (void)state;
    split_by(DURE_SPLIT_LLAMA3, "a.\n\n b", "a|.\n\n| b");
    split_by(DURE_SPLIT_LLAMA3, "a \n \r\n  b", "a| \n \r\n| | b");
    split_by(DURE_SPLIT_LLAMA3, "a   1", "a|  | |1");
    split_by(DURE_SPLIT_LLAMA3, "a   ", "a|   ");
}

static void encode_is(const fixture *f, const char *text, const int32_t *ids, size_t n)
{
    dure_tokens tokens = {0};
    assert_ok(dure_tokenizer_encode(&tokens, f->t, dure_span_of_text(text), true));
    assert_int_equal(tokens.n, n);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(tokens.ids[i], ids[i]);
        assert_int_equal(tokens.supervised[i], 1);
    }
    dure_tokens_fini(&tokens);
}

static void test_tokenizer_merges_by_rank(void **state)
{
    /* The tiny model's merges, in order: Ġt he Ġa in Ġthe re on er Ġs at ing Ġan es. */
    encode_is(*state, " the", (int32_t[]){TINY_MERGES + 4}, 1);
    encode_is(*state, "there", (int32_t[]){TINY_BYTES + 't', TINY_MERGES + 1, TINY_MERGES + 5}, 3);
    encode_is(*state, "singing", (int32_t[]){TINY_BYTES + 's', TINY_MERGES + 10, TINY_MERGES + 10},
              3);
}

static void test_tokenizer_drops_a_missing_byte_before_the_merges(void **state)
{
    /* As `tokenizers` does without an unknown token; llama.cpp drops it after them. */
    (void)state;
    const vocabulary v = {.tokens = {"=", "=="}, .n = 2, .merges = {"= ="}, .n_merges = 1};
    vocabulary_file f;
    dure_diag diag = {{0}};
    assert_ok(vocabulary_open(&f, &v, &diag));
    pieces_are(f.t, "=\x04=", "==");
    vocabulary_close(&f);
}

static void test_tokenizer_leaves_special_text_as_text(void **state)
{
    fixture *f = *state;
    dure_tokens tokens = {0};
    const char *text = "<|im_end|>";
    assert_ok(dure_tokenizer_encode(&tokens, f->t, dure_span_of_text(text), false));
    assert_true(tokens.n > 1);
    for (size_t i = 0; i < tokens.n; i++)
        assert_false(dure_tokenizer_is_special(f->t, tokens.ids[i]));
    dure_tokens_fini(&tokens);
}

static void test_tokenizer_knows_its_special_tokens(void **state)
{
    fixture *f = *state;
    assert_int_equal(dure_tokenizer_special(f->t, "<|im_start|>"), TINY_IM_START);
    assert_int_equal(dure_tokenizer_special(f->t, "he"), -1); /* there, but not special */
    assert_int_equal(dure_tokenizer_special(f->t, "<|nothing|>"), -1);
    assert_true(dure_tokenizer_is_end(f->t, TINY_IM_END));
    assert_true(dure_tokenizer_is_end(f->t, TINY_ENDOFTEXT));
    assert_false(dure_tokenizer_is_end(f->t, TINY_IM_START));
    assert_false(dure_tokenizer_is_end(f->t, -1));
    assert_int_equal(dure_tokenizer_piece(f->t, 1 << 20).n, 0);
    assert_memory_equal(dure_tokenizer_piece(f->t, TINY_MERGES + 4).data, " the", 4);
}

static void test_tokenizer_pieces_give_the_text_back(void **state)
{
    fixture *f = *state;
    uint8_t text[512];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (uint8_t)(i * 89 + i / 256); /* every byte value, mostly not UTF-8 */
    dure_tokens tokens = {0};
    assert_ok(dure_tokenizer_encode(&tokens, f->t, dure_span_of(text, sizeof text), false));
    size_t at = 0;
    for (size_t i = 0; i < tokens.n; i++) {
        dure_span piece = dure_tokenizer_piece(f->t, tokens.ids[i]);
        assert_true(piece.n <= sizeof text - at);
        assert_memory_equal(piece.data, text + at, piece.n);
        at += piece.n;
    }
    assert_int_equal(at, sizeof text);
    dure_tokens_fini(&tokens);
}

static void test_tokenizer_gpt2_needs_the_merges(void **state)
{
    /* "the" is a token, but no merge makes it: gpt2 goes by the merges, llama-bpe by the word. */
    (void)state;
    vocabulary v = {.splitter = "gpt-2",
                    .bytes = true,
                    .tokens = {"th", "the", "Ġth"},
                    .n = 3,
                    .merges = {"t h"},
                    .n_merges = 1};
    vocabulary_file f;
    dure_diag diag = {{0}};
    assert_ok(vocabulary_open(&f, &v, &diag));
    pieces_are(f.t, "the", "th|e");
    vocabulary_close(&f);
    v.splitter = "llama-bpe";
    assert_ok(vocabulary_open(&f, &v, &diag));
    pieces_are(f.t, "the then", "the| |th|e|n");
    vocabulary_close(&f);
}

static void test_tokenizer_qwen2_composes_what_smollm_leaves(void **state)
{
    /* `tokenizers` brings a Qwen text into form NFC; llama.cpp does not. */
    (void)state;
    vocabulary v = {.splitter = "qwen2", .bytes = true, .n = 0};
    vocabulary_file f;
    dure_diag diag = {{0}};
    assert_ok(vocabulary_open(&f, &v, &diag));
    pieces_are(f.t, "\u1112\u1161\u11ab", "\xed|\x95|\x9c");
    pieces_are(f.t, "e\u0301\xff", "e|\xcc|\x81|\xff"); /* not UTF-8: as it is */
    vocabulary_close(&f);
    v.splitter = "smollm";
    assert_ok(vocabulary_open(&f, &v, &diag));
    pieces_are(f.t, "e\u0301", "e|\xcc|\x81");
    vocabulary_close(&f);
}

/* An e with n pairs of an accent above it and one below it: the first accent becomes a part of the
 * letter, the others go behind all that are below. A composer that takes the square of n, a
 * million, would take hours. */
static void test_tokenizer_composes_endless_marks(void **state)
{
    (void)state;
    const vocabulary v = {.splitter = "qwen2", .bytes = true, .n = 0};
    const size_t n = 1000 * 1000;
    uint8_t *text = malloc(1 + 4 * n), *want = malloc(4 * n);
    vocabulary_file f;
    dure_tokens tokens = {0};
    assert_true(text && want);
    text[0] = 'e';
    memcpy(want, "\u00e9", 2);
    for (size_t i = 0; i < n; i++) {
        memcpy(text + 1 + 4 * i, "\u0301\u0316", 4);
        memcpy(want + 2 + 2 * i, "\u0316", 2);
        if (i > 0) memcpy(want + 2 * n + 2 * i, "\u0301", 2);
    }
    assert_ok(vocabulary_open(&f, &v, NULL));
    assert_ok(dure_tokenizer_encode(&tokens, f.t, dure_span_of(text, 1 + 4 * n), false));
    assert_int_equal(tokens.n, 4 * n);
    for (size_t i = 0; i < tokens.n; i++) {
        dure_span piece = dure_tokenizer_piece(f.t, tokens.ids[i]);
        if (piece.n != 1 || piece.data[0] != want[i]) fail_msg("byte %zu", i);
    }
    dure_tokens_fini(&tokens);
    vocabulary_close(&f);
    free(text);
    free(want);
}

static void test_tokenizer_finds_user_defined_tokens_first(void **state)
{
    (void)state;
    vocabulary v = {.splitter = "gpt-2",
                    .bytes = true,
                    .tokens = {"<tag>", "<tag>x", "ab", "b<t", "he"},
                    .types = {4, 4, 4, 4, 1},
                    .n = 5,
                    .merges = {"h e"},
                    .n_merges = 1};
    vocabulary_file f;
    dure_diag diag = {{0}};
    assert_ok(vocabulary_open(&f, &v, &diag));
    pieces_are(f.t, "he<tag>he", "he|<tag>|he");
    pieces_are(f.t, "<tag>xy<tag", "<tag>x|y|<|t|a|g"); /* the longest of those that begin here */
    pieces_are(f.t, "ab<tag>", "ab|<tag>");             /* the leftmost, though b<t is longer */
    vocabulary_close(&f);
}

static void test_tokenizer_markers_of_templates_are_control_tokens(void **state)
{
    /* Whatever type the file gives them: a text must not become one. */
    (void)state;
    const vocabulary v = {.bytes = true,
                          .tokens = {"<|im_start|>", "<|im_end|>", "<tool>"},
                          .types = {4, 1, 4},
                          .n = 3};
    vocabulary_file f;
    dure_diag diag = {{0}};
    assert_ok(vocabulary_open(&f, &v, &diag));
    dure_tokens tokens = {0};
    assert_ok(dure_tokenizer_encode(&tokens, f.t, dure_span_of_text("<|im_start|><|im_end|>"), 0));
    assert_int_equal(tokens.n, strlen("<|im_start|><|im_end|>"));
    assert_int_equal(dure_tokenizer_special(f.t, "<|im_start|>"), 256);
    assert_true(dure_tokenizer_is_end(f.t, 257));
    assert_int_equal(dure_tokenizer_special(f.t, "<tool>"), -1); /* a part of texts */
    dure_tokens_fini(&tokens);
    vocabulary_close(&f);
}

static void test_tokenizer_says_whether_a_text_begins_with_bos(void **state)
{
    (void)state;
    vocabulary v = {
        .splitter = "llama-bpe", .bytes = true, .tokens = {"<s>"}, .types = {3}, .n = 1};
    vocabulary_file f;
    dure_diag diag = {{0}};
    assert_ok(vocabulary_open(&f, &v, &diag));
    assert_int_equal(dure_tokenizer_bos(f.t), -1); /* none is named */
    assert_false(dure_tokenizer_adds_bos(f.t));
    vocabulary_close(&f);
    v.bos = &(uint32_t){256};
    assert_ok(vocabulary_open(&f, &v, &diag));
    dure_tokens tokens = {0};
    assert_ok(dure_tokenizer_begin(&tokens, f.t));
    assert_int_equal(tokens.n, 1);
    assert_int_equal(tokens.ids[0], 256);
    assert_int_equal(tokens.supervised[0], 0);
    dure_tokens_fini(&tokens);
    assert_int_equal(dure_tokenizer_bos(f.t), 256);
    assert_true(dure_tokenizer_adds_bos(f.t));
    assert_string_equal(dure_tokenizer_name(f.t), "llama-bpe");
    vocabulary_close(&f);
    v.adds_bos = &(bool){false};
    assert_ok(vocabulary_open(&f, &v, &diag));
    assert_false(dure_tokenizer_adds_bos(f.t));
    vocabulary_close(&f);
}

static void test_bpe_long_and_short_paths_agree(void **state)
{
    /* Pairs over ids 0..3 that make 4..9; the long path is forced by padding with 3s that never
     * merge, the short one is used below 48 symbols. */
    (void)state;
    dure_bpe bpe;
    assert_ok(dure_bpe_init(&bpe, 6));
    const int32_t pairs[6][3] = {{0, 0, 4}, {0, 1, 5}, {4, 4, 6}, {1, 2, 7}, {5, 2, 8}, {6, 0, 9}};
    for (int i = 0; i < 6; i++)
        assert_ok(dure_bpe_add(&bpe, pairs[i][0], pairs[i][1], pairs[i][2]));
    uint32_t random = 12345;
    for (int round = 0; round < 2000; round++) {
        int32_t brief[40], extended[100];
        size_t n = 2 + (size_t)round % 38, n_long = 100;
        for (size_t i = 0; i < 100; i++)
            extended[i] = 3;
        for (size_t i = 0; i < n; i++) {
            random = random * 1664525u + 1013904223u;
            brief[i] = extended[i] = (int32_t)(random >> 30) % 3;
        }
        size_t n_short = n;
        assert_ok(dure_bpe_merge(brief, &n_short, &bpe));
        assert_ok(dure_bpe_merge(extended, &n_long, &bpe));
        assert_int_equal(n_long - n_short, 100 - n);
        assert_memory_equal(brief, extended, n_short * sizeof *brief);
    }
    dure_bpe_fini(&bpe);
}

static void test_bpe_refuses_a_pair_twice(void **state)
{
    (void)state;
    dure_bpe bpe;
    assert_ok(dure_bpe_init(&bpe, 2));
    assert_ok(dure_bpe_add(&bpe, 1, 2, 3));
    assert_err(dure_bpe_add(&bpe, 1, 2, 4), DURE_ERR_EXISTS);
    dure_bpe_fini(&bpe);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_split_words_and_contractions),
        cmocka_unit_test(test_split_every_digit_alone),
        cmocka_unit_test(test_split_white_space_leaves_its_last_character),
        cmocka_unit_test(test_split_other_scripts),
        cmocka_unit_test(test_split_takes_unassigned_code_points_for_other),
        cmocka_unit_test(test_split_takes_invalid_bytes),
        cmocka_unit_test(test_split_gpt2_keeps_numbers_together),
        cmocka_unit_test(test_split_llama3_takes_three_digits),
        cmocka_unit_test(test_split_llama3_takes_endings_in_any_case),
        cmocka_unit_test(test_split_llama3_joins_one_character_to_a_word),
        cmocka_unit_test(test_split_llama3_white_space_ends_with_its_lines),
        cmocka_unit_test(test_tokenizer_merges_by_rank),
        cmocka_unit_test(test_tokenizer_drops_a_missing_byte_before_the_merges),
        cmocka_unit_test(test_tokenizer_leaves_special_text_as_text),
        cmocka_unit_test(test_tokenizer_knows_its_special_tokens),
        cmocka_unit_test(test_tokenizer_pieces_give_the_text_back),
        cmocka_unit_test(test_tokenizer_gpt2_needs_the_merges),
        cmocka_unit_test(test_tokenizer_qwen2_composes_what_smollm_leaves),
        cmocka_unit_test(test_tokenizer_composes_endless_marks),
        cmocka_unit_test(test_tokenizer_finds_user_defined_tokens_first),
        cmocka_unit_test(test_tokenizer_markers_of_templates_are_control_tokens),
        cmocka_unit_test(test_tokenizer_says_whether_a_text_begins_with_bos),
        cmocka_unit_test(test_bpe_long_and_short_paths_agree),
        cmocka_unit_test(test_bpe_refuses_a_pair_twice),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
