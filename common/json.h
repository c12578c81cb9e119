/* Reading JSON from outside: bounded, duplicate keys refused, every error with file and line.
 * A thin layer over jansson: the value is its json_t, the getters name the key they miss. */
#pragma once

#include "common/buf.h"
#include "common/err.h"

#include <jansson.h>
#include <stdint.h>

/* The caller owns *out (json_decref). `name` stands for the source in `diag`. */
DURE_MUST_USE dure_err dure_json_parse(json_t **out, dure_span text, const char *name,
                                       dure_diag *diag);
DURE_MUST_USE dure_err dure_json_read(json_t **out, const char *path, size_t limit,
                                      dure_diag *diag);
/* Writes indented JSON and a newline, atomically. Steals no reference. */
DURE_MUST_USE dure_err dure_json_write(const char *path, const json_t *value, mode_t mode,
                                       dure_diag *diag);

/* Required members of `object`; a missing one or one of another type is DURE_ERR_FORMAT. Text is
 * borrowed from `object`. */
DURE_MUST_USE dure_err dure_json_text(const char **out, const json_t *object, const char *key,
                                      dure_diag *diag);
DURE_MUST_USE dure_err dure_json_u64(uint64_t *out, const json_t *object, const char *key,
                                     dure_diag *diag);
DURE_MUST_USE dure_err dure_json_number(double *out, const json_t *object, const char *key,
                                        dure_diag *diag);
/* Exactly n bytes as 2n hex digits. */
DURE_MUST_USE dure_err dure_json_hex(void *out, size_t n, const json_t *object, const char *key,
                                     dure_diag *diag);
/* A new JSON string of the bytes in hex; NULL when out of memory. */
json_t *dure_json_from_hex(const void *data, size_t n);
/* A new JSON string of text from outside: where it is no UTF-8, each byte above 127 becomes '?'.
 * NULL when out of memory. */
json_t *dure_json_from_text(const char *text);
/* A new JSON number; null for what is not finite, since JSON has no infinity. */
json_t *dure_json_from_double(double value);
/* A new JSON string, as of dure_clock_text(); null for 0. */
json_t *dure_json_from_time(int64_t wall_s);
