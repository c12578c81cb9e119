/* `dure join`: from an invitation to a member of the federation.
 *
 *   check terms, model and records against the policy -> make keys and folder -> name the source,
 *   find the noise -> reserve the whole plan -> send Join -> Joined: done / Refused: release,
 * remove the folder
 *
 * Killed anywhere, the same command goes on: keys and reservation are in the folder, and a
 * coordinator that had said Joined already is asked with HELLO. Nothing but the join record leaves
 * the site: names, public keys and the declared constants.
 *
 * Threads: one. */
#pragma once

#include "client/site.h"

typedef struct dure_enrol_opts {
    const char *invitation; /* path of the file */
    const char *dir;
    const char *data, *source, *model;
    const char *ledger; /* NULL: the owner's (dure_site_ledger_path) */
    uint64_t records;   /* N_pub */
    uint64_t batch;     /* L; 0: what the federation proposes */
    /* That training may take, for site.yaml; 0: nine tenths of the machine's. It is made sure of
     * before anything is made or reserved. */
    uint64_t memory_mb;
    double epsilon, delta; /* delta 0: 1e-5, or 1 / (10 N_pub) if that is smaller */
    uint32_t collusion;    /* c_site; 0: 1 */
    bool accept_no_privacy;
    bool accept_site_level; /* noise that sites share, for the site as a whole */
    bool renew; /* DIR is a site's folder that gets new keys; all above but these two is its */
    uint32_t per_subject; /* 0: the usual number */
    bool ignore_subjects; /* see client/policy.h */
    uint64_t patience_ms; /* for the coordinator; 0: for ever */
    /* Says that the coordinator is waited for, and why; may be NULL. */
    void (*waiting)(void *state, const char *sentence);
    void *state;
} dure_enrol_opts;

typedef struct dure_enrolled {
    char federation[DURE_NAME_SIZE], name[DURE_NAME_SIZE];
    dure_dp_plan plan; /* zero without privacy */
    double epsilon;    /* of the whole plan; 0 without privacy */
    double delta;
    uint64_t roster_size;
} dure_enrolled;

/* DURE_ERR_EXPIRED, DURE_ERR_AUTH: the invitation; DURE_ERR_LIMIT: memory_mb; DURE_ERR_POLICY: the
 * terms; DURE_ERR_FORMAT: no usable record; DURE_ERR_BUDGET: the plan; DURE_ERR_STATE: refused by
 * the coordinator, with its sentence; DURE_ERR_TIMEOUT. A renewal keeps what the site declared,
 * reserved and spent; cut off, the same call goes on. */
DURE_MUST_USE dure_err dure_enrol(dure_enrolled *out, const dure_enrol_opts *opts, dure_diag *diag);
