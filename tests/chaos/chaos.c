/* Kills a federation of real processes, again and again, and then looks whether anything that must
 * hold does not (verdict.h).
 *
 *   test_federation_chaos [--seed N] [--seeds N] [--sites N] [--kills N] [--seconds N] [--keep]
 *
 * Coordinator, sites and joins are killed with SIGKILL at random instants and at their K-th write,
 * sync, rename or frame (points.c), before it, after it, or in the middle of a write, and started
 * again. Some find their disk full instead, and clocks jump by hours. Then they are left alone and
 * must come to further rounds. --seeds runs so many seeds from --seed on: in odd ones a round
 * is opened with all sites alone, in even ones with most of them, too.
 *
 * To replay a failure: the same arguments with its seed, and --keep to keep the folder; what each
 * life was told is in its log there ("---- life 3: disk:17:torn"), and one process can be given
 * the same by hand: CHAOS_KILL=disk:17:torn dure_chaos client run place0. */
#include "fleet.h"
#include "verdict.h"

#include "common/clock.h"
#include "support/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 1000, CALM_MS = 120000, STOP_MS = 20000, PAUSE_MS = 600, LONG_PAUSE_MS = 4000 };

typedef struct wish {
    uint64_t seed, n_seeds, n_sites, n_kills, seconds;
    bool keep;
} wish;

static fleet f;

static bool say(const char *what)
{
    print_message("seed %llu: %s\n", (unsigned long long)f.seed, what);
    return false;
}

static uint64_t kills(void)
{
    return (uint64_t)f.n_at_points + f.n_at_instants;
}

/* Lets time pass, and starts again who has died at its point. */
static bool wait_ms(uint64_t ms)
{
    const uint64_t end_ms = dure_clock_monotonic_ms() + ms;
    do {
        if (!fleet_reap(&f)) return say(f.v.output);
        dure_clock_sleep_ms(5);
    } while (dure_clock_monotonic_ms() < end_ms);
    return true;
}

/* The plan's last rounds are left for the calm. */
static bool may_go_on(const wish *w, uint64_t end_ms)
{
    return kills() < w->n_kills && dure_clock_monotonic_ms() < end_ms &&
           village_count(&f.v, "round_done") + 50 < ROUNDS;
}

static bool rage(const wish *w)
{
    const uint64_t end_ms = dure_clock_monotonic_ms() + 1000 * w->seconds;
    /* Death comes faster than a round is done, or rounds are done between. */
    const uint64_t pause_ms = fleet_draw(&f, "pace", 0, 0, 2) ? PAUSE_MS : LONG_PAUSE_MS;
    for (uint64_t i = 0; may_go_on(w, end_ms); i++) {
        if (!wait_ms(20 + fleet_draw(&f, "pause", i, 0, pause_ms))) return false;
        const uint64_t who = fleet_draw(&f, "who", i, 0, 5);
        const uint32_t victim =
            who < 2 ? FLEET_COORDINATOR : (uint32_t)fleet_draw(&f, "site", i, 0, f.v.n);
        fleet_kill(&f, victim);
        if (fleet_draw(&f, "clock", i, 0, 4) == 0)
            fleet_set_clock(&f, victim, (int64_t)fleet_draw(&f, "wrong", i, 0, 86400) - 43200);
        fleet_start(&f, victim, fleet_draw(&f, "armed", i, 0, 5) > 0);
    }
    return true;
}

/* Nobody dies any more: two more rounds must be done. */
static bool calm(void)
{
    for (uint32_t i = 0; i <= VILLAGE_MAX; i++) {
        if (!f.processes[i].armed || f.processes[i].pid <= 0) continue;
        fleet_kill(&f, i);
        fleet_start(&f, i, false);
    }
    const size_t before = village_count(&f.v, "round_done");
    const uint64_t end_ms = dure_clock_monotonic_ms() + CALM_MS;
    while (village_count(&f.v, "round_done") < before + 2) {
        if (!wait_ms(50)) return false;
        if (dure_clock_monotonic_ms() > end_ms) return say("no round gets done any more");
    }
    return true;
}

static bool live(const wish *w)
{
    fleet_start(&f, FLEET_COORDINATOR, false);
    fleet_join(&f);
    for (uint32_t i = 0; i < f.v.n; i++)
        fleet_start(&f, i, false);
    if (!rage(w) || !calm()) return false;
    return fleet_stop(&f, STOP_MS) || say(f.v.output);
}

static bool run_seed(const wish *w, uint64_t seed)
{
    char why[256];
    verdict_rounds rounds = {0};
    const uint32_t n = (uint32_t)w->n_sites;
    if (seed % 2)
        fleet_make(&f, seed, n, ROUNDS);
    else
        fleet_make_long(&f, seed, n, ROUNDS);
    bool good = live(w);
    if (good && !verdict(&rounds, &f.v, why)) good = say(why);
    print_message(
        "seed %llu: %u kills at points, %u at instants, %u full disks, %u rounds done (%u without "
        "all), %u aborted: %s\n",
        (unsigned long long)seed, f.n_at_points, f.n_at_instants, f.n_full, rounds.closed,
        rounds.partial, rounds.aborted, good ? "holds" : "FAILS");
    fleet_end(&f, w->keep && !good);
    return good;
}

static wish read_wish(int argc, char **argv)
{
    wish w = {.seed = 1, .n_seeds = 1, .n_sites = 5, .n_kills = 100, .seconds = 600};
    for (int i = 1; i < argc; i++) {
        const struct {
            const char *name;
            uint64_t *to;
        } options[] = {{"--seed", &w.seed},
                       {"--seeds", &w.n_seeds},
                       {"--sites", &w.n_sites},
                       {"--kills", &w.n_kills},
                       {"--seconds", &w.seconds}};
        if (strcmp(argv[i], "--keep") == 0) w.keep = true;
        for (size_t k = 0; k < sizeof options / sizeof *options; k++)
            if (strcmp(argv[i], options[k].name) == 0 && i + 1 < argc)
                *options[k].to = strtoull(argv[++i], NULL, 10);
    }
    if (w.n_sites < 3 || w.n_sites > VILLAGE_MAX) w.n_sites = 5;
    return w;
}

int main(int argc, char **argv)
{
    const wish w = read_wish(argc, argv);
    bool good = true;
    for (uint64_t i = 0; i < w.n_seeds; i++)
        good = run_seed(&w, w.seed + i) && good;
    return good ? 0 : 1;
}
