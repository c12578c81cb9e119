/* The statement for programs. Names of members follow the deployments registry where it has one. */
#include "common/json.h"
#include "ledger/statement_int.h"

#include <math.h>
#include <stdio.h>

static json_t *hash_text(const dure_hash *hash)
{
    return dure_json_from_hex(hash->b, sizeof hash->b);
}

/* Steals `value`; a failure leaves a NULL that json_pack() turns into NULL. */
static json_t *append(json_t *array, json_t *value)
{
    if (array && !json_array_append_new(array, value)) return array;
    json_decref(array);
    return NULL;
}

static json_t *points_json(const dure_statement_curve *curve)
{
    json_t *points = json_array();
    for (size_t i = 0; points && i < curve->n_points; i++)
        points = append(points, json_pack("[o, o]", dure_json_from_time(curve->points[i].time_s),
                                          dure_json_from_double(curve->points[i].epsilon)));
    return points;
}

static json_t *losses_json(const dure_statement *s)
{
    json_t *losses = json_array();
    for (size_t i = 0; losses && i < s->n_curves; i++) {
        const dure_statement_curve *curve = &s->curves[i];
        const dure_account *a = curve->account;
        losses =
            append(losses, json_pack("{s:s, s:I, s:I, s:I, s:o, s:o, s:f, s:o, s:o}", "site",
                                     a->name, "rounds", (json_int_t)a->rounds, "rounds_in_doubt",
                                     (json_int_t)a->rounds_open, "steps", (json_int_t)a->steps,
                                     "epsilon", dure_json_from_double(a->epsilon), "epsilon_rdp",
                                     dure_json_from_double(a->epsilon_rdp), "delta", a->delta,
                                     "epsilon_of_plan", dure_json_from_double(curve->planned),
                                     "over_time", points_json(curve)));
    }
    return losses;
}

static json_t *sites_json(const dure_statement *s)
{
    json_t *sites = json_array();
    for (size_t i = 0; sites && i < s->facts->n_sites; i++) {
        const dure_statement_site *site = &s->facts->sites[i];
        sites = append(
            sites, json_pack("{s:s, s:s, s:o, s:o, s:b, s:o}", "name", site->name, "organisation",
                             site->organisation, "key", dure_json_from_hex(site->sign_public, 32),
                             "joined", dure_json_from_time(site->joined_s), "revoked",
                             (int)site->revoked, "mechanism", dure_dp_plan_to_json(&site->plan)));
    }
    return sites;
}

static json_t *rounds_json(const dure_statement *s)
{
    json_t *rounds = json_array();
    for (size_t i = 0; rounds && i < s->n_rounds; i++) {
        const dure_statement_round *r = &s->rounds[i];
        static const char *const verdicts[] = {"none", "passed", "failed"};
        rounds = append(
            rounds,
            json_pack(
                "{s:I, s:I, s:s, s:o, s:o, s:I, s:o, s:I, s:I, s:I, s:o, s:o, s:s, s:o}", "run",
                (json_int_t)r->run_id, "round", (json_int_t)r->round, "state",
                dure_event_kind_text(r->end), "opened", dure_json_from_time(r->opened_s), "ended",
                dure_json_from_time(r->ended_s), "opened_entry", (json_int_t)r->opened,
                "ended_entry", r->ended ? json_integer((json_int_t)r->ended) : json_null(),
                "members", (json_int_t)r->n_members, "charged", (json_int_t)r->n_charged, "summed",
                (json_int_t)r->n_summed, "adapter",
                r->end == DURE_EVENT_CLOSED ? hash_text(&r->adapter_out) : json_null(),
                "epsilon_largest",
                r->end == DURE_EVENT_OPENED ? json_null() : dure_json_from_double(r->epsilon),
                "evaluation", verdicts[r->gate.verdict], "reason", dure_json_from_text(r->reason)));
    }
    return rounds;
}

static json_t *acts_json(const dure_statement *s)
{
    json_t *acts = json_array();
    for (size_t i = 0; acts && i < s->n_acts; i++) {
        const dure_statement_act *act = &s->acts[i];
        bool epoch = act->kind == DURE_EVENT_NEW_EPOCH;
        acts = append(
            acts, json_pack("{s:s, s:I, s:o, s:I, s:o, s:o}", "what",
                            dure_event_kind_text(act->kind), "entry", (json_int_t)act->entry,
                            "time", dure_json_from_time(act->time_s), epoch ? "epoch" : "round",
                            (json_int_t)act->round, epoch ? "lost_entries" : "adapter",
                            epoch ? json_integer((json_int_t)act->lost) : hash_text(&act->adapter),
                            "reason", dure_json_from_text(act->reason)));
    }
    return acts;
}

static json_t *incidents_json(const dure_statement *s)
{
    json_t *incidents = json_array();
    dure_statement_incident incident;
    for (size_t i = 0; incidents && dure_statement_incident_at(&incident, s, i); i++)
        incidents = append(
            incidents,
            json_pack("{s:o, s:o, s:o}", "time", dure_json_from_time(incident.time_s), "entry",
                      incident.entry_known ? json_integer((json_int_t)incident.entry) : json_null(),
                      "text", dure_json_from_text(incident.text)));
    return incidents;
}

static json_t *checks_json(const dure_statement *s)
{
    json_t *checks = json_array();
    for (int i = 0; checks && i < DURE_VERIFY_N; i++) {
        const dure_verify_line *line = &s->report->lines[i];
        checks = append(checks, json_pack("{s:s, s:s, s:o}", "check",
                                          dure_verify_check_name((dure_verify_check)i), "outcome",
                                          dure_verify_outcome_text(line->outcome), "text",
                                          dure_json_from_text(line->text)));
    }
    return checks;
}

/* Texts that are the same in every statement of a mode. */
static json_t *flavour_json(uint32_t mode)
{
    static const struct {
        const char *name, *unit, *neighbours;
    } flavours[] = {
        {"none yet", "see name", "see name"},
        {"record-level (epsilon, delta) differential privacy, add or remove one record",
         "one record: one line of a site's data",
         "one record more or less; the true number of records is protected"},
        {"site-level (epsilon, delta) differential privacy by noise shared among sites, zero-out",
         "one site with everything it has",
         "a site's update is its own or zero; that it takes part is public"},
        {"no differential privacy", "see name", "see name"},
        {"subject-level (epsilon, delta) differential privacy, add or remove one subject",
         "one subject with all its records at a site, as the records name it",
         "one subject more or less, whatever number of records; the true number of subjects is "
         "protected"},
    };
    const size_t i = mode < sizeof flavours / sizeof *flavours ? mode : 0;
    return json_pack("{s:s, s:s, s:s, s:[s, s, s, s, s]}", "name", flavours[i].name, "unit",
                     flavours[i].unit, "neighbours", flavours[i].neighbours,
                     "unprotected_quantities", "who takes part, when, and sizes on the wire",
                     "declared number of records, sampling rate, noise, clip, steps",
                     "the federation's evaluation records", "the base model's training data",
                     mode == 2
                         ? "that as many sites as are counted on really added their shares of "
                           "the noise"
                         : "that a site really added its noise");
}

static json_t *sum_json(const dure_statement *s)
{
    if (s->n_rounds == 0) return json_null();
    const dure_event_sum *sum = &s->rounds[s->n_rounds - 1].sum;
    char suite[96];
    dure_statement_suite(suite, sum->suite);
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I}", "suite", suite, "threshold",
                     (json_int_t)sum->threshold, "least_sites", (json_int_t)sum->u_min, "collusion",
                     (json_int_t)sum->collusion, "words", (json_int_t)sum->n_words, "word_bits",
                     (json_int_t)sum->word_bits);
}

static json_t *terms_json(const dure_statement_terms *t)
{
    if (!t) return json_null();
    return json_pack("{s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:s, s:f}", "architecture",
                     dure_json_from_text(t->architecture), "base", hash_text(&t->base),
                     "trained_parameters", (json_int_t)t->n_trained, "rank", (json_int_t)t->rank,
                     "rounds", (json_int_t)t->rounds, "steps", (json_int_t)t->steps, "max_length",
                     (json_int_t)t->max_length, "optimizer", t->optimizer, "learning_rate",
                     t->learning_rate);
}

static json_t *membership_json(const dure_statement *s)
{
    const dure_statement_curve *most = dure_statement_largest(s);
    if (!most) return json_null();
    return json_pack("{s:s, s:f, s:f}", "site", most->account->name, "found_at_0.01",
                     s->found_at_100, "found_at_0.001", s->found_at_1000);
}

json_t *dure_statement_json(const dure_statement *s)
{
    const dure_event_genesis *g = &s->report->genesis;
    json_t *file = json_pack("{s:o, s:o}", "name", dure_json_from_text(s->facts->file), "sha256",
                             hash_text(&s->facts->digest));
    if (!s->verified)
        return json_pack("{s:b, s:o, s:o, s:o, s:s}", "verified", 0, "file", file, "made",
                         dure_json_from_time(s->facts->now_s), "checks", checks_json(s), "program",
                         s->facts->program);
    return json_pack(
        "{s:b, s:o, s:o, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:s, s:o, s:o, s:o, s:o, s:o, "
        "s:o, s:o, s:o, s:O?, s:o, s:o}",
        "verified", 1, "file", file, "made", dure_json_from_time(s->facts->now_s), "program",
        s->facts->program, "federation", g->federation, "federation_id",
        hash_text(&g->federation_id), "root", dure_json_from_hex(g->root_public, 32), "from",
        dure_json_from_time(s->report->totals.first_s), "to",
        dure_json_from_time(s->report->totals.last_s), "shown_complete_to",
        s->report->shown_n ? json_integer((json_int_t)s->report->shown_n - 1) : json_null(),
        "dp_flavor", flavour_json(s->privacy_mode), "accounting",
        s->privacy_mode == DURE_PRIVACY_CLIENT
            ? "zcdp with tau; rdp as a second opinion; summed discrete Gaussian shares, zero-out"
            : "pld; rdp as a second opinion; Poisson-subsampled Gaussian, add/remove",
        "honest_sites",
        s->privacy_mode == DURE_PRIVACY_CLIENT ? json_integer((json_int_t)s->plan.honest)
                                               : json_null(),
        "sites", sites_json(s), "privacy_loss", losses_json(s), "membership", membership_json(s),
        "model", terms_json(s->facts->terms), "secure_sum", sum_json(s), "releases", rounds_json(s),
        "acts", acts_json(s), "empirical_audit", s->facts->canary, "incidents", incidents_json(s),
        "checks", checks_json(s));
}
