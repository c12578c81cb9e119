/* The unit of privacy, from the records to every place that states a figure. */
#include "integration/train_desk.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SUBJECTS                                                                                   \
    "train --model model.gguf --data people.jsonl --rank 4 --batch 8 --threads 1 "                 \
    "--source people --records 1000 --epsilon 8 --noise 1.5 --steps 4 "

static void write_people(const char *name, int first_without)
{
    char text[8192] = "";
    size_t n = 0;
    for (int i = 0; i < 40; i++) {
        char subject[32] = "";
        if (i < first_without) snprintf(subject, sizeof subject, "\"subject\":%d,", i % 10);
        n += (size_t)snprintf(text + n, sizeof text - n,
                              "{%s\"prompt\":\"say %d\",\"response\":\"apple\"}\n", subject, i);
    }
    program_put(&desk, name, text);
}

static int set_up(void **state)
{
    if (desk_set_up(state)) return 1;
    write_people("people.jsonl", 40);
    write_people("some.jsonl", 36);
    return 0;
}

static const char *text_at(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    if (!text) fail_msg("there is no text '%s'", key);
    return text;
}

static void test_train_asks_which_unit_is_meant(void **state)
{
    (void)state;
    assert_int_equal(program_run(&desk, SUBJECTS "--out a"), 2);
    program_says(&desk, "40 records of people.jsonl have a \"subject\": say --unit subject");
    assert_false(program_has(&desk, "ledger"));
    assert_int_equal(program_run(&desk, SUBJECTS "--unit person --out a"), 2);
    program_says(&desk, "--unit must be record or subject, not 'person'");
    assert_int_equal(program_run(&desk, SUBJECTS "--per-subject 3 --out a"), 2);
    program_says(&desk, "is for --unit subject");
}

static void test_train_names_the_unit_everywhere(void **state)
{
    (void)state;
    desk_run(SUBJECTS "--unit subject --per-subject 2 --dry-run --json --out b");
    json_t *plan = program_json(&desk);
    assert_string_equal(text_at(json_object_get(plan, "privacy"), "unit"), "subject");
    json_decref(plan);
    desk_run(SUBJECTS "--unit subject --per-subject 2 --out b");
    program_says(&desk, "for one subject more or less, in 4 steps of 8 of 1000 subjects");
    program_says(&desk, "spent, per subject");
    size_t n = 0;
    char *ledger = desk_file("ledger", &n);
    assert_non_null(strstr(ledger, "\"unit\":\"subject\""));
    free(ledger);
    desk_run("privacy status --json");
    json_t *status = program_json(&desk);
    assert_string_equal(text_at(json_array_get(json_object_get(status, "sources"), 0), "unit"),
                        "subject");
    assert_string_equal(text_at(json_array_get(json_object_get(status, "plans"), 0), "unit"),
                        "subject");
    json_decref(status);
    desk_run("privacy status");
    program_prints(&desk, "for one subject more or less, of 1000");
    desk_run(SUBJECTS "--unit subject --json --out b2");
    json_t *last = program_last_json(&desk);
    assert_string_equal(text_at(json_object_get(last, "summary"), "unit"), "subject");
    json_decref(last);
}

/* What one subject and one record have lost does not add up. */
static void test_a_source_has_one_unit(void **state)
{
    (void)state;
    desk_run(SUBJECTS "--unit subject --out c");
    assert_int_equal(program_run(&desk, SUBJECTS "--unit record --out c2"), 2);
    program_says(&desk, "earlier plans of 'people' protect one subject");
}

static void test_train_passes_over_records_of_nobody(void **state)
{
    (void)state;
    char command[512];
    snprintf(command, sizeof command, "%s", SUBJECTS "--unit subject --out d");
    char *data = strstr(command, "people.jsonl");
    memcpy(data, "some.jsonl  ", 12);
    desk_run(command);
    program_says(&desk, "4 give nothing to learn");
}

static void test_data_check_counts_subjects(void **state)
{
    (void)state;
    desk_run("data check --data people.jsonl --model model.gguf");
    program_prints(&desk, "40 records name one; --unit subject checks and counts them");
    desk_run("data check --data people.jsonl --model model.gguf --unit subject --json");
    json_t *report = program_json(&desk);
    assert_true(json_figure(report, "subjects") == 10);
    assert_true(json_figure(report, "most_of_a_subject") == 4);
    json_decref(report);
    assert_int_equal(
        program_run(&desk, "data check --data some.jsonl --model model.gguf --unit subject"), 1);
    program_says(&desk, "some.jsonl, line 37: the record has no \"subject\"");
}

static void test_plan_names_the_unit(void **state)
{
    (void)state;
    desk_run("privacy plan --sample-rate 0.01 --noise 1.1 --steps 10 --unit subject");
    program_prints(&desk, "for adding or removing one subject");
    desk_run("privacy plan --sample-rate 0.01 --noise 1.1 --steps 10 --json");
    json_t *plan = program_json(&desk);
    assert_string_equal(text_at(plan, "unit"), "record");
    json_decref(plan);
    assert_int_equal(
        program_run(&desk, "privacy plan --sample-rate 0.01 --noise 1 --steps 1 --unit row"), 2);
}

static void test_plan_of_sites_shares_the_noise(void **state)
{
    (void)state;
    /* One round at noise 1 is rho 1/2, whose epsilon at 1e-5 is 4.72838698 (dp.accountant_zcdp). */
    desk_run("privacy plan --unit site --honest 4 --noise 1 --steps 1 --params 230400 --json");
    json_t *plan = program_json(&desk);
    assert_string_equal(text_at(plan, "unit"), "site");
    assert_string_equal(text_at(plan, "accountant"), "zcdp");
    assert_string_equal(text_at(plan, "neighbours"), "zero-out");
    assert_true(json_figure(plan, "honest") == 4 && json_figure(plan, "share_noise") == 0.5);
    assert_true(fabs(json_figure(plan, "epsilon") - 4.72838698) < 1e-6);
    assert_true(json_figure(plan, "epsilon_rdp") >= json_figure(plan, "epsilon"));
    json_decref(plan);
    desk_run("privacy plan --unit site --honest 4 --epsilon 8 --steps 20 --params 92160");
    program_prints(&desk, "one site's whole update or none");
    program_prints(&desk, "4 or more honest sites");
    program_prints(&desk, "this cannot learn; take more sites");
    desk_run("privacy plan --unit site --honest 20 --noise 3 --epsilon 4 --html sites.html");
    static const struct {
        const char *options, *words;
    } wrong[] = {
        {"--unit site --noise 1 --steps 1", "give --honest 2 to 100"},
        {"--unit site --honest 1 --noise 1 --steps 1", "give --honest 2 to 100"},
        {"--unit site --honest 4 --sites 3 --noise 1 --steps 1", "--sites is below --honest"},
        {"--unit site --honest 4 --sample-rate 0.1 --noise 1 --steps 1", "neither --sample-rate"},
        {"--honest 4 --sample-rate 0.1 --noise 1 --steps 1", "--honest goes with --unit site"},
        {"--unit site --honest 4 --noise 0.00001 --steps 1", "too little for shares"},
        {"--unit site --honest 4 --noise 60000 --steps 1", "too much for shares"},
        {"--unit site --honest 4 --noise 1 --steps 1 --delta 0.01", "take 0.001 or less"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char arguments[256];
        snprintf(arguments, sizeof arguments, "privacy plan %s", wrong[i].options);
        assert_int_equal(program_run(&desk, arguments), 2);
        program_says(&desk, wrong[i].words);
    }
    /* What is trained at one place has no other sites to share with. */
    assert_int_equal(program_run(&desk, PRIVATE "--unit site --steps 2 --out a"), 2);
    program_says(&desk, "--unit must be record or subject");
}

/* A text that is cut into pieces has no units: a person may be in many. */
static void test_private_training_on_a_plain_text_is_refused(void **state)
{
    (void)state;
    program_put(&desk, "book.txt", "It was the best of times, it was the worst of times.\n");
    assert_int_equal(
        program_run(&desk, "train --model model.gguf --data book.txt --max-length 16 --source b "
                           "--records 1000 --epsilon 8 --steps 2 --out e"),
        2);
    program_says(&desk, "privacy protects single records");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_train_asks_which_unit_is_meant, set_up,
                                        desk_tear_down),
        cmocka_unit_test_setup_teardown(test_train_names_the_unit_everywhere, set_up,
                                        desk_tear_down),
        cmocka_unit_test_setup_teardown(test_a_source_has_one_unit, set_up, desk_tear_down),
        cmocka_unit_test_setup_teardown(test_train_passes_over_records_of_nobody, set_up,
                                        desk_tear_down),
        cmocka_unit_test_setup_teardown(test_data_check_counts_subjects, set_up, desk_tear_down),
        cmocka_unit_test_setup_teardown(test_plan_names_the_unit, set_up, desk_tear_down),
        cmocka_unit_test_setup_teardown(test_plan_of_sites_shares_the_noise, set_up,
                                        desk_tear_down),
        cmocka_unit_test_setup_teardown(test_private_training_on_a_plain_text_is_refused, set_up,
                                        desk_tear_down),
    };
    return cmocka_run_group_tests_name("cli.subjects", tests, NULL, NULL);
}
