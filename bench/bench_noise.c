/* Throughput of the noise samplers on the keyed streams that training uses, beside that of the
 * stream alone: how much of the time is the sampler's. Prints TSV.
 *
 *   bench_noise */
#include "common/clock.h"
#include "crypto/rng.h"
#include "dp/noise_exact.h"
#include "dp/noise_share.h"
#include "dp/noise_table.h"

#include <stdio.h>
#include <stdlib.h>

enum { DRAWS = 1 << 22, EXACT_DRAWS = 1 << 20 };

static double keystream_rate(dure_rng rng, uint8_t *block, size_t n)
{
    double started = dure_clock_monotonic_s();
    size_t bytes = 0;
    while (dure_clock_monotonic_s() - started < 0.5) {
        if (dure_rng_fill(&rng, block, n)) return 0;
        bytes += n;
    }
    return (double)bytes / (dure_clock_monotonic_s() - started);
}

/* Seconds for the table's making, and draws a second from it and from the exact sampler. */
static dure_err measure(double *made, double *rate, double *exact_rate, dure_noise_scale scale,
                        int64_t *out, const dure_rng *rng)
{
    const dure_noise_table *table = NULL;
    dure_noise_exact exact;
    double started = dure_clock_monotonic_s();
    dure_err err = dure_noise_table_take(&table, scale);
    *made = dure_clock_monotonic_s() - started;
    started = dure_clock_monotonic_s();
    if (!err) err = dure_noise_fill(out, DRAWS, scale, rng);
    *rate = DRAWS / (dure_clock_monotonic_s() - started);
    dure_noise_table_release(&table);
    started = dure_clock_monotonic_s();
    dure_noise_exact_init(&exact, scale, rng);
    if (!err) err = dure_noise_exact_draw(out, EXACT_DRAWS, &exact);
    *exact_rate = EXACT_DRAWS / (dure_clock_monotonic_s() - started);
    return err;
}

/* Shares of discrete Gaussian noise, exact ones alone. */
static dure_err measure_shares(int64_t *scratch, const dure_rng *rng)
{
    printf("\nshare_sigma\tmillion_a_second\n");
    for (uint32_t bits = 4; bits <= 46; bits += 14) {
        double started = dure_clock_monotonic_s();
        dure_err err = dure_share_fill((int32_t *)scratch, EXACT_DRAWS, (uint64_t)1 << bits, rng);
        if (err) return err;
        printf("%u\t%.1f\n", 1u << bits / 2,
               EXACT_DRAWS / (dure_clock_monotonic_s() - started) / 1e6);
    }
    return DURE_OK;
}

int main(void)
{
    static const uint8_t key[DURE_RNG_KEY_BYTES] = {1};
    static const dure_noise_scale scales[] = {
        {1000, 0},           {52429, 2}, {26214, 0},     {104858, 0},
        {3 * 104857 + 1, 0}, {99999, 1}, {(1 << 20), 0}, {(1 << 24) - 1, 1},
    };
    dure_stream *stream = NULL;
    int64_t *out = calloc(DRAWS, sizeof *out);
    if (!out || dure_stream_new(&stream, key, dure_span_of_text("bench"))) return 1;
    dure_rng rng = dure_stream_rng(stream);
    double stream_rate = keystream_rate(rng, (uint8_t *)out, 4096);
    printf("sigma\tmillion_a_second\tmillion_a_second_exact\tms_to_make_table\tkeystream_mb_a_"
           "second\n");
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++) {
        double made, rate, exact_rate;
        if (measure(&made, &rate, &exact_rate, scales[i], out, &rng)) return 1;
        printf("%.8g\t%.1f\t%.1f\t%.1f\t%.0f\n",
               (double)scales[i].num / (double)(1u << scales[i].shift), rate / 1e6,
               exact_rate / 1e6, made * 1e3, stream_rate / 1e6);
    }
    dure_err err = measure_shares(out, &rng);
    dure_stream_free(&stream);
    free(out);
    return err != DURE_OK;
}
