#include "common/file.h"
#include "fixture.h"
#include "ledger/journal.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static dure_err reopen(fixture *f, dure_leaf_log_mode mode, dure_diag *diag)
{
    dure_journal_close(&f->journal);
    return dure_journal_open(&f->journal, temp_dir_file(&f->dir, "ledger"), mode, diag);
}

static void test_journal_keeps_everything_over_reopening(void **state)
{
    (void)state;
    fixture f;
    fixture_make(&f);
    assert_null(dure_journal_genesis(f.journal));
    assert_null(dure_journal_roster(f.journal));
    fixture_begin(&f);
    uint64_t first = fixture_full_round(&f, 1, 3), second = fixture_full_round(&f, 2, 2);
    assert_ok(reopen(&f, DURE_LEAF_LOG_WRITE, NULL));
    assert_int_equal(dure_journal_newest(f.journal), second);
    assert_int_equal(fixture_counting(&f), first);
    assert_string_equal(dure_journal_genesis(f.journal)->federation, "valley");
    assert_int_equal(dure_journal_roster(f.journal)->n_sites, 3);
    size_t n = 0;
    const uint64_t *sizes = dure_journal_sizes(&n, f.journal);
    assert_int_equal(n, 2);
    assert_int_equal(sizes[0], first);
    fixture_free(&f);
}

static void test_journal_checkpoint_is_made_once_for_each_size(void **state)
{
    (void)state;
    fixture f;
    dure_buf one, two;
    fixture_make(&f);
    fixture_begin(&f);
    uint64_t n = fixture_full_round(&f, 1, 1);
    fixture_note(&one, &f, n);
    dure_buf_init(&two, DURE_NOTE_MAX);
    assert_ok(dure_journal_checkpoint(&two, f.journal, &f.coordinator, NULL));
    assert_int_equal(one.n, two.n);
    assert_memory_equal(one.data, two.data, one.n);
    assert_err(dure_journal_checkpoint(&two, f.journal, &f.root, NULL), DURE_ERR_USAGE);
    dure_buf_fini(&one);
    dure_buf_fini(&two);
    fixture_free(&f);
}

static void cosign(dure_cosignature *out, const fixture *f, uint64_t n, size_t site)
{
    dure_checkpoint checkpoint = {.origin = {0}};
    memcpy(checkpoint.origin, f->origin, sizeof checkpoint.origin);
    assert_ok(dure_leaf_log_head(&checkpoint.head, dure_journal_log(f->journal), n));
    assert_ok(dure_cosign(out, &checkpoint, 1772000300, &f->sites[site]));
}

static void test_journal_counts_cosignatures_to_the_quorum(void **state)
{
    (void)state;
    fixture f;
    dure_cosignature cosignature;
    fixture_make(&f);
    fixture_begin(&f);
    uint64_t n = fixture_full_round(&f, 1, 0);
    for (size_t i = 0; i < 3; i++) {
        const dure_site_key site = fixture_site(&f, i);
        cosign(&cosignature, &f, n, i);
        assert_ok(dure_journal_cosign(f.journal, n, &site, &cosignature, NULL));
        assert_int_equal(fixture_counting(&f), i == 2 ? n : 0); /* three sites, c = 1: all */
        assert_ok(dure_journal_cosign(f.journal, n, &site, &cosignature, NULL));
        assert_int_equal(fixture_counting(&f), i == 2 ? n : 0);
    }
    fixture_free(&f);
}

static void test_journal_refuses_wrong_cosignatures(void **state)
{
    (void)state;
    fixture f;
    dure_cosignature cosignature;
    fixture_make(&f);
    fixture_begin(&f);
    uint64_t n = fixture_full_round(&f, 1, 0);
    cosign(&cosignature, &f, n, 0);
    const dure_site_key site = fixture_site(&f, 0), other = fixture_site(&f, 1);
    assert_err(dure_journal_cosign(f.journal, n, &other, &cosignature, NULL), DURE_ERR_AUTH);
    assert_err(dure_journal_cosign(f.journal, n + 1, &site, &cosignature, NULL),
               DURE_ERR_NOT_FOUND);
    cosignature.signature[5] ^= 1;
    assert_err(dure_journal_cosign(f.journal, n, &site, &cosignature, NULL), DURE_ERR_AUTH);
    fixture_free(&f);
}

static void test_journal_begins_with_genesis_and_has_one(void **state)
{
    (void)state;
    fixture f;
    fixture_make(&f);
    fixture_roster(&f, 3);
    assert_err(dure_journal_append(NULL, f.journal, f.event, NULL), DURE_ERR_USAGE);
    fixture_begin(&f);
    fixture_genesis(&f);
    assert_err(dure_journal_append(NULL, f.journal, f.event, NULL), DURE_ERR_USAGE);
    assert_int_equal(dure_leaf_log_size(dure_journal_log(f.journal)), 2);
    fixture_free(&f);
}

/* A folder restored from an older copy of the log, beside newer checkpoints. */
static void test_journal_refuses_a_truncated_log(void **state)
{
    (void)state;
    fixture f;
    dure_diag diag = {{0}};
    fixture_make(&f);
    fixture_begin(&f);
    (void)fixture_full_round(&f, 1, 0);
    dure_journal_close(&f.journal);
    assert_int_equal(truncate(temp_dir_file(&f.dir, "ledger/index"), 3 * 40), 0);
    assert_err(reopen(&f, DURE_LEAF_LOG_WRITE, &diag), DURE_ERR_FORMAT);
    assert_non_null(strstr(diag.text, "entries from 3 on are missing"));
    fixture_free(&f);
}

static void test_journal_refuses_a_damaged_checkpoint(void **state)
{
    (void)state;
    fixture f;
    dure_buf note;
    dure_diag diag = {{0}};
    fixture_make(&f);
    fixture_begin(&f);
    uint64_t n = fixture_full_round(&f, 1, 3);
    fixture_note(&note, &f, n);
    note.data[80] ^= 1; /* in its root */
    const char *path = temp_dir_file(&f.dir, "ledger/checkpoints/4");
    assert_int_equal(n, 4);
    assert_ok(dure_file_write_atomic(path, dure_buf_span(&note), 0600, NULL));
    assert_err(reopen(&f, DURE_LEAF_LOG_READ, &diag), DURE_ERR_FORMAT);
    assert_true(diag.text[0] != 0);
    dure_buf_fini(&note);
    fixture_free(&f);
}

static void test_journal_epoch_needs_the_root(void **state)
{
    (void)state;
    fixture f;
    dure_merkle_head kept;
    fixture_make(&f);
    fixture_begin(&f);
    assert_ok(dure_leaf_log_head(&kept, dure_journal_log(f.journal), 2));
    fixture_epoch(&f, 2, &kept.root, 9);
    f.event->u.epoch.signature[0] ^= 1;
    assert_err(dure_journal_append(NULL, f.journal, f.event, NULL), DURE_ERR_AUTH);
    f.event->u.epoch.signature[0] ^= 1;
    assert_ok(dure_journal_append(NULL, f.journal, f.event, NULL));
    fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_journal_keeps_everything_over_reopening),
        cmocka_unit_test(test_journal_checkpoint_is_made_once_for_each_size),
        cmocka_unit_test(test_journal_counts_cosignatures_to_the_quorum),
        cmocka_unit_test(test_journal_refuses_wrong_cosignatures),
        cmocka_unit_test(test_journal_begins_with_genesis_and_has_one),
        cmocka_unit_test(test_journal_refuses_a_truncated_log),
        cmocka_unit_test(test_journal_refuses_a_damaged_checkpoint),
        cmocka_unit_test(test_journal_epoch_needs_the_root),
    };
    return cmocka_run_group_tests_name("ledger.journal", tests, NULL, NULL);
}
