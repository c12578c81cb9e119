/* `dure train --clip-quantile`: the clip moves, its count is planned, charged and shown, and a run
 * that is killed ends with the same bits. */
#include "integration/train_desk.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ADAPTIVE PRIVATE "--clip 0.01 --clip-quantile 0.5 --clip-rate 1 --clip-noise 6 "

static double figure_of_plan(const char *key)
{
    desk_run("privacy status --json");
    json_t *status = program_json(&desk);
    double value = json_figure(json_array_get(json_object_get(status, "plans"), 0), key);
    json_decref(status);
    return value;
}

static void test_adaptive_clip_moves_and_is_charged(void **state)
{
    (void)state;
    char text[64];
    desk_run(ADAPTIVE "--steps 12 --json --out a");
    json_t *first = json_line(desk.out, 0), *last = json_line(desk.out, 11);
    assert_true(json_figure(first, "clip") == 0.01);
    assert_true(json_figure(last, "clip") > 0 && json_figure(last, "clip") != 0.01);
    double epsilon = json_figure(last, "epsilon");
    json_decref(first);
    json_decref(last);
    double noise = figure_of_plan("noise"), effective = figure_of_plan("noise_effective");
    assert_true(fabs(1 / sqrt(1 / (noise * noise) + 1 / 36.0) / effective - 1) < 1e-12);
    snprintf(text, sizeof text, "%.4g in effect", effective);
    desk_run("privacy status");
    program_prints(&desk,
                   "clip from 0.01 on after the 0.5 quantile of the norms, counted with noise "
                   "6 (");
    program_prints(&desk, text);
    /* The whole budget, by the sum and the count together. */
    assert_true(epsilon > 7.9 && epsilon <= 8);
}

static void test_adaptive_clip_is_planned_before(void **state)
{
    (void)state;
    desk_run(ADAPTIVE "--steps 12 --dry-run --out a");
    program_prints(&desk, "clip from 0.01 on after the 0.5 quantile of the norms");
    desk_run("privacy plan --batch 100 --records 10000 --noise 1 --steps 50 --json");
    json_t *fixed = program_json(&desk);
    desk_run("privacy plan --batch 100 --records 10000 --noise 1 --steps 50 --clip-noise 2 --json");
    json_t *adaptive = program_json(&desk);
    assert_true(json_figure(adaptive, "epsilon") > 1.1 * json_figure(fixed, "epsilon"));
    assert_true(fabs(json_figure(adaptive, "noise_effective") - 2 / sqrt(5)) < 1e-9);
    json_decref(fixed);
    json_decref(adaptive);
    desk_run("privacy plan --batch 100 --records 10000 --noise 1 --steps 50 --clip-noise 2");
    program_prints(&desk, "both together cost what noise 0.894427 with a fixed clip would");
}

static void test_adaptive_clip_killed_at_any_moment_ends_with_the_same_bits(void **state)
{
    (void)state;
    char command[512];
    static const char run[] = ADAPTIVE "--steps 60 --save-every 5 --json ";
    snprintf(command, sizeof command, "%s --out cut", run);
    assert_true(desk_kill_after(command, 17));
    assert_true(program_has(&desk, "cut/unfinished/state"));
    const char *dir = desk.dir.path;
    char copy[1024];
    snprintf(copy, sizeof copy, "cp -r '%s/cut' '%s/whole' && rm '%s/whole/unfinished/state'", dir,
             dir, dir);
    assert_int_equal(system(copy), 0);
    for (int i = 0; i < 3; i++)
        (void)desk_kill_at(command, 40 + 30 * i);
    desk_run(command);
    snprintf(command, sizeof command, "%s --out whole", run);
    desk_run(command);
    desk_same_bytes("whole/adapter.gguf", "cut/adapter.gguf");
    assert_true(figure_of_plan("steps") == 60);
}

static void test_adaptive_clip_is_another_plan(void **state)
{
    (void)state;
    assert_true(desk_kill_after(ADAPTIVE "--steps 900 --save-every 3 --json --out a", 8));
    assert_int_equal(program_run(&desk, PRIVATE "--clip 0.01 --steps 900 --out a"), 1);
    program_says(&desk, "belongs to an unfinished run");
}

static void test_adaptive_clip_refuses_what_cannot_be(void **state)
{
    (void)state;
    static const struct {
        const char *arguments, *says;
    } rows[] = {
        {PRIVATE "--clip-rate 0.2 --out a", "about --clip-quantile"},
        {PRIVATE "--clip-noise 5 --out a", "about --clip-quantile"},
        {PRIVATE "--clip-quantile 1 --out a", "must be above 0 and below 1"},
        {PRIVATE "--clip-quantile 0.5 --clip-rate 2 --out a", "at most 1, not 2"},
        {PRIVATE "--clip-quantile 0.5 --clip-noise 0 --out a", "must be above 0 and below 65536"},
        {PLAIN "--clip-quantile 0.5 --out a", "--no-dp"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(program_run(&desk, rows[i].arguments), 2);
        program_says(&desk, rows[i].says);
    }
    assert_false(program_has(&desk, "a"));
    assert_int_equal(
        program_run(&desk, PRIVATE "--clip-quantile 0.5 --clip-noise 0.001 --steps 500 --out a"),
        1);
    program_says(
        &desk,
        "noise 0.001007 on the count that the clip follows; give it more noise, or fix the clip");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define ROW(name) cmocka_unit_test_setup_teardown(name, desk_set_up, desk_tear_down)
        ROW(test_adaptive_clip_moves_and_is_charged),
        ROW(test_adaptive_clip_is_planned_before),
        ROW(test_adaptive_clip_killed_at_any_moment_ends_with_the_same_bits),
        ROW(test_adaptive_clip_is_another_plan),
        ROW(test_adaptive_clip_refuses_what_cannot_be),
#undef ROW
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
