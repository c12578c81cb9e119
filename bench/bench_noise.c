/* Throughput of the exact noise sampler on the keyed streams that training uses, beside that of the
 * stream alone: how much of the time is the sampler's. Prints TSV. */
#include "common/clock.h"
#include "crypto/rng.h"
#include "dp/noise.h"

#include <stdio.h>
#include <stdlib.h>

enum { DRAWS = 4000000 };

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

int main(void)
{
    static const uint8_t key[DURE_RNG_KEY_BYTES] = {1};
    static const double sigmas[] = {0.5, 1, 8};
    dure_stream *stream = NULL;
    int64_t *out = malloc(DRAWS * sizeof *out);
    if (!out || dure_stream_new(&stream, key, dure_span_of_text("bench"))) return 1;
    dure_rng rng = dure_stream_rng(stream);
    printf("grid_bits\tsigma\tmillion_samples_per_second\tkeystream_mb_per_second\n");
    double stream_rate = keystream_rate(rng, (uint8_t *)out, 4096);
    for (uint32_t bits = 14; bits <= 20; bits += 3) {
        for (size_t i = 0; i < 3; i++) {
            dure_dp_plan plan = {.grid_bits = bits};
            if (dure_dp_plan_set_sigma(&plan, sigmas[i], NULL)) return 1;
            double started = dure_clock_monotonic_s();
            if (dure_noise_fill(out, DRAWS, dure_noise_scale_of(&plan), &rng)) return 1;
            double seconds = dure_clock_monotonic_s() - started;
            printf("%u\t%g\t%.2f\t%.0f\n", bits, sigmas[i], DRAWS / seconds / 1e6,
                   stream_rate / 1e6);
        }
    }
    dure_stream_free(&stream);
    free(out);
    return 0;
}
