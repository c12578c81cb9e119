/* Whose a record is. */
#include "model/dataset_int.h"

#include <stdio.h>
#include <stdlib.h>

enum { SUBJECT_MAX_BYTES = 256 };

static bool is_missing(const json_t *subject)
{
    return !subject || json_is_null(subject) ||
           (json_is_string(subject) && json_string_length(subject) == 0);
}

/* The name in `text`, or a sentence. */
static dure_err name_of(char text[SUBJECT_MAX_BYTES + 1], const json_t *subject, dure_diag *diag)
{
    if (is_missing(subject))
        return dure_diag_set(
            diag, DURE_ERR_FORMAT,
            "the record has no \"subject\", so it cannot be told whose it is; give "
            "it one (an id will do), or protect single records with --unit record");
    if (json_is_integer(subject)) {
        snprintf(text, SUBJECT_MAX_BYTES + 1, "%lld", (long long)json_integer_value(subject));
        return DURE_OK;
    }
    if (!json_is_string(subject) || json_string_length(subject) > SUBJECT_MAX_BYTES)
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "\"subject\" must be a text of at most %d bytes or a whole number",
                             SUBJECT_MAX_BYTES);
    snprintf(text, SUBJECT_MAX_BYTES + 1, "%s", json_string_value(subject));
    return DURE_OK;
}

dure_err dure_dataset_subject(dure_reading *r, const json_t *record, dure_diag *diag)
{
    char name[SUBJECT_MAX_BYTES + 1];
    const json_t *subject = json_object_get(record, "subject");
    r->subject = DURE_SUBJECT_NONE;
    r->data->n_naming += !is_missing(subject);
    if (!r->opts->by_subject) return DURE_OK;
    dure_err err = name_of(name, subject, diag);
    if (err) return err;
    const json_t *known = json_object_get(r->subjects, name);
    if (known) {
        r->subject = (uint32_t)json_integer_value(known);
        return DURE_OK;
    }
    if (json_object_set_new(r->subjects, name, json_integer((json_int_t)r->data->n_subjects)))
        return DURE_ERR_NOMEM;
    r->subject = r->data->n_subjects++;
    return DURE_OK;
}

/* A counting sort; records without a subject are in no group. */
dure_err dure_dataset_group(dure_dataset *data)
{
    size_t n = data->n_subjects;
    data->subject_first = calloc(n + 2, sizeof *data->subject_first);
    data->by_subject = calloc(data->n ? data->n : 1, sizeof *data->by_subject);
    if (!data->subject_first || !data->by_subject) return DURE_ERR_NOMEM;
    size_t *next = data->subject_first + 1; /* ends as the start of each group */
    for (size_t i = 0; i < data->n; i++)
        if (data->records[i].subject != DURE_SUBJECT_NONE) next[data->records[i].subject + 1]++;
    for (size_t s = 1; s <= n; s++)
        next[s] += next[s - 1];
    for (size_t i = 0; i < data->n; i++)
        if (data->records[i].subject != DURE_SUBJECT_NONE)
            data->by_subject[next[data->records[i].subject]++] = i;
    return DURE_OK;
}
