/* What the demo leaves to read: summary.json and one screen. */
#include "cli/demo.h"

#include "common/json.h"

#include <stdio.h>

static json_t *site_json(const demo_site *s)
{
    return json_pack("{s:s, s:I, s:f, s:f, s:f, s:I, s:f, s:f, s:f, s:f}", "name", s->name,
                     "records", (json_int_t)s->records, "epsilon_spent", s->epsilon_spent,
                     "epsilon_budget", s->epsilon_budget, "delta", s->delta, "bytes_sent",
                     (json_int_t)s->bytes_sent, "loss_base", s->base.loss, "loss_adapter",
                     s->adapter.loss, "score_base", s->base.score, "score_adapter",
                     s->adapter.score);
}

static json_t *summary_json(const demo *d)
{
    json_t *sites = json_array();
    for (size_t i = 0; i < DEMO_SITES; i++)
        json_array_append_new(sites, site_json(&d->sites[i]));
    json_t *phases =
        json_pack("{s:f, s:f, s:f, s:f, s:f}", "found", d->found_s, "train", d->train_s,
                  "secure_sum", d->sum_s, "gate", d->gate_s, "outcome", d->outcome_s);
    const demo_change *c = &d->change;
    return json_pack(
        "{s:f, s:I, s:I, s:o, s:f, s:f, s:[ff], s:f, s:f, s:[ff], s:s, s:b, s:s, s:s, s:s, s:o}",
        "wall_seconds", d->wall_s, "rounds", (json_int_t)d->rounds_done, "tokens_trained",
        (json_int_t)d->tokens, "sites", sites, "loss_base", d->base.loss, "loss_adapter",
        d->adapter.loss, "loss_change", c->loss[0], c->loss[1], "score_base", d->base.score,
        "score_adapter", d->adapter.score, "score_change", c->score[0], c->score[1], "adapter",
        d->adapter_path, "ledger_verified", (int)d->ledger_verified, "question", d->question,
        "answer_base", d->answer_base, "answer_adapter", d->answer_adapter, "phase_seconds",
        phases);
}

static const char *tint(const char *code)
{
    return dure_colour(stdout) ? code : "";
}

static void print_sites(const demo *d)
{
    printf("  %-8s %8s  %-18s %9s   %-16s  %s\n", "site", "records", "privacy spent", "sent",
           "loss", "right fields");
    for (size_t i = 0; i < DEMO_SITES; i++) {
        const demo_site *s = &d->sites[i];
        char sent[32], spent[40];
        dure_format_bytes(sent, s->bytes_sent);
        snprintf(spent, sizeof spent, "ε %.2f of %.2f", s->epsilon_spent, s->epsilon_budget);
        /* ε is two bytes, one column. */
        printf("  %-8s %8llu  %-19s %9s   %.2f → %.2f       %3.0f %% → %.0f %%\n", s->name,
               (unsigned long long)s->records, spent, sent, s->base.loss, s->adapter.loss,
               100 * s->base.score, 100 * s->adapter.score);
    }
}

static void print_screen(const demo *d)
{
    const char *bold = tint("\033[1m"), *plain = tint("\033[0m");
    char wall[32];
    dure_format_seconds(wall, d->wall_s);
    printf("\n%sThree sites tuned one model together in %s; no record left its site.%s\n\n", bold,
           wall, plain);
    print_sites(d);
    printf("  (each site's own held-out records, computed by its own process; δ = %.1e, one record "
           "is\n"
           "   protected; a site's ledger refuses what would exceed its ε)\n\n",
           d->sites[0].delta);
    printf("  The federation's shared evaluation set, which no site trained on:\n"
           "  %sloss %.2f → %.2f    right fields %.0f %% → %.0f %%%s\n",
           bold, d->base.loss, d->adapter.loss, 100 * d->base.score, 100 * d->adapter.score, plain);
    printf(
        "  (with 95 %% confidence the loss changes by %.2f to %.2f, the right fields by %+.0f to "
        "%+.0f points)\n\n",
        d->change.loss[0], d->change.loss[1], 100 * d->change.score[0], 100 * d->change.score[1]);
    printf("  Asked over HTTP: %s\n    base     %s\n    adapter  %s%s%s\n\n", d->question,
           d->answer_base, bold, d->answer_adapter, plain);
    printf("  %llu rounds, %llu tokens trained. Time: founding %.0f s, training %.0f s, secure sum "
           "%.1f s,"
           "\n  gate %.0f s, evaluation, merge and serving %.0f s.\n",
           (unsigned long long)d->rounds_done, (unsigned long long)d->tokens, d->found_s,
           d->train_s, d->sum_s, d->gate_s, d->outcome_s);
    printf("  Secure sum: 3 sites, 1 may collude with the coordinator, all 3 must stay to the end\n"
           "  (five sites tolerate one that drops out, seven two).\n");
    printf("  Ledger: %s. Adapter: %s\n\n",
           d->ledger_verified ? "verified, entry by entry" : "NOT VERIFIED", d->adapter_path);
    printf("Try next:\n"
           "  dure serve %s/federation/coordinator --model %s\n"
           "  dure audit verify %s/ledger.dure\n"
           "  dure privacy status --ledger %s/%s/ledger\n"
           "  dure init --help     a federation of your own: README, second half\n",
           d->out, d->model, d->out, d->out, d->sites[0].name);
}

dure_err demo_report(const demo *d, dure_diag *diag)
{
    char path[DEMO_PATH];
    demo_path(path, d, "summary.json");
    json_t *summary = summary_json(d);
    if (!summary) return dure_diag_set(diag, DURE_ERR_NOMEM, "out of memory");
    dure_err err = dure_json_write(path, summary, 0644, diag);
    if (!err && d->json) return dure_print_json(summary) ? DURE_ERR_IO : DURE_OK;
    json_decref(summary);
    if (!err) print_screen(d);
    return err;
}
