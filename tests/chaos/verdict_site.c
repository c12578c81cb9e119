#include "verdict.h"

#include "chaos_log.h"

#include "common/file.h"
#include "proto/messages.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LOG_MAX = 1 << 28 };

static const dure_hash nothing;

static bool is_set(const dure_hash *hash)
{
    return memcmp(hash, &nothing, sizeof nothing) != 0;
}

/* Keeps the first value; false for a second, different one. */
static bool once(dure_hash *slot, const dure_hash *value)
{
    if (!is_set(slot)) *slot = *value;
    return memcmp(slot, value, sizeof *value) == 0;
}

static dure_hash hash_of(const uint8_t bytes[32])
{
    dure_hash hash;
    memcpy(hash.b, bytes, sizeof hash.b);
    return hash;
}

static verdict_part *part_of(verdict_site *s, const uint8_t config_hash[32])
{
    for (size_t i = s->n_parts; i-- > 0;)
        if (memcmp(s->parts[i].config_hash.b, config_hash, 32) == 0) return &s->parts[i];
    verdict_part *parts = realloc(s->parts, (s->n_parts + 1) * sizeof *parts);
    if (!parts) abort();
    s->parts = parts;
    verdict_part *part = &s->parts[s->n_parts++];
    memset(part, 0, sizeof *part);
    memcpy(part->config_hash.b, config_hash, 32);
    return part;
}

const verdict_part *verdict_site_part(const verdict_site *site, const dure_hash *config_hash)
{
    for (size_t i = 0; i < site->n_parts; i++)
        if (dure_hash_equal(&site->parts[i].config_hash, config_hash)) return &site->parts[i];
    return NULL;
}

void verdict_site_fini(verdict_site *site)
{
    for (size_t i = 0; i < site->n_parts; i++)
        free(site->parts[i].units);
    free(site->parts);
    *site = (verdict_site){0};
}

/* ---- one frame ---- */

/* A mask key belongs to one round; and once its shares are out, no other takes its place. */
static const char *on_advertise(verdict_site *s, verdict_part *part, const dure_msg_advertise *r0)
{
    const dure_hash key = hash_of(r0->keys.mask_public);
    for (size_t i = 0; i < s->n_parts; i++)
        if (&s->parts[i] != part && dure_hash_equal(&s->parts[i].mask_public, &key))
            return "a mask key is used in two rounds";
    if (is_set(&part->shares) && !dure_hash_equal(&part->mask_public, &key))
        return "new keys in a round whose shares are out";
    part->mask_public = key;
    return NULL;
}

static const char *on_unmask(verdict_part *part, const dure_msg_unmask *r4, const dure_hash *frame)
{
    uint32_t kinds[DURE_MEMBERS_MAX] = {0};
    for (size_t i = 0; i < r4->n_entries; i++) {
        uint32_t *kind = &kinds[r4->entries[i].member];
        if (*kind) return "two shares of one member are revealed in one reply";
        *kind = r4->entries[i].kind;
    }
    const dure_hash t3 = hash_of(r4->t3);
    if (!once(&part->t3, &t3)) return "shares are revealed for another set of survivors";
    return once(&part->reply, frame) ? NULL : "two different replies reveal shares of one round";
}

static const char *on_frame(verdict_site *s, const dure_msg *msg, const dure_hash *frame)
{
    const uint8_t *config_hash = dure_msg_config_hash(msg);
    if (!config_hash || msg->type == DURE_MSG_HELLO || msg->type == DURE_MSG_ABORT) return NULL;
    verdict_part *part = part_of(s, config_hash);
    dure_hash value;
    switch (msg->type) {
    case DURE_MSG_ADVERTISE:
        return on_advertise(s, part, &msg->u.advertise);
    case DURE_MSG_SHARES:
        return once(&part->shares, frame) ? NULL : "two different sets of shares in one round";
    case DURE_MSG_CHUNK:
        part->left = true;
        return NULL;
    case DURE_MSG_MASKED:
        part->left = true;
        value = hash_of(msg->u.masked.root);
        return once(&part->root, &value) ? NULL : "two masked vectors in one round";
    case DURE_MSG_CONSISTENCY:
        value = hash_of(msg->u.consistency.t3);
        return once(&part->t3, &value) ? NULL : "two sets of survivors are signed in one round";
    case DURE_MSG_UNMASK:
        return on_unmask(part, &msg->u.unmask, frame);
    default:
        return NULL;
    }
}

/* ---- the log ---- */

typedef struct reading {
    verdict_site *site;
    size_t n_words;
    const dure_msg *chunk; /* the frame before was this one; NULL: no chunk */
} reading;

/* An update is masked in one round, with noise of its own: its units are never seen again. */
static const char *on_update(reading *r, dure_span record)
{
    if (record.n != 32 + r->n_words * sizeof(int32_t)) return "an update has the wrong length";
    verdict_part *part = part_of(r->site, record.data);
    int32_t *units = malloc(r->n_words * sizeof *units);
    if (!units) abort();
    memcpy(units, record.data + 32, r->n_words * sizeof *units);
    for (size_t i = 0; i < r->site->n_parts; i++) {
        const verdict_part *other = &r->site->parts[i];
        if (other->units && memcmp(other->units, units, r->n_words * sizeof *units) == 0) {
            free(units);
            return "one update is masked twice";
        }
    }
    if (part->left) {
        free(units);
        return "a second update in a round of which a vector has left";
    }
    free(part->units);
    part->units = units;
    return NULL;
}

static const char *on_payload(reading *r, dure_span record)
{
    if (!r->chunk) return NULL;
    verdict_part *part = part_of(r->site, r->chunk->u.chunk.config_hash);
    const dure_hash hash = hash_of(record.data);
    if (r->chunk->u.chunk.chunk >= 8) return "a chunk has a number past the vector's end";
    part->n_sent[r->chunk->u.chunk.chunk]++;
    return once(&part->chunks[r->chunk->u.chunk.chunk], &hash) ? NULL
                                                               : "a chunk was sent in two forms";
}

static const char *on_record(reading *r, unsigned kind, dure_span record, dure_msg **last)
{
    dure_hash frame;
    if (kind == CHAOS_UPDATE) return on_update(r, record);
    if (kind == CHAOS_PAYLOAD) return on_payload(r, record);
    dure_msg_free(last);
    r->chunk = NULL;
    if (dure_msg_decode(last, record, NULL)) return "a frame does not decode";
    if ((*last)->type == DURE_MSG_CHUNK) r->chunk = *last;
    return dure_hash_bytes(&frame, record) ? "no hash" : on_frame(r->site, *last, &frame);
}

bool verdict_site_read(verdict_site *out, const char *path, size_t n_words, char why[256])
{
    dure_buf log;
    dure_msg *last = NULL;
    const char *wrong = NULL;
    *out = (verdict_site){0};
    if (dure_file_read(&log, path, LOG_MAX, NULL)) {
        snprintf(why, 256, "%s cannot be read", path);
        return false;
    }
    reading r = {.site = out, .n_words = n_words};
    size_t at = 0;
    while (!wrong && at + 5 <= log.n) {
        const uint8_t *head = log.data + at;
        const size_t n =
            (size_t)head[1] << 24 | (size_t)head[2] << 16 | (size_t)head[3] << 8 | (size_t)head[4];
        if (n > log.n - at - 5) break;
        wrong = on_record(&r, head[0], dure_span_of(head + 5, n), &last);
        at += 5 + n;
    }
    if (!wrong && at != log.n) wrong = "its log is torn";
    if (wrong) snprintf(why, 256, "%s at byte %zu of %s", wrong, at, path);
    dure_msg_free(&last);
    dure_buf_fini(&log);
    return !wrong;
}
