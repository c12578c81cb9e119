/* dure audit verify: the check of an exported ledger. It needs the file alone: no private key, no
 * network, no access to the coordinator. */
#include "cli/args.h"
#include "cli/audit.h"
#include "cli/output.h"
#include "common/clock.h"
#include "common/json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static json_t *sites_json(const dure_verify_report *r)
{
    json_t *sites = json_array();
    for (size_t i = 0; i < r->n_accounts; i++) {
        const dure_account *a = &r->accounts[i];
        json_t *site = json_pack(
            "{s:s, s:o, s:I, s:I, s:I, s:s, s:o, s:o, s:o}", "name", a->name, "key",
            dure_json_from_hex(a->sign_public, 32), "rounds", (json_int_t)a->rounds,
            "rounds_without_end", (json_int_t)a->rounds_open, "steps", (json_int_t)a->steps, "unit",
            a->unit, "epsilon", dure_json_from_double(a->epsilon), "epsilon_rdp",
            dure_json_from_double(a->epsilon_rdp), "delta", dure_json_from_double(a->delta));
        if (json_array_append_new(sites, site)) {
            json_decref(sites);
            return NULL;
        }
    }
    return sites;
}

static json_t *report_json(const dure_verify_report *r)
{
    const dure_replay_totals *t = &r->totals;
    return json_pack(
        "{s:b, s:s, s:o, s:o, s:I, s:I, s:o, s:o, s:I, s:o, s:o, s:{s:I, s:I, s:I}, s:I, s:I, s:I, "
        "s:o, s:o, s:o}",
        "verified", 1, "federation", r->genesis.federation, "federation_id",
        dure_json_from_hex(r->genesis.federation_id.b, 32), "root",
        dure_json_from_hex(r->genesis.root_public, 32), "entries", (json_int_t)r->n_leaves,
        "checkpoints", (json_int_t)r->n_checkpoints, "first_time", dure_json_from_time(t->first_s),
        "last_time", dure_json_from_time(t->last_s), "shown_entries", (json_int_t)r->shown_n,
        "shown_time", dure_json_from_time((int64_t)r->shown_time), "site_checkpoint",
        r->site_checkpoint ? json_integer((json_int_t)r->site_n) : json_null(), "rounds", "opened",
        (json_int_t)t->opened, "closed", (json_int_t)t->closed, "aborted", (json_int_t)t->aborted,
        "promoted", (json_int_t)t->promoted, "rolled_back", (json_int_t)t->rolled_back, "epochs",
        (json_int_t)t->epochs, "adapter", dure_json_from_hex(t->adapter.b, 32), "sites",
        sites_json(r), "checks", dure_audit_checks_json(r));
}

/* The entry or checkpoint at fault is null where the failure is not about one. */
static json_t *failure_json(const dure_verify_report *r, const dure_diag *diag)
{
    json_t *first = r->entry_known ? json_integer((json_int_t)r->bad_first) : json_null();
    json_t *last = r->entry_known ? json_integer((json_int_t)r->bad_last) : json_null();
    json_t *checkpoint =
        r->bad_checkpoint ? json_integer((json_int_t)r->bad_checkpoint) : json_null();
    return json_pack("{s:b, s:o, s:o, s:o, s:o, s:o}", "verified", 0, "entry", first, "last_entry",
                     last, "checkpoint", checkpoint, "checks", dure_audit_checks_json(r), "error",
                     dure_json_from_text(diag->text));
}

static void print_checks(const dure_verify_report *r)
{
    for (int i = 0; i < DURE_VERIFY_N; i++) {
        const dure_verify_line *line = &r->lines[i];
        printf("%-12s %-14s %s\n", dure_verify_outcome_text(line->outcome),
               dure_verify_check_name((dure_verify_check)i), line->text);
    }
}

static void print_shown(const dure_verify_report *r)
{
    char text[DURE_CLOCK_TEXT_SIZE];
    if (r->shown_n == 0) {
        printf(
            "cosigned    not yet: no checkpoint has the cosignatures of enough sites, so nothing "
            "shows that entries were not withheld\n");
    } else {
        dure_clock_text(text, (int64_t)r->shown_time);
        printf("cosigned    complete up to entry %llu, as enough sites saw it at %s\n",
               (unsigned long long)(r->shown_n - 1), text);
    }
    if (r->site_checkpoint) {
        printf("checkpoint  the %llu entries that the site has seen are in this ledger\n",
               (unsigned long long)r->site_n);
    }
}

static void format_epsilon(char text[32], double epsilon)
{
    if (isfinite(epsilon))
        snprintf(text, 32, "%.4f", epsilon);
    else
        snprintf(text, 32, "no privacy");
}

static void print_account(const dure_account *a, int name_width)
{
    char epsilon[32], rdp[32];
    format_epsilon(epsilon, a->epsilon);
    format_epsilon(rdp, a->epsilon_rdp);
    printf("%-*s  %6llu  %8llu  %-8s  %10s  %10s  %9.2e", name_width, a->name,
           (unsigned long long)a->rounds, (unsigned long long)a->steps, a->unit, epsilon, rdp,
           a->delta);
    if (a->rounds_open > 0) {
        printf("  (%llu without an end, counted as spent)", (unsigned long long)a->rounds_open);
    }
    printf("\n");
}

static void print_report(const dure_verify_report *r)
{
    const dure_replay_totals *t = &r->totals;
    char hex[65], first[DURE_CLOCK_TEXT_SIZE], last[DURE_CLOCK_TEXT_SIZE];
    dure_hex_encode(hex, r->genesis.root_public, 32);
    dure_clock_text(first, t->first_s);
    dure_clock_text(last, t->last_s);
    printf("\nverified    every entry, signature and proof of the ledger of %s\n",
           r->genesis.federation);
    printf("root key    %s\n", hex);
    printf("entries     %llu, %s to %s\n", (unsigned long long)r->n_leaves, first, last);
    printf("rounds      %llu closed, %llu aborted, %llu without an end\n",
           (unsigned long long)t->closed, (unsigned long long)t->aborted,
           (unsigned long long)(t->opened - t->closed - t->aborted));
    print_shown(r);
    if (r->n_accounts == 0) return;
    int width = 4;
    for (size_t i = 0; i < r->n_accounts; i++) {
        int n = (int)strlen(r->accounts[i].name);
        if (n > width) width = n;
    }
    printf("\n%-*s  %6s  %8s  %-8s  %10s  %10s  %9s\n", width, "SITE", "ROUNDS", "STEPS", "FOR ONE",
           "EPSILON", "BY RDP", "DELTA");
    for (size_t i = 0; i < r->n_accounts; i++)
        print_account(&r->accounts[i], width);
}

static int run_verify(const dure_audit_source *source, bool json, const dure_usage *usage)
{
    dure_diag diag = {0};
    dure_audit audit;
    int status = 0;
    dure_err err = dure_audit_open(&audit, source, &diag);
    if (err == DURE_ERR_USAGE) return dure_args_refuse(usage, "%s", diag.text);
    if (json) {
        int printed =
            dure_print_json(err ? failure_json(&audit.report, &diag) : report_json(&audit.report));
        status = err ? dure_fail("audit verify", err, &diag) : printed;
    } else {
        if (audit.bytes.n) print_checks(&audit.report); /* there was a file to check */
        if (err)
            status = dure_fail("audit verify", err, &diag);
        else
            print_report(&audit.report);
    }
    dure_audit_close(&audit);
    return status;
}

int dure_cmd_audit_verify(int argc, char **argv)
{
    dure_audit_source source = {0};
    bool json = false;
    const dure_arg args[] = {
        dure_audit_file_arg(&source),
        dure_audit_checkpoint_arg(&source),
        dure_audit_root_arg(&source),
        dure_json_arg(&json),
    };
    const dure_usage usage = {
        "audit verify",
        "recomputes every hash, signature, proof and each site's epsilon from an exported ledger; "
        "one line a check",
        args, N_ARGS(args), "dure audit verify fed.dure --checkpoint site/checkpoint"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed;
    return run_verify(&source, json, &usage);
}
