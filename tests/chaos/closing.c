/* A coordinator that is killed between a sum and its result: it takes the round up again and makes
 * the same bytes; or the root gives the round up by a new epoch. */
#include "fleet.h"
#include "verdict.h"

#include "common/clock.h"
#include "common/file.h"
#include "ledger/leaf_log.h"
#include "support/check.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

enum { SITES = 5, ROUNDS = 60, ROUND_MS = 90000, STOP_MS = 20000 };

static fleet f;

static int teardown(void **state)
{
    (void)state;
    fleet_end(&f, false);
    return 0;
}

static void wait_for(const char *event, size_t n)
{
    fleet_wait_for(&f, event, n, ROUND_MS, NULL);
}

static void begin(void)
{
    fleet_make(&f, 1, SITES, ROUNDS);
    fleet_start(&f, FLEET_COORDINATOR, false);
    fleet_join_unharmed(&f);
    for (uint32_t i = 0; i < SITES; i++)
        fleet_start(&f, i, false);
    wait_for("round_done", 1);
    fleet_kill(&f, FLEET_COORDINATOR);
}

static void end(void)
{
    char why[256];
    verdict_rounds rounds;
    if (!fleet_stop(&f, STOP_MS)) fleet_fail(&f, f.v.output);
    if (!verdict(&rounds, &f.v, why)) fleet_fail(&f, why);
    assert_int_equal(rounds.aborted, 0);
}

/* Starts the coordinator with the plan. True when it was killed by it; false when it went on to
 * another result, as when the plan's point does not come. */
static bool dies_at(const char *plan)
{
    fleet_process *c = &f.processes[FLEET_COORDINATOR];
    const size_t done = village_count(&f.v, "round_done");
    int status = 0;
    fleet_start_with(&f, FLEET_COORDINATOR, plan);
    for (unsigned ms = 0; ms < ROUND_MS; ms += 20) {
        if (waitpid(c->pid, &status, WNOHANG) > 0) {
            c->pid = 0;
            if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
                fleet_fail(&f, "the coordinator ended in another way");
            return true;
        }
        if (village_count(&f.v, "round_done") > done) return false;
        dure_clock_sleep_ms(20);
    }
    fleet_fail(&f, "the coordinator comes to no result");
    return false;
}

/* At each of its steps on disk, before it, in its middle and after it. The round is the same one
 * until it is done, and the verdict makes its adapter anew. */
static void cut_everywhere(const char *when)
{
    unsigned k = 0;
    bool died = true;
    begin();
    while (died) {
        char plan[32];
        snprintf(plan, sizeof plan, "result:%u:%s", ++k, when);
        died = dies_at(plan);
    }
    print_message("killed at each of %u steps of a result, %s\n", k - 1, when);
    assert_true(k > 6); /* header, factors of two layers, sync, name */
    assert_int_equal(village_count(&f.v, "round_done"), 2);
    assert_int_equal(village_count(&f.v, "round_failed"), 0);
    assert_false(dure_file_exists(
        temp_dir_file(&f.v.dir, "fed/coordinator/blobs/sha256/next-adapter.unfinished")));
    wait_for("round_done", 3);
    end();
}

static void test_a_result_is_made_anew_where_it_was_cut(void **state)
{
    (void)state;
    cut_everywhere("before");
}

static void test_a_result_is_made_anew_where_it_was_torn(void **state)
{
    (void)state;
    cut_everywhere("torn");
}

static void test_a_result_is_made_anew_behind_a_step(void **state)
{
    (void)state;
    cut_everywhere("after");
}

/* ---- a new epoch over a stored sum ---- */

static void must_run(const char *arguments)
{
    if (village_run(&f.v, "%s", arguments)) fail_msg("%s: %s", arguments, f.v.output);
}

static uint64_t entries(void)
{
    dure_leaf_log *log = NULL;
    assert_ok(dure_leaf_log_open(&log, temp_dir_file(&f.v.dir, "fed/coordinator/ledger"),
                                 DURE_LEAF_LOG_READ, NULL));
    const uint64_t n = dure_leaf_log_size(log);
    dure_leaf_log_close(&log);
    return n;
}

static void audit(void)
{
    must_run("audit export fed/coordinator -o ledger.export");
    must_run("audit verify ledger.export");
    village_says(&f.v, "1 new epoch");
}

/* Rounds go on from the last result, with all sites, and what anyone may check holds. */
static void rounds_go_on(void)
{
    const size_t done = village_count(&f.v, "round_done");
    fleet_start(&f, FLEET_COORDINATOR, false);
    wait_for("round_done", done + 2);
    assert_true(village_saw(&f.v, "round_done", "sites", "5"));
    assert_true(fleet_stop(&f, STOP_MS));
    audit();
}

/* The root's statement keeps all, the last entry of which opened the round; or only what was signed
 * before it. Either way the sum is of a round that the log does not know or does not end. */
static void give_up_sum(bool keep_open)
{
    char draft[96];
    begin();
    assert_true(dies_at("sum:1:after"));
    if (keep_open)
        snprintf(draft, sizeof draft, "epoch draft fed/coordinator --reason test --keep %llu",
                 (unsigned long long)entries());
    else
        snprintf(draft, sizeof draft, "epoch draft fed/coordinator --reason test");
    must_run(draft);
    must_run("epoch sign fed/admin loss.json");
    must_run("epoch take fed/coordinator loss.epoch");
    must_run("status fed");
    assert_null(strstr(f.v.output, "is summed"));
    rounds_go_on();
    assert_int_equal(village_count(&f.v, "round_failed"), 0);
}

static void test_an_epoch_gives_up_a_stored_sum_with_its_round(void **state)
{
    (void)state;
    give_up_sum(false);
}

static void test_an_epoch_gives_up_a_stored_sum_of_a_round_that_it_keeps(void **state)
{
    (void)state;
    give_up_sum(true);
}

/* The adapter in force is of a round whose end is lost: nothing that the log says of it would hold.
 */
static void test_an_epoch_leaves_out_what_was_promoted_of_a_lost_round(void **state)
{
    (void)state;
    char draft[96];
    begin();
    const uint64_t n = entries();
    must_run("adapter promote fed/coordinator 1 --force 'no gate here'");
    assert_int_equal(entries(), n + 1);
    snprintf(draft, sizeof draft, "epoch draft fed/coordinator --reason test --keep %llu",
             (unsigned long long)n - 1);
    must_run(draft);
    must_run("epoch sign fed/admin loss.json");
    must_run("epoch take fed/coordinator loss.epoch");
    rounds_go_on();
    must_run("adapter show fed/coordinator champion");
    village_says(&f.v, "version   1 (champion)");
    const uint64_t now = entries();
    must_run("adapter promote fed/coordinator 2 --force 'of a round that is there'");
    assert_int_equal(entries(), now + 1);
    audit();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_a_result_is_made_anew_where_it_was_cut, teardown),
        cmocka_unit_test_teardown(test_a_result_is_made_anew_where_it_was_torn, teardown),
        cmocka_unit_test_teardown(test_a_result_is_made_anew_behind_a_step, teardown),
        cmocka_unit_test_teardown(test_an_epoch_gives_up_a_stored_sum_with_its_round, teardown),
        cmocka_unit_test_teardown(test_an_epoch_gives_up_a_stored_sum_of_a_round_that_it_keeps,
                                  teardown),
        cmocka_unit_test_teardown(test_an_epoch_leaves_out_what_was_promoted_of_a_lost_round,
                                  teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
