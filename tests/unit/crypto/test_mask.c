#include "crypto/mask.h"
#include "support/hex.h"

#include <openssl/evp.h>
#include <stdlib.h>

/* Blocks 0, 1 and 2 of AES-256 under the zero key, as printed in test cases 13 and 14 of McGrew and
 * Viega, "The Galois/Counter Mode of Operation": H, E(K, Y0), E(K, Y0 + 1). */
static const char zero_key_stream[] = "dc95c078a2408989ad48a21492842087"
                                      "530f8afbc74536b9a963b4f1c4cb738b"
                                      "cea7403d4d606b6e074ec5d3baf39d18";

/* The first 15 bytes of block 0 under the key 80 00 .. 00: the first of NIST's ECBVarKey256.rsp. */
static const char other_key_stream[] = "e35a6dcb19b201a01ebcfa8aa22b57";

static dure_mask_stream *stream_of(uint8_t first_key_byte)
{
    uint8_t key[32] = {first_key_byte};
    dure_mask_stream *stream = NULL;
    assert_ok(dure_mask_stream_new(&stream, key));
    return stream;
}

static void test_mask_words_match_published_aes_blocks(void **state)
{
    (void)state;
    static const unsigned widths[] = {24, 32};
    for (size_t k = 0; k < 2; k++) {
        dure_mask_stream *zero = stream_of(0), *other = stream_of(0x80);
        dure_mask_term term = {.stream = zero};
        dure_mask_range range = {.n = 48 * 8 / widths[k], .bits = widths[k]};
        uint32_t words[16] = {0};
        uint8_t bytes[48];
        assert_ok(dure_mask_apply(words, &range, &term, 1));
        dure_mask_pack(bytes, words, range.n, range.bits);
        assert_hex(bytes, 48, zero_key_stream);
        memset(words, 0, sizeof words);
        term.stream = other;
        assert_ok(dure_mask_apply(words, &range, &term, 1));
        dure_mask_pack(bytes, words, range.n, range.bits);
        assert_hex(bytes, 15, other_key_stream);
        dure_mask_stream_free(&zero);
        dure_mask_stream_free(&other);
    }
}

/* The specification word by word: AES-256-ECB of the counter block that holds each byte. */
static uint8_t key_stream_byte(const uint8_t key[32], uint64_t offset)
{
    uint8_t counter[16] = {0}, block[32];
    int n = 0;
    for (size_t i = 0; i < 8; i++)
        counter[15 - i] = (uint8_t)(offset / 16 >> (8 * i));
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    assert_int_equal(EVP_EncryptInit_ex(context, EVP_aes_256_ecb(), NULL, key, NULL), 1);
    assert_int_equal(EVP_EncryptUpdate(context, block, &n, counter, 16), 1);
    EVP_CIPHER_CTX_free(context);
    return block[offset % 16];
}

static uint32_t expected_word(const uint8_t key[32], uint64_t index, unsigned bits)
{
    uint32_t word = 0;
    for (unsigned k = 0; k < bits / 8; k++)
        word |= (uint32_t)key_stream_byte(key, index * (bits / 8) + k) << (8 * k);
    return word;
}

static void test_mask_is_the_specification_at_any_index(void **state)
{
    (void)state;
    static const uint64_t starts[] = {0, 1, 5, 15, 16, 1343, 1344, 4095, 1000003, 22906492219};
    uint8_t key[32] = {0x42, 1, 2, 3};
    dure_mask_stream *stream = NULL;
    assert_ok(dure_mask_stream_new(&stream, key));
    for (size_t s = 0; s < sizeof starts / sizeof *starts; s++) {
        for (unsigned bits = 24; bits <= 32; bits += 8) {
            if (bits == 32 && starts[s] > UINT64_C(1) << 33) continue;
            dure_mask_term term = {.stream = stream, .subtract = s % 2};
            dure_mask_range range = {.first = starts[s], .n = 21, .bits = bits};
            uint32_t words[21];
            for (uint32_t i = 0; i < 21; i++)
                words[i] = 0xf00000 + i;
            assert_ok(dure_mask_apply(words, &range, &term, 1));
            for (uint32_t i = 0; i < 21; i++) {
                uint32_t mask = expected_word(key, starts[s] + i, bits);
                uint32_t want = 0xf00000 + i + (term.subtract ? 0 - mask : mask);
                if (bits == 24) want &= 0xffffff;
                assert_int_equal(words[i], want);
            }
        }
    }
    dure_mask_stream_free(&stream);
}

/* The CPU's wide instructions (crypto/vaes.h) against OpenSSL, over tiles and odd ends; on a CPU
 * without them both sides are OpenSSL's. */
static void test_mask_is_the_same_with_and_without_wide_instructions(void **state)
{
    (void)state;
    enum { N = 9001 };
    static uint32_t wide[N], plain[N];
    static const size_t lengths[] = {1, 15, 16, 17, 1343, 1345, 2688, N};
    for (size_t i = 0; i < 64; i++) {
        uint8_t key[32];
        dure_mask_stream *streams[2] = {NULL, NULL};
        for (size_t k = 0; k < 32; k++)
            key[k] = (uint8_t)(37 * i + 11 * k * k);
        assert_ok(dure_mask_stream_new(&streams[0], key));
        assert_ok(dure_mask_stream_new_openssl(&streams[1], key));
        dure_mask_range range = {
            .first = i * i * 7919, .n = lengths[i % 8], .bits = i % 16 < 8 ? 24 : 32};
        dure_mask_term terms[2] = {{.stream = streams[0], .subtract = i % 3 == 0},
                                   {.stream = streams[1], .subtract = i % 3 == 0}};
        for (uint32_t k = 0; k < N; k++)
            wide[k] = plain[k] = 3 * k;
        assert_ok(dure_mask_apply(wide, &range, &terms[0], 1));
        assert_ok(dure_mask_apply(plain, &range, &terms[1], 1));
        assert_memory_equal(wide, plain, sizeof wide);
        assert_int_not_equal(wide[range.n - 1], 3 * (range.n - 1));
        dure_mask_stream_free(&streams[0]);
        dure_mask_stream_free(&streams[1]);
    }
}

/* Pairwise masks of three members cancel in the sum, whatever chunks each of them works in. */
static void test_mask_pairs_cancel_across_different_chunks(void **state)
{
    (void)state;
    enum { N = 5000, MEMBERS = 3 };
    static const size_t chunks[MEMBERS] = {N, 700, 33};
    uint32_t *sum = calloc(N, sizeof *sum), *words = calloc(N, sizeof *words);
    assert_non_null(sum);
    assert_non_null(words);
    dure_mask_stream *pairs[MEMBERS] = {stream_of(1), stream_of(2), stream_of(3)};
    for (size_t u = 0; u < MEMBERS; u++) {
        /* pairs[k] is shared by members k and k + 1 mod 3: one adds it, the other subtracts. */
        dure_mask_term terms[2] = {{.stream = pairs[u], .subtract = false},
                                   {.stream = pairs[(u + 2) % MEMBERS], .subtract = true}};
        for (size_t i = 0; i < N; i++)
            words[i] = (uint32_t)(1000 * (u + 1) + i);
        for (size_t at = 0; at < N; at += chunks[u]) {
            size_t n = N - at < chunks[u] ? N - at : chunks[u];
            dure_mask_range range = {.first = at, .n = n, .bits = 24};
            assert_ok(dure_mask_apply(words + at, &range, terms, 2));
        }
        assert_int_not_equal(words[17], 1000 * (u + 1) + 17);
        for (size_t i = 0; i < N; i++)
            sum[i] = (sum[i] + words[i]) & 0xffffff;
    }
    for (size_t i = 0; i < N; i++)
        assert_int_equal(sum[i], 6000 + 3 * i);
    for (size_t u = 0; u < MEMBERS; u++)
        dure_mask_stream_free(&pairs[u]);
    free(sum);
    free(words);
}

static void test_mask_refuses_other_widths_and_zeroes(void **state)
{
    (void)state;
    static const uint32_t zero[4];
    dure_mask_stream *stream = stream_of(1);
    dure_mask_term term = {.stream = stream};
    static const unsigned widths[] = {0, 8, 16, 25, 64};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        uint32_t words[4] = {1, 2, 3, 4};
        dure_mask_range range = {.n = 4, .bits = widths[i]};
        assert_err(dure_mask_apply(words, &range, &term, 1), DURE_ERR_USAGE);
        assert_memory_equal(words, zero, sizeof words);
    }
    dure_mask_stream_free(&stream);
}

static void test_mask_refuses_to_run_past_the_key_s_limit(void **state)
{
    (void)state;
    const uint64_t last = (((UINT64_C(1) << 32) - 1) * 16) / 3; /* 24-bit words a key can give */
    dure_mask_stream *stream = stream_of(1);
    dure_mask_term term = {.stream = stream};
    uint32_t words[4] = {0};
    dure_mask_range range = {.first = last - 3, .n = 4, .bits = 24};
    assert_err(dure_mask_apply(words, &range, &term, 1), DURE_ERR_LIMIT);
    range.first = UINT64_MAX - 1;
    assert_err(dure_mask_apply(words, &range, &term, 1), DURE_ERR_LIMIT);
    range.first = last - 4;
    assert_ok(dure_mask_apply(words, &range, &term, 1));
    dure_mask_stream_free(&stream);
}

static void test_mask_packs_little_endian_words(void **state)
{
    (void)state;
    static const uint32_t words[2] = {0xaa010203, 0xbbfffefd};
    uint8_t bytes[8];
    uint32_t back[2] = {0};
    dure_mask_pack(bytes, words, 2, 24);
    assert_hex(bytes, 6, "030201fdfeff");
    dure_mask_add_packed(back, bytes, 2, 24);
    assert_int_equal(back[0], 0x010203);
    assert_int_equal(back[1], 0xfffefd);
    dure_mask_pack(bytes, words, 2, 32);
    assert_hex(bytes, 8, "030201aafdfeffbb");
    memset(back, 0, sizeof back);
    dure_mask_add_packed(back, bytes, 2, 32);
    assert_memory_equal(back, words, sizeof words);
}

static void test_mask_words_are_twos_complement(void **state)
{
    (void)state;
    static const int64_t values[] = {0, 1, -1, 65536, -65536, 8388607, -8388608};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        assert_int_equal(dure_mask_value(dure_mask_word(values[i], 24), 24), values[i]);
        assert_int_equal(dure_mask_value(dure_mask_word(values[i], 32), 32), values[i]);
    }
    assert_int_equal(dure_mask_word(-1, 24), 0xffffff);
    assert_int_equal(dure_mask_word(-1, 32), 0xffffffff);
}

static void test_mask_adds_packed_words_and_never_reads_past_them(void **state)
{
    (void)state;
    static const size_t lengths[] = {0, 1, 31, 32, 33, 100, 5000};
    for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++) {
        for (unsigned bits = 24; bits <= 32; bits += 8) {
            const size_t n = lengths[k];
            /* Of the very length, so that the sanitizer sees a read past it. */
            uint8_t *bytes = malloc(n * (bits / 8) + (n == 0));
            uint32_t *words = malloc((n + 1) * sizeof *words), *sum = calloc(n + 1, sizeof *sum);
            assert_true(bytes && words && sum);
            for (size_t i = 0; i < n; i++) {
                words[i] = (uint32_t)(i * 2654435761u) & (UINT32_MAX >> (32 - bits));
                sum[i] = UINT32_MAX - (uint32_t)i;
            }
            sum[n] = 77;
            dure_mask_pack(bytes, words, n, bits);
            dure_mask_add_packed(sum, bytes, n, bits);
            for (size_t i = 0; i < n; i++)
                assert_int_equal(sum[i], (uint32_t)(UINT32_MAX - (uint32_t)i + words[i]));
            assert_int_equal(sum[n], 77);
            free(bytes);
            free(words);
            free(sum);
        }
    }
}

static void test_mask_copy_is_the_same_stream(void **state)
{
    (void)state;
    typedef dure_err make(dure_mask_stream **, const uint8_t *);
    make *const makers[] = {dure_mask_stream_new, dure_mask_stream_new_openssl};
    const dure_mask_range range = {.first = 777, .n = 2000, .bits = 24};
    uint8_t key[32] = {9, 8, 7};
    for (int k = 0; k < 2; k++) {
        uint32_t words[2000] = {0};
        dure_mask_stream *stream = NULL, *copy = NULL;
        assert_ok(makers[k](&stream, key));
        assert_ok(dure_mask_stream_copy(&copy, stream));
        const dure_mask_term add = {.stream = stream}, take = {.stream = copy, .subtract = true};
        assert_ok(dure_mask_apply(words, &range, &add, 1));
        dure_mask_stream_free(&stream);
        assert_int_not_equal(words[0] | words[1], 0);
        assert_ok(dure_mask_apply(words, &range, &take, 1));
        for (size_t i = 0; i < 2000; i++)
            assert_int_equal(words[i], 0);
        dure_mask_stream_free(&copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mask_words_match_published_aes_blocks),
        cmocka_unit_test(test_mask_is_the_specification_at_any_index),
        cmocka_unit_test(test_mask_is_the_same_with_and_without_wide_instructions),
        cmocka_unit_test(test_mask_pairs_cancel_across_different_chunks),
        cmocka_unit_test(test_mask_refuses_other_widths_and_zeroes),
        cmocka_unit_test(test_mask_refuses_to_run_past_the_key_s_limit),
        cmocka_unit_test(test_mask_packs_little_endian_words),
        cmocka_unit_test(test_mask_adds_packed_words_and_never_reads_past_them),
        cmocka_unit_test(test_mask_copy_is_the_same_stream),
        cmocka_unit_test(test_mask_words_are_twos_complement),
    };
    return cmocka_run_group_tests_name("crypto.mask", tests, NULL, NULL);
}
