#include "cli/privacy_plan.h"

#include "cli/args.h"
#include "cli/output.h"
#include "common/file.h"
#include "common/json.h"
#include "dp/accountant_rdp.h"
#include "dp/accountant_zcdp.h"
#include "dp/calibrate.h"
#include "dp/gaussian.h"
#include "dp/membership.h"
#include "dp/noise.h"
#include "dp/noise_share.h"
#include "model/lora.h"
#include "model/shape.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Parameters that a site's plan is answered for when they are not told. */
#define PARAMS_ASSUMED ((uint64_t)1 << 24)

typedef struct question {
    double rate, noise, clip_noise, epsilon, delta;
    uint64_t steps, batch, records, params, rank, first_layer, sites, honest;
    const char *model, *targets, *factor, *html, *unit;
    bool rate_given, noise_given, epsilon_given, steps_given, batch_given, records_given;
    bool delta_given, params_given, honest_given, sites_given, clip_noise_given, json;
    bool rank_given, targets_given, first_layer_given, factor_given;
} question;

bool dure_plan_is_of_site(const dure_plan_answer *answer)
{
    return answer->plan.mechanism == DURE_DP_SITE_GAUSSIAN;
}

double dure_plan_signal(const dure_plan_answer *answer)
{
    double sigma = dure_dp_plan_sigma(&answer->plan);
    if (answer->n_params == 0 || answer->batch == 0 || sigma == 0) return 0;
    if (dure_plan_is_of_site(answer)) {
        /* n clips over the noise of n shares, each sigma / sqrt(h). */
        double n = (double)answer->sites, h = answer->plan.honest;
        return sqrt(n * h) / (sigma * sqrt((double)answer->n_params));
    }
    return answer->batch * sqrt((double)answer->sites) / (sigma * sqrt((double)answer->n_params));
}

/* ---- from options to a plan ---- */

/* The rate from --sample-rate, or from --batch and --records as training takes it; --batch beside
 * --sample-rate says how many records that is. */
static dure_err set_rate(dure_plan_answer *a, const question *q, dure_diag *diag)
{
    if (q->rate_given == q->records_given || (q->records_given && !q->batch_given))
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "give either --sample-rate, or --batch and --records");
    a->batch = (double)q->batch;
    if (q->rate_given) return dure_dp_plan_set_rate(&a->plan, q->rate, diag);
    return dure_dp_plan_set_batch(&a->plan, q->batch, q->records, diag);
}

/* Shares of noise: what they are counts the honest sites, and nothing is sampled. Without --params
 * the grid is that of a large adapter. */
static dure_err set_shares(dure_plan_answer *a, const question *q, dure_diag *diag)
{
    if (q->rate_given || q->batch_given || q->records_given)
        return dure_diag_set(
            diag, DURE_ERR_USAGE,
            "with --unit site every site takes part in every round: give --honest, "
            "and neither --sample-rate nor --batch and --records");
    if (!q->honest_given || q->honest < DURE_DP_HONEST_MIN || q->honest > DURE_DP_HONEST_MAX)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "with --unit site give --honest %u to %u: the fewest sites in a sum "
                             "less those that may collude (u_min - c of the terms)",
                             DURE_DP_HONEST_MIN, DURE_DP_HONEST_MAX);
    if (q->sites_given && q->sites < q->honest)
        return dure_diag_set(diag, DURE_ERR_USAGE, "--sites is below --honest");
    a->plan.honest = (uint32_t)q->honest;
    a->plan.clip = 1;
    a->batch = 1;
    return dure_dp_plan_set_batch(&a->plan, 1, 1, diag);
}

/* 1e-5, or the most that this many records allow; where sites are the unit, that their number. */
static dure_err set_delta(dure_plan_answer *a, const question *q, dure_diag *diag)
{
    if (dure_plan_is_of_site(a)) {
        a->delta = q->delta_given ? q->delta : 1e-5;
        if (a->delta <= DURE_DP_SITE_DELTA_MAX) return DURE_OK;
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "--delta %g would allow one site in %g to be given away whole; with "
                             "--unit site take %g or less, 1 / (10 x 100 sites)",
                             a->delta, 1 / a->delta, DURE_DP_SITE_DELTA_MAX);
    }
    if (q->delta_given && !(q->delta > 0 && q->delta < 1))
        return dure_diag_set(diag, DURE_ERR_USAGE, "--delta must be above 0 and below 1, not %g",
                             q->delta);
    double most = q->records_given && q->records ? 1 / (10 * (double)q->records) : 1;
    a->delta = q->delta_given ? q->delta : fmin(1e-5, most);
    if (a->delta <= most * (1 + 1e-12)) return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_USAGE,
                         "--delta %g would allow a record in %g to be given away whole; for %llu "
                         "records take %.3g or less",
                         a->delta, 1 / a->delta, (unsigned long long)q->records, most);
}

static dure_err count_of_model(dure_plan_answer *a, const question *q, dure_diag *diag)
{
    dure_gguf *gguf = NULL;
    dure_lora_layout layout = {
        .rank = (uint32_t)q->rank, .alpha = 1, .first_layer = (uint32_t)q->first_layer};
    dure_lora_factor factors;
    dure_err err = dure_lora_factor_parse(&factors, q->factor, diag);
    if (!err) err = dure_gguf_open(&gguf, q->model, NULL, diag);
    if (!err) err = dure_model_shape_read(&layout.shape, gguf, diag);
    if (!err) err = dure_lora_targets_parse(&layout.targets, q->targets, diag);
    if (!err) err = dure_lora_layout_check(&layout, diag);
    if (!err) {
        a->n_params = dure_lora_count(&layout, factors);
        snprintf(a->model, sizeof a->model, "%s of %u layers, rank %u on %s, factor %s",
                 layout.shape.architecture, layout.shape.n_layers - layout.first_layer, layout.rank,
                 q->targets, q->factor);
    }
    dure_gguf_close(&gguf);
    return err;
}

static dure_err set_params(dure_plan_answer *a, const question *q, dure_diag *diag)
{
    if (q->params_given && q->model)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "give --params or --model, which says how many they are");
    if (!q->model && (q->rank_given || q->targets_given || q->first_layer_given || q->factor_given))
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "--rank, --targets, --first-layer and --factor are about --model");
    a->n_params = q->params;
    a->sites = q->sites;
    dure_err err = q->model ? count_of_model(a, q, diag) : DURE_OK;
    if (!err && a->n_params) err = dure_dp_grid_bits(&a->plan.grid_bits, a->n_params, diag);
    if (err || !dure_plan_is_of_site(a)) return err;
    if (!q->sites_given) a->sites = q->honest;
    a->plan.n_params = a->n_params ? a->n_params : PARAMS_ASSUMED;
    return dure_dp_grid_bits(&a->plan.grid_bits, a->plan.n_params, diag);
}

/* Two of noise, steps and epsilon are given; this finds the third. */
static dure_err solve(dure_plan_answer *a, const question *q, dure_diag *diag)
{
    dure_privacy target = {q->epsilon_given ? q->epsilon : 1, a->delta};
    dure_err err = dure_privacy_check(target, diag);
    if (err) return err;
    a->plan.steps = q->steps;
    if (q->noise_given && q->noise == 0)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "--noise 0 protects nobody, whatever else is chosen; 1 is usual, or "
                             "give --epsilon and --steps, and the answer is the least noise");
    if (q->noise_given) err = dure_dp_plan_set_sigma(&a->plan, q->noise, diag);
    if (!err && q->clip_noise_given)
        err = dure_dp_adaptive_set(&a->plan.adaptive, q->clip_noise, 0.5, 0.2, diag);
    if (err) return err;
    if (!err && !q->noise_given) err = dure_calibrate_sigma(&a->plan, NULL, target, diag);
    if (!err && !q->steps_given)
        err = dure_calibrate_steps(&a->plan, NULL, target, DURE_DP_STEPS_MAX, diag);
    /* A share has bounds that other noise has not. */
    if (!err && dure_plan_is_of_site(a)) err = dure_dp_plan_check(&a->plan, diag);
    return err;
}

static dure_err answer(dure_plan_answer *a, const question *q, dure_diag *diag)
{
    dure_rdp rdp = {{0}};
    if (q->noise_given + q->steps_given + q->epsilon_given != 2)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "give two of --noise, --steps and --epsilon; the third is the answer");
    dure_err err = dure_dp_plan_set_unit(&a->plan, q->unit, diag);
    if (!err && q->honest_given && !dure_plan_is_of_site(a))
        err = dure_diag_set(diag, DURE_ERR_USAGE, "--honest goes with --unit site");
    if (!err) err = dure_plan_is_of_site(a) ? set_shares(a, q, diag) : set_rate(a, q, diag);
    if (!err) err = set_delta(a, q, diag);
    if (!err) err = set_params(a, q, diag);
    if (!err) err = solve(a, q, diag);
    if (!err) err = dure_calibrate_epsilon(&a->epsilon, &a->plan, NULL, a->delta);
    if (err) return err;
    dure_rdp_add(&rdp, &a->plan);
    err = dure_rdp_epsilon(&a->epsilon_rdp, &rdp, a->delta);
    a->gdp_mu = dure_gaussian_limit_mu(
        dure_dp_plan_rate(&a->plan), dure_dp_plan_sigma_effective(&a->plan), (double)a->plan.steps);
    if (dure_plan_is_of_site(a)) a->gdp_mu = sqrt(2 * dure_zcdp_rho(&a->plan));
    a->sampler_delta = isfinite(a->epsilon) ? dure_noise_delta(&a->plan, a->epsilon) : 0;
    if (!err) err = dure_membership_most(&a->hit_rate, &a->plan, 1, 0.01);
    return err;
}

/* ---- printing ---- */

/* Of one site's share, over the clip. */
static double share_noise(const dure_plan_answer *a)
{
    return ldexp(sqrt((double)dure_share_variance(&a->plan)), -(int)a->plan.grid_bits);
}

static int print_json(const dure_plan_answer *a)
{
    double signal = dure_plan_signal(a);
    json_t *out =
        json_pack("{s:o, s:f, s:s, s:f, s:I, s:f, s:s, s:o, s:o, s:f, s:f}", "epsilon",
                  dure_json_from_double(a->epsilon), "delta", a->delta, "unit",
                  dure_dp_plan_unit(&a->plan), "noise", dure_dp_plan_sigma(&a->plan), "steps",
                  (json_int_t)a->plan.steps, "sample_rate", dure_dp_plan_rate(&a->plan),
                  "accountant", dure_plan_is_of_site(a) ? "zcdp" : "pld", "epsilon_rdp",
                  dure_json_from_double(a->epsilon_rdp), "gdp_mu", dure_json_from_double(a->gdp_mu),
                  "sampler_delta", a->sampler_delta, "members_found_at_1_percent", a->hit_rate);
    if (out && dure_plan_is_of_site(a)) {
        json_object_set_new(out, "honest", json_integer(a->plan.honest));
        json_object_set_new(out, "neighbours", json_string("zero-out"));
        json_object_set_new(out, "rho", dure_json_from_double(dure_zcdp_rho(&a->plan)));
        json_object_set_new(out, "share_noise", json_real(share_noise(a)));
    }
    if (out && a->plan.adaptive.count_sigma_num) {
        json_object_set_new(out, "clip_noise", json_real(dure_dp_plan_count_sigma(&a->plan)));
        json_object_set_new(out, "noise_effective",
                            json_real(dure_dp_plan_sigma_effective(&a->plan)));
    }
    if (out && signal > 0) {
        json_object_set_new(out, "parameters", json_integer((json_int_t)a->n_params));
        json_object_set_new(out, "signal_to_noise_step", json_real(signal));
        json_object_set_new(out, "signal_to_noise",
                            json_real(signal * sqrt((double)a->plan.steps)));
    }
    return dure_print_json(out);
}

static void print_signal(const dure_plan_answer *a)
{
    double signal = dure_plan_signal(a);
    if (signal == 0) return;
    double whole = signal * sqrt((double)a->plan.steps);
    printf("parameters   %llu%s%s\n"
           "signal       %.3g times the noise at most in a step, %.3g over all steps: %s\n",
           (unsigned long long)a->n_params, a->model[0] ? ", " : "", a->model, signal, whole,
           whole >= 1                ? "this can learn"
           : whole >= 0.3            ? "this learns little"
           : dure_plan_is_of_site(a) ? "this cannot learn; take more sites or fewer parameters"
                                     : "this cannot learn; take a larger batch or fewer "
                                       "parameters");
}

static void print_site_words(const dure_plan_answer *a)
{
    printf(
        "epsilon      %.6g at delta %.3g, for one site's whole update or none (zero-out; that a "
        "site takes part is public)\n"
        "accountant   zCDP, rho %.6g; %.6g by Renyi (RDP), the looser cross-check\n"
        "noise        %.6g times the clip in a sum with %u honest sites; a site's share is %.6g\n"
        "rounds       %llu\n",
        a->epsilon, a->delta, dure_zcdp_rho(&a->plan), a->epsilon_rdp, dure_dp_plan_sigma(&a->plan),
        a->plan.honest, share_noise(a), (unsigned long long)a->plan.steps);
    if (isfinite(a->epsilon))
        printf("meaning      who tests for a site's data, and is wrong about 1 %% of those that "
               "contribute nothing, finds at most %.3g %% of those that do\n",
               100 * a->hit_rate);
    if (a->sampler_delta > 0)
        printf("sampler      %.2g of delta is for shares too long for a round's words\n",
               a->sampler_delta);
    printf("holds if     %u or more honest sites add their shares to every sum, and the secure sum "
           "hides each\n",
           a->plan.honest);
}

static void print_words(const dure_plan_answer *a)
{
    const char *unit = dure_dp_plan_unit(&a->plan);
    printf("epsilon      %.6g at delta %.3g, for adding or removing one %s\n"
           "accountant   PLD; %.6g by Renyi (RDP), the looser cross-check\n",
           a->epsilon, a->delta, unit, a->epsilon_rdp);
    printf("noise        %.6g times the clip\n"
           "steps        %llu\n"
           "sample rate  %.6g\n",
           dure_dp_plan_sigma(&a->plan), (unsigned long long)a->plan.steps,
           dure_dp_plan_rate(&a->plan));
    if (a->plan.adaptive.count_sigma_num)
        printf("clip         adapts, after a count with noise %.6g; both together cost what noise "
               "%.6g with a fixed clip would\n",
               dure_dp_plan_count_sigma(&a->plan), dure_dp_plan_sigma_effective(&a->plan));
    if (isfinite(a->epsilon))
        printf("meaning      who tests for a %s, and is wrong about 1 %% of those that were not "
               "there, finds at most %.3g %% of those that were\n",
               unit, 100 * a->hit_rate);
    if (a->sampler_delta > 0)
        printf("sampler      %.2g of delta is for the distance of the noise from an ideal normal "
               "one\n",
               a->sampler_delta);
    print_signal(a);
}

static int finish(const dure_plan_answer *a, const question *q, dure_diag *diag)
{
    if (q->html) {
        dure_buf page;
        dure_buf_init(&page, 1 << 20);
        dure_err err = dure_plan_page(&page, a, diag);
        if (!err) err = dure_buf_err(&page);
        if (!err) err = dure_file_write_atomic(q->html, dure_buf_span(&page), 0644, diag);
        dure_buf_fini(&page);
        if (err) return dure_fail("privacy plan", err, diag);
        fprintf(stderr, "The picture is in %s\n", q->html);
    }
    if (q->json) return print_json(a);
    if (dure_plan_is_of_site(a)) {
        print_site_words(a);
        print_signal(a);
    } else {
        print_words(a);
    }
    return 0;
}

static question q = {.rank = 8, .targets = "q,v", .factor = "both", .sites = 1, .unit = "record"};

static const dure_arg args[] = {
    HEADING("How records are chosen"),
    GIVEN(NUMBER, "sample-rate", q.rate, "Q", "probability that a record enters a step"),
    GIVEN(COUNT, "batch", q.batch, "B", "records a step on average; with --records, Q = B / N"),
    GIVEN(COUNT, "records", q.records, "N", "the public number of records"),

    GIVEN(COUNT, "honest", q.honest, "H",
          "with --unit site instead: honest sites in every sum at least, u_min - c of the terms"),

    HEADING("Two of these; the third is the answer"),
    GIVEN(NUMBER, "noise", q.noise, "X", "noise multiplier: standard deviation over the clip"),
    GIVEN(COUNT, "steps", q.steps, "T",
          "steps in all: rounds times steps of a round; with --unit site the rounds", .least = 1,
          .most = DURE_DP_STEPS_MAX),
    GIVEN(NUMBER, "epsilon", q.epsilon, "E", "the most privacy loss"),

    HEADING("A clip that adapts (train --clip-quantile)"),
    GIVEN(NUMBER, "clip-noise", q.clip_noise, "X",
          "noise multiplier of the count that the clip follows; default: the clip is fixed"),

    HEADING("The guarantee"),
    GIVEN(NUMBER, "delta", q.delta, "D", "default 1e-5, or 1/(10 N) if that is smaller"),
    OPTION(TEXT, "unit", q.unit, "record|subject|site",
           "what is protected: with subject, all of the above counts subjects; with site, all of "
           "a site's records by noise shared among the sites; default record"),

    HEADING("Whether it can learn (with --batch)"),
    GIVEN(COUNT, "params", q.params, "D",
          "trained parameters, or --model and what is adapted:", .least = 1, .most = UINT64_MAX),
    OPTION(TEXT, "model", q.model, "FILE", "the base model, GGUF"),
    GIVEN(COUNT, "rank", q.rank, "R", "default 8", .least = 1, .most = DURE_LORA_RANK_MAX),
    GIVEN(TEXT, "targets", q.targets, "LIST", "all, or some of q,k,v,o,gate,up,down; default q,v"),
    GIVEN(COUNT, "first-layer", q.first_layer, "N", "adapt layers from this one on; default 0",
          .most = UINT32_MAX),
    GIVEN(TEXT, "factor", q.factor, "a|b|both", "which factor is trained; default both"),
    GIVEN(COUNT, "sites", q.sites, "N",
          "sites that train alike and are averaged; default 1, with --unit site those of --honest",
          .least = 1, .most = 1000000),

    HEADING("The answer"),
    OPTION(TEXT, "html", q.html, "FILE", "a page with the curves around this plan"),
    FLAG("json", q.json, "one JSON object"),
};

int dure_privacy_plan(int argc, char **argv)
{
    const dure_usage usage = {
        "privacy plan",
        "what a plan of private training costs, or the noise or the steps that an epsilon allows, "
        "and whether it can learn; touches no data",
        args, N_ARGS(args),
        "dure privacy plan --sample-rate 0.01 --noise 1.1 --steps 1000 --delta 1e-5\n"
        "  dure privacy plan --batch 128 --records 10000 --epsilon 8 --steps 100 \\\n"
        "      --model M.gguf --rank 4 --targets v --factor b --html plan.html\n"
        "  dure privacy plan --unit site --honest 20 --epsilon 8 --steps 30 --params 92160"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed;
    dure_diag diag = {0};
    dure_plan_answer a = {.epsilon = INFINITY};
    dure_err err = answer(&a, &q, &diag);
    if (err == DURE_ERR_USAGE) return dure_args_refuse(&usage, "%s", diag.text);
    return err ? dure_fail("privacy plan", err, &diag) : finish(&a, &q, &diag);
}
