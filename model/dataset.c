#include "model/dataset.h"

#include "common/file.h"
#include "model/conversation.h"
#include "model/dataset_int.h"

#include <stdlib.h>
#include <string.h>

enum { DEFAULT_MAX_RECORDS = 10000000 };
#define MAX_FILE_BYTES ((size_t)4 << 30)

/* --- one record --- */

static uint32_t count_labels(const dure_tokens *tokens, size_t first)
{
    uint32_t n = 0;
    for (size_t i = first; i < tokens->n; i++)
        n += tokens->supervised[i];
    return n;
}

static void tell(const dure_reading *r, const char *sentence)
{
    if (r->opts->listener) r->opts->listener(r->opts->listener_state, r->line, sentence);
}

/* Cuts a record that is too long, or refuses it, and notices when no label is left. */
static dure_err fit(const dure_reading *r, size_t first, dure_diag *diag)
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

/* The whole of a text is learned but its first token, which nothing comes before. */
static dure_err render_text(const dure_reading *r, const json_t *text, dure_diag *diag)
{
    dure_tokens own = {0}; /* whether it begins a text is seen from what comes before */
    dure_span bytes = dure_span_of(json_string_value(text), json_string_length(text));
    if (bytes.n == 0)
        return dure_diag_set(diag, DURE_ERR_FORMAT, "\"text\" is empty: there is nothing to learn");
    dure_err err = dure_tokenizer_begin(&own, r->t);
    if (!err) err = dure_tokenizer_encode(&own, r->t, bytes, true);
    if (!err && r->end_of_text >= 0) err = dure_tokens_push(&own, r->end_of_text, true);
    for (size_t i = 0; i < own.n && !err; i++)
        err = dure_tokens_push(&r->data->tokens, own.ids[i], i > 0);
    if (!err && own.n < 2)
        err = dure_diag_set(diag, DURE_ERR_FORMAT,
                            "\"text\" is one token: nothing comes before it "
                            "to learn it from");
    dure_tokens_fini(&own);
    return err;
}

static bool is_plain_text(const json_t *record)
{
    static const char *const others[] = {"messages", "prompt", "response", "instruction", "output"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (json_object_get(record, others[i])) return false;
    return json_is_string(json_object_get(record, "text"));
}

/* The record's tokens are appended to data->tokens; on error the caller drops them. */
static dure_err render(const dure_reading *r, const json_t *record, dure_diag *diag)
{
    if (is_plain_text(record)) return render_text(r, json_object_get(record, "text"), diag);
    dure_conversation talk = {0};
    dure_err err = dure_conversation_read(&talk, record, diag);
    if (!err && !talk.answered)
        err = dure_diag_set(diag, DURE_ERR_FORMAT,
                            "the record has no response to learn from: give it a \"response\", an "
                            "\"output\" or an assistant message that is not empty");
    if (!err)
        err = dure_chat_render(&r->data->tokens, r->chat, r->t, talk.messages, talk.n, false, diag);
    dure_conversation_fini(&talk);
    return err;
}

/* --- the list of records --- */

static dure_err reserve_record(dure_reading *r)
{
    size_t most = r->opts->max_records ? r->opts->max_records : DEFAULT_MAX_RECORDS;
    if (r->data->n == most)
        return dure_diag_set(r->diag, DURE_ERR_LIMIT, "%s has more than %zu records", r->name,
                             most);
    if (r->data->n < r->capacity) return DURE_OK;
    size_t capacity = r->capacity ? 2 * r->capacity : 256;
    dure_record *records = realloc(r->data->records, capacity * sizeof *records);
    if (!records) return DURE_ERR_NOMEM;
    r->data->records = records;
    r->capacity = capacity;
    return DURE_OK;
}

dure_err dure_dataset_add_tokens(dure_reading *r, size_t first)
{
    dure_err err = reserve_record(r);
    if (err) return err;
    r->data->records[r->data->n++] =
        (dure_record){.first = first,
                      .n = r->data->tokens.n - first,
                      .n_labels = count_labels(&r->data->tokens, first),
                      .line = r->line,
                      .subject = r->subject};
    return DURE_OK;
}

dure_err dure_dataset_add(dure_reading *r, const json_t *record, const dure_diag *unreadable)
{
    size_t first = r->data->tokens.n;
    dure_diag why = unreadable ? *unreadable : (dure_diag){{0}};
    r->subject = DURE_SUBJECT_NONE;
    dure_err err = record ? dure_dataset_subject(r, record, &why) : DURE_ERR_FORMAT;
    if (!err) err = render(r, record, &why);
    if (!err) err = fit(r, first, &why);
    if (err == DURE_ERR_NOMEM) return err;
    if (err && (!r->opts->tolerant || err == DURE_ERR_STATE)) /* no template: no record */
        return dure_diag_set(r->diag, err, "%s, line %u: %s", r->name, r->line, why.text);
    if (err) {
        tell(r, why.text);
        r->data->tokens.n = first;
        r->data->n_unusable++;
    }
    return dure_dataset_add_tokens(r, first);
}

/* --- files --- */

static const struct {
    const char *name;
    dure_dataset_format format;
} formats[] = {
    {"auto", DURE_DATASET_AUTO}, {"json", DURE_DATASET_JSON}, {"jsonl", DURE_DATASET_JSONL},
    {"csv", DURE_DATASET_CSV},   {"tsv", DURE_DATASET_TSV},   {"text", DURE_DATASET_TEXT},
};

dure_err dure_dataset_format_parse(dure_dataset_format *out, const char *text, dure_diag *diag)
{
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        if (strcmp(text, formats[i].name) != 0) continue;
        *out = formats[i].format;
        return DURE_OK;
    }
    return dure_diag_set(diag, DURE_ERR_USAGE,
                         "a data file's format is auto, jsonl, json, csv, tsv or text, not '%s'",
                         text);
}

static dure_dataset_format format_of(const char *name, dure_dataset_format asked)
{
    static const struct {
        const char *ending;
        dure_dataset_format format;
    } endings[] = {{".json", DURE_DATASET_JSON},
                   {".csv", DURE_DATASET_CSV},
                   {".tsv", DURE_DATASET_TSV},
                   {".txt", DURE_DATASET_TEXT},
                   {".md", DURE_DATASET_TEXT}};
    const char *dot = strrchr(name, '.');
    if (asked != DURE_DATASET_AUTO) return asked;
    for (size_t i = 0; dot && i < sizeof endings / sizeof endings[0]; i++)
        if (!strcmp(dot, endings[i].ending)) return endings[i].format;
    return DURE_DATASET_JSONL;
}

/* The first of the tokens that end a generation: that of a text comes before that of a turn in
 * every vocabulary that has both. */
static int32_t find_end_of_text(const dure_tokenizer *t)
{
    for (size_t i = 0; i < dure_tokenizer_size(t); i++)
        if (dure_tokenizer_is_end(t, (int32_t)i)) return (int32_t)i;
    return -1;
}

static dure_err read_format(dure_reading *r, dure_span text)
{
    switch (format_of(r->name, r->opts->format)) {
    case DURE_DATASET_CSV:
        return dure_dataset_csv(r, text, ',');
    case DURE_DATASET_TSV:
        return dure_dataset_csv(r, text, '\t');
    case DURE_DATASET_TEXT:
        if (!r->opts->private_records) return dure_dataset_text(r, text);
        return dure_diag_set(r->diag, DURE_ERR_USAGE,
                             "%s is a plain text, and privacy protects single records: put each "
                             "person's text in a record of its own, {\"text\": \"...\"} a line",
                             r->name);
    case DURE_DATASET_JSON:
        return dure_dataset_json(r, text, true);
    default:
        return dure_dataset_json(r, text, false);
    }
}

dure_err dure_dataset_parse(dure_dataset *out, dure_span text, const char *name,
                            const dure_tokenizer *t, const dure_chat_template *chat,
                            const dure_dataset_opts *opts, dure_diag *diag)
{
    *out = (dure_dataset){0};
    if (opts->max_length < 2)
        return dure_diag_set(diag, DURE_ERR_USAGE, "--max-length must be at least 2");
    dure_reading r = {.data = out,
                      .t = t,
                      .chat = chat,
                      .opts = opts,
                      .name = name,
                      .end_of_text = find_end_of_text(t),
                      .subject = DURE_SUBJECT_NONE,
                      .diag = diag};
    if (opts->by_subject && !(r.subjects = json_object())) return DURE_ERR_NOMEM;
    dure_err err = read_format(&r, text);
    if (!err && opts->by_subject) err = dure_dataset_group(out);
    json_decref(r.subjects);
    if (!err && out->n == 0)
        err = dure_diag_set(diag, DURE_ERR_FORMAT,
                            "%s holds no record; write one JSON object a line", name);
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
    free(data->subject_first);
    free(data->by_subject);
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
