#include "federation/plan.h"

#include "proto/config.h"

uint64_t dure_federation_round_steps(const dure_terms *terms)
{
    return terms->training.privacy_mode == DURE_PRIVACY_CLIENT ? 1 : terms->training.steps;
}

double dure_federation_delta(const dure_terms *terms, const dure_declared *declared)
{
    if (terms->training.privacy_mode == DURE_PRIVACY_CLIENT) return terms->training.delta;
    return 1 / (10 * (double)declared->n_pub);
}

dure_dp_plan dure_federation_plan(const dure_terms *terms, const dure_declared *declared,
                                  uint64_t rounds)
{
    const dure_training_terms *t = &terms->training;
    dure_dp_plan plan = {.mechanism = t->privacy_mode == DURE_PRIVACY_SUBJECT
                                          ? DURE_DP_POISSON_GAUSSIAN_SUBJECTS
                                          : DURE_DP_POISSON_GAUSSIAN,
                         .full = declared->q_k == 0,
                         .q_k = declared->q_k,
                         .sigma_num = declared->sigma_num,
                         .clip = t->clip,
                         .grid_bits = t->grid_bits,
                         .steps = rounds * dure_federation_round_steps(terms),
                         .n_pub = declared->n_pub,
                         .batch = declared->batch};
    if (t->privacy_mode != DURE_PRIVACY_CLIENT) return plan;
    plan.mechanism = DURE_DP_SITE_GAUSSIAN;
    plan.full = true;
    plan.q_k = 0;
    plan.batch = declared->n_pub;
    plan.honest = terms->cohort.u_min - terms->cohort.collusion;
    plan.n_params = terms->layout.n_active;
    return plan;
}
