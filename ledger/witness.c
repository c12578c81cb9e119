#include "ledger/witness.h"

#include "common/file.h"

#include <stdlib.h>
#include <string.h>

enum { STATE_FILE_MODE = 0600, EPOCH_FILE_MAX = DURE_LEAF_MAX + 256 };

struct dure_witness {
    char *path, *epoch_path;
    char origin[DURE_ORIGIN_SIZE];
    uint8_t coordinator_public[32];
    dure_merkle_head head;      /* what the next checkpoint must extend */
    bool stored;                /* a note is in the file */
    dure_hash stored_hash;      /* of the file */
    dure_checkpoint checkpoint; /* the stored one */
    uint64_t epoch;             /* number of the last loss that was accepted; 0: none */
    uint64_t kept_n;            /* entries that it kept */
    dure_hash superseded;       /* of the note that was stored when it was accepted */
};

dure_merkle_head dure_witness_head(const dure_witness *witness)
{
    return witness->head;
}

/* Parses and checks a note of this log; the caller frees *out. */
static dure_err read_note(dure_note **out, const dure_witness *witness, dure_span text,
                          dure_diag *diag)
{
    *out = malloc(sizeof **out);
    if (!*out) return DURE_ERR_NOMEM;
    dure_err err = dure_note_parse(*out, text, diag);
    if (!err) err = dure_note_verify(*out, witness->origin, witness->coordinator_public, diag);
    if (err) {
        free(*out);
        *out = NULL;
    }
    return err;
}

static dure_err load_note(dure_witness *witness, dure_diag *diag)
{
    dure_buf text;
    dure_note *note = NULL;
    dure_err err = dure_file_read(&text, witness->path, DURE_NOTE_MAX, diag);
    if (err) return err;
    err = read_note(&note, witness, dure_buf_span(&text), diag);
    if (!err) err = dure_hash_bytes(&witness->stored_hash, dure_buf_span(&text));
    if (err) {
        err = dure_diag_prefix(diag, err, "%s", witness->path);
    } else {
        witness->checkpoint = note->checkpoint;
        witness->head = note->checkpoint.head;
        witness->stored = true;
    }
    free(note);
    dure_buf_fini(&text);
    return err;
}

/* PATH.epoch: the hash of the note that it supersedes, then the leaf. It sets the head only while
 * that note is the stored one, so nothing has to be deleted when the site moves on; its number is
 * spent for ever. */
static dure_err load_epoch(dure_witness *witness, dure_diag *diag)
{
    dure_buf bytes;
    dure_hash of_note;
    dure_event *event = malloc(sizeof *event);
    if (!event) return DURE_ERR_NOMEM;
    dure_err err = dure_file_read(&bytes, witness->epoch_path, EPOCH_FILE_MAX, diag);
    if (err) {
        free(event);
        return err;
    }
    dure_reader r = dure_reader_of(dure_buf_span(&bytes));
    dure_span leaf = {0};
    err = dure_take_copy(of_note.b, &r, DURE_HASH_BYTES);
    if (!err) err = dure_take_bytes(&leaf, &r, DURE_LEAF_MAX);
    if (!err) err = dure_event_decode(event, leaf, diag);
    if (!err && event->kind != DURE_EVENT_NEW_EPOCH) err = DURE_ERR_FORMAT;
    if (err) {
        err = dure_diag_set(diag, DURE_ERR_FORMAT,
                            "%s is damaged; restore the site's folder from a copy",
                            witness->epoch_path);
    } else {
        witness->epoch = event->u.epoch.epoch;
        witness->kept_n = event->u.epoch.kept.n;
        witness->superseded = of_note;
        if (dure_hash_equal(&of_note, &witness->stored_hash)) witness->head = event->u.epoch.kept;
    }
    dure_buf_fini(&bytes);
    free(event);
    return err;
}

static dure_err load(dure_witness *witness, dure_diag *diag)
{
    dure_err err = dure_merkle_root(&witness->head.root, NULL, 0);
    if (!err && dure_file_exists(witness->path)) {
        err = load_note(witness, diag);
        if (!err && dure_file_exists(witness->epoch_path)) err = load_epoch(witness, diag);
    }
    return err;
}

dure_err dure_witness_open(dure_witness **out, const char *path, const char *origin,
                           const uint8_t coordinator_public[32], dure_diag *diag)
{
    static const char suffix[] = ".epoch";
    *out = NULL;
    size_t n = strlen(path), n_origin = strlen(origin);
    if (n_origin >= DURE_ORIGIN_SIZE) return DURE_ERR_USAGE;
    dure_witness *witness = calloc(1, sizeof *witness);
    if (!witness) return DURE_ERR_NOMEM;
    witness->path = strdup(path);
    witness->epoch_path = malloc(n + sizeof suffix);
    dure_err err = witness->path && witness->epoch_path ? DURE_OK : DURE_ERR_NOMEM;
    if (!err) {
        memcpy(witness->epoch_path, path, n);
        memcpy(witness->epoch_path + n, suffix, sizeof suffix);
        memcpy(witness->origin, origin, n_origin + 1);
        memcpy(witness->coordinator_public, coordinator_public, 32);
        err = load(witness, diag);
    }
    if (err) {
        dure_witness_close(&witness);
        return err;
    }
    *out = witness;
    return DURE_OK;
}

void dure_witness_close(dure_witness **witness)
{
    if (!witness || !*witness) return;
    free((*witness)->path);
    free((*witness)->epoch_path);
    free(*witness);
    *witness = NULL;
}

/* The rule itself: the new head extends the old one. */
static dure_err check_growth(const dure_witness *witness, const dure_merkle_head *head,
                             const dure_merkle_proof *consistency, dure_diag *diag)
{
    unsigned long long seen = witness->head.n, shown = head->n;
    if (head->n < witness->head.n) {
        return dure_diag_set(diag, DURE_ERR_AUTH,
                             "the coordinator's log went backwards: it shows %llu entries, this "
                             "site has verified %llu; it was restored from an old copy or forked",
                             shown, seen);
    }
    dure_err err = dure_merkle_verify_consistency(head, &witness->head, consistency);
    if (err == DURE_ERR_AUTH && head->n == witness->head.n) {
        return dure_diag_set(diag, err, "the coordinator shows two different logs of %llu entries",
                             shown);
    }
    if (err == DURE_ERR_AUTH) {
        return dure_diag_set(diag, err,
                             "the coordinator's log of %llu entries does not extend the %llu that "
                             "this site has verified: an earlier entry was changed",
                             shown, seen);
    }
    return err;
}

/* The history that a root-signed loss took back extends what it kept, too. Were its note stored
 * again, the statement would be about the stored one once more, and a restart go back to `kept`. */
static dure_err check_lost(const dure_witness *witness, const dure_merkle_head *head,
                           const dure_hash *note, dure_diag *diag)
{
    const dure_merkle_head *before = &witness->checkpoint.head;
    if (witness->epoch == 0 || head->n <= witness->kept_n) return DURE_OK;
    const bool pending = witness->head.n < before->n; /* nothing was shown since the loss */
    const bool same =
        pending && head->n == before->n && dure_hash_equal(&head->root, &before->root);
    if (!same && !dure_hash_equal(note, &witness->superseded)) return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_AUTH,
                         "the coordinator shows a log of %llu entries that the root took back in "
                         "part: it was restored to what was lost",
                         (unsigned long long)head->n);
}

dure_err dure_witness_update(dure_witness *witness, dure_span text,
                             const dure_merkle_proof *consistency, dure_diag *diag)
{
    dure_note *note = NULL;
    dure_hash hash;
    dure_err err = read_note(&note, witness, text, diag);
    if (!err) err = check_growth(witness, &note->checkpoint.head, consistency, diag);
    if (!err) err = dure_hash_bytes(&hash, text);
    if (!err) err = check_lost(witness, &note->checkpoint.head, &hash, diag);
    if (!err) err = dure_file_write_atomic(witness->path, text, STATE_FILE_MODE, diag);
    if (!err) {
        witness->checkpoint = note->checkpoint;
        witness->head = note->checkpoint.head;
        witness->stored_hash = hash;
        witness->stored = true;
    }
    free(note);
    return err;
}

dure_err dure_witness_cosign(dure_cosignature *out, const dure_witness *witness,
                             const dure_sign_key *site, uint64_t now_s)
{
    /* After a root-signed loss the stored note is of the lost history: nobody signs it again. */
    if (!witness->stored || witness->head.n != witness->checkpoint.head.n) {
        memset(out, 0, sizeof *out);
        return DURE_ERR_STATE;
    }
    return dure_cosign(out, &witness->checkpoint, now_s, site);
}

/* True when the origin ends in this federation's id. */
static bool is_of_federation(const dure_witness *witness, const dure_hash *federation_id)
{
    char hex[2 * DURE_HASH_BYTES + 1];
    dure_hex_encode(hex, federation_id->b, DURE_HASH_BYTES);
    size_t n = strlen(witness->origin);
    return n > sizeof hex && !strcmp(witness->origin + n - (sizeof hex - 1), hex);
}

static dure_err check_epoch(const dure_witness *witness, const dure_event *event,
                            const uint8_t root_public[32], dure_diag *diag)
{
    const dure_event_epoch *epoch = &event->u.epoch;
    if (event->kind != DURE_EVENT_NEW_EPOCH) {
        return dure_diag_set(diag, DURE_ERR_PROTO, "it is not a statement of a new epoch");
    }
    if (!is_of_federation(witness, &epoch->federation_id) ||
        dure_event_epoch_verify(epoch, root_public)) {
        return dure_diag_set(diag, DURE_ERR_AUTH,
                             "the new epoch is not signed by this federation's root");
    }
    bool same_size = epoch->kept.n == witness->head.n;
    bool same = same_size && dure_hash_equal(&epoch->kept.root, &witness->head.root);
    /* A statement works once, and only about entries that it calls lost: an old one shown again
     * would let the coordinator roll the log back at its will. */
    if (!same && (epoch->epoch <= witness->epoch || epoch->lost_n < witness->head.n)) {
        return dure_diag_set(diag, DURE_ERR_AUTH,
                             "the new epoch %llu is an old statement: this site has verified %llu "
                             "entries after it",
                             (unsigned long long)epoch->epoch, (unsigned long long)witness->head.n);
    }
    bool beyond = epoch->kept.n > witness->head.n;
    if (!witness->stored || beyond || (same_size && !same)) {
        return dure_diag_set(diag, DURE_ERR_AUTH,
                             "the new epoch keeps %llu entries, which does not fit the %llu that "
                             "this site has verified",
                             (unsigned long long)epoch->kept.n,
                             (unsigned long long)witness->head.n);
    }
    return DURE_OK;
}

dure_err dure_witness_new_epoch(dure_witness *witness, dure_span leaf,
                                const uint8_t root_public[32], dure_diag *diag)
{
    dure_buf bytes;
    dure_event *event = malloc(sizeof *event);
    if (!event) return DURE_ERR_NOMEM;
    dure_buf_init(&bytes, EPOCH_FILE_MAX);
    dure_err err = dure_event_decode(event, leaf, diag);
    if (!err) err = check_epoch(witness, event, root_public, diag);
    if (err) goto out;
    dure_put_raw(&bytes, witness->stored_hash.b, DURE_HASH_BYTES);
    dure_put_bytes(&bytes, leaf.data, leaf.n);
    err = dure_buf_err(&bytes);
    if (err) goto out;
    err = dure_file_write_atomic(witness->epoch_path, dure_buf_span(&bytes), STATE_FILE_MODE, diag);
    if (err) goto out;
    witness->head = event->u.epoch.kept;
    witness->kept_n = event->u.epoch.kept.n;
    witness->superseded = witness->stored_hash;
    if (event->u.epoch.epoch > witness->epoch) witness->epoch = event->u.epoch.epoch;
out:
    dure_buf_fini(&bytes);
    free(event);
    return err;
}
