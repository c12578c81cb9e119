#include "client/work.h"

#include "client/device_proof.h"
#include "client/share_update.h"
#include "common/clock.h"
#include "common/thread.h"
#include "crypto/hkdf.h"
#include "crypto/rng.h"
#include "crypto/wipe.h"
#include "federation/global_adapter.h"
#include "federation/quantise.h"
#include "model/base_digest.h"
#include "model/chat_template.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct dure_work {
    const dure_site *site;
    dure_work_opts opts;
    dure_gguf *gguf;
    dure_tokenizer *tokenizer;
    dure_chat_template chat;
    dure_transformer *transformer;
    dure_transformer_fit fit;
    size_t proved; /* records that the GPU was checked with */
    dure_dataset data;
    dure_hash data_hash, subject;
    char *attempt_path, *state_path;

    dure_lora *lora, *global; /* trained in place; where the round started */
    dure_trainer_opts trainer_opts;
    dure_trainer *trainer;
    dure_attempt attempt;
    bool has_attempt;
    const dure_dp_plan *plan; /* the round's, borrowed; NULL: without privacy */
    uint64_t n_steps;
    int32_t *units; /* NULL before the update was asked for */

    /* Shared with the training thread, under the lock. */
    pthread_t thread;
    pthread_mutex_t lock;
    bool has_thread;
    bool cancel, ended;
    dure_err err;
    dure_diag diag;
    dure_trainer_step *steps; /* n_steps of them */
    size_t n_taken, n_told;
};

/* ---- opening ---- */

static dure_err open_model(dure_work *w, dure_diag *diag)
{
    const dure_transformer_opts opts = {.threads = w->opts.threads,
                                        .weights = DURE_WEIGHTS_FILE,
                                        .cuda = w->opts.cuda,
                                        .device = w->opts.device,
                                        .device_bytes = w->opts.memory_bytes};
    const char *path = w->site->policy.model;
    dure_err err = dure_gguf_open(&w->gguf, path, NULL, diag);
    if (err) return err;
    err = dure_tokenizer_new(&w->tokenizer, w->gguf, diag);
    if (!err) err = dure_chat_template_open(&w->chat, NULL, w->gguf, w->tokenizer, diag);
    if (!err) err = dure_transformer_new(&w->transformer, w->gguf, &opts, diag);
    if (err) dure_diag_prefix(diag, err, "%s", path);
    return err;
}

static dure_err check_digest(const dure_work *w, dure_diag *diag)
{
    dure_hash digest;
    dure_err err = dure_base_digest(&digest, w->site->policy.model, diag);
    if (!err && !dure_hash_equal(&digest, &w->site->invitation.terms.base.digest)) {
        err = dure_diag_set(diag, DURE_ERR_STATE,
                            "%s is not the federation's base model any more; put the right file "
                            "there or set model in site.yaml",
                            w->site->policy.model);
    }
    return err;
}

/* The digest fixes the file; the terms' numbers about it must be the file's own. */
static dure_err check_shape(const dure_work *w, const dure_lora_layout *layout, dure_diag *diag)
{
    const dure_model_shape *a = dure_transformer_shape(w->transformer), *b = &layout->shape;
    if (strcmp(a->architecture, b->architecture) == 0 && a->n_layers == b->n_layers &&
        a->n_embd == b->n_embd && a->n_ff == b->n_ff && a->n_head == b->n_head &&
        a->n_head_kv == b->n_head_kv && a->head_dim == b->head_dim && a->n_vocab == b->n_vocab) {
        return DURE_OK;
    }
    return dure_diag_set(diag, DURE_ERR_STATE,
                         "the federation's terms describe another model than %s",
                         w->site->policy.model);
}

static bool is_of_mode(const dure_work *w, dure_privacy_mode mode)
{
    return w->site->invitation.terms.training.privacy_mode == mode;
}

static bool protects_subjects(const dure_work *w)
{
    return is_of_mode(w, DURE_PRIVACY_SUBJECT);
}

static bool protects_site(const dure_work *w)
{
    return is_of_mode(w, DURE_PRIVACY_CLIENT);
}

/* Noise in every step, for records or their subjects. A site as a whole trains as without privacy,
 * and its update is noised. */
static bool trains_privately(const dure_work *w)
{
    return is_of_mode(w, DURE_PRIVACY_RECORD) || protects_subjects(w);
}

/* Whoever names subjects may expect that they are protected. */
static dure_err check_unit(const dure_work *w, dure_diag *diag)
{
    const dure_policy *p = &w->site->policy;
    if (!is_of_mode(w, DURE_PRIVACY_RECORD) || w->data.n_naming == 0 || p->ignore_subjects)
        return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_POLICY,
                         "records of %s have a \"subject\", and this federation protects single "
                         "records: if that will do, join with --ignore-subjects, or set "
                         "ignore_subjects: true under data in site.yaml",
                         p->data);
}

static dure_err open_data(dure_work *w, dure_diag *diag)
{
    uint32_t context = dure_transformer_shape(w->transformer)->n_context;
    uint32_t most = w->site->invitation.terms.training.max_length;
    const dure_dataset_opts opts = {.max_length = most < context ? most : context,
                                    .tolerant = trains_privately(w),
                                    .private_records = trains_privately(w),
                                    .by_subject = protects_subjects(w)};
    dure_err err =
        dure_dataset_read(&w->data, w->site->policy.data, w->tokenizer, &w->chat, &opts, diag);
    if (!err) err = check_unit(w, diag);
    if (!err) err = dure_trainer_data_hash(&w->data_hash, &w->data);
    if (err) return err;
    const dure_span fields[] = {dure_hash_span(&w->site->invitation.terms.base.digest),
                                dure_hash_span(&w->data_hash)};
    return dure_hash_labeled(&w->subject, "DURE/1/site-training", fields, 2);
}

/* Single bad records contribute zero; a file of nothing else would spend the budget for nothing. */
static dure_err check_usable(const dure_work *w, dure_diag *diag)
{
    for (size_t i = 0; i < w->data.n; i++) {
        if (w->data.records[i].n_labels > 0) return DURE_OK;
    }
    return dure_diag_set(diag, DURE_ERR_FORMAT,
                         "%s: none of its %zu records leaves a response to learn from within the "
                         "federation's %u tokens; 'dure data check' says why, line by line",
                         w->site->policy.data, w->data.n,
                         w->site->invitation.terms.training.max_length);
}

static uint32_t per_subject(const dure_work *w)
{
    if (!protects_subjects(w)) return 0;
    return w->site->policy.per_subject ? w->site->policy.per_subject : DURE_PER_SUBJECT;
}

/* Of the batches' order where no noise is added to each: the site's secret, and the same after a
 * restart, or the saved optimizer would be of another training. */
static dure_err own_seed(uint64_t *seed, const dure_work *w)
{
    uint8_t bytes[8];
    dure_err err = dure_hkdf(bytes, sizeof bytes, dure_span_of(NULL, 0),
                             dure_span_of(w->site->sign.secret, sizeof w->site->sign.secret),
                             dure_span_of_text("dure/work/seed/1"));
    dure_reader r = dure_reader_of(dure_span_of(bytes, sizeof bytes));
    *seed = 0;
    if (!err) err = dure_take_u64(seed, &r);
    dure_wipe(bytes, sizeof bytes);
    return err;
}

/* The constants that the trainer has fixed must be those that the root signed. */
static dure_err make_opts(dure_work *w, dure_diag *diag)
{
    const dure_training_terms *t = &w->site->invitation.terms.training;
    bool adam = t->optimizer == DURE_LOCAL_ADAMW;
    if (adam && (t->beta1 != 0.9 || t->beta2 != 0.999 || t->optimizer_epsilon != 1e-8)) {
        return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                             "the federation asks for AdamW with other constants than 0.9, 0.999 "
                             "and 1e-8, which this program does not have");
    }
    uint64_t seed;
    dure_err err = own_seed(&seed, w);
    w->trainer_opts = (dure_trainer_opts){.factors = DURE_LORA_FACTOR_B,
                                          .optimizer = adam ? DURE_TRAINER_ADAMW : DURE_TRAINER_SGD,
                                          .learning_rate = t->learning_rate,
                                          .weight_decay = adam ? t->weight_decay : 0,
                                          .momentum = adam ? 0 : t->beta1,
                                          .batch = w->site->state.declared.batch,
                                          .per_subject = per_subject(w),
                                          .seed = seed,
                                          .subject = &w->subject};
    return err;
}

/* What a round trains. The update's way into units, and its start, are held beside it. */
static dure_trainer_task task_of(const dure_work *w)
{
    const dure_lora_layout *layout = &w->lora->layout;
    return (dure_trainer_task){.data = &w->data,
                               .layout = layout,
                               .opts = &w->trainer_opts,
                               .is_private = trains_privately(w),
                               .other_bytes =
                                   dure_lora_count(layout, DURE_LORA_FACTOR_BOTH) * sizeof(float) +
                                   dure_lora_count(layout, DURE_LORA_FACTOR_B) * 3 * sizeof(float)};
}

static dure_err fit_memory(dure_work *w, dure_diag *diag)
{
    const dure_trainer_task task = task_of(w);
    uint64_t limit = w->opts.memory_bytes;
    if (!limit) limit = w->site->policy.memory_mb * 1000000;
    return dure_trainer_fit(&w->fit, w->transformer, &task, limit, diag);
}

/* A round that was cut off cannot go on: its secrets were in memory. Nothing of it left, or it was
 * charged; in both cases its noise must never be drawn again. */
static dure_err erase_leftover(dure_work *w, dure_diag *diag)
{
    dure_attempt old;
    if (!dure_file_exists(w->attempt_path)) return DURE_OK;
    dure_err err = dure_attempt_open(&old, w->attempt_path, diag);
    if (!err) return dure_attempt_erase(&old, diag);
    return unlink(w->attempt_path) ? dure_file_errno(diag, "remove", w->attempt_path) : DURE_OK;
}

/* A GPU that does not keep what privacy counts on takes part in no round. */
static dure_err prove_device(dure_work *w, dure_diag *diag)
{
    const dure_trainer_task task = task_of(w);
    if (!trains_privately(w)) return DURE_OK;
    return dure_device_proof(&w->proved, w->transformer, &task, diag);
}

static dure_work *new_work(const dure_site *site, const dure_work_opts *opts)
{
    dure_work *w = calloc(1, sizeof *w);
    if (!w) return NULL;
    w->site = site;
    w->opts = *opts;
    pthread_mutex_init(&w->lock, NULL);
    return w;
}

/* Model and records, and how to train within the memory there is. */
static dure_err open_training(dure_work *w, dure_diag *diag)
{
    dure_lora_layout layout;
    dure_err err = open_model(w, diag);
    if (!err) err = dure_global_adapter_layout(&layout, &w->site->invitation.terms, diag);
    if (!err) err = check_shape(w, &layout, diag);
    if (!err) err = dure_lora_new(&w->lora, &layout);
    if (!err) err = open_data(w, diag);
    if (!err) err = check_usable(w, diag);
    if (!err) err = make_opts(w, diag);
    /* On a GPU the first pass finds the way. */
    if (!err && !w->opts.cuda) err = fit_memory(w, diag);
    return err;
}

dure_err dure_work_open(dure_work **out, const dure_site *site, const dure_work_opts *opts,
                        dure_diag *diag)
{
    dure_work *w = new_work(site, opts);
    *out = NULL;
    if (!w) return DURE_ERR_NOMEM;
    w->attempt_path = dure_site_path(site, DURE_SITE_ATTEMPT);
    w->state_path = dure_site_path(site, DURE_SITE_TRAINING);
    dure_err err = w->attempt_path && w->state_path ? DURE_OK : DURE_ERR_NOMEM;
    if (!err) err = check_digest(w, diag);
    if (!err) err = open_training(w, diag);
    if (!err) err = prove_device(w, diag);
    if (!err) err = erase_leftover(w, diag);
    if (err) dure_work_close(&w);
    *out = w;
    return err;
}

dure_err dure_work_check(const dure_site *site, dure_diag *diag)
{
    const dure_work_opts opts = {.threads = 0};
    dure_work *w = new_work(site, &opts);
    if (!w) return DURE_ERR_NOMEM;
    dure_err err = open_training(w, diag);
    dure_work_close(&w);
    return err;
}

void dure_work_close(dure_work **work)
{
    if (!work || !*work) return;
    dure_work *w = *work;
    dure_work_drop(w);
    dure_trainer_free(&w->trainer);
    dure_lora_free(&w->lora);
    dure_dataset_fini(&w->data);
    dure_transformer_free(&w->transformer);
    dure_tokenizer_free(&w->tokenizer);
    dure_gguf_close(&w->gguf);
    pthread_mutex_destroy(&w->lock);
    free(w->attempt_path);
    free(w->state_path);
    free(w);
    *work = NULL;
}

dure_work_facts dure_work_facts_of(const dure_work *w)
{
    dure_work_facts facts = {.records = w->data.n,
                             .cut = w->data.n_cut,
                             .unusable = w->data.n_unusable,
                             .trained = dure_lora_count(&w->lora->layout, DURE_LORA_FACTOR_B),
                             .path = dure_transformer_path(w->transformer),
                             .proved = w->proved,
                             .fit = w->fit,
                             .device = dure_transformer_device_fit(w->transformer)};
    for (size_t i = 0; i < w->data.n; i++) {
        facts.tokens += w->data.records[i].n;
    }
    return facts;
}

/* ---- the training thread ---- */

static dure_err on_step(void *state, const dure_trainer_step *step)
{
    dure_work *w = state;
    pthread_mutex_lock(&w->lock);
    if (w->n_taken < w->n_steps) w->steps[w->n_taken++] = *step;
    bool cancel = w->cancel;
    pthread_mutex_unlock(&w->lock);
    if (w->opts.wake) w->opts.wake(w->opts.state);
    return cancel ? DURE_ERR_CANCELLED : DURE_OK;
}

static void *train(void *state)
{
    dure_work *w = state;
    dure_diag diag = {{0}};
    dure_err err = dure_trainer_run(w->trainer, w->n_steps, on_step, w, &diag);
    pthread_mutex_lock(&w->lock);
    w->err = err;
    w->diag = diag;
    w->ended = true;
    pthread_mutex_unlock(&w->lock);
    if (w->opts.wake) w->opts.wake(w->opts.state);
    return NULL;
}

static void join_thread(dure_work *w)
{
    if (!w->has_thread) return;
    pthread_join(w->thread, NULL);
    w->has_thread = false;
}

/* ---- a round ---- */

/* The optimizer goes on from the state that was saved with the last charge. A state of other
 * records or settings is not an error: the optimizer then starts anew. */
static dure_err make_trainer(dure_work *w, const dure_work_round *round, dure_diag *diag)
{
    dure_err err =
        dure_trainer_new(&w->trainer, w->transformer, &w->data, w->lora, &w->trainer_opts, diag);
    if (!err && dure_file_exists(w->state_path)) {
        err = dure_trainer_load(w->trainer, w->state_path, diag);
        if (err == DURE_ERR_STATE || err == DURE_ERR_FORMAT) err = DURE_OK;
    }
    if (!err && dure_trainer_at(w->trainer) > round->first_step) {
        err = dure_diag_set(diag, DURE_ERR_STATE,
                            "the saved training is ahead of what was charged; remove %s",
                            w->state_path);
    }
    return err;
}

static dure_err begin_attempt(dure_work *w, const dure_work_round *round, dure_diag *diag)
{
    w->trainer_opts.plan = trains_privately(w) ? round->plan : NULL;
    w->trainer_opts.attempt = NULL;
    w->plan = round->plan;
    if (!round->plan) return DURE_OK;
    dure_err err = dure_attempt_begin(&w->attempt, w->attempt_path, round->config_hash,
                                      &w->data_hash, round->reservation.b, diag);
    w->has_attempt = !err;
    if (trains_privately(w)) w->trainer_opts.attempt = &w->attempt;
    return err;
}

dure_err dure_work_start(dure_work *w, const dure_work_round *round, dure_diag *diag)
{
    dure_work_drop(w);
    dure_err err =
        dure_global_adapter_parse(&w->global, &w->site->invitation.terms, round->adapter, diag);
    if (!err) err = begin_attempt(w, round, diag);
    if (!err && !w->trainer) err = make_trainer(w, round, diag);
    if (!err && w->trainer_opts.plan) dure_trainer_use_attempt(w->trainer, &w->attempt);
    if (!err) err = dure_trainer_skip_to(w->trainer, round->first_step, diag);
    if (!err) {
        memcpy(w->lora->params, w->global->params, w->lora->n * sizeof *w->lora->params);
        dure_lora_changed(w->lora);
        w->n_steps = round->n_steps;
        w->steps = calloc((size_t)round->n_steps, sizeof *w->steps);
        if (!w->steps) err = DURE_ERR_NOMEM;
    }
    if (!err) {
        w->err = DURE_OK;
        w->diag = (dure_diag){{0}};
        err = dure_thread_start(&w->thread, train, w);
        if (err) dure_diag_set(diag, err, "cannot start the training thread; free some memory");
        w->has_thread = !err;
    }
    if (err) dure_work_drop(w);
    return err;
}

bool dure_work_next_step(dure_trainer_step *out, dure_work *w)
{
    pthread_mutex_lock(&w->lock);
    bool there = w->n_told < w->n_taken;
    if (there) *out = w->steps[w->n_told++];
    pthread_mutex_unlock(&w->lock);
    return there;
}

uint32_t dure_work_steps_done(dure_work *w)
{
    pthread_mutex_lock(&w->lock);
    uint32_t n = (uint32_t)w->n_taken;
    pthread_mutex_unlock(&w->lock);
    return n;
}

dure_work_state dure_work_state_of(dure_work *w, dure_diag *diag)
{
    if (!w->steps) return DURE_WORK_IDLE;
    pthread_mutex_lock(&w->lock);
    bool ended = w->ended;
    pthread_mutex_unlock(&w->lock);
    if (!ended) return DURE_WORK_TRAINING;
    join_thread(w);
    if (!w->err || dure_work_lost(w, NULL)) return DURE_WORK_TRAINED;
    if (diag) {
        dure_diag_set(diag, w->err, "%s", w->diag.text[0] ? w->diag.text : dure_err_text(w->err));
    }
    return DURE_WORK_FAILED;
}

bool dure_work_lost(const dure_work *w, dure_diag *why)
{
    if (!w->ended || w->err != DURE_ERR_STATE || !protects_site(w)) return false;
    if (why) *why = w->diag;
    return true;
}

/* One stream a round: its attempt is bound to the round's configuration. */
static dure_err make_shared(dure_work *w, const float *trained, const float *global, size_t n,
                            dure_diag *diag)
{
    bool zeroed = false;
    dure_stream *stream = NULL;
    const dure_share_update update = {.trained = dure_work_lost(w, NULL) ? NULL : trained,
                                      .global = global,
                                      .n = n,
                                      .limit = w->site->invitation.terms.grid.limit};
    dure_err err = dure_attempt_stream(&stream, &w->attempt, "share", 0, 0);
    if (err) return err;
    const dure_rng rng = dure_stream_rng(stream);
    err = dure_share_update_make(w->units, &zeroed, &update, w->plan, &rng, diag);
    dure_stream_free(&stream);
    return err;
}

static dure_err make_units(dure_work *w, size_t n, dure_diag *diag)
{
    float *trained = malloc(n * sizeof *trained), *global = malloc(n * sizeof *global);
    w->units = calloc(n, sizeof *w->units);
    dure_err err = trained && global && w->units ? DURE_OK : DURE_ERR_NOMEM;
    if (!err) {
        dure_lora_pack(trained, w->lora, DURE_LORA_FACTOR_B);
        dure_lora_pack(global, w->global, DURE_LORA_FACTOR_B);
        err = protects_site(w) ? make_shared(w, trained, global, n, diag)
                               : dure_quantise_update(w->units, NULL, trained, global, n,
                                                      &w->site->invitation.terms.grid, diag);
    }
    if (trained) dure_wipe(trained, n * sizeof *trained);
    free(trained);
    free(global);
    return err;
}

dure_err dure_work_update(const int32_t **units, size_t *n, dure_work *w, dure_diag *diag)
{
    *units = NULL;
    *n = dure_lora_count(&w->lora->layout, DURE_LORA_FACTOR_B);
    if (dure_work_state_of(w, NULL) != DURE_WORK_TRAINED) {
        return dure_diag_set(diag, DURE_ERR_STATE, "the training of this round is not done");
    }
    dure_err err = w->units ? DURE_OK : make_units(w, *n, diag);
    if (!err) *units = w->units;
    return err;
}

/* The thread's leavings, once it has ended. */
static void forget_round(dure_work *w)
{
    if (w->units) {
        dure_wipe(w->units, dure_lora_count(&w->lora->layout, DURE_LORA_FACTOR_B) * 4);
    }
    free(w->units);
    free(w->steps);
    w->units = NULL;
    w->steps = NULL;
    w->n_taken = w->n_told = 0;
    w->ended = w->cancel = false;
    dure_lora_free(&w->global);
}

/* What has run away would run away again: the next round's optimizer starts anew. */
static dure_err save_trainer(dure_work *w, dure_diag *diag)
{
    if (!dure_work_lost(w, NULL)) return dure_trainer_save(w->trainer, w->state_path, diag);
    dure_trainer_free(&w->trainer);
    if (!dure_file_exists(w->state_path) || !unlink(w->state_path)) return DURE_OK;
    return dure_file_errno(diag, "remove", w->state_path);
}

dure_err dure_work_charge(dure_work *w, dure_diag *diag)
{
    dure_err err = save_trainer(w, diag);
    if (!err && w->has_attempt) err = dure_attempt_erase(&w->attempt, diag);
    if (err) return err;
    w->has_attempt = false;
    forget_round(w);
    return DURE_OK;
}

void dure_work_drop(dure_work *w)
{
    pthread_mutex_lock(&w->lock);
    w->cancel = true;
    pthread_mutex_unlock(&w->lock);
    join_thread(w);
    /* The optimizer has seen noise that was not charged: it must not reach a later update. */
    if (w->steps || w->has_attempt) dure_trainer_free(&w->trainer);
    if (w->has_attempt && dure_attempt_erase(&w->attempt, NULL)) dure_attempt_fini(&w->attempt);
    w->has_attempt = false;
    forget_round(w);
}

/* ---- the dry run ---- */

static dure_err ignore(void *state, size_t doc, const float *gradient,
                       const dure_document_loss *loss)
{
    (void)state;
    (void)doc;
    (void)gradient;
    (void)loss;
    return DURE_OK;
}

dure_err dure_work_measure(double *seconds, size_t *tokens, dure_work *w, size_t n_records,
                           dure_diag *diag)
{
    const dure_gradient_opts opts = {.factors = DURE_LORA_FACTOR_B};
    size_t n = n_records < w->data.n ? n_records : w->data.n;
    dure_document *docs = calloc(n ? n : 1, sizeof *docs);
    *seconds = 0;
    *tokens = 0;
    if (!docs) return DURE_ERR_NOMEM;
    for (size_t i = 0; i < n; i++) {
        docs[i] = dure_dataset_document(&w->data, i);
        *tokens += docs[i].n;
    }
    dure_lora_init_orthonormal(w->lora, w->site->invitation.terms.layout.seed);
    double start_s = dure_clock_monotonic_s();
    dure_err err =
        dure_transformer_gradients(w->transformer, w->lora, &opts, docs, n, ignore, NULL, diag);
    *seconds = dure_clock_monotonic_s() - start_s;
    free(docs);
    return err;
}
