/* What a site's engineer is told when joining or taking part goes wrong. A real coordinator runs
 * on loopback; each test has a federation of its own. What sites do wrong on the wire is in
 * federation/. */
#include "../unit/federation/fixture.h"

#include "common/clock.h"
#include "common/file.h"
#include "support/check.h"
#include "support/program.h"
#include "support/tiny_model.h"

#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static program p;
static int port;
static pid_t coordinator, client; /* 0: none runs */

/* A port that was free a moment ago. */
static int free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t n = sizeof address;
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &n), 0);
    close(fd);
    return ntohs(address.sin_port);
}

static void run_well(const char *arguments)
{
    if (program_run(&p, "%s", arguments)) fail_msg("%s: %s", arguments, p.err);
}

static void check_refused(const char *arguments, int status, const char *sentence)
{
    const int got = program_run(&p, "%s", arguments);
    if (got != status) fail_msg("%s: exit %d, %s", arguments, got, p.err);
    if (p.out[0]) fail_msg("%s: stdout has %s", arguments, p.out);
    program_says(&p, sentence);
}

/* Starts `dure ARGUMENTS` in the folder, its stderr in `log`. */
static pid_t start(const char *log, const char *arguments)
{
    char command[1024];
    snprintf(command, sizeof command, "cd '%s' && DURE_LEDGER=ledger exec '%s' %s >/dev/null 2>%s",
             p.dir.path, DURE_BINARY, arguments, log);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    return pid;
}

static void stop(pid_t *pid)
{
    if (*pid > 0) {
        kill(*pid, SIGTERM);
        waitpid(*pid, NULL, 0);
    }
    *pid = 0;
}

static void start_coordinator(void)
{
    coordinator = start("coordinator.log", "coordinator run fed --no-gate");
}

/* Waits until the log of a running program holds the text. */
static void wait_for(const char *log, const char *text)
{
    dure_buf words;
    for (int i = 0; i < 400; i++) {
        if (dure_file_read(&words, temp_dir_file(&p.dir, log), 1 << 20, NULL) == DURE_OK) {
            const bool there = words.n && memmem(words.data, words.n, text, strlen(text));
            dure_buf_fini(&words);
            if (there) return;
        }
        dure_clock_sleep_ms(50);
    }
    fail_msg("%s never said '%s'", log, text);
}

static void make_federation(const char *dir)
{
    char arguments[512];
    snprintf(arguments, sizeof arguments,
             "init %s --model model.gguf --eval data.jsonl --rank 4 --rounds 2 --steps 2 "
             "--batch 16 --max-length 128 --endpoint tcp://127.0.0.1:%d",
             dir, port);
    run_well(arguments);
    snprintf(arguments, sizeof arguments, "invite %s/admin north -o %s.invitation", dir, dir);
    run_well(arguments);
}

static int setup(void **state)
{
    (void)state;
    dure_buf text;
    program_make(&p, DURE_BINARY);
    port = free_port();
    tiny_model_write(temp_dir_file(&p.dir, "model.gguf"), &(tiny_model_opts){.seed = 5});
    tiny_model_write(temp_dir_file(&p.dir, "twin.gguf"), &(tiny_model_opts){.seed = 6});
    dure_buf_init(&text, 1 << 16);
    for (int i = 0; i < 32; i++)
        dure_put_format(&text, "{\"prompt\":\"say %d\",\"response\":\"word\"}\n", i);
    assert_ok(dure_file_write_atomic(temp_dir_file(&p.dir, "data.jsonl"), dure_buf_span(&text),
                                     0644, NULL));
    dure_buf_fini(&text);
    make_federation("fed");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    stop(&client);
    stop(&coordinator);
    program_end(&p);
    return 0;
}

#define HOLDINGS "--data data.jsonl --source notes --records 1000 --timeout 4 --epsilon 8 "
#define JOIN "join fed.invitation site " HOLDINGS "--model model.gguf "

static void test_federation_errors_join_refuses_before_anything_is_reserved(void **state)
{
    (void)state;
    check_refused("join absent site " HOLDINGS "--model model.gguf", 1,
                  "cannot open absent: there");
    check_refused("join data.jsonl site " HOLDINGS "--model model.gguf", 1, "is not an invitation");
    check_refused("join fed.invitation site " HOLDINGS "--model twin.gguf", 1,
                  "twin.gguf is not the base model of federation fed, whose SHA-256 is ");
    program_says(&p, "give the right file with --model");
    check_refused("join fed.invitation site --data data.jsonl --source s --records 1000 --epsilon "
                  "800 --model model.gguf",
                  2, "epsilon must be above 0 and at most 100");
    check_refused("join fed.invitation site --data data.jsonl --source s --records 1000 --epsilon "
                  "8 --delta 0.01 --model model.gguf",
                  2, "delta 0.01 is too large for 1000 records");
    check_refused(JOIN "--batch 0", 2, "--batch needs a whole number from 1 to ");
    check_refused(JOIN "--collusion 0", 2,
                  "--collusion needs a whole number from 1 to 99, not '0'");
    check_refused("join fed.invitation", 2, "DIR is missing: give the site's folder");
    check_refused("client run site", 1, "site is no site's folder; make one with 'dure join");
    assert_false(program_has(&p, "site"));
}

/* A budget is for life, so it is fixed for a join that can go through alone: afterwards the same
 * source is declared with other figures, in the same ledger. */
static void test_federation_errors_join_fixes_no_budget_for_what_is_refused(void **state)
{
    (void)state;
#define WITH(files) "join fed.invitation " files " --source notes --records 1000 --timeout 4 "
    program_put(&p, "empty", "");
    program_put(&p, "junk", "no record\n");
    program_put(&p, "people", "{\"subject\":1,\"prompt\":\"x\",\"response\":\"y\"}\n");
    check_refused(WITH("site --data empty --model model.gguf") "--epsilon 20", 1, "empty");
    check_refused(WITH("site --data junk --model model.gguf") "--epsilon 20", 1,
                  "none of its 1 records leaves a response to learn from");
    check_refused(WITH("site --data fed --model model.gguf") "--epsilon 20", 1, "fed: ");
    check_refused(WITH("site --data people --model model.gguf") "--epsilon 20", 1,
                  "join with --ignore-subjects");
    check_refused(WITH("junk --data data.jsonl --model model.gguf") "--epsilon 20", 1,
                  "junk is a file, not a folder");
    assert_false(program_has(&p, "site") || program_has(&p, "ledger"));
    start_coordinator();
    run_well(JOIN);
#undef WITH
}

static void test_federation_errors_an_expired_invitation_is_told_without_the_network(void **state)
{
    (void)state;
    fixture f;
    dure_invitation invitation;
    dure_sign_key key;
    fixture_make(&f);
    fixture_invite(&invitation, &key, &f, "north");
    assert_ok(dure_invitation_write(temp_dir_file(&p.dir, "old"), &invitation, &key, NULL));
    check_refused("join old site " HOLDINGS "--model model.gguf", 1, "north\" expired at 1970-");
    program_says(&p, "ask the federation's admin for a new one");
    assert_false(program_has(&p, "site") || program_has(&p, "ledger"));
}

static void test_federation_errors_an_absent_coordinator_is_waited_for(void **state)
{
    (void)state;
    check_refused(JOIN, 1, "waiting for the coordinator at tcp://127.0.0.1:");
    program_says(&p, "did not answer (nothing answers there yet); the same command goes on when");
    check_refused("join fed.invitation site " HOLDINGS "--model model.gguf --collusion 2", 1,
                  "site is left from a join with other settings, which its site.yaml keeps");
    check_refused(JOIN "--batch 32", 1, "site is left from a join with --batch 16; repeat that");
    start_coordinator();
    run_well(JOIN);
    stop(&coordinator);
    client = start("client.log", "client run site --threads 1");
    wait_for("client.log", "waiting for the coordinator at tcp://127.0.0.1:");
    start_coordinator();
    wait_for("client.log", "waiting for sites: 1 of at least 3 are here");
}

static void test_federation_errors_an_invitation_works_once(void **state)
{
    (void)state;
    start_coordinator();
    run_well(JOIN);
    check_refused(JOIN, 1, "site is a site's folder already (north in federation fed); start it");
    check_refused("join fed.invitation again " HOLDINGS "--model model.gguf --ledger other", 1,
                  "the invitation for \"north\" was used already; it works once: ask the");
    assert_false(program_has(&p, "again"));
}

/* It pins its coordinator's key, so that nothing is told to another one. */
static void test_federation_errors_an_invitation_of_another_federation(void **state)
{
    (void)state;
    make_federation("twin");
    start_coordinator();
    check_refused("join twin.invitation site " HOLDINGS "--model model.gguf", 1,
                  "it is not the coordinator of this invitation");
}

static void replace(const char *file, const char *from, const char *to)
{
    dure_buf text, changed;
    const char *path = temp_dir_file(&p.dir, file);
    assert_ok(dure_file_read(&text, path, 1 << 20, NULL));
    const uint8_t *at = memmem(text.data, text.n, from, strlen(from));
    assert_non_null(at);
    const size_t before = (size_t)(at - text.data), after = before + strlen(from);
    dure_buf_init(&changed, 1 << 20);
    dure_put_raw(&changed, text.data, before);
    dure_put_raw(&changed, to, strlen(to));
    dure_put_raw(&changed, text.data + after, text.n - after);
    assert_ok(dure_file_write_atomic(path, dure_buf_span(&changed), 0644, NULL));
    dure_buf_fini(&text);
    dure_buf_fini(&changed);
}

static void test_federation_errors_a_policy_names_its_rule(void **state)
{
    (void)state;
    start_coordinator();
    run_well(JOIN);
    replace("site/site.yaml", "max_clip: 1 ", "max_clip: 0.1 ");
    check_refused("client run site", 1, "site.yaml's policy.max_clip forbids it: change that rule");
    replace("site/site.yaml", "max_clip", "max_clop");
    check_refused("client run site", 1, "site/site.yaml: Unexpected key: max_clop");
    program_says(&p, "line: 21");
}

static void test_federation_errors_a_site_s_files_are_looked_at_when_it_starts(void **state)
{
    (void)state;
    start_coordinator();
    run_well(JOIN);
    program_put(&p, "data.jsonl", "nonsense\n{\"prompt\":\"x\"}\n");
    check_refused("client run site", 1, "none of its 2 records leaves a response to learn from");
    assert_int_equal(remove(temp_dir_file(&p.dir, "data.jsonl")), 0);
    check_refused("client run site", 1, "data.jsonl: there is no such file");
    assert_int_equal(
        rename(temp_dir_file(&p.dir, "twin.gguf"), temp_dir_file(&p.dir, "model.gguf")), 0);
    check_refused("client run site", 1, "is not the federation's base model any more; put the");
}

static void test_federation_errors_missing_keys_are_told_with_the_fix(void **state)
{
    (void)state;
    start_coordinator();
    run_well(JOIN);
    static const char *const keys[] = {"sign", "curve"};
    for (size_t i = 0; i < 2; i++) {
        char path[64], sentence[256];
        snprintf(path, sizeof path, "site/keys/%s.key", keys[i]);
        snprintf(sentence, sizeof sentence,
                 "%s: there is no such file or folder; check the path; put the site's keys back "
                 "from a copy, or ask for new ones: 'dure site renew'",
                 path);
        assert_int_equal(rename(temp_dir_file(&p.dir, path), temp_dir_file(&p.dir, "away")), 0);
        check_refused("client run site", 1, sentence);
        assert_int_equal(rename(temp_dir_file(&p.dir, "away"), temp_dir_file(&p.dir, path)), 0);
        snprintf(path, sizeof path, "fed/coordinator/keys/%s.key", keys[i]);
        assert_int_equal(remove(temp_dir_file(&p.dir, path)), 0);
        check_refused("coordinator run fed/coordinator", 1,
                      "put the coordinator's keys back from a backup");
    }
    assert_int_equal(remove(temp_dir_file(&p.dir, "fed/admin/root.key")), 0);
    check_refused("invite fed/admin other -o other.invitation", 1,
                  "root.key is missing: put it back from where it is kept");
}

static void test_federation_errors_of_privacy_are_told_with_the_fix(void **state)
{
    (void)state;
    start_coordinator();
    run_well(JOIN);
    replace("site/site.yaml", "epsilon: 8 ", "epsilon: 0 ");
    check_refused("client check site", 1, "epsilon and policy.delta must be above 0");
    replace("site/site.yaml", "epsilon: 0 ", "epsilon: 8 ");
    replace("site/site.yaml", "delta: 1e-05", "delta: 0.01");
    check_refused("client check site", 1, "policy.delta must be at most 1 / (10 x data.records)");
    replace("site/site.yaml", "delta: 0.01", "delta: 1e-05");
    run_well("train --model model.gguf --data data.jsonl --rank 2 --batch 4 --steps 1 --source "
             "other --records 1000 --epsilon 8 --ledger others --out a");
    replace("site/site.yaml", "/ledger", "/others");
    check_refused("client check site", 1, "does not contain the entry that this site saw last");
    replace("site/site.yaml", "/others", "/ledger");
    assert_int_equal(remove(temp_dir_file(&p.dir, "site/keys/curve.key")), 0);
    check_refused("client check site", 1,
                  "put the site's keys back from a copy, or ask for new ones");
}

static void test_federation_errors_one_client_a_folder(void **state)
{
    (void)state;
    start_coordinator();
    run_well(JOIN);
    client = start("client.log", "client run site --threads 1");
    wait_for("client.log", "waiting for sites");
    check_refused("client run site", 1, "another process uses site; stop that 'dure client run'");
}

/* It ends at the first; the others meet it while it takes itself apart. */
static void check_ends_well(pid_t *pid)
{
    int status = 0;
    while (waitpid(*pid, &status, WNOHANG) == 0) {
        kill(*pid, SIGTERM);
        usleep(50);
    }
    *pid = 0;
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        fail_msg("it did not end well: status %x", (unsigned)status);
}

static void test_federation_errors_many_signals_end_it_once(void **state)
{
    (void)state;
    start_coordinator();
    run_well(JOIN);
    client = start("client.log", "client run site --threads 1");
    wait_for("client.log", "waiting for sites"); /* both are at work */
    check_ends_well(&client);
    check_ends_well(&coordinator);
    /* Whether one comes at the wrong moment is chance: one coordinator in three has met it. */
    for (int i = 0; i < 12; i++) {
        const char *status = temp_dir_file(&p.dir, "fed/coordinator/status.json");
        assert_int_equal(remove(status), 0);
        start_coordinator();
        for (int k = 0; k < 1000 && access(status, F_OK); k++)
            dure_clock_sleep_ms(10);
        check_ends_well(&coordinator);
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_federation_errors_join_refuses_before_anything_is_reserved),
        TEST(test_federation_errors_join_fixes_no_budget_for_what_is_refused),
        TEST(test_federation_errors_an_expired_invitation_is_told_without_the_network),
        TEST(test_federation_errors_an_absent_coordinator_is_waited_for),
        TEST(test_federation_errors_an_invitation_works_once),
        TEST(test_federation_errors_an_invitation_of_another_federation),
        TEST(test_federation_errors_a_policy_names_its_rule),
        TEST(test_federation_errors_a_site_s_files_are_looked_at_when_it_starts),
        TEST(test_federation_errors_of_privacy_are_told_with_the_fix),
        TEST(test_federation_errors_missing_keys_are_told_with_the_fix),
        TEST(test_federation_errors_one_client_a_folder),
        TEST(test_federation_errors_many_signals_end_it_once),
    };
    return cmocka_run_group_tests_name("federation.errors", tests, NULL, NULL);
}
