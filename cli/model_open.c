#include "cli/model_open.h"

#include "common/buf.h"
#include "crypto/hash.h"
#include "model/base_digest.h"

#include <string.h>
#include <sys/stat.h>

/* Equal sizes do not make an equal base: an adapter on other weights answers nonsense without any
 * sign of it. An adapter that does not say what it was made for is held to its sizes alone. */
static dure_err check_base(const dure_adapter_notes *notes, const dure_open_opts *opts,
                           dure_diag *diag)
{
    dure_hash base;
    char hex[2 * DURE_HASH_BYTES + 1];
    if (opts->any_base || !notes->base_digest[0]) return DURE_OK;
    dure_err err = dure_base_digest(&base, opts->model, diag);
    if (err) return err;
    dure_hex_encode(hex, base.b, sizeof base.b);
    if (strcmp(hex, notes->base_digest) == 0) return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_STATE,
                         "%s was made for another base model, SHA-256 %.16s..., and not for %s, "
                         "%.16s...; give that base, or --any-base to use this one all the same",
                         opts->adapter, notes->base_digest, opts->model, hex);
}

static dure_err open_adapter(dure_open_model *m, const dure_open_opts *opts, dure_diag *diag)
{
    const dure_model_shape *shape = dure_transformer_shape(m->transformer);
    dure_adapter_notes notes = {.texts = NULL};
    struct stat st;
    bool folder = stat(opts->adapter, &st) == 0 && S_ISDIR(st.st_mode);
    dure_err err = folder ? dure_adapter_load_peft(&m->lora, &notes, opts->adapter, shape, diag)
                          : dure_adapter_load(&m->lora, &notes, opts->adapter, shape, diag);
    if (err) return err;
    err = check_base(&notes, opts, diag);
    dure_adapter_notes_fini(&notes);
    return err;
}

/* A model without a template that is known opens: plain texts need none. */
static dure_err open_chat(dure_open_model *m, const dure_open_opts *opts, dure_diag *diag)
{
    dure_err err =
        dure_chat_template_open(&m->chat, opts->chat_template, m->gguf, m->tokenizer, diag);
    return opts->chat_template ? err : DURE_OK;
}

dure_err dure_open_model_init(dure_open_model *out, const dure_open_opts *opts, dure_diag *diag)
{
    *out = (dure_open_model){0};
    dure_transformer_opts run = {.threads = opts->threads,
                                 .profile = opts->profile,
                                 .weights = opts->fit_later ? DURE_WEIGHTS_FILE : DURE_WEIGHTS_AUTO,
                                 .cuda = opts->device.cuda,
                                 .device = opts->device.index,
                                 .device_bytes = opts->device_bytes};
    dure_err err = dure_gguf_open(&out->gguf, opts->model, NULL, diag);
    if (err) return err;
    err = dure_tokenizer_new(&out->tokenizer, out->gguf, diag);
    if (!err) err = open_chat(out, opts, diag);
    if (!err) err = dure_transformer_new(&out->transformer, out->gguf, &run, diag);
    if (err) dure_diag_prefix(diag, err, "%s", opts->model);
    if (!err && opts->adapter) err = open_adapter(out, opts, diag);
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

dure_arg dure_model_arg(const char **model)
{
    return (dure_arg)OPTION(TEXT, "model", *model, "FILE", "the base model, GGUF",
                            .required = true);
}

dure_arg dure_adapter_arg(const char **adapter)
{
    return (dure_arg)OPTION(TEXT, "adapter", *adapter, "PATH", "a GGUF adapter or a PEFT folder");
}

dure_arg dure_any_base_arg(bool *any_base)
{
    return (dure_arg)FLAG("any-base", *any_base,
                          "accept an adapter that was made for another file of the base");
}

dure_arg dure_chat_template_arg(const char **name)
{
    return (dure_arg)OPTION(TEXT, "chat-template", *name, "NAME",
                            "how conversations are written: chatml, llama3.1, gemma3, ...; "
                            "default: as the model says");
}

dure_arg dure_data_arg(const char **data)
{
    return (dure_arg)OPTION(TEXT, "data", *data, "FILE",
                            "records: JSONL, JSON, CSV, TSV or plain text", .required = true);
}

dure_arg dure_max_length_arg(uint64_t *max_length)
{
    return (dure_arg)OPTION(COUNT, "max-length", *max_length, "N",
                            "most tokens of a record; default 512");
}

dure_arg dure_threads_arg(uint64_t *threads)
{
    return (dure_arg)OPTION(COUNT, "threads", *threads, "N", "threads; default: the physical cores",
                            .most = DURE_POOL_MAX_THREADS);
}
