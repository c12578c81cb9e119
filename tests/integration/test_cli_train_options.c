/* The options of `dure train`: steps and rates, the configuration file, evaluation and samples. */
#include "integration/train_desk.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double rate_of_step(size_t i)
{
    json_t *line = json_line(desk.out, i);
    double rate = json_figure(line, "learning_rate");
    json_decref(line);
    return rate;
}

static json_t *summary(void)
{
    json_t *line = program_last_json(&desk), *inner = json_object_get(line, "summary");
    assert_non_null(inner);
    json_incref(inner);
    json_decref(line);
    return inner;
}

static void test_train_warms_up_and_falls(void **state)
{
    (void)state;
    desk_run(PLAIN "--steps 10 --learning-rate 0.01 --schedule linear --warmup 2 --out a --json");
    assert_true(fabs(rate_of_step(0) - 0.01 / 3) < 1e-12);
    assert_true(fabs(rate_of_step(2) - 0.01) < 1e-12);
    assert_true(fabs(rate_of_step(9) - 0.01 / 8) < 1e-12);
    desk_run(PLAIN "--steps 10 --schedule cosine --warmup 0.2 --learning-rate 0.01 --out b --json");
    assert_true(fabs(rate_of_step(1) - 0.02 / 3) < 1e-12);
    assert_true(fabs(rate_of_step(6) - 0.005) < 1e-12);
}

/* 32 records in batches of 8: an epoch has four steps; with privacy it is one of the public 1000.
 */
static void test_train_counts_epochs(void **state)
{
    (void)state;
    desk_run(PLAIN "--epochs 1.5 --out a --json");
    json_t *s = summary();
    assert_true(json_figure(s, "steps") == 6);
    json_decref(s);
    desk_run(PRIVATE "--epochs 0.02 --out b --json");
    s = summary();
    assert_true(json_figure(s, "steps") == 3);
    json_decref(s);
}

static void test_train_takes_a_configuration_file(void **state)
{
    (void)state;
    program_put(&desk, "train.yaml",
                "# the usual\nmodel: model.gguf\ndata: data.jsonl\nrank: 4\nbatch: 8\nthreads: 1\n"
                "no-dp: true\njson: false\nsteps: 7\nlearning-rate: 1e-2\nschedule: 'linear'\n");
    desk_run("train --config train.yaml --steps 4 --out a");
    desk_run(PLAIN "--steps 4 --learning-rate 0.01 --schedule linear --out b");
    desk_same_bytes("a/adapter.gguf", "b/adapter.gguf");
}

static void check_config_refused(const char *text, const char *sentence)
{
    program_put(&desk, "train.yaml", text);
    assert_int_equal(program_run(&desk, PLAIN "--out a --config train.yaml"), 2);
    program_says(&desk, sentence);
    assert_false(program_has(&desk, "a"));
}

static void test_train_names_what_is_wrong_in_the_configuration(void **state)
{
    (void)state;
    check_config_refused("steps: 3\nlerning-rate: 1\n",
                         "train.yaml, line 2: there is no option 'lerning-rate'");
    check_config_refused("{steps: 3, lerning-rate: 1}\n", "lerning-rate");
    check_config_refused("steps: 3\nsteps: 4\n", "steps");
    check_config_refused("steps: many\n",
                         "train.yaml: steps needs a whole number from 1 to 100000000, not 'many'");
    check_config_refused("any-base: maybe\n", "train.yaml: any-base needs true or false");
    check_config_refused("steps: [1, 2]\n", "train.yaml");
    check_config_refused("config: other.yaml\n", "config");
    check_config_refused("", "train.yaml is empty");
    check_config_refused("optimizer: adam\n", "--optimizer must be adamw or sgd, not 'adam'");
    assert_int_equal(program_run(&desk, PLAIN "--out a --config absent.yaml"), 2);
    program_says(&desk, "absent.yaml");
}

static void test_train_keeps_the_adapter_that_evaluates_best(void **state)
{
    (void)state;
    program_put(&desk, "wrong.jsonl",
                "{\"prompt\":\"say apple 1\",\"response\":\"river\"}\n"
                "{\"prompt\":\"say stone 2\",\"response\":\"cloud\"}\n");
    desk_run(PLAIN "--steps 100 --learning-rate 0.02 --eval wrong.jsonl --eval-every 2 "
                   "--patience 4 --out a --json");
    json_t *s = summary();
    double best = json_figure(s, "best_step"), loss = json_figure(s, "eval_loss");
    assert_true(json_figure(s, "steps") == best + 8 && best < 90);
    json_decref(s);
    desk_run("eval --model model.gguf --data wrong.jsonl --adapter a --json");
    json_t *line = program_json(&desk);
    assert_true(fabs(json_figure(line, "loss") - loss) < 1e-6);
    json_decref(line);
}

static void test_train_shows_what_the_adapter_answers(void **state)
{
    (void)state;
    desk_run(PLAIN "--steps 120 --learning-rate 0.02 --sample-prompt 'say apple 1' "
                   "--sample-every 60 --sample-tokens 6 --out a");
    program_says(&desk, "step 60 answers:\n  | ");
    program_says(&desk, "step 120 answers:\n  | apple");
    desk_run(PLAIN "--steps 120 --learning-rate 0.02 --out b");
    desk_same_bytes("a/adapter.gguf", "b/adapter.gguf");
    desk_run(PLAIN "--steps 2 --sample-prompt x --sample-tokens 3 --out c --json");
    json_t *line = json_line(desk.out, 1);
    assert_true(json_is_string(json_object_get(line, "sample")));
    json_decref(line);
}

static void test_train_private_evaluation_must_be_declared(void **state)
{
    (void)state;
    assert_int_equal(program_run(&desk, PRIVATE "--steps 2 --eval held.jsonl --out a"), 2);
    program_says(&desk, "--eval-unprotected");
    assert_int_equal(program_run(&desk, PRIVATE "--steps 2 --eval data.jsonl --eval-unprotected "
                                                "--out a"),
                     2);
    program_says(&desk, "data.jsonl, line 1: this record is in data.jsonl too");
    assert_false(program_has(&desk, "ledger"));
    desk_run(PRIVATE "--steps 2 --eval held.jsonl --eval-unprotected --out a --json");
    json_t *s = summary();
    assert_true(json_figure(s, "eval_loss") > 0);
    json_decref(s);
}

static void test_train_clips_by_norm_without_privacy(void **state)
{
    (void)state;
    desk_run(PLAIN "--steps 1 --optimizer sgd --momentum 0 --clip-norm 0.001 --out a --json");
    desk_run(PLAIN "--steps 1 --optimizer sgd --momentum 0 --out b --json");
    json_t *line = json_line(desk.out, 0);
    assert_true(json_figure(line, "gradient_norm") > 0.001);
    json_decref(line);
    desk_other_bytes("a/adapter.gguf", "b/adapter.gguf");
}

static void test_train_stops_a_run_that_goes_wrong(void **state)
{
    (void)state;
    desk_run(PLAIN "--steps 60 --learning-rate 0.02 --out a");
    assert_int_equal(program_run(&desk,
                                 "train --model model.gguf --data data.jsonl --no-dp --init "
                                 "a/adapter.gguf --batch 8 --learning-rate 900 --steps 50 --out b"),
                     1);
    program_says(&desk, "step ");
    program_says(&desk, "is in line ");
    program_says(&desk, "--learning-rate");
    assert_false(program_has(&desk, "b"));
}

/* Trained, written in both forms, read back and trained on. */
static void test_train_takes_a_rank_for_each_target(void **state)
{
    (void)state;
    desk_run("train --model model.gguf --data data.jsonl --batch 8 --no-dp --targets q,v,down "
             "--rank 4,v=8,down=2 --learning-rate 0.02 --steps 30 --out a --json");
    json_t *first = json_line(desk.out, 0), *last = json_line(desk.out, 29);
    assert_true(json_figure(last, "loss") < 0.7 * json_figure(first, "loss"));
    json_decref(first);
    json_decref(last);
    desk_run("eval --model model.gguf --data data.jsonl --adapter a/adapter.gguf --json");
    json_t *line = program_json(&desk);
    double loss = json_figure(line, "loss");
    json_decref(line);
    desk_run("eval --model model.gguf --data data.jsonl --adapter a --json");
    line = program_json(&desk);
    assert_true(json_figure(line, "loss") == loss);
    json_decref(line);
    desk_run("train --model model.gguf --data data.jsonl --batch 8 --no-dp --init a --steps 2 "
             "--out b");
    assert_int_equal(program_run(&desk, TRAIN "--no-dp --rank 4,v=8 --out c"), 2); /* twice */
    assert_int_equal(program_run(&desk, "train --model model.gguf --data data.jsonl --no-dp "
                                        "--rank 4,down=2 --out c"),
                     2);
    program_says(&desk, "'down' has a rank of its own and is not adapted");
    assert_int_equal(program_run(&desk, "train --model model.gguf --data data.jsonl --no-dp "
                                        "--rank 4,v=2 --rslora --out c"),
                     2);
    program_says(&desk, "--rslora with several ranks");
}

static void test_train_dora_writes_a_peft_folder(void **state)
{
    (void)state;
    desk_run(PLAIN "--dora --learning-rate 0.02 --steps 30 --out a --json");
    json_t *first = json_line(desk.out, 0), *last = json_line(desk.out, 29);
    assert_true(json_figure(last, "loss") < 0.7 * json_figure(first, "loss"));
    json_decref(first);
    json_decref(last);
    assert_true(program_has(&desk, "a/adapter_model.safetensors"));
    assert_false(program_has(&desk, "a/adapter.gguf"));
    desk_run("eval --model model.gguf --data data.jsonl --adapter a --json");
    json_t *line = program_json(&desk);
    double loss = json_figure(line, "loss");
    json_decref(line);
    desk_run("eval --model model.gguf --data data.jsonl --json");
    line = program_json(&desk);
    assert_true(loss < 0.7 * json_figure(line, "loss"));
    json_decref(line);
    desk_run("generate --model model.gguf --adapter a --prompt hi --max-tokens 3");
    assert_int_equal(program_run(&desk, PLAIN "--dora --steps 1 --out a"), 1);
    program_says(&desk, "choose another --out");
    desk_run("train --model model.gguf --data data.jsonl --batch 8 --no-dp --init a --steps 2 "
             "--out b");
    assert_true(program_has(&desk, "b/adapter_config.json"));
    desk_run(PRIVATE "--dora --steps 3 --out c");
}

static void test_train_rslora_is_another_alpha(void **state)
{
    (void)state;
    desk_run(PLAIN "--steps 3 --alpha 6 --rslora --out a");
    desk_run(PLAIN "--steps 3 --alpha 12 --out b"); /* rank 4 */
    desk_same_bytes("a/adapter.gguf", "b/adapter.gguf");
}

/* The plan, with nothing done: no folder, no ledger; and what it says is what a run then does. */
static void test_train_dry_run_says_what_a_run_does(void **state)
{
    (void)state;
    desk_run(PLAIN "--epochs 2 --out a --dry-run");
    program_prints(&desk, "privacy     none");
    program_prints(&desk, "memory      about ");
    desk_run(PRIVATE "--epochs 0.02 --out a --dry-run --json");
    json_t *plan = program_json(&desk), *privacy = json_object_get(plan, "privacy");
    double epsilon = json_figure(privacy, "epsilon"), steps = json_figure(plan, "steps");
    assert_true(json_figure(privacy, "remaining") == 8 && epsilon > 7.9 && epsilon <= 8);
    assert_true(json_figure(plan, "records") == 32 && json_figure(plan, "labels") > 32);
    assert_true(json_figure(plan, "seconds") > 0 && json_figure(plan, "memory_bytes") > 1e6);
    json_decref(plan);
    assert_false(program_has(&desk, "a") || program_has(&desk, "ledger"));
    desk_run(PRIVATE "--epochs 0.02 --out a --json");
    json_t *s = summary();
    assert_true(json_figure(s, "epsilon") == epsilon && json_figure(s, "steps") == steps);
    json_decref(s);
    assert_int_equal(program_run(&desk, PRIVATE "--steps 2 --out b --dry-run"), 1);
    program_says(&desk, "budget");
    assert_int_equal(program_run(&desk,
                                 TRAIN "--source orders --records 1000 --epsilon 9 --steps 2 "
                                       "--out b --dry-run"),
                     1);
    program_says(&desk, "a budget does not change");
    assert_false(program_has(&desk, "b"));
}

/* The least that the refusal names is enough, and what is expected is said before anything starts.
 */
static void test_train_stays_within_memory(void **state)
{
    (void)state;
    assert_int_equal(program_run(&desk, PLAIN "--steps 2 --targets all --out a --memory 1"), 1);
    program_says(&desk, "may take 1 MB; allow more, or cut records shorter");
    assert_false(program_has(&desk, "a"));
    const char *least = strstr(desk.err, "needs at least ");
    assert_non_null(least);
    unsigned long megabytes = strtoul(least + strlen("needs at least "), NULL, 10);
    assert_true(megabytes > 1 && megabytes < 1000);
    assert_int_equal(
        program_run(&desk, PLAIN "--steps 2 --targets all --out a --memory %lu", megabytes + 1), 0);
    program_says(&desk, "expected: ");
    assert_int_equal(program_run(&desk, PLAIN "--steps 2 --out b --memory 100MB"), 2);
    program_says(&desk, "--memory needs a whole number");
    assert_int_equal(program_run(&desk, PLAIN "--steps 2 --out b --memory 99999999999"), 2);
    program_says(&desk, "--memory is in MB");
    assert_false(program_has(&desk, "b"));
}

/* A GPU that cannot be had costs one sentence, and no budget. */
static void test_train_says_when_there_is_no_gpu(void **state)
{
    (void)state;
    static const char *const trains[] = {PRIVATE "--steps 2 --out a --device cuda:77",
                                         PLAIN "--steps 2 --out a --device cuda:77"};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(program_run(&desk, "%s", trains[i]), 1);
        program_says(&desk, "warning: what runs on a GPU has been verified on an emulated one "
                            "alone");
        assert_true(strstr(desk.err, "this build of Dure has no CUDA") ||
                    strstr(desk.err, "no GPU"));
        assert_false(program_has(&desk, "a"));
        assert_false(program_has(&desk, "ledger"));
    }
    desk_run(PRIVATE "--steps 2 --out a --device auto");
    program_says(&desk, "device: cpu (auto takes no GPU until its code has been verified on one)");
}

static void test_train_refuses_options_that_exclude_each_other(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "--no-dp --steps 3 --epochs 1",
        "--no-dp --epochs 0",
        "--no-dp --schedule triangle",
        "--no-dp --warmup -1",
        "--no-dp --warmup 1.5",
        "--no-dp --steps 5 --warmup 5",
        "--no-dp --clip-norm 0",
        "--no-dp --clip 1",
        "--no-dp --patience 3",
        "--no-dp --eval held.jsonl --patience 0",
        "--no-dp --eval held.jsonl --eval-unprotected",
        "--no-dp --sample-every 3",
        "--no-dp --optimizer sgd --weight-decay 0.1",
        "--no-dp --momentum 0.5",
        "--no-dp --any-base",
        "--no-dp --dropout 1",
        "--no-dp --dropout -0.1",
        "--no-dp --device gpu",
        "--no-dp --device cuda:",
        "--no-dp --device cuda:x",
        "--source s --records 1000 --epsilon 8 --clip-norm 1",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        int status = program_run(&desk, TRAIN "--out a %s", wrong[i]);
        if (status != 2) fail_msg("%s: status %d, %s", wrong[i], status, desk.err);
        assert_false(program_has(&desk, "a"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define ROW(name) cmocka_unit_test_setup_teardown(name, desk_set_up, desk_tear_down)
        ROW(test_train_warms_up_and_falls),
        ROW(test_train_counts_epochs),
        ROW(test_train_takes_a_configuration_file),
        ROW(test_train_names_what_is_wrong_in_the_configuration),
        ROW(test_train_keeps_the_adapter_that_evaluates_best),
        ROW(test_train_shows_what_the_adapter_answers),
        ROW(test_train_private_evaluation_must_be_declared),
        ROW(test_train_clips_by_norm_without_privacy),
        ROW(test_train_stops_a_run_that_goes_wrong),
        ROW(test_train_takes_a_rank_for_each_target),
        ROW(test_train_dora_writes_a_peft_folder),
        ROW(test_train_rslora_is_another_alpha),
        ROW(test_train_dry_run_says_what_a_run_does),
        ROW(test_train_stays_within_memory),
        ROW(test_train_says_when_there_is_no_gpu),
        ROW(test_train_refuses_options_that_exclude_each_other),
#undef ROW
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
