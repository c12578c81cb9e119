#include "net/http.h"

#include "common/clock.h"
#include "common/file.h"
#include "crypto/wipe.h"
#include "net/http_int.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_BODY_BYTES ((size_t)4 * 1024 * 1024)
#define MAX_HEADER_BYTES ((size_t)32 * 1024)
#define MAX_CONNECTIONS 256
#define IDLE_TIMEOUT_S 30
#define REQUEST_TIMEOUT_S 60
#define STREAM_BUFFER_BYTES ((size_t)256 * 1024)
#define LISTEN_BACKLOG 128
#define PEM_BYTES_MAX ((size_t)1024 * 1024)
#define DISCARD_BYTES_MAX ((size_t)1024 * 1024)
#define IDLE_STEP_MS 5
#define BEARER "Bearer "
/* TLS 1.2 and 1.3 with GnuTLS's ordinary ciphers. */
#define TLS_PRIORITIES "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"

/* The name in front of the port, in a Host header or an Origin, is this machine's own. */
static bool names_loopback(const char *host)
{
    static const char *const names[] = {"127.0.0.1", "localhost", "[::1]"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        size_t n = strlen(names[i]);
        if (!strncasecmp(host, names[i], n) && (host[n] == 0 || host[n] == ':')) return true;
    }
    return false;
}

/* Rule 2 of the header. 0, or the status of the refusal with its sentence. */
static unsigned refuse(const char **message, const dure_http *server,
                       struct MHD_Connection *connection, const char *path)
{
    const dure_http_opts *opts = &server->opts;
    if (opts->keys) {
        if (!strcmp(path, "/health")) return 0;
        const char *auth =
            MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_AUTHORIZATION);
        *message = "send a valid API key in the header 'Authorization: Bearer KEY'";
        bool ok = auth && !strncasecmp(auth, BEARER, strlen(BEARER)) &&
                  http_keys_match(opts->keys, auth + strlen(BEARER));
        return ok ? 0 : MHD_HTTP_UNAUTHORIZED;
    }
    if (!server->loopback) return 0;
    const char *host =
        MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_HOST);
    const char *origin =
        MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_ORIGIN);
    const char *origin_host = origin ? strstr(origin, "://") : NULL;
    *message = "this server without API keys answers to 127.0.0.1 and localhost only";
    if (host && !names_loopback(host)) return MHD_HTTP_FORBIDDEN;
    if (origin && (!origin_host || !names_loopback(origin_host + 3))) return MHD_HTTP_FORBIDDEN;
    return 0;
}

static bool announces_too_much(const dure_http *server, struct MHD_Connection *connection)
{
    const char *text =
        MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
    return text && strtoull(text, NULL, 10) > server->opts.max_body_bytes;
}

static void list_add(dure_http *server, dure_http_exchange *x)
{
    pthread_mutex_lock(&server->lock);
    x->next = server->exchanges;
    if (x->next) x->next->previous = x;
    server->exchanges = x;
    x->failed = atomic_load(&server->stopping);
    pthread_mutex_unlock(&server->lock);
}

static void list_remove(dure_http *server, dure_http_exchange *x)
{
    pthread_mutex_lock(&server->lock);
    if (x->previous)
        x->previous->next = x->next;
    else
        server->exchanges = x->next;
    if (x->next) x->next->previous = x->previous;
    pthread_mutex_unlock(&server->lock);
}

/* The headers have arrived. */
static enum MHD_Result on_headers(dure_http *server, struct MHD_Connection *connection,
                                  const char *path, const char *method, void **state)
{
    dure_http_exchange *x = http_exchange_new(server, connection, method, path);
    if (!x) return MHD_NO;
    *state = x;
    list_add(server, x);
    const char *message = NULL;
    unsigned status = refuse(&message, server, connection, path);
    if (!status && (strlen(path) >= HTTP_PATH_SIZE || strlen(method) >= HTTP_METHOD_SIZE)) {
        status = MHD_HTTP_URI_TOO_LONG;
        message = "the path is too long";
    }
    if (!status && announces_too_much(server, connection)) {
        status = MHD_HTTP_CONTENT_TOO_LARGE;
        message = "the request body is too large";
    }
    if (!status) return MHD_YES;
    if (status == MHD_HTTP_UNAUTHORIZED &&
        dure_http_add_header(x, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer"))
        return MHD_NO;
    x->handled = true;
    http_exchange_error(x, &server->opts, status, message);
    return http_exchange_proceed(x);
}

/* A part of the body. What is over the limit is read and dropped, so that the client sees the
 * refusal, but not without end. */
static enum MHD_Result on_body(dure_http *server, dure_http_exchange *x, const char *data,
                               size_t *n)
{
    const uint64_t limit_ms = (uint64_t)server->opts.request_timeout_s * 1000;
    if (dure_clock_monotonic_ms() - x->started_ms > limit_ms) return MHD_NO;
    if (!x->too_large) {
        dure_put_raw(&x->body, data, *n);
        x->too_large = dure_buf_err(&x->body) != DURE_OK;
    }
    if (x->too_large) x->discarded += *n;
    *n = 0;
    return x->discarded > DISCARD_BYTES_MAX ? MHD_NO : MHD_YES;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *path,
                                  const char *method, const char *version, const char *data,
                                  size_t *n, void **state)
{
    (void)version;
    dure_http *server = cls;
    dure_http_exchange *x = *state;
    if (!x) return on_headers(server, connection, path, method, state);
    if (*n) return on_body(server, x, data, n);
    if (x->handled) return http_exchange_proceed(x);
    x->handled = true;
    if (x->too_large)
        http_exchange_error(x, &server->opts, MHD_HTTP_CONTENT_TOO_LARGE,
                            "the request body is too large");
    else
        server->opts.handler(server->opts.state, x);
    pthread_mutex_lock(&x->lock);
    bool forgotten = x->answer == HTTP_UNANSWERED && !x->kept;
    pthread_mutex_unlock(&x->lock);
    if (forgotten)
        http_exchange_error(x, &server->opts, MHD_HTTP_INTERNAL_SERVER_ERROR,
                            "the server gave no answer");
    return http_exchange_proceed(x);
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **state,
                         enum MHD_RequestTerminationCode how)
{
    (void)connection;
    dure_http_exchange *x = *state;
    if (!x) return;
    *state = NULL;
    list_remove(cls, x);
    http_exchange_complete(x, how == MHD_REQUEST_TERMINATED_COMPLETED_OK);
}

typedef struct address {
    struct sockaddr_storage storage;
    socklen_t n;
    bool loopback;
} address;

static bool parse_port(uint16_t *port, const char *text)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    *port = (uint16_t)value;
    return text[0] >= '0' && text[0] <= '9' && *end == 0 && value <= 65535;
}

/* "HOST:PORT" with a numeric address, "localhost" or nothing as the host. */
static dure_err parse_listen(address *out, const char *text, dure_diag *diag)
{
    *out = (address){.n = 0};
    char host[64];
    uint16_t port = 0;
    const char *colon = strrchr(text, ':');
    size_t n = colon ? (size_t)(colon - text) : 0;
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    bool ok = colon && n < sizeof host && parse_port(&port, colon + 1);
    if (ok) {
        bool bracketed = n >= 2 && text[0] == '[' && text[n - 1] == ']';
        snprintf(host, sizeof host, "%.*s", (int)(bracketed ? n - 2 : n), text + bracketed);
        if (!*host || !strcmp(host, "localhost")) snprintf(host, sizeof host, "127.0.0.1");
        v4.sin_port = v6.sin6_port = htons(port);
        if (!bracketed && inet_pton(AF_INET, host, &v4.sin_addr) == 1) {
            out->n = sizeof v4;
            out->loopback = ntohl(v4.sin_addr.s_addr) >> 24 == 127;
            memcpy(&out->storage, &v4, sizeof v4);
        } else if (bracketed && inet_pton(AF_INET6, host, &v6.sin6_addr) == 1) {
            out->n = sizeof v6;
            out->loopback = IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr);
            memcpy(&out->storage, &v6, sizeof v6);
        }
    }
    if (!out->n)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "'%s' is not an address to listen on: write 127.0.0.1:8080 or "
                             "[::1]:8080",
                             text);
    return DURE_OK;
}

/* Rule 1 of the header. */
static dure_err check_rule(const dure_http_opts *opts, bool loopback, dure_diag *diag)
{
    if (!opts->tls_cert_path != !opts->tls_key_path)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "TLS needs both a certificate and its key (--tls-cert, --tls-key)");
    if (loopback || opts->insecure || (opts->keys && opts->tls_cert_path)) return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_POLICY,
                         "%s can be reached from other machines: give --api-key-file, --tls-cert "
                         "and --tls-key, or --insecure-http behind a proxy that does both",
                         opts->listen);
}

static dure_err open_socket(dure_http *server, const address *where, dure_diag *diag)
{
    const char *listen_on = server->opts.listen;
    const struct sockaddr *name = (const struct sockaddr *)&where->storage;
    int one = 1;
    server->listen_fd = socket(where->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (server->listen_fd < 0 ||
        setsockopt(server->listen_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) ||
        bind(server->listen_fd, name, where->n) || listen(server->listen_fd, LISTEN_BACKLOG)) {
        if (errno == EADDRINUSE)
            return dure_diag_set(diag, DURE_ERR_BUSY,
                                 "%s is in use by another program: stop it, or choose another port "
                                 "with --listen",
                                 listen_on);
        return dure_diag_set(diag, DURE_ERR_NET, "cannot listen on %s: %s", listen_on,
                             strerror(errno));
    }
    struct sockaddr_storage bound;
    socklen_t n = sizeof bound;
    char host[64] = "";
    if (getsockname(server->listen_fd, (struct sockaddr *)&bound, &n)) return DURE_ERR_NET;
    const char *scheme = server->opts.tls_cert_path ? "https" : "http";
    if (bound.ss_family == AF_INET) {
        struct sockaddr_in v4;
        memcpy(&v4, &bound, sizeof v4);
        inet_ntop(AF_INET, &v4.sin_addr, host, sizeof host);
        snprintf(server->url, sizeof server->url, "%s://%s:%u", scheme, host, ntohs(v4.sin_port));
    } else {
        struct sockaddr_in6 v6;
        memcpy(&v6, &bound, sizeof v6);
        inet_ntop(AF_INET6, &v6.sin6_addr, host, sizeof host);
        snprintf(server->url, sizeof server->url, "%s://[%s]:%u", scheme, host,
                 ntohs(v6.sin6_port));
    }
    return DURE_OK;
}

static dure_err read_pem(dure_buf *out, const char *path, dure_diag *diag)
{
    dure_err err = dure_file_read(out, path, PEM_BYTES_MAX, diag);
    if (err) return err;
    out->limit = out->n + 1;
    dure_put_u8(out, 0); /* GnuTLS takes a string */
    return dure_buf_err(out);
}

static dure_err start_daemon(dure_http *server, dure_diag *diag)
{
    const dure_http_opts *opts = &server->opts;
    struct MHD_OptionItem items[16];
    size_t n = 0;
    items[n++] = (struct MHD_OptionItem){MHD_OPTION_LISTEN_SOCKET, server->listen_fd, NULL};
    items[n++] =
        (struct MHD_OptionItem){MHD_OPTION_CONNECTION_LIMIT, (intptr_t)opts->max_connections, NULL};
    items[n++] = (struct MHD_OptionItem){MHD_OPTION_CONNECTION_TIMEOUT,
                                         (intptr_t)opts->idle_timeout_s, NULL};
    items[n++] = (struct MHD_OptionItem){MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                                         (intptr_t)opts->max_header_bytes, NULL};
    items[n++] = (struct MHD_OptionItem){MHD_OPTION_STRICT_FOR_CLIENT, 1, NULL};
    unsigned flags = MHD_USE_POLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME;
    if (opts->tls_cert_path) {
        dure_err err = read_pem(&server->cert, opts->tls_cert_path, diag);
        if (!err) err = read_pem(&server->key, opts->tls_key_path, diag);
        if (err) return err;
        flags |= MHD_USE_TLS;
        items[n++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_CERT, 0, server->cert.data};
        items[n++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_KEY, 0, server->key.data};
        static char priorities[] = TLS_PRIORITIES;
        items[n++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_PRIORITIES, 0, priorities};
    }
    items[n] = (struct MHD_OptionItem){MHD_OPTION_END, 0, NULL};
    server->daemon =
        MHD_start_daemon(flags, 0, NULL, NULL, on_request, server, MHD_OPTION_NOTIFY_COMPLETED,
                         on_completed, server, MHD_OPTION_ARRAY, items, MHD_OPTION_END);
    if (server->daemon) return DURE_OK;
    return opts->tls_cert_path
               ? dure_diag_set(diag, DURE_ERR_FORMAT,
                               "%s and %s are not a certificate and its key in PEM form",
                               opts->tls_cert_path, opts->tls_key_path)
               : dure_diag_set(diag, DURE_ERR_NET, "cannot start the HTTP server on %s",
                               opts->listen);
}

static void fill_defaults(dure_http_opts *opts)
{
    if (!opts->max_body_bytes) opts->max_body_bytes = MAX_BODY_BYTES;
    if (!opts->max_header_bytes) opts->max_header_bytes = MAX_HEADER_BYTES;
    if (!opts->max_connections) opts->max_connections = MAX_CONNECTIONS;
    if (!opts->idle_timeout_s) opts->idle_timeout_s = IDLE_TIMEOUT_S;
    if (!opts->request_timeout_s) opts->request_timeout_s = REQUEST_TIMEOUT_S;
    if (!opts->stream_buffer_bytes) opts->stream_buffer_bytes = STREAM_BUFFER_BYTES;
}

dure_err dure_http_open(dure_http **out, const dure_http_opts *opts, dure_diag *diag)
{
    *out = NULL;
    address where;
    dure_err err = parse_listen(&where, opts->listen, diag);
    if (!err) err = check_rule(opts, where.loopback, diag);
    if (err) return err;
    dure_http *server = calloc(1, sizeof *server);
    if (!server) return DURE_ERR_NOMEM;
    pthread_mutex_init(&server->lock, NULL);
    atomic_init(&server->stopping, false);
    server->listen_fd = -1;
    server->opts = *opts;
    server->loopback = where.loopback && !opts->insecure;
    fill_defaults(&server->opts);
    err = open_socket(server, &where, diag);
    if (!err) err = start_daemon(server, diag);
    if (err)
        dure_http_close(&server);
    else
        *out = server;
    return err;
}

void dure_http_quiesce(dure_http *server)
{
    if (!server->daemon) return;
    MHD_socket fd = MHD_quiesce_daemon(server->daemon);
    if (fd == MHD_INVALID_SOCKET) return;
    close(fd);
    server->listen_fd = -1;
}

bool dure_http_wait_idle(dure_http *server, uint32_t timeout_ms)
{
    const uint64_t end_ms = dure_clock_monotonic_ms() + timeout_ms;
    for (;;) {
        pthread_mutex_lock(&server->lock);
        bool idle = !server->exchanges;
        pthread_mutex_unlock(&server->lock);
        if (idle || dure_clock_monotonic_ms() >= end_ms) return idle;
        dure_clock_sleep_ms(IDLE_STEP_MS);
    }
}

void dure_http_close(dure_http **handle)
{
    dure_http *server = *handle;
    if (!server) return;
    atomic_store(&server->stopping, true);
    pthread_mutex_lock(&server->lock);
    /* libmicrohttpd must not be stopped while a connection is suspended. */
    for (dure_http_exchange *x = server->exchanges; x; x = x->next)
        http_exchange_fail(x);
    pthread_mutex_unlock(&server->lock);
    if (server->daemon)
        MHD_stop_daemon(server->daemon);
    else if (server->listen_fd >= 0)
        close(server->listen_fd);
    dure_wipe(server->key.data, server->key.n);
    dure_buf_fini(&server->key);
    dure_buf_fini(&server->cert);
    pthread_mutex_destroy(&server->lock);
    free(server);
    *handle = NULL;
}

const char *dure_http_url(const dure_http *server)
{
    return server->url;
}
