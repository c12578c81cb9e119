/* dure audit canary: trains with canaries on public or generated records, and says how much
 * privacy loss can be shown. Nothing of it is charged to a budget, so private records have no place
 * here. */
#include "cli/args.h"
#include "cli/audit.h"
#include "cli/model_open.h"
#include "cli/output.h"
#include "client/canary.h"
#include "common/file.h"
#include "common/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GENERATED = 32, MAX_LENGTH = 256 };

typedef struct canary_args {
    const char *model, *data;
    uint64_t canaries, threads;
    double epsilon, delta, confidence;
    bool json;
} canary_args;

/* ---- records ---- */

static dure_err generate(dure_dataset *out, const dure_open_model *m, dure_diag *diag)
{
    static const char *const words[] = {"apple", "river", "stone", "cloud"};
    const dure_dataset_opts opts = {.max_length = MAX_LENGTH, .tolerant = true};
    dure_buf text;
    dure_buf_init(&text, 1 << 20);
    for (int i = 0; i < GENERATED; i++)
        dure_put_format(&text,
                        "{\"prompt\":\"Repeat the word %s, number %d.\",\"response\":\"%s\"}\n",
                        words[i % 4], i, words[i % 4]);
    dure_err err = dure_buf_err(&text);
    if (!err)
        err = dure_dataset_parse(out, dure_buf_span(&text), "generated.jsonl", m->tokenizer,
                                 &m->chat, &opts, diag);
    dure_buf_fini(&text);
    return err;
}

static dure_err read_records(dure_dataset *out, const canary_args *c, const dure_open_model *m,
                             dure_diag *diag)
{
    uint32_t context = dure_transformer_shape(m->transformer)->n_context;
    const dure_dataset_opts opts = {.max_length = context < MAX_LENGTH ? context : MAX_LENGTH,
                                    .tolerant = true};
    if (!c->data) return generate(out, m, diag);
    return dure_dataset_read(out, c->data, m->tokenizer, &m->chat, &opts, diag);
}

/* ---- words ---- */

static const char *const kind_names[DURE_CANARY_KINDS] = {"every record in every step",
                                                          "sampled records"};

/* The plan that comes closest to refuting its claim, or goes furthest past it. */
static const dure_canary_run *closest(const dure_canary_report *r)
{
    const dure_canary_run *a = &r->runs[0], *b = &r->runs[1];
    return b->lower / b->claimed > a->lower / a->claimed ? b : a;
}

static json_t *runs_json(const dure_canary_report *r)
{
    json_t *runs = json_array();
    for (int kind = 0; kind < DURE_CANARY_KINDS; kind++) {
        const dure_canary_run *run = &r->runs[kind];
        json_t *one = json_pack(
            "{s:s, s:f, s:I, s:f, s:f, s:o, s:o, s:I, s:I, s:I, s:b}", "plan", kind_names[kind],
            "sample_rate", dure_dp_plan_rate(&run->plan), "steps", (json_int_t)run->plan.steps,
            "noise", dure_dp_plan_sigma(&run->plan), "epsilon_claimed", run->claimed,
            "epsilon_lower", dure_json_from_double(run->lower), "epsilon_lower_any_mechanism",
            dure_json_from_double(run->lower_any), "included", (json_int_t)run->included, "guesses",
            (json_int_t)run->guesses.n_guess, "correct", (json_int_t)run->guesses.n_correct,
            "holds", (int)run->holds);
        if (json_array_append_new(runs, one)) {
            json_decref(runs);
            return NULL;
        }
    }
    return runs;
}

static int print_json(const dure_canary_report *r, const canary_args *c)
{
    const dure_canary_run *run = closest(r);
    const dure_canary_noise *n = &r->noise;
    return dure_print_json(json_pack(
        "{s:b, s:s, s:I, s:f, s:f, s:f, s:o, s:o, s:{s:I, s:f, s:f, s:f, s:f, s:b}}", "holds",
        (int)dure_canary_holds(r), "data", c->data ? c->data : "generated", "canaries",
        (json_int_t)c->canaries, "confidence", c->confidence, "delta", c->delta, "epsilon_claimed",
        run->claimed, "epsilon_lower", dure_json_from_double(run->lower), "runs", runs_json(r),
        "noise", "draws", (json_int_t)n->n, "deviation", n->deviation, "deviation_tolerance",
        n->deviation_tolerance, "repeat", n->repeat, "repeat_tolerance", n->repeat_tolerance,
        "holds", (int)n->holds));
}

static void print_report(const dure_canary_report *r, const canary_args *c)
{
    printf("%-28s  %7s  %8s  %12s  %s\n", "PLAN", "CLAIMED", "AT LEAST", "GUESSED", "");
    for (int kind = 0; kind < DURE_CANARY_KINDS; kind++) {
        const dure_canary_run *run = &r->runs[kind];
        char guessed[32];
        snprintf(guessed, sizeof guessed, "%llu of %llu",
                 (unsigned long long)run->guesses.n_correct,
                 (unsigned long long)run->guesses.n_guess);
        printf("%-28s  %7.3f  %8.3f  %12s  %s\n", kind_names[kind], run->claimed, run->lower,
               guessed, run->holds ? "nothing speaks against it" : "THE CLAIM DOES NOT HOLD");
    }
    const dure_canary_noise *n = &r->noise;
    printf(
        "\nnoise    %.5f of the planned deviation (tolerance %.5f), correlation from step to step "
        "%.5f (tolerance %.5f), %llu draws: %s\n",
        n->deviation, n->deviation_tolerance, n->repeat, n->repeat_tolerance,
        (unsigned long long)n->n, n->holds ? "as planned" : "NOT AS PLANNED");
    printf("\nepsilon at delta %.1e, each bound with %.4g %% confidence: %llu canaries, white box, "
           "rank %u, %llu parameters\n",
           c->delta, 100 * c->confidence, (unsigned long long)c->canaries, r->rank,
           (unsigned long long)r->n_params);
    if (dure_canary_holds(r))
        printf("A bound below the claim shows no fault; it does not show that there is none.\n");
}

static void show(void *state, const char *what, uint64_t done, uint64_t steps)
{
    const canary_args *c = state;
    if (c->json) return;
    fprintf(stderr, "%s: step %llu of %llu%s", what, (unsigned long long)done,
            (unsigned long long)steps, dure_on_terminal() && done < steps ? "\r" : "\n");
}

/* ---- the command ---- */

/* A folder of its own for the attempt's key, which is erased before it is removed. */
static dure_err make_folder(char path[256], dure_diag *diag)
{
    const char *where = getenv("TMPDIR");
    snprintf(path, 256, "%.200s/dure-canary-XXXXXX", where && *where ? where : "/tmp");
    if (mkdtemp(path)) return DURE_OK;
    return dure_file_errno(diag, "make", path);
}

static dure_err audit(dure_canary_report *report, canary_args *c, dure_diag *diag)
{
    char folder[256], key[300];
    dure_open_model m = {.gguf = NULL};
    dure_dataset data = {.n = 0};
    const dure_open_opts open_opts = {.model = c->model, .threads = (uint32_t)c->threads};
    dure_err err = dure_open_model_init(&m, &open_opts, diag);
    if (err) return err;
    err = read_records(&data, c, &m, diag);
    if (!err) err = make_folder(folder, diag);
    if (!err) {
        snprintf(key, sizeof key, "%s/key", folder);
        const dure_canary_opts opts = {.canaries = c->canaries,
                                       .claim = {c->epsilon, c->delta},
                                       .significance = 1 - c->confidence,
                                       .key_path = key,
                                       .progress = show,
                                       .progress_state = c};
        err = dure_canary_audit(report, m.transformer, &data, &opts, diag);
        dure_err removed = dure_dir_remove(folder, err ? NULL : diag);
        if (!err) err = removed;
    }
    dure_dataset_fini(&data);
    dure_open_model_fini(&m);
    return err;
}

static int run_canary(canary_args *c, const dure_usage *usage)
{
    dure_diag diag = {0};
    dure_canary_report report;
    dure_err err = audit(&report, c, &diag);
    if (err == DURE_ERR_USAGE) return dure_args_refuse(usage, "%s", diag.text);
    if (err) return dure_fail("audit canary", err, &diag);
    int status = 0;
    if (c->json)
        status = print_json(&report, c);
    else
        print_report(&report, c);
    return dure_canary_holds(&report) ? status : 1;
}

int dure_cmd_audit_canary(int argc, char **argv)
{
    canary_args c = {.canaries = 10000, .epsilon = 2, .delta = 1e-5, .confidence = 0.95};
    dure_arg args[] = {
        dure_model_arg(&c.model),
        OPTION(TEXT, "data", c.data, "FILE",
               "public records to train on besides the canaries (default: generated); they are "
               "not protected"),
        OPTION(COUNT, "canaries", c.canaries, "N", "default 10000, at least 5000"),
        OPTION(NUMBER, "epsilon", c.epsilon, "E",
               "the claim that is tested, default and at most 2: above it halved noise hides"),
        OPTION(NUMBER, "delta", c.delta, "D", "default 1e-5"),
        OPTION(NUMBER, "confidence", c.confidence, "P", "of each lower bound, default 0.95"),
        dure_threads_arg(&c.threads),
        dure_json_arg(&c.json),
    };
    const dure_usage usage = {
        "audit canary",
        "trains with planted records on public or generated data, and says which privacy loss can "
        "be shown: more than is claimed is a fault (exit status 1), less shows nothing",
        args, N_ARGS(args),
        "dure audit canary --model SmolLM2-135M-Instruct.Q4_1.gguf --json > canary.json\n"
        "  dure audit report fed.dure -o fed.html --canary canary.json"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed;
    return run_canary(&c, &usage);
}
