/* A JSONL file of conversations as tokens with a response-only mask.
 *
 * One record a line: {"messages":[{"role":…,"content":…},…]} or {"prompt":…,"response":…}.
 * Without DP a bad record is an error that names its line. With DP one record never stops a run
 * (a run that stops tells something about that record): a record over max_length is cut, one that
 * cannot be read or whose labels did not survive becomes a record without labels; both are counted
 * for the owner's eyes only. */
#pragma once

#include "model/chat_template.h"
#include "model/transformer.h"

/* Hears of each record that tolerant mode cut or emptied: its line and a sentence. For the owner
 * of the data only. */
typedef void dure_dataset_listener(void *state, uint32_t line, const char *sentence);

typedef struct dure_dataset_opts {
    uint32_t max_length;             /* tokens a record, at most the model's context */
    bool tolerant;                   /* the rule for DP above */
    size_t max_records;              /* 0: 10 million */
    dure_dataset_listener *listener; /* may be NULL */
    void *listener_state;
} dure_dataset_opts;

typedef struct dure_record {
    size_t first;      /* index of its first token in `tokens` */
    size_t n;          /* tokens */
    uint32_t n_labels; /* supervised tokens */
    uint32_t line;     /* in the file, from 1 */
} dure_record;

typedef struct dure_dataset {
    dure_tokens tokens;
    dure_record *records;
    size_t n;
    size_t n_cut, n_unusable; /* tolerant mode: cut at max_length; without labels or unreadable */
} dure_dataset;

DURE_MUST_USE dure_err dure_dataset_read(dure_dataset *out, const char *path,
                                         const dure_tokenizer *t, const dure_chat_template *chat,
                                         const dure_dataset_opts *opts, dure_diag *diag);
/* As dure_dataset_read() over bytes; `name` stands for the file in `diag`. */
DURE_MUST_USE dure_err dure_dataset_parse(dure_dataset *out, dure_span text, const char *name,
                                          const dure_tokenizer *t, const dure_chat_template *chat,
                                          const dure_dataset_opts *opts, dure_diag *diag);
void dure_dataset_fini(dure_dataset *data);
/* The record as the transformer takes it, borrowed. */
dure_document dure_dataset_document(const dure_dataset *data, size_t i);
