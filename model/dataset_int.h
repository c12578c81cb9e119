/* What the readers of the formats (dataset_json.c, dataset_csv.c, dataset_text.c) share. */
#pragma once

#include "model/dataset.h"

#include <jansson.h>

/* What one call works with, and where it is in the file. */
typedef struct dure_reading {
    dure_dataset *data;
    const dure_tokenizer *t;
    const dure_chat_template *chat;
    const dure_dataset_opts *opts;
    const char *name;
    int32_t end_of_text; /* -1: the vocabulary has none */
    uint32_t line;       /* of the record at hand */
    size_t capacity;     /* of data->records */
    uint32_t subject;    /* of the record at hand */
    json_t *subjects;    /* by_subject: their numbers by name */
    dure_diag *diag;
} dure_reading;

/* Adds the record at r->line. `record` is NULL when it could not be read: `why` then says so. Only
 * what ends the whole call is returned. */
DURE_MUST_USE dure_err dure_dataset_add(dure_reading *r, const json_t *record,
                                        const dure_diag *why);
/* Adds a record of the tokens that were appended to data->tokens from `first` on. */
DURE_MUST_USE dure_err dure_dataset_add_tokens(dure_reading *r, size_t first);

/* Sets r->subject from the record, and counts it in n_naming. */
DURE_MUST_USE dure_err dure_dataset_subject(dure_reading *r, const json_t *record, dure_diag *diag);
/* Fills the dataset's groups. */
DURE_MUST_USE dure_err dure_dataset_group(dure_dataset *data);

DURE_MUST_USE dure_err dure_dataset_json(dure_reading *r, dure_span text, bool may_be_array);
DURE_MUST_USE dure_err dure_dataset_csv(dure_reading *r, dure_span text, char separator);
DURE_MUST_USE dure_err dure_dataset_text(dure_reading *r, dure_span text);
