/* `dure init`: the two folders of a new federation.
 *
 *   DIR/admin/        root.key, federation.yaml, coordinator.json (its public keys), invitations/,
 *                     revocations/: the root's, which may live on another machine
 *   DIR/coordinator/  coordinator/folder.h
 *
 * The root signs the terms, certifies the release key, and is not needed again until the next
 * invitation or revocation. */
#pragma once

#include "common/err.h"
#include "crypto/sign.h"
#include "federation/settings.h"

#include <stdint.h>

#define DURE_ADMIN_ROOT_KEY "root.key"
#define DURE_ADMIN_SETTINGS "federation.yaml"
#define DURE_ADMIN_COORDINATOR "coordinator.json"
#define DURE_ADMIN_INVITATIONS "invitations"
#define DURE_ADMIN_REVOCATIONS "revocations"

typedef struct dure_founded {
    uint8_t root_public[32], coordinator_sign[32], coordinator_curve[32];
    uint64_t adapter_bytes;
} dure_founded;

/* Makes both folders from `settings` (whose root_public is set here). DURE_ERR_EXISTS when either
 * is there: a federation is never overwritten. On error what was made is removed again. */
DURE_MUST_USE dure_err dure_founding_make(dure_founded *out, const char *dir,
                                          const dure_settings *settings, dure_diag *diag);

/* What invitations name of the coordinator, as `dure init` left it in DIR/admin. */
DURE_MUST_USE dure_err dure_founding_coordinator_keys(uint8_t sign_public[32],
                                                      uint8_t curve_public[32],
                                                      const char *admin_dir, dure_diag *diag);
