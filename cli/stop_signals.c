#include "cli/stop_signals.h"

#include <signal.h>
#include <stddef.h>

static void (*stop_it)(void *object);
static _Atomic(void *) running; /* NULL: nothing is */

static void on_signal(int number)
{
    (void)number;
    void *object = running;
    if (object) stop_it(object);
}

void dure_stop_signals_take(void (*stop)(void *object), void *object)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    stop_it = stop;
    running = object;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

void dure_stop_signals_end(void)
{
    running = NULL;
}
