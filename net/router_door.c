#include "net/router_door.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/thread.h"
#include "crypto/wipe.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <zmq.h>

#define MONITOR_ENDPOINT "inproc://dure.door"

/* The far end of a connection. IPv4 is kept as libzmq's dual-stack listener shows it, mapped. */
typedef struct far_end {
    uint8_t address[16];
    uint16_t port;
} far_end;

typedef struct visitor {
    int fd;
    far_end end;
    bool member;
    uint64_t number; /* in the order of coming */
} visitor;

struct dure_door {
    pthread_t thread;
    pthread_mutex_t lock;
    void *monitor;
    visitor *visitors;
    size_t n, capacity, n_waiting, most_waiting;
    uint64_t next_number;
    size_t n_closed;
};

static bool look(far_end *out, int fd)
{
    struct sockaddr_storage at = {0};
    socklen_t size = sizeof at;
    *out = (far_end){.port = 0};
    if (getpeername(fd, (struct sockaddr *)&at, &size)) return false;
    if (at.ss_family == AF_INET6) {
        struct sockaddr_in6 six;
        memcpy(&six, &at, sizeof six);
        memcpy(out->address, &six.sin6_addr, sizeof out->address);
        out->port = six.sin6_port;
    } else if (at.ss_family == AF_INET) {
        struct sockaddr_in four;
        memcpy(&four, &at, sizeof four);
        memset(out->address + 10, 0xff, 2);
        memcpy(out->address + 12, &four.sin_addr, 4);
        out->port = four.sin_port;
    }
    return true;
}

static visitor *find(dure_door *door, int fd)
{
    for (size_t i = 0; i < door->n; i++)
        if (door->visitors[i].fd == fd) return &door->visitors[i];
    return NULL;
}

static void forget(dure_door *door, visitor *v)
{
    if (!v->member) door->n_waiting--;
    *v = door->visitors[--door->n];
}

/* libzmq sees the end of the connection and closes the descriptor itself. */
static void put_out(dure_door *door, visitor *v)
{
    far_end now;
    if (look(&now, v->fd) && dure_ct_equal(&now, &v->end, sizeof now)) shutdown(v->fd, SHUT_RDWR);
    forget(door, v);
}

static size_t waiting_from(const dure_door *door, const uint8_t address[16])
{
    size_t n = 0;
    for (size_t i = 0; i < door->n; i++)
        if (!door->visitors[i].member && dure_ct_equal(door->visitors[i].end.address, address, 16))
            n++;
    return n;
}

/* Of those that wait, the oldest from the address that most of them come from. */
static visitor *one_too_many(const dure_door *door)
{
    visitor *chosen = NULL;
    size_t most = 0;
    for (size_t i = 0; i < door->n; i++) {
        visitor *v = &door->visitors[i];
        if (v->member) continue;
        /* The count is only taken for an address that is not the chosen one's. */
        const bool same = chosen && dure_ct_equal(chosen->end.address, v->end.address, 16);
        const size_t n = same ? most : waiting_from(door, v->end.address);
        if (n > most || (n == most && v->number < chosen->number)) chosen = v;
        if (n > most) most = n;
    }
    return chosen;
}

static void come(dure_door *door, int fd)
{
    visitor *old = find(door, fd);
    if (old) forget(door, old); /* its end was not told, and the number is in use again */
    visitor v = {.fd = fd, .number = door->next_number++};
    if (!look(&v.end, fd)) return; /* gone already */
    if (door->n_waiting == door->most_waiting || door->n == door->capacity) {
        visitor *out = one_too_many(door);
        if (out) {
            put_out(door, out);
            door->n_closed++;
        }
    }
    if (door->n == door->capacity) return;
    door->visitors[door->n++] = v;
    door->n_waiting++;
}

/* An event is a frame of u16 kind and u32 value in the machine's order, then the endpoint. False
 * when the context was shut down. */
static bool recv_event(uint16_t *event, uint32_t *value, void *socket)
{
    int more = 1;
    size_t size = sizeof more;
    *event = 0;
    for (int i = 0; more; i++) {
        zmq_msg_t frame;
        int n;
        zmq_msg_init(&frame);
        do
            n = zmq_msg_recv(&frame, socket, 0);
        while (n < 0 && errno == EINTR);
        if (n >= 0 && i == 0 && zmq_msg_size(&frame) == sizeof *event + sizeof *value) {
            const uint8_t *data = zmq_msg_data(&frame);
            memcpy(event, data, sizeof *event);
            memcpy(value, data + sizeof *event, sizeof *value);
        }
        zmq_msg_close(&frame);
        if (n < 0 || zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &size)) return false;
    }
    return true;
}

static void *watch(void *arg)
{
    dure_door *door = arg;
    uint16_t event;
    uint32_t value;
    size_t told = 0;
    uint64_t told_ms = 0;
    while (recv_event(&event, &value, door->monitor)) {
        pthread_mutex_lock(&door->lock);
        visitor *gone = event == ZMQ_EVENT_DISCONNECTED ? find(door, (int)value) : NULL;
        if (event == ZMQ_EVENT_ACCEPTED) come(door, (int)value);
        if (gone) forget(door, gone);
        const size_t n_closed = door->n_closed;
        pthread_mutex_unlock(&door->lock);
        const uint64_t now_ms = dure_clock_monotonic_ms();
        if (n_closed == told || (told && dure_elapsed_ms(now_ms, told_ms) < 60000)) continue;
        dure_log(DURE_LOG_WARN, "net", "too_many_connections", "closed=%zu most=%zu", n_closed,
                 door->most_waiting);
        told = n_closed;
        told_ms = now_ms;
    }
    zmq_close(door->monitor);
    return NULL;
}

dure_err dure_door_open(dure_door **out, void *context, void *socket, size_t most_waiting,
                        size_t most_members)
{
    *out = NULL;
    dure_door *door = calloc(1, sizeof *door);
    if (!door) return DURE_ERR_NOMEM;
    door->most_waiting = most_waiting;
    door->capacity = most_waiting + most_members;
    door->visitors = calloc(door->capacity, sizeof *door->visitors);
    pthread_mutex_init(&door->lock, NULL);
    int linger_ms = 0, no_limit = 0;
    door->monitor = zmq_socket(context, ZMQ_PAIR);
    /* The thread takes the socket over as a whole, which starting one makes safe. */
    if (door->visitors && door->monitor &&
        zmq_setsockopt(door->monitor, ZMQ_LINGER, &linger_ms, sizeof linger_ms) == 0 &&
        zmq_setsockopt(door->monitor, ZMQ_RCVHWM, &no_limit, sizeof no_limit) == 0 &&
        zmq_socket_monitor(socket, MONITOR_ENDPOINT, ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED) ==
            0 &&
        zmq_connect(door->monitor, MONITOR_ENDPOINT) == 0 &&
        dure_thread_start(&door->thread, watch, door) == DURE_OK) {
        *out = door;
        return DURE_OK;
    }
    if (door->monitor) zmq_close(door->monitor);
    pthread_mutex_destroy(&door->lock);
    free(door->visitors);
    free(door);
    return DURE_ERR_NET;
}

void dure_door_close(dure_door **handle)
{
    dure_door *door = *handle;
    if (!door) return;
    pthread_join(door->thread, NULL);
    pthread_mutex_destroy(&door->lock);
    free(door->visitors);
    free(door);
    *handle = NULL;
}

void dure_door_pass(dure_door *door, int fd, int before)
{
    pthread_mutex_lock(&door->lock);
    visitor *v = find(door, fd);
    if (v && !v->member) {
        v->member = true;
        door->n_waiting--;
    }
    visitor *old = before >= 0 && before != fd ? find(door, before) : NULL;
    if (old && old->member) put_out(door, old);
    pthread_mutex_unlock(&door->lock);
}

size_t dure_door_closed(dure_door *door)
{
    pthread_mutex_lock(&door->lock);
    const size_t n = door->n_closed;
    pthread_mutex_unlock(&door->lock);
    return n;
}
