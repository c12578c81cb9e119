#include "common/base64.h"
#include "support/check.h"

#include <string.h>

/* RFC 4648, section 10. */
static const struct {
    const char *plain, *text;
} vectors[] = {{"", ""},
               {"f", "Zg=="},
               {"fo", "Zm8="},
               {"foo", "Zm9v"},
               {"foob", "Zm9vYg=="},
               {"fooba", "Zm9vYmE="},
               {"foobar", "Zm9vYmFy"}};

static void test_base64_matches_rfc_4648(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        dure_buf buf;
        uint8_t back[8];
        size_t n = 99;
        dure_buf_init(&buf, 100);
        dure_base64_put(&buf, vectors[i].plain, strlen(vectors[i].plain));
        assert_int_equal(buf.n, strlen(vectors[i].text));
        if (buf.n > 0) assert_memory_equal(buf.data, vectors[i].text, buf.n);
        assert_ok(dure_base64_take(back, &n, sizeof back, dure_span_of_text(vectors[i].text)));
        assert_int_equal(n, strlen(vectors[i].plain));
        assert_memory_equal(back, vectors[i].plain, n);
        dure_buf_fini(&buf);
    }
}

static void test_base64_round_trips_every_byte(void **state)
{
    (void)state;
    uint8_t bytes[256], back[256];
    size_t n = 0;
    dure_buf buf;
    for (size_t i = 0; i < 256; i++)
        bytes[i] = (uint8_t)i;
    dure_buf_init(&buf, 1000);
    dure_base64_put(&buf, bytes, 256);
    assert_ok(dure_base64_take(back, &n, 256, dure_buf_span(&buf)));
    assert_int_equal(n, 256);
    assert_memory_equal(back, bytes, 256);
    dure_buf_fini(&buf);
}

static void test_base64_refuses_other_texts(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "Zg", "Zg=", "Z===", "====", "Zh==", "Zm9=", "Zg==Zg==", "Zm 9", "Zm9-", "Zm9v\n", "=Zg="};
    uint8_t out[8];
    size_t n = 0;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        assert_err(dure_base64_take(out, &n, sizeof out, dure_span_of_text(texts[i])),
                   DURE_ERR_FORMAT);
    assert_err(dure_base64_take(out, &n, 2, dure_span_of_text("Zm9v")), DURE_ERR_LIMIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_base64_matches_rfc_4648),
        cmocka_unit_test(test_base64_round_trips_every_byte),
        cmocka_unit_test(test_base64_refuses_other_texts),
    };
    return cmocka_run_group_tests_name("common.base64", tests, NULL, NULL);
}
