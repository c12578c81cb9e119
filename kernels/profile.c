#include "kernels/profile.h"

#include "common/clock.h"

#include <time.h>

static double cpu_now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void dure_profile_init(dure_profile *profile, uint32_t threads)
{
    *profile = (dure_profile){.entered_s = dure_clock_monotonic_s(),
                              .entered_cpu_s = cpu_now_s(),
                              .threads = threads ? threads : 1};
}

/* Panels are made inside the tasks of products; their share of the wall time is that of a thread.
 */
static void settle_panels(dure_profile *p)
{
    double spent = 1e-9 * (double)atomic_exchange(&p->panel_ns, 0);
    p->cpu_seconds[DURE_PHASE_PANELS] += spent;
    p->cpu_seconds[p->phase] -= spent;
    p->seconds[DURE_PHASE_PANELS] += spent / p->threads;
    p->seconds[p->phase] -= spent / p->threads;
}

void dure_profile_enter(dure_profile *profile, dure_phase phase)
{
    if (!profile) return;
    double now = dure_clock_monotonic_s(), cpu = cpu_now_s();
    profile->seconds[profile->phase] += now - profile->entered_s;
    profile->cpu_seconds[profile->phase] += cpu - profile->entered_cpu_s;
    settle_panels(profile);
    profile->entered_s = now;
    profile->entered_cpu_s = cpu;
    profile->phase = phase;
}

void dure_profile_work(dure_profile *profile, double flops, double bytes)
{
    if (!profile) return;
    profile->flops[profile->phase] += flops;
    profile->bytes[profile->phase] += bytes;
}

void dure_profile_panels_work(dure_profile *profile, double bytes)
{
    if (profile) profile->bytes[DURE_PHASE_PANELS] += bytes;
}

uint64_t dure_profile_panels_start(const dure_profile *profile)
{
    return profile ? (uint64_t)(dure_clock_monotonic_s() * 1e9) : 0;
}

void dure_profile_panels_stop(dure_profile *profile, uint64_t started)
{
    if (profile) atomic_fetch_add(&profile->panel_ns, dure_profile_panels_start(profile) - started);
}

dure_phase_rate dure_profile_rate(const dure_profile *profile, dure_phase phase, dure_limits limits)
{
    dure_phase_rate rate = {.seconds = profile->seconds[phase]};
    double total = 0;
    for (int i = 0; i < DURE_PHASES; i++)
        total += profile->seconds[i];
    if (total > 0) rate.share = rate.seconds / total;
    if (rate.seconds <= 0) return rate;
    rate.gflops = profile->flops[phase] / rate.seconds * 1e-9;
    rate.gbytes = profile->bytes[phase] / rate.seconds * 1e-9;
    if (rate.gflops > 0 && limits.gflops > 0) {
        rate.of_limit = rate.gflops / limits.gflops;
    } else if (limits.gbytes > 0) {
        rate.of_limit = rate.gbytes / limits.gbytes;
    }
    return rate;
}

const char *dure_phase_name(dure_phase phase)
{
    static const char *const names[DURE_PHASES] = {
        [DURE_PHASE_OTHER] = "other",
        [DURE_PHASE_MATMUL] = "products",
        [DURE_PHASE_PANELS] = "weight panels",
        [DURE_PHASE_LORA] = "adapter",
        [DURE_PHASE_ATTENTION] = "attention",
        [DURE_PHASE_CROSS_ENTROPY] = "cross-entropy",
        [DURE_PHASE_ELEMENTWISE] = "elementwise",
        [DURE_PHASE_CLIP] = "clip",
        [DURE_PHASE_NOISE] = "noise",
        [DURE_PHASE_OPTIMIZER] = "optimizer",
    };
    return names[phase];
}
