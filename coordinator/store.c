#include "coordinator/store.h"

#include "common/file.h"

#include <errno.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct dure_store {
    sqlite3 *db;
};

static const char schema[] =
    "BEGIN IMMEDIATE;"
    "CREATE TABLE IF NOT EXISTS coordinator_meta(key TEXT PRIMARY KEY, value BLOB NOT NULL);"
    "INSERT OR IGNORE INTO coordinator_meta VALUES('schema', 1);"
    "CREATE TABLE IF NOT EXISTS coordinator_round("
    " round INTEGER PRIMARY KEY, status INTEGER NOT NULL, config BLOB NOT NULL,"
    " config_hash BLOB NOT NULL UNIQUE, config_signature BLOB NOT NULL, t3 BLOB, sum BLOB,"
    " adapter_in BLOB NOT NULL, adapter_out BLOB, ledger INTEGER, members INTEGER NOT NULL,"
    " survivors INTEGER NOT NULL DEFAULT 0, opened INTEGER NOT NULL,"
    " closed INTEGER NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '', result BLOB);"
    "CREATE TABLE IF NOT EXISTS coordinator_record("
    " round INTEGER NOT NULL REFERENCES coordinator_round(round), record INTEGER NOT NULL,"
    " bytes BLOB NOT NULL, PRIMARY KEY(round, record));"
    "CREATE TABLE IF NOT EXISTS coordinator_chain("
    " site BLOB PRIMARY KEY, length INTEGER NOT NULL, head BLOB NOT NULL);"
    "COMMIT;";

const char *dure_stored_status_text(dure_stored_status status)
{
    static const char *const names[] = {"unknown", "open", "summed", "done", "failed"};
    const size_t i = (size_t)status;
    return names[i < sizeof names / sizeof *names ? i : 0];
}

static dure_err db_error(dure_store *store, const char *what, dure_diag *diag)
{
    const int code = sqlite3_errcode(store->db) & 0xff;
    const int cause = sqlite3_system_errno(store->db);
    if (code == SQLITE_FULL) return dure_file_cause(diag, what, ENOSPC);
    if ((code == SQLITE_IOERR || code == SQLITE_CANTOPEN) && cause)
        return dure_file_cause(diag, what, cause);
    const dure_err err = code == SQLITE_BUSY || code == SQLITE_LOCKED ? DURE_ERR_BUSY : DURE_ERR_IO;
    return dure_diag_set(diag, err, "%s: %s", what, sqlite3_errmsg(store->db));
}

/* One statement with its bindings by position; the first failure is kept and shows at the step. */
typedef struct statement {
    dure_store *store;
    sqlite3_stmt *s;
    const char *what; /* for the sentence */
    int next;
} statement;

static dure_err prepare(statement *st, dure_store *store, const char *sql, const char *what,
                        dure_diag *diag)
{
    *st = (statement){.store = store, .what = what, .next = 1};
    if (sqlite3_prepare_v2(store->db, sql, -1, &st->s, NULL) == SQLITE_OK) return DURE_OK;
    return db_error(store, what, diag);
}

static void bind_number(statement *st, uint64_t value)
{
    sqlite3_bind_int64(st->s, st->next++, (sqlite3_int64)value);
}

static void bind_blob(statement *st, const void *data, size_t n)
{
    sqlite3_bind_blob64(st->s, st->next++, data, n, SQLITE_STATIC);
}

static void bind_hash(statement *st, const dure_hash *hash)
{
    bind_blob(st, hash->b, sizeof hash->b);
}

static void bind_text(statement *st, const char *text)
{
    sqlite3_bind_text(st->s, st->next++, text, -1, SQLITE_STATIC);
}

/* True with a row. A failure is in *err. */
static bool step_row(dure_err *err, statement *st, dure_diag *diag)
{
    const int rc = sqlite3_step(st->s);
    *err = rc == SQLITE_ROW || rc == SQLITE_DONE ? DURE_OK : db_error(st->store, st->what, diag);
    return rc == SQLITE_ROW;
}

/* For statements without rows. `changed`: how many rows it must change, or -1. */
static dure_err finish(statement *st, int changed, dure_diag *diag)
{
    dure_err err = DURE_OK;
    const int rc = sqlite3_step(st->s);
    if (rc != SQLITE_DONE)
        err = (sqlite3_errcode(st->store->db) & 0xff) == SQLITE_CONSTRAINT
                  ? dure_diag_set(diag, DURE_ERR_EXISTS, "%s: it is there already", st->what)
                  : db_error(st->store, st->what, diag);
    else if (changed >= 0 && sqlite3_changes(st->store->db) != changed)
        err = dure_diag_set(diag, DURE_ERR_STATE, "%s: the round is not in the state for it",
                            st->what);
    sqlite3_finalize(st->s);
    st->s = NULL;
    return err;
}

static dure_err exec(dure_store *store, const char *sql, const char *what, dure_diag *diag)
{
    if (sqlite3_exec(store->db, sql, NULL, NULL, NULL) == SQLITE_OK) return DURE_OK;
    return db_error(store, what, diag);
}

static dure_err check_schema(dure_store *store, const char *dir, dure_diag *diag)
{
    statement st;
    dure_err err = prepare(&st, store, "SELECT value FROM coordinator_meta WHERE key = 'schema'",
                           "the coordinator's state cannot be read", diag);
    if (err) return err;
    int version = 0;
    if (step_row(&err, &st, diag)) version = sqlite3_column_int(st.s, 0);
    sqlite3_finalize(st.s);
    if (err || version == DURE_STORE_SCHEMA) return err;
    return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                         "the state in %s has schema %d, this dure knows %d; use a newer dure", dir,
                         version, DURE_STORE_SCHEMA);
}

static dure_err open_store(dure_store **out, const char *dir, bool writing, dure_diag *diag)
{
    *out = NULL;
    dure_store *store = calloc(1, sizeof *store);
    char *path = dure_path_join(dir, "state.db");
    dure_err err = DURE_OK;
    if (!store || !path) {
        err = dure_diag_set(diag, DURE_ERR_NOMEM, "out of memory");
        goto out;
    }
    if (!writing && !dure_file_exists(path)) {
        err = dure_diag_set(
            diag, DURE_ERR_NOT_FOUND,
            "%s holds no coordinator's state; name the folder that 'dure init' made", dir);
        goto out;
    }
    const int flags = writing ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE : SQLITE_OPEN_READWRITE;
    if (sqlite3_open_v2(path, &store->db, flags, NULL)) {
        err = dure_diag_set(diag, DURE_ERR_IO, "cannot open %s: %s", path,
                            store->db ? sqlite3_errmsg(store->db) : "out of memory");
        goto out;
    }
    sqlite3_busy_timeout(store->db, 10000);
    err = exec(store,
               "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -256;",
               "cannot open state.db", diag);
    if (!err && writing) err = exec(store, schema, "cannot open state.db", diag);
    if (!err) err = check_schema(store, dir, diag);
    if (!err && !writing)
        err = exec(store, "PRAGMA query_only = ON;", "cannot open state.db", diag);
out:
    free(path);
    if (err) dure_store_close(&store);
    *out = store;
    return err;
}

dure_err dure_store_open(dure_store **out, const char *dir, dure_diag *diag)
{
    return open_store(out, dir, true, diag);
}

dure_err dure_store_open_read(dure_store **out, const char *dir, dure_diag *diag)
{
    return open_store(out, dir, false, diag);
}

void dure_store_close(dure_store **store)
{
    if (!store || !*store) return;
    sqlite3_close((*store)->db);
    free(*store);
    *store = NULL;
}

dure_err dure_store_open_round(dure_store *store, const dure_round_row *row, dure_span config,
                               dure_diag *diag)
{
    statement st;
    dure_err err = prepare(&st, store,
                           "INSERT INTO coordinator_round(round, status, config, config_hash,"
                           " config_signature, adapter_in, members, opened)"
                           " VALUES(?, 1, ?, ?, ?, ?, ?, ?)",
                           "cannot store the round", diag);
    if (err) return err;
    bind_number(&st, row->round);
    bind_blob(&st, config.data, config.n);
    bind_hash(&st, &row->config_hash);
    bind_blob(&st, row->config_signature, sizeof row->config_signature);
    bind_hash(&st, &row->adapter_in);
    bind_number(&st, row->n_members);
    bind_number(&st, (uint64_t)row->opened_s);
    return finish(&st, 1, diag);
}

dure_err dure_store_put_record(dure_store *store, uint64_t round, unsigned record, dure_span bytes,
                               dure_diag *diag)
{
    statement st;
    dure_err err =
        prepare(&st, store, "INSERT INTO coordinator_record(round, record, bytes) VALUES(?, ?, ?)",
                "cannot store a step of the round", diag);
    if (err) return err;
    bind_number(&st, round);
    bind_number(&st, record);
    bind_blob(&st, bytes.data, bytes.n);
    err = finish(&st, 1, diag);
    if (err != DURE_ERR_EXISTS) return err;
    dure_buf there;
    err = dure_store_record(&there, store, round, record, diag);
    if (err) return err;
    if (there.n != bytes.n || memcmp(there.data, bytes.data, bytes.n) != 0)
        err = dure_diag_set(diag, DURE_ERR_STATE,
                            "step A%u of round %llu was stored with other bytes before", record,
                            (unsigned long long)round);
    dure_buf_fini(&there);
    return err;
}

dure_err dure_store_sum_round(dure_store *store, const dure_round_row *row, dure_diag *diag)
{
    statement st;
    dure_err err = prepare(&st, store,
                           "UPDATE coordinator_round SET status = 2, t3 = ?, sum = ?, survivors = ?"
                           " WHERE round = ? AND status = 1",
                           "cannot store the sum", diag);
    if (err) return err;
    bind_hash(&st, &row->t3);
    bind_hash(&st, &row->sum);
    bind_number(&st, row->n_survivors);
    bind_number(&st, row->round);
    return finish(&st, 1, diag);
}

static dure_err set_meta(dure_store *store, const char *key, const void *data, size_t n,
                         dure_diag *diag)
{
    statement st;
    dure_err err = prepare(&st, store, "INSERT OR REPLACE INTO coordinator_meta VALUES(?, ?)",
                           "cannot store the federation's state", diag);
    if (err) return err;
    bind_text(&st, key);
    bind_blob(&st, data, n);
    return finish(&st, 1, diag);
}

static dure_err write_finish(dure_store *store, const dure_round_row *row, dure_span result,
                             dure_diag *diag)
{
    statement st;
    dure_err err = prepare(&st, store,
                           "UPDATE coordinator_round SET status = 3, adapter_out = ?, ledger = ?,"
                           " closed = ?, result = ? WHERE round = ? AND status = 2",
                           "cannot store the round's result", diag);
    if (err) return err;
    bind_hash(&st, &row->adapter_out);
    bind_number(&st, row->ledger_index);
    bind_number(&st, (uint64_t)row->closed_s);
    bind_blob(&st, result.data, result.n);
    bind_number(&st, row->round);
    err = finish(&st, 1, diag);
    if (!err) err = set_meta(store, "adapter", row->adapter_out.b, sizeof row->adapter_out.b, diag);
    if (!err) err = set_meta(store, "t3", row->t3.b, sizeof row->t3.b, diag);
    return err;
}

/* Ends the transaction that was begun, one way or the other. */
static dure_err conclude(dure_store *store, dure_err err, const char *what, dure_diag *diag)
{
    if (!err) err = exec(store, "COMMIT", what, diag);
    if (err) sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
    return err;
}

dure_err dure_store_finish_round(dure_store *store, const dure_round_row *row, dure_span result,
                                 dure_diag *diag)
{
    static const char what[] = "cannot store the round's result";
    dure_err err = exec(store, "BEGIN IMMEDIATE", what, diag);
    if (err) return err;
    return conclude(store, write_finish(store, row, result, diag), what, diag);
}

dure_err dure_store_renew_result(dure_store *store, uint64_t round, dure_span result,
                                 dure_diag *diag)
{
    statement st;
    dure_err err = prepare(&st, store,
                           "UPDATE coordinator_round SET result = ? WHERE round = ? AND status = 3",
                           "cannot store the round's result", diag);
    if (err) return err;
    bind_blob(&st, result.data, result.n);
    bind_number(&st, round);
    return finish(&st, 1, diag);
}

dure_err dure_store_fail_round(dure_store *store, uint64_t round, const char *reason, int64_t now_s,
                               dure_diag *diag)
{
    statement st;
    dure_err err = prepare(&st, store,
                           "UPDATE coordinator_round SET status = 4, reason = ?, closed = ?"
                           " WHERE round = ? AND status IN (1, 2)",
                           "cannot close the round", diag);
    if (err) return err;
    bind_text(&st, reason);
    bind_number(&st, (uint64_t)now_s);
    bind_number(&st, round);
    return finish(&st, 1, diag);
}

#define ROW_COLUMNS                                                                                \
    "round, status, config_hash, config_signature, t3, sum, adapter_in, adapter_out, ledger,"      \
    " members, survivors, opened, closed, reason"

static void take_hash(dure_hash *out, statement *st, int column)
{
    memset(out, 0, sizeof *out);
    if (sqlite3_column_bytes(st->s, column) == (int)sizeof out->b)
        memcpy(out->b, sqlite3_column_blob(st->s, column), sizeof out->b);
}

static void take_row(dure_round_row *out, statement *st)
{
    *out = (dure_round_row){.round = (uint64_t)sqlite3_column_int64(st->s, 0),
                            .status = (dure_stored_status)sqlite3_column_int(st->s, 1),
                            .ledger_index = (uint64_t)sqlite3_column_int64(st->s, 8),
                            .n_members = (uint32_t)sqlite3_column_int(st->s, 9),
                            .n_survivors = (uint32_t)sqlite3_column_int(st->s, 10),
                            .opened_s = sqlite3_column_int64(st->s, 11),
                            .closed_s = sqlite3_column_int64(st->s, 12)};
    take_hash(&out->config_hash, st, 2);
    if (sqlite3_column_bytes(st->s, 3) == (int)sizeof out->config_signature)
        memcpy(out->config_signature, sqlite3_column_blob(st->s, 3), sizeof out->config_signature);
    take_hash(&out->t3, st, 4);
    take_hash(&out->sum, st, 5);
    take_hash(&out->adapter_in, st, 6);
    take_hash(&out->adapter_out, st, 7);
    const unsigned char *reason = sqlite3_column_text(st->s, 13);
    snprintf(out->reason, sizeof out->reason, "%s", reason ? (const char *)reason : "");
}

/* The one row of a prepared statement, which ends here. */
static dure_err one_row(dure_round_row *out, statement *st, dure_diag *diag)
{
    dure_err err;
    if (step_row(&err, st, diag))
        take_row(out, st);
    else if (!err)
        err = dure_diag_set(diag, DURE_ERR_NOT_FOUND, "there is no such round");
    sqlite3_finalize(st->s);
    return err;
}

dure_err dure_store_unfinished(dure_round_row *out, dure_store *store, dure_diag *diag)
{
    statement st;
    dure_err err =
        prepare(&st, store,
                "SELECT " ROW_COLUMNS
                " FROM coordinator_round WHERE status IN (1, 2) ORDER BY round DESC LIMIT 1",
                "cannot read the rounds", diag);
    return err ? err : one_row(out, &st, diag);
}

dure_err dure_store_find_round(dure_round_row *out, dure_store *store, const dure_hash *config_hash,
                               dure_diag *diag)
{
    statement st;
    dure_err err =
        prepare(&st, store, "SELECT " ROW_COLUMNS " FROM coordinator_round WHERE config_hash = ?",
                "cannot read the rounds", diag);
    if (err) return err;
    bind_hash(&st, config_hash);
    return one_row(out, &st, diag);
}

dure_err dure_store_rounds(dure_round_row **out, size_t *n, dure_store *store, dure_diag *diag)
{
    statement st;
    dure_round_row *rows = NULL;
    size_t count = 0, capacity = 0;
    *out = NULL;
    *n = 0;
    dure_err err =
        prepare(&st, store, "SELECT " ROW_COLUMNS " FROM coordinator_round ORDER BY round",
                "cannot read the rounds", diag);
    while (!err && step_row(&err, &st, diag)) {
        if (count == capacity) {
            capacity = capacity ? capacity * 2 : 16;
            dure_round_row *more = realloc(rows, capacity * sizeof *rows);
            if (!more) {
                err = DURE_ERR_NOMEM;
                break;
            }
            rows = more;
        }
        take_row(&rows[count++], &st);
    }
    sqlite3_finalize(st.s);
    if (err) {
        free(rows);
        return err;
    }
    *out = rows;
    *n = count;
    return DURE_OK;
}

/* The first column of the first row, as bytes. */
static dure_err read_blob(dure_buf *out, statement *st, dure_diag *diag)
{
    dure_err err;
    dure_buf_init(out, SIZE_MAX / 2);
    if (step_row(&err, st, diag) && sqlite3_column_type(st->s, 0) == SQLITE_BLOB) {
        dure_put_raw(out, sqlite3_column_blob(st->s, 0), (size_t)sqlite3_column_bytes(st->s, 0));
        err = dure_buf_err(out);
    } else if (!err) {
        err = dure_diag_set(diag, DURE_ERR_NOT_FOUND, "%s: it is not there", st->what);
    }
    sqlite3_finalize(st->s);
    if (err) dure_buf_fini(out);
    return err;
}

dure_err dure_store_config(dure_buf *out, dure_store *store, uint64_t round, dure_diag *diag)
{
    statement st;
    dure_err err = prepare(&st, store, "SELECT config FROM coordinator_round WHERE round = ?",
                           "cannot read the round's configuration", diag);
    if (err) return err;
    bind_number(&st, round);
    return read_blob(out, &st, diag);
}

dure_err dure_store_record(dure_buf *out, dure_store *store, uint64_t round, unsigned record,
                           dure_diag *diag)
{
    statement st;
    dure_err err =
        prepare(&st, store, "SELECT bytes FROM coordinator_record WHERE round = ? AND record = ?",
                "cannot read a step of the round", diag);
    if (err) return err;
    bind_number(&st, round);
    bind_number(&st, record);
    return read_blob(out, &st, diag);
}

dure_err dure_store_result(dure_buf *out, dure_store *store, uint64_t round, dure_diag *diag)
{
    statement st;
    dure_err err = prepare(&st, store, "SELECT result FROM coordinator_round WHERE round = ?",
                           "cannot read the round's result", diag);
    if (err) return err;
    bind_number(&st, round);
    return read_blob(out, &st, diag);
}

/* DURE_ERR_NOT_FOUND, or DURE_ERR_FORMAT when its length is not n. */
static dure_err get_meta(void *data, size_t n, dure_store *store, const char *key, dure_diag *diag)
{
    statement st;
    dure_buf value;
    dure_err err = prepare(&st, store, "SELECT value FROM coordinator_meta WHERE key = ?",
                           "cannot read the federation's state", diag);
    if (err) return err;
    bind_text(&st, key);
    err = read_blob(&value, &st, diag);
    if (err) return err;
    if (value.n == n)
        memcpy(data, value.data, n);
    else
        err = dure_diag_set(diag, DURE_ERR_FORMAT, "state.db holds a malformed \"%s\"", key);
    dure_buf_fini(&value);
    return err;
}

dure_err dure_store_facts_get(dure_store_facts *out, dure_store *store, dure_diag *diag)
{
    dure_store_facts facts = {0};
    statement st;
    dure_err err = get_meta(&facts.run_id, sizeof facts.run_id, store, "run", diag);
    if (!err) err = get_meta(facts.adapter.b, sizeof facts.adapter.b, store, "adapter", diag);
    if (!err) err = get_meta(facts.previous_t3.b, sizeof facts.previous_t3.b, store, "t3", diag);
    if (!err) {
        err = get_meta(&facts.recovering, sizeof facts.recovering, store, "recovering", NULL);
        if (err == DURE_ERR_NOT_FOUND) err = DURE_OK;
    }
    if (!err)
        err = prepare(&st, store,
                      "SELECT ifnull(max(round), 0), count(CASE WHEN status = 3 THEN 1 END)"
                      " FROM coordinator_round",
                      "cannot read the rounds", diag);
    if (err) return err;
    if (step_row(&err, &st, diag)) {
        facts.last_round = (uint64_t)sqlite3_column_int64(st.s, 0);
        facts.n_done = (uint64_t)sqlite3_column_int64(st.s, 1);
    }
    sqlite3_finalize(st.s);
    if (!err)
        err = prepare(&st, store,
                      "SELECT round, ledger, sum FROM coordinator_round WHERE status = 3"
                      " ORDER BY round DESC LIMIT 1",
                      "cannot read the rounds", diag);
    if (err) return err;
    if (step_row(&err, &st, diag)) {
        facts.done_round = (uint64_t)sqlite3_column_int64(st.s, 0);
        facts.done_index = (uint64_t)sqlite3_column_int64(st.s, 1);
        take_hash(&facts.done_sum, &st, 2);
    }
    sqlite3_finalize(st.s);
    if (!err) *out = facts;
    return err;
}

dure_err dure_store_begin(dure_store *store, uint64_t run_id, const dure_hash *adapter,
                          dure_diag *diag)
{
    static const char what[] = "cannot store the federation's state";
    const dure_hash none = {{0}};
    uint64_t there;
    if (get_meta(&there, sizeof there, store, "run", NULL) == DURE_OK)
        return dure_diag_set(diag, DURE_ERR_EXISTS, "the federation's state exists already");
    dure_err err = exec(store, "BEGIN IMMEDIATE", what, diag);
    if (err) return err;
    err = set_meta(store, "run", &run_id, sizeof run_id, diag);
    if (!err) err = set_meta(store, "adapter", adapter->b, sizeof adapter->b, diag);
    if (!err) err = set_meta(store, "t3", none.b, sizeof none.b, diag);
    return conclude(store, err, what, diag);
}

dure_err dure_store_chain(dure_site_chain *out, dure_store *store, const uint8_t sign_public[32],
                          dure_diag *diag)
{
    statement st;
    *out = (dure_site_chain){.length = 0};
    dure_err err = prepare(&st, store, "SELECT length, head FROM coordinator_chain WHERE site = ?",
                           "cannot read what a site showed of its ledger", diag);
    if (err) return err;
    bind_blob(&st, sign_public, 32);
    if (step_row(&err, &st, diag)) {
        out->length = (uint64_t)sqlite3_column_int64(st.s, 0);
        take_hash(&out->head, &st, 1);
    }
    sqlite3_finalize(st.s);
    return err;
}

dure_err dure_store_put_chain(dure_store *store, const uint8_t sign_public[32],
                              const dure_site_chain *chain, dure_diag *diag)
{
    statement st;
    dure_err err = prepare(&st, store, "INSERT OR REPLACE INTO coordinator_chain VALUES(?, ?, ?)",
                           "cannot store what a site showed of its ledger", diag);
    if (err) return err;
    bind_blob(&st, sign_public, 32);
    bind_number(&st, chain->length);
    bind_hash(&st, &chain->head);
    return finish(&st, 1, diag);
}

dure_err dure_store_put_recovering(dure_store *store, uint64_t size, dure_diag *diag)
{
    return set_meta(store, "recovering", &size, sizeof size, diag);
}

static dure_err adopt_row(dure_store *store, const dure_round_row *row, dure_span result,
                          dure_diag *diag)
{
    statement st;
    dure_err err = prepare(
        &st, store,
        "INSERT INTO coordinator_round(round, status, config, config_hash, config_signature, t3,"
        " sum, adapter_in, adapter_out, ledger, members, survivors, opened, closed, reason, result)"
        " VALUES(?1, ?2, x'', ?3, x'', ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)"
        " ON CONFLICT(round) DO UPDATE SET status = ?2, config_hash = ?3, t3 = ?4, sum = ?5,"
        " adapter_in = ?6, adapter_out = ?7, ledger = ?8, members = ?9, survivors = ?10,"
        " opened = ?11, closed = ?12, reason = ?13, result = ifnull(?14, result)",
        "cannot store a round of the log", diag);
    if (err) return err;
    bind_number(&st, row->round);
    bind_number(&st, (uint64_t)row->status);
    bind_hash(&st, &row->config_hash);
    bind_hash(&st, &row->t3);
    bind_hash(&st, &row->sum);
    bind_hash(&st, &row->adapter_in);
    bind_hash(&st, &row->adapter_out);
    bind_number(&st, row->ledger_index);
    bind_number(&st, row->n_members);
    bind_number(&st, row->n_survivors);
    bind_number(&st, (uint64_t)row->opened_s);
    bind_number(&st, (uint64_t)row->closed_s);
    bind_text(&st, row->reason);
    bind_blob(&st, result.data, result.n);
    return finish(&st, 1, diag);
}

/* What the log does not tell of did not end. */
static dure_err write_adopted(dure_store *store, const dure_round_row *rows, size_t n,
                              dure_span result, const dure_hash *first, dure_diag *diag)
{
    static const char fail[] =
        "UPDATE coordinator_round SET status = 4, reason = 'its end is not in the log'"
        " WHERE status <> 4";
    static const dure_hash none;
    const dure_round_row *last = NULL;
    const uint64_t whole = 0;
    for (size_t i = 0; i < n; i++)
        if (rows[i].status == DURE_STORED_DONE) last = &rows[i];
    const dure_hash *adapter = last ? &last->adapter_out : first, *t3 = last ? &last->t3 : &none;
    dure_err err = exec(store, fail, "cannot end the rounds that the log does not tell of", diag);
    for (size_t i = 0; !err && i < n; i++)
        err = adopt_row(store, &rows[i], &rows[i] == last ? result : dure_span_of(NULL, 0), diag);
    if (!err) err = set_meta(store, "adapter", adapter->b, sizeof adapter->b, diag);
    if (!err) err = set_meta(store, "t3", t3->b, sizeof t3->b, diag);
    return err ? err : set_meta(store, "recovering", &whole, sizeof whole, diag);
}

dure_err dure_store_adopt(dure_store *store, const dure_round_row *rows, size_t n, dure_span result,
                          const dure_hash *first, dure_diag *diag)
{
    static const char what[] = "cannot store the rounds that the log tells of";
    dure_err err = exec(store, "BEGIN IMMEDIATE", what, diag);
    if (err) return err;
    return conclude(store, write_adopted(store, rows, n, result, first, diag), what, diag);
}
