/* Same seed, same bits: over threads, over kills at any moment, with privacy and without. */
#include "integration/train_desk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Everything that has a state of its own: schedule, evaluation, the best factors, momentum. */
#define FULL                                                                                       \
    "--schedule cosine --warmup 0.1 --eval held.jsonl --eval-every 7 --learning-rate 0.02 "        \
    "--weight-decay 0.01 --dropout 0.2 "

static void train(const char *options, const char *out)
{
    char command[1024];
    snprintf(command, sizeof command, "%s --out %s", options, out);
    desk_run(command);
}

static void test_train_threads_do_not_change_a_bit(void **state)
{
    (void)state;
    static const char run[] = "train --model model.gguf --data data.jsonl --no-dp --rank 4 "
                              "--batch 8 --steps 40 --targets all " FULL "--threads";
    for (int i = 0; i < 4; i++) {
        char options[512], out[8], file[64];
        snprintf(options, sizeof options, "%s %d", run, i % 2 + 1);
        snprintf(out, sizeof out, "a%d", i);
        train(options, out);
        snprintf(file, sizeof file, "%s/adapter.gguf", out);
        desk_same_bytes("a0/adapter.gguf", file);
        snprintf(file, sizeof file, "%s/adapter_model.safetensors", out);
        desk_same_bytes("a0/adapter_model.safetensors", file);
    }
}

static void test_train_seed_changes_the_adapter(void **state)
{
    (void)state;
    train(PLAIN "--steps 5 --seed 1", "a");
    train(PLAIN "--steps 5 --seed 2", "b");
    desk_other_bytes("a/adapter.gguf", "b/adapter.gguf");
}

/* Kills runs of `options` into `out` after a random time each, until one ends by itself; returns
 * how many were killed. Prints the seed, so that a failure can be repeated. */
static int kill_until_done(const char *options, const char *out, int longest_ms)
{
    static unsigned seed;
    if (!seed) {
        seed = (unsigned)time(NULL);
        print_message("moments of the kills: srand(%u)\n", seed);
        srand(seed);
    }
    char command[1024];
    snprintf(command, sizeof command, "%s --out %s", options, out);
    for (int kills = 0; kills < 8; kills++)
        if (!desk_kill_at(command, 1 + rand() % longest_ms)) return kills;
    desk_run(command);
    return 8;
}

static void test_train_killed_at_any_moment_ends_with_the_same_bits(void **state)
{
    (void)state;
    static const char run[] = PLAIN "--steps 100 --save-every 10 " FULL;
    train(run, "whole");
    int kills = 0;
    for (int i = 0; i < 4; i++) {
        char out[16], file[64];
        snprintf(out, sizeof out, "cut%d", i);
        kills += kill_until_done(run, out, 150);
        snprintf(file, sizeof file, "%s/adapter.gguf", out);
        desk_same_bytes("whole/adapter.gguf", file);
        snprintf(file, sizeof file, "%s/unfinished", out);
        assert_false(program_has(&desk, file));
    }
    assert_true(kills > 0);
}

/* The noise is the attempt's: its key outlives the kill, so a run from the start with that key is
 * what the uninterrupted one would have been. */
static void test_train_private_killed_at_any_moment_ends_with_the_same_bits(void **state)
{
    (void)state;
    static const char run[] = PRIVATE "--steps 80 --save-every 10 --eval-unprotected " FULL;
    char command[1024];
    snprintf(command, sizeof command, "%s --json --out cut", run);
    assert_true(desk_kill_after(command, 25));
    assert_true(program_has(&desk, "cut/unfinished/key"));
    assert_true(program_has(&desk, "cut/unfinished/state"));
    snprintf(command, sizeof command, "cp -r '%s/cut' '%s/whole' && rm '%s/whole/unfinished/state'",
             desk.dir.path, desk.dir.path, desk.dir.path);
    assert_int_equal(system(command), 0);
    kill_until_done(run, "cut", 200);
    train(run, "whole");
    desk_same_bytes("whole/adapter.gguf", "cut/adapter.gguf");
    desk_run("privacy status --json");
    json_t *status = program_json(&desk);
    const json_t *source = json_array_get(json_object_get(status, "sources"), 0);
    assert_true(json_figure(source, "spent") == 1);
    json_decref(status);
}

/* What a kill leaves between the last byte of the adapter and the removal of the folder. */
static void test_train_cut_off_after_its_end_has_ended(void **state)
{
    (void)state;
    static const struct {
        const char *run, *left;
    } cases[] = {
        {PLAIN "--steps 5 --out plain", "mkdir plain/unfinished && touch plain/unfinished/lock"},
        {PRIVATE "--steps 5 --out private",
         "mkdir private/unfinished && touch private/unfinished/state && "
         "head -c 152 /dev/zero > private/unfinished/key"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char left[512];
        desk_run(cases[i].run);
        snprintf(left, sizeof left, "cd '%s' && %s", desk.dir.path, cases[i].left);
        assert_int_equal(system(left), 0);
        desk_run(cases[i].run);
        assert_non_null(strstr(desk.out, "adapter.gguf"));
        assert_false(program_has(&desk, i ? "private/unfinished" : "plain/unfinished"));
    }
}

static void test_train_save_every_saves_by_steps(void **state)
{
    (void)state;
    assert_true(desk_kill_after(PLAIN "--steps 900 --save-every 3 --json --out a", 8));
    assert_true(program_has(&desk, "a/unfinished/state"));
    desk_run(PLAIN "--steps 900 --save-every 300 --json --out a");
    json_t *first = json_line(desk.out, 0);
    double step = json_figure(first, "step");
    assert_true(step > 6 && (int)step % 3 == 1);
    json_decref(first);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define ROW(name) cmocka_unit_test_setup_teardown(name, desk_set_up, desk_tear_down)
        ROW(test_train_threads_do_not_change_a_bit),
        ROW(test_train_seed_changes_the_adapter),
        ROW(test_train_killed_at_any_moment_ends_with_the_same_bits),
        ROW(test_train_private_killed_at_any_moment_ends_with_the_same_bits),
        ROW(test_train_cut_off_after_its_end_has_ended),
        ROW(test_train_save_every_saves_by_steps),
#undef ROW
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
