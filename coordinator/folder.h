/* What lies in DIR/coordinator, by name, and what is read from it at start.
 *
 * keys/sign.key signs configurations and checkpoints, keys/curve.key is the transport's; both are
 * made by `dure init` and named in every invitation. roster.bin is the root-signed chain;
 * terms.sig is the root's signature over the terms, so that federation.yaml cannot be altered
 * unnoticed even before the first site joins. */
#pragma once

#include "common/err.h"
#include "crypto/sign.h"
#include "federation/roster.h"
#include "federation/settings.h"
#include "net/curve_key.h"

#define DURE_FOLDER_SETTINGS "federation.yaml"
#define DURE_FOLDER_TERMS_SIGNATURE "terms.sig"
#define DURE_FOLDER_SIGN_KEY "keys/sign.key"
#define DURE_FOLDER_CURVE_KEY "keys/curve.key"
#define DURE_FOLDER_ROSTER "roster.bin"
#define DURE_FOLDER_LEDGER "ledger"
#define DURE_FOLDER_BLOBS "blobs/sha256"
#define DURE_FOLDER_SPOOL "spool"
#define DURE_FOLDER_INBOX "inbox"
#define DURE_FOLDER_STATUS "status.json"
#define DURE_FOLDER_LOCK "lock"

typedef struct dure_folder {
    char *dir; /* owned */
    dure_settings settings;
    dure_sign_key sign;
    dure_curve_key curve;
    dure_hash federation_id;
} dure_folder;

/* Reads settings and keys and checks the terms against the root's signature. DURE_ERR_AUTH names
 * federation.yaml when it was altered. dure_folder_fini() in every case. */
DURE_MUST_USE dure_err dure_folder_open(dure_folder *out, const char *dir, dure_diag *diag);
void dure_folder_fini(dure_folder *folder); /* wipes the keys */

/* dir + "/" + name, allocated; NULL when out of memory. */
char *dure_folder_path(const dure_folder *folder, const char *name);

/* The chain that is there, or an empty one. Saving is atomic and synced. */
DURE_MUST_USE dure_err dure_folder_roster_read(dure_roster **out, const char *dir,
                                               const uint8_t root_public[32], dure_diag *diag);
DURE_MUST_USE dure_err dure_folder_roster_write(const char *dir, const dure_roster *roster,
                                                dure_diag *diag);

/* The root's signature over the terms' hash and both coordinator keys: label "DURE/1/terms". */
DURE_MUST_USE dure_err dure_folder_sign_terms(const char *dir, const dure_terms *terms,
                                              const uint8_t coordinator_sign[32],
                                              const uint8_t coordinator_curve[32],
                                              const dure_sign_key *root, dure_diag *diag);
