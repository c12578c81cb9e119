/* `dure train` and `dure privacy` from the outside, on a tiny model. */
#include "common/file.h"
#include "common/json.h"
#include "model/adapter_file.h"
#include "support/check.h"
#include "support/program.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct desk {
    temp_dir dir;
    char output[1 << 18]; /* stdout and stderr of the last run */
} desk;

static desk d;

static int set_up(void **state)
{
    (void)state;
    static const char *const words[] = {"apple", "river", "stone", "cloud"};
    const tiny_model_opts tiny = {.seed = 5};
    temp_dir_make(&d.dir);
    tiny_model_write(temp_dir_file(&d.dir, "model.gguf"), &tiny);
    FILE *f = fopen(temp_dir_file(&d.dir, "data.jsonl"), "w");
    assert_non_null(f);
    for (int i = 0; i < 32; i++)
        fprintf(f, "{\"prompt\":\"say %s %d\",\"response\":\"%s\"}\n", words[i % 4], i,
                words[i % 4]);
    assert_int_equal(fclose(f), 0);
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
    char command[2048];
    snprintf(command, sizeof command, "%s 2>&1", arguments);
    return program_run_in(d.output, sizeof d.output, d.dir.path, DURE_BINARY, command);
}

static void says(const char *what)
{
    if (!strstr(d.output, what)) fail_msg("'%s' is not in: %s", what, d.output);
}

static bool there(const char *name)
{
    return dure_file_exists(temp_dir_file(&d.dir, name));
}

#define TRAIN "train --model model.gguf --data data.jsonl --rank 4 --batch 8 --threads 1 "
#define PRIVATE "--source orders --records 1000 --epsilon 8 "

/* The last line of the output, as JSON. */
static json_t *last_json(void)
{
    size_t n = strlen(d.output);
    while (n > 0 && d.output[n - 1] == '\n')
        d.output[--n] = '\0';
    const char *line = strrchr(d.output, '\n');
    json_t *value = NULL;
    dure_diag diag = {0};
    if (dure_json_parse(&value, dure_span_of_text(line ? line + 1 : d.output), "output", &diag))
        fail_msg("%s in: %s", diag.text, d.output);
    return value;
}

static double number_of(const char *key)
{
    double value = NAN;
    json_t *object = last_json();
    assert_ok(dure_json_number(&value, object, key, NULL));
    json_decref(object);
    return value;
}

static void test_train_without_privacy_lowers_the_loss(void **state)
{
    (void)state;
    assert_int_equal(run("eval --model model.gguf --data data.jsonl --json"), 0);
    double before = number_of("loss");
    assert_int_equal(run(TRAIN "--no-dp --steps 20 --learning-rate 0.02 --out a --json"), 0);
    json_t *line = last_json(), *summary = json_object_get(line, "summary");
    assert_true(json_is_null(json_object_get(summary, "epsilon")));
    assert_true(json_number_value(json_object_get(summary, "tokens_per_second")) > 0);
    assert_true(json_integer_value(json_object_get(summary, "peak_memory_bytes")) > 0);
    assert_string_equal(json_string_value(json_object_get(summary, "adapter")), "a/adapter.gguf");
    json_decref(line);
    assert_int_equal(
        run("eval --model model.gguf --data data.jsonl --adapter a/adapter.gguf --json"), 0);
    double after = number_of("loss");
    assert_true(after < 0.9 * before);
    assert_int_equal(run("eval --model model.gguf --data data.jsonl --adapter a --json"), 0);
    assert_true(fabs(number_of("loss") - after) < 1e-6); /* the PEFT folder says the same */
    assert_false(there("a/unfinished"));
    assert_false(there("ledger"));
}

static void test_train_prints_one_object_a_step(void **state)
{
    (void)state;
    assert_int_equal(run(TRAIN "--no-dp --steps 3 --out a --json"), 0);
    *strchr(d.output, '\n') = 0;
    json_t *step = json_loads(d.output, 0, NULL);
    assert_non_null(step);
    assert_int_equal(json_integer_value(json_object_get(step, "step")), 1);
    assert_true(json_number_value(json_object_get(step, "loss")) > 0);
    assert_true(json_integer_value(json_object_get(step, "tokens")) > 8);
    assert_true(json_is_real(json_object_get(step, "seconds")));
    json_decref(step);
}

static void test_train_private_run_spends_its_reservation_and_erases_its_key(void **state)
{
    (void)state;
    FILE *f = fopen(temp_dir_file(&d.dir, "data.jsonl"), "a");
    assert_non_null(f);
    fprintf(f, "not a record\n{\"prompt\":\"nothing to learn\",\"response\":\"\"}\n");
    assert_int_equal(fclose(f), 0);
    assert_int_equal(run(TRAIN PRIVATE "--steps 5 --out a --json"), 0);
    json_t *line = last_json();
    double epsilon =
        json_number_value(json_object_get(json_object_get(line, "summary"), "epsilon"));
    json_decref(line);
    assert_true(epsilon > 7.9 && epsilon <= 8);
    assert_false(there("a/unfinished"));
    assert_true(there("a/adapter.gguf") && there("a/adapter_model.safetensors"));
    assert_int_equal(run("privacy status --json"), 0);
    line = last_json();
    const json_t *source = json_array_get(json_object_get(line, "sources"), 0);
    assert_string_equal(json_string_value(json_object_get(source, "source")), "orders");
    assert_true(json_number_value(json_object_get(source, "epsilon_spent")) == epsilon);
    assert_int_equal(json_integer_value(json_object_get(source, "spent")), 1);
    json_decref(line);
}

/* The adapter says which base it belongs to, and nothing that was measured on the records. */
static void test_train_adapter_carries_no_figures(void **state)
{
    (void)state;
    assert_int_equal(run(TRAIN PRIVATE "--steps 2 --out a"), 0);
    dure_lora *lora = NULL;
    dure_adapter_notes notes = {.texts = NULL};
    assert_ok(
        dure_adapter_load(&lora, &notes, temp_dir_file(&d.dir, "a/adapter.gguf"), NULL, NULL));
    assert_int_equal(strlen(notes.base_digest), 64);
    assert_int_equal(json_object_size(notes.texts), 0);
    dure_adapter_notes_fini(&notes);
    dure_lora_free(&lora);
}

static void test_train_refuses_a_budget_that_is_spent(void **state)
{
    (void)state;
    assert_int_equal(run(TRAIN PRIVATE "--steps 2 --out a"), 0);
    assert_int_equal(
        rename(temp_dir_file(&d.dir, "data.jsonl"), temp_dir_file(&d.dir, "new.jsonl")), 0);
    assert_int_equal(
        run("train --model model.gguf --data new.jsonl --batch 8 --steps 2 " PRIVATE "--out b"), 1);
    says("the privacy budget of 'orders'");
    assert_false(there("b/unfinished") || there("b/adapter.gguf"));
    assert_int_equal(run("train --model model.gguf --data new.jsonl --batch 8 --steps 2 "
                         "--source orders --records 1000 --epsilon 80 --out b"),
                     1);
    says("a budget does not change");
}

static void test_train_with_noise_given_leaves_room_for_more(void **state)
{
    (void)state;
    assert_int_equal(run(TRAIN PRIVATE "--noise 3 --steps 5 --out a"), 0);
    assert_int_equal(run(TRAIN PRIVATE "--noise 3 --steps 5 --out b"), 0);
    assert_int_equal(run(TRAIN PRIVATE "--noise 0.3 --steps 50 --out c"), 1);
    says("it fits");
}

/* Starts a run and kills it once it has printed `lines` lines. */
static void kill_after(const char *arguments, int lines)
{
    int ends[2];
    char command[2048], line[4096];
    snprintf(command, sizeof command, "cd '%s' && DURE_LEDGER=ledger exec '%s' %s", d.dir.path,
             DURE_BINARY, arguments);
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    FILE *f = fdopen(ends[0], "r");
    assert_non_null(f);
    for (int i = 0; i < lines; i++)
        assert_non_null(fgets(line, sizeof line, f));
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    fclose(f);
}

static void check_same_bytes(const char *a, const char *b)
{
    dure_buf x, y;
    assert_ok(dure_file_read(&x, temp_dir_file(&d.dir, a), 1 << 24, NULL));
    assert_ok(dure_file_read(&y, temp_dir_file(&d.dir, b), 1 << 24, NULL));
    assert_int_equal(x.n, y.n);
    assert_memory_equal(x.data, y.data, x.n);
    dure_buf_fini(&x);
    dure_buf_fini(&y);
}

/* Killed twice and taken up again, a run ends where its copy, killed once, ends. */
static void test_train_killed_goes_on_with_the_same_bits(void **state)
{
    (void)state;
    char command[1024];
    struct stat info;
    kill_after(TRAIN PRIVATE "--steps 60 --json --out a", 5);
    assert_int_equal(stat(temp_dir_file(&d.dir, "a/unfinished/key"), &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    snprintf(command, sizeof command, "cp -r '%s/a' '%s/b'", d.dir.path, d.dir.path);
    assert_int_equal(system(command), 0);
    assert_int_equal(run("privacy status --json"), 0);
    json_t *line = last_json();
    assert_int_equal(json_integer_value(json_object_get(
                         json_array_get(json_object_get(line, "sources"), 0), "reserved")),
                     1);
    json_decref(line);
    kill_after(TRAIN PRIVATE "--steps 60 --json --out a", 12);
    assert_int_equal(run(TRAIN PRIVATE "--steps 60 --out a"), 0);
    assert_int_equal(run(TRAIN PRIVATE "--steps 60 --out b"), 0);
    check_same_bytes("a/adapter.gguf", "b/adapter.gguf");
    assert_false(there("a/unfinished") || there("b/unfinished"));
}

static void test_train_refuses_to_go_on_with_other_settings(void **state)
{
    (void)state;
    kill_after(TRAIN PRIVATE "--steps 60 --json --out a", 3);
    assert_int_equal(run(TRAIN PRIVATE "--steps 61 --out a"), 1);
    says("unfinished run");
    assert_int_equal(run(TRAIN PRIVATE "--steps 60 --learning-rate 1 --out a"), 1);
    says("other settings");
    FILE *f = fopen(temp_dir_file(&d.dir, "data.jsonl"), "a");
    assert_non_null(f);
    fprintf(f, "{\"prompt\":\"one\",\"response\":\"more\"}\n");
    assert_int_equal(fclose(f), 0);
    assert_int_equal(run(TRAIN PRIVATE "--steps 60 --out a"), 1);
    says("other records");
    assert_true(there("a/unfinished/key"));
}

static void test_train_does_not_write_over_an_adapter(void **state)
{
    (void)state;
    assert_int_equal(run(TRAIN "--no-dp --steps 1 --out a"), 0);
    assert_int_equal(run(TRAIN "--no-dp --steps 1 --out a"), 1);
    says("choose another --out");
}

static void test_train_without_privacy_names_the_bad_line(void **state)
{
    (void)state;
    FILE *f = fopen(temp_dir_file(&d.dir, "data.jsonl"), "a");
    assert_non_null(f);
    fprintf(f, "not a record\n");
    assert_int_equal(fclose(f), 0);
    assert_int_equal(run(TRAIN "--no-dp --steps 1 --out a"), 1);
    says("33");
    assert_false(there("a"));
}

static void test_train_refuses_wrong_usage(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "--out a",
        "--out a --source s --records 10",
        "--out a --no-dp --epsilon 3",
        "--out a --no-dp --rank 0",
        "--out a --no-dp --factor c",
        "--out a --no-dp --factor a",
        "--out a --no-dp --targets q,z",
        "--out a --no-dp --steps 0",
        "--out a --no-dp --batch 33",
        "--out a --no-dp --learning-rate 0",
        "--out a --source s --records 1000 --epsilon 0",
        "--out a --source s --records 1000 --epsilon 8 --delta 1",
        "--out a --source s --records 1000 --epsilon 8 --delta 0.01",
        "--out a --source s --records 7 --epsilon 8",
        "--out a --source s --records 1000 --epsilon 8 --clip 0",
        "--out a --source s --records 1000 --epsilon 8 --noise 0",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char arguments[512];
        snprintf(arguments, sizeof arguments,
                 "train --model model.gguf --data data.jsonl --batch 8 %s", wrong[i]);
        if (i == 8) /* a batch of its own */
            snprintf(arguments, sizeof arguments, "train --model model.gguf --data data.jsonl %s",
                     wrong[i]);
        int status = run(arguments);
        if (status != 2) fail_msg("%s: status %d, %s", wrong[i], status, d.output);
        assert_false(there("a/unfinished"));
    }
}

static void test_privacy_plan_answers_each_question(void **state)
{
    (void)state;
    assert_int_equal(run("privacy plan --sample-rate 0.04 --noise 1.5 --steps 2250 --json"), 0);
    double epsilon = number_of("epsilon");
    assert_true(fabs(epsilon - 6.769) < 3e-3);
    assert_true(fabs(number_of("epsilon_rdp") - 7.3293) < 1e-3);
    assert_int_equal(run("privacy plan --sample-rate 0.04 --epsilon 8 --steps 2250 --json"), 0);
    assert_true(fabs(number_of("noise") - 1.346) < 3e-3 && number_of("epsilon") <= 8);
    assert_int_equal(run("privacy plan --batch 40 --records 1000 --noise 1.5 --epsilon 8 --json"),
                     0);
    assert_true(number_of("steps") > 2250 && number_of("epsilon") <= 8);
    assert_int_equal(run("privacy plan --sample-rate 0.04 --noise 0 --steps 1"), 2);
    says("--noise 0 protects nobody, whatever else is chosen; 1 is usual, or give --epsilon");
    static const char *const wrong[] = {
        "--noise 1 --steps 1",
        "--sample-rate 0.1 --noise 1",
        "--sample-rate 2 --noise 1 --steps 1",
        "--sample-rate 0.1 --noise 1 --steps 0",
        "--sample-rate 0.1 --noise 1 --steps 1 --epsilon 1",
        "--sample-rate 0.1 --noise 1 --steps 1 --delta 1",
        "--sample-rate 0.1 --epsilon -1 --steps 1",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char arguments[256];
        snprintf(arguments, sizeof arguments, "privacy plan %s", wrong[i]);
        if (run(arguments) != 2) fail_msg("%s: %s", wrong[i], d.output);
    }
}

/* Batch over noise and the root of the parameters, and over all steps. */
static void test_privacy_plan_says_whether_it_can_learn(void **state)
{
    (void)state;
    assert_int_equal(run("privacy plan --batch 128 --records 10000 --noise 0.8 --steps 20 "
                         "--params 230400 --json"),
                     0);
    double signal = 128 / (0.8 * 480);
    assert_true(fabs(number_of("signal_to_noise_step") / signal - 1) < 1e-4);
    assert_true(fabs(number_of("signal_to_noise") / (signal * sqrt(20)) - 1) < 1e-4);
    assert_true(number_of("sampler_delta") > 0 && number_of("sampler_delta") < 1e-20);
    assert_true(fabs(number_of("epsilon") - 1.2918) < 2e-3);
    /* Four sites halve the noise, and a model says how many parameters there are. */
    assert_int_equal(run("privacy plan --batch 128 --records 10000 --noise 0.8 --steps 20 "
                         "--params 230400 --sites 4 --json"),
                     0);
    assert_true(fabs(number_of("signal_to_noise_step") / (2 * signal) - 1) < 1e-4);
    assert_int_equal(run("privacy plan --batch 8 --records 1000 --noise 1 --steps 20 --model "
                         "model.gguf --rank 2 --targets q --factor b"),
                     0);
    says("rank 2 on q, factor b");
    says("PLD");
    static const char *const wrong[] = {
        "--params 10 --model model.gguf",
        "--params 0",
        "--sites 0",
        "--delta 0.001",
        "--model model.gguf --factor c",
        "--model x.gguf",
        "--targets q,z --model model.gguf",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char arguments[256];
        snprintf(arguments, sizeof arguments,
                 "privacy plan --batch 8 --records 1000 --noise 1 --steps 2 %s", wrong[i]);
        if (run(arguments) == 0) fail_msg("%s: %s", wrong[i], d.output);
    }
}

static void test_privacy_plan_draws_a_page_of_its_own(void **state)
{
    (void)state;
    assert_int_equal(run("privacy plan --sample-rate 0.01 --noise 1.1 --steps 50 --html p.html"),
                     0);
    dure_buf text;
    assert_ok(dure_file_read(&text, temp_dir_file(&d.dir, "p.html"), 1 << 20, NULL));
    dure_put_u8(&text, 0);
    const char *page = (const char *)text.data;
    const char *svg = page;
    for (int i = 0; i < 3; i++)
        assert_non_null(svg = strstr(svg + 1, "<svg"));
    assert_null(strstr(svg + 1, "<svg"));
    assert_non_null(strstr(page, "prefers-color-scheme:dark"));
    assert_non_null(strstr(page, "@media print"));
    assert_null(strstr(page, "<script"));
    assert_null(strstr(page, "http"));
    assert_null(strstr(page, "nan"));
    dure_buf_fini(&text);
    assert_int_equal(run("privacy plan --sample-rate 0.01 --noise 0 --steps 50 --html p.html"), 2);
}

static void test_privacy_status_names_a_damaged_entry(void **state)
{
    (void)state;
    assert_int_equal(run("privacy status"), 1);
    assert_int_equal(run(TRAIN PRIVATE "--steps 2 --out a"), 0);
    assert_int_equal(run("privacy status"), 0);
    says("every entry verified");
    const char *path = temp_dir_file(&d.dir, "ledger");
    dure_buf text;
    assert_ok(dure_file_read(&text, path, 1 << 20, NULL));
    char *epsilon = memmem(text.data, text.n, "\"epsilon\":8", 11);
    assert_non_null(epsilon);
    epsilon[10] = '9';
    assert_ok(dure_file_write_atomic(path, dure_buf_span(&text), 0600, NULL));
    dure_buf_fini(&text);
    assert_int_equal(run("privacy status"), 1);
    says("entry 2 of");
    assert_int_equal(run(TRAIN PRIVATE "--noise 9 --steps 2 --out b"), 1);
    says("entry 2 of");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define ROW(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        ROW(test_train_without_privacy_lowers_the_loss),
        ROW(test_train_prints_one_object_a_step),
        ROW(test_train_private_run_spends_its_reservation_and_erases_its_key),
        ROW(test_train_adapter_carries_no_figures),
        ROW(test_train_refuses_a_budget_that_is_spent),
        ROW(test_train_with_noise_given_leaves_room_for_more),
        ROW(test_train_killed_goes_on_with_the_same_bits),
        ROW(test_train_refuses_to_go_on_with_other_settings),
        ROW(test_train_does_not_write_over_an_adapter),
        ROW(test_train_without_privacy_names_the_bad_line),
        ROW(test_train_refuses_wrong_usage),
        ROW(test_privacy_plan_answers_each_question),
        ROW(test_privacy_plan_says_whether_it_can_learn),
        ROW(test_privacy_plan_draws_a_page_of_its_own),
        ROW(test_privacy_status_names_a_damaged_entry),
#undef ROW
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
