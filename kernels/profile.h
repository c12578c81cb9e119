/* Where the time of a training step goes: every moment belongs to the phase entered last.
 *
 * One thread enters phases (the one that runs the steps); its kernels add the work they do. Each
 * function takes NULL for "nobody wants to know". */
#pragma once

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

typedef enum dure_phase {
    DURE_PHASE_OTHER,
    DURE_PHASE_MATMUL, /* products with frozen weights */
    DURE_PHASE_PANELS, /* decoding and turning those weights, part of the products' tasks */
    DURE_PHASE_LORA,   /* the adapter's own products and its gradients */
    DURE_PHASE_ATTENTION,
    DURE_PHASE_CROSS_ENTROPY, /* what the head does besides its two products */
    DURE_PHASE_ELEMENTWISE,   /* norms, SwiGLU, embedding */
    DURE_PHASE_CLIP,          /* a record's gradient: gathering, norm, grid, sum */
    DURE_PHASE_NOISE,
    DURE_PHASE_OPTIMIZER,
    DURE_PHASES
} dure_phase;

typedef struct dure_profile {
    dure_phase phase;
    double entered_s, entered_cpu_s;
    double seconds[DURE_PHASES];
    double cpu_seconds[DURE_PHASES]; /* of all threads */
    double flops[DURE_PHASES], bytes[DURE_PHASES];
    atomic_uint_fast64_t panel_ns; /* of all threads, not yet in `seconds` */
    uint32_t threads;
} dure_profile;

void dure_profile_init(dure_profile *profile, uint32_t threads);
/* The time since the last call goes to the phase of that call. */
void dure_profile_enter(dure_profile *profile, dure_phase phase);
/* Work of the present phase. */
void dure_profile_work(dure_profile *profile, double flops, double bytes);
/* Bytes read and written for panels, whatever the present phase. */
void dure_profile_panels_work(dure_profile *profile, double bytes);
/* For a task on any thread: nanoseconds now, and what it has spent on panels since `started`. */
uint64_t dure_profile_panels_start(const dure_profile *profile);
void dure_profile_panels_stop(dure_profile *profile, uint64_t started);

/* What the machine can do at best (kernels/peak.h). */
typedef struct dure_limits {
    double gflops, gbytes; /* a second: multipliers, memory */
} dure_limits;
/* What a phase did. Where it multiplied, the limit is the multipliers', else memory's. */
typedef struct dure_phase_rate {
    double seconds, share, gflops, gbytes, of_limit;
} dure_phase_rate;
dure_phase_rate dure_profile_rate(const dure_profile *profile, dure_phase phase,
                                  dure_limits limits);
/* "attention", static. */
const char *dure_phase_name(dure_phase phase);
