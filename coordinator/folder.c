#include "coordinator/folder.h"

#include "common/file.h"
#include "crypto/wipe.h"
#include "federation/invitation.h"

#include <stdlib.h>
#include <string.h>

char *dure_folder_path(const dure_folder *folder, const char *name)
{
    return dure_path_join(folder->dir, name);
}

/* What the root signs of a federation when it is made. */
static dure_err terms_message(dure_buf *out, const dure_terms *terms,
                              const uint8_t coordinator_sign[32],
                              const uint8_t coordinator_curve[32])
{
    dure_hash hash;
    dure_buf_init(out, 256);
    dure_err err = dure_terms_hash(&hash, terms);
    if (err) return err;
    dure_put_raw(out, hash.b, sizeof hash.b);
    dure_put_raw(out, coordinator_sign, 32);
    dure_put_raw(out, coordinator_curve, 32);
    return dure_buf_err(out);
}

dure_err dure_folder_sign_terms(const char *dir, const dure_terms *terms,
                                const uint8_t coordinator_sign[32],
                                const uint8_t coordinator_curve[32], const dure_sign_key *root,
                                dure_diag *diag)
{
    dure_buf message;
    uint8_t signature[DURE_SIGNATURE_BYTES];
    char *path = dure_path_join(dir, DURE_FOLDER_TERMS_SIGNATURE);
    dure_err err = terms_message(&message, terms, coordinator_sign, coordinator_curve);
    if (!err && !path) err = DURE_ERR_NOMEM;
    if (!err) err = dure_sign(signature, root, "DURE/1/terms", dure_buf_span(&message));
    if (!err)
        err = dure_file_write_atomic(path, dure_span_of(signature, sizeof signature), 0644, diag);
    dure_buf_fini(&message);
    free(path);
    return err;
}

static dure_err check_terms(const dure_folder *f, dure_diag *diag)
{
    dure_buf message, signature = {0};
    char *path = dure_folder_path(f, DURE_FOLDER_TERMS_SIGNATURE);
    dure_err err = terms_message(&message, &f->settings.terms, f->sign.public_, f->curve.public_);
    if (!err && !path) err = DURE_ERR_NOMEM;
    if (!err) err = dure_file_read(&signature, path, DURE_SIGNATURE_BYTES, diag);
    if (!err && signature.n != DURE_SIGNATURE_BYTES)
        err = dure_diag_set(diag, DURE_ERR_FORMAT, "%s is not a signature", path);
    if (!err) {
        err = dure_sign_verify(f->settings.root_public, "DURE/1/terms", dure_buf_span(&message),
                               signature.data);
        if (err)
            dure_diag_set(diag, err,
                          "%s/%s was altered: its terms are not those that the federation's root "
                          "signed; restore the file, or make a new federation for new terms",
                          f->dir, DURE_FOLDER_SETTINGS);
    }
    dure_buf_fini(&message);
    dure_buf_fini(&signature);
    free(path);
    return err;
}

static dure_err load_keys(dure_folder *f, dure_diag *diag)
{
    char *sign = dure_folder_path(f, DURE_FOLDER_SIGN_KEY);
    char *curve = dure_folder_path(f, DURE_FOLDER_CURVE_KEY);
    dure_err err = sign && curve ? dure_sign_load(&f->sign, sign, diag) : DURE_ERR_NOMEM;
    if (!err) err = dure_curve_load(&f->curve, curve, diag);
    if (err == DURE_ERR_NOT_FOUND && diag) {
        const dure_diag missing = *diag;
        dure_diag_set(
            diag, err,
            "%s; put the coordinator's keys back from a backup (docs/operations.md): sites "
            "know it by them",
            missing.text);
    }
    free(sign);
    free(curve);
    return err;
}

dure_err dure_folder_open(dure_folder *out, const char *dir, dure_diag *diag)
{
    *out = (dure_folder){.dir = strdup(dir)};
    char *settings = out->dir ? dure_folder_path(out, DURE_FOLDER_SETTINGS) : NULL;
    dure_err err = DURE_ERR_NOMEM;
    if (settings && !dure_file_exists(settings))
        err = dure_diag_set(diag, DURE_ERR_NOT_FOUND,
                            "%s is no coordinator's folder: it has no %s; 'dure init' makes one",
                            dir, DURE_FOLDER_SETTINGS);
    else if (settings)
        err = dure_settings_read(&out->settings, settings, diag);
    if (!err) err = load_keys(out, diag);
    if (!err) err = check_terms(out, diag);
    if (!err)
        err = dure_federation_id(&out->federation_id, out->settings.root_public,
                                 out->settings.terms.federation);
    free(settings);
    return err;
}

void dure_folder_fini(dure_folder *folder)
{
    dure_wipe(&folder->sign, sizeof folder->sign);
    dure_curve_key_wipe(&folder->curve);
    free(folder->dir);
    folder->dir = NULL;
}

dure_err dure_folder_roster_read(dure_roster **out, const char *dir, const uint8_t root_public[32],
                                 dure_diag *diag)
{
    *out = NULL;
    char *path = dure_path_join(dir, DURE_FOLDER_ROSTER);
    if (!path) return DURE_ERR_NOMEM;
    dure_err err;
    if (!dure_file_exists(path)) {
        err = dure_roster_new(out, root_public);
    } else {
        dure_buf bytes;
        err = dure_file_read(&bytes, path, DURE_ROSTER_MAX_BYTES, diag);
        if (!err) err = dure_roster_parse(out, root_public, dure_buf_span(&bytes), diag);
        if (err) dure_diag_prefix(diag, err, "%s", path);
        dure_buf_fini(&bytes);
    }
    free(path);
    return err;
}

dure_err dure_folder_roster_write(const char *dir, const dure_roster *roster, dure_diag *diag)
{
    dure_buf bytes;
    dure_buf_init(&bytes, DURE_ROSTER_MAX_BYTES);
    char *path = dure_path_join(dir, DURE_FOLDER_ROSTER);
    dure_err err = path ? dure_roster_encode(&bytes, roster) : DURE_ERR_NOMEM;
    if (!err) err = dure_file_write_atomic(path, dure_buf_span(&bytes), 0644, diag);
    dure_buf_fini(&bytes);
    free(path);
    return err;
}
