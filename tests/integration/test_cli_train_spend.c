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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_train_writes_no_adapter_that_it_cannot_pay_for),
    };
    return cmocka_run_group_tests_name("cli.train_spend", tests, desk_set_up, desk_tear_down);
}
