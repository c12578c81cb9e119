/* CURVE key pairs (X25519, https://rfc.zeromq.org/spec/26/) as raw bytes, created where they are
 * used and kept in a file of mode 0600.
 *
 * Threads: no shared state. */
#pragma once

#include "common/err.h"
#include "net/envelope.h"

typedef struct dure_curve_key {
    uint8_t secret[DURE_CURVE_BYTES];
    uint8_t public_[DURE_CURVE_BYTES];
} dure_curve_key;

/* DURE_ERR_UNSUPPORTED, with the reason in `diag`, unless libzmq has CURVE and makes it with
 * libsodium: the tweetnacl build is about ten times slower and its maintainers advise against it
 * in production. libzmq does not say which one it was built with, so the check asks the dynamic
 * linker whether libsodium is in the process, which Dure itself does not use: a libzmq with
 * libsodium linked in statically is therefore refused too, and a process that loads libsodium for
 * another reason is not caught. Called by dure_router_open() and dure_dealer_open(). */
DURE_MUST_USE dure_err dure_curve_check(dure_diag *diag);

/* A fresh key pair. The caller wipes it with dure_curve_key_wipe(). */
DURE_MUST_USE dure_err dure_curve_generate(dure_curve_key *key);
/* The public half of a secret. DURE_ERR_CRYPTO on failure, with *key zeroed. */
DURE_MUST_USE dure_err dure_curve_from_secret(dure_curve_key *key,
                                              const uint8_t secret[DURE_CURVE_BYTES]);
void dure_curve_key_wipe(dure_curve_key *key);

/* Saves atomically with mode 0600; loads and refuses (DURE_ERR_AUTH) a file that others may read
 * or whose halves do not belong together. */
DURE_MUST_USE dure_err dure_curve_save(const char *path, const dure_curve_key *key,
                                       dure_diag *diag);
DURE_MUST_USE dure_err dure_curve_load(dure_curve_key *key, const char *path, dure_diag *diag);

/* The id of a peer: SHA-256 of its CURVE public key. */
DURE_MUST_USE dure_err dure_curve_id(dure_hash *id, const uint8_t curve_public[DURE_CURVE_BYTES]);
