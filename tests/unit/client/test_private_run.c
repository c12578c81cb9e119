/* The order of reserve, key, spend and erase. What a whole run does is in cli.train. */
#include "client/private_run.h"
#include "common/file.h"
#include "support/check.h"
#include "support/temp_dir.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct fixture {
    temp_dir dir;
    char key[300], ledger[300];
    dure_lora *lora;
    dure_trainer_opts trainer;
    dure_hash base, data;
    dure_private_run_opts opts;
    dure_private_run run;
    dure_diag diag;
} fixture;

static int set_up(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    temp_dir_make(&f->dir);
    snprintf(f->key, sizeof f->key, "%s", temp_dir_file(&f->dir, "key"));
    snprintf(f->ledger, sizeof f->ledger, "%s", temp_dir_file(&f->dir, "ledger"));
    const dure_lora_layout layout = {.shape = {.architecture = "llama",
                                               .n_layers = 2,
                                               .n_embd = 32,
                                               .n_ff = 64,
                                               .n_head = 4,
                                               .n_head_kv = 2,
                                               .head_dim = 8,
                                               .n_vocab = 100,
                                               .n_context = 64},
                                     .rank = 2,
                                     .alpha = 4,
                                     .targets = 1u << DURE_LORA_Q};
    assert_ok(dure_lora_new(&f->lora, &layout));
    f->trainer = (dure_trainer_opts){.factors = DURE_LORA_FACTOR_BOTH, .learning_rate = 0.01};
    f->opts = (dure_private_run_opts){.key_path = f->key,
                                      .ledger_path = f->ledger,
                                      .source = "orders",
                                      .purpose = "a test",
                                      .budget = {8, 1e-5},
                                      .n_pub = 1000,
                                      .batch = 20,
                                      .steps = 50,
                                      .clip = 1};
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;
    dure_private_run_fini(&f->run);
    dure_lora_free(&f->lora);
    temp_dir_remove(&f->dir);
    free(f);
    return 0;
}

static dure_err prepare(fixture *f)
{
    const dure_private_run_subject subject = {&f->trainer, f->lora, &f->base, &f->data};
    return dure_private_run_prepare(&f->run, &f->opts, &subject, &f->diag);
}

static dure_source_status status_of(fixture *f)
{
    dure_site_ledger *ledger = NULL;
    dure_source_status status;
    assert_ok(dure_site_ledger_open_read(&ledger, f->ledger, &f->diag));
    assert_ok(dure_site_ledger_source(&status, ledger, "orders", &f->diag));
    dure_site_ledger_close(&ledger);
    return status;
}

static void test_private_run_reserves_spends_and_erases(void **state)
{
    fixture *f = *state;
    assert_ok(prepare(f));
    assert_true(f->run.epsilon <= 8 && f->run.epsilon > 7.9 && !f->run.resumed);
    assert_true(status_of(f).n_reserved == 1 && dure_file_exists(f->key));
    assert_ok(dure_private_run_spend(&f->run, &f->diag));
    assert_true(status_of(f).n_spent == 1 && dure_file_exists(f->key));
    assert_ok(dure_private_run_close(&f->run, &f->diag));
    assert_false(dure_file_exists(f->key));
    assert_err(prepare(f), DURE_ERR_BUDGET);
    assert_false(dure_file_exists(f->key));
}

static void test_private_run_is_taken_up_under_its_reservation(void **state)
{
    fixture *f = *state;
    uint8_t key[DURE_RNG_KEY_BYTES];
    assert_ok(prepare(f));
    dure_reservation_id id = f->run.id;
    dure_dp_plan plan = f->run.plan;
    memcpy(key, f->run.attempt.key, sizeof key);
    dure_private_run_fini(&f->run);
    for (int spent = 0; spent < 2; spent++) { /* killed before, and after, it was spent */
        assert_ok(prepare(f));
        assert_true(f->run.resumed && f->run.plan.sigma_num == plan.sigma_num);
        assert_memory_equal(f->run.attempt.key, key, sizeof key);
        assert_memory_equal(f->run.id.b, id.b, sizeof id.b);
        assert_ok(dure_private_run_spend(&f->run, &f->diag));
        dure_private_run_fini(&f->run);
    }
    assert_true(status_of(f).n_spent == 1 && status_of(f).n_reserved == 0);
}

/* Puts the files back as they were when it was killed between the reservation and the key. */
static void lose_key(const fixture *f)
{
    const dure_reservation_id id = f->run.id;
    assert_int_equal(remove(f->key), 0);
    assert_ok(dure_file_write_atomic(temp_dir_file(&f->dir, "key.reservation"),
                                     dure_span_of(id.b, sizeof id.b), 0600, NULL));
}

static void test_private_run_cut_off_before_its_key_reserves_once(void **state)
{
    fixture *f = *state;
    assert_ok(prepare(f));
    assert_false(dure_file_exists(temp_dir_file(&f->dir, "key.reservation")));
    const dure_reservation_id id = f->run.id;
    lose_key(f);
    assert_true(dure_private_run_exists(f->key));
    dure_private_run_fini(&f->run);
    f->opts.steps++; /* other settings: it is not theirs */
    assert_err(prepare(f), DURE_ERR_STATE);
    f->opts.steps--;
    assert_ok(prepare(f));
    assert_memory_equal(f->run.id.b, id.b, sizeof id.b);
    assert_false(dure_file_exists(temp_dir_file(&f->dir, "key.reservation")));
    assert_true(status_of(f).n_reserved == 1 && status_of(f).n_spent == 0);
    dure_private_run_fini(&f->run);
}

/* A name that was left behind pays for nothing a second time. */
static void test_private_run_is_not_paid_by_what_is_spent(void **state)
{
    fixture *f = *state;
    f->opts.noise = 20;
    assert_ok(prepare(f));
    const dure_reservation_id id = f->run.id;
    assert_ok(dure_private_run_spend(&f->run, &f->diag));
    lose_key(f);
    dure_private_run_fini(&f->run);
    assert_ok(prepare(f));
    assert_memory_not_equal(f->run.id.b, id.b, sizeof id.b);
    assert_true(status_of(f).n_reserved == 1 && status_of(f).n_spent == 1);
    assert_ok(dure_private_run_close(&f->run, &f->diag));
    assert_false(dure_private_run_exists(f->key));
}

/* The folder of a run without key yet, copied: both copies have the reservation's name, and keys of
 * their own. What the first one spends the second does not. */
static void test_private_run_spends_its_reservation_for_one_key(void **state)
{
    fixture *f = *state;
    fixture copy;
    assert_ok(prepare(f));
    const dure_reservation_id id = f->run.id;
    copy = *f;
    copy.run = (dure_private_run){.ledger = NULL};
    snprintf(copy.key, sizeof copy.key, "%s", temp_dir_file(&f->dir, "other"));
    copy.opts.key_path = copy.key;
    assert_ok(dure_file_write_atomic(temp_dir_file(&f->dir, "other.reservation"),
                                     dure_span_of(id.b, sizeof id.b), 0600, NULL));
    assert_ok(prepare(&copy));
    assert_memory_equal(copy.run.id.b, id.b, sizeof id.b);
    assert_memory_not_equal(copy.run.attempt.key, f->run.attempt.key, DURE_RNG_KEY_BYTES);
    assert_ok(dure_private_run_spend(&copy.run, &f->diag));
    assert_err(dure_private_run_spend(&f->run, &f->diag), DURE_ERR_STATE);
    assert_non_null(strstr(f->diag.text, "another run has spent this reservation"));
    dure_private_run_fini(&copy.run); /* killed, and taken up with its key */
    assert_ok(prepare(&copy));
    assert_ok(dure_private_run_spend(&copy.run, &f->diag));
    dure_private_run_fini(&copy.run);
    assert_true(status_of(f).n_spent == 1 && status_of(f).n_reserved == 0);
}

static void test_private_run_refuses_another_plan_for_its_key(void **state)
{
    fixture *f = *state;
    assert_ok(prepare(f));
    dure_private_run_fini(&f->run);
    const dure_private_run_opts good = f->opts;
#define REFUSES(change)                                                                            \
    do {                                                                                           \
        f->opts = good;                                                                            \
        change;                                                                                    \
        assert_err(prepare(f), DURE_ERR_STATE);                                                    \
        assert_null(f->run.ledger);                                                                \
    } while (0)
    REFUSES(f->opts.steps++);
    REFUSES(f->opts.batch++);
    REFUSES(f->opts.clip *= 2);
    REFUSES(f->opts.noise = 5);
    REFUSES(f->opts.source = "claims");
    REFUSES(f->trainer.learning_rate *= 2);
    f->trainer.learning_rate /= 2;
    REFUSES(f->lora->params[1] += 1);
    f->lora->params[1] -= 1;
    REFUSES(f->base.b[0] ^= 1);
    f->base.b[0] ^= 1;
    REFUSES(f->data.b[0] ^= 1);
    f->data.b[0] ^= 1;
#undef REFUSES
    f->opts = good;
    assert_ok(prepare(f));
}

/* The ledger that paid must be the one at hand: an older copy lacks its newest entry, and one from
 * elsewhere, without a mark, does not know the reservation. */
static void test_private_run_refuses_a_ledger_without_its_reservation(void **state)
{
    fixture *f = *state;
    assert_ok(prepare(f));
    dure_private_run_fini(&f->run);
    assert_int_equal(remove(f->ledger), 0);
    assert_err(prepare(f), DURE_ERR_STATE);
    assert_non_null(strstr(f->diag.text, "older copy"));
    assert_int_equal(remove(temp_dir_file(&f->dir, "ledger.head")), 0);
    assert_err(prepare(f), DURE_ERR_NOT_FOUND);
    assert_non_null(strstr(f->diag.text, "older copy"));
}

static void test_private_run_refuses_figures_out_of_range(void **state)
{
    fixture *f = *state;
    const dure_private_run_opts good = f->opts;
#define REFUSES(change)                                                                            \
    do {                                                                                           \
        f->opts = good;                                                                            \
        f->opts.change;                                                                            \
        assert_err(prepare(f), DURE_ERR_USAGE);                                                    \
        assert_false(dure_file_exists(f->key));                                                    \
    } while (0)
    REFUSES(budget.epsilon = 0);
    REFUSES(budget.delta = 1);
    REFUSES(budget.delta = 0.001); /* over 1 / (10 n_pub) */
    REFUSES(batch = 1001);
    REFUSES(batch = 0);
    REFUSES(steps = 0);
    REFUSES(clip = -1);
    REFUSES(noise = -1);
    REFUSES(purpose = "");
#undef REFUSES
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define ROW(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        ROW(test_private_run_reserves_spends_and_erases),
        ROW(test_private_run_is_taken_up_under_its_reservation),
        ROW(test_private_run_cut_off_before_its_key_reserves_once),
        ROW(test_private_run_is_not_paid_by_what_is_spent),
        ROW(test_private_run_spends_its_reservation_for_one_key),
        ROW(test_private_run_refuses_another_plan_for_its_key),
        ROW(test_private_run_refuses_a_ledger_without_its_reservation),
        ROW(test_private_run_refuses_figures_out_of_range),
#undef ROW
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
