#include "net/curve_key.h"

#include "common/buf.h"
#include "common/file.h"
#include "crypto/kx.h"
#include "crypto/wipe.h"

#include <dlfcn.h>
#include <string.h>
#include <sys/stat.h>
#include <zmq.h>

/* The file: a line that says what it is, then the secret and the public half in hex. */
#define KEY_MAGIC "dure-curve-key-1\n"
#define KEY_MAGIC_BYTES (sizeof KEY_MAGIC - 1)
#define KEY_HEX_BYTES ((size_t)2 * DURE_CURVE_BYTES)
#define KEY_FILE_BYTES (KEY_MAGIC_BYTES + KEY_HEX_BYTES + 1 + KEY_HEX_BYTES + 1)

dure_err dure_curve_check(dure_diag *diag)
{
    if (!zmq_has("curve"))
        return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                             "this libzmq was built without CURVE: install one that has it, as "
                             "Debian's libzmq5 does");
    if (!dlsym(RTLD_DEFAULT, "sodium_version_string"))
        return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                             "this libzmq does not use libsodium for CURVE: install one that was "
                             "built with it, as Debian's libzmq5 is");
    return DURE_OK;
}

dure_err dure_curve_from_secret(dure_curve_key *key, const uint8_t secret[DURE_CURVE_BYTES])
{
    _Static_assert(DURE_CURVE_BYTES == DURE_KX_BYTES, "CURVE keys are X25519 keys");
    dure_kx_key kx;
    *key = (dure_curve_key){{0}, {0}};
    dure_err err = dure_kx_from_secret(&kx, secret);
    if (!err) {
        memcpy(key->secret, kx.secret, DURE_CURVE_BYTES);
        memcpy(key->public_, kx.public_, DURE_CURVE_BYTES);
    }
    dure_wipe(&kx, sizeof kx);
    return err;
}

dure_err dure_curve_generate(dure_curve_key *key)
{
    dure_kx_key kx;
    *key = (dure_curve_key){{0}, {0}};
    dure_err err = dure_kx_generate(&kx);
    if (!err) {
        memcpy(key->secret, kx.secret, DURE_CURVE_BYTES);
        memcpy(key->public_, kx.public_, DURE_CURVE_BYTES);
    }
    dure_wipe(&kx, sizeof kx);
    return err;
}

void dure_curve_key_wipe(dure_curve_key *key)
{
    dure_wipe(key, sizeof *key);
}

dure_err dure_curve_save(const char *path, const dure_curve_key *key, dure_diag *diag)
{
    char text[KEY_FILE_BYTES + 1];
    memcpy(text, KEY_MAGIC, KEY_MAGIC_BYTES);
    char *at = text + KEY_MAGIC_BYTES;
    dure_hex_encode(at, key->secret, DURE_CURVE_BYTES);
    at += KEY_HEX_BYTES;
    *at++ = '\n';
    dure_hex_encode(at, key->public_, DURE_CURVE_BYTES);
    at += KEY_HEX_BYTES;
    *at = '\n';
    dure_err err = dure_file_write_atomic(path, dure_span_of(text, KEY_FILE_BYTES), 0600, diag);
    dure_wipe(text, sizeof text);
    return err;
}

/* The two halves out of the file's text, which is cut into strings in place. */
static dure_err parse_key(dure_curve_key *key, uint8_t *file, size_t n)
{
    uint8_t secret[DURE_CURVE_BYTES], public_[DURE_CURVE_BYTES];
    if (n != KEY_FILE_BYTES || !dure_ct_equal(file, KEY_MAGIC, KEY_MAGIC_BYTES))
        return DURE_ERR_FORMAT;
    char *first = (char *)file + KEY_MAGIC_BYTES, *second = first + KEY_HEX_BYTES + 1;
    if (first[KEY_HEX_BYTES] != '\n' || second[KEY_HEX_BYTES] != '\n') return DURE_ERR_FORMAT;
    first[KEY_HEX_BYTES] = second[KEY_HEX_BYTES] = 0;
    dure_err err = dure_hex_decode(secret, sizeof secret, first);
    if (!err) err = dure_hex_decode(public_, sizeof public_, second);
    if (!err) err = dure_curve_from_secret(key, secret);
    if (!err && !dure_ct_equal(key->public_, public_, sizeof public_)) err = DURE_ERR_AUTH;
    dure_wipe(secret, sizeof secret);
    return err;
}

dure_err dure_curve_load(dure_curve_key *key, const char *path, dure_diag *diag)
{
    *key = (dure_curve_key){{0}, {0}};
    struct stat info;
    if (stat(path, &info)) return dure_file_errno(diag, "open", path);
    if (info.st_mode & (S_IRWXG | S_IRWXO))
        return dure_diag_set(diag, DURE_ERR_AUTH,
                             "%s holds a private key but others may read it: 'chmod 600' it", path);
    dure_buf file;
    dure_err err = dure_file_read(&file, path, 4096, diag);
    if (err) return err;
    err = parse_key(key, file.data, file.n);
    if (err) {
        dure_curve_key_wipe(key);
        dure_diag_set(diag, err, "%s is not a CURVE key file, or its two keys are not a pair",
                      path);
    }
    dure_wipe(file.data, file.n);
    dure_buf_fini(&file);
    return err;
}

dure_err dure_curve_id(dure_hash *id, const uint8_t curve_public[DURE_CURVE_BYTES])
{
    return dure_hash_bytes(id, dure_span_of(curve_public, DURE_CURVE_BYTES));
}
