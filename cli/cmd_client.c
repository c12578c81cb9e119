/* dure client run: take part in a federation's rounds. dure client check: what that would mean. */
#include "cli/args.h"
#include "cli/commands.h"
#include "cli/device.h"
#include "cli/model_open.h"
#include "cli/output.h"
#include "cli/stop_signals.h"
#include "client/enrol.h"
#include "client/session.h"
#include "client/work.h"
#include "common/clock.h"
#include "dp/calibrate.h"
#include "kernels/threads.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { MEASURED_RECORDS = 8 };

typedef struct options {
    const char *dir, *device;
    uint64_t threads, memory;
    dure_device_choice on; /* what `device` means */
    bool exit_when_done, json;
} options;

/* ---- run ---- */

static void stop(void *session)
{
    dure_session_stop(session);
}

static double number(const json_t *facts, const char *key)
{
    return json_number_value(json_object_get(facts, key));
}

static const char *text(const json_t *facts, const char *key)
{
    const char *value = json_string_value(json_object_get(facts, key));
    return value ? value : "";
}

static void say_done(const json_t *facts)
{
    char bytes[32], loss[32] = "none";
    dure_format_bytes(bytes, (uint64_t)number(facts, "bytes_sent"));
    if (json_is_real(json_object_get(facts, "loss"))) {
        snprintf(loss, sizeof loss, "%.3f", number(facts, "loss"));
    }
    fprintf(stderr, "round %.0f done with %.0f of %.0f sites: loss here %s, ",
            number(facts, "round"), number(facts, "sites"), number(facts, "of"), loss);
    if (number(facts, "epsilon") > 0) {
        fprintf(stderr, "epsilon %.3g of %.3g at delta %.2g for one %s, ", number(facts, "epsilon"),
                number(facts, "epsilon_budget"), number(facts, "delta"), text(facts, "unit"));
    }
    fprintf(stderr, "%s sent in all\n", bytes);
}

/* One line a thing that a person wants to know; the rest is in --json. */
static void say(const char *name, const json_t *facts)
{
    if (!strcmp(name, "ready")) {
        fprintf(stderr, "%s of federation %s: %.0f records, %.0f trained parameters, %s\n",
                text(facts, "site"), text(facts, "federation"), number(facts, "records"),
                number(facts, "trained"), text(facts, "path"));
        if (number(facts, "device_checked") > 0)
            dure_device_say_proved((size_t)number(facts, "device_checked"));
    } else if (!strcmp(name, "coordinator_away")) {
        fprintf(stderr, "waiting for the coordinator at %s: %s\n", text(facts, "endpoint"),
                text(facts, "why"));
    } else if (!strcmp(name, "coordinator_here")) {
        fprintf(stderr, "the coordinator is there again\n");
    } else if (!strcmp(name, "waiting")) {
        fprintf(stderr, "%s\n", text(facts, "for"));
    } else if (!strcmp(name, "round_open")) {
        fprintf(stderr, "round %.0f: %.0f sites, %.0f local steps\n", number(facts, "round"),
                number(facts, "sites"), number(facts, "steps"));
    } else if (!strcmp(name, "step")) {
        const json_t *loss = json_object_get(facts, "loss");
        fprintf(stderr, "  step %.0f of %.0f: ", number(facts, "step"), number(facts, "of"));
        if (json_is_real(loss)) fprintf(stderr, "loss %.4f, ", json_real_value(loss));
        fprintf(stderr, "%.1f s\n", number(facts, "seconds"));
    } else if (!strcmp(name, "round_done")) {
        say_done(facts);
    } else if (*text(facts, "why")) {
        fprintf(stderr, "%s: %s\n", name, text(facts, "why"));
    }
}

static void on_event(void *state, const char *name, const json_t *facts)
{
    const options *o = state;
    if (!o->json) {
        say(name, facts);
        return;
    }
    (void)dure_print_event(name, facts);
}

static dure_err run(const options *o, dure_diag *diag)
{
    const dure_session_opts opts = {.dir = o->dir,
                                    .threads = (uint32_t)o->threads,
                                    .memory_bytes = o->memory * 1000000,
                                    .cuda = o->on.cuda,
                                    .device = o->on.index,
                                    .exit_when_done = o->exit_when_done,
                                    .event = on_event,
                                    .event_state = (void *)(uintptr_t)o};
    dure_session *s = NULL;
    dure_err err = dure_session_open(&s, &opts, diag);
    if (!err) {
        dure_stop_signals_take(stop, s);
        err = dure_session_run(s, diag);
        dure_stop_signals_end();
    }
    dure_session_close(&s);
    return err;
}

/* ---- check ---- */

typedef struct findings {
    dure_work_facts work;
    dure_dp_plan plan;
    double epsilon, tokens_per_second, step_seconds;
    dure_source_status source;
    bool bare;
} findings;

static dure_err look_at_budget(findings *f, const dure_site *site, dure_diag *diag)
{
    dure_site_ledger *ledger = NULL;
    dure_err err = dure_site_plan(&f->plan, &site->invitation.terms, &site->state.declared, diag);
    if (!err) {
        err = dure_policy_check_terms(&site->policy, &site->invitation.terms, &f->plan, diag);
    }
    if (!err) {
        err = dure_calibrate_epsilon(&f->epsilon, &f->plan, NULL, site->policy.budget.delta);
    }
    if (!err) err = dure_policy_check_budget(&site->policy, &f->plan, diag);
    if (!err) err = dure_site_open_ledger(&ledger, site, diag);
    if (!err) err = dure_site_ledger_source(&f->source, ledger, site->policy.source, diag);
    dure_site_ledger_close(&ledger);
    return err;
}

static dure_err look(findings *f, const dure_site *site, const options *o, dure_diag *diag)
{
    dure_work *work = NULL;
    const dure_work_opts opts = {.threads = (uint32_t)o->threads,
                                 .memory_bytes = o->memory * 1000000,
                                 .cuda = o->on.cuda,
                                 .device = o->on.index};
    size_t tokens = 0;
    double seconds = 0;
    f->bare = dure_site_without_privacy(site);
    dure_err err = f->bare
                       ? dure_policy_check_terms(&site->policy, &site->invitation.terms, NULL, diag)
                       : look_at_budget(f, site, diag);
    if (!err) err = dure_work_open(&work, site, &opts, diag);
    if (!err) err = dure_work_measure(&seconds, &tokens, work, MEASURED_RECORDS, diag);
    if (!err) {
        f->work = dure_work_facts_of(work);
        f->work.path = NULL;
        if (f->work.proved) dure_device_say_proved(f->work.proved);
        f->tokens_per_second = seconds > 0 ? (double)tokens / seconds : 0;
        double per_record = f->work.records ? (double)f->work.tokens / (double)f->work.records : 0;
        f->step_seconds = f->tokens_per_second > 0
                              ? per_record * site->state.declared.batch / f->tokens_per_second
                              : 0;
    }
    dure_work_close(&work);
    return err;
}

static uint64_t peak_bytes(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (uint64_t)used.ru_maxrss * 1024;
}

static int print_json_findings(const findings *f, const dure_site *site)
{
    const dure_training_terms *t = &site->invitation.terms.training;
    return dure_print_json(json_pack(
        "{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:I, s:I, s:s, s:f, s:f, s:f, s:f, "
        "s:f, s:I}",
        "site", site->policy.name, "federation", site->policy.federation, "records",
        (json_int_t)f->work.records, "cut", (json_int_t)f->work.cut, "unusable",
        (json_int_t)f->work.unusable, "tokens", (json_int_t)f->work.tokens, "rounds",
        (json_int_t)t->rounds, "steps", (json_int_t)t->steps, "tokens_per_second",
        f->tokens_per_second, "step_seconds", f->step_seconds, "peak_memory_bytes",
        (json_int_t)peak_bytes(), "expected_memory_bytes", (json_int_t)f->work.fit.bytes, "unit",
        f->bare ? "none" : dure_dp_plan_unit(&f->plan), "noise_multiplier",
        f->bare ? 0 : dure_dp_plan_sigma(&f->plan), "epsilon", f->bare ? 0 : f->epsilon,
        "epsilon_budget", site->policy.budget.epsilon, "epsilon_remaining",
        f->bare ? 0 : f->source.epsilon_remaining, "delta", site->policy.budget.delta, "steps_used",
        (json_int_t)site->state.steps_used));
}

static void print_findings(const findings *f, const dure_site *site)
{
    const dure_training_terms *t = &site->invitation.terms.training;
    char memory[32], round[32];
    dure_format_bytes(memory, f->work.fit.bytes);
    dure_format_seconds(round, f->step_seconds * t->steps);
    printf("site        %s in federation %s\n", site->policy.name, site->policy.federation);
    printf("data        %zu records, %zu tokens; %zu cut, %zu without anything to learn\n",
           f->work.records, f->work.tokens, f->work.cut, f->work.unusable);
    printf("training    %u rounds of %u steps of %u %ss on average\n", t->rounds, t->steps,
           site->state.declared.batch,
           t->privacy_mode == DURE_PRIVACY_SUBJECT ? "subject" : "record");
    printf("time        %.0f tokens/s, about %s a round\n", f->tokens_per_second, round);
    dure_warn_memory(f->work.fit.bytes);
    if (f->work.fit.bytes)
        printf("memory      %s expected; weights %s, %u layers computed twice\n", memory,
               f->work.fit.packed ? "packed" : "from the file", f->work.fit.recompute);
    dure_device_print_memory(&f->work.device);
    if (f->bare) {
        printf("privacy     none: this federation trains without differential privacy\n");
        return;
    }
    const bool shared = f->plan.mechanism == DURE_DP_SITE_GAUSSIAN;
    printf("privacy     noise multiplier %.4g, epsilon %.4g of %.4g at delta %.3g for the whole "
           "plan (%s accountant), for one %s %s\n",
           dure_dp_plan_sigma(&f->plan), f->epsilon, site->policy.budget.epsilon,
           site->policy.budget.delta, dure_calibrate_accountant(&f->plan),
           shared ? "site's" : dure_dp_plan_unit(&f->plan),
           shared ? "whole update or none" : "more or less");
    if (shared)
        printf("            while at least %u honest sites share the noise of every sum\n",
               f->plan.honest);
    printf("ledger      source %s: %.4g spent, %.4g reserved or spent, %.4g left\n",
           site->policy.source, f->source.epsilon_spent, f->source.epsilon_committed,
           f->source.epsilon_remaining);
    printf("%-11s %llu of %llu used\n", shared ? "rounds" : "steps",
           (unsigned long long)site->state.steps_used, (unsigned long long)f->plan.steps);
}

static int check(const options *o)
{
    dure_site site;
    findings f;
    dure_diag diag = {{0}};
    memset(&f, 0, sizeof f);
    dure_err err = dure_site_open(&site, o->dir, &diag);
    if (err) return dure_fail("client check", err, &diag);
    err = look(&f, &site, o, &diag);
    int status = 0;
    if (err) {
        status = dure_fail("client check", err, &diag);
    } else if (o->json) {
        status = print_json_findings(&f, &site);
    } else {
        print_findings(&f, &site);
    }
    dure_site_close(&site);
    return status;
}

/* ---- the command line ---- */

static int parse(options *o, int argc, char **argv, bool is_run)
{
    const dure_arg args[] = {
        OPERAND("DIR", o->dir, "the site's folder, made by 'dure join'", .required = true),
        dure_threads_arg(&o->threads),
        OPTION(COUNT, "memory", o->memory, "MB",
               "stay within so many megabytes, at the price of time; default: memory_mb of "
               "site.yaml; with --device cuda of the GPU, default what is free"),
        dure_device_arg(&o->device),
        FLAG("json", o->json,
             is_run ? "one JSON object an event on stdout" : "the findings as JSON"),
        FLAG("exit-when-done", o->exit_when_done, "end when the plan's rounds are done"),
    };
    const dure_usage usage =
        is_run ? (dure_usage){"client run",
                              "takes part in the federation's rounds, outbound only, until it is "
                              "stopped",
                              args, N_ARGS(args), "dure client run site"}
               : (dure_usage){"client check",
                              "a dry run: data, memory, time and what the plan costs in privacy",
                              args, N_ARGS(args) - 1, "dure client check site"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed;
    if (o->memory > DURE_POLICY_MEMORY_MB_MAX) {
        return dure_args_refuse(&usage, "--memory is in MB, at most %u", DURE_POLICY_MEMORY_MB_MAX);
    }
    int status = dure_device_check(&o->on, o->device, &usage);
    if (status) return status;
    dure_device_say(o->device);
    return -1;
}

/* ---- renew ---- */

static void say_waiting(void *state, const char *sentence)
{
    (void)state;
    fprintf(stderr, "%s\n", sentence);
}

static int client_renew(int argc, char **argv)
{
    dure_enrol_opts e = {.renew = true, .waiting = say_waiting};
    uint64_t patience_s = 0;
    bool json = false;
    const dure_arg args[] = {
        OPERAND("DIR", e.dir, "the site's folder", .required = true),
        OPERAND("INVITATION", e.invitation, "the file that 'dure site renew' made",
                .required = true),
        OPTION(COUNT, "timeout", patience_s, "SECONDS",
               "give up when the coordinator does not answer; default: wait"),
        dure_json_arg(&json),
    };
    const dure_usage usage = {
        "client renew", "new keys for this site; its plan, ledger and records stay as they are",
        args, N_ARGS(args), "dure client renew site north.invitation"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed;
    e.patience_ms = patience_s * 1000;
    dure_enrolled enrolled;
    dure_diag diag = {{0}};
    dure_err err = dure_enrol(&enrolled, &e, &diag);
    if (err) return dure_fail("client renew", err, &diag);
    if (json)
        return dure_print_json(json_pack("{s:s, s:s, s:s}", "federation", enrolled.federation,
                                         "site", enrolled.name, "dir", e.dir));
    printf("%s has new keys in federation %s\n", enrolled.name, enrolled.federation);
    return 0;
}

static int client_run(int argc, char **argv)
{
    options o = {0};
    dure_diag diag = {{0}};
    int status = parse(&o, argc, argv, true);
    if (status >= 0) return status;
    dure_err err = run(&o, &diag);
    return err ? dure_fail("client run", err, &diag) : 0;
}

static int client_check(int argc, char **argv)
{
    options o = {0};
    int status = parse(&o, argc, argv, false);
    return status >= 0 ? status : check(&o);
}

int dure_cmd_client(int argc, char **argv)
{
    static const dure_verb verbs[] = {
        {"run", client_run, "take part in the federation's rounds"},
        {"check", client_check, "a dry run: data, memory, time and what the plan costs in privacy"},
        {"renew", client_renew, "new keys, by an invitation that 'dure site renew' made"},
    };
    const dure_verbs table = {.command = "client",
                              .summary = "a site's part in a federation",
                              .usage = "DIR [options]",
                              .example = "dure client run site",
                              .verbs = verbs,
                              .n = N_ARGS(verbs)};
    return dure_args_verb(&table, argc, argv);
}
