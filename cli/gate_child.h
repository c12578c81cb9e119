/* The gate's evaluation as a child: `dure eval --per-record --json`, so that the coordinator never
 * holds the base model itself. */
#pragma once

#include "cli/child.h"
#include "coordinator/coordinator.h"
#include "federation/settings.h"

typedef struct dure_gate_child {
    const dure_settings *settings; /* borrowed: model, evaluation file, record limit */
    uint64_t threads;              /* 0: the physical cores */
    char *log_path;                /* borrowed; what the child says on stderr */
    dure_child child;
    dure_buf text; /* its JSON */
} dure_gate_child;

/* Fills `out` with callbacks on `state`, which outlives it. */
void dure_gate_child_init(dure_coordinator_gate *out, dure_gate_child *state);
void dure_gate_child_fini(dure_gate_child *state); /* ends the child */
