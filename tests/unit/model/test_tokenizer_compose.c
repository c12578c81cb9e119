/* Unicode's form NFC against libutf8proc, whose own order of marks takes longer. */
#include "model/tokenizer_compose.h"
#include "support/check.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* One of the characters where composition has its rules, in UTF-8; returns the bytes. */
static size_t put_character(uint8_t *to, uint32_t random)
{
    static const struct {
        int32_t first, n;
    } ranges[] = {
        {0x0300, 112},                  /* marks of many classes */
        {0x0041, 58},    {0x00c0, 400}, /* letters, and letters with marks */
        {0x0591, 50},    {0x064b, 22},  /* points of Hebrew and Arabic */
        {0x0f71, 20},    {0x0958, 8},   /* marks made of marks; letters that stay apart */
        {0x1100, 0x100}, {0xac00, 600}, /* Hangul in parts and composed */
        {0x1e00, 256},   {0x2126, 6},   {0xf900, 100},              /* more of all these */
        {0x1d15e, 8},    {0x11099, 4},  {0x10ffff, 1}, {0x0378, 2}, /* and of four bytes; none */
    };
    const size_t range = random % (sizeof ranges / sizeof *ranges);
    const int32_t code = ranges[range].first + (int32_t)(random / 64) % ranges[range].n;
    return (size_t)utf8proc_encode_char(code, to);
}

/* The same bytes as libutf8proc alone, for texts with few and with many marks. */
static void test_compose_gives_the_bytes_of_the_library(void **state)
{
    (void)state;
    uint32_t random = 1;
    for (int i = 0; i < 20000; i++) {
        uint8_t text[1200], *composed, *want = NULL;
        size_t n = 0, length;
        const size_t characters = 1 + next_random(&random) % 24;
        const size_t marks = i % 8 ? next_random(&random) % 4 : next_random(&random) % 200;
        for (size_t k = 0; k < characters; k++)
            n += put_character(text + n, next_random(&random));
        for (size_t k = 0; k < marks; k++)
            n += put_character(text + n, next_random(&random) / 16 * 16 * 16);
        assert_true(n <= sizeof text);
        const utf8proc_ssize_t n_want =
            utf8proc_map(text, (utf8proc_ssize_t)n, &want, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        assert_ok(dure_compose(&composed, &length, text, n));
        assert_int_equal(length, n_want);
        assert_memory_equal(composed, want, length);
        free(composed);
        free(want);
    }
}

static void test_compose_takes_nothing_but_utf8(void **state)
{
    (void)state;
    static const char *const wrong[] = {"e\xcc", "\xff", "\xed\xa0\x80", "\xc0\xaf", "a\x80"};
    uint8_t *composed;
    size_t n = 1;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_err(dure_compose(&composed, &n, (const uint8_t *)wrong[i], strlen(wrong[i])),
                   DURE_ERR_FORMAT);
        assert_true(!composed && n == 0);
    }
    assert_ok(dure_compose(&composed, &n, NULL, 0));
    assert_int_equal(n, 0);
    free(composed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compose_gives_the_bytes_of_the_library),
        cmocka_unit_test(test_compose_takes_nothing_but_utf8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
