/* Who is in the federation: a hash chain of joins and revocations that verifies from the root key.
 *
 *   entry 0:  head_0 = H("DURE/1/roster", root_public)
 *   entry i:  head_i = H("DURE/1/roster-entry", head_(i-1), entry_i)
 *
 * An entry is a byte for its kind and what follows (docs/ledger.md, section 6).
 *
 * A join is a root-signed invitation and a join record that both the invitation's key and the
 * site's own key signed. A revocation is signed by the root. So the coordinator can neither add a
 * site nor alter what one declared, and a site that keeps the last head it saw notices a chain that
 * does not extend it (a fork). Entries are never removed; a revoked member stays in the chain.
 *
 * Threads: an object belongs to one thread at a time. */
#pragma once

#include "common/buf.h"
#include "common/err.h"
#include "crypto/hash.h"
#include "crypto/sign.h"
#include "federation/invitation.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DURE_ROSTER_MAX_ENTRIES 400
#define DURE_ROSTER_ENTRY_MAX_BYTES 4096
#define DURE_ROSTER_MAX_BYTES (DURE_ROSTER_MAX_ENTRIES * (DURE_ROSTER_ENTRY_MAX_BYTES + 4u) + 64)

/* What a site declares in public when it joins. Nothing of it is computed from its data later: what
 * is public must not depend on a record. */
typedef struct dure_declared {
    uint64_t n_pub;     /* its own rounded figure of how many records it has */
    uint64_t q_k;       /* a record is sampled with probability q_k / 2^64; 0: always */
    uint32_t batch;     /* L: expected records a step, the divisor of a summed gradient */
    uint32_t sigma_num; /* noise multiplier = sigma_num / sigma_den; 0 / 1 without privacy */
    uint32_t sigma_den;
} dure_declared;

/* What a site sends to join. Signed with the invitation's private key (label "DURE/1/join") and, to
 * show that it holds it, with the site's own key (label "DURE/1/join-own"). */
typedef struct dure_join {
    dure_invitation invitation;
    uint8_t sign_public[32];  /* the site's Ed25519 key */
    uint8_t curve_public[32]; /* the site's CURVE key */
    dure_declared declared;
    dure_hash base_digest; /* of the GGUF file the site has */
    uint8_t invite_signature[64];
    uint8_t own_signature[64];
} dure_join;

/* Signs with both keys; every other field is filled by the caller. */
DURE_MUST_USE dure_err dure_join_sign(dure_join *join, const dure_sign_key *invite,
                                      const dure_sign_key *own, dure_diag *diag);
/* Invitation and both signatures against the root; the base digest must be the terms'. */
DURE_MUST_USE dure_err dure_join_verify(const dure_join *join, const uint8_t root_public[32],
                                        dure_diag *diag);
/* The record without the invitation, which travels beside it (proto/messages.h, dure_msg_join). */
void dure_join_put(dure_buf *out, const dure_join *join);
/* Both spans of a Join message, whole. */
DURE_MUST_USE dure_err dure_join_decode(dure_join *out, dure_span invitation, dure_span record,
                                        dure_diag *diag);

/* Takes an invitation back, whether or not it was used. */
typedef struct dure_revocation {
    uint8_t invite_public[32];
    int64_t revoked_s;
    /* By the root, label "DURE/1/revocation": over its own key, the invitation's and the time. */
    uint8_t signature[64];
} dure_revocation;
DURE_MUST_USE dure_err dure_revocation_sign(dure_revocation *revocation, const dure_sign_key *root);
void dure_revocation_put(dure_buf *out, const dure_revocation *revocation);
DURE_MUST_USE dure_err dure_revocation_take(dure_revocation *out, dure_reader *r);

typedef struct dure_roster_member {
    dure_join join;
    int64_t joined_s;
    bool revoked;
} dure_roster_member;

typedef struct dure_roster dure_roster;

DURE_MUST_USE dure_err dure_roster_new(dure_roster **out, const uint8_t root_public[32]);
void dure_roster_free(dure_roster **roster);

/* Verifies and appends. DURE_ERR_AUTH: a signature; DURE_ERR_EXPIRED: `joined_s` is past the
 * invitation's end; DURE_ERR_EXISTS: the invitation was used, or a member in force has its name or
 * one of its keys; DURE_ERR_POLICY: the invitation was revoked; DURE_ERR_LIMIT: DURE_MEMBERS_MAX
 * sites are in force, which is what a round and an entry of the log hold, or the chain is full. On
 * error nothing changed. */
DURE_MUST_USE dure_err dure_roster_add(dure_roster *roster, const dure_join *join, int64_t joined_s,
                                       dure_diag *diag);
/* Appends a revocation; DURE_ERR_EXISTS if it is there. */
DURE_MUST_USE dure_err dure_roster_revoke(dure_roster *roster, const dure_revocation *revocation,
                                          dure_diag *diag);

/* The whole chain, and back: parsing verifies every signature, use and expiry again. */
DURE_MUST_USE dure_err dure_roster_encode(dure_buf *out, const dure_roster *roster);
DURE_MUST_USE dure_err dure_roster_parse(dure_roster **out, const uint8_t root_public[32],
                                         dure_span bytes, dure_diag *diag);

/* Single entries, as OPEN carries what a site lacks: entry `i` as bytes (borrowed), and appending
 * one that was received, with all the checks of add and revoke. */
dure_span dure_roster_entry(const dure_roster *roster, size_t i);
DURE_MUST_USE dure_err dure_roster_append(dure_roster *roster, dure_span entry, dure_diag *diag);

const uint8_t *dure_roster_root(const dure_roster *roster);
size_t dure_roster_entries(const dure_roster *roster);
dure_hash dure_roster_head(const dure_roster *roster);
/* DURE_ERR_AUTH unless the chain passes through `head` at `n_entries`: the version seen before. */
DURE_MUST_USE dure_err dure_roster_extends(const dure_roster *roster, size_t n_entries,
                                           const dure_hash *head, dure_diag *diag);

/* Everyone who ever joined, in order; the pointers are borrowed and valid until the next append. */
size_t dure_roster_count(const dure_roster *roster);
const dure_roster_member *dure_roster_at(const dure_roster *roster, size_t i);
/* Members in force (not revoked); NULL when there is none such. */
const dure_roster_member *dure_roster_by_sign(const dure_roster *roster, const uint8_t sign[32]);
const dure_roster_member *dure_roster_by_name(const dure_roster *roster, const char *name);
bool dure_roster_invitation_used(const dure_roster *roster, const uint8_t invite_public[32]);
size_t dure_roster_in_force(const dure_roster *roster);
/* Those in force, sorted by name as the log lists them; how many. */
uint32_t dure_roster_sites(dure_site_key sites[DURE_MEMBERS_MAX], const dure_roster *roster);

/* The member as a round configuration names it. */
void dure_roster_describe(dure_member *out, const dure_roster_member *member);
