#include "cli/train_options.h"

#include "cli/device.h"
#include "dp/plan.h"
#include "kernels/threads.h"

#include <math.h>
#include <string.h>

enum { MEMORY_MAX_MB = 1 << 30 };

static dure_train_options o;

#define HEADING(text) {.name = text, .kind = DURE_ARG_HEADING}
/* An option that takes a value, and one that also says whether it was given. */
#define OPTION(option, type, member, shown, words)                                                 \
    {.name = option, .kind = DURE_ARG_##type, .out = &o.member, .value = shown, .help = words}
#define GIVEN(option, type, member, flag, shown, words)                                            \
    {.name = option,                                                                               \
     .kind = DURE_ARG_##type,                                                                      \
     .out = &o.member,                                                                             \
     .given = &o.flag,                                                                             \
     .value = shown,                                                                               \
     .help = words}
#define REQUIRED(option, member, shown, words)                                                     \
    {.name = option,                                                                               \
     .kind = DURE_ARG_TEXT,                                                                        \
     .out = &o.member,                                                                             \
     .value = shown,                                                                               \
     .help = words,                                                                                \
     .required = true}

static const dure_arg args[] = {
    HEADING("What to train"),
    REQUIRED("model", model, "FILE", "the base model, GGUF"),
    REQUIRED("data", data, "FILE", "records to train on: JSONL, JSON, CSV, TSV or plain text"),
    REQUIRED("out", out, "DIR", "where the adapter goes: adapter.gguf and a PEFT folder"),
    OPTION("format", TEXT, format, "NAME",
           "of --data and --eval: jsonl, json, csv, tsv or text; default by the file's name"),
    OPTION(
        "chat-template", TEXT, chat_template, "NAME",
        "how conversations are written: chatml, llama3.1, gemma3, ...; default: as the model says"),
    OPTION("max-length", COUNT, max_length, "N", "tokens a record; default 512"),
    OPTION("init", TEXT, init, "PATH",
           "start from this adapter, a GGUF file or PEFT folder (its rank, alpha, targets hold)"),
    OPTION("any-base", FLAG, any_base, NULL,
           "accept an adapter that was made for another file of the base"),
    OPTION("config", CONFIG, config, "FILE",
           "YAML file of these options, 'rank: 16' a line; the command line wins over it"),

    HEADING("The adapter (begin with --targets all --rank 16 without privacy, with it with "
            "--targets v --factor b --rank 4)"),
    GIVEN("rank", TEXT, ranks, rank_given, "R",
          "default 8; targets may have their own, as in 8,v=16,o=4"),
    GIVEN("alpha", NUMBER, alpha, alpha_given, "X",
          "default twice the rank (the first, if there are several)"),
    OPTION("rslora", FLAG, rslora, NULL,
           "scale by alpha over the root of the rank (rsLoRA), which high ranks like"),
    OPTION("dora", FLAG, dora, NULL,
           "train each row's magnitude too (DoRA); there is then a PEFT folder alone, no GGUF"),
    GIVEN("targets", TEXT, targets, targets_given, "LIST",
          "all, or some of q,k,v,o,gate,up,down; default q,v"),
    OPTION("dropout", NUMBER, dropout, "P",
           "share of each adapter input that a step leaves out; default 0"),
    GIVEN("first-layer", COUNT, first_layer, first_given, "N",
          "adapt layers from this one on; default 0"),
    OPTION("factor", TEXT, factor, "a|b|both",
           "which factor is trained; b alone starts from an orthonormal A; default both"),

    HEADING("The steps (begin with 3 epochs in batches of 16 without privacy, with it with the "
            "largest batch that there is time for)"),
    OPTION("batch", COUNT, batch, "B", "records a step (on average, with privacy); default 16"),
    GIVEN("steps", COUNT, steps, steps_given, "N", "default 100"),
    GIVEN("epochs", NUMBER, epochs, epochs_given, "X",
          "in place of --steps: passes over the records (over N_PUB, with privacy)"),
    OPTION("learning-rate", NUMBER, learning_rate, "X", "default 0.002"),
    OPTION("schedule", TEXT, schedule, "NAME",
           "of the learning rate: constant, or linear or cosine down to 0; default constant"),
    OPTION("warmup", NUMBER, warmup, "X",
           "steps in which the rate rises from 0, or below 1 a share of the steps; default 0"),
    OPTION("optimizer", TEXT, optimizer, "adamw|sgd", "default adamw"),
    GIVEN("weight-decay", NUMBER, weight_decay, decay_given, "X", "of adamw; default 0"),
    GIVEN("momentum", NUMBER, momentum, momentum_given, "X", "of sgd; default 0.9"),
    GIVEN("clip-norm", NUMBER, clip_norm, clip_norm_given, "X",
          "norm of a batch's mean gradient at most, without privacy; default: as it is"),
    OPTION("seed", COUNT, seed, "S",
           "of the first factors and the shuffle, never of noise; default 0"),

    HEADING("Watching it"),
    OPTION("eval", TEXT, eval, "FILE",
           "records to measure the loss on; the adapter with the lowest loss is kept"),
    GIVEN("eval-every", COUNT, eval_every, eval_every_given, "N",
          "steps between; default a tenth of the run"),
    GIVEN("patience", COUNT, patience, patience_given, "N",
          "end after N evaluations without a lower loss; default never"),
    OPTION("eval-unprotected", FLAG, eval_unprotected, NULL,
           "with privacy: declare that no one in the --eval file wants protection"),
    OPTION("sample-prompt", TEXT, sample_prompt, "TEXT",
           "let the adapter answer this while it is trained"),
    GIVEN("sample-every", COUNT, sample_every, sample_every_given, "N",
          "steps between; default a tenth of the run"),
    GIVEN("sample-tokens", COUNT, sample_tokens, sample_tokens_given, "N",
          "tokens of an answer at most; default 64"),
    OPTION("log", TEXT, log, "FILE", "one JSON object a step, for the owner's own eyes"),
    OPTION("tensorboard", TEXT, tensorboard, "DIR",
           "event files for TensorBoard, for the owner's own eyes"),
    OPTION("json", FLAG, json, NULL, "one JSON object a step, then a summary"),

    HEADING("Privacy"),
    GIVEN("source", TEXT, source, source_given, "NAME",
          "the data source whose privacy budget pays"),
    GIVEN("records", COUNT, records, records_given, "N_PUB",
          "its public number of records (of subjects, with --unit subject)"),
    GIVEN("epsilon", NUMBER, epsilon, epsilon_given, "E",
          "its budget, fixed when the source is first named"),
    GIVEN("delta", NUMBER, delta, delta_given, "X",
          "default 1e-5, or 1/(10 N_PUB) if that is smaller"),
    GIVEN("noise", NUMBER, noise, noise_given, "X",
          "noise multiplier; default: the least that the budget allows"),
    GIVEN("clip", NUMBER, clip, clip_given, "C",
          "norm of one record's gradient at most; default 1"),
    GIVEN("clip-quantile", NUMBER, clip_quantile, quantile_given, "P",
          "let the clip follow this quantile of the norms, as in 0.5, from --clip on; the budget "
          "pays for it"),
    GIVEN("clip-rate", NUMBER, clip_rate, clip_rate_given, "X",
          "how fast: a step changes the clip by e^X at most; default 0.2"),
    GIVEN("clip-noise", NUMBER, clip_noise, clip_noise_given, "X",
          "noise multiplier of the count that it follows; default B/10, and 5 at least"),
    GIVEN("unit", TEXT, unit, unit_given, "record|subject",
          "what is protected: one record, or one subject with all its records, which name it in "
          "\"subject\"; --records and --batch then count subjects; default record"),
    GIVEN("per-subject", COUNT, per_subject, per_subject_given, "K",
          "records that a chosen subject gives a step at most, in turn; default 8"),
    OPTION("ledger", TEXT, ledger, "FILE",
           "the owner's privacy ledger; default $DURE_LEDGER, else the owner's own"),
    OPTION("no-dp", FLAG, no_dp, NULL, "train without differential privacy"),

    HEADING("Running (--dry-run says what time and memory it takes, docs/training.md why)"),
    OPTION("dry-run", FLAG, dry_run, NULL,
           "say what would be done, in what time, memory and privacy, and do nothing"),
    OPTION("threads", COUNT, threads, "N", "default: the physical cores"),
    OPTION("device", TEXT, device, "D", "cpu, cuda, cuda:1 (the second GPU), or auto; default cpu"),
    OPTION("memory", COUNT, memory, "MB",
           "stay within so many megabytes, at the price of time; default: what the machine has, or "
           "with --device cuda the GPU"),
    OPTION("profile", FLAG, profile, NULL, "say where the time went"),
    OPTION("save-every", COUNT, save_every, "N",
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
    if (!one_of(o.optimizer, (const char *const[]){"adamw", "sgd", NULL}))
        return dure_args_refuse(&usage, "--optimizer must be adamw or sgd, not '%s'", o.optimizer);
    if (!one_of(o.schedule, (const char *const[]){"constant", "linear", "cosine", NULL}))
        return dure_args_refuse(&usage, "--schedule must be constant, linear or cosine, not '%s'",
                                o.schedule);
    if (!one_of(o.factor, (const char *const[]){"a", "b", "both", NULL}))
        return dure_args_refuse(&usage, "--factor must be a, b or both, not '%s'", o.factor);
    bool sgd = !strcmp(o.optimizer, "sgd");
    if (sgd && o.decay_given)
        return dure_args_refuse(&usage, "--weight-decay is of --optimizer adamw alone");
    if (!sgd && o.momentum_given)
        return dure_args_refuse(&usage, "--momentum is of --optimizer sgd alone");
    return 0;
}

static int check_adapter_args(void)
{
    if (o.first_layer > 10000) return dure_args_refuse(&usage, "--first-layer is too large");
    if (o.alpha_given && !(o.alpha > 0)) return dure_args_refuse(&usage, "--alpha must be above 0");
    if (!strcmp(o.factor, "a") && !o.init)
        return dure_args_refuse(&usage, "--factor a needs --init: B starts at zero, and with B "
                                        "at zero nothing reaches A");
    if (o.init && (o.rank_given || o.alpha_given || o.targets_given || o.first_given || o.rslora))
        return dure_args_refuse(&usage, "--init brings its own rank, alpha, targets and layers");
    if (o.any_base && !o.init) return dure_args_refuse(&usage, "--any-base is about --init");
    return 0;
}

static int check_step_args(void)
{
    if (o.threads > DURE_POOL_MAX_THREADS)
        return dure_args_refuse(&usage, "--threads must be at most %d", DURE_POOL_MAX_THREADS);
    if (o.memory > MEMORY_MAX_MB)
        return dure_args_refuse(&usage, "--memory is in MB, at most %d", MEMORY_MAX_MB);
    if (o.max_length < 2 || o.max_length > 1u << 20)
        return dure_args_refuse(&usage, "--max-length must be 2 to %u", 1u << 20);
    if (o.batch == 0) return dure_args_refuse(&usage, "--batch must be at least 1");
    if (o.steps_given && o.epochs_given)
        return dure_args_refuse(&usage, "--steps and --epochs exclude each other");
    if (o.steps == 0 || o.steps > DURE_DP_STEPS_MAX)
        return dure_args_refuse(&usage, "--steps must be 1 to %u", DURE_DP_STEPS_MAX);
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
    if ((o.eval_every_given && !o.eval_every) || (o.sample_every_given && !o.sample_every))
        return dure_args_refuse(&usage, "--eval-every and --sample-every must be at least 1");
    if (o.patience_given && !o.patience)
        return dure_args_refuse(&usage, "--patience must be at least 1");
    if (o.sample_tokens == 0 || o.sample_tokens > 1u << 20)
        return dure_args_refuse(&usage, "--sample-tokens must be 1 to %u", 1u << 20);
    return 0;
}

static int check_adaptive_args(void)
{
    dure_diag diag = {0};
    if (!o.quantile_given && (o.clip_rate_given || o.clip_noise_given))
        return dure_args_refuse(&usage, "--clip-rate and --clip-noise are about --clip-quantile");
    if (!o.quantile_given) return 0;
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
            o.per_subject_given || o.quantile_given || o.clip_rate_given || o.clip_noise_given)
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
    if (o.per_subject_given && (!subject || o.per_subject == 0 || o.per_subject > 1000000))
        return dure_args_refuse(&usage, "--per-subject, 1 to 1000000, is for --unit subject");
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
    int status = parsed == DURE_ARGS_RUN ? 0 : parsed == DURE_ARGS_HELP ? -2 : 2;
    if (!status) status = check_names();
    if (!status) status = check_adapter_args();
    if (!status) status = check_step_args();
    if (!status) status = check_device_args();
    if (!status) status = check_watch_args();
    if (!status) status = check_privacy_args();
    return status == 0 ? -1 : status == -2 ? 0 : status;
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
    dure_lora_factor factors = !strcmp(opts->factor, "a")   ? DURE_LORA_FACTOR_A
                               : !strcmp(opts->factor, "b") ? DURE_LORA_FACTOR_B
                                                            : DURE_LORA_FACTOR_BOTH;
    return (dure_trainer_opts){.factors = factors,
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
