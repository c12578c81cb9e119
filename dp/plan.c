#include "dp/plan.h"

#include "common/json.h"
#include "dp/noise_share.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char mechanism_text[] = "poisson-gaussian-rounded";
static const char site_text[] = "distributed-discrete-gaussian";
static const char adaptive_text[] = "poisson-gaussian-rounded-adaptive-clip";

/* Of the mechanism's byte, when the clip adapts. */
enum { ADAPTIVE_FLAG = 16 };

static bool is_known(dure_dp_mechanism mechanism)
{
    return mechanism >= DURE_DP_POISSON_GAUSSIAN && mechanism <= DURE_DP_SITE_GAUSSIAN;
}

static bool is_of_site(const dure_dp_plan *plan)
{
    return plan->mechanism == DURE_DP_SITE_GAUSSIAN;
}

static bool is_adaptive(const dure_dp_plan *plan)
{
    return plan->adaptive.count_sigma_num > 0;
}

/* Of a fixed clip nothing may be set, so that a plan has one encoding. */
static dure_err check_adaptive(const dure_dp_adaptive *a, dure_diag *diag)
{
    if (a->count_sigma_num == 0) {
        if (a->quantile_num == 0 && a->rate == 0 && !signbit(a->rate)) return DURE_OK;
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "a clip that adapts needs noise on its count, above 0");
    }
    if (a->quantile_num == 0 || a->quantile_num >= DURE_DP_SIGMA_DEN)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "the quantile that the clip follows must be above 0 and below 1");
    if (!(a->rate > 0 && a->rate <= 1))
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "the rate at which the clip adapts must be above 0 and at most 1, "
                             "not %g",
                             a->rate);
    return DURE_OK;
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

double dure_dp_plan_count_sigma(const dure_dp_plan *plan)
{
    return (double)plan->adaptive.count_sigma_num / DURE_DP_SIGMA_DEN;
}

double dure_dp_plan_sigma_effective(const dure_dp_plan *plan)
{
    double sigma = dure_dp_plan_sigma(plan), count = dure_dp_plan_count_sigma(plan);
    if (count == 0 || sigma == 0) return sigma;
    /* sigma sigma_b / sqrt(sigma^2 + sigma_b^2); five roundings, each of half an ulp at most. */
    return sigma * count / sqrt(sigma * sigma + count * count) * (1 - 0x1p-50);
}

dure_err dure_dp_adaptive_set(dure_dp_adaptive *out, double count_sigma, double quantile,
                              double rate, dure_diag *diag)
{
    double num = ceil(count_sigma * DURE_DP_SIGMA_DEN);
    *out = (dure_dp_adaptive){0};
    if (!(quantile > 0 && quantile < 1)) return check_adaptive(&(dure_dp_adaptive){1, 0, 0}, diag);
    if (!(count_sigma > 0 && num <= UINT32_MAX))
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "the noise multiplier of the clip's count must be above 0 and below "
                             "65536, not %g",
                             count_sigma);
    *out = (dure_dp_adaptive){(uint32_t)num, (uint32_t)(quantile * DURE_DP_SIGMA_DEN + 0.5), rate};
    return check_adaptive(out, diag);
}

double dure_dp_adaptive_usual_sigma(uint64_t batch)
{
    return fmax(5, (double)batch / 10);
}

bool dure_dp_adaptive_equal(const dure_dp_adaptive *a, const dure_dp_adaptive *b)
{
    return a->count_sigma_num == b->count_sigma_num && a->quantile_num == b->quantile_num &&
           !(a->rate < b->rate) && !(b->rate < a->rate);
}

bool dure_dp_plan_same_step(const dure_dp_plan *a, const dure_dp_plan *b)
{
    return a->mechanism == b->mechanism && a->full == b->full && a->q_k == b->q_k &&
           a->sigma_num == b->sigma_num && !(a->clip < b->clip) && !(b->clip < a->clip) &&
           a->grid_bits == b->grid_bits && a->n_pub == b->n_pub && a->batch == b->batch &&
           a->honest == b->honest && a->n_params == b->n_params &&
           dure_dp_adaptive_equal(&a->adaptive, &b->adaptive);
}

const char *dure_dp_plan_clip_text(char text[static DURE_DP_CLIP_TEXT_SIZE],
                                   const dure_dp_plan *plan)
{
    if (!is_adaptive(plan))
        snprintf(text, DURE_DP_CLIP_TEXT_SIZE, "clip %g", plan->clip);
    else
        snprintf(text, DURE_DP_CLIP_TEXT_SIZE,
                 "clip from %g on after the %.4g quantile of the norms, counted with noise %.4g "
                 "(%.4g in effect)",
                 plan->clip, (double)plan->adaptive.quantile_num / DURE_DP_SIGMA_DEN,
                 dure_dp_plan_count_sigma(plan), dure_dp_plan_sigma_effective(plan));
    return text;
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
    if (!(plan->clip >= DURE_DP_CLIP_MIN && plan->clip <= DURE_DP_CLIP_MAX))
        return dure_diag_set(diag, DURE_ERR_USAGE, "the clip must be 1e-9 to 1e9, not %g",
                             plan->clip);
    if (plan->grid_bits < DURE_DP_GRID_BITS_MIN || plan->grid_bits > DURE_DP_GRID_BITS_MAX)
        return dure_diag_set(diag, DURE_ERR_USAGE, "the plan's grid must be %u to %u bits, not %u",
                             DURE_DP_GRID_BITS_MIN, DURE_DP_GRID_BITS_MAX, plan->grid_bits);
    if (plan->steps == 0 || plan->steps > DURE_DP_STEPS_MAX)
        return dure_diag_set(diag, DURE_ERR_USAGE, "the steps must be 1 to %u, not %llu",
                             DURE_DP_STEPS_MAX, (unsigned long long)plan->steps);
    if (is_of_site(plan) && is_adaptive(plan))
        return dure_diag_set(diag, DURE_ERR_USAGE, "a site's clip is fixed, it cannot adapt");
    err = check_shares(plan, diag);
    return err ? err : check_adaptive(&plan->adaptive, diag);
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

static void put_adaptive(dure_buf *buf, const dure_dp_adaptive *a)
{
    uint64_t rate_bits;
    memcpy(&rate_bits, &a->rate, sizeof rate_bits);
    dure_put_u32(buf, a->count_sigma_num);
    dure_put_u32(buf, a->quantile_num);
    dure_put_u64(buf, rate_bits);
}

void dure_dp_plan_put(dure_buf *buf, const dure_dp_plan *plan)
{
    uint64_t clip_bits;
    memcpy(&clip_bits, &plan->clip, sizeof clip_bits);
    dure_put_u8(buf, (uint8_t)(plan->mechanism | (is_adaptive(plan) ? ADAPTIVE_FLAG : 0)));
    dure_put_u8(buf, plan->full);
    dure_put_u64(buf, plan->q_k);
    dure_put_u32(buf, plan->sigma_num);
    dure_put_u64(buf, clip_bits);
    dure_put_u32(buf, plan->grid_bits);
    dure_put_u64(buf, plan->steps);
    dure_put_u64(buf, plan->n_pub);
    dure_put_u64(buf, plan->batch);
    if (is_of_site(plan)) {
        dure_put_u32(buf, plan->honest);
        dure_put_u64(buf, plan->n_params);
    }
    if (is_adaptive(plan)) put_adaptive(buf, &plan->adaptive);
}

static dure_err take_adaptive(dure_dp_adaptive *a, dure_reader *r)
{
    uint64_t rate_bits = 0;
    dure_err err = dure_take_u32(&a->count_sigma_num, r);
    if (!err) err = dure_take_u32(&a->quantile_num, r);
    if (!err) err = dure_take_u64(&rate_bits, r);
    memcpy(&a->rate, &rate_bits, sizeof a->rate);
    return !err && a->count_sigma_num == 0 ? DURE_ERR_PROTO : err;
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
    bool adaptive = mechanism & ADAPTIVE_FLAG;
    mechanism &= (uint8_t)~ADAPTIVE_FLAG;
    if (!err && adaptive) err = take_adaptive(&read.adaptive, r);
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
    snprintf(rate, sizeof rate, "%llu", (unsigned long long)plan->q_k);
    json_t *out =
        json_pack("{s:s, s:s, s:s, s:I, s:f, s:I, s:I, s:I, s:I}", "mechanism",
                  is_of_site(plan)    ? site_text
                  : is_adaptive(plan) ? adaptive_text
                                      : mechanism_text,
                  "unit", dure_dp_plan_unit(plan), "q_k", plan->full ? "full" : rate, "sigma_num",
                  (json_int_t)plan->sigma_num, "clip", plan->clip, "grid_bits",
                  (json_int_t)plan->grid_bits, "steps", (json_int_t)plan->steps, "n_pub",
                  (json_int_t)plan->n_pub, "batch", (json_int_t)plan->batch);
    if (!out || (!is_of_site(plan) && !is_adaptive(plan))) return out;
    const dure_dp_adaptive *a = &plan->adaptive;
    json_t *more = is_of_site(plan) ? json_pack("{s:I, s:I}", "honest", (json_int_t)plan->honest,
                                                "params", (json_int_t)plan->n_params)
                                    : json_pack("{s:I, s:I, s:f}", "count_sigma_num",
                                                (json_int_t)a->count_sigma_num, "quantile_num",
                                                (json_int_t)a->quantile_num, "rate", a->rate);
    if (more && !json_object_update_missing_new(out, more)) return out;
    json_decref(out);
    return NULL;
}

static dure_err read_adaptive(dure_dp_adaptive *a, const json_t *value, dure_diag *diag)
{
    uint64_t count = 0, quantile = 0;
    dure_err err = dure_json_u64(&count, value, "count_sigma_num", diag);
    if (!err) err = dure_json_u64(&quantile, value, "quantile_num", diag);
    if (!err) err = dure_json_number(&a->rate, value, "rate", diag);
    if (err) return err;
    if (count == 0 || count > UINT32_MAX || quantile > UINT32_MAX)
        return dure_diag_set(diag, DURE_ERR_FORMAT, "a plan's count of norms is out of range");
    a->count_sigma_num = (uint32_t)count;
    a->quantile_num = (uint32_t)quantile;
    return DURE_OK;
}

static dure_err read_shares(dure_dp_plan *plan, const json_t *value, dure_diag *diag)
{
    uint64_t honest = 0;
    dure_err err = dure_json_u64(&honest, value, "honest", diag);
    if (!err) err = dure_json_u64(&plan->n_params, value, "params", diag);
    if (err) return err;
    if (honest > UINT32_MAX)
        return dure_diag_set(diag, DURE_ERR_FORMAT, "a plan's honest sites are out of range");
    plan->honest = (uint32_t)honest;
    return DURE_OK;
}

/* The mechanism's name says which further members follow. The unit is known. */
static dure_err read_mechanism(dure_dp_plan *plan, const json_t *value, dure_diag *diag)
{
    const char *mechanism = NULL;
    dure_err err = dure_json_text(&mechanism, value, "mechanism", diag);
    if (err) return err;
    if (is_of_site(plan)) {
        if (!strcmp(mechanism, site_text)) return read_shares(plan, value, diag);
    } else {
        if (!strcmp(mechanism, mechanism_text)) return DURE_OK;
        if (!strcmp(mechanism, adaptive_text)) return read_adaptive(&plan->adaptive, value, diag);
    }
    return dure_diag_set(diag, DURE_ERR_FORMAT, "a plan's mechanism is not one this version knows");
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
    const char *rate = NULL, *unit = "record"; /* older entries have none */
    uint64_t sigma_num = 0, grid_bits = 0;
    dure_dp_plan read = {.mechanism = DURE_DP_POISSON_GAUSSIAN};
    dure_err err = DURE_OK;
    if (json_object_get(value, "unit")) err = dure_json_text(&unit, value, "unit", diag);
    if (!err && dure_dp_plan_set_unit(&read, unit, diag)) err = DURE_ERR_FORMAT;
    if (!err) err = read_mechanism(&read, value, diag);
    if (!err) err = dure_json_text(&rate, value, "q_k", diag);
    if (!err) err = read_rate(&read, rate, diag);
    if (!err) err = dure_json_u64(&sigma_num, value, "sigma_num", diag);
    if (!err) err = dure_json_number(&read.clip, value, "clip", diag);
    if (!err) err = dure_json_u64(&grid_bits, value, "grid_bits", diag);
    if (!err) err = dure_json_u64(&read.steps, value, "steps", diag);
    if (!err) err = dure_json_u64(&read.n_pub, value, "n_pub", diag);
    if (!err) err = dure_json_u64(&read.batch, value, "batch", diag);
    if (err) return err;
    if (sigma_num > UINT32_MAX || grid_bits > UINT32_MAX)
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "a plan's noise or grid is not one this version knows");
    read.sigma_num = (uint32_t)sigma_num;
    read.grid_bits = (uint32_t)grid_bits;
    if (dure_dp_plan_check(&read, diag)) return DURE_ERR_FORMAT;
    *plan = read;
    return DURE_OK;
}
