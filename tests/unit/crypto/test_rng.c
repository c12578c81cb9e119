#include "crypto/rng.h"
#include "support/hex.h"

static void test_rng_system_gives_different_bytes(void **state)
{
    (void)state;
    dure_rng rng = dure_rng_system();
    uint8_t a[1000], b[1000];
    assert_ok(dure_rng_fill(&rng, a, sizeof a));
    assert_ok(dure_rng_fill(&rng, b, sizeof b));
    assert_memory_not_equal(a, b, sizeof a);
    assert_ok(dure_rng_fill(&rng, a, 0));
}

/* The stream is part of what a resumed run replays, so its bytes are fixed: computed with Python's
 * `cryptography` as AES-256-CTR(counter 0) under HKDF(salt = none, info = "dure/stream/1" and the
 * context, each after its length). */
static void test_stream_bytes_are_fixed(void **state)
{
    (void)state;
    dure_stream *stream = NULL;
    uint8_t key[32], out[48];
    for (size_t i = 0; i < 32; i++)
        key[i] = (uint8_t)i;
    assert_ok(dure_stream_new(&stream, key, dure_span_of_text("context")));
    dure_rng rng = dure_stream_rng(stream);
    assert_ok(dure_rng_fill(&rng, out, sizeof out));
    assert_hex(out, sizeof out,
               "3db7209a79f9fb829e19344265eb9f9bae62090965a0c308cb612e9470f551fe3678ddc11c636207ebc"
               "3079a116af247");
    dure_stream_free(&stream);
    assert_null(stream);
    dure_stream_free(&stream);
}

static void test_stream_does_not_depend_on_the_pieces(void **state)
{
    (void)state;
    enum { N = 10000 };
    static uint8_t whole[N], pieces[N];
    dure_stream *a = NULL, *b = NULL;
    uint8_t key[32] = {9};
    assert_ok(dure_stream_new(&a, key, dure_span_of_text("x")));
    assert_ok(dure_stream_new(&b, key, dure_span_of_text("x")));
    dure_rng rng_a = dure_stream_rng(a), rng_b = dure_stream_rng(b);
    assert_ok(dure_rng_fill(&rng_a, whole, N));
    for (size_t at = 0, n = 1; at < N; at += n, n = n * 3 % 997 + 1) {
        if (n > N - at) n = N - at;
        assert_ok(dure_rng_fill(&rng_b, pieces + at, n));
    }
    assert_memory_equal(whole, pieces, N);
    dure_stream_free(&a);
    dure_stream_free(&b);
}

static void test_stream_differs_by_context_and_key(void **state)
{
    (void)state;
    uint8_t key[2][32] = {{1}, {2}}, out[3][32];
    static const char *const contexts[] = {"a", "b", "a"};
    for (size_t i = 0; i < 3; i++) {
        dure_stream *stream = NULL;
        assert_ok(dure_stream_new(&stream, key[i / 2], dure_span_of_text(contexts[i])));
        dure_rng rng = dure_stream_rng(stream);
        assert_ok(dure_rng_fill(&rng, out[i], 32));
        dure_stream_free(&stream);
    }
    assert_memory_not_equal(out[0], out[1], 32);
    assert_memory_not_equal(out[0], out[2], 32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rng_system_gives_different_bytes),
        cmocka_unit_test(test_stream_bytes_are_fixed),
        cmocka_unit_test(test_stream_does_not_depend_on_the_pieces),
        cmocka_unit_test(test_stream_differs_by_context_and_key),
    };
    return cmocka_run_group_tests_name("crypto.rng", tests, NULL, NULL);
}
