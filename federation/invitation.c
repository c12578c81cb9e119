#include "federation/invitation.h"

#include "common/base64.h"
#include "common/clock.h"
#include "common/file.h"
#include "crypto/wipe.h"

#include <string.h>

static const char label_invitation[] = "DURE/1/invitation";
static const char marker_begin[] = "-----BEGIN DURE INVITATION-----\n";
static const char marker_end[] = "-----END DURE INVITATION-----";

dure_err dure_federation_id(dure_hash *out, const uint8_t root_public[32], const char *federation)
{
    const dure_span fields[] = {dure_span_of(root_public, 32), dure_span_of_text(federation)};
    return dure_hash_labeled(out, "DURE/1/federation", fields, 2);
}

/* What the root signs: everything but the signature. */
static void put_body(dure_buf *out, const dure_invitation *inv)
{
    dure_put_u16(out, 1);
    dure_put_raw(out, inv->root_public, sizeof inv->root_public);
    dure_put_raw(out, inv->invite_public, sizeof inv->invite_public);
    dure_put_raw(out, inv->coordinator_curve, sizeof inv->coordinator_curve);
    dure_put_raw(out, inv->coordinator_sign, sizeof inv->coordinator_sign);
    dure_put_text(out, inv->name);
    dure_put_text(out, inv->organisation);
    dure_put_text(out, inv->endpoint);
    dure_put_u64(out, (uint64_t)inv->issued_s);
    dure_put_u64(out, (uint64_t)inv->expires_s);
    dure_terms_put(out, &inv->terms);
}

static dure_err check_fields(const dure_invitation *inv, dure_diag *diag)
{
    dure_err err = dure_name_check(inv->name, "the site's name", diag);
    if (!err) err = dure_name_check(inv->organisation, "the organisation", diag);
    if (err) return err;
    if (strncmp(inv->endpoint, "tcp://", 6) != 0 || strlen(inv->endpoint) < 9)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "the endpoint \"%s\" must look like tcp://HOST:PORT", inv->endpoint);
    if (inv->issued_s < 0 || inv->expires_s <= inv->issued_s)
        return dure_diag_set(diag, DURE_ERR_USAGE, "the invitation must end after it was issued");
    return dure_terms_check(&inv->terms, diag);
}

dure_err dure_invitation_sign(dure_invitation *inv, const dure_sign_key *invite,
                              const dure_sign_key *root, dure_diag *diag)
{
    memcpy(inv->root_public, root->public_, sizeof inv->root_public);
    memcpy(inv->invite_public, invite->public_, sizeof inv->invite_public);
    dure_err err = check_fields(inv, diag);
    if (err) return err;
    dure_buf body;
    dure_buf_init(&body, DURE_INVITATION_MAX_BYTES);
    put_body(&body, inv);
    err = dure_buf_err(&body);
    if (!err) err = dure_sign(inv->signature, root, label_invitation, dure_buf_span(&body));
    dure_buf_fini(&body);
    return err;
}

dure_err dure_invitation_verify(const dure_invitation *inv, const uint8_t root_public[32],
                                dure_diag *diag)
{
    if (!dure_ct_equal(inv->root_public, root_public, 32))
        return dure_diag_set(diag, DURE_ERR_AUTH,
                             "the invitation for \"%s\" is of another federation", inv->name);
    dure_err err = check_fields(inv, diag);
    if (err) return err;
    dure_buf body;
    dure_buf_init(&body, DURE_INVITATION_MAX_BYTES);
    put_body(&body, inv);
    err = dure_buf_err(&body);
    if (!err)
        err = dure_sign_verify(root_public, label_invitation, dure_buf_span(&body), inv->signature);
    dure_buf_fini(&body);
    if (err)
        return dure_diag_set(
            diag, err,
            "the invitation for \"%s\" is not signed by the federation's root key; "
            "ask the federation's admin for a new one",
            inv->name);
    return DURE_OK;
}

dure_err dure_invitation_in_time(const dure_invitation *inv, int64_t now_s, dure_diag *diag)
{
    if (now_s <= inv->expires_s) return DURE_OK;
    char when[DURE_CLOCK_TEXT_SIZE];
    dure_clock_text(when, inv->expires_s);
    return dure_diag_set(
        diag, DURE_ERR_EXPIRED,
        "the invitation for \"%s\" expired at %s; ask the federation's admin for a "
        "new one",
        inv->name, when);
}

void dure_invitation_put(dure_buf *out, const dure_invitation *inv)
{
    put_body(out, inv);
    dure_put_raw(out, inv->signature, sizeof inv->signature);
}

dure_err dure_invitation_take(dure_invitation *out, dure_reader *r, dure_diag *diag)
{
    dure_invitation inv = {0};
    uint16_t version = 0;
    uint64_t issued = 0, expires = 0;
    dure_err err = dure_take_u16(&version, r);
    if (!err && version != 1)
        return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                             "the invitation is of version %u; this program knows version 1",
                             (unsigned)version);
    if (!err) err = dure_take_copy(inv.root_public, r, sizeof inv.root_public);
    if (!err) err = dure_take_copy(inv.invite_public, r, sizeof inv.invite_public);
    if (!err) err = dure_take_copy(inv.coordinator_curve, r, sizeof inv.coordinator_curve);
    if (!err) err = dure_take_copy(inv.coordinator_sign, r, sizeof inv.coordinator_sign);
    if (!err) err = dure_take_text(inv.name, sizeof inv.name, r);
    if (!err) err = dure_take_text(inv.organisation, sizeof inv.organisation, r);
    if (!err) err = dure_take_text(inv.endpoint, sizeof inv.endpoint, r);
    if (!err) err = dure_take_u64(&issued, r);
    if (!err) err = dure_take_u64(&expires, r);
    if (err || issued > INT64_MAX || expires > INT64_MAX)
        return dure_diag_set(diag, err ? err : DURE_ERR_PROTO,
                             "the invitation is cut short or malformed");
    inv.issued_s = (int64_t)issued;
    inv.expires_s = (int64_t)expires;
    err = dure_terms_take(&inv.terms, r, diag);
    if (!err) err = dure_take_copy(inv.signature, r, sizeof inv.signature);
    if (err) return err;
    *out = inv;
    return DURE_OK;
}

/* ---- the file: base64 in lines of 64 characters ---- */

enum { LINE_BYTES = 48, DIGITS_MAX = (DURE_INVITATION_MAX_BYTES + 2) / 3 * 4 };

static void put_lines(dure_buf *out, dure_span bytes)
{
    for (size_t i = 0; i < bytes.n; i += LINE_BYTES) {
        const size_t left = bytes.n - i;
        dure_base64_put(out, bytes.data + i, left < LINE_BYTES ? left : LINE_BYTES);
        dure_put_raw(out, "\n", 1);
    }
}

/* White space is skipped, since mail programs break and indent lines as they like. */
static dure_err take_lines(uint8_t out[DURE_INVITATION_MAX_BYTES], size_t *n, dure_span lines)
{
    uint8_t digits[DIGITS_MAX];
    size_t n_digits = 0;
    dure_err err = DURE_OK;
    *n = 0;
    for (size_t i = 0; !err && i < lines.n; i++) {
        const uint8_t c = lines.data[i];
        if (c == '\n' || c == '\r' || c == ' ' || c == '\t') continue;
        if (n_digits < sizeof digits)
            digits[n_digits++] = c;
        else
            err = DURE_ERR_LIMIT;
    }
    if (!err)
        err = dure_base64_take(out, n, DURE_INVITATION_MAX_BYTES, dure_span_of(digits, n_digits));
    dure_wipe(digits, sizeof digits);
    return err;
}

static void put_heading(dure_buf *out, const dure_invitation *inv)
{
    char until[DURE_CLOCK_TEXT_SIZE];
    dure_clock_text(until, inv->expires_s);
    dure_put_format(out,
                    "Dure invitation for site %s (%s) to federation %s, until %s.\n"
                    "Whoever has this file may join once: send it as you would a password.\n",
                    inv->name, inv->organisation, inv->terms.federation, until);
}

dure_err dure_invitation_write(const char *path, const dure_invitation *inv,
                               const dure_sign_key *invite, dure_diag *diag)
{
    dure_buf bytes, text;
    dure_buf_init(&bytes, DURE_INVITATION_MAX_BYTES);
    dure_buf_init(&text, DURE_INVITATION_FILE_MAX_BYTES);
    dure_invitation_put(&bytes, inv);
    dure_put_raw(&bytes, invite->secret, sizeof invite->secret);
    dure_err err = dure_buf_err(&bytes);
    if (err) goto out;
    put_heading(&text, inv);
    dure_put_raw(&text, marker_begin, strlen(marker_begin));
    put_lines(&text, dure_buf_span(&bytes));
    dure_put_format(&text, "%s\n", marker_end);
    err = dure_buf_err(&text);
    if (err) goto out;
    if (dure_file_exists(path))
        err = dure_diag_set(diag, DURE_ERR_EXISTS, "%s exists already; choose another name with -o",
                            path);
    else
        err = dure_file_write_atomic(path, dure_buf_span(&text), 0600, diag);
out:
    if (bytes.data) dure_wipe(bytes.data, bytes.capacity);
    if (text.data) dure_wipe(text.data, text.capacity);
    dure_buf_fini(&bytes);
    dure_buf_fini(&text);
    return err;
}

/* The invitation, its private key and nothing after them. */
static dure_err take_file(dure_invitation *inv, dure_sign_key *invite, dure_span bytes,
                          dure_diag *diag)
{
    dure_reader r = dure_reader_of(bytes);
    uint8_t secret[DURE_SIGN_SECRET_BYTES] = {0};
    dure_err err = dure_invitation_take(inv, &r, diag);
    if (!err) err = dure_take_copy(secret, &r, sizeof secret);
    if (!err) err = dure_reader_end(&r);
    if (!err) err = dure_sign_from_secret(invite, secret);
    if (!err && !dure_ct_equal(invite->public_, inv->invite_public, 32))
        err = dure_diag_set(diag, DURE_ERR_AUTH, "its private key belongs to another invitation");
    if (!err) err = dure_invitation_verify(inv, inv->root_public, diag);
    dure_wipe(secret, sizeof secret);
    return err;
}

dure_err dure_invitation_parse(dure_invitation *out, dure_sign_key *invite, dure_span text,
                               const char *name, dure_diag *diag)
{
    uint8_t bytes[DURE_INVITATION_MAX_BYTES] = {0};
    size_t n = 0;
    memset(invite, 0, sizeof *invite);
    memset(out, 0, sizeof *out);
    dure_err err;
    const uint8_t *begin = memmem(text.data, text.n, marker_begin, strlen(marker_begin));
    const uint8_t *end = NULL;
    if (begin) {
        begin += strlen(marker_begin);
        end = memmem(begin, text.n - (size_t)(begin - text.data), marker_end, strlen(marker_end));
    }
    if (!end) {
        err = dure_diag_set(diag, DURE_ERR_FORMAT,
                            "%s is not an invitation: the lines %.32s and %s are missing", name,
                            "-----BEGIN DURE INVITATION-----", marker_end);
        goto out;
    }
    err = take_lines(bytes, &n, dure_span_of(begin, (size_t)(end - begin)));
    if (err) {
        err = dure_diag_set(
            diag, DURE_ERR_FORMAT,
            "%s is damaged: what stands between the marker lines is no invitation in base64", name);
        goto out;
    }
    dure_diag inner = {0};
    err = take_file(out, invite, dure_span_of(bytes, n), &inner);
    if (err)
        dure_diag_set(diag, err, "%s: %s", name,
                      inner.text[0] ? inner.text : "the invitation is cut short or malformed");
out:
    if (err) {
        dure_wipe(invite, sizeof *invite);
        memset(out, 0, sizeof *out);
    }
    dure_wipe(bytes, sizeof bytes);
    return err;
}

dure_err dure_invitation_read(dure_invitation *out, dure_sign_key *invite, const char *path,
                              dure_diag *diag)
{
    dure_buf text;
    memset(out, 0, sizeof *out);
    memset(invite, 0, sizeof *invite);
    dure_err err = dure_file_read(&text, path, DURE_INVITATION_FILE_MAX_BYTES, diag);
    if (err) return err;
    err = dure_invitation_parse(out, invite, dure_buf_span(&text), path, diag);
    dure_wipe(text.data, text.n);
    dure_buf_fini(&text);
    return err;
}
