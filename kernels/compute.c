#include "kernels/compute.h"

#include "kernels/cpu/levels.h"

#include <stdlib.h>
#include <strings.h>

static bool cpu_has(dure_cpu_level level)
{
#if defined(DURE_X86)
    if (level == DURE_CPU_AVX512_BF16)
        return cpu_has(DURE_CPU_AVX512) && __builtin_cpu_supports("avx512bf16");
    if (level == DURE_CPU_AVX512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("fma") && __builtin_cpu_supports("avx2");
    if (level == DURE_CPU_AVX2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return level <= DURE_CPU_PORTABLE;
}

/* The level that the environment allows; *unknown is a name that is none. */
static dure_cpu_level allowed(const char **unknown)
{
    static const struct {
        const char *name;
        dure_cpu_level level;
    } limits[] = {
        {"", DURE_CPU_AVX512_BF16},
        {"PORTABLE", DURE_CPU_PORTABLE},
        {"AVX2", DURE_CPU_AVX2},
        {"AVX512", DURE_CPU_AVX512},
    };
    const char *text = getenv("DURE_MAX_CPU_ISA");
    *unknown = NULL;
    for (size_t i = 0; text && i < sizeof limits / sizeof limits[0]; i++)
        if (!strcasecmp(text, limits[i].name)) return limits[i].level;
    *unknown = text;
    return DURE_CPU_AVX512_BF16;
}

const char *dure_cpu_limit_unknown(void)
{
    const char *unknown;
    (void)allowed(&unknown);
    return unknown;
}

dure_cpu_level dure_cpu_best(void)
{
    return dure_cpu_best_up_to(DURE_CPU_AVX512_BF16);
}

dure_cpu_level dure_cpu_best_up_to(dure_cpu_level limit)
{
    const char *unknown;
    dure_cpu_level level = allowed(&unknown);
    if (level > limit) level = limit;
    while (level > DURE_CPU_PORTABLE && !cpu_has(level))
        level--;
    return level;
}

const dure_cpu_ops *dure_cpu_ops_of(dure_cpu_level level)
{
    if (!cpu_has(level)) return NULL;
    switch (level) {
#if defined(DURE_X86)
    case DURE_CPU_AVX512_BF16:
        return &dure_cpu_avx512_bf16;
    case DURE_CPU_AVX512:
        return &dure_cpu_avx512;
    case DURE_CPU_AVX2:
        return &dure_cpu_avx2;
#endif
    case DURE_CPU_PORTABLE:
        return &dure_cpu_portable;
    case DURE_CPU_REFERENCE:
        return &dure_cpu_reference;
    default:
        return NULL;
    }
}

void dure_near_add(dure_near *near, const void *at, size_t bytes, size_t stride, size_t pieces,
                   bool written)
{
    if (near->n == DURE_NEAR_RUNS || bytes == 0 || pieces == 0) return;
    size_t before = (uintptr_t)at % DURE_NEAR_LINE;
    near->runs[near->n++] =
        (dure_near_run){.at = at,
                        .lines = (before + bytes + DURE_NEAR_LINE - 1) / DURE_NEAR_LINE,
                        .stride = stride,
                        .pieces = pieces,
                        .written = written};
}

typedef struct rows_job {
    size_t n, grain;
    dure_rows_body *body;
    void *state;
} rows_job;

static void rows_task(void *state, size_t task, void *scratch)
{
    const rows_job *job = state;
    size_t first = task * job->grain;
    size_t last = job->n - first < job->grain ? job->n : first + job->grain;
    job->body(job->state, first, last, scratch);
}

void dure_compute_rows(const dure_compute *c, size_t n, size_t grain, dure_rows_body *body,
                       void *state)
{
    rows_job job = {.n = n, .grain = grain, .body = body, .state = state};
    dure_pool_run(c->pool, (n + grain - 1) / grain, rows_task, &job);
}
