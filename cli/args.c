#include "cli/args.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int dure_args_refuse(const dure_usage *usage, const char *format, ...)
{
    fprintf(stderr, "dure %s: ", usage->command);
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\nSee 'dure %s --help'.\n", usage->command);
    return 2;
}

dure_arg dure_json_arg(bool *json)
{
    return (dure_arg)FLAG("json", *json, "print JSON");
}

static dure_arg needed(const char *name, const char **out, const char *help)
{
    return (dure_arg)OPERAND(name, *out, help, .required = true);
}

dure_arg dure_admin_arg(const char **dir)
{
    return needed("DIR", dir, "the admin folder, DIR/admin");
}

dure_arg dure_coordinator_arg(const char **dir)
{
    return needed("DIR", dir, "the coordinator's folder, DIR/coordinator");
}

dure_arg dure_version_arg(const char **name)
{
    return needed("VERSION", name, "a number, a digest, latest, champion or previous");
}

int dure_args_verb(const dure_verbs *v, int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";
    for (size_t i = 0; i < v->n; i++)
        if (!strcmp(verb, v->verbs[i].name)) return v->verbs[i].run(argc - 1, argv + 1);
    const bool help = !strcmp(verb, "--help");
    FILE *to = help ? stdout : stderr;
    if (*verb && !help) fprintf(to, "dure %s: there is no '%s'\n\n", v->command, verb);
    fprintf(to, "dure %s: %s\n\nUsage: dure %s VERB %s\n\n", v->command, v->summary, v->command,
            v->usage);
    for (size_t i = 0; i < v->n; i++)
        fprintf(to, "  %-10s %s\n", v->verbs[i].name, v->verbs[i].summary);
    fprintf(to, "\n'dure %s VERB --help' has the options.\n\nExample:\n  %s\n", v->command,
            v->example);
    return help ? 0 : 2;
}

static void print_help(const dure_usage *usage)
{
    printf("dure %s: %s\n\nUsage: dure %s", usage->command, usage->summary, usage->command);
    for (size_t i = 0; i < usage->n_args; i++) {
        const dure_arg *a = &usage->args[i];
        if (a->kind == DURE_ARG_OPERAND)
            printf(a->required ? " %s" : " [%s]", a->name);
        else if (a->required)
            printf(" --%s %s", a->name, a->value);
    }
    printf(" [options]\n\n");
    for (size_t i = 0; i < usage->n_args; i++) {
        const dure_arg *a = &usage->args[i];
        char left[64];
        if (a->kind == DURE_ARG_HEADING) {
            printf("%s%s:\n", i ? "\n" : "", a->name);
            continue;
        }
        if (a->kind == DURE_ARG_OPERAND)
            snprintf(left, sizeof left, "%s", a->name);
        else if (a->kind == DURE_ARG_FLAG)
            snprintf(left, sizeof left, "--%s", a->name);
        else if (a->letter)
            snprintf(left, sizeof left, "-%c, --%s %s", a->letter, a->name, a->value);
        else
            snprintf(left, sizeof left, "--%s %s", a->name, a->value);
        printf("  %-26s %s\n", left, a->help);
    }
    printf("  %-26s %s\n", "--help", "this text");
    if (usage->example) printf("\nExample:\n  %s\n", usage->example);
}

/* Where a value comes from: "--rank", or "train.yaml: rank". */
typedef struct source {
    const char *before, *name;
} source;

static dure_args_result wrong_value(const dure_usage *usage, source from, const char *what,
                                    const char *text)
{
    dure_args_refuse(usage, "%s%s needs %s, not '%s'", from.before, from.name, what, text);
    return DURE_ARGS_WRONG;
}

static dure_args_result store(const dure_usage *usage, const dure_arg *a, source from,
                              const char *text)
{
    char *end = NULL;
    errno = 0;
    if (a->kind == DURE_ARG_COUNT) {
        unsigned long long value = isdigit((unsigned char)text[0]) ? strtoull(text, &end, 10) : 0;
        const uint64_t most = a->most ? a->most : UINT64_MAX;
        char range[80] = "a whole number";
        if (a->most)
            snprintf(range, sizeof range, "a whole number from %llu to %llu",
                     (unsigned long long)a->least, (unsigned long long)a->most);
        if (!end || *end || errno || value < a->least || value > most)
            return wrong_value(usage, from, range, text);
        *(uint64_t *)a->out = value;
    } else if (a->kind == DURE_ARG_NUMBER) {
        /* Hexadecimal is strtod's idea: 0x10 for an epsilon of 10 would be a slip. */
        double value = strpbrk(text, "xX") ? NAN : strtod(text, &end);
        if (end == text || !end || *end || errno || !isfinite(value))
            return wrong_value(usage, from, "a number", text);
        *(double *)a->out = value;
    } else if (a->kind == DURE_ARG_CONFIG) {
        ((dure_args_config *)a->out)->path = text;
    } else if (a->kind == DURE_ARG_FLAG) {
        bool on = !strcmp(text, "true");
        if (!on && strcmp(text, "false") != 0)
            return wrong_value(usage, from, "true or false", text);
        *(bool *)a->out = on;
        if (!on) return DURE_ARGS_RUN;
    } else {
        *(const char **)a->out = text;
    }
    if (a->given) *a->given = true;
    return DURE_ARGS_RUN;
}

static const dure_arg *find_option(const dure_usage *usage, const char *name, size_t n)
{
    for (size_t i = 0; i < usage->n_args; i++) {
        const dure_arg *a = &usage->args[i];
        if (a->kind == DURE_ARG_OPERAND || a->kind == DURE_ARG_HEADING) continue;
        if (strlen(a->name) == n && !memcmp(a->name, name, n)) return a;
    }
    return NULL;
}

/* The k-th operand of the table, NULL past the last. */
static const dure_arg *find_operand(const dure_usage *usage, size_t k)
{
    for (size_t i = 0; i < usage->n_args; i++)
        if (usage->args[i].kind == DURE_ARG_OPERAND && k-- == 0) return &usage->args[i];
    return NULL;
}

static dure_args_result check_required(const dure_usage *usage, const bool *seen)
{
    for (size_t i = 0; i < usage->n_args; i++) {
        const dure_arg *a = &usage->args[i];
        if (!a->required || seen[i]) continue;
        dure_args_refuse(usage, "%s%s is missing: give %s", a->kind == DURE_ARG_OPERAND ? "" : "--",
                         a->name, a->help);
        return DURE_ARGS_WRONG;
    }
    return DURE_ARGS_RUN;
}

static const dure_arg *find_letter(const dure_usage *usage, const char *word)
{
    for (size_t i = 0; i < usage->n_args; i++)
        if (usage->args[i].letter && usage->args[i].letter == word[1] && !word[2])
            return &usage->args[i];
    return NULL;
}

/* Handles argv[i], advancing *i over the option's value. */
static dure_args_result take_option(const dure_usage *usage, bool *seen, int argc, char **argv,
                                    int *i)
{
    const char *word = argv[*i];
    bool is_long = word[1] == '-';
    const char *equals = is_long ? strchr(word, '=') : NULL;
    size_t n = equals ? (size_t)(equals - word) : strlen(word);
    const dure_arg *a = is_long ? find_option(usage, word + 2, n - 2) : find_letter(usage, word);
    if (!a) {
        dure_args_refuse(usage, "there is no option %.*s", (int)n, word);
        return DURE_ARGS_WRONG;
    }
    if (seen[a - usage->args]) {
        dure_args_refuse(usage, "--%s is given twice", a->name);
        return DURE_ARGS_WRONG;
    }
    seen[a - usage->args] = true;
    const source from = {"--", a->name};
    if (a->kind == DURE_ARG_FLAG) {
        if (equals) {
            dure_args_refuse(usage, "--%s takes no value", a->name);
            return DURE_ARGS_WRONG;
        }
        return store(usage, a, from, "true");
    }
    if (equals) return store(usage, a, from, equals + 1);
    if (*i + 1 >= argc) {
        dure_args_refuse(usage, "--%s needs a value (%s)", a->name, a->value);
        return DURE_ARGS_WRONG;
    }
    return store(usage, a, from, argv[++*i]);
}

/* The options of the file that the command line does not have. */
static dure_args_result take_config(const dure_usage *usage, bool *seen)
{
    dure_args_config *config = NULL;
    dure_diag diag = {{0}};
    char before[300];
    for (size_t i = 0; i < usage->n_args; i++)
        if (usage->args[i].kind == DURE_ARG_CONFIG && seen[i]) config = usage->args[i].out;
    if (!config) return DURE_ARGS_RUN;
    if (dure_args_config_read(config, usage, &diag)) {
        dure_args_refuse(usage, "%s", diag.text);
        return DURE_ARGS_WRONG;
    }
    snprintf(before, sizeof before, "%.256s: ", config->path);
    for (size_t i = 0; i < usage->n_args; i++) {
        const dure_arg *a = &usage->args[i];
        if (seen[i] || !config->values[i]) continue;
        seen[i] = true;
        dure_args_result result = store(usage, a, (source){before, a->name}, config->values[i]);
        if (result != DURE_ARGS_RUN) return result;
    }
    return DURE_ARGS_RUN;
}

dure_args_result dure_args_parse(const dure_usage *usage, int argc, char **argv)
{
    bool seen[DURE_ARGS_MAX] = {false};
    DURE_ASSERT(usage->n_args <= DURE_ARGS_MAX);
    size_t n_operands = 0;
    bool only_operands = false;
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        dure_args_result result;
        if (!only_operands && !strcmp(word, "--help")) {
            print_help(usage);
            return DURE_ARGS_HELP;
        }
        if (!only_operands && !strcmp(word, "--")) {
            only_operands = true;
            continue;
        }
        if (!only_operands && word[0] == '-' && word[1]) {
            result = take_option(usage, seen, argc, argv, &i);
        } else {
            const dure_arg *a = find_operand(usage, n_operands++);
            if (!a) {
                dure_args_refuse(usage, "'%s' is one operand too many", word);
                return DURE_ARGS_WRONG;
            }
            seen[a - usage->args] = true;
            result = store(usage, a, (source){"", a->name}, word);
        }
        if (result != DURE_ARGS_RUN) return result;
    }
    dure_args_result result = take_config(usage, seen);
    return result == DURE_ARGS_RUN ? check_required(usage, seen) : result;
}
