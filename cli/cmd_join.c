/* dure join: from an invitation to a member of a federation. */
#include "cli/args.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "client/enrol.h"
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
    if (e->records == 0) return dure_args_refuse(u, "--records must be above 0");
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
    {.name = "INVITATION",
     .kind = DURE_ARG_OPERAND,
     .out = &o.invitation,
     .help = "the file that the federation's admin sent",
     .required = true},
    {.name = "DIR",
     .kind = DURE_ARG_OPERAND,
     .out = &o.dir,
     .help = "the site's folder, made here",
     .required = true},
    {.name = "data",
     .kind = DURE_ARG_TEXT,
     .out = &o.data,
     .value = "FILE",
     .help = "the site's records, JSONL; they never leave",
     .required = true},
    {.name = "source",
     .kind = DURE_ARG_TEXT,
     .out = &o.source,
     .value = "NAME",
     .help = "name of the data source whose privacy budget pays",
     .required = true},
    {.name = "records",
     .kind = DURE_ARG_COUNT,
     .out = &o.records,
     .value = "N_PUB",
     .help = "its number of records: public, rounded, your own figure (of subjects, where the "
             "federation protects subjects)",
     .required = true},
    {.name = "model",
     .kind = DURE_ARG_TEXT,
     .out = &o.model,
     .value = "FILE",
     .help = "the federation's base model, GGUF",
     .required = true},
    {.name = "epsilon",
     .kind = DURE_ARG_NUMBER,
     .out = &o.epsilon,
     .value = "E",
     .help = "the most that the source may ever spend",
     .required = true},
    {.name = "delta",
     .kind = DURE_ARG_NUMBER,
     .out = &o.delta,
     .given = &delta_given,
     .value = "X",
     .help = "default 1e-5, or 1/(10 N_PUB) if that is smaller"},
    {.name = "batch",
     .kind = DURE_ARG_COUNT,
     .out = &o.batch,
     .least = 1,
     .most = DURE_DP_RECORDS_MAX,
     .value = "B",
     .help = "records a step on average; default: what the federation proposes"},
    {.name = "ledger",
     .kind = DURE_ARG_TEXT,
     .out = &o.ledger,
     .value = "FILE",
     .help = "the owner's privacy ledger; default $DURE_LEDGER, else the owner's own"},
    {.name = "memory",
     .kind = DURE_ARG_COUNT,
     .out = &o.memory_mb,
     .value = "MB",
     .help = "megabytes that training may take, at the price of time, kept in site.yaml; default: "
             "nine tenths of the machine's"},
    {.name = "collusion",
     .kind = DURE_ARG_COUNT,
     .out = &collusion,
     .least = 1,
     .most = DURE_MEMBERS_MAX - 1,
     .value = "C",
     .help = "other sites that may collude with the coordinator; default 1"},
    {.name = "accept-no-privacy",
     .kind = DURE_ARG_FLAG,
     .out = &o.accept_no_privacy,
     .help = "accept a federation that trains without differential privacy"},
    {.name = "accept-site-level",
     .kind = DURE_ARG_FLAG,
     .out = &o.accept_site_level,
     .help = "accept a federation that protects this site as a whole, by noise that its sites "
             "share: it holds only while enough of them are honest"},
    {.name = "per-subject",
     .kind = DURE_ARG_COUNT,
     .out = &per_subject,
     .least = 1,
     .most = 1000000,
     .value = "K",
     .help = "where the federation protects subjects: records that one gives a step at most, in "
             "turn; default 8"},
    {.name = "ignore-subjects",
     .kind = DURE_ARG_FLAG,
     .out = &o.ignore_subjects,
     .help = "where it protects single records: train on records that name their \"subject\" all "
             "the same"},
    {.name = "timeout",
     .kind = DURE_ARG_COUNT,
     .out = &patience_s,
     .value = "SECONDS",
     .help = "give up when the coordinator does not answer; default: wait"},
    {.name = "json", .kind = DURE_ARG_FLAG, .out = &json, .help = "the outcome as JSON"},
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
    if (parsed != DURE_ARGS_RUN) return parsed == DURE_ARGS_HELP ? 0 : 2;
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
