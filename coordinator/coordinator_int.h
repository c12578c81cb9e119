/* Shared by the files of the loop: coordinator.c (life, loop), sites.c (join, hello, blobs),
 * opening.c and running.c (one round), closing.c (sum to result), status.c. */
#pragma once

#include "common/file.h"
#include "coordinator/admission.h"
#include "coordinator/aggregate.h"
#include "coordinator/coordinator.h"
#include "coordinator/entries.h"
#include "coordinator/folder.h"
#include "coordinator/recovery.h"
#include "coordinator/releases.h"
#include "coordinator/round.h"
#include "coordinator/store.h"
#include "ledger/journal.h"
#include "ledger/round_event.h"
#include "net/router.h"
#include "registry/blob.h"
#include "registry/registry.h"

#include <signal.h>

/* What the loop knows about a site of the roster, by its place there. */
typedef struct dure_site_state {
    dure_hash id;                /* routing id: hash of its CURVE key */
    bool present;                /* said HELLO since the start, and was heard since */
    uint64_t heard_ms;           /* last message of any kind */
    uint64_t roster_size;        /* entries it has */
    uint64_t last_round;         /* by its word, if that can be */
    dure_merkle_head checkpoint; /* the last one it verified */
    uint64_t bytes_in, bytes_out;
    dure_site_chain chain;     /* the longest budget chain that it showed, in this run or before */
    bool chain_old;            /* it showed a shorter one last */
    bool asked_notes;          /* after a recovery */
    bool has_result;           /* it cosigned a log that holds the last result */
    uint64_t unwilling_ms;     /* it refused a round for its policy or budget; 0: it did not */
    dure_abort_code unwilling; /* which of them */
} dure_site_state;

typedef enum dure_loop_state {
    DURE_LOOP_GATHERING,
    DURE_LOOP_RUNNING,
    DURE_LOOP_GATING,
} dure_loop_state;

/* The round in hand, from OPEN to its result. */
typedef struct dure_current_round {
    dure_config *config; /* owned; NULL: none */
    dure_buf encoding;
    dure_round_row row;
    dure_round *round;                   /* owned */
    dure_aggregate *aggregate;           /* owned */
    size_t sites[DURE_MEMBERS_MAX];      /* place in the roster, by member */
    uint64_t asked_ms[DURE_MEMBERS_MAX]; /* when chunks were last asked for */
    dure_members u2, u3;
    dure_round_state shown; /* last state that was reported */
    uint64_t entered_ms;
} dure_current_round;

/* The gate's work: losses of the reference, then of the candidate. */
typedef struct dure_gating {
    bool running; /* a child works */
    bool reference_known;
    dure_hash reference_of; /* adapter whose losses are kept; zero: the base alone */
    double *reference;      /* owned */
    size_t n_reference;
    uint64_t reference_version; /* 0: the base alone */
    bool for_candidate;         /* what the child works on */
    uint64_t version;           /* of the candidate */
    dure_event_gate verdict;
} dure_gating;

/* A blob that sites fetch now, in parts: after a round all ask for the same few. */
typedef struct dure_served_blob {
    dure_blob_file file;
    uint64_t used_ms;
} dure_served_blob;
#define DURE_SERVED_BLOBS 3

struct dure_coordinator {
    dure_coordinator_opts opts;
    dure_folder folder;
    dure_lock lock;
    dure_store *store;
    dure_store_facts facts;
    dure_registry *registry;
    dure_journal *journal;
    dure_roster *roster;
    dure_admission_list *admission;
    dure_router *router;
    dure_site_state sites[DURE_ROSTER_MAX_ENTRIES];
    dure_site_key cosigners[DURE_MEMBERS_MAX]; /* room for the roster in force */
    uint64_t cited;                            /* newest checkpoint that counts, while */
    bool cited_known;                          /* neither notes nor roster changed since */
    bool releases_shown;                       /* a checkpoint covers every promotion in the log */
    dure_byte_budget budget;
    dure_loop_state state;
    dure_current_round now;
    dure_gating gating;
    dure_recovery recovery;
    dure_served_blob blobs[DURE_SERVED_BLOBS];
    uint64_t rounds_done;  /* in this run */
    uint64_t target;       /* in this run */
    uint64_t ready_ms;     /* since when there are enough sites; 0: there are not */
    uint64_t published_ms; /* when a result was last published */
    uint64_t fetched_ms;   /* when a blob was last asked for */
    uint64_t ticked_ms, inbox_ms;
    uint32_t failures; /* rounds that failed one after the other */
    char last_failure[256];
    uint64_t retry_ms; /* not before this */
    bool sum_waits;    /* stored before the start: closing its round would sign a second history if
                          this    is an old copy, so sites are heard first */
    bool done_reported, status_stale;
    uint64_t status_ms;
    volatile sig_atomic_t stop;
};

/* Reports an event; `facts` is taken over and may be NULL (out of memory: the event is then without
 * them). */
void dure_coordinator_report(dure_coordinator *c, const char *name, json_t *facts);
/* A message that its sender should not have sent is noted, and is no failure of this process.
 * Whoever handles a message says so where it checks it: what a handler returns is our own failure
 * and ends the loop. */
void dure_coordinator_refuse_message(const dure_coordinator *c, size_t site, const dure_msg *msg,
                                     dure_err err, const dure_diag *why);
/* Encodes and queues a control message for a site. A site that is away or slow is no failure: it
 * says HELLO and is told again. */
DURE_MUST_USE dure_err dure_coordinator_send(dure_coordinator *c, size_t site, const dure_msg *msg,
                                             dure_diag *diag);
/* The same for a peer that need not be a site of the roster. */
DURE_MUST_USE dure_err dure_coordinator_send_to(dure_coordinator *c, const dure_hash *peer,
                                                const dure_msg *msg, dure_diag *diag);
/* The first for bytes that are encoded already. */
void dure_coordinator_send_bytes(dure_coordinator *c, size_t site, dure_span control,
                                 const dure_payload *payload);

/* sites.c */
DURE_MUST_USE dure_err dure_coordinator_greet_all(dure_coordinator *c);
DURE_MUST_USE dure_err dure_coordinator_on_guest(dure_coordinator *c, const dure_envelope *envelope,
                                                 const dure_msg *msg, dure_diag *diag);
/* Answers a frame of another protocol version in this one: its first byte is the version in each of
 * them, so that the peer can tell. `name`: of a member; NULL: a guest. */
DURE_MUST_USE dure_err dure_coordinator_refuse_version(dure_coordinator *c, const dure_hash *peer,
                                                       const char *name, const dure_diag *why,
                                                       dure_diag *diag);
DURE_MUST_USE dure_err dure_coordinator_on_hello(dure_coordinator *c, size_t site,
                                                 const dure_msg *msg, uint64_t now_ms,
                                                 dure_diag *diag);
DURE_MUST_USE dure_err dure_coordinator_on_blob_request(dure_coordinator *c, size_t site,
                                                        const dure_msg *msg, dure_diag *diag);
/* Entries of the log from `from` on and below `to`, as many as one frame holds, for its copy. */
DURE_MUST_USE dure_err dure_coordinator_send_entries(dure_coordinator *c, size_t site,
                                                     uint64_t from, uint64_t to, dure_diag *diag);
DURE_MUST_USE dure_err dure_coordinator_on_entries_request(dure_coordinator *c, size_t site,
                                                           const dure_msg *msg, dure_diag *diag);
/* DURE_ERR_AUTH unless the invitation carries this federation's terms: it has one plan. */
DURE_MUST_USE dure_err dure_coordinator_check_terms(const dure_coordinator *c,
                                                    const dure_join *join, dure_diag *diag);
/* So many sites were heard since the start that an honest one would have shown a newer log that
 * counts, if there is one. */
bool dure_coordinator_heard_quorum(const dure_coordinator *c);
/* The same, or there is no checkpoint yet: before, nothing is opened, entered or signed here. */
bool dure_coordinator_heard_enough(const dure_coordinator *c);
DURE_MUST_USE dure_err dure_coordinator_read_inbox(dure_coordinator *c, dure_diag *diag);
/* True, and the site was told so, when the budget chain that it shows is not the longest that it
 * has shown nor longer: its ledger was put back to an older copy, and would forget what was spent.
 */
DURE_MUST_USE dure_err dure_coordinator_chain_is_old(bool *old, dure_coordinator *c, size_t site,
                                                     const dure_site_chain *shown, dure_diag *diag);
/* Tells a site that a round is over without a result. */
DURE_MUST_USE dure_err dure_coordinator_tell_over(dure_coordinator *c, size_t site,
                                                  const dure_hash *config_hash, const char *text,
                                                  dure_diag *diag);
/* Place in the roster of the member with this routing id; false if there is none in force. */
bool dure_coordinator_find_site(size_t *site, const dure_coordinator *c, const dure_hash *id);
bool dure_coordinator_site_present(const dure_coordinator *c, size_t site, uint64_t now_ms);

/* opening.c */
/* The newest checkpoint that counts with the roster in force, as the sites of the next round will
 * count it; 0 if none does. */
DURE_MUST_USE dure_err dure_coordinator_citable(uint64_t *size, dure_coordinator *c,
                                                dure_diag *diag);
DURE_MUST_USE dure_err dure_coordinator_try_open(dure_coordinator *c, uint64_t now_ms,
                                                 dure_diag *diag);
DURE_MUST_USE dure_err dure_coordinator_resume(dure_coordinator *c, uint64_t now_ms,
                                               dure_diag *diag);
DURE_MUST_USE dure_err dure_coordinator_send_open(dure_coordinator *c, uint32_t member,
                                                  dure_diag *diag);
/* Whether the last leaf about a round is about the round in hand; `event` holds it then. A crash
 * may have come between the log and the store, and a promotion after it. */
DURE_MUST_USE dure_err dure_coordinator_last_said(bool *found, dure_event *event,
                                                  const dure_coordinator *c, dure_diag *diag);
void dure_coordinator_forget_round(dure_coordinator *c);
/* How many sites are here, and how many the next round needs; what is waited for. */
void dure_coordinator_waiting(uint32_t *present, uint32_t *needed, char text[DURE_MSG_TEXT_SIZE],
                              const dure_coordinator *c, uint64_t now_ms);

/* running.c */
DURE_MUST_USE dure_err dure_coordinator_on_round_message(dure_coordinator *c, uint32_t member,
                                                         const dure_msg *msg, dure_span payload,
                                                         uint64_t now_ms, dure_diag *diag);
DURE_MUST_USE dure_err dure_coordinator_act(dure_coordinator *c, dure_secagg_actions *actions,
                                            uint64_t now_ms, dure_diag *diag);
DURE_MUST_USE dure_err dure_coordinator_tick_round(dure_coordinator *c, uint64_t now_ms,
                                                   dure_diag *diag);
DURE_MUST_USE dure_err dure_coordinator_abandon(dure_coordinator *c, const char *reason,
                                                dure_diag *diag);
/* Whether what the site says can still change the round in hand. */
bool dure_coordinator_member_of(uint32_t *member, const dure_coordinator *c, size_t site);

/* closing.c */
DURE_MUST_USE dure_err dure_coordinator_sum(dure_coordinator *c, dure_diag *diag);
DURE_MUST_USE dure_err dure_coordinator_take_up_sum(dure_coordinator *c, dure_diag *diag);
DURE_MUST_USE dure_err dure_coordinator_tick_gate(dure_coordinator *c, dure_diag *diag);
/* The leaf that closes the round in hand: where it is, or where it will be, with `leaf` empty. The
 * caller ends `leaf`. */
DURE_MUST_USE dure_err dure_coordinator_closed_leaf(uint64_t *index, dure_buf *leaf,
                                                    const dure_coordinator *c, dure_diag *diag);
DURE_MUST_USE dure_err dure_coordinator_on_cosign(dure_coordinator *c, size_t site,
                                                  const dure_msg *msg, dure_diag *diag);

/* A stored RESULT frame, with the proof that this site needs from what it has seen. */
DURE_MUST_USE dure_err dure_coordinator_send_result(dure_coordinator *c, size_t site,
                                                    dure_span frame, dure_diag *diag);
/* The result of the last round that was done, unless the site is known to have it or there is none:
 * the next round follows it, and its checkpoint wants cosignatures. */
DURE_MUST_USE dure_err dure_coordinator_show_last(dure_coordinator *c, size_t site,
                                                  dure_diag *diag);

/* Enters promotions and rollbacks in the log, and once no round is in hand shows the sites a
 * checkpoint that covers them. */
DURE_MUST_USE dure_err dure_coordinator_log_releases(dure_coordinator *c, dure_diag *diag);

/* coordinator.c */
/* How many rounds this run is to do, from the plan and what is done of it. */
void dure_coordinator_set_target(dure_coordinator *c);

/* status.c */
DURE_MUST_USE dure_err dure_coordinator_write_status(dure_coordinator *c, uint64_t now_ms,
                                                     dure_diag *diag);
