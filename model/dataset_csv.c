/* Records as rows under a header: each becomes the JSON object that the header's names make of it,
 * so that a column means what the key of the same name means. */
#include "model/csv.h"
#include "model/dataset_int.h"

#include <string.h>

typedef struct table {
    dure_reading *r;
    dure_csv csv;
    json_t *header; /* array of names */
} table;

static const char *name_of(const table *t, size_t i)
{
    return json_string_value(json_array_get(t->header, i));
}

static bool names(const table *t, const char *name)
{
    for (size_t i = 0; i < json_array_size(t->header); i++)
        if (!strcmp(name_of(t, i), name)) return true;
    return false;
}

static dure_err check_header(const table *t, dure_diag *diag)
{
    if ((names(t, "prompt") && names(t, "response")) ||
        (names(t, "instruction") && names(t, "output")) || names(t, "text"))
        return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_FORMAT,
                         "the first row names the columns, and these have to be among them: prompt "
                         "and response, or instruction and output (and input), or text");
}

static dure_err read_header(table *t, dure_diag *diag)
{
    bool more = false;
    dure_err err = dure_csv_next(&more, &t->csv, diag);
    if (err || !more) return err;
    t->header = json_array();
    for (size_t i = 0; i < t->csv.n; i++) {
        dure_span field = dure_csv_field(&t->csv, i);
        json_t *name = memchr(field.data, 0, field.n) || field.n == 0
                           ? NULL
                           : json_stringn((const char *)field.data, field.n);
        if (!name)
            return dure_diag_set(diag, DURE_ERR_FORMAT,
                                 "line %u: the name of column %zu is empty or not UTF-8",
                                 t->csv.line, i + 1);
        if (names(t, json_string_value(name))) {
            json_decref(name);
            return dure_diag_set(diag, DURE_ERR_FORMAT,
                                 "line %u: column %zu has the name of an "
                                 "earlier one",
                                 t->csv.line, i + 1);
        }
        if (json_array_append_new(t->header, name)) return DURE_ERR_NOMEM;
    }
    return check_header(t, diag);
}

/* NULL with a sentence when the row is no record. */
static json_t *record_of(const table *t, dure_diag *why)
{
    size_t n = json_array_size(t->header);
    if (t->csv.n != n) {
        dure_diag_set(why, DURE_ERR_FORMAT, "the row has %zu fields, and the header %zu", t->csv.n,
                      n);
        return NULL;
    }
    json_t *record = json_object();
    for (size_t i = 0; i < n && record; i++) {
        dure_span field = dure_csv_field(&t->csv, i);
        json_t *value =
            memchr(field.data, 0, field.n) ? NULL : json_stringn((const char *)field.data, field.n);
        if (value && !json_object_set_new(record, name_of(t, i), value)) continue;
        dure_diag_set(why, DURE_ERR_FORMAT, "column '%s' is not UTF-8 text", name_of(t, i));
        json_decref(record);
        record = NULL;
    }
    return record;
}

dure_err dure_dataset_csv(dure_reading *r, dure_span text, char separator)
{
    table t = {.r = r};
    dure_diag diag = {{0}};
    bool more = true;
    dure_csv_init(&t.csv, text, separator);
    dure_err err = read_header(&t, &diag);
    if (!err && !t.header) more = false;
    while (!err && more) {
        err = dure_csv_next(&more, &t.csv, &diag);
        if (err || !more) break;
        dure_diag why = {{0}};
        json_t *record = record_of(&t, &why);
        r->line = t.csv.line;
        err = dure_dataset_add(r, record, &why);
        json_decref(record);
        if (err) goto out; /* r->diag has the sentence */
    }
    if (err) dure_diag_set(r->diag, err, "%s: %s", r->name, diag.text);
out:
    json_decref(t.header);
    dure_csv_fini(&t.csv);
    return err;
}
