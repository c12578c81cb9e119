#include "serve/server.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "model/adapter_file.h"
#include "model/base_digest.h"
#include "model/gguf.h"
#include "serve/job.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define METRICS_BYTES_MAX ((size_t)1024 * 1024)
#define RETRY_AFTER_S "1"
#define LAST_WORDS_MS 1000
#define MODELS_PATH "/v1/models/"

struct dure_server {
    dure_server_opts opts;
    char model_name[DURE_MODEL_NAME_SIZE];
    dure_hash base;
    dure_gguf *gguf;
    dure_tokenizer *tokenizer;
    dure_chat_template chat;
    bool has_chat;
    dure_transformer *model;
    dure_catalog *catalog;
    dure_metrics *metrics;
    dure_scheduler *scheduler;
    dure_http *http;
    atomic_bool draining;
};

static void reply_error(dure_server *server, dure_http_exchange *x, const dure_api_error *error)
{
    dure_metrics_status(server->metrics, error->status);
    if (error->status == 503 && dure_http_add_header(x, "Retry-After", RETRY_AFTER_S)) return;
    dure_http_reply_json(x, error->status, dure_api_error_json(error));
}

static void reply_json(dure_server *server, dure_http_exchange *x, json_t *value)
{
    dure_metrics_status(server->metrics, 200);
    dure_http_reply_json(x, 200, value);
}

/* POST /v1/chat/completions and /v1/completions. */
static void on_generate(dure_server *server, dure_http_exchange *x, bool chat)
{
    const dure_job_context context = {.scheduler = server->scheduler,
                                      .tokenizer = server->tokenizer,
                                      .chat = server->has_chat ? &server->chat : NULL,
                                      .metrics = server->metrics};
    dure_api_request request = {0};
    dure_api_error error = {0};
    dure_offer *offer = NULL;
    dure_span body = dure_http_body(x);
    dure_http_keep(x);
    dure_err err = chat ? dure_api_parse_chat(&request, body, &error)
                        : dure_api_parse_completion(&request, body, &error);
    if (!err) offer = dure_catalog_acquire(server->catalog, request.model);
    if (!err && !offer)
        err = dure_api_refuse(&error, 404, "model",
                              "the model '%s' does not exist; GET /v1/models lists what does",
                              request.model);
    if (!err) err = dure_job_start(&context, x, &request, offer, &error);
    if (!err) return;
    reply_error(server, x, &error);
    dure_http_release(&x);
    dure_offer_release(&offer);
    dure_api_request_fini(&request);
}

static void on_chat(dure_server *server, dure_http_exchange *x)
{
    on_generate(server, x, true);
}

static void on_completion(dure_server *server, dure_http_exchange *x)
{
    on_generate(server, x, false);
}

static void on_models(dure_server *server, dure_http_exchange *x)
{
    reply_json(server, x, dure_catalog_json(server->catalog));
}

static void on_model(dure_server *server, dure_http_exchange *x)
{
    const char *name = dure_http_path(x) + strlen(MODELS_PATH);
    json_t *model = dure_catalog_model_json(server->catalog, name);
    dure_api_error error;
    if (model) {
        reply_json(server, x, model);
        return;
    }
    dure_api_refuse(&error, 404, "model", "the model '%s' does not exist", name);
    reply_error(server, x, &error);
}

static void on_health(dure_server *server, dure_http_exchange *x)
{
    bool draining = atomic_load(&server->draining);
    dure_http_reply_json(x, draining ? 503 : 200,
                         json_pack("{s:s}", "status", draining ? "stopping" : "ok"));
}

static void on_metrics(dure_server *server, dure_http_exchange *x)
{
    dure_buf text;
    dure_buf_init(&text, METRICS_BYTES_MAX);
    dure_gauges gauges = dure_scheduler_gauges(server->scheduler);
    dure_metrics_put(&text, server->metrics, &gauges, server->catalog);
    dure_http_reply(x, dure_buf_err(&text) ? 500 : 200, "text/plain; version=0.0.4",
                    dure_buf_span(&text));
    dure_buf_fini(&text);
}

static const struct route {
    const char *method, *path; /* a path that ends in '/' stands for all below it */
    void (*handle)(dure_server *server, dure_http_exchange *x);
} routes[] = {
    {"POST", "/v1/chat/completions", on_chat},
    {"POST", "/v1/completions", on_completion},
    {"GET", "/v1/models", on_models},
    {"GET", MODELS_PATH, on_model},
    {"GET", "/health", on_health},
    {"GET", "/metrics", on_metrics},
};

static bool route_matches(const struct route *route, const char *path)
{
    size_t n = strlen(route->path);
    if (route->path[n - 1] == '/') return !strncmp(path, route->path, n) && path[n];
    return !strcmp(path, route->path);
}

/* HEAD is GET without the body (RFC 9110, 9.3.2), which the library leaves out. */
static bool method_matches(const struct route *route, const char *method)
{
    return !strcmp(method, route->method) ||
           (!strcmp(method, "HEAD") && !strcmp(route->method, "GET"));
}

static void on_request(void *state, dure_http_exchange *x)
{
    dure_server *server = state;
    const char *method = dure_http_method(x), *path = dure_http_path(x);
    dure_api_error error;
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        if (!route_matches(&routes[i], path)) continue;
        if (method_matches(&routes[i], method)) {
            routes[i].handle(server, x);
            return;
        }
        dure_api_refuse(&error, 405, NULL, "%s takes %s, not %s", path, routes[i].method, method);
        if (dure_http_add_header(x, "Allow", routes[i].method)) return;
        reply_error(server, x, &error);
        return;
    }
    dure_api_refuse(&error, 404, NULL, "there is no %s here", path);
    reply_error(server, x, &error);
}

/* Errors that the HTTP server itself answers, in the API's shape. */
static json_t *error_body(unsigned status, const char *message)
{
    dure_api_error error;
    dure_api_refuse(&error, status, NULL, "%s", message);
    return dure_api_error_json(&error);
}

/* "models/SmolLM2.gguf" is "SmolLM2". */
static void name_from_path(char name[DURE_MODEL_NAME_SIZE], const char *path)
{
    const char *slash = strrchr(path, '/'), *file = slash ? slash + 1 : path;
    size_t n = strlen(file);
    if (n > 5 && !strcmp(file + n - 5, ".gguf")) n -= 5;
    snprintf(name, DURE_MODEL_NAME_SIZE, "%.*s", (int)(n < INT16_MAX ? n : INT16_MAX), file);
}

static dure_err load_model(dure_server *server, dure_diag *diag)
{
    const dure_server_opts *opts = &server->opts;
    dure_err err = dure_base_digest(&server->base, opts->model_path, diag);
    if (!err) err = dure_gguf_open(&server->gguf, opts->model_path, NULL, diag);
    if (!err) err = dure_tokenizer_new(&server->tokenizer, server->gguf, diag);
    if (err) return err;
    dure_diag why = {0};
    err = dure_chat_template_open(&server->chat, opts->chat_template, server->gguf,
                                  server->tokenizer, &why);
    if (err && opts->chat_template) return dure_diag_set(diag, err, "%s", why.text);
    server->has_chat = !err;
    if (err) dure_log(DURE_LOG_WARN, "serve", "no_chat_template", "reason=\"%s\"", why.text);
    const dure_transformer_opts compute = {
        .threads = opts->threads, .cuda = opts->cuda, .device = opts->device};
    return dure_transformer_new(&server->model, server->gguf, &compute, diag);
}

dure_err dure_server_new(dure_server **out, const dure_server_opts *opts, dure_diag *diag)
{
    *out = NULL;
    dure_server *server = calloc(1, sizeof *server);
    if (!server) return DURE_ERR_NOMEM;
    server->opts = *opts;
    atomic_init(&server->draining, false);
    if (opts->model_name)
        snprintf(server->model_name, sizeof server->model_name, "%s", opts->model_name);
    else
        name_from_path(server->model_name, opts->model_path);
    const dure_scheduler_opts slots = {
        .slots = opts->slots, .queue = opts->queue, .positions = opts->context};
    dure_err err = load_model(server, diag);
    if (!err)
        err = dure_catalog_new(&server->catalog, server->model_name, dure_clock_wall_s(), diag);
    if (!err) err = dure_metrics_new(&server->metrics);
    if (!err)
        err = dure_scheduler_new(&server->scheduler, server->model, server->tokenizer,
                                 server->metrics, &slots);
    if (err)
        dure_server_close(&server);
    else
        *out = server;
    return err;
}

/* The adapter's parameters and digest; the digest stays zero for a PEFT folder. */
static dure_err load_adapter(dure_lora **out, dure_adapter_notes *notes, dure_hash *digest,
                             const dure_server *server, const dure_server_adapter *adapter,
                             dure_diag *diag)
{
    const dure_model_shape *shape = dure_transformer_shape(server->model);
    dure_buf file = {0};
    dure_span bytes = adapter->bytes;
    struct stat info;
    *out = NULL;
    if (adapter->path && stat(adapter->path, &info) == 0 && S_ISDIR(info.st_mode)) {
        if (adapter->check)
            return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                                 "%s is a folder: only a single file can be signed", adapter->path);
        return dure_adapter_load_peft(out, notes, adapter->path, shape, diag);
    }
    dure_err err = DURE_OK;
    if (adapter->path) {
        err = dure_file_read(&file, adapter->path, dure_adapter_bytes_most(shape), diag);
        bytes = dure_buf_span(&file);
    }
    if (!err) err = dure_hash_bytes(digest, bytes);
    if (!err && adapter->check) err = adapter->check(adapter->check_state, digest, diag);
    if (!err) err = dure_adapter_parse(out, notes, bytes, shape, diag);
    if (adapter->path) dure_buf_fini(&file);
    return err;
}

/* What is served was made for this very base. An adapter that does not name its base fits by its
 * shapes, which the loader has checked; unless `check` knows better, that is said in the log. */
static dure_err check_base(const dure_server *server, const dure_server_adapter *adapter,
                           const dure_adapter_notes *notes, dure_diag *diag)
{
    char base[2 * DURE_HASH_BYTES + 1];
    dure_hex_encode(base, server->base.b, DURE_HASH_BYTES);
    if (!notes->base_digest[0]) {
        if (!adapter->check)
            dure_log(DURE_LOG_WARN, "serve", "adapter_without_base", "name=%s", adapter->name);
        return DURE_OK;
    }
    if (!strcmp(base, notes->base_digest)) return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_STATE,
                         "adapter '%s' was made for the base model with digest %.16s..., not for "
                         "%s (%.16s...); serve it with that base",
                         adapter->name, notes->base_digest, server->opts.model_path, base);
}

dure_err dure_server_offer(dure_server *server, const dure_server_adapter *adapter, dure_diag *diag)
{
    dure_lora *lora = NULL;
    dure_offer *offer = NULL;
    dure_adapter_notes notes = {.texts = NULL};
    dure_hash digest = {{0}}, none = {{0}};
    dure_err err = load_adapter(&lora, &notes, &digest, server, adapter, diag);
    if (!err) err = check_base(server, adapter, &notes, diag);
    if (!err) {
        err = dure_offer_new(&offer, adapter->name, lora, diag);
        lora = NULL;
    }
    if (!err) {
        if (!dure_hash_equal(&digest, &none))
            dure_hex_encode(offer->digest, digest.b, DURE_HASH_BYTES);
        offer->version = adapter->version;
        offer->created_s = adapter->created_s ? adapter->created_s : dure_clock_wall_s();
        err = dure_catalog_put(server->catalog, offer, diag);
    }
    if (!err)
        dure_log(DURE_LOG_INFO, "serve", "adapter_offered", "name=%s version=%llu", adapter->name,
                 (unsigned long long)adapter->version);
    dure_lora_free(&lora);
    dure_adapter_notes_fini(&notes);
    return err;
}

bool dure_server_withdraw(dure_server *server, const char *name)
{
    return dure_catalog_remove(server->catalog, name);
}

const dure_hash *dure_server_base(const dure_server *server)
{
    return &server->base;
}

const char *dure_server_compute(const dure_server *server)
{
    return dure_transformer_path(server->model);
}

dure_err dure_server_listen(dure_server *server, dure_diag *diag)
{
    dure_http_opts http = server->opts.http;
    http.handler = on_request;
    http.state = server;
    http.error_body = error_body;
    return dure_http_open(&server->http, &http, diag);
}

const char *dure_server_url(const dure_server *server)
{
    return dure_http_url(server->http);
}

bool dure_server_drain(dure_server *server, uint32_t timeout_ms)
{
    atomic_store(&server->draining, true);
    if (server->http) dure_http_quiesce(server->http);
    const uint64_t end_ms = dure_clock_monotonic_ms() + timeout_ms;
    if (!dure_scheduler_drain(server->scheduler, timeout_ms)) return false;
    const uint64_t now_ms = dure_clock_monotonic_ms();
    uint32_t left_ms = now_ms < end_ms ? (uint32_t)(end_ms - now_ms) : 0;
    return !server->http || dure_http_wait_idle(server->http, left_ms);
}

void dure_server_close(dure_server **handle)
{
    dure_server *server = *handle;
    if (!server) return;
    atomic_store(&server->draining, true);
    if (server->http) dure_http_quiesce(server->http);
    /* The scheduler stops first, so that its last words still go out; then nothing can start,
     * because a stopped scheduler takes no prompts. */
    if (server->scheduler) dure_scheduler_stop(server->scheduler);
    if (server->http) dure_http_wait_idle(server->http, LAST_WORDS_MS);
    dure_http_close(&server->http);
    dure_scheduler_free(&server->scheduler);
    dure_metrics_free(&server->metrics);
    dure_catalog_free(&server->catalog);
    dure_transformer_free(&server->model);
    dure_tokenizer_free(&server->tokenizer);
    dure_gguf_close(&server->gguf);
    free(server);
    *handle = NULL;
}
