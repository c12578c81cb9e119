/* The log of a run: one JSON object a line, first what is trained, then one for every step. It
 * holds what was measured on the records without noise, so it is the owner's (0600) and stays with
 * them.
 *
 * A run that goes on cuts from it what it takes again: the file then reads as if the run had never
 * stopped. */
#pragma once

#include "common/err.h"

#include <jansson.h>
#include <stdint.h>

typedef struct dure_train_log {
    int fd;     /* -1: closed */
    char *path; /* owned */
} dure_train_log;

/* That it could be opened; nothing is written. Errors as those of open. */
DURE_MUST_USE dure_err dure_train_log_check(const char *path, const char *out, dure_diag *diag);
/* `out` names the run; `steps_taken` lines are kept. DURE_ERR_EXISTS if the file is there and is
 * not the log of that run: it is never written over. */
DURE_MUST_USE dure_err dure_train_log_open(dure_train_log *log, const char *path, const char *out,
                                           uint64_t steps_taken, dure_diag *diag);
void dure_train_log_close(dure_train_log *log); /* idempotent */
/* Appends the object; the reference is taken. */
DURE_MUST_USE dure_err dure_train_log_put(dure_train_log *log, json_t *value, dure_diag *diag);
