#include "dp/fixed.h"
#include "support/check.h"

#include <math.h>

/* a - b, of either sign, in units of 2^-256; out of range for large ones. */
static double gap(dure_fixed a, dure_fixed b)
{
    double forth = dure_fixed_to_double(dure_fixed_sub(a, b));
    double back = dure_fixed_to_double(dure_fixed_sub(b, a));
    return forth < back ? ldexp(forth, 256) : -ldexp(back, 256);
}

static void test_fixed_ratio_and_product_invert(void **state)
{
    (void)state;
    const uint64_t den[] = {2, 3, 7, 1000, UINT64_MAX};
    for (size_t i = 0; i < 5; i++) {
        dure_fixed third = dure_fixed_ratio(1, den[i]);
        double off = gap(dure_fixed_of(1), dure_fixed_times(third, den[i]));
        assert_true(off >= 0 && off < (double)den[i]);
        assert_true(gap(dure_fixed_over(dure_fixed_of(1), den[i]), third) == 0);
    }
}

static void test_fixed_product_is_cut_off(void **state)
{
    (void)state;
    dure_fixed a = dure_fixed_ratio(2, 3), b = dure_fixed_of(6), c = dure_fixed_ratio(3, 7);
    assert_true(gap(dure_fixed_of(4), dure_fixed_mul(a, b)) < 8);
    double off = gap(dure_fixed_ratio(2, 7), dure_fixed_mul(a, c));
    assert_true(off >= 0 && off <= 3);
    assert_true(gap(dure_fixed_mul(a, c), dure_fixed_mul(c, a)) == 0);
}

static void test_fixed_exp_is_a_homomorphism(void **state)
{
    (void)state;
    const unsigned num[] = {1, 1, 3, 99};
    const unsigned den[] = {2, 512, 1000, 100};
    for (size_t i = 0; i < 4; i++) {
        dure_fixed x = dure_fixed_ratio(num[i], den[i]), half = dure_fixed_over(x, 2);
        dure_fixed whole = dure_fixed_exp_minus(x), root = dure_fixed_exp_minus(half);
        assert_true(fabs(gap(whole, dure_fixed_mul(root, root))) < 64);
        assert_true(fabs(dure_fixed_to_double(whole) - exp(-(double)num[i] / den[i])) < 1e-15);
    }
    /* 1 / e in hexadecimal, to 128 bits. */
    dure_fixed e = dure_fixed_exp_minus(dure_fixed_of(1));
    assert_true(e.limb[4] == 0 && e.limb[3] == 0x5e2d58d8b3bcdf1a &&
                e.limb[2] == 0xbadec7829054f90d);
}

static void test_fixed_inverse_is_right_to_200_bits(void **state)
{
    (void)state;
    const uint64_t of[] = {1, 3, 40, 13140, 4000000000};
    for (size_t i = 0; i < 5; i++) {
        dure_fixed a = dure_fixed_add(dure_fixed_of(of[i]), dure_fixed_ratio(1, 3));
        dure_fixed one = dure_fixed_mul(a, dure_fixed_inverse(a));
        assert_true(fabs(gap(dure_fixed_of(1), one)) < 0x1p56);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fixed_ratio_and_product_invert),
        cmocka_unit_test(test_fixed_product_is_cut_off),
        cmocka_unit_test(test_fixed_exp_is_a_homomorphism),
        cmocka_unit_test(test_fixed_inverse_is_right_to_200_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
