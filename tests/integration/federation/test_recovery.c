/* A coordinator whose folder was put back to an older copy, among scripted sites of which some lie
 * about what it lost; and a federation whose coordinator has signed two histories. */
#include "village.h"

#include "common/clock.h"
#include "support/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static village v;

static int teardown(void **state)
{
    (void)state;
    village_end(&v);
    return 0;
}

static void explain(const char *what)
{
    for (uint32_t i = 0; i < v.n; i++)
        print_message("%s: results %u \"%s\"\n", v.sites[i].name, v.sites[i].n_results,
                      v.sites[i].words);
    char command[600];
    snprintf(command, sizeof command, "tail -q -n 40 %s/events.jsonl %s/coordinator.log",
             v.dir.path, v.dir.path);
    if (system(command)) print_message("no log\n");
    fail_msg("%s", what);
}

static void in_folder(const char *command)
{
    char line[600];
    snprintf(line, sizeof line, "cd '%s' && %s", v.dir.path, command);
    assert_int_equal(system(line), 0);
}

static void must_run(const char *arguments)
{
    if (village_run(&v, "%s", arguments)) fail_msg("%s", v.output);
}

/* Lets the sites take turns until the event was reported n times in all. */
static void wait_for(const char *event, size_t n)
{
    for (uint32_t i = 0; i < 600 && village_count(&v, event) < n; i++)
        village_go(&v, NULL, 100);
    if (village_count(&v, event) < n) explain(event);
}

static void set_hold(bool hold)
{
    for (uint32_t i = 0; i < v.n; i++)
        v.sites[i].hold = hold;
}

static bool blobs_are_here(village *w)
{
    for (uint32_t i = 0; i < w->n; i++)
        if (w->sites[i].dealer && w->sites[i].blob.n < w->sites[i].blob_total) return false;
    return true;
}

/* Until `n` rounds are done in all; the next one does not end. */
static void do_rounds(size_t n)
{
    set_hold(false);
    wait_for("round_done", n);
    set_hold(true);
    village_go(&v, NULL, 500); /* the cosignatures arrive */
}

/* Whoever is there fetches the adapter of its last result. */
static void fetch_adapters(void)
{
    for (uint32_t i = 0; i < v.n; i++)
        if (v.sites[i].dealer)
            script_site_fetch_blob(&v.sites[i], v.sites[i].result.adapter_digest);
    if (!village_go(&v, blobs_are_here, 30000)) explain("an adapter did not arrive");
}

static void disconnect_all(void)
{
    for (uint32_t i = 0; i < v.n; i++)
        script_site_die(&v.sites[i]);
}

static void put_back(const char *copy)
{
    char command[128];
    village_kill(&v);
    snprintf(command, sizeof command, "rm -rf fed/coordinator && cp -r %s fed/coordinator", copy);
    in_folder(command);
}

static void audit(void)
{
    must_run("audit export fed/coordinator -o ledger.export");
    must_run("audit verify ledger.export");
}

/* Five sites, two rounds since the copy; then four of them lie, one after the other. */
static void test_sites_that_lie_about_what_was_lost_are_passed_over(void **state)
{
    (void)state;
    static const script_lie lies[] = {SCRIPT_ALTERS_LOG, SCRIPT_HIDES_ROSTER, SCRIPT_SENDS_JUNK,
                                      SCRIPT_SENDS_SCRAPS};
    village_make(&v, 5, 0, 6);
    village_start(&v);
    village_join(&v);
    do_rounds(1);
    village_kill(&v);
    in_folder("cp -r fed/coordinator yesterday");
    village_start(&v);
    do_rounds(3);
    fetch_adapters();
    disconnect_all();
    put_back("yesterday");
    village_start(&v);
    for (uint32_t i = 0; i < 4; i++) {
        v.sites[i].lie = lies[i];
        script_site_connect(&v.sites[i], false);
        wait_for("recovery_refused", i + 1);
        assert_true(village_saw(&v, "recovery_refused", "site", v.sites[i].name));
    }
    assert_int_equal(village_count(&v, "folder_is_old"), 1);
    assert_int_equal(village_count(&v, "log_recovered"), 0);
    for (uint32_t i = 0; i < 4; i++)
        v.sites[i].lie = SCRIPT_ALTERS_FILE;
    script_site_connect(&v.sites[4], false);
    wait_for("recovered", 1);
    do_rounds(4);
    village_kill(&v);
    audit();
}

/* The keys and nothing else is left: nobody is known, not even who is a member. */
static void test_a_copy_of_the_first_day_is_enough(void **state)
{
    (void)state;
    village_make(&v, 3, 0, 5);
    in_folder("cp -r fed/coordinator first-day");
    village_start(&v);
    village_join(&v);
    do_rounds(2);
    fetch_adapters();
    put_back("first-day");
    village_start(&v);
    wait_for("recovered", 1);
    assert_true(village_saw(&v, "roster_recovered", "entries", "3"));
    assert_true(village_saw(&v, "recovered", "rounds_done", "2"));
    do_rounds(3);
    village_kill(&v);
    audit();
    must_run("adapter list fed/coordinator --json");
}

/* Killed at each step of it, the recovery is taken up. */
static void test_a_recovery_that_is_killed_is_taken_up(void **state)
{
    (void)state;
    static const char *const steps[] = {"folder_is_old", "log_recovered", "recovered"};
    village_make(&v, 3, 0, 7);
    village_start(&v);
    village_join(&v);
    do_rounds(1);
    village_kill(&v);
    in_folder("cp -r fed/coordinator yesterday");
    village_start(&v);
    do_rounds(3);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        const size_t seen = village_count(&v, steps[i]);
        fetch_adapters();
        put_back("yesterday"); /* a step ends before or after its event is read here */
        village_start(&v);
        wait_for(steps[i], seen + 1);
        village_kill(&v);
        village_start(&v);
        do_rounds(4 + i);
    }
    village_kill(&v);
    audit();
}

/* A claim is no proof: the others go on. */
static void test_a_site_that_claims_to_have_seen_more_stops_nobody(void **state)
{
    (void)state;
    village_make(&v, 4, 3, 3);
    v.sites[3].lie = SCRIPT_CLAIMS_MORE;
    village_start(&v);
    village_join(&v);
    do_rounds(2);
    assert_int_equal(village_count(&v, "folder_is_old"), 0);
    assert_true(village_saw(&v, "round_done", "of", "3"));
}

/* The entry of an invited site that never joined here. */
static void forge_entry(dure_roster *roster)
{
    dure_join *join = calloc(1, sizeof *join);
    assert_non_null(join);
    script_site_sign_join(&v.sites[4], join);
    assert_ok(dure_roster_add(roster, join, dure_clock_wall_s(), NULL));
    free(join);
}

/* The root signed the invitation, and still one site's word does not admit its holder; that of two
 * is that of an honest one. */
static void test_a_roster_that_no_log_names_needs_more_than_one_teller(void **state)
{
    (void)state;
    village_make(&v, 5, 3, 3);
    village_start(&v);
    for (uint32_t i = 0; i < 4; i++)
        script_site_connect(&v.sites[i], true);
    do_rounds(1);
    dure_roster *longer = NULL;
    assert_ok(dure_roster_new(&longer, v.sites[0].invitation.root_public));
    const size_t n = dure_roster_entries(v.sites[0].roster);
    assert_int_equal(n, 4);
    for (size_t i = 0; i < n; i++)
        assert_ok(dure_roster_append(longer, dure_roster_entry(v.sites[0].roster, i), NULL));
    forge_entry(longer);
    for (uint32_t i = 0; i < 2; i++) {
        script_site_die(&v.sites[i]);
        v.sites[i].lie = SCRIPT_LENGTHENS_ROSTER;
        v.sites[i].forged = dure_roster_entry(longer, n);
    }
    script_site_connect(&v.sites[0], false);
    village_go(&v, NULL, 2000);
    script_site_die(&v.sites[0]);
    script_site_connect(&v.sites[0], false); /* twice the same one is one */
    village_go(&v, NULL, 2000);
    assert_int_equal(village_count(&v, "roster_recovered"), 0);
    script_site_connect(&v.sites[1], false);
    wait_for("roster_recovered", 1);
    dure_roster_free(&longer);
}

/* ---- two histories ---- */

static void keep_witnesses(const char *suffix)
{
    char command[128];
    snprintf(command, sizeof command, "for i in 0 1 2; do cp -r site$i site$i.%s; done", suffix);
    in_folder(command);
}

static void take_witness(uint32_t i, const char *suffix)
{
    char command[160];
    script_site_die(&v.sites[i]);
    snprintf(command, sizeof command, "rm -rf site%u && cp -r site%u.%s site%u", i, i, suffix, i);
    in_folder(command);
    script_site_reopen(&v.sites[i]);
}

static void connect_all(void)
{
    for (uint32_t i = 0; i < v.n; i++)
        if (!v.sites[i].dealer) script_site_connect(&v.sites[i], false);
}

/* Everything goes back to after the first round, sites and all, and another round is done; then one
 * site comes with what it saw the first time. Returns the entries that both histories share. */
static uint64_t make_two_histories(size_t first_ends_at)
{
    village_make(&v, 3, 0, 9);
    village_start(&v);
    village_join(&v);
    do_rounds(1);
    village_kill(&v);
    in_folder("cp -r fed/coordinator yesterday");
    keep_witnesses("old");
    const uint64_t shared = dure_witness_head(v.sites[0].witness).n;
    village_start(&v);
    do_rounds(first_ends_at);
    keep_witnesses("first");
    dure_buf note = v.sites[0].note, log = v.sites[0].log;
    const uint64_t log_n = v.sites[0].log_n;
    v.sites[0].note = v.sites[0].log = (dure_buf){0};
    v.sites[0].log_n = 0;
    put_back("yesterday");
    for (uint32_t i = 0; i < v.n; i++)
        take_witness(i, "old");
    village_start(&v);
    connect_all();
    do_rounds(first_ends_at + 1);
    village_kill(&v);
    take_witness(0, "first");
    dure_buf_fini(&v.sites[0].note);
    dure_buf_fini(&v.sites[0].log);
    v.sites[0].note = note;
    v.sites[0].log = log;
    v.sites[0].log_n = log_n;
    village_start(&v);
    connect_all();
    return shared;
}

static void begin_new_epoch(uint64_t keep, uint64_t lost)
{
    char arguments[160];
    snprintf(arguments, sizeof arguments,
             lost ? "epoch draft fed/coordinator --reason test --keep %llu --lost %llu"
                  : "epoch draft fed/coordinator --reason test --keep %llu",
             (unsigned long long)keep, (unsigned long long)lost);
    must_run(arguments);
    must_run("epoch sign fed/admin loss.json");
    must_run("epoch take fed/coordinator loss.epoch");
}

static bool all_took_the_epoch(village *w)
{
    for (uint32_t i = 0; i < w->n; i++)
        if (w->sites[i].n_epochs != 1) return false;
    return true;
}

/* The root settles it: all three follow what the log keeps, and rounds go on. */
static void settle(uint64_t keep, uint64_t lost)
{
    village_kill(&v);
    const size_t before = village_count(&v, "round_done");
    begin_new_epoch(keep, lost);
    village_start(&v);
    if (!village_go(&v, all_took_the_epoch, 30000)) explain("a site does not follow the root");
    do_rounds(before + 2);
    village_kill(&v);
    audit();
    village_says(&v, "1 new epoch");
    assert_int_equal(village_run(&v, "epoch take fed/coordinator loss.epoch"), 1);
    village_says(&v, "begun already");
}

/* The one with the longer history shows what this key has signed: nothing goes on beside it. */
static void test_two_histories_stop_the_coordinator_until_the_root_settles_it(void **state)
{
    (void)state;
    const uint64_t shared = make_two_histories(5);
    wait_for("recovery_refused", 1);
    assert_int_equal(village_count(&v, "folder_is_old"), 1);
    const size_t done = village_count(&v, "round_done");
    set_hold(false);
    village_go(&v, NULL, 4000);
    assert_int_equal(village_count(&v, "round_done"), done);
    must_run("status fed");
    village_says(&v, "older copy");
    settle(shared, dure_witness_head(v.sites[0].witness).n);
}

/* The one with the shorter history sees for itself that it was forked. */
static void test_a_site_with_another_history_is_named(void **state)
{
    (void)state;
    const uint64_t shared = make_two_histories(2);
    wait_for("site_has_another_log", 1);
    assert_true(village_saw(&v, "site_has_another_log", "site", "site0"));
    assert_int_equal(village_count(&v, "folder_is_old"), 0);
    settle(shared, 0);
}

/* The disk was lost after a result was sent and before any site had fetched what it names. */
static void test_an_adapter_that_nobody_has_is_gone_on_without(void **state)
{
    (void)state;
    village_make(&v, 3, 0, 9);
    village_start(&v);
    village_join(&v);
    do_rounds(1);
    village_kill(&v);
    in_folder("cp -r fed/coordinator yesterday");
    village_start(&v);
    do_rounds(2);
    fetch_adapters();
    do_rounds(3);
    put_back("yesterday");
    village_start(&v);
    wait_for("adapter_is_lost", 1);
    /* What the status says is written a moment after the event. */
    for (int i = 0; i < 200 && !strstr(v.output, "the adapter of round 3 is lost"); i++) {
        dure_clock_sleep_ms(50);
        must_run("status fed");
    }
    village_says(&v, "the adapter of round 3 is lost");
    const uint64_t index = v.sites[0].result.leaf_index;
    village_kill(&v);
    begin_new_epoch(index, 0);
    village_start(&v);
    wait_for("recovered", 1);
    assert_true(village_saw(&v, "recovered", "rounds_done", "2"));
    do_rounds(4);
    village_kill(&v);
    audit();
}

/* Only this federation's root can, and only about what is here. */
static void test_an_epoch_is_the_roots_alone(void **state)
{
    (void)state;
    village_make(&v, 3, 0, 2);
    must_run("init other --name other --model base.gguf --eval eval.jsonl --endpoint "
             "tcp://127.0.0.1:1 --min-sites 3");
    must_run("epoch draft fed/coordinator --reason test");
    assert_int_equal(village_run(&v, "epoch take fed/coordinator loss.json"), 2);
    village_says(&v, "not signed");
    assert_int_equal(village_run(&v, "epoch sign other/admin loss.json"), 1);
    village_says(&v, "another federation");
    must_run("epoch draft other/coordinator --reason test -o other.json");
    must_run("epoch sign other/admin other.json -o other.epoch");
    assert_int_equal(village_run(&v, "epoch take fed/coordinator other.epoch"), 1);
    village_says(&v, "not signed by this federation's root");
    must_run("epoch sign fed/admin loss.json");
    in_folder("sed -i 's/\"lost\": [0-9]*/\"lost\": 77/' loss.epoch");
    assert_int_equal(village_run(&v, "epoch take fed/coordinator loss.epoch"), 1);
    village_says(&v, "not signed by this federation's root");
    assert_int_equal(village_run(&v, "epoch draft fed/coordinator --reason test --keep 2"), 2);
    village_says(&v, "--keep can be 1 to 1");
    village_start(&v);
    wait_for("start", 1);
    assert_int_equal(village_run(&v, "epoch draft fed/coordinator --reason test"), 1);
    village_says(&v, "stop it first");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_sites_that_lie_about_what_was_lost_are_passed_over,
                                  teardown),
        cmocka_unit_test_teardown(test_a_copy_of_the_first_day_is_enough, teardown),
        cmocka_unit_test_teardown(test_a_recovery_that_is_killed_is_taken_up, teardown),
        cmocka_unit_test_teardown(test_a_site_that_claims_to_have_seen_more_stops_nobody, teardown),
        cmocka_unit_test_teardown(test_a_roster_that_no_log_names_needs_more_than_one_teller,
                                  teardown),
        cmocka_unit_test_teardown(test_two_histories_stop_the_coordinator_until_the_root_settles_it,
                                  teardown),
        cmocka_unit_test_teardown(test_a_site_with_another_history_is_named, teardown),
        cmocka_unit_test_teardown(test_an_adapter_that_nobody_has_is_gone_on_without, teardown),
        cmocka_unit_test_teardown(test_an_epoch_is_the_roots_alone, teardown),
    };
    return cmocka_run_group_tests_name("federation.recovery", tests, NULL, NULL);
}
