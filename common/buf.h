/* Bounded byte spans, readers and writers, and the canonical encoding made of them.
 *
 * Everything that is hashed or signed uses this encoding: integers big-endian and fixed width,
 * byte strings preceded by their length as u32. It has one form for each value, which protobuf
 * does not promise.
 *
 * Threads: an object belongs to one thread at a time. */
#pragma once

#include "common/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Borrowed, read-only bytes. */
typedef struct dure_span {
    const uint8_t *data;
    size_t n;
} dure_span;

dure_span dure_span_of(const void *data, size_t n);
dure_span dure_span_of_text(const char *text); /* without the final NUL */

/* A growable buffer that never exceeds `limit` bytes. Free with dure_buf_fini(). */
typedef struct dure_buf {
    uint8_t *data;
    size_t n;
    size_t capacity;
    size_t limit;
    dure_err err; /* first failure of a put; later puts do nothing */
} dure_buf;

void dure_buf_init(dure_buf *buf, size_t limit);
void dure_buf_fini(dure_buf *buf); /* NULL-safe and idempotent; does not wipe */
dure_span dure_buf_span(const dure_buf *buf);

/* The puts record a failure (DURE_ERR_NOMEM, DURE_ERR_LIMIT) in buf->err instead of returning it:
 * an encoder is a straight line of puts and one check of dure_buf_err() at the end. */
void dure_put_u8(dure_buf *buf, uint8_t value);
void dure_put_u16(dure_buf *buf, uint16_t value);
void dure_put_u32(dure_buf *buf, uint32_t value);
void dure_put_u64(dure_buf *buf, uint64_t value);
void dure_put_f64(dure_buf *buf, double value);                 /* its 64 bits as a u64 */
void dure_put_raw(dure_buf *buf, const void *data, size_t n);   /* no length before it */
void dure_put_bytes(dure_buf *buf, const void *data, size_t n); /* u32 length, then the bytes */
void dure_put_text(dure_buf *buf, const char *text);            /* as dure_put_bytes, no NUL */
void dure_put_format(dure_buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
DURE_MUST_USE dure_err dure_buf_err(const dure_buf *buf);

/* Reads what the puts wrote. Takes past the end fail with DURE_ERR_PROTO and take nothing. */
typedef struct dure_reader {
    const uint8_t *data;
    size_t n;
    size_t at;
} dure_reader;

dure_reader dure_reader_of(dure_span bytes);
DURE_MUST_USE dure_err dure_take_u8(uint8_t *out, dure_reader *r);
DURE_MUST_USE dure_err dure_take_u16(uint16_t *out, dure_reader *r);
DURE_MUST_USE dure_err dure_take_u32(uint32_t *out, dure_reader *r);
DURE_MUST_USE dure_err dure_take_u64(uint64_t *out, dure_reader *r);
/* Any value, NaN and infinities too: the caller checks. */
DURE_MUST_USE dure_err dure_take_f64(double *out, dure_reader *r);
/* Points *out at the next `n` bytes; they are borrowed from the reader's buffer. */
DURE_MUST_USE dure_err dure_take_raw(const uint8_t **out, dure_reader *r, size_t n);
/* Copies exactly `n` bytes. */
DURE_MUST_USE dure_err dure_take_copy(void *out, dure_reader *r, size_t n);
/* A u32 length of at most `max`, then that many borrowed bytes. DURE_ERR_LIMIT over `max`. */
DURE_MUST_USE dure_err dure_take_bytes(dure_span *out, dure_reader *r, size_t max);
/* As dure_take_bytes, copied into text[0..size) with a final NUL; refuses embedded NULs. */
DURE_MUST_USE dure_err dure_take_text(char *text, size_t size, dure_reader *r);
/* DURE_ERR_PROTO unless everything has been taken. */
DURE_MUST_USE dure_err dure_reader_end(const dure_reader *r);

/* Checked product: false on overflow, with *out untouched. */
DURE_MUST_USE bool dure_size_mul(size_t *out, size_t a, size_t b);

/* Lower-case hex of data[0..n) into text[0..2n], NUL included. */
void dure_hex_encode(char *text, const void *data, size_t n);
/* Exactly 2n hex digits, either case; DURE_ERR_FORMAT otherwise. */
DURE_MUST_USE dure_err dure_hex_decode(void *data, size_t n, const char *text);
