#include "cli/federation.h"

#include "cli/writable.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/json.h"
#include "coordinator/founding.h"
#include "crypto/wipe.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

char *dure_federation_part(const char *dir, const char *part)
{
    char *trimmed = strdup(dir);
    if (!trimmed) return NULL;
    size_t n = strlen(trimmed);
    while (n > 1 && trimmed[n - 1] == '/')
        trimmed[--n] = 0;
    char *inner = dure_path_join(trimmed, part);
    const char *other = strcmp(part, "admin") == 0 ? "/coordinator" : "/admin";
    if (inner && !dure_file_exists(inner) && ends_with(trimmed, other)) {
        /* The sibling's name was given. */
        trimmed[n - strlen(other)] = 0;
        free(inner);
        inner = dure_path_join(trimmed, part);
    } else if (inner && !dure_file_exists(inner)) {
        free(inner);
        return trimmed;
    }
    free(trimmed);
    return inner;
}

static dure_err open_root(dure_admin *admin, dure_diag *diag)
{
    char *path = dure_path_join(admin->dir, DURE_ADMIN_ROOT_KEY);
    dure_err err = path ? dure_sign_load(&admin->root, path, diag) : DURE_ERR_NOMEM;
    if (!err && !dure_ct_equal(admin->root.public_, admin->settings.root_public, 32))
        err = dure_diag_set(diag, DURE_ERR_AUTH, "%s is the root key of another federation", path);
    if (err == DURE_ERR_NOT_FOUND)
        dure_diag_set(diag, err,
                      "the root key %s is missing: put it back from where it is kept; without it "
                      "nobody can be invited or sent away, and only 'dure init' makes another",
                      path);
    free(path);
    return err;
}

dure_err dure_admin_open(dure_admin *admin, const char *dir, bool with_key, dure_diag *diag)
{
    *admin = (dure_admin){.dir = dure_federation_part(dir, "admin")};
    char *path = admin->dir ? dure_path_join(admin->dir, DURE_ADMIN_SETTINGS) : NULL;
    dure_err err = DURE_ERR_NOMEM;
    if (path && !dure_file_exists(path))
        err = dure_diag_set(diag, DURE_ERR_NOT_FOUND,
                            "%s is no admin folder: it has no %s; 'dure init' makes one", dir,
                            DURE_ADMIN_SETTINGS);
    else if (path)
        err = dure_settings_read(&admin->settings, path, diag);
    if (!err)
        err = dure_founding_coordinator_keys(admin->coordinator_sign, admin->coordinator_curve,
                                             admin->dir, diag);
    if (!err && with_key) err = open_root(admin, diag);
    free(path);
    return err;
}

void dure_admin_close(dure_admin *admin)
{
    free(admin->dir);
    dure_wipe(admin, sizeof *admin);
}

/* What the admin keeps of an invitation: enough to list and to revoke it, not to use it. */
static dure_err remember(const char *path, const dure_invitation *inv, dure_diag *diag)
{
    char hex[65];
    dure_hex_encode(hex, inv->invite_public, 32);
    json_t *record = json_pack("{s:s, s:s, s:s, s:I, s:I}", "name", inv->name, "organisation",
                               inv->organisation, "invite_public", hex, "issued",
                               (json_int_t)inv->issued_s, "expires", (json_int_t)inv->expires_s);
    dure_err err = record ? dure_json_write(path, record, 0644, diag) : DURE_ERR_NOMEM;
    json_decref(record);
    return err;
}

/* Remembered first, since an invitation that the admin does not know could not be revoked; and
 * forgotten again when nobody can have got it. */
static dure_err hand_out(const dure_admin *admin, const dure_invitation *inv,
                         const dure_sign_key *key, const char *path, dure_diag *diag)
{
    char hex[65], file[160];
    dure_hex_encode(hex, inv->invite_public, 32);
    snprintf(file, sizeof file, "%s/%s-%.8s.json", DURE_ADMIN_INVITATIONS, inv->name, hex);
    char *record = dure_path_join(admin->dir, file);
    if (!record) return DURE_ERR_NOMEM;
    dure_err err = remember(record, inv, diag);
    if (!err) {
        err = dure_invitation_write(path, inv, key, diag);
        if (err) (void)!unlink(record);
    }
    free(record);
    return err;
}

dure_err dure_admin_invite(dure_invitation *inv, const dure_admin *admin,
                           const dure_admin_guest *guest, const char *path, dure_diag *diag)
{
    dure_sign_key key;
    dure_err err = dure_name_check(guest->name, "the site's name", diag);
    if (!err) err = dure_name_check(guest->organisation, "the organisation", diag);
    if (!err && !dure_file_exists(path)) err = dure_writable_file(path, diag);
    if (err) return err;
    *inv = (dure_invitation){.issued_s = dure_clock_wall_s(), .terms = admin->settings.terms};
    inv->expires_s = inv->issued_s + (int64_t)guest->hours * 3600;
    snprintf(inv->name, sizeof inv->name, "%s", guest->name);
    snprintf(inv->organisation, sizeof inv->organisation, "%s", guest->organisation);
    memcpy(inv->endpoint, admin->settings.endpoint, sizeof inv->endpoint);
    memcpy(inv->coordinator_sign, admin->coordinator_sign, 32);
    memcpy(inv->coordinator_curve, admin->coordinator_curve, 32);
    err = dure_sign_generate(&key);
    if (!err) err = dure_invitation_sign(inv, &key, &admin->root, diag);
    if (!err) err = hand_out(admin, inv, &key, path, diag);
    dure_wipe(&key, sizeof key);
    return err;
}

/* ---- revocations ---- */

#define REVOCATION_ENDING ".revocation"

void dure_admin_revocation_file(char out[DURE_REVOCATION_FILE_SIZE], const char *name,
                                const uint8_t invite_public[32])
{
    char hex[65];
    dure_hex_encode(hex, invite_public, 32);
    snprintf(out, DURE_REVOCATION_FILE_SIZE, "%s-%.8s" REVOCATION_ENDING, name, hex);
}

bool dure_admin_has_revoked(const dure_admin *admin, const char *name)
{
    const size_t n = strlen(name), n_all = n + 9 + sizeof REVOCATION_ENDING - 1;
    char *path = dure_path_join(admin->dir, DURE_ADMIN_REVOCATIONS);
    DIR *dir = path ? opendir(path) : NULL;
    const struct dirent *entry;
    bool found = false;
    while (dir && !found && (entry = readdir(dir)))
        found = strlen(entry->d_name) == n_all && strncmp(entry->d_name, name, n) == 0 &&
                entry->d_name[n] == '-' && strcmp(entry->d_name + n + 9, REVOCATION_ENDING) == 0;
    if (dir) closedir(dir);
    free(path);
    return found;
}
