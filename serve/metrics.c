#include "serve/metrics.h"

#include <pthread.h>
#include <stdlib.h>

#define BUCKETS 16
#define STATUS_MAX 600

/* Upper bounds in seconds: from one token on a fast machine to a long answer on a slow one. */
static const double bounds[BUCKETS] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                       0.5,   1,      2.5,   5,    10,    30,   60,  300};

static const struct {
    const char *name, *help;
} timings[DURE_TIMINGS] = {
    {"dure_serve_queue_seconds", "Time from a request to a free slot."},
    {"dure_serve_ttft_seconds", "Time from a request to its first token."},
    {"dure_serve_itl_seconds", "Time between two tokens of one answer."},
    {"dure_serve_request_seconds", "Time from a request to its end."},
};

static const char *const ends[DURE_ENDS] = {"stop", "length", "cancelled", "failed"};

typedef struct histogram {
    uint64_t buckets[BUCKETS + 1]; /* not cumulative; the last is +Inf */
    double sum;
    uint64_t n;
} histogram;

struct dure_metrics {
    pthread_mutex_t lock;
    histogram timings[DURE_TIMINGS];
    uint64_t ends[DURE_ENDS];
    uint64_t prompt_tokens, generated_tokens;
    uint64_t statuses[STATUS_MAX];
};

dure_err dure_metrics_new(dure_metrics **out)
{
    *out = calloc(1, sizeof **out);
    if (!*out) return DURE_ERR_NOMEM;
    pthread_mutex_init(&(*out)->lock, NULL);
    return DURE_OK;
}

void dure_metrics_free(dure_metrics **m)
{
    if (!*m) return;
    pthread_mutex_destroy(&(*m)->lock);
    free(*m);
    *m = NULL;
}

void dure_metrics_time(dure_metrics *m, dure_timing which, double seconds)
{
    size_t bucket = 0;
    while (bucket < BUCKETS && seconds > bounds[bucket])
        bucket++;
    pthread_mutex_lock(&m->lock);
    m->timings[which].buckets[bucket]++;
    m->timings[which].sum += seconds;
    m->timings[which].n++;
    pthread_mutex_unlock(&m->lock);
}

void dure_metrics_end(dure_metrics *m, dure_end how, uint64_t prompt_tokens,
                      uint64_t generated_tokens)
{
    pthread_mutex_lock(&m->lock);
    m->ends[how]++;
    m->prompt_tokens += prompt_tokens;
    m->generated_tokens += generated_tokens;
    pthread_mutex_unlock(&m->lock);
}

void dure_metrics_status(dure_metrics *m, unsigned http_status)
{
    if (http_status >= STATUS_MAX) return;
    pthread_mutex_lock(&m->lock);
    m->statuses[http_status]++;
    pthread_mutex_unlock(&m->lock);
}

static void put_head(dure_buf *out, const char *name, const char *type, const char *help)
{
    dure_put_format(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void put_gauge(dure_buf *out, const char *name, const char *help, double value)
{
    put_head(out, name, "gauge", help);
    dure_put_format(out, "%s %g\n", name, value);
}

static void put_counter(dure_buf *out, const char *name, const char *help, uint64_t value)
{
    put_head(out, name, "counter", help);
    dure_put_format(out, "%s %llu\n", name, (unsigned long long)value);
}

static void put_histogram(dure_buf *out, dure_timing which, const histogram *h)
{
    const char *name = timings[which].name;
    put_head(out, name, "histogram", timings[which].help);
    uint64_t below = 0;
    for (size_t i = 0; i < BUCKETS; i++) {
        below += h->buckets[i];
        dure_put_format(out, "%s_bucket{le=\"%g\"} %llu\n", name, bounds[i],
                        (unsigned long long)below);
    }
    dure_put_format(out, "%s_bucket{le=\"+Inf\"} %llu\n%s_sum %.9g\n%s_count %llu\n", name,
                    (unsigned long long)h->n, name, h->sum, name, (unsigned long long)h->n);
}

/* Names hold no character that the format would need escaped; see dure_offer_new(). */
static void put_adapter(void *state, const dure_offer *offer)
{
    dure_put_format(state,
                    "dure_adapter_active_info{adapter=\"%s\",version=\"%llu\",digest=\"%s\"} 1\n",
                    offer->name, (unsigned long long)offer->version, offer->digest);
}

void dure_metrics_put(dure_buf *out, dure_metrics *m, const dure_gauges *gauges,
                      dure_catalog *catalog)
{
    put_gauge(out, "dure_serve_queue_requests", "Prompts waiting for a slot.",
              (double)gauges->queued);
    put_gauge(out, "dure_serve_queue_capacity", "Prompts that may wait.",
              (double)gauges->queue_capacity);
    put_gauge(out, "dure_serve_slots", "Prompts answered at once.", (double)gauges->slots);
    put_gauge(out, "dure_serve_slots_busy", "Slots in use.", (double)gauges->slots_busy);
    put_gauge(out, "dure_serve_kv_used_ratio", "Part of the key-value cache in use.",
              gauges->kv_used_ratio);
    put_head(out, "dure_adapter_active_info", "gauge", "Adapters on offer.");
    dure_catalog_each(catalog, put_adapter, out);
    pthread_mutex_lock(&m->lock);
    put_counter(out, "dure_serve_prompt_tokens_total", "Tokens of prompts.", m->prompt_tokens);
    put_counter(out, "dure_serve_generated_tokens_total", "Tokens generated.", m->generated_tokens);
    put_head(out, "dure_serve_answers_total", "counter", "Answers by how they ended.");
    for (size_t i = 0; i < DURE_ENDS; i++)
        dure_put_format(out, "dure_serve_answers_total{end=\"%s\"} %llu\n", ends[i],
                        (unsigned long long)m->ends[i]);
    put_head(out, "dure_serve_http_requests_total", "counter", "Requests to the API by status.");
    for (unsigned i = 0; i < STATUS_MAX; i++)
        if (m->statuses[i])
            dure_put_format(out, "dure_serve_http_requests_total{code=\"%u\"} %llu\n", i,
                            (unsigned long long)m->statuses[i]);
    for (unsigned i = 0; i < DURE_TIMINGS; i++)
        put_histogram(out, (dure_timing)i, &m->timings[i]);
    pthread_mutex_unlock(&m->lock);
}
