/* An HTTP server on libmicrohttpd, closed by default.
 *
 * 1. It binds 127.0.0.1. Another address is refused without API keys and a TLS certificate, or an
 *    explicit `insecure` for use behind a proxy.
 * 2. With keys, every path but /health needs `Authorization: Bearer KEY`. Keys are kept as hashes
 *    and compared in constant time. Without keys, a Host header that is not a loopback name is
 *    refused, so a web page cannot reach the server by rebinding its own name to 127.0.0.1.
 * 3. Headers, body, connections and times are bounded before the handler sees a request.
 *
 * A request lives as an exchange. The handler runs on the listener's thread, must not wait, and
 * either replies or keeps the exchange, which any one thread may then answer or stream to.
 *
 * Threads: the functions of an exchange may be called from any thread, one at a time. */
#pragma once

#include "common/buf.h"
#include "common/err.h"
#include "common/json.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct dure_http dure_http;
typedef struct dure_http_exchange dure_http_exchange;
typedef struct dure_http_keys dure_http_keys;

/* Reads a file of API keys: one a line, at least 16 printable characters, '#' starts a comment
 * line. DURE_ERR_AUTH if others than the owner and group may read the file. */
DURE_MUST_USE dure_err dure_http_keys_read(dure_http_keys **out, const char *path, dure_diag *diag);
void dure_http_keys_free(dure_http_keys **keys);

typedef struct dure_http_opts {
    const char *listen; /* "127.0.0.1:8080", "[::1]:0", ":8080" is 127.0.0.1; port 0: a free one */
    const dure_http_keys *keys;               /* borrowed; NULL: none asked for */
    const char *tls_cert_path, *tls_key_path; /* PEM; both or none */
    bool insecure;                            /* another address without keys and TLS */
    size_t max_body_bytes;                    /* 0: 4 MiB */
    size_t max_header_bytes;                  /* 0: 32 KiB */
    uint32_t max_connections;                 /* 0: 256 */
    uint32_t idle_timeout_s;                  /* 0: 30 */
    uint32_t request_timeout_s;               /* for all of the body, 0: 60 */
    size_t stream_buffer_bytes;               /* a stream's queue, 0: 256 KiB */
    void (*handler)(void *state, dure_http_exchange *x);
    void *state;
    /* Forms the body of an error that this module itself answers (401, 413, ...). NULL: plain
     * {"error":{"message":...}}. Returns a new reference. */
    json_t *(*error_body)(unsigned status, const char *message);
} dure_http_opts;

/* Listens. The caller owns *out, dure_http_close(&h). A port in use is DURE_ERR_BUSY, an address
 * that rule 1 forbids DURE_ERR_POLICY. */
DURE_MUST_USE dure_err dure_http_open(dure_http **out, const dure_http_opts *opts, dure_diag *diag);
/* Stops accepting; exchanges that are kept go on. For a graceful end, before close. */
void dure_http_quiesce(dure_http *http);
/* True when every request that has arrived is answered to its last byte within `timeout_ms`. */
bool dure_http_wait_idle(dure_http *http, uint32_t timeout_ms);
/* Ends every connection. Kept exchanges stay valid until released; their calls then fail. */
void dure_http_close(dure_http **http);
/* "http://127.0.0.1:8080" as bound. Borrowed. */
const char *dure_http_url(const dure_http *http);

/* The request; borrowed from the exchange. */
const char *dure_http_method(const dure_http_exchange *x);
const char *dure_http_path(const dure_http_exchange *x); /* without the query */
dure_span dure_http_body(const dure_http_exchange *x);

/* Before the handler returns, for an exchange it has not answered: it stays valid until release. */
void dure_http_keep(dure_http_exchange *x);
/* An exchange that is released without an answer is answered with 500. Nulls. */
void dure_http_release(dure_http_exchange **x);

/* Adds a header to the answer, before it is given. */
DURE_MUST_USE dure_err dure_http_add_header(dure_http_exchange *x, const char *name,
                                            const char *value);
/* The whole answer; copies `body`. DURE_ERR_STATE: answered already; DURE_ERR_NET: the client is
 * gone. The two are safe to ignore where nothing else depends on them. */
dure_err dure_http_reply(dure_http_exchange *x, unsigned status, const char *content_type,
                         dure_span body);
/* As JSON; takes the reference (NULL, out of memory, becomes a 500). */
dure_err dure_http_reply_json(dure_http_exchange *x, unsigned status, json_t *value);

/* Starts an answer of unknown length, "text/event-stream" for example. */
DURE_MUST_USE dure_err dure_http_stream_begin(dure_http_exchange *x, unsigned status,
                                              const char *content_type);
/* Queues bytes. When the client reads slower than they come, waits up to `timeout_ms` for room,
 * then DURE_ERR_TIMEOUT with nothing queued. DURE_ERR_NET: the client has gone; stop working. */
DURE_MUST_USE dure_err dure_http_stream_write(dure_http_exchange *x, dure_span bytes,
                                              uint32_t timeout_ms);
dure_err dure_http_stream_end(dure_http_exchange *x);

/* True once the client has closed its connection; also while nothing is being written. */
bool dure_http_gone(dure_http_exchange *x);
