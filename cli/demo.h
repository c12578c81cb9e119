/* `dure demo`: the whole story on this machine, each part by the command that people run by hand.
 *
 * One run lives in one folder: federation/ (admin and coordinator), one folder a site with a
 * privacy ledger of its own (the data are synthetic, so the ledger may go with the folder), logs/,
 * the promoted adapter, the merged model, the exported ledger, and summary.json. */
#pragma once

#include "cli/child.h"
#include "cli/output.h"
#include "common/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum { DEMO_SITES = 3, DEMO_PATH = 1024, DEMO_NAME = 32 };

/* What is trained, and how long. "Choosing rank, batch and steps" in README.md tells how such
 * figures are chosen. */
typedef struct demo_plan {
    uint64_t rounds, steps; /* local steps a round */
    uint64_t batch;         /* expected records a step and site */
    uint64_t rank;
    const char *targets, *alpha, *learning_rate, *epsilon;
    const char *fields; /* of the answer's JSON, scored by exact match */
} demo_plan;

/* Mean loss a label, and the share of right fields. */
typedef struct demo_figures {
    double loss, score;
} demo_figures;

/* 95 % intervals of what the adapter changes on the same records (paired bootstrap,
 * registry/gate.h): in a record's mean loss, and in its share of right fields. */
typedef struct demo_change {
    double loss[2], score[2];
} demo_change;

typedef struct demo_site {
    char name[DEMO_NAME];
    uint64_t records; /* N_pub */
    double epsilon_spent, epsilon_budget, delta;
    uint64_t bytes_sent;
    demo_figures base, adapter; /* on its own held-out records, by a process of its own */
    uint64_t steps_done;        /* in the round that runs */
} demo_site;

typedef struct demo {
    demo_plan plan;
    char model[DEMO_PATH], data[DEMO_PATH], out[DEMO_PATH];
    uint64_t threads; /* of one site's process */
    bool json;
    demo_site sites[DEMO_SITES];

    dure_child coordinator, site[DEMO_SITES], server;
    dure_progress progress;
    double started_s, summed_s; /* of the run, and of the round's sum */

    /* What came out. */
    uint64_t rounds_done, tokens;
    double found_s, train_s, sum_s, gate_s, outcome_s, wall_s; /* phases */
    demo_figures base, adapter;                                /* on the shared evaluation set */
    demo_change change;                                        /* there too */
    char adapter_path[DEMO_PATH];
    char *question, *answer_base, *answer_adapter; /* owned */
    bool ledger_verified;
} demo;

/* out/NAME into `path`. */
void demo_path(char path[DEMO_PATH], const demo *d, const char *name);

/* Runs one command to its end and takes the last line of its stdout as JSON; *answer (may be NULL)
 * is the caller's. */
DURE_MUST_USE dure_err demo_command(json_t **answer, const demo *d, const char *const *argv,
                                    dure_diag *diag);

/* That the model opens, that it reads the records of d->data, and that none of them is in d->out,
 * which a run replaces (demo_inputs.c). */
DURE_MUST_USE dure_err demo_check_inputs(const demo *d, dure_diag *diag);
/* The federation, from its founding to the last round (demo_federation.c). */
DURE_MUST_USE dure_err demo_federation(demo *d, dure_diag *diag);
/* What the model says of the shared evaluation set and of each site's held-out records, without and
 * with the adapter at d->adapter_path (demo_figures.c). */
DURE_MUST_USE dure_err demo_evaluate(demo *d, dure_diag *diag);
/* Promotion, merge, figures, the served answers, the audit (demo_outcome.c). */
DURE_MUST_USE dure_err demo_outcome(demo *d, dure_diag *diag);
/* summary.json, and the screen on stdout (demo_report.c). */
DURE_MUST_USE dure_err demo_report(const demo *d, dure_diag *diag);
