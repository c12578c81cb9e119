/* Shared by aggregate.c (spools), aggregate_ingest.c (what is done with a chunk) and
 * aggregate_sum.c (the sum). */
#pragma once

#include "coordinator/aggregate.h"

#include <pthread.h>

/* A chunk is hashed, added and written at a time by each of these; more only wait for the disk. */
#define AGGREGATE_THREADS_MAX 4
/* Chunks that came and were not worked on yet. With all in use, who accepts the next one waits: so
 * a slow disk slows the credits and costs no memory. */
#define AGGREGATE_SLOTS 16
/* Two threads with chunks of different places never wait for each other; here by place. */
#define AGGREGATE_SUM_LOCKS 16
/* What direct writes are aligned to, in memory, on disk and in length. */
#define AGGREGATE_ALIGN 4096

/* One member's vector. `fd` is open while it is fetched and while it is summed. */
typedef struct aggregate_spool {
    dure_receiver *receiver; /* NULL: not begun */
    int fd;
    dure_hash *leaves; /* of the chunks that are there, in order; room for all */
    uint32_t n_came;   /* chunks that were accepted */
    uint32_t n_done;   /* of them written, hashed and added; under the ingest's lock */
    bool complete;     /* all are, and synced */
    dure_hash root;    /* once complete */
} aggregate_spool;

typedef struct aggregate_slot {
    uint8_t *block; /* owned, aligned, a whole number of AGGREGATE_ALIGN long */
    uint32_t member, chunk;
    size_t n_bytes;
} aggregate_slot;

/* A thread with its queue. A member's chunks are all one lane's, so that a spool has no holes
 * whenever the process ends. */
typedef struct aggregate_lane {
    struct dure_aggregate *aggregate;
    pthread_t thread;
    pthread_cond_t came;
    aggregate_slot *queue[AGGREGATE_SLOTS];
    uint32_t first, n_queued;
} aggregate_lane;

/* Between who accepts chunks and the threads that work on them. */
typedef struct aggregate_ingest {
    pthread_mutex_t lock; /* of all that follows */
    pthread_cond_t done;
    aggregate_lane lanes[AGGREGATE_THREADS_MAX];
    uint32_t n_lanes; /* 0: not started */
    aggregate_slot slots[AGGREGATE_SLOTS];
    aggregate_slot *free[AGGREGATE_SLOTS];
    uint32_t n_free;
    dure_err err; /* the first failure; nothing is done after it */
    dure_diag diag;
    bool over;
} aggregate_ingest;

struct dure_aggregate {
    const dure_config *config;
    dure_byte_budget *budget;
    char *folder;   /* DIR/spool/ROUND */
    uint8_t *block; /* one chunk, for reading back */
    aggregate_spool spools[DURE_MEMBERS_MAX];
    aggregate_ingest ingest;
    /* The running sum over every chunk that came, still masked, modulo 2^32; NULL before the first.
     */
    uint32_t *words;
    pthread_mutex_t word_locks[AGGREGATE_SUM_LOCKS];
    dure_members added; /* whose chunks are in it */
    bool spoilt;        /* by chunks of a member that was discarded */
};

/* Reads a chunk of an open spool into `block`, which *out then borrows. DURE_ERR_NOT_FOUND when the
 * spool ends before. */
DURE_MUST_USE dure_err aggregate_read_chunk(dure_span *out, uint8_t *block, const dure_aggregate *a,
                                            uint32_t member, uint32_t chunk, dure_diag *diag);

/* aggregate_ingest.c */
DURE_MUST_USE dure_err aggregate_ingest_init(dure_aggregate *a);
/* Waits for the threads, which do what is queued. */
void aggregate_ingest_fini(dure_aggregate *a);
/* Queues a chunk that was accepted, the next of its member; `bytes` are copied. Waits for a free
 * slot. An error is that of an earlier chunk. */
DURE_MUST_USE dure_err aggregate_ingest_put(dure_aggregate *a, uint32_t member, uint32_t chunk,
                                            dure_span bytes, dure_diag *diag);
/* Waits until nothing of this member is queued or worked on. The error is that of any chunk. */
DURE_MUST_USE dure_err aggregate_ingest_wait(dure_aggregate *a, uint32_t member, dure_diag *diag);
/* Hashes and adds a chunk that is on disk already. For the owner's thread, with nothing of this
 * member queued. */
DURE_MUST_USE dure_err aggregate_take_in(dure_aggregate *a, uint32_t member, uint32_t chunk,
                                         dure_span bytes);
