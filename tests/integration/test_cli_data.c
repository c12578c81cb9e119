/* `dure data` and `dure model` from the outside, on a tiny model. */
#include "common/file.h"
#include "support/check.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

typedef struct desk {
    temp_dir dir;
    char output[1 << 16]; /* stdout of the last run */
    char words[1 << 14];  /* its stderr */
} desk;

static desk d;

static void put(const char *name, const char *text)
{
    assert_ok(
        dure_file_write_atomic(temp_dir_file(&d.dir, name), dure_span_of_text(text), 0600, NULL));
}

static int set_up(void **state)
{
    (void)state;
    temp_dir_make(&d.dir);
    tiny_model_write(temp_dir_file(&d.dir, "model.gguf"), &(tiny_model_opts){.seed = 5});
    tiny_model_write(temp_dir_file(&d.dir, "other.gguf"), &(tiny_model_opts){.arch = "mamba"});
    put("good.jsonl", "{\"prompt\":\"Hi\",\"response\":\"Hello\"}\n"
                      "{\"prompt\":\"Bye\",\"response\":\"So long\"}\n"
                      "{\"prompt\":\"Hi\",\"response\":\"Hello\"}\n");
    put("bad.jsonl", "{\"prompt\":\"Hi\",\"response\":\"Hello\"}\nnonsense\n{\"prompt\":\"x\"}\n");
    put("empty.jsonl", "");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    temp_dir_remove(&d.dir);
    return 0;
}

static void read_into(char *text, size_t size, FILE *f)
{
    size_t n = fread(text, 1, size - 1, f);
    text[n] = 0;
}

/* Runs `dure ARGUMENTS` in the folder; returns the exit status. */
static int run(const char *arguments)
{
    char command[2048];
    snprintf(command, sizeof command, "cd '%s' && '%s' %s 2>words", d.dir.path, DURE_BINARY,
             arguments);
    FILE *p = popen(command, "r");
    assert_non_null(p);
    read_into(d.output, sizeof d.output, p);
    int status = pclose(p);
    FILE *f = fopen(temp_dir_file(&d.dir, "words"), "r");
    assert_non_null(f);
    read_into(d.words, sizeof d.words, f);
    fclose(f);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void has(const char *text, const char *what)
{
    if (!strstr(text, what)) fail_msg("'%s' is not in: %s", what, text);
}

static json_t *output_json(void)
{
    json_t *value = json_loads(d.output, 0, NULL);
    assert_non_null(value);
    return value;
}

static json_int_t number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    assert_true(json_is_integer(value));
    return json_integer_value(value);
}

static void test_data_check_counts_and_finds_repeats(void **state)
{
    (void)state;
    assert_int_equal(run("data check --data good.jsonl --model model.gguf --json"), 0);
    json_t *report = output_json();
    assert_int_equal(number(report, "records"), 3);
    assert_int_equal(number(report, "n_problems"), 0);
    assert_int_equal(number(report, "n_repeats"), 1);
    const json_t *repeat = json_array_get(json_object_get(report, "repeats"), 0);
    assert_int_equal(number(repeat, "line"), 3);
    assert_int_equal(number(repeat, "repeats"), 1);
    assert_true(number(report, "labels") > 10);
    json_decref(report);
}

static void test_data_check_names_bad_lines_and_fails(void **state)
{
    (void)state;
    assert_int_equal(run("data check --data bad.jsonl --model model.gguf"), 1);
    has(d.output, "problems  2");
    has(d.words, "bad.jsonl, line 2: it is not valid JSON");
    has(d.words, "bad.jsonl, line 3: ");
    assert_int_equal(run("data check --data good.jsonl --model model.gguf --max-length 40"), 1);
    has(d.words, "line 1: no part of the response is within the first 40 of 96 tokens; shorten");
    assert_int_equal(run("data check --data good.jsonl --model model.gguf --max-length 95"), 1);
    has(d.words, "the record has 96 tokens, more than the maximum length of 95");
    assert_int_equal(run("data check --data empty.jsonl --model model.gguf"), 1);
    has(d.words, "holds no record");
    assert_int_equal(run("data check --data absent.jsonl --model model.gguf"), 1);
    has(d.words, "absent.jsonl");
}

static void test_data_preview_shows_what_is_learned(void **state)
{
    (void)state;
    assert_int_equal(run("data preview --data good.jsonl --model model.gguf --records 1"), 0);
    has(d.output, "  masked  | <|im_start|>user\n  masked  | Hi<|im_end|>\n");
    has(d.output, "  learned | Hello<|im_end|>\n");
    assert_null(strstr(d.output, "So long"));
    assert_int_equal(run("data preview --data good.jsonl --model model.gguf --json"), 0);
    json_t *records = output_json();
    assert_int_equal(json_array_size(records), 3);
    const json_t *segments = json_object_get(json_array_get(records, 0), "segments");
    assert_int_equal(json_array_size(segments), 3);
    assert_true(json_is_true(json_object_get(json_array_get(segments, 1), "learned")));
    assert_string_equal(json_string_value(json_object_get(json_array_get(segments, 1), "text")),
                        "Hello<|im_end|>");
    json_decref(records);
}

static void test_data_tokens_reads_texts_and_records(void **state)
{
    (void)state;
    put("lines", "\" the\"\n\"\"\n{\"prompt\":\"a\",\"response\":\"b\"}\n");
    assert_int_equal(run("data tokens --model model.gguf <lines"), 0);
    has(d.output, "[263]\n[]\n[1,");
    put("lines", "\"unfinished\n");
    assert_int_equal(run("data tokens --model model.gguf <lines"), 1);
    has(d.words, "line 1");
}

static void test_model_info_describes_and_judges(void **state)
{
    (void)state;
    assert_int_equal(run("model info model.gguf --json"), 0);
    json_t *facts = output_json();
    assert_true(json_is_true(json_object_get(facts, "supported")));
    assert_int_equal(number(json_object_get(facts, "shape"), "layers"), 2);
    assert_int_equal(strlen(json_string_value(json_object_get(facts, "sha256"))), 64);
    json_decref(facts);
    assert_int_equal(run("model info other.gguf"), 0);
    has(d.output, "supported     no: the architecture 'mamba' is not supported");
    assert_int_equal(run("model info good.jsonl"), 1);
    has(d.words, "not a GGUF file");
}

static void test_usage_errors_exit_2(void **state)
{
    (void)state;
    assert_int_equal(run("data"), 2);
    assert_int_equal(run("data check --data good.jsonl"), 2);
    has(d.words, "--model is missing");
    assert_int_equal(run("data check --data good.jsonl --model model.gguf --max-length 1"), 2);
    assert_int_equal(run("data check --data good.jsonl --model model.gguf --max-length 513"), 2);
    has(d.words, "the model's context of 512");
    assert_int_equal(run("model info"), 2);
    assert_int_equal(run("model info --help"), 0);
    has(d.output, "Example:");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_data_check_counts_and_finds_repeats),
        cmocka_unit_test(test_data_check_names_bad_lines_and_fails),
        cmocka_unit_test(test_data_preview_shows_what_is_learned),
        cmocka_unit_test(test_data_tokens_reads_texts_and_records),
        cmocka_unit_test(test_model_info_describes_and_judges),
        cmocka_unit_test(test_usage_errors_exit_2),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
