#include "common/file.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* What a person can do about it; the words of strerror() where there is nothing to add. */
static const char *cause_text(int cause)
{
    switch (cause) {
    case ENOENT:
        return "there is no such file or folder; check the path";
    case ENOTDIR:
        return "a part of the path is a file, not a folder; check the path";
    case EISDIR:
    case EBUSY: /* "." */
        return "it is a folder; name a file";
    case EACCES:
    case EPERM:
        return "permission denied; run as its owner, or change its mode";
    case EROFS:
        return "the disk is mounted read-only; choose another place";
    case EMFILE:
    case ENFILE:
        return "too many files are open; raise the limit with 'ulimit -n'";
    case ENOSPC:
    case EDQUOT:
        return "the disk is full; free some space and start again";
    default:
        return strerror(cause);
    }
}

static dure_err code_of(int cause)
{
    if (cause == ENOSPC || cause == EDQUOT) return DURE_ERR_DISK_FULL;
    return cause == ENOENT ? DURE_ERR_NOT_FOUND : DURE_ERR_IO;
}

dure_err dure_file_cause(dure_diag *diag, const char *what, int cause)
{
    return dure_diag_set(diag, code_of(cause), "%s: %s", what, cause_text(cause));
}

dure_err dure_file_errno(dure_diag *diag, const char *action, const char *path)
{
    const int cause = errno;
    return dure_diag_set(diag, code_of(cause), "cannot %s %s: %s", action, path, cause_text(cause));
}

dure_err dure_file_read(dure_buf *out, const char *path, size_t limit, dure_diag *diag)
{
    dure_buf_init(out, limit);
    FILE *f = fopen(path, "rb");
    if (!f) return dure_file_errno(diag, "open", path);
    uint8_t block[65536];
    size_t n;
    while ((n = fread(block, 1, sizeof block, f)) > 0)
        dure_put_raw(out, block, n);
    dure_err err = dure_buf_err(out);
    if (err == DURE_ERR_LIMIT)
        dure_diag_set(diag, err, "%s is larger than %zu bytes, the most that is read here", path,
                      limit);
    if (!err && ferror(f)) err = dure_file_errno(diag, "read", path);
    fclose(f);
    if (err) dure_buf_fini(out);
    return err;
}

static dure_err put_all(int fd, dure_span bytes)
{
    size_t at = 0;
    while (at < bytes.n) {
        ssize_t n = write(fd, bytes.data + at, bytes.n - at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return DURE_ERR_IO;
        at += (size_t)n;
    }
    return DURE_OK;
}

/* A rename or a new file is durable only once the folder that names it is synced. */
static dure_err sync_folder_of(const char *path)
{
    char folder[4096];
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (!slash)
        snprintf(folder, sizeof folder, ".");
    else if (slash == folder)
        folder[1] = 0;
    else
        *slash = 0;
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return DURE_ERR_IO;
    int failed = fsync(fd);
    close(fd);
    return failed ? DURE_ERR_IO : DURE_OK;
}

static dure_err set_path(dure_file_writer *w, const char *path, dure_diag *diag)
{
    int n = snprintf(w->path, sizeof w->path, "%s", path);
    if (n >= 0 && (size_t)n < sizeof w->path) return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_LIMIT, "the path %s is too long", path);
}

static dure_err open_temporary(dure_file_writer *w, mode_t mode, dure_diag *diag)
{
    w->fd = open(w->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    return w->fd < 0 ? dure_file_errno(diag, "create", w->temporary) : DURE_OK;
}

dure_err dure_file_writer_init(dure_file_writer *w, const char *path, mode_t mode, dure_diag *diag)
{
    w->fd = -1;
    dure_err err = set_path(w, path, diag);
    if (err) return err;
    snprintf(w->temporary, sizeof w->temporary, "%s.tmp-%ld", path, (long)getpid());
    return open_temporary(w, mode, diag);
}

dure_err dure_file_writer_begin(dure_file_writer *w, const char *temporary, mode_t mode,
                                dure_diag *diag)
{
    w->fd = -1;
    dure_err err = set_path(w, temporary, diag);
    if (err) return err;
    memcpy(w->temporary, w->path, sizeof w->path);
    return open_temporary(w, mode, diag);
}

dure_err dure_file_writer_put(dure_file_writer *w, dure_span bytes, dure_diag *diag)
{
    return put_all(w->fd, bytes) ? dure_file_errno(diag, "write", w->temporary) : DURE_OK;
}

dure_err dure_file_writer_commit(dure_file_writer *w, dure_diag *diag)
{
    if (fsync(w->fd)) return dure_file_errno(diag, "write", w->temporary);
    int fd = w->fd;
    w->fd = -1;
    dure_err err = close(fd) ? dure_file_errno(diag, "write", w->temporary) : DURE_OK;
    if (!err && rename(w->temporary, w->path)) err = dure_file_errno(diag, "replace", w->path);
    if (!err && sync_folder_of(w->path)) err = dure_file_errno(diag, "sync the folder of", w->path);
    if (err) unlink(w->temporary);
    return err;
}

dure_err dure_file_writer_commit_to(dure_file_writer *w, const char *path, dure_diag *diag)
{
    dure_err err = set_path(w, path, diag);
    return err ? err : dure_file_writer_commit(w, diag);
}

void dure_file_writer_fini(dure_file_writer *w)
{
    if (!w || w->fd < 0) return;
    close(w->fd);
    unlink(w->temporary);
    w->fd = -1;
}

dure_err dure_file_write_atomic(const char *path, dure_span bytes, mode_t mode, dure_diag *diag)
{
    dure_file_writer w;
    dure_err err = dure_file_writer_init(&w, path, mode, diag);
    if (!err) err = dure_file_writer_put(&w, bytes, diag);
    if (!err) err = dure_file_writer_commit(&w, diag);
    dure_file_writer_fini(&w);
    return err;
}

dure_err dure_file_sync_folder(const char *path, dure_diag *diag)
{
    return sync_folder_of(path) ? dure_file_errno(diag, "sync the folder of", path) : DURE_OK;
}

/* One that is not synced does not stay, so that the next try makes and syncs it. */
static dure_err make_folder(const char *path, dure_diag *diag)
{
    if (mkdir(path, 0700))
        return errno == EEXIST ? DURE_OK : dure_file_errno(diag, "create the folder", path);
    dure_err err = dure_file_sync_folder(path, diag);
    if (err) rmdir(path);
    return err;
}

dure_err dure_dir_make(const char *path, dure_diag *diag)
{
    char part[4096];
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof part)
        return dure_diag_set(diag, DURE_ERR_USAGE, "a folder's path is empty or too long");
    memcpy(part, path, n + 1);
    for (size_t i = 1; i <= n; i++) {
        if (part[i] != '/' && part[i] != 0) continue;
        char kept = part[i];
        part[i] = 0;
        dure_err err = make_folder(part, diag);
        if (err) return err;
        part[i] = kept;
    }
    struct stat info;
    if (stat(path, &info) || !S_ISDIR(info.st_mode))
        return dure_diag_set(diag, DURE_ERR_IO, "%s is a file, not a folder; choose another name",
                             path);
    return DURE_OK;
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *where)
{
    (void)info, (void)type, (void)where;
    return remove(path);
}

dure_err dure_dir_remove(const char *path, dure_diag *diag)
{
    if (nftw(path, remove_entry, 32, FTW_DEPTH | FTW_PHYS) && errno != ENOENT)
        return dure_file_errno(diag, "remove", path);
    return DURE_OK;
}

bool dure_file_exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0;
}

char *dure_path_join(const char *base, const char *name)
{
    size_t n = strlen(base) + strlen(name) + 2;
    char *path = malloc(n);
    if (path) snprintf(path, n, "%s/%s", base, name);
    return path;
}

dure_err dure_lock_acquire(dure_lock *lock, const char *path, dure_diag *diag)
{
    lock->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (lock->fd < 0) return dure_file_errno(diag, "open", path);
    if (flock(lock->fd, LOCK_EX | LOCK_NB) == 0) return DURE_OK;
    dure_err err =
        errno == EWOULDBLOCK
            ? dure_diag_set(diag, DURE_ERR_BUSY,
                            "%s is held by another process; wait for it or stop it", path)
            : dure_file_errno(diag, "lock", path);
    close(lock->fd);
    lock->fd = -1;
    return err;
}

void dure_lock_release(dure_lock *lock)
{
    if (!lock || lock->fd < 0) return;
    close(lock->fd); /* closing the last descriptor drops the lock */
    lock->fd = -1;
}
