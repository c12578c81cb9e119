/* `dure init`, `invite`, `site` and `demo`: what is refused leaves no folder, no record and no
 * invitation behind, and removes nothing. */
#include "common/file.h"
#include "support/check.h"
#include "support/program.h"
#include "support/tiny_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static program p;

static int setup(void **state)
{
    (void)state;
    program_make(&p, DURE_BINARY);
    tiny_model_write(temp_dir_file(&p.dir, "model.gguf"), &(tiny_model_opts){.seed = 5});
    program_put(&p, "data.jsonl", "{\"prompt\":\"say 1\",\"response\":\"word\"}\n");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    program_end(&p);
    return 0;
}

static void check_refused(const char *arguments, int status, const char *sentence)
{
    const int got = program_run(&p, "%s", arguments);
    if (got != status) fail_msg("%s: exit %d, %s", arguments, got, p.err);
    program_says(&p, sentence);
}

#define INIT                                                                                       \
    "init fed --model model.gguf --eval data.jsonl --rank 4 --endpoint tcp://127.0.0.1:7001 "

static void test_init_names_the_option_and_its_range(void **state)
{
    (void)state;
    static const struct {
        const char *options, *sentence;
    } rows[] = {
        {"--rounds 9999999999", "--rounds needs a whole number from 1 to 100000, not '9999999999'"},
        {"--rounds 0", "--rounds needs a whole number from 1 to 100000, not '0'"},
        {"--seed 9999999999999999999",
         "--seed needs a whole number from 0 to 9223372036854775807, not '"},
        {"--u-min 0", "--u-min needs a whole number from 3 to 100, not '0'"},
        {"--alpha 0", "--alpha must be above 0 and at most 65536, not 0"},
        {"--alpha=-5", "--alpha must be above 0 and at most 65536, not -5"},
        {"--batch 1048577", "--batch needs a whole number from 1 to 1048576, not '1048577'"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char arguments[512];
        snprintf(arguments, sizeof arguments, "%s%s", INIT, rows[i].options);
        check_refused(arguments, 2, rows[i].sentence);
        assert_false(program_has(&p, "fed"));
    }
    /* Each range's ends are the terms' own. */
    assert_int_equal(program_run(&p, INIT "--rounds 100000 --steps 10000 --batch 1048576 "
                                          "--max-length 1048576 --share-lifetime 604800 "
                                          "--alpha 65536 --min-sites 100 --u-min 100 "
                                          "--collusion 98"),
                     0);
    assert_int_equal(program_run(&p, "init least --model model.gguf --eval data.jsonl --rank 1 "
                                     "--endpoint tcp://127.0.0.1:7001 --rounds 1 --steps 1 "
                                     "--batch 1 --max-length 8 --share-lifetime 10 --u-min 3 "
                                     "--collusion 0 --seed 0"),
                     0);
}

static void test_init_without_privacy_takes_no_figures_of_privacy(void **state)
{
    (void)state;
    check_refused(INIT "--no-dp --unit subject", 2, "--no-dp protects nobody: leave out --unit\n");
    check_refused(INIT "--no-dp --unit site --epsilon 8", 2,
                  "--no-dp protects nobody: leave out --unit, --epsilon\n");
    check_refused(INIT "--clip 1 --delta 1e-6 --noise 2 --no-dp", 2,
                  "--no-dp protects nobody: leave out --delta, --noise, --clip\n");
    assert_false(program_has(&p, "fed"));
    assert_int_equal(program_run(&p, INIT "--no-dp"), 0);
}

static size_t count_listed(void)
{
    assert_int_equal(program_run(&p, "site list fed/admin --json"), 0);
    json_t *list = program_json(&p);
    const size_t n = json_array_size(list);
    json_decref(list);
    return n;
}

static void test_invite_remembers_no_invitation_that_it_could_not_write(void **state)
{
    (void)state;
    assert_int_equal(program_run(&p, INIT), 0);
    program_put(&p, "there", "mine");
    check_refused("invite fed/admin north -o there", 1, "there exists already; choose another");
    check_refused("invite fed/admin north -o absent/n", 1, "cannot create absent/n: ");
    check_refused("invite fed/admin north -o there/n", 1, "cannot create there/n: ");
    assert_int_equal(count_listed(), 0);
    assert_int_equal(program_run(&p, "invite fed/admin north -o n"), 0);
    check_refused("invite fed/admin north -o n", 1, "n exists already; choose another name");
    assert_int_equal(count_listed(), 1);
    check_refused("site renew fed/admin north -o n", 1, "so it has no keys to renew");
}

/* Records of invitations by hand, from number `from` to below `to`; thousands are not synced. */
static void put_records(unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++) {
        char name[64];
        snprintf(name, sizeof name, "fed/admin/invitations/s%u-00000000.json", i);
        FILE *f = fopen(temp_dir_file(&p.dir, name), "w");
        assert_non_null(f);
        fprintf(f,
                "{\"name\":\"s%u\",\"organisation\":\"o\",\"invite_public\":\"%064x\","
                "\"issued\":1,\"expires\":2}",
                i, i);
        assert_int_equal(fclose(f), 0);
    }
}

static void test_site_reads_every_invitation_or_none(void **state)
{
    (void)state;
    assert_int_equal(program_run(&p, INIT), 0);
    put_records(0, 4000);
    assert_int_equal(program_run(&p, "site revoke fed/admin s3999"), 0);
    put_records(4000, 4001);
    check_refused("site revoke fed/admin s1", 1,
                  "has more than 4000 records of invitations; move those of sites that never");
}

/* The folder of an earlier demo, with what it left. */
static void put_demo(void)
{
    assert_ok(dure_dir_make(temp_dir_file(&p.dir, "run/logs"), NULL));
    program_put(&p, "run/dure-demo", "1\n");
    program_put(&p, "run/summary.json", "{}");
}

static void test_demo_looks_at_its_files_before_it_removes_anything(void **state)
{
    (void)state;
    put_demo();
    program_put(&p, "junk", "no model");
    assert_ok(dure_dir_make(temp_dir_file(&p.dir, "records"), NULL));
    program_put(&p, "records/eval.jsonl", "{\"prompt\":\"say 1\",\"response\":\"word\"}\n");
    program_put(&p, "records/town.jsonl", "no record\n");
    check_refused("demo --out run --model junk", 1, "junk: this is not a GGUF file");
    check_refused("demo --out run --model records", 1, "records");
    check_refused("demo --out run --model absent", 1, "cannot open absent: ");
    check_refused("demo --out run --model model.gguf --data absent", 1, "absent/eval.jsonl: ");
    check_refused("demo --out run --model model.gguf --data records", 1,
                  "records/town.jsonl, line 1: ");
    assert_int_equal(
        rename(temp_dir_file(&p.dir, "model.gguf"), temp_dir_file(&p.dir, "run/model.gguf")), 0);
    check_refused("demo --out run --model run/model.gguf", 2, "which this run replaces; move it");
    assert_true(program_has(&p, "run/summary.json") && program_has(&p, "run/model.gguf"));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_init_names_the_option_and_its_range),
        TEST(test_init_without_privacy_takes_no_figures_of_privacy),
        TEST(test_invite_remembers_no_invitation_that_it_could_not_write),
        TEST(test_site_reads_every_invitation_or_none),
        TEST(test_demo_looks_at_its_files_before_it_removes_anything),
    };
    return cmocka_run_group_tests_name("cli.founding", tests, NULL, NULL);
}
