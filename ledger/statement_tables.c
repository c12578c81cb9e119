/* The tables of the page. */
#include "dp/noise_share.h"
#include "ledger/statement_int.h"

#include <math.h>
#include <stdio.h>

typedef unsigned long long ull;

enum { SHORT_HEX = 12 };

static void put(dure_buf *out, const char *html)
{
    dure_statement_put(out, html);
}

static void put_text_cell(dure_buf *out, const char *tag, const char *text)
{
    dure_put_format(out, "<%s>", tag);
    dure_statement_put_text(out, text);
    dure_put_format(out, "</%s>", tag);
}

static void put_hash_cell(dure_buf *out, const dure_hash *hash)
{
    put(out, "<td>");
    dure_statement_put_hex(out, hash->b, sizeof hash->b, SHORT_HEX);
    put(out, "</td>");
}

static void put_time_cell(dure_buf *out, int64_t time_s)
{
    put(out, "<td>");
    dure_statement_put_time(out, time_s);
    put(out, "</td>");
}

/* ---- sites ---- */

void dure_statement_put_sites(dure_buf *out, const dure_statement *s)
{
    put(out, "<h2>Who takes part</h2>\n<div class=\"wide\"><table><thead><tr><th>Site</th>"
             "<th>Organisation</th><th class=\"n\">Records, as declared</th><th>Joined</th>"
             "<th>Signing key</th><th>State</th></tr></thead><tbody>\n");
    for (size_t i = 0; i < s->facts->n_sites; i++) {
        const dure_statement_site *site = &s->facts->sites[i];
        put(out, "<tr>");
        put_text_cell(out, "th", site->name);
        put_text_cell(out, "td", site->organisation);
        dure_put_format(out, "<td class=\"n\">%llu</td>", (ull)site->plan.n_pub);
        put_time_cell(out, site->joined_s);
        put(out, "<td>");
        dure_statement_put_hex(out, site->sign_public, 32, SHORT_HEX);
        put(out, site->revoked ? "</td><td>revoked</td></tr>\n" : "</td><td>in force</td></tr>\n");
    }
    put(out, "</tbody></table></div>\n<p class=\"small soft\">The root key signed an invitation "
             "for each, and each site signed its own record with the invitation's key and with its "
             "own. The number of records is a rounded, public figure of the site, never counted "
             "from its data.</p>\n");
}

/* ---- budget ---- */

static void put_budget_row(dure_buf *out, const dure_statement_curve *curve)
{
    const dure_account *a = curve->account;
    put(out, "<tr>");
    put_text_cell(out, "th", a->name);
    dure_put_format(out, "<td class=\"n\">%llu", (ull)a->rounds);
    if (a->rounds_open)
        dure_put_format(out, " <span class=\"warn\">(%llu in doubt)</span>", (ull)a->rounds_open);
    dure_put_format(out, "</td><td class=\"n\">%llu</td><td class=\"n\"><b>", (ull)a->steps);
    dure_statement_put_epsilon(out, a->epsilon);
    put(out, "</b></td><td class=\"n\">");
    dure_statement_put_epsilon(out, a->epsilon_rdp);
    put(out, "</td><td class=\"n\">");
    dure_statement_put_delta(out, a->delta);
    put(out, "</td><td class=\"n\">");
    dure_statement_put_epsilon(out, curve->planned);
    put(out, "</td><td class=\"n\">");
    if (isfinite(a->epsilon) && isfinite(curve->planned) && curve->planned > 0)
        dure_put_format(out, "%.0f&nbsp;%%", 100 * a->epsilon / curve->planned);
    else
        put(out, "\xe2\x80\x93");
    put(out, "</td></tr>\n");
}

void dure_statement_put_budget(dure_buf *out, const dure_statement *s)
{
    if (s->n_curves == 0) return;
    put(out, "<h2>Privacy budget spent</h2>\n<figure>\n");
    dure_statement_chart(out, s);
    put(out,
        "<figcaption>Privacy loss of each site after each round, all rounds together. Dotted: "
        "the most that a site's whole plan comes to, which it reserved when it "
        "joined.</figcaption>\n"
        "</figure>\n<div class=\"wide\"><table><thead><tr><th>Site</th><th class=\"n\">Rounds"
        "</th><th class=\"n\">Steps</th><th class=\"n\">\xce\xb5 spent</th><th class=\"n\">second "
        "accountant</th><th class=\"n\">at "
        "\xce\xb4</th><th class=\"n\">\xce\xb5 of the whole plan</th><th class=\"n\">Used</th>"
        "</tr></thead><tbody>\n");
    for (size_t i = 0; i < s->n_curves; i++)
        put_budget_row(out, &s->curves[i]);
    put(out, "</tbody></table></div>\n<p class=\"small soft\">Recomputed from the log with ");
    put(out, s->privacy_mode == DURE_PRIVACY_CLIENT ? "concentrated differential privacy"
                                                    : "privacy loss "
                                                      "distributions");
    put(out, ", and a second time with R\xc3\xa9nyi divergences, which "
             "give a coarser upper limit; composed over every round of this federation, also "
             "aborted ones in which something of the site may have left; \xce\xb4 is ");
    put(out, s->privacy_mode == DURE_PRIVACY_CLIENT
                 ? "that of the terms, below 1/(10 \xc3\x97 the number of sites)"
                 : "1/(10 \xc3\x97 declared records)");
    put(out, ". The upper limit that a site set for itself, "
             "over all uses of its records, is in its own ledger; the site refuses beforehand what "
             "would exceed it.</p>\n");
}

/* ---- releases ---- */

static void put_gate(dure_buf *out, const dure_event_gate *gate)
{
    static const char *const words[] = {"not evaluated", "passed", "failed"};
    put(out, "<td>");
    put(out, words[gate->verdict]);
    if (gate->verdict != DURE_VERDICT_NONE)
        dure_put_format(out, "<br><span class=\"small soft\">loss %.3g \xe2\x86\x92 %.3g</span>",
                        gate->loss_before, gate->loss_after);
    put(out, "</td>");
}

static void put_round_row(dure_buf *out, const dure_statement_round *r)
{
    dure_put_format(out, "<tr><th>%llu</th>", (ull)r->round);
    put_time_cell(out, r->end == DURE_EVENT_OPENED ? r->opened_s : r->ended_s);
    if (r->end == DURE_EVENT_CLOSED) {
        dure_put_format(out, "<td>%u of %u sites</td>", r->n_summed, r->n_members);
        put_hash_cell(out, &r->adapter_out);
        put_gate(out, &r->gate);
    } else if (r->end == DURE_EVENT_ABORTED) {
        put(out, "<td colspan=\"3\">aborted, nothing published: ");
        dure_statement_put_text(out, r->reason);
        put(out, "</td>");
    } else {
        put(out, "<td colspan=\"3\" class=\"warn\">opened; no end in the log</td>");
    }
    dure_put_format(out, "<td class=\"n\">%u</td><td class=\"n\">", r->n_charged);
    if (r->end == DURE_EVENT_OPENED || isnan(r->epsilon))
        put(out, "\xe2\x80\x93");
    else
        dure_statement_put_epsilon(out, r->epsilon);
    dure_put_format(out, "</td><td class=\"n\">%llu</td></tr>\n",
                    (ull)(r->end == DURE_EVENT_OPENED ? r->opened : r->ended));
}

void dure_statement_put_rounds(dure_buf *out, const dure_statement *s)
{
    put(out, "<h2>Every release</h2>\n");
    if (s->n_rounds == 0) {
        put(out, "<p>None yet.</p>\n");
        return;
    }
    put(out, "<p>A round publishes one sum of noisy updates to the coordinator and the sites, and "
             "the adapter that follows from it. Nothing else that depends on records is published: "
             "no loss, no score and no count of a site.</p>\n"
             "<div class=\"wide\"><table><thead><tr><th>Round</th><th>Ended</th><th>In the sum</th>"
             "<th>Adapter made (SHA-256)</th><th>Evaluation</th><th class=\"n\">Sites charged</th>"
             "<th class=\"n\">Largest \xce\xb5 after it</th><th class=\"n\">Entry</th></tr></thead>"
             "<tbody>\n");
    for (size_t i = 0; i < s->n_rounds; i++)
        put_round_row(out, &s->rounds[i]);
    put(out, "</tbody></table></div>\n");
}

void dure_statement_put_acts(dure_buf *out, const dure_statement *s)
{
    bool any = false;
    for (size_t i = 0; i < s->n_acts; i++)
        any = any || s->acts[i].kind != DURE_EVENT_NEW_EPOCH;
    if (!any) return;
    put(out,
        "<h3>Put in force</h3>\n<table><thead><tr><th>When</th><th>What</th><th class=\"n\">Of "
        "round</th><th>Adapter</th><th>Reason given</th></tr></thead><tbody>\n");
    for (size_t i = 0; i < s->n_acts; i++) {
        const dure_statement_act *act = &s->acts[i];
        if (act->kind == DURE_EVENT_NEW_EPOCH) continue;
        put(out, "<tr>");
        put_time_cell(out, act->time_s);
        dure_put_format(out, "<td>%s</td><td class=\"n\">%llu</td>",
                        dure_event_kind_text(act->kind), (ull)act->round);
        put_hash_cell(out, &act->adapter);
        put_text_cell(out, "td", act->reason);
        put(out, "</tr>\n");
    }
    put(out, "</tbody></table>\n");
}

/* ---- mechanism ---- */

void dure_statement_suite(char text[96], uint32_t suite)
{
    if (suite == 1)
        (void)snprintf(text, 96, "1: X25519 keys, AES-256-CTR masks, complete graph");
    else if (suite == 2)
        (void)snprintf(text, 96, "2: X25519 with ML-KEM-768, AES-256-CTR masks, complete graph");
    else if (suite == 0)
        (void)snprintf(text, 96, "not recorded by the coordinator's version");
    else
        (void)snprintf(text, 96, "%u: not known to this version of the report", suite);
}

static void put_share_rows(dure_buf *out, const dure_dp_plan *p)
{
    const double sigma = dure_dp_plan_sigma(p);
    dure_put_format(
        out,
        "<tr><th>Participation</th><td>Every site that takes part in a round does so "
        "with everything: nothing is sampled, q = 1.</td></tr>\n"
        "<tr><th>Clipping</th><td>A site's whole update over all %llu trained "
        "parameters is scaled to length C = %g at most and put on a grid of "
        "C / 2<sup>%u</sup>; the length is checked in whole numbers, and an update that "
        "fails counts as zero.</td></tr>\n",
        (ull)p->n_params, p->clip, p->grid_bits);
    dure_put_format(out,
                    "<tr><th>Noise</th><td>Each site adds to every trained parameter, once a "
                    "round, an independent share of discrete Gaussian noise of variance %llu in "
                    "grid units. The shares of h = %u honest sites have together the standard "
                    "deviation \xcf\x83 C with \xcf\x83 = %u / %u = %.6g, or more; every further "
                    "honest site adds to it.</td></tr>\n"
                    "<tr><th>Divisor</th><td>The number of sites in the sum, which is "
                    "public.</td></tr>\n",
                    (ull)dure_share_variance(p), p->honest, p->sigma_num, DURE_DP_SIGMA_DEN, sigma);
}

static void put_noise_rows(dure_buf *out, const dure_statement *s)
{
    const dure_dp_plan *p = &s->plan;
    double sigma = dure_dp_plan_sigma(p), grid = ldexp(1, (int)p->grid_bits);
    const bool subjects = p->mechanism == DURE_DP_POISSON_GAUSSIAN_SUBJECTS;
    dure_put_format(out,
                    "<tr><th>Sampling</th><td>Each %s enters each step by itself (Poisson "
                    "sampling), with probability q = ",
                    dure_dp_plan_unit(p));
    if (p->full)
        put(out, "1");
    else
        dure_put_format(out, "%llu / 2<sup>64</sup> = %.6g", (ull)p->q_k, dure_dp_plan_rate(p));
    put(out, ". Batches are never cut or filled; an empty one releases noise only.</td></tr>\n");
    dure_put_format(out,
                    "<tr><th>Clipping</th><td>%s over all trained parameters "
                    "is scaled to length C = %g at most and put on a grid of C / 2<sup>%u</sup>; "
                    "the length is checked in whole numbers, and a %s that fails counts as "
                    "zero.</td></tr>\n",
                    subjects ? "The sum of the gradients of a subject's records"
                             : "Each record's gradient",
                    p->clip, p->grid_bits, dure_dp_plan_unit(p));
    dure_put_format(
        out,
        "<tr><th>Noise</th><td>Normal, rounded to the grid, standard deviation \xcf\x83 "
        "C with \xcf\x83 = %u / %u = %.6g, that is %.6g grid units, on every trained "
        "parameter in every step. All of it is added at the site.</td></tr>\n",
        p->sigma_num, DURE_DP_SIGMA_DEN, sigma, sigma * grid);
    dure_put_format(out,
                    "<tr><th>Divisor</th><td>L = %llu, a public constant; never the true size of a "
                    "batch.</td></tr>\n",
                    (ull)p->batch);
}

static void put_model_rows(dure_buf *out, const dure_statement_terms *t)
{
    put(out, "<tr><th>Model</th><td>");
    dure_statement_put_text(out, t->architecture);
    dure_put_format(out,
                    ", %u layers of width %u; the base is frozen. Trained: %llu parameters of an "
                    "adapter of rank %u.</td></tr>\n"
                    "<tr><th>Plan</th><td>%u rounds of %u steps. Optimiser %s at rate %g; the mean "
                    "of a round times %g.</td></tr>\n",
                    t->n_layers, t->n_embd, (ull)t->n_trained, t->rank, t->rounds, t->steps,
                    t->optimizer, t->learning_rate, t->server_rate);
}

static void put_sum_rows(dure_buf *out, const dure_statement *s)
{
    char suite[96];
    const dure_event_sum *sum = s->n_rounds ? &s->rounds[s->n_rounds - 1].sum : NULL;
    if (!sum) return;
    dure_statement_suite(suite, sum->suite);
    dure_put_format(out, "<tr><th>Secure sum: suite in use</th><td>%s.", suite);
    if (sum->suite)
        dure_put_format(out,
                        " Threshold t = %u, at least %u sites in a sum, safe against the "
                        "coordinator with %u site%s; %u words of %u bits.",
                        sum->threshold, sum->u_min, sum->collusion, sum->collusion == 1 ? "" : "s",
                        sum->n_words, sum->word_bits);
    put(out, "</td></tr>\n");
}

static const char step_words[] =
    "<tr><th>Accounting</th><td>All events of a site composed, add/remove, twice: by privacy "
    "loss distributions (connect the dots, FFT, both directions, pessimistic), and by R\xc3"
    "\xa9nyi divergences of orders 1.1 to 1,024 (Mironov, Talwar, Zhang 2019), converted as in "
    "Canonne, Kamath, Steinke 2020.</td></tr>\n"
    "<tr><th>After the noise</th><td>Division, local optimiser, several local steps, "
    "quantising, masking, the sum, the server's step, evaluation, merging and serving use "
    "noisy values only and cost no further \xce\xb5.</td></tr>\n"
    "<tr><th>Randomness</th><td>By design of the program, which a log cannot show: a fresh "
    "256-bit key of the operating system for each training; no floating-point number decides "
    "the noise, which is within a total variation distance of 2^-108 of the ideal, and for a "
    "whole vector before data are touched.</td></tr>\n";

static const char share_words[] =
    "<tr><th>Accounting</th><td>All rounds of a site composed, zero-out, twice: by concentrated "
    "differential privacy with the bound \xcf\x84 for the gap between a sum of discrete Gaussian "
    "shares and a discrete Gaussian (Kairouz, Liu, Steinke 2021, proposition 14), at the best of "
    "all orders; and by R\xc3\xa9nyi divergences of orders 1.1 to 1,024 from the other form of the "
    "same bound. Converted as in Canonne, Kamath, Steinke 2020.</td></tr>\n"
    "<tr><th>After the noise</th><td>Masking, the sum, the server's step, evaluation, merging and "
    "serving use noisy values only and cost no further \xce\xb5.</td></tr>\n"
    "<tr><th>Randomness</th><td>By design of the program, which a log cannot show: a fresh "
    "256-bit key of the operating system for each round at each site; shares are drawn exactly, "
    "no floating-point number decides them.</td></tr>\n";

void dure_statement_put_mechanism(dure_buf *out, const dure_statement *s)
{
    put(out, "<h2>How it was done</h2>\n<table class=\"pairs\"><tbody>\n");
    const bool shared = s->privacy_mode == DURE_PRIVACY_CLIENT;
    if (s->n_rounds > 0 && shared)
        put_share_rows(out, &s->plan);
    else if (s->n_rounds > 0 && s->privacy_mode != DURE_PRIVACY_NONE)
        put_noise_rows(out, s);
    if (s->facts->terms) put_model_rows(out, s->facts->terms);
    put_sum_rows(out, s);
    put(out, shared ? share_words : step_words);
    put(out,
        "<tr><th>Refusal</th><td>A site reserves the whole plan before the first noise is drawn, "
        "counts it as spent before the first byte leaves, and never refunds what is in doubt. What "
        "does not fit its budget is refused beforehand.</td></tr>\n</tbody></table>\n");
    if (s->n_rounds > 0 && s->n_curves > 1 && s->privacy_mode != DURE_PRIVACY_NONE && !shared)
        put(out,
            "<p class=\"small soft\">Sampling, noise and divisor are those of the first member "
            "of the last round; every site's are in the JSON form of this statement.</p>\n");
}

/* ---- incidents, canary, checks ---- */

void dure_statement_put_incidents(dure_buf *out, const dure_statement *s)
{
    dure_statement_incident incident;
    put(out, "<h2>Incidents and deviations</h2>\n");
    if (!dure_statement_incident_at(&incident, s, 0)) {
        put(out, "<p>None in the log: every round that was opened was completed with all its "
                 "members, no entry was lost, no site was revoked.</p>\n");
        return;
    }
    put(out, "<table><thead><tr><th>When</th><th>What</th><th class=\"n\">Entry</th></tr></thead>"
             "<tbody>\n");
    for (size_t i = 0; dure_statement_incident_at(&incident, s, i); i++) {
        put(out, "<tr>");
        put_time_cell(out, incident.time_s);
        put_text_cell(out, "td", incident.text);
        if (incident.entry_known)
            dure_put_format(out, "<td class=\"n\">%llu</td></tr>\n", (ull)incident.entry);
        else
            put(out, "<td class=\"n\">\xe2\x80\x93</td></tr>\n");
    }
    put(out, "</tbody></table>\n");
}

void dure_statement_put_canary(dure_buf *out, const dure_statement *s)
{
    const json_t *canary = s->facts->canary;
    put(out, "<h2>Empirical audit</h2>\n");
    if (!canary) {
        put(out,
            "<p>None is attached. <code>dure audit canary</code> trains with planted records "
            "and measures a lower bound of \xce\xb5; a low result shows nothing, a result above "
            "the claim shows a fault.</p>\n");
        return;
    }
    /* A bound that is no number is beyond all numbers. */
    const json_t *lower = json_object_get(canary, "epsilon_lower");
    const double bound = json_is_number(lower) ? json_number_value(lower) : INFINITY;
    const double claim = json_number_value(json_object_get(canary, "epsilon_claimed"));
    const double confidence = json_number_value(json_object_get(canary, "confidence"));
    const bool holds = json_is_true(json_object_get(canary, "holds"));
    dure_put_format(out,
                    "<p>One-run audit (Steinke, Nasr, Jagielski 2023) of this program's trainer on "
                    "public or generated data: with %.0f planted gradients, \xce\xb5 is at least "
                    "<b>%.3g</b> with %.0f&nbsp;%% confidence; claimed is %.3g. %s</p>\n",
                    json_number_value(json_object_get(canary, "canaries")), bound, 100 * confidence,
                    claim,
                    !(bound <= claim) ? "<b class=\"bad\">The claim does not hold.</b>"
                    : !holds ? "<b class=\"bad\">The noise that was measured is not the planned "
                               "one, so the claim does not hold.</b>"
                             : "Nothing speaks against the claim.");
}

void dure_statement_put_checks(dure_buf *out, const dure_statement *s)
{
    static const char *const classes[] = {"soft", "good", "bad", "warn"};
    put(out, "<h2>What was verified</h2>\n<table><thead><tr><th>Check</th><th>Outcome</th>"
             "<th>What was found</th></tr></thead><tbody>\n");
    for (int i = 0; i < DURE_VERIFY_N; i++) {
        const dure_verify_line *line = &s->report->lines[i];
        put(out, "<tr>");
        put_text_cell(out, "th", dure_verify_check_name((dure_verify_check)i));
        dure_put_format(out, "<td class=\"%s\">%s</td>", classes[line->outcome],
                        dure_verify_outcome_text(line->outcome));
        put_text_cell(out, "td", line->text);
        put(out, "</tr>\n");
    }
    put(out, "</tbody></table>\n");
}

/* ---- identifiers ---- */

static void put_id(dure_buf *out, const char *name, const uint8_t bytes[32])
{
    dure_put_format(out, "<tr><th>%s</th><td>", name);
    dure_statement_put_hex(out, bytes, 32, 0);
    put(out, "</td></tr>\n");
}

void dure_statement_put_identifiers(dure_buf *out, const dure_statement *s)
{
    const dure_event_genesis *g = &s->report->genesis;
    put(out, "<h2>Identifiers</h2>\n<table class=\"pairs\"><tbody>\n");
    put_id(out, "This file (SHA-256)", s->facts->digest.b);
    if (s->verified) {
        put_id(out, "Root key (Ed25519)", g->root_public);
        put_id(out, "Federation", g->federation_id.b);
        put_id(out, "Coordinator's key (Ed25519)", g->coordinator_sign);
        if (s->facts->terms) put_id(out, "Base model (SHA-256)", s->facts->terms->base.b);
        put_id(out, "Adapter in force (SHA-256)", s->report->totals.adapter.b);
    }
    put(out, "</tbody></table>\n");
    if (s->verified)
        put(out, "<p class=\"small soft\">Compare the root key with the one that the federation "
                 "gave you by another way: whoever holds another root key can make another "
                 "federation of the same name.</p>\n");
}
