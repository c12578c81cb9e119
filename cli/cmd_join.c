/* dure join: from an invitation to a member of a federation. */
#include "cli/args.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "client/enrol.h"
#include "client/trainer.h"
#include "dp/calibrate.h"

#include <stdio.h>

static void say(void *state, const char *sentence)
{
    (void)state;
    fprintf(stderr, "%s\n", sentence);
}

static int print_joined(const dure_enrolled *e, const char *dir, bool as_json)
{
    if (as_json) {
        return dure_print_json(json_pack(
            "{s:s, s:s, s:s, s:s, s:f, s:f, s:s, s:f, s:I, s:I}", "federation", e->federation,
            "site", e->name, "dir", dir, "unit",
            e->plan.steps ? dure_dp_plan_unit(&e->plan) : "none", "epsilon", e->epsilon, "delta",
            e->delta, "accountant", e->plan.steps ? dure_calibrate_accountant(&e->plan) : "none",
            "noise_multiplier", dure_dp_plan_sigma(&e->plan), "batch", (json_int_t)e->plan.batch,
            "steps", (json_int_t)e->plan.steps));
    }
    printf("%s has joined federation %s; the folder is %s\n", e->name, e->federation, dir);
    if (e->plan.mechanism == DURE_DP_SITE_GAUSSIAN) {
        fprintf(stderr,
                "The whole plan is reserved: %llu rounds with noise %.4g times the clip, which at "
                "least %u honest sites share, epsilon %.4g at delta %.3g (%s accountant) for this "
                "site's whole update or none. With fewer honest sites in a sum this does not "
                "hold.\nNext: dure client check %s\n",
                (unsigned long long)e->plan.steps, dure_dp_plan_sigma(&e->plan), e->plan.honest,
                e->epsilon, e->delta, dure_calibrate_accountant(&e->plan), dir);
    } else if (e->plan.steps) {
        fprintf(stderr,
                "The whole plan is reserved: %llu steps of %llu %ss on average, noise "
                "multiplier %.4g, epsilon %.4g at delta %.3g (%s accountant) for one %s more or "
                "less.\nNext: dure client check %s\n",
                (unsigned long long)e->plan.steps, (unsigned long long)e->plan.batch,
                dure_dp_plan_unit(&e->plan), dure_dp_plan_sigma(&e->plan), e->epsilon, e->delta,
                dure_calibrate_accountant(&e->plan), dure_dp_plan_unit(&e->plan), dir);
    }
    return 0;
}

static int check_args(const dure_usage *u, const dure_enrol_opts *e, bool with_delta)
{
    if (!(e->epsilon > 0))
        return dure_args_refuse(u, "--epsilon must be above 0; 8 is a usual choice");
    if (with_delta && !(e->delta > 0 && e->delta < 1)) {
        return dure_args_refuse(u, "--delta must be above 0 and below 1");
    }
    if (e->memory_mb > DURE_POLICY_MEMORY_MB_MAX) {
        return dure_args_refuse(u, "--memory is in MB, at most %u", DURE_POLICY_MEMORY_MB_MAX);
    }
    return 0;
}

/* The command line; one process runs one command. */
static dure_enrol_opts o;
static uint64_t collusion, patience_s, per_subject;
static bool delta_given, json;

static const dure_arg args[] = {
    OPERAND("INVITATION", o.invitation, "the file that the federation's admin sent",
            .required = true),
    OPERAND("DIR", o.dir, "the site's folder, made here", .required = true),
    OPTION(TEXT, "data", o.data, "FILE", "the site's records, JSONL; they never leave",
           .required = true),
    OPTION(TEXT, "source", o.source, "NAME", "name of the data source whose privacy budget pays",
           .required = true),
    OPTION(COUNT, "records", o.records, "N_PUB",
           "its number of records: public, rounded, your own figure (of subjects, where the "
           "federation protects subjects)",
           .required = true, .least = 1, .most = DURE_DP_RECORDS_MAX),
    OPTION(TEXT, "model", o.model, "FILE", "the federation's base model, GGUF", .required = true),
    OPTION(NUMBER, "epsilon", o.epsilon, "E", "the most that the source may ever spend",
           .required = true),
    OPTION(NUMBER, "delta", o.delta, "X", "default 1e-5, or 1/(10 N_PUB) if that is smaller",
           .given = &delta_given),
    OPTION(COUNT, "batch", o.batch, "B",
           "records a step on average; default: what the federation proposes", .least = 1,
           .most = DURE_DP_RECORDS_MAX),
    OPTION(TEXT, "ledger", o.ledger, "FILE",
           "the owner's privacy ledger; default $DURE_LEDGER, else the owner's own"),
    OPTION(COUNT, "memory", o.memory_mb, "MB",
           "megabytes that training may take, at the price of time, kept in site.yaml; default: "
           "nine tenths of the machine's or, if that is less, the container's"),
    OPTION(COUNT, "collusion", collusion, "C",
           "other sites that may collude with the coordinator; default 1", .least = 1,
           .most = DURE_MEMBERS_MAX - 1),
    FLAG("accept-no-privacy", o.accept_no_privacy,
         "accept a federation that trains without differential privacy"),
    FLAG("accept-site-level", o.accept_site_level,
         "accept a federation that protects this site as a whole, by noise that its sites "
         "share: it holds only while enough of them are honest"),
    OPTION(COUNT, "per-subject", per_subject, "K",
           "where the federation protects subjects: records that one gives a step at most, in "
           "turn; default 8",
           .least = 1, .most = DURE_PER_SUBJECT_MAX),
    FLAG("ignore-subjects", o.ignore_subjects,
         "where it protects single records: train on records that name their \"subject\" all "
         "the same"),
    OPTION(COUNT, "timeout", patience_s, "SECONDS",
           "give up when the coordinator does not answer; default: wait"),
    FLAG("json", json, "the outcome as JSON"),
};

static const dure_usage usage = {
    "join",
    "joins a federation: makes keys, finds the noise that the budget needs, reserves the plan "
    "and sends the public half of it to the coordinator",
    args, N_ARGS(args),
    "dure join seoul.invitation site --data notes.jsonl --source notes-2026 \\\n"
    "      --records 5000 --model M.gguf --epsilon 8 --memory 2000"};

int dure_cmd_join(int argc, char **argv)
{
    o = (dure_enrol_opts){.waiting = say};
    collusion = 1;
    per_subject = 0;
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed;
    o.collusion = (uint32_t)collusion;
    o.per_subject = (uint32_t)per_subject;
    o.patience_ms = patience_s > 1000000 ? 1000000000 : patience_s * 1000;
    int status = check_args(&usage, &o, delta_given);
    if (status) return status;
    dure_enrolled enrolled;
    dure_diag diag = {{0}};
    dure_err err = dure_enrol(&enrolled, &o, &diag);
    return err ? dure_fail("join", err, &diag) : print_joined(&enrolled, o.dir, json);
}
