/* What the commands of a federation's admin and coordinator share: the two folders behind DIR. */
#pragma once

#include "common/err.h"
#include "crypto/sign.h"
#include "federation/invitation.h"
#include "federation/settings.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* DIR, DIR/admin or DIR/coordinator: the folder of `part` ("admin" or "coordinator"), allocated.
 * NULL when out of memory. */
char *dure_federation_part(const char *dir, const char *part);

/* DIR/admin, opened: its settings, the root key and the coordinator's public keys. */
typedef struct dure_admin {
    char *dir; /* owned */
    dure_settings settings;
    dure_sign_key root;
    uint8_t coordinator_sign[32], coordinator_curve[32];
} dure_admin;

/* `with_key` false leaves the root key zero: for looking. dure_admin_close() in every case. */
DURE_MUST_USE dure_err dure_admin_open(dure_admin *admin, const char *dir, bool with_key,
                                       dure_diag *diag);
void dure_admin_close(dure_admin *admin); /* wipes */

/* A one-time invitation, remembered in DIR/admin and written to `path` with its private key. `inv`
 * is filled. */
typedef struct dure_admin_guest {
    const char *name, *organisation;
    uint64_t hours; /* until it expires */
} dure_admin_guest;
DURE_MUST_USE dure_err dure_admin_invite(dure_invitation *inv, const dure_admin *admin,
                                         const dure_admin_guest *guest, const char *path,
                                         dure_diag *diag);

/* The file that holds the revocation of an invitation, in DIR/admin and in the coordinator's inbox:
 * NAME-, eight digits of the invitation's key, .revocation. */
#define DURE_REVOCATION_FILE_SIZE (DURE_NAME_SIZE + 24)
void dure_admin_revocation_file(char out[DURE_REVOCATION_FILE_SIZE], const char *name,
                                const uint8_t invite_public[32]);
/* Whether a site of that name was revoked at this desk. */
bool dure_admin_has_revoked(const dure_admin *admin, const char *name);
