#include "serve/text_stream.h"

#include "support/check.h"

#include <string.h>

static dure_text_stream *make(const char *const *stops, size_t n)
{
    dure_span spans[DURE_STOPS_MAX + 1];
    dure_text_stream *stream;
    for (size_t i = 0; i < n; i++)
        spans[i] = dure_span_of_text(stops[i]);
    assert_ok(dure_text_stream_new(&stream, spans, n));
    return stream;
}

/* Pushes `bytes` and checks what may be sent. */
static bool push(dure_text_stream *stream, const char *bytes, const char *expected)
{
    dure_span ready;
    bool stopped;
    assert_ok(dure_text_stream_push(&ready, &stopped, stream, dure_span_of_text(bytes)));
    assert_int_equal(ready.n, strlen(expected));
    if (ready.n) assert_memory_equal(ready.data, expected, ready.n);
    return stopped;
}

static void end(dure_text_stream **stream, const char *expected)
{
    dure_span ready;
    assert_ok(dure_text_stream_end(&ready, *stream));
    assert_int_equal(ready.n, strlen(expected));
    if (ready.n) assert_memory_equal(ready.data, expected, ready.n);
    dure_text_stream_free(stream);
    assert_null(*stream);
}

static void test_text_stream_passes_text_through(void **state)
{
    (void)state;
    dure_text_stream *s = make(NULL, 0);
    assert_false(push(s, "Hello", "Hello"));
    assert_false(push(s, "", ""));
    assert_false(push(s, " 두레", " 두레"));
    end(&s, "");
}

static void test_text_stream_never_sends_half_a_character(void **state)
{
    (void)state;
    static const char text[] = "a\xc3\xa9\xed\x95\x9c\xf0\x9f\x98\x80";
    dure_text_stream *s = make(NULL, 0);
    static const char *const expected[] = {"a", "", "\xc3\xa9",        "", "", "\xed\x95\x9c", "",
                                           "",  "", "\xf0\x9f\x98\x80"};
    for (size_t i = 0; i < sizeof text - 1; i++) {
        const char byte[2] = {text[i], 0};
        assert_false(push(s, byte, expected[i]));
    }
    end(&s, "");
}

/* Unicode 15, table 3-8: "U+FFFD for truncated sequences". */
static void test_text_stream_replaces_as_unicode_table_3_8(void **state)
{
    (void)state;
    dure_text_stream *s = make(NULL, 0);
    push(s, "\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41",
         "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\x41");
    end(&s, "");
    s = make(NULL, 0); /* table 3-9: overlong forms, three bytes each of them wrong */
    push(s, "\xc0\xaf\xe0\x80\xbf\x41",
         "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\x41");
    end(&s, "");
    s = make(NULL, 0); /* table 3-10: surrogates */
    push(s, "\xed\xa0\x80\x41", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\x41");
    end(&s, "");
}

static void test_text_stream_half_a_character_at_the_end_is_replaced(void **state)
{
    (void)state;
    dure_text_stream *s = make(NULL, 0);
    push(s, "x\xed\x95", "x");
    end(&s, "\xef\xbf\xbd");
}

static void test_text_stream_stops_within_a_token(void **state)
{
    (void)state;
    static const char *const stops[] = {"END"};
    dure_text_stream *s = make(stops, 1);
    assert_true(push(s, "abcENDdef", "abc"));
    assert_true(push(s, "more", ""));
    end(&s, "");
}

static void test_text_stream_stops_across_tokens(void **state)
{
    (void)state;
    static const char *const stops[] = {"\n\nUser:"};
    dure_text_stream *s = make(stops, 1);
    assert_false(push(s, "yes\n", "yes"));
    assert_false(push(s, "\nUs", ""));
    assert_true(push(s, "er: hi", ""));
    end(&s, "");
}

static void test_text_stream_gives_back_what_was_no_stop(void **state)
{
    (void)state;
    static const char *const stops[] = {"\n\nUser:"};
    dure_text_stream *s = make(stops, 1);
    assert_false(push(s, "a\n\nUs", "a"));
    assert_false(push(s, "age\n", "\n\nUsage"));
    end(&s, "\n");
}

static void test_text_stream_overlapping_beginnings(void **state)
{
    (void)state;
    static const char *const stops[] = {"aab"};
    dure_text_stream *s = make(stops, 1);
    assert_false(push(s, "a", ""));
    assert_false(push(s, "a", ""));
    assert_false(push(s, "a", "a"));
    assert_true(push(s, "b", ""));
    end(&s, "");
}

static void test_text_stream_first_of_several_stops_wins(void **state)
{
    (void)state;
    static const char *const stops[] = {"late", "ear"};
    dure_text_stream *s = make(stops, 2);
    assert_true(push(s, "an early or late", "an "));
    end(&s, "");
    static const char *const nested[] = {"b", "abc"};
    s = make(nested, 2);
    assert_false(push(s, "xa", "x"));
    assert_true(push(s, "b", "a"));
    end(&s, "");
}

static void test_text_stream_stop_of_half_characters_in_tokens(void **state)
{
    (void)state;
    static const char *const stops[] = {"끝"};
    dure_text_stream *s = make(stops, 1);
    assert_false(push(s, "말\xeb", "말"));
    assert_false(push(s, "\x81", ""));
    assert_true(push(s, "\x9d.", ""));
    end(&s, "");
}

static void test_text_stream_refuses_wrong_stops(void **state)
{
    (void)state;
    dure_text_stream *stream;
    dure_span stops[DURE_STOPS_MAX + 1];
    static char longest[DURE_STOP_BYTES_MAX + 1];
    for (size_t i = 0; i <= DURE_STOPS_MAX; i++)
        stops[i] = dure_span_of_text("x");
    assert_err(dure_text_stream_new(&stream, stops, DURE_STOPS_MAX + 1), DURE_ERR_LIMIT);
    assert_null(stream);
    stops[1] = dure_span_of_text("");
    assert_err(dure_text_stream_new(&stream, stops, 2), DURE_ERR_LIMIT);
    stops[1] = dure_span_of(longest, sizeof longest);
    assert_err(dure_text_stream_new(&stream, stops, 2), DURE_ERR_LIMIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_stream_passes_text_through),
        cmocka_unit_test(test_text_stream_never_sends_half_a_character),
        cmocka_unit_test(test_text_stream_replaces_as_unicode_table_3_8),
        cmocka_unit_test(test_text_stream_half_a_character_at_the_end_is_replaced),
        cmocka_unit_test(test_text_stream_stops_within_a_token),
        cmocka_unit_test(test_text_stream_stops_across_tokens),
        cmocka_unit_test(test_text_stream_gives_back_what_was_no_stop),
        cmocka_unit_test(test_text_stream_overlapping_beginnings),
        cmocka_unit_test(test_text_stream_first_of_several_stops_wins),
        cmocka_unit_test(test_text_stream_stop_of_half_characters_in_tokens),
        cmocka_unit_test(test_text_stream_refuses_wrong_stops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
