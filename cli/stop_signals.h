/* SIGINT and SIGTERM, for a command that runs until it is told to stop and then ends in order.
 *
 * Threads: the main thread; the handler runs on it, since no other takes signals (common/thread.h).
 */
#pragma once

/* From now on each of the two calls stop(object), which must be safe in a signal handler. */
void dure_stop_signals_take(void (*stop)(void *object), void *object);
/* From now on they do nothing: `object` may be taken apart. */
void dure_stop_signals_end(void);
