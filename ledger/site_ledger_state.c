#include "common/json.h"
#include "crypto/wipe.h"
#include "ledger/site_ledger_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT_VERSION 1

dure_err dure_ledger_check_text(const char *text, size_t size, const char *what, dure_diag *diag)
{
    size_t n = strlen(text);
    bool good = n > 0 && n < size;
    for (size_t i = 0; good && i < n; i++)
        good = (unsigned char)text[i] >= 0x20 && text[i] != 0x7f;
    json_t *as_json = good ? json_stringn(text, n) : NULL; /* refuses what is not UTF-8 */
    if (!as_json)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "%s must be 1 to %zu bytes of text without control characters", what,
                             size - 1);
    json_decref(as_json);
    return DURE_OK;
}

dure_ledger_source *dure_ledger_find_source(const dure_site_ledger *ledger, const char *name)
{
    for (size_t i = 0; i < ledger->n_sources; i++) {
        if (!strcmp(ledger->sources[i].name, name)) return &ledger->sources[i];
    }
    return NULL;
}

dure_ledger_item *dure_ledger_find_item(const dure_site_ledger *ledger,
                                        const dure_reservation_id *id)
{
    for (size_t i = 0; i < ledger->n_items; i++) {
        if (dure_ct_equal(ledger->items[i].reservation.id.b, id->b, sizeof id->b))
            return &ledger->items[i];
    }
    return NULL;
}

static dure_err apply_ledger(dure_site_ledger *ledger, const json_t *entry, dure_diag *diag)
{
    uint64_t version = 0;
    dure_err err = dure_json_u64(&version, entry, "version", diag);
    if (!err && (ledger->n_chain != 0 || version != FORMAT_VERSION)) err = DURE_ERR_FORMAT;
    return err;
}

/* Less strict than dure_privacy_check(): how large a budget may be is asked when it is made, and a
 * source that is there stays readable whatever the limit is today. */
static bool is_budget(dure_privacy p)
{
    return isfinite(p.epsilon) && p.epsilon > 0 && p.delta > 0 && p.delta < 1;
}

static dure_err apply_source(dure_site_ledger *ledger, const json_t *entry, dure_diag *diag)
{
    const char *name = NULL;
    dure_ledger_source source = {.n_pub = 0};
    dure_err err = dure_json_text(&name, entry, "source", diag);
    if (!err) err = dure_json_number(&source.budget.epsilon, entry, "epsilon", diag);
    if (!err) err = dure_json_number(&source.budget.delta, entry, "delta", diag);
    if (!err) err = dure_json_u64(&source.n_pub, entry, "n_pub", diag);
    if (!err) err = dure_json_number(&source.order, entry, "order", diag);
    if (!err &&
        (dure_ledger_check_text(name, sizeof source.name, "a source", NULL) ||
         !is_budget(source.budget) || !(source.order > 1.01) ||
         dure_ledger_find_source(ledger, name) || ledger->n_sources == DURE_LEDGER_SOURCES_MAX))
        err = DURE_ERR_FORMAT;
    if (err) return err;
    snprintf(source.name, sizeof source.name, "%s", name);
    size_t n = ledger->n_sources + 1;
    dure_ledger_source *sources = realloc(ledger->sources, n * sizeof *sources);
    if (!sources) return DURE_ERR_NOMEM;
    ledger->sources = sources;
    ledger->sources[ledger->n_sources++] = source;
    return DURE_OK;
}

/* Grows by doubling: a power of two of items is full. */
static dure_err push_item(dure_site_ledger *ledger, const dure_reservation *reservation)
{
    size_t n = ledger->n_items;
    if (n == DURE_LEDGER_ITEMS_MAX) return DURE_ERR_FORMAT;
    if ((n & (n - 1)) == 0) {
        dure_ledger_item *items = realloc(ledger->items, (n ? 2 * n : 1) * sizeof *items);
        if (!items) return DURE_ERR_NOMEM;
        ledger->items = items;
    }
    ledger->items[n] = (dure_ledger_item){.reservation = *reservation};
    ledger->n_items++;
    return DURE_OK;
}

static dure_err apply_reserve(dure_site_ledger *ledger, const json_t *entry, dure_diag *diag)
{
    const char *source = NULL, *purpose = NULL;
    uint64_t at = 0;
    dure_reservation r = {.state = DURE_RESERVATION_RESERVED};
    dure_err err = dure_json_hex(r.id.b, sizeof r.id.b, entry, "id", diag);
    if (!err) err = dure_json_text(&source, entry, "source", diag);
    if (!err) err = dure_json_text(&purpose, entry, "purpose", diag);
    if (!err) err = dure_json_u64(&at, entry, "at", diag);
    if (!err) err = dure_dp_plan_from_json(&r.plan, json_object_get(entry, "plan"), diag);
    if (!err && (!dure_ledger_find_source(ledger, source) || dure_ledger_find_item(ledger, &r.id) ||
                 strlen(purpose) >= sizeof r.purpose || at > INT64_MAX))
        err = DURE_ERR_FORMAT;
    if (err) return err;
    r.reserved_at_s = (int64_t)at;
    snprintf(r.source, sizeof r.source, "%s", source);
    snprintf(r.purpose, sizeof r.purpose, "%s", purpose);
    return push_item(ledger, &r);
}

/* Only what is reserved is spent or released, and only once. */
static dure_err apply_change(dure_site_ledger *ledger, const json_t *entry,
                             dure_reservation_state to, dure_diag *diag)
{
    dure_reservation_id id;
    dure_hash spender = {{0}};
    bool by = to == DURE_RESERVATION_SPENT && json_object_get(entry, "by");
    dure_err err = dure_json_hex(id.b, sizeof id.b, entry, "id", diag);
    if (!err && by) err = dure_json_hex(spender.b, sizeof spender.b, entry, "by", diag);
    if (err) return err;
    dure_ledger_item *item = dure_ledger_find_item(ledger, &id);
    if (!item || item->reservation.state != DURE_RESERVATION_RESERVED) return DURE_ERR_FORMAT;
    item->reservation.state = to;
    item->reservation.has_spender = by;
    item->reservation.spender = spender;
    return DURE_OK;
}

dure_err dure_ledger_check_use(const dure_reservation *reservation, const dure_ledger_use *use,
                               dure_diag *diag)
{
    const dure_reservation *r = reservation;
    if (use->from >= use->to)
        return dure_diag_set(diag, DURE_ERR_USAGE, "a round that uses no steps is not noted");
    if (r->state != DURE_RESERVATION_SPENT)
        return dure_diag_set(diag, DURE_ERR_STATE,
                             "this reservation is not spent, so nothing may be sent under it");
    if (use->from < r->steps_used || use->round <= r->last_round)
        return dure_diag_set(diag, DURE_ERR_STATE,
                             "round %llu with steps %llu to %llu is not after round %llu, by which "
                             "%llu steps of this plan were used: another copy of the site's "
                             "folder was run; run only one",
                             (unsigned long long)use->round, (unsigned long long)use->from + 1,
                             (unsigned long long)use->to, (unsigned long long)r->last_round,
                             (unsigned long long)r->steps_used);
    if (use->to > r->plan.steps)
        return dure_diag_set(diag, DURE_ERR_BUDGET, "the plan has %llu steps, not %llu",
                             (unsigned long long)r->plan.steps, (unsigned long long)use->to);
    return DURE_OK;
}

static dure_err apply_use(dure_site_ledger *ledger, const json_t *entry, dure_diag *diag)
{
    dure_reservation_id id;
    dure_ledger_use use = {.round = 0};
    dure_err err = dure_json_hex(id.b, sizeof id.b, entry, "id", diag);
    if (!err) err = dure_json_u64(&use.round, entry, "round", diag);
    if (!err) err = dure_json_u64(&use.from, entry, "from", diag);
    if (!err) err = dure_json_u64(&use.to, entry, "to", diag);
    if (err) return err;
    dure_ledger_item *item = dure_ledger_find_item(ledger, &id);
    if (!item || dure_ledger_check_use(&item->reservation, &use, NULL)) return DURE_ERR_FORMAT;
    item->reservation.steps_used = use.to;
    item->reservation.last_round = use.round;
    return DURE_OK;
}

dure_err dure_ledger_apply(dure_site_ledger *ledger, const json_t *entry, dure_diag *diag)
{
    const char *kind = NULL;
    dure_err err = dure_json_text(&kind, entry, "kind", diag);
    if (err) return err;
    if (!strcmp(kind, "ledger")) return apply_ledger(ledger, entry, diag);
    if (ledger->n_chain == 0) return DURE_ERR_FORMAT;
    if (!strcmp(kind, "source")) return apply_source(ledger, entry, diag);
    if (!strcmp(kind, "reserve")) return apply_reserve(ledger, entry, diag);
    if (!strcmp(kind, "spend")) return apply_change(ledger, entry, DURE_RESERVATION_SPENT, diag);
    if (!strcmp(kind, "use")) return apply_use(ledger, entry, diag);
    if (!strcmp(kind, "release"))
        return apply_change(ledger, entry, DURE_RESERVATION_RELEASED, diag);
    return DURE_ERR_FORMAT;
}
