/* What the verbs of `dure audit` share: an exported ledger, read and verified. */
#pragma once

#include "cli/args.h"
#include "cli/audit_federation.h"
#include "common/buf.h"
#include "common/err.h"
#include "ledger/export.h"
#include "ledger/verify.h"

#include <jansson.h>

/* What the command line says about the file and about what is known from elsewhere. */
typedef struct dure_audit_source {
    const char *file;
    const char *checkpoint; /* a site's checkpoint file, or NULL */
    const char *root;       /* the root key, 64 hex digits, or NULL */
} dure_audit_source;

dure_arg dure_audit_file_arg(dure_audit_source *source);
dure_arg dure_audit_checkpoint_arg(dure_audit_source *source);
dure_arg dure_audit_root_arg(dure_audit_source *source);

typedef struct dure_audit {
    dure_buf bytes, note; /* of the export and of the site's checkpoint */
    dure_export *export_; /* NULL when the file is malformed */
    dure_audit_federation federation;
    dure_verify_report report;
} dure_audit;

/* Reads and verifies. DURE_ERR_USAGE when the root key is no key; what dure_verify_export() finds
 * otherwise, `diag` beginning with the file's name. On failure the report says how far it got; a
 * file that cannot even be taken apart fails the first check. dure_audit_close() in every case. */
DURE_MUST_USE dure_err dure_audit_open(dure_audit *out, const dure_audit_source *source,
                                       dure_diag *diag);
void dure_audit_close(dure_audit *audit);

/* The outcome of every check, as JSON: [{"check", "outcome", "text"}]. NULL when out of memory. */
json_t *dure_audit_checks_json(const dure_verify_report *report);

int dure_cmd_audit_canary(int argc, char **argv);
int dure_cmd_audit_report(int argc, char **argv);
int dure_cmd_audit_verify(int argc, char **argv);
