/* dure: one binary, a table of subcommands. Only the files of this folder may print or exit. */
#include "cli/commands.h"
#include "cli/output.h"
#include "coordinator/store.h"
#include "kernels/compute.h"
#include "proto/messages.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

typedef struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} command;

static const command commands[] = {
#define DURE_COMMAND_ROW(name, function, summary) {name, function, summary},
    DURE_COMMANDS(DURE_COMMAND_ROW)
#undef DURE_COMMAND_ROW
        {NULL, NULL, NULL}};

static void print_help(FILE *to)
{
    fprintf(to, "dure: fine-tune one language model together; every record stays where it is.\n\n"
                "Usage: dure COMMAND [options]\n\n");
    for (const command *c = commands; c->name; c++)
        fprintf(to, "  %-14s %s\n", c->name, c->summary);
    fprintf(to, "\n'dure COMMAND --help' explains one command and gives an example.\n"
                "stdout is data, stderr is words; exit status 0 done, 1 failed, 2 usage.\n");
}

/* What was printed must have arrived: half a result with the exit status 0 would be taken for a
 * whole one. */
static int finish(int status)
{
    bool failed = ferror(stdout) != 0;
    if (fflush(stdout)) failed = true;
    if (!failed) return status;
    fprintf(stderr, "dure: the result could not be written to stdout: its disk is full or its "
                    "reader is gone; run the command again\n");
    return status ? status : 1;
}

/* Who misspelt it would measure, or work around, something else than what was meant. */
static bool cpu_limit_is_known(void)
{
    const char *unknown = dure_cpu_limit_unknown();
    if (!unknown) return true;
    fprintf(stderr,
            "dure: DURE_MAX_CPU_ISA may be " DURE_CPU_LIMITS ", not '%s'; correct it in the "
            "environment or unset it\n",
            unknown);
    return false;
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    dure_output_init();
    if (argc < 2) {
        print_help(stderr);
        return 2;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help")) {
        print_help(stdout);
        return finish(0);
    }
    if (!strcmp(argv[1], "--version")) {
        printf("dure %s, protocol %d, state schema %d\n", DURE_VERSION, DURE_MSG_VERSION,
               DURE_STORE_SCHEMA);
        return finish(0);
    }
    if (!cpu_limit_is_known()) return 2;
    for (const command *c = commands; c->name; c++)
        if (!strcmp(argv[1], c->name)) return finish(c->run(argc - 1, argv + 1));
    fprintf(stderr, "dure: there is no command '%s'; 'dure --help' lists them\n", argv[1]);
    return 2;
}
