#include "dp/accountant_rdp.h"
#include "fixture.h"
#include "ledger/replay.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static dure_replay *new_replay(void)
{
    dure_replay *replay = NULL;
    assert_ok(dure_replay_new(&replay));
    return replay;
}

static void add(dure_replay *replay, const fixture *f)
{
    dure_diag diag = {{0}};
    dure_err err = dure_replay_add(replay, f->event, &diag);
    if (err) print_error("%s\n", diag.text);
    assert_ok(err);
}

/* Numbers the scratch event as the next one and adds it. */
static void add_next(dure_replay *replay, fixture *f, uint64_t *n)
{
    f->event->index = (*n)++;
    add(replay, f);
}

static uint64_t begin(dure_replay *replay, fixture *f)
{
    uint64_t n = 0;
    fixture_genesis(f);
    add_next(replay, f, &n);
    fixture_roster(f, 3);
    add_next(replay, f, &n);
    return n;
}

static void refuse(dure_replay *replay, fixture *f, uint64_t n, const char *words)
{
    dure_diag diag = {{0}};
    f->event->index = n;
    assert_err(dure_replay_add(replay, f->event, &diag), DURE_ERR_STATE);
    if (!strstr(diag.text, words)) print_error("%s\n", diag.text);
    assert_non_null(strstr(diag.text, words));
}

static double epsilon_of(uint64_t steps)
{
    dure_rdp *rdp = calloc(1, sizeof *rdp);
    dure_dp_plan plan = {.mechanism = DURE_DP_POISSON_GAUSSIAN,
                         .sigma_num = 65536,
                         .clip = 1,
                         .grid_bits = 16,
                         .steps = steps};
    double epsilon = 0;
    assert_non_null(rdp);
    assert_ok(dure_dp_plan_set_batch(&plan, 100, 1000, NULL));
    dure_rdp_add(rdp, &plan);
    assert_ok(dure_rdp_epsilon(&epsilon, rdp, 1e-4));
    free(rdp);
    return epsilon;
}

static void test_replay_recomputes_what_each_member_spent(void **state)
{
    (void)state;
    fixture f;
    dure_account account;
    fixture_make(&f);
    dure_replay *replay = new_replay();
    uint64_t n = begin(replay, &f);
    /* Rounds of version 1: with the rule of version 2 three sites could not lose one. */
    for (uint64_t round = 1; round <= 3; round++) {
        fixture_round(&f, DURE_EVENT_OPENED, round);
        f.event->u.round.sum = (dure_event_sum){0};
        add_next(replay, &f, &n);
        fixture_round(&f, DURE_EVENT_CLOSED, round);
        f.event->u.round.sum = (dure_event_sum){0};
        if (round == 2) f.event->u.round.members[1].part = DURE_PART_NONE;
        if (round == 3) f.event->u.round.members[1].part = DURE_PART_UPLOADED;
        add_next(replay, &f, &n);
        f.adapter = f.event->u.round.adapter_out;
    }
    assert_int_equal(dure_replay_accounts(replay), 3);
    for (size_t i = 0; i < 3; i++) {
        uint64_t rounds = i == 1 ? 2 : 3;
        assert_ok(dure_replay_account(&account, replay, i));
        assert_int_equal(account.rounds, rounds);
        assert_int_equal(account.steps, 10 * rounds);
        assert_true(fabs(account.epsilon_rdp - epsilon_of(10 * rounds)) < 1e-9);
        assert_true(account.epsilon > 0.5 * account.epsilon_rdp &&
                    account.epsilon < account.epsilon_rdp);
        assert_true(fabs(account.delta - 1e-4) < 1e-12);
    }
    dure_replay_totals totals = dure_replay_sum(replay);
    assert_int_equal(totals.closed, 3);
    assert_true(dure_hash_equal(&totals.adapter, &f.adapter));
    dure_replay_free(&replay);
    fixture_free(&f);
}

/* In doubt counts as spent; an abort settles what it says. */
static void test_replay_charges_rounds_that_never_ended(void **state)
{
    (void)state;
    fixture f;
    dure_account account;
    fixture_make(&f);
    dure_replay *replay = new_replay();
    uint64_t n = begin(replay, &f);
    fixture_round(&f, DURE_EVENT_OPENED, 1);
    add_next(replay, &f, &n);
    assert_ok(dure_replay_account(&account, replay, 0));
    assert_int_equal(account.rounds, 1);
    assert_int_equal(account.rounds_open, 1);
    assert_true(fabs(account.epsilon_rdp - epsilon_of(10)) < 1e-9);
    fixture_round(&f, DURE_EVENT_ABORTED, 1);
    f.event->u.round.members[0].part = DURE_PART_UPLOADED;
    add_next(replay, &f, &n);
    assert_ok(dure_replay_account(&account, replay, 0));
    assert_int_equal(account.rounds, 1);
    assert_int_equal(account.rounds_open, 0);
    assert_ok(dure_replay_account(&account, replay, 1));
    assert_int_equal(account.rounds, 0);
    assert_true(account.epsilon <= 0);
    dure_replay_free(&replay);
    fixture_free(&f);
}

/* Where sites are the unit delta is the terms', whatever number of records a site has. */
static void test_replay_states_a_site_s_epsilon_at_the_delta_of_the_terms(void **state)
{
    (void)state;
    fixture f;
    dure_account account;
    fixture_make(&f);
    dure_replay *replay = new_replay();
    uint64_t n = begin(replay, &f);
    for (dure_event_kind kind = DURE_EVENT_OPENED; kind <= DURE_EVENT_CLOSED; kind++) {
        fixture_round(&f, kind, 1);
        fixture_share_noise(&f);
        add_next(replay, &f, &n);
    }
    assert_ok(dure_replay_account(&account, replay, 1));
    assert_string_equal(account.unit, "site");
    assert_true(account.delta == DURE_DP_SITE_DELTA_MAX);
    const double loose = account.epsilon;
    dure_replay_set_site_delta(replay, 1e-5);
    assert_ok(dure_replay_account(&account, replay, 1));
    assert_true(account.delta == 1e-5 && account.epsilon > loose);
    /* One round at noise 1 is rho 1/2, whose epsilon at 1e-5 is 4.72838698 (dp.accountant_zcdp). */
    assert_true(fabs(account.epsilon - 4.72838698) < 1e-6);
    assert_true(account.epsilon_rdp >= account.epsilon);
    dure_replay_free(&replay);
    fixture_free(&f);
}

static void test_replay_says_infinite_where_there_was_no_noise(void **state)
{
    (void)state;
    fixture f;
    dure_account account;
    fixture_make(&f);
    dure_replay *replay = new_replay();
    uint64_t n = begin(replay, &f);
    for (dure_event_kind kind = DURE_EVENT_OPENED; kind <= DURE_EVENT_CLOSED; kind++) {
        fixture_round(&f, kind, 1);
        f.event->u.round.privacy_mode = DURE_PRIVACY_NONE;
        f.event->u.round.members[2].plan.sigma_num = 0;
        add_next(replay, &f, &n);
    }
    assert_ok(dure_replay_account(&account, replay, 2));
    assert_true(isinf(account.epsilon));
    dure_replay_free(&replay);
    fixture_free(&f);
}

static void test_replay_refuses_events_out_of_order(void **state)
{
    (void)state;
    fixture f;
    fixture_make(&f);
    dure_replay *replay = new_replay();
    fixture_roster(&f, 3);
    refuse(replay, &f, 0, "not the genesis");
    uint64_t n = begin(replay, &f);
    fixture_roster(&f, 4);
    refuse(replay, &f, 7, "entry 7");
    fixture_roster(&f, 3);
    refuse(replay, &f, n, "roster went from");
    fixture_round(&f, DURE_EVENT_CLOSED, 1);
    refuse(replay, &f, n, "not open");
    fixture_round(&f, DURE_EVENT_OPENED, 2);
    add_next(replay, &f, &n);
    fixture_round(&f, DURE_EVENT_OPENED, 2);
    refuse(replay, &f, n, "after round 2");
    fixture_round(&f, DURE_EVENT_CLOSED, 2);
    add_next(replay, &f, &n);
    fixture_round(&f, DURE_EVENT_CLOSED, 2);
    refuse(replay, &f, n, "not open");
    dure_replay_free(&replay);
    fixture_free(&f);
}

static void test_replay_refuses_a_round_that_ends_differently(void **state)
{
    (void)state;
    fixture f;
    fixture_make(&f);
    dure_replay *replay = new_replay();
    uint64_t n = begin(replay, &f);
    dure_event_round *r = &f.event->u.round;
    fixture_round(&f, DURE_EVENT_OPENED, 1);
    add_next(replay, &f, &n);
    fixture_round(&f, DURE_EVENT_CLOSED, 1), r->h_c.b[0] ^= 1;
    refuse(replay, &f, n, "another configuration");
    fixture_round(&f, DURE_EVENT_CLOSED, 1), r->members[1].plan.sigma_num++;
    refuse(replay, &f, n, "another configuration");
    fixture_round(&f, DURE_EVENT_CLOSED, 1), r->members[1].plan.steps--;
    refuse(replay, &f, n, "another configuration");
    fixture_round(&f, DURE_EVENT_CLOSED, 1), r->n_members--;
    refuse(replay, &f, n, "another configuration");
    fixture_round(&f, DURE_EVENT_CLOSED, 1), r->sum.n_words++;
    refuse(replay, &f, n, "another configuration");
    fixture_round(&f, DURE_EVENT_CLOSED, 1), r->members[1].part = DURE_PART_UPLOADED;
    refuse(replay, &f, n, "fewer than 3 sites");
    dure_replay_free(&replay);
    fixture_free(&f);
}

static void test_replay_refuses_strangers_and_unknown_adapters(void **state)
{
    (void)state;
    fixture f;
    fixture_make(&f);
    dure_replay *replay = new_replay();
    uint64_t n = begin(replay, &f);
    dure_event_round *r = &f.event->u.round;
    fixture_round(&f, DURE_EVENT_OPENED, 1), r->members[0].sign_public[0] ^= 1;
    refuse(replay, &f, n, "roster in force does not");
    fixture_round(&f, DURE_EVENT_OPENED, 1), r->members[2].name[0] = 'z';
    refuse(replay, &f, n, "roster in force does not");
    fixture_round(&f, DURE_EVENT_OPENED, 1), r->roster_head.b[0] ^= 1;
    refuse(replay, &f, n, "not the one in force");
    fixture_round(&f, DURE_EVENT_OPENED, 1);
    add_next(replay, &f, &n);
    fixture_round(&f, DURE_EVENT_CLOSED, 1);
    add_next(replay, &f, &n);
    fixture_round(&f, DURE_EVENT_OPENED, 2), r->adapter_in = fixture_hash(0x99);
    refuse(replay, &f, n, "no round made");
    fixture_release(&f, DURE_EVENT_PROMOTED, 2);
    refuse(replay, &f, n, "not the one that round 2 made");
    fixture_release(&f, DURE_EVENT_PROMOTED, 1);
    add_next(replay, &f, &n);
    dure_replay_free(&replay);
    fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replay_recomputes_what_each_member_spent),
        cmocka_unit_test(test_replay_charges_rounds_that_never_ended),
        cmocka_unit_test(test_replay_states_a_site_s_epsilon_at_the_delta_of_the_terms),
        cmocka_unit_test(test_replay_says_infinite_where_there_was_no_noise),
        cmocka_unit_test(test_replay_refuses_events_out_of_order),
        cmocka_unit_test(test_replay_refuses_a_round_that_ends_differently),
        cmocka_unit_test(test_replay_refuses_strangers_and_unknown_adapters),
    };
    return cmocka_run_group_tests_name("ledger.replay", tests, NULL, NULL);
}
