/* The trainer: local steps over the records of one owner, with differential privacy or without.
 *
 * With a plan, one step is: Poisson sample, one gradient per record (mean over its labels), clip
 * and integer grid, integer sum, exact integer noise, then floats and 1/L, then the optimizer
 * (Abadi et al., arXiv 1607.00133, with the integer mechanism of dp/). All local steps, the
 * optimizer and what follows are post-processing of the noisy sums. The plan's budget is the
 * caller's to reserve before dure_trainer_run() and to spend before anything leaves.
 *
 * Where the plan lets the clip adapt, a step also counts the norms below and above its clip, with
 * noise, and the next step's clip follows (dp/adaptive_clip.h); it is part of the saved state.
 *
 * A plan that protects subjects samples subjects: one that is chosen gives up to `per_subject` of
 * its records, in turn over the steps, and the sum of their gradients is clipped as one. What a
 * subject adds to a step is a function of its own records and the step's number.
 *
 * Without a plan: batches of a shuffled order drawn from `seed`, and the mean over all labels of
 * the batch. For owners who train on data of their own, for themselves.
 *
 * Steps are numbered from 0 over the life of the plan. A step is a function of the attempt (or
 * seed), of its number and of the state before it: a run that is killed, loaded and continued
 * gives the same bits as one that never stopped.
 *
 * Threads: one thread per trainer. */
#pragma once

#include "client/attempt.h"
#include "client/trainer_schedule.h"
#include "common/err.h"
#include "dp/plan.h"
#include "model/dataset.h"
#include "model/lora.h"
#include "model/transformer.h"

typedef enum dure_trainer_optimizer {
    DURE_TRAINER_ADAMW, /* beta 0.9 and 0.999, epsilon 1e-8 */
    DURE_TRAINER_SGD,   /* v = momentum v + g; w -= learning_rate v */
} dure_trainer_optimizer;

/* Records to judge by while training: every `every` steps and after the last. Under a plan they
 * must be records that no one wants protected: which factors are kept, and when the run ends,
 * tells something about them. Borrowed. */
typedef struct dure_trainer_eval {
    const dure_dataset *data;
    uint64_t every;
    uint64_t steps;    /* of the whole run */
    uint64_t patience; /* the run ends after so many evaluations without a new best; 0: never */
} dure_trainer_eval;

/* For audits of the trainer (client/canary.h): the gradient to take for record `record` of the
 * data in place of its own, which may be NULL. It is clipped and noised like any other. */
typedef const float *dure_trainer_substitute(void *state, size_t record, const float *gradient);

#define DURE_PER_SUBJECT 8 /* the usual per_subject */
#define DURE_PER_SUBJECT_MAX 1000000

typedef struct dure_trainer_opts {
    dure_lora_factor factors;
    dure_trainer_optimizer optimizer;
    double learning_rate, weight_decay, momentum; /* decay: AdamW alone; momentum: SGD alone */
    dure_schedule schedule;
    /* Share of each adapter input that a step zeroes (model/transformer.h); 0: none. The
     * masks come from the attempt under a plan, from `seed` without one. */
    double dropout;
    const dure_trainer_eval *eval; /* NULL: none. Borrowed */
    /* With differential privacy: both, or neither. Borrowed; the attempt until another is used. */
    const dure_dp_plan *plan;
    const dure_attempt *attempt;
    uint32_t per_subject; /* records of a chosen subject a step at most; for plans of subjects */
    dure_trainer_substitute *substitute; /* NULL: every record's own gradient */
    void *substitute_state;
    /* Without. */
    uint64_t batch;
    uint64_t seed;
    double clip_norm; /* of the batch's mean gradient, at most; 0: as it is */
    /* What a saved state belongs to beside these options (base, records); NULL: nothing. Borrowed
     * until the trainer is freed. */
    const dure_hash *subject;
} dure_trainer_opts;

/* What one step did. Under a plan, loss and counts come from private records without noise: they
 * are for the owner's own screen, and never leave the site or enter an adapter. */
typedef struct dure_trainer_step {
    uint64_t step; /* from 0 */
    double loss;   /* mean over the labels of the step's records; NaN if there were none */
    double learning_rate;
    double gradient_norm; /* of the mean gradient before clip_norm; NaN under a plan */
    double clip;          /* of this step, under a plan; NaN without. Tells nothing of a record */
    size_t records, tokens;
    size_t refused; /* records (or subjects) whose gradient was not finite: they gave nothing */
    uint32_t refused_line; /* of the first of them; 0: none */
    double seconds;
    bool judged, best; /* opts.eval was measured; it is the lowest so far */
    double eval_loss;  /* mean over its labels; not finite when it overflowed */
} dure_trainer_step;

/* Called after every step. An error stops the run and is returned; the step has been taken. */
typedef dure_err dure_trainer_report(void *state, const dure_trainer_step *step);

typedef struct dure_trainer dure_trainer;

/* The digest of the records as they will be trained on (tokens and labels). It stays at the site:
 * without a salt it would let others test guesses about the records. */
DURE_MUST_USE dure_err dure_trainer_data_hash(dure_hash *out, const dure_dataset *data);
/* The digest of all that decides a run but the records: the factors at the start, the options, the
 * plan, the base. What a run of its own binds its attempt to; a federation's round has its
 * configuration for that. opts->attempt and opts->subject are not
 * looked at. */
DURE_MUST_USE dure_err dure_trainer_settings_hash(dure_hash *out, const dure_lora *start,
                                                  const dure_trainer_opts *opts,
                                                  const dure_hash *base);

/* What will be trained, before there is a plan or an adapter. */
typedef struct dure_trainer_task {
    const dure_dataset *data;
    const dure_lora_layout *layout;
    const dure_trainer_opts *opts; /* factors, dropout and eval count */
    bool is_private;               /* there will be a plan: every record has its own gradient */
    uint64_t other_bytes;          /* what the caller keeps beside model, records and trainer */
} dure_trainer_task;

/* Chooses the quickest way in which `model` can train that within limit_bytes of the process's
 * memory (0: nine tenths of the machine's, see model/memory.h), and lets it work so from now on;
 * *out says which, and what to expect. `model` is best made with DURE_WEIGHTS_FILE. DURE_ERR_LIMIT
 * with a sentence if it cannot be. */
DURE_MUST_USE dure_err dure_trainer_fit(dure_transformer_fit *out, dure_transformer *model,
                                        const dure_trainer_task *task, uint64_t limit_bytes,
                                        dure_diag *diag);

/* The same, and leaves the model as it is. */
DURE_MUST_USE dure_err dure_trainer_expect(dure_transformer_fit *out, dure_transformer *model,
                                           const dure_trainer_task *task, uint64_t limit_bytes,
                                           dure_diag *diag);

/* Borrows model, data, lora and what opts points to; `lora` is trained in place. The caller owns
 * *out. DURE_ERR_USAGE with a sentence for options that do not fit; under a plan, a plan whose
 * grid does not suit the number of parameters is one. */
DURE_MUST_USE dure_err dure_trainer_new(dure_trainer **out, dure_transformer *model,
                                        const dure_dataset *data, dure_lora *lora,
                                        const dure_trainer_opts *opts, dure_diag *diag);
void dure_trainer_free(dure_trainer **trainer);

/* The next step's number. */
uint64_t dure_trainer_at(const dure_trainer *trainer);
/* For the rounds of a federation, where each is an attempt of its own: the next steps draw from
 * `attempt` (borrowed), and the optimizer's state stays. */
void dure_trainer_use_attempt(dure_trainer *trainer, const dure_attempt *attempt);
/* Passes over steps that were taken, and charged, in a round that came to nothing. Never back:
 * DURE_ERR_USAGE. */
DURE_MUST_USE dure_err dure_trainer_skip_to(dure_trainer *trainer, uint64_t step, dure_diag *diag);

/* Takes the next n steps from the factors as `lora` has them now. DURE_ERR_USAGE beyond the plan's
 * steps. On any error `lora` and the optimizer are as the last whole step left them.
 *
 * Without a plan a run that has gone wrong is DURE_ERR_STATE, and `diag` names the step, the
 * record's line and what to try: a loss or gradient that is not finite, or a loss that has run
 * away (over 1.25 ln(vocabulary), worse than a blind guess, and over twice the first step's). */
DURE_MUST_USE dure_err dure_trainer_run(dure_trainer *trainer, uint64_t n,
                                        dure_trainer_report *report, void *state, dure_diag *diag);

/* True when opts.eval has ended the run: dure_trainer_run() then takes no more steps. */
bool dure_trainer_stopped(const dure_trainer *trainer);
/* Puts the factors with the lowest evaluation loss into `lora`. Returns after how many steps that
 * was, 0 (nothing is changed) if no evaluation has been finite. */
uint64_t dure_trainer_take_best(double *loss, dure_trainer *trainer);

/* Writes, atomically and synced (0600), what a later process needs to go on after the last step:
 * factors, optimizer, step and what the evaluations said; and takes it up again. Under a plan the
 * file holds noised values only. Neither takes memory that goes with the size of the state.
 * DURE_ERR_STATE if the file belongs to other options; DURE_ERR_FORMAT if it is damaged; neither
 * changes anything. After another error, as DURE_ERR_IO, the trainer may have a part of the state:
 * free it. */
DURE_MUST_USE dure_err dure_trainer_save(const dure_trainer *trainer, const char *path,
                                         dure_diag *diag);
DURE_MUST_USE dure_err dure_trainer_load(dure_trainer *trainer, const char *path, dure_diag *diag);
