#include "crypto/hash.h"

#include "common/file.h"
#include "crypto/algorithms_int.h"
#include "crypto/wipe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct dure_hasher {
    EVP_MD_CTX *context;
};

dure_err dure_hash_bytes(dure_hash *out, dure_span bytes)
{
    const dure_algorithms *algorithms = dure_algorithms_get();
    *out = (dure_hash){{0}};
    if (!algorithms) return DURE_ERR_CRYPTO;
    if (EVP_Digest(bytes.data, bytes.n, out->b, NULL, algorithms->sha256, NULL) != 1) {
        *out = (dure_hash){{0}};
        return DURE_ERR_CRYPTO;
    }
    return DURE_OK;
}

/* Feeds the u32 length and the bytes of one field. */
static dure_err update_field(dure_hasher *hasher, dure_span field)
{
    if (field.n > UINT32_MAX) return DURE_ERR_LIMIT;
    uint8_t length[4] = {(uint8_t)(field.n >> 24), (uint8_t)(field.n >> 16),
                         (uint8_t)(field.n >> 8), (uint8_t)field.n};
    dure_err err = dure_hasher_update(hasher, length, sizeof length);
    if (err) return err;
    return dure_hasher_update(hasher, field.data, field.n);
}

dure_err dure_hash_labeled(dure_hash *out, const char *label, const dure_span *fields,
                           size_t n_fields)
{
    dure_hasher *hasher = NULL;
    *out = (dure_hash){{0}};
    dure_err err = dure_hasher_new(&hasher);
    if (err) goto out;
    err = update_field(hasher, dure_span_of_text(label));
    for (size_t i = 0; !err && i < n_fields; i++)
        err = update_field(hasher, fields[i]);
    if (err) goto out;
    err = dure_hasher_final(out, hasher);
out:
    dure_hasher_free(&hasher);
    return err;
}

/* `piece` is for reading and holds PIECE bytes. */
enum { PIECE = 1 << 16 };

static dure_err update_file(dure_hasher *hasher, uint8_t *piece, const char *path, dure_diag *diag)
{
    FILE *file = fopen(path, "rb");
    if (!file) return dure_file_errno(diag, "open", path);
    dure_err err = DURE_OK;
    size_t n = 0;
    while (!err && (n = fread(piece, 1, PIECE, file)) > 0)
        err = dure_hasher_update(hasher, piece, n);
    if (!err && ferror(file)) err = dure_file_errno(diag, "read", path);
    (void)fclose(file); /* opened for reading: nothing can be lost */
    return err;
}

dure_err dure_hash_files(dure_hash *out, const char *const *paths, size_t n, dure_diag *diag)
{
    dure_hasher *hasher = NULL;
    uint8_t *piece = malloc(PIECE);
    *out = (dure_hash){{0}};
    dure_err err = piece ? dure_hasher_new(&hasher) : DURE_ERR_NOMEM;
    for (size_t i = 0; i < n && !err; i++)
        err = update_file(hasher, piece, paths[i], diag);
    if (!err) err = dure_hasher_final(out, hasher);
    if (err && diag && !diag->text[0]) {
        (void)dure_diag_set(diag, err, "cannot hash %s: %s", n ? paths[0] : "no file",
                            dure_err_text(err));
    }
    free(piece);
    dure_hasher_free(&hasher);
    return err;
}

dure_err dure_hash_file(dure_hash *out, const char *path, dure_diag *diag)
{
    return dure_hash_files(out, &path, 1, diag);
}

bool dure_hash_equal(const dure_hash *a, const dure_hash *b)
{
    return dure_ct_equal(a->b, b->b, DURE_HASH_BYTES);
}

dure_span dure_hash_span(const dure_hash *hash)
{
    return dure_span_of(hash->b, DURE_HASH_BYTES);
}

/* Makes the context ready for a new message. */
static dure_err restart(dure_hasher *hasher)
{
    const dure_algorithms *algorithms = dure_algorithms_get();
    if (!algorithms || EVP_DigestInit_ex2(hasher->context, algorithms->sha256, NULL) != 1) {
        return DURE_ERR_CRYPTO;
    }
    return DURE_OK;
}

dure_err dure_hasher_new(dure_hasher **out)
{
    *out = NULL;
    dure_hasher *hasher = calloc(1, sizeof *hasher);
    if (!hasher) return DURE_ERR_NOMEM;
    hasher->context = EVP_MD_CTX_new();
    dure_err err = hasher->context ? restart(hasher) : DURE_ERR_NOMEM;
    if (err) {
        dure_hasher_free(&hasher);
        return err;
    }
    *out = hasher;
    return DURE_OK;
}

dure_err dure_hasher_update(dure_hasher *hasher, const void *data, size_t n)
{
    if (n == 0) return DURE_OK;
    return EVP_DigestUpdate(hasher->context, data, n) == 1 ? DURE_OK : DURE_ERR_CRYPTO;
}

dure_err dure_hasher_final(dure_hash *out, dure_hasher *hasher)
{
    dure_err err = DURE_ERR_CRYPTO;
    if (EVP_DigestFinal_ex(hasher->context, out->b, NULL) == 1) err = restart(hasher);
    if (err) *out = (dure_hash){{0}};
    return err;
}

void dure_hasher_free(dure_hasher **hasher)
{
    if (!hasher || !*hasher) return;
    EVP_MD_CTX_free((*hasher)->context);
    free(*hasher);
    *hasher = NULL;
}
