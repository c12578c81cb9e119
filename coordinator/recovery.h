/* A folder that was put back to an older copy gets back from the sites what it lacks.
 *
 * Sites keep the log as far as they verified it. What they only say is no proof; a checkpoint that
 * bears this coordinator's own signature and is newer than those here is.
 *
 *   a site claims more --> its checkpoint --ours, and newer--> ROSTER --> LOG --root is right-->
 *   adopted --> FILES (the adapter, the sum) --> done
 *
 * 1. From the proof until the end nothing is opened, entered or signed: this key never signs a
 * second history beside one that it is known to have signed.
 * 2. Nothing is taken on trust: the log must have the root that the checkpoint signs, the roster
 * must be the one that the log names, a file must have its digest. A roster that no log names
 * counts once c + 1 sites tell the same.
 * 3. Who gives a wrong answer is not asked again for a while, so a site that lies costs time.
 * 4. Anyone may answer, also a site that this roster does not know (yet): with the copy that was
 * made on the first day everybody is such a site.
 *
 * Promotions that were lost have to be made again; the log names them.
 *
 * Threads: the loop's. */
#pragma once

#include "common/buf.h"
#include "common/err.h"
#include "crypto/merkle.h"
#include "federation/roster.h"
#include "proto/messages.h"

#define DURE_RECOVERY_DOUBTS 32

struct dure_coordinator;

typedef enum dure_recovery_step {
    DURE_RECOVER_NOTHING,
    DURE_RECOVER_ROSTER,
    DURE_RECOVER_LOG,
    DURE_RECOVER_FILES, /* the adapter, and the sum that led to it */
} dure_recovery_step;

/* Who gave a wrong answer, until when it is passed over. */
typedef struct dure_recovery_doubt {
    dure_hash peer;
    uint64_t until_ms;
} dure_recovery_doubt;

/* The roster's next entries as sites tell them, while no checkpoint is newer. */
typedef struct dure_recovery_claim {
    uint64_t from;    /* entries of the roster that they follow */
    dure_buf entries; /* what all of `tellers` have in common */
    size_t n_tellers;
    dure_hash tellers[DURE_MEMBERS_MAX];
} dure_recovery_claim;

typedef struct dure_recovery {
    bool needed;      /* what is here is old: see 1. */
    bool wants_notes; /* each site is asked once for the notes that rounds cited */
    dure_recovery_step step;
    dure_hash source; /* who is asked, but for FILES */
    char source_name[DURE_NAME_SIZE];
    uint64_t asked_ms;
    uint64_t guest_ms; /* when a guest was asked last so that others wait; 0: never */
    dure_hash guest;   /* who */
    bool guest_wrong;  /* and its answer was */
    dure_buf note;     /* the newer checkpoint, which has `head` */
    dure_merkle_head head;
    dure_roster *roster;  /* owned; the source's, not confirmed yet */
    dure_hash log_roster; /* head of the roster that the log names last, and its size */
    uint64_t log_roster_n;
    dure_buf entries; /* of the log, from entry `from` on */
    uint64_t from, have;
    dure_recovery_claim claim;
    size_t n_doubts; /* ever; a ring */
    dure_recovery_doubt doubts[DURE_RECOVERY_DOUBTS];
    /* FILES: */
    size_t site; /* that is asked */
    dure_hash wanted;
    dure_buf file;
    size_t misses;       /* sites in a row that did not have it */
    bool adapter_missed; /* every site was asked for the adapter, and none has it */
} dure_recovery;

/* At start: whether the folder is known to be old, or to lack the adapter. */
DURE_MUST_USE dure_err dure_coordinator_begin_recovery(struct dure_coordinator *c);
void dure_coordinator_end_recovery(struct dure_coordinator *c);

/* The site says that it has seen more than there is here. */
bool dure_coordinator_is_behind(const struct dure_coordinator *c, const dure_msg_hello *hello);
/* Asks it to prove that; `member`: it is in the roster in force. */
DURE_MUST_USE dure_err dure_coordinator_ask_back(struct dure_coordinator *c, const dure_hash *peer,
                                                 bool member, const dure_msg_hello *hello,
                                                 dure_diag *diag);
/* Somebody who is no member (yet) was asked just now, or a proved log is being read: guests are not
 * refused before that is settled, by an answer or for want of one. */
bool dure_coordinator_asks_guests(const struct dure_coordinator *c);
/* Entries from a peer, named as logs may call it; `member`: as above. */
DURE_MUST_USE dure_err dure_coordinator_on_entries(struct dure_coordinator *c,
                                                   const dure_hash *peer, const char *name,
                                                   bool member, const dure_msg *msg,
                                                   dure_span payload, dure_diag *diag);
/* Asks the site for the notes that rounds cited, if they may be missing here. */
DURE_MUST_USE dure_err dure_coordinator_ask_notes(struct dure_coordinator *c, size_t site,
                                                  dure_diag *diag);
DURE_MUST_USE dure_err dure_coordinator_on_blob_chunk(struct dure_coordinator *c, size_t site,
                                                      const dure_msg *msg, dure_span payload,
                                                      dure_diag *diag);
DURE_MUST_USE dure_err dure_coordinator_tick_recovery(struct dure_coordinator *c, uint64_t now_ms,
                                                      dure_diag *diag);

/* recovery_files.c: asks for what is missing; finishes when nothing is. */
DURE_MUST_USE dure_err dure_coordinator_tick_files(struct dure_coordinator *c, uint64_t now_ms,
                                                   dure_diag *diag);
/* The present adapter's file is not here. */
DURE_MUST_USE dure_err dure_coordinator_lacks_adapter(bool *lacks,
                                                      const struct dure_coordinator *c);
