/* The emulated GPU itself: blocks, threads, barriers and shared memory, and that it notices the
 * mistakes it is there for. */
#include "kernels/cuda/device.h"
#include "kernels/cuda/language.h"
#include "support/check.h"

#include <sys/wait.h>
#include <unistd.h>

enum { BLOCK = 64, BLOCKS = 3 };

typedef struct numbers {
    float *to;
    const float *from;
} numbers;

/* Each block turns its numbers around by way of shared memory. */
DURE_KERNEL(turn_around, numbers)
{
    DURE_SHARED(room);
    room[threadIdx.x] = a.from[thread_number()];
    __syncthreads();
    a.to[thread_number()] = room[blockDim.x - 1 - threadIdx.x];
}

/* The same without its barrier. */
DURE_KERNEL(turn_around_too_soon, numbers)
{
    DURE_SHARED(room);
    room[threadIdx.x] = a.from[thread_number()];
    a.to[thread_number()] = room[blockDim.x - 1 - threadIdx.x];
}

/* A barrier that one thread does not meet. */
DURE_KERNEL(miss_a_barrier, numbers)
{
    a.to[thread_number()] = 0;
    if (threadIdx.x == 5) return;
    __syncthreads();
}

DURE_KERNEL(sum_and_largest, numbers)
{
    DURE_SHARED(room);
    float sum = block_sum(a.from[thread_number()], room);
    float most = block_max(a.from[thread_number()], room);
    a.to[2 * thread_number()] = sum;
    a.to[2 * thread_number() + 1] = most;
}

static float from[BLOCKS * BLOCK], to[2 * BLOCKS * BLOCK];

static numbers args(void)
{
    for (size_t i = 0; i < BLOCKS * BLOCK; i++)
        from[i] = (float)((i * 37) % 101);
    return (numbers){to, from};
}

static void test_cuda_emulation_shares_memory_in_a_block(void **state)
{
    (void)state;
    numbers a = args();
    for (int reverse = 0; reverse < 2; reverse++) {
        dure_emulated_reverse(reverse);
        DURE_LAUNCH(turn_around, BLOCKS, 1, BLOCK, BLOCK * sizeof(float), NULL, a);
        for (size_t i = 0; i < BLOCKS * BLOCK; i++)
            assert_true(to[i] == from[i / BLOCK * BLOCK + (BLOCK - 1 - i % BLOCK)]);
    }
    dure_emulated_reverse(false);
}

static void test_cuda_emulation_shows_a_missing_barrier(void **state)
{
    (void)state;
    numbers a = args();
    bool wrong = false;
    DURE_LAUNCH(turn_around_too_soon, BLOCKS, 1, BLOCK, BLOCK * sizeof(float), NULL, a);
    for (size_t i = 0; i < BLOCKS * BLOCK; i++)
        wrong = wrong || isnan(to[i]);
    assert_true(wrong);
}

static void test_cuda_emulation_reduces_a_block(void **state)
{
    (void)state;
    numbers a = args();
    DURE_LAUNCH(sum_and_largest, BLOCKS, 1, BLOCK, BLOCK * sizeof(float), NULL, a);
    for (size_t i = 0; i < BLOCKS * BLOCK; i++) {
        float sum = 0, most = 0;
        for (size_t j = i / BLOCK * BLOCK; j < (i / BLOCK + 1) * BLOCK; j++) {
            sum += from[j];
            most = fmaxf(most, from[j]);
        }
        assert_true(to[2 * i] == sum && to[2 * i + 1] == most);
    }
}

/* The program is stopped. */
static void test_cuda_emulation_stops_at_a_barrier_that_is_not_met(void **state)
{
    (void)state;
    numbers a = args();
    int status = 0;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        DURE_LAUNCH(miss_a_barrier, 1, 1, BLOCK, 0, NULL, a);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) != 0);
}

static void test_cuda_emulation_memory_is_not_zero(void **state)
{
    (void)state;
    dure_device *device = NULL;
    void *at = NULL;
    float x = 0;
    assert_ok(dure_device_open(&device, 0, NULL));
    assert_ok(dure_device_new(&at, device, sizeof x, NULL));
    dure_device_download(device, &x, at, sizeof x);
    assert_true(isnan(x));
    dure_device_close(&device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_emulation_shares_memory_in_a_block),
        cmocka_unit_test(test_cuda_emulation_shows_a_missing_barrier),
        cmocka_unit_test(test_cuda_emulation_reduces_a_block),
        cmocka_unit_test(test_cuda_emulation_stops_at_a_barrier_that_is_not_met),
        cmocka_unit_test(test_cuda_emulation_memory_is_not_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
