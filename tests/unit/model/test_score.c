#include "model/score.h"

#include "model/decode.h"
#include "support/check.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

#include <math.h>

static const int32_t ids[] = {70, 71, 75, 75, 80, 35, 90, 100, 41, 5};
enum { N = sizeof ids / sizeof ids[0] };

typedef struct world {
    temp_dir dir;
    dure_gguf *gguf;
    dure_transformer *model;
} world;

static int open_world(void **state)
{
    static world w;
    temp_dir_make(&w.dir);
    const char *path = temp_dir_file(&w.dir, "tiny.gguf");
    tiny_model_write(path, &(tiny_model_opts){.seed = 3});
    assert_ok(dure_gguf_open(&w.gguf, path, NULL, NULL));
    assert_ok(dure_transformer_new(
        &w.model, w.gguf, &(dure_transformer_opts){.threads = 1, .precision = DURE_PRECISION_F32},
        NULL));
    *state = &w;
    return 0;
}

static int close_world(void **state)
{
    world *w = *state;
    dure_transformer_free(&w->model);
    dure_gguf_close(&w->gguf);
    temp_dir_remove(&w->dir);
    return 0;
}

typedef struct heard {
    float logprobs[N];
    size_t n, stop_at;
} heard;

static bool hear(void *state, size_t i, const float *logits)
{
    heard *h = state;
    assert_int_equal(i, h->n);
    h->n++;
    if (h->n == h->stop_at) return false;
    h->logprobs[i + 1] = dure_logprob(logits, TINY_VOCAB, ids[i + 1]);
    return true;
}

static void test_score_agrees_with_the_logprobs(void **state)
{
    world *w = *state;
    float expected[N];
    heard h = {.n = 0};
    assert_ok(dure_transformer_logprobs(expected, w->model, NULL, ids, N, NULL));
    assert_ok(dure_score(w->model, NULL, ids, N, hear, &h, NULL));
    assert_int_equal(h.n, N - 1);
    for (size_t i = 1; i < N; i++) /* the sums of exponentials differ in order alone */
        assert_true(fabsf(h.logprobs[i] - expected[i]) < 1e-5f);
}

static void test_score_agrees_with_the_decoder(void **state)
{
    world *w = *state;
    heard h = {.n = 0};
    dure_decoder *d;
    assert_ok(dure_score(w->model, NULL, ids, N, hear, &h, NULL));
    assert_ok(dure_decoder_new(&d, w->model, 0));
    for (size_t i = 0; i + 1 < N; i++) {
        assert_ok(dure_decoder_feed(d, NULL, &ids[i], 1, NULL));
        float next = dure_logprob(dure_decoder_logits(d), TINY_VOCAB, ids[i + 1]);
        assert_true(fabsf(h.logprobs[i + 1] - next) < 1e-4f);
    }
    dure_decoder_free(&d);
}

static void test_score_stops_when_told(void **state)
{
    world *w = *state;
    heard h = {.stop_at = 3};
    assert_err(dure_score(w->model, NULL, ids, N, hear, &h, NULL), DURE_ERR_CANCELLED);
    assert_int_equal(h.n, 3);
}

static void test_score_of_nothing_and_of_wrong_tokens(void **state)
{
    world *w = *state;
    heard h = {.n = 0};
    assert_ok(dure_score(w->model, NULL, ids, 1, hear, &h, NULL));
    assert_int_equal(h.n, 0);
    static const int32_t wrong[] = {70, TINY_VOCAB};
    assert_err(dure_score(w->model, NULL, wrong, 2, hear, &h, NULL), DURE_ERR_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_score_agrees_with_the_logprobs),
        cmocka_unit_test(test_score_agrees_with_the_decoder),
        cmocka_unit_test(test_score_stops_when_told),
        cmocka_unit_test(test_score_of_nothing_and_of_wrong_tokens),
    };
    return cmocka_run_group_tests(tests, open_world, close_world);
}
