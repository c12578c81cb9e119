/* A clip that follows a quantile of the gradients' norms (Andrew, Thakkar, McMahan, Ramaswamy,
 * arXiv 1905.03871), one more coordinate of each step's vector.
 *
 * Every unit of the step (record or subject) that contributes adds G to an integer count if its
 * norm is at most the step's clip C_t, and -G if it is above: whatever C_t is, adding or removing
 * one unit changes the count by at most G. The count gets round(N(0, (sigma_b G)^2)) before any
 * record is looked at, like the sum (dp/noise.h), and is then an estimate of G (below - above).
 * With the public L in place of the real number of units, which is not known,
 *
 *     b = 1/2 + count / (2 G L), cut to [0, 1]
 *     C_(t+1) = C_t exp(-rate (b - quantile)), cut to what a plan allows
 *
 * so every C_t is a function of public constants and of counts with noise: post-processing. What
 * count and sum cost together is in dp/plan.h.
 *
 * Only + - * / in a fixed order: the same bits on every IEEE 754 machine. */
#pragma once

#include "dp/plan.h"

#include <stdint.h>

/* C_(t+1) from C_t and the count with its noise, in grid units. `plan` adapts its clip. */
double dure_adaptive_clip_next(double clip, int64_t count, const dure_dp_plan *plan);
