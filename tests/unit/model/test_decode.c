/* Generation on a tiny random model: what the cache gives must be what the whole text gives. */
#include "model/decode.h"
#include "support/check.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N = 40 };

typedef struct fixture {
    temp_dir dir;
    dure_gguf *gguf;
    dure_tokenizer *tokenizer;
    dure_transformer *t;
    dure_decoder *d;
    int32_t tokens[N];
} fixture;

static void set_up(fixture *f, const tiny_model_opts *model)
{
    dure_transformer_opts opts = {.threads = 2, .rows = 64, .precision = DURE_PRECISION_F32};
    memset(f, 0, sizeof *f);
    temp_dir_make(&f->dir);
    const char *path = temp_dir_file(&f->dir, "tiny.gguf");
    tiny_model_write(path, model);
    assert_ok(dure_gguf_open(&f->gguf, path, NULL, NULL));
    assert_ok(dure_tokenizer_new(&f->tokenizer, f->gguf, NULL));
    assert_ok(dure_transformer_new(&f->t, f->gguf, &opts, NULL));
    assert_ok(dure_decoder_new(&f->d, f->t, 100));
    for (int i = 0; i < N; i++)
        f->tokens[i] = (i * 37 + 11) % TINY_VOCAB;
}

static void tear_down(fixture *f)
{
    dure_decoder_free(&f->d);
    dure_transformer_free(&f->t);
    dure_tokenizer_free(&f->tokenizer);
    dure_gguf_close(&f->gguf);
    temp_dir_remove(&f->dir);
}

static dure_lora *random_lora(const fixture *f)
{
    dure_lora *lora = NULL;
    dure_lora_layout layout = {
        .shape = *dure_transformer_shape(f->t), .rank = 4, .alpha = 8, .targets = 127};
    assert_ok(dure_lora_new(&lora, &layout));
    dure_lora_init_uniform(lora, 3);
    for (size_t i = 0; i < lora->n; i++)
        lora->params[i] += 0.05f * sinf((float)i);
    return lora;
}

/* Feeds the tokens in pieces and compares the log-probability of each next one. */
static void check_pieces(fixture *f, const dure_lora *lora, size_t piece)
{
    float expected[N];
    assert_ok(dure_transformer_logprobs(expected, f->t, lora, f->tokens, N, NULL));
    dure_decoder_rewind(f->d, 0);
    for (size_t at = 0; at + piece < N; at += piece) {
        assert_ok(dure_decoder_feed(f->d, lora, f->tokens + at, piece, NULL));
        float got = dure_logprob(dure_decoder_logits(f->d), TINY_VOCAB, f->tokens[at + piece]);
        assert_true(fabsf(got - expected[at + piece]) < 1e-4f);
    }
}

static void test_decode_pieces_give_what_the_whole_gives(void **state)
{
    (void)state;
    static const size_t pieces[] = {1, 2, 7, 8, 9, 20, 39};
    fixture f;
    set_up(&f, &(tiny_model_opts){.seed = 1, .type = TINY_Q8_0});
    dure_lora *lora = random_lora(&f);
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        check_pieces(&f, NULL, pieces[i]);
        check_pieces(&f, lora, pieces[i]);
    }
    dure_lora_free(&lora);
    tear_down(&f);
}

/* With a window shorter than the text, the cache holds more keys than a token sees. */
static void test_decode_of_every_architecture_gives_what_the_whole_gives(void **state)
{
    (void)state;
    static const tiny_model_opts models[] = {
        {.seed = 4, .arch = "qwen2", .type = TINY_Q8_0},
        {.seed = 5, .arch = "qwen3", .head_dim = 32},
        {.seed = 6, .arch = "gemma3", .head_dim = 32, .n_layers = 4, .window = 7},
        {.seed = 7, .arch = "gemma3", .head_dim = 256, .n_layers = 1, .n_head = 3, .n_head_kv = 1},
    };
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        fixture f;
        set_up(&f, &models[i]);
        dure_lora *lora = random_lora(&f);
        check_pieces(&f, lora, 1);
        check_pieces(&f, lora, 9);
        dure_lora_free(&lora);
        tear_down(&f);
    }
}

/* The logits at each of the tokens of a text. */
typedef struct scores {
    float logits[N][TINY_VOCAB];
    size_t first, n, stop_at; /* first: place of the piece; stop_at 0: never */
} scores;

static bool hear_score(void *state, size_t i, const float *logits)
{
    scores *s = state;
    assert_int_equal(s->first + i, s->n);
    memcpy(s->logits[s->n++], logits, sizeof s->logits[0]);
    return s->n != s->stop_at;
}

static void score_pieces(scores *s, fixture *f, const dure_lora *lora, size_t piece)
{
    *s = (scores){.n = 0};
    dure_decoder_rewind(f->d, 0);
    for (s->first = 0; s->first < N; s->first += piece) {
        size_t n = N - s->first < piece ? N - s->first : piece;
        assert_ok(dure_decoder_score(f->d, lora, f->tokens + s->first, n, hear_score, s, NULL));
        assert_int_equal(s->n, s->first + n);
        assert_int_equal(dure_decoder_length(f->d), s->n);
        assert_memory_equal(dure_decoder_logits(f->d), s->logits[s->n - 1], sizeof s->logits[0]);
    }
}

static void check_scores(fixture *f, const dure_lora *lora)
{
    static const size_t pieces[] = {1, 3, 5, 6, 17, 33, 39};
    static scores whole, cut;
    float expected[N];
    score_pieces(&whole, f, lora, N);
    assert_ok(dure_transformer_logprobs(expected, f->t, lora, f->tokens, N, NULL));
    for (size_t i = 1; i < N; i++) { /* the sums of exponentials differ in order alone */
        float logprob = dure_logprob(whole.logits[i - 1], TINY_VOCAB, f->tokens[i]);
        assert_true(fabsf(logprob - expected[i]) < 1e-5f);
    }
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        score_pieces(&cut, f, lora, pieces[i]);
        assert_memory_equal(cut.logits, whole.logits, sizeof whole.logits);
    }
}

static void test_decode_scores_are_those_of_the_whole_bit_for_bit_in_pieces(void **state)
{
    (void)state;
    static const tiny_model_opts models[] = {
        {.seed = 8, .type = TINY_Q8_0},
        {.seed = 6, .arch = "gemma3", .head_dim = 32, .n_layers = 4, .window = 7},
    };
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        fixture f;
        set_up(&f, &models[i]);
        dure_lora *lora = random_lora(&f);
        check_scores(&f, NULL);
        check_scores(&f, lora);
        dure_lora_free(&lora);
        tear_down(&f);
    }
}

static void test_decode_scoring_stops_when_told_and_takes_nothing(void **state)
{
    (void)state;
    static scores s;
    fixture f;
    dure_diag diag = {{0}};
    const int32_t wrong[] = {70, TINY_VOCAB};
    set_up(&f, &(tiny_model_opts){.seed = 8});
    assert_ok(dure_decoder_feed(f.d, NULL, f.tokens, 2, NULL));
    s.stop_at = 3;
    assert_err(dure_decoder_score(f.d, NULL, f.tokens, 9, hear_score, &s, &diag),
               DURE_ERR_CANCELLED);
    assert_int_equal(s.n, 3);
    assert_int_equal(dure_decoder_length(f.d), 2);
    assert_err(dure_decoder_score(f.d, NULL, wrong, 2, hear_score, &s, &diag), DURE_ERR_USAGE);
    assert_err(dure_decoder_score(f.d, NULL, wrong, 0, hear_score, &s, &diag), DURE_ERR_LIMIT);
    assert_int_equal(s.n, 3);
    tear_down(&f);
}

static void test_decode_logprobs_at_once_are_those_one_by_one(void **state)
{
    (void)state;
    static const float logits[] = {-1, 0.5f, 7, 3, -90};
    static const int32_t ids[] = {4, 2, 0, 2};
    float logprobs[4];
    dure_logprob_each(logprobs, ids, 4, logits, 5);
    for (size_t i = 0; i < 4; i++) {
        float alone = dure_logprob(logits, 5, ids[i]);
        assert_memory_equal(&logprobs[i], &alone, sizeof alone);
    }
    /* 7 against 3, 0.5 and -1: -log(1 + e^-4 + e^-6.5 + e^-8) */
    assert_true(fabsf(logprobs[1] + 0.0199541f) < 1e-6f);
}

static void test_decode_rewind_forgets(void **state)
{
    (void)state;
    fixture f;
    float before[TINY_VOCAB];
    set_up(&f, &(tiny_model_opts){.seed = 2});
    assert_ok(dure_decoder_feed(f.d, NULL, f.tokens, 10, NULL));
    assert_ok(dure_decoder_feed(f.d, NULL, f.tokens + 10, 1, NULL));
    memcpy(before, dure_decoder_logits(f.d), sizeof before);
    assert_ok(dure_decoder_feed(f.d, NULL, f.tokens + 20, 9, NULL));
    dure_decoder_rewind(f.d, 10);
    assert_int_equal(dure_decoder_length(f.d), 10);
    assert_ok(dure_decoder_feed(f.d, NULL, f.tokens + 10, 1, NULL));
    assert_memory_equal(before, dure_decoder_logits(f.d), sizeof before);
    tear_down(&f);
}

static void test_decode_together_as_one_by_one(void **state)
{
    (void)state;
    enum { MANY = 11 };
    fixture f;
    dure_decoder *many[MANY] = {0};
    int32_t next[MANY];
    set_up(&f, &(tiny_model_opts){.seed = 3, .type = TINY_Q4_1});
    for (size_t i = 0; i < MANY; i++) {
        assert_ok(dure_decoder_new(&many[i], f.t, 50));
        assert_ok(dure_decoder_feed(many[i], NULL, f.tokens, 3 + 2 * i, NULL));
        next[i] = (int32_t)(40 + i);
    }
    assert_ok(dure_decoder_feed_each(many, next, MANY, NULL, NULL));
    for (size_t i = 0; i < MANY; i++) {
        assert_int_equal(dure_decoder_length(many[i]), 4 + 2 * i);
        dure_decoder_rewind(f.d, 0);
        assert_ok(dure_decoder_feed(f.d, NULL, f.tokens, 3 + 2 * i, NULL));
        assert_ok(dure_decoder_feed(f.d, NULL, &next[i], 1, NULL));
        for (size_t v = 0; v < TINY_VOCAB; v++)
            assert_true(fabsf(dure_decoder_logits(many[i])[v] - dure_decoder_logits(f.d)[v]) <
                        1e-4f);
        dure_decoder_free(&many[i]);
    }
    tear_down(&f);
}

static void test_decode_refuses_what_does_not_fit(void **state)
{
    (void)state;
    fixture f;
    dure_diag diag = {{0}};
    int32_t bad = TINY_VOCAB;
    set_up(&f, &(tiny_model_opts){.seed = 4});
    assert_err(dure_decoder_feed(f.d, NULL, &bad, 1, &diag), DURE_ERR_USAGE);
    assert_err(dure_decoder_feed(f.d, NULL, f.tokens, 0, &diag), DURE_ERR_LIMIT);
    assert_ok(dure_decoder_feed(f.d, NULL, f.tokens, 40, &diag));
    assert_ok(dure_decoder_feed(f.d, NULL, f.tokens, 40, &diag));
    assert_err(dure_decoder_feed(f.d, NULL, f.tokens, 21, &diag), DURE_ERR_LIMIT);
    assert_int_equal(dure_decoder_length(f.d), 80);
    assert_ok(dure_decoder_feed(f.d, NULL, f.tokens, 20, &diag));
    assert_int_equal(dure_decoder_room(f.d), 0);
    tear_down(&f);
}

typedef struct heard {
    int32_t ids[N];
    size_t n, most;
} heard;

static bool hear(void *state, int32_t id)
{
    heard *h = state;
    h->ids[h->n++] = id;
    return h->n < h->most;
}

static void test_decode_same_seed_same_text(void **state)
{
    (void)state;
    fixture f;
    heard first = {.most = N}, again = {.most = N}, other = {.most = N};
    heard *runs[] = {&first, &again, &other};
    dure_finish finish;
    set_up(&f, &(tiny_model_opts){.seed = 5});
    for (size_t i = 0; i < 3; i++) {
        dure_generation how = {.sampling = {.temperature = 1, .top_p = 0.95, .seed = i / 2},
                               .max_tokens = 20,
                               .sink = hear,
                               .state = runs[i]};
        dure_decoder_rewind(f.d, 0);
        assert_ok(dure_generate(&finish, f.d, f.tokens, 5, &how, NULL));
        assert_int_equal(finish, DURE_FINISH_LENGTH);
        assert_int_equal(runs[i]->n, 20);
    }
    assert_memory_equal(first.ids, again.ids, sizeof first.ids);
    assert_memory_not_equal(first.ids, other.ids, sizeof first.ids);
    tear_down(&f);
}

static void test_decode_callback_and_end_token_stop(void **state)
{
    (void)state;
    fixture f;
    heard few = {.most = 3}, all = {.most = N};
    dure_finish finish;
    set_up(&f, &(tiny_model_opts){.seed = 6});
    dure_generation how = {
        .sampling = {.temperature = 5}, .tokenizer = f.tokenizer, .sink = hear, .state = &few};
    assert_ok(dure_generate(&finish, f.d, f.tokens, 5, &how, NULL));
    assert_int_equal(finish, DURE_FINISH_CANCELLED);
    assert_int_equal(few.n, 3);
    /* A sampler this hot meets one of the end tokens among 272 sooner or later. */
    bool stopped = false;
    for (uint64_t seed = 0; seed < 200 && !stopped; seed++) {
        how.sampling.seed = seed;
        how.max_tokens = 30;
        all.n = 0;
        how.state = &all;
        dure_decoder_rewind(f.d, 0);
        assert_ok(dure_generate(&finish, f.d, f.tokens, 5, &how, NULL));
        stopped = finish == DURE_FINISH_STOP;
        for (size_t i = 0; i < all.n; i++)
            assert_false(dure_tokenizer_is_end(f.tokenizer, all.ids[i]));
    }
    assert_true(stopped);
    tear_down(&f);
}

static void test_decode_sampler_follows_the_probabilities(void **state)
{
    (void)state;
    const float logits[4] = {logf(0.5f), logf(0.3f), logf(0.15f), logf(0.05f)};
    dure_sampler s;
    int count[4] = {0}, nucleus[4] = {0};
    assert_ok(dure_sampler_init(&s, &(dure_sampling){.temperature = 1, .seed = 9}, 4));
    for (int i = 0; i < 20000; i++)
        count[dure_sampler_next(&s, logits)]++;
    dure_sampler_fini(&s);
    for (int i = 0; i < 4; i++)
        assert_true(fabs(count[i] / 20000.0 - exp((double)logits[i])) < 0.015);
    assert_ok(
        dure_sampler_init(&s, &(dure_sampling){.temperature = 1, .top_p = 0.75, .seed = 9}, 4));
    for (int i = 0; i < 20000; i++)
        nucleus[dure_sampler_next(&s, logits)]++;
    dure_sampler_fini(&s);
    assert_true(fabs(nucleus[0] / 20000.0 - 0.625) < 0.015);
    assert_int_equal(nucleus[2] + nucleus[3], 0);
}

static void test_decode_greedy_takes_the_lowest_of_equals(void **state)
{
    (void)state;
    const float logits[5] = {0, 2, 1, 2, 2};
    int32_t top[3];
    dure_sampler s;
    assert_ok(dure_sampler_init(&s, &(dure_sampling){0}, 5));
    assert_int_equal(dure_sampler_next(&s, logits), 1);
    dure_sampler_fini(&s);
    dure_top_tokens(top, 3, logits, 5);
    assert_int_equal(top[0], 1);
    assert_int_equal(top[1], 3);
    assert_int_equal(top[2], 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decode_pieces_give_what_the_whole_gives),
        cmocka_unit_test(test_decode_of_every_architecture_gives_what_the_whole_gives),
        cmocka_unit_test(test_decode_scores_are_those_of_the_whole_bit_for_bit_in_pieces),
        cmocka_unit_test(test_decode_scoring_stops_when_told_and_takes_nothing),
        cmocka_unit_test(test_decode_logprobs_at_once_are_those_one_by_one),
        cmocka_unit_test(test_decode_rewind_forgets),
        cmocka_unit_test(test_decode_together_as_one_by_one),
        cmocka_unit_test(test_decode_refuses_what_does_not_fit),
        cmocka_unit_test(test_decode_same_seed_same_text),
        cmocka_unit_test(test_decode_callback_and_end_token_stop),
        cmocka_unit_test(test_decode_sampler_follows_the_probabilities),
        cmocka_unit_test(test_decode_greedy_takes_the_lowest_of_equals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
