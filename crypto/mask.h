/* Mask words for the secure sum: AES-256-CTR key streams added to or taken from a vector mod 2^b.
 *
 * Word i of a stream is the b/8 key-stream bytes at offset i * b/8, little-endian; the key stream
 * is AES-256-CTR (NIST SP 800-38A) over zeros with initial counter block 0. So any range of the
 * vector can be masked without the words before it, and adding a stream on one side and taking
 * it on the other cancels exactly. A vector element is a uint32_t below 2^b.
 *
 * Many streams are applied tile by tile: a tile of about 4 KiB of key stream and its part of the
 * vector stay in the first-level cache. */
#pragma once

#include "common/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DURE_MASK_KEY_BYTES 32

/* One key stream. Belongs to one thread at a time. */
typedef struct dure_mask_stream dure_mask_stream;
DURE_MUST_USE dure_err dure_mask_stream_new(dure_mask_stream **out,
                                            const uint8_t key[DURE_MASK_KEY_BYTES]);
/* The same stream made by OpenSSL, also where the CPU has wider instructions: the other side of a
 * comparison. */
DURE_MUST_USE dure_err dure_mask_stream_new_openssl(dure_mask_stream **out,
                                                    const uint8_t key[DURE_MASK_KEY_BYTES]);
/* The same stream for another thread. */
DURE_MUST_USE dure_err dure_mask_stream_copy(dure_mask_stream **out,
                                             const dure_mask_stream *stream);
void dure_mask_stream_free(dure_mask_stream **stream); /* wipes; NULL-safe, nulls */

/* One stream and its sign. */
typedef struct dure_mask_term {
    dure_mask_stream *stream; /* borrowed */
    bool subtract;
} dure_mask_term;

/* Elements first .. first + n - 1 of the whole vector, in words of `bits` bits: 24 or 32. */
typedef struct dure_mask_range {
    uint64_t first;
    size_t n;
    unsigned bits;
} dure_mask_range;

/* words[j] = (words[j] + sum of terms' word first + j) mod 2^bits, for j < range->n; `words` is the
 * range's own part of the vector. A stream may be in one term only. DURE_ERR_USAGE for other
 * `bits`; DURE_ERR_LIMIT when the range ends beyond 2^32 - 1 blocks of 16 bytes; DURE_ERR_CRYPTO.
 * On every error words[0..n) is zeroed, since a vector masked in part must never be sent. */
DURE_MUST_USE dure_err dure_mask_apply(uint32_t *words, const dure_mask_range *range,
                                       const dure_mask_term *terms, size_t n_terms);

/* words[j] += packed word j, modulo 2^32, for j < n: sums of packed vectors, to be reduced by
 * dure_mask_apply(). */
void dure_mask_add_packed(uint32_t *words, const uint8_t *bytes, size_t n, unsigned bits);

/* n words of `bits` bits (24 or 32) as n * bits/8 little-endian bytes; higher bits are dropped. */
void dure_mask_pack(uint8_t *bytes, const uint32_t *words, size_t n, unsigned bits);

/* A signed value as a word modulo 2^bits, and back (two's complement of `bits` bits). */
uint32_t dure_mask_word(int64_t value, unsigned bits);
int64_t dure_mask_value(uint32_t word, unsigned bits);
