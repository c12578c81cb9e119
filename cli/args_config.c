/* Options from a file, read by a schema that is made from the table of options. */
#include "cli/args.h"
#include "common/file.h"
#include "common/yaml.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FILE_BYTES = 1 << 20, MAX_VALUE_BYTES = 1 << 16 };

static bool is_key(const dure_arg *a)
{
    return a->kind != DURE_ARG_CONFIG && a->kind != DURE_ARG_HEADING && a->kind != DURE_ARG_OPERAND;
}

/* Every key is optional and a text: what is in the text, the table knows. */
static void make_fields(cyaml_schema_field_t *fields, const dure_usage *usage)
{
    size_t n = 0;
    for (size_t i = 0; i < usage->n_args; i++) {
        if (!is_key(&usage->args[i])) continue;
        fields[n++] = (cyaml_schema_field_t){
            .key = usage->args[i].name,
            .data_offset = (uint32_t)(i * sizeof(char *)),
            .value = {.type = CYAML_STRING,
                      .flags = CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
                      .data_size = sizeof(char),
                      .string = {.min = 0, .max = MAX_VALUE_BYTES}},
        };
    }
    fields[n] = (cyaml_schema_field_t)CYAML_FIELD_END;
}

static bool knows(const dure_usage *usage, dure_span name)
{
    for (size_t i = 0; i < usage->n_args; i++) {
        const char *known = usage->args[i].name;
        if (is_key(&usage->args[i]) && strlen(known) == name.n && !memcmp(known, name.data, name.n))
            return true;
    }
    return false;
}

/* libcyaml refuses unknown keys too, but names the line of what comes before them. Keys stand at
 * the start of a line, where nothing else of a value can. */
static dure_err check_keys(const char *path, dure_span text, const dure_usage *usage,
                           dure_diag *diag)
{
    unsigned line = 1;
    for (size_t at = 0; at < text.n; line++) {
        const uint8_t *start = text.data + at, *end = memchr(start, '\n', text.n - at);
        size_t n = end ? (size_t)(end - start) : text.n - at, name = 0;
        at += n + 1;
        while (name < n && (isalnum(start[name]) || start[name] == '-' || start[name] == '_'))
            name++;
        bool key = name > 0 && name < n && start[name] == ':';
        if (!key || knows(usage, dure_span_of(start, name))) continue;
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "%s, line %u: there is no option '%.*s' ('dure %s --help' lists them)",
                             path, line, (int)(name < 64 ? name : 64), (const char *)start,
                             usage->command);
    }
    return DURE_OK;
}

static dure_err copy_values(dure_args_config *config, char *const *values, size_t n)
{
    config->values = calloc(n, sizeof *config->values);
    if (!config->values) return DURE_ERR_NOMEM;
    config->n = n;
    for (size_t i = 0; i < n; i++)
        if (values[i] && !(config->values[i] = strdup(values[i]))) return DURE_ERR_NOMEM;
    return DURE_OK;
}

dure_err dure_args_config_parse(dure_args_config *config, const dure_usage *usage, dure_span text,
                                dure_diag *diag)
{
    cyaml_schema_field_t fields[DURE_ARGS_MAX + 1];
    void *values = NULL;
    make_fields(fields, usage);
    const cyaml_schema_value_t schema = {
        .type = CYAML_MAPPING,
        .flags = CYAML_FLAG_POINTER,
        .data_size = (uint32_t)(usage->n_args * sizeof(char *)),
        .mapping = {.fields = fields},
    };
    dure_err err = check_keys(config->path, text, usage, diag);
    if (!err) err = dure_yaml_parse(&values, &schema, text, config->path, diag);
    if (!err) err = copy_values(config, values, usage->n_args);
    dure_yaml_free(&values, &schema);
    if (err == DURE_ERR_NOMEM) dure_diag_set(diag, err, "%s: %s", config->path, dure_err_text(err));
    return err;
}

dure_err dure_args_config_read(dure_args_config *config, const dure_usage *usage, dure_diag *diag)
{
    dure_buf text;
    dure_err err = dure_file_read(&text, config->path, MAX_FILE_BYTES, diag);
    if (err) return err;
    err = dure_args_config_parse(config, usage, dure_buf_span(&text), diag);
    dure_buf_fini(&text);
    return err;
}

void dure_args_config_fini(dure_args_config *config)
{
    for (size_t i = 0; i < config->n; i++)
        free(config->values[i]);
    free(config->values);
    *config = (dure_args_config){.path = NULL};
}
