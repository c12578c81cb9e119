#include "owner.h"

#include "common/clock.h"
#include "common/file.h"
#include "ledger/site_ledger.h"
#include "support/check.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

uint64_t owner_draw(owner *o, uint64_t n)
{
    dure_rng rng = {0};
    uint64_t word = 0, state = o->rng.state;
    rng = seeded_rng_of(&o->rng, state);
    assert_ok(dure_rng_fill(&rng, &word, sizeof word));
    return word % n;
}

static const char *file_of(const owner *o, const char *name)
{
    return temp_dir_file(&o->dir, name);
}

static const char *numbered(char text[64], const char *name, size_t n, const char *ending)
{
    snprintf(text, 64, "%s%zu%s", name, n, ending);
    return text;
}

/* --- records --- */

static void add_records(const owner *o, int n)
{
    char name[64];
    FILE *f = fopen(file_of(o, numbered(name, "data", o->n_names, ".jsonl")), "a");
    assert_non_null(f);
    for (int i = 0; i < n; i++)
        fprintf(f, "{\"prompt\":\"say %d\",\"response\":\"apple\"}\n", i);
    assert_int_equal(fclose(f), 0);
}

static void rename_records(owner *o)
{
    char from[64], to[64];
    numbered(from, "data", o->n_names++, ".jsonl");
    numbered(to, "data", o->n_names, ".jsonl");
    assert_int_equal(rename(file_of(o, from), file_of(o, to)), 0);
}

/* --- the ledger's file --- */

static void copy_file(const owner *o, const char *from, const char *to)
{
    dure_buf bytes;
    assert_ok(dure_file_read(&bytes, file_of(o, from), 1 << 24, NULL));
    assert_ok(dure_file_write_atomic(file_of(o, to), dure_buf_span(&bytes), 0600, NULL));
    dure_buf_fini(&bytes);
}

static bool has_ledger(const owner *o)
{
    return dure_file_exists(file_of(o, "ledger"));
}

static int lock_ledger(const owner *o)
{
    int fd = open(file_of(o, "ledger"), O_RDWR);
    assert_true(fd >= 0 && flock(fd, LOCK_EX) == 0);
    return fd;
}

void owner_copy(owner *o)
{
    char name[64];
    if (!has_ledger(o) || o->is_old) return;
    int fd = lock_ledger(o);
    copy_file(o, "ledger", numbered(name, "copy", o->n_copies % OWNER_COPIES_MAX, ""));
    if (dure_file_exists(file_of(o, "ledger.head")))
        copy_file(o, "ledger.head",
                  numbered(name, "copy", o->n_copies % OWNER_COPIES_MAX, ".head"));
    close(fd);
    o->n_copies++;
}

/* A copy may lack a line whose writer died before it was acknowledged, or be as empty as the ledger
 * still is; it then is not older. */
static bool is_refused(const owner *o)
{
    dure_site_ledger *ledger = NULL;
    dure_err err = DURE_ERR_BUSY;
    while (err == DURE_ERR_BUSY) /* a desk may take long over its sums on a loaded machine */
        err = dure_site_ledger_open_read(&ledger, file_of(o, "ledger"), NULL);
    dure_site_ledger_close(&ledger);
    return err == DURE_ERR_STATE;
}

void owner_put_back(owner *o, size_t copy)
{
    char name[64];
    int fd = lock_ledger(o);
    if (!o->is_old) copy_file(o, "ledger", "newest");
    copy_file(o, numbered(name, "copy", copy, ""), "ledger");
    o->is_old = is_refused(o);
    o->n_restored += o->is_old;
    close(fd);
}

void owner_forget(owner *o, size_t copy)
{
    char name[64];
    copy_file(o, numbered(name, "copy", copy, ""), "ledger");
    copy_file(o, numbered(name, "copy", copy, ".head"), "ledger.head");
}

/* One that is older, if there is any. */
static void put_some_copy_back(owner *o, size_t n)
{
    size_t first = owner_draw(o, OWNER_COPIES_MAX), before = o->n_restored;
    for (size_t i = 0; i < n && o->n_restored == before; i++)
        owner_put_back(o, (first + i) % n);
}

static void put_newest_back(owner *o)
{
    if (!o->is_old) return;
    int fd = lock_ledger(o);
    copy_file(o, "newest", "ledger");
    close(fd);
    o->is_old = false;
}

/* --- processes --- */

dure_dp_plan owner_plan(const owner *o, size_t run)
{
    dure_dp_plan plan = {.mechanism = DURE_DP_POISSON_GAUSSIAN, .steps = o->runs[run].steps};
    assert_ok(dure_dp_plan_set_batch(&plan, OWNER_BATCH, OWNER_RECORDS, NULL));
    assert_ok(dure_dp_plan_set_sigma(&plan, o->runs[run].noise, NULL));
    return plan;
}

bool owner_has_adapter(const owner *o, size_t run)
{
    static const char *const files[] = {"adapter.gguf", "adapter_model.safetensors",
                                        "adapter_config.json"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char name[64];
        snprintf(name, sizeof name, "a%zu/%s", run, files[i]);
        if (dure_file_exists(file_of(o, name))) return true;
    }
    return false;
}

/* In the child: what a person would type. Never returns. */
static void become_training(const owner *o, size_t run, const char *kill_plan)
{
    char data[64], out[64], steps[32], noise[32], epsilon[32], clock[64];
    int words = open(file_of(o, "words"), O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (words < 0 || chdir(o->dir.path)) _exit(126);
    dup2(words, STDOUT_FILENO);
    dup2(words, STDERR_FILENO);
    snprintf(steps, sizeof steps, "%llu", (unsigned long long)o->runs[run].steps);
    snprintf(noise, sizeof noise, "%.17g", o->runs[run].noise);
    snprintf(epsilon, sizeof epsilon, "%.17g", o->budget.epsilon);
    FILE *off = fopen(numbered(clock, "clock", run, ""), "w");
    if (!off || fprintf(off, "%ld", o->clock_off_s) < 0 || fclose(off)) _exit(127);
    setenv("CHAOS_CLOCK", clock, 1);
    setenv("DURE_LEDGER", "ledger", 1);
    if (kill_plan) setenv("CHAOS_KILL", kill_plan, 1);
    execl(DURE_BINARY, "dure", "train", "--model", o->model, "--data",
          numbered(data, "data", o->n_names, ".jsonl"), "--rank", "4", "--batch", "8", "--threads",
          "1", "--source", OWNER_SOURCE, "--records", "1000", "--epsilon", epsilon, "--noise",
          noise, "--steps", steps, "--save-every", "2", "--out", numbered(out, "a", run, ""),
          (char *)NULL);
    _exit(127);
}

static void start(owner *o, size_t desk, size_t run, const char *kill_plan)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) become_training(o, run, kill_plan);
    o->desks[desk] = child;
    o->at[desk] = run;
}

static void wait_for(owner *o, size_t desk)
{
    int how = 0;
    if (!o->desks[desk]) return;
    assert_int_equal(waitpid(o->desks[desk], &how, 0), o->desks[desk]);
    o->desks[desk] = 0;
    if (WIFSIGNALED(how)) {
        if (WTERMSIG(how) != SIGKILL) fail_msg("signal %d at a desk", WTERMSIG(how));
        o->n_killed++;
    } else if (WEXITSTATUS(how) == 1) {
        o->n_refused++;
    } else {
        assert_int_equal(WEXITSTATUS(how), 0);
    }
}

static void start_at(owner *o, size_t desk)
{
    static const char *const moments[] = {"before", "torn", "after"};
    char plan[64];
    wait_for(o, desk);
    size_t run = o->n_runs;
    if (o->n_runs && owner_draw(o, 2)) {
        run = owner_draw(o, o->n_runs);
        for (size_t i = 0; i < OWNER_DESKS; i++)
            if (o->desks[i] && o->at[i] == run) return; /* its folder is locked */
    } else if (o->n_runs < OWNER_RUNS_MAX) {
        o->runs[o->n_runs++] = (owner_run){.steps = 2 + owner_draw(o, 120),
                                           .noise = 0.75 + 0.05 * (double)owner_draw(o, 13)};
    } else {
        return;
    }
    bool armed = owner_draw(o, 5) > 1;
    snprintf(plan, sizeof plan, "disk:%llu:%s", (unsigned long long)(1 + owner_draw(o, 70)),
             moments[owner_draw(o, 3)]);
    start(o, desk, run, armed ? plan : NULL);
}

void owner_train(owner *o, owner_run run)
{
    o->runs[o->n_runs] = run;
    start(o, 0, o->n_runs++, NULL);
    wait_for(o, 0);
}

static void kill_at(owner *o, size_t desk)
{
    if (!o->desks[desk]) return;
    dure_clock_sleep_ms((uint32_t)owner_draw(o, 40));
    assert_int_equal(kill(o->desks[desk], SIGKILL), 0);
    wait_for(o, desk);
}

/* --- the owner --- */

void owner_make(owner *o, uint64_t seed, const char *model)
{
    *o = (owner){.model = model, .rng = {.state = seed}, .budget = {.delta = 1e-5}};
    temp_dir_make(&o->dir);
    o->budget.epsilon = 3 + 0.25 * (double)owner_draw(o, 17);
    add_records(o, 12);
}

void owner_end(owner *o, bool keep)
{
    if (keep)
        print_message("kept: %s\n", o->dir.path);
    else
        temp_dir_remove(&o->dir);
}

void owner_act(owner *o)
{
    uint64_t what = owner_draw(o, 100);
    size_t desk = owner_draw(o, OWNER_DESKS);
    size_t n = o->n_copies < OWNER_COPIES_MAX ? o->n_copies : OWNER_COPIES_MAX;
    if (what < 42)
        start_at(o, desk);
    else if (what < 49)
        kill_at(o, desk);
    else if (what < 55)
        wait_for(o, desk);
    else if (what < 69)
        owner_copy(o);
    else if (what < 83)
        put_some_copy_back(o, n);
    else if (what < 90)
        put_newest_back(o);
    else if (what < 94)
        o->clock_off_s = -(long)owner_draw(o, 400000000);
    else if (what < 97)
        rename_records(o);
    else
        add_records(o, 1);
}

void owner_settle(owner *o)
{
    for (size_t i = 0; i < OWNER_DESKS; i++)
        wait_for(o, i);
    put_newest_back(o);
}
