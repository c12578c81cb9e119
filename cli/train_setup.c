#include "cli/train_setup.h"

#include "model/base_digest.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* rsLoRA (Kalajdzievski, arXiv 2312.03732) is another alpha: alpha / sqrt(r) = alpha sqrt(r) / r.
 * The files then name that alpha, which every reader of them understands. */
static dure_err set_alpha(dure_lora_layout *layout, const dure_train_options *o, uint32_t first,
                          dure_diag *diag)
{
    double alpha = o->alpha_given ? o->alpha : 2 * (double)first;
    for (int t = 0; o->rslora && t < DURE_LORA_TARGETS; t++)
        if (layout->ranks[t])
            return dure_diag_set(diag, DURE_ERR_USAGE,
                                 "--rslora with several ranks would need an alpha for each; give "
                                 "all targets one --rank");
    layout->alpha = (float)(o->rslora ? alpha * sqrt((double)layout->rank) : alpha);
    return DURE_OK;
}

static dure_err make_layout(dure_lora_layout *layout, const dure_train_setup *s,
                            const dure_train_options *o, dure_diag *diag)
{
    *layout = (dure_lora_layout){.shape = *dure_transformer_shape(s->m.transformer),
                                 .alpha = 1,
                                 .first_layer = (uint32_t)o->first_layer,
                                 .dora = o->dora};
    dure_err err = dure_lora_targets_parse(&layout->targets, o->targets, diag);
    if (!err) err = dure_lora_ranks_parse(layout, o->ranks, diag);
    if (!err) err = dure_lora_layout_check(layout, diag);
    if (err) return err;
    uint32_t first = layout->rank; /* the number that stands alone */
    dure_lora_ranks_settle(layout);
    return set_alpha(layout, o, first, diag);
}

static dure_err make_lora(dure_train_setup *s, const dure_train_options *o, dure_diag *diag)
{
    dure_lora_layout layout;
    if (o->init) {
        s->lora = s->m.lora;
        s->m.lora = NULL;
        return DURE_OK;
    }
    dure_err err = make_layout(&layout, s, o, diag);
    if (!err) err = dure_lora_new(&s->lora, &layout);
    if (err) return err;
    if (s->opts.factors == DURE_LORA_FACTOR_B)
        dure_lora_init_orthonormal(s->lora, o->seed);
    else
        dure_lora_init_uniform(s->lora, o->seed);
    return dure_transformer_init_magnitudes(s->m.transformer, s->lora, diag);
}

/* One bad record never stops a private run, but a file without a single good one is a slip, and
 * training on it would spend the budget for nothing. The owner alone sees this sentence. */
static dure_err check_usable(const dure_train_setup *s, const dure_train_options *o,
                             dure_diag *diag)
{
    for (size_t i = 0; i < s->data.n; i++)
        if (s->data.records[i].n_labels > 0) return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_FORMAT,
                         "%s: none of its %zu records leaves a response to learn from within %llu "
                         "tokens; 'dure data check' says why, line by line",
                         o->data, s->data.n, (unsigned long long)o->max_length);
}

static int by_tokens(const void *a, const void *b)
{
    const dure_document *x = a, *y = b;
    if (x->n != y->n) return x->n < y->n ? -1 : 1;
    return x->n ? memcmp(x->tokens, y->tokens, x->n * sizeof *x->tokens) : 0;
}

/* With privacy, a record that is trained on cannot be declared unprotected on the side. */
static dure_err check_disjoint(const dure_train_setup *s, const dure_train_options *o,
                               dure_diag *diag)
{
    dure_document *trained = malloc((s->data.n + 1) * sizeof *trained);
    if (!trained) return DURE_ERR_NOMEM;
    for (size_t i = 0; i < s->data.n; i++)
        trained[i] = dure_dataset_document(&s->data, i);
    qsort(trained, s->data.n, sizeof *trained, by_tokens);
    dure_err err = DURE_OK;
    for (size_t i = 0; !err && i < s->eval.n; i++) {
        dure_document doc = dure_dataset_document(&s->eval, i);
        if (doc.n && bsearch(&doc, trained, s->data.n, sizeof *trained, by_tokens))
            err = dure_diag_set(diag, DURE_ERR_USAGE,
                                "%s, line %u: this record is in %s too, whose records are "
                                "protected; --eval-unprotected needs records of its own",
                                o->eval, s->eval.records[i].line, o->data);
    }
    free(trained);
    return err;
}

/* Whoever names subjects may expect that they are protected: which it is has to be said. */
static dure_err check_unit(const dure_train_setup *s, const dure_train_options *o, dure_diag *diag)
{
    if (o->no_dp || o->unit_given || s->data.n_naming == 0) return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_USAGE,
                         "%zu records of %s have a \"subject\": say --unit subject to protect each "
                         "subject with all its records, or --unit record to protect single records",
                         s->data.n_naming, o->data);
}

static dure_err read_records(dure_train_setup *s, const dure_train_options *o, dure_diag *diag)
{
    uint32_t context = dure_transformer_shape(s->m.transformer)->n_context;
    dure_dataset_opts read = {.max_length =
                                  o->max_length < context ? (uint32_t)o->max_length : context,
                              .tolerant = !o->no_dp,
                              .private_records = !o->no_dp,
                              .by_subject = !strcmp(o->unit, "subject")};
    dure_err err = dure_dataset_format_parse(&read.format, o->format, diag);
    if (!err) err = dure_dataset_read(&s->data, o->data, s->m.tokenizer, &s->m.chat, &read, diag);
    if (!err) err = check_unit(s, o, diag);
    if (!err) err = check_usable(s, o, diag);
    if (err || !o->eval) return err;
    read.tolerant = read.private_records = read.by_subject = false;
    err = dure_dataset_read(&s->eval, o->eval, s->m.tokenizer, &s->m.chat, &read, diag);
    if (!err && !o->no_dp) err = check_disjoint(s, o, diag);
    return err;
}

/* A saved state goes on with this base and these records alone. */
static dure_err bind_subject(dure_train_setup *s, const dure_train_options *o, dure_diag *diag)
{
    dure_err err = dure_base_digest(&s->base, o->model, diag);
    if (!err) err = dure_trainer_data_hash(&s->data_hash, &s->data);
    const dure_span fields[] = {dure_hash_span(&s->base), dure_hash_span(&s->data_hash)};
    if (!err) err = dure_hash_labeled(&s->subject, "dure/train/subject/1", fields, 2);
    return err;
}

static dure_err set_options(dure_train_setup *s, const dure_train_options *o, dure_diag *diag)
{
    s->opts = dure_train_options_trainer(o);
    s->opts.subject = &s->subject;
    uint64_t n = o->no_dp ? s->data.n : o->records;
    dure_err err = dure_train_options_steps(&s->steps, &s->opts.schedule, o, n, diag);
    if (err || !o->eval) return err;
    s->judge = (dure_trainer_eval){.data = &s->eval,
                                   .every = dure_train_options_every(o->eval_every, s->steps),
                                   .steps = s->steps,
                                   .patience = o->patience};
    s->opts.eval = &s->judge;
    return DURE_OK;
}

/* Chooses how the model works within the memory there is, and packs its weights if that fits. */
static dure_err fit_memory(dure_train_setup *s, const dure_train_options *o, dure_diag *diag)
{
    const dure_trainer_task task = {
        .data = &s->data, .layout = &s->lora->layout, .opts = &s->opts, .is_private = !o->no_dp};
    return dure_trainer_fit(&s->fit, s->m.transformer, &task, o->memory * 1000000, diag);
}

/* Records that the chosen units of a step show, over those there are. */
static double share_shown(const dure_train_setup *s)
{
    const dure_dataset *data = &s->data;
    size_t shown = 0;
    if (!data->by_subject) return 1;
    for (uint32_t i = 0; i < data->n_subjects; i++) {
        size_t has = data->subject_first[i + 1] - data->subject_first[i];
        shown += has < s->opts.per_subject ? has : s->opts.per_subject;
    }
    return (double)shown / (double)data->n;
}

dure_train_step_size dure_train_usual_step(const dure_train_setup *s, const dure_train_options *o)
{
    double units = (double)(o->no_dp ? s->data.n : o->records);
    double share = share_shown(s) * (double)o->batch / units;
    return (dure_train_step_size){.records = share * (double)s->data.n,
                                  .tokens = share * (double)s->data.tokens.n};
}

double dure_train_judge_seconds(const dure_train_setup *s)
{
    if (!s->opts.eval) return 0;
    double times = ceil((double)s->steps / (double)s->judge.every);
    return times * (double)s->eval.tokens.n * s->fit.seconds_to_judge;
}

dure_err dure_train_setup_init(dure_train_setup *s, const dure_train_options *o, dure_diag *diag)
{
    dure_open_opts open = {.model = o->model,
                           .adapter = o->init,
                           .any_base = o->any_base,
                           .chat_template = o->chat_template,
                           .threads = (uint32_t)o->threads,
                           .profile = o->profile,
                           .fit_later = true};
    (void)dure_device_parse(&open.device, o->device);
    open.device_bytes = o->memory * 1000000;
    dure_device_say(o->device);
    *s = (dure_train_setup){.lora = NULL};
    dure_err err = dure_open_model_init(&s->m, &open, diag);
    if (!err) err = read_records(s, o, diag);
    if (!err) err = set_options(s, o, diag);
    if (!err) err = make_lora(s, o, diag);
    /* On a GPU the first pass finds the way. */
    if (!err && !open.device.cuda) err = fit_memory(s, o, diag);
    if (!err) err = bind_subject(s, o, diag);
    return err;
}

void dure_train_setup_fini(dure_train_setup *s)
{
    dure_lora_free(&s->lora);
    dure_dataset_fini(&s->data);
    dure_dataset_fini(&s->eval);
    dure_open_model_fini(&s->m);
}
