/* `dure audit canary` from the outside, on a tiny model. */
#include "support/check.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

static temp_dir dir;
static char output[16384];

/* `dure audit canary ARGUMENTS` in the folder; the exit status. Words go to stderr, which only
 * failures are looked at for. */
static int run(const char *arguments, const char *redirect)
{
    char command[1024];
    snprintf(command, sizeof command, "cd '%s' && TMPDIR='%s' '%s' audit canary %s %s", dir.path,
             dir.path, DURE_BINARY, arguments, redirect);
    FILE *p = popen(command, "r");
    assert_non_null(p);
    size_t n = fread(output, 1, sizeof output - 1, p);
    output[n] = '\0';
    int status = pclose(p);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static int setup(void **state)
{
    (void)state;
    temp_dir_make(&dir);
    tiny_model_write(temp_dir_file(&dir, "tiny.gguf"), &(tiny_model_opts){.seed = 5});
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    temp_dir_remove(&dir);
    return 0;
}

static void test_canary_json_is_what_the_report_takes(void **state)
{
    (void)state;
    if (run("--model tiny.gguf --canaries 5000 --json", "2>/dev/null")) fail_msg("%s", output);
    json_t *r = json_loads(output, 0, NULL);
    assert_non_null(r);
    assert_true(json_is_true(json_object_get(r, "holds")));
    assert_int_equal(json_integer_value(json_object_get(r, "canaries")), 5000);
    double lower = json_number_value(json_object_get(r, "epsilon_lower"));
    double claimed = json_number_value(json_object_get(r, "epsilon_claimed"));
    assert_true(lower > 0 && lower < claimed && claimed <= 2);
    assert_int_equal(json_array_size(json_object_get(r, "runs")), 2);
    assert_true(json_is_true(json_object_get(json_object_get(r, "noise"), "holds")));
    json_decref(r);
    /* The key was erased and its folder removed. */
    char list[512];
    snprintf(list, sizeof list, "ls '%s'", dir.path);
    FILE *p = popen(list, "r");
    assert_non_null(p);
    size_t n = fread(output, 1, sizeof output - 1, p);
    output[n] = '\0';
    pclose(p);
    assert_string_equal(output, "tiny.gguf\n");
}

static void test_canary_says_what_is_wrong(void **state)
{
    (void)state;
    assert_int_equal(run("--model tiny.gguf --canaries 100", "2>&1"), 2);
    assert_non_null(strstr(output, "with fewer, halved noise cannot be told from luck"));
    assert_int_equal(run("--model tiny.gguf --epsilon 8", "2>&1"), 2);
    assert_int_equal(run("--model tiny.gguf --confidence 1", "2>&1"), 2);
    assert_int_equal(run("--model nothing.gguf", "2>&1"), 1);
    assert_int_equal(run("--model tiny.gguf --data nothing.jsonl", "2>&1"), 1);
    assert_non_null(strstr(output, "nothing.jsonl"));
    assert_int_equal(run("--help", "2>&1"), 0);
    assert_non_null(strstr(output, "Example"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_canary_json_is_what_the_report_takes),
        cmocka_unit_test(test_canary_says_what_is_wrong),
    };
    return cmocka_run_group_tests_name("cli.audit_canary", tests, setup, teardown);
}
