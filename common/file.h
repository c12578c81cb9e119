/* Files: bounded reads, writes that are atomic and synced, locks, folders.
 *
 * Every function names the path and the cause in `diag` (may be NULL). A full disk is
 * DURE_ERR_DISK_FULL, a missing file DURE_ERR_NOT_FOUND, another failure DURE_ERR_IO. */
#pragma once

#include "common/buf.h"
#include "common/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Reads the whole file into *out (dure_buf_fini() by the caller). DURE_ERR_LIMIT over `limit`. */
DURE_MUST_USE dure_err dure_file_read(dure_buf *out, const char *path, size_t limit,
                                      dure_diag *diag);

/* Writes `bytes` beside `path`, syncs, renames over it and syncs the folder: after a crash the
 * file is the old one or the new one, whole. `mode` as for open(2). */
DURE_MUST_USE dure_err dure_file_write_atomic(const char *path, dure_span bytes, mode_t mode,
                                              dure_diag *diag);

/* As dure_file_write_atomic() for more bytes than fit in memory: open, put many times, commit.
 * Nothing is at `path` before the commit; fini without one removes what was written. */
typedef struct dure_file_writer {
    int fd; /* -1: closed */
    char path[4096], temporary[4160];
} dure_file_writer;
DURE_MUST_USE dure_err dure_file_writer_init(dure_file_writer *w, const char *path, mode_t mode,
                                             dure_diag *diag);
/* For a file whose name only its bytes tell: written at `temporary`, over what another life may
 * have left there, and put at a path of the same file system that is given at the end. */
DURE_MUST_USE dure_err dure_file_writer_begin(dure_file_writer *w, const char *temporary,
                                              mode_t mode, dure_diag *diag);
DURE_MUST_USE dure_err dure_file_writer_commit_to(dure_file_writer *w, const char *path,
                                                  dure_diag *diag);
DURE_MUST_USE dure_err dure_file_writer_put(dure_file_writer *w, dure_span bytes, dure_diag *diag);
DURE_MUST_USE dure_err dure_file_writer_commit(dure_file_writer *w, dure_diag *diag);
void dure_file_writer_fini(dure_file_writer *w);

/* Syncs the folder that `path` lies in: a new file outlives a power cut only after that. */
DURE_MUST_USE dure_err dure_file_sync_folder(const char *path, dure_diag *diag);

/* Creates `path` and its parents (mode 0700 where missing), each synced in the folder that names
 * it; fine if it is there. */
DURE_MUST_USE dure_err dure_dir_make(const char *path, dure_diag *diag);
/* Removes a folder and all below it; fine if it is not there. Does not follow links. */
DURE_MUST_USE dure_err dure_dir_remove(const char *path, dure_diag *diag);
bool dure_file_exists(const char *path);

/* base + "/" + name, allocated; NULL when out of memory. The caller frees it. */
char *dure_path_join(const char *base, const char *name);

/* An exclusive lock on `path` (created if missing), held until unlock or the process ends.
 * DURE_ERR_BUSY when another process holds it. */
typedef struct dure_lock {
    int fd;
} dure_lock;
DURE_MUST_USE dure_err dure_lock_acquire(dure_lock *lock, const char *path, dure_diag *diag);
void dure_lock_release(dure_lock *lock);

/* The same for an errno that a library kept: "WHAT: the disk is full; ...". */
dure_err dure_file_cause(dure_diag *diag, const char *what, int cause);
/* Fills `diag` from errno for the action ("write", "open") on `path`; returns the code for it. */
dure_err dure_file_errno(dure_diag *diag, const char *action, const char *path);
