#include "dp/plan.h"

#include "common/json.h"
#include "dp/noise_share.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char mechanism_text[] = "poisson-gaussian-rounded";
static const char site_mechanism_text[] = "distributed-discrete-gaussian";

static bool is_known(dure_dp_mechanism mechanism)
{
    return mechanism >= DURE_DP_POISSON_GAUSSIAN && mechanism <= DURE_DP_SITE_GAUSSIAN;
}

static bool is_of_site(const dure_dp_plan *plan)
{
    return plan->mechanism == DURE_DP_SITE_GAUSSIAN;
}

const char *dure_dp_plan_unit(const dure_dp_plan *plan)
{
    if (is_of_site(plan)) return "site";
    return plan->mechanism == DURE_DP_POISSON_GAUSSIAN_SUBJECTS ? "subject" : "record";
}

dure_err dure_dp_plan_set_unit(dure_dp_plan *plan, const char *unit, dure_diag *diag)
{
    static const char *const units[] = {"record", "subject", "site"};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (strcmp(unit, units[i]) != 0) continue;
        plan->mechanism = (dure_dp_mechanism)(DURE_DP_POISSON_GAUSSIAN + i);
        return DURE_OK;
    }
    return dure_diag_set(diag, DURE_ERR_USAGE,
                         "the unit of privacy is record, subject or site, not '%s'", unit);
}

dure_err dure_dp_plan_set_batch(dure_dp_plan *plan, uint64_t batch, uint64_t n_pub, dure_diag *diag)
{
    if (n_pub == 0 || n_pub > DURE_DP_RECORDS_MAX)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "the public number of records must be 1 to %llu, not %llu",
                             (unsigned long long)DURE_DP_RECORDS_MAX, (unsigned long long)n_pub);
    if (batch == 0 || batch > n_pub)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "the batch must be 1 to the public number of records, %llu, not %llu",
                             (unsigned long long)n_pub, (unsigned long long)batch);
    plan->n_pub = n_pub;
    plan->batch = batch;
    plan->full = batch == n_pub;
    plan->q_k = plan->full ? 0 : (uint64_t)(((unsigned __int128)batch << 64) / n_pub);
    return DURE_OK;
}

dure_err dure_dp_plan_set_rate(dure_dp_plan *plan, double rate, dure_diag *diag)
{
    if (!(rate > 0 && rate <= 1))
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "the sampling rate must be above 0 and at most 1, not %g", rate);
    plan->full = rate == 1;
    /* Below 1 a double is at most 1 - 2^-53, so the product stays under 2^64. */
    plan->q_k = plan->full ? 0 : (uint64_t)ceil(ldexp(rate, 64));
    return DURE_OK;
}

dure_err dure_dp_plan_set_sigma(dure_dp_plan *plan, double sigma, dure_diag *diag)
{
    double num = ceil(sigma * DURE_DP_SIGMA_DEN);
    if (!(sigma >= 0 && num <= UINT32_MAX))
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "the noise multiplier must be 0 to 65535, not %g", sigma);
    plan->sigma_num = (uint32_t)num;
    return DURE_OK;
}

double dure_dp_plan_rate(const dure_dp_plan *plan)
{
    if (plan->full) return 1;
    double k = (double)plan->q_k;
    double rate = ldexp(k, -64);
    /* The conversion rounds to nearest; one step up keeps the accountant on the safe side. */
    if (k < 0x1p64 && (uint64_t)k < plan->q_k) rate = nextafter(rate, 1);
    return rate;
}

double dure_dp_plan_sigma(const dure_dp_plan *plan)
{
    return (double)plan->sigma_num / DURE_DP_SIGMA_DEN;
}

/* sqrt(d)/2 <= G/128 is d <= (G/64)^2, in integers. */
static bool grid_suits(uint32_t bits, uint64_t n_params)
{
    uint64_t side = (uint64_t)1 << (bits - 6);
    return n_params <= side * side;
}

dure_err dure_dp_grid_bits(uint32_t *bits, uint64_t n_params, dure_diag *diag)
{
    *bits = 0;
    for (uint32_t b = DURE_DP_GRID_BITS_MIN; b <= DURE_DP_GRID_BITS_MAX; b++) {
        if (!grid_suits(b, n_params)) continue;
        *bits = b;
        return DURE_OK;
    }
    return dure_diag_set(diag, DURE_ERR_LIMIT,
                         "%llu trained parameters are more than the finest grid takes; train a "
                         "smaller rank or fewer targets",
                         (unsigned long long)n_params);
}

static dure_err check_rate(const dure_dp_plan *plan, dure_diag *diag)
{
    dure_dp_plan again = {0};
    dure_err err = dure_dp_plan_set_batch(&again, plan->batch, plan->n_pub, diag);
    if (err) return err;
    if (again.full != plan->full || again.q_k != plan->q_k)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "the plan's sampling rate is not its batch over its public number of "
                             "records");
    return DURE_OK;
}

/* What only plans that protect a site have. */
static dure_err check_shares(const dure_dp_plan *plan, dure_diag *diag)
{
    if (!is_of_site(plan)) {
        if (plan->honest == 0 && plan->n_params == 0) return DURE_OK;
        return dure_diag_set(diag, DURE_ERR_USAGE, "only a site's plan counts honest sites");
    }
    if (!plan->full)
        return dure_diag_set(
            diag, DURE_ERR_USAGE,
            "a site takes part in every round with all it has, so its plan's batch "
            "is its number of records");
    if (plan->honest < DURE_DP_HONEST_MIN || plan->honest > DURE_DP_HONEST_MAX)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "the honest sites of a sum must be %u to %u, not %u",
                             DURE_DP_HONEST_MIN, DURE_DP_HONEST_MAX, plan->honest);
    if (plan->n_params == 0 || !grid_suits(plan->grid_bits, plan->n_params))
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "the plan's grid does not suit its %llu parameters",
                             (unsigned long long)plan->n_params);
    uint64_t variance = dure_share_variance(plan);
    if (variance == 0) return DURE_OK;
    if (variance < DURE_SHARE_VARIANCE_MIN || variance > DURE_SHARE_VARIANCE_MAX)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "the noise multiplier is %g, too %s for shares of %u honest sites on "
                             "a grid of %u bits",
                             dure_dp_plan_sigma(plan), variance < 16 ? "little" : "much",
                             plan->honest, plan->grid_bits);
    return DURE_OK;
}

dure_err dure_dp_plan_check(const dure_dp_plan *plan, dure_diag *diag)
{
    if (!is_known(plan->mechanism))
        return dure_diag_set(diag, DURE_ERR_USAGE, "the plan's mechanism is not known");
    dure_err err = check_rate(plan, diag);
    if (err) return err;
    if (!(plan->clip >= 1e-9 && plan->clip <= 1e9))
        return dure_diag_set(diag, DURE_ERR_USAGE, "the clip must be 1e-9 to 1e9, not %g",
                             plan->clip);
    if (plan->grid_bits < DURE_DP_GRID_BITS_MIN || plan->grid_bits > DURE_DP_GRID_BITS_MAX)
        return dure_diag_set(diag, DURE_ERR_USAGE, "the plan's grid must be %u to %u bits, not %u",
                             DURE_DP_GRID_BITS_MIN, DURE_DP_GRID_BITS_MAX, plan->grid_bits);
    if (plan->steps == 0 || plan->steps > DURE_DP_STEPS_MAX)
        return dure_diag_set(diag, DURE_ERR_USAGE, "the steps must be 1 to %u, not %llu",
                             DURE_DP_STEPS_MAX, (unsigned long long)plan->steps);
    return check_shares(plan, diag);
}

dure_err dure_privacy_check(dure_privacy privacy, dure_diag *diag)
{
    if (!(privacy.epsilon > 0 && privacy.epsilon <= DURE_EPSILON_MAX))
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "epsilon must be above 0 and at most %d, beyond which nothing is "
                             "protected, not %g; 8 is a usual choice",
                             DURE_EPSILON_MAX, privacy.epsilon);
    if (!(privacy.delta > 0 && privacy.delta < 1))
        return dure_diag_set(diag, DURE_ERR_USAGE, "delta must be above 0 and below 1, not %g",
                             privacy.delta);
    return DURE_OK;
}

void dure_dp_plan_put(dure_buf *buf, const dure_dp_plan *plan)
{
    uint64_t clip_bits;
    memcpy(&clip_bits, &plan->clip, sizeof clip_bits);
    dure_put_u8(buf, (uint8_t)plan->mechanism);
    dure_put_u8(buf, plan->full);
    dure_put_u64(buf, plan->q_k);
    dure_put_u32(buf, plan->sigma_num);
    dure_put_u64(buf, clip_bits);
    dure_put_u32(buf, plan->grid_bits);
    dure_put_u64(buf, plan->steps);
    dure_put_u64(buf, plan->n_pub);
    dure_put_u64(buf, plan->batch);
    if (!is_of_site(plan)) return;
    dure_put_u32(buf, plan->honest);
    dure_put_u64(buf, plan->n_params);
}

dure_err dure_dp_plan_take(dure_dp_plan *plan, dure_reader *r)
{
    uint8_t mechanism = 0, full = 0;
    uint64_t clip_bits = 0;
    dure_dp_plan read = {0};
    dure_err err = dure_take_u8(&mechanism, r);
    if (!err) err = dure_take_u8(&full, r);
    if (!err) err = dure_take_u64(&read.q_k, r);
    if (!err) err = dure_take_u32(&read.sigma_num, r);
    if (!err) err = dure_take_u64(&clip_bits, r);
    if (!err) err = dure_take_u32(&read.grid_bits, r);
    if (!err) err = dure_take_u64(&read.steps, r);
    if (!err) err = dure_take_u64(&read.n_pub, r);
    if (!err) err = dure_take_u64(&read.batch, r);
    if (!err && (full > 1 || !is_known(mechanism))) err = DURE_ERR_PROTO;
    read.mechanism = mechanism;
    if (!err && is_of_site(&read)) err = dure_take_u32(&read.honest, r);
    if (!err && is_of_site(&read)) err = dure_take_u64(&read.n_params, r);
    if (err) return err;
    read.full = full;
    memcpy(&read.clip, &clip_bits, sizeof read.clip);
    if (dure_dp_plan_check(&read, NULL)) return DURE_ERR_PROTO;
    *plan = read;
    return DURE_OK;
}

json_t *dure_dp_plan_to_json(const dure_dp_plan *plan)
{
    char rate[24];
    const char *mechanism = is_of_site(plan) ? site_mechanism_text : mechanism_text;
    snprintf(rate, sizeof rate, "%llu", (unsigned long long)plan->q_k);
    json_t *out =
        json_pack("{s:s, s:s, s:s, s:I, s:f, s:I, s:I, s:I, s:I}", "mechanism", mechanism, "unit",
                  dure_dp_plan_unit(plan), "q_k", plan->full ? "full" : rate, "sigma_num",
                  (json_int_t)plan->sigma_num, "clip", plan->clip, "grid_bits",
                  (json_int_t)plan->grid_bits, "steps", (json_int_t)plan->steps, "n_pub",
                  (json_int_t)plan->n_pub, "batch", (json_int_t)plan->batch);
    if (!out || !is_of_site(plan)) return out;
    if (!json_object_set_new(out, "honest", json_integer((json_int_t)plan->honest)) &&
        !json_object_set_new(out, "params", json_integer((json_int_t)plan->n_params)))
        return out;
    json_decref(out);
    return NULL;
}

/* "full", or decimal digits that fit 64 bits. */
static dure_err read_rate(dure_dp_plan *plan, const char *text, dure_diag *diag)
{
    plan->full = !strcmp(text, "full");
    plan->q_k = 0;
    if (plan->full) return DURE_OK;
    for (const char *c = text; *c || c == text; c++) {
        unsigned digit = (unsigned)(*c - '0');
        if (digit > 9 || plan->q_k > (UINT64_MAX - digit) / 10)
            return dure_diag_set(diag, DURE_ERR_FORMAT, "\"q_k\" is not a number of 64 bits");
        plan->q_k = plan->q_k * 10 + digit;
    }
    return DURE_OK;
}

dure_err dure_dp_plan_from_json(dure_dp_plan *plan, const json_t *value, dure_diag *diag)
{
    const char *mechanism = NULL, *rate = NULL, *unit = "record"; /* older entries have none */
    uint64_t sigma_num = 0, grid_bits = 0, honest = 0;
    dure_dp_plan read = {.mechanism = DURE_DP_POISSON_GAUSSIAN};
    dure_err err = dure_json_text(&mechanism, value, "mechanism", diag);
    if (!err && json_object_get(value, "unit")) err = dure_json_text(&unit, value, "unit", diag);
    if (!err && dure_dp_plan_set_unit(&read, unit, diag)) err = DURE_ERR_FORMAT;
    if (!err) err = dure_json_text(&rate, value, "q_k", diag);
    if (!err) err = read_rate(&read, rate, diag);
    if (!err) err = dure_json_u64(&sigma_num, value, "sigma_num", diag);
    if (!err) err = dure_json_number(&read.clip, value, "clip", diag);
    if (!err) err = dure_json_u64(&grid_bits, value, "grid_bits", diag);
    if (!err) err = dure_json_u64(&read.steps, value, "steps", diag);
    if (!err) err = dure_json_u64(&read.n_pub, value, "n_pub", diag);
    if (!err) err = dure_json_u64(&read.batch, value, "batch", diag);
    if (!err && is_of_site(&read)) err = dure_json_u64(&honest, value, "honest", diag);
    if (!err && is_of_site(&read)) err = dure_json_u64(&read.n_params, value, "params", diag);
    if (err) return err;
    if (strcmp(mechanism, is_of_site(&read) ? site_mechanism_text : mechanism_text) != 0 ||
        sigma_num > UINT32_MAX || grid_bits > UINT32_MAX || honest > UINT32_MAX)
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "a plan's mechanism, noise or grid is not one this version knows");
    read.sigma_num = (uint32_t)sigma_num;
    read.grid_bits = (uint32_t)grid_bits;
    read.honest = (uint32_t)honest;
    if (dure_dp_plan_check(&read, diag)) return DURE_ERR_FORMAT;
    *plan = read;
    return DURE_OK;
}
