/* The mask kernel. Its cost is AES alone: key stream is made 4 KiB at a time into a buffer that
 * stays in the first-level cache and is added from there, 24-bit words straight from their packed
 * form, in the 32-bit accumulators that wrap by themselves; the modulus is applied once at the end
 * of a tile. Larger tiles measured 1.5 times slower. AES is crypto/vaes.h where the CPU has it, and
 * OpenSSL's elsewhere. */
#include "crypto/mask.h"

#include "crypto/algorithms_int.h"
#include "crypto/vaes.h"
#include "crypto/wipe.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum {
    BLOCK_BYTES = 16,
    TILE_WORDS_24 = 1344, /* 4032 bytes */
    TILE_WORDS_32 = 1024, /* 4096 bytes */
    TILE_BYTES = 4096,
    /* A first block that begins before the tile, whole strides of blocks, and wide loads that read
     * past the last word. */
    TILE_SPARE = BLOCK_BYTES + BLOCK_BYTES * DURE_VAES_STRIDE + 64,
    ADD_TAIL_WORDS = 32, /* more bytes than a wide load */
};
static_assert(TILE_WORDS_24 * 3 % 64 == 0 && TILE_WORDS_24 * 3 <= TILE_BYTES, "whole cache lines");

static const uint64_t blocks_max = (UINT64_C(1) << 32) - 1;

struct dure_mask_stream {
    const dure_vaes *vaes; /* NULL: `cipher` is used */
    dure_vaes_key key;
    EVP_CIPHER_CTX *cipher;
};

static dure_err start_cipher(dure_mask_stream *stream, const uint8_t key[DURE_MASK_KEY_BYTES])
{
    static const uint8_t counter_zero[BLOCK_BYTES];
    const dure_algorithms *algorithms = dure_algorithms_get();
    stream->cipher = algorithms ? EVP_CIPHER_CTX_new() : NULL;
    if (!stream->cipher ||
        EVP_EncryptInit_ex2(stream->cipher, algorithms->aes_256_ctr, key, counter_zero, NULL) != 1)
        return DURE_ERR_CRYPTO;
    return DURE_OK;
}

static dure_err stream_new(dure_mask_stream **out, const uint8_t key[DURE_MASK_KEY_BYTES],
                           const dure_vaes *vaes)
{
    dure_err err = DURE_OK;
    *out = NULL;
    dure_mask_stream *stream = calloc(1, sizeof *stream);
    if (!stream) return DURE_ERR_NOMEM;
    stream->vaes = vaes;
    if (vaes)
        vaes->expand(&stream->key, key);
    else
        err = start_cipher(stream, key);
    if (err)
        dure_mask_stream_free(&stream);
    else
        *out = stream;
    return err;
}

dure_err dure_mask_stream_new(dure_mask_stream **out, const uint8_t key[DURE_MASK_KEY_BYTES])
{
    return stream_new(out, key, dure_vaes_get());
}

dure_err dure_mask_stream_new_openssl(dure_mask_stream **out,
                                      const uint8_t key[DURE_MASK_KEY_BYTES])
{
    return stream_new(out, key, NULL);
}

dure_err dure_mask_stream_copy(dure_mask_stream **out, const dure_mask_stream *stream)
{
    *out = NULL;
    dure_mask_stream *copy = calloc(1, sizeof *copy);
    if (!copy) return DURE_ERR_NOMEM;
    copy->vaes = stream->vaes;
    copy->key = stream->key;
    if (stream->cipher) {
        copy->cipher = EVP_CIPHER_CTX_new();
        if (!copy->cipher || EVP_CIPHER_CTX_copy(copy->cipher, stream->cipher) != 1) {
            dure_mask_stream_free(&copy);
            return DURE_ERR_CRYPTO;
        }
    }
    *out = copy;
    return DURE_OK;
}

void dure_mask_stream_free(dure_mask_stream **stream)
{
    if (!stream || !*stream) return;
    EVP_CIPHER_CTX_free((*stream)->cipher); /* OpenSSL wipes its key schedule */
    dure_wipe(&(*stream)->key, sizeof(*stream)->key);
    free(*stream);
    *stream = NULL;
}

/* The next n key-stream bytes, n <= TILE_BYTES. */
static dure_err next_bytes(dure_mask_stream *stream, uint8_t *out, size_t n)
{
    static const uint8_t zeros[TILE_BYTES];
    int made = 0;
    if (n == 0) return DURE_OK;
    if (EVP_EncryptUpdate(stream->cipher, out, &made, zeros, (int)n) != 1 || made != (int)n) {
        return DURE_ERR_CRYPTO;
    }
    return DURE_OK;
}

/* Puts OpenSSL's stream at a byte offset: the counter is the block's number, and the bytes of that
 * block before the offset are dropped. */
static dure_err seek(dure_mask_stream *stream, uint64_t offset)
{
    if (stream->vaes) return DURE_OK;
    uint8_t counter[BLOCK_BYTES] = {0}, dropped[BLOCK_BYTES];
    uint64_t block = offset / BLOCK_BYTES;
    for (size_t i = 0; i < 8; i++)
        counter[BLOCK_BYTES - 1 - i] = (uint8_t)(block >> (8 * i));
    if (EVP_EncryptInit_ex2(stream->cipher, NULL, NULL, counter, NULL) != 1) return DURE_ERR_CRYPTO;
    dure_err err = next_bytes(stream, dropped, (size_t)(offset % BLOCK_BYTES));
    dure_wipe(dropped, sizeof dropped);
    return err;
}

static uint32_t load_word(const uint8_t *bytes, unsigned bits)
{
    uint32_t word = bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16;
    return bits == 24 ? word : word | (uint32_t)bytes[3] << 24;
}

/* words[i] += word i of `key_stream`, or -= it; wraps modulo 2^32. */
static void apply_plain(uint32_t *words, const uint8_t *key_stream, size_t n, unsigned bits,
                        bool subtract)
{
    size_t step = bits / 8;
    for (size_t i = 0; i < n; i++) {
        uint32_t word = load_word(key_stream + i * step, bits);
        words[i] += subtract ? 0 - word : word;
    }
}

#if defined(__x86_64__)
/* Eight words at a time: 24 bytes are loaded as two overlapping halves and spread to 32 bits by one
 * shuffle. Reads up to 4 bytes past the last word. */
__attribute__((target("avx2"))) static void apply_avx2(uint32_t *words, const uint8_t *key_stream,
                                                       size_t n, unsigned bits, bool subtract)
{
    const __m256i spread = _mm256_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1, 0,
                                            1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1);
    const __m256i sign = _mm256_set1_epi32(subtract ? -1 : 0);
    size_t step = bits / 8, i = 0;
    for (; i + 8 <= n; i += 8) {
        const uint8_t *from = key_stream + i * step;
        __m256i word;
        if (bits == 24) {
            __m128i low = _mm_loadu_si128((const __m128i *)(const void *)from);
            __m128i high = _mm_loadu_si128((const __m128i *)(const void *)(from + 12));
            word = _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
            word = _mm256_shuffle_epi8(word, spread);
        } else {
            word = _mm256_loadu_si256((const __m256i *)(const void *)from);
        }
        /* Two's complement: (word ^ -1) - -1 is the negative. */
        word = _mm256_sub_epi32(_mm256_xor_si256(word, sign), sign);
        __m256i *to = (__m256i *)(void *)(words + i);
        _mm256_storeu_si256(to, _mm256_add_epi32(_mm256_loadu_si256(to), word));
    }
    apply_plain(words + i, key_stream + i * step, n - i, bits, subtract);
}
#endif

static void apply(uint32_t *words, const uint8_t *key_stream, size_t n, unsigned bits,
                  bool subtract)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) {
        apply_avx2(words, key_stream, n, bits, subtract);
        return;
    }
#endif
    apply_plain(words, key_stream, n, bits, subtract);
}

/* words[0..n) += the stream's words from byte `offset` on, or -= them. `tile` is the buffer. */
static dure_err apply_stream(uint32_t *words, size_t n, const dure_mask_term *term, uint64_t offset,
                             unsigned bits, uint8_t *tile)
{
    dure_mask_stream *stream = term->stream;
    size_t n_bytes = n * (bits / 8), before = (size_t)(offset % BLOCK_BYTES);
    if (stream->vaes) {
        size_t n_blocks = (before + n_bytes + BLOCK_BYTES - 1) / BLOCK_BYTES;
        stream->vaes->key_stream(tile, n_blocks, &stream->key, offset / BLOCK_BYTES);
        stream->vaes->add_words(words, tile + before, n, bits, term->subtract);
        return DURE_OK;
    }
    dure_err err = next_bytes(stream, tile, n_bytes);
    if (!err) apply(words, tile, n, bits, term->subtract);
    return err;
}

static dure_err check(const dure_mask_range *range)
{
    if (range->bits != 24 && range->bits != 32) return DURE_ERR_USAGE;
    uint64_t words_max = blocks_max * BLOCK_BYTES / (range->bits / 8);
    if (range->first > words_max || range->n > words_max - range->first) return DURE_ERR_LIMIT;
    return DURE_OK;
}

static dure_err apply_tiles(uint32_t *words, const dure_mask_range *range,
                            const dure_mask_term *terms, size_t n_terms, uint8_t *key_stream)
{
    const size_t step = range->bits / 8;
    const size_t tile = range->bits == 24 ? TILE_WORDS_24 : TILE_WORDS_32;
    const uint32_t modulus = range->bits == 24 ? 0xffffff : 0xffffffff;
    size_t at = 0;
    while (at < range->n) {
        /* Only the first tile may begin inside a block; the others stay aligned. */
        size_t n = tile - (size_t)((range->first + at) % tile);
        if (n > range->n - at) n = range->n - at;
        for (size_t k = 0; k < n_terms; k++) {
            dure_err err = apply_stream(words + at, n, &terms[k], (range->first + at) * step,
                                        range->bits, key_stream);
            if (err) return err;
        }
        for (size_t i = 0; i < n; i++)
            words[at + i] &= modulus;
        at += n;
    }
    return DURE_OK;
}

dure_err dure_mask_apply(uint32_t *words, const dure_mask_range *range, const dure_mask_term *terms,
                         size_t n_terms)
{
    /* Zeroed because the wide loads take a few bytes past the key stream, and shuffle them away. */
    uint8_t key_stream[TILE_BYTES + TILE_SPARE] = {0};
    dure_err err = check(range);
    for (size_t k = 0; !err && k < n_terms; k++)
        err = seek(terms[k].stream, range->first * (range->bits / 8));
    if (!err) err = apply_tiles(words, range, terms, n_terms, key_stream);
    dure_wipe(key_stream, sizeof key_stream);
    if (err) dure_wipe(words, range->n * sizeof *words);
    return err;
}

void dure_mask_add_packed(uint32_t *words, const uint8_t *bytes, size_t n, unsigned bits)
{
    DURE_ASSERT(bits == 24 || bits == 32);
    /* The wide loads read past their last word: they end before the bytes do. */
    size_t wide = n > ADD_TAIL_WORDS ? n - ADD_TAIL_WORDS : 0;
    const dure_vaes *vaes = dure_vaes_get();
    if (vaes)
        vaes->add_words(words, bytes, wide, bits, false);
    else
        apply(words, bytes, wide, bits, false);
    apply_plain(words + wide, bytes + wide * (bits / 8), n - wide, bits, false);
}

void dure_mask_pack(uint8_t *bytes, const uint32_t *words, size_t n, unsigned bits)
{
    size_t step = bits / 8;
    DURE_ASSERT(bits == 24 || bits == 32);
    for (size_t i = 0; i < n; i++) {
        uint8_t *to = bytes + i * step;
        to[0] = (uint8_t)words[i];
        to[1] = (uint8_t)(words[i] >> 8);
        to[2] = (uint8_t)(words[i] >> 16);
        if (bits == 32) to[3] = (uint8_t)(words[i] >> 24);
    }
}

uint32_t dure_mask_word(int64_t value, unsigned bits)
{
    DURE_ASSERT(bits == 24 || bits == 32);
    return (uint32_t)((uint64_t)value & (UINT64_MAX >> (64 - bits)));
}

int64_t dure_mask_value(uint32_t word, unsigned bits)
{
    DURE_ASSERT(bits == 24 || bits == 32);
    int64_t half = INT64_C(1) << (bits - 1);
    return ((int64_t)word ^ half) - half;
}
