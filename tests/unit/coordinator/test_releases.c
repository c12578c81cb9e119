/* Promotions on their way into the log: each once, whatever is killed in between. */
#include "coordinator/releases.h"
#include "support/check.h"
#include "support/temp_dir.h"

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
    add("one", 1);
    add("two", 2);
    assert_ok(dure_registry_rollback(&number, d.registry, 130, NULL));
    assert_int_equal(log_all(), 3);
    assert_int_equal(log_all(), 0);
    assert_int_equal(entries(), 4);
    assert_ok(dure_leaf_log_read(&leaf, dure_journal_log(d.journal), 3, NULL));
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
    add("one", 1);
    assert_int_equal(log_all(), 1);
    add("two", 2);
    assert_int_equal(log_all(), 1);
    assert_int_equal(sqlite3_open(temp_dir_file(&d.dir, "state.db"), &db), SQLITE_OK);
    assert_int_equal(
        sqlite3_exec(db, "UPDATE registry_move SET ledger = NULL WHERE seq = 2", NULL, NULL, NULL),
        SQLITE_OK);
    sqlite3_close(db);
    assert_int_equal(log_all(), 1);
    assert_int_equal(entries(), 3);
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

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_releases_are_logged_in_order_and_once),
        TEST(test_releases_are_not_logged_again_after_a_crash),
        TEST(test_releases_of_no_round_get_no_entry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
