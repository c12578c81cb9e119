/* What this CPU's multipliers can do at best, measured: the yardstick for every product. */
#pragma once

#include "kernels/compute.h"

/* GFLOP/s of the level's multiplications on all threads of the pool, from registers alone: the
 * best of `tries` runs of a few milliseconds. */
double dure_peak_gflops(const dure_compute *c, unsigned tries);
