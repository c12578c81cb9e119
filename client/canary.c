#include "client/canary.h"

#include "client/trainer.h"
#include "crypto/rng.h"
#include "dp/calibrate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Steps of the two plans, and the share of records that the second takes. */
enum { FULL_STEPS = 4, SAMPLED_STEPS = 20, SAMPLED_SHARE = 16, GUESS_SHARE = 20 };
static const double canary_length = 10; /* times the clip */
static const double learning_rate = 1e-3;

typedef struct audit {
    dure_transformer *model;
    const dure_dataset *data;
    const dure_canary_opts *opts;
    dure_diag *diag;
    dure_lora *lora;
    size_t n;        /* trained parameters */
    uint32_t *place; /* canary i's coordinate */
    bool *in;        /* its coin */
    dure_record *records;
    uint32_t *who;   /* the canary behind record data->n + i */
    float *gradient; /* n, all zero but for one moment */
    size_t last;     /* the coordinate that is not */
    dure_dp_plan plan;
    uint64_t steps;
    const char *what;
} audit;

/* ---- coins ---- */

static dure_err random_bytes(void *out, size_t n)
{
    const dure_rng rng = dure_rng_system();
    return dure_rng_fill(&rng, out, n);
}

/* A random order of the coordinates gives each canary one of its own. */
static dure_err choose_places(audit *a)
{
    const uint64_t m = a->opts->canaries;
    uint32_t *order = calloc(a->n, sizeof *order);
    uint64_t *words = calloc(m, sizeof *words);
    dure_err err = order && words ? random_bytes(words, m * sizeof *words) : DURE_ERR_NOMEM;
    for (size_t i = 0; !err && i < a->n; i++)
        order[i] = (uint32_t)i;
    for (size_t i = 0; !err && i < m; i++) {
        size_t k = i + (size_t)(((unsigned __int128)words[i] * (a->n - i)) >> 64);
        uint32_t taken = order[k];
        order[k] = order[i];
        a->place[i] = order[i] = taken;
    }
    free(order);
    free(words);
    return err;
}

static dure_err toss_coins(audit *a, uint64_t *included)
{
    const uint64_t m = a->opts->canaries;
    uint8_t *bits = calloc(m, 1);
    dure_err err = bits ? random_bytes(bits, m) : DURE_ERR_NOMEM;
    *included = 0;
    for (size_t i = 0; !err && i < m; i++) {
        a->in[i] = bits[i] & 1;
        if (!a->in[i]) continue;
        a->who[*included] = (uint32_t)i;
        /* A record without labels: its own gradient is nothing, and costs nothing. */
        a->records[a->data->n + (*included)++] =
            (dure_record){.first = a->data->records[0].first, .n = 1};
    }
    free(bits);
    return err;
}

/* ---- training ---- */

static const float *canary_gradient(void *state, size_t record, const float *gradient)
{
    audit *a = state;
    if (record < a->data->n) return gradient;
    a->gradient[a->last] = 0;
    a->last = a->place[a->who[record - a->data->n]];
    a->gradient[a->last] = (float)(canary_length * a->plan.clip);
    return a->gradient;
}

static dure_err on_step(void *state, const dure_trainer_step *step)
{
    const audit *a = state;
    if (a->opts->progress)
        a->opts->progress(a->opts->progress_state, a->what, step->step + 1, a->steps);
    return DURE_OK;
}

/* Takes all steps of a->plan on `data` from fresh factors, with a key of its own. */
static dure_err train(audit *a, const dure_dataset *data, dure_trainer_report *report, void *state)
{
    static const uint8_t note[DURE_ATTEMPT_NOTE_BYTES];
    static const dure_hash binding, digest;
    dure_attempt attempt = {.path = NULL};
    dure_trainer *trainer = NULL;
    const dure_trainer_opts opts = {.factors = DURE_LORA_FACTOR_B,
                                    .optimizer = DURE_TRAINER_SGD,
                                    .learning_rate = learning_rate,
                                    .plan = &a->plan,
                                    .attempt = &attempt,
                                    .substitute = canary_gradient,
                                    .substitute_state = a};
    dure_lora_init_orthonormal(a->lora, 1);
    dure_err err =
        dure_attempt_begin(&attempt, a->opts->key_path, &binding, &digest, note, a->diag);
    if (err) return err;
    err = dure_trainer_new(&trainer, a->model, data, a->lora, &opts, a->diag);
    if (!err) err = dure_trainer_run(trainer, a->plan.steps, report, state, a->diag);
    dure_trainer_free(&trainer);
    dure_err erased = dure_attempt_erase(&attempt, err ? NULL : a->diag);
    dure_attempt_fini(&attempt);
    return err ? err : erased;
}

/* What one unit of noisy sum is worth in a trained factor: C / (G L) times the learning rate. */
static double unit_of(const dure_dp_plan *plan)
{
    return learning_rate * plan->clip / ldexp((double)plan->batch, (int)plan->grid_bits);
}

/* ---- guessing ---- */

typedef struct scored {
    float score;
    bool in;
} scored;

static int by_score(const void *a, const void *b)
{
    float x = ((const scored *)a)->score, y = ((const scored *)b)->score;
    return (x < y) - (x > y); /* the highest first */
}

static dure_err guess(dure_guesses *out, const audit *a)
{
    const size_t m = (size_t)a->opts->canaries, k = m / GUESS_SHARE;
    scored *s = calloc(m, sizeof *s);
    float *trained = calloc(a->n, sizeof *trained);
    dure_err err = s && trained ? DURE_OK : DURE_ERR_NOMEM;
    if (!err) dure_lora_pack(trained, a->lora, DURE_LORA_FACTOR_B);
    for (size_t i = 0; !err && i < m; i++)
        s[i] = (scored){-trained[a->place[i]], a->in[i]}; /* factor B began at zero */
    *out = (dure_guesses){m, 2 * k, 0};
    if (!err) qsort(s, m, sizeof *s, by_score);
    for (size_t i = 0; !err && i < k; i++) {
        if (s[i].in) out->n_correct++;
        if (!s[m - 1 - i].in) out->n_correct++;
    }
    free(s);
    free(trained);
    return err;
}

/* ---- the two plans ---- */

static dure_err plan_run(audit *a, dure_canary_kind kind)
{
    bool full = kind == DURE_CANARY_EVERY_RECORD;
    /* Public constants, decided before the coins: half of the canaries are expected. */
    uint64_t n_pub = a->data->n + a->opts->canaries / 2;
    a->plan = (dure_dp_plan){.mechanism = DURE_DP_POISSON_GAUSSIAN,
                             .clip = 1,
                             .steps = full ? FULL_STEPS : SAMPLED_STEPS};
    a->steps = a->plan.steps;
    a->what = full ? "every record in every step" : "sampled records";
    dure_err err =
        dure_dp_plan_set_batch(&a->plan, full ? n_pub : n_pub / SAMPLED_SHARE, n_pub, a->diag);
    if (!err) err = dure_dp_grid_bits(&a->plan.grid_bits, a->n, a->diag);
    if (!err) err = dure_calibrate_sigma(&a->plan, NULL, a->opts->claim, a->diag);
    return err;
}

static dure_err run(dure_canary_run *out, audit *a, dure_canary_kind kind)
{
    const double delta = a->opts->claim.delta, significance = a->opts->significance;
    dure_dataset data = *a->data;
    dure_err err = plan_run(a, kind);
    if (!err) err = toss_coins(a, &out->included);
    if (err) return err;
    out->plan = a->plan;
    err = dure_calibrate_epsilon(&out->claimed, &a->plan, NULL, delta);
    data.records = a->records;
    data.n += out->included;
    if (!err) err = train(a, &data, on_step, a);
    if (!err) err = guess(&out->guesses, a);
    if (err) return err;
    out->lower_any = dure_one_run_epsilon(&out->guesses, significance, delta);
    out->lower = out->lower_any;
    if (kind == DURE_CANARY_EVERY_RECORD)
        out->lower =
            fmax(out->lower, dure_one_run_epsilon_gaussian(&out->guesses, significance, delta));
    out->holds = out->lower <= out->claimed;
    return DURE_OK;
}

/* ---- the noise alone ---- */

typedef struct measured {
    audit *a;
    float *before, *now; /* the factors after the last step and after this one */
    double *step;        /* this step's noise over its planned deviation, then the last one's */
    double squares, products, n, n_pairs;
    uint64_t steps;
} measured;

static dure_err measure_step(void *state, const dure_trainer_step *step)
{
    measured *m = state;
    audit *a = m->a;
    const double planned = dure_dp_plan_sigma(&a->plan) * ldexp(1, (int)a->plan.grid_bits);
    dure_lora_pack(m->now, a->lora, DURE_LORA_FACTOR_B);
    for (size_t i = 0; i < a->n; i++) {
        double z = ((double)m->before[i] - (double)m->now[i]) / unit_of(&a->plan) / planned;
        m->squares += z * z;
        if (m->steps > 0) m->products += z * m->step[i];
        m->step[i] = z;
    }
    m->n += (double)a->n;
    if (m->steps++ > 0) m->n_pairs += (double)a->n;
    memcpy(m->before, m->now, a->n * sizeof *m->now);
    return on_step(a, step);
}

/* Steps over no records at all: what is released is noise. */
static dure_err measure_noise(dure_canary_noise *out, audit *a)
{
    dure_dataset nothing = {.n = 0};
    measured m = {.a = a,
                  .before = calloc(a->n, sizeof *m.before),
                  .now = calloc(a->n, sizeof *m.now),
                  .step = calloc(a->n, sizeof *m.step)};
    dure_err err = m.before && m.now && m.step ? DURE_OK : DURE_ERR_NOMEM;
    if (!err) err = plan_run(a, DURE_CANARY_EVERY_RECORD);
    a->plan.steps = a->steps = DURE_CANARY_NOISE_LEAST / a->n + 2;
    a->what = "noise alone";
    if (!err) err = train(a, &nothing, measure_step, &m);
    if (!err) {
        /* The relative standard errors: of a deviation 1 / sqrt(2 n), of a correlation 1 / sqrt n.
         */
        *out = (dure_canary_noise){.n = (uint64_t)m.n,
                                   .deviation = sqrt(m.squares / m.n),
                                   .deviation_tolerance = 6 / sqrt(2 * m.n),
                                   .repeat = m.products / m.n_pairs,
                                   .repeat_tolerance = 6 / sqrt(m.n_pairs)};
        out->holds = fabs(out->deviation - 1) <= out->deviation_tolerance &&
                     fabs(out->repeat) <= out->repeat_tolerance;
    }
    free(m.before);
    free(m.now);
    free(m.step);
    return err;
}

/* ---- all of it ---- */

static dure_err check(const dure_dataset *data, const dure_canary_opts *o, dure_diag *diag)
{
    if (o->canaries < DURE_CANARIES_LEAST || o->canaries > DURE_CANARIES_MOST)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "the canaries must be %u to %u: with fewer, halved noise cannot be "
                             "told from luck",
                             DURE_CANARIES_LEAST, DURE_CANARIES_MOST);
    if (!(o->claim.epsilon > 0 && o->claim.epsilon <= DURE_CANARY_CLAIM_MOST))
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "the claim must be above 0 and at most epsilon %g, above which halved "
                             "noise hides, not %g",
                             DURE_CANARY_CLAIM_MOST, o->claim.epsilon);
    if (!(o->claim.delta > 0 && o->claim.delta * (double)o->canaries <= 0.5))
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "delta must be above 0 and at most half of one over the canaries, "
                             "%.3g, not %.3g",
                             0.5 / (double)o->canaries, o->claim.delta);
    if (!(o->significance > 0 && o->significance <= 0.5))
        return dure_diag_set(diag, DURE_ERR_USAGE, "the confidence must be from 0.5 to below 1");
    if (data->n == 0)
        return dure_diag_set(diag, DURE_ERR_USAGE, "there are no records to train on");
    return DURE_OK;
}

/* An adapter of at least as many trained parameters as canaries. */
static dure_err make_lora(audit *a)
{
    dure_lora_layout layout = {.shape = *dure_transformer_shape(a->model),
                               .alpha = 8,
                               .targets = (1u << DURE_LORA_TARGETS) - 1};
    const uint32_t ranks[] = {1, 2, 4, 8, 16, 32, 64, 128, 256};
    for (size_t i = 0; i < sizeof ranks / sizeof *ranks && a->n < a->opts->canaries; i++) {
        layout.rank = ranks[i];
        a->n = dure_lora_count(&layout, DURE_LORA_FACTOR_B);
    }
    if (a->n < a->opts->canaries)
        return dure_diag_set(a->diag, DURE_ERR_USAGE,
                             "this model's largest adapter has %zu parameters, too few for %llu "
                             "canaries",
                             a->n, (unsigned long long)a->opts->canaries);
    return dure_lora_new(&a->lora, &layout);
}

static dure_err allocate(audit *a)
{
    const size_t m = (size_t)a->opts->canaries;
    a->place = calloc(m, sizeof *a->place);
    a->in = calloc(m, sizeof *a->in);
    a->who = calloc(m, sizeof *a->who);
    a->records = calloc(a->data->n + m, sizeof *a->records);
    a->gradient = calloc(a->n, sizeof *a->gradient);
    if (!a->place || !a->in || !a->who || !a->records || !a->gradient) return DURE_ERR_NOMEM;
    memcpy(a->records, a->data->records, a->data->n * sizeof *a->records);
    return DURE_OK;
}

dure_err dure_canary_audit(dure_canary_report *out, dure_transformer *model,
                           const dure_dataset *data, const dure_canary_opts *opts, dure_diag *diag)
{
    audit a = {.model = model, .data = data, .opts = opts, .diag = diag};
    *out = (dure_canary_report){0};
    dure_err err = check(data, opts, diag);
    if (!err) err = make_lora(&a);
    if (!err) err = allocate(&a);
    if (!err) err = choose_places(&a);
    for (int kind = 0; !err && kind < DURE_CANARY_KINDS; kind++)
        err = run(&out->runs[kind], &a, (dure_canary_kind)kind);
    if (!err) err = measure_noise(&out->noise, &a);
    if (!err) out->rank = a.lora->layout.rank;
    out->n_params = a.n;
    dure_lora_free(&a.lora);
    free(a.place);
    free(a.in);
    free(a.who);
    free(a.records);
    free(a.gradient);
    return err;
}

bool dure_canary_holds(const dure_canary_report *report)
{
    bool holds = report->noise.holds;
    for (int kind = 0; kind < DURE_CANARY_KINDS; kind++)
        holds = holds && report->runs[kind].holds;
    return holds;
}
