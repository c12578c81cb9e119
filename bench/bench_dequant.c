/* Weights per second of decoding each quantized type into a panel that stays in the cache, by each
 * level that this CPU has, on one thread.
 *
 *   bench_dequant [TYPE_ID]
 *
 * Writes TSV: type, level, 10^9 weights/s, GB/s of blocks read, how many times as fast as the plain
 * C path, and the share of the limit: the speed at which memset() writes the same panel. */
#include "common/clock.h"
#include "kernels/compute.h"
#include "kernels/dequant.h"
#include "model/gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The blocks of SOURCE weights lie in the second or third cache level, as streamed ones do. */
enum { PANEL = 16384, SOURCE = 64 * PANEL, TYPE_IDS = 40 };
static const double MEASURE_S = 0.05;
static const int REPEATS = 5;

/* Panels a second, the best of some repeats. */
static double rate(const dure_cpu_ops *ops, float *panel, const uint8_t *blocks, uint32_t type)
{
    size_t bytes = type < TYPE_IDS ? dure_quant_row_bytes(type, PANEL) : 0;
    double best = 0;
    for (int r = 0; r < REPEATS; r++) {
        size_t n = 0;
        double took, started = dure_clock_monotonic_s();
        do {
            for (size_t i = 0; i < SOURCE / PANEL; i++, n++) {
                if (ops)
                    ops->dequant(panel, blocks + i * bytes, PANEL, type);
                else
                    memset(panel, (int)i, PANEL * sizeof *panel);
                __asm__ volatile("" : : "r"(panel) : "memory");
            }
            took = dure_clock_monotonic_s() - started;
        } while (took < MEASURE_S);
        if ((double)n / took > best) best = (double)n / took;
    }
    return best;
}

static void measure(float *panel, const uint8_t *blocks, uint32_t type, double limit)
{
    double plain = 0, read_bytes = (double)dure_quant_row_bytes(type, PANEL);
    for (int level = DURE_CPU_REFERENCE; level <= DURE_CPU_AVX512; level++) {
        const dure_cpu_ops *ops = dure_cpu_ops_of((dure_cpu_level)level);
        if (!ops) continue;
        double panels = rate(ops, panel, blocks, type);
        if (level == DURE_CPU_REFERENCE) plain = panels;
        printf("%s\t%s\t%.2f\t%.2f\t%.1f\t%.2f\n", dure_gguf_type_name(type), ops->name,
               panels * PANEL / 1e9, panels * read_bytes / 1e9, panels / plain, panels / limit);
    }
}

int main(int argc, char **argv)
{
    size_t weights, bytes;
    float *panel = aligned_alloc(64, PANEL * sizeof *panel);
    uint8_t *blocks = malloc(SOURCE * sizeof(float));
    if (!panel || !blocks) return 1;
    /* Small bytes everywhere: no scale is infinite, so no product takes a slow path. */
    for (size_t i = 0; i < SOURCE * sizeof(float); i++)
        blocks[i] = (uint8_t)(rand() & 0x3F);
    double limit = rate(NULL, panel, blocks, TYPE_IDS);
    printf("type\tlevel\tgweights_per_second\tread_gb_per_second\ttimes_plain_c\tof_limit\n");
    printf("memset\t\t%.2f\t\t\t1.00\n", limit * PANEL / 1e9);
    for (uint32_t type = 0; type < TYPE_IDS; type++) {
        if (argc > 1 && (uint32_t)strtoul(argv[1], NULL, 10) != type) continue;
        if (dure_quant_block(&weights, &bytes, type)) measure(panel, blocks, type, limit);
    }
    free(blocks);
    free(panel);
    return 0;
}
