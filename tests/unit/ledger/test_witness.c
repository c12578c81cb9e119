#include "common/file.h"
#include "fixture.h"
#include "ledger/witness.h"

#include <string.h>

static dure_witness *open_witness(const fixture *f)
{
    dure_witness *witness = NULL;
    assert_ok(dure_witness_open(&witness, temp_dir_file(&f->dir, "seen"), f->origin,
                                f->coordinator.public_, NULL));
    return witness;
}

/* Shows the witness the checkpoint of `n`, with a proof from what it has. */
static dure_err show(dure_witness *witness, const fixture *f, uint64_t n, dure_diag *diag)
{
    dure_buf note;
    uint64_t old_n = dure_witness_head(witness).n;
    dure_merkle_proof proof = {0};
    if (old_n <= n) proof = fixture_proof(f, n, old_n);
    fixture_note(&note, f, n);
    dure_err err = dure_witness_update(witness, dure_buf_span(&note), &proof, diag);
    dure_buf_fini(&note);
    return err;
}

static void test_witness_follows_a_growing_log(void **state)
{
    (void)state;
    fixture f;
    fixture_make(&f);
    fixture_begin(&f);
    dure_witness *witness = open_witness(&f);
    assert_int_equal(dure_witness_head(witness).n, 0);
    for (uint64_t round = 1; round <= 4; round++) {
        uint64_t n = fixture_full_round(&f, round, 3);
        dure_cosignature cosignature;
        assert_ok(show(witness, &f, n, NULL));
        assert_ok(show(witness, &f, n, NULL)); /* the same again */
        assert_int_equal(dure_witness_head(witness).n, n);
        assert_ok(dure_witness_cosign(&cosignature, witness, &f.sites[0], 1772000200));
        dure_witness_close(&witness);
        witness = open_witness(&f); /* what it has seen survives a restart */
        assert_int_equal(dure_witness_head(witness).n, n);
    }
    dure_witness_close(&witness);
    fixture_free(&f);
}

static void test_witness_refuses_a_rolled_back_checkpoint(void **state)
{
    (void)state;
    fixture f;
    dure_diag diag = {{0}};
    fixture_make(&f);
    fixture_begin(&f);
    uint64_t first = fixture_full_round(&f, 1, 0), second = fixture_full_round(&f, 2, 0);
    dure_witness *witness = open_witness(&f);
    assert_ok(show(witness, &f, second, NULL));
    assert_err(show(witness, &f, first, &diag), DURE_ERR_AUTH);
    assert_non_null(strstr(diag.text, "backwards"));
    assert_int_equal(dure_witness_head(witness).n, second);
    dure_witness_close(&witness);
    fixture_free(&f);
}

/* Signs a checkpoint with any root, as a dishonest coordinator can. */
static void forge(dure_buf *note, const fixture *f, uint64_t n, uint8_t root)
{
    dure_checkpoint checkpoint = {.head = {.n = n, .root = fixture_hash(root)}};
    memcpy(checkpoint.origin, f->origin, sizeof checkpoint.origin);
    dure_buf_init(note, DURE_NOTE_MAX);
    assert_ok(dure_checkpoint_sign(note, &checkpoint, &f->coordinator));
}

static void test_witness_refuses_two_logs_of_one_size(void **state)
{
    (void)state;
    fixture f;
    dure_buf note;
    dure_diag diag = {{0}};
    dure_merkle_proof none = {0};
    fixture_make(&f);
    fixture_begin(&f);
    uint64_t n = fixture_full_round(&f, 1, 0);
    dure_witness *witness = open_witness(&f);
    assert_ok(show(witness, &f, n, NULL));
    forge(&note, &f, n, 0x66);
    assert_err(dure_witness_update(witness, dure_buf_span(&note), &none, &diag), DURE_ERR_AUTH);
    assert_non_null(strstr(diag.text, "two different logs"));
    dure_buf_fini(&note);
    dure_witness_close(&witness);
    fixture_free(&f);
}

static void test_witness_refuses_a_log_that_does_not_extend(void **state)
{
    (void)state;
    fixture f;
    dure_buf note;
    dure_diag diag = {{0}};
    fixture_make(&f);
    fixture_begin(&f);
    uint64_t n = fixture_full_round(&f, 1, 0), later = fixture_full_round(&f, 2, 0);
    dure_witness *witness = open_witness(&f);
    assert_ok(show(witness, &f, n, NULL));
    forge(&note, &f, later, 0x66);
    dure_merkle_proof proof = fixture_proof(&f, later, n);
    assert_err(dure_witness_update(witness, dure_buf_span(&note), &proof, &diag), DURE_ERR_AUTH);
    assert_non_null(strstr(diag.text, "does not extend"));
    assert_int_equal(dure_witness_head(witness).n, n);
    dure_buf_fini(&note);
    dure_witness_close(&witness);
    fixture_free(&f);
}

static void test_witness_refuses_another_signer_and_malformed_notes(void **state)
{
    (void)state;
    fixture f;
    dure_buf note;
    dure_merkle_proof none = {0};
    fixture_make(&f);
    fixture_begin(&f);
    uint64_t n = fixture_full_round(&f, 1, 0);
    dure_witness *witness = open_witness(&f);
    fixture_note(&note, &f, n);
    note.data[note.n - 10] ^= 2;
    assert_int_not_equal(dure_witness_update(witness, dure_buf_span(&note), &none, NULL), DURE_OK);
    assert_err(dure_witness_update(witness, dure_span_of_text("hello"), &none, NULL),
               DURE_ERR_FORMAT);
    assert_int_equal(dure_witness_head(witness).n, 0);
    dure_buf_fini(&note);
    dure_witness_close(&witness);
    fixture_free(&f);
}

static void test_witness_signs_nothing_before_it_has_seen_something(void **state)
{
    (void)state;
    fixture f;
    dure_cosignature cosignature;
    fixture_make(&f);
    dure_witness *witness = open_witness(&f);
    assert_err(dure_witness_cosign(&cosignature, witness, &f.sites[0], 1), DURE_ERR_STATE);
    dure_witness_close(&witness);
    fixture_free(&f);
}

static void test_witness_open_names_a_damaged_file(void **state)
{
    (void)state;
    fixture f;
    dure_diag diag = {{0}};
    dure_witness *witness = NULL;
    fixture_make(&f);
    const char *path = temp_dir_file(&f.dir, "seen");
    assert_ok(dure_file_write_atomic(path, dure_span_of_text("garbage"), 0600, NULL));
    assert_err(dure_witness_open(&witness, path, f.origin, f.coordinator.public_, &diag),
               DURE_ERR_FORMAT);
    assert_null(witness);
    assert_non_null(strstr(diag.text, "seen"));
    fixture_free(&f);
}

static dure_err tell_epoch(dure_witness *witness, const fixture *f, const uint8_t *root)
{
    dure_buf leaf;
    dure_buf_init(&leaf, DURE_LEAF_MAX);
    assert_ok(dure_event_encode(&leaf, f->event, NULL));
    dure_err err = dure_witness_new_epoch(witness, dure_buf_span(&leaf), root, NULL);
    dure_buf_fini(&leaf);
    return err;
}

/* The root may say that entries were lost; the site then follows the shorter log, also after a
 * restart, and does not cosign the lost one any more. */
static void test_witness_accepts_a_loss_that_the_root_signed(void **state)
{
    (void)state;
    fixture f;
    dure_cosignature cosignature;
    dure_merkle_head kept;
    fixture_make(&f);
    fixture_begin(&f);
    uint64_t first = fixture_full_round(&f, 1, 0), second = fixture_full_round(&f, 2, 0);
    dure_witness *witness = open_witness(&f);
    assert_ok(show(witness, &f, second, NULL));
    assert_ok(dure_leaf_log_head(&kept, dure_journal_log(f.journal), first));
    fixture_epoch(&f, first, &kept.root, second);
    assert_err(tell_epoch(witness, &f, f.coordinator.public_), DURE_ERR_AUTH);
    assert_ok(tell_epoch(witness, &f, f.root.public_));
    assert_int_equal(dure_witness_head(witness).n, first);
    assert_err(dure_witness_cosign(&cosignature, witness, &f.sites[0], 1), DURE_ERR_STATE);
    dure_witness_close(&witness);
    witness = open_witness(&f);
    assert_int_equal(dure_witness_head(witness).n, first);
    const uint64_t third = fixture_full_round(&f, 3, 0);
    assert_ok(show(witness, &f, third, NULL)); /* the log goes on: the epoch is spent */
    dure_witness_close(&witness);
    witness = open_witness(&f);
    assert_int_equal(dure_witness_head(witness).n, third);
    dure_witness_close(&witness);
    fixture_free(&f);
}

/* A site that has seen two rounds; the root has taken back the second. */
static dure_witness *lose_second(fixture *f, uint64_t *second)
{
    dure_merkle_head kept;
    fixture_make(f);
    fixture_begin(f);
    const uint64_t first = fixture_full_round(f, 1, 0);
    *second = fixture_full_round(f, 2, 0);
    dure_witness *witness = open_witness(f);
    assert_ok(show(witness, f, *second, NULL));
    assert_ok(dure_leaf_log_head(&kept, dure_journal_log(f->journal), first));
    fixture_epoch(f, first, &kept.root, *second);
    assert_ok(tell_epoch(witness, f, f->root.public_));
    return witness;
}

static void assert_lost(dure_witness *witness, const fixture *f, uint64_t n)
{
    dure_diag diag = {{0}};
    assert_err(show(witness, f, n, &diag), DURE_ERR_AUTH);
    if (!strstr(diag.text, "took back")) fail_msg("%s", diag.text);
}

/* The lost history extends what was kept. Were it cosigned again, the next start would find it
 * superseded, and the log would have gone backwards. */
static void test_witness_refuses_the_lost_history_again(void **state)
{
    (void)state;
    fixture f;
    uint64_t second = 0;
    dure_cosignature cosignature;
    dure_witness *witness = lose_second(&f, &second);
    assert_lost(witness, &f, second);
    assert_err(dure_witness_cosign(&cosignature, witness, &f.sites[0], 1), DURE_ERR_STATE);
    dure_witness_close(&witness);
    witness = open_witness(&f);
    assert_lost(witness, &f, second);
    dure_witness_close(&witness);
    fixture_free(&f);
}

/* As bytes that differ, which a coordinator can make at will. */
static void test_witness_refuses_the_lost_history_in_another_note(void **state)
{
    (void)state;
    fixture f;
    uint64_t second = 0;
    dure_buf note;
    dure_diag diag = {{0}};
    dure_cosignature cosignature;
    dure_checkpoint checkpoint = {.head.n = 0};
    dure_witness *witness = lose_second(&f, &second);
    const dure_site_key site = fixture_site(&f, 0);
    const dure_merkle_proof proof = fixture_proof(&f, second, dure_witness_head(witness).n);
    fixture_note(&note, &f, second);
    memcpy(checkpoint.origin, f.origin, sizeof checkpoint.origin);
    assert_ok(dure_leaf_log_head(&checkpoint.head, dure_journal_log(f.journal), second));
    assert_ok(dure_cosign(&cosignature, &checkpoint, 1, &f.sites[0]));
    assert_ok(dure_cosign_append(&note, &cosignature, &site));
    assert_err(dure_witness_update(witness, dure_buf_span(&note), &proof, &diag), DURE_ERR_AUTH);
    if (!strstr(diag.text, "took back")) fail_msg("%s", diag.text);
    dure_buf_fini(&note);
    dure_witness_close(&witness);
    fixture_free(&f);
}

/* Where nothing of what the site saw was lost, it is the present log that it is shown again. */
static void test_witness_takes_what_was_kept_again(void **state)
{
    (void)state;
    fixture f;
    dure_merkle_head kept;
    fixture_make(&f);
    fixture_begin(&f);
    const uint64_t first = fixture_full_round(&f, 1, 0);
    dure_witness *witness = open_witness(&f);
    assert_ok(show(witness, &f, first, NULL));
    assert_ok(dure_leaf_log_head(&kept, dure_journal_log(f.journal), first));
    fixture_epoch(&f, first, &kept.root, first + 3);
    assert_ok(tell_epoch(witness, &f, f.root.public_));
    assert_ok(show(witness, &f, first, NULL));
    dure_witness_close(&witness);
    fixture_free(&f);
}

/* The coordinator keeps the root's statement; shown again, it must not roll the log back. */
static void test_witness_accepts_a_loss_only_once(void **state)
{
    (void)state;
    fixture f;
    dure_merkle_head kept;
    fixture_make(&f);
    fixture_begin(&f);
    uint64_t first = fixture_full_round(&f, 1, 0), second = fixture_full_round(&f, 2, 0);
    dure_witness *witness = open_witness(&f);
    assert_ok(show(witness, &f, second, NULL));
    assert_ok(dure_leaf_log_head(&kept, dure_journal_log(f.journal), first));
    fixture_epoch(&f, first, &kept.root, second + 100);
    assert_ok(tell_epoch(witness, &f, f.root.public_));
    assert_ok(tell_epoch(witness, &f, f.root.public_)); /* a repeat while it is in effect */
    dure_buf leaf; /* the coordinator's copy: the next round reuses the fixture's event */
    dure_buf_init(&leaf, DURE_LEAF_MAX);
    assert_ok(dure_event_encode(&leaf, f.event, NULL));
    uint64_t third = fixture_full_round(&f, 3, 0);
    assert_ok(show(witness, &f, third, NULL));
    assert_err(dure_witness_new_epoch(witness, dure_buf_span(&leaf), f.root.public_, NULL),
               DURE_ERR_AUTH);
    dure_witness_close(&witness);
    witness = open_witness(&f);
    assert_err(dure_witness_new_epoch(witness, dure_buf_span(&leaf), f.root.public_, NULL),
               DURE_ERR_AUTH);
    assert_int_equal(dure_witness_head(witness).n, third);
    dure_buf_fini(&leaf);
    dure_witness_close(&witness);
    fixture_free(&f);
}

/* A site that joined after the loss has verified more than the statement calls lost. */
static void test_witness_refuses_a_loss_from_before_its_time(void **state)
{
    (void)state;
    fixture f;
    dure_merkle_head kept;
    fixture_make(&f);
    fixture_begin(&f);
    uint64_t first = fixture_full_round(&f, 1, 0), second = fixture_full_round(&f, 2, 0);
    dure_witness *witness = open_witness(&f);
    assert_ok(show(witness, &f, second, NULL));
    assert_ok(dure_leaf_log_head(&kept, dure_journal_log(f.journal), first));
    fixture_epoch(&f, first, &kept.root, second - 1);
    assert_err(tell_epoch(witness, &f, f.root.public_), DURE_ERR_AUTH);
    assert_int_equal(dure_witness_head(witness).n, second);
    dure_witness_close(&witness);
    fixture_free(&f);
}

static void test_witness_refuses_a_loss_that_does_not_fit(void **state)
{
    (void)state;
    fixture f;
    dure_hash root = fixture_hash(1);
    fixture_make(&f);
    fixture_begin(&f);
    uint64_t n = fixture_full_round(&f, 1, 0);
    dure_witness *witness = open_witness(&f);
    fixture_epoch(&f, n, &root, n + 3);
    assert_err(tell_epoch(witness, &f, f.root.public_), DURE_ERR_AUTH); /* nothing seen yet */
    assert_ok(show(witness, &f, n, NULL));
    assert_err(tell_epoch(witness, &f, f.root.public_), DURE_ERR_AUTH); /* another root */
    fixture_epoch(&f, n + 1, &root, n + 3);
    assert_err(tell_epoch(witness, &f, f.root.public_), DURE_ERR_AUTH); /* beyond what it has */
    fixture_genesis(&f);
    f.event->index = 0;
    assert_err(tell_epoch(witness, &f, f.root.public_), DURE_ERR_PROTO);
    dure_witness_close(&witness);
    fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_witness_follows_a_growing_log),
        cmocka_unit_test(test_witness_refuses_a_rolled_back_checkpoint),
        cmocka_unit_test(test_witness_refuses_two_logs_of_one_size),
        cmocka_unit_test(test_witness_refuses_a_log_that_does_not_extend),
        cmocka_unit_test(test_witness_refuses_another_signer_and_malformed_notes),
        cmocka_unit_test(test_witness_signs_nothing_before_it_has_seen_something),
        cmocka_unit_test(test_witness_open_names_a_damaged_file),
        cmocka_unit_test(test_witness_accepts_a_loss_that_the_root_signed),
        cmocka_unit_test(test_witness_refuses_the_lost_history_again),
        cmocka_unit_test(test_witness_refuses_the_lost_history_in_another_note),
        cmocka_unit_test(test_witness_takes_what_was_kept_again),
        cmocka_unit_test(test_witness_accepts_a_loss_only_once),
        cmocka_unit_test(test_witness_refuses_a_loss_from_before_its_time),
        cmocka_unit_test(test_witness_refuses_a_loss_that_does_not_fit),
    };
    return cmocka_run_group_tests_name("ledger.witness", tests, NULL, NULL);
}
