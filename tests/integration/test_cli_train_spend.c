/* A budget is spent before what it pays for leaves: without the ledger there is no adapter. */
#include "integration/train_desk.h"

#include "common/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

static bool is_there(const char *name)
{
    return dure_file_exists(temp_dir_file(&desk.dir, name));
}

/* The ledger goes away after the plan was reserved and the first step was taken. */
static void test_train_writes_no_adapter_that_it_cannot_pay_for(void **state)
{
    (void)state;
    char command[1024], line[4096], from[512], to[512];
    snprintf(command, sizeof command,
             "cd '%s' && '%s' " PRIVATE "--steps 300 --ledger own --out made --json 2>words",
             desk.dir.path, DURE_BINARY);
    snprintf(from, sizeof from, "%s/own", desk.dir.path);
    snprintf(to, sizeof to, "%s/away", desk.dir.path);
    FILE *p = popen(command, "r");
    assert_non_null(p);
    assert_non_null(fgets(line, sizeof line, p));
    assert_true(is_there("own"));
    assert_int_equal(rename(from, to), 0);
    while (fgets(line, sizeof line, p)) {
    }
    int status = pclose(p);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    assert_false(is_there("made/adapter.gguf"));
    assert_false(is_there("made/adapter_model.safetensors"));
    size_t n = 0;
    char *words = desk_file("words", &n);
    assert_non_null(strstr(words, "was removed, replaced or cut short"));
    free(words);
}

/* Refused with these words, and nothing is made, named or reserved. */
static void refuses(const char *arguments, const char *words)
{
    assert_int_equal(program_run(&desk, "%s", arguments), 1);
    program_says(&desk, words);
    assert_false(is_there("own") || is_there("new") || is_there("spare"));
}

/* Outputs that cannot be opened are found before the plan is reserved, so that the next try may
 * have another batch, and a dry run finds them too. */
static void test_train_spends_nothing_when_it_cannot_write(void **state)
{
    (void)state;
    static const char *const outputs[][2] = {
        {"--log missing/x", "--log: cannot create missing/x: "},
        {"--log held.jsonl", "--log: held.jsonl is there and is not the log of a run"},
        {"--tensorboard held.jsonl", "--tensorboard: held.jsonl is a file, not a folder"},
        {"--tensorboard held.jsonl/below", "--tensorboard: cannot create the folder held.jsonl/"},
    };
    static const char run[] = PRIVATE "--steps 5 --ledger own --out new/a/b ";
    char arguments[512];
    for (size_t i = 0; i < sizeof outputs / sizeof outputs[0]; i++) {
        snprintf(arguments, sizeof arguments, "%s%s", run, outputs[i][0]);
        refuses(arguments, outputs[i][1]);
        snprintf(arguments, sizeof arguments, "%s%s --dry-run", run, outputs[i][0]);
        refuses(arguments, outputs[i][1]);
    }
    snprintf(arguments, sizeof arguments, "%s--sample-prompt \"$(yes xy | head -n 300)\"", run);
    refuses(arguments, "--sample-prompt: ");
    program_says(&desk, "leave no room for an answer in the model's context of 512");
    refuses(TRAIN "--source s --records 1000 --epsilon 8 --steps 2 --ledger own --out held.jsonl",
            "held.jsonl is a file, not a folder");
}

/* A dry run that finds all in order leaves nothing; the run itself then has all of it. */
static void test_train_dry_run_leaves_no_output_behind(void **state)
{
    (void)state;
    static const char run[] =
        PRIVATE "--steps 3 --ledger own --out new/a --log new/a/log --tensorboard spare/board ";
    char arguments[512];
    snprintf(arguments, sizeof arguments, "%s--dry-run", run);
    desk_run(arguments);
    assert_false(is_there("own") || is_there("new") || is_there("spare"));
    desk_run(run);
    assert_true(is_there("new/a/log") && is_there("new/a/adapter.gguf") && is_there("spare/board"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define ROW(name) cmocka_unit_test_setup_teardown(name, desk_set_up, desk_tear_down)
        ROW(test_train_writes_no_adapter_that_it_cannot_pay_for),
        ROW(test_train_spends_nothing_when_it_cannot_write),
        ROW(test_train_dry_run_leaves_no_output_behind),
#undef ROW
    };
    return cmocka_run_group_tests_name("cli.train_spend", tests, NULL, NULL);
}
