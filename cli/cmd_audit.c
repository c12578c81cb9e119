/* dure audit: the federation's ledger in one file, for anyone to verify. Here: export. */
#include "cli/args.h"
#include "cli/audit.h"
#include "cli/commands.h"
#include "cli/federation.h"
#include "cli/output.h"
#include "common/file.h"
#include "coordinator/folder.h"
#include "ledger/journal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    char *dir = dure_federation_part(given, "coordinator");
    char *ledger = dir ? dure_path_join(dir, DURE_FOLDER_LEDGER) : NULL;
    dure_err err = ledger ? DURE_OK : DURE_ERR_NOMEM;
    if (!err && !dure_file_exists(ledger))
        err =
            dure_diag_set(diag, DURE_ERR_NOT_FOUND,
                          "%s has no ledger: give the folder of a coordinator that has run", given);
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
        dure_coordinator_arg(&dir),
        OPTION(TEXT, "out", file, "FILE", "where to write the ledger", .required = true,
               .letter = 'o'),
        dure_json_arg(&json),
    };
    const dure_usage usage = {"audit export",
                              "writes the federation's ledger to one file that anyone can verify",
                              args, N_ARGS(args), "dure audit export fed/coordinator -o fed.dure"};
    dure_args_result parsed = dure_args_parse(&usage, argc, argv);
    if (parsed != DURE_ARGS_RUN) return parsed;
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

int dure_cmd_audit(int argc, char **argv)
{
    static const dure_verb verbs[] = {
        {"export", audit_export, "write the ledger to one file"},
        {"verify", dure_cmd_audit_verify, "check such a file, and recompute what each site spent"},
        {"report", dure_cmd_audit_report, "the same as a page to read and print, and as JSON"},
        {"canary", dure_cmd_audit_canary, "train with planted records: the loss that can be shown"},
    };
    const dure_verbs table = {.command = "audit",
                              .summary = "the federation's ledger, for anyone to verify",
                              .usage = "DIR|FILE [options]",
                              .example =
                                  "dure audit export fed/coordinator -o fed.dure\n  dure audit "
                                  "verify fed.dure\n  dure audit report fed.dure -o fed.html",
                              .verbs = verbs,
                              .n = N_ARGS(verbs)};
    return dure_args_verb(&table, argc, argv);
}
