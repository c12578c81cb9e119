#include "support/program.h"

#include "common/file.h"
#include "support/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

void program_make(program *p, const char *binary)
{
    memset(p, 0, sizeof *p);
    p->binary = binary;
    temp_dir_make(&p->dir);
}

void program_end(program *p)
{
    temp_dir_remove(&p->dir);
}

static void read_back(char *text, size_t size, const program *p, const char *name)
{
    FILE *f = fopen(temp_dir_file(&p->dir, name), "r");
    text[0] = 0;
    if (!f) return;
    text[fread(text, 1, size - 1, f)] = 0;
    fclose(f);
    remove(temp_dir_file(&p->dir, name));
}

int program_run(program *p, const char *format, ...)
{
    char arguments[2048], command[4096];
    va_list args;
    va_start(args, format);
    vsnprintf(arguments, sizeof arguments, format, args);
    va_end(args);
    /* The group's redirections come first, so that the arguments may redirect stdout elsewhere. */
    snprintf(command, sizeof command,
             "cd '%s' && { DURE_LEDGER=${DURE_LEDGER-ledger} '%s' %s; } "
             ">.program-out 2>.program-err </dev/null",
             p->dir.path, p->binary, arguments);
    int status = system(command);
    read_back(p->out, sizeof p->out, p, ".program-out");
    read_back(p->err, sizeof p->err, p, ".program-err");
    /* A shell tells of a signal as 128 and its number. */
    if (!WIFEXITED(status) || WEXITSTATUS(status) > 127)
        fail_msg("'%s' was killed: %s", arguments, p->err);
    return WEXITSTATUS(status);
}

int program_run_in(char *text, size_t size, const char *dir, const char *binary,
                   const char *arguments)
{
    char command[4096];
    snprintf(command, sizeof command, "cd '%s' && DURE_LEDGER=ledger '%s' %s", dir, binary,
             arguments);
    FILE *p = popen(command, "r");
    assert_non_null(p);
    text[fread(text, 1, size - 1, p)] = 0;
    /* More than fits: the program must not wait for a reader. */
    char rest[4096];
    while (fread(rest, 1, sizeof rest, p) > 0)
        continue;
    const int status = pclose(p);
    if (!WIFEXITED(status)) fail_msg("'%s' was killed: %s", arguments, text);
    return WEXITSTATUS(status);
}

void program_prints(const program *p, const char *text)
{
    if (!strstr(p->out, text)) fail_msg("'%s' is not in stdout: %s", text, p->out);
}

void program_says(const program *p, const char *text)
{
    if (!strstr(p->err, text)) fail_msg("'%s' is not in stderr: %s", text, p->err);
}

static json_t *parse(const char *text)
{
    json_error_t error;
    json_t *value = json_loads(text, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    if (!value) fail_msg("not JSON (%s): %s", error.text, text);
    return value;
}

json_t *program_json(const program *p)
{
    return parse(p->out);
}

json_t *program_last_json(const program *p)
{
    size_t end = strlen(p->out);
    while (end > 0 && p->out[end - 1] == '\n')
        end--;
    size_t start = end;
    while (start > 0 && p->out[start - 1] != '\n')
        start--;
    char *line = strndup(p->out + start, end - start);
    assert_non_null(line);
    json_t *value = parse(line);
    free(line);
    return value;
}

void program_put(const program *p, const char *name, const char *text)
{
    assert_ok(
        dure_file_write_atomic(temp_dir_file(&p->dir, name), dure_span_of_text(text), 0644, NULL));
}

int program_has(const program *p, const char *name)
{
    return dure_file_exists(temp_dir_file(&p->dir, name));
}
