/* The parts of a model that turn a data file into tokens, for the `dure data` commands, and those
 * commands. */
#pragma once

#include "cli/args.h"
#include "model/dataset.h"

typedef struct dure_text_model {
    dure_gguf *gguf;
    dure_tokenizer *t;
    dure_chat_template chat;
    dure_err chat_err; /* why `chat` cannot be used */
    dure_diag chat_diag;
} dure_text_model;

/* A model without a chat template opens: its tokenizer alone may be what is asked for. */
DURE_MUST_USE dure_err dure_text_model_open(dure_text_model *m, const char *path, dure_diag *diag);
void dure_text_model_close(dure_text_model *m);
/* DURE_OK if the model has a chat template, else the error and sentence that say why not. */
DURE_MUST_USE dure_err dure_text_model_need_chat(const dure_text_model *m, dure_diag *diag);

/* What check and preview both ask for. */
typedef struct dure_data_options {
    const char *data, *model, *format;
    uint64_t max_length;
    bool json;
} dure_data_options;

/* Rows of the table of options for the five members. */
#define DURE_DATA_ARGS(o)                                                                          \
    {.name = "data",                                                                               \
     .kind = DURE_ARG_TEXT,                                                                        \
     .out = &(o).data,                                                                             \
     .value = "FILE",                                                                              \
     .help = "JSONL, JSON, CSV, TSV or plain text",                                                \
     .required = true},                                                                            \
        {.name = "model",                                                                          \
         .kind = DURE_ARG_TEXT,                                                                    \
         .out = &(o).model,                                                                        \
         .value = "FILE",                                                                          \
         .help = "the base model, GGUF",                                                           \
         .required = true},                                                                        \
        {.name = "format",                                                                         \
         .kind = DURE_ARG_TEXT,                                                                    \
         .out = &(o).format,                                                                       \
         .value = "NAME",                                                                          \
         .help = "jsonl, json, csv, tsv or text (by the file's name)"},                            \
        {.name = "max-length",                                                                     \
         .kind = DURE_ARG_COUNT,                                                                   \
         .out = &(o).max_length,                                                                   \
         .value = "N",                                                                             \
         .help = "most tokens of a record (512)"},                                                 \
        {.name = "json", .kind = DURE_ARG_FLAG, .out = &(o).json, .help = "print JSON"}

/* Opens the model and reads the file with bad records kept as empty ones, which `listener` hears
 * of. On error both are to be closed all the same. */
DURE_MUST_USE dure_err dure_data_open(dure_text_model *m, dure_dataset *data,
                                      const dure_data_options *o, dure_dataset_listener *listener,
                                      void *state, dure_diag *diag);

int dure_data_check(int argc, char **argv);
int dure_data_preview(int argc, char **argv);
