#include "serve/scheduler.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/thread.h"
#include "model/decode.h"

#include <pthread.h>
#include <stdlib.h>

#define SLOTS_DEFAULT 4
#define QUEUE_DEFAULT 64
/* A long prompt is taken in pieces, so that the other slots get their turn in between. */
#define PREFILL_TOKENS 256
#define WAIT_MS 2
/* How long an answer that was cut off may take to reach its reader when the scheduler ends. */
#define LAST_WORDS_MS 1000
/* top_p of 0 asks for the likeliest token; the sampler takes 0 for "no limit". */
#define TOP_P_LEAST 1e-9

typedef struct slot {
    dure_prompt *prompt; /* NULL: free */
    dure_decoder *decoder;
    dure_sampler sampler;
    size_t fed;
    uint32_t made;
    bool ended;
    int32_t pending; /* a token chosen in this round, to be fed with those of the other slots */
    bool has_pending;
} slot;

struct dure_scheduler {
    dure_transformer *model;
    const dure_tokenizer *tokenizer;
    dure_metrics *metrics;
    size_t n_vocab;
    uint32_t positions, n_slots, queue_capacity;
    slot *slots; /* the thread's own */
    pthread_t thread;
    bool running; /* the thread was started */

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t work, idle;
    dure_prompt *first, *last; /* waiting */
    size_t n_queued, n_busy, used_positions;
    bool draining, stopping;
};

static void end_prompt(slot *s, dure_end how)
{
    s->ended = true;
    s->prompt->owner->end(s->prompt->state, how);
}

/* Fills in the log-probability of `token` and of the likeliest at the place that `logits` is for.
 */
static void fill_event(dure_token_event *event, const dure_scheduler *scheduler,
                       const dure_prompt *prompt, const float *logits, int32_t token)
{
    const size_t n_vocab = scheduler->n_vocab;
    *event = (dure_token_event){.chosen = {.token = token}};
    if (!prompt->logprobs || !logits) return;
    int32_t ids[DURE_API_LOGPROBS_MAX + 1] = {token};
    float logprobs[DURE_API_LOGPROBS_MAX + 1];
    event->has_logprob = true;
    event->n_top = prompt->top_logprobs < n_vocab ? prompt->top_logprobs : n_vocab;
    dure_top_tokens(ids + 1, event->n_top, logits, n_vocab);
    dure_logprob_each(logprobs, ids, event->n_top + 1, logits, n_vocab);
    event->chosen.logprob = logprobs[0];
    for (size_t i = 0; i < event->n_top; i++)
        event->top[i] = (dure_token_choice){.token = ids[i + 1], .logprob = logprobs[i + 1]};
}

static void fail(slot *s, dure_err err, const dure_diag *diag)
{
    dure_log(DURE_LOG_ERROR, "serve", "decode_failed", "error=\"%s\" reason=\"%s\"",
             dure_err_text(err), diag->text);
    end_prompt(s, DURE_END_FAILED);
}

typedef struct score_state {
    dure_scheduler *scheduler;
    slot *slot;
} score_state;

/* Tells the owner of token i of the prompt; `logits` are those before it. */
static bool tell_prompt(dure_scheduler *scheduler, slot *s, size_t i, const float *logits)
{
    const dure_prompt *prompt = s->prompt;
    dure_token_event event;
    fill_event(&event, scheduler, prompt, logits, prompt->tokens[i]);
    event.of_prompt = true;
    return prompt->owner->token(prompt->state, &event) != DURE_FLOW_STOP;
}

/* Hears what follows tokens[0..i] of a piece. */
static bool on_score(void *state, size_t i, const float *logits)
{
    const score_state *score = state;
    size_t next = score->slot->fed + i + 1;
    if (next == score->slot->prompt->n_tokens) return true;
    return tell_prompt(score->scheduler, score->slot, next, logits);
}

/* The next piece of the prompt, of which the owner hears when its own log-probabilities are asked
 * for. */
static void prefill(dure_scheduler *scheduler, slot *s)
{
    const dure_prompt *prompt = s->prompt;
    const int32_t *tokens = prompt->tokens + s->fed;
    size_t n = prompt->n_tokens - s->fed;
    if (n > PREFILL_TOKENS) n = PREFILL_TOKENS;
    score_state state = {scheduler, s};
    dure_diag diag = {0};
    dure_err err = DURE_OK;
    if (!prompt->echo_logprobs)
        err = dure_decoder_feed(s->decoder, prompt->lora, tokens, n, &diag);
    else if (s->fed == 0 && !tell_prompt(scheduler, s, 0, NULL))
        err = DURE_ERR_CANCELLED;
    else
        err = dure_decoder_score(s->decoder, prompt->lora, tokens, n, on_score, &state, &diag);
    s->fed += n;
    if (err == DURE_ERR_CANCELLED)
        end_prompt(s, DURE_END_CANCELLED);
    else if (err)
        fail(s, err, &diag);
    else if (s->fed == prompt->n_tokens && prompt->max_tokens == 0)
        end_prompt(s, DURE_END_LENGTH);
}

static void generate(dure_scheduler *scheduler, slot *s)
{
    const dure_prompt *prompt = s->prompt;
    const float *logits = dure_decoder_logits(s->decoder);
    int32_t token = dure_sampler_next(&s->sampler, logits);
    if (dure_tokenizer_is_end(scheduler->tokenizer, token)) {
        end_prompt(s, DURE_END_STOP);
        return;
    }
    dure_token_event event;
    fill_event(&event, scheduler, prompt, logits, token);
    if (prompt->owner->token(prompt->state, &event) == DURE_FLOW_STOP) {
        end_prompt(s, DURE_END_CANCELLED);
        return;
    }
    s->made++;
    if (s->made == prompt->max_tokens || dure_decoder_room(s->decoder) == 0) {
        end_prompt(s, DURE_END_LENGTH);
    } else {
        s->pending = token;
        s->has_pending = true;
    }
}

/* Feeds the tokens chosen in this round: those of one adapter together, so that the weights are
 * read once for all of them. */
static void feed_pending(dure_scheduler *scheduler)
{
    for (uint32_t first = 0; first < scheduler->n_slots; first++) {
        if (!scheduler->slots[first].has_pending) continue;
        const dure_lora *lora = scheduler->slots[first].prompt->lora;
        dure_decoder *decoders[DURE_DECODERS_TOGETHER];
        slot *slots[DURE_DECODERS_TOGETHER];
        int32_t tokens[DURE_DECODERS_TOGETHER];
        size_t n = 0;
        for (uint32_t i = first; i < scheduler->n_slots && n < DURE_DECODERS_TOGETHER; i++) {
            slot *s = &scheduler->slots[i];
            if (!s->has_pending || s->prompt->lora != lora) continue;
            s->has_pending = false;
            decoders[n] = s->decoder;
            tokens[n] = s->pending;
            slots[n++] = s;
        }
        dure_diag diag = {0};
        dure_err err = dure_decoder_feed_each(decoders, tokens, n, lora, &diag);
        for (size_t i = 0; i < n && err; i++)
            fail(slots[i], err, &diag);
    }
}

static void vacate(dure_scheduler *scheduler, slot *s)
{
    dure_prompt *prompt = s->prompt;
    dure_sampler_fini(&s->sampler);
    prompt->owner->release(prompt->state);
    s->prompt = NULL;
    pthread_mutex_lock(&scheduler->lock);
    scheduler->n_busy--;
    if (scheduler->n_busy == 0) scheduler->used_positions = 0;
    if (scheduler->n_busy == 0 && !scheduler->first) pthread_cond_broadcast(&scheduler->idle);
    pthread_mutex_unlock(&scheduler->lock);
}

/* One turn of one slot. False when its reader has no room. */
static bool take_turn(dure_scheduler *scheduler, slot *s)
{
    dure_flow flow = s->prompt->owner->flow(s->prompt->state);
    if (flow == DURE_FLOW_WAIT) return false;
    if (s->ended)
        vacate(scheduler, s);
    else if (flow == DURE_FLOW_STOP)
        end_prompt(s, DURE_END_CANCELLED);
    else if (s->fed < s->prompt->n_tokens)
        prefill(scheduler, s);
    else
        generate(scheduler, s);
    return true;
}

static void occupy(dure_scheduler *scheduler, slot *s, dure_prompt *prompt)
{
    s->prompt = prompt;
    s->fed = 0;
    s->made = 0;
    s->ended = s->has_pending = false;
    dure_decoder_rewind(s->decoder, 0);
    dure_metrics_time(scheduler->metrics, DURE_TIMING_QUEUE,
                      dure_clock_monotonic_s() - prompt->submitted_s);
    const dure_sampling how = {.temperature = prompt->temperature,
                               .top_p = prompt->top_p > 0 ? prompt->top_p : TOP_P_LEAST,
                               .seed = prompt->seed};
    if (dure_sampler_init(&s->sampler, &how, scheduler->n_vocab)) end_prompt(s, DURE_END_FAILED);
}

static dure_prompt *pop(dure_scheduler *scheduler)
{
    dure_prompt *prompt = scheduler->first;
    if (!prompt) return NULL;
    scheduler->first = prompt->next;
    if (!scheduler->first) scheduler->last = NULL;
    scheduler->n_queued--;
    scheduler->n_busy++;
    return prompt;
}

/* Waits for work and gives waiting prompts to free slots. False when the scheduler is to end. */
static bool admit(dure_scheduler *scheduler)
{
    pthread_mutex_lock(&scheduler->lock);
    while (!scheduler->stopping && !scheduler->first && scheduler->n_busy == 0)
        pthread_cond_wait(&scheduler->work, &scheduler->lock);
    bool stopping = scheduler->stopping;
    scheduler->used_positions = 0;
    for (uint32_t i = 0; i < scheduler->n_slots; i++) {
        slot *s = &scheduler->slots[i];
        dure_prompt *prompt = s->prompt || stopping ? NULL : pop(scheduler);
        if (prompt) {
            pthread_mutex_unlock(&scheduler->lock);
            occupy(scheduler, s, prompt);
            pthread_mutex_lock(&scheduler->lock);
        }
        if (s->prompt) scheduler->used_positions += dure_decoder_length(s->decoder);
    }
    pthread_mutex_unlock(&scheduler->lock);
    return !stopping;
}

/* Ends everything that runs or waits; answers get a moment to reach their readers. */
static void cancel_all(dure_scheduler *scheduler)
{
    for (uint32_t i = 0; i < scheduler->n_slots; i++) {
        slot *s = &scheduler->slots[i];
        if (s->prompt && !s->ended) end_prompt(s, DURE_END_CANCELLED);
    }
    uint64_t end_ms = dure_clock_monotonic_ms() + LAST_WORDS_MS;
    for (uint32_t i = 0; i < scheduler->n_slots; i++) {
        slot *s = &scheduler->slots[i];
        while (s->prompt && !take_turn(scheduler, s)) {
            if (dure_clock_monotonic_ms() >= end_ms)
                vacate(scheduler, s);
            else
                dure_clock_sleep_ms(WAIT_MS);
        }
    }
    for (;;) {
        pthread_mutex_lock(&scheduler->lock);
        dure_prompt *prompt = pop(scheduler);
        if (prompt) scheduler->n_busy--;
        pthread_mutex_unlock(&scheduler->lock);
        if (!prompt) return;
        prompt->owner->end(prompt->state, DURE_END_CANCELLED);
        prompt->owner->flow(prompt->state);
        prompt->owner->release(prompt->state);
    }
}

static void *run(void *arg)
{
    dure_scheduler *scheduler = arg;
    while (admit(scheduler)) {
        bool progress = false;
        for (uint32_t i = 0; i < scheduler->n_slots; i++)
            if (scheduler->slots[i].prompt) progress |= take_turn(scheduler, &scheduler->slots[i]);
        feed_pending(scheduler);
        if (!progress) dure_clock_sleep_ms(WAIT_MS);
    }
    cancel_all(scheduler);
    return NULL;
}

static dure_err make_slots(dure_scheduler *scheduler)
{
    scheduler->slots = calloc(scheduler->n_slots, sizeof *scheduler->slots);
    if (!scheduler->slots) return DURE_ERR_NOMEM;
    for (uint32_t i = 0; i < scheduler->n_slots; i++) {
        dure_err err =
            dure_decoder_new(&scheduler->slots[i].decoder, scheduler->model, scheduler->positions);
        if (err) return err;
    }
    return DURE_OK;
}

dure_err dure_scheduler_new(dure_scheduler **out, dure_transformer *model,
                            const dure_tokenizer *tokenizer, dure_metrics *metrics,
                            const dure_scheduler_opts *opts)
{
    *out = NULL;
    dure_scheduler *scheduler = calloc(1, sizeof *scheduler);
    if (!scheduler) return DURE_ERR_NOMEM;
    const dure_model_shape *shape = dure_transformer_shape(model);
    scheduler->model = model;
    scheduler->tokenizer = tokenizer;
    scheduler->metrics = metrics;
    scheduler->n_vocab = shape->n_vocab;
    scheduler->n_slots = opts->slots ? opts->slots : SLOTS_DEFAULT;
    scheduler->queue_capacity = opts->queue ? opts->queue : QUEUE_DEFAULT;
    scheduler->positions =
        opts->positions && opts->positions < shape->n_context ? opts->positions : shape->n_context;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&scheduler->lock, NULL);
    pthread_cond_init(&scheduler->work, NULL);
    pthread_cond_init(&scheduler->idle, &attr);
    pthread_condattr_destroy(&attr);
    dure_err err = make_slots(scheduler);
    if (!err) err = dure_thread_start(&scheduler->thread, run, scheduler);
    scheduler->running = !err;
    if (err)
        dure_scheduler_free(&scheduler);
    else
        *out = scheduler;
    return err;
}

void dure_scheduler_stop(dure_scheduler *scheduler)
{
    pthread_mutex_lock(&scheduler->lock);
    scheduler->stopping = scheduler->draining = true;
    pthread_cond_broadcast(&scheduler->work);
    pthread_mutex_unlock(&scheduler->lock);
    if (scheduler->running) pthread_join(scheduler->thread, NULL);
    scheduler->running = false;
}

void dure_scheduler_free(dure_scheduler **handle)
{
    dure_scheduler *scheduler = *handle;
    if (!scheduler) return;
    dure_scheduler_stop(scheduler);
    for (uint32_t i = 0; scheduler->slots && i < scheduler->n_slots; i++)
        dure_decoder_free(&scheduler->slots[i].decoder);
    free(scheduler->slots);
    pthread_cond_destroy(&scheduler->work);
    pthread_cond_destroy(&scheduler->idle);
    pthread_mutex_destroy(&scheduler->lock);
    free(scheduler);
    *handle = NULL;
}

uint32_t dure_scheduler_positions(const dure_scheduler *scheduler)
{
    return scheduler->positions;
}

size_t dure_scheduler_prompts_max(const dure_scheduler *scheduler)
{
    return (size_t)scheduler->n_slots + scheduler->queue_capacity;
}

dure_err dure_scheduler_submit(dure_scheduler *scheduler, dure_prompt *prompts)
{
    size_t n = 0;
    dure_prompt *last = NULL;
    double now_s = dure_clock_monotonic_s();
    for (dure_prompt *prompt = prompts; prompt; prompt = prompt->next) {
        prompt->submitted_s = now_s;
        last = prompt;
        n++;
    }
    dure_err err = DURE_OK;
    pthread_mutex_lock(&scheduler->lock);
    /* What free slots will take at once does not wait. */
    size_t room = scheduler->queue_capacity + (scheduler->n_slots - scheduler->n_busy);
    if (scheduler->draining) {
        err = DURE_ERR_STATE;
    } else if (scheduler->n_queued + n > room) {
        err = DURE_ERR_BUSY;
    } else {
        if (scheduler->last)
            scheduler->last->next = prompts;
        else
            scheduler->first = prompts;
        scheduler->last = last;
        scheduler->n_queued += n;
        pthread_cond_signal(&scheduler->work);
    }
    pthread_mutex_unlock(&scheduler->lock);
    return err;
}

bool dure_scheduler_drain(dure_scheduler *scheduler, uint32_t timeout_ms)
{
    const struct timespec end = dure_clock_deadline(timeout_ms);
    pthread_mutex_lock(&scheduler->lock);
    scheduler->draining = true;
    int late = 0;
    while (!late && (scheduler->n_busy > 0 || scheduler->first))
        late = pthread_cond_timedwait(&scheduler->idle, &scheduler->lock, &end);
    bool done = scheduler->n_busy == 0 && !scheduler->first;
    pthread_mutex_unlock(&scheduler->lock);
    return done;
}

dure_gauges dure_scheduler_gauges(dure_scheduler *scheduler)
{
    pthread_mutex_lock(&scheduler->lock);
    const double all = (double)scheduler->n_slots * scheduler->positions;
    dure_gauges gauges = {.queued = scheduler->n_queued,
                          .queue_capacity = scheduler->queue_capacity,
                          .slots = scheduler->n_slots,
                          .slots_busy = scheduler->n_busy,
                          .kv_used_ratio = (double)scheduler->used_positions / all};
    pthread_mutex_unlock(&scheduler->lock);
    return gauges;
}
