/* Ed25519 signatures (RFC 8032), each under a label that says what is signed.
 *
 * What is signed is u32 length of the label, the label, the message; so a signature made for one
 * purpose never verifies for another. Functions are safe to call from any number of threads. */
#pragma once

#include "common/buf.h"
#include "common/err.h"

#define DURE_SIGN_SECRET_BYTES 32
#define DURE_SIGN_PUBLIC_BYTES 32
#define DURE_SIGNATURE_BYTES 64

/* `secret` is the 32-byte seed of RFC 8032. The owner wipes the whole struct. */
typedef struct dure_sign_key {
    uint8_t secret[DURE_SIGN_SECRET_BYTES];
    uint8_t public_[DURE_SIGN_PUBLIC_BYTES];
} dure_sign_key;

/* A fresh key from the system's generator. On any error of this header *key is zero. */
DURE_MUST_USE dure_err dure_sign_generate(dure_sign_key *key);
DURE_MUST_USE dure_err dure_sign_from_secret(dure_sign_key *key,
                                             const uint8_t secret[DURE_SIGN_SECRET_BYTES]);

DURE_MUST_USE dure_err dure_sign(uint8_t signature[DURE_SIGNATURE_BYTES], const dure_sign_key *key,
                                 const char *label, dure_span message);

/* DURE_ERR_AUTH unless the signature is that of `public_` over this label and message. */
DURE_MUST_USE dure_err dure_sign_verify(const uint8_t public_[DURE_SIGN_PUBLIC_BYTES],
                                        const char *label, dure_span message,
                                        const uint8_t signature[DURE_SIGNATURE_BYTES]);

/* Plain Ed25519 over text whose own format says what it is: only for the signed notes of the
 * ledger, which begin with a printable character where a labelled message begins with a zero byte,
 * so that neither can be taken for the other. DURE_ERR_USAGE when `text` begins with a zero byte
 * or is empty; verify refuses the same with DURE_ERR_AUTH. */
DURE_MUST_USE dure_err dure_sign_text(uint8_t signature[DURE_SIGNATURE_BYTES],
                                      const dure_sign_key *key, dure_span text);
DURE_MUST_USE dure_err dure_sign_text_verify(const uint8_t public_[DURE_SIGN_PUBLIC_BYTES],
                                             dure_span text,
                                             const uint8_t signature[DURE_SIGNATURE_BYTES]);

/* A key file of mode 0600: one line of text with the secret in hex. save() refuses to replace a
 * file (DURE_ERR_EXISTS): an identity is not overwritten by mistake. load() refuses a file that
 * others may read (DURE_ERR_POLICY) and a malformed one (DURE_ERR_FORMAT). */
DURE_MUST_USE dure_err dure_sign_save(const dure_sign_key *key, const char *path, dure_diag *diag);
DURE_MUST_USE dure_err dure_sign_load(dure_sign_key *key, const char *path, dure_diag *diag);
