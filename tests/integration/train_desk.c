#include "integration/train_desk.h"

#include "support/tiny_model.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

program desk;

static void write_records(const char *name, int first, int last)
{
    static const char *const words[] = {"apple", "river", "stone", "cloud"};
    FILE *f = fopen(temp_dir_file(&desk.dir, name), "w");
    assert_non_null(f);
    for (int i = first; i < last; i++)
        fprintf(f, "{\"prompt\":\"say %s %d\",\"response\":\"%s\"}\n", words[i % 4], i,
                words[i % 4]);
    assert_int_equal(fclose(f), 0);
}

int desk_set_up(void **state)
{
    (void)state;
    program_make(&desk, DURE_BINARY);
    tiny_model_write(temp_dir_file(&desk.dir, "model.gguf"), &(tiny_model_opts){.seed = 5});
    write_records("data.jsonl", 0, 32);
    write_records("held.jsonl", 100, 104);
    return 0;
}

int desk_tear_down(void **state)
{
    (void)state;
    program_end(&desk);
    return 0;
}

void desk_run(const char *arguments)
{
    int status = program_run(&desk, "%s", arguments);
    if (status) fail_msg("%s: status %d, %s", arguments, status, desk.err);
}

char *desk_file(const char *name, size_t *n)
{
    FILE *f = fopen(temp_dir_file(&desk.dir, name), "rb");
    if (!f) fail_msg("%s is not there", name);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    long size = ftell(f);
    assert_true(size >= 0);
    rewind(f);
    char *text = malloc((size_t)size + 1);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, (size_t)size, f), size);
    text[size] = '\0';
    fclose(f);
    if (n) *n = (size_t)size;
    return text;
}

static bool equal(const char *a, const char *b)
{
    size_t n = 0, m = 0;
    char *x = desk_file(a, &n), *y = desk_file(b, &m);
    bool same = n == m && memcmp(x, y, n) == 0;
    free(x);
    free(y);
    return same;
}

void desk_same_bytes(const char *a, const char *b)
{
    if (!equal(a, b)) fail_msg("%s and %s differ", a, b);
}

void desk_other_bytes(const char *a, const char *b)
{
    if (equal(a, b)) fail_msg("%s and %s are the same", a, b);
}

static pid_t start(const char *arguments, int *from)
{
    int ends[2];
    char command[4096];
    snprintf(command, sizeof command, "cd '%s' && DURE_LEDGER=ledger exec '%s' %s", desk.dir.path,
             desk.binary, arguments);
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        int words =
            open(temp_dir_file(&desk.dir, "killed.err"), O_WRONLY | O_CREAT | O_TRUNC, 0644);
        dup2(ends[1], STDOUT_FILENO);
        dup2(words, STDERR_FILENO);
        close(ends[0]);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    *from = ends[0];
    return child;
}

static bool end_by_force(pid_t child, int from)
{
    int status;
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    close(from);
    if (!WIFSIGNALED(status) && WEXITSTATUS(status)) {
        char command[600];
        snprintf(command, sizeof command, "tail -n 5 '%s'", temp_dir_file(&desk.dir, "killed.err"));
        (void)!system(command);
        fail_msg("it failed before it was killed");
    }
    return WIFSIGNALED(status);
}

bool desk_kill_after(const char *arguments, int lines)
{
    int from;
    char c;
    pid_t child = start(arguments, &from);
    for (int seen = 0; seen < lines && read(from, &c, 1) == 1;)
        seen += c == '\n';
    return end_by_force(child, from);
}

bool desk_kill_at(const char *arguments, int milliseconds)
{
    int from;
    pid_t child = start(arguments, &from);
    const struct timespec wait = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
    nanosleep(&wait, NULL);
    return end_by_force(child, from);
}

json_t *json_line(const char *text, size_t i)
{
    for (; i > 0 && text; i--) {
        text = strchr(text, '\n');
        text = text ? text + 1 : NULL;
    }
    if (!text || !*text) return NULL;
    json_t *value = json_loadb(text, strcspn(text, "\n"), 0, NULL);
    if (!value) fail_msg("not JSON: %.100s", text);
    return value;
}

double json_figure(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_number(value)) fail_msg("there is no number '%s'", key);
    return json_number_value(value);
}
