#include "model/csv.h"

#include <string.h>

void dure_csv_init(dure_csv *csv, dure_span text, char separator)
{
    static const uint8_t mark[] = {0xef, 0xbb, 0xbf};
    memset(csv, 0, sizeof *csv);
    csv->text = text;
    csv->separator = separator;
    csv->next = 1;
    if (text.n >= sizeof mark && !memcmp(text.data, mark, sizeof mark)) csv->at = sizeof mark;
    dure_buf_init(&csv->room, SIZE_MAX);
}

void dure_csv_fini(dure_csv *csv)
{
    dure_buf_fini(&csv->room);
}

/* The byte at the cursor, -1 at the end. */
static int look(const dure_csv *csv)
{
    return csv->at < csv->text.n ? csv->text.data[csv->at] : -1;
}

static bool at_row_end(const dure_csv *csv)
{
    int c = look(csv);
    bool crlf = c == '\r' && csv->at + 1 < csv->text.n && csv->text.data[csv->at + 1] == '\n';
    return c < 0 || c == '\n' || crlf || (c == '\r' && csv->at + 1 == csv->text.n);
}

static void skip_row_end(dure_csv *csv)
{
    if (look(csv) == '\r') csv->at++;
    if (look(csv) == '\n') csv->at++;
    csv->next++;
}

/* Copies [from, at) into the row's room. */
static dure_err keep(dure_csv *csv, size_t from, dure_diag *diag)
{
    size_t n = csv->at - from, whole = csv->room.n - csv->start[csv->n];
    if (n > DURE_CSV_FIELD_MAX_BYTES || whole + n > DURE_CSV_FIELD_MAX_BYTES)
        return dure_diag_set(diag, DURE_ERR_LIMIT, "line %u: a field has more than %zu bytes",
                             csv->line, DURE_CSV_FIELD_MAX_BYTES);
    dure_put_raw(&csv->room, csv->text.data + from, n);
    return dure_buf_err(&csv->room);
}

static dure_err take_bare(dure_csv *csv, dure_diag *diag)
{
    size_t from = csv->at;
    while (!at_row_end(csv) && look(csv) != csv->separator) {
        if (look(csv) == '"')
            return dure_diag_set(diag, DURE_ERR_FORMAT,
                                 "line %u: a quote inside a field that does not begin with one; "
                                 "put the whole field in quotes and double those inside",
                                 csv->next);
        csv->at++;
    }
    return keep(csv, from, diag);
}

static dure_err take_quoted(dure_csv *csv, dure_diag *diag)
{
    uint32_t opened = csv->next;
    size_t from = ++csv->at;
    dure_err err = DURE_OK;
    for (;;) {
        int c = look(csv);
        if (c < 0)
            return dure_diag_set(diag, DURE_ERR_FORMAT, "line %u: a quote is never closed", opened);
        if (c == '\n') csv->next++;
        if (c != '"') {
            csv->at++;
            continue;
        }
        err = keep(csv, from, diag);
        csv->at++;
        if (err || look(csv) != '"') break;
        from = csv->at++; /* the second of the pair stays */
    }
    if (!err && !at_row_end(csv) && look(csv) != csv->separator)
        err = dure_diag_set(diag, DURE_ERR_FORMAT,
                            "line %u: something follows a closing quote; double the quotes inside "
                            "a field",
                            csv->next);
    return err;
}

dure_err dure_csv_next(bool *more, dure_csv *csv, dure_diag *diag)
{
    *more = false;
    csv->n = csv->room.n = 0;
    while (look(csv) >= 0 && at_row_end(csv))
        skip_row_end(csv);
    if (look(csv) < 0) return DURE_OK;
    csv->line = csv->next;
    for (;;) {
        if (csv->n == DURE_CSV_COLUMNS_MAX)
            return dure_diag_set(diag, DURE_ERR_LIMIT, "line %u has more than %d fields", csv->line,
                                 DURE_CSV_COLUMNS_MAX);
        csv->start[csv->n] = csv->room.n;
        dure_err err = look(csv) == '"' ? take_quoted(csv, diag) : take_bare(csv, diag);
        if (err) return err;
        csv->end[csv->n++] = csv->room.n;
        if (look(csv) != csv->separator) break;
        csv->at++;
    }
    if (look(csv) >= 0) skip_row_end(csv);
    *more = true;
    return DURE_OK;
}

dure_span dure_csv_field(const dure_csv *csv, size_t i)
{
    return dure_span_of(csv->room.data + csv->start[i], csv->end[i] - csv->start[i]);
}
