/* SHA-256 (FIPS 180-4), and the one way in which structured values are hashed.
 *
 * A hash of several fields is dure_hash_labeled(): the label says what the value is for, and every
 * field is preceded by its length, so no two different lists of fields give the same input. */
#pragma once

#include "common/buf.h"
#include "common/err.h"

#include <stdbool.h>

#define DURE_HASH_BYTES 32

typedef struct dure_hash {
    uint8_t b[DURE_HASH_BYTES];
} dure_hash;

/* DURE_ERR_CRYPTO when the library fails; *out is then zero. This holds for all of this header. */
DURE_MUST_USE dure_err dure_hash_bytes(dure_hash *out, dure_span bytes);

/* SHA-256 over u32 length and bytes of `label`, then u32 length and bytes of each field.
 * DURE_ERR_LIMIT for a field of 4 GiB or more. */
DURE_MUST_USE dure_err dure_hash_labeled(dure_hash *out, const char *label, const dure_span *fields,
                                         size_t n_fields);

/* The digest of a whole file, read in pieces. `diag` (may be NULL) names the path. */
DURE_MUST_USE dure_err dure_hash_file(dure_hash *out, const char *path, dure_diag *diag);
/* The digest of n files' bytes, one after the other. */
DURE_MUST_USE dure_err dure_hash_files(dure_hash *out, const char *const *paths, size_t n,
                                       dure_diag *diag);

/* Constant time. */
bool dure_hash_equal(const dure_hash *a, const dure_hash *b);

/* The bytes of `hash` as a span, borrowed: a field of the next hash, or the salt of a key. */
dure_span dure_hash_span(const dure_hash *hash);

/* A digest of bytes that arrive in pieces. One thread per hasher. final() gives the digest and
 * leaves the hasher ready for a new message. */
typedef struct dure_hasher dure_hasher;
DURE_MUST_USE dure_err dure_hasher_new(dure_hasher **out);
DURE_MUST_USE dure_err dure_hasher_update(dure_hasher *hasher, const void *data, size_t n);
DURE_MUST_USE dure_err dure_hasher_final(dure_hash *out, dure_hasher *hasher);
void dure_hasher_free(dure_hasher **hasher); /* NULL-safe, nulls */
