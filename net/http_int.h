/* What the two halves of the HTTP server share: http.c (listener, rules, callbacks of
 * libmicrohttpd) and http_exchange.c (answers from any thread). */
#pragma once

#include "net/http.h"

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

#define HTTP_METHOD_SIZE 16
#define HTTP_PATH_SIZE 512
#define HTTP_HEADERS_MAX 8

typedef enum http_answer {
    HTTP_UNANSWERED,
    HTTP_REPLIED,
    HTTP_STREAMING,
} http_answer;

/* `lock` guards everything below it. libmicrohttpd's own locks are only ever taken inside it.
 * One reference is the connection's, until it completes; one is the caller's that kept it. */
struct dure_http_exchange {
    char method[HTTP_METHOD_SIZE], path[HTTP_PATH_SIZE];
    uint64_t started_ms;
    dure_buf body;
    size_t discarded; /* body bytes over the limit, read to be able to answer */
    bool too_large, handled;
    size_t stream_capacity;
    dure_http_exchange *previous, *next; /* the server's list */

    pthread_mutex_t lock;
    pthread_cond_t room;
    struct MHD_Connection *connection; /* NULL: the request is over */
    struct MHD_Response *response;     /* formed, not yet given to libmicrohttpd */
    unsigned status, refs;
    http_answer answer;
    bool suspended, kept, failed, ended;
    struct {
        char *name, *value;
    } headers[HTTP_HEADERS_MAX];
    size_t n_headers;
    uint8_t *queue; /* ring of stream_capacity bytes, from `queue_at`, `queue_n` filled */
    size_t queue_at, queue_n;
};

struct dure_http {
    struct MHD_Daemon *daemon;
    dure_http_opts opts; /* with the defaults filled in */
    bool loopback;
    int listen_fd; /* closed by libmicrohttpd while the daemon runs */
    char url[128];
    dure_buf cert, key;
    atomic_bool stopping;
    pthread_mutex_t lock; /* guards the list; taken before an exchange's own */
    dure_http_exchange *exchanges;
};

/* NULL when out of memory. */
dure_http_exchange *http_exchange_new(dure_http *server, struct MHD_Connection *connection,
                                      const char *method, const char *path);
/* The connection's end: tells a waiting writer, drops the connection's reference. */
void http_exchange_complete(dure_http_exchange *x, bool in_order);
/* Makes the exchange fail and wakes it up, when the server closes. */
void http_exchange_fail(dure_http_exchange *x);
/* Gives a formed answer to libmicrohttpd, or suspends the connection until there is one. */
enum MHD_Result http_exchange_proceed(dure_http_exchange *x);
/* Replies with the body that opts.error_body forms. */
void http_exchange_error(dure_http_exchange *x, const dure_http_opts *opts, unsigned status,
                         const char *message);

/* True if `key` is one of them. Time depends on the number of keys and the length of `key`. */
bool http_keys_match(const dure_http_keys *keys, const char *key);
