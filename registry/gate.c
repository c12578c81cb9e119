#include "registry/gate.h"

#include "common/splitmix.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define DEFAULT_RESAMPLES 10000u
#define MIN_RESAMPLES 1000u
#define MAX_RESAMPLES 1000000u

/* Uniform in [0, n), n < 2^32: the high half of a 32 x 32 bit product. The bias, below n / 2^32, is
 * far under the resolution of the bootstrap. */
static uint32_t index_below(uint64_t *state, uint32_t n)
{
    return (uint32_t)(((dure_splitmix64(state) >> 32) * n) >> 32);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Linear interpolation between order statistics (type 7 of Hyndman and Fan 1996). */
static double quantile(const double *sorted, size_t n, double p)
{
    double at = p * (double)(n - 1);
    size_t i = (size_t)at;
    if (i + 1 >= n) return sorted[n - 1];
    return sorted[i] + (at - (double)i) * (sorted[i + 1] - sorted[i]);
}

static dure_err interval(dure_gate_result *out, const double *difference, uint32_t n,
                         uint32_t resamples)
{
    double *means = malloc(resamples * sizeof *means);
    if (!means) return DURE_ERR_NOMEM;
    uint64_t state = 0x447572652067617eu; /* "Dure gat~" */
    for (uint32_t i = 0; i < resamples; i++) {
        double sum = 0;
        for (uint32_t j = 0; j < n; j++)
            sum += difference[index_below(&state, n)];
        means[i] = sum / n;
    }
    qsort(means, resamples, sizeof *means, ascending);
    out->low = quantile(means, resamples, 0.025);
    out->high = quantile(means, resamples, 0.975);
    free(means);
    return DURE_OK;
}

static dure_err check(const double *reference, size_t n, const dure_gate_opts *opts,
                      dure_diag *diag)
{
    if (n < DURE_GATE_MIN_RECORDS || n > DURE_GATE_MAX_RECORDS)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "the gate needs %u to %u evaluation records, there are %zu",
                             DURE_GATE_MIN_RECORDS, DURE_GATE_MAX_RECORDS, n);
    if (!isfinite(opts->margin))
        return dure_diag_set(diag, DURE_ERR_USAGE, "the gate's margin must be a finite number");
    if (opts->resamples && (opts->resamples < MIN_RESAMPLES || opts->resamples > MAX_RESAMPLES))
        return dure_diag_set(diag, DURE_ERR_USAGE, "the gate takes %u to %u resamples, not %u",
                             MIN_RESAMPLES, MAX_RESAMPLES, opts->resamples);
    for (size_t i = 0; i < n; i++)
        if (!isfinite(reference[i]))
            return dure_diag_set(diag, DURE_ERR_USAGE,
                                 "the reference model's loss of evaluation record %zu is not "
                                 "finite: check that record and the model",
                                 i + 1);
    return DURE_OK;
}

dure_err dure_gate_compare(dure_gate_result *out, const double *reference, const double *candidate,
                           size_t n, const dure_gate_opts *opts, dure_diag *diag)
{
    *out = (dure_gate_result){0};
    dure_err err = check(reference, n, opts, diag);
    if (err) return err;
    double *difference = malloc(n * sizeof *difference);
    if (!difference) return dure_diag_set(diag, DURE_ERR_NOMEM, "out of memory");
    double sum_reference = 0, sum_candidate = 0, sum_difference = 0;
    for (size_t i = 0; i < n; i++) {
        difference[i] = candidate[i] - reference[i];
        sum_reference += reference[i];
        sum_candidate += candidate[i];
        sum_difference += difference[i];
    }
    out->n_records = (uint32_t)n;
    out->margin = opts->margin;
    out->reference_loss = sum_reference / (double)n;
    out->candidate_loss = sum_candidate / (double)n;
    if (isfinite(sum_candidate)) {
        out->difference = sum_difference / (double)n;
        err = interval(out, difference, (uint32_t)n,
                       opts->resamples ? opts->resamples : DEFAULT_RESAMPLES);
        if (err) dure_diag_set(diag, err, "out of memory");
        out->passed = !err && out->high < opts->margin;
    } else {
        out->candidate_loss = out->difference = out->low = out->high = INFINITY;
    }
    free(difference);
    return err;
}

void dure_gate_text(char text[192], const dure_gate_result *result)
{
    snprintf(text, 192, "%s: loss %.3f -> %.3f, difference %+.3f [%+.3f, %+.3f] over %u records",
             result->passed ? "passed" : "blocked", result->reference_loss, result->candidate_loss,
             result->difference, result->low, result->high, result->n_records);
}
