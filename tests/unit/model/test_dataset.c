#include "support/check.h"

#include "model/dataset.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct fixture {
    temp_dir dir;
    dure_gguf *gguf;
    dure_tokenizer *t;
    dure_chat_template chat;
} fixture;

static int setup(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    temp_dir_make(&f->dir);
    const char *path = temp_dir_file(&f->dir, "m.gguf");
    tiny_model_write(path, &(tiny_model_opts){.seed = 1});
    if (dure_gguf_open(&f->gguf, path, NULL, NULL) || dure_tokenizer_new(&f->t, f->gguf, NULL) ||
        dure_chat_template_open(&f->chat, NULL, f->gguf, f->t, NULL))
        return 1;
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

/* The text of the tokens; of the supervised ones only, if asked. */
static void text_of(char text[2048], const fixture *f, const dure_tokens *tokens, size_t first,
                    size_t n, bool supervised_only)
{
    size_t used = 0;
    for (size_t i = first; i < first + n; i++) {
        if (supervised_only && !tokens->supervised[i]) continue;
        dure_span piece = dure_tokenizer_piece(f->t, tokens->ids[i]);
        assert_true(used + piece.n < 2048);
        memcpy(text + used, piece.data, piece.n);
        used += piece.n;
    }
    text[used] = 0;
}

static dure_err parse(dure_dataset *out, const fixture *f, const char *text, bool tolerant,
                      dure_diag *diag)
{
    dure_dataset_opts opts = {.max_length = 400, .tolerant = tolerant};
    return dure_dataset_parse(out, dure_span_of_text(text), "site.jsonl", f->t, &f->chat, &opts,
                              diag);
}

static void test_dataset_reads_both_forms_alike(void **state)
{
    fixture *f = *state;
    dure_dataset data;
    dure_diag diag = {{0}};
    assert_ok(parse(&data, f,
                    "\xef\xbb\xbf{\"prompt\":\"Hi\",\"response\":\"Hello\",\"id\":7}\r\n"
                    "\n"
                    "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},"
                    "{\"role\":\"assistant\",\"content\":\"Hello\"}]}",
                    false, &diag));
    assert_int_equal(data.n, 2);
    assert_int_equal(data.records[1].line, 3);
    dure_document a = dure_dataset_document(&data, 0), b = dure_dataset_document(&data, 1);
    assert_int_equal(a.n, b.n);
    assert_memory_equal(a.tokens, b.tokens, a.n * sizeof *a.tokens);
    assert_memory_equal(a.supervised, b.supervised, a.n);
    char text[2048];
    text_of(text, f, &data.tokens, data.records[0].first, data.records[0].n, true);
    assert_string_equal(text, "Hello<|im_end|>");
    assert_int_equal(data.records[0].n_labels, 6); /* five letters without merges, and the end */
    dure_dataset_fini(&data);
}

static void test_dataset_bad_lines_are_named(void **state)
{
    fixture *f = *state;
    static const struct {
        const char *line, *word;
        dure_err err;
    } bad[] = {
        {"{\"prompt\":\"a\"", "ends too early", DURE_ERR_FORMAT},
        {"{\"prompt\":\"a\",\"prompt\":\"b\",\"response\":\"c\"}", "twice", DURE_ERR_FORMAT},
        {"[1]", "either", DURE_ERR_FORMAT},
        {"\"text\"", "JSON", DURE_ERR_FORMAT},
        {"{\"text\":\"\"}", "empty", DURE_ERR_FORMAT},
        {"{\"text\":7}", "either", DURE_ERR_FORMAT},
        {"{\"instruction\":\"a\"}", "must both be there", DURE_ERR_FORMAT},
        {"{\"instruction\":\"a\",\"output\":\"b\",\"input\":3}", "be texts", DURE_ERR_FORMAT},
        {"{\"instruction\":\"a\",\"output\":\"\"}", "no response", DURE_ERR_FORMAT},
        {"{\"instruction\":\"a\",\"output\":\"b\",\"prompt\":\"c\"}", "either", DURE_ERR_FORMAT},
        {"{\"prompt\":\"a\",\"response\":\"b\",\"system\":1}", "system", DURE_ERR_FORMAT},
        {"{\"prompt\":\"a\",\"messages\":[]}", "either", DURE_ERR_FORMAT},
        {"{\"prompt\":\"a\"}", "must both be there", DURE_ERR_FORMAT},
        {"{\"prompt\":\"a\",\"response\":3}", "be texts", DURE_ERR_FORMAT},
        {"{\"prompt\":\"a\",\"response\":\"\"}", "no response", DURE_ERR_FORMAT},
        {"{\"messages\":[]}", "1 to", DURE_ERR_FORMAT},
        {"{\"messages\":[3]}", "role", DURE_ERR_FORMAT},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}", "no response", DURE_ERR_FORMAT},
        {"{\"messages\":[{\"role\":\"tool\",\"content\":\"a\"}]}", "'tool'", DURE_ERR_FORMAT},
        {"{\"messages\":[{\"role\":\"assistant\",\"content\":\"a\",\"weight\":0}]}", "\"weight\"",
         DURE_ERR_UNSUPPORTED},
        {"{\"prompt\":\"\\u0000\",\"response\":\"c\"}", "NUL", DURE_ERR_FORMAT},
        {"{\"prompt\":\"\xff\",\"response\":\"c\"}", "UTF-8", DURE_ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[512];
        dure_dataset data;
        dure_diag diag = {{0}};
        snprintf(text, sizeof text, "{\"prompt\":\"a\",\"response\":\"b\"}\n%s\n", bad[i].line);
        dure_err err = parse(&data, f, text, false, &diag);
        if (err != bad[i].err)
            fail_msg("%s: %s, not %s", bad[i].line, dure_err_text(err), dure_err_text(bad[i].err));
        assert_null(data.records);
        if (!strstr(diag.text, "site.jsonl, line 2: ") || !strstr(diag.text, bad[i].word))
            fail_msg("%s: '%s'", bad[i].line, diag.text);
    }
}

static void test_dataset_an_empty_file_is_an_error(void **state)
{
    dure_dataset data;
    dure_diag diag = {{0}};
    assert_err(parse(&data, *state, "", false, &diag), DURE_ERR_FORMAT);
    assert_non_null(strstr(diag.text, "holds no record"));
    assert_err(parse(&data, *state, "\n \n", true, &diag), DURE_ERR_FORMAT);
}

static void test_dataset_tolerant_mode_never_stops_at_a_record(void **state)
{
    dure_dataset data;
    assert_ok(parse(&data, *state,
                    "nonsense\n{\"prompt\":\"a\",\"response\":\"b\"}\n{\"prompt\":\"a\"}\n", true,
                    NULL));
    assert_int_equal(data.n, 3);
    assert_int_equal(data.n_unusable, 2);
    assert_int_equal(data.records[0].n, 0);
    assert_int_equal(data.records[0].n_labels, 0);
    assert_int_equal(data.records[1].n_labels, 2);
    assert_int_equal(dure_dataset_document(&data, 2).n, 0);
    dure_dataset_fini(&data);
}

static void hear(void *state, uint32_t line, const char *sentence)
{
    char *heard = state;
    size_t n = strlen(heard);
    snprintf(heard + n, 1024 - n, "%u: %s\n", line, sentence);
}

static void test_dataset_long_records_are_cut_or_refused(void **state)
{
    fixture *f = *state;
    char text[4096], long_text[1200], heard[1024] = "";
    memset(long_text, 'x', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = 0;
    snprintf(text, sizeof text,
             "{\"prompt\":\"a\",\"response\":\"%s\"}\n{\"prompt\":\"%s\",\"response\":\"b\"}\n",
             long_text, long_text);
    dure_dataset data;
    dure_diag diag = {{0}};
    assert_err(parse(&data, f, text, false, &diag), DURE_ERR_LIMIT);
    assert_non_null(strstr(diag.text, "line 1"));
    assert_non_null(strstr(diag.text, "--max-length"));
    dure_dataset_opts opts = {
        .max_length = 400, .tolerant = true, .listener = hear, .listener_state = heard};
    assert_ok(dure_dataset_parse(&data, dure_span_of_text(text), "d", f->t, &f->chat, &opts, NULL));
    assert_int_equal(data.n_cut, 2);
    assert_int_equal(data.n_unusable, 1); /* the second one's answer is past the cut */
    assert_int_equal(data.records[0].n, 400);
    assert_true(data.records[0].n_labels > 100);
    assert_int_equal(data.records[1].n_labels, 0);
    assert_non_null(strstr(heard, "1: the record has"));
    assert_non_null(strstr(heard, "2: no part of the response"));
    dure_dataset_fini(&data);
}

static void test_dataset_limits_the_number_of_records(void **state)
{
    fixture *f = *state;
    const char *line =
        "{\"prompt\":\"a\",\"response\":\"b\"}\n{\"prompt\":\"c\",\"response\":\"d\"}";
    dure_dataset_opts opts = {.max_length = 400, .max_records = 1};
    dure_dataset data;
    assert_err(dure_dataset_parse(&data, dure_span_of_text(line), "d", f->t, &f->chat, &opts, NULL),
               DURE_ERR_LIMIT);
}

static void test_dataset_read_names_the_missing_file(void **state)
{
    fixture *f = *state;
    dure_dataset_opts opts = {.max_length = 400};
    dure_dataset data;
    dure_diag diag = {{0}};
    const char *path = temp_dir_file(&f->dir, "absent.jsonl");
    assert_err(dure_dataset_read(&data, path, f->t, &f->chat, &opts, &diag), DURE_ERR_NOT_FOUND);
    assert_non_null(strstr(diag.text, path));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dataset_reads_both_forms_alike),
        cmocka_unit_test(test_dataset_bad_lines_are_named),
        cmocka_unit_test(test_dataset_an_empty_file_is_an_error),
        cmocka_unit_test(test_dataset_tolerant_mode_never_stops_at_a_record),
        cmocka_unit_test(test_dataset_long_records_are_cut_or_refused),
        cmocka_unit_test(test_dataset_limits_the_number_of_records),
        cmocka_unit_test(test_dataset_read_names_the_missing_file),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
