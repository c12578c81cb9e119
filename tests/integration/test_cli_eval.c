/* `dure eval` and `dure generate` from the outside, on a tiny model. */
#include "common/json.h"
#include "model/adapter_file.h"
#include "support/check.h"
#include "support/program.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { RECORDS = 12 };

typedef struct desk {
    temp_dir dir;
    char output[1 << 16]; /* stdout, and stderr when asked for, of the last run */
} desk;

static desk d;

static void write_lines(const char *name, const char *format)
{
    FILE *f = fopen(temp_dir_file(&d.dir, name), "w");
    assert_non_null(f);
    for (int i = 0; i < RECORDS; i++) {
        fprintf(f, format, i, i);
        fputc('\n', f);
    }
    assert_int_equal(fclose(f), 0);
}

/* An adapter of random numbers, large enough to change every answer. */
static void write_adapter(void)
{
    dure_lora *lora = NULL;
    dure_lora_layout layout = {.shape = {.architecture = "llama",
                                         .n_layers = 2,
                                         .n_embd = 64,
                                         .n_ff = 96,
                                         .n_head = 4,
                                         .n_head_kv = 2,
                                         .head_dim = 16,
                                         .n_vocab = TINY_VOCAB,
                                         .n_context = 512},
                               .rank = 2,
                               .alpha = 4,
                               .targets = 127};
    assert_ok(dure_lora_new(&lora, &layout));
    for (size_t i = 0; i < lora->n; i++)
        lora->params[i] = 0.3f * sinf((float)(i * i));
    assert_ok(dure_adapter_save(temp_dir_file(&d.dir, "adapter.gguf"), lora, NULL, NULL));
    assert_ok(dure_adapter_save_peft(temp_dir_file(&d.dir, "peft"), lora, "tiny", NULL, NULL));
    dure_lora_free(&lora);
}

static int set_up(void **state)
{
    (void)state;
    temp_dir_make(&d.dir);
    tiny_model_write(temp_dir_file(&d.dir, "model.gguf"), &(tiny_model_opts){.seed = 5});
    write_lines("plain.jsonl", "{\"prompt\":\"say %d\",\"response\":\"it is %d\"}");
    write_lines(
        "json.jsonl",
        "{\"prompt\":\"record %d\",\"response\":\"{\\\"city\\\":\\\"Paris\\\",\\\"n\\\":%d}\"}");
    write_adapter();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    temp_dir_remove(&d.dir);
    return 0;
}

/* Runs `dure ARGUMENTS` in the folder; returns the exit status. */
static int run(const char *arguments)
{
    return program_run_in(d.output, sizeof d.output, d.dir.path, DURE_BINARY, arguments);
}

static json_t *run_json(const char *arguments)
{
    json_t *value = NULL;
    dure_diag diag = {{0}};
    assert_int_equal(run(arguments), 0);
    if (dure_json_parse(&value, dure_span_of_text(d.output), "output", &diag))
        fail_msg("%s in: %s", diag.text, d.output);
    return value;
}

static double number(const json_t *object, const char *key)
{
    double value = NAN;
    assert_ok(dure_json_number(&value, object, key, NULL));
    return value;
}

static void refused(const char *arguments, int status, const char *what)
{
    char command[1024];
    snprintf(command, sizeof command, "%s 2>&1", arguments);
    assert_int_equal(run(command), status);
    if (!strstr(d.output, what)) fail_msg("'%s' is not in: %s", what, d.output);
}

static void test_eval_gives_loss_records_and_tokens(void **state)
{
    (void)state;
    json_t *all = run_json("eval --model model.gguf --data plain.jsonl --json --per-record");
    json_t *list = json_object_get(all, "per_record");
    assert_int_equal(json_array_size(list), RECORDS);
    double loss = 0, tokens = 0;
    for (size_t i = 0; i < RECORDS; i++) {
        const json_t *record = json_array_get(list, i);
        loss += number(record, "loss") * number(record, "tokens");
        tokens += number(record, "tokens");
        assert_true(number(record, "line") == (double)i + 1);
    }
    assert_true(number(all, "records") == RECORDS && number(all, "tokens") == tokens);
    assert_true(fabs(number(all, "loss") - loss / tokens) < 1e-9);
    assert_null(json_object_get(all, "score"));
    json_decref(all);
}

static void test_eval_limit_and_threads(void **state)
{
    (void)state;
    json_t *one =
        run_json("eval --model model.gguf --data plain.jsonl --limit 5 --threads 1 --json");
    json_t *two =
        run_json("eval --model model.gguf --data plain.jsonl --limit 5 --threads 2 --json");
    assert_true(number(one, "records") == 5);
    assert_true(number(one, "loss") == number(two, "loss"));
    json_decref(one);
    json_decref(two);
}

static void test_eval_adapter_in_both_forms(void **state)
{
    (void)state;
    json_t *base = run_json("eval --model model.gguf --data plain.jsonl --json");
    json_t *gguf =
        run_json("eval --model model.gguf --adapter adapter.gguf --data plain.jsonl --json");
    json_t *peft = run_json("eval --model model.gguf --adapter peft --data plain.jsonl --json");
    assert_true(fabs(number(base, "loss") - number(gguf, "loss")) > 1e-3);
    assert_true(number(gguf, "loss") == number(peft, "loss"));
    json_decref(base);
    json_decref(gguf);
    json_decref(peft);
}

static void test_eval_scores_fields(void **state)
{
    (void)state;
    json_t *all =
        run_json("eval --model model.gguf --data json.jsonl --fields city,n --json --per-record");
    assert_true(number(all, "score") == 0); /* a random model does not say JSON */
    assert_true(number(json_object_get(all, "field_scores"), "city") == 0);
    json_t *first = json_array_get(json_object_get(all, "per_record"), 0);
    assert_true(json_is_false(json_object_get(first, "right")));
    assert_true(json_is_string(json_object_get(first, "answer")));
    json_decref(all);
    refused("eval --model model.gguf --data plain.jsonl --fields city", 1, "line 1");
    refused("eval --model model.gguf --data json.jsonl --fields town", 1, "no field 'town'");
    refused("eval --model model.gguf --data json.jsonl --fields city,,n", 2, "names");
}

static void test_eval_names_what_is_wrong(void **state)
{
    (void)state;
    refused("eval --model none.gguf --data plain.jsonl", 1, "none.gguf");
    refused("eval --model model.gguf --data none.jsonl", 1, "none.jsonl");
    refused("eval --model plain.jsonl --data plain.jsonl", 1, "plain.jsonl");
    refused("eval --model model.gguf --data plain.jsonl --adapter model.gguf", 1, "adapter");
    refused("eval --model model.gguf", 2, "--data");
    refused("eval --model model.gguf --data plain.jsonl --limit x", 2, "--limit");
}

static void test_generate_is_the_same_each_time(void **state)
{
    (void)state;
    static const char *const arguments[] = {
        "generate --model model.gguf --prompt hello --max-tokens 20 --temperature 0 --json",
        "generate --model model.gguf --prompt hello --max-tokens 20 --temperature 0 --json",
        "generate --model model.gguf --prompt hello --max-tokens 20 --adapter adapter.gguf --json"};
    json_t *answers[3];
    for (size_t i = 0; i < 3; i++) {
        answers[i] = run_json(arguments[i]);
        assert_true(json_is_string(json_object_get(answers[i], "text")));
    }
    assert_true(
        json_equal(json_object_get(answers[0], "text"), json_object_get(answers[1], "text")));
    assert_false(
        json_equal(json_object_get(answers[0], "text"), json_object_get(answers[2], "text")));
    for (size_t i = 0; i < 3; i++)
        json_decref(answers[i]);
}

static void test_generate_seed_decides(void **state)
{
    (void)state;
    json_t *a = run_json("generate --model model.gguf --prompt hello --max-tokens 20 "
                         "--temperature 1 --top-p 0.9 --seed 1 --json");
    json_t *b = run_json("generate --model model.gguf --prompt hello --max-tokens 20 "
                         "--temperature 1 --top-p 0.9 --seed 2 --json");
    assert_false(json_equal(json_object_get(a, "text"), json_object_get(b, "text")));
    json_decref(a);
    json_decref(b);
}

static void test_generate_names_what_is_wrong(void **state)
{
    (void)state;
    refused("generate --model none.gguf --prompt x", 1, "none.gguf");
    refused("generate --model model.gguf", 2, "--prompt");
    refused("generate --model model.gguf --prompt x --max-tokens 0", 2, "--max-tokens");
    refused("generate --model model.gguf --prompt x --temperature -1", 2, "--temperature");
    refused("generate --model model.gguf --prompt x --top-p 2", 2, "--top-p");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_eval_gives_loss_records_and_tokens),
        cmocka_unit_test(test_eval_limit_and_threads),
        cmocka_unit_test(test_eval_adapter_in_both_forms),
        cmocka_unit_test(test_eval_scores_fields),
        cmocka_unit_test(test_eval_names_what_is_wrong),
        cmocka_unit_test(test_generate_is_the_same_each_time),
        cmocka_unit_test(test_generate_seed_decides),
        cmocka_unit_test(test_generate_names_what_is_wrong),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
