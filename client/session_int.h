/* Shared by the files of the session: session.c (life, connection, loop), session_open.c (the
 * checks of a new round), session_round.c (the round in hand), session_result.c (what comes of it),
 * session_follow.c (what lies between two results), session_log.c (the copy of the log). */
#pragma once

#include "client/session.h"
#include "client/work.h"
#include "ledger/event.h"
#include "ledger/leaf_log.h"
#include "ledger/witness.h"
#include "net/dealer.h"
#include "net/transfer.h"
#include "secagg/client.h"

#include <signal.h>

/* From one adapter to the next, as an entry of the log says it. */
typedef struct session_step {
    uint64_t index;
    dure_hash t3, sum, adapter_out;
    uint32_t n_summed; /* |U3| */
} session_step;

/* The round in hand, from OPEN to its result. */
typedef struct session_round {
    dure_config *config; /* owned; NULL: none */
    dure_buf encoding;   /* of config */
    dure_hash hash;      /* H_C */
    uint32_t self;
    dure_secagg_client *client;  /* owned; NULL after a restart that found a stored reply */
    bool mask_ready;             /* A2 was accepted: the update may be masked */
    bool charged;                /* masked and paid for: chunks may leave */
    bool summed;                 /* R4 was given */
    uint32_t n_summed;           /* |U3|, once the result is there */
    bool outdated;               /* the result's checkpoint is older than one seen: not cosigned */
    dure_msg_fetch fetch;        /* asked for before it could be served */
    uint32_t sent_from, sent_to; /* chunks that went over the present connection */
    uint64_t sent_ms;            /* the last of them */
    dure_msg *result;  /* owned; waits for the sum to be downloaded. Without config: of a round that
                          this site was not in, or has forgotten */
    session_step step; /* whose sum is downloaded: that of the result, or of a round before it */
    double loss;       /* mean over the round's steps, for the owner's screen */
    uint32_t n_losses;
} session_round;

typedef enum download_for {
    DOWNLOAD_NOTHING,
    DOWNLOAD_ADAPTER, /* that the round starts from */
    DOWNLOAD_SUM,     /* that the result names */
} download_for;

typedef struct download {
    download_for what;
    dure_hash digest;
    dure_buf bytes;
    dure_receiver *receiver; /* owned; NULL: its length is not known yet */
    uint64_t moved_ms;       /* when something was asked for after nothing, or came */
} download;

/* The copy of the federation's log (session_log.c). */
typedef struct log_copy {
    dure_leaf_log *log;        /* owned; what is kept */
    dure_buf entries;          /* what follows it, not yet known to be right */
    uint64_t have;             /* entries of both */
    dure_merkle_frontier tree; /* of both */
    uint64_t asked_ms;         /* 0: ask at once */
    bool given_up;             /* what is missing is more than fits into memory */
    bool sum_known;            /* sum_digest is that of the kept sum, or zero: there is none */
    dure_hash sum_digest;
} log_copy;

/* Where a proof of the coordinator may begin although the site stands elsewhere by now: what its
 * last HELLOs said, and what messages showed that were passed over. */
enum { SESSION_STARTS = 4 };
typedef struct proof_starts {
    dure_merkle_head heads[SESSION_STARTS]; /* the newest at (n - 1) % SESSION_STARTS */
    uint32_t n;                             /* of all times */
    uint32_t passed_over;                   /* messages, since the log that was seen grew */
} proof_starts;

struct dure_session {
    dure_session_opts opts;
    dure_site site;
    bool site_open;
    dure_site_ledger *ledger; /* NULL without privacy */
    dure_dp_plan plan;
    dure_witness *witness;
    dure_work *work;
    dure_dealer *dealer;
    dure_hash federation_id;

    dure_buf adapter; /* the global adapter's file; empty: none yet */
    dure_hash adapter_digest;
    session_round round;
    download load;
    log_copy copy;
    proof_starts starts;

    uint32_t connects; /* handshakes greeted with HELLO */
    uint64_t heard_ms, hello_ms, beat_ms, away_said_ms, progress_ms, waiting_ms;
    uint64_t bytes_sent;
    uint64_t greet_ms;  /* HELLO is due then; 0: it is not */
    bool open_missed;   /* a round was opened while the last one's result was being taken */
    bool result_missed; /* a result was passed over; what comes right behind it follows it */
    bool vouch_owed; /* entries that are missing in the copy decide whether the log is cosigned */
    bool all_done;   /* the coordinator said that no round will follow */
    bool away;
    volatile sig_atomic_t stop;
};

/* Reports an event; `facts` is taken over and may be NULL. */
void session_report(dure_session *s, const char *name, json_t *facts);
/* Encodes and queues. A connection that is down or full is no failure: HELLO brings back what is
 * missing. *sent (may be NULL) says whether it went out. */
DURE_MUST_USE dure_err session_send(bool *sent, dure_session *s, const dure_msg *msg,
                                    const dure_payload *payload, dure_diag *diag);
DURE_MUST_USE dure_err session_send_frame(bool *sent, dure_session *s, dure_span frame,
                                          const dure_payload *payload);
/* Asks for a blob; what arrives is handed to session_on_adapter() or session_on_sum(). */
DURE_MUST_USE dure_err session_download(dure_session *s, download_for what,
                                        const uint8_t digest[32], dure_diag *diag);
void session_end_download(dure_session *s);
/* A part of it. What ends as other bytes than the digest names is thrown away, and the round given
 * up. */
DURE_MUST_USE dure_err session_on_blob(dure_session *s, const dure_msg_blob_chunk *chunk,
                                       dure_span payload, dure_diag *diag);
/* Steps of the plan that a round takes: its local steps, or 1 where the site is protected. */
uint64_t session_round_steps(const dure_session *s);
/* Steps of the plan that are left. */
uint64_t session_steps_left(const dure_session *s);

/* session_open.c */
DURE_MUST_USE dure_err session_on_open(dure_session *s, const dure_msg *msg, dure_diag *diag);
/* The signed ABORT by which member `self` stays out of the round of *hash. It says the rule by its
 * code and a fixed sentence: no path, no figure of this site. */
DURE_MUST_USE dure_err session_make_refusal(dure_msg *out, const dure_session *s,
                                            const dure_hash *hash, uint32_t self,
                                            dure_abort_code code);
/* A checkpoint's note, with the coordinator's signature verified; free() *out, also on error. */
DURE_MUST_USE dure_err session_read_note(dure_note **out, const dure_session *s, dure_span text,
                                         dure_diag *diag);
/* The adapter that the round after the last known result starts from; before any, the one that the
 * terms determine, which the other gives. */
DURE_MUST_USE dure_err session_next_start(dure_hash *out, const dure_session *s, dure_diag *diag);
DURE_MUST_USE dure_err session_first_adapter(dure_hash *out, const dure_session *s,
                                             dure_diag *diag);
void session_take_proof(dure_merkle_proof *out, const uint8_t (*hashes)[DURE_DIGEST_BYTES],
                        size_t n);
/* A proof may begin at `head`: HELLO said so. */
void session_note_start(dure_session *s, const dure_merkle_head *head);
/* The log `shown`, whose note was verified, against the last that this site has verified: either
 * may be the newer, and the proof leads from the older to it. A newer one is stored. DURE_ERR_AUTH
 * unless one extends the other, and for the empty log once the site has seen any.
 * DURE_ERR_CANCELLED: the proof begins where an earlier HELLO stood. The message says nothing about
 * the log of now and is passed over; HELLO, which is due then, brings it again. */
DURE_MUST_USE dure_err session_check_history(dure_session *s, const dure_merkle_head *shown,
                                             dure_span note, const dure_merkle_proof *consistency,
                                             dure_diag *diag);

/* session_round.c */
DURE_MUST_USE dure_err session_begin_round(dure_session *s, dure_diag *diag);
DURE_MUST_USE dure_err session_on_adapter(dure_session *s, dure_diag *diag);
DURE_MUST_USE dure_err session_on_round_message(dure_session *s, const dure_msg *msg,
                                                dure_diag *diag);
DURE_MUST_USE dure_err session_tick_round(dure_session *s, uint64_t now_ms, dure_diag *diag);
/* The site gives the round up for a reason of its own, and tells the coordinator `told`. */
DURE_MUST_USE dure_err session_give_up(dure_session *s, const char *told, dure_diag *diag);
/* Pays for the round's steps: the ledger's entries, then the state, all synced. Nothing may have
 * left before. DURE_ERR_STATE when another copy of the folder used these steps or this round. */
DURE_MUST_USE dure_err session_pay(dure_session *s, dure_diag *diag);
/* The round is over at this site, without a result. */
void session_drop_round(dure_session *s);

/* session_result.c */
DURE_MUST_USE dure_err session_on_result(dure_session *s, dure_msg **msg, dure_diag *diag);
DURE_MUST_USE dure_err session_on_sum(dure_session *s, dure_diag *diag);
/* After a restart: the round of the stored reply is in hand again, as far as its result needs it.
 */
DURE_MUST_USE dure_err session_revive(dure_session *s, dure_diag *diag);

/* The sum can be followed only from the adapter that the round started from. The first one is made
 * here: it follows from the terms, and no coordinator has to be asked for it. */
DURE_MUST_USE dure_err session_can_follow(bool *can, dure_session *s, const uint8_t adapter_in[32],
                                          dure_diag *diag);
/* DURE_ERR_AUTH when an entry counts this site in a round in which it gave no shares, or with
 * survivors that it did not sign. */
DURE_MUST_USE dure_err session_check_my_part(const dure_session *s, const dure_event_round *e,
                                             dure_diag *diag);
/* The next round has to follow this one; not saved. One that comes late changes nothing. */
void session_note_result(dure_site_state *state, const session_step *result);
/* A round between does not come: the result is noted, and not cosigned. */
DURE_MUST_USE dure_err session_stop_following(dure_session *s, dure_diag *diag);

/* session_follow.c */
/* The copy has all between the last result that this site knows (or the log's beginning) and entry
 * `index`, and no round was closed there. */
DURE_MUST_USE dure_err session_follows_directly(bool *directly, const dure_session *s,
                                                uint64_t index, dure_diag *diag);
void session_step_of(session_step *out, uint64_t index, const dure_event_round *e);
/* Whether this site can make the steps that lead to a result of others, entry `index`, and the
 * first of them: those of all rounds that it was not shown, if it can, else that of the result
 * alone. */
DURE_MUST_USE dure_err session_find_way(bool *can, session_step *first, dure_session *s,
                                        uint64_t index, const dure_event_round *last,
                                        dure_diag *diag);
/* The step in hand is made, and is not the result's yet. */
DURE_MUST_USE dure_err session_next_step(dure_session *s, dure_diag *diag);
bool session_is_catching_up(const dure_session *s);
/* Notes `result` (may be NULL), and cosigns the log that was verified last if this site has
 * followed every round that closes in it. */
DURE_MUST_USE dure_err session_vouch(dure_session *s, const session_step *result, dure_diag *diag);

/* session_log.c */
DURE_MUST_USE dure_err session_open_log(dure_session *s, dure_diag *diag);
void session_close_log(dure_session *s);
/* Keeps what has come, once it is all that the last checkpoint covers. */
DURE_MUST_USE dure_err session_settle_log(dure_session *s, dure_diag *diag);
/* Asks for what the copy lacks. */
DURE_MUST_USE dure_err session_tick_log(dure_session *s, uint64_t now_ms, dure_diag *diag);
DURE_MUST_USE dure_err session_on_entries(dure_session *s, const dure_msg_entries *e,
                                          dure_span payload, dure_diag *diag);
/* The root says that entries of the log were lost: from its signature on, the log goes on after
 * what it keeps, and so does this site. Nothing that was paid for or signed in a round is
 * forgotten. */
DURE_MUST_USE dure_err session_on_new_epoch(dure_session *s, const dure_msg_new_epoch *e,
                                            dure_diag *diag);
/* The copy lacks nothing that can be had. */
bool session_log_is_whole(const dure_session *s);
/* Keeps the sum that led to the present adapter, for a coordinator that loses it. */
DURE_MUST_USE dure_err session_keep_sum(dure_session *s, dure_span sum, dure_diag *diag);
/* A coordinator asks for what it lost: what it is given is what every site of the federation has.
 */
DURE_MUST_USE dure_err session_on_entries_request(dure_session *s,
                                                  const dure_msg_entries_request *q,
                                                  dure_diag *diag);
DURE_MUST_USE dure_err session_on_blob_request(dure_session *s, const dure_msg_blob_request *q,
                                               dure_diag *diag);
