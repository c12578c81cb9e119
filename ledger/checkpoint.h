/* Signed checkpoints: size and root of the log as a signed note.
 *
 * The format is C2SP tlog-checkpoint (https://c2sp.org/tlog-checkpoint) in a C2SP signed-note: the
 * lines origin, decimal size and base64 root; an empty line; then signature lines
 * "— NAME BASE64". The coordinator signs with plain Ed25519 (type 1) under the origin as key name;
 * sites add cosignatures (ledger/cosign.h). So other witnesses and monitors can read the log.
 *
 * Threads: pure functions. */
#pragma once

#include "common/buf.h"
#include "common/err.h"
#include "crypto/merkle.h"
#include "crypto/sign.h"

#include <stddef.h>
#include <stdint.h>

#define DURE_ORIGIN_SIZE 160
#define DURE_NOTE_MAX (32u * 1024) /* bytes of a note with all its signatures */
#define DURE_NOTE_LINES_MAX 128    /* signature lines */
#define DURE_NOTE_NAME_SIZE 160
#define DURE_NOTE_PAYLOAD_MAX 72 /* a cosignature: time and signature */

typedef struct dure_checkpoint {
    char origin[DURE_ORIGIN_SIZE];
    dure_merkle_head head;
} dure_checkpoint;

/* "dure/FEDERATION/ID": unique to the federation, since the id is the hash of its root key. */
void dure_checkpoint_origin(char origin[DURE_ORIGIN_SIZE], const char *federation,
                            const dure_hash *federation_id);

/* Appends the three lines that are signed. DURE_ERR_USAGE for an origin that is empty or has a
 * space, a plus sign or a control character. */
DURE_MUST_USE dure_err dure_checkpoint_body(dure_buf *out, const dure_checkpoint *checkpoint);

/* Appends the whole note with the coordinator's signature. */
DURE_MUST_USE dure_err dure_checkpoint_sign(dure_buf *note, const dure_checkpoint *checkpoint,
                                            const dure_sign_key *coordinator);

/* One signature line, its base64 undone. */
typedef struct dure_note_line {
    char name[DURE_NOTE_NAME_SIZE];
    uint8_t key_id[4];
    size_t n;
    uint8_t payload[DURE_NOTE_PAYLOAD_MAX];
} dure_note_line;

/* A note, parsed and not yet verified. About 32 KiB: allocate it or keep it static. */
typedef struct dure_note {
    dure_checkpoint checkpoint;
    size_t n_lines;
    dure_note_line lines[DURE_NOTE_LINES_MAX];
} dure_note;

/* Strict about the three lines (no extension lines, no leading zeros, base64 of exactly 32 bytes);
 * signature lines of unknown length are refused. DURE_ERR_FORMAT with a sentence. */
DURE_MUST_USE dure_err dure_note_parse(dure_note *out, dure_span text, dure_diag *diag);

/* DURE_ERR_AUTH unless the note is of `origin` and bears the coordinator's signature. */
DURE_MUST_USE dure_err dure_note_verify(const dure_note *note, const char *origin,
                                        const uint8_t coordinator_public[32], dure_diag *diag);

/* First four bytes of SHA-256(name, newline, type, key), as signed-note defines a key's id: type 1
 * for Ed25519, 4 for cosignatures. */
DURE_MUST_USE dure_err dure_note_key_id(uint8_t key_id[4], const char *name, uint8_t type,
                                        const uint8_t public_[32]);
/* Appends "— NAME BASE64(key_id, payload)" and a newline. */
DURE_MUST_USE dure_err dure_note_put_line(dure_buf *note, const dure_note_line *line);
