/* dure coordinator run: the federation's coordinator, until it is stopped or its rounds are done.
 */
#include "cli/args.h"
#include "cli/commands.h"
#include "cli/federation.h"
#include "cli/gate_child.h"
#include "cli/output.h"
#include "cli/stop_signals.h"
#include "common/clock.h"
#include "common/file.h"
#include "coordinator/folder.h"
#include "kernels/threads.h"
#include "model/base_digest.h"

#if defined(__GLIBC__)
#include <malloc.h>
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

typedef struct options {
    const char *dir, *endpoint;
    uint64_t rounds, threads, silence_s, answer_s;
    bool exit_when_done, no_gate, json;
} options;

static void stop(void *coordinator)
{
    dure_coordinator_stop(coordinator);
}

/* As many descriptors as the process may have: each site's connection takes one, and a
 * burst of others, which the router closes a moment later, keeps no file of the round's from being
 * opened. */
static void raise_descriptors(void)
{
    const rlim_t plenty = 65536;
    struct rlimit n;
    if (getrlimit(RLIMIT_NOFILE, &n) || n.rlim_cur >= plenty) return;
    n.rlim_cur = n.rlim_max < plenty ? n.rlim_max : plenty;
    (void)setrlimit(RLIMIT_NOFILE, &n);
}

/* "round_open round=3 sites=[north, south, west]" */
static void print_words(const char *name, const json_t *facts)
{
    char when[DURE_CLOCK_TEXT_SIZE];
    const char *key;
    json_t *value;
    dure_clock_text(when, dure_clock_wall_s());
    fprintf(stderr, "%s %s", when, name);
    json_object_foreach((json_t *)(uintptr_t)facts, key, value)
    {
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
        const size_t n = text ? strlen(text) : 0;
        if (json_is_string(value) && n >= 2 && !strchr(json_string_value(value), ' '))
            fprintf(stderr, " %s=%s", key, json_string_value(value));
        else
            fprintf(stderr, " %s=%s", key, text ? text : "?");
        free(text);
    }
    fprintf(stderr, "\n");
}

static void on_event(void *state, const char *name, const json_t *facts)
{
    const options *o = state;
    if (!o->json) {
        print_words(name, facts);
        return;
    }
    (void)dure_print_event(name, facts);
}

/* The gate would judge by another model than the one that the sites train. */
static dure_err check_model(const dure_settings *settings, dure_diag *diag)
{
    dure_hash digest;
    dure_err err = dure_base_digest(&digest, settings->model, diag);
    if (!err && !dure_hash_equal(&digest, &settings->terms.base.digest))
        err = dure_diag_set(diag, DURE_ERR_STATE,
                            "%s is not the base model that the federation was made for; put the "
                            "right file there, or set base.model in federation.yaml",
                            settings->model);
    if (!err && !dure_file_exists(settings->eval))
        err = dure_diag_set(diag, DURE_ERR_NOT_FOUND,
                            "the evaluation file %s is not there; put it back, or set gate.eval in "
                            "federation.yaml",
                            settings->eval);
    return err;
}

/* What is as large as an adapter goes back to the system when it is freed: left in the heap, the
 * next one of another size would come on top of it. */
static void give_back_what_is_freed(void)
{
#if defined(__GLIBC__)
    (void)mallopt(M_MMAP_THRESHOLD, 1 << 20);
#endif
}

static dure_err run(const options *o, const char *dir, dure_diag *diag)
{
    dure_coordinator_gate gate;
    dure_gate_child child = {.threads = o->threads};
    dure_folder folder;
    dure_coordinator_opts opts = {.dir = dir,
                                  .endpoint = o->endpoint,
                                  .rounds = o->rounds,
                                  .exit_when_done = o->exit_when_done,
                                  .patience = {.silence_ms = (uint32_t)o->silence_s * 1000,
                                               .answer_ms = (uint32_t)o->answer_s * 1000},
                                  .event = on_event,
                                  .event_state = (void *)(uintptr_t)o};
    raise_descriptors();
    give_back_what_is_freed();
    dure_err err = dure_folder_open(&folder, dir, diag);
    if (!err && !o->no_gate) err = check_model(&folder.settings, diag);
    child.settings = &folder.settings;
    child.log_path = dure_path_join(dir, "gate.log");
    dure_gate_child_init(&gate, &child);
    if (!o->no_gate) opts.gate = &gate;
    dure_coordinator *c = NULL;
    if (!err) err = dure_coordinator_open(&c, &opts, diag);
    if (!err) {
        dure_stop_signals_take(stop, c);
        err = dure_coordinator_run(c, diag);
        dure_stop_signals_end();
    }
    dure_coordinator_close(&c);
    dure_gate_child_fini(&child);
    free(child.log_path);
    dure_folder_fini(&folder);
    return err;
}

static int coordinator_run(int argc, char **argv)
{
    options o = {0};
    const dure_arg args[] = {
        dure_coordinator_arg(&o.dir),
        OPTION(COUNT, "rounds", o.rounds, "N",
               "at most so many rounds in this run; default: all that are planned"),
        FLAG("exit-when-done", o.exit_when_done,
             "end after the last round; else stay for sites that come later"),
        OPTION(TEXT, "bind", o.endpoint, "tcp://ADDRESS:PORT",
               "listen here instead of the federation's endpoint"),
        OPTION(COUNT, "gate-threads", o.threads, "N",
               "threads of the gate's evaluation; default: the physical cores",
               .most = DURE_POOL_MAX_THREADS),
        FLAG("no-gate", o.no_gate,
             "do not evaluate: adapters stay candidates, promote needs --force"),
        OPTION(COUNT, "silence", o.silence_s, "SECONDS",
               "a site not heard for so long has left the round; default 30", .most = 86400),
        OPTION(COUNT, "answer", o.answer_s, "SECONDS",
               "a site heard but without its answer is not waited for; default 120", .most = 86400),
        FLAG("json", o.json, "one JSON object an event on stdout"),
    };
    const dure_usage usage = {"coordinator run", "runs the federation's coordinator", args,
                              N_ARGS(args), "dure coordinator run fed/coordinator"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed;
    dure_diag diag = {{0}};
    char *dir = dure_federation_part(o.dir, "coordinator");
    dure_err err = dir ? run(&o, dir, &diag) : DURE_ERR_NOMEM;
    free(dir);
    return err ? dure_fail("coordinator run", err, &diag) : 0;
}

int dure_cmd_coordinator(int argc, char **argv)
{
    static const dure_verb verbs[] = {
        {"run", coordinator_run, "run it until it is stopped"},
    };
    const dure_verbs table = {.command = "coordinator",
                              .summary = "the process that sites connect to",
                              .usage = "DIR/coordinator [options]",
                              .example = "dure coordinator run fed/coordinator",
                              .verbs = verbs,
                              .n = N_ARGS(verbs)};
    return dure_args_verb(&table, argc, argv);
}
