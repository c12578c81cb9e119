#include "bench/aes_rate.h"

#include "common/clock.h"

#include <openssl/evp.h>
#include <pthread.h>
#include <string.h>

enum { BLOCK_BYTES = 16384, BLOCKS = 131072, THREADS_MAX = 64 }; /* 2 GB a thread */

typedef struct stream {
    pthread_t thread;
    dure_err err;
} stream;

static void *make_stream(void *state)
{
    stream *s = state;
    static const unsigned char zeros[BLOCK_BYTES];
    unsigned char key[32], out[BLOCK_BYTES];
    int n;
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    memset(key, 7, sizeof key);
    s->err = DURE_ERR_CRYPTO;
    if (ctx && EVP_EncryptInit_ex(ctx, EVP_aes_256_ctr(), NULL, key, zeros) == 1) s->err = DURE_OK;
    for (int i = 0; !s->err && i < BLOCKS; i++)
        if (EVP_EncryptUpdate(ctx, out, &n, zeros, BLOCK_BYTES) != 1) s->err = DURE_ERR_CRYPTO;
    EVP_CIPHER_CTX_free(ctx);
    return NULL;
}

dure_err dure_bench_aes_rate(double *bytes_per_second, unsigned n_threads)
{
    stream streams[THREADS_MAX] = {{0}};
    unsigned n = 0;
    dure_err err = DURE_OK;
    *bytes_per_second = 0;
    if (n_threads == 0 || n_threads > THREADS_MAX) return DURE_ERR_USAGE;
    const double start_s = dure_clock_monotonic_s();
    while (n < n_threads && !pthread_create(&streams[n].thread, NULL, make_stream, &streams[n]))
        n++;
    if (n < n_threads) err = DURE_ERR_LIMIT;
    for (unsigned i = 0; i < n; i++) {
        pthread_join(streams[i].thread, NULL);
        if (!err) err = streams[i].err;
    }
    const double took_s = dure_clock_monotonic_s() - start_s;
    if (!err) *bytes_per_second = (double)n * BLOCKS * BLOCK_BYTES / took_s;
    return err;
}
