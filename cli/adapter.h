/* What the subcommands of `dure adapter` share: the registry behind DIR and the trust in it. */
#pragma once

#include "registry/registry.h"

#include <jansson.h>

typedef struct dure_adapter_desk {
    char *dir;               /* the coordinator's folder, owned */
    dure_registry *registry; /* owned */
    uint8_t root_public[DURE_SIGN_PUBLIC_BYTES];
} dure_adapter_desk;

/* `dir` is DIR/coordinator, or DIR with a folder `coordinator` in it. The root key is `root_hex`
 * (64 hex digits) or, when that is NULL, the one in federation.yaml. dure_adapter_desk_close()
 * in every case. */
DURE_MUST_USE dure_err dure_adapter_desk_open(dure_adapter_desk *desk, const char *dir,
                                              const char *root_hex, dure_diag *diag);
void dure_adapter_desk_close(dure_adapter_desk *desk);

/* dure adapter export, dure adapter merge. */
int dure_cmd_adapter_export(int argc, char **argv);
int dure_cmd_adapter_merge(int argc, char **argv);
