/* What a run of `dure train` works on: the model, the records and the adapter where it starts. */
#pragma once

#include "cli/model_open.h"
#include "cli/train_options.h"
#include "model/dataset.h"

typedef struct dure_train_setup {
    dure_open_model m;
    dure_dataset data, eval;
    dure_lora *lora;
    dure_hash base, data_hash, subject;
    uint64_t steps;
    dure_transformer_fit fit; /* how the model stays within memory, and what is expected of it */
    dure_trainer_eval judge;  /* what opts.eval points to */
    dure_trainer_opts opts;   /* points into this object: it must not move */
} dure_train_setup;

/* Opens everything that the options name. On error what is open stays for fini. */
DURE_MUST_USE dure_err dure_train_setup_init(dure_train_setup *s, const dure_train_options *o,
                                             dure_diag *diag);
/* Records and tokens of a usual step: with privacy, a record enters one with the probability that
 * the public figures give. */
typedef struct dure_train_step_size {
    double records, tokens;
} dure_train_step_size;
dure_train_step_size dure_train_usual_step(const dure_train_setup *s, const dure_train_options *o);
/* What all evaluations of the run are expected to take. */
double dure_train_judge_seconds(const dure_train_setup *s);
void dure_train_setup_fini(dure_train_setup *s);
