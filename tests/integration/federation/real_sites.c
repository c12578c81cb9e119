#include "real_sites.h"

#include "common/clock.h"
#include "common/file.h"
#include "support/check.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

static void write_records(real_sites *r, uint32_t site)
{
    char name[32];
    dure_buf text;
    dure_buf_init(&text, 1 << 16);
    for (uint32_t i = 0; i < REAL_SITE_RECORDS; i++)
        dure_put_format(&text, "{\"prompt\":\"after %u?\",\"response\":\"%u\"}\n",
                        i * (site + 3) % 97, i * (site + 3) % 97 + 1);
    snprintf(name, sizeof name, "site%u.jsonl", site);
    assert_ok(
        dure_file_write_atomic(temp_dir_file(&r->v.dir, name), dure_buf_span(&text), 0644, NULL));
    dure_buf_fini(&text);
}

void real_sites_records(real_sites *r)
{
    for (uint32_t i = 0; i < r->v.n; i++)
        write_records(r, i);
}

void real_sites_join(real_sites *r)
{
    real_sites_records(r);
    for (uint32_t i = 0; i < r->v.n; i++) {
        const int status =
            village_run(&r->v,
                        "join site%u.invitation place%u --data site%u.jsonl --source records%u "
                        "--records %d --model base.gguf --epsilon 50 --delta 0.001 --ledger "
                        "ledger%u %s",
                        i, i, i, i, REAL_SITE_RECORDS, i, r->join_options ? r->join_options : "");
        if (status) fail_msg("%s", r->v.output);
    }
}

void real_site_start(real_sites *r, uint32_t i)
{
    char folder[16], out[32], err[32];
    snprintf(folder, sizeof folder, "place%u", i);
    snprintf(out, sizeof out, "client%u.jsonl", i);
    snprintf(err, sizeof err, "client%u.log", i);
    const char *const arguments[] = {"dure",   "client",           "run", folder, "--threads", "1",
                                     "--json", "--exit-when-done", NULL};
    r->clients[i] = village_spawn(&r->v, out, err, arguments);
}

void real_site_kill(real_sites *r, uint32_t i)
{
    if (r->clients[i] <= 0) return;
    kill(r->clients[i], SIGKILL);
    waitpid(r->clients[i], NULL, 0);
    r->clients[i] = 0;
}

int real_site_wait(real_sites *r, uint32_t i)
{
    int status = 0;
    waitpid(r->clients[i], &status, 0);
    r->clients[i] = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

void real_sites_end(real_sites *r)
{
    for (uint32_t i = 0; i < VILLAGE_MAX; i++)
        real_site_kill(r, i);
    village_end(&r->v);
}

void real_sites_fail(const real_sites *r, const char *what)
{
    char command[600];
    snprintf(command, sizeof command, "cd '%s' && tail -n 15 events.jsonl coordinator.log client*",
             r->v.dir.path);
    if (system(command)) print_message("no log\n");
    fail_msg("%s", what);
}

void real_sites_wait_for(real_sites *r, const char *event, size_t n, uint32_t seconds)
{
#ifdef __SANITIZE_THREAD__
    seconds *= 3; /* so much slower do sites train then */
#endif
    for (uint32_t i = 0; i < seconds * 20 && village_count(&r->v, event) < n; i++)
        dure_clock_sleep_ms(50);
    if (village_count(&r->v, event) < n) real_sites_fail(r, event);
}
