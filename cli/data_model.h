/* The parts of a model that turn a data file into tokens, for the `dure data` commands, and those
 * commands. */
#pragma once

#include "cli/args.h"
#include "model/dataset.h"

typedef struct dure_text_model {
    dure_gguf *gguf;
    dure_tokenizer *t;
    dure_chat_template chat;
} dure_text_model;

/* A model without a chat template opens, for plain texts, unless one is asked for by name. */
DURE_MUST_USE dure_err dure_text_model_open(dure_text_model *m, const char *path,
                                            const char *chat_template, dure_diag *diag);
void dure_text_model_close(dure_text_model *m);

/* What check and preview both ask for. */
typedef struct dure_data_options {
    const char *data, *model, *format, *chat_template;
    const char *unit; /* NULL, "record" or "subject" */
    uint64_t max_length;
    bool json;
} dure_data_options;

dure_arg dure_format_arg(const char **format); /* preset to "auto" */

/* Opens the model and reads the file with bad records kept as empty ones, which `listener` hears
 * of. On error both are to be closed all the same. */
DURE_MUST_USE dure_err dure_data_open(dure_text_model *m, dure_dataset *data,
                                      const dure_data_options *o, dure_dataset_listener *listener,
                                      void *state, dure_diag *diag);

int dure_data_check(int argc, char **argv);
int dure_data_preview(int argc, char **argv);
