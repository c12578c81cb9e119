#include "coordinator/next_adapter.h"

#include "federation/global_adapter.h"
#include "federation/server_step.h"
#include "registry/blob.h"

#include <stdlib.h>
#include <string.h>

/* Of the sum as many bytes are read at a time. */
enum { BLOCK_BYTES = 1 << 16 };

/* The file in hand, of which there is at most one: the coordinator's folder is locked. */
static const char unfinished[] = "next-adapter.unfinished";

typedef struct sum_reader {
    dure_blob_file file;
    uint64_t at; /* what of the file was read */
    uint8_t block[BLOCK_BYTES];
    size_t n, taken; /* bytes in the block, and those that were given on */
} sum_reader;

static dure_err fill(sum_reader *r, dure_diag *diag)
{
    const uint64_t left = r->file.n - r->at;
    r->n = left < BLOCK_BYTES ? (size_t)left : BLOCK_BYTES;
    r->taken = 0;
    DURE_ASSERT(r->n > 0); /* the length was compared with what is asked for */
    dure_err err = dure_blob_read(r->block, &r->file, r->at, r->n, diag);
    r->at += r->n;
    return err;
}

static dure_err take_sum(void *state, int32_t *out, size_t n, dure_diag *diag)
{
    sum_reader *r = state;
    while (n > 0) {
        if (r->taken == r->n) {
            dure_err err = fill(r, diag);
            if (err) return err;
        }
        const size_t there = (r->n - r->taken) / 4, some = n < there ? n : there;
        dure_server_step_sum_take(out, r->block + r->taken, some);
        r->taken += 4 * some;
        out += some;
        n -= some;
    }
    return DURE_OK;
}

static dure_err open_sum(sum_reader *r, const dure_next_adapter *next, dure_diag *diag)
{
    dure_err err = dure_blob_open(&r->file, next->blobs, &next->sum, diag);
    if (!err && r->file.n != 4 * next->terms->layout.n_active)
        err = dure_diag_set(diag, DURE_ERR_FORMAT, "the stored sum has the wrong length");
    return err;
}

static dure_err open_present(dure_adapter_view **out, const dure_next_adapter *next,
                             dure_diag *diag)
{
    dure_lora_layout layout;
    dure_err err = dure_global_adapter_layout(&layout, next->terms, diag);
    if (!err) err = dure_blob_check(next->blobs, &next->adapter_in, diag);
    if (err) return err;
    char *path = dure_blob_path(next->blobs, &next->adapter_in);
    err = path ? dure_adapter_view_open(out, path, &layout.shape, diag) : DURE_ERR_NOMEM;
    free(path);
    return err;
}

static dure_err put_piece(void *state, dure_span bytes, dure_diag *diag)
{
    return dure_blob_writer_put(state, bytes, diag);
}

dure_err dure_next_adapter_make(dure_hash *digest, const dure_next_adapter *next, dure_diag *diag)
{
    dure_blob_writer file = {.file = {.fd = -1}};
    const dure_gguf_sink sink = {.put = put_piece, .state = &file};
    dure_global_step step = {.terms = next->terms, .sum = take_sum, .n_sites = next->n_sites};
    sum_reader *reader = calloc(1, sizeof *reader);
    if (!reader) return DURE_ERR_NOMEM;
    step.sum_state = reader;
    dure_err err = open_present(&step.present, next, diag);
    if (!err) err = open_sum(reader, next, diag);
    if (!err) err = dure_blob_writer_init(&file, next->blobs, unfinished, diag);
    if (!err) err = dure_global_adapter_write(&sink, &step, diag);
    if (!err) err = dure_blob_writer_commit(digest, &file, diag);
    dure_blob_writer_fini(&file);
    dure_blob_close(&reader->file);
    dure_adapter_view_close(&step.present);
    free(reader);
    return err;
}
