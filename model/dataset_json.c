/* Records as JSON: one a line, or the elements of one array. */
#include "model/dataset_int.h"

#include <string.h>

static const char *json_reason(const json_error_t *error)
{
    switch (json_error_code(error)) {
    case json_error_invalid_utf8:
        return "it is not UTF-8";
    case json_error_premature_end_of_input:
        return "it ends too early";
    case json_error_duplicate_key:
        return "a key appears twice";
    case json_error_end_of_input_expected:
        return "something follows the record";
    case json_error_null_character:
    case json_error_null_byte_in_key:
        return "it holds a NUL character";
    case json_error_stack_overflow:
        return "it is nested too deeply";
    default:
        return "it is not valid JSON: each line holds one record, {\"prompt\": ..., \"response\": "
               "...}";
    }
}

static bool is_space(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static size_t skip_space(dure_span text, size_t at, uint32_t *line)
{
    for (; at < text.n && is_space(text.data[at]); at++)
        *line += text.data[at] == '\n';
    return at;
}

static dure_err add_line(dure_reading *r, dure_span line)
{
    json_error_t error;
    dure_diag why = {{0}};
    json_t *record = json_loadb((const char *)line.data, line.n, JSON_REJECT_DUPLICATES, &error);
    if (!record)
        dure_diag_set(&why, DURE_ERR_FORMAT, "%s (column %d)", json_reason(&error), error.column);
    dure_err err = dure_dataset_add(r, record, &why);
    json_decref(record);
    return err;
}

static dure_err read_lines(dure_reading *r, dure_span text, size_t at)
{
    dure_err err = DURE_OK;
    while (at < text.n && !err) {
        const uint8_t *start = text.data + at;
        const uint8_t *newline = memchr(start, '\n', text.n - at);
        dure_span line = dure_span_of(start, newline ? (size_t)(newline - start) : text.n - at);
        uint32_t unused = 0;
        at += line.n + 1;
        r->line++;
        if (skip_space(line, 0, &unused) < line.n) err = add_line(r, line);
    }
    return err;
}

/* Takes one element from text[*at], which begins at r->line; *line follows the line breaks. */
static dure_err add_element(dure_reading *r, dure_span text, size_t *at, uint32_t *line)
{
    json_error_t error;
    json_t *record = json_loadb((const char *)text.data + *at, text.n - *at,
                                JSON_REJECT_DUPLICATES | JSON_DISABLE_EOF_CHECK, &error);
    if (!record)
        return dure_diag_set(r->diag, DURE_ERR_FORMAT,
                             "%s, line %u: the array's element cannot be read: %s", r->name,
                             *line + (uint32_t)error.line - 1, json_reason(&error));
    r->line = *line;
    dure_err err = dure_dataset_add(r, record, NULL);
    json_decref(record);
    for (size_t end = *at + (size_t)error.position; *at < end; (*at)++)
        *line += text.data[*at] == '\n';
    return err;
}

static dure_err array_error(const dure_reading *r, uint32_t line, const char *what)
{
    return dure_diag_set(r->diag, DURE_ERR_FORMAT, "%s, line %u: the array %s", r->name, line,
                         what);
}

static dure_err read_array(dure_reading *r, dure_span text, size_t at, uint32_t line)
{
    at = skip_space(text, at + 1, &line);
    bool more = at < text.n && text.data[at] != ']';
    while (more) {
        dure_err err = add_element(r, text, &at, &line);
        if (err) return err;
        at = skip_space(text, at, &line);
        more = at < text.n && text.data[at] == ',';
        if (!more) break;
        at = skip_space(text, at + 1, &line);
    }
    if (at == text.n) return array_error(r, line, "does not end");
    if (text.data[at] != ']')
        return array_error(r, line, "needs a comma and another record here, or to end");
    if (skip_space(text, at + 1, &line) < text.n)
        return array_error(r, line, "ends, and something follows it");
    return DURE_OK;
}

dure_err dure_dataset_json(dure_reading *r, dure_span text, bool may_be_array)
{
    static const uint8_t mark[] = {0xef, 0xbb, 0xbf};
    size_t at = text.n >= sizeof mark && !memcmp(text.data, mark, sizeof mark) ? sizeof mark : 0;
    uint32_t line = 1;
    size_t first = skip_space(text, at, &line);
    if (may_be_array && first < text.n && text.data[first] == '[')
        return read_array(r, text, first, line);
    return read_lines(r, text, at);
}
