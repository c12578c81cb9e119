/* The control messages between sites and coordinator, as plain structs.
 *
 * One control frame is one message: version, type, body. Tensors never travel in it:
 * DURE_MSG_CHUNK, DURE_MSG_BLOB_CHUNK and DURE_MSG_ENTRIES announce a second, raw frame, which is
 * `n_bytes` long. docs/protocol.md lists what each party checks.
 *
 * Ownership: a decoded message owns all that it points to, dure_msg_free(&msg). To encode, fill a
 * dure_msg on the stack whose pointers borrow from the caller; it needs no freeing.
 * The codec checks sizes, counts, enum values and that member numbers are below
 * DURE_ROUND_MEMBERS_MAX and strictly ascending. What needs the configuration or a key is checked
 * by secagg/. */
#pragma once

#include "common/buf.h"
#include "common/err.h"
#include "proto/messages_entries.h"
#include "proto/messages_round.h"

#include <stddef.h>
#include <stdint.h>

#define DURE_MSG_VERSION 1
#define DURE_MSG_BYTES_MAX (2u * 1024 * 1024) /* the largest control frame, DURE_MSG_OPEN's */
#define DURE_MSG_PAYLOAD_MAX (256u * 1024)    /* the largest raw frame */
#define DURE_MSG_TEXT_SIZE 513                /* a sentence for a person, NUL included */
#define DURE_MSG_ENTRY_MAX 4096               /* one roster entry, invitation or join record */
#define DURE_MSG_ENTRIES_MAX 400              /* roster entries */
#define DURE_MSG_CHECKPOINT_MAX (32u * 1024)  /* a signed, cosigned checkpoint */
#define DURE_MSG_LEAF_MAX (32u * 1024)
#define DURE_MSG_PROOF_MAX 65 /* hashes of a Merkle proof */

/* X(NAME, number, field, largest body in bytes). The numbers are the wire's and never change. */
#define DURE_MSG_LIST(X)                                                                           \
    X(JOIN, 1, join, 16384)                                                                        \
    X(JOINED, 2, joined, 4096)                                                                     \
    X(REFUSED, 3, refused, 4096)                                                                   \
    X(HELLO, 4, hello, 4096)                                                                       \
    X(OPEN, 5, open, DURE_MSG_BYTES_MAX - 64)                                                      \
    X(ADVERTISE, 6, advertise, 4096)                                                               \
    X(KEYS, 7, keys, 294912)                                                                       \
    X(SHARES, 8, shares, 262080)                                                                   \
    X(SHARES_FOR, 9, shares_for, 294912)                                                           \
    X(FETCH, 10, fetch, 4096)                                                                      \
    X(CHUNK, 11, chunk, 4096)                                                                      \
    X(MASKED, 12, masked, 4096)                                                                    \
    X(SURVIVORS, 13, survivors, 65536)                                                             \
    X(CONSISTENCY, 14, consistency, 4096)                                                          \
    X(SIGNATURES, 15, signatures, 98304)                                                           \
    X(UNMASK, 16, unmask, 65536)                                                                   \
    X(RESULT, 17, result, 131072)                                                                  \
    X(COSIGN, 18, cosign, 4096)                                                                    \
    X(BLOB_REQUEST, 19, blob_request, 4096)                                                        \
    X(BLOB_CHUNK, 20, blob_chunk, 4096)                                                            \
    X(HEARTBEAT, 21, heartbeat, 4096)                                                              \
    X(ABORT, 22, abort, 4096)                                                                      \
    X(WAITING, 23, waiting, 4096)                                                                  \
    X(ENTRIES_REQUEST, 24, entries_request, 4096)                                                  \
    X(ENTRIES, 25, entries, 4096)                                                                  \
    X(NEW_EPOCH, 26, new_epoch, 4096)

typedef enum dure_msg_type {
#define DURE_MSG_ENUM(name, number, field, limit) DURE_MSG_##name = number,
    DURE_MSG_LIST(DURE_MSG_ENUM)
#undef DURE_MSG_ENUM
} dure_msg_type;

/* site -> coordinator, from a guest: the invitation and the join record, as federation/ encodes
 * them. The record carries its own signature by the invitation's key. */
typedef struct dure_msg_join {
    dure_span invitation, record;
} dure_msg_join;

/* coordinator -> site: the join record is entry `roster_size - 1` of the roster. */
typedef struct dure_msg_joined {
    uint64_t roster_size;
    uint8_t roster_hash[DURE_DIGEST_BYTES];
} dure_msg_joined;

typedef enum dure_refusal {
    DURE_REFUSAL_INVITATION_USED = 1,
    DURE_REFUSAL_INVITATION_EXPIRED = 2,
    DURE_REFUSAL_INVITATION_FOREIGN = 3, /* of another federation, or badly signed */
    DURE_REFUSAL_NAME_TAKEN = 4,
    DURE_REFUSAL_RECORD = 5, /* a declared constant or the base model is not acceptable */
    DURE_REFUSAL_REVOKED = 6,
    DURE_REFUSAL_VERSION = 7,
    DURE_REFUSAL_FULL = 8,
    DURE_REFUSAL_LEDGER = 9, /* the site's privacy ledger is an older copy than it showed before */
} dure_refusal;

/* coordinator -> site: the Join or Hello is refused for good. */
typedef struct dure_msg_refused {
    uint32_t code; /* dure_refusal */
    char text[DURE_MSG_TEXT_SIZE];
} dure_msg_refused;

/* How far a site is in a round; the coordinator repeats what is missing. */
typedef enum dure_stage {
    DURE_STAGE_IDLE = 0, /* in no round */
    DURE_STAGE_ADVERTISED = 1,
    DURE_STAGE_SHARED = 2,
    DURE_STAGE_TRAINING = 3,  /* has A2, its update is not ready */
    DURE_STAGE_UPLOADING = 4, /* has the masked vector ready for FETCH */
    DURE_STAGE_MASKED = 5,
    DURE_STAGE_CONSISTENT = 6,
    DURE_STAGE_UNMASKED = 7, /* waits for the result */
} dure_stage;

/* site -> coordinator, first on every connection and after silence. */
typedef struct dure_msg_hello {
    uint32_t version; /* DURE_MSG_VERSION */
    uint8_t federation_id[DURE_DIGEST_BYTES];
    uint8_t config_hash[DURE_DIGEST_BYTES]; /* of the round it is in; zero when idle */
    uint32_t stage;                         /* dure_stage */
    uint64_t last_round;                    /* highest round it ever took part in */
    uint64_t roster_size;                   /* entries it has: OPEN brings the rest */
    uint64_t checkpoint_size;               /* last checkpoint it verified; 0: none */
    uint8_t checkpoint_root[DURE_DIGEST_BYTES];
    uint64_t chain_length; /* of its own budget chain */
    uint8_t chain_head[DURE_DIGEST_BYTES];
} dure_msg_hello;

/* coordinator -> site: a round opens. */
typedef struct dure_msg_open {
    dure_span config;                        /* canonical encoding of C */
    uint8_t signature[DURE_SIGNATURE_BYTES]; /* label "DURE/1/open", over H_C */
    uint64_t roster_from;                    /* number of the first roster entry below */
    const dure_span *roster;                 /* what the site lacks, in order */
    size_t n_roster;
    dure_span checkpoint; /* the one C names, with its cosignatures; empty for an empty log */
    const uint8_t (*consistency)[DURE_DIGEST_BYTES]; /* from the site's last checkpoint to it */
    size_t n_consistency;
} dure_msg_open;

/* coordinator -> every site of U3: the sum is known and logged. The sum and the new adapter are
 * blobs named by their digests. */
typedef struct dure_msg_result {
    uint8_t config_hash[DURE_DIGEST_BYTES];
    uint8_t t3[DURE_DIGEST_BYTES];
    uint8_t sum_digest[DURE_DIGEST_BYTES];     /* of the sum, int32 little-endian */
    uint8_t adapter_digest[DURE_DIGEST_BYTES]; /* of the new global adapter's file */
    dure_span leaf;                            /* the round's log entry */
    uint64_t leaf_index;
    dure_span checkpoint; /* signed by the coordinator, covers the leaf */
    const uint8_t (*inclusion)[DURE_DIGEST_BYTES];
    size_t n_inclusion;
    const uint8_t (*consistency)[DURE_DIGEST_BYTES]; /* from the checkpoint in C to this one */
    size_t n_consistency;
} dure_msg_result;

/* site -> coordinator: this site has verified that checkpoint. */
typedef struct dure_msg_cosign {
    uint64_t checkpoint_size;
    uint8_t checkpoint_root[DURE_DIGEST_BYTES];
    uint64_t time_s;                         /* seconds since 1970 */
    uint8_t signature[DURE_SIGNATURE_BYTES]; /* as ledger/ defines it */
} dure_msg_cosign;

/* site -> coordinator. */
typedef struct dure_msg_blob_request {
    uint8_t digest[DURE_DIGEST_BYTES];
    uint64_t offset;
    uint32_t n_bytes; /* at most DURE_MSG_PAYLOAD_MAX; the last chunk may be shorter */
} dure_msg_blob_request;

/* coordinator -> site, followed by a raw frame of n_bytes. total_bytes 0: no such blob, and the
 * frame is empty. */
typedef struct dure_msg_blob_chunk {
    uint8_t digest[DURE_DIGEST_BYTES];
    uint64_t offset, total_bytes;
    uint32_t n_bytes;
} dure_msg_blob_chunk;

/* Both ways, periodic. The site's carries the step it is at and nothing else about its work; the
 * coordinator echoes it, so that silence can be told from patience. */
typedef struct dure_msg_heartbeat {
    uint8_t config_hash[DURE_DIGEST_BYTES]; /* zero when idle */
    uint32_t step;
} dure_msg_heartbeat;

typedef enum dure_abort_code {
    DURE_ABORT_CHECK = 1,     /* a check of the protocol failed */
    DURE_ABORT_POLICY = 2,    /* the site's policy forbids the round */
    DURE_ABORT_BUDGET = 3,    /* the privacy budget does not allow it */
    DURE_ABORT_EXPIRED = 4,   /* the share lifetime passed */
    DURE_ABORT_THRESHOLD = 5, /* too few sites remain */
    DURE_ABORT_LOCAL = 6,     /* the site's data, model or disk failed */
    DURE_ABORT_RESTARTED = 7, /* a restarted party has no secrets of this round any more */
} dure_abort_code;

/* Both ways: this round is over for the sender. Nothing of it will be revealed afterwards. */
typedef struct dure_msg_abort {
    uint8_t config_hash[DURE_DIGEST_BYTES];
    uint32_t code; /* dure_abort_code */
    char text[DURE_MSG_TEXT_SIZE];
    uint8_t signature[DURE_SIGNATURE_BYTES]; /* label "DURE/1/abort"; by the sender */
} dure_msg_abort;

/* coordinator -> site, in answer to HELLO when there is nothing to repeat. */
typedef struct dure_msg_waiting {
    uint8_t config_hash[DURE_DIGEST_BYTES]; /* of the open round; zero if none */
    uint32_t sites_present, sites_needed;   /* needed 0: no round will follow */
    char text[DURE_MSG_TEXT_SIZE];          /* what is waited for */
} dure_msg_waiting;

typedef struct dure_msg {
    dure_msg_type type;
    union {
#define DURE_MSG_FIELD(name, number, field, limit) dure_msg_##field field;
        DURE_MSG_LIST(DURE_MSG_FIELD)
#undef DURE_MSG_FIELD
    } u;
} dure_msg;

/* "SURVIVORS"; "unknown" for a number that is none. */
const char *dure_msg_name(dure_msg_type type);
/* The round a message is about: its config_hash, or NULL for the types that have none. */
const uint8_t *dure_msg_config_hash(const dure_msg *msg);

/* Cuts `text` to its field and puts `?` for what is not printable UTF-8, as the encoder does. Call
 * it before a text is signed. */
void dure_msg_text(char out[DURE_MSG_TEXT_SIZE], const char *text);

/* Appends the control frame to `out`. DURE_ERR_LIMIT (naming the field) for a message that the
 * decoder would refuse: nothing oversized is ever sent. */
DURE_MUST_USE dure_err dure_msg_encode(dure_buf *out, const dure_msg *msg, dure_diag *diag);

/* Decodes one control frame into a deep copy. Exactly one encoding of each message is accepted:
 * unknown, missing, repeated or out-of-order fields, and values out of range, are DURE_ERR_PROTO;
 * sizes and counts over their limit DURE_ERR_LIMIT. Memory is bounded by a multiple of the frame's
 * length, whatever it holds. The caller owns *out, dure_msg_free(&msg); NULL on error. */
DURE_MUST_USE dure_err dure_msg_decode(dure_msg **out, dure_span frame, dure_diag *diag);
void dure_msg_free(dure_msg **msg);
