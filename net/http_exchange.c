#include "common/clock.h"
#include "net/http_int.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STREAM_BLOCK_BYTES 16384

dure_http_exchange *http_exchange_new(dure_http *server, struct MHD_Connection *connection,
                                      const char *method, const char *path)
{
    dure_http_exchange *x = calloc(1, sizeof *x);
    if (!x) return NULL;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&x->lock, NULL);
    pthread_cond_init(&x->room, &attr);
    pthread_condattr_destroy(&attr);
    x->connection = connection;
    x->refs = 1;
    x->started_ms = dure_clock_monotonic_ms();
    x->stream_capacity = server->opts.stream_buffer_bytes;
    snprintf(x->method, sizeof x->method, "%s", method);
    snprintf(x->path, sizeof x->path, "%s", path);
    dure_buf_init(&x->body, server->opts.max_body_bytes);
    return x;
}

static void destroy(dure_http_exchange *x)
{
    for (size_t i = 0; i < x->n_headers; i++) {
        free(x->headers[i].name);
        free(x->headers[i].value);
    }
    if (x->response) MHD_destroy_response(x->response);
    dure_buf_fini(&x->body);
    free(x->queue);
    pthread_cond_destroy(&x->room);
    pthread_mutex_destroy(&x->lock);
    free(x);
}

/* Called with the lock held; gives it up. */
static void unlock_and_unref(dure_http_exchange *x)
{
    bool last = --x->refs == 0;
    pthread_mutex_unlock(&x->lock);
    if (last) destroy(x);
}

/* Called with the lock held. */
static void resume(dure_http_exchange *x)
{
    if (!x->suspended || !x->connection) return;
    x->suspended = false;
    MHD_resume_connection(x->connection);
}

/* Called with the lock held, on the listener's thread, for a connection that is being handled. */
static void suspend(dure_http_exchange *x)
{
    x->suspended = true;
    MHD_suspend_connection(x->connection);
}

void http_exchange_complete(dure_http_exchange *x, bool in_order)
{
    pthread_mutex_lock(&x->lock);
    x->connection = NULL;
    x->suspended = false;
    if (!in_order) x->failed = true;
    pthread_cond_broadcast(&x->room);
    unlock_and_unref(x);
}

void http_exchange_fail(dure_http_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    x->failed = true;
    pthread_cond_broadcast(&x->room);
    resume(x);
    pthread_mutex_unlock(&x->lock);
}

enum MHD_Result http_exchange_proceed(dure_http_exchange *x)
{
    enum MHD_Result result = MHD_YES;
    pthread_mutex_lock(&x->lock);
    struct MHD_Response *response = x->response;
    unsigned status = x->status;
    x->response = NULL;
    if (!response && (x->failed || x->answer != HTTP_UNANSWERED))
        result = MHD_NO;
    else if (!response)
        suspend(x);
    pthread_mutex_unlock(&x->lock);
    if (!response) return result;
    /* Outside the lock: libmicrohttpd holds a response's own lock when it calls read_stream(). The
     * connection cannot end meanwhile, because this is the listener's thread. */
    result = MHD_queue_response(x->connection, status, response);
    MHD_destroy_response(response); /* libmicrohttpd holds its own reference */
    return result;
}

void http_exchange_error(dure_http_exchange *x, const dure_http_opts *opts, unsigned status,
                         const char *message)
{
    json_t *body = opts->error_body ? opts->error_body(status, message)
                                    : json_pack("{s:{s:s}}", "error", "message", message);
    dure_http_reply_json(x, status, body);
}

const char *dure_http_method(const dure_http_exchange *x)
{
    return x->method;
}

const char *dure_http_path(const dure_http_exchange *x)
{
    return x->path;
}

dure_span dure_http_body(const dure_http_exchange *x)
{
    return dure_buf_span(&x->body);
}

void dure_http_keep(dure_http_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    DURE_ASSERT(!x->kept);
    x->kept = true;
    x->refs++;
    pthread_mutex_unlock(&x->lock);
}

void dure_http_release(dure_http_exchange **handle)
{
    dure_http_exchange *x = *handle;
    if (!x) return;
    *handle = NULL;
    static const char message[] = "{\"error\":{\"message\":\"the server gave no answer\"}}\n";
    pthread_mutex_lock(&x->lock);
    bool unanswered = x->answer == HTTP_UNANSWERED;
    if (x->answer == HTTP_STREAMING && !x->ended) {
        x->failed = true; /* the client must see that the answer is cut short */
        resume(x);
    }
    pthread_mutex_unlock(&x->lock);
    if (unanswered) dure_http_reply(x, 500, "application/json", dure_span_of_text(message));
    pthread_mutex_lock(&x->lock);
    unlock_and_unref(x);
}

dure_err dure_http_add_header(dure_http_exchange *x, const char *name, const char *value)
{
    dure_err err = DURE_OK;
    pthread_mutex_lock(&x->lock);
    char *copy = strdup(name), *text = strdup(value);
    if (!copy || !text)
        err = DURE_ERR_NOMEM;
    else if (x->answer != HTTP_UNANSWERED)
        err = DURE_ERR_STATE;
    else if (x->n_headers == HTTP_HEADERS_MAX)
        err = DURE_ERR_LIMIT;
    if (err) {
        free(copy);
        free(text);
    } else {
        x->headers[x->n_headers].name = copy;
        x->headers[x->n_headers++].value = text;
    }
    pthread_mutex_unlock(&x->lock);
    return err;
}

/* Called with the lock held. Takes `response` only on success; destroying it must wait until the
 * lock is released, because that calls end_read_stream(). */
static dure_err set_response(dure_http_exchange *x, unsigned status, const char *content_type,
                             struct MHD_Response *response)
{
    if (!response) return DURE_ERR_NOMEM;
    if (x->answer != HTTP_UNANSWERED) return DURE_ERR_STATE;
    if (!x->connection || x->failed) return DURE_ERR_NET;
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, content_type);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    for (size_t i = 0; i < x->n_headers; i++)
        MHD_add_response_header(response, x->headers[i].name, x->headers[i].value);
    x->response = response;
    x->status = status;
    return DURE_OK;
}

dure_err dure_http_reply(dure_http_exchange *x, unsigned status, const char *content_type,
                         dure_span body)
{
    static char none[1];
    char *copy = malloc(body.n ? body.n : 1);
    struct MHD_Response *response = NULL;
    if (copy) {
        memcpy(copy, body.n ? (const char *)body.data : none, body.n);
        response = MHD_create_response_from_buffer(body.n, copy, MHD_RESPMEM_MUST_FREE);
        if (!response) free(copy);
    }
    pthread_mutex_lock(&x->lock);
    dure_err err = set_response(x, status, content_type, response);
    if (!err) {
        x->answer = HTTP_REPLIED;
        resume(x);
    }
    pthread_mutex_unlock(&x->lock);
    if (err && response) MHD_destroy_response(response);
    return err;
}

dure_err dure_http_reply_json(dure_http_exchange *x, unsigned status, json_t *value)
{
    char *text = value ? json_dumps(value, JSON_COMPACT | JSON_PRESERVE_ORDER) : NULL;
    json_decref(value);
    if (!text) {
        static const char message[] = "{\"error\":{\"message\":\"out of memory\"}}\n";
        return dure_http_reply(x, 500, "application/json", dure_span_of_text(message));
    }
    dure_err err = dure_http_reply(x, status, "application/json", dure_span_of_text(text));
    free(text);
    return err;
}

static size_t take_queued(dure_http_exchange *x, char *to, size_t max)
{
    size_t n = x->queue_n < max ? x->queue_n : max;
    size_t first = x->stream_capacity - x->queue_at;
    if (first > n) first = n;
    memcpy(to, x->queue + x->queue_at, first);
    memcpy(to + first, x->queue, n - first);
    x->queue_at = (x->queue_at + n) % x->stream_capacity;
    x->queue_n -= n;
    return n;
}

static void put_queued(dure_http_exchange *x, dure_span bytes)
{
    size_t at = (x->queue_at + x->queue_n) % x->stream_capacity;
    size_t first = x->stream_capacity - at;
    if (first > bytes.n) first = bytes.n;
    memcpy(x->queue + at, bytes.data, first);
    memcpy(x->queue, bytes.data + first, bytes.n - first);
    x->queue_n += bytes.n;
}

/* libmicrohttpd wants the next bytes of a stream: what is queued, or nothing until there is more.
 */
static ssize_t read_stream(void *state, uint64_t position, char *to, size_t max)
{
    (void)position;
    dure_http_exchange *x = state;
    ssize_t n = 0;
    pthread_mutex_lock(&x->lock);
    if (x->queue_n && !x->failed) {
        n = (ssize_t)take_queued(x, to, max);
        pthread_cond_broadcast(&x->room);
    } else if (x->failed || !x->connection) {
        n = MHD_CONTENT_READER_END_WITH_ERROR;
    } else if (x->ended) {
        n = MHD_CONTENT_READER_END_OF_STREAM;
    } else {
        suspend(x);
    }
    pthread_mutex_unlock(&x->lock);
    return n;
}

static void end_read_stream(void *state)
{
    dure_http_exchange *x = state;
    pthread_mutex_lock(&x->lock);
    unlock_and_unref(x);
}

dure_err dure_http_stream_begin(dure_http_exchange *x, unsigned status, const char *content_type)
{
    uint8_t *queue = malloc(x->stream_capacity);
    if (!queue) return DURE_ERR_NOMEM;
    struct MHD_Response *response = MHD_create_response_from_callback(
        MHD_SIZE_UNKNOWN, STREAM_BLOCK_BYTES, read_stream, x, end_read_stream);
    pthread_mutex_lock(&x->lock);
    if (response) x->refs++; /* the response's, dropped by end_read_stream() */
    dure_err err = set_response(x, status, content_type, response);
    if (!err) {
        x->queue = queue;
        x->answer = HTTP_STREAMING;
        resume(x);
    }
    pthread_mutex_unlock(&x->lock);
    if (err) {
        free(queue);
        if (response) MHD_destroy_response(response);
    }
    return err;
}

static dure_err wait_for_room(dure_http_exchange *x, size_t n, uint32_t timeout_ms)
{
    const struct timespec end = dure_clock_deadline(timeout_ms);
    while (x->connection && !x->failed && x->stream_capacity - x->queue_n < n)
        if (pthread_cond_timedwait(&x->room, &x->lock, &end) == ETIMEDOUT) return DURE_ERR_TIMEOUT;
    return x->connection && !x->failed ? DURE_OK : DURE_ERR_NET;
}

dure_err dure_http_stream_write(dure_http_exchange *x, dure_span bytes, uint32_t timeout_ms)
{
    if (bytes.n > x->stream_capacity) return DURE_ERR_LIMIT;
    pthread_mutex_lock(&x->lock);
    dure_err err = x->answer == HTTP_STREAMING && !x->ended ? DURE_OK : DURE_ERR_STATE;
    if (!err) err = wait_for_room(x, bytes.n, timeout_ms);
    if (!err && bytes.n) {
        put_queued(x, bytes);
        resume(x);
    }
    pthread_mutex_unlock(&x->lock);
    return err;
}

dure_err dure_http_stream_end(dure_http_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    dure_err err = x->answer == HTTP_STREAMING ? DURE_OK : DURE_ERR_STATE;
    x->ended = true;
    resume(x);
    pthread_mutex_unlock(&x->lock);
    return err;
}

bool dure_http_gone(dure_http_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    bool gone = !x->connection || x->failed;
    if (!gone) {
        /* A suspended connection is not watched by libmicrohttpd, so the socket is asked itself. It
         * stays open while `connection` is set, because completing takes this lock. */
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(x->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
        struct pollfd p = {.fd = info ? info->connect_fd : -1, .events = POLLRDHUP};
        gone = info && poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR));
    }
    pthread_mutex_unlock(&x->lock);
    return gone;
}
