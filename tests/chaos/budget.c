/* Random sequences of trainings, kills and restores of two processes over one data source; after
 * each, whether anything left that the budget does not count.
 *
 *   test_ledger_budget [--seed N] [--sequences N] [--keep]
 *
 * The whole of it is --sequences 1000, some twenty minutes on two cores; a sequence's seed is
 * printed when it fails, and --seed SEED --sequences 1 --keep repeats it and keeps its folder.
 *
 * An adapter that is there has left. After each sequence every one must be paid for by a spent
 * reservation of its very plan, all of them together must be within the budget by the accountant
 * that knows nothing of ledgers, and what the ledger says is spent must be no less. */
#include "owner.h"

#include "dp/accountant_pld.h"
#include "ledger/site_ledger.h"
#include "support/check.h"
#include "support/tiny_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ACTS_LEAST = 10, ACTS_MOST = 30 };

typedef struct tally {
    size_t n_runs, n_left, n_killed, n_refused, n_restored;
} tally;

static bool is_paid(const owner *o, const dure_site_ledger *ledger, size_t run)
{
    const dure_dp_plan plan = owner_plan(o, run);
    char purpose[64];
    snprintf(purpose, sizeof purpose, "dure train --out a%zu", run);
    for (size_t i = 0; i < dure_site_ledger_reservation_count(ledger); i++) {
        const dure_reservation *r = dure_site_ledger_reservation_at(ledger, i);
        if (r->state == DURE_RESERVATION_SPENT && !strcmp(r->purpose, purpose) &&
            r->plan.steps == plan.steps && r->plan.sigma_num == plan.sigma_num &&
            r->plan.q_k == plan.q_k)
            return true;
    }
    return false;
}

/* epsilon of all that left. */
static double true_epsilon(const owner *o, size_t *n_left)
{
    dure_dp_plan plans[OWNER_RUNS_MAX];
    double epsilon = 0;
    *n_left = 0;
    for (size_t i = 0; i < o->n_runs; i++)
        if (owner_has_adapter(o, i)) plans[(*n_left)++] = owner_plan(o, i);
    assert_ok(dure_pld_epsilon(&epsilon, plans, *n_left, o->budget.delta));
    return epsilon;
}

/* False with the finding in `why`. */
static bool judge(const owner *o, size_t *n_left, char why[static 256])
{
    dure_site_ledger *ledger = NULL;
    dure_diag diag = {{0}};
    dure_source_status s = {.epsilon_spent = 0};
    const double epsilon = true_epsilon(o, n_left);
    bool good = true;
    dure_err err = dure_site_ledger_open(&ledger, temp_dir_file(&o->dir, "ledger"), &diag);
    if (!err && *n_left) err = dure_site_ledger_source(&s, ledger, OWNER_SOURCE, &diag);
    if (err) {
        snprintf(why, 256, "the newest ledger cannot be read: %.200s", diag.text);
        return false;
    }
    for (size_t i = 0; good && i < o->n_runs; i++) {
        good = !owner_has_adapter(o, i) || is_paid(o, ledger, i);
        if (!good) snprintf(why, 256, "a%zu left and is not paid for", i);
    }
    if (good && epsilon > o->budget.epsilon) {
        snprintf(why, 256, "epsilon %.6g left, of %.6g", epsilon, o->budget.epsilon);
        good = false;
    }
    if (good && *n_left && s.epsilon_spent < epsilon * (1 - 1e-6)) {
        snprintf(why, 256, "epsilon %.6g left, the ledger has %.6g", epsilon, s.epsilon_spent);
        good = false;
    }
    dure_site_ledger_close(&ledger);
    return good;
}

static bool run_sequence(uint64_t seed, const char *model, bool keep, tally *t)
{
    owner o;
    char why[256] = "";
    size_t n_left = 0;
    owner_make(&o, seed, model);
    const uint64_t n = ACTS_LEAST + owner_draw(&o, ACTS_MOST - ACTS_LEAST + 1);
    for (uint64_t i = 0; i < n; i++)
        owner_act(&o);
    owner_settle(&o);
    bool good = judge(&o, &n_left, why);
    if (!good) print_message("seed %llu: %s\n", (unsigned long long)seed, why);
    t->n_runs += o.n_runs;
    t->n_left += n_left;
    t->n_killed += o.n_killed;
    t->n_refused += o.n_refused;
    t->n_restored += o.n_restored;
    owner_end(&o, keep && !good);
    return good;
}

/* What Dure cannot notice, ledger and mark put back together, is what the judge must. */
static bool judge_finds_a_refund(const char *model)
{
    owner o;
    char why[256] = "";
    size_t n_left = 0;
    owner_make(&o, 1, model);
    owner_train(&o, (owner_run){.steps = 5, .noise = 1.2});
    bool good = judge(&o, &n_left, why) && n_left == 1;
    owner_copy(&o);
    owner_train(&o, (owner_run){.steps = 6, .noise = 1.2});
    good = good && judge(&o, &n_left, why) && n_left == 2;
    owner_put_back(&o, 0);
    owner_train(&o, (owner_run){.steps = 7, .noise = 1.2}); /* is refused */
    owner_settle(&o);
    good = good && judge(&o, &n_left, why) && n_left == 2;
    owner_forget(&o, 0);
    owner_train(&o, (owner_run){.steps = 8, .noise = 1.2});
    good = good && !judge(&o, &n_left, why) && n_left == 3;
    print_message("%s\n", good ? "the judge sees a refund" : "THE JUDGE IS BLIND");
    owner_end(&o, false);
    return good;
}

int main(int argc, char **argv)
{
    uint64_t seed = 1, sequences = 1000, n_bad = 0;
    bool keep = false;
    tally t = {0};
    temp_dir shared;
    char model[300];
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--keep"))
            keep = true;
        else if (!strcmp(argv[i], "--seed") && i + 1 < argc)
            seed = strtoull(argv[++i], NULL, 10);
        else if (!strcmp(argv[i], "--sequences") && i + 1 < argc)
            sequences = strtoull(argv[++i], NULL, 10);
        else
            return 2;
    }
    temp_dir_make(&shared);
    snprintf(model, sizeof model, "%s", temp_dir_file(&shared, "model.gguf"));
    tiny_model_write(model, &(tiny_model_opts){.seed = 5});
    if (!judge_finds_a_refund(model)) n_bad++;
    for (uint64_t i = 0; i < sequences; i++)
        n_bad += !run_sequence(seed + i, model, keep, &t);
    print_message("%llu sequences, seeds from %llu: %zu trainings, %zu killed, %zu refused, %zu "
                  "older ledgers put back, %zu adapters left; %llu sequences under-counted\n",
                  (unsigned long long)sequences, (unsigned long long)seed, t.n_runs, t.n_killed,
                  t.n_refused, t.n_restored, t.n_left, (unsigned long long)n_bad);
    temp_dir_remove(&shared);
    return n_bad ? 1 : 0;
}
