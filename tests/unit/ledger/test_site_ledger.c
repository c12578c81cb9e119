/* The budget ledger's rules. What happens to its file is in test_site_ledger_file.c. */
#include "dp/calibrate.h"
#include "ledger/site_ledger.h"
#include "support/check.h"
#include "support/temp_dir.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct fixture {
    temp_dir dir;
    const char *path;
    dure_site_ledger *ledger;
    dure_diag diag;
} fixture;

static const dure_privacy budget = {8, 1e-5};
enum { RECORDS = 10000 };

static int set_up(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    temp_dir_make(&f->dir);
    f->path = strdup(temp_dir_file(&f->dir, "ledger"));
    assert_ok(dure_site_ledger_open(&f->ledger, f->path, &f->diag));
    assert_ok(dure_site_ledger_create_source(f->ledger, "orders", budget, RECORDS, &f->diag));
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;
    dure_site_ledger_close(&f->ledger);
    temp_dir_remove(&f->dir);
    free((void *)(uintptr_t)f->path);
    free(f);
    return 0;
}

static dure_dp_plan plan_of(uint64_t batch, double sigma, uint64_t steps)
{
    dure_dp_plan plan = {
        .mechanism = DURE_DP_POISSON_GAUSSIAN, .clip = 1, .grid_bits = 15, .steps = steps};
    assert_ok(dure_dp_plan_set_batch(&plan, batch, RECORDS, NULL));
    assert_ok(dure_dp_plan_set_sigma(&plan, sigma, NULL));
    return plan;
}

static dure_source_status status_of(fixture *f)
{
    dure_source_status status;
    assert_ok(dure_site_ledger_source(&status, f->ledger, "orders", &f->diag));
    return status;
}

static void test_site_ledger_reserve_then_spend(void **state)
{
    fixture *f = *state;
    dure_dp_plan plan = plan_of(128, 0.8, 20);
    dure_reservation_id id;
    assert_ok(dure_site_ledger_reserve(&id, f->ledger, "orders", &plan, "a test", &f->diag));
    dure_source_status s = status_of(f);
    assert_true(s.n_reserved == 1 && s.n_spent == 0 && s.epsilon_spent == 0);
    double epsilon = 0;
    assert_ok(dure_calibrate_epsilon(&epsilon, &plan, NULL, 1e-5));
    assert_true(s.epsilon_committed == epsilon && s.epsilon_remaining == 8 - epsilon);
    assert_ok(dure_site_ledger_spend(f->ledger, &id, &f->diag));
    assert_ok(dure_site_ledger_spend(f->ledger, &id, &f->diag)); /* asked again: fine */
    s = status_of(f);
    assert_true(s.n_reserved == 0 && s.n_spent == 1 && s.epsilon_spent == epsilon);
    assert_err(dure_site_ledger_release(f->ledger, &id, &f->diag), DURE_ERR_STATE);
    const dure_reservation *r = NULL;
    assert_ok(dure_site_ledger_reservation(&r, f->ledger, &id, &f->diag));
    assert_true(r->state == DURE_RESERVATION_SPENT && r->plan.q_k == plan.q_k);
    assert_string_equal(r->purpose, "a test");
}

/* Whoever stored the name first finds what was reserved under it, and nothing else. */
static void test_site_ledger_reserves_once_under_a_name(void **state)
{
    fixture *f = *state;
    const dure_dp_plan plan = plan_of(128, 0.8, 20), other = plan_of(128, 0.9, 20);
    dure_reservation_id id;
    assert_ok(dure_reservation_id_make(&id, &f->diag));
    assert_ok(dure_site_ledger_reserve_as(f->ledger, &id, "orders", &plan, "a join", &f->diag));
    assert_ok(dure_site_ledger_reserve_as(f->ledger, &id, "orders", &plan, "a join", &f->diag));
    assert_int_equal(status_of(f).n_reserved, 1);
    assert_err(dure_site_ledger_reserve_as(f->ledger, &id, "orders", &other, "a join", &f->diag),
               DURE_ERR_EXISTS);
    assert_ok(dure_site_ledger_release(f->ledger, &id, &f->diag));
    assert_err(dure_site_ledger_reserve_as(f->ledger, &id, "orders", &plan, "a join", &f->diag),
               DURE_ERR_STATE);
    assert_int_equal(status_of(f).n_reserved, 0);
}

/* Rule 2: what left is noted by step and round, and neither comes twice. */
static void test_site_ledger_notes_what_rounds_use(void **state)
{
    fixture *f = *state;
    dure_dp_plan plan = plan_of(128, 0.8, 20);
    dure_reservation_id id;
    const dure_reservation *r = NULL;
    dure_ledger_use use = {.round = 3, .from = 0, .to = 8};
    assert_ok(dure_site_ledger_reserve(&id, f->ledger, "orders", &plan, "a test", &f->diag));
    assert_err(dure_site_ledger_use(f->ledger, &id, &use, &f->diag), DURE_ERR_STATE); /* unspent */
    assert_ok(dure_site_ledger_spend(f->ledger, &id, &f->diag));
    assert_ok(dure_site_ledger_use(f->ledger, &id, &use, &f->diag));
    assert_err(dure_site_ledger_use(f->ledger, &id, &use, &f->diag), DURE_ERR_STATE);
    assert_err(dure_site_ledger_use(f->ledger, &id, &(dure_ledger_use){4, 7, 9}, &f->diag),
               DURE_ERR_STATE); /* the eighth step again */
    assert_err(dure_site_ledger_use(f->ledger, &id, &(dure_ledger_use){3, 8, 9}, &f->diag),
               DURE_ERR_STATE); /* the third round again */
    assert_err(dure_site_ledger_use(f->ledger, &id, &(dure_ledger_use){4, 8, 21}, &f->diag),
               DURE_ERR_BUDGET);
    assert_err(dure_site_ledger_use(f->ledger, &id, &(dure_ledger_use){4, 8, 8}, &f->diag),
               DURE_ERR_USAGE);
    assert_ok(dure_site_ledger_use(f->ledger, &id, &(dure_ledger_use){5, 10, 20}, &f->diag));
    assert_ok(dure_site_ledger_reservation(&r, f->ledger, &id, &f->diag));
    assert_true(r->steps_used == 20 && r->last_round == 5);
    id.b[0] ^= 1;
    assert_err(dure_site_ledger_use(f->ledger, &id, &use, &f->diag), DURE_ERR_NOT_FOUND);
}

static void test_site_ledger_release_gives_the_budget_back(void **state)
{
    fixture *f = *state;
    dure_dp_plan plan = plan_of(128, 0, 100);
    dure_reservation_id first, second;
    assert_ok(dure_site_ledger_least_noise(&plan, f->ledger, "orders", &f->diag));
    assert_ok(dure_site_ledger_reserve(&first, f->ledger, "orders", &plan, "one", &f->diag));
    assert_err(dure_site_ledger_reserve(&second, f->ledger, "orders", &plan, "two", &f->diag),
               DURE_ERR_BUDGET);
    assert_ok(dure_site_ledger_release(f->ledger, &first, &f->diag));
    assert_ok(dure_site_ledger_reserve(&second, f->ledger, "orders", &plan, "two", &f->diag));
    assert_err(dure_site_ledger_spend(f->ledger, &first, &f->diag), DURE_ERR_STATE);
    dure_source_status s = status_of(f);
    assert_true(s.n_released == 1 && s.n_reserved == 1);
}

static void test_site_ledger_first_plan_may_use_the_whole_budget(void **state)
{
    fixture *f = *state;
    dure_dp_plan plan = plan_of(128, 0, 100);
    dure_reservation_id id;
    double epsilon = 0;
    assert_ok(dure_site_ledger_least_noise(&plan, f->ledger, "orders", &f->diag));
    dure_dp_plan calibrated = plan;
    calibrated.sigma_num = 0;
    assert_ok(dure_calibrate_sigma(&calibrated, NULL, budget, &f->diag));
    assert_int_equal(calibrated.sigma_num, plan.sigma_num);
    assert_ok(dure_site_ledger_reserve(&id, f->ledger, "orders", &plan, "all", &f->diag));
    epsilon = status_of(f).epsilon_committed;
    assert_true(epsilon <= 8 && epsilon > 7.99);
}

static void test_site_ledger_refusal_says_what_would_fit(void **state)
{
    fixture *f = *state;
    dure_dp_plan plan = plan_of(1000, 0.6, 1000);
    dure_reservation_id id;
    unsigned long long steps = 0, batch = 0;
    double noise = 0;
    assert_err(dure_site_ledger_reserve(&id, f->ledger, "orders", &plan, "x", &f->diag),
               DURE_ERR_BUDGET);
    const char *offer = strchr(f->diag.text, ';');
    assert_non_null(offer);
    assert_int_equal(sscanf(offer,
                            "; %llu steps with this noise fit, or all of them with noise %lf or "
                            "in batches of %llu",
                            &steps, &noise, &batch),
                     3);
    dure_dp_plan fewer = plan, quieter = plan_of(1000, noise, 1000);
    const dure_dp_plan smaller = plan_of(batch, 0.6, 1000), larger = plan_of(batch + 1, 0.6, 1000);
    assert_err(dure_site_ledger_reserve(&id, f->ledger, "orders", &larger, "x", &f->diag),
               DURE_ERR_BUDGET);
    assert_ok(dure_site_ledger_reserve(&id, f->ledger, "orders", &smaller, "x", &f->diag));
    assert_ok(dure_site_ledger_release(f->ledger, &id, &f->diag));
    fewer.steps = steps + steps / 500 + 1;
    assert_err(dure_site_ledger_reserve(&id, f->ledger, "orders", &fewer, "x", &f->diag),
               DURE_ERR_BUDGET);
    fewer.steps = steps;
    assert_ok(dure_site_ledger_reserve(&id, f->ledger, "orders", &fewer, "x", &f->diag));
    assert_ok(dure_site_ledger_release(f->ledger, &id, &f->diag));
    assert_ok(dure_site_ledger_reserve(&id, f->ledger, "orders", &quieter, "x", &f->diag));
}

/* Plans that are chosen one after another stay within the budget whatever is chosen. */
static void test_site_ledger_later_plans_are_held_to_the_filter(void **state)
{
    fixture *f = *state;
    dure_reservation_id id;
    size_t taken = 0;
    for (size_t i = 0; i < 40; i++) {
        dure_dp_plan plan =
            plan_of(64 + 64 * (i % 3), 0.8 + 0.1 * (double)(i % 5), 2000 + 100 * (i % 7));
        dure_err err =
            dure_site_ledger_reserve(&id, f->ledger, "orders", &plan, "series", &f->diag);
        if (err == DURE_ERR_BUDGET) continue;
        assert_ok(err);
        taken++;
    }
    dure_source_status s = status_of(f);
    assert_true(taken > 3 && taken < 40);
    assert_true(s.filter_used <= 1 && s.filter_used > 0.9);
    assert_true(s.epsilon_committed <= 8);
    /* With more noise a plan still fits, and fills what the filter has left. */
    dure_dp_plan plan = plan_of(128, 0, 100);
    assert_ok(dure_site_ledger_least_noise(&plan, f->ledger, "orders", &f->diag));
    assert_ok(dure_site_ledger_reserve(&id, f->ledger, "orders", &plan, "last", &f->diag));
    plan.sigma_num--;
    assert_err(dure_site_ledger_reserve(&id, f->ledger, "orders", &plan, "x", &f->diag),
               DURE_ERR_BUDGET);
    assert_true(status_of(f).filter_used <= 1);
}

static void test_site_ledger_refuses_a_plan_without_noise(void **state)
{
    fixture *f = *state;
    dure_dp_plan plan = plan_of(1, 0, 1);
    dure_reservation_id id;
    assert_err(dure_site_ledger_reserve(&id, f->ledger, "orders", &plan, "bare", &f->diag),
               DURE_ERR_BUDGET);
    assert_non_null(strstr(f->diag.text, "inf"));
}

static void test_site_ledger_budget_of_a_source_is_fixed(void **state)
{
    fixture *f = *state;
    assert_ok(dure_site_ledger_create_source(f->ledger, "orders", budget, RECORDS, &f->diag));
    assert_int_equal(dure_site_ledger_source_count(f->ledger), 1);
    const dure_privacy more = {9, 1e-5}, looser = {8, 1e-6};
    assert_err(dure_site_ledger_create_source(f->ledger, "orders", more, RECORDS, &f->diag),
               DURE_ERR_EXISTS);
    assert_err(dure_site_ledger_create_source(f->ledger, "orders", looser, RECORDS, &f->diag),
               DURE_ERR_EXISTS);
    assert_err(dure_site_ledger_create_source(f->ledger, "orders", budget, RECORDS - 1, &f->diag),
               DURE_ERR_EXISTS);
    assert_non_null(strstr(f->diag.text, "epsilon 8"));
}

static void test_site_ledger_refuses_a_source_out_of_range(void **state)
{
    fixture *f = *state;
    char long_name[80];
    memset(long_name, 'a', sizeof long_name);
    long_name[79] = 0;
    static const char *const names[] = {"", "a\nb", "\xff\xfe"};
    for (size_t i = 0; i < 3; i++)
        assert_err(dure_site_ledger_create_source(f->ledger, names[i], budget, 10, &f->diag),
                   DURE_ERR_USAGE);
    assert_err(dure_site_ledger_create_source(f->ledger, long_name, budget, 10, &f->diag),
               DURE_ERR_USAGE);
    const dure_privacy wrong[] = {{0, 1e-6}, {1, 0}, {1, 1}, {NAN, 1e-6}, {INFINITY, 1e-6}};
    for (size_t i = 0; i < 5; i++)
        assert_err(dure_site_ledger_create_source(f->ledger, "b", wrong[i], 10, &f->diag),
                   DURE_ERR_USAGE);
    assert_err(dure_site_ledger_create_source(f->ledger, "b", budget, 0, &f->diag), DURE_ERR_USAGE);
    /* delta over 1 / (10 n_pub) */
    assert_err(dure_site_ledger_create_source(f->ledger, "b", budget, 10001, &f->diag),
               DURE_ERR_USAGE);
    assert_ok(dure_site_ledger_create_source(f->ledger, "한글 이름", budget, 10000, &f->diag));
}

static void test_site_ledger_refuses_a_plan_that_is_not_the_source_s(void **state)
{
    fixture *f = *state;
    dure_dp_plan plan = plan_of(128, 1, 20);
    dure_reservation_id id, other = {{1}};
    assert_err(dure_site_ledger_reserve(&id, f->ledger, "nobody", &plan, "x", &f->diag),
               DURE_ERR_NOT_FOUND);
    assert_ok(dure_dp_plan_set_batch(&plan, 128, RECORDS + 1, NULL));
    assert_err(dure_site_ledger_reserve(&id, f->ledger, "orders", &plan, "x", &f->diag),
               DURE_ERR_USAGE);
    plan.q_k++;
    assert_err(dure_site_ledger_reserve(&id, f->ledger, "orders", &plan, "x", &f->diag),
               DURE_ERR_USAGE);
    assert_err(dure_site_ledger_spend(f->ledger, &other, &f->diag), DURE_ERR_NOT_FOUND);
    assert_err(dure_site_ledger_release(f->ledger, &other, &f->diag), DURE_ERR_NOT_FOUND);
}

/* A whole site is one of at most 100: what is small beside one record in ten is not beside that. */
static void test_site_ledger_holds_a_site_s_plan_to_the_number_of_sites(void **state)
{
    fixture *f = *state;
    const dure_privacy loose = {8, 0.00101}, small = {8, 0.001};
    dure_dp_plan plan = {.mechanism = DURE_DP_SITE_GAUSSIAN,
                         .sigma_num = 4 * DURE_DP_SIGMA_DEN,
                         .clip = 1,
                         .grid_bits = 14,
                         .steps = 1,
                         .honest = 2,
                         .n_params = 384};
    dure_reservation_id id;
    assert_ok(dure_dp_plan_set_batch(&plan, 10, 10, NULL));
    assert_ok(dure_site_ledger_create_source(f->ledger, "loose", loose, 10, &f->diag));
    assert_err(dure_site_ledger_check(f->ledger, "loose", &plan, &f->diag), DURE_ERR_USAGE);
    assert_err(dure_site_ledger_reserve(&id, f->ledger, "loose", &plan, "x", &f->diag),
               DURE_ERR_USAGE);
    assert_non_null(strstr(f->diag.text, "declare a source with 0.001 or less"));
    assert_ok(dure_site_ledger_create_source(f->ledger, "small", small, 10, &f->diag));
    assert_ok(dure_site_ledger_reserve(&id, f->ledger, "small", &plan, "x", &f->diag));
}

/* `dure join` asks before anything is sent where the noise is not its own. What is refused then is
 * what a reservation would be refused for, and nothing is written. */
static void test_site_ledger_check_refuses_what_a_reservation_would_be(void **state)
{
    fixture *f = *state;
    dure_hash before, after;
    uint64_t n_before, n_after;
    dure_dp_plan fits = plan_of(128, 0, 100), little;
    assert_ok(dure_site_ledger_least_noise(&fits, f->ledger, "orders", &f->diag));
    dure_site_ledger_head(&before, &n_before, f->ledger);
    little = fits;
    little.sigma_num /= 2;
    assert_ok(dure_site_ledger_check(f->ledger, "orders", &fits, &f->diag));
    assert_err(dure_site_ledger_check(f->ledger, "orders", &little, &f->diag), DURE_ERR_BUDGET);
    assert_non_null(strstr(f->diag.text, "does not allow this plan"));
    assert_err(dure_site_ledger_check(f->ledger, "nobody", &fits, &f->diag), DURE_ERR_NOT_FOUND);
    little = fits;
    little.q_k++;
    assert_err(dure_site_ledger_check(f->ledger, "orders", &little, &f->diag), DURE_ERR_USAGE);
    dure_site_ledger_head(&after, &n_after, f->ledger);
    assert_true(n_before == n_after && dure_hash_equal(&before, &after));
    /* With the budget taken, what fitted before fits no more. */
    dure_reservation_id id;
    assert_ok(dure_site_ledger_reserve(&id, f->ledger, "orders", &fits, "x", &f->diag));
    assert_err(dure_site_ledger_check(f->ledger, "orders", &fits, &f->diag), DURE_ERR_BUDGET);
}

/* A budget is the source's: it does not matter which file the records lie in today. */
static void test_site_ledger_sources_are_apart_and_files_do_not_matter(void **state)
{
    fixture *f = *state;
    dure_dp_plan plan = plan_of(128, 0, 100);
    dure_reservation_id id;
    assert_ok(dure_site_ledger_least_noise(&plan, f->ledger, "orders", &f->diag));
    assert_ok(
        dure_site_ledger_reserve(&id, f->ledger, "orders", &plan, "train orders.jsonl", &f->diag));
    assert_err(dure_site_ledger_reserve(&id, f->ledger, "orders", &plan,
                                        "train orders-renamed.jsonl", &f->diag),
               DURE_ERR_BUDGET);
    assert_ok(dure_site_ledger_create_source(f->ledger, "claims", budget, RECORDS, &f->diag));
    assert_ok(
        dure_site_ledger_reserve(&id, f->ledger, "claims", &plan, "train claims.jsonl", &f->diag));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define ROW(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        ROW(test_site_ledger_reserve_then_spend),
        ROW(test_site_ledger_reserves_once_under_a_name),
        ROW(test_site_ledger_notes_what_rounds_use),
        ROW(test_site_ledger_release_gives_the_budget_back),
        ROW(test_site_ledger_first_plan_may_use_the_whole_budget),
        ROW(test_site_ledger_refusal_says_what_would_fit),
        ROW(test_site_ledger_later_plans_are_held_to_the_filter),
        ROW(test_site_ledger_refuses_a_plan_without_noise),
        ROW(test_site_ledger_budget_of_a_source_is_fixed),
        ROW(test_site_ledger_refuses_a_source_out_of_range),
        ROW(test_site_ledger_refuses_a_plan_that_is_not_the_source_s),
        ROW(test_site_ledger_holds_a_site_s_plan_to_the_number_of_sites),
        ROW(test_site_ledger_check_refuses_what_a_reservation_would_be),
        ROW(test_site_ledger_sources_are_apart_and_files_do_not_matter),
#undef ROW
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
