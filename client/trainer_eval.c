/* Judging a run by records that it does not train on: the best factors so far, and when to end. */
#include "client/trainer_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

dure_err dure_trainer_eval_check(const dure_trainer_eval *eval, dure_diag *diag)
{
    if (eval->every == 0 || eval->steps == 0)
        return dure_diag_set(diag, DURE_ERR_USAGE, "evaluations need a number of steps between");
    for (size_t i = 0; i < eval->data->n; i++)
        if (eval->data->records[i].n_labels > 0) return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_USAGE,
                         "the evaluation file leaves no response to measure the loss on");
}

dure_err dure_trainer_eval_init(dure_trainer *t)
{
    dure_verdict *v = &t->verdict;
    const dure_dataset *data = t->opts.eval->data;
    v->best = calloc(t->n, sizeof *v->best);
    v->docs = calloc(data->n, sizeof *v->docs);
    v->losses = calloc(data->n, sizeof *v->losses);
    if (!v->best || !v->docs || !v->losses) return DURE_ERR_NOMEM;
    for (size_t i = 0; i < data->n; i++)
        v->docs[i] = dure_dataset_document(data, i);
    return DURE_OK;
}

void dure_trainer_eval_fini(dure_trainer *t)
{
    free(t->verdict.best);
    free(t->verdict.docs);
    free(t->verdict.losses);
}

/* A loss that is not a number is worse than any other. */
static dure_err measure(double *loss, dure_trainer *t, dure_diag *diag)
{
    dure_verdict *v = &t->verdict;
    size_t n = t->opts.eval->data->n;
    double nll = 0, labels = 0;
    dure_err err = dure_transformer_loss(v->losses, t->model, t->lora, v->docs, n, diag);
    if (err) return err;
    for (size_t i = 0; i < n; i++) {
        nll += v->losses[i].nll_sum;
        labels += v->losses[i].n_labels;
    }
    *loss = isfinite(nll) ? nll / labels : (double)INFINITY;
    return DURE_OK;
}

dure_err dure_trainer_judge(dure_trainer_step *done, dure_trainer *t, dure_diag *diag)
{
    const dure_trainer_eval *eval = t->opts.eval;
    dure_verdict *v = &t->verdict;
    if (!eval || (t->step % eval->every != 0 && t->step != eval->steps)) return DURE_OK;
    dure_err err = measure(&done->eval_loss, t, diag);
    if (err) return err;
    done->judged = true;
    done->best = isfinite(done->eval_loss) && (v->best_step == 0 || done->eval_loss < v->best_loss);
    v->since_best = done->best ? 0 : v->since_best + 1;
    if (!done->best) return DURE_OK;
    v->best_loss = done->eval_loss;
    v->best_step = t->step;
    memcpy(v->best, t->active, t->n * sizeof *v->best);
    return DURE_OK;
}

bool dure_trainer_stopped(const dure_trainer *trainer)
{
    const dure_trainer_eval *eval = trainer->opts.eval;
    return eval && eval->patience && trainer->verdict.since_best >= eval->patience;
}

uint64_t dure_trainer_take_best(double *loss, dure_trainer *trainer)
{
    const dure_verdict *v = &trainer->verdict;
    if (v->best_step == 0) return 0;
    *loss = v->best_loss;
    dure_lora_unpack(trainer->lora, v->best, trainer->opts.factors);
    return v->best_step;
}
