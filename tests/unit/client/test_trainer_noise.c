/* What a private run releases, measured: its noise has the planned deviation in every coordinate
 * and step, and each step draws noise and records of its own. Seeds come from the system, so the
 * limits are those that a right trainer exceeds once in 10^6 runs. */
#include "unit/client/trainer_fixture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 400 };

/* SGD at rate 1 on batches without a record, so that a step subtracts C / L times its noise. */
static dure_trainer_opts noise_only(fixture *f, const dure_lora *lora)
{
    dure_trainer_opts opts = private_opts(f, lora, STEPS);
    assert_ok(dure_dp_plan_set_batch(&f->plan, 1, DURE_DP_RECORDS_MAX, NULL));
    assert_ok(dure_dp_plan_set_sigma(&f->plan, 0.75, NULL));
    opts.optimizer = DURE_TRAINER_SGD;
    opts.learning_rate = 1;
    return opts;
}

/* moved[i] = what the next step adds to parameter i. */
static void move(double *moved, fixture *f, dure_trainer *t, const dure_lora *lora)
{
    for (size_t i = 0; i < lora->n; i++)
        moved[i] = (double)lora->params[i];
    run(f, t, 1);
    for (size_t i = 0; i < lora->n; i++)
        moved[i] = (double)lora->params[i] - moved[i];
}

static void test_trainer_noise_has_the_planned_variance(void **state)
{
    fixture *f = *state;
    dure_lora *lora = fresh_lora(f);
    dure_trainer_opts opts = noise_only(f, lora);
    dure_trainer *t = trainer_of(f, lora, &opts);
    double *moved = calloc(lora->n, sizeof *moved), squares = 0;
    double variance = dure_dp_plan_sigma(&f->plan) * dure_dp_plan_sigma(&f->plan);
    double draws = (double)lora->n * STEPS;
    assert_non_null(moved);
    for (size_t s = 0; s < STEPS; s++) {
        move(moved, f, t, lora);
        for (size_t i = 0; i < lora->n; i++)
            squares += moved[i] * moved[i];
    }
    double off = squares / draws / variance - 1;
    /* Five standard errors, which see a deviation that is off by 1 %. */
    assert_true(5 * sqrt(2 / draws) < 0.01);
    assert_true(fabs(off) < 5 * sqrt(2 / draws));
    free(moved);
    dure_trainer_free(&t);
    dure_lora_free(&lora);
}

/* Noise that were drawn anew from the same stream in each step would repeat itself. */
static void test_trainer_steps_draw_noise_of_their_own(void **state)
{
    fixture *f = *state;
    dure_lora *lora = fresh_lora(f);
    dure_trainer_opts opts = noise_only(f, lora);
    dure_trainer *t = trainer_of(f, lora, &opts);
    double *moved = calloc(2 * lora->n, sizeof *moved), together = 0;
    double variance = dure_dp_plan_sigma(&f->plan) * dure_dp_plan_sigma(&f->plan);
    assert_non_null(moved);
    move(moved, f, t, lora);
    move(moved + lora->n, f, t, lora);
    for (size_t i = 0; i < lora->n; i++)
        together += moved[i] * moved[lora->n + i] / variance;
    assert_true(fabs(together) < 5 * sqrt((double)lora->n));
    free(moved);
    dure_trainer_free(&t);
    dure_lora_free(&lora);
}

static dure_err keep_loss(void *state, const dure_trainer_step *step)
{
    ((double *)state)[step->step] = step->loss;
    return DURE_OK;
}

/* At a learning rate that moves nothing, equal batches have equal losses. */
static void test_trainer_steps_choose_records_of_their_own(void **state)
{
    fixture *f = *state;
    dure_lora *lora = fresh_lora(f);
    dure_trainer_opts opts = private_opts(f, lora, 10);
    double loss[10];
    size_t same = 0;
    assert_ok(dure_dp_plan_set_batch(&f->plan, RECORDS / 2, RECORDS, NULL));
    opts.optimizer = DURE_TRAINER_SGD;
    opts.learning_rate = 1e-30;
    dure_trainer *t = trainer_of(f, lora, &opts);
    assert_ok(dure_trainer_run(t, 10, keep_loss, loss, &f->diag));
    for (size_t s = 1; s < 10; s++)
        same += loss[s] == loss[s - 1];
    assert_true(same <= 1);
    dure_trainer_free(&t);
    dure_lora_free(&lora);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define ROW(name) cmocka_unit_test_setup_teardown(name, trainer_set_up, trainer_tear_down)
        ROW(test_trainer_noise_has_the_planned_variance),
        ROW(test_trainer_steps_draw_noise_of_their_own),
        ROW(test_trainer_steps_choose_records_of_their_own),
#undef ROW
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
