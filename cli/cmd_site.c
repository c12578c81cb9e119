/* dure site list|revoke|renew: who is in the federation, at the admin's desk. */
#include "cli/args.h"
#include "cli/commands.h"
#include "cli/federation.h"
#include "cli/output.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/json.h"
#include "coordinator/folder.h"
#include "coordinator/founding.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INVITED_MAX = 4000 };

typedef struct invited {
    char name[DURE_NAME_SIZE], organisation[DURE_NAME_SIZE];
    uint8_t invite_public[32];
    int64_t expires_s;
    const dure_roster_member *member; /* NULL: not joined, or not known here */
    bool revoked;
} invited;

typedef struct desk {
    dure_admin admin;
    dure_roster *roster; /* of the coordinator's folder beside; NULL: elsewhere */
    char *coordinator;   /* that folder; NULL: elsewhere */
    invited *all;
    size_t n;
} desk;

/* ---- reading ---- */

static dure_err read_one(invited *out, const char *path, dure_diag *diag)
{
    json_t *record = NULL;
    const char *name, *organisation;
    uint64_t expires;
    dure_err err = dure_json_read(&record, path, 8192, diag);
    if (!err) err = dure_json_text(&name, record, "name", diag);
    if (!err) err = dure_json_text(&organisation, record, "organisation", diag);
    if (!err) err = dure_json_hex(out->invite_public, 32, record, "invite_public", diag);
    if (!err) err = dure_json_u64(&expires, record, "expires", diag);
    if (!err) {
        snprintf(out->name, sizeof out->name, "%s", name);
        snprintf(out->organisation, sizeof out->organisation, "%s", organisation);
        out->expires_s = (int64_t)expires;
    }
    json_decref(record);
    return err;
}

static int by_name(const void *a, const void *b)
{
    const invited *x = a, *y = b;
    const int order = strcmp(x->name, y->name);
    return order ? order : (x->expires_s > y->expires_s) - (x->expires_s < y->expires_s);
}

static bool is_record(const char *name)
{
    const size_t n = strlen(name);
    return name[0] != '.' && n > 5 && strcmp(name + n - 5, ".json") == 0;
}

static dure_err read_invited(desk *d, dure_diag *diag)
{
    char *folder = dure_path_join(d->admin.dir, DURE_ADMIN_INVITATIONS);
    d->all = calloc(INVITED_MAX, sizeof *d->all);
    dure_err err = folder && d->all ? DURE_OK : DURE_ERR_NOMEM;
    DIR *dir = err ? NULL : opendir(folder);
    const struct dirent *entry;
    while (!err && dir && (entry = readdir(dir))) {
        if (!is_record(entry->d_name)) continue;
        if (d->n == INVITED_MAX) {
            /* Whoever is not read could not be revoked. */
            err = dure_diag_set(diag, DURE_ERR_LIMIT,
                                "%s has more than %d records of invitations; move those of sites "
                                "that never joined or were revoked to another folder",
                                folder, INVITED_MAX);
            break;
        }
        char *path = dure_path_join(folder, entry->d_name);
        err = path ? read_one(&d->all[d->n], path, diag) : DURE_ERR_NOMEM;
        if (!err) d->n++;
        free(path);
    }
    if (dir) closedir(dir);
    free(folder);
    if (!err && d->n) qsort(d->all, d->n, sizeof *d->all, by_name);
    return err;
}

/* Revocations signed here, and joins and revocations that the coordinator has taken. */
static dure_err mark(desk *d)
{
    for (size_t i = 0; i < d->n; i++) {
        char file[DURE_REVOCATION_FILE_SIZE], below[sizeof file + 32];
        dure_admin_revocation_file(file, d->all[i].name, d->all[i].invite_public);
        snprintf(below, sizeof below, "%s/%s", DURE_ADMIN_REVOCATIONS, file);
        char *path = dure_path_join(d->admin.dir, below);
        if (!path) return DURE_ERR_NOMEM;
        d->all[i].revoked = dure_file_exists(path);
        free(path);
        for (size_t k = 0; d->roster && k < dure_roster_count(d->roster); k++) {
            const dure_roster_member *m = dure_roster_at(d->roster, k);
            if (memcmp(m->join.invitation.invite_public, d->all[i].invite_public, 32) == 0)
                d->all[i].member = m;
        }
    }
    return DURE_OK;
}

static dure_err desk_open(desk *d, const char *dir, bool with_key, dure_diag *diag)
{
    *d = (desk){.n = 0};
    dure_err err = dure_admin_open(&d->admin, dir, with_key, diag);
    if (err) return err;
    char *beside = dure_federation_part(dir, "coordinator");
    char *settings = beside ? dure_path_join(beside, DURE_FOLDER_SPOOL) : NULL;
    if (!beside || !settings) err = DURE_ERR_NOMEM;
    if (!err && dure_file_exists(settings)) {
        d->coordinator = beside;
        beside = NULL;
        err = dure_folder_roster_read(&d->roster, d->coordinator, d->admin.settings.root_public,
                                      diag);
    }
    free(beside);
    free(settings);
    if (!err) err = read_invited(d, diag);
    return err ? err : mark(d);
}

static void desk_close(desk *d)
{
    dure_roster_free(&d->roster);
    free(d->coordinator);
    free(d->all);
    dure_admin_close(&d->admin);
}

/* ---- list ---- */

static const char *state_of(const invited *i)
{
    if (i->revoked || (i->member && i->member->revoked)) return "revoked";
    if (i->member) return "joined";
    return dure_clock_wall_s() > i->expires_s ? "expired" : "invited";
}

static int print_list(const desk *d, bool json)
{
    json_t *list = json ? json_array() : NULL;
    if (!json) printf("NAME              ORGANISATION      STATE    RECORDS   SINCE OR UNTIL\n");
    for (size_t i = 0; i < d->n; i++) {
        const invited *v = &d->all[i];
        char when[DURE_CLOCK_TEXT_SIZE];
        const uint64_t records = v->member ? v->member->join.declared.n_pub : 0;
        dure_clock_text(when, v->member ? v->member->joined_s : v->expires_s);
        if (json)
            json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:I, s:s}", "name", v->name,
                                                  "organisation", v->organisation, "state",
                                                  state_of(v), "records", (json_int_t)records,
                                                  v->member ? "joined" : "expires", when));
        else
            printf("%-16s  %-16s  %-7s  %7llu   %s\n", v->name, v->organisation, state_of(v),
                   (unsigned long long)records, when);
    }
    if (!json && !d->roster)
        fprintf(stderr, "The coordinator's folder is not beside this one: who joined is not known "
                        "here.\n");
    return json ? dure_print_json(list) : 0;
}

static int site_list(int argc, char **argv)
{
    const char *dir = NULL;
    bool json = false;
    const dure_arg args[] = {
        dure_admin_arg(&dir),
        dure_json_arg(&json),
    };
    const dure_usage usage = {"site list", "who was invited, who joined, who was revoked", args,
                              N_ARGS(args), "dure site list fed/admin"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed;
    desk d;
    dure_diag diag = {{0}};
    dure_err err = desk_open(&d, dir, false, &diag);
    int status = err ? dure_fail("site list", err, &diag) : print_list(&d, json);
    desk_close(&d);
    return status;
}

/* ---- revoke ---- */

/* Kept in DIR/admin, and put where the coordinator looks if it is on this machine. */
static dure_err hand_over(const desk *d, const invited *v, const dure_revocation *revocation,
                          dure_diag *diag)
{
    char file[DURE_REVOCATION_FILE_SIZE], kept[192], inbox[192];
    dure_buf bytes;
    dure_buf_init(&bytes, 256);
    dure_revocation_put(&bytes, revocation);
    dure_admin_revocation_file(file, v->name, v->invite_public);
    snprintf(kept, sizeof kept, "%s/%s", DURE_ADMIN_REVOCATIONS, file);
    snprintf(inbox, sizeof inbox, "%s/%s", DURE_FOLDER_INBOX, file);
    char *here = dure_path_join(d->admin.dir, kept);
    char *there = d->coordinator ? dure_path_join(d->coordinator, inbox) : NULL;
    dure_err err = here ? dure_buf_err(&bytes) : DURE_ERR_NOMEM;
    if (!err) err = dure_file_write_atomic(here, dure_buf_span(&bytes), 0644, diag);
    if (!err && there) err = dure_file_write_atomic(there, dure_buf_span(&bytes), 0644, diag);
    if (!err && !there)
        fprintf(stderr,
                "The coordinator's folder is not beside this one: copy %s to its %s folder.\n",
                here, DURE_FOLDER_INBOX);
    free(here);
    free(there);
    dure_buf_fini(&bytes);
    return err;
}

static dure_err revoke(size_t *n, const desk *d, const char *name, dure_diag *diag)
{
    dure_err err = DURE_OK;
    size_t known = 0;
    *n = 0;
    for (size_t i = 0; !err && i < d->n; i++) {
        const invited *v = &d->all[i];
        if (strcmp(v->name, name) != 0) continue;
        known++;
        if (v->revoked) continue;
        dure_revocation revocation = {.revoked_s = dure_clock_wall_s()};
        memcpy(revocation.invite_public, v->invite_public, 32);
        err = dure_revocation_sign(&revocation, &d->admin.root);
        if (!err) err = hand_over(d, v, &revocation, diag);
        if (!err) ++*n;
    }
    if (!err && known == 0)
        err = dure_diag_set(diag, DURE_ERR_NOT_FOUND,
                            "no site \"%s\" was invited; 'dure site list' shows who was", name);
    if (!err && *n == 0)
        err = dure_diag_set(diag, DURE_ERR_EXISTS, "\"%s\" was revoked already", name);
    return err;
}

static int site_revoke(int argc, char **argv)
{
    const char *dir = NULL, *name = NULL;
    bool json = false;
    const dure_arg args[] = {
        dure_admin_arg(&dir),
        OPERAND("NAME", name, "the site; all its invitations are taken back", .required = true),
        dure_json_arg(&json),
    };
    const dure_usage usage = {"site revoke", "puts a site out, signed by the root, at once", args,
                              N_ARGS(args), "dure site revoke fed/admin north"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed;
    desk d;
    dure_diag diag = {{0}};
    size_t n = 0;
    dure_err err = desk_open(&d, dir, true, &diag);
    if (!err) err = revoke(&n, &d, name, &diag);
    desk_close(&d);
    if (err) return dure_fail("site revoke", err, &diag);
    if (json)
        return dure_print_json(json_pack("{s:s, s:I}", "name", name, "revoked", (json_int_t)n));
    printf("%s is revoked\n", name);
    return 0;
}

/* ---- renew ---- */

/* The organisation of the site that has this name now. DURE_ERR_STATE when it never joined. */
static dure_err find_renewable(const char **organisation, const desk *d, const char *name,
                               dure_diag *diag)
{
    size_t known = 0;
    *organisation = NULL;
    for (size_t i = 0; i < d->n; i++) {
        const invited *v = &d->all[i];
        if (strcmp(v->name, name) != 0) continue;
        known++;
        /* Where the coordinator's folder is elsewhere, an invitation stands for who joined. */
        if (!v->revoked && (v->member || !d->roster)) *organisation = v->organisation;
    }
    if (*organisation) return DURE_OK;
    return known
               ? dure_diag_set(diag, DURE_ERR_STATE,
                               "\"%s\" is not in the federation now, so it has no keys to renew; "
                               "'dure invite' invites it",
                               name)
               : dure_diag_set(diag, DURE_ERR_NOT_FOUND,
                               "no site \"%s\" was invited; 'dure site list' shows who was", name);
}

/* The invitation first: should what follows fail, the site is still in. Then the old keys go. */
static dure_err renew(dure_invitation *inv, const desk *d, const dure_admin_guest *guest,
                      const char *path, dure_diag *diag)
{
    size_t n = 0;
    dure_err err = dure_admin_invite(inv, &d->admin, guest, path, diag);
    return err ? err : revoke(&n, d, guest->name, diag);
}

static int print_renewed(const dure_invitation *inv, const char *path, bool json)
{
    char until[DURE_CLOCK_TEXT_SIZE];
    dure_clock_text(until, inv->expires_s);
    if (json)
        return dure_print_json(
            json_pack("{s:s, s:s, s:s}", "name", inv->name, "file", path, "expires", until));
    printf("%s\n", path);
    fprintf(stderr,
            "%s's keys are refused from now on. New ones come with this invitation, until %s; send "
            "it as you would a password.\nThe site then runs: dure client renew SITE %s\n",
            inv->name, until, path);
    return 0;
}

static int site_renew(int argc, char **argv)
{
    const char *dir = NULL, *name = NULL, *out = NULL;
    uint64_t hours = 7 * 24;
    bool json = false;
    const dure_arg args[] = {
        dure_admin_arg(&dir),
        OPERAND("NAME", name, "the site; its present keys are taken back", .required = true),
        OPTION(TEXT, "out", out, "FILE", "the invitation for its new keys; default NAME.invitation",
               .letter = 'o'),
        OPTION(COUNT, "valid-hours", hours, "N", "hours until it expires; default 168", .least = 1,
               .most = 24 * 366),
        dure_json_arg(&json),
    };
    const dure_usage usage = {"site renew",
                              "gives a site new keys: the old ones are refused at once, its budget "
                              "and its name go on",
                              args, N_ARGS(args),
                              "dure site renew fed/admin north -o north.invitation"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed;
    char path[4096];
    snprintf(path, sizeof path, out ? "%s" : "%s.invitation", out ? out : name);
    desk d;
    dure_diag diag = {{0}};
    dure_admin_guest guest = {.name = name, .hours = hours};
    dure_invitation *inv = calloc(1, sizeof *inv);
    dure_err err = inv ? desk_open(&d, dir, true, &diag) : DURE_ERR_NOMEM;
    if (!err) err = find_renewable(&guest.organisation, &d, name, &diag);
    if (!err) err = renew(inv, &d, &guest, path, &diag);
    if (inv) desk_close(&d);
    const int status = err ? dure_fail("site renew", err, &diag) : print_renewed(inv, path, json);
    free(inv);
    return status;
}

int dure_cmd_site(int argc, char **argv)
{
    static const dure_verb verbs[] = {
        {"list", site_list, "who is invited, in, and revoked"},
        {"revoke", site_revoke, "put a site out at once"},
        {"renew", site_renew, "an invitation with which a site takes new keys"},
    };
    const dure_verbs table = {.command = "site",
                              .summary = "the federation's sites",
                              .usage = "DIR/admin [NAME] [options]",
                              .example = "dure site list fed/admin",
                              .verbs = verbs,
                              .n = N_ARGS(verbs)};
    return dure_args_verb(&table, argc, argv);
}
