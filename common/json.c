#include "common/json.h"

#include "common/clock.h"
#include "common/file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

dure_err dure_json_parse(json_t **out, dure_span text, const char *name, dure_diag *diag)
{
    *out = NULL;
    json_error_t error;
    if (text.n == 0) return dure_diag_set(diag, DURE_ERR_FORMAT, "%s is empty", name);
    json_t *value = json_loadb((const char *)text.data, text.n, JSON_REJECT_DUPLICATES, &error);
    if (!value)
        return dure_diag_set(diag, DURE_ERR_FORMAT, "%s, line %d: %s", name, error.line,
                             error.text);
    *out = value;
    return DURE_OK;
}

dure_err dure_json_read(json_t **out, const char *path, size_t limit, dure_diag *diag)
{
    *out = NULL;
    dure_buf text;
    dure_err err = dure_file_read(&text, path, limit, diag);
    if (err) return err;
    err = dure_json_parse(out, dure_buf_span(&text), path, diag);
    dure_buf_fini(&text);
    return err;
}

static int put_piece(const char *piece, size_t n, void *buf)
{
    dure_put_raw(buf, piece, n);
    return dure_buf_err(buf) ? -1 : 0;
}

dure_err dure_json_write(const char *path, const json_t *value, mode_t mode, dure_diag *diag)
{
    dure_buf text;
    dure_buf_init(&text, (size_t)1 << 30);
    dure_err err = DURE_OK;
    if (json_dump_callback(value, put_piece, &text, JSON_INDENT(2) | JSON_PRESERVE_ORDER))
        err = dure_diag_set(diag, DURE_ERR_NOMEM, "cannot form the JSON of %s", path);
    dure_put_raw(&text, "\n", 1);
    if (!err) err = dure_buf_err(&text);
    if (!err) err = dure_file_write_atomic(path, dure_buf_span(&text), mode, diag);
    dure_buf_fini(&text);
    return err;
}

static dure_err wrong(dure_diag *diag, const char *key, const char *wanted)
{
    return dure_diag_set(diag, DURE_ERR_FORMAT, "\"%s\" is missing or is not %s", key, wanted);
}

dure_err dure_json_text(const char **out, const json_t *object, const char *key, dure_diag *diag)
{
    const char *text = json_string_value(json_object_get(object, key));
    if (!text) return wrong(diag, key, "a text");
    *out = text;
    return DURE_OK;
}

dure_err dure_json_u64(uint64_t *out, const json_t *object, const char *key, dure_diag *diag)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return wrong(diag, key, "a whole number of at least 0");
    *out = (uint64_t)json_integer_value(value);
    return DURE_OK;
}

dure_err dure_json_number(double *out, const json_t *object, const char *key, dure_diag *diag)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_number(value)) return wrong(diag, key, "a number");
    *out = json_number_value(value);
    return DURE_OK;
}

dure_err dure_json_hex(void *out, size_t n, const json_t *object, const char *key, dure_diag *diag)
{
    const char *text;
    dure_err err = dure_json_text(&text, object, key, diag);
    if (err) return err;
    if (dure_hex_decode(out, n, text))
        return dure_diag_set(diag, DURE_ERR_FORMAT, "\"%s\" is not %zu hex digits", key, 2 * n);
    return DURE_OK;
}

json_t *dure_json_from_hex(const void *data, size_t n)
{
    char *text = malloc(2 * n + 1);
    if (!text) return NULL;
    dure_hex_encode(text, data, n);
    json_t *value = json_string(text);
    free(text);
    return value;
}

json_t *dure_json_from_text(const char *text)
{
    json_t *value = json_string(text);
    char *plain = value ? NULL : strdup(text);
    for (char *c = plain; c && *c; c++)
        if ((unsigned char)*c > 127) *c = '?';
    if (plain) value = json_string(plain);
    free(plain);
    return value;
}

json_t *dure_json_from_double(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

json_t *dure_json_from_time(int64_t wall_s)
{
    char text[DURE_CLOCK_TEXT_SIZE];
    if (wall_s == 0) return json_null();
    dure_clock_text(text, wall_s);
    return json_string(text);
}
