#include "federation/roster.h"

#include "crypto/wipe.h"

#include <stdlib.h>
#include <string.h>

static const char label_join[] = "DURE/1/join";
static const char label_own[] = "DURE/1/join-own";
static const char label_revocation[] = "DURE/1/revocation";

enum { ENTRY_JOIN = 1, ENTRY_REVOKE = 2 };

typedef struct entry {
    uint8_t *bytes; /* owned */
    size_t n;
    dure_hash head; /* of the chain up to and with this entry */
} entry;

struct dure_roster {
    uint8_t root_public[32];
    dure_hash start;
    entry *entries;
    size_t n_entries;
    dure_roster_member *members;
    size_t n_members;
    uint8_t (*revoked)[32]; /* invitation keys that were taken back */
    size_t n_revoked;
};

/* ---- the join record ---- */

/* Both signatures cover the invitation as the root signed it and the record. */
static void put_signed(dure_buf *out, const dure_join *join)
{
    dure_put_u16(out, 1);
    dure_put_raw(out, join->sign_public, sizeof join->sign_public);
    dure_put_raw(out, join->curve_public, sizeof join->curve_public);
    dure_put_u64(out, join->declared.n_pub);
    dure_put_u64(out, join->declared.q_k);
    dure_put_u32(out, join->declared.batch);
    dure_put_u32(out, join->declared.sigma_num);
    dure_put_u32(out, join->declared.sigma_den);
    dure_put_raw(out, join->base_digest.b, sizeof join->base_digest.b);
}

static dure_err signed_bytes(dure_buf *out, const dure_join *join)
{
    dure_buf_init(out, DURE_ROSTER_ENTRY_MAX_BYTES);
    dure_invitation_put(out, &join->invitation);
    put_signed(out, join);
    return dure_buf_err(out);
}

/* q is L / N_pub rounded down to k / 2^64, or 1: nothing about the rate is left to choose. */
static uint64_t rate_of(uint32_t batch, uint64_t n_pub)
{
    if (batch == n_pub) return 0;
    return (uint64_t)(((unsigned __int128)batch << 64) / n_pub);
}

static dure_err check_declared(const dure_join *join, dure_diag *diag)
{
    const dure_declared *d = &join->declared;
    const char *name = join->invitation.name;
    const dure_training_terms *t = &join->invitation.terms.training;
    const bool private_ = t->privacy_mode != DURE_PRIVACY_NONE;
    if (d->n_pub == 0 || d->batch == 0 || d->batch > d->n_pub)
        return dure_diag_set(
            diag, DURE_ERR_POLICY,
            "site \"%s\" declares a batch of %u of %llu records; the batch must be "
            "from 1 to the number of records",
            name, d->batch, (unsigned long long)d->n_pub);
    if (d->q_k != rate_of(d->batch, d->n_pub))
        return dure_diag_set(
            diag, DURE_ERR_POLICY,
            "the sampling rate that site \"%s\" declares is not its batch over its "
            "records",
            name);
    /* dp/plan.h counts the noise multiplier in 1/65536. */
    if (private_ ? d->sigma_num == 0 || d->sigma_den != 65536
                 : d->sigma_num != 0 || d->sigma_den != 1)
        return dure_diag_set(diag, DURE_ERR_POLICY,
                             "the noise that site \"%s\" declares does not fit the federation's "
                             "privacy mode",
                             name);
    /* Shares add up to what each site counts on only if they are all alike. */
    if (t->privacy_mode == DURE_PRIVACY_CLIENT && d->sigma_num != t->sigma_num)
        return dure_diag_set(diag, DURE_ERR_POLICY,
                             "site \"%s\" declares another noise than the terms, and where sites "
                             "are protected all share the same",
                             name);
    return DURE_OK;
}

dure_err dure_join_sign(dure_join *join, const dure_sign_key *invite, const dure_sign_key *own,
                        dure_diag *diag)
{
    memcpy(join->sign_public, own->public_, sizeof join->sign_public);
    dure_err err = check_declared(join, diag);
    if (err) return err;
    dure_buf body;
    err = signed_bytes(&body, join);
    const dure_span span = dure_buf_span(&body);
    if (!err) err = dure_sign(join->invite_signature, invite, label_join, span);
    if (!err) err = dure_sign(join->own_signature, own, label_own, span);
    dure_buf_fini(&body);
    return err;
}

dure_err dure_join_verify(const dure_join *join, const uint8_t root_public[32], dure_diag *diag)
{
    const dure_invitation *inv = &join->invitation;
    dure_err err = dure_invitation_verify(inv, root_public, diag);
    if (err) return err;
    dure_buf body;
    err = signed_bytes(&body, join);
    const dure_span span = dure_buf_span(&body);
    if (!err) err = dure_sign_verify(inv->invite_public, label_join, span, join->invite_signature);
    if (!err) err = dure_sign_verify(join->sign_public, label_own, span, join->own_signature);
    dure_buf_fini(&body);
    if (err)
        return dure_diag_set(
            diag, err,
            "the join record of site \"%s\" is not signed with its invitation's key "
            "and its own",
            inv->name);
    if (!dure_hash_equal(&join->base_digest, &inv->terms.base.digest))
        return dure_diag_set(diag, DURE_ERR_POLICY,
                             "site \"%s\" has another base model than the federation's", inv->name);
    return check_declared(join, diag);
}

void dure_join_put(dure_buf *out, const dure_join *join)
{
    put_signed(out, join);
    dure_put_raw(out, join->invite_signature, sizeof join->invite_signature);
    dure_put_raw(out, join->own_signature, sizeof join->own_signature);
}

/* Leaves out->invitation as it is. */
static dure_err take_join(dure_join *out, dure_reader *r, dure_diag *diag)
{
    dure_join join = {.invitation = out->invitation};
    uint16_t version = 0;
    dure_err err = dure_take_u16(&version, r);
    if (!err && version != 1) err = DURE_ERR_UNSUPPORTED;
    if (!err) err = dure_take_copy(join.sign_public, r, sizeof join.sign_public);
    if (!err) err = dure_take_copy(join.curve_public, r, sizeof join.curve_public);
    if (!err) err = dure_take_u64(&join.declared.n_pub, r);
    if (!err) err = dure_take_u64(&join.declared.q_k, r);
    if (!err) err = dure_take_u32(&join.declared.batch, r);
    if (!err) err = dure_take_u32(&join.declared.sigma_num, r);
    if (!err) err = dure_take_u32(&join.declared.sigma_den, r);
    if (!err) err = dure_take_copy(join.base_digest.b, r, sizeof join.base_digest.b);
    if (!err) err = dure_take_copy(join.invite_signature, r, sizeof join.invite_signature);
    if (!err) err = dure_take_copy(join.own_signature, r, sizeof join.own_signature);
    if (err) return dure_diag_set(diag, err, "the join record is cut short or malformed");
    *out = join;
    return DURE_OK;
}

dure_err dure_join_decode(dure_join *out, dure_span invitation, dure_span record, dure_diag *diag)
{
    dure_join join = {0};
    dure_reader r = dure_reader_of(invitation);
    dure_err err = dure_invitation_take(&join.invitation, &r, diag);
    if (err) return err;
    err = dure_reader_end(&r);
    if (err) return dure_diag_set(diag, err, "there are bytes after the invitation");
    r = dure_reader_of(record);
    err = take_join(&join, &r, diag);
    if (err) return err;
    err = dure_reader_end(&r);
    if (err) return dure_diag_set(diag, err, "there are bytes after the join record");
    *out = join;
    return DURE_OK;
}

/* ---- revocations ---- */

static dure_err revocation_bytes(dure_buf *out, const dure_revocation *revocation,
                                 const uint8_t root_public[32])
{
    dure_buf_init(out, 256);
    dure_put_raw(out, root_public, 32);
    dure_put_raw(out, revocation->invite_public, sizeof revocation->invite_public);
    dure_put_u64(out, (uint64_t)revocation->revoked_s);
    return dure_buf_err(out);
}

dure_err dure_revocation_sign(dure_revocation *revocation, const dure_sign_key *root)
{
    dure_buf body;
    dure_err err = revocation_bytes(&body, revocation, root->public_);
    if (!err) err = dure_sign(revocation->signature, root, label_revocation, dure_buf_span(&body));
    dure_buf_fini(&body);
    return err;
}

static dure_err verify_revocation(const dure_revocation *revocation, const uint8_t root_public[32],
                                  dure_diag *diag)
{
    dure_buf body;
    dure_err err = revocation_bytes(&body, revocation, root_public);
    if (!err)
        err = dure_sign_verify(root_public, label_revocation, dure_buf_span(&body),
                               revocation->signature);
    dure_buf_fini(&body);
    if (err)
        return dure_diag_set(diag, err, "a revocation is not signed by the federation's root key");
    return DURE_OK;
}

void dure_revocation_put(dure_buf *out, const dure_revocation *revocation)
{
    dure_put_raw(out, revocation->invite_public, sizeof revocation->invite_public);
    dure_put_u64(out, (uint64_t)revocation->revoked_s);
    dure_put_raw(out, revocation->signature, sizeof revocation->signature);
}

dure_err dure_revocation_take(dure_revocation *out, dure_reader *r)
{
    dure_revocation revocation = {0};
    uint64_t revoked = 0;
    dure_err err = dure_take_copy(revocation.invite_public, r, sizeof revocation.invite_public);
    if (!err) err = dure_take_u64(&revoked, r);
    if (!err && revoked > INT64_MAX) err = DURE_ERR_PROTO;
    if (!err) err = dure_take_copy(revocation.signature, r, sizeof revocation.signature);
    if (err) return err;
    revocation.revoked_s = (int64_t)revoked;
    *out = revocation;
    return DURE_OK;
}

/* ---- the chain ---- */

dure_err dure_roster_new(dure_roster **out, const uint8_t root_public[32])
{
    *out = NULL;
    dure_roster *roster = calloc(1, sizeof *roster);
    if (!roster) return DURE_ERR_NOMEM;
    memcpy(roster->root_public, root_public, 32);
    const dure_span field = dure_span_of(root_public, 32);
    dure_err err = dure_hash_labeled(&roster->start, "DURE/1/roster", &field, 1);
    if (err) {
        free(roster);
        return err;
    }
    *out = roster;
    return DURE_OK;
}

void dure_roster_free(dure_roster **roster)
{
    if (!roster || !*roster) return;
    for (size_t i = 0; i < (*roster)->n_entries; i++)
        free((*roster)->entries[i].bytes);
    free((*roster)->entries);
    free((*roster)->members);
    free((*roster)->revoked);
    free(*roster);
    *roster = NULL;
}

dure_hash dure_roster_head(const dure_roster *roster)
{
    return roster->n_entries ? roster->entries[roster->n_entries - 1].head : roster->start;
}

/* Room for one more of each, so that what follows the checks cannot fail half-way. */
static dure_err make_room(dure_roster *roster, dure_diag *diag)
{
    if (roster->n_entries >= DURE_ROSTER_MAX_ENTRIES)
        return dure_diag_set(diag, DURE_ERR_LIMIT, "the roster is full: %d entries",
                             DURE_ROSTER_MAX_ENTRIES);
    entry *entries = realloc(roster->entries, (roster->n_entries + 1) * sizeof *entries);
    if (!entries) return DURE_ERR_NOMEM;
    roster->entries = entries;
    dure_roster_member *members =
        realloc(roster->members, (roster->n_members + 1) * sizeof *members);
    if (!members) return DURE_ERR_NOMEM;
    roster->members = members;
    uint8_t(*revoked)[32] = realloc(roster->revoked, (roster->n_revoked + 1) * sizeof *revoked);
    if (!revoked) return DURE_ERR_NOMEM;
    roster->revoked = revoked;
    return DURE_OK;
}

/* Links the bytes to the chain; they become the roster's. */
static dure_err link_entry(dure_roster *roster, dure_buf *bytes)
{
    dure_err err = dure_buf_err(bytes);
    if (err) return err;
    const dure_hash before = dure_roster_head(roster);
    const dure_span fields[] = {dure_hash_span(&before), dure_buf_span(bytes)};
    entry *e = &roster->entries[roster->n_entries];
    err = dure_hash_labeled(&e->head, "DURE/1/roster-entry", fields, 2);
    if (err) return err;
    e->bytes = bytes->data;
    e->n = bytes->n;
    bytes->data = NULL;
    roster->n_entries++;
    return DURE_OK;
}

static bool invitation_revoked(const dure_roster *roster, const uint8_t invite_public[32])
{
    for (size_t i = 0; i < roster->n_revoked; i++)
        if (dure_ct_equal(roster->revoked[i], invite_public, 32)) return true;
    return false;
}

bool dure_roster_invitation_used(const dure_roster *roster, const uint8_t invite_public[32])
{
    for (size_t i = 0; i < roster->n_members; i++)
        if (dure_ct_equal(roster->members[i].join.invitation.invite_public, invite_public, 32))
            return true;
    return false;
}

/* What the chain itself has against a join whose signatures are right. */
static dure_err check_place(const dure_roster *roster, const dure_join *join, dure_diag *diag)
{
    const dure_invitation *inv = &join->invitation;
    if (invitation_revoked(roster, inv->invite_public))
        return dure_diag_set(diag, DURE_ERR_POLICY, "the invitation for \"%s\" was revoked",
                             inv->name);
    if (dure_roster_invitation_used(roster, inv->invite_public))
        return dure_diag_set(diag, DURE_ERR_EXISTS,
                             "the invitation for \"%s\" was used already; it works once: ask the "
                             "federation's admin for a new one",
                             inv->name);
    if (dure_roster_in_force(roster) >= DURE_MEMBERS_MAX)
        return dure_diag_set(diag, DURE_ERR_LIMIT,
                             "%d sites are in force, the most that a federation takes; revoke one "
                             "before \"%s\" can join",
                             DURE_MEMBERS_MAX, inv->name);
    for (size_t i = 0; i < roster->n_members; i++) {
        const dure_roster_member *m = &roster->members[i];
        /* A key that was ever in the chain is not taken again, revoked or not. */
        if (dure_ct_equal(m->join.sign_public, join->sign_public, 32) ||
            dure_ct_equal(m->join.curve_public, join->curve_public, 32))
            return dure_diag_set(diag, DURE_ERR_EXISTS,
                                 "the keys of site \"%s\" are in the roster already; join with new "
                                 "keys in a new directory",
                                 inv->name);
        if (!m->revoked && strcmp(m->join.invitation.name, inv->name) == 0)
            return dure_diag_set(
                diag, DURE_ERR_EXISTS,
                "the name \"%s\" is taken by a site of the federation; revoke that "
                "one first",
                inv->name);
    }
    return DURE_OK;
}

dure_err dure_roster_add(dure_roster *roster, const dure_join *join, int64_t joined_s,
                         dure_diag *diag)
{
    dure_err err = dure_join_verify(join, roster->root_public, diag);
    if (!err) err = dure_invitation_in_time(&join->invitation, joined_s, diag);
    if (!err) err = check_place(roster, join, diag);
    if (!err) err = make_room(roster, diag);
    if (err) return err;
    dure_buf bytes, part;
    dure_buf_init(&bytes, DURE_ROSTER_ENTRY_MAX_BYTES);
    dure_buf_init(&part, DURE_INVITATION_MAX_BYTES);
    dure_put_u8(&bytes, ENTRY_JOIN);
    dure_put_u64(&bytes, (uint64_t)joined_s);
    dure_invitation_put(&part, &join->invitation);
    err = dure_buf_err(&part);
    dure_put_bytes(&bytes, part.data, part.n);
    dure_join_put(&bytes, join);
    if (!err) err = link_entry(roster, &bytes);
    if (!err)
        roster->members[roster->n_members++] =
            (dure_roster_member){.join = *join, .joined_s = joined_s};
    dure_buf_fini(&part);
    dure_buf_fini(&bytes);
    return err;
}

dure_err dure_roster_revoke(dure_roster *roster, const dure_revocation *revocation, dure_diag *diag)
{
    dure_err err = verify_revocation(revocation, roster->root_public, diag);
    if (err) return err;
    if (invitation_revoked(roster, revocation->invite_public))
        return dure_diag_set(diag, DURE_ERR_EXISTS, "this invitation was revoked already");
    err = make_room(roster, diag);
    if (err) return err;
    dure_buf bytes;
    dure_buf_init(&bytes, DURE_ROSTER_ENTRY_MAX_BYTES);
    dure_put_u8(&bytes, ENTRY_REVOKE);
    dure_revocation_put(&bytes, revocation);
    err = link_entry(roster, &bytes);
    dure_buf_fini(&bytes);
    if (err) return err;
    memcpy(roster->revoked[roster->n_revoked++], revocation->invite_public, 32);
    for (size_t i = 0; i < roster->n_members; i++) {
        dure_roster_member *m = &roster->members[i];
        if (dure_ct_equal(m->join.invitation.invite_public, revocation->invite_public, 32))
            m->revoked = true;
    }
    return DURE_OK;
}

static dure_err append_join(dure_roster *roster, dure_reader *r, dure_diag *diag)
{
    uint64_t joined = 0;
    dure_span invitation;
    dure_err err = dure_take_u64(&joined, r);
    if (!err) err = dure_take_bytes(&invitation, r, DURE_INVITATION_MAX_BYTES);
    if (!err && joined > INT64_MAX) err = DURE_ERR_PROTO;
    if (err) return dure_diag_set(diag, err, "a roster entry is cut short or malformed");
    dure_join join;
    const dure_span record = dure_span_of(r->data + r->at, r->n - r->at);
    err = dure_join_decode(&join, invitation, record, diag);
    return err ? err : dure_roster_add(roster, &join, (int64_t)joined, diag);
}

dure_err dure_roster_append(dure_roster *roster, dure_span bytes, dure_diag *diag)
{
    dure_reader r = dure_reader_of(bytes);
    uint8_t kind = 0;
    dure_err err = bytes.n > DURE_ROSTER_ENTRY_MAX_BYTES ? DURE_ERR_LIMIT : dure_take_u8(&kind, &r);
    if (err) return dure_diag_set(diag, err, "a roster entry is empty or too long");
    if (kind == ENTRY_JOIN) return append_join(roster, &r, diag);
    if (kind != ENTRY_REVOKE)
        return dure_diag_set(diag, DURE_ERR_PROTO, "a roster entry is of unknown kind %u",
                             (unsigned)kind);
    dure_revocation revocation;
    err = dure_revocation_take(&revocation, &r);
    if (!err) err = dure_reader_end(&r);
    if (err) return dure_diag_set(diag, err, "a revocation is cut short or malformed");
    return dure_roster_revoke(roster, &revocation, diag);
}

dure_err dure_roster_encode(dure_buf *out, const dure_roster *roster)
{
    dure_put_u16(out, 1);
    dure_put_u32(out, (uint32_t)roster->n_entries);
    for (size_t i = 0; i < roster->n_entries; i++)
        dure_put_bytes(out, roster->entries[i].bytes, roster->entries[i].n);
    return dure_buf_err(out);
}

dure_err dure_roster_parse(dure_roster **out, const uint8_t root_public[32], dure_span bytes,
                           dure_diag *diag)
{
    dure_roster *roster = NULL;
    dure_reader r = dure_reader_of(bytes);
    uint16_t version = 0;
    uint32_t n = 0;
    *out = NULL;
    dure_err err = dure_take_u16(&version, &r);
    if (!err) err = dure_take_u32(&n, &r);
    if (!err && version != 1) err = DURE_ERR_UNSUPPORTED;
    if (!err && n > DURE_ROSTER_MAX_ENTRIES) err = DURE_ERR_LIMIT;
    if (err) return dure_diag_set(diag, err, "the roster is cut short or malformed");
    err = dure_roster_new(&roster, root_public);
    for (uint32_t i = 0; !err && i < n; i++) {
        dure_span one;
        err = dure_take_bytes(&one, &r, DURE_ROSTER_ENTRY_MAX_BYTES);
        if (err)
            dure_diag_set(diag, err, "the roster is cut short or malformed");
        else
            err = dure_roster_append(roster, one, diag);
        if (err) dure_diag_prefix(diag, err, "roster entry %u", i);
    }
    if (!err) err = dure_reader_end(&r);
    if (err) dure_roster_free(&roster);
    *out = roster;
    return err;
}

/* ---- questions ---- */

dure_span dure_roster_entry(const dure_roster *roster, size_t i)
{
    DURE_ASSERT(i < roster->n_entries);
    return dure_span_of(roster->entries[i].bytes, roster->entries[i].n);
}

const uint8_t *dure_roster_root(const dure_roster *roster)
{
    return roster->root_public;
}

size_t dure_roster_entries(const dure_roster *roster)
{
    return roster->n_entries;
}

dure_err dure_roster_extends(const dure_roster *roster, size_t n_entries, const dure_hash *head,
                             dure_diag *diag)
{
    const dure_hash *there = n_entries == 0                   ? &roster->start
                             : n_entries <= roster->n_entries ? &roster->entries[n_entries - 1].head
                                                              : NULL;
    if (there && dure_hash_equal(there, head)) return DURE_OK;
    return dure_diag_set(
        diag, DURE_ERR_AUTH,
        "the roster of %zu entries does not extend the version of %zu entries seen "
        "before: the coordinator shows another history",
        roster->n_entries, n_entries);
}

size_t dure_roster_count(const dure_roster *roster)
{
    return roster->n_members;
}

const dure_roster_member *dure_roster_at(const dure_roster *roster, size_t i)
{
    return i < roster->n_members ? &roster->members[i] : NULL;
}

const dure_roster_member *dure_roster_by_sign(const dure_roster *roster, const uint8_t sign[32])
{
    for (size_t i = 0; i < roster->n_members; i++) {
        const dure_roster_member *m = &roster->members[i];
        if (!m->revoked && dure_ct_equal(m->join.sign_public, sign, 32)) return m;
    }
    return NULL;
}

const dure_roster_member *dure_roster_by_name(const dure_roster *roster, const char *name)
{
    for (size_t i = 0; i < roster->n_members; i++) {
        const dure_roster_member *m = &roster->members[i];
        if (!m->revoked && strcmp(m->join.invitation.name, name) == 0) return m;
    }
    return NULL;
}

size_t dure_roster_in_force(const dure_roster *roster)
{
    size_t n = 0;
    for (size_t i = 0; i < roster->n_members; i++)
        n += !roster->members[i].revoked;
    return n;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const dure_site_key *)a)->name, ((const dure_site_key *)b)->name);
}

uint32_t dure_roster_sites(dure_site_key sites[DURE_MEMBERS_MAX], const dure_roster *roster)
{
    uint32_t n = 0;
    for (size_t i = 0; i < roster->n_members; i++) {
        const dure_roster_member *m = &roster->members[i];
        if (m->revoked) continue;
        DURE_ASSERT(n < DURE_MEMBERS_MAX);
        memcpy(sites[n].name, m->join.invitation.name, sizeof sites[n].name);
        memcpy(sites[n++].sign_public, m->join.sign_public, sizeof sites[0].sign_public);
    }
    if (n) qsort(sites, n, sizeof *sites, by_name);
    return n;
}

void dure_roster_describe(dure_member *out, const dure_roster_member *member)
{
    const dure_join *join = &member->join;
    *out = (dure_member){.n_pub = join->declared.n_pub,
                         .q_k = join->declared.q_k,
                         .batch = join->declared.batch,
                         .sigma_num = join->declared.sigma_num,
                         .sigma_den = join->declared.sigma_den};
    memcpy(out->name, join->invitation.name, sizeof out->name);
    memcpy(out->organisation, join->invitation.organisation, sizeof out->organisation);
    memcpy(out->sign_public, join->sign_public, sizeof out->sign_public);
    memcpy(out->curve_public, join->curve_public, sizeof out->curve_public);
}
