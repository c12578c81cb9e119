#include "common/yaml.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* libcyaml says first what is wrong, then where, from the innermost value outwards, one line a
 * call. The first of each kind makes the sentence. */
typedef struct complaint {
    char what[256];
    char where[128];
} complaint;

static void collect(cyaml_log_t level, void *state, const char *format, va_list args)
    __attribute__((format(printf, 3, 0)));

static void collect(cyaml_log_t level, void *state, const char *format, va_list args)
{
    complaint *c = state;
    char line[256];
    if (level < CYAML_LOG_ERROR) return;
    vsnprintf(line, sizeof line, format, args);
    line[strcspn(line, "\n")] = 0;
    const char *text = strncmp(line, "Load: ", 6) == 0 ? line + 6 : line;
    text += strspn(text, " ");
    if (strstr(text, "(line: ")) {
        if (!c->where[0]) snprintf(c->where, sizeof c->where, "%s", text);
    } else if (!c->what[0] && strcmp(text, "Backtrace:") != 0) {
        snprintf(c->what, sizeof c->what, "%s", text);
    }
}

static void *reallocate(void *state, void *memory, size_t n)
{
    (void)state;
    if (n == 0) {
        free(memory);
        return NULL;
    }
    return realloc(memory, n);
}

static cyaml_config_t configuration(complaint *c)
{
    return (cyaml_config_t){.log_fn = collect,
                            .log_ctx = c,
                            .log_level = CYAML_LOG_ERROR,
                            .mem_fn = reallocate,
                            .flags = CYAML_CFG_NO_ALIAS};
}

dure_err dure_yaml_parse(void **out, const cyaml_schema_value_t *schema, dure_span text,
                         const char *name, dure_diag *diag)
{
    complaint c = {{0}, {0}};
    const cyaml_config_t config = configuration(&c);
    *out = NULL;
    /* libyaml asserts that there is something to read. */
    if (text.n == 0) return dure_diag_set(diag, DURE_ERR_FORMAT, "%s is empty", name);
    if (memchr(text.data, 0, text.n))
        return dure_diag_set(diag, DURE_ERR_FORMAT, "%s holds a zero byte: it is no text", name);
    void *value = NULL;
    cyaml_err_t failure = cyaml_load_data(text.data, text.n, &config, schema, &value, NULL);
    if (failure == CYAML_OK && !value)
        return dure_diag_set(diag, DURE_ERR_FORMAT, "%s is empty", name);
    if (failure != CYAML_OK) {
        const char *what = c.what[0] ? c.what : cyaml_strerror(failure);
        return dure_diag_set(diag, failure == CYAML_ERR_OOM ? DURE_ERR_NOMEM : DURE_ERR_FORMAT,
                             c.where[0] ? "%s: %s, %s" : "%s: %s", name, what, c.where);
    }
    *out = value;
    return DURE_OK;
}

void dure_yaml_free(void **value, const cyaml_schema_value_t *schema)
{
    if (!value || !*value) return;
    complaint ignored = {{0}, {0}};
    const cyaml_config_t config = configuration(&ignored);
    cyaml_free(&config, schema, *value, 0);
    *value = NULL;
}

void dure_yaml_put_text(dure_buf *out, const char *key, const char *text)
{
    dure_put_format(out, "%s: \"", key);
    for (const char *c = text; *c; c++) {
        const unsigned char byte = (unsigned char)*c;
        if (byte == '"' || byte == '\\')
            dure_put_format(out, "\\%c", byte);
        else if (byte < 0x20 || byte == 0x7f)
            dure_put_format(out, "\\x%02x", byte);
        else
            dure_put_raw(out, c, 1);
    }
    dure_put_raw(out, "\"\n", 2);
}

void dure_yaml_put_number(dure_buf *out, double value)
{
    char text[40];
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
    dure_put_raw(out, text, strlen(text));
}
