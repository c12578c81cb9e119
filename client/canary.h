/* The empirical audit: training with canaries, and what can be told about them from what is
 * released.
 *
 * Canary i is a record whose gradient points along a coordinate of its own and is far longer than
 * the clip; a fair coin decides whether it is in the data. The trainer is the one that trains
 * (client/trainer.h): it samples, clips, adds noise, divides and steps as always, on public records
 * besides the canaries. Its optimizer is plain gradient descent, so the trained factors are the
 * sum of all that was released, and a canary's score is its coordinate of that sum: the strongest
 * attack there is against such a canary, with everything in sight but the coins and the noise
 * (white box). The 5 % highest scores are guessed in, the 5 % lowest out (dp/one_run_audit.h).
 *
 * Two plans of the same claim: one takes every record in every step and is Gaussian, which makes
 * wrong noise or clipping visible at once; the other samples, which makes a sampler visible that
 * takes more than its share. Then the released noise itself is measured, without any record.
 *
 * The coins and the noise come from the system's generator: two audits differ. The canaries are
 * not protected and the records must be public: nothing is charged to any budget.
 *
 * Threads: one. */
#pragma once

#include "common/err.h"
#include "dp/one_run_audit.h"
#include "dp/plan.h"
#include "model/dataset.h"
#include "model/transformer.h"

#include <stdbool.h>
#include <stdint.h>

#define DURE_CANARIES_LEAST 5000u
#define DURE_CANARIES_MOST 200000u
#define DURE_CANARY_CLAIM_MOST 2.0       /* epsilon; above it halved noise hides */
#define DURE_CANARY_NOISE_LEAST 1000000u /* draws that are measured */

/* Says what is being done, and how far it is. */
typedef void dure_canary_progress(void *state, const char *what, uint64_t done, uint64_t steps);

typedef struct dure_canary_opts {
    uint64_t canaries;
    dure_privacy claim;   /* what the plans are calibrated to */
    double significance;  /* of each lower bound, one minus its confidence */
    const char *key_path; /* of the attempt's file, which must not be there and is erased */
    dure_canary_progress *progress; /* may be NULL */
    void *progress_state;
} dure_canary_opts;

typedef enum dure_canary_kind {
    DURE_CANARY_EVERY_RECORD, /* q = 1 */
    DURE_CANARY_SAMPLED,
    DURE_CANARY_KINDS,
} dure_canary_kind;

typedef struct dure_canary_run {
    dure_dp_plan plan;
    double claimed;    /* epsilon of the plan at the claim's delta */
    uint64_t included; /* canaries that were in */
    dure_guesses guesses;
    double lower_any; /* the bound for any mechanism */
    double lower;     /* the sharper of those that hold for this plan */
    bool holds;       /* lower <= claimed */
} dure_canary_run;

/* The noise of steps without records. A deviation that is 1 % off, and noise that repeats from step
 * to step, are each beyond the tolerance by several standard errors. */
typedef struct dure_canary_noise {
    uint64_t n;                 /* draws */
    double deviation;           /* measured over planned */
    double deviation_tolerance; /* 6 standard errors */
    double repeat;              /* correlation of a coordinate's noise in one step and the next */
    double repeat_tolerance;
    bool holds;
} dure_canary_noise;

typedef struct dure_canary_report {
    uint32_t rank;     /* of the adapter, */
    uint64_t n_params; /* and its trained parameters */
    dure_canary_run runs[DURE_CANARY_KINDS];
    dure_canary_noise noise;
} dure_canary_report;

/* `data` holds at least one record and is public. The model's adapter is made as large as the
 * canaries need. DURE_ERR_USAGE with a sentence for options out of range or a model that is too
 * small for the canaries. That a claim does not hold is a result, not an error. */
DURE_MUST_USE dure_err dure_canary_audit(dure_canary_report *out, dure_transformer *model,
                                         const dure_dataset *data, const dure_canary_opts *opts,
                                         dure_diag *diag);
/* All claims hold and the noise is as planned. */
bool dure_canary_holds(const dure_canary_report *report);
