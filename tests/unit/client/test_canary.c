/* The empirical audit on the real trainer, and on trainers that are wrong: the linker puts faults
 * between the trainer and what it calls (-Wl,--wrap), in this program alone.
 *
 *   test_client_canary [--table]
 *
 * With --table no test is made: each trainer is audited once and its figures are printed. */
#include "client/canary.h"
#include "dp/noise.h"
#include "unit/client/trainer_fixture.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef enum fault {
    NO_FAULT,
    NOISE_OFF,
    NOISE_HALVED,
    NOISE_ONE_PERCENT_LESS,
    NOISE_REPEATED,
    CLIPPING_OFF,
    SAMPLER_TAKES_ALL,
} fault;
static fault present;

/* ---- the faults ---- */

dure_err __real_dure_noise_fill(int64_t *out, size_t n, dure_noise_scale scale,
                                const dure_rng *rng);
dure_err __wrap_dure_noise_fill(int64_t *out, size_t n, dure_noise_scale scale,
                                const dure_rng *rng);
dure_err __wrap_dure_noise_fill(int64_t *out, size_t n, dure_noise_scale scale, const dure_rng *rng)
{
    static int64_t kept[1 << 16];
    static size_t n_kept;
    dure_err err = __real_dure_noise_fill(out, n, scale, rng);
    if (present == NOISE_OFF) memset(out, 0, n * sizeof *out);
    for (size_t i = 0; i < n && present == NOISE_HALVED; i++)
        out[i] /= 2;
    for (size_t i = 0; i < n && present == NOISE_ONE_PERCENT_LESS; i++)
        out[i] = llround((double)out[i] * 0.99);
    if (present == NOISE_REPEATED && n_kept == n) memcpy(out, kept, n * sizeof *out);
    n_kept = present == NOISE_REPEATED && n <= 1 << 16 ? n : 0;
    if (n_kept) memcpy(kept, out, n * sizeof *out);
    return err;
}

bool __real_dure_quantize_scale(double *scale, double norm_square, size_t n,
                                const dure_dp_plan *plan);
bool __wrap_dure_quantize_scale(double *scale, double norm_square, size_t n,
                                const dure_dp_plan *plan);
bool __wrap_dure_quantize_scale(double *scale, double norm_square, size_t n,
                                const dure_dp_plan *plan)
{
    if (present != CLIPPING_OFF) return __real_dure_quantize_scale(scale, norm_square, n, plan);
    *scale = ldexp(1 / plan->clip, (int)plan->grid_bits);
    return true;
}

bool __real_dure_quantize_fits(uint64_t squares, const dure_dp_plan *plan);
bool __wrap_dure_quantize_fits(uint64_t squares, const dure_dp_plan *plan);
bool __wrap_dure_quantize_fits(uint64_t squares, const dure_dp_plan *plan)
{
    return present == CLIPPING_OFF || __real_dure_quantize_fits(squares, plan);
}

dure_err __real_dure_sample_poisson(size_t *indices, size_t *n_chosen, size_t n_records,
                                    const dure_dp_plan *plan, const dure_rng *rng);
dure_err __wrap_dure_sample_poisson(size_t *indices, size_t *n_chosen, size_t n_records,
                                    const dure_dp_plan *plan, const dure_rng *rng);
dure_err __wrap_dure_sample_poisson(size_t *indices, size_t *n_chosen, size_t n_records,
                                    const dure_dp_plan *plan, const dure_rng *rng)
{
    if (present != SAMPLER_TAKES_ALL)
        return __real_dure_sample_poisson(indices, n_chosen, n_records, plan, rng);
    for (size_t i = 0; i < n_records; i++)
        indices[i] = i;
    *n_chosen = n_records;
    return DURE_OK;
}

/* ---- the audits ---- */

static dure_canary_report run_audit(fixture *f, fault with)
{
    const dure_canary_opts opts = {.canaries = 10000,
                                   .claim = {2, 1e-5},
                                   .significance = 0.05,
                                   .key_path = temp_dir_file(&f->dir, "canary-key")};
    dure_canary_report report;
    present = with;
    if (dure_canary_audit(&report, f->model, &f->data, &opts, &f->diag))
        fail_msg("%s", f->diag.text);
    present = NO_FAULT;
    return report;
}

static dure_canary_report audit(fixture *f, fault with)
{
    const dure_canary_report report = run_audit(f, with);
    for (int kind = 0; kind < DURE_CANARY_KINDS; kind++) {
        const dure_canary_run *r = &report.runs[kind];
        print_message("%s: claimed %.3f, at least %.3f (any mechanism: %.3f), %llu of %llu right\n",
                      kind ? "sampled" : "every record", r->claimed, r->lower, r->lower_any,
                      (unsigned long long)r->guesses.n_correct,
                      (unsigned long long)r->guesses.n_guess);
    }
    print_message("noise: %.5f of the planned deviation, %.5f repeated\n", report.noise.deviation,
                  report.noise.repeat);
    return report;
}

static void test_canary_bounds_are_below_the_claim(void **state)
{
    dure_canary_report r = audit(*state, NO_FAULT);
    assert_true(dure_canary_holds(&r));
    for (int kind = 0; kind < DURE_CANARY_KINDS; kind++) {
        assert_true(r.runs[kind].claimed <= 2 && r.runs[kind].claimed > 1.9);
        assert_true(r.runs[kind].included > 4700 && r.runs[kind].included < 5300);
    }
    /* An attack that tells nothing would find no fault either. */
    assert_true(r.runs[DURE_CANARY_EVERY_RECORD].lower > 0.5);
    assert_true(r.noise.n >= DURE_CANARY_NOISE_LEAST && r.noise.deviation_tolerance < 0.005);
}

static void test_canary_finds_noise_switched_off(void **state)
{
    dure_canary_report r = audit(*state, NOISE_OFF);
    assert_false(r.runs[DURE_CANARY_EVERY_RECORD].holds);
    assert_true(r.runs[DURE_CANARY_EVERY_RECORD].lower > 4);
    assert_false(r.noise.holds);
}

static void test_canary_finds_halved_noise(void **state)
{
    dure_canary_report r = audit(*state, NOISE_HALVED);
    assert_false(r.runs[DURE_CANARY_EVERY_RECORD].holds);
    assert_false(r.noise.holds);
}

static void test_canary_finds_clipping_switched_off(void **state)
{
    dure_canary_report r = audit(*state, CLIPPING_OFF);
    assert_false(r.runs[DURE_CANARY_EVERY_RECORD].holds);
    assert_true(r.runs[DURE_CANARY_EVERY_RECORD].lower > 4);
}

static void test_canary_finds_a_sampler_that_takes_everyone(void **state)
{
    dure_canary_report r = audit(*state, SAMPLER_TAKES_ALL);
    assert_true(r.runs[DURE_CANARY_EVERY_RECORD].holds);
    assert_false(r.runs[DURE_CANARY_SAMPLED].holds);
}

static void test_canary_measures_noise_to_a_percent(void **state)
{
    dure_canary_report r = audit(*state, NOISE_ONE_PERCENT_LESS);
    assert_false(r.noise.holds);
    assert_true(fabs(r.noise.deviation - 0.99) < r.noise.deviation_tolerance);
}

static void test_canary_finds_noise_that_repeats(void **state)
{
    dure_canary_report r = audit(*state, NOISE_REPEATED);
    assert_false(r.noise.holds);
    assert_true(r.noise.repeat > 0.9);
}

static dure_err count_records(void *state, const dure_trainer_step *step)
{
    *(uint64_t *)state += step->records;
    return DURE_OK;
}

/* How many records the trainer takes, over many steps: within six standard errors of q n T, which a
 * rate that is a tenth too high is beyond by far. The records have no labels, so steps are quick.
 */
static void test_trainer_takes_records_at_the_plan_s_rate(void **state)
{
    enum { MANY = 2000, STEPS = 200, EXPECTED = MANY / 16 * STEPS };
    fixture *f = *state;
    dure_record records[MANY];
    const dure_dataset own = f->data;
    uint64_t taken = 0;
    for (size_t i = 0; i < MANY; i++)
        records[i] = (dure_record){.first = own.records[0].first, .n = 1};
    f->data.records = records;
    f->data.n = MANY;
    dure_lora *lora = fresh_lora(f);
    dure_trainer_opts opts = private_opts(f, lora, STEPS);
    assert_ok(dure_dp_plan_set_batch(&f->plan, MANY / 16, MANY, NULL));
    dure_trainer *t = trainer_of(f, lora, &opts);
    if (dure_trainer_run(t, STEPS, count_records, &taken, &f->diag)) fail_msg("%s", f->diag.text);
    double off = (double)taken - EXPECTED;
    assert_true(fabs(off) < 6 * sqrt(EXPECTED * 15.0 / 16));
    dure_trainer_free(&t);
    dure_lora_free(&lora);
    f->data = own;
}

static void test_canary_refuses_options_that_show_nothing(void **state)
{
    fixture *f = *state;
    const dure_canary_opts good = {.canaries = 10000,
                                   .claim = {2, 1e-5},
                                   .significance = 0.05,
                                   .key_path = temp_dir_file(&f->dir, "canary-key")};
    dure_canary_report report;
    const dure_dataset nothing = {.n = 0};
    dure_canary_opts opts;
#define REFUSES(change, data)                                                                      \
    do {                                                                                           \
        opts = good;                                                                               \
        change;                                                                                    \
        assert_err(dure_canary_audit(&report, f->model, data, &opts, &f->diag), DURE_ERR_USAGE);   \
        assert_true(f->diag.text[0] != 0);                                                         \
    } while (0)
    REFUSES(opts.canaries = 4999, &f->data);
    REFUSES(opts.canaries = 1000000, &f->data);
    REFUSES(opts.canaries = 190000, &f->data); /* more than the model has parameters */
    REFUSES(opts.claim.epsilon = 2.5, &f->data);
    REFUSES(opts.claim.epsilon = 0, &f->data);
    REFUSES(opts.claim.delta = 1e-4, &f->data);
    REFUSES(opts.claim.delta = 0, &f->data);
    REFUSES(opts.significance = 0, &f->data);
    REFUSES((void)0, &nothing);
#undef REFUSES
}

/* docs/evidence.md holds one such table. */
static void print_table(void **state)
{
    static const struct {
        fault with;
        const char *name;
    } rows[] = {{NO_FAULT, "all is well"},
                {NOISE_OFF, "noise switched off"},
                {NOISE_HALVED, "noise halved"},
                {NOISE_ONE_PERCENT_LESS, "noise 1 % too small"},
                {NOISE_REPEATED, "every step draws the same noise"},
                {CLIPPING_OFF, "clipping switched off"},
                {SAMPLER_TAKES_ALL, "everyone is sampled"}};
    printf(
        "| trainer | every record: epsilon at least | sampled: epsilon at least | claimed | noise "
        "over the planned | repeats | found |\n|---|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const dure_canary_report r = run_audit(*state, rows[i].with);
        const dure_canary_run *all = &r.runs[DURE_CANARY_EVERY_RECORD];
        const dure_canary_run *sampled = &r.runs[DURE_CANARY_SAMPLED];
        printf("| %s | %.2f%s | %.2f%s | %.3f | %.4f%s | %.3f | %s |\n", rows[i].name, all->lower,
               all->holds ? "" : " !", sampled->lower, sampled->holds ? "" : " !",
               fmax(all->claimed, sampled->claimed), r.noise.deviation,
               fabs(r.noise.deviation - 1) <= r.noise.deviation_tolerance ? "" : " !",
               r.noise.repeat, dure_canary_holds(&r) ? "no fault" : "a fault");
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest table[] = {
        cmocka_unit_test_setup_teardown(print_table, trainer_set_up, trainer_tear_down)};
    if (argc == 2 && strcmp(argv[1], "--table") == 0)
        return cmocka_run_group_tests_name("client.canary", table, NULL, NULL);
    const struct CMUnitTest tests[] = {
#define ROW(name) cmocka_unit_test_setup_teardown(name, trainer_set_up, trainer_tear_down)
        ROW(test_canary_bounds_are_below_the_claim),
        ROW(test_canary_finds_noise_switched_off),
        ROW(test_canary_finds_halved_noise),
        ROW(test_canary_finds_clipping_switched_off),
        ROW(test_canary_finds_a_sampler_that_takes_everyone),
        ROW(test_canary_measures_noise_to_a_percent),
        ROW(test_canary_finds_noise_that_repeats),
        ROW(test_trainer_takes_records_at_the_plan_s_rate),
        ROW(test_canary_refuses_options_that_show_nothing),
#undef ROW
    };
    return cmocka_run_group_tests_name("client.canary", tests, NULL, NULL);
}
