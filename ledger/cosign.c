#include "ledger/cosign.h"

#include "crypto/wipe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COSIGNATURE_TYPE = 4, TIME_BYTES = 8 };

static dure_err message(dure_buf *out, const dure_checkpoint *checkpoint, uint64_t time_s)
{
    dure_buf_init(out, DURE_NOTE_MAX);
    dure_put_format(out, "cosignature/v1\ntime %llu\n", (unsigned long long)time_s);
    return dure_checkpoint_body(out, checkpoint);
}

dure_err dure_cosign(dure_cosignature *out, const dure_checkpoint *checkpoint, uint64_t time_s,
                     const dure_sign_key *site)
{
    dure_buf text;
    memset(out, 0, sizeof *out);
    dure_err err = message(&text, checkpoint, time_s);
    if (!err) err = dure_sign_text(out->signature, site, dure_buf_span(&text));
    if (!err) out->time_s = time_s;
    dure_buf_fini(&text);
    return err;
}

dure_err dure_cosign_verify(const dure_cosignature *cosignature, const dure_checkpoint *checkpoint,
                            const uint8_t public_[32])
{
    dure_buf text;
    dure_err err = message(&text, checkpoint, cosignature->time_s);
    if (!err) {
        err = dure_sign_text_verify(public_, dure_buf_span(&text), cosignature->signature);
    }
    dure_buf_fini(&text);
    return err;
}

dure_err dure_cosign_append(dure_buf *note, const dure_cosignature *cosignature,
                            const dure_site_key *site)
{
    dure_note_line line = {.n = TIME_BYTES + DURE_SIGNATURE_BYTES};
    (void)snprintf(line.name, sizeof line.name, "%s", site->name);
    for (size_t i = 0; i < TIME_BYTES; i++)
        line.payload[i] = (uint8_t)(cosignature->time_s >> (8 * (TIME_BYTES - 1 - i)));
    memcpy(line.payload + TIME_BYTES, cosignature->signature, DURE_SIGNATURE_BYTES);
    dure_err err = dure_note_key_id(line.key_id, site->name, COSIGNATURE_TYPE, site->sign_public);
    return err ? err : dure_note_put_line(note, &line);
}

dure_err dure_cosign_find(bool *found, dure_cosignature *out, const dure_note *note,
                          const dure_site_key *site)
{
    uint8_t key_id[4];
    *found = false;
    *out = (dure_cosignature){.time_s = 0};
    dure_err err = dure_note_key_id(key_id, site->name, COSIGNATURE_TYPE, site->sign_public);
    for (size_t i = 0; !err && !*found && i < note->n_lines; i++) {
        const dure_note_line *line = &note->lines[i];
        dure_cosignature cosignature = {.time_s = 0};
        if (line->n != TIME_BYTES + DURE_SIGNATURE_BYTES || strcmp(line->name, site->name) != 0 ||
            !dure_ct_equal(line->key_id, key_id, 4)) {
            continue;
        }
        for (size_t k = 0; k < TIME_BYTES; k++)
            cosignature.time_s = cosignature.time_s << 8 | line->payload[k];
        memcpy(cosignature.signature, line->payload + TIME_BYTES, DURE_SIGNATURE_BYTES);
        dure_err wrong = dure_cosign_verify(&cosignature, &note->checkpoint, site->sign_public);
        if (wrong && wrong != DURE_ERR_AUTH) err = wrong;
        *found = !wrong;
        if (*found) *out = cosignature;
    }
    return err;
}

/* Into times[0..n), latest first. */
static void put_time(uint64_t *times, uint32_t n, uint64_t time_s)
{
    uint32_t at = n;
    for (; at > 0 && times[at - 1] < time_s; at--)
        times[at] = times[at - 1];
    times[at] = time_s;
}

dure_err dure_cosign_count(dure_cosign_tally *out, bool *signed_by, const dure_note *note,
                           const dure_cosigners *who)
{
    *out = (dure_cosign_tally){0};
    uint64_t *times = calloc((size_t)who->n + 1, sizeof *times);
    dure_err err = times ? DURE_OK : DURE_ERR_NOMEM;
    for (uint32_t i = 0; !err && i < who->n; i++) {
        bool found = false;
        dure_cosignature one;
        err = dure_cosign_find(&found, &one, note, &who->sites[i]);
        if (signed_by) signed_by[i] = found;
        if (!err && found) put_time(times, out->n++, one.time_s);
    }
    if (err) {
        *out = (dure_cosign_tally){0};
    } else if (out->n > who->collusion) {
        out->seen_s = times[who->collusion];
    }
    free(times);
    return err;
}

bool dure_cosign_quorum(uint32_t n_cosigned, uint32_t n_sites, uint32_t collusion)
{
    return 2 * (uint64_t)n_cosigned > (uint64_t)n_sites + collusion;
}

dure_err dure_cosign_counts(bool *counts, dure_cosign_tally *tally, const dure_note *note,
                            const dure_cosigners *who)
{
    dure_cosign_tally own;
    if (!tally) tally = &own;
    dure_err err = dure_cosign_count(tally, NULL, note, who);
    *counts = !err && dure_cosign_quorum(tally->n, who->n, who->collusion);
    return err;
}
