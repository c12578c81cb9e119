/* dure invite: a one-time invitation, signed by the root. */
#include "cli/args.h"
#include "cli/commands.h"
#include "cli/federation.h"
#include "cli/output.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/json.h"
#include "coordinator/founding.h"
#include "crypto/wipe.h"
#include "federation/invitation.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_ARGS(args) (sizeof(args) / sizeof(args)[0])

typedef struct options {
    const char *dir, *name, *out, *organisation;
    uint64_t hours;
    bool json;
} options;

/* What the admin keeps of an invitation: enough to list and to revoke it, not to use it. */
static dure_err remember(const dure_admin *admin, const dure_invitation *inv, dure_diag *diag)
{
    char hex[65], file[160];
    dure_hex_encode(hex, inv->invite_public, 32);
    snprintf(file, sizeof file, "%s/%s-%.8s.json", DURE_ADMIN_INVITATIONS, inv->name, hex);
    char *path = dure_path_join(admin->dir, file);
    json_t *record = json_pack("{s:s, s:s, s:s, s:I, s:I}", "name", inv->name, "organisation",
                               inv->organisation, "invite_public", hex, "issued",
                               (json_int_t)inv->issued_s, "expires", (json_int_t)inv->expires_s);
    dure_err err = path && record ? dure_json_write(path, record, 0644, diag) : DURE_ERR_NOMEM;
    json_decref(record);
    free(path);
    return err;
}

static dure_err invite(dure_invitation *inv, const dure_admin *admin, const options *o,
                       const char *path, dure_diag *diag)
{
    dure_sign_key key;
    dure_err err = dure_name_check(o->name, "the site's name", diag);
    if (!err)
        err =
            dure_name_check(o->organisation ? o->organisation : o->name, "the organisation", diag);
    if (err) return err;
    *inv = (dure_invitation){.issued_s = dure_clock_wall_s(), .terms = admin->settings.terms};
    inv->expires_s = inv->issued_s + (int64_t)o->hours * 3600;
    snprintf(inv->name, sizeof inv->name, "%s", o->name);
    snprintf(inv->organisation, sizeof inv->organisation, "%s",
             o->organisation ? o->organisation : o->name);
    memcpy(inv->endpoint, admin->settings.endpoint, sizeof inv->endpoint);
    memcpy(inv->coordinator_sign, admin->coordinator_sign, 32);
    memcpy(inv->coordinator_curve, admin->coordinator_curve, 32);
    err = dure_sign_generate(&key);
    if (!err) err = dure_invitation_sign(inv, &key, &admin->root, diag);
    /* Remembered first: an invitation that the admin does not know could not be revoked. */
    if (!err) err = remember(admin, inv, diag);
    if (!err) err = dure_invitation_write(path, inv, &key, diag);
    dure_wipe(&key, sizeof key);
    return err;
}

static int print_invited(const dure_invitation *inv, const char *path, bool json)
{
    char until[DURE_CLOCK_TEXT_SIZE];
    dure_clock_text(until, inv->expires_s);
    if (json)
        return dure_print_json(json_pack("{s:s, s:s, s:s, s:s}", "name", inv->name, "organisation",
                                         inv->organisation, "file", path, "expires", until));
    printf("%s\n", path);
    fprintf(stderr,
            "Invitation for %s (%s), until %s. It works once: send it as you would a password.\n"
            "The site then runs: dure join %s DIR --data D.jsonl --source NAME --records N "
            "--model M.gguf --epsilon 8\n",
            inv->name, inv->organisation, until, path);
    return 0;
}

int dure_cmd_invite(int argc, char **argv)
{
    options o = {.hours = 7 * 24};
    const dure_arg args[] = {
        {.name = "DIR",
         .kind = DURE_ARG_OPERAND,
         .out = &o.dir,
         .help = "the admin folder, DIR/admin",
         .required = true},
        {.name = "NAME",
         .kind = DURE_ARG_OPERAND,
         .out = &o.name,
         .help = "what the site will be called",
         .required = true},
        {.name = "output",
         .kind = DURE_ARG_TEXT,
         .out = &o.out,
         .value = "FILE",
         .help = "the invitation (NAME.invitation)",
         .letter = 'o'},
        {.name = "organisation",
         .kind = DURE_ARG_TEXT,
         .out = &o.organisation,
         .value = "NAME",
         .help = "whose site it is (the site's name); floors count organisations"},
        {.name = "valid-hours",
         .kind = DURE_ARG_COUNT,
         .out = &o.hours,
         .value = "N",
         .help = "hours until it expires (168)"},
        {.name = "json", .kind = DURE_ARG_FLAG, .out = &o.json, .help = "print JSON"},
    };
    const dure_usage usage = {"invite", "invite a site: one file, one use, signed by the root",
                              args, N_ARGS(args),
                              "dure invite fed/admin north -o north.invitation"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed == DURE_ARGS_HELP ? 0 : 2;
    if (o.hours == 0 || o.hours > 24 * 366)
        return dure_args_refuse(&usage, "--valid-hours must be from 1 to %d", 24 * 366);
    char path[4096];
    snprintf(path, sizeof path, "%s", o.out ? o.out : "");
    if (!o.out) snprintf(path, sizeof path, "%s.invitation", o.name);
    dure_admin admin;
    dure_diag diag = {{0}};
    dure_invitation *inv = calloc(1, sizeof *inv);
    dure_err err = inv ? dure_admin_open(&admin, o.dir, true, &diag) : DURE_ERR_NOMEM;
    if (!err) err = invite(inv, &admin, &o, path, &diag);
    if (inv) dure_admin_close(&admin);
    int status = err ? dure_fail("invite", err, &diag) : print_invited(inv, path, o.json);
    free(inv);
    return status;
}
