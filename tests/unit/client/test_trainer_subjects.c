/* The unit is the subject: whatever number of records it has, it adds one clipped gradient. */
#include "unit/client/trainer_fixture.h"

#include <math.h>
#include <string.h>

/* Room for any sum of these tests. */
enum { MOST = 4096 };

typedef struct step {
    dure_trainer_step told;
    double sum[MOST]; /* the clipped sum, in units of the clip; without noise */
    size_t n;
} step;

/* f->data from lines "SUBJECT TEXT"; "-" is a record without a subject. */
static void read_data(fixture *f, const char *const *lines, size_t n)
{
    const dure_dataset_opts opts = {.max_length = 128, .tolerant = true, .by_subject = true};
    dure_buf text;
    dure_buf_init(&text, 1 << 20);
    for (size_t i = 0; i < n; i++) {
        const char *words = strchr(lines[i], ' ') + 1;
        int length = (int)(words - lines[i] - 1);
        if (lines[i][0] == '-')
            dure_put_format(&text, "{\"prompt\":\"%s\",\"response\":\"%s\"}\n", words, words);
        else
            dure_put_format(&text, "{\"subject\":\"%.*s\",\"prompt\":\"%s\",\"response\":\"%s\"}\n",
                            length, lines[i], words, words);
    }
    dure_dataset_fini(&f->data);
    assert_ok(dure_dataset_parse(&f->data, dure_buf_span(&text), "data", f->tokenizer, &f->chat,
                                 &opts, &f->diag));
    dure_buf_fini(&text);
}

static dure_err keep(void *state, const dure_trainer_step *told)
{
    *(dure_trainer_step *)state = *told;
    return DURE_OK;
}

/* One step number `at` of everyone, without noise, by SGD at rate 1: what the factors change by is
 * the sum over L. */
static step step_of(fixture *f, uint64_t at, uint32_t per_subject, double clip)
{
    step s = {.n = 0};
    float before[MOST], after[MOST];
    dure_lora *lora = fresh_lora(f);
    dure_trainer_opts opts = private_opts(f, lora, 100);
    dure_trainer *t = NULL;
    f->plan.mechanism = DURE_DP_POISSON_GAUSSIAN_SUBJECTS;
    f->plan.sigma_num = 0;
    f->plan.clip = clip;
    assert_ok(dure_dp_plan_set_batch(&f->plan, 8, 8, NULL));
    opts.optimizer = DURE_TRAINER_SGD;
    opts.learning_rate = 1;
    opts.momentum = 0;
    opts.per_subject = per_subject;
    s.n = dure_lora_count(&lora->layout, opts.factors);
    assert_true(s.n <= MOST);
    if (dure_trainer_new(&t, f->model, &f->data, lora, &opts, &f->diag))
        fail_msg("%s", f->diag.text);
    assert_ok(dure_trainer_skip_to(t, at, &f->diag));
    dure_lora_pack(before, lora, opts.factors);
    assert_ok(dure_trainer_run(t, 1, keep, &s.told, &f->diag));
    dure_lora_pack(after, lora, opts.factors);
    for (size_t i = 0; i < s.n; i++)
        s.sum[i] = ((double)before[i] - (double)after[i]) * 8 / clip;
    dure_trainer_free(&t);
    dure_lora_free(&lora);
    return s;
}

/* Of a - b; b may be NULL. */
static double length(const step *a, const step *b)
{
    double square = 0;
    for (size_t i = 0; i < a->n; i++) {
        double x = a->sum[i] - (b ? b->sum[i] : 0);
        square += x * x;
    }
    return sqrt(square);
}

/* Floats lose the last digits of the sum. */
#define SLACK 1e-4

static void test_subject_s_gradient_is_within_the_clip(void **state)
{
    fixture *f = *state;
    static const char *const lines[] = {"ann apple", "ann river", "ann stone", "ann cloud",
                                        "ann apple", "ann tower", "ann light", "ann water"};
    const double clips[] = {1e-3, 0.05};
    for (size_t n = 1; n <= 8; n++) {
        read_data(f, lines, n);
        assert_int_equal(f->data.n_subjects, 1);
        for (size_t k = 0; k < 2; k++) {
            step s = step_of(f, 0, 100, clips[k]);
            assert_int_equal(s.told.records, n);
            double size = length(&s, NULL);
            if (!(size > 0.9 && size <= 1 + SLACK))
                fail_msg("%zu records, clip %g: %g", n, clips[k], size);
        }
    }
}

/* The sum of the records' gradients, not of clipped ones: below the clip it is the plain sum. */
static void test_subject_s_records_are_summed_before_the_clip(void **state)
{
    fixture *f = *state;
    static const char *const both[] = {"ann apple pie", "ann river bank"};
    step parts[2];
    for (size_t i = 0; i < 2; i++) {
        read_data(f, &both[i], 1);
        parts[i] = step_of(f, 0, 4, 1e3);
    }
    read_data(f, both, 2);
    step sum = step_of(f, 0, 4, 1e3);
    for (size_t i = 0; i < sum.n; i++) {
        double expected = parts[0].sum[i] + parts[1].sum[i];
        assert_true(fabs(sum.sum[i] - expected) < 3.0 / 16384); /* three roundings to the grid */
    }
    assert_true(length(&sum, &parts[0]) > 0.001);
}

static void test_neighbours_differ_by_one_clipped_gradient(void **state)
{
    fixture *f = *state;
    static const char *const lines[] = {"bob apple", "eve river", "bob stone", "eve cloud",
                                        "eve light", "ann tower", "ann water", "ann field",
                                        "ann shore", "ann apple"};
    const double clip = 0.01;
    read_data(f, lines, 10);
    step all = step_of(f, 3, 3, clip);
    read_data(f, lines, 5);
    step without = step_of(f, 3, 3, clip);
    read_data(f, lines + 5, 5);
    step alone = step_of(f, 3, 3, clip);
    double apart = length(&all, &without);
    assert_true(apart > 0.9 && apart <= 1 + SLACK);
    for (size_t i = 0; i < all.n; i++)
        assert_true(fabs(all.sum[i] - without.sum[i] - alone.sum[i]) < SLACK);
}

/* With more records than the cap, each has its turn and no step shows more. */
static void test_subject_gives_its_records_in_turn(void **state)
{
    fixture *f = *state;
    static const char *const lines[] = {"ann apple", "ann river", "ann stone"};
    step single[3];
    for (size_t i = 0; i < 3; i++) {
        read_data(f, &lines[i], 1);
        single[i] = step_of(f, 0, 1, 1);
    }
    read_data(f, lines, 3);
    for (uint64_t at = 0; at < 6; at++) {
        step s = step_of(f, at, 1, 1);
        assert_int_equal(s.told.records, 1);
        assert_true(length(&s, &single[at % 3]) == 0);
        assert_true(length(&s, &single[(at + 1) % 3]) > 0);
    }
    assert_int_equal(step_of(f, 0, 2, 1).told.records, 2);
}

/* All of a subject's records enter a step, or none. */
static void test_subjects_are_sampled_whole(void **state)
{
    fixture *f = *state;
    static const char *const lines[] = {"ann apple", "ann river", "ann stone", "ann cloud",
                                        "ann tower"};
    size_t seen = 0;
    read_data(f, lines, 5);
    dure_lora *lora = fresh_lora(f);
    dure_trainer_opts opts = private_opts(f, lora, 64);
    f->plan.mechanism = DURE_DP_POISSON_GAUSSIAN_SUBJECTS;
    assert_ok(dure_dp_plan_set_batch(&f->plan, 1, 2, NULL));
    opts.per_subject = 5;
    dure_trainer *t = trainer_of(f, lora, &opts);
    for (int i = 0; i < 64; i++) {
        dure_trainer_step told;
        assert_ok(dure_trainer_run(t, 1, keep, &told, &f->diag));
        assert_true(told.records == 0 || told.records == 5);
        seen += told.records == 5;
    }
    assert_true(seen > 12 && seen < 52); /* of 64 at one half */
    dure_trainer_free(&t);
    dure_lora_free(&lora);
}

static void test_record_without_a_subject_gives_nothing(void **state)
{
    fixture *f = *state;
    static const char *const lines[] = {"ann apple", "- river", "ann stone"};
    static const char *const named[] = {"ann apple", "ann stone"};
    read_data(f, lines, 3);
    assert_int_equal(f->data.n_unusable, 1);
    step s = step_of(f, 0, 8, 0.01);
    read_data(f, named, 2);
    step expected = step_of(f, 0, 8, 0.01);
    assert_int_equal(s.told.records, 2);
    assert_true(length(&s, &expected) == 0);
}

/* What cannot keep the promise is refused before a step. */
static void test_plan_of_subjects_needs_them(void **state)
{
    fixture *f = *state;
    dure_lora *lora = fresh_lora(f);
    dure_trainer_opts opts = private_opts(f, lora, 4);
    dure_trainer *t = NULL;
    f->plan.mechanism = DURE_DP_POISSON_GAUSSIAN_SUBJECTS;
    opts.per_subject = 1;
    assert_err(dure_trainer_new(&t, f->model, &f->data, lora, &opts, &f->diag), DURE_ERR_USAGE);
    assert_non_null(strstr(f->diag.text, "read without them"));
    static const char *const lines[] = {"ann apple"};
    read_data(f, lines, 1);
    opts.per_subject = 0;
    assert_err(dure_trainer_new(&t, f->model, &f->data, lora, &opts, &f->diag), DURE_ERR_USAGE);
    dure_lora_free(&lora);
}

static void test_data_hash_knows_whose_a_record_is(void **state)
{
    fixture *f = *state;
    static const char *const together[] = {"ann apple", "ann river"};
    static const char *const apart[] = {"ann apple", "bob river"};
    dure_hash a, b;
    read_data(f, together, 2);
    assert_ok(dure_trainer_data_hash(&a, &f->data));
    read_data(f, apart, 2);
    assert_ok(dure_trainer_data_hash(&b, &f->data));
    assert_false(dure_hash_equal(&a, &b));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define ROW(name) cmocka_unit_test_setup_teardown(name, trainer_set_up, trainer_tear_down)
        ROW(test_subject_s_gradient_is_within_the_clip),
        ROW(test_subject_s_records_are_summed_before_the_clip),
        ROW(test_neighbours_differ_by_one_clipped_gradient),
        ROW(test_subject_gives_its_records_in_turn),
        ROW(test_subjects_are_sampled_whole),
        ROW(test_record_without_a_subject_gives_nothing),
        ROW(test_plan_of_subjects_needs_them),
        ROW(test_data_hash_knows_whose_a_record_is),
#undef ROW
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
