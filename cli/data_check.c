/* dure data check: what a data file holds, as training would see it. */
#include "cli/data_model.h"
#include "cli/model_open.h"
#include "cli/output.h"
#include "cli/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PROBLEMS = 1000 };

typedef struct problem {
    uint32_t line;
    char text[256];
} problem;

typedef struct report {
    problem *problems; /* the first MAX_PROBLEMS */
    size_t n_problems; /* all */
    dure_dataset data;
    uint32_t *lengths;      /* ascending */
    uint32_t (*repeats)[2]; /* line, and the line it repeats */
    size_t n_repeats;
    uint64_t labels;
    size_t without_labels; /* records */
} report;

static void hear(void *state, uint32_t line, const char *sentence)
{
    report *r = state;
    if (r->n_problems < MAX_PROBLEMS) {
        problem *p = &r->problems[r->n_problems];
        p->line = line;
        snprintf(p->text, sizeof p->text, "%s", sentence);
    }
    r->n_problems++;
}

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

typedef struct keyed {
    uint64_t hash;
    const dure_dataset *data;
    size_t i;
} keyed;

static int compare_tokens(const keyed *a, const keyed *b)
{
    dure_document x = dure_dataset_document(a->data, a->i),
                  y = dure_dataset_document(b->data, b->i);
    if (x.n != y.n) return x.n < y.n ? -1 : 1;
    return x.n ? memcmp(x.tokens, y.tokens, x.n * sizeof *x.tokens) : 0;
}

static int by_content(const void *a, const void *b)
{
    const keyed *x = a, *y = b;
    if (x->hash != y->hash) return x->hash < y->hash ? -1 : 1;
    int order = compare_tokens(x, y);
    return order ? order : (x->i > y->i) - (x->i < y->i);
}

static uint64_t hash_tokens(dure_document doc)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < doc.n; i++)
        h = (h ^ (uint32_t)doc.tokens[i]) * UINT64_C(0x100000001b3);
    return h;
}

static int by_line(const void *a, const void *b)
{
    return by_size(a, b); /* the first member of each pair is its line */
}

static dure_err find_repeats(report *r)
{
    const dure_dataset *data = &r->data;
    keyed *keys = malloc((data->n + 1) * sizeof *keys);
    r->repeats = malloc((data->n + 1) * sizeof *r->repeats);
    if (!keys || !r->repeats) {
        free(keys);
        return DURE_ERR_NOMEM;
    }
    size_t n = 0;
    for (size_t i = 0; i < data->n; i++)
        if (data->records[i].n)
            keys[n++] = (keyed){hash_tokens(dure_dataset_document(data, i)), data, i};
    qsort(keys, n, sizeof *keys, by_content);
    size_t first = 0;
    for (size_t i = 1; i < n; i++) {
        if (keys[i].hash != keys[first].hash || compare_tokens(&keys[i], &keys[first])) {
            first = i;
            continue;
        }
        r->repeats[r->n_repeats][0] = data->records[keys[i].i].line;
        r->repeats[r->n_repeats++][1] = data->records[keys[first].i].line;
    }
    qsort(r->repeats, r->n_repeats, sizeof *r->repeats, by_line);
    free(keys);
    return DURE_OK;
}

static dure_err make_report(report *r, const dure_data_options *o, dure_text_model *m,
                            dure_diag *diag)
{
    r->problems = calloc(MAX_PROBLEMS, sizeof *r->problems);
    if (!r->problems) return DURE_ERR_NOMEM;
    dure_err err = dure_data_open(m, &r->data, o, hear, r, diag);
    if (err) return err;
    r->lengths = malloc(r->data.n * sizeof *r->lengths);
    if (!r->lengths) return DURE_ERR_NOMEM;
    for (size_t i = 0; i < r->data.n; i++) {
        r->lengths[i] = (uint32_t)r->data.records[i].n;
        r->labels += r->data.records[i].n_labels;
        r->without_labels += r->data.records[i].n_labels == 0;
    }
    qsort(r->lengths, r->data.n, sizeof *r->lengths, by_size);
    return find_repeats(r);
}

static void free_report(report *r)
{
    dure_dataset_fini(&r->data);
    free(r->problems);
    free(r->lengths);
    free(r->repeats);
}

static uint32_t quantile(const report *r, double q)
{
    return r->lengths[(size_t)(q * (double)(r->data.n - 1) + 0.5)];
}

/* --- the histogram: at most BINS of equal width, a power of two --- */

enum { BINS = 16 };

typedef struct histogram {
    uint32_t width;
    size_t n; /* bins */
    size_t count[BINS], most;
} histogram;

static histogram histogram_of(const report *r)
{
    histogram h = {.width = 1};
    uint32_t longest = r->lengths[r->data.n - 1];
    while (longest / h.width >= BINS)
        h.width *= 2;
    h.n = longest / h.width + 1;
    for (size_t i = 0; i < r->data.n; i++) {
        size_t bin = r->lengths[i] / h.width;
        if (++h.count[bin] > h.most) h.most = h.count[bin];
    }
    return h;
}

static json_t *histogram_json(const report *r)
{
    histogram h = histogram_of(r);
    json_t *list = json_array();
    for (size_t i = 0; i < h.n; i++)
        json_array_append_new(list, json_pack("{s:i, s:i, s:I}", "from", (int)(i * h.width), "to",
                                              (int)((i + 1) * h.width - 1), "records",
                                              (json_int_t)h.count[i]));
    return list;
}

static void print_histogram(const report *r)
{
    enum { BAR = 40 };
    histogram h = histogram_of(r);
    for (size_t i = 0; i < h.n; i++) {
        printf("  %6zu-%-6zu %8zu ", i * h.width, (i + 1) * h.width - 1, h.count[i]);
        for (size_t k = 0; k < (h.count[i] * BAR + h.most - 1) / h.most; k++)
            putchar('#');
        putchar('\n');
    }
}

/* --- telling --- */

static size_t most_of_a_subject(const dure_dataset *data)
{
    size_t most = 0;
    for (uint32_t i = 0; i < data->n_subjects; i++) {
        size_t has = data->subject_first[i + 1] - data->subject_first[i];
        if (has > most) most = has;
    }
    return most;
}

static void print_subjects(const dure_dataset *data)
{
    if (data->by_subject)
        printf("subjects  %u, with at most %zu records each\n", data->n_subjects,
               most_of_a_subject(data));
    else if (data->n_naming)
        printf("subjects  %zu records name one; --unit subject checks and counts them\n",
               data->n_naming);
}

static int print_report_json(const report *r)
{
    json_t *problems = json_array(), *repeats = json_array();
    for (size_t i = 0; i < r->n_problems && i < MAX_PROBLEMS; i++)
        json_array_append_new(problems,
                              json_pack("{s:i, s:o}", "line", (int)r->problems[i].line, "problem",
                                        dure_text_json(dure_span_of_text(r->problems[i].text))));
    for (size_t i = 0; i < r->n_repeats && i < MAX_PROBLEMS; i++)
        json_array_append_new(repeats, json_pack("{s:i, s:i}", "line", (int)r->repeats[i][0],
                                                 "repeats", (int)r->repeats[i][1]));
    json_t *out = json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:{s:i, s:i, s:i, s:i, s:i, s:i}, s:o, s:I, s:o, s:I, s:o}",
        "records", (json_int_t)r->data.n, "tokens", (json_int_t)r->data.tokens.n, "labels",
        (json_int_t)r->labels, "cut", (json_int_t)r->data.n_cut, "without_labels",
        (json_int_t)r->without_labels, "length", "least", (int)quantile(r, 0), "p25",
        (int)quantile(r, 0.25), "median", (int)quantile(r, 0.5), "p75", (int)quantile(r, 0.75),
        "p95", (int)quantile(r, 0.95), "most", (int)quantile(r, 1), "histogram", histogram_json(r),
        "n_problems", (json_int_t)r->n_problems, "problems", problems, "n_repeats",
        (json_int_t)r->n_repeats, "repeats", repeats);
    if (out)
        json_object_set_new(out, "naming_subjects", json_integer((json_int_t)r->data.n_naming));
    if (out && r->data.by_subject) {
        json_object_set_new(out, "subjects", json_integer((json_int_t)r->data.n_subjects));
        json_object_set_new(out, "most_of_a_subject",
                            json_integer((json_int_t)most_of_a_subject(&r->data)));
    }
    return dure_print_json(out);
}

static void print_problems(const report *r, const char *path)
{
    for (size_t i = 0; i < r->n_repeats && i < 10; i++)
        fprintf(stderr, "%s, line %u: the same record as line %u\n", path, r->repeats[i][0],
                r->repeats[i][1]);
    if (r->n_repeats > 10)
        fprintf(stderr, "%s: %zu more repeated records\n", path, r->n_repeats - 10);
    for (size_t i = 0; i < r->n_problems && i < MAX_PROBLEMS; i++)
        fprintf(stderr, "%s, line %u: %s\n", path, r->problems[i].line, r->problems[i].text);
    if (r->n_problems > MAX_PROBLEMS)
        fprintf(stderr, "%s: %zu more problems\n", path, r->n_problems - MAX_PROBLEMS);
}

static void print_report(const report *r, const dure_data_options *o)
{
    size_t n = r->data.tokens.n;
    printf("records   %zu\n", r->data.n);
    print_subjects(&r->data);
    printf("tokens    %zu\n", n);
    printf("labels    %llu (%.1f %% of the tokens are learned from)\n",
           (unsigned long long)r->labels, n ? 100.0 * (double)r->labels / (double)n : 0.0);
    printf("length    %u least, %u a quarter, %u median, %u three quarters, %u at 95 %%, %u most\n",
           quantile(r, 0), quantile(r, 0.25), quantile(r, 0.5), quantile(r, 0.75),
           quantile(r, 0.95), quantile(r, 1));
    print_histogram(r);
    printf("too long  %zu (over %llu tokens)\n", r->data.n_cut, (unsigned long long)o->max_length);
    printf("no label  %zu\n", r->without_labels);
    printf("repeats   %zu\n", r->n_repeats);
    printf("problems  %zu\n", r->n_problems);
    print_problems(r, o->data);
}

int dure_data_check(int argc, char **argv)
{
    dure_data_options o = {.format = "auto", .max_length = 512};
    const dure_arg args[] = {
        dure_data_arg(&o.data),
        dure_model_arg(&o.model),
        dure_chat_template_arg(&o.chat_template),
        dure_format_arg(&o.format),
        dure_max_length_arg(&o.max_length),
        OPTION(TEXT, "unit", o.unit, "record|subject",
               "what will be protected; with subject every record has to name its \"subject\""
               "; default record"),
        dure_json_arg(&o.json),
    };
    const dure_usage usage = {
        "data check",
        "lengths, labels, repeated, too long and unusable records; exit 1 if any is unusable or "
        "too "
        "long",
        args, N_ARGS(args),
        "dure data check --data site.jsonl --model SmolLM2-135M-Instruct.Q4_1.gguf"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed;
    if (o.unit && strcmp(o.unit, "subject") != 0 && strcmp(o.unit, "record") != 0)
        return dure_args_refuse(&usage, "--unit must be record or subject, not '%s'", o.unit);
    dure_text_model m = {0};
    report r = {0};
    dure_diag diag = {0};
    dure_err err = make_report(&r, &o, &m, &diag);
    int status = 0;
    if (err)
        status = dure_fail("data check", err, &diag);
    else if (o.json)
        status = print_report_json(&r);
    else
        print_report(&r, &o);
    if (!status && r.n_problems) status = 1;
    free_report(&r);
    dure_text_model_close(&m);
    return status;
}
