#include "client/trainer.h"

#include "client/trainer_int.h"
#include "common/clock.h"
#include "common/splitmix.h"
#include "dp/adaptive_clip.h"
#include "dp/noise.h"
#include "dp/quantize.h"
#include "dp/sample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Coordinates that share one stream of noise. */
#define NOISE_BLOCK 65536

/* --- one step with a plan --- */

static bool by_subject(const dure_trainer *t)
{
    return t->opts.plan && t->opts.plan->mechanism == DURE_DP_POISSON_GAUSSIAN_SUBJECTS;
}

static dure_err choose_units(size_t *chosen, size_t *n_chosen, const dure_trainer *t, size_t n)
{
    dure_stream *stream = NULL;
    *n_chosen = 0;
    dure_err err = dure_attempt_stream(&stream, t->opts.attempt, "sample", t->step, 0);
    if (err) return err;
    dure_rng rng = dure_stream_rng(stream);
    err = dure_sample_poisson(chosen, n_chosen, n, t->opts.plan, &rng);
    dure_stream_free(&stream);
    return err;
}

/* Each chosen subject's records for this step: the next per_subject of them, around and around, so
 * that all have their turn and no one shows more in a step. */
static size_t records_of_subjects(dure_trainer *t, size_t n_subjects)
{
    const dure_dataset *data = t->data;
    size_t n = 0;
    for (size_t i = 0; i < n_subjects; i++) {
        size_t first = data->subject_first[t->subjects[i]];
        size_t has = data->subject_first[t->subjects[i] + 1] - first;
        size_t gives = has < t->opts.per_subject ? has : t->opts.per_subject;
        for (size_t j = 0; j < gives; j++) {
            uint64_t turn = t->step * t->opts.per_subject + j;
            t->ends_subject[n] = j + 1 == gives;
            t->chosen[n++] = data->by_subject[first + turn % has];
        }
    }
    return n;
}

static dure_err choose_records(size_t *n_chosen, dure_trainer *t)
{
    if (!by_subject(t)) return choose_units(t->chosen, n_chosen, t, t->data->n);
    size_t n_subjects = 0;
    dure_err err = choose_units(t->subjects, &n_subjects, t, t->data->n_subjects);
    *n_chosen = err ? 0 : records_of_subjects(t, n_subjects);
    t->subject_size = 0;
    return err;
}

static dure_err draw_count_noise(dure_trainer *t)
{
    dure_stream *stream = NULL;
    t->count = 0;
    if (t->now.adaptive.count_sigma_num == 0) return DURE_OK;
    dure_err err = dure_attempt_stream(&stream, t->opts.attempt, "count", t->step, 0);
    if (err) return err;
    dure_rng rng = dure_stream_rng(stream);
    err = dure_noise_one(&t->count, dure_noise_scale_of_count(&t->now), &rng);
    dure_stream_free(&stream);
    return err;
}

/* The whole vector of noise, before any record is looked at: the time it takes then says nothing
 * about them, and no sum without noise ever exists. */
static dure_err draw_noise(dure_trainer *t)
{
    dure_noise_scale scale = dure_noise_scale_of(t->opts.plan);
    for (size_t first = 0; first < t->n; first += NOISE_BLOCK) {
        size_t n = t->n - first < NOISE_BLOCK ? t->n - first : NOISE_BLOCK;
        dure_stream *stream = NULL;
        dure_err err =
            dure_attempt_stream(&stream, t->opts.attempt, "noise", t->step, first / NOISE_BLOCK);
        if (err) return err;
        dure_rng rng = dure_stream_rng(stream);
        err = dure_noise_fill(t->sum + first, n, scale, &rng);
        dure_stream_free(&stream);
        if (err) return err;
    }
    return DURE_OK;
}

/* What the sinks collect beside the gradient. */
typedef struct collector {
    dure_trainer *trainer;
    double nll;
    uint64_t labels;
    size_t refused;
    uint32_t refused_line; /* of the first */
    double worst;          /* the highest mean loss of a record, and where it is */
    uint32_t worst_line;
} collector;

static uint32_t line_of(const dure_trainer *t, size_t doc)
{
    return t->data->records[t->chosen[doc]].line;
}

static void collect_loss(collector *c, size_t doc, const dure_document_loss *loss)
{
    if (!loss->finite || loss->n_labels == 0) return;
    c->nll += loss->nll_sum;
    c->labels += loss->n_labels;
    double mean = loss->nll_sum / loss->n_labels;
    if (c->worst_line && mean <= c->worst) return;
    c->worst = mean;
    c->worst_line = line_of(c->trainer, doc);
}

static void refuse(collector *c, size_t doc)
{
    if (c->refused++ == 0) c->refused_line = line_of(c->trainer, doc);
}

/* Adds a record to its subject's sum, in the order of the documents; at the last one the sum goes
 * the way of a single record's gradient. */
static bool add_to_subject(dure_trainer *t, size_t doc, const float *gradient)
{
    if (gradient && t->subject_size++ == 0)
        memcpy(t->subject_sum, gradient, t->n * sizeof *gradient);
    else if (gradient)
        t->compute.ops->add(t->subject_sum, gradient, t->n);
    if (!t->ends_subject[doc] || t->subject_size == 0) return true;
    t->subject_size = 0;
    return dure_trainer_add_clipped(t, t->subject_sum);
}

/* One record never stops a private run: what is not finite contributes zero. */
static dure_err take_private(void *state, size_t doc, const float *gradient,
                             const dure_document_loss *loss)
{
    collector *c = state;
    dure_trainer *t = c->trainer;
    if (t->opts.substitute)
        gradient = t->opts.substitute(t->opts.substitute_state, t->chosen[doc], gradient);
    bool added = by_subject(t) ? add_to_subject(t, doc, gradient)
                               : !gradient || dure_trainer_add_clipped(t, gradient);
    if (!added) {
        refuse(c, doc);
        return DURE_OK;
    }
    if (gradient) collect_loss(c, doc, loss);
    return DURE_OK;
}

/* Where the model clips: it has added what may be added. */
static dure_err take_clipped(void *state, size_t doc, const float *gradient,
                             const dure_document_loss *loss)
{
    collector *c = state;
    dure_trainer *t = c->trainer;
    (void)gradient;
    if (loss->n_labels == 0) return DURE_OK;
    if (!t->outcomes[doc].added) {
        refuse(c, doc);
        return DURE_OK;
    }
    dure_trainer_add_count(t, t->outcomes[doc].norm_square);
    collect_loss(c, doc, loss);
    return DURE_OK;
}

/* A subject's gradient is a sum of several, and what takes a gradient's place is made here. */
static bool model_clips(const dure_trainer *t)
{
    return t->opts.plan && !by_subject(t) && !t->opts.substitute &&
           dure_transformer_clips(t->model);
}

static dure_gradient_clip clip_of_step(dure_trainer *t)
{
    const dure_quantize_bounds b = dure_quantize_bounds_of(t->n, &t->now);
    return (dure_gradient_clip){.per_unit = b.per_unit,
                                .norm_most = b.norm_most,
                                .squares_most = b.squares_most,
                                .sum = t->sum,
                                .outcome = t->outcomes};
}

/* --- one step without --- */

static dure_err take_plain(void *state, size_t doc, const float *gradient,
                           const dure_document_loss *loss)
{
    collector *c = state;
    dure_trainer *t = c->trainer;
    if (!loss->finite) refuse(c, doc);
    collect_loss(c, doc, loss);
    if (!gradient) return DURE_OK;
    if (!dure_trainer_add_plain(t, gradient) && !c->refused) {
        /* The gradient is that of several records: the one with the highest loss is the likeliest.
         */
        c->refused = 1;
        c->refused_line = c->worst_line;
    }
    return DURE_OK;
}

/* The order of one epoch, a function of the seed and the epoch. */
static void shuffle(dure_trainer *t, uint64_t epoch)
{
    if (t->epoch == epoch) return;
    uint64_t state = t->opts.seed;
    state = dure_splitmix64(&state) ^ epoch;
    for (size_t i = 0; i < t->data->n; i++)
        t->order[i] = i;
    for (size_t i = t->data->n; i > 1; i--) {
        size_t j = (size_t)(((unsigned __int128)dure_splitmix64(&state) * i) >> 64);
        size_t kept = t->order[i - 1];
        t->order[i - 1] = t->order[j];
        t->order[j] = kept;
    }
    t->epoch = epoch;
}

/* --- both --- */

static dure_err reserve_docs(dure_trainer *t, size_t n)
{
    if (n <= t->docs_capacity) return DURE_OK;
    dure_document *docs = realloc(t->docs, n * sizeof *docs);
    if (!docs) return DURE_ERR_NOMEM;
    t->docs = docs;
    uint64_t *masks = realloc(t->masks, n * sizeof *masks);
    if (!masks) return DURE_ERR_NOMEM;
    t->masks = masks;
    dure_clip_outcome *outcomes = realloc(t->outcomes, n * sizeof *outcomes);
    if (!outcomes) return DURE_ERR_NOMEM;
    t->outcomes = outcomes;
    t->docs_capacity = n;
    return DURE_OK;
}

static dure_err private_docs(size_t *n_docs, dure_trainer *t)
{
    dure_err err = draw_noise(t);
    if (!err) err = draw_count_noise(t);
    if (!err) err = choose_records(n_docs, t);
    if (!err) err = reserve_docs(t, *n_docs);
    for (size_t i = 0; !err && i < *n_docs; i++)
        t->docs[i] = dure_dataset_document(t->data, t->chosen[i]);
    return err;
}

static dure_err plain_docs(size_t *n_docs, dure_trainer *t)
{
    *n_docs = (size_t)t->opts.batch;
    dure_err err = reserve_docs(t, *n_docs);
    if (err) return err;
    for (size_t i = 0; i < *n_docs; i++) {
        uint64_t at = t->step * t->opts.batch + i;
        shuffle(t, at / t->data->n);
        t->chosen[i] = t->order[at % t->data->n];
        t->docs[i] = dure_dataset_document(t->data, t->chosen[i]);
    }
    memset(t->total, 0, t->n * sizeof *t->total);
    return DURE_OK;
}

/* A seed for each record of the step: of the attempt's key or the run's seed, of the step, and of
 * the record's place in the file. */
static dure_err draw_masks(dure_trainer *t, size_t n_docs)
{
    uint64_t state = t->opts.seed;
    if (t->opts.dropout <= 0) return DURE_OK;
    if (t->opts.plan) {
        dure_stream *stream = NULL;
        dure_err err = dure_attempt_stream(&stream, t->opts.attempt, "dropout", t->step, 0);
        if (err) return err;
        dure_rng rng = dure_stream_rng(stream);
        err = dure_rng_fill(&rng, &state, sizeof state);
        dure_stream_free(&stream);
        if (err) return err;
    }
    uint64_t of_step = dure_splitmix64(&state) ^ t->step;
    of_step = dure_splitmix64(&of_step);
    for (size_t i = 0; i < n_docs; i++) {
        uint64_t of_record = of_step ^ t->chosen[i];
        t->masks[i] = dure_splitmix64(&of_record);
    }
    return DURE_OK;
}

static double learning_rate(const dure_trainer *t)
{
    return t->opts.learning_rate * dure_schedule_factor(&t->opts.schedule, t->step);
}

static void update(dure_trainer *t)
{
    const dure_trainer_opts *o = &t->opts;
    double rate = learning_rate(t);
    if (o->optimizer == DURE_TRAINER_ADAMW) {
        const dure_adamw_opts adamw = {.learning_rate = rate, .weight_decay = o->weight_decay};
        dure_adamw_update(t->active, &t->moments, t->mean, &adamw, &t->compute);
    } else {
        t->compute.ops->scale(t->moments.m, (float)o->momentum, t->n);
        t->compute.ops->add(t->moments.m, t->mean, t->n);
        dure_sgd_update(t->active, t->moments.m, t->n, rate, &t->compute);
        t->moments.step++;
    }
    dure_lora_unpack(t->lora, t->active, o->factors);
    if (t->now.adaptive.count_sigma_num)
        t->now.clip = dure_adaptive_clip_next(t->now.clip, t->count, &t->now);
}

/* A run without privacy that has gone wrong stops before the step is taken. */
static dure_err check_healthy(dure_trainer *t, const collector *c, dure_diag *diag)
{
    unsigned long long step = t->step + 1;
    if (c->refused)
        return dure_diag_set(diag, DURE_ERR_STATE,
                             "step %llu: the loss or gradient of the record in line %u is not "
                             "finite; look at that record, and try a lower --learning-rate, "
                             "--clip-norm 1 or a --warmup",
                             step, c->refused_line);
    if (c->labels == 0) return DURE_OK;
    double loss = c->nll / (double)c->labels;
    double blind = log((double)t->lora->layout.shape.n_vocab);
    if (t->first_loss > 0 && loss > 1.25 * blind && loss > 2 * t->first_loss)
        return dure_diag_set(diag, DURE_ERR_STATE,
                             "step %llu: the loss has run away to %.3g, from %.3g at the start "
                             "(a blind guess has %.3g); the worst record is in line %u with %.3g. "
                             "Try a lower --learning-rate, --clip-norm 1 or a --warmup",
                             step, loss, t->first_loss, blind, c->worst_line, c->worst);
    return DURE_OK;
}

static dure_err finish_gradient(double *norm, dure_trainer *t, const collector *c, dure_diag *diag)
{
    *norm = (double)NAN;
    if (t->opts.plan) {
        dure_quantize_mean(t->mean, t->sum, t->n, &t->now);
        return DURE_OK;
    }
    dure_err err = check_healthy(t, c, diag);
    if (err) return err;
    for (size_t i = 0; i < t->n; i++)
        t->mean[i] = c->labels ? (float)(t->total[i] / (double)c->labels) : 0;
    *norm = dure_gradient_norm(t->mean, t->n);
    if (t->opts.clip_norm > 0 && *norm > t->opts.clip_norm)
        t->compute.ops->scale(t->mean, (float)(t->opts.clip_norm / *norm), t->n);
    if (t->first_loss == 0 && c->labels) t->first_loss = c->nll / (double)c->labels;
    return DURE_OK;
}

/* Sum and mean; mean, factors and moments of the update; factors on their way to the adapter. */
static double optimizer_bytes(const dure_trainer *t)
{
    bool adam = t->opts.optimizer == DURE_TRAINER_ADAMW;
    return (double)(t->n * (sizeof(int64_t) + (adam ? 10u : 8u) * sizeof(float)));
}

static dure_err add_gradients(collector *c, size_t n_docs, dure_diag *diag)
{
    dure_trainer *t = c->trainer;
    dure_gradient_opts opts = {.factors = t->opts.factors,
                               .sum_of_labels = !t->opts.plan,
                               .together = !t->opts.plan,
                               .dropout = t->opts.dropout,
                               .dropout_seeds = t->masks};
    dure_gradient_sink *sink = t->opts.plan ? take_private : take_plain;
    dure_gradient_clip clip;
    if (model_clips(t)) {
        clip = clip_of_step(t);
        opts.clip = &clip;
        sink = take_clipped;
    }
    return dure_transformer_gradients(t->model, t->lora, &opts, t->docs, n_docs, sink, c, diag);
}

static dure_err take_step(dure_trainer_step *done, dure_trainer *t, dure_diag *diag)
{
    double started = dure_clock_monotonic_s();
    collector c = {.trainer = t};
    size_t n_docs = 0;
    double norm = 0;
    dure_profile *profile = dure_transformer_profile(t->model);
    dure_profile_enter(profile, t->opts.plan ? DURE_PHASE_NOISE : DURE_PHASE_OTHER);
    dure_err err = t->opts.plan ? private_docs(&n_docs, t) : plain_docs(&n_docs, t);
    dure_profile_enter(profile, DURE_PHASE_OTHER);
    if (err)
        return dure_diag_set(diag, err, "cannot prepare step %llu: %s",
                             (unsigned long long)t->step + 1, dure_err_text(err));
    err = draw_masks(t, n_docs);
    if (err) return dure_diag_set(diag, err, "cannot draw the dropout of a step");
    /* An empty batch is a step all the same: its noise is released like any other's. */
    if (n_docs) err = add_gradients(&c, n_docs, diag);
    dure_profile_enter(profile, DURE_PHASE_OPTIMIZER);
    dure_profile_work(profile, 0, optimizer_bytes(t));
    if (!err) err = finish_gradient(&norm, t, &c, diag);
    if (err) return err;
    const double clip = t->opts.plan ? t->now.clip : (double)NAN;
    update(t);
    dure_profile_enter(profile, DURE_PHASE_OTHER);
    *done = (dure_trainer_step){.step = t->step,
                                .loss = c.labels ? c.nll / (double)c.labels : (double)NAN,
                                .learning_rate = learning_rate(t),
                                .gradient_norm = norm,
                                .clip = clip,
                                .records = n_docs,
                                .refused = c.refused,
                                .refused_line = c.refused_line};
    for (size_t i = 0; i < n_docs; i++)
        done->tokens += t->docs[i].n;
    t->step++;
    done->seconds = dure_clock_monotonic_s() - started;
    return dure_trainer_judge(done, t, diag);
}

dure_err dure_trainer_run(dure_trainer *trainer, uint64_t n, dure_trainer_report *report,
                          void *state, dure_diag *diag)
{
    const dure_dp_plan *plan = trainer->opts.plan;
    if (plan && (trainer->step > plan->steps || n > plan->steps - trainer->step))
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "the plan has %llu steps and %llu are taken; %llu more were asked for",
                             (unsigned long long)plan->steps, (unsigned long long)trainer->step,
                             (unsigned long long)n);
    dure_lora_pack(trainer->active, trainer->lora, trainer->opts.factors);
    for (uint64_t i = 0; i < n && !dure_trainer_stopped(trainer); i++) {
        dure_trainer_step done;
        dure_err err = take_step(&done, trainer, diag);
        if (!err && report) err = report(state, &done);
        if (err) return err;
    }
    return DURE_OK;
}

/* --- life --- */

static dure_err check_plan(const dure_trainer_opts *opts, size_t n, dure_diag *diag)
{
    uint32_t bits = 0;
    dure_err err = dure_dp_plan_check(opts->plan, diag);
    if (!err) err = dure_dp_grid_bits(&bits, n, diag);
    if (err) return err;
    if (opts->plan->grid_bits != bits)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "the plan's grid has %u bits but %zu trained parameters need %u",
                             opts->plan->grid_bits, n, bits);
    return DURE_OK;
}

static dure_err check_subjects(const dure_trainer_opts *opts, const dure_dataset *data,
                               dure_diag *diag)
{
    if (opts->plan->mechanism != DURE_DP_POISSON_GAUSSIAN_SUBJECTS) return DURE_OK;
    if (!data->by_subject)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "the plan protects subjects, and the records were read without them");
    if (opts->per_subject == 0)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "a subject has to give at least one record a step");
    return DURE_OK;
}

static dure_err check_opts(const dure_trainer_opts *opts, const dure_dataset *data, size_t n,
                           dure_diag *diag)
{
    if (!(opts->learning_rate > 0 && opts->learning_rate <= 1e3))
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "the learning rate must be above 0 and at most 1000, not %g",
                             opts->learning_rate);
    if (!(opts->weight_decay >= 0 && opts->weight_decay <= 1e3 && opts->momentum >= 0 &&
          opts->momentum < 1))
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "weight decay must be 0 to 1000 and momentum 0 up to 1");
    dure_err err = dure_schedule_check(&opts->schedule, diag);
    if (!err && opts->eval) err = dure_trainer_eval_check(opts->eval, diag);
    if (err) return err;
    if (!(opts->dropout >= 0 && opts->dropout <= 0.95))
        return dure_diag_set(diag, DURE_ERR_USAGE, "dropout must be from 0 to 0.95, not %g",
                             opts->dropout);
    if (!opts->plan != !opts->attempt)
        return dure_diag_set(diag, DURE_ERR_USAGE, "a plan and an attempt go together");
    if (opts->plan) {
        err = check_plan(opts, n, diag);
        return err ? err : check_subjects(opts, data, diag);
    }
    if (data->n == 0)
        return dure_diag_set(diag, DURE_ERR_USAGE, "there are no records to train on");
    if (opts->batch == 0 || opts->batch > data->n)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "the batch must be 1 to the number of records, %zu, not %llu", data->n,
                             (unsigned long long)opts->batch);
    if (!(opts->clip_norm >= 0 && isfinite(opts->clip_norm)))
        return dure_diag_set(diag, DURE_ERR_USAGE, "the gradient's norm cannot be clipped at %g",
                             opts->clip_norm);
    return DURE_OK;
}

static bool allocate_subjects(dure_trainer *t)
{
    size_t n = t->data->n_subjects, n_records = t->data->n;
    t->subjects = calloc(n ? n : 1, sizeof *t->subjects);
    t->ends_subject = calloc(n_records ? n_records : 1, sizeof *t->ends_subject);
    t->subject_sum = calloc(t->n, sizeof *t->subject_sum);
    return t->subjects && t->ends_subject && t->subject_sum;
}

static dure_err allocate(dure_trainer *t)
{
    size_t n_records = t->data->n ? t->data->n : 1;
    t->epoch = UINT64_MAX;
    t->active = calloc(t->n, sizeof *t->active);
    t->mean = calloc(t->n, sizeof *t->mean);
    t->chosen = calloc(n_records, sizeof *t->chosen); /* a batch is no larger */
    size_t pieces = t->n / DURE_QUANTIZE_PIECE + 1;
    t->piece_norms = calloc(pieces, sizeof *t->piece_norms);
    bool failed = !t->active || !t->mean || !t->chosen || !t->piece_norms;
    if (t->opts.plan) {
        t->sum = calloc(t->n, sizeof *t->sum);
        t->piece_squares = calloc(pieces, sizeof *t->piece_squares);
        failed = failed || !t->sum || !t->piece_squares;
        if (by_subject(t)) failed = failed || !allocate_subjects(t);
    } else {
        t->total = calloc(t->n, sizeof *t->total);
        t->order = calloc(n_records, sizeof *t->order);
        failed = failed || !t->total || !t->order;
    }
    dure_err err = failed ? DURE_ERR_NOMEM : dure_adamw_init(&t->moments, t->n);
    if (!err && t->opts.eval) err = dure_trainer_eval_init(t);
    t->compute = *dure_transformer_compute(t->model);
    return err;
}

dure_err dure_trainer_new(dure_trainer **out, dure_transformer *model, const dure_dataset *data,
                          dure_lora *lora, const dure_trainer_opts *opts, dure_diag *diag)
{
    *out = NULL;
    size_t n = dure_lora_count(&lora->layout, opts->factors);
    dure_err err = check_opts(opts, data, n, diag);
    if (err) return err;
    dure_trainer *t = calloc(1, sizeof *t);
    if (t) {
        *t = (dure_trainer){.model = model, .data = data, .lora = lora, .opts = *opts, .n = n};
        if (opts->plan) t->now = *opts->plan;
        err = allocate(t);
    }
    if (!t || err) {
        dure_trainer_free(&t);
        return dure_diag_set(diag, DURE_ERR_NOMEM, "out of memory for %zu trained parameters", n);
    }
    *out = t;
    return DURE_OK;
}

void dure_trainer_free(dure_trainer **trainer)
{
    dure_trainer *t = *trainer;
    if (!t) return;
    dure_adamw_fini(&t->moments);
    free(t->active);
    free(t->mean);
    free(t->sum);
    free(t->piece_norms);
    free(t->piece_squares);
    free(t->chosen);
    free(t->subjects);
    free(t->ends_subject);
    free(t->subject_sum);
    free(t->total);
    free(t->order);
    free(t->docs);
    free(t->masks);
    free(t->outcomes);
    dure_trainer_eval_fini(t);
    free(t);
    *trainer = NULL;
}

uint64_t dure_trainer_at(const dure_trainer *trainer)
{
    return trainer->step;
}

void dure_trainer_use_attempt(dure_trainer *trainer, const dure_attempt *attempt)
{
    DURE_ASSERT(trainer->opts.plan && attempt);
    trainer->opts.attempt = attempt;
}

dure_err dure_trainer_skip_to(dure_trainer *trainer, uint64_t step, dure_diag *diag)
{
    if (step < trainer->step)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "%llu steps are taken, so the next cannot be number %llu",
                             (unsigned long long)trainer->step, (unsigned long long)step + 1);
    trainer->step = step;
    return DURE_OK;
}
