/* The page of `dure privacy plan --html`: one file without scripts or outside parts, for light and
 * dark screens and for paper. */
#include "cli/plot.h"
#include "cli/privacy_plan.h"
#include "dp/accountant_rdp.h"
#include "dp/calibrate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS_SHOWN = 17, NOISES_SHOWN = 17, BATCHES_SHOWN = 7 };

static const char page_style[] =
    ":root{color-scheme:light dark;--ink:#1c2024;--soft:#5b6470;--rule:#d5dae1;--page:#fff;"
    "--panel:#f5f7fa;--c0:#1f5fa8;--c1:#b4501a;--c2:#26794a;--c3:#8a3a86}\n"
    "@media (prefers-color-scheme:dark){:root{--ink:#e4e8ee;--soft:#a3adba;--rule:#3a424d;"
    "--page:#14181d;--panel:#1d232b;--c0:#79b0f2;--c1:#f29b6b;--c2:#74cf9a;--c3:#d992d6}}\n"
    "*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);"
    "font:16px/1.55 system-ui,\"Segoe UI\",Roboto,\"Noto Sans\",\"DejaVu Sans\",sans-serif}\n"
    "main{max-width:54rem;margin:0 auto;padding:2.5rem 1.5rem 4rem}h1{font-size:1.8rem;"
    "line-height:1.2;margin:0 0 .4rem}h2{font-size:1.2rem;margin:2.2rem 0 .4rem}p{margin:.5rem 0}\n"
    ".soft{color:var(--soft)}.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax("
    "11rem,1fr));gap:.7rem;margin:1.2rem 0}.facts div{background:var(--panel);border-radius:.3rem;"
    "padding:.7rem .9rem}.facts "
    "b{display:block;white-space:nowrap;font-size:1.35rem;line-height:1.25}.facts span{"
    "font-size:.84rem;color:var(--soft)}figure{margin:1rem 0}figcaption{font-size:.86rem;"
    "color:var(--soft)}\n"
    "@page{size:A4;margin:15mm}@media print{:root{color-scheme:light;--ink:#000;--soft:#444;"
    "--rule:#bbb;--page:#fff;--panel:#f3f3f3;--c0:#174e8c;--c1:#9c4212;--c2:#1c6339;--c3:#74306f}"
    "body{font-size:10pt;line-height:1.4}h1{font-size:1.5rem}h2{font-size:1rem}main{max-width:none;"
    "padding:0}h2{margin-top:1.2rem;break-after:avoid}"
    "figure{break-inside:avoid}svg{max-height:54mm}"
    "*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}\n";

static double rdp_of(const dure_dp_plan *plan, double delta)
{
    dure_rdp rdp = {{0}};
    double epsilon = INFINITY;
    dure_rdp_add(&rdp, plan);
    return dure_rdp_epsilon(&epsilon, &rdp, delta) ? INFINITY : epsilon;
}

/* A point on the lines of both accountants. */
static dure_err add_point(dure_plot *plot, size_t i, double x, const dure_dp_plan *plan,
                          double delta)
{
    double epsilon = INFINITY;
    dure_err err = dure_calibrate_epsilon(&epsilon, plan, NULL, delta);
    for (size_t k = 0; k < 2; k++) {
        plot->lines[k].x[i] = x;
        plot->lines[k].y[i] = k == 0 ? epsilon : rdp_of(plan, delta);
        plot->lines[k].n = i + 1;
    }
    return err;
}

static void begin_plot(dure_plot *plot, const char *label, const char *x_name, double mark_x,
                       const dure_plan_answer *a)
{
    *plot = (dure_plot){
        .label = label,
        .x_name = x_name,
        .y_name = "privacy loss \xce\xb5",
        .lines = {{.name = dure_plan_is_of_site(a) ? "zCDP" : "PLD"}, {.name = "R\xc3\xa9nyi"}},
        .n_lines = 2,
        .y_most = 4 * a->epsilon,
        .marked = true,
        .mark_x = mark_x,
        .mark_y = a->epsilon};
    snprintf(plot->mark, sizeof plot->mark, "this plan: %.4g", a->epsilon);
}

static dure_err plot_steps(dure_plot *plot, const dure_plan_answer *a)
{
    dure_dp_plan plan = a->plan;
    begin_plot(plot, "Privacy loss over steps", dure_plan_is_of_site(a) ? "rounds" : "steps",
               (double)a->plan.steps, a);
    dure_err err = DURE_OK;
    double most = fmax(1.6 * (double)a->plan.steps, 8), before = 0;
    size_t n = 0;
    for (size_t i = 0; !err && i < STEPS_SHOWN; i++) {
        double part = (double)i / (STEPS_SHOWN - 1); /* the curve bends at its beginning */
        double steps = fmax(1, round(most * part * part));
        if (steps <= before || steps > DURE_DP_STEPS_MAX) continue;
        before = steps;
        plan.steps = (uint64_t)steps;
        err = add_point(plot, n++, steps, &plan, a->delta);
    }
    return err;
}

static dure_err plot_noise(dure_plot *plot, const dure_plan_answer *a)
{
    dure_dp_plan plan = a->plan;
    double sigma = dure_dp_plan_sigma(&a->plan);
    begin_plot(plot, "Privacy loss over noise", "noise multiplier \xcf\x83", sigma, a);
    dure_err err = DURE_OK;
    for (size_t i = 0; !err && i < NOISES_SHOWN; i++) {
        double x = sigma * (0.6 + 1.6 * (double)i / (NOISES_SHOWN - 1));
        if (dure_dp_plan_set_sigma(&plan, x, NULL)) break;
        err = add_point(plot, i, dure_dp_plan_sigma(&plan), &plan, a->delta);
    }
    return err;
}

/* Noise multiplier for the plan's epsilon at `times` its batch; infinite if none or too large a
 * batch. */
static double sigma_at(const dure_plan_answer *a, double times)
{
    dure_dp_plan plan = a->plan;
    double rate = dure_dp_plan_rate(&a->plan) * times;
    if (times == 1) return dure_dp_plan_sigma(&a->plan);
    if (rate > 1 || dure_dp_plan_set_rate(&plan, rate, NULL)) return INFINITY;
    dure_privacy target = {a->epsilon, a->delta};
    return dure_calibrate_sigma(&plan, NULL, target, NULL) ? INFINITY : dure_dp_plan_sigma(&plan);
}

/* Signal over noise in the whole run, or, when parameters or batch are not known, relative to
 * this plan. */
static void plot_batch(dure_plot *plot, const dure_plan_answer *a)
{
    static const double sites[] = {1, 4, 16};
    static const char *const names[] = {"as planned", "4 \xc3\x97 the sites",
                                        "16 \xc3\x97 the sites"};
    double signal = dure_plan_signal(a) * sqrt((double)a->plan.steps);
    double unit = signal > 0 ? signal : 1, sigma = dure_dp_plan_sigma(&a->plan);
    *plot = (dure_plot){.label = "Signal over noise against the batch, at the same epsilon",
                        .x_name = a->batch > 0 ? "records a step, at the same \xce\xb5 and steps"
                                               : "times this plan's sampling rate, at the same "
                                                 "\xce\xb5 and steps",
                        .y_name = signal > 0 ? "signal over noise" : "signal, times this plan's",
                        .x_log = true,
                        .n_lines = 3,
                        .marked = true,
                        .mark_x = a->batch > 0 ? a->batch : 1,
                        .mark_y = unit};
    snprintf(plot->mark, sizeof plot->mark, "this plan: %.3g", unit);
    for (size_t i = 0; i < BATCHES_SHOWN; i++) {
        double times = ldexp(1, (int)i - 2), needed = sigma_at(a, times);
        if (!isfinite(needed)) break;
        for (size_t k = 0; k < 3; k++) {
            dure_plot_line *line = &plot->lines[k];
            line->name = names[k];
            line->x[i] = times * (a->batch > 0 ? a->batch : 1);
            line->y[i] = unit * times * sigma / needed * sqrt(sites[k]);
            line->n = i + 1;
        }
    }
}

static void put_fact(dure_buf *out, const char *value, const char *what)
{
    dure_put_format(out, "<div><b>%s</b><span>%s</span></div>\n", value, what);
}

static void put_facts(dure_buf *out, const dure_plan_answer *a)
{
    char text[64];
    bool subject = !strcmp(dure_dp_plan_unit(&a->plan), "subject"), site = dure_plan_is_of_site(a);
    double signal = dure_plan_signal(a) * sqrt((double)a->plan.steps);
    dure_put_format(out, "<div class=\"facts\">\n");
    snprintf(text, sizeof text, "\xce\xb5 = %.4g", a->epsilon);
    put_fact(out, text, site ? "zCDP accountant, rounded up" : "PLD accountant, rounded up");
    snprintf(text, sizeof text, "\xce\xb4 = %.3g", a->delta);
    put_fact(out, text,
             site      ? "for one site's whole update or none"
             : subject ? "for adding or removing one subject"
                       : "for adding or removing one record");
    snprintf(text, sizeof text, "\xcf\x83 = %.4g", dure_dp_plan_sigma(&a->plan));
    put_fact(out, text, "noise over clip, in a sum");
    if (a->plan.adaptive.count_sigma_num) {
        snprintf(text, sizeof text, "\xcf\x83 = %.4g", dure_dp_plan_sigma_effective(&a->plan));
        put_fact(out, text, "in effect, with the count that the clip follows");
    }
    snprintf(text, sizeof text, site ? "%llu rounds" : "%llu steps",
             (unsigned long long)a->plan.steps);
    put_fact(out, text, "in all");
    snprintf(text, sizeof text, site ? "%.0f honest" : "q = %.4g",
             site ? a->plan.honest : dure_dp_plan_rate(&a->plan));
    put_fact(out, text,
             site      ? "sites in every sum, at least, on which this rests"
             : subject ? "a subject's chance to be in a step"
                       : "a record's chance to be in a step");
    snprintf(text, sizeof text, "%.3g %%", 100 * a->hit_rate);
    put_fact(out, text, "of members at most are found by a test with 1 % false alarms");
    if (signal > 0) {
        snprintf(text, sizeof text, "%.3g", signal);
        put_fact(out, text, "signal over noise in the whole run, at most");
    }
    dure_put_format(out,
                    "</div>\n<p class=\"soft\">The R\xc3\xa9nyi accountant, the looser "
                    "cross-check, says \xce\xb5 = %.4g. The central limit would say \xce\xbc = "
                    "%.3g (Gaussian differential privacy); nothing is held to it.</p>\n",
                    a->epsilon_rdp, a->gdp_mu);
}

static void put_figure(dure_buf *out, const char *heading, const dure_plot *plot,
                       const char *caption)
{
    dure_put_format(out, "<h2>%s</h2>\n<figure>", heading);
    dure_plot_put(out, plot);
    dure_put_format(out, "<figcaption>%s</figcaption></figure>\n", caption);
}

static void put_learning(dure_buf *out, const dure_plan_answer *a, dure_plot *plot)
{
    char caption[640];
    double signal = dure_plan_signal(a);
    plot_batch(plot, a);
    if (signal > 0)
        snprintf(caption, sizeof caption,
                 "The largest sum that %g clipped gradients can have, over the length of the noise "
                 "in %llu parameters, times the root of the steps. Real gradients agree less. "
                 "About 1 and more learns; below 0.3 nothing shows. A step alone has %.3g.",
                 a->batch, (unsigned long long)a->n_params, signal);
    else
        snprintf(caption, sizeof caption,
                 "How much larger the signal gets beside the noise, relative to this plan. With "
                 "--batch and --params or --model, the page says how large it is.");
    put_figure(out, "What a larger batch or more sites buy", plot, caption);
}

dure_err dure_plan_page(dure_buf *out, const dure_plan_answer *answer, dure_diag *diag)
{
    if (!isfinite(answer->epsilon) || answer->epsilon == 0)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "there is nothing to draw for an epsilon of %g; give the plan some "
                             "noise, or more steps",
                             answer->epsilon);
    dure_plot *plot = calloc(1, sizeof *plot);
    if (!plot) return DURE_ERR_NOMEM;
    dure_put_format(out,
                    "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
                    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"
                    "<title>A plan of private training</title>\n<style>%s%s</style></head><body>"
                    "<main>\n<h1>A plan of private training</h1>\n",
                    page_style, dure_plot_style);
    if (answer->model[0]) dure_put_format(out, "<p class=\"soft\">%s</p>\n", answer->model);
    put_facts(out, answer);
    dure_err err = plot_steps(plot, answer);
    if (!err)
        put_figure(out, "Privacy loss over the steps", plot,
                   "More steps cost more, ever more slowly. A plan is paid for whole, before its "
                   "first step.");
    if (!err) err = plot_noise(plot, answer);
    if (!err)
        put_figure(out, "Privacy loss over the noise", plot,
                   "What another noise multiplier would cost, with steps and sampling as planned.");
    if (!err && !dure_plan_is_of_site(answer)) put_learning(out, answer, plot);
    dure_put_format(out, "</main></body></html>\n");
    free(plot);
    return err;
}
