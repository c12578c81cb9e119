/* The coordinator as a real process on loopback, its sites scripted: sums against the plain ones,
 * sites that die or lie, a coordinator that is killed. */
#include "village.h"

#include "common/clock.h"
#include "support/check.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static village v;

static int setup(void **state)
{
    (void)state;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    village_end(&v);
    return 0;
}

static bool has_one(village *w)
{
    return village_all_have(w, 1);
}

static bool has_two(village *w)
{
    return village_all_have(w, 2);
}

static void explain(const char *what)
{
    for (uint32_t i = 0; i < v.n; i++)
        print_message("%s: results %u aborts %u \"%s\"\n", v.sites[i].name, v.sites[i].n_results,
                      v.sites[i].n_aborts, v.sites[i].words);
    char command[600];
    snprintf(command, sizeof command, "tail -q -n 40 %s/events.jsonl %s/coordinator.log",
             v.dir.path, v.dir.path);
    if (system(command)) print_message("no log\n");
    fail_msg("%s", what);
}

static void go(village_condition *until, const char *what)
{
    if (!village_go(&v, until, 60000)) explain(what);
}

static void test_three_sites_sum_two_rounds(void **state)
{
    (void)state;
    dure_buf adapter;
    village_make(&v, 3, 0, 2);
    village_first_adapter(&v, &adapter);
    for (uint32_t i = 0; i < v.n; i++)
        v.sites[i].hold = false;
    village_start(&v);
    village_join(&v);
    go(has_one, "the first round did not end");
    for (uint32_t i = 0; i < v.n; i++)
        v.sites[i].hold = true;
    village_check_sum(&v, &adapter);
    for (uint32_t i = 0; i < v.n; i++)
        v.sites[i].hold = false;
    go(has_two, "the second round did not end");
    assert_int_equal(village_wait(&v), 0);
    assert_int_equal(village_count(&v, "round_done"), 2);
    assert_int_equal(village_run(&v, "audit export fed/coordinator -o ledger.export"), 0);
    const int status = village_run(&v, "audit verify ledger.export");
    if (status) fail_msg("%s", v.output);
    assert_int_equal(village_run(&v, "status fed"), 0);
    village_says(&v, "2 of 2 done");
    dure_buf_fini(&adapter);
}

static bool all_keep_their_updates(village *w)
{
    for (uint32_t i = 0; i < w->n; i++)
        if (!w->sites[i].mask_ready) return false;
    return true;
}

static bool never(village *w)
{
    (void)w;
    return false;
}

static json_int_t status_updated(void)
{
    json_t *status = json_load_file(temp_dir_file(&v.dir, "fed/coordinator/status.json"), 0, NULL);
    const json_int_t updated = json_integer_value(json_object_get(status, "updated"));
    json_decref(status);
    return updated;
}

/* Nothing happens, but sites move or fall silent. */
static void test_status_is_fresh_while_a_round_runs(void **state)
{
    (void)state;
    village_make(&v, 3, 0, 1);
    for (uint32_t i = 0; i < v.n; i++)
        v.sites[i].hold = true;
    village_start(&v);
    village_join(&v);
    go(all_keep_their_updates, "no round came to its updates");
    village_go(&v, never, 1500);
    const json_int_t before = status_updated();
    village_go(&v, never, 3000);
    assert_true(status_updated() > before);
    for (uint32_t i = 0; i < v.n; i++)
        v.sites[i].hold = false;
    go(has_one, "the round did not end");
}

static void test_a_site_that_dies_while_training_is_left_out(void **state)
{
    (void)state;
    dure_buf adapter;
    village_make(&v, 5, 0, 1);
    village_first_adapter(&v, &adapter);
    v.sites[2].vice = SCRIPT_DIES_TRAINING;
    village_start(&v);
    village_join(&v);
    go(has_one, "the round did not end without the dead site");
    village_check_sum(&v, &adapter);
    assert_true(village_saw(&v, "round_done", "sites", "4"));
    dure_buf_fini(&adapter);
}

static void test_seven_sites_lose_two_and_still_sum(void **state)
{
    (void)state;
    dure_buf adapter;
    village_make(&v, 7, 0, 1);
    village_first_adapter(&v, &adapter);
    v.sites[1].vice = SCRIPT_DIES_TRAINING;
    v.sites[4].vice = SCRIPT_DIES_UPLOADING;
    village_start(&v);
    village_join(&v);
    go(has_one, "the round did not end without the dead sites");
    village_check_sum(&v, &adapter);
    assert_true(village_saw(&v, "round_done", "sites", "5"));
    dure_buf_fini(&adapter);
}

static void test_a_vector_that_arrived_stays_in_the_sum(void **state)
{
    (void)state;
    village_make(&v, 5, 0, 1);
    v.sites[3].vice = SCRIPT_DIES_MASKED;
    village_start(&v);
    village_join(&v);
    go(has_one, "the round did not end");
    assert_true(village_saw(&v, "round_done", "sites", "5"));
}

static void leave_out(script_vice vice)
{
    dure_buf adapter;
    village_make(&v, 5, 0, 1);
    village_first_adapter(&v, &adapter);
    v.sites[0].vice = vice;
    village_start(&v);
    village_join(&v);
    for (uint32_t i = 0; i < 600 && village_count(&v, "round_done") == 0; i++)
        village_go(&v, NULL, 100);
    if (village_count(&v, "round_done") == 0) explain("the round did not end");
    assert_true(village_saw(&v, "site_dropped", "site", "site0"));
    assert_true(village_saw(&v, "round_done", "sites", "4"));
    assert_int_equal(v.sites[0].n_results, 0);
    script_site_die(&v.sites[0]);
    go(has_one, "the others have no result");
    village_check_sum(&v, &adapter);
    dure_buf_fini(&adapter);
}

static void test_a_chunk_of_the_wrong_length_drops_its_site(void **state)
{
    (void)state;
    leave_out(SCRIPT_SHORT_CHUNK);
}

static void test_a_chunk_nobody_asked_for_drops_its_site(void **state)
{
    (void)state;
    leave_out(SCRIPT_UNASKED_CHUNK);
}

static bool two_are_done(village *w)
{
    return village_count(w, "round_done") >= 2;
}

static void test_a_site_that_refuses_is_not_asked_again_at_once(void **state)
{
    (void)state;
    village_make(&v, 4, 3, 2);
    v.sites[3].vice = SCRIPT_REFUSES;
    village_start(&v);
    village_join(&v);
    go(two_are_done, "the rounds did not end without the site that refuses");
    assert_int_equal(village_count(&v, "site_refuses"), 1);
    assert_true(village_saw(&v, "round_done", "of", "4"));
    assert_true(village_saw(&v, "round_done", "of", "3"));
}

static bool is_done(village *w)
{
    return village_count(w, "round_done") > 0;
}

static bool five_were_in_one(village *w)
{
    return village_saw(w, "round_done", "of", "5") && w->sites[4].n_results > 0;
}

/* Three do the first rounds; the log of these counts for five only when newcomers cosign it, too,
 * and they follow a result that they took no part in. */
static void test_sites_that_join_later_follow_the_log(void **state)
{
    (void)state;
    village_make(&v, 5, 3, 4);
    village_start(&v);
    for (uint32_t i = 0; i < 3; i++)
        script_site_connect(&v.sites[i], true);
    go(is_done, "the first round did not end");
    script_site_connect(&v.sites[3], true);
    script_site_connect(&v.sites[4], true);
    go(five_were_in_one, "no round was done with all five");
    assert_true(v.sites[3].n_others_results > 0);
    assert_true(v.sites[4].n_results > 0);
    village_kill(&v);
    assert_int_equal(village_run(&v, "audit export fed/coordinator -o ledger.export"), 0);
    const int status = village_run(&v, "audit verify ledger.export");
    if (status) fail_msg("%s", v.output);
}

static void test_a_vector_sent_twice_counts_once(void **state)
{
    (void)state;
    dure_buf adapter;
    village_make(&v, 3, 0, 1);
    village_first_adapter(&v, &adapter);
    v.sites[1].vice = SCRIPT_DUPLICATE;
    village_start(&v);
    village_join(&v);
    go(has_one, "the round did not end");
    village_check_sum(&v, &adapter);
    dure_buf_fini(&adapter);
}

/* What it is worth counts: its vector was whole and signed before. */
static void test_a_chunk_after_the_vector_changes_nothing(void **state)
{
    (void)state;
    dure_buf adapter;
    village_make(&v, 3, 0, 1);
    village_first_adapter(&v, &adapter);
    v.sites[0].vice = SCRIPT_CHUNK_AFTER_R2;
    v.sites[1].hold = true;
    village_start(&v);
    village_join(&v);
    village_go(&v, NULL, 3000);
    v.sites[1].hold = false;
    go(has_one, "the round did not end");
    village_check_sum(&v, &adapter);
    dure_buf_fini(&adapter);
}

static bool release_counts(village *w)
{
    return village_count(w, "releases_logged") > 0 && village_count(w, "checkpoint_counts") >= 3;
}

static void must_run(const char *arguments)
{
    if (village_run(&v, "%s", arguments)) fail_msg("%s", v.output);
}

static json_t *verified_ledger(void)
{
    must_run("audit export fed/coordinator -o ledger.export");
    must_run("audit verify ledger.export --json");
    json_t *report = json_loads(v.output, 0, NULL);
    if (!report) fail_msg("%s", v.output);
    return report;
}

/* Who is served is in the log: entered and shown to the sites by the coordinator while it runs, by
 * the command when none does. */
static void test_promotions_are_entered_in_the_ledger(void **state)
{
    (void)state;
    village_make(&v, 3, 0, 2);
    village_start(&v);
    village_join(&v);
    go(has_two, "the rounds did not end");
    must_run("adapter promote fed/coordinator 1 --force 'no gate here'");
    village_says(&v, "The running coordinator enters it in the ledger");
    go(release_counts, "the sites did not cosign a log with the promotion");
    json_t *report = verified_ledger();
    assert_int_equal(json_integer_value(json_object_get(report, "promoted")), 1);
    assert_int_equal(json_integer_value(json_object_get(report, "shown_entries")),
                     json_integer_value(json_object_get(report, "entries")));
    json_decref(report);
    village_kill(&v);
    must_run("adapter promote fed/coordinator 2 --force 'no gate here'");
    must_run("adapter rollback fed/coordinator");
    report = verified_ledger();
    assert_int_equal(json_integer_value(json_object_get(report, "promoted")), 2);
    assert_int_equal(json_integer_value(json_object_get(report, "rolled_back")), 1);
    json_decref(report);
}

static bool ledger_is_old(village *w)
{
    return village_count(w, "site_ledger_is_old") > 0;
}

static bool site0_was_refused(village *w)
{
    return w->sites[0].refusal == DURE_REFUSAL_LEDGER;
}

/* Folder and ledger were put back together: the site cannot tell, but it has shown more before. */
static void test_an_older_ledger_than_was_shown_is_refused(void **state)
{
    (void)state;
    village_make(&v, 4, 3, 60);
    for (uint32_t i = 0; i < v.n; i++)
        v.sites[i].chain_length = 7;
    village_start(&v);
    village_join(&v);
    go(is_done, "the first round did not end");
    village_kill(&v);
    village_start(&v); /* it is on the coordinator's disk */
    script_site_die(&v.sites[0]);
    const uint64_t newest = v.sites[0].chain_length;
    v.sites[0].chain_length = 7; /* as it was before the round that it paid for */
    script_site_connect(&v.sites[0], false);
    go(site0_was_refused, "the older ledger was not refused");
    assert_true(ledger_is_old(&v));
    if (!strstr(v.sites[0].words, "an older copy was put back")) explain("it does not say why");
    script_site_die(&v.sites[0]);
    v.sites[0].refusal = 0;
    v.sites[0].chain_length = newest;
    script_site_connect(&v.sites[0], false);
    const uint32_t before = v.sites[0].n_results;
    for (uint32_t i = 0; i < 600 && v.sites[0].n_results == before; i++)
        village_go(&v, NULL, 50);
    assert_true(v.sites[0].n_results > before);
    assert_int_equal(v.sites[0].refusal, 0);
}

/* It would take its own vector out of the sum after the others revealed their shares for it. */
static void test_an_r0_after_the_survivors_changes_nothing(void **state)
{
    (void)state;
    dure_buf adapter;
    village_make(&v, 3, 0, 1);
    village_first_adapter(&v, &adapter);
    for (uint32_t i = 0; i < v.n; i++)
        v.sites[i].chain_length = 7;
    v.sites[1].vice = SCRIPT_R0_AFTER_R3;
    village_start(&v);
    village_join(&v);
    go(has_one, "the round did not end");
    assert_int_equal(village_count(&v, "site_dropped"), 0);
    assert_int_equal(village_count(&v, "site_ledger_is_old"), 0);
    village_check_sum(&v, &adapter);
    dure_buf_fini(&adapter);
}

/* What sites say of the rounds they took part in sets the next round's number: these would wrap it
 * to zero, or make it one that no site can keep. */
static void test_a_claim_of_a_round_far_ahead_is_not_believed(void **state)
{
    (void)state;
    village_make(&v, 3, 0, 1);
    v.sites[0].claims_round = UINT64_MAX;
    v.sites[1].claims_round = INT64_MAX;
    v.sites[2].claims_round = 6; /* as after rounds that the coordinator lost */
    village_start(&v);
    village_join(&v);
    go(has_one, "the round did not end");
    assert_true(village_saw(&v, "round_done", "round", "7"));
    assert_true(village_saw(&v, "site_claims_round", "claims", "18446744073709551615"));
    assert_true(village_saw(&v, "site_claims_round", "claims", "9223372036854775807"));
    assert_false(village_saw(&v, "site_claims_round", "claims", "6"));
    assert_int_equal(village_wait(&v), 0);
}

static bool waits_for_r3(village *w)
{
    return village_saw(w, "round_state", "state", "consistency");
}

static bool is_failed(village *w)
{
    return village_count(w, "round_failed") > 0;
}

static bool trains(village *w)
{
    return village_saw(w, "round_state", "state", "training");
}

static bool others_have_one(village *w)
{
    for (uint32_t i = 1; i < w->n; i++)
        if (w->sites[i].n_results < 1) return false;
    return true;
}

/* Silent for longer than the coordinator waits, then back with its update. */
static void test_a_late_update_is_not_counted(void **state)
{
    (void)state;
    village_make(&v, 5, 0, 1);
    v.sites[0].hold = true;
    village_start(&v);
    village_join(&v);
    go(trains, "training did not begin");
    const uint32_t n = v.n;
    for (uint64_t end_ms = dure_clock_monotonic_ms() + 60000;
         !others_have_one(&v) && dure_clock_monotonic_ms() < end_ms;)
        for (uint32_t i = 1; i < n; i++)
            script_site_turn(&v.sites[i], 3);
    if (!others_have_one(&v)) explain("the round did not end without the silent site");
    v.sites[0].hold = false;
    village_go(&v, NULL, 2000);
    assert_int_equal(v.sites[0].n_results, 0);
    assert_true(village_saw(&v, "round_done", "sites", "4"));
}

static void set_hold(bool hold)
{
    for (uint32_t i = 0; i < v.n; i++)
        v.sites[i].hold = hold;
}

static void test_a_killed_coordinator_goes_on_with_the_round(void **state)
{
    (void)state;
    dure_buf adapter;
    village_make(&v, 3, 0, 1);
    village_first_adapter(&v, &adapter);
    set_hold(true);
    village_start(&v);
    village_join(&v);
    go(trains, "training did not begin");
    village_kill(&v);
    village_go(&v, NULL, 300);
    village_start(&v);
    set_hold(false);
    go(has_one, "the round was not taken up");
    assert_int_equal(village_count(&v, "round_resumed"), 1);
    assert_int_equal(village_count(&v, "round_open"), 1);
    village_check_sum(&v, &adapter);
    dure_buf_fini(&adapter);
}

/* U3 is fixed and its vectors lie in the spool: they are summed after the restart. */
static void test_a_coordinator_killed_after_a3_still_sums(void **state)
{
    (void)state;
    dure_buf adapter;
    village_make(&v, 3, 0, 1);
    village_first_adapter(&v, &adapter);
    v.sites[1].hold_r3 = true;
    village_start(&v);
    village_join(&v);
    go(waits_for_r3, "A3 was not sent");
    village_kill(&v);
    village_go(&v, NULL, 300);
    village_start(&v);
    v.sites[1].hold_r3 = false;
    go(has_one, "the round was not taken up");
    assert_int_equal(village_count(&v, "round_open"), 1);
    village_check_sum(&v, &adapter);
    dure_buf_fini(&adapter);
}

/* A power cut takes what was not synced: the round fails and the next one is done. */
static void test_a_vector_lost_on_disk_fails_the_round(void **state)
{
    (void)state;
    char path[600];
    village_make(&v, 3, 0, 1);
    v.sites[1].hold_r3 = true;
    village_start(&v);
    village_join(&v);
    go(waits_for_r3, "A3 was not sent");
    village_kill(&v);
    snprintf(path, sizeof path, "%s/fed/coordinator/spool/1/0", v.dir.path);
    assert_int_equal(truncate(path, 5), 0);
    village_go(&v, NULL, 300);
    village_start(&v);
    v.sites[1].hold_r3 = false;
    go(is_failed, "the round did not fail");
    assert_true(village_saw(&v, "round_failed", "why", "the vector of \"site0\" is not complete"));
    go(is_done, "no round was done after it");
    village_kill(&v);
    assert_int_equal(village_run(&v, "audit export fed/coordinator -o ledger.export"), 0);
    const int status = village_run(&v, "audit verify ledger.export");
    if (status) fail_msg("%s", v.output);
}

/* Killed after the log ended the round and before the store was told: it is not opened again. */
static void test_a_round_that_the_log_ended_stays_ended(void **state)
{
    (void)state;
    char path[600];
    sqlite3 *db = NULL;
    village_make(&v, 3, 0, 1);
    v.sites[0].vice = SCRIPT_SHORT_CHUNK;
    village_start(&v);
    village_join(&v);
    go(is_failed, "the round did not fail");
    village_kill(&v);
    v.sites[0].vice = SCRIPT_HONEST;
    snprintf(path, sizeof path, "%s/fed/coordinator/state.db", v.dir.path);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    const char *undo = "UPDATE coordinator_round SET status = 1, reason = '' WHERE round = 1";
    assert_int_equal(sqlite3_exec(db, undo, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_changes(db), 1);
    sqlite3_close(db);
    village_start(&v);
    go(is_done, "no round was done after it");
    village_kill(&v);
    assert_int_equal(village_run(&v, "audit export fed/coordinator -o ledger.export"), 0);
    const int status = village_run(&v, "audit verify ledger.export");
    if (status) fail_msg("%s", v.output);
}

/* A moment of the protocol: the nth site has this message, or has sent it. */
typedef struct moment {
    bool sent;
    dure_msg_type type;
    uint32_t nth;
} moment;

static const moment moments[] = {
    {false, DURE_MSG_OPEN, 1},       {false, DURE_MSG_OPEN, 3},
    {true, DURE_MSG_ADVERTISE, 1},   {true, DURE_MSG_ADVERTISE, 3},
    {false, DURE_MSG_KEYS, 1},       {false, DURE_MSG_KEYS, 3},
    {true, DURE_MSG_SHARES, 1},      {true, DURE_MSG_SHARES, 3},
    {false, DURE_MSG_SHARES_FOR, 1}, {false, DURE_MSG_SHARES_FOR, 3},
    {false, DURE_MSG_FETCH, 1},      {false, DURE_MSG_FETCH, 3},
    {true, DURE_MSG_CHUNK, 1},       {true, DURE_MSG_CHUNK, 3},
    {true, DURE_MSG_MASKED, 1},      {true, DURE_MSG_MASKED, 3},
    {false, DURE_MSG_SURVIVORS, 1},  {false, DURE_MSG_SURVIVORS, 3},
    {true, DURE_MSG_CONSISTENCY, 1}, {true, DURE_MSG_CONSISTENCY, 3},
    {false, DURE_MSG_SIGNATURES, 1}, {false, DURE_MSG_SIGNATURES, 3},
    {true, DURE_MSG_UNMASK, 1},      {true, DURE_MSG_UNMASK, 3},
    {false, DURE_MSG_RESULT, 1},     {false, DURE_MSG_RESULT, 3},
    {true, DURE_MSG_COSIGN, 1},      {true, DURE_MSG_COSIGN, 3},
};
enum { MOMENTS = sizeof moments / sizeof moments[0] };

typedef struct watcher {
    const moment *waits_for; /* NULL: hit, or none */
    uint32_t n;
} watcher;
static watcher watch;

static void kill_at_moment(void *state, bool sent, dure_msg_type type)
{
    watcher *w = state;
    if (!w->waits_for || sent != w->waits_for->sent || type != w->waits_for->type) return;
    if (++w->n < w->waits_for->nth) return;
    w->waits_for = NULL;
    village_kill(&v);
}

static bool moment_is_hit(village *w)
{
    (void)w;
    return watch.waits_for == NULL;
}

static bool round_goes_on(village *w)
{
    return village_count(w, "round_done") >= watch.n;
}

/* Killed between each two messages of the protocol. Every moment is hit, the sites keep what they
 * had, and no round that was opened is lost; the ledger stands. */
static void test_a_coordinator_killed_between_any_two_messages_goes_on(void **state)
{
    (void)state;
    village_make(&v, 3, 0, 3 * MOMENTS);
    for (uint32_t i = 0; i < v.n; i++) {
        v.sites[i].hook = kill_at_moment;
        v.sites[i].hook_state = &watch;
    }
    village_start(&v);
    village_join(&v);
    for (size_t k = 0; k < MOMENTS; k++) {
        const moment *m = &moments[k];
        watch = (watcher){.waits_for = m};
        if (!village_go(&v, moment_is_hit, 60000)) {
            print_message("%s %u was not %s\n", dure_msg_name(m->type), m->nth,
                          m->sent ? "sent" : "received");
            explain("a moment was not hit");
        }
        assert_int_equal(v.coordinator, 0);
        village_start(&v);
        watch.n = (uint32_t)village_count(&v, "round_done") + 1;
        go(round_goes_on, "the round did not go on after the kill");
    }
    village_kill(&v);
    assert_int_equal(village_count(&v, "round_failed"), 0);
    assert_int_equal(village_run(&v, "audit export fed/coordinator -o ledger.export"), 0);
    const int status = village_run(&v, "audit verify ledger.export");
    if (status) fail_msg("%s", v.output);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_three_sites_sum_two_rounds, setup, teardown),
        cmocka_unit_test_setup_teardown(test_status_is_fresh_while_a_round_runs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_site_that_dies_while_training_is_left_out, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_seven_sites_lose_two_and_still_sum, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_vector_that_arrived_stays_in_the_sum, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_chunk_of_the_wrong_length_drops_its_site, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_chunk_nobody_asked_for_drops_its_site, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_site_that_refuses_is_not_asked_again_at_once, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_sites_that_join_later_follow_the_log, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_vector_sent_twice_counts_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_chunk_after_the_vector_changes_nothing, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_promotions_are_entered_in_the_ledger, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_older_ledger_than_was_shown_is_refused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_an_r0_after_the_survivors_changes_nothing, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_claim_of_a_round_far_ahead_is_not_believed, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_late_update_is_not_counted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_killed_coordinator_goes_on_with_the_round, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_coordinator_killed_after_a3_still_sums, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_vector_lost_on_disk_fails_the_round, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_round_that_the_log_ended_stays_ended, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_coordinator_killed_between_any_two_messages_goes_on,
                                        setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
