/* Prompts that share a model, on a tiny one. */
#include "serve/scheduler.h"

#include "model/transformer.h"
#include "support/check.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

#include <math.h>
#include <string.h>

enum { LONG = 700, SHORT = 4, PROMPTS = 2, ANSWER = 5 };

typedef struct hall {
    temp_dir dir;
    dure_gguf *gguf;
    dure_tokenizer *tokenizer;
    dure_transformer *model;
    dure_metrics *metrics;
    dure_scheduler *scheduler;
    int32_t tokens[LONG];
} hall;

static void open_hall(hall *h, uint32_t slots, uint32_t queue)
{
    const dure_transformer_opts opts = {.threads = 1, .precision = DURE_PRECISION_F32};
    temp_dir_make(&h->dir);
    const char *path = temp_dir_file(&h->dir, "tiny.gguf");
    tiny_model_write(path, &(tiny_model_opts){.seed = 5, .n_context = 1024});
    assert_ok(dure_gguf_open(&h->gguf, path, NULL, NULL));
    assert_ok(dure_tokenizer_new(&h->tokenizer, h->gguf, NULL));
    assert_ok(dure_transformer_new(&h->model, h->gguf, &opts, NULL));
    assert_ok(dure_metrics_new(&h->metrics));
    assert_ok(dure_scheduler_new(&h->scheduler, h->model, h->tokenizer, h->metrics,
                                 &(dure_scheduler_opts){.slots = slots, .queue = queue}));
    for (int i = 0; i < LONG; i++)
        h->tokens[i] = (i * 37 + 11) % TINY_VOCAB;
}

static void close_hall(hall *h)
{
    dure_scheduler_free(&h->scheduler);
    dure_metrics_free(&h->metrics);
    dure_transformer_free(&h->model);
    dure_tokenizer_free(&h->tokenizer);
    dure_gguf_close(&h->gguf);
    temp_dir_remove(&h->dir);
}

/* The owner of a prompt, which keeps what it is told; `ended` counts the ends of all. */
typedef struct listener {
    dure_prompt prompt;
    size_t *ended, place, stop_at; /* place: this was the how-manieth to end; stop_at 0: never */
    size_t of_prompt, made;
    int32_t answer[ANSWER];
    dure_token_event heard[LONG];
    dure_end how;
} listener;

static dure_flow on_flow(void *state)
{
    (void)state;
    return DURE_FLOW_GO;
}

static dure_flow on_token(void *state, const dure_token_event *event)
{
    listener *l = state;
    if (!event->of_prompt) {
        l->answer[l->made++] = event->chosen.token;
        return DURE_FLOW_GO;
    }
    l->heard[l->of_prompt++] = *event;
    return l->of_prompt == l->stop_at ? DURE_FLOW_STOP : DURE_FLOW_GO;
}

static void on_end(void *state, dure_end how)
{
    listener *l = state;
    l->how = how;
    l->place = ++*l->ended;
}

static void on_release(void *state)
{
    (void)state;
}

static const dure_prompt_owner owner = {
    .flow = on_flow, .token = on_token, .end = on_end, .release = on_release};

static listener listen(const hall *h, size_t *ended, size_t n, uint32_t max_tokens, bool echo)
{
    return (listener){.ended = ended,
                      .prompt = {.tokens = h->tokens,
                                 .n_tokens = n,
                                 .max_tokens = max_tokens,
                                 .logprobs = echo,
                                 .top_logprobs = echo ? 3 : 0,
                                 .echo_logprobs = echo,
                                 .owner = &owner}};
}

/* Both at once, to their ends. */
static void run_all(hall *h, listener *l, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        l[i].prompt.state = &l[i];
        if (i > 0) l[i - 1].prompt.next = &l[i].prompt;
    }
    assert_ok(dure_scheduler_submit(h->scheduler, &l[0].prompt));
    assert_true(dure_scheduler_drain(h->scheduler, 60000));
}

static void test_scheduler_scores_a_prompt_that_takes_many_turns(void **state)
{
    (void)state;
    static hall h;
    static listener l[1];
    static float expected[LONG];
    size_t ended = 0;
    open_hall(&h, 1, 1);
    assert_ok(dure_transformer_logprobs(expected, h.model, NULL, h.tokens, LONG, NULL));
    l[0] = listen(&h, &ended, LONG, 0, true);
    run_all(&h, l, 1);
    assert_int_equal(l[0].how, DURE_END_LENGTH);
    assert_int_equal(l[0].of_prompt, LONG);
    assert_false(l[0].heard[0].has_logprob);
    for (size_t i = 1; i < LONG; i++) {
        const dure_token_event *event = &l[0].heard[i];
        assert_int_equal(event->chosen.token, h.tokens[i]);
        assert_true(event->has_logprob && event->n_top == 3);
        /* the sums of exponentials differ in order alone */
        assert_true(fabsf(event->chosen.logprob - expected[i]) < 1e-5f);
        assert_true(event->top[0].logprob >= event->chosen.logprob);
        assert_true(event->top[0].logprob >= event->top[2].logprob);
    }
    close_hall(&h);
}

/* A short answer does not wait until a long prompt beside it is scored. */
static void test_scheduler_takes_turns_while_a_prompt_is_scored(void **state)
{
    (void)state;
    static hall h;
    static listener l[PROMPTS];
    size_t ended = 0;
    open_hall(&h, 2, 1);
    l[0] = listen(&h, &ended, LONG, 0, true);
    l[1] = listen(&h, &ended, SHORT, 1, false);
    run_all(&h, l, PROMPTS);
    assert_int_equal(l[1].place, 1);
    assert_int_equal(l[0].place, 2);
    assert_int_equal(l[0].of_prompt, LONG);
    close_hall(&h);
}

/* What is scored is in the cache: the answer goes on from there as from a prompt that was not. */
static void test_scheduler_answers_after_scoring(void **state)
{
    (void)state;
    static hall h;
    static listener l[PROMPTS];
    size_t ended = 0;
    open_hall(&h, 2, 1);
    l[0] = listen(&h, &ended, 300, ANSWER, true);
    l[1] = listen(&h, &ended, 300, ANSWER, false);
    run_all(&h, l, PROMPTS);
    assert_int_equal(l[0].of_prompt, 300);
    assert_int_equal(l[1].of_prompt, 0);
    assert_true(l[0].made > 0);
    assert_int_equal(l[0].made, l[1].made);
    assert_memory_equal(l[0].answer, l[1].answer, sizeof l[0].answer);
    close_hall(&h);
}

static void test_scheduler_stops_scoring_when_told(void **state)
{
    (void)state;
    static const size_t stops[] = {1, 2, 400};
    for (size_t i = 0; i < sizeof stops / sizeof stops[0]; i++) {
        static hall h;
        static listener l[1];
        size_t ended = 0;
        open_hall(&h, 1, 1);
        l[0] = listen(&h, &ended, LONG, 1, true);
        l[0].stop_at = stops[i];
        run_all(&h, l, 1);
        assert_int_equal(l[0].how, DURE_END_CANCELLED);
        assert_int_equal(l[0].of_prompt, stops[i]);
        assert_int_equal(l[0].made, 0);
        close_hall(&h);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scheduler_scores_a_prompt_that_takes_many_turns),
        cmocka_unit_test(test_scheduler_takes_turns_while_a_prompt_is_scored),
        cmocka_unit_test(test_scheduler_answers_after_scoring),
        cmocka_unit_test(test_scheduler_stops_scoring_when_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
