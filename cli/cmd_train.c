/* dure train: fine-tune an adapter on local records, with differential privacy or without. */
#include "cli/args.h"
#include "cli/commands.h"
#include "cli/model_open.h"
#include "cli/output.h"
#include "client/private_run.h"
#include "client/trainer.h"
#include "common/clock.h"
#include "common/file.h"
#include "kernels/threads.h"
#include "model/base_digest.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* How often the state of a run is saved, so that a killed one loses no more than this. */
#define SAVE_EVERY_S 30.0

/* The command line; one process runs one command. */
static struct {
    const char *model, *data, *out, *adapter, *targets, *factor, *optimizer, *source, *ledger;
    uint64_t rank, first_layer, batch, steps, seed, threads, max_length, records;
    double alpha, learning_rate, weight_decay, momentum, epsilon, delta, clip, noise;
    bool alpha_given, rank_given, targets_given, first_given, delta_given, noise_given;
    bool source_given, records_given, epsilon_given, any_base, no_dp, json;
} o;

static const dure_arg args[] = {
    {.name = "model",
     .kind = DURE_ARG_TEXT,
     .out = &o.model,
     .value = "FILE",
     .help = "the base model, GGUF",
     .required = true},
    {.name = "data",
     .kind = DURE_ARG_TEXT,
     .out = &o.data,
     .value = "FILE",
     .help = "records to train on, JSONL",
     .required = true},
    {.name = "out",
     .kind = DURE_ARG_TEXT,
     .out = &o.out,
     .value = "DIR",
     .help = "where the adapter goes: adapter.gguf and a PEFT folder",
     .required = true},
    {.name = "adapter",
     .kind = DURE_ARG_TEXT,
     .out = &o.adapter,
     .value = "FILE",
     .help = "start from this adapter (its rank, alpha and targets hold)"},
    {.name = "any-base",
     .kind = DURE_ARG_FLAG,
     .out = &o.any_base,
     .help = "accept an adapter that was made for another file of the base"},
    {.name = "rank",
     .kind = DURE_ARG_COUNT,
     .out = &o.rank,
     .given = &o.rank_given,
     .value = "R",
     .help = "default 8"},
    {.name = "alpha",
     .kind = DURE_ARG_NUMBER,
     .out = &o.alpha,
     .given = &o.alpha_given,
     .value = "X",
     .help = "default twice the rank"},
    {.name = "targets",
     .kind = DURE_ARG_TEXT,
     .out = &o.targets,
     .given = &o.targets_given,
     .value = "LIST",
     .help = "all, or some of q,k,v,o,gate,up,down; default q,v"},
    {.name = "first-layer",
     .kind = DURE_ARG_COUNT,
     .out = &o.first_layer,
     .given = &o.first_given,
     .value = "N",
     .help = "adapt layers from this one on; default 0"},
    {.name = "factor",
     .kind = DURE_ARG_TEXT,
     .out = &o.factor,
     .value = "a|b|both",
     .help = "which factor is trained; b alone starts from an orthonormal A; default both"},
    {.name = "batch",
     .kind = DURE_ARG_COUNT,
     .out = &o.batch,
     .value = "B",
     .help = "records a step (on average, with privacy); default 16"},
    {.name = "steps", .kind = DURE_ARG_COUNT, .out = &o.steps, .value = "N", .help = "default 100"},
    {.name = "learning-rate",
     .kind = DURE_ARG_NUMBER,
     .out = &o.learning_rate,
     .value = "X",
     .help = "default 0.002"},
    {.name = "optimizer",
     .kind = DURE_ARG_TEXT,
     .out = &o.optimizer,
     .value = "adamw|sgd",
     .help = "default adamw"},
    {.name = "weight-decay",
     .kind = DURE_ARG_NUMBER,
     .out = &o.weight_decay,
     .value = "X",
     .help = "of adamw; default 0"},
    {.name = "momentum",
     .kind = DURE_ARG_NUMBER,
     .out = &o.momentum,
     .value = "X",
     .help = "of sgd; default 0.9"},
    {.name = "seed",
     .kind = DURE_ARG_COUNT,
     .out = &o.seed,
     .value = "S",
     .help = "of the first factors and the shuffle, never of noise; default 0"},
    {.name = "threads",
     .kind = DURE_ARG_COUNT,
     .out = &o.threads,
     .value = "N",
     .help = "default: the physical cores"},
    {.name = "max-length",
     .kind = DURE_ARG_COUNT,
     .out = &o.max_length,
     .value = "N",
     .help = "tokens a record; default 512"},
    {.name = "source",
     .kind = DURE_ARG_TEXT,
     .out = &o.source,
     .given = &o.source_given,
     .value = "NAME",
     .help = "the data source whose privacy budget pays"},
    {.name = "records",
     .kind = DURE_ARG_COUNT,
     .out = &o.records,
     .given = &o.records_given,
     .value = "N_PUB",
     .help = "its public number of records"},
    {.name = "epsilon",
     .kind = DURE_ARG_NUMBER,
     .out = &o.epsilon,
     .given = &o.epsilon_given,
     .value = "E",
     .help = "its budget, fixed when the source is first named"},
    {.name = "delta",
     .kind = DURE_ARG_NUMBER,
     .out = &o.delta,
     .given = &o.delta_given,
     .value = "X",
     .help = "default 1e-5, or 1/(10 N_PUB) if that is smaller"},
    {.name = "noise",
     .kind = DURE_ARG_NUMBER,
     .out = &o.noise,
     .given = &o.noise_given,
     .value = "X",
     .help = "noise multiplier; default: the least that the budget allows"},
    {.name = "clip",
     .kind = DURE_ARG_NUMBER,
     .out = &o.clip,
     .value = "C",
     .help = "norm of one record's gradient at most; default 1"},
    {.name = "ledger",
     .kind = DURE_ARG_TEXT,
     .out = &o.ledger,
     .value = "FILE",
     .help = "the owner's privacy ledger; default $DURE_LEDGER, else the owner's own"},
    {.name = "no-dp",
     .kind = DURE_ARG_FLAG,
     .out = &o.no_dp,
     .help = "train without differential privacy"},
    {.name = "json",
     .kind = DURE_ARG_FLAG,
     .out = &o.json,
     .help = "one JSON object a step, then a summary"},
};

static const dure_usage usage = {
    "train",
    "fine-tunes an adapter on local records with differential privacy, or without it (--no-dp). "
    "The adapter may be given away under the budget; the loss on screen may not",
    args, sizeof args / sizeof args[0],
    "dure train --model M.gguf --data orders.jsonl --source orders --records 10000 \\\n"
    "      --epsilon 8 --batch 128 --steps 100 --out orders-adapter"};

/* Everything that one run holds. */
typedef struct training {
    dure_open_model m;
    dure_dataset data;
    dure_lora *lora;
    dure_trainer_opts opts;
    dure_hash data_hash, subject;
    dure_private_run private_run;
    dure_trainer *trainer;
    dure_lock lock;
    char *run_folder, *key_path, *state_path, *lock_path, *adapter_path;
    dure_progress progress;
    double saved_at_s, train_seconds;
    uint64_t tokens;
    bool made_out; /* the folder was not there before */
    dure_diag diag;
} training;

/* --- the command line --- */

static void set_defaults(void)
{
    memset(&o, 0, sizeof o);
    o.targets = "q,v";
    o.factor = "both";
    o.optimizer = "adamw";
    o.rank = 8;
    o.batch = 16;
    o.steps = 100;
    o.max_length = 512;
    o.learning_rate = 0.002;
    o.momentum = 0.9;
    o.clip = 1;
    o.delta = 1e-5;
}

static int check_privacy_args(void)
{
    if (o.no_dp) {
        if (o.source_given || o.records_given || o.epsilon_given || o.delta_given || o.noise_given)
            return dure_args_refuse(&usage, "--no-dp and a privacy budget exclude each other");
        return 0;
    }
    if (!o.source_given || !o.records_given || !o.epsilon_given)
        return dure_args_refuse(&usage, "give --source, --records and --epsilon for private "
                                        "training, or --no-dp to train without privacy");
    if (o.noise_given && !(o.noise > 0)) return dure_args_refuse(&usage, "--noise must be above 0");
    if (!o.delta_given && o.records && o.delta > 0.1 / (double)o.records)
        o.delta = 0.1 / (double)o.records;
    return 0;
}

static int check_args(void)
{
    if (o.threads > DURE_POOL_MAX_THREADS)
        return dure_args_refuse(&usage, "--threads must be at most %d", DURE_POOL_MAX_THREADS);
    if (o.rank == 0 || o.rank > 256) return dure_args_refuse(&usage, "--rank must be 1 to 256");
    if (o.steps == 0 || o.steps > DURE_DP_STEPS_MAX)
        return dure_args_refuse(&usage, "--steps must be 1 to %u", DURE_DP_STEPS_MAX);
    if (o.max_length < 2 || o.max_length > 1u << 20)
        return dure_args_refuse(&usage, "--max-length must be 2 to %u", 1u << 20);
    if (o.first_layer > 10000) return dure_args_refuse(&usage, "--first-layer is too large");
    if (o.alpha_given && !(o.alpha > 0)) return dure_args_refuse(&usage, "--alpha must be above 0");
    if (strcmp(o.optimizer, "adamw") != 0 && strcmp(o.optimizer, "sgd") != 0)
        return dure_args_refuse(&usage, "--optimizer must be adamw or sgd, not '%s'", o.optimizer);
    if (strcmp(o.factor, "a") != 0 && strcmp(o.factor, "b") != 0 && strcmp(o.factor, "both") != 0)
        return dure_args_refuse(&usage, "--factor must be a, b or both, not '%s'", o.factor);
    if (!strcmp(o.factor, "a") && !o.adapter)
        return dure_args_refuse(&usage, "--factor a needs --adapter: B starts at zero, and with B "
                                        "at zero nothing reaches A");
    if (o.adapter && (o.rank_given || o.alpha_given || o.targets_given || o.first_given))
        return dure_args_refuse(&usage, "--adapter brings its own rank, alpha, targets and layers");
    return check_privacy_args();
}

/* --- opening --- */

static dure_err make_paths(training *t)
{
    t->made_out = !dure_file_exists(o.out);
    dure_err err = dure_dir_make(o.out, &t->diag);
    if (err) return err;
    t->run_folder = dure_path_join(o.out, "unfinished");
    t->adapter_path = dure_path_join(o.out, "adapter.gguf");
    if (!t->run_folder || !t->adapter_path) return DURE_ERR_NOMEM;
    t->key_path = dure_path_join(t->run_folder, "key");
    t->state_path = dure_path_join(t->run_folder, "state");
    t->lock_path = dure_path_join(t->run_folder, "lock");
    if (!t->key_path || !t->state_path || !t->lock_path) return DURE_ERR_NOMEM;
    if (dure_file_exists(t->adapter_path) && !dure_file_exists(t->run_folder))
        return dure_diag_set(&t->diag, DURE_ERR_EXISTS,
                             "%s holds an adapter already; choose another --out", o.out);
    err = dure_dir_make(t->run_folder, &t->diag);
    if (!err) err = dure_lock_acquire(&t->lock, t->lock_path, &t->diag);
    return err;
}

static dure_err make_lora(training *t)
{
    if (o.adapter) {
        t->lora = t->m.lora;
        t->m.lora = NULL;
        return DURE_OK;
    }
    dure_lora_layout layout = {.shape = *dure_transformer_shape(t->m.transformer),
                               .rank = (uint32_t)o.rank,
                               .alpha = o.alpha_given ? (float)o.alpha : 2 * (float)o.rank,
                               .first_layer = (uint32_t)o.first_layer};
    dure_err err = dure_lora_targets_parse(&layout.targets, o.targets, &t->diag);
    if (!err) err = dure_lora_layout_check(&layout, &t->diag);
    if (!err) err = dure_lora_new(&t->lora, &layout);
    if (err) return err;
    if (t->opts.factors == DURE_LORA_FACTOR_B)
        dure_lora_init_orthonormal(t->lora, o.seed);
    else
        dure_lora_init_uniform(t->lora, o.seed);
    return DURE_OK;
}

static dure_err open_all(training *t)
{
    const dure_open_opts open = {.model = o.model,
                                 .adapter = o.adapter,
                                 .any_base = o.any_base,
                                 .threads = (uint32_t)o.threads};
    dure_err err = dure_open_model_init(&t->m, &open, &t->diag);
    if (err) return err;
    uint32_t context = dure_transformer_shape(t->m.transformer)->n_context;
    const dure_dataset_opts read = {.max_length =
                                        o.max_length < context ? (uint32_t)o.max_length : context,
                                    .tolerant = !o.no_dp};
    err = dure_dataset_read(&t->data, o.data, t->m.tokenizer, &t->m.chat, &read, &t->diag);
    if (err) return err;
    t->opts = (dure_trainer_opts){.factors = !strcmp(o.factor, "a")   ? DURE_LORA_FACTOR_A
                                             : !strcmp(o.factor, "b") ? DURE_LORA_FACTOR_B
                                                                      : DURE_LORA_FACTOR_BOTH,
                                  .optimizer = !strcmp(o.optimizer, "sgd") ? DURE_TRAINER_SGD
                                                                           : DURE_TRAINER_ADAMW,
                                  .learning_rate = o.learning_rate,
                                  .weight_decay = o.weight_decay,
                                  .momentum = !strcmp(o.optimizer, "sgd") ? o.momentum : 0,
                                  .batch = o.batch,
                                  .seed = o.seed};
    return make_lora(t);
}

/* A saved state goes on with this base and these records alone. */
static dure_err bind_subject(training *t, const dure_hash *base)
{
    const dure_span fields[] = {dure_hash_span(base), dure_hash_span(&t->data_hash)};
    t->opts.subject = &t->subject;
    return dure_hash_labeled(&t->subject, "dure/train/subject/1", fields, 2);
}

/* One bad record never stops a private run, but a file without a single good one is a slip, and
 * training on it would spend the budget for nothing. The owner alone sees this sentence. */
static dure_err check_usable(training *t)
{
    for (size_t i = 0; i < t->data.n; i++)
        if (t->data.records[i].n_labels > 0) return DURE_OK;
    return dure_diag_set(&t->diag, DURE_ERR_FORMAT,
                         "%s: none of its %zu records leaves a response to learn from within %llu "
                         "tokens; 'dure data check' says why, line by line",
                         o.data, t->data.n, (unsigned long long)o.max_length);
}

/* Reserves the whole plan, before anything is sampled or drawn. */
static dure_err prepare_privacy(training *t, const dure_hash *base)
{
    char purpose[DURE_PURPOSE_SIZE];
    snprintf(purpose, sizeof purpose, "dure train --out %.200s", o.out);
    const dure_private_run_opts opts = {.key_path = t->key_path,
                                        .ledger_path = o.ledger,
                                        .source = o.source,
                                        .purpose = purpose,
                                        .budget = {o.epsilon, o.delta},
                                        .n_pub = o.records,
                                        .batch = o.batch,
                                        .steps = o.steps,
                                        .clip = o.clip,
                                        .noise = o.noise};
    const dure_private_run_subject subject = {&t->opts, t->lora, base, &t->data_hash};
    dure_err err = dure_private_run_prepare(&t->private_run, &opts, &subject, &t->diag);
    t->opts.plan = &t->private_run.plan;
    t->opts.attempt = &t->private_run.attempt;
    return err;
}

static void say_start(const training *t)
{
    if (o.json) return;
    fprintf(stderr, "%zu records, %zu trained parameters, %s\n", t->data.n,
            dure_lora_count(&t->lora->layout, t->opts.factors),
            dure_transformer_path(t->m.transformer));
    if (t->data.n_cut || t->data.n_unusable)
        fprintf(stderr,
                "%zu records are cut at %llu tokens, %zu give nothing to learn (dure data check "
                "says which)\n",
                t->data.n_cut, (unsigned long long)o.max_length, t->data.n_unusable);
    if (!o.no_dp)
        fprintf(stderr,
                "source '%s': epsilon %.4g at delta %.3g for %llu steps of %llu in %llu records, "
                "noise %.4g, clip %g; the plan is reserved\n",
                o.source, t->private_run.epsilon, o.delta, (unsigned long long)o.steps,
                (unsigned long long)o.batch, (unsigned long long)o.records,
                dure_dp_plan_sigma(&t->private_run.plan), o.clip);
    if (dure_trainer_at(t->trainer))
        fprintf(stderr, "going on after step %llu\n",
                (unsigned long long)dure_trainer_at(t->trainer));
}

/* --- running --- */

static dure_err report(void *state, const dure_trainer_step *step)
{
    training *t = state;
    char note[64];
    t->tokens += step->tokens;
    t->train_seconds += step->seconds;
    if (o.json) {
        json_t *loss = isfinite(step->loss) ? json_real(step->loss) : json_null();
        if (dure_print_json(json_pack("{s:I, s:o, s:I, s:f}", "step", (json_int_t)step->step + 1,
                                      "loss", loss, "tokens", (json_int_t)step->tokens, "seconds",
                                      step->seconds)))
            return DURE_ERR_IO;
    }
    if (isfinite(step->loss))
        snprintf(note, sizeof note, "loss %.4f", step->loss);
    else
        snprintf(note, sizeof note, "no labels in this step");
    dure_progress_step(&t->progress, step->step + 1, (double)t->tokens, note);
    if (dure_clock_monotonic_s() - t->saved_at_s < SAVE_EVERY_S) return DURE_OK;
    t->saved_at_s = dure_clock_monotonic_s();
    return dure_trainer_save(t->trainer, t->state_path, &t->diag);
}

static dure_err train(training *t)
{
    dure_err err =
        dure_trainer_new(&t->trainer, t->m.transformer, &t->data, t->lora, &t->opts, &t->diag);
    if (!err && dure_file_exists(t->state_path))
        err = dure_trainer_load(t->trainer, t->state_path, &t->diag);
    if (err) return err;
    say_start(t);
    uint64_t at = dure_trainer_at(t->trainer);
    if (at > o.steps)
        return dure_diag_set(&t->diag, DURE_ERR_STATE,
                             "%s has %llu steps behind it, more than --steps", t->run_folder,
                             (unsigned long long)at);
    t->saved_at_s = dure_clock_monotonic_s();
    dure_progress_start(&t->progress, "training", "tokens", o.steps, o.json);
    err = dure_trainer_run(t->trainer, o.steps - at, report, t, &t->diag);
    dure_progress_end(&t->progress);
    if (!err) err = dure_trainer_save(t->trainer, t->state_path, &t->diag);
    return err;
}

/* The adapter carries the base's digest and nothing measured on the records. */
static dure_err write_adapter(training *t, const dure_hash *base)
{
    dure_adapter_notes notes = {.texts = NULL};
    char base_name[256];
    dure_span name = {0};
    const char *slash = strrchr(o.model, '/');
    dure_hex_encode(notes.base_digest, base->b, sizeof base->b);
    if (dure_gguf_text(&name, t->m.gguf, "general.name", NULL))
        name = dure_span_of_text(slash ? slash + 1 : o.model);
    snprintf(base_name, sizeof base_name, "%.*s", (int)(name.n < 255 ? name.n : 255),
             (const char *)name.data);
    dure_err err = dure_adapter_save_peft(o.out, t->lora, base_name, &notes, &t->diag);
    if (!err) err = dure_adapter_save(t->adapter_path, t->lora, &notes, &t->diag);
    return err;
}

static int print_summary(const training *t, double epsilon)
{
    struct rusage used;
    double rate = t->train_seconds > 0 ? (double)t->tokens / t->train_seconds : 0;
    getrusage(RUSAGE_SELF, &used);
    json_int_t peak = (json_int_t)used.ru_maxrss * 1024;
    if (o.json)
        return dure_print_json(json_pack("{s:{s:f, s:I, s:o, s:s}}", "summary", "tokens_per_second",
                                         rate, "peak_memory_bytes", peak, "epsilon",
                                         o.no_dp ? json_null() : json_real(epsilon), "adapter",
                                         t->adapter_path));
    char memory[32];
    dure_format_bytes(memory, (uint64_t)peak);
    printf("%s\n", t->adapter_path);
    fprintf(stderr, "%.0f tokens/s, %s at most", rate, memory);
    if (!o.no_dp) fprintf(stderr, ", epsilon %.4g at delta %.3g spent", epsilon, o.delta);
    fprintf(stderr, "\n");
    return 0;
}

/* The order of client/private_run.h: reserve, train, spend, write, erase. */
static int run(training *t)
{
    dure_hash base;
    dure_err err = open_all(t);
    if (!err) err = check_usable(t);
    if (!err) err = dure_base_digest(&base, o.model, &t->diag);
    if (!err) err = dure_trainer_data_hash(&t->data_hash, &t->data);
    if (!err) err = bind_subject(t, &base);
    if (!err) err = make_paths(t);
    if (!err && !o.no_dp) err = prepare_privacy(t, &base);
    if (!err) err = train(t);
    double epsilon = t->private_run.epsilon;
    if (!err && !o.no_dp) err = dure_private_run_spend(&t->private_run, &t->diag);
    if (!err) err = write_adapter(t, &base);
    if (!err && !o.no_dp) err = dure_private_run_close(&t->private_run, &t->diag);
    if (!err) err = dure_dir_remove(t->run_folder, &t->diag);
    return err ? dure_fail("train", err, &t->diag) : print_summary(t, epsilon);
}

static void clean_up(training *t)
{
    /* A run that was refused leaves nothing that looks unfinished. */
    if (t->lock.fd >= 0 && !dure_file_exists(t->key_path) && !dure_file_exists(t->state_path))
        (void)!dure_dir_remove(t->run_folder, NULL);
    if (t->made_out) (void)!rmdir(o.out); /* fails, as it should, when something is in it */
    dure_trainer_free(&t->trainer);
    dure_private_run_fini(&t->private_run);
    dure_lora_free(&t->lora);
    dure_dataset_fini(&t->data);
    dure_open_model_fini(&t->m);
    dure_lock_release(&t->lock);
    free(t->run_folder);
    free(t->key_path);
    free(t->state_path);
    free(t->lock_path);
    free(t->adapter_path);
}

int dure_cmd_train(int argc, char **argv)
{
    set_defaults();
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed == DURE_ARGS_HELP ? 0 : 2;
    int status = check_args();
    if (status) return status;
    training t = {.lock = {.fd = -1}};
    status = run(&t);
    clean_up(&t);
    return status;
}
