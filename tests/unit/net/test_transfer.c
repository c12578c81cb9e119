#include "net/transfer.h"

#include "support/check.h"

#include <string.h>

enum { WHOLE = 1000, CHUNK = 64 };

static dure_receiver *make(uint32_t window, dure_byte_budget *budget)
{
    const dure_receiver_opts opts = {
        .total_bytes = WHOLE, .chunk_bytes = CHUNK, .window = window, .budget = budget};
    dure_receiver *r;
    assert_ok(dure_receiver_new(&r, &opts, 5));
    return r;
}

/* Answers one fetch as an honest sender does. */
static bool answer(dure_receiver *r, const dure_fetch *fetch, uint64_t now_ms)
{
    bool fresh;
    assert_true(fetch->length <= CHUNK && fetch->offset + fetch->length <= WHOLE);
    assert_ok(dure_receiver_accept(&fresh, r, fetch->offset, fetch->length, now_ms));
    return fresh;
}

/* One chunk asked for and answered: one more may be in flight from now on. */
static void move_one(dure_receiver *r)
{
    dure_fetch fetch;
    assert_true(dure_receiver_next(&fetch, r));
    assert_true(answer(r, &fetch, 0));
}

static uint32_t ask_all(dure_fetch *fetch, dure_receiver *r)
{
    uint32_t n = 0;
    while (dure_receiver_next(&fetch[n], r))
        n++;
    return n;
}

static void test_transfer_moves_the_whole(void **state)
{
    (void)state;
    dure_receiver *r = make(3, NULL);
    dure_fetch fetch;
    uint64_t n = 0;
    while (dure_receiver_next(&fetch, r)) {
        assert_int_equal(fetch.offset, n);
        assert_true(answer(r, &fetch, n));
        n += fetch.length;
    }
    assert_int_equal(n, WHOLE);
    assert_int_equal(dure_receiver_progress_of(r).last_ms, 960);
    assert_true(dure_receiver_complete(r));
    dure_receiver_free(&r);
    assert_null(r);
}

static void test_transfer_window_opens_with_what_comes(void **state)
{
    (void)state;
    dure_receiver *r = make(3, NULL);
    dure_fetch fetch[16];
    assert_int_equal(ask_all(fetch, r), 1); /* the sender may not be ready */
    assert_true(answer(r, &fetch[0], 0));
    assert_int_equal(ask_all(fetch, r), 2);
    assert_int_equal(fetch[0].offset, CHUNK);
    assert_true(answer(r, &fetch[0], 0));
    assert_true(answer(r, &fetch[1], 0));
    assert_int_equal(ask_all(fetch, r), 3);
    assert_true(answer(r, &fetch[0], 0));
    assert_int_equal(ask_all(fetch, r), 1); /* no more than the window */
    assert_int_equal(dure_receiver_progress_of(r).in_flight_bytes, 3 * CHUNK);
    dure_receiver_rewind(r);
    assert_int_equal(ask_all(fetch, r), 1);
    dure_receiver_free(&r);
}

static void test_transfer_budget_is_shared_in_equal_parts_and_comes_back(void **state)
{
    (void)state;
    dure_byte_budget budget = {.limit = 4 * CHUNK};
    dure_receiver *a = make(9, &budget), *b = make(9, &budget);
    dure_fetch fetch[16];
    for (int i = 0; i < 5; i++)
        move_one(a);
    assert_int_equal(ask_all(fetch, a), 5); /* alone: its first and the whole budget */
    assert_int_equal(budget.used, 4 * CHUNK);
    for (int i = 0; i < 5; i++)
        move_one(b); /* one at a time is never refused */
    dure_receiver_rewind(a);
    assert_int_equal(budget.used, 0);
    move_one(a);
    move_one(a);
    move_one(a);
    assert_int_equal(ask_all(fetch, b), 3); /* two that flow: half of it each */
    assert_int_equal(ask_all(fetch, a), 3);
    assert_int_equal(budget.used, 4 * CHUNK);
    dure_receiver_free(&a);
    assert_int_equal(ask_all(fetch, b), 2);
    dure_receiver_free(&b);
    assert_int_equal(budget.used, 0);
    assert_int_equal(budget.n_flowing, 0);
}

static void test_transfer_senders_that_are_not_ready_hold_nobody_up(void **state)
{
    (void)state;
    enum { IDLE = 40 };
    dure_byte_budget budget = {.limit = 2 * CHUNK};
    dure_receiver *idle[IDLE], *r = make(9, &budget);
    dure_fetch fetch[16];
    for (int i = 0; i < IDLE; i++) {
        idle[i] = make(9, &budget);
        assert_int_equal(ask_all(fetch, idle[i]), 1);
    }
    move_one(r);
    move_one(r);
    assert_int_equal(ask_all(fetch, r), 3);
    for (int i = 0; i < IDLE; i++)
        dure_receiver_free(&idle[i]);
    dure_receiver_free(&r);
}

static void test_transfer_budget_below_a_chunk_still_moves(void **state)
{
    (void)state;
    dure_byte_budget budget = {.limit = 1};
    dure_receiver *r = make(4, &budget);
    dure_fetch fetch, second;
    while (dure_receiver_next(&fetch, r)) {
        assert_false(dure_receiver_next(&second, r));
        assert_true(answer(r, &fetch, 0));
    }
    assert_true(dure_receiver_complete(r));
    assert_int_equal(budget.used, 0);
    dure_receiver_free(&r);
}

static void test_transfer_goes_on_after_a_lost_connection(void **state)
{
    (void)state;
    dure_byte_budget budget = {.limit = 10 * CHUNK};
    dure_receiver *r = make(3, &budget);
    dure_fetch first, lost, again;
    move_one(r);
    assert_true(dure_receiver_next(&first, r));
    assert_true(dure_receiver_next(&lost, r));
    assert_true(answer(r, &first, 0));
    dure_receiver_rewind(r);
    assert_true(dure_receiver_next(&again, r));
    assert_int_equal(again.offset, lost.offset);
    assert_true(answer(r, &again, 0));
    assert_false(answer(r, &lost, 0)); /* came late: a repeat */
    while (dure_receiver_next(&again, r))
        assert_true(answer(r, &again, 0));
    assert_true(dure_receiver_complete(r));
    assert_int_equal(budget.used, 0);
    dure_receiver_free(&r);
}

static void test_transfer_late_chunk_of_a_forgotten_fetch_counts(void **state)
{
    (void)state;
    dure_byte_budget budget = {.limit = 10 * CHUNK};
    dure_receiver *r = make(3, &budget);
    dure_fetch fetch;
    assert_true(dure_receiver_next(&fetch, r));
    dure_receiver_rewind(r);
    assert_true(answer(r, &fetch, 0));
    assert_int_equal(budget.used, 0);
    while (dure_receiver_next(&fetch, r))
        assert_true(answer(r, &fetch, 0));
    assert_true(dure_receiver_complete(r));
    dure_receiver_free(&r);
}

static void test_transfer_gap_asks_again_from_the_first_missing_byte(void **state)
{
    (void)state;
    dure_receiver *r = make(3, NULL);
    dure_fetch lost, ahead, again;
    move_one(r);
    assert_true(dure_receiver_next(&lost, r));
    assert_true(dure_receiver_next(&ahead, r));
    assert_false(answer(r, &ahead, 0));
    assert_true(dure_receiver_next(&again, r));
    assert_int_equal(again.offset, lost.offset);
    dure_receiver_free(&r);
}

static void test_transfer_resumes_after_a_restart(void **state)
{
    (void)state;
    dure_receiver *r = make(3, NULL);
    dure_fetch fetch;
    assert_ok(dure_receiver_resume(r, 100));
    assert_ok(dure_receiver_resume(r, 50));
    assert_true(dure_receiver_next(&fetch, r));
    assert_int_equal(fetch.offset, 150);
    assert_err(dure_receiver_resume(r, 1), DURE_ERR_STATE);
    do
        assert_true(answer(r, &fetch, 0));
    while (dure_receiver_next(&fetch, r));
    assert_true(dure_receiver_complete(r));
    dure_receiver_free(&r);
    r = make(3, NULL);
    assert_ok(dure_receiver_resume(r, WHOLE));
    assert_false(dure_receiver_next(&fetch, r));
    assert_true(dure_receiver_complete(r));
    assert_err(dure_receiver_resume(r, 1), DURE_ERR_LIMIT);
    dure_receiver_free(&r);
}

static void test_transfer_refuses_chunks_that_were_not_asked_for(void **state)
{
    (void)state;
    dure_receiver *r = make(2, NULL);
    dure_fetch fetch;
    bool fresh;
    assert_err(dure_receiver_accept(&fresh, r, 0, CHUNK, 0), DURE_ERR_PROTO);
    assert_true(dure_receiver_next(&fetch, r));
    const struct {
        uint64_t offset;
        size_t n;
    } wrong[] = {{0, 0},         {0, CHUNK - 1}, {0, CHUNK + 1}, {CHUNK, 1},
                 {CHUNK - 1, 2}, {WHOLE, 1},     {UINT64_MAX, 1}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_err(dure_receiver_accept(&fresh, r, wrong[i].offset, wrong[i].n, 0), DURE_ERR_PROTO);
    assert_true(answer(r, &fetch, 0));
    dure_receiver_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transfer_moves_the_whole),
        cmocka_unit_test(test_transfer_window_opens_with_what_comes),
        cmocka_unit_test(test_transfer_budget_is_shared_in_equal_parts_and_comes_back),
        cmocka_unit_test(test_transfer_senders_that_are_not_ready_hold_nobody_up),
        cmocka_unit_test(test_transfer_budget_below_a_chunk_still_moves),
        cmocka_unit_test(test_transfer_goes_on_after_a_lost_connection),
        cmocka_unit_test(test_transfer_late_chunk_of_a_forgotten_fetch_counts),
        cmocka_unit_test(test_transfer_gap_asks_again_from_the_first_missing_byte),
        cmocka_unit_test(test_transfer_resumes_after_a_restart),
        cmocka_unit_test(test_transfer_refuses_chunks_that_were_not_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
