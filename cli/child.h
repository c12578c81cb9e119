/* Child processes: other commands of this same binary, started with pipes and watched by poll(2).
 *
 * A child gets no terminal input. When this process dies, its children get SIGTERM, so nothing
 * is left behind. Threads: start children from the main thread. */
#pragma once

#include "common/buf.h"
#include "common/err.h"

#include <stdbool.h>
#include <sys/types.h>

enum { DURE_CHILD_MAX_ARGS = 64, DURE_CHILD_MAX_LINE = 1 << 20 };

typedef struct dure_child {
    pid_t pid;      /* 0: not running */
    int out;        /* its stdout, -1 once closed */
    dure_buf lines; /* what was read and is not yet a whole line */
    int status;     /* as waitpid() gave it, once reaped */
} dure_child;

typedef struct dure_child_opts {
    const char *log_path; /* stderr goes to this file (created); NULL: to our own stderr */
} dure_child_opts;

/* Runs `dure ARGS...` (argv without the program, NULL-terminated) from /proc/self/exe. */
DURE_MUST_USE dure_err dure_child_start(dure_child *child, const char *const *argv,
                                        const dure_child_opts *opts, dure_diag *diag);

/* Calls `line` for each line of any child's stdout until all `n` children closed it, a callback
 * returns false, or `timeout_ms` passed with nothing read (DURE_ERR_TIMEOUT; < 0: no limit). */
typedef bool dure_child_line(void *state, size_t child, const char *line);
DURE_MUST_USE dure_err dure_child_watch(dure_child *children, size_t n, dure_child_line *line,
                                        void *state, int timeout_ms, dure_diag *diag);

/* Waits for the end. DURE_OK when it exited 0; else DURE_ERR_STATE naming the command's status. */
DURE_MUST_USE dure_err dure_child_wait(dure_child *child, const char *what, dure_diag *diag);

/* True while it has not ended. */
bool dure_child_running(dure_child *child);

/* SIGTERM, and SIGKILL after `grace_ms`; reaps. Fine when it is not running. */
void dure_child_stop(dure_child *child, int grace_ms);

/* Runs to the end and returns all of its stdout in *out (dure_buf_fini() by the caller). */
DURE_MUST_USE dure_err dure_child_capture(dure_buf *out, const char *const *argv,
                                          const dure_child_opts *opts, dure_diag *diag);
