#include "cli/audit.h"

#include "common/file.h"
#include "common/json.h"

#include <stdio.h>

dure_arg dure_audit_file_arg(dure_audit_source *source)
{
    return (dure_arg)OPERAND("FILE", source->file, "what `dure audit export` wrote",
                             .required = true);
}

dure_arg dure_audit_checkpoint_arg(dure_audit_source *source)
{
    return (dure_arg)OPTION(TEXT, "checkpoint", source->checkpoint, "FILE",
                            "a site's checkpoint: shows that the ledger is the one that site saw");
}

dure_arg dure_audit_root_arg(dure_audit_source *source)
{
    return (dure_arg)OPTION(TEXT, "root", source->root, "HEX",
                            "the federation's root key, if you have it from elsewhere");
}

/* A file that cannot be taken apart is damaged at the first entry that is cut or does not have its
 * hash, which is often before the place where reading ends. */
static void blame_file(dure_audit *audit, dure_err err, dure_diag *diag)
{
    dure_verify_report *report = &audit->report;
    dure_verify_line *line = &report->lines[DURE_VERIFY_ENTRIES];
    uint64_t entry = 0;
    report->entry_known = dure_export_first_fault(&entry, dure_buf_span(&audit->bytes));
    report->bad_first = report->bad_last = entry;
    if (report->entry_known)
        (void)dure_diag_prefix(diag, err, "entry %llu is not whole", (unsigned long long)entry);
    line->outcome = DURE_OUTCOME_FAILED;
    (void)snprintf(line->text, sizeof line->text, "%.*s", (int)sizeof line->text - 1, diag->text);
}

dure_err dure_audit_open(dure_audit *out, const dure_audit_source *source, dure_diag *diag)
{
    *out = (dure_audit){0};
    uint8_t root[32];
    dure_verify_options options = dure_audit_options(&out->federation);
    if (source->root) {
        if (dure_hex_decode(root, sizeof root, source->root))
            return dure_diag_set(diag, DURE_ERR_USAGE, "--root needs 64 hex digits");
        options.root = root;
    }
    dure_err err = DURE_OK;
    if (source->checkpoint)
        err = dure_file_read(&out->note, source->checkpoint, DURE_NOTE_MAX, diag);
    /* No note at all is what verification takes for none given. */
    if (!err && source->checkpoint && out->note.n == 0)
        err = dure_diag_set(diag, DURE_ERR_FORMAT,
                            "%s is empty; give the checkpoint as the site keeps it, or leave "
                            "--checkpoint out",
                            source->checkpoint);
    if (!err) err = dure_file_read(&out->bytes, source->file, DURE_EXPORT_MAX, diag);
    if (err) return err;
    options.checkpoint = dure_buf_span(&out->note);
    err = dure_export_parse(&out->export_, dure_buf_span(&out->bytes), diag);
    if (err)
        blame_file(out, err, diag);
    else
        err = dure_verify_export(&out->report, out->export_, &options, diag);
    return err ? dure_diag_prefix(diag, err, "%s", source->file) : DURE_OK;
}

void dure_audit_close(dure_audit *audit)
{
    dure_verify_report_fini(&audit->report);
    dure_audit_federation_fini(&audit->federation);
    dure_export_free(&audit->export_);
    dure_buf_fini(&audit->bytes);
    dure_buf_fini(&audit->note);
}

json_t *dure_audit_checks_json(const dure_verify_report *report)
{
    json_t *checks = json_array();
    for (int i = 0; i < DURE_VERIFY_N; i++) {
        const dure_verify_line *line = &report->lines[i];
        json_t *check = json_pack(
            "{s:s, s:s, s:o}", "check", dure_verify_check_name((dure_verify_check)i), "outcome",
            dure_verify_outcome_text(line->outcome), "text", dure_json_from_text(line->text));
        if (json_array_append_new(checks, check)) {
            json_decref(checks);
            return NULL;
        }
    }
    return checks;
}
