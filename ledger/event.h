/* The leaves of a federation's log: what happened, in one canonical form.
 *
 * A leaf is the text "DURE/1/leaf", then kind, number and time, then the kind's own fields, as
 * common/buf.h writes them (docs/ledger.md has every byte); there is exactly one encoding of an
 * event. It holds public facts only: digests, public keys, declared constants, counts. From the
 * leaves alone anyone can recompute each member's epsilon (ledger/replay.h).
 *
 * Version 2, "DURE/2/leaf", is a round that also records its secure sum. Logs of older coordinators
 * hold rounds of version 1, which stay valid; every other kind has version 1 only.
 *
 * The kinds in the order in which they occur:
 *   GENESIS      the federation, its root and coordinator keys; always leaf 0, never again
 *   ROSTER       a new version of the roster: its head and who is in force
 *   OPENED       a configuration was signed; from now on its steps may be spent
 *   CLOSED       the round's sum, adapter and gate
 *   ABORTED      the round ended without a sum
 *   PROMOTED     an adapter was released;  ROLLED_BACK  an older one was put in its place
 *   NEW_EPOCH    a root-signed statement that leaves were lost
 *
 * Threads: an event belongs to one thread at a time. */
#pragma once

#include "common/buf.h"
#include "common/err.h"
#include "crypto/hash.h"
#include "crypto/merkle.h"
#include "crypto/sign.h"
#include "dp/plan.h"
#include "proto/config.h"

#include <stdbool.h>
#include <stdint.h>

#define DURE_EVENT_MEMBERS_MAX DURE_MEMBERS_MAX
#define DURE_EVENT_NAME_SIZE DURE_NAME_SIZE
#define DURE_EVENT_REASON_SIZE 257
#define DURE_LEAF_MAX (32u * 1024) /* bytes of one leaf */

typedef enum dure_event_kind {
    DURE_EVENT_GENESIS = 1,
    DURE_EVENT_ROSTER = 2,
    DURE_EVENT_OPENED = 3,
    DURE_EVENT_CLOSED = 4,
    DURE_EVENT_ABORTED = 5,
    DURE_EVENT_PROMOTED = 6,
    DURE_EVENT_ROLLED_BACK = 7,
    DURE_EVENT_NEW_EPOCH = 8,
} dure_event_kind;

typedef struct dure_event_genesis {
    dure_hash federation_id;
    char federation[DURE_EVENT_NAME_SIZE];
    uint8_t root_public[32];      /* Ed25519 */
    uint8_t coordinator_sign[32]; /* Ed25519: signs configurations and checkpoints */
    dure_hash terms;              /* hash of the terms that the root signed */
    uint32_t collusion;           /* c of the quorum rule */
} dure_event_genesis;

/* Version `size` of the roster chain. `sites` are those in force, by name, each once. */
typedef struct dure_event_roster {
    uint64_t size;
    dure_hash head;
    uint32_t n_sites;
    dure_site_key sites[DURE_EVENT_MEMBERS_MAX];
} dure_event_roster;

/* How far a member came. In doubt the larger one: it decides what is charged. */
typedef enum dure_event_part {
    DURE_PART_NONE = 0,     /* nothing of its update left it: not charged */
    DURE_PART_UPLOADED = 1, /* some of its masked update left it: charged, not in the sum */
    DURE_PART_SUMMED = 2,   /* in the sum: charged */
} dure_event_part;

/* One member of the configuration with the privacy parameters of this round: plan.steps is the
 * round's local steps, or 1 where sites are protected. Members are sorted by name, each once. */
typedef struct dure_event_member {
    char name[DURE_EVENT_NAME_SIZE];
    uint8_t sign_public[32];
    dure_event_part part; /* NONE in OPENED */
    dure_dp_plan plan;
} dure_event_member;

typedef enum dure_event_verdict {
    DURE_VERDICT_NONE = 0, /* the gate did not run */
    DURE_VERDICT_PASSED = 1,
    DURE_VERDICT_FAILED = 2,
} dure_event_verdict;

/* The gate's finding on the federation's own evaluation records. A loss that is not finite is
 * recorded as infinity. */
typedef struct dure_event_gate {
    dure_event_verdict verdict;
    uint64_t records;
    double loss_before, loss_after;
} dure_event_gate;

/* The rules of the round's secure sum, from its configuration. suite 0: a round of version 1, which
 * records none of this. */
typedef struct dure_event_sum {
    uint32_t suite;     /* dure_suite of proto/config.h */
    uint32_t threshold; /* t, 2t > members + collusion */
    uint32_t u_min;     /* fewest members in the sum */
    uint32_t collusion; /* c */
    uint32_t n_words;   /* length of the summed vector */
    uint32_t word_bits; /* of one masked word */
} dure_event_sum;

typedef struct dure_event_round {
    uint64_t run_id, round;
    dure_hash h_c; /* hash of the round configuration */
    dure_hash t3;  /* transcript with the survivors; zero when the round did not get there */
    uint64_t roster_size;
    dure_hash roster_head;
    uint64_t checkpoint_n; /* size of the checkpoint that the configuration cites; 0: none */
    uint32_t privacy_mode; /* dure_privacy_mode of proto/config.h */
    dure_hash base;        /* digest of the base model */
    dure_hash adapter_in;
    dure_hash adapter_out; /* zero unless CLOSED */
    dure_hash result;      /* digest of the unmasked sum; zero unless CLOSED */
    dure_event_gate gate;
    char reason[DURE_EVENT_REASON_SIZE]; /* empty unless ABORTED */
    uint32_t n_members;
    dure_event_member members[DURE_EVENT_MEMBERS_MAX];
    dure_event_sum sum;
} dure_event_round;

typedef struct dure_event_release {
    uint64_t run_id, round; /* that made the adapter */
    dure_hash adapter;      /* now in force */
    dure_hash previous;     /* in force before; zero if none */
    uint8_t release_public[32];
    char reason[DURE_EVENT_REASON_SIZE];
} dure_event_release;

/* Leaves kept.n .. lost_n - 1 of the log are gone; it goes on after the first kept.n, of which this
 * leaf is the next. */
typedef struct dure_event_epoch {
    dure_hash federation_id;
    uint64_t epoch; /* 1, 2, .. */
    dure_merkle_head kept;
    uint64_t lost_n;
    char reason[DURE_EVENT_REASON_SIZE];
    uint8_t signature[64]; /* by the root, label "DURE/1/new-epoch", over all of the above */
} dure_event_epoch;

typedef struct dure_event {
    dure_event_kind kind;
    uint64_t index; /* of the leaf in the log */
    int64_t time_s; /* UTC seconds since 1970, by the coordinator's clock */
    union {
        dure_event_genesis genesis;
        dure_event_roster roster;
        dure_event_round round;     /* OPENED, CLOSED, ABORTED */
        dure_event_release release; /* PROMOTED, ROLLED_BACK */
        dure_event_epoch epoch;
    } u;
} dure_event;

/* Appends the leaf to `out`. DURE_ERR_USAGE, naming the field, when the event breaks a rule that
 * decode() checks. */
DURE_MUST_USE dure_err dure_event_encode(dure_buf *out, const dure_event *event, dure_diag *diag);

/* Strict: accepts exactly what encode() writes. DURE_ERR_PROTO with a sentence; *out is then
 * zero. */
DURE_MUST_USE dure_err dure_event_decode(dure_event *out, dure_span leaf, dure_diag *diag);

/* DURE_ERR_USAGE unless it is one line: control characters could forge lines of a report. */
DURE_MUST_USE dure_err dure_event_check_reason(const char *reason, dure_diag *diag);

/* "genesis", "round closed", ...; static. */
const char *dure_event_kind_text(dure_event_kind kind);
/* Members whose part is at least `part`. */
uint32_t dure_event_round_count(const dure_event_round *round, dure_event_part part);

DURE_MUST_USE dure_err dure_event_epoch_sign(dure_event_epoch *epoch, const dure_sign_key *root);
/* DURE_ERR_AUTH unless the root signed it. */
DURE_MUST_USE dure_err dure_event_epoch_verify(const dure_event_epoch *epoch,
                                               const uint8_t root_public[32]);
