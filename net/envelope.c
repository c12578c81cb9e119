#include "net/envelope.h"

#include "net/socket_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

/* What CURVE adds to a frame: the command's name, a nonce, a flag byte and the authenticator. */
#define CURVE_OVERHEAD_BYTES 64

/* libzmq ends the process when it gets no descriptor for itself. */
#define DESCRIPTORS_LEAST 64

#define QUEUE_MESSAGES_DEFAULT 64
#define HEARTBEAT_MS_DEFAULT 4000
/* Six times the way on a line of two seconds, and then some. */
#define HANDSHAKE_MS 20000
#define LINGER_MS_DEFAULT 1000

void dure_envelope_fini(dure_envelope *envelope)
{
    if (!envelope || !envelope->frames) return;
    zmq_msg_close(&envelope->frames->control);
    if (envelope->frames->has_payload) zmq_msg_close(&envelope->frames->payload);
    free(envelope->frames);
    *envelope = (dure_envelope){0};
}

dure_err dure_socket_set(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof value) ? DURE_ERR_NET : DURE_OK;
}

dure_err dure_socket_descriptors(dure_diag *diag)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur >= DESCRIPTORS_LEAST) return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_LIMIT,
                         "this process may open %llu files, which is too few; raise the limit with "
                         "'ulimit -n' to %d or more",
                         (unsigned long long)limit.rlim_cur, DESCRIPTORS_LEAST);
}

dure_err dure_socket_configure(void *socket, const dure_socket_opts *opts)
{
    int queue = opts->queue_messages ? (int)opts->queue_messages : QUEUE_MESSAGES_DEFAULT;
    int beat = opts->heartbeat_ms ? (int)opts->heartbeat_ms : HEARTBEAT_MS_DEFAULT;
    int64_t largest = (int64_t)opts->max_frame_bytes + CURVE_OVERHEAD_BYTES;
    if (zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &largest, sizeof largest)) return DURE_ERR_NET;
    const struct {
        int option, value;
    } table[] = {
        {ZMQ_SNDHWM, queue},
        {ZMQ_RCVHWM, queue},
        {ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS},
        {ZMQ_HEARTBEAT_IVL, beat},
        /* Any complete frame counts as a sign of life. Each end judges for itself: what comes to it
         * on a slow line takes its time. */
        {ZMQ_HEARTBEAT_TIMEOUT, opts->silence_ms ? (int)opts->silence_ms : 3 * beat},
        {ZMQ_LINGER, opts->linger_ms ? (int)opts->linger_ms : LINGER_MS_DEFAULT},
        {ZMQ_IPV6, 1},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (dure_socket_set(socket, table[i].option, table[i].value)) return DURE_ERR_NET;
    return DURE_OK;
}

/* One frame, or DURE_ERR_TIMEOUT when the socket has none. A close of the context counts as none.
 */
static dure_err frame_recv(zmq_msg_t *frame, void *socket)
{
    zmq_msg_init(frame);
    int n;
    do
        n = zmq_msg_recv(frame, socket, ZMQ_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n >= 0) return DURE_OK;
    dure_err err = errno == EAGAIN ? DURE_ERR_TIMEOUT : DURE_ERR_NET;
    zmq_msg_close(frame);
    return err;
}

/* Takes the rest of a message off the socket, so that the next one starts at its beginning. */
static void drain(void *socket)
{
    int more = 1;
    size_t size = sizeof more;
    while (zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &size) == 0 && more) {
        zmq_msg_t frame;
        if (frame_recv(&frame, socket)) return;
        zmq_msg_close(&frame);
    }
}

static dure_err recv_id(uint8_t *id, size_t id_size, size_t *id_n, void *socket)
{
    zmq_msg_t frame;
    dure_err err = frame_recv(&frame, socket);
    if (err) return err;
    *id_n = zmq_msg_size(&frame);
    bool fits = *id_n <= id_size && zmq_msg_more(&frame);
    if (fits) memcpy(id, zmq_msg_data(&frame), *id_n);
    zmq_msg_close(&frame);
    if (fits) return DURE_OK;
    drain(socket);
    return DURE_ERR_PROTO;
}

static dure_err recv_frames(struct dure_envelope_frames *frames, void *socket)
{
    dure_err err = frame_recv(&frames->control, socket);
    if (err) return err;
    bool more = zmq_msg_more(&frames->control);
    if (more) {
        err = frame_recv(&frames->payload, socket);
        if (!err) {
            frames->has_payload = true;
            more = zmq_msg_more(&frames->payload);
        }
    }
    if (!err &&
        (more || (frames->has_payload && zmq_msg_size(&frames->payload) > DURE_NET_CHUNK_BYTES)))
        err = DURE_ERR_PROTO;
    if (!err) return DURE_OK;
    drain(socket);
    zmq_msg_close(&frames->control);
    if (frames->has_payload) zmq_msg_close(&frames->payload);
    return err;
}

dure_err dure_socket_recv(dure_envelope *out, uint8_t *id, size_t id_size, size_t *id_n,
                          void *socket)
{
    *out = (dure_envelope){0};
    struct dure_envelope_frames *frames = calloc(1, sizeof *frames);
    if (!frames) return DURE_ERR_NOMEM;
    dure_err err = id ? recv_id(id, id_size, id_n, socket) : DURE_OK;
    if (!err) err = recv_frames(frames, socket);
    if (err) {
        free(frames);
        return err;
    }
    out->frames = frames;
    out->control = dure_span_of(zmq_msg_data(&frames->control), zmq_msg_size(&frames->control));
    if (frames->has_payload)
        out->payload = dure_span_of(zmq_msg_data(&frames->payload), zmq_msg_size(&frames->payload));
    return DURE_OK;
}

/* libzmq takes a pointer to writable bytes, but only ever reads them. */
static void *unconst(const uint8_t *data)
{
    union {
        const uint8_t *in;
        void *out;
    } u = {.in = data};
    return u.out;
}

static dure_err payload_frame(zmq_msg_t *frame, const dure_payload *payload)
{
    dure_span bytes = payload->bytes;
    if (payload->release) {
        void *data = unconst(bytes.data);
        if (zmq_msg_init_data(frame, data, bytes.n, payload->release, payload->state) == 0)
            return DURE_OK;
        payload->release(data, payload->state);
        return DURE_ERR_NOMEM;
    }
    if (zmq_msg_init_size(frame, bytes.n)) return DURE_ERR_NOMEM;
    if (bytes.n) memcpy(zmq_msg_data(frame), bytes.data, bytes.n);
    return DURE_OK;
}

static dure_err send_part(void *socket, dure_span bytes, int flags)
{
    while (zmq_send(socket, bytes.data, bytes.n, flags | ZMQ_DONTWAIT) < 0) {
        if (errno == EINTR) continue;
        if (errno == EHOSTUNREACH) return DURE_ERR_NOT_FOUND;
        return errno == EAGAIN ? DURE_ERR_BUSY : DURE_ERR_NET;
    }
    return DURE_OK;
}

void dure_payload_discard(const dure_payload *payload)
{
    if (payload && payload->release) payload->release(unconst(payload->bytes.data), payload->state);
}

dure_err dure_socket_send(void *socket, dure_span id, dure_span control,
                          const dure_payload *payload)
{
    zmq_msg_t frame;
    dure_err err = payload ? payload_frame(&frame, payload) : DURE_OK;
    if (err) return err;
    /* Room is decided by the first frame; libzmq then takes the others of the same message. */
    if (id.data) err = send_part(socket, id, ZMQ_SNDMORE);
    if (!err) err = send_part(socket, control, payload ? ZMQ_SNDMORE : 0);
    if (!payload) return err;
    if (!err && zmq_msg_send(&frame, socket, ZMQ_DONTWAIT) < 0) err = DURE_ERR_NET;
    if (err) zmq_msg_close(&frame);
    return err;
}

dure_err dure_socket_wait(void *socket, void *second, int wake_fd, int64_t wait_ms)
{
    zmq_pollitem_t items[3] = {
        {.fd = wake_fd, .events = ZMQ_POLLIN},
        {.socket = socket, .events = ZMQ_POLLIN},
        {.socket = second, .events = ZMQ_POLLIN},
    };
    int n = zmq_poll(items, second ? 3 : 2, wait_ms);
    if (n < 0) return errno == EINTR ? DURE_ERR_TIMEOUT : DURE_ERR_NET;
    if (items[0].revents) {
        uint64_t count;
        if (read(wake_fd, &count, sizeof count) < 0 && errno != EAGAIN) return DURE_ERR_IO;
        return DURE_ERR_CANCELLED;
    }
    return n == 0 ? DURE_ERR_TIMEOUT : DURE_OK;
}

dure_err dure_wake_open(int *fd)
{
    *fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return *fd < 0 ? DURE_ERR_IO : DURE_OK;
}

void dure_wake_write(int fd)
{
    int saved = errno; /* a signal handler must not change it */
    uint64_t one = 1;
    ssize_t n = write(fd, &one, sizeof one); /* full means woken already */
    (void)n;
    errno = saved;
}
