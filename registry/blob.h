/* Content-addressed files: DIR/ab/abcd...ef, named by the SHA-256 of what they hold.
 *
 * A blob is written once, atomically and synced, and never changed; who reads one checks it against
 * its name, so a flipped bit or an exchanged file is an error and not an adapter.
 *
 * Threads: any number, and any number of processes: two that put the same bytes write the same
 * file. */
#pragma once

#include "common/file.h"
#include "crypto/hash.h"

#include <stdbool.h>

/* Path of the blob below `dir`, allocated; NULL when out of memory. The caller frees it. */
char *dure_blob_path(const char *dir, const dure_hash *digest);
bool dure_blob_present(const char *dir, const dure_hash *digest);

/* Stores the bytes, or finds them stored. *digest is their name. DURE_ERR_DISK_FULL, DURE_ERR_IO.
 */
DURE_MUST_USE dure_err dure_blob_put(dure_hash *digest, const char *dir, dure_span bytes,
                                     dure_diag *diag);

/* A blob that is stored as it is made, so that it need not be in memory. Nothing is stored before
 * the commit; fini without one leaves nothing. */
typedef struct dure_blob_writer {
    dure_file_writer file;
    dure_hasher *hasher; /* owned */
    char *dir;           /* owned */
} dure_blob_writer;
/* Writes to the file `name` in `dir` until then, over what a process that was killed left there:
 * one process at a time has that name. */
DURE_MUST_USE dure_err dure_blob_writer_init(dure_blob_writer *w, const char *dir, const char *name,
                                             dure_diag *diag);
DURE_MUST_USE dure_err dure_blob_writer_put(dure_blob_writer *w, dure_span bytes, dure_diag *diag);
/* Synced under its name, which is *digest. */
DURE_MUST_USE dure_err dure_blob_writer_commit(dure_hash *digest, dure_blob_writer *w,
                                               dure_diag *diag);
void dure_blob_writer_fini(dure_blob_writer *w);

/* Reads and checks. DURE_ERR_NOT_FOUND; DURE_ERR_AUTH when the bytes are not those of the name;
 * DURE_ERR_LIMIT over `limit`. The caller ends *out with dure_buf_fini(). */
DURE_MUST_USE dure_err dure_blob_get(dure_buf *out, const char *dir, const dure_hash *digest,
                                     size_t limit, dure_diag *diag);
/* A blob that is read in parts, so that it need not be in memory. Start from {0}. */
typedef struct dure_blob_file {
    dure_hash digest;
    uint64_t n; /* its length; 0: none is open */
    int fd;
} dure_blob_file;
/* Opens a blob that was found whole and right by then. Errors of dure_blob_get(), and
 * DURE_ERR_FORMAT for an empty one. */
DURE_MUST_USE dure_err dure_blob_open(dure_blob_file *out, const char *dir, const dure_hash *digest,
                                      dure_diag *diag);
/* Reads n bytes from `offset` on, within the blob's length. */
DURE_MUST_USE dure_err dure_blob_read(void *out, const dure_blob_file *file, uint64_t offset,
                                      size_t n, dure_diag *diag);
void dure_blob_close(dure_blob_file *file); /* idempotent */

/* DURE_ERR_NOT_FOUND or DURE_ERR_AUTH unless the file is there and holds what its name says. */
DURE_MUST_USE dure_err dure_blob_check(const char *dir, const dure_hash *digest, dure_diag *diag);
