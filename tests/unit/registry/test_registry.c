#include "fixture.h"

#include "registry/blob.h"

#include <stdlib.h>

static void test_registry_keeps_a_version_whole(void **state)
{
    fixture *f = *state;
    uint64_t first = fixture_add(f, "one", 0, 1), second = fixture_add(f, "two", first, 2);
    dure_registry_close(&f->registry);
    assert_ok(dure_registry_open(&f->registry, f->dir.path, NULL));
    dure_version v;
    assert_ok(dure_registry_get(&v, f->registry, second, NULL));
    assert_int_equal(v.parent, first);
    assert_int_equal(v.round, 2);
    assert_int_equal(v.ledger_index, 1);
    assert_int_equal(v.state, DURE_VERSION_CANDIDATE);
    assert_int_equal(v.n_bytes, 3);
    assert_int_equal(v.created_s, 110);
    assert_true(dure_hash_equal(&v.base, &fixture_base));
    assert_false(v.has_gate || v.is_signed || v.forced);
}

static void test_registry_add_can_be_repeated(void **state)
{
    fixture *f = *state;
    uint64_t first = fixture_add(f, "one", 0, 1);
    assert_int_equal(fixture_add(f, "one", 0, 1), first);
    assert_int_not_equal(fixture_add(f, "one", 0, 2), first);
}

static void test_registry_adds_what_is_stored_already(void **state)
{
    fixture *f = *state;
    dure_hash digest, missing = {{1}};
    uint64_t number, again;
    const dure_candidate candidate = {.round = 3, .base = fixture_base, .created_s = 7};
    const char *blobs = temp_dir_file(&f->dir, "blobs/sha256");
    assert_ok(dure_blob_put(&digest, blobs, dure_span_of_text("three"), NULL));
    assert_ok(dure_registry_add_stored(&number, f->registry, &candidate, &digest, NULL));
    assert_ok(dure_registry_add_stored(&again, f->registry, &candidate, &digest, NULL));
    assert_int_equal(number, again);
    assert_ok(dure_registry_add(&again, f->registry, &candidate, dure_span_of_text("three"), NULL));
    assert_int_equal(number, again);
    dure_version v = fixture_get(f, "latest");
    assert_int_equal(v.n_bytes, 5);
    assert_true(dure_hash_equal(&v.adapter, &digest));
    assert_err(dure_registry_add_stored(&again, f->registry, &candidate, &missing, NULL),
               DURE_ERR_NOT_FOUND);
    assert_int_equal(again, 0);
}

static void test_registry_does_not_add_a_damaged_file(void **state)
{
    fixture *f = *state;
    dure_hash digest;
    uint64_t number;
    const dure_candidate candidate = {.round = 3, .base = fixture_base};
    const char *blobs = temp_dir_file(&f->dir, "blobs/sha256");
    assert_ok(dure_blob_put(&digest, blobs, dure_span_of_text("three"), NULL));
    char *path = dure_blob_path(blobs, &digest);
    assert_ok(dure_file_write_atomic(path, dure_span_of_text("threw"), 0644, NULL));
    assert_err(dure_registry_add_stored(&number, f->registry, &candidate, &digest, NULL),
               DURE_ERR_AUTH);
    dure_version v;
    assert_err(dure_registry_find(&v, f->registry, "latest", NULL), DURE_ERR_NOT_FOUND);
    free(path);
}

static void test_registry_finds_by_every_name(void **state)
{
    fixture *f = *state;
    uint64_t first = fixture_add(f, "one", 0, 1), second = fixture_add(f, "two", first, 2);
    char digest[65];
    dure_version v = fixture_get(f, "1");
    assert_int_equal(v.number, first);
    dure_hex_encode(digest, v.adapter.b, 32);
    assert_int_equal(fixture_get(f, digest).number, first);
    digest[10] = '\0';
    assert_int_equal(fixture_get(f, digest).number, first);
    assert_int_equal(fixture_get(f, "v2").number, second);
    assert_int_equal(fixture_get(f, "latest").number, second);
}

static void test_registry_says_what_it_cannot_find(void **state)
{
    fixture *f = *state;
    dure_version v;
    dure_diag diag = {0};
    static const char *const names[] = {"champion", "previous", "latest",     "7",        "",
                                        "abc",      "0",        "deadbeef00", "%%%%%%%%%"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_err(dure_registry_find(&v, f->registry, names[i], &diag), DURE_ERR_NOT_FOUND);
    assert_non_null(strstr(diag.text, "name a version number"));
}

static void test_registry_gate_decides_the_state(void **state)
{
    fixture *f = *state;
    uint64_t good = fixture_add(f, "one", 0, 1), bad = fixture_add(f, "two", good, 2);
    fixture_gate(f, good, true);
    fixture_gate(f, bad, false);
    assert_int_equal(fixture_get(f, "1").state, DURE_VERSION_GATED);
    dure_version v = fixture_get(f, "2");
    assert_int_equal(v.state, DURE_VERSION_BLOCKED);
    assert_true(v.has_gate && !v.gate.passed && v.gate.low == 0.8 && v.gate.n_records == 64);
}

static void test_registry_lists_in_order(void **state)
{
    fixture *f = *state;
    dure_version *all = NULL;
    size_t n = 9;
    assert_ok(dure_registry_list(&all, &n, f->registry, NULL));
    assert_int_equal(n, 0);
    free(all);
    for (unsigned i = 0; i < 20; i++) {
        char text[8] = {(char)('a' + i), '\0'};
        (void)fixture_add(f, text, i, i + 1);
    }
    assert_ok(dure_registry_list(&all, &n, f->registry, NULL));
    assert_int_equal(n, 20);
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(all[i].number, i + 1);
    free(all);
}

static void test_registry_refuses_a_parent_that_is_not_there(void **state)
{
    fixture *f = *state;
    uint64_t number;
    const dure_candidate candidate = {.parent = 9, .round = 1, .base = fixture_base};
    assert_err(dure_registry_add(&number, f->registry, &candidate, dure_span_of_text("x"), NULL),
               DURE_ERR_NOT_FOUND);
    assert_int_equal(number, 0);
}

static void test_registry_needs_its_folder(void **state)
{
    fixture *f = *state;
    dure_registry *r = NULL;
    dure_diag diag = {0};
    assert_err(dure_registry_open(&r, temp_dir_file(&f->dir, "nowhere"), &diag),
               DURE_ERR_NOT_FOUND);
    assert_null(r);
    assert_non_null(strstr(diag.text, "nowhere"));
}

/* A database that is no database, and one of a later version. */
static void test_registry_refuses_foreign_state(void **state)
{
    fixture *f = *state;
    dure_registry *r = NULL;
    const char *path = temp_dir_file(&f->dir, "other");
    assert_ok(dure_dir_make(path, NULL));
    const char *file = temp_dir_file(&f->dir, "other/state.db");
    char junk[4096];
    memset(junk, 'j', sizeof junk);
    assert_ok(dure_file_write_atomic(file, dure_span_of(junk, sizeof junk), 0644, NULL));
    assert_err(dure_registry_open(&r, path, NULL), DURE_ERR_IO);
    assert_null(r);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_registry_keeps_a_version_whole),
        TEST(test_registry_add_can_be_repeated),
        TEST(test_registry_adds_what_is_stored_already),
        TEST(test_registry_does_not_add_a_damaged_file),
        TEST(test_registry_finds_by_every_name),
        TEST(test_registry_says_what_it_cannot_find),
        TEST(test_registry_gate_decides_the_state),
        TEST(test_registry_lists_in_order),
        TEST(test_registry_refuses_a_parent_that_is_not_there),
        TEST(test_registry_needs_its_folder),
        TEST(test_registry_refuses_foreign_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
