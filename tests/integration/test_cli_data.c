/* `dure data` and `dure model` from the outside, on a tiny model. */
#include "support/check.h"
#include "support/program.h"
#include "support/tiny_model.h"

#include <string.h>

static program p;

static int set_up(void **state)
{
    (void)state;
    program_make(&p, DURE_BINARY);
    tiny_model_write(temp_dir_file(&p.dir, "model.gguf"), &(tiny_model_opts){.seed = 5});
    tiny_model_write(temp_dir_file(&p.dir, "other.gguf"), &(tiny_model_opts){.arch = "mamba"});
    tiny_model_write(temp_dir_file(&p.dir, "strange.gguf"),
                     &(tiny_model_opts){.chat_template = "{{ messages }}"});
    program_put(&p, "good.jsonl",
                "{\"prompt\":\"Hi\",\"response\":\"Hello\"}\n"
                "{\"prompt\":\"Bye\",\"response\":\"So long\"}\n"
                "{\"prompt\":\"Hi\",\"response\":\"Hello\"}\n");
    program_put(&p, "bad.jsonl",
                "{\"prompt\":\"Hi\",\"response\":\"Hello\"}\nnonsense\n{\"prompt\":\"x\"}\n");
    program_put(&p, "empty.jsonl", "");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    program_end(&p);
    return 0;
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
    assert_int_equal(program_run(&p, "data check --data good.jsonl --model model.gguf --json"), 0);
    json_t *report = program_json(&p);
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
    assert_int_equal(program_run(&p, "data check --data bad.jsonl --model model.gguf"), 1);
    program_prints(&p, "problems  2");
    program_says(&p, "bad.jsonl, line 2: it is not valid JSON");
    program_says(&p, "bad.jsonl, line 3: ");
    assert_int_equal(
        program_run(&p, "data check --data good.jsonl --model model.gguf --max-length 40"), 1);
    program_says(&p,
                 "line 1: no part of the response is within the first 40 of 96 tokens; shorten");
    assert_int_equal(
        program_run(&p, "data check --data good.jsonl --model model.gguf --max-length 95"), 1);
    program_says(&p, "the record has 96 tokens, more than the maximum length of 95");
    assert_int_equal(program_run(&p, "data check --data empty.jsonl --model model.gguf"), 1);
    program_says(&p, "holds no record");
    assert_int_equal(program_run(&p, "data check --data absent.jsonl --model model.gguf"), 1);
    program_says(&p, "absent.jsonl");
}

static void test_data_preview_shows_what_is_learned(void **state)
{
    (void)state;
    assert_int_equal(
        program_run(&p, "data preview --data good.jsonl --model model.gguf --records 1"), 0);
    program_prints(&p, "  masked  | <|im_start|>user\n  masked  | Hi<|im_end|>\n");
    program_prints(&p, "  learned | [H][e][l][l][o][<|im_end|>]\n");
    assert_null(strstr(p.out, "So long"));
    assert_int_equal(program_run(&p, "data preview --data good.jsonl --model model.gguf --json"),
                     0);
    json_t *records = program_json(&p);
    assert_int_equal(json_array_size(records), 3);
    const json_t *segments = json_object_get(json_array_get(records, 0), "segments");
    assert_int_equal(json_array_size(segments), 3);
    assert_true(json_is_true(json_object_get(json_array_get(segments, 1), "learned")));
    assert_string_equal(json_string_value(json_object_get(json_array_get(segments, 1), "text")),
                        "Hello<|im_end|>");
    json_decref(records);
}

static void test_data_writes_conversations_as_asked(void **state)
{
    (void)state;
    const char *const preview = "data preview --data good.jsonl --model model.gguf --records 1 "
                                "--chat-template ";
    char line[256];
    snprintf(line, sizeof line, "%schatml", preview);
    assert_int_equal(program_run(&p, line), 0);
    program_prints(&p, "  masked  | <|im_start|>user\n  masked  | Hi<|im_end|>\n");
    assert_null(strstr(p.out, "SmolLM")); /* plain ChatML adds no system message */
    snprintf(line, sizeof line, "%svicuna", preview);
    assert_int_equal(program_run(&p, line), 2);
    program_says(&p, "the chat template 'vicuna' is unknown; it must be one of chatml, smollm2");
    snprintf(line, sizeof line, "%sllama3", preview);
    assert_int_equal(program_run(&p, line), 1);
    program_says(&p, "needs the special token <|start_header_id|>");
}

static void test_data_preview_starts_at_a_line(void **state)
{
    (void)state;
    assert_int_equal(program_run(&p, "data preview --data good.jsonl --model model.gguf --line 2 "
                                     "--records 1"),
                     0);
    program_prints(&p, "line 2: ");
    assert_null(strstr(p.out, "line 1: "));
    assert_null(strstr(p.out, "line 3: "));
    assert_int_equal(program_run(&p, "data preview --data bad.jsonl --model model.gguf --line 2 "
                                     "--records 1"),
                     0);
    program_prints(&p, "nothing is left of it");
}

/* A table and a plain text, and every record in one bin of the histogram. */
static void test_data_reads_other_formats(void **state)
{
    (void)state;
    program_put(&p, "table.csv", "id,prompt,response\n1,Hi,Hello\n2,\"a, b\",c\n");
    program_put(&p, "story", "Once upon a time\nthere was.\n");
    assert_int_equal(program_run(&p, "data check --data table.csv --model model.gguf --json"), 0);
    json_t *report = program_json(&p);
    assert_int_equal(number(report, "records"), 2);
    const json_t *histogram = json_object_get(report, "histogram");
    json_int_t counted = 0;
    for (size_t i = 0; i < json_array_size(histogram); i++)
        counted += number(json_array_get(histogram, i), "records");
    assert_int_equal(counted, 2);
    json_decref(report);
    assert_int_equal(program_run(&p, "data preview --data story --format text --model model.gguf "
                                     "--max-length 20"),
                     0);
    program_prints(&p, "line 1: 20 tokens, 19 labels\n  masked  | O\n  learned | [n][c][e]");
    assert_int_equal(program_run(&p, "data check --data table.csv --format xml --model model.gguf"),
                     2);
    program_says(&p, "not 'xml'");
}

static void test_data_check_counts_what_does_not_fit(void **state)
{
    (void)state;
    assert_int_equal(program_run(&p, "data check --data good.jsonl --model model.gguf "
                                     "--max-length 95 --json"),
                     1);
    json_t *report = program_json(&p);
    assert_int_equal(number(report, "cut"), 3);
    assert_int_equal(number(report, "without_labels"), 0);
    json_decref(report);
    assert_int_equal(program_run(&p, "data check --data good.jsonl --model model.gguf "
                                     "--max-length 40"),
                     1);
    program_prints(&p, "too long  3 (over 40 tokens)\nno label  3\n");
}

static void test_data_tokens_reads_texts_and_records(void **state)
{
    (void)state;
    program_put(&p, "lines", "\" the\"\n\"\"\n{\"prompt\":\"a\",\"response\":\"b\"}\n");
    assert_int_equal(program_run(&p, "data tokens --model model.gguf <lines"), 0);
    program_prints(&p, "[263]\n[]\n[1,");
    program_put(&p, "lines", "\"unfinished\n");
    assert_int_equal(program_run(&p, "data tokens --model model.gguf <lines"), 1);
    program_says(&p, "line 1");
}

static void test_model_info_describes_and_judges(void **state)
{
    (void)state;
    assert_int_equal(program_run(&p, "model info model.gguf --json"), 0);
    json_t *facts = program_json(&p);
    assert_true(json_is_true(json_object_get(facts, "supported")));
    assert_int_equal(number(json_object_get(facts, "shape"), "layers"), 2);
    assert_int_equal(strlen(json_string_value(json_object_get(facts, "sha256"))), 64);
    assert_string_equal(json_string_value(json_object_get(facts, "chat_template")), "smollm2");
    const json_int_t most = number(facts, "training_memory_bytes");
    const json_int_t least = number(facts, "training_memory_least_bytes");
    assert_true(0 < least && least < most);
    json_decref(facts);
    assert_int_equal(program_run(&p, "model info model.gguf"), 0);
    program_prints(&p,
                   "tokenizer     smollm, 272 tokens\nchat template smollm2\nsupported     yes\n");
    assert_int_equal(program_run(&p, "model info strange.gguf"), 0);
    program_prints(&p, "supported     yes, for plain texts; conversations need --chat-template\n");
    assert_int_equal(program_run(&p, "model info other.gguf"), 0);
    program_prints(&p, "supported     no: the architecture 'mamba' is not supported");
    assert_int_equal(program_run(&p, "model info good.jsonl"), 1);
    program_says(&p, "not a GGUF file");
}

static void test_usage_errors_exit_2(void **state)
{
    (void)state;
    assert_int_equal(program_run(&p, "data"), 2);
    assert_int_equal(program_run(&p, "data check --data good.jsonl"), 2);
    program_says(&p, "--model is missing");
    assert_int_equal(
        program_run(&p, "data check --data good.jsonl --model model.gguf --max-length 1"), 2);
    assert_int_equal(
        program_run(&p, "data check --data good.jsonl --model model.gguf --max-length 513"), 2);
    program_says(&p, "the model's context of 512");
    assert_int_equal(program_run(&p, "model info"), 2);
    assert_int_equal(program_run(&p, "model info --help"), 0);
    program_prints(&p, "Example:");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_data_check_counts_and_finds_repeats),
        cmocka_unit_test(test_data_check_names_bad_lines_and_fails),
        cmocka_unit_test(test_data_preview_shows_what_is_learned),
        cmocka_unit_test(test_data_writes_conversations_as_asked),
        cmocka_unit_test(test_data_preview_starts_at_a_line),
        cmocka_unit_test(test_data_reads_other_formats),
        cmocka_unit_test(test_data_check_counts_what_does_not_fit),
        cmocka_unit_test(test_data_tokens_reads_texts_and_records),
        cmocka_unit_test(test_model_info_describes_and_judges),
        cmocka_unit_test(test_usage_errors_exit_2),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
