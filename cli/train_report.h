/* What a run of `dure train` tells while it goes: the bar or lines on stderr, JSON on stdout, the
 * log, TensorBoard's event file and the samples. Under a plan the losses come from private records
 * without noise: all of this is for the owner's own eyes. */
#pragma once

#include "cli/event_file.h"
#include "cli/model_open.h"
#include "cli/output.h"
#include "cli/train_log.h"
#include "cli/train_options.h"

typedef struct dure_train_report {
    const dure_train_options *o;
    const dure_open_model *model; /* answers --sample-prompt */
    const dure_lora *lora;
    const dure_dp_plan *plan; /* NULL: without privacy */
    uint64_t steps;           /* of the whole run */
    double peak_tokens;       /* a second, that no program could pass here; 0: not known */
    dure_progress progress;
    dure_train_log log;
    dure_event_file *events;
    uint64_t tokens;
    double seconds;                         /* of the training steps alone */
    double epsilon, told_s, epsilon_took_s; /* of the steps so far; when and how long it took */
    bool epsilon_is_new;                    /* it is that of the step at hand */
    double eval_loss;                       /* the last; NaN before the first */
} dure_train_report;

/* That the files which `o` asks for can be opened and its --sample-prompt be answered, before
 * anything is spent on a run; leaves nothing behind. --out must be there: they may lie in it. */
DURE_MUST_USE dure_err dure_train_report_check(const dure_train_options *o,
                                               const dure_open_model *model, dure_diag *diag);
/* After `taken` steps of an earlier process. Everything that r points to is borrowed. */
DURE_MUST_USE dure_err dure_train_report_start(dure_train_report *r, uint64_t taken,
                                               dure_diag *diag);
DURE_MUST_USE dure_err dure_train_report_step(dure_train_report *r, const dure_trainer_step *step,
                                              dure_diag *diag);
void dure_train_report_end(dure_train_report *r); /* closes the files; idempotent */
