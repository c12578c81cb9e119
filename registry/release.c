#include "registry/release.h"

#include "common/clock.h"
#include "common/file.h"

#include <stdbool.h>
#include <string.h>

#define CERTIFICATE_LABEL "dure/1/release-certificate"
#define RELEASE_LABEL "dure/1/release"
#define SIGNED_BYTES (DURE_RELEASE_CERTIFICATE_BYTES - DURE_SIGNATURE_BYTES)

void dure_release_certificate_encode(uint8_t bytes[DURE_RELEASE_CERTIFICATE_BYTES],
                                     const dure_release_certificate *certificate)
{
    dure_buf buf;
    dure_buf_init(&buf, DURE_RELEASE_CERTIFICATE_BYTES);
    dure_put_raw(&buf, certificate->root_public, DURE_SIGN_PUBLIC_BYTES);
    dure_put_raw(&buf, certificate->release_public, DURE_SIGN_PUBLIC_BYTES);
    dure_put_u64(&buf, (uint64_t)certificate->issued_s);
    dure_put_u64(&buf, (uint64_t)certificate->expires_s);
    dure_put_raw(&buf, certificate->signature, DURE_SIGNATURE_BYTES);
    /* Out of memory leaves zeros, which no signature verifies over. */
    memset(bytes, 0, DURE_RELEASE_CERTIFICATE_BYTES);
    if (!dure_buf_err(&buf)) memcpy(bytes, buf.data, DURE_RELEASE_CERTIFICATE_BYTES);
    dure_buf_fini(&buf);
}

void dure_release_certificate_decode(dure_release_certificate *out,
                                     const uint8_t bytes[DURE_RELEASE_CERTIFICATE_BYTES])
{
    dure_reader r = dure_reader_of(dure_span_of(bytes, DURE_RELEASE_CERTIFICATE_BYTES));
    uint64_t issued = 0, expires = 0;
    *out = (dure_release_certificate){0};
    bool bad = dure_take_copy(out->root_public, &r, DURE_SIGN_PUBLIC_BYTES) ||
               dure_take_copy(out->release_public, &r, DURE_SIGN_PUBLIC_BYTES) ||
               dure_take_u64(&issued, &r) || dure_take_u64(&expires, &r) ||
               dure_take_copy(out->signature, &r, DURE_SIGNATURE_BYTES);
    DURE_ASSERT(!bad); /* the length is fixed and every bit pattern is a value */
    out->issued_s = (int64_t)issued;
    out->expires_s = (int64_t)expires;
}

dure_err dure_release_certify(dure_release_certificate *out, const dure_sign_key *root,
                              const uint8_t release_public[DURE_SIGN_PUBLIC_BYTES],
                              int64_t issued_s, int64_t expires_s)
{
    uint8_t bytes[DURE_RELEASE_CERTIFICATE_BYTES];
    *out = (dure_release_certificate){0};
    if (issued_s >= expires_s) return DURE_ERR_USAGE;
    memcpy(out->root_public, root->public_, DURE_SIGN_PUBLIC_BYTES);
    memcpy(out->release_public, release_public, DURE_SIGN_PUBLIC_BYTES);
    out->issued_s = issued_s;
    out->expires_s = expires_s;
    dure_release_certificate_encode(bytes, out);
    return dure_sign(out->signature, root, CERTIFICATE_LABEL, dure_span_of(bytes, SIGNED_BYTES));
}

dure_err dure_release_certificate_verify(const dure_release_certificate *certificate,
                                         const uint8_t root_public[DURE_SIGN_PUBLIC_BYTES],
                                         dure_diag *diag)
{
    uint8_t bytes[DURE_RELEASE_CERTIFICATE_BYTES];
    dure_release_certificate_encode(bytes, certificate);
    if (memcmp(certificate->root_public, root_public, DURE_SIGN_PUBLIC_BYTES) != 0)
        return dure_diag_set(diag, DURE_ERR_AUTH,
                             "the release certificate is of another federation's root key");
    if (dure_sign_verify(root_public, CERTIFICATE_LABEL, dure_span_of(bytes, SIGNED_BYTES),
                         certificate->signature))
        return dure_diag_set(diag, DURE_ERR_AUTH,
                             "the root's signature on the release certificate does not hold");
    return DURE_OK;
}

dure_err dure_release_certificate_write(const char *path,
                                        const dure_release_certificate *certificate,
                                        dure_diag *diag)
{
    uint8_t bytes[DURE_RELEASE_CERTIFICATE_BYTES];
    dure_release_certificate_encode(bytes, certificate);
    return dure_file_write_atomic(path, dure_span_of(bytes, sizeof bytes), 0644, diag);
}

dure_err dure_release_certificate_read(dure_release_certificate *out, const char *path,
                                       dure_diag *diag)
{
    dure_buf bytes = {0};
    *out = (dure_release_certificate){0};
    dure_err err = dure_file_read(&bytes, path, DURE_RELEASE_CERTIFICATE_BYTES, diag);
    if (!err && bytes.n != DURE_RELEASE_CERTIFICATE_BYTES)
        err = dure_diag_set(diag, DURE_ERR_FORMAT,
                            "%s has %zu bytes, a release certificate has %d; copy it again from "
                            "where 'dure init' wrote it",
                            path, bytes.n, DURE_RELEASE_CERTIFICATE_BYTES);
    if (!err) dure_release_certificate_decode(out, bytes.data);
    dure_buf_fini(&bytes);
    return err;
}

static dure_err encode_release(dure_buf *buf, const dure_release *release)
{
    dure_buf_init(buf, 256);
    dure_put_raw(buf, release->adapter.b, DURE_HASH_BYTES);
    dure_put_raw(buf, release->base.b, DURE_HASH_BYTES);
    dure_put_u64(buf, release->number);
    dure_put_u64(buf, release->round);
    dure_put_u64(buf, release->ledger_index);
    dure_put_u64(buf, (uint64_t)release->signed_s);
    return dure_buf_err(buf);
}

static dure_err in_time(const dure_release *release, const dure_release_certificate *certificate,
                        dure_diag *diag)
{
    char until[DURE_CLOCK_TEXT_SIZE], at[DURE_CLOCK_TEXT_SIZE];
    if (release->signed_s >= certificate->issued_s && release->signed_s < certificate->expires_s)
        return DURE_OK;
    dure_clock_text(until, certificate->expires_s);
    dure_clock_text(at, release->signed_s);
    return dure_diag_set(diag, DURE_ERR_EXPIRED,
                         "the release key is certified until %s and cannot sign at %s; have the "
                         "root certify a new one",
                         until, at);
}

dure_err dure_release_sign(uint8_t signature[DURE_SIGNATURE_BYTES], const dure_release *release,
                           const dure_sign_key *key, const dure_release_certificate *certificate,
                           dure_diag *diag)
{
    dure_buf bytes = {0};
    memset(signature, 0, DURE_SIGNATURE_BYTES);
    if (memcmp(key->public_, certificate->release_public, DURE_SIGN_PUBLIC_BYTES) != 0)
        return dure_diag_set(diag, DURE_ERR_AUTH,
                             "the release key is not the one that the root certified");
    dure_err err = in_time(release, certificate, diag);
    if (err) return err;
    err = encode_release(&bytes, release);
    if (!err) err = dure_sign(signature, key, RELEASE_LABEL, dure_buf_span(&bytes));
    if (err) dure_diag_set(diag, err, "the release could not be signed: %s", dure_err_text(err));
    dure_buf_fini(&bytes);
    return err;
}

dure_err dure_release_verify(const dure_release *release,
                             const uint8_t signature[DURE_SIGNATURE_BYTES],
                             const dure_release_certificate *certificate,
                             const uint8_t root_public[DURE_SIGN_PUBLIC_BYTES], dure_diag *diag)
{
    dure_buf bytes = {0};
    dure_err err = dure_release_certificate_verify(certificate, root_public, diag);
    if (!err) err = in_time(release, certificate, diag);
    if (err) return err;
    err = encode_release(&bytes, release);
    if (!err)
        err = dure_sign_verify(certificate->release_public, RELEASE_LABEL, dure_buf_span(&bytes),
                               signature);
    if (err) dure_diag_set(diag, err, "the release signature does not match the version's record");
    dure_buf_fini(&bytes);
    return err;
}
