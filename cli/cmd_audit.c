/* dure audit export|verify: the federation's ledger in one file, and its verification by anyone.
 * Verification needs the file alone: no key, no network, no access to the coordinator. */
#include "cli/args.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/json.h"
#include "coordinator/folder.h"
#include "crypto/wipe.h"
#include "federation/roster.h"
#include "ledger/verify.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_ARGS(args) (sizeof(args) / sizeof(args)[0])

/* ---- export ---- */

/* DIR, or DIR/coordinator where that is what DIR holds. */
static char *coordinator_dir(const char *dir)
{
    char *inner = dure_path_join(dir, "coordinator");
    if (inner && dure_file_exists(inner)) return inner;
    free(inner);
    return strdup(dir);
}

/* The roster's bytes as the coordinator keeps them; none yet is fine. */
static dure_err read_roster(dure_buf *out, const char *dir, dure_diag *diag)
{
    char *path = dure_path_join(dir, DURE_FOLDER_ROSTER);
    dure_buf_init(out, DURE_EXPORT_ROSTER_MAX);
    if (!path) return DURE_ERR_NOMEM;
    dure_err err = DURE_OK;
    if (dure_file_exists(path)) err = dure_file_read(out, path, DURE_EXPORT_ROSTER_MAX, diag);
    free(path);
    return err;
}

static dure_err export_to(const char *file, uint64_t *n_entries, const char *given, dure_diag *diag)
{
    dure_journal *journal = NULL;
    dure_buf roster = {0};
    char *dir = coordinator_dir(given);
    char *ledger = dir ? dure_path_join(dir, DURE_FOLDER_LEDGER) : NULL;
    dure_err err = ledger ? DURE_OK : DURE_ERR_NOMEM;
    /* The ledger first: the roster is then at least as new as what the ledger says of it. */
    if (!err) err = dure_journal_open(&journal, ledger, DURE_LEAF_LOG_READ, diag);
    if (!err) err = read_roster(&roster, dir, diag);
    if (!err) err = dure_export_write(file, journal, dure_buf_span(&roster), diag);
    if (!err) *n_entries = dure_leaf_log_size(dure_journal_log(journal));
    dure_journal_close(&journal);
    dure_buf_fini(&roster);
    free(ledger);
    free(dir);
    return err;
}

static int audit_export(int argc, char **argv)
{
    const char *dir = NULL, *file = NULL;
    bool json = false;
    const dure_arg args[] = {
        {.name = "DIR",
         .kind = DURE_ARG_OPERAND,
         .out = &dir,
         .help = "the coordinator's folder, DIR/coordinator",
         .required = true},
        {.name = "out",
         .kind = DURE_ARG_TEXT,
         .out = &file,
         .value = "FILE",
         .help = "where to write the ledger",
         .required = true,
         .letter = 'o'},
        {.name = "json", .kind = DURE_ARG_FLAG, .out = &json, .help = "print JSON"},
    };
    const dure_usage usage = {"audit export",
                              "writes the federation's ledger to one file that anyone can verify",
                              args, N_ARGS(args), "dure audit export fed/coordinator -o fed.dure"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed == DURE_ARGS_HELP ? 0 : 2;
    dure_diag diag = {0};
    uint64_t n = 0;
    dure_err err = export_to(file, &n, dir, &diag);
    if (err) return dure_fail("audit export", err, &diag);
    if (json) {
        return dure_print_json(json_pack("{s:s, s:I}", "file", file, "entries", (json_int_t)n));
    }
    fprintf(stderr, "%llu entries are in %s.\n", (unsigned long long)n, file);
    return 0;
}

/* ---- verify ---- */

/* The chain up to `n` entries, rebuilt with every signature checked. */
static dure_err roster_prefix(dure_roster **out, const dure_roster *whole, uint64_t n,
                              const uint8_t root_public[32], dure_diag *diag)
{
    *out = NULL;
    if (n > dure_roster_entries(whole)) {
        return dure_diag_set(diag, DURE_ERR_AUTH,
                             "the roster in the file has %zu entries, fewer than the %llu the "
                             "ledger says",
                             dure_roster_entries(whole), (unsigned long long)n);
    }
    dure_err err = dure_roster_new(out, root_public);
    for (size_t i = 0; !err && i < n; i++)
        err = dure_roster_append(*out, dure_roster_entry(whole, i), diag);
    if (err) dure_roster_free(out);
    return err;
}

/* Exactly the ledger's sites are in force, with the keys it gives. */
static dure_err check_sites(const dure_roster *roster, const dure_event_roster *version,
                            dure_diag *diag)
{
    if (dure_roster_in_force(roster) != version->n_sites) {
        return dure_diag_set(diag, DURE_ERR_AUTH,
                             "%zu sites are in force in the root-signed roster, %u in the ledger",
                             dure_roster_in_force(roster), version->n_sites);
    }
    for (uint32_t i = 0; i < version->n_sites; i++) {
        const dure_site_key *site = &version->sites[i];
        const dure_roster_member *member = dure_roster_by_name(roster, site->name);
        if (!member || !dure_ct_equal(member->join.sign_public, site->sign_public, 32)) {
            return dure_diag_set(diag, DURE_ERR_AUTH,
                                 "the site %s is not in the root-signed roster with that key",
                                 site->name);
        }
    }
    return DURE_OK;
}

/* A dure_roster_check over federation/roster.h. */
static dure_err check_roster(void *state, dure_span bytes, const uint8_t root_public[32],
                             const dure_event_roster *version, dure_diag *diag)
{
    dure_roster *whole = NULL, *prefix = NULL;
    (void)state;
    dure_err err = dure_roster_parse(&whole, root_public, bytes, diag);
    if (!err) err = roster_prefix(&prefix, whole, version->size, root_public, diag);
    if (!err) {
        dure_hash head = dure_roster_head(prefix);
        if (!dure_hash_equal(&head, &version->head)) {
            err = dure_diag_set(diag, DURE_ERR_AUTH,
                                "the roster is not the root-signed one in the file");
        }
    }
    if (!err) err = check_sites(prefix, version, diag);
    dure_roster_free(&prefix);
    dure_roster_free(&whole);
    return err;
}

/* JSON has no infinity: what is not finite becomes null. */
static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *time_json(int64_t time_s)
{
    char text[DURE_CLOCK_TEXT_SIZE];
    if (time_s == 0) return json_null();
    dure_clock_text(text, time_s);
    return json_string(text);
}

static json_t *sites_json(const dure_verify_report *r)
{
    json_t *sites = json_array();
    for (size_t i = 0; i < r->n_accounts; i++) {
        const dure_account *a = &r->accounts[i];
        json_t *site = json_pack("{s:s, s:o, s:I, s:I, s:I, s:o, s:o}", "name", a->name, "key",
                                 dure_json_from_hex(a->sign_public, 32), "rounds",
                                 (json_int_t)a->rounds, "rounds_without_end",
                                 (json_int_t)a->rounds_open, "steps", (json_int_t)a->steps,
                                 "epsilon", number(a->epsilon), "delta", number(a->delta));
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
        "s:o, s:o}",
        "verified", 1, "federation", r->genesis.federation, "federation_id",
        dure_json_from_hex(r->genesis.federation_id.b, 32), "root",
        dure_json_from_hex(r->genesis.root_public, 32), "entries", (json_int_t)r->n_leaves,
        "checkpoints", (json_int_t)r->n_checkpoints, "first_time", time_json(t->first_s),
        "last_time", time_json(t->last_s), "shown_entries", (json_int_t)r->shown_n, "shown_time",
        time_json((int64_t)r->shown_time), "site_checkpoint",
        r->site_checkpoint ? json_integer((json_int_t)r->site_n) : json_null(), "rounds", "opened",
        (json_int_t)t->opened, "closed", (json_int_t)t->closed, "aborted", (json_int_t)t->aborted,
        "promoted", (json_int_t)t->promoted, "rolled_back", (json_int_t)t->rolled_back, "epochs",
        (json_int_t)t->epochs, "adapter", dure_json_from_hex(t->adapter.b, 32), "sites",
        sites_json(r));
}

/* Says that the file does not stand: one object with --json, and the sentence in any case. */
static int refuse(const dure_verify_report *r, dure_err err, const dure_diag *diag, bool json)
{
    if (json) {
        json_t *first = r->entry_known ? json_integer((json_int_t)r->bad_first) : json_null();
        json_t *last = r->entry_known ? json_integer((json_int_t)r->bad_last) : json_null();
        (void)dure_print_json(json_pack("{s:b, s:o, s:o, s:s}", "verified", 0, "entry", first,
                                        "last_entry", last, "error", diag->text));
    }
    return dure_fail("audit verify", err, diag);
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

static void print_account(const dure_account *a)
{
    char epsilon[32];
    if (isfinite(a->epsilon))
        snprintf(epsilon, sizeof epsilon, "%.4f", a->epsilon);
    else
        snprintf(epsilon, sizeof epsilon, "no privacy");
    printf("%-24s  %6llu  %8llu  %10s  %9.2e", a->name, (unsigned long long)a->rounds,
           (unsigned long long)a->steps, epsilon, a->delta);
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
    printf("verified    every entry, signature and proof of the ledger of %s\n",
           r->genesis.federation);
    printf("root key    %s\n", hex);
    printf("entries     %llu, %s to %s\n", (unsigned long long)r->n_leaves, first, last);
    printf("rounds      %llu closed, %llu aborted, %llu without an end\n",
           (unsigned long long)t->closed, (unsigned long long)t->aborted,
           (unsigned long long)(t->opened - t->closed - t->aborted));
    print_shown(r);
    if (r->n_accounts == 0) return;
    printf("\n%-24s  %6s  %8s  %10s  %9s\n", "SITE", "ROUNDS", "STEPS", "EPSILON", "DELTA");
    for (size_t i = 0; i < r->n_accounts; i++)
        print_account(&r->accounts[i]);
}

static dure_err verify_file(dure_verify_report *report, const char *file,
                            const dure_verify_options *options, dure_diag *diag)
{
    dure_buf bytes;
    dure_export *export_ = NULL;
    dure_err err = dure_file_read(&bytes, file, DURE_EXPORT_MAX, diag);
    if (err) return err;
    err = dure_export_parse(&export_, dure_buf_span(&bytes), diag);
    if (!err) err = dure_verify_export(report, export_, options, diag);
    if (err) err = dure_diag_prefix(diag, err, "%s", file);
    dure_export_free(&export_);
    dure_buf_fini(&bytes);
    return err;
}

typedef struct verify_args {
    const char *file, *checkpoint, *root;
    bool json;
} verify_args;

static int run_verify(const verify_args *args, const dure_usage *usage)
{
    dure_diag diag = {0};
    dure_buf note = {0};
    uint8_t root[32];
    dure_verify_report report = {0};
    dure_verify_options options = {.roster_check = check_roster};
    if (args->root) {
        if (dure_hex_decode(root, sizeof root, args->root)) {
            return dure_args_refuse(usage, "--root needs 64 hex digits");
        }
        options.root = root;
    }
    dure_err err = DURE_OK;
    if (args->checkpoint) err = dure_file_read(&note, args->checkpoint, DURE_NOTE_MAX, &diag);
    if (!err) {
        options.checkpoint = dure_buf_span(&note);
        err = verify_file(&report, args->file, &options, &diag);
    }
    int status = 0;
    if (err) {
        status = refuse(&report, err, &diag, args->json);
    } else if (args->json) {
        status = dure_print_json(report_json(&report));
    } else {
        print_report(&report);
    }
    dure_verify_report_fini(&report);
    dure_buf_fini(&note);
    return status;
}

static int audit_verify(int argc, char **argv)
{
    verify_args v = {0};
    const dure_arg args[] = {
        {.name = "FILE",
         .kind = DURE_ARG_OPERAND,
         .out = &v.file,
         .help = "what `dure audit export` wrote",
         .required = true},
        {.name = "checkpoint",
         .kind = DURE_ARG_TEXT,
         .out = &v.checkpoint,
         .value = "FILE",
         .help = "a site's checkpoint: shows that the ledger is the one that site saw"},
        {.name = "root",
         .kind = DURE_ARG_TEXT,
         .out = &v.root,
         .value = "HEX",
         .help = "the federation's root key, if you have it from elsewhere"},
        {.name = "json", .kind = DURE_ARG_FLAG, .out = &v.json, .help = "print JSON"},
    };
    const dure_usage usage = {
        "audit verify",
        "recomputes every hash, signature, proof and each site's epsilon from an exported ledger",
        args, N_ARGS(args), "dure audit verify fed.dure --checkpoint site/checkpoint"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed == DURE_ARGS_HELP ? 0 : 2;
    return run_verify(&v, &usage);
}

int dure_cmd_audit(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(int argc, char **argv);
        const char *summary;
    } verbs[] = {
        {"export", audit_export, "write the ledger to one file"},
        {"verify", audit_verify, "check such a file, and recompute what each site spent"},
    };
    const char *verb = argc > 1 ? argv[1] : "";
    for (size_t i = 0; i < N_ARGS(verbs); i++) {
        if (!strcmp(verb, verbs[i].name)) return verbs[i].run(argc - 1, argv + 1);
    }
    bool help = !strcmp(verb, "--help");
    FILE *to = help ? stdout : stderr;
    if (*verb && !help) fprintf(to, "dure audit: there is no '%s'\n\n", verb);
    fprintf(to, "dure audit: the federation's ledger, for anyone to verify\n\n"
                "Usage: dure audit VERB DIR|FILE [options]\n\n");
    for (size_t i = 0; i < N_ARGS(verbs); i++)
        fprintf(to, "  %-10s %s\n", verbs[i].name, verbs[i].summary);
    fprintf(to, "\nExample:\n  dure audit export fed/coordinator -o fed.dure\n"
                "  dure audit verify fed.dure\n");
    return help ? 0 : 2;
}
