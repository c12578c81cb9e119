#include "fixture.h"

#include <stdio.h>
#include <stdlib.h>

static void promote(fixture *f, uint64_t number)
{
    dure_promotion promotion = fixture_promotion(f);
    assert_ok(dure_registry_promote(f->registry, number, &promotion, NULL));
}

/* Three versions through the gate, the first two promoted in turn. */
static void three_versions(fixture *f)
{
    for (uint64_t i = 1; i <= 3; i++) {
        char text[8] = {(char)('a' + i), '\0'};
        fixture_gate(f, fixture_add(f, text, i - 1, i), true);
    }
    promote(f, 1);
    promote(f, 2);
}

static void test_promote_moves_both_aliases(void **state)
{
    fixture *f = *state;
    three_versions(f);
    assert_int_equal(fixture_get(f, "champion").number, 2);
    assert_int_equal(fixture_get(f, "previous").number, 1);
    promote(f, 3);
    assert_int_equal(fixture_get(f, "champion").state, DURE_VERSION_CHAMPION);
    assert_int_equal(fixture_get(f, "previous").number, 2);
    assert_int_equal(fixture_get(f, "2").state, DURE_VERSION_PREVIOUS);
    assert_int_equal(fixture_get(f, "1").state, DURE_VERSION_ARCHIVED);
}

static void test_promote_refuses_without_a_passed_gate(void **state)
{
    fixture *f = *state;
    dure_version v;
    dure_diag diag = {0};
    dure_promotion promotion = fixture_promotion(f);
    uint64_t untried = fixture_add(f, "one", 0, 1), worse = fixture_add(f, "two", 0, 2);
    fixture_gate(f, worse, false);
    assert_err(dure_registry_promote(f->registry, untried, &promotion, &diag), DURE_ERR_POLICY);
    assert_non_null(strstr(diag.text, "has not been through the gate"));
    assert_err(dure_registry_promote(f->registry, worse, &promotion, &diag), DURE_ERR_POLICY);
    assert_non_null(strstr(diag.text, "loss 3.000 -> 4.000"));
    assert_err(dure_registry_find(&v, f->registry, "champion", NULL), DURE_ERR_NOT_FOUND);
    assert_false(fixture_get(f, "2").is_signed);
}

static void test_promote_by_force_keeps_the_reason(void **state)
{
    fixture *f = *state;
    dure_promotion promotion = fixture_promotion(f);
    uint64_t number = fixture_add(f, "one", 0, 1);
    fixture_gate(f, number, false);
    promotion.force_reason = "";
    assert_err(dure_registry_promote(f->registry, number, &promotion, NULL), DURE_ERR_USAGE);
    promotion.force_reason = "evaluation set was wrong, see minutes of 3 May";
    assert_ok(dure_registry_promote(f->registry, number, &promotion, NULL));
    dure_version v = fixture_get(f, "champion");
    assert_true(v.forced && v.is_signed);
    assert_string_equal(v.reason, "evaluation set was wrong, see minutes of 3 May");
}

static void test_promote_keeps_every_move_until_the_log_has_it(void **state)
{
    fixture *f = *state;
    dure_registry_move move;
    uint64_t number, last;
    three_versions(f);
    assert_ok(dure_registry_rollback(&number, f->registry, 130, NULL));
    static const dure_registry_move want[] = {
        {1, false, 1, 0, 120}, {2, false, 2, 1, 120}, {3, true, 1, 2, 130}};
    for (size_t i = 0; i < 3; i++) {
        assert_ok(dure_registry_last_logged(&last, f->registry, NULL));
        assert_int_equal(last, i ? 10 + i - 1 : 0);
        assert_ok(dure_registry_next_move(&move, f->registry, NULL));
        assert_int_equal(move.seq, want[i].seq);
        assert_int_equal(move.back, want[i].back);
        assert_int_equal(move.number, want[i].number);
        assert_int_equal(move.previous, want[i].previous);
        assert_int_equal(move.moved_s, want[i].moved_s);
        assert_ok(dure_registry_move_logged(f->registry, move.seq, 10 + i, NULL));
    }
    assert_err(dure_registry_next_move(&move, f->registry, NULL), DURE_ERR_NOT_FOUND);
    fixture_gate(f, fixture_add(f, "four", 3, 4), true);
    promote(f, 4);
    assert_ok(dure_registry_next_move(&move, f->registry, NULL));
    assert_ok(dure_registry_move_logged(f->registry, move.seq, DURE_RELEASE_NO_LEDGER, NULL));
    assert_err(dure_registry_next_move(&move, f->registry, NULL), DURE_ERR_NOT_FOUND);
    assert_ok(dure_registry_last_logged(&last, f->registry, NULL));
    assert_int_equal(last, 12);
}

static void test_promote_twice_is_refused(void **state)
{
    fixture *f = *state;
    dure_promotion promotion = fixture_promotion(f);
    three_versions(f);
    assert_err(dure_registry_promote(f->registry, 2, &promotion, NULL), DURE_ERR_STATE);
    assert_int_equal(fixture_get(f, "previous").number, 1);
}

static void test_promote_of_the_previous_swaps(void **state)
{
    fixture *f = *state;
    three_versions(f);
    promote(f, 1);
    assert_int_equal(fixture_get(f, "champion").number, 1);
    assert_int_equal(fixture_get(f, "previous").number, 2);
    assert_int_equal(fixture_get(f, "1").state, DURE_VERSION_CHAMPION);
    assert_int_equal(fixture_get(f, "2").state, DURE_VERSION_PREVIOUS);
}

static void test_promote_refuses_a_key_the_root_did_not_certify(void **state)
{
    fixture *f = *state;
    dure_promotion promotion = fixture_promotion(f);
    fixture_gate(f, fixture_add(f, "one", 0, 1), true);
    promotion.key = &f->root;
    assert_err(dure_registry_promote(f->registry, 1, &promotion, NULL), DURE_ERR_AUTH);
    promotion = fixture_promotion(f);
    promotion.root_public = f->key.public_;
    assert_err(dure_registry_promote(f->registry, 1, &promotion, NULL), DURE_ERR_AUTH);
    promotion = fixture_promotion(f);
    promotion.now_s = 5000;
    assert_err(dure_registry_promote(f->registry, 1, &promotion, NULL), DURE_ERR_EXPIRED);
    assert_int_equal(fixture_get(f, "1").state, DURE_VERSION_GATED);
}

static void test_promote_refuses_an_altered_file(void **state)
{
    fixture *f = *state;
    dure_promotion promotion = fixture_promotion(f);
    fixture_gate(f, fixture_add(f, "one", 0, 1), true);
    dure_version v = fixture_get(f, "1");
    char *path = dure_registry_adapter_path(f->registry, &v);
    assert_ok(dure_file_write_atomic(path, dure_span_of_text("0ne"), 0644, NULL));
    free(path);
    assert_err(dure_registry_promote(f->registry, 1, &promotion, NULL), DURE_ERR_AUTH);
    assert_false(fixture_get(f, "1").is_signed);
}

static void test_rollback_is_one_call(void **state)
{
    fixture *f = *state;
    uint64_t number = 9, before, after;
    dure_diag diag = {0};
    dure_version v;
    assert_err(dure_registry_rollback(&number, f->registry, 130, &diag), DURE_ERR_STATE);
    assert_non_null(strstr(diag.text, "nothing was promoted"));
    three_versions(f);
    assert_ok(dure_registry_generation(&before, f->registry, NULL));
    assert_ok(dure_registry_rollback(&number, f->registry, 130, NULL));
    assert_ok(dure_registry_generation(&after, f->registry, NULL));
    assert_true(after != before);
    assert_int_equal(number, 1);
    v = fixture_get(f, "champion");
    assert_int_equal(v.number, 1);
    assert_ok(dure_registry_verify(f->registry, &v, f->root.public_, &fixture_base, NULL));
    assert_int_equal(fixture_get(f, "2").state, DURE_VERSION_ARCHIVED);
    assert_err(dure_registry_find(&v, f->registry, "previous", NULL), DURE_ERR_NOT_FOUND);
    assert_err(dure_registry_rollback(&number, f->registry, 130, &diag), DURE_ERR_STATE);
    assert_int_equal(number, 0);
    assert_int_equal(fixture_get(f, "champion").number, 1);
}

static void test_verify_refuses_an_unsigned_adapter(void **state)
{
    fixture *f = *state;
    dure_diag diag = {0};
    fixture_gate(f, fixture_add(f, "one", 0, 1), true);
    dure_version v = fixture_get(f, "1");
    assert_err(dure_registry_verify(f->registry, &v, f->root.public_, &fixture_base, &diag),
               DURE_ERR_AUTH);
    assert_non_null(strstr(diag.text, "not signed"));
}

static void test_verify_refuses_an_altered_adapter(void **state)
{
    fixture *f = *state;
    dure_diag diag = {0};
    three_versions(f);
    dure_version v = fixture_get(f, "champion");
    char *path = dure_registry_adapter_path(f->registry, &v);
    assert_ok(dure_file_write_atomic(path, dure_span_of_text("C"), 0644, NULL));
    assert_err(dure_registry_verify(f->registry, &v, f->root.public_, &fixture_base, &diag),
               DURE_ERR_AUTH);
    assert_non_null(strstr(diag.text, "version 2 is not loaded"));
    assert_int_equal(remove(path), 0);
    assert_err(dure_registry_verify(f->registry, &v, f->root.public_, &fixture_base, NULL),
               DURE_ERR_NOT_FOUND);
    free(path);
}

/* Pointing a signed record at another file does not help: the digest is signed. */
static void test_verify_refuses_an_exchanged_digest(void **state)
{
    fixture *f = *state;
    three_versions(f);
    dure_version v = fixture_get(f, "champion");
    v.adapter = fixture_get(f, "1").adapter;
    assert_err(dure_registry_verify(f->registry, &v, f->root.public_, &fixture_base, NULL),
               DURE_ERR_AUTH);
}

static void test_verify_refuses_another_base(void **state)
{
    fixture *f = *state;
    dure_diag diag = {0};
    dure_hash other = {{1, 2, 3}};
    three_versions(f);
    dure_version v = fixture_get(f, "champion");
    assert_err(dure_registry_verify(f->registry, &v, f->root.public_, &other, &diag),
               DURE_ERR_STATE);
    assert_non_null(strstr(diag.text, "another base model"));
    assert_ok(dure_registry_verify(f->registry, &v, f->root.public_, NULL, NULL));
}

static void test_verify_refuses_another_federation(void **state)
{
    fixture *f = *state;
    three_versions(f);
    dure_version v = fixture_get(f, "champion");
    assert_err(dure_registry_verify(f->registry, &v, f->key.public_, &fixture_base, NULL),
               DURE_ERR_AUTH);
}

static void test_gate_of_a_promoted_version_stays(void **state)
{
    fixture *f = *state;
    three_versions(f);
    const dure_gate_result gate = {.n_records = 8, .passed = false};
    assert_err(dure_registry_set_gate(f->registry, 2, &gate, 0, NULL), DURE_ERR_STATE);
    assert_true(fixture_get(f, "2").gate.passed);
}

/* A second process sees a promote at once, and never one alias without the other. */
static void test_promote_is_seen_by_another_process(void **state)
{
    fixture *f = *state;
    dure_registry *reader = NULL;
    dure_version v;
    three_versions(f);
    assert_ok(dure_registry_open(&reader, f->dir.path, NULL));
    promote(f, 3);
    assert_ok(dure_registry_find(&v, reader, "champion", NULL));
    assert_int_equal(v.number, 3);
    assert_ok(dure_registry_find(&v, reader, "previous", NULL));
    assert_int_equal(v.number, 2);
    dure_registry_close(&reader);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_promote_moves_both_aliases),
        TEST(test_promote_refuses_without_a_passed_gate),
        TEST(test_promote_by_force_keeps_the_reason),
        TEST(test_promote_keeps_every_move_until_the_log_has_it),
        TEST(test_promote_twice_is_refused),
        TEST(test_promote_of_the_previous_swaps),
        TEST(test_promote_refuses_a_key_the_root_did_not_certify),
        TEST(test_promote_refuses_an_altered_file),
        TEST(test_rollback_is_one_call),
        TEST(test_verify_refuses_an_unsigned_adapter),
        TEST(test_verify_refuses_an_altered_adapter),
        TEST(test_verify_refuses_an_exchanged_digest),
        TEST(test_verify_refuses_another_base),
        TEST(test_verify_refuses_another_federation),
        TEST(test_gate_of_a_promoted_version_stays),
        TEST(test_promote_is_seen_by_another_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
