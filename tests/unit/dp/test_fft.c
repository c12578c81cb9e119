#include "dp/fft.h"
#include "support/check.h"
#include "support/seeded_rng.h"

#include <math.h>

enum { MOST = 4096 };

static double re[MOST], im[MOST], from_re[MOST], from_im[MOST];

/* Numbers in [-1, 1), a third of them tiny. */
static void fill(size_t n, uint64_t seed)
{
    seeded_rng seeded;
    dure_rng rng = seeded_rng_of(&seeded, seed);
    for (size_t j = 0; j < n; j++) {
        int32_t words[2];
        assert_ok(dure_rng_fill(&rng, words, sizeof words));
        double scale = j % 3 ? 0x1p-31 : 0x1p-71;
        re[j] = from_re[j] = words[0] * scale;
        im[j] = from_im[j] = words[1] * scale;
    }
}

/* sum over j of x_j exp(-2 pi i j k / n) in long double. */
static void direct(long double *out_re, long double *out_im, size_t n, size_t k)
{
    *out_re = *out_im = 0;
    for (size_t j = 0; j < n; j++) {
        long double angle = 2 * M_PIl * (long double)(j * k % n) / (long double)n;
        long double c = cosl(angle), s = -sinl(angle);
        *out_re += from_re[j] * c - from_im[j] * s;
        *out_im += from_re[j] * s + from_im[j] * c;
    }
}

static void check_bound(size_t n)
{
    dure_fft fft;
    double moduli = 0;
    assert_ok(dure_fft_init(&fft, n));
    fill(n, n);
    dure_fft_forward(&fft, re, im);
    for (size_t j = 0; j < n; j++)
        moduli += hypot(from_re[j], from_im[j]);
    for (size_t k = 0; k < n; k += n > 512 ? 37 : 1) {
        long double want_re, want_im;
        direct(&want_re, &want_im, n, k);
        double off = (double)hypotl(re[k] - want_re, im[k] - want_im);
        if (off > dure_fft_error(&fft) * moduli) fail_msg("n %zu, k %zu: off by %g", n, k, off);
    }
    dure_fft_fini(&fft);
}

/* All of it, by the norm; inputs of one number and of many are the extremes. */
static void check_norm(size_t n, size_t n_filled)
{
    dure_fft fft;
    double length = 0, off = 0;
    assert_ok(dure_fft_init(&fft, n));
    fill(n, 5 * n);
    for (size_t j = n_filled; j < n; j++)
        re[j] = im[j] = from_re[j] = from_im[j] = 0;
    dure_fft_forward(&fft, re, im);
    for (size_t k = 0; k < n; k++) {
        long double want_re, want_im;
        direct(&want_re, &want_im, n, k);
        long double a = re[k] - want_re, b = im[k] - want_im;
        off += (double)(a * a + b * b);
        length += from_re[k] * from_re[k] + from_im[k] * from_im[k];
    }
    double bound = dure_fft_error_norm(&fft) * sqrt((double)n) * sqrt(length);
    if (sqrt(off) > bound) fail_msg("n %zu: off by %g, not %g", n, sqrt(off), bound);
    dure_fft_fini(&fft);
}

static void test_fft_is_within_its_bound_by_the_norm(void **state)
{
    (void)state;
    for (size_t n = 2; n <= 1024; n *= 2) {
        check_norm(n, n);
        check_norm(n, 2);
    }
}

static void test_fft_is_within_its_bound(void **state)
{
    (void)state;
    for (size_t n = 2; n <= MOST; n *= 2)
        check_bound(n);
}

static void test_fft_bound_is_small(void **state)
{
    (void)state;
    dure_fft fft;
    assert_ok(dure_fft_init(&fft, MOST));
    assert_true(dure_fft_error(&fft) > 4e-15 && dure_fft_error(&fft) < 7e-15);
    assert_true(dure_fft_error_norm(&fft) > 8e-15 && dure_fft_error_norm(&fft) < 1.4e-14);
    dure_fft_fini(&fft);
}

static void test_fft_backward_inverts(void **state)
{
    (void)state;
    for (size_t n = 2; n <= MOST; n *= 2) {
        dure_fft fft;
        assert_ok(dure_fft_init(&fft, n));
        fill(n, 3 * n);
        dure_fft_forward(&fft, re, im);
        dure_fft_backward(&fft, re, im);
        for (size_t j = 0; j < n; j++) {
            assert_true(fabs(re[j] / (double)n - from_re[j]) < 1e-13);
            assert_true(fabs(im[j] / (double)n - from_im[j]) < 1e-13);
        }
        dure_fft_fini(&fft);
    }
}

static void test_fft_refuses_lengths_that_are_no_power_of_two(void **state)
{
    (void)state;
    const size_t wrong[] = {0, 1, 3, 12, 1000, SIZE_MAX, SIZE_MAX / 2 + 1};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        dure_fft fft;
        assert_err(dure_fft_init(&fft, wrong[i]), DURE_ERR_USAGE);
        dure_fft_fini(&fft);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fft_is_within_its_bound),
        cmocka_unit_test(test_fft_is_within_its_bound_by_the_norm),
        cmocka_unit_test(test_fft_bound_is_small),
        cmocka_unit_test(test_fft_backward_inverts),
        cmocka_unit_test(test_fft_refuses_lengths_that_are_no_power_of_two),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
