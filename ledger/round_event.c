#include "ledger/round_event.h"

#include <stdio.h>
#include <string.h>

static dure_dp_plan plan_of(const dure_config *c, const dure_member *m)
{
    dure_dp_plan plan = {
        .mechanism = c->privacy_mode == DURE_PRIVACY_SUBJECT ? DURE_DP_POISSON_GAUSSIAN_SUBJECTS
                                                             : DURE_DP_POISSON_GAUSSIAN,
        .full = m->q_k == 0,
        .q_k = m->q_k,
        .sigma_num = m->sigma_num,
        .clip = c->clip,
        .grid_bits = c->grid_bits,
        .steps = c->local_steps,
        .n_pub = m->n_pub,
        .batch = m->batch,
    };
    if (c->privacy_mode != DURE_PRIVACY_CLIENT) return plan;
    /* As federation/plan.h says: the round is one step of the whole site. */
    plan.mechanism = DURE_DP_SITE_GAUSSIAN;
    plan.full = true;
    plan.q_k = 0;
    plan.steps = 1;
    plan.batch = m->n_pub;
    plan.honest = c->u_min - c->collusion;
    plan.n_params = c->n_words;
    return plan;
}

static dure_event_part part_of(dure_event_kind kind, const dure_round_outcome *outcome, uint32_t i)
{
    if (kind == DURE_EVENT_OPENED) return DURE_PART_NONE;
    if (kind == DURE_EVENT_CLOSED && dure_members_has(&outcome->u3, i)) return DURE_PART_SUMMED;
    return dure_members_has(&outcome->u2, i) ? DURE_PART_UPLOADED : DURE_PART_NONE;
}

void dure_round_event_make(dure_event *out, dure_event_kind kind, const dure_config *c,
                           const dure_round_outcome *outcome, int64_t now_s)
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
    r->sum = (dure_event_sum){.suite = c->suite,
                              .threshold = c->threshold,
                              .u_min = c->u_min,
                              .collusion = c->collusion,
                              .n_words = c->n_words,
                              .word_bits = c->word_bits};
    r->n_members = c->n_members;
    for (uint32_t i = 0; i < c->n_members; i++) {
        dure_event_member *m = &r->members[i];
        snprintf(m->name, sizeof m->name, "%s", c->members[i].name);
        memcpy(m->sign_public, c->members[i].sign_public, sizeof m->sign_public);
        m->part = part_of(kind, outcome, i);
        m->plan = plan_of(c, &c->members[i]);
    }
}
