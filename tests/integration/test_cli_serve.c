/* `dure serve` from the outside: it follows a registry's champion while versions are promoted and
 * rolled back, and ends in order. */
#include "../unit/federation/fixture.h"

#include "common/clock.h"
#include "common/file.h"
#include "federation/settings.h"
#include "model/adapter_file.h"
#include "model/shape.h"
#include "registry/registry.h"
#include "support/check.h"
#include "support/http_client.h"
#include "support/program.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct desk {
    temp_dir dir;
    fixture federation;
    dure_hash base;
    char model[512], coordinator[512];
    pid_t server; /* 0: none runs */
    uint16_t port;
} desk;

static desk d;

/* Runs `dure ARGUMENTS`; returns the exit status and, in `output`, what it said. */
static int run(char *output, size_t size, const char *arguments)
{
    char command[1024];
    snprintf(command, sizeof command, "%s 2>&1", arguments);
    return program_run_in(output, size, d.dir.path, DURE_BINARY, command);
}

static void run_well(const char *arguments)
{
    char output[4096];
    int status = run(output, sizeof output, arguments);
    if (status) print_message("%s", output);
    assert_int_equal(status, 0);
}

/* An adapter that moves every target; `round` makes it another one. */
static void add_version(dure_registry *r, uint64_t round)
{
    dure_gguf *gguf;
    dure_lora *lora;
    dure_buf bytes;
    uint64_t number;
    dure_lora_layout layout = {.rank = 2, .alpha = 4, .targets = 0x7f};
    assert_ok(dure_gguf_open(&gguf, d.model, NULL, NULL));
    assert_ok(dure_model_shape_read(&layout.shape, gguf, NULL));
    assert_ok(dure_lora_new(&lora, &layout));
    for (size_t i = 0; i < lora->n; i++)
        lora->params[i] = 0.05f * (float)((i * (round + 3)) % 11) - 0.25f;
    dure_buf_init(&bytes, 1 << 22);
    assert_ok(dure_adapter_encode(&bytes, lora, NULL, NULL));
    const dure_candidate candidate = {.parent = round - 1, .round = round, .base = d.base};
    const dure_gate_result gate = {.n_records = 64, .candidate_loss = 1, .passed = true};
    assert_ok(dure_registry_add(&number, r, &candidate, dure_buf_span(&bytes), NULL));
    assert_ok(dure_registry_set_gate(r, number, &gate, 0, NULL));
    dure_buf_fini(&bytes);
    dure_lora_free(&lora);
    dure_gguf_close(&gguf);
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

static int setup(void **state)
{
    (void)state;
    d = (desk){0};
    dure_registry *r;
    temp_dir_make(&d.dir);
    fixture_make(&d.federation);
    snprintf(d.model, sizeof d.model, "%s", temp_dir_file(&d.dir, "model.gguf"));
    snprintf(d.coordinator, sizeof d.coordinator, "%s", temp_dir_file(&d.dir, "fed/coordinator"));
    tiny_model_write(d.model, &(tiny_model_opts){.seed = 1});
    assert_ok(dure_hash_file(&d.base, d.model, NULL));
    make_keys();
    dure_settings settings = {
        .terms = d.federation.terms, .endpoint = "tcp://127.0.0.1:7070", .eval = "eval.jsonl"};
    snprintf(settings.model, sizeof settings.model, "%s", d.model);
    memcpy(settings.root_public, d.federation.root.public_, 32);
    assert_ok(dure_settings_write(temp_dir_file(&d.dir, "fed/coordinator/federation.yaml"),
                                  &settings, NULL));
    assert_ok(dure_registry_open(&r, d.coordinator, NULL));
    add_version(r, 1);
    add_version(r, 2);
    dure_registry_close(&r);
    return 0;
}

static int stop_server(void)
{
    int status = 0;
    kill(d.server, SIGTERM);
    assert_int_equal(waitpid(d.server, &status, 0), d.server);
    d.server = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int teardown(void **state)
{
    (void)state;
    if (d.server) stop_server();
    temp_dir_remove(&d.dir);
    return 0;
}

/* Starts `dure serve DIR ...` on a free port and reads the URL it prints. */
static void start_server(void)
{
    int pipe_fd[2];
    char line[512] = "";
    assert_int_equal(pipe(pipe_fd), 0);
    d.server = fork();
    if (d.server == 0) {
        dup2(pipe_fd[1], STDOUT_FILENO);
        close(pipe_fd[0]);
        execl(DURE_BINARY, "dure", "serve", d.coordinator, "--alias", "champion,previous", "--name",
              "base", "--listen", "127.0.0.1:0", "--threads", "1", "--json", (char *)NULL);
        _exit(127);
    }
    close(pipe_fd[1]);
    FILE *out = fdopen(pipe_fd[0], "r");
    assert_non_null(fgets(line, sizeof line, out));
    fclose(out);
    json_t *value = json_loads(line, 0, NULL);
    d.port = http_port_of(json_string_value(json_object_get(value, "url")));
    json_decref(value);
}

/* The version that `name` stands for; 0: it is not offered. */
static uint64_t version_of(const char *name)
{
    char path[64];
    snprintf(path, sizeof path, "/v1/models/%s", name);
    http_answer_text answer = http_request(d.port, "GET", path, NULL, NULL);
    json_t *model = json_loads(answer.body, 0, NULL);
    uint64_t version = (uint64_t)json_integer_value(json_object_get(model, "version"));
    json_decref(model);
    http_answer_free(&answer);
    return version;
}

static bool becomes(const char *name, uint64_t version)
{
    for (int i = 0; i < 200; i++) {
        if (version_of(name) == version) return true;
        dure_clock_sleep_ms(50);
    }
    return false;
}

static char *ask(const char *model)
{
    char body[256];
    snprintf(body, sizeof body,
             "{\"model\":\"%s\",\"prompt\":\"abc\",\"max_tokens\":16,\"seed\":1}", model);
    http_answer_text answer = http_request(d.port, "POST", "/v1/completions", NULL, body);
    assert_int_equal(answer.status, 200);
    json_t *value = json_loads(answer.body, 0, NULL);
    const json_t *choice = json_array_get(json_object_get(value, "choices"), 0);
    char *text = strdup(json_string_value(json_object_get(choice, "text")));
    json_decref(value);
    http_answer_free(&answer);
    return text;
}

static void test_cli_serve_follows_promote_and_rollback(void **state)
{
    (void)state;
    start_server();
    assert_int_equal(version_of("champion"), 0);
    run_well("adapter promote fed/coordinator 1");
    assert_true(becomes("champion", 1));
    char *base = ask("base"), *first = ask("champion");
    assert_string_not_equal(base, first);
    run_well("adapter promote fed/coordinator 2");
    assert_true(becomes("champion", 2));
    assert_true(becomes("previous", 1));
    char *second = ask("champion"), *previous = ask("previous");
    assert_string_equal(previous, first);
    assert_string_not_equal(second, first);
    run_well("adapter rollback fed/coordinator");
    assert_true(becomes("champion", 1));
    char *again = ask("champion");
    assert_string_equal(again, first);
    free(base);
    free(first);
    free(second);
    free(previous);
    free(again);
    assert_int_equal(stop_server(), 0);
}

static void test_cli_serve_offers_no_altered_version(void **state)
{
    (void)state;
    dure_registry *r;
    dure_version v;
    run_well("adapter promote fed/coordinator 1");
    start_server();
    assert_true(becomes("champion", 1));
    run_well("adapter promote fed/coordinator 2");
    assert_true(becomes("champion", 2));
    assert_ok(dure_registry_open(&r, d.coordinator, NULL));
    assert_ok(dure_registry_get(&v, r, 1, NULL));
    char *path = dure_registry_adapter_path(r, &v);
    assert_ok(dure_file_write_atomic(path, dure_span_of_text("altered"), 0644, NULL));
    free(path);
    dure_registry_close(&r);
    run_well("adapter rollback fed/coordinator");
    assert_true(becomes("champion", 0)); /* neither the altered one nor the one rolled back */
    assert_int_equal(stop_server(), 0);
}

static void test_cli_serve_refuses_in_one_sentence(void **state)
{
    (void)state;
    static const struct {
        const char *arguments, *says;
        int status;
    } cases[] = {
        {"serve", "give --model or a coordinator's folder", 2},
        {"serve --model absent.gguf", "absent.gguf", 1},
        {"serve --model model.gguf --listen 0.0.0.0:0", "--insecure-http", 1},
        {"serve --model model.gguf --listen nowhere", "is not an address", 2},
        {"serve --model model.gguf --adapter x", "write NAME=PATH", 2},
        {"serve --model model.gguf --adapter x=absent.gguf", "absent.gguf", 1},
        {"serve --model model.gguf --api-key-file absent", "absent", 1},
        {"serve --model model.gguf --tls-cert model.gguf", "both a certificate and its key", 2},
    };
    char output[4096];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int status = run(output, sizeof output, cases[i].arguments);
        if (!strstr(output, cases[i].says)) fail_msg("'%s' is not in: %s", cases[i].says, output);
        assert_int_equal(status, cases[i].status);
    }
}

#define DESK_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        DESK_TEST(test_cli_serve_follows_promote_and_rollback),
        DESK_TEST(test_cli_serve_offers_no_altered_version),
        DESK_TEST(test_cli_serve_refuses_in_one_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
