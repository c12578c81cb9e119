/* Base64 (RFC 4648, section 4), on one line and with padding; the reader accepts only what the
 * writer writes, so every value has one text. Whoever breaks lines does so around it. */
#pragma once

#include "common/buf.h"
#include "common/err.h"

#include <stddef.h>
#include <stdint.h>

void dure_base64_put(dure_buf *out, const void *data, size_t n);

/* Decodes `text` into out[0..size); *n is the number of bytes. DURE_ERR_FORMAT for any other
 * character, missing padding or stray bits; DURE_ERR_LIMIT when it does not fit. */
DURE_MUST_USE dure_err dure_base64_take(uint8_t *out, size_t *n, size_t size, dure_span text);
