#include "common/json.h"
#include "support/check.h"

#include <string.h>

static void test_json_errors_name_the_line(void **state)
{
    (void)state;
    json_t *value;
    dure_diag diag = {0};
    assert_err(dure_json_parse(&value, dure_span_of_text("{\n\"a\": ]}"), "x.json", &diag),
               DURE_ERR_FORMAT);
    assert_null(value);
    assert_non_null(strstr(diag.text, "x.json, line 2"));
}

static void test_json_of_nothing_is_said_to_be_empty(void **state)
{
    (void)state;
    json_t *value;
    dure_diag diag;
    assert_err(dure_json_parse(&value, (dure_span){NULL, 0}, "the request body", &diag),
               DURE_ERR_FORMAT);
    assert_string_equal(diag.text, "the request body is empty");
}

static void test_json_refuses_duplicate_keys(void **state)
{
    (void)state;
    json_t *value;
    assert_err(dure_json_parse(&value, dure_span_of_text("{\"a\":1,\"a\":2}"), "x", NULL),
               DURE_ERR_FORMAT);
}

static void test_json_getters_name_the_key_they_miss(void **state)
{
    (void)state;
    json_t *value;
    dure_diag diag = {0};
    uint64_t n;
    const char *text;
    uint8_t bytes[2];
    assert_ok(dure_json_parse(&value, dure_span_of_text("{\"n\":-1,\"h\":\"0aff\"}"), "x", &diag));
    assert_err(dure_json_u64(&n, value, "n", &diag), DURE_ERR_FORMAT);
    assert_non_null(strstr(diag.text, "\"n\""));
    assert_err(dure_json_text(&text, value, "absent", &diag), DURE_ERR_FORMAT);
    assert_non_null(strstr(diag.text, "\"absent\""));
    assert_ok(dure_json_hex(bytes, 2, value, "h", &diag));
    assert_int_equal(bytes[1], 0xff);
    assert_err(dure_json_hex(bytes, 1, value, "h", &diag), DURE_ERR_FORMAT);
    json_decref(value);
}

static void test_json_from_text_takes_any_bytes(void **state)
{
    (void)state;
    json_t *good = dure_json_from_text("two \xeb\x91\x90"),
           *bad = dure_json_from_text("a\xff<\xc3");
    assert_string_equal(json_string_value(good), "two \xeb\x91\x90");
    assert_string_equal(json_string_value(bad), "a?<?");
    json_decref(good);
    json_decref(bad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_errors_name_the_line),
        cmocka_unit_test(test_json_of_nothing_is_said_to_be_empty),
        cmocka_unit_test(test_json_refuses_duplicate_keys),
        cmocka_unit_test(test_json_getters_name_the_key_they_miss),
        cmocka_unit_test(test_json_from_text_takes_any_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
