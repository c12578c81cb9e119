/* The wire alone: n peers send as many bytes as a round's vectors have over the sockets of a
 * federation (CURVE, loopback, one receiving process), in the same frames, and nothing is done with
 * them. What a round takes is compared with this. */
#pragma once

#include "common/err.h"

#include <stddef.h>
#include <stdint.h>

/* Seconds from the first byte to the last one received, every peer being connected before. */
DURE_MUST_USE dure_err dure_bench_curve_transfer(double *seconds, uint32_t n_peers,
                                                 size_t bytes_each);
