#include "coordinator/aggregate_int.h"

#include "common/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static size_t full_chunk(const dure_aggregate *a)
{
    return dure_config_chunk_bytes(a->config, 0);
}

static char *spool_path(const dure_aggregate *a, uint32_t member)
{
    char name[16];
    snprintf(name, sizeof name, "%" PRIu32, member);
    return dure_path_join(a->folder, name);
}

dure_err dure_aggregate_open(dure_aggregate **out, const char *dir, const dure_config *config,
                             dure_byte_budget *budget, dure_diag *diag)
{
    *out = NULL;
    char name[48];
    snprintf(name, sizeof name, "spool/%" PRIu64, config->round);
    dure_aggregate *a = calloc(1, sizeof *a);
    if (!a) return DURE_ERR_NOMEM;
    for (size_t i = 0; i < DURE_MEMBERS_MAX; i++)
        a->spools[i].fd = -1;
    a->config = config;
    a->budget = budget;
    a->folder = dure_path_join(dir, name);
    a->block = malloc(dure_config_chunk_bytes(config, 0));
    a->words = calloc(config->n_words, sizeof *a->words);
    dure_err err = aggregate_ingest_init(a);
    if (!a->folder || !a->block || !a->words) err = DURE_ERR_NOMEM;
    if (!err) err = dure_dir_make(a->folder, diag);
    if (err) dure_aggregate_free(&a);
    *out = a;
    return err;
}

static void spool_close(aggregate_spool *s)
{
    dure_receiver_free(&s->receiver);
    if (s->fd >= 0) close(s->fd);
    free(s->leaves);
    *s = (aggregate_spool){.fd = -1};
}

void dure_aggregate_free(dure_aggregate **aggregate)
{
    if (!aggregate || !*aggregate) return;
    dure_aggregate *a = *aggregate;
    aggregate_ingest_fini(a);
    for (size_t i = 0; i < DURE_MEMBERS_MAX; i++)
        spool_close(&a->spools[i]);
    free(a->folder);
    free(a->block);
    free(a->words);
    free(a);
    *aggregate = NULL;
}

/* Its chunks are in the running sum, which is of no use any more. */
static void discard(dure_aggregate *a, uint32_t member)
{
    /* What was queued is let through first: the threads write to the spool that is closed here. */
    dure_err err = aggregate_ingest_wait(a, member, NULL);
    if (err || dure_members_has(&a->added, member)) a->spoilt = true;
    spool_close(&a->spools[member]);
}

dure_err dure_aggregate_remove(dure_aggregate *a, dure_diag *diag)
{
    for (uint32_t i = 0; i < DURE_MEMBERS_MAX; i++)
        discard(a, i);
    return dure_dir_remove(a->folder, diag);
}

dure_err dure_aggregate_remove_stale(const char *dir, uint64_t round, dure_diag *diag)
{
    char keep[24];
    snprintf(keep, sizeof keep, "%" PRIu64, round);
    char *base = dure_path_join(dir, "spool");
    if (!base) return DURE_ERR_NOMEM;
    dure_err err = DURE_OK;
    DIR *folder = opendir(base);
    const struct dirent *entry;
    while (!err && folder && (entry = readdir(folder))) {
        if (entry->d_name[0] == '.' || strcmp(entry->d_name, keep) == 0) continue;
        char *path = dure_path_join(base, entry->d_name);
        err = path ? dure_dir_remove(path, diag) : DURE_ERR_NOMEM;
        free(path);
    }
    if (folder) closedir(folder);
    free(base);
    return err;
}

dure_err aggregate_read_chunk(dure_span *out, uint8_t *block, const dure_aggregate *a,
                              uint32_t member, uint32_t chunk, dure_diag *diag)
{
    const size_t n = dure_config_chunk_bytes(a->config, chunk);
    size_t at = 0;
    while (at < n) {
        const ssize_t got = pread(a->spools[member].fd, block + at, n - at,
                                  (off_t)(chunk * (uint64_t)full_chunk(a) + at));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return dure_file_errno(diag, "read", a->folder);
        if (got == 0) return DURE_ERR_NOT_FOUND;
        at += (size_t)got;
    }
    *out = dure_span_of(block, n);
    return DURE_OK;
}

/* Counts the whole chunks that an earlier run stored; a torn last one is fetched again. */
static dure_err take_up(dure_aggregate *a, uint32_t member, dure_diag *diag)
{
    aggregate_spool *s = &a->spools[member];
    const uint32_t n = dure_config_chunks(a->config);
    for (uint32_t i = 0; i < n; i++) {
        dure_span chunk;
        dure_err err = aggregate_read_chunk(&chunk, a->block, a, member, i, diag);
        if (err == DURE_ERR_NOT_FOUND) break;
        if (!err) err = dure_receiver_resume(s->receiver, chunk.n);
        if (!err) err = aggregate_take_in(a, member, i, chunk);
        if (err) return err;
        dure_members_add(&a->added, member);
        s->n_came++;
        s->n_done++;
    }
    return dure_aggregate_settle(a, member, diag);
}

dure_err dure_aggregate_collect(dure_aggregate *a, uint32_t member, uint64_t now_ms,
                                dure_diag *diag)
{
    DURE_ASSERT(member < a->config->n_members);
    aggregate_spool *s = &a->spools[member];
    if (s->receiver) return DURE_OK;
    char *path = spool_path(a, member);
    if (!path) return DURE_ERR_NOMEM;
    const dure_receiver_opts opts = {.total_bytes = dure_config_vector_bytes(a->config),
                                     .chunk_bytes = (uint32_t)full_chunk(a),
                                     .budget = a->budget};
    dure_err err = DURE_OK;
    s->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (s->fd < 0) err = dure_file_errno(diag, "open", path);
    if (!err) err = dure_receiver_new(&s->receiver, &opts, now_ms);
    if (!err && !(s->leaves = calloc(dure_config_chunks(a->config), sizeof *s->leaves)))
        err = DURE_ERR_NOMEM;
    if (!err) err = take_up(a, member, diag);
    /* From here on it is written. A file system that cannot is written to the ordinary way. */
    if (!err && full_chunk(a) % AGGREGATE_ALIGN == 0)
        (void)fcntl(s->fd, F_SETFL, fcntl(s->fd, F_GETFL) | O_DIRECT);
    if (err) discard(a, member);
    free(path);
    return err;
}

void dure_aggregate_discard(dure_aggregate *a, uint32_t member)
{
    DURE_ASSERT(member < a->config->n_members);
    discard(a, member);
    char *path = spool_path(a, member);
    if (path) unlink(path);
    free(path);
}

bool dure_aggregate_next(uint32_t *first_chunk, uint32_t *n_chunks, dure_aggregate *a,
                         uint32_t member)
{
    DURE_ASSERT(member < a->config->n_members);
    aggregate_spool *s = &a->spools[member];
    dure_fetch fetch;
    if (!s->receiver || !dure_receiver_next(&fetch, s->receiver)) return false;
    *first_chunk = (uint32_t)(fetch.offset / full_chunk(a));
    *n_chunks = 1;
    while (dure_receiver_next(&fetch, s->receiver))
        ++*n_chunks;
    return true;
}

dure_err dure_aggregate_accept(dure_aggregate *a, uint32_t member, uint32_t chunk, dure_span bytes,
                               uint64_t now_ms, dure_diag *diag)
{
    DURE_ASSERT(member < a->config->n_members);
    aggregate_spool *s = &a->spools[member];
    if (!s->receiver || !a->words)
        return dure_diag_set(diag, DURE_ERR_STATE, "no vector is expected from this site now");
    const size_t want = dure_config_chunk_bytes(a->config, chunk);
    if (want == 0 || bytes.n != want)
        return dure_diag_set(diag, DURE_ERR_PROTO,
                             "chunk %" PRIu32 " of the masked vector has %zu bytes instead of %zu",
                             chunk, bytes.n, want);
    bool fresh = false;
    dure_err err =
        dure_receiver_accept(&fresh, s->receiver, chunk * (uint64_t)full_chunk(a), bytes.n, now_ms);
    if (err)
        return dure_diag_set(diag, err, "chunk %" PRIu32 " of the masked vector was not asked for",
                             chunk);
    if (!fresh) return DURE_OK;
    dure_members_add(&a->added, member);
    err = aggregate_ingest_put(a, member, chunk, bytes, diag);
    if (!err) s->n_came++;
    return err;
}

/* On disk before its signed final frame may count: A3 will name this vector for good. */
dure_err dure_aggregate_settle(dure_aggregate *a, uint32_t member, dure_diag *diag)
{
    DURE_ASSERT(member < a->config->n_members);
    aggregate_spool *s = &a->spools[member];
    const uint32_t n_chunks = dure_config_chunks(a->config);
    if (s->complete || s->n_came < n_chunks) return DURE_OK;
    dure_err err = aggregate_ingest_wait(a, member, diag);
    if (err) return err;
    if (fdatasync(s->fd)) return dure_file_errno(diag, "sync", a->folder);
    err = dure_merkle_root(&s->root, s->leaves, n_chunks);
    s->complete = !err;
    return err;
}

void dure_aggregate_rewind(dure_aggregate *a, uint32_t member)
{
    DURE_ASSERT(member < a->config->n_members);
    if (a->spools[member].receiver) dure_receiver_rewind(a->spools[member].receiver);
}

bool dure_aggregate_root(dure_hash *root, const dure_aggregate *a, uint32_t member)
{
    DURE_ASSERT(member < a->config->n_members);
    const aggregate_spool *s = &a->spools[member];
    if (s->complete) *root = s->root;
    return s->complete;
}

uint64_t dure_aggregate_received(const dure_aggregate *a)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < a->config->n_members; i++)
        if (a->spools[i].receiver)
            n += dure_receiver_progress_of(a->spools[i].receiver).received_bytes;
    return n;
}

uint64_t dure_aggregate_last_ms(const dure_aggregate *a, uint32_t member)
{
    const aggregate_spool *s = &a->spools[member];
    return s->receiver ? dure_receiver_progress_of(s->receiver).last_ms : 0;
}
