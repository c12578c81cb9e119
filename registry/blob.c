#include "registry/blob.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEX_SIZE (2 * DURE_HASH_BYTES + 1)

char *dure_blob_path(const char *dir, const dure_hash *digest)
{
    /* Two hex digits of fan-out keep a folder listable after years of rounds. */
    char name[3 + HEX_SIZE];
    dure_hex_encode(name + 3, digest->b, DURE_HASH_BYTES);
    name[0] = name[3];
    name[1] = name[4];
    name[2] = '/';
    return dure_path_join(dir, name);
}

bool dure_blob_present(const char *dir, const dure_hash *digest)
{
    char *path = dure_blob_path(dir, digest);
    bool present = path && dure_file_exists(path);
    free(path);
    return present;
}

static dure_err make_parent(const char *path, dure_diag *diag)
{
    char *parent = strdup(path);
    if (!parent) return dure_diag_set(diag, DURE_ERR_NOMEM, "out of memory");
    *strrchr(parent, '/') = '\0';
    dure_err err = dure_dir_make(parent, diag);
    free(parent);
    return err;
}

dure_err dure_blob_put(dure_hash *digest, const char *dir, dure_span bytes, dure_diag *diag)
{
    char *path = NULL;
    dure_err err = dure_hash_bytes(digest, bytes);
    if (err) return dure_diag_set(diag, err, "the digest of a blob could not be computed");
    path = dure_blob_path(dir, digest);
    if (!path) return dure_diag_set(diag, DURE_ERR_NOMEM, "out of memory");
    /* A file that is there but damaged is written anew: these bytes are the ones it should hold. */
    if (dure_file_exists(path)) {
        err = dure_blob_check(dir, digest, NULL);
        if (!err) goto out;
    }
    err = make_parent(path, diag);
    if (err) goto out;
    err = dure_file_write_atomic(path, bytes, 0644, diag);
out:
    free(path);
    return err;
}

dure_err dure_blob_writer_init(dure_blob_writer *w, const char *dir, const char *name,
                               dure_diag *diag)
{
    *w = (dure_blob_writer){.file = {.fd = -1}};
    char *path = dure_path_join(dir, name);
    w->dir = strdup(dir);
    dure_err err = path && w->dir ? dure_hasher_new(&w->hasher) : DURE_ERR_NOMEM;
    if (!err) err = dure_dir_make(dir, diag);
    if (!err) err = dure_file_writer_begin(&w->file, path, 0644, diag);
    free(path);
    return err;
}

dure_err dure_blob_writer_put(dure_blob_writer *w, dure_span bytes, dure_diag *diag)
{
    dure_err err = dure_hasher_update(w->hasher, bytes.data, bytes.n);
    return err ? err : dure_file_writer_put(&w->file, bytes, diag);
}

dure_err dure_blob_writer_commit(dure_hash *digest, dure_blob_writer *w, dure_diag *diag)
{
    dure_err err = dure_hasher_final(digest, w->hasher);
    if (err) return dure_diag_set(diag, err, "the digest of a blob could not be computed");
    char *path = dure_blob_path(w->dir, digest);
    err = path ? make_parent(path, diag) : DURE_ERR_NOMEM;
    /* One that is there already holds the same bytes, or is damaged and should. */
    if (!err) err = dure_file_writer_commit_to(&w->file, path, diag);
    free(path);
    return err;
}

void dure_blob_writer_fini(dure_blob_writer *w)
{
    dure_file_writer_fini(&w->file);
    dure_hasher_free(&w->hasher);
    free(w->dir);
    w->dir = NULL;
}

static dure_err altered(const char *path, dure_diag *diag)
{
    return dure_diag_set(diag, DURE_ERR_AUTH,
                         "%s does not hold what its name says: the file was damaged or exchanged; "
                         "restore it from a backup",
                         path);
}

dure_err dure_blob_get(dure_buf *out, const char *dir, const dure_hash *digest, size_t limit,
                       dure_diag *diag)
{
    dure_hash found;
    char *path = dure_blob_path(dir, digest);
    if (!path) return dure_diag_set(diag, DURE_ERR_NOMEM, "out of memory");
    dure_err err = dure_file_read(out, path, limit, diag);
    if (err) goto out;
    err = dure_hash_bytes(&found, dure_buf_span(out));
    if (!err && !dure_hash_equal(&found, digest)) err = altered(path, diag);
    if (err) dure_buf_fini(out);
out:
    free(path);
    return err;
}

dure_err dure_blob_check(const char *dir, const dure_hash *digest, dure_diag *diag)
{
    dure_hash found;
    char *path = dure_blob_path(dir, digest);
    if (!path) return dure_diag_set(diag, DURE_ERR_NOMEM, "out of memory");
    dure_err err = dure_hash_file(&found, path, diag);
    if (!err && !dure_hash_equal(&found, digest)) err = altered(path, diag);
    free(path);
    return err;
}

dure_err dure_blob_open(dure_blob_file *out, const char *dir, const dure_hash *digest,
                        dure_diag *diag)
{
    struct stat st;
    *out = (dure_blob_file){.digest = *digest, .fd = -1};
    dure_err err = dure_blob_check(dir, digest, diag);
    if (err) return err;
    char *path = dure_blob_path(dir, digest);
    if (!path) return dure_diag_set(diag, DURE_ERR_NOMEM, "out of memory");
    out->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (out->fd < 0 || fstat(out->fd, &st) != 0)
        err = dure_file_errno(diag, "open", path);
    else if (st.st_size == 0)
        err = dure_diag_set(diag, DURE_ERR_FORMAT, "%s is empty", path);
    else
        out->n = (uint64_t)st.st_size;
    free(path);
    if (err && out->fd >= 0) close(out->fd);
    return err;
}

dure_err dure_blob_read(void *out, const dure_blob_file *file, uint64_t offset, size_t n,
                        dure_diag *diag)
{
    uint8_t *at = out;
    while (n > 0) {
        const ssize_t got = pread(file->fd, at, n, (off_t)offset);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return dure_diag_set(diag, DURE_ERR_IO, "a blob that is open cannot be read");
        at += got;
        offset += (uint64_t)got;
        n -= (size_t)got;
    }
    return DURE_OK;
}

void dure_blob_close(dure_blob_file *file)
{
    if (file->n) close(file->fd);
    *file = (dure_blob_file){.fd = -1};
}
