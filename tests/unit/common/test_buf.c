#include "common/buf.h"
#include "support/check.h"

#include <string.h>

static void test_buf_round_trip(void **state)
{
    (void)state;
    dure_buf buf;
    dure_buf_init(&buf, 1000);
    dure_put_u8(&buf, 0xab);
    dure_put_u16(&buf, 0x1234);
    dure_put_u32(&buf, 0xdeadbeef);
    dure_put_u64(&buf, 0x0102030405060708);
    dure_put_bytes(&buf, "xyz", 3);
    dure_put_text(&buf, "두레");
    assert_ok(dure_buf_err(&buf));
    dure_reader r = dure_reader_of(dure_buf_span(&buf));
    uint8_t a;
    uint16_t b;
    uint32_t c;
    uint64_t d;
    dure_span e;
    char f[16];
    assert_ok(dure_take_u8(&a, &r));
    assert_ok(dure_take_u16(&b, &r));
    assert_ok(dure_take_u32(&c, &r));
    assert_ok(dure_take_u64(&d, &r));
    assert_ok(dure_take_bytes(&e, &r, 3));
    assert_ok(dure_take_text(f, sizeof f, &r));
    assert_ok(dure_reader_end(&r));
    assert_int_equal(a, 0xab);
    assert_int_equal(b, 0x1234);
    assert_int_equal(c, 0xdeadbeef);
    assert_int_equal(d, 0x0102030405060708);
    assert_int_equal(e.n, 3);
    assert_memory_equal(e.data, "xyz", 3);
    assert_string_equal(f, "두레");
    dure_buf_fini(&buf);
}

static void test_buf_is_big_endian_with_u32_lengths(void **state)
{
    (void)state;
    static const uint8_t want[] = {0x12, 0x34, 0, 0, 0, 2, 'h', 'i'};
    dure_buf buf;
    dure_buf_init(&buf, 100);
    dure_put_u16(&buf, 0x1234);
    dure_put_bytes(&buf, "hi", 2);
    assert_int_equal(buf.n, sizeof want);
    assert_memory_equal(buf.data, want, sizeof want);
    dure_buf_fini(&buf);
}

static void test_buf_refuses_to_exceed_its_limit(void **state)
{
    (void)state;
    dure_buf buf;
    dure_buf_init(&buf, 5);
    dure_put_u32(&buf, 1);
    assert_ok(dure_buf_err(&buf));
    dure_put_u16(&buf, 2);
    assert_err(dure_buf_err(&buf), DURE_ERR_LIMIT);
    dure_put_u8(&buf, 3);
    assert_int_equal(buf.n, 4);
    dure_buf_fini(&buf);
}

static void test_reader_takes_nothing_past_the_end(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {0, 0, 0, 9, 'a', 'b'};
    dure_reader r = dure_reader_of(dure_span_of(bytes, sizeof bytes));
    dure_span span;
    char text[4];
    uint64_t value = 77;
    assert_err(dure_take_bytes(&span, &r, 100), DURE_ERR_PROTO);
    assert_err(dure_take_bytes(&span, &r, 8), DURE_ERR_LIMIT);
    assert_err(dure_take_text(text, sizeof text, &r), DURE_ERR_LIMIT);
    assert_err(dure_take_u64(&value, &r), DURE_ERR_PROTO);
    assert_int_equal(value, 77);
    assert_int_equal(r.at, 0);
    assert_err(dure_reader_end(&r), DURE_ERR_PROTO);
}

static void test_reader_refuses_text_with_a_nul(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {0, 0, 0, 3, 'a', 0, 'b'};
    dure_reader r = dure_reader_of(dure_span_of(bytes, sizeof bytes));
    char text[8];
    assert_err(dure_take_text(text, sizeof text, &r), DURE_ERR_PROTO);
}

static void test_hex_round_trip_and_refusals(void **state)
{
    (void)state;
    uint8_t bytes[3];
    char text[7];
    assert_ok(dure_hex_decode(bytes, 3, "00fFa5"));
    dure_hex_encode(text, bytes, 3);
    assert_string_equal(text, "00ffa5");
    assert_err(dure_hex_decode(bytes, 3, "00ffa"), DURE_ERR_FORMAT);
    assert_err(dure_hex_decode(bytes, 3, "00ffag"), DURE_ERR_FORMAT);
}

static void test_size_product_notices_overflow(void **state)
{
    (void)state;
    size_t out = 7;
    assert_false(dure_size_mul(&out, SIZE_MAX, 2));
    assert_int_equal(out, 7);
    assert_true(dure_size_mul(&out, 6, 7));
    assert_int_equal(out, 42);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buf_round_trip),
        cmocka_unit_test(test_buf_is_big_endian_with_u32_lengths),
        cmocka_unit_test(test_buf_refuses_to_exceed_its_limit),
        cmocka_unit_test(test_reader_takes_nothing_past_the_end),
        cmocka_unit_test(test_reader_refuses_text_with_a_nul),
        cmocka_unit_test(test_hex_round_trip_and_refusals),
        cmocka_unit_test(test_size_product_notices_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
