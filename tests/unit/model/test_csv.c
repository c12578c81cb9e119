/* Comma-separated values as RFC 4180 has them. */
#include "model/csv.h"
#include "support/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* All rows as "line[field|field]"; the error, if one ends it. */
static dure_err rows_of(char out[1024], const char *text, size_t n, dure_diag *diag)
{
    dure_csv csv;
    bool more = true;
    dure_err err = DURE_OK;
    size_t at = 0;
    out[0] = 0;
    dure_csv_init(&csv, dure_span_of(text, n), ',');
    while (!(err = dure_csv_next(&more, &csv, diag)) && more) {
        at += (size_t)snprintf(out + at, 1024 - at, "%u[", csv.line);
        for (size_t i = 0; i < csv.n; i++) {
            dure_span field = dure_csv_field(&csv, i);
            at += (size_t)snprintf(out + at, 1024 - at, "%s%.*s", i ? "|" : "", (int)field.n,
                                   (const char *)field.data);
        }
        at += (size_t)snprintf(out + at, 1024 - at, "]");
    }
    dure_csv_fini(&csv);
    return err;
}

static void check_rows(const char *text, const char *want)
{
    char got[1024];
    dure_diag diag = {{0}};
    if (rows_of(got, text, strlen(text), &diag)) fail_msg("%s: %s", text, diag.text);
    if (strcmp(got, want) != 0) fail_msg("'%s' gives %s, not %s", text, got, want);
}

static void test_csv_reads_what_rfc_4180_says(void **state)
{
    (void)state;
    check_rows("", "");
    check_rows("a,b,c\n1,2,3\n", "1[a|b|c]2[1|2|3]");
    check_rows("a,b\r\n1,2\r\n", "1[a|b]2[1|2]");
    check_rows("a,b\n1,2", "1[a|b]2[1|2]");
    check_rows("a,b\n1,2\r", "1[a|b]2[1|2]");
    check_rows("\"a\",\"b\"\n", "1[a|b]");
    check_rows("\"a,\"\"b\"\"\",c\n", "1[a,\"b\"|c]");
    check_rows("\"\"\"\"\n", "1[\"]");
    check_rows("a,,\n,\n", "1[a||]2[|]");
    check_rows("\"\",\"\"\n", "1[|]");
    check_rows(" a , b \n", "1[ a | b ]");
    check_rows("a\rb,c\n", "1[a\rb|c]");
}

static void test_csv_counts_lines_through_quotes_and_blank_rows(void **state)
{
    (void)state;
    check_rows("\"a\nb\",c\nd,e\n", "1[a\nb|c]3[d|e]");
    check_rows("a\r\n\r\n\nb\n", "1[a]4[b]");
    check_rows("\"x\r\ny\"\r\nz", "1[x\r\ny]3[z]");
}

static void test_csv_drops_a_byte_order_mark(void **state)
{
    (void)state;
    check_rows("\xef\xbb\xbf"
               "a,b\n",
               "1[a|b]");
    check_rows("\xef\xbb\xbf\"a\",b\n", "1[a|b]");
}

static void test_csv_names_the_line_of_what_cannot_be_read(void **state)
{
    (void)state;
    static const struct {
        const char *text, *sentence;
    } bad[] = {
        {"a,b\n1,\"2", "line 2: a quote is never closed"},
        {"a\n\"x\ny", "line 2: a quote is never closed"},
        {"a\n1\"2\n", "line 2: a quote inside a field"},
        {"a\n\"1\"2\n", "line 2: something follows a closing quote"},
        {"a\n\"1\n\" \n", "line 3: something follows a closing quote"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char got[1024];
        dure_diag diag = {{0}};
        assert_err(rows_of(got, bad[i].text, strlen(bad[i].text), &diag), DURE_ERR_FORMAT);
        if (!strstr(diag.text, bad[i].sentence)) fail_msg("%s: %s", bad[i].text, diag.text);
    }
}

static dure_err first_row(const char *text, size_t n)
{
    dure_csv csv;
    bool more = false;
    dure_csv_init(&csv, dure_span_of(text, n), ',');
    dure_err err = dure_csv_next(&more, &csv, NULL);
    dure_csv_fini(&csv);
    return err;
}

static void test_csv_limits_columns_and_fields(void **state)
{
    (void)state;
    char row[DURE_CSV_COLUMNS_MAX];
    memset(row, ',', sizeof row);
    assert_ok(first_row(row, DURE_CSV_COLUMNS_MAX - 1));
    assert_err(first_row(row, DURE_CSV_COLUMNS_MAX), DURE_ERR_LIMIT);
    size_t most = DURE_CSV_FIELD_MAX_BYTES;
    char *text = malloc(most + 5);
    assert_non_null(text);
    memset(text, 'x', most + 5);
    assert_ok(first_row(text, most));
    assert_err(first_row(text, most + 1), DURE_ERR_LIMIT);
    /* In two parts, around a doubled quote that counts once. */
    text[0] = text[9] = text[10] = '"';
    text[most + 2] = text[most + 3] = '"';
    assert_ok(first_row(text, most + 3));
    text[most + 2] = 'x';
    assert_err(first_row(text, most + 4), DURE_ERR_LIMIT);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_csv_reads_what_rfc_4180_says),
        cmocka_unit_test(test_csv_counts_lines_through_quotes_and_blank_rows),
        cmocka_unit_test(test_csv_drops_a_byte_order_mark),
        cmocka_unit_test(test_csv_names_the_line_of_what_cannot_be_read),
        cmocka_unit_test(test_csv_limits_columns_and_fields),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
