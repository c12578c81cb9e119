/* A data file as tokens with a mask of what is learned.
 *
 * Formats: JSONL (a record a line) or a JSON array of records; CSV or TSV, a record a row under a
 * header with the same names; a plain text, which is cut into pieces. A record is a conversation
 * (model/conversation.h: its answers are learned) or {"text": "..."}, which is learned from its
 * second token to the token that ends a text, which is added.
 *
 * Without DP a bad record is an error that names its line. With DP one record never stops a run
 * (a run that stops tells something about that record): a record over max_length is cut, one that
 * cannot be read or whose labels did not survive becomes a record without labels; both are counted
 * for the owner's eyes only. A file that is not in its format at all (an open quote, half an array)
 * is an error all the same: which records it holds cannot be known. */
#pragma once

#include "model/chat_template.h"
#include "model/transformer.h"

typedef enum dure_dataset_format {
    DURE_DATASET_AUTO, /* by the file's name: .json, .csv, .tsv, .txt and .md; all else is JSONL */
    DURE_DATASET_JSONL,
    DURE_DATASET_JSON, /* an array if the first character is '[', else JSONL */
    DURE_DATASET_CSV,
    DURE_DATASET_TSV,
    DURE_DATASET_TEXT,
} dure_dataset_format;

/* "auto", "jsonl", "json", "csv", "tsv", "text"; DURE_ERR_USAGE for another. */
DURE_MUST_USE dure_err dure_dataset_format_parse(dure_dataset_format *out, const char *text,
                                                 dure_diag *diag);

/* A record may name the person (or household, firm, device) it is about, "subject": "..." with 1 to
 * 256 bytes of text or a whole number; 7 and "7" are one. Where the subject is what is protected, a
 * record that does not say whose it is cannot be counted as somebody's, so it is a bad record. */
#define DURE_SUBJECT_NONE UINT32_MAX

/* Hears of each record that tolerant mode cut or emptied: its line and a sentence. For the owner
 * of the data only. */
typedef void dure_dataset_listener(void *state, uint32_t line, const char *sentence);

typedef struct dure_dataset_opts {
    dure_dataset_format format;
    uint32_t max_length;             /* tokens a record, at most the model's context */
    bool tolerant;                   /* the rule for DP above */
    bool private_records;            /* the record is what is protected: a plain text has none */
    bool by_subject;                 /* subjects are: read them, and group by them */
    size_t max_records;              /* 0: 10 million */
    dure_dataset_listener *listener; /* may be NULL */
    void *listener_state;
} dure_dataset_opts;

typedef struct dure_record {
    size_t first;      /* index of its first token in `tokens` */
    size_t n;          /* tokens */
    uint32_t n_labels; /* supervised tokens */
    uint32_t line;     /* in the file, from 1 */
    uint32_t subject;  /* by_subject: from 0, by first appearance; else DURE_SUBJECT_NONE */
} dure_record;

typedef struct dure_dataset {
    dure_tokens tokens;
    dure_record *records;
    size_t n;
    size_t n_cut, n_unusable; /* tolerant mode: cut at max_length; without labels or unreadable */
    size_t n_naming;          /* records with a "subject" that is not null or empty */
    /* by_subject: the records of subject s are by_subject[subject_first[s]..subject_first[s + 1]),
     * in the order of the file. NULL otherwise. */
    uint32_t n_subjects;
    size_t *subject_first, *by_subject;
} dure_dataset;

DURE_MUST_USE dure_err dure_dataset_read(dure_dataset *out, const char *path,
                                         const dure_tokenizer *t, const dure_chat_template *chat,
                                         const dure_dataset_opts *opts, dure_diag *diag);
/* As dure_dataset_read() over bytes; `name` stands for the file in `diag`, and for AUTO. */
DURE_MUST_USE dure_err dure_dataset_parse(dure_dataset *out, dure_span text, const char *name,
                                          const dure_tokenizer *t, const dure_chat_template *chat,
                                          const dure_dataset_opts *opts, dure_diag *diag);
void dure_dataset_fini(dure_dataset *data);
/* The record as the transformer takes it, borrowed. */
dure_document dure_dataset_document(const dure_dataset *data, size_t i);
