#include "cli/score.h"

#include "model/decode.h"

#include <stdlib.h>
#include <string.h>

/* SLOTS conversations go on together. An answer may be EXTRA tokens longer than the record's own
 * before it is cut: it is wrong by then. */
enum { SLOTS = 32, EXTRA = 16, MAX_ANSWER_BYTES = 1 << 20 };

dure_err dure_score_fields_parse(dure_score_fields *out, const char *text, dure_diag *diag)
{
    memset(out, 0, sizeof *out);
    if (strlen(text) >= sizeof out->text)
        return dure_diag_set(diag, DURE_ERR_USAGE, "the list of fields is too long");
    memcpy(out->text, text, strlen(text));
    for (char *at = out->text;;) {
        char *comma = strchr(at, ',');
        if (comma) *comma = 0;
        bool repeated = false;
        for (size_t i = 0; i < out->n; i++)
            repeated = repeated || !strcmp(out->name[i], at);
        if (!*at || repeated || out->n == DURE_SCORE_FIELDS_MAX)
            return dure_diag_set(diag, DURE_ERR_USAGE,
                                 "fields are a list of 1 to %d different names like 'city,date'",
                                 DURE_SCORE_FIELDS_MAX);
        out->name[out->n++] = at;
        if (!comma) return DURE_OK;
        at = comma + 1;
    }
}

/* The last answer of a record: tokens [*first, *end) without those that end it. */
static void find_answer(size_t *first, size_t *end, dure_document doc, const dure_tokenizer *t)
{
    size_t last = doc.n;
    while (last && !doc.supervised[last - 1])
        last--;
    size_t start = last;
    while (start && doc.supervised[start - 1])
        start--;
    *first = start;
    while (last > start && dure_tokenizer_is_special(t, doc.tokens[last - 1]))
        last--;
    *end = last;
}

/* A JSON object, or NULL when the text is not one. */
static json_t *read_object(dure_span text)
{
    json_t *value = json_loadb((const char *)text.data, text.n, JSON_REJECT_DUPLICATES, NULL);
    if (json_is_object(value)) return value;
    json_decref(value);
    return NULL;
}

static void compare(dure_answer_score *score, const json_t *said, const json_t *expected,
                    const dure_score_fields *fields)
{
    score->all_right = true;
    for (size_t i = 0; i < fields->n; i++) {
        const json_t *a = json_object_get(said, fields->name[i]);
        score->right[i] = a && json_equal(a, json_object_get(expected, fields->name[i]));
        score->all_right = score->all_right && score->right[i];
    }
}

typedef struct slot {
    dure_decoder *decoder;
    size_t record, left; /* tokens it may still say */
    dure_buf text;
    json_t *expected;
    bool busy;
} slot;

typedef struct run {
    const dure_open_model *m;
    const dure_dataset *data;
    const dure_score_fields *fields;
    dure_answer_score *scores;
    dure_sampler greedy;
    slot slots[SLOTS];
} run;

static void put_piece(dure_buf *text, const dure_tokenizer *t, int32_t id)
{
    dure_span piece = dure_tokenizer_piece(t, id);
    dure_put_raw(text, piece.data, piece.n);
}

static dure_err read_expected(slot *s, const run *r, const size_t answer[2], dure_diag *diag)
{
    dure_document doc = dure_dataset_document(r->data, s->record);
    dure_buf text;
    dure_buf_init(&text, MAX_ANSWER_BYTES);
    for (size_t i = answer[0]; i < answer[1]; i++)
        put_piece(&text, r->m->tokenizer, doc.tokens[i]);
    s->expected = read_object(dure_buf_span(&text));
    dure_buf_fini(&text);
    uint32_t line = r->data->records[s->record].line;
    if (!s->expected)
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "line %u: the answer is not a JSON object, so it has no fields", line);
    for (size_t i = 0; i < r->fields->n; i++)
        if (!json_object_get(s->expected, r->fields->name[i]))
            return dure_diag_set(diag, DURE_ERR_FORMAT, "line %u: the answer has no field '%s'",
                                 line, r->fields->name[i]);
    return DURE_OK;
}

/* Gives the slot a record: its prompt is fed, its own answer read. */
static dure_err start(slot *s, run *r, size_t record, dure_diag *diag)
{
    dure_document doc = dure_dataset_document(r->data, record);
    size_t answer[2];
    s->record = record;
    s->busy = true;
    dure_buf_init(&s->text, MAX_ANSWER_BYTES);
    find_answer(&answer[0], &answer[1], doc, r->m->tokenizer);
    dure_err err = read_expected(s, r, answer, diag);
    if (err) return err;
    s->left = answer[1] - answer[0] + EXTRA;
    dure_decoder_rewind(s->decoder, 0);
    return dure_decoder_feed(s->decoder, r->m->lora, doc.tokens, answer[0], diag);
}

static dure_err finish(slot *s, run *r)
{
    dure_answer_score *score = &r->scores[s->record];
    json_t *said = read_object(dure_buf_span(&s->text));
    compare(score, said, s->expected, r->fields);
    json_decref(said);
    json_decref(s->expected);
    s->expected = NULL;
    s->busy = false;
    score->answer = strndup(s->text.data ? (const char *)s->text.data : "", s->text.n);
    dure_buf_fini(&s->text);
    return score->answer ? DURE_OK : DURE_ERR_NOMEM;
}

/* Chooses the next token of every busy slot; those that go on are fed together. */
static dure_err step(run *r, dure_diag *diag)
{
    dure_decoder *decoders[SLOTS];
    int32_t ids[SLOTS];
    size_t n = 0;
    for (size_t i = 0; i < SLOTS; i++) {
        slot *s = &r->slots[i];
        if (!s->busy) continue;
        int32_t id = dure_sampler_next(&r->greedy, dure_decoder_logits(s->decoder));
        if (dure_tokenizer_is_end(r->m->tokenizer, id) || s->left == 0 ||
            dure_decoder_room(s->decoder) == 0) {
            dure_err err = finish(s, r);
            if (err) return err;
            continue;
        }
        put_piece(&s->text, r->m->tokenizer, id);
        s->left--;
        decoders[n] = s->decoder;
        ids[n++] = id;
    }
    return dure_decoder_feed_each(decoders, ids, n, r->m->lora, diag);
}

static size_t context_needed(const dure_dataset *data, size_t n)
{
    size_t most = 0;
    for (size_t i = 0; i < n; i++)
        if (data->records[i].n > most) most = data->records[i].n;
    return most + EXTRA;
}

dure_err dure_score_answers(dure_answer_score *scores, const dure_open_model *m,
                            const dure_dataset *data, size_t n, const dure_score_fields *fields,
                            dure_diag *diag)
{
    run r = {.m = m, .data = data, .fields = fields, .scores = scores};
    size_t next = 0, busy = 0;
    memset(scores, 0, n * sizeof *scores);
    dure_err err = dure_sampler_init(&r.greedy, &(dure_sampling){0},
                                     dure_transformer_shape(m->transformer)->n_vocab);
    for (size_t i = 0; i < SLOTS && !err; i++)
        err = dure_decoder_new(&r.slots[i].decoder, m->transformer, context_needed(data, n));
    while (!err && (next < n || busy)) {
        for (size_t i = 0; i < SLOTS && next < n && !err; i++)
            if (!r.slots[i].busy) err = start(&r.slots[i], &r, next++, diag);
        if (!err) err = step(&r, diag);
        busy = 0;
        for (size_t i = 0; i < SLOTS; i++)
            busy += r.slots[i].busy;
    }
    for (size_t i = 0; i < SLOTS; i++) {
        if (r.slots[i].busy) dure_buf_fini(&r.slots[i].text);
        json_decref(r.slots[i].expected);
        dure_decoder_free(&r.slots[i].decoder);
    }
    dure_sampler_fini(&r.greedy);
    if (err) dure_answer_scores_fini(scores, n);
    return err;
}

void dure_answer_scores_fini(dure_answer_score *scores, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(scores[i].answer);
        scores[i].answer = NULL;
    }
}
