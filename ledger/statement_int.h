/* The parts of the HTML page: frame and words (statement_html.c), tables (statement_tables.c). */
#pragma once

#include "ledger/statement.h"

/* A piece of HTML as it stands. */
void dure_statement_put(dure_buf *out, const char *html);
/* "2026-03-01 12:00 UTC"; a dash for 0. */
void dure_statement_put_time(dure_buf *out, int64_t time_s);
/* The first `n` hex digits of n_bytes, in a fixed-width face; all of them when n is 0. */
void dure_statement_put_hex(dure_buf *out, const uint8_t *bytes, size_t n_bytes, size_t n);
/* "2.31", or "no bound" when it is not finite. */
void dure_statement_put_epsilon(dure_buf *out, double epsilon);
/* "8.3 x 10^-5", typeset. */
void dure_statement_put_delta(dure_buf *out, double delta);

void dure_statement_put_sites(dure_buf *out, const dure_statement *s);
void dure_statement_put_budget(dure_buf *out, const dure_statement *s);
void dure_statement_put_mechanism(dure_buf *out, const dure_statement *s);
void dure_statement_put_rounds(dure_buf *out, const dure_statement *s);
void dure_statement_put_acts(dure_buf *out, const dure_statement *s);
void dure_statement_put_incidents(dure_buf *out, const dure_statement *s);
void dure_statement_put_checks(dure_buf *out, const dure_statement *s);
void dure_statement_put_canary(dure_buf *out, const dure_statement *s);
void dure_statement_put_identifiers(dure_buf *out, const dure_statement *s);

/* Of the curves, the one with the largest epsilon; NULL if there is none. */
const dure_statement_curve *dure_statement_largest(const dure_statement *s);
/* "X25519 and AES-256-CTR ...", for a number that is not known "suite N". */
void dure_statement_suite(char text[96], uint32_t suite);
