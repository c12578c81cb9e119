#include "net/router.h"

#include "common/clock.h"
#include "common/log.h"
#include "crypto/wipe.h"
#include "net/router_door.h"
#include "net/router_zap.h"
#include "net/socket_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define MAX_PEERS_DEFAULT 1024
/* A chunk of a vector takes 26 s at 60 kbit/s, below which no connection lives. */
#define SILENCE_MS 30000
#define MAX_WAITING_DEFAULT 256
/* Connections that the system keeps until they are accepted; beyond it, who connects waits a
 * second.
 */
#define BACKLOG 512
#define ENDPOINT_SIZE 256

/* A routing id: the hash of the key, then what only that peer knows. */
#define ROUTING_TAIL_BYTES 16
#define ROUTING_BYTES (DURE_HASH_BYTES + ROUTING_TAIL_BYTES)

/* A peer that has been heard: where to send to, by id. */
typedef struct heard {
    uint8_t routing[ROUTING_BYTES];
    bool guest;
    int fd; /* the connection of its last message; -1: of a guest, or not known */
    uint64_t last_ms;
} heard;

struct dure_router {
    void *context, *socket;
    dure_zap *zap;
    dure_door *door;
    int wake_fd;
    dure_admit *admit;
    void *admit_state;
    heard *peers;
    size_t n_peers, max_peers;
    dure_router_counts counts;
    char endpoint[ENDPOINT_SIZE];
};

/* The CURVE key that ZAP put on the connection. Read from a body frame: in libzmq 4.3.4 the
 * routing-id frame loses its properties when it was read ahead. */
static bool proven_key(uint8_t key[DURE_CURVE_BYTES], const dure_envelope *envelope)
{
    const char *user_id = zmq_msg_gets(&envelope->frames->control, "User-Id");
    return user_id && dure_hex_decode(key, DURE_CURVE_BYTES, user_id) == DURE_OK;
}

static heard *find_peer(dure_router *router, const uint8_t *id)
{
    for (size_t i = 0; i < router->n_peers; i++)
        if (dure_ct_equal(router->peers[i].routing, id, DURE_HASH_BYTES)) return &router->peers[i];
    return NULL;
}

/* A place for a new peer: a free one, or that of the guest seen longest ago. NULL: all members. */
static heard *place_for_peer(dure_router *router)
{
    if (router->n_peers < router->max_peers) return &router->peers[router->n_peers++];
    heard *oldest = NULL;
    for (size_t i = 0; i < router->n_peers; i++) {
        heard *peer = &router->peers[i];
        if (peer->guest && (!oldest || peer->last_ms < oldest->last_ms)) oldest = peer;
    }
    return oldest;
}

/* Remembers where the peer is to be reached now, by the message that came over `fd`. */
static bool remember(dure_router *router, const uint8_t routing[ROUTING_BYTES],
                     dure_admission admission, int fd)
{
    heard *peer = find_peer(router, routing);
    const bool known = peer != NULL;
    if (!peer) peer = place_for_peer(router);
    if (!peer) return false;
    const int before = known ? peer->fd : -1;
    memcpy(peer->routing, routing, ROUTING_BYTES);
    peer->fd = admission == DURE_ADMIT_MEMBER ? fd : -1;
    if (peer->fd >= 0) dure_door_pass(router->door, fd, before);
    peer->guest = admission == DURE_ADMIT_GUEST;
    peer->last_ms = dure_clock_monotonic_ms();
    return true;
}

/* Rules 2 and 3 of the header for one message. On false the reason is counted. */
static bool authenticate(dure_envelope *envelope, dure_router *router, const uint8_t *routing,
                         size_t routing_n)
{
    dure_peer *peer = &envelope->peer;
    if (!proven_key(peer->curve_public, envelope)) {
        router->counts.unauthenticated++;
        return false;
    }
    if (routing_n != ROUTING_BYTES || dure_curve_id(&peer->id, peer->curve_public) ||
        !dure_ct_equal(peer->id.b, routing, DURE_HASH_BYTES)) {
        router->counts.wrong_id++;
        return false;
    }
    peer->admission = router->admit(router->admit_state, peer->curve_public);
    if (peer->admission == DURE_ADMIT_NO) {
        router->counts.not_admitted++;
        return false;
    }
    const int fd = zmq_msg_get(&envelope->frames->control, ZMQ_SRCFD);
    if (!remember(router, routing, peer->admission, fd)) {
        router->counts.too_many_peers++;
        return false;
    }
    router->counts.received++;
    return true;
}

/* One message without waiting; DURE_ERR_PROTO for one that was dropped. */
static dure_err recv_one(dure_envelope *out, dure_router *router)
{
    uint8_t routing[ROUTING_BYTES];
    size_t routing_n = 0;
    dure_err err = dure_socket_recv(out, routing, sizeof routing, &routing_n, router->socket);
    if (err == DURE_ERR_PROTO) {
        router->counts.malformed++;
    } else if (!err && !authenticate(out, router, routing, routing_n)) {
        dure_envelope_fini(out);
        err = DURE_ERR_PROTO;
    }
    if (err == DURE_ERR_PROTO)
        dure_log(DURE_LOG_DEBUG, "net", "message_dropped",
                 "unauthenticated=%llu wrong_id=%llu not_admitted=%llu malformed=%llu",
                 (unsigned long long)router->counts.unauthenticated,
                 (unsigned long long)router->counts.wrong_id,
                 (unsigned long long)router->counts.not_admitted,
                 (unsigned long long)router->counts.malformed);
    return err;
}

dure_err dure_router_recv(dure_envelope *out, dure_router *router, uint32_t timeout_ms)
{
    const uint64_t end_ms = dure_clock_monotonic_ms() + timeout_ms;
    *out = (dure_envelope){0};
    for (;;) {
        dure_err err = recv_one(out, router);
        if (err == DURE_OK || (err != DURE_ERR_TIMEOUT && err != DURE_ERR_PROTO)) return err;
        uint64_t now_ms = dure_clock_monotonic_ms();
        if (now_ms >= end_ms && err == DURE_ERR_PROTO) return DURE_ERR_TIMEOUT;
        if (err == DURE_ERR_PROTO) continue;
        int64_t wait_ms = now_ms < end_ms ? (int64_t)(end_ms - now_ms) : 0;
        err = dure_socket_wait(router->socket, NULL, router->wake_fd, wait_ms);
        if (err && (err != DURE_ERR_TIMEOUT || dure_clock_monotonic_ms() >= end_ms)) return err;
    }
}

dure_err dure_router_send(dure_router *router, const dure_hash *peer, dure_span control,
                          const dure_payload *payload)
{
    dure_err err = DURE_OK;
    const heard *to = find_peer(router, peer->b);
    if (!to) err = DURE_ERR_NOT_FOUND;
    if (control.n > DURE_NET_CONTROL_BYTES || (payload && payload->bytes.n > DURE_NET_CHUNK_BYTES))
        err = DURE_ERR_LIMIT;
    if (err) {
        dure_payload_discard(payload);
        return err;
    }
    return dure_socket_send(router->socket, dure_span_of(to->routing, ROUTING_BYTES), control,
                            payload);
}

void dure_router_wake(const dure_router *router)
{
    dure_wake_write(router->wake_fd);
}

static dure_err configure(dure_router *router, const dure_router_opts *opts)
{
    const dure_socket_opts common = {.queue_messages = opts->queue_messages,
                                     .heartbeat_ms = opts->heartbeat_ms,
                                     .linger_ms = opts->linger_ms,
                                     .silence_ms = opts->heartbeat_ms ? 0 : SILENCE_MS,
                                     .max_frame_bytes = DURE_NET_CHUNK_BYTES};
    dure_err err = dure_socket_configure(router->socket, &common);
    if (!err) err = dure_socket_set(router->socket, ZMQ_ROUTER_MANDATORY, 1);
    if (!err) err = dure_socket_set(router->socket, ZMQ_ROUTER_HANDOVER, 1);
    if (!err) err = dure_socket_set(router->socket, ZMQ_BACKLOG, BACKLOG);
    if (!err) err = dure_socket_set(router->socket, ZMQ_CURVE_SERVER, 1);
    if (err) return err;
    if (zmq_setsockopt(router->socket, ZMQ_CURVE_SECRETKEY, opts->key->secret, DURE_CURVE_BYTES) ||
        zmq_setsockopt(router->socket, ZMQ_ZAP_DOMAIN, DURE_ZAP_DOMAIN, strlen(DURE_ZAP_DOMAIN)))
        return DURE_ERR_NET;
    return DURE_OK;
}

static dure_err bind_endpoint(dure_router *router, const char *endpoint, dure_diag *diag)
{
    if (zmq_bind(router->socket, endpoint)) {
        if (errno == EADDRINUSE)
            return dure_diag_set(diag, DURE_ERR_BUSY,
                                 "%s is in use by another program: stop it, or choose another port",
                                 endpoint);
        if (errno == EINVAL || errno == EPROTONOSUPPORT)
            return dure_diag_set(diag, DURE_ERR_USAGE,
                                 "cannot listen on %s: it must look like tcp://ADDRESS:PORT",
                                 endpoint);
        return dure_diag_set(diag, DURE_ERR_NET, "cannot listen on %s: %s", endpoint,
                             zmq_strerror(errno));
    }
    size_t size = sizeof router->endpoint;
    return zmq_getsockopt(router->socket, ZMQ_LAST_ENDPOINT, router->endpoint, &size) ? DURE_ERR_NET
                                                                                      : DURE_OK;
}

/* The door's share of the descriptors leaves the rest to the members and to the files. */
static size_t most_waiting(const dure_router_opts *opts)
{
    struct rlimit descriptors;
    if (opts->max_waiting) return opts->max_waiting;
    if (getrlimit(RLIMIT_NOFILE, &descriptors) || descriptors.rlim_cur / 4 >= MAX_WAITING_DEFAULT)
        return MAX_WAITING_DEFAULT;
    return descriptors.rlim_cur >= 4 ? (size_t)descriptors.rlim_cur / 4 : 1;
}

static dure_err open_sockets(dure_router *router, const dure_router_opts *opts, dure_diag *diag)
{
    router->context = zmq_ctx_new();
    if (!router->context) return DURE_ERR_NOMEM;
    zmq_ctx_set(router->context, ZMQ_IO_THREADS, opts->io_threads ? (int)opts->io_threads : 1);
    dure_err err = dure_zap_start(&router->zap, router->context, opts->admit, opts->admit_state);
    if (err) return err;
    router->socket = zmq_socket(router->context, ZMQ_ROUTER);
    if (!router->socket) return DURE_ERR_NET;
    err = configure(router, opts);
    if (!err)
        err = dure_door_open(&router->door, router->context, router->socket, most_waiting(opts),
                             router->max_peers);
    return err ? err : bind_endpoint(router, opts->endpoint, diag);
}

dure_err dure_router_open(dure_router **out, const dure_router_opts *opts, dure_diag *diag)
{
    *out = NULL;
    dure_err err = dure_curve_check(diag);
    if (!err) err = dure_socket_descriptors(diag);
    if (err) return err;
    dure_router *router = calloc(1, sizeof *router);
    if (!router) return DURE_ERR_NOMEM;
    router->wake_fd = -1;
    router->admit = opts->admit;
    router->admit_state = opts->admit_state;
    router->max_peers = opts->max_peers ? opts->max_peers : MAX_PEERS_DEFAULT;
    router->peers = calloc(router->max_peers, sizeof *router->peers);
    dure_diag_set(diag, DURE_ERR_NET, "cannot set up a socket for %s: memory or threads are short",
                  opts->endpoint);
    err = router->peers ? dure_wake_open(&router->wake_fd) : DURE_ERR_NOMEM;
    if (!err) err = open_sockets(router, opts, diag);
    if (err)
        dure_router_close(&router);
    else
        *out = router;
    return err;
}

void dure_router_close(dure_router **handle)
{
    dure_router *router = *handle;
    if (!router) return;
    if (router->socket) zmq_close(router->socket);
    if (router->context) zmq_ctx_shutdown(router->context);
    dure_zap_stop(&router->zap);
    dure_door_close(&router->door);
    dure_socket_end(router->context);
    if (router->wake_fd >= 0) close(router->wake_fd);
    free(router->peers);
    free(router);
    *handle = NULL;
}

const char *dure_router_endpoint(const dure_router *router)
{
    return router->endpoint;
}

const dure_router_counts *dure_router_counts_of(dure_router *router)
{
    router->counts.closed = dure_door_closed(router->door);
    return &router->counts;
}
