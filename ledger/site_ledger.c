#include "ledger/site_ledger.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/json.h"
#include "crypto/rng.h"
#include "ledger/site_ledger_int.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

dure_err dure_site_ledger_path(char **path, const char *given, dure_diag *diag)
{
    const char *environment = getenv("DURE_LEDGER"), *state = getenv("XDG_STATE_HOME");
    const char *home = getenv("HOME");
    *path = NULL;
    if (!given && environment && *environment) given = environment;
    if (given)
        *path = strdup(given);
    else if (state && *state)
        *path = dure_path_join(state, "dure/ledger");
    else if (home && *home)
        *path = dure_path_join(home, ".local/state/dure/ledger");
    else
        return dure_diag_set(diag, DURE_ERR_NOT_FOUND,
                             "there is no home folder to keep the privacy ledger in; name a file "
                             "with --ledger or DURE_LEDGER");
    if (!*path) return dure_diag_set(diag, DURE_ERR_NOMEM, "out of memory");
    return DURE_OK;
}

static dure_err make_parent(const char *path, dure_diag *diag)
{
    char *folder = strdup(path);
    if (!folder) return dure_diag_set(diag, DURE_ERR_NOMEM, "out of memory");
    char *slash = strrchr(folder, '/');
    dure_err err = DURE_OK;
    if (slash && slash != folder) {
        *slash = 0;
        err = dure_dir_make(folder, diag);
    }
    free(folder);
    return err;
}

/* The first line gives the chain a random start, so that two ledgers never share a head. */
static dure_err write_first(dure_site_ledger *ledger, dure_diag *diag)
{
    uint8_t id[16];
    dure_rng rng = dure_rng_system();
    dure_err err = dure_rng_fill(&rng, id, sizeof id);
    if (err) return dure_diag_set(diag, err, "the system's random number generator failed");
    return dure_ledger_append(ledger,
                              json_pack("{s:s, s:i, s:o, s:I}", "kind", "ledger", "version", 1,
                                        "id", dure_json_from_hex(id, sizeof id), "at",
                                        (json_int_t)dure_clock_wall_s()),
                              diag);
}

static dure_err open_file(dure_site_ledger *ledger, dure_diag *diag)
{
    if (ledger->read_only) {
        ledger->fd = open(ledger->path, O_RDONLY | O_CLOEXEC);
    } else {
        dure_err err = make_parent(ledger->path, diag);
        if (err) return err;
        ledger->fd = open(ledger->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    }
    if (ledger->fd < 0) return dure_file_errno(diag, "open the privacy ledger", ledger->path);
    struct stat info;
    if (fstat(ledger->fd, &info) || !S_ISREG(info.st_mode))
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "the privacy ledger %s is not a file; name one with --ledger",
                             ledger->path);
    return DURE_OK;
}

static dure_err open_ledger(dure_site_ledger **out, const char *path, bool read_only,
                            dure_diag *diag)
{
    *out = NULL;
    dure_site_ledger *ledger = calloc(1, sizeof *ledger);
    if (!ledger) return dure_diag_set(diag, DURE_ERR_NOMEM, "out of memory");
    ledger->fd = -1;
    ledger->read_only = read_only;
    ledger->path = strdup(path);
    dure_err err = ledger->path ? open_file(ledger, diag) : DURE_ERR_NOMEM;
    if (err) goto out;
    err = dure_ledger_begin(ledger, diag);
    if (err) goto out;
    if (ledger->n_chain == 0)
        err = read_only ? dure_diag_set(diag, DURE_ERR_FORMAT,
                                        "the privacy ledger %s is empty; name the right one with "
                                        "--ledger",
                                        path)
                        : write_first(ledger, diag);
    dure_ledger_end(ledger);
    /* At each opening, since the one that made the file may have been cut off before this. */
    if (!err && !read_only) err = dure_file_sync_folder(path, diag);
out:
    if (err)
        dure_site_ledger_close(&ledger);
    else
        *out = ledger;
    return err;
}

dure_err dure_site_ledger_open(dure_site_ledger **out, const char *path, dure_diag *diag)
{
    return open_ledger(out, path, false, diag);
}

dure_err dure_site_ledger_open_read(dure_site_ledger **out, const char *path, dure_diag *diag)
{
    return open_ledger(out, path, true, diag);
}

void dure_site_ledger_close(dure_site_ledger **ledger)
{
    dure_site_ledger *l = *ledger;
    if (!l) return;
    if (l->fd >= 0) close(l->fd);
    free(l->path);
    free(l->chain);
    free(l->sources);
    free(l->items);
    free(l);
    *ledger = NULL;
}

static dure_err check_source(const char *name, dure_privacy budget, uint64_t n_pub, dure_diag *diag)
{
    dure_err err =
        dure_ledger_check_text(name, DURE_SOURCE_NAME_SIZE, "the name of a data source", diag);
    if (!err) err = dure_privacy_check(budget, diag);
    if (err) return err;
    if (n_pub == 0 || n_pub > DURE_DP_RECORDS_MAX)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "the public number of records of '%s' must be 1 to %llu", name,
                             (unsigned long long)DURE_DP_RECORDS_MAX);
    /* A delta of 1/n would allow one record in every run to be published whole. */
    if (budget.delta * 10 * (double)n_pub > 1 + 1e-9)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "delta %.3g is too large for %llu records; at most 1 / (10 x records) "
                             "= %.3g",
                             budget.delta, (unsigned long long)n_pub, 0.1 / (double)n_pub);
    return DURE_OK;
}

static dure_err add_source(dure_site_ledger *ledger, const char *name, dure_privacy budget,
                           uint64_t n_pub, dure_diag *diag)
{
    const dure_ledger_source *there = dure_ledger_find_source(ledger, name);
    if (!there && ledger->n_sources == DURE_LEDGER_SOURCES_MAX)
        return dure_diag_set(diag, DURE_ERR_LIMIT, "the privacy ledger %s is full", ledger->path);
    if (!there)
        return dure_ledger_append(ledger,
                                  json_pack("{s:s, s:s, s:f, s:f, s:I, s:f, s:I}", "kind", "source",
                                            "source", name, "epsilon", budget.epsilon, "delta",
                                            budget.delta, "n_pub", (json_int_t)n_pub, "order",
                                            dure_ledger_filter_order(budget), "at",
                                            (json_int_t)dure_clock_wall_s()),
                                  diag);
    if (there->budget.epsilon == budget.epsilon && there->budget.delta == budget.delta &&
        there->n_pub == n_pub)
        return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_EXISTS,
                         "the data source '%s' has epsilon %g, delta %g and %llu public records in "
                         "the ledger %s, and a budget does not change; use those figures, or, if "
                         "these are other data, another name",
                         name, there->budget.epsilon, there->budget.delta,
                         (unsigned long long)there->n_pub, ledger->path);
}

dure_err dure_site_ledger_create_source(dure_site_ledger *ledger, const char *name,
                                        dure_privacy budget, uint64_t n_pub, dure_diag *diag)
{
    dure_err err = check_source(name, budget, n_pub, diag);
    if (!err) err = dure_ledger_begin(ledger, diag);
    if (err) return err;
    err = add_source(ledger, name, budget, n_pub, diag);
    dure_ledger_end(ledger);
    return err;
}

static dure_err find_for_plan(const dure_ledger_source **out, const dure_site_ledger *ledger,
                              const char *name, const dure_dp_plan *plan, dure_diag *diag)
{
    const dure_ledger_source *source = dure_ledger_find_source(ledger, name);
    if (!source)
        return dure_diag_set(diag, DURE_ERR_NOT_FOUND,
                             "the privacy ledger %s has no data source '%s'", ledger->path, name);
    if (plan->n_pub != source->n_pub)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "the plan counts on %llu public records (or subjects) but '%s' was "
                             "declared with %llu; that "
                             "number does not change",
                             (unsigned long long)plan->n_pub, name,
                             (unsigned long long)source->n_pub);
    if (plan->mechanism == DURE_DP_SITE_GAUSSIAN && source->budget.delta > DURE_DP_SITE_DELTA_MAX)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "'%s' has delta %.3g, too large for a plan that protects one site of "
                             "at most %u; declare a source with %g or less",
                             name, source->budget.delta, DURE_DP_HONEST_MAX,
                             DURE_DP_SITE_DELTA_MAX);
    for (size_t i = 0; i < ledger->n_items; i++) {
        const dure_reservation *r = &ledger->items[i].reservation;
        if (!strcmp(r->source, name) && r->plan.mechanism != plan->mechanism)
            return dure_diag_set(diag, DURE_ERR_USAGE,
                                 "earlier plans of '%s' protect one %s, and what they cost does "
                                 "not add up with a plan that protects one %s; use --unit %s",
                                 name, dure_dp_plan_unit(&r->plan), dure_dp_plan_unit(plan),
                                 dure_dp_plan_unit(&r->plan));
    }
    *out = source;
    return DURE_OK;
}

dure_err dure_site_ledger_least_noise(dure_dp_plan *plan, dure_site_ledger *ledger,
                                      const char *source, dure_diag *diag)
{
    const dure_ledger_source *found = NULL;
    dure_err err = dure_ledger_begin(ledger, diag);
    if (err) return err;
    err = find_for_plan(&found, ledger, source, plan, diag);
    if (!err) err = dure_ledger_least_noise(plan, ledger, found, diag);
    dure_ledger_end(ledger);
    return err;
}

dure_err dure_site_ledger_check(dure_site_ledger *ledger, const char *source,
                                const dure_dp_plan *plan, dure_diag *diag)
{
    const dure_ledger_source *found = NULL;
    dure_err err = dure_dp_plan_check(plan, diag);
    if (!err) err = dure_ledger_begin(ledger, diag);
    if (err) return err;
    err = find_for_plan(&found, ledger, source, plan, diag);
    if (!err) err = dure_ledger_check_fits(ledger, found, plan, diag);
    dure_ledger_end(ledger);
    return err;
}

dure_err dure_reservation_id_make(dure_reservation_id *id, dure_diag *diag)
{
    dure_rng rng = dure_rng_system();
    if (!dure_rng_fill(&rng, id->b, sizeof id->b)) return DURE_OK;
    *id = (dure_reservation_id){{0}};
    return dure_diag_set(diag, DURE_ERR_RNG, "the system's random number generator failed");
}

static bool same_plan(const dure_dp_plan *a, const dure_dp_plan *b)
{
    return a->steps == b->steps && dure_dp_plan_same_step(a, b);
}

/* What is in the ledger under the caller's name already must be the same plan of the same source.
 */
static dure_err check_repeated(const dure_reservation *r, const char *source,
                               const dure_dp_plan *plan, dure_diag *diag)
{
    if (r->state == DURE_RESERVATION_RELEASED)
        return dure_diag_set(diag, DURE_ERR_STATE,
                             "this reservation was released, and its name is not used again");
    if (strcmp(r->source, source) == 0 && same_plan(&r->plan, plan)) return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_EXISTS,
                         "this reservation is in the privacy ledger with another source or plan");
}

static dure_err append_reservation(dure_site_ledger *ledger, const dure_reservation_id *id,
                                   const char *source, const dure_dp_plan *plan,
                                   const char *purpose, dure_diag *diag)
{
    const dure_ledger_source *found = NULL;
    dure_err err = find_for_plan(&found, ledger, source, plan, diag);
    if (!err) err = dure_ledger_check_fits(ledger, found, plan, diag);
    if (!err && ledger->n_items == DURE_LEDGER_ITEMS_MAX)
        err = dure_diag_set(diag, DURE_ERR_LIMIT, "the privacy ledger %s is full", ledger->path);
    if (err) return err;
    return dure_ledger_append(ledger,
                              json_pack("{s:s, s:o, s:s, s:o, s:s, s:I}", "kind", "reserve", "id",
                                        dure_json_from_hex(id->b, sizeof id->b), "source", source,
                                        "plan", dure_dp_plan_to_json(plan), "purpose", purpose,
                                        "at", (json_int_t)dure_clock_wall_s()),
                              diag);
}

dure_err dure_site_ledger_reserve_as(dure_site_ledger *ledger, const dure_reservation_id *id,
                                     const char *source, const dure_dp_plan *plan,
                                     const char *purpose, dure_diag *diag)
{
    dure_err err = dure_dp_plan_check(plan, diag);
    if (!err) err = dure_ledger_check_text(purpose, DURE_PURPOSE_SIZE, "a purpose", diag);
    if (!err) err = dure_ledger_begin(ledger, diag);
    if (err) return err;
    const dure_ledger_item *there = dure_ledger_find_item(ledger, id);
    err = there ? check_repeated(&there->reservation, source, plan, diag)
                : append_reservation(ledger, id, source, plan, purpose, diag);
    dure_ledger_end(ledger);
    return err;
}

dure_err dure_site_ledger_reserve(dure_reservation_id *id, dure_site_ledger *ledger,
                                  const char *source, const dure_dp_plan *plan, const char *purpose,
                                  dure_diag *diag)
{
    dure_err err = dure_reservation_id_make(id, diag);
    if (!err) err = dure_site_ledger_reserve_as(ledger, id, source, plan, purpose, diag);
    if (err) *id = (dure_reservation_id){{0}};
    return err;
}

static dure_err unknown(const dure_site_ledger *ledger, dure_diag *diag)
{
    return dure_diag_set(diag, DURE_ERR_NOT_FOUND,
                         "the privacy ledger %s has no such reservation; it may be an older copy",
                         ledger->path);
}

static json_t *change_entry(const dure_reservation_id *id, bool spend, const dure_hash *spender)
{
    json_t *entry =
        json_pack("{s:s, s:o, s:I}", "kind", spend ? "spend" : "release", "id",
                  dure_json_from_hex(id->b, sizeof id->b), "at", (json_int_t)dure_clock_wall_s());
    if (!entry || !spender) return entry;
    if (!json_object_set_new(entry, "by", dure_json_from_hex(spender->b, sizeof spender->b)))
        return entry;
    json_decref(entry);
    return NULL;
}

static bool is_anothers(const dure_reservation *r, const dure_hash *spender)
{
    return r->state == DURE_RESERVATION_SPENT && r->has_spender && spender &&
           !dure_hash_equal(&r->spender, spender);
}

/* One step of a reservation's life; `to` is SPENT or RELEASED, `spender` may be NULL. */
static dure_err change(dure_site_ledger *ledger, const dure_reservation_id *id,
                       dure_reservation_state to, const dure_hash *spender, dure_diag *diag)
{
    dure_err err = dure_ledger_begin(ledger, diag);
    if (err) return err;
    bool spend = to == DURE_RESERVATION_SPENT;
    const dure_ledger_item *item = dure_ledger_find_item(ledger, id);
    if (!item)
        err = unknown(ledger, diag);
    else if (item->reservation.state == DURE_RESERVATION_RESERVED)
        err = dure_ledger_append(ledger, change_entry(id, spend, spender), diag);
    else if (is_anothers(&item->reservation, spender))
        err = dure_diag_set(diag, DURE_ERR_STATE,
                            "another run has spent this reservation with noise of its own: the "
                            "folder of an unfinished run was copied; remove this copy and start "
                            "anew");
    else if (item->reservation.state != to)
        err = dure_diag_set(diag, DURE_ERR_STATE,
                            spend ? "this reservation was released, so nothing may be sent under it"
                                  : "this reservation is spent, and what is spent stays spent");
    dure_ledger_end(ledger);
    return err;
}

dure_err dure_site_ledger_spend(dure_site_ledger *ledger, const dure_reservation_id *id,
                                dure_diag *diag)
{
    return change(ledger, id, DURE_RESERVATION_SPENT, NULL, diag);
}

dure_err dure_site_ledger_spend_by(dure_site_ledger *ledger, const dure_reservation_id *id,
                                   const dure_hash *spender, dure_diag *diag)
{
    return change(ledger, id, DURE_RESERVATION_SPENT, spender, diag);
}

dure_err dure_site_ledger_release(dure_site_ledger *ledger, const dure_reservation_id *id,
                                  dure_diag *diag)
{
    return change(ledger, id, DURE_RESERVATION_RELEASED, NULL, diag);
}

dure_err dure_site_ledger_use(dure_site_ledger *ledger, const dure_reservation_id *id,
                              const dure_ledger_use *use, dure_diag *diag)
{
    if (use->round > INT64_MAX || use->to > INT64_MAX)
        return dure_diag_set(diag, DURE_ERR_USAGE, "a round or step of the plan is out of range");
    dure_err err = dure_ledger_begin(ledger, diag);
    if (err) return err;
    const dure_ledger_item *item = dure_ledger_find_item(ledger, id);
    err = item ? dure_ledger_check_use(&item->reservation, use, diag) : unknown(ledger, diag);
    if (!err)
        err = dure_ledger_append(ledger,
                                 json_pack("{s:s, s:o, s:I, s:I, s:I, s:I}", "kind", "use", "id",
                                           dure_json_from_hex(id->b, sizeof id->b), "round",
                                           (json_int_t)use->round, "from", (json_int_t)use->from,
                                           "to", (json_int_t)use->to, "at",
                                           (json_int_t)dure_clock_wall_s()),
                                 diag);
    dure_ledger_end(ledger);
    return err;
}

dure_err dure_site_ledger_refresh(dure_site_ledger *ledger, dure_diag *diag)
{
    dure_err err = dure_ledger_begin(ledger, diag);
    if (!err) dure_ledger_end(ledger);
    return err;
}

size_t dure_site_ledger_source_count(const dure_site_ledger *ledger)
{
    return ledger->n_sources;
}

void dure_site_ledger_source_at(dure_source_status *out, const dure_site_ledger *ledger, size_t i)
{
    DURE_ASSERT(i < ledger->n_sources);
    dure_ledger_status(out, ledger, &ledger->sources[i]);
}

dure_err dure_site_ledger_source(dure_source_status *out, const dure_site_ledger *ledger,
                                 const char *name, dure_diag *diag)
{
    const dure_ledger_source *source = dure_ledger_find_source(ledger, name);
    if (!source)
        return dure_diag_set(diag, DURE_ERR_NOT_FOUND,
                             "the privacy ledger %s has no data source '%s'", ledger->path, name);
    dure_ledger_status(out, ledger, source);
    return DURE_OK;
}

size_t dure_site_ledger_reservation_count(const dure_site_ledger *ledger)
{
    return ledger->n_items;
}

const dure_reservation *dure_site_ledger_reservation_at(const dure_site_ledger *ledger, size_t i)
{
    DURE_ASSERT(i < ledger->n_items);
    return &ledger->items[i].reservation;
}

dure_err dure_site_ledger_reservation(const dure_reservation **out, const dure_site_ledger *ledger,
                                      const dure_reservation_id *id, dure_diag *diag)
{
    const dure_ledger_item *item = dure_ledger_find_item(ledger, id);
    *out = item ? &item->reservation : NULL;
    return item ? DURE_OK : unknown(ledger, diag);
}

void dure_site_ledger_head(dure_hash *head, uint64_t *n_entries, const dure_site_ledger *ledger)
{
    DURE_ASSERT(ledger->n_chain > 0);
    *head = ledger->chain[ledger->n_chain - 1];
    *n_entries = ledger->n_chain;
}

bool dure_site_ledger_contains(const dure_site_ledger *ledger, const dure_hash *head)
{
    for (size_t i = ledger->n_chain; i > 0; i--) {
        if (dure_hash_equal(&ledger->chain[i - 1], head)) return true;
    }
    return false;
}
