/* One log line: `time level module event key=value ...` (logfmt). Silent until cli/ installs a
 * sink. Never logged: keys, seeds, masks, gradients, tokens, or what one record or site computed
 * on private data. */
#pragma once

typedef enum dure_log_level {
    DURE_LOG_DEBUG,
    DURE_LOG_INFO,
    DURE_LOG_WARN,
    DURE_LOG_ERROR
} dure_log_level;

/* `line` has no newline. Called from any thread; the sink does its own locking. */
typedef void dure_log_sink(void *state, dure_log_level level, const char *line);

/* Before any thread is started. `sink` NULL silences. */
void dure_log_install(dure_log_sink *sink, void *state, dure_log_level least);

/* dure_log(DURE_LOG_INFO, "coordinator", "round_open", "round=%u sites=%u", r, n) */
void dure_log(dure_log_level level, const char *module, const char *event, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
