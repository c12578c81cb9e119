/* Unsigned fixed-point numbers with 64 bits before the point and 256 after it, for tables that must
 * be right to more digits than any float has. Every operation cuts off below 2^-256 and says so;
 * nothing is rounded up. Numbers stay far below 2^64; beyond, results wrap. */
#pragma once

#include <stdint.h>

typedef struct dure_fixed {
    uint64_t limb[5]; /* value = sum of limb[i] 2^(64 (i - 4)) */
} dure_fixed;

static inline dure_fixed dure_fixed_of(uint64_t whole)
{
    return (dure_fixed){{0, 0, 0, 0, whole}};
}

dure_fixed dure_fixed_add(dure_fixed a, dure_fixed b);
dure_fixed dure_fixed_sub(dure_fixed a, dure_fixed b); /* a >= b */
/* Below a b by less than 2^-256. */
dure_fixed dure_fixed_mul(dure_fixed a, dure_fixed b);
/* Exact. */
dure_fixed dure_fixed_times(dure_fixed a, uint64_t b);
/* Below a / b by less than 2^-256; b is not 0. */
dure_fixed dure_fixed_over(dure_fixed a, uint64_t b);
/* num / den below 1 by less than 2^-256; num < den < 2^127. */
dure_fixed dure_fixed_ratio(unsigned __int128 num, unsigned __int128 den);
/* e^-x for x <= 1, within 2^-250. */
dure_fixed dure_fixed_exp_minus(dure_fixed x);
/* 1 / a, within 2^-200 of itself, for 1 <= a < 2^32. */
dure_fixed dure_fixed_inverse(dure_fixed a);
double dure_fixed_to_double(dure_fixed a);
