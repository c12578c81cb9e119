/* A clip that adapts: what a unit adds to sum and count, the count's noise, and where it leads. */
#include "unit/client/trainer_fixture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { NOISE_STEPS = 4000, STEPS_MOST = 100 };

/* Gradients of chosen norms in place of the records' own; a norm of NaN is a gradient that is not
 * finite. */
typedef struct norms {
    double of[RECORDS];
    float *gradient;
} norms;

static const float *gradient_of_norm(void *state, size_t record, const float *gradient)
{
    norms *n = state;
    (void)gradient;
    n->gradient[0] = (float)n->of[record];
    return n->gradient;
}

/* Everyone in every step, SGD at rate 1 without noise on the sum. */
static dure_trainer_opts adaptive_opts(fixture *f, const dure_lora *lora, norms *n)
{
    dure_trainer_opts opts = private_opts(f, lora, NOISE_STEPS);
    f->plan.sigma_num = 0;
    assert_ok(dure_dp_plan_set_batch(&f->plan, RECORDS, RECORDS, NULL));
    assert_ok(dure_dp_adaptive_set(&f->plan.adaptive, 2, 0.5, 0.2, NULL));
    opts.optimizer = DURE_TRAINER_SGD;
    opts.learning_rate = 1;
    n->gradient = calloc(lora->n, sizeof *n->gradient);
    assert_non_null(n->gradient);
    opts.substitute = gradient_of_norm;
    opts.substitute_state = n;
    return opts;
}

typedef struct clips {
    double at[NOISE_STEPS + 1];
    size_t n;
} clips;

static dure_err keep_clip(void *state, const dure_trainer_step *step)
{
    clips *c = state;
    if (c->n <= NOISE_STEPS) c->at[c->n++] = step->clip;
    return DURE_OK;
}

/* The count of step i, in units: what the clip's change says. */
static double count_of(const clips *c, size_t i, const dure_dp_plan *plan)
{
    return -2 * (double)plan->batch * log(c->at[i + 1] / c->at[i]) / plan->adaptive.rate;
}

/* One step without batch: the count is noise alone. */
static void test_count_has_the_planned_noise(void **state)
{
    fixture *f = *state;
    static clips c;
    dure_lora *lora = fresh_lora(f);
    dure_trainer_opts opts = private_opts(f, lora, NOISE_STEPS);
    double squares = 0, together = 0;
    assert_ok(dure_dp_plan_set_batch(&f->plan, 1000, DURE_DP_RECORDS_MAX, NULL));
    assert_ok(dure_dp_adaptive_set(&f->plan.adaptive, 100, 0.5, 0.1, NULL));
    dure_trainer *t = trainer_of(f, lora, &opts);
    c.n = 0;
    assert_ok(dure_trainer_run(t, NOISE_STEPS, keep_clip, &c, &f->diag));
    assert_true(c.at[0] == f->plan.clip);
    const size_t n = NOISE_STEPS - 1;
    for (size_t i = 0; i < n; i++) {
        double z = count_of(&c, i, &f->plan) / 100;
        squares += z * z;
        if (i > 0) together += z * count_of(&c, i - 1, &f->plan) / 100;
    }
    /* Five standard errors. */
    assert_true(fabs(squares / (double)n - 1) < 5 * sqrt(2 / (double)n));
    assert_true(fabs(together) < 5 * sqrt((double)n));
    dure_trainer_free(&t);
    dure_lora_free(&lora);
}

/* The count after one step of these records, with the noise of this attempt. */
static double count_after(fixture *f, norms *n)
{
    static clips c;
    dure_lora *lora = fresh_lora(f);
    dure_trainer_opts opts = adaptive_opts(f, lora, n);
    dure_trainer *t = trainer_of(f, lora, &opts);
    c.n = 0;
    assert_ok(dure_trainer_run(t, 2, keep_clip, &c, &f->diag));
    dure_trainer_free(&t);
    dure_lora_free(&lora);
    free(n->gradient);
    return count_of(&c, 0, &f->plan);
}

/* Whatever the record's gradient is: 1 below the clip, -1 above it, and nothing if it is not
 * finite. */
static void test_unit_moves_the_count_by_one(void **state)
{
    fixture *f = *state;
    norms n = {.gradient = NULL};
    const double changed[] = {0, 0.5, 1, 1.0001, 1e6, (double)NAN, (double)INFINITY};
    const double moved[] = {1, 1, 1, -1, -1, 0, 0};
    for (size_t i = 1; i < RECORDS; i++)
        n.of[i] = i % 2 ? 0.3 : 3;
    n.of[0] = (double)NAN;
    double without = count_after(f, &n);
    for (size_t k = 0; k < 7; k++) {
        n.of[0] = changed[k];
        double count = count_after(f, &n);
        if (fabs(count - without - moved[k]) > 1e-6)
            fail_msg("a norm of %g moved the count by %g", changed[k], count - without);
    }
}

/* The integers of every step stand for that step's clip, whatever the gradient. */
static void test_sum_is_within_the_clip_of_its_step(void **state)
{
    fixture *f = *state;
    norms n = {.gradient = NULL};
    static clips c;
    dure_lora *lora = fresh_lora(f);
    for (size_t i = 0; i < RECORDS; i++)
        n.of[i] = 1e3;
    dure_trainer_opts opts = adaptive_opts(f, lora, &n);
    dure_trainer *t = trainer_of(f, lora, &opts);
    float *before = calloc(lora->n, sizeof *before), *after = calloc(lora->n, sizeof *after);
    assert_true(before && after);
    c.n = 0;
    for (size_t s = 0; s < 20; s++) {
        double square = 0;
        dure_lora_pack(before, lora, opts.factors);
        assert_ok(dure_trainer_run(t, 1, keep_clip, &c, &f->diag));
        dure_lora_pack(after, lora, opts.factors);
        for (size_t i = 0; i < lora->n; i++)
            square += pow((double)after[i] - (double)before[i], 2);
        double size = sqrt(square) / c.at[s]; /* L records of the clip's norm, over L */
        if (!(size > 0.98 && size < 1 + 1e-4)) fail_msg("step %zu: %g of the clip", s, size);
    }
    assert_true(c.at[19] > 2 * c.at[0]);
    free(before);
    free(after);
    free(n.gradient);
    dure_trainer_free(&t);
    dure_lora_free(&lora);
}

static void test_clip_finds_the_quantile(void **state)
{
    fixture *f = *state;
    norms n = {.gradient = NULL};
    static clips c;
    const double starts[] = {0.01, 1000};
    for (size_t i = 0; i < RECORDS; i++)
        n.of[i] = 2 + 0.1 * (double)i; /* the median lies between 3.1 and 3.2 */
    for (size_t k = 0; k < 2; k++) {
        dure_lora *lora = fresh_lora(f);
        dure_trainer_opts opts = adaptive_opts(f, lora, &n);
        double sum = 0;
        f->plan.clip = starts[k];
        f->plan.adaptive.rate = 0.4;
        dure_trainer *t = trainer_of(f, lora, &opts);
        c.n = 0;
        assert_ok(dure_trainer_run(t, STEPS_MOST, keep_clip, &c, &f->diag));
        for (size_t i = STEPS_MOST / 2; i < STEPS_MOST; i++)
            sum += c.at[i] / (STEPS_MOST / 2);
        if (!(sum > 2.8 && sum < 3.5)) fail_msg("from %g the clip went to %g", starts[k], sum);
        dure_trainer_free(&t);
        dure_lora_free(&lora);
        free(n.gradient);
    }
}

/* Killed and taken up, the run has the same clips and factors, bit for bit. */
static void test_resumed_clip_is_the_same(void **state)
{
    fixture *f = *state;
    const char *path = temp_dir_file(&f->dir, "state");
    static clips whole, parts;
    dure_lora *one = fresh_lora(f), *two = fresh_lora(f);
    dure_trainer_opts opts = private_opts(f, one, 10);
    assert_ok(dure_dp_adaptive_set(&f->plan.adaptive, 2, 0.5, 0.3, NULL));
    whole.n = parts.n = 0;
    dure_trainer *t = trainer_of(f, one, &opts);
    assert_ok(dure_trainer_run(t, 10, keep_clip, &whole, &f->diag));
    dure_trainer_free(&t);
    t = trainer_of(f, two, &opts);
    assert_ok(dure_trainer_run(t, 4, keep_clip, &parts, &f->diag));
    assert_ok(dure_trainer_save(t, path, &f->diag));
    dure_trainer_free(&t);
    t = trainer_of(f, two, &opts);
    assert_ok(dure_trainer_load(t, path, &f->diag));
    assert_ok(dure_trainer_run(t, 6, keep_clip, &parts, &f->diag));
    dure_trainer_free(&t);
    assert_memory_equal(whole.at, parts.at, 10 * sizeof *whole.at);
    assert_true(whole.at[9] != whole.at[0]);
    assert_memory_equal(one->params, two->params, one->n * sizeof *one->params);
    /* A state of a fixed clip is another run's. */
    f->plan.adaptive = (dure_dp_adaptive){0};
    t = trainer_of(f, two, &opts);
    assert_err(dure_trainer_load(t, path, &f->diag), DURE_ERR_STATE);
    dure_trainer_free(&t);
    dure_lora_free(&one);
    dure_lora_free(&two);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define ROW(name) cmocka_unit_test_setup_teardown(name, trainer_set_up, trainer_tear_down)
        ROW(test_count_has_the_planned_noise),        ROW(test_unit_moves_the_count_by_one),
        ROW(test_sum_is_within_the_clip_of_its_step), ROW(test_clip_finds_the_quantile),
        ROW(test_resumed_clip_is_the_same),
#undef ROW
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
