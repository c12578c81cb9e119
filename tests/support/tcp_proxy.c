#include "support/tcp_proxy.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_PAIRS = 16 };

struct tcp_proxy {
    pthread_t thread;
    int listen_fd;
    uint16_t port, to_port;
    atomic_bool stop, freeze;
    struct {
        int fd[2];
        bool frozen;
    } pairs[MAX_PAIRS];
    int n_pairs;
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

int tcp_connect(uint16_t port)
{
    struct sockaddr_in to = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to)) die("connect");
    return fd;
}

static void add_pair(tcp_proxy *proxy)
{
    int fd = accept(proxy->listen_fd, NULL, NULL);
    if (fd < 0) return;
    if (proxy->n_pairs == MAX_PAIRS) {
        close(fd);
        return;
    }
    proxy->pairs[proxy->n_pairs].fd[0] = fd;
    proxy->pairs[proxy->n_pairs].fd[1] = tcp_connect(proxy->to_port);
    proxy->pairs[proxy->n_pairs++].frozen = false;
}

/* Moves what is there in one direction; an end closes both ways. */
static void forward(tcp_proxy *proxy, int pair, int from)
{
    char bytes[65536];
    int *fd = proxy->pairs[pair].fd;
    ssize_t n = recv(fd[from], bytes, sizeof bytes, 0);
    for (ssize_t at = 0; n > 0 && at < n;) {
        ssize_t sent = send(fd[1 - from], bytes + at, (size_t)(n - at), MSG_NOSIGNAL);
        if (sent <= 0) n = -1;
        at += sent;
    }
    if (n > 0) return;
    close(fd[0]);
    close(fd[1]);
    fd[0] = fd[1] = -1;
}

static void *run(void *arg)
{
    tcp_proxy *proxy = arg;
    while (!atomic_load(&proxy->stop)) {
        if (atomic_exchange(&proxy->freeze, false))
            for (int i = 0; i < proxy->n_pairs; i++)
                proxy->pairs[i].frozen = true;
        struct pollfd fds[1 + 2 * MAX_PAIRS];
        int n = proxy->n_pairs;
        fds[0] = (struct pollfd){.fd = proxy->listen_fd, .events = POLLIN};
        for (int i = 0; i < n; i++)
            for (int side = 0; side < 2; side++)
                fds[1 + 2 * i + side] = (struct pollfd){
                    .fd = proxy->pairs[i].frozen ? -1 : proxy->pairs[i].fd[side], .events = POLLIN};
        if (poll(fds, (nfds_t)(1 + 2 * n), 10) <= 0) continue;
        if (fds[0].revents) add_pair(proxy);
        for (int i = 0; i < n; i++)
            for (int side = 0; side < 2; side++)
                if (fds[1 + 2 * i + side].revents && proxy->pairs[i].fd[side] >= 0)
                    forward(proxy, i, side);
    }
    return NULL;
}

tcp_proxy *tcp_proxy_start(uint16_t port)
{
    tcp_proxy *proxy = calloc(1, sizeof *proxy);
    if (!proxy) die("calloc");
    struct sockaddr_in at = loopback(0);
    socklen_t size = sizeof at;
    proxy->to_port = port;
    proxy->listen_fd = socket(AF_INET, SOCK_STREAM, 0);
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
    for (int i = 0; i < proxy->n_pairs; i++)
        for (int side = 0; side < 2; side++)
            if (proxy->pairs[i].fd[side] >= 0) close(proxy->pairs[i].fd[side]);
    close(proxy->listen_fd);
    free(proxy);
}

uint16_t tcp_proxy_port(const tcp_proxy *proxy)
{
    return proxy->port;
}

void tcp_proxy_freeze(tcp_proxy *proxy)
{
    atomic_store(&proxy->freeze, true);
}
