#include "cli/train_log.h"

#include "cli/writable.h"
#include "common/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_LOG_BYTES ((size_t)1 << 30)

static dure_err append(dure_train_log *log, dure_span bytes, dure_diag *diag)
{
    while (bytes.n) {
        ssize_t n = write(log->fd, bytes.data, bytes.n);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return dure_file_errno(diag, "write", log->path);
        bytes = dure_span_of(bytes.data + n, bytes.n - (size_t)n);
    }
    return DURE_OK;
}

dure_err dure_train_log_put(dure_train_log *log, json_t *value, dure_diag *diag)
{
    char *text = value ? json_dumps(value, JSON_COMPACT | JSON_PRESERVE_ORDER) : NULL;
    json_decref(value);
    dure_err err = text ? DURE_OK : DURE_ERR_NOMEM;
    if (!err) {
        size_t n = strlen(text);
        text[n] = '\n'; /* over the NUL: one write a line */
        err = append(log, dure_span_of(text, n + 1), diag);
    }
    free(text);
    return err;
}

static bool is_head(const json_t *line, const char *out)
{
    const char *run = json_string_value(json_object_get(line, "run"));
    return run && !strcmp(run, out);
}

/* Bytes of the first lines that stay; *ours: the file begins as a log of this run does. A line
 * torn by a crash, and all after it, go. */
static size_t kept_bytes(bool *ours, dure_span text, const char *out, uint64_t steps_taken)
{
    size_t at = 0;
    *ours = false;
    while (at < text.n) {
        const uint8_t *start = text.data + at, *newline = memchr(start, '\n', text.n - at);
        if (!newline) break;
        json_t *line = json_loadb((const char *)start, (size_t)(newline - start), 0, NULL);
        bool keep = false;
        if (at == 0) {
            keep = *ours = is_head(line, out);
        } else {
            json_int_t step = json_integer_value(json_object_get(line, "step"));
            keep = step > 0 && (uint64_t)step <= steps_taken;
        }
        json_decref(line);
        if (!keep) break;
        at += (size_t)(newline - start) + 1;
    }
    return at;
}

/* The whole file, and how much of it stays. The caller ends *text in every case. */
static dure_err read_ours(dure_buf *text, size_t *n_kept, const char *path, const char *out,
                          uint64_t steps_taken, dure_diag *diag)
{
    bool ours = false;
    dure_err err = dure_file_read(text, path, MAX_LOG_BYTES, diag);
    if (err) return err;
    *n_kept = kept_bytes(&ours, dure_buf_span(text), out, steps_taken);
    if (!text->n || ours) return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_EXISTS,
                         "%s is there and is not the log of a run into %s; choose another --log",
                         path, out);
}

dure_err dure_train_log_check(const char *path, const char *out, dure_diag *diag)
{
    dure_buf text = {0};
    size_t n_kept = 0;
    dure_err err = DURE_OK;
    if (dure_file_exists(path)) err = read_ours(&text, &n_kept, path, out, 0, diag);
    dure_buf_fini(&text);
    return err ? err : dure_writable_file(path, diag);
}

static dure_err cut(const char *path, const char *out, uint64_t steps_taken, dure_diag *diag)
{
    dure_buf text = {0};
    size_t n_kept = 0;
    dure_err err = read_ours(&text, &n_kept, path, out, steps_taken, diag);
    if (!err) err = dure_file_write_atomic(path, dure_span_of(text.data, n_kept), 0600, diag);
    dure_buf_fini(&text);
    return err;
}

dure_err dure_train_log_open(dure_train_log *log, const char *path, const char *out,
                             uint64_t steps_taken, dure_diag *diag)
{
    *log = (dure_train_log){.fd = -1, .path = strdup(path)};
    dure_err err = log->path ? DURE_OK : DURE_ERR_NOMEM;
    if (!err && dure_file_exists(path)) err = cut(path, out, steps_taken, diag);
    if (err) goto out;
    log->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log->fd < 0) err = dure_file_errno(diag, "open", path);
    off_t at = err ? -1 : lseek(log->fd, 0, SEEK_END);
    if (!err && at < 0) err = dure_file_errno(diag, "seek in", path);
    if (!err && at == 0) err = dure_train_log_put(log, json_pack("{s:s}", "run", out), diag);
out:
    if (err) dure_train_log_close(log);
    return err;
}

void dure_train_log_close(dure_train_log *log)
{
    if (log->path && log->fd >= 0) close(log->fd);
    free(log->path);
    *log = (dure_train_log){.fd = -1};
}
