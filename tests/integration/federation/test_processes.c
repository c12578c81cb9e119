/* The federation as people run it: one coordinator and its sites, each a process of its own on
 * loopback, training a tiny model under differential privacy. The sites recompute each adapter from
 * the sum; what is killed here must not keep the others from finishing. */
#include "real_sites.h"

#include "common/clock.h"
#include "common/file.h"
#include "support/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

/* LONG: local steps that are not over before somebody is killed in their midst. */
enum { LONG = 300 };

static real_sites r;

static int teardown(void **state)
{
    (void)state;
    real_sites_end(&r);
    return 0;
}

static void wait_for_training(void)
{
    for (uint32_t i = 0; i < 600 && !village_saw(&r.v, "round_state", "state", "training"); i++)
        dure_clock_sleep_ms(50);
    if (!village_saw(&r.v, "round_state", "state", "training")) real_sites_fail(&r, "no training");
}

static void all_must_end_well(void)
{
    const int status = village_wait(&r.v);
    if (status) real_sites_fail(&r, "the coordinator failed");
    for (uint32_t i = 0; i < r.v.n; i++)
        if (r.clients[i] > 0 && real_site_wait(&r, i)) real_sites_fail(&r, "a site failed");
}

static void audit(void)
{
    assert_int_equal(village_run(&r.v, "audit export fed/coordinator -o ledger.export"), 0);
    if (village_run(&r.v, "audit verify ledger.export")) fail_msg("%s", r.v.output);
}

static void test_three_sites_train_two_rounds(void **state)
{
    (void)state;
    village_make_training(&r.v, 3, 0, 2, 3);
    village_start(&r.v);
    real_sites_join(&r);
    for (uint32_t i = 0; i < r.v.n; i++)
        real_site_start(&r, i);
    real_sites_wait_for(&r, "round_done", 2, 60);
    all_must_end_well();
    audit();
    assert_int_equal(village_run(&r.v, "adapter list fed/coordinator --json"), 0);
    village_says(&r.v, "\"version\":2");
}

static void test_seven_sites_lose_two_while_they_train(void **state)
{
    (void)state;
    village_make_training(&r.v, 7, 0, 1, LONG);
    village_start(&r.v);
    real_sites_join(&r);
    for (uint32_t i = 0; i < r.v.n; i++)
        real_site_start(&r, i);
    wait_for_training();
    real_site_kill(&r, 2);
    dure_clock_sleep_ms(100);
    real_site_kill(&r, 5);
    real_sites_wait_for(&r, "round_done", 1, 120);
    assert_true(village_saw(&r.v, "round_done", "sites", "5"));
    all_must_end_well();
    audit();
}

static void test_a_killed_coordinator_is_waited_for(void **state)
{
    (void)state;
    village_make_training(&r.v, 3, 0, 1, LONG);
    village_start(&r.v);
    real_sites_join(&r);
    for (uint32_t i = 0; i < r.v.n; i++)
        real_site_start(&r, i);
    wait_for_training();
    village_kill(&r.v);
    dure_clock_sleep_ms(500);
    village_start(&r.v);
    real_sites_wait_for(&r, "round_done", 1, 120);
    assert_int_equal(village_count(&r.v, "round_open"), 1);
    all_must_end_well();
    audit();
}

static void test_a_restarted_site_is_in_the_next_round(void **state)
{
    (void)state;
    village_make_training(&r.v, 5, 0, 2, LONG);
    village_start(&r.v);
    real_sites_join(&r);
    for (uint32_t i = 0; i < r.v.n; i++)
        real_site_start(&r, i);
    wait_for_training();
    real_site_kill(&r, 3);
    real_site_start(&r, 3);
    real_sites_wait_for(&r, "round_done", 2, 120);
    assert_true(village_saw(&r.v, "round_done", "sites", "4"));
    assert_true(village_saw(&r.v, "round_done", "sites", "5"));
    village_kill(&r.v);
    audit();
}

static void stop_clients(void)
{
    for (uint32_t i = 0; i < r.v.n; i++)
        real_site_kill(&r, i);
}

static void in_folder(const char *command)
{
    char line[600];
    snprintf(line, sizeof line, "cd '%s' && %s", r.v.dir.path, command);
    assert_int_equal(system(line), 0);
}

/* With the ledger's mark, nothing tells the site that it is an older copy; the coordinator has seen
 * a longer ledger. */
static void test_folder_and_ledger_put_back_together_are_noticed(void **state)
{
    (void)state;
    village_make_training(&r.v, 3, 0, 4, 3);
    village_start(&r.v);
    real_sites_join(&r);
    in_folder("mkdir copy && cp -r place0 ledger0 ledger0.head copy");
    for (uint32_t i = 0; i < r.v.n; i++)
        real_site_start(&r, i);
    real_sites_wait_for(&r, "round_done", 2,
                        60); /* the second R0 shows what the first round spent */
    stop_clients();
    in_folder("rm -rf place0 ledger0 ledger0.head && mv copy/* .");
    assert_int_equal(village_run(&r.v, "client run place0 --threads 1"), 1);
    village_says(&r.v, "an older copy was put back");
}

/* As after a disk was lost: yesterday's copy is put back, and the sites have what came since. */
static void test_a_coordinator_put_back_gets_from_the_sites_what_it_lost(void **state)
{
    (void)state;
    village_make_training(&r.v, 3, 0, 8, 12);
    village_start(&r.v);
    real_sites_join(&r);
    for (uint32_t i = 0; i < r.v.n; i++)
        real_site_start(&r, i);
    real_sites_wait_for(&r, "round_done", 1, 60);
    village_kill(&r.v);
    in_folder("cp -r fed/coordinator yesterday");
    village_start(&r.v);
    real_sites_wait_for(&r, "round_done", 3, 60);
    real_sites_wait_for(&r, "checkpoint_counts", village_count(&r.v, "checkpoint_counts") + 1, 60);
    village_kill(&r.v); /* the sites have what came of a round, and are in another one */
    in_folder("rm -rf fed/coordinator && mv yesterday fed/coordinator");
    village_start(&r.v);
    real_sites_wait_for(&r, "folder_is_old", 1, 60);
    real_sites_wait_for(&r, "recovered", 1, 60);
    real_sites_wait_for(&r, "round_done", 4, 90);
    village_kill(&r.v);
    for (uint32_t i = 0; i < r.v.n; i++)
        assert_int_equal(waitpid(r.clients[i], NULL, WNOHANG), 0); /* no site was put off by it */
    stop_clients();
    audit();
    assert_int_equal(village_run(&r.v, "status fed --json"), 0);
    json_t *status = json_loads(r.v.output, 0, NULL);
    assert_int_equal(json_integer_value(json_object_get(status, "rounds_done")), 4);
    json_decref(status);
}

/* As after the disk of a site was lost: its folder is that of the day it joined, its ledger is
 * newest. The coordinator has not been restarted and knows what it had seen. */
static void test_a_site_put_back_to_the_day_it_joined_goes_on(void **state)
{
    (void)state;
    village_make_training(&r.v, 3, 0, 8, 12);
    village_start(&r.v);
    real_sites_join(&r);
    in_folder("cp -r place0 joined");
    for (uint32_t i = 0; i < r.v.n; i++)
        real_site_start(&r, i);
    real_sites_wait_for(&r, "round_done", 2, 60);
    real_site_kill(&r, 0);
    in_folder("rm -rf place0 && mv joined place0");
    real_site_start(&r, 0);
    real_sites_wait_for(&r, "round_done", 4, 90);
    village_kill(&r.v);
    stop_clients();
    audit();
}

/* Four records each of ten people. */
static void write_people(uint32_t i)
{
    char name[32];
    dure_buf text;
    dure_buf_init(&text, 1 << 20);
    for (int k = 0; k < 40; k++)
        dure_put_format(&text, "{\"subject\":%d,\"prompt\":\"say %d\",\"response\":\"apple\"}\n",
                        k % 10, k);
    snprintf(name, sizeof name, "site%u.jsonl", i);
    assert_ok(
        dure_file_write_atomic(temp_dir_file(&r.v.dir, name), dure_buf_span(&text), 0644, NULL));
    dure_buf_fini(&text);
}

static void join_with_people(uint32_t i, const char *more)
{
    write_people(i);
    if (village_run(&r.v,
                    "join site%u.invitation place%u --data site%u.jsonl --source records%u "
                    "--records 10 --model base.gguf --epsilon 50 --delta 0.001 --ledger ledger%u "
                    "%s",
                    i, i, i, i, i, more))
        fail_msg("%s", r.v.output);
}

/* Whatever says an epsilon says what it is for one of. */
static void check_names_the_subject(void)
{
    assert_int_equal(village_run(&r.v, "client check place0"), 0);
    village_says(&r.v, "for one subject more or less");
    village_says(&r.v, "3 steps of 4 subjects on average");
    assert_int_equal(village_run(&r.v, "client check place0 --json"), 0);
    village_says(&r.v, "\"unit\":\"subject\"");
}

static void test_three_sites_protect_their_subjects(void **state)
{
    (void)state;
    village_make_of_subjects(&r.v, 3, 1, 3);
    village_start(&r.v);
    for (uint32_t i = 0; i < r.v.n; i++) {
        join_with_people(i, "--per-subject 2");
        village_says(&r.v, "3 steps of 4 subjects on average");
        village_says(&r.v, "for one subject more or less");
        if (i == 0) check_names_the_subject();
        real_site_start(&r, i);
    }
    real_sites_wait_for(&r, "round_done", 1, 60);
    all_must_end_well();
    audit();
    village_says(&r.v, "FOR ONE");
    village_says(&r.v, "  subject  ");
    in_folder("grep -q '\"event\":\"round_done\".*\"unit\":\"subject\"' client0.jsonl");
    assert_int_equal(village_run(&r.v, "status fed"), 0);
    village_says(&r.v, "each epsilon is for one subject more or less, at delta 1/(10 subjects)");
    assert_int_equal(village_run(&r.v, "status fed --json"), 0);
    village_says(&r.v, "\"unit\":\"subject\"");
    assert_int_equal(village_run(&r.v, "audit report ledger.export -o r.html --json r.json"), 0);
    in_folder("grep -q 'subject-level' r.json && grep -q '\"unit\": *\"subject\"' r.json && "
              "grep -q 'One subject, with all its records at a site' r.html && "
              "! grep -q 'record-level' r.html");
    in_folder("grep -q '\"unit\":\"subject\"' ledger0");
}

/* Records that name subjects, in a federation that protects single records. */
static void test_a_site_says_that_single_records_will_do(void **state)
{
    (void)state;
    village_make_training(&r.v, 3, 0, 1, 3);
    village_start(&r.v);
    write_people(0);
    assert_int_equal(village_run(&r.v,
                                 "join site0.invitation place0 --data site0.jsonl --source "
                                 "records0 --records 10 --model base.gguf --epsilon 50 --delta "
                                 "0.001 --ledger ledger0"),
                     1);
    village_says(&r.v, "have a \"subject\", and this federation protects single records");
    in_folder("test ! -e place0 && test ! -e ledger0");
    join_with_people(1, "--ignore-subjects");
    assert_int_equal(village_run(&r.v, "client check place1"), 0);
}

/* A limit that cannot be kept is refused before anything is sent, with one that can. */
static void test_a_site_stays_within_its_memory(void **state)
{
    (void)state;
    village_make_training(&r.v, 3, 0, 1, 1);
    village_start(&r.v);
    real_sites_join(&r);
    assert_int_equal(village_run(&r.v, "client check place0 --memory 1"), 1);
    village_says(&r.v, "may take 1 MB; allow more, or cut records shorter");
    assert_int_equal(village_run(&r.v, "client run place0 --memory 1"), 1);
    const char *least = strstr(r.v.output, "needs at least ");
    assert_non_null(least);
    unsigned long megabytes = strtoul(least + strlen("needs at least "), NULL, 10);
    assert_int_equal(village_run(&r.v, "client check place0 --memory %lu", megabytes + 1), 0);
    village_says(&r.v, " MB expected; weights ");
    assert_int_equal(village_run(&r.v, "client check place0 --memory 100MB"), 2);
}

static void join_refused(const char *more, const char *says)
{
    assert_int_equal(village_run(&r.v,
                                 "join site0.invitation place0 --data site0.jsonl --source "
                                 "records0 --records 10 --model base.gguf --epsilon 50 --delta "
                                 "0.001 --ledger ledger0 --ignore-subjects %s",
                                 more),
                     strstr(says, "in MB") ? 2 : 1);
    village_says(&r.v, says);
}

/* The limit that a site joins with holds from then on, unless another is given. */
static void test_a_site_joins_with_its_memory(void **state)
{
    (void)state;
    char more[64];
    village_make_training(&r.v, 3, 0, 1, 1);
    village_start(&r.v);
    write_people(0);
    join_refused("--memory 1", "may take 1 MB; allow more, or cut records shorter");
    const char *least = strstr(r.v.output, "needs at least ");
    assert_non_null(least);
    unsigned long megabytes = strtoul(least + strlen("needs at least "), NULL, 10);
    in_folder("test ! -e place0 && test ! -e ledger0");
    join_refused("--memory 99999999999", "--memory is in MB");
    snprintf(more, sizeof more, "--ignore-subjects --memory %lu", megabytes + 1);
    join_with_people(0, more);
    in_folder("grep -q '^memory_mb: [1-9]' place0/site.yaml");
    assert_int_equal(village_run(&r.v, "client check place0"), 0);
    in_folder("sed -i 's/^memory_mb: [0-9]*/memory_mb: 1/' place0/site.yaml");
    assert_int_equal(village_run(&r.v, "client check place0"), 1);
    village_says(&r.v, "may take 1 MB");
    assert_int_equal(village_run(&r.v, "client check place0 --memory %lu", megabytes + 1), 0);
}

static void test_one_folder_is_one_site(void **state)
{
    (void)state;
    village_make_training(&r.v, 3, 0, 1, 3);
    village_start(&r.v);
    real_sites_join(&r);
    real_site_start(&r, 0);
    dure_clock_sleep_ms(500);
    assert_int_equal(village_run(&r.v, "client run place0"), 1);
    village_says(&r.v, "place0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_three_sites_train_two_rounds, teardown),
        cmocka_unit_test_teardown(test_seven_sites_lose_two_while_they_train, teardown),
        cmocka_unit_test_teardown(test_a_killed_coordinator_is_waited_for, teardown),
        cmocka_unit_test_teardown(test_a_restarted_site_is_in_the_next_round, teardown),
        cmocka_unit_test_teardown(test_folder_and_ledger_put_back_together_are_noticed, teardown),
        cmocka_unit_test_teardown(test_a_coordinator_put_back_gets_from_the_sites_what_it_lost,
                                  teardown),
        cmocka_unit_test_teardown(test_a_site_put_back_to_the_day_it_joined_goes_on, teardown),
        cmocka_unit_test_teardown(test_three_sites_protect_their_subjects, teardown),
        cmocka_unit_test_teardown(test_a_site_says_that_single_records_will_do, teardown),
        cmocka_unit_test_teardown(test_a_site_stays_within_its_memory, teardown),
        cmocka_unit_test_teardown(test_a_site_joins_with_its_memory, teardown),
        cmocka_unit_test_teardown(test_one_folder_is_one_site, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
