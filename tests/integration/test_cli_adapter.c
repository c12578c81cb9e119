/* `dure adapter` from the outside: the program is run on a registry with two versions of an
 * adapter for a tiny model, as a person at a desk would. */
#include "../unit/federation/fixture.h"

#include "common/file.h"
#include "common/json.h"
#include "federation/settings.h"
#include "model/adapter_file.h"
#include "model/shape.h"
#include "registry/registry.h"
#include "support/check.h"
#include "support/program.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct desk {
    temp_dir dir;
    fixture federation;
    dure_hash base;
    char output[65536]; /* stdout and stderr of the last run */
} desk;

static desk d;

/* Runs `dure adapter ARGUMENTS` in the folder; returns the exit status. */
static int run(const char *arguments)
{
    char command[1024];
    snprintf(command, sizeof command, "adapter %s 2>&1", arguments);
    return program_run_in(d.output, sizeof d.output, d.dir.path, DURE_BINARY, command);
}

static void says(const char *what)
{
    if (!strstr(d.output, what)) fail_msg("'%s' is not in: %s", what, d.output);
}

static void make_adapter(dure_buf *out, float value)
{
    dure_gguf *gguf = NULL;
    dure_lora *lora = NULL;
    dure_lora_layout layout = {.rank = 2, .alpha = 4, .targets = 1u << DURE_LORA_V};
    assert_ok(dure_gguf_open(&gguf, temp_dir_file(&d.dir, "model.gguf"), NULL, NULL));
    assert_ok(dure_model_shape_read(&layout.shape, gguf, NULL));
    assert_ok(dure_lora_new(&lora, &layout));
    for (size_t i = 0; i < lora->n; i++)
        lora->params[i] = value * (float)(i % 7);
    assert_ok(dure_adapter_encode(out, lora, NULL, NULL));
    dure_lora_free(&lora);
    dure_gguf_close(&gguf);
}

static void add(dure_registry *r, uint64_t round, bool better)
{
    uint64_t number;
    dure_buf bytes;
    const dure_candidate candidate = {.parent = round - 1,
                                      .round = round,
                                      .ledger_index = round - 1,
                                      .base = d.base,
                                      .created_s = 1700000000};
    const dure_gate_result gate = {.n_records = 64,
                                   .reference_loss = 3,
                                   .candidate_loss = better ? 2 : 4,
                                   .difference = better ? -1 : 1,
                                   .low = better ? -1.2 : 0.8,
                                   .high = better ? -0.8 : 1.2,
                                   .passed = better};
    dure_buf_init(&bytes, 1 << 20);
    make_adapter(&bytes, 0.01f * (float)round);
    assert_ok(dure_registry_add(&number, r, &candidate, dure_buf_span(&bytes), NULL));
    assert_ok(dure_registry_set_gate(r, number, &gate, 0, NULL));
    dure_buf_fini(&bytes);
}

static void make_keys(void)
{
    dure_sign_key key;
    dure_release_certificate certificate;
    assert_ok(dure_sign_generate(&key));
    assert_ok(dure_release_certify(&certificate, &d.federation.root, key.public_, 0, 1LL << 40));
    assert_ok(dure_dir_make(temp_dir_file(&d.dir, "fed/coordinator/keys"), NULL));
    assert_ok(
        dure_sign_save(&key, temp_dir_file(&d.dir, "fed/coordinator/keys/release.key"), NULL));
    assert_ok(dure_release_certificate_write(
        temp_dir_file(&d.dir, "fed/coordinator/keys/release.cert"), &certificate, NULL));
}

/* Versions 1 and 2 passed the gate, 3 did not. */
static int setup(void **state)
{
    (void)state;
    dure_registry *r = NULL;
    temp_dir_make(&d.dir);
    fixture_make(&d.federation);
    tiny_model_write(temp_dir_file(&d.dir, "model.gguf"), &(tiny_model_opts){.type = TINY_Q4_1});
    assert_ok(dure_hash_file(&d.base, temp_dir_file(&d.dir, "model.gguf"), NULL));
    make_keys();
    dure_settings settings = {.terms = d.federation.terms,
                              .endpoint = "tcp://127.0.0.1:7070",
                              .model = "model.gguf",
                              .eval = "eval.jsonl"};
    memcpy(settings.root_public, d.federation.root.public_, 32);
    assert_ok(dure_settings_write(temp_dir_file(&d.dir, "fed/coordinator/federation.yaml"),
                                  &settings, NULL));
    assert_ok(dure_registry_open(&r, temp_dir_file(&d.dir, "fed/coordinator"), NULL));
    add(r, 1, true);
    add(r, 2, true);
    add(r, 3, false);
    dure_registry_close(&r);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    temp_dir_remove(&d.dir);
    return 0;
}

static void test_adapter_list_shows_every_version(void **state)
{
    (void)state;
    assert_int_equal(run("list fed/coordinator"), 0);
    says("gated");
    says("blocked");
    assert_int_equal(run("list fed --json"), 0);
    json_t *list = json_loads(d.output, 0, NULL);
    assert_int_equal(json_array_size(list), 3);
    assert_string_equal(json_string_value(json_object_get(json_array_get(list, 2), "state")),
                        "blocked");
    json_decref(list);
}

static void test_adapter_promote_and_rollback(void **state)
{
    (void)state;
    assert_int_equal(run("promote fed/coordinator 1"), 0);
    assert_int_equal(run("promote fed/coordinator 2"), 0);
    says("Version 2 is signed and is the champion now.");
    assert_int_equal(run("show fed/coordinator champion"), 0);
    says("version   2 (champion)");
    assert_int_equal(run("rollback fed/coordinator"), 0);
    says("Version 1 is the champion again.");
    assert_int_equal(run("rollback fed/coordinator"), 1);
    says("no previous adapter");
}

static void test_adapter_promote_refuses_what_the_gate_blocked(void **state)
{
    (void)state;
    assert_int_equal(run("promote fed/coordinator latest"), 1);
    says("may not be promoted: blocked: loss 3.000 -> 4.000");
    assert_int_equal(run("promote fed/coordinator latest --force 'shown to the board'"), 0);
    assert_int_equal(run("show fed/coordinator 3 --json"), 0);
    says("\"forced\":true,\"reason\":\"shown to the board\"");
}

static void test_adapter_verify_names_the_altered_version(void **state)
{
    (void)state;
    assert_int_equal(run("promote fed/coordinator 1"), 0);
    assert_int_equal(run("verify fed/coordinator --model model.gguf"), 0);
    says("version 1: file, signature and base as they should be");
    assert_int_equal(run("verify fed/coordinator 2"), 1);
    says("not signed");
    assert_int_equal(run("verify fed/coordinator --root "
                         "0000000000000000000000000000000000000000000000000000000000000000"),
                     1);
    says("another federation");
    dure_registry *r = NULL;
    dure_version v;
    assert_ok(dure_registry_open(&r, temp_dir_file(&d.dir, "fed/coordinator"), NULL));
    assert_ok(dure_registry_get(&v, r, 1, NULL));
    char *path = dure_registry_adapter_path(r, &v);
    assert_ok(dure_file_write_atomic(path, dure_span_of_text("altered"), 0644, NULL));
    free(path);
    dure_registry_close(&r);
    assert_int_equal(run("verify fed/coordinator"), 1);
    says("version 1 is not loaded");
    assert_int_equal(run("export fed/coordinator 1 -o out.gguf"), 1);
}

static void test_adapter_verify_refuses_another_base(void **state)
{
    (void)state;
    tiny_model_write(temp_dir_file(&d.dir, "other.gguf"),
                     &(tiny_model_opts){.type = TINY_Q4_1, .seed = 2});
    assert_int_equal(run("promote fed/coordinator 1"), 0);
    assert_int_equal(run("verify fed/coordinator --model other.gguf"), 1);
    says("another base model");
    assert_int_equal(run("merge fed/coordinator 1 --model other.gguf -o m.gguf"), 1);
    says("another base model");
    assert_false(dure_file_exists(temp_dir_file(&d.dir, "m.gguf")));
}

static void test_adapter_export_writes_both_forms(void **state)
{
    (void)state;
    dure_lora *a = NULL, *b = NULL;
    assert_int_equal(run("export fed/coordinator 2 -o out.gguf"), 0);
    says("not signed");
    assert_int_equal(run("export fed/coordinator 2 --format peft -o peft --base-name tiny"), 0);
    assert_ok(dure_adapter_load(&a, NULL, temp_dir_file(&d.dir, "out.gguf"), NULL, NULL));
    assert_ok(
        dure_adapter_load_peft(&b, NULL, temp_dir_file(&d.dir, "peft"), &a->layout.shape, NULL));
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->params, b->params, a->n * sizeof *a->params);
    dure_lora_free(&a);
    dure_lora_free(&b);
    assert_int_equal(run("export fed/coordinator 2 --format onnx -o x"), 2);
}

static void test_adapter_merge_needs_a_signature_and_tells_what_was_kept(void **state)
{
    (void)state;
    assert_int_equal(run("merge fed/coordinator 2 --model model.gguf -o m.gguf"), 1);
    says("not signed");
    assert_int_equal(run("promote fed/coordinator 2"), 0);
    assert_int_equal(run("merge fed/coordinator 2 --model model.gguf -o m.gguf --type same"), 1);
    assert_int_equal(run("merge fed/coordinator 2 --model model.gguf -o m.gguf"), 0);
    says("blk.1.attn_v.weight");
    says("all together");
    assert_true(dure_file_exists(temp_dir_file(&d.dir, "m.gguf")));
    json_t *fidelity = NULL;
    assert_ok(
        dure_json_read(&fidelity, temp_dir_file(&d.dir, "m.gguf.fidelity.json"), 1 << 20, NULL));
    double gain = json_real_value(json_object_get(fidelity, "gain"));
    assert_true(gain > 0.99 && gain < 1.01);
    json_decref(fidelity);
}

static void test_adapter_says_what_is_wrong_with_its_arguments(void **state)
{
    (void)state;
    assert_int_equal(run(""), 2);
    assert_int_equal(run("polish fed"), 2);
    says("there is no 'polish'");
    assert_int_equal(run("show fed/coordinator"), 2);
    says("VERSION is missing");
    assert_int_equal(run("list nowhere"), 1);
    says("nowhere");
    assert_int_equal(run("show fed/coordinator 17"), 1);
    says("no version 17");
    assert_int_equal(run("promote --help"), 0);
    says("Example:");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_adapter_list_shows_every_version),
        TEST(test_adapter_promote_and_rollback),
        TEST(test_adapter_promote_refuses_what_the_gate_blocked),
        TEST(test_adapter_verify_names_the_altered_version),
        TEST(test_adapter_verify_refuses_another_base),
        TEST(test_adapter_export_writes_both_forms),
        TEST(test_adapter_merge_needs_a_signature_and_tells_what_was_kept),
        TEST(test_adapter_says_what_is_wrong_with_its_arguments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
