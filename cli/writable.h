/* Whether a command will be able to write where it is told to, found out before it spends, fixes or
 * removes anything: the file is made and removed again, so that the system itself says. */
#pragma once

#include "common/err.h"

#include <stddef.h>

/* A folder with its parents, and which of them were there before. */
typedef struct dure_new_folder {
    char *path;   /* owned; NULL: nothing was made */
    size_t there; /* its first bytes that name a folder which was there before */
} dure_new_folder;

/* As dure_dir_make(). dure_new_folder_fini() in every case. */
DURE_MUST_USE dure_err dure_new_folder_make(dure_new_folder *folder, const char *path,
                                            dure_diag *diag);
/* Removes what was made, as far as nothing is in it; idempotent. */
void dure_new_folder_fini(dure_new_folder *folder);

/* That a file can be made at `path`, or written to if it is there. Nothing is left behind. Errors
 * as those of common/file.h. */
DURE_MUST_USE dure_err dure_writable_file(const char *path, dure_diag *diag);
/* That files can be made in `folder`, which need not be there yet. Nothing is left behind. */
DURE_MUST_USE dure_err dure_writable_folder(const char *folder, dure_diag *diag);
