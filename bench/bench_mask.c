/* Masking a vector for its peers, on one core: seconds, bytes of key stream a second, and the same
 * work with OpenSSL's key stream beside it. Prints TSV. */
#include "common/clock.h"
#include "crypto/mask.h"

#include <stdio.h>
#include <stdlib.h>

typedef dure_err make_stream(dure_mask_stream **out, const uint8_t key[DURE_MASK_KEY_BYTES]);

enum { RUNS = 5, STREAMS_MAX = 100 };

static dure_err time_once(double *seconds, uint32_t *words, size_t n, size_t n_streams,
                          make_stream *make)
{
    dure_mask_term terms[STREAMS_MAX] = {{0}};
    dure_mask_range range = {.n = n, .bits = 24};
    dure_err err = DURE_OK;
    double started = dure_clock_monotonic_s();
    for (size_t i = 0; i < n_streams && !err; i++) {
        uint8_t key[DURE_MASK_KEY_BYTES] = {(uint8_t)i};
        err = make(&terms[i].stream, key);
        terms[i].subtract = i % 2;
    }
    if (!err) err = dure_mask_apply(words, &range, terms, n_streams);
    for (size_t i = 0; i < n_streams; i++)
        dure_mask_stream_free(&terms[i].stream);
    *seconds = dure_clock_monotonic_s() - started;
    return err;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median of RUNS, after one that is not counted. */
static dure_err measure(double *seconds, uint32_t *words, size_t n, size_t n_streams,
                        make_stream *make)
{
    double took[RUNS];
    dure_err err = time_once(&took[0], words, n, n_streams, make);
    for (size_t i = 0; i < RUNS && !err; i++)
        err = time_once(&took[i], words, n, n_streams, make);
    qsort(took, RUNS, sizeof *took, by_size);
    *seconds = took[RUNS / 2];
    return err;
}

int main(void)
{
    static const struct {
        size_t elements, peers;
    } work[] = {{4880000, 9}, {10000000, 99}};
    uint32_t *words = calloc(10000000, sizeof *words);
    if (!words) return 1;
    printf("elements\tpeers\tseconds\tkey_stream_gb_per_second\topenssl_seconds\ttimes_as_fast\n");
    for (size_t i = 0; i < sizeof work / sizeof *work; i++) {
        /* One stream a peer, and the site's own. */
        size_t n = work[i].elements, streams = work[i].peers + 1;
        double ours, openssl;
        if (measure(&ours, words, n, streams, dure_mask_stream_new)) return 1;
        if (measure(&openssl, words, n, streams, dure_mask_stream_new_openssl)) return 1;
        printf("%zu\t%zu\t%.4f\t%.1f\t%.4f\t%.2f\n", n, work[i].peers, ours,
               3e-9 * (double)n * (double)streams / ours, openssl, openssl / ours);
    }
    free(words);
    return 0;
}
