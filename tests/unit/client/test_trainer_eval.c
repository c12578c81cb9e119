/* The trainer judged by records that it does not train on, and runs that go wrong. */
#include "unit/client/trainer_fixture.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct heard {
    size_t n, judged;
    double losses[64]; /* of the evaluations */
    uint64_t best_step;
    dure_trainer_step last;
} heard;

static dure_err hear(void *state, const dure_trainer_step *step)
{
    heard *h = state;
    h->n++;
    h->last = *step;
    if (!step->judged) return DURE_OK;
    h->losses[h->judged++] = step->eval_loss;
    if (step->best) h->best_step = step->step + 1;
    return DURE_OK;
}

/* Judged by the training records themselves, so that the truth is at hand. */
static dure_trainer_eval eval_of(const fixture *f, uint64_t every, uint64_t steps)
{
    return (dure_trainer_eval){.data = &f->data, .every = every, .steps = steps};
}

static void test_trainer_eval_measures_at_its_steps_and_the_last(void **state)
{
    fixture *f = *state;
    dure_lora *lora = fresh_lora(f);
    dure_trainer_opts opts = plain_opts();
    const dure_trainer_eval eval = eval_of(f, 3, 8);
    heard h = {.n = 0};
    opts.eval = &eval;
    dure_trainer *t = trainer_of(f, lora, &opts);
    assert_ok(dure_trainer_run(t, 8, hear, &h, &f->diag));
    assert_int_equal(h.judged, 3);
    assert_true(h.last.judged);
    assert_true(fabs(h.losses[2] - loss_of(f, lora)) < 1e-12);
    dure_trainer_free(&t);
    dure_lora_free(&lora);
}

/* Judged by records that contradict the training: their loss falls while the form of an answer is
 * learned, and rises with every confident wrong word. The best factors come back. */
static void test_trainer_eval_keeps_the_best(void **state)
{
    fixture *f = *state;
    static const char *const words[] = {"apple", "river", "stone", "cloud"};
    const dure_dataset_opts read = {.max_length = 128};
    dure_dataset other;
    dure_buf text;
    dure_buf_init(&text, 1 << 16);
    for (int i = 0; i < 4; i++)
        dure_put_format(&text, "{\"prompt\":\"say %s 1\",\"response\":\"%s\"}\n", words[i],
                        words[(i + 1) % 4]);
    assert_ok(dure_dataset_parse(&other, dure_buf_span(&text), "other", f->tokenizer, &f->chat,
                                 &read, &f->diag));
    dure_lora *lora = fresh_lora(f);
    dure_trainer_opts opts = plain_opts();
    const dure_trainer_eval eval = {.data = &other, .every = 2, .steps = 120};
    heard h = {.n = 0};
    opts.eval = &eval;
    dure_trainer *t = trainer_of(f, lora, &opts);
    assert_ok(dure_trainer_run(t, 120, hear, &h, &f->diag));
    double lowest = h.losses[0], loss = 0;
    uint64_t at = 2;
    for (size_t i = 1; i < h.judged; i++)
        if (h.losses[i] < lowest) {
            lowest = h.losses[i];
            at = 2 * (i + 1);
        }
    assert_int_equal(h.judged, 60);
    assert_true(lowest < h.losses[h.judged - 1]);
    assert_int_equal(h.best_step, at);
    double last = loss_of(f, lora);
    assert_int_equal(dure_trainer_take_best(&loss, t), at);
    assert_true(loss == lowest && loss_of(f, lora) > last);
    dure_trainer_free(&t);
    dure_lora_free(&lora);
    dure_dataset_fini(&other);
    dure_buf_fini(&text);
}

static void test_trainer_eval_ends_the_run_when_patience_is_out(void **state)
{
    fixture *f = *state;
    dure_lora *lora = fresh_lora(f);
    dure_trainer_opts opts = plain_opts();
    dure_trainer_eval eval = eval_of(f, 1, 200);
    heard h = {.n = 0};
    eval.patience = 2;
    opts.eval = &eval;
    opts.optimizer = DURE_TRAINER_SGD;
    opts.learning_rate = 1e-9; /* so small that no later loss is lower by more than rounding */
    opts.weight_decay = 0;
    dure_trainer *t = trainer_of(f, lora, &opts);
    assert_false(dure_trainer_stopped(t));
    assert_ok(dure_trainer_run(t, 200, hear, &h, &f->diag));
    assert_true(dure_trainer_stopped(t) && h.n < 200);
    assert_int_equal(h.n, h.best_step + 2);
    assert_ok(dure_trainer_run(t, 1, hear, &h, &f->diag));
    assert_int_equal(h.n, h.best_step + 2);
    dure_trainer_free(&t);
    dure_lora_free(&lora);
}

/* Interrupted after every step, the run keeps the same best and ends at the same step. */
static void test_trainer_eval_resumed_equals_uninterrupted(void **state)
{
    fixture *f = *state;
    const char *path = temp_dir_file(&f->dir, "state");
    dure_lora *whole = fresh_lora(f), *parts = NULL;
    dure_trainer_opts opts = plain_opts();
    dure_trainer_eval eval = eval_of(f, 1, 30);
    double a = 0, b = 0;
    eval.patience = 3;
    opts.eval = &eval;
    opts.learning_rate = 0.2;
    opts.schedule = (dure_schedule){DURE_SCHEDULE_COSINE, .warmup_steps = 2, .steps = 30};
    opts.clip_norm = 0.5;
    dure_trainer *t = trainer_of(f, whole, &opts);
    run(f, t, 30);
    uint64_t steps = dure_trainer_at(t), best = dure_trainer_take_best(&a, t);
    dure_trainer_free(&t);
    for (uint64_t i = 0;; i++) {
        dure_lora_free(&parts);
        parts = fresh_lora(f);
        t = trainer_of(f, parts, &opts);
        if (i > 0 && dure_trainer_load(t, path, &f->diag)) fail_msg("%s", f->diag.text);
        if (dure_trainer_stopped(t) || i == 30) break;
        run(f, t, 1);
        assert_ok(dure_trainer_save(t, path, &f->diag));
        dure_trainer_free(&t);
    }
    assert_int_equal(dure_trainer_at(t), steps);
    assert_int_equal(dure_trainer_take_best(&b, t), best);
    assert_true(a == b);
    assert_memory_equal(whole->params, parts->params, whole->n * sizeof *whole->params);
    dure_trainer_free(&t);
    dure_lora_free(&whole);
    dure_lora_free(&parts);
}

static void test_trainer_eval_refuses_a_file_without_labels(void **state)
{
    fixture *f = *state;
    dure_record record = {.first = 0, .n = 3, .n_labels = 0, .line = 1};
    dure_dataset empty = {.records = &record, .n = 1};
    dure_lora *lora = fresh_lora(f);
    dure_trainer_opts opts = plain_opts();
    dure_trainer_eval eval = {.data = &empty, .every = 1, .steps = 3};
    dure_trainer *t = NULL;
    opts.eval = &eval;
    assert_err(dure_trainer_new(&t, f->model, &f->data, lora, &opts, &f->diag), DURE_ERR_USAGE);
    eval = eval_of(f, 0, 3);
    assert_err(dure_trainer_new(&t, f->model, &f->data, lora, &opts, &f->diag), DURE_ERR_USAGE);
    dure_lora_free(&lora);
}

static double distance(const dure_lora *a, const dure_lora *b)
{
    double sum = 0;
    for (size_t i = 0; i < a->n; i++)
        sum += ((double)a->params[i] - (double)b->params[i]) *
               ((double)a->params[i] - (double)b->params[i]);
    return sqrt(sum);
}

/* Plain SGD at rate 1 moves by the mean gradient itself: its length is the norm, or the clip. */
static void test_trainer_clips_the_norm_of_the_mean_gradient(void **state)
{
    fixture *f = *state;
    dure_trainer_opts opts = plain_opts();
    opts.optimizer = DURE_TRAINER_SGD;
    opts.learning_rate = 1;
    double norm = 0;
    for (int clipped = 0; clipped < 2; clipped++) {
        dure_lora *lora = fresh_lora(f), *start = fresh_lora(f);
        heard h = {.n = 0};
        opts.clip_norm = clipped ? norm / 3 : 0;
        dure_trainer *t = trainer_of(f, lora, &opts);
        assert_ok(dure_trainer_run(t, 1, hear, &h, &f->diag));
        norm = h.last.gradient_norm;
        double moved = distance(lora, start), want = clipped ? norm / 3 : norm;
        assert_true(norm > 0 && fabs(moved - want) < 1e-5 * want);
        dure_trainer_free(&t);
        dure_lora_free(&lora);
        dure_lora_free(&start);
    }
}

static void test_trainer_follows_its_schedule(void **state)
{
    fixture *f = *state;
    dure_trainer_opts opts = plain_opts();
    opts.optimizer = DURE_TRAINER_SGD;
    opts.schedule = (dure_schedule){DURE_SCHEDULE_LINEAR, .warmup_steps = 1, .steps = 3};
    const double want[] = {0.5, 1, 0.5};
    dure_lora *lora = fresh_lora(f), *before = fresh_lora(f);
    dure_trainer *t = trainer_of(f, lora, &opts);
    for (size_t i = 0; i < 3; i++) {
        heard h = {.n = 0};
        memcpy(before->params, lora->params, lora->n * sizeof *lora->params);
        assert_ok(dure_trainer_run(t, 1, hear, &h, &f->diag));
        double rate = opts.learning_rate * want[i];
        assert_true(fabs(h.last.learning_rate - rate) < 1e-15);
        double moved = distance(lora, before);
        assert_true(fabs(moved - rate * h.last.gradient_norm) < 1e-4 * moved);
    }
    dure_trainer_free(&t);
    dure_lora_free(&lora);
    dure_lora_free(&before);
}

/* A rate of a thousand undoes within a few steps what was learned before, and the run says so. */
static void test_trainer_stops_when_the_loss_runs_away(void **state)
{
    fixture *f = *state;
    dure_lora *lora = fresh_lora(f);
    dure_trainer_opts opts = plain_opts();
    dure_trainer *t = trainer_of(f, lora, &opts);
    run(f, t, 40);
    dure_trainer_free(&t);
    opts.learning_rate = 1000;
    t = trainer_of(f, lora, &opts);
    assert_err(dure_trainer_run(t, 50, NULL, NULL, &f->diag), DURE_ERR_STATE);
    char step[32];
    snprintf(step, sizeof step, "step %d: ", (int)dure_trainer_at(t) + 1);
    assert_non_null(strstr(f->diag.text, step));
    assert_non_null(strstr(f->diag.text, "run away"));
    assert_non_null(strstr(f->diag.text, "line "));
    assert_non_null(strstr(f->diag.text, "--learning-rate"));
    dure_trainer_free(&t);
    dure_lora_free(&lora);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define ROW(name) cmocka_unit_test_setup_teardown(name, trainer_set_up, trainer_tear_down)
        ROW(test_trainer_eval_measures_at_its_steps_and_the_last),
        ROW(test_trainer_eval_keeps_the_best),
        ROW(test_trainer_eval_ends_the_run_when_patience_is_out),
        ROW(test_trainer_eval_resumed_equals_uninterrupted),
        ROW(test_trainer_eval_refuses_a_file_without_labels),
        ROW(test_trainer_clips_the_norm_of_the_mean_gradient),
        ROW(test_trainer_follows_its_schedule),
        ROW(test_trainer_stops_when_the_loss_runs_away),
#undef ROW
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
