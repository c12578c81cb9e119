/* New keys for a site, under a new invitation of the same name (client/site.h).
 *
 * The new identity is made in DIR/keys.new, so that a renewal that was cut off anywhere goes on
 * with the same keys. Once the coordinator has taken it, keys.new and keys change places in one
 * step: before it the folder is the old site's, after it the new one's. */
#include "client/site.h"

#include "crypto/wipe.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NEW_KEYS "keys.new"

static dure_err differs(const char *what, dure_diag *diag)
{
    return dure_diag_set(diag, DURE_ERR_STATE,
                         "the invitation is for another %s than this site's: it cannot renew it; "
                         "join with it in a new folder",
                         what);
}

/* Only the keys are new: everything that the site declared and reserved goes on. */
static dure_err check_same(const dure_site *site, const dure_invitation *inv, dure_diag *diag)
{
    dure_hash ours, theirs;
    const dure_invitation *own = &site->invitation;
    if (!dure_ct_equal(inv->root_public, own->root_public, 32) ||
        strcmp(inv->terms.federation, own->terms.federation) != 0)
        return differs("federation", diag);
    if (strcmp(inv->name, own->name) != 0 || strcmp(inv->organisation, own->organisation) != 0)
        return differs("site", diag);
    if (!dure_ct_equal(inv->coordinator_sign, own->coordinator_sign, 32) ||
        !dure_ct_equal(inv->coordinator_curve, own->coordinator_curve, 32))
        return differs("coordinator", diag);
    dure_err err = dure_terms_hash(&ours, &own->terms);
    if (!err) err = dure_terms_hash(&theirs, &inv->terms);
    if (err) return err;
    return dure_hash_equal(&ours, &theirs) ? DURE_OK : differs("plan", diag);
}

typedef struct new_paths {
    char *folder, *sign, *curve, *invitation;
} new_paths;

static dure_err find_paths(new_paths *p, const dure_site *site)
{
    *p = (new_paths){.folder = dure_site_path(site, NEW_KEYS),
                     .sign = dure_site_path(site, NEW_KEYS "/sign.key"),
                     .curve = dure_site_path(site, NEW_KEYS "/curve.key"),
                     .invitation = dure_site_path(site, NEW_KEYS "/federation.bin")};
    return p->folder && p->sign && p->curve && p->invitation ? DURE_OK : DURE_ERR_NOMEM;
}

static void free_paths(new_paths *p)
{
    free(p->folder);
    free(p->sign);
    free(p->curve);
    free(p->invitation);
}

/* True when keys.new was made whole for this invitation: its file is written last. */
static dure_err is_made(bool *made, const new_paths *p, const dure_invitation *inv, dure_diag *diag)
{
    dure_buf there = {0}, want;
    dure_buf_init(&want, DURE_INVITATION_MAX_BYTES);
    dure_invitation_put(&want, inv);
    dure_err err = dure_buf_err(&want);
    *made = false;
    if (!err && dure_file_exists(p->invitation)) {
        err = dure_file_read(&there, p->invitation, DURE_INVITATION_MAX_BYTES, diag);
        *made = !err && there.n == want.n && dure_ct_equal(there.data, want.data, want.n);
        dure_buf_fini(&there);
    }
    dure_buf_fini(&want);
    return err;
}

static dure_err make(const new_paths *p, const dure_invitation *inv, dure_diag *diag)
{
    dure_sign_key sign;
    dure_curve_key curve;
    dure_buf bytes;
    dure_buf_init(&bytes, DURE_INVITATION_MAX_BYTES);
    dure_invitation_put(&bytes, inv);
    dure_err err = dure_buf_err(&bytes);
    if (!err && dure_file_exists(p->folder)) err = dure_dir_remove(p->folder, diag);
    if (!err) err = dure_dir_make(p->folder, diag);
    if (!err) err = dure_sign_generate(&sign);
    if (!err) err = dure_sign_save(&sign, p->sign, diag);
    if (!err) err = dure_curve_generate(&curve);
    if (!err) err = dure_curve_save(p->curve, &curve, diag);
    if (!err) err = dure_file_write_atomic(p->invitation, dure_buf_span(&bytes), 0644, diag);
    dure_wipe(&sign, sizeof sign);
    dure_curve_key_wipe(&curve);
    dure_buf_fini(&bytes);
    return err;
}

dure_err dure_site_renew(bool *fresh, dure_site *site, const dure_invitation *invitation,
                         dure_diag *diag)
{
    new_paths p;
    bool made = false;
    dure_err err = check_same(site, invitation, diag);
    if (err) return err;
    if (dure_ct_equal(invitation->invite_public, site->invitation.invite_public, 32))
        return dure_diag_set(diag, DURE_ERR_EXISTS, "%s has these keys already: nothing to renew",
                             site->dir);
    err = find_paths(&p, site);
    if (!err) err = is_made(&made, &p, invitation, diag);
    if (!err && !made) err = make(&p, invitation, diag);
    if (!err) err = dure_sign_load(&site->sign, p.sign, diag);
    if (!err) err = dure_curve_load(&site->curve, p.curve, diag);
    if (!err) site->invitation = *invitation;
    *fresh = !made;
    free_paths(&p);
    return err;
}

/* What is left of a round belongs to the old keys, which nobody hears any more. */
static dure_err leave_round(dure_site *site, dure_diag *diag)
{
    dure_site_state *s = &site->state;
    dure_buf_fini(&s->reply);
    dure_buf_fini(&s->round_config);
    dure_buf_init(&s->reply, DURE_SITE_REPLY_MAX);
    dure_buf_init(&s->round_config, DURE_CONFIG_BYTES_MAX);
    s->round_hash = (dure_hash){{0}};
    s->round_u2 = s->round_u3 = (dure_members){{0}};
    return dure_site_save_state(site, diag);
}

static dure_err sync_folder(const char *dir, dure_diag *diag)
{
    const int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    dure_err err = fd < 0 || fsync(fd) ? dure_file_errno(diag, "sync", dir) : DURE_OK;
    if (fd >= 0) close(fd);
    return err;
}

dure_err dure_site_adopt(dure_site *site, dure_diag *diag)
{
    char *keys = dure_site_path(site, "keys"), *fresh = dure_site_path(site, NEW_KEYS);
    dure_err err = keys && fresh ? leave_round(site, diag) : DURE_ERR_NOMEM;
    if (!err) err = dure_dir_make(keys, diag); /* lost, perhaps */
    if (!err && renameat2(AT_FDCWD, fresh, AT_FDCWD, keys, RENAME_EXCHANGE))
        err = dure_file_errno(diag, "put the new keys in the place of", keys);
    if (!err) err = sync_folder(site->dir, diag);
    if (!err) err = dure_dir_remove(fresh, diag); /* the old ones */
    free(keys);
    free(fresh);
    return err;
}
