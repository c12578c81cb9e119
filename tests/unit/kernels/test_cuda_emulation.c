/* The emulated GPU itself: blocks, threads, barriers, shared memory and what a warp does together,
 * and that it notices the mistakes it is there for. */
#include "kernels/cuda/device.h"
#include "kernels/cuda/tensor.h"
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

/* The program is stopped by what `run` does. */
static void assert_stops(void (*run)(void))
{
    int status = 0;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        run();
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) != 0);
}

static void launch_missing_a_barrier(void)
{
    numbers a = args();
    DURE_LAUNCH(miss_a_barrier, 1, 1, BLOCK, 0, NULL, a);
}

static void test_cuda_emulation_stops_at_a_barrier_that_is_not_met(void **state)
{
    (void)state;
    assert_stops(launch_missing_a_barrier);
}

/* --- warps --- */

enum { WARPS = 2, LEFT = 16 * 16, RIGHT = 16 * 16, SUMS = 16 * 16 };

typedef struct matrices {
    float *c;
    const uint16_t *a, *b;
    int as_is; /* b is 16 x 16 as a right factor, else transposed */
} matrices;

/* Each warp multiplies its a of 16 x 16 with its b, which both go through shared memory. */
DURE_KERNEL(multiply_in_warps, matrices)
{
    DURE_SHARED(shared);
    enum { LD = 24 };
    int warp = (int)threadIdx.x / LANES;
    uint16_t *left = (uint16_t *)shared + warp * 2 * 16 * LD, *right = left + 16 * LD;
    for (int i = lane(); i < LEFT; i += LANES) {
        left[i / 16 * LD + i % 16] = a.a[warp * LEFT + i];
        right[i / 16 * LD + i % 16] = a.b[warp * RIGHT + i];
    }
    __syncthreads();
    uint32_t x[4], y[4];
    float sums[2][4];
    load_left(x, left, 0, 0, LD);
    if (a.as_is)
        load_right_as_is(y, right, 0, 0, LD);
    else
        load_right(y, right, 0, 0, LD);
    for (int j = 0; j < 2; j++) {
        for (int i = 0; i < 4; i++)
            sums[j][i] = a.c[warp * SUMS + sum_row(i) * 16 + sum_column(j, i)];
        multiply_add(sums[j], x, y + 2 * j);
        for (int i = 0; i < 4; i++)
            a.c[warp * SUMS + sum_row(i) * 16 + sum_column(j, i)] = sums[j][i];
    }
}

/* Small whole numbers, whose products and sums are exact in any order. */
static void fill_factor(uint16_t *x, size_t n, unsigned seed)
{
    for (size_t i = 0; i < n; i++)
        x[i] = to_bf16((float)((i * 29 + seed) % 23) - 11);
}

static void check_product(int as_is)
{
    uint16_t a[WARPS * LEFT], b[WARPS * RIGHT];
    float c[WARPS * SUMS];
    fill_factor(a, WARPS * LEFT, 3);
    fill_factor(b, WARPS * RIGHT, 8);
    for (size_t i = 0; i < WARPS * SUMS; i++)
        c[i] = (float)(i % 7);
    matrices m = {c, a, b, as_is};
    DURE_LAUNCH(multiply_in_warps, 1, 1, WARPS * LANES, 4096, NULL, m);
    for (size_t i = 0; i < WARPS * SUMS; i++) {
        size_t warp = i / SUMS, row = i / 16 % 16, column = i % 16;
        float sum = (float)(i % 7);
        for (size_t k = 0; k < 16; k++)
            sum += from_bf16(a[warp * LEFT + row * 16 + k]) *
                   from_bf16(b[warp * RIGHT + (as_is ? k * 16 + column : column * 16 + k)]);
        assert_true(c[i] == sum);
    }
}

static void test_cuda_emulation_multiplies_in_a_warp(void **state)
{
    (void)state;
    for (int reverse = 0; reverse < 2; reverse++) {
        dure_emulated_reverse(reverse);
        check_product(0);
        check_product(1);
    }
    dure_emulated_reverse(false);
}

/* Sums that are rounded as a left factor are the same matrix: c = (1 a) b for the unit matrix. */
DURE_KERNEL(pass_sums_on, matrices)
{
    DURE_SHARED(shared);
    enum { LD = 24 };
    uint16_t *left = (uint16_t *)shared, *right = left + 16 * LD;
    for (int i = lane(); i < LEFT; i += LANES) {
        left[i / 16 * LD + i % 16] = to_bf16(i / 16 == i % 16);
        right[i / 16 * LD + i % 16] = a.a[i];
    }
    __syncthreads();
    uint32_t x[4], y[4];
    float first[2][4] = {{0}}, second[2][4] = {{0}};
    load_left(x, left, 0, 0, LD);
    load_right_as_is(y, right, 0, 0, LD);
    for (int j = 0; j < 2; j++)
        multiply_add(first[j], x, y + 2 * j);
    left_from_sums(x, first[0], first[1]);
    load_right_as_is(y, left, 0, 0, LD);
    for (int j = 0; j < 2; j++)
        multiply_add(second[j], x, y + 2 * j);
    for (int j = 0; j < 2; j++)
        for (int i = 0; i < 4; i++)
            a.c[sum_row(i) * 16 + sum_column(j, i)] = second[j][i];
}

static void test_cuda_emulation_passes_sums_on_as_a_factor(void **state)
{
    (void)state;
    uint16_t a[LEFT];
    float c[SUMS];
    fill_factor(a, LEFT, 5);
    matrices m = {c, a, NULL, 0};
    DURE_LAUNCH(pass_sums_on, 1, 1, LANES, 4096, NULL, m);
    for (size_t i = 0; i < SUMS; i++)
        assert_true(c[i] == from_bf16(a[i]));
}

/* One lane of the second warp leaves before the product. */
DURE_KERNEL(miss_a_product, numbers)
{
    float c[4] = {0};
    uint32_t factor[4] = {0};
    if (threadIdx.x == LANES + 7) return;
    multiply_add(c, factor, factor);
    a.to[thread_number()] = c[0];
}

/* One lane swaps numbers while the others multiply. */
DURE_KERNEL(do_something_else, numbers)
{
    float c[4] = {0};
    uint32_t factor[4] = {0};
    if (threadIdx.x == 7)
        c[0] = other_lane(1, 1);
    else
        multiply_add(c, factor, factor);
    a.to[thread_number()] = c[0];
}

/* One lane waits at a barrier of the block while the others multiply. */
DURE_KERNEL(wait_elsewhere, numbers)
{
    float c[4] = {0};
    uint32_t factor[4] = {0};
    if (threadIdx.x == 7)
        __syncthreads();
    else
        multiply_add(c, factor, factor);
    a.to[thread_number()] = c[0];
}

static void launch_missing_a_product(void)
{
    numbers a = args();
    DURE_LAUNCH(miss_a_product, 1, 1, BLOCK, 0, NULL, a);
}

static void launch_doing_something_else(void)
{
    numbers a = args();
    DURE_LAUNCH(do_something_else, 1, 1, BLOCK, 0, NULL, a);
}

static void launch_waiting_elsewhere(void)
{
    numbers a = args();
    DURE_LAUNCH(wait_elsewhere, 1, 1, BLOCK, 0, NULL, a);
}

static void test_cuda_emulation_stops_where_a_lane_does_not_come(void **state)
{
    (void)state;
    assert_stops(launch_missing_a_product);
    assert_stops(launch_doing_something_else);
    assert_stops(launch_waiting_elsewhere);
}

/* The sum over a warp, by halves. */
DURE_KERNEL(sum_in_warps, numbers)
{
    float x = a.from[thread_number()];
    for (int mask = LANES / 2; mask > 0; mask /= 2)
        x += other_lane(x, mask);
    a.to[thread_number()] = x;
}

static void test_cuda_emulation_swaps_between_lanes(void **state)
{
    (void)state;
    numbers a = args();
    DURE_LAUNCH(sum_in_warps, BLOCKS, 1, BLOCK, 0, NULL, a);
    for (size_t i = 0; i < BLOCKS * BLOCK; i++) {
        float sum = 0;
        for (size_t j = i / LANES * LANES; j < (i / LANES + 1) * LANES; j++)
            sum += from[j];
        assert_true(to[i] == sum);
    }
}

/* Rows of 16 elements, one behind the other: rows 4 apart lie in the same banks. */
DURE_KERNEL(load_without_room_between_rows, numbers)
{
    DURE_SHARED(shared);
    uint32_t x[4];
    load_left(x, (uint16_t *)shared, 0, 0, 16);
    a.to[thread_number()] = (float)x[0];
}

static void test_cuda_emulation_counts_bank_conflicts(void **state)
{
    (void)state;
    numbers a = args();
    check_product(0);
    assert_int_equal(dure_emulated_bank_conflicts(), 0);
    DURE_LAUNCH(load_without_room_between_rows, 1, 1, LANES, 512, NULL, a);
    assert_int_equal(dure_emulated_bank_conflicts(), 4);
}

/* --- copies --- */

/* Two groups of copies, of which the first is waited for; then what of both has arrived. The last
 * thread asks for nothing but zeros. */
DURE_KERNEL(copy_in_groups, numbers)
{
    DURE_SHARED(shared);
    unsigned t = threadIdx.x;
    copy_4(shared + t, a.from + t, t + 1 < blockDim.x);
    copies_end_group();
    copy_4(shared + blockDim.x + t, a.from + t, 1);
    copies_end_group();
    copies_wait_but_last();
    a.to[t] = shared[t];
    a.to[blockDim.x + t] = shared[blockDim.x + t];
    copies_wait();
}

/* The same without waiting. */
DURE_KERNEL(copy_without_waiting, numbers)
{
    DURE_SHARED(shared);
    copy_4(shared + threadIdx.x, a.from + threadIdx.x, 1);
    copies_end_group();
    a.to[threadIdx.x] = 0;
}

static void launch_without_waiting(void)
{
    numbers a = args();
    DURE_LAUNCH(copy_without_waiting, 1, 1, BLOCK, BLOCK * sizeof(float), NULL, a);
}

static void test_cuda_emulation_copies_late_or_at_once(void **state)
{
    (void)state;
    numbers a = args();
    for (int reverse = 0; reverse < 2; reverse++) {
        dure_emulated_reverse(reverse);
        DURE_LAUNCH(copy_in_groups, 1, 1, BLOCK, 2 * BLOCK * sizeof(float), NULL, a);
        for (size_t i = 0; i < BLOCK; i++) {
            assert_true(to[i] == (i + 1 < BLOCK ? from[i] : 0));
            assert_true(reverse ? to[BLOCK + i] == from[i] : isnan(to[BLOCK + i]));
        }
    }
    dure_emulated_reverse(false);
    assert_stops(launch_without_waiting);
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
        cmocka_unit_test(test_cuda_emulation_multiplies_in_a_warp),
        cmocka_unit_test(test_cuda_emulation_passes_sums_on_as_a_factor),
        cmocka_unit_test(test_cuda_emulation_stops_where_a_lane_does_not_come),
        cmocka_unit_test(test_cuda_emulation_swaps_between_lanes),
        cmocka_unit_test(test_cuda_emulation_counts_bank_conflicts),
        cmocka_unit_test(test_cuda_emulation_copies_late_or_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
