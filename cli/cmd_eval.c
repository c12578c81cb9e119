/* dure eval: the loss of a model on a data file, and how often its answers are right. */
#include "cli/args.h"
#include "cli/commands.h"
#include "cli/model_open.h"
#include "cli/output.h"
#include "cli/score.h"
#include "cli/text.h"
#include "common/clock.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct options {
    const char *model, *data, *adapter, *fields, *chat_template, *device;
    uint64_t limit, threads;
    bool any_base, per_record, json;
} options;

typedef struct evaluation {
    dure_open_model m;
    dure_dataset data;
    size_t n; /* records evaluated */
    dure_score_fields fields;
    dure_document_loss *losses;
    dure_answer_score *scores; /* NULL: no fields were named */
    double seconds;
} evaluation;

static dure_err measure(evaluation *e, dure_diag *diag)
{
    dure_document *docs = calloc(e->n + 1, sizeof *docs);
    e->losses = calloc(e->n + 1, sizeof *e->losses);
    if (!docs || !e->losses) {
        free(docs);
        return DURE_ERR_NOMEM;
    }
    for (size_t i = 0; i < e->n; i++)
        docs[i] = dure_dataset_document(&e->data, i);
    dure_err err = dure_transformer_loss(e->losses, e->m.transformer, e->m.lora, docs, e->n, diag);
    free(docs);
    if (err || e->fields.n == 0) return err;
    e->scores = calloc(e->n + 1, sizeof *e->scores);
    if (!e->scores) return DURE_ERR_NOMEM;
    return dure_score_answers(e->scores, &e->m, &e->data, e->n, &e->fields, diag);
}

static dure_err evaluate(evaluation *e, const options *o, dure_diag *diag)
{
    double started = dure_clock_monotonic_s();
    dure_open_opts opts = {.model = o->model,
                           .adapter = o->adapter,
                           .any_base = o->any_base,
                           .chat_template = o->chat_template,
                           .threads = (uint32_t)o->threads};
    (void)dure_device_parse(&opts.device, o->device);
    dure_device_say(o->device);
    dure_err err = DURE_OK;
    if (o->fields) err = dure_score_fields_parse(&e->fields, o->fields, diag);
    if (!err) err = dure_open_model_init(&e->m, &opts, diag);
    if (err) return err;
    dure_dataset_opts read = {.max_length = dure_transformer_shape(e->m.transformer)->n_context};
    err = dure_dataset_read(&e->data, o->data, e->m.tokenizer, &e->m.chat, &read, diag);
    if (err) return err;
    e->n = o->limit && o->limit < e->data.n ? (size_t)o->limit : e->data.n;
    err = measure(e, diag);
    e->seconds = dure_clock_monotonic_s() - started;
    return err;
}

typedef struct totals {
    double loss, score;
    uint64_t labels;
    double field[DURE_SCORE_FIELDS_MAX];
} totals;

static totals total(const evaluation *e)
{
    totals t = {0};
    for (size_t i = 0; i < e->n; i++) {
        t.loss += e->losses[i].nll_sum;
        t.labels += e->losses[i].n_labels;
        if (!e->scores) continue;
        t.score += e->scores[i].all_right ? 1 : 0;
        for (size_t k = 0; k < e->fields.n; k++)
            t.field[k] += e->scores[i].right[k] ? 1 : 0;
    }
    t.loss = t.labels ? t.loss / (double)t.labels : 0;
    t.score = e->n ? t.score / (double)e->n : 0;
    for (size_t k = 0; k < e->fields.n; k++)
        t.field[k] = e->n ? t.field[k] / (double)e->n : 0;
    return t;
}

static json_t *record_json(const evaluation *e, size_t i)
{
    const dure_document_loss *loss = &e->losses[i];
    json_t *o = json_pack("{s:i, s:f, s:i}", "line", (int)e->data.records[i].line, "loss",
                          loss->n_labels ? loss->nll_sum / loss->n_labels : 0.0, "tokens",
                          (int)loss->n_labels);
    if (!o || !e->scores) return o;
    json_t *right = json_object();
    for (size_t k = 0; k < e->fields.n; k++)
        json_object_set_new(right, e->fields.name[k], json_boolean(e->scores[i].right[k]));
    json_object_set_new(o, "right", json_boolean(e->scores[i].all_right));
    json_object_set_new(o, "fields", right);
    json_object_set_new(o, "answer", dure_text_json(dure_span_of_text(e->scores[i].answer)));
    return o;
}

static int print_json(const evaluation *e, const options *o)
{
    totals t = total(e);
    json_t *root = json_pack("{s:f, s:I, s:I}", "loss", t.loss, "records", (json_int_t)e->n,
                             "tokens", (json_int_t)t.labels);
    if (root && e->scores) {
        json_t *fields = json_object();
        for (size_t k = 0; k < e->fields.n; k++)
            json_object_set_new(fields, e->fields.name[k], json_real(t.field[k]));
        json_object_set_new(root, "score", json_real(t.score));
        json_object_set_new(root, "field_scores", fields);
    }
    if (root) json_object_set_new(root, "seconds", json_real(e->seconds));
    if (root && o->per_record) {
        json_t *list = json_array();
        for (size_t i = 0; i < e->n; i++)
            json_array_append_new(list, record_json(e, i));
        json_object_set_new(root, "per_record", list);
    }
    return dure_print_json(root);
}

static int print_words(const evaluation *e, const options *o)
{
    totals t = total(e);
    printf("loss      %.4f\nrecords   %zu\ntokens    %llu\n", t.loss, e->n,
           (unsigned long long)t.labels);
    if (e->scores) printf("score     %.4f\n", t.score);
    for (size_t k = 0; k < e->fields.n; k++)
        printf("  %-12s %.4f\n", e->fields.name[k], t.field[k]);
    for (size_t i = 0; i < e->n && o->per_record; i++) {
        const dure_document_loss *loss = &e->losses[i];
        printf("line %-6u loss %.4f%s\n", e->data.records[i].line,
               loss->n_labels ? loss->nll_sum / loss->n_labels : 0.0,
               !e->scores               ? ""
               : e->scores[i].all_right ? "  right"
                                        : "  wrong");
    }
    char took[32];
    dure_format_seconds(took, e->seconds);
    fprintf(stderr, "%s, %s\n", took, dure_transformer_path(e->m.transformer));
    return 0;
}

static void evaluation_fini(evaluation *e)
{
    if (e->scores) dure_answer_scores_fini(e->scores, e->n);
    free(e->scores);
    free(e->losses);
    dure_dataset_fini(&e->data);
    dure_open_model_fini(&e->m);
}

int dure_cmd_eval(int argc, char **argv)
{
    options o = {0};
    const dure_arg args[] = {
        dure_model_arg(&o.model),
        dure_data_arg(&o.data),
        dure_adapter_arg(&o.adapter),
        dure_any_base_arg(&o.any_base),
        dure_chat_template_arg(&o.chat_template),
        OPTION(COUNT, "limit", o.limit, "N", "only the first N records"),
        OPTION(TEXT, "fields", o.fields, "A,B",
               "let the model answer, and compare these fields of its JSON"),
        FLAG("per-record", o.per_record, "every record's own result too"),
        dure_threads_arg(&o.threads),
        dure_device_arg(&o.device),
        dure_json_arg(&o.json),
    };
    const dure_usage usage = {
        "eval", "mean loss of the response tokens, and the share of right answers", args,
        N_ARGS(args),
        "dure eval --model base.gguf --adapter site.gguf --data heldout.jsonl --fields city,date"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed;
    if (o.any_base && !o.adapter) return dure_args_refuse(&usage, "--any-base is about --adapter");
    dure_device_choice device;
    int status = dure_device_check(&device, o.device, &usage);
    if (status) return status;
    evaluation e = {0};
    dure_diag diag = {{0}};
    dure_err err = evaluate(&e, &o, &diag);
    if (err)
        status = dure_fail("eval", err, &diag);
    else
        status = o.json ? print_json(&e, &o) : print_words(&e, &o);
    evaluation_fini(&e);
    return status;
}
