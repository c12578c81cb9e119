#include "model/base_digest.h"

#include "model/gguf.h"

#include <stdlib.h>

dure_err dure_base_digest(dure_hash *out, const char *path, dure_diag *diag)
{
    uint32_t n = dure_gguf_files_of(path), named = 0;
    *out = (dure_hash){{0}};
    if (n > dure_gguf_default_limits.max_files)
        return dure_diag_set(diag, DURE_ERR_LIMIT, "%s: the model has too many parts", path);
    char **names = calloc(n, sizeof *names);
    const char **paths = calloc(n, sizeof *paths);
    dure_err err = names && paths ? DURE_OK : DURE_ERR_NOMEM;
    for (; named < n && !err; named++) {
        paths[named] = names[named] = dure_gguf_file_name(path, named);
        if (!names[named]) err = DURE_ERR_NOMEM;
    }
    if (!err) err = dure_hash_files(out, paths, n, diag);
    for (uint32_t i = 0; i < named; i++)
        free(names[i]);
    free(names);
    free(paths);
    return err;
}
