/* What a person or a program sees: results on stdout, words on stderr. */
#pragma once

#include "common/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Prints "dure COMMAND: sentence" on stderr and returns the exit status for `err`:
 * 2 for DURE_ERR_USAGE, else 1. */
int dure_fail(const char *command, dure_err err, const dure_diag *diag);

/* Prints `value` as one line of JSON on stdout, flushes, and drops the reference. Returns 0, or 1
 * when stdout is closed or the value is NULL (out of memory). */
int dure_print_json(json_t *value);
/* The same of an event: its name, the time, and `facts`, which stay the caller's. */
int dure_print_event(const char *name, const json_t *facts);

/* Whether stderr is a terminal (progress bars). */
bool dure_on_terminal(void);
/* Whether `stream` is a terminal that shows colours, and NO_COLOR does not forbid them. */
bool dure_colour(FILE *stream);

/* A progress bar with rate and ETA on a terminal, one line a step elsewhere. */
typedef struct dure_progress {
    const char *what; /* "training" */
    const char *unit; /* "tokens" */
    uint64_t total_steps;
    uint64_t first_step; /* steps that were done before the start; 0 unless set after it */
    double started_s;
    bool quiet; /* prints nothing, as with --json */
} dure_progress;

void dure_progress_start(dure_progress *p, const char *what, const char *unit, uint64_t total_steps,
                         bool quiet);
/* `done` steps of the total, `units` handled so far, and a short note ("loss 2.31"). */
void dure_progress_step(dure_progress *p, uint64_t done, double units, const char *note);
void dure_progress_end(dure_progress *p);

/* "1.5 MB", "12 kB" */
void dure_format_bytes(char text[32], uint64_t bytes);
/* "3 min 05 s", "12.3 s" */
void dure_format_seconds(char text[32], double seconds);

/* A warning on stderr where a process that will take `bytes` in all wants more than other programs
 * leave of the machine's memory just now. */
void dure_warn_memory(uint64_t bytes);

/* Sends the log to stderr, warnings and worse unless DURE_LOG is debug or info. */
void dure_output_init(void);
