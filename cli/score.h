/* How often a model's greedy answer says the same as the record's own: both are read as JSON and
 * the named fields are compared exactly. */
#pragma once

#include "cli/model_open.h"
#include "model/dataset.h"

enum { DURE_SCORE_FIELDS_MAX = 32 };

typedef struct dure_score_fields {
    char text[512]; /* the names, each with its NUL */
    const char *name[DURE_SCORE_FIELDS_MAX];
    size_t n;
} dure_score_fields;

/* "a,b,c"; DURE_ERR_USAGE for an empty or repeated name. */
DURE_MUST_USE dure_err dure_score_fields_parse(dure_score_fields *out, const char *text,
                                               dure_diag *diag);

typedef struct dure_answer_score {
    char *answer;                      /* what the model said, owned */
    bool right[DURE_SCORE_FIELDS_MAX]; /* field by field */
    bool all_right;
} dure_answer_score;

/* Answers records [0, n) of `data`, several at a time, and compares. scores[n] is the caller's;
 * dure_answer_scores_fini() frees the answers. DURE_ERR_FORMAT: a record's own answer is not a
 * JSON object with the fields (its line is named). */
DURE_MUST_USE dure_err dure_score_answers(dure_answer_score *scores, const dure_open_model *m,
                                          const dure_dataset *data, size_t n,
                                          const dure_score_fields *fields, dure_diag *diag);
void dure_answer_scores_fini(dure_answer_score *scores, size_t n);
