/* After the last round: what the adapter is worth, and its way into use. */
#include "cli/demo.h"

#include "cli/local_http.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SERVER_PATIENCE_MS = 60000 };

/* The site's own ledger says what was spent. */
static dure_err read_budget(demo_site *s, const demo *d, dure_diag *diag)
{
    char ledger[DEMO_PATH];
    demo_path(ledger, d, s->name);
    snprintf(ledger + strlen(ledger), sizeof ledger - strlen(ledger), "/ledger");
    json_t *answer;
    dure_err err = demo_command(
        &answer, d, (const char *const[]){"privacy", "status", "--ledger", ledger, "--json", NULL},
        diag);
    if (err) return err;
    const json_t *source = json_array_get(json_object_get(answer, "sources"), 0);
    err = dure_json_number(&s->epsilon_spent, source, "epsilon_spent", diag);
    if (!err) err = dure_json_number(&s->epsilon_budget, source, "epsilon", diag);
    if (!err) err = dure_json_number(&s->delta, source, "delta", diag);
    json_decref(answer);
    return err;
}

/* The first user message of the evaluation set, as the question that is asked of the server. */
static dure_err take_question(demo *d, dure_diag *diag, json_t **messages)
{
    char path[DEMO_PATH + 64];
    snprintf(path, sizeof path, "%s/eval.jsonl", d->data);
    dure_buf text;
    dure_err err = dure_file_read(&text, path, (size_t)16 << 20, diag);
    if (err) return err;
    const uint8_t *end = memchr(text.data, '\n', text.n);
    json_t *record = NULL;
    err = dure_json_parse(
        &record, dure_span_of(text.data, end ? (size_t)(end - text.data) : text.n), path, diag);
    dure_buf_fini(&text);
    if (err) return err;
    *messages = json_incref(json_object_get(record, "messages"));
    json_array_remove(*messages, json_array_size(*messages) - 1); /* the answer */
    const json_t *user = json_array_get(*messages, json_array_size(*messages) - 1);
    const char *question = json_string_value(json_object_get(user, "content"));
    d->question = question ? strdup(question) : NULL;
    json_decref(record);
    return d->question ? DURE_OK
                       : dure_diag_set(diag, DURE_ERR_FORMAT, "%s has no question in line 1", path);
}

/* One line of at most 160 bytes, for the screen. */
static char *one_line(const char *text)
{
    char *copy = strndup(text, 160);
    for (char *c = copy; c && *c; c++)
        if (*c == '\n' || *c == '\r') *c = ' ';
    return copy;
}

static dure_err ask(char **out, uint16_t port, const char *model, json_t *messages, dure_diag *diag)
{
    json_t *body = json_pack("{s:s, s:O, s:i, s:i}", "model", model, "messages", messages,
                             "temperature", 0, "max_tokens", 32);
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    json_decref(body);
    if (!text) return dure_diag_set(diag, DURE_ERR_NOMEM, "out of memory");
    dure_buf answer;
    int status = 0;
    dure_err err =
        dure_local_http(&status, &answer, port, "POST", "/v1/chat/completions", text, diag);
    free(text);
    if (err) return err;
    json_t *parsed;
    err = dure_json_parse(&parsed, dure_buf_span(&answer), "the server's answer", diag);
    dure_buf_fini(&answer);
    if (err) return err;
    const json_t *choice = json_array_get(json_object_get(parsed, "choices"), 0);
    const char *content =
        json_string_value(json_object_get(json_object_get(choice, "message"), "content"));
    if (status != 200 || !content)
        err = dure_diag_set(diag, DURE_ERR_NET, "the server answered %d without a message", status);
    else
        *out = one_line(content);
    json_decref(parsed);
    return err;
}

static dure_err wait_for_server(dure_child *server, uint16_t port, dure_diag *diag)
{
    const uint64_t until = dure_clock_monotonic_ms() + SERVER_PATIENCE_MS;
    while (dure_child_running(server) && dure_clock_monotonic_ms() < until) {
        dure_buf answer;
        int status;
        if (!dure_local_http(&status, &answer, port, "GET", "/health", NULL, NULL)) {
            dure_buf_fini(&answer);
            if (status == 200) return DURE_OK;
        }
        dure_clock_sleep_ms(100);
    }
    return dure_diag_set(diag, DURE_ERR_TIMEOUT,
                         "'dure serve' did not come up; see logs/serve.log");
}

static dure_err serve_and_ask(demo *d, dure_diag *diag)
{
    char coordinator[DEMO_PATH], log[DEMO_PATH], listen[64];
    demo_path(coordinator, d, "federation/coordinator");
    demo_path(log, d, "logs/serve.log");
    const uint16_t port = dure_local_free_port();
    snprintf(listen, sizeof listen, "127.0.0.1:%u", (unsigned)port);
    json_t *messages = NULL;
    dure_err err = take_question(d, diag, &messages);
    if (!err)
        err = dure_child_start(&d->server,
                               (const char *const[]){"serve", coordinator, "--model", d->model,
                                                     "--name", "base", "--alias", "champion",
                                                     "--listen", listen, NULL},
                               &(dure_child_opts){.log_path = log}, diag);
    if (!err) err = wait_for_server(&d->server, port, diag);
    if (!err) err = ask(&d->answer_base, port, "base", messages, diag);
    if (!err) err = ask(&d->answer_adapter, port, "champion", messages, diag);
    dure_child_stop(&d->server, 5000);
    json_decref(messages);
    return err;
}

static dure_err audit(demo *d, dure_diag *diag)
{
    char coordinator[DEMO_PATH], file[DEMO_PATH];
    demo_path(coordinator, d, "federation/coordinator");
    demo_path(file, d, "ledger.dure");
    dure_err err = demo_command(
        NULL, d, (const char *const[]){"audit", "export", coordinator, "-o", file, NULL}, diag);
    if (!err)
        err = demo_command(NULL, d, (const char *const[]){"audit", "verify", file, "--json", NULL},
                           diag);
    d->ledger_verified = !err;
    return err;
}

dure_err demo_outcome(demo *d, dure_diag *diag)
{
    const double start = dure_clock_monotonic_s();
    char coordinator[DEMO_PATH], merged[DEMO_PATH];
    demo_path(coordinator, d, "federation/coordinator");
    demo_path(merged, d, "merged.gguf");
    demo_path(d->adapter_path, d, "adapter.gguf");
    dure_err err = demo_command(
        NULL, d, (const char *const[]){"adapter", "promote", coordinator, "latest", "--json", NULL},
        diag);
    if (!err)
        err = demo_command(NULL, d,
                           (const char *const[]){"adapter", "export", coordinator, "champion", "-o",
                                                 d->adapter_path, "--json", NULL},
                           diag);
    if (!err)
        err = demo_command(NULL, d,
                           (const char *const[]){"adapter", "merge", coordinator, "champion",
                                                 "--model", d->model, "-o", merged, "--json", NULL},
                           diag);
    if (!err) err = demo_evaluate(d, diag);
    for (size_t i = 0; !err && i < DEMO_SITES; i++)
        err = read_budget(&d->sites[i], d, diag);
    if (!err) err = serve_and_ask(d, diag);
    if (!err) err = audit(d, diag);
    d->outcome_s = dure_clock_monotonic_s() - start;
    return err;
}
