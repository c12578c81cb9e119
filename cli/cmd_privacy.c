/* dure privacy plan|status: what a plan of private training costs, and what has been spent. */
#include "cli/args.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/privacy_plan.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/json.h"
#include "ledger/site_ledger.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the source's plans protect one of; one of its records, before it has any. */
static const char *unit_of(const dure_site_ledger *ledger, const char *source)
{
    for (size_t i = 0; i < dure_site_ledger_reservation_count(ledger); i++) {
        const dure_reservation *r = dure_site_ledger_reservation_at(ledger, i);
        if (!strcmp(r->source, source)) return dure_dp_plan_unit(&r->plan);
    }
    return "record";
}

static bool is_site(const char *unit)
{
    return !strcmp(unit, "site");
}

static json_t *status_json(const dure_source_status *s, const char *unit)
{
    return json_pack(
        "{s:s, s:s, s:f, s:f, s:I, s:o, s:o, s:o, s:s, s:o, s:o, s:I, s:I, s:I}", "source", s->name,
        "unit", unit, "epsilon", s->budget.epsilon, "delta", s->budget.delta, "records",
        (json_int_t)s->n_pub, "epsilon_spent", dure_json_from_double(s->epsilon_spent),
        "epsilon_committed", dure_json_from_double(s->epsilon_committed), "epsilon_remaining",
        dure_json_from_double(s->epsilon_remaining), "accountant", is_site(unit) ? "zcdp" : "pld",
        "epsilon_committed_rdp", dure_json_from_double(s->epsilon_committed_rdp), "filter_used",
        dure_json_from_double(s->filter_used), "reserved", (json_int_t)s->n_reserved, "spent",
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
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:f, s:f, s:I, s:f}", "source", r->source, "state",
                     state_text(r->state), "unit", dure_dp_plan_unit(&r->plan), "purpose",
                     r->purpose, "at", at, "noise", dure_dp_plan_sigma(&r->plan), "noise_effective",
                     dure_dp_plan_sigma_effective(&r->plan), "steps", (json_int_t)r->plan.steps,
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
        json_array_append_new(sources, status_json(&s, unit_of(ledger, s.name)));
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
        const char *unit = unit_of(ledger, s.name);
        printf("\n%s\n  budget     epsilon %.4g at delta %.3g for one %s %s, of %llu\n"
               "  spent      epsilon %.4g (%zu plan%s; %s accountant)\n"
               "  committed  epsilon %.4g (%zu more reserved)\n"
               "  remaining  epsilon %.4g\n",
               s.name, s.budget.epsilon, s.budget.delta, is_site(unit) ? "site's" : unit,
               is_site(unit) ? "whole update or none" : "more or less", (unsigned long long)s.n_pub,
               s.epsilon_spent, s.n_spent, s.n_spent == 1 ? "" : "s",
               is_site(unit) ? "zCDP" : "PLD", s.epsilon_committed, s.n_reserved,
               s.epsilon_remaining);
        for (size_t k = 0; k < dure_site_ledger_reservation_count(ledger); k++) {
            const dure_reservation *r = dure_site_ledger_reservation_at(ledger, k);
            char at[DURE_CLOCK_TEXT_SIZE], clip[DURE_DP_CLIP_TEXT_SIZE];
            if (strcmp(r->source, s.name) != 0) continue;
            dure_clock_text(at, r->reserved_at_s);
            printf("  %s  %-8s  %llu %s, noise %.4g, %s  %s\n", at, state_text(r->state),
                   (unsigned long long)r->plan.steps, is_site(unit) ? "rounds" : "steps",
                   dure_dp_plan_sigma(&r->plan), dure_dp_plan_clip_text(clip, &r->plan),
                   r->purpose);
        }
    }
}

static int privacy_status(int argc, char **argv)
{
    const char *given = NULL;
    bool json = false;
    const dure_arg args[] = {
        OPTION(TEXT, "ledger", given, "FILE", "default: $DURE_LEDGER, else the owner's own"),
        FLAG("json", json, "one JSON object"),
    };
    const dure_usage usage = {"privacy status",
                              "verifies the owner's privacy ledger and lists its data sources and "
                              "what they have spent",
                              args, N_ARGS(args),
                              "dure privacy status --ledger ~/.local/state/dure/ledger"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed;
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
    static const dure_verb verbs[] = {
        {"plan", dure_privacy_plan,
         "epsilon of a plan, or the noise or steps that an epsilon allows"},
        {"status", privacy_status, "the owner's ledger: data sources, budgets, plans"},
    };
    const dure_verbs table = {.command = "privacy",
                              .summary = "what private training costs and what has been spent",
                              .usage = "[options]",
                              .example =
                                  "dure privacy plan --sample-rate 0.0128 --noise 0.8 --steps 20",
                              .verbs = verbs,
                              .n = N_ARGS(verbs)};
    return dure_args_verb(&table, argc, argv);
}
