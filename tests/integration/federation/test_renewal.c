/* New keys for a site while its federation goes on: the old ones are refused at once, the budget
 * and the name stay, and a renewal may be cut off anywhere. */
#include "real_sites.h"

#include "common/clock.h"
#include "common/file.h"
#include "support/check.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static real_sites r;

static int teardown(void **state)
{
    (void)state;
    real_sites_end(&r);
    return 0;
}

static void in_folder(const char *command)
{
    char line[600];
    snprintf(line, sizeof line, "cd '%s' && %s", r.v.dir.path, command);
    assert_int_equal(system(line), 0);
}

static void must(const char *arguments)
{
    if (village_run(&r.v, "%s", arguments)) fail_msg("%s: %s", arguments, r.v.output);
}

static void refuses(const char *arguments, const char *says)
{
    assert_int_equal(village_run(&r.v, "%s", arguments), 1);
    village_says(&r.v, says);
}

/* A thief's copy of the folder, with the keys of before. */
static void start_thief(void)
{
    const char *const arguments[] = {"dure",      "client", "run",    "thief",
                                     "--threads", "1",      "--json", NULL};
    r.clients[VILLAGE_MAX - 1] = village_spawn(&r.v, "thief.jsonl", "thief.log", arguments);
}

static bool thief_heard(const char *text)
{
    dure_buf bytes;
    bool found = false;
    if (dure_file_read(&bytes, temp_dir_file(&r.v.dir, "thief.jsonl"), 1 << 20, NULL)) return false;
    dure_put_u8(&bytes, 0);
    if (!dure_buf_err(&bytes)) found = strstr((const char *)bytes.data, text) != NULL;
    dure_buf_fini(&bytes);
    return found;
}

static void test_renewed_keys_take_the_place_of_the_old_ones(void **state)
{
    (void)state;
    village_make_training(&r.v, 3, 0, 2, 3);
    village_start(&r.v);
    real_sites_join(&r);
    in_folder("cp -r place0 thief && rm -f thief/lock");
    real_site_start(&r, 1);
    real_site_start(&r, 2);
    must("site renew fed/admin site0 -o new0.invitation");
    village_says(&r.v, "are refused from now on");
    real_sites_wait_for(&r, "site_revoked", 1, 20);
    start_thief();
    for (uint32_t i = 0; i < 400 && !thief_heard("coordinator_away"); i++)
        dure_clock_sleep_ms(50);
    assert_true(thief_heard("coordinator_away"));
    must("client renew place0 new0.invitation");
    village_says(&r.v, "has new keys");
    refuses("client renew place0 new0.invitation", "has these keys already");
    real_site_start(&r, 0);
    real_sites_wait_for(&r, "round_done", 2, 60);
    assert_true(village_saw(&r.v, "round_done", "of", "3"));
    for (uint32_t i = 0; i < r.v.n; i++)
        if (real_site_wait(&r, i)) real_sites_fail(&r, "a site failed");
    assert_false(thief_heard("round_open"));
    assert_int_equal(village_wait(&r.v), 0);
    must("audit export fed/coordinator -o ledger.export");
    must("audit verify ledger.export");
    must("site list fed/admin");
    village_says(&r.v, "revoked");
}

static void test_renewal_is_for_the_same_site_alone(void **state)
{
    (void)state;
    village_make_training(&r.v, 3, 0, 1, 3);
    village_start(&r.v);
    real_sites_join(&r);
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
    village_make_training(&r.v, 3, 0, 1, 3);
    village_start(&r.v);
    real_sites_join(&r);
    village_kill(&r.v);
    must("site renew fed/admin site0 -o new0.invitation");
    in_folder("cp place0/keys/sign.key before");
    refuses("client renew place0 new0.invitation --timeout 1", "did not answer");
    in_folder("cmp place0/keys/sign.key before && cp place0/keys.new/sign.key after");
    village_start(&r.v);
    must("client renew place0 new0.invitation");
    in_folder("cmp place0/keys/sign.key after && test ! -e place0/keys.new");
    for (uint32_t i = 0; i < r.v.n; i++)
        real_site_start(&r, i);
    real_sites_wait_for(&r, "round_done", 1, 60);
}

/* It is written once a second. */
static void status_comes_to_say(const char *text)
{
    for (uint32_t i = 0; i < 200; i++) {
        must("status fed");
        if (strstr(r.v.output, text)) return;
        dure_clock_sleep_ms(100);
    }
    village_says(&r.v, text);
}

static void test_renewal_helps_a_site_that_lost_its_keys(void **state)
{
    (void)state;
    village_make_training(&r.v, 3, 0, 1, 3);
    village_start(&r.v);
    real_sites_join(&r);
    in_folder("rm -r place0/keys");
    refuses("client run place0 --threads 1", "'dure site renew'");
    must("site renew fed/admin site0 -o new0.invitation");
    real_sites_wait_for(&r, "site_revoked", 1, 20);
    for (uint32_t i = 1; i < r.v.n; i++)
        real_site_start(&r, i);
    status_comes_to_say("2 of at least 3 are here, and only 2 are members: invite more; revoked: "
                        "site0\n");
    must("client renew place0 new0.invitation");
    status_comes_to_say("2 of at least 3 are here; missing: site0\n");
    if (strstr(r.v.output, "revoked")) fail_msg("%s", r.v.output);
    real_site_start(&r, 0);
    real_sites_wait_for(&r, "round_done", 1, 60);
}

/* The coordinator knows how long the ledger of a site of this name must be, whatever its keys. */
static void test_renewal_does_not_forget_what_was_spent(void **state)
{
    (void)state;
    village_make_training(&r.v, 3, 0, 4, 3);
    village_start(&r.v);
    real_sites_join(&r);
    in_folder("mkdir copy && cp -r place0 ledger0 ledger0.head copy");
    for (uint32_t i = 0; i < r.v.n; i++)
        real_site_start(&r, i);
    real_sites_wait_for(&r, "round_done", 2, 60);
    for (uint32_t i = 0; i < r.v.n; i++)
        real_site_kill(&r, i);
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
        cmocka_unit_test_teardown(test_renewal_helps_a_site_that_lost_its_keys, teardown),
        cmocka_unit_test_teardown(test_renewal_does_not_forget_what_was_spent, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
