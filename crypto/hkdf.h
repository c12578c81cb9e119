/* HKDF-SHA-256 (RFC 5869), extract and expand in one call. */
#pragma once

#include "common/buf.h"
#include "common/err.h"

/* Fills out[0..n), n <= 255 * 32. `info` must tell apart every use of one `ikm`; it and `salt` may
 * be empty. DURE_ERR_USAGE for a wrong n, DURE_ERR_CRYPTO when the library fails; `out` is then
 * zeroed. The caller wipes `out`. */
DURE_MUST_USE dure_err dure_hkdf(uint8_t *out, size_t n, dure_span salt, dure_span ikm,
                                 dure_span info);
