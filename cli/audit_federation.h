/* What `dure audit` asks of the root-signed roster in an export: the three checks of
 * ledger/verify.h that need federation/, on one roster that is parsed once. */
#pragma once

#include "common/buf.h"
#include "common/err.h"
#include "federation/roster.h"
#include "ledger/verify.h"

#include <stdint.h>

typedef struct dure_audit_federation {
    dure_roster *roster;     /* all of the export's; NULL until the founding was checked */
    dure_roster *version;    /* the entries taken so far */
    const dure_terms *terms; /* borrowed from the roster; NULL while nobody joined */
    uint64_t *steps;         /* in sums so far, a number for each of dure_roster_at() */
} dure_audit_federation;

/* The options that make verification use `federation`, which starts as {0}. */
dure_verify_options dure_audit_options(dure_audit_federation *federation);
void dure_audit_federation_fini(dure_audit_federation *federation);
