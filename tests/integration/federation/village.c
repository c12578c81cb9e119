#include "village.h"

#include "common/clock.h"
#include "common/file.h"
#include "federation/global_adapter.h"
#include "federation/server_step.h"
#include "support/check.h"
#include "support/program.h"
#include "support/tiny_model.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* A port that was free a moment ago. */
static uint16_t free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t n = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &n), 0);
    close(fd);
    return ntohs(address.sin_port);
}

static void write_text(const char *path, const char *text)
{
    assert_ok(dure_file_write_atomic(path, dure_span_of_text(text), 0644, NULL));
}

int village_run(village *v, const char *format, ...)
{
    char arguments[2048], command[2064];
    va_list args;
    va_start(args, format);
    vsnprintf(arguments, sizeof arguments, format, args);
    va_end(args);
    snprintf(command, sizeof command, "%s 2>&1", arguments);
    return program_run_in(v->output, sizeof v->output, v->dir.path, DURE_BINARY, command);
}

void village_says(const village *v, const char *text)
{
    if (!strstr(v->output, text)) fail_msg("\"%s\" is not in: %s", text, v->output);
}

static void must_run(village *v, int status)
{
    if (status) fail_msg("exit %d: %s", status, v->output);
}

typedef struct village_plan {
    uint32_t least, steps, batch; /* least 0: all sites */
    uint32_t width, rank;         /* of the model, of the adapter; 0: as small as may be */
    const char *targets;          /* NULL: the default */
    const char *unit;             /* of privacy, and other options; NULL: record */
} village_plan;

static void make(village *v, uint32_t n, uint32_t rounds, const village_plan *p)
{
    memset(v, 0, sizeof *v);
    temp_dir_make(&v->dir);
    v->n = n;
    v->rounds = rounds;
    v->answer_s = "20";
    v->port = free_port();
    tiny_model_write(temp_dir_file(&v->dir, "base.gguf"),
                     &(tiny_model_opts){.seed = 1, .n_embd = p->width, .n_ff = 2 * p->width});
    write_text(temp_dir_file(&v->dir, "eval.jsonl"),
               "{\"prompt\":\"one\",\"response\":\"two\"}\n"
               "{\"prompt\":\"three\",\"response\":\"four\"}\n");
    must_run(v, village_run(v,
                            "init fed --name village --model base.gguf --eval eval.jsonl "
                            "--endpoint tcp://127.0.0.1:%u --rounds %u --steps %u --rank %u "
                            "--batch %u --max-length 256 --min-sites %u --targets %s --seed 7 "
                            "--unit %s",
                            v->port, rounds, p->steps, p->rank ? p->rank : 4, p->batch,
                            p->least ? p->least : n, p->targets ? p->targets : "q,v",
                            p->unit ? p->unit : "record"));
    for (uint32_t i = 0; i < n; i++) {
        char name[16], folder[300];
        snprintf(name, sizeof name, "site%u", i);
        must_run(v, village_run(v, "invite fed/admin %s -o %s.invitation", name, name));
        snprintf(folder, sizeof folder, "%s/%s", v->dir.path, name);
        char file[32];
        snprintf(file, sizeof file, "%s.invitation", name);
        script_site_make(&v->sites[i], temp_dir_file(&v->dir, file), folder);
        v->sites[i].seed = 100 + i;
    }
}

void village_make(village *v, uint32_t n, uint32_t least, uint32_t rounds)
{
    make(v, n, rounds, &(village_plan){.least = least, .steps = 2, .batch = 16});
    v->silence_s = "3";
}

void village_make_training(village *v, uint32_t n, uint32_t least, uint32_t rounds, uint32_t steps)
{
    make(v, n, rounds, &(village_plan){.least = least, .steps = steps, .batch = 4});
    v->silence_s = "12";
}

void village_make_of_subjects(village *v, uint32_t n, uint32_t rounds, uint32_t steps)
{
    make(v, n, rounds, &(village_plan){.steps = steps, .batch = 4, .unit = "subject"});
    v->silence_s = "12";
}

void village_make_of_sites(village *v, uint32_t n, uint32_t u_min, uint32_t rounds, uint32_t steps)
{
    char options[64];
    snprintf(options, sizeof options, "site --noise 2 --clip 0.5 --u-min %u", u_min);
    make(v, n, rounds,
         &(village_plan){.steps = steps,
                         .batch = 4,
                         .width = 256,
                         .rank = 64,
                         .targets = "all",
                         .unit = options});
    v->silence_s = "12";
}

void village_make_large(village *v, uint32_t n, uint32_t least, uint32_t rounds)
{
    make(v, n, rounds,
         &(village_plan){
             .least = least, .steps = 1, .batch = 4, .width = 256, .rank = 64, .targets = "all"});
    v->silence_s = "30";
    v->answer_s = "120";
}

void village_end(village *v)
{
    village_kill(v);
    for (uint32_t i = 0; i < v->n; i++)
        script_site_end(&v->sites[i]);
    temp_dir_remove(&v->dir);
}

pid_t village_spawn(village *v, const char *out, const char *err, const char *const *arguments)
{
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid > 0) return pid;
    if (chdir(v->dir.path)) _exit(127);
    const int to = open(out, O_WRONLY | O_CREAT | O_APPEND, 0644);
    const int words = open(err, O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (to < 0 || words < 0) _exit(127);
    dup2(to, STDOUT_FILENO);
    dup2(words, STDERR_FILENO);
    execv(DURE_BINARY, (char *const *)(uintptr_t)arguments);
    _exit(127);
}

void village_start(village *v)
{
    const char *const arguments[] = {"dure",
                                     "coordinator",
                                     "run",
                                     "fed",
                                     "--json",
                                     "--no-gate",
                                     "--exit-when-done",
                                     "--silence",
                                     v->silence_s,
                                     "--answer",
                                     v->answer_s,
                                     NULL};
    v->coordinator = village_spawn(v, "events.jsonl", "coordinator.log", arguments);
}

void village_kill(village *v)
{
    if (v->coordinator <= 0) return;
    kill(v->coordinator, SIGKILL);
    waitpid(v->coordinator, NULL, 0);
    v->coordinator = 0;
}

int village_wait(village *v)
{
    int status = 0;
    waitpid(v->coordinator, &status, 0);
    v->coordinator = 0;
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

void village_join(village *v)
{
    for (uint32_t i = 0; i < v->n; i++)
        script_site_connect(&v->sites[i], true);
}

bool village_go(village *v, village_condition *until, uint32_t timeout_ms)
{
    const uint64_t end_ms = dure_clock_monotonic_ms() + timeout_ms;
    while (dure_clock_monotonic_ms() < end_ms) {
        for (uint32_t i = 0; i < v->n; i++)
            if (v->sites[i].dealer) script_site_turn(&v->sites[i], 3);
        if (until && until(v)) return true;
    }
    return until == NULL;
}

/* ---- events ---- */

typedef bool event_visitor(const json_t *event, void *state);

static size_t visit(village *v, const char *name, event_visitor *visitor, void *state)
{
    const char *path = temp_dir_file(&v->dir, "events.jsonl");
    dure_buf text;
    size_t n = 0;
    if (dure_file_read(&text, path, 1 << 24, NULL)) return 0;
    const char *line = (const char *)text.data, *end = line + text.n, *stop;
    for (; line < end && (stop = memchr(line, '\n', (size_t)(end - line))); line = stop + 1) {
        json_t *event = json_loadb(line, (size_t)(stop - line), 0, NULL);
        const char *there = json_string_value(json_object_get(event, "event"));
        if (there && strcmp(there, name) == 0 && (!visitor || visitor(event, state))) n++;
        json_decref(event);
    }
    dure_buf_fini(&text);
    return n;
}

size_t village_count(village *v, const char *event)
{
    return visit(v, event, NULL, NULL);
}

typedef struct wanted {
    const char *key, *value;
} wanted;

static bool has_value(const json_t *event, void *state)
{
    const wanted *w = state;
    char text[64];
    const json_t *value = json_object_get(event, w->key);
    if (json_is_string(value)) return strcmp(json_string_value(value), w->value) == 0;
    snprintf(text, sizeof text, "%lld", (long long)json_integer_value(value));
    return strcmp(text, w->value) == 0;
}

bool village_saw(village *v, const char *event, const char *key, const char *value)
{
    wanted w = {key, value};
    return visit(v, event, has_value, &w) > 0;
}

bool village_all_have(const village *v, uint32_t n)
{
    for (uint32_t i = 0; i < v->n; i++)
        if (v->sites[i].dealer && v->sites[i].n_results < n) return false;
    return true;
}

/* ---- sums ---- */

void village_first_adapter(village *v, dure_buf *file)
{
    dure_diag diag = {{0}};
    if (dure_global_adapter_first(file, &v->sites[0].invitation.terms, &diag))
        fail_msg("%s", diag.text);
}

static bool blob_is_here(village *v)
{
    for (uint32_t i = 0; i < v->n; i++)
        if (v->sites[i].dealer && v->sites[i].blob_total &&
            v->sites[i].blob.n < v->sites[i].blob_total)
            return false;
    return true;
}

static script_site *first_with_result(village *v, uint32_t n)
{
    for (uint32_t i = 0; i < v->n; i++)
        if (v->sites[i].dealer && v->sites[i].n_results >= n) return &v->sites[i];
    fail_msg("no site has a result");
    return NULL;
}

void village_check_sum(village *v, dure_buf *present)
{
    script_site *asking = first_with_result(v, 1);
    const dure_terms *terms = &asking->invitation.terms;
    const size_t n = (size_t)terms->layout.n_active;
    int32_t *plain = calloc(n, sizeof *plain), *sum = calloc(n, sizeof *sum);
    uint32_t n_sites = 0;
    for (uint32_t i = 0; i < v->n; i++) {
        const script_site *s = &v->sites[i];
        if (!s->units || memcmp(s->result.t3, asking->result.t3, 32) != 0) continue;
        n_sites++;
        for (size_t k = 0; k < n; k++)
            plain[k] += s->units[k];
    }
    script_site_fetch_blob(asking, asking->result.sum_digest);
    assert_true(village_go(v, blob_is_here, 60000));
    assert_int_equal(asking->blob.n, 4 * n);
    dure_server_step_sum_take(sum, asking->blob.data, n);
    assert_memory_equal(sum, plain, n * sizeof *sum);

    dure_buf next;
    dure_hash digest;
    dure_diag diag = {{0}};
    if (dure_global_adapter_next(&next, terms, dure_buf_span(present), sum, n_sites, &diag))
        fail_msg("%s", diag.text);
    assert_ok(dure_hash_bytes(&digest, dure_buf_span(&next)));
    assert_memory_equal(digest.b, asking->result.adapter_digest, 32);
    script_site_fetch_blob(asking, asking->result.adapter_digest);
    assert_true(village_go(v, blob_is_here, 60000));
    assert_int_equal(asking->blob.n, next.n);
    assert_memory_equal(asking->blob.data, next.data, next.n);
    dure_buf_fini(present);
    *present = next;
    free(plain);
    free(sum);
}
