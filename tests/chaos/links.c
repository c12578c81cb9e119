/* Sites behind bad lines: one coordinator and seven sites, real processes, each site with a line of
 * its own (support/tcp_proxy.h), good in the first round and bad in the second. A site whose line
 * moves anything is waited for and does not begin its upload again; the one whose line is dead is
 * not, and is back when its line is.
 *
 * Printed, not asserted: how long each upload took, against what its line could do. */
#include "fleet.h"
#include "verdict.h"

#include "common/clock.h"
#include "common/file.h"
#include "ledger/leaf_log.h"
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

static void fail_with_logs(const char *what)
{
    char command[600];
    snprintf(command, sizeof command, "cd '%s' && tail -n 25 events.jsonl coordinator.log client*",
             f.v.dir.path);
    if (system(command)) print_message("no log\n");
    fail_msg("%s", what);
}

static void wait_for(const char *event, size_t n)
{
    const uint64_t end_ms = dure_clock_monotonic_ms() + ROUND_MS;
    while (village_count(&f.v, event) < n) {
        const uint64_t now_ms = dure_clock_monotonic_ms();
        if (!fleet_reap(&f)) fail_with_logs(f.v.output);
        if (now_ms > end_ms) fail_with_logs(event);
        for (uint32_t i = 0; i < SITES; i++)
            follow(&lines[i], now_ms);
        dure_clock_sleep_ms(10);
    }
}

/* The nth round that was closed. */
static void read_closed(dure_event *out, unsigned n)
{
    dure_leaf_log *log = NULL;
    assert_ok(dure_leaf_log_open(&log, temp_dir_file(&f.v.dir, "fed/coordinator/ledger"),
                                 DURE_LEAF_LOG_READ, NULL));
    for (uint64_t i = 0; n && i < dure_leaf_log_size(log); i++) {
        dure_buf leaf;
        assert_ok(dure_leaf_log_read(&leaf, log, i, NULL));
        assert_ok(dure_event_decode(out, dure_buf_span(&leaf), NULL));
        if (out->kind == DURE_EVENT_CLOSED) n--;
        dure_buf_fini(&leaf);
    }
    dure_leaf_log_close(&log);
    assert_int_equal(n, 0);
}

static bool is_summed(const dure_event_round *round, uint32_t site)
{
    char name[16];
    snprintf(name, sizeof name, "site%u", site);
    for (uint32_t m = 0; m < round->n_members; m++)
        if (strcmp(round->members[m].name, name) == 0)
            return round->members[m].part == DURE_PART_SUMMED;
    return false;
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

/* What the site sent of its vector in the round: nothing twice that had arrived. */
static void check_upload(uint32_t site, const dure_hash *config_hash)
{
    char name[16], why[256];
    verdict_site sent;
    snprintf(name, sizeof name, "log.%u", site);
    if (!verdict_site_read(&sent, temp_dir_file(&f.v.dir, name),
                           (size_t)f.v.sites[0].invitation.terms.layout.n_active, why))
        fail_msg("%s", why);
    const verdict_part *part = verdict_site_part(&sent, config_hash);
    assert_non_null(part);
    if (part->n_sent[0] != 1)
        fail_msg("%s: the first chunk was sent %u times", lines[site].name, part->n_sent[0]);
    verdict_site_fini(&sent);
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
    read_closed(bad, 2);
    print_times();
    for (uint32_t i = 0; i < SITES; i++)
        if (is_summed(&bad->u.round, i) != (lines[i].trouble != DEAD))
            fail_with_logs(lines[i].name);
    for (uint32_t i = 0; i < SITES; i++)
        if (lines[i].trouble != DEAD) check_upload(i, &bad->u.round.h_c);
    make_lines_good();
    for (unsigned n = 3; n < 20 && !is_summed(&later->u.round, SITES - 1); n++) {
        wait_for("round_done", n);
        read_closed(later, n);
    }
    assert_true(is_summed(&later->u.round, SITES - 1));
    if (!fleet_stop(&f, STOP_MS)) fail_with_logs(f.v.output);
    if (!verdict(&rounds, &f.v, why)) fail_with_logs(why);
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
