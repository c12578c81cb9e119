/* The options of `dure train`: from the command line, a configuration file, or their defaults. */
#pragma once

#include "cli/args.h"
#include "client/trainer.h"

typedef struct dure_train_options {
    dure_args_config config;
    /* What to train on. */
    const char *model, *data, *out, *init, *format, *chat_template;
    uint64_t max_length;
    bool any_base;
    /* The adapter. */
    const char *ranks, *targets, *factor;
    dure_lora_factor factors; /* what `factor` means */
    double alpha, dropout;
    uint64_t first_layer;
    bool ranks_given, alpha_given, targets_given, first_layer_given, rslora, dora;
    /* The steps. */
    uint64_t batch, steps, seed;
    double epochs, learning_rate, warmup, weight_decay, momentum, clip_norm;
    const char *schedule, *optimizer;
    bool steps_given, epochs_given, momentum_given, weight_decay_given, clip_norm_given;
    /* Watching it. */
    const char *eval, *sample_prompt, *log, *tensorboard;
    uint64_t eval_every, patience, sample_every, sample_tokens, save_every;
    bool eval_every_given, patience_given, sample_every_given, sample_tokens_given;
    bool eval_unprotected, json, dry_run;
    /* Privacy. */
    const char *source, *ledger, *unit; /* unit: "record" or "subject" */
    uint64_t records, per_subject;
    double epsilon, delta, noise, clip, clip_quantile, clip_rate, clip_noise;
    dure_dp_adaptive adaptive; /* what the last three come to */
    bool source_given, records_given, epsilon_given, delta_given, noise_given, clip_given, no_dp;
    bool unit_given, per_subject_given, clip_quantile_given, clip_rate_given, clip_noise_given;
    uint64_t threads, memory;
    const char *device;
    bool profile;
} dure_train_options;

/* One process runs one command, so *out is borrowed from a static. What can be judged without
 * opening a file is judged. The result is the exit status where it is not -1 (go on). */
DURE_MUST_USE int dure_train_options_parse(const dure_train_options **out, int argc, char **argv);

void dure_train_options_fini(void); /* the texts of *out end here */

/* What follows from the number of records: the owner's public figure with privacy, else those in
 * the file. DURE_ERR_USAGE with a sentence. */
DURE_MUST_USE dure_err dure_train_options_steps(uint64_t *steps, dure_schedule *schedule,
                                                const dure_train_options *o, uint64_t n_records,
                                                dure_diag *diag);
/* "every so many steps", or ten times in the run. */
uint64_t dure_train_options_every(uint64_t given, uint64_t steps);

/* The trainer's options as far as the command line decides them. */
dure_trainer_opts dure_train_options_trainer(const dure_train_options *o);
