#include "cli/data_model.h"

#include "model/arch.h"

#include <string.h>

dure_err dure_text_model_open(dure_text_model *m, const char *path, const char *chat_template,
                              dure_diag *diag)
{
    dure_err err = dure_gguf_open(&m->gguf, path, NULL, diag);
    if (err) return err;
    err = dure_tokenizer_new(&m->t, m->gguf, diag);
    if (err) return dure_diag_prefix(diag, err, "%s", path);
    err = dure_chat_template_open(&m->chat, chat_template, m->gguf, m->t, diag);
    return chat_template ? err : DURE_OK;
}

void dure_text_model_close(dure_text_model *m)
{
    dure_tokenizer_free(&m->t);
    dure_gguf_close(&m->gguf);
}

/* What `max_length` may be: a label is predicted from a token before it, and the model sees at most
 * its context. */
static dure_err check_length(const dure_text_model *m, uint64_t max_length, dure_diag *diag)
{
    uint32_t context = 0;
    dure_err err = dure_model_number(&context, m->gguf, "context_length", diag);
    if (!err && (max_length < 2 || max_length > context))
        err = dure_diag_set(diag, DURE_ERR_USAGE,
                            "--max-length must be from 2 to the model's context of %u tokens",
                            context);
    return err;
}

dure_err dure_data_open(dure_text_model *m, dure_dataset *data, const dure_data_options *o,
                        dure_dataset_listener *listener, void *state, dure_diag *diag)
{
    dure_dataset_opts read = {.max_length = (uint32_t)o->max_length,
                              .tolerant = true,
                              .by_subject = o->unit && !strcmp(o->unit, "subject"),
                              .listener = listener,
                              .listener_state = state};
    dure_err err = dure_dataset_format_parse(&read.format, o->format, diag);
    if (!err) err = dure_text_model_open(m, o->model, o->chat_template, diag);
    if (!err) err = check_length(m, o->max_length, diag);
    if (!err) err = dure_dataset_read(data, o->data, m->t, &m->chat, &read, diag);
    return err;
}

dure_arg dure_format_arg(const char **format)
{
    return (dure_arg)OPTION(TEXT, "format", *format, "NAME",
                            "jsonl, json, csv, tsv or text; default: by the file's name");
}
