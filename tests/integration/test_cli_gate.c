/* The gate on real losses: an adapter that was trained passes, the same adapter turned round, which
 * is deliberately worse, is blocked and cannot be promoted. */
#include "common/file.h"
#include "common/json.h"
#include "model/adapter_file.h"
#include "registry/registry.h"
#include "support/check.h"
#include "support/program.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RECORDS = 48 };

static temp_dir dir;

static char output[1 << 20]; /* stdout of the last run */

static void run(const char *arguments)
{
    assert_int_equal(program_run_in(output, sizeof output, dir.path, DURE_BINARY, arguments), 0);
}

static void write_records(const char *name, unsigned first)
{
    static const char *const words[] = {"red", "green", "blue", "grey"};
    dure_buf text;
    dure_buf_init(&text, 1 << 20);
    for (unsigned i = 0; i < RECORDS; i++)
        dure_put_format(&text, "{\"prompt\":\"item %u\",\"response\":\"%s %s\"}\n", first + i,
                        words[i % 4], words[i % 3]);
    assert_ok(dure_buf_err(&text));
    assert_ok(dure_file_write_atomic(temp_dir_file(&dir, name), dure_buf_span(&text), 0644, NULL));
    dure_buf_fini(&text);
}

static void losses_of(double losses[RECORDS], const char *options)
{
    char arguments[256];
    json_t *result = NULL;
    snprintf(arguments, sizeof arguments,
             "eval --model model.gguf --data eval.jsonl --threads 1 --per-record --json %s",
             options);
    run(arguments);
    assert_ok(dure_json_parse(&result, dure_span_of_text(output), "dure eval", NULL));
    const json_t *records = json_object_get(result, "per_record");
    assert_int_equal(json_array_size(records), RECORDS);
    for (size_t i = 0; i < RECORDS; i++)
        losses[i] = json_number_value(json_object_get(json_array_get(records, i), "loss"));
    json_decref(result);
}

/* W x - s B A x instead of W x + s B A x. */
static void turn_round(const char *from, const char *to)
{
    dure_lora *lora = NULL;
    dure_adapter_notes notes = {0};
    assert_ok(dure_adapter_load(&lora, &notes, temp_dir_file(&dir, from), NULL, NULL));
    size_t n = dure_lora_count(&lora->layout, DURE_LORA_FACTOR_B);
    float *b = malloc(n * sizeof *b);
    assert_non_null(b);
    dure_lora_pack(b, lora, DURE_LORA_FACTOR_B);
    for (size_t i = 0; i < n; i++)
        b[i] = -b[i];
    dure_lora_unpack(lora, b, DURE_LORA_FACTOR_B);
    assert_ok(dure_adapter_save(temp_dir_file(&dir, to), lora, &notes, NULL));
    free(b);
    dure_lora_free(&lora);
    dure_adapter_notes_fini(&notes);
}

static void test_gate_passes_the_trained_and_blocks_the_worse(void **state)
{
    (void)state;
    double base[RECORDS], better[RECORDS], worse[RECORDS];
    dure_gate_result result;
    run("train --model model.gguf --data train.jsonl --out made --no-dp --rank 4 --batch 8 "
        "--steps 20 --learning-rate 0.02 --threads 1 --json");
    turn_round("made/adapter.gguf", "worse.gguf");
    losses_of(base, "");
    losses_of(better, "--adapter made/adapter.gguf");
    losses_of(worse, "--adapter worse.gguf");
    assert_ok(dure_gate_compare(&result, base, better, RECORDS, &(dure_gate_opts){0}, NULL));
    assert_true(result.passed && result.high < 0);
    assert_ok(dure_gate_compare(&result, base, worse, RECORDS, &(dure_gate_opts){0}, NULL));
    assert_false(result.passed);
    assert_true(result.low > 0);

    dure_registry *r = NULL;
    uint64_t number;
    dure_diag diag = {0};
    const dure_candidate candidate = {.round = 1};
    const dure_promotion promotion = {0}; /* refused before any key is looked at */
    assert_ok(dure_registry_open(&r, dir.path, NULL));
    dure_buf bytes;
    assert_ok(dure_file_read(&bytes, temp_dir_file(&dir, "worse.gguf"), 1 << 24, NULL));
    assert_ok(dure_registry_add(&number, r, &candidate, dure_buf_span(&bytes), NULL));
    dure_buf_fini(&bytes);
    assert_ok(dure_registry_set_gate(r, number, &result, 0, NULL));
    assert_err(dure_registry_promote(r, number, &promotion, &diag), DURE_ERR_POLICY);
    assert_non_null(strstr(diag.text, "blocked: loss"));
    dure_registry_close(&r);
}

static int setup(void **state)
{
    (void)state;
    temp_dir_make(&dir);
    tiny_model_write(temp_dir_file(&dir, "model.gguf"), &(tiny_model_opts){0});
    write_records("train.jsonl", 0);
    write_records("eval.jsonl", 1000);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    temp_dir_remove(&dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_gate_passes_the_trained_and_blocks_the_worse, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
