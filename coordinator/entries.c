#include "coordinator/entries.h"

#include "federation/invitation.h"

#include <stdio.h>
#include <stdlib.h>
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

static int by_name(const void *a, const void *b)
{
    return strcmp(((const dure_event_site *)a)->name, ((const dure_event_site *)b)->name);
}

void dure_entries_roster(dure_event *out, const dure_roster *roster, int64_t now_s)
{
    memset(out, 0, sizeof *out);
    out->kind = DURE_EVENT_ROSTER;
    out->time_s = now_s;
    dure_event_roster *r = &out->u.roster;
    r->size = dure_roster_entries(roster);
    r->head = dure_roster_head(roster);
    for (size_t i = 0; i < dure_roster_count(roster); i++) {
        const dure_roster_member *m = dure_roster_at(roster, i);
        if (m->revoked || r->n_sites >= DURE_EVENT_MEMBERS_MAX) continue;
        dure_event_site *site = &r->sites[r->n_sites++];
        snprintf(site->name, sizeof site->name, "%s", m->join.invitation.name);
        memcpy(site->sign_public, m->join.sign_public, 32);
    }
    qsort(r->sites, r->n_sites, sizeof *r->sites, by_name);
}

static dure_dp_plan plan_of(const dure_config *c, const dure_member *m)
{
    return (dure_dp_plan){
        .mechanism = DURE_DP_POISSON_GAUSSIAN,
        .full = m->q_k == 0,
        .q_k = m->q_k,
        .sigma_num = m->sigma_num,
        .clip = c->clip,
        .grid_bits = c->grid_bits,
        .steps = c->local_steps,
        .n_pub = m->n_pub,
        .batch = m->batch,
    };
}

static dure_event_part part_of(dure_event_kind kind, const dure_outcome *outcome, uint32_t i)
{
    if (kind == DURE_EVENT_OPENED) return DURE_PART_NONE;
    if (kind == DURE_EVENT_CLOSED && dure_members_has(&outcome->u3, i)) return DURE_PART_SUMMED;
    return dure_members_has(&outcome->u2, i) ? DURE_PART_UPLOADED : DURE_PART_NONE;
}

void dure_entries_round(dure_event *out, dure_event_kind kind, const dure_config *c,
                        const dure_outcome *outcome, int64_t now_s)
{
    memset(out, 0, sizeof *out);
    out->kind = kind;
    out->time_s = now_s;
    dure_event_round *r = &out->u.round;
    r->run_id = c->run_id;
    r->round = c->round;
    r->h_c = outcome->config_hash;
    r->roster_size = c->roster_size;
    memcpy(r->roster_head.b, c->roster_hash, sizeof r->roster_head.b);
    r->checkpoint_n = c->checkpoint_size;
    r->checkpoint_n = c->checkpoint_size;
    r->privacy_mode = c->privacy_mode;
    memcpy(r->base.b, c->base_digest, sizeof r->base.b);
    memcpy(r->adapter_in.b, c->adapter_digest, sizeof r->adapter_in.b);
    if (kind != DURE_EVENT_OPENED) r->t3 = outcome->t3;
    if (kind == DURE_EVENT_CLOSED) {
        r->adapter_out = outcome->adapter_out;
        r->result = outcome->sum;
        r->gate = outcome->gate;
    }
    if (kind == DURE_EVENT_ABORTED)
        snprintf(r->reason, sizeof r->reason, "%s", outcome->reason ? outcome->reason : "");
    r->n_members = c->n_members;
    for (uint32_t i = 0; i < c->n_members; i++) {
        dure_event_member *m = &r->members[i];
        snprintf(m->name, sizeof m->name, "%s", c->members[i].name);
        memcpy(m->sign_public, c->members[i].sign_public, sizeof m->sign_public);
        m->part = part_of(kind, outcome, i);
        m->plan = plan_of(c, &c->members[i]);
    }
}
