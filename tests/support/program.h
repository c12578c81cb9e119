/* Runs the program under test from the outside, as a person at a desk would: in a folder of its
 * own, its stdout, stderr and exit status kept apart. */
#pragma once

#include "support/temp_dir.h"

#include <jansson.h>

typedef struct program {
    const char *binary; /* its path */
    temp_dir dir;       /* where it runs, and where `ledger` is the owner's privacy ledger */
    char out[1 << 18];  /* stdout of the last run */
    char err[1 << 15];  /* its stderr */
} program;

void program_make(program *p, const char *binary);
void program_end(program *p); /* removes the folder */

/* Runs it with these arguments, written as for a shell (redirections included); returns the exit
 * status. A program that is killed by a signal fails the test. */
int program_run(program *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* For a test with a folder of its own: the same in `dir`, with DURE_LEDGER its `ledger`, and what
 * it says on stdout (and, with `2>&1` among the arguments, stderr) in text[0..size). */
int program_run_in(char *text, size_t size, const char *dir, const char *binary,
                   const char *arguments);
/* The test fails unless the text is in stdout, in stderr. */
void program_prints(const program *p, const char *text);
void program_says(const program *p, const char *text);

/* stdout as one JSON value, or its last line as one; the caller drops it. */
json_t *program_json(const program *p);
json_t *program_last_json(const program *p);

/* A file in the folder: writes it, and asks whether it is there. */
void program_put(const program *p, const char *name, const char *text);
int program_has(const program *p, const char *name);
