#include "client/attempt.h"

#include "common/file.h"
#include "crypto/wipe.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* magic, key, binding, data, note, SHA-256 of all before it: the sum finds a damaged file, which
 * would otherwise resume with other noise. */
static const char magic[8] = {'d', 'u', 'r', 'e', 'k', 'e', 'y', '1'};

enum {
    BODY_BYTES = sizeof magic + DURE_RNG_KEY_BYTES + 2 * DURE_HASH_BYTES + DURE_ATTEMPT_NOTE_BYTES,
    FILE_BYTES = BODY_BYTES + DURE_HASH_BYTES,
};

static dure_err encode(uint8_t file[FILE_BYTES], const dure_attempt *a)
{
    dure_hash sum;
    uint8_t *at = file;
    memcpy(at, magic, sizeof magic);
    at += sizeof magic;
    memcpy(at, a->key, sizeof a->key);
    at += sizeof a->key;
    memcpy(at, a->binding.b, DURE_HASH_BYTES);
    at += DURE_HASH_BYTES;
    memcpy(at, a->data.b, DURE_HASH_BYTES);
    at += DURE_HASH_BYTES;
    memcpy(at, a->note, sizeof a->note);
    dure_err err = dure_hash_bytes(&sum, dure_span_of(file, BODY_BYTES));
    memcpy(file + BODY_BYTES, sum.b, DURE_HASH_BYTES);
    return err;
}

static dure_err decode(dure_attempt *a, dure_span file)
{
    dure_hash sum;
    if (file.n != FILE_BYTES) return DURE_ERR_FORMAT;
    dure_err err = dure_hash_bytes(&sum, dure_span_of(file.data, BODY_BYTES));
    if (err) return err;
    if (!dure_ct_equal(sum.b, file.data + BODY_BYTES, DURE_HASH_BYTES) ||
        !dure_ct_equal(magic, file.data, sizeof magic))
        return DURE_ERR_FORMAT;
    dure_reader r = dure_reader_of(file);
    r.at = sizeof magic;
    err = dure_take_copy(a->key, &r, sizeof a->key);
    if (!err) err = dure_take_copy(a->binding.b, &r, DURE_HASH_BYTES);
    if (!err) err = dure_take_copy(a->data.b, &r, DURE_HASH_BYTES);
    if (!err) err = dure_take_copy(a->note, &r, sizeof a->note);
    return err;
}

bool dure_attempt_exists(const char *path)
{
    static const uint8_t zeros[FILE_BYTES];
    dure_buf file;
    if (!dure_file_exists(path)) return false;
    if (dure_file_read(&file, path, FILE_BYTES, NULL)) return true;
    bool erased = file.n == FILE_BYTES && dure_ct_equal(file.data, zeros, FILE_BYTES);
    dure_wipe(file.data, file.n);
    dure_buf_fini(&file);
    return !erased;
}

dure_err dure_attempt_begin(dure_attempt *out, const char *path, const dure_hash *binding,
                            const dure_hash *data, const uint8_t note[DURE_ATTEMPT_NOTE_BYTES],
                            dure_diag *diag)
{
    uint8_t file[FILE_BYTES];
    dure_rng rng = dure_rng_system();
    *out = (dure_attempt){.binding = *binding, .data = *data};
    memcpy(out->note, note, sizeof out->note);
    if (dure_attempt_exists(path))
        return dure_diag_set(diag, DURE_ERR_EXISTS, "%s holds an attempt that did not close", path);
    out->path = strdup(path);
    dure_err err = out->path ? DURE_OK : DURE_ERR_NOMEM;
    if (!err) err = dure_rng_fill(&rng, out->key, sizeof out->key);
    if (!err) err = encode(file, out);
    if (err) dure_diag_set(diag, err, "cannot begin a training attempt: %s", dure_err_text(err));
    if (!err) err = dure_file_write_atomic(path, dure_span_of(file, sizeof file), 0600, diag);
    dure_wipe(file, sizeof file);
    if (err) dure_attempt_fini(out);
    return err;
}

dure_err dure_attempt_open(dure_attempt *out, const char *path, dure_diag *diag)
{
    dure_buf file;
    *out = (dure_attempt){.path = NULL};
    dure_err err = dure_file_read(&file, path, 4096, diag);
    if (err) return err;
    err = decode(out, dure_buf_span(&file));
    if (err == DURE_ERR_FORMAT)
        dure_diag_set(diag, err,
                      "%s is damaged, so the attempt cannot go on; remove its folder to start a "
                      "new one (what it reserved stays counted)",
                      path);
    if (!err && !(out->path = strdup(path))) err = DURE_ERR_NOMEM;
    dure_wipe(file.data, file.n);
    dure_buf_fini(&file);
    if (err) dure_attempt_fini(out);
    return err;
}

dure_err dure_attempt_name(dure_hash *out, const dure_attempt *attempt)
{
    const dure_span field = dure_span_of(attempt->key, sizeof attempt->key);
    return dure_hash_labeled(out, "dure/attempt/name/1", &field, 1);
}

dure_err dure_attempt_check(const dure_attempt *attempt, const dure_hash *binding,
                            const dure_hash *data, dure_diag *diag)
{
    if (!dure_hash_equal(&attempt->binding, binding))
        return dure_diag_set(diag, DURE_ERR_STATE,
                             "%s belongs to a run with other settings; repeat those, or remove its "
                             "folder to start anew (what it reserved stays counted)",
                             attempt->path);
    if (!dure_hash_equal(&attempt->data, data))
        return dure_diag_set(diag, DURE_ERR_STATE,
                             "%s belongs to a run on other records; put the data back as they "
                             "were, or remove its folder to start anew (what it reserved stays "
                             "counted)",
                             attempt->path);
    return DURE_OK;
}

/* Zeros over the old bytes first: removing a name leaves them on the disk. File systems that copy
 * on write keep older blocks all the same, which only an encrypted disk covers. */
static dure_err overwrite(const char *path, dure_diag *diag)
{
    static const uint8_t zeros[FILE_BYTES];
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return dure_file_errno(diag, "open", path);
    dure_err err = DURE_OK;
    if (write(fd, zeros, sizeof zeros) != (ssize_t)sizeof zeros || fsync(fd))
        err = dure_file_errno(diag, "overwrite", path);
    close(fd);
    return err;
}

dure_err dure_attempt_erase(dure_attempt *attempt, dure_diag *diag)
{
    dure_err err = overwrite(attempt->path, diag);
    if (err == DURE_ERR_NOT_FOUND)
        err = DURE_OK; /* erased before */
    else if (!err && unlink(attempt->path))
        err = dure_file_errno(diag, "remove", attempt->path);
    dure_attempt_fini(attempt);
    return err;
}

void dure_attempt_fini(dure_attempt *attempt)
{
    free(attempt->path);
    dure_wipe(attempt, sizeof *attempt);
}

dure_err dure_attempt_stream(dure_stream **out, const dure_attempt *attempt, const char *use,
                             uint64_t step, uint64_t block)
{
    dure_buf context;
    *out = NULL;
    dure_buf_init(&context, 1024);
    dure_put_text(&context, use);
    dure_put_raw(&context, attempt->binding.b, DURE_HASH_BYTES);
    dure_put_raw(&context, attempt->data.b, DURE_HASH_BYTES);
    dure_put_u64(&context, step);
    dure_put_u64(&context, block);
    dure_err err = dure_buf_err(&context);
    if (!err) err = dure_stream_new(out, attempt->key, dure_buf_span(&context));
    dure_buf_fini(&context);
    return err;
}
