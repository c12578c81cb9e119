/* The HTTP server over real sockets: its limits, keys, streams and clients that go away. */
#include "common/clock.h"
#include "common/file.h"
#include "net/http.h"
#include "support/check.h"
#include "support/http_client.h"
#include "support/temp_dir.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define KEY "sk-test-0123456789abcdef"
#define AUTH "Authorization: Bearer " KEY "\r\n"

typedef struct desk {
    dure_http *http;
    dure_http_keys *keys;
    uint16_t port;
    pthread_t worker;
    dure_http_exchange *kept;
    bool working;
    dure_err worker_err;
} desk;

/* /later: answered by another thread. */
static void *answer_later(void *arg)
{
    desk *d = arg;
    dure_clock_sleep_ms(30);
    d->worker_err = dure_http_reply(d->kept, 200, "text/plain", dure_span_of_text("late"));
    dure_http_release(&d->kept);
    return NULL;
}

/* /stream: a hundred numbered lines. /flood: lines for as long as the client is there. */
static void *stream_lines(void *arg)
{
    desk *d = arg;
    bool flood = !strcmp(dure_http_path(d->kept), "/flood");
    d->worker_err = dure_http_stream_begin(d->kept, 200, "text/event-stream");
    for (int i = 0; !d->worker_err && (flood || i < 100); i++) {
        char line[1024];
        snprintf(line, sizeof line, "data: %-*d\n\n", flood ? 1000 : 1, i);
        d->worker_err = dure_http_stream_write(d->kept, dure_span_of_text(line), 1000);
        if (!flood && i % 10 == 0) dure_clock_sleep_ms(1);
    }
    if (!d->worker_err) d->worker_err = dure_http_stream_end(d->kept);
    dure_http_release(&d->kept);
    return NULL;
}

/* /patient: waits until the client has gone. */
static void *wait_for_gone(void *arg)
{
    desk *d = arg;
    d->worker_err = DURE_ERR_TIMEOUT;
    for (int i = 0; i < 500 && d->worker_err; i++) {
        if (dure_http_gone(d->kept)) d->worker_err = DURE_OK;
        dure_clock_sleep_ms(5);
    }
    dure_http_release(&d->kept);
    return NULL;
}

static void start(desk *d, dure_http_exchange *x, void *(*work)(void *))
{
    dure_http_keep(x);
    d->kept = x;
    pthread_create(&d->worker, NULL, work, d);
    __atomic_store_n(&d->working, true, __ATOMIC_RELEASE);
}

static void handle(void *state, dure_http_exchange *x)
{
    desk *d = state;
    const char *path = dure_http_path(x);
    if (!strcmp(path, "/echo")) {
        dure_http_reply(x, 200, "text/plain", dure_http_body(x));
    } else if (!strcmp(path, "/json")) {
        dure_http_reply_json(x, 201, json_pack("{s:s}", "name", "두레"));
    } else if (!strcmp(path, "/health")) {
        dure_http_reply(x, 200, "text/plain", dure_span_of_text("ok"));
    } else if (!strcmp(path, "/later")) {
        start(d, x, answer_later);
    } else if (!strcmp(path, "/stream") || !strcmp(path, "/flood")) {
        start(d, x, stream_lines);
    } else if (!strcmp(path, "/patient")) {
        start(d, x, wait_for_gone);
    } else if (!strcmp(path, "/drop")) {
        dure_http_keep(x);
        dure_http_release(&x);
    } /* any other: no answer */
}

static void open_desk(desk *d, const dure_http_opts *limits, const char *key)
{
    *d = (desk){0};
    dure_http_opts opts = *limits;
    temp_dir dir;
    if (key) {
        temp_dir_make(&dir);
        const char *path = temp_dir_file(&dir, "keys");
        assert_ok(dure_file_write_atomic(path, dure_span_of_text(key), 0600, NULL));
        assert_ok(dure_http_keys_read(&d->keys, path, NULL));
        temp_dir_remove(&dir);
    }
    opts.listen = "127.0.0.1:0";
    opts.keys = d->keys;
    opts.handler = handle;
    opts.state = d;
    assert_ok(dure_http_open(&d->http, &opts, NULL));
    d->port = http_port_of(dure_http_url(d->http));
}

/* Waits until the handler has started the worker and that has ended. */
static void join_worker(desk *d)
{
    while (!__atomic_load_n(&d->working, __ATOMIC_ACQUIRE))
        dure_clock_sleep_ms(1);
    pthread_join(d->worker, NULL);
    d->working = false;
}

static void close_desk(desk *d)
{
    if (d->working) join_worker(d);
    dure_http_close(&d->http);
    if (d->keys) dure_http_keys_free(&d->keys);
}

static const dure_http_opts defaults;

/* One request whose answer must have `status`; `body` NULL: any. */
static void expect(uint16_t port, const char *method, const char *path, const char *headers,
                   const char *send_body, int status, const char *body)
{
    http_answer_text answer = http_request(port, method, path, headers, send_body);
    assert_int_equal(answer.status, status);
    if (body) assert_string_equal(answer.body, body);
    http_answer_free(&answer);
}

static void test_http_echo_json_and_query(void **state)
{
    (void)state;
    desk d;
    open_desk(&d, &defaults, NULL);
    expect(d.port, "POST", "/echo", NULL, "hello", 200, "hello");
    expect(d.port, "POST", "/echo", NULL, NULL, 200, "");
    expect(d.port, "GET", "/json?without=it", NULL, NULL, 201, "{\"name\":\"두레\"}");
    close_desk(&d);
}

static void test_http_forgotten_and_dropped_requests_are_500(void **state)
{
    (void)state;
    desk d;
    open_desk(&d, &defaults, NULL);
    expect(d.port, "GET", "/nothing", NULL, NULL, 500, NULL);
    expect(d.port, "GET", "/drop", NULL, NULL, 500, NULL);
    close_desk(&d);
}

static void test_http_another_thread_answers(void **state)
{
    (void)state;
    desk d;
    open_desk(&d, &defaults, NULL);
    expect(d.port, "GET", "/later", NULL, NULL, 200, "late");
    join_worker(&d);
    assert_ok(d.worker_err);
    close_desk(&d);
}

static void test_http_stream_comes_whole_and_in_order(void **state)
{
    (void)state;
    desk d;
    dure_http_opts limits = {.stream_buffer_bytes = 64}; /* so that the writer has to wait */
    open_desk(&d, &limits, NULL);
    http_answer_text answer = http_request(d.port, "GET", "/stream", NULL, NULL);
    char expected[4096] = "";
    size_t n = 0;
    for (int i = 0; i < 100; i++)
        n += (size_t)snprintf(expected + n, sizeof expected - n, "data: %d\n\n", i);
    assert_int_equal(answer.status, 200);
    assert_non_null(strstr(answer.head, "text/event-stream"));
    assert_string_equal(answer.body, expected);
    http_answer_free(&answer);
    close_desk(&d);
    assert_ok(d.worker_err);
}

static void test_http_slow_reader_holds_the_writer_back(void **state)
{
    (void)state;
    desk d;
    dure_http_opts limits = {.stream_buffer_bytes = 4096};
    open_desk(&d, &limits, NULL);
    static const char request[] = "GET /flood HTTP/1.1\r\nHost: localhost\r\n\r\n";
    int fd = http_send(d.port, request, sizeof request - 1);
    join_worker(&d); /* its write timed out: nothing was read */
    assert_err(d.worker_err, DURE_ERR_TIMEOUT);
    close(fd);
    close_desk(&d);
}

static void test_http_streaming_client_that_leaves_is_noticed(void **state)
{
    (void)state;
    desk d;
    open_desk(&d, &defaults, NULL);
    static const char request[] = "GET /flood HTTP/1.1\r\nHost: localhost\r\n\r\n";
    int fd = http_send(d.port, request, sizeof request - 1);
    char some[100];
    assert_true(recv(fd, some, sizeof some, 0) > 0);
    close(fd);
    join_worker(&d);
    assert_err(d.worker_err, DURE_ERR_NET);
    close_desk(&d);
}

static void test_http_waiting_client_that_leaves_is_noticed(void **state)
{
    (void)state;
    desk d;
    open_desk(&d, &defaults, NULL);
    static const char request[] = "GET /patient HTTP/1.1\r\nHost: localhost\r\n\r\n";
    int fd = http_send(d.port, request, sizeof request - 1);
    dure_clock_sleep_ms(50);
    close(fd);
    join_worker(&d);
    close_desk(&d);
    assert_ok(d.worker_err);
}

static void test_http_close_ends_a_stream_that_goes_on(void **state)
{
    (void)state;
    desk d;
    dure_http_opts limits = {.stream_buffer_bytes = 4096};
    open_desk(&d, &limits, NULL);
    static const char request[] = "GET /flood HTTP/1.1\r\nHost: localhost\r\n\r\n";
    int fd = http_send(d.port, request, sizeof request - 1);
    char some[100];
    assert_true(recv(fd, some, sizeof some, 0) > 0);
    dure_http_close(&d.http);
    join_worker(&d);
    assert_err(d.worker_err, DURE_ERR_NET);
    close(fd);
}

static void test_http_quiesce_refuses_new_connections_only(void **state)
{
    (void)state;
    desk d;
    open_desk(&d, &defaults, NULL);
    static const char request[] =
        "GET /later HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    int fd = http_send(d.port, request, sizeof request - 1);
    dure_clock_sleep_ms(10);
    dure_http_quiesce(d.http);
    http_answer_text answer = http_read(fd);
    assert_int_equal(answer.status, 200);
    http_answer_free(&answer);
    close_desk(&d);
}

static void test_http_body_over_the_limit_is_413(void **state)
{
    (void)state;
    desk d;
    dure_http_opts limits = {.max_body_bytes = 1000};
    open_desk(&d, &limits, NULL);
    char body[1201];
    memset(body, 'x', sizeof body);
    body[1000] = 0;
    expect(d.port, "POST", "/echo", NULL, body, 200, body);
    body[1000] = 'x';
    body[1001] = 0;
    expect(d.port, "POST", "/echo", NULL, body, 413, NULL);
    /* Without a Content-Length the size shows only as the body comes. */
    static const char head[] = "POST /echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                               "Transfer-Encoding: chunked\r\n\r\n";
    memset(body, 'x', 1200);
    body[1200] = 0;
    char request[4096];
    int n = snprintf(request, sizeof request, "%s4b0\r\n%s\r\n0\r\n\r\n", head, body);
    http_answer_text answer = http_raw(d.port, request, (size_t)n);
    assert_int_equal(answer.status, 413);
    http_answer_free(&answer);
    close_desk(&d);
}

static void test_http_headers_over_the_limit_are_431(void **state)
{
    (void)state;
    desk d;
    dure_http_opts limits = {.max_header_bytes = 4096};
    open_desk(&d, &limits, NULL);
    char *headers = malloc(10000);
    int n = snprintf(headers, 10000, "X-Long: ");
    memset(headers + n, 'a', 8000);
    snprintf(headers + n + 8000, 100, "\r\n");
    http_answer_text answer = http_request(d.port, "GET", "/health", headers, NULL);
    assert_true(answer.status == 431 || answer.status == 0);
    http_answer_free(&answer);
    free(headers);
    expect(d.port, "GET", "/health", NULL, NULL, 200, "ok");
    close_desk(&d);
}

static void test_http_garbage_is_refused(void **state)
{
    (void)state;
    desk d;
    open_desk(&d, &defaults, NULL);
    static const char *const garbage[] = {"\r\n\r\n\r\n\r\n", "GET\r\n\r\n", "\x16\x03\x01\x02",
                                          "POST /echo HTTP/1.1\r\nHost: localhost\r\n"
                                          "Content-Length: -1\r\n\r\n"};
    for (size_t i = 0; i < sizeof garbage / sizeof garbage[0]; i++) {
        int fd = http_send(d.port, garbage[i], strlen(garbage[i]));
        shutdown(fd, SHUT_WR);
        http_answer_text answer = http_read(fd);
        assert_true(answer.status == 0 || answer.status >= 400);
        http_answer_free(&answer);
    }
    expect(d.port, "GET", "/health", NULL, NULL, 200, "ok");
    close_desk(&d);
}

static void test_http_slow_body_is_cut_off(void **state)
{
    (void)state;
    desk d;
    dure_http_opts limits = {.request_timeout_s = 1, .idle_timeout_s = 10};
    open_desk(&d, &limits, NULL);
    static const char head[] = "POST /echo HTTP/1.1\r\nHost: localhost\r\n"
                               "Content-Length: 1000\r\n\r\n";
    int fd = http_send(d.port, head, sizeof head - 1);
    int sent = 0;
    char byte = 'x';
    while (sent < 60 && send(fd, &byte, 1, MSG_NOSIGNAL) == 1) {
        sent++;
        dure_clock_sleep_ms(50);
    }
    assert_true(sent < 60);
    http_answer_text answer = http_read(fd);
    assert_int_equal(answer.status, 0);
    close_desk(&d);
}

static void test_http_keys_guard_everything_but_health(void **state)
{
    (void)state;
    desk d;
    open_desk(&d, &defaults, "# one\n" KEY "\n");
    expect(d.port, "GET", "/health", NULL, NULL, 200, "ok");
    expect(d.port, "POST", "/echo", AUTH, "x", 200, "x");
    expect(d.port, "POST", "/echo", "authorization: bearer " KEY "\r\n", "x", 200, "x");
    static const char *const wrong[] = {
        NULL, "Authorization: Bearer \r\n", "Authorization: Bearer sk-test-0123456789abcdeX\r\n",
        "Authorization: " KEY "\r\n", "Authorization: Basic " KEY "\r\n"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        http_answer_text answer = http_request(d.port, "POST", "/echo", wrong[i], "x");
        assert_int_equal(answer.status, 401);
        assert_non_null(strcasestr(answer.head, "WWW-Authenticate: Bearer"));
        http_answer_free(&answer);
    }
    expect(d.port, "GET", "/health/../echo", NULL, NULL, 401, NULL);
    close_desk(&d);
}

static void test_http_other_host_names_are_refused_without_keys(void **state)
{
    (void)state;
    desk d;
    open_desk(&d, &defaults, NULL);
    static const struct {
        const char *lines;
        int status;
    } cases[] = {
        {"Host: localhost:8080\r\n", 200},
        {"Host: [::1]\r\n", 200},
        {"Host: evil.example\r\n", 403},
        {"Host: 127.0.0.1.evil.example\r\n", 403},
        {"Host: localhost\r\nOrigin: http://localhost:3000\r\n", 200},
        {"Host: localhost\r\nOrigin: https://evil.example\r\n", 403},
        {"Host: localhost\r\nOrigin: null\r\n", 403},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char request[256];
        int n = snprintf(request, sizeof request,
                         "GET /health HTTP/1.1\r\nConnection: close\r\n%s\r\n", cases[i].lines);
        http_answer_text answer = http_raw(d.port, request, (size_t)n);
        assert_int_equal(answer.status, cases[i].status);
        http_answer_free(&answer);
    }
    close_desk(&d);
}

static void test_http_other_addresses_are_closed_by_default(void **state)
{
    (void)state;
    dure_http *http;
    dure_diag diag = {0};
    static const char *const open[] = {"0.0.0.0:0", "[::]:0", "192.0.2.1:80"};
    for (size_t i = 0; i < sizeof open / sizeof open[0]; i++) {
        const dure_http_opts opts = {.listen = open[i], .handler = handle};
        assert_err(dure_http_open(&http, &opts, &diag), DURE_ERR_POLICY);
        assert_null(http);
        assert_non_null(strstr(diag.text, "--insecure-http"));
    }
    const dure_http_opts asked = {.listen = "0.0.0.0:0", .handler = handle, .insecure = true};
    assert_ok(dure_http_open(&http, &asked, &diag));
    dure_http_close(&http);
    static const char *const wrong[] = {
        "", "8080", "127.0.0.1:", "127.0.0.1:99999", "example.org:80", "::1:80", "127.0.0.1:8x"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        const dure_http_opts opts = {.listen = wrong[i], .handler = handle};
        assert_err(dure_http_open(&http, &opts, &diag), DURE_ERR_USAGE);
    }
}

static void test_http_port_in_use_is_one_sentence(void **state)
{
    (void)state;
    desk d;
    open_desk(&d, &defaults, NULL);
    char listen[32];
    snprintf(listen, sizeof listen, "127.0.0.1:%u", d.port);
    dure_http *second;
    dure_diag diag = {0};
    const dure_http_opts opts = {.listen = listen, .handler = handle};
    assert_err(dure_http_open(&second, &opts, &diag), DURE_ERR_BUSY);
    assert_non_null(strstr(diag.text, "in use by another program"));
    close_desk(&d);
}

static void test_http_tls_files_that_are_none_are_named(void **state)
{
    (void)state;
    temp_dir dir;
    temp_dir_make(&dir);
    const char *path = temp_dir_file(&dir, "cert.pem");
    assert_ok(dure_file_write_atomic(path, dure_span_of_text("no certificate"), 0600, NULL));
    dure_http *http;
    dure_diag diag = {0};
    dure_http_opts opts = {
        .listen = "127.0.0.1:0", .handler = handle, .tls_cert_path = path, .tls_key_path = path};
    assert_err(dure_http_open(&http, &opts, &diag), DURE_ERR_FORMAT);
    assert_non_null(strstr(diag.text, "cert.pem"));
    opts.tls_key_path = NULL;
    assert_err(dure_http_open(&http, &opts, &diag), DURE_ERR_USAGE);
    temp_dir_remove(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_http_echo_json_and_query),
        cmocka_unit_test(test_http_forgotten_and_dropped_requests_are_500),
        cmocka_unit_test(test_http_another_thread_answers),
        cmocka_unit_test(test_http_stream_comes_whole_and_in_order),
        cmocka_unit_test(test_http_slow_reader_holds_the_writer_back),
        cmocka_unit_test(test_http_streaming_client_that_leaves_is_noticed),
        cmocka_unit_test(test_http_waiting_client_that_leaves_is_noticed),
        cmocka_unit_test(test_http_close_ends_a_stream_that_goes_on),
        cmocka_unit_test(test_http_quiesce_refuses_new_connections_only),
        cmocka_unit_test(test_http_body_over_the_limit_is_413),
        cmocka_unit_test(test_http_headers_over_the_limit_are_431),
        cmocka_unit_test(test_http_garbage_is_refused),
        cmocka_unit_test(test_http_slow_body_is_cut_off),
        cmocka_unit_test(test_http_keys_guard_everything_but_health),
        cmocka_unit_test(test_http_other_host_names_are_refused_without_keys),
        cmocka_unit_test(test_http_other_addresses_are_closed_by_default),
        cmocka_unit_test(test_http_port_in_use_is_one_sentence),
        cmocka_unit_test(test_http_tls_files_that_are_none_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
