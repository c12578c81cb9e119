#include "common/file.h"
#include "crypto/hash.h"
#include "crypto/wipe.h"
#include "net/http_int.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define KEYS_MAX 1024
#define KEY_FILE_BYTES_MAX ((size_t)256 * 1024)
#define KEY_CHARS_MIN 16

struct dure_http_keys {
    size_t n;
    dure_hash hashes[KEYS_MAX];
};

static dure_err add_line(dure_http_keys *keys, const char *line, size_t n, const char *path,
                         size_t number, dure_diag *diag)
{
    while (n && (line[n - 1] == '\r' || line[n - 1] == ' '))
        n--;
    if (n == 0 || line[0] == '#') return DURE_OK;
    for (size_t i = 0; i < n; i++)
        if (line[i] < 0x21 || line[i] > 0x7e)
            return dure_diag_set(diag, DURE_ERR_FORMAT,
                                 "%s, line %zu: a key has printable ASCII only, without spaces",
                                 path, number);
    if (n < KEY_CHARS_MIN)
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "%s, line %zu: a key needs at least %d characters", path, number,
                             KEY_CHARS_MIN);
    if (keys->n == KEYS_MAX)
        return dure_diag_set(diag, DURE_ERR_LIMIT, "%s holds more than %d keys", path, KEYS_MAX);
    return dure_hash_bytes(&keys->hashes[keys->n++], dure_span_of(line, n));
}

static dure_err add_lines(dure_http_keys *keys, const dure_buf *file, const char *path,
                          dure_diag *diag)
{
    size_t at = 0;
    for (size_t number = 1; at < file->n; number++) {
        const char *line = (const char *)file->data + at;
        const char *end = memchr(line, '\n', file->n - at);
        size_t n = end ? (size_t)(end - line) : file->n - at;
        dure_err err = add_line(keys, line, n, path, number, diag);
        if (err) return err;
        at += n + 1;
    }
    if (keys->n == 0)
        return dure_diag_set(diag, DURE_ERR_FORMAT, "%s holds no key: write one a line", path);
    return DURE_OK;
}

dure_err dure_http_keys_read(dure_http_keys **out, const char *path, dure_diag *diag)
{
    *out = NULL;
    struct stat info;
    if (stat(path, &info)) return dure_file_errno(diag, "open", path);
    if (info.st_mode & S_IRWXO)
        return dure_diag_set(diag, DURE_ERR_AUTH,
                             "%s holds API keys but everybody may read it: run 'chmod o= %s'", path,
                             path);
    dure_buf file;
    dure_err err = dure_file_read(&file, path, KEY_FILE_BYTES_MAX, diag);
    if (err) return err;
    dure_http_keys *keys = calloc(1, sizeof *keys);
    err = keys ? add_lines(keys, &file, path, diag) : DURE_ERR_NOMEM;
    dure_wipe(file.data, file.n);
    dure_buf_fini(&file);
    if (err)
        dure_http_keys_free(&keys);
    else
        *out = keys;
    return err;
}

void dure_http_keys_free(dure_http_keys **keys)
{
    free(*keys);
    *keys = NULL;
}

bool http_keys_match(const dure_http_keys *keys, const char *key)
{
    dure_hash hash;
    if (dure_hash_bytes(&hash, dure_span_of_text(key))) return false;
    bool match = false;
    for (size_t i = 0; i < keys->n; i++)
        match |= dure_hash_equal(&hash, &keys->hashes[i]); /* all of them: no early way out */
    return match;
}
