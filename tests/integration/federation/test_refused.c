/* What the coordinator refuses, and what it says: invitations, folders, ports, disks. */
#include "village.h"

#include "common/clock.h"
#include "common/file.h"
#include "coordinator/folder.h"
#include "coordinator/founding.h"
#include "proto/messages.h"
#include "registry/blob.h"
#include "support/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

static village v;

static int teardown(void **state)
{
    (void)state;
    village_end(&v);
    return 0;
}

static bool all_joined(village *w)
{
    for (uint32_t i = 0; i < w->n; i++)
        if (!w->sites[i].joined) return false;
    return true;
}

static bool last_was_refused(village *w)
{
    return w->sites[w->n - 1].refusal != 0;
}

static void sign_invitation(const char *path, const char *admin, int64_t issued_s,
                            int64_t expires_s)
{
    dure_sign_key root, invite;
    char key[512];
    dure_invitation inv = v.sites[0].invitation;
    snprintf(key, sizeof key, "%s/%s", temp_dir_file(&v.dir, admin), DURE_ADMIN_ROOT_KEY);
    assert_ok(dure_sign_load(&root, key, NULL));
    assert_ok(dure_sign_generate(&invite));
    snprintf(inv.name, sizeof inv.name, "other");
    inv.issued_s = issued_s;
    inv.expires_s = expires_s;
    assert_ok(dure_invitation_sign(&inv, &invite, &root, NULL));
    assert_ok(dure_invitation_write(temp_dir_file(&v.dir, path), &inv, &invite, NULL));
}

/* One more site, with the invitation in the file. */
static void add_site(const char *invitation, const char *folder)
{
    char place[512];
    snprintf(place, sizeof place, "%s/%s", v.dir.path, folder);
    script_site_make(&v.sites[v.n], temp_dir_file(&v.dir, invitation), place);
    v.n++;
}

static void refused_with(uint32_t code, const char *words)
{
    script_site *s = &v.sites[v.n - 1];
    script_site_connect(s, true);
    assert_true(village_go(&v, last_was_refused, 60000));
    assert_int_equal(s->refusal, code);
    if (!strstr(s->words, words)) fail_msg("\"%s\" does not say \"%s\"", s->words, words);
}

static void test_an_invitation_works_once(void **state)
{
    (void)state;
    village_make(&v, 3, 0, 1);
    village_start(&v);
    village_join(&v);
    assert_true(village_go(&v, all_joined, 60000));
    add_site("site1.invitation", "again");
    refused_with(DURE_REFUSAL_INVITATION_USED, "used already");
}

static void test_an_invitation_expires(void **state)
{
    (void)state;
    village_make(&v, 1, 3, 1);
    village_start(&v);
    const int64_t now_s = dure_clock_wall_s();
    sign_invitation("old.invitation", "fed/admin", now_s - 100, now_s - 50);
    add_site("old.invitation", "old");
    refused_with(DURE_REFUSAL_INVITATION_EXPIRED, "expired");
}

static void test_an_invitation_of_another_federation_is_refused(void **state)
{
    (void)state;
    village_make(&v, 1, 3, 1);
    village_start(&v);
    assert_int_equal(village_run(&v, "init fed2 --name other --model base.gguf --eval eval.jsonl "
                                     "--endpoint tcp://127.0.0.1:1"),
                     0);
    const int64_t now_s = dure_clock_wall_s();
    sign_invitation("foreign.invitation", "fed2/admin", now_s, now_s + 1000);
    add_site("foreign.invitation", "foreign");
    refused_with(DURE_REFUSAL_INVITATION_FOREIGN, "another federation");
}

static void test_a_revoked_invitation_is_refused(void **state)
{
    (void)state;
    village_make(&v, 1, 3, 1);
    assert_int_equal(village_run(&v, "site revoke fed/admin site0"), 0);
    assert_int_equal(village_run(&v, "site revoke fed/admin site0"), 1);
    village_says(&v, "revoked already");
    assert_int_equal(village_run(&v, "site revoke fed/admin nobody"), 1);
    village_says(&v, "no site \"nobody\" was invited");
    village_start(&v);
    village_go(&v, NULL, 2500); /* the inbox is read */
    refused_with(DURE_REFUSAL_RECORD, "revoked");
}

static bool has_one(village *w)
{
    return village_all_have(w, 1);
}

static bool revocation_seen(village *w)
{
    return village_count(w, "site_revoked") > 0;
}

static void test_a_revoked_site_is_out_at_once(void **state)
{
    (void)state;
    village_make(&v, 4, 3, 1);
    village_start(&v);
    script_site_connect(&v.sites[0], true);
    script_site_connect(&v.sites[1], true);
    const uint32_t n = v.n;
    v.n = 2;
    assert_true(village_go(&v, all_joined, 60000));
    assert_int_equal(village_run(&v, "site revoke fed/admin site0"), 0);
    assert_true(village_go(&v, revocation_seen, 60000));
    v.n = n;
    script_site_connect(&v.sites[2], true);
    script_site_connect(&v.sites[3], true);
    script_site_die(&v.sites[0]);
    assert_true(village_go(&v, has_one, 60000));
    assert_true(village_saw(&v, "round_done", "of", "3"));
    assert_int_equal(village_run(&v, "site list fed/admin"), 0);
    village_says(&v, "revoked");
}

static void test_a_port_in_use_is_named(void **state)
{
    (void)state;
    village_make(&v, 1, 3, 1);
    village_start(&v);
    village_go(&v, NULL, 500);
    assert_int_equal(village_run(&v,
                                 "init fed2 --name other --model base.gguf --eval eval.jsonl "
                                 "--endpoint tcp://127.0.0.1:%u",
                                 v.port),
                     0);
    assert_int_equal(village_run(&v, "coordinator run fed2"), 1);
    char port[16];
    snprintf(port, sizeof port, "%u", v.port);
    village_says(&v, port);
    village_says(&v, "in use");
}

static void test_a_folder_takes_one_coordinator(void **state)
{
    (void)state;
    village_make(&v, 1, 3, 1);
    village_start(&v);
    village_go(&v, NULL, 500);
    assert_int_equal(village_run(&v, "coordinator run fed"), 1);
    village_says(&v, "another coordinator runs on");
}

static void test_an_altered_configuration_is_refused(void **state)
{
    (void)state;
    village_make(&v, 1, 3, 1);
    assert_int_equal(system(NULL) != 0, 1);
    char command[600];
    snprintf(command, sizeof command, "sed -i 's/  clip: 1/  clip: 2/' '%s'",
             temp_dir_file(&v.dir, "fed/coordinator/federation.yaml"));
    assert_int_equal(system(command), 0);
    assert_int_equal(village_run(&v, "coordinator run fed"), 1);
    village_says(&v, "was altered");
    village_says(&v, "federation.yaml");
}

static void test_a_malformed_configuration_names_its_line(void **state)
{
    (void)state;
    village_make(&v, 1, 3, 1);
    char command[600];
    snprintf(command, sizeof command, "sed -i 's/  clip: 1/  clip: much/' '%s'",
             temp_dir_file(&v.dir, "fed/coordinator/federation.yaml"));
    assert_int_equal(system(command), 0);
    assert_int_equal(village_run(&v, "coordinator run fed"), 1);
    village_says(&v, "clip");
    village_says(&v, "line");
}

static void test_another_model_is_refused(void **state)
{
    (void)state;
    village_make(&v, 1, 3, 1);
    dure_buf bytes;
    const char *path = temp_dir_file(&v.dir, "base.gguf");
    assert_ok(dure_file_read(&bytes, path, 1 << 24, NULL));
    bytes.data[bytes.n - 1] ^= 1;
    assert_ok(dure_file_write_atomic(path, dure_buf_span(&bytes), 0644, NULL));
    dure_buf_fini(&bytes);
    assert_int_equal(village_run(&v, "coordinator run fed"), 1);
    village_says(&v, "is not the base model");
}

static void test_wrong_folders_are_named(void **state)
{
    (void)state;
    village_make(&v, 1, 3, 1);
    assert_int_equal(village_run(&v, "coordinator run nowhere"), 1);
    village_says(&v, "'dure init' makes one");
    assert_int_equal(village_run(&v, "status nowhere"), 1);
    village_says(&v, "'dure init' made");
    assert_int_equal(village_run(&v, "invite nowhere x"), 1);
    assert_int_equal(village_run(&v, "invite fed/admin 'bad name'"), 2);
    village_says(&v, "site's name");
    assert_int_equal(village_run(&v, "invite fed/admin site0 -o site0.invitation"), 1);
    village_says(&v, "exists already");
    assert_int_equal(village_run(&v, "init fed --model base.gguf --eval eval.jsonl "
                                     "--endpoint tcp://127.0.0.1:1"),
                     1);
    village_says(&v, "holds a federation already");
    assert_int_equal(village_run(&v, "init fed3 --model base.gguf --eval eval.jsonl "
                                     "--endpoint 127.0.0.1:1"),
                     2);
    assert_int_equal(village_run(&v, "init fed3 --model base.gguf --eval eval.jsonl --endpoint "
                                     "tcp://127.0.0.1:1 --min-sites 2"),
                     2);
    village_says(&v, "--min-sites needs a whole number from 3 to 100");
    assert_int_equal(village_run(&v, "coordinator"), 2);
    assert_int_equal(village_run(&v, "site"), 2);
}

static bool trains(village *w)
{
    return village_saw(w, "round_state", "state", "training");
}

static bool coordinator_ended(village *w)
{
    char path[64];
    FILE *f;
    char state = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)w->coordinator);
    f = fopen(path, "r");
    if (!f) return true;
    if (fscanf(f, "%*d %*s %c", &state) != 1) state = 0;
    fclose(f);
    return state == 'Z';
}

static void coordinator_says(const char *text)
{
    dure_buf log;
    assert_ok(dure_file_read(&log, temp_dir_file(&v.dir, "coordinator.log"), 1 << 20, NULL));
    const size_t n = log.n < sizeof v.output - 1 ? log.n : sizeof v.output - 1;
    memcpy(v.output, log.data, n);
    v.output[n] = 0;
    dure_buf_fini(&log);
    village_says(&v, text);
}

/* What is wrong here is no fault of the site that asked: it ends the process, with its sentence. */
static void test_a_damaged_file_of_the_coordinator_s_own_ends_it(void **state)
{
    (void)state;
    village_make(&v, 3, 0, 2);
    village_start(&v);
    village_join(&v);
    assert_true(village_go(&v, has_one, 60000));
    dure_hash sum;
    dure_buf bytes;
    char *blobs = dure_path_join(temp_dir_file(&v.dir, "fed/coordinator"), DURE_FOLDER_BLOBS);
    memcpy(sum.b, v.sites[0].result.sum_digest, sizeof sum.b);
    char *path = dure_blob_path(blobs, &sum);
    assert_ok(dure_file_read(&bytes, path, 1 << 20, NULL));
    bytes.data[7] ^= 1;
    assert_ok(dure_file_write_atomic(path, dure_buf_span(&bytes), 0644, NULL));
    dure_buf_fini(&bytes);
    free(path);
    free(blobs);
    script_site_fetch_blob(&v.sites[0], sum.b);
    assert_true(village_go(&v, coordinator_ended, 60000));
    assert_int_equal(village_wait(&v), 1);
    coordinator_says("does not hold what its name says");
}

/* The spool's disk fills up in the middle of a round; with space again, the round goes on. */
static void test_a_full_disk_ends_plainly_and_loses_nothing(void **state)
{
    (void)state;
    village_make(&v, 3, 0, 1);
    char spool[300];
    snprintf(spool, sizeof spool, "%s/fed/coordinator/spool", v.dir.path);
    if (mount("tmpfs", spool, "tmpfs", 0, "size=16k")) {
        print_message("skipped: no right to mount a small disk\n");
        skip();
    }
    for (uint32_t i = 0; i < v.n; i++)
        v.sites[i].hold = true;
    village_start(&v);
    village_join(&v);
    assert_true(village_go(&v, trains, 60000));
    char filler[600];
    snprintf(filler, sizeof filler, "dd if=/dev/zero of='%s/filler' bs=1k count=64 2>/dev/null",
             spool);
    assert_int_not_equal(system(filler), 0);
    for (uint32_t i = 0; i < v.n; i++)
        v.sites[i].hold = false;
    const bool ended = village_go(&v, coordinator_ended, 60000);
    const int status = ended ? village_wait(&v) : 0;
    village_kill(&v);
    assert_int_equal(umount(spool), 0);
    assert_int_equal(status, 1);
    coordinator_says("the disk is full");
    village_start(&v);
    assert_true(village_go(&v, has_one, 60000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_an_invitation_works_once, teardown),
        cmocka_unit_test_teardown(test_an_invitation_expires, teardown),
        cmocka_unit_test_teardown(test_an_invitation_of_another_federation_is_refused, teardown),
        cmocka_unit_test_teardown(test_a_revoked_invitation_is_refused, teardown),
        cmocka_unit_test_teardown(test_a_revoked_site_is_out_at_once, teardown),
        cmocka_unit_test_teardown(test_a_port_in_use_is_named, teardown),
        cmocka_unit_test_teardown(test_a_folder_takes_one_coordinator, teardown),
        cmocka_unit_test_teardown(test_an_altered_configuration_is_refused, teardown),
        cmocka_unit_test_teardown(test_a_malformed_configuration_names_its_line, teardown),
        cmocka_unit_test_teardown(test_another_model_is_refused, teardown),
        cmocka_unit_test_teardown(test_wrong_folders_are_named, teardown),
        cmocka_unit_test_teardown(test_a_damaged_file_of_the_coordinator_s_own_ends_it, teardown),
        cmocka_unit_test_teardown(test_a_full_disk_ends_plainly_and_loses_nothing, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
