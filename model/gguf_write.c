#include "model/gguf_write.h"

#include "common/file.h"
#include "model/gguf_int.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 32, BLOCK_BYTES = 1 << 20 };

typedef struct declared {
    dure_gguf_tensor tensor;
    char name[64];
    size_t row_bytes;
    uint64_t rows;
} declared;

struct dure_gguf_writer {
    dure_buf keys;
    uint64_t n_keys;
    declared *tensors;
    size_t n_tensors, capacity;
    dure_err err; /* first failure of a put of a tensor */
};

dure_err dure_gguf_writer_new(dure_gguf_writer **out)
{
    *out = calloc(1, sizeof **out);
    if (!*out) return DURE_ERR_NOMEM;
    dure_buf_init(&(*out)->keys, (size_t)1 << 31);
    return DURE_OK;
}

void dure_gguf_writer_free(dure_gguf_writer **w)
{
    if (!w || !*w) return;
    dure_buf_fini(&(*w)->keys);
    free((*w)->tensors);
    free(*w);
    *w = NULL;
}

/* The format is little-endian, unlike Dure's own encoding in common/buf.h. */
static void put_le32(dure_buf *buf, uint32_t value)
{
    const uint8_t bytes[4] = {(uint8_t)value, (uint8_t)(value >> 8), (uint8_t)(value >> 16),
                              (uint8_t)(value >> 24)};
    dure_put_raw(buf, bytes, sizeof bytes);
}

static void put_le64(dure_buf *buf, uint64_t value)
{
    put_le32(buf, (uint32_t)value);
    put_le32(buf, (uint32_t)(value >> 32));
}

static void put_string(dure_buf *buf, dure_span text)
{
    put_le64(buf, text.n);
    dure_put_raw(buf, text.data, text.n);
}

static void put_float(dure_buf *buf, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_le32(buf, bits);
}

static dure_buf *begin_key(dure_gguf_writer *w, const char *key, uint32_t type)
{
    w->n_keys++;
    put_string(&w->keys, dure_span_of_text(key));
    put_le32(&w->keys, type);
    return &w->keys;
}

static dure_buf *begin_array(dure_gguf_writer *w, const char *key, uint32_t element, size_t n)
{
    dure_buf *buf = begin_key(w, key, GGUF_ARRAY);
    put_le32(buf, element);
    put_le64(buf, n);
    return buf;
}

void dure_gguf_put_u32(dure_gguf_writer *w, const char *key, uint32_t value)
{
    put_le32(begin_key(w, key, GGUF_U32), value);
}

void dure_gguf_put_f32(dure_gguf_writer *w, const char *key, float value)
{
    put_float(begin_key(w, key, GGUF_FLOAT32), value);
}

void dure_gguf_put_bool(dure_gguf_writer *w, const char *key, bool value)
{
    dure_put_u8(begin_key(w, key, GGUF_BOOL), value ? 1 : 0);
}

void dure_gguf_put_text(dure_gguf_writer *w, const char *key, dure_span text)
{
    put_string(begin_key(w, key, GGUF_TEXT), text);
}

void dure_gguf_put_texts(dure_gguf_writer *w, const char *key, const dure_span *texts, size_t n)
{
    dure_buf *buf = begin_array(w, key, GGUF_TEXT, n);
    for (size_t i = 0; i < n; i++)
        put_string(buf, texts[i]);
}

void dure_gguf_put_i32s(dure_gguf_writer *w, const char *key, const int32_t *values, size_t n)
{
    dure_buf *buf = begin_array(w, key, GGUF_I32, n);
    for (size_t i = 0; i < n; i++)
        put_le32(buf, (uint32_t)values[i]);
}

void dure_gguf_put_f32s(dure_gguf_writer *w, const char *key, const float *values, size_t n)
{
    dure_buf *buf = begin_array(w, key, GGUF_FLOAT32, n);
    for (size_t i = 0; i < n; i++)
        put_float(buf, values[i]);
}

void dure_gguf_put_copy(dure_gguf_writer *w, const dure_gguf *from, size_t i)
{
    DURE_ASSERT(i < from->n_values);
    const gguf_value *value = &from->values[i];
    w->n_keys++;
    put_string(&w->keys, dure_span_of_text(value->key));
    dure_put_raw(&w->keys, value->raw.data, value->raw.n);
}

void dure_gguf_put_tensor(dure_gguf_writer *w, const dure_gguf_tensor *tensor)
{
    if (w->err) return;
    if (w->n_tensors == w->capacity) {
        size_t capacity = w->capacity ? 2 * w->capacity : 64;
        declared *grown = realloc(w->tensors, capacity * sizeof *grown);
        if (!grown) {
            w->err = DURE_ERR_NOMEM;
            return;
        }
        w->tensors = grown;
        w->capacity = capacity;
    }
    declared *d = &w->tensors[w->n_tensors];
    *d = (declared){.tensor = *tensor, .rows = 1};
    size_t name_bytes = strlen(tensor->name);
    DURE_ASSERT(name_bytes > 0 && name_bytes < sizeof d->name && tensor->n_dims <= 4);
    memcpy(d->name, tensor->name, name_bytes + 1);
    for (uint32_t k = 0; k < 4; k++) {
        if (k >= tensor->n_dims) d->tensor.dims[k] = 1;
        if (k > 0) d->rows *= d->tensor.dims[k];
    }
    w->err = dure_gguf_row_bytes(&d->row_bytes, tensor->type, d->tensor.dims[0], NULL);
    if (!w->err && !dure_size_mul(&d->tensor.bytes, d->row_bytes, (size_t)d->rows))
        w->err = DURE_ERR_LIMIT;
    w->n_tensors++;
}

static size_t padding_after(size_t bytes)
{
    return (ALIGNMENT - bytes % ALIGNMENT) % ALIGNMENT;
}

static void put_zeros(dure_buf *out, size_t n)
{
    static const uint8_t zeros[ALIGNMENT];
    dure_put_raw(out, zeros, n);
}

/* All up to the tensors' data, padding included. */
static dure_err encode_header(dure_buf *out, const dure_gguf_writer *w)
{
    if (w->err) return w->err;
    dure_err err = dure_buf_err(&w->keys);
    if (err) return err;
    size_t start = out->n;
    dure_put_raw(out, "GGUF", 4);
    put_le32(out, 3);
    put_le64(out, w->n_tensors);
    put_le64(out, w->n_keys);
    dure_put_raw(out, w->keys.data, w->keys.n);
    uint64_t offset = 0;
    for (size_t i = 0; i < w->n_tensors; i++) {
        const declared *d = &w->tensors[i];
        put_string(out, dure_span_of_text(d->name));
        put_le32(out, d->tensor.n_dims);
        for (uint32_t k = 0; k < d->tensor.n_dims; k++)
            put_le64(out, d->tensor.dims[k]);
        put_le32(out, d->tensor.type);
        put_le64(out, offset);
        offset += d->tensor.bytes + padding_after(d->tensor.bytes);
    }
    put_zeros(out, padding_after(out->n - start));
    return dure_buf_err(out);
}

/* Rows are gathered into blocks: one put a row of a small model would be slow. */
static dure_err write_rows(const dure_gguf_sink *sink, const declared *d, size_t i,
                           dure_gguf_source *source, void *state, dure_diag *diag)
{
    size_t per_block = d->row_bytes ? BLOCK_BYTES / d->row_bytes + 1 : 1;
    if (per_block > d->rows) per_block = (size_t)d->rows;
    uint8_t *block = malloc(per_block * d->row_bytes + 1);
    if (!block) return DURE_ERR_NOMEM;
    dure_err err = DURE_OK;
    size_t held = 0;
    for (uint64_t row = 0; row < d->rows && !err; row++) {
        err = source(state, i, row, block + held * d->row_bytes, diag);
        if (!err && (++held == per_block || row + 1 == d->rows)) {
            err = sink->put(sink->state, dure_span_of(block, held * d->row_bytes), diag);
            held = 0;
        }
    }
    free(block);
    return err;
}

dure_err dure_gguf_writer_write(const dure_gguf_writer *w, const dure_gguf_sink *sink,
                                dure_gguf_source *source, void *state, dure_diag *diag)
{
    static const uint8_t zeros[ALIGNMENT];
    dure_buf header;
    dure_buf_init(&header, SIZE_MAX);
    dure_err err = encode_header(&header, w);
    if (!err) err = sink->put(sink->state, dure_buf_span(&header), diag);
    for (size_t i = 0; i < w->n_tensors && !err; i++) {
        const declared *d = &w->tensors[i];
        DURE_ASSERT(d->tensor.data || d->tensor.bytes == 0 || source);
        if (d->tensor.data)
            err = sink->put(sink->state, dure_span_of(d->tensor.data, d->tensor.bytes), diag);
        else if (d->tensor.bytes)
            err = write_rows(sink, d, i, source, state, diag);
        const size_t padding = padding_after(d->tensor.bytes);
        if (!err && padding) err = sink->put(sink->state, dure_span_of(zeros, padding), diag);
    }
    dure_buf_fini(&header);
    return err;
}

static dure_err put_to_buf(void *state, dure_span bytes, dure_diag *diag)
{
    (void)diag;
    dure_put_raw(state, bytes.data, bytes.n);
    return dure_buf_err(state);
}

dure_err dure_gguf_writer_encode(dure_buf *out, const dure_gguf_writer *w)
{
    const dure_gguf_sink sink = {.put = put_to_buf, .state = out};
    return dure_gguf_writer_write(w, &sink, NULL, NULL, NULL);
}

static dure_err put_to_file(void *state, dure_span bytes, dure_diag *diag)
{
    return dure_file_writer_put(state, bytes, diag);
}

dure_err dure_gguf_writer_save(const dure_gguf_writer *w, const char *path,
                               dure_gguf_source *source, void *state, dure_diag *diag)
{
    dure_file_writer file;
    const dure_gguf_sink sink = {.put = put_to_file, .state = &file};
    dure_err err = dure_file_writer_init(&file, path, 0644, diag);
    if (!err) err = dure_gguf_writer_write(w, &sink, source, state, diag);
    if (!err) err = dure_file_writer_commit(&file, diag);
    dure_file_writer_fini(&file);
    return err;
}
