/* What `generate`, `eval`, `train` and `serve` open first: a model, its text side, and an adapter
 * if one is named. */
#pragma once

#include "cli/args.h"
#include "cli/device.h"
#include "model/adapter_file.h"
#include "model/chat_template.h"
#include "model/transformer.h"

typedef struct dure_open_model {
    dure_gguf *gguf;
    dure_tokenizer *tokenizer;
    dure_chat_template chat;
    dure_transformer *transformer;
    dure_lora *lora; /* NULL: the base alone */
} dure_open_model;

typedef struct dure_open_opts {
    const char *model;
    const char *adapter;       /* a GGUF LoRA file or a PEFT folder; NULL: none */
    const char *chat_template; /* by name; NULL: the model's own, which only chats need */
    uint32_t threads;          /* 0: the physical cores */
    dure_device_choice device;
    uint64_t device_bytes; /* of a GPU's memory, at most; 0: what is free */
    bool any_base;         /* the adapter may name another file of the base, if its sizes fit */
    bool profile;          /* measure where the time goes */
    bool fit_later;        /* the caller fits the model into memory: dure_transformer_adopt() */
} dure_open_opts;

/* On error everything is closed and `diag` names the file. */
DURE_MUST_USE dure_err dure_open_model_init(dure_open_model *out, const dure_open_opts *opts,
                                            dure_diag *diag);
void dure_open_model_fini(dure_open_model *m);

/* The options that name what to open, alike in every command that has them. */
dure_arg dure_model_arg(const char **model);
dure_arg dure_adapter_arg(const char **adapter);
dure_arg dure_any_base_arg(bool *any_base);
dure_arg dure_chat_template_arg(const char **name);
dure_arg dure_data_arg(const char **data);
dure_arg dure_max_length_arg(uint64_t *max_length); /* preset to 512 */
dure_arg dure_threads_arg(uint64_t *threads);
