/* The page: frame, style and words. No word of it comes from the log unless it went through
 * dure_statement_put_text(). */
#include "common/clock.h"
#include "ledger/statement_int.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char style[] =
    ":root{color-scheme:light dark;--ink:#1c2024;--soft:#5b6470;--rule:#d5dae1;--page:#fff;"
    "--panel:#f5f7fa;--good:#16703c;--bad:#b3261e;--warn:#8a5a00;--c0:#1f5fa8;--c1:#b4501a;"
    "--c2:#26794a;--c3:#8a3a86;--c4:#946a00;--c5:#0e7c86;--c6:#a3324f;--c7:#565fb8}\n"
    "@media (prefers-color-scheme:dark){:root{--ink:#e4e8ee;--soft:#a3adba;--rule:#3a424d;"
    "--page:#14181d;--panel:#1d232b;--good:#6fcf97;--bad:#ff8a80;--warn:#f0b95b;--c0:#79b0f2;"
    "--c1:#f29b6b;--c2:#74cf9a;--c3:#d992d6;--c4:#e0b84f;--c5:#5fc9d3;--c6:#f08aa4;--c7:#a3abf5}}\n"
    "*{box-sizing:border-box}\n"
    "body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"
    "\"Segoe UI\",Roboto,\"Noto Sans\",\"DejaVu Sans\",sans-serif}\n"
    "main{max-width:54rem;margin:0 auto;padding:2.5rem 1.5rem 4rem}\n"
    "h1{font-size:1.9rem;line-height:1.2;margin:0 0 .4rem}\n"
    "h2{font-size:1.25rem;margin:2.6rem 0 .6rem;padding-top:.7rem;border-top:1px solid var(--rule)}"
    "\nh3{font-size:1rem;margin:1.4rem 0 .3rem}\n"
    "p,ul,dl{margin:.5rem 0}li{margin:.25rem 0}ul{padding-left:1.3rem}\n"
    ".soft{color:var(--soft)}.small{font-size:.86rem}\n"
    ".verdict{display:flex;gap:.8rem;align-items:baseline;border:1px solid;border-left-width:.4rem;"
    "padding:.7rem 1rem;margin:1.2rem 0;border-radius:.3rem}\n"
    ".verdict b{white-space:nowrap}.good{color:var(--good)}.bad{color:var(--bad)}"
    ".warn{color:var(--warn)}.verdict span{color:var(--ink)}\n"
    ".facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.7rem;"
    "margin:1.2rem 0}\n"
    ".facts div{background:var(--panel);border-radius:.3rem;padding:.7rem .9rem}\n"
    ".facts b{display:block;white-space:nowrap;font-size:1.3rem;line-height:1.4}.facts sup"
    "{font-size:.7em}.facts "
    "span{font-size:.84rem;"
    "color:var(--soft)}\n"
    ".wide{overflow-x:auto}\n"
    "table{border-collapse:collapse;width:100%;margin:.7rem 0;font-size:.9rem}\n"
    "th,td{text-align:left;vertical-align:top;padding:.4rem .7rem .4rem 0;border-bottom:1px solid "
    "var(--rule)}thead th{color:var(--soft);font-weight:600;border-bottom-width:2px}\n"
    "td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}\n"
    "tbody th{font-weight:600}table.pairs th{width:15rem;font-weight:600}\n"
    "sup{line-height:0}code{font:.85em ui-monospace,\"DejaVu Sans "
    "Mono\",monospace;overflow-wrap:anywhere}\n"
    "figure{margin:1rem 0}figcaption{font-size:.86rem;color:var(--soft)}\n"
    "svg{width:100%;height:auto;display:block}svg text{font:12px system-ui,\"DejaVu Sans\","
    "sans-serif;fill:var(--ink)}svg .tick{fill:var(--soft)}svg .axis{stroke:var(--soft)}"
    "svg .grid{stroke:var(--rule)}svg .planned{stroke:var(--soft);stroke-dasharray:2 4}\n"
    "svg .line{fill:none;stroke-width:2.2;stroke-linejoin:round}svg .lead{stroke-width:1}"
    "svg .name{font-weight:600}\n"
    ".s0{stroke:var(--c0)}.s1{stroke:var(--c1);stroke-dasharray:9 3}.s2{stroke:var(--c2);"
    "stroke-dasharray:3 3}.s3{stroke:var(--c3);stroke-dasharray:9 3 2 3}.s4{stroke:var(--c4);"
    "stroke-dasharray:14 4}.s5{stroke:var(--c5);stroke-dasharray:6 2 2 2 2 2}.s6{stroke:var(--c6);"
    "stroke-dasharray:4 5}.s7{stroke:var(--c7);stroke-dasharray:1 4}.s9{stroke:var(--rule)}\n"
    ".lead{stroke-dasharray:none}\n"
    "footer{margin-top:3rem;padding-top:.7rem;border-top:1px solid var(--rule)}\n"
    "@media(max-width:36rem){table.pairs th{width:7rem}}\n"
    "@page{size:A4;margin:17mm 16mm}\n"
    "@media print{:root{color-scheme:light;--ink:#000;--soft:#444;--rule:#bbb;--page:#fff;"
    "--panel:#f3f3f3;--good:#0b5a2c;--bad:#a11313;--warn:#6b4700;--c0:#174e8c;--c1:#9c4212;"
    "--c2:#1c6339;--c3:#74306f;--c4:#7c5900;--c5:#0a6670;--c6:#8a2941;--c7:#454d9e}"
    "html{font-size:9.6pt}body{font-size:1rem;line-height:1.45}main{max-width:none;padding:0}h2{"
    "margin-top:1.6rem}"
    "h1,h2,h3{break-after:avoid}tr,figure,.verdict,.facts,li{break-inside:avoid}"
    "thead{display:table-header-group}.wide{overflow:visible}"
    ".facts{grid-template-columns:repeat(4,1fr)}"
    "*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}\n";

/* ---- pieces ---- */

void dure_statement_put(dure_buf *out, const char *html)
{
    dure_put_raw(out, html, strlen(html));
}

void dure_statement_put_text(dure_buf *out, const char *text)
{
    for (const char *c = text; *c; c++) {
        if (*c == '&') {
            dure_statement_put(out, "&amp;");
        } else if (*c == '<') {
            dure_statement_put(out, "&lt;");
        } else if (*c == '>') {
            dure_statement_put(out, "&gt;");
        } else if (*c == '"') {
            dure_statement_put(out, "&quot;");
        } else if (*c == '\'') {
            dure_statement_put(out, "&#39;");
        } else if ((uint8_t)*c < 0x20 || *c == 0x7f) {
            dure_statement_put(out, "\xef\xbf\xbd"); /* U+FFFD */
        } else {
            dure_put_raw(out, c, 1);
        }
    }
}

void dure_statement_put_time(dure_buf *out, int64_t time_s)
{
    char text[DURE_CLOCK_TEXT_SIZE];
    if (time_s == 0) {
        dure_statement_put(out, "\xe2\x80\x93");
        return;
    }
    dure_clock_text(text, time_s);
    dure_put_format(out, "%.10s %.5s&nbsp;UTC", text, text + 11);
}

void dure_statement_put_hex(dure_buf *out, const uint8_t *bytes, size_t n_bytes, size_t n)
{
    dure_statement_put(out, "<code>");
    for (size_t i = 0; i < n_bytes && (n == 0 || 2 * i < n); i++)
        dure_put_format(out, "%02x", bytes[i]);
    dure_statement_put(out, n ? "\xe2\x80\xa6</code>" : "</code>");
}

void dure_statement_put_epsilon(dure_buf *out, double epsilon)
{
    if (isfinite(epsilon))
        dure_put_format(out, "%.2f", ceil(epsilon * 100 - 1e-9) / 100);
    else
        dure_statement_put(out, "no bound");
}

/* e^epsilon as people write it, to three digits and rounded up: "45.4", "75,900". */
static void put_odds(dure_buf *out, double epsilon)
{
    double odds = exp(epsilon), unit = pow(10, floor(log10(odds)) - 2);
    odds = ceil(odds / unit - 1e-9) * unit;
    if (odds >= 1e15) {
        dure_put_format(out, "%.2e", odds);
        return;
    }
    char digits[32];
    size_t n = (size_t)snprintf(digits, sizeof digits, "%.*f", odds < 100, odds);
    if (odds < 1000) {
        dure_statement_put(out, digits);
        return;
    }
    for (size_t i = 0; i < n; i++)
        dure_put_format(out, "%s%c", i && (n - i) % 3 == 0 ? "," : "", digits[i]);
}

void dure_statement_put_delta(dure_buf *out, double delta)
{
    if (!(delta > 0 && delta < 1)) {
        dure_put_format(out, "%g", delta);
        return;
    }
    int power = (int)floor(log10(delta));
    double lead = delta / pow(10, power);
    if (lead >= 9.95) {
        lead = 1;
        power++;
    }
    dure_put_format(out, "%.1f&nbsp;\xc3\x97&nbsp;10<sup>\xe2\x88\x92%d</sup>", lead, -power);
}

/* ---- top of the page ---- */

static void put_verdict(dure_buf *out, const dure_statement *s)
{
    const dure_verify_report *r = s->report;
    if (!s->verified) {
        dure_statement_put(out, "<div class=\"verdict bad\"><b>Does not verify</b><span>");
        for (int i = 0; i < DURE_VERIFY_N; i++) {
            if (r->lines[i].outcome != DURE_OUTCOME_FAILED) continue;
            dure_statement_put_text(out, r->lines[i].text);
        }
        dure_statement_put(out, ". Nothing in this file can be relied on, so no figures of it are "
                                "printed.</span></div>\n");
        return;
    }
    if (r->shown_n == 0) {
        dure_statement_put(out,
                           "<div class=\"verdict warn\"><b>Verified, not yet cosigned</b><span>"
                           "Every entry and signature is right, but no checkpoint bears the "
                           "cosignatures of enough sites: nothing shows that entries were not "
                           "withheld.</span></div>\n");
        return;
    }
    dure_put_format(out,
                    "<div class=\"verdict good\"><b>Verified</b><span>Every entry, signature and "
                    "privacy figure was recomputed. The log is shown complete up to entry %llu, "
                    "which enough sites have seen as of ",
                    (unsigned long long)(r->shown_n - 1));
    dure_statement_put_time(out, (int64_t)r->shown_time);
    if (r->shown_n < r->n_leaves)
        dure_put_format(out, "; %llu later entries are not cosigned yet",
                        (unsigned long long)(r->n_leaves - r->shown_n));
    dure_statement_put(out, ".</span></div>\n");
}

static void put_head(dure_buf *out, const dure_statement *s)
{
    const char *federation = s->report->genesis.federation;
    dure_statement_put(out,
                       "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                       "<meta name=\"viewport\" content=\"width=device-width,"
                       "initial-scale=1\">\n<meta http-equiv=\"Content-Security-Policy\" "
                       "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n<title>"
                       "Privacy statement");
    if (s->verified) {
        dure_statement_put(out, ": ");
        dure_statement_put_text(out, federation);
    }
    dure_statement_put(out, "</title>\n<style>\n");
    dure_statement_put(out, style);
    dure_statement_put(out, "</style>\n</head>\n<body>\n<main>\n<header>\n<h1>Privacy statement");
    if (s->verified) {
        dure_statement_put(out, " of the federation ");
        dure_statement_put_text(out, federation);
    }
    dure_statement_put(out, "</h1>\n<p class=\"soft\">");
    if (s->verified) {
        dure_statement_put(out, "Covers ");
        dure_statement_put_time(out, s->report->totals.first_s);
        dure_statement_put(out, " to ");
        dure_statement_put_time(out, s->report->totals.last_s);
        dure_statement_put(out, ". ");
    }
    dure_statement_put(out, "Made on ");
    dure_statement_put_time(out, s->facts->now_s);
    dure_statement_put(out, " from the file ");
    dure_statement_put_text(out, s->facts->file);
    dure_statement_put(out, ".</p>\n</header>\n");
    put_verdict(out, s);
}

static void put_fact(dure_buf *out, uint64_t figure, const char *words)
{
    dure_put_format(out, "<div><b>%llu</b><span>%s</span></div>\n", (unsigned long long)figure,
                    words);
}

static void put_loss_facts(dure_buf *out, const dure_account *most)
{
    if (!isfinite(most->epsilon)) {
        dure_statement_put(out, "<div><b>no guarantee</b><span>a site took part without noise"
                                "</span></div>\n");
        return;
    }
    dure_statement_put(out, "<div><b>\xce\xb5 = ");
    dure_statement_put_epsilon(out, most->epsilon);
    dure_statement_put(out, "</b><span>largest privacy loss of any site</span></div>\n<div><b>"
                            "\xce\xb4 = ");
    dure_statement_put_delta(out, most->delta);
    dure_statement_put(out, "</b><span>probability set aside at that site</span></div>\n");
}

/* Organisations among everybody who ever joined. */
static size_t organisations(const dure_statement_facts *facts)
{
    size_t n = 0;
    for (size_t i = 0; i < facts->n_sites; i++) {
        size_t k = 0;
        while (k < i && strcmp(facts->sites[k].organisation, facts->sites[i].organisation) != 0)
            k++;
        n += k == i;
    }
    return n;
}

static void put_summary(dure_buf *out, const dure_statement *s)
{
    const dure_replay_totals *t = &s->report->totals;
    const dure_statement_curve *most = dure_statement_largest(s);
    dure_put_format(
        out,
        "<h2>In short</h2>\n<p>%zu sites of %zu organisations train one change to a "
        "language model (an <em>adapter</em>) together. Each site's records stay on its "
        "own machine. What leaves a site is blurred with random noise first%s, and then "
        "masked so that only the sum over all sites can be read.</p>\n",
        s->n_curves, organisations(s->facts),
        s->privacy_mode == DURE_PRIVACY_CLIENT ? ", of which each site adds a share" : "");
    dure_statement_put(out, "<div class=\"facts\">\n");
    put_fact(out, s->n_curves, "sites took part");
    put_fact(out, t->closed, "rounds completed, each a release");
    if (most) put_loss_facts(out, most->account);
    dure_statement_put(out, "</div>\n");
}

/* ---- the guarantee in words ---- */

/* What the loss leaves to someone who looks for one record, subject or site. */
static void put_meaning(dure_buf *out, const dure_statement *s, const char *unit)
{
    const dure_statement_curve *most = dure_statement_largest(s);
    if (!most || !isfinite(most->account->epsilon)) return;
    const dure_account *a = most->account;
    double sure = 1 / (1 + exp(-a->epsilon));
    dure_put_format(
        out, "<h3>What that means for one %s</h3>\n<p>At the site with the largest loss (", unit);
    dure_statement_put_text(out, a->name);
    dure_statement_put(out, ", \xce\xb5 = ");
    dure_statement_put_epsilon(out, a->epsilon);
    dure_statement_put(out, ", \xce\xb4 = ");
    dure_statement_put_delta(out, a->delta);
    dure_statement_put(out, "), whatever method is used:</p>\n<ul>\n");
    dure_put_format(out,
                    "<li>Somebody who thinks it as likely as not that a %s was used can become "
                    "at most <b>%.1f&nbsp;%%</b> sure of it, apart from events of probability "
                    "\xce\xb4.</li>\n",
                    unit, 100 * sure);
    dure_put_format(
        out,
        "<li>A test that wrongly points at 1 in 100 unused %ss finds at most "
        "<b>%.1f&nbsp;%%</b> of the used ones; one that is wrong for 1 in 1,000, at most "
        "<b>%.2f&nbsp;%%</b>.</li>\n",
        unit, 100 * s->found_at_100, 100 * s->found_at_1000);
    dure_put_format(
        out, "<li>No conclusion about a %s becomes more than e<sup>\xce\xb5</sup> = <b>", unit);
    put_odds(out, a->epsilon);
    dure_put_format(out,
                    " times</b> as probable as if the %s had never existed, apart from "
                    "events of probability \xce\xb4.</li>\n</ul>\n"
                    "<p class=\"small soft\">These are limits, not measurements: what an attacker "
                    "achieves in practice is usually far below them.</p>\n",
                    unit);
}

static void put_record_guarantee(dure_buf *out, const dure_statement *s)
{
    dure_statement_put(
        out,
        "<p>The guarantee is <em>record-level differential privacy</em>, "
        "(\xce\xb5,&nbsp;\xce\xb4): "
        "for every single record of every site, whatever anybody concludes from <em>all</em> that "
        "was ever released, they would conclude almost the same if that record had not been in the "
        "data. How nearly the same is measured by \xce\xb5, the privacy loss: 0 would mean exactly "
        "the same. It holds against the coordinator, every other site, whoever uses or obtains the "
        "adapter, now or later, and with any other knowledge and computing power.</p>\n"
        "<table class=\"pairs\"><tbody>\n"
        "<tr><th>Unit of privacy</th><td>One record: one line of a site's data, which is one "
        "conversation or one prompt with its answer. A record that is longer than the terms "
        "allow is cut; each counts once and by itself.</td></tr>\n"
        "<tr><th>Neighbouring data</th><td>Two data sets that differ by one record added or "
        "removed. The true number of records is protected too; what is public is a rounded figure "
        "that the site declared.</td></tr>\n"
        "<tr><th>People with several records</th><td>Somebody about whom a site holds "
        "<i>k</i> records is protected with about <i>k</i> times the \xce\xb5 below. Whoever is in "
        "the data of several sites adds their \xce\xb5 up.</td></tr>\n"
        "<tr><th>Each site's own</th><td>The losses of different sites do not add up: records of "
        "one site are touched by that site's releases only. The federation's figure is the "
        "largest.</td></tr>\n</tbody></table>\n");
    put_meaning(out, s, "record");
}

static void put_subject_guarantee(dure_buf *out, const dure_statement *s)
{
    dure_statement_put(
        out,
        "<p>The guarantee is <em>subject-level differential privacy</em>, "
        "(\xce\xb5,&nbsp;\xce\xb4): for every single subject, that is a person or whatever else "
        "the "
        "records of a site name as their subject, whatever anybody concludes from <em>all</em> "
        "that "
        "was ever released, they would conclude almost the same if none of that subject's records "
        "had been in the site's data. How nearly the same is measured by \xce\xb5, the privacy "
        "loss: 0 would mean exactly the same. It holds against the coordinator, every other site, "
        "whoever uses or obtains the adapter, now or later, and with any other knowledge and "
        "computing power.</p>\n"
        "<table class=\"pairs\"><tbody>\n"
        "<tr><th>Unit of privacy</th><td>One subject, with all its records at a site. Which "
        "records "
        "are one subject's is what the site's data say; a record that names nobody is not "
        "used.</td></tr>\n"
        "<tr><th>Neighbouring data</th><td>Two data sets that differ by one subject added or "
        "removed, with any number of records. The true number of subjects is protected too; what "
        "is public is a rounded figure that the site declared.</td></tr>\n"
        "<tr><th>Subjects of several sites</th><td>Whoever is in the data of several sites adds "
        "their \xce\xb5 up.</td></tr>\n"
        "<tr><th>Each site's own</th><td>The losses of different sites do not add up: subjects of "
        "one site alone are touched by that site's releases only. The federation's figure is the "
        "largest.</td></tr>\n</tbody></table>\n");
    put_meaning(out, s, "subject");
}

static void put_site_guarantee(dure_buf *out, const dure_statement *s)
{
    dure_statement_put(
        out,
        "<p>The guarantee is <em>site-level differential privacy by shared noise</em>, "
        "(\xce\xb5,&nbsp;\xce\xb4): for every single site, whatever anybody concludes from "
        "<em>all</em> that was ever released, they would conclude almost the same if that site had "
        "contributed nothing but its noise. How nearly the same is measured by \xce\xb5, the "
        "privacy loss: 0 would mean exactly the same. It holds against whoever uses or obtains the "
        "adapter, now or later, with any other knowledge and computing power, and against the "
        "coordinator and other sites ");
    dure_put_format(out, "<b>as long as every sum has %u honest sites</b>.</p>\n", s->plan.honest);
    dure_put_format(
        out,
        "<table class=\"pairs\"><tbody>\n"
        "<tr><th>Unit of privacy</th><td>One site, with everything it has.</td></tr>\n"
        "<tr><th>Neighbouring data</th><td>Zero-out: the site's update is its own, or zero. That a "
        "site takes part, and in which rounds, is public and not protected.</td></tr>\n"
        "<tr><th>Rests on</th><td>%u honest sites in every sum at least. Each site adds only a "
        "share "
        "of the noise; the figures below count those of %u, the protected site among them, and no "
        "more. If fewer in a sum are honest, they do not hold. Whether a site added its share "
        "cannot be seen from outside.</td></tr>\n"
        "<tr><th>Single records</th><td>A record is covered as a part of its site: what is learned "
        "about it is no more than what is learned about the whole site.</td></tr>\n"
        "<tr><th>Each site's own</th><td>The losses of different sites do not add up. A person "
        "whose "
        "records are at several sites adds their \xce\xb5 up.</td></tr>\n</tbody></table>\n",
        s->plan.honest, s->plan.honest);
    put_meaning(out, s, "site update");
}

static void put_guarantee(dure_buf *out, const dure_statement *s)
{
    dure_statement_put(out, "<h2>What is guaranteed</h2>\n");
    if (s->privacy_mode == DURE_PRIVACY_RECORD) {
        put_record_guarantee(out, s);
    } else if (s->privacy_mode == DURE_PRIVACY_SUBJECT) {
        put_subject_guarantee(out, s);
    } else if (s->privacy_mode == DURE_PRIVACY_CLIENT) {
        put_site_guarantee(out, s);
    } else if (s->privacy_mode == DURE_PRIVACY_NONE) {
        dure_statement_put(out, "<p><b class=\"bad\">There is no differential privacy in this "
                                "federation.</b> Its terms and the policies of its sites say so. "
                                "Updates are masked, so that the coordinator reads only their sum, "
                                "but nothing limits what the sum and the adapter tell about a "
                                "record.</p>\n");
    } else if (s->privacy_mode == 0) {
        dure_statement_put(out, "<p>No round has been opened, so nothing has been released.</p>\n");
    } else {
        dure_put_format(out,
                        "<p>Rounds were held in privacy mode %u, for which this version of the "
                        "report has no words. The figures below are those of the log.</p>\n",
                        s->privacy_mode);
    }
}

/* ---- what is not covered, and trust ---- */

static void put_not_covered(dure_buf *out, bool shared)
{
    dure_statement_put(out, "<h2>What is not covered</h2>\n<ul>\n");
    dure_statement_put(
        out, shared ? "<li><b>That enough sites really added their shares of the noise.</b> Nobody "
                      "can check this from outside. A site that does not weakens the guarantee of "
                      "all.</li>\n"
                      "<li><b>Who takes part in which round.</b> A site's presence is not "
                      "protected.</li>\n"
                    : "<li><b>That a site really added its noise.</b> Nobody can check this from "
                      "outside. A site that does not, exposes its own records and nobody "
                      "else's.</li>\n");
    dure_statement_put(
        out,
        "<li><b>That the published sum is the true one.</b> Sites recompute the adapter from the "
        "sum that they are shown; a coordinator that shows the same wrong sum to all is not caught "
        "by that.</li>\n"
        "<li><b>The base model.</b> What it learned from its own training data, and anything it "
        "already knew about a person, is outside this statement.</li>\n"
        "<li><b>The federation's evaluation records</b>, on which each adapter is measured. They "
        "are read in the clear.</li>\n"
        "<li><b>Who takes part, when, and how much is sent.</b> Also public: the declared number "
        "of "
        "records, sampling rate, noise, clip and number of steps.</li>\n"
        "<li><b>Other uses of the same records.</b> What a site spent on them in other federations "
        "or on its own is in that site's own ledger (<code>dure privacy status</code>), not in "
        "this log.</li>\n"
        "<li><b>Choices made before.</b> Looking at the data to choose settings, and training "
        "outside Dure, are not counted.</li>\n"
        "<li><b>The sites' own machines</b> and whoever administers them, and side channels there."
        "</li>\n"
        "<li><b>The truth and use of the model's answers.</b></li>\n</ul>\n");
}

static void put_trust(dure_buf *out, const dure_statement *s)
{
    const dure_statement_terms *t = s->facts->terms;
    const bool shared = s->privacy_mode == DURE_PRIVACY_CLIENT;
    dure_statement_put(
        out, "<h2>Who has to be trusted</h2>\n<table class=\"pairs\"><tbody>\n"
             "<tr><th>A site, by itself</th><td>With its own records: clipping and noise happen "
             "there, before anything leaves.</td></tr>\n"
             "<tr><th>The coordinator</th><td>For nothing that the guarantee depends on. It sees "
             "masked updates and their sum. It keeps this log, which the sites check and cosign."
             "</td></tr>\n");
    if (t && shared) {
        dure_put_format(out,
                        "<tr><th>Other sites</th><td>That of the %u or more sites in a sum at most "
                        "%u work together with the coordinator or leave their share of the noise "
                        "out. The guarantee and the masking depend on it.</td></tr>\n",
                        t->u_min, t->collusion);
    } else if (t) {
        dure_put_format(
            out,
            "<tr><th>Other sites</th><td>For nothing that the guarantee depends on. The "
            "masking of single updates holds while at most %u of them work together "
            "with the coordinator; a sum has at least %u sites.</td></tr>\n",
            t->collusion, t->u_min);
    }
    dure_statement_put(out,
                       "<tr><th>The root key's holder</th><td>Decides who may take part. Takes "
                       "part in no round.</td></tr>\n</tbody></table>\n");
}

static void put_footer(dure_buf *out, const dure_statement *s)
{
    dure_statement_put(out, "<footer class=\"small soft\"><p>Made by ");
    dure_statement_put_text(out, s->facts->program);
    dure_statement_put(
        out,
        " from the log alone. Anybody who has the same file gets the same figures with <code>dure "
        "audit verify</code>, without access to any machine of the federation; the format is "
        "documented, so that another program can do it as well. The items follow NIST SP&nbsp;"
        "800-226 and the deployments registry of OpenDP.</p></footer>\n");
}

dure_err dure_statement_html(dure_buf *out, const dure_statement *s)
{
    put_head(out, s);
    if (s->verified) {
        put_summary(out, s);
        put_guarantee(out, s);
        dure_statement_put_budget(out, s);
        dure_statement_put_sites(out, s);
        put_not_covered(out, s->privacy_mode == DURE_PRIVACY_CLIENT);
        dure_statement_put_incidents(out, s);
        put_trust(out, s);
        dure_statement_put_rounds(out, s);
        dure_statement_put_acts(out, s);
        dure_statement_put_mechanism(out, s);
        dure_statement_put_canary(out, s);
    }
    dure_statement_put_checks(out, s);
    dure_statement_put_identifiers(out, s);
    put_footer(out, s);
    dure_statement_put(out, "</main>\n</body>\n</html>\n");
    return dure_buf_err(out);
}
