#include "common/base64.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void dure_base64_put(dure_buf *out, const void *data, size_t n)
{
    const uint8_t *bytes = data;
    for (size_t i = 0; i < n; i += 3) {
        size_t have = n - i < 3 ? n - i : 3;
        uint32_t group = (uint32_t)bytes[i] << 16;
        if (have > 1) group |= (uint32_t)bytes[i + 1] << 8;
        if (have > 2) group |= bytes[i + 2];
        char text[4] = {alphabet[group >> 18], alphabet[group >> 12 & 63],
                        have > 1 ? alphabet[group >> 6 & 63] : '=',
                        have > 2 ? alphabet[group & 63] : '='};
        dure_put_raw(out, text, sizeof text);
    }
}

/* 0 to 63, or 64 for what is not in the alphabet. */
static uint32_t value_of(uint8_t c)
{
    if (c >= 'A' && c <= 'Z') return (uint32_t)(c - 'A');
    if (c >= 'a' && c <= 'z') return (uint32_t)(c - 'a') + 26;
    if (c >= '0' && c <= '9') return (uint32_t)(c - '0') + 52;
    if (c == '+') return 62;
    return c == '/' ? 63 : 64;
}

dure_err dure_base64_take(uint8_t *out, size_t *n, size_t size, dure_span text)
{
    *n = 0;
    if (text.n % 4 != 0) return DURE_ERR_FORMAT;
    size_t padding = 0;
    if (text.n > 0 && text.data[text.n - 1] == '=') padding++;
    if (padding > 0 && text.data[text.n - 2] == '=') padding++;
    size_t total = text.n / 4 * 3 - padding;
    if (total > size) return DURE_ERR_LIMIT;
    for (size_t i = 0; i < text.n; i += 4) {
        size_t have = i + 4 == text.n ? 3 - padding : 3; /* bytes of this group */
        uint32_t group = 0;
        for (size_t k = 0; k < 4; k++) {
            uint32_t value = k <= have ? value_of(text.data[i + k]) : 0;
            if (value > 63) return DURE_ERR_FORMAT;
            group = group << 6 | value;
        }
        /* Bits below the last byte must be zero, or one value would have several texts. */
        if (have < 3 && (group & (0xffffffu >> (8 * have)))) return DURE_ERR_FORMAT;
        for (size_t k = 0; k < have; k++)
            out[i / 4 * 3 + k] = (uint8_t)(group >> (16 - 8 * k));
    }
    *n = total;
    return DURE_OK;
}
