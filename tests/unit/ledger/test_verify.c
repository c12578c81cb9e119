#include "fixture.h"
#include "ledger/verify.h"

#include <stdio.h>
#include <string.h>

/* Stands for federation/: the roster in the export is the byte 'R'. */
static dure_err check_roster(void *state, dure_span roster, const uint8_t root_public[32],
                             const dure_event_roster *version, dure_diag *diag)
{
    (void)state;
    (void)root_public;
    if (roster.n == 1 && roster.data[0] == 'R' && version->size >= 3) return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_AUTH, "the roster does not verify");
}

typedef struct verified {
    dure_buf bytes;
    dure_export *export_;
    dure_verify_report report;
    dure_diag diag;
    dure_err err;
} verified;

static void verify_bytes(verified *v, dure_span checkpoint)
{
    const dure_verify_options options = {.roster_check = check_roster, .checkpoint = checkpoint};
    memset(&v->diag, 0, sizeof v->diag);
    v->report = (dure_verify_report){0};
    v->err = dure_export_parse(&v->export_, dure_buf_span(&v->bytes), &v->diag);
    if (!v->err) v->err = dure_verify_export(&v->report, v->export_, &options, &v->diag);
}

static void done(verified *v)
{
    dure_verify_report_fini(&v->report);
    dure_export_free(&v->export_);
}

static void export_it(verified *v, const fixture *f)
{
    memset(v, 0, sizeof *v);
    dure_buf_init(&v->bytes, 1 << 20);
    assert_ok(dure_export_put(&v->bytes, f->journal, dure_span_of_text("R"), NULL));
}

/* Three rounds, all cosigned by everybody. */
static void make_ledger(fixture *f, verified *v)
{
    fixture_make(f);
    fixture_begin(f);
    for (uint64_t round = 1; round <= 3; round++)
        (void)fixture_full_round(f, round, 3);
    export_it(v, f);
}

static void finish(fixture *f, verified *v)
{
    dure_buf_fini(&v->bytes);
    fixture_free(f);
}

static void test_verify_accepts_an_honest_ledger(void **state)
{
    (void)state;
    fixture f;
    verified v;
    make_ledger(&f, &v);
    verify_bytes(&v, (dure_span){0});
    if (v.err) print_error("%s\n", v.diag.text);
    assert_ok(v.err);
    assert_int_equal(v.report.n_leaves, 8);
    assert_int_equal(v.report.n_checkpoints, 3);
    assert_int_equal(v.report.shown_n, 8);
    assert_int_equal(v.report.shown_time, 1772000101); /* c = 1 */
    assert_int_equal(v.report.totals.closed, 3);
    assert_int_equal(v.report.n_accounts, 3);
    assert_int_equal(v.report.accounts[0].steps, 30);
    assert_true(v.report.accounts[0].epsilon > 0);
    done(&v);
    finish(&f, &v);
}

/* A site's clock is nobody's concern but its own: c of them may be anywhere. */
static void test_verify_lets_no_liar_set_the_time_of_what_was_shown(void **state)
{
    (void)state;
    fixture f;
    verified v;
    dure_cosignature cosignature;
    dure_checkpoint checkpoint = {.head.n = 0};
    fixture_make(&f);
    fixture_begin(&f);
    const uint64_t n = fixture_full_round(&f, 1, 2); /* at 1772000100 and a second later */
    const dure_site_key liar = fixture_site(&f, 2);
    memcpy(checkpoint.origin, f.origin, sizeof checkpoint.origin);
    assert_ok(dure_leaf_log_head(&checkpoint.head, dure_journal_log(f.journal), n));
    assert_ok(dure_cosign(&cosignature, &checkpoint, 4102444800, &f.sites[2]));
    assert_ok(dure_journal_cosign(f.journal, n, &liar, &cosignature, NULL));
    export_it(&v, &f);
    verify_bytes(&v, (dure_span){0});
    assert_ok(v.err);
    assert_int_equal(v.report.shown_n, n);
    assert_int_equal(v.report.shown_time, 1772000101);
    done(&v);
    finish(&f, &v);
}

/* The position in the file at which leaf i begins. */
static size_t leaf_at(const verified *v, size_t i)
{
    dure_export *export_ = NULL;
    assert_ok(dure_export_parse(&export_, dure_buf_span(&v->bytes), NULL));
    size_t at = (size_t)(export_->leaves[i].bytes.data - v->bytes.data);
    dure_export_free(&export_);
    return at;
}

static void assert_names(verified *v, uint64_t first, uint64_t last, const char *words)
{
    verify_bytes(v, (dure_span){0});
    assert_int_not_equal(v->err, DURE_OK);
    if (!strstr(v->diag.text, words)) print_error("%s\n", v->diag.text);
    assert_non_null(strstr(v->diag.text, words));
    assert_true(v->report.entry_known);
    assert_int_equal(v->report.bad_first, first);
    assert_int_equal(v->report.bad_last, last);
    done(v);
}

static void test_verify_names_the_entry_of_every_changed_leaf_byte(void **state)
{
    (void)state;
    fixture f;
    verified v;
    char words[32];
    make_ledger(&f, &v);
    for (size_t i = 0; i < 8; i++) {
        size_t at = leaf_at(&v, i);
        for (size_t k = 0; k < 120; k += 17) {
            v.bytes.data[at + k] ^= 1;
            (void)snprintf(words, sizeof words, "entry %zu was changed", i);
            assert_names(&v, i, i, words);
            v.bytes.data[at + k] ^= 1;
        }
    }
    finish(&f, &v);
}

/* Whatever byte of the file is changed, verification fails. */
static void test_verify_refuses_every_changed_byte(void **state)
{
    (void)state;
    fixture f;
    verified v;
    fixture_make(&f);
    fixture_begin(&f);
    (void)fixture_full_round(&f, 1, 3);
    export_it(&v, &f);
    for (size_t i = 0; i < v.bytes.n; i++) {
        v.bytes.data[i] ^= 1;
        verify_bytes(&v, (dure_span){0});
        /* Cosignatures beyond need do not exist here: three of three count. */
        bool refused = v.err || v.report.shown_n < 4;
        if (!refused) print_error("byte %zu\n", i);
        assert_true(refused);
        if (v.err) assert_true(v.diag.text[0] != 0);
        done(&v);
        v.bytes.data[i] ^= 1;
    }
    finish(&f, &v);
}

/* Rewrites leaf i with its hash, as somebody who controls the whole file can. */
static void forge_leaf(verified *v, size_t i, size_t offset)
{
    dure_export *export_ = NULL;
    dure_hash hash;
    assert_ok(dure_export_parse(&export_, dure_buf_span(&v->bytes), NULL));
    dure_span leaf = export_->leaves[i].bytes;
    size_t at = (size_t)(leaf.data - v->bytes.data);
    v->bytes.data[at + offset] ^= 1;
    assert_ok(dure_merkle_leaf(&hash, leaf));
    memcpy(v->bytes.data + at + leaf.n, hash.b, 32);
    dure_export_free(&export_);
}

static void test_verify_names_where_a_forged_leaf_can_be(void **state)
{
    (void)state;
    fixture f;
    verified v;
    make_ledger(&f, &v);
    forge_leaf(&v, 5, 60); /* between the checkpoints of size 4 and 6 */
    assert_names(&v, 4, 5, "entries 4 to 5 was replaced");
    finish(&f, &v);
}

static void test_verify_names_a_forged_leaf_after_the_last_checkpoint(void **state)
{
    (void)state;
    fixture f;
    verified v;
    fixture_make(&f);
    fixture_begin(&f);
    (void)fixture_full_round(&f, 1, 3);
    fixture_round(&f, DURE_EVENT_OPENED, 2);
    fixture_append(&f);
    export_it(&v, &f);
    /* No signature covers it, but byte 19 is of the number that the leaf says it has. */
    forge_leaf(&v, 4, 19);
    assert_names(&v, 4, 4, "entry 4");
    finish(&f, &v);
}

/* An export without its last two leaves, the checkpoints as they were. */
static void test_verify_names_what_a_truncated_log_lacks(void **state)
{
    (void)state;
    fixture f;
    verified v, cut;
    make_ledger(&f, &v);
    dure_export *export_ = NULL;
    assert_ok(dure_export_parse(&export_, dure_buf_span(&v.bytes), NULL));
    memset(&cut, 0, sizeof cut);
    dure_buf_init(&cut.bytes, 1 << 20);
    dure_put_raw(&cut.bytes, "dure-ledger-export-1\n", 21);
    dure_put_u64(&cut.bytes, 6);
    for (size_t i = 0; i < 6; i++) {
        dure_put_bytes(&cut.bytes, export_->leaves[i].bytes.data, export_->leaves[i].bytes.n);
        dure_put_raw(&cut.bytes, export_->leaves[i].hash.b, 32);
    }
    dure_put_u64(&cut.bytes, 3);
    for (size_t i = 0; i < 3; i++)
        dure_put_bytes(&cut.bytes, export_->notes[i].data, export_->notes[i].n);
    dure_put_bytes(&cut.bytes, "R", 1);
    assert_names(&cut, 6, 7, "entries 6 to 7");
    dure_buf_fini(&cut.bytes);
    dure_export_free(&export_);
    finish(&f, &v);
}

static void test_verify_names_where_the_file_was_cut(void **state)
{
    (void)state;
    fixture f;
    verified v;
    make_ledger(&f, &v);
    size_t whole = v.bytes.n;
    v.bytes.n = leaf_at(&v, 5) + 10;
    verify_bytes(&v, (dure_span){0});
    assert_int_equal(v.err, DURE_ERR_FORMAT);
    assert_non_null(strstr(v.diag.text, "entry 5 of 8"));
    done(&v);
    for (size_t n = 0; n < whole; n += 13) {
        v.bytes.n = n;
        verify_bytes(&v, (dure_span){0});
        assert_int_equal(v.err, DURE_ERR_FORMAT);
        done(&v);
    }
    v.bytes.n = whole;
    finish(&f, &v);
}

/* Two leaves swapped with their hashes, under checkpoints that a coordinator signed over them:
 * each says which number it has. */
static void test_verify_names_reordered_leaves(void **state)
{
    (void)state;
    fixture f;
    verified v, swapped;
    fixture_make(&f);
    fixture_begin(&f);
    (void)fixture_full_round(&f, 1, 0);
    export_it(&v, &f);
    dure_export *export_ = NULL;
    dure_merkle_frontier tree = {0};
    dure_checkpoint checkpoint = {.head = {.n = 4}};
    dure_buf note;
    static const size_t order[] = {0, 1, 3, 2};
    assert_ok(dure_export_parse(&export_, dure_buf_span(&v.bytes), NULL));
    memset(&swapped, 0, sizeof swapped);
    dure_buf_init(&swapped.bytes, 1 << 20);
    dure_buf_init(&note, DURE_NOTE_MAX);
    dure_put_raw(&swapped.bytes, "dure-ledger-export-1\n", 21);
    dure_put_u64(&swapped.bytes, 4);
    for (size_t i = 0; i < 4; i++) {
        const dure_export_leaf *leaf = &export_->leaves[order[i]];
        dure_put_bytes(&swapped.bytes, leaf->bytes.data, leaf->bytes.n);
        dure_put_raw(&swapped.bytes, leaf->hash.b, 32);
        assert_ok(dure_merkle_frontier_add(&tree, &leaf->hash));
    }
    assert_ok(dure_merkle_frontier_root(&checkpoint.head.root, &tree));
    memcpy(checkpoint.origin, f.origin, sizeof checkpoint.origin);
    assert_ok(dure_checkpoint_sign(&note, &checkpoint, &f.coordinator));
    dure_put_u64(&swapped.bytes, 1);
    dure_put_bytes(&swapped.bytes, note.data, note.n);
    dure_put_bytes(&swapped.bytes, "R", 1);
    assert_names(&swapped, 2, 2, "entry 2: it says that it is entry 3");
    dure_buf_fini(&note);
    dure_buf_fini(&swapped.bytes);
    dure_export_free(&export_);
    finish(&f, &v);
}

/* A round that cites a checkpoint which lacks one site's cosignature. */
static void test_verify_names_the_round_that_lacks_a_cosignature(void **state)
{
    (void)state;
    fixture f;
    verified v;
    fixture_make(&f);
    fixture_begin(&f);
    uint64_t n = fixture_full_round(&f, 1, 2); /* two of three */
    fixture_round(&f, DURE_EVENT_OPENED, 2);
    f.event->u.round.checkpoint_n = n;
    fixture_append(&f);
    export_it(&v, &f);
    assert_names(&v, 4, 4, "lacks the cosignatures");
    finish(&f, &v);
}

/* A round of the first `n` sites, which cites `cited`; the roster that it names has `size`. */
static void open_among(fixture *f, size_t n, uint64_t cited, uint64_t size)
{
    fixture_round(f, DURE_EVENT_OPENED, 2);
    dure_event_round *r = &f->event->u.round;
    r->checkpoint_n = cited;
    r->roster_size = size;
    r->roster_head = fixture_hash((uint8_t)size);
    r->n_members = (uint32_t)n;
    f->event->u.round.sum = (dure_event_sum){0}; /* its rule asks for three members */
    fixture_append(f);
}

/* Who counts are the sites in force when the round is opened, as its sites count them: they cannot
 * tell when others joined. */
static void test_verify_counts_with_the_roster_that_the_round_names(void **state)
{
    (void)state;
    fixture f;
    verified v;
    fixture_make(&f);
    fixture_begin(&f);
    uint64_t n = fixture_full_round(&f, 1, 2); /* two of three: not enough */
    fixture_roster(&f, 4);
    f.event->u.roster.n_sites = 2; /* the third was revoked: enough */
    fixture_append(&f);
    open_among(&f, 2, n, 4);
    export_it(&v, &f);
    verify_bytes(&v, (dure_span){0});
    if (v.err) fail_msg("%s", v.diag.text);
    done(&v);
    finish(&f, &v);
}

static void test_verify_counts_sites_that_joined_after_the_checkpoint(void **state)
{
    (void)state;
    fixture f;
    verified v;
    fixture_make(&f);
    fixture_genesis(&f);
    fixture_append(&f);
    fixture_roster(&f, 3);
    f.event->u.roster.n_sites = 2;
    fixture_append(&f);
    uint64_t n = fixture_checkpoint(&f, 2); /* both of two */
    fixture_roster(&f, 4);                  /* a third joined */
    fixture_append(&f);
    open_among(&f, 3, n, 4);
    export_it(&v, &f);
    assert_names(&v, 3, 3, "lacks the cosignatures");
    finish(&f, &v);
}

static void test_verify_shows_how_far_the_sites_have_seen(void **state)
{
    (void)state;
    fixture f;
    verified v;
    fixture_make(&f);
    fixture_begin(&f);
    uint64_t seen = fixture_full_round(&f, 1, 3);
    (void)fixture_full_round(&f, 2, 1);
    export_it(&v, &f);
    verify_bytes(&v, (dure_span){0});
    assert_ok(v.err);
    assert_int_equal(v.report.n_leaves, 6);
    assert_int_equal(v.report.shown_n, seen);
    done(&v);
    finish(&f, &v);
}

static void test_verify_takes_a_site_s_checkpoint(void **state)
{
    (void)state;
    fixture f;
    verified v;
    dure_buf note;
    make_ledger(&f, &v);
    fixture_note(&note, &f, 6);
    verify_bytes(&v, dure_buf_span(&note));
    assert_ok(v.err);
    assert_true(v.report.site_checkpoint);
    assert_int_equal(v.report.site_n, 6);
    done(&v);
    dure_buf_fini(&note);
    finish(&f, &v);
}

/* The coordinator exports an older state of its log than a site has cosigned. */
static void test_verify_refuses_a_rolled_back_log(void **state)
{
    (void)state;
    fixture f;
    verified v;
    dure_buf note;
    fixture_make(&f);
    fixture_begin(&f);
    (void)fixture_full_round(&f, 1, 3);
    export_it(&v, &f);
    uint64_t n = fixture_full_round(&f, 2, 3);
    fixture_note(&note, &f, n);
    verify_bytes(&v, dure_buf_span(&note));
    assert_int_equal(v.err, DURE_ERR_AUTH);
    assert_non_null(strstr(v.diag.text, "rolled back"));
    assert_int_equal(v.report.bad_first, 4);
    done(&v);
    dure_buf_fini(&note);
    finish(&f, &v);
}

static void test_verify_refuses_a_log_that_a_site_has_not_seen(void **state)
{
    (void)state;
    fixture f;
    verified v;
    dure_buf note;
    dure_checkpoint other = {.head = {.n = 4, .root = fixture_hash(0x77)}};
    make_ledger(&f, &v);
    memcpy(other.origin, f.origin, sizeof other.origin);
    dure_buf_init(&note, DURE_NOTE_MAX);
    assert_ok(dure_checkpoint_sign(&note, &other, &f.coordinator));
    verify_bytes(&v, dure_buf_span(&note));
    assert_int_equal(v.err, DURE_ERR_AUTH);
    assert_non_null(strstr(v.diag.text, "not the log that the site has seen"));
    done(&v);
    dure_buf_fini(&note);
    finish(&f, &v);
}

static void test_verify_refuses_another_root_and_roster(void **state)
{
    (void)state;
    fixture f;
    verified v;
    make_ledger(&f, &v);
    v.bytes.data[v.bytes.n - 1] = 'X';
    assert_names(&v, 1, 1, "entry 1: the roster does not verify");
    v.bytes.data[v.bytes.n - 1] = 'R';
    const dure_verify_options options = {.roster_check = check_roster,
                                         .root = f.coordinator.public_};
    assert_ok(dure_export_parse(&v.export_, dure_buf_span(&v.bytes), NULL));
    assert_err(dure_verify_export(&v.report, v.export_, &options, &v.diag), DURE_ERR_AUTH);
    done(&v);
    finish(&f, &v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verify_accepts_an_honest_ledger),
        cmocka_unit_test(test_verify_lets_no_liar_set_the_time_of_what_was_shown),
        cmocka_unit_test(test_verify_names_the_entry_of_every_changed_leaf_byte),
        cmocka_unit_test(test_verify_refuses_every_changed_byte),
        cmocka_unit_test(test_verify_names_where_a_forged_leaf_can_be),
        cmocka_unit_test(test_verify_names_a_forged_leaf_after_the_last_checkpoint),
        cmocka_unit_test(test_verify_names_what_a_truncated_log_lacks),
        cmocka_unit_test(test_verify_names_where_the_file_was_cut),
        cmocka_unit_test(test_verify_names_reordered_leaves),
        cmocka_unit_test(test_verify_names_the_round_that_lacks_a_cosignature),
        cmocka_unit_test(test_verify_counts_with_the_roster_that_the_round_names),
        cmocka_unit_test(test_verify_counts_sites_that_joined_after_the_checkpoint),
        cmocka_unit_test(test_verify_shows_how_far_the_sites_have_seen),
        cmocka_unit_test(test_verify_takes_a_site_s_checkpoint),
        cmocka_unit_test(test_verify_refuses_a_rolled_back_log),
        cmocka_unit_test(test_verify_refuses_a_log_that_a_site_has_not_seen),
        cmocka_unit_test(test_verify_refuses_another_root_and_roster),
    };
    return cmocka_run_group_tests_name("ledger.verify", tests, NULL, NULL);
}
