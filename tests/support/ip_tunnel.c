#include "support/ip_tunnel.h"

#include "common/clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PACKET_MAX = 1600, QUEUE_MS = 300, PACKETS_MAX = 4096, SOURCE_AT = 12, TARGET_AT = 16 };

typedef struct packet {
    uint64_t due_ms;
    size_t n;
    struct packet *next;
    uint8_t bytes[PACKET_MAX];
} packet;

typedef struct way {
    packet *first, *last;
    double free_ms; /* when the line can take the next byte */
} way;

typedef struct tunnel_line {
    ip_tunnel_shape shape; /* under the mutex */
    bool cut;
    way ways[2]; /* to 10.77.0.1, and from it */
    atomic_ullong carried, lost;
} tunnel_line;

struct ip_tunnel {
    pthread_t thread;
    pthread_mutex_t mutex;
    int fd;
    atomic_bool stop;
    size_t n_packets;
    uint64_t dice;
    atomic_uint port; /* of the listener */
    tunnel_line lines[IP_TUNNEL_LINES];
};

/* ---- the network ---- */

static bool put_text(const char *path, const char *text)
{
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    const bool good = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0) close(fd);
    return good;
}

/* Root of a name space of its own, where the user is not root. */
static bool leave_network(void)
{
    char map[64];
    const uid_t uid = getuid();
    const gid_t gid = getgid();
    if (unshare(CLONE_NEWNET) == 0) return true;
    if (unshare(CLONE_NEWUSER | CLONE_NEWNET)) return false;
    snprintf(map, sizeof map, "0 %u 1\n", (unsigned)uid);
    if (!put_text("/proc/self/setgroups", "deny") || !put_text("/proc/self/uid_map", map))
        return false;
    snprintf(map, sizeof map, "0 %u 1\n", (unsigned)gid);
    return put_text("/proc/self/gid_map", map);
}

static void set_address(struct ifreq *request, const char *text)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    inet_pton(AF_INET, text, &address.sin_addr);
    memcpy(&request->ifr_addr, &address, sizeof address);
}

static bool bring_up(const char *name, const char *address)
{
    struct ifreq request;
    memset(&request, 0, sizeof request);
    const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool good = fd >= 0;
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
    if (good && address) {
        set_address(&request, address);
        good = ioctl(fd, SIOCSIFADDR, &request) == 0;
        set_address(&request, "255.255.255.0");
        good = good && ioctl(fd, SIOCSIFNETMASK, &request) == 0;
    }
    good = good && ioctl(fd, SIOCGIFFLAGS, &request) == 0;
    request.ifr_flags = (short)(request.ifr_flags | IFF_UP);
    good = good && ioctl(fd, SIOCSIFFLAGS, &request) == 0;
    if (fd >= 0) close(fd);
    return good;
}

static int open_device(void)
{
    struct ifreq request;
    memset(&request, 0, sizeof request);
    const int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return -1;
    request.ifr_flags = IFF_TUN | IFF_NO_PI;
    snprintf(request.ifr_name, sizeof request.ifr_name, "tun0");
    if (ioctl(fd, TUNSETIFF, &request) == 0) return fd;
    close(fd);
    return -1;
}

/* ---- packets ---- */

static bool is_dropped(ip_tunnel *t, tunnel_line *l, way *w, size_t n, uint64_t now_ms)
{
    if (l->cut || t->n_packets >= PACKETS_MAX) return true;
    t->dice = t->dice * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    if ((t->dice >> 33) % 1000 < l->shape.loss_permille) return true;
    if (w->free_ms < (double)now_ms) w->free_ms = (double)now_ms;
    if (!l->shape.bytes_per_s) return false;
    if (w->free_ms > (double)(now_ms + QUEUE_MS)) return true;
    w->free_ms += 1000.0 * (double)n / l->shape.bytes_per_s;
    return false;
}

/* Source and target change places: the sums of the headers are the same. */
static void turn_round(uint8_t *bytes)
{
    uint8_t address[4];
    memcpy(address, bytes + SOURCE_AT, 4);
    memcpy(bytes + SOURCE_AT, bytes + TARGET_AT, 4);
    memcpy(bytes + TARGET_AT, address, 4);
}

/* Everything that is routed here is to a line's address: by a site that connects to it, or by the
 * listener that answers. The port tells the two apart. */
static void take(ip_tunnel *t, const uint8_t *bytes, size_t n, uint64_t now_ms)
{
    const unsigned header = 4u * (bytes[0] & 15u), last = bytes[TARGET_AT + 3];
    if (n < 40 || bytes[0] >> 4 != 4 || header + 4 > n || last < 2 || last >= 2 + IP_TUNNEL_LINES)
        return;
    tunnel_line *l = &t->lines[last - 2];
    const unsigned to = (unsigned)bytes[header + 2] << 8 | bytes[header + 3];
    way *w = &l->ways[to != atomic_load(&t->port)];
    if (is_dropped(t, l, w, n, now_ms)) {
        atomic_fetch_add(&l->lost, 1);
        return;
    }
    packet *p = malloc(sizeof *p);
    if (!p) abort();
    p->n = n;
    p->next = NULL;
    p->due_ms = (uint64_t)w->free_ms + l->shape.delay_ms;
    memcpy(p->bytes, bytes, n);
    turn_round(p->bytes);
    if (w->last)
        w->last->next = p;
    else
        w->first = p;
    w->last = p;
    t->n_packets++;
}

static void give(ip_tunnel *t, tunnel_line *l, unsigned to, uint64_t now_ms)
{
    packet *p;
    way *w = &l->ways[to];
    while ((p = w->first) && (l->cut || p->due_ms <= now_ms)) {
        if (!l->cut && write(t->fd, p->bytes, p->n) == (ssize_t)p->n && to == 0)
            atomic_fetch_add(&l->carried, p->n);
        w->first = p->next;
        if (!w->first) w->last = NULL;
        t->n_packets--;
        free(p);
    }
}

static void *run(void *arg)
{
    ip_tunnel *t = arg;
    uint8_t bytes[PACKET_MAX];
    while (!atomic_load(&t->stop)) {
        struct pollfd ready = {.fd = t->fd, .events = POLLIN};
        poll(&ready, 1, t->n_packets ? 1 : 5);
        const uint64_t now_ms = dure_clock_monotonic_ms();
        pthread_mutex_lock(&t->mutex);
        for (ssize_t n; (n = read(t->fd, bytes, sizeof bytes)) > 0;)
            take(t, bytes, (size_t)n, now_ms);
        for (unsigned i = 0; i < IP_TUNNEL_LINES; i++)
            for (unsigned to = 0; to < 2; to++)
                give(t, &t->lines[i], to, now_ms);
        pthread_mutex_unlock(&t->mutex);
    }
    return NULL;
}

/* ---- for the test ---- */

ip_tunnel *ip_tunnel_open(uint64_t seed)
{
    ip_tunnel *t = calloc(1, sizeof *t);
    if (!t) abort();
    t->fd = -1;
    t->dice = seed;
    if (leave_network() && bring_up("lo", NULL)) t->fd = open_device();
    if (t->fd < 0 || !bring_up("tun0", IP_TUNNEL_HERE)) {
        fprintf(stderr, "no network of the test's own here: %s\n", strerror(errno));
        if (t->fd >= 0) close(t->fd);
        free(t);
        return NULL;
    }
    pthread_mutex_init(&t->mutex, NULL);
    if (pthread_create(&t->thread, NULL, run, t)) abort();
    return t;
}

void ip_tunnel_close(ip_tunnel *t)
{
    atomic_store(&t->stop, true);
    pthread_join(t->thread, NULL);
    for (unsigned i = 0; i < IP_TUNNEL_LINES; i++)
        for (unsigned to = 0; to < 2; to++) {
            t->lines[i].cut = true;
            give(t, &t->lines[i], to, 0);
        }
    close(t->fd);
    pthread_mutex_destroy(&t->mutex);
    free(t);
}

void ip_tunnel_listener(ip_tunnel *t, uint16_t port)
{
    atomic_store(&t->port, port);
}

void ip_tunnel_set(ip_tunnel *t, uint32_t line, const ip_tunnel_shape *shape)
{
    pthread_mutex_lock(&t->mutex);
    t->lines[line].shape = *shape;
    pthread_mutex_unlock(&t->mutex);
}

void ip_tunnel_cut(ip_tunnel *t, uint32_t line, bool cut)
{
    pthread_mutex_lock(&t->mutex);
    t->lines[line].cut = cut;
    pthread_mutex_unlock(&t->mutex);
}

uint64_t ip_tunnel_carried(const ip_tunnel *t, uint32_t line)
{
    return atomic_load(&t->lines[line].carried);
}

uint64_t ip_tunnel_lost(const ip_tunnel *t, uint32_t line)
{
    return atomic_load(&t->lines[line].lost);
}
