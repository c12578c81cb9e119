/* Comma-separated values as RFC 4180 has them: rows of fields, a field in quotes may hold the
 * separator, line breaks and doubled quotes. LF or CRLF ends a row; a row of nothing is skipped; a
 * byte-order mark at the start too.
 *
 * Stricter than some: a quote inside a field that does not begin with one, and anything between a
 * closing quote and the next separator, are errors, because what such a row means is a guess. */
#pragma once

#include "common/buf.h"
#include "common/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { DURE_CSV_COLUMNS_MAX = 256 };
#define DURE_CSV_FIELD_MAX_BYTES ((size_t)1 << 24)

typedef struct dure_csv {
    dure_span text;                                                /* borrowed */
    size_t at;                                                     /* of the next byte */
    uint32_t next;                                                 /* its line, from 1 */
    char separator;                                                /* ',' or '\t' */
    dure_buf room;                                                 /* owns the fields of the row */
    uint32_t line;                                                 /* where the row starts */
    size_t n;                                                      /* its fields */
    size_t start[DURE_CSV_COLUMNS_MAX], end[DURE_CSV_COLUMNS_MAX]; /* in `room` */
} dure_csv;

/* `text` must outlive *csv. dure_csv_fini(csv). */
void dure_csv_init(dure_csv *csv, dure_span text, char separator);
void dure_csv_fini(dure_csv *csv);
/* The next row; *more is false past the last. DURE_ERR_FORMAT or DURE_ERR_LIMIT with a sentence
 * that names the line: nothing after it can be trusted. */
DURE_MUST_USE dure_err dure_csv_next(bool *more, dure_csv *csv, dure_diag *diag);
/* Field i < csv->n of the row, borrowed until the next row. */
dure_span dure_csv_field(const dure_csv *csv, size_t i);
