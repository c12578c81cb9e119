/* Exported ledgers: structure, then the whole verification with a roster check that accepts. */
#include "ledger/verify.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static dure_err accept(void *state, dure_span roster, const uint8_t root_public[32],
                       const dure_event_roster *version, dure_diag *diag)
{
    (void)state;
    (void)roster;
    (void)root_public;
    (void)version;
    (void)diag;
    return DURE_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    dure_diag diag = {{0}};
    dure_export *export_ = NULL;
    const dure_verify_options options = {.roster_check = accept};
    dure_verify_report report = {0};
    dure_err err = dure_export_parse(&export_, dure_span_of(data, n), &diag);
    if (!err) err = dure_verify_export(&report, export_, &options, &diag);
    if (err && !diag.text[0]) abort(); /* every refusal says why */
    dure_verify_report_fini(&report);
    dure_export_free(&export_);
    return 0;
}
