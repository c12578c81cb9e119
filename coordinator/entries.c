#include "coordinator/entries.h"

#include "federation/invitation.h"

#include <stdio.h>
#include <string.h>

dure_err dure_entries_genesis(dure_event *out, const dure_terms *terms,
                              const uint8_t root_public[32], const uint8_t coordinator_sign[32],
                              int64_t now_s)
{
    memset(out, 0, sizeof *out);
    out->kind = DURE_EVENT_GENESIS;
    out->time_s = now_s;
    dure_event_genesis *g = &out->u.genesis;
    dure_err err = dure_federation_id(&g->federation_id, root_public, terms->federation);
    if (!err) err = dure_terms_hash(&g->terms, terms);
    if (err) return err;
    snprintf(g->federation, sizeof g->federation, "%s", terms->federation);
    memcpy(g->root_public, root_public, 32);
    memcpy(g->coordinator_sign, coordinator_sign, 32);
    g->collusion = terms->cohort.collusion;
    return DURE_OK;
}

void dure_entries_roster(dure_event *out, const dure_roster *roster, int64_t now_s)
{
    memset(out, 0, sizeof *out);
    out->kind = DURE_EVENT_ROSTER;
    out->time_s = now_s;
    out->u.roster.size = dure_roster_entries(roster);
    out->u.roster.head = dure_roster_head(roster);
    out->u.roster.n_sites = dure_roster_sites(out->u.roster.sites, roster);
}
