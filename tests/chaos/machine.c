/* Machines that fail a federation of real processes: stopped in the middle of a round, few
 * descriptors, state that cannot be written. Full disks and wrong clocks are the chaos harness's
 * (chaos.c). */
#include "fleet.h"
#include "verdict.h"

#include "common/clock.h"
#include "support/check.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROUNDS = 50, ROUND_MS = 90000, STOP_MS = 20000 };

static fleet f;
static char read_only[512]; /* a folder that is mounted so; "" : none */

static int teardown(void **state)
{
    (void)state;
    if (read_only[0]) umount(read_only);
    read_only[0] = 0;
    fleet_end(&f, false);
    return 0;
}

static void wait_for(const char *event, size_t n)
{
    fleet_wait_for(&f, event, n, ROUND_MS, NULL);
}

static void begin(uint32_t n)
{
    fleet_make(&f, 1, n, ROUNDS);
    fleet_start(&f, FLEET_COORDINATOR, false);
    fleet_join_unharmed(&f);
    for (uint32_t i = 0; i < n; i++)
        fleet_start(&f, i, false);
}

static void end(void)
{
    char why[256];
    verdict_rounds rounds;
    if (!fleet_stop(&f, STOP_MS)) fleet_fail(&f, f.v.output);
    if (!verdict(&rounds, &f.v, why)) fleet_fail(&f, why);
}

/* SIGTERM, and it ends well at once. */
static void stop_one(uint32_t process)
{
    int status = 0;
    const uint64_t start_ms = dure_clock_monotonic_ms();
    assert_int_equal(kill(f.processes[process].pid, SIGTERM), 0);
    waitpid(f.processes[process].pid, &status, 0);
    f.processes[process].pid = 0;
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_true(dure_clock_monotonic_ms() - start_ms < STOP_MS);
}

/* The round in hand is handed over: nothing that was said is taken back. */
static void test_a_stopped_coordinator_hands_its_round_over(void **state)
{
    (void)state;
    begin(5);
    wait_for("round_done", 1);
    for (unsigned k = 0; k < 4; k++) {
        wait_for("round_open", 2 + k);
        stop_one(FLEET_COORDINATOR);
        fleet_start(&f, FLEET_COORDINATOR, false);
    }
    wait_for("round_done", village_count(&f.v, "round_done") + 1);
    assert_int_equal(village_count(&f.v, "round_failed"), 0);
    end();
}

static void test_a_stopped_site_is_back_in_the_next_round(void **state)
{
    (void)state;
    begin(5);
    wait_for("round_open", 2);
    stop_one(2);
    fleet_start(&f, 2, false);
    const size_t done = village_count(&f.v, "round_done");
    wait_for("round_done", done + 2);
    assert_true(village_saw(&f.v, "round_done", "sites", "5"));
    end();
}

/* How it ended within the time: an exit or signal status; -1: it lives. */
static int end_of(uint32_t process, uint32_t timeout_ms)
{
    const uint64_t end_ms = dure_clock_monotonic_ms() + timeout_ms;
    int status = -1;
    while (dure_clock_monotonic_ms() < end_ms) {
        if (waitpid(f.processes[process].pid, &status, WNOHANG) > 0) {
            f.processes[process].pid = 0;
            return status;
        }
        dure_clock_sleep_ms(10);
    }
    return -1;
}

/* Killed when a part of its vector has left and nothing after it was said or written: by then the
 * ledger knows of it, which the verdict asks of every vector that left. */
static void test_a_site_has_paid_before_its_vector_leaves(void **state)
{
    (void)state;
    static const char *const plans[] = {"chunk:1:before", "chunk:1:after", "chunk:2:after"};
    fleet_make_large(&f, 5, 4, ROUNDS);
    fleet_start(&f, FLEET_COORDINATOR, false);
    fleet_join_unharmed(&f);
    for (uint32_t i = 0; i < 5; i++)
        fleet_start(&f, i, false);
    wait_for("round_done", 1);
    for (size_t k = 0; k < sizeof plans / sizeof *plans; k++) {
        fleet_kill(&f, 1);
        fleet_start_with(&f, 1, plans[k]);
        const int status = end_of(1, ROUND_MS);
        assert_true(status >= 0 && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    }
    fleet_start(&f, 1, false);
    wait_for("round_done", village_count(&f.v, "round_done") + 1);
    end();
}

/* Killed when the sum is stored and nothing else is; then all of its sites lose their secrets and
 * most are put out, so that the round could not be unmasked any more. It need not be. */
static void test_a_stored_sum_is_published_whoever_is_left(void **state)
{
    (void)state;
    int status = 0;
    begin(5);
    wait_for("round_done", 1);
    fleet_kill(&f, FLEET_COORDINATOR);
    fleet_start_with(&f, FLEET_COORDINATOR, "sum:1:after");
    waitpid(f.processes[FLEET_COORDINATOR].pid, &status, 0);
    f.processes[FLEET_COORDINATOR].pid = 0;
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    for (uint32_t i = 0; i < 5; i++)
        fleet_kill(&f, i);
    const size_t done = village_count(&f.v, "round_done");
    fleet_start(&f, FLEET_COORDINATOR, false);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(village_run(&f.v, "site revoke fed/admin site%u", i), 0);
    wait_for("site_revoked", 4);
    assert_int_equal(village_run(&f.v, "status fed"), 0);
    village_says(&f.v, "is summed: its result is published when more of the roster are here");
    fleet_start(&f, 4, false);
    wait_for("round_done", done + 1);
    assert_int_equal(village_count(&f.v, "round_failed"), 0);
    end();
}

/* A version after the other: each says what is to be done, and once all are of one version again,
 * replaced one by one, the federation goes on. */
static void test_another_version_of_the_protocol_is_a_sentence(void **state)
{
    (void)state;
    begin(5);
    wait_for("round_done", 1);
    stop_one(0);
    setenv("CHAOS_VERSION", "2", 1);
    fleet_start(&f, 0, false);
    unsetenv("CHAOS_VERSION");
    assert_int_equal(end_of(0, 20000), 1 << 8);
    assert_true(fleet_has_said(&f, 0,
                               "speaks protocol version 2, this program version 1; install "
                               "the same version of Dure on both sides"));
    wait_for("site_of_another_version", 1);
    fleet_start(&f, 0, false);
    stop_one(FLEET_COORDINATOR);
    setenv("CHAOS_VERSION", "2", 1);
    fleet_start(&f, FLEET_COORDINATOR, false);
    unsetenv("CHAOS_VERSION");
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(end_of(i, 20000), 1 << 8);
        assert_true(fleet_has_said(&f, i,
                                   "the coordinator is of another version: the peer speaks "
                                   "protocol version 2, this program version 1; install"));
    }
    stop_one(FLEET_COORDINATOR);
    for (uint32_t i = 0; i < 5; i++)
        fleet_start(&f, i, false);
    fleet_start(&f, FLEET_COORDINATOR, false);
    wait_for("round_done", village_count(&f.v, "round_done") + 1);
    for (uint32_t i = 0; i < 5; i++) {
        stop_one(i);
        fleet_start(&f, i, false);
        wait_for("round_done", village_count(&f.v, "round_done") + 1);
    }
    end();
}

/* Not a byte more than it has and `more`, from now on. */
static void limit_memory(uint32_t process, long more_kb)
{
    char path[64], line[128];
    long kb = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)f.processes[process].pid);
    FILE *status = fopen(path, "r");
    while (status && fgets(line, sizeof line, status))
        if (sscanf(line, "VmSize: %ld", &kb) == 1) break;
    if (status) (void)fclose(status);
    const struct rlimit limit = {.rlim_cur = 1024 * (rlim_t)(kb + more_kb),
                                 .rlim_max = 1024 * (rlim_t)(kb + more_kb)};
    assert_true(kb > 0 && prlimit(f.processes[process].pid, RLIMIT_AS, &limit, NULL) == 0);
}

/* A process without memory ends with a sentence, or is ended by a library that has no other answer,
 * or does with what it has: the next life goes on from what is on disk. */
static void test_memory_that_runs_out_harms_nothing(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    print_message("skipped: a sanitizer without memory ends the program before it can answer\n");
    skip();
#endif
    unsigned n_said = 0, n_cut = 0, n_lived = 0;
    fleet_make_large(&f, 4, 4, ROUNDS);
    fleet_start(&f, FLEET_COORDINATOR, false);
    fleet_join_unharmed(&f);
    for (uint32_t i = 0; i < 4; i++)
        fleet_start(&f, i, false);
    wait_for("round_done", 1);
    for (unsigned k = 0; k < 12; k++) {
        const uint32_t process = k % 3 == 2 ? 1 : FLEET_COORDINATOR;
        dure_clock_sleep_ms(100 + 70 * k % 400);
        limit_memory(process, (long)(k / 3) * 700);
        const int status = end_of(process, 2500);
        if (status < 0)
            n_lived++;
        else if (WIFEXITED(status) && WEXITSTATUS(status) == 1 &&
                 fleet_has_said(&f, process, "memory"))
            n_said++;
        else if (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT)
            n_cut++;
        else
            fleet_fail(&f, "a process without memory ended in another way");
        fleet_kill(&f, process);
        fleet_start(&f, process, false);
    }
    print_message("%u ended with a sentence, %u were cut off, %u went on\n", n_said, n_cut,
                  n_lived);
    assert_true(n_said > 0);
    wait_for("round_done", village_count(&f.v, "round_done") + 2);
    end();
}

/* Runs a command of the program with few descriptors; its output in f.v.output. */
static int run_with_descriptors(unsigned n, const char *arguments)
{
    char command[900];
    snprintf(command, sizeof command, "cd '%s' && ulimit -n %u && timeout 20 '%s' %s >few.log 2>&1",
             f.v.dir.path, n, DURE_BINARY, arguments);
    const int status = system(command);
    FILE *log = fopen(temp_dir_file(&f.v.dir, "few.log"), "r");
    assert_non_null(log);
    const size_t got = fread(f.v.output, 1, sizeof f.v.output - 1, log);
    f.v.output[got] = 0;
    (void)fclose(log);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static void test_too_few_descriptors_are_a_sentence(void **state)
{
    (void)state;
    begin(3);
    wait_for("round_done", 1);
    assert_true(fleet_stop(&f, STOP_MS));
    for (unsigned n = 16; n <= 60; n += 11) {
        static const char *const commands[] = {"coordinator run fed", "client run place0"};
        for (size_t k = 0; k < 2; k++) {
            if (run_with_descriptors(n, commands[k]) != 1) fail_msg("%u: %s", n, f.v.output);
            village_says(&f.v, "ulimit -n");
        }
    }
}

/* True when nothing can be written there any more, whoever runs the test. */
static bool make_read_only(const char *name)
{
    snprintf(read_only, sizeof read_only, "%s", temp_dir_file(&f.v.dir, name));
    if (mount(read_only, read_only, NULL, MS_BIND, NULL) == 0 &&
        mount(NULL, read_only, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL) == 0)
        return true;
    umount(read_only);
    read_only[0] = 0;
    return geteuid() != 0 && chmod(temp_dir_file(&f.v.dir, name), 0555) == 0;
}

static void make_writable(const char *name)
{
    if (read_only[0]) assert_int_equal(umount(read_only), 0);
    if (!read_only[0]) assert_int_equal(chmod(temp_dir_file(&f.v.dir, name), 0755), 0);
    read_only[0] = 0;
}

static void test_state_that_cannot_be_written_is_a_sentence(void **state)
{
    (void)state;
    static const struct {
        const char *folder, *command;
    } cases[] = {{"fed/coordinator", "coordinator run fed"}, {"place0", "client run place0"}};
    begin(3);
    wait_for("round_done", 1);
    assert_true(fleet_stop(&f, STOP_MS));
    for (size_t k = 0; k < 2; k++) {
        if (!make_read_only(cases[k].folder)) {
            print_message("skipped: no right to make a folder read-only\n");
            skip();
        }
        const int status = village_run(&f.v, "%s", cases[k].command);
        make_writable(cases[k].folder);
        assert_int_equal(status, 1);
        if (!strstr(f.v.output, "read-only") && !strstr(f.v.output, "permission denied"))
            fail_msg("it says: %s", f.v.output);
    }
    for (uint32_t i = 0; i < 3; i++)
        fleet_start(&f, i, false);
    fleet_start(&f, FLEET_COORDINATOR, false);
    wait_for("round_done", village_count(&f.v, "round_done") + 1);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_a_stopped_coordinator_hands_its_round_over, teardown),
        cmocka_unit_test_teardown(test_a_stored_sum_is_published_whoever_is_left, teardown),
        cmocka_unit_test_teardown(test_a_stopped_site_is_back_in_the_next_round, teardown),
        cmocka_unit_test_teardown(test_a_site_has_paid_before_its_vector_leaves, teardown),
        cmocka_unit_test_teardown(test_another_version_of_the_protocol_is_a_sentence, teardown),
        cmocka_unit_test_teardown(test_memory_that_runs_out_harms_nothing, teardown),
        cmocka_unit_test_teardown(test_too_few_descriptors_are_a_sentence, teardown),
        cmocka_unit_test_teardown(test_state_that_cannot_be_written_is_a_sentence, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
