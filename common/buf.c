#include "common/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

dure_span dure_span_of(const void *data, size_t n)
{
    return (dure_span){.data = data, .n = n};
}

dure_span dure_span_of_text(const char *text)
{
    return dure_span_of(text, strlen(text));
}

void dure_buf_init(dure_buf *buf, size_t limit)
{
    *buf = (dure_buf){.limit = limit};
}

void dure_buf_fini(dure_buf *buf)
{
    if (!buf) return;
    free(buf->data);
    *buf = (dure_buf){.limit = buf->limit};
}

dure_span dure_buf_span(const dure_buf *buf)
{
    return dure_span_of(buf->data, buf->n);
}

dure_err dure_buf_err(const dure_buf *buf)
{
    return buf->err;
}

/* Makes room for `n` more bytes. */
static bool reserve(dure_buf *buf, size_t n)
{
    if (buf->err) return false;
    if (n > buf->limit - buf->n) {
        buf->err = DURE_ERR_LIMIT;
        return false;
    }
    if (buf->n + n <= buf->capacity) return true;
    size_t capacity = buf->capacity ? buf->capacity : 256;
    while (capacity < buf->n + n)
        capacity = capacity > buf->limit / 2 ? buf->limit : capacity * 2;
    uint8_t *data = realloc(buf->data, capacity);
    if (!data) {
        buf->err = DURE_ERR_NOMEM;
        return false;
    }
    buf->data = data;
    buf->capacity = capacity;
    return true;
}

void dure_put_raw(dure_buf *buf, const void *data, size_t n)
{
    if (n == 0 || !reserve(buf, n)) return;
    memcpy(buf->data + buf->n, data, n);
    buf->n += n;
}

static void put_big_endian(dure_buf *buf, uint64_t value, size_t n)
{
    uint8_t bytes[8];
    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)(value >> (8 * (n - 1 - i)));
    dure_put_raw(buf, bytes, n);
}

void dure_put_u8(dure_buf *buf, uint8_t value)
{
    put_big_endian(buf, value, 1);
}

void dure_put_u16(dure_buf *buf, uint16_t value)
{
    put_big_endian(buf, value, 2);
}

void dure_put_u32(dure_buf *buf, uint32_t value)
{
    put_big_endian(buf, value, 4);
}

void dure_put_u64(dure_buf *buf, uint64_t value)
{
    put_big_endian(buf, value, 8);
}

void dure_put_f64(dure_buf *buf, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    dure_put_u64(buf, bits);
}

void dure_put_bytes(dure_buf *buf, const void *data, size_t n)
{
    if (n > UINT32_MAX) {
        if (!buf->err) buf->err = DURE_ERR_LIMIT;
        return;
    }
    dure_put_u32(buf, (uint32_t)n);
    dure_put_raw(buf, data, n);
}

void dure_put_text(dure_buf *buf, const char *text)
{
    dure_put_bytes(buf, text, strlen(text));
}

void dure_put_format(dure_buf *buf, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    if (n >= 0 && reserve(buf, (size_t)n + 1)) {
        vsnprintf((char *)buf->data + buf->n, (size_t)n + 1, format, again);
        buf->n += (size_t)n; /* the NUL is room that the next put overwrites */
    }
    va_end(again);
    va_end(args);
}

dure_reader dure_reader_of(dure_span bytes)
{
    return (dure_reader){.data = bytes.data, .n = bytes.n};
}

dure_err dure_take_raw(const uint8_t **out, dure_reader *r, size_t n)
{
    if (n > r->n - r->at) return DURE_ERR_PROTO;
    *out = r->data + r->at;
    r->at += n;
    return DURE_OK;
}

dure_err dure_take_copy(void *out, dure_reader *r, size_t n)
{
    const uint8_t *bytes;
    dure_err err = dure_take_raw(&bytes, r, n);
    if (err) return err;
    if (n) memcpy(out, bytes, n);
    return DURE_OK;
}

static dure_err take_big_endian(uint64_t *out, dure_reader *r, size_t n)
{
    const uint8_t *bytes;
    dure_err err = dure_take_raw(&bytes, r, n);
    if (err) return err;
    uint64_t value = 0;
    for (size_t i = 0; i < n; i++)
        value = value << 8 | bytes[i];
    *out = value;
    return DURE_OK;
}

dure_err dure_take_u8(uint8_t *out, dure_reader *r)
{
    uint64_t value;
    dure_err err = take_big_endian(&value, r, 1);
    if (!err) *out = (uint8_t)value;
    return err;
}

dure_err dure_take_u16(uint16_t *out, dure_reader *r)
{
    uint64_t value;
    dure_err err = take_big_endian(&value, r, 2);
    if (!err) *out = (uint16_t)value;
    return err;
}

dure_err dure_take_u32(uint32_t *out, dure_reader *r)
{
    uint64_t value;
    dure_err err = take_big_endian(&value, r, 4);
    if (!err) *out = (uint32_t)value;
    return err;
}

dure_err dure_take_u64(uint64_t *out, dure_reader *r)
{
    return take_big_endian(out, r, 8);
}

dure_err dure_take_f64(double *out, dure_reader *r)
{
    uint64_t bits;
    dure_err err = dure_take_u64(&bits, r);
    if (!err) memcpy(out, &bits, sizeof bits);
    return err;
}

dure_err dure_take_bytes(dure_span *out, dure_reader *r, size_t max)
{
    dure_reader ahead = *r;
    uint32_t n;
    dure_err err = dure_take_u32(&n, &ahead);
    if (err) return err;
    if (n > max) return DURE_ERR_LIMIT;
    const uint8_t *bytes;
    err = dure_take_raw(&bytes, &ahead, n);
    if (err) return err;
    *out = dure_span_of(bytes, n);
    *r = ahead;
    return DURE_OK;
}

dure_err dure_take_text(char *text, size_t size, dure_reader *r)
{
    DURE_ASSERT(size > 0);
    dure_reader ahead = *r;
    dure_span bytes;
    dure_err err = dure_take_bytes(&bytes, &ahead, size - 1);
    if (err) return err;
    if (bytes.n && memchr(bytes.data, 0, bytes.n)) return DURE_ERR_PROTO;
    if (bytes.n) memcpy(text, bytes.data, bytes.n);
    text[bytes.n] = 0;
    *r = ahead;
    return DURE_OK;
}

dure_err dure_reader_end(const dure_reader *r)
{
    return r->at == r->n ? DURE_OK : DURE_ERR_PROTO;
}

bool dure_size_mul(size_t *out, size_t a, size_t b)
{
    size_t product;
    if (__builtin_mul_overflow(a, b, &product)) return false;
    *out = product;
    return true;
}

void dure_hex_encode(char *text, const void *data, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *bytes = data;
    for (size_t i = 0; i < n; i++) {
        text[2 * i] = digits[bytes[i] >> 4];
        text[2 * i + 1] = digits[bytes[i] & 15];
    }
    text[2 * n] = 0;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

dure_err dure_hex_decode(void *data, size_t n, const char *text)
{
    if (strlen(text) != 2 * n) return DURE_ERR_FORMAT;
    uint8_t *bytes = data;
    for (size_t i = 0; i < n; i++) {
        int high = hex_value(text[2 * i]), low = hex_value(text[2 * i + 1]);
        if (high < 0 || low < 0) return DURE_ERR_FORMAT;
        bytes[i] = (uint8_t)(high << 4 | low);
    }
    return DURE_OK;
}
