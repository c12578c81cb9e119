#include "model/dataset.h"

#include "common/file.h"
#include "model/conversation.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_MAX_RECORDS = 10000000 };
#define MAX_FILE_BYTES ((size_t)4 << 30)

/* What one call works with, and where it is in the file. */
typedef struct reading {
    dure_dataset *data;
    const dure_tokenizer *t;
    const dure_chat_template *chat;
    const dure_dataset_opts *opts;
    const char *name;
    uint32_t line;
    size_t capacity; /* of data->records */
    dure_diag *diag;
} reading;

static const char *json_reason(const json_error_t *error)
{
    switch (json_error_code(error)) {
    case json_error_invalid_utf8:
        return "it is not UTF-8";
    case json_error_premature_end_of_input:
        return "it ends too early";
    case json_error_duplicate_key:
        return "a key appears twice";
    case json_error_end_of_input_expected:
        return "something follows the record";
    case json_error_null_character:
    case json_error_null_byte_in_key:
        return "it holds a NUL character";
    case json_error_stack_overflow:
        return "it is nested too deeply";
    default:
        return "it is not valid JSON: each line holds one record, {\"prompt\": ..., \"response\": "
               "...}";
    }
}

static uint32_t count_labels(const dure_tokens *tokens, size_t first)
{
    uint32_t n = 0;
    for (size_t i = first; i < tokens->n; i++)
        n += tokens->supervised[i];
    return n;
}

static void tell(const reading *r, const char *sentence)
{
    if (r->opts->listener) r->opts->listener(r->opts->listener_state, r->line, sentence);
}

/* Cuts a record that is too long, or refuses it, and notices when no label is left. */
static dure_err fit(const reading *r, size_t first, dure_diag *diag)
{
    dure_tokens *tokens = &r->data->tokens;
    size_t n = tokens->n - first;
    if (n <= r->opts->max_length) return DURE_OK;
    dure_diag_set(diag, DURE_ERR_LIMIT,
                  "the record has %zu tokens, more than the maximum length of %u; shorten it or "
                  "raise --max-length (at most the model's context)",
                  n, r->opts->max_length);
    if (!r->opts->tolerant) return DURE_ERR_LIMIT;
    tokens->n = first + r->opts->max_length;
    r->data->n_cut++;
    if (count_labels(tokens, first) == 0)
        return dure_diag_set(diag, DURE_ERR_LIMIT,
                             "no part of the response is within the first %u of %zu tokens; "
                             "shorten the prompt or raise --max-length",
                             r->opts->max_length, n);
    tell(r, diag->text);
    return DURE_OK;
}

/* The record's tokens are appended to data->tokens; on error the caller drops them. */
static dure_err read_record(const reading *r, dure_span text, dure_diag *diag)
{
    json_error_t error;
    dure_conversation talk = {0};
    size_t first = r->data->tokens.n;
    json_t *record = json_loadb((const char *)text.data, text.n, JSON_REJECT_DUPLICATES, &error);
    dure_err err = DURE_OK;
    if (!record)
        err = dure_diag_set(diag, DURE_ERR_FORMAT, "%s (column %d)", json_reason(&error),
                            error.column);
    if (!err) err = dure_conversation_read(&talk, record, diag);
    if (!err && !talk.answered)
        err = dure_diag_set(diag, DURE_ERR_FORMAT,
                            "the record has no response to learn from: give it a \"response\", or "
                            "an assistant message, that is not empty");
    if (!err)
        err = dure_chat_render(&r->data->tokens, r->chat, r->t, talk.messages, talk.n, false, diag);
    if (!err) err = fit(r, first, diag);
    dure_conversation_fini(&talk);
    json_decref(record);
    return err;
}

static dure_err reserve_record(reading *r)
{
    if (r->data->n < r->capacity) return DURE_OK;
    size_t capacity = r->capacity ? 2 * r->capacity : 256;
    dure_record *records = realloc(r->data->records, capacity * sizeof *records);
    if (!records) return DURE_ERR_NOMEM;
    r->data->records = records;
    r->capacity = capacity;
    return DURE_OK;
}

static dure_err add_record(reading *r, dure_span text)
{
    size_t first = r->data->tokens.n;
    size_t most = r->opts->max_records ? r->opts->max_records : DEFAULT_MAX_RECORDS;
    if (r->data->n == most)
        return dure_diag_set(r->diag, DURE_ERR_LIMIT, "%s has more than %zu records", r->name,
                             most);
    dure_err err = reserve_record(r);
    if (err) return err;
    dure_diag why = {0};
    err = read_record(r, text, &why);
    if (err == DURE_ERR_NOMEM) return err;
    if (err && !r->opts->tolerant)
        return dure_diag_set(r->diag, err, "%s, line %u: %s", r->name, r->line, why.text);
    if (err) {
        tell(r, why.text);
        r->data->tokens.n = first;
        r->data->n_unusable++;
    }
    r->data->records[r->data->n++] =
        (dure_record){.first = first,
                      .n = r->data->tokens.n - first,
                      .n_labels = count_labels(&r->data->tokens, first),
                      .line = r->line};
    return DURE_OK;
}

static bool is_blank(dure_span text)
{
    for (size_t i = 0; i < text.n; i++)
        if (!strchr(" \t\r", text.data[i]) || !text.data[i]) return false;
    return true;
}

static dure_err read_lines(reading *r, dure_span text)
{
    static const uint8_t bom[] = {0xef, 0xbb, 0xbf};
    size_t at = text.n >= sizeof bom && !memcmp(text.data, bom, sizeof bom) ? sizeof bom : 0;
    dure_err err = DURE_OK;
    while (at < text.n && !err) {
        const uint8_t *start = text.data + at;
        const uint8_t *newline = memchr(start, '\n', text.n - at);
        dure_span line = dure_span_of(start, newline ? (size_t)(newline - start) : text.n - at);
        at += line.n + 1;
        r->line++;
        if (!is_blank(line)) err = add_record(r, line);
    }
    if (!err && r->data->n == 0)
        err = dure_diag_set(r->diag, DURE_ERR_FORMAT,
                            "%s holds no record; write one JSON object a line", r->name);
    return err;
}

dure_err dure_dataset_parse(dure_dataset *out, dure_span text, const char *name,
                            const dure_tokenizer *t, const dure_chat_template *chat,
                            const dure_dataset_opts *opts, dure_diag *diag)
{
    *out = (dure_dataset){0};
    if (opts->max_length < 2)
        return dure_diag_set(diag, DURE_ERR_USAGE, "--max-length must be at least 2");
    reading r = {.data = out, .t = t, .chat = chat, .opts = opts, .name = name, .diag = diag};
    dure_err err = read_lines(&r, text);
    if (err) dure_dataset_fini(out);
    return err;
}

dure_err dure_dataset_read(dure_dataset *out, const char *path, const dure_tokenizer *t,
                           const dure_chat_template *chat, const dure_dataset_opts *opts,
                           dure_diag *diag)
{
    *out = (dure_dataset){0};
    dure_buf text;
    dure_err err = dure_file_read(&text, path, MAX_FILE_BYTES, diag);
    if (err) return err;
    err = dure_dataset_parse(out, dure_buf_span(&text), path, t, chat, opts, diag);
    dure_buf_fini(&text);
    return err;
}

void dure_dataset_fini(dure_dataset *data)
{
    if (!data) return;
    dure_tokens_fini(&data->tokens);
    free(data->records);
    *data = (dure_dataset){0};
}

dure_document dure_dataset_document(const dure_dataset *data, size_t i)
{
    const dure_record *record = &data->records[i];
    if (record->n == 0) return (dure_document){0};
    return (dure_document){.tokens = data->tokens.ids + record->first,
                           .supervised = data->tokens.supervised + record->first,
                           .n = record->n};
}
