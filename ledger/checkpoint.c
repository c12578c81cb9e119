#include "ledger/checkpoint.h"

#include "common/base64.h"
#include "crypto/wipe.h"

#include <stdio.h>
#include <string.h>

static const char dash[] = "\xe2\x80\x94 "; /* an em dash and a space begin a signature line */
enum { DASH_BYTES = 4, ED25519_TYPE = 1 };

void dure_checkpoint_origin(char origin[DURE_ORIGIN_SIZE], const char *federation,
                            const dure_hash *federation_id)
{
    char hex[2 * DURE_HASH_BYTES + 1];
    dure_hex_encode(hex, federation_id->b, DURE_HASH_BYTES);
    (void)snprintf(origin, DURE_ORIGIN_SIZE, "dure/%.64s/%s", federation, hex);
}

/* Key names, origins among them, must not contain what separates the parts of a line. */
static bool is_name(const char *name, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if ((uint8_t)name[i] <= 0x20 || (uint8_t)name[i] >= 0x7f || name[i] == '+') return false;
    }
    return n > 0;
}

dure_err dure_checkpoint_body(dure_buf *out, const dure_checkpoint *checkpoint)
{
    size_t n = strnlen(checkpoint->origin, DURE_ORIGIN_SIZE);
    if (n == DURE_ORIGIN_SIZE || !is_name(checkpoint->origin, n)) return DURE_ERR_USAGE;
    dure_put_format(out, "%s\n%llu\n", checkpoint->origin, (unsigned long long)checkpoint->head.n);
    dure_base64_put(out, checkpoint->head.root.b, DURE_HASH_BYTES);
    dure_put_raw(out, "\n", 1);
    return dure_buf_err(out);
}

dure_err dure_note_key_id(uint8_t key_id[4], const char *name, uint8_t type,
                          const uint8_t public_[32])
{
    uint8_t bytes[DURE_NOTE_NAME_SIZE + 1 + 1 + 32];
    size_t n = strnlen(name, DURE_NOTE_NAME_SIZE);
    dure_hash hash;
    memcpy(bytes, name, n);
    bytes[n++] = '\n';
    bytes[n++] = type;
    memcpy(bytes + n, public_, 32);
    dure_err err = dure_hash_bytes(&hash, dure_span_of(bytes, n + 32));
    memcpy(key_id, hash.b, 4);
    return err;
}

dure_err dure_note_put_line(dure_buf *note, const dure_note_line *line)
{
    uint8_t bytes[4 + DURE_NOTE_PAYLOAD_MAX];
    size_t n = strnlen(line->name, DURE_NOTE_NAME_SIZE);
    if (n == DURE_NOTE_NAME_SIZE || !is_name(line->name, n) || line->n > DURE_NOTE_PAYLOAD_MAX) {
        return DURE_ERR_USAGE;
    }
    memcpy(bytes, line->key_id, 4);
    memcpy(bytes + 4, line->payload, line->n);
    dure_put_raw(note, dash, DASH_BYTES);
    dure_put_raw(note, line->name, n);
    dure_put_raw(note, " ", 1);
    dure_base64_put(note, bytes, 4 + line->n);
    dure_put_raw(note, "\n", 1);
    return dure_buf_err(note);
}

dure_err dure_checkpoint_sign(dure_buf *note, const dure_checkpoint *checkpoint,
                              const dure_sign_key *coordinator)
{
    dure_buf body;
    dure_note_line line = {.n = DURE_SIGNATURE_BYTES};
    dure_buf_init(&body, DURE_NOTE_MAX);
    dure_err err = dure_checkpoint_body(&body, checkpoint);
    if (err) goto out;
    (void)snprintf(line.name, sizeof line.name, "%s", checkpoint->origin);
    err = dure_note_key_id(line.key_id, line.name, ED25519_TYPE, coordinator->public_);
    if (err) goto out;
    err = dure_sign_text(line.payload, coordinator, dure_buf_span(&body));
    if (err) goto out;
    dure_put_raw(note, body.data, body.n);
    dure_put_raw(note, "\n", 1);
    err = dure_note_put_line(note, &line);
out:
    dure_buf_fini(&body);
    return err;
}

/* ---- Reading ---- */

/* Takes the next line, without its newline; false when there is none. */
static bool take_line(dure_span *line, dure_reader *r)
{
    const uint8_t *end = r->n > r->at ? memchr(r->data + r->at, '\n', r->n - r->at) : NULL;
    if (!end) return false;
    *line = dure_span_of(r->data + r->at, (size_t)(end - r->data) - r->at);
    r->at += line->n + 1;
    return true;
}

static dure_err parse_origin(char *out, size_t size, dure_span line)
{
    char text[DURE_ORIGIN_SIZE];
    if (line.n >= size || line.n >= sizeof text) return DURE_ERR_FORMAT;
    memcpy(text, line.data, line.n);
    if (!is_name(text, line.n)) return DURE_ERR_FORMAT;
    memcpy(out, text, line.n);
    out[line.n] = 0;
    return DURE_OK;
}

static dure_err parse_size(uint64_t *out, dure_span line)
{
    uint64_t n = 0;
    if (line.n == 0 || line.n > 20 || (line.n > 1 && line.data[0] == '0')) return DURE_ERR_FORMAT;
    for (size_t i = 0; i < line.n; i++) {
        unsigned digit = (unsigned)line.data[i] - '0';
        if (digit > 9 || n > (UINT64_MAX - digit) / 10) return DURE_ERR_FORMAT;
        n = n * 10 + digit;
    }
    *out = n;
    return DURE_OK;
}

static dure_err parse_root(dure_hash *out, dure_span line)
{
    size_t n = 0;
    dure_err err = dure_base64_take(out->b, &n, DURE_HASH_BYTES, line);
    return err || n != DURE_HASH_BYTES ? DURE_ERR_FORMAT : DURE_OK;
}

static dure_err parse_signature(dure_note_line *out, dure_span line)
{
    uint8_t bytes[4 + DURE_NOTE_PAYLOAD_MAX];
    size_t n = 0;
    if (line.n < DASH_BYTES || !dure_ct_equal(line.data, dash, DASH_BYTES)) return DURE_ERR_FORMAT;
    dure_span rest = dure_span_of(line.data + DASH_BYTES, line.n - DASH_BYTES);
    const uint8_t *space = rest.n > 0 ? memchr(rest.data, ' ', rest.n) : NULL;
    if (!space) return DURE_ERR_FORMAT;
    size_t n_name = (size_t)(space - rest.data);
    dure_err err = parse_origin(out->name, sizeof out->name, dure_span_of(rest.data, n_name));
    if (err) return err;
    err = dure_base64_take(bytes, &n, sizeof bytes, dure_span_of(space + 1, rest.n - n_name - 1));
    /* A plain signature, or a cosignature with its time. */
    if (err || (n != 4 + 64 && n != 4 + 72)) return DURE_ERR_FORMAT;
    out->n = n - 4;
    memcpy(out->key_id, bytes, 4);
    memcpy(out->payload, bytes + 4, out->n);
    return DURE_OK;
}

dure_err dure_note_parse(dure_note *out, dure_span text, dure_diag *diag)
{
    dure_reader r = dure_reader_of(text);
    dure_span line;
    memset(out, 0, sizeof *out);
    bool whole = text.n <= DURE_NOTE_MAX && take_line(&line, &r);
    dure_err err =
        whole ? parse_origin(out->checkpoint.origin, DURE_ORIGIN_SIZE, line) : DURE_ERR_FORMAT;
    if (!err)
        err = take_line(&line, &r) ? parse_size(&out->checkpoint.head.n, line) : DURE_ERR_FORMAT;
    if (!err)
        err = take_line(&line, &r) ? parse_root(&out->checkpoint.head.root, line) : DURE_ERR_FORMAT;
    if (!err && (!take_line(&line, &r) || line.n != 0)) err = DURE_ERR_FORMAT;
    while (!err && r.at < r.n) {
        if (out->n_lines == DURE_NOTE_LINES_MAX || !take_line(&line, &r)) {
            err = DURE_ERR_FORMAT;
        } else {
            err = parse_signature(&out->lines[out->n_lines++], line);
        }
    }
    if (!err && out->n_lines == 0) err = DURE_ERR_FORMAT;
    if (err) {
        memset(out, 0, sizeof *out);
        return dure_diag_set(diag, err, "it is not a signed checkpoint: malformed at byte %zu",
                             r.at);
    }
    return DURE_OK;
}

dure_err dure_note_verify(const dure_note *note, const char *origin,
                          const uint8_t coordinator_public[32], dure_diag *diag)
{
    dure_buf body;
    uint8_t key_id[4];
    if (strcmp(note->checkpoint.origin, origin) != 0) {
        return dure_diag_set(diag, DURE_ERR_AUTH, "the checkpoint is of another log (%s, not %s)",
                             note->checkpoint.origin, origin);
    }
    dure_buf_init(&body, DURE_NOTE_MAX);
    dure_err err = dure_checkpoint_body(&body, &note->checkpoint);
    if (!err) err = dure_note_key_id(key_id, origin, ED25519_TYPE, coordinator_public);
    bool found = false;
    for (size_t i = 0; !err && !found && i < note->n_lines; i++) {
        const dure_note_line *line = &note->lines[i];
        if (line->n != DURE_SIGNATURE_BYTES || strcmp(line->name, origin) != 0 ||
            !dure_ct_equal(line->key_id, key_id, 4)) {
            continue;
        }
        found = !dure_sign_text_verify(coordinator_public, dure_buf_span(&body), line->payload);
    }
    dure_buf_fini(&body);
    if (err || found) return err;
    return dure_diag_set(diag, DURE_ERR_AUTH,
                         "the checkpoint of size %llu is not signed by the coordinator",
                         (unsigned long long)note->checkpoint.head.n);
}
