/* What makes an adapter one that may be served: root -> release key -> adapter.
 *
 * The federation's root key certifies a release key once, at `dure init`; the root then leaves the
 * machine. `dure adapter promote` signs the adapter's record with the release key: which adapter,
 * for which base model, trained in which round and where the ledger says so. Whoever loads the
 * adapter needs the root's public key only.
 *
 * Both signatures are Ed25519 over the canonical encoding (common/buf.h), under labels of their
 * own: "dure/1/release-certificate" and "dure/1/release". */
#pragma once

#include "common/err.h"
#include "crypto/hash.h"
#include "crypto/sign.h"

#include <stdint.h>

/* Where they lie below the coordinator's folder; `dure init` makes both. */
#define DURE_RELEASE_KEY_FILE "keys/release.key"
#define DURE_RELEASE_CERTIFICATE_FILE "keys/release.cert"

#define DURE_RELEASE_CERTIFICATE_BYTES (32 + 32 + 8 + 8 + 64)

/* The root's word that `release_public` may release adapters of its federation. */
typedef struct dure_release_certificate {
    uint8_t root_public[DURE_SIGN_PUBLIC_BYTES];
    uint8_t release_public[DURE_SIGN_PUBLIC_BYTES];
    int64_t issued_s, expires_s; /* UTC; no release is signed outside of them */
    uint8_t signature[DURE_SIGNATURE_BYTES];
} dure_release_certificate;

/* DURE_ERR_USAGE unless issued_s < expires_s. */
DURE_MUST_USE dure_err dure_release_certify(dure_release_certificate *out,
                                            const dure_sign_key *root,
                                            const uint8_t release_public[DURE_SIGN_PUBLIC_BYTES],
                                            int64_t issued_s, int64_t expires_s);
/* DURE_ERR_AUTH unless `root_public` signed it as it stands. Dates are compared by those who sign
 * and verify a release. */
DURE_MUST_USE dure_err
dure_release_certificate_verify(const dure_release_certificate *certificate,
                                const uint8_t root_public[DURE_SIGN_PUBLIC_BYTES], dure_diag *diag);

/* The file of the certificate: fixed size, mode 0644. Reading checks the length, not the
 * signature. */
DURE_MUST_USE dure_err dure_release_certificate_write(const char *path,
                                                      const dure_release_certificate *certificate,
                                                      dure_diag *diag);
DURE_MUST_USE dure_err dure_release_certificate_read(dure_release_certificate *out,
                                                     const char *path, dure_diag *diag);
void dure_release_certificate_encode(uint8_t bytes[DURE_RELEASE_CERTIFICATE_BYTES],
                                     const dure_release_certificate *certificate);
void dure_release_certificate_decode(dure_release_certificate *out,
                                     const uint8_t bytes[DURE_RELEASE_CERTIFICATE_BYTES]);

/* What a release signature covers. */
typedef struct dure_release {
    dure_hash adapter;     /* SHA-256 of the adapter file */
    dure_hash base;        /* SHA-256 of the base model file it was trained on */
    uint64_t number;       /* version in the registry */
    uint64_t round;        /* 0: not from a round */
    uint64_t ledger_index; /* DURE_RELEASE_NO_LEDGER: none */
    int64_t signed_s;
} dure_release;
#define DURE_RELEASE_NO_LEDGER UINT64_MAX

/* DURE_ERR_AUTH unless `key` is the certificate's; DURE_ERR_EXPIRED when release->signed_s lies
 * outside the certificate's dates. */
DURE_MUST_USE dure_err dure_release_sign(uint8_t signature[DURE_SIGNATURE_BYTES],
                                         const dure_release *release, const dure_sign_key *key,
                                         const dure_release_certificate *certificate,
                                         dure_diag *diag);
/* The whole chain, against the root. DURE_ERR_AUTH with a sentence that names the broken link. */
DURE_MUST_USE dure_err dure_release_verify(const dure_release *release,
                                           const uint8_t signature[DURE_SIGNATURE_BYTES],
                                           const dure_release_certificate *certificate,
                                           const uint8_t root_public[DURE_SIGN_PUBLIC_BYTES],
                                           dure_diag *diag);
