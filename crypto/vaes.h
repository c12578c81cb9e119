/* AES-256-CTR key stream on CPUs that encrypt four blocks an instruction (AVX-512 with VAES and
 * VBMI), about four times as fast as OpenSSL's one block an instruction. OpenSSL gets there in
 * releases that the systems Dure supports do not have.
 *
 * No table is looked up and nothing branches on a key: constant time. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct dure_vaes_key {
    uint8_t rounds[15][16];
} dure_vaes_key;

enum { DURE_VAES_STRIDE = 16 };

typedef struct dure_vaes {
    /* The key schedule of FIPS 197, section 5.2. The caller wipes it. */
    void (*expand)(dure_vaes_key *out, const uint8_t key[32]);
    /* The key-stream blocks first, first + 1, ...: AES-256 of the block's number as a 128-bit
     * big-endian integer. Writes n_blocks, rounded up to whole DURE_VAES_STRIDEs. */
    void (*key_stream)(uint8_t *out, size_t n_blocks, const dure_vaes_key *key, uint64_t first);
    /* words[i] += word i of `key_stream` in words of 24 or 32 bits, or -= it; wraps modulo 2^32.
     * Reads up to 63 bytes past the last word. */
    void (*add_words)(uint32_t *words, const uint8_t *key_stream, size_t n, unsigned bits,
                      bool subtract);
} dure_vaes;

/* NULL where the CPU or the architecture has no such instructions. */
const dure_vaes *dure_vaes_get(void);
