#include "kernels/compute.h"
#include "support/check.h"

#include <malloc.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { N = 1000 };

typedef struct tally {
    atomic_uint seen[N];
} tally;

static void count_task(void *state, size_t task, void *scratch)
{
    tally *t = state;
    memset(scratch, (int)task, 64);
    atomic_fetch_add(&t->seen[task], 1);
}

static void test_threads_every_task_runs_once(void **state)
{
    (void)state;
    for (uint32_t threads = 1; threads <= 5; threads++) {
        dure_pool *pool = NULL;
        assert_ok(dure_pool_new(&pool, threads, 64));
        assert_int_equal(dure_pool_threads(pool), threads);
        for (size_t round = 0; round < 300; round++) {
            tally t = {0};
            size_t n = round % 7 ? round % 7 : N;
            dure_pool_run(pool, n, count_task, &t);
            for (size_t i = 0; i < N; i++)
                assert_int_equal(atomic_load(&t.seen[i]), i < n ? 1 : 0);
        }
        dure_pool_free(&pool);
        assert_null(pool);
    }
}

static void order_task(void *state, size_t task, void *scratch)
{
    size_t *next = state;
    (void)scratch;
    assert_int_equal(task, (*next)++);
}

static void test_threads_first_task_is_first(void **state)
{
    dure_pool *pool = NULL;
    size_t next = 0;
    (void)state;
    assert_ok(dure_pool_new(&pool, 1, 64));
    dure_pool_run(pool, N, order_task, &next);
    assert_int_equal(next, N);
    dure_pool_free(&pool);
}

typedef struct room {
    size_t bytes;
    atomic_size_t small; /* tasks whose scratch was that of an earlier run */
} room;

static void fill_task(void *state, size_t task, void *scratch)
{
    room *r = state;
    if (malloc_usable_size(scratch) < r->bytes)
        atomic_fetch_add(&r->small, 1);
    else
        memset(scratch, (int)task, r->bytes);
}

/* A worker that is late from one run takes tasks of the next with the scratch of the next. */
static void test_threads_scratch_grows_between_runs(void **state)
{
    (void)state;
    for (int round = 0; round < 300; round++) {
        dure_pool *pool = NULL;
        room r = {.bytes = 64};
        assert_ok(dure_pool_new(&pool, 16, r.bytes));
        for (; r.bytes < 256 * 64; r.bytes += 64) {
            assert_ok(dure_pool_reserve(pool, r.bytes));
            dure_pool_run(pool, 40, fill_task, &r);
        }
        assert_int_equal(atomic_load(&r.small), 0);
        dure_pool_free(&pool);
    }
}

static void test_threads_nothing_to_do_returns(void **state)
{
    (void)state;
    dure_pool *pool = NULL;
    assert_ok(dure_pool_new(&pool, 0, 0));
    assert_true(dure_pool_threads(pool) >= 1);
    dure_pool_run(pool, 0, count_task, NULL);
    dure_pool_free(&pool);
    dure_pool_free(&pool);
}

static void sum_body(void *state, size_t first, size_t last, void *scratch)
{
    (void)scratch;
    for (size_t i = first; i < last; i++)
        atomic_fetch_add((atomic_size_t *)state, i);
}

static void test_threads_rows_cover_the_range(void **state)
{
    (void)state;
    dure_compute c = {.ops = dure_cpu_ops_of(DURE_CPU_PORTABLE)};
    assert_ok(dure_pool_new(&c.pool, 3, 64));
    atomic_size_t sum = 0;
    dure_compute_rows(&c, 1001, 10, sum_body, &sum);
    assert_int_equal(atomic_load(&sum), 1000 * 1001 / 2);
    dure_pool_free(&c.pool);
}

static void test_threads_environment_lowers_the_level(void **state)
{
    (void)state;
    setenv("DURE_MAX_CPU_ISA", "PORTABLE", 1);
    assert_int_equal(dure_cpu_best(), DURE_CPU_PORTABLE);
    setenv("DURE_MAX_CPU_ISA", "AVX2", 1);
    assert_true(dure_cpu_best() <= DURE_CPU_AVX2);
    setenv("DURE_MAX_CPU_ISA", "AVX512", 1);
    assert_true(dure_cpu_best() <= DURE_CPU_AVX512);
    assert_null(dure_cpu_limit_unknown());
    setenv("DURE_MAX_CPU_ISA", "AVX3", 1);
    assert_string_equal(dure_cpu_limit_unknown(), "AVX3");
    unsetenv("DURE_MAX_CPU_ISA");
    assert_null(dure_cpu_limit_unknown());
    assert_true(dure_cpu_best_up_to(DURE_CPU_AVX2) <= DURE_CPU_AVX2);
    assert_non_null(dure_cpu_ops_of(dure_cpu_best()));
    assert_non_null(dure_cpu_ops_of(DURE_CPU_REFERENCE));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads_every_task_runs_once),
        cmocka_unit_test(test_threads_first_task_is_first),
        cmocka_unit_test(test_threads_scratch_grows_between_runs),
        cmocka_unit_test(test_threads_nothing_to_do_returns),
        cmocka_unit_test(test_threads_rows_cover_the_range),
        cmocka_unit_test(test_threads_environment_lowers_the_level),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
