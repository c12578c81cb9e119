/* dure privacy plan|status: what a plan of private training costs, and what has been spent. */
#include "cli/args.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "common/clock.h"
#include "common/file.h"
#include "dp/calibrate.h"
#include "ledger/site_ledger.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct question {
    double rate, noise, epsilon, delta;
    uint64_t steps, batch, records;
    bool rate_given, noise_given, epsilon_given, steps_given, batch_given, records_given, json;
} question;

/* The rate from --sample-rate, or from --batch and --records as training takes it. */
static dure_err set_rate(dure_dp_plan *plan, const question *q, dure_diag *diag)
{
    if (q->rate_given == (q->batch_given || q->records_given) || q->batch_given != q->records_given)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "give either --sample-rate, or --batch and --records");
    if (q->rate_given) return dure_dp_plan_set_rate(plan, q->rate, diag);
    return dure_dp_plan_set_batch(plan, q->batch, q->records, diag);
}

/* Two of noise, steps and epsilon are given; this finds the third. */
static dure_err answer(double *epsilon, dure_dp_plan *plan, const question *q, dure_diag *diag)
{
    dure_privacy target = {q->epsilon, q->delta};
    if (q->noise_given + q->steps_given + q->epsilon_given != 2)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "give two of --noise, --steps and --epsilon; the third is the answer");
    dure_err err = set_rate(plan, q, diag);
    if (err) return err;
    err = dure_privacy_check((dure_privacy){q->epsilon_given ? q->epsilon : 1, q->delta}, diag);
    if (err) return err;
    if (q->steps_given && (q->steps == 0 || q->steps > DURE_DP_STEPS_MAX))
        return dure_diag_set(diag, DURE_ERR_USAGE, "--steps must be 1 to %u", DURE_DP_STEPS_MAX);
    plan->steps = q->steps;
    if (q->noise_given) err = dure_dp_plan_set_sigma(plan, q->noise, diag);
    if (!err && !q->noise_given) err = dure_calibrate_sigma(plan, NULL, target, diag);
    if (!err && !q->steps_given)
        err = dure_calibrate_steps(plan, NULL, target, DURE_DP_STEPS_MAX, diag);
    if (!err) err = dure_calibrate_epsilon(epsilon, plan, NULL, q->delta);
    return err;
}

static int print_answer(double epsilon, const dure_dp_plan *plan, const question *q)
{
    double noise = dure_dp_plan_sigma(plan), rate = dure_dp_plan_rate(plan);
    if (q->json)
        return dure_print_json(json_pack(
            "{s:o, s:f, s:f, s:I, s:f, s:s}", "epsilon",
            isfinite(epsilon) ? json_real(epsilon) : json_null(), "delta", q->delta, "noise", noise,
            "steps", (json_int_t)plan->steps, "sample_rate", rate, "accountant", "rdp"));
    printf("epsilon      %.6g\ndelta        %.3g\nnoise        %.6g times the clip\n"
           "steps        %llu\nsample rate  %.6g\naccountant   Renyi (RDP), add or remove one "
           "record\n",
           epsilon, q->delta, noise, (unsigned long long)plan->steps, rate);
    return 0;
}

static int privacy_plan(int argc, char **argv)
{
    question q = {.delta = 1e-5};
    const dure_arg args[] = {
        {.name = "sample-rate",
         .kind = DURE_ARG_NUMBER,
         .out = &q.rate,
         .given = &q.rate_given,
         .value = "Q",
         .help = "probability that a record enters a step"},
        {.name = "batch",
         .kind = DURE_ARG_COUNT,
         .out = &q.batch,
         .given = &q.batch_given,
         .value = "B",
         .help = "with --records, in place of --sample-rate: B / N"},
        {.name = "records",
         .kind = DURE_ARG_COUNT,
         .out = &q.records,
         .given = &q.records_given,
         .value = "N",
         .help = "the public number of records"},
        {.name = "noise",
         .kind = DURE_ARG_NUMBER,
         .out = &q.noise,
         .given = &q.noise_given,
         .value = "X",
         .help = "noise multiplier: standard deviation over the clip"},
        {.name = "steps",
         .kind = DURE_ARG_COUNT,
         .out = &q.steps,
         .given = &q.steps_given,
         .value = "T",
         .help = "steps in all"},
        {.name = "epsilon",
         .kind = DURE_ARG_NUMBER,
         .out = &q.epsilon,
         .given = &q.epsilon_given,
         .value = "E",
         .help = "the most privacy loss, in place of --noise or --steps"},
        {.name = "delta",
         .kind = DURE_ARG_NUMBER,
         .out = &q.delta,
         .value = "D",
         .help = "default 1e-5"},
        {.name = "json", .kind = DURE_ARG_FLAG, .out = &q.json, .help = "one JSON object"},
    };
    const dure_usage usage = {"privacy plan",
                              "what a plan of private training costs, or the noise or the steps "
                              "that an epsilon allows; touches no data",
                              args, sizeof args / sizeof args[0],
                              "dure privacy plan --batch 128 --records 10000 --steps 100 "
                              "--epsilon 8 --delta 1e-5"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed == DURE_ARGS_HELP ? 0 : 2;
    dure_diag diag = {0};
    dure_dp_plan plan = {.mechanism = DURE_DP_POISSON_GAUSSIAN};
    double epsilon = INFINITY;
    dure_err err = answer(&epsilon, &plan, &q, &diag);
    if (err == DURE_ERR_USAGE) return dure_args_refuse(&usage, "%s", diag.text);
    return err ? dure_fail("privacy plan", err, &diag) : print_answer(epsilon, &plan, &q);
}

static json_t *real_or_null(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *status_json(const dure_source_status *s)
{
    return json_pack("{s:s, s:f, s:f, s:I, s:o, s:o, s:o, s:o, s:I, s:I, s:I}", "source", s->name,
                     "epsilon", s->budget.epsilon, "delta", s->budget.delta, "records",
                     (json_int_t)s->n_pub, "epsilon_spent", real_or_null(s->epsilon_spent),
                     "epsilon_committed", real_or_null(s->epsilon_committed), "epsilon_remaining",
                     real_or_null(s->epsilon_remaining), "filter_used",
                     real_or_null(s->filter_used), "reserved", (json_int_t)s->n_reserved, "spent",
                     (json_int_t)s->n_spent, "released", (json_int_t)s->n_released);
}

static const char *state_text(dure_reservation_state state)
{
    static const char *const texts[] = {"reserved", "spent", "released"};
    return texts[state];
}

static json_t *reservation_json(const dure_reservation *r)
{
    char at[DURE_CLOCK_TEXT_SIZE];
    dure_clock_text(at, r->reserved_at_s);
    return json_pack("{s:s, s:s, s:s, s:s, s:f, s:I, s:f}", "source", r->source, "state",
                     state_text(r->state), "purpose", r->purpose, "at", at, "noise",
                     dure_dp_plan_sigma(&r->plan), "steps", (json_int_t)r->plan.steps,
                     "sample_rate", dure_dp_plan_rate(&r->plan));
}

static int print_status_json(const dure_site_ledger *ledger, const char *path)
{
    char head_text[2 * DURE_HASH_BYTES + 1];
    dure_hash head;
    uint64_t n = 0;
    json_t *sources = json_array(), *plans = json_array();
    dure_site_ledger_head(&head, &n, ledger);
    dure_hex_encode(head_text, head.b, sizeof head.b);
    for (size_t i = 0; i < dure_site_ledger_source_count(ledger); i++) {
        dure_source_status s;
        dure_site_ledger_source_at(&s, ledger, i);
        json_array_append_new(sources, status_json(&s));
    }
    for (size_t i = 0; i < dure_site_ledger_reservation_count(ledger); i++)
        json_array_append_new(plans, reservation_json(dure_site_ledger_reservation_at(ledger, i)));
    return dure_print_json(json_pack("{s:s, s:I, s:s, s:o, s:o}", "ledger", path, "entries",
                                     (json_int_t)n, "head", head_text, "sources", sources, "plans",
                                     plans));
}

static void print_status(const dure_site_ledger *ledger, const char *path)
{
    size_t n = dure_site_ledger_source_count(ledger);
    printf("%s: %zu data source%s, every entry verified\n", path, n, n == 1 ? "" : "s");
    for (size_t i = 0; i < n; i++) {
        dure_source_status s;
        dure_site_ledger_source_at(&s, ledger, i);
        printf("\n%s\n  budget     epsilon %.4g at delta %.3g, %llu records\n"
               "  spent      epsilon %.4g (%zu plans)\n"
               "  committed  epsilon %.4g (%zu more reserved)\n"
               "  remaining  epsilon %.4g\n",
               s.name, s.budget.epsilon, s.budget.delta, (unsigned long long)s.n_pub,
               s.epsilon_spent, s.n_spent, s.epsilon_committed, s.n_reserved, s.epsilon_remaining);
        for (size_t k = 0; k < dure_site_ledger_reservation_count(ledger); k++) {
            const dure_reservation *r = dure_site_ledger_reservation_at(ledger, k);
            char at[DURE_CLOCK_TEXT_SIZE];
            if (strcmp(r->source, s.name) != 0) continue;
            dure_clock_text(at, r->reserved_at_s);
            printf("  %s  %-8s  %llu steps, noise %.4g  %s\n", at, state_text(r->state),
                   (unsigned long long)r->plan.steps, dure_dp_plan_sigma(&r->plan), r->purpose);
        }
    }
}

static int privacy_status(int argc, char **argv)
{
    const char *given = NULL;
    bool json = false;
    const dure_arg args[] = {
        {.name = "ledger",
         .kind = DURE_ARG_TEXT,
         .out = &given,
         .value = "FILE",
         .help = "default: $DURE_LEDGER, else the owner's own"},
        {.name = "json", .kind = DURE_ARG_FLAG, .out = &json, .help = "one JSON object"},
    };
    const dure_usage usage = {"privacy status",
                              "verifies the owner's privacy ledger and lists its data sources and "
                              "what they have spent",
                              args, sizeof args / sizeof args[0],
                              "dure privacy status --ledger ~/.local/state/dure/ledger"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed == DURE_ARGS_HELP ? 0 : 2;
    dure_diag diag = {0};
    char *path = NULL;
    dure_site_ledger *ledger = NULL;
    int status = 0;
    dure_err err = dure_site_ledger_path(&path, given, &diag);
    if (!err && !dure_file_exists(path))
        err = dure_diag_set(&diag, DURE_ERR_NOT_FOUND,
                            "there is no privacy ledger at %s: name one with --ledger, or train "
                            "with --source, which begins it",
                            path);
    if (!err) err = dure_site_ledger_open_read(&ledger, path, &diag);
    if (err)
        status = dure_fail("privacy status", err, &diag);
    else if (json)
        status = print_status_json(ledger, path);
    else
        print_status(ledger, path);
    dure_site_ledger_close(&ledger);
    free(path);
    return status;
}

int dure_cmd_privacy(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";
    if (!strcmp(verb, "plan")) return privacy_plan(argc - 1, argv + 1);
    if (!strcmp(verb, "status")) return privacy_status(argc - 1, argv + 1);
    bool help = !strcmp(verb, "--help");
    FILE *to = help ? stdout : stderr;
    if (*verb && !help) fprintf(to, "dure privacy: there is no '%s'\n\n", verb);
    fprintf(to, "dure privacy: what private training costs and what has been spent\n\n"
                "Usage: dure privacy plan|status [options]\n\n"
                "  plan      epsilon of a plan, or the noise or steps that an epsilon allows\n"
                "  status    the owner's ledger: data sources, budgets, plans\n\n"
                "Example:\n  dure privacy plan --sample-rate 0.0128 --noise 0.8 --steps 20\n");
    return help ? 0 : 2;
}
