/* Promotions and rollbacks on their way into the federation's log. */
#include "registry/registry_int.h"

dure_err dure_registry_note_move(dure_registry *r, const dure_registry_move *move, dure_diag *diag)
{
    sqlite3_stmt *s = NULL;
    dure_err err = dure_registry_prepare(
        &s, r, "INSERT INTO registry_move(back, number, previous, moved) VALUES(?, ?, ?, ?)", diag);
    if (err) return err;
    sqlite3_bind_int(s, 1, move->back);
    sqlite3_bind_int64(s, 2, (sqlite3_int64)move->number);
    sqlite3_bind_int64(s, 3, (sqlite3_int64)move->previous);
    sqlite3_bind_int64(s, 4, move->moved_s);
    return dure_registry_finish(r, s, "the change of champion cannot be recorded", diag);
}

dure_err dure_registry_next_move(dure_registry_move *out, dure_registry *r, dure_diag *diag)
{
    sqlite3_stmt *s = NULL;
    *out = (dure_registry_move){.seq = 0};
    dure_err err = dure_registry_prepare(&s, r,
                                         "SELECT seq, back, number, previous, moved FROM"
                                         " registry_move WHERE ledger IS NULL ORDER BY seq LIMIT 1",
                                         diag);
    if (err) return err;
    int rc = sqlite3_step(s);
    if (rc == SQLITE_ROW) {
        *out = (dure_registry_move){.seq = (uint64_t)sqlite3_column_int64(s, 0),
                                    .back = sqlite3_column_int(s, 1) != 0,
                                    .number = (uint64_t)sqlite3_column_int64(s, 2),
                                    .previous = (uint64_t)sqlite3_column_int64(s, 3),
                                    .moved_s = sqlite3_column_int64(s, 4)};
    } else {
        err = rc == SQLITE_DONE
                  ? DURE_ERR_NOT_FOUND
                  : dure_registry_db_error(r, "the changes of champion cannot be read", diag);
    }
    sqlite3_finalize(s);
    return err;
}

dure_err dure_registry_move_logged(dure_registry *r, uint64_t seq, uint64_t index, dure_diag *diag)
{
    sqlite3_stmt *s = NULL;
    dure_err err =
        dure_registry_prepare(&s, r, "UPDATE registry_move SET ledger = ? WHERE seq = ?", diag);
    if (err) return err;
    /* -1: there is no entry and will be none. */
    sqlite3_bind_int64(s, 1, index == DURE_RELEASE_NO_LEDGER ? -1 : (sqlite3_int64)index);
    sqlite3_bind_int64(s, 2, (sqlite3_int64)seq);
    return dure_registry_finish(r, s, "the change of champion cannot be recorded", diag);
}

dure_err dure_registry_forget_logged(dure_registry *r, uint64_t index, dure_diag *diag)
{
    sqlite3_stmt *s = NULL;
    dure_err err = dure_registry_prepare(
        &s, r, "UPDATE registry_move SET ledger = NULL WHERE ledger >= ?", diag);
    if (err) return err;
    sqlite3_bind_int64(s, 1, (sqlite3_int64)index);
    return dure_registry_finish(r, s, "the changes of champion cannot be recorded", diag);
}

dure_err dure_registry_last_logged(uint64_t *index, dure_registry *r, dure_diag *diag)
{
    sqlite3_stmt *s = NULL;
    *index = 0;
    dure_err err = dure_registry_prepare(
        &s, r, "SELECT ifnull(max(ledger), 0) FROM registry_move WHERE ledger > 0", diag);
    if (err) return err;
    if (sqlite3_step(s) == SQLITE_ROW)
        *index = (uint64_t)sqlite3_column_int64(s, 0);
    else
        err = dure_registry_db_error(r, "the changes of champion cannot be read", diag);
    sqlite3_finalize(s);
    return err;
}
