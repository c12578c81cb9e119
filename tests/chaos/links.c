/* Sites behind bad lines: one coordinator and seven sites, real processes, each site with a line of
 * its own (support/tcp_proxy.h), good in the first round and bad in the second. A site whose line
 * moves anything is waited for and does not begin its upload again; the one whose line is dead is
 * not, and is back when its line is.
 *
 * Printed, not asserted: how long each upload took, against what its line could do. */
#include "fleet.h"
#include "verdict.h"

#include "support/check.h"
#include "support/tcp_proxy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SITES = 7,
    LEAST = 5,
    ROUNDS = 50,
    ROUND_MS = 200000,
    STOP_MS = 20000,
    GOOD_BYTES_PER_S = 50000000,
    SMALL_BYTES = 50000, /* what comes before an upload is less than this */
    OUTAGE_MS = 8000,    /* shorter than what ends a connection */
};

/* What is done to a line when its upload is in full flight. */
typedef enum trouble { NONE, SILENT_FOR_A_WHILE, MOVED, FORGOTTEN, DEAD } trouble;

typedef struct line {
    const char *name;
    uint32_t bytes_per_s, delay_ms;
    trouble trouble;
    tcp_proxy *proxy;
    bool bad;
    uint64_t base, begun_ms, struck_ms, ended_ms; /* of its upload; 0: not yet */
} line;

static fleet f;
static line lines[SITES] = {
    {.name = "good", .bytes_per_s = 2000000},
    {.name = "200 kbit/s", .bytes_per_s = 25000, .delay_ms = 50},
    {.name = "2 s away", .bytes_per_s = 200000, .delay_ms = 2000},
    {.name = "silent for 8 s", .bytes_per_s = 50000, .trouble = SILENT_FOR_A_WHILE},
    {.name = "address changed", .bytes_per_s = 50000, .trouble = MOVED},
    {.name = "half open", .bytes_per_s = 50000, .trouble = FORGOTTEN},
    {.name = "dead", .bytes_per_s = 50000, .trouble = DEAD},
};
static size_t vector_bytes;

static int teardown(void **state)
{
    (void)state;
    fleet_end(&f, getenv("LINKS_KEEP") != NULL);
    for (uint32_t i = 0; i < SITES; i++)
        if (lines[i].proxy) tcp_proxy_stop(lines[i].proxy);
    return 0;
}

/* The site's endpoint is its line's end from now on. */
static void put_line(uint32_t i)
{
    char path[64], command[600];
    line *l = &lines[i];
    l->proxy = tcp_proxy_start(f.v.port);
    tcp_proxy_shape(l->proxy, GOOD_BYTES_PER_S, 0);
    snprintf(path, sizeof path, "place%u/site.yaml", i);
    snprintf(command, sizeof command, "sed -i 's/127.0.0.1:%u/127.0.0.1:%u/' '%s'", f.v.port,
             tcp_proxy_port(l->proxy), temp_dir_file(&f.v.dir, path));
    assert_int_equal(system(command), 0);
}

static void strike(line *l)
{
    switch (l->trouble) {
    case SILENT_FOR_A_WHILE:
    case DEAD:
        tcp_proxy_hold(l->proxy, true);
        break;
    case MOVED:
        tcp_proxy_move(l->proxy);
        break;
    case FORGOTTEN:
        tcp_proxy_freeze(l->proxy);
        break;
    case NONE:
        break;
    }
}

/* Follows the upload over one line; trouble comes when the first chunk and a half are through. */
static void follow(line *l, uint64_t now_ms)
{
    if (!l->bad) return;
    const uint64_t carried = tcp_proxy_carried(l->proxy);
    if (!l->begun_ms && carried > l->base + SMALL_BYTES) l->begun_ms = now_ms;
    if (l->begun_ms && !l->struck_ms && carried > l->base + 300000) {
        strike(l);
        l->struck_ms = now_ms;
    }
    if (l->trouble == SILENT_FOR_A_WHILE && l->struck_ms && now_ms - l->struck_ms > OUTAGE_MS)
        tcp_proxy_hold(l->proxy, false);
    if (!l->ended_ms && carried > l->base + vector_bytes) l->ended_ms = now_ms;
}

static void follow_all(uint64_t now_ms)
{
    for (uint32_t i = 0; i < SITES; i++)
        follow(&lines[i], now_ms);
}

static void wait_for(const char *event, size_t n)
{
    fleet_wait_for(&f, event, n, ROUND_MS, follow_all);
}

static void print_times(void)
{
    for (uint32_t i = 0; i < SITES; i++) {
        const line *l = &lines[i];
        const double ideal_s = (double)(vector_bytes - SMALL_BYTES) / l->bytes_per_s;
        if (!l->ended_ms) {
            print_message("%-16s no upload\n", l->name);
            continue;
        }
        const double s = (double)(l->ended_ms - l->begun_ms) / 1000;
        print_message("%-16s %5.1f s, the line alone %5.1f s: %.2f times\n", l->name, s, ideal_s,
                      s / ideal_s);
    }
}

static void begin(void)
{
    fleet_make_large(&f, SITES, LEAST, ROUNDS);
    vector_bytes = 3 * (size_t)f.v.sites[0].invitation.terms.layout.n_active;
    assert_true(vector_bytes > 500000);
    fleet_start(&f, FLEET_COORDINATOR, false);
    fleet_join_unharmed(&f);
    for (uint32_t i = 0; i < SITES; i++) {
        put_line(i);
        fleet_start(&f, i, false);
    }
}

static void make_lines_bad(void)
{
    for (uint32_t i = 0; i < SITES; i++) {
        line *l = &lines[i];
        tcp_proxy_shape(l->proxy, l->bytes_per_s, l->delay_ms);
        l->base = tcp_proxy_carried(l->proxy);
        l->bad = true;
    }
}

static void make_lines_good(void)
{
    for (uint32_t i = 0; i < SITES; i++) {
        tcp_proxy_shape(lines[i].proxy, GOOD_BYTES_PER_S, 0);
        tcp_proxy_hold(lines[i].proxy, false);
        lines[i].bad = false;
    }
}

static void test_a_round_over_bad_lines(void **state)
{
    (void)state;
    char why[256];
    dure_event *bad = calloc(1, sizeof *bad), *later = calloc(1, sizeof *later);
    verdict_rounds rounds;
    assert_true(bad && later);
    begin();
    wait_for("round_open", 2);
    make_lines_bad();
    wait_for("round_done", 2);
    verdict_closed(bad, &f.v, 2);
    print_times();
    for (uint32_t i = 0; i < SITES; i++)
        if (verdict_is_summed(&bad->u.round, i) != (lines[i].trouble != DEAD))
            fleet_fail(&f, lines[i].name);
    for (uint32_t i = 0; i < SITES; i++)
        if (lines[i].trouble != DEAD) verdict_one_upload(&f.v, i, &bad->u.round.h_c);
    make_lines_good();
    for (unsigned n = 3; n < 20 && !verdict_is_summed(&later->u.round, SITES - 1); n++) {
        wait_for("round_done", n);
        verdict_closed(later, &f.v, n);
    }
    assert_true(verdict_is_summed(&later->u.round, SITES - 1));
    if (!fleet_stop(&f, STOP_MS)) fleet_fail(&f, f.v.output);
    if (!verdict(&rounds, &f.v, why)) fleet_fail(&f, why);
    free(bad);
    free(later);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_a_round_over_bad_lines, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
