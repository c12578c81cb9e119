#include "common/thread.h"

#include "support/check.h"

#include <signal.h>
#include <unistd.h>

static volatile sig_atomic_t n_handled;
static pthread_t handled_on;

static void on_signal(int number)
{
    (void)number;
    n_handled++;
    handled_on = pthread_self();
}

/* Tells which signals it would take, and sends one to the whole process. */
static void *run(void *state)
{
    assert_int_equal(pthread_sigmask(SIG_BLOCK, NULL, state), 0);
    assert_int_equal(kill(getpid(), SIGTERM), 0);
    return NULL;
}

static void test_thread_takes_no_signals(void **state)
{
    (void)state;
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGCHLD, SIGUSR1, SIGALRM};
    const struct sigaction action = {.sa_handler = on_signal};
    pthread_t thread;
    sigset_t its;
    assert_int_equal(sigaction(SIGTERM, &action, NULL), 0);
    sigemptyset(&its);
    assert_ok(dure_thread_start(&thread, run, &its));
    assert_int_equal(pthread_join(thread, NULL), 0);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        assert_int_equal(sigismember(&its, signals[i]), 1);
    assert_int_equal(n_handled, 1);
    assert_true(pthread_equal(handled_on, pthread_self()));
}

static void test_thread_leaves_the_signals_of_who_starts_it(void **state)
{
    (void)state;
    pthread_t thread;
    sigset_t mine, before, after, its;
    sigemptyset(&mine);
    sigaddset(&mine, SIGUSR2);
    assert_int_equal(pthread_sigmask(SIG_SETMASK, &mine, &before), 0);
    assert_ok(dure_thread_start(&thread, run, &its));
    assert_int_equal(pthread_sigmask(SIG_SETMASK, &before, &after), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(sigismember(&after, SIGUSR2), 1);
    assert_int_equal(sigismember(&after, SIGTERM), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_thread_takes_no_signals),
        cmocka_unit_test(test_thread_leaves_the_signals_of_who_starts_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
