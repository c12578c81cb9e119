/* Guests who claim to have seen more than there is, against those who wait for an answer: someone
 * who joins, say, and was interrupted. */
#include "coordinator/coordinator_int.h"

#include "common/clock.h"
#include "unit/ledger/fixture.h"

#include <stdlib.h>
#include <string.h>

static uint64_t clock_ms;
static unsigned n_asked;

uint64_t __wrap_dure_clock_monotonic_ms(void);
dure_err __wrap_dure_coordinator_send_to(dure_coordinator *c, const dure_hash *peer,
                                         const dure_msg *msg, dure_diag *diag);

uint64_t __wrap_dure_clock_monotonic_ms(void)
{
    return clock_ms;
}

dure_err __wrap_dure_coordinator_send_to(dure_coordinator *c, const dure_hash *peer,
                                         const dure_msg *msg, dure_diag *diag)
{
    (void)c, (void)peer, (void)diag;
    n_asked += msg->type == DURE_MSG_ENTRIES_REQUEST;
    return DURE_OK;
}

static struct {
    fixture f;
    dure_coordinator *c;
} d;

static int setup(void **state)
{
    (void)state;
    fixture_make(&d.f);
    fixture_begin(&d.f);
    d.c = calloc(1, sizeof *d.c);
    assert_non_null(d.c);
    d.c->journal = d.f.journal;
    assert_ok(dure_roster_new(&d.c->roster, d.f.root.public_));
    clock_ms = 1000000;
    n_asked = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    dure_roster_free(&d.c->roster);
    free(d.c);
    fixture_free(&d.f);
    return 0;
}

/* A guest says HELLO and claims a log of a thousand entries. */
static void claim(uint8_t guest)
{
    const dure_hash peer = fixture_hash(guest);
    const dure_msg_hello hello = {.checkpoint_size = 1000};
    assert_ok(dure_coordinator_ask_back(d.c, &peer, false, &hello, NULL));
}

static void answer_wrongly(uint8_t guest)
{
    const uint8_t payload[] = {0, 0, 0, 4, 'n', 'o', 'n', 'e'};
    const dure_hash peer = fixture_hash(guest);
    const dure_msg msg = {
        .type = DURE_MSG_ENTRIES,
        .u.entries = {.kind = DURE_ENTRIES_CHECKPOINT, .n_entries = 1, .n_bytes = sizeof payload}};
    assert_ok(dure_coordinator_on_entries(d.c, &peer, "a guest", false, &msg,
                                          dure_span_of(payload, sizeof payload), NULL));
}

static void test_recovery_lets_others_wait_while_a_guest_is_asked(void **state)
{
    (void)state;
    assert_false(dure_coordinator_asks_guests(d.c));
    claim(1);
    assert_int_equal(n_asked, 1);
    assert_true(dure_coordinator_asks_guests(d.c));
    clock_ms += 29000;
    assert_true(dure_coordinator_asks_guests(d.c));
    clock_ms += 2000;
    assert_false(dure_coordinator_asks_guests(d.c));
}

static void test_recovery_guest_cannot_make_others_wait_for_ever(void **state)
{
    (void)state;
    unsigned answered_s = 0;
    for (unsigned s = 0; s < 600; s++) {
        claim((uint8_t)(s % 100)); /* each second, under another key */
        answered_s += !dure_coordinator_asks_guests(d.c);
        clock_ms += 1000;
    }
    assert_int_equal(n_asked, 600); /* each may be a site all the same */
    assert_int_equal(answered_s, 300);
}

static void test_recovery_wrong_answer_ends_the_wait(void **state)
{
    (void)state;
    claim(1);
    clock_ms += 100;
    answer_wrongly(2); /* not the one who is waited for */
    assert_true(dure_coordinator_asks_guests(d.c));
    answer_wrongly(1);
    assert_false(dure_coordinator_asks_guests(d.c));
    claim(1);
    claim(2);
    assert_int_equal(n_asked, 1); /* both are doubted now */
    assert_false(dure_coordinator_asks_guests(d.c));
    clock_ms += 61000;
    claim(1);
    assert_false(dure_coordinator_asks_guests(d.c));
}

/* While a proved log is read, guests wait for that: it may name them. Nobody else is asked, so
 * nobody is waited for after it. */
static void test_recovery_lets_nobody_wait_for_whom_it_did_not_ask(void **state)
{
    (void)state;
    d.c->recovery.step = DURE_RECOVER_LOG;
    d.c->recovery.asked_ms = clock_ms;
    claim(1);
    assert_int_equal(n_asked, 0);
    assert_true(dure_coordinator_asks_guests(d.c));
    d.c->recovery.step = DURE_RECOVER_NOTHING;
    assert_false(dure_coordinator_asks_guests(d.c));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_recovery_lets_others_wait_while_a_guest_is_asked),
        TEST(test_recovery_guest_cannot_make_others_wait_for_ever),
        TEST(test_recovery_wrong_answer_ends_the_wait),
        TEST(test_recovery_lets_nobody_wait_for_whom_it_did_not_ask),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
