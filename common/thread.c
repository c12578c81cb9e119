#include "common/thread.h"

#include <signal.h>

dure_err dure_thread_start(pthread_t *out, void *(*run)(void *), void *state)
{
    sigset_t all, before;
    sigfillset(&all);
    /* A new thread has the mask of the one that starts it, so it never has another. */
    pthread_sigmask(SIG_BLOCK, &all, &before);
    const int rc = pthread_create(out, NULL, run, state);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc ? DURE_ERR_NOMEM : DURE_OK;
}
