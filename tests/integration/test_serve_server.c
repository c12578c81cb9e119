/* The OpenAI-compatible server on a tiny model, over real sockets. */
#include "common/clock.h"
#include "common/file.h"
#include "model/adapter_file.h"
#include "model/transformer.h"
#include "serve/answer.h"
#include "serve/server.h"
#include "support/check.h"
#include "support/http_client.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHAT_PATH "/v1/chat/completions"
#define TEXT_PATH "/v1/completions"

typedef struct kitchen {
    temp_dir dir;
    char model[512];
    dure_server *server;
    uint16_t port;
} kitchen;

static void open_kitchen(kitchen *k, dure_server_opts opts)
{
    temp_dir_make(&k->dir);
    snprintf(k->model, sizeof k->model, "%s", temp_dir_file(&k->dir, "tiny.gguf"));
    tiny_model_write(k->model, &(tiny_model_opts){.seed = 11});
    opts.model_path = k->model;
    opts.threads = 1;
    if (!opts.http.listen) opts.http.listen = "127.0.0.1:0";
    assert_ok(dure_server_new(&k->server, &opts, NULL));
    assert_ok(dure_server_listen(k->server, NULL));
    k->port = http_port_of(dure_server_url(k->server));
}

static void close_kitchen(kitchen *k)
{
    dure_server_close(&k->server);
    temp_dir_remove(&k->dir);
}

static const dure_server_opts defaults;

/* Posts and parses; the status must be as given. */
static json_t *post(uint16_t port, const char *path, const char *body, int status)
{
    http_answer_text answer = http_request(port, "POST", path, NULL, body);
    if (answer.status != status) print_message("%s\n", answer.body);
    assert_int_equal(answer.status, status);
    json_t *value = json_loads(answer.body, 0, NULL);
    assert_non_null(value);
    http_answer_free(&answer);
    return value;
}

static const json_t *choice_of(const json_t *answer, size_t i)
{
    return json_array_get(json_object_get(answer, "choices"), i);
}

static const char *text_at(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

/* The text of a completion, copied. */
static char *complete(uint16_t port, const char *body)
{
    json_t *answer = post(port, TEXT_PATH, body, 200);
    char *text = strdup(text_at(choice_of(answer, 0), "text"));
    json_decref(answer);
    return text;
}

static void expect_error(uint16_t port, const char *path, const char *body, int status,
                         const char *code, const char *param)
{
    json_t *answer = post(port, path, body, status);
    const json_t *error = json_object_get(answer, "error");
    assert_string_equal(text_at(error, "code"), code);
    assert_string_equal(text_at(error, "param"), param);
    assert_string_equal(text_at(error, "type"), "invalid_request_error");
    json_decref(answer);
}

#define HELLO "\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]"

static void test_serve_chat_has_the_documented_shape(void **state)
{
    (void)state;
    kitchen k;
    open_kitchen(&k, defaults);
    json_t *answer = post(k.port, CHAT_PATH,
                          "{\"model\":\"tiny\"," HELLO ",\"max_tokens\":6,\"temperature\":0}", 200);
    const json_t *choice = choice_of(answer, 0), *usage = json_object_get(answer, "usage");
    assert_string_equal(text_at(answer, "object"), "chat.completion");
    assert_string_equal(text_at(answer, "model"), "tiny");
    assert_int_equal(strncmp(text_at(answer, "id"), "chatcmpl-", 9), 0);
    assert_string_equal(text_at(json_object_get(choice, "message"), "role"), "assistant");
    assert_true(json_is_string(json_object_get(json_object_get(choice, "message"), "content")));
    json_int_t prompt = json_integer_value(json_object_get(usage, "prompt_tokens"));
    json_int_t made = json_integer_value(json_object_get(usage, "completion_tokens"));
    assert_true(prompt > 5 && made <= 6);
    assert_int_equal(json_integer_value(json_object_get(usage, "total_tokens")), prompt + made);
    const char *finish = text_at(choice, "finish_reason");
    assert_true(!strcmp(finish, "length") || !strcmp(finish, "stop"));
    json_decref(answer);
    close_kitchen(&k);
}

/* Joins the deltas of a stream; checks that it ends with [DONE]. */
static char *join_stream(const char *body, int *chunks, json_t **usage)
{
    char *text = calloc(1, strlen(body) + 1), *copy = strdup(body), *save = NULL;
    bool done = false;
    *chunks = 0;
    for (char *line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        assert_int_equal(strncmp(line, "data: ", 6), 0);
        assert_false(done);
        done = !strcmp(line, "data: [DONE]");
        if (done) continue;
        json_t *chunk = json_loads(line + 6, 0, NULL);
        assert_non_null(chunk);
        const json_t *choice = choice_of(chunk, 0), *delta = json_object_get(choice, "delta");
        strcat(text, delta ? text_at(delta, "content") : text_at(choice, "text"));
        if (usage && json_is_object(json_object_get(chunk, "usage")))
            *usage = json_incref(json_object_get(chunk, "usage"));
        (*chunks)++;
        json_decref(chunk);
    }
    assert_true(done);
    free(copy);
    return text;
}

static void test_serve_stream_says_the_same_as_the_whole(void **state)
{
    (void)state;
    kitchen k;
    open_kitchen(&k, defaults);
    static const char options[] = HELLO ",\"max_tokens\":40,\"temperature\":0.9,\"seed\":5";
    char body[512];
    snprintf(body, sizeof body, "{\"model\":\"tiny\",%s}", options);
    json_t *whole = post(k.port, CHAT_PATH, body, 200), *usage = NULL;
    snprintf(body, sizeof body,
             "{\"model\":\"tiny\",%s,\"stream\":true,\"stream_options\":{\"include_usage\":true}}",
             options);
    http_answer_text answer = http_request(k.port, "POST", CHAT_PATH, NULL, body);
    assert_int_equal(answer.status, 200);
    assert_non_null(strstr(answer.head, "text/event-stream"));
    int chunks = 0;
    char *text = join_stream(answer.body, &chunks, &usage);
    assert_string_equal(text, text_at(json_object_get(choice_of(whole, 0), "message"), "content"));
    assert_true(chunks > 3);
    assert_true(json_equal(usage, json_object_get(whole, "usage")));
    free(text);
    json_decref(usage);
    json_decref(whole);
    http_answer_free(&answer);
    close_kitchen(&k);
}

static void test_serve_seed_makes_the_same_text_again(void **state)
{
    (void)state;
    kitchen k;
    open_kitchen(&k, defaults);
    static const char *const body[] = {
        "{\"model\":\"tiny\",\"prompt\":\"abc\",\"max_tokens\":30,\"seed\":1}",
        "{\"model\":\"tiny\",\"prompt\":\"abc\",\"max_tokens\":30,\"seed\":2}"};
    char *a = complete(k.port, body[0]), *b = complete(k.port, body[0]);
    char *c = complete(k.port, body[1]);
    assert_string_equal(a, b);
    assert_string_not_equal(a, c);
    free(a);
    free(b);
    free(c);
    close_kitchen(&k);
}

static double number_at(const json_t *array, size_t i)
{
    return json_number_value(json_array_get(array, i));
}

/* What lm-evaluation-harness sends and reads (local-completions), compared with the model asked
 * directly: log-probabilities of every token of the prompt, and the likeliest at each place. */
static void test_serve_echo_gives_the_prompts_logprobs(void **state)
{
    (void)state;
    kitchen k;
    open_kitchen(&k, defaults);
    static const int32_t ids[] = {70, 71, 75, 75, 80, 35, 90, 100};
    enum { N = sizeof ids / sizeof ids[0] };
    dure_gguf *gguf;
    dure_transformer *model;
    float expected[N];
    assert_ok(dure_gguf_open(&gguf, k.model, NULL, NULL));
    assert_ok(dure_transformer_new(&model, gguf, &(dure_transformer_opts){.threads = 1}, NULL));
    assert_ok(dure_transformer_logprobs(expected, model, NULL, ids, N, NULL));
    json_t *answer = post(k.port, TEXT_PATH,
                          "{\"model\":\"tiny\",\"prompt\":[[70,71,75,75,80,35,90,100]],"
                          "\"temperature\":0,\"max_tokens\":1,\"logprobs\":1,\"seed\":1234,"
                          "\"echo\":true}",
                          200);
    const json_t *logprobs = json_object_get(choice_of(answer, 0), "logprobs");
    const json_t *values = json_object_get(logprobs, "token_logprobs");
    const json_t *top = json_object_get(logprobs, "top_logprobs");
    const json_t *tokens = json_object_get(logprobs, "tokens");
    assert_int_equal(json_array_size(values), N + 1);
    assert_int_equal(json_array_size(json_object_get(logprobs, "text_offset")), N + 1);
    assert_true(json_is_null(json_array_get(values, 0)));
    assert_true(json_is_null(json_array_get(top, 0)));
    for (size_t i = 1; i <= N; i++) {
        const json_t *here = json_array_get(top, i);
        const char *key;
        json_t *value;
        double best = -INFINITY;
        json_object_foreach((json_t *)(uintptr_t)here, key, value) best =
            fmax(best, json_number_value(value));
        const char *token = json_string_value(json_array_get(tokens, i));
        /* f32 sums in another order: a few units in the last place of logits of size 10 */
        if (i < N) assert_true(fabs(number_at(values, i) - (double)expected[i]) < 1e-4);
        assert_true(number_at(values, i) <= best);
        assert_true(json_number_value(json_object_get(here, token)) == number_at(values, i));
    }
    assert_true(number_at(values, N) == json_number_value(json_object_iter_value(
                                            json_object_iter(json_array_get(top, N)))));
    json_decref(answer);
    dure_transformer_free(&model);
    dure_gguf_close(&gguf);
    close_kitchen(&k);
}

static void test_serve_scores_without_generating(void **state)
{
    (void)state;
    kitchen k;
    open_kitchen(&k, defaults);
    json_t *answer = post(k.port, TEXT_PATH,
                          "{\"model\":\"tiny\",\"prompt\":[\"hello\",\"other\"],\"echo\":true,"
                          "\"logprobs\":0,\"max_tokens\":0}",
                          200);
    assert_string_equal(text_at(choice_of(answer, 0), "text"), "hello");
    assert_string_equal(text_at(choice_of(answer, 1), "text"), "other");
    assert_int_equal(json_integer_value(json_object_get(choice_of(answer, 1), "index")), 1);
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(answer, "usage"), "completion_tokens")),
        0);
    json_decref(answer);
    close_kitchen(&k);
}

static void test_serve_chat_logprobs(void **state)
{
    (void)state;
    kitchen k;
    open_kitchen(&k, defaults);
    json_t *answer = post(k.port, CHAT_PATH,
                          "{\"model\":\"tiny\"," HELLO ",\"max_tokens\":3,\"temperature\":0,"
                          "\"logprobs\":true,\"top_logprobs\":2}",
                          200);
    const json_t *content =
        json_object_get(json_object_get(choice_of(answer, 0), "logprobs"), "content");
    assert_true(json_array_size(content) > 0);
    const json_t *first = json_array_get(content, 0), *top = json_object_get(first, "top_logprobs");
    assert_int_equal(json_array_size(top), 2);
    assert_true(json_array_size(json_object_get(first, "bytes")) > 0);
    assert_true(json_number_value(json_object_get(json_array_get(top, 0), "logprob")) ==
                json_number_value(json_object_get(first, "logprob")));
    json_decref(answer);
    close_kitchen(&k);
}

/* A stop string of two characters of the greedy answer cuts it there. */
static void test_serve_stop_string_cuts_the_text(void **state)
{
    (void)state;
    kitchen k;
    open_kitchen(&k, defaults);
    char *text =
        complete(k.port, "{\"model\":\"tiny\",\"prompt\":\"abc\",\"max_tokens\":40,\"seed\":3}");
    size_t at = 0;
    for (size_t i = 4; text[i] && text[i + 1] && !at; i++)
        if (text[i] >= 'A' && text[i] <= 'z' && text[i] != '\\' && text[i + 1] >= 'A' &&
            text[i + 1] <= 'z' && text[i + 1] != '\\')
            at = i;
    assert_true(at > 0);
    const char stop[3] = {text[at], text[at + 1], 0};
    char body[256];
    snprintf(body, sizeof body,
             "{\"model\":\"tiny\",\"prompt\":\"abc\",\"max_tokens\":40,\"seed\":3,\"stop\":\"%s\"}",
             stop);
    json_t *answer = post(k.port, TEXT_PATH, body, 200);
    const char *cut = text_at(choice_of(answer, 0), "text");
    assert_string_equal(text_at(choice_of(answer, 0), "finish_reason"), "stop");
    assert_int_equal(strlen(cut), (size_t)(strstr(text, stop) - text));
    assert_int_equal(strncmp(cut, text, strlen(cut)), 0);
    json_decref(answer);
    free(text);
    close_kitchen(&k);
}

static void test_serve_errors_are_shaped_as_openais(void **state)
{
    (void)state;
    kitchen k;
    open_kitchen(&k, defaults);
    expect_error(k.port, CHAT_PATH, "{\"model\":\"gpt\"," HELLO "}", 404, "model_not_found",
                 "model");
    expect_error(k.port, CHAT_PATH, "{\"model\":\"tiny\"," HELLO ",\"max_tokens\":512}", 400,
                 "context_length_exceeded", "messages");
    expect_error(k.port, CHAT_PATH, "{\"model\":\"tiny\"," HELLO ",\"n\":2}", 400, "", "n");
    expect_error(k.port, TEXT_PATH, "{\"model\":\"tiny\",\"prompt\":\"\"}", 400, "", "prompt");
    expect_error(k.port, TEXT_PATH, "{\"model\":\"tiny\",\"prompt\":[272]}", 400, "", "prompt");
    expect_error(k.port, TEXT_PATH, "{", 400, "", "");
    expect_error(k.port, "/v1/embeddings", "{}", 404, "", "");
    http_answer_text answer = http_request(k.port, "GET", CHAT_PATH, NULL, NULL);
    assert_int_equal(answer.status, 405);
    assert_non_null(strcasestr(answer.head, "Allow: POST"));
    http_answer_free(&answer);
    answer = http_request(k.port, "HEAD", "/health", NULL, NULL);
    assert_int_equal(answer.status, 200);
    assert_int_equal(answer.body_n, 0);
    http_answer_free(&answer);
    close_kitchen(&k);
}

static void test_serve_the_whole_context_can_be_used(void **state)
{
    (void)state;
    kitchen k;
    open_kitchen(&k, (dure_server_opts){.context = 64});
    json_t *answer = post(k.port, TEXT_PATH,
                          "{\"model\":\"tiny\",\"prompt\":[70,71,72,73],\"max_tokens\":60,"
                          "\"temperature\":0}",
                          200);
    json_decref(answer);
    expect_error(k.port, TEXT_PATH,
                 "{\"model\":\"tiny\",\"prompt\":[70,71,72,73],\"max_tokens\":61}", 400,
                 "context_length_exceeded", "prompt");
    close_kitchen(&k);
}

/* An adapter that changes the model's answers, as the bytes of a file. */
static dure_buf adapter_bytes(const kitchen *k, uint64_t seed, const char *base_digest)
{
    dure_gguf *gguf;
    dure_transformer *model;
    dure_lora *lora;
    assert_ok(dure_gguf_open(&gguf, k->model, NULL, NULL));
    assert_ok(dure_transformer_new(&model, gguf, &(dure_transformer_opts){.threads = 1}, NULL));
    dure_lora_layout layout = {
        .shape = *dure_transformer_shape(model), .rank = 4, .alpha = 8, .targets = 0x7f};
    assert_ok(dure_lora_new(&lora, &layout));
    dure_lora_init_uniform(lora, seed);
    uint64_t state = seed * 2 + 1;
    for (size_t i = 0; i < lora->n; i++) { /* B too */
        state = state * 6364136223846793005u + 1442695040888963407u;
        lora->params[i] += ((float)(state >> 40) / 16777216.0f - 0.5f) * 0.5f;
    }
    dure_adapter_notes notes = {.texts = NULL};
    snprintf(notes.base_digest, sizeof notes.base_digest, "%s", base_digest);
    dure_buf out;
    dure_buf_init(&out, 1 << 24);
    assert_ok(dure_adapter_encode(&out, lora, &notes, NULL));
    dure_lora_free(&lora);
    dure_transformer_free(&model);
    dure_gguf_close(&gguf);
    return out;
}

static dure_err offer(kitchen *k, const char *name, uint64_t seed, dure_diag *diag)
{
    char base[65];
    dure_hex_encode(base, dure_server_base(k->server)->b, DURE_HASH_BYTES);
    dure_buf bytes = adapter_bytes(k, seed, base);
    dure_err err = dure_server_offer(
        k->server,
        &(dure_server_adapter){.name = name, .bytes = dure_buf_span(&bytes), .version = seed},
        diag);
    dure_buf_fini(&bytes);
    return err;
}

#define GREEDY(model) "{\"model\":\"" model "\",\"prompt\":\"abc\",\"max_tokens\":24,\"seed\":1}"

static void test_serve_adapters_by_name_and_hot_swap(void **state)
{
    (void)state;
    kitchen k;
    open_kitchen(&k, defaults);
    assert_ok(offer(&k, "a", 1, NULL));
    assert_ok(offer(&k, "b", 2, NULL));
    char *base = complete(k.port, GREEDY("tiny")), *a = complete(k.port, GREEDY("a"));
    char *b = complete(k.port, GREEDY("b"));
    assert_string_not_equal(base, a);
    assert_string_not_equal(a, b);
    assert_ok(offer(&k, "a", 2, NULL));
    char *swapped = complete(k.port, GREEDY("a"));
    assert_string_equal(swapped, b);
    assert_true(dure_server_withdraw(k.server, "a"));
    expect_error(k.port, TEXT_PATH, GREEDY("a"), 404, "model_not_found", "model");
    free(base);
    free(a);
    free(b);
    free(swapped);
    close_kitchen(&k);
}

static dure_err refuse_all(void *state, const dure_hash *digest, dure_diag *diag)
{
    (void)digest;
    return dure_diag_set(diag, DURE_ERR_AUTH, "%s", (const char *)state);
}

static void test_serve_what_fails_its_check_is_not_offered(void **state)
{
    (void)state;
    kitchen k;
    open_kitchen(&k, defaults);
    dure_diag diag = {0};
    assert_ok(offer(&k, "a", 1, NULL));
    char *before = complete(k.port, GREEDY("a")), why[] = "not signed";
    dure_buf other = adapter_bytes(&k, 2,
                                   "0000000000000000000000000000000000000000000000000000000"
                                   "000000000");
    const dure_server_adapter foreign = {.name = "a", .bytes = dure_buf_span(&other)};
    assert_err(dure_server_offer(k.server, &foreign, &diag), DURE_ERR_STATE);
    assert_non_null(strstr(diag.text, "made for the base model"));
    const dure_server_adapter unsigned_ = {
        .name = "a", .bytes = dure_buf_span(&other), .check = refuse_all, .check_state = why};
    assert_err(dure_server_offer(k.server, &unsigned_, &diag), DURE_ERR_AUTH);
    assert_string_equal(diag.text, "not signed");
    const dure_server_adapter folder = {
        .name = "a", .path = k.dir.path, .check = refuse_all, .check_state = why};
    assert_err(dure_server_offer(k.server, &folder, &diag), DURE_ERR_UNSUPPORTED);
    const dure_server_adapter absent = {.name = "a", .path = "/nonexistent.gguf"};
    assert_err(dure_server_offer(k.server, &absent, &diag), DURE_ERR_NOT_FOUND);
    /* A gigabyte, most of it no more than a hole: no adapter of this base is as large. */
    const char *path = temp_dir_file(&k.dir, "large.gguf");
    assert_ok(dure_file_write_atomic(path, dure_buf_span(&other), 0644, NULL));
    assert_int_equal(truncate(path, (off_t)1 << 30), 0);
    const dure_server_adapter large = {.name = "a", .path = path};
    assert_err(dure_server_offer(k.server, &large, &diag), DURE_ERR_LIMIT);
    assert_non_null(strstr(diag.text, "large.gguf is larger than"));
    assert_err(offer(&k, "tiny", 1, &diag), DURE_ERR_EXISTS);
    char *after = complete(k.port, GREEDY("a"));
    assert_string_equal(before, after);
    free(before);
    free(after);
    dure_buf_fini(&other);
    close_kitchen(&k);
}

typedef struct caller {
    pthread_t thread;
    uint16_t port;
    const char *body;
    char *text;
} caller;

static void *call(void *arg)
{
    caller *c = arg;
    http_answer_text answer = http_request(c->port, "POST", TEXT_PATH, NULL, c->body);
    json_t *value = json_loads(answer.body ? answer.body : "", 0, NULL);
    c->text = strdup(text_at(choice_of(value, 0), "text"));
    json_decref(value);
    http_answer_free(&answer);
    return NULL;
}

static void test_serve_many_at_once_say_what_each_says_alone(void **state)
{
    (void)state;
    kitchen k;
    open_kitchen(&k, (dure_server_opts){.slots = 3});
    assert_ok(offer(&k, "a", 1, NULL));
    assert_ok(offer(&k, "b", 2, NULL));
    static const char *const bodies[] = {GREEDY("tiny"), GREEDY("a"), GREEDY("b")};
    char *alone[3];
    caller callers[9];
    for (int i = 0; i < 3; i++)
        alone[i] = complete(k.port, bodies[i]);
    for (int i = 0; i < 9; i++) {
        callers[i] = (caller){.port = k.port, .body = bodies[i % 3]};
        assert_int_equal(pthread_create(&callers[i].thread, NULL, call, &callers[i]), 0);
    }
    for (int i = 0; i < 9; i++) {
        pthread_join(callers[i].thread, NULL);
        assert_string_equal(callers[i].text, alone[i % 3]);
        free(callers[i].text);
    }
    for (int i = 0; i < 3; i++)
        free(alone[i]);
    close_kitchen(&k);
}

/* A value of /metrics. */
static double metric(uint16_t port, const char *name)
{
    http_answer_text answer = http_request(port, "GET", "/metrics", NULL, NULL);
    assert_int_equal(answer.status, 200);
    char line[128];
    snprintf(line, sizeof line, "\n%s ", name);
    const char *at = strstr(answer.body, line);
    assert_non_null(at);
    double value = strtod(at + strlen(line), NULL);
    http_answer_free(&answer);
    return value;
}

static bool wait_metric(uint16_t port, const char *name, double value)
{
    for (int i = 0; i < 400; i++) {
        if (metric(port, name) == value) return true;
        dure_clock_sleep_ms(5);
    }
    return false;
}

/* A stream that goes on for long and is not read: with a small buffer it soon waits. No text of
 * the tiny model ends it, because the end tokens are unlikely among 272. */
static int start_endless(const kitchen *k)
{
    static const char body[] = "{\"model\":\"tiny\",\"prompt\":\"x\",\"max_tokens\":500,"
                               "\"temperature\":2,\"seed\":4,\"stream\":true,\"logprobs\":20}";
    char request[512];
    int n = snprintf(request, sizeof request,
                     "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                     "Content-Length: %zu\r\n\r\n%s",
                     sizeof body - 1, body);
    return http_send(k->port, request, (size_t)n);
}

static const dure_server_opts narrow = {
    .slots = 1, .queue = 1, .http = {.stream_buffer_bytes = 16384}};

/* The kernel's own socket buffers take megabytes; a small window makes the wait come soon. */
static void read_little(int fd)
{
    char some[64];
    int size = 4096;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    assert_true(recv(fd, some, sizeof some, 0) > 0);
}

static void test_serve_full_queue_is_503_with_retry_after(void **state)
{
    (void)state;
    kitchen k;
    open_kitchen(&k, narrow);
    int first = start_endless(&k), second;
    read_little(first);
    assert_true(wait_metric(k.port, "dure_serve_slots_busy", 1));
    second = start_endless(&k);
    assert_true(wait_metric(k.port, "dure_serve_queue_requests", 1));
    http_answer_text answer = http_request(k.port, "POST", TEXT_PATH, NULL, GREEDY("tiny"));
    assert_int_equal(answer.status, 503);
    assert_non_null(strcasestr(answer.head, "Retry-After: 1"));
    assert_non_null(strstr(answer.body, "\"overloaded\""));
    http_answer_free(&answer);
    close(first);
    close(second);
    close_kitchen(&k);
}

/* Stand in for want of memory while an answer is put together. */
static atomic_bool no_memory_for_logprobs, no_memory_for_text;

dure_err __real_dure_logprobs_add(dure_logprobs *l, const dure_token_event *event);
dure_err __wrap_dure_logprobs_add(dure_logprobs *l, const dure_token_event *event);
dure_err __wrap_dure_logprobs_add(dure_logprobs *l, const dure_token_event *event)
{
    return atomic_load(&no_memory_for_logprobs) ? DURE_ERR_NOMEM
                                                : __real_dure_logprobs_add(l, event);
}

dure_err __real_dure_text_stream_push(dure_span *ready, bool *stopped, dure_text_stream *stream,
                                      dure_span bytes);
dure_err __wrap_dure_text_stream_push(dure_span *ready, bool *stopped, dure_text_stream *stream,
                                      dure_span bytes);
dure_err __wrap_dure_text_stream_push(dure_span *ready, bool *stopped, dure_text_stream *stream,
                                      dure_span bytes)
{
    if (atomic_load(&no_memory_for_text)) return DURE_ERR_NOMEM;
    return __real_dure_text_stream_push(ready, stopped, stream, bytes);
}

/* It is the server that failed: nobody left, and it is not stopping. */
static void test_serve_out_of_memory_is_a_failure(void **state)
{
    (void)state;
    atomic_bool *const wants[] = {&no_memory_for_logprobs, &no_memory_for_text};
    kitchen k;
    open_kitchen(&k, defaults);
    for (int i = 0; i < 2; i++) {
        atomic_store(wants[i], true);
        json_t *answer = post(k.port, TEXT_PATH,
                              "{\"model\":\"tiny\",\"prompt\":\"abc\",\"max_tokens\":4,"
                              "\"logprobs\":1,\"seed\":1}",
                              500);
        assert_string_equal(text_at(json_object_get(answer, "error"), "type"), "server_error");
        json_decref(answer);
        atomic_store(wants[i], false);
    }
    assert_true(metric(k.port, "dure_serve_answers_total{end=\"failed\"}") == 2);
    assert_true(metric(k.port, "dure_serve_answers_total{end=\"cancelled\"}") == 0);
    char *text = complete(k.port, GREEDY("tiny"));
    free(text);
    close_kitchen(&k);
}

/* Prompts that could never wait all together are not a matter of trying again. */
static void test_serve_more_prompts_than_can_wait_are_refused_for_good(void **state)
{
    (void)state;
    kitchen k;
    open_kitchen(&k, narrow);
    json_t *answer = post(k.port, TEXT_PATH,
                          "{\"model\":\"tiny\",\"prompt\":[\"a\",\"b\"],\"max_tokens\":1}", 200);
    assert_int_equal(json_array_size(json_object_get(answer, "choices")), 2);
    json_decref(answer);
    static const char three[] =
        "{\"model\":\"tiny\",\"prompt\":[\"a\",\"b\",\"c\"],\"max_tokens\":1}";
    expect_error(k.port, TEXT_PATH, three, 400, "", "prompt");
    answer = post(k.port, TEXT_PATH, three, 400);
    assert_non_null(strstr(text_at(json_object_get(answer, "error"), "message"), "at most 2"));
    json_decref(answer);
    close_kitchen(&k);
}

static void test_serve_client_that_leaves_frees_its_slot(void **state)
{
    (void)state;
    kitchen k;
    open_kitchen(&k, narrow);
    int fd = start_endless(&k);
    read_little(fd);
    close(fd);
    assert_true(wait_metric(k.port, "dure_serve_slots_busy", 0));
    assert_true(metric(k.port, "dure_serve_answers_total{end=\"cancelled\"}") == 1 ||
                metric(k.port, "dure_serve_answers_total{end=\"length\"}") == 1);
    char *text = complete(k.port, GREEDY("tiny"));
    free(text);
    close_kitchen(&k);
}

static void test_serve_slow_reader_stops_nobody(void **state)
{
    (void)state;
    kitchen k;
    dure_server_opts opts = narrow;
    opts.slots = 2;
    open_kitchen(&k, opts);
    int fd = start_endless(&k);
    read_little(fd);
    char *text = complete(k.port, GREEDY("tiny"));
    free(text);
    http_answer_text rest = http_read(fd); /* in the end the slow one gets all of it too */
    assert_non_null(strstr(rest.body, "data: [DONE]"));
    http_answer_free(&rest);
    close_kitchen(&k);
}

typedef struct reader {
    pthread_t thread;
    int fd;
    http_answer_text rest;
} reader;

static void *read_rest(void *arg)
{
    reader *r = arg;
    r->rest = http_read(r->fd);
    return NULL;
}

static void test_serve_drain_lets_running_requests_end(void **state)
{
    (void)state;
    kitchen k;
    open_kitchen(&k, narrow);
    reader r = {.fd = start_endless(&k)};
    read_little(r.fd);
    assert_true(wait_metric(k.port, "dure_serve_slots_busy", 1));
    assert_int_equal(pthread_create(&r.thread, NULL, read_rest, &r), 0);
    assert_true(dure_server_drain(k.server, 20000));
    pthread_join(r.thread, NULL);
    assert_non_null(strstr(r.rest.body, "data: [DONE]"));
    http_answer_free(&r.rest);
    close_kitchen(&k);
}

static void test_serve_close_cuts_off_with_an_error(void **state)
{
    (void)state;
    kitchen k;
    open_kitchen(&k, narrow);
    int fd = start_endless(&k);
    read_little(fd);
    close_kitchen(&k);
    close(fd);
}

static void test_serve_models_health_and_keys(void **state)
{
    (void)state;
    temp_dir dir;
    dure_http_keys *keys;
    temp_dir_make(&dir);
    const char *path = temp_dir_file(&dir, "keys");
    assert_ok(dure_file_write_atomic(path, dure_span_of_text("sk-0123456789abcdef\n"), 0600, NULL));
    assert_ok(dure_http_keys_read(&keys, path, NULL));
    temp_dir_remove(&dir);
    kitchen k;
    open_kitchen(&k, (dure_server_opts){.http = {.keys = keys}});
    assert_ok(offer(&k, "a", 1, NULL));
    http_answer_text answer = http_request(k.port, "GET", "/health", NULL, NULL);
    assert_string_equal(answer.body, "{\"status\":\"ok\"}");
    http_answer_free(&answer);
    answer = http_request(k.port, "GET", "/v1/models", NULL, NULL);
    assert_int_equal(answer.status, 401);
    assert_non_null(strstr(answer.body, "\"invalid_api_key\""));
    http_answer_free(&answer);
    static const char key[] = "Authorization: Bearer sk-0123456789abcdef\r\n";
    answer = http_request(k.port, "GET", "/v1/models", key, NULL);
    assert_non_null(strstr(answer.body, "\"parent\":\"tiny\""));
    http_answer_free(&answer);
    answer = http_request(k.port, "GET", "/v1/models/a", key, NULL);
    assert_non_null(strstr(answer.body, "\"version\":1"));
    http_answer_free(&answer);
    answer = http_request(k.port, "GET", "/v1/models/absent", key, NULL);
    assert_int_equal(answer.status, 404);
    http_answer_free(&answer);
    close_kitchen(&k);
    dure_http_keys_free(&keys);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_serve_chat_has_the_documented_shape),
        cmocka_unit_test(test_serve_stream_says_the_same_as_the_whole),
        cmocka_unit_test(test_serve_seed_makes_the_same_text_again),
        cmocka_unit_test(test_serve_echo_gives_the_prompts_logprobs),
        cmocka_unit_test(test_serve_scores_without_generating),
        cmocka_unit_test(test_serve_chat_logprobs),
        cmocka_unit_test(test_serve_stop_string_cuts_the_text),
        cmocka_unit_test(test_serve_errors_are_shaped_as_openais),
        cmocka_unit_test(test_serve_the_whole_context_can_be_used),
        cmocka_unit_test(test_serve_adapters_by_name_and_hot_swap),
        cmocka_unit_test(test_serve_what_fails_its_check_is_not_offered),
        cmocka_unit_test(test_serve_many_at_once_say_what_each_says_alone),
        cmocka_unit_test(test_serve_full_queue_is_503_with_retry_after),
        cmocka_unit_test(test_serve_out_of_memory_is_a_failure),
        cmocka_unit_test(test_serve_more_prompts_than_can_wait_are_refused_for_good),
        cmocka_unit_test(test_serve_client_that_leaves_frees_its_slot),
        cmocka_unit_test(test_serve_slow_reader_stops_nobody),
        cmocka_unit_test(test_serve_drain_lets_running_requests_end),
        cmocka_unit_test(test_serve_close_cuts_off_with_an_error),
        cmocka_unit_test(test_serve_models_health_and_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
