/* The trainer on a tiny random model. The linker puts two looks in between (-Wl,--wrap), in this
 * program alone: at how much memory Dure asks for, and at the moment between the check of
 * a saved state and its reading. */
#include "client/trainer_int.h"
#include "common/file.h"
#include "dp/noise.h"
#include "dp/quantize.h"
#include "unit/client/trainer_fixture.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Atomic size_t largest_request; /* in bytes */

static void note_request(size_t bytes)
{
    size_t before = atomic_load(&largest_request);
    while (before < bytes && !atomic_compare_exchange_weak(&largest_request, &before, bytes)) {
    }
}

void *__real_malloc(size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_malloc(size_t n)
{
    note_request(n);
    return __real_malloc(n);
}

void *__real_calloc(size_t n, size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes)
{
    note_request(n * bytes);
    return __real_calloc(n, bytes);
}

void *__real_realloc(void *block, size_t n);
void *__wrap_realloc(void *block, size_t n);
void *__wrap_realloc(void *block, size_t n)
{
    note_request(n);
    return __real_realloc(block, n);
}

static const char *changed_at_rewind; /* a file; NULL: none */

void __real_rewind(FILE *f);
void __wrap_rewind(FILE *f);
void __wrap_rewind(FILE *f)
{
    if (changed_at_rewind) {
        dure_buf file;
        assert_ok(dure_file_read(&file, changed_at_rewind, 1 << 24, NULL));
        FILE *same = fopen(changed_at_rewind, "r+b");
        assert_non_null(same);
        file.data[file.n / 2] ^= 1;
        assert_int_equal(fwrite(file.data, 1, file.n, same), file.n);
        assert_int_equal(fclose(same), 0);
        dure_buf_fini(&file);
    }
    __real_rewind(f);
}

static void check_training_helps(fixture *f, const dure_trainer_opts *opts, dure_lora *lora,
                                 uint64_t steps)
{
    dure_trainer *t = trainer_of(f, lora, opts);
    double before = loss_of(f, lora);
    run(f, t, steps);
    assert_true(loss_of(f, lora) < 0.9 * before);
    assert_int_equal(dure_trainer_at(t), steps);
    dure_trainer_free(&t);
}

static void test_trainer_lowers_the_loss_without_privacy(void **state)
{
    fixture *f = *state;
    dure_lora *lora = fresh_lora(f);
    dure_trainer_opts opts = plain_opts();
    check_training_helps(f, &opts, lora, 20);
    dure_lora_free(&lora);
}

static void test_trainer_lowers_the_loss_with_sgd(void **state)
{
    fixture *f = *state;
    dure_lora *lora = fresh_lora(f);
    dure_trainer_opts opts = plain_opts();
    opts.optimizer = DURE_TRAINER_SGD;
    opts.momentum = 0.9;
    opts.learning_rate = 0.2;
    check_training_helps(f, &opts, lora, 30);
    dure_lora_free(&lora);
}

static void test_trainer_lowers_the_loss_with_privacy(void **state)
{
    fixture *f = *state;
    dure_lora *lora = fresh_lora(f);
    dure_trainer_opts opts = private_opts(f, lora, 30);
    check_training_helps(f, &opts, lora, 30);
    dure_lora_free(&lora);
}

static void test_trainer_with_orthonormal_a_trains_b_alone(void **state)
{
    fixture *f = *state;
    dure_lora *lora = fresh_lora(f), *start = fresh_lora(f);
    dure_lora_init_orthonormal(lora, 3);
    memcpy(start->params, lora->params, lora->n * sizeof *lora->params);
    dure_trainer_opts opts = plain_opts();
    opts.factors = DURE_LORA_FACTOR_B;
    dure_trainer *t = trainer_of(f, lora, &opts);
    run(f, t, 2);
    size_t n = dure_lora_count(&lora->layout, DURE_LORA_FACTOR_A);
    float *a = calloc(2 * n, sizeof *a);
    assert_non_null(a);
    dure_lora_pack(a, lora, DURE_LORA_FACTOR_A);
    dure_lora_pack(a + n, start, DURE_LORA_FACTOR_A);
    assert_memory_equal(a, a + n, n * sizeof *a);
    assert_memory_not_equal(lora->params, start->params, lora->n * sizeof *lora->params);
    free(a);
    dure_trainer_free(&t);
    dure_lora_free(&lora);
    dure_lora_free(&start);
}

/* Runs steps in one go, or in parts with everything torn down between them. */
static dure_lora *trained(fixture *f, bool is_private, const uint64_t *parts, size_t n_parts)
{
    const char *path = temp_dir_file(&f->dir, "state");
    dure_lora *lora = NULL;
    for (size_t i = 0; i < n_parts; i++) {
        dure_lora_free(&lora);
        lora = fresh_lora(f);
        dure_trainer_opts opts = is_private ? private_opts(f, lora, 100) : plain_opts();
        dure_trainer *t = trainer_of(f, lora, &opts);
        if (i > 0 && dure_trainer_load(t, path, &f->diag)) fail_msg("%s", f->diag.text);
        run(f, t, parts[i]);
        assert_ok(dure_trainer_save(t, path, &f->diag));
        dure_trainer_free(&t);
    }
    return lora;
}

static void test_trainer_resumed_equals_uninterrupted(void **state)
{
    fixture *f = *state;
    const uint64_t whole[] = {9}, parts[] = {4, 0, 2, 3};
    for (int with_plan = 0; with_plan < 2; with_plan++) {
        dure_lora *a = trained(f, with_plan, whole, 1), *b = trained(f, with_plan, parts, 4);
        assert_memory_equal(a->params, b->params, a->n * sizeof *a->params);
        dure_lora_free(&a);
        dure_lora_free(&b);
    }
}

static void test_trainer_refuses_the_state_of_another_run(void **state)
{
    fixture *f = *state;
    const char *path = temp_dir_file(&f->dir, "state");
    dure_lora *lora = fresh_lora(f);
    dure_trainer_opts opts = plain_opts();
    dure_trainer *t = trainer_of(f, lora, &opts);
    assert_ok(dure_trainer_save(t, path, &f->diag));
    dure_trainer_free(&t);
    opts.learning_rate *= 2;
    t = trainer_of(f, lora, &opts);
    assert_err(dure_trainer_load(t, path, &f->diag), DURE_ERR_STATE);
    dure_trainer_free(&t);
    opts = plain_opts();
    t = trainer_of(f, lora, &opts);
    dure_buf file;
    assert_ok(dure_file_read(&file, path, 1 << 24, &f->diag));
    for (size_t at = 0; at < file.n; at += file.n / 7) {
        file.data[at] ^= 1;
        assert_ok(dure_file_write_atomic(path, dure_buf_span(&file), 0600, &f->diag));
        assert_err(dure_trainer_load(t, path, &f->diag), DURE_ERR_FORMAT);
        file.data[at] ^= 1;
    }
    assert_ok(dure_file_write_atomic(path, dure_span_of(file.data, file.n / 2), 0600, &f->diag));
    assert_err(dure_trainer_load(t, path, &f->diag), DURE_ERR_FORMAT);
    dure_buf_fini(&file);
    dure_trainer_free(&t);
    dure_lora_free(&lora);
}

/* What is read is as large as what is written, without and with a plan, a clip that adapts and an
 * evaluation. */
static void test_trainer_reads_no_more_than_it_writes(void **state)
{
    fixture *f = *state;
    const char *path = temp_dir_file(&f->dir, "state");
    dure_lora *lora = fresh_lora(f);
    const dure_trainer_eval eval = {.data = &f->data, .every = 1, .steps = 2};
    for (int with = 0; with < 4; with++) {
        dure_trainer_opts opts = with == 0 || with == 3 ? plain_opts() : private_opts(f, lora, 9);
        if (with == 2) assert_ok(dure_dp_adaptive_set(&f->plan.adaptive, 2, 0.5, 0.3, NULL));
        if (with == 3) opts.eval = &eval;
        dure_trainer *t = trainer_of(f, lora, &opts);
        dure_buf file;
        assert_ok(dure_trainer_save(t, path, &f->diag));
        assert_ok(dure_file_read(&file, path, 1 << 24, &f->diag));
        assert_int_equal(dure_trainer_state_bytes(t), file.n);
        dure_put_u8(&file, 0);
        assert_ok(dure_file_write_atomic(path, dure_buf_span(&file), 0600, &f->diag));
        assert_err(dure_trainer_load(t, path, &f->diag), DURE_ERR_STATE);
        dure_buf_fini(&file);
        dure_trainer_free(&t);
    }
    dure_lora_free(&lora);
}

/* Resuming takes no more memory than training: the state goes to and from its file in parts. */
static void test_trainer_keeps_no_copy_of_its_state(void **state)
{
    fixture *f = *state;
    const char *path = temp_dir_file(&f->dir, "state");
    dure_lora *lora = fresh_lora(f);
    dure_trainer_opts opts = private_opts(f, lora, 9);
    dure_trainer *t = trainer_of(f, lora, &opts);
    run(f, t, 1);
    atomic_store(&largest_request, 0);
    assert_ok(dure_trainer_save(t, path, &f->diag));
    assert_ok(dure_trainer_load(t, path, &f->diag));
    assert_in_range(atomic_load(&largest_request), 1, lora->n * sizeof(float) - 1);
    dure_trainer_free(&t);
    dure_lora_free(&lora);
}

/* What is taken over is what was checked. */
static void test_trainer_notices_a_state_that_changes_as_it_is_read(void **state)
{
    fixture *f = *state;
    const char *path = temp_dir_file(&f->dir, "state");
    dure_lora *lora = fresh_lora(f);
    dure_trainer_opts opts = plain_opts();
    dure_trainer *t = trainer_of(f, lora, &opts);
    assert_ok(dure_trainer_save(t, path, &f->diag));
    changed_at_rewind = path;
    dure_err err = dure_trainer_load(t, path, &f->diag);
    changed_at_rewind = NULL;
    assert_err(err, DURE_ERR_IO);
    assert_non_null(strstr(f->diag.text, "was changed while it was read"));
    dure_trainer_free(&t);
    dure_lora_free(&lora);
}

/* A model of 8 billion weights, all matrices adapted: factors, both moments and the best. */
static void test_trainer_reads_the_state_of_a_large_adapter(void **state)
{
    (void)state;
    const dure_trainer_eval eval = {.every = 1};
    dure_lora lora = {.layout = {.shape = {.n_layers = 32,
                                           .n_embd = 4096,
                                           .n_ff = 14336,
                                           .n_head = 32,
                                           .n_head_kv = 8,
                                           .head_dim = 128},
                                 .rank = 256,
                                 .targets = 127}};
    lora.n = dure_lora_count(&lora.layout, DURE_LORA_FACTOR_BOTH);
    const dure_trainer t = {.lora = &lora, .n = lora.n, .opts.eval = &eval};
    assert_int_equal(lora.n, 671088640);
    assert_true(dure_trainer_state_bytes(&t) > 4 * (size_t)671088640 * sizeof(float));
    assert_true(dure_trainer_state_bytes(&t) < 4 * (size_t)671088640 * sizeof(float) + 256);
}

/* The released step, recomputed from its parts: noise of the attempt's streams, integers of the
 * records one by one. */
typedef struct recomputed {
    int64_t *sum;
    int32_t *q;
    size_t n;
    const dure_dp_plan *plan;
} recomputed;

static dure_err add_record(void *state, size_t doc, const float *gradient,
                           const dure_document_loss *loss)
{
    recomputed *r = state;
    (void)doc, (void)loss;
    if (!gradient || !dure_quantize(r->q, gradient, r->n, r->plan)) return DURE_OK;
    for (size_t i = 0; i < r->n; i++)
        r->sum[i] += r->q[i];
    return DURE_OK;
}

static void test_trainer_private_step_is_noise_plus_integers(void **state)
{
    fixture *f = *state;
    dure_lora *lora = fresh_lora(f), *start = fresh_lora(f);
    dure_trainer_opts opts = private_opts(f, lora, 5);
    assert_ok(dure_dp_plan_set_batch(&f->plan, RECORDS, RECORDS, NULL)); /* all of them */
    opts.optimizer = DURE_TRAINER_SGD;
    opts.learning_rate = 1;
    dure_trainer *t = trainer_of(f, lora, &opts);
    run(f, t, 1);
    size_t n = lora->n;
    recomputed r = {calloc(n, sizeof(int64_t)), calloc(n, sizeof(int32_t)), n, &f->plan};
    float *mean = calloc(n, sizeof *mean);
    assert_true(r.sum && r.q && mean);
    const dure_gradient_opts gradient = {.factors = DURE_LORA_FACTOR_BOTH};
    for (size_t i = 0; i < RECORDS; i++) {
        dure_document doc = dure_dataset_document(&f->data, RECORDS - 1 - i);
        assert_ok(dure_transformer_gradients(f->model, start, &gradient, &doc, 1, add_record, &r,
                                             &f->diag));
    }
    dure_stream *stream = NULL;
    assert_ok(dure_attempt_stream(&stream, &f->attempt, "noise", 0, 0));
    dure_rng rng = dure_stream_rng(stream);
    assert_ok(dure_noise_add(r.sum, n, dure_noise_scale_of(&f->plan), &rng));
    dure_stream_free(&stream);
    dure_quantize_mean(mean, r.sum, n, &f->plan);
    for (size_t i = 0; i < n; i++)
        assert_true(lora->params[i] == start->params[i] - mean[i]);
    free(r.sum);
    free(r.q);
    free(mean);
    dure_trainer_free(&t);
    dure_lora_free(&lora);
    dure_lora_free(&start);
}

typedef struct heard {
    size_t n, records, refused;
    dure_trainer_step last;
    size_t stop_after;
} heard;

static dure_err hear(void *state, const dure_trainer_step *step)
{
    heard *h = state;
    assert_int_equal(step->step, h->n);
    h->n++;
    h->records += step->records;
    h->refused += step->refused;
    h->last = *step;
    return h->n == h->stop_after ? DURE_ERR_CANCELLED : DURE_OK;
}

/* Records without labels, cut ones and none at all: a private run goes on. */
static void test_trainer_private_run_survives_bad_records(void **state)
{
    fixture *f = *state;
    const dure_dataset_opts tolerant = {.max_length = 40, .tolerant = true};
    static const char text[] = "{\"prompt\":\"say a word\",\"response\":\"apple\"}\n"
                               "this is not JSON\n"
                               "{\"prompt\":\"a very long question, longer than any limit we "
                               "allow here, and then some\",\"response\":\"gone\"}\n"
                               "{\"prompt\":\"p\",\"response\":\"r\"}\n";
    dure_dataset_fini(&f->data);
    assert_ok(dure_dataset_parse(&f->data, dure_span_of_text(text), "data", f->tokenizer, &f->chat,
                                 &tolerant, &f->diag));
    dure_lora *lora = fresh_lora(f);
    dure_trainer_opts opts = private_opts(f, lora, 20);
    heard h = {.n = 0};
    dure_trainer *t = trainer_of(f, lora, &opts);
    if (dure_trainer_run(t, 20, hear, &h, &f->diag)) fail_msg("%s", f->diag.text);
    assert_int_equal(h.n, 20);
    assert_int_equal(h.refused, 0);
    for (size_t i = 0; i < lora->n; i++)
        assert_true(isfinite(lora->params[i]));
    dure_trainer_free(&t);
    dure_lora_free(&lora);
}

/* Factors so large that everything overflows: with privacy the records contribute nothing and the
 * noise goes out alone; without, the run stops and says why. */
static void test_trainer_meets_gradients_that_are_not_finite(void **state)
{
    fixture *f = *state;
    dure_lora *lora = fresh_lora(f);
    dure_trainer_opts opts = private_opts(f, lora, 10);
    for (size_t i = 0; i < lora->n; i++)
        lora->params[i] = i % 2 ? 3e38f : -3e38f;
    heard h = {.n = 0};
    dure_trainer *t = trainer_of(f, lora, &opts);
    if (dure_trainer_run(t, 3, hear, &h, &f->diag)) fail_msg("%s", f->diag.text);
    assert_true(h.refused == h.records && h.n == 3);
    assert_true(h.last.records == 0 || (h.last.refused_line > 0 && h.last.refused_line <= RECORDS));
    dure_trainer_free(&t);
    opts = plain_opts();
    t = trainer_of(f, lora, &opts);
    assert_err(dure_trainer_run(t, 1, NULL, NULL, &f->diag), DURE_ERR_STATE);
    assert_non_null(strstr(f->diag.text, "step 1: "));
    assert_non_null(strstr(f->diag.text, " in line "));
    assert_int_equal(dure_trainer_at(t), 0);
    dure_trainer_free(&t);
    dure_lora_free(&lora);
}

static void test_trainer_takes_no_step_beyond_its_plan(void **state)
{
    fixture *f = *state;
    dure_lora *lora = fresh_lora(f);
    dure_trainer_opts opts = private_opts(f, lora, 3);
    dure_trainer *t = trainer_of(f, lora, &opts);
    assert_err(dure_trainer_run(t, 4, NULL, NULL, &f->diag), DURE_ERR_USAGE);
    assert_int_equal(dure_trainer_at(t), 0);
    run(f, t, 1);
    assert_err(dure_trainer_skip_to(t, 0, &f->diag), DURE_ERR_USAGE);
    assert_ok(dure_trainer_skip_to(t, 2, &f->diag));
    run(f, t, 1);
    assert_err(dure_trainer_run(t, 1, NULL, NULL, &f->diag), DURE_ERR_USAGE);
    dure_trainer_free(&t);
    dure_lora_free(&lora);
}

static void test_trainer_stops_when_its_listener_says_so(void **state)
{
    fixture *f = *state;
    dure_lora *lora = fresh_lora(f);
    dure_trainer_opts opts = plain_opts();
    heard h = {.stop_after = 2};
    dure_trainer *t = trainer_of(f, lora, &opts);
    assert_err(dure_trainer_run(t, 5, hear, &h, &f->diag), DURE_ERR_CANCELLED);
    assert_int_equal(dure_trainer_at(t), 2);
    assert_true(h.last.records == 8 && h.last.tokens > 8 && isfinite(h.last.loss));
    dure_trainer_free(&t);
    dure_lora_free(&lora);
}

static void test_trainer_epochs_visit_every_record_once(void **state)
{
    fixture *f = *state;
    dure_lora *lora = fresh_lora(f);
    dure_trainer_opts opts = plain_opts();
    heard h = {.n = 0};
    size_t tokens = 0;
    dure_trainer *t = trainer_of(f, lora, &opts);
    for (size_t i = 0; i < RECORDS / 8; i++) {
        assert_ok(dure_trainer_run(t, 1, hear, &h, &f->diag));
        tokens += h.last.tokens;
    }
    assert_int_equal(h.records, RECORDS);
    assert_int_equal(tokens, f->data.tokens.n);
    dure_trainer_free(&t);
    dure_lora_free(&lora);
}

static void test_trainer_refuses_options_that_do_not_fit(void **state)
{
    fixture *f = *state;
    dure_lora *lora = fresh_lora(f);
    dure_trainer *t = NULL;
    const dure_trainer_opts good = plain_opts(), good_private = private_opts(f, lora, 3);
    dure_trainer_opts opts;
#define REFUSES(from, change)                                                                      \
    do {                                                                                           \
        opts = from;                                                                               \
        change;                                                                                    \
        assert_err(dure_trainer_new(&t, f->model, &f->data, lora, &opts, &f->diag),                \
                   DURE_ERR_USAGE);                                                                \
        assert_null(t);                                                                            \
    } while (0)
    REFUSES(good, opts.batch = 0);
    REFUSES(good, opts.batch = RECORDS + 1);
    REFUSES(good, opts.learning_rate = 0);
    REFUSES(good, opts.learning_rate = NAN);
    REFUSES(good, opts.momentum = 1);
    REFUSES(good, opts.weight_decay = -1);
    REFUSES(good, opts.attempt = &f->attempt);
    REFUSES(good_private, opts.attempt = NULL);
    f->plan.grid_bits++;
    REFUSES(good_private, (void)0);
    f->plan.grid_bits--;
    f->plan.q_k++;
    REFUSES(good_private, (void)0);
#undef REFUSES
    dure_lora_free(&lora);
}

static void test_trainer_hashes_follow_what_they_name(void **state)
{
    fixture *f = *state;
    dure_lora *lora = fresh_lora(f);
    dure_trainer_opts opts = plain_opts();
    dure_hash base = {{1}}, a, b, before, after;
    assert_ok(dure_trainer_settings_hash(&a, lora, &opts, &base));
    opts.seed++;
    assert_ok(dure_trainer_settings_hash(&b, lora, &opts, &base));
    assert_false(dure_hash_equal(&a, &b));
    opts.seed--;
    lora->params[3] += 1;
    assert_ok(dure_trainer_settings_hash(&b, lora, &opts, &base));
    assert_false(dure_hash_equal(&a, &b));
    assert_ok(dure_trainer_data_hash(&before, &f->data));
    f->data.tokens.supervised[f->data.records[2].first + 1] ^= 1;
    assert_ok(dure_trainer_data_hash(&after, &f->data));
    assert_false(dure_hash_equal(&before, &after));
    dure_lora_free(&lora);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define ROW(name) cmocka_unit_test_setup_teardown(name, trainer_set_up, trainer_tear_down)
        ROW(test_trainer_lowers_the_loss_without_privacy),
        ROW(test_trainer_lowers_the_loss_with_sgd),
        ROW(test_trainer_lowers_the_loss_with_privacy),
        ROW(test_trainer_with_orthonormal_a_trains_b_alone),
        ROW(test_trainer_resumed_equals_uninterrupted),
        ROW(test_trainer_refuses_the_state_of_another_run),
        ROW(test_trainer_reads_no_more_than_it_writes),
        ROW(test_trainer_keeps_no_copy_of_its_state),
        ROW(test_trainer_notices_a_state_that_changes_as_it_is_read),
        cmocka_unit_test(test_trainer_reads_the_state_of_a_large_adapter),
        ROW(test_trainer_private_step_is_noise_plus_integers),
        ROW(test_trainer_private_run_survives_bad_records),
        ROW(test_trainer_meets_gradients_that_are_not_finite),
        ROW(test_trainer_takes_no_step_beyond_its_plan),
        ROW(test_trainer_stops_when_its_listener_says_so),
        ROW(test_trainer_epochs_visit_every_record_once),
        ROW(test_trainer_refuses_options_that_do_not_fit),
        ROW(test_trainer_hashes_follow_what_they_name),
#undef ROW
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
