/* Threads of the program's own. They take no signals: a handler runs on the thread that owns what
 * it touches, and never while that thread takes it apart. */
#pragma once

#include "common/err.h"

#include <pthread.h>

/* Runs run(state) in a new thread, which the caller joins. A process that it starts would begin
 * with all signals blocked, so it starts none. DURE_ERR_NOMEM: no thread is to be had, and *out is
 * not set; the caller's sentence says for what. The caller's own signals are as before. */
DURE_MUST_USE dure_err dure_thread_start(pthread_t *out, void *(*run)(void *), void *state);
