/* What the adapter is worth: loss and right fields, by `dure eval`. */
#include "cli/demo.h"

#include "common/json.h"
#include "registry/gate.h"

#include <stdio.h>
#include <stdlib.h>

/* The share of right fields: the mean over the fields. */
static double mean_score(json_t *fields)
{
    const char *name;
    json_t *value;
    double sum = 0;
    json_object_foreach(fields, name, value) sum += json_number_value(value);
    return json_object_size(fields) ? sum / (double)json_object_size(fields) : 0;
}

/* One file, with an adapter or (NULL) the base alone; *records (may be NULL) is the caller's: what
 * was found record by record. */
static dure_err evaluate(demo_figures *out, json_t **records, const demo *d, const char *data,
                         const char *adapter, dure_diag *diag)
{
    const char *argv[16] = {"eval", "--model",  d->model,       "--data",
                            data,   "--fields", d->plan.fields, "--json"};
    size_t n = 8;
    if (records) argv[n++] = "--per-record";
    if (adapter) {
        argv[n++] = "--adapter";
        argv[n] = adapter;
    }
    json_t *answer;
    dure_err err = demo_command(&answer, d, argv, diag);
    if (err) return err;
    err = dure_json_number(&out->loss, answer, "loss", diag);
    out->score = mean_score(json_object_get(answer, "field_scores"));
    if (records) *records = json_incref(json_object_get(answer, "per_record"));
    json_decref(answer);
    return err;
}

/* A record's own share of right fields. */
static double record_score(json_t *record)
{
    const char *name;
    json_t *value, *fields = json_object_get(record, "fields");
    size_t right = 0;
    json_object_foreach(fields, name, value) right += json_is_true(value);
    return json_object_size(fields) ? (double)right / (double)json_object_size(fields) : 0;
}

/* The intervals of adapter - base over n records. The gate takes what should fall, so the share of
 * fields that are wrong stands for that of those that are right. */
static dure_err compare(demo_change *out, const json_t *base, const json_t *adapter, size_t n,
                        dure_diag *diag)
{
    double *values = calloc(4 * n + 1, sizeof *values);
    if (!values) return dure_diag_set(diag, DURE_ERR_NOMEM, "out of memory");
    for (size_t i = 0; i < n; i++) {
        json_t *before = json_array_get(base, i), *after = json_array_get(adapter, i);
        values[i] = json_number_value(json_object_get(before, "loss"));
        values[n + i] = json_number_value(json_object_get(after, "loss"));
        values[2 * n + i] = 1 - record_score(before);
        values[3 * n + i] = 1 - record_score(after);
    }
    dure_gate_result loss, wrong = {0};
    dure_err err = dure_gate_compare(&loss, values, values + n, n, &(dure_gate_opts){0}, diag);
    if (!err)
        err = dure_gate_compare(&wrong, values + 2 * n, values + 3 * n, n, &(dure_gate_opts){0},
                                diag);
    *out = (demo_change){.loss = {loss.low, loss.high}, .score = {-wrong.high, -wrong.low}};
    free(values);
    return err;
}

static dure_err evaluate_shared(demo *d, dure_diag *diag)
{
    char path[DEMO_PATH + 64];
    json_t *base = NULL, *adapter = NULL;
    snprintf(path, sizeof path, "%s/eval.jsonl", d->data);
    dure_err err = evaluate(&d->base, &base, d, path, NULL, diag);
    if (!err) err = evaluate(&d->adapter, &adapter, d, path, d->adapter_path, diag);
    if (!err) err = compare(&d->change, base, adapter, json_array_size(base), diag);
    json_decref(base);
    json_decref(adapter);
    return err;
}

dure_err demo_evaluate(demo *d, dure_diag *diag)
{
    char path[DEMO_PATH + 64];
    dure_err err = evaluate_shared(d, diag);
    for (size_t i = 0; !err && i < DEMO_SITES; i++) {
        demo_site *s = &d->sites[i];
        snprintf(path, sizeof path, "%s/%s.held.jsonl", d->data, s->name);
        err = evaluate(&s->base, NULL, d, path, NULL, diag);
        if (!err) err = evaluate(&s->adapter, NULL, d, path, d->adapter_path, diag);
    }
    return err;
}
