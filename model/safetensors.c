#include "model/safetensors.h"

#include "model/gguf.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_TENSORS = 16384 };

static uint64_t load_u64(const uint8_t *p)
{
    uint64_t value = 0;
    for (int i = 7; i >= 0; i--)
        value = value << 8 | p[i];
    return value;
}

static bool is_plain(const char *name)
{
    size_t n = 0;
    while (name[n] > ' ' && name[n] <= '~')
        n++;
    return n > 0 && n < 256 && !name[n];
}

static dure_err take_type(uint32_t *type, size_t *bytes, const json_t *value, const char *name,
                          dure_diag *diag)
{
    static const struct {
        const char *name;
        uint32_t type;
        size_t bytes;
    } types[] = {{"F32", DURE_GGUF_F32, 4}, {"F16", DURE_GGUF_F16, 2}, {"BF16", DURE_GGUF_BF16, 2}};
    const char *text = json_string_value(value);
    for (size_t i = 0; text && i < sizeof types / sizeof types[0]; i++) {
        if (strcmp(text, types[i].name) != 0) continue;
        *type = types[i].type;
        *bytes = types[i].bytes;
        return DURE_OK;
    }
    return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                         "%.128s is of another type than F32, F16 and BF16", name);
}

/* The i-th member of an array of whole numbers; -1 if it is not there. */
static json_int_t number_at(const json_t *array, size_t i)
{
    const json_t *value = json_array_get(array, i);
    return json_is_integer(value) ? json_integer_value(value) : -1;
}

/* Takes its bytes from *left: ranges that overlap would describe more than the file holds. */
static dure_err take_tensor(dure_safetensor *out, size_t *left, const char *name,
                            const json_t *entry, dure_span data, dure_diag *diag)
{
    const json_t *shape = json_object_get(entry, "shape");
    const json_t *range = json_object_get(entry, "data_offsets");
    size_t element = 0;
    dure_err err = take_type(&out->type, &element, json_object_get(entry, "dtype"), name, diag);
    if (err) return err;
    size_t n_dims = json_array_size(shape);
    json_int_t rows = number_at(shape, 0), cols = n_dims == 1 ? 1 : number_at(shape, 1);
    json_int_t begin = number_at(range, 0), end = number_at(range, 1);
    if (n_dims < 1 || n_dims > 2 || rows < 1 || cols < 1)
        return dure_diag_set(diag, DURE_ERR_UNSUPPORTED, "%.128s is no matrix or vector", name);
    size_t bytes = 0;
    if (json_array_size(range) != 2 || begin < 0 || end < begin || (uint64_t)end > data.n ||
        !dure_size_mul(&bytes, (size_t)rows, (size_t)cols) ||
        !dure_size_mul(&bytes, bytes, element) || bytes != (size_t)(end - begin))
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "%.128s: its data_offsets do not fit its shape and the file", name);
    if (bytes > *left)
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "%.128s: its data_offsets overlap those of another tensor", name);
    *left -= bytes;
    out->name = name;
    out->rows = (uint64_t)rows;
    out->cols = (uint64_t)cols;
    out->is_vector = n_dims == 1;
    out->data = data.data + begin;
    return DURE_OK;
}

static dure_err take_all(dure_safetensors *out, dure_span data, dure_diag *diag)
{
    size_t n = json_object_size(out->header), left = data.n;
    if (n > MAX_TENSORS)
        return dure_diag_set(diag, DURE_ERR_LIMIT, "the file has more than %d tensors",
                             MAX_TENSORS);
    out->tensors = calloc(n + 1, sizeof *out->tensors);
    if (!out->tensors) return DURE_ERR_NOMEM;
    const char *name;
    json_t *entry;
    json_object_foreach(out->header, name, entry)
    {
        if (!strcmp(name, "__metadata__")) continue;
        if (!is_plain(name))
            return dure_diag_set(diag, DURE_ERR_FORMAT, "a tensor's name is not printable ASCII");
        dure_err err = take_tensor(&out->tensors[out->n], &left, name, entry, data, diag);
        if (err) return err;
        out->n++;
    }
    return DURE_OK;
}

dure_err dure_safetensors_parse(dure_safetensors *out, dure_span bytes, dure_diag *diag)
{
    *out = (dure_safetensors){0};
    uint64_t n_header = bytes.n >= 8 ? load_u64(bytes.data) : 0;
    if (bytes.n < 8 || n_header > bytes.n - 8 || n_header > DURE_SAFETENSORS_HEADER_MAX)
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "this is not a safetensors file, or it ends too early");
    json_error_t error;
    out->header =
        json_loadb((const char *)bytes.data + 8, (size_t)n_header, JSON_REJECT_DUPLICATES, &error);
    dure_err err = DURE_OK;
    if (!json_is_object(out->header))
        err = dure_diag_set(diag, DURE_ERR_FORMAT, "the safetensors header is not a JSON object");
    dure_span data = dure_span_of(bytes.data + 8 + n_header, bytes.n - 8 - (size_t)n_header);
    if (!err) err = take_all(out, data, diag);
    if (err) dure_safetensors_fini(out);
    return err;
}

void dure_safetensors_fini(dure_safetensors *file)
{
    if (!file) return;
    json_decref(file->header);
    free(file->tensors);
    *file = (dure_safetensors){0};
}

static dure_err make_header(dure_buf *out, const dure_safetensor *tensors, size_t n,
                            const json_t *metadata)
{
    uint64_t offset = 0;
    dure_put_raw(out, "{", 1);
    if (metadata) {
        char *text = json_dumps(metadata, JSON_COMPACT | JSON_SORT_KEYS);
        if (!text) return DURE_ERR_NOMEM;
        dure_put_format(out, "\"__metadata__\":%s%s", text, n ? "," : "");
        free(text);
    }
    for (size_t i = 0; i < n; i++) {
        const dure_safetensor *t = &tensors[i];
        uint64_t end = offset + t->rows * t->cols * sizeof(float);
        dure_put_format(out, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%llu", i ? "," : "", t->name,
                        (unsigned long long)t->rows);
        if (!t->is_vector) dure_put_format(out, ",%llu", (unsigned long long)t->cols);
        dure_put_raw(out, "],", 2);
        dure_put_format(out, "\"data_offsets\":[%llu,%llu]}", (unsigned long long)offset,
                        (unsigned long long)end);
        offset = end;
    }
    dure_put_raw(out, "}", 1);
    while (out->n % 8 && !dure_buf_err(out))
        dure_put_raw(out, " ", 1); /* the data start aligned to 8 bytes */
    return dure_buf_err(out);
}

dure_err dure_safetensors_encode(dure_buf *out, const dure_safetensor *tensors, size_t n,
                                 const json_t *metadata)
{
    dure_buf header;
    dure_buf_init(&header, DURE_SAFETENSORS_HEADER_MAX);
    dure_err err = make_header(&header, tensors, n, metadata);
    uint8_t length[8];
    for (int i = 0; i < 8; i++)
        length[i] = (uint8_t)((uint64_t)header.n >> 8 * i);
    dure_put_raw(out, length, sizeof length);
    dure_put_raw(out, header.data, header.n);
    for (size_t i = 0; i < n; i++)
        dure_put_raw(out, tensors[i].data, (size_t)(tensors[i].rows * tensors[i].cols) * 4);
    dure_buf_fini(&header);
    return err ? err : dure_buf_err(out);
}
