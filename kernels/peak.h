/* What this CPU's multipliers and its memory can do at best, measured: the yardsticks of a profile.
 */
#pragma once

#include "kernels/compute.h"

/* GFLOP/s of the level's multiplications on all threads of the pool, from registers alone: the
 * best of `tries` runs of a few milliseconds. */
double dure_peak_gflops(const dure_compute *c, unsigned tries);
/* GB/s that all threads read from memory, from more of it than a cache holds; 0: no room for that.
 */
double dure_peak_gbytes(const dure_compute *c);
