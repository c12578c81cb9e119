/* A real federation of five sites trains three rounds; then its export is tampered with in more
 * than forty ways. `dure audit verify` must catch each and name what was touched.
 *
 * With --subjects the federation protects subjects, three records each; with --sites whole sites,
 * by noise that they share. With --write DIR the export and its copies are left there for another
 * verifier, with what must be named in DIR/expected.json (tests/oracle/ledger_parity.sh). */
#include "../federation/village.h"
#include "copies.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/json.h"
#include "support/check.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

enum { RECORDS = 60, SUBJECTS = 20, ROUNDS = 3, STEPS = 2 };

static bool of_subjects, of_sites; /* --subjects, --sites */
static village v;
static pid_t clients[COPIES_SITES];
static dure_buf whole; /* the export */
static char root_hex[65];
static dure_sign_key coordinator, sites[COPIES_SITES];

static void join(uint32_t i)
{
    char name[32];
    dure_buf text;
    dure_buf_init(&text, 1 << 16);
    for (uint32_t k = 0; k < RECORDS; k++)
        dure_put_format(&text, "{%s%.0u%s\"prompt\":\"after %u?\",\"response\":\"%u\"}\n",
                        of_subjects ? "\"subject\":" : "", of_subjects ? k % SUBJECTS + 1 : 0,
                        of_subjects ? "," : "", k * (i + 3) % 97, k * (i + 3) % 97 + 1);
    snprintf(name, sizeof name, "site%u.jsonl", i);
    assert_ok(
        dure_file_write_atomic(temp_dir_file(&v.dir, name), dure_buf_span(&text), 0644, NULL));
    dure_buf_fini(&text);
    if (village_run(
            &v,
            "join site%u.invitation place%u --data site%u.jsonl --source records%u "
            "--records %d --model base.gguf --epsilon 50 --delta 0.001 --ledger ledger%u %s",
            i, i, i, i, of_subjects ? SUBJECTS : RECORDS, i, of_sites ? "--accept-site-level" : ""))
        fail_msg("%s", v.output);
    snprintf(name, sizeof name, "place%u/keys/sign.key", i);
    assert_ok(dure_sign_load(&sites[i], temp_dir_file(&v.dir, name), NULL));
}

static void start(uint32_t i)
{
    char folder[16], out[32], err[32];
    snprintf(folder, sizeof folder, "place%u", i);
    snprintf(out, sizeof out, "client%u.jsonl", i);
    snprintf(err, sizeof err, "client%u.log", i);
    const char *const arguments[] = {"dure",   "client",           "run", folder, "--threads", "1",
                                     "--json", "--exit-when-done", NULL};
    clients[i] = village_spawn(&v, out, err, arguments);
}

static void train(void)
{
    if (of_subjects)
        village_make_of_subjects(&v, COPIES_SITES, ROUNDS, STEPS);
    else if (of_sites)
        village_make_of_sites(&v, COPIES_SITES, COPIES_SITES - 1, ROUNDS, STEPS);
    else
        village_make_training(&v, COPIES_SITES, 0, ROUNDS, STEPS);
    village_start(&v);
    for (uint32_t i = 0; i < COPIES_SITES; i++)
        join(i);
    for (uint32_t i = 0; i < COPIES_SITES; i++)
        start(i);
    for (uint32_t i = 0; i < 2400 && village_count(&v, "round_done") < ROUNDS; i++)
        dure_clock_sleep_ms(50);
    if (village_wait(&v)) fail_msg("the coordinator failed");
    for (uint32_t i = 0; i < COPIES_SITES; i++) {
        int status = 1;
        waitpid(clients[i], &status, 0);
        clients[i] = 0;
        if (!WIFEXITED(status) || WEXITSTATUS(status)) fail_msg("site %u failed", i);
    }
}

static int setup(void **state)
{
    (void)state;
    train();
    assert_int_equal(village_run(&v, "audit export fed -o whole.dure"), 0);
    assert_ok(dure_file_read(&whole, temp_dir_file(&v.dir, "whole.dure"), 1 << 20, NULL));
    assert_ok(
        dure_sign_load(&coordinator, temp_dir_file(&v.dir, "fed/coordinator/keys/sign.key"), NULL));
    dure_hex_encode(root_hex, v.sites[0].invitation.root_public, 32);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < COPIES_SITES; i++)
        if (clients[i] > 0) kill(clients[i], SIGKILL), waitpid(clients[i], NULL, 0);
    dure_buf_fini(&whole);
    village_end(&v);
    return 0;
}

static verdict make_copy(tampering *t, size_t kind)
{
    memset(t, 0, sizeof *t);
    t->coordinator = coordinator;
    for (uint32_t i = 0; i < COPIES_SITES; i++) {
        t->sites[i] = sites[i];
        snprintf(t->names[i], sizeof t->names[i], "site%u", i);
    }
    tampering_begin(t, dure_buf_span(&whole));
    assert_int_equal(t->n_rounds, ROUNDS);
    verdict expected = copy_make(&copy_kinds[kind], t);
    tampering_assemble(t);
    return expected;
}

static int number_at(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    assert_non_null(value);
    return json_is_integer(value) ? (int)json_integer_value(value) : -1;
}

/* Whether verification fails and names just that. */
static bool is_caught(tampering *t, size_t kind, verdict expected)
{
    const char *name = copy_kinds[kind].name;
    assert_ok(dure_file_write_atomic(temp_dir_file(&v.dir, "copy.dure"), dure_buf_span(&t->file),
                                     0644, NULL));
    int status = village_run(&v, "audit verify copy.dure --json%s%s%s",
                             t->with_checkpoint ? " --checkpoint place0/checkpoint" : "",
                             t->with_root ? " --root " : "", t->with_root ? root_hex : "");
    if (status != 1) {
        print_error("'%s' was not caught: exit %d: %s\n", name, status, v.output);
        return false;
    }
    /* The sentence for people is on stderr, in the same output. */
    const char *object = strchr(v.output, '{');
    assert_non_null(object);
    json_t *found = json_loads(object, JSON_DISABLE_EOF_CHECK, NULL);
    assert_non_null(found);
    int first = number_at(found, "entry"), last = number_at(found, "last_entry");
    int checkpoint = number_at(found, "checkpoint");
    if (checkpoint < 0) checkpoint = 0;
    bool same =
        first == expected.first && last == expected.last && checkpoint == expected.checkpoint;
    if (!same)
        print_error("'%s': expected entries %d..%d, checkpoint %d; not %s\n", name, expected.first,
                    expected.last, expected.checkpoint, v.output);
    print_message("%-46s %s\n", name, json_string_value(json_object_get(found, "error")));
    json_decref(found);
    return same;
}

static void test_audit_accepts_the_export(void **state)
{
    (void)state;
    if (village_run(&v, "audit verify whole.dure --root %s --checkpoint place0/checkpoint",
                    root_hex))
        fail_msg("%s", v.output);
    village_says(&v, "3 closed, 0 aborted");
    village_says(&v, "15 cosignatures of sites, all valid");
    village_says(&v, of_subjects ? "  subject  " : of_sites ? "  site  " : "  record  ");
}

static void test_audit_catches_every_copy(void **state)
{
    (void)state;
    size_t n_caught = 0;
    assert_true(copy_kinds_n >= 40);
    for (size_t i = 0; i < copy_kinds_n; i++) {
        tampering *t = calloc(1, sizeof *t);
        assert_non_null(t);
        verdict expected = make_copy(t, i);
        n_caught += is_caught(t, i, expected);
        tampering_end(t);
        free(t);
    }
    assert_int_equal(n_caught, copy_kinds_n);
}

/* ---- for another verifier ---- */

static void write_to(const char *dir, const char *name, dure_span bytes)
{
    char *path = dure_path_join(dir, name);
    assert_non_null(path);
    assert_ok(dure_file_write_atomic(path, bytes, 0644, NULL));
    free(path);
}

static void copy_out(const char *dir, const char *name, const char *from)
{
    dure_buf bytes;
    assert_ok(dure_file_read(&bytes, temp_dir_file(&v.dir, from), 1 << 20, NULL));
    write_to(dir, name, dure_buf_span(&bytes));
    dure_buf_fini(&bytes);
}

static void write_all(const char *dir)
{
    json_t *list = json_array();
    write_to(dir, "whole.dure", dure_buf_span(&whole));
    copy_out(dir, "checkpoint", "place0/checkpoint");
    copy_out(dir, "site-ledger", "ledger0");
    for (size_t i = 0; i < copy_kinds_n; i++) {
        char file[32];
        tampering *t = calloc(1, sizeof *t);
        assert_non_null(t);
        verdict expected = make_copy(t, i);
        snprintf(file, sizeof file, "copy%02zu.dure", i);
        write_to(dir, file, dure_buf_span(&t->file));
        json_array_append_new(
            list, json_pack("{s:s, s:s, s:i, s:i, s:i, s:b, s:b}", "file", file, "name",
                            copy_kinds[i].name, "entry", expected.first, "last_entry",
                            expected.last, "checkpoint", expected.checkpoint, "with_checkpoint",
                            (int)t->with_checkpoint, "with_root", (int)t->with_root));
        tampering_end(t);
        free(t);
    }
    json_t *all = json_pack("{s:s, s:o}", "root", root_hex, "copies", list);
    char *path = dure_path_join(dir, "expected.json");
    assert_true(all && path);
    assert_ok(dure_json_write(path, all, 0644, NULL));
    json_decref(all);
    free(path);
}

static const char *write_dir;

static void write_copies(void **state)
{
    (void)state;
    write_all(write_dir);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_audit_accepts_the_export),
        cmocka_unit_test(test_audit_catches_every_copy),
    };
    const struct CMUnitTest writing[] = {cmocka_unit_test(write_copies)};
    of_subjects = argc > 1 && strcmp(argv[argc - 1], "--subjects") == 0;
    of_sites = argc > 1 && strcmp(argv[argc - 1], "--sites") == 0;
    if (argc >= 3 && strcmp(argv[1], "--write") == 0) {
        write_dir = argv[2];
        return cmocka_run_group_tests_name("audit.copies", writing, setup, teardown);
    }
    return cmocka_run_group_tests_name("audit.copies", tests, setup, teardown);
}
