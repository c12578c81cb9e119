#include "cli/writable.h"

#include "common/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool ends_a_part(const char *path, size_t n)
{
    return path[n] == '/' || path[n] == 0;
}

/* Bytes of the longest of its folders that is there. */
static size_t bytes_there(char *path)
{
    for (size_t n = strlen(path); n > 0; n--) {
        if (!ends_a_part(path, n)) continue;
        char kept = path[n];
        path[n] = 0;
        bool there = dure_file_exists(path);
        path[n] = kept;
        if (there) return n;
    }
    return 0;
}

dure_err dure_new_folder_make(dure_new_folder *folder, const char *path, dure_diag *diag)
{
    *folder = (dure_new_folder){.path = strdup(path)};
    if (!folder->path) return DURE_ERR_NOMEM;
    folder->there = bytes_there(folder->path);
    return dure_dir_make(path, diag);
}

void dure_new_folder_fini(dure_new_folder *folder)
{
    for (size_t n = folder->path ? strlen(folder->path) : 0; n > folder->there; n--) {
        if (!ends_a_part(folder->path, n)) continue;
        folder->path[n] = 0;
        (void)!rmdir(folder->path); /* fails, as it should, when something is in it */
    }
    free(folder->path);
    *folder = (dure_new_folder){.path = NULL};
}

dure_err dure_writable_file(const char *path, dure_diag *diag)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd >= 0) {
        close(fd);
        return unlink(path) ? dure_file_errno(diag, "remove", path) : DURE_OK;
    }
    if (errno != EEXIST) return dure_file_errno(diag, "create", path);
    fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (fd < 0) return dure_file_errno(diag, "write", path);
    close(fd);
    return DURE_OK;
}

dure_err dure_writable_folder(const char *folder, dure_diag *diag)
{
    dure_new_folder made;
    char name[64];
    snprintf(name, sizeof name, ".dure-%ld", (long)getpid());
    dure_err err = dure_new_folder_make(&made, folder, diag);
    char *path = err ? NULL : dure_path_join(folder, name);
    if (!err) err = path ? dure_writable_file(path, diag) : DURE_ERR_NOMEM;
    free(path);
    dure_new_folder_fini(&made);
    return err;
}
