/* Sites behind lines that lose packets, and a tunnel that is gone for a while: real processes, and
 * the kernel's own TCP over support/ip_tunnel.h. Where no network of the test's own can be made the
 * tests are skipped and say so.
 *
 *   OUTAGE_S=600 test_federation_packets
 *
 * is a tunnel that drops for ten minutes; by default it is gone for longer than what ends a
 * connection and puts a site out of its round, and no more.
 *
 * Printed, not asserted: how long each upload took, against one plain TCP connection that carries
 * as many bytes over the same line, and how long after the outage a round was done. */
#include "fleet.h"
#include "verdict.h"

#include "common/clock.h"
#include "support/check.h"
#include "support/ip_tunnel.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    SITES = 5,
    LEAST = 4,
    ROUNDS = 2000,
    ROUND_MS = 200000,
    STOP_MS = 20000,
    SMALL_BYTES = 50000, /* what comes before an upload is less than this */
    OUTAGE_S = 45,
};

typedef struct line {
    const char *name;
    ip_tunnel_shape shape;
    uint64_t base, begun_ms, ended_ms; /* of its upload; 0: not yet */
    double plain_s;                    /* of one TCP connection */
} line;

static fleet f;
static ip_tunnel *tunnel;
static char listen_at[64];
static line lines[SITES] = {
    {.name = "no loss", .shape = {0, 25, 2000000}},
    {.name = "2 %", .shape = {20, 25, 2000000}},
    {.name = "2 %, 100 ms away", .shape = {20, 100, 2000000}},
    {.name = "2 %, 1 Mbit/s", .shape = {20, 25, 125000}},
    {.name = "5 %", .shape = {50, 25, 2000000}},
};
static size_t vector_bytes;
static bool are_bad;

static int setup(void **state)
{
    (void)state;
    if (!tunnel) tunnel = ip_tunnel_open(1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (tunnel) fleet_end(&f, getenv("LINKS_KEEP") != NULL);
    return 0;
}

static void set_lines(bool bad)
{
    static const ip_tunnel_shape good = {0};
    are_bad = bad;
    for (uint32_t i = 0; i < SITES; i++) {
        ip_tunnel_set(tunnel, i, bad ? &lines[i].shape : &good);
        lines[i].base = ip_tunnel_carried(tunnel, i);
    }
}

/* ---- one plain connection ---- */

static struct sockaddr_in address_of(const char *text, uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    assert_int_equal(inet_pton(AF_INET, text, &address.sin_addr), 1);
    return address;
}

/* Takes as many bytes as an upload has, and says so. */
static void *receive(void *arg)
{
    const int fd = (int)(intptr_t)arg;
    static _Thread_local char bytes[65536];
    size_t got = 0;
    ssize_t n = 1;
    while (got < vector_bytes && n > 0)
        got += (size_t)(n = recv(fd, bytes, sizeof bytes, 0));
    if (n > 0) n = send(fd, "x", 1, MSG_NOSIGNAL);
    close(fd);
    return NULL;
}

static void *deliver(void *arg)
{
    line *l = arg;
    static _Thread_local char bytes[65536];
    char to[32];
    snprintf(to, sizeof to, "10.77.0.%u", 2 + (unsigned)(l - lines));
    const struct sockaddr_in address = address_of(to, f.v.port);
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const uint64_t start_ms = dure_clock_monotonic_ms();
    bool good = fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof address) == 0;
    for (size_t sent = 0; good && sent < vector_bytes;) {
        const size_t left = vector_bytes - sent;
        const ssize_t n = send(fd, bytes, left < sizeof bytes ? left : sizeof bytes, MSG_NOSIGNAL);
        good = n > 0;
        if (good) sent += (size_t)n;
    }
    if (good && recv(fd, bytes, 1, 0) == 1)
        l->plain_s = (double)(dure_clock_monotonic_ms() - start_ms) / 1000;
    if (fd >= 0) close(fd);
    return NULL;
}

static void measure_plain(void)
{
    pthread_t senders[SITES], receivers[SITES];
    const struct sockaddr_in here = address_of(IP_TUNNEL_HERE, f.v.port);
    const int yes = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    assert_int_equal(bind(fd, (const struct sockaddr *)&here, sizeof here), 0);
    assert_int_equal(listen(fd, SITES), 0);
    for (uint32_t i = 0; i < SITES; i++)
        assert_int_equal(pthread_create(&senders[i], NULL, deliver, &lines[i]), 0);
    for (uint32_t i = 0; i < SITES; i++) {
        const int from = accept(fd, NULL, NULL);
        assert_true(from >= 0);
        assert_int_equal(pthread_create(&receivers[i], NULL, receive, (void *)(intptr_t)from), 0);
    }
    for (uint32_t i = 0; i < SITES; i++) {
        pthread_join(senders[i], NULL);
        pthread_join(receivers[i], NULL);
    }
    close(fd);
}

/* ---- the federation ---- */

static void follow(uint64_t now_ms)
{
    for (uint32_t i = 0; are_bad && i < SITES; i++) {
        line *l = &lines[i];
        const uint64_t carried = ip_tunnel_carried(tunnel, i);
        if (!l->begun_ms && carried > l->base + SMALL_BYTES) l->begun_ms = now_ms;
        if (!l->ended_ms && carried > l->base + vector_bytes) l->ended_ms = now_ms;
    }
}

static void wait_for(const char *event, size_t n)
{
    fleet_wait_for(&f, event, n, ROUND_MS, follow);
}

/* The coordinator is at the tunnel's near end, each site's endpoint is its line's far end. */
static void begin(void)
{
    fleet_make_large(&f, SITES, LEAST, ROUNDS);
    vector_bytes = 3 * (size_t)f.v.sites[0].invitation.terms.layout.n_active;
    snprintf(listen_at, sizeof listen_at, "tcp://*:%u", f.v.port);
    f.listen = listen_at;
    ip_tunnel_listener(tunnel, f.v.port);
}

static void start(void)
{
    fleet_start(&f, FLEET_COORDINATOR, false);
    fleet_join_unharmed(&f);
    for (uint32_t i = 0; i < SITES; i++) {
        char path[64], command[600];
        snprintf(path, sizeof path, "place%u/site.yaml", i);
        snprintf(command, sizeof command, "sed -i 's/127.0.0.1:%u/10.77.0.%u:%u/' '%s'", f.v.port,
                 2 + i, f.v.port, temp_dir_file(&f.v.dir, path));
        assert_int_equal(system(command), 0);
        fleet_start(&f, i, false);
    }
}

static void end(void)
{
    char why[256];
    verdict_rounds rounds;
    if (!fleet_stop(&f, STOP_MS)) fleet_fail(&f, f.v.output);
    if (!verdict(&rounds, &f.v, why)) fleet_fail(&f, why);
}

static void skip_without_tunnel(void)
{
    if (tunnel) return;
    print_message("skipped: no network of the test's own can be made here\n");
    skip();
}

static void print_times(void)
{
    for (uint32_t i = 0; i < SITES; i++) {
        const line *l = &lines[i];
        const double s = l->ended_ms ? (double)(l->ended_ms - l->begun_ms) / 1000 : 0;
        print_message("%-18s %5.1f s, one plain TCP connection %5.1f s: %.2f times\n", l->name, s,
                      l->plain_s, s / l->plain_s);
    }
}

static void test_a_round_over_lines_that_lose_packets(void **state)
{
    (void)state;
    dure_event *event = calloc(1, sizeof *event);
    assert_non_null(event);
    skip_without_tunnel();
    begin();
    set_lines(true);
    measure_plain();
    set_lines(false);
    start();
    wait_for("round_open", 2);
    set_lines(true);
    wait_for("round_done", 2);
    verdict_closed(event, &f.v, 2);
    print_times();
    for (uint32_t i = 0; i < SITES; i++) {
        if (!verdict_is_summed(&event->u.round, i)) fleet_fail(&f, lines[i].name);
        verdict_one_upload(&f.v, i, &event->u.round.h_c);
        assert_true(lines[i].shape.loss_permille == 0 || ip_tunnel_lost(tunnel, i) > 0);
    }
    set_lines(false);
    end();
    free(event);
}

static void cut(uint32_t from, bool is_cut)
{
    for (uint32_t i = from; i < SITES; i++)
        ip_tunnel_cut(tunnel, i, is_cut);
}

static void sleep_until(uint64_t end_ms)
{
    while (dure_clock_monotonic_ms() < end_ms) {
        if (!fleet_reap(&f)) fleet_fail(&f, f.v.output);
        dure_clock_sleep_ms(20);
    }
}

/* How long from `since_ms` until a round is done, and until one is with all sites. */
static void print_recovery(const char *what, uint64_t outage_s, uint64_t since_ms)
{
    dure_event *event = calloc(1, sizeof *event);
    assert_non_null(event);
    unsigned n = (unsigned)village_count(&f.v, "round_done") + 1;
    wait_for("round_done", n);
    const uint64_t first_ms = dure_clock_monotonic_ms();
    for (;; n++) {
        bool all = true;
        wait_for("round_done", n);
        verdict_closed(event, &f.v, n);
        for (uint32_t i = 0; i < SITES; i++)
            all = all && verdict_is_summed(&event->u.round, i);
        if (all) break;
    }
    print_message("%s gone for %llu s: a round was done %.1f s after, one with all sites %.1f s\n",
                  what, (unsigned long long)outage_s, (double)(first_ms - since_ms) / 1000,
                  (double)(dure_clock_monotonic_ms() - since_ms) / 1000);
    free(event);
}

static void test_a_tunnel_that_is_gone_for_a_while(void **state)
{
    (void)state;
    const char *asked = getenv("OUTAGE_S");
    const uint64_t outage_s = asked ? strtoull(asked, NULL, 10) : OUTAGE_S;
    skip_without_tunnel();
    begin();
    set_lines(false);
    start();
    wait_for("round_done", 1);

    /* One site's: the others go on. */
    cut(SITES - 1, true);
    uint64_t since_ms = dure_clock_monotonic_ms();
    const size_t done = village_count(&f.v, "round_done");
    sleep_until(since_ms + 1000 * outage_s);
    assert_true(village_count(&f.v, "round_done") > done + 1);
    cut(SITES - 1, false);
    print_recovery("one site's tunnel", outage_s, since_ms + 1000 * outage_s);

    /* The coordinator's: nothing goes on, and nothing ends. */
    cut(0, true);
    since_ms = dure_clock_monotonic_ms();
    sleep_until(since_ms + 1000 * outage_s);
    cut(0, false);
    print_recovery("all tunnels", outage_s, since_ms + 1000 * outage_s);
    for (uint32_t i = 0; i < SITES; i++)
        assert_int_equal(f.processes[i].life, 2); /* joined, and started once */
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_round_over_lines_that_lose_packets, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_tunnel_that_is_gone_for_a_while, setup, teardown),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (tunnel) ip_tunnel_close(tunnel);
    return failed;
}
