/* dure demo: three sites fine-tune a real quantized model together, and the result is served. */
#include "cli/args.h"
#include "cli/commands.h"
#include "cli/demo.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/json.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const demo_plan the_plan = {.rounds = 4,
                                   .steps = 4,
                                   .batch = 24,
                                   .rank = 4,
                                   .alpha = "8",
                                   .targets = "v",
                                   .learning_rate = "0.02",
                                   .epsilon = "8",
                                   .fields = "topic,urgency"};
static const struct {
    const char *name;
    uint64_t records;
} the_sites[DEMO_SITES] = {{"town", 1050}, {"clinic", 1000}, {"works", 950}};

/* Says that a folder is a demo's, so that running again may remove it. */
static const char mark[] = "dure-demo";

void demo_path(char path[DEMO_PATH], const demo *d, const char *name)
{
    const int n = snprintf(path, DEMO_PATH, "%s/%s", d->out, name);
    DURE_ASSERT(n > 0 && n < DEMO_PATH); /* find_folder() refused a folder that leaves no room */
}

dure_err demo_command(json_t **answer, const demo *d, const char *const *argv, dure_diag *diag)
{
    char log[DEMO_PATH];
    dure_buf text;
    demo_path(log, d, "logs/commands.log");
    if (answer) *answer = NULL;
    dure_err err = dure_child_capture(&text, argv, &(dure_child_opts){.log_path = log}, diag);
    if (err) return dure_diag_prefix(diag, err, "see %s", log);
    if (answer) {
        size_t first = text.n;
        while (first > 0 && text.data[first - 1] == '\n')
            first--;
        const size_t end = first;
        while (first > 0 && text.data[first - 1] != '\n')
            first--;
        err = dure_json_parse(answer, dure_span_of(text.data + first, end - first), argv[0], diag);
    }
    dure_buf_fini(&text);
    return err;
}

/* The run's folder, which is the last demo's if it is there, never another one. */
static dure_err find_folder(demo *d, const char *out, dure_diag *diag)
{
    char path[PATH_MAX], here[PATH_MAX];
    if (!getcwd(here, sizeof here)) return dure_file_errno(diag, "find", "the present folder");
    const int n = snprintf(path, sizeof path, "%s%s%s", out[0] == '/' ? "" : here,
                           out[0] == '/' ? "" : "/", out);
    if (n < 0 || n > DEMO_PATH - 128)
        return dure_diag_set(diag, DURE_ERR_USAGE, "the path of %s is too long", out);
    memcpy(d->out, path, (size_t)n + 1);
    demo_path(path, d, mark);
    if (dure_file_exists(d->out) && !dure_file_exists(path))
        return dure_diag_set(diag, DURE_ERR_EXISTS,
                             "%s exists and is not a demo's; name another folder with --out",
                             d->out);
    return DURE_OK;
}

/* Removes the last demo's folder. */
static dure_err start_over(const demo *d, dure_diag *diag)
{
    char path[DEMO_PATH];
    dure_err err = dure_dir_remove(d->out, diag);
    if (err) return err;
    demo_path(path, d, "logs");
    err = dure_dir_make(path, diag);
    demo_path(path, d, mark);
    return err ? err : dure_file_write_atomic(path, dure_span_of_text("1\n"), 0644, diag);
}

/* The data beside the sources of this build, or where `cmake --install` puts them. */
static const char *find_data(void)
{
    static const char *const places[] = {DURE_DEMO_SOURCE, DURE_DEMO_INSTALLED};
    for (size_t i = 0; i < 2; i++)
        if (dure_file_exists(places[i])) return places[i];
    return NULL;
}

static dure_err prepare(demo *d, const char *model, const char *data, const char *out,
                        dure_diag *diag)
{
    if (!model)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "which model? name a GGUF with --model or DURE_MODEL; ./quickstart "
                             "fetches the one this demo is made for");
    if (!data) data = find_data();
    if (!data)
        return dure_diag_set(diag, DURE_ERR_NOT_FOUND,
                             "the demo's records are not installed; name their folder with --data");
    if (strlen(model) >= DEMO_PATH || strlen(data) >= DEMO_PATH - 64)
        return dure_diag_set(diag, DURE_ERR_USAGE, "a path is too long");
    snprintf(d->model, sizeof d->model, "%s", model);
    snprintf(d->data, sizeof d->data, "%s", data);
    d->plan = the_plan;
    for (size_t i = 0; i < DEMO_SITES; i++) {
        snprintf(d->sites[i].name, sizeof d->sites[i].name, "%s", the_sites[i].name);
        d->sites[i].records = the_sites[i].records;
    }
    const long cores = sysconf(_SC_NPROCESSORS_ONLN);
    d->threads = cores > DEMO_SITES ? (uint64_t)cores / DEMO_SITES : 1;
    dure_err err = find_folder(d, out, diag);
    if (!err) err = demo_check_inputs(d, diag);
    return err ? err : start_over(d, diag);
}

static void stop_children(demo *d)
{
    dure_child_stop(&d->server, 2000);
    for (size_t i = 0; i < DEMO_SITES; i++)
        dure_child_stop(&d->site[i], 2000);
    dure_child_stop(&d->coordinator, 2000);
}

int dure_cmd_demo(int argc, char **argv)
{
    const char *model = getenv("DURE_MODEL"), *data = NULL, *out = "quickstart-run";
    static demo d; /* large */
    const dure_arg args[] = {
        OPTION(TEXT, "model", model, "FILE", "the base model, GGUF; default $DURE_MODEL"),
        OPTION(TEXT, "out", out, "DIR",
               "folder of the run, replaced if a demo made it; default quickstart-run",
               .letter = 'o'),
        OPTION(TEXT, "data", data, "DIR",
               "the three sites' records; default: those that come with Dure"),
        FLAG("json", d.json, "print summary.json instead of the screen"),
    };
    const dure_usage usage = {"demo",
                              "one coordinator and three sites on this machine tune a model "
                              "together, privately, and the result is served",
                              args, N_ARGS(args), "dure demo --model base.gguf"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed;

    dure_diag diag = {{0}};
    d.started_s = dure_clock_monotonic_s();
    d.coordinator.out = d.server.out = -1;
    for (size_t i = 0; i < DEMO_SITES; i++)
        d.site[i].out = -1;
    dure_err err = prepare(&d, model, data, out, &diag);
    if (!err) err = demo_federation(&d, &diag);
    if (!err) err = demo_outcome(&d, &diag);
    d.wall_s = dure_clock_monotonic_s() - d.started_s;
    if (!err) err = demo_report(&d, &diag);
    stop_children(&d);
    free(d.question);
    free(d.answer_base);
    free(d.answer_adapter);
    return err ? dure_fail("demo", err, &diag) : 0;
}
