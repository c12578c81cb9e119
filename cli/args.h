/* Command lines: a table of options, parsed strictly, and the --help made from the same table.
 *
 * Everything after the command's name: options "--name VALUE" or "--name=VALUE", flags "--name",
 * short forms "-o VALUE" where the table has one, operands in order. An unknown, repeated or
 * malformed one is a usage error (exit 2) whose sentence names the option and the way out. */
#pragma once

#include "common/buf.h"
#include "common/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum dure_arg_kind {
    DURE_ARG_FLAG,    /* bool */
    DURE_ARG_TEXT,    /* const char * */
    DURE_ARG_COUNT,   /* uint64_t, digits only */
    DURE_ARG_NUMBER,  /* double, finite */
    DURE_ARG_OPERAND, /* const char *, by position; `name` is its name in the usage line */
    DURE_ARG_CONFIG,  /* dure_args_config, a file with more options */
    DURE_ARG_HEADING, /* no option: `name` is a line of --help */
} dure_arg_kind;

typedef struct dure_arg {
    const char *name; /* without the dashes */
    dure_arg_kind kind;
    void *out;         /* written only when the option is given: preset it to the default */
    const char *value; /* what the value is called in --help; NULL for flags */
    const char *help;  /* one line, never NULL: every option is shown */
    bool required;
    bool *given;          /* set when the option appears; may be NULL */
    char letter;          /* a short form, as in -o FILE; 0: none */
    uint64_t least, most; /* of a count; most 0: any */
} dure_arg;

/* A YAML file of options: one "name: value" a line, the names those of the table, a flag's value
 * true or false. What the command line says wins over it. */
typedef struct dure_args_config {
    const char *path; /* NULL: none is given */
    char **values;    /* owned: by the option's place in the table; NULL: not in the file */
    size_t n;
} dure_args_config;
/* The options' texts point into it: only when they are not needed any more. */
void dure_args_config_fini(dure_args_config *config);

typedef struct dure_usage {
    const char *command; /* "adapter show" */
    const char *summary; /* one or two sentences */
    const dure_arg *args;
    size_t n_args;
    const char *example; /* one or more lines */
} dure_usage;

/* The rows of a table:
 *
 *     OPTION(COUNT, "rank", o.rank, "N", "of the adapter; default 8", .least = 1, .most = 256),
 *
 * `place` is the variable itself, and what follows the help are further fields. GIVEN also tells
 * `o.rank_given` whether it was given. */
#define OPTION(type, option, place, shown, ...)                                                    \
    {.name = option, .kind = DURE_ARG_##type, .out = &place, .value = shown, .help = __VA_ARGS__}
#define GIVEN(type, option, place, shown, ...)                                                     \
    {.name = option,                                                                               \
     .kind = DURE_ARG_##type,                                                                      \
     .out = &place,                                                                                \
     .given = &place##_given,                                                                      \
     .value = shown,                                                                               \
     .help = __VA_ARGS__}
#define FLAG(option, place, ...) OPTION(FLAG, option, place, NULL, __VA_ARGS__)
#define OPERAND(operand, place, ...) OPTION(OPERAND, operand, place, NULL, __VA_ARGS__)
#define HEADING(text) {.name = text, .kind = DURE_ARG_HEADING}

#define N_ARGS(args) (sizeof(args) / sizeof(args)[0])

enum { DURE_ARGS_MAX = 96 }; /* rows of a table */

/* The caller goes on, or ends with this exit status. */
typedef enum dure_args_result {
    DURE_ARGS_RUN = -1,  /* parsed */
    DURE_ARGS_HELP = 0,  /* --help was printed on stdout */
    DURE_ARGS_WRONG = 2, /* a sentence was printed on stderr */
} dure_args_result;

/* argv[0] is the command's last word. Texts are borrowed from argv. */
DURE_MUST_USE dure_args_result dure_args_parse(const dure_usage *usage, int argc, char **argv);

/* Reads config->path by the table; DURE_ERR_FORMAT names the line of a key that is not in it.
 * Called by dure_args_parse(). */
DURE_MUST_USE dure_err dure_args_config_read(dure_args_config *config, const dure_usage *usage,
                                             dure_diag *diag);
/* The same over bytes; config->path stands for the file in `diag`. */
DURE_MUST_USE dure_err dure_args_config_parse(dure_args_config *config, const dure_usage *usage,
                                              dure_span text, dure_diag *diag);

/* What several commands have: --json, DIR/admin, DIR/coordinator, a VERSION of the registry. */
dure_arg dure_json_arg(bool *json);
dure_arg dure_admin_arg(const char **dir);
dure_arg dure_coordinator_arg(const char **dir);
dure_arg dure_version_arg(const char **name);

/* A command of several verbs: "dure site list", "dure site revoke". */
typedef struct dure_verb {
    const char *name;
    int (*run)(int argc, char **argv); /* argv[0] is the verb */
    const char *summary;               /* one line */
} dure_verb;

typedef struct dure_verbs {
    const char *command; /* "site" */
    const char *summary;
    const char *usage;   /* what follows "dure site VERB" */
    const char *example; /* one or more lines, "\n  " between them */
    const dure_verb *verbs;
    size_t n;
} dure_verbs;

/* Runs the verb that argv[1] names; prints the list of them for --help (0) and else (2). */
int dure_args_verb(const dure_verbs *verbs, int argc, char **argv);

/* For a value that parsed but is out of its range: prints the sentence and the pointer to --help
 * on stderr, returns 2. */
int dure_args_refuse(const dure_usage *usage, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
