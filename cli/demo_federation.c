/* The federation of the demo: founded, joined by three sites, and run to its last round by one
 * coordinator and three site processes over encrypted sockets on loopback. */
#include "cli/demo.h"

#include "cli/local_http.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/json.h"

#include <stdio.h>
#include <string.h>

enum { SILENCE_MS = 180000 }; /* nothing heard from any process for so long: something is wrong */

static dure_err found(demo *d, const char *endpoint, dure_diag *diag)
{
    char dir[DEMO_PATH], eval[DEMO_PATH + 32], rounds[24], steps[24], batch[24], rank[24];
    demo_path(dir, d, "federation");
    snprintf(eval, sizeof eval, "%s/eval.jsonl", d->data);
    snprintf(rounds, sizeof rounds, "%llu", (unsigned long long)d->plan.rounds);
    snprintf(steps, sizeof steps, "%llu", (unsigned long long)d->plan.steps);
    snprintf(batch, sizeof batch, "%llu", (unsigned long long)d->plan.batch);
    snprintf(rank, sizeof rank, "%llu", (unsigned long long)d->plan.rank);
    const char *const argv[] = {"init",
                                dir,
                                "--model",
                                d->model,
                                "--eval",
                                eval,
                                "--endpoint",
                                endpoint,
                                "--name",
                                "demo",
                                "--rounds",
                                rounds,
                                "--steps",
                                steps,
                                "--batch",
                                batch,
                                "--rank",
                                rank,
                                "--alpha",
                                d->plan.alpha,
                                "--targets",
                                d->plan.targets,
                                "--learning-rate",
                                d->plan.learning_rate,
                                "--range",
                                "0.125",
                                "--max-length",
                                "128",
                                "--json",
                                NULL};
    return demo_command(NULL, d, argv, diag);
}

static dure_err start_coordinator(demo *d, dure_diag *diag)
{
    char dir[DEMO_PATH], log[DEMO_PATH];
    demo_path(dir, d, "federation/coordinator");
    demo_path(log, d, "logs/coordinator.log");
    return dure_child_start(
        &d->coordinator,
        (const char *const[]){"coordinator", "run", dir, "--exit-when-done", "--json", NULL},
        &(dure_child_opts){.log_path = log}, diag);
}

/* Invited by the root, joined with keys made in the site's own folder. */
static dure_err join_site(demo *d, demo_site *s, dure_diag *diag)
{
    char admin[DEMO_PATH], name[DEMO_NAME + 32], invitation[DEMO_PATH], dir[DEMO_PATH];
    char ledger[DEMO_PATH + 16], data[DEMO_PATH + DEMO_NAME + 8], records[24];
    demo_path(admin, d, "federation/admin");
    snprintf(name, sizeof name, "%s.invitation", s->name);
    demo_path(invitation, d, name);
    demo_path(dir, d, s->name);
    snprintf(ledger, sizeof ledger, "%s/ledger", dir);
    snprintf(data, sizeof data, "%s/%s.jsonl", d->data, s->name);
    snprintf(records, sizeof records, "%llu", (unsigned long long)s->records);
    dure_err err = dure_dir_make(dir, diag);
    if (!err)
        err = demo_command(
            NULL, d,
            (const char *const[]){"invite", admin, s->name, "-o", invitation, "--json", NULL},
            diag);
    if (!err)
        err = demo_command(NULL, d,
                           (const char *const[]){"join", invitation, dir, "--data", data,
                                                 "--source", s->name, "--records", records,
                                                 "--model", d->model, "--epsilon", d->plan.epsilon,
                                                 "--ledger", ledger, "--json", NULL},
                           diag);
    return err;
}

static dure_err start_site(demo *d, size_t i, dure_diag *diag)
{
    char dir[DEMO_PATH], log[DEMO_PATH], name[DEMO_NAME + 16], threads[24];
    demo_path(dir, d, d->sites[i].name);
    snprintf(name, sizeof name, "logs/%s.log", d->sites[i].name);
    demo_path(log, d, name);
    snprintf(threads, sizeof threads, "%llu", (unsigned long long)d->threads);
    return dure_child_start(&d->site[i],
                            (const char *const[]){"client", "run", dir, "--threads", threads,
                                                  "--exit-when-done", "--json", NULL},
                            &(dure_child_opts){.log_path = log}, diag);
}

/* ---- what the processes report ---- */

typedef struct watcher {
    demo *d;
    dure_err err;
    dure_diag *diag;
} watcher;

static void show_progress(demo *d)
{
    char note[160];
    uint64_t done = d->rounds_done * d->plan.steps * DEMO_SITES;
    size_t at = (size_t)snprintf(
        note, sizeof note, "round %llu/%llu",
        (unsigned long long)(d->rounds_done < d->plan.rounds ? d->rounds_done + 1 : d->plan.rounds),
        (unsigned long long)d->plan.rounds);
    for (size_t i = 0; i < DEMO_SITES; i++) {
        done += d->sites[i].steps_done;
        at += (size_t)snprintf(note + at, sizeof note - at, " %s %llu/%llu", d->sites[i].name,
                               (unsigned long long)d->sites[i].steps_done,
                               (unsigned long long)d->plan.steps);
    }
    dure_progress_step(&d->progress, done, (double)d->tokens, note);
}

/* The coordinator names the state it enters and the time it spent in the one before. Keys and
 * shares are exchanged while the sites train; what the secure sum adds comes after. */
static void hear_coordinator(demo *d, const json_t *event, const char *name)
{
    if (!strcmp(name, "round_state")) {
        const char *state = json_string_value(json_object_get(event, "state"));
        if (state && (!strcmp(state, "unmasking") || !strcmp(state, "summed")))
            d->sum_s += json_number_value(json_object_get(event, "previous_seconds"));
    } else if (!strcmp(name, "round_summed")) {
        d->summed_s = dure_clock_monotonic_s();
    } else if (!strcmp(name, "gate")) {
        d->gate_s += dure_clock_monotonic_s() - d->summed_s;
    } else if (!strcmp(name, "round_done")) {
        d->rounds_done++;
        for (size_t i = 0; i < DEMO_SITES; i++)
            d->sites[i].steps_done = 0;
        show_progress(d);
    }
}

static void hear_site(demo *d, demo_site *s, const json_t *event, const char *name)
{
    if (!strcmp(name, "step")) {
        s->steps_done++;
        d->tokens += (uint64_t)json_integer_value(json_object_get(event, "tokens"));
        show_progress(d);
    } else if (!strcmp(name, "round_done")) {
        s->bytes_sent = (uint64_t)json_integer_value(json_object_get(event, "bytes_sent"));
    }
}

static bool on_line(void *state, size_t child, const char *line)
{
    watcher *w = state;
    json_t *event;
    if (dure_json_parse(&event, dure_span_of_text(line), "a process's report", NULL)) return true;
    const char *name = json_string_value(json_object_get(event, "event"));
    if (name && child == 0) hear_coordinator(w->d, event, name);
    if (name && child > 0) hear_site(w->d, &w->d->sites[child - 1], event, name);
    json_decref(event);
    return true;
}

static dure_err watch(demo *d, dure_diag *diag)
{
    dure_child all[1 + DEMO_SITES] = {d->coordinator};
    for (size_t i = 0; i < DEMO_SITES; i++)
        all[i + 1] = d->site[i];
    watcher w = {.d = d, .diag = diag};
    dure_err err = dure_child_watch(all, 1 + DEMO_SITES, on_line, &w, SILENCE_MS, diag);
    d->coordinator = all[0];
    for (size_t i = 0; i < DEMO_SITES; i++)
        d->site[i] = all[i + 1];
    if (err == DURE_ERR_TIMEOUT)
        return dure_diag_set(diag, err, "nothing was heard for %d s; the logs are in %s/logs",
                             SILENCE_MS / 1000, d->out);
    if (!err) err = dure_child_wait(&d->coordinator, "the coordinator", diag);
    for (size_t i = 0; !err && i < DEMO_SITES; i++)
        err = dure_child_wait(&d->site[i], d->sites[i].name, diag);
    if (err) return dure_diag_prefix(diag, err, "the logs are in %s/logs", d->out);
    if (d->rounds_done == d->plan.rounds) return DURE_OK;
    return dure_diag_set(
        diag, DURE_ERR_STATE, "%llu of %llu rounds were completed; the logs are in %s/logs",
        (unsigned long long)d->rounds_done, (unsigned long long)d->plan.rounds, d->out);
}

dure_err demo_federation(demo *d, dure_diag *diag)
{
    char endpoint[64];
    double start = dure_clock_monotonic_s();
    snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%u", (unsigned)dure_local_free_port());
    dure_err err = found(d, endpoint, diag);
    if (!err) err = start_coordinator(d, diag);
    for (size_t i = 0; !err && i < DEMO_SITES; i++)
        err = join_site(d, &d->sites[i], diag);
    for (size_t i = 0; !err && i < DEMO_SITES; i++)
        err = start_site(d, i, diag);
    d->found_s = dure_clock_monotonic_s() - start;
    if (err) return err;
    start = dure_clock_monotonic_s();
    dure_progress_start(&d->progress, "training", "tokens",
                        d->plan.rounds * d->plan.steps * DEMO_SITES, d->json);
    err = watch(d, diag);
    dure_progress_end(&d->progress);
    d->train_s = dure_clock_monotonic_s() - start - d->sum_s - d->gate_s;
    return err;
}
