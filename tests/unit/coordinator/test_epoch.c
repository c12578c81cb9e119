/* The file that carries a statement of a loss between two machines and a person who reads it. */
#include "coordinator/epoch.h"

#include "common/file.h"
#include "support/check.h"
#include "support/temp_dir.h"

#include <stdio.h>
#include <string.h>

static dure_event_epoch make_epoch(void)
{
    dure_event_epoch epoch = {.epoch = 3, .kept.n = 7, .lost_n = 12, .reason = "\"the\" disk\\"};
    memset(epoch.federation_id.b, 0x11, 32);
    memset(epoch.kept.root.b, 0x22, 32);
    memset(epoch.signature, 0x33, sizeof epoch.signature);
    return epoch;
}

static void test_epoch_file_holds_the_statement(void **state)
{
    (void)state;
    const char *path = temp_dir_file(&test_dir, "loss");
    const dure_event_epoch epoch = make_epoch();
    dure_event_epoch back;
    for (int is_signed = 0; is_signed < 2; is_signed++) {
        bool found = false;
        assert_ok(dure_epoch_write(path, &epoch, is_signed, NULL));
        assert_ok(dure_epoch_read(&back, &found, path, NULL));
        assert_int_equal(found, is_signed);
        assert_memory_equal(back.federation_id.b, epoch.federation_id.b, 32);
        assert_memory_equal(back.kept.root.b, epoch.kept.root.b, 32);
        assert_int_equal(back.epoch, 3);
        assert_int_equal(back.kept.n, 7);
        assert_int_equal(back.lost_n, 12);
        assert_string_equal(back.reason, epoch.reason);
        assert_int_equal(back.signature[63], is_signed ? 0x33 : 0);
    }
}

/* A statement in which `from` reads `to` instead. */
static void refuse_altered(const char *from, const char *to)
{
    char path[512], text[4096];
    dure_buf file;
    dure_event_epoch back;
    bool is_signed;
    dure_diag diag = {{0}};
    const dure_event_epoch epoch = make_epoch();
    snprintf(path, sizeof path, "%s", temp_dir_file(&test_dir, "loss"));
    assert_ok(dure_epoch_write(path, &epoch, true, NULL));
    assert_ok(dure_file_read(&file, path, 4096, NULL));
    char *at = memmem(file.data, file.n, from, strlen(from));
    assert_non_null(at);
    const size_t before = (size_t)(at - (char *)file.data);
    snprintf(text, sizeof text, "%.*s%s%.*s", (int)before, (char *)file.data, to,
             (int)(file.n - before - strlen(from)), at + strlen(from));
    dure_buf_fini(&file);
    assert_ok(dure_file_write_atomic(path, dure_span_of_text(text), 0600, NULL));
    assert_int_not_equal(dure_epoch_read(&back, &is_signed, path, &diag), DURE_OK);
    if (!strstr(diag.text, "loss")) fail_msg("\"%s\" does not name the file", diag.text);
}

static void test_epoch_file_must_be_whole(void **state)
{
    (void)state;
    static const char *const keys[] = {"federation_id", "epoch", "kept",
                                       "kept_root",     "lost",  "reason"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char quoted[32];
        snprintf(quoted, sizeof quoted, "\"%s\"", keys[i]);
        refuse_altered(quoted, "\"other\"");
    }
    refuse_altered("{", "[");
    refuse_altered("7", "-7");
    refuse_altered("7", "7.5");
    refuse_altered("7", "\"7\"");
    refuse_altered("1111", "11");
    refuse_altered("2222", "zz22");
    refuse_altered("3333", "33333333");
    refuse_altered("12", "184467440737095516160");
}

static void test_epoch_file_is_bounded(void **state)
{
    (void)state;
    char reason[400], big[20000];
    memset(reason, 'x', sizeof reason);
    reason[sizeof reason - 1] = 0;
    refuse_altered("\\\"the\\\" disk\\\\", reason);
    memset(big, ' ', sizeof big);
    const char *path = temp_dir_file(&test_dir, "big");
    dure_event_epoch back;
    bool is_signed;
    assert_ok(dure_file_write_atomic(path, dure_span_of(big, sizeof big), 0600, NULL));
    assert_int_not_equal(dure_epoch_read(&back, &is_signed, path, NULL), DURE_OK);
    assert_int_not_equal(dure_epoch_read(&back, &is_signed, temp_dir_file(&test_dir, "none"), NULL),
                         DURE_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_epoch_file_holds_the_statement, test_dir_setup,
                                        test_dir_teardown),
        cmocka_unit_test_setup_teardown(test_epoch_file_must_be_whole, test_dir_setup,
                                        test_dir_teardown),
        cmocka_unit_test_setup_teardown(test_epoch_file_is_bounded, test_dir_setup,
                                        test_dir_teardown),
    };
    return cmocka_run_group_tests_name("coordinator.epoch", tests, NULL, NULL);
}
