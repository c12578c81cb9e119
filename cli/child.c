#include "cli/child.h"

#include "common/clock.h"
#include "common/file.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* Runs in the child between fork and exec: async-signal-safe calls only. */
static _Noreturn void become(char **argv, int out, int log, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(127); /* the parent died before the line above */
    int nothing = open("/dev/null", O_RDONLY);
    if (nothing >= 0) dup2(nothing, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    if (log >= 0) dup2(log, STDERR_FILENO);
    signal(SIGPIPE, SIG_DFL);
    execv("/proc/self/exe", argv);
    _exit(127);
}

dure_err dure_child_start(dure_child *child, const char *const *argv, const dure_child_opts *opts,
                          dure_diag *diag)
{
    static char program[] = "dure";
    char *words[DURE_CHILD_MAX_ARGS + 2] = {program};
    size_t n = 0;
    for (; argv[n]; n++) {
        DURE_ASSERT(n < DURE_CHILD_MAX_ARGS);
        words[n + 1] = (char *)(uintptr_t)argv[n]; /* execv takes char **, and changes nothing */
    }
    *child = (dure_child){.out = -1};
    dure_buf_init(&child->lines, DURE_CHILD_MAX_LINE);
    int log = -1, pipes[2];
    if (opts && opts->log_path) {
        log = open(opts->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (log < 0) return dure_file_errno(diag, "open", opts->log_path);
    }
    pid_t parent = getpid(), pid = -1;
    if (pipe2(pipes, O_CLOEXEC) == 0) {
        fflush(NULL);
        pid = fork();
        if (pid == 0) become(words, pipes[1], log, parent);
        close(pipes[1]);
        if (pid < 0) close(pipes[0]);
    }
    if (log >= 0) close(log);
    if (pid < 0)
        return dure_diag_set(diag, DURE_ERR_IO, "cannot start 'dure %s': %s", argv[0],
                             strerror(errno));
    child->pid = pid;
    child->out = pipes[0];
    return DURE_OK;
}

/* Hands out the whole lines in child->lines; false when the callback wants no more. */
static bool give_lines(dure_child *child, size_t index, dure_child_line *line, void *state)
{
    bool more = true;
    size_t at = 0;
    while (more) {
        uint8_t *end =
            child->lines.n > at ? memchr(child->lines.data + at, '\n', child->lines.n - at) : NULL;
        if (!end) break;
        *end = 0;
        more = line(state, index, (const char *)child->lines.data + at);
        at = (size_t)(end - child->lines.data) + 1;
    }
    if (at) {
        memmove(child->lines.data, child->lines.data + at, child->lines.n - at);
        child->lines.n -= at;
    }
    return more;
}

/* Reads what is there; closes at the end of the stream. A line over the limit is dropped whole. */
static void read_some(dure_child *child)
{
    uint8_t block[16384];
    ssize_t n = read(child->out, block, sizeof block);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
    if (n <= 0) {
        close(child->out);
        child->out = -1;
        return;
    }
    dure_put_raw(&child->lines, block, (size_t)n);
    if (!dure_buf_err(&child->lines)) return;
    dure_buf_fini(&child->lines);
    dure_buf_init(&child->lines, DURE_CHILD_MAX_LINE);
}

dure_err dure_child_watch(dure_child *children, size_t n, dure_child_line *line, void *state,
                          int timeout_ms, dure_diag *diag)
{
    enum { MAX_CHILDREN = 16 };
    DURE_ASSERT(n <= MAX_CHILDREN);
    for (;;) {
        struct pollfd polls[MAX_CHILDREN];
        bool open_any = false;
        for (size_t i = 0; i < n; i++) {
            polls[i] = (struct pollfd){.fd = children[i].out, .events = POLLIN};
            if (children[i].out >= 0) open_any = true;
        }
        if (!open_any) return DURE_OK;
        int ready = poll(polls, n, timeout_ms);
        if (ready < 0 && errno == EINTR) continue;
        if (ready < 0) return dure_diag_set(diag, DURE_ERR_IO, "poll failed: %s", strerror(errno));
        if (ready == 0) return DURE_ERR_TIMEOUT;
        for (size_t i = 0; i < n; i++) {
            if (!polls[i].revents) continue;
            read_some(&children[i]);
            if (!give_lines(&children[i], i, line, state)) return DURE_OK;
        }
    }
}

/* Keeps the exit status of a child that has ended. */
static void reaped(dure_child *child, int status)
{
    child->status = status;
    child->pid = 0;
}

bool dure_child_running(dure_child *child)
{
    int status;
    if (child->pid > 0 && waitpid(child->pid, &status, WNOHANG) == child->pid)
        reaped(child, status);
    return child->pid > 0;
}

dure_err dure_child_wait(dure_child *child, const char *what, dure_diag *diag)
{
    int status = child->status;
    while (child->pid > 0) {
        if (waitpid(child->pid, &status, 0) < 0 && errno == EINTR) continue;
        reaped(child, status);
    }
    if (child->out >= 0) close(child->out);
    child->out = -1;
    dure_buf_fini(&child->lines);
    if (WIFEXITED(child->status) && WEXITSTATUS(child->status) == 0) return DURE_OK;
    if (WIFSIGNALED(child->status))
        return dure_diag_set(diag, DURE_ERR_STATE, "%s was ended by signal %d", what,
                             WTERMSIG(child->status));
    return dure_diag_set(diag, DURE_ERR_STATE, "%s failed with exit status %d", what,
                         WEXITSTATUS(child->status));
}

void dure_child_stop(dure_child *child, int grace_ms)
{
    if (dure_child_running(child)) kill(child->pid, SIGTERM);
    uint64_t until = dure_clock_monotonic_ms() + (uint64_t)grace_ms;
    while (dure_child_running(child) && dure_clock_monotonic_ms() < until)
        dure_clock_sleep_ms(20);
    if (dure_child_running(child)) {
        kill(child->pid, SIGKILL);
        int status;
        if (waitpid(child->pid, &status, 0) > 0) reaped(child, status);
    }
    if (child->out >= 0) close(child->out);
    child->out = -1;
    dure_buf_fini(&child->lines);
}

static bool keep_line(void *state, size_t child, const char *line)
{
    (void)child;
    dure_buf *out = state;
    dure_put_raw(out, line, strlen(line));
    dure_put_raw(out, "\n", 1);
    return true;
}

dure_err dure_child_capture(dure_buf *out, const char *const *argv, const dure_child_opts *opts,
                            dure_diag *diag)
{
    dure_child child;
    dure_buf_init(out, (size_t)64 << 20);
    dure_err err = dure_child_start(&child, argv, opts, diag);
    if (err) return err;
    err = dure_child_watch(&child, 1, keep_line, out, -1, diag);
    if (err)
        dure_child_stop(&child, 1000);
    else
        err = dure_child_wait(&child, argv[0], diag);
    if (!err) err = dure_buf_err(out);
    if (err) dure_buf_fini(out);
    return err;
}
