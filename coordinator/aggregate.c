#include "coordinator/aggregate.h"

#include "common/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* One member's vector. `fd` is open while it is fetched and while it is summed. */
typedef struct spool {
    dure_receiver *receiver; /* NULL: not begun */
    int fd;
    dure_vector_tree tree;
    bool complete;
    dure_hash root; /* once complete */
} spool;

struct dure_aggregate {
    const dure_config *config;
    dure_byte_budget *budget;
    char *folder;   /* DIR/spool/ROUND */
    uint8_t *block; /* one chunk, for reading back */
    spool spools[DURE_MEMBERS_MAX];
};

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
    dure_err err = a->folder && a->block ? dure_dir_make(a->folder, diag) : DURE_ERR_NOMEM;
    if (err) dure_aggregate_free(&a);
    *out = a;
    return err;
}

static void spool_close(spool *s)
{
    dure_receiver_free(&s->receiver);
    if (s->fd >= 0) close(s->fd);
    *s = (spool){.fd = -1};
}

void dure_aggregate_free(dure_aggregate **aggregate)
{
    if (!aggregate || !*aggregate) return;
    dure_aggregate *a = *aggregate;
    for (size_t i = 0; i < DURE_MEMBERS_MAX; i++)
        spool_close(&a->spools[i]);
    free(a->folder);
    free(a->block);
    free(a);
    *aggregate = NULL;
}

dure_err dure_aggregate_remove(dure_aggregate *a, dure_diag *diag)
{
    for (size_t i = 0; i < DURE_MEMBERS_MAX; i++)
        spool_close(&a->spools[i]);
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

/* Reads chunk `i` of an open spool into the block. DURE_ERR_NOT_FOUND when it ends before. */
static dure_err read_chunk(dure_span *out, const dure_aggregate *a, const spool *s, uint32_t i,
                           dure_diag *diag)
{
    const size_t n = dure_config_chunk_bytes(a->config, i);
    size_t at = 0;
    while (at < n) {
        const ssize_t got =
            pread(s->fd, a->block + at, n - at, (off_t)(i * (uint64_t)full_chunk(a) + at));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return dure_file_errno(diag, "read", a->folder);
        if (got == 0) return DURE_ERR_NOT_FOUND;
        at += (size_t)got;
    }
    *out = dure_span_of(a->block, n);
    return DURE_OK;
}

/* On disk before its signed final frame may count: A3 will name this vector for good. */
static dure_err finish_if_whole(const dure_aggregate *a, spool *s, dure_diag *diag)
{
    if (s->tree.frontier.n < dure_config_chunks(a->config)) return DURE_OK;
    if (fdatasync(s->fd)) return dure_file_errno(diag, "sync", a->folder);
    dure_err err = dure_vector_tree_root(&s->root, &s->tree, a->config);
    if (!err) s->complete = true;
    return err;
}

/* Counts the whole chunks that an earlier run stored; a torn last one is fetched again. */
static dure_err take_up(dure_aggregate *a, spool *s, dure_diag *diag)
{
    dure_err err = DURE_OK;
    const uint32_t n = dure_config_chunks(a->config);
    for (uint32_t i = 0; i < n; i++) {
        dure_span chunk;
        err = read_chunk(&chunk, a, s, i, diag);
        if (err == DURE_ERR_NOT_FOUND) {
            err = DURE_OK;
            break;
        }
        if (!err) err = dure_receiver_resume(s->receiver, chunk.n);
        if (!err) err = dure_vector_tree_add(&s->tree, a->config, chunk);
        if (err) return err;
    }
    return err ? err : finish_if_whole(a, s, diag);
}

dure_err dure_aggregate_collect(dure_aggregate *a, uint32_t member, uint64_t now_ms,
                                dure_diag *diag)
{
    DURE_ASSERT(member < a->config->n_members);
    spool *s = &a->spools[member];
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
    if (!err) err = take_up(a, s, diag);
    if (err) spool_close(s);
    free(path);
    return err;
}

void dure_aggregate_discard(dure_aggregate *a, uint32_t member)
{
    DURE_ASSERT(member < a->config->n_members);
    spool_close(&a->spools[member]);
    char *path = spool_path(a, member);
    if (path) unlink(path);
    free(path);
}

bool dure_aggregate_next(uint32_t *first_chunk, uint32_t *n_chunks, dure_aggregate *a,
                         uint32_t member)
{
    DURE_ASSERT(member < a->config->n_members);
    spool *s = &a->spools[member];
    dure_fetch fetch;
    if (!s->receiver || !dure_receiver_next(&fetch, s->receiver)) return false;
    *first_chunk = (uint32_t)(fetch.offset / full_chunk(a));
    *n_chunks = 1;
    while (dure_receiver_next(&fetch, s->receiver))
        ++*n_chunks;
    return true;
}

static dure_err store_chunk(const dure_aggregate *a, const spool *s, uint32_t chunk,
                            dure_span bytes, dure_diag *diag)
{
    size_t at = 0;
    while (at < bytes.n) {
        const ssize_t n = pwrite(s->fd, bytes.data + at, bytes.n - at,
                                 (off_t)(chunk * (uint64_t)full_chunk(a) + at));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return dure_file_errno(diag, "write", a->folder);
        at += (size_t)n;
    }
    return DURE_OK;
}

dure_err dure_aggregate_accept(dure_aggregate *a, uint32_t member, uint32_t chunk, dure_span bytes,
                               uint64_t now_ms, dure_diag *diag)
{
    DURE_ASSERT(member < a->config->n_members);
    spool *s = &a->spools[member];
    if (!s->receiver)
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
    err = store_chunk(a, s, chunk, bytes, diag);
    if (!err) err = dure_vector_tree_add(&s->tree, a->config, bytes);
    return err ? err : finish_if_whole(a, s, diag);
}

void dure_aggregate_rewind(dure_aggregate *a, uint32_t member)
{
    DURE_ASSERT(member < a->config->n_members);
    if (a->spools[member].receiver) dure_receiver_rewind(a->spools[member].receiver);
}

bool dure_aggregate_root(dure_hash *root, const dure_aggregate *a, uint32_t member)
{
    DURE_ASSERT(member < a->config->n_members);
    const spool *s = &a->spools[member];
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
    const spool *s = &a->spools[member];
    return s->receiver ? dure_receiver_progress_of(s->receiver).last_ms : 0;
}

/* Adds one member's chunk to the sum's words; `check` collects the chunks read back. */
static dure_err add_chunk(uint32_t *words, const dure_aggregate *a, const spool *s,
                          dure_vector_tree *check, uint32_t chunk, dure_diag *diag)
{
    dure_span bytes;
    dure_err err = read_chunk(&bytes, a, s, chunk, diag);
    if (err == DURE_ERR_NOT_FOUND) err = DURE_ERR_AUTH;
    if (!err) err = dure_vector_tree_add(check, a->config, bytes);
    if (!err) dure_vector_add_packed(words, bytes, a->config);
    return err;
}

static dure_err check_roots(const dure_aggregate *a, const dure_members *u3,
                            const dure_vector_tree *checks, dure_diag *diag)
{
    for (uint32_t m = 0; m < a->config->n_members; m++) {
        if (!dure_members_has(u3, m)) continue;
        dure_hash root;
        dure_err err = dure_vector_tree_root(&root, &checks[m], a->config);
        if (err) return err;
        if (!dure_hash_equal(&root, &a->spools[m].root))
            return dure_diag_set(diag, DURE_ERR_AUTH,
                                 "the spooled vector of \"%s\" changed on disk",
                                 a->config->members[m].name);
    }
    return DURE_OK;
}

/* The words of a chunk become the signed values of the sum, in place. */
static void extend_sign(int32_t *sum, const uint32_t *words, size_t n, unsigned bits)
{
    for (size_t i = 0; i < n; i++)
        sum[i] = (int32_t)dure_mask_value(words[i], bits);
}

static dure_err sum_chunks(int32_t *sum, const dure_aggregate *a, const dure_members *u3,
                           dure_masks *masks, dure_vector_tree *checks, dure_diag *diag)
{
    const uint32_t n_chunks = dure_config_chunks(a->config);
    uint32_t *words = malloc(a->config->chunk_words * sizeof *words);
    if (!words) return DURE_ERR_NOMEM;
    dure_err err = DURE_OK;
    for (uint32_t c = 0; !err && c < n_chunks; c++) {
        const size_t n = dure_vector_chunk_words(a->config, c);
        memset(words, 0, n * sizeof *words);
        for (uint32_t m = 0; !err && m < a->config->n_members; m++)
            if (dure_members_has(u3, m))
                err = add_chunk(words, a, &a->spools[m], &checks[m], c, diag);
        if (!err) err = dure_masks_apply(words, masks, c);
        if (!err)
            extend_sign(sum + (size_t)c * a->config->chunk_words, words, n, a->config->word_bits);
    }
    free(words);
    return err;
}

dure_err dure_aggregate_sum(int32_t *sum, dure_aggregate *a, const dure_members *u3,
                            dure_masks *masks, dure_diag *diag)
{
    for (uint32_t m = 0; m < a->config->n_members; m++)
        if (dure_members_has(u3, m) && !a->spools[m].complete)
            return dure_diag_set(diag, DURE_ERR_STATE, "the vector of \"%s\" is not complete",
                                 a->config->members[m].name);
    dure_vector_tree *checks = calloc(DURE_MEMBERS_MAX, sizeof *checks);
    if (!checks) return DURE_ERR_NOMEM;
    dure_err err = sum_chunks(sum, a, u3, masks, checks, diag);
    if (!err) err = check_roots(a, u3, checks, diag);
    if (err) memset(sum, 0, a->config->n_words * sizeof *sum);
    free(checks);
    return err;
}
