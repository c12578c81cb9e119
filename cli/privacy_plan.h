/* dure privacy plan: what a plan of private training costs, and whether it can learn. */
#pragma once

#include "dp/plan.h"

#include <jansson.h>

/* The plan that a question came to, and what follows from it. Infinite figures: no noise. */
typedef struct dure_plan_answer {
    dure_dp_plan plan;
    double delta;
    double epsilon, epsilon_rdp;
    double gdp_mu;        /* the central limit's; for show */
    double sampler_delta; /* taken from delta first */
    double hit_rate;      /* most members that a test finds at one false alarm in a hundred */
    uint64_t n_params;    /* 0: not known */
    uint64_t sites;       /* 1 at least */
    double batch;         /* L; 0: not known */
    char model[160];      /* what n_params comes from, for people; may be empty */
} dure_plan_answer;

/* Whether the noise is shared among sites: its steps are rounds. */
bool dure_plan_is_of_site(const dure_plan_answer *answer);
/* The norm of the clipped gradients' sum if all point the same way, over the norm of the noise: of
 * one step, in the mean of all sites; 0 if the batch or the parameters are not known. */
double dure_plan_signal(const dure_plan_answer *answer);

/* Appends one HTML page about the plan: figures, epsilon over steps and over noise, and what a
 * larger batch or more sites buy at the same epsilon (not for a site's plan, which samples
 * nothing). Takes about a second. */
DURE_MUST_USE dure_err dure_plan_page(dure_buf *out, const dure_plan_answer *answer,
                                      dure_diag *diag);

int dure_privacy_plan(int argc, char **argv);
