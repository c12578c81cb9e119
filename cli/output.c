#include "cli/output.h"

#include "common/clock.h"
#include "common/log.h"
#include "model/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

int dure_fail(const char *command, dure_err err, const dure_diag *diag)
{
    const char *text = diag && diag->text[0] ? diag->text : dure_err_text(err);
    fprintf(stderr, "dure %s: %s\n", command, text);
    return err == DURE_ERR_USAGE ? 2 : 1;
}

int dure_print_json(json_t *value)
{
    if (!value) {
        fprintf(stderr, "dure: out of memory while forming the JSON\n");
        return 1;
    }
    int failed = json_dumpf(value, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_ENCODE_ANY);
    json_decref(value);
    if (putchar('\n') == EOF || fflush(stdout)) failed = 1;
    return failed ? 1 : 0;
}

int dure_print_event(const char *name, const json_t *facts)
{
    json_t *line = json_pack("{s:s, s:I}", "event", name, "time", (json_int_t)dure_clock_wall_s());
    if (line && facts) json_object_update(line, (json_t *)(uintptr_t)facts);
    return dure_print_json(line);
}

bool dure_on_terminal(void)
{
    return isatty(STDERR_FILENO) == 1;
}

bool dure_colour(FILE *stream)
{
    const char *term = getenv("TERM");
    return isatty(fileno(stream)) == 1 && !getenv("NO_COLOR") && term && strcmp(term, "dumb") != 0;
}

void dure_progress_start(dure_progress *p, const char *what, const char *unit, uint64_t total_steps,
                         bool quiet)
{
    *p = (dure_progress){.what = what,
                         .unit = unit,
                         .total_steps = total_steps,
                         .started_s = dure_clock_monotonic_s(),
                         .quiet = quiet};
}

enum { BAR_MOST = 24 };

/* A line that is wider than the terminal would wrap, and could not be written over. */
static size_t bar_cells(size_t text_columns)
{
    struct winsize size;
    size_t columns = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : 80;
    if (columns < text_columns + 2) return 0;
    return columns - text_columns - 2 < BAR_MOST ? columns - text_columns - 2 : BAR_MOST;
}

static void draw_bar(char bar[BAR_MOST * 3 + 1], size_t cells, double share)
{
    size_t at = 0;
    for (size_t i = 0; i < cells; i++) {
        const char *cell = (double)i < share * (double)cells - 0.5 ? "█" : "░";
        memcpy(bar + at, cell, strlen(cell));
        at += strlen(cell);
    }
    bar[at] = 0;
}

void dure_progress_step(dure_progress *p, uint64_t done, double units, const char *note)
{
    if (p->quiet) return;
    double elapsed = dure_clock_monotonic_s() - p->started_s;
    double rate = elapsed > 0 ? units / elapsed : 0;
    uint64_t here = done > p->first_step ? done - p->first_step : 0;
    /* More than the total when a round that failed was trained again. */
    uint64_t open = done < p->total_steps ? p->total_steps - done : 0;
    double left = here ? elapsed * (double)open / (double)here : 0;
    char eta[32], text[256], bar[BAR_MOST * 3 + 1];
    dure_format_seconds(eta, left);
    snprintf(text, sizeof text, "%llu/%llu  %.0f %s/s  %s  ETA %s", (unsigned long long)done,
             (unsigned long long)p->total_steps, rate, p->unit, note, eta);
    if (!dure_on_terminal()) {
        fprintf(stderr, "%s %s\n", p->what, text);
        return;
    }
    draw_bar(bar, bar_cells(strlen(p->what) + strlen(text)),
             p->total_steps ? (double)done / (double)p->total_steps : 1);
    fprintf(stderr, "\r\033[K%s %s %s", p->what, bar, text);
    fflush(stderr);
}

void dure_progress_end(dure_progress *p)
{
    if (!p->quiet && dure_on_terminal()) fprintf(stderr, "\r\033[K");
}

void dure_format_bytes(char text[32], uint64_t bytes)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1000 && unit + 1 < sizeof units / sizeof units[0]) {
        value /= 1000;
        unit++;
    }
    snprintf(text, 32, unit && value < 100 ? "%.1f %s" : "%.0f %s", value, units[unit]);
}

void dure_format_seconds(char text[32], double seconds)
{
    if (seconds < 60)
        snprintf(text, 32, "%.1f s", seconds);
    else if (seconds < 3600)
        snprintf(text, 32, "%d min %02d s", (int)seconds / 60, (int)seconds % 60);
    else
        snprintf(text, 32, "%d h %02d min", (int)seconds / 3600, (int)seconds / 60 % 60);
}

static void to_stderr(void *state, dure_log_level level, const char *line)
{
    (void)state, (void)level;
    fprintf(stderr, "%s\n", line);
}

void dure_output_init(void)
{
    const char *wanted = getenv("DURE_LOG");
    dure_log_level least = DURE_LOG_WARN;
    if (wanted && !strcmp(wanted, "debug")) least = DURE_LOG_DEBUG;
    if (wanted && !strcmp(wanted, "info")) least = DURE_LOG_INFO;
    dure_log_install(to_stderr, NULL, least);
}

void dure_warn_memory(uint64_t bytes)
{
    char all[32], left[32];
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    const uint64_t held = (uint64_t)used.ru_maxrss * 1024;
    const uint64_t available = dure_memory_available_bytes("/proc/meminfo");
    if (bytes <= held || bytes - held <= available) return;
    dure_format_bytes(all, bytes);
    dure_format_bytes(left, available);
    fprintf(stderr,
            "warning: of the %s that are expected, other programs leave %s now; end some of them, "
            "or lower --memory\n",
            all, left);
}
