/* Answers lines "rate sigma steps delta" on stdin with "rate sigma epsilon epsilon_rdp", rate and
 * sigma as they are accounted: rounded up to the plan's rationals. */
#include "dp/accountant_pld.h"
#include "dp/accountant_rdp.h"

#include <stdio.h>

int main(void)
{
    double rate, sigma, delta;
    unsigned long long steps;
    while (scanf("%lf %lf %llu %lf", &rate, &sigma, &steps, &delta) == 4) {
        dure_rdp rdp = {{0}};
        dure_dp_plan plan = {.steps = steps};
        double epsilon = 0, looser = 0;
        dure_err err = dure_dp_plan_set_rate(&plan, rate, NULL);
        if (!err) err = dure_dp_plan_set_sigma(&plan, sigma, NULL);
        if (!err) err = dure_pld_epsilon(&epsilon, &plan, 1, delta);
        if (!err) dure_rdp_add(&rdp, &plan);
        if (!err) err = dure_rdp_epsilon(&looser, &rdp, delta);
        if (err) {
            fprintf(stderr, "accountant_oracle: %s\n", dure_err_text(err));
            return 1;
        }
        printf("%.17g %.17g %.17g %.17g\n", dure_dp_plan_rate(&plan), dure_dp_plan_sigma(&plan),
               epsilon, looser);
    }
    return 0;
}
