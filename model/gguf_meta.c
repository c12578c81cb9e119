/* Getters of the metadata: each one checks that the key is there and of the type asked for. */
#include "model/gguf_int.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const element_names[GGUF_VALUE_TYPES] = {
    "u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "text", "array", "u64", "i64", "f64",
};

const gguf_value *gguf_find_value(const dure_gguf *g, const char *key)
{
    size_t low = 0, high = g->n_values;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(key, g->values_by_key[middle]->key);
        if (order == 0) return g->values_by_key[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

bool dure_gguf_has(const dure_gguf *g, const char *key)
{
    return gguf_find_value(g, key) != NULL;
}

static dure_err wrong_type(const gguf_value *value, const char *wanted, dure_diag *diag)
{
    return dure_diag_set(diag, DURE_ERR_FORMAT, "the key %.96s is %s%s, not %s", value->key,
                         value->is_array ? "an array of " : "", element_names[value->element],
                         wanted);
}

static dure_err find_scalar(const gguf_value **out, const dure_gguf *g, const char *key,
                            const char *wanted, dure_diag *diag)
{
    const gguf_value *value = gguf_find_value(g, key);
    if (!value) return dure_diag_set(diag, DURE_ERR_NOT_FOUND, "the key %.96s is missing", key);
    if (value->is_array) return wrong_type(value, wanted, diag);
    *out = value;
    return DURE_OK;
}

static dure_err find_element(const gguf_value **out, const dure_gguf *g, const char *key, size_t i,
                             dure_diag *diag)
{
    const gguf_value *value = gguf_find_value(g, key);
    if (!value) return dure_diag_set(diag, DURE_ERR_NOT_FOUND, "the key %.96s is missing", key);
    if (!value->is_array) return wrong_type(value, "an array", diag);
    if (i >= value->n)
        return dure_diag_set(diag, DURE_ERR_FORMAT, "the array %.96s has only %llu elements", key,
                             (unsigned long long)value->n);
    *out = value;
    return DURE_OK;
}

/* The i-th element as a number in [INT64_MIN, INT64_MAX]; false for other types and larger ones. */
static bool load_integer(int64_t *out, const gguf_value *value, size_t i)
{
    const uint8_t *p = value->data;
    switch (value->element) {
    case GGUF_U8:
        *out = p[i];
        return true;
    case GGUF_I8:
        *out = (int8_t)p[i];
        return true;
    case GGUF_U16:
        *out = (uint16_t)(p[2 * i] | p[2 * i + 1] << 8);
        return true;
    case GGUF_I16:
        *out = (int16_t)(p[2 * i] | p[2 * i + 1] << 8);
        return true;
    case GGUF_U32:
        *out = gguf_load_u32(p + 4 * i);
        return true;
    case GGUF_I32:
        *out = (int32_t)gguf_load_u32(p + 4 * i);
        return true;
    case GGUF_U64:
    case GGUF_I64:
        *out = (int64_t)gguf_load_u64(p + 8 * i);
        return value->element == GGUF_I64 || *out >= 0;
    default:
        return false;
    }
}

static bool load_number(double *out, const gguf_value *value, size_t i)
{
    if (value->element == GGUF_FLOAT32) {
        uint32_t bits = gguf_load_u32(value->data + 4 * i);
        float number;
        memcpy(&number, &bits, sizeof number);
        *out = (double)number;
        return true;
    }
    if (value->element != GGUF_FLOAT64) return false;
    uint64_t bits = gguf_load_u64(value->data + 8 * i);
    memcpy(out, &bits, sizeof *out);
    return true;
}

static dure_span load_text(const gguf_value *value, size_t i)
{
    const uint8_t *p = value->texts[i];
    return dure_span_of(p + 8, (size_t)gguf_load_u64(p));
}

dure_err dure_gguf_u32(uint32_t *out, const dure_gguf *g, const char *key, dure_diag *diag)
{
    const gguf_value *value = NULL;
    int64_t number = 0;
    dure_err err = find_scalar(&value, g, key, "a whole number", diag);
    if (err) return err;
    if (!load_integer(&number, value, 0) || number < 0 || number > UINT32_MAX)
        return wrong_type(value, "a whole number from 0 to 4294967295", diag);
    *out = (uint32_t)number;
    return DURE_OK;
}

dure_err dure_gguf_f32(float *out, const dure_gguf *g, const char *key, dure_diag *diag)
{
    const gguf_value *value = NULL;
    double number = 0;
    dure_err err = find_scalar(&value, g, key, "a number", diag);
    if (err) return err;
    if (!load_number(&number, value, 0)) return wrong_type(value, "a number (f32)", diag);
    if (!isfinite((float)number))
        return dure_diag_set(diag, DURE_ERR_FORMAT, "the key %.96s is not a finite number", key);
    *out = (float)number;
    return DURE_OK;
}

dure_err dure_gguf_bool(bool *out, const dure_gguf *g, const char *key, dure_diag *diag)
{
    const gguf_value *value = NULL;
    dure_err err = find_scalar(&value, g, key, "a bool", diag);
    if (err) return err;
    if (value->element != GGUF_BOOL) return wrong_type(value, "a bool", diag);
    *out = value->data[0] == 1;
    return DURE_OK;
}

dure_err dure_gguf_text(dure_span *out, const dure_gguf *g, const char *key, dure_diag *diag)
{
    const gguf_value *value = NULL;
    dure_err err = find_scalar(&value, g, key, "a text", diag);
    if (err) return err;
    if (value->element != GGUF_TEXT) return wrong_type(value, "a text", diag);
    *out = load_text(value, 0);
    return DURE_OK;
}

dure_err dure_gguf_array(size_t *n, const dure_gguf *g, const char *key, dure_diag *diag)
{
    const gguf_value *value = gguf_find_value(g, key);
    if (!value) return dure_diag_set(diag, DURE_ERR_NOT_FOUND, "the key %.96s is missing", key);
    if (!value->is_array) return wrong_type(value, "an array", diag);
    *n = (size_t)value->n;
    return DURE_OK;
}

dure_err dure_gguf_array_text(dure_span *out, const dure_gguf *g, const char *key, size_t i,
                              dure_diag *diag)
{
    const gguf_value *value = NULL;
    dure_err err = find_element(&value, g, key, i, diag);
    if (err) return err;
    if (value->element != GGUF_TEXT) return wrong_type(value, "an array of texts", diag);
    *out = load_text(value, i);
    return DURE_OK;
}

dure_err dure_gguf_array_i32(int32_t *out, const dure_gguf *g, const char *key, size_t i,
                             dure_diag *diag)
{
    const gguf_value *value = NULL;
    int64_t number = 0;
    dure_err err = find_element(&value, g, key, i, diag);
    if (err) return err;
    if (!load_integer(&number, value, i) || number < INT32_MIN || number > INT32_MAX)
        return wrong_type(value, "an array of i32", diag);
    *out = (int32_t)number;
    return DURE_OK;
}

dure_err dure_gguf_array_f32(float *out, const dure_gguf *g, const char *key, size_t i,
                             dure_diag *diag)
{
    const gguf_value *value = NULL;
    double number = 0;
    dure_err err = find_element(&value, g, key, i, diag);
    if (err) return err;
    if (!load_number(&number, value, i)) return wrong_type(value, "an array of f32", diag);
    *out = (float)number;
    return DURE_OK;
}

dure_err dure_gguf_array_bool(bool *out, const dure_gguf *g, const char *key, size_t i,
                              dure_diag *diag)
{
    const gguf_value *value = NULL;
    dure_err err = find_element(&value, g, key, i, diag);
    if (err) return err;
    if (value->element != GGUF_BOOL) return wrong_type(value, "an array of bools", diag);
    *out = value->data[i] == 1;
    return DURE_OK;
}

size_t dure_gguf_key_count(const dure_gguf *g)
{
    return g->n_values;
}

/* Control bytes could move a terminal's cursor: they become '.'. */
void dure_gguf_print(char text[128], dure_span from)
{
    size_t n = from.n < 124 ? from.n : 121;
    for (size_t i = 0; i < n; i++)
        text[i] = from.data[i] < ' ' || from.data[i] == 127 ? '.' : (char)from.data[i];
    while (n > 0 && n < from.n && (from.data[n] & 0xc0) == 0x80)
        n--; /* not in the middle of a UTF-8 sequence */
    memcpy(text + n, "...", 4);
    if (n == from.n) text[n] = 0;
}

const char *dure_gguf_key_at(char text[128], const dure_gguf *g, size_t i)
{
    if (i >= g->n_values) return NULL;
    const gguf_value *value = &g->values[i];
    int64_t integer;
    double number = 0;
    if (value->is_array)
        snprintf(text, 128, "[%llu x %s]", (unsigned long long)value->n,
                 element_names[value->element]);
    else if (value->element == GGUF_TEXT)
        dure_gguf_print(text, load_text(value, 0));
    else if (value->element == GGUF_BOOL)
        snprintf(text, 128, "%s", value->data[0] ? "true" : "false");
    else if (load_integer(&integer, value, 0))
        snprintf(text, 128, "%lld", (long long)integer);
    else if (load_number(&number, value, 0))
        snprintf(text, 128, "%g", number);
    else
        snprintf(text, 128, "%llu", (unsigned long long)gguf_load_u64(value->data));
    return value->key;
}
