#include "coordinator/store.h"
#include "support/check.h"
#include "support/temp_dir.h"

#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

typedef struct shop {
    temp_dir dir;
    dure_store *store;
    dure_hash adapter;
} shop;

static void open_shop(shop *s)
{
    temp_dir_make(&s->dir);
    memset(s->adapter.b, 0xaa, sizeof s->adapter.b);
    assert_ok(dure_store_open(&s->store, s->dir.path, NULL));
    assert_ok(dure_store_begin(s->store, 77, &s->adapter, NULL));
}

static void close_shop(shop *s)
{
    dure_store_close(&s->store);
    temp_dir_remove(&s->dir);
}

static void reopen(shop *s)
{
    dure_store_close(&s->store);
    assert_ok(dure_store_open(&s->store, s->dir.path, NULL));
}

static dure_round_row row_of(const shop *s, uint64_t round)
{
    dure_round_row row = {
        .round = round, .adapter_in = s->adapter, .n_members = 3, .opened_s = 1000};
    memset(row.config_hash.b, (int)round, sizeof row.config_hash.b);
    memset(row.config_signature, 0x51, sizeof row.config_signature);
    return row;
}

static void open_round(shop *s, uint64_t round)
{
    const dure_round_row row = row_of(s, round);
    assert_ok(dure_store_open_round(s->store, &row, dure_span_of_text("the configuration"), NULL));
}

static void test_store_keeps_an_open_round_and_its_records(void **state)
{
    (void)state;
    shop s;
    open_shop(&s);
    open_round(&s, 4);
    assert_ok(dure_store_put_record(s.store, 4, 1, dure_span_of_text("A1"), NULL));
    assert_ok(dure_store_put_record(s.store, 4, 2, dure_span_of_text("A2"), NULL));
    reopen(&s);
    dure_round_row row;
    dure_buf bytes;
    assert_ok(dure_store_unfinished(&row, s.store, NULL));
    assert_int_equal(row.round, 4);
    assert_int_equal(row.status, DURE_STORED_OPEN);
    assert_int_equal(row.config_signature[0], 0x51);
    assert_ok(dure_store_config(&bytes, s.store, 4, NULL));
    assert_memory_equal(bytes.data, "the configuration", bytes.n);
    dure_buf_fini(&bytes);
    assert_ok(dure_store_record(&bytes, s.store, 4, 2, NULL));
    assert_memory_equal(bytes.data, "A2", 2);
    dure_buf_fini(&bytes);
    assert_err(dure_store_record(&bytes, s.store, 4, 3, NULL), DURE_ERR_NOT_FOUND);
    close_shop(&s);
}

static void test_store_never_changes_a_record(void **state)
{
    (void)state;
    shop s;
    open_shop(&s);
    open_round(&s, 1);
    assert_ok(dure_store_put_record(s.store, 1, 3, dure_span_of_text("A3"), NULL));
    assert_ok(dure_store_put_record(s.store, 1, 3, dure_span_of_text("A3"), NULL));
    assert_err(dure_store_put_record(s.store, 1, 3, dure_span_of_text("B3"), NULL), DURE_ERR_STATE);
    close_shop(&s);
}

static void test_store_uses_a_round_number_once(void **state)
{
    (void)state;
    shop s;
    open_shop(&s);
    open_round(&s, 1);
    assert_ok(dure_store_fail_round(s.store, 1, "too few", 2000, NULL));
    const dure_round_row row = row_of(&s, 1);
    assert_err(dure_store_open_round(s.store, &row, dure_span_of_text("x"), NULL), DURE_ERR_EXISTS);
    close_shop(&s);
}

static void finish(shop *s, uint64_t round, const char *result)
{
    dure_round_row row = row_of(s, round);
    memset(row.t3.b, 0x33, sizeof row.t3.b);
    memset(row.sum.b, 0x44, sizeof row.sum.b);
    memset(row.adapter_out.b, 0xbb, sizeof row.adapter_out.b);
    row.n_survivors = 3;
    row.ledger_index = 9;
    row.closed_s = 3000;
    assert_ok(dure_store_sum_round(s->store, &row, NULL));
    assert_ok(dure_store_finish_round(s->store, &row, dure_span_of_text(result), NULL));
}

static void test_store_finishing_moves_the_adapter_in_one_step(void **state)
{
    (void)state;
    shop s;
    dure_store_facts facts;
    dure_buf result;
    open_shop(&s);
    open_round(&s, 6);
    finish(&s, 6, "the result");
    reopen(&s);
    assert_ok(dure_store_facts_get(&facts, s.store, NULL));
    assert_int_equal(facts.run_id, 77);
    assert_int_equal(facts.last_round, 6);
    assert_int_equal(facts.n_done, 1);
    assert_int_equal(facts.adapter.b[0], 0xbb);
    assert_int_equal(facts.previous_t3.b[0], 0x33);
    assert_ok(dure_store_result(&result, s.store, 6, NULL));
    assert_memory_equal(result.data, "the result", result.n);
    dure_buf_fini(&result);
    dure_round_row row;
    assert_err(dure_store_unfinished(&row, s.store, NULL), DURE_ERR_NOT_FOUND);
    close_shop(&s);
}

static void test_store_refuses_steps_out_of_order(void **state)
{
    (void)state;
    shop s;
    open_shop(&s);
    open_round(&s, 1);
    const dure_round_row row = row_of(&s, 1);
    assert_err(dure_store_finish_round(s.store, &row, dure_span_of_text("r"), NULL),
               DURE_ERR_STATE);
    assert_ok(dure_store_sum_round(s.store, &row, NULL));
    assert_err(dure_store_sum_round(s.store, &row, NULL), DURE_ERR_STATE);
    assert_ok(dure_store_fail_round(s.store, 1, "no honest sum", 2000, NULL));
    assert_err(dure_store_fail_round(s.store, 1, "again", 2000, NULL), DURE_ERR_STATE);
    /* A refused step leaves the adapter where it was. */
    dure_store_facts facts;
    assert_ok(dure_store_facts_get(&facts, s.store, NULL));
    assert_int_equal(facts.adapter.b[0], 0xaa);
    close_shop(&s);
}

static void test_store_finds_rounds_by_configuration_and_lists_them(void **state)
{
    (void)state;
    shop s;
    dure_round_row row, *all;
    size_t n;
    dure_hash hash;
    open_shop(&s);
    open_round(&s, 2);
    assert_ok(dure_store_fail_round(s.store, 2, "too few sites", 2000, NULL));
    open_round(&s, 3);
    memset(hash.b, 2, sizeof hash.b);
    assert_ok(dure_store_find_round(&row, s.store, &hash, NULL));
    assert_int_equal(row.status, DURE_STORED_FAILED);
    assert_string_equal(row.reason, "too few sites");
    memset(hash.b, 9, sizeof hash.b);
    assert_err(dure_store_find_round(&row, s.store, &hash, NULL), DURE_ERR_NOT_FOUND);
    assert_ok(dure_store_rounds(&all, &n, s.store, NULL));
    assert_int_equal(n, 2);
    assert_int_equal(all[1].round, 3);
    free(all);
    close_shop(&s);
}

static void test_store_keeps_what_each_site_showed_of_its_ledger(void **state)
{
    (void)state;
    shop s;
    dure_site_chain chain = {.length = 5, .head = {{9}}}, back;
    const uint8_t one[32] = {1}, two[32] = {2};
    open_shop(&s);
    assert_ok(dure_store_chain(&back, s.store, one, NULL));
    assert_int_equal(back.length, 0);
    assert_ok(dure_store_put_chain(s.store, one, &chain, NULL));
    chain.length = 8;
    assert_ok(dure_store_put_chain(s.store, one, &chain, NULL));
    reopen(&s);
    assert_ok(dure_store_chain(&back, s.store, one, NULL));
    assert_int_equal(back.length, 8);
    assert_int_equal(back.head.b[0], 9);
    assert_ok(dure_store_chain(&back, s.store, two, NULL));
    assert_int_equal(back.length, 0);
    close_shop(&s);
}

/* A round that the log tells of and this file lacks, and one that it has otherwise. */
static void test_store_follows_a_log_that_was_got_back(void **state)
{
    (void)state;
    shop s;
    dure_round_row row;
    dure_store_facts facts;
    dure_buf result;
    const dure_hash first = {{0x55}};
    open_shop(&s);
    open_round(&s, 4);
    assert_ok(dure_store_put_recovering(s.store, 9, NULL));
    reopen(&s);
    assert_ok(dure_store_facts_get(&facts, s.store, NULL));
    assert_int_equal(facts.recovering, 9);
    dure_round_row rows[2] = {row_of(&s, 4), row_of(&s, 6)};
    rows[0].status = DURE_STORED_FAILED;
    rows[1].status = DURE_STORED_DONE;
    rows[1].ledger_index = 7;
    memset(rows[1].config_hash.b, 0x66, 32);
    memset(rows[1].adapter_out.b, 0x77, 32);
    memset(rows[1].sum.b, 0x88, 32);
    for (int again = 0; again < 2; again++) {
        assert_ok(dure_store_adopt(s.store, rows, 2, dure_span_of_text("frame"), &first, NULL));
        reopen(&s);
        assert_ok(dure_store_facts_get(&facts, s.store, NULL));
        assert_int_equal(facts.recovering, 0);
        assert_int_equal(facts.last_round, 6);
        assert_int_equal(facts.n_done, 1);
        assert_int_equal(facts.done_index, 7);
        assert_int_equal(facts.adapter.b[0], 0x77);
        assert_int_equal(facts.done_sum.b[0], 0x88);
        assert_err(dure_store_unfinished(&row, s.store, NULL), DURE_ERR_NOT_FOUND);
    }
    assert_ok(dure_store_result(&result, s.store, 6, NULL));
    assert_memory_equal(result.data, "frame", 5);
    dure_buf_fini(&result);
    close_shop(&s);
}

/* The root took back the log of a round that was done: it did not end, and its adapter is none. */
static void test_store_forgets_a_round_that_the_log_lost(void **state)
{
    (void)state;
    shop s;
    dure_round_row row;
    dure_store_facts facts;
    const dure_hash first = {{0x55}};
    open_shop(&s);
    dure_round_row done = row_of(&s, 6);
    done.status = DURE_STORED_DONE;
    assert_ok(dure_store_adopt(s.store, &done, 1, dure_span_of_text("frame"), &first, NULL));
    assert_ok(dure_store_adopt(s.store, NULL, 0, dure_span_of(NULL, 0), &first, NULL));
    assert_ok(dure_store_facts_get(&facts, s.store, NULL));
    assert_int_equal(facts.n_done, 0);
    assert_int_equal(facts.done_round, 0);
    assert_int_equal(facts.last_round, 6); /* its number is not used again */
    assert_memory_equal(facts.adapter.b, first.b, 32);
    assert_int_equal(facts.previous_t3.b[0], 0);
    assert_ok(dure_store_find_round(&row, s.store, &done.config_hash, NULL));
    assert_int_equal(row.status, DURE_STORED_FAILED);
    close_shop(&s);
}

static void test_store_begins_once(void **state)
{
    (void)state;
    shop s;
    open_shop(&s);
    assert_err(dure_store_begin(s.store, 78, &s.adapter, NULL), DURE_ERR_EXISTS);
    close_shop(&s);
}

static void test_store_refuses_a_newer_schema(void **state)
{
    (void)state;
    shop s;
    sqlite3 *db;
    dure_store *store;
    dure_diag diag = {{0}};
    open_shop(&s);
    assert_int_equal(sqlite3_open(temp_dir_file(&s.dir, "state.db"), &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "UPDATE coordinator_meta SET value = 9 WHERE key = 'schema'",
                                  NULL, NULL, NULL),
                     SQLITE_OK);
    sqlite3_close(db);
    assert_err(dure_store_open(&store, s.dir.path, &diag), DURE_ERR_UNSUPPORTED);
    assert_null(store);
    assert_non_null(strstr(diag.text, "newer"));
    close_shop(&s);
}

static void test_store_reading_does_not_write(void **state)
{
    (void)state;
    shop s;
    dure_store *reader;
    open_shop(&s);
    assert_ok(dure_store_open_read(&reader, s.dir.path, NULL));
    const dure_round_row row = row_of(&s, 1);
    assert_int_not_equal(dure_store_open_round(reader, &row, dure_span_of_text("x"), NULL),
                         DURE_OK);
    dure_store_close(&reader);
    close_shop(&s);
    temp_dir empty;
    temp_dir_make(&empty);
    assert_err(dure_store_open_read(&reader, empty.path, NULL), DURE_ERR_NOT_FOUND);
    temp_dir_remove(&empty);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_store_keeps_an_open_round_and_its_records),
        cmocka_unit_test(test_store_never_changes_a_record),
        cmocka_unit_test(test_store_uses_a_round_number_once),
        cmocka_unit_test(test_store_finishing_moves_the_adapter_in_one_step),
        cmocka_unit_test(test_store_refuses_steps_out_of_order),
        cmocka_unit_test(test_store_finds_rounds_by_configuration_and_lists_them),
        cmocka_unit_test(test_store_keeps_what_each_site_showed_of_its_ledger),
        cmocka_unit_test(test_store_follows_a_log_that_was_got_back),
        cmocka_unit_test(test_store_forgets_a_round_that_the_log_lost),
        cmocka_unit_test(test_store_begins_once),
        cmocka_unit_test(test_store_refuses_a_newer_schema),
        cmocka_unit_test(test_store_reading_does_not_write),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
