/* Collecting: one pass over the verified leaves, with a replay of its own for the curves. */
#include "ledger/statement_int.h"

#include "dp/calibrate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct collector {
    dure_statement *out;
    dure_replay *replay;
    dure_event *event;
    uint64_t n_ends, every; /* a curve has a point for each `every`-th end of a round */
} collector;

static bool is_end(dure_event_kind kind)
{
    return kind == DURE_EVENT_CLOSED || kind == DURE_EVENT_ABORTED;
}

static bool is_act(dure_event_kind kind)
{
    return kind == DURE_EVENT_PROMOTED || kind == DURE_EVENT_ROLLED_BACK ||
           kind == DURE_EVENT_NEW_EPOCH;
}

/* ---- room: the counts are known before anything is filled ---- */

static dure_err count(collector *c, const dure_export *export_)
{
    size_t n_rounds = 0, n_acts = 0;
    uint64_t n_ends = 0;
    for (size_t i = 0; i < export_->n_leaves; i++) {
        dure_err err = dure_event_decode(c->event, export_->leaves[i].bytes, NULL);
        if (err) return err;
        n_rounds += c->event->kind == DURE_EVENT_OPENED;
        n_ends += is_end(c->event->kind);
        n_acts += is_act(c->event->kind);
    }
    /* An accountant runs for every point, so many sites have fewer points each. */
    size_t n_sites = c->out->report->n_accounts ? c->out->report->n_accounts : 1;
    uint64_t points = DURE_STATEMENT_POINTS_ALL / n_sites;
    if (points > DURE_STATEMENT_POINTS_MAX) points = DURE_STATEMENT_POINTS_MAX;
    if (points < 4) points = 4;
    c->every = (n_ends + points - 1) / points;
    if (c->every == 0) c->every = 1;
    c->out->rounds = calloc(n_rounds + 1, sizeof *c->out->rounds);
    c->out->acts = calloc(n_acts + 1, sizeof *c->out->acts);
    return c->out->rounds && c->out->acts ? DURE_OK : DURE_ERR_NOMEM;
}

/* ---- curves ---- */

static const dure_statement_site *site_named(const dure_statement_facts *facts, const char *name)
{
    size_t i = facts->n_sites;
    while (i > 0 && strcmp(facts->sites[i - 1].name, name) != 0)
        i--;
    return i > 0 ? &facts->sites[i - 1] : NULL;
}

static dure_err begin_curves(dure_statement *s)
{
    s->n_curves = s->report->n_accounts;
    s->curves = calloc(s->n_curves + 1, sizeof *s->curves);
    if (!s->curves) return DURE_ERR_NOMEM;
    for (size_t i = 0; i < s->n_curves; i++) {
        dure_statement_curve *curve = &s->curves[i];
        curve->account = &s->report->accounts[i];
        curve->site = site_named(s->facts, curve->account->name);
        curve->planned = INFINITY;
        curve->points = calloc(DURE_STATEMENT_POINTS_MAX + 1, sizeof *curve->points);
        if (!curve->points) return DURE_ERR_NOMEM;
        if (!curve->site) continue;
        dure_err err = dure_calibrate_epsilon(&curve->planned, &curve->site->plan, NULL,
                                              curve->account->delta);
        if (err) return err;
    }
    return DURE_OK;
}

/* Adds a point to every curve if this end of a round gets one. Accounts appear in the same order in
 * every replay, so those that the replay has so far are the first curves. */
static dure_err add_points(collector *c, double *most)
{
    dure_statement *s = c->out;
    const size_t n = dure_replay_accounts(c->replay);
    *most = NAN;
    if (c->n_ends % c->every != 0) return DURE_OK;
    for (size_t i = 0; i < n && i < s->n_curves; i++) {
        dure_account account;
        dure_statement_curve *curve = &s->curves[i];
        dure_err err = dure_replay_account(&account, c->replay, i);
        if (err) return err;
        if (!(account.epsilon <= *most)) *most = account.epsilon;
        if (curve->n_points >= DURE_STATEMENT_POINTS_MAX) continue;
        curve->points[curve->n_points++] =
            (dure_statement_point){c->event->time_s, account.epsilon};
    }
    return DURE_OK;
}

/* ---- events ---- */

static void take_opened(collector *c)
{
    const dure_event_round *from = &c->event->u.round;
    dure_statement_round *r = &c->out->rounds[c->out->n_rounds++];
    *r = (dure_statement_round){.opened = c->event->index,
                                .end = DURE_EVENT_OPENED,
                                .opened_s = c->event->time_s,
                                .run_id = from->run_id,
                                .round = from->round,
                                .n_members = from->n_members,
                                .n_charged = from->n_members, /* in doubt, until it ends */
                                .sum = from->sum,
                                .privacy_mode = from->privacy_mode};
    c->out->privacy_mode = from->privacy_mode;
    c->out->plan = from->members[0].plan;
}

static dure_err take_end(collector *c)
{
    const dure_event_round *from = &c->event->u.round;
    size_t i = c->out->n_rounds;
    while (i > 0 && c->out->rounds[i - 1].round != from->round)
        i--;
    if (i == 0) return DURE_ERR_STATE; /* cannot be, in a log that was verified */
    dure_statement_round *r = &c->out->rounds[i - 1];
    r->ended = c->event->index;
    r->end = c->event->kind;
    r->ended_s = c->event->time_s;
    r->n_charged = dure_event_round_count(from, DURE_PART_UPLOADED);
    r->n_summed = dure_event_round_count(from, DURE_PART_SUMMED);
    r->adapter_out = from->adapter_out;
    r->gate = from->gate;
    memcpy(r->reason, from->reason, sizeof r->reason);
    c->n_ends++;
    return add_points(c, &r->epsilon);
}

static void take_act(collector *c)
{
    dure_statement_act *act = &c->out->acts[c->out->n_acts++];
    *act = (dure_statement_act){
        .kind = c->event->kind, .entry = c->event->index, .time_s = c->event->time_s};
    if (c->event->kind == DURE_EVENT_NEW_EPOCH) {
        const dure_event_epoch *epoch = &c->event->u.epoch;
        act->round = epoch->epoch;
        act->lost = epoch->lost_n - epoch->kept.n;
        memcpy(act->reason, epoch->reason, sizeof act->reason);
    } else {
        const dure_event_release *release = &c->event->u.release;
        act->round = release->round;
        act->adapter = release->adapter;
        memcpy(act->reason, release->reason, sizeof act->reason);
    }
}

static dure_err take(collector *c, dure_span leaf)
{
    dure_err err = dure_event_decode(c->event, leaf, NULL);
    if (!err) err = dure_replay_add(c->replay, c->event, NULL);
    if (err) return err;
    if (c->event->kind == DURE_EVENT_OPENED) take_opened(c);
    if (is_end(c->event->kind)) return take_end(c);
    if (is_act(c->event->kind)) take_act(c);
    return DURE_OK;
}

/* The last point is the account itself: with the rounds that have no end, whatever was thinned. */
static void end_curves(dure_statement *s)
{
    for (size_t i = 0; i < s->n_curves; i++) {
        dure_statement_curve *curve = &s->curves[i];
        curve->points[curve->n_points++] =
            (dure_statement_point){s->report->totals.last_s, curve->account->epsilon};
    }
}

const dure_statement_curve *dure_statement_largest(const dure_statement *s)
{
    const dure_statement_curve *most = NULL;
    for (size_t i = 0; i < s->n_curves; i++) {
        if (!most || s->curves[i].account->epsilon > most->account->epsilon) most = &s->curves[i];
    }
    return most;
}

static dure_err find_membership(collector *c)
{
    dure_statement *s = c->out;
    const dure_statement_curve *most = dure_statement_largest(s);
    s->found_at_100 = s->found_at_1000 = 1;
    if (!most || !isfinite(most->account->epsilon)) return DURE_OK;
    const size_t i = (size_t)(most - s->curves);
    dure_err err = dure_replay_membership(&s->found_at_100, c->replay, i, 0.01);
    return err ? err : dure_replay_membership(&s->found_at_1000, c->replay, i, 0.001);
}

static dure_err collect(dure_statement *s, const dure_export *export_)
{
    collector c = {.out = s, .event = calloc(1, sizeof *c.event)};
    dure_err err = c.event ? dure_replay_new(&c.replay) : DURE_ERR_NOMEM;
    if (!err) dure_replay_set_site_delta(c.replay, s->report->site_delta);
    if (!err) err = count(&c, export_);
    if (!err) err = begin_curves(s);
    for (size_t i = 0; !err && i < export_->n_leaves; i++)
        err = take(&c, export_->leaves[i].bytes);
    if (!err) end_curves(s);
    if (!err) err = find_membership(&c);
    dure_replay_free(&c.replay);
    free(c.event);
    return err;
}

dure_err dure_statement_new(dure_statement **out, const dure_export *export_,
                            const dure_verify_report *report, bool verified,
                            const dure_statement_facts *facts)
{
    *out = NULL;
    dure_statement *s = calloc(1, sizeof *s);
    if (!s) return DURE_ERR_NOMEM;
    s->report = report;
    s->facts = facts;
    s->verified = verified;
    dure_err err = DURE_OK;
    if (verified && export_) err = collect(s, export_);
    if (err) {
        dure_statement_free(&s);
        return err;
    }
    *out = s;
    return DURE_OK;
}

void dure_statement_free(dure_statement **statement)
{
    if (!statement || !*statement) return;
    dure_statement *s = *statement;
    for (size_t i = 0; s->curves && i < s->n_curves; i++)
        free(s->curves[i].points);
    free(s->curves);
    free(s->rounds);
    free(s->acts);
    free(s);
    *statement = NULL;
}

/* ---- incidents ---- */

static bool round_incident(dure_statement_incident *out, const dure_statement_round *r)
{
    unsigned long long number = r->round;
    out->entry = r->ended ? r->ended : r->opened;
    out->time_s = r->ended ? r->ended_s : r->opened_s;
    out->entry_known = true;
    if (r->end == DURE_EVENT_OPENED) {
        (void)snprintf(out->text, sizeof out->text,
                       "Round %llu was opened and has no end in the log. All its %u members are "
                       "charged as if it had taken place.",
                       number, r->n_members);
    } else if (r->end == DURE_EVENT_ABORTED) {
        (void)snprintf(out->text, sizeof out->text,
                       "Round %llu ended without a sum: %s. %u of its %u members are charged, "
                       "since something of theirs may have left.",
                       number, r->reason, r->n_charged, r->n_members);
    } else if (r->gate.verdict == DURE_VERDICT_FAILED) {
        (void)snprintf(out->text, sizeof out->text,
                       "The adapter of round %llu did not pass the evaluation.", number);
    } else if (r->n_charged > r->n_summed) {
        (void)snprintf(out->text, sizeof out->text,
                       "Round %llu was completed without %u of its members, which are charged all "
                       "the same.",
                       number, r->n_charged - r->n_summed);
    } else {
        return false;
    }
    return true;
}

static bool act_incident(dure_statement_incident *out, const dure_statement_act *act)
{
    unsigned long long number = act->round;
    out->entry = act->entry;
    out->time_s = act->time_s;
    out->entry_known = true;
    if (act->kind == DURE_EVENT_ROLLED_BACK) {
        (void)snprintf(out->text, sizeof out->text,
                       "The adapter in force was taken back to that of round %llu: %s", number,
                       act->reason);
    } else if (act->kind == DURE_EVENT_NEW_EPOCH) {
        (void)snprintf(out->text, sizeof out->text,
                       "The root signed that %llu entries of the log were lost (epoch %llu): %s",
                       (unsigned long long)act->lost, number, act->reason);
    } else {
        return false;
    }
    return true;
}

static bool site_incident(dure_statement_incident *out, const dure_statement_site *site)
{
    if (!site->revoked) return false;
    (void)snprintf(out->text, sizeof out->text, "The site %s (%s) was revoked by the root.",
                   site->name, site->organisation);
    return true;
}

bool dure_statement_incident_at(dure_statement_incident *out, const dure_statement *s, size_t i)
{
    size_t r = 0, a = 0;
    *out = (dure_statement_incident){0};
    /* Rounds and acts are each in the order of the log: a merge keeps that order. */
    while (r < s->n_rounds || a < s->n_acts) {
        bool from_round =
            a == s->n_acts ||
            (r < s->n_rounds &&
             (s->rounds[r].ended ? s->rounds[r].ended : s->rounds[r].opened) < s->acts[a].entry);
        bool is =
            from_round ? round_incident(out, &s->rounds[r++]) : act_incident(out, &s->acts[a++]);
        if (is && i-- == 0) return true;
    }
    for (size_t k = 0; s->verified && k < s->facts->n_sites; k++) {
        *out = (dure_statement_incident){0};
        if (site_incident(out, &s->facts->sites[k]) && i-- == 0) return true;
    }
    return false;
}
