/* Reading YAML from outside by a schema: bounded, unknown and missing keys refused, aliases too,
 * every error with file, line and key.
 *
 * A thin layer over libcyaml: the caller declares a cyaml_schema_value_t for its struct and gets
 * one back, already of the right types. */
#pragma once

#include "common/buf.h"
#include "common/err.h"

#include <cyaml/cyaml.h>

/* *out is what `schema` describes (a pointer to a mapping), to be given back with
 * dure_yaml_free(). `name` stands for the source in `diag`. DURE_ERR_FORMAT for anything that does
 * not fit the schema; *out is then NULL. */
DURE_MUST_USE dure_err dure_yaml_parse(void **out, const cyaml_schema_value_t *schema,
                                       dure_span text, const char *name, dure_diag *diag);
void dure_yaml_free(void **value, const cyaml_schema_value_t *schema); /* NULL-safe, nulls */

/* Appends the line `key: "text"`, control characters escaped. */
void dure_yaml_put_text(dure_buf *out, const char *key, const char *text);
/* Appends the shortest decimal that reads back as the same double. */
void dure_yaml_put_number(dure_buf *out, double value);
