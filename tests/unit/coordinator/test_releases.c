/* Promotions on their way into the log: each once, whatever is killed in between. */
#include "coordinator/releases.h"

#include "coordinator/coordinator_int.h"
#include "coordinator/folder.h"
#include "coordinator/store.h"
#include "support/check.h"
#include "support/temp_dir.h"
#include "unit/ledger/fixture.h"

#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

static struct {
    temp_dir dir;
    dure_registry *registry;
    dure_journal *journal;
    dure_sign_key root, key;
    dure_release_certificate certificate;
} d;

static void append_genesis(void)
{
    dure_event *event = calloc(1, sizeof *event);
    event->kind = DURE_EVENT_GENESIS;
    strcpy(event->u.genesis.federation, "valley");
    memcpy(event->u.genesis.root_public, d.root.public_, 32);
    memcpy(event->u.genesis.coordinator_sign, d.key.public_, 32);
    event->u.genesis.collusion = 1;
    assert_ok(dure_journal_append(NULL, d.journal, event, NULL));
    free(event);
}

static void add(const char *text, uint64_t round)
{
    uint64_t number = 0;
    const dure_candidate candidate = {.round = round, .created_s = 110};
    const dure_promotion promotion = {.key = &d.key,
                                      .certificate = &d.certificate,
                                      .root_public = d.root.public_,
                                      .force_reason = "two\nlines",
                                      .now_s = 120};
    assert_ok(dure_registry_add(&number, d.registry, &candidate, dure_span_of_text(text), NULL));
    assert_ok(dure_registry_promote(d.registry, number, &promotion, NULL));
}

/* The log closes the round that made it. */
static void log_round(const char *text, uint64_t round)
{
    fixture f;
    fixture_make(&f);
    fixture_round(&f, DURE_EVENT_CLOSED, round);
    assert_ok(dure_hash_bytes(&f.event->u.round.adapter_out, dure_span_of_text(text)));
    assert_ok(dure_journal_append(NULL, d.journal, f.event, NULL));
    fixture_free(&f);
}

static int setup(void **state)
{
    (void)state;
    const uint8_t a[32] = {7}, b[32] = {8};
    memset(&d, 0, sizeof d);
    temp_dir_make(&d.dir);
    assert_ok(dure_sign_from_secret(&d.root, a));
    assert_ok(dure_sign_from_secret(&d.key, b));
    assert_ok(dure_release_certify(&d.certificate, &d.root, d.key.public_, 100, 1000));
    assert_ok(dure_registry_open(&d.registry, d.dir.path, NULL));
    assert_ok(
        dure_journal_open(&d.journal, temp_dir_file(&d.dir, "ledger"), DURE_LEAF_LOG_WRITE, NULL));
    append_genesis();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    dure_journal_close(&d.journal);
    dure_registry_close(&d.registry);
    temp_dir_remove(&d.dir);
    return 0;
}

static size_t log_all(void)
{
    size_t n = 0;
    dure_diag diag = {{0}};
    if (dure_releases_log(&n, d.registry, d.journal, 5, &diag)) fail_msg("%s", diag.text);
    return n;
}

static uint64_t entries(void)
{
    return dure_leaf_log_size(dure_journal_log(d.journal));
}

static void test_releases_are_logged_in_order_and_once(void **state)
{
    (void)state;
    dure_buf leaf;
    dure_event *event = calloc(1, sizeof *event);
    uint64_t number = 0;
    log_round("one", 1);
    log_round("two", 2);
    add("one", 1);
    add("two", 2);
    assert_ok(dure_registry_rollback(&number, d.registry, 130, NULL));
    assert_int_equal(log_all(), 3);
    assert_int_equal(log_all(), 0);
    assert_int_equal(entries(), 6);
    assert_ok(dure_leaf_log_read(&leaf, dure_journal_log(d.journal), 5, NULL));
    assert_ok(dure_event_decode(event, dure_buf_span(&leaf), NULL));
    assert_int_equal(event->kind, DURE_EVENT_ROLLED_BACK);
    assert_int_equal(event->time_s, 130);
    assert_int_equal(event->u.release.run_id, 5);
    assert_int_equal(event->u.release.round, 1);
    assert_string_equal(event->u.release.reason, "two lines");
    assert_memory_equal(event->u.release.release_public, d.key.public_, 32);
    dure_buf_fini(&leaf);
    free(event);
}

/* Killed after the entry was made and before the registry was told. */
static void test_releases_are_not_logged_again_after_a_crash(void **state)
{
    (void)state;
    sqlite3 *db = NULL;
    log_round("one", 1);
    add("one", 1);
    assert_int_equal(log_all(), 1);
    log_round("two", 2);
    add("two", 2);
    assert_int_equal(log_all(), 1);
    assert_int_equal(sqlite3_open(temp_dir_file(&d.dir, "state.db"), &db), SQLITE_OK);
    assert_int_equal(
        sqlite3_exec(db, "UPDATE registry_move SET ledger = NULL WHERE seq = 2", NULL, NULL, NULL),
        SQLITE_OK);
    sqlite3_close(db);
    assert_int_equal(log_all(), 1);
    assert_int_equal(entries(), 5);
}

/* The log could not say which round made it. */
static void test_releases_of_no_round_get_no_entry(void **state)
{
    (void)state;
    add("brought along", 0);
    assert_int_equal(log_all(), 1);
    assert_int_equal(log_all(), 0);
    assert_int_equal(entries(), 1);
}

/* The end of the round was lost, or another adapter is what the log says of a round of its number:
 * nobody could verify a log that puts this one in force. */
static void test_releases_of_a_lost_round_get_no_entry(void **state)
{
    (void)state;
    log_round("one", 1);
    log_round("another", 2);
    add("two", 2);
    add("three", 3);
    assert_int_equal(log_all(), 2);
    assert_int_equal(log_all(), 0);
    assert_int_equal(entries(), 3);
    add("one", 1); /* those that it has still get theirs */
    assert_int_equal(log_all(), 1);
    assert_int_equal(entries(), 4);
}

/* ---- beside a round ---- */

/* `status` of round 4, as a coordinator that was stopped left it. */
static void stop_in_round(dure_stored_status status)
{
    dure_store *store = NULL;
    const dure_hash first = {{0xaa}};
    const dure_round_row row = {
        .round = 4, .config_hash = {{4}}, .adapter_in = first, .n_members = 3, .opened_s = 100};
    assert_ok(dure_store_open(&store, d.dir.path, NULL));
    assert_ok(dure_store_begin(store, 5, &first, NULL));
    assert_ok(dure_store_open_round(store, &row, dure_span_of_text("c"), NULL));
    if (status >= DURE_STORED_SUMMED) assert_ok(dure_store_sum_round(store, &row, NULL));
    dure_store_close(&store);
}

static void finish_round(void)
{
    dure_store *store = NULL;
    dure_round_row row;
    assert_ok(dure_store_open(&store, d.dir.path, NULL));
    assert_ok(dure_store_unfinished(&row, store, NULL));
    row.ledger_index = 1;
    assert_ok(dure_store_finish_round(store, &row, dure_span_of_text("result"), NULL));
    dure_store_close(&store);
}

/* As 'dure adapter promote' does where no coordinator runs. */
static bool command_waits(void)
{
    bool waits = false;
    dure_diag diag = {{0}};
    dure_journal_close(&d.journal);
    if (dure_releases_log_folder(&waits, d.dir.path, d.registry, &diag)) fail_msg("%s", diag.text);
    assert_ok(
        dure_journal_open(&d.journal, temp_dir_file(&d.dir, "ledger"), DURE_LEAF_LOG_WRITE, NULL));
    return waits;
}

/* The next entry is the one that closes the round: its number was given to the version already, and
 * whoever follows the log refuses a promotion of a round that it has not seen the end of. */
static void test_releases_wait_for_a_round_that_has_its_sum(void **state)
{
    (void)state;
    stop_in_round(DURE_STORED_SUMMED);
    add("four", 4);
    assert_true(command_waits());
    assert_int_equal(entries(), 1);
    log_round("four", 4);
    finish_round();
    assert_false(command_waits());
    assert_int_equal(entries(), 3);
}

static void test_releases_do_not_wait_for_a_round_that_is_open(void **state)
{
    (void)state;
    stop_in_round(DURE_STORED_OPEN);
    log_round("one", 1);
    add("one", 1);
    assert_false(command_waits());
    assert_int_equal(entries(), 3);
}

/* Where the leaf that closes the round of this configuration is, or will be. */
static uint64_t closed_at(bool *there, const fixture *f, const dure_hash *config_hash)
{
    dure_coordinator *c = calloc(1, sizeof *c);
    dure_buf leaf;
    uint64_t index = 0;
    assert_non_null(c);
    c->journal = f->journal;
    c->now.row.config_hash = *config_hash;
    assert_ok(dure_coordinator_closed_leaf(&index, &leaf, c, NULL));
    *there = leaf.n > 0;
    dure_buf_fini(&leaf);
    free(c);
    return index;
}

/* Killed after the entry that closes a round and before the store was told; then came a promotion.
 * The round is not closed a second time. */
static void test_releases_do_not_hide_how_a_round_ended(void **state)
{
    (void)state;
    fixture f;
    bool there = false;
    const dure_hash other = fixture_hash(0x99);
    fixture_make(&f);
    fixture_begin(&f);
    fixture_round(&f, DURE_EVENT_OPENED, 1);
    const dure_hash h_c = f.event->u.round.h_c;
    fixture_append(&f);
    const uint64_t next = dure_leaf_log_size(dure_journal_log(f.journal));
    assert_int_equal(closed_at(&there, &f, &h_c), next);
    assert_false(there);
    fixture_round(&f, DURE_EVENT_CLOSED, 1);
    fixture_append(&f);
    fixture_release(&f, DURE_EVENT_PROMOTED, 1);
    fixture_append(&f);
    assert_int_equal(closed_at(&there, &f, &h_c), next);
    assert_true(there);
    assert_int_equal(closed_at(&there, &f, &other), next + 2);
    assert_false(there);
    fixture_free(&f);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_releases_are_logged_in_order_and_once),
        TEST(test_releases_are_not_logged_again_after_a_crash),
        TEST(test_releases_of_no_round_get_no_entry),
        TEST(test_releases_of_a_lost_round_get_no_entry),
        TEST(test_releases_wait_for_a_round_that_has_its_sum),
        TEST(test_releases_do_not_wait_for_a_round_that_is_open),
        TEST(test_releases_do_not_hide_how_a_round_ended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
