#include "support/tcp_proxy.h"

#include "common/clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_PAIRS = 16, PIECE = 4096, LINE_MS = 200, TURN_MS = 5 };

/* What is on its way in one direction of one pair: what was read, due at the other end later. */
typedef struct piece {
    uint64_t due_ms;
    size_t n, at;
    struct piece *next;
    char bytes[PIECE];
} piece;

typedef struct pair {
    int fd[2]; /* who connected, and the target; -1: closed */
    bool frozen;
    piece *first[2], *last[2]; /* by the end that they come from */
    bool ended[2];             /* that end closed: the other is closed when all has arrived */
} pair;

struct tcp_proxy {
    pthread_t thread;
    int listen_fd;
    uint16_t port, to_port;
    atomic_bool stop, freeze, move, held;
    atomic_uint bytes_per_s, delay_ms;
    atomic_ullong carried;
    double free_ms[2]; /* when the line can take the next byte, each way */
    pair pairs[MAX_PAIRS];
};

static void die(const char *what)
{
    perror(what);
    abort();
}

static struct sockaddr_in loopback(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

/* -1: nobody listens there. */
static int connect_to(uint16_t port)
{
    struct sockaddr_in to = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) die("socket");
    if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0) return fd;
    close(fd);
    return -1;
}

int tcp_connect(uint16_t port)
{
    int fd = connect_to(port);
    if (fd < 0) die("connect");
    return fd;
}

/* ---- pairs ---- */

static bool is_open(const pair *p)
{
    return p->fd[0] >= 0 || p->fd[1] >= 0;
}

static void close_end(pair *p, int side)
{
    if (p->fd[side] >= 0) close(p->fd[side]);
    p->fd[side] = -1;
    for (piece *w = p->first[side], *next; w; w = next) {
        next = w->next;
        free(w);
    }
    p->first[side] = p->last[side] = NULL;
}

static void close_pair(pair *p)
{
    close_end(p, 0);
    close_end(p, 1);
    *p = (pair){.fd = {-1, -1}};
}

/* The kernel would take megabytes at once, which no slow line does. */
static void keep_little(int fd)
{
    int bytes = 16384;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
}

static void add_pair(tcp_proxy *proxy)
{
    /* A copy in a program that the test starts would keep the connection open. */
    int fd = accept4(proxy->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) return;
    const int to = connect_to(proxy->to_port);
    pair *p = proxy->pairs;
    while (p < proxy->pairs + MAX_PAIRS && is_open(p))
        p++;
    if (to < 0 || p == proxy->pairs + MAX_PAIRS) {
        close(fd);
        if (to >= 0) close(to);
        return;
    }
    if (atomic_load(&proxy->bytes_per_s)) {
        keep_little(fd);
        keep_little(to);
    }
    *p = (pair){.fd = {fd, to}};
}

static void move_pair(pair *p)
{
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    if (p->fd[0] < 0 || p->frozen) return;
    setsockopt(p->fd[0], SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close_end(p, 0);
    p->frozen = true;
}

/* ---- carrying ---- */

/* When a piece that is read now will be there. */
static uint64_t due_of(tcp_proxy *proxy, int from, size_t n, uint64_t now_ms)
{
    const unsigned rate = atomic_load(&proxy->bytes_per_s);
    double *free_ms = &proxy->free_ms[from];
    if (*free_ms < (double)now_ms) *free_ms = (double)now_ms;
    if (rate) *free_ms += 1000.0 * (double)n / rate;
    return (uint64_t)*free_ms + atomic_load(&proxy->delay_ms);
}

static void take(tcp_proxy *proxy, pair *p, int from, uint64_t now_ms)
{
    piece *w = malloc(sizeof *w);
    if (!w) die("malloc");
    const ssize_t n = recv(p->fd[from], w->bytes, sizeof w->bytes, MSG_DONTWAIT);
    if (n <= 0) {
        p->ended[from] = n == 0 || (errno != EAGAIN && errno != EINTR);
        free(w);
        return;
    }
    w->n = (size_t)n;
    w->at = 0;
    w->next = NULL;
    w->due_ms = due_of(proxy, from, w->n, now_ms);
    if (p->last[from])
        p->last[from]->next = w;
    else
        p->first[from] = w;
    p->last[from] = w;
}

/* False when the far end is gone. */
static bool give(tcp_proxy *proxy, pair *p, int from, uint64_t now_ms)
{
    piece *w;
    while ((w = p->first[from]) && w->due_ms <= now_ms) {
        const ssize_t n =
            send(p->fd[1 - from], w->bytes + w->at, w->n - w->at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0) return errno == EAGAIN || errno == EINTR;
        if (from == 0) atomic_fetch_add(&proxy->carried, (unsigned long long)n);
        w->at += (size_t)n;
        if (w->at < w->n) return true;
        p->first[from] = w->next;
        if (!w->next) p->last[from] = NULL;
        free(w);
    }
    return true;
}

static void carry(tcp_proxy *proxy, pair *p, const struct pollfd *ready, uint64_t now_ms)
{
    for (int from = 0; from < 2; from++) {
        if (ready[from].revents) take(proxy, p, from, now_ms);
        if (!give(proxy, p, from, now_ms) || (p->ended[from] && !p->first[from])) {
            close_pair(p);
            return;
        }
    }
}

static bool takes_more(const tcp_proxy *proxy, const pair *p, int from, uint64_t now_ms)
{
    if (p->frozen || p->ended[from] || atomic_load(&proxy->held)) return false;
    return proxy->free_ms[from] < (double)now_ms + LINE_MS;
}

static void turn(tcp_proxy *proxy)
{
    struct pollfd fds[1 + 2 * MAX_PAIRS];
    const bool held = atomic_load(&proxy->held);
    uint64_t now_ms = dure_clock_monotonic_ms();
    bool full = false;
    fds[0] = (struct pollfd){.fd = held ? -1 : proxy->listen_fd, .events = POLLIN};
    for (int i = 0; i < MAX_PAIRS; i++)
        for (int side = 0; side < 2; side++) {
            const pair *p = &proxy->pairs[i];
            const bool takes = takes_more(proxy, p, side, now_ms);
            fds[1 + 2 * i + side] =
                (struct pollfd){.fd = takes ? p->fd[side] : -1, .events = POLLIN};
            full = full || p->first[side];
        }
    poll(fds, 1 + 2 * MAX_PAIRS, full ? 1 : TURN_MS);
    now_ms = dure_clock_monotonic_ms();
    if (fds[0].revents) add_pair(proxy);
    if (held) return;
    for (int i = 0; i < MAX_PAIRS; i++)
        if (is_open(&proxy->pairs[i]) && !proxy->pairs[i].frozen)
            carry(proxy, &proxy->pairs[i], &fds[1 + 2 * i], now_ms);
}

static void *run(void *arg)
{
    tcp_proxy *proxy = arg;
    while (!atomic_load(&proxy->stop)) {
        const bool freeze = atomic_exchange(&proxy->freeze, false);
        const bool move = atomic_exchange(&proxy->move, false);
        for (int i = 0; i < MAX_PAIRS; i++) {
            if (move) move_pair(&proxy->pairs[i]);
            if (freeze) proxy->pairs[i].frozen = true;
        }
        turn(proxy);
    }
    return NULL;
}

/* ---- for the test ---- */

tcp_proxy *tcp_proxy_start(uint16_t port)
{
    tcp_proxy *proxy = calloc(1, sizeof *proxy);
    if (!proxy) die("calloc");
    struct sockaddr_in at = loopback(0);
    socklen_t size = sizeof at;
    for (int i = 0; i < MAX_PAIRS; i++)
        proxy->pairs[i] = (pair){.fd = {-1, -1}};
    proxy->to_port = port;
    proxy->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (proxy->listen_fd < 0 || bind(proxy->listen_fd, (struct sockaddr *)&at, size) ||
        listen(proxy->listen_fd, MAX_PAIRS) ||
        getsockname(proxy->listen_fd, (struct sockaddr *)&at, &size))
        die("listen");
    proxy->port = ntohs(at.sin_port);
    if (pthread_create(&proxy->thread, NULL, run, proxy)) die("pthread_create");
    return proxy;
}

void tcp_proxy_stop(tcp_proxy *proxy)
{
    atomic_store(&proxy->stop, true);
    pthread_join(proxy->thread, NULL);
    for (int i = 0; i < MAX_PAIRS; i++)
        close_pair(&proxy->pairs[i]);
    close(proxy->listen_fd);
    free(proxy);
}

uint16_t tcp_proxy_port(const tcp_proxy *proxy)
{
    return proxy->port;
}

void tcp_proxy_shape(tcp_proxy *proxy, uint32_t bytes_per_s, uint32_t delay_ms)
{
    atomic_store(&proxy->bytes_per_s, bytes_per_s);
    atomic_store(&proxy->delay_ms, delay_ms);
}

void tcp_proxy_freeze(tcp_proxy *proxy)
{
    atomic_store(&proxy->freeze, true);
}

void tcp_proxy_hold(tcp_proxy *proxy, bool held)
{
    atomic_store(&proxy->held, held);
}

void tcp_proxy_move(tcp_proxy *proxy)
{
    atomic_store(&proxy->move, true);
}

uint64_t tcp_proxy_carried(const tcp_proxy *proxy)
{
    return atomic_load(&proxy->carried);
}
