#include "coordinator/founding.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/json.h"
#include "coordinator/entries.h"
#include "coordinator/folder.h"
#include "coordinator/store.h"
#include "crypto/rng.h"
#include "crypto/wipe.h"
#include "federation/global_adapter.h"
#include "ledger/journal.h"
#include "registry/blob.h"
#include "registry/registry.h"

#include <stdlib.h>
#include <string.h>

enum { RELEASE_YEARS = 10 };

typedef struct founding {
    char *admin, *coordinator; /* owned paths */
    dure_settings settings;
    dure_sign_key root, sign, release;
    dure_curve_key curve;
    uint64_t adapter_bytes;
} founding;

static dure_err make_folders(const founding *f, dure_diag *diag)
{
    static const char *const of_admin[] = {DURE_ADMIN_INVITATIONS, DURE_ADMIN_REVOCATIONS};
    static const char *const of_coordinator[] = {"keys", DURE_FOLDER_BLOBS, DURE_FOLDER_SPOOL,
                                                 DURE_FOLDER_INBOX};
    dure_err err = DURE_OK;
    for (size_t i = 0; !err && i < sizeof of_admin / sizeof *of_admin; i++) {
        char *path = dure_path_join(f->admin, of_admin[i]);
        err = path ? dure_dir_make(path, diag) : DURE_ERR_NOMEM;
        free(path);
    }
    for (size_t i = 0; !err && i < sizeof of_coordinator / sizeof *of_coordinator; i++) {
        char *path = dure_path_join(f->coordinator, of_coordinator[i]);
        err = path ? dure_dir_make(path, diag) : DURE_ERR_NOMEM;
        free(path);
    }
    return err;
}

static dure_err save_sign_key(const dure_sign_key *key, const char *dir, const char *name,
                              dure_diag *diag)
{
    char *path = dure_path_join(dir, name);
    dure_err err = path ? dure_sign_save(key, path, diag) : DURE_ERR_NOMEM;
    free(path);
    return err;
}

static dure_err make_keys(founding *f, dure_diag *diag)
{
    dure_err err = dure_sign_generate(&f->root);
    if (!err) err = dure_sign_generate(&f->sign);
    if (!err) err = dure_sign_generate(&f->release);
    if (!err) err = dure_curve_generate(&f->curve);
    if (!err) err = save_sign_key(&f->root, f->admin, DURE_ADMIN_ROOT_KEY, diag);
    if (!err) err = save_sign_key(&f->sign, f->coordinator, DURE_FOLDER_SIGN_KEY, diag);
    if (!err) err = save_sign_key(&f->release, f->coordinator, DURE_RELEASE_KEY_FILE, diag);
    char *curve = dure_path_join(f->coordinator, DURE_FOLDER_CURVE_KEY);
    if (!err) err = curve ? dure_curve_save(curve, &f->curve, diag) : DURE_ERR_NOMEM;
    free(curve);
    memcpy(f->settings.root_public, f->root.public_, 32);
    return err;
}

static dure_err certify_release(const founding *f, dure_diag *diag)
{
    const int64_t now_s = dure_clock_wall_s();
    dure_release_certificate certificate;
    char *path = dure_path_join(f->coordinator, DURE_RELEASE_CERTIFICATE_FILE);
    dure_err err = path ? dure_release_certify(&certificate, &f->root, f->release.public_, now_s,
                                               now_s + (int64_t)RELEASE_YEARS * 365 * 86400)
                        : DURE_ERR_NOMEM;
    if (!err) err = dure_release_certificate_write(path, &certificate, diag);
    free(path);
    return err;
}

static dure_err write_settings(const founding *f, dure_diag *diag)
{
    char *ours = dure_path_join(f->coordinator, DURE_FOLDER_SETTINGS);
    char *admins = dure_path_join(f->admin, DURE_ADMIN_SETTINGS);
    dure_err err = ours && admins ? dure_settings_write(ours, &f->settings, diag) : DURE_ERR_NOMEM;
    if (!err) err = dure_settings_write(admins, &f->settings, diag);
    if (!err)
        err = dure_folder_sign_terms(f->coordinator, &f->settings.terms, f->sign.public_,
                                     f->curve.public_, &f->root, diag);
    free(ours);
    free(admins);
    return err;
}

static dure_err write_public_keys(const founding *f, dure_diag *diag)
{
    char *path = dure_path_join(f->admin, DURE_ADMIN_COORDINATOR);
    json_t *keys = json_pack("{s:o, s:o}", "sign", dure_json_from_hex(f->sign.public_, 32), "curve",
                             dure_json_from_hex(f->curve.public_, 32));
    dure_err err = path && keys ? dure_json_write(path, keys, 0644, diag) : DURE_ERR_NOMEM;
    json_decref(keys);
    free(path);
    return err;
}

/* The first adapter, and the state that names it. */
static dure_err write_state(founding *f, dure_diag *diag)
{
    dure_buf file = {0};
    dure_hash digest;
    uint64_t run_id = 0;
    dure_store *store = NULL;
    dure_registry *registry = NULL;
    const dure_rng rng = dure_rng_system();
    char *blobs = dure_path_join(f->coordinator, DURE_FOLDER_BLOBS);
    dure_err err =
        blobs ? dure_global_adapter_first(&file, &f->settings.terms, diag) : DURE_ERR_NOMEM;
    if (!err) err = dure_blob_put(&digest, blobs, dure_buf_span(&file), diag);
    if (!err) err = dure_rng_fill(&rng, &run_id, sizeof run_id);
    if (!err) err = dure_store_open(&store, f->coordinator, diag);
    if (!err) err = dure_store_begin(store, run_id, &digest, diag);
    if (!err) err = dure_registry_open(&registry, f->coordinator, diag);
    f->adapter_bytes = file.n;
    dure_registry_close(&registry);
    dure_store_close(&store);
    dure_buf_fini(&file);
    free(blobs);
    return err;
}

static dure_err begin_ledger(const founding *f, dure_diag *diag)
{
    dure_journal *journal = NULL;
    dure_event *event = calloc(1, sizeof *event);
    char *path = dure_path_join(f->coordinator, DURE_FOLDER_LEDGER);
    dure_err err = path && event ? dure_journal_open(&journal, path, DURE_LEAF_LOG_WRITE, diag)
                                 : DURE_ERR_NOMEM;
    if (!err)
        err = dure_entries_genesis(event, &f->settings.terms, f->root.public_, f->sign.public_,
                                   dure_clock_wall_s());
    if (!err) err = dure_journal_append(NULL, journal, event, diag);
    dure_journal_close(&journal);
    free(path);
    free(event);
    return err;
}

dure_err dure_founding_make(dure_founded *out, const char *dir, const dure_settings *settings,
                            dure_diag *diag)
{
    founding f = {.settings = *settings,
                  .admin = dure_path_join(dir, "admin"),
                  .coordinator = dure_path_join(dir, "coordinator")};
    dure_err err =
        f.admin && f.coordinator ? dure_terms_check(&settings->terms, diag) : DURE_ERR_NOMEM;
    if (err) goto out;
    if (dure_file_exists(f.admin) || dure_file_exists(f.coordinator)) {
        err = dure_diag_set(diag, DURE_ERR_EXISTS,
                            "%s holds a federation already; choose another folder", dir);
        goto out;
    }
    err = dure_dir_make(dir, diag); /* a file of that name is none of ours to remove */
    if (err) goto out;
    err = make_folders(&f, diag);
    if (!err) err = make_keys(&f, diag);
    if (!err) err = certify_release(&f, diag);
    if (!err) err = write_settings(&f, diag);
    if (!err) err = write_public_keys(&f, diag);
    if (!err) err = write_state(&f, diag);
    if (!err) err = begin_ledger(&f, diag);
    if (err && (dure_dir_remove(f.admin, NULL) || dure_dir_remove(f.coordinator, NULL)))
        dure_diag_prefix(diag, err, "%s is left half made; remove it", dir);
    if (!err) {
        out->adapter_bytes = f.adapter_bytes;
        memcpy(out->root_public, f.root.public_, 32);
        memcpy(out->coordinator_sign, f.sign.public_, 32);
        memcpy(out->coordinator_curve, f.curve.public_, 32);
    }
out:
    free(f.admin);
    free(f.coordinator);
    dure_wipe(&f, sizeof f);
    return err;
}

dure_err dure_founding_coordinator_keys(uint8_t sign_public[32], uint8_t curve_public[32],
                                        const char *admin_dir, dure_diag *diag)
{
    json_t *keys = NULL;
    char *path = dure_path_join(admin_dir, DURE_ADMIN_COORDINATOR);
    dure_err err = path ? dure_json_read(&keys, path, 4096, diag) : DURE_ERR_NOMEM;
    if (!err) err = dure_json_hex(sign_public, 32, keys, "sign", diag);
    if (!err) err = dure_json_hex(curve_public, 32, keys, "curve", diag);
    json_decref(keys);
    free(path);
    return err;
}
