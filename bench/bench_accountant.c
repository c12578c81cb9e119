/* Time of a plan's epsilon by the PLD accountant, and by the Renyi one, over random plans of the
 * kind that tests/oracle/accountant_parity.py compares. Prints TSV: the slowest first.
 *
 *   bench_accountant [PLANS [SEED]] */
#include "common/clock.h"
#include "dp/accountant_pld.h"
#include "dp/accountant_rdp.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct result {
    double rate, sigma, steps, delta, epsilon, rdp, ms, rdp_ms;
} result;

static double uniform(uint64_t *state, double low, double high)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return low + (high - low) * (double)(*state >> 11) * 0x1p-53;
}

static int slower(const void *a, const void *b)
{
    double x = ((const result *)a)->ms, y = ((const result *)b)->ms;
    return (x < y) - (x > y);
}

static dure_err measure(result *r, uint64_t *state)
{
    dure_rdp rdp = {{0}};
    dure_dp_plan plan = {.steps = 0};
    r->steps = floor(pow(10, uniform(state, 0, log10(50000))));
    r->delta = pow(10, uniform(state, -8, -4));
    plan.steps = (uint64_t)r->steps;
    dure_err err = dure_dp_plan_set_rate(&plan, pow(10, uniform(state, -4, 0)), NULL);
    if (!err)
        err = dure_dp_plan_set_sigma(&plan, pow(10, uniform(state, log10(0.4), log10(20))), NULL);
    if (err) return err;
    r->rate = dure_dp_plan_rate(&plan);
    r->sigma = dure_dp_plan_sigma(&plan);
    double started = dure_clock_monotonic_s();
    err = dure_pld_epsilon(&r->epsilon, &plan, 1, r->delta);
    double middle = dure_clock_monotonic_s();
    dure_rdp_add(&rdp, &plan);
    if (!err) err = dure_rdp_epsilon(&r->rdp, &rdp, r->delta);
    r->ms = 1e3 * (middle - started);
    r->rdp_ms = 1e3 * (dure_clock_monotonic_s() - middle);
    return err;
}

int main(int argc, char **argv)
{
    size_t wanted = argc > 1 ? strtoul(argv[1], NULL, 10) : 1000, n = 0;
    uint64_t state = argc > 2 ? strtoul(argv[2], NULL, 10) : 1;
    result *results = calloc(wanted ? wanted : 1, sizeof *results);
    if (!results) return 1;
    double total = 0, rdp_total = 0;
    while (n < wanted) {
        if (measure(&results[n], &state)) return 1;
        if (results[n].epsilon > 50) continue;
        total += results[n].ms;
        rdp_total += results[n].rdp_ms;
        n++;
    }
    qsort(results, n, sizeof *results, slower);
    printf("rate\tsigma\tsteps\tdelta\tepsilon\tepsilon_rdp\tms\tms_rdp\n");
    for (size_t i = 0; i < n && i < 10; i++)
        printf("%.4g\t%.4g\t%.0f\t%.3g\t%.5g\t%.5g\t%.2f\t%.2f\n", results[i].rate,
               results[i].sigma, results[i].steps, results[i].delta, results[i].epsilon,
               results[i].rdp, results[i].ms, results[i].rdp_ms);
    if (n)
        printf(
            "%zu plans: slowest %.2f ms, 99 of 100 within %.2f ms, mean %.2f ms; Renyi mean %.2f "
            "ms\n",
            n, results[0].ms, results[n / 100].ms, total / (double)n, rdp_total / (double)n);
    free(results);
    return 0;
}
