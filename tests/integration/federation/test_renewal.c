/* New keys for a site while its federation goes on: the old ones are refused at once, the budget
 * and the name stay, and a renewal may be cut off anywhere. */
#include "village.h"

#include "common/clock.h"
#include "common/file.h"
#include "support/check.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

enum { RECORDS = 60 };

static village v;
static pid_t clients[VILLAGE_MAX];

static void write_records(uint32_t site)
{
    char name[32];
    dure_buf text;
    dure_buf_init(&text, 1 << 16);
    for (uint32_t i = 0; i < RECORDS; i++)
        dure_put_format(&text, "{\"prompt\":\"after %u?\",\"response\":\"%u\"}\n",
                        i * (site + 3) % 97, i * (site + 3) % 97 + 1);
    snprintf(name, sizeof name, "site%u.jsonl", site);
    assert_ok(
        dure_file_write_atomic(temp_dir_file(&v.dir, name), dure_buf_span(&text), 0644, NULL));
    dure_buf_fini(&text);
}

static void join_all(void)
{
    for (uint32_t i = 0; i < v.n; i++) {
        write_records(i);
        const int status =
            village_run(&v,
                        "join site%u.invitation place%u --data site%u.jsonl --source records%u "
                        "--records %d --model base.gguf --epsilon 50 --delta 0.001 --ledger "
                        "ledger%u",
                        i, i, i, i, RECORDS, i);
        if (status) fail_msg("%s", v.output);
    }
}

static void start_client(uint32_t i)
{
    char folder[16], out[32], err[32];
    snprintf(folder, sizeof folder, "place%u", i);
    snprintf(out, sizeof out, "client%u.jsonl", i);
    snprintf(err, sizeof err, "client%u.log", i);
    const char *const arguments[] = {"dure",   "client",           "run", folder, "--threads", "1",
                                     "--json", "--exit-when-done", NULL};
    clients[i] = village_spawn(&v, out, err, arguments);
}

static void kill_client(uint32_t i)
{
    if (clients[i] <= 0) return;
    kill(clients[i], SIGKILL);
    waitpid(clients[i], NULL, 0);
    clients[i] = 0;
}

static int wait_client(uint32_t i)
{
    int status = 0;
    waitpid(clients[i], &status, 0);
    clients[i] = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static int teardown(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < VILLAGE_MAX; i++)
        kill_client(i);
    village_end(&v);
    return 0;
}

static void show_logs(const char *what)
{
    char command[600];
    snprintf(command, sizeof command, "cd '%s' && tail -n 15 events.jsonl coordinator.log client*",
             v.dir.path);
    if (system(command)) print_message("no log\n");
    fail_msg("%s", what);
}

static void wait_for(const char *event, size_t n, uint32_t seconds)
{
    for (uint32_t i = 0; i < seconds * 20 && village_count(&v, event) < n; i++)
        dure_clock_sleep_ms(50);
    if (village_count(&v, event) < n) show_logs(event);
}

static void in_folder(const char *command)
{
    char line[600];
    snprintf(line, sizeof line, "cd '%s' && %s", v.dir.path, command);
    assert_int_equal(system(line), 0);
}

static void must(const char *arguments)
{
    if (village_run(&v, "%s", arguments)) fail_msg("%s: %s", arguments, v.output);
}

static void refuses(const char *arguments, const char *says)
{
    assert_int_equal(village_run(&v, "%s", arguments), 1);
    village_says(&v, says);
}

/* A thief's copy of the folder, with the keys of before. */
static void start_thief(void)
{
    const char *const arguments[] = {"dure",      "client", "run",    "thief",
                                     "--threads", "1",      "--json", NULL};
    clients[VILLAGE_MAX - 1] = village_spawn(&v, "thief.jsonl", "thief.log", arguments);
}

static bool thief_heard(const char *text)
{
    dure_buf bytes;
    bool found = false;
    if (dure_file_read(&bytes, temp_dir_file(&v.dir, "thief.jsonl"), 1 << 20, NULL)) return false;
    dure_put_u8(&bytes, 0);
    if (!dure_buf_err(&bytes)) found = strstr((const char *)bytes.data, text) != NULL;
    dure_buf_fini(&bytes);
    return found;
}

static void test_renewed_keys_take_the_place_of_the_old_ones(void **state)
{
    (void)state;
    village_make_training(&v, 3, 0, 2, 3);
    village_start(&v);
    join_all();
    in_folder("cp -r place0 thief && rm -f thief/lock");
    start_client(1);
    start_client(2);
    must("site renew fed/admin site0 -o new0.invitation");
    village_says(&v, "are refused from now on");
    wait_for("site_revoked", 1, 20);
    start_thief();
    for (uint32_t i = 0; i < 400 && !thief_heard("coordinator_away"); i++)
        dure_clock_sleep_ms(50);
    assert_true(thief_heard("coordinator_away"));
    must("client renew place0 new0.invitation");
    village_says(&v, "has new keys");
    refuses("client renew place0 new0.invitation", "has these keys already");
    start_client(0);
    wait_for("round_done", 2, 60);
    assert_true(village_saw(&v, "round_done", "of", "3"));
    for (uint32_t i = 0; i < v.n; i++)
        if (wait_client(i)) show_logs("a site failed");
    assert_false(thief_heard("round_open"));
    assert_int_equal(village_wait(&v), 0);
    must("audit export fed/coordinator -o ledger.export");
    must("audit verify ledger.export");
    must("site list fed/admin");
    village_says(&v, "revoked");
}

static void test_renewal_is_for_the_same_site_alone(void **state)
{
    (void)state;
    village_make_training(&v, 3, 0, 1, 3);
    village_start(&v);
    join_all();
    must("site renew fed/admin site1 -o new1.invitation");
    refuses("client renew place0 new1.invitation", "another site");
    refuses("client renew nowhere new1.invitation", "no site's folder");
    refuses("site renew fed/admin nobody -o x.invitation", "no site \"nobody\" was invited");
    must("site revoke fed/admin site2");
    refuses("site renew fed/admin site2 -o x.invitation", "no keys to renew");
    must("client renew place1 new1.invitation");
}

/* Nobody answers: the folder is what it was. Then somebody does, and the same command goes on. */
static void test_renewal_that_is_cut_off_goes_on(void **state)
{
    (void)state;
    village_make_training(&v, 3, 0, 1, 3);
    village_start(&v);
    join_all();
    village_kill(&v);
    must("site renew fed/admin site0 -o new0.invitation");
    in_folder("cp place0/keys/sign.key before");
    refuses("client renew place0 new0.invitation --patience 1", "did not answer");
    in_folder("cmp place0/keys/sign.key before && cp place0/keys.new/sign.key after");
    village_start(&v);
    must("client renew place0 new0.invitation");
    in_folder("cmp place0/keys/sign.key after && test ! -e place0/keys.new");
    for (uint32_t i = 0; i < v.n; i++)
        start_client(i);
    wait_for("round_done", 1, 60);
}

/* The coordinator knows how long the ledger of a site of this name must be, whatever its keys. */
static void test_renewal_does_not_forget_what_was_spent(void **state)
{
    (void)state;
    village_make_training(&v, 3, 0, 4, 3);
    village_start(&v);
    join_all();
    in_folder("mkdir copy && cp -r place0 ledger0 ledger0.head copy");
    for (uint32_t i = 0; i < v.n; i++)
        start_client(i);
    wait_for("round_done", 2, 60);
    for (uint32_t i = 0; i < v.n; i++)
        kill_client(i);
    in_folder("rm -rf place0 ledger0 && mv copy/place0 copy/ledger0 copy/ledger0.head .");
    must("site renew fed/admin site0 -o new0.invitation");
    must("client renew place0 new0.invitation");
    refuses("client run place0 --threads 1", "an older copy was put back");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_renewed_keys_take_the_place_of_the_old_ones, teardown),
        cmocka_unit_test_teardown(test_renewal_is_for_the_same_site_alone, teardown),
        cmocka_unit_test_teardown(test_renewal_that_is_cut_off_goes_on, teardown),
        cmocka_unit_test_teardown(test_renewal_does_not_forget_what_was_spent, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
