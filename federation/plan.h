/* The plan of private steps that a member's terms and declared constants come to: what its site
 * reserves, what the log charges and what an auditor expects, from one place. */
#pragma once

#include "dp/plan.h"
#include "federation/roster.h"
#include "federation/terms.h"

/* `rounds` rounds of the member. A round is `steps` steps, or one where the mode protects whole
 * sites: then the noise is the terms', q is 1 and the honest sites are u_min - c. Without privacy
 * the plan has no noise. Not checked: dure_dp_plan_check(). */
dure_dp_plan dure_federation_plan(const dure_terms *terms, const dure_declared *declared,
                                  uint64_t rounds);

/* The delta at which the federation's log and status state a member's epsilon: that of the terms
 * where whole sites are protected, else 1 / (10 n_pub), the largest that a site may choose. */
double dure_federation_delta(const dure_terms *terms, const dure_declared *declared);

/* Steps of the plan that one round takes. */
uint64_t dure_federation_round_steps(const dure_terms *terms);
