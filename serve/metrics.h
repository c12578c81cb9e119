/* Counters and histograms of a server, in the Prometheus text format (exposition format 0.0.4).
 * Labels are few and bounded: no user, no prompt, nothing about what was asked.
 *
 * Threads: any. */
#pragma once

#include "common/buf.h"
#include "serve/catalog.h"

typedef enum dure_timing {
    DURE_TIMING_QUEUE,   /* from the request to a free slot */
    DURE_TIMING_FIRST,   /* from the request to its first token */
    DURE_TIMING_TOKEN,   /* between two tokens of one answer */
    DURE_TIMING_REQUEST, /* from the request to its end */
    DURE_TIMINGS
} dure_timing;

typedef enum dure_end {
    DURE_END_STOP,
    DURE_END_LENGTH,
    DURE_END_CANCELLED, /* the client left */
    DURE_END_FAILED,
    DURE_ENDS
} dure_end;

typedef struct dure_metrics dure_metrics;

/* What is read when the text is formed. */
typedef struct dure_gauges {
    size_t queued, queue_capacity, slots, slots_busy;
    double kv_used_ratio; /* of the positions of all slots */
} dure_gauges;

DURE_MUST_USE dure_err dure_metrics_new(dure_metrics **out);
void dure_metrics_free(dure_metrics **metrics);

void dure_metrics_time(dure_metrics *m, dure_timing which, double seconds);
void dure_metrics_end(dure_metrics *m, dure_end how, uint64_t prompt_tokens,
                      uint64_t generated_tokens);
void dure_metrics_status(dure_metrics *m, unsigned http_status);

/* Appends the whole text; errors are in the buffer. */
void dure_metrics_put(dure_buf *out, dure_metrics *m, const dure_gauges *gauges,
                      dure_catalog *catalog);
