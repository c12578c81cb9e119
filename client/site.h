/* A site's folder: identity, what it knows of the federation, and how far it is.
 *
 *   DIR/site.yaml       the policy (client/policy.h)
 *   DIR/keys/           sign.key, curve.key: made here, 0600
 *   DIR/federation.bin  the invitation without its private key: terms, root and coordinator keys;
 *                       after a renewal it is in keys/, which it belongs to
 *   DIR/keys.new/       as keys/, of a renewal that the coordinator has not taken yet
 *   DIR/roster.bin      the chain of members, as far as it was seen
 *   DIR/state.bin       the rounds signed, the reservation, the stored reply (dure_site_state)
 *   DIR/checkpoint      the last checkpoint of the log that was verified (ledger/witness.h)
 *   DIR/cited           the last checkpoint that a round cited, with the cosignatures it had
 *   DIR/log/            a copy of the log, as far as that checkpoint (ledger/leaf_log.h)
 *   DIR/notes/SIZE      the checkpoints that rounds cited, with the cosignatures they had
 *   DIR/adapter.gguf    the global adapter after the last result
 *   DIR/sum             the sum that led to it
 *   DIR/attempt, DIR/training  the noise key of the running round; the optimizer's state
 *   DIR/lock            held by the process that uses the folder
 *
 * Threads: one thread at a time. */
#pragma once

#include "client/policy.h"
#include "common/file.h"
#include "crypto/sign.h"
#include "federation/invitation.h"
#include "federation/roster.h"
#include "ledger/site_ledger.h"
#include "net/curve_key.h"

#include <stdbool.h>

#define DURE_SITE_YAML "site.yaml"
#define DURE_SITE_CHECKPOINT "checkpoint"
#define DURE_SITE_CITED "cited"
#define DURE_SITE_ADAPTER "adapter.gguf"
#define DURE_SITE_ATTEMPT "attempt"
#define DURE_SITE_TRAINING "training"
#define DURE_SITE_LOG "log"
#define DURE_SITE_NOTES "notes"
#define DURE_SITE_SUM "sum"
#define DURE_SITE_REPLY_MAX 65536u

/* What must outlive a crash; written and synced before what it allows. */
typedef struct dure_site_state {
    bool joined;            /* the coordinator confirmed it */
    dure_declared declared; /* public constants, as joined */
    bool reserved;          /* `reservation` holds the plan */
    dure_reservation_id reservation;
    uint64_t steps_used;   /* of the plan: noise of these may have left; in the ledger too */
    uint64_t last_round;   /* highest round whose shares were sent; paid ones in the ledger too */
    uint64_t rounds_done;  /* results verified */
    uint64_t signed_round; /* the round of the only T3 signed in it, and that T3 */
    dure_hash signed_t3;
    dure_hash round_hash; /* H_C of the last round in which R4 was given, until its result; zero: */
    dure_buf round_config; /* none. Its C; and the R4 frame, */
    dure_buf reply;        /* to be repeated until the result, or until the round is called over */
    dure_members round_u2, round_u3; /* its members that shared, and that were summed */
    dure_hash result_t3;             /* of the last result that was verified, its adapter, and */
    dure_hash result_adapter;        /* the entry of the log that closed its round; */
    uint64_t result_index;           /* zero: none yet */
    uint64_t proven; /* entries of the log in which every round that closes was followed here, or
                        was cosigned by a quorum */
    uint64_t ledger_entries; /* head of the owner's ledger when it was last used */
    dure_hash ledger_head;
} dure_site_state;

typedef struct dure_site {
    char *dir;
    dure_policy policy;
    dure_invitation invitation;
    dure_sign_key sign;
    dure_curve_key curve;
    dure_roster *roster;
    dure_site_state state;
    dure_lock lock;
} dure_site;

/* Makes the folder with fresh keys, for the invitation; the policy is written too, last: what an
 * earlier making left that was cut off is replaced. DURE_ERR_EXISTS when it is a site's folder
 * already. The caller ends *out with dure_site_close(). */
DURE_MUST_USE dure_err dure_site_make(dure_site *out, const char *dir, const dure_policy *policy,
                                      const dure_invitation *invitation, dure_diag *diag);
/* Opens and locks. DURE_ERR_BUSY when another process uses the folder; DURE_ERR_NOT_FOUND when it
 * is no site's. */
DURE_MUST_USE dure_err dure_site_open(dure_site *out, const char *dir, dure_diag *diag);
/* The same without keys, which may be lost, for dure_site_renew(). */
DURE_MUST_USE dure_err dure_site_open_to_renew(dure_site *out, const char *dir, dure_diag *diag);
void dure_site_close(dure_site *site); /* wipes the keys; idempotent */

/* New keys under another invitation for the same site, plan and coordinator: made in DIR/keys.new,
 * or found there when the same renewal was cut off (then *fresh is false), and put into `site`,
 * whose folder stays as it is. DURE_ERR_STATE when the invitation is for something else;
 * DURE_ERR_EXISTS when it is the site's own. */
DURE_MUST_USE dure_err dure_site_renew(bool *fresh, dure_site *site,
                                       const dure_invitation *invitation, dure_diag *diag);
/* The coordinator took the new keys: they become the folder's in one step, the old ones are
 * removed. Steps used, reservation and ledger go on; what is left of a round in hand goes. */
DURE_MUST_USE dure_err dure_site_adopt(dure_site *site, dure_diag *diag);

bool dure_site_there(const char *dir); /* DIR/site.yaml and its keys exist */
/* Durable when they return. */
DURE_MUST_USE dure_err dure_site_save_state(const dure_site *site, dure_diag *diag);
DURE_MUST_USE dure_err dure_site_save_roster(const dure_site *site, dure_diag *diag);
/* DIR/name, allocated; NULL when out of memory. */
char *dure_site_path(const dure_site *site, const char *name);

/* Opens the owner's ledger. DURE_ERR_STATE, with a sentence, when it does not contain the head that
 * this site saw last: an older copy was put back. */
DURE_MUST_USE dure_err dure_site_open_ledger(dure_site_ledger **out, const dure_site *site,
                                             dure_diag *diag);
/* Raises steps_used and last_round to what the ledger has noted of the reservation, so that a
 * folder that was put back to an older copy uses no step and takes part in no paid round twice. Not
 * saved: the ledger has it. DURE_ERR_NOT_FOUND when the ledger does not know the reservation. */
DURE_MUST_USE dure_err dure_site_follow_ledger(dure_site *site, const dure_site_ledger *ledger,
                                               dure_diag *diag);
/* Notes the ledger's present head in the state (not saved yet). */
void dure_site_note_ledger(dure_site *site, const dure_site_ledger *ledger);

/* The whole plan as declared: rounds * local steps. DURE_ERR_USAGE as dure_dp_plan_check(). */
DURE_MUST_USE dure_err dure_site_plan(dure_dp_plan *out, const dure_terms *terms,
                                      const dure_declared *declared, dure_diag *diag);
/* True when the federation trains without differential privacy. */
bool dure_site_without_privacy(const dure_site *site);
