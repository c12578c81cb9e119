/* Peers that want the coordinator's socket for themselves: ten thousand connections, one peer that
 * sends without end, bytes that were recorded and are sent again, a peer without any key. They run
 * as a process of their own, so that what they hold is not counted as the router's. */
#include "common/clock.h"
#include "net/dealer.h"
#include "net/router.h"
#include "support/check.h"
#include "support/tcp_proxy.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

enum {
    CONNECTIONS = 10000,
    IN_FLIGHT = 200,
    WAITING = 50,
    DESCRIPTORS = 2000,
    FLOOD_BYTES = 60000,
    FLOOD_MESSAGES = 3000, /* 180 MB */
    WAIT_MS = 20000,
};

typedef struct gate {
    dure_router *router;
    dure_curve_key server, sites[2], enemy;
    uint16_t port;
    pid_t attacker;
    int to_attacker, from_attacker;
    struct rlimit before;
} gate;

typedef void attack(const gate *g, int out);

static dure_admission admit(void *state, const uint8_t curve_public[DURE_CURVE_BYTES])
{
    const gate *g = state;
    for (int i = 0; i < 2; i++)
        if (!memcmp(g->sites[i].public_, curve_public, DURE_CURVE_BYTES)) return DURE_ADMIT_MEMBER;
    return DURE_ADMIT_GUEST;
}

/* The attacker is forked before there is any thread; it waits to be told the port. */
static void fork_attacker(gate *g, attack *what)
{
    int down[2], up[2];
    assert_int_equal(pipe(down), 0);
    assert_int_equal(pipe(up), 0);
    g->attacker = fork();
    assert_true(g->attacker >= 0);
    if (g->attacker == 0) {
        close(down[1]);
        close(up[0]);
        if (read(down[0], &g->port, sizeof g->port) == (ssize_t)sizeof g->port) what(g, up[1]);
        if (read(down[0], &g->port, 1) < 0) _exit(1); /* holds everything until it is let go */
        _exit(0);
    }
    close(down[0]);
    close(up[1]);
    g->to_attacker = down[1];
    g->from_attacker = up[0];
}

static void open_gate(gate *g, attack *what)
{
    *g = (gate){.to_attacker = -1, .from_attacker = -1};
    assert_ok(dure_curve_generate(&g->server));
    assert_ok(dure_curve_generate(&g->enemy));
    for (int i = 0; i < 2; i++)
        assert_ok(dure_curve_generate(&g->sites[i]));
    if (what) fork_attacker(g, what);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &g->before), 0);
    const struct rlimit few = {DESCRIPTORS, g->before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    const dure_router_opts opts = {.endpoint = "tcp://127.0.0.1:*",
                                   .key = &g->server,
                                   .admit = admit,
                                   .admit_state = g,
                                   .max_waiting = WAITING,
                                   .linger_ms = 1};
    assert_ok(dure_router_open(&g->router, &opts, NULL));
    g->port = (uint16_t)strtoul(strrchr(dure_router_endpoint(g->router), ':') + 1, NULL, 10);
}

static void begin_attack(const gate *g)
{
    assert_int_equal(write(g->to_attacker, &g->port, sizeof g->port), sizeof g->port);
}

static void close_gate(gate *g)
{
    int status = 0;
    if (g->to_attacker >= 0) close(g->to_attacker);
    if (g->attacker > 0) waitpid(g->attacker, &status, 0);
    if (g->from_attacker >= 0) close(g->from_attacker);
    dure_router_close(&g->router);
    setrlimit(RLIMIT_NOFILE, &g->before);
    assert_int_equal(status, 0);
}

static dure_dealer *connect_site(const gate *g, int site)
{
    char endpoint[64];
    snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%u", g->port);
    const dure_dealer_opts opts = {.endpoint = endpoint,
                                   .key = &g->sites[site],
                                   .server_public = g->server.public_,
                                   .reconnect_ms = 50,
                                   .reconnect_max_ms = 200,
                                   .linger_ms = 1};
    dure_dealer *dealer;
    assert_ok(dure_dealer_open(&dealer, &opts, NULL));
    return dealer;
}

static size_t count_descriptors(void)
{
    size_t n = 0;
    DIR *dir = opendir("/proc/self/fd");
    assert_non_null(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n - 2;
}

static size_t resident_kib(void)
{
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%*u %lu", &pages), 1);
    fclose(f);
    return (size_t)pages * (size_t)sysconf(_SC_PAGESIZE) / 1024;
}

/* The dealer's word arrives and is answered before the time is over. On a new connection it is said
 * again, as a site says HELLO: the last one may have been closed with the word on its way. */
static void assert_served(const gate *g, dure_dealer *dealer, const char *word)
{
    const uint64_t end_ms = dure_clock_monotonic_ms() + WAIT_MS;
    uint32_t said_on = 0; /* connection number */
    while (dure_clock_monotonic_ms() < end_ms) {
        dure_envelope e;
        const dure_dealer_status *s = dure_dealer_status_of(dealer);
        if (s->connected && s->connects != said_on &&
            dure_dealer_send(dealer, dure_span_of_text(word), NULL) == DURE_OK)
            said_on = s->connects;
        if (dure_dealer_recv(&e, dealer, 5) == DURE_OK) {
            const bool right =
                e.control.n == strlen(word) && !memcmp(e.control.data, word, e.control.n);
            dure_envelope_fini(&e);
            if (right) return;
        }
        if (dure_router_recv(&e, g->router, 5) == DURE_OK) {
            const dure_err err = dure_router_send(g->router, &e.peer.id, e.control, NULL);
            assert_true(!err || err == DURE_ERR_BUSY || err == DURE_ERR_NOT_FOUND);
            dure_envelope_fini(&e);
        }
    }
    fail_msg("\"%s\" was not answered", word);
}

/* ---- ten thousand connections ---- */

/* One more connection is begun; it is not waited for. */
static int begin_connection(uint16_t port)
{
    const struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0) _exit(2);
    if (connect(fd, (const struct sockaddr *)&at, sizeof at) && errno != EINPROGRESS) _exit(3);
    return fd;
}

/* Holds what it has, sends nothing, and never has more than IN_FLIGHT that are not accepted yet. */
static void connect_and_hold(const gate *g, int out)
{
    struct rlimit most;
    if (getrlimit(RLIMIT_NOFILE, &most)) _exit(2);
    most.rlim_cur = most.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &most)) _exit(2);
    struct pollfd *flying = calloc(IN_FLIGHT, sizeof *flying);
    int *held = calloc(CONNECTIONS, sizeof *held);
    const int room = most.rlim_cur > 2 * CONNECTIONS ? CONNECTIONS : (int)most.rlim_cur / 2;
    if (!flying || !held) _exit(2);
    for (int i = 0; i < IN_FLIGHT; i++)
        flying[i] = (struct pollfd){.fd = begin_connection(g->port), .events = POLLOUT};
    for (int begun = IN_FLIGHT, done = 0; done < CONNECTIONS;) {
        if (poll(flying, IN_FLIGHT, -1) < 0) _exit(2);
        for (int i = 0; i < IN_FLIGHT; i++) {
            if (!flying[i].revents) continue;
            held[done++] = flying[i].fd;
            if (done > room) close(held[done - 1 - room]); /* the system allows it no more */
            flying[i].fd = begun < CONNECTIONS ? begin_connection(g->port) : -1;
            begun += begun < CONNECTIONS;
            if (done == CONNECTIONS / 10 || done == CONNECTIONS)
                if (write(out, "x", 1) != 1) _exit(2);
        }
    }
    free(flying);
    free(held);
}

static bool is_told(int fd)
{
    char c;
    const int flags = fcntl(fd, F_GETFL);
    fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    const bool told = read(fd, &c, 1) == 1;
    fcntl(fd, F_SETFL, flags);
    return told;
}

static void test_flood_of_connections_takes_no_descriptors_and_no_member(void **state)
{
    (void)state;
    gate g;
    char word[32];
    open_gate(&g, connect_and_hold);
    dure_dealer *old = connect_site(&g, 0), *new_ = NULL;
    assert_served(&g, old, "before");
    const double began_s = dure_clock_monotonic_s();
    begin_attack(&g);
    size_t most = 0;
    int told = 0;
    const uint64_t end_ms = dure_clock_monotonic_ms() + 3 * WAIT_MS;
    for (int i = 0; told < 2 && dure_clock_monotonic_ms() < end_ms; i++) {
        told += is_told(g.from_attacker);
        if (told && !new_) new_ = connect_site(&g, 1); /* in the middle of it */
        snprintf(word, sizeof word, "during %d", i);
        assert_served(&g, old, word);
        const size_t n = count_descriptors();
        if (n > most) most = n;
    }
    const double seconds = dure_clock_monotonic_s() - began_s;
    assert_int_equal(told, 2);
    assert_int_equal(dure_dealer_status_of(old)->connects, 1);
    assert_served(&g, new_, "new");
    const uint64_t closed = dure_router_counts_of(g.router)->closed;
    print_message("%u connections in %.1f s: %llu closed, at most %zu descriptors open\n",
                  CONNECTIONS, seconds, (unsigned long long)closed, most);
    assert_true(most < DESCRIPTORS / 2);
    assert_true(closed >= CONNECTIONS / 2); /* others were over by themselves */
    dure_dealer_close(&old);
    dure_dealer_close(&new_);
    close_gate(&g);
}

/* A site that connects again is the site; the connection that it left is closed. */
static void test_flood_of_a_member_s_own_connections_leaves_it_one(void **state)
{
    (void)state;
    gate g;
    open_gate(&g, NULL);
    const size_t before = count_descriptors();
    size_t with_one = 0;
    dure_dealer *dealers[20];
    for (int i = 0; i < 20; i++) {
        dealers[i] = connect_site(&g, 0);
        assert_served(&g, dealers[i], "again");
        if (i == 0) with_one = count_descriptors() - before;
    }
    const uint64_t end_ms = dure_clock_monotonic_ms() + WAIT_MS;
    bool all_told = false;
    while (!all_told && dure_clock_monotonic_ms() < end_ms) {
        all_told = true;
        for (int i = 0; i < 19; i++) {
            dure_envelope e;
            if (dure_dealer_recv(&e, dealers[i], 1) == DURE_OK) dure_envelope_fini(&e);
            /* Closed once by the door; it has tried again since and says nothing. */
            const dure_dealer_status *s = dure_dealer_status_of(dealers[i]);
            all_told = all_told && (!s->connected || s->connects > 1);
        }
    }
    assert_true(all_told);
    assert_true(with_one > 0);
    for (int i = 0; i < 20; i++)
        dure_dealer_close(&dealers[i]);
    close_gate(&g);
}

/* ---- one peer that sends without end ---- */

static void *raw_dealer(void *context, const gate *g, const dure_curve_key *key)
{
    void *socket = zmq_socket(context, ZMQ_DEALER);
    int linger = 0, no_limit = 0;
    char endpoint[64];
    uint8_t id[48] = {1};
    dure_hash hash;
    snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%u", g->port);
    zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof linger);
    zmq_setsockopt(socket, ZMQ_SNDHWM, &no_limit, sizeof no_limit);
    /* Without a key it names itself after the key of zeros that a router without CURVE would see.
     */
    static const uint8_t none[DURE_CURVE_BYTES];
    if (dure_curve_id(&hash, key ? key->public_ : none)) return NULL;
    memcpy(id, hash.b, sizeof hash.b);
    zmq_setsockopt(socket, ZMQ_ROUTING_ID, id, sizeof id);
    if (key) {
        zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, g->server.public_, DURE_CURVE_BYTES);
        zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, key->public_, DURE_CURVE_BYTES);
        zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, key->secret, DURE_CURVE_BYTES);
    }
    return zmq_connect(socket, endpoint) ? NULL : socket;
}

static void send_without_end(const gate *g, int out)
{
    static uint8_t junk[FLOOD_BYTES];
    void *context = zmq_ctx_new(), *socket = raw_dealer(context, g, &g->enemy);
    for (int i = 0; socket && i < FLOOD_MESSAGES; i++)
        if (zmq_send(socket, junk, sizeof junk, 0) != sizeof junk) _exit(2);
    if (!socket || write(out, "x", 1) != 1) _exit(2);
}

/* The router's owner is busy for a while: what the flood sends stays with the one who sends it. */
static void test_flood_of_messages_waits_at_its_sender(void **state)
{
    (void)state;
    gate g;
    char c;
    open_gate(&g, send_without_end);
    dure_dealer *site = connect_site(&g, 0);
    assert_served(&g, site, "before");
    const size_t before = resident_kib();
    begin_attack(&g);
    assert_int_equal(read(g.from_attacker, &c, 1), 1);
    usleep(1500000);
    const size_t grown = resident_kib() - before;
    print_message("%u MB sent: the router grew by %zu KiB\n",
                  FLOOD_BYTES * FLOOD_MESSAGES / 1000000, grown);
    assert_true(grown < 32 * 1024);
    assert_ok(dure_dealer_send(site, dure_span_of_text("heard"), NULL));
    bool heard = false;
    usleep(200000);
    for (int i = 0; i < 5 && !heard; i++) { /* peers take turns, so it need not wait for all that */
        dure_envelope e;
        assert_ok(dure_router_recv(&e, g.router, WAIT_MS));
        heard = e.peer.admission == DURE_ADMIT_MEMBER;
        dure_envelope_fini(&e);
    }
    assert_true(heard);
    dure_dealer_close(&site);
    close_gate(&g);
}

/* ---- bytes of another, and no key at all ---- */

/* Forwards one connection and keeps what the client sent. */
static size_t record(uint8_t *kept, size_t size, dure_dealer *dealer, const gate *g, int listener)
{
    const int client = accept(listener, NULL, NULL), server = tcp_connect(g->port);
    const uint64_t end_ms = dure_clock_monotonic_ms() + WAIT_MS;
    size_t n = 0;
    bool heard = false, said = false;
    assert_true(client >= 0);
    fcntl(client, F_SETFL, fcntl(client, F_GETFL) | O_NONBLOCK);
    fcntl(server, F_SETFL, fcntl(server, F_GETFL) | O_NONBLOCK);
    while (!heard && dure_clock_monotonic_ms() < end_ms) {
        uint8_t back[4096];
        ssize_t got = read(client, kept + n, size - n);
        if (got > 0) assert_int_equal(write(server, kept + n, (size_t)got), got);
        if (got > 0) n += (size_t)got;
        got = read(server, back, sizeof back);
        if (got > 0) assert_int_equal(write(client, back, (size_t)got), got);
        dure_envelope e;
        if (dure_dealer_recv(&e, dealer, 1) == DURE_OK) dure_envelope_fini(&e);
        if (!said && dure_dealer_status_of(dealer)->connected)
            said = dure_dealer_send(dealer, dure_span_of_text("recorded"), NULL) == DURE_OK;
        if (dure_router_recv(&e, g->router, 1) == DURE_OK) {
            heard = true;
            dure_envelope_fini(&e);
        }
    }
    assert_true(heard);
    close(client);
    close(server);
    return n;
}

static void test_flood_of_recorded_bytes_is_not_heard(void **state)
{
    (void)state;
    static uint8_t kept[65536];
    gate g;
    dure_envelope e;
    open_gate(&g, NULL);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&at, size), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &size), 0);
    gate via = g;
    via.port = ntohs(at.sin_port);
    dure_dealer *site = connect_site(&via, 0);
    const size_t n = record(kept, sizeof kept, site, &g, listener);
    dure_dealer_close(&site);
    close(listener);
    assert_true(n > 200); /* greeting, handshake, message */
    const int again = tcp_connect(g.port);
    assert_int_equal(write(again, kept, n), n);
    assert_err(dure_router_recv(&e, g.router, 1000), DURE_ERR_TIMEOUT);
    close(again);
    close_gate(&g);
}

static void test_flood_of_a_peer_without_a_key_is_not_heard(void **state)
{
    (void)state;
    gate g;
    dure_envelope e;
    open_gate(&g, NULL);
    void *context = zmq_ctx_new(), *socket = raw_dealer(context, &g, NULL);
    assert_non_null(socket);
    assert_int_equal(zmq_send(socket, "open", 4, 0), 4);
    assert_err(dure_router_recv(&e, g.router, 1000), DURE_ERR_TIMEOUT);
    assert_int_equal(dure_router_counts_of(g.router)->unauthenticated, 0); /* nor read at all */
    zmq_close(socket);
    zmq_ctx_term(context);
    close_gate(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flood_of_connections_takes_no_descriptors_and_no_member),
        cmocka_unit_test(test_flood_of_a_member_s_own_connections_leaves_it_one),
        cmocka_unit_test(test_flood_of_messages_waits_at_its_sender),
        cmocka_unit_test(test_flood_of_recorded_bytes_is_not_heard),
        cmocka_unit_test(test_flood_of_a_peer_without_a_key_is_not_heard),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
