/* What `generate`, `eval`, `train` and `serve` open first: a model, its text side, and an adapter
 * if one is named. */
#pragma once

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
    const char *adapter; /* a GGUF LoRA file or a PEFT folder; NULL: none */
    uint32_t threads;    /* 0: the physical cores */
    bool any_base;       /* the adapter may name another file of the base, if its sizes fit */
} dure_open_opts;

/* On error everything is closed and `diag` names the file. */
DURE_MUST_USE dure_err dure_open_model_init(dure_open_model *out, const dure_open_opts *opts,
                                            dure_diag *diag);
void dure_open_model_fini(dure_open_model *m);
