#include "crypto/rng.h"

#include "crypto/algorithms_int.h"
#include "crypto/hkdf.h"
#include "crypto/wipe.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { BUFFER_BYTES = 4096 };

/* One block short of 2^32, so that a 32-bit block counter would not wrap either. */
static const uint64_t stream_bytes_max = ((UINT64_C(1) << 32) - 1) * 16;

struct dure_stream {
    EVP_CIPHER_CTX *cipher;
    uint64_t made; /* key-stream bytes produced so far */
    size_t at;     /* next unused byte of `buffer` */
    size_t filled;
    uint8_t buffer[BUFFER_BYTES];
};

static dure_err fill_from_system(void *state, uint8_t *out, size_t n)
{
    (void)state;
    size_t done = 0;
    while (done < n) {
        ssize_t got = getrandom(out + done, n - done, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) {
            dure_wipe(out, n);
            return DURE_ERR_RNG;
        }
        done += (size_t)got;
    }
    return DURE_OK;
}

dure_rng dure_rng_system(void)
{
    return (dure_rng){.fill = fill_from_system, .state = NULL};
}

/* The stream's AES key: HKDF of the caller's key, with the context in the info. */
static dure_err derive(uint8_t key[32], const uint8_t master[DURE_RNG_KEY_BYTES], dure_span context)
{
    dure_buf info;
    dure_buf_init(&info, context.n + 64);
    dure_put_text(&info, "dure/stream/1");
    dure_put_bytes(&info, context.data, context.n);
    dure_err err = dure_buf_err(&info);
    if (!err) {
        err = dure_hkdf(key, 32, dure_span_of("", 0), dure_span_of(master, DURE_RNG_KEY_BYTES),
                        dure_buf_span(&info));
    }
    dure_buf_fini(&info);
    return err;
}

dure_err dure_stream_new(dure_stream **out, const uint8_t key[DURE_RNG_KEY_BYTES],
                         dure_span context)
{
    static const uint8_t counter_zero[16];
    uint8_t subkey[32] = {0};
    *out = NULL;
    const dure_algorithms *algorithms = dure_algorithms_get();
    dure_stream *stream = calloc(1, sizeof *stream);
    dure_err err = stream ? DURE_OK : DURE_ERR_NOMEM;
    if (err) goto out;
    err = algorithms ? derive(subkey, key, context) : DURE_ERR_CRYPTO;
    if (err) goto out;
    stream->cipher = EVP_CIPHER_CTX_new();
    if (!stream->cipher || EVP_EncryptInit_ex2(stream->cipher, algorithms->aes_256_ctr, subkey,
                                               counter_zero, NULL) != 1) {
        err = DURE_ERR_CRYPTO;
        goto out;
    }
    *out = stream;
    stream = NULL;
out:
    dure_wipe(subkey, sizeof subkey);
    dure_stream_free(&stream);
    return err;
}

/* Makes the next buffer of key stream. */
static dure_err refill(dure_stream *stream)
{
    static const uint8_t zeros[BUFFER_BYTES];
    uint64_t left = stream_bytes_max - stream->made;
    size_t n = left < BUFFER_BYTES ? (size_t)left : (size_t)BUFFER_BYTES;
    int made = 0;
    stream->at = stream->filled = 0;
    if (n == 0) return DURE_ERR_RNG;
    if (EVP_EncryptUpdate(stream->cipher, stream->buffer, &made, zeros, (int)n) != 1 ||
        made != (int)n) {
        return DURE_ERR_RNG;
    }
    stream->made += n;
    stream->filled = n;
    return DURE_OK;
}

static dure_err fill_from_stream(void *state, uint8_t *out, size_t n)
{
    dure_stream *stream = state;
    size_t done = 0;
    while (done < n) {
        if (stream->at == stream->filled) {
            dure_err err = refill(stream);
            if (err) {
                dure_wipe(out, n);
                return err;
            }
        }
        size_t take = stream->filled - stream->at;
        if (take > n - done) take = n - done;
        memcpy(out + done, stream->buffer + stream->at, take);
        /* What has been given out is the caller's secret alone. */
        dure_wipe(stream->buffer + stream->at, take);
        stream->at += take;
        done += take;
    }
    return DURE_OK;
}

dure_rng dure_stream_rng(dure_stream *stream)
{
    return (dure_rng){.fill = fill_from_stream, .state = stream};
}

void dure_stream_free(dure_stream **stream)
{
    if (!stream || !*stream) return;
    EVP_CIPHER_CTX_free((*stream)->cipher);
    dure_wipe(*stream, sizeof **stream);
    free(*stream);
    *stream = NULL;
}
