/* dure data preview: the first records as the model sees them, with what is masked and what is
 * learned. Learned tokens are green on a terminal, each in [brackets] elsewhere. */
#include "cli/data_model.h"
#include "cli/model_open.h"
#include "cli/output.h"
#include "cli/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A run of tokens that are all learned from, or all not; returns its end. */
static size_t segment_end(dure_document doc, size_t at)
{
    size_t end = at;
    while (end < doc.n && doc.supervised[end] == doc.supervised[at])
        end++;
    return end;
}

/* The bytes of the tokens; with `brackets`, each token in its own. */
static void put_segment(dure_buf *out, const dure_text_model *m, dure_document doc,
                        const size_t range[2], bool brackets)
{
    for (size_t i = range[0]; i < range[1]; i++) {
        dure_span piece = dure_tokenizer_piece(m->t, doc.tokens[i]);
        if (brackets) dure_put_u8(out, '[');
        dure_put_raw(out, piece.data, piece.n);
        if (brackets) dure_put_u8(out, ']');
    }
}

static void print_segment(bool learned, bool colour, dure_span text)
{
    const char *prefix = learned ? "  learned | " : "  masked  | ";
    if (colour && learned) fputs("\033[32m", stdout);
    dure_text_print_block(stdout, prefix, text);
    if (colour && learned) fputs("\033[0m", stdout);
}

static json_t *preview_record(const dure_text_model *m, const dure_dataset *data, size_t i,
                              bool json)
{
    dure_document doc = dure_dataset_document(data, i);
    const dure_record *record = &data->records[i];
    bool colour = dure_colour(stdout);
    json_t *segments = json ? json_array() : NULL;
    if (!json)
        printf("line %u: %zu tokens, %u labels\n", record->line, record->n, record->n_labels);
    for (size_t at = 0; at < doc.n;) {
        size_t range[2] = {at, segment_end(doc, at)};
        bool learned = doc.supervised[at] != 0;
        dure_buf text;
        dure_buf_init(&text, SIZE_MAX);
        put_segment(&text, m, doc, range, learned && !json && !colour);
        at = range[1];
        if (json)
            json_array_append_new(segments, json_pack("{s:b, s:o}", "learned", (int)learned, "text",
                                                      dure_text_json(dure_buf_span(&text))));
        else
            print_segment(learned, colour, dure_buf_span(&text));
        dure_buf_fini(&text);
    }
    if (!json && doc.n == 0) printf("  nothing is left of it; 'dure data check' says why\n");
    if (!json) return NULL;
    return json_pack("{s:i, s:i, s:i, s:o}", "line", (int)record->line, "tokens", (int)record->n,
                     "labels", (int)record->n_labels, "segments", segments);
}

int dure_data_preview(int argc, char **argv)
{
    dure_data_options o = {.format = "auto", .max_length = 512};
    uint64_t n = 3, first_line = 1;
    const dure_arg args[] = {
        dure_data_arg(&o.data),
        dure_model_arg(&o.model),
        dure_chat_template_arg(&o.chat_template),
        dure_format_arg(&o.format),
        dure_max_length_arg(&o.max_length),
        dure_json_arg(&o.json),
        OPTION(COUNT, "records", n, "N", "how many to show; default 3", .least = 1,
               .most = UINT32_MAX),
        OPTION(COUNT, "line", first_line, "N", "start with the record in this line; default 1"),
    };
    const dure_usage usage = {"data preview",
                              "records as the model sees them: what is masked, and every token "
                              "that is learned, green on a terminal and in [brackets] elsewhere",
                              args, N_ARGS(args),
                              "dure data preview --data site.jsonl --model "
                              "SmolLM2-135M-Instruct.Q4_1.gguf --records 5"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed;
    dure_text_model m = {0};
    dure_dataset data = {0};
    dure_diag diag = {0};
    dure_err err = dure_data_open(&m, &data, &o, NULL, NULL, &diag);
    json_t *list = o.json ? json_array() : NULL;
    uint64_t shown = 0;
    for (size_t i = 0; !err && i < data.n && shown < n; i++) {
        if (data.records[i].line < first_line) continue;
        json_t *record = preview_record(&m, &data, i, o.json);
        if (o.json) json_array_append_new(list, record);
        shown++;
    }
    if (!err && !shown)
        err = dure_diag_set(&diag, DURE_ERR_NOT_FOUND, "%s has no record from line %llu on", o.data,
                            (unsigned long long)first_line);
    int status = err ? dure_fail("data preview", err, &diag) : 0;
    if (!err && o.json) status = dure_print_json(json_incref(list));
    json_decref(list);
    dure_dataset_fini(&data);
    dure_text_model_close(&m);
    return status;
}
