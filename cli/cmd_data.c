/* dure data check|preview|tokens: what a data file holds, as training would see it. */
#include "cli/commands.h"
#include "cli/data_model.h"
#include "cli/model_open.h"
#include "cli/output.h"
#include "common/file.h"
#include "model/conversation.h"

#include <stdio.h>
#include <string.h>

enum { MAX_STDIN_BYTES = 1 << 30 };

/* One line of stdin: a JSON text, or a record whose conversation is rendered. */
static dure_err tokens_of_line(dure_tokens *out, const dure_text_model *m, dure_span line,
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
        err = dure_conversation_read(&talk, value, diag);
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

static dure_err tokens_of_stdin(const dure_text_model *m, bool open_answer, dure_diag *diag)
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
    const char *model = NULL, *chat_template = NULL;
    bool open_answer = false;
    const dure_arg args[] = {
        dure_model_arg(&model),
        dure_chat_template_arg(&chat_template),
        FLAG("open-answer", open_answer, "end a conversation with the opening of an answer"),
    };
    const dure_usage usage = {"data tokens",
                              "reads JSON from stdin, one text or record a line, and prints its "
                              "token ids as a JSON array a line",
                              args, N_ARGS(args),
                              "echo '\"Hello\"' | dure data tokens --model "
                              "SmolLM2-135M-Instruct.Q4_1.gguf"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed;
    dure_text_model m = {0};
    dure_diag diag = {0};
    dure_err err = dure_text_model_open(&m, model, chat_template, &diag);
    if (!err) err = tokens_of_stdin(&m, open_answer, &diag);
    dure_text_model_close(&m);
    return err ? dure_fail("data tokens", err, &diag) : 0;
}

int dure_cmd_data(int argc, char **argv)
{
    static const dure_verb verbs[] = {
        {"check", dure_data_check, "lengths, labels, repeated and unusable records"},
        {"preview", dure_data_preview, "the first records with what is masked and what is learned"},
        {"tokens", data_tokens, "token ids of texts read from stdin"},
    };
    const dure_verbs table = {.command = "data",
                              .summary = "what a data file holds, as training would see it",
                              .usage = "[options]",
                              .example = "dure data check --data site.jsonl --model M.gguf",
                              .verbs = verbs,
                              .n = N_ARGS(verbs)};
    return dure_args_verb(&table, argc, argv);
}
