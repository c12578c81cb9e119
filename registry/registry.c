/* Versions in SQLite: opening, adding, gating, finding. Promotion is in promote.c. */
#include "registry/registry_int.h"

#include "common/file.h"
#include "registry/blob.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SCHEMA_VERSION 1

static const char schema[] =
    "BEGIN IMMEDIATE;"
    "CREATE TABLE IF NOT EXISTS registry_meta(key TEXT PRIMARY KEY, value INTEGER NOT NULL);"
    "INSERT OR IGNORE INTO registry_meta VALUES('schema', 1), ('generation', 0);"
    "CREATE TABLE IF NOT EXISTS registry_version("
    " number INTEGER PRIMARY KEY AUTOINCREMENT, parent INTEGER NOT NULL, round INTEGER NOT NULL,"
    " ledger INTEGER, state INTEGER NOT NULL, adapter BLOB NOT NULL, base BLOB NOT NULL,"
    " bytes INTEGER NOT NULL, created INTEGER NOT NULL,"
    " gate_records INTEGER, gate_reference INTEGER, gate_losses BLOB, gate_passed INTEGER,"
    " forced INTEGER NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '',"
    " signed INTEGER, signature BLOB, certificate BLOB,"
    " UNIQUE(round, adapter));"
    /* One row an alias, so that who serves is one value and not a search over states. */
    "CREATE TABLE IF NOT EXISTS registry_alias(name TEXT PRIMARY KEY,"
    " number INTEGER NOT NULL REFERENCES registry_version(number));"
    /* Every change of who serves, in order; `ledger` is NULL until the federation's log has it. */
    "CREATE TABLE IF NOT EXISTS registry_move("
    " seq INTEGER PRIMARY KEY AUTOINCREMENT, back INTEGER NOT NULL, number INTEGER NOT NULL,"
    " previous INTEGER NOT NULL, moved INTEGER NOT NULL, ledger INTEGER);"
    "COMMIT;";

const char *dure_version_state_text(dure_version_state state)
{
    static const char *const names[] = {"candidate", "gated",    "blocked",
                                        "champion",  "previous", "archived"};
    size_t i = (size_t)state;
    return i < sizeof names / sizeof *names ? names[i] : "unknown";
}

dure_err dure_registry_db_error(dure_registry *r, const char *what, dure_diag *diag)
{
    int code = sqlite3_errcode(r->db) & 0xff;
    const int cause = sqlite3_system_errno(r->db);
    if (code == SQLITE_FULL) return dure_file_cause(diag, what, ENOSPC);
    if ((code == SQLITE_IOERR || code == SQLITE_CANTOPEN) && cause)
        return dure_file_cause(diag, what, cause);
    dure_err err = code == SQLITE_BUSY || code == SQLITE_LOCKED ? DURE_ERR_BUSY : DURE_ERR_IO;
    return dure_diag_set(diag, err, "%s: %s", what, sqlite3_errmsg(r->db));
}

dure_err dure_registry_exec(dure_registry *r, const char *sql, const char *what, dure_diag *diag)
{
    if (sqlite3_exec(r->db, sql, NULL, NULL, NULL) == SQLITE_OK) return DURE_OK;
    return dure_registry_db_error(r, what, diag);
}

dure_err dure_registry_prepare(sqlite3_stmt **out, dure_registry *r, const char *sql,
                               dure_diag *diag)
{
    *out = NULL;
    if (sqlite3_prepare_v2(r->db, sql, -1, out, NULL) == SQLITE_OK) return DURE_OK;
    return dure_registry_db_error(r, "the registry cannot be read", diag);
}

dure_err dure_registry_finish(dure_registry *r, sqlite3_stmt *statement, const char *what,
                              dure_diag *diag)
{
    int rc = sqlite3_step(statement);
    dure_err err = rc == SQLITE_DONE ? DURE_OK : dure_registry_db_error(r, what, diag);
    sqlite3_finalize(statement);
    return err;
}

static dure_err check_schema(dure_registry *r, const char *dir, dure_diag *diag)
{
    sqlite3_stmt *s = NULL;
    dure_err err =
        dure_registry_prepare(&s, r, "SELECT value FROM registry_meta WHERE key = 'schema'", diag);
    if (err) return err;
    int version = sqlite3_step(s) == SQLITE_ROW ? sqlite3_column_int(s, 0) : 0;
    sqlite3_finalize(s);
    if (version == SCHEMA_VERSION) return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                         "the registry in %s has schema %d, this dure knows %d; use a newer dure",
                         dir, version, SCHEMA_VERSION);
}

static dure_err open_database(dure_registry *r, const char *dir, dure_diag *diag)
{
    char *path = dure_path_join(dir, "state.db");
    if (!path) return dure_diag_set(diag, DURE_ERR_NOMEM, "out of memory");
    dure_err err = DURE_OK;
    if (sqlite3_open_v2(path, &r->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL))
        err = dure_diag_set(diag, DURE_ERR_IO, "cannot open %s: %s", path,
                            r->db ? sqlite3_errmsg(r->db) : "out of memory");
    free(path);
    if (err) return err;
    sqlite3_extended_result_codes(r->db, 0);
    sqlite3_busy_timeout(r->db, 10000);
    err = dure_registry_exec(r,
                             "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
                             "PRAGMA foreign_keys = ON; PRAGMA cache_size = -256;",
                             "the registry cannot be opened", diag);
    if (!err) err = dure_registry_exec(r, schema, "the registry cannot be opened", diag);
    return err ? err : check_schema(r, dir, diag);
}

dure_err dure_registry_open(dure_registry **out, const char *dir, dure_diag *diag)
{
    *out = NULL;
    if (!dure_file_exists(dir))
        return dure_diag_set(
            diag, DURE_ERR_NOT_FOUND,
            "there is no folder %s; name the coordinator's folder that 'dure init' "
            "made",
            dir);
    dure_registry *r = calloc(1, sizeof *r);
    if (!r) return dure_diag_set(diag, DURE_ERR_NOMEM, "out of memory");
    dure_err err = DURE_OK;
    r->blobs = dure_path_join(dir, "blobs/sha256");
    if (!r->blobs) err = dure_diag_set(diag, DURE_ERR_NOMEM, "out of memory");
    if (!err) err = open_database(r, dir, diag);
    if (err) {
        dure_registry_close(&r);
        return err;
    }
    *out = r;
    return DURE_OK;
}

void dure_registry_close(dure_registry **r)
{
    if (!r || !*r) return;
    sqlite3_close((*r)->db);
    free((*r)->blobs);
    free(*r);
    *r = NULL;
}

static dure_err existing(uint64_t *number, dure_registry *r, uint64_t round,
                         const dure_hash *adapter, dure_diag *diag)
{
    sqlite3_stmt *s = NULL;
    *number = 0;
    dure_err err = dure_registry_prepare(
        &s, r, "SELECT number FROM registry_version WHERE round = ? AND adapter = ?", diag);
    if (err) return err;
    sqlite3_bind_int64(s, 1, (sqlite3_int64)round);
    sqlite3_bind_blob(s, 2, adapter->b, DURE_HASH_BYTES, SQLITE_STATIC);
    if (sqlite3_step(s) == SQLITE_ROW) *number = (uint64_t)sqlite3_column_int64(s, 0);
    sqlite3_finalize(s);
    return DURE_OK;
}

static dure_err insert(uint64_t *number, dure_registry *r, const dure_candidate *c,
                       const dure_hash *adapter, size_t n_bytes, dure_diag *diag)
{
    sqlite3_stmt *s = NULL;
    dure_err err = dure_registry_prepare(
        &s, r,
        "INSERT INTO registry_version(parent, round, ledger, state, adapter, base, bytes, created)"
        " VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
        diag);
    if (err) return err;
    sqlite3_bind_int64(s, 1, (sqlite3_int64)c->parent);
    sqlite3_bind_int64(s, 2, (sqlite3_int64)c->round);
    if (c->ledger_index == DURE_RELEASE_NO_LEDGER)
        sqlite3_bind_null(s, 3);
    else
        sqlite3_bind_int64(s, 3, (sqlite3_int64)c->ledger_index);
    sqlite3_bind_int(s, 4, DURE_VERSION_CANDIDATE);
    sqlite3_bind_blob(s, 5, adapter->b, DURE_HASH_BYTES, SQLITE_STATIC);
    sqlite3_bind_blob(s, 6, c->base.b, DURE_HASH_BYTES, SQLITE_STATIC);
    sqlite3_bind_int64(s, 7, (sqlite3_int64)n_bytes);
    sqlite3_bind_int64(s, 8, c->created_s);
    err = dure_registry_finish(r, s, "the version cannot be recorded", diag);
    if (!err) *number = (uint64_t)sqlite3_last_insert_rowid(r->db);
    return err;
}

static dure_err add_version(uint64_t *number, dure_registry *r, const dure_candidate *candidate,
                            const dure_hash *adapter, size_t n_bytes, dure_diag *diag)
{
    dure_err err = existing(number, r, candidate->round, adapter, diag);
    return err || *number ? err : insert(number, r, candidate, adapter, n_bytes, diag);
}

static dure_err check_parent(dure_registry *r, const dure_candidate *candidate, dure_diag *diag)
{
    dure_version parent;
    return candidate->parent ? dure_registry_get(&parent, r, candidate->parent, diag) : DURE_OK;
}

/* The file first: a version whose file is missing must not exist. */
dure_err dure_registry_add(uint64_t *number, dure_registry *r, const dure_candidate *candidate,
                           dure_span adapter, dure_diag *diag)
{
    dure_hash digest;
    *number = 0;
    dure_err err = check_parent(r, candidate, diag);
    if (!err) err = dure_blob_put(&digest, r->blobs, adapter, diag);
    return err ? err : add_version(number, r, candidate, &digest, adapter.n, diag);
}

dure_err dure_registry_add_stored(uint64_t *number, dure_registry *r,
                                  const dure_candidate *candidate, const dure_hash *adapter,
                                  dure_diag *diag)
{
    dure_blob_file file = {.fd = -1};
    *number = 0;
    dure_err err = check_parent(r, candidate, diag);
    if (!err) err = dure_blob_open(&file, r->blobs, adapter, diag);
    const size_t n_bytes = (size_t)file.n;
    dure_blob_close(&file);
    return err ? err : add_version(number, r, candidate, adapter, n_bytes, diag);
}

dure_err dure_registry_set_gate(dure_registry *r, uint64_t number, const dure_gate_result *gate,
                                uint64_t reference, dure_diag *diag)
{
    dure_version version;
    sqlite3_stmt *s = NULL;
    dure_err err = dure_registry_get(&version, r, number, diag);
    if (err) return err;
    if (version.state >= DURE_VERSION_CHAMPION)
        return dure_diag_set(diag, DURE_ERR_STATE,
                             "version %llu is %s: its gate result stays as it was promoted",
                             (unsigned long long)number, dure_version_state_text(version.state));
    const double losses[] = {gate->reference_loss, gate->candidate_loss,
                             gate->difference,     gate->low,
                             gate->high,           gate->margin};
    err = dure_registry_prepare(&s, r,
                                "UPDATE registry_version SET state = ?, gate_records = ?,"
                                " gate_reference = ?, gate_losses = ?, gate_passed = ?"
                                " WHERE number = ?",
                                diag);
    if (err) return err;
    sqlite3_bind_int(s, 1, gate->passed ? DURE_VERSION_GATED : DURE_VERSION_BLOCKED);
    sqlite3_bind_int64(s, 2, gate->n_records);
    sqlite3_bind_int64(s, 3, (sqlite3_int64)reference);
    /* As the bits of the doubles: infinities survive, and the decision can be repeated exactly. */
    sqlite3_bind_blob(s, 4, losses, sizeof losses, SQLITE_STATIC);
    sqlite3_bind_int(s, 5, gate->passed);
    sqlite3_bind_int64(s, 6, (sqlite3_int64)number);
    return dure_registry_finish(r, s, "the gate's result cannot be recorded", diag);
}

#define VERSION_COLUMNS                                                                            \
    "number, parent, round, ledger, state, adapter, base, bytes, created, gate_records,"           \
    " gate_reference, gate_losses, gate_passed, forced, reason, signed, signature, certificate"

static bool take_blob(void *out, size_t n, sqlite3_stmt *s, int column)
{
    const void *bytes = sqlite3_column_blob(s, column);
    if (!bytes || (size_t)sqlite3_column_bytes(s, column) != n) return false;
    memcpy(out, bytes, n);
    return true;
}

static bool read_gate(dure_version *out, sqlite3_stmt *s)
{
    double losses[6];
    if (sqlite3_column_type(s, 9) == SQLITE_NULL) return true;
    if (!take_blob(losses, sizeof losses, s, 11)) return false;
    out->has_gate = true;
    out->gate_reference = (uint64_t)sqlite3_column_int64(s, 10);
    out->gate = (dure_gate_result){
        .n_records = (uint32_t)sqlite3_column_int64(s, 9),
        .reference_loss = losses[0],
        .candidate_loss = losses[1],
        .difference = losses[2],
        .low = losses[3],
        .high = losses[4],
        .margin = losses[5],
        .passed = sqlite3_column_int(s, 12) != 0,
    };
    return true;
}

static bool read_signature(dure_version *out, sqlite3_stmt *s)
{
    uint8_t certificate[DURE_RELEASE_CERTIFICATE_BYTES];
    if (sqlite3_column_type(s, 15) == SQLITE_NULL) return true;
    out->is_signed = true;
    out->signed_s = sqlite3_column_int64(s, 15);
    if (!take_blob(out->signature, sizeof out->signature, s, 16)) return false;
    if (!take_blob(certificate, sizeof certificate, s, 17)) return false;
    dure_release_certificate_decode(&out->certificate, certificate);
    return true;
}

/* The row of a statement over VERSION_COLUMNS. */
static dure_err read_row(dure_version *out, sqlite3_stmt *s, dure_diag *diag)
{
    *out = (dure_version){
        .number = (uint64_t)sqlite3_column_int64(s, 0),
        .parent = (uint64_t)sqlite3_column_int64(s, 1),
        .round = (uint64_t)sqlite3_column_int64(s, 2),
        .ledger_index = sqlite3_column_type(s, 3) == SQLITE_NULL
                            ? DURE_RELEASE_NO_LEDGER
                            : (uint64_t)sqlite3_column_int64(s, 3),
        .state = (dure_version_state)sqlite3_column_int(s, 4),
        .n_bytes = (uint64_t)sqlite3_column_int64(s, 7),
        .created_s = sqlite3_column_int64(s, 8),
        .forced = sqlite3_column_int(s, 13) != 0,
    };
    const unsigned char *reason = sqlite3_column_text(s, 14);
    snprintf(out->reason, sizeof out->reason, "%s", reason ? (const char *)reason : "");
    if (take_blob(out->adapter.b, DURE_HASH_BYTES, s, 5) &&
        take_blob(out->base.b, DURE_HASH_BYTES, s, 6) && read_gate(out, s) &&
        read_signature(out, s))
        return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_FORMAT,
                         "version %llu of the registry is damaged; restore state.db from a backup",
                         (unsigned long long)out->number);
}

/* First row of `statement`, which is finalized; *found tells whether there was one. */
static dure_err first_row(dure_version *out, bool *found, dure_registry *r, sqlite3_stmt *statement,
                          dure_diag *diag)
{
    dure_err err = DURE_OK;
    int rc = sqlite3_step(statement);
    *found = rc == SQLITE_ROW;
    if (*found)
        err = read_row(out, statement, diag);
    else if (rc != SQLITE_DONE)
        err = dure_registry_db_error(r, "the registry cannot be read", diag);
    sqlite3_finalize(statement);
    return err;
}

dure_err dure_registry_get(dure_version *out, dure_registry *r, uint64_t number, dure_diag *diag)
{
    sqlite3_stmt *s = NULL;
    bool found;
    *out = (dure_version){0};
    dure_err err = dure_registry_prepare(
        &s, r, "SELECT " VERSION_COLUMNS " FROM registry_version WHERE number = ?", diag);
    if (err) return err;
    sqlite3_bind_int64(s, 1, (sqlite3_int64)number);
    err = first_row(out, &found, r, s, diag);
    if (!err && !found)
        err = dure_diag_set(diag, DURE_ERR_NOT_FOUND,
                            "the registry has no version %llu; 'dure adapter list' shows what "
                            "there is",
                            (unsigned long long)number);
    return err;
}

/* Decimal digits after an optional 'v'; 0 when `name` is something else. */
static uint64_t as_number(const char *name)
{
    const char *digits = name + (*name == 'v');
    size_t n = strlen(digits);
    if (n == 0 || n > 18 || strspn(digits, "0123456789") != n) return 0;
    return strtoull(digits, NULL, 10);
}

static dure_err find_by(dure_version *out, bool *found, dure_registry *r, const char *sql,
                        const char *text, dure_diag *diag)
{
    sqlite3_stmt *s = NULL;
    *found = false;
    dure_err err = dure_registry_prepare(&s, r, sql, diag);
    if (err) return err;
    if (text) sqlite3_bind_text(s, 1, text, -1, SQLITE_STATIC);
    return first_row(out, found, r, s, diag);
}

static bool is_digest_prefix(const char *name)
{
    size_t n = strlen(name);
    if (n < 8 || n > 2 * DURE_HASH_BYTES) return false;
    for (size_t i = 0; i < n; i++)
        if (!isxdigit((unsigned char)name[i])) return false;
    return true;
}

dure_err dure_registry_find(dure_version *out, dure_registry *r, const char *name, dure_diag *diag)
{
    bool found = false;
    dure_err err = DURE_OK;
    uint64_t number = as_number(name);
    *out = (dure_version){0};
    if (number && strlen(name) < 8) return dure_registry_get(out, r, number, diag);
    if (!strcmp(name, "champion") || !strcmp(name, "previous"))
        err = find_by(out, &found, r,
                      "SELECT " VERSION_COLUMNS " FROM registry_version WHERE number ="
                      " (SELECT number FROM registry_alias WHERE name = ?)",
                      name, diag);
    else if (!strcmp(name, "latest"))
        err =
            find_by(out, &found, r,
                    "SELECT " VERSION_COLUMNS " FROM registry_version ORDER BY number DESC LIMIT 1",
                    NULL, diag);
    else if (is_digest_prefix(name))
        err = find_by(out, &found, r,
                      "SELECT " VERSION_COLUMNS " FROM registry_version"
                      " WHERE lower(hex(adapter)) LIKE lower(?) || '%' ORDER BY number DESC",
                      name, diag);
    if (!err && !found)
        err = dure_diag_set(diag, DURE_ERR_NOT_FOUND,
                            "the registry has no adapter '%s'; name a version number, a digest, "
                            "'latest', 'champion' or 'previous' (the last two exist after "
                            "'dure adapter promote')",
                            name);
    return err;
}

dure_err dure_registry_list(dure_version **out, size_t *n, dure_registry *r, dure_diag *diag)
{
    sqlite3_stmt *s = NULL;
    size_t capacity = 0;
    int rc;
    *out = NULL;
    *n = 0;
    dure_err err = dure_registry_prepare(
        &s, r, "SELECT " VERSION_COLUMNS " FROM registry_version ORDER BY number", diag);
    if (err) return err;
    while ((rc = sqlite3_step(s)) == SQLITE_ROW && !err) {
        if (*n == capacity) {
            capacity = capacity ? 2 * capacity : 16;
            dure_version *grown = realloc(*out, capacity * sizeof **out);
            if (!grown) {
                err = dure_diag_set(diag, DURE_ERR_NOMEM, "out of memory");
                break;
            }
            *out = grown;
        }
        err = read_row(&(*out)[*n], s, diag);
        if (!err) (*n)++;
    }
    if (!err && rc != SQLITE_DONE)
        err = dure_registry_db_error(r, "the registry cannot be read", diag);
    sqlite3_finalize(s);
    if (err) {
        free(*out);
        *out = NULL;
        *n = 0;
    }
    return err;
}

char *dure_registry_adapter_path(const dure_registry *r, const dure_version *version)
{
    return dure_blob_path(r->blobs, &version->adapter);
}
