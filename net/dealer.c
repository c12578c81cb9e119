#include "net/dealer.h"

#include "common/clock.h"
#include "common/log.h"
#include "crypto/rng.h"
#include "net/socket_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RECONNECT_MS_DEFAULT 500
#define RECONNECT_MAX_MS_DEFAULT 10000
/* Without it the system tries for two minutes, ever more rarely, on a line that may be back. */
#define CONNECT_MS 10000
#define ENDPOINT_SIZE 256

/* Appended to the key's hash in the routing id; see net/router.h, rule 2. */
#define ROUTING_TAIL_BYTES 16

#define MONITOR_ENDPOINT "inproc://dure-dealer-monitor"
#define MONITOR_EVENTS                                                                             \
    (ZMQ_EVENT_CONNECT_RETRIED | ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED |          \
     ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |                  \
     ZMQ_EVENT_HANDSHAKE_FAILED_AUTH)

struct dure_dealer {
    void *context, *socket, *monitor;
    int wake_fd;
    dure_curve_key key;
    uint8_t server_public[DURE_CURVE_BYTES];
    char endpoint[ENDPOINT_SIZE];
    dure_dealer_opts opts; /* its pointers are not used after opening */
    dure_dealer_status status;
    bool changed;        /* status changed since recv last told */
    uint64_t rebuild_ms; /* when to make the socket anew; 0: not planned */
    uint32_t rebuild_ivl_ms;
};

static uint32_t or_default(uint32_t value, uint32_t otherwise)
{
    return value ? value : otherwise;
}

static dure_err configure(dure_dealer *dealer, void *socket)
{
    const dure_socket_opts common = {.queue_messages = dealer->opts.queue_messages,
                                     .heartbeat_ms = dealer->opts.heartbeat_ms,
                                     .linger_ms = dealer->opts.linger_ms,
                                     .max_frame_bytes = DURE_NET_CONTROL_BYTES};
    dure_hash id;
    uint8_t routing[DURE_HASH_BYTES + ROUTING_TAIL_BYTES];
    dure_rng rng = dure_rng_system();
    dure_err err = dure_curve_id(&id, dealer->key.public_);
    if (!err) err = dure_rng_fill(&rng, routing + DURE_HASH_BYTES, ROUTING_TAIL_BYTES);
    if (!err) err = dure_socket_configure(socket, &common);
    if (!err) err = dure_socket_set(socket, ZMQ_RECONNECT_IVL, (int)dealer->opts.reconnect_ms);
    if (!err)
        err = dure_socket_set(socket, ZMQ_RECONNECT_IVL_MAX, (int)dealer->opts.reconnect_max_ms);
    if (!err) err = dure_socket_set(socket, ZMQ_CONNECT_TIMEOUT, CONNECT_MS);
    /* Nothing is queued for a connection that is not there. */
    if (!err) err = dure_socket_set(socket, ZMQ_IMMEDIATE, 1);
    if (err) return err;
    memcpy(routing, id.b, DURE_HASH_BYTES);
    if (zmq_setsockopt(socket, ZMQ_ROUTING_ID, routing, sizeof routing) ||
        zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, dealer->server_public, DURE_CURVE_BYTES) ||
        zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, dealer->key.public_, DURE_CURVE_BYTES) ||
        zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, dealer->key.secret, DURE_CURVE_BYTES))
        return DURE_ERR_NET;
    return DURE_OK;
}

static void close_sockets(dure_dealer *dealer)
{
    if (dealer->socket) {
        zmq_socket_monitor(dealer->socket, NULL, 0);
        zmq_close(dealer->socket);
    }
    if (dealer->monitor) zmq_close(dealer->monitor);
    dealer->socket = dealer->monitor = NULL;
}

static dure_err open_sockets(dure_dealer *dealer, dure_diag *diag)
{
    dealer->socket = zmq_socket(dealer->context, ZMQ_DEALER);
    dealer->monitor = zmq_socket(dealer->context, ZMQ_PAIR);
    if (!dealer->socket || !dealer->monitor) return DURE_ERR_NET;
    dure_err err = configure(dealer, dealer->socket);
    if (!err) err = dure_socket_set(dealer->monitor, ZMQ_LINGER, 0);
    if (err) return err;
    if (zmq_socket_monitor(dealer->socket, MONITOR_ENDPOINT, MONITOR_EVENTS) ||
        zmq_connect(dealer->monitor, MONITOR_ENDPOINT))
        return DURE_ERR_NET;
    if (zmq_connect(dealer->socket, dealer->endpoint))
        return dure_diag_set(diag, DURE_ERR_USAGE, "'%s' is not an endpoint: write tcp://HOST:PORT",
                             dealer->endpoint);
    return DURE_OK;
}

static void set_disconnected(dure_dealer *dealer, const char *reason)
{
    dure_dealer_status *status = &dealer->status;
    bool same = !status->connected && !strcmp(status->reason, reason);
    if (status->connected) status->since_ms = dure_clock_monotonic_ms();
    status->connected = false;
    snprintf(status->reason, sizeof status->reason, "%s", reason);
    if (!same) dealer->changed = true;
}

/* libzmq gives a connection up for good when the handshake failed: a new socket tries again. */
static void plan_rebuild(dure_dealer *dealer)
{
    if (dealer->rebuild_ms) return;
    dealer->rebuild_ms = dure_clock_monotonic_ms() + dealer->rebuild_ivl_ms;
    if (dealer->rebuild_ivl_ms <= dealer->opts.reconnect_max_ms / 2) dealer->rebuild_ivl_ms *= 2;
}

static void on_event(dure_dealer *dealer, uint16_t event)
{
    dure_dealer_status *status = &dealer->status;
    switch (event) {
    case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
        status->connected = true;
        status->since_ms = dure_clock_monotonic_ms();
        status->connects++;
        status->reason[0] = 0;
        dealer->changed = true;
        dealer->rebuild_ivl_ms = dealer->opts.reconnect_ms;
        break;
    case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
        set_disconnected(dealer, "the coordinator does not admit this site's key");
        plan_rebuild(dealer);
        break;
    case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
    case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
        set_disconnected(dealer, "the handshake did not end: the line is dead, or it is not the "
                                 "coordinator of this invitation");
        plan_rebuild(dealer);
        break;
    case ZMQ_EVENT_DISCONNECTED:
        if (status->connected) set_disconnected(dealer, "the connection was lost");
        break;
    default: /* ZMQ_EVENT_CONNECT_RETRIED: keeps a more telling reason if there is one */
        if (!status->connected && !status->reason[0])
            set_disconnected(dealer, "nothing answers there yet");
    }
}

static void read_monitor(dure_dealer *dealer)
{
    for (;;) {
        uint8_t event[6]; /* u16 event, u32 value, in the machine's own order */
        int n = zmq_recv(dealer->monitor, event, sizeof event, ZMQ_DONTWAIT);
        if (n < 0) return;
        char address[ENDPOINT_SIZE];
        if (zmq_recv(dealer->monitor, address, sizeof address, ZMQ_DONTWAIT) < 0) return;
        uint16_t number;
        memcpy(&number, event, sizeof number);
        if (n == sizeof event) on_event(dealer, number);
    }
}

static dure_err rebuild_if_due(dure_dealer *dealer)
{
    if (!dealer->rebuild_ms || dure_clock_monotonic_ms() < dealer->rebuild_ms) return DURE_OK;
    dealer->rebuild_ms = 0;
    close_sockets(dealer);
    dure_err err = open_sockets(dealer, NULL);
    if (err) plan_rebuild(dealer);
    return DURE_OK;
}

/* What there is now: a message, a change of status, or DURE_ERR_TIMEOUT. */
static dure_err poll_once(dure_envelope *out, dure_dealer *dealer)
{
    dure_err err = rebuild_if_due(dealer);
    if (err) return err;
    if (!dealer->socket || !dealer->monitor) return DURE_ERR_TIMEOUT;
    read_monitor(dealer);
    if (dealer->changed) {
        dealer->changed = false;
        dure_log(DURE_LOG_INFO, "net", dealer->status.connected ? "connected" : "not_connected",
                 "endpoint=%s reason=\"%s\"", dealer->endpoint, dealer->status.reason);
        return DURE_ERR_NET;
    }
    return dure_socket_recv(out, NULL, 0, NULL, dealer->socket);
}

dure_err dure_dealer_recv(dure_envelope *out, dure_dealer *dealer, uint32_t timeout_ms)
{
    const uint64_t end_ms = dure_clock_monotonic_ms() + timeout_ms;
    *out = (dure_envelope){0};
    for (;;) {
        dure_err err = poll_once(out, dealer);
        if (err != DURE_ERR_TIMEOUT && err != DURE_ERR_PROTO) return err;
        uint64_t now_ms = dure_clock_monotonic_ms();
        uint64_t until_ms = end_ms;
        if (dealer->rebuild_ms && dealer->rebuild_ms < until_ms) until_ms = dealer->rebuild_ms;
        int64_t wait_ms = until_ms > now_ms ? (int64_t)(until_ms - now_ms) : 0;
        if (!dealer->socket) {
            dure_clock_sleep_ms((uint32_t)wait_ms);
            err = DURE_ERR_TIMEOUT;
        } else {
            err = dure_socket_wait(dealer->socket, dealer->monitor, dealer->wake_fd, wait_ms);
        }
        if (err && (err != DURE_ERR_TIMEOUT || dure_clock_monotonic_ms() >= end_ms)) return err;
    }
}

dure_err dure_dealer_send(dure_dealer *dealer, dure_span control, const dure_payload *payload)
{
    dure_err err = DURE_OK;
    if (control.n > DURE_NET_CHUNK_BYTES || (payload && payload->bytes.n > DURE_NET_CHUNK_BYTES))
        err = DURE_ERR_LIMIT;
    else if (!dealer->status.connected || !dealer->socket)
        err = DURE_ERR_NET;
    if (err) {
        dure_payload_discard(payload);
        return err;
    }
    return dure_socket_send(dealer->socket, dure_span_of(NULL, 0), control, payload);
}

const dure_dealer_status *dure_dealer_status_of(const dure_dealer *dealer)
{
    return &dealer->status;
}

void dure_dealer_wake(const dure_dealer *dealer)
{
    dure_wake_write(dealer->wake_fd);
}

dure_err dure_dealer_open(dure_dealer **out, const dure_dealer_opts *opts, dure_diag *diag)
{
    *out = NULL;
    dure_err err = dure_curve_check(diag);
    if (!err) err = dure_socket_descriptors(diag);
    if (err) return err;
    dure_dealer *dealer = calloc(1, sizeof *dealer);
    if (!dealer) return DURE_ERR_NOMEM;
    dealer->wake_fd = -1;
    dealer->opts = *opts;
    dealer->opts.reconnect_ms = or_default(opts->reconnect_ms, RECONNECT_MS_DEFAULT);
    dealer->opts.reconnect_max_ms = or_default(opts->reconnect_max_ms, RECONNECT_MAX_MS_DEFAULT);
    dealer->rebuild_ivl_ms = dealer->opts.reconnect_ms;
    dealer->status.since_ms = dure_clock_monotonic_ms();
    dealer->key = *opts->key;
    memcpy(dealer->server_public, opts->server_public, DURE_CURVE_BYTES);
    dure_diag_set(diag, DURE_ERR_NET, "cannot set up a socket for %s: memory or threads are short",
                  opts->endpoint);
    int n = snprintf(dealer->endpoint, sizeof dealer->endpoint, "%s", opts->endpoint);
    err = n < ENDPOINT_SIZE ? dure_wake_open(&dealer->wake_fd) : DURE_ERR_USAGE;
    dealer->context = err ? NULL : zmq_ctx_new();
    if (!err) err = dealer->context ? open_sockets(dealer, diag) : DURE_ERR_NOMEM;
    if (err)
        dure_dealer_close(&dealer);
    else
        *out = dealer;
    return err;
}

void dure_dealer_close(dure_dealer **handle)
{
    dure_dealer *dealer = *handle;
    if (!dealer) return;
    close_sockets(dealer);
    dure_socket_end(dealer->context);
    if (dealer->wake_fd >= 0) close(dealer->wake_fd);
    dure_curve_key_wipe(&dealer->key);
    free(dealer);
    *handle = NULL;
}
