#include "common/log.h"

#include "common/clock.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

static dure_log_sink *installed_sink;
static void *installed_state;
static dure_log_level installed_least = DURE_LOG_INFO;

void dure_log_install(dure_log_sink *sink, void *state, dure_log_level least)
{
    installed_sink = sink;
    installed_state = state;
    installed_least = least;
}

void dure_log(dure_log_level level, const char *module, const char *event, const char *format, ...)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    if (!installed_sink || level < installed_least) return;
    char line[1024], when[DURE_CLOCK_TEXT_SIZE];
    dure_clock_text(when, dure_clock_wall_s());
    int n = snprintf(line, sizeof line, "%s %s %s %s ", when, names[level], module, event);
    if (n < 0 || (size_t)n >= sizeof line) return;
    va_list args;
    va_start(args, format);
    vsnprintf(line + n, sizeof line - (size_t)n, format, args);
    va_end(args);
    installed_sink(installed_state, level, line);
}
