#include "cli/gate_child.h"

#include "common/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STOP_GRACE_MS = 1000, ANSWER_MAX_BYTES = 64 << 20 };

static dure_err start(void *state, const char *adapter_path, dure_diag *diag)
{
    dure_gate_child *g = state;
    char limit[24], threads[24];
    const char *argv[16] = {"eval",   "--model",         g->settings->model,
                            "--data", g->settings->eval, "--per-record",
                            "--json"};
    size_t n = 7;
    if (adapter_path) {
        argv[n++] = "--adapter";
        argv[n++] = adapter_path;
    }
    if (g->settings->gate_records) {
        snprintf(limit, sizeof limit, "%" PRIu32, g->settings->gate_records);
        argv[n++] = "--limit";
        argv[n++] = limit;
    }
    if (g->threads) {
        snprintf(threads, sizeof threads, "%" PRIu64, g->threads);
        argv[n++] = "--threads";
        argv[n++] = threads;
    }
    dure_buf_fini(&g->text);
    dure_buf_init(&g->text, ANSWER_MAX_BYTES);
    const dure_child_opts opts = {.log_path = g->log_path};
    return dure_child_start(&g->child, argv, &opts, diag);
}

static bool take_line(void *state, size_t child, const char *line)
{
    dure_gate_child *g = state;
    (void)child;
    dure_put_raw(&g->text, line, strlen(line));
    return true;
}

static dure_err take_losses(double **losses, size_t *n, const json_t *answer, dure_diag *diag)
{
    const json_t *list = json_object_get(answer, "per_record");
    const size_t count = json_array_size(list);
    double *all = calloc(count ? count : 1, sizeof *all);
    if (!all) return DURE_ERR_NOMEM;
    dure_err err =
        count ? DURE_OK : dure_diag_set(diag, DURE_ERR_FORMAT, "'dure eval' named no records");
    for (size_t i = 0; !err && i < count; i++)
        err = dure_json_number(&all[i], json_array_get(list, i), "loss", diag);
    if (err) {
        free(all);
        return err;
    }
    *losses = all;
    *n = count;
    return DURE_OK;
}

static dure_err poll_child(bool *done, double **losses, size_t *n, void *state, dure_diag *diag)
{
    dure_gate_child *g = state;
    json_t *answer = NULL;
    *done = false;
    dure_err err = dure_child_watch(&g->child, 1, take_line, g, 0, diag);
    if (err == DURE_ERR_TIMEOUT) return DURE_OK;
    if (!err) err = dure_child_wait(&g->child, "eval", diag);
    if (!err) err = dure_buf_err(&g->text);
    if (!err) err = dure_json_parse(&answer, dure_buf_span(&g->text), "'dure eval'", diag);
    if (!err) err = take_losses(losses, n, answer, diag);
    json_decref(answer);
    *done = !err;
    return err;
}

static void stop(void *state)
{
    dure_gate_child *g = state;
    dure_child_stop(&g->child, STOP_GRACE_MS);
}

void dure_gate_child_init(dure_coordinator_gate *out, dure_gate_child *state)
{
    dure_buf_init(&state->text, ANSWER_MAX_BYTES);
    state->child = (dure_child){.out = -1};
    *out =
        (dure_coordinator_gate){.start = start, .poll = poll_child, .stop = stop, .state = state};
}

void dure_gate_child_fini(dure_gate_child *state)
{
    dure_child_stop(&state->child, STOP_GRACE_MS);
    dure_buf_fini(&state->text);
}
