/* A site that follows the protocol with updates that the test chooses, so that the coordinator's
 * sum can be compared with the plain one, and that misbehaves on request. It speaks over a real
 * socket to a real coordinator; it trains nothing. */
#pragma once

#include "federation/invitation.h"
#include "federation/roster.h"
#include "ledger/witness.h"
#include "net/dealer.h"
#include "secagg/client.h"

#include <stdbool.h>

/* What a site does wrong, or when it dies. */
typedef enum script_vice {
    SCRIPT_HONEST,
    SCRIPT_DIES_TRAINING,  /* after A2, before its update */
    SCRIPT_DIES_UPLOADING, /* after its first chunk */
    SCRIPT_DIES_MASKED,    /* after R2 */
    SCRIPT_SHORT_CHUNK,    /* a chunk of the wrong length */
    SCRIPT_UNASKED_CHUNK,  /* a chunk far behind what was asked for */
    SCRIPT_REFUSES,        /* says that its budget does not allow the round */
    SCRIPT_DUPLICATE,      /* every chunk and the final frame twice */
    SCRIPT_CHUNK_AFTER_R2, /* a chunk of the wrong length when its vector is whole */
    SCRIPT_R0_AFTER_R3, /* its R0 again once it signed who survived: its ledger has grown since */
} script_vice;

/* What it answers to a coordinator that asks back what it lost. */
typedef enum script_lie {
    SCRIPT_TELLS_ALL,
    SCRIPT_ALTERS_LOG,       /* one byte of an entry, which stays an entry */
    SCRIPT_HIDES_ROSTER,     /* the last entry of the roster is missing */
    SCRIPT_SENDS_SCRAPS,     /* one entry at a time */
    SCRIPT_SENDS_JUNK,       /* entries that are none */
    SCRIPT_ALTERS_FILE,      /* a byte of the adapter */
    SCRIPT_CLAIMS_MORE,      /* its HELLO says that it has seen ten more entries; it shows none */
    SCRIPT_LENGTHENS_ROSTER, /* its HELLO says so; it tells of a member that nobody admitted */
} script_lie;

/* Called with each message that a site has sent, or has received and not handled yet. */
typedef void script_hook(void *state, bool sent, dure_msg_type type);

typedef struct script_site {
    char name[DURE_NAME_SIZE];
    char folder[256]; /* for its witness */
    dure_invitation invitation;
    dure_sign_key invite, own;
    dure_curve_key curve;
    dure_dealer *dealer; /* NULL: dead */
    dure_roster *roster;
    dure_witness *witness;
    uint32_t connects;   /* handshakes greeted with HELLO */
    uint64_t sent_bytes; /* frames and payloads */
    uint32_t collusion;  /* the floor of its policy; 0: 1 */

    dure_config *config; /* of the round it is in; NULL: none */
    dure_hash config_hash;
    dure_secagg_client *client;
    dure_buf r0;          /* as it sent it */
    int32_t *units;       /* its update of this round */
    uint64_t seed;        /* of the next update */
    bool hold;            /* the update is kept back until the test clears it */
    bool mask_ready;      /* held back */
    bool hold_upload;     /* the masked vector is kept back until the test clears it */
    dure_msg_fetch fetch; /* credit that is not used yet */
    bool hold_r3;         /* A3 is not heard until the test clears it */
    uint64_t last_round, beat_ms;
    uint64_t claims_round; /* its HELLO says so, and not last_round; 0: the truth */
    uint64_t chain_length; /* of its ledger, as it shows it; its head is that number in each byte */
    script_vice vice;
    script_lie lie;
    dure_span forged;  /* the entry of SCRIPT_LENGTHENS_ROSTER */
    script_hook *hook; /* may be NULL */
    void *hook_state;

    /* What it has seen. */
    bool joined;
    uint32_t refusal;               /* dure_refusal; 0: none */
    char words[DURE_MSG_TEXT_SIZE]; /* of the last refusal, abort or failed check */
    uint32_t n_results, n_aborts;
    uint32_t n_others_results; /* of rounds in whose sum it is not */
    dure_msg_result result;    /* of the last one; spans are not kept */
    dure_buf blob;             /* what it downloads */
    uint64_t blob_total;
    dure_hash blob_digest;
    dure_buf log; /* as the coordinator told it, each entry after its length */
    uint64_t log_n;
    dure_buf note;  /* the newest checkpoint */
    dure_buf cited; /* those that rounds cited, each after its length */
    uint32_t n_cited;
    uint32_t n_epochs;
} script_site;

/* Reads the invitation; makes keys and, below `folder`, the witness's place. */
void script_site_make(script_site *s, const char *invitation_path, const char *folder);
void script_site_end(script_site *s);
/* Reads the witness's file again, after the test put another there. */
void script_site_reopen(script_site *s);
/* The join record that it sends. */
void script_site_sign_join(const script_site *s, dure_join *join);
/* Opens the connection; the first recv after the handshake says HELLO or, with `join`, Join. */
void script_site_connect(script_site *s, bool join);
/* The process is gone: no goodbye, no secrets left. */
void script_site_die(script_site *s);
/* Receives and answers what is there; waits at most `wait_ms`. */
void script_site_turn(script_site *s, uint32_t wait_ms);
/* Asks for a blob; script_site_turn() collects it into s->blob until n == total. */
void script_site_fetch_blob(script_site *s, const uint8_t digest[32]);
