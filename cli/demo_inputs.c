/* What the demo is given, looked at before the last demo's folder is removed. */
#include "cli/demo.h"

#include "cli/model_open.h"
#include "common/file.h"
#include "model/dataset.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static dure_err check_records(const demo *d, const dure_open_model *m, const char *name,
                              dure_diag *diag)
{
    char path[DEMO_PATH + DEMO_NAME + 16];
    dure_dataset data = {0};
    const dure_dataset_opts opts = {.max_length =
                                        dure_transformer_shape(m->transformer)->n_context};
    snprintf(path, sizeof path, "%s/%s.jsonl", d->data, name);
    dure_err err = dure_dataset_read(&data, path, m->tokenizer, &m->chat, &opts, diag);
    dure_dataset_fini(&data);
    return err;
}

/* `path` is not in the folder that is going to be removed. */
static dure_err check_outside(const demo *d, const char *path, dure_diag *diag)
{
    char *full = realpath(path, NULL), *out = realpath(d->out, NULL);
    const size_t n = out ? strlen(out) : 0;
    const bool inside = full && out && strncmp(full, out, n) == 0 && (!full[n] || full[n] == '/');
    free(full);
    free(out);
    if (!inside) return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_USAGE,
                         "%s is in %s, which this run replaces; move it, or name another folder "
                         "with --out",
                         path, d->out);
}

dure_err demo_check_inputs(const demo *d, dure_diag *diag)
{
    dure_open_model m;
    char held[DEMO_NAME + 8];
    const dure_open_opts opts = {.model = d->model, .fit_later = true};
    dure_err err = check_outside(d, d->model, diag);
    if (!err) err = check_outside(d, d->data, diag);
    if (!err) err = dure_open_model_init(&m, &opts, diag);
    if (err) return err;
    err = check_records(d, &m, "eval", diag);
    for (size_t i = 0; !err && i < DEMO_SITES; i++) {
        snprintf(held, sizeof held, "%s.held", d->sites[i].name);
        err = check_records(d, &m, d->sites[i].name, diag);
        if (!err) err = check_records(d, &m, held, diag);
    }
    dure_open_model_fini(&m);
    return err;
}
