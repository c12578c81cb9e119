/* DIR/coordinator/federation.yaml: the terms and what the coordinator needs to run, for people to
 * read. The terms in it must be those that the root signed into the invitations: `coordinator run`
 * compares the hash and refuses an altered file.
 *
 * Read with a schema: an unknown key, a missing one or a value of the wrong type is named with its
 * line. Written once by `dure init`. */
#pragma once

#include "common/err.h"
#include "federation/terms.h"

#include <stdint.h>

#define DURE_SETTINGS_MAX_BYTES 65536

typedef struct dure_settings {
    dure_terms terms;
    uint8_t root_public[32];
    char endpoint[DURE_ENDPOINT_SIZE]; /* where sites connect, and the coordinator binds */
    char model[1024];      /* the base GGUF on the coordinator's machine, for the gate */
    char eval[1024];       /* the federation's own evaluation records (JSONL) */
    double gate_margin;    /* nats a token, as in registry/gate.h; 0: it must be better */
    uint32_t gate_records; /* at most so many of the evaluation records are used; 0: all */
} dure_settings;

DURE_MUST_USE dure_err dure_settings_write(const char *path, const dure_settings *settings,
                                           dure_diag *diag);
/* Reads and checks. */
DURE_MUST_USE dure_err dure_settings_read(dure_settings *out, const char *path, dure_diag *diag);
DURE_MUST_USE dure_err dure_settings_parse(dure_settings *out, dure_span text, const char *name,
                                           dure_diag *diag);
