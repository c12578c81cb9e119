#include "fleet.h"

#include "common/clock.h"
#include "common/file.h"
#include "crypto/hash.h"
#include "support/check.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

enum { RECORDS = 60, JOIN_LIVES = 4 };

uint64_t fleet_draw(const fleet *f, const char *what, uint64_t a, uint64_t b, uint64_t n)
{
    char text[128];
    dure_hash hash;
    uint64_t word = 0;
    const int length = snprintf(text, sizeof text, "%llu %s %llu %llu", (unsigned long long)f->seed,
                                what, (unsigned long long)a, (unsigned long long)b);
    assert_ok(dure_hash_bytes(&hash, dure_span_of(text, (size_t)length)));
    memcpy(&word, hash.b, sizeof word);
    return word % n;
}

/* ---- plans ---- */

/* Small numbers as often as large ones: the first points are those of the start. */
static uint64_t draw_point(const fleet *f, uint64_t process, uint64_t life, unsigned bits)
{
    const unsigned top = (unsigned)fleet_draw(f, "size", process, life, bits + 1);
    return 1 + fleet_draw(f, "point", process, life, UINT64_C(1) << top);
}

static void make_plan(char *text, size_t size, const fleet *f, uint64_t process, uint64_t life)
{
    static const char *const disk[] = {"before", "torn", "after", "full"};
    static const char *const frame[] = {"before", "after"};
    const bool coordinator = process == FLEET_COORDINATOR;
    if (fleet_draw(f, "kind", process, life, 4) > 0)
        snprintf(text, size, "disk:%llu:%s",
                 (unsigned long long)draw_point(f, process, life, coordinator ? 8 : 6),
                 disk[fleet_draw(f, "when", process, life, 4)]);
    else
        snprintf(text, size, "frame:%llu:%s",
                 (unsigned long long)draw_point(f, process, life, coordinator ? 6 : 4),
                 frame[fleet_draw(f, "when", process, life, 2)]);
}

/* ---- life ---- */

static void reset(fleet *f, uint64_t seed)
{
    memset(f->processes, 0, sizeof f->processes);
    f->seed = seed;
    f->n_at_points = f->n_at_instants = f->n_full = 0;
}

static void write_records(const fleet *f)
{
    for (uint32_t i = 0; i < f->v.n; i++) {
        char name[32];
        dure_buf text;
        dure_buf_init(&text, 1 << 16);
        for (uint32_t k = 0; k < RECORDS; k++)
            dure_put_format(&text, "{\"prompt\":\"after %u?\",\"response\":\"%u\"}\n",
                            k * (i + 3) % 97, k * (i + 3) % 97 + 1);
        snprintf(name, sizeof name, "site%u.jsonl", i);
        assert_ok(dure_file_write_atomic(temp_dir_file(&f->v.dir, name), dure_buf_span(&text), 0644,
                                         NULL));
        dure_buf_fini(&text);
    }
}

void fleet_make(fleet *f, uint64_t seed, uint32_t n, uint32_t rounds)
{
    reset(f, seed);
    village_make_training(&f->v, n, 0, rounds, 1);
    write_records(f);
}

void fleet_make_long(fleet *f, uint64_t seed, uint32_t n, uint32_t rounds)
{
    reset(f, seed);
    village_make_training(&f->v, n, n - n / 3, rounds, 1);
    write_records(f);
}

void fleet_make_large(fleet *f, uint32_t n, uint32_t least, uint32_t rounds)
{
    reset(f, 1);
    village_make_large(&f->v, n, least, rounds);
    write_records(f);
}

void fleet_end(fleet *f, bool keep)
{
    for (uint32_t i = 0; i <= VILLAGE_MAX; i++)
        fleet_kill(f, i);
    if (keep) {
        print_message("the files are in %s\n", f->v.dir.path);
        return;
    }
    village_end(&f->v);
}

static void set_environment(const fleet *f, uint32_t process, const char *plan)
{
    char log[300], clock[300];
    snprintf(log, sizeof log, "%s/log.%u", f->v.dir.path, process);
    snprintf(clock, sizeof clock, "%s/clock.%u", f->v.dir.path, process);
    setenv("CHAOS_LOG", log, 1);
    setenv("CHAOS_CLOCK", clock, 1);
    if (plan)
        setenv("CHAOS_KILL", plan, 1);
    else
        unsetenv("CHAOS_KILL");
}

/* Which life it is and what it was told goes to the log that its words go to. */
static void begin(fleet *f, uint32_t process, const char *out, const char *err, const char *plan,
                  const char *const *arguments)
{
    fleet_process *p = &f->processes[process];
    FILE *words = fopen(temp_dir_file(&f->v.dir, err), "a");
    assert_non_null(words);
    fprintf(words, "---- life %u: %s\n", p->life, plan ? plan : "lives");
    (void)fclose(words);
    set_environment(f, process, plan);
    p->life++;
    p->armed = plan != NULL;
    p->full = plan && strstr(plan, ":full");
    snprintf(p->log, sizeof p->log, "%s", err);
    p->pid = village_spawn(&f->v, out, err, arguments);
}

void fleet_start_with(fleet *f, uint32_t process, const char *plan)
{
    const char *const coordinator[] = {"dure",
                                       "coordinator",
                                       "run",
                                       "fed",
                                       "--json",
                                       "--no-gate",
                                       "--silence",
                                       f->v.silence_s,
                                       "--answer",
                                       f->v.answer_s,
                                       f->listen ? "--bind" : NULL,
                                       f->listen,
                                       NULL};
    char folder[16], out[32], err[32];
    if (process == FLEET_COORDINATOR) {
        begin(f, process, "events.jsonl", "coordinator.log", plan, coordinator);
        return;
    }
    snprintf(folder, sizeof folder, "place%u", process);
    snprintf(out, sizeof out, "client%u.jsonl", process);
    snprintf(err, sizeof err, "client%u.log", process);
    const char *const site[] = {"dure", "client", "run", folder, "--threads", "1", "--json", NULL};
    begin(f, process, out, err, plan, site);
}

void fleet_start(fleet *f, uint32_t process, bool armed)
{
    char plan[40];
    if (armed) make_plan(plan, sizeof plan, f, process, f->processes[process].life);
    fleet_start_with(f, process, armed ? plan : NULL);
}

void fleet_kill(fleet *f, uint32_t process)
{
    fleet_process *p = &f->processes[process];
    int status = 0;
    if (p->pid <= 0) return;
    kill(p->pid, SIGKILL);
    waitpid(p->pid, &status, 0);
    p->pid = 0;
    if (WIFSIGNALED(status)) f->n_at_instants++;
}

void fleet_set_clock(fleet *f, uint32_t process, int64_t seconds)
{
    char name[32], text[32];
    snprintf(name, sizeof name, "clock.%u", process);
    snprintf(text, sizeof text, "%lld\n", (long long)seconds);
    assert_ok(dure_file_write_atomic(temp_dir_file(&f->v.dir, name), dure_span_of_text(text), 0644,
                                     NULL));
}

bool fleet_has_said(fleet *f, uint32_t process, const char *words)
{
    dure_buf text;
    const char *at, *life = NULL;
    assert_ok(
        dure_file_read(&text, temp_dir_file(&f->v.dir, f->processes[process].log), 1 << 24, NULL));
    dure_put_u8(&text, 0);
    for (at = (const char *)text.data; (at = strstr(at, "---- life")); at++)
        life = at;
    const bool said = life && strstr(life, words);
    dure_buf_fini(&text);
    return said;
}

/* It ended because nothing could be written any more, and said so. */
static bool was_full(fleet *f, uint32_t process, int status)
{
    return f->processes[process].full && WIFEXITED(status) && WEXITSTATUS(status) == 1 &&
           fleet_has_said(f, process, "the disk is full");
}

/* ---- joining ---- */

static bool join_once(fleet *f, uint32_t i, bool armed)
{
    char invitation[32], folder[16], data[32], source[32], ledger[32], records[8], err[32];
    char plan[40];
    int status = 0;
    snprintf(invitation, sizeof invitation, "site%u.invitation", i);
    snprintf(folder, sizeof folder, "place%u", i);
    snprintf(data, sizeof data, "site%u.jsonl", i);
    snprintf(source, sizeof source, "records%u", i);
    snprintf(ledger, sizeof ledger, "ledger%u", i);
    snprintf(records, sizeof records, "%d", RECORDS);
    snprintf(err, sizeof err, "join%u.log", i);
    const char *const arguments[] = {
        "dure",    "join",      invitation, folder,    "--data",    data,        "--source",
        source,    "--records", records,    "--model", "base.gguf", "--epsilon", "50",
        "--delta", "0.001",     "--ledger", ledger,    "--timeout", "30",        NULL};
    if (armed) make_plan(plan, sizeof plan, f, i, f->processes[i].life);
    begin(f, i, "join.out", err, armed ? plan : NULL, arguments);
    waitpid(f->processes[i].pid, &status, 0);
    f->processes[i].pid = 0;
    if (WIFSIGNALED(status)) {
        f->n_at_points++;
        return false;
    }
    if (was_full(f, i, status)) {
        f->n_full++;
        return false;
    }
    /* It was over before, and its last words were cut off. */
    if (WEXITSTATUS(status) && !fleet_has_said(f, i, "is a site's folder already"))
        fail_msg("site%u cannot join, see %s/%s", i, f->v.dir.path, err);
    return true;
}

void fleet_join(fleet *f)
{
    for (uint32_t i = 0; i < f->v.n; i++)
        for (uint32_t life = 0; !join_once(f, i, life < JOIN_LIVES); life++)
            ;
}

void fleet_join_unharmed(fleet *f)
{
    for (uint32_t i = 0; i < f->v.n; i++)
        assert_true(join_once(f, i, false));
}

/* ---- ends ---- */

static const char *name_of(uint32_t process)
{
    static char name[16];
    if (process == FLEET_COORDINATOR) return "the coordinator";
    snprintf(name, sizeof name, "site%u", process);
    return name;
}

bool fleet_reap(fleet *f)
{
    for (uint32_t i = 0; i <= VILLAGE_MAX; i++) {
        fleet_process *p = &f->processes[i];
        int status = 0;
        if (p->pid <= 0 || waitpid(p->pid, &status, WNOHANG) != p->pid) continue;
        p->pid = 0;
        const bool full = was_full(f, i, status);
        if (!full && (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL || !p->armed)) {
            snprintf(f->v.output, sizeof f->v.output, "%s ended by itself: %s %d", name_of(i),
                     WIFSIGNALED(status) ? "signal" : "status",
                     WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
            return false;
        }
        if (full)
            f->n_full++;
        else
            f->n_at_points++;
        fleet_start(f, i, false);
    }
    return true;
}

bool fleet_stop(fleet *f, uint32_t timeout_ms)
{
    const uint64_t end_ms = dure_clock_monotonic_ms() + timeout_ms;
    bool well = true;
    for (uint32_t i = 0; i <= VILLAGE_MAX; i++)
        if (f->processes[i].pid > 0) kill(f->processes[i].pid, SIGTERM);
    for (uint32_t i = 0; i <= VILLAGE_MAX; i++) {
        fleet_process *p = &f->processes[i];
        int status = 0;
        while (p->pid > 0 && waitpid(p->pid, &status, WNOHANG) == 0 &&
               dure_clock_monotonic_ms() < end_ms)
            dure_clock_sleep_ms(10);
        if (p->pid <= 0) continue;
        if (!WIFEXITED(status) || WEXITSTATUS(status) || dure_clock_monotonic_ms() >= end_ms) {
            snprintf(f->v.output, sizeof f->v.output, "%s did not end well at SIGTERM: status %x",
                     name_of(i), status);
            well = false;
        }
        if (dure_clock_monotonic_ms() < end_ms) p->pid = 0;
    }
    return well;
}

/* ---- waiting ---- */

void fleet_fail(const fleet *f, const char *what)
{
    char command[600];
    snprintf(command, sizeof command, "cd '%s' && tail -n 25 events.jsonl coordinator.log client*",
             f->v.dir.path);
    if (system(command)) print_message("no log\n");
    fail_msg("%s", what);
}

void fleet_wait_for(fleet *f, const char *event, size_t n, uint32_t timeout_ms, fleet_watch *watch)
{
    const uint64_t end_ms = dure_clock_monotonic_ms() + timeout_ms;
    while (village_count(&f->v, event) < n) {
        const uint64_t now_ms = dure_clock_monotonic_ms();
        if (!fleet_reap(f)) fleet_fail(f, f->v.output);
        if (now_ms > end_ms) fleet_fail(f, event);
        if (watch) watch(now_ms);
        dure_clock_sleep_ms(10);
    }
}
