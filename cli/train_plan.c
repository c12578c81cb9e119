#include "cli/train_plan.h"

#include "cli/output.h"
#include "common/clock.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

/* Records that time and memory are measured on, and their tokens at most. */
enum { TRIED_RECORDS = 64, TRIED_TOKENS = 1024 };

typedef struct plan {
    size_t tokens, labels; /* of all records */
    double epochs;
    dure_private_preview privacy;
    double seconds; /* of the whole run */
    uint64_t peak_bytes;
    dure_transformer_fit device;
} plan;

static dure_err ignore(void *state, size_t doc, const float *gradient,
                       const dure_document_loss *loss)
{
    (void)state, (void)doc, (void)gradient, (void)loss;
    return DURE_OK;
}

/* Seconds a token of forward and backward through at most `records`, taken from all over the file.
 * The first time also packs the weights, so the second is taken. */
static dure_err measure(double *seconds, const dure_train_setup *s, double records, bool together,
                        dure_diag *diag)
{
    dure_document docs[TRIED_RECORDS];
    uint64_t seeds[TRIED_RECORDS] = {0};
    const dure_gradient_opts how = {.factors = s->opts.factors,
                                    .together = together,
                                    .dropout = s->opts.dropout,
                                    .dropout_seeds = seeds};
    size_t n = 0, tokens = 0, most = TRIED_RECORDS;
    if (records < TRIED_RECORDS) most = (size_t)ceil(records);
    const size_t stride = s->data.n > 2 * most ? s->data.n / (2 * most) : 1;
    for (size_t i = 0; i < s->data.n && n < most && tokens < TRIED_TOKENS; i += stride) {
        docs[n] = dure_dataset_document(&s->data, i);
        if (s->data.records[i].n_labels) tokens += docs[n++].n;
    }
    if (n == 0) { /* every record that was looked at has nothing to learn */
        *seconds = s->fit.seconds_per_token;
        return DURE_OK;
    }
    dure_err err = DURE_OK;
    for (int turn = 0; turn < 2 && !err; turn++) {
        double start_s = dure_clock_monotonic_s();
        err = dure_transformer_gradients(s->m.transformer, s->lora, &how, docs, n, ignore, NULL,
                                         diag);
        *seconds = (dure_clock_monotonic_s() - start_s) / (double)tokens;
    }
    return err;
}

/* On a GPU, where nobody reckons the memory, a trainer of its own takes it, so that what the
 * process has used at most is the run's. */
static dure_err estimate(plan *p, const dure_train_setup *s, const dure_train_options *o,
                         dure_diag *diag)
{
    const dure_train_step_size step = dure_train_usual_step(s, o);
    struct rusage used;
    double seconds = 0;
    dure_trainer *trainer = NULL;
    dure_trainer_opts opts = s->opts;
    dure_attempt none = {.path = NULL};
    if (p->privacy.plan.steps) {
        opts.plan = &p->privacy.plan;
        opts.attempt = &none;
    }
    dure_err err = dure_trainer_new(&trainer, s->m.transformer, &s->data, s->lora, &opts, diag);
    /* On a GPU the way it is done decides the memory too. */
    bool together = o->no_dp && dure_transformer_clips(s->m.transformer);
    if (!err) err = measure(&seconds, s, step.records, together, diag);
    dure_trainer_free(&trainer);
    p->device = dure_transformer_device_fit(s->m.transformer);
    /* The sum of the integers, which the measured pass had no use for. */
    if (p->device.bytes && !o->no_dp)
        p->device.bytes += dure_lora_count(&s->lora->layout, opts.factors) * sizeof(int64_t);
    getrusage(RUSAGE_SELF, &used);
    p->peak_bytes = s->fit.bytes ? s->fit.bytes : (uint64_t)used.ru_maxrss * 1024;
    double step_s = step.tokens * seconds + step.records * s->fit.seconds_to_clip;
    p->seconds =
        (step_s + s->fit.seconds_per_step) * (double)s->steps + dure_train_judge_seconds(s);
    return err;
}

static void count(plan *p, const dure_train_setup *s, const dure_train_options *o)
{
    for (size_t i = 0; i < s->data.n; i++) {
        p->tokens += s->data.records[i].n;
        p->labels += s->data.records[i].n_labels;
    }
    /* With privacy a record enters a step with the probability that the public figures give. */
    double of = (double)(o->no_dp ? s->data.n : o->records);
    p->epochs = (double)s->steps * (double)o->batch / of;
}

static void print_lora(const dure_train_setup *s)
{
    const dure_lora_layout *l = &s->lora->layout;
    char targets[64], ranks[64];
    dure_lora_targets_text(targets, l->targets);
    dure_lora_ranks_text(ranks, l);
    printf(
        "adapter     %s of rank %s, alpha %g, on %s of layers %u to %u; %zu trained parameters\n",
        l->dora ? "DoRA" : "LoRA", ranks, (double)l->alpha, targets, l->first_layer,
        l->shape.n_layers - 1, dure_lora_count(l, s->opts.factors));
}

static void print_words(const plan *p, const dure_train_setup *s, const dure_train_options *o)
{
    char clip[DURE_DP_CLIP_TEXT_SIZE];
    char memory[32], time[32];
    dure_format_bytes(memory, p->peak_bytes);
    dure_format_seconds(time, p->seconds);
    printf("model       %s, %s\n", o->model, dure_transformer_path(s->m.transformer));
    printf("records     %zu; %zu are cut, %zu give nothing to learn\n", s->data.n, s->data.n_cut,
           s->data.n_unusable);
    if (s->data.by_subject)
        printf("subjects    %u; each gives at most %u of its records a step\n", s->data.n_subjects,
               s->opts.per_subject);
    printf("tokens      %zu, of which %zu are learned\n", p->tokens, p->labels);
    print_lora(s);
    printf("steps       %llu of %llu %ss, %.3g epochs\n", (unsigned long long)s->steps,
           (unsigned long long)o->batch, o->unit, p->epochs);
    printf("optimizer   %s, learning rate %g, %s, warm-up of %llu steps\n", o->optimizer,
           o->learning_rate, o->schedule, (unsigned long long)s->opts.schedule.warmup_steps);
    if (o->eval)
        printf("evaluation  %zu records every %llu steps\n", s->eval.n,
               (unsigned long long)s->judge.every);
    if (o->no_dp)
        printf("privacy     none\n");
    else
        printf("privacy     epsilon %.4g of %.4g that are left to '%s', at delta %.3g "
               "(PLD accountant), for one %s more or less; "
               "noise %.4g, %s\n",
               p->privacy.epsilon, p->privacy.remaining, o->source, o->delta, o->unit,
               dure_dp_plan_sigma(&p->privacy.plan),
               dure_dp_plan_clip_text(clip, &p->privacy.plan));
    dure_warn_memory(s->fit.bytes);
    printf("memory      about %s\n", memory);
    dure_device_print_memory(&p->device);
    printf("time        about %s\n", time);
}

static int print_json(const plan *p, const dure_train_setup *s, const dure_train_options *o)
{
    json_t *privacy = json_null();
    if (!o->no_dp)
        privacy = json_pack("{s:f, s:f, s:f, s:s, s:f, s:f, s:f}", "epsilon", p->privacy.epsilon,
                            "remaining", p->privacy.remaining, "delta", o->delta, "unit", o->unit,
                            "noise", dure_dp_plan_sigma(&p->privacy.plan), "noise_effective",
                            dure_dp_plan_sigma_effective(&p->privacy.plan), "clip", o->clip);
    return dure_print_json(
        json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:o, s:I, s:I, s:f}", "records",
                  (json_int_t)s->data.n, "cut", (json_int_t)s->data.n_cut, "unusable",
                  (json_int_t)s->data.n_unusable, "tokens", (json_int_t)p->tokens, "labels",
                  (json_int_t)p->labels, "trained_parameters",
                  (json_int_t)dure_lora_count(&s->lora->layout, s->opts.factors), "steps",
                  (json_int_t)s->steps, "epochs", p->epochs, "privacy", privacy, "memory_bytes",
                  (json_int_t)p->peak_bytes, "gpu_memory_bytes", (json_int_t)p->device.bytes,
                  "seconds", p->seconds));
}

dure_err dure_train_plan_print(dure_train_setup *s, const dure_train_options *o,
                               const dure_private_run_opts *private_run, dure_diag *diag)
{
    plan p = {.tokens = 0};
    const dure_private_run_subject subject = {&s->opts, s->lora, &s->base, &s->data_hash};
    dure_err err = DURE_OK;
    if (private_run) err = dure_private_run_preview(&p.privacy, private_run, &subject, diag);
    if (err) return err;
    count(&p, s, o);
    err = estimate(&p, s, o, diag);
    if (err) return err;
    if (o->json) return print_json(&p, s, o) ? DURE_ERR_IO : DURE_OK;
    print_words(&p, s, o);
    return DURE_OK;
}
