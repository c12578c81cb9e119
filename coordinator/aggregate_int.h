/* Shared by aggregate.c (spools) and aggregate_sum.c (their sum). */
#pragma once

#include "coordinator/aggregate.h"

/* One member's vector. `fd` is open while it is fetched and while it is summed. */
typedef struct aggregate_spool {
    dure_receiver *receiver; /* NULL: not begun */
    int fd;
    dure_hash *leaves; /* of the chunks that are there, in order; room for all */
    uint32_t n_leaves;
    bool complete;
    dure_hash root; /* once complete */
} aggregate_spool;

struct dure_aggregate {
    const dure_config *config;
    dure_byte_budget *budget;
    char *folder;   /* DIR/spool/ROUND */
    uint8_t *block; /* one chunk, for reading back */
    aggregate_spool spools[DURE_MEMBERS_MAX];
};

/* Reads a chunk of an open spool into `block`, which *out then borrows. DURE_ERR_NOT_FOUND when the
 * spool ends before. */
DURE_MUST_USE dure_err aggregate_read_chunk(dure_span *out, uint8_t *block, const dure_aggregate *a,
                                            uint32_t member, uint32_t chunk, dure_diag *diag);
