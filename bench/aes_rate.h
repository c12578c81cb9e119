/* How fast these cores make AES-256-CTR key stream when they do nothing else: what unmasking, which
 * is that and additions, cannot pass. */
#pragma once

#include "common/err.h"

/* Bytes a second on `n_threads` cores at a time, by OpenSSL, 16 KiB a call: it stays in the cache.
 */
DURE_MUST_USE dure_err dure_bench_aes_rate(double *bytes_per_second, unsigned n_threads);
