#include "client/site.h"
#include "support/check.h"
#include "support/temp_dir.h"
#include "unit/federation/fixture.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static fixture f;

static void make(dure_site *site)
{
    dure_invitation invitation;
    dure_sign_key invite;
    dure_policy policy = {.federation = "village",
                          .name = "ash",
                          .endpoint = "tcp://127.0.0.1:1",
                          .data = "/nowhere",
                          .source = "records",
                          .records = 1000,
                          .model = "/nowhere",
                          .budget = {50, 1e-5},
                          .modes = DURE_POLICY_MODE(DURE_PRIVACY_RECORD),
                          .max_rate = 1,
                          .max_clip = 1,
                          .n_bases = 1};
    dure_diag diag = {0};
    snprintf(policy.ledger, sizeof policy.ledger, "%s", temp_dir_file(&test_dir, "ledger"));
    fixture_make(&f);
    fixture_invite(&invitation, &invite, &f, "ash");
    if (dure_site_make(site, temp_dir_file(&test_dir, "ash"), &policy, &invitation, &diag)) {
        fail_msg("%s", diag.text);
    }
}

static void test_site_opens_as_it_was_left(void **state)
{
    (void)state;
    dure_site site, again;
    dure_diag diag = {0};
    make(&site);
    uint8_t sign_public[32];
    memcpy(sign_public, site.sign.public_, 32);
    dure_site_state *s = &site.state;
    s->joined = s->reserved = true;
    s->declared = (dure_declared){1000, 5, 16, 70000, 65536};
    s->steps_used = 12;
    s->last_round = 7;
    s->rounds_done = 4;
    s->signed_round = 7;
    memset(s->signed_t3.b, 3, 32);
    memset(s->round_hash.b, 4, 32);
    s->round_u2 = dure_members_first(70);
    s->round_u3 = dure_members_first(66);
    memset(s->result_t3.b, 5, 32);
    memset(s->result_adapter.b, 6, 32);
    s->result_index = 77;
    dure_put_raw(&s->reply, "reply", 5);
    dure_put_raw(&s->round_config, "config", 6);
    assert_ok(dure_site_save_state(&site, NULL));
    dure_site_close(&site);
    if (dure_site_open(&again, temp_dir_file(&test_dir, "ash"), &diag)) fail_msg("%s", diag.text);
    s = &again.state;
    assert_memory_equal(again.sign.public_, sign_public, 32);
    assert_true(s->joined && s->reserved);
    assert_int_equal(s->declared.sigma_num, 70000);
    assert_int_equal(s->steps_used, 12);
    assert_int_equal(s->last_round, 7);
    assert_int_equal(s->signed_t3.b[31], 3);
    assert_int_equal(s->reply.n, 5);
    assert_int_equal(dure_members_count(&s->round_u2), 70);
    assert_int_equal(dure_members_count(&s->round_u3), 66);
    assert_int_equal(s->result_t3.b[0], 5);
    assert_int_equal(s->result_adapter.b[31], 6);
    assert_int_equal(s->result_index, 77);
    assert_memory_equal(s->round_config.data, "config", 6);
    assert_string_equal(again.policy.name, "ash");
    assert_string_equal(again.invitation.name, "ash");
    dure_site_close(&again);
}

/* Version 3 is the present one without its last field, 2 without the last two; the file stays
 * beside the new one. */
static void test_site_reads_older_state_and_keeps_a_copy(void **state)
{
    (void)state;
    dure_site site;
    dure_buf bytes, kept;
    char path[512];
    make(&site);
    site.state.steps_used = 12;
    assert_ok(dure_site_save_state(&site, NULL));
    dure_site_close(&site);
    snprintf(path, sizeof path, "%s/state.bin", temp_dir_file(&test_dir, "ash"));
    assert_ok(dure_file_read(&bytes, path, 1 << 20, NULL));
    bytes.data[4 + strlen("DURE/1/site-state") + 3] = 2;
    bytes.n -= 16;
    assert_ok(dure_file_write_atomic(path, dure_buf_span(&bytes), 0600, NULL));
    assert_ok(dure_site_open(&site, temp_dir_file(&test_dir, "ash"), NULL));
    assert_int_equal(site.state.steps_used, 12);
    dure_site_close(&site);
    snprintf(path, sizeof path, "%s/state.bin.old", temp_dir_file(&test_dir, "ash"));
    assert_ok(dure_file_read(&kept, path, 1 << 20, NULL));
    assert_int_equal(kept.n, bytes.n);
    assert_memory_equal(kept.data, bytes.data, bytes.n);
    dure_buf_fini(&kept);
    bytes.data[4 + strlen("DURE/1/site-state") + 3] = 9; /* of a newer Dure */
    snprintf(path, sizeof path, "%s/state.bin", temp_dir_file(&test_dir, "ash"));
    assert_ok(dure_file_write_atomic(path, dure_buf_span(&bytes), 0600, NULL));
    assert_err(dure_site_open(&site, temp_dir_file(&test_dir, "ash"), NULL), DURE_ERR_FORMAT);
    dure_buf_fini(&bytes);
}

/* Then a result that a site knew counted as followed. */
static void test_site_reads_what_is_proven_of_older_state(void **state)
{
    (void)state;
    dure_site site;
    dure_buf bytes;
    char path[512];
    make(&site);
    site.state.result_index = 6;
    site.state.proven = 5;
    assert_ok(dure_site_save_state(&site, NULL));
    dure_site_close(&site);
    assert_ok(dure_site_open(&site, temp_dir_file(&test_dir, "ash"), NULL));
    assert_int_equal(site.state.proven, 5);
    dure_site_close(&site);
    snprintf(path, sizeof path, "%s/state.bin", temp_dir_file(&test_dir, "ash"));
    assert_ok(dure_file_read(&bytes, path, 1 << 20, NULL));
    bytes.data[4 + strlen("DURE/1/site-state") + 3] = 3;
    bytes.n -= 8;
    assert_ok(dure_file_write_atomic(path, dure_buf_span(&bytes), 0600, NULL));
    assert_ok(dure_site_open(&site, temp_dir_file(&test_dir, "ash"), NULL));
    assert_int_equal(site.state.result_index, 6);
    assert_int_equal(site.state.proven, 7);
    dure_site_close(&site);
    dure_buf_fini(&bytes);
}

static void test_site_folder_serves_one_process(void **state)
{
    (void)state;
    dure_site site, second;
    dure_diag diag = {0};
    make(&site);
    assert_err(dure_site_open(&second, temp_dir_file(&test_dir, "ash"), &diag), DURE_ERR_BUSY);
    assert_non_null(strstr(diag.text, "another process uses"));
    dure_site_close(&site);
    assert_ok(dure_site_open(&second, temp_dir_file(&test_dir, "ash"), NULL));
    dure_site_close(&second);
}

static void test_site_folder_is_never_overwritten(void **state)
{
    (void)state;
    dure_site site, second;
    dure_diag diag = {0};
    make(&site);
    dure_policy policy = site.policy;
    dure_invitation invitation = site.invitation;
    dure_site_close(&site);
    assert_err(
        dure_site_make(&second, temp_dir_file(&test_dir, "ash"), &policy, &invitation, &diag),
        DURE_ERR_EXISTS);
    assert_err(dure_site_open(&second, temp_dir_file(&test_dir, "elsewhere"), &diag),
               DURE_ERR_NOT_FOUND);
    assert_non_null(strstr(diag.text, "dure join"));
}

static void test_site_making_that_was_cut_off_is_begun_again(void **state)
{
    (void)state;
    static const char *const written[] = {"ash/site.yaml", "ash/state.bin", "ash/federation.bin",
                                          "ash/keys/curve.key"};
    for (size_t n = 1; n <= sizeof written / sizeof written[0]; n++) {
        dure_site site;
        make(&site);
        dure_site_close(&site);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(unlink(temp_dir_file(&test_dir, written[i])), 0);
        make(&site);
        dure_site_close(&site);
        assert_ok(dure_site_open(&site, temp_dir_file(&test_dir, "ash"), NULL));
        dure_site_close(&site);
        assert_int_equal(unlink(temp_dir_file(&test_dir, "ash/site.yaml")), 0);
    }
}

/* A site that has joined loses a file, so that nobody joins again over what is left. */
static void lose(const char *file, const char *says)
{
    dure_site site, second;
    dure_diag diag = {0};
    make(&site);
    site.state.joined = true;
    assert_ok(dure_site_save_state(&site, NULL));
    dure_policy policy = site.policy;
    dure_invitation invitation = site.invitation;
    dure_site_close(&site);
    assert_int_equal(unlink(temp_dir_file(&test_dir, file)), 0);
    assert_err(
        dure_site_make(&second, temp_dir_file(&test_dir, "ash"), &policy, &invitation, &diag),
        DURE_ERR_EXISTS);
    if (!strstr(diag.text, says)) fail_msg("%s", diag.text);
}

static void test_site_that_lost_its_policy_keeps_its_keys(void **state)
{
    (void)state;
    lose("ash/site.yaml", "lost its site.yaml");
    assert_int_equal(access(temp_dir_file(&test_dir, "ash/keys/sign.key"), F_OK), 0);
}

static void test_site_that_lost_its_keys_can_renew_them(void **state)
{
    (void)state;
    dure_site site;
    dure_diag diag = {0};
    lose("ash/keys/sign.key", "lost its keys");
    assert_err(dure_site_open(&site, temp_dir_file(&test_dir, "ash"), &diag), DURE_ERR_NOT_FOUND);
    assert_non_null(strstr(diag.text, "'dure client renew'"));
    assert_ok(dure_site_open_to_renew(&site, temp_dir_file(&test_dir, "ash"), NULL));
    assert_true(site.state.joined);
    dure_site_close(&site);
}

static void test_site_keys_are_for_the_owner_alone(void **state)
{
    (void)state;
    static const char *const files[] = {"ash/keys/sign.key", "ash/keys/curve.key", "ash/state.bin",
                                        "ash/site.yaml"};
    dure_site site;
    make(&site);
    dure_site_close(&site);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        struct stat info;
        assert_int_equal(stat(temp_dir_file(&test_dir, files[i]), &info), 0);
        assert_int_equal(info.st_mode & 0777, 0600);
    }
}

static void test_site_state_is_refused_when_damaged(void **state)
{
    (void)state;
    dure_site site;
    make(&site);
    dure_site_close(&site);
    char path[512];
    snprintf(path, sizeof path, "%s", temp_dir_file(&test_dir, "ash/state.bin"));
    dure_buf bytes;
    assert_ok(dure_file_read(&bytes, path, 1 << 20, NULL));
    for (size_t n = 0; n < bytes.n; n += 1 + bytes.n / 37) {
        dure_diag diag = {0};
        assert_ok(dure_file_write_atomic(path, (dure_span){bytes.data, n}, 0600, NULL));
        assert_err(dure_site_open(&site, temp_dir_file(&test_dir, "ash"), &diag), DURE_ERR_FORMAT);
        assert_non_null(strstr(diag.text, "state.bin"));
    }
    dure_buf_fini(&bytes);
}

static void test_site_refuses_an_older_ledger(void **state)
{
    (void)state;
    dure_site site;
    dure_site_ledger *ledger = NULL;
    dure_diag diag = {0};
    make(&site);
    assert_ok(dure_site_open_ledger(&ledger, &site, NULL));
    assert_ok(dure_site_ledger_create_source(ledger, "first", site.policy.budget, 1000, NULL));
    dure_buf old;
    assert_ok(dure_file_read(&old, site.policy.ledger, 1 << 20, NULL));
    assert_ok(dure_site_ledger_create_source(ledger, "second", site.policy.budget, 1000, NULL));
    dure_site_note_ledger(&site, ledger);
    dure_site_ledger_close(&ledger);
    assert_ok(dure_site_open_ledger(&ledger, &site, NULL));
    dure_site_ledger_close(&ledger);
    assert_ok(dure_file_write_atomic(site.policy.ledger, dure_buf_span(&old), 0600, NULL));
    assert_err(dure_site_open_ledger(&ledger, &site, &diag), DURE_ERR_STATE);
    assert_null(ledger);
    assert_non_null(strstr(diag.text, "older copy"));
    dure_buf_fini(&old);
    dure_site_close(&site);
}

/* Only DIR goes back to a backup; the owner's ledger knows what was used since. */
static void test_site_restored_from_a_backup_follows_the_ledger(void **state)
{
    (void)state;
    const dure_dp_plan plan = {.mechanism = DURE_DP_POISSON_GAUSSIAN,
                               .full = true,
                               .sigma_num = 40 * DURE_DP_SIGMA_DEN,
                               .clip = 1,
                               .grid_bits = 15,
                               .steps = 100,
                               .n_pub = 1000,
                               .batch = 1000};
    const dure_ledger_use first = {4, 0, 40}, last = {10, 40, 100};
    dure_site site;
    dure_site_ledger *ledger = NULL;
    dure_diag diag = {0};
    dure_buf backup;
    char path[512];
    make(&site);
    snprintf(path, sizeof path, "%s", temp_dir_file(&test_dir, "ash/state.bin"));
    assert_ok(dure_site_open_ledger(&ledger, &site, NULL));
    assert_ok(dure_site_ledger_create_source(ledger, "records", site.policy.budget, 1000, NULL));
    dure_reservation_id *id = &site.state.reservation;
    if (dure_site_ledger_reserve(id, ledger, "records", &plan, "test", &diag))
        fail_msg("%s", diag.text);
    assert_ok(dure_site_ledger_spend(ledger, id, NULL));
    assert_ok(dure_site_ledger_use(ledger, id, &first, NULL));
    site.state.reserved = true;
    site.state.steps_used = 40;
    site.state.last_round = 4;
    dure_site_note_ledger(&site, ledger);
    assert_ok(dure_site_save_state(&site, NULL));
    assert_ok(dure_file_read(&backup, path, 1 << 20, NULL));
    assert_ok(dure_site_ledger_use(ledger, id, &last, NULL));
    dure_site_ledger_close(&ledger);
    dure_site_close(&site);
    assert_ok(dure_file_write_atomic(path, dure_buf_span(&backup), 0600, NULL));
    assert_ok(dure_site_open(&site, temp_dir_file(&test_dir, "ash"), NULL));
    assert_int_equal(site.state.steps_used, 40);
    assert_ok(dure_site_open_ledger(&ledger, &site, NULL)); /* it contains the older head */
    assert_ok(dure_site_follow_ledger(&site, ledger, NULL));
    assert_int_equal(site.state.steps_used, 100);
    assert_int_equal(site.state.last_round, 10);
    dure_site_ledger_close(&ledger);
    dure_buf_fini(&backup);
    dure_site_close(&site);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, test_dir_setup, test_dir_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_site_opens_as_it_was_left),
        TEST(test_site_reads_older_state_and_keeps_a_copy),
        TEST(test_site_reads_what_is_proven_of_older_state),
        TEST(test_site_folder_serves_one_process),
        TEST(test_site_folder_is_never_overwritten),
        TEST(test_site_making_that_was_cut_off_is_begun_again),
        TEST(test_site_that_lost_its_policy_keeps_its_keys),
        TEST(test_site_that_lost_its_keys_can_renew_them),
        TEST(test_site_keys_are_for_the_owner_alone),
        TEST(test_site_state_is_refused_when_damaged),
        TEST(test_site_refuses_an_older_ledger),
        TEST(test_site_restored_from_a_backup_follows_the_ledger),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
