/* Test vectors as they are printed in standards: hex in, bytes out. */
#pragma once

#include "common/buf.h"
#include "support/check.h"

#include <string.h>

/* Decodes `text` into out[0..size) and returns how many bytes it holds. */
static inline size_t hex_bytes(uint8_t *out, size_t size, const char *text)
{
    size_t n = strlen(text) / 2;
    assert_true(n <= size && strlen(text) % 2 == 0);
    assert_ok(dure_hex_decode(out, n, text));
    return n;
}

/* The n bytes must be those of `text`. */
static inline void assert_hex(const void *data, size_t n, const char *text)
{
    uint8_t want[4096];
    assert_int_equal(hex_bytes(want, sizeof want, text), n);
    assert_memory_equal(data, want, n);
}
