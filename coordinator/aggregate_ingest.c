/* What is done with a chunk that was accepted, beside the thread that receives: its leaf, its part
 * of the running sum, its place on disk.
 *
 * Writes go past the page cache where the file system can: a spool is read again only after a
 * crash or when a member is lost, and a round's spools would push everything else out of memory. */
#include "coordinator/aggregate_int.h"

#include "common/file.h"
#include "common/thread.h"
#include "kernels/threads.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static size_t aligned(size_t n)
{
    return (n + AGGREGATE_ALIGN - 1) / AGGREGATE_ALIGN * AGGREGATE_ALIGN;
}

/* ---- a chunk ---- */

dure_err aggregate_take_in(dure_aggregate *a, uint32_t member, uint32_t chunk, dure_span bytes)
{
    pthread_mutex_t *lock = &a->word_locks[chunk % AGGREGATE_SUM_LOCKS];
    dure_err err = dure_merkle_leaf(&a->spools[member].leaves[chunk], bytes);
    if (err) return err;
    pthread_mutex_lock(lock);
    dure_vector_add_packed(a->words + (size_t)chunk * a->config->chunk_words, bytes, a->config);
    pthread_mutex_unlock(lock);
    return DURE_OK;
}

/* The last chunk is written with zeros to its full page, which nobody reads. */
static dure_err write_block(const dure_aggregate *a, const aggregate_slot *s, dure_diag *diag)
{
    const int fd = a->spools[s->member].fd;
    const uint64_t from = (uint64_t)s->chunk * dure_config_chunk_bytes(a->config, 0);
    size_t at = 0;
    for (;;) {
        const bool direct = fcntl(fd, F_GETFL) & O_DIRECT;
        const size_t n = direct ? aligned(s->n_bytes) : s->n_bytes;
        if (at >= s->n_bytes) return DURE_OK;
        const ssize_t written = pwrite(fd, s->block + at, n - at, (off_t)(from + at));
        if (written < 0 && errno == EINTR) continue;
        if (written > 0) at += (size_t)written;
        /* A disk of larger blocks, or a part that was written: the rest goes the ordinary way. */
        const bool unaligned = direct && (written < 0 ? errno == EINVAL : at % AGGREGATE_ALIGN);
        if (unaligned && fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_DIRECT) == 0) continue;
        if (written <= 0) return dure_file_errno(diag, "write", a->folder);
    }
}

static dure_err work_on(dure_aggregate *a, const aggregate_slot *s, dure_diag *diag)
{
    dure_err err = write_block(a, s, diag);
    return err ? err
               : aggregate_take_in(a, s->member, s->chunk, dure_span_of(s->block, s->n_bytes));
}

/* ---- the threads ---- */

/* Takes the next chunk off the lane; NULL when it is over and all is done. With the lock held. */
static aggregate_slot *next_slot(aggregate_lane *lane)
{
    aggregate_ingest *in = &lane->aggregate->ingest;
    while (lane->n_queued == 0 && !in->over)
        pthread_cond_wait(&lane->came, &in->lock);
    if (lane->n_queued == 0) return NULL;
    aggregate_slot *s = lane->queue[lane->first];
    lane->first = (lane->first + 1) % AGGREGATE_SLOTS;
    lane->n_queued--;
    return s;
}

static void *work(void *state)
{
    aggregate_lane *lane = state;
    dure_aggregate *a = lane->aggregate;
    aggregate_ingest *in = &a->ingest;
    aggregate_slot *s;
    pthread_mutex_lock(&in->lock);
    while ((s = next_slot(lane))) {
        dure_err err = in->err;
        dure_diag why = {{0}};
        pthread_mutex_unlock(&in->lock);
        if (!err) err = work_on(a, s, &why);
        pthread_mutex_lock(&in->lock);
        if (err && !in->err) {
            in->err = err;
            in->diag = why;
        }
        a->spools[s->member].n_done++;
        in->free[in->n_free++] = s;
        pthread_cond_signal(&in->done);
    }
    pthread_mutex_unlock(&in->lock);
    return NULL;
}

static dure_err start(dure_aggregate *a, dure_diag *diag)
{
    aggregate_ingest *in = &a->ingest;
    const uint32_t cores = dure_physical_cores();
    const uint32_t n = cores < AGGREGATE_THREADS_MAX ? cores : AGGREGATE_THREADS_MAX;
    for (dure_err err = DURE_OK; !err && in->n_lanes < n;) {
        aggregate_lane *lane = &in->lanes[in->n_lanes];
        lane->aggregate = a;
        pthread_cond_init(&lane->came, NULL);
        err = dure_thread_start(&lane->thread, work, lane);
        if (err)
            pthread_cond_destroy(&lane->came);
        else
            in->n_lanes++;
    }
    return in->n_lanes ? DURE_OK
                       : dure_diag_set(diag, DURE_ERR_LIMIT,
                                       "no thread can be started to take vectors in; raise the "
                                       "limit on memory or processes ('ulimit -v', 'ulimit -u')");
}

dure_err aggregate_ingest_init(dure_aggregate *a)
{
    aggregate_ingest *in = &a->ingest;
    const size_t size = aligned(dure_config_chunk_bytes(a->config, 0));
    pthread_mutex_init(&in->lock, NULL);
    pthread_cond_init(&in->done, NULL);
    for (size_t i = 0; i < AGGREGATE_SUM_LOCKS; i++)
        pthread_mutex_init(&a->word_locks[i], NULL);
    for (size_t i = 0; i < AGGREGATE_SLOTS; i++) {
        in->slots[i].block = aligned_alloc(AGGREGATE_ALIGN, size);
        if (!in->slots[i].block) return DURE_ERR_NOMEM;
        memset(in->slots[i].block, 0, size);
        in->free[in->n_free++] = &in->slots[i];
    }
    return DURE_OK;
}

void aggregate_ingest_fini(dure_aggregate *a)
{
    aggregate_ingest *in = &a->ingest;
    pthread_mutex_lock(&in->lock);
    in->over = true;
    for (uint32_t i = 0; i < in->n_lanes; i++)
        pthread_cond_signal(&in->lanes[i].came);
    pthread_mutex_unlock(&in->lock);
    for (uint32_t i = 0; i < in->n_lanes; i++) {
        pthread_join(in->lanes[i].thread, NULL);
        pthread_cond_destroy(&in->lanes[i].came);
    }
    for (size_t i = 0; i < AGGREGATE_SLOTS; i++)
        free(in->slots[i].block);
    for (size_t i = 0; i < AGGREGATE_SUM_LOCKS; i++)
        pthread_mutex_destroy(&a->word_locks[i]);
    pthread_cond_destroy(&in->done);
    pthread_mutex_destroy(&in->lock);
}

/* ---- the owner's side ---- */

static dure_err told(const aggregate_ingest *in, dure_diag *diag)
{
    if (!in->err) return DURE_OK;
    return dure_diag_set(diag, in->err, "%s",
                         in->diag.text[0] ? in->diag.text : dure_err_text(in->err));
}

dure_err aggregate_ingest_put(dure_aggregate *a, uint32_t member, uint32_t chunk, dure_span bytes,
                              dure_diag *diag)
{
    aggregate_ingest *in = &a->ingest;
    dure_err err = in->n_lanes ? DURE_OK : start(a, diag);
    if (err) return err;
    aggregate_lane *lane = &in->lanes[member % in->n_lanes];
    pthread_mutex_lock(&in->lock);
    while (in->n_free == 0)
        pthread_cond_wait(&in->done, &in->lock);
    err = told(in, diag);
    aggregate_slot *s = err ? NULL : in->free[--in->n_free];
    pthread_mutex_unlock(&in->lock);
    if (err) return err;
    s->member = member;
    s->chunk = chunk;
    s->n_bytes = bytes.n;
    memcpy(s->block, bytes.data, bytes.n);
    memset(s->block + bytes.n, 0, aligned(bytes.n) - bytes.n);
    pthread_mutex_lock(&in->lock);
    lane->queue[(lane->first + lane->n_queued++) % AGGREGATE_SLOTS] = s;
    pthread_cond_signal(&lane->came);
    pthread_mutex_unlock(&in->lock);
    return DURE_OK;
}

dure_err aggregate_ingest_wait(dure_aggregate *a, uint32_t member, dure_diag *diag)
{
    aggregate_ingest *in = &a->ingest;
    const aggregate_spool *s = &a->spools[member];
    pthread_mutex_lock(&in->lock);
    while (s->n_done < s->n_came)
        pthread_cond_wait(&in->done, &in->lock);
    dure_err err = told(in, diag);
    pthread_mutex_unlock(&in->lock);
    return err;
}
