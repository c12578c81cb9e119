/* A root-signed, one-time, expiring invitation, and the small text file that carries it.
 *
 * The root signs the public half of a key pair made for this one invitation, with the site's name,
 * the coordinator's endpoint and public keys and the federation's terms. The file also holds the
 * private half: whoever has the file may join once, so it travels as a password does. The site
 * signs its own keys with it (federation/roster.h): root -> invitation -> site verifies without the
 * coordinator.
 *
 * The federation's id is the hash of its root key and name, so an invitation of another federation
 * cannot name this one. */
#pragma once

#include "common/buf.h"
#include "common/err.h"
#include "crypto/hash.h"
#include "crypto/sign.h"
#include "federation/terms.h"

#include <stdint.h>

#define DURE_INVITATION_MAX_BYTES 2048
#define DURE_INVITATION_FILE_MAX_BYTES 8192

typedef struct dure_invitation {
    uint8_t root_public[32];       /* Ed25519 */
    uint8_t invite_public[32];     /* Ed25519; also the invitation's id */
    uint8_t coordinator_curve[32]; /* CURVE (X25519) server key */
    uint8_t coordinator_sign[32];  /* Ed25519 key of round configurations and checkpoints */
    char name[DURE_NAME_SIZE];     /* the site's */
    char organisation[DURE_NAME_SIZE];
    char endpoint[DURE_ENDPOINT_SIZE];
    int64_t issued_s, expires_s; /* UTC seconds since 1970 */
    dure_terms terms;
    uint8_t signature[64]; /* by the root, label "DURE/1/invitation", over all of the above */
} dure_invitation;

/* Hash of the root key and the federation's name under the label "DURE/1/federation". */
DURE_MUST_USE dure_err dure_federation_id(dure_hash *out, const uint8_t root_public[32],
                                          const char *federation);

/* Fills the public keys, checks the fields and signs. The caller owns and wipes `invite`. */
DURE_MUST_USE dure_err dure_invitation_sign(dure_invitation *invitation,
                                            const dure_sign_key *invite, const dure_sign_key *root,
                                            dure_diag *diag);
/* DURE_ERR_AUTH unless `root_public` signed it as it stands. */
DURE_MUST_USE dure_err dure_invitation_verify(const dure_invitation *invitation,
                                              const uint8_t root_public[32], dure_diag *diag);
/* DURE_ERR_EXPIRED, with the date, when `now_s` is past its end. */
DURE_MUST_USE dure_err dure_invitation_in_time(const dure_invitation *invitation, int64_t now_s,
                                               dure_diag *diag);

void dure_invitation_put(dure_buf *out, const dure_invitation *invitation);
DURE_MUST_USE dure_err dure_invitation_take(dure_invitation *out, dure_reader *r, dure_diag *diag);

/* The file: a few readable lines that are not trusted, then base64 between the two marker lines.
 * Writing gives it mode 0600. Reading verifies the root's signature against the root key inside
 * (the file is the pin) and that the private key belongs to it; the caller wipes `invite`. */
DURE_MUST_USE dure_err dure_invitation_write(const char *path, const dure_invitation *invitation,
                                             const dure_sign_key *invite, dure_diag *diag);
DURE_MUST_USE dure_err dure_invitation_read(dure_invitation *out, dure_sign_key *invite,
                                            const char *path, dure_diag *diag);
DURE_MUST_USE dure_err dure_invitation_parse(dure_invitation *out, dure_sign_key *invite,
                                             dure_span text, const char *name, dure_diag *diag);
