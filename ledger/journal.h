/* The coordinator's side of the ledger: the log, its signed checkpoints and their cosignatures.
 *
 *   DIR/leaves, DIR/index      the log (ledger/leaf_log.h)
 *   DIR/checkpoints/SIZE       the note of each checkpoint, cosignatures included
 *
 * Opening compares the log with the newest stored checkpoint: a log that lost leaves it had signed
 * is refused, so that a coordinator restored from an old backup never signs a second history.
 *
 * Threads: one thread at a time on one object. */
#pragma once

#include "ledger/cosign.h"
#include "ledger/event.h"
#include "ledger/leaf_log.h"

#include <stdbool.h>

typedef struct dure_journal dure_journal;

/* The caller owns *out. DURE_ERR_FORMAT names the damaged entry or checkpoint. */
DURE_MUST_USE dure_err dure_journal_open(dure_journal **out, const char *dir,
                                         dure_leaf_log_mode mode, dure_diag *diag);
void dure_journal_close(dure_journal **journal); /* NULL-safe, nulls */

/* The log, borrowed: sizes, leaves and proofs. */
const dure_leaf_log *dure_journal_log(const dure_journal *journal);
/* The newest ROSTER leaf, decoded; NULL before there is one. Borrowed until append. */
const dure_event_roster *dure_journal_roster(const dure_journal *journal);

/* Sets event->index, encodes and appends; durable when it returns. The first leaf must be GENESIS
 * and no other may; DURE_ERR_USAGE otherwise. *leaf (may be NULL; an initialised buffer) gets the
 * encoding. */
DURE_MUST_USE dure_err dure_journal_append(dure_buf *leaf, dure_journal *journal, dure_event *event,
                                           dure_diag *diag);

/* The note of the present size: signed and stored if there is none yet, else the stored one with
 * its cosignatures. `coordinator` must be the key of the genesis leaf (DURE_ERR_USAGE). *note is an
 * initialised buffer. */
DURE_MUST_USE dure_err dure_journal_checkpoint(dure_buf *note, dure_journal *journal,
                                               const dure_sign_key *coordinator, dure_diag *diag);

/* Verifies a site's cosignature of the checkpoint `size` and stores it with the note; again is
 * fine. The caller has made sure that the site is in force. DURE_ERR_NOT_FOUND: no checkpoint of
 * that size; DURE_ERR_AUTH: not valid; DURE_ERR_LIMIT: the note is full. These concern the
 * cosignature alone, other errors the journal. */
DURE_MUST_USE dure_err dure_journal_cosign(dure_journal *journal, uint64_t size,
                                           const dure_site_key *site,
                                           const dure_cosignature *cosignature, dure_diag *diag);

/* Size of the newest stored checkpoint; 0 if none. */
uint64_t dure_journal_newest(const dure_journal *journal);
/* The newest that counts with these cosigners; 0 if none does. */
DURE_MUST_USE dure_err dure_journal_newest_counting(uint64_t *size, const dure_journal *journal,
                                                    const dure_cosigners *who, dure_diag *diag);
/* The stored note of `size` into an initialised buffer; DURE_ERR_NOT_FOUND if none. */
DURE_MUST_USE dure_err dure_journal_note(dure_buf *note, const dure_journal *journal, uint64_t size,
                                         dure_diag *diag);
/* The sizes of all stored checkpoints, ascending; borrowed until the next checkpoint. */
const uint64_t *dure_journal_sizes(size_t *n, const dure_journal *journal);

/* Losses that the root signed, in the order of their numbers: entries kept to lost_n - 1 of that
 * time count no more. The leaf that says so is entry `kept`. Borrowed until append. */
typedef struct dure_journal_loss {
    uint64_t epoch, kept, lost_n;
} dure_journal_loss;
const dure_journal_loss *dure_journal_losses(size_t *n, const dure_journal *journal);

typedef struct dure_journal_signers {
    const dure_sign_key *coordinator; /* the key of the genesis leaf */
    const dure_site_key *sites;
    size_t n_sites;
} dure_journal_signers;

/* A note of this log that comes from elsewhere: the checkpoint is signed and stored when there is
 * none of its size, and the valid cosignatures of `who->sites` are added. Nothing else of the note
 * is kept. DURE_ERR_AUTH when it is not a note of this log by its coordinator. *size is the note's;
 * 0 on error. */
DURE_MUST_USE dure_err dure_journal_merge_note(uint64_t *size, dure_journal *journal,
                                               dure_span note, const dure_journal_signers *who,
                                               dure_diag *diag);

/* For a folder that was put back to an older copy: its log becomes the first `from` entries as they
 * are and then `entries` (each after its length, as u32), which must have `head`. `from` must be at
 * least the newest checkpoint's size, and the journal not open. DURE_ERR_AUTH, with nothing
 * changed, when the head is another. A crash in between leaves a shorter log; the same call mends
 * it. */
DURE_MUST_USE dure_err dure_journal_adopt(const char *dir, uint64_t from, dure_span entries,
                                          const dure_merkle_head *head, dure_diag *diag);

/* Takes the log back to its first n entries, and the checkpoints with it: for a loss that the root
 * is to sign. The journal must not be open. DURE_ERR_USAGE unless 0 < n <= the log's size. */
DURE_MUST_USE dure_err dure_journal_cut(const char *dir, uint64_t n, dure_diag *diag);
