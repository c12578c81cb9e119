/* A whole round of the secure sum, training left out: a real `dure coordinator run` process, n
 * sites with sockets and keys of their own as threads of this program, and in the same run the
 * plain CURVE transfer of the same bytes. Prints TSV, one figure a line.
 *
 *   bench_round SITES [DROPPED [ELEMENTS]]
 *
 * DROPPED sites vanish after the shares, before their vectors. The vector has ELEMENTS entries,
 * 4,884,480 without it, or a few fewer: an adapter's shape decides.
 *
 * The phases are held apart: every site waits until all have masked before it uploads. So what a
 * site computes on a machine of its own, here done by all sites on the same cores, is told from
 * what the federation shares, the wire and the coordinator:
 *
 *   *_here_s    wall time of the phase with all of it on these cores
 *   *_site_s    processor time of the slowest site's thread in it
 *   *_shared_s  what is left without the sites' computing: the wall time less their processor time
 *               by the number of cores, or the coordinator's processor time if that is longer
 *   upload_s    wall time from the first byte of a vector to the signed survivors: everything, both
 *               ends' encryption, the coordinator's hashing, spooling and syncing
 *   round_s     the sum of the parts, each site on a machine of its own; round_here_s on these
 * cores
 *
 * The training's part is only that numbers are drawn, which masking_site_s has in it. */
#include "bench/aes_rate.h"
#include "bench/curve_transfer.h"

#include "common/clock.h"
#include "common/file.h"
#include "integration/federation/script_site.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    SITES_MAX = 100,
    RANK = 64,
    N_EMBD = 128,
    ELEMENTS = 4884480,
    ELEMENTS_LEAST = 100000,
    ELEMENTS_MAX = 1 << 24,
    WAIT_S = 80,
};

/* How far a site is. */
typedef enum progress {
    STARTED,
    OPENED,
    SHARED,
    MASKED,
    SURVIVED,
    RESULT
} progress; /* of a round */

typedef struct bench_site {
    script_site script;
    pthread_t thread;
    atomic_int progress; /* RESULT for each result, and in the present round */
    atomic_llong cpu_ns; /* of its thread, as it was before `progress` changed */
    bool dies;           /* in the round that is measured */
} bench_site;

static bench_site sites[SITES_MAX];
static atomic_bool may_mask, may_upload, may_die, over;
static atomic_uint n_done; /* rounds before the one in hand */
static temp_dir dir;

static void die(const char *what)
{
    fprintf(stderr, "bench_round: %s; its files are in %s\n", what, dir.path);
    exit(1);
}

/* ---- the federation's folders ---- */

static void run(const char *format, ...)
{
    char arguments[1024], command[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(arguments, sizeof arguments, format, args);
    va_end(args);
    snprintf(command, sizeof command, "cd '%s' && '%s' %s >words.log 2>&1", dir.path, DURE_BINARY,
             arguments);
    if (system(command)) die(arguments);
}

/* Whose adapter has not more parameters of factor B than that, and as many as it can. */
static uint32_t n_ff_for(uint32_t n_elements)
{
    enum { LAYERS = 2, OTHERS = 4 * N_EMBD };               /* outputs of q, k, v, o and down */
    return (n_elements / (LAYERS * RANK) - OTHERS) / 4 * 2; /* even */
}

static void make_federation(uint32_t n, uint32_t n_elements)
{
    static const char record[] = "{\"prompt\":\"one\",\"response\":\"two\"}\n";
    tiny_model_write(
        temp_dir_file(&dir, "base.gguf"),
        &(tiny_model_opts){
            .seed = 1, .n_embd = N_EMBD, .n_ff = n_ff_for(n_elements), .type = TINY_F16});
    if (dure_file_write_atomic(temp_dir_file(&dir, "eval.jsonl"), dure_span_of_text(record), 0644,
                               NULL))
        die("the evaluation file");
    const uint32_t collusion = n / 5 > 1 ? n / 5 : 1;
    run("init fed --model base.gguf --eval eval.jsonl --endpoint tcp://127.0.0.1:%u --rounds 2 "
        "--targets all --rank %d --min-sites %u --collusion %u",
        20000 + (unsigned)getpid() % 20000, RANK, n, collusion);
    for (uint32_t i = 0; i < n; i++) {
        char name[32], folder[300];
        run("invite fed/admin site%u -o site%u.invitation", i, i);
        snprintf(name, sizeof name, "site%u.invitation", i);
        snprintf(folder, sizeof folder, "%s/site%u", dir.path, i);
        script_site_make(&sites[i].script, temp_dir_file(&dir, name), folder);
        sites[i].script.seed = 100 + i;
        sites[i].script.collusion = collusion;
    }
}

/* A site that masks does not beat, and here all mask on the same cores. */
static pid_t start_coordinator(const char *silence_s)
{
    const pid_t pid = fork();
    if (pid < 0) die("fork");
    if (pid > 0) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (chdir(dir.path)) _exit(127);
    const int out = open("events.jsonl", O_WRONLY | O_CREAT, 0644);
    const int err = open("coordinator.log", O_WRONLY | O_CREAT, 0644);
    if (out < 0 || err < 0) _exit(127);
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    execl(DURE_BINARY, "dure", "coordinator", "run", "fed", "--json", "--no-gate", "--silence",
          silence_s, (char *)NULL);
    _exit(127);
}

/* A number of the last event of that name, and how many of them there are. */
static double event_number(uint32_t *n, const char *name, const char *key)
{
    dure_buf text;
    double number = 0;
    *n = 0;
    if (dure_file_read(&text, temp_dir_file(&dir, "events.jsonl"), 1 << 24, NULL)) return 0;
    const char *line = (const char *)text.data, *end = line + text.n, *stop;
    for (; line < end && (stop = memchr(line, '\n', (size_t)(end - line))); line = stop + 1) {
        json_t *event = json_loadb(line, (size_t)(stop - line), 0, NULL);
        const char *there = json_string_value(json_object_get(event, "event"));
        if (there && strcmp(there, name) == 0) {
            number = json_number_value(json_object_get(event, key));
            ++*n;
        }
        json_decref(event);
    }
    dure_buf_fini(&text);
    return number;
}

static uint32_t event_count(const char *name)
{
    uint32_t n;
    (void)event_number(&n, name, "");
    return n;
}

/* From now on the peak is of what follows. */
static void forget_peak(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/clear_refs", (int)pid);
    FILE *file = fopen(path, "w");
    if (!file || fputs("5", file) < 0 || fclose(file)) die("the peak of memory cannot be reset");
}

/* The most memory the process has held, in MB of a million bytes; the kernel counts in KiB. */
static double peak_mb(pid_t pid)
{
    char path[64], line[256];
    double kib = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *status = fopen(path, "r");
    while (status && fgets(line, sizeof line, status))
        if (strncmp(line, "VmHWM:", 6) == 0) kib = atof(line + 6);
    if (status) (void)fclose(status);
    return kib * 1024 / 1e6;
}

/* ---- sites ---- */

/* In the round that follows its last result. */
static progress progress_of(const script_site *s)
{
    if (!s->client) return STARTED;
    switch (dure_secagg_client_stage(s->client)) {
    case DURE_STAGE_ADVERTISED:
    case DURE_STAGE_SHARED:
        return OPENED;
    case DURE_STAGE_TRAINING:
        return SHARED;
    case DURE_STAGE_UPLOADING:
    case DURE_STAGE_MASKED:
        return MASKED;
    case DURE_STAGE_CONSISTENT:
    case DURE_STAGE_UNMASKED:
        return SURVIVED;
    default:
        return STARTED;
    }
}

static int64_t clock_ns(clockid_t clock)
{
    struct timespec t;
    if (clock_gettime(clock, &t)) return 0;
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void *run_site(void *state)
{
    bench_site *site = state;
    script_site *s = &site->script;
    s->hold = s->hold_upload = true;
    script_site_connect(s, true);
    while (!over && s->dealer) {
        if (site->dies && may_die) s->vice = SCRIPT_DIES_TRAINING;
        s->hold = !may_mask;
        s->hold_upload = !may_upload;
        script_site_turn(s, 50);
        site->cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
        site->progress = RESULT * (int)s->n_results + (int)progress_of(s);
    }
    return NULL;
}

static void wake_all(uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (!sites[i].dies || !may_die) dure_dealer_wake(sites[i].script.dealer);
}

/* Until `n` sites are there. */
static void wait_for(uint32_t n_sites, uint32_t n, progress wanted)
{
    const double end_s = dure_clock_monotonic_s() + WAIT_S;
    for (;;) {
        uint32_t there = 0;
        for (uint32_t i = 0; i < n_sites; i++)
            there += sites[i].progress >= (int)(RESULT * n_done + wanted);
        if (there >= n) return;
        if (dure_clock_monotonic_s() > end_s) die("the round does not get on");
        dure_clock_sleep_ms(1);
    }
}

/* ---- a round ---- */

/* Where the clocks stand, and what a phase took of them. */
typedef struct clocks {
    double wall_s, coordinator_s, sites_s[SITES_MAX];
} clocks;

typedef struct phase {
    double here_s, site_s, shared_s;
} phase;

typedef struct figures {
    phase keys, masks, upload, closing;
    double sum_s, result_s, wire_s;
    double upload_peak_mb, sum_peak_mb, result_peak_mb, sent_bytes, vector_bytes;
} figures;

static clocks read_clocks(pid_t coordinator)
{
    clockid_t clock;
    clocks c = {.wall_s = dure_clock_monotonic_s()};
    if (clock_getcpuclockid(coordinator, &clock)) die("the coordinator's clock cannot be read");
    c.coordinator_s = 1e-9 * (double)clock_ns(clock);
    for (size_t i = 0; i < SITES_MAX; i++)
        c.sites_s[i] = 1e-9 * (double)sites[i].cpu_ns;
    return c;
}

static clocks end_phase(phase *p, const clocks *start, pid_t coordinator)
{
    const clocks end = read_clocks(coordinator);
    double all_s = 0;
    *p = (phase){.here_s = end.wall_s - start->wall_s};
    for (size_t i = 0; i < SITES_MAX; i++) {
        const double site_s = end.sites_s[i] - start->sites_s[i];
        all_s += site_s;
        if (site_s > p->site_s) p->site_s = site_s;
    }
    const double coordinator_s = end.coordinator_s - start->coordinator_s;
    p->shared_s = p->here_s - all_s / (double)sysconf(_SC_NPROCESSORS_ONLN);
    if (p->shared_s < coordinator_s) p->shared_s = coordinator_s;
    return end;
}

static void wait_for_sum(void)
{
    const double end_s = dure_clock_monotonic_s() + WAIT_S;
    while (event_count("round_summed") <= n_done) {
        if (dure_clock_monotonic_s() > end_s) die("there is no sum");
        dure_clock_sleep_ms(5);
    }
}

static void run_round(figures *f, uint32_t n, uint32_t n_dropped, pid_t coordinator)
{
    const uint32_t n_left = n - n_dropped;
    wait_for(n, 1, OPENED);
    forget_peak(coordinator);
    clocks clock = read_clocks(coordinator);
    wait_for(n, n, SHARED);
    clock = end_phase(&f->keys, &clock, coordinator);
    may_mask = true;
    wake_all(n);
    wait_for(n, n_left, MASKED);
    clock = end_phase(&f->masks, &clock, coordinator);
    may_upload = true;
    wake_all(n);
    wait_for(n, 1, SURVIVED);
    may_mask = may_upload = false; /* of the next round */
    clock = end_phase(&f->upload, &clock, coordinator);
    f->upload_peak_mb = peak_mb(coordinator);
    forget_peak(coordinator);
    wait_for_sum();
    clock = end_phase(&f->closing, &clock, coordinator);
    f->sum_peak_mb = peak_mb(coordinator);
    forget_peak(coordinator);
    wait_for(n, n_left, RESULT);
    f->result_s = dure_clock_monotonic_s() - clock.wall_s;
    uint32_t n_sums;
    f->sum_s = event_number(&n_sums, "round_summed", "seconds");
}

static void measure(figures *f, uint32_t n, uint32_t n_dropped, uint32_t n_elements)
{
    temp_dir_make(&dir);
    make_federation(n, n_elements);
    const pid_t coordinator = start_coordinator(n_dropped ? "20" : "60");
    for (uint32_t i = 0; i < n; i++) {
        sites[i].dies = i < n_dropped;
        if (pthread_create(&sites[i].thread, NULL, run_site, &sites[i])) die("no thread");
    }
    /* The first brings every site the roster, whose signatures it checks once. */
    run_round(f, n, 0, coordinator);
    n_done = 1;
    may_die = true;
    run_round(f, n, n_dropped, coordinator);
    f->result_peak_mb = peak_mb(coordinator);
    f->vector_bytes = 3.0 * (double)sites[0].script.invitation.terms.layout.n_active;
    over = true;
    for (uint32_t i = 0; i < n; i++) {
        pthread_join(sites[i].thread, NULL);
        const double sent = (double)sites[i].script.sent_bytes / 2;
        if (sent > f->sent_bytes) f->sent_bytes = sent;
        script_site_end(&sites[i].script);
    }
    kill(coordinator, SIGKILL);
    waitpid(coordinator, NULL, 0);
    temp_dir_remove(&dir);
}

typedef struct table {
    uint32_t n, n_dropped;
    double wire_s;
} table;

static void print(const table *t, const char *name, double value, double ratio, const char *to)
{
    printf("%u\t%u\t%s\t%.3f\t%.3f\t%s\n", t->n, t->n_dropped, name, value, ratio, to);
}

static void print_s(const table *t, const char *name, double seconds)
{
    print(t, name, seconds, seconds / t->wire_s, "curve_transfer_s");
}

static void print_times(const table *t, const figures *f)
{
    print_s(t, "curve_transfer_s", f->wire_s);
    print_s(t, "keys_here_s", f->keys.here_s);
    print_s(t, "keys_site_s", f->keys.site_s);
    print_s(t, "keys_shared_s", f->keys.shared_s);
    print_s(t, "masking_here_s", f->masks.here_s);
    print_s(t, "masking_site_s", f->masks.site_s);
    /* With dropped sites it is the time until they are given up. */
    print_s(t, "upload_s", f->upload.here_s);
    print_s(t, "closing_here_s", f->closing.here_s);
    print_s(t, "closing_site_s", f->closing.site_s);
    print_s(t, "closing_shared_s", f->closing.shared_s);
    print_s(t, "sum_s", f->sum_s);
    print_s(t, "round_s",
            f->keys.site_s + f->keys.shared_s + f->masks.site_s + f->upload.here_s +
                f->closing.site_s + f->closing.shared_s);
    print_s(t, "round_here_s",
            f->keys.here_s + f->masks.here_s + f->upload.here_s + f->closing.here_s);
    print_s(t, "results_s", f->result_s);
}

static void print_sizes(const table *t, const figures *f)
{
    const double limit_mb = 3 * f->vector_bytes / 1e6 + 64;
    static const char limit[] = "3_packed_adapters_and_64_mb";
    print(t, "coordinator_peak_mb_vectors", f->upload_peak_mb, f->upload_peak_mb / limit_mb, limit);
    print(t, "coordinator_peak_mb_sum", f->sum_peak_mb, f->sum_peak_mb / limit_mb, limit);
    print(t, "coordinator_peak_mb_result", f->result_peak_mb, f->result_peak_mb / limit_mb, limit);
    print(t, "elements", f->vector_bytes / 3, 1, "itself");
    print(t, "site_sent_bytes", f->sent_bytes, f->sent_bytes / f->vector_bytes, "packed_vector");
}

/* One stream for each survivor, and one for each of them with each site that dropped. */
static dure_err print_unmasking(const table *t, const figures *f)
{
    double rate;
    dure_err err = dure_bench_aes_rate(&rate, (unsigned)sysconf(_SC_NPROCESSORS_ONLN));
    if (err) return err;
    const double n_left = t->n - t->n_dropped;
    const double bound_s = n_left * (1 + t->n_dropped) * f->vector_bytes / rate;
    print(t, "aes_bound_s", bound_s, 1, "itself");
    print(t, "sum_s", f->sum_s, f->sum_s / bound_s, "aes_bound_s");
    print(t, "closing_shared_s", f->closing.shared_s, f->closing.shared_s / bound_s, "aes_bound_s");
    return DURE_OK;
}

/* The median of three. */
static dure_err curve_transfer(double *seconds, uint32_t n, size_t n_bytes)
{
    double took[3];
    for (int i = 0; i < 3; i++) {
        dure_err err = dure_bench_curve_transfer(&took[i], n, n_bytes);
        if (err) return err;
    }
    const double low = took[0] < took[1] ? took[0] : took[1];
    const double high = took[0] < took[1] ? took[1] : took[0];
    *seconds = took[2] < low ? low : took[2] > high ? high : took[2];
    return DURE_OK;
}

int main(int argc, char **argv)
{
    const uint32_t n = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 10;
    const uint32_t n_dropped = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 0;
    figures f = {0};
    const uint32_t n_elements = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : ELEMENTS;
    if (n < 3 || n > SITES_MAX || n_dropped >= n || n_elements < ELEMENTS_LEAST ||
        n_elements > ELEMENTS_MAX) {
        fprintf(stderr,
                "usage: bench_round SITES [DROPPED [ELEMENTS]], at most %d sites, from %d to %d "
                "elements\n",
                SITES_MAX, ELEMENTS_LEAST, ELEMENTS_MAX);
        return 2;
    }
    measure(&f, n, n_dropped, n_elements);
    if (curve_transfer(&f.wire_s, n - n_dropped, (size_t)f.vector_bytes)) return 1;
    const table t = {.n = n, .n_dropped = n_dropped, .wire_s = f.wire_s};
    printf("sites\tdropped\tfigure\tvalue\tratio\tratio_to\n");
    print_times(&t, &f);
    print_sizes(&t, &f);
    return print_unmasking(&t, &f) ? 1 : 0;
}
