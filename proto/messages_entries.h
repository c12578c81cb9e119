/* The messages by which the log, the roster and checkpoints are asked for, entry by entry. */
#pragma once

#include "common/buf.h"

#include <stdint.h>

/* Bytes of entries in one answer. An entry has at most 32 KiB, so an answer with room for
 * another one has all that there is. */
#define DURE_ENTRIES_ANSWER_BYTES (192u * 1024)

/* What can be asked for entry by entry. */
typedef enum dure_entries_kind {
    DURE_ENTRIES_LOG = 1,        /* leaves of the federation's log */
    DURE_ENTRIES_ROSTER = 2,     /* entries of the roster's chain */
    DURE_ENTRIES_CHECKPOINT = 3, /* one entry: the newest signed note that the sender has */
    DURE_ENTRIES_NOTES = 4,      /* notes that rounds cited, with their cosignatures, by size */
} dure_entries_kind;

/* Both ways: a site keeps the log as the coordinator writes it; a coordinator that was put back to
 * an older copy asks the sites for what it lost. */
typedef struct dure_msg_entries_request {
    uint32_t kind; /* dure_entries_kind */
    uint64_t from; /* number of the first; of notes, their least size */
} dure_msg_entries_request;

/* The answer, followed by a raw frame of n_bytes, at most DURE_ENTRIES_ANSWER_BYTES: n_entries
 * entries in order, each after its length as u32. As many as fit; none when there are no more. */
typedef struct dure_msg_entries {
    uint32_t kind; /* dure_entries_kind */
    uint64_t from;
    uint64_t total; /* that the sender has */
    uint32_t n_entries, n_bytes;
} dure_msg_entries;

/* coordinator -> site: the leaf by which the root says that entries of the log were lost, for a
 * site that has seen some of them. */
typedef struct dure_msg_new_epoch {
    dure_span leaf;
} dure_msg_new_epoch;
#define DURE_MSG_EPOCH_LEAF_MAX 1024
