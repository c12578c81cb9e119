/* Where a process of the chaos harness can be killed, and what is written down of it.
 *
 * Linked into `dure_chaos`, which is `dure` otherwise: the functions below take the place of libc's
 * and libzmq's for the program and for the libraries that it loads (SQLite's writes count too).
 *
 *   CHAOS_KILL=disk:K:before|torn|after
 *       at the K-th write, sync, rename, removal or truncation of a regular file; torn: after half
 *       of the bytes
 *   CHAOS_KILL=disk:K:full
 *       from that point on nothing can be written: the disk is full
 *   CHAOS_KILL=frame:K:before|after
 *       at the K-th control frame sent, heartbeats left out
 *   CHAOS_KILL=chunk:K:before|after
 *       at the K-th chunk of a vector
 *   CHAOS_KILL=sum:K:before|after
 *       at the K-th sum that the coordinator stores
 *   CHAOS_KILL=result:K:before|torn|after|full
 *       as disk, counting only what makes the next adapter from a stored sum
 *   CHAOS_LOG=FILE
 *       every frame that is sent, chunks by their hash, and every update that is masked, appended
 *       before it happens
 *   CHAOS_CLOCK=FILE
 *       the wall clock goes wrong by the seconds in FILE, which may change at any time
 *
 *   CHAOS_VERSION=N
 *       control frames are sent as of version N of the protocol
 *
 * A kill is SIGKILL to this process: nothing is flushed, nobody is told. */
#include "chaos_log.h"

#include "common/buf.h"
#include "coordinator/next_adapter.h"
#include "coordinator/store.h"
#include "crypto/hash.h"
#include "secagg/client_int.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

typedef enum where { BEFORE, TORN, AFTER, FULL } where;

static atomic_long disk_left, result_left, frames_left, chunks_left, sums_left;
static _Thread_local bool makes_adapter; /* this thread */
static where mode;
static int log_fd = -1;
static atomic_bool is_full;
static const char *clock_path;
static uint8_t version; /* 0: the true one */

static void *real(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

/* The next function of that name as one of this type; ISO C has no cast between the two. Any of
 * libzmq's threads may be the first to ask. */
#define REAL(type, name)                                                                           \
    static type *_Atomic known;                                                                    \
    type *next = known;                                                                            \
    if (!next) {                                                                                   \
        void *found = real(name);                                                                  \
        memcpy(&next, &found, sizeof next);                                                        \
        known = next;                                                                              \
    }

typedef ssize_t write_fn(int, const void *, size_t);
typedef ssize_t pwrite_fn(int, const void *, size_t, off_t);
typedef int fd_fn(int);
typedef int truncate_fn(int, off_t);
typedef int path_fn(const char *);
typedef int paths_fn(const char *, const char *);
typedef time_t time_fn(time_t *);
typedef int clock_gettime_fn(clockid_t, struct timespec *);
typedef int zmq_send_fn(void *, const void *, size_t, int);
typedef int zmq_msg_send_fn(zmq_msg_t *, void *, int);

__attribute__((constructor)) static void read_plan(void)
{
    char kind[8] = "", when[8] = "";
    long k = 0;
    const char *plan = getenv("CHAOS_KILL"), *log = getenv("CHAOS_LOG");
    clock_path = getenv("CHAOS_CLOCK");
    const char *other = getenv("CHAOS_VERSION");
    version = (uint8_t)(other ? strtoul(other, NULL, 10) : 0);
    if (plan && sscanf(plan, "%7[a-z]:%ld:%7[a-z]", kind, &k, when) == 3) {
        mode = strcmp(when, "torn") == 0    ? TORN
               : strcmp(when, "after") == 0 ? AFTER
               : strcmp(when, "full") == 0  ? FULL
                                            : BEFORE;
        if (strcmp(kind, "disk") == 0) disk_left = k;
        if (strcmp(kind, "result") == 0) result_left = k;
        if (strcmp(kind, "frame") == 0) frames_left = k;
        if (strcmp(kind, "chunk") == 0) chunks_left = k;
        if (strcmp(kind, "sum") == 0) sums_left = k;
    }
    if (log) log_fd = open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
}

static void die(void)
{
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

/* True once: at the point that was planned. */
static bool is_due(atomic_long *left)
{
    if (*left <= 0 || atomic_fetch_sub(left, 1) != 1) return false;
    if (mode != FULL) return true;
    is_full = true;
    return false;
}

static ssize_t refuse(void)
{
    errno = ENOSPC;
    return -1;
}

static bool is_file(int fd)
{
    struct stat about;
    return fd != log_fd && fstat(fd, &about) == 0 && S_ISREG(about.st_mode);
}

/* What the planned point on disk counts, of what this thread does there. */
static atomic_long *on_disk(void)
{
    return makes_adapter && result_left > 0 ? &result_left : &disk_left;
}

/* Dies here if the point is due and is not to be done; else says whether to die afterwards. */
static bool meet(atomic_long *left)
{
    if (!is_due(left)) return false;
    if (mode != AFTER) die();
    return true;
}

/* ---- files ---- */

ssize_t write(int fd, const void *data, size_t n)
{
    REAL(write_fn, "write");
    if (!is_file(fd)) return next(fd, data, n);
    const bool due = is_due(on_disk());
    if (is_full) return refuse();
    if (!due) return next(fd, data, n);
    if (mode == BEFORE) die();
    const ssize_t put = next(fd, data, mode == TORN ? n / 2 : n);
    die();
    return put;
}

static ssize_t pwrite_with(pwrite_fn *next, int fd, const void *data, size_t n, off_t at)
{
    if (!is_file(fd)) return next(fd, data, n, at);
    const bool due = is_due(on_disk());
    if (is_full) return refuse();
    if (!due) return next(fd, data, n, at);
    if (mode == BEFORE) die();
    const ssize_t put = next(fd, data, mode == TORN ? n / 2 : n, at);
    die();
    return put;
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t at)
{
    REAL(pwrite_fn, "pwrite");
    return pwrite_with(next, fd, data, n, at);
}

ssize_t pwrite64(int fd, const void *data, size_t n, off_t at)
{
    REAL(pwrite_fn, "pwrite64");
    return pwrite_with(next, fd, data, n, at);
}

static int call_fd(fd_fn *next, int fd)
{
    const bool dies = is_file(fd) && meet(on_disk());
    const int result = next(fd);
    if (dies) die();
    return result;
}

int fsync(int fd)
{
    REAL(fd_fn, "fsync");
    return call_fd(next, fd);
}

int fdatasync(int fd)
{
    REAL(fd_fn, "fdatasync");
    return call_fd(next, fd);
}

static int call_truncate(truncate_fn *next, int fd, off_t n)
{
    const bool dies = is_file(fd) && meet(on_disk());
    const int result = next(fd, n);
    if (dies) die();
    return result;
}

int ftruncate(int fd, off_t n)
{
    REAL(truncate_fn, "ftruncate");
    return call_truncate(next, fd, n);
}

int ftruncate64(int fd, off_t n)
{
    REAL(truncate_fn, "ftruncate64");
    return call_truncate(next, fd, n);
}

int rename(const char *from, const char *to)
{
    REAL(paths_fn, "rename");
    const bool dies = meet(on_disk());
    const int result = next(from, to);
    if (dies) die();
    return result;
}

int unlink(const char *path)
{
    REAL(path_fn, "unlink");
    const bool dies = meet(on_disk());
    const int result = next(path);
    if (dies) die();
    return result;
}

/* ---- the clock ---- */

static long wrong_by_s(void)
{
    long seconds = 0;
    const int saved = errno;
    FILE *f = clock_path ? fopen(clock_path, "r") : NULL;
    if (f && fscanf(f, "%ld", &seconds) != 1) seconds = 0;
    if (f) (void)fclose(f);
    errno = saved;
    return seconds;
}

time_t time(time_t *out)
{
    REAL(time_fn, "time");
    const time_t now = next(NULL) + wrong_by_s();
    if (out) *out = now;
    return now;
}

int clock_gettime(clockid_t which, struct timespec *out)
{
    REAL(clock_gettime_fn, "clock_gettime");
    const int result = next(which, out);
    if (result == 0 && which == CLOCK_REALTIME) out->tv_sec += wrong_by_s();
    return result;
}

/* ---- the log ---- */

static void note(chaos_record_kind kind, const void *a, size_t n_a, const void *b, size_t n_b)
{
    if (log_fd < 0) return;
    const size_t n = n_a + n_b;
    const uint8_t head[5] = {(uint8_t)kind, (uint8_t)(n >> 24), (uint8_t)(n >> 16),
                             (uint8_t)(n >> 8), (uint8_t)n};
    uint8_t *record = malloc(sizeof head + n);
    if (!record) abort();
    memcpy(record, head, sizeof head);
    memcpy(record + sizeof head, a, n_a);
    if (n_b) memcpy(record + sizeof head + n_a, b, n_b);
    if (write(log_fd, record, sizeof head + n) < 0) abort();
    free(record);
}

/* A control frame begins with its version and its type; what else is sent (a router's addresses)
 * is longer or shorter, or is no message that decodes. */
static bool is_control(const uint8_t *bytes, size_t n, int flags, bool routed)
{
    if (routed && (flags & ZMQ_SNDMORE) && n == 48) return false;
    return n >= 2 && bytes[0] == DURE_MSG_VERSION && bytes[1] != DURE_MSG_HEARTBEAT;
}

/* This thread has sent a control frame, and its payload comes next. libzmq itself sends messages,
 * too: what it tells of connections, from any thread. */
static _Thread_local bool payload_follows;

int zmq_send(void *socket, const void *data, size_t n, int flags)
{
    REAL(zmq_send_fn, "zmq_send");
    payload_follows = false;
    if (!is_control(data, n, flags, true)) return next(socket, data, n, flags);
    note(CHAOS_FRAME, data, n, NULL, 0);
    uint8_t *altered = version ? malloc(n) : NULL;
    if (altered) {
        memcpy(altered, data, n);
        altered[0] = version;
    }
    const bool is_chunk = ((const uint8_t *)data)[1] == DURE_MSG_CHUNK;
    const bool dies = meet(is_chunk && chunks_left ? &chunks_left : &frames_left);
    const int result = next(socket, altered ? altered : data, n, flags);
    free(altered);
    if (dies) die();
    payload_follows = flags & ZMQ_SNDMORE;
    return result;
}

int zmq_msg_send(zmq_msg_t *msg, void *socket, int flags)
{
    REAL(zmq_msg_send_fn, "zmq_msg_send");
    dure_hash hash;
    if (!payload_follows) return next(msg, socket, flags);
    payload_follows = false;
    if (dure_hash_bytes(&hash, dure_span_of(zmq_msg_data(msg), zmq_msg_size(msg)))) abort();
    note(CHAOS_PAYLOAD, hash.b, sizeof hash.b, NULL, 0);
    return next(msg, socket, flags);
}

/* ---- what is masked ---- */

dure_err __real_dure_secagg_client_update(dure_secagg_actions *actions, dure_secagg_client *client,
                                          const int32_t *units, size_t n, dure_diag *diag);
dure_err __wrap_dure_secagg_client_update(dure_secagg_actions *actions, dure_secagg_client *client,
                                          const int32_t *units, size_t n, dure_diag *diag);

dure_err __wrap_dure_secagg_client_update(dure_secagg_actions *actions, dure_secagg_client *client,
                                          const int32_t *units, size_t n, dure_diag *diag)
{
    note(CHAOS_UPDATE, client->opts.config_hash.b, DURE_HASH_BYTES, units, n * sizeof *units);
    return __real_dure_secagg_client_update(actions, client, units, n, diag);
}

/* ---- what is stored ---- */

dure_err __real_dure_next_adapter_make(dure_hash *digest, const dure_next_adapter *next,
                                       dure_diag *diag);
dure_err __wrap_dure_next_adapter_make(dure_hash *digest, const dure_next_adapter *next,
                                       dure_diag *diag);

dure_err __wrap_dure_next_adapter_make(dure_hash *digest, const dure_next_adapter *next,
                                       dure_diag *diag)
{
    makes_adapter = true;
    const dure_err err = __real_dure_next_adapter_make(digest, next, diag);
    makes_adapter = false;
    return err;
}

dure_err __real_dure_store_sum_round(dure_store *store, const dure_round_row *row, dure_diag *diag);
dure_err __wrap_dure_store_sum_round(dure_store *store, const dure_round_row *row, dure_diag *diag);

dure_err __wrap_dure_store_sum_round(dure_store *store, const dure_round_row *row, dure_diag *diag)
{
    const bool dies = meet(&sums_left);
    const dure_err err = __real_dure_store_sum_round(store, row, diag);
    if (dies) die();
    return err;
}
