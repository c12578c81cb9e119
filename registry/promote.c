/* Who is served: promote, rollback, and the check before an adapter is loaded. */
#include "registry/registry_int.h"

#include "registry/blob.h"

#include <string.h>

/* Version behind an alias, 0 for none. */
static dure_err alias_number(uint64_t *number, dure_registry *r, const char *name, dure_diag *diag)
{
    sqlite3_stmt *s = NULL;
    *number = 0;
    dure_err err =
        dure_registry_prepare(&s, r, "SELECT number FROM registry_alias WHERE name = ?", diag);
    if (err) return err;
    sqlite3_bind_text(s, 1, name, -1, SQLITE_STATIC);
    int rc = sqlite3_step(s);
    if (rc == SQLITE_ROW)
        *number = (uint64_t)sqlite3_column_int64(s, 0);
    else if (rc != SQLITE_DONE)
        err = dure_registry_db_error(r, "the registry cannot be read", diag);
    sqlite3_finalize(s);
    return err;
}

/* number 0 removes the alias. */
static dure_err set_alias(dure_registry *r, const char *name, uint64_t number, dure_diag *diag)
{
    sqlite3_stmt *s = NULL;
    dure_err err =
        dure_registry_prepare(&s, r,
                              number ? "INSERT INTO registry_alias(name, number) VALUES(?1, ?2)"
                                       " ON CONFLICT(name) DO UPDATE SET number = ?2"
                                     : "DELETE FROM registry_alias WHERE name = ?1",
                              diag);
    if (err) return err;
    sqlite3_bind_text(s, 1, name, -1, SQLITE_STATIC);
    if (number) sqlite3_bind_int64(s, 2, (sqlite3_int64)number);
    return dure_registry_finish(r, s, "the alias cannot be moved", diag);
}

/* number 0: nothing to do. */
static dure_err set_state(dure_registry *r, uint64_t number, dure_version_state state,
                          dure_diag *diag)
{
    sqlite3_stmt *s = NULL;
    if (!number) return DURE_OK;
    dure_err err = dure_registry_prepare(
        &s, r, "UPDATE registry_version SET state = ? WHERE number = ?", diag);
    if (err) return err;
    sqlite3_bind_int(s, 1, state);
    sqlite3_bind_int64(s, 2, (sqlite3_int64)number);
    return dure_registry_finish(r, s, "the version's state cannot be changed", diag);
}

static dure_err next_generation(dure_registry *r, dure_diag *diag)
{
    return dure_registry_exec(r,
                              "UPDATE registry_meta SET value = value + 1 WHERE key = 'generation'",
                              "the registry cannot be written", diag);
}

/* Ends a transaction: commits, or undoes all of it when `err` is set. */
static dure_err end_transaction(dure_registry *r, dure_err err, dure_diag *diag)
{
    if (!err) err = dure_registry_exec(r, "COMMIT", "the registry cannot be written", diag);
    if (err) sqlite3_exec(r->db, "ROLLBACK", NULL, NULL, NULL);
    return err;
}

static dure_release release_of(const dure_version *version, int64_t signed_s)
{
    return (dure_release){
        .adapter = version->adapter,
        .base = version->base,
        .number = version->number,
        .round = version->round,
        .ledger_index = version->ledger_index,
        .signed_s = signed_s,
    };
}

static dure_err write_signature(dure_registry *r, const dure_version *version,
                                const dure_promotion *promotion,
                                const uint8_t signature[DURE_SIGNATURE_BYTES], dure_diag *diag)
{
    uint8_t certificate[DURE_RELEASE_CERTIFICATE_BYTES];
    sqlite3_stmt *s = NULL;
    bool forced = !version->has_gate || !version->gate.passed;
    dure_release_certificate_encode(certificate, promotion->certificate);
    dure_err err = dure_registry_prepare(
        &s, r,
        "UPDATE registry_version SET signed = ?, signature = ?, certificate = ?, forced = ?,"
        " reason = ? WHERE number = ?",
        diag);
    if (err) return err;
    sqlite3_bind_int64(s, 1, promotion->now_s);
    sqlite3_bind_blob(s, 2, signature, DURE_SIGNATURE_BYTES, SQLITE_STATIC);
    sqlite3_bind_blob(s, 3, certificate, sizeof certificate, SQLITE_STATIC);
    sqlite3_bind_int(s, 4, forced);
    sqlite3_bind_text(s, 5, forced ? promotion->force_reason : "", -1, SQLITE_STATIC);
    sqlite3_bind_int64(s, 6, (sqlite3_int64)version->number);
    return dure_registry_finish(r, s, "the signature cannot be recorded", diag);
}

static dure_err may_promote(const dure_version *version, const dure_promotion *promotion,
                            dure_diag *diag)
{
    char gate[192] = "it has not been through the gate";
    const char *reason = promotion->force_reason;
    if (version->state == DURE_VERSION_CHAMPION)
        return dure_diag_set(diag, DURE_ERR_STATE, "version %llu is the champion already",
                             (unsigned long long)version->number);
    if (version->has_gate && version->gate.passed) return DURE_OK;
    if (reason && reason[0] && strlen(reason) < DURE_REGISTRY_REASON_SIZE) return DURE_OK;
    if (reason)
        return dure_diag_set(diag, DURE_ERR_USAGE, "a reason to force has 1 to %d bytes",
                             DURE_REGISTRY_REASON_SIZE - 1);
    if (version->has_gate) dure_gate_text(gate, &version->gate);
    return dure_diag_set(diag, DURE_ERR_POLICY,
                         "version %llu may not be promoted: %s; promote another one, or give "
                         "--force with a reason that is kept",
                         (unsigned long long)version->number, gate);
}

/* Inside the transaction: reads, decides, signs, writes. */
static dure_err promote_locked(dure_registry *r, uint64_t number, const dure_promotion *promotion,
                               dure_diag *diag)
{
    dure_version version;
    uint8_t signature[DURE_SIGNATURE_BYTES];
    uint64_t champion, previous;
    dure_err err = dure_registry_get(&version, r, number, diag);
    if (!err) err = may_promote(&version, promotion, diag);
    if (!err) err = dure_blob_check(r->blobs, &version.adapter, diag);
    if (err) return err;
    dure_release release = release_of(&version, promotion->now_s);
    err = dure_release_certificate_verify(promotion->certificate, promotion->root_public, diag);
    if (!err)
        err = dure_release_sign(signature, &release, promotion->key, promotion->certificate, diag);
    if (!err) err = write_signature(r, &version, promotion, signature, diag);
    if (!err) err = alias_number(&champion, r, "champion", diag);
    if (!err) err = alias_number(&previous, r, "previous", diag);
    if (err) return err;
    if (previous != number) err = set_state(r, previous, DURE_VERSION_ARCHIVED, diag);
    if (!err) err = set_state(r, champion, DURE_VERSION_PREVIOUS, diag);
    if (!err) err = set_state(r, number, DURE_VERSION_CHAMPION, diag);
    if (!err) err = set_alias(r, "previous", champion, diag);
    if (!err) err = set_alias(r, "champion", number, diag);
    const dure_registry_move move = {
        .number = number, .previous = champion, .moved_s = promotion->now_s};
    if (!err) err = dure_registry_note_move(r, &move, diag);
    return err ? err : next_generation(r, diag);
}

dure_err dure_registry_promote(dure_registry *r, uint64_t number, const dure_promotion *promotion,
                               dure_diag *diag)
{
    dure_err err = dure_registry_exec(r, "BEGIN IMMEDIATE", "the registry cannot be written", diag);
    if (err) return err;
    return end_transaction(r, promote_locked(r, number, promotion, diag), diag);
}

static dure_err rollback_locked(uint64_t *number, dure_registry *r, int64_t now_s, dure_diag *diag)
{
    uint64_t champion, previous;
    dure_err err = alias_number(&champion, r, "champion", diag);
    if (!err) err = alias_number(&previous, r, "previous", diag);
    if (!err && !previous)
        err = dure_diag_set(diag, DURE_ERR_STATE, "there is no previous adapter to go back to: %s",
                            champion ? "the champion is the first that was promoted, or the last "
                                       "step back was taken; promote another version"
                                     : "nothing was promoted yet");
    if (!err) err = set_state(r, champion, DURE_VERSION_ARCHIVED, diag);
    if (!err) err = set_state(r, previous, DURE_VERSION_CHAMPION, diag);
    if (!err) err = set_alias(r, "champion", previous, diag);
    if (!err) err = set_alias(r, "previous", 0, diag);
    const dure_registry_move move = {
        .back = true, .number = previous, .previous = champion, .moved_s = now_s};
    if (!err) err = dure_registry_note_move(r, &move, diag);
    if (!err) err = next_generation(r, diag);
    if (!err) *number = previous;
    return err;
}

dure_err dure_registry_rollback(uint64_t *number, dure_registry *r, int64_t now_s, dure_diag *diag)
{
    *number = 0;
    dure_err err = dure_registry_exec(r, "BEGIN IMMEDIATE", "the registry cannot be written", diag);
    if (err) return err;
    err = end_transaction(r, rollback_locked(number, r, now_s, diag), diag);
    if (err) *number = 0;
    return err;
}

dure_err dure_registry_verify(dure_registry *r, const dure_version *version,
                              const uint8_t root_public[DURE_SIGN_PUBLIC_BYTES],
                              const dure_hash *base, dure_diag *diag)
{
    unsigned long long number = version->number;
    char want[2 * DURE_HASH_BYTES + 1], have[2 * DURE_HASH_BYTES + 1];
    dure_err err = DURE_OK;
    if (!version->is_signed)
        return dure_diag_set(diag, DURE_ERR_AUTH,
                             "version %llu is not signed and is not loaded; 'dure adapter promote' "
                             "signs it",
                             number);
    dure_release release = release_of(version, version->signed_s);
    err =
        dure_release_verify(&release, version->signature, &version->certificate, root_public, diag);
    if (!err) err = dure_blob_check(r->blobs, &version->adapter, diag);
    if (err) return dure_diag_prefix(diag, err, "version %llu is not loaded", number);
    if (!base || dure_hash_equal(base, &version->base)) return DURE_OK;
    dure_hex_encode(want, version->base.b, DURE_HASH_BYTES);
    dure_hex_encode(have, base->b, DURE_HASH_BYTES);
    return dure_diag_set(
        diag, DURE_ERR_STATE,
        "version %llu was trained on another base model (SHA-256 %.16s...), not on "
        "this one (%.16s...); give the model it was made for",
        number, want, have);
}

dure_err dure_registry_generation(uint64_t *generation, dure_registry *r, dure_diag *diag)
{
    sqlite3_stmt *s = NULL;
    *generation = 0;
    dure_err err = dure_registry_prepare(
        &s, r, "SELECT value FROM registry_meta WHERE key = 'generation'", diag);
    if (err) return err;
    int rc = sqlite3_step(s);
    if (rc == SQLITE_ROW)
        *generation = (uint64_t)sqlite3_column_int64(s, 0);
    else
        err = dure_registry_db_error(r, "the registry cannot be read", diag);
    sqlite3_finalize(s);
    return err;
}
