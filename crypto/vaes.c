#include "crypto/vaes.h"

#include "crypto/wipe.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define VAES __attribute__((target("aes,avx512f,avx512bw,avx512vbmi,vaes")))
enum { ROUNDS = 14, LANES = DURE_VAES_STRIDE / 4 };

/* w ^ (w << 32) ^ (w << 64) ^ (w << 96): the running exclusive or of the four words. */
VAES static inline __m128i running_xor(__m128i w)
{
    w = _mm_xor_si128(w, _mm_slli_si128(w, 4));
    return _mm_xor_si128(w, _mm_slli_si128(w, 8));
}

/* The next even round key, from the two before it. The round constant must be an immediate. */
#define EVEN_KEY(two_back, last, constant)                                                         \
    _mm_xor_si128(running_xor(two_back),                                                           \
                  _mm_shuffle_epi32(_mm_aeskeygenassist_si128(last, constant), 0xff))
#define ODD_KEY(two_back, last)                                                                    \
    _mm_xor_si128(running_xor(two_back),                                                           \
                  _mm_shuffle_epi32(_mm_aeskeygenassist_si128(last, 0), 0xaa))

VAES static void expand(dure_vaes_key *out, const uint8_t key[32])
{
    __m128i k[ROUNDS + 1];
    k[0] = _mm_loadu_si128((const __m128i *)(const void *)key);
    k[1] = _mm_loadu_si128((const __m128i *)(const void *)(key + 16));
    k[2] = EVEN_KEY(k[0], k[1], 0x01), k[3] = ODD_KEY(k[1], k[2]);
    k[4] = EVEN_KEY(k[2], k[3], 0x02), k[5] = ODD_KEY(k[3], k[4]);
    k[6] = EVEN_KEY(k[4], k[5], 0x04), k[7] = ODD_KEY(k[5], k[6]);
    k[8] = EVEN_KEY(k[6], k[7], 0x08), k[9] = ODD_KEY(k[7], k[8]);
    k[10] = EVEN_KEY(k[8], k[9], 0x10), k[11] = ODD_KEY(k[9], k[10]);
    k[12] = EVEN_KEY(k[10], k[11], 0x20), k[13] = ODD_KEY(k[11], k[12]);
    k[14] = EVEN_KEY(k[12], k[13], 0x40);
    for (int i = 0; i <= ROUNDS; i++)
        _mm_storeu_si128((__m128i *)(void *)out->rounds[i], k[i]);
    dure_wipe(k, sizeof k);
}

/* Four consecutive counter blocks from number `first` on, whose low 64 bits do not wrap. */
VAES static inline __m512i counters(uint64_t first)
{
    const __m512i swap =
        _mm512_broadcast_i32x4(_mm_setr_epi8(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
    __m512i number = _mm512_set_epi64(0, 3, 0, 2, 0, 1, 0, 0);
    number = _mm512_add_epi64(number, _mm512_maskz_set1_epi64(0x55, (int64_t)first));
    return _mm512_shuffle_epi8(number, swap);
}

VAES static void key_stream(uint8_t *out, size_t n_blocks, const dure_vaes_key *key, uint64_t first)
{
    __m512i round[ROUNDS + 1];
    for (int i = 0; i <= ROUNDS; i++)
        round[i] =
            _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)key->rounds[i]));
    for (size_t at = 0; at < n_blocks; at += DURE_VAES_STRIDE) {
        __m512i lane[LANES];
        for (int i = 0; i < LANES; i++)
            lane[i] = _mm512_xor_si512(counters(first + at + 4 * (size_t)i), round[0]);
        for (int r = 1; r < ROUNDS; r++)
            for (int i = 0; i < LANES; i++)
                lane[i] = _mm512_aesenc_epi128(lane[i], round[r]);
        for (int i = 0; i < LANES; i++) {
            lane[i] = _mm512_aesenclast_epi128(lane[i], round[ROUNDS]);
            _mm512_storeu_si512(out + 16 * (at + 4 * (size_t)i), lane[i]);
        }
    }
    dure_wipe(round, sizeof round);
}

/* Bytes of 16 packed words of 24 bits, each to the low three bytes of its 32-bit word. */
VAES static inline __m512i spread(void)
{
    uint8_t from[64] = {0};
    for (int i = 0; i < 64; i++)
        from[i] = (uint8_t)(i / 4 * 3 + i % 4);
    return _mm512_loadu_si512(from);
}

VAES static void add_words(uint32_t *words, const uint8_t *packed, size_t n, unsigned bits,
                           bool subtract)
{
    const __m512i spread_24 = spread();
    const __mmask64 low_bytes = bits == 24 ? 0x7777777777777777u : UINT64_MAX;
    size_t step = bits / 8;
    for (size_t i = 0; i < n; i += 16) {
        __mmask16 here = (__mmask16)(n - i < 16 ? (1u << (n - i)) - 1 : 0xffffu);
        __m512i word = _mm512_loadu_si512(packed + i * step);
        if (bits == 24) word = _mm512_maskz_permutexvar_epi8(low_bytes, spread_24, word);
        __m512i sum = _mm512_maskz_loadu_epi32(here, words + i);
        sum = subtract ? _mm512_sub_epi32(sum, word) : _mm512_add_epi32(sum, word);
        _mm512_mask_storeu_epi32(words + i, here, sum);
    }
}

const dure_vaes *dure_vaes_get(void)
{
    static const dure_vaes table = {expand, key_stream, add_words};
    bool here = __builtin_cpu_supports("aes") && __builtin_cpu_supports("avx512f") &&
                __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vbmi") &&
                __builtin_cpu_supports("vaes");
    return here ? &table : NULL;
}

#else

const dure_vaes *dure_vaes_get(void)
{
    return NULL;
}

#endif
