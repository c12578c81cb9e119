#include "client/site.h"

#include "crypto/wipe.h"
#include "federation/plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STATE_VERSION 4 /* 2: without result_index; 3: without proven */
#define STATE_OLDEST 2
#define STATE_MAX_BYTES (256u * 1024)

char *dure_site_path(const dure_site *site, const char *name)
{
    return dure_path_join(site->dir, name);
}

/* Runs f(path) for DIR/name; what every reader and writer below needs. */
static dure_err with_path(char **path, const char *dir, const char *name)
{
    *path = dure_path_join(dir, name);
    return *path ? DURE_OK : DURE_ERR_NOMEM;
}

static bool has(const char *dir, const char *name)
{
    char *path = dure_path_join(dir, name);
    bool there = path && dure_file_exists(path);
    free(path);
    return there;
}

bool dure_site_there(const char *dir)
{
    return has(dir, DURE_SITE_YAML) && has(dir, "keys/sign.key");
}

/* ---- state ---- */

_Static_assert(DURE_MEMBERS_MAX <= 128, "a federation's members fit two words");

static void put_members(dure_buf *out, const dure_members *set)
{
    dure_put_u64(out, set->word[0]);
    dure_put_u64(out, set->word[1]);
}

static dure_err take_members(dure_members *out, dure_reader *r)
{
    dure_err err = dure_take_u64(&out->word[0], r);
    return err ? err : dure_take_u64(&out->word[1], r);
}

static void put_state(dure_buf *out, const dure_site_state *s)
{
    dure_put_text(out, "DURE/1/site-state");
    dure_put_u32(out, STATE_VERSION);
    dure_put_u8(out, s->joined);
    dure_put_u64(out, s->declared.n_pub);
    dure_put_u64(out, s->declared.q_k);
    dure_put_u32(out, s->declared.batch);
    dure_put_u32(out, s->declared.sigma_num);
    dure_put_u32(out, s->declared.sigma_den);
    dure_put_u8(out, s->reserved);
    dure_put_raw(out, s->reservation.b, sizeof s->reservation.b);
    dure_put_u64(out, s->steps_used);
    dure_put_u64(out, s->last_round);
    dure_put_u64(out, s->rounds_done);
    dure_put_u64(out, s->signed_round);
    dure_put_raw(out, s->signed_t3.b, sizeof s->signed_t3.b);
    dure_put_raw(out, s->round_hash.b, sizeof s->round_hash.b);
    dure_put_bytes(out, s->round_config.data, s->round_config.n);
    dure_put_bytes(out, s->reply.data, s->reply.n);
    put_members(out, &s->round_u2);
    put_members(out, &s->round_u3);
    dure_put_raw(out, s->result_t3.b, sizeof s->result_t3.b);
    dure_put_raw(out, s->result_adapter.b, sizeof s->result_adapter.b);
    dure_put_u64(out, s->ledger_entries);
    dure_put_raw(out, s->ledger_head.b, sizeof s->ledger_head.b);
    dure_put_u64(out, s->result_index);
    dure_put_u64(out, s->proven);
}

static dure_err take_flag(bool *out, dure_reader *r)
{
    uint8_t value = 0;
    dure_err err = dure_take_u8(&value, r);
    if (!err && value > 1) err = DURE_ERR_PROTO;
    *out = value == 1;
    return err;
}

static dure_err take_declared(dure_declared *d, dure_reader *r)
{
    dure_err err = dure_take_u64(&d->n_pub, r);
    if (!err) err = dure_take_u64(&d->q_k, r);
    if (!err) err = dure_take_u32(&d->batch, r);
    if (!err) err = dure_take_u32(&d->sigma_num, r);
    if (!err) err = dure_take_u32(&d->sigma_den, r);
    return err;
}

static dure_err take_kept(dure_buf *out, dure_reader *r, size_t limit)
{
    dure_span bytes;
    dure_err err = dure_take_bytes(&bytes, r, limit);
    dure_buf_init(out, limit);
    if (!err) dure_put_raw(out, bytes.data, bytes.n);
    return err ? err : dure_buf_err(out);
}

static dure_err take_state(dure_site_state *s, uint32_t *version, dure_reader *r)
{
    char label[32];
    dure_err err = dure_take_text(label, sizeof label, r);
    if (!err) err = dure_take_u32(version, r);
    if (!err && (strcmp(label, "DURE/1/site-state") != 0 || *version < STATE_OLDEST ||
                 *version > STATE_VERSION)) {
        return DURE_ERR_UNSUPPORTED;
    }
    if (!err) err = take_flag(&s->joined, r);
    if (!err) err = take_declared(&s->declared, r);
    if (!err) err = take_flag(&s->reserved, r);
    if (!err) err = dure_take_copy(s->reservation.b, r, sizeof s->reservation.b);
    if (!err) err = dure_take_u64(&s->steps_used, r);
    if (!err) err = dure_take_u64(&s->last_round, r);
    if (!err) err = dure_take_u64(&s->rounds_done, r);
    if (!err) err = dure_take_u64(&s->signed_round, r);
    if (!err) err = dure_take_copy(s->signed_t3.b, r, sizeof s->signed_t3.b);
    if (!err) err = dure_take_copy(s->round_hash.b, r, sizeof s->round_hash.b);
    if (!err) err = take_kept(&s->round_config, r, DURE_CONFIG_BYTES_MAX);
    if (!err) err = take_kept(&s->reply, r, DURE_SITE_REPLY_MAX);
    if (!err) err = take_members(&s->round_u2, r);
    if (!err) err = take_members(&s->round_u3, r);
    if (!err) err = dure_take_copy(s->result_t3.b, r, sizeof s->result_t3.b);
    if (!err) err = dure_take_copy(s->result_adapter.b, r, sizeof s->result_adapter.b);
    if (!err) err = dure_take_u64(&s->ledger_entries, r);
    if (!err) err = dure_take_copy(s->ledger_head.b, r, sizeof s->ledger_head.b);
    if (!err && *version >= 3) err = dure_take_u64(&s->result_index, r);
    /* An older one took every result that it knew for right. */
    s->proven = s->result_index ? s->result_index + 1 : 0;
    if (!err && *version >= 4) err = dure_take_u64(&s->proven, r);
    return err ? err : dure_reader_end(r);
}

dure_err dure_site_save_state(const dure_site *site, dure_diag *diag)
{
    dure_buf bytes;
    char *path = NULL;
    dure_buf_init(&bytes, STATE_MAX_BYTES);
    put_state(&bytes, &site->state);
    dure_err err = dure_buf_err(&bytes);
    if (!err) err = with_path(&path, site->dir, "state.bin");
    if (!err) err = dure_file_write_atomic(path, dure_buf_span(&bytes), 0600, diag);
    free(path);
    dure_buf_fini(&bytes);
    return err;
}

/* The next save writes the present version; the file as it was stays beside it. */
static dure_err keep_old_state(const dure_site *site, dure_span bytes, dure_diag *diag)
{
    char *path = NULL;
    dure_err err = with_path(&path, site->dir, "state.bin.old");
    if (!err) err = dure_file_write_atomic(path, bytes, 0600, diag);
    free(path);
    return err;
}

static dure_err read_state(dure_site *site, dure_diag *diag)
{
    dure_buf bytes = {0};
    char *path = NULL;
    uint32_t version = STATE_VERSION;
    dure_err err = with_path(&path, site->dir, "state.bin");
    if (!err) err = dure_file_read(&bytes, path, STATE_MAX_BYTES, diag);
    if (!err) {
        dure_reader r = dure_reader_of(dure_buf_span(&bytes));
        err = take_state(&site->state, &version, &r);
        if (err) {
            dure_diag_set(diag, DURE_ERR_FORMAT,
                          "%s is damaged or of another version; put a backup of the newest copy "
                          "back, or join anew with another invitation",
                          path);
            err = DURE_ERR_FORMAT;
        }
    }
    if (!err && version < STATE_VERSION) err = keep_old_state(site, dure_buf_span(&bytes), diag);
    dure_buf_fini(&bytes);
    free(path);
    return err;
}

/* ---- federation and roster ---- */

static dure_err write_invitation(const dure_site *site, dure_diag *diag)
{
    dure_buf bytes;
    char *path = NULL;
    dure_buf_init(&bytes, DURE_INVITATION_MAX_BYTES);
    dure_invitation_put(&bytes, &site->invitation);
    dure_err err = dure_buf_err(&bytes);
    if (!err) err = with_path(&path, site->dir, "federation.bin");
    if (!err) err = dure_file_write_atomic(path, dure_buf_span(&bytes), 0600, diag);
    free(path);
    dure_buf_fini(&bytes);
    return err;
}

/* The file is checked against the root inside it: the root is what the site pinned when it joined,
 * and its digest is part of every configuration (federation_id). */
static dure_err read_invitation(dure_site *site, dure_diag *diag)
{
    dure_buf bytes = {0};
    char *path = NULL;
    dure_err err = with_path(&path, site->dir, "keys/federation.bin");
    if (!err && !dure_file_exists(path)) {
        free(path);
        err = with_path(&path, site->dir, "federation.bin");
    }
    if (!err) err = dure_file_read(&bytes, path, DURE_INVITATION_MAX_BYTES, diag);
    if (!err) {
        dure_reader r = dure_reader_of(dure_buf_span(&bytes));
        err = dure_invitation_take(&site->invitation, &r, diag);
        if (!err) err = dure_reader_end(&r);
        if (!err) {
            err = dure_invitation_verify(&site->invitation, site->invitation.root_public, diag);
        }
        if (err) dure_diag_prefix(diag, err, "%s", path);
    }
    dure_buf_fini(&bytes);
    free(path);
    return err;
}

dure_err dure_site_save_roster(const dure_site *site, dure_diag *diag)
{
    dure_buf bytes;
    char *path = NULL;
    dure_buf_init(&bytes, DURE_ROSTER_MAX_BYTES);
    dure_err err = dure_roster_encode(&bytes, site->roster);
    if (!err) err = with_path(&path, site->dir, "roster.bin");
    if (!err) err = dure_file_write_atomic(path, dure_buf_span(&bytes), 0600, diag);
    free(path);
    dure_buf_fini(&bytes);
    return err;
}

static dure_err read_roster(dure_site *site, dure_diag *diag)
{
    dure_buf bytes = {0};
    char *path = NULL;
    dure_err err = with_path(&path, site->dir, "roster.bin");
    if (!err && !dure_file_exists(path)) {
        err = dure_roster_new(&site->roster, site->invitation.root_public);
        goto out;
    }
    if (!err) err = dure_file_read(&bytes, path, DURE_ROSTER_MAX_BYTES, diag);
    if (!err) {
        err = dure_roster_parse(&site->roster, site->invitation.root_public, dure_buf_span(&bytes),
                                diag);
        if (err) dure_diag_prefix(diag, err, "%s", path);
    }
out:
    dure_buf_fini(&bytes);
    free(path);
    return err;
}

/* ---- the folder ---- */

static dure_err lock_folder(dure_site *site, dure_diag *diag)
{
    char *path = NULL;
    dure_err err = with_path(&path, site->dir, "lock");
    if (!err) err = dure_lock_acquire(&site->lock, path, diag);
    if (err == DURE_ERR_BUSY) {
        dure_diag_set(diag, err, "another process uses %s; stop that 'dure client run' first",
                      site->dir);
    }
    free(path);
    return err;
}

static dure_err load_keys(dure_site *site, dure_diag *diag)
{
    char *sign = NULL, *curve = NULL;
    dure_err err = with_path(&sign, site->dir, "keys/sign.key");
    if (!err) err = with_path(&curve, site->dir, "keys/curve.key");
    if (!err) err = dure_sign_load(&site->sign, sign, diag);
    if (!err) err = dure_curve_load(&site->curve, curve, diag);
    if (err == DURE_ERR_NOT_FOUND && diag) {
        const dure_diag missing = *diag;
        dure_diag_set(diag, err,
                      "%s; put the site's keys back from a copy, or ask for new ones: 'dure site "
                      "renew' at the admin's desk, then 'dure client renew'",
                      missing.text);
    }
    free(sign);
    free(curve);
    return err;
}

static dure_err make_keys(dure_site *site, dure_diag *diag)
{
    char *dir = NULL, *sign = NULL, *curve = NULL;
    dure_err err = with_path(&dir, site->dir, "keys");
    if (!err) err = with_path(&sign, dir, "sign.key");
    if (!err) err = with_path(&curve, dir, "curve.key");
    if (!err) err = dure_dir_make(dir, diag);
    if (!err) err = dure_sign_generate(&site->sign);
    if (!err) err = dure_sign_save(&site->sign, sign, diag);
    if (!err) err = dure_curve_generate(&site->curve);
    if (!err) err = dure_curve_save(curve, &site->curve, diag);
    free(dir);
    free(sign);
    free(curve);
    return err;
}

static dure_err remove_if_there(const char *dir, const char *name, dure_diag *diag)
{
    char *path = NULL;
    dure_err err = with_path(&path, dir, name);
    if (!err && unlink(path) && errno != ENOENT) err = dure_file_errno(diag, "remove", path);
    free(path);
    return err;
}

/* What a making left that was cut off. Nobody was told its keys, since site.yaml, which comes last,
 * is missing; but a site that lost that file must not lose its identity with it. */
static dure_err clear_unfinished(dure_site *site, dure_diag *diag)
{
    char *path = NULL;
    dure_err err = with_path(&path, site->dir, "state.bin");
    if (!err && dure_file_exists(path)) err = read_state(site, diag);
    if (!err && (site->state.joined || site->state.declared.batch != 0))
        err = dure_diag_set(diag, DURE_ERR_EXISTS,
                            "%s is a site's folder that has lost its %s; put that back, or choose "
                            "another folder",
                            site->dir, has(site->dir, DURE_SITE_YAML) ? "keys" : DURE_SITE_YAML);
    if (!err) err = remove_if_there(site->dir, "keys/sign.key", diag);
    if (!err) err = remove_if_there(site->dir, "keys/curve.key", diag);
    free(path);
    return err;
}

static void init(dure_site *out)
{
    *out = (dure_site){.lock = {.fd = -1}};
    dure_buf_init(&out->state.round_config, DURE_CONFIG_BYTES_MAX);
    dure_buf_init(&out->state.reply, DURE_SITE_REPLY_MAX);
}

dure_err dure_site_make(dure_site *out, const char *dir, const dure_policy *policy,
                        const dure_invitation *invitation, dure_diag *diag)
{
    char *yaml = NULL;
    init(out);
    out->policy = *policy;
    out->invitation = *invitation;
    out->dir = strdup(dir);
    dure_err err = out->dir ? dure_dir_make(dir, diag) : DURE_ERR_NOMEM;
    if (!err) err = lock_folder(out, diag);
    if (!err && dure_site_there(dir)) {
        err = dure_diag_set(diag, DURE_ERR_EXISTS, "%s is a site's folder already; choose another",
                            dir);
    }
    if (!err) err = clear_unfinished(out, diag);
    if (!err) err = make_keys(out, diag);
    if (!err) err = write_invitation(out, diag);
    if (!err) err = dure_roster_new(&out->roster, invitation->root_public);
    if (!err) err = dure_site_save_state(out, diag);
    if (!err) err = with_path(&yaml, dir, DURE_SITE_YAML);
    if (!err) err = dure_policy_write(yaml, policy, diag);
    free(yaml);
    if (err) dure_site_close(out);
    return err;
}

dure_err dure_site_open_to_renew(dure_site *out, const char *dir, dure_diag *diag)
{
    char *yaml = NULL;
    init(out);
    if (!has(dir, DURE_SITE_YAML)) {
        return dure_diag_set(diag, DURE_ERR_NOT_FOUND,
                             "%s is no site's folder; make one with 'dure join INVITATION %s'", dir,
                             dir);
    }
    out->dir = strdup(dir);
    dure_err err = out->dir ? lock_folder(out, diag) : DURE_ERR_NOMEM;
    if (!err) err = with_path(&yaml, dir, DURE_SITE_YAML);
    if (!err) err = dure_policy_read(&out->policy, yaml, diag);
    if (!err) err = read_invitation(out, diag);
    if (!err) err = read_roster(out, diag);
    if (!err) err = read_state(out, diag);
    free(yaml);
    if (err) dure_site_close(out);
    return err;
}

dure_err dure_site_open(dure_site *out, const char *dir, dure_diag *diag)
{
    dure_err err = dure_site_open_to_renew(out, dir, diag);
    if (err) return err;
    err = load_keys(out, diag);
    if (err) dure_site_close(out);
    return err;
}

void dure_site_close(dure_site *site)
{
    dure_wipe(&site->sign, sizeof site->sign);
    dure_curve_key_wipe(&site->curve);
    dure_roster_free(&site->roster);
    dure_buf_fini(&site->state.round_config);
    dure_buf_fini(&site->state.reply);
    if (site->lock.fd >= 0) dure_lock_release(&site->lock);
    site->lock.fd = -1;
    free(site->dir);
    site->dir = NULL;
}

/* ---- budget ---- */

dure_err dure_site_open_ledger(dure_site_ledger **out, const dure_site *site, dure_diag *diag)
{
    dure_err err = dure_site_ledger_open(out, site->policy.ledger, diag);
    if (err) return err;
    if (site->state.ledger_entries && !dure_site_ledger_contains(*out, &site->state.ledger_head)) {
        err = dure_diag_set(
            diag, DURE_ERR_STATE,
            "the privacy ledger %s does not contain the entry that this site saw "
            "last: an older copy was put back, or site.yaml names another owner's; restore "
            "the newest one",
            site->policy.ledger);
        dure_site_ledger_close(out);
    }
    return err;
}

dure_err dure_site_follow_ledger(dure_site *site, const dure_site_ledger *ledger, dure_diag *diag)
{
    dure_site_state *s = &site->state;
    const dure_reservation *r = NULL;
    dure_err err = dure_site_ledger_reservation(&r, ledger, &s->reservation, diag);
    if (err) return err;
    if (r->steps_used > s->steps_used) s->steps_used = r->steps_used;
    if (r->last_round > s->last_round) s->last_round = r->last_round;
    return DURE_OK;
}

void dure_site_note_ledger(dure_site *site, const dure_site_ledger *ledger)
{
    dure_site_ledger_head(&site->state.ledger_head, &site->state.ledger_entries, ledger);
}

dure_err dure_site_plan(dure_dp_plan *out, const dure_terms *terms, const dure_declared *declared,
                        dure_diag *diag)
{
    *out = dure_federation_plan(terms, declared, terms->training.rounds);
    return dure_dp_plan_check(out, diag);
}

bool dure_site_without_privacy(const dure_site *site)
{
    return site->invitation.terms.training.privacy_mode == DURE_PRIVACY_NONE;
}
