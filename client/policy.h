/* DIR/site.yaml: what this site takes part with, and what it accepts. The coordinator cannot
 * override any of it.
 *
 * Written by `dure join`, read at every start, edited by the site's engineer. The schema is strict:
 * an unknown key, a missing one or a value of the wrong type is refused with its line. A policy
 * only ever refuses; it never makes a round laxer than the federation's root signed it.
 *
 * Threads: pure functions. */
#pragma once

#include "common/err.h"
#include "dp/plan.h"
#include "federation/terms.h"
#include "proto/config.h"
#include "secagg/client.h"

#include <stdbool.h>
#include <stdint.h>

#define DURE_POLICY_MAX_BYTES 65536
#define DURE_POLICY_BASES_MAX 16
#define DURE_POLICY_PATH_SIZE 1024
#define DURE_POLICY_MEMORY_MB_MAX (1u << 30)

/* Privacy modes as bits: 1 << dure_privacy_mode. */
#define DURE_POLICY_MODE(mode) (1u << (mode))

typedef struct dure_policy {
    /* What the site is, and has. */
    char federation[DURE_NAME_SIZE];
    char name[DURE_NAME_SIZE];
    char endpoint[DURE_ENDPOINT_SIZE]; /* may be changed when the coordinator moves */
    char data[DURE_POLICY_PATH_SIZE];
    char source[DURE_NAME_SIZE]; /* whose budget pays */
    uint64_t records;            /* N_pub, of records or of subjects as the terms' mode says */
    uint32_t per_subject;        /* records of a subject a step at most; 0: the usual 8 */
    bool ignore_subjects;        /* single records are protected although they name subjects */
    char model[DURE_POLICY_PATH_SIZE];
    uint64_t memory_mb; /* that training may take; 0: nine tenths of what there is */
    char ledger[DURE_POLICY_PATH_SIZE];

    /* What it accepts. */
    dure_privacy budget;    /* of the source, for its life */
    uint32_t modes;         /* accepted privacy modes */
    uint32_t collusion;     /* c_site: sites that may collude with the coordinator */
    uint32_t min_sites;     /* in a sum, and organisations among them */
    uint32_t min_threshold; /* t */
    bool post_quantum;      /* only rounds of the hybrid suite */
    double min_noise;       /* this site's noise multiplier */
    double max_rate;        /* q: share of the records in one step */
    double max_clip;        /* C */
    uint64_t max_steps;     /* of the whole plan */
    uint32_t n_bases;
    dure_hash bases[DURE_POLICY_BASES_MAX]; /* accepted base models */
} dure_policy;

DURE_MUST_USE dure_err dure_policy_write(const char *path, const dure_policy *policy,
                                         dure_diag *diag);
DURE_MUST_USE dure_err dure_policy_read(dure_policy *out, const char *path, dure_diag *diag);
DURE_MUST_USE dure_err dure_policy_parse(dure_policy *out, dure_span text, const char *name,
                                         dure_diag *diag);

/* DURE_ERR_POLICY with a sentence that names the rule of site.yaml, unless the federation's terms
 * and the site's own plan are acceptable. `plan` NULL: the mode is none. DURE_ERR_UNSUPPORTED when
 * the terms are of the hybrid suite and this machine's OpenSSL is not. */
DURE_MUST_USE dure_err dure_policy_check_terms(const dure_policy *policy, const dure_terms *terms,
                                               const dure_dp_plan *plan, dure_diag *diag);
/* DURE_ERR_POLICY with a sentence when `plan`, as it was reserved, spends more than the budget that
 * site.yaml states now: the rule was tightened after the site joined. */
DURE_MUST_USE dure_err dure_policy_check_budget(const dure_policy *policy, const dure_dp_plan *plan,
                                                dure_diag *diag);
/* As dure_policy_check_terms() for one round, of which this site is member `self`. */
DURE_MUST_USE dure_err dure_policy_check_round(const dure_policy *policy, const dure_config *config,
                                               uint32_t self, dure_diag *diag);
/* What the secure sum holds the round to. */
dure_secagg_floors dure_policy_floors(const dure_policy *policy);
