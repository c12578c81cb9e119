/* The gate: is a candidate better than what is served now, on the federation's own evaluation
 * records, beyond what chance explains?
 *
 * Both models give a loss for each of the same n records. The statistic is the mean of the n paired
 * differences candidate - reference; its 95 % interval comes from the percentile bootstrap over
 * records (Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13). The candidate
 * passes when the whole interval lies below `margin`: with margin 0 it must be better; with a
 * positive one it may be worse by less than that much.
 *
 * The resamples are drawn from a fixed generator, so that the same losses give the same decision on
 * every machine and an auditor can repeat it. The records belong to the federation and are not
 * covered by the sites' guarantees (docs/threat-model.md).
 *
 * Threads: pure functions. */
#pragma once

#include "common/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DURE_GATE_MIN_RECORDS 8u
#define DURE_GATE_MAX_RECORDS 100000u

typedef struct dure_gate_opts {
    double margin;      /* nats a token; 0: the candidate must be better */
    uint32_t resamples; /* 0: 10,000; otherwise 1,000 to 1,000,000 */
} dure_gate_opts;

typedef struct dure_gate_result {
    uint32_t n_records;
    double reference_loss, candidate_loss; /* means over records */
    double difference;                     /* candidate - reference; below 0 is better */
    double low, high;                      /* 95 % interval of the difference */
    double margin;                         /* what `high` was compared with */
    bool passed;
} dure_gate_result;

/* Compares two lists of n losses, one a record and in the same order. A candidate loss that is not
 * finite blocks the candidate (difference, low and high are then +infinity). DURE_ERR_USAGE for a
 * count outside the limits, options out of range, or a reference loss that is not finite. */
DURE_MUST_USE dure_err dure_gate_compare(dure_gate_result *out, const double *reference,
                                         const double *candidate, size_t n,
                                         const dure_gate_opts *opts, dure_diag *diag);

/* "passed: loss 2.871 -> 1.403, difference -1.468 [-1.601, -1.336] over 64 records" */
void dure_gate_text(char text[192], const dure_gate_result *result);
