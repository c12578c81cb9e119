#include "client/private_run.h"

#include "common/file.h"
#include "dp/calibrate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

_Static_assert(sizeof(dure_reservation_id) == DURE_ATTEMPT_NOTE_BYTES,
               "the attempt's note holds the reservation");

static dure_err make_plan(dure_dp_plan *plan, const dure_private_run_opts *opts,
                          const dure_private_run_subject *subject, dure_diag *diag)
{
    size_t n = dure_lora_count(&subject->start->layout, subject->trainer->factors);
    *plan = (dure_dp_plan){.mechanism = DURE_DP_POISSON_GAUSSIAN,
                           .clip = opts->clip,
                           .steps = opts->steps,
                           .adaptive = opts->adaptive};
    dure_err err = dure_dp_plan_set_unit(plan, opts->unit ? opts->unit : "record", diag);
    if (!err) err = dure_dp_plan_set_batch(plan, opts->batch, opts->n_pub, diag);
    if (!err) err = dure_dp_grid_bits(&plan->grid_bits, n, diag);
    if (!err) err = dure_dp_plan_set_sigma(plan, opts->noise, diag);
    if (!err) err = dure_dp_plan_check(plan, diag);
    return err;
}

static dure_err bind(dure_hash *binding, const dure_private_run *run,
                     const dure_private_run_subject *subject, dure_diag *diag)
{
    dure_trainer_opts opts = *subject->trainer;
    opts.plan = &run->plan;
    dure_err err = dure_trainer_settings_hash(binding, subject->start, &opts, subject->base);
    return err ? dure_diag_set(diag, err, "cannot hash the settings of the run") : DURE_OK;
}

/* The plan is the reserved one; what was asked for must be the same in everything else. */
static dure_err check_same(const dure_reservation *reserved, const dure_private_run *run,
                           const dure_private_run_opts *opts, dure_diag *diag)
{
    const dure_dp_plan *a = &reserved->plan;
    dure_dp_plan asked = run->plan;
    if (opts->noise == 0) asked.sigma_num = a->sigma_num;
    bool same = !strcmp(reserved->source, opts->source) && a->steps == asked.steps &&
                dure_dp_plan_same_step(a, &asked);
    if (same && reserved->state != DURE_RESERVATION_RELEASED) return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_STATE,
                         "%s belongs to an unfinished run on '%s' with batch %llu, %llu steps and "
                         "clip %g; repeat those settings, or remove its folder to start anew (what "
                         "it reserved stays counted)",
                         opts->key_path, reserved->source, (unsigned long long)a->batch,
                         (unsigned long long)a->steps, a->clip);
}

/* ---- the name of the reservation, kept until there is a key ---- */

/* KEY.reservation, allocated. */
static dure_err name_path(char **path, const char *key_path)
{
    static const char ending[] = ".reservation";
    size_t n = strlen(key_path);
    *path = malloc(n + sizeof ending);
    if (!*path) return DURE_ERR_NOMEM;
    memcpy(*path, key_path, n);
    memcpy(*path + n, ending, sizeof ending);
    return DURE_OK;
}

static dure_err read_name(dure_reservation_id *id, const char *path, dure_diag *diag)
{
    dure_buf bytes;
    dure_err err = dure_file_read(&bytes, path, sizeof id->b, diag);
    if (err) return err;
    if (bytes.n == sizeof id->b)
        memcpy(id->b, bytes.data, sizeof id->b);
    else
        err = dure_diag_set(diag, DURE_ERR_FORMAT, "%s is damaged; remove it to start anew", path);
    dure_buf_fini(&bytes);
    return err;
}

static dure_err make_name(dure_reservation_id *id, const char *path, dure_diag *diag)
{
    dure_err err = dure_reservation_id_make(id, diag);
    return err ? err : dure_file_write_atomic(path, dure_span_of(id->b, sizeof id->b), 0600, diag);
}

static dure_err forget_name(const char *path, dure_diag *diag)
{
    return unlink(path) && errno != ENOENT ? dure_file_errno(diag, "remove", path) : DURE_OK;
}

bool dure_private_run_exists(const char *key_path)
{
    char *name = NULL;
    /* Without memory to look, nothing is said to be finished. */
    bool exists =
        dure_attempt_exists(key_path) || name_path(&name, key_path) || dure_file_exists(name);
    free(name);
    return exists;
}

/* ---- prepare ---- */

static dure_err reserve(dure_private_run *run, const dure_private_run_opts *opts, dure_diag *diag)
{
    dure_err err =
        dure_site_ledger_create_source(run->ledger, opts->source, opts->budget, opts->n_pub, diag);
    if (!err && opts->noise == 0)
        err = dure_site_ledger_least_noise(&run->plan, run->ledger, opts->source, diag);
    return err ? err
               : dure_site_ledger_reserve_as(run->ledger, &run->id, opts->source, &run->plan,
                                             opts->purpose, diag);
}

/* What was reserved under the name before a key was there serves still, unless it is spent: then
 * the name is a leftover of a run that came to its end. */
static dure_err reserve_once(dure_private_run *run, const dure_private_run_opts *opts,
                             const char *path, dure_diag *diag)
{
    const dure_reservation *reserved = NULL;
    dure_err err =
        dure_file_exists(path) ? read_name(&run->id, path, diag) : make_name(&run->id, path, diag);
    if (err) return err;
    if (dure_site_ledger_reservation(&reserved, run->ledger, &run->id, NULL))
        return reserve(run, opts, diag);
    if (reserved->state != DURE_RESERVATION_RESERVED) {
        err = make_name(&run->id, path, diag);
        return err ? err : reserve(run, opts, diag);
    }
    err = check_same(reserved, run, opts, diag);
    run->plan = reserved->plan;
    return err;
}

static dure_err start_new(dure_private_run *run, const dure_private_run_opts *opts,
                          const dure_private_run_subject *subject, dure_diag *diag)
{
    dure_hash binding;
    char *path = NULL;
    dure_err err = name_path(&path, opts->key_path);
    if (err) return err;
    err = reserve_once(run, opts, path, diag);
    if (!err) err = bind(&binding, run, subject, diag);
    if (!err)
        err = dure_attempt_begin(&run->attempt, opts->key_path, &binding, subject->data, run->id.b,
                                 diag);
    /* A refusal leaves nothing; after a failure of this machine the same run goes on with it. */
    if (!err)
        err = forget_name(path, diag);
    else if (!dure_err_is_local(err) && err != DURE_ERR_STATE)
        (void)!forget_name(path, NULL);
    free(path);
    return err;
}

static dure_err take_up(dure_private_run *run, const dure_private_run_opts *opts,
                        const dure_private_run_subject *subject, dure_diag *diag)
{
    const dure_reservation *reserved = NULL;
    dure_hash binding;
    dure_err err = dure_attempt_open(&run->attempt, opts->key_path, diag);
    if (err) return err;
    memcpy(run->id.b, run->attempt.note, sizeof run->id.b);
    err = dure_site_ledger_reservation(&reserved, run->ledger, &run->id, diag);
    if (!err) err = check_same(reserved, run, opts, diag);
    if (err) return err;
    run->plan = reserved->plan;
    run->resumed = true;
    err = bind(&binding, run, subject, diag);
    if (!err) err = dure_attempt_check(&run->attempt, &binding, subject->data, diag);
    return err;
}

dure_err dure_private_run_prepare(dure_private_run *out, const dure_private_run_opts *opts,
                                  const dure_private_run_subject *subject, dure_diag *diag)
{
    char *path = NULL;
    *out = (dure_private_run){.ledger = NULL};
    dure_err err = dure_privacy_check(opts->budget, diag);
    if (!err) err = make_plan(&out->plan, opts, subject, diag);
    if (!err) err = dure_site_ledger_path(&path, opts->ledger_path, diag);
    if (!err) err = dure_site_ledger_open(&out->ledger, path, diag);
    free(path);
    if (!err)
        err = dure_attempt_exists(opts->key_path) ? take_up(out, opts, subject, diag)
                                                  : start_new(out, opts, subject, diag);
    if (!err) err = dure_calibrate_epsilon(&out->epsilon, &out->plan, NULL, opts->budget.delta);
    if (err) dure_private_run_fini(out);
    return err;
}

/* The least noise for what is left; all of the budget is, for a source that the ledger does not
 * name yet. */
static dure_err least_noise(dure_private_preview *p, dure_site_ledger *ledger,
                            const dure_private_run_opts *opts, dure_diag *diag)
{
    dure_source_status source;
    dure_err err =
        ledger ? dure_site_ledger_source(&source, ledger, opts->source, NULL) : DURE_ERR_NOT_FOUND;
    p->remaining = opts->budget.epsilon;
    if (err == DURE_ERR_NOT_FOUND) return dure_calibrate_sigma(&p->plan, NULL, opts->budget, diag);
    if (err) return err;
    if (source.budget.epsilon != opts->budget.epsilon ||
        source.budget.delta != opts->budget.delta || source.n_pub != opts->n_pub)
        return dure_diag_set(diag, DURE_ERR_EXISTS,
                             "the source '%s' has epsilon %g, delta %g and %llu records in the "
                             "ledger, and a budget does not change",
                             opts->source, source.budget.epsilon, source.budget.delta,
                             (unsigned long long)source.n_pub);
    p->remaining = source.epsilon_remaining;
    return dure_site_ledger_least_noise(&p->plan, ledger, opts->source, diag);
}

/* More noise than the least is the owner's choice; less would not fit. */
static dure_err choose_noise(dure_dp_plan *plan, double noise, dure_diag *diag)
{
    double least = dure_dp_plan_sigma(plan);
    dure_err err = noise > 0 ? dure_dp_plan_set_sigma(plan, noise, diag) : DURE_OK;
    if (!err && dure_dp_plan_sigma(plan) < least)
        err = dure_diag_set(diag, DURE_ERR_BUDGET,
                            "noise %g is too little for what is left of the budget; %.4g fits",
                            noise, least);
    return err;
}

dure_err dure_private_run_preview(dure_private_preview *out, const dure_private_run_opts *opts,
                                  const dure_private_run_subject *subject, dure_diag *diag)
{
    char *path = NULL;
    dure_site_ledger *ledger = NULL;
    *out = (dure_private_preview){.epsilon = 0};
    dure_err err = dure_privacy_check(opts->budget, diag);
    if (!err) err = make_plan(&out->plan, opts, subject, diag);
    if (!err) err = dure_site_ledger_path(&path, opts->ledger_path, diag);
    if (!err && dure_file_exists(path)) err = dure_site_ledger_open_read(&ledger, path, diag);
    free(path);
    if (!err) err = least_noise(out, ledger, opts, diag);
    if (!err) err = choose_noise(&out->plan, opts->noise, diag);
    if (!err) err = dure_calibrate_epsilon(&out->epsilon, &out->plan, NULL, opts->budget.delta);
    dure_site_ledger_close(&ledger);
    return err;
}

dure_err dure_private_run_spend(dure_private_run *run, dure_diag *diag)
{
    dure_hash spender;
    dure_err err = dure_attempt_name(&spender, &run->attempt);
    if (err) return dure_diag_set(diag, err, "cannot name what the run spends");
    return dure_site_ledger_spend_by(run->ledger, &run->id, &spender, diag);
}

dure_err dure_private_run_close(dure_private_run *run, dure_diag *diag)
{
    dure_err err = dure_attempt_erase(&run->attempt, diag);
    dure_private_run_fini(run);
    return err;
}

void dure_private_run_fini(dure_private_run *run)
{
    dure_attempt_fini(&run->attempt);
    dure_site_ledger_close(&run->ledger);
}
