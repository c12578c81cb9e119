/* The plan that most questions to the accountants are about: rate, noise and steps, no more. */
#pragma once

#include "dp/plan.h"
#include "support/check.h"

static inline dure_dp_plan plan_of(double rate, double sigma, uint64_t steps)
{
    dure_dp_plan plan = {.steps = steps};
    assert_ok(dure_dp_plan_set_rate(&plan, rate, NULL));
    assert_ok(dure_dp_plan_set_sigma(&plan, sigma, NULL));
    return plan;
}
