#include "dp/fixed.h"

#include <math.h>
#include <stdbool.h>

typedef unsigned __int128 wide;

dure_fixed dure_fixed_add(dure_fixed a, dure_fixed b)
{
    wide carry = 0;
    for (int i = 0; i < 5; i++) {
        carry += (wide)a.limb[i] + b.limb[i];
        a.limb[i] = (uint64_t)carry;
        carry >>= 64;
    }
    return a;
}

dure_fixed dure_fixed_sub(dure_fixed a, dure_fixed b)
{
    uint64_t borrow = 0;
    for (int i = 0; i < 5; i++) {
        wide gap = (wide)a.limb[i] - b.limb[i] - borrow;
        a.limb[i] = (uint64_t)gap;
        borrow = (uint64_t)(gap >> 64) & 1;
    }
    return a;
}

dure_fixed dure_fixed_mul(dure_fixed a, dure_fixed b)
{
    uint64_t product[10] = {0};
    for (int i = 0; i < 5; i++) {
        wide carry = 0;
        for (int j = 0; j < 5; j++) {
            carry += (wide)a.limb[i] * b.limb[j] + product[i + j];
            product[i + j] = (uint64_t)carry;
            carry >>= 64;
        }
        product[i + 5] = (uint64_t)carry;
    }
    return (dure_fixed){{product[4], product[5], product[6], product[7], product[8]}};
}

dure_fixed dure_fixed_times(dure_fixed a, uint64_t b)
{
    wide carry = 0;
    for (int i = 0; i < 5; i++) {
        carry += (wide)a.limb[i] * b;
        a.limb[i] = (uint64_t)carry;
        carry >>= 64;
    }
    return a;
}

dure_fixed dure_fixed_over(dure_fixed a, uint64_t b)
{
    wide rest = 0;
    for (int i = 4; i >= 0; i--) {
        rest = rest << 64 | a.limb[i];
        a.limb[i] = (uint64_t)(rest / b);
        rest %= b;
    }
    return a;
}

dure_fixed dure_fixed_ratio(unsigned __int128 num, unsigned __int128 den)
{
    dure_fixed a = {{0}};
    for (int i = 255; i >= 0; i--) {
        num <<= 1;
        bool one = num >= den;
        if (one) num -= den;
        a.limb[i / 64] |= (uint64_t)one << (i % 64);
    }
    return a;
}

static bool is_zero(const dure_fixed *a)
{
    return !(a->limb[0] | a->limb[1] | a->limb[2] | a->limb[3] | a->limb[4]);
}

/* The alternating series; its terms fall, and each is cut off by less than 2^-254, of which there
 * are fewer than 64. */
dure_fixed dure_fixed_exp_minus(dure_fixed x)
{
    dure_fixed even = dure_fixed_of(1), odd = dure_fixed_of(0), term = even;
    for (uint64_t k = 1; !is_zero(&term); k++) {
        term = dure_fixed_over(dure_fixed_mul(term, x), k);
        if (k % 2)
            odd = dure_fixed_add(odd, term);
        else
            even = dure_fixed_add(even, term);
    }
    return dure_fixed_sub(even, odd);
}

/* Newton's x (2 - a x): the error's square each time, from below after the first. */
dure_fixed dure_fixed_inverse(dure_fixed a)
{
    double guess = 1 / dure_fixed_to_double(a) * (1 - 0x1p-50);
    dure_fixed x = {{0, 0, 0, (uint64_t)ldexp(guess, 64), 0}};
    if (guess >= 1) x = dure_fixed_of(1);
    for (int i = 0; i < 4; i++)
        x = dure_fixed_mul(x, dure_fixed_sub(dure_fixed_of(2), dure_fixed_mul(a, x)));
    return x;
}

double dure_fixed_to_double(dure_fixed a)
{
    double sum = 0;
    for (int i = 0; i < 5; i++)
        sum += ldexp((double)a.limb[i], 64 * (i - 4));
    return sum;
}
