/* `dure join` cut off at each of its steps that last: the same command goes on, with one
 * reservation for the whole plan. No coordinator answers here, so each join ends by waiting in vain
 * or by being cut off. */
#include "client/enrol.h"
#include "common/clock.h"
#include "model/base_digest.h"
#include "support/check.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"
#include "unit/federation/fixture.h"

#include <stdio.h>
#include <string.h>

enum { RECORDS = 1000, CUTS_MAX = 20 };

static temp_dir dir;
static char base[300], data[300], invitation[300], folder[300], ledger[300];
static int steps_left; /* the step that is cut off; 0: none */
static bool cut_after; /* it was done, and nobody heard of it */

/* ---- cutting ---- */

dure_err __real_dure_site_save_state(const dure_site *site, dure_diag *diag);
dure_err __wrap_dure_site_save_state(const dure_site *site, dure_diag *diag);
dure_err __real_dure_site_ledger_reserve_as(dure_site_ledger *l, const dure_reservation_id *id,
                                            const char *source, const dure_dp_plan *plan,
                                            const char *purpose, dure_diag *diag);
dure_err __wrap_dure_site_ledger_reserve_as(dure_site_ledger *l, const dure_reservation_id *id,
                                            const char *source, const dure_dp_plan *plan,
                                            const char *purpose, dure_diag *diag);

dure_err __wrap_dure_site_save_state(const dure_site *site, dure_diag *diag)
{
    const bool cut = steps_left > 0 && --steps_left == 0;
    if (cut && !cut_after) return DURE_ERR_IO;
    const dure_err err = __real_dure_site_save_state(site, diag);
    return cut ? DURE_ERR_IO : err;
}

dure_err __wrap_dure_site_ledger_reserve_as(dure_site_ledger *l, const dure_reservation_id *id,
                                            const char *source, const dure_dp_plan *plan,
                                            const char *purpose, dure_diag *diag)
{
    const bool cut = steps_left > 0 && --steps_left == 0;
    if (cut && !cut_after) return DURE_ERR_IO;
    const dure_err err = __real_dure_site_ledger_reserve_as(l, id, source, plan, purpose, diag);
    return cut ? DURE_ERR_IO : err;
}

/* ---- a place to join from ---- */

static void write_text(char out[300], const char *name, const char *text)
{
    snprintf(out, 300, "%s", temp_dir_file(&dir, name));
    assert_ok(dure_file_write_atomic(out, dure_span_of_text(text), 0644, NULL));
}

static int setup(void **state)
{
    (void)state;
    fixture f;
    dure_sign_key invite;
    dure_invitation inv;
    dure_diag diag = {0};
    temp_dir_make(&dir);
    write_text(data, "data.jsonl", "{\"prompt\":\"a\",\"response\":\"b\"}\n");
    snprintf(base, sizeof base, "%s", temp_dir_file(&dir, "base.gguf"));
    snprintf(invitation, sizeof invitation, "%s", temp_dir_file(&dir, "ash.invitation"));
    snprintf(folder, sizeof folder, "%s", temp_dir_file(&dir, "ash"));
    snprintf(ledger, sizeof ledger, "%s", temp_dir_file(&dir, "ledger"));
    fixture_make(&f);
    f.terms.base.n_vocab = TINY_VOCAB;
    f.terms.base.n_context = 256;
    f.terms.training.max_length = 256;
    tiny_model_write(base, &(tiny_model_opts){.n_embd = 32, .n_ff = 64, .n_context = 256});
    assert_ok(dure_base_digest(&f.terms.base.digest, base, NULL));
    fixture_invite(&inv, &invite, &f, "ash");
    snprintf(inv.endpoint, sizeof inv.endpoint, "tcp://127.0.0.1:1");
    inv.issued_s = dure_clock_wall_s();
    inv.expires_s = inv.issued_s + 3600;
    if (dure_invitation_sign(&inv, &invite, &f.root, &diag)) fail_msg("%s", diag.text);
    assert_ok(dure_invitation_write(invitation, &inv, &invite, NULL));
    steps_left = 0;
    cut_after = false;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    temp_dir_remove(&dir);
    return 0;
}

static dure_enrol_opts usual(void)
{
    return (dure_enrol_opts){.invitation = invitation,
                             .dir = folder,
                             .data = data,
                             .source = "records",
                             .model = base,
                             .ledger = ledger,
                             .records = RECORDS,
                             .epsilon = 5,
                             .patience_ms = 1};
}

static dure_err enrol(dure_diag *diag)
{
    dure_enrolled enrolled;
    const dure_enrol_opts opts = usual();
    return dure_enrol(&enrolled, &opts, diag);
}

/* What the ledger holds for good, and that it is what the folder knows. */
static void check_one_reservation(void)
{
    dure_site site;
    dure_site_ledger *l = NULL;
    dure_source_status source;
    const dure_reservation *r = NULL;
    assert_ok(dure_site_open(&site, folder, NULL));
    assert_ok(dure_site_open_ledger(&l, &site, NULL));
    assert_ok(dure_site_ledger_source(&source, l, "records", NULL));
    assert_int_equal(source.n_reserved, 1);
    assert_int_equal(source.n_released + source.n_spent, 0);
    assert_true(source.epsilon_committed <= 5 && source.epsilon_committed > 4.9);
    assert_true(site.state.reserved);
    assert_ok(dure_site_ledger_reservation(&r, l, &site.state.reservation, NULL));
    assert_int_equal(r->plan.sigma_num, site.state.declared.sigma_num);
    dure_site_ledger_close(&l);
    dure_site_close(&site);
}

/* True when the join was cut off at the step. */
static bool join_cut_at(int step, bool after)
{
    dure_diag diag = {0};
    steps_left = step;
    cut_after = after;
    const dure_err err = enrol(&diag);
    const bool cut = steps_left == 0;
    steps_left = 0;
    if (!cut) return false;
    assert_int_equal(err, DURE_ERR_IO);
    dure_err again = enrol(&diag);
    if (again != DURE_ERR_TIMEOUT) fail_msg("step %d: %s", step, diag.text);
    check_one_reservation();
    return true;
}

static void cut_everywhere(bool after)
{
    int step = 1;
    for (bool cut = true; cut && step < CUTS_MAX; step++) {
        setup(NULL);
        cut = join_cut_at(step, after);
        teardown(NULL);
    }
    assert_true(step > 4 && step < CUTS_MAX);
    setup(NULL);
}

static void test_enrol_cut_off_before_a_step_goes_on(void **state)
{
    (void)state;
    teardown(NULL);
    cut_everywhere(false);
}

static void test_enrol_cut_off_after_a_step_goes_on(void **state)
{
    (void)state;
    teardown(NULL);
    cut_everywhere(true);
}

/* Cut off before the reservation, and another plan took the budget meanwhile: what the folder meant
 * to reserve is not there, and is not taken for granted. */
static void test_enrol_does_not_count_on_a_plan_that_was_not_reserved(void **state)
{
    (void)state;
    dure_diag diag = {0};
    dure_site_ledger *l = NULL;
    dure_reservation_id id;
    dure_dp_plan plan = {
        .mechanism = DURE_DP_POISSON_GAUSSIAN, .clip = 1, .grid_bits = 14, .steps = 10};
    steps_left = 2;
    while (enrol(&diag) == DURE_ERR_IO && !dure_site_there(folder))
        steps_left++;
    assert_true(dure_site_there(folder));
    assert_ok(dure_site_ledger_open(&l, ledger, NULL));
    assert_ok(dure_dp_plan_set_batch(&plan, 16, RECORDS, NULL));
    assert_ok(dure_site_ledger_least_noise(&plan, l, "records", NULL));
    assert_ok(dure_site_ledger_reserve(&id, l, "records", &plan, "another", NULL));
    dure_site_ledger_close(&l);
    assert_err(enrol(&diag), DURE_ERR_BUDGET);
    assert_non_null(strstr(diag.text, "used up"));
}

/* What the command can see is wrong is refused before the ledger names a source, and leaves no
 * folder: the same source may then be declared with other figures. */
static void check_refused(const dure_enrol_opts *opts, dure_err expected, const char *words)
{
    dure_enrolled enrolled;
    dure_diag diag = {0};
    assert_err(dure_enrol(&enrolled, opts, &diag), expected);
    if (!strstr(diag.text, words)) fail_msg("%s", diag.text);
    assert_false(dure_file_exists(ledger));
    assert_false(dure_site_there(folder));
}

static void test_enrol_refuses_records_before_it_fixes_a_budget(void **state)
{
    (void)state;
    char other[300];
    dure_enrol_opts opts = usual();
    opts.data = other;
    write_text(other, "empty", "");
    check_refused(&opts, DURE_ERR_FORMAT, "empty");
    write_text(other, "junk", "no record\n");
    check_refused(&opts, DURE_ERR_FORMAT, "none of its 1 records leaves a response");
    snprintf(other, sizeof other, "%s", dir.path);
    check_refused(&opts, DURE_ERR_IO, dir.path);
    opts = usual();
    opts.dir = data;
    check_refused(&opts, DURE_ERR_IO, "data.jsonl is a file, not a folder");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_enrol_cut_off_before_a_step_goes_on),
        TEST(test_enrol_cut_off_after_a_step_goes_on),
        TEST(test_enrol_does_not_count_on_a_plan_that_was_not_reserved),
        TEST(test_enrol_refuses_records_before_it_fixes_a_budget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
