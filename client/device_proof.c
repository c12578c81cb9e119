#include "client/device_proof.h"

#include "common/splitmix.h"
#include "dp/quantize.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { RECORDS = 6, PASSED_FLOATS = 1 << 29 };

/* One synthetic record, and what its gradient and loss were when it was alone. */
typedef struct sample {
    int32_t *tokens;
    uint8_t *supervised;
    size_t n;
    dure_hash alone;
    double nll_sum, norm_square;
} sample;

typedef struct proof {
    dure_transformer *model;
    const dure_trainer_task *task;
    dure_lora *lora;
    dure_dp_plan plan;
    size_t n; /* trained parameters */
    sample samples[RECORDS];
    int64_t *sum, *expected; /* n, of the GPU and of this processor */
    int32_t *integers;       /* n, of one record */
    /* The passes under way: which sample each document is. */
    dure_document *docs;
    uint8_t *which;
    uint64_t *masks;
    dure_clip_outcome *outcomes;
    size_t n_docs;
    bool alone; /* they are the measure of those that follow */
    dure_diag *diag;
} proof;

static dure_err refuse(const proof *p, const char *what)
{
    return dure_diag_set(p->diag, DURE_ERR_DEVICE,
                         "%s does not keep what differential privacy counts on: %s. Train on the "
                         "CPU (--device cpu)",
                         dure_transformer_path(p->model), what);
}

/* --- what goes through the model --- */

static size_t longest_of(const dure_dataset *data, size_t most)
{
    size_t longest = 8;
    for (size_t i = 0; i < data->n; i++)
        if (data->records[i].n > longest) longest = data->records[i].n;
    return longest < most ? longest : most;
}

/* Its labels begin at token `first`. */
static bool make_sample(sample *s, size_t n, size_t first, uint64_t *random, uint32_t n_vocab)
{
    s->n = n;
    s->tokens = calloc(n, sizeof *s->tokens);
    s->supervised = calloc(n, sizeof *s->supervised);
    if (!s->tokens || !s->supervised) return false;
    for (size_t i = 0; i < n; i++) {
        s->tokens[i] = (int32_t)(dure_splitmix64(random) % n_vocab);
        s->supervised[i] = i >= first;
    }
    return true;
}

/* Long and short, so that they begin and end anywhere in the GPU's tiles; mostly with a label at
 * every token, as each loss is one more number that tells. */
static dure_err make_samples(proof *p)
{
    const dure_model_shape *shape = dure_transformer_shape(p->model);
    size_t most = longest_of(p->task->data, shape->n_context);
    const size_t lengths[RECORDS] = {most, most / 2 + 1, most / 3 + 1, 37, 9, 3};
    uint64_t random = 1;
    for (size_t i = 0; i < RECORDS; i++) {
        size_t n = lengths[i] < most ? lengths[i] : most;
        size_t first = i % 3 == 2 ? n / 2 : 1;
        if (!make_sample(&p->samples[i], n, first, &random, shape->n_vocab)) return DURE_ERR_NOMEM;
    }
    return DURE_OK;
}

/* An adapter that has learned something: at the start B is zero, and so is what comes of it. */
static dure_err make_adapter(proof *p)
{
    uint64_t random = 2;
    dure_err err = dure_lora_new(&p->lora, p->task->layout);
    if (err) return err;
    for (size_t i = 0; i < p->lora->n; i++)
        p->lora->params[i] = ((float)(dure_splitmix64(&random) >> 40) * 0x1p-23f - 1) * 0.02f;
    dure_lora_changed(p->lora);
    return dure_transformer_init_magnitudes(p->model, p->lora, p->diag);
}

/* Documents of full passes: those of one, and more, so that a second one begins. A pass has room
 * for so many gradients alone. */
static size_t many(const proof *p)
{
    size_t tokens = 0, rows = dure_transformer_rows(p->model) + 1;
    for (size_t i = 0; i < RECORDS; i++)
        tokens += p->samples[i].n;
    size_t rounds = rows / tokens + 3, most = PASSED_FLOATS / p->n / RECORDS + 2;
    return (rounds < most ? rounds : most) * RECORDS;
}

static dure_err allocate(proof *p)
{
    p->n = dure_lora_count(p->task->layout, p->task->opts->factors);
    size_t n_docs = many(p);
    p->sum = calloc(p->n, sizeof *p->sum);
    p->expected = calloc(p->n, sizeof *p->expected);
    p->integers = calloc(p->n, sizeof *p->integers);
    p->docs = calloc(n_docs, sizeof *p->docs);
    p->which = calloc(n_docs, sizeof *p->which);
    p->masks = calloc(n_docs, sizeof *p->masks);
    p->outcomes = calloc(n_docs, sizeof *p->outcomes);
    bool got =
        p->sum && p->expected && p->integers && p->docs && p->which && p->masks && p->outcomes;
    return got ? DURE_OK : DURE_ERR_NOMEM;
}

static void fini(proof *p)
{
    for (size_t i = 0; i < RECORDS; i++) {
        free(p->samples[i].tokens);
        free(p->samples[i].supervised);
    }
    dure_lora_free(&p->lora);
    free(p->sum);
    free(p->expected);
    free(p->integers);
    free(p->docs);
    free(p->which);
    free(p->masks);
    free(p->outcomes);
}

/* --- the questions --- */

static void add_doc(proof *p, size_t which)
{
    const sample *s = &p->samples[which];
    p->docs[p->n_docs] =
        (dure_document){.tokens = s->tokens, .supervised = s->supervised, .n = s->n};
    p->masks[p->n_docs] = which + 1;
    p->which[p->n_docs++] = (uint8_t)which;
}

/* The gradient itself, and the integers that this processor makes of it. The loss is told apart
 * more finely: on its way no number is rounded to bfloat16. */
static dure_err look(void *state, size_t doc, const float *gradient, const dure_document_loss *loss)
{
    proof *p = state;
    sample *s = &p->samples[p->which[doc]];
    const dure_clip_outcome *outcome = &p->outcomes[doc];
    dure_hash now;
    if (!gradient) return refuse(p, "a record's gradient is missing");
    dure_err err =
        dure_hash_bytes(&now, dure_span_of((const uint8_t *)gradient, p->n * sizeof *gradient));
    if (err) return err;
    bool added = dure_quantize(p->integers, gradient, p->n, &p->plan);
    for (size_t i = 0; i < p->n; i++)
        p->expected[i] += p->integers[i];
    if (p->alone) {
        s->alone = now;
        s->nll_sum = loss->nll_sum;
        s->norm_square = outcome->norm_square;
    } else if (!dure_hash_equal(&now, &s->alone) ||
               memcmp(&loss->nll_sum, &s->nll_sum, sizeof s->nll_sum) != 0) {
        return refuse(p, "a record's gradient changes with the records beside it");
    }
    if (outcome->added != added) return refuse(p, "it clips other records than the CPU does");
    return DURE_OK;
}

/* The documents that were added, in one call; their sum is compared. */
static dure_err ask(proof *p, double clip)
{
    p->plan.clip = clip;
    const dure_quantize_bounds b = dure_quantize_bounds_of(p->n, &p->plan);
    const dure_gradient_clip how = {.per_unit = b.per_unit,
                                    .norm_most = b.norm_most,
                                    .squares_most = b.squares_most,
                                    .sum = p->sum,
                                    .outcome = p->outcomes,
                                    .show = true};
    const dure_gradient_opts opts = {.factors = p->task->opts->factors,
                                     .dropout = p->task->opts->dropout,
                                     .dropout_seeds = p->masks,
                                     .clip = &how};
    for (size_t i = 0; i < p->n; i++)
        p->sum[i] = p->expected[i] = (int64_t)i - 7; /* as the noise would be there before */
    dure_err err =
        dure_transformer_gradients(p->model, p->lora, &opts, p->docs, p->n_docs, look, p, p->diag);
    if (!err && memcmp(p->sum, p->expected, p->n * sizeof *p->sum) != 0)
        err = refuse(p, "its clipped integers are not the CPU's");
    p->n_docs = 0;
    return err;
}

/* Each record alone, the first without regard to its norm; then they are clipped to a fourth of
 * that, and to four times of it. */
static dure_err ask_alone(proof *p, double *norm)
{
    p->alone = true;
    *norm = 1;
    for (size_t i = 0; i < RECORDS; i++) {
        add_doc(p, i);
        dure_err err = ask(p, *norm * (i % 2 ? 4 : 0.25));
        if (err) return err;
        if (i > 0) continue;
        *norm = sqrt(p->samples[0].norm_square);
        if (!(*norm > 1e-30 && *norm < 1e30))
            return refuse(p, "the gradient of a record of random tokens is zero or not finite");
    }
    p->alone = false;
    return DURE_OK;
}

static dure_err ask_together(proof *p, double norm)
{
    for (size_t i = 0; i < RECORDS; i++)
        add_doc(p, i);
    return ask(p, norm / 4);
}

/* Another order, and passes as full as they get. */
static dure_err ask_full(proof *p, double norm)
{
    for (size_t i = 0, n = many(p); i < n; i++)
        add_doc(p, (RECORDS - 1 - i % RECORDS + i / RECORDS) % RECORDS);
    return ask(p, norm);
}

/* What is not a number must not reach the sum. */
static dure_err ask_not_finite(proof *p)
{
    for (size_t i = 0; i < RECORDS; i++)
        add_doc(p, i);
    for (size_t i = 0; i < p->lora->n; i++)
        p->lora->params[i] = NAN;
    dure_lora_changed(p->lora);
    p->alone = true; /* these bits are compared with none */
    dure_err err = ask(p, 1);
    for (size_t i = 0; !err && i < RECORDS; i++)
        if (p->outcomes[i].added) err = refuse(p, "a gradient that is not finite is not left out");
    return err;
}

dure_err dure_device_proof(size_t *records, dure_transformer *model, const dure_trainer_task *task,
                           dure_diag *diag)
{
    proof p = {.model = model, .task = task, .diag = diag};
    double norm = 0;
    *records = 0;
    if (!dure_transformer_clips(model)) return DURE_OK;
    dure_err err = make_samples(&p);
    if (!err) err = allocate(&p);
    if (!err) err = make_adapter(&p);
    if (!err) err = dure_dp_grid_bits(&p.plan.grid_bits, p.n, diag);
    if (!err) err = ask_alone(&p, &norm);
    if (!err) err = ask_together(&p, norm);
    if (!err) err = ask_full(&p, norm);
    if (!err) err = ask_not_finite(&p);
    if (!err) *records = 3 * RECORDS + many(&p);
    fini(&p);
    return err;
}
