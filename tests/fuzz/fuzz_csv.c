/* Any bytes as CSV and TSV. What comes out is in bounds, lines rise, and rows that are written
 * again with every field in quotes read back as the same fields. */
#include "model/csv.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void put_quoted(dure_buf *out, dure_span field)
{
    dure_put_u8(out, '"');
    for (size_t i = 0; i < field.n; i++) {
        if (field.data[i] == '"') dure_put_u8(out, '"');
        dure_put_u8(out, field.data[i]);
    }
    dure_put_u8(out, '"');
}

static void check_again(const dure_csv *row, char separator)
{
    static dure_csv again;
    dure_buf text;
    dure_diag diag = {{0}};
    bool more = false;
    dure_buf_init(&text, SIZE_MAX);
    for (size_t i = 0; i < row->n; i++) {
        if (i) dure_put_u8(&text, (uint8_t)separator);
        put_quoted(&text, dure_csv_field(row, i));
    }
    dure_csv_init(&again, dure_buf_span(&text), separator);
    if (dure_csv_next(&more, &again, &diag) || !more || again.n != row->n) abort();
    for (size_t i = 0; i < row->n; i++) {
        dure_span a = dure_csv_field(row, i), b = dure_csv_field(&again, i);
        if (a.n != b.n || (a.n && memcmp(a.data, b.data, a.n))) abort();
    }
    dure_csv_fini(&again);
    dure_buf_fini(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static dure_csv csv;
    for (int tabs = 0; tabs < 2; tabs++) {
        dure_diag diag = {{0}};
        bool more = true;
        uint32_t last = 0;
        dure_csv_init(&csv, dure_span_of(data, n), tabs ? '\t' : ',');
        while (!dure_csv_next(&more, &csv, &diag) && more) {
            if (csv.line <= last || csv.n == 0) abort();
            last = csv.line;
            check_again(&csv, csv.separator);
        }
        dure_csv_fini(&csv);
    }
    return 0;
}
