/* A federation that runs for a long time while its sites are killed at random: what it holds must
 * stay as it is. Not among the tests; run it by hand:
 *
 *   test_federation_soak [--rounds N] [--sites N] [--seed N] [--seconds N]
 *
 * Prints a line for every 20 rounds, tab-separated: rounds done; resident memory in kB and open
 * descriptors of the coordinator and of a site that is never killed; bytes on disk of the
 * coordinator's folder, of which in the spool; bytes of that site's folder and ledger. At the end,
 * memory and descriptors must not have grown since a third of the way, the spool must hold one
 * round at most, and the disk must have grown by the same for each round: by the adapter, its sum
 * and what the logs keep. */
#include "fleet.h"
#include "verdict.h"

#include "common/clock.h"
#include "support/check.h"

#include <dirent.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EVERY = 20, SAMPLES_MAX = 1000, STOP_MS = 20000, STUCK_MS = 600000 };

typedef struct wish {
    uint64_t rounds, sites, seed, seconds;
} wish;

typedef struct sample {
    size_t rounds;
    long rss_kb[2], n_fds[2]; /* coordinator, site 0 */
    uint64_t disk, spool, place, ledger;
} sample;

static fleet f;
static sample samples[SAMPLES_MAX];
static size_t n_samples;

/* ---- measuring ---- */

static long resident_kb(pid_t pid)
{
    char path[64], line[256];
    long kb = -1;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *status = fopen(path, "r");
    while (status && fgets(line, sizeof line, status))
        if (sscanf(line, "VmRSS: %ld", &kb) == 1) break;
    if (status) (void)fclose(status);
    return kb;
}

static long count_descriptors(pid_t pid)
{
    char path[64];
    long n = -2; /* "." and ".." */
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *dir = opendir(path);
    while (dir && readdir(dir))
        n++;
    if (dir) closedir(dir);
    return n;
}

static uint64_t walked;

static int add_size(const char *path, const struct stat *about, int kind, struct FTW *where)
{
    (void)path;
    (void)where;
    if (kind == FTW_F) walked += (uint64_t)about->st_size;
    return 0;
}

static uint64_t bytes_of(const char *name)
{
    walked = 0;
    nftw(temp_dir_file(&f.v.dir, name), add_size, 16, FTW_PHYS);
    return walked;
}

static void take_sample(size_t rounds)
{
    if (n_samples == SAMPLES_MAX) return;
    sample *s = &samples[n_samples++];
    const pid_t pids[2] = {f.processes[FLEET_COORDINATOR].pid, f.processes[0].pid};
    s->rounds = rounds;
    for (int i = 0; i < 2; i++) {
        s->rss_kb[i] = resident_kb(pids[i]);
        s->n_fds[i] = count_descriptors(pids[i]);
    }
    s->disk = bytes_of("fed/coordinator");
    s->spool = bytes_of("fed/coordinator/spool");
    s->place = bytes_of("place0");
    s->ledger = bytes_of("ledger0");
    print_message("%zu\t%ld\t%ld\t%ld\t%ld\t%llu\t%llu\t%llu\t%llu\n", rounds, s->rss_kb[0],
                  s->n_fds[0], s->rss_kb[1], s->n_fds[1], (unsigned long long)s->disk,
                  (unsigned long long)s->spool, (unsigned long long)s->place,
                  (unsigned long long)s->ledger);
}

/* ---- running ---- */

/* Kills a site now and then, never the first one nor the coordinator. */
static bool soak(const wish *w)
{
    const uint64_t end_ms = dure_clock_monotonic_ms() + 1000 * w->seconds;
    uint64_t moved_ms = dure_clock_monotonic_ms(), kill_ms = moved_ms;
    size_t done = 0;
    for (uint64_t i = 0; done < w->rounds && dure_clock_monotonic_ms() < end_ms;) {
        const uint64_t now_ms = dure_clock_monotonic_ms();
        if (!fleet_reap(&f) || now_ms - moved_ms > STUCK_MS) return false;
        if (now_ms > kill_ms) {
            const uint32_t victim = 1 + (uint32_t)fleet_draw(&f, "site", i, 0, f.v.n - 1);
            fleet_kill(&f, victim);
            fleet_start(&f, victim, fleet_draw(&f, "armed", i, 0, 2) == 0);
            kill_ms = now_ms + 500 + fleet_draw(&f, "pause", i++, 0, 4000);
        }
        const size_t n = village_count(&f.v, "round_done");
        if (n / EVERY > done / EVERY) take_sample(n);
        if (n > done) moved_ms = now_ms;
        done = n;
        dure_clock_sleep_ms(100);
    }
    return true;
}

/* ---- judging ---- */

static bool is_flat(void)
{
    if (n_samples < 6) {
        print_message("too few rounds to judge\n");
        return false;
    }
    const sample *first = &samples[0], *third = &samples[n_samples / 3];
    const sample *last = &samples[n_samples - 1];
    bool flat = last->spool < 1 << 20;
    for (int i = 0; i < 2; i++) {
        flat = flat && last->rss_kb[i] < third->rss_kb[i] + third->rss_kb[i] / 10;
        flat = flat && last->n_fds[i] <= third->n_fds[i] + 12; /* connections that end */
    }
    const double early =
        (double)(third->disk - first->disk) / (double)(third->rounds - first->rounds);
    const double late = (double)(last->disk - third->disk) / (double)(last->rounds - third->rounds);
    print_message("%.0f bytes a round on the coordinator's disk early on, %.0f later\n", early,
                  late);
    return flat && late < 1.2 * early;
}

int main(int argc, char **argv)
{
    wish w = {.rounds = 1000, .sites = 10, .seed = 1, .seconds = 3600};
    char why[256];
    verdict_rounds rounds = {0};
    for (int i = 1; i + 1 < argc; i += 2) {
        const uint64_t value = strtoull(argv[i + 1], NULL, 10);
        if (strcmp(argv[i], "--rounds") == 0) w.rounds = value;
        if (strcmp(argv[i], "--sites") == 0) w.sites = value;
        if (strcmp(argv[i], "--seed") == 0) w.seed = value;
        if (strcmp(argv[i], "--seconds") == 0) w.seconds = value;
    }
    if (w.sites < 3 || w.sites > VILLAGE_MAX) w.sites = 10;
    fleet_make_long(&f, w.seed, (uint32_t)w.sites, (uint32_t)w.rounds + 50);
    fleet_start(&f, FLEET_COORDINATOR, false);
    fleet_join_unharmed(&f);
    for (uint32_t i = 0; i < f.v.n; i++)
        fleet_start(&f, i, false);
    bool good = soak(&w);
    if (!good) print_message("%s\n", f.v.output[0] ? f.v.output : "no round gets done any more");
    if (good) good = fleet_stop(&f, STOP_MS);
    if (good && !verdict(&rounds, &f.v, why)) {
        print_message("%s\n", why);
        good = false;
    }
    good = good && is_flat();
    print_message("%u rounds done, %u of them without all, %u aborted, %u kills: %s\n",
                  rounds.closed, rounds.partial, rounds.aborted, f.n_at_points + f.n_at_instants,
                  good ? "flat" : "NOT FLAT");
    fleet_end(&f, !good);
    return good ? 0 : 1;
}
