/* Whose a record is, in every format. */
#include "dataset_desk.h"
#include "support/check.h"

#include <stdio.h>
#include <string.h>

static dure_err parse(dure_dataset *out, dataset_desk *f, const char *name, const char *text,
                      bool tolerant, bool by_subject)
{
    const dure_dataset_opts opts = {
        .max_length = 400, .tolerant = tolerant, .by_subject = by_subject};
    f->diag.text[0] = 0;
    return dure_dataset_parse(out, dure_span_of_text(text), name, f->t, &f->chat, &opts, &f->diag);
}

#define RECORD(subject) "{" subject "\"text\":\"hello there\"}\n"

static void test_subjects_are_numbered_as_they_appear(void **state)
{
    dataset_desk *f = *state;
    dure_dataset data;
    assert_ok(parse(&data, f, "d.jsonl",
                    RECORD("\"subject\":\"bo\",") RECORD("\"subject\":7,")
                        RECORD("\"subject\":\"ann\",") RECORD("\"subject\":\"7\",")
                            RECORD("\"subject\":\"bo\","),
                    false, true));
    const uint32_t expected[] = {0, 1, 2, 1, 0};
    const size_t order[] = {0, 4, 1, 3, 2}, first[] = {0, 2, 4, 5};
    assert_int_equal(data.n_subjects, 3);
    assert_int_equal(data.n_naming, 5);
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(data.records[i].subject, expected[i]);
        assert_int_equal(data.by_subject[i], order[i]);
    }
    for (size_t s = 0; s < 4; s++)
        assert_int_equal(data.subject_first[s], first[s]);
    dure_dataset_fini(&data);
}

static void test_subject_is_a_column_of_a_table(void **state)
{
    dataset_desk *f = *state;
    dure_dataset data;
    assert_ok(
        parse(&data, f, "d.csv", "subject,text\nann,hello\nbo,hello\nann,there\n", false, true));
    assert_int_equal(data.n_subjects, 2);
    assert_int_equal(data.records[2].subject, data.records[0].subject);
    dure_dataset_fini(&data);
    assert_err(parse(&data, f, "d.csv", "subject,text\nann,hello\n,hello\n", false, true),
               DURE_ERR_FORMAT);
    assert_non_null(strstr(f->diag.text, "line 3"));
    assert_non_null(strstr(f->diag.text, "has no \"subject\""));
}

static void test_subject_may_be_left_alone(void **state)
{
    dataset_desk *f = *state;
    dure_dataset data;
    assert_ok(parse(&data, f, "d.jsonl",
                    RECORD("\"subject\":\"bo\",") RECORD("") RECORD("\"subject\":null,"), false,
                    false));
    assert_int_equal(data.n_naming, 1);
    assert_null(data.by_subject);
    assert_int_equal(data.records[0].subject, DURE_SUBJECT_NONE);
    dure_dataset_fini(&data);
}

/* A record of nobody's could be anybody's: it is refused, or empty and in no group. */
static void test_record_without_a_subject_is_a_bad_one(void **state)
{
    dataset_desk *f = *state;
    char longer[400] = "";
    static const char *const bad[] = {
        RECORD(""),
        RECORD("\"subject\":null,"),
        RECORD("\"subject\":\"\","),
        RECORD("\"subject\":1.5,"),
        RECORD("\"subject\":true,"),
        RECORD("\"subject\":[\"ann\"],"),
        RECORD("\"subject\":{\"id\":1},"),
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        dure_dataset data;
        assert_err(parse(&data, f, "d.jsonl", bad[i], false, true), DURE_ERR_FORMAT);
        assert_non_null(strstr(f->diag.text, "line 1"));
        char text[1024];
        snprintf(text, sizeof text, "%s%s", bad[i], RECORD("\"subject\":\"ann\","));
        assert_ok(parse(&data, f, "d.jsonl", text, true, true));
        assert_int_equal(data.n, 2);
        assert_int_equal(data.n_unusable, 1);
        assert_int_equal(data.records[0].n, 0);
        assert_int_equal(data.records[0].subject, DURE_SUBJECT_NONE);
        assert_int_equal(data.n_subjects, 1);
        assert_int_equal(data.subject_first[1], 1);
        assert_int_equal(data.by_subject[0], 1);
        dure_dataset_fini(&data);
    }
    dure_dataset data;
    memset(longer, 'a', 257);
    char text[1024];
    snprintf(text, sizeof text, "{\"subject\":\"%s\",\"text\":\"hello there\"}\n", longer);
    assert_err(parse(&data, f, "d.jsonl", text, false, true), DURE_ERR_FORMAT);
    snprintf(text, sizeof text, "{\"subject\":\"%s\",\"text\":\"hello there\"}\n", longer + 1);
    assert_ok(parse(&data, f, "d.jsonl", text, false, true));
    dure_dataset_fini(&data);
}

/* A text that cannot be learned is still its subject's. */
static void test_unusable_record_stays_with_its_subject(void **state)
{
    dataset_desk *f = *state;
    dure_dataset data;
    assert_ok(parse(&data, f, "d.jsonl",
                    RECORD("\"subject\":\"bo\",") "{\"subject\":\"bo\",\"text\":\"\"}\n", true,
                    true));
    assert_int_equal(data.n_unusable, 1);
    assert_int_equal(data.subject_first[1], 2);
    dure_dataset_fini(&data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define ROW(name) cmocka_unit_test_setup_teardown(name, dataset_desk_set_up, dataset_desk_tear_down)
        ROW(test_subjects_are_numbered_as_they_appear),
        ROW(test_subject_is_a_column_of_a_table),
        ROW(test_subject_may_be_left_alone),
        ROW(test_record_without_a_subject_is_a_bad_one),
        ROW(test_unusable_record_stays_with_its_subject),
#undef ROW
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
