/* A plan of private training steps: every public constant on which its guarantee depends.
 *
 * One step: each record enters with probability q on its own (Poisson sampling); its gradient is
 * clipped to C and put on an integer grid of G units (dp/quantize.h); the integer sum gets
 * round(N(0, (sigma G)^2)) in every coordinate (dp/noise.h); only then it becomes floats and is
 * divided by the public constant L. The unit of privacy is one record, the neighbours differ by
 * adding or removing one (sensitivity C), and since rounding is post-processing the step is
 * accounted as the Poisson-subsampled Gaussian mechanism (dp/accountant_rdp.h).
 *
 * Where records name their subjects the unit may be one subject instead, with all its records: a
 * subject enters with probability q, and it is the sum of its records' gradients that is clipped to
 * C. n_pub and L then count subjects; all else is the same.
 *
 * The unit may be a whole site, too. A step is then a round of the federation: the site's update is
 * clipped to C as a whole, in integers, and gets one share of discrete Gaussian noise
 * (dp/noise_share.h); only the secure sum of at least h honest sites is ever seen, and its noise
 * has at least the deviation sigma C. Everything of the site takes part in every round, so q is 1
 * and L is n_pub, and that a site takes part is public: the neighbour's update is zero. Accounted
 * in dp/accountant_zcdp.h.
 *
 * The clip may follow a quantile of the gradients' norms (dp/adaptive_clip.h). Each step then also
 * releases a count with noise of its own. Sum and count are one event: in units of their noise, one
 * record moves them together by at most sqrt(1/sigma^2 + 1/sigma_b^2), so the step is accounted as
 * one with the noise multiplier sigma_eff, 1/sigma_eff^2 = 1/sigma^2 + 1/sigma_b^2.
 *
 * q and sigma are exact rationals, so what is accounted is what is drawn. The same struct is the
 * event that ledgers store: a plan whose steps have been charged. */
#pragma once

#include "common/buf.h"
#include "common/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* sigma = sigma_num / DURE_DP_SIGMA_DEN */
#define DURE_DP_SIGMA_DEN 65536u
#define DURE_DP_CLIP_MIN 1e-9
#define DURE_DP_CLIP_MAX 1e9
#define DURE_DP_GRID_BITS_MIN 14u
#define DURE_DP_GRID_BITS_MAX 24u
#define DURE_DP_STEPS_MAX 100000000u
#define DURE_DP_RECORDS_MAX 1000000000000u
/* One honest site would have the whole noise alone; a round has 100 sites at most. */
#define DURE_DP_HONEST_MIN 2u
#define DURE_DP_HONEST_MAX 100u
/* Where a site is the unit, delta is held to the number of sites as it else is to that of records:
 * at most 1 / (10 x 100). */
#define DURE_DP_SITE_DELTA_MAX 1e-3

typedef enum dure_dp_mechanism {
    DURE_DP_POISSON_GAUSSIAN = 1, /* Poisson sampling, rounded Gaussian noise, add/remove one */
    DURE_DP_POISSON_GAUSSIAN_SUBJECTS = 2, /* the same, of subjects in place of records */
    DURE_DP_SITE_GAUSSIAN = 3, /* shares of discrete Gaussian noise, zero-out of one site */
} dure_dp_mechanism;

/* A clip that follows a quantile. `clip` of the plan is then that of the first step. */
typedef struct dure_dp_adaptive {
    uint32_t count_sigma_num; /* sigma_b in 1/65536, of the count; 0: the clip is fixed */
    uint32_t quantile_num;    /* in 1/65536, below 1: the share of norms to lie under the clip */
    double rate;              /* of the geometric update */
} dure_dp_adaptive;

typedef struct dure_dp_plan {
    dure_dp_mechanism mechanism;
    bool full;          /* q = 1: every record in every step; q_k is then 0 */
    uint64_t q_k;       /* q = q_k / 2^64 */
    uint32_t sigma_num; /* noise multiplier in 1/65536; 0: no noise, epsilon is infinite */
    double clip;        /* C, in the units of one record's gradient */
    uint32_t grid_bits; /* G = 2^grid_bits units stand for C */
    uint64_t steps;     /* T */
    uint64_t n_pub;     /* the owner's public figure for the number of records (or subjects) */
    uint64_t batch;     /* L = q n_pub, the public divisor of the noisy sum */
    uint32_t honest;    /* h: honest sites in every sum at least; 0 but for DURE_DP_SITE_GAUSSIAN */
    uint64_t n_params;  /* d: length of the summed vector; likewise */
    dure_dp_adaptive adaptive;
} dure_dp_plan;

/* The largest budget that is accepted. e^100 bounds nothing: a larger figure is a slip, or a wish
 * to train without privacy, which has an option of its own. */
#define DURE_EPSILON_MAX 100

/* (epsilon, delta)-differential privacy; the two always travel together. */
typedef struct dure_privacy {
    double epsilon, delta;
} dure_privacy;

/* "--batch L of n_pub records": q = L / n_pub rounded down to k / 2^64, exactly 1 if they are
 * equal. DURE_ERR_USAGE unless 0 < L <= n_pub <= DURE_DP_RECORDS_MAX. */
DURE_MUST_USE dure_err dure_dp_plan_set_batch(dure_dp_plan *plan, uint64_t batch, uint64_t n_pub,
                                              dure_diag *diag);
/* A rate given as a number, rounded up to k / 2^64; for questions about plans, not for training.
 * DURE_ERR_USAGE unless 0 < rate <= 1. */
DURE_MUST_USE dure_err dure_dp_plan_set_rate(dure_dp_plan *plan, double rate, dure_diag *diag);
/* A noise multiplier given as a number, rounded up to 1/65536. DURE_ERR_USAGE unless
 * 0 <= sigma < 65536. */
DURE_MUST_USE dure_err dure_dp_plan_set_sigma(dure_dp_plan *plan, double sigma, dure_diag *diag);

/* What one unit of privacy is, in a word: "record", "subject" or "site". */
const char *dure_dp_plan_unit(const dure_dp_plan *plan);
/* "record", "subject" or "site"; DURE_ERR_USAGE for another. */
DURE_MUST_USE dure_err dure_dp_plan_set_unit(dure_dp_plan *plan, const char *unit, dure_diag *diag);

/* Lets the clip adapt: sigma_b rounded up to 1/65536, the quantile to the nearest. DURE_ERR_USAGE
 * unless 0 < sigma_b < 65536, 0 < quantile < 1 and 0 < rate <= 1. */
DURE_MUST_USE dure_err dure_dp_adaptive_set(dure_dp_adaptive *out, double count_sigma,
                                            double quantile, double rate, dure_diag *diag);
/* The usual sigma_b for a batch of L: a twentieth of what the count can be, and 5 at least. */
double dure_dp_adaptive_usual_sigma(uint64_t batch);
bool dure_dp_adaptive_equal(const dure_dp_adaptive *a, const dure_dp_adaptive *b);
/* The same in every field but the steps. */
bool dure_dp_plan_same_step(const dure_dp_plan *a, const dure_dp_plan *b);

/* q as a double, never below k / 2^64; sigma exactly; sigma_b exactly, 0 for a fixed clip. */
double dure_dp_plan_rate(const dure_dp_plan *plan);
double dure_dp_plan_sigma(const dure_dp_plan *plan);
double dure_dp_plan_count_sigma(const dure_dp_plan *plan);
/* What a step is accounted with: sigma for a fixed clip, else sigma_eff, never above it. */
double dure_dp_plan_sigma_effective(const dure_dp_plan *plan);

/* The grid for d parameters: the smallest G = 2^bits >= 2^14 with sqrt(d)/2 <= G/128, so that
 * rounding costs at most 1/128 of the clip. DURE_ERR_LIMIT if d needs more than 2^24. */
DURE_MUST_USE dure_err dure_dp_grid_bits(uint32_t *bits, uint64_t n_params, dure_diag *diag);

/* "clip 1", or what an adaptive one begins with, follows and costs, in the middle of a sentence. */
#define DURE_DP_CLIP_TEXT_SIZE 160
const char *dure_dp_plan_clip_text(char text[static DURE_DP_CLIP_TEXT_SIZE],
                                   const dure_dp_plan *plan);

/* DURE_ERR_USAGE with a sentence unless every field is in range and they agree with each other
 * (q is L / n_pub). A plan that is trained or stored passes this first. sigma 0 passes: whether
 * an infinite epsilon is allowed is the budget's business. */
DURE_MUST_USE dure_err dure_dp_plan_check(const dure_dp_plan *plan, dure_diag *diag);
/* DURE_ERR_USAGE unless 0 < epsilon <= DURE_EPSILON_MAX and 0 < delta < 1. */
DURE_MUST_USE dure_err dure_privacy_check(dure_privacy privacy, dure_diag *diag);

/* The canonical encoding (what is hashed and signed), and its strict reader: DURE_ERR_PROTO
 * unless what is read passes dure_dp_plan_check(). 50 bytes; with an adaptive clip the mechanism's
 * byte has 16 added and 16 bytes follow. */
void dure_dp_plan_put(dure_buf *buf, const dure_dp_plan *plan);
DURE_MUST_USE dure_err dure_dp_plan_take(dure_dp_plan *plan, dure_reader *r);

/* The same as JSON. q_k is text, since a JSON integer does not hold 64 unsigned bits. NULL when
 * out of memory; the reader refuses with DURE_ERR_FORMAT and names the member. */
json_t *dure_dp_plan_to_json(const dure_dp_plan *plan);
DURE_MUST_USE dure_err dure_dp_plan_from_json(dure_dp_plan *plan, const json_t *value,
                                              dure_diag *diag);
