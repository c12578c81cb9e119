#include "cli/model_open.h"

#include <string.h>
#include <sys/stat.h>

static dure_err open_adapter(dure_open_model *m, const char *path, dure_diag *diag)
{
    const dure_model_shape *shape = dure_transformer_shape(m->transformer);
    struct stat st;
    bool folder = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
    dure_err err = folder ? dure_adapter_load_peft(&m->lora, NULL, path, shape, diag)
                          : dure_adapter_load(&m->lora, NULL, path, shape, diag);
    return err;
}

dure_err dure_open_model_init(dure_open_model *out, const dure_open_opts *opts, dure_diag *diag)
{
    *out = (dure_open_model){0};
    dure_transformer_opts run = {.threads = opts->threads};
    dure_err err = dure_gguf_open(&out->gguf, opts->model, NULL, diag);
    if (err) return err;
    err = dure_tokenizer_new(&out->tokenizer, out->gguf, diag);
    if (!err) err = dure_chat_template_find(&out->chat, out->gguf, out->tokenizer, diag);
    if (!err) err = dure_transformer_new(&out->transformer, out->gguf, &run, diag);
    if (err) dure_diag_prefix(diag, err, "%s", opts->model);
    if (!err && opts->adapter) err = open_adapter(out, opts->adapter, diag);
    if (err) dure_open_model_fini(out);
    return err;
}

void dure_open_model_fini(dure_open_model *m)
{
    dure_lora_free(&m->lora);
    dure_transformer_free(&m->transformer);
    dure_tokenizer_free(&m->tokenizer);
    dure_gguf_close(&m->gguf);
}
