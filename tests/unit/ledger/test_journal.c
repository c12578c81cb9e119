#include "common/file.h"
#include "fixture.h"
#include "ledger/journal.h"

#include <stdio.h>
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
    assert_null(dure_journal_roster(f.journal));
    fixture_begin(&f);
    uint64_t first = fixture_full_round(&f, 1, 3), second = fixture_full_round(&f, 2, 2);
    assert_ok(reopen(&f, DURE_LEAF_LOG_WRITE, NULL));
    assert_int_equal(dure_journal_newest(f.journal), second);
    assert_int_equal(fixture_counting(&f), first);
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

/* The entries from `from` on as another kept them. */
static void copy_entries(dure_buf *out, const fixture *f, uint64_t from)
{
    const dure_leaf_log *log = dure_journal_log(f->journal);
    dure_buf_init(out, 1 << 20);
    for (uint64_t i = from; i < dure_leaf_log_size(log); i++) {
        dure_buf leaf;
        assert_ok(dure_leaf_log_read(&leaf, log, i, NULL));
        dure_put_bytes(out, leaf.data, leaf.n);
        dure_buf_fini(&leaf);
    }
}

static char *note_path(char path[600], const fixture *f, uint64_t size)
{
    snprintf(path, 600, "%s/ledger/checkpoints/%llu", f->dir.path, (unsigned long long)size);
    return path;
}

static dure_err merge(uint64_t *size, fixture *f, const dure_buf *note)
{
    dure_site_key sites[FIXTURE_SITES];
    for (size_t i = 0; i < FIXTURE_SITES; i++)
        sites[i] = fixture_site(f, i);
    const dure_journal_signers who = {&f->coordinator, sites, FIXTURE_SITES};
    return dure_journal_merge_note(size, f->journal, dure_buf_span(note), &who, NULL);
}

/* As after a backup of the time of the first checkpoint was put back, and one entry came since. */
static void put_back(fixture *f, uint64_t first, uint64_t second)
{
    char path[600], folder[512];
    dure_leaf_log *log = NULL;
    uint64_t index;
    snprintf(folder, sizeof folder, "%s/ledger", f->dir.path);
    dure_journal_close(&f->journal);
    assert_int_equal(unlink(note_path(path, f, second)), 0);
    assert_ok(dure_leaf_log_open(&log, folder, DURE_LEAF_LOG_WRITE, NULL));
    assert_ok(dure_leaf_log_cut(log, first, NULL));
    assert_ok(dure_leaf_log_append(&index, log, dure_span_of_text("of another time"), NULL));
    dure_leaf_log_close(&log);
}

static void test_journal_takes_back_what_it_lost(void **state)
{
    (void)state;
    fixture f;
    dure_buf entries, note;
    dure_merkle_head head;
    uint64_t size = 0;
    fixture_make(&f);
    fixture_begin(&f);
    uint64_t first = fixture_full_round(&f, 1, 3), second = fixture_full_round(&f, 2, 3);
    char folder[512];
    snprintf(folder, sizeof folder, "%s/ledger", f.dir.path);
    copy_entries(&entries, &f, first);
    fixture_note(&note, &f, second);
    assert_ok(dure_leaf_log_head(&head, dure_journal_log(f.journal), second));
    put_back(&f, first, second);
    const dure_span all = dure_buf_span(&entries);
    assert_ok(dure_journal_adopt(folder, first, all, &head, NULL));
    assert_ok(dure_journal_open(&f.journal, folder, DURE_LEAF_LOG_WRITE, NULL));
    assert_int_equal(dure_journal_newest(f.journal), first);
    assert_ok(merge(&size, &f, &note));
    assert_int_equal(dure_journal_newest(f.journal), second);
    assert_int_equal(fixture_counting(&f), second);
    dure_buf_fini(&entries);
    dure_buf_fini(&note);
    fixture_free(&f);
}

/* Nothing changes when one byte, the length or the place is another. */
static void test_journal_takes_no_other_entries(void **state)
{
    (void)state;
    fixture f;
    dure_buf entries;
    dure_merkle_head head;
    fixture_make(&f);
    fixture_begin(&f);
    uint64_t first = fixture_full_round(&f, 1, 3), second = fixture_full_round(&f, 2, 3);
    char folder[512];
    snprintf(folder, sizeof folder, "%s/ledger", f.dir.path);
    copy_entries(&entries, &f, first);
    assert_ok(dure_leaf_log_head(&head, dure_journal_log(f.journal), second));
    put_back(&f, first, second);
    const dure_span all = dure_buf_span(&entries), cut = {all.data, all.n - 1}, none = {0};
    entries.data[20] ^= 1;
    assert_err(dure_journal_adopt(folder, first, all, &head, NULL), DURE_ERR_AUTH);
    entries.data[20] ^= 1;
    assert_err(dure_journal_adopt(folder, first, cut, &head, NULL), DURE_ERR_AUTH);
    assert_err(dure_journal_adopt(folder, first, none, &head, NULL), DURE_ERR_AUTH);
    assert_err(dure_journal_adopt(folder, first - 1, all, &head, NULL), DURE_ERR_AUTH);
    assert_err(dure_journal_adopt(folder, second, all, &head, NULL), DURE_ERR_USAGE);
    dure_leaf_log *log = NULL;
    assert_ok(dure_leaf_log_open(&log, folder, DURE_LEAF_LOG_WRITE, NULL));
    assert_int_equal(dure_leaf_log_size(log), first + 1);
    dure_leaf_log_close(&log);
    dure_buf_fini(&entries);
    fixture_free(&f);
}

/* A note with fewer cosignatures here than a site has, and one that is gone. */
static void test_journal_merges_the_notes_that_it_lost(void **state)
{
    (void)state;
    fixture f;
    dure_buf whole;
    char path[600];
    uint64_t size = 0;
    fixture_make(&f);
    fixture_begin(&f);
    uint64_t n = fixture_full_round(&f, 1, 3);
    fixture_note(&whole, &f, n);
    for (int bare = 0; bare < 2; bare++) {
        dure_buf text;
        assert_int_equal(unlink(note_path(path, &f, n)), 0);
        assert_ok(reopen(&f, DURE_LEAF_LOG_WRITE, NULL));
        dure_buf_init(&text, DURE_NOTE_MAX);
        if (bare) assert_ok(dure_journal_checkpoint(&text, f.journal, &f.coordinator, NULL));
        assert_int_equal(fixture_counting(&f), 0);
        assert_ok(merge(&size, &f, &whole));
        assert_int_equal(size, n);
        assert_int_equal(fixture_counting(&f), n);
        dure_buf_fini(&text);
    }
    dure_buf_fini(&whole);
    fixture_free(&f);
}

/* Of a note that a site brings, lines of strangers and of other checkpoints are not kept: an
 * auditor would refuse the log for them. */
static void test_journal_keeps_no_line_that_it_cannot_verify(void **state)
{
    (void)state;
    fixture f;
    dure_buf honest, padded, stored;
    dure_cosignature wrong = {.time_s = 1772000300};
    char path[600];
    uint64_t size = 0;
    fixture_make(&f);
    fixture_begin(&f);
    uint64_t n = fixture_full_round(&f, 1, 2);
    fixture_note(&honest, &f, n);
    fixture_note(&padded, &f, n);
    dure_site_key stranger = fixture_site(&f, 2);
    assert_ok(dure_cosign_append(&padded, &wrong, &stranger));
    snprintf(stranger.name, sizeof stranger.name, "stranger");
    assert_ok(dure_cosign_append(&padded, &wrong, &stranger));
    assert_int_equal(unlink(note_path(path, &f, n)), 0);
    assert_ok(reopen(&f, DURE_LEAF_LOG_WRITE, NULL));
    assert_ok(merge(&size, &f, &padded));
    fixture_note(&stored, &f, n);
    assert_int_equal(stored.n, honest.n);
    assert_memory_equal(stored.data, honest.data, honest.n);
    dure_buf_fini(&honest);
    dure_buf_fini(&padded);
    dure_buf_fini(&stored);
    fixture_free(&f);
}

/* Another root, another signature, more entries than there are; or no note at all. */
static void test_journal_merges_no_note_of_another_log(void **state)
{
    (void)state;
    fixture f;
    dure_buf note;
    char path[600];
    uint64_t size = 7;
    dure_checkpoint other = {.origin = {0}};
    fixture_make(&f);
    fixture_begin(&f);
    uint64_t n = fixture_full_round(&f, 1, 3);
    assert_int_equal(unlink(note_path(path, &f, n)), 0);
    assert_ok(reopen(&f, DURE_LEAF_LOG_WRITE, NULL));
    memcpy(other.origin, f.origin, sizeof other.origin);
    assert_ok(dure_leaf_log_head(&other.head, dure_journal_log(f.journal), n));
    for (int what = 0; what < 4; what++) {
        dure_checkpoint c = other;
        if (what == 0) c.head.root.b[4] ^= 1;
        if (what == 1) c.head.n++;
        if (what == 2) c.origin[5] ^= 1;
        dure_buf_init(&note, DURE_NOTE_MAX);
        assert_ok(dure_checkpoint_sign(&note, &c, what == 3 ? &f.root : &f.coordinator));
        assert_err(merge(&size, &f, &note), DURE_ERR_AUTH);
        assert_int_equal(size, 0);
        note.n = 9;
        assert_err(merge(&size, &f, &note), DURE_ERR_AUTH);
        dure_buf_fini(&note);
    }
    assert_int_equal(dure_journal_newest(f.journal), 0);
    fixture_free(&f);
}

/* Taken back to what the root keeps, the log goes on with the root's statement of the loss. */
static void test_journal_goes_on_after_a_loss(void **state)
{
    (void)state;
    fixture f;
    dure_merkle_head kept;
    size_t n_losses = 0;
    fixture_make(&f);
    fixture_begin(&f);
    uint64_t first = fixture_full_round(&f, 1, 3), second = fixture_full_round(&f, 2, 3);
    char folder[512];
    snprintf(folder, sizeof folder, "%s/ledger", f.dir.path);
    dure_journal_close(&f.journal);
    assert_err(dure_journal_cut(folder, 0, NULL), DURE_ERR_USAGE);
    assert_err(dure_journal_cut(folder, second + 1, NULL), DURE_ERR_USAGE);
    assert_ok(dure_journal_cut(folder, first, NULL));
    assert_ok(dure_journal_open(&f.journal, folder, DURE_LEAF_LOG_WRITE, NULL));
    assert_int_equal(dure_leaf_log_size(dure_journal_log(f.journal)), first);
    assert_int_equal(dure_journal_newest(f.journal), first);
    assert_null(dure_journal_losses(&n_losses, f.journal));
    assert_ok(dure_leaf_log_head(&kept, dure_journal_log(f.journal), first));
    fixture_epoch(&f, first, &kept.root, second);
    fixture_append(&f);
    for (int again = 0; again < 2; again++) {
        const dure_journal_loss *losses = dure_journal_losses(&n_losses, f.journal);
        assert_int_equal(n_losses, 1);
        assert_int_equal(losses[0].kept, first);
        assert_int_equal(losses[0].lost_n, second);
        assert_ok(reopen(&f, DURE_LEAF_LOG_WRITE, NULL));
    }
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
        cmocka_unit_test(test_journal_takes_back_what_it_lost),
        cmocka_unit_test(test_journal_takes_no_other_entries),
        cmocka_unit_test(test_journal_merges_the_notes_that_it_lost),
        cmocka_unit_test(test_journal_keeps_no_line_that_it_cannot_verify),
        cmocka_unit_test(test_journal_merges_no_note_of_another_log),
        cmocka_unit_test(test_journal_goes_on_after_a_loss),
        cmocka_unit_test(test_journal_begins_with_genesis_and_has_one),
        cmocka_unit_test(test_journal_refuses_a_truncated_log),
        cmocka_unit_test(test_journal_refuses_a_damaged_checkpoint),
        cmocka_unit_test(test_journal_epoch_needs_the_root),
    };
    return cmocka_run_group_tests_name("ledger.journal", tests, NULL, NULL);
}
