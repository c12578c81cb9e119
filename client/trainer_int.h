/* The trainer's state, shared by its steps (trainer.c) and its file (trainer_state.c). */
#pragma once

#include "client/trainer.h"
#include "kernels/optimizer.h"

/* What opts.eval has said so far. */
typedef struct dure_verdict {
    double best_loss;
    uint64_t best_step;  /* steps taken when it was measured; 0: none yet */
    uint64_t since_best; /* evaluations */
    float *best;         /* the trained factors at best_step */
    dure_document *docs; /* of the evaluation, and room for their losses */
    dure_document_loss *losses;
} dure_verdict;

struct dure_trainer {
    dure_transformer *model;
    const dure_dataset *data;
    dure_lora *lora;
    dure_trainer_opts opts;
    dure_compute compute; /* the model's, between its passes */
    uint64_t step;        /* the next one */
    double first_loss;    /* of the first step taken; 0: none yet. Kept without a plan alone */
    size_t n;             /* trained parameters */
    float *active;        /* n, the trained factors */
    float *mean;          /* n, the step's gradient */
    double *piece_norms;  /* of one gradient, in pieces: see dp/quantize.h */
    size_t *chosen;       /* data->n: the step's records come first */
    dure_adamw moments;   /* SGD uses m alone */
    /* With a plan. */
    dure_dp_plan now;        /* opts.plan, with the clip of the next step */
    int64_t *sum;            /* n, in grid units */
    int64_t count;           /* of norms below and above the clip, if that adapts; in grid units */
    uint64_t *piece_squares; /* one record's, see dp/quantize.h */
    /* With a plan of subjects. */
    size_t *subjects;    /* data->n_subjects; the chosen ones come first */
    bool *ends_subject;  /* for each of `chosen`: the last record of its subject */
    float *subject_sum;  /* n, of the subject at hand */
    size_t subject_size; /* gradients in it */
    /* Without. */
    double *total;               /* n */
    size_t *order;               /* data->n, this epoch's */
    uint64_t epoch;              /* of `order`; UINT64_MAX before the first */
    dure_document *docs;         /* n_docs of this step, from a buffer that grows */
    uint64_t *masks;             /* the same number: the seeds of their dropout */
    dure_clip_outcome *outcomes; /* the same number: where the model clips */
    size_t docs_capacity;
    dure_verdict verdict; /* pointers are NULL without opts.eval */
};

/* Clips one record's gradient, puts it on the grid and adds it to t->sum; false if it may not
 * contribute, and nothing was added. */
bool dure_trainer_add_clipped(dure_trainer *t, const float *gradient);
/* Counts a record's norm as below or above the clip, where that adapts. */
void dure_trainer_add_count(dure_trainer *t, double norm_square);
/* Adds a gradient to t->total; false if it is not finite. */
bool dure_trainer_add_plain(dure_trainer *t, const float *gradient);

/* Of the file of dure_trainer_save(). */
size_t dure_trainer_state_bytes(const dure_trainer *t);

DURE_MUST_USE dure_err dure_trainer_eval_check(const dure_trainer_eval *eval, dure_diag *diag);
DURE_MUST_USE dure_err dure_trainer_eval_init(dure_trainer *t);
void dure_trainer_eval_fini(dure_trainer *t);
/* Evaluates if it is time, after a step was taken. */
DURE_MUST_USE dure_err dure_trainer_judge(dure_trainer_step *done, dure_trainer *t,
                                          dure_diag *diag);
