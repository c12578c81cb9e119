/* Shared by the files of registry/: the open registry and its two kinds of statement. */
#pragma once

#include "registry/registry.h"

#include <sqlite3.h>

struct dure_registry {
    sqlite3 *db;
    char *blobs; /* DIR/blobs/sha256 */
};

/* DURE_ERR_DISK_FULL, DURE_ERR_BUSY or DURE_ERR_IO with SQLite's own words after `what`. */
dure_err dure_registry_db_error(dure_registry *r, const char *what, dure_diag *diag);
/* Runs statements without parameters or results. */
DURE_MUST_USE dure_err dure_registry_exec(dure_registry *r, const char *sql, const char *what,
                                          dure_diag *diag);
/* One prepared statement. The caller finalizes *out. */
DURE_MUST_USE dure_err dure_registry_prepare(sqlite3_stmt **out, dure_registry *r, const char *sql,
                                             dure_diag *diag);
/* Steps a statement that gives no rows, and finalizes it. */
DURE_MUST_USE dure_err dure_registry_finish(dure_registry *r, sqlite3_stmt *statement,
                                            const char *what, dure_diag *diag);
/* Inside the transaction that moves the aliases (moves.c). */
DURE_MUST_USE dure_err dure_registry_note_move(dure_registry *r, const dure_registry_move *move,
                                               dure_diag *diag);
