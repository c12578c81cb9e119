#include "cli/train_options.h"

#include "cli/device.h"
#include "client/policy.h"
#include "dp/plan.h"
#include "kernels/threads.h"

#include <math.h>
#include <string.h>

static dure_train_options o;

static const dure_arg args[] = {
    HEADING("What to train"),
    OPTION(TEXT, "model", o.model, "FILE", "the base model, GGUF", .required = true),
    OPTION(TEXT, "data", o.data, "FILE", "records to train on: JSONL, JSON, CSV, TSV or plain text",
           .required = true),
    OPTION(TEXT, "out", o.out, "DIR", "where the adapter goes: adapter.gguf and a PEFT folder",
           .required = true),
    OPTION(TEXT, "format", o.format, "NAME",
           "of --data and --eval: jsonl, json, csv, tsv or text; default by the file's name"),
    OPTION(
        TEXT, "chat-template", o.chat_template, "NAME",
        "how conversations are written: chatml, llama3.1, gemma3, ...; default: as the model says"),
    OPTION(COUNT, "max-length", o.max_length, "N", "tokens a record; default 512", .least = 2,
           .most = 1 << 20),
    OPTION(TEXT, "init", o.init, "PATH",
           "start from this adapter, a GGUF file or PEFT folder (its rank, alpha, targets hold)"),
    FLAG("any-base", o.any_base, "accept an adapter that was made for another file of the base"),
    OPTION(CONFIG, "config", o.config, "FILE",
           "YAML file of these options, 'rank: 16' a line; the command line wins over it"),

    HEADING("The adapter (begin with --targets all --rank 16 without privacy, with it with "
            "--targets v --factor b --rank 4)"),
    GIVEN(TEXT, "rank", o.ranks, "R", "default 8; targets may have their own, as in 8,v=16,o=4"),
    GIVEN(NUMBER, "alpha", o.alpha, "X",
          "default twice the rank (the first, if there are several)"),
    FLAG("rslora", o.rslora,
         "scale by alpha over the root of the rank (rsLoRA), which high ranks like"),
    FLAG("dora", o.dora,
         "train each row's magnitude too (DoRA); there is then a PEFT folder alone, no GGUF"),
    GIVEN(TEXT, "targets", o.targets, "LIST", "all, or some of q,k,v,o,gate,up,down; default q,v"),
    OPTION(NUMBER, "dropout", o.dropout, "P",
           "share of each adapter input that a step leaves out; default 0"),
    GIVEN(COUNT, "first-layer", o.first_layer, "N", "adapt layers from this one on; default 0",
          .most = 10000),
    OPTION(TEXT, "factor", o.factor, "a|b|both",
           "which factor is trained; b alone starts from an orthonormal A; default both"),

    HEADING("The steps (begin with 3 epochs in batches of 16 without privacy, with it with the "
            "largest batch that there is time for)"),
    OPTION(COUNT, "batch", o.batch, "B", "records a step (on average, with privacy); default 16",
           .least = 1, .most = DURE_DP_RECORDS_MAX),
    GIVEN(COUNT, "steps", o.steps, "N", "default 100", .least = 1, .most = DURE_DP_STEPS_MAX),
    GIVEN(NUMBER, "epochs", o.epochs, "X",
          "in place of --steps: passes over the records (over N_PUB, with privacy)"),
    OPTION(NUMBER, "learning-rate", o.learning_rate, "X", "default 0.002"),
    OPTION(TEXT, "schedule", o.schedule, "NAME",
           "of the learning rate: constant, or linear or cosine down to 0; default constant"),
    OPTION(NUMBER, "warmup", o.warmup, "X",
           "steps in which the rate rises from 0, or below 1 a share of the steps; default 0"),
    OPTION(TEXT, "optimizer", o.optimizer, "adamw|sgd", "default adamw"),
    GIVEN(NUMBER, "weight-decay", o.weight_decay, "X", "of adamw; default 0"),
    GIVEN(NUMBER, "momentum", o.momentum, "X", "of sgd; default 0.9"),
    GIVEN(NUMBER, "clip-norm", o.clip_norm, "X",
          "norm of a batch's mean gradient at most, without privacy; default: as it is"),
    OPTION(COUNT, "seed", o.seed, "S",
           "of the first factors and the shuffle, never of noise; default 0"),

    HEADING("Watching it"),
    OPTION(TEXT, "eval", o.eval, "FILE",
           "records to measure the loss on; the adapter with the lowest loss is kept"),
    GIVEN(COUNT, "eval-every", o.eval_every, "N", "steps between; default a tenth of the run",
          .least = 1, .most = DURE_DP_STEPS_MAX),
    GIVEN(COUNT, "patience", o.patience, "N",
          "end after N evaluations without a lower loss; default never", .least = 1,
          .most = DURE_DP_STEPS_MAX),
    FLAG("eval-unprotected", o.eval_unprotected,
         "with privacy: declare that no one in the --eval file wants protection"),
    OPTION(TEXT, "sample-prompt", o.sample_prompt, "TEXT",
           "let the adapter answer this while it is trained"),
    GIVEN(COUNT, "sample-every", o.sample_every, "N", "steps between; default a tenth of the run",
          .least = 1, .most = DURE_DP_STEPS_MAX),
    GIVEN(COUNT, "sample-tokens", o.sample_tokens, "N", "tokens of an answer at most; default 64",
          .least = 1, .most = 1 << 20),
    OPTION(TEXT, "log", o.log, "FILE", "one JSON object a step, for the owner's own eyes"),
    OPTION(TEXT, "tensorboard", o.tensorboard, "DIR",
           "event files for TensorBoard, for the owner's own eyes"),
    FLAG("json", o.json, "one JSON object a step, then a summary"),

    HEADING("Privacy"),
    GIVEN(TEXT, "source", o.source, "NAME", "the data source whose privacy budget pays"),
    GIVEN(COUNT, "records", o.records, "N_PUB",
          "its public number of records (of subjects, with --unit subject)"),
    GIVEN(NUMBER, "epsilon", o.epsilon, "E", "its budget, fixed when the source is first named"),
    GIVEN(NUMBER, "delta", o.delta, "X", "default 1e-5, or 1/(10 N_PUB) if that is smaller"),
    GIVEN(NUMBER, "noise", o.noise, "X",
          "noise multiplier; default: the least that the budget allows"),
    GIVEN(NUMBER, "clip", o.clip, "C", "norm of one record's gradient at most; default 1"),
    GIVEN(NUMBER, "clip-quantile", o.clip_quantile, "P",
          "let the clip follow this quantile of the norms, as in 0.5, from --clip on; the budget "
          "pays for it"),
    GIVEN(NUMBER, "clip-rate", o.clip_rate, "X",
          "how fast: a step changes the clip by e^X at most; default 0.2"),
    GIVEN(NUMBER, "clip-noise", o.clip_noise, "X",
          "noise multiplier of the count that it follows; default B/10, and 5 at least"),
    GIVEN(TEXT, "unit", o.unit, "record|subject",
          "what is protected: one record, or one subject with all its records, which name it in "
          "\"subject\"; --records and --batch then count subjects; default record"),
    GIVEN(COUNT, "per-subject", o.per_subject, "K",
          "records that a chosen subject gives a step at most, in turn; default 8", .least = 1,
          .most = DURE_PER_SUBJECT_MAX),
    OPTION(TEXT, "ledger", o.ledger, "FILE",
           "the owner's privacy ledger; default $DURE_LEDGER, else the owner's own"),
    FLAG("no-dp", o.no_dp, "train without differential privacy"),

    HEADING("Running (--dry-run says what time and memory it takes, docs/training.md why)"),
    FLAG("dry-run", o.dry_run,
         "say what would be done, in what time, memory and privacy, and do nothing"),
    OPTION(COUNT, "threads", o.threads, "N", "default: the physical cores",
           .most = DURE_POOL_MAX_THREADS),
    OPTION(TEXT, "device", o.device, "D",
           "cpu, cuda, cuda:1 (the second GPU), or auto; default cpu"),
    OPTION(COUNT, "memory", o.memory, "MB",
           "stay within so many megabytes, at the price of time; default: what the machine has, or "
           "with --device cuda the GPU"),
    FLAG("profile", o.profile, "say where the time went"),
    OPTION(COUNT, "save-every", o.save_every, "N",
           "steps between saved states; default: one about every 30 seconds"),
};

static const dure_usage usage = {
    "train",
    "fine-tunes an adapter on local records with differential privacy, or without it (--no-dp). "
    "The adapter may be given away under the budget; the loss on screen may not. A run that is "
    "killed goes on when the same command is given again",
    args, N_ARGS(args),
    "dure train --model M.gguf --data orders.jsonl --source orders --records 10000 \\\n"
    "      --epsilon 8 --batch 128 --steps 100 --out orders-adapter\n"
    "  dure train --model M.gguf --data orders.csv --no-dp --targets all --rank 16 --epochs 3 \\\n"
    "      --schedule cosine --warmup 0.05 --eval held-out.csv --patience 3 --out orders-adapter"};

static void set_defaults(void)
{
    o = (dure_train_options){.format = "auto",
                             .targets = "q,v",
                             .factor = "both",
                             .optimizer = "adamw",
                             .schedule = "constant",
                             .ranks = "8",
                             .batch = 16,
                             .steps = 100,
                             .max_length = 512,
                             .learning_rate = 0.002,
                             .momentum = 0.9,
                             .sample_tokens = 64,
                             .clip = 1,
                             .clip_rate = 0.2,
                             .unit = "record",
                             .per_subject = DURE_PER_SUBJECT,
                             .delta = 1e-5};
}

static bool one_of(const char *text, const char *const *names)
{
    for (; *names; names++)
        if (!strcmp(text, *names)) return true;
    return false;
}

static int check_names(void)
{
    dure_diag diag = {{0}};
    if (!one_of(o.optimizer, (const char *const[]){"adamw", "sgd", NULL}))
        return dure_args_refuse(&usage, "--optimizer must be adamw or sgd, not '%s'", o.optimizer);
    if (!one_of(o.schedule, (const char *const[]){"constant", "linear", "cosine", NULL}))
        return dure_args_refuse(&usage, "--schedule must be constant, linear or cosine, not '%s'",
                                o.schedule);
    if (dure_lora_factor_parse(&o.factors, o.factor, &diag))
        return dure_args_refuse(&usage, "%s", diag.text);
    bool sgd = !strcmp(o.optimizer, "sgd");
    if (sgd && o.weight_decay_given)
        return dure_args_refuse(&usage, "--weight-decay is of --optimizer adamw alone");
    if (!sgd && o.momentum_given)
        return dure_args_refuse(&usage, "--momentum is of --optimizer sgd alone");
    return 0;
}

static int check_adapter_args(void)
{
    if (o.alpha_given && !(o.alpha > 0)) return dure_args_refuse(&usage, "--alpha must be above 0");
    if (o.factors == DURE_LORA_FACTOR_A && !o.init)
        return dure_args_refuse(&usage, "--factor a needs --init: B starts at zero, and with B "
                                        "at zero nothing reaches A");
    if (o.init &&
        (o.ranks_given || o.alpha_given || o.targets_given || o.first_layer_given || o.rslora))
        return dure_args_refuse(&usage, "--init brings its own rank, alpha, targets and layers");
    if (o.any_base && !o.init) return dure_args_refuse(&usage, "--any-base is about --init");
    return 0;
}

static int check_step_args(void)
{
    if (o.memory > DURE_POLICY_MEMORY_MB_MAX)
        return dure_args_refuse(&usage, "--memory is in MB, at most %u", DURE_POLICY_MEMORY_MB_MAX);
    if (o.steps_given && o.epochs_given)
        return dure_args_refuse(&usage, "--steps and --epochs exclude each other");
    if (o.epochs_given && !(o.epochs > 0))
        return dure_args_refuse(&usage, "--epochs must be above 0");
    if (!(o.warmup >= 0) || (o.warmup >= 1 && o.warmup != floor(o.warmup)))
        return dure_args_refuse(&usage, "--warmup must be a whole number of steps, or a share of "
                                        "them below 1");
    if (o.clip_norm_given && !(o.clip_norm > 0))
        return dure_args_refuse(&usage, "--clip-norm must be above 0");
    return 0;
}

static int check_device_args(void)
{
    dure_device_choice device;
    int status = dure_device_check(&device, o.device, &usage);
    if (status) return status;
    return 0;
}

static int check_watch_args(void)
{
    if (!o.eval && (o.eval_every_given || o.patience_given || o.eval_unprotected))
        return dure_args_refuse(&usage, "--eval-every, --patience and --eval-unprotected are about "
                                        "--eval");
    if (!o.sample_prompt && (o.sample_every_given || o.sample_tokens_given))
        return dure_args_refuse(&usage, "--sample-every and --sample-tokens are about "
                                        "--sample-prompt");
    return 0;
}

static int check_adaptive_args(void)
{
    dure_diag diag = {0};
    if (!o.clip_quantile_given && (o.clip_rate_given || o.clip_noise_given))
        return dure_args_refuse(&usage, "--clip-rate and --clip-noise are about --clip-quantile");
    if (!o.clip_quantile_given) return 0;
    double noise = o.clip_noise_given ? o.clip_noise : dure_dp_adaptive_usual_sigma(o.batch);
    if (dure_dp_adaptive_set(&o.adaptive, noise, o.clip_quantile, o.clip_rate, &diag))
        return dure_args_refuse(&usage, "%s", diag.text);
    return 0;
}

static int check_privacy_args(void)
{
    if (o.no_dp) {
        if (o.source_given || o.records_given || o.epsilon_given || o.delta_given ||
            o.noise_given || o.clip_given || o.eval_unprotected || o.unit_given ||
            o.per_subject_given || o.clip_quantile_given || o.clip_rate_given || o.clip_noise_given)
            return dure_args_refuse(&usage, "--no-dp and what belongs to a privacy budget exclude "
                                            "each other");
        return 0;
    }
    if (!o.source_given || !o.records_given || !o.epsilon_given)
        return dure_args_refuse(&usage, "give --source, --records and --epsilon for private "
                                        "training, or --no-dp to train without privacy");
    bool subject = !strcmp(o.unit, "subject");
    if (!subject && strcmp(o.unit, "record") != 0)
        return dure_args_refuse(&usage, "--unit must be record or subject, not '%s'", o.unit);
    if (o.per_subject_given && !subject)
        return dure_args_refuse(&usage, "--per-subject is for --unit subject");
    if (o.noise_given && !(o.noise > 0)) return dure_args_refuse(&usage, "--noise must be above 0");
    if (o.clip_norm_given)
        return dure_args_refuse(&usage, "--clip-norm is for training without privacy; with it, "
                                        "--clip bounds every record's gradient");
    if (o.eval && !o.eval_unprotected)
        return dure_args_refuse(
            &usage, "which adapter is kept tells something about the records of --eval; with "
                    "privacy give a file of records that need none, and say so with "
                    "--eval-unprotected");
    if (!o.delta_given && o.records && o.delta > 0.1 / (double)o.records)
        o.delta = 0.1 / (double)o.records;
    return check_adaptive_args();
}

int dure_train_options_parse(const dure_train_options **out, int argc, char **argv)
{
    set_defaults();
    *out = &o;
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed;
    int status = check_names();
    if (!status) status = check_adapter_args();
    if (!status) status = check_step_args();
    if (!status) status = check_device_args();
    if (!status) status = check_watch_args();
    if (!status) status = check_privacy_args();
    return status ? status : DURE_ARGS_RUN;
}

void dure_train_options_fini(void)
{
    dure_args_config_fini(&o.config);
}

dure_err dure_train_options_steps(uint64_t *steps, dure_schedule *schedule,
                                  const dure_train_options *opts, uint64_t n_records,
                                  dure_diag *diag)
{
    *steps = opts->steps;
    if (opts->epochs_given) {
        double n = ceil(opts->epochs * (double)n_records / (double)opts->batch);
        if (n > DURE_DP_STEPS_MAX)
            return dure_diag_set(diag, DURE_ERR_USAGE, "--epochs %g makes more than %u steps",
                                 opts->epochs, DURE_DP_STEPS_MAX);
        *steps = (uint64_t)n;
    }
    double warmup = opts->warmup < 1 ? floor(opts->warmup * (double)*steps) : opts->warmup;
    *schedule = (dure_schedule){.steps = *steps};
    if (!strcmp(opts->schedule, "linear")) schedule->kind = DURE_SCHEDULE_LINEAR;
    if (!strcmp(opts->schedule, "cosine")) schedule->kind = DURE_SCHEDULE_COSINE;
    if (warmup >= (double)*steps)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "--warmup %g is not shorter than the run of %llu steps", opts->warmup,
                             (unsigned long long)*steps);
    schedule->warmup_steps = (uint64_t)warmup;
    return DURE_OK;
}

uint64_t dure_train_options_every(uint64_t given, uint64_t steps)
{
    return given ? given : (steps + 9) / 10;
}

dure_trainer_opts dure_train_options_trainer(const dure_train_options *opts)
{
    bool sgd = !strcmp(opts->optimizer, "sgd");
    return (dure_trainer_opts){.factors = opts->factors,
                               .optimizer = sgd ? DURE_TRAINER_SGD : DURE_TRAINER_ADAMW,
                               .learning_rate = opts->learning_rate,
                               .weight_decay = opts->weight_decay,
                               .momentum = sgd ? opts->momentum : 0,
                               .batch = opts->batch,
                               .seed = opts->seed,
                               .clip_norm = opts->clip_norm,
                               .per_subject =
                                   strcmp(opts->unit, "subject") ? 0 : (uint32_t)opts->per_subject,
                               .dropout = opts->dropout};
}
