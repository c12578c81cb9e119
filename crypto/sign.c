#include "crypto/sign.h"

#include "common/file.h"
#include "crypto/rng.h"
#include "crypto/wipe.h"

#include <openssl/evp.h>
#include <string.h>
#include <sys/stat.h>

static const char key_file_prefix[] = "dure-ed25519-private-key-1 ";
enum {
    KEY_FILE_HEX = 2 * DURE_SIGN_SECRET_BYTES,
    KEY_FILE_BYTES = (int)sizeof key_file_prefix - 1 + KEY_FILE_HEX + 1,
    KEY_FILE_MODE = 0600,
};

dure_err dure_sign_from_secret(dure_sign_key *key, const uint8_t secret[DURE_SIGN_SECRET_BYTES])
{
    size_t n = DURE_SIGN_PUBLIC_BYTES;
    dure_err err = DURE_OK;
    *key = (dure_sign_key){.secret = {0}};
    EVP_PKEY *private_ =
        EVP_PKEY_new_raw_private_key_ex(NULL, "ED25519", NULL, secret, DURE_SIGN_SECRET_BYTES);
    if (!private_ || EVP_PKEY_get_raw_public_key(private_, key->public_, &n) != 1 ||
        n != DURE_SIGN_PUBLIC_BYTES) {
        *key = (dure_sign_key){.secret = {0}};
        err = DURE_ERR_CRYPTO;
    } else {
        memcpy(key->secret, secret, DURE_SIGN_SECRET_BYTES);
    }
    EVP_PKEY_free(private_);
    return err;
}

dure_err dure_sign_generate(dure_sign_key *key)
{
    uint8_t secret[DURE_SIGN_SECRET_BYTES];
    dure_rng rng = dure_rng_system();
    *key = (dure_sign_key){.secret = {0}};
    dure_err err = dure_rng_fill(&rng, secret, sizeof secret);
    if (!err) err = dure_sign_from_secret(key, secret);
    dure_wipe(secret, sizeof secret);
    return err;
}

/* Ed25519 of RFC 8032 over `message` as it is. */
static dure_err sign_plain(uint8_t *signature, const dure_sign_key *key, dure_span message)
{
    size_t n = DURE_SIGNATURE_BYTES;
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    EVP_PKEY *private_ =
        EVP_PKEY_new_raw_private_key_ex(NULL, "ED25519", NULL, key->secret, DURE_SIGN_SECRET_BYTES);
    dure_err err = DURE_OK;
    if (!context || !private_ ||
        EVP_DigestSignInit_ex(context, NULL, NULL, NULL, NULL, private_, NULL) != 1 ||
        EVP_DigestSign(context, signature, &n, message.data, message.n) != 1 ||
        n != DURE_SIGNATURE_BYTES) {
        dure_wipe(signature, DURE_SIGNATURE_BYTES);
        err = DURE_ERR_CRYPTO;
    }
    EVP_PKEY_free(private_);
    EVP_MD_CTX_free(context);
    return err;
}

static dure_err verify_plain(const uint8_t *public_, dure_span message, const uint8_t *signature)
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    EVP_PKEY *key =
        EVP_PKEY_new_raw_public_key_ex(NULL, "ED25519", NULL, public_, DURE_SIGN_PUBLIC_BYTES);
    dure_err err = DURE_ERR_AUTH;
    if (!context) {
        err = DURE_ERR_NOMEM;
    } else if (key && EVP_DigestVerifyInit_ex(context, NULL, NULL, NULL, NULL, key, NULL) == 1 &&
               EVP_DigestVerify(context, signature, DURE_SIGNATURE_BYTES, message.data,
                                message.n) == 1) {
        err = DURE_OK;
    }
    EVP_PKEY_free(key);
    EVP_MD_CTX_free(context);
    return err;
}

/* The label with its length, then the message: one contiguous text, since Ed25519 has no streaming
 * form. */
static dure_err frame(dure_buf *out, const char *label, dure_span message)
{
    dure_buf_init(out, strlen(label) + message.n + 4);
    dure_put_text(out, label);
    dure_put_raw(out, message.data, message.n);
    return dure_buf_err(out);
}

dure_err dure_sign(uint8_t signature[DURE_SIGNATURE_BYTES], const dure_sign_key *key,
                   const char *label, dure_span message)
{
    dure_buf framed;
    dure_err err = frame(&framed, label, message);
    if (err) {
        dure_wipe(signature, DURE_SIGNATURE_BYTES);
    } else {
        err = sign_plain(signature, key, dure_buf_span(&framed));
    }
    dure_buf_fini(&framed);
    return err;
}

dure_err dure_sign_verify(const uint8_t public_[DURE_SIGN_PUBLIC_BYTES], const char *label,
                          dure_span message, const uint8_t signature[DURE_SIGNATURE_BYTES])
{
    dure_buf framed;
    dure_err err = frame(&framed, label, message);
    if (!err) err = verify_plain(public_, dure_buf_span(&framed), signature);
    dure_buf_fini(&framed);
    return err;
}

dure_err dure_sign_text(uint8_t signature[DURE_SIGNATURE_BYTES], const dure_sign_key *key,
                        dure_span text)
{
    if (text.n == 0 || text.data[0] == 0) {
        dure_wipe(signature, DURE_SIGNATURE_BYTES);
        return DURE_ERR_USAGE;
    }
    return sign_plain(signature, key, text);
}

dure_err dure_sign_text_verify(const uint8_t public_[DURE_SIGN_PUBLIC_BYTES], dure_span text,
                               const uint8_t signature[DURE_SIGNATURE_BYTES])
{
    if (text.n == 0 || text.data[0] == 0) return DURE_ERR_AUTH;
    return verify_plain(public_, text, signature);
}

dure_err dure_sign_save(const dure_sign_key *key, const char *path, dure_diag *diag)
{
    if (dure_file_exists(path)) {
        return dure_diag_set(diag, DURE_ERR_EXISTS,
                             "%s holds a key already; remove it first if it is to be replaced",
                             path);
    }
    char text[KEY_FILE_BYTES + 1];
    memcpy(text, key_file_prefix, sizeof key_file_prefix);
    dure_hex_encode(text + sizeof key_file_prefix - 1, key->secret, DURE_SIGN_SECRET_BYTES);
    memcpy(text + KEY_FILE_BYTES - 1, "\n", 2);
    dure_err err =
        dure_file_write_atomic(path, dure_span_of(text, KEY_FILE_BYTES), KEY_FILE_MODE, diag);
    dure_wipe(text, sizeof text);
    return err;
}

/* A key that other users may read is not a secret any more. */
static dure_err check_mode(const char *path, dure_diag *diag)
{
    struct stat info;
    if (stat(path, &info) != 0) return dure_file_errno(diag, "open", path);
    if (info.st_mode & (S_IRWXG | S_IRWXO)) {
        return dure_diag_set(diag, DURE_ERR_POLICY,
                             "%s may be read by other users; run chmod 600 on it", path);
    }
    return DURE_OK;
}

dure_err dure_sign_load(dure_sign_key *key, const char *path, dure_diag *diag)
{
    dure_buf text;
    uint8_t secret[DURE_SIGN_SECRET_BYTES];
    char hex[KEY_FILE_HEX + 1] = {0};
    const size_t prefix_n = sizeof key_file_prefix - 1;
    dure_buf_init(&text, KEY_FILE_BYTES);
    *key = (dure_sign_key){.secret = {0}};
    dure_err err = check_mode(path, diag);
    if (err) goto out;
    err = dure_file_read(&text, path, KEY_FILE_BYTES, diag);
    if (err && err != DURE_ERR_LIMIT) goto out;
    if (err || text.n != KEY_FILE_BYTES || text.data[KEY_FILE_BYTES - 1] != '\n' ||
        !dure_ct_equal(text.data, key_file_prefix, prefix_n)) {
        err = DURE_ERR_FORMAT;
    } else {
        memcpy(hex, text.data + prefix_n, KEY_FILE_HEX);
        err = dure_hex_decode(secret, sizeof secret, hex);
    }
    if (err) {
        (void)dure_diag_set(diag, err, "%s is not a private key file of Dure", path);
        goto out;
    }
    err = dure_sign_from_secret(key, secret);
out:
    dure_wipe(secret, sizeof secret);
    dure_wipe(hex, sizeof hex);
    if (text.data) dure_wipe(text.data, text.n);
    dure_buf_fini(&text);
    return err;
}
