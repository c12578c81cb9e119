/* dure data check|preview|tokens: what a data file holds, as training would see it. */
#include "cli/args.h"
#include "cli/commands.h"
#include "cli/model_open.h"
#include "cli/output.h"
#include "cli/text.h"
#include "common/file.h"
#include "model/arch.h"
#include "model/conversation.h"
#include "model/dataset.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PROBLEMS = 1000, MAX_STDIN_BYTES = 1 << 30 };

/* The parts of a model that turn text into tokens. */
typedef struct text_model {
    dure_gguf *gguf;
    dure_tokenizer *t;
    dure_chat_template chat;
    dure_err chat_err; /* why `chat` cannot be used */
    dure_diag chat_diag;
} text_model;

/* A model without a chat template opens: its tokenizer alone may be what is asked for. */
static dure_err open_model(text_model *m, const char *path, dure_diag *diag)
{
    dure_err err = dure_gguf_open(&m->gguf, path, NULL, diag);
    if (err) return err;
    err = dure_tokenizer_new(&m->t, m->gguf, diag);
    if (err) return dure_diag_prefix(diag, err, "%s", path);
    m->chat_err = dure_chat_template_find(&m->chat, m->gguf, m->t, &m->chat_diag);
    if (m->chat_err) dure_diag_prefix(&m->chat_diag, m->chat_err, "%s", path);
    return DURE_OK;
}

static dure_err need_chat(const text_model *m, dure_diag *diag)
{
    if (m->chat_err) *diag = m->chat_diag;
    return m->chat_err;
}

/* What `max_length` may be: a label is predicted from a token before it, and the model sees at most
 * its context. */
static dure_err check_length(const text_model *m, uint64_t max_length, dure_diag *diag)
{
    uint32_t context = 0;
    dure_err err = dure_model_number(&context, m->gguf, "context_length", diag);
    if (!err && (max_length < 2 || max_length > context))
        err = dure_diag_set(diag, DURE_ERR_USAGE,
                            "--max-length must be from 2 to the model's context of %u tokens",
                            context);
    return err;
}

static void close_model(text_model *m)
{
    dure_tokenizer_free(&m->t);
    dure_gguf_close(&m->gguf);
}

typedef struct problem {
    uint32_t line;
    char text[256];
} problem;

typedef struct report {
    problem *problems; /* the first MAX_PROBLEMS */
    size_t n_problems; /* all */
    dure_dataset data;
    uint32_t *lengths;      /* ascending */
    uint32_t (*repeats)[2]; /* line, and the line it repeats */
    size_t n_repeats;
} report;

static void hear(void *state, uint32_t line, const char *sentence)
{
    report *r = state;
    if (r->n_problems < MAX_PROBLEMS) {
        problem *p = &r->problems[r->n_problems];
        p->line = line;
        snprintf(p->text, sizeof p->text, "%s", sentence);
    }
    r->n_problems++;
}

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

typedef struct keyed {
    uint64_t hash;
    const dure_dataset *data;
    size_t i;
} keyed;

static int compare_tokens(const keyed *a, const keyed *b)
{
    dure_document x = dure_dataset_document(a->data, a->i),
                  y = dure_dataset_document(b->data, b->i);
    if (x.n != y.n) return x.n < y.n ? -1 : 1;
    return x.n ? memcmp(x.tokens, y.tokens, x.n * sizeof *x.tokens) : 0;
}

static int by_content(const void *a, const void *b)
{
    const keyed *x = a, *y = b;
    if (x->hash != y->hash) return x->hash < y->hash ? -1 : 1;
    int order = compare_tokens(x, y);
    return order ? order : (x->i > y->i) - (x->i < y->i);
}

static uint64_t hash_tokens(dure_document doc)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < doc.n; i++)
        h = (h ^ (uint32_t)doc.tokens[i]) * UINT64_C(0x100000001b3);
    return h;
}

static int by_line(const void *a, const void *b)
{
    return by_size(a, b); /* the first member of each pair is its line */
}

static dure_err find_repeats(report *r)
{
    const dure_dataset *data = &r->data;
    keyed *keys = malloc((data->n + 1) * sizeof *keys);
    r->repeats = malloc((data->n + 1) * sizeof *r->repeats);
    if (!keys || !r->repeats) {
        free(keys);
        return DURE_ERR_NOMEM;
    }
    size_t n = 0;
    for (size_t i = 0; i < data->n; i++)
        if (data->records[i].n)
            keys[n++] = (keyed){hash_tokens(dure_dataset_document(data, i)), data, i};
    qsort(keys, n, sizeof *keys, by_content);
    size_t first = 0;
    for (size_t i = 1; i < n; i++) {
        if (keys[i].hash != keys[first].hash || compare_tokens(&keys[i], &keys[first])) {
            first = i;
            continue;
        }
        r->repeats[r->n_repeats][0] = data->records[keys[i].i].line;
        r->repeats[r->n_repeats++][1] = data->records[keys[first].i].line;
    }
    qsort(r->repeats, r->n_repeats, sizeof *r->repeats, by_line);
    free(keys);
    return DURE_OK;
}

static dure_err make_report(report *r, const text_model *m, const char *path, uint64_t max_length,
                            dure_diag *diag)
{
    r->problems = calloc(MAX_PROBLEMS, sizeof *r->problems);
    if (!r->problems) return DURE_ERR_NOMEM;
    dure_dataset_opts opts = {.max_length = (uint32_t)max_length,
                              .tolerant = true,
                              .listener = hear,
                              .listener_state = r};
    dure_err err = dure_dataset_read(&r->data, path, m->t, &m->chat, &opts, diag);
    if (err) return err;
    r->lengths = malloc(r->data.n * sizeof *r->lengths);
    if (!r->lengths) return DURE_ERR_NOMEM;
    for (size_t i = 0; i < r->data.n; i++)
        r->lengths[i] = (uint32_t)r->data.records[i].n;
    qsort(r->lengths, r->data.n, sizeof *r->lengths, by_size);
    return find_repeats(r);
}

static void free_report(report *r)
{
    dure_dataset_fini(&r->data);
    free(r->problems);
    free(r->lengths);
    free(r->repeats);
}

static uint32_t quantile(const report *r, double q)
{
    return r->lengths[(size_t)(q * (double)(r->data.n - 1) + 0.5)];
}

static uint64_t total_labels(const report *r)
{
    uint64_t n = 0;
    for (size_t i = 0; i < r->data.n; i++)
        n += r->data.records[i].n_labels;
    return n;
}

static int print_report_json(const report *r)
{
    json_t *problems = json_array(), *repeats = json_array();
    for (size_t i = 0; i < r->n_problems && i < MAX_PROBLEMS; i++)
        json_array_append_new(problems,
                              json_pack("{s:i, s:o}", "line", (int)r->problems[i].line, "problem",
                                        dure_text_json(dure_span_of_text(r->problems[i].text))));
    for (size_t i = 0; i < r->n_repeats && i < MAX_PROBLEMS; i++)
        json_array_append_new(repeats, json_pack("{s:i, s:i}", "line", (int)r->repeats[i][0],
                                                 "repeats", (int)r->repeats[i][1]));
    return dure_print_json(
        json_pack("{s:I, s:I, s:I, s:{s:i, s:i, s:i, s:i}, s:I, s:o, s:I, s:o}", "records",
                  (json_int_t)r->data.n, "tokens", (json_int_t)r->data.tokens.n, "labels",
                  (json_int_t)total_labels(r), "length", "least", (int)quantile(r, 0), "median",
                  (int)quantile(r, 0.5), "p95", (int)quantile(r, 0.95), "most", (int)quantile(r, 1),
                  "n_problems", (json_int_t)r->n_problems, "problems", problems, "n_repeats",
                  (json_int_t)r->n_repeats, "repeats", repeats));
}

static void print_report(const report *r, const char *path)
{
    size_t n = r->data.tokens.n;
    uint64_t labels = total_labels(r);
    printf("records   %zu\n", r->data.n);
    printf("tokens    %zu\n", n);
    printf("labels    %llu (%.1f %% of the tokens are learned from)\n", (unsigned long long)labels,
           n ? 100.0 * (double)labels / (double)n : 0.0);
    printf("length    %u least, %u median, %u at 95 %%, %u most\n", quantile(r, 0),
           quantile(r, 0.5), quantile(r, 0.95), quantile(r, 1));
    printf("repeats   %zu\n", r->n_repeats);
    printf("problems  %zu\n", r->n_problems);
    for (size_t i = 0; i < r->n_repeats && i < 10; i++)
        fprintf(stderr, "%s, line %u: the same record as line %u\n", path, r->repeats[i][0],
                r->repeats[i][1]);
    if (r->n_repeats > 10)
        fprintf(stderr, "%s: %zu more repeated records\n", path, r->n_repeats - 10);
    for (size_t i = 0; i < r->n_problems && i < MAX_PROBLEMS; i++)
        fprintf(stderr, "%s, line %u: %s\n", path, r->problems[i].line, r->problems[i].text);
    if (r->n_problems > MAX_PROBLEMS)
        fprintf(stderr, "%s: %zu more problems\n", path, r->n_problems - MAX_PROBLEMS);
}

static int data_check(int argc, char **argv)
{
    const char *data = NULL, *model = NULL;
    uint64_t max_length = 512;
    bool json = false;
    const dure_arg args[] = {
        dure_data_arg(&data),
        dure_model_arg(&model),
        dure_max_length_arg(&max_length),
        {.name = "json", .kind = DURE_ARG_FLAG, .out = &json, .help = "print JSON"},
    };
    const dure_usage usage = {
        "data check", "lengths, labels, repeated and unusable records; exit 1 if any is unusable",
        args, sizeof args / sizeof args[0],
        "dure data check --data site.jsonl --model SmolLM2-135M-Instruct.Q4_1.gguf"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed == DURE_ARGS_HELP ? 0 : 2;
    text_model m = {0};
    report r = {0};
    dure_diag diag = {0};
    dure_err err = open_model(&m, model, &diag);
    if (!err) err = need_chat(&m, &diag);
    if (!err) err = check_length(&m, max_length, &diag);
    if (!err) err = make_report(&r, &m, data, max_length, &diag);
    int status = 0;
    if (err)
        status = dure_fail("data check", err, &diag);
    else if (json)
        status = print_report_json(&r);
    else
        print_report(&r, data);
    if (!status && r.n_problems) status = 1;
    free_report(&r);
    close_model(&m);
    return status;
}

/* Bytes of a run of tokens that are all learned from, or all not. */
static size_t take_segment(dure_buf *out, const text_model *m, dure_document doc, size_t at)
{
    size_t end = at;
    for (; end < doc.n && doc.supervised[end] == doc.supervised[at]; end++) {
        dure_span piece = dure_tokenizer_piece(m->t, doc.tokens[end]);
        dure_put_raw(out, piece.data, piece.n);
    }
    return end;
}

static json_t *preview_record(const text_model *m, const dure_dataset *data, size_t i, bool json)
{
    dure_document doc = dure_dataset_document(data, i);
    const dure_record *record = &data->records[i];
    json_t *segments = json ? json_array() : NULL;
    if (!json)
        printf("line %u: %zu tokens, %u labels\n", record->line, record->n, record->n_labels);
    for (size_t at = 0; at < doc.n;) {
        dure_buf text;
        dure_buf_init(&text, SIZE_MAX);
        bool learned = doc.supervised[at] != 0;
        at = take_segment(&text, m, doc, at);
        if (json)
            json_array_append_new(segments, json_pack("{s:b, s:o}", "learned", (int)learned, "text",
                                                      dure_text_json(dure_buf_span(&text))));
        else
            dure_text_print_block(stdout, learned ? "  learned | " : "  masked  | ",
                                  dure_buf_span(&text));
        dure_buf_fini(&text);
    }
    if (!json) return NULL;
    return json_pack("{s:i, s:i, s:i, s:o}", "line", (int)record->line, "tokens", (int)record->n,
                     "labels", (int)record->n_labels, "segments", segments);
}

static int data_preview(int argc, char **argv)
{
    const char *data_path = NULL, *model = NULL;
    uint64_t n = 3, max_length = 512;
    bool json = false;
    const dure_arg args[] = {
        dure_data_arg(&data_path),
        dure_model_arg(&model),
        {.name = "records",
         .kind = DURE_ARG_COUNT,
         .out = &n,
         .value = "N",
         .help = "how many to show (3)"},
        dure_max_length_arg(&max_length),
        {.name = "json", .kind = DURE_ARG_FLAG, .out = &json, .help = "print JSON"},
    };
    const dure_usage usage = {"data preview",
                              "the first records as the model sees them: what is masked and what "
                              "is learned",
                              args, sizeof args / sizeof args[0],
                              "dure data preview --data site.jsonl --model "
                              "SmolLM2-135M-Instruct.Q4_1.gguf --records 5"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed == DURE_ARGS_HELP ? 0 : 2;
    text_model m = {0};
    dure_dataset data = {0};
    dure_diag diag = {0};
    dure_dataset_opts opts = {.max_length = (uint32_t)max_length, .tolerant = true};
    dure_err err = open_model(&m, model, &diag);
    if (!err) err = need_chat(&m, &diag);
    if (!err) err = check_length(&m, max_length, &diag);
    if (!err) err = dure_dataset_read(&data, data_path, m.t, &m.chat, &opts, &diag);
    json_t *list = json ? json_array() : NULL;
    for (size_t i = 0; !err && i < data.n && i < n; i++) {
        json_t *record = preview_record(&m, &data, i, json);
        if (json) json_array_append_new(list, record);
    }
    int status = err ? dure_fail("data preview", err, &diag) : 0;
    if (!err && json) status = dure_print_json(json_incref(list));
    json_decref(list);
    dure_dataset_fini(&data);
    close_model(&m);
    return status;
}

/* One line of stdin: a JSON text, or a record whose conversation is rendered. */
static dure_err tokens_of_line(dure_tokens *out, const text_model *m, dure_span line,
                               bool open_answer, dure_diag *diag)
{
    json_error_t error;
    json_t *value = json_loadb((const char *)line.data, line.n,
                               JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &error);
    dure_conversation talk = {0};
    dure_err err = DURE_OK;
    if (!value) {
        err = dure_diag_set(diag, DURE_ERR_FORMAT, "not JSON (column %d)", error.column);
    } else if (json_is_string(value)) {
        dure_span text = dure_span_of(json_string_value(value), json_string_length(value));
        err = dure_tokenizer_encode(out, m->t, text, false);
    } else {
        err = need_chat(m, diag);
        if (!err) err = dure_conversation_read(&talk, value, diag);
        if (!err)
            err = dure_chat_render(out, &m->chat, m->t, talk.messages, talk.n, open_answer, diag);
    }
    dure_conversation_fini(&talk);
    json_decref(value);
    return err;
}

static int print_tokens(const dure_tokens *tokens)
{
    json_t *list = json_array();
    for (size_t i = 0; i < tokens->n; i++)
        json_array_append_new(list, json_integer(tokens->ids[i]));
    return dure_print_json(list);
}

static dure_err tokens_of_stdin(const text_model *m, bool open_answer, dure_diag *diag)
{
    dure_buf text;
    dure_err err = dure_file_read(&text, "/dev/stdin", MAX_STDIN_BYTES, diag);
    dure_tokens tokens = {0};
    unsigned number = 0;
    for (size_t at = 0; !err && at < text.n;) {
        const uint8_t *start = text.data + at;
        const uint8_t *newline = memchr(start, '\n', text.n - at);
        dure_span line = dure_span_of(start, newline ? (size_t)(newline - start) : text.n - at);
        at += line.n + 1;
        number++;
        tokens.n = 0;
        err = tokens_of_line(&tokens, m, line, open_answer, diag);
        if (err) err = dure_diag_prefix(diag, err, "line %u", number);
        if (!err && print_tokens(&tokens)) err = DURE_ERR_IO;
    }
    dure_tokens_fini(&tokens);
    dure_buf_fini(&text);
    return err;
}

static int data_tokens(int argc, char **argv)
{
    const char *model = NULL;
    bool open_answer = false;
    const dure_arg args[] = {
        dure_model_arg(&model),
        {.name = "open-answer",
         .kind = DURE_ARG_FLAG,
         .out = &open_answer,
         .help = "end a conversation with the opening of an answer"},
    };
    const dure_usage usage = {"data tokens",
                              "reads JSON from stdin, one text or record a line, and prints its "
                              "token ids as a JSON array a line",
                              args, sizeof args / sizeof args[0],
                              "echo '\"Hello\"' | dure data tokens --model "
                              "SmolLM2-135M-Instruct.Q4_1.gguf"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed == DURE_ARGS_HELP ? 0 : 2;
    text_model m = {0};
    dure_diag diag = {0};
    dure_err err = open_model(&m, model, &diag);
    if (!err) err = tokens_of_stdin(&m, open_answer, &diag);
    close_model(&m);
    return err ? dure_fail("data tokens", err, &diag) : 0;
}

int dure_cmd_data(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";
    if (!strcmp(verb, "check")) return data_check(argc - 1, argv + 1);
    if (!strcmp(verb, "preview")) return data_preview(argc - 1, argv + 1);
    if (!strcmp(verb, "tokens")) return data_tokens(argc - 1, argv + 1);
    bool help = !strcmp(verb, "--help");
    FILE *to = help ? stdout : stderr;
    if (*verb && !help) fprintf(to, "dure data: there is no '%s'\n\n", verb);
    fprintf(to, "dure data: what a data file holds, as training would see it\n\n"
                "Usage: dure data check|preview|tokens [options]\n\n"
                "  check     lengths, labels, repeated and unusable records\n"
                "  preview   the first records with what is masked and what is learned\n"
                "  tokens    token ids of texts read from stdin\n\n"
                "Example:\n  dure data check --data site.jsonl --model M.gguf\n");
    return help ? 0 : 2;
}
