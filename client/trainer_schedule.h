/* The learning rate over the steps of a run: up in a straight line, then level, down in a straight
 * line, or down along half a cosine (Loshchilov and Hutter, arXiv 1608.03983). */
#pragma once

#include "common/err.h"

#include <stdint.h>

typedef enum dure_schedule_kind {
    DURE_SCHEDULE_CONSTANT,
    DURE_SCHEDULE_LINEAR, /* to zero, which the step after the last would reach */
    DURE_SCHEDULE_COSINE,
} dure_schedule_kind;

/* All zero: the full rate in every step. */
typedef struct dure_schedule {
    dure_schedule_kind kind;
    uint64_t
        warmup_steps; /* step i < warmup_steps takes (i + 1) / (warmup_steps + 1) of the rate */
    uint64_t steps;   /* of the whole run; read by linear and cosine */
} dure_schedule;

/* DURE_ERR_USAGE with a sentence unless the warm-up leaves at least one step of the run. */
DURE_MUST_USE dure_err dure_schedule_check(const dure_schedule *s, dure_diag *diag);
/* What the learning rate of step `step` (from 0) is multiplied by, in (0, 1]; 0 past the end of a
 * schedule that falls. */
double dure_schedule_factor(const dure_schedule *s, uint64_t step);
