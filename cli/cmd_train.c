/* dure train: fine-tune an adapter on local records, with differential privacy or without. */
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/train_options.h"
#include "cli/train_plan.h"
#include "cli/train_report.h"
#include "cli/train_setup.h"
#include "cli/writable.h"
#include "client/device_proof.h"
#include "client/private_run.h"
#include "common/clock.h"
#include "common/file.h"
#include "kernels/peak.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/* How often the state of a run is saved, so that a killed one loses no more than this. */
#define SAVE_EVERY_S 30.0

/* Everything that one run holds. */
typedef struct training {
    const dure_train_options *o;
    dure_train_setup s;
    dure_private_run private_run;
    dure_trainer *trainer;
    dure_train_report report;
    dure_lock lock;
    dure_new_folder out;
    char *run_folder, *key_path, *state_path, *lock_path, *adapter_path;
    double saved_at_s;
    uint64_t steps_taken;
    uint64_t best_step; /* whose factors the adapter has; 0: the last step's */
    double best_loss;
    bool went_wrong; /* without privacy: its state is of no use to any other run */
    dure_diag diag;
} training;

/* --- before the first step --- */

static dure_err make_paths(training *t)
{
    dure_err err = dure_new_folder_make(&t->out, t->o->out, &t->diag);
    if (err) return err;
    t->run_folder = dure_path_join(t->o->out, "unfinished");
    /* What tells that the folder has an adapter. */
    t->adapter_path = t->s.lora->layout.dora ? dure_path_join(t->o->out, "adapter_config.json")
                                             : dure_path_join(t->o->out, "adapter.gguf");
    if (!t->run_folder || !t->adapter_path) return DURE_ERR_NOMEM;
    t->key_path = dure_path_join(t->run_folder, "key");
    t->state_path = dure_path_join(t->run_folder, "state");
    t->lock_path = dure_path_join(t->run_folder, "lock");
    if (!t->key_path || !t->state_path || !t->lock_path) return DURE_ERR_NOMEM;
    if (dure_file_exists(t->adapter_path) && !dure_file_exists(t->run_folder))
        return dure_diag_set(&t->diag, DURE_ERR_EXISTS,
                             "%s holds an adapter already; choose another --out", t->o->out);
    err = dure_dir_make(t->run_folder, &t->diag);
    if (!err) err = dure_lock_acquire(&t->lock, t->lock_path, &t->diag);
    return err;
}

/* A run that was killed while it put away what it needs no more: the adapter is there. */
static bool had_ended(const training *t)
{
    return dure_file_exists(t->adapter_path) &&
           !(t->o->no_dp ? dure_file_exists(t->state_path) : dure_private_run_exists(t->key_path));
}

static dure_private_run_opts private_opts(const training *t)
{
    const dure_train_options *o = t->o;
    return (dure_private_run_opts){.key_path = t->key_path,
                                   .ledger_path = o->ledger,
                                   .source = o->source,
                                   .budget = {o->epsilon, o->delta},
                                   .unit = o->unit,
                                   .n_pub = o->records,
                                   .batch = o->batch,
                                   .steps = t->s.steps,
                                   .clip = o->clip,
                                   .adaptive = o->adaptive,
                                   .noise = o->noise};
}

/* A GPU that does not keep what privacy counts on is refused while nothing is reserved. */
static dure_err prove_device(training *t)
{
    const dure_trainer_task task = {
        .data = &t->s.data, .layout = &t->s.lora->layout, .opts = &t->s.opts, .is_private = true};
    size_t records = 0;
    dure_err err = dure_device_proof(&records, t->s.m.transformer, &task, &t->diag);
    if (!err && records) dure_device_say_proved(records);
    return err;
}

/* Reserves the whole plan, before anything is sampled or drawn. */
static dure_err prepare_privacy(training *t)
{
    char purpose[DURE_PURPOSE_SIZE];
    snprintf(purpose, sizeof purpose, "dure train --out %.200s", t->o->out);
    dure_private_run_opts opts = private_opts(t);
    opts.purpose = purpose;
    const dure_private_run_subject subject = {&t->s.opts, t->s.lora, &t->s.base, &t->s.data_hash};
    dure_err err = dure_private_run_prepare(&t->private_run, &opts, &subject, &t->diag);
    t->s.opts.plan = &t->private_run.plan;
    t->s.opts.attempt = &t->private_run.attempt;
    return err;
}

/* What is expected, before the first step. */
static void say_expected(const training *t)
{
    const dure_train_options *o = t->o;
    const dure_transformer_fit *fit = &t->s.fit;
    char memory[32], time[32];
    double tokens = dure_train_usual_step(&t->s, o).tokens;
    double step_s = tokens * fit->seconds_per_token + fit->seconds_per_step;
    dure_format_bytes(memory, fit->bytes);
    dure_format_seconds(time, (double)t->s.steps * step_s + dure_train_judge_seconds(&t->s));
    fprintf(stderr, "expected: %s, %.0f tokens/s, %s (weights %s, %u layers computed twice)\n",
            memory, tokens / step_s, time, fit->packed ? "packed" : "from the file",
            fit->recompute);
    dure_warn_memory(fit->bytes);
}

static void say_start(const training *t)
{
    const dure_train_options *o = t->o;
    const dure_dataset *data = &t->s.data;
    char clip[DURE_DP_CLIP_TEXT_SIZE];
    if (o->json) return;
    fprintf(stderr, "%zu records, %zu trained parameters, %s\n", data->n,
            dure_lora_count(&t->s.lora->layout, t->s.opts.factors),
            dure_transformer_path(t->s.m.transformer));
    if (t->s.fit.bytes) say_expected(t);
    if (data->n_cut || data->n_unusable)
        fprintf(stderr,
                "%zu records are cut at %llu tokens, %zu give nothing to learn (dure data check "
                "says which)\n",
                data->n_cut, (unsigned long long)o->max_length, data->n_unusable);
    if (!o->no_dp)
        fprintf(stderr,
                "source '%s': epsilon %.4g at delta %.3g (PLD"
                " accountant) for one %s more or less, in %llu steps of %llu of %llu %ss, noise "
                "%.4g, %s; the plan is reserved\n",
                o->source, t->private_run.epsilon, o->delta, o->unit,
                (unsigned long long)t->s.steps, (unsigned long long)o->batch,
                (unsigned long long)o->records, o->unit, dure_dp_plan_sigma(&t->private_run.plan),
                dure_dp_plan_clip_text(clip, &t->private_run.plan));
    if (dure_trainer_at(t->trainer))
        fprintf(stderr, "going on after step %llu\n",
                (unsigned long long)dure_trainer_at(t->trainer));
}

/* --- the steps --- */

static dure_err on_step(void *state, const dure_trainer_step *step)
{
    training *t = state;
    dure_err err = dure_train_report_step(&t->report, step, &t->diag);
    double now = dure_clock_monotonic_s();
    bool due = t->o->save_every ? (step->step + 1) % t->o->save_every == 0
                                : now - t->saved_at_s >= SAVE_EVERY_S;
    if (err || !due) return err;
    t->saved_at_s = now;
    return dure_trainer_save(t->trainer, t->state_path, &t->diag);
}

static dure_err take_steps(training *t, uint64_t taken)
{
    t->report = (dure_train_report){.o = t->o,
                                    .model = &t->s.m,
                                    .lora = t->s.lora,
                                    .plan = t->s.opts.plan,
                                    .steps = t->s.steps};
    if (t->s.fit.peak_flops > 0)
        t->report.peak_tokens = t->s.fit.peak_flops / t->s.fit.flops_per_token;
    t->saved_at_s = dure_clock_monotonic_s();
    dure_err err = dure_train_report_start(&t->report, taken, &t->diag);
    if (!err) {
        err = dure_trainer_run(t->trainer, t->s.steps - taken, on_step, t, &t->diag);
        t->went_wrong = err == DURE_ERR_STATE && t->o->no_dp;
    }
    dure_train_report_end(&t->report);
    return err;
}

static dure_err train(training *t)
{
    dure_err err = dure_trainer_new(&t->trainer, t->s.m.transformer, &t->s.data, t->s.lora,
                                    &t->s.opts, &t->diag);
    if (!err && dure_file_exists(t->state_path))
        err = dure_trainer_load(t->trainer, t->state_path, &t->diag);
    if (err) return err;
    say_start(t);
    uint64_t taken = dure_trainer_at(t->trainer);
    if (taken > t->s.steps)
        return dure_diag_set(&t->diag, DURE_ERR_STATE,
                             "%s has %llu steps behind it, more than --steps", t->run_folder,
                             (unsigned long long)taken);
    err = take_steps(t, taken);
    if (!err) err = dure_trainer_save(t->trainer, t->state_path, &t->diag);
    return err;
}

/* --- after the last --- */

/* The adapter carries the base's digest and nothing measured on the records. */
static dure_err write_adapter(training *t)
{
    dure_adapter_notes notes = {.texts = NULL};
    char base_name[256];
    dure_span name = {0};
    const char *slash = strrchr(t->o->model, '/');
    dure_hex_encode(notes.base_digest, t->s.base.b, sizeof t->s.base.b);
    if (dure_gguf_text(&name, t->s.m.gguf, "general.name", NULL))
        name = dure_span_of_text(slash ? slash + 1 : t->o->model);
    snprintf(base_name, sizeof base_name, "%.*s", (int)(name.n < 255 ? name.n : 255),
             (const char *)name.data);
    dure_err err = dure_adapter_save_peft(t->o->out, t->s.lora, base_name, &notes, &t->diag);
    /* GGUF has no place for DoRA's magnitudes. */
    if (!err && !t->s.lora->layout.dora)
        err = dure_adapter_save(t->adapter_path, t->s.lora, &notes, &t->diag);
    return err;
}

/* What to give to `--adapter`. */
static const char *adapter_of(const training *t)
{
    return t->s.lora->layout.dora ? t->o->out : t->adapter_path;
}

static int print_summary_json(const training *t, double rate, uint64_t peak_bytes)
{
    json_t *summary = json_pack("{s:f, s:I, s:o, s:s, s:I}", "tokens_per_second", rate,
                                "peak_memory_bytes", (json_int_t)peak_bytes, "epsilon",
                                t->o->no_dp ? json_null() : json_real(t->private_run.epsilon),
                                "adapter", adapter_of(t), "steps", (json_int_t)t->steps_taken);
    if (!t->o->no_dp) {
        json_object_set_new(summary, "delta", json_real(t->o->delta));
        json_object_set_new(summary, "unit", json_string(t->o->unit));
    }
    if (t->best_step) {
        json_object_set_new(summary, "best_step", json_integer((json_int_t)t->best_step));
        json_object_set_new(summary, "eval_loss", json_real(t->best_loss));
    }
    return dure_print_json(json_pack("{s:o}", "summary", summary));
}

static int print_summary(const training *t)
{
    struct rusage used;
    const dure_train_report *r = &t->report;
    double rate = r->seconds > 0 ? (double)r->tokens / r->seconds : 0;
    getrusage(RUSAGE_SELF, &used);
    uint64_t peak_bytes = (uint64_t)used.ru_maxrss * 1024;
    if (t->o->json) return print_summary_json(t, rate, peak_bytes);
    char memory[32];
    dure_format_bytes(memory, peak_bytes);
    printf("%s\n", adapter_of(t));
    if (t->best_step)
        fprintf(stderr, "the adapter is that of step %llu of %llu, with evaluation loss %.4f\n",
                (unsigned long long)t->best_step, (unsigned long long)t->steps_taken, t->best_loss);
    fprintf(stderr, "%.0f tokens/s, %s at most", rate, memory);
    if (!t->o->no_dp)
        fprintf(stderr, ", epsilon %.4g at delta %.3g spent, per %s", t->private_run.epsilon,
                t->o->delta, t->o->unit);
    fprintf(stderr, "\n");
    return 0;
}

static void print_profile(const training *t)
{
    const dure_compute *c = dure_transformer_compute(t->s.m.transformer);
    const dure_limits limits = {.gflops = dure_peak_gflops(c, 10), .gbytes = dure_peak_gbytes(c)};
    fprintf(stderr, "%-14s %9s %7s %9s %7s %9s\n", "phase", "seconds", "share", "GFLOP/s", "GB/s",
            "of limit");
    for (int i = 0; i < DURE_PHASES; i++) {
        dure_phase_rate rate = dure_profile_rate(c->profile, (dure_phase)i, limits);
        fprintf(stderr, "%-14s %9.2f %6.1f%%", dure_phase_name((dure_phase)i), rate.seconds,
                100 * rate.share);
        if (rate.gflops > 0)
            fprintf(stderr, " %9.0f %7s", rate.gflops, "");
        else if (rate.gbytes > 0)
            fprintf(stderr, " %9s %7.1f", "", rate.gbytes);
        if (rate.of_limit > 0) fprintf(stderr, " %8.0f%%", 100 * rate.of_limit);
        fprintf(stderr, "\n");
    }
    fprintf(stderr, "limits, measured: %.0f GFLOP/s of the multipliers, %.1f GB/s from memory\n",
            limits.gflops, limits.gbytes);
}

static int put_away(training *t)
{
    dure_err err = dure_dir_remove(t->run_folder, &t->diag);
    if (err) return dure_fail("train", err, &t->diag);
    fprintf(stderr, "the run had come to its end before it was cut off\n");
    if (t->o->json)
        return dure_print_json(json_pack("{s:{s:s}}", "summary", "adapter", adapter_of(t)));
    printf("%s\n", adapter_of(t));
    return 0;
}

static int show_plan(training *t)
{
    dure_err err = dure_train_setup_init(&t->s, t->o, &t->diag);
    const dure_private_run_opts opts = private_opts(t);
    if (!err) err = dure_new_folder_make(&t->out, t->o->out, &t->diag);
    if (!err) err = dure_train_report_check(t->o, &t->s.m, &t->diag);
    if (!err) err = dure_train_plan_print(&t->s, t->o, t->o->no_dp ? NULL : &opts, &t->diag);
    return err ? dure_fail("train", err, &t->diag) : 0;
}

/* The order of client/private_run.h: reserve, train, spend, write, erase. Before it comes all that
 * bad input can stop. */
static int run(training *t)
{
    dure_err err = dure_train_setup_init(&t->s, t->o, &t->diag);
    if (!err) err = make_paths(t);
    if (!err && had_ended(t)) return put_away(t);
    if (!err) err = dure_train_report_check(t->o, &t->s.m, &t->diag);
    if (!err && !t->o->no_dp) err = prove_device(t);
    if (!err && !t->o->no_dp) err = prepare_privacy(t);
    if (!err) err = train(t);
    if (!err) t->best_step = dure_trainer_take_best(&t->best_loss, t->trainer);
    if (t->trainer) t->steps_taken = dure_trainer_at(t->trainer);
    dure_trainer_free(&t->trainer); /* the files are made in memory that it leaves */
    if (!err && !t->o->no_dp) err = dure_private_run_spend(&t->private_run, &t->diag);
    if (!err) err = write_adapter(t);
    double epsilon = t->private_run.epsilon;
    if (!err && !t->o->no_dp) err = dure_private_run_close(&t->private_run, &t->diag);
    t->private_run.epsilon = epsilon;
    if (!err) err = dure_dir_remove(t->run_folder, &t->diag);
    if (err) return dure_fail("train", err, &t->diag);
    int status = print_summary(t);
    if (t->o->profile) print_profile(t); /* it takes memory of its own */
    return status;
}

static void clean_up(training *t)
{
    /* A run that was refused leaves nothing that looks unfinished. */
    if (t->lock.fd >= 0 && (t->went_wrong || (!dure_private_run_exists(t->key_path) &&
                                              !dure_file_exists(t->state_path))))
        (void)!dure_dir_remove(t->run_folder, NULL);
    dure_new_folder_fini(&t->out);
    dure_trainer_free(&t->trainer);
    dure_private_run_fini(&t->private_run);
    dure_train_setup_fini(&t->s);
    dure_lock_release(&t->lock);
    free(t->run_folder);
    free(t->key_path);
    free(t->state_path);
    free(t->lock_path);
    free(t->adapter_path);
}

int dure_cmd_train(int argc, char **argv)
{
    training t = {.lock = {.fd = -1}};
    int status = dure_train_options_parse(&t.o, argc, argv);
    if (status < 0) {
        status = t.o->dry_run ? show_plan(&t) : run(&t);
        clean_up(&t);
    }
    dure_train_options_fini();
    return status;
}
