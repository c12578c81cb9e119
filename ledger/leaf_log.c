#include "ledger/leaf_log.h"

#include "common/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    LENGTH_BYTES = 4,
    RECORD_BYTES = 8 + DURE_HASH_BYTES, /* index: end offset of the leaf, hash */
    LEVELS = 25,                        /* of a tree of DURE_LEAF_LOG_LEAVES_MAX leaves */
};

/* One level of the tree: the roots of complete subtrees of 2^level leaves. */
typedef struct level_nodes {
    dure_hash *nodes;
    size_t n, capacity;
} level_nodes;

struct dure_leaf_log {
    char *leaves_path, *index_path;
    int leaves, index; /* file descriptors; -1 when not open */
    bool writable;
    dure_lock lock;
    bool locked;
    uint64_t n;
    uint64_t *ends; /* of each leaf in `leaves`; capacity as that of level 0 */
    level_nodes levels[LEVELS];
};

uint64_t dure_leaf_log_size(const dure_leaf_log *log)
{
    return log->n;
}

const dure_hash *dure_leaf_log_leaf_hash(const dure_leaf_log *log, uint64_t index)
{
    DURE_ASSERT(index < log->n);
    return &log->levels[0].nodes[index];
}

static uint64_t start_of(const dure_leaf_log *log, uint64_t index)
{
    return index == 0 ? 0 : log->ends[index - 1];
}

/* ---- The tree in memory ---- */

static dure_err make_room(dure_leaf_log *log, unsigned level)
{
    level_nodes *nodes = &log->levels[level];
    if (nodes->n < nodes->capacity) return DURE_OK;
    size_t capacity = nodes->capacity ? nodes->capacity * 2 : 64;
    dure_hash *grown = realloc(nodes->nodes, capacity * sizeof *grown);
    if (!grown) return DURE_ERR_NOMEM;
    nodes->nodes = grown;
    if (level == 0) {
        uint64_t *ends = realloc(log->ends, capacity * sizeof *ends);
        if (!ends) return DURE_ERR_NOMEM;
        log->ends = ends;
    }
    nodes->capacity = capacity;
    return DURE_OK;
}

/* Room for one more leaf at every level it can complete, so that adding it cannot fail half way. */
static dure_err reserve(dure_leaf_log *log)
{
    dure_err err = make_room(log, 0);
    for (unsigned level = 1; !err && log->n >> (level - 1) & 1; level++)
        err = make_room(log, level);
    return err;
}

/* Takes a leaf into the tree; on error nothing changed. */
static dure_err grow(dure_leaf_log *log, const dure_hash *leaf, uint64_t end)
{
    dure_hash made[LEVELS];
    unsigned top = 0;
    dure_err err = reserve(log);
    made[0] = *leaf;
    for (; !err && log->n >> top & 1; top++) {
        const level_nodes *nodes = &log->levels[top];
        err = dure_merkle_node(&made[top + 1], &nodes->nodes[nodes->n - 1], &made[top]);
    }
    if (err) return err;
    for (unsigned level = 0; level <= top; level++) {
        level_nodes *nodes = &log->levels[level];
        nodes->nodes[nodes->n++] = made[level];
    }
    log->ends[log->n++] = end;
    return DURE_OK;
}

static dure_err node_of(void *state, dure_hash *out, unsigned level, uint64_t index)
{
    const dure_leaf_log *log = state;
    if (level >= LEVELS || index >= log->levels[level].n) return DURE_ERR_USAGE;
    *out = log->levels[level].nodes[index];
    return DURE_OK;
}

/* The source reads only; the interface's state is not const because others may cache. */
static dure_merkle_source source_of(const dure_leaf_log *log)
{
    union {
        const dure_leaf_log *in;
        void *out;
    } state = {.in = log};
    return (dure_merkle_source){.node = node_of, .state = state.out};
}

dure_err dure_leaf_log_head(dure_merkle_head *out, const dure_leaf_log *log, uint64_t n)
{
    *out = (dure_merkle_head){.n = n};
    if (n > log->n) return DURE_ERR_USAGE;
    dure_merkle_source source = source_of(log);
    return dure_merkle_source_root(&out->root, &source, n);
}

dure_err dure_leaf_log_inclusion(dure_merkle_proof *out, const dure_leaf_log *log, uint64_t n,
                                 uint64_t index)
{
    out->n = 0;
    if (n > log->n) return DURE_ERR_USAGE;
    dure_merkle_source source = source_of(log);
    return dure_merkle_prove_inclusion(out, &source, n, index);
}

dure_err dure_leaf_log_consistency(dure_merkle_proof *out, const dure_leaf_log *log, uint64_t n,
                                   uint64_t old_n)
{
    out->n = 0;
    if (n > log->n || old_n > n) return DURE_ERR_USAGE;
    if (old_n == 0) return DURE_OK;
    dure_merkle_source source = source_of(log);
    return dure_merkle_prove_consistency(out, &source, n, old_n);
}

/* ---- The files ---- */

/* Exactly n bytes at `offset`; DURE_ERR_FORMAT when the file ends before. */
static dure_err read_at(int fd, void *out, size_t n, uint64_t offset)
{
    uint8_t *to = out;
    while (n > 0) {
        ssize_t got = pread(fd, to, n, (off_t)offset);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return DURE_ERR_IO;
        if (got == 0) return DURE_ERR_FORMAT;
        to += got;
        n -= (size_t)got;
        offset += (uint64_t)got;
    }
    return DURE_OK;
}

/* Writes and syncs; whatever failed, the file is cut back to `offset`. */
static dure_err write_at(int fd, dure_span bytes, uint64_t offset, const char *path,
                         dure_diag *diag)
{
    size_t at = 0;
    while (at < bytes.n) {
        ssize_t put = pwrite(fd, bytes.data + at, bytes.n - at, (off_t)(offset + at));
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) break;
        at += (size_t)put;
    }
    if (at == bytes.n && fdatasync(fd) == 0) return DURE_OK;
    dure_err err = dure_file_errno(diag, "write", path);
    /* If this fails too, the next opening cuts the tail off. */
    if (ftruncate(fd, (off_t)offset) != 0) return err;
    return err;
}

static uint64_t load_u64(const uint8_t *bytes)
{
    uint64_t value = 0;
    for (size_t i = 0; i < 8; i++)
        value = value << 8 | bytes[i];
    return value;
}

/* The bytes of leaf `index`, which end at `end`, into a buffer of DURE_LEAF_MAX. */
static dure_err read_leaf(uint8_t *out, size_t *n, int fd, uint64_t start, uint64_t end)
{
    uint8_t length[LENGTH_BYTES];
    if (end < start + LENGTH_BYTES || end - start > LENGTH_BYTES + DURE_LEAF_MAX) {
        return DURE_ERR_FORMAT;
    }
    *n = (size_t)(end - start) - LENGTH_BYTES;
    dure_err err = read_at(fd, length, sizeof length, start);
    if (err) return err;
    uint32_t stated = (uint32_t)length[0] << 24 | (uint32_t)length[1] << 16 |
                      (uint32_t)length[2] << 8 | length[3];
    if (stated != *n) return DURE_ERR_FORMAT;
    return read_at(fd, out, *n, start + LENGTH_BYTES);
}

/* Reads entry number log->n of both files and takes it into the tree. */
static dure_err load_entry(dure_leaf_log *log, uint8_t *leaf, dure_diag *diag)
{
    uint8_t record[RECORD_BYTES];
    dure_hash stored, computed;
    size_t n = 0;
    dure_err err = read_at(log->index, record, sizeof record, log->n * RECORD_BYTES);
    if (err) return dure_file_errno(diag, "read", log->index_path);
    uint64_t start = start_of(log, log->n), end = load_u64(record);
    memcpy(stored.b, record + 8, DURE_HASH_BYTES);
    err = read_leaf(leaf, &n, log->leaves, start, end);
    if (err == DURE_ERR_IO) return dure_file_errno(diag, "read", log->leaves_path);
    if (err) {
        return dure_diag_set(diag, err,
                             "entry %llu of %s is damaged: its length does not fit; restore the "
                             "ledger from a copy",
                             (unsigned long long)log->n, log->leaves_path);
    }
    err = dure_merkle_leaf(&computed, dure_span_of(leaf, n));
    if (err) return err;
    if (!dure_hash_equal(&stored, &computed)) {
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "entry %llu of %s was changed: it does not have its recorded hash; "
                             "restore the ledger from a copy",
                             (unsigned long long)log->n, log->leaves_path);
    }
    return grow(log, &stored, end);
}

/* Cuts a file to the size that has been acknowledged. */
static dure_err cut(int fd, uint64_t size, uint64_t present, const char *path, dure_diag *diag)
{
    if (present == size) return DURE_OK;
    if (ftruncate(fd, (off_t)size) == 0 && fsync(fd) == 0) return DURE_OK;
    return dure_file_errno(diag, "truncate", path);
}

static dure_err load(dure_leaf_log *log, dure_diag *diag)
{
    struct stat leaves, index;
    if (fstat(log->leaves, &leaves) != 0) return dure_file_errno(diag, "read", log->leaves_path);
    if (fstat(log->index, &index) != 0) return dure_file_errno(diag, "read", log->index_path);
    uint64_t n = (uint64_t)index.st_size / RECORD_BYTES;
    if (n > DURE_LEAF_LOG_LEAVES_MAX) {
        return dure_diag_set(diag, DURE_ERR_LIMIT, "%s has more entries than can be read",
                             log->index_path);
    }
    uint8_t *leaf = malloc(DURE_LEAF_MAX);
    if (!leaf) return DURE_ERR_NOMEM;
    dure_err err = DURE_OK;
    while (!err && log->n < n)
        err = load_entry(log, leaf, diag);
    free(leaf);
    if (err || !log->writable) return err;
    err = cut(log->index, n * RECORD_BYTES, (uint64_t)index.st_size, log->index_path, diag);
    if (err) return err;
    return cut(log->leaves, start_of(log, n), (uint64_t)leaves.st_size, log->leaves_path, diag);
}

static dure_err open_file(int *fd, char **path, const char *dir, const char *name, bool writable)
{
    *path = dure_path_join(dir, name);
    if (!*path) return DURE_ERR_NOMEM;
    int flags = O_CLOEXEC | (writable ? O_RDWR | O_CREAT : O_RDONLY);
    *fd = open(*path, flags, 0600);
    return *fd < 0 ? DURE_ERR_IO : DURE_OK;
}

/* New files are durable once their folder is synced. */
static dure_err sync_folder(const char *dir, dure_diag *diag)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return dure_file_errno(diag, "open", dir);
    dure_err err = fsync(fd) == 0 ? DURE_OK : dure_file_errno(diag, "sync", dir);
    (void)close(fd);
    return err;
}

static dure_err acquire(dure_leaf_log *log, const char *dir, dure_diag *diag)
{
    dure_err err = dure_dir_make(dir, diag);
    if (err) return err;
    char *path = dure_path_join(dir, "lock");
    if (!path) return DURE_ERR_NOMEM;
    err = dure_lock_acquire(&log->lock, path, diag);
    log->locked = !err;
    free(path);
    return err;
}

dure_err dure_leaf_log_open(dure_leaf_log **out, const char *dir, dure_leaf_log_mode mode,
                            dure_diag *diag)
{
    *out = NULL;
    dure_leaf_log *log = calloc(1, sizeof *log);
    if (!log) return DURE_ERR_NOMEM;
    log->leaves = log->index = -1;
    log->writable = mode == DURE_LEAF_LOG_WRITE;
    dure_err err = log->writable ? acquire(log, dir, diag) : DURE_OK;
    if (err) goto out;
    err = open_file(&log->leaves, &log->leaves_path, dir, "leaves", log->writable);
    if (err == DURE_ERR_IO) err = dure_file_errno(diag, "open", log->leaves_path);
    if (err) goto out;
    err = open_file(&log->index, &log->index_path, dir, "index", log->writable);
    if (err == DURE_ERR_IO) err = dure_file_errno(diag, "open", log->index_path);
    if (err) goto out;
    if (log->writable) err = sync_folder(dir, diag);
    if (err) goto out;
    err = load(log, diag);
    if (err) goto out;
    *out = log;
    log = NULL;
out:
    dure_leaf_log_close(&log);
    return err;
}

void dure_leaf_log_close(dure_leaf_log **log)
{
    if (!log || !*log) return;
    dure_leaf_log *l = *log;
    /* Every write was synced, so closing has nothing to lose. */
    if (l->leaves >= 0) (void)close(l->leaves);
    if (l->index >= 0) (void)close(l->index);
    if (l->locked) dure_lock_release(&l->lock);
    for (unsigned level = 0; level < LEVELS; level++)
        free(l->levels[level].nodes);
    free(l->ends);
    free(l->leaves_path);
    free(l->index_path);
    free(l);
    *log = NULL;
}

dure_err dure_leaf_log_append(uint64_t *index, dure_leaf_log *log, dure_span leaf, dure_diag *diag)
{
    dure_buf bytes;
    dure_hash hash;
    if (!log->writable) {
        return dure_diag_set(diag, DURE_ERR_STATE, "the log was opened for reading only");
    }
    if (leaf.n > DURE_LEAF_MAX || log->n >= DURE_LEAF_LOG_LEAVES_MAX) {
        return dure_diag_set(diag, DURE_ERR_LIMIT,
                             "the log takes no leaf of %zu bytes as entry %llu", leaf.n,
                             (unsigned long long)log->n);
    }
    uint64_t start = start_of(log, log->n), end = start + LENGTH_BYTES + leaf.n;
    dure_buf_init(&bytes, LENGTH_BYTES + DURE_LEAF_MAX + RECORD_BYTES);
    dure_put_bytes(&bytes, leaf.data, leaf.n);
    dure_put_u64(&bytes, end);
    dure_err err = dure_merkle_leaf(&hash, leaf);
    if (!err) dure_put_raw(&bytes, hash.b, DURE_HASH_BYTES);
    if (!err) err = dure_buf_err(&bytes);
    if (!err) err = reserve(log);
    if (err) goto out;
    size_t n_leaf = LENGTH_BYTES + leaf.n;
    err = write_at(log->leaves, dure_span_of(bytes.data, n_leaf), start, log->leaves_path, diag);
    if (err) goto out;
    err = write_at(log->index, dure_span_of(bytes.data + n_leaf, RECORD_BYTES),
                   log->n * RECORD_BYTES, log->index_path, diag);
    if (err) {
        /* The leaf stays as an unacknowledged tail until the next append overwrites it. */
        goto out;
    }
    *index = log->n;
    err = grow(log, &hash, end);
out:
    dure_buf_fini(&bytes);
    return err;
}

dure_err dure_leaf_log_read(dure_buf *out, const dure_leaf_log *log, uint64_t index,
                            dure_diag *diag)
{
    dure_hash hash;
    size_t n = 0;
    dure_buf_init(out, DURE_LEAF_MAX);
    if (index >= log->n) {
        return dure_diag_set(diag, DURE_ERR_NOT_FOUND, "the log has no entry %llu, only %llu",
                             (unsigned long long)index, (unsigned long long)log->n);
    }
    uint8_t *leaf = malloc(DURE_LEAF_MAX);
    if (!leaf) return DURE_ERR_NOMEM;
    dure_err err = read_leaf(leaf, &n, log->leaves, start_of(log, index), log->ends[index]);
    if (!err) err = dure_merkle_leaf(&hash, dure_span_of(leaf, n));
    if (!err && !dure_hash_equal(&hash, dure_leaf_log_leaf_hash(log, index))) {
        err = DURE_ERR_FORMAT;
    }
    if (!err) {
        dure_put_raw(out, leaf, n);
        err = dure_buf_err(out);
    }
    free(leaf);
    if (err) {
        dure_buf_fini(out);
        return dure_diag_set(diag, err, "entry %llu of %s cannot be read: %s",
                             (unsigned long long)index, log->leaves_path, dure_err_text(err));
    }
    return DURE_OK;
}

dure_err dure_leaf_log_cut(dure_leaf_log *log, uint64_t n, dure_diag *diag)
{
    if (!log->writable) return DURE_ERR_STATE;
    if (n > log->n) return DURE_ERR_USAGE;
    /* The index first: without its record a leaf is not part of the log. */
    dure_err err = cut(log->index, n * RECORD_BYTES, log->n * RECORD_BYTES, log->index_path, diag);
    if (!err)
        err = cut(log->leaves, start_of(log, n), start_of(log, log->n), log->leaves_path, diag);
    if (err) return err;
    log->n = n;
    for (unsigned level = 0; level < LEVELS; level++)
        log->levels[level].n = (size_t)(n >> level);
    return DURE_OK;
}
