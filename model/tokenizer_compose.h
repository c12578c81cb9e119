/* Text in Unicode's form NFC, as `tokenizers` brings it into before it is cut (UAX #15).
 *
 * libutf8proc has the tables and composes, but orders the marks of one letter in the square of
 * their number; here that takes time in proportion to it, so no text is slow. */
#pragma once

#include "common/err.h"

#include <stddef.h>
#include <stdint.h>

/* The composed form of text[0..n), which the caller frees. DURE_ERR_FORMAT if it has none: it is
 * not UTF-8, or longer than INT32_MAX; *out is then NULL. Threads: no state. */
DURE_MUST_USE dure_err dure_compose(uint8_t **out, size_t *n_out, const uint8_t *text, size_t n);
