/* Command lines: a table of options, parsed strictly, and the --help made from the same table.
 *
 * Everything after the command's name: options "--name VALUE" or "--name=VALUE", flags "--name",
 * short forms "-o VALUE" where the table has one, operands in order. An unknown, repeated or
 * malformed one is a usage error (exit 2) whose sentence names the option and the way out. */
#pragma once

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
} dure_arg_kind;

typedef struct dure_arg {
    const char *name; /* without the dashes */
    dure_arg_kind kind;
    void *out;         /* written only when the option is given: preset it to the default */
    const char *value; /* what the value is called in --help; NULL for flags */
    const char *help;  /* one line; NULL hides nothing: every option is shown */
    bool required;
    bool *given; /* set when the option appears; may be NULL */
    char letter; /* a short form, as in -o FILE; 0: none */
} dure_arg;

typedef struct dure_usage {
    const char *command; /* "adapter show" */
    const char *summary; /* one or two sentences */
    const dure_arg *args;
    size_t n_args;
    const char *example; /* one or more lines */
} dure_usage;

/* What the caller does next. */
typedef enum dure_args_result {
    DURE_ARGS_RUN,   /* parsed: go on */
    DURE_ARGS_HELP,  /* --help was printed on stdout: return 0 */
    DURE_ARGS_WRONG, /* a sentence was printed on stderr: return 2 */
} dure_args_result;

/* argv[0] is the command's last word. Texts are borrowed from argv. */
DURE_MUST_USE dure_args_result dure_args_parse(const dure_usage *usage, int argc, char **argv);

/* For a value that parsed but is out of its range: prints the sentence and the pointer to --help
 * on stderr, returns 2. */
int dure_args_refuse(const dure_usage *usage, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
