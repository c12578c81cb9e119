/* A result made again from the log, for a coordinator that lost what it had stored of the round. */
#include "coordinator/history.h"
#include "proto/messages.h"
#include "unit/ledger/fixture.h"

#include <string.h>

static void test_history_makes_a_result_that_sites_can_verify(void **state)
{
    (void)state;
    fixture f;
    dure_buf frame;
    dure_msg *msg = NULL;
    dure_merkle_head head;
    dure_hash leaf;
    fixture_make(&f);
    fixture_begin(&f);
    const uint64_t first = fixture_full_round(&f, 1, 3), second = fixture_full_round(&f, 2, 3);
    for (uint64_t index = first - 1; index < second; index += 2) {
        dure_merkle_proof proof = {.n = 0};
        dure_buf_init(&frame, DURE_MSG_BYTES_MAX);
        assert_ok(dure_history_result(&frame, f.journal, index, NULL));
        assert_ok(dure_msg_decode(&msg, dure_buf_span(&frame), NULL));
        const dure_msg_result *r = &msg->u.result;
        assert_int_equal(r->leaf_index, index);
        assert_int_equal(r->config_hash[0], index == first - 1 ? 0x41 : 0x42);
        assert_int_equal(r->adapter_digest[0], index == first - 1 ? 0x81 : 0x82);
        assert_int_equal(r->t3[0], 0x33);
        assert_int_equal(r->sum_digest[0], 0x55);
        assert_ok(dure_leaf_log_head(&head, dure_journal_log(f.journal), second));
        assert_ok(dure_merkle_leaf(&leaf, r->leaf));
        for (size_t i = 0; i < r->n_inclusion; i++)
            memcpy(proof.nodes[proof.n++].b, r->inclusion[i], 32);
        assert_ok(dure_merkle_verify_inclusion(&head, index, &leaf, &proof));
        dure_msg_free(&msg);
        dure_buf_fini(&frame);
    }
    fixture_free(&f);
}

static void test_history_makes_no_result_of_anything_else(void **state)
{
    (void)state;
    fixture f;
    dure_buf frame;
    fixture_make(&f);
    fixture_begin(&f);
    dure_buf_init(&frame, DURE_MSG_BYTES_MAX);
    assert_err(dure_history_result(&frame, f.journal, 0, NULL), DURE_ERR_STATE); /* no checkpoint */
    const uint64_t n = fixture_full_round(&f, 1, 3);
    assert_err(dure_history_result(&frame, f.journal, n, NULL), DURE_ERR_STATE);
    for (uint64_t i = 0; i + 1 < n; i++)
        assert_err(dure_history_result(&frame, f.journal, i, NULL), DURE_ERR_FORMAT);
    assert_err(dure_history_result(&frame, f.journal, UINT64_MAX, NULL), DURE_ERR_STATE);
    assert_int_equal(frame.n, 0);
    fixture_round(&f, DURE_EVENT_OPENED, 2);
    fixture_append(&f);
    fixture_round(&f, DURE_EVENT_CLOSED, 2);
    fixture_append(&f); /* closed, and not in a checkpoint yet */
    assert_err(dure_history_result(&frame, f.journal, n + 1, NULL), DURE_ERR_STATE);
    dure_buf_fini(&frame);
    fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_history_makes_a_result_that_sites_can_verify),
        cmocka_unit_test(test_history_makes_no_result_of_anything_else),
    };
    return cmocka_run_group_tests_name("coordinator.history", tests, NULL, NULL);
}
