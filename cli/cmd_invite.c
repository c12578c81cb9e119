/* dure invite: a one-time invitation, signed by the root. */
#include "cli/args.h"
#include "cli/commands.h"
#include "cli/federation.h"
#include "cli/output.h"
#include "common/clock.h"
#include "federation/invitation.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct options {
    const char *dir, *name, *out, *organisation;
    uint64_t hours;
    bool json;
} options;

/* What a site has to agree to, in joining. */
static const char *accepted(const dure_invitation *inv)
{
    switch (inv->terms.training.privacy_mode) {
    case DURE_PRIVACY_NONE:
        return " --accept-no-privacy";
    case DURE_PRIVACY_CLIENT:
        return " --epsilon 8 --accept-site-level";
    default:
        return " --epsilon 8";
    }
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
            "--model M.gguf%s\n",
            inv->name, inv->organisation, until, path, accepted(inv));
    return 0;
}

int dure_cmd_invite(int argc, char **argv)
{
    options o = {.hours = 7 * 24};
    const dure_arg args[] = {
        dure_admin_arg(&o.dir),
        OPERAND("NAME", o.name, "what the site will be called", .required = true),
        OPTION(TEXT, "out", o.out, "FILE", "the invitation; default NAME.invitation",
               .letter = 'o'),
        OPTION(TEXT, "organisation", o.organisation, "NAME",
               "whose site it is (the site's name); floors count organisations"),
        OPTION(COUNT, "valid-hours", o.hours, "N", "hours until it expires; default 168",
               .least = 1, .most = 24 * 366),
        dure_json_arg(&o.json),
    };
    const dure_usage usage = {"invite", "invites a site: one file, one use, signed by the root",
                              args, N_ARGS(args),
                              "dure invite fed/admin north -o north.invitation"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed;
    char path[4096];
    snprintf(path, sizeof path, "%s", o.out ? o.out : "");
    if (!o.out) snprintf(path, sizeof path, "%s.invitation", o.name);
    dure_admin admin;
    dure_diag diag = {{0}};
    dure_invitation *inv = calloc(1, sizeof *inv);
    dure_err err = inv ? dure_admin_open(&admin, o.dir, true, &diag) : DURE_ERR_NOMEM;
    bool again = false;
    const dure_admin_guest guest = {o.name, o.organisation ? o.organisation : o.name, o.hours};
    if (!err) err = dure_admin_invite(inv, &admin, &guest, path, &diag);
    if (!err) again = dure_admin_has_revoked(&admin, o.name);
    if (inv) dure_admin_close(&admin);
    int status = err ? dure_fail("invite", err, &diag) : print_invited(inv, path, o.json);
    if (again)
        fprintf(
            stderr,
            "%s was a site before: it takes part with the newest copy of the privacy ledger that "
            "it had. Records of somebody else come under another name.\n",
            o.name);
    free(inv);
    return status;
}
