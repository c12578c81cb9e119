#include "crypto/wipe.h"
#include "support/check.h"

#include <stdint.h>

static void test_wipe_zeroes_and_takes_nothing(void **state)
{
    (void)state;
    uint8_t secret[3] = {1, 2, 3};
    static const uint8_t want[3] = {0, 0, 3};
    dure_wipe(secret, 2);
    assert_memory_equal(secret, want, 3);
    dure_wipe(NULL, 0);
}

static void test_ct_equal_compares_every_byte(void **state)
{
    (void)state;
    uint8_t a[16] = {0}, b[16] = {0};
    assert_true(dure_ct_equal(a, b, 16));
    for (size_t i = 0; i < 16; i++) {
        b[i] = 0x80;
        assert_false(dure_ct_equal(a, b, 16));
        assert_true(dure_ct_equal(a, b, i));
        b[i] = 0;
    }
    assert_true(dure_ct_equal(NULL, NULL, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wipe_zeroes_and_takes_nothing),
        cmocka_unit_test(test_ct_equal_compares_every_byte),
    };
    return cmocka_run_group_tests_name("crypto.wipe", tests, NULL, NULL);
}
